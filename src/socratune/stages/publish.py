"""publish: adapter, tokenizer, results and an honest card to the Hugging Face Hub. Only what passed."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from socratune.config import DEMO, PublishConfig
from socratune.errors import OutsideError, StageFailed
from socratune.rundir import RunDir, StageResult, file_hash

CARD = """---
base_model: {base}
library_name: peft
pipeline_tag: text-generation
tags: [lora, socratune]
license: {licence}
---

# {hub_id}

A LoRA adapter for `{base}`, trained with [Socratune](https://pypi.org/project/socratune/) on the model's own
reasoning: it tried each question, a teacher hinted at what it got wrong, and it was trained on the answers it then
found itself.

## Measured on held-out questions

| | base | adapter | difference | 95 % interval |
|---|---|---|---|---|
| accuracy, {n} questions of {clusters} sources | {base_accuracy:.1%} | {adapter_accuracy:.1%} | \
{difference:+.1%} | {low:+.1%} to {high:+.1%} |

Same questions, same judge, greedy answers. Verdict: **{verdict}**.

## Load it

```python
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

base = AutoModelForCausalLM.from_pretrained("{base}")
model = PeftModel.from_pretrained(base, "{hub_id}")
tokenizer = AutoTokenizer.from_pretrained("{hub_id}")
```

## How it was made

{rows} training rows ({outcomes}); teacher `{teacher}`, judge `{judge}`. `pipeline_results.json` has all figures.
"""


def run(run: RunDir, config: PublishConfig, *, hub_id: str, model_name: str, results: dict[str, Any]) -> StageResult:
    """Upload `adapter/` with card and results in one commit.

    Raises:
        StageFailed: the run did not pass, or the adapter was changed after it was validated.
        OutsideError: the Hub refused or could not be reached.
    """
    check_gate(run, results)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "adapter"
        shutil.copytree(run.adapter, folder)
        (folder / "README.md").write_text(card(results, hub_id, model_name), "utf-8")
        private = ("config", "origins", "inputs")  # paths of this machine
        shown = {name: value for name, value in results.items() if name not in private}
        shown |= {"status": "passed", "model": public_name(model_name)}
        shown["dataset"] = Path(results.get("dataset", "")).name
        (folder / "pipeline_results.json").write_text(json.dumps(shown, indent=2), "utf-8")
        adapter_config = json.loads((folder / "adapter_config.json").read_text("utf-8"))
        adapter_config["base_model_name_or_path"] = public_name(model_name)
        (folder / "adapter_config.json").write_text(json.dumps(adapter_config, indent=2), "utf-8")
        url = _upload(folder, hub_id, private=config.private)
        files = sum(1 for path in folder.rglob("*") if path.is_file())
    return StageResult(rows_in=files, rows_out=files, figures={"url": url, "files": files})


def check_gate(run: RunDir, results: dict[str, Any]) -> None:
    """Refuse what did not pass, and what is not what passed."""
    validation = results.get("validation") or {}
    if validation.get("status") != "passed":
        reason = validation.get("reason", "It was not validated yet.")
        raise StageFailed(f"Not published, because the validation did not pass. {reason}")
    for name, proven in validation["tests"]["file_integrity"]["sha256"].items():
        path = run.adapter / name
        if not path.is_file() or file_hash(path) != proven:
            raise StageFailed(
                f"Not published: {path} is not the file that was validated. Run socratune validate {run.root} again."
            )


def public_name(model_name: str) -> str:
    """The base model's name for others: a Hub id as it is, of a local folder only its own name."""
    if model_name == DEMO:
        return "socratune/demo-base"
    folder = Path(model_name)
    return folder.resolve().name if folder.is_dir() else model_name


def card(results: dict[str, Any], hub_id: str, model_name: str) -> str:
    """The model card, from the results alone."""
    comparison = results["validation"]["tests"]["base_comparison"]
    enhance = results["stages"].get("enhance", {})
    outcomes = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in enhance.get("outcomes", {}).items())
    low, high = comparison["ci95"]
    return CARD.format(
        hub_id=hub_id,
        base=public_name(model_name),
        licence=_licence(model_name),
        low=low,
        high=high,
        rows=results["stages"].get("train", {}).get("rows_out", "?"),
        outcomes=outcomes or "outcomes not recorded",
        teacher=enhance.get("teacher_model", "?"),
        judge=enhance.get("judge_model", "?"),
        **{key: comparison[key] for key in ("n", "clusters", "base_accuracy", "adapter_accuracy", "difference")},
        verdict=comparison["verdict"],
    )


def _licence(model_name: str) -> str:
    """The base model's licence from its own card; `other` where it says none."""
    if model_name == DEMO:
        return "apache-2.0"
    from huggingface_hub import ModelCard

    try:
        return str(ModelCard.load(model_name).data.get("license") or "other")
    except Exception:  # no card, no network, a local folder: all mean that the licence is unknown
        return "other"


def _upload(folder: Path, hub_id: str, *, private: bool) -> str:
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        api.create_repo(hub_id, private=private, exist_ok=True)
        commit = api.upload_folder(repo_id=hub_id, folder_path=folder, commit_message="Adapter by Socratune")
    except Exception as error:  # the client's errors have no common class across its versions
        reason = " ".join(str(error).split())[:300]
        raise OutsideError(
            f"The Hugging Face Hub did not take {hub_id}: {reason}. Check HF_TOKEN (a token with write access) and the "
            "name, then run the same command again; nothing else is repeated."
        ) from error
    return str(getattr(commit, "commit_url", commit))
