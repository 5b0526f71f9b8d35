"""Replay: the base model's own answers to neutral prompts, trained beside the traces, so that it keeps what it was.

A small share of what a model said before training nearly stops it from forgetting, and text of its own does so best
(arXiv:2502.06042, arXiv:2605.26097).
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from socratune.llm import WARM, Chat, ChatModel, Completion, Sampling
from socratune.rows import Example, Piece

FEWEST_ROWS = 200
"""Below this the replay would be a handful of answers; it is left out."""
MOST_DRAWS = 8
"""Answers to one prompt; more of them teach nothing new."""
_LONGEST_ANSWER = 512  # tokens
AT_ONCE = 64

PROMPTS = Path(__file__).parents[1] / "neutral_data" / "replay_prompts.jsonl"


async def own_answers(
    model: ChatModel, examples: Sequence[Example], sampling: Sampling, *, tokens: int, seed: int
) -> list[Example]:
    """About `tokens` tokens of the model's own answers to the shipped prompts, as training rows.

    Every second prompt carries the system prompt that is most frequent in `examples`. Cut-off answers are left out.
    """
    warm = max(sampling.temperature, WARM)
    sampling = replace(sampling, temperature=warm, max_new_tokens=min(sampling.max_new_tokens, _LONGEST_ANSWER))
    waiting = _asked(_system_prompt(examples), seed)
    found: list[Example] = []
    while tokens > 0 and (batch := [asked for _, asked in zip(range(AT_ONCE), waiting, strict=False)]):
        answers = await asyncio.gather(*(model.generate(chat, sampling.drawn(s)) for _, chat, s in batch))
        for (name, chat, _), answer in zip(batch, answers, strict=True):
            if tokens > 0 and answer.stop == "end" and answer.text:
                found.append(_example(name, chat, answer))
                tokens -= answer.completion_tokens
    return found


def _asked(system: str | None, seed: int) -> Iterator[tuple[str, Chat, int]]:
    """(name, conversation, seed) of every question to ask, in seeded order, each prompt once before any twice."""
    prompts = [json.loads(line) for line in PROMPTS.read_text("utf-8").splitlines()]
    random.Random(seed).shuffle(prompts)
    for draw in range(MOST_DRAWS):
        for at, prompt in enumerate(prompts):
            chat = [{"role": "user", "content": prompt["prompt"]}]
            if system and (at + draw) % 2:
                chat.insert(0, {"role": "system", "content": system})
            yield f"{prompt['id']}-{draw + 1}", chat, (seed * MOST_DRAWS + draw) * len(prompts) + at


def _system_prompt(examples: Sequence[Example]) -> str | None:
    counts = Counter(turn["content"] for row in examples for turn in row.prompt[:1] if turn["role"] == "system")
    return counts.most_common(1)[0][0] if counts else None


def _example(name: str, chat: Chat, answer: Completion) -> Example:
    return Example(f"replay-{name}", chat, (Piece(answer.text, token_ids=answer.token_ids),), "replay")
