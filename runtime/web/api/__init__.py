"""The HTTP API of a runtime: one table of endpoints, from which both the routes and their description are made."""
