# make setup | demo | test | check | bench, and nothing else to learn.
.DEFAULT_GOAL := help
SHELL := /bin/sh
VENV ?= .venv
ENGINES ?= .venv-engines
DOCS ?= .venv-docs
PY := $(VENV)/bin/python
FUZZ_MINUTES ?= 10
export HF_HUB_DISABLE_TELEMETRY := 1

.PHONY: help setup demo demo-real lab test test-engines test-engines-small test-experiments storm fuzz check bench docs evidence-small test-arango audit pages

help:
	@echo "make setup   create $(VENV) and install Socratune with what its checks need"
	@echo "make demo    the whole pipeline on the embedded model: about a minute on two cores, no GPU, no keys"
	@echo "make demo-real  the same on SmolLM2-135M, a real model: about a quarter of an hour on two cores, 93 MB once"
	@echo "make test    all tests, two at a time"
	@echo "make test-engines   real programs: llama.cpp, TRL, LiteLLM, clients, trackers, Ray, SkyPilot, in $(ENGINES)"
	@echo "make storm   more accidents of each kind: a killed client at every moment, cut connections, four ranks, the demo"
	@echo "make fuzz    random input for every reader, and damaged run folders: FUZZ_MINUTES, or ten"
	@echo "make bench   how close the loop comes to what a model server allows, and what it loses: about five minutes"
	@echo "make lab     the pipeline on the laboratory's base, and on data nobody can learn: five minutes on two cores"
	@echo "make test-experiments   the tests of experiments/: its laboratory and the page of evidence"
	@echo "make evidence-small   a reduced hint-value curve on the laboratory's base: a quarter of an hour on two cores"
	@echo "make test-arango   the ArangoDB tests against arangodb:3.12 in Docker, or the server in ARANGO_URL"
	@echo "make docs    the documentation site, built strictly into site/; the generator is installed into $(DOCS)"
	@echo "make audit   licences and known vulnerabilities of the packages in $(VENV)"
	@echo "make pages   pictures of example pages in docs/figures and examples/model-card.md, from two runs on the embedded model"
	@echo "make check   lint, types, layers, generated docs, links"

setup: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt scripts/setup.sh
	@sh scripts/setup.sh $(VENV)

demo: setup
	@$(VENV)/bin/socratune demo --output outputs/demo

demo-real: setup
	@$(VENV)/bin/socratune run --config examples/real.yaml --output outputs/demo-real

lab: setup
	@$(PY) experiments/lab/demo.py --output outputs/lab

bench: setup
	@$(PY) benchmarks/loop.py
	@$(PY) benchmarks/whole.py
	@$(PY) benchmarks/crash.py
	@$(PY) benchmarks/storm.py
	@$(PY) benchmarks/generate.py

test: setup
	@sh scripts/test-programs.sh
	@$(PY) -m pytest -n 2 --dist loadfile

test-experiments: setup
	@$(PY) -m pytest -n 2 --dist loadfile experiments/tests
$(ENGINES)/installed: pyproject.toml constraints.txt scripts/setup.sh
	@sh scripts/setup.sh $(ENGINES) engines

# SkyPilot and Socratune want other versions of click and uvicorn, so its command has an environment inside the other.
$(ENGINES)/skypilot/installed: constraints.txt | $(ENGINES)/installed
	@$(ENGINES)/bin/python -m venv $(ENGINES)/skypilot
	@$(ENGINES)/skypilot/bin/python -m pip --disable-pip-version-check install --quiet "$$(grep '^skypilot==' constraints.txt)"
	@touch $@

# LiteLLM's proxy pins half of what it needs.
$(ENGINES)/litellm/installed: constraints.txt | $(ENGINES)/installed
	@$(ENGINES)/bin/python -m venv $(ENGINES)/litellm
	@$(ENGINES)/litellm/bin/python -m pip --disable-pip-version-check install --quiet "$$(sed -n 's/^litellm==/litellm[proxy]==/p' constraints.txt)"
	@touch $@

# Other trainers want each other's versions of everything: their packages alone, and what reading a configuration imports.
TRAINERS := axolotl==0.19.0 llamafactory==0.9.5 ms-swift==4.6.0
$(ENGINES)/trainers/installed: | $(ENGINES)/installed
	@$(ENGINES)/bin/python -m pip --disable-pip-version-check install --quiet --no-deps --target $(ENGINES)/trainers \
		$(TRAINERS) addict cffi cryptography einops json_repair modelscope modelscope-hub omegaconf \
		aiohappyeyeballs aiohttp aiosignal attrs frozenlist multidict propcache yarl
	@touch $@

