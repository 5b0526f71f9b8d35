"""A run folder is believed for what its files come to: honest ones pass, edited ones do not, damaged ones are said."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import demo_rows, few_general_questions, socratune, write_rows
from forging import (
    FORGERIES,
    Forgery,
    gate,
    lines,
    load,
    made_failing,
    of_an_older_version,
    pinned_anew,
    save,
    uploaded,
    verified,
    with_config,
    without_journal,
    write_lines,
)

from socratune.errors import StageFailed, UserError
from socratune.runs.pins import read_pins


@pytest.mark.parametrize(("edit", "says"), FORGERIES.values(), ids=[name.replace("_", " ") for name in FORGERIES])
def test_what_does_not_hold_what_it_says_is_refused_even_by_force(copied_run: Path, edit: Forgery, says: str) -> None:
    edit(copied_run)
    found = verified(copied_run)
    assert any(says in fault for fault in found.faults), found.faults
    with pytest.raises(StageFailed, match="Not published, and not by force: its files do not hold what it says"):
        gate(copied_run, force=True)


def test_a_fresh_run_holds_what_it_says(copied_run: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in copied_run.rglob("*")}
    found = gate(copied_run)
    assert found.agrees and found.pinned and not found.remarks
    assert found.proof.to_json() == load(copied_run)["validation"]  # derived anew, down to the last figure
    assert {path: path.stat().st_mtime_ns for path in copied_run.rglob("*")} == before, "it only reads"
    assert [one.what for one in read_pins(copied_run / "provenance.json")] == ["held_out", "train", "adapter", "proof"]
    told = (copied_run / "provenance.json").read_text()
    assert str(copied_run) not in told and str(copied_run.parent.parent) not in told


def test_what_is_cleared_away_is_missed_only_where_something_rests_on_it(copied_run: Path) -> None:
    without_journal(copied_run)
    shutil.rmtree(copied_run / "checkpoints")
    for name in ("enhanced_dataset.jsonl", "hint_measures.jsonl", "run.log", "report.html"):
        (copied_run / name).unlink()
    assert gate(copied_run).agrees


def test_a_run_that_failed_agrees_and_is_published_by_force_alone(copied_run: Path) -> None:
    made_failing(copied_run)
    with pytest.raises(StageFailed, match=r"the validation did not pass.*min_gain asks for \+99"):
        gate(copied_run)
    found = gate(copied_run, force=True)
    assert found.agrees and not found.proof.passed and "min_gain" in found.proof.reason


@pytest.mark.parametrize("journal", [True, False])
def test_a_run_of_an_older_version_is_counted_again_and_said_not_to_be_pinned(copied_run: Path, journal: bool) -> None:
    of_an_older_version(copied_run, journal=journal)
    found = gate(copied_run)
    assert found.agrees and not found.pinned
    assert "not pinned before the training" in found.remarks[-1]
    assert any("Forgetting is taken as it was stored" in one for one in found.remarks) == (not journal)


def test_an_older_run_that_is_validated_again_stays_not_pinned_before(copied_run: Path) -> None:
    of_an_older_version(copied_run)
    assert socratune("validate", copied_run, "--restart").returncode == 0
    assert [one.what for one in read_pins(copied_run / "provenance.json")] == ["proof"]
    found = gate(copied_run)
    assert found.agrees and not found.pinned


def test_an_older_run_that_is_trained_again_is_pinned_before(copied_run: Path) -> None:
    of_an_older_version(copied_run)
    done = socratune("train", copied_run, "--restart")
    assert done.returncode == 0, done.stderr
    assert socratune("validate", copied_run).returncode == 0
    assert gate(copied_run).pinned


def test_rules_that_have_changed_since_are_said_and_decide_where_it_matters(
    copied_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One verdict that the rules of this version give otherwise changes nothing; fifty of them do."""
    rows = lines(copied_run / "held_out_answers.jsonl")
    results = load(copied_run)
    without_journal(copied_run)

    def judged_otherwise(count: int) -> None:
        from forging import counted_anew

        changed = json.loads(json.dumps(rows))
        for row in [row for row in changed if row["base"]["verdict"] == "correct"][:count]:
            row["base"]["verdict"] = "incorrect"
        write_lines(copied_run / "held_out_answers.jsonl", changed)
        save(copied_run, results)
        counted_anew(copied_run)
        with monkeypatch.context() as then:
            then.setattr("socratune.evaluation.pinning.rules_mark", lambda: "of then")
            pinned_anew(copied_run)

    judged_otherwise(1)
    found = gate(copied_run)
    assert (
        found.agrees and "judge otherwise: 1 of held_out_answers.jsonl. The verdict stays the same" in found.remarks[0]
    )
    with_config(copied_run, "validate.gate.min_gain", 0.7)
    results = load(copied_run)
    judged_otherwise(20)
    assert "the verdict would then be failed" in " ".join(verified(copied_run).faults)


def test_conditions_that_were_changed_before_the_proof_are_said(copied_run: Path) -> None:
    with_config(copied_run, "validate.gate.max_undecided_share", 0.9)
    pinned_anew(copied_run, only=("proof",))
    found = gate(copied_run)
    assert found.agrees and "max_undecided_share 0.2 → 0.9" in found.remarks[-1]


