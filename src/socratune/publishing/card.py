"""Writes the cards of a publication, the adapter's and the data set's, from the run's results alone.

The front matter is written by `huggingface_hub`'s own card classes, so no name, licence or question can break it.
"""

from __future__ import annotations

import json
import re
from typing import Any

from socratune.evaluation import proof_of
from socratune.llm import NOBODY, shown_host
from socratune.publishing.licences import Licence, PublicBase

SETTINGS = ("enhance.attempts", "enhance.max_iterations", "enhance.thinking_format", "enhance.max_new_tokens",
            "train.r", "train.lora_alpha", "train.target_modules", "train.learning_rate", "train.num_train_epochs",
            "train.per_device_train_batch_size", "train.gradient_accumulation_steps", "train.max_seq_length",
            "train.load_in_4bit", "train.method", "curate.replay_share", "seed")  # fmt: skip
"""Shown in the card; `pipeline_results.json` has all."""


def model_card(
    results: dict[str, Any], hub_id: str, base: PublicBase, *, system: str | None, dataset_id: str | None
) -> str:
    """Returns the adapter's README.md.

    Args:
        results: without paths of this machine.
        system: the system turn that all training rows share.
        dataset_id: where the enhanced data set is published too.
    """
    from huggingface_hub import ModelCardData

    hub_data = results["dataset"] if _hub_commit(results) else None
    data = ModelCardData(
        base_model=base.name if base.on_hub else None,
        **({"base_model_relation": "adapter"} if base.on_hub else {}),
        library_name="peft",
        pipeline_tag="text-generation",
        tags=["lora", "socratune"],
        datasets=[name for name in (dataset_id, hub_data) if name] or None,
        model_name=hub_id.split("/")[1],
        eval_results=_eval_results(results),
        **_licence_fields(base.licence),
    )
    parts = [
        f"# {text(hub_id)}",
        *_warnings(results, base),
        f"A LoRA adapter for {code(base.name)}, trained with [Socratune](https://pypi.org/project/socratune/) on the "
        f"{_whose(results)}. The model tried each question{_hinting(results, 'it got')}, and the adapter was trained "
        "on the correct answers.",
        *_unpacked_from(base),
        "## Measured on held-out questions",
        *_measured(results),
        *_verified(results, hub_id),
        "## Load it",
        _how_to_load(results, hub_id, base, system),
        "## How it was made",
        _provenance(results, dataset_id),
        "## Settings",
        _settings(results),
        "## Licence",
        _licence_text(base),
    ]
    return f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(parts) + "\n"


def _whose(results: dict[str, Any]) -> str:
    """Returns whose reasoning the adapter was trained on."""
    outcomes = results["stages"].get("curate", {}).get("outcomes", {})
    students = results["stages"].get("train", {}).get("students", {})
    if any(found.get("grade") == "foreign" for found in students.values()):
        return "reasoning of another model than its base"
    return "model's own reasoning" + (" and on reference answers" if outcomes.get("trained_on_reference") else "")


def _hinting(results: dict[str, Any], verb: str) -> str:
    """Returns what a teacher did, or an empty text if there was none."""
    there = results["stages"].get("enhance", {}).get("teacher_model") != NOBODY
    return f", a teacher hinted at what {verb} wrong" if there else ""


def dataset_card(
    results: dict[str, Any], hub_id: str, base: PublicBase, source: Licence, *, rows: int, model_id: str
) -> str:
    """Returns the README.md of the published `enhanced_dataset.jsonl`.

    Args:
        results: without paths of this machine.
        source: the licence of the data set the questions are from.
        rows: in the file.
        model_id: the adapter that was trained on them.
    """
    from huggingface_hub import DatasetCardData

    hub_data = results["dataset"] if _hub_commit(results) else None
    data = DatasetCardData(
        pretty_name=f"{hub_id.split('/')[1]}: questions with the base model's own reasoning",
        task_categories=["question-answering", "text-generation"],
        tags=["socratune", "reasoning"],
        source_datasets=[hub_data] if hub_data else None,
        configs=[{"config_name": "default", "data_files": "enhanced_dataset.jsonl"}],
        **_licence_fields(source),
    )
    models = _models(results)
    parts = [
        f"# {text(hub_id)}",
        f"{rows} questions of {_dataset_name(results)}, answered by {code(base.name)} itself with "
        "[Socratune](https://pypi.org/project/socratune/). The model tried each question, a judge checked the answers"
        f"{_hinting(results, 'was')}. The adapter trained on these rows is {code(model_id)}.",
        "Each row has `messages` and `metadata.enhancement`. The last message is the model's own correct answer, or "
        "the reference answer of a row that the model could not solve. The enhancement holds the outcome and every "
        "attempt with its verdict and hint. The rows on which the adapter was measured are not included.",
        _table(("", ""), [("outcomes", _outcomes(results)), *models, ("hint-leak rate", _leaks(results))]),
        "## Licence",
        _doubtful(source, "the source data set")
        or f"Questions and reference answers are under the licence of their source, {code(source.name or source.id)}.",
        f"The answers are output of {code(base.name)}, and the hints are output of the teacher above. The terms of "
        "both models apply as well.",
    ]
    return f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(parts) + "\n"


