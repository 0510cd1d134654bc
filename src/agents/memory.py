"""Door to `zejzl.agents.memory`; absolute, see `src/magic.py`."""

from zejzl.agents.memory import MemoryAgent as MemoryAgent
