"""Door to `zejzl.agents.observer`; absolute, see `src/magic.py`."""

from zejzl.agents.observer import ObserverAgent as ObserverAgent
