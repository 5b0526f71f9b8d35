"""What is distributed holds everything a user needs, and nothing else."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from fnmatch import fnmatch
from pathlib import Path

import pytest

import socratune

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "socratune"


def output_of(*command: str | Path, cwd: Path | None = None) -> str:
    """What a command prints; it has to succeed."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def copied_by_the_dockerfile() -> list[str]:
    """The paths that the Dockerfile copies."""
    lines = re.findall(r"^COPY (.+) \S+$", (ROOT / "Dockerfile").read_text("utf-8"), re.MULTILINE)
    return [name for line in lines for name in line.split()]


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The sdist, and the wheel that was built from the sdist rather than from the repository."""
    place = tmp_path_factory.mktemp("dist")
    output_of(sys.executable, "-m", "build", "--outdir", place, ROOT)
    (sdist,), (wheel,) = place.glob("*.tar.gz"), place.glob("*.whl")
    return sdist, wheel


@pytest.fixture(scope="module")
def installed(distributions: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of an environment with the wheel, whose dependencies come from the one that runs the tests."""
    place = tmp_path_factory.mktemp("fresh")
    output_of(sys.executable, "-m", "venv", place)
    python = place / "bin" / "python"
    output_of(python, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", distributions[1])
    site = Path(output_of(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    outside = [sysconfig.get_path("purelib"), *(path for path in sys.path if path.endswith("site-packages"))]
    (site / "outside.pth").write_text("\n".join(dict.fromkeys(outside)), "utf-8")
    return place / "bin"


@pytest.mark.slow
def test_the_wheel_holds_the_embedded_model_and_data(distributions: tuple[Path, Path]) -> None:
    wheel = distributions[1]
    names = set(zipfile.ZipFile(wheel).namelist())
    shipped = {
        str(path.relative_to(ROOT / "src"))
        for path in PACKAGE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert shipped <= names
    assert {name for name in names - shipped if ".dist-info/" not in name} == set()
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not any(name.startswith(("unsloth", "src")) for name in names)
    assert wheel.stat().st_size < 3_000_000


@pytest.mark.slow
def test_the_sdist_holds_the_package_and_no_workplace(distributions: tuple[Path, Path]) -> None:
    sdist = distributions[0]
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    top = {name.split("/")[0] for name in names}
    assert top == {
        ".gitignore", "CHANGELOG.md", "LICENSE", "PKG-INFO", "README.md", "constraints.txt", "pyproject.toml", "src",
    }  # fmt: skip
    junk = ("*.pyc", "*.log", "*.sqlite", "*.orig", "*.rej", "*.swp", "*~", "*.env", "*.DS_Store")
    assert [name for name in names for pattern in junk if fnmatch(name, pattern)] == []
    assert sdist.stat().st_size < 3_000_000


@pytest.mark.slow
def test_the_installed_wheel_is_a_working_command(installed: Path, tmp_path: Path) -> None:
    command = installed / "socratune"
    assert socratune.__version__ in output_of(command, "--version", cwd=tmp_path)
    assert "--output" in output_of(command, "demo", "--help", cwd=tmp_path)
    where = "import socratune, importlib.metadata as m; print(socratune.__file__, m.version('socratune'))"
    file, version = output_of(installed / "python", "-c", where, cwd=tmp_path).split()
    assert Path(file).is_relative_to(installed.parent) and version == socratune.__version__
    rows = Path(file).parent / "demo_data" / "train.jsonl"
    plan = output_of(command, "plan", "--model", "demo", "--dataset", rows, "--json", cwd=tmp_path)
    assert json.loads(plan)["parameters"] == 409_248


def test_the_changelog_begins_with_what_is_not_released_or_with_this_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    first = re.search(r"^## \[(.+?)\]", text, re.MULTILINE)
    assert first is not None and first[1] in ("Unreleased", socratune.__version__)
    sections = set(re.findall(r"^### (.+)$", text, re.MULTILINE))
    assert sections <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_the_version_is_written_in_one_place() -> None:
    places = [ROOT / "pyproject.toml", ROOT / "Dockerfile", ROOT / "Makefile", *PACKAGE.rglob("*.py")]
    assert [path.name for path in places if f'"{socratune.__version__}"' in path.read_text("utf-8")] == ["__init__.py"]


@pytest.mark.slow
def test_the_dockerfile_copies_all_that_an_installation_needs(tmp_path: Path) -> None:
    """Pip gets exactly the files that the Dockerfile copies."""
    names = copied_by_the_dockerfile()
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line.startswith("!")]
    assert {"pyproject.toml", "src/socratune"} <= set(names)
    for name in names:
        assert name.split("/")[0] in allowed, f"{name} is not in .dockerignore"
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, tmp_path / name)
    output_of(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path / "out", tmp_path)
    assert len(list((tmp_path / "out").glob("socratune-*.whl"))) == 1
    text = (ROOT / "Dockerfile").read_text("utf-8")
    assert (tmp_path / "constraints.txt").is_file() and "ARG CONSTRAINTS=constraints.txt" in text
    gpu = (ROOT / "docs/guides/installing.md").read_text("utf-8")
    for name in re.findall(r"CONSTRAINTS=(\S+)", gpu):
        assert (tmp_path / name).is_file()


@pytest.mark.slow
def test_the_command_of_the_dockerfile_works_for_a_user_without_a_home(installed: Path, tmp_path: Path) -> None:
    text = (ROOT / "Dockerfile").read_text("utf-8")
    words = [*json.loads(re.findall(r"^ENTRYPOINT (.+)$", text, re.MULTILINE)[0])]
    words += json.loads(re.findall(r"^CMD (.+)$", text, re.MULTILINE)[0])
    assigned = dict(re.findall(r"(HOME|USER|HF_HUB_DISABLE_TELEMETRY)=(\S+)", text))
    assert set(assigned) == {"HOME", "USER", "HF_HUB_DISABLE_TELEMETRY"}
    environment = {**assigned, "PATH": f"{installed}:/usr/bin:/bin", "HOME": str(tmp_path)}
    done = subprocess.run(words, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "publish" in done.stdout, done.stderr


@pytest.mark.slow
def test_a_system_without_posix_locks_is_refused_without_a_traceback(tmp_path: Path) -> None:
    """Windows has no `fcntl`."""
    script = "import sys; sys.modules['fcntl'] = None; from socratune.cli import main; sys.exit(main())"
    words = ("run", "--model", "demo", "--dataset", PACKAGE / "demo_data" / "train.jsonl", "--output", tmp_path / "run")
    done = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "WSL" in done.stderr and "Traceback" not in done.stderr
