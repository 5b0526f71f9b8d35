"""Finds what in a model's small files would fail or mislead later: tokenizer, chat template, configuration.

It takes seconds, before anything is paid for or loaded, for a folder as for a model on the Hub.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from socratune.config import PLAIN
from socratune.errors import Fault, OutsideError, Shown, UserError, one_line, without_extra
from socratune.inference.controls import Tokenizer, controls_of
from socratune.inference.known import note, recall
from socratune.inference.template import end_of_turn_id, ends_turns, prompt_ids, prompt_text, system_place
from socratune.llm import default_template, model_file, model_json, model_location
from socratune.resolve import given_template
from socratune.rows import QARow, Rejected

log = logging.getLogger(__name__)

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "tekken.json")
_USER = {"role": "user", "content": "Xq7user"}
_ANSWERED = [_USER, {"role": "assistant", "content": "Xq7answer"}, _USER]
_SHORT = 2
"""A row has fewer tokens than the model has positions if its bytes are fewer than the positions over this."""


@dataclass(frozen=True, slots=True)
class Fitness:
    """What a check of a model's files has found.

    Attributes:
        faults: why it can neither chat nor be trained.
        notes: sentences on what works otherwise than expected.
    """

    faults: tuple[Fault, ...] = ()
    notes: tuple[str, ...] = ()


def load_tokenizer(name: str, where: str = "--model") -> Tokenizer:
    """Returns the tokenizer of a model, with its own chat template or the configured one.

    Args:
        name: a folder, a Hub id, or `demo`.
        where: names it in a fault.

    Raises:
        UserError: it cannot be read, or has no chat template.
        OutsideError: it is on the Hub, and the Hub could not be asked.
    """
    return _read_tokenizer(name, where)[0]


def _read_tokenizer(name: str, where: str) -> tuple[Tokenizer, list[str]]:
    """Returns the tokenizer, and notes on its template."""
    model_json(name, "tokenizer_config.json")  # raises if the Hub does not answer, as transformers does not
    try:
        tokenizer = _by_its_class(name)
    except OutsideError:
        raise
    except Exception as error:  # tokenizers and transformers raise errors of many kinds
        if missing := without_extra(error):
            raise missing from error
        fix = "Take a model folder with its tokenizer files."
        raise UserError(Fault(f"{where} {name}", "a tokenizer that can be read", one_line(error), fix)) from error
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None and type(backend.model).__name__ == "BPE":
        tokenizer.clean_up_tokenization_spaces = False  # transformers ignores it, and warns about True
    own, notes = tokenizer.chat_template, []
    template = given_template(name) or default_template(own)
    if isinstance(own, dict) and template is not None and template in own.values():
        chosen, others = "default", ", ".join(sorted(key for key in own if own[key] != template))
        notes = [f"{name} has several chat templates by name: {chosen} is used{f', not {others}' if others else ''}."]
    if template is None:
        raise UserError(_no_template(name, where, own))
    tokenizer.chat_template = template
    return tokenizer, notes


def _by_its_class(name: str) -> Any:
    """Returns the tokenizer as `AutoTokenizer` reads it, and notes its class if that class alone reads the same."""
    location = model_location(name)
    if isinstance(kind := recall(name, "tokenizer"), list):
        module, called = kind
        return getattr(import_module(module), called).from_pretrained(location)
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(location)
    kind = type(tokenizer)
    if kind.__module__.startswith("transformers.") and _reads(kind.from_pretrained(location)) == _reads(tokenizer):
        note(name, "tokenizer", value=[kind.__module__, kind.__name__])
    return tokenizer


def _reads(tokenizer: Any) -> list[Any]:
    """Returns what decides the behaviour of a tokenizer of the `tokenizers` library; for others, a unique value."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    kept = {name: value for name, value in vars(tokenizer).items() if not name.startswith("_tokenizer")}
    return [backend.to_str() if backend else object(), repr(kept)]


