"""Counts, for each setting, the files that set it: by its dotted path, by its field name, or by its flag.

    python dev/census.py            every setting, the rarest first
    python dev/census.py --unset    the settings that no test, document, experiment or example sets

A field name that several sections share counts for each of them, so only 0 in both columns is proof. The generated
reference and the log are left out, since they name every setting.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter
from pathlib import Path

from socratune.config import DEMO_DATA, RunConfig, Setting, settings_of

ROOT = Path(__file__).parent.parent
PLACES = {
    "tests": ["tests"],
    "docs": ["docs", "README.md"],
    "experiments": ["experiments", "benchmarks", "dev", "scripts"],
    "examples": ["examples", str(DEMO_DATA.relative_to(ROOT))],
}
SUFFIXES = {".py", ".md", ".yaml", ".yml", ".ipynb", ".sh", ".json"}
LEFT_OUT = ("docs/reference/", "dev/LOG.md", "dev/census.py")


def texts() -> dict[str, list[str]]:
    """Returns the text of every file that may set a setting, by place."""
    paths = {
        place: [path for root in roots for path in [ROOT / root, *(ROOT / root).rglob("*")]]
        for place, roots in PLACES.items()
    }
    return {
        place: [
            path.read_text("utf-8", errors="replace")
            for path in files
            if path.is_file() and path.suffix in SUFFIXES and not str(path.relative_to(ROOT)).startswith(LEFT_OUT)
        ]
        for place, files in paths.items()
    }


def forms(setting: Setting) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Returns the patterns by which a text sets it: the dotted path or the flag, and the bare field name."""
    name = re.escape(setting.key.rpartition(".")[2])
    flag = rf"|(?<![\w-]){re.escape(setting.flag_name)}(?![\w-])" if setting.flag_name else ""
    return re.compile(rf"(?<![\w.]){re.escape(setting.key)}(?!\w){flag}"), re.compile(
        rf"(?<![\w-]){name}[\"']?\s*[:=](?!=)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--unset", action="store_true", help="only the settings that nobody sets")
    arguments = parser.parse_args()
    read, counts = texts(), {}
    for setting in settings_of(RunConfig):
        by_path, by_name = forms(setting)
        words = (setting.key.rpartition(".")[2], setting.flag_name or setting.key)
        counts[setting.key] = []
        for files in read.values():
            near = [text for text in files if any(word in text for word in words)]  # regular expressions are slow
            paths, names = (sum(bool(form.search(text)) for text in near) for form in (by_path, by_name))
            counts[setting.key].append(Counter(path=paths, name=names))
    print(f"{'files by path or flag · by field name':44}" + "".join(f"{place:>14}" for place in PLACES))
    for key, places in sorted(counts.items(), key=lambda item: sum(sum(count.values()) for count in item[1])):
        if not arguments.unset or not any(any(count.values()) for count in places):
            print(f"{key:44}" + "".join(f"{count['path']:>8} · {count['name']:>3}" for count in places))


if __name__ == "__main__":
    main()
