"""Publication through the real `huggingface_hub` client to a Hub on loopback."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from conftest import DEMO_DATA, demo_rows, socratune, write_rows
from forging import config_of, gate, load, made_failing, pinned_anew, save, uploaded, with_config
from hub_server import FINE_TOKEN, OTHER_FINE_TOKEN, READ_TOKEN, TOKEN, Hub, Repo, loopback_hub

from socratune.errors import StageFailed, UserError
from socratune.evaluation.adapter_files import adapter_manifest
from socratune.preflight import check_run
from socratune.publishing.card import dataset_card, model_card
from socratune.publishing.licences import Licence, PublicBase, licence_of, public_base
from socratune.publishing.privacy import without_data, without_paths
from socratune.runs.folder import RunDir
from socratune.stages import publish

COMPARISON = {
    "base_accuracy": 0.275, "adapter_accuracy": 0.9975, "difference": 0.7225, "ci95": [0.6775, 0.765], "p": 0.0001,
    "n": 400, "clusters": 200, "undecided": {"base": 1, "adapter": 2}, "wins": 289, "losses": 3,
    "verdict": "better", "passed": True,
}  # fmt: skip


@pytest.fixture
def hub() -> Iterator[Hub]:
    with loopback_hub() as found:
        yield found


@pytest.fixture
def made_run(finished_run: Path, tmp_path: Path) -> Path:
    """A finished run as other people have them: a model and data in folders of theirs, a paid teacher, one trace."""
    folder = tmp_path / "a run"
    shutil.copytree(finished_run, folder)
    (folder / "journal.sqlite").unlink()
    path = folder / "adapter" / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "is_local": True, "local_files_only": False}))
    model = str(tmp_path / "secret place" / "tiny")
    enhancement = {"student_model": model, "judge_model": f"python:{tmp_path}/judge.py:judge", "trace": []}
    row = {"id": "1", **demo_rows("train", 1)[0]}
    row["messages"][1]["content"] = "What stands in /etc/hosts/x?"
    row["metadata"] |= {"enhancement": enhancement, "source": str(tmp_path / "docs" / "a b.pdf"), "page": 3}
    write_rows(folder / "enhanced_dataset.jsonl", [row])
    with_config(folder, "dataset", f"{tmp_path}/rows.jsonl")
    results = load(folder)
    results |= {"dataset": f"{tmp_path}/rows.jsonl"}
    results["stages"]["enhance"] |= {
        "student_model": model, "student": {"name": model, "revision": None}, "teacher_model": "anthropic/x",
        "spent": {"enhance.teacher": {"tokens": 12345, "usd": 1.25}}, "leaks": {"measured": 200, "rate": 0.015},
    }  # fmt: skip
    results["stages"]["train"]["students"] = {model: {"grade": "same"}}
    results["stages"]["publish"] = {"status": "running"}
    results["validation"]["tests"]["file_integrity"]["sha256"] = adapter_manifest(folder / "adapter")
    save(folder, results)
    pinned_anew(folder)
    assert gate(folder).pinned
    return folder


def in_env(hub: Hub, home: Path, token: str = TOKEN) -> dict[str, str]:
    return {"HF_ENDPOINT": hub.url, "HF_TOKEN": token, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(home / "hf")}


def python(script: str, *args: str | Path, env: dict[str, str], given: str = "") -> str:
    """What a script prints in a process of its own: the client reads HF_ENDPOINT when it is imported."""
    command, environment = [sys.executable, "-c", script, *map(str, args)], {**os.environ, **env}
    done = subprocess.run(
        command, env=environment, input=given, capture_output=True, text=True, check=False, timeout=200
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_what_passed_is_published_privately_in_one_commit_and_repeated_without_an_empty_one(
    made_run: Path, hub: Hub, tmp_path: Path, results_of: Callable[[Path], Any]
) -> None:
    env = in_env(hub, tmp_path)
    done = socratune("publish", made_run, "--hub-id", "me/adapter", env=env)
    assert done.returncode == 0, done.stderr
    repo = hub.repos["model/me/adapter"]
    assert repo.private and len(repo.commits) == 2
    assert set(repo.files) == {
        ".gitattributes", "README.md", "adapter_config.json", "adapter_model.safetensors", "chat_template.jinja",
        "pipeline_results.json", "provenance.json", "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    assert repo.files["adapter_model.safetensors"] == (made_run / "adapter/adapter_model.safetensors").read_bytes()
    assert results_of(made_run)["stages"]["publish"]["status"] == "done"
    assert results_of(made_run)["status"] == "passed"

    assert socratune("publish", made_run, "--hub-id", "me/adapter", env=env).returncode == 0
    assert len(repo.commits) == 2 and hub.count("PUT") == 1

    repo.files["README.md"] = b"changed on the site"
    done = socratune("publish", made_run, "--hub-id", "me/adapter", "--public", env=env)
    assert done.returncode == 0, done.stderr
    assert len(repo.commits) == 3 and hub.count("PUT /blob") == 1
    assert not repo.private


@pytest.mark.slow
def test_no_path_and_no_question_of_the_user_is_published(made_run: Path, hub: Hub, tmp_path: Path) -> None:
    done = socratune("publish", made_run, "--hub-id", "me/adapter", "--with-dataset", env=in_env(hub, tmp_path))
    assert done.returncode == 0, done.stderr
    published = {f"{key}/{name}": data for key, repo in hub.repos.items() for name, data in repo.files.items()}
    assert {key.split("/")[0] for key in published} == {"model", "dataset"}
    for place in (tmp_path, "secret place", DEMO_DATA, Path.cwd()):
        assert not [name for name, data in published.items() if str(place).encode() in data], place
    held_out = [json.loads(line) for line in (made_run / "held_out_answers.jsonl").read_text().splitlines()]
    of_the_user = {text for row in held_out for text in (row["question"], row["base"]["response"]) if len(text) > 20}
    assert len(of_the_user) > 20
    assert not [name for name, data in published.items() if any(text.encode() in data for text in of_the_user)]
    row = json.loads(published["dataset/me/adapter/enhanced_dataset.jsonl"])
    assert row["messages"][1]["content"] == "What stands in /etc/hosts/x?"
    assert (row["metadata"]["source"], row["metadata"]["page"]) == ("a b.pdf", 3)
    assert row["metadata"]["enhancement"]["student_model"] == "tiny"
    adapter = json.loads(published["model/me/adapter/adapter_config.json"])
    assert (adapter["base_model_name_or_path"], adapter["revision"]) == ("socratune/demo-base", None)
    results = json.loads(published["model/me/adapter/pipeline_results.json"])
    assert (results["status"], results["dataset"]) == ("passed", "rows.jsonl")
    assert results["stages"]["train"]["students"] == {"tiny": {"grade": "same"}}
    assert "origins" not in results and "publish" not in results["stages"]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("/home/me/models/tiny", "tiny"),
        ("/home/me/my models/tiny one", "tiny one"),
        ("~/models/tiny", "tiny"),
        ("../other/rows.jsonl", "rows.jsonl"),
        (r"C:\Users\me\rows.jsonl", "rows.jsonl"),
        ("python:/home/me/judge.py:judge", "python:judge.py:judge"),
        ("local//home/me/tiny", "local/tiny"),
        ("file:///home/me/a.pdf", "a.pdf"),
        ("No file /home/me/run/x.jsonl. Make it: socratune run", "No file x.jsonl. Make it: socratune run"),
        ("clients/acme/rows.jsonl", "rows.jsonl"),
        ("eval_file clients/acme/test.csv", "eval_file test.csv"),
        ("eval_file /home/me/test.csv", "eval_file test.csv"),
        ("org/name", "org/name"),
        ("https://example.org/a/b.txt", "https://example.org/a/b.txt"),
        ("https://example.org/a/b", "https://example.org/a/b"),
        ("it is 3/4/5 and and/or/not", "it is 3/4/5 and and/or/not"),
        ("12 /3", "12 /3"),
    ],
)
def test_paths_become_names(value: str, shown: str) -> None:
    assert without_paths({value: [value, 1, None]}) == {shown: [shown, 1, None]}


def test_figures_without_the_data_they_are_of() -> None:
    told = {"n": 2, "wins": [{"question": "q", "id": 1}, {"count": 3}], "prompt_responses": [1], "examples": {"a": 1}}
    assert without_data(told) == {"n": 2, "wins": [{"count": 3}]}


@pytest.mark.slow
def test_a_dry_run_shows_files_and_card_and_touches_nothing(made_run: Path, hub: Hub, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in made_run.rglob("*")}
    done = socratune(
        "publish", made_run, "--hub-id", "me/adapter", "--dry-run", "--with-dataset", env=in_env(hub, tmp_path, "")
    )
    assert done.returncode == 0, done.stderr
    size = (made_run / "adapter" / "adapter_model.safetensors").stat().st_size
    assert re.search(rf"{size:,}  adapter_model.safetensors", done.stdout)
    assert "model me/adapter (private)" in done.stdout and "dataset me/adapter" in done.stdout
    before_it = load(made_run)["validation"]["tests"]["base_comparison"]["base_accuracy"]
    assert f"{before_it:.1%}" in done.stdout and "PeftModel.from_pretrained" in done.stdout
    assert hub.calls == []
    assert {path: path.stat().st_mtime_ns for path in made_run.rglob("*")} == before


@pytest.mark.parametrize("name", ["nobody", "a/b/c", "me/", "/x", "me/a b", "me/x--y", "me/x.git", "me/" + "x" * 97])
def test_an_illegal_name_is_said_before_anything_else(made_run: Path, name: str) -> None:
    fault = publish.hub_id_fault(name)
    assert fault is not None and "--hub-id" in str(fault)


@pytest.mark.slow
def test_an_illegal_name_stops_the_command_before_the_gate(made_run: Path, hub: Hub, tmp_path: Path) -> None:
    made_failing(made_run)
    done = socratune("publish", made_run, "--hub-id", "me/x--y", env=in_env(hub, tmp_path))
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "--hub-id" in done.stderr and "min_gain" not in done.stderr
    assert hub.calls == []


@pytest.mark.slow
def test_what_did_not_pass_is_refused_and_by_force_published_with_a_warning(
    made_run: Path, hub: Hub, tmp_path: Path, results_of: Callable[[Path], Any]
) -> None:
    made_failing(made_run)
    before = results_of(made_run)
    done = socratune("publish", made_run, "--hub-id", "me/adapter", env=in_env(hub, tmp_path))
    assert done.returncode == 1 and "asks for +99.0%" in done.stderr
    assert hub.calls == [] and results_of(made_run) == before
    done = socratune("publish", made_run, "--hub-id", "me/adapter", "--force", env=in_env(hub, tmp_path))
    assert done.returncode == 0, done.stderr
    files = hub.repos["model/me/adapter"].files
    card = files["README.md"].decode()
    assert "did not pass its validation" in card and "asks for +99.0%" in card
    assert card.index("did not pass") < card.index("Measured on held-out questions")
    assert json.loads(files["pipeline_results.json"])["status"] == "failed"


def test_publishing_anew_keeps_the_proof(made_run: Path) -> None:
    from socratune.runs.folder import Results
    from socratune.runs.journal import Journal
    from socratune.runs.progress import forget_from

    run = RunDir(made_run)
    with closing(Journal(run.journal)) as journal:
        forget_from("publish", run, Results(run), journal)
    assert gate(made_run).proof.passed


def test_nothing_is_published_while_a_training_that_began_anew_is_not_finished(made_run: Path) -> None:
    results = load(made_run)
    results["stages"]["train"] = {"status": "running"}
    save(made_run, results)
    with pytest.raises(StageFailed, match="not finished"):
        gate(made_run, force=True)


@pytest.mark.slow
def test_a_base_folder_that_is_gone_is_said_and_not_published(made_run: Path, tmp_path: Path) -> None:
    base = f"{tmp_path}/gone/tiny"
    with_config(made_run, "model", base)
    save(made_run, load(made_run) | {"model": base})
    pinned_anew(made_run)
    done = socratune("publish", made_run, "--hub-id", "me/x", "--dry-run")
    assert done.returncode == 2 and "expected the folder of the base model" in done.stderr
    wrong = socratune("publish", made_run, "--hub-id", "me/x", "--base", "///", "--dry-run")
    assert wrong.returncode == 2 and wrong.stderr.startswith("--base: expected a Hub name")


def test_the_data_set_is_published_as_it_was_reviewed(made_run: Path, tmp_path: Path) -> None:
    from socratune.runs.review import record_decision

    run = RunDir(made_run)
    (row,) = (json.loads(line) for line in run.enhanced.read_text().splitlines())
    rejected, edited, kept = ({**row, "id": name} for name in ("rejected", "edited", "kept"))
    write_rows(run.enhanced, [rejected, edited, kept])
    record_decision(run, "rejected", "reject", None)
    record_decision(run, "edited", "edit", "As it should read.")
    with_config(made_run, "publish.with_dataset", True)
    dataset, _ = uploaded(made_run, tmp_path)
    rows = [json.loads(line) for line in (dataset.folder / "enhanced_dataset.jsonl").read_text().splitlines()]
    assert {row["id"]: row["messages"][-1]["content"] for row in rows} == {
        "edited": "As it should read.", "kept": row["messages"][-1]["content"]
    }  # fmt: skip
    assert "2 questions of" in (dataset.folder / "README.md").read_text()


def spoil_weights(adapter: Path) -> None:
    path = adapter / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes() + b" ")


def spoil_template(adapter: Path) -> None:
    (adapter / "chat_template.jinja").write_text("{{ 'x' }}")


def add_a_file(adapter: Path) -> None:
    (adapter / "notes.txt").write_text("private")


def lose_a_file(adapter: Path) -> None:
    (adapter / "tokenizer.json").unlink()


@pytest.mark.parametrize("spoil", [spoil_weights, spoil_template, add_a_file, lose_a_file])
def test_an_adapter_changed_after_validation_is_not_published_even_by_force(
    made_run: Path, spoil: Callable[[Path], None]
) -> None:
    spoil(made_run / "adapter")
    for force in (False, True):
        with pytest.raises(StageFailed, match=r"The adapter is not the one that was validated: [a-z_]+\."):
            gate(made_run, force=force)


def test_broken_files_are_not_published_even_by_force(made_run: Path) -> None:
    results = load(made_run)
    results["validation"]["tests"]["file_integrity"] |= {"passed": False, "problems": ["it cannot be read"]}
    save(made_run, results)
    with pytest.raises(StageFailed, match=r"not by force.*cannot be read"):
        gate(made_run, force=True)
    save(made_run, {"stages": {}})
    with pytest.raises(StageFailed, match="not validated yet"):
        gate(made_run, force=True)


REFUSALS = [
    ("hf_canary_wrong", "me/adapter", "the token was refused"),
    ("", "me/adapter", "No token"),
    (READ_TOKEN, "me/adapter", "may not write"),
    (TOKEN, "them/adapter", "may not write"),
    (TOKEN, "me/taken", "holds something else"),
    (TOKEN, "me/open", "it is public"),
]


@pytest.mark.slow
def test_a_refusal_is_one_clear_message_and_after_all_of_them_it_can_be_repeated(
    made_run: Path, hub: Hub, tmp_path: Path
) -> None:
    hub.repos["model/me/taken"] = Repo(True, {"model.safetensors": b"another model"})
    hub.repos["model/me/open"] = Repo(False)
    for token, hub_id, said in REFUSALS:
        done = socratune("publish", made_run, "--hub-id", hub_id, env=in_env(hub, tmp_path, token))
        assert done.returncode == 3, done.stdout + done.stderr
        assert said in done.stderr and "Traceback" not in done.stderr
        assert f"socratune publish '{made_run}' --hub-id {hub_id}" in done.stderr  # a command that can be copied
        assert "hf_canary_wrong" not in done.stderr + (made_run / "run.log").read_text()
    assert hub.repos["model/me/taken"].files == {"model.safetensors": b"another model"}
    assert socratune("publish", made_run, "--hub-id", "me/mine", env=in_env(hub, tmp_path)).returncode == 0


@pytest.mark.slow
def test_no_hub_at_all(made_run: Path, tmp_path: Path) -> None:
    env = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_TOKEN": TOKEN, "HF_HOME": str(tmp_path)}
    done = socratune("publish", made_run, "--hub-id", "me/adapter", env=env)
    assert done.returncode == 3 and "connection failed" in done.stderr and "Traceback" not in done.stderr


UPLOAD = """
import sys
from pathlib import Path
from socratune.errors import OutsideError
from socratune.stages.publish import Repo, _upload
try:
    print(_upload(Repo("model", Path(sys.argv[1]), "pipeline_results.json"), "me/big", private=True, again="AGAIN"))
