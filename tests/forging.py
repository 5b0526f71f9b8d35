"""Run folders that hold what they say, and folders that somebody has edited so that they no longer do."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from socratune.config import RunConfig
from socratune.evaluation.comparison import compare_answers
from socratune.evaluation.deriving import judge_warnings, read_answers
from socratune.evaluation.gate import Proof, verdict_on
from socratune.evaluation.pinning import pin_adapter, pin_held_out, pin_proof, pin_training
from socratune.evaluation.verifying import Verification, verify_run
from socratune.resolve import read_config_file, resolve_settings
from socratune.rows import QARow
from socratune.runs.folder import Results, RunDir, read_rows
from socratune.stages import publish


def load(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "pipeline_results.json").read_text("utf-8"))


def save(folder: Path, results: dict[str, Any]) -> None:
    (folder / "pipeline_results.json").write_text(json.dumps(results, indent=2))


def config_of(folder: Path) -> RunConfig:
    given = read_config_file(folder / "config.yaml")
    return resolve_settings({**given, "output": str(folder), "hub_id": "me/x"}, where="config.yaml").config


def verified(folder: Path) -> Verification:
    found = verify_run(RunDir(folder), config_of(folder), Results(RunDir(folder)).data)
    assert found is not None
    return found


def gate(folder: Path, *, force: bool = False) -> Verification:
    """What `publish` asks before anything is uploaded."""
    return publish.check_gate(RunDir(folder), config_of(folder), Results(RunDir(folder)).data, force=force)


def uploaded(folder: Path, place: Path, *, force: bool = False) -> list[publish.Repo]:
    """What `publish` would upload, in folders below `place`."""
    run, results = RunDir(folder), Results(RunDir(folder)).data
    found = publish.check_gate(run, config_of(folder), results, force=force)
    return publish.prepared_upload(run, config_of(folder), place, found, results=results, offline=True)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")


def pinned_anew(folder: Path, *, only: tuple[str, ...] = ("held_out", "train", "adapter", "proof")) -> None:
    """Write the provenance that fits what the folder holds now, as a run writes it."""
    run, config, results = RunDir(folder), config_of(folder), load(folder)
    if "held_out" in only:
        pin_held_out(run, config, results)
    if "train" in only:
        pin_training(run, config, results)
    if "adapter" in only:
        pin_adapter(run, results)
    if "proof" in only:
        pin_proof(run, config, results, Proof.from_json(results["validation"]))
    save(folder, results)


def with_config(folder: Path, key: str, value: Any, *, results_too: bool = True) -> None:
    """Change a setting in config.yaml, and in the results."""
    config, results = yaml.safe_load((folder / "config.yaml").read_text("utf-8")), load(folder)
    *sections, name = key.split(".")
    for whole in (config, results["config"])[: 2 if results_too else 1]:
        place = whole
        for section in sections:
            place = place[section]
        place[name] = value
    (folder / "config.yaml").write_text(yaml.safe_dump(config), "utf-8")
    save(folder, results)


def judged_anew(folder: Path) -> None:
    """Write the verdict that the stored figures come to under the conditions of the configuration."""
    results, config = load(folder), config_of(folder)
    tests = results["validation"]["tests"]
    proof = verdict_on(tests, config.validate_.gate, knowledge_rows=0, noted=judge_warnings(config.enhance))
    results |= {"validation": proof.to_json(), "status": proof.status}
    results["stages"]["validate"]["status"] = "done" if proof.passed else "failed"
    save(folder, results)


def counted_anew(folder: Path) -> None:
    """Write the comparison that the file of answers comes to, and the verdict on it."""
    results, config = load(folder), config_of(folder)
    rows = read_rows(folder / "held_out.jsonl", QARow.from_json)
    _, said = read_answers(folder / "held_out_answers.jsonl")
    found = compare_answers(rows, said["base"], said["adapter"], config.validate_, config.seed)
    results["validation"]["tests"]["base_comparison"] = found
    save(folder, results)
    judged_anew(folder)


def made_failing(folder: Path) -> None:
    """An honest run that has failed: its user asks for more than it has gained."""
    with_config(folder, "validate.gate.min_gain", 0.99)
    judged_anew(folder)
    pinned_anew(folder)


def of_an_older_version(folder: Path, *, journal: bool = True) -> None:
    """The folder as versions left it that pinned nothing and kept less of the answers."""
    for path in (folder / "provenance.json", folder / "adapter/provenance.json", folder / "forgetting_answers.jsonl"):
        path.unlink(missing_ok=True)
    results = load(folder)
    results.pop("provenance", None)
    save(folder, results)
    rows = lines(folder / "held_out_answers.jsonl")
    for row in rows:
        for side in ("base", "adapter"):
            row[side] = {name: row[side][name] for name in ("response", "verdict")}
    write_lines(folder / "held_out_answers.jsonl", rows)
    if not journal:
        without_journal(folder)


def without_journal(folder: Path) -> None:
    for path in folder.glob("journal.sqlite*"):
        path.unlink()


# --- edits that are found out --------------------------------------------------------------------------------------

Forgery = Callable[[Path], None]
FORGERIES: dict[str, tuple[Forgery, str]] = {}
"""By name: the edit of a run that has passed, and what is said of it."""


def forgery(says: str) -> Callable[[Forgery], Forgery]:
    def register(edit: Forgery) -> Forgery:
        FORGERIES[edit.__name__] = (edit, says)
        return edit

    return register


def _tests(folder: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    results = load(folder)
    edit(results["validation"]["tests"])
    save(folder, results)


def _answers(folder: Path, edit: Callable[[dict[str, Any]], Any], count: int, *, name: str = "held_out") -> None:
    """Edit the first answers of the base that are right."""
    rows = lines(folder / f"{name}_answers.jsonl")
    for row in [row for row in rows if row["base"]["verdict"] == "correct"][:count]:
        edit(row)
    write_lines(folder / f"{name}_answers.jsonl", rows)


def _base_wrong(row: dict[str, Any]) -> None:
    row["base"]["verdict"] = "incorrect"


def _says_passed(folder: Path) -> None:
    results = load(folder)
    results["status"] = results["validation"]["status"] = "passed"
    results["stages"]["validate"] = {**results["stages"]["validate"], "status": "done"}
    results["stages"]["validate"].pop("reason", None)
    results.pop("error", None)
    for name in ("reason", "reasons"):
        results["validation"].pop(name, None)
    save(folder, results)


@forgery("It says passed, but its answers come to failed")
def a_failed_run_says_passed_in_five_places(folder: Path) -> None:
    made_failing(folder)
    _says_passed(folder)


@forgery("It says passed, but its answers come to failed")
def the_same_with_a_provenance_that_fits(folder: Path) -> None:
    made_failing(folder)
    _says_passed(folder)
    pinned_anew(folder)


@forgery("It says passed, but its answers come to failed")
def the_same_of_an_older_version(folder: Path) -> None:
    made_failing(folder)
    of_an_older_version(folder)
    _says_passed(folder)


@forgery("The run says failed, but its validation passed")
def only_the_status_is_edited(folder: Path) -> None:
    save(folder, load(folder) | {"status": "failed"})


@forgery("reasons")
def the_reasons_of_a_failed_run_are_edited(folder: Path) -> None:
    made_failing(folder)
    results = load(folder)
    results["validation"]["reasons"] = ["It is a little early.", "Otherwise all is well."]
    save(folder, results)


@forgery("not the one that was pinned with the proof")
def a_reason_is_put_in_milder_words(folder: Path) -> None:
    made_failing(folder)
    results = load(folder)
    results["validation"] |= {"reason": "It gains all that can be gained.", "reasons": ["It gains all there is."]}
    save(folder, results)


@forgery("base_comparison.ci95")
def the_interval_is_edited(folder: Path) -> None:
    _tests(folder, lambda tests: tests["base_comparison"].update(ci95=[0.65, 0.68]))


@forgery("base_comparison.ci95")
def the_interval_is_edited_and_pinned(folder: Path) -> None:
    the_interval_is_edited(folder)
    pinned_anew(folder)


@forgery("base_comparison.base_accuracy")
def the_accuracy_of_the_base_is_edited(folder: Path) -> None:
    _tests(folder, lambda tests: tests["base_comparison"].update(base_accuracy=0.1, difference=0.9))
    pinned_anew(folder)


@forgery("base_comparison.worst_case")
def the_worst_case_is_edited(folder: Path) -> None:
    _tests(folder, lambda tests: tests["base_comparison"]["worst_case"].update(difference=0.8))
    of_an_older_version(folder)


@forgery("forgetting.drop")
def the_forgetting_is_edited(folder: Path) -> None:
    _tests(folder, lambda tests: tests["forgetting"].update(drop=-0.3))
    pinned_anew(folder)


@forgery("forgetting.drop")
def the_forgetting_of_an_older_run_is_edited(folder: Path) -> None:
    _tests(folder, lambda tests: tests["forgetting"].update(drop=-0.3))
    of_an_older_version(folder)


@forgery("not the one that was pinned with the proof")
def the_speed_is_edited(folder: Path) -> None:
    _tests(folder, lambda tests: tests["performance"].update(tokens_per_second=1e6))


@forgery("not the one that was pinned with the proof")
def the_warnings_are_taken_out(folder: Path) -> None:
    results = load(folder)
    results["validation"]["warnings"] = []
    save(folder, results)


def _other_weights(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = folder / "adapter" / "adapter_model.safetensors"
    save_file({name: value * 1.01 for name, value in load_file(path).items()}, path)


@forgery("The adapter is not the one that was validated")
def another_adapter_lies_there(folder: Path) -> None:
    _other_weights(folder)


@forgery("The adapter is not the one that was trained")
def another_adapter_with_its_hashes_in_the_results(folder: Path) -> None:
    from socratune.evaluation.adapter_files import adapter_manifest

    _other_weights(folder)
    _tests(folder, lambda tests: tests["file_integrity"].update(sha256=adapter_manifest(folder / "adapter")))


@forgery("The adapter's files do not pass: the adapter's chat template is not the base's")
def another_template_with_all_its_hashes(folder: Path) -> None:
    path = folder / "adapter" / "chat_template.jinja"
    path.write_text(path.read_text() + "{{ '' }} ")
    another_adapter_with_its_hashes_in_the_results(folder)
    pinned_anew(folder)


@forgery("The adapter is not the one that was validated: README.md")
def a_file_is_added_to_the_adapter(folder: Path) -> None:
    (folder / "adapter" / "README.md").write_text("| accuracy | 100 % |")


def _other_test(folder: Path) -> list[dict[str, Any]]:
    """Easier questions in the place of the first ten."""
    rows = lines(folder / "held_out.jsonl")
    for at, row in enumerate(rows[:10]):
        row["messages"][-2]["content"], row["messages"][-1]["content"] = f"What is 1 * {at}?", f"1 * {at} = {at}."
    write_lines(folder / "held_out.jsonl", rows)
    return rows


@forgery("held_out_answers.jsonl answers other questions than held_out.jsonl asks")
def the_test_is_another(folder: Path) -> None:
    _other_test(folder)


@forgery("held_out.jsonl does not hold the rows that were pinned before the training")
def the_test_is_another_and_answered(folder: Path) -> None:
    rows = _other_test(folder)
    answers = lines(folder / "held_out_answers.jsonl")
    for at, (row, answer) in enumerate(zip(rows[:10], answers, strict=False)):
        answer |= {"question": row["messages"][-2]["content"], "reference": row["messages"][-1]["content"]}
        answer["adapter"] = {"response": f"{at}.", "verdict": "correct", "judged_by": "numeric", "stop": "end"}
        answer["base"] = {"response": "7 or 8.", "verdict": "undecided", "judged_by": "exact", "stop": "end"}
    write_lines(folder / "held_out_answers.jsonl", answers)
    without_journal(folder)
    counted_anew(folder)


@forgery("The results say that held_out.jsonl has 80 rows, it has 70.")
def lost_questions_are_taken_out(folder: Path) -> None:
    for name in ("held_out.jsonl", "held_out_answers.jsonl"):
        write_lines(folder / name, lines(folder / name)[10:])
    without_journal(folder)
    counted_anew(folder)
    pinned_anew(folder)


@forgery("not those that journal.sqlite has recorded")
def an_answer_is_edited(folder: Path) -> None:
    _answers(folder, lambda row: row["base"].update(response="I do not know."), 3)


@forgery("held_out_answers.jsonl does not hold the rows that were validated")
def verdicts_are_flipped(folder: Path) -> None:
    _answers(folder, _base_wrong, 3)


@forgery("3 answers of held_out_answers.jsonl are not those that journal.sqlite has recorded")
def verdicts_are_flipped_counted_and_pinned(folder: Path) -> None:
    _answers(folder, _base_wrong, 3)
    counted_anew(folder)
    pinned_anew(folder)


@forgery("Verdicts are not those that the rules give: 3 of held_out_answers.jsonl")
def the_same_without_a_journal(folder: Path) -> None:
    verdicts_are_flipped_counted_and_pinned(folder)
    without_journal(folder)


@forgery("Verdicts are not those that the rules give: 2 of forgetting_answers.jsonl")
def verdicts_of_forgetting_are_flipped(folder: Path) -> None:
    _answers(folder, _base_wrong, 2, name="forgetting")
    without_journal(folder)
    pinned_anew(folder)


@forgery("config.yaml has validate.gate.min_gain 0.0, and pipeline_results.json 0.99")
def the_conditions_are_loosened_afterwards(folder: Path) -> None:
    made_failing(folder)
    with_config(folder, "validate.gate.min_gain", 0.0, results_too=False)
    results = load(folder)
    save(folder, results)


@forgery("The conditions (validate.gate) are not those of the validation")
def the_conditions_are_loosened_everywhere(folder: Path) -> None:
    made_failing(folder)
    with_config(folder, "validate.gate.min_gain", 0.0)
    judged_anew(folder)


@forgery("config.yaml has train.r 8")
def a_setting_is_edited(folder: Path) -> None:
    with_config(folder, "train.r", 8, results_too=False)


@forgery("The settings are not those that were pinned with 'train'")
def a_setting_is_edited_everywhere(folder: Path) -> None:
    with_config(folder, "train.learning_rate", 0.0001)


def _other_base(folder: Path) -> Path:
    import shutil

    from safetensors.torch import load_file, save_file

    from socratune.config import DEMO_DATA

    base = folder.parent / "other-base"
    shutil.copytree(DEMO_DATA / "base", base)
    (path,) = base.glob("*.safetensors")
    save_file({name: value * 1.5 for name, value in load_file(path).items()}, path, {"format": "pt"})
    return base


@forgery("config.yaml names the base")
def the_base_is_another(folder: Path) -> None:
    with_config(folder, "model", str(_other_base(folder)), results_too=False)


@forgery("has other weights now")
def the_base_is_another_everywhere(folder: Path) -> None:
    base = str(_other_base(folder))
    with_config(folder, "model", base)
    save(folder, load(folder) | {"model": base})


@forgery("provenance.json is missing, and this run has had one")
def the_provenance_is_removed(folder: Path) -> None:
    (folder / "provenance.json").unlink()


@forgery("provenance.json is missing, and this run has had one")
def both_provenances_are_removed(folder: Path) -> None:
    (folder / "provenance.json").unlink()
    (folder / "adapter/provenance.json").unlink()


def _provenance(folder: Path, edit: Callable[[str], str]) -> None:
    text = edit((folder / "provenance.json").read_text("utf-8"))
    for path in (folder / "provenance.json", folder / "adapter" / "provenance.json"):
        path.write_text(text, "utf-8")


@forgery("provenance.json was changed: an entry before 'train'")
def the_time_of_an_entry_is_edited(folder: Path) -> None:
    _provenance(folder, lambda text: re.sub(r'"at": "\d{4}', '"at": "1999', text, count=1))


@forgery("provenance.json is not the one that pipeline_results.json belongs to")
def the_last_entry_is_edited(folder: Path) -> None:
    _provenance(folder, lambda text: re.sub(r'("at": )"[^"]+"(?![\s\S]*"at")', r'\1"1999-01-01T00:00:00Z"', text))


@forgery("provenance.json was changed")
def the_pin_of_the_test_is_taken_out(folder: Path) -> None:
    told = json.loads((folder / "provenance.json").read_text())
    told["pins"] = told["pins"][1:]
    _provenance(folder, lambda _: json.dumps(told, indent=2))


@forgery("adapter/provenance.json is not the run's")
def the_copy_of_the_adapter_is_stale(folder: Path) -> None:
    path = folder / "adapter" / "provenance.json"
    told = json.loads(path.read_text())
    told["pins"] = told["pins"][:-1]
    path.write_text(json.dumps(told, indent=2))


def _trained_on_the_test(folder: Path) -> None:
    rows = lines(folder / "train.jsonl")
    for row, asked in zip(rows[:5], lines(folder / "held_out.jsonl"), strict=False):
        row["prompt"] = [{**turn, "content": turn["content"].upper() + " "} for turn in asked["messages"][:-1]]
    write_lines(folder / "train.jsonl", rows)


@forgery("5 rows of train.jsonl ask what held_out.jsonl asks: that is no test")
def the_test_is_trained_on(folder: Path) -> None:
    _trained_on_the_test(folder)
    pinned_anew(folder)


@forgery("5 rows of train.jsonl ask what held_out.jsonl asks: that is no test")
def the_test_is_trained_on_in_an_older_run(folder: Path) -> None:
    _trained_on_the_test(folder)
    of_an_older_version(folder)


@forgery("train.jsonl does not hold the rows that were trained on")
def a_row_that_was_trained_on_is_edited(folder: Path) -> None:
    rows = lines(folder / "train.jsonl")
    rows[0]["pieces"][0]["text"] = "Something else."
    write_lines(folder / "train.jsonl", rows)


@forgery("The results say that 900 rows were trained on")
def the_number_of_rows_is_edited(folder: Path) -> None:
    results = load(folder)
    results["stages"]["train"]["rows_in"] = 900
    save(folder, results)
