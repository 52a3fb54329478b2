"""Whether runs in memory can go on by themselves, or only wait for children that cannot. Read off the state.

Such a run stays in memory for a while, since a child may end soon; nobody has to wait for that. Invariant: what is on
its way, to the disk or between runs, counts as going on.
"""

from collections.abc import Collection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from perdure.actors.workflows.driver import Driver
    from perdure.actors.workflows.kin import Kin


def only_expect(drivers: "Collection[Driver]", kin: "Kin") -> bool:
    """Return whether each of these runs does nothing but wait for children, of which none has ended."""
    return len(kin.expecting) == len(drivers) and all(_only_expects(driver) for driver in drivers)


def _only_expects(driver: "Driver") -> bool:
    return driver.ending is None and not driver.is_stirring and driver.offspring.are_open
