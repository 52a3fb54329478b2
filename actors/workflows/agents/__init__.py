"""Agents: named handlers with capabilities, which steps of workflows call."""
