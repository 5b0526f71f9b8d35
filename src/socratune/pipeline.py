"""The pipeline: a Q&A file in, a LoRA adapter that is proven better than its base model out.

    split → enhance → curate → train → validate → publish

Each stage reads files of the run folder and writes files of the run folder. Read this file from top to bottom and
you know the project.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from socratune import __version__
from socratune.bookkeeping import STAGES, Tell, do_stage, forget_from, hashes, settle_config
from socratune.config import Resolved, RunConfig, dump
from socratune.errors import StageFailed
from socratune.hints import arithmetic_teacher
from socratune.journal import Journal
from socratune.judge import mechanical_judge
from socratune.modelref import model_location, weights_fingerprint
from socratune.rundir import Results, RunDir, StageResult, fingerprint
from socratune.sources.qa_files import data_path

Tick = Callable[[int, int], None]


def run_pipeline(
    resolved: Resolved, *, start: str = STAGES[0], until: str = STAGES[-1], restart: str | None = None, tell: Tell
) -> dict[str, Any]:
    """Run the stages from `start` to `until` that are not done yet; the content of `pipeline_results.json` afterwards.

    Args:
        resolved: a configuration that passed preflight.
        restart: the first stage to redo although it is done.
        tell: hears what happens, for progress on a screen.

    Raises:
        UserError: settings differ from those the folder began with; the folder is in use; labels are wrong.
        OutsideError: something outside failed; run again to go on.
    """
    run = RunDir(resolved.config.output)
    run.create()
    with run.locked():
        results = Results(run)
        settle_config(run, resolved, results, restart)
        journal = Journal(run.journal)
        try:
            if restart is not None:
                forget_from(restart, run, results, journal)
            _run_stages(Pipeline(resolved.config, journal, results), start, until, tell)
        except StageFailed as error:
            results.write(status="failed", error=str(error))
        except KeyboardInterrupt:
            results.write(status="interrupted")
            raise
        except BaseException as error:
            results.write(status="error", error=str(error) or type(error).__name__)
            raise
        finally:
            journal.close()
        return results.data


def _run_stages(pipeline: Pipeline, start: str, until: str, tell: Tell) -> None:
    results, config = pipeline.results, pipeline.config
    wanted = STAGES[STAGES.index(start) : STAGES.index(until) + 1]
    results.data.pop("error", None)
    results.write(status="running", socratune=__version__, model=config.model, dataset=config.dataset)
    for name in wanted:
        if name == "publish" and config.hub_id is None:
            continue
        if not do_stage(name, pipeline.key(name), getattr(pipeline, name), results, tell):
            results.write(status="failed", error=results.stage(name).get("reason"))
            return
    validation = results.data.get("validation")
    results.write(status=validation["status"] if validation and wanted[-1] in STAGES[-2:] else "incomplete")


class Pipeline:
    """The six stages of one run, each wired to its own section of the configuration and to nothing else."""

    def __init__(self, config: RunConfig, journal: Journal, results: Results) -> None:
        self.config = config
        self.run = RunDir(config.output)
        self.journal = journal
        self.results = results
        self.model = weights_fingerprint(model_location(config.model))

    def key(self, stage: str) -> str:
        """Changes when a setting or an input of the stage does."""
        config, run = self.config, self.run
        settings = {
            "split": [dump(config.split), hashes(data_path(config.dataset))],
            "enhance": [
                dump(config.enhance) | {"concurrency": 0},
                config.seed,
                self.model,
                hashes(run.rows("train_in")),
            ],
            "curate": [config.train.mask_wrong_attempts, hashes(run.enhanced)],
            "train": [dump(config.train), config.seed, self.model, hashes(run.rows("train"), run.rows("dev"))],
            "validate": [dump(config.validate_), self.model, hashes(run.rows("held_out"), *self._adapter_files())],
            "publish": [dump(config.publish), config.hub_id, hashes(*self._adapter_files())],
        }
        return fingerprint(stage, *settings[stage])

    def split(self, tick: Tick) -> StageResult:
        from socratune.stages import split

        return split.run(self.run, self.config.split, dataset=self.config.dataset)

    def enhance(self, tick: Tick) -> StageResult:
        from socratune.backends import hf
        from socratune.llm.metered import MeteredModel
        from socratune.stages import enhance
        from socratune.student import LocalStudent, default_sampling, serving

        config = self.config.enhance
        model, tokenizer = hf.load(self.config.model, load_in_4bit=self.config.train.load_in_4bit)
        sampling = default_sampling(
            model, temperature=config.temperature, top_p=config.top_p, max_new_tokens=config.max_new_tokens
        )
        names = {
            "student_model": self.config.model,
            "teacher_model": config.teacher_model,
            "judge_model": config.judge_model,
        }
        with serving(LocalStudent(model, tokenizer, name=self.config.model, fingerprint=self.model)) as student:
            loop = enhance.Loop(
                student=MeteredModel(student, self.journal, "enhance.student"),
                judge=mechanical_judge,
                teacher=arithmetic_teacher,
                sampling=replace(sampling, seed=self.config.seed),
                max_iterations=config.max_iterations,
                thinking_format=config.thinking_format,
                names=names,
            )
            key = f"enhance.{self.key('enhance')}"
            return asyncio.run(
                enhance.run(self.run, loop, journal=self.journal, key=key, concurrency=config.concurrency, tick=tick)
            )

    def curate(self, tick: Tick) -> StageResult:
        from socratune.stages import curate

        return curate.run(self.run, mask_wrong_attempts=self.config.train.mask_wrong_attempts)

    def train(self, tick: Tick) -> StageResult:
        from socratune.stages import train

        return train.run(
            self.run,
            self.config.train,
            model_name=self.config.model,
            seed=self.config.seed,
            key=self.key("train"),
            max_new_tokens=self.config.enhance.max_new_tokens,
            tick=tick,
        )

    def validate(self, tick: Tick) -> StageResult:
        from socratune.stages import validate

        work = validate.run(
            self.run,
            self.config.validate_,
            model_name=self.config.model,
            seed=self.config.seed,
            max_new_tokens=self.config.enhance.max_new_tokens,
            concurrency=self.config.enhance.concurrency,
            journal=self.journal,
            key=f"validate.{self.key('validate')}",
            tick=tick,
        )
        return asyncio.run(work)

    def publish(self, tick: Tick) -> StageResult:
        from socratune.stages import publish

        assert self.config.hub_id is not None
        return publish.run(
            self.run,
            self.config.publish,
            hub_id=self.config.hub_id,
            model_name=self.config.model,
            results=self.results.data,
        )

    def _adapter_files(self) -> list[Path]:
        return [self.run.adapter / name for name in ("adapter_config.json", "adapter_model.safetensors")]


if __name__ == "__main__":
    import sys

    from socratune.cli import main

    sys.exit(main(["run", *sys.argv[1:]]))
