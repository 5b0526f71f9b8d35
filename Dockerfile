# Socratune for a CPU, or with other build arguments for an NVIDIA GPU: docs/guides/installing.md has both commands.
ARG BASE=docker.io/library/python:3.12-slim-bookworm
FROM ${BASE}
ARG TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu
ARG EXTRAS=train
ARG CONSTRAINTS=constraints.txt
SHELL ["/bin/bash", "-o", "pipefail", "-c"]

# Triton compiles its launcher with gcc when the first kernel runs, so the GPU image needs a compiler at run time.
# hadolint ignore=DL3008
RUN if [[ "$EXTRAS" == *gpu* ]]; then \
        apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*; \
    fi

WORKDIR /opt/socratune
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY src/socratune src/socratune
# An empty TORCH_INDEX_URL takes PyTorch from PyPI, which is the CUDA build.
# hadolint ignore=DL3013
RUN python3 -m venv /opt/venv \
    && if [[ -n "$TORCH_INDEX_URL" ]]; then \
        /opt/venv/bin/pip install --no-cache-dir --index-url "$TORCH_INDEX_URL" "$(grep '^torch==' "$CONSTRAINTS")"; \
    fi \
    && /opt/venv/bin/pip install --no-cache-dir --constraint "$CONSTRAINTS" ".[$EXTRAS]"

# Any user id works: HOME is writable for all, and PyTorch asks for a user name that the id may not have.
ENV PATH=/opt/venv/bin:$PATH HOME=/tmp USER=socratune HF_HUB_DISABLE_TELEMETRY=1
USER 1000:1000
WORKDIR /work
ENTRYPOINT ["socratune"]
CMD ["--help"]
