"""Records who wrote the traces, and compares that model with the one to train.

A LoRA adapter learns most from its base's own words. So the student's identity is recorded with its traces, and
training grades it: `same`, `near` (another engine or quantisation, or an adapter on the very base), `foreign` (other
weights or another chat template), or `unverified` (a server's name proves nothing, unless this run started the server).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from socratune.errors import Fault, Shown
from socratune.inference.memory import torch_device
from socratune.inference.template import IGNORE, render
from socratune.llm import Sampling, StudentEngine, chat_template, local_name, model_revision, weights_hash
from socratune.rows import Example
from socratune.runs import fingerprint

Grade = Literal["same", "near", "foreign", "unverified"]


def identity(
    name: str,
    *,
    engine: StudentEngine = "local",
    load_in_4bit: bool | str = False,
    sampling: Sampling | None = None,
    adapter: Path | None = None,
) -> dict[str, Any]:
    """Returns the identity of a student as JSON: name, engine, and all the rest if its files are at hand.

    Args:
        name: folder, Hub id or `demo`; with engine `http`, its name at the server.
        load_in_4bit: as configured; counts only if there is a GPU.
        sampling: how its answers were drawn; None for a base that answers nothing.
        adapter: the adapter on it.
    """
    who: dict[str, Any] = {"name": name, "engine": engine}
    if engine != "http":
        template = chat_template(name)
        who |= {
            "revision": model_revision(name),
            "weights": weights_hash(name),
            "template": None if template is None else fingerprint(template),
            "quantisation": "4bit"
            if engine == "local" and load_in_4bit is True and torch_device().type == "cuda"
            else "none",
        }
    if adapter is not None:
        who["adapter"] = weights_hash(str(adapter))
    return who if sampling is None else with_sampling(who, sampling)


def with_sampling(identity: dict[str, Any], sampling: Sampling) -> dict[str, Any]:
    """Returns a student's identity with its sampling settings."""
    shown = ("temperature", "top_p", "top_k", "max_new_tokens")
    return {**identity, "sampling": {name: getattr(sampling, name) for name in shown}}


def trace_writers(names: Iterable[str], recorded: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Returns the writers of a set of traces, as `student_grade` takes them.

    Args:
        names: the `student_model` of the traces.
        recorded: the identity of this run's own student; None if the traces come from elsewhere.
    """
    known = [] if recorded is None else [recorded]
    strangers = {name for name in names if recorded is None or _plain(name) != _plain(recorded["name"])}
    return known + [{"name": name} for name in sorted(strangers)]


def student_grade(student: dict[str, Any], base: dict[str, Any]) -> tuple[Grade, str]:
    """Returns how near the student is to the base that is trained, and why.

    Args:
        student: from `identity`, or only `{"name": …}` if nothing else is known (traces of another run).
        base: from `identity`, of the model that is trained.
    """
    same_name = _plain(student["name"]) == _plain(base["name"])
    if student.get("engine") == "http":
        hint = "under the base's name" if same_name else f"as {student['name']!r}"
        return "unverified", f"it was served {hint}, and a name proves nothing"
    if student.get("weights") is None or base.get("weights") is None:
        if not same_name:
            return "foreign", f"{student['name']!r} is another model"
        if None not in (student.get("revision"), base.get("revision")) and student["revision"] != base["revision"]:
            return "foreign", f"it is revision {student['revision']}, the base is {base['revision']}"
        return "unverified", "only its name is known"
    if student["weights"] != base["weights"]:
        return "foreign", f"{student['name']!r} has other weights"
    if student["template"] != base["template"]:
        return "foreign", f"{student['name']!r} has another chat template"
    differences = [
        f"{what} {student[what]!r} instead of {base[what]!r}"
        for what in ("quantisation", "engine")
        if student[what] != base[what] and (what, student[what]) != ("engine", "served")  # another machine, not engine
    ]
    if student.get("adapter"):
        differences.append("the adapter of an earlier round on the very base")
    if differences:
        return "near", " and ".join(differences)
    return "same", "the same weights, template and quantisation"


def foreign_fault(students: Iterable[dict[str, Any]], base: dict[str, Any], *, allowed: bool) -> Fault | None:
    """Returns a fault if the traces of these students must not be trained on.

    Args:
        students: the writers, as `student_grade` takes them.
        allowed: `train.allow_foreign_student`.
    """
    for student in students:
        grade, reason = student_grade(student, base)
        if grade == "foreign" and not allowed:
            fix = "Enhance the data set with the base itself, or say --set train.allow_foreign_student=true."
            return Fault("the traces' student", f"the base {base['name']!r}", Shown(reason), fix)
    return None


def mean_kl(model_a: Any, model_b: Any, tokenizer: Any, examples: list[Example]) -> float:
    """Returns the mean divergence KL(a‖b) of the next token in nats, over the trained tokens of the examples.

    It is 0 for the same model. Compare it with the effect of another quantisation, on 32 examples or so.

    Args:
        model_a: the student, in eval mode.
        model_b: the base as it is trained, in eval mode, with the same vocabulary.
        tokenizer: the tokenizer of both.
        examples: training rows.
    """
    import torch

    total, count = 0.0, 0
    for example in examples:
        row = render(tokenizer, example)
        before = torch.tensor(
            [label != IGNORE for label in row.labels[1:]]
        )  # (T-1,) places that predict a trained token
        log_probs = []
        for model in (model_a, model_b):
            with torch.inference_mode():
                logits = model(input_ids=torch.tensor([row.ids], device=model.device), use_cache=False).logits
            log_probs.append(logits[0, :-1][before.to(logits.device)].float().log_softmax(-1).cpu())
        first, second = log_probs
        total += float((first.exp() * (first - second)).sum())
        count += int(before.sum())
    return total / count


def _plain(name: str) -> str:
    """Returns NAME for `local/NAME`, which is the same model."""
    return local_name(name) or name