def line(value: Any) -> str:
    """Returns a value as one line."""
    return " ".join(str(value).split())


def text(value: Any) -> str:
    """Returns a value as one line of Markdown without markup of its own, also for a table."""
    return re.sub(r"([\\`*_{}\[\]<>#|~])", r"\\\1", line(value))


def code(value: Any) -> str:
    """Returns a value as inline code, also for a table."""
    return f"`{line(value).replace('`', chr(39)).replace('|', '¦')}`"


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _hub_commit(results: dict[str, Any]) -> str | None:
    """Returns the commit of a data set from the Hub, or None."""
    return results["stages"].get("split", {}).get("commit")


def _dataset_name(results: dict[str, Any]) -> str:
    commit = _hub_commit(results)
    return code(results["dataset"]) + (f" (commit {code(commit)})" if commit else "")


def _licence_fields(licence: Licence) -> dict[str, Any]:
    return {"license": licence.id, "license_name": licence.name, "license_link": licence.link}


def _comparison(results: dict[str, Any]) -> dict[str, Any]:
    """Returns the paired comparison, or an empty dict for an adapter that was published by force without one."""
    proof = proof_of(results)
    found = proof.comparison if proof else {}
    return found if "adapter_accuracy" in found else {}


def _eval_results(results: dict[str, Any]) -> list[Any] | None:
    from huggingface_hub import EvalResult

    found = _comparison(results)
    if not found:
        return None
    what: dict[str, Any] = {
        "task_type": "text-generation",
        "dataset_type": line(results["dataset"]),
        "dataset_name": f"{line(results['dataset'])}, {found['n']} held-out questions",
        "dataset_revision": _hub_commit(results),
    }
    gain: dict[str, Any] = {"metric_type": "accuracy-gain", "metric_name": "accuracy gain over the base model"}
    return [
        EvalResult(
            **what, metric_type="accuracy", metric_name="accuracy", metric_value=round(found["adapter_accuracy"], 4)
        ),
        EvalResult(
            **what,
            **gain,
            metric_value=round(found["difference"], 4),
            metric_args={"ci95": [round(end, 4) for end in found["ci95"]]},
        ),
    ]


def _warnings(results: dict[str, Any], base: PublicBase) -> list[str]:
    """Returns what a reader must know first."""
    found, proof = [], proof_of(results)
    if proof is not None and not proof.passed:
        found.append(
            f"> **Warning: this adapter did not pass its validation.** {text(proof.reason)} It was published by force."
        )
    if doubt := _doubtful(base.licence, code(base.name)):
        found.append(f"> {doubt}")
    return found


def _unpacked_from(base: PublicBase) -> list[str]:
    """Returns which weights were trained on, if they were not the published ones."""
    if base.gguf is None:
        return []
    return [
        f"It was trained and measured on weights dequantised from {code(base.gguf.file)} (sha256 "
        f"{code(base.gguf.sha256)}). With the weights of {code(base.name)}, answers may differ slightly."
    ]


def _doubtful(licence: Licence, whose: str) -> str:
    if not licence.doubt:
        return ""
    return f"**Warning: the licence of {whose} is not known**: {text(licence.doubt)}. Check it before you use this."


def _measured(results: dict[str, Any]) -> list[str]:
    found = _comparison(results)
    if not found:
        return ["Nothing was measured."]
    proof = proof_of(results)
    tests = proof.tests if proof else {}
    rows = [_accuracy(found.get("asks", "held-out questions"), found)]
    if recall := tests.get("recall"):
        rows.append(_accuracy(recall.get("asks", "questions about trained facts"), recall))
    told = [
        _table(("accuracy on", "base", "adapter", "difference", "95% interval", "verdict"), rows),
        _how_measured(found),
    ]
    if (results["stages"].get("enhance", {}).get("student") or {}).get("quantisation") == "4bit":
        told.append("Trained and measured on the base in 4 bits (bitsandbytes, nf4).")
    if forgetting := tests.get("forgetting"):
        told.append(_forgotten(forgetting, tests.get("meters", {})))
    return told


