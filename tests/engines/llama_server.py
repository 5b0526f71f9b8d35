"""llama.cpp's own server in a process of its own: prints its address, and ends where its standard input does.

python llama_server.py MODEL.gguf CONTEXT_TOKENS
"""

from __future__ import annotations

import sys

import xllamacpp  # pyright: ignore[reportMissingImports]

asked = xllamacpp.CommonParams()
asked.model.path = sys.argv[1]
asked.n_ctx = int(sys.argv[2])  # of all slots together
asked.n_parallel = 2
asked.kv_unified = False
asked.n_gpu_layers = 0
asked.port = 0
asked.ui = False
asked.warmup = False
asked.cpuparams.n_threads = asked.cpuparams_batch.n_threads = (
    1  # its threads spin, and two stand still on a busy machine
)
server = xllamacpp.Server(asked)
print(server.listening_address, flush=True)
sys.stdin.read()
