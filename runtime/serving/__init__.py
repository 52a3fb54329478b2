"""HTTP: what perdure serves, and what it asks of others that serve."""
