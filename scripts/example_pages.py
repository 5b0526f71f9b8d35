"""Writes the example pages and the example model card of the documentation, from runs on the embedded model.

    python scripts/example_pages.py docs/figures    # run by `make pages`; two minutes on two cores

The pictures go to that folder, and the card to `examples/model-card.md`.

It needs Chromium and Playwright. A run of `make demo-real` is photographed too if its folder exists. Finished runs in
`outputs/pages` are used again; delete that folder to repeat them.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from socratune.runs import Results, existing_run

RUNS = Path("outputs/pages")
ROOT = Path(__file__).parent.parent
DEMO = ROOT / "src" / "socratune" / "demo_data"
CARD = ROOT / "examples" / "model-card.md"
MOST_BYTES = 300_000


def command(*words: str | Path, codes: tuple[int, ...] = (0,)) -> str:
    """Runs `socratune` and returns what it prints.

    Raises:
        SystemExit: the exit code is not one of `codes`.
    """
    done = subprocess.run([sys.executable, "-m", "socratune", *words], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode not in codes:
        sys.exit(f"socratune {words[0]} ended with exit code {done.returncode}.\n{done.stdout}")
    return done.stdout


def few_rows(name: str, count: int) -> Path:
    """The first rows of an embedded data set, in a file of their own."""
    lines = (DEMO / f"{name}.jsonl").read_text("utf-8").splitlines()[:count]
    path = RUNS / f"{name}.jsonl"
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


def make_runs() -> dict[str, Path]:
    """Makes a run that passes and one that has too few rows to pass, and returns their folders by picture."""
    RUNS.mkdir(parents=True, exist_ok=True)
    runs = {"page-passed": RUNS / "passed", "page-failed": RUNS / "failed"}
    command("demo", "--output", runs["page-passed"])
    few = ("--dataset", few_rows("train", 40), "--held-out", few_rows("held_out", 20))
    command("run", "--model", "demo", *few, "--output", runs["page-failed"], codes=(1,))
    for name, folder in runs.items():
        status = Results(existing_run(str(folder))).data["status"]
        if status != name.removeprefix("page-"):
            sys.exit(f"{folder}: expected a run that {name.removeprefix('page-')}, got the status {status!r}.")
    real = Path("outputs/demo-real")
    return {**runs, **({"real-run": real} if (real / "pipeline_results.json").exists() else {})}


def photograph(runs: dict[str, Path], out: Path) -> None:
    """Writes the first screen of each run's page as `NAME.png`."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name, folder in runs.items():
            command("report", folder)
            page = chromium.new_page(viewport={"width": 1280, "height": 1000})
            page.goto((folder / "report.html").absolute().as_uri())
            page.wait_for_selector("#count:not(:empty)")
            page.screenshot(path=out / f"{name}.png")
        chromium.close()


def main(out: Path) -> None:
    runs = make_runs()
    photograph(runs, out)
    shown = command("publish", runs["page-passed"], "--hub-id", "me/demo", "--dry-run")
    card = shown[shown.index("\n---\n") + 1 :]  # the files and their sizes stand before the card
    CARD.write_text(card.rstrip("\n") + "\n", "utf-8")
    for path in (*(out / f"{name}.png" for name in runs), CARD):
        print(f"{path}  {path.stat().st_size:,} bytes")
        if path.stat().st_size > MOST_BYTES:
            sys.exit(f"{path} is larger than {MOST_BYTES:,} bytes.")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
