"""Training text against the chat templates of real models.

The templates come out of the installed `trl` package (a test dependency; none is copied here), on the embedded byte-BPE
with the special tokens that each of them names. So this shows what a template does with our rows; it cannot show what a
vendor's own tokenizer does with a text.
"""

from __future__ import annotations

import copy
import importlib.util
import random
import re
import string
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from conftest import demo_rows
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from socratune.inference.controls import controls_of, encoded_ids
from socratune.inference.template import IGNORE, end_of_turn_id, prompt_ids, prompt_text, render
from socratune.llm.locate import model_location
from socratune.rows import Example, Piece
from socratune.training.labels import label_faults

FOUND = importlib.util.find_spec("trl")
if FOUND is None or FOUND.origin is None:
    pytest.skip("the package trl, which brings the templates, is not installed", allow_module_level=True)
FOLDER = Path(FOUND.origin).parent / "chat_templates"

BOS = {"llama3": "<|begin_of_text|>", "llama3_1": "<|begin_of_text|>", "llama3_2": "<|begin_of_text|>",
       "gemma": "<bos>", "gemma3": "<bos>", "deepseek_r1_distill": "<｜begin▁of▁sentence｜>"}  # fmt: skip
EOS = {"phi3": "<|endoftext|>", "phi3_5": "<|endoftext|>", "deepseek_r1_distill": "<｜end▁of▁sentence｜>"}
PLAIN = ("llama3", "llama3_1", "llama3_2", "qwen2_5", "qwen3_instruct_2507", "phi3", "phi3_5", "gemma", "gemma3",
         "cohere", "lfm2", "qwen3_vl")  # fmt: skip
THINKING = ("qwen3", "qwen3_5_think", "qwen3_6", "deepseek_r1_distill")
CHANNELS = ("gptoss",)
TURN_ENDS = {"gptoss": "<|return|>", "gemma": "<end_of_turn>", "gemma3": "<end_of_turn>",
             "cohere": "<|END_OF_TURN_TOKEN|>", "phi3": "<|end|>", "phi3_5": "<|end|>",
             "deepseek_r1_distill": "<｜end▁of▁sentence｜>",
             "llama3": "<|eot_id|>", "llama3_1": "<|eot_id|>", "llama3_2": "<|eot_id|>"}  # fmt: skip

USER = {"role": "user", "content": "How much is 3 * 4?"}
SYSTEM = {"role": "system", "content": "Be brief."}
EARLIER = [USER, {"role": "assistant", "content": "It is twelve."}, {"role": "user", "content": "And 3 * 5?"}]
SHAPES = (("user",), ("system", "user"), ("user", "assistant", "user"), ("system", "user", "assistant", "user"))
ANSWER = "3 * 4 is 12.\n\nSo 12."
THOUGHT = "<think>\nThree fours.\n</think>\n\nIt is 12."
SPECIAL = re.compile(r"<\|[^|<>\s]{1,40}\|>|<｜[^｜<>]{1,40}｜>|<(?:start|end)_of_turn>|<bos>|<eos>|</?s>")


@lru_cache
def tokenizer_of(name: str, *, thinking: bool = True) -> Any:
    from transformers import AutoTokenizer

    found = AutoTokenizer.from_pretrained(model_location("demo"))
    template = (FOLDER / f"{name}.jinja").read_text("utf-8")
    found.chat_template = template if thinking else "{% set enable_thinking = false %}" + template
    found.add_special_tokens({"additional_special_tokens": sorted(set(SPECIAL.findall(template)))})
    for attribute, names in (("bos_token", BOS), ("eos_token", EOS)):
        if name in names:
            setattr(found, attribute, names[name])
    return found


def rendered(tokenizer: Any, prompt: list[dict[str, str]], piece: Piece) -> Any:
    example = Example("row", prompt, (piece,), "solved_first_try")
    row = render(tokenizer, example)
    assert list(label_faults(tokenizer, example, row, 4096)) == []
    return row


def sampled(tokenizer: Any, text: str) -> Piece:
    return Piece(text, token_ids=tuple(tokenizer(text, add_special_tokens=False)["input_ids"]))


