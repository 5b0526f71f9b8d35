"""Loads what is served: a model, or a run's base and its adapter over one set of weights."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from socratune.errors import Fault, Shown, UserError
from socratune.evaluation import WEIGHTS
from socratune.inference import chat_fitness, identity
from socratune.llm import model_fault
from socratune.resolve import read_config_file, resolve_settings, take_template
from socratune.runs import RunDir, file_hash

if TYPE_CHECKING:
    from socratune.inference import LocalStudent

ADAPTER = "adapter"
"""The name under which a run's adapter answers."""

MAX_NEW_TOKENS = 1024
"""Of an answer whose request names no limit, where no run says otherwise."""


@dataclass(frozen=True, slots=True)
class Served:
    """A model under the name that requests use.

    Attributes:
        identity: who it is (`socratune.inference.provenance`); with `adapter`, the sha256 of the adapter's weights.
        max_new_tokens: of an answer whose request names no limit.
    """

    name: str
    student: LocalStudent
    identity: dict[str, Any]
    max_new_tokens: int = MAX_NEW_TOKENS


@contextmanager
def serving_models(what: str, template: str | None = None) -> Iterator[list[Served]]:
    """Yields the named models until the block ends. Loading takes as long as reading the weights.

    Args:
        what: the folder of a run, or a model: a folder, a Hub id or `demo`.
        template: the chat template of a model, as the setting means it; None: its own.

    Raises:
        UserError: it is neither, its adapter or the template does not fit, or a template is given to a run.
        OutsideError: it looks like a Hub id, and the Hub could not be asked.
    """
    if template is not None:
        if RunDir(what).config.is_file():
            fix = "Leave out --chat-template: a run uses the template that it was trained with."
            raise UserError(Fault("--chat-template", "a model to serve", Shown(f"the run {what}"), fix))
        take_template(what, template)
    name, four_bit, longest, adapter = _meant(what)
    fault = model_fault(name, "model")
    if faults := (fault,) if fault else chat_fitness(name, "model").faults:
        raise UserError(*faults)
    from socratune.inference import LocalStudent, load_model

    model, tokenizer = load_model(name, adapter=adapter, load_in_4bit=four_bit)
    who = identity(name, load_in_4bit=getattr(model, "is_loaded_in_4bit", False))
    with ExitStack() as stack:

        def served(called: str, who: dict[str, Any], turn: Any) -> Served:
            student = LocalStudent(model, tokenizer, name=called, fingerprint=called, turn=turn, ends_loops=False)
            stack.callback(student.close)
            return Served(called, student, who, longest)

        if adapter is None:
            yield [served(name, who, nullcontext)]
            return
        shared = SharedWeights(model)
        with_adapter = {**who, "adapter": file_hash(adapter / WEIGHTS)}
        models = [served(ADAPTER, with_adapter, partial(shared.turn, adapter=True))]
        if all(lora.bias == "none" for lora in model.peft_config.values()):  # else the base's own biases were replaced
            models.insert(0, served(name, who, partial(shared.turn, adapter=False)))
        yield models


def _meant(what: str) -> tuple[str, bool | str, int, Path | None]:
    """Returns the base, `load_in_4bit`, the most tokens of an answer, and the adapter if there is one."""
    run = RunDir(what)
    if not run.config.is_file():
        return what, "auto", MAX_NEW_TOKENS, None
    config = resolve_settings(read_config_file(run.config), where=str(run.config)).config
    adapter = run.adapter if (run.adapter / "adapter_config.json").is_file() else None
    return config.model, config.train.load_in_4bit, config.enhance.max_new_tokens, adapter


class SharedWeights:
    """One model for several threads. Each has it alone for a step, with or without the adapter, in turn.

    The batches of base and adapter are never mixed, so each answers as it would alone.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._with_adapter = True
        self._free = threading.Condition()
        self._drawn = self._called = 0  # tickets, as a lock may go to the same thread again and again

    @contextmanager
    def turn(self, *, adapter: bool) -> Iterator[None]:
        """Holds the model until the block ends. `adapter` says whether its adapter is active."""
        with self._free:
            ticket = self._drawn
            self._drawn += 1
            self._free.wait_for(lambda: self._called == ticket)
        try:
            if adapter != self._with_adapter:
                lora = self._model.base_model
                (lora.enable_adapter_layers if adapter else lora.disable_adapter_layers)()
                self._with_adapter = adapter
            yield
        finally:
            with self._free:
                self._called += 1
                self._free.notify_all()
