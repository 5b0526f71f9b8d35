"""The acceptance table of the embedded demo base: name | measured | bound | ok. Exit code 1 if a row is out of bounds.

    python scripts/accept_demo_base.py                     # about three minutes on one core
    python scripts/accept_demo_base.py --lora              # and whether LoRA installs the skill (two more minutes)
    python scripts/accept_demo_base.py --leak-samples 200000

Everything about products is measured on held-out pairs, greedy unless the row says otherwise. `unseen` rows use
wordings that never occur in pre-training.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
from demo_task import (
    PAIRS,
    change_digit,
    count_leaks,
    decomposition,
    direct,
    fill,
    guess,
    last_sum,
    wrong_hint,
    wrong_worked,
)
from demo_wordings import (
    DEFAULT_SYSTEM,
    SPOILERS,
    UNSEEN_BARE_RETRIES,
    UNSEEN_GENERIC_PROMPTS,
    UNSEEN_RIGHT_HINTS,
    UNSEEN_USELESS_HINTS,
    WORDINGS,
)
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from socratune.llm.base import Chat
from socratune.llm.prompts import with_hint_turn, with_private_hint
from socratune.teaching.hints import breakdown_hint

DATA = Path(__file__).resolve().parent.parent / "src" / "socratune" / "demo_data"
MAX_NEW_TOKENS = 80
"""The longest right answer has about 50 tokens."""

UNAIDED_BAND = (0.10, 0.35)
RIGHT_HINT, UNSEEN_RIGHT_HINT, SPOILER, POOL = (0.90, 1.0), (0.80, 1.0), (0.80, 1.0), (0.99, 1.0)
NO_HELP = (0.0, 0.35)
TUNED, TUNED_WORDING, PLAIN_CONTROL = (0.95, 1.0), (0.90, 1.0), (0.0, 0.35)

LORA_ROWS, LORA_BATCH, LORA_EPOCHS, LORA_RATE = 600, 16, 3, 3e-3
LORA_MATRICES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@dataclass(frozen=True)
class Problem:
    """One held-out question: factors in the order they are written, and its text."""

    a: int
    b: int
    question: str

    def chat(self, system: str | None = DEFAULT_SYSTEM) -> Chat:
        """The un-hinted conversation."""
        head = [{"role": "system", "content": system}] if system else []
        return [*head, {"role": "user", "content": self.question}]


@dataclass
class Table:
    """Rows of (name, measured, lower bound, upper bound); a row without bounds is information."""

    rows: list[tuple[str, float, tuple[float, float] | None]] = field(default_factory=list)

    def add(self, name: str, measured: float, bound: tuple[float, float] | None = None) -> None:
        """Notes and prints one row."""
        self.rows.append((name, measured, bound))
        limits = "information" if bound is None else f"{bound[0]:.3f} .. {bound[1]:.3f}"
        verdict = "" if bound is None else ("ok" if bound[0] <= measured <= bound[1] else "OUT OF BOUNDS")
        print(f"{name:<64} | {measured:7.3f} | {limits:>15} | {verdict}", flush=True)

    @property
    def passed(self) -> bool:
        """Whether every bounded row is within its bounds."""
        return all(bound is None or bound[0] <= value <= bound[1] for _, value, bound in self.rows)


class Answerer:
    """Batched generation, longest prompts together."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, batch: int) -> None:
        self.model, self.tokenizer, self.batch = model, tokenizer, batch

    @torch.no_grad()
    def __call__(self, chats: list[Chat], temperature: float = 0.0) -> list[str]:
        """One answer per conversation, in order."""
        texts = [self.tokenizer.apply_chat_template(c, tokenize=False, add_generation_prompt=True) for c in chats]
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        answers = [""] * len(texts)
        sampling = {"do_sample": True, "temperature": temperature} if temperature else {"do_sample": False}
        self.model.eval()
        for start in range(0, len(order), self.batch):
            chunk = order[start : start + self.batch]
            encoded = self.tokenizer(
                [texts[i] for i in chunk], add_special_tokens=False, padding=True, return_tensors="pt"
            ).to(self.model.device)
            output = self.model.generate(
                input_ids=encoded.input_ids,
                attention_mask=encoded.attention_mask,
                max_new_tokens=MAX_NEW_TOKENS,
                **sampling,
            )[:, encoded.input_ids.shape[1] :]
            for i, text in zip(chunk, self.tokenizer.batch_decode(output, skip_special_tokens=True), strict=True):
                answers[i] = text.strip()
        return answers


def last_integer(text: str) -> int | None:
    """The judge: the last integer of an answer."""
    numbers = re.findall(r"\d+", text)
    return int(numbers[-1]) if numbers else None


