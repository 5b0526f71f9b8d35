"""The in-process student against transformers' own generate."""

from __future__ import annotations

import asyncio
import copy
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import demo_rows
from peft import LoraConfig, get_peft_model
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    Lfm2Config,
    Lfm2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, AttentionInterface

from socratune.config import DEMO_DATA, PLAIN_TEMPLATE
from socratune.errors import UserError
from socratune.inference.decoding import rows
from socratune.inference.decoding.fusing import Fused
from socratune.inference.decoding.rows import DecodingSettings, draw, draw_unbounded
from socratune.inference.decoding.slots import slot_bytes
from socratune.inference.student import LocalModels, LocalStudent, serving_student
from socratune.inference.template import next_turn, prompt_ids
from socratune.llm.base import Completion, Sampling

QUESTIONS = [row["messages"][:-1] for row in demo_rows("held_out", 40)]
LONG = [{"role": "user", "content": "What is 47 * 83? " * 12}]


@pytest.fixture(scope="module", params=[False, True], ids=["growing", "slots"])
def student(request: pytest.FixtureRequest, demo_base: tuple[Any, Any]) -> Iterator[LocalStudent]:
    with serving_student(
        LocalStudent(*demo_base, name="demo", fingerprint="demo", max_batch=16, slots=request.param)
    ) as one:
        yield one


SMALL: dict[str, Any] = {
    "vocab_size": 512, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "initializer_range": 0.3, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip


def small_llama(**changes: Any) -> Any:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**{**SMALL, **changes})).eval()


def ask(student: LocalStudent, chats: list[Any], **sampling: Any) -> list[Completion]:
    async def all_at_once() -> list[Completion]:
        settings = [Sampling(**{"max_new_tokens": 64, "seed": at, **sampling}) for at in range(len(chats))]
        return await asyncio.gather(*map(student.generate, chats, settings))

    return asyncio.run(all_at_once())


@pytest.mark.slow
def test_greedy_answers_are_generates(student: LocalStudent, demo_base: tuple[Any, Any]) -> None:
    model, tokenizer = demo_base
    chats = [*QUESTIONS[:10], LONG, *QUESTIONS[10:20]]  # more than a batch, of unlike lengths: rows leave and join
    for chat, completion in zip(chats, ask(student, chats, max_new_tokens=48), strict=True):
        ids = torch.tensor([prompt_ids(tokenizer, chat)])
        expected = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=48, do_sample=False)
        assert [*(completion.token_ids or ()), 2] == expected[0, ids.shape[1] :].tolist()  # 2 is <|im_end|>
        assert completion.prompt_tokens == ids.shape[1]


@pytest.mark.slow
def test_a_drawn_answer_belongs_to_its_seed_not_to_its_neighbours(student: LocalStudent) -> None:
    together = ask(student, QUESTIONS, temperature=1.5)
    alone = [
        asyncio.run(student.generate(chat, Sampling(temperature=1.5, max_new_tokens=64, seed=at)))
        for at, chat in enumerate(QUESTIONS[:6])
    ]
    assert [c.text for c in alone] == [c.text for c in together[:6]]
    assert [c.text for c in ask(student, QUESTIONS, temperature=1.5, seed=99)] != [c.text for c in together]


@pytest.mark.slow
def test_top_k_and_top_p_narrow_the_draw_to_greedy(student: LocalStudent) -> None:
    greedy = [c.text for c in ask(student, QUESTIONS[:8])]
    assert [c.text for c in ask(student, QUESTIONS[:8], temperature=2.0, top_k=1)] == greedy
    assert [c.text for c in ask(student, QUESTIONS[:8], temperature=2.0, top_p=1e-6)] == greedy
    assert [c.text for c in ask(student, QUESTIONS[:8], temperature=2.0)] != greedy


@pytest.mark.slow
def test_draws_follow_the_models_probabilities(student: LocalStudent, demo_base: tuple[Any, Any]) -> None:
    model, tokenizer = demo_base
    ids = torch.tensor([prompt_ids(tokenizer, QUESTIONS[0])])
    with torch.no_grad():
        expected = (model(ids).logits[0, -1] / 3.0).softmax(-1)
    drawn = ask(student, [QUESTIONS[0]] * 2000, temperature=3.0, max_new_tokens=1)
    counts = torch.bincount(torch.tensor([(c.token_ids or (2,))[0] for c in drawn]), minlength=len(expected))
    assert (counts / 2000 - expected).abs().max() < 0.04


