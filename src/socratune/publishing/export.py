"""export: the adapter in a form that other programs load, each checked against the adapter's own answers.

    merged   16-bit safetensors, loaded like any model
    gguf     one file for llama.cpp, by llama.cpp's own converter
    ollama   a Modelfile over one of the two
    vllm     the adapter beside its base, with the command that serves it

The folder appears whole and checked, or not at all.
"""

from __future__ import annotations

import json
import logging
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from socratune.config import RunConfig
from socratune.errors import Fault, OutsideError, Shown, StageFailed, UserError
from socratune.evaluation import file_integrity, proof_of
from socratune.llm import model_fault, model_json, model_location
from socratune.publishing.export_parity import parity
from socratune.publishing.modelfile import modelfile
from socratune.rows import QARow
from socratune.runs import Results, RunDir, export_place, read_rows, system_turn, whole_folder, write_json, write_text

log = logging.getLogger(__name__)

VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What `vllm serve --max-lora-rank` takes."""

CONVERTER = "convert_hf_to_gguf.py"


@dataclass(slots=True)
class ExportJob:
    """One export.

    Attributes:
        folder: where it is built; becomes `place` when all is done.
        converter: llama.cpp's script; None where it is not needed or not there.
        rows: held-out questions of the parity check.
        checked: the figures for `parity.json`.
    """

    run: RunDir
    config: RunConfig
    folder: Path
    place: Path
    converter: Path | None
    rows: list[QARow]
    min_agreement: float
    checked: dict[str, Any] = field(default_factory=dict)


def export_adapter(
    run: RunDir,
    config: RunConfig,
    to: str,
    *,
    out: str | None = None,
    llama_cpp: str | None = None,
    prompts: int = 32,
    min_agreement: float = 0.9,
) -> str:
    """Writes the export and its `parity.json` to `out` (by default `RUN/export/FORMAT`) and returns how to use it.

    Args:
        to: `merged`, `gguf`, `ollama` or `vllm`.
        llama_cpp: llama.cpp's folder; without it, what LLAMA_CPP names.
        min_agreement: share of the prompts on which adapter and export have to answer alike.

    Raises:
        UserError: no such format, no adapter, something else at `out`, or llama.cpp is needed and missing.
        StageFailed: the adapter's files are not whole, or the export answers otherwise than the adapter;
            `OUT.parity.json` has the figures.
        OutsideError: the converter failed.
    """
    if to not in FORMATS:
        raise UserError(Fault("--to", f"one of {', '.join(FORMATS)}", to))
    if not (run.adapter / "adapter_config.json").is_file():
        raise UserError(Fault(str(run.adapter), "a LoRA adapter", Shown("none"), f"First: socratune train {run.root}"))
    converter = find_converter(llama_cpp, needed=to == "gguf")
    place = export_place(run, to, out, "parity.json")
    held_out = read_rows(run.rows("held_out"), QARow.from_json)
    if not held_out:
        raise UserError(Fault(str(run.rows("held_out")), "questions to check the export with", Shown("an empty file")))
    if fault := model_fault(config.model, "model"):
        raise UserError(fault)
    files = file_integrity(run.adapter, config.model)
    if not files["passed"]:
        raise StageFailed(f"Not exported: the adapter's files failed their check: {'; '.join(files['problems'])}.")
    if doubt := _doubt(run, files["sha256"]):
        log.warning("This adapter is not proven better than its base: %s.", doubt)
    with whole_folder(place) as folder:
        rows = held_out[:: max(1, len(held_out) // prompts)][:prompts]
        job = ExportJob(run, config, folder, place, converter, rows, min_agreement)
        said = FORMATS[to](job)
        write_json(folder / "parity.json", job.checked)
        shutil.rmtree(place, ignore_errors=True)
    return said


def _doubt(run: RunDir, files: dict[str, str]) -> str | None:
    """Returns why nothing is proven about these files, which are told apart by sha256, or None if they passed."""
    proof = proof_of(Results(run).data)
    if proof is None:
        return "it has not been validated"
    if proof.files != files:
        return "it was changed after it was validated"
    return None if proof.passed else "its validation failed"


def _merged(job: ExportJob) -> str:
    _merge(job, job.folder)
    _check(job, job.folder)
    return f"{_agreed(job)}\nLoad it: AutoModelForCausalLM.from_pretrained({json.dumps(str(job.place))})"


def _gguf(job: ExportJob) -> str:
    _merge(job, job.folder / "merged")
    _as_gguf(job, job.folder / "merged")
    return f"{_agreed(job)}\nRun it: llama-cli -m {shlex.quote(str(job.place / 'model.gguf'))}"


def _ollama(job: ExportJob) -> str:
    from transformers import AutoTokenizer

    _merge(job, job.folder / "model")
    if job.converter is None:
        _check(job, job.folder / "model")
    else:
        _as_gguf(job, job.folder / "model")
    text = modelfile(
        AutoTokenizer.from_pretrained(job.run.adapter),
        "./model" if job.converter is None else "./model.gguf",
        system=system_turn(job.run),
        sampling=model_json(job.config.model, "generation_config.json"),
    )
    write_text(job.folder / "Modelfile", text)
    job.checked.setdefault("not_run", "Ollama: the figures are of the weights that it is given")
    file = shlex.quote(str(job.place / "Modelfile"))
    return f"{_agreed(job)} Ollama itself was not run here.\nMake it: ollama create NAME -f {file}"


def _vllm(job: ExportJob) -> str:
    adapter = json.loads((job.run.adapter / "adapter_config.json").read_text("utf-8"))
    if reason := _not_served(adapter):
        _merge(job, job.folder / "model")
        _check(job, job.folder / "model")
        command = ["vllm", "serve", str(job.place / "model"), "--served-model-name", "adapter"]
        said = f"vLLM does not serve {reason} as an adapter, so it is merged. {_agreed(job)}\n"
    else:
        shutil.copytree(job.run.adapter, job.folder / "adapter")
        rank = max(adapter["r"], *adapter.get("rank_pattern", {}).values(), 0)
        largest = next(size for size in VLLM_RANKS if size >= rank)
        command = ["vllm", "serve", model_location(job.config.model), "--enable-lora", "--lora-modules"]
        command += [f"adapter={job.place / 'adapter'}", "--max-lora-rank", str(largest)]
        job.checked |= {"passed": None, "not_run": "vLLM: the adapter's files are copied as they are"}
        said = ""
    merged = shlex.join(["socratune", "export", str(job.run.root), "--to", "merged"])
    line = shlex.join(command)
    script = f"#!/bin/sh\n# Ask for the model `adapter`.\n# Merged instead, faster for one adapter alone: {merged}\n"
    write_text(
        job.folder / "serve.sh", f'{script}# and then: vllm serve {job.run.root}/export/merged\nexec {line} "$@"\n'
    )
    return f"{said}vLLM itself was not run here.\n{line}\nMerged instead: {merged}"


FORMATS: dict[str, Callable[[ExportJob], str]] = {"merged": _merged, "gguf": _gguf, "ollama": _ollama, "vllm": _vllm}


def _not_served(adapter: dict[str, Any]) -> str:
    """Returns the parts of an adapter that vLLM cannot serve beside its base, or an empty text."""
    known = {
        "use_dora": "DoRA",
        "modules_to_save": "whole trained modules",
        "trainable_token_indices": "trained tokens",
    }
    found = [text for name, text in known.items() if adapter.get(name)]
    rank = max(adapter["r"], *adapter.get("rank_pattern", {}).values(), 0)
    return ", ".join(found + ([f"rank {rank}"] if rank > VLLM_RANKS[-1] else []))


def _merge(job: ExportJob, folder: Path) -> None:
    """Writes base plus adapter in the base's own 16 bits (bfloat16 for a 32-bit base), and the tokenizer with its
    template.

    Merged into the base as it was published, never into 4 bits, which would round the adapter away.
    """
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    from socratune.training import disk_faults

    disable_progress_bar()

    location = model_location(job.config.model)
    if "quantization_config" in model_json(job.config.model, "config.json"):
        fix = "Set the run's model to the 16-bit model that it was made from, and export again."
        raise UserError(
            Fault(job.config.model, "a base of 16-bit weights to merge into", Shown("a quantised one"), fix)
        )
    base = AutoModelForCausalLM.from_pretrained(location, dtype="auto")
    bits = base.dtype if base.dtype in (torch.float16, torch.bfloat16) else torch.bfloat16
    # Summed in 32 bits, so that the sum alone is rounded and not the adapter's share before it.
    merged: Any = PeftModel.from_pretrained(base.float(), str(job.run.adapter))
    merged = merged.merge_and_unload(safe_merge=True).to(bits)
    with disk_faults(folder):
        merged.save_pretrained(folder)
        AutoTokenizer.from_pretrained(job.run.adapter).save_pretrained(folder)


def _check(job: ExportJob, folder: Path, gguf: Path | None = None) -> None:
    """Compares greedy answers of the adapter and of the exported weights in `folder`, or in a GGUF file.

    Raises:
        StageFailed: they differ.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from socratune.inference import load_model, torch_device

    def exported() -> tuple[Any, Any]:
        source, options = (folder, {}) if gguf is None else (gguf.parent, {"gguf_file": gguf.name})
        model: Any = AutoModelForCausalLM.from_pretrained(source, **options)
        return model.to(torch_device()).eval(), AutoTokenizer.from_pretrained(folder)

    four_bit = job.config.train.load_in_4bit
    job.checked = parity(
        job.rows,
        partial(load_model, job.config.model, adapter=job.run.adapter, load_in_4bit=four_bit),
        exported,
        max_new_tokens=job.config.enhance.max_new_tokens,
        min_agreement=job.min_agreement,
    )
    if not job.checked["passed"]:
        figures = job.place.with_name(f"{job.place.name}.parity.json")
        write_json(figures, job.checked)
        raise StageFailed(f"Not exported: {_agreed(job)} At least {job.min_agreement:.0%} must agree; see {figures}.")


