"""The guide's address of `StudentTeacherConfig`."""

import sys

from socratune import StudentTeacherConfig

__all__ = ["StudentTeacherConfig"]

print("Modern form: from socratune import StudentTeacherConfig", file=sys.stderr)
