"""Door to `zejzl.agents.actor`; absolute, see `src/magic.py`."""

from zejzl.agents.actor import ActorAgent as ActorAgent
