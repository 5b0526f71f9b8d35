#!/bin/sh
# Creates the virtual environment $1 and installs Socratune in it, saying what is missing.
# $2: the extras to install, by default those that the checks need, and those of a GPU where there is one.
# TORCH_INDEX_URL: an index to take PyTorch from, e.g. https://download.pytorch.org/whl/cpu
# PYTHON: the interpreter to use, python3 by default.
set -eu
venv=$1
extras=${2:-dev}
constraints=constraints.txt
python=${PYTHON:-python3}

command -v "$python" >/dev/null || { echo "Python 3.11 or newer is needed: apt-get install python3 python3-venv" >&2; exit 1; }
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "Python 3.11 or newer is needed; $python is $("$python" --version 2>&1). Name another: make setup PYTHON=python3.12" >&2
    exit 1
}
"$python" -c 'import venv, ensurepip' 2>/dev/null || { echo "The module venv is missing: apt-get install python3-venv" >&2; exit 1; }

[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
pip="$venv/bin/python -m pip --disable-pip-version-check install --quiet"

if [ -n "${TORCH_INDEX_URL:-}" ]; then
    $pip --index-url "$TORCH_INDEX_URL" "$(grep '^torch==' constraints.txt)"
fi
if [ "$extras" = dev ] && nvidia-smi -L >/dev/null 2>&1; then
    echo "NVIDIA device found: installing with the extra [gpu]."
    extras=dev,gpu
    constraints=src/socratune/compute/constraints-gpu.txt
fi
include=$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')
if [ "${extras%%,*}" = dev ] && command -v gcc >/dev/null && [ -e "$include/Python.h" ]; then
    extras=$extras,gym # which compiles pycosat
fi
echo "Installing Socratune[$extras] into $venv (a few minutes; PyTorch is the large part)."
$pip --constraint "$constraints" --editable ".[$extras]"
if [ "${extras%%,*}" = dev ] && ! "$venv/bin/python" -c 'from socratune.llm import model_location; model_location("smollm2")' 2>"$venv/smollm2.log"; then
    echo "SmolLM2 could not be fetched, so its tests will be skipped:" >&2
    tail -n 1 "$venv/smollm2.log" >&2
fi
touch "$venv/installed"
