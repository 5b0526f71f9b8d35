"""Data sets through the real `datasets` library: folders it saved, and a Hub on loopback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import socratune
from dataset_hub import COMMIT, loopback_datasets

from socratune.data.qa_files import HubName, hub_name, read_qa_rows

datasets = pytest.importorskip("datasets")
ROWS = [{"question": f"What is {n} + 1?", "answer": f"It is {n + 1}.\n#### {n + 1}"} for n in range(2500)]


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("openai/gsm8k", HubName("openai/gsm8k", None, "train")),
        ("openai/gsm8k/main", HubName("openai/gsm8k", "main", "train")),
        ("openai/gsm8k#test", HubName("openai/gsm8k", None, "test")),
        ("openai/gsm8k/main#test", HubName("openai/gsm8k", "main", "test")),
        ("HuggingFaceH4/MATH-500", HubName("HuggingFaceH4/MATH-500", None, "train")),
        ("org/v1.5-data", HubName("org/v1.5-data", None, "train")),
        ("data/rows.jsonl", None),
        ("data/rows.CSV", None),
        ("data/rows.jsonl.gz", None),
        ("rows", None),
        ("/org/name", None),
        ("./org/name", None),
        ("../org/name", None),
        ("~/name", None),
        ("a/b/c/d", None),
        ("org/name#", None),
    ],
)
def test_what_is_a_data_set_of_the_hub_and_what_a_missing_file(text: str, meant: HubName | None) -> None:
    assert hub_name(text) == meant


def test_a_path_that_is_here_is_no_data_set_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "org").mkdir()
    (tmp_path / "org" / "name").write_text(json.dumps(ROWS[0]) + "\n")
    monkeypatch.chdir(tmp_path)
    assert [row.question for row in read_qa_rows(Path("org/name")).rows] == ["What is 0 + 1?"]


def test_a_saved_folder_is_read_in_its_order(tmp_path: Path) -> None:
    whole = datasets.Dataset.from_list(ROWS)
    whole.select(range(1, 2500)).save_to_disk(tmp_path / "plain", num_shards=2)
    found = read_qa_rows(tmp_path / "plain")
    assert (found.faults, [row.question for row in found.rows]) == ([], [row["question"] for row in ROWS[1:]])
    parts = datasets.DatasetDict({"train": whole.select([0]), "test": whole.select([1])})
    parts.save_to_disk(tmp_path / "parts")
    assert [row.question for row in read_qa_rows(tmp_path / "parts").rows] == ["What is 0 + 1?"]
    assert [row.question for row in read_qa_rows(Path(f"{tmp_path}/parts#test")).rows] == ["What is 1 + 1?"]
    assert "the splits train, test" in str(read_qa_rows(Path(f"{tmp_path}/parts#dev")).faults[0])
    assert "without splits" in str(read_qa_rows(Path(f"{tmp_path}/plain#dev")).faults[0])


CARD = """---
configs:
- config_name: main
  data_files:
  - {split: train, path: main/train.jsonl}
  - {split: test, path: main/test.jsonl}
- config_name: other
  data_files: other.jsonl
- config_name: damaged
  data_files: damaged.jsonl
---
"""
FILES = {
    "org/two/README.md": CARD.encode(),
    "org/two/main/train.jsonl": "".join(json.dumps(row) + "\n" for row in ROWS).encode(),
    "org/two/main/test.jsonl": b'{"question": "Test?", "answer": "yes"}\n',
    "org/two/other.jsonl": b'{"prompt": "Other?", "completion": "yes"}\n{"prompt": "No answer"}\n',
    "org/two/damaged.jsonl": b"[[[",
    "org/one/train.jsonl": b'{"conversations": [{"from": "human", "value": "One?"}, {"from": "gpt", "value": "1"}]}\n',
    "org/none/README.md": b"# Nothing here",
}
ASK = """
import json, sys
from pathlib import Path
from socratune.errors import SocratuneError
from socratune.data.qa_files import read_qa_rows
for name in sys.argv[1:]:
    try:
        found = read_qa_rows(Path(name))
        first = found.rows[0].question if found.rows else None
        print("\\n" + json.dumps([len(found.rows), first, [str(fault) for fault in found.faults]]))
    except SocratuneError as error:
        print("\\n" + json.dumps([type(error).__name__, str(error), []]))
"""


def ask(tmp_path: Path, endpoint: str, *names: str, **env: str) -> list[list[Any]]:
    """What each name gives in a process of its own: the Hub's address is read when its client is imported."""
    environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "cache"), **env}
    done = subprocess.run(
        [sys.executable, "-c", ASK, *names], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]


@pytest.mark.slow
def test_data_sets_of_the_hub(tmp_path: Path) -> None:
    names = ("org/two/main", "org/two/main#test", "org/two/other", "org/one", "org/two", "org/two/main#dev",
             "org/two/nope", "org/two/damaged", "org/none", "org/absent")  # fmt: skip
    with loopback_datasets(FILES) as endpoint:
        main, test, other, one, which, split, config, damaged, empty, absent = ask(tmp_path, endpoint, *names)
    assert main == [2500, "What is 0 + 1?", []]
    assert test == [1, "Test?", []]
    assert other[:2] == [1, "Other?"] and "row 2: expected columns of a known shape" in other[2][0]
    assert one == [1, "One?", []]
    assert "'main', 'other'" in which[2][0] and "org/two/config" in which[2][0]
    assert "'train', 'test'" in split[2][0]
    assert "'main', 'other'" in config[2][0]
    assert damaged[2] and "An error occurred" not in damaged[2][0]  # but what it was
    assert "contain any data files" in empty[2][0]
    assert "got neither. Check the spelling" in absent[2][0]
    gone = "http://127.0.0.1:9"
    (unreachable,) = ask(tmp_path, gone, "org/two/main")
    assert (
        unreachable[0] == "OutsideError" and "no such file here, and the Hugging Face Hub could not" in unreachable[1]
    )
    (kept,) = ask(tmp_path, gone, "org/two/main", HF_HUB_OFFLINE="1")
    assert kept == main


@pytest.mark.slow
def test_a_run_says_which_commit_and_which_columns_it_took(tmp_path: Path) -> None:
    with loopback_datasets(FILES) as endpoint:
        done = socratune(
            "run", "--model", "demo", "--dataset", "org/two/main", "--output", tmp_path / "run", "--until", "split",
            env={"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "cache")},
        )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    split = json.loads((tmp_path / "run" / "pipeline_results.json").read_text())["stages"]["split"]
    assert (split["commit"], split["shapes"]) == (COMMIT, {"question–answer": 2500})
    assert split["train_in"] + split["dev"] + split["held_out"] == 2500
