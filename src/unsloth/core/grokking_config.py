"""The guide's address of `GrokkingConfig`."""

import sys

from socratune import GrokkingConfig

__all__ = ["GrokkingConfig"]

print("Modern form: from socratune import GrokkingConfig", file=sys.stderr)
