"""The whole idea on one question, with nothing around it: no runner, no journal, no files.

    python examples/loop.py

The embedded model tries a product and gets it wrong. A rule judges it, a teacher hints without saying the result, the
model tries again with the hint, and its own right answer, without the hint in front of it, is what five LoRA steps
train on. Then it is asked once more. The real loop adds samples, an exam on questions nobody trained on, and a gate.
"""

from __future__ import annotations

import asyncio

import torch
from peft import get_peft_model

from socratune.config import EnhancedTrainingConfig
from socratune.inference import IGNORE, LocalStudent, load_model, render, serving_student
from socratune.judging import mechanical_judge
from socratune.llm import Sampling, with_private_hint
from socratune.rows import Attempt, Example, Piece, QARow
from socratune.teaching import HintRequest, arithmetic_teacher, leak
from socratune.training import lora_config

GREEDY = Sampling(temperature=0.0, max_new_tokens=96)
MOST_HINTS = 2
STEPS, RATE = 5, 5e-3


def question(a: int, b: int) -> QARow:
    """A product, as a row of a data set has it: the reference answer is the last message."""
    asked = {"role": "user", "content": f"What is {a} * {b}?"}
    return QARow("one", [asked, {"role": "assistant", "content": f"{a} * {b} = {a * b}."}], {})


async def attempt(student: LocalStudent, row: QARow, number: int, hint: str | None) -> Attempt:
    """One try of the student and its verdict. The hint stands in the prompt, privately, or is not there."""
    messages = with_private_hint(row.prompt, hint) if hint else row.prompt
    completion = await student.generate(messages, GREEDY)
    judgement = await mechanical_judge(row, completion.text)  # correct, incorrect, or undecided
    print(f"attempt {number}: {completion.text!r} is {judgement.verdict}")
    given = "hint" if hint else "question"
    return Attempt(
        number, completion.text, judgement.verdict, judgement.judged_by, given=given, token_ids=completion.token_ids
    )


async def taught(student: LocalStudent, row: QARow) -> Attempt | None:
    """The student's own right answer, found alone or after a hint; None where no hint got it there."""
    attempts = [await attempt(student, row, 1, None)]
    for number in range(2, 2 + MOST_HINTS):
        if attempts[-1].verdict != "incorrect":  # an undecided answer is no wrong one: nothing to hint at
            break
        hint = await arithmetic_teacher(HintRequest(row, tuple(attempts), seed=0))
        if hint is None:
            return None
        if reason := leak(hint, row):
            print(f"hint rejected, it gives the answer away: {reason}")
            return None
        print(f"hint: {hint!r}")
        attempts.append(await attempt(student, row, number, hint))
    return attempts[-1] if attempts[-1].verdict == "correct" else None


def trained_row(row: QARow, right: Attempt) -> Example:
    """What is trained on: the question without any hint, and the answer as the very ids the student sampled."""
    return Example(row.id, row.prompt, (Piece(right.response, token_ids=right.token_ids),), "solved_with_hint")


def train(model: torch.nn.Module, ids: list[int], labels: list[int]) -> None:
    """Five steps of AdamW on one row: cross entropy where the labels carry loss, nowhere else."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=RATE)
    inputs, targets = torch.tensor([ids]), torch.tensor([labels])  # (1, T)
    model.train()
    for step in range(1, STEPS + 1):
        logits = model(input_ids=inputs).logits[:, :-1]  # (1, T-1, V): position t predicts token t + 1
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets[:, 1:].flatten(), ignore_index=IGNORE)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        print(f"step {step}: loss {loss.item():.3f}")
    model.eval()


def main() -> int:
    """0 where the student answers rightly in the end, 1 where it does not."""
    torch.manual_seed(0)
    row = question(47, 86)
    base, tokenizer = load_model("demo")
    with serving_student(LocalStudent(base, tokenizer, name="base", fingerprint="base")) as student:
        right = asyncio.run(taught(student, row))
    if right is None:
        print("not solved: there is nothing to train on")
        return 1

    rendered = render(tokenizer, trained_row(row, right))  # ids and labels of the same length
    shown = "".join(
        token if label == IGNORE else f"[{token}]"
        for token, label in zip(map(tokenizer.decode, rendered.ids), rendered.labels, strict=True)
    )
    print(f"trained, in brackets what carries loss: {shown!r}")
    adapted = get_peft_model(base, lora_config(EnhancedTrainingConfig()))
    train(adapted, rendered.ids, rendered.labels)

    with serving_student(LocalStudent(adapted, tokenizer, name="adapter", fingerprint="adapter")) as student:
        after = asyncio.run(attempt(student, row, 1, None))
    return 0 if after.verdict == "correct" else 1


if __name__ == "__main__":
    raise SystemExit(main())