def _no_template(name: str, where: str, own: Any) -> Fault:
    fix = f"Take the instruct version of the model, or give one: --chat-template FILE, or --chat-template {PLAIN} for a"
    fix += " simple one of ours."
    if isinstance(own, dict) and own:
        return Fault(f"{where} {name}", "a chat template named default", Shown(f"those named {', '.join(own)}"), fix)
    return Fault(f"{where} {name}", "a tokenizer with a chat template", Shown("none"), fix)


def has_tokenizer(name: str) -> bool:
    """Returns True if a model has tokenizer files; a plan may need no more than a `config.json`."""
    return any(model_file(name, file) is not None for file in _TOKENIZER_FILES)


def chat_fitness(name: str, where: str = "--model") -> Fitness:
    """Returns what would fail or mislead when a model is asked, or trained with its chat template.

    Args:
        name: a folder, a Hub id, or `demo`, which has passed `model_fault`.
        where: names it in the faults.

    Raises:
        OutsideError: it is on the Hub, and the Hub could not be asked.
    """
    known = recall(name, "chat", given_template(name))
    if isinstance(known, list):
        return Fitness(notes=tuple(known))
    fitness = _chat_fitness(name, where)
    if not fitness.faults:
        note(name, "chat", given_template(name), value=fitness.notes)
    return fitness


def _chat_fitness(name: str, where: str) -> Fitness:
    try:
        config = _read_config(name, where)
        tokenizer, notes = _read_tokenizer(name, where)
        prompt = prompt_text(tokenizer, [_USER])
        end = end_of_turn_id(tokenizer)
    except UserError as error:
        return Fitness(error.faults)
    if _USER["content"] not in prompt:
        fix = "Give another: --chat-template FILE."
        got = Shown("one that leaves them out")
        return Fitness((Fault(f"{where} {name}", "a chat template that shows the user's words", got, fix),))
    notes += _template_notes(name, tokenizer, end)
    try:
        fault = _beyond_embedding(name, where, tokenizer, config, end)
    except UserError as error:  # about several turns
        notes, fault = [*notes, str(error)], None
    return Fitness((fault,) if fault else (), tuple(notes))


def _read_config(name: str, where: str) -> Any:
    """Returns the configuration as transformers reads it.

    Raises:
        UserError: it cannot be read, or is not that of a causal language model.
    """
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig

    model_json(name, "config.json")
    expected = "a causal language model that transformers knows"
    try:
        config = AutoConfig.from_pretrained(model_location(name))
        known = type(config) in MODEL_FOR_CAUSAL_LM_MAPPING
        getattr(config.get_text_config(), "vocab_size", None)
    except Exception as error:  # unexpected values fail in many ways
        raise UserError(Fault(f"{where} {name}", expected, one_line(error))) from error
    if not known and not hasattr(config, "auto_map"):
        raise UserError(Fault(f"{where} {name}", expected, Shown(f"model_type {config.model_type!r}")))
    return config


def _template_notes(name: str, tokenizer: Tokenizer, end: int) -> list[str]:
    notes = []
    if (place := system_place(tokenizer)) != "system":
        effect = "its words precede those of the first user turn" if place == "user" else "rows with one are refused"
        notes.append(f"The chat template of {name} has no place for a system turn: {effect}.")
    word = tokenizer.decode([end])
    if not ends_turns(tokenizer):
        notes.append(f"The chat template of {name} writes no end after an answer: {word!r} is trained as its end.")
    stops = model_json(name, "generation_config.json").get("eos_token_id")
    stops = [tokenizer.eos_token_id, *(stops if isinstance(stops, list) else [stops])]
    if end not in stops:
        text = "neither its tokenizer nor its generation_config.json says to stop: others may not stop there"
        notes.append(f"The chat template of {name} ends an answer with {word!r}, at which {text}.")
    return notes


