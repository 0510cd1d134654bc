"""Door to `zejzl.agents.pantheon`; absolute, see `src/magic.py`."""

from zejzl.agents.pantheon import Pantheon as Pantheon
