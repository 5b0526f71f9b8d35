"""The student in this process: a `ChatModel` over the very weights that are trained.

A decoder of `decoding` decodes all waiting rows together. Randomness belongs to the row (`Sampling.seed`), not to the
batch.
"""

from __future__ import annotations

import asyncio
import queue
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from socratune.inference.loops import LOOKED_EVERY, loops
from socratune.inference.template import end_of_turn_id, next_turn, prompt_ids
from socratune.llm import (
    Chat,
    Completion,
    Sampling,
    Stop,
    choose_sampling,
    exam_sampling,
    is_thinking,
    model_location,
    weights_fingerprint,
)
from socratune.resolve import given_template
from socratune.runs import fingerprint

if TYPE_CHECKING:  # the decoders import torch, which commands without a local model do not need
    from socratune.inference.decoding.rows import Decoder, DecodingRow

MAX_BATCH = 256
_TURN_TOKENS = 16
"""The beginning of a turn is found in so many last tokens."""
_COLDEST = 1e-6
"""Below this temperature the likeliest token is taken, since dividing logits by less overflows."""


@dataclass(frozen=True, slots=True)
class TokenOdds:
    """The log probability of a token, and the likeliest tokens of its place with theirs, falling."""

    log_probability: float
    likeliest: list[tuple[int, float]]


