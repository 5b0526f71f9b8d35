"""The laboratory's side-by-side engine computes what transformers and PEFT compute."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import asking
import many
import model as lab_model
import pytest
import torch
from torch.nn import functional

VOCABULARY, END = 96, 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base of the laboratory's shape with random weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.set_num_threads(1)  # the products are too small to share
    torch.manual_seed(0)
    made = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY, hidden_size=lab_model.WIDTH, intermediate_size=lab_model.HIDDEN,
            num_hidden_layers=lab_model.LAYERS, num_attention_heads=lab_model.HEADS, tie_word_embeddings=True,
            rms_norm_eps=lab_model.EPSILON, initializer_range=0.08, bos_token_id=None, eos_token_id=END,
        )
    )  # fmt: skip
    path = tmp_path_factory.mktemp("base")
    made.save_pretrained(path)
    return path


def drawn(rng: random.Random, low: int, high: int) -> list[int]:
    return [rng.randrange(3, VOCABULARY) for _ in range(rng.randint(low, high))]


def documents(seed: int, count: int) -> list[Any]:
    rng = random.Random(seed)
    made = [(drawn(rng, 3, 30), drawn(rng, 2, 9)) for _ in range(count)]
    return [(prompt + answer, [0] * len(prompt) + [1] * len(answer)) for prompt, answer in made]


@pytest.mark.slow
def test_greedy_answers_are_those_of_generate(folder: Path) -> None:
    from transformers import LlamaForCausalLM

    rng = random.Random(1)
    prompts = [drawn(rng, 2, 40) for _ in range(7)]
    theirs: Any = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    expected = []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        out = theirs.generate(ids, max_new_tokens=30, do_sample=False, eos_token_id=END, pad_token_id=0)[
            0, len(prompt) :
        ]
        expected.append([token for token in out.tolist() if token != END])
    base = asking.Base.load(folder, "cpu")
    found = asking.ask(asking.Merged.bare(base), prompts, 1, asking.Manner(0.0, END, most=30, at_once=3))
    assert [answers[0] for answers in found[0]] == expected
    assert len({len(answer) for answer in expected}) > 1  # some ended before the others


@pytest.mark.slow
def test_drawn_answers_have_the_models_own_frequencies(folder: Path) -> None:
    base = asking.Base.load(folder, "cpu")
    prompt, samples = [5, 6, 7], 3000
    answers = asking.ask(asking.Merged.bare(base), [prompt], samples, asking.Manner(0.8, END, most=1, at_once=samples))[
        0
    ][0]
    states = many.hidden(
        base, many.Packed.of([[(prompt, [0, 0, 0])]], base.device), lambda x, name: x @ base.matrix(name).mT,
        many.by_document,
    )  # fmt: skip
    expected = (functional.linear(states[0, 2], base.embedding) / 0.8).softmax(-1)
    counts = torch.zeros(VOCABULARY)
    for answer in answers:
        counts[answer[0] if answer else END] += 1
    likely = expected.topk(3).indices
    spread = 4 * (expected * (1 - expected) / samples).sqrt()
    assert ((counts / samples - expected).abs() < spread + 1e-3)[likely].all()


@pytest.mark.slow
def test_adapters_trained_side_by_side_are_those_of_peft(folder: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaForCausalLM

    base = asking.Base.load(folder, "cpu")
    tasks = [
        many.Task(documents(1, 10), 2e-3, steps=2, seed=1, rank=16),
        many.Task(documents(2, 20), 1e-3, steps=3, seed=2, rank=4),
    ]
    adapters = many.train(base, tasks)
    begun = many.Adapters.fresh(base, [1, 2], [16, 4])
    for group, task in enumerate(tasks):
        model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
        config = LoraConfig(r=task.rank, lora_alpha=many.ALPHA, target_modules=list(asking.MATRICES), bias="none")
        tuned: Any = get_peft_model(model, config)
        weights = {}
        for layer, matrix in asking.names():
            block = tuned.base_model.model.model.layers[layer]
            module = getattr(block.self_attn if matrix[0] in "qkvo" else block.mlp, matrix)
            a, b = module.lora_A.default.weight, module.lora_B.default.weight
            a.data.copy_(begun.a[layer, matrix][group, : task.rank])
            weights[layer, matrix] = (a, b)
        trained = [part for pair in weights.values() for part in pair]
        optimizer = torch.optim.AdamW(trained, weight_decay=0.0)
        for step, batch in enumerate(task.batches()):
            total = torch.zeros(())
            count = sum(sum(marks) for _, marks in batch)
            for ids, marks in batch:
                logits = tuned(input_ids=torch.tensor([ids])).logits[0, :-1]
                loss = functional.cross_entropy(logits, torch.tensor(ids[1:]), reduction="none")
                total = total + (loss * torch.tensor(marks[1:])).sum() / count
            total.backward()
            torch.nn.utils.clip_grad_norm_(trained, many.CLIP)
            optimizer.param_groups[0]["lr"] = task.rate(step)
            optimizer.step()
            optimizer.zero_grad()
        for name, (a, b) in weights.items():
            # where a gradient is rounding alone, AdamW moves by its sign: so what they do is compared, not every number
            found, expected = adapters.b[name][group] @ adapters.a[name][group], b @ a
            assert (found - expected).norm() < 0.01 * expected.norm(), name
            assert not adapters.a[name][group, task.rank :].any()


@pytest.mark.slow
def test_an_adapter_changes_the_answers_of_its_own_model_only(folder: Path) -> None:
    base = asking.Base.load(folder, "cpu")
    taught = [([5, 6, 7, 9, 9, 9, END], [0, 0, 0, 1, 1, 1, 1])] * 4
    adapters = many.train(base, [many.Task(taught, 5e-3, steps=12), many.Task(taught, 0.0, steps=12, seed=3)])
    manner = asking.Manner(0.0, END, most=6)
    both = asking.ask(adapters.merged(base), [[5, 6, 7], [8, 4]], 1, manner)
    alone = asking.ask(asking.Merged.bare(base), [[5, 6, 7], [8, 4]], 1, manner)
    assert both[0][0][0] == [9, 9, 9]
    assert both[1] == alone[0] and both[1] != both[0]


def test_log_probabilities_are_those_of_the_loss(folder: Path) -> None:
    base = asking.Base.load(folder, "cpu")
    rows = documents(4, 5)
    found = many.log_probabilities(base, rows, at_once=2)
    packed = many.Packed.of([rows], base.device)
    mean = many.losses(base, packed, lambda x, name: x @ base.matrix(name).mT, many.by_document)[0]
    flat = [each for row in found for each in row]
    assert [len(row) for row in found] == [sum(marks) for _, marks in rows]
    assert abs(sum(flat) / len(flat) + float(mean)) < 1e-4
