"""The command line: parse, call one public function, print."""

from socratune.cli.app import main

__all__ = ["main"]