def test_a_cut_off_answer_says_so(student: LocalStudent) -> None:
    completion = ask(student, QUESTIONS[:1], max_new_tokens=3)[0]
    assert (completion.stop, completion.completion_tokens) == ("length", 3)


@pytest.mark.parametrize("sampling", [{"temperature": 1.5, "top_p": 0.8}, {"temperature": 1.5, "top_k": 5}])
@pytest.mark.slow
def test_slots_draw_what_the_growing_batch_draws(demo_base: tuple[Any, Any], sampling: dict[str, Any]) -> None:
    answers = []
    for slots in (False, True):
        with serving_student(
            LocalStudent(*demo_base, name="demo", fingerprint="demo", max_batch=8, slots=slots)
        ) as student:
            answers.append([completion.token_ids for completion in ask(student, QUESTIONS[:24], **sampling)])
    assert answers[0] == answers[1]


@pytest.mark.parametrize("adapter", [False, True], ids=["plain", "adapter"])
def test_slots_share_key_heads_grow_longer_and_leave_the_model_as_it_was(
    demo_base: tuple[Any, Any], adapter: bool
) -> None:
    """Two key heads for four query heads; a long prompt that comes after short ones needs longer slots."""
    model, tokenizer = small_llama(num_key_value_heads=2), demo_base[1]
    if adapter:
        lora = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
        model = get_peft_model(model, lora).eval()
    chats = [*QUESTIONS[:6], [{"role": "user", "content": "What is 47 * 83? " * 30}], *QUESTIONS[6:9]]
    inputs = [torch.tensor([prompt_ids(tokenizer, chat)]) for chat in chats]
    expected = [
        model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=20, do_sample=False)
        for ids in inputs
    ]
    with torch.no_grad():
        before = model(inputs[0]).logits
    with serving_student(
        LocalStudent(model, tokenizer, name="small", fingerprint="s", max_batch=4, slots=True)
    ) as student:
        assert slot_bytes(model) > 0
        completions = [*ask(student, chats[:6], max_new_tokens=20), *ask(student, chats[6:], max_new_tokens=20)]
    for ids, completion, answer in zip(inputs, completions, expected, strict=True):
        got = list(completion.token_ids or ())
        assert got == answer[0, ids.shape[1] :].tolist()[: len(got)]
        assert completion.stop == "end" or len(got) == 20
    with torch.no_grad():
        assert torch.equal(model(inputs[0]).logits, before)
    assert model.config._attn_implementation == "sdpa"


def window_model(kind: str) -> Any:
    """Of a window of 8 tokens: in every layer, in every other one, or with a state in the place of some attention."""
    torch.manual_seed(0)
    if kind == "every layer":
        return MistralForCausalLM(MistralConfig(**SMALL, sliding_window=8)).eval()
    if kind == "some layers":
        types = ["sliding_attention", "full_attention", "sliding_attention"]
        shape: dict[str, Any] = {**SMALL, "num_hidden_layers": 3, "head_dim": 16}
        return Gemma3ForCausalLM(Gemma3TextConfig(**shape, layer_types=types, sliding_window=8)).eval()
    return Lfm2ForCausalLM(Lfm2Config(**SMALL, layer_types=["conv", "full_attention"])).eval()


@pytest.mark.parametrize("slots", [False, True], ids=["growing", "slots"])
@pytest.mark.parametrize("kind", ["every layer", "some layers", "none: a state"])
def test_models_that_forget_far_tokens_answer_as_generate_does(
    demo_base: tuple[Any, Any], kind: str, slots: bool
) -> None:
    tokenizer, model = demo_base[1], window_model(kind)
    assert (slot_bytes(model) > 0) == ("layer" in kind)
    chats = [*QUESTIONS[:5], LONG, *QUESTIONS[5:9]]
    with serving_student(
        LocalStudent(model, tokenizer, name="m", fingerprint="m", slots=slots, max_batch=4)
    ) as student:
        completions = ask(student, chats, max_new_tokens=12)
    for chat, completion in zip(chats, completions, strict=True):
        ids = torch.tensor([prompt_ids(tokenizer, chat)])
        expected = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False)
        got = list(completion.token_ids or ())
        assert got == expected[0, ids.shape[1] :].tolist()[: len(got)] and got