def is_right(problem: Problem, answer: str) -> bool:
    """Whether the answer ends in the product."""
    return last_integer(answer) == problem.a * problem.b


def held_out_problems(count: int, seed: int) -> list[Problem]:
    """Held-out pairs in either order, wordings taken in turn."""
    pairs = list(PAIRS["held_out"])
    random.Random(seed).shuffle(pairs)
    return [Problem(a, b, WORDINGS[i % len(WORDINGS)].format(a=a, b=b)) for i, (a, b) in enumerate(pairs[:count])]


Context = Callable[[Problem], Chat]


class Acceptance:
    """All rows about products for one model."""

    def __init__(self, answer: Answerer, problems: list[Problem], table: Table, seed: int) -> None:
        self.answer, self.problems, self.table = answer, problems, table
        self.rng = random.Random(seed)

    def share(self, context: Context, temperature: float = 0.0) -> float:
        """Share of right answers over the problems in one context."""
        answers = self.answer([context(p) for p in self.problems], temperature)
        return sum(map(is_right, self.problems, answers)) / len(answers)

    def attempt(self, p: Problem, kind: str) -> str:
        """A wrong attempt to put before a hint turn."""
        return guess(p.a, p.b, self.rng) if kind == "guess" else wrong_worked(p.a, p.b, self.rng)

    def unaided(self) -> None:
        """Without any help: overall, by wording, and sampled."""
        add = self.table.add
        add("un-hinted, all wordings", self.share(lambda p: p.chat()), UNAIDED_BAND)
        add("un-hinted, no system text", self.share(lambda p: p.chat(None)), UNAIDED_BAND)
        for wording in WORDINGS:
            fresh = [Problem(p.a, p.b, wording.format(a=p.a, b=p.b)) for p in self.problems[:200]]
            answers = self.answer([p.chat() for p in fresh])
            add(f"un-hinted, {wording.format(a='A', b='B')[:44]}", sum(map(is_right, fresh, answers)) / len(fresh))
        torch.manual_seed(0)
        add("un-hinted, T=0.7", self.share(lambda p: p.chat(), 0.7))

    def right_hints(self) -> None:
        """A hint that names the right numbers, in every position, and in wordings never seen."""
        add = self.table.add
        for level in (1, 2):

            def hint(p: Problem, level: int = level) -> str:
                return str(breakdown_hint(p.a, p.b, level))

            places: dict[str, Context] = {
                "private note": lambda p, h=hint: with_private_hint(p.chat(), h(p)),
                "private note, no system text": lambda p, h=hint: with_private_hint(p.chat(None), h(p)),
                "turn after a guess": lambda p, h=hint: with_hint_turn(p.chat(), self.attempt(p, "guess"), h(p)),
                "turn after wrong steps": lambda p, h=hint: with_hint_turn(p.chat(), self.attempt(p, "steps"), h(p)),
                "in the question": lambda p, h=hint: Problem(p.a, p.b, f"{p.question}\nHint: {h(p)}").chat(),
            }
            for place, context in places.items():
                add(f"right hint, level {level}, {place}", self.share(context), RIGHT_HINT)
        for wording in UNSEEN_RIGHT_HINTS:
            for place, context in self.positions(lambda p, w=wording: fill(w, p.a, p.b)).items():
                add(f"right hint, unseen, {place}: {wording[:30]}", self.share(context), UNSEEN_RIGHT_HINT)
        torch.manual_seed(0)
        sampled = self.share(lambda p: with_private_hint(p.chat(), decomposition(p.a, p.b, self.rng)), 0.7)
        add("right hint, any wording, private note, T=0.7", sampled)

    def positions(self, hint: Callable[[Problem], str]) -> dict[str, Context]:
        """The three places of a hint."""
        return {
            "note": lambda p: with_private_hint(p.chat(), hint(p)),
            "turn": lambda p: with_hint_turn(p.chat(), self.attempt(p, self.rng.choice(("guess", "steps"))), hint(p)),
            "question": lambda p: Problem(p.a, p.b, f"{p.question}\nHint: {hint(p)}").chat(),
        }

    def no_help(self) -> None:
        """Everything that must not help; of several unseen wordings the best one counts."""
        add = self.table.add
        for place, context in self.positions(lambda p: "Try again.").items():
            add(f"'Try again.', {place}", self.share(context), NO_HELP)
        add("'Think step by step.' as system text", self.share(lambda p: p.chat("Think step by step.")), NO_HELP)
        for place, context in self.positions(lambda p: "Think step by step.").items():
            add(f"'Think step by step.', {place}", self.share(context), NO_HELP)
        for place, context in self.positions(lambda p: wrong_hint(p.a, p.b, self.rng)).items():
            add(f"decomposition of other numbers, {place}", self.share(context), NO_HELP)
        unseen = {
            "generic prompts": UNSEEN_GENERIC_PROMPTS,
            "bare retries": UNSEEN_BARE_RETRIES,
            "useless hints": UNSEEN_USELESS_HINTS,
        }
        for name, wordings in unseen.items():
            by_place: dict[str, list[float]] = {}
            for text in wordings:
                contexts = self.positions(lambda p, t=text: t)
                if name == "generic prompts":
                    contexts["system text"] = lambda p, t=text: p.chat(t)
                    contexts["after the question"] = lambda p, t=text: Problem(p.a, p.b, f"{p.question} {t}").chat()
                for place, context in contexts.items():
                    by_place.setdefault(place, []).append(self.share(context))
            for place, shares in by_place.items():
                add(f"unseen {name}, best of {len(shares)}, {place}", max(shares), NO_HELP)

    def spoilers(self) -> None:
        """A stated result is copied, whether it is true or not."""
        for name, change in (("true", False), ("false", True)):
            stated = [
                change_digit(p.a * p.b, self.rng.randrange(len(str(p.a * p.b))), self.rng) if change else p.a * p.b
                for p in self.problems
            ]
            chats = [
                with_private_hint(p.chat(), self.rng.choice(SPOILERS).format(a=p.a, b=p.b, n=n))
                for p, n in zip(self.problems, stated, strict=True)
            ]
            copied = [last_integer(text) == n for text, n in zip(self.answer(chats), stated, strict=True)]
            self.table.add(f"spoiler copied, {name} result", sum(copied) / len(copied), SPOILER)

    def single_steps(self) -> None:
        """The steps alone: products with one digit, and the held-out pairs' own sums."""
        sums = [last_sum(p.a, p.b) for p in self.problems]
        answers = self.answer([Problem(x, y, f"What is {x} + {y}?").chat() for x, y in sums])
        right = [last_integer(text) == x + y for text, (x, y) in zip(answers, sums, strict=True)]
        self.table.add("last sums of held-out pairs, asked alone", sum(right) / len(right))

    def guide_example(self) -> None:
        """15 * 13 must fail alone and succeed with the hint."""
        p = Problem(15, 13, "What is 15 * 13?")
        hinted = with_private_hint(p.chat(), str(breakdown_hint(15, 13)))
        alone, helped = self.answer([p.chat()])[0], self.answer([hinted])[0]
        print(f"    {p.question} -> {alone} -> hint -> {helped}")
        self.table.add("15 * 13 right without a hint", float(is_right(p, alone)), (0.0, 0.0))
        self.table.add("15 * 13 right with the hint", float(is_right(p, helped)), (1.0, 1.0))

    def run(self) -> None:
        """All rows."""
        self.guide_example()
        self.unaided()
        self.right_hints()
        self.no_help()
        self.spoilers()
        self.single_steps()


