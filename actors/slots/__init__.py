"""Slots: sandboxed workspaces in which commands run, who holds them, and the trajectories that do."""
