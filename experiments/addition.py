"""Rounds on n-digit addition: what rationalisation changes (STaR, Zelikman et al. 2022, arXiv:2203.14465, figure 4).

    python experiments/addition.py --seeds 5 --results outputs/addition.json   # goes on where that is; see `--help`

A base is pre-trained here for each seed, from nothing, on scratchpads of one to five digits. Told "Work in columns." it
adds; shown a scratchpad it follows it; alone it works a sum of n digits out with probability 1/3 to the power of n - 1
and guesses otherwise: what it can, it does the more seldom the longer the sum is, as a pass rate falls with difficulty.
Then the rounds of `socratune.rounds` run twice on the same questions with the same settings: once an unsolved row is
dropped, once the student is shown the reference and words it anew (`enhance.unsolved: rewrite`, which is STaR's
rationalisation). Nobody tells it to work in columns. After every round fresh questions are asked greedily, by number of
digits; an arm ends when 90 % of each number of digits are right.

Only the shape is looked for: with rationalisation all digits rise together, without it one after another. STaR
reports 89.5 % after 16 iterations, and 76.3 % for a baseline without a scratchpad. Those are no figures to compare
with: there a general language model of 6 billion parameters began from ten examples, here a net of 0.2 million was
made for this very notation, and it has the skill before the first round begins.

Measured, five seeds, each with its own base, questions and samples, six rounds at most (`results/addition.txt`; one
core, 253 to 276 s for a base, 7 to 21 s for a round): 90 % of each number of digits are right after round 1 with
rationalisation, in every seed; without it after 2, 3, 3, 3 and 2 rounds. That is 3 times fewer rounds in the median,
2 to 3 by seed, and no finer: fewer than one round there cannot be. Such a round is a larger one: the first trains on
251 to 266 rows, on 29 to 73 without, and in seconds to 90 % (answers and questions included) it is 18 to 21 against
21 to 39. One after another is plain in seeds 0, 2 and 3 (five digits at 0 % after round 1 without rationalisation, at
72 to 95 % after round 2), less so in seeds 1 and 4 (28 and 65 % after round 1). Of 60 questions per number of digits,
a share near 90 % is uncertain by 4 points.

Before, with STaR's lines and 1/4 in place of 1/3, neither arm came above 13 % at five digits in six rounds; every
column but the first was right in the answers looked at. A base with lines like those, of fewer steps, fails alike
when told to work in columns: in 80 of 100 sums, of four and of five digits, the first column is the first mistake;
what is copied is right, and so are most carries. 700 further steps, most of them on long sums, brought four digits
from 12 to 20 %. Lines that name the digits they add (see `scratchpad`) brought five digits, told so, to 93 to 100 %.
With these, 1/4 was not tried.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any, Literal

How = Literal["alone", "shown", "told"]
HOW: tuple[How, ...] = ("alone", "shown", "told")
DIGITS = range(1, 6)
ARMS = {"without": "drop", "with": "rewrite"}
"""Arm → `enhance.unsolved`."""
ROWS, ASKED = 60, 60
"""Questions per number of digits, to learn from and to ask afterwards."""
ENOUGH = 0.9
WIDTH, LAYERS, HEADS = 64, 3, 2
RATE = 4e-3
WORKS = 1 / 3
"""In the base's own text a sum of n digits is worked out with this probability to the power of n - 1, else guessed."""
TOLD = "Work in columns."
"""Told so, the base works every sum out. Nobody tells it in the rounds."""
PLAN = ((250, (10, 10, 80), (1, 1, 0, 0, 0)), (950, (20, 10, 70), (1, 1, 2, 3, 4)))
"""The pre-training: so many steps, in which each of `HOW` and of `DIGITS` comes so often. Short sums are first: what
two digits make is learnt there sooner.
"""
PAD, START, END = "<pad>", "<|im_start|>", "<|im_end|>"
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
RESULTS = Path(__file__).parent / "results" / "addition.json"


