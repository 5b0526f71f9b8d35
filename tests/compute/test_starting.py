"""`socratune init`: a configuration to begin with."""

from __future__ import annotations

from pathlib import Path

import yaml
from conftest import demo_rows, socratune, write_rows

from socratune.compute.starting import WORTH_A_THOUGHT, starting_config
from socratune.config import RunConfig, settings_of
from socratune.resolve import flatten, resolve_settings

GIVEN = {
    "model": "demo",
    "output": "outputs/first",
    "train": {"r": 8},
    "enhance": {"teacher_model": "rules/arithmetic"},
}


def test_the_file_means_the_same_run_with_every_comment_taken_away(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "rows.jsonl", demo_rows("train", 60))
    resolved = resolve_settings({**GIVEN, "dataset": str(data)})
    text = starting_config(resolved)
    assert resolve_settings(yaml.safe_load(text)).config == resolved.config
    lines = [line.replace("# ", "", 1) if line.strip().startswith("#") and _is_setting(line) else line
             for line in text.splitlines()]  # fmt: skip
    whole = yaml.safe_load("\n".join(line for line in lines if not line.strip().startswith("#")))
    assert set(WORTH_A_THOUGHT) <= flatten(whole).keys()
    assert resolve_settings(whole).config == resolved.config


def _is_setting(line: str) -> bool:
    names = {part for setting in settings_of(RunConfig) for part in setting.key.split(".")}
    return line.strip().removeprefix("# ").partition(":")[0] in names and "`" not in line.partition(":")[0]


def test_it_says_what_is_known_of_model_and_data(tmp_path: Path) -> None:
    sums = write_rows(tmp_path / "sums.jsonl", demo_rows("train", 60))
    text = starting_config(resolve_settings({**GIVEN, "dataset": str(sums)}))
    assert "60 rows" in text and "0.4 million parameters" in text and "Trained: local" in text
    words = [
        {"messages": [{"role": "user", "content": f"Why does lamp {at} burn?"},
                      {"role": "assistant", "content": f"Because keeper {at} trims its wick every single evening."}]}
        for at in range(60)
    ]  # fmt: skip
    talk = write_rows(tmp_path / "talk.jsonl", words)
    told = starting_config(resolve_settings({**GIVEN, "dataset": str(talk)}))
    assert "--judge-model" in told.split("model: demo")[0]  # rules cannot judge these


def test_the_command_writes_a_file_once(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "rows.jsonl", demo_rows("train", 30))
    asked = ["init", "--model", "demo", "--dataset", data, "--out", tmp_path / "run.yaml"]
    first, again = socratune(*asked), socratune(*asked)
    assert first.returncode == 0 and "socratune run --config" in first.stdout, first.stderr
    assert again.returncode == 2 and "a new file" in again.stderr
    planned = socratune("plan", "--config", tmp_path / "run.yaml")
    assert planned.returncode == 0, planned.stderr
    assert "--dataset" in socratune("init", "--model", "demo", "--out", "-").stderr