except OutsideError as error:
    print("refused:", error)
"""


@pytest.fixture
def big_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "big"
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_bytes(os.urandom(52 << 20))
    (folder / "pipeline_results.json").write_text("{}")
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    return folder


@pytest.mark.slow
def test_52_mb_go_up_in_parts_once(big_folder: Path, hub: Hub, tmp_path: Path) -> None:
    env = in_env(hub, tmp_path)
    python(UPLOAD, big_folder, env=env)
    assert hub.count("PUT /blob") == 3 and hub.count("POST /complete") == 1
    weights = (big_folder / "adapter_model.safetensors").read_bytes()
    assert hub.repos["model/me/big"].files["adapter_model.safetensors"] == weights
    hub.repos.clear()  # the store still has the content, as the real one does
    python(UPLOAD, big_folder, env=env)
    assert hub.count("PUT /blob") == 3
    assert hub.repos["model/me/big"].files["adapter_model.safetensors"] == weights


@pytest.mark.slow
@pytest.mark.parametrize("part_bytes", [20 << 20, 100 << 20])
def test_one_cut_connection_is_mended_by_the_client(
    big_folder: Path, hub: Hub, tmp_path: Path, part_bytes: int
) -> None:
    hub.part_bytes, hub.cut = part_bytes, 1
    assert "refused" not in python(UPLOAD, big_folder, env=in_env(hub, tmp_path))
    weights = (big_folder / "adapter_model.safetensors").read_bytes()
    assert hub.repos["model/me/big"].files["adapter_model.safetensors"] == weights


@pytest.mark.slow
def test_a_connection_that_stays_cut_is_said_and_the_same_command_goes_on(
    big_folder: Path, hub: Hub, tmp_path: Path
) -> None:
    hub.cut = 1000
    said = python(UPLOAD, big_folder, env=in_env(hub, tmp_path))
    assert "refused" in said and "connection failed" in said and "AGAIN" in said
    assert list(hub.repos["model/me/big"].files) == [".gitattributes"]  # nothing half-published
    hub.cut = 0
    assert "refused" not in python(UPLOAD, big_folder, env=in_env(hub, tmp_path))
    assert len(hub.repos["model/me/big"].commits) == 2


@pytest.mark.slow
def test_a_commit_by_somebody_else_meanwhile_is_not_overwritten(big_folder: Path, hub: Hub, tmp_path: Path) -> None:
    def push() -> None:
        hub.meanwhile = None
        hub.repos["model/me/big"].commits.append("f" * 40)

    hub.meanwhile = push
    said = python(UPLOAD, big_folder, env=in_env(hub, tmp_path))
    assert "somebody else wrote there" in said and "AGAIN" in said
    assert list(hub.repos["model/me/big"].files) == [".gitattributes"]
    assert "refused" not in python(UPLOAD, big_folder, env=in_env(hub, tmp_path))


@pytest.mark.slow
def test_with_xet_as_the_client_has_it_by_default_it_is_one_commit_too(
    made_run: Path, hub: Hub, tmp_path: Path
) -> None:
    pytest.importorskip("hf_xet", reason="the package hf_xet is not installed")
    hub.xet = tmp_path / "xet"
    hub.xet.mkdir()
    env = in_env(hub, tmp_path) | {"HF_HUB_DISABLE_XET": "0"}
    for _ in range(2):
        done = socratune("publish", made_run, "--hub-id", "me/adapter", env=env)
        assert done.returncode == 0, done.stderr
        repo = hub.repos["model/me/adapter"]
        assert len(repo.commits) == 2 and "adapter_model.safetensors" in repo.files and hub.count("PUT") == 0


BACK = """
import json, sys
import huggingface_hub
from pathlib import Path
folder = Path(huggingface_hub.snapshot_download("me/adapter"))
print(json.dumps({path.name: str(path) for path in folder.iterdir()}))
"""


@pytest.mark.slow
def test_a_private_repository_comes_back_whole_and_only_to_its_owner(made_run: Path, hub: Hub, tmp_path: Path) -> None:
    assert socratune("publish", made_run, "--hub-id", "me/adapter", env=in_env(hub, tmp_path)).returncode == 0
    found = json.loads(python(BACK, env=in_env(hub, tmp_path)))
    for name in ("adapter_model.safetensors", "tokenizer.json", "chat_template.jinja"):
        assert Path(found[name]).read_bytes() == (made_run / "adapter" / name).read_bytes()
    stranger = in_env(hub, tmp_path / "stranger", "hf_other") | {"HF_TOKEN": ""}
    refused = subprocess.run(
        [sys.executable, "-c", BACK], env={**os.environ, **stranger}, capture_output=True, text=True, check=False
    )
    assert refused.returncode != 0 and "RepositoryNotFound" in refused.stderr


# The card


def results_with(**changes: Any) -> dict[str, Any]:
    stages = {"split": {"commit": None}, "enhance": {}, "train": {}}
    tests = {"base_comparison": COMPARISON, **changes.pop("tests", {})}
    found = {
        "stages": stages,
        "dataset": "rows.jsonl",
        "validation": {"status": "passed", "tests": tests},
        "config": {},
    }
    return found | changes


HOSTILE = "x\"'\n---\nlicense: mit\n# |`<b>` {{ [a](b) \\ \u2028 - : &*!"


def test_hostile_names_and_licences_break_neither_front_matter_nor_tables() -> None:
    from huggingface_hub import DatasetCard, ModelCard

    base = PublicBase(HOSTILE, True, HOSTILE, Licence("other", HOSTILE, None, HOSTILE))
    stages = {
        "split": {"commit": HOSTILE},
        "enhance": {"outcomes": {HOSTILE: 1}, "teacher_model": HOSTILE, "judge_model": HOSTILE},
        "train": {},
    }
    validation = {
        "status": "failed",
        "reason": HOSTILE,
        "tests": {"base_comparison": COMPARISON | {"verdict": HOSTILE}},
    }
    config = {"train": {"target_modules": [HOSTILE]}}
    told = results_with(dataset=HOSTILE, stages=stages, validation=validation, config=config)
    card = model_card(told, "me/x", base, system=HOSTILE, dataset_id=None)
    data: Any = ModelCard(card).data
    assert (data.license, data.license_name, data.base_model) == ("other", HOSTILE, HOSTILE)
    assert data.eval_results is not None and data.eval_results[0].metric_value == 0.9975
    body = card.split("\n---\n", 1)[1]
    for row in re.findall(r"(?m)^\|.*$", body):
        assert row.count("|") - row.count("\\|") in (3, 7), row
    assert not re.search(r"(?m)^(---|# \|)", body)
    compile(re.findall(r"```python\n(.*?)```", body, re.DOTALL)[0], "card", "exec")
    again: Any = DatasetCard(dataset_card(told, "me/x", base, base.licence, rows=1, model_id="me/x")).data
    assert again.license_name == HOSTILE


def test_the_card_has_the_measured_figures() -> None:
    from huggingface_hub import ModelCard

    base = PublicBase("org/base", True, "c0ffee", Licence("llama3.1"))
    stages = {
        "split": {"commit": "abc", "train_in": 5, "dev": 2, "held_out": 400},
        "enhance": {
            "leaks": {"measured": 200, "rate": 0.015},
            "spent": {"enhance.teacher": {"tokens": 12345, "usd": 1.25}, "enhance.judge": {"tokens": 7, "usd": None}},
        },
        "train": {"trained_tokens": 93873},
    }
    forgetting = {
        "passed": True, "proven": False, "reason": "the base solves only 40", "n": 450, "base_accuracy": 0.5125,
        "adapter_accuracy": 0.5, "drop": 0.0125, "drop_upper95": 0.0275, "strata": {"facts": {"n": 1}},
    }  # fmt: skip
    tests = {"forgetting": forgetting, "meters": {"mean_kl_nats": 0.0421}, "recall": COMPARISON | {"n": 77}}
    tests["base_comparison"] = COMPARISON | {"worst_case": {"difference": 0.715, "ci95": [0.66, 0.76]}}
    told = results_with(dataset="org/data", stages=stages, tests=tests)
    card = model_card(told, "me/x", base, system=None, dataset_id="me/x")
    for figure in (
        "27.5%", "99.8%", "+72.2%", "+67.8% to +76.5%", "400 held-out questions from 200 sources", "better",
        "+71.5% (+66.0% to +76.0%)", "77 questions about trained facts", "1.5% of 200 hints", "93,873",
        "12,345 tokens, 1.25 USD", "7 tokens, price not known", "51.2% before and 50.0% after on 450",
        "a drop of 1.2%, at most 2.8% (95%)", "not ruled out: the base solves only 40", "0.0421 nats",
    ):  # fmt: skip
        assert figure in card, figure
    assert 'from_pretrained("org/base", revision="c0ffee")' in card and "adapter_name" not in card
    data: Any = ModelCard(card).data
    assert (data.license, data.base_model, data.datasets) == ("llama3.1", "org/base", ["me/x", "org/data"])
    assert [(found.metric_type, found.metric_value) for found in data.eval_results or []] == [
        ("accuracy", 0.9975), ("accuracy-gain", 0.7225)
    ]  # fmt: skip


def test_the_card_tells_how_it_was_really_trained() -> None:
    train = {
        "rows_out": 487, "pairs": 487, "learning_rate": 0.0006, "sweep": [{}], "best_epoch": 2, "epochs": [{}, {}, {}]
    }  # fmt: skip
    stages, config = {"split": {}, "enhance": {}, "train": train}, {"train": {"method": "dpo", "learning_rate": 0.0003}}
    base = PublicBase("org/base", True, "c0ffee", Licence("mit"))
    card = model_card(results_with(stages=stages, config=config), "me/x", base, system=None, dataset_id=None)
    for said in ("| 487, each with a right and a wrong answer |", "| 3, number 2 kept |", "`0.0006`, chosen on the dev",
                 '`train.method` | `"dpo"`'):  # fmt: skip
        assert said in card, said
    assert "0.0003" not in card


@pytest.mark.parametrize(
    ("readme", "expected"),
    [
        ("---\nlicense: apache-2.0\n---\n# x", ("apache-2.0", None, None)),
        ("---\nlicense: [mit]\n---\n", ("mit", None, None)),
        (
            "---\nlicense: other\nlicense_name: my-own\nlicense_link: https://a.b/c\n---\n",
            ("other", "my-own", "https://a.b/c"),
        ),
        ("---\nlicense: other\nlicense_name: my-own\nlicense_link: LICENSE\n---\n", ("other", "my-own", None)),
    ],
)
def test_the_licence_of_a_folder_is_that_of_its_card(tmp_path: Path, readme: str, expected: tuple[str, ...]) -> None:
    (tmp_path / "README.md").write_text(readme)
    found = licence_of(tmp_path)
    assert (found.id, found.name, found.link) == expected and not found.doubt


@pytest.mark.parametrize(
    "readme", [None, "# no front matter", "---\ntags: [x]\n---\n", "---\n{{\n---\n", "---\nlicense: 'a\n\n  b'\n---\n"]
)
def test_an_unknown_licence_is_other_with_a_warning(tmp_path: Path, readme: str | None) -> None:
    if readme is not None:
        (tmp_path / "README.md").write_text(readme)
    base = public_base(str(tmp_path), None, {"stages": {}}, offline=True)
    assert (base.licence.id, base.on_hub) == ("other", False) and base.licence.doubt
    card = model_card(results_with(), "me/x", base, system=None, dataset_id=None)
    assert "**Warning: the licence of" in card
    assert str(tmp_path.parent) not in card


def test_the_licence_of_a_hub_model_is_read_by_the_real_client(hub: Hub, tmp_path: Path) -> None:
    link = "license: other\nlicense_name: gemma\nlicense_link: LICENSE.md"
    hub.repos["model/org/base"] = Repo(False, {"README.md": f"---\n{link}\n---\n".encode()})
    script = "from socratune.publishing.licences import licence_of as f\n"
    script += "print(f('org/base'), f('org/none'), f('org/x', offline=True))"
    said = python(script, env=in_env(hub, tmp_path))
    assert (
        "Licence(id='other', name='gemma', link='https://huggingface.co/org/base/blob/main/LICENSE.md', doubt='')"
        in said
    )
    assert "RepositoryNotFoundError" in said and "the Hub was not asked" in said


@pytest.mark.slow
def test_a_licence_that_could_not_be_asked_for_is_not_called_unknown(tmp_path: Path) -> None:
    env = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)}
    script = """
