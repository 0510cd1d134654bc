"""Door to `zejzl.agents.improver`; absolute, see `src/magic.py`."""

from zejzl.agents.improver import ImproverAgent as ImproverAgent