def test_slots_refuse_an_attention_of_another_kind(demo_base: tuple[Any, Any]) -> None:
    """Nothing in the model's configuration tells it; its logits do."""
    sdpa = ALL_ATTENTION_FUNCTIONS["sdpa"]
    AttentionInterface.register("contrary", lambda module, q, k, v, mask, **kw: sdpa(module, q, k, -v, mask, **kw))
    model = small_llama()
    assert slot_bytes(model) > 0
    model.config._attn_implementation = "contrary"
    ids = torch.tensor([prompt_ids(demo_base[1], QUESTIONS[0])])
    with torch.no_grad():
        before = model(ids).logits
        assert slot_bytes(model) == 0
        assert torch.equal(model(ids).logits, before)


WORDS_BEGIN_A_TURN = """{% for message in messages %}{% if message['role'] == 'user' and not loop.first %}\
{{ opening + message['content'] }}{% else %}<|im_start|>{{ message['role'] + '\n' + message['content'] }}<|im_end|>\
{% if message['role'] != 'assistant' %}{{ '\n' }}{% endif %}{% endif %}{% endfor %}\
{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""


def test_an_answer_ends_before_the_words_that_begin_the_next_turn(demo_base: tuple[Any, Any]) -> None:
    """As a model that was trained on no template goes on with the user's turn."""
    model, tokenizer = demo_base[0], copy.deepcopy(demo_base[1])

    heard: list[int] = []

    def answer(opening: str) -> Completion:
        heard.clear()
        tokenizer.chat_template = WORDS_BEGIN_A_TURN.replace("opening", repr(opening))
        question, greedy = [{"role": "user", "content": "What is 85 * 99?"}], Sampling(0.0, max_new_tokens=64)
        with serving_student(LocalStudent(model, tokenizer, name="it", fingerprint=opening)) as student:
            return asyncio.run(student.generate(question, greedy, heard.append))

    whole = answer("then ")
    assert whole.text == "85 * 90 = 7650, and 85 * 9 = 765, so 7650 + 765 = 8415."
    assert whole.token_ids == tuple(heard)
    cut = answer(", so ")
    assert (cut.text, cut.stop) == ("85 * 90 = 7650, and 85 * 9 = 765", "end")
    assert cut.token_ids == tuple(heard) == (whole.token_ids or ())[: len(heard)] and heard
    inside = answer("nd ")  # of the one token " and"
    assert (inside.text, inside.token_ids) == ("85 * 90 = 7650, a", None), "what is trained is encoded anew then"


def test_plain_ends_an_answer_where_the_user_would_speak(tokenizer: Any) -> None:
    assert next_turn(tokenizer) is None, "it has control tokens for that"
    words = copy.deepcopy(tokenizer)
    words.chat_template = PLAIN_TEMPLATE
    pattern = next_turn(words)
    assert pattern is not None and pattern.split("Seven.\n\nUser: And", 1)[0] == "Seven."
    assert not pattern.search("A User: of it"), "only where a line begins with it"


@pytest.mark.parametrize("uniform", [0.001, 0.3, 0.9, 0.999])
def test_the_likeliest_tokens_draw_as_all_do(monkeypatch: pytest.MonkeyPatch, uniform: float) -> None:
    torch.manual_seed(0)
    settings = DecodingSettings(
        temperature=torch.tensor([0.7, 1.0, 1.0, 1.0]),
        top_k=torch.tensor([0, 50, 0, 0]),
        top_p=torch.tensor([0.9, 1.0, 0.95, 1.0]),
        uniform=torch.full((4,), uniform),
    )
    for spread in (4, 1):  # the likeliest hold 0.9 of the one, not of the other
        logits = torch.randn(4, 8000) * spread
        some = draw(logits, settings).tolist()
        monkeypatch.setattr(rows, "ROUNDING", 2.0)  # none are enough then
        monkeypatch.setattr(rows, "HEAD", 1)
        assert some == draw(logits, settings).tolist()
        monkeypatch.undo()
        assert some == [draw(logits[at : at + 1], settings.of(torch.tensor(at).view(1))).item() for at in range(4)]


