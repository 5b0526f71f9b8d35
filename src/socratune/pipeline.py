"""The pipeline: a Q&A file in, a LoRA adapter that is proven better than its base model out.

    [generate →] split → enhance → curate → train → validate → publish

Each stage reads files of the run folder and writes files of the run folder. Read this file from top to bottom and
you know the project.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from socratune import __version__
from socratune.compute import budget_of, look_at_rows, settle_placement
from socratune.config import FORMER_DEFAULTS, RunConfig
from socratune.data import data_path
from socratune.documents import source_hash
from socratune.errors import Fault, OutsideError, UserError
from socratune.evaluation import proof_of, with_pins
from socratune.inference import RowScreen, trace_writers
from socratune.llm import Base, Limits, budget_text, model_location, note_asked, student_of, weights_fingerprint
from socratune.publishing import write_report, write_views
from socratune.resolve import Resolved, defaults, dump, flatten
from socratune.runs import (
    STAGES,
    Journal,
    Results,
    RunDir,
    StageResult,
    Tell,
    Tick,
    do_stage,
    ending_noted,
    file_hashes,
    fingerprint,
    first_stage_of,
    forget_from,
    gather_shards,
    is_incomplete,
    refuse_other_data,
    refuse_other_documents,
    settle_config,
)

if TYPE_CHECKING:
    from socratune.compute import BySkyPilot, RemoteRun
    from socratune.stages import GeneratedFiles
    from socratune.teaching import ServedStudent

log = logging.getLogger(__name__)

MODEL_STAGES = frozenset(("enhance", "train", "validate"))


def run_pipeline(
    resolved: Resolved, *, start: str = STAGES[0], until: str = STAGES[-1], restart: str | None = None, tell: Tell
) -> dict[str, Any]:
    """Runs the unfinished stages from `start` to `until` and returns the resulting content of `pipeline_results.json`.

    Args:
        resolved: a configuration that passed preflight.
        restart: the first stage to redo although it is done.
        tell: hears what happens, for progress on a screen.

    Raises:
        UserError: settings differ from those the folder began with; the folder is in use; labels are wrong.
        OutsideError: something outside failed; run again to go on.
    """
    wanted = STAGES[STAGES.index(start) : STAGES.index(until) + 1]
    if "train" in wanted and not RunDir(resolved.config.output).results.exists():
        settle_placement(resolved.config, told=False)  # what cannot begin leaves nothing behind
    with opened(resolved, restart, start) as pipeline, pipeline.placed(wanted):
        run_stages(pipeline, wanted, tell)
    return pipeline.results.data


def publish_run(resolved: Resolved, *, force: bool = False, tell: Tell) -> dict[str, Any]:
    """Uploads what a finished run folder holds, without running any earlier stage.

    Args:
        resolved: the run's own configuration, with `hub_id`.
        force: also what did not pass, with a warning in the card.

    Raises:
        StageFailed: it did not pass, or its files do not hold what it says.
        OutsideError: the Hub refused or could not be reached.
    """
    from socratune.stages import check_gate, publish_adapter

    config, run = resolved.config, RunDir(resolved.config.output)
    assert config.hub_id is not None
    with run.locked():
        results = Results(run)
        verified = check_gate(run, config, results.data, force=force)

        def work(_: Tick) -> StageResult:
            return publish_adapter(run, config, verified, results=results.data, force=force)

        results.data["stages"].pop("publish", None)  # only the Hub knows what is there, so it is asked each time
        key = fingerprint("publish", config.hub_id, config.model, dump(config.publish))
        try:
            do_stage("publish", key, work, results, tell, missing=True)
        finally:
            write_report(run)
    return results.data


@contextmanager
def opened(resolved: Resolved, restart: str | None, start: str = STAGES[0]) -> Iterator[Pipeline]:
    """Opens and locks the run folder with its journal, and records in the results how the block ends."""
    run = RunDir(resolved.config.output)
    run.create()
    with run.locked():
        results = Results(run)
        settle_config(run, resolved, results, restart)
        gather_shards(run)
        try:
            with closing(Journal(run.journal)) as journal:
                pipeline = Pipeline(resolved.config, journal, results)
                beginnings = STAGES[: STAGES.index("split") + 1]
                if start in beginnings and restart not in beginnings:  # before anything is lost or noted down
                    pipeline.refuse_other_inputs()
                with ending_noted(results):
                    if restart is not None:
                        forget_from(restart, run, results, journal)
                    yield pipeline
        finally:
            write_report(run)


def run_stages(pipeline: Pipeline, wanted: Sequence[str], tell: Tell) -> None:
    results, config = pipeline.results, pipeline.config
    results.data.pop("error", None)
    pipeline.note_budget()
    if "budget" in results.data:
        log.info("%s.", budget_text(results.data["budget"]))
    results.write(status="running", socratune=__version__, model=config.model, dataset=config.dataset)
    for name in wanted:
        if (name == "publish" and config.hub_id is None) or (name == "generate" and not config.writes_rows):
            continue
        before = results.stage(name)
        missing = is_incomplete(pipeline.run, name, before)
        try:
            work = with_pins(name, getattr(pipeline, name), pipeline.run, config, results.data)
            done = do_stage(name, pipeline.key(name), work, results, tell, missing=missing)
        except OutsideError as error:
            if name != "publish":
                raise
            proof = proof_of(results.data)  # what was proven stays so; the error says what is left to do
            results.write(status=proof.status if proof else "error", error=str(error))
            return
        finally:
            pipeline.note_budget()
        if not done:
            ended = results.stage(name)
            results.write(status=ended["status"], error=ended.get("reason"))
            return
        if results.stage(name) is not before:  # it was not done before
            write_report(pipeline.run)
        if name == "enhance" and config.views:
            write_views(pipeline.run, config.views)
    done, proof = results.stage("validate"), proof_of(results.data)
    valid = done.get("status") in ("done", "failed") and done.get("key") == pipeline.key("validate")
    results.write(status=proof.status if valid and proof else "incomplete")


class Pipeline:
    """The stages of one run. Each is connected to its own section of the configuration and to nothing else."""

    def __init__(self, config: RunConfig, journal: Journal, results: Results) -> None:
        self.config = config
        self.run = RunDir(config.output)
        self.journal = journal
        self.results = results
        self.model = weights_fingerprint(model_location(config.model))
        wears = self.run.student if self.run.student.exists() else None
        self.base = Base(config.model, config.train.load_in_4bit, config.seed, wears, config.chat_template)
        self.budget = budget_of(config, rented=config.where.place in ("runpod", "sky"))
        self.remote: RemoteRun | BySkyPilot | None = None
        self.dataset = str(self.run.rows("qa")) if config.writes_rows else config.dataset
        self.held_out = config.split.held_out or (str(self.run.rows("qa_test")) if config.env.tasks else None)

    def key(self, stage: str) -> str:
        """Returns a key of the stage's settings and inputs, which settings that a newer version adds do not change."""
        config, run = self.config, self.run
        adapter = [run.adapter / name for name in ("adapter_config.json", "adapter_model.safetensors")]
        usual = defaults() | FORMER_DEFAULTS  # so that what an earlier version has done is still done
        settings = {name: value for name, value in flatten(dump(config)).items() if value != usual.get(name)}
        own = {name: value for name, value in settings.items() if first_stage_of(name) == stage}
        inputs = {
            "generate": [],
            "split": [],
            "enhance": [run.rows("train_in")],
            "curate": [run.enhanced, run.review],
            "train": [run.rows("train"), run.rows("dev")],
            "validate": [run.rows("held_out"), run.rows("recall"), *adapter],
            "publish": adapter,
        }
        if self.base.adapter is not None:
            inputs["enhance"] += [self.base.adapter / path.name for path in adapter]
        if config.train.reads_traces:
            inputs["train"].append(run.enhanced)
        if stage == "generate":
            own |= {"model": config.model, "seed": config.seed}
            own |= {"tests": [config.split.max_held_out_rows, config.split.max_recall_rows]} if config.env.tasks else {}
        if stage == "split":
            own["inputs"] = self._input_hashes()
        if stage == "validate":
            proof = config.validate_
            asked = {"prompts_file": proof.prompts_file, "forgetting": proof.forgetting}
            own["inputs"] = self._known_hashes({name: Path(path) for name, path in asked.items() if path})
        weights = [] if stage in ("generate", "split", "curate") else [self.model, config.seed]
        return fingerprint(stage, own, weights, file_hashes(*inputs[stage]))

    def _input_hashes(self) -> dict[str, str | None]:
        """Returns the content hashes of the data set and of the user's own held-out rows."""
        files = {"dataset": data_path(self.dataset)}
        if self.held_out:
            files["held_out"] = data_path(self.held_out, held_out=True)
        files |= {f"eval_file {name}": data_path(name) for name in self.config.split.eval_file}
        return self._known_hashes(files)

    def _known_hashes(self, files: dict[str, Path]) -> dict[str, str | None]:
        """Returns the content hashes of the user's files; for one that is missing, the last known hash."""
        known = self.results.data.setdefault("inputs", {})
        for name, path in files.items():
            if path.is_file():
                known[name] = file_hashes(path)[0]
        return {name: known.get(name) for name in files}

    def spent(self) -> dict[str, float]:
        """Returns the USD spent so far by part of the budget. Spending at an unknown price is not included."""
        paid = {"generate": 0.0, "enhance": 0.0}
        pilot = self.results.data.get("estimate", {})  # whose calls a stage that has begun counts as its own
        tried = {"generate": pilot.get("generate", {}), "enhance": pilot}
        for stage, part in (("generate", "generate"), ("enhance", "enhance"), ("validate", "enhance")):
            took = self.results.stage(stage).get("spent") or tried.get(stage, {}).get("spent", {})
            paid[part] += sum(one["usd"] or 0.0 for one in took.values())
        if notes := self.journal.pods():
            from socratune.compute import spent_usd

            paid["where"] = spent_usd(notes, self.config.where.max_hours)
        return paid

    def limits(self, part: str, *over: str) -> Limits:
        """Returns what a part of the budget may spend in all, after what the other parts have spent.

        Args:
            over: parts that will spend no more, besides `generate` where that stage is done.
        """
        if self.results.stage("generate").get("status") == "done":
            over = (*over, "generate")
        section = self.config.generate if part == "generate" else self.config.enhance
        usd = self.budget.limit(part, self.spent(), over=over)
        return Limits(usd, section.max_total_tokens, part, self.budget.raised_by(part))

    def note_budget(self) -> None:
        """Records what was sent where and, if a part of the run is paid for, the shares and the spending."""
        note_asked(self.results.data.setdefault("sent_to", {}), self.config, self.journal.spent())
        if self.budget.shares:
            self.results.data["budget"] = self.budget.to_json(self.spent())

    def generate(self, tick: Tick) -> StageResult:
        if self.config.env.tasks:
            from socratune.environments import write_environment_rows

            return write_environment_rows(self.run, self.config.env, self.config.split)
        from socratune.stages import generate_questions

        config = self.config.generate
        self.results.data.setdefault("inputs", {})["source"] = source_hash(str(config.source))
        work = generate_questions(
            self.place,
            config,
            model_name=self.config.model,
            seed=self.config.seed,
            journal=self.journal,
            key=f"generate.{self.key('generate')}",
            tick=tick,
            limits=self.limits("generate"),
        )
        return asyncio.run(work)

    @property
    def place(self) -> GeneratedFiles:
        """Returns where the rows that are written from a source are stored."""
        from socratune.stages import GeneratedFiles

        return GeneratedFiles(self.run.rows("qa"), self.run.rejected("qa"), self.run / "source")

    def split(self, tick: Tick) -> StageResult:
        from socratune.stages import split_rows

        config = self.config.split.model_copy(update={"held_out": self.held_out})
        if self.config.writes_rows:  # what was written and cannot be asked is left out: it was paid for
            config = config.model_copy(update={"on_bad_row": "skip"})
        return split_rows(self.run, config, dataset=self.dataset, screen=RowScreen(self.config.model))

    def enhance(self, tick: Tick) -> StageResult:
        from socratune.stages import enhance_result, enhance_rows, rows_of_shard

        config, key = self.config, f"enhance.{self.key('enhance')}"
        if config.writes_rows and not self.base.adapter and not self.journal.done_positions(key):
            look_at_rows(Resolved(config=config, origins=self.results.data.get("origins", {})))  # now they are there
        loop = partial(enhance_rows, base=self.base, key=key)
        at_work = {"journal": self.journal, "tick": tick}
        with_student = self.remote and self.remote.with_student
        engine, student = student_of(config.enhance, config.model)
        if with_student and engine != "http" and student == config.model:

            def enhanced(served: ServedStudent) -> StageResult:
                limits = self.limits("enhance")  # the machine is rented
                asked = loop(self.run, config.enhance, shard=config.shard, served=served, limits=limits, **at_work)
                return asyncio.run(asked)

            return with_student(enhanced)
        if config.engine == "here":
            limits = self.limits("enhance")
            return asyncio.run(loop(self.run, config.enhance, shard=config.shard, limits=limits, **at_work))
        from socratune.compute import enhance_on_ray

        figures = enhance_on_ray(
            self.run,
            config.enhance,
            partial(loop, shard=None),
            model_name=config.model,
            shard=config.shard,
            workers=config.workers,
            stage=key,
            tick=tick,
            limits=self.limits("enhance"),
        )
        total = sum(1 for _ in rows_of_shard(self.run, config.shard))
        return enhance_result(self.run, total, journal=self.journal, key=key, figures=figures)

    @contextmanager
    def placed(self, wanted: Sequence[str]) -> Iterator[None]:
        """Decides where the model runs for the requested stages, and gives back a rented machine at the end.

        Raises:
            UserError: the training cannot begin so; the text says what would have to change.
        """
        missing = "train" in wanted and self.results.stage("train").get("status") != "done"
        decision = settle_placement(self.config, fits=missing) if MODEL_STAGES.intersection(wanted) else None
        if decision is not None:
            self.budget = budget_of(self.config, rented=decision.where != "local")
        if decision is None or decision.where == "local":
            self._warn_of_machine()
            yield
            return
        if self.config.validate_.lm_eval:
            fix = "Leave it out, or --where local."
            raise UserError(Fault("validate.lm_eval", "no tasks of lm-eval with a rented machine", "some", fix))
        from socratune.compute import BySkyPilot, RemoteRun

        limits = partial(self.limits, "where")
        self.results.data.setdefault("sent_to", {})["machine"] = {"model": None, "hosts": [decision.where]}
        machine = BySkyPilot(self.run, self.config, self.results.data, limits)
        if decision.where == "runpod":
            machine = RemoteRun(self.run, self.config, self.journal, self.results.data, decision, limits)
        try:
            with machine as self.remote:
                yield
        finally:
            self.remote = None
            self.note_budget()
            self.results.write()  # with what the machine has cost

    def _warn_of_machine(self) -> None:
        """Warns that a run that continues here may have left a machine running there."""
        notes = self.journal.pods()
        if notes and notes[-1][3] != "ended":
            text = "The machine %s of this run may still be rented: socratune pods list --pod-name %s; pods reap."
            log.warning(text, notes[-1][1], notes[-1][1].rpartition("-")[0])

    def refuse_other_inputs(self) -> None:
        """Refuses a data set or documents that are not those with which this run began.

        Raises:
            UserError: they have changed.
        """
        source = self.config.generate.source
        if source and self.results.stage("generate").get("status") == "done":
            refuse_other_documents(source, self.results.data.get("inputs", {}).get("source"), source_hash(source))
        refuse_other_data(self.results.stage("split"), self.key("split"))

    def curate(self, tick: Tick) -> StageResult:
        from socratune.stages import curate_traces

        return curate_traces(self.run, self.config.curate)

    def train(self, tick: Tick) -> StageResult:
        from socratune.stages import rank_count, train_adapter, train_on_ranks

        if self.remote:
            return self.remote.train(tick)
        stage = self.results.stage
        ranks = rank_count(self.config.where.gpus)
        work = train_adapter if ranks == 1 else partial(train_on_ranks, ranks=ranks)
        return work(
            self.run,
            self.config.train,
            model_name=self.config.model,
            seed=self.config.seed,
            key=self.key("train"),
            max_new_tokens=self.config.enhance.max_new_tokens,
            replay_share=self.config.curate.replay_share,
            students=trace_writers(stage("curate").get("students", []), stage("enhance").get("student")),
            report_to=self.config.report_to,
            tick=tick,
        )

    def validate(self, tick: Tick) -> StageResult:
        from socratune.stages import validate_adapter

        if self.remote:
            self.remote.take_exam()
        rent_known = ["where"] if self.config.where.place != "sky" else []  # what SkyPilot pays is not told
        work = validate_adapter(
            self.run,
            self.config.validate_,
            self.base,
            asking=self.config.enhance,
            knowledge_rows=self.results.stage("curate").get("outcomes", {}).get("solved_with_evidence", 0),
            spent=self.results.stage("enhance").get("spent", {}),
            limits=self.limits("enhance", *rent_known),
            journal=self.journal,
            key=f"validate.{self.key('validate')}",
            tick=tick,
        )
        return asyncio.run(work)

    def publish(self, tick: Tick) -> StageResult:
        from socratune.stages import check_gate, publish_adapter

        verified = check_gate(self.run, self.config, self.results.data)
        return publish_adapter(self.run, self.config, verified, results=self.results.data)


if __name__ == "__main__":  # a name of the way in that scripts know
    import os
    import sys

    os.execv(sys.executable, [sys.executable, "-m", "socratune", "run", *sys.argv[1:]])
