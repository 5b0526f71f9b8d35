"""`python -m socratune` is the command `socratune`."""

import sys

from socratune.cli import main

if __name__ == "__main__":
    sys.exit(main())