def test_without_bounds_a_draw_inverts_the_distribution_in_the_order_of_the_vocabulary() -> None:
    torch.manual_seed(0)
    logits = torch.randn(1, 5000) * 3  # five blocks, the last one not full
    expected = (logits.double() / 0.7).softmax(-1)[0].cumsum(-1)
    uniforms = torch.linspace(0, 1, 999)[1:-1]
    count = len(uniforms)
    settings = DecodingSettings(torch.full((count,), 0.7), torch.zeros(count), torch.zeros(count), uniforms)
    drawn = draw_unbounded(logits.expand(count, -1), settings)
    upper, lower = expected[drawn], torch.cat([torch.zeros(1), expected])[drawn]
    assert ((lower - 1e-5 <= uniforms) & (uniforms <= upper + 1e-5)).all()
    assert len(set(drawn.tolist())) > 40


def test_without_bounds_no_token_is_drawn_that_has_no_probability() -> None:
    logits = torch.full((3, 3000), -1e9)
    logits[:, 1500] = 5.0
    uniform = torch.tensor([0.0, 0.5, 1 - 2**-24])
    settings = DecodingSettings(torch.ones(3), torch.zeros(3), torch.zeros(3), uniform)
    assert draw_unbounded(logits, settings).tolist() == [1500] * 3


def test_where_the_likeliest_hold_what_is_drawn_from_a_cut_changes_nothing() -> None:
    torch.manual_seed(0)
    top_k, top_p = torch.tensor([20, 0]), torch.tensor([0.8, 0.7])
    settings = DecodingSettings(torch.full((2,), 0.7), top_k, top_p, torch.tensor([0.4, 0.9]))
    logits = torch.randn(2, 8000) * 4
    assert draw(logits, settings, cut=True).tolist() == draw(logits, settings).tolist()
    wide = DecodingSettings(torch.full((2,), 9.0), torch.zeros(2), torch.full((2,), 0.99), torch.full((2,), 0.999))
    likeliest = logits.topk(500).indices
    assert all(token in row for token, row in zip(draw(logits, wide, cut=True), likeliest, strict=True))


def test_what_is_fused_is_the_models_own_again_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_llama()
    norm, home = model.model.norm, sys.modules[type(model.model.layers[0].self_attn).__module__]
    own = home.apply_rotary_pos_emb
    fused = Fused(model)
    fused._norms.append((norm, lambda states: states))
    fused._rotations.append((home, own, len))
    with pytest.raises(RuntimeError), fused.inside():
        assert norm.forward(1) == 1 and home.apply_rotary_pos_emb is len
        raise RuntimeError
    assert "forward" not in vars(norm) and home.apply_rotary_pos_emb is own


class BringsItsOwnWay:
    """As Unsloth's models do."""

    def __init__(self, model: Any) -> None:
        self.device, self.config, self.generation_config = model.device, model.config, model.generation_config
        self.generate = model.generate
        self.batches: list[int] = []

    def for_inference(self) -> None: ...


@pytest.mark.slow
def test_a_model_that_brings_its_own_way_of_answering_is_left_to_it(
    demo_base: tuple[Any, Any], student: LocalStudent
) -> None:
    before = torch.get_rng_state()
    with serving_student(LocalStudent(BringsItsOwnWay(demo_base[0]), demo_base[1], name="own", fingerprint="f")) as own:
        chats = [*QUESTIONS[:9], LONG]
        assert [each.text for each in ask(own, chats)] == [each.text for each in ask(student, chats)]
        drawn = ask(own, chats, temperature=1.2, top_p=0.9)
    assert len({each.text for each in drawn}) > 1
    assert torch.equal(before, torch.get_rng_state()), "the training's random numbers are its own"


def test_a_failing_model_fails_its_callers_and_not_the_next_ones(demo_base: tuple[Any, Any]) -> None:
    model, tokenizer = demo_base

    class Flaky:
        device, config, generation_config = model.device, model.config, model.generation_config
        broken = True

        def __call__(self, **inputs: Any) -> Any:
            if self.broken:
                raise RuntimeError("out of memory")
            return model(**inputs)

    flaky = Flaky()
    with serving_student(LocalStudent(flaky, tokenizer, name="flaky", fingerprint="f")) as student:
        with pytest.raises(RuntimeError, match="out of memory"):
            ask(student, QUESTIONS[:3])
        flaky.broken = False
        assert ask(student, QUESTIONS[:1])[0].stop == "end"


