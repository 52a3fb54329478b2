"""What a test of an application needs: a clock, given/when/then, crash points."""

if __name__ != "perdure.testing":
    raise ImportError(f"import perdure.testing, not {__name__}: this would be a second copy of it")