# verifiers wants older versions of data sets and clients: those beside, whatever else it needs from the environment outside.
$(ENGINES)/verifiers/installed: | $(ENGINES)/installed
	@$(ENGINES)/bin/python -m venv --without-pip $(ENGINES)/verifiers
	@cd $(ENGINES)/verifiers/lib/python3*/site-packages && \
		$(abspath $(ENGINES))/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > outside.pth
	@$(ENGINES)/verifiers/bin/python -m pip --disable-pip-version-check install --quiet verifiers==0.1.14 2>&1 | \
		grep -v -e "dependency resolver" -e "^trl .*datasets" || true
	@$(ENGINES)/verifiers/bin/python -c 'import verifiers'
	@touch $@

# llama.cpp's converter is in no wheel; the source of its Python binding has it, and is not built.
LLAMA_CPP_PYTHON := llama_cpp_python-0.3.36
$(ENGINES)/llama.cpp/installed: constraints.txt | $(ENGINES)/installed
	@mkdir -p $(ENGINES)/llama.cpp
	@$(ENGINES)/bin/python -m pip --disable-pip-version-check download --quiet --no-deps --no-binary llama-cpp-python \
		--dest $(ENGINES)/llama.cpp llama-cpp-python==0.3.36
	@tar -xzf $(ENGINES)/llama.cpp/$(LLAMA_CPP_PYTHON).tar.gz -C $(ENGINES)/llama.cpp --strip-components=3 \
		$(LLAMA_CPP_PYTHON)/vendor/llama.cpp/convert_hf_to_gguf.py $(LLAMA_CPP_PYTHON)/vendor/llama.cpp/conversion \
		$(LLAMA_CPP_PYTHON)/vendor/llama.cpp/gguf-py
	@rm $(ENGINES)/llama.cpp/$(LLAMA_CPP_PYTHON).tar.gz
	@touch $@

test-engines: $(ENGINES)/litellm/installed $(ENGINES)/llama.cpp/installed $(ENGINES)/trainers/installed \
	$(ENGINES)/verifiers/installed test-engines-small

# What CI has time for: without LiteLLM's proxy and llama.cpp's converter, whose tests are skipped where these are not there.
test-engines-small: $(ENGINES)/installed $(ENGINES)/skypilot/installed
	@PATH="$$PATH:$(abspath $(ENGINES)/skypilot/bin):$(abspath $(ENGINES)/litellm/bin)" $(ENGINES)/bin/python -m pytest \
		tests/engines tests/compute/test_ray.py tests/compute/test_sky.py tests/training/test_monitor.py \
		tests/llm/test_connection.py \
		-k "not the_script" --durations=10  # the script: make test runs it

storm: setup
	@$(PY) -m pytest -m storm
	@$(PY) benchmarks/kills.py

fuzz: setup
	@$(PY) tests/fuzz --minutes $(FUZZ_MINUTES)

evidence-small: setup
	@$(PY) experiments/lab/curve.py experiments/lab/base --small --out outputs/evidence-small.json
	@$(PY) experiments/evidence.py --order outputs/evidence-small.json

test-arango: setup
	@if [ -n "$$ARANGO_URL" ]; then exec $(PY) -m pytest tests/documents/test_arango.py; fi; \
	docker compose -f compose.arango.yaml up --detach --wait || exit 1; \
	ARANGO_URL=http://127.0.0.1:8529 ARANGO_USER=root ARANGO_PASSWORD=socratune $(PY) -m pytest tests/documents/test_arango.py; \
	status=$$?; docker compose -f compose.arango.yaml down --volumes; exit $$status

$(DOCS)/installed: pyproject.toml constraints.txt scripts/setup.sh
	@sh scripts/setup.sh $(DOCS) docs

docs: $(DOCS)/installed
	@$(DOCS)/bin/zensical build --clean --strict

check: setup
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/basedpyright
	@$(PY) -m pytest -q tests/test_layers.py tests/test_docs.py
	@$(PY) scripts/reference_docs.py --check
	@$(PY) experiments/evidence.py --check

$(VENV)-audit/installed: Makefile
	@$(PY) -m venv $(VENV)-audit
	@$(VENV)-audit/bin/python -m pip --disable-pip-version-check install --quiet pip-audit==2.10.1 pip-licenses==5.5.5
	@touch $@

audit: setup $(VENV)-audit/installed
	@$(VENV)-audit/bin/python scripts/audit.py $(PY)

pages: setup
	@$(PY) scripts/example_pages.py docs/figures
