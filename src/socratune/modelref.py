"""The place from which older model cards import `model_location`. New cards import it from `socratune`."""

from socratune.llm import model_location

__all__ = ["model_location"]
