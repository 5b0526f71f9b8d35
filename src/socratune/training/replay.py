"""Replay: the base model's own answers to neutral prompts, trained beside the traces to prevent forgetting.

A small share of earlier text nearly stops a model from forgetting, and the model's own text does so best
(arXiv:2502.06042, arXiv:2605.26097).
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

from socratune.llm import WARM, Chat, ChatModel, Sampling
from socratune.rows import Example, Piece

FEWEST_ROWS = 200
"""With fewer rows the replay would be a handful of answers, so it is left out."""
MOST_DRAWS = 8
"""Most answers to one prompt; more of them teach nothing new."""
_LONGEST_ANSWER = 512  # tokens
AT_ONCE = 64

PROMPTS = Path(__file__).parents[1] / "neutral_data" / "replay_prompts.jsonl"


async def own_answers(
    model: ChatModel, examples: Sequence[Example], sampling: Sampling, *, tokens: int, seed: int
) -> list[Example]:
    """Returns about `tokens` tokens of the model's own answers to the shipped prompts, as training rows.

    Every second prompt carries the system prompt that is most frequent in `examples`. Truncated answers are left out.
    """
    warm = max(sampling.temperature, WARM)
    sampling = replace(sampling, temperature=warm, max_new_tokens=min(sampling.max_new_tokens, _LONGEST_ANSWER))
    questions = _questions(_system_prompt(examples), seed)
    replayed: list[Example] = []
    while tokens > 0 and (batch := list(islice(questions, AT_ONCE))):
        answers = await asyncio.gather(*(model.generate(chat, sampling.drawn(s)) for _, chat, s in batch))
        for (name, chat, _), answer in zip(batch, answers, strict=True):
            if tokens > 0 and answer.stop == "end" and answer.text:
                piece = Piece(answer.text, token_ids=answer.token_ids)
                replayed.append(Example(f"replay-{name}", chat, (piece,), "replay"))
                tokens -= answer.completion_tokens
    return replayed


def _questions(system: str | None, seed: int) -> Iterator[tuple[str, Chat, int]]:
    """Yields (name, conversation, seed) of every question, in seeded order, each prompt once before any is repeated."""
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
