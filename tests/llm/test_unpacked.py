"""A GGUF file as a model: what it was made of comes out of it, once, and what is none is refused with nothing left."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import DEMO_DATA, Fork, socratune
from gguf_files import write_gguf
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from socratune.errors import UserError
from socratune.inference.fitness import chat_fitness, load_tokenizer
from socratune.inference.load import load_model
from socratune.llm.locate import is_here, model_fault, model_location, source_of
from socratune.llm.unpacked import _name_special_tokens, cache_folder
from socratune.publishing.card import model_card
from socratune.publishing.licences import Licence, PublicBase, public_base

TEXTS = ("What is 12 * 13?", "First:\n\n1. 345 +  678 = 1023\n2. it's", "naïve 日本 \t x")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SOCRATUNE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.F32.gguf")


def left(cache: Path) -> list[str]:
    """What is in the cache besides locks, which are empty, and the book of hashes."""
    found = [path.name for path in cache.rglob("*") if path.suffix != ".lock" and path.name != "hashes.json"]
    return sorted(found, key=lambda name: (name != "gguf-2", name))


def logits(name: str, texts: tuple[str, ...] = TEXTS) -> list[Any]:
    model, tokenizer = load_model(name)
    with torch.inference_mode():
        return [model(torch.tensor([tokenizer(text)["input_ids"]])).logits[0] for text in texts]


def test_the_weights_the_tokens_and_the_template_are_those_it_was_made_of(tiny: Path) -> None:
    assert model_fault(str(tiny)) is None
    assert chat_fitness(str(tiny)) == chat_fitness(str(tiny.parent))  # a folder that holds nothing else
    ours, theirs = load_tokenizer(str(tiny)), load_tokenizer("demo")
    assert ours.chat_template == theirs.chat_template
    for text in TEXTS:
        assert ours(text)["input_ids"] == theirs(text)["input_ids"]
    for one, other in zip(logits(str(tiny)), logits("demo"), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-4)


def test_what_transformers_warns_of_later_is_no_error_of_the_log(tiny: Path, cache: Path) -> None:
    """Its log keeps the stderr that is there when it is first imported: not one that is closed behind the unpacking."""
    program = f"""
from socratune.llm import model_location
model_location({str(tiny)!r})
import transformers
transformers.logging.get_logger("transformers.x").warning("a word of warning")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stderr.strip() == "[transformers] a word of warning", done.stderr


def test_weights_of_eight_bits_say_nearly_the_same(tmp_path: Path) -> None:
    packed = write_gguf(tmp_path / "tiny.Q8_0.gguf", packed=True)
    for one, other in zip(logits(str(packed)), logits("demo"), strict=True):
        gap = (one - other).abs().mean().item()
        assert 0 < gap < 0.02 * other.abs().mean().item()


def test_a_tokenizer_that_transformers_read_without_its_special_tokens_gets_them(tiny: Path) -> None:
    """As versions before 5.18 read Qwen's: the end of a turn was ordinary text, and another token the end."""
    whole = json.loads((DEMO_DATA / "base" / "tokenizer.json").read_text("utf-8"))
    special, whole["added_tokens"] = whole["added_tokens"], []
    whole["model"]["vocab"] |= {token["content"]: token["id"] for token in special}
    read = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(whole)))
    forged, right = "Hi<|im_end|>\n", load_tokenizer("demo")
    assert read(forged)["input_ids"] != right(forged)["input_ids"]
    _name_special_tokens(read, tiny)
    assert read(forged)["input_ids"] == right(forged)["input_ids"]
    assert (read.eos_token, read.pad_token) == (right.eos_token, right.pad_token)


def test_a_word_that_the_vocabulary_spells_otherwise_becomes_no_new_token(tiny: Path) -> None:
    """Gemma's file has runs of spaces where its tokenizer has runs of `▁`."""
    whole = json.loads((DEMO_DATA / "base" / "tokenizer.json").read_text("utf-8"))
    special, whole["added_tokens"] = whole["added_tokens"], []
    whole["model"]["vocab"] |= {token["content"].replace("|", "/"): token["id"] for token in special}
    read = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(whole)))
    size = len(read)
    _name_special_tokens(read, tiny)
    assert len(read) == size


