"""What stands on the Hub is believed for what its files come to: `socratune verify HUB-ID`, by the real client."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import socratune
from forging import load, made_failing, of_an_older_version, save, uploaded
from hub_server import TOKEN, Hub, loopback_hub

from socratune.errors import UserError
from socratune.publishing.published import verify_published


@pytest.fixture
def hub() -> Iterator[Hub]:
    with loopback_hub() as found:
        yield found


@pytest.fixture(scope="module")
def uploaded_once(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("uploaded")
    (repo,) = uploaded(finished_run, place)
    return repo.folder


@pytest.fixture
def folder(uploaded_once: Path, tmp_path: Path) -> Path:
    """What `publish` uploads of an honest run."""
    return Path(shutil.copytree(uploaded_once, tmp_path / "there"))


def edit_text(name: str, pattern: str, by: str) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        text = (folder / name).read_text("utf-8")
        changed = re.sub(pattern, by, text, count=1)
        assert changed != text
        (folder / name).write_text(changed, "utf-8")

    return edit


def other_weights(folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-4] + b"\0\0\0\1")


def other_weights_said(folder: Path) -> None:
    """Also in the list of what was published."""
    from socratune.publishing.published import publish_provenance

    other_weights(folder)
    publish_provenance(folder)


def failed_said_passed(folder: Path) -> None:
    results = json.loads((folder / "pipeline_results.json").read_text())
    results["config"]["validate"]["gate"]["min_gain"] = 0.99
    (folder / "pipeline_results.json").write_text(json.dumps(results))


def no_provenance(folder: Path) -> None:
    (folder / "provenance.json").unlink()


def another_file(folder: Path) -> None:
    (folder / "modeling_custom.py").write_text("import os")


def lost_file(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


EDITS: list[tuple[Callable[[Path], None], str]] = [
    (edit_text("README.md", r"\+\d\d\.\d% to", "+97.0% to"), "README.md does not state what was measured"),
    (edit_text("README.md", r"(\| \d+ held-out questions [^|]*\|) [\d.]+%", r"\1 1.0%"), "README.md does not state"),
    (edit_text("README.md", r"value: 0\.\d+", "value: 0.9999"), "front matter that differ"),
    (edit_text("pipeline_results.json", r'"difference": 0\.\d+', '"difference": 0.99'), "pipeline_results.json is not"),
    (edit_text("adapter_config.json", '"r": 16', '"r": 8'), "adapter_config.json is not the file that was published"),
    (edit_text("provenance.json", '"at": "2', '"at": "1'), "provenance.json was changed"),
    (other_weights, "adapter_model.safetensors is not the file that was trained"),
    (other_weights_said, "adapter_model.safetensors is not the file that was trained"),
    (failed_said_passed, "its numbers mean failed"),
    (no_provenance, "There is no provenance.json"),
    (another_file, "modeling_custom.py was not part of the publication"),
    (lost_file, "tokenizer.json is missing"),
]


@pytest.mark.parametrize(("edit", "says"), EDITS)
def test_a_publication_that_was_edited_is_found_out(folder: Path, edit: Callable[[Path], None], says: str) -> None:
    assert not verify_published(folder).faults
    edit(folder)
    faults = verify_published(folder).faults
    assert any(says in fault for fault in faults), faults


def test_a_card_may_be_written_on(folder: Path) -> None:
    path = folder / "README.md"
    path.write_text(path.read_text("utf-8") + "\n## News\n\nIt has a sister now.\n", "utf-8")
    found = verify_published(folder)
    assert not found.faults and "The test is not published" in found.remarks[-1]


def test_a_test_that_is_published_too_is_counted_again(folder: Path, finished_run: Path) -> None:
    from socratune.publishing.published import publish_provenance

    for name in ("held_out.jsonl", "held_out_answers.jsonl"):
        shutil.copyfile(finished_run / name, folder / name)
    publish_provenance(folder)
    found = verify_published(folder)
    assert not found.faults and not found.remarks
    edit_text("held_out_answers.jsonl", '"verdict": "correct"', '"verdict": "incorrect"')(folder)
    publish_provenance(folder)
    faults = verify_published(folder).faults
    assert any("held_out_answers.jsonl is not the file that the verdict rests on" in one for one in faults)
    assert any("base_comparison.base_accuracy" in one for one in faults)


def test_a_publication_that_is_damaged_is_said(folder: Path) -> None:
    for name in ("provenance.json", "pipeline_results.json", "README.md", "adapter_model.safetensors"):
        whole = (folder / name).read_bytes()
        for data in (b"", whole[: len(whole) // 2], b"[1]", b'"x"', b"{}", b"\xff" * 9, b"[" * 100_000):
            (folder / name).write_bytes(data)
            if name == "README.md" and len(data) > 100:
                continue  # who cuts the end off a card takes nothing of the verdict
            try:
                assert verify_published(folder).faults, (name, data[:9])
            except UserError as error:
                assert str(error)
        (folder / name).write_bytes(whole)


def test_an_older_run_and_a_failed_one_say_what_they_are(copied_run: Path, tmp_path: Path) -> None:
    made_failing(copied_run)
    of_an_older_version(copied_run)
    place = tmp_path / "place"
    place.mkdir()
    (repo,) = uploaded(copied_run, place, force=True)
    card = (repo.folder / "README.md").read_text("utf-8")
    assert "did not pass its validation" in card and "The test was pinned not before the training" in card
    found = verify_published(repo.folder)
    assert not found.faults and found.proof is not None and not found.proof.passed
    edit_text("README.md", r"> \*\*Warning[^\n]*\n", "")(repo.folder)
    assert any("its warning" in fault for fault in verify_published(repo.folder).faults)


def test_the_command_looks_at_the_hub(copied_run: Path, hub: Hub, tmp_path: Path) -> None:
    env = {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(tmp_path / "hf")}
    assert socratune("publish", copied_run, "--hub-id", "me/adapter", env=env).returncode == 0
    done = socratune("verify", "me/adapter", env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "me/adapter holds what it says: passed." in done.stdout and "The test is not published" in done.stdout
    files = hub.repos["model/me/adapter"].files
    files["pipeline_results.json"] = files["pipeline_results.json"].replace(b'"passed"', b'"failed"', 1)
    hub.repos["model/me/adapter"].commits.append("e" * 40)
    done = socratune("verify", "me/adapter", env=env)
    assert done.returncode == 1 and "pipeline_results.json is not the file that was published" in done.stdout
    none = socratune("verify", "me/none", env=env)
    assert none.returncode == 2 and "Traceback" not in none.stderr
    away = socratune("verify", "me/other", env={**env, "HF_ENDPOINT": "http://127.0.0.1:9"})
    assert away.returncode == 3 and "Traceback" not in away.stderr


def test_results_that_another_run_has_left_are_not_taken_for_ones_own(copied_run: Path) -> None:
    """The provenance of another run beside these results."""
    results = load(copied_run)
    save(copied_run, results | {"provenance": "0" * 16})
    from forging import verified

    assert any("not the one that pipeline_results.json belongs to" in fault for fault in verified(copied_run).faults)
