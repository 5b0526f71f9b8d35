"""How fast does the model answer, and in how much memory? Prompt and answer apart, because they are paid apart."""

from __future__ import annotations

import asyncio
import resource
import statistics
import sys
import time
from dataclasses import replace
from typing import Any

from socratune.llm.base import ChatModel, Completion, Sampling
from socratune.rows import QARow

TIMED_ROWS, ONE_BY_ONE = 64, 8
LONGEST_ANSWER = 256  # tokens


async def performance(model: ChatModel, rows: list[QARow], sampling: Sampling) -> dict[str, Any]:
    """Speed and peak memory; `passed` where it said anything at all.

    `time_to_first_token_s`: median of 8 questions asked one by one. `prefill_tokens_per_second` and
    `decode_tokens_per_second`: of up to 64 questions asked together, prompt tokens and answer tokens apart;
    `tokens_per_second`: answer tokens over the whole time. `peak_memory_gb`: of this process.
    """
    import torch

    rows = rows[:TIMED_ROWS]
    sampling = replace(sampling, temperature=0.0)  # a prompt that answers are drawn to is not read again
    first = replace(sampling, max_new_tokens=1)
    whole = replace(sampling, max_new_tokens=min(sampling.max_new_tokens, LONGEST_ANSWER))
    await model.generate(rows[0].prompt, first)  # what is built at the first call is not timed
    waits = [(await _timed(model, [row], first))[1] for row in rows[:ONE_BY_ONE]]
    prompts, prefill_s = await _timed(model, rows, first)
    answers, seconds = await _timed(model, rows, whole)
    tokens = sum(answer.completion_tokens for answer in answers)
    decode_s = seconds - prefill_s if seconds > prefill_s else seconds
    gpu_bytes = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    rss_unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes on macOS, in KiB on Linux
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * rss_unit
    return {
        "passed": tokens > 0,
        "time_to_first_token_s": round(statistics.median(waits), 4),
        "prefill_tokens_per_second": round(sum(answer.prompt_tokens for answer in prompts) / prefill_s, 1),
        "decode_tokens_per_second": round((tokens - len(rows)) / decode_s, 1),
        "tokens_per_second": round(tokens / seconds, 1),
        "gpu_memory_used_gb": round(gpu_bytes / 1e9, 2),
        "peak_memory_gb": round(peak / 1e9, 2),
    }


async def _timed(model: ChatModel, rows: list[QARow], sampling: Sampling) -> tuple[list[Completion], float]:
    """The answers to questions asked together, and the seconds they took."""
    started = time.monotonic()
    answers = await asyncio.gather(*(model.generate(row.prompt, sampling) for row in rows))
    return answers, time.monotonic() - started