@pytest.mark.parametrize("name", (*PLAIN, *CHANNELS, *THINKING))
@pytest.mark.parametrize("prompt", [[USER], [SYSTEM, USER], EARLIER], ids=["plain", "system", "turns"])
def test_an_answer_known_as_text_stands_where_the_template_puts_it(name: str, prompt: list[dict[str, str]]) -> None:
    tokenizer = tokenizer_of(name)
    row = rendered(tokenizer, prompt, Piece(ANSWER))
    asked = prompt
    if name == "gemma" and prompt[0] is SYSTEM:  # refuses a system turn
        asked = [{"role": "user", "content": f"{SYSTEM['content']}\n\n{USER['content']}"}]
    whole = tokenizer.apply_chat_template([*asked, {"role": "assistant", "content": ANSWER}], tokenize=False)
    ours = tokenizer.decode(row.ids)
    if name == "deepseek_r1_distill":  # its prompt opens a think block that its template writes into no answer
        ours = ours.replace("<think>\n\n</think>\n\n", "")
    assert whole.startswith(ours)
    rest = whole[len(ours) :].strip()
    assert rest in ("", tokenizer.eos_token)  # Phi closes the whole text once more
    assert tokenizer.decode(row.trained_ids[:-1]) == ANSWER
    assert row.trained_ids[-1] == end_of_turn_id(tokenizer)
    assert tokenizer.decode(row.trained_ids[-1:]) == TURN_ENDS.get(name, "<|im_end|>")


@pytest.mark.parametrize("name", (*PLAIN, *CHANNELS, *THINKING))
@pytest.mark.parametrize("prompt", [[USER], [SYSTEM, USER], EARLIER], ids=["plain", "system", "turns"])
def test_a_sampled_answer_is_trained_as_it_was_sampled_behind_what_the_student_saw(
    name: str, prompt: list[dict[str, str]]
) -> None:
    tokenizer = tokenizer_of(name)
    opened = tokenizer.decode(prompt_ids(tokenizer, prompt)).rstrip().endswith("<think>")
    thought = THOUGHT.removeprefix("<think>\n") if opened else THOUGHT
    piece = sampled(tokenizer, thought if name in THINKING else ANSWER)
    row = rendered(tokenizer, prompt, piece)
    seen = prompt_ids(tokenizer, prompt)
    assert row.ids == [*seen, *(piece.token_ids or ()), end_of_turn_id(tokenizer)]
    assert row.labels[: len(seen)] == [IGNORE] * len(seen)
    assert row.labels[len(seen) :] == row.ids[len(seen) :]


OLDER = {
    "mistral": "{{ bos_token }}{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% else %}{{ ' ' + m['content'] + ' ' + eos_token }}{% endif %}{% endfor %}",
    "llama2": "{% set system = messages[0]['role'] == 'system' %}{% for m in (messages[1:] if system else messages) %}"
    "{% if loop.first and system %}"
    "{% set text = '<<SYS>>\\n' + messages[0]['content'] + '\\n<</SYS>>\\n\\n' + m['content'] %}"
    "{% else %}{% set text = m['content'] %}{% endif %}"
    "{% if m['role'] == 'user' %}{{ bos_token + '[INST] ' + text.strip() + ' [/INST]' }}"
    "{% else %}{{ ' ' + text.strip() + ' ' + eos_token }}{% endif %}{% endfor %}",
}  # fmt: skip
"""In the words of the models' own tokenizer_config.json: a blank stands before the answer, and not in the prompt."""


@lru_cache
def older(name: str, *, metaspace: bool) -> Any:
    """Their template on the embedded byte-BPE, or on one that counts a blank to the word behind it, as theirs do."""
    tokenizer = metaspace_tokenizer() if metaspace else copy.deepcopy(tokenizer_of("qwen2_5"))
    tokenizer.add_special_tokens({"bos_token": "<s>", "eos_token": "</s>"})
    tokenizer.chat_template = OLDER[name]
    return tokenizer


