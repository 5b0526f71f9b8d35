"""Side studies on the laboratory's base: what else moves the result of the loop, one thing at a time.

    python experiments/lab/side.py BASE --curve experiments/results/curve.json --out experiments/results/side.json

Every setting is the loop as it is (four samples, then hints where all were wrong; own right traces) but for the one
thing that its study changes. Learning rates are those that the curve chose by dev.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from arms import PRICES, Bought, Purse, Shopping, buy, leaking, protocol, protocol_usd, up_to
from curve import Laboratory, Size, need_base, task
from draws import EARLY_SAMPLES, FIRST, Draw, Draws, Student, asked, drawn, noted
from many import Document, Task, log_probabilities

from socratune.llm.prompts import with_private_hint
from socratune.rows import QARow
from socratune.runs.folder import write_json
from socratune.teaching.hints import leak

SEEDS, NEUTRAL = 3, 700
ATTEMPTS, ATTEMPTS_SEEDS = (1, 2, 4, 8), 5
SAMPLES = 2 * EARLY_SAMPLES
JUDGE_ERRORS = (0.0, 0.05, 0.10, 0.20)
ROWS = (100, 300, 1000, 3000)
RANKS = (4, 16, 64)
REPLAY = (0.0, 0.05, 0.10, 0.20)
ABOUT = {
    "attempts": (
        "Samples of a row before it is hinted (two right ones are enough), all for the same money: what the loop costs "
        "on all rows with four, prices `small`; what is left goes into more samples."
    ),
    "attempts-erring": "The same under a teacher who gives another problem's hint half of the time.",
    "masking": "The dialogue format, its wrong attempts trained on or not.",
    "leaked-hints": (
        "Hints that say more than they should, for the same rows. The base was taught to copy a stated "
        "answer, and to reject a hint with terms that the text has not, as solution steps have: so this shows "
        "what such traces teach, not how a real model takes such hints. Solved: share of the hinted rows; flagged: "
        "share of the hints that Socratune's overlap check stops, which has the bare answer to compare with and no "
        "worked solution; forced_answer_gain: what the hint adds to the bare answer's log-probability, nats."
    ),
    "judge-errors": "A judge that turns this share of its verdicts round, the same way for the same answer.",
    "rows": "Questions that the loop is given.",
    "rank": "Rank of the adapter, alpha 32.",
    "replay": (
        "Share of the trained tokens that are the base's own answers to questions of the pool's kinds, none of which "
        "is in the pool."
    ),
    "replay-sft": "The same, where the references alone are trained on.",
    "reliance": (
        "Hinted rows alone, a third each by how much the trace hangs on its hint: nats that the hint adds to its "
        "log-probability."
    ),
    "reliance-answer": (
        "Hinted rows alone, a third each by how much of that stands on the answer's own tokens: hardly anything, so "
        "these thirds tell noise."
    ),
}


@dataclass(frozen=True, slots=True)
class Setting:
    """One training of a study."""

    study: str
    setting: str
    seed: int
    task: Task
    also: dict[str, float] = field(default_factory=dict)


class Studies:
    """The settings of all studies, from draws that they share."""

    def __init__(self, lab: Laboratory, rates: dict[str, float]) -> None:
        self.lab, self.rates = lab, rates
        self.student = Student(lab.base, lab.writer, lab.size.at_once)
        rows = [lab.rows(seed) for seed in range(ATTEMPTS_SEEDS)]
        self.draws = drawn(self.student, rows, ("mix", "iterative"), samples=SAMPLES, every_hint=True)
        lab.say("draws")

    def bought(self, seed: int, arm: Callable[[Shopping], None] = protocol, **how: Any) -> Bought:
        """What an arm trains on; money is no matter."""
        return buy(arm, self.draws[seed], Purse(PRICES["small"]), seed, **how)

    def setting(
        self, study: str, setting: str, seed: int, documents: Iterable[Document], arm: str = "mix", **also: float
    ) -> Setting:
        """With the learning rate of an arm."""
        return Setting(study, setting, seed, task(list(documents), self.rates[arm], seed), also)

    def all(self, *, attempts_only: bool) -> list[Setting]:
        """Every study's, the cheap ones first."""
        found = [setting for seed in range(ATTEMPTS_SEEDS) for setting in self.attempts(seed)]
        if attempts_only:
            return found
        for seed in range(SEEDS):
            found += [*self.masking(seed), *self.judge_errors(seed), *self.ranks(seed)]
            found += [*self.replay(seed), *self.reliance(seed), *self.leaked(seed)]
        return [*found, *self.rows()]

    def attempts(self, seed: int) -> list[Setting]:
        """How often the student tries before it is hinted, under a teacher that is right and one that errs."""
        draws, rng = self.draws[seed], random.Random(f"teacher/{seed}")
        usd = protocol_usd(draws, PRICES["small"], seed)
        erring = [
            [rng.choice(both) for both in zip(right, wrong, strict=False)]
            for right, wrong in zip(draws.hints, draws.others, strict=True)
        ]
        rows = [at for at, tries in enumerate(draws.samples) if not tries[0].right]
        misled = noted(self.student, draws, erring, rows)
        found = []
        for study, said, hints in (("attempts", draws.noted, draws.hints), ("attempts-erring", misled, erring)):
            for number in ATTEMPTS:

                def arm(shop: Shopping, number: int = number, said: Any = said, hints: Any = hints) -> None:
                    shop.samples(range(number), enough=min(2, number))
                    shop.hints(said, hints)
                    shop.rest()

                bought = buy(arm, draws, Purse(PRICES["small"], usd), seed)
                hinted = float(len(bought.hinted))
                found.append(self.setting(study, str(number), seed, bought.documents, "mix", hinted=hinted))
        return found

    def masking(self, seed: int) -> list[Setting]:
        """The dialogue's wrong attempts, with loss and without."""
        found = []
        for name, form in (("trained", "iterative"), ("masked", "iterative, masked")):

            def arm(shop: Shopping, form: str = form) -> None:
                shop.samples(range(FIRST), enough=2)
                shop.hints(shop.draws.turned, shop.draws.hints, form=form)

            found.append(self.setting("masking", name, seed, self.bought(seed, arm).documents, "iterative"))
        return found

    def judge_errors(self, seed: int) -> list[Setting]:
        """Verdicts turned round at random, the same for the same answer."""
        found = []
        for share in JUDGE_ERRORS:

            def judged(at: int, draw: Draw, share: float = share) -> bool:
                turned = random.Random(f"{seed}/{at}/{draw.ids}").random() < share
                return draw.right != turned

            bought = self.bought(seed, judged=judged)
            found.append(self.setting("judge-errors", f"{share:.0%}", seed, bought.documents))
        return found

    def ranks(self, seed: int) -> list[Setting]:
        """The same rows, other ranks."""
        documents = self.bought(seed).documents
        made = self.setting("rank", "16", seed, documents)
        return [replace(made, setting=str(rank), task=replace(made.task, rank=rank)) for rank in RANKS]

    def replay(self, seed: int) -> list[Setting]:
        """Own answers to neutral questions beside the loop's traces, and beside the bare references."""
        writer = self.lab.writer
        neutral = self.lab.neutral(NEUTRAL, 100 + seed)
        own = [writer.document(prompt, [(draw.ids, True)]) for prompt, draw in neutral]
        references = [
            writer.document(prompt, [(writer.ids(f"Answer: {problem.answer}"), True)])
            for prompt, problem in zip(self.draws[seed].prompts, self.draws[seed].problems, strict=True)
        ]
        found = []
        for share in REPLAY:
            for study, arm, rows in (
                ("replay", "mix", self.bought(seed).documents),
                ("replay-sft", "sft", references),
            ):
                found.append(self.setting(study, f"{share:.0%}", seed, [*rows, *up_to(own, share, rows)], arm))
        return found

    def reliance(self, seed: int) -> list[Setting]:
        """Hinted rows by thirds of log p(trace | hint) - log p(trace), and of the answer's share in it."""
        draws, writer = self.draws[seed], self.lab.writer
        bought = self.bought(seed)
        rows = sorted(bought.hinted)
        traces = [_answer_of(bought.by_row[at][0]) for at in rows]
        hinted = []
        for at, trace in zip(rows, traces, strict=True):
            number = next(n for n, some in enumerate(draws.noted[at]) if any(draw.right for draw in some))
            chat = with_private_hint(asked(draws.problems[at]), draws.hints[at][number])
            hinted.append((writer.prompt(chat), trace))
        with_hint = log_probabilities(self.lab.base, [_marked(*each) for each in hinted])
        without = log_probabilities(
            self.lab.base, [_marked(draws.prompts[at], trace) for at, trace in zip(rows, traces, strict=True)]
        )
        gains = [[a - b for a, b in zip(*both, strict=True)] for both in zip(with_hint, without, strict=True)]
        tails = [len(trace) - writer.behind_mark(trace) for trace in traces]
        total = [sum(gain) for gain in gains]
        of_answer = [sum(gain[-tail:]) for gain, tail in zip(gains, tails, strict=True)]
        found = []
        for study, measure in (("reliance", total), ("reliance-answer", of_answer)):
            order = sorted(range(len(rows)), key=lambda each: measure[each])
            for number, third in enumerate(("low", "middle", "high")):
                some = order[number * len(order) // 3 : (number + 1) * len(order) // 3]
                documents = [bought.by_row[rows[each]][0] for each in some]
                nats = mean(measure[each] for each in some)
                found.append(self.setting(study, third, seed, documents, "mix", nats=round(nats, 2)))
        return found

    def leaked(self, seed: int) -> list[Setting]:
        """One hint for each row that four samples did not solve: a strategy, all steps but the last, the answer."""
        draws = self.draws[seed]
        all_wrong = [at for at, tries in enumerate(draws.samples) if not any(draw.right for draw in tries[:FIRST])]
        found = []
        for name, kind in (("strategy", None), ("all steps but the last", "steps"), ("the answer", "answer")):
            hints = [
                some[:1] if kind is None else [leaking(problem, kind).text]
                for some, problem in zip(draws.hints, draws.problems, strict=True)
            ]
            said = noted(self.student, draws, hints, all_wrong)

            def arm(shop: Shopping, said: Any = said, hints: Any = hints) -> None:
                shop.samples(range(FIRST), enough=2)
                shop.hints(said, hints)

            bought = self.bought(seed, arm)
            also = {
                "solved": len(bought.hinted) / max(1, len(all_wrong)),
                "flagged": mean(_flagged(draws, at, hints[at][0]) for at in all_wrong),
                "forced_answer_gain": self._forced_gain(draws, all_wrong, hints),
            }
            rounded = {key: round(float(value), 3) for key, value in also.items()}
            found.append(self.setting("leaked-hints", name, seed, bought.documents, "mix", **rounded))
        return found

    def _forced_gain(self, draws: Draws, rows: Sequence[int], hints: list[list[str]]) -> float:
        """What a hint adds to the probability of the bare answer, no work allowed: nats, the median over rows."""
        writer = self.lab.writer
        answers = [writer.ids(f"Answer: {draws.problems[at].answer}") for at in rows]
        noted = [writer.prompt(with_private_hint(asked(draws.problems[at]), hints[at][0])) for at in rows]
        pairs = [
            log_probabilities(
                self.lab.base, [_marked(prompt, answer) for prompt, answer in zip(some, answers, strict=True)]
            )
            for some in (noted, [draws.prompts[at] for at in rows])
        ]
        gains = sorted(sum(a) - sum(b) for a, b in zip(*pairs, strict=True))
        return gains[len(gains) // 2]

    def rows(self) -> list[Setting]:
        """The loop on ever more questions; its hints are not bought again for the smaller ones."""
        counts = [count * self.lab.size.rows // Size().rows for count in ROWS]
        problems = [self.lab.rows(1000 + seed, counts[-1]) for seed in range(SEEDS)]
        for seed, some in enumerate(problems):
            random.Random(seed).shuffle(some)
        found = []
        for seed, draws in enumerate(drawn(self.student, problems, ("mix",), samples=FIRST)):
            for count in counts:
                bought = buy(protocol, draws.of(slice(count)), Purse(PRICES["small"]), seed)
                found.append(self.setting("rows", str(count), seed, bought.documents))
        return found


def _flagged(draws: Draws, at: int, hint: str) -> bool:
    """Whether Socratune's overlap check would not let the hint through."""
    problem = draws.problems[at]
    turns = [*asked(problem), {"role": "assistant", "content": problem.answer}]
    return leak(hint, QARow("x", turns, {})) is not None


def _marked(prompt: list[int], answer: list[int]) -> Document:
    """The answer's tokens are those that are looked at."""
    return [*prompt, *answer], [0] * len(prompt) + [1] * len(answer)


def _answer_of(document: Document) -> list[int]:
    """The trained tokens, but for the end of the turn."""
    return [token for token, mark in zip(*document, strict=True) if mark][:-1]


def main() -> int:
    """Command line entry."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", type=Path, help="the model folder")
    parser.add_argument("--curve", type=Path, help="for the learning rates; without it 2e-3")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--attempts-only", action="store_true", help="the other studies in the result file stay")
    parser.add_argument("--tiny", action="store_true", help="only to try it")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    need_base(args.base)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    size = Size(rows=20, held_out=5, dev=5, pool=8, groups=4, at_once=256) if args.tiny else Size()
    lab = Laboratory(args.base, args.device, size, args.minutes)
    rates = dict.fromkeys(("mix", "sft", "iterative"), 2e-3)
    if args.curve:
        curves = json.loads(args.curve.read_text("utf-8"))["curves"]["small"]
        rates |= {arm: curves[arm]["learning_rate"] for arm in rates if arm in curves}
    settings = [each for each in Studies(lab, rates).all(attempts_only=args.attempts_only) if each.task.documents]
    lab.say(f"{len(settings)} settings")
    about = lab.about()
    studies = json.loads(args.out.read_text("utf-8"))["studies"] if args.attempts_only and args.out.exists() else {}
    studies = {name: study for name, study in studies.items() if not name.startswith("attempts")}
    for chunk in lab.after([each.task for each in settings], lab.exam):
        for place, exam in chunk:
            each = settings[place]
            study = studies.setdefault(each.study, {"about": ABOUT[each.study], "rows": []})
            row = {"setting": each.setting, "seed": each.seed, "rows": len(each.task.documents), **exam}
            study["rows"].append(row | ({"also": each.also} if each.also else {}))
        write_json(args.out, {**about, "learning_rates": rates, "studies": studies})
    lab.say("done")
    return 0


if __name__ == "__main__":
    sys.exit(main())