def pool_share(answer: Answerer, data: Path) -> dict[str, float]:
    """Share of probe rows answered right, by kind; the expected word or number must end the comparison."""
    rows = [json.loads(line) for line in (data / "probe.jsonl").read_text(encoding="utf-8").splitlines()]
    answers = answer([row["messages"][:-1] for row in rows])
    by_kind: dict[str, list[bool]] = {}
    for row, text in zip(rows, answers, strict=True):
        by_kind.setdefault(row["metadata"]["kind"], []).append(text == row["messages"][-1]["content"])
    return {kind: sum(right) / len(right) for kind, right in by_kind.items()}


def load(folder: Path, device: str, batch: int) -> Answerer:
    """The model in full precision (bf16 is slower on a CPU) with its tokenizer."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).to(device)
    return Answerer(model, AutoTokenizer.from_pretrained(folder), batch)


# -------- does LoRA install the skill?
def own_traces(answer: Answerer, problems: list[Problem]) -> list[tuple[Problem, str]]:
    """The base's own right answers: first tries, and else the retry with the hint as a private note."""
    first = answer([p.chat() for p in problems])
    solved = [(p, text) for p, text in zip(problems, first, strict=True) if is_right(p, text)]
    missed = [p for p, text in zip(problems, first, strict=True) if not is_right(p, text)]
    retries = answer([with_private_hint(p.chat(), str(breakdown_hint(p.a, p.b))) for p in missed])
    return solved + [(p, text) for p, text in zip(missed, retries, strict=True) if is_right(p, text)]