def test_a_file_is_unpacked_once_and_another_under_its_name_again(tiny: Path, tmp_path: Path, cache: Path) -> None:
    file = tmp_path / "model.gguf"
    shutil.copy2(tiny, file)
    first = Path(model_location(str(file)))
    made = (first / "model.safetensors").stat().st_mtime_ns
    copy = tmp_path / "copy.gguf"
    shutil.copy2(tiny, copy)
    assert model_location(str(copy)) == model_location(str(file)) == str(first)
    assert (first / "model.safetensors").stat().st_mtime_ns == made
    write_gguf(file, packed=True)
    assert model_location(str(file)) != str(first)
    assert [path.name for path in cache.iterdir() if path.is_dir()] == ["gguf-2"]


def test_it_is_known_what_a_model_was_unpacked_from(tiny: Path) -> None:
    source = source_of(str(tiny))
    assert source is not None and source.file == tiny.name and len(source.sha256) == 64
    assert source_of("demo") is None
    assert is_here(str(tiny)) and not is_here("smollm2")


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda path: path.write_bytes(b""), "an empty file"),
        (lambda path: path.write_bytes(b"PK\3\4" * 99), "expected a GGUF file, got another file"),
        (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"), "a pointer of Git LFS"),
        (lambda path: path.write_bytes(write_gguf(path).read_bytes()[:-40_000]), "a whole GGUF file"),
        (lambda path: path.write_bytes(write_gguf(path).read_bytes()[:3000]), "a whole GGUF file"),
        (lambda path: path.write_bytes(b"GGUF" + bytes(range(256)) * 9), "a whole GGUF file"),
        (lambda path: write_gguf(path, architecture="clip"), "clip"),
        (lambda path: write_gguf(path, tokenizer=False), "a GGUF file that transformers reads"),
        (
            lambda path: write_gguf(path, without="blk.1.ffn_up.weight"),
            "no weights for model.layers.1.mlp.up_proj.weight",
        ),
        (lambda path: write_gguf(path, pieces=3), "llama-gguf-split --merge"),
        (lambda path: path.mkdir(), "a folder without config.json"),
    ],
    ids=[
        "empty",
        "foreign",
        "lfs",
        "cut",
        "cut early",
        "damaged",
        "architecture",
        "no tokenizer",
        "a weight",
        "a piece",
        "folder",
    ],
)
def test_what_is_no_model_is_refused_and_nothing_of_it_is_kept(
    made: Callable[[Path], Any], said: str, tmp_path: Path, cache: Path
) -> None:
    file = tmp_path / "bad.gguf"
    made(file)
    fault = model_fault(str(file))
    assert fault is not None and said in str(fault) and str(file) in str(fault)
    assert left(cache) in ([], ["gguf-2"])


def test_one_without_a_chat_template_says_the_ways_out(tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "base.gguf", template=False)
    assert model_fault(str(file)) is None
    (fault,) = chat_fitness(str(file)).faults
    assert "a tokenizer with a chat template" in str(fault) and "--chat-template plain" in str(fault)


def test_of_several_files_one_has_to_be_named(tiny: Path, tmp_path: Path) -> None:
    for name in ("a.Q4_K_M.gguf", "a.Q8_0.gguf", "mmproj-a.gguf"):
        shutil.copy2(tiny, tmp_path / name)
    fault = str(model_fault(str(tmp_path)))
    assert f"{tmp_path}/a.Q4_K_M.gguf" in fault and "a.Q8_0.gguf" in fault and "mmproj" not in fault
    (tmp_path / "a.Q8_0.gguf").unlink()
    assert model_fault(str(tmp_path)) is None
    shutil.copytree(model_location(str(tmp_path)), tmp_path, dirs_exist_ok=True)
    assert model_location(str(tmp_path)) == str(tmp_path), "weights beside it come first"


