"""Door to `zejzl.agents.executor`; absolute, see `src/magic.py`."""

from zejzl.agents.executor import ExecutorAgent as ExecutorAgent