class LocalStudent:
    """Answers with a transformers causal language model.

    Attributes:
        model, tokenizer: the arguments.
        thinking: True if the model thinks before it answers.

    Args:
        model: in eval mode, on its device; may be a PEFT model.
        tokenizer: with the chat template that the model is trained with.
        name: for people.
        fingerprint: identifies weights, template and precision.
        max_batch: the most rows decoded together.
        slots: decode in slots of fixed shape if the model allows it; None: on a CUDA device, where it is faster.
        turn: entered around every step of decoding, if others use the same model (see `publishing.openai_models`).
        ends_loops: stop an answer that repeats itself (see `loops`).
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        name: str,
        fingerprint: str,
        max_batch: int = MAX_BATCH,
        slots: bool | None = None,
        turn: Callable[[], AbstractContextManager[None]] = nullcontext,
        ends_loops: bool = True,
    ) -> None:
        from socratune.inference.ranks import is_sharded  # imports torch

        self.name = name
        self.fingerprint = fingerprint
        self.thinking = is_thinking(tokenizer.chat_template)
        self.model = model
        self.tokenizer = tokenizer
        self._max_batch = max_batch
        # a recorded step would not gather the blocks of a sharded model
        self._slots = model.device.type == "cuda" and not is_sharded(model) if slots is None else slots
        self._turn = turn
        self._ends_loops = ends_loops
        self._end_ids = _end_ids(model, tokenizer)
        self._next_turn = next_turn(tokenizer)
        self._held_back = _TURN_TOKENS if self._next_turn else 0  # a listener hears no beginning of the next turn
        self._positions: int | None = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        self._requests: queue.SimpleQueue[DecodingRow | None] = queue.SimpleQueue()
        self._worker = threading.Thread(target=self._work, name="student", daemon=True)
        self._worker.start()

    async def generate(
        self, messages: Chat, sampling: Sampling, told: Callable[[int], object] | None = None
    ) -> Completion:
        """Returns the answer to `messages`, and waits while others are decoded. It ends where the model's positions
        end.

        Args:
            told: takes each token of the answer, in the thread that decodes; returning True ends the answer there.

        Raises:
            UserError: the chat template does not take these turns.
        """
        return await self.go_on(prompt_ids(self.tokenizer, messages), sampling, told)

    async def go_on(
        self, ids: list[int], sampling: Sampling, told: Callable[[int], object] | None = None
    ) -> Completion:
        """Returns the continuation of these ids, as `generate` does for a conversation."""
        from socratune.inference.decoding.rows import DecodingRow

        if sampling.temperature < _COLDEST:
            sampling = replace(sampling, temperature=0.0)
        if self._positions is not None and (room := self._positions - len(ids)) < sampling.max_new_tokens:
            if room <= 0:
                return Completion("", stop="length", prompt_tokens=len(ids))
            sampling = replace(sampling, max_new_tokens=room)
        answer: Future[Completion] = Future()
        self._requests.put(DecodingRow(ids, sampling, answer, told=told))
        return await asyncio.wrap_future(answer)

    def sampling(self, *, temperature: float | None, top_p: float | None, max_new_tokens: int) -> Sampling:
        """Returns how its answers are drawn under these settings; see `choose_sampling`."""
        return choose_sampling(
            self.model.generation_config.to_dict(),
            thinking=self.thinking,
            temperature=temperature,
            top_p=top_p,
            max_new_tokens=max_new_tokens,
        )

    def exam_sampling(self, max_new_tokens: int) -> Sampling:
        """Returns how answers to be compared are drawn; see `llm.exam_sampling`."""
        own = self.model.generation_config.to_dict()
        return exam_sampling(own, thinking=self.thinking, max_new_tokens=max_new_tokens)

    async def odds(self, ids: list[int], new_ids: list[int], likeliest: int = 0) -> list[TokenOdds]:
        """Returns how likely each of `new_ids` is after its predecessors, at temperature 1 and without bounds."""
        return await asyncio.to_thread(self._odds, ids, new_ids, likeliest) if new_ids else []

    def _odds(self, ids: list[int], new_ids: list[int], likeliest: int) -> list[TokenOdds]:
        import torch

        inputs = torch.tensor([[*ids, *new_ids]], device=self.model.device)
        with self._turn(), torch.inference_mode():
            logits = self.model(input_ids=inputs, use_cache=False, logits_to_keep=len(new_ids) + 1).logits[0, :-1]
            odds = []
            for row, token in zip(logits, new_ids, strict=True):  # one at a time: a float32 copy of all is large
                shares = row.float().log_softmax(-1)
                top = shares.topk(likeliest)
                likeliest_tokens = list(zip(top.indices.tolist(), top.values.tolist(), strict=True))
                odds.append(TokenOdds(float(shares[token]), likeliest_tokens))
        return odds

    def close(self) -> None:
        """Ends the worker thread and abandons rows in flight."""
        self._requests.put(None)
        self._worker.join()

    def _work(self) -> None:
        decoder: Decoder | None = None
        waiting: list[DecodingRow] = []
        live = True
        while live:
            busy = decoder.rows if decoder else []
            live = self._take(waiting, block=not busy and not waiting)
            try:
                with self._turn():
                    decoder = decoder or self._decoder()
                    tokens = decoder.step(waiting)
                self._read(tokens)
            except BaseException as error:  # passed on to every waiting caller
                for row in [*waiting, *(decoder.rows if decoder else [])]:
                    if not row.answer.done():
                        row.answer.set_exception(error)
                decoder, waiting = None, []
        if self._slots:
            from socratune.inference.decoding.attention import hand_back

            hand_back(self.model)

    def _take(self, waiting: list[DecodingRow], *, block: bool) -> bool:
        """Moves new requests into `waiting`; returns False once the student is closed."""
        while block or not self._requests.empty():
            row = self._requests.get()
            if row is None:
                return False
            if row.answer.set_running_or_notify_cancel():  # from here on its caller can no longer cancel it
                waiting.append(row)
            block = block and not waiting
        return True

    def _decoder(self) -> Decoder:
        from socratune.inference.decoding.growing import GrowingDecoder
        from socratune.inference.decoding.slots import SlotDecoder, slot_bytes
        from socratune.inference.decoding.whole import WholeDecoder

        pad_id = self.tokenizer.pad_token_id or 0
        if hasattr(self.model, "for_inference"):  # Unsloth's
            return WholeDecoder(self.model, pad_id=pad_id, end_ids=self._end_ids, max_batch=self._max_batch)
        if self._slots and (cost := slot_bytes(self.model)):
            return SlotDecoder(self.model, pad_id=pad_id, max_batch=self._max_batch, position_bytes=cost)
        return GrowingDecoder(self.model, pad_id=pad_id, max_batch=self._max_batch)

    def _read(self, tokens: list[tuple[DecodingRow, list[int]]]) -> None:
        """Appends new tokens to their rows, and answers the rows that end with them."""
        for row, new_ids in tokens:
            for token in new_ids:
                if row.done:
                    break
                row.new_ids.append(token)
                if token not in self._end_ids and row.tell(len(row.new_ids) - self._held_back):
                    self._answer(row, "told")
                elif token in self._end_ids or len(row.new_ids) >= row.sampling.max_new_tokens:
                    self._answer(row, "end" if token in self._end_ids else "length")
                elif self._next_turn is not None and self._next_turn.search(self._text(row.new_ids[-_TURN_TOKENS:])):
                    self._answer(row, "end", self._next_turn)
                elif self._ends_loops and len(row.new_ids) % LOOKED_EVERY == 0 and loops(row.new_ids):
                    self._answer(row, "loop")

    def _answer(self, row: DecodingRow, stop: Stop, before: re.Pattern[str] | None = None) -> None:
        """Answers the row, with what comes before the words `before` if it ends with them."""
        ids = row.new_ids[:-1] if stop == "end" and before is None else row.new_ids
        text, own = self._text(ids), tuple(ids)
        if before is not None:
            text = before.split(text, 1)[0].strip()
            sizes = (size for size in range(len(ids)) if self._text(ids[:size]).strip() == text)
            own = next((own[:size] for size in sizes), None)  # None: a token holds the end of one turn and the next
        if stop != "told":
            row.tell(len(own or ()))
        row.done = True
        row.answer.set_result(Completion(text.strip(), stop, len(row.ids), len(row.new_ids), own))

    def _text(self, ids: list[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=False)


def _end_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """Returns every id that ends a turn: the template's, the tokenizer's, the generation config's."""
    configured = model.generation_config.eos_token_id
    ids = configured if isinstance(configured, list) else [configured]
    return frozenset(token for token in [*ids, tokenizer.eos_token_id, end_of_turn_id(tokenizer)] if token is not None)