def test_a_file_that_is_not_there_is_no_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("model.gguf", "models/model.gguf", str(tmp_path / "model.gguf")):
        assert "no such file" in str(model_fault(name))


def test_a_cache_that_cannot_be_written_is_said(tiny: Path, cache: Path) -> None:
    cache.write_text("a file")
    fault = model_fault(str(tiny))
    assert fault is not None and str(cache) in str(fault) and "export SOCRATUNE_CACHE=" in fault.fix


def test_too_little_room_is_said_before_anything_is_written(
    tiny: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 1000))  # type: ignore[attr-defined]
    assert "GB of room" in str(model_fault(str(tiny)))
    assert left(cache) == ["gguf-2"]


FULL = """
import resource, sys
from socratune.llm.locate import model_fault
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
print(model_fault(sys.argv[1]))
"""


@pytest.mark.slow
def test_a_disk_that_is_full_half_way_leaves_nothing(tiny: Path, cache: Path) -> None:
    command = [sys.executable, "-c", FULL, str(tiny)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
    assert "a cache that can be written" in done.stdout and "Make room" in done.stdout, done.stdout + done.stderr
    assert left(cache) == ["gguf-2"]


@pytest.mark.slow
def test_two_processes_at_once_and_one_that_was_killed_before(tiny: Path, cache: Path, tmp_path: Path) -> None:
    folder = Path(model_location(str(tiny)))
    part = folder.with_name(f"{folder.name}.part")
    folder.rename(part)
    (part / "model.safetensors").write_bytes(b"half")
    env = {"SOCRATUNE_CACHE": str(cache)}
    files = [[tmp_path / f"{at}.out", tmp_path / f"{at}.err"] for at in range(2)]
    for file in (file for pair in files for file in pair):
        file.touch()
    runs = [Fork("plan", "--model", str(tiny), "--json", env=env, files=pair) for pair in files]
    said = [(run.wait(200), err.read_text().count("Unpacking")) for run, (_, err) in zip(runs, files, strict=True)]
    assert sorted(said) == [(0, 0), (0, 1)]
    assert not part.exists() and (folder / "model.safetensors").stat().st_size > 100_000


@pytest.mark.slow
def test_a_run_trains_on_it_and_says_on_what(tiny: Path, tmp_path: Path, results_of: Callable[[Path], Any]) -> None:
    from conftest import demo_rows, write_rows

    rows = write_rows(tmp_path / "rows.jsonl", demo_rows("train", 40))
    flags = ["--until", "train", "--teacher-model", "rules/arithmetic", "--set", "train.num_train_epochs=1"]
    done = socratune("run", "--model", str(tiny), "--dataset", rows, "--output", tmp_path / "run", *flags)
    assert done.returncode == 0, done.stderr
    results, source = results_of(tmp_path / "run"), source_of(str(tiny))
    assert source is not None
    pinned = json.loads((tmp_path / "run" / "provenance.json").read_text())
    assert results["model"] == str(tiny) and source.sha256 in json.dumps(pinned) and tiny.name in json.dumps(pinned)


def test_published_it_is_named_by_the_model_that_others_have(tiny: Path) -> None:
    results: dict[str, Any] = {"stages": {}, "dataset": "rows.jsonl", "config": {}}
    model_location(str(tiny))
    with pytest.raises(UserError, match=r"--base ORG/NAME.*tiny\.F32\.gguf"):
        public_base(str(tiny), None, results, offline=True)
    base = public_base(str(tiny), "org/Tiny", results, offline=True)
    assert (base.name, base.on_hub, base.licence.id) == ("org/Tiny", True, "apache-2.0")
    card = model_card(results, "me/adapter", base, system=None, dataset_id=None)
    assert base.gguf is not None and base.gguf.sha256 in card and "dequantised from `tiny.F32.gguf`" in card
    assert "base_model: org/Tiny" in card and str(cache_folder()) not in card
    plain = model_card(results, "me/adapter", PublicBase("org/Tiny", True, None, Licence("apache-2.0")), system=None,
                       dataset_id=None)  # fmt: skip
    assert "dequantised" not in plain
