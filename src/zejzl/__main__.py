"""`python -m zejzl` is `zejzl`."""

import sys

if __name__ == "__main__":
    from zejzl.cli import main

    sys.exit(main())