@contextmanager
def serving_student(student: LocalStudent) -> Iterator[LocalStudent]:
    """Yields the student and closes it when the block ends."""
    try:
        yield student
    finally:
        student.close()


# --- models by name ------------------------------------------------------------------------------------------------


class LocalModels:
    """Loads a model at its first use, and the same weights only once, by whatever name.

    A context manager, whose end stops the worker threads. Student and judge of the same weights are answered in one
    batch, by the same thread.

    Attributes:
        load_in_4bit: for all models, so that judge and student can be one.
    """

    def __init__(self, *, load_in_4bit: bool | str = "auto") -> None:
        self.load_in_4bit = load_in_4bit
        self._loaded: dict[str, LocalStudent] = {}

    def load(self, name: str, *, adapter: Path | None = None) -> LocalStudent:
        """Returns the model at a folder, Hub id or `demo`. Takes as long as reading the weights.

        Args:
            adapter: a LoRA adapter to apply; with it, the weights are loaded once more.

        Raises:
            UserError: there is no such model, or it cannot chat.
        """
        from socratune.inference.load import load_model

        weights = weights_fingerprint(model_location(name))
        if (template := given_template(name)) is not None:
            weights += f"-{fingerprint(template)}"
        if adapter is not None:
            weights += f"-{weights_fingerprint(str(adapter))}"
        if weights not in self._loaded:
            model, tokenizer = load_model(name, adapter=adapter, load_in_4bit=self.load_in_4bit)
            four_bit = getattr(model, "is_loaded_in_4bit", False)
            mark = f"{weights}-4bit" if four_bit else weights
            self._loaded[weights] = LocalStudent(model, tokenizer, name=name, fingerprint=mark)
        return self._loaded[weights]

    def close(self) -> None:
        """Stops the workers and releases the weights."""
        while self._loaded:
            _, model = self._loaded.popitem()
            model.close()

    def __enter__(self) -> LocalModels:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
