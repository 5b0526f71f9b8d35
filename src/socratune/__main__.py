"""`python -m socratune` is the command `socratune`."""

import sys

from socratune.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
