"""What a test of an application needs: a clock to move by hand, given/when/then, a log in memory, crashes.

Needs nothing but perdure; works with any test framework. The public names; nothing is defined here.
"""

if __name__ != "perdure.testing":
    raise ImportError(f"import perdure.testing, not {__name__}: this would be a second copy of it")

from perdure.testing.clock import PendingTimer, TestClock
from perdure.testing.crash import Crashable
from perdure.testing.disk import MemoryDisk
from perdure.testing.given import Given, Then, given

__all__ = ["Crashable", "Given", "MemoryDisk", "PendingTimer", "TestClock", "Then", "given"]
