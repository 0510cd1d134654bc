"""Door to `zejzl.agents.analyzer`; absolute, see `src/magic.py`."""

from zejzl.agents.analyzer import AnalyzerAgent as AnalyzerAgent
