"""Kiln's and Argilla's own libraries beside our readers and exports: samples that they write, exports that they read.

python -m venv /tmp/kiln && /tmp/kiln/bin/pip install kiln-ai 'mcp<2' 'together<2'
/tmp/kiln/bin/python dev/annotators.py kiln write tests/samples/annotated/kiln
/tmp/kiln/bin/python dev/annotators.py kiln exports tests/samples/annotated
/tmp/kiln/bin/python dev/annotators.py kiln read outputs/demo/export/kiln
HOME=/tmp/kiln /tmp/kiln/bin/python dev/annotators.py kiln ask outputs/demo/export/kiln   # it keeps settings in HOME
python -m venv /tmp/argilla && /tmp/argilla/bin/pip install argilla requests
/tmp/argilla/bin/python dev/annotators.py argilla write tests/samples/annotated
/tmp/argilla/bin/python dev/annotators.py argilla read outputs/demo/export/argilla
"""

from __future__ import annotations

import json
import sys
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

# --- Kiln ----------------------------------------------------------------------------------------------------------

KILN_RUNS = (  # input, output, kind of rating, rating, repaired output
    ("2 + 2?", "2 + 2 = 4.", "five_star", 5, None),
    ("3 + 3?", "3 + 3 = 7.", "five_star", 1, None),
    ("4 + 4?", "4 + 4 = 9.", "five_star", 2, "4 + 4 = 8."),
    ("5 + 5?", "5 + 5 = 10.", "five_star", None, None),
    ("6 + 6?", "6 + 6 = 12.", "pass_fail", 1, None),
    ("7 + 7?", "7 + 7 = 15.", "pass_fail", 0, None),
    ("8 + 8?", "8 + 8 = 17.", "pass_fail_critical", -1, None),
    ("9 + 9?", "9 + 9 = 18.", "five_star", 3, None),
)


def kiln_write(folder: Path) -> None:
    from kiln_ai.datamodel import (
        DataSource,
        Project,
        Task,
        TaskOutput,
        TaskOutputRating,
        TaskRequirement,
        TaskRun,
    )

    folder.mkdir(parents=True)
    project = Project(name="Sums", path=folder / "project.kiln", created_by="anna")
    project.save_to_file()
    demand = TaskRequirement(name="Sentence", instruction="Answer with one sentence.")
    task = Task(name="Add", instruction="Add.", requirements=[demand], parent=project, created_by="anna")
    task.save_to_file()
    human = DataSource(type="human", properties={"created_by": "anna"})
    model = {"model_name": "m", "model_provider": "ollama", "adapter_name": "kiln"}
    made = DataSource(type="synthetic", properties=model)
    for asked, said, kind, rating, repaired in KILN_RUNS:
        rated = None if rating is None else TaskOutputRating(type=kind, value=float(rating), created_by="anna")
        TaskRun(
            parent=task,
            input=asked,
            input_source=human,
            output=TaskOutput(output=said, source=made, rating=rated, created_by="anna"),
            repair_instructions="Add again." if repaired else None,
            repaired_output=TaskOutput(output=repaired, source=human, created_by="anna") if repaired else None,
            intermediate_outputs={"chain_of_thought": "Nine twice."} if asked.startswith("9") else None,
            created_by="anna",
        ).save_to_file()


def kiln_read(folder: Path) -> None:
    from kiln_ai.datamodel import Project, TaskRun
    from kiln_ai.datamodel.dataset_filters import HighRatingDatasetFilter

    project = Project.load_from_file(folder / "project.kiln")
    (task,) = project.tasks()
    runs = task.runs()
    for run in runs:
        TaskRun.model_validate(run.model_dump())  # as new, which is checked more strictly
    print(f"{project.name}: {len(runs)} runs, {sum(map(HighRatingDatasetFilter, runs))} of them rated high or repaired")


def kiln_exports(folder: Path) -> None:
    """Kiln's own exports for fine-tuning of the project in `folder / "kiln"`, beside it."""
    import asyncio
    import shutil
    from tempfile import TemporaryDirectory

    from kiln_ai.adapters.fine_tune.dataset_formatter import DatasetFormat, DatasetFormatter
    from kiln_ai.datamodel import DatasetSplit, DatasetSplitDefinition, Project
    from kiln_ai.datamodel.datamodel_enums import ChatStrategy

    with TemporaryDirectory() as place:
        shutil.copytree(folder / "kiln", f"{place}/kiln")
        (task,) = Project.load_from_file(f"{place}/kiln/project.kiln").tasks()
        parts = [DatasetSplitDefinition(name="train", percentage=1.0)]
        split = DatasetSplit.from_task("good", task, parts, filter_id="high_rating")
        split.save_to_file()
        for kind in ("openai_chat_jsonl", "huggingface_chat_template_jsonl", "vertex_gemini"):
            file, form = folder / f"kiln-{kind.removesuffix('_jsonl')}.jsonl", DatasetFormat(kind)
            asyncio.run(DatasetFormatter(split, "Add.").dump_to_file("train", form, ChatStrategy.single_turn, file))


