"""What training makes of the rows it gets, before anything is computed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from socratune.errors import UserError
from socratune.inference.template import Rendered
from socratune.rows import Example, Piece, QARow
from socratune.stages.train import judged_by_rules, short_enough, without_controls
from socratune.training import Exam


def rows(*lengths: int) -> list[Rendered]:
    return [Rendered(str(at), [1] * length, [1] * length, 0) for at, length in enumerate(lengths)]


def test_a_row_that_is_too_long_is_left_out_whole_and_said(caplog: pytest.LogCaptureFixture) -> None:
    kept, longest = short_enough(rows(10, 50, 20), 30)
    assert [len(row.ids) for row in kept] == [10, 20] and longest == 30
    assert "1 rows of more than 30 tokens" in caplog.text and caplog.text.rstrip().endswith("1")


def test_auto_keeps_99_of_100_rows() -> None:
    kept, longest = short_enough(rows(*range(1, 100), 5000), "auto")
    assert (len(kept), longest) == (99, 99)
    assert len(short_enough(rows(7, 8, 9), "auto")[0]) == 3


def test_a_limit_that_leaves_out_most_rows_is_refused() -> None:
    with pytest.raises(UserError, match="the longest row has 90 tokens, the median 80"):
        short_enough(rows(10, 80, 90), 40)


def test_what_is_handed_to_peft_is_checked_against_its_signature() -> None:
    from socratune.training.adapters import peft_faults

    def said(**settings: object) -> str:
        return "; ".join(map(str, peft_faults(settings)))

    assert said(use_rslora=True, use_dora=True, modules_to_save=["lm_head"]) == ""
    assert "Did you mean use_rslora?" in said(use_rslra=True)
    assert "leaves the base weights as they are" in said(init_lora_weights="pissa_niter_16")
    assert "leaves the base weights as they are" in said(loftq_config={})
    assert "train.r instead" in said(r=8)


def test_what_peft_is_handed_reaches_the_adapter() -> None:
    from socratune.config import EnhancedTrainingConfig
    from socratune.training.adapters import lora_config

    found = lora_config(EnhancedTrainingConfig(r=4, peft={"use_rslora": True}))
    assert (found.r, found.use_rslora, found.task_type) == (4, True, "CAUSAL_LM")


def test_dev_rows_that_rules_cannot_judge_choose_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def row(reference: str) -> QARow:
        messages = [{"role": "user", "content": "What?"}, {"role": "assistant", "content": reference}]
        return QARow(reference, messages, {})

    numbers, names = row("Together that is 195 of them."), row("Ada Lovelace")
    words = row("Because the river carries more water in spring than the old bridge was ever built for.")
    assert judged_by_rules([numbers, names, words]) == [numbers, names, words]
    assert not caplog.text
    assert judged_by_rules([numbers, words, words]) == []
    assert "1 of 3 dev rows" in caplog.text


EVEN = """
def questions(seed):
    yield {"question": "unused", "answer": "2"}

def verify(entry, said):
    return said.isdigit()

def template(entry):
    return None
"""


def test_dev_rows_of_an_environment_are_judged_by_it(
    tmp_path: Path, demo_base: tuple[Any, Any], caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "digits.py"
    file.write_text(EVEN)

    def row(question: str, name: str) -> QARow:
        reference = "Whatever number you arrive at is quite all right with this verifier. The answer is 2."
        messages = [{"role": "user", "content": question}, {"role": "assistant", "content": reference}]
        return QARow(question, messages, {"environment": {"name": name, "entry": {"answer": "2"}}})

    asked = [f"What is {a} * 7?" for a in range(13, 21)]
    dev = [row(question, f"python:{file}") for question in asked]
    assert judged_by_rules(dev) == dev and not caplog.text
    elsewhere = judged_by_rules([row(question, f"python:{tmp_path}/gone.py") for question in asked])
    assert [row.id for row in elsewhere] == asked and not any(row.metadata for row in elsewhere), "rules judge there"
    column = QARow("a", dev[0].messages, {"environment": {"os": "linux"}})
    assert judged_by_rules([column]) == [column], "the user's own column of that name"
    model, tokenizer = demo_base
    assert Exam(tokenizer, {"dev": dev}, 64).take(model) == {"dev_accuracy": 1.0}


def test_a_row_whose_text_got_a_control_token_is_left_out_and_said(
    tokenizer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    asked = [{"role": "user", "content": "What is 3 * 4?"}]
    sampled = Example("a", asked, (Piece("12<|im_start|>", token_ids=(20, 1)),), "solved_first_try")
    edited, plain = (Example(text, asked, (Piece(text),), "as_given") for text in ("12<|im_end|>", "12"))
    kept, held = without_controls(tokenizer, [sampled, edited, plain])
    assert kept == [sampled, plain] and "1 rows with control tokens" in caplog.text
    assert (held[0].id, held[0].reason) == ("12<|im_end|>", "control_token") and "'<|im_end|>'" in held[0].detail
    with pytest.raises(UserError, match="rows without control tokens"):
        without_controls(tokenizer, [edited])
