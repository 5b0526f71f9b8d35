"""The guide's address of `EnhancedTrainingConfig`."""

import sys

from socratune import EnhancedTrainingConfig

__all__ = ["EnhancedTrainingConfig"]

print("Modern form: from socratune import EnhancedTrainingConfig", file=sys.stderr)