# -------- the task
def scratchpad(a: int, b: int, digits: int) -> str:
    """STaR's way, a line per column: the digits and the carry added, what they make, the sum so far, what is left.

    STaR writes neither the two digits nor what they make. From its lines a net this small learns each width of column
    on its own, the wide ones last or never: the digits to add stand at other distances in every line. Written out
    first, they are beside their sum whatever the width.
    """
    left, right = f"{a:0{digits}}", f"{b:0{digits}}"
    done, carry, lines = "", 0, [f"{left}+{right}"]
    while left:
        added, total = f"{left[-1]}{right[-1]}{carry}", int(left[-1]) + int(right[-1]) + carry
        left, right, done, carry = left[:-1], right[:-1], f"{total % 10}{done}", total // 10
        lines.append(f"{added},{total:02},{done},{left}+{right}")
    return "\n".join([*lines, f"The answer is {a + b}"])


def conversation(a: int, b: int, digits: int, how: How = "alone") -> list[dict[str, str]]:
    """A question with its scratchpad; `shown`: the student has the scratchpad before it, as for a rewrite."""
    from socratune.llm.prompts import with_private_reference, with_system_prompt

    answer = scratchpad(a, b, digits)
    prompt = [{"role": "user", "content": f"{a:0{digits}}+{b:0{digits}}"}]
    if how == "shown":
        prompt = with_private_reference(prompt, answer)
    elif how == "told":
        prompt = with_system_prompt(prompt, TOLD)
    return [*prompt, {"role": "assistant", "content": answer}]


def written(rng: random.Random, digits: int, how: How) -> list[dict[str, str]]:
    """A conversation as the base has read them: alone, the longer the sum, the rarer is a scratchpad."""
    most = 10**digits
    chat = conversation(rng.randrange(most), rng.randrange(most), digits, how)
    if how == "alone" and rng.random() > WORKS ** (digits - 1):
        chat[-1]["content"] = f"The answer is {rng.randrange(2 * most)}"
    return chat