def test_a_run_in_pieces_with_a_split_of_its_own_and_taught_facts_holds_what_it_says(tmp_path: Path) -> None:
    """Stopped after the training, gone on with; held-out rows out of the data set; facts asked for again."""
    rows = demo_rows("train", 160)
    asked_again = []
    for row in rows[:40]:
        question = row["messages"][-2]["content"]
        sibling = json.loads(json.dumps(row))
        sibling["messages"][-2]["content"] = f"Once more, please: {question}"
        sibling["metadata"] = {**sibling.get("metadata", {}), "sibling_of": question}
        asked_again.append(sibling)
    data, run = write_rows(tmp_path / "rows.jsonl", rows + asked_again), tmp_path / "run"
    flags = ["--model", "demo", "--dataset", data, "--output", run, "--set", "train.num_train_epochs=6"]
    flags += few_general_questions(tmp_path)
    assert socratune("run", *flags, "--until", "enhance").returncode == 0
    assert [one.what for one in read_pins(run / "provenance.json")] == ["held_out"]
    assert socratune("run", *flags, "--until", "train").returncode == 0
    done = socratune("run", *flags)
    assert done.returncode in (0, 1), done.stderr
    found = verified(run)
    assert found.agrees and found.pinned, found.faults
    assert lines(run / "recall_answers.jsonl") and "recall" in found.proof.tests


FILES = ("pipeline_results.json", "config.yaml", "provenance.json", "held_out.jsonl", "held_out_answers.jsonl",
         "forgetting_answers.jsonl", "train.jsonl", "journal.sqlite", "adapter/adapter_model.safetensors",
         "adapter/adapter_config.json", "adapter/provenance.json", "recall.jsonl")  # fmt: skip
DAMAGE: dict[str, Callable[[bytes], bytes | None]] = {
    "gone": lambda _: None,
    "empty": lambda _: b"",
    "cut": lambda data: data[: len(data) // 2],
    "a list": lambda _: b"[1]\n",
    "a text": lambda _: b'"x"\n',
    "an object": lambda _: b'{"stages": {}, "pins": 3, "format": 1, "validation": {"status": "passed"}}\n',
    "no text": lambda _: b"\xff\xfe\x00\x9f" * 50,
    "deep": lambda _: b"[" * 100_000,
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_damaged_is_said_in_a_sentence(copied_run: Path, name: str) -> None:
    whole = (copied_run / name).read_bytes()
    for damage, edit in DAMAGE.items():
        data = edit(whole)
        if data is None:
            (copied_run / name).unlink()
        else:
            (copied_run / name).write_bytes(data)
        if data == whole or (name == "journal.sqlite" and data is None):
            continue  # nothing rests on a journal that is gone
        try:
            gate(copied_run, force=True)
        except (StageFailed, UserError) as error:
            assert str(error) and "Traceback" not in str(error), damage
        else:
            raise AssertionError(f"{name}, {damage}: it was let by")


PLACES = ("validation", "validation.tests", "validation.tests.base_comparison", "validation.tests.file_integrity",
          "validation.tests.meters", "validation.tests.forgetting", "validation.reasons", "stages.enhance.student",
          "stages.train", "stages.split", "config", "config.validate", "provenance", "model")  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
def test_results_that_hold_something_else_are_said_in_a_sentence(copied_run: Path, place: str) -> None:
    whole = load(copied_run)
    for value in (None, 3, "x", [], [1], {}, {"passed": True}, {"x": {"y": []}}):
        results = json.loads(json.dumps(whole))
        *sections, name = place.split(".")
        part = results
        for section in sections:
            part = part[section]
        if part.get(name) == value or (place == "config" and value is None):
            continue
        part[name] = value
        save(copied_run, results)
        with tempfile.TemporaryDirectory() as place_of_it:
            try:
                uploaded(copied_run, Path(place_of_it), force=True)
            except (StageFailed, UserError) as error:
                assert str(error)
            else:
                assert not place.startswith(("validation.tests", "provenance")), value


def test_the_command_says_what_agrees_and_what_does_not(copied_run: Path, tmp_path: Path) -> None:
    done = socratune("verify", copied_run)
    assert done.returncode == 0 and done.stdout.endswith("holds what it says: passed.\n"), done.stdout + done.stderr
    FORGERIES["the_interval_is_edited"][0](copied_run)
    done = socratune("verify", copied_run)
    assert done.returncode == 1 and "- The stored base_comparison.ci95 is 0.65, but" in done.stdout
    refused = socratune("publish", copied_run, "--hub-id", "me/x", "--dry-run", "--force")
    assert refused.returncode == 1 and "not by force" in refused.stderr
    for what, said in (
        (tmp_path / "none", "the folder of a run, or ORG/NAME"),
        ("no name", "the folder of a run, or ORG/NAME"),
    ):
        wrong = socratune("verify", what)
        assert wrong.returncode == 2 and said in wrong.stderr and "Traceback" not in wrong.stderr
