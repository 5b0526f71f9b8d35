"""What was found out about a model is found out once, and anew when its files change."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from socratune.inference import chat_fitness, load_tokenizer
from socratune.llm import model_location

LOOK = """
import sys
from socratune.config import EnhancedTrainingConfig
from socratune.inference import chat_fitness, load_tokenizer
from socratune.training import layer_faults
print(chat_fitness(sys.argv[1]).faults, layer_faults(sys.argv[1], EnhancedTrainingConfig()))
print(load_tokenizer(sys.argv[1])("What is 15 * 13?")["input_ids"], "torch" in sys.modules)
"""


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SOCRATUNE_CACHE", str(tmp_path / "cache"))
    return Path(shutil.copytree(model_location("demo"), tmp_path / "model"))


@pytest.mark.slow
def test_a_known_model_is_looked_at_without_torch(model: Path) -> None:
    looks = [subprocess.check_output([sys.executable, "-c", LOOK, str(model)], text=True) for _ in range(2)]
    assert looks[0].startswith("() []\n")
    assert looks[0].removesuffix("True\n") == looks[1].removesuffix("False\n")


def test_a_changed_file_is_read_anew(model: Path) -> None:
    assert chat_fitness(str(model)).faults == chat_fitness(str(model)).faults == ()
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "vocab_size": 2}))
    assert "beyond it" in str(chat_fitness(str(model)).faults[0].got)


def test_a_note_that_is_damaged_counts_as_none(model: Path, tmp_path: Path) -> None:
    first = load_tokenizer(str(model))
    notes = [*(tmp_path / "cache" / "models").iterdir()]
    assert notes
    for path in notes:
        path.write_text("{")
    assert load_tokenizer(str(model)).get_vocab() == first.get_vocab()


def test_a_cache_that_cannot_be_written_is_done_without(model: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    assert chat_fitness(str(model)).faults == ()
