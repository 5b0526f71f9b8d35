"""Writes the pages of docs/ that come from the package; `--check` fails when they are stale.

They are docs/reference/config.md, docs/reference/cli.md, and docs/troubleshooting.md, which the package ships.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from pydantic_core import PydanticUndefined

from socratune.cli.explain import TROUBLESHOOTING
from socratune.config import RunConfig, settings_of
from socratune.resolve import demo_profile, flatten

DOCS = Path(__file__).parent.parent / "docs" / "reference"
COMMANDS = (
    "init", "run", "plan", "generate", "demo", "enhance", "merge", "train", "validate", "publish", "verify", "export",
    "export-data", "inspect", "chat",
    "audit-judge", "ablate", "compare",
    "report", "ui", "serve", "pods", "doctor", "explain",
)  # fmt: skip
WIDTH = "100"

CONFIG_HEAD = """# Configuration

Every key of `--config run.yaml`, with its default. The same keys work as `--set key=value` and in
`socratune.run(config={...})`. An unknown key is refused. `config.yaml` in the run folder shows every value of a run and
where it came from.

*Written from the code by `scripts/reference_docs.py`.*

| key, flag | default | demo | meaning |
|---|---|---|---|
"""


def config_page() -> str:
    """docs/reference/config.md."""
    demo = flatten(demo_profile())
    lines = []
    for setting in settings_of(RunConfig):
        key, default = setting.key, setting.field.default
        assert setting.meaning, f"{key} has no docstring"
        shown = "*needed*" if default is PydanticUndefined else f"`{default}`"
        flag = f"<br>`{setting.flag_name}`" if setting.flag else ""
        lines.append(f"| `{key}`{flag} | {shown} | {f'`{demo[key]}`' if key in demo else ''} | {setting.meaning} |")
    return CONFIG_HEAD + "\n".join(lines) + "\n"


def cli_page() -> str:
    """docs/reference/cli.md."""
    page = ["# Commands\n\n*Written from the code by `scripts/reference_docs.py`.*\n"]
    for command in COMMANDS:
        run = [sys.executable, "-m", "socratune", command, "--help"]
        shown = subprocess.run(run, capture_output=True, text=True, check=True, env={"COLUMNS": WIDTH, "TERM": "dumb"})
        page.append(f"## socratune {command}\n\n```text\n{shown.stdout.strip()}\n```\n")
    return "\n".join(page)


def main() -> int:
    """Write the pages, or compare them."""
    stale = 0
    DOCS.mkdir(parents=True, exist_ok=True)
    pages = {
        "config.md": config_page(),
        "cli.md": cli_page(),
        "../troubleshooting.md": TROUBLESHOOTING.read_text("utf-8"),
    }
    for name, text in pages.items():
        path = DOCS / name
        if "--check" in sys.argv:
            if not path.exists() or path.read_text("utf-8") != text:
                print(f"{path} is stale: run python scripts/reference_docs.py", file=sys.stderr)
                stale += 1
        else:
            path.write_text(text, "utf-8")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