def test_a_caller_that_gives_up_is_not_answered_and_the_others_are(demo_base: tuple[Any, Any]) -> None:
    begun, go_on = threading.Event(), threading.Event()

    @contextmanager
    def held() -> Iterator[None]:
        begun.set()
        go_on.wait()
        yield

    async def asks(student: LocalStudent) -> list[Any]:
        def asked(at: int) -> asyncio.Task[Completion]:
            return asyncio.create_task(student.generate(QUESTIONS[at], Sampling(max_new_tokens=8)))

        taken = asked(0)
        await asyncio.to_thread(begun.wait)
        waiting, kept = asked(1), asked(2)
        await asyncio.sleep(0)
        taken.cancel()
        waiting.cancel()
        await asyncio.sleep(0)
        go_on.set()
        return list(await asyncio.gather(taken, waiting, kept, return_exceptions=True))

    with serving_student(LocalStudent(*demo_base, name="demo", fingerprint="demo", turn=held)) as student:
        *given_up, answer = asyncio.run(asks(student))
    assert all(isinstance(one, asyncio.CancelledError) for one in given_up)
    assert answer.completion_tokens > 0


def test_sampling_comes_from_what_was_asked_then_from_the_model(student: LocalStudent) -> None:
    own = student.sampling(temperature=None, top_p=None, max_new_tokens=9)
    assert (own.temperature, own.max_new_tokens) == (0.0, 9)  # the embedded model's generation_config is greedy
    asked = student.sampling(temperature=0.5, top_p=0.9, max_new_tokens=9)
    assert (asked.temperature, asked.top_p) == (0.5, 0.9)
    assert not student.thinking


def test_thoughts_stay_in_the_answer(demo_base: tuple[Any, Any]) -> None:
    """A template that opens the block, as those of thinking models do; the sampled ids are what is trained on."""
    model, tokenizer = demo_base
    thinker = copy.deepcopy(tokenizer)
    thinker.chat_template += "{% if add_generation_prompt %}<think>\n{% endif %}"
    said = iter(thinker("So 6.</think>\n\nIt is 6.<|im_end|>", add_special_tokens=False)["input_ids"])

    class Scripted:
        device, config, generation_config = model.device, model.config, model.generation_config

        def __call__(self, **inputs: Any) -> Any:
            out = model(**inputs)
            out.logits[:, -1, next(said)] = 1e9
            return out

    with serving_student(LocalStudent(Scripted(), thinker, name="thinker", fingerprint="t")) as student:
        assert student.thinking
        assert student.sampling(temperature=None, top_p=None, max_new_tokens=9).temperature == 0.6
        completion = ask(student, QUESTIONS[:1])[0]
    assert (completion.text, completion.stop) == ("So 6.</think>\n\nIt is 6.", "end")


def test_the_same_weights_are_loaded_once_and_all_workers_end(tmp_path: Path) -> None:
    shutil.copytree(DEMO_DATA / "base", tmp_path / "copy")
    shutil.copytree(DEMO_DATA / "base", tmp_path / "other")
    (tmp_path / "other" / "generation_config.json").write_text('{"do_sample": true, "eos_token_id": 2}')

    def workers() -> set[threading.Thread]:
        return {thread for thread in threading.enumerate() if thread.name == "student"}

    before = workers()
    with LocalModels() as models:
        student, judge, other = (models.load(name) for name in ("demo", f"{tmp_path}/copy", f"{tmp_path}/other"))
        assert student is judge and other is not student
        assert student.fingerprint != other.fingerprint
        assert len(workers() - before) == 2
        assert ask(student, QUESTIONS[:2])[0].text == ask(other, QUESTIONS[:2])[0].text
    assert workers() <= before


def test_an_answer_ends_where_the_positions_do(demo_base: tuple[Any, Any]) -> None:
    model, tokenizer = demo_base
    positions = model.config.max_position_embeddings
    with serving_student(LocalStudent(model, tokenizer, name="demo", fingerprint="demo")) as student:
        for words in (positions * 2, 160):
            asked = [{"role": "user", "content": "one " * words}]
            length = len(prompt_ids(tokenizer, asked))
            found = asyncio.run(student.generate(asked, Sampling(max_new_tokens=4 * positions)))
            assert length + found.completion_tokens <= max(positions, length)
            assert (found.text, found.stop) == ("", "length") if length >= positions else found.completion_tokens


def test_a_model_that_is_none_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with LocalModels() as models, pytest.raises(UserError, match=str(tmp_path)):
        models.load(str(tmp_path))
