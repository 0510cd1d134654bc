"""Lets `from src.magic import FairyMagic` work from the root of a bare clone.

Where zejzl is installed this adds nothing: the installed package is the one.
"""

import sys
from importlib.util import find_spec
from pathlib import Path

if find_spec("zejzl") is None:
    sys.path.append(str(Path(__file__).resolve().parent))