def measured_parts(results: dict[str, Any]) -> list[str]:
    """Returns the parts of the card that state the verdict. They must be in every card of these results."""
    base = PublicBase(str(results.get("model")), False, None, Licence("other"))
    return [*_warnings(results, base), *_measured(results)]


def same_metrics(card: str, results: dict[str, Any]) -> bool:
    """Returns True if the `model-index` of a card, which the Hub shows beside it, has exactly the metrics of the
    results.
    """
    from huggingface_hub import ModelCard

    try:
        data: Any = ModelCard(card, ignore_metadata_errors=True).data
        told = data.eval_results or []
    except Exception:  # no YAML, or none of a card: they have no common class
        return False
    ours = [(one.metric_type, one.metric_value) for one in _eval_results(results) or []]
    return [(one.metric_type, one.metric_value) for one in told] == ours


def _verified(results: dict[str, Any], hub_id: str) -> list[str]:
    """Returns how far others can check these numbers."""
    found = results.get("verified")
    if not found:
        return []
    when = "before the training" if found["pinned_before_training"] else "not before the training"
    told = (
        f"The test was pinned {when}. `socratune verify {line(hub_id)}` checks these files against `provenance.json`."
    )
    return [" ".join([told, *map(text, found["remarks"])])]


def _accuracy(what: str, found: dict[str, Any]) -> tuple[str, ...]:
    low, high = found["ci95"]
    return (
        f"{found['n']} {what} from {found['clusters']} sources",
        f"{found['base_accuracy']:.1%}",
        f"{found['adapter_accuracy']:.1%}",
        f"{found['difference']:+.1%}",
        f"{low:+.1%} to {high:+.1%}",
        text(found["verdict"].replace("_", " ")),
    )


def _how_measured(found: dict[str, Any]) -> str:
    """Returns how the numbers were measured, and how undecided answers could change them."""
    means = found.get("interval") == "t"
    undecided = found.get("undecided", {})
    told = (
        "Base and adapter answered the same questions in the same way, and the same judge checked them. The interval "
        f"{'is a t-interval on the means of the sources' if means else 'resamples whole sources'}. "
        f"{found.get('wins', 0)} answers became right and {found.get('losses', 0)} became wrong. The judge left "
        f"{undecided.get('base', 0)} of the base's and {undecided.get('adapter', 0)} of the adapter's undecided."
    )
    worst = found.get("worst_case")
    if worst and any(undecided.values()):
        low, high = worst["ci95"]
        told += (
            f" With all of these counted against the adapter: {worst['difference']:+.1%} ({low:+.1%} to {high:+.1%})."
        )
    return told


def _forgotten(found: dict[str, Any], meters: dict[str, Any]) -> str:
    """Returns the drop on questions that have nothing to do with the training."""
    told = (
        f"**Forgetting**: {found['base_accuracy']:.1%} before and {found['adapter_accuracy']:.1%} after "
        f"on {found['n']} questions of other kinds, a drop of {found['drop']:.1%}, at most {found['drop_upper95']:.1%} "
        "(95%)."
    )
    if not found.get("proven", True):
        told += f" Forgetting is not ruled out: {text(found.get('reason', ''))}."
    if "mean_kl_nats" in meters:
        told += f" Next-token divergence from the base on neutral prompts: {meters['mean_kl_nats']:.3g} nats."
    return told


def _how_to_load(results: dict[str, Any], hub_id: str, base: PublicBase, system: str | None) -> str:
    """Returns code that works unchanged if the base is on the Hub or part of Socratune."""
    first, name, note = "", json.dumps(base.name), ""
    if base.name == "socratune/demo-base":
        first, name = (
            "from socratune import model_location  # pip install socratune\n",
            'model_location("demo")',
        )
    elif not base.on_hub:
        note = "  # a local folder of the publisher; use the path of your copy"
    revision = f", revision={json.dumps(base.revision)}" if base.revision else ""
    turns = [{"role": "system", "content": system}] if system else []
    turns.append({"role": "user", "content": "What is 12 * 13?"})
    messages = ",\n    ".join(json.dumps(turn, ensure_ascii=False) for turn in turns)
    longest = results.get("config", {}).get("enhance", {}).get("max_new_tokens", 512)
    return f"""```python
{first}from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

base = AutoModelForCausalLM.from_pretrained({name}{revision}){note}
model = PeftModel.from_pretrained(base, {json.dumps(hub_id)})
tokenizer = AutoTokenizer.from_pretrained({json.dumps(hub_id)})

messages = [
    {messages},
]
inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True, return_tensors="pt")
output = model.generate(**inputs, max_new_tokens={longest})
print(tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
```"""


