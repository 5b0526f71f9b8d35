"""The notebooks of examples/ run from top to bottom, in their versions of five rows on the embedded model."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parent.parent / "examples" / "notebooks").glob("*.ipynb"))
SMALL = 'MODEL, ROWS, TEST_ROWS, OUTPUT = "demo", 5, 5, "run"\n'


def as_script(cells: list[dict[str, object]]) -> str:
    """Returns what a kernel makes of the cells: `!` starts a command, `%%writefile` writes a file.

    Cells with the tag `install` are left out, and those with the tag `parameters` are replaced.
    """
    parts = ["import subprocess\nfrom pathlib import Path\n"]
    for cell in cells:
        text = "".join(cell["source"])  # type: ignore[arg-type]
        tags = cell["metadata"].get("tags", [])  # type: ignore[attr-defined]
        if cell["cell_type"] != "code" or "install" in tags:
            continue
        if "parameters" in tags:
            parts.append(SMALL)
        elif match := re.match(r"%%writefile (\S+)\n", text):
            parts.append(f"Path({match[1]!r}).write_text({text[match.end() :]!r}, 'utf-8')\n")
        else:
            command = r"subprocess.run(f'''\1''', shell=True, check=True)"
            parts.append(re.sub(r"^!(.+)$", command, text, flags=re.MULTILINE) + "\n")
    return "\n".join(parts)


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_with_five_rows(notebook: Path, tmp_path: Path) -> None:
    found = json.loads(notebook.read_text("utf-8"))
    assert not any(cell.get("outputs") for cell in found["cells"]), "clear the outputs before committing"
    script = tmp_path / "script.py"
    script.write_text(as_script(found["cells"]), "utf-8")
    paths = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    env = {**os.environ, "SOCRATUNE_CACHE": str(tmp_path / "cache"), "PATH": paths}
    done = subprocess.run([sys.executable, script], cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "run" / "adapter" / "adapter_model.safetensors").is_file()
    assert "verdict  failed" in done.stdout, done.stdout  # five rows prove nothing
    assert done.stdout.count("Q: ") >= 2, done.stdout
