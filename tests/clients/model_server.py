"""A llama.cpp server in a process of its own: `python -m tests.clients.model_server MODEL ADDRESS`.

It serves the file MODEL on a free port and writes its URL into the file ADDRESS once it listens.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import xllamacpp

ALIAS = "tiny/chat"


def main(model: Path, address: Path) -> None:
    params = xllamacpp.CommonParams()
    params.model.path = str(model)
    params.model_alias = {ALIAS}
    params.n_parallel = 1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.n_threads_http = 4
    params.n_gpu_layers = 0
    params.cache_prompt = False
    params.warmup = False
    params.embedding = True
    params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    params.port = 0
    server = xllamacpp.Server(params)
    address.write_text(server.listening_address)
    signal.pause()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
