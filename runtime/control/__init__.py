"""Reaching a runtime from other processes of the same user, over a Unix socket beside its log."""
