"""Where published model cards find `model_location`; new cards import it from `socratune`."""

from socratune.llm import model_location

__all__ = ["model_location"]