def _outcomes(results: dict[str, Any]) -> str:
    counts = results["stages"].get("enhance", {}).get("outcomes", {})
    return ", ".join(f"{count} {text(name.replace('_', ' '))}" for name, count in counts.items()) or "not recorded"


def _models(results: dict[str, Any]) -> list[tuple[str, str]]:
    enhance = results["stages"].get("enhance", {})
    return [(role, code(enhance.get(f"{role}_model", "not recorded"))) for role in ("student", "teacher", "judge")]


def _sent(results: dict[str, Any]) -> str:
    """Returns which models elsewhere received the questions and answers."""
    if (sent := results.get("sent_to")) is None:
        return "not recorded"
    parts = []
    for role, found in sent.items():
        model = f" {code(found['model'])}" if found["model"] else ""
        parts.append(f"{text(role)}{model} at {', '.join(map(text, found['hosts']))}")
    return "; ".join(parts) or "nobody: every model ran in the process of the run"


def public_hosts(sent: dict[str, Any]) -> dict[str, Any]:
    """Returns `sent_to` of the results with the hosts as others may see them."""
    return {
        role: {**found, "hosts": list(dict.fromkeys(map(shown_host, found["hosts"])))} for role, found in sent.items()
    }


def _leaks(results: dict[str, Any]) -> str:
    found = results["stages"].get("enhance", {}).get("leaks") or {}
    if not found.get("measured"):
        return "not measured"
    return f"{found['rate']:.1%} of {found['measured']} hints measured by the student's own probabilities"


def _provenance(results: dict[str, Any], dataset_id: str | None) -> str:
    stages = results["stages"]
    split, enhance, train = (stages.get(name, {}) for name in ("split", "enhance", "train"))
    counts = " / ".join(f"{split.get(name, '?')} {name.replace('_', '-')}" for name in ("train_in", "dev", "held_out"))
    epochs = f"{len(train['epochs'])}, number {train['best_epoch']} kept" if train.get("epochs") else "not recorded"
    rows = [
        ("data set", _dataset_name(results)),
        ("rows", counts),
        ("outcomes", _outcomes(results)),
        ("rows trained on", _rows_trained_on(train)),
        *_models(results),
        ("hint-leak rate", _leaks(results)),
        ("tokens trained on", f"{train['trained_tokens']:,}" if "trained_tokens" in train else "not recorded"),
        ("epochs", epochs),
        ("rows were sent to", _sent(results)),
        ("paid calls", _spent(enhance.get("spent", {}))),
        ("time", f"{sum(stage.get('seconds', 0) for stage in stages.values()):,.0f} s"),
        ("Socratune", text(results.get("socratune", "?"))),
    ]
    if dataset_id:
        rows.insert(1, ("enhanced data set", code(dataset_id)))
    return _table(("", ""), rows) + "\n\n`pipeline_results.json` has all numbers."


def _rows_trained_on(train: dict[str, Any]) -> str:
    if "pairs" in train:
        return f"{train['pairs']}, each with a right and a wrong answer"
    return f"{train.get('rows_out', '?')}, plus {train.get('replay_rows', 0)} replayed"


def _spent(spent: dict[str, Any]) -> str:
    """Returns tokens and USD by role."""
    parts = []
    for role, entry in spent.items():
        usd = "price not known" if entry["usd"] is None else f"{entry['usd']:.4g} USD"
        parts.append(f"{text(role.rsplit('.', 1)[-1])} {entry['tokens']:,} tokens, {usd}")
    return "; ".join(parts) or "none"


def _settings(results: dict[str, Any]) -> str:
    config, train = results.get("config", {}), results["stages"].get("train", {})
    rows = []
    for key in SETTINGS:
        section, _, name = key.rpartition(".")
        values = config.get(section, {}) if section else config
        if key == "train.learning_rate" and "sweep" in train:
            rows.append((code(key), f"{code(format(train['learning_rate'], 'g'))}, chosen on the development rows"))
        elif name in values:
            rows.append((code(key), code(json.dumps(values[name], ensure_ascii=False))))
    return _table(("setting", "value"), rows)


def _licence_text(base: PublicBase) -> str:
    if doubt := _doubtful(base.licence, code(base.name)):
        return doubt
    name = code(base.licence.name or base.licence.id)
    link = f" (<{base.licence.link}>)" if base.licence.link else ""
    return f"{name}{link}: the licence of {code(base.name)}, the base of this adapter."
