"""Models in this process, by name: the student, and a judge or teacher `local/NAME` beside it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from socratune.modelref import model_location, weights_fingerprint

if TYPE_CHECKING:
    from socratune.student import LocalStudent


class LocalModels:
    """Loads a model when it is first asked for, and the same weights once, whatever they are called.

    A context manager; its end stops the worker threads. Student and judge of the same weights are answered in one
    batch, by the same thread.

    Attributes:
        load_in_4bit: for all of them, so that judge and student can be one.
    """

    def __init__(self, *, load_in_4bit: bool | str = "auto") -> None:
        self.load_in_4bit = load_in_4bit
        self._loaded: dict[str, LocalStudent] = {}

    def load(self, name: str, *, adapter: Path | None = None) -> LocalStudent:
        """The model at a folder, Hub id or `demo`. Takes as long as reading the weights takes.

        Args:
            adapter: a LoRA adapter to put on it; with it, the weights are loaded once more.

        Raises:
            UserError: there is no such model, or it cannot chat.
        """
        from socratune.load import load
        from socratune.student import LocalStudent

        weights = weights_fingerprint(model_location(name))
        if adapter is not None:
            weights += f"-{weights_fingerprint(str(adapter))}"
        if weights not in self._loaded:
            model, tokenizer = load(name, adapter=adapter, load_in_4bit=self.load_in_4bit)
            four_bit = getattr(model, "is_loaded_in_4bit", False)
            fingerprint = f"{weights}-4bit" if four_bit else weights
            self._loaded[weights] = LocalStudent(model, tokenizer, name=name, fingerprint=fingerprint)
        return self._loaded[weights]

    def close(self) -> None:
        """Stop the workers and let go of the weights."""
        while self._loaded:
            _, model = self._loaded.popitem()
            model.close()

    def __enter__(self) -> LocalModels:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
