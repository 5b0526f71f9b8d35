"""The codes of errors, and `socratune explain`, which prints what the troubleshooting page says of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from socratune.errors import BusyError, Fault, Shown, SocratuneError, StageFailed, UserError

TROUBLESHOOTING = Path(__file__).with_name("troubleshooting.md")
"""The page of the docs, too: `scripts/reference_docs.py` copies it there."""
_DOCS = "https://github.com/socratune/socratune/blob/main/docs/"
_HEADING = re.compile(r"^### (S\d{3}): .+$", re.MULTILINE)

FAILED_VERDICT = "S101"
_NEGATIVE = {
    "S102": r"nothing to train on|No trainable row|No question",
    "S103": r"^Not published",
    "S104": r"^Not exported",
    "S105": r"at step \d",
    "S106": r"out of memory",
}
_MISTAKES = {
    "S200": r"expected (a known key|a value)",
    "S215": r"local[_-]only",
    "S217": r"^train\.jsonl",
    "S205": r"not installed|an installed package|the package |the librar|no such package",
    "S216": r"expected rows to train on|dev rows",
    "S206": r"^the GPU|^where\.place|where\.max_local_hours|GiB",
    "S204": r"in the environment|API key|_TOKEN|_KEY\b",
    "S218": r"python:|that can be imported",
    "S209": r"max[_-]usd|^budget",
    "S210": r"RunPod|runpod|^pods|rented|^where\.|^ssh",
    "S211": r"hub[_-]id|publish\.base",
    "S212": r"--env\b|^env\.",
    "S213": r"--source|arangodb|^--aql|^--graph|^--collections|generate\.source|^\*\.",
    "S203": (
        r"(judge|teacher|student|writer|checker)[_ -](model|mode|api|engine)|^API base|"
        r"behind an address|a vendor's API|\bbatch"
    ),
    "S202": (
        r"--model|model folder|base model|model on the Hugging Face Hub|language model|"
        r"chat template|tokenizer|GGUF|train\.model_name"
    ),
    "S214": (
        r"a log |samples|a metric|--metric|--lower|--cluster|--margin|^compare|scored? |"
        r"of the same questions|correct"
    ),
    "S207": (
        r"--output|--restart|--shard|\ba run\b|the run\b|journal|shard|LoRA adapter|of a validation|"
        r"as publish writes|earlier stage|provenance"
    ),
    "S201": (
        r"--dataset|--held-out|question-answer|, (line|row) \d|data set|rows|UTF-8|JSON|gzip|CSV|"
        r"Parquet|split "
    ),
}
_OUTSIDE = {
    "S305": r"has changed while",
    "S301": r"Hugging Face Hub|the Hub\b",
    "S307": r"ArangoDB|--aql|arangodb|the database",
    "S304": r"rented|RunPod|pod\b|machine|ssh",
    "S306": r"\bRay\b|vLLM|llama\.cpp|lm-eval",
    "S303": r"disk|cannot be (written|used)|space|journal",
    "S302": r"\b[45]\d\d\b|credit|batch|http|answer|connect|failed|server|refused",
}
"""By code, what the message of such an error holds; the first that fits counts. Names of settings, flags, files and
programs are looked for, which stay when a sentence is put better.
"""


def code_of(message: str, kind: type[BaseException] = UserError) -> str:
    """Returns the code of an error with this message, or of one fault of it."""
    if issubclass(kind, BusyError):
        return "S208"
    families = ((StageFailed, _NEGATIVE, "S100"), (UserError, _MISTAKES, "S200"), (SocratuneError, _OUTSIDE, "S300"))
    for family, patterns, other in families:
        if issubclass(kind, family):
            return next((code for code, pattern in patterns.items() if re.search(pattern, message)), other)
    return "S700"


def codes_of(error: SocratuneError) -> list[str]:
    """Returns the codes of an error, each once; several where it holds several faults."""
    faults = [str(replace(fault, fix="")) for fault in error.faults] if isinstance(error, UserError) else [str(error)]
    return [*dict.fromkeys(code_of(fault, type(error)) for fault in faults)]


def hint(codes: Sequence[str]) -> str:
    """Returns the line that ends an error message."""
    return f"Run socratune explain {' '.join(codes)} for help."


def sections() -> dict[str, str]:
    """Returns the sections of the page by code, as text for a terminal."""
    text = TROUBLESHOOTING.read_text("utf-8")
    found = {}
    for match in _HEADING.finditer(text):
        body = re.split(r"^##", text[match.end() :], maxsplit=1, flags=re.MULTILINE)[0]
        body = re.sub(r"\[([^]]+)\]\(#[^)]*\)", r"\1", body)
        body = re.sub(r"\[([^]]+)\]\(([^)]+)\)", rf"\1 ({_DOCS}\2)", body)
        found[match[1]] = f"{match[0].removeprefix('### ')}{body}".strip()
    return found


def explained(codes: Sequence[str]) -> str:
    """Returns the sections for some codes.

    Raises:
        UserError: a code does not exist.
    """
    known = sections()
    wanted = [f"S{code}" if code.isdigit() else code.upper() for code in codes]
    expected = f"a code of {_DOCS}troubleshooting.md, such as S203"
    if faults := [Fault("explain", expected, Shown(code)) for code in wanted if code not in known]:
        raise UserError(*faults)
    return "\n\n".join(known[code] for code in wanted)