def metaspace_tokenizer() -> Any:
    backend = Tokenizer(models.BPE(unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    backend.decoder = decoders.Metaspace(prepend_scheme="first")
    texts = [turn["content"] for row in demo_rows("train", 200) for turn in row["messages"]] + [string.printable]
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=["<unk>"], show_progress=False)
    backend.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")


@pytest.mark.parametrize("metaspace", [False, True], ids=["bytes", "metaspace"])
@pytest.mark.parametrize("name", OLDER)
@pytest.mark.parametrize("prompt", [[USER], [SYSTEM, USER], EARLIER], ids=["plain", "system", "turns"])
def test_a_blank_before_the_answer_is_part_of_its_first_word(
    name: str, prompt: list[dict[str, str]], metaspace: bool
) -> None:
    tokenizer = older(name, metaspace=metaspace)
    row, seen = rendered(tokenizer, prompt, Piece(ANSWER)), prompt_ids(tokenizer, prompt)
    assert tokenizer.decode(seen).endswith("[/INST]") and row.ids[: len(seen)] == seen
    said = encoded_ids(tokenizer, f"{prompt_text(tokenizer, prompt)} {ANSWER}")[
        len(seen) :
    ]  # what a model samples that was trained so
    assert row.ids[len(seen) :] == row.trained_ids == [*said, tokenizer.eos_token_id]


LETTERS = string.printable + "äß€中🙂\u2028\u00a0＜｜"


def any_text(draw: random.Random, marks: list[str]) -> str:
    """Letters, blanks and control tokens in any order; it says something."""
    parts = ["".join(draw.choices(LETTERS, k=draw.randint(1, 12))), *draw.choices(marks, k=draw.randint(0, 3))]
    draw.shuffle(parts)
    return draw.choice(("", " ")).join(parts).strip() or "word"


@pytest.mark.parametrize("name", (*PLAIN, *CHANNELS, *THINKING, *OLDER))
def test_what_stands_before_a_trained_answer_is_what_the_student_is_prompted_with(name: str) -> None:
    for seed in range(40):
        draw = random.Random(f"{name}/{seed}")
        tokenizer = older(name, metaspace=seed % 2 == 0) if name in OLDER else tokenizer_of(name)
        prefix_holds(tokenizer, draw)


def prefix_holds(tokenizer: Any, draw: random.Random) -> None:
    marks = sorted(str(token) for token in tokenizer.added_tokens_decoder.values() if "think" not in str(token))
    prompt = [{"role": role, "content": any_text(draw, marks)} for role in draw.choice(SHAPES)]
    answer = any_text(draw, marks)
    sampled_ids = tuple(controls_of(tokenizer).text_ids(answer)) if draw.random() < 0.5 else None
    row = render(tokenizer, Example("row", prompt, (Piece(answer, token_ids=sampled_ids),), "solved_first_try"))
    seen = prompt_ids(tokenizer, prompt)
    assert row.ids[: len(seen)] == seen and set(row.labels[: len(seen)]) == {IGNORE}
    assert row.ids[row.prompt_length :] == row.trained_ids
    assert row.trained_ids[-1] == end_of_turn_id(tokenizer)
    controls, skeleton = controls_of(tokenizer).ids, [{**turn, "content": "word"} for turn in prompt]
    assert [token for token in seen if token in controls] == [
        token for token in prompt_ids(tokenizer, skeleton) if token in controls
    ]
    if sampled_ids:
        assert row.ids == [*seen, *sampled_ids, end_of_turn_id(tokenizer)]
    assert controls.isdisjoint(row.trained_ids[:-1])


@pytest.mark.parametrize("name", THINKING)
def test_a_thought_is_trained_and_an_empty_think_block_is_not(name: str) -> None:
    tokenizer = tokenizer_of(name)
    row = rendered(tokenizer, [USER], Piece(THOUGHT))
    text, trained = tokenizer.decode(row.ids), tokenizer.decode(row.trained_ids)
    assert text.count("<think>") == text.count("</think>") == 1
    assert "Three fours." in trained and "</think>" in trained
    plain = rendered(tokenizer, [USER], Piece(ANSWER))
    assert "think" not in tokenizer.decode(plain.trained_ids)


@pytest.mark.parametrize("name", ["qwen3", "qwen3_5_think", "qwen3_6"])
def test_with_thinking_off_the_generation_prompt_holds_the_empty_block(name: str) -> None:
    tokenizer = tokenizer_of(name, thinking=False)
    row = rendered(tokenizer, [USER], sampled(tokenizer, ANSWER))
    as_text = rendered(tokenizer, [USER], Piece(ANSWER))
    assert row == as_text  # sampled or written, behind the same empty block, which carries no loss
    assert "<think>\n\n</think>" in tokenizer.decode(row.ids[: row.prompt_length])
    assert tokenizer.decode(row.trained_ids[:-1]) == ANSWER


def test_a_template_that_refuses_a_system_turn_gets_its_words_in_the_question() -> None:
    tokenizer = tokenizer_of("gemma")
    assert "Be brief." in tokenizer.decode(prompt_ids(tokenizer, [SYSTEM, USER]))