def _beyond_embedding(name: str, where: str, tokenizer: Tokenizer, config: Any, end: int) -> Fault | None:
    """Returns a fault if a token can occur for which the model has no row.

    A token that only a control token in a text would need (an image's, in Gemma 3) cannot occur, since texts have none
    here.
    """
    size = getattr(config.get_text_config(), "vocab_size", None)
    if not isinstance(size, int):
        return None
    written = set(prompt_ids(tokenizer, [_USER]) + prompt_ids(tokenizer, _ANSWERED)) | {end}
    written |= {token for token in (tokenizer.eos_token_id, tokenizer.pad_token_id) if token is not None}
    ordinary = set(tokenizer.get_vocab().values()) - controls_of(tokenizer).ids
    beyond = sorted(token for token in written | ordinary if token >= size)
    if not beyond:
        return None
    words = ", ".join(f"{tokenizer.convert_ids_to_tokens(token)!r} = {token}" for token in beyond[:3])
    got = Shown(f"{len(beyond)} beyond it ({words}{', …' if len(beyond) > 3 else ''})")
    fix = "Take the tokenizer that belongs to these weights, or save the model after resize_token_embeddings."
    expected = f"ids below {size}, which the model's embedding has, in its tokenizer and chat template"
    return Fault(f"{where} {name}", expected, got, fix)


def positions_of(name: str) -> int | None:
    """Returns how many positions a model has; None if its configuration does not say."""
    config = model_json(name, "config.json")
    inner = config.get("text_config")
    config = inner if isinstance(inner, dict) else config
    keys = ("max_position_embeddings", "n_positions", "n_ctx")
    count = next((config[key] for key in keys if key in config), None)
    return count if isinstance(count, int) and count > 0 else None


class RowScreen:
    """Finds why a model can neither be asked nor trained on a row. It reads the tokenizer at the first row.

    Attributes:
        key: equal for screens that judge alike.
    """

    def __init__(self, name: str) -> None:
        self.key = (name, given_template(name))
        self._name = name
        self._tokenizer: Tokenizer | None = None
        self._positions: int | None = None
        self._shapes: dict[tuple[str, ...], str | None] = {}  # roles → why the template does not take them

    def __call__(self, row: QARow) -> Rejected | None:
        """Returns `control_token`, `chat_template` or `too_long`, with a reason in words; None for a good row."""
        if self._tokenizer is None:
            self._tokenizer, self._positions = load_tokenizer(self._name), positions_of(self._name)
        return next(self._reasons(row, self._tokenizer), None)

    def _reasons(self, row: QARow, tokenizer: Tokenizer) -> Iterator[Rejected]:
        controls = controls_of(tokenizer)
        for turn in row.messages:
            if held := controls.found(turn["content"]):
                text = f"{held[0]!r} in the {turn['role']} turn, a control token of {self._name}"
                yield Rejected("control_token", text, id=row.id)
        if reason := self._refused(row, tokenizer):
            yield Rejected("chat_template", reason, id=row.id)
        size = sum(len(turn["content"].encode("utf-8", "replace")) for turn in row.messages)
        if self._positions and (size + 32 * len(row.messages)) * _SHORT > self._positions:
            count = len(prompt_ids(tokenizer, row.prompt)) + len(controls.text_ids(row.reference)) + 1
            if count > self._positions:
                text = f"{count} tokens with its reference answer; {self._name} has {self._positions} positions"
                yield Rejected("too_long", text, id=row.id)

    def _refused(self, row: QARow, tokenizer: Tokenizer) -> str | None:
        """Returns why the template does not take the turns of a row. Each order of roles is tried once."""
        roles = tuple(turn["role"] for turn in row.prompt)
        if roles not in self._shapes:
            reason = None
            if roles[0] == "system" and system_place(tokenizer) == "nowhere":
                reason = "the chat template drops the system turn"
            try:
                prompt_text(tokenizer, row.prompt)
            except UserError as error:
                reason = f"the chat template does not take ({', '.join(roles)}): {error.faults[0].got}"
            self._shapes[roles] = reason
        return self._shapes[roles]
