"""Door to `zejzl.agents.learner`; absolute, see `src/magic.py`."""

from zejzl.agents.learner import LearnerAgent as LearnerAgent