def kiln_ask(folder: Path) -> None:
    """Ask a run's adapter through Kiln; before: `socratune serve RUN`, at its usual port."""
    import asyncio

    from kiln_ai.adapters.adapter_registry import adapter_for_task
    from kiln_ai.datamodel import Project
    from kiln_ai.datamodel.run_config import KilnAgentRunConfigProperties
    from kiln_ai.utils.config import Config

    provider = {"name": "socratune", "base_url": "http://127.0.0.1:8000/v1", "api_key": "none"}
    Config.shared().openai_compatible_providers = [provider]
    (task,) = Project.load_from_file(folder / "project.kiln").tasks()
    asked = KilnAgentRunConfigProperties(
        model_name="socratune::adapter",
        model_provider_name="openai_compatible",
        prompt_id="simple_prompt_builder",
        structured_output_mode="default",
    )
    run = asyncio.run(adapter_for_task(task, run_config_properties=asked).invoke("What is 15 * 13?"))
    print(run.output.output)


# --- Argilla -------------------------------------------------------------------------------------------------------


def argilla_write(folder: Path) -> None:
    import argilla as rg
    from argilla.records._io import GenericIO, JsonIO

    one, other = uuid.UUID(int=1), uuid.UUID(int=2)

    def record(
        name: str, asked: str, proposed: str | None, said: Any = (), status: str = "pending", **more: Any
    ) -> Any:
        found = rg.Record(
            id=name,
            fields={"text": asked},
            suggestions=[rg.Suggestion("answer", proposed, agent="m", score=0.5)] if proposed else [],
            responses=[rg.Response("answer", value, user_id=user, status=state) for value, user, state in said],
            metadata=more,
        )
        found._model.status = status
        return found

    records = [
        record("a", "2 + 2?", "5", [("4", one, "submitted")], "completed", source="doc1"),
        record("b", "3 + 3?", "7", [("7", one, "discarded")]),
        record("c", "4 + 4?", "8"),
        record("d", "5 + 5?", None, [("ten", one, "submitted"), ("10", other, "submitted")], "completed"),
        record("e", "6 + 6?", None),
        record("f", "7 + 7?", "14", [("15", one, "draft")]),
    ]
    JsonIO.to_json(records, folder / "argilla.json")
    (folder / "argilla-flat.json").write_text(json.dumps(GenericIO.to_list(records, flatten=True)), "utf-8")


class _Server(BaseHTTPRequestHandler):
    """As much of Argilla's server as its client asks for before anything else."""

    def do_GET(self) -> None:
        at = "2026-01-01T00:00:00"
        body = {"id": str(uuid.UUID(int=3)), "username": "u", "role": "owner", "first_name": "u", "items": []}
        data = json.dumps({**body, "version": "2.8.0", "inserted_at": at, "updated_at": at}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def argilla_read(folder: Path) -> None:
    import argilla as rg
    from argilla.records._io import JsonIO

    with ThreadingHTTPServer(("127.0.0.1", 0), _Server) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        rg.Argilla(api_url=f"http://127.0.0.1:{server.server_port}", api_key="key")
        settings = rg.Settings.from_json(folder / ".argilla" / "settings.json")
        settings.validate()
        model = rg.Dataset._load_dataset_model(folder / ".argilla" / "dataset.json")
        records = JsonIO._records_from_json(folder / "records.json")
        for record in records:
            record.api_model()
        names = [field.name for field in settings.fields], [question.name for question in settings.questions]
        print(f"{model.name}: {len(records)} records; fields {', '.join(names[0])}; questions {', '.join(names[1])}")
        server.shutdown()


WORK = {
    ("kiln", "write"): kiln_write, ("kiln", "exports"): kiln_exports, ("kiln", "read"): kiln_read,
    ("kiln", "ask"): kiln_ask,
    ("argilla", "write"): argilla_write, ("argilla", "read"): argilla_read,
}  # fmt: skip

if __name__ == "__main__":
    tool, what, place = sys.argv[1:]
    WORK[tool, what](Path(place))