from socratune.errors import OutsideError
from socratune.publishing.licences import licence_of
try:
    print(licence_of("org/base"))
except OutsideError as error:
    print("stopped:", error)
"""
    assert "stopped: The Hugging Face Hub could not be asked" in python(script, env=env)


def test_a_folder_of_the_hubs_cache_is_known_by_its_hub_name(tmp_path: Path) -> None:
    folder = tmp_path / "hub" / "models--Qwen--Qwen3-0.6B" / "snapshots" / "c0ffee"
    folder.mkdir(parents=True)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    base = public_base(str(folder), None, {"stages": {}}, offline=True)
    assert (base.name, base.on_hub, base.revision, base.licence.id) == ("Qwen/Qwen3-0.6B", True, "c0ffee", "apache-2.0")


def test_a_base_in_a_folder_can_be_given_its_hub_name(made_run: Path, tmp_path: Path) -> None:
    base = tmp_path / "qwen"
    shutil.copytree(DEMO_DATA / "base", base)
    (base / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    with_config(made_run, "model", str(base))
    with_config(made_run, "publish.base", "Qwen/Qwen3-0.6B")
    save(made_run, load(made_run) | {"model": str(base)})
    pinned_anew(made_run)
    place = tmp_path / "place"
    place.mkdir()
    (repo,) = uploaded(made_run, place)
    adapter = json.loads((repo.folder / "adapter_config.json").read_text())
    assert adapter["base_model_name_or_path"] == "Qwen/Qwen3-0.6B"
    card = (repo.folder / "README.md").read_text()
    assert "base_model: Qwen/Qwen3-0.6B" in card and "license: apache-2.0" in card
    assert 'from_pretrained("Qwen/Qwen3-0.6B")' in card


# A whole run


ANSWERS = """
import json, sys, torch