def _agreed(job: ExportJob) -> str:
    found = job.checked
    text = f"{found['equal']} of {found['prompts']} greedy answers equal the adapter's to the last token"
    if found["near_ties"]:
        text += f", {found['near_ties']} diverge at a tie within rounding"
    others = [parting for parting in found["divergences"] if not parting["near_tie"]]
    if others:
        text += f", {len(others)} differ (first at token {others[0]['at']} of {others[0]['id']}, "
        text += f"by {others[0]['logit_gap']:.3g} in the logits)"
    not_run = found.get("not_run", "")
    return f"{text}. Not run here: {not_run}." if not_run else f"{text}."


def find_converter(llama_cpp: str | None, *, needed: bool) -> Path | None:
    """Returns the path of llama.cpp's converter, or None if it is neither found nor needed.

    Raises:
        UserError: it is needed, or its folder was named, and it is not there.
    """
    place = llama_cpp or os.environ.get("LLAMA_CPP")
    found = Path(place).expanduser() / CONVERTER if place else None
    if found is not None and found.is_file():
        return found
    if needed or llama_cpp:
        fix = (
            "Run: git clone https://github.com/ggml-org/llama.cpp && pip install -r llama.cpp/requirements.txt. "
            "Then give --llama-cpp llama.cpp, or set LLAMA_CPP."
        )
        got = Shown(f"no such file in {place}" if place else "nothing")
        raise UserError(Fault("--llama-cpp", f"the folder of llama.cpp, with {CONVERTER}", got, fix))
    return None


