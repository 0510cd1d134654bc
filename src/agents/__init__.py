"""Doors to `zejzl.agents`, one for each."""
