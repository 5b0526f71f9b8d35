"""Who wrote the traces, and is it the model that is trained on them?

A LoRA adapter learns most from its base's own words. So the student's identity is recorded with what it wrote, and
training grades it: `same`, `near` (another engine or quantisation, or an adapter on the very base), `foreign` (other
weights or another chat template), or `unverified` (nobody can look behind a server's name, unless this run started the
server itself).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from socratune.errors import Fault, Shown
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
    """What identifies a student, as JSON: name, engine, and of a model whose files are at hand all the rest.

    Args:
        name: folder, Hub id or `demo`; with engine `http` its name at the server.
        load_in_4bit: as configured; counts only where there is a GPU to do it.
        sampling: how its answers were drawn; None for a base that answers nothing.
        adapter: what it wears.
    """
    found: dict[str, Any] = {"name": name, "engine": engine}
    if engine != "http":
        template = chat_template(name)
        found |= {
            "revision": model_revision(name),
            "weights": weights_hash(name),
            "template": None if template is None else fingerprint(template),
            "quantisation": "4bit" if engine == "local" and load_in_4bit is True and _has_gpu() else "none",
        }
    if adapter is not None:
        found["adapter"] = weights_hash(str(adapter))
    return found if sampling is None else with_sampling(found, sampling)


def with_sampling(identity: dict[str, Any], sampling: Sampling) -> dict[str, Any]:
    """A student's identity with how its answers were drawn."""
    shown = ("temperature", "top_p", "top_k", "max_new_tokens")
    return {**identity, "sampling": {name: getattr(sampling, name) for name in shown}}


def trace_writers(names: Iterable[str], recorded: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Whoever wrote a set of traces, as `grade` takes them.

    Args:
        names: the `student_model` of the traces.
        recorded: the identity of this run's own student; None where the traces were brought along.
    """
    known = [] if recorded is None else [recorded]
    strangers = {name for name in names if recorded is None or _plain(name) != _plain(recorded["name"])}
    return known + [{"name": name} for name in sorted(strangers)]


def student_grade(student: dict[str, Any], base: dict[str, Any]) -> tuple[Grade, str]:
    """How near the student is to the base that is trained, and why.

    Args:
        student: from `identity`, or only `{"name": …}` where nothing else is known (traces of someone else's run).
        base: from `identity`, of the model that is trained.
    """
    same_name = _plain(student["name"]) == _plain(base["name"])
    if student.get("engine") == "http":
        hint = "under the base's name" if same_name else f"as {student['name']!r}"
        return "unverified", f"it was served {hint}, and nobody can look behind a name"
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
    """Why the traces of these students are not trained on, or None.

    Args:
        students: whoever wrote them, as `grade` takes them.
        allowed: `train.allow_foreign_student`.
    """
    for student in students:
        found, reason = student_grade(student, base)
        if found == "foreign" and not allowed:
            fix = "Enhance the data set with the base itself, or say --set train.allow_foreign_student=true."
            return Fault("the traces' student", f"the base {base['name']!r}", Shown(reason), fix)
    return None


def mean_kl(model_a: Any, model_b: Any, tokenizer: Any, examples: list[Example]) -> float:
    """Mean Kullback–Leibler divergence KL(a‖b) of the next token in nats, over the trained tokens of the examples.

    0 for the same model. What another quantisation does is to be compared with it, on 32 examples or so.

    Args:
        model_a: as the student was, in eval mode.
        model_b: as the base is trained, in eval mode, with the same vocabulary.
        tokenizer: of both.
        examples: training rows.
    """
    import torch

    total, count = 0.0, 0
    for example in examples:
        row = render(tokenizer, example)
        before = torch.tensor(
            [label != IGNORE for label in row.labels[1:]]
        )  # (T-1,) positions that foretell a trained token
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
    """`local/NAME` and `NAME` are one model."""
    return local_name(name) or name


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()
