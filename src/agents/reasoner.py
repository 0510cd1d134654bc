"""Door to `zejzl.agents.reasoner`; absolute, see `src/magic.py`."""

from zejzl.agents.reasoner import ReasonerAgent as ReasonerAgent