def _as_gguf(job: ExportJob, merged: Path) -> None:
    """Replaces the merged weights by `model.gguf` and checks that file if transformers can read it back."""
    file = job.folder / "model.gguf"
    _convert(job, merged, file)
    try:
        _check(job, merged, file)
        job.checked["not_run"] = "llama.cpp: the file was read back by transformers, with the adapter's tokenizer"
    except (ImportError, ValueError, NotImplementedError, KeyError) as error:  # no package gguf, or a shape it lacks
        _check(job, merged)
        reason = " ".join(str(error).split())[:200]
        job.checked["not_run"] = f"the GGUF file: the figures are of the weights it was made from ({reason})"
    shutil.rmtree(merged)


def _convert(job: ExportJob, folder: Path, file: Path) -> None:
    """Writes the merged weights as one GGUF file with the same 16 bits."""
    assert job.converter is not None
    dtype = json.loads((folder / "config.json").read_text("utf-8")).get("dtype")
    kind = "f16" if dtype == "float16" else "bf16"
    command = [sys.executable, str(job.converter), str(folder), "--outfile", str(file), "--outtype", kind]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode or not file.is_file():
        last = " ".join([line for line in done.stderr.splitlines() if line.strip()][-1:])[:300]
        fix = ""
        if "ModuleNotFoundError" in last:
            needed = shlex.quote(str(job.converter.with_name("requirements.txt")))
            fix = f" Install its packages: pip install -r {needed}"
        raise OutsideError(f"llama.cpp's converter failed: {last}.{fix}")
