"""Workflows as data: the definition, how it is read and checked, and the seven patterns that perform it."""