def answers(model, tokenizer, chats):
    for turns in chats:
        inputs = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=True, return_tensors="pt")
        output = model.generate(**inputs, max_new_tokens=96, do_sample=False)
        yield tokenizer.decode(output[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True).strip()

torch.set_num_threads(1)  # a tiny model on a busy machine waits for its second thread
asked, said = json.load(sys.stdin), {}
for way, code in asked["ways"].items():
    exec(code, loaded := {})
    said[way] = list(answers(loaded["model"], loaded["tokenizer"], asked["chats"]))
print(json.dumps(said))
"""


def test_the_cards_code_loads_what_was_published_and_it_answers_alike(
    copied_run: Path, hub: Hub, tmp_path: Path
) -> None:
    """Held-out questions, greedily: the run's adapter, the one the card's code loads, and a downloaded snapshot."""
    env = in_env(hub, tmp_path)
    done = socratune("publish", copied_run, "--hub-id", "me/adapter", "--with-dataset", env=env)
    assert done.returncode == 0, done.stderr
    card = hub.repos["model/me/adapter"].files["README.md"].decode()
    code = re.findall(r"```python\n(.*?)```", card, re.DOTALL)[0]
    rows = [json.loads(line)["messages"] for line in (copied_run / "held_out.jsonl").read_text().splitlines()[:8]]
    fetch = 'from huggingface_hub import snapshot_download\nfolder = snapshot_download("me/adapter")\n'
    ways = {
        "card": code,
        "run": code.replace('"me/adapter"', repr(str(copied_run / "adapter"))),
        "snapshot": fetch + code.replace('"me/adapter"', "folder"),
    }
    asked = {"ways": ways, "chats": [turns[:-1] for turns in rows]}
    said = json.loads(python(ANSWERS, env=env, given=json.dumps(asked)).splitlines()[-1])  # the card's code prints too
    assert said["card"] == said["run"] == said["snapshot"]
    right = [turns[-1]["content"].split("= ")[-1].rstrip(".") for turns in rows]
    assert sum(answer.rstrip(".").endswith(value) for answer, value in zip(said["card"], right, strict=True)) >= 6

    script = 'from datasets import load_dataset; print(len(load_dataset("me/adapter", split="train")))'
    count = len((copied_run / "enhanced_dataset.jsonl").read_text().splitlines())
    assert python(script, env=env).strip() == str(count)


ACCESS = [
    (TOKEN, "me/adapter", None),
    (TOKEN, "ME/adapter", None),
    (TOKEN, "team/adapter", None),
    (FINE_TOKEN, "me/adapter", None),
    ("", "me/adapter", "a token of the Hugging Face Hub, got none"),
    ("hf_wrong", "me/adapter", "one that it refuses"),
    (READ_TOKEN, "me/adapter", "one that may only read there"),
    (TOKEN, "readers/adapter", "one that may only read there"),
    (TOKEN, "them/adapter", "got one of me and of team, readers"),
    (OTHER_FINE_TOKEN, "me/adapter", "do not hold repo.write there"),
]


@pytest.mark.parametrize(("token", "hub_id", "said"), ACCESS)
def test_who_may_not_publish_is_told_before_anything_runs(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, token: str, hub_id: str, said: str | None
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "none"))
    monkeypatch.setenv("HF_TOKEN", token)
    given = {"model": "demo", "dataset": "demo", "output": str(tmp_path / "run"), "hub_id": hub_id}
    if said is None:
        check_run(given, where="test")
    else:
        with pytest.raises(UserError, match=re.escape(said)) as refused:
            check_run(given, where="test")
        assert "socratune publish RUN" in str(refused.value) and "hf_" not in str(refused.value)
        check_run(given, where="test", until="train")  # nothing is published then
    assert not [call for call in hub.calls if call != "GET /api/whoami-v2"]


def test_a_hub_out_of_reach_is_said_and_no_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    given = {"model": "demo", "dataset": "demo", "output": str(tmp_path / "run"), "hub_id": "me/adapter"}
    check_run(given, where="test")
    assert "could not be asked whether this token may write me/adapter" in caplog.text and TOKEN not in caplog.text


@pytest.mark.slow
def test_a_failed_upload_leaves_the_run_passed_and_says_what_is_left_to_do(
    copied_run: Path, hub: Hub, tmp_path: Path, results_of: Callable[[Path], Any]
) -> None:
    hub.repos["model/me/adapter"] = Repo(True, {"model.safetensors": b"another model"})
    command = ["run", "--config", copied_run / "config.yaml", "--output", copied_run, "--hub-id", "me/adapter"]
    done = socratune(*command, env=in_env(hub, tmp_path))
    assert done.returncode == 3, done.stdout + done.stderr
    assert f"passed: {copied_run}" in done.stdout and "not published: me/adapter was not written" in done.stdout
    found = results_of(copied_run)
    assert found["status"] == "passed" and found["stages"]["publish"]["status"] == "error"
    assert f"socratune publish {copied_run} --hub-id me/adapter-2" in found["error"]
    del hub.repos["model/me/adapter"]
    done = socratune(*command, env=in_env(hub, tmp_path))  # the same command goes on
    assert done.returncode == 0 and "error" not in results_of(copied_run), done.stderr


def test_a_card_says_what_was_sent_where_and_names_no_host_of_ones_own(made_run: Path, tmp_path: Path) -> None:
    results = load(made_run)
    sent = {"enhance.judge": {"model": "openai/gpt-4o-mini", "hosts": ["api.openai.com"]},
            "enhance.teacher": {"model": "qwen", "hosts": ["gpu7", "10.0.0.3"]}}  # fmt: skip
    cards = []
    for at, found in enumerate((sent, {}, None)):
        results["sent_to"] = found
        if found is None:
            del results["sent_to"]
        place = tmp_path / f"place{at}"
        place.mkdir()
        publish.prepared_upload(
            RunDir(made_run), config_of(made_run), place, gate(made_run), results=results, offline=True
        )
        cards.append((place / "model" / "README.md").read_text())
    assert "`openai/gpt-4o-mini` at api.openai.com" in cards[0] and "`qwen` at a server of one's own" in cards[0]
    assert "gpu7" not in cards[0] and "nobody: every model" in cards[1] and "| not recorded |" in cards[2]