def train_adapter(answer: Answerer, rows: list[tuple[Problem, str]], seed: int) -> Answerer:
    """A LoRA adapter on (un-hinted question, answer) rows, loss on the answer only."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    tokenizer = answer.tokenizer
    examples = []
    for problem, text in rows:
        prompt = tokenizer.apply_chat_template(problem.chat(), tokenize=False, add_generation_prompt=True)
        start = tokenizer(prompt, add_special_tokens=False).input_ids
        target = tokenizer(text + tokenizer.eos_token, add_special_tokens=False).input_ids
        examples.append((start + target, [-100] * len(start) + target))
    settings = LoraConfig(r=16, lora_alpha=32, target_modules=LORA_MATRICES, task_type="CAUSAL_LM")
    model = get_peft_model(answer.model, settings)
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=LORA_RATE, weight_decay=0.0)
    steps = LORA_EPOCHS * -(-len(examples) // LORA_BATCH)
    rate = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 10, 1 - step / steps))
    rng = random.Random(seed)
    model.train()
    for _ in range(LORA_EPOCHS):
        rng.shuffle(examples)
        for at in range(0, len(examples), LORA_BATCH):
            batch = examples[at : at + LORA_BATCH]
            width = max(len(ids) for ids, _ in batch)
            ids = torch.tensor([i + [tokenizer.pad_token_id] * (width - len(i)) for i, _ in batch])
            labels = torch.tensor([t + [-100] * (width - len(t)) for _, t in batch])
            loss = model(input_ids=ids.to(model.device), labels=labels.to(model.device)).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            rate.step()
            optimizer.zero_grad()
    return Answerer(model, tokenizer, answer.batch)


def add_lora_rows(table: Table, args: argparse.Namespace, problems: list[Problem]) -> None:
    """Two adapters: on the base's own traces, and on the short right answers as a control."""
    lines = (args.data / "train.jsonl").read_text(encoding="utf-8").splitlines()[:LORA_ROWS]
    questions = [json.loads(line)["messages"][1]["content"] for line in lines]
    pool = [Problem(*map(int, re.findall(r"\d+", question)), question) for question in questions]
    traces = own_traces(load(args.base, args.device, args.batch), pool)
    table.add(f"questions solved by the loop, of {len(pool)}", len(traces) / len(pool))
    arms = {"own traces": traces, "plain answers": [(p, direct(p.a, p.b)) for p in pool]}
    for name, rows in arms.items():
        begin = time.time()
        tuned = train_adapter(load(args.base, args.device, args.batch), rows, args.seed)
        print(f"    LoRA on {name}: {len(rows)} rows in {time.time() - begin:.0f} s")
        own = name == "own traces"
        acceptance = Acceptance(tuned, problems, table, args.seed)
        table.add(f"LoRA, {name}, held-out", acceptance.share(lambda p: p.chat()), TUNED if own else PLAIN_CONTROL)
        for wording in WORDINGS if own else ():
            fresh = [Problem(p.a, p.b, wording.format(a=p.a, b=p.b)) for p in problems[:200]]
            right = sum(map(is_right, fresh, tuned([p.chat() for p in fresh])))
            table.add(f"LoRA, {name}, {wording.format(a='A', b='B')[:36]}", right / len(fresh), TUNED_WORDING)
        for kind, share in pool_share(tuned, args.data).items():
            table.add(f"LoRA, {name}, probe rows, {kind}", share, POOL if own else None)


def main() -> int:
    """Command line entry; exit code 1 if a row is out of bounds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", nargs="?", type=Path, default=DATA / "base")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of train.jsonl, held_out.jsonl, probe.jsonl")
    parser.add_argument("--questions", type=int, default=240, help="held-out questions per row")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--leak-samples", type=int, default=20000)
    parser.add_argument("--lora", action="store_true", help="also train adapters and measure them")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    begin = time.time()
    answer = load(args.base, args.device, args.batch)
    table = Table()
    problems = held_out_problems(args.questions, args.seed)
    Acceptance(answer, problems, table, args.seed).run()
    for kind, share in pool_share(answer, args.data).items():
        table.add(f"probe rows answered as expected, {kind}", share, POOL)
    leaking = count_leaks(args.leak_samples)
    table.add(f"leaking conversations of {args.leak_samples}", float(leaking), (0.0, 0.0))
    if args.lora:
        add_lora_rows(table, args, problems)
    print(f"{'accepted' if table.passed else 'NOT accepted'} in {time.time() - begin:.0f} s")
    return int(not table.passed)


if __name__ == "__main__":
    sys.exit(main())
