"""Runs: functions whose steps are in the log, and which go on where they stopped."""