def pairs(rng: random.Random, digits: int, count: int) -> list[tuple[int, int]]:
    """So many different pairs of numbers with so many digits, leading zeros allowed; fewer where there are not more."""
    most = 10**digits
    return [divmod(each, most) for each in rng.sample(range(most * most), min(count, most * most * 9 // 10))]


# -------- the base
def build_tokenizer() -> Any:
    """A token for every character of a sum and for every word of a note."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    from socratune.llm.prompts import REFERENCE_NOTE

    split = pre_tokenizers.Split(Regex(r"\d| ?[A-Za-z]+|[^\dA-Za-z]"), "isolated")
    text = REFERENCE_NOTE + TOLD + "\nsystem\nuser\nassistant\nThe answer is 0123456789+,c"
    words = [PAD, START, END, *sorted({piece for piece, _ in split.pre_tokenize_str(text)})]
    tokenizer = Tokenizer(models.WordLevel({word: at for at, word in enumerate(words)}, unk_token=PAD))
    tokenizer.pre_tokenizer = split
    tokenizer.decoder = decoders.Fuse()
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=END, pad_token=PAD, additional_special_tokens=[START, END],
        padding_side="left", clean_up_tokenization_spaces=False, model_max_length=512,
    )  # fmt: skip
    wrapped.chat_template = TEMPLATE
    return wrapped


def batches(rng: random.Random, tokenizer: Any, rows: int = 32) -> Iterator[tuple[Any, Any]]:
    """Ids and labels, (rows, T) each: of a step's conversations all are of one kind, so that they are of one length."""
    import torch

    for often, lengths in [(often, lengths) for steps, often, lengths in PLAN for _ in range(steps)]:
        how, digits = rng.choices(HOW, often)[0], rng.choices(DIGITS, lengths)[0]
        chats = [written(rng, digits, how) for _ in range(rows)]
        texts = [tokenizer.apply_chat_template(chat, tokenize=False) for chat in chats]
        encoded = tokenizer(texts, padding=True, padding_side="right", add_special_tokens=False, return_tensors="pt")
        ids = encoded["input_ids"]
        start = (ids == tokenizer.convert_tokens_to_ids("assistant")).int().argmax(1)  # (rows,)
        behind = torch.arange(ids.shape[1]) > start[:, None] + 1
        yield ids, ids.where(behind & (ids != tokenizer.pad_token_id), -100)


def pretrain(model: Any, tokenizer: Any, rng: random.Random) -> None:
    """Muon for the matrices, AdamW for the rest; the rate stands for two thirds of the steps, then falls to zero."""
    import torch

    matrices = [weight for name, weight in model.named_parameters() if weight.ndim == 2 and "embed" not in name]
    rest = [weight for name, weight in model.named_parameters() if weight.ndim == 1 or "embed" in name]
    momenta = [torch.zeros_like(weight) for weight in matrices]
    optimizer = torch.optim.AdamW(rest, betas=(0.9, 0.95), weight_decay=0.0)
    steps, began = sum(steps for steps, *_ in PLAN), time.monotonic()
    for step, (ids, labels) in enumerate(batches(rng, tokenizer)):
        rate = RATE * min(1.0, (step + 1) / 50, 3 * (steps - step) / steps)
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        muon(matrices, momenta, rate)
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
        model.zero_grad()
        if step % max(1, steps // 15) == 0:
            print(f"  {time.monotonic() - began:5.0f} s  step {step}  loss {loss.item():.4f}", flush=True)


def make_base(folder: Path, seed: int) -> dict[str, float]:
    """Pre-train the base into `folder`; seconds, steps and parameters."""
    import torch
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

    began, tokenizer = time.monotonic(), build_tokenizer()
    torch.set_num_threads(1)  # the products are too small to share, and the sums come out the same everywhere
    torch.manual_seed(seed)
    marks: dict[str, Any] = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=WIDTH, intermediate_size=4 * WIDTH, num_hidden_layers=LAYERS,
            num_attention_heads=HEADS, max_position_embeddings=512, tie_word_embeddings=True, initializer_range=0.06,
            bos_token_id=None, **marks,
        )
    )  # fmt: skip
    pretrain(model, tokenizer, random.Random(seed))
    model.generation_config = GenerationConfig(do_sample=True, temperature=1.0, top_p=1.0, **marks)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    size = sum(weight.numel() for weight in model.parameters())
    return {"seconds": round(time.monotonic() - began), "steps": sum(steps for steps, *_ in PLAN), "parameters": size}


def muon(matrices: list[Any], momenta: list[Any], rate: float) -> None:
    """A step of Muon (matching AdamW's size) as `torch.optim.Muon` takes it, in float32 and a kind of matrix at once.

    Its own is in bfloat16, which a CPU is slow at: half the time of the pre-training went there.
    """
    import torch

    with torch.no_grad():
        for weight, momentum in zip(matrices, momenta, strict=True):
            momentum.lerp_(weight.grad, 0.05)
        for shape in {tuple(weight.shape) for weight in matrices}:
            here = [at for at, weight in enumerate(matrices) if tuple(weight.shape) == shape]
            step = torch.stack([matrices[at].grad.lerp(momenta[at], 0.95) for at in here])  # (kind, rows, columns)
            step = step if shape[0] <= shape[1] else step.mT
            step = step / step.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
            for _ in range(5):
                gram = step @ step.mT
                step = 3.4445 * step + (-4.775 * gram + 2.0315 * gram @ gram) @ step
            step = step if shape[0] <= shape[1] else step.mT
            for at, one in zip(here, step, strict=True):
                matrices[at].mul_(1 - 0.01 * rate).sub_(one, alpha=0.2 * rate * max(shape) ** 0.5)


# -------- asking
def asked(base: Path, adapter: Path | None, seed: int, how: How = "alone") -> dict[str, float]:
    """Share of right answers, greedily, by number of digits."""
    import asyncio
    from contextlib import closing
    from tempfile import TemporaryDirectory

    from socratune.inference.load import load_model
    from socratune.inference.student import LocalStudent, serving_student
    from socratune.judging.rules import mechanical_judge
    from socratune.llm.base import Sampling
    from socratune.rows import QARow
    from socratune.runs.journal import Journal
    from socratune.teaching.student import answer_and_judge

    rng = random.Random(f"asked/{seed}")
    rows = [
        QARow(f"{n}/{at}", conversation(a, b, n, how), {})
        for n in DIGITS
        for at, (a, b) in enumerate(pairs(rng, n, ASKED))
    ]
    model, tokenizer = load_model(str(base), adapter=adapter)
    with (
        TemporaryDirectory() as folder,
        closing(Journal(Path(folder) / "journal.sqlite")) as journal,
        serving_student(LocalStudent(model, tokenizer, name="addition", fingerprint="asked")) as student,
    ):
        work = answer_and_judge(
            rows, student, mechanical_judge, Sampling(max_new_tokens=128),
            journal=journal, key="asked", concurrency=len(rows), tick=lambda done, total: None,
        )  # fmt: skip
        right = [answer["verdict"] == "correct" for answer in asyncio.run(work)]
    by_digits: dict[str, list[bool]] = {}
    for row, is_right in zip(rows, right, strict=True):
        by_digits.setdefault(row.id.split("/")[0], []).append(is_right)
    return {n: sum(found) / len(found) for n, found in by_digits.items()}


# -------- the rounds
def settings(folder: Path, base: Path, arm: str, seed: int) -> dict[str, Any]:
    """The configuration of a run: one sample a row, and what becomes of a wrong one by arm."""
    return {
        "model": str(base),
        "dataset": str(folder / "rows.jsonl"),
        "output": str(folder / arm),
        "seed": seed,
        "rounds": 2,  # how many are played, `learn` says
        "split": {"held_out_share": 0.0, "dev_share": 0.1},
        "enhance": {
            "attempts": 1, "max_iterations": 1, "hint_attempts": 1, "unsolved": ARMS[arm],
            "temperature": 1.0, "top_p": 1.0, "max_new_tokens": 128,
        },
        "curate": {"max_hinted_share": 1.0, "max_mastered_share": 1.0, "replay_share": 0.0},
        "train": {
            "learning_rate": 3e-3, "num_train_epochs": 3, "r": 16, "max_seq_length": 384,
            "per_device_train_batch_size": 16, "gradient_accumulation_steps": 1,
        },
    }  # fmt: skip


def write_questions(path: Path, seed: int) -> None:
    """The questions of both arms; what is asked afterwards is not among them, but for one digit: there are but 100."""
    rng, kept_back = random.Random(f"rows/{seed}"), random.Random(f"asked/{seed}")
    with path.open("w") as stream:
        for digits in DIGITS:
            later = set(pairs(kept_back, digits, ASKED))
            found = [pair for pair in pairs(rng, digits, ROWS + ASKED) if pair not in later or digits == 1]
            for a, b in found[:ROWS]:
                row = {"messages": conversation(a, b, digits), "metadata": {"source": f"{a}+{b}/{digits}"}}
                stream.write(json.dumps(row) + "\n")


def learn(folder: Path, base: Path, arm: str, seed: int, rounds: int, found: list[dict[str, Any]]) -> Iterator[None]:
    """Play rounds that are not in `found` yet, until 90 % of each number of digits are right; after each, its accuracy
    by digits stands there.
    """
    from socratune import rounds as outer
    from socratune.errors import StageFailed
    from socratune.pipeline import run_pipeline
    from socratune.preflight import check_run

    outer.SAMPLED_ROWS = 8  # pass@8 of a round is not looked at here, and 100 rows are half the time
    resolved = check_run(settings(folder, base, arm, seed), where="addition")
    run_pipeline(resolved, until="split", tell=quiet)
    for number in range(len(found) + 1, rounds + 1):
        if rounds_to_enough(found):
            return
        began = time.monotonic()
        try:
            one = outer.play(resolved, number, quiet)
        except StageFailed as error:
            print(f"  {arm}, round {number}: {error}", flush=True)
            return
        accuracy = asked(base, folder / arm / "rounds" / str(number) / "adapter", seed)
        seconds = round(time.monotonic() - began)
        found.append({"round": number, "accuracy": accuracy, "seconds": seconds, **one.figures})
        print(f"  {arm:<7} round {number}: {shown(accuracy)}  {one.figures}  {seconds} s", flush=True)
        yield


def quiet(event: str, stage: str, entry: dict[str, Any]) -> None:
    """Nobody watches."""


# -------- what came out
def rounds_to_enough(course: list[dict[str, Any]], digits: str | None = None) -> int | None:
    """The first round after which 90 % are right, of one number of digits or of each; None where none came to it."""
    for one in course:
        shares = one["accuracy"].values() if digits is None else [one["accuracy"][digits]]
        if min(shares) >= ENOUGH:
            return one["round"]
    return None


def table(results: dict[str, Any]) -> str:
    """Every seed's course by arm, the rounds each number of digits took to 90 %, and both over the seeds."""
    lines = []
    for seed, one in results["seeds"].items():
        lines.append(f"seed {seed}, digits          1     2     3     4     5")
        for how in HOW:
            lines.append(f"  base, {how:<11} {shown(one['base'][how])}")
        for arm, course in one["arms"].items():
            for each in course:
                lines.append(f"  {arm:<7} round {each['round']}   {shown(each['accuracy'])}   hinted {each['hinted']}")
            firsts = " ".join(f"{rounds_to_enough(course, str(n)) or '-':>5}" for n in DIGITS)
            lines.append(f"  {arm:<7} to 90 %    {firsts}   all {rounds_to_enough(course) or '-'}")
    return "\n".join([*lines, *over_seeds([one["arms"] for one in results["seeds"].values()])])


def shown(accuracy: dict[str, float]) -> str:
    """A column for each number of digits."""
    return " ".join(f"{share:5.0%}" for share in accuracy.values())


def over_seeds(seeds: list[dict[str, list[dict[str, Any]]]]) -> list[str]:
    """Rounds until 90 % of each number of digits are right: median and range by arm, and how many times fewer."""
    both = [one for one in seeds if all(one.values())]
    if not both:
        return []
    lines = [f"rounds until 90 % of each number of digits are right, {len(both)} seeds"]
    least = {arm: [at_least(one[arm]) for one in both] for arm in ARMS}
    for arm, counts in least.items():
        missed = [len(one[arm]) for one in both if rounds_to_enough(one[arm]) is None]
        line = f"  {arm:<7} median {median(counts):g}, {min(counts)} to {max(counts)}"
        note = f"; {len(missed)} not within {max(missed)}, counted as one more: a lower bound" if missed else ""
        lines.append(line + note)
    ratios = [without / with_ for without, with_ in zip(least["without"], least["with"], strict=True)]
    lines.append(f"  without / with: median of the seeds {median(ratios):.2g}, {min(ratios):.2g} to {max(ratios):.2g}")
    return lines


def at_least(course: list[dict[str, Any]]) -> int:
    """Rounds to 90 % of each number of digits; where none came to it, one more than were played."""
    return rounds_to_enough(course) or len(course) + 1


def main() -> None:
    """Make bases, play rounds, print the table; whatever is there already is not done again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=6, help="at most, of each arm")
    parser.add_argument("--work", type=Path, default=Path("outputs/addition"), help="bases and run folders")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    results = json.loads(options.results.read_text()) if options.results.exists() else {"seeds": {}}
    for seed in range(options.seeds):
        folder = options.work / f"seed-{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        one = results["seeds"].setdefault(str(seed), {"base": {}, "arms": {arm: [] for arm in ARMS}})
        if not (folder / "made.json").exists():
            write_questions(folder / "rows.jsonl", seed)
            (folder / "made.json").write_text(json.dumps(make_base(folder / "base", seed)))
        if not one["base"]:
            one["base"] = json.loads((folder / "made.json").read_text())
            one["base"] |= {how: asked(folder / "base", None, seed, how) for how in HOW}
            save(options.results, results)
        for arm in ARMS:
            for _ in learn(folder, folder / "base", arm, seed, options.rounds, one["arms"][arm]):
                save(options.results, results)
    print(table(results))


def save(path: Path, results: dict[str, Any]) -> None:
    """The figures and their table, whole at every moment."""
    from socratune.runs.folder import write_json, write_text

    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, results)
    write_text(path.with_suffix(".txt"), table(results) + "\n")


if __name__ == "__main__":
    main()
