"""The tour: `python token_haze.py` is `zejzl tour`, and takes what that takes."""

import sys

import ai_framework  # noqa: F401 - in a bare clone it finds the package
from zejzl.cli import main

if __name__ == "__main__":
    sys.exit(main(["tour", *sys.argv[1:]]))
