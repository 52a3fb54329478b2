"""The embeddable runtime: wiring, the outside world, the command line."""
