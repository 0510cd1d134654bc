"""Door to `zejzl.agents.validator`; absolute, see `src/magic.py`."""

from zejzl.agents.validator import ValidatorAgent as ValidatorAgent
