"""A GGUF file served by llama.cpp on this machine, to be asked like any other server.

    a GGUF file -> [llama_cpp.py] -> openai_api.py

The server runs in this process, on 127.0.0.1 and a free port, until the block ends. It keeps to
grammars, which makes something of models that are too weak for the format of a step.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from soardb.arrays import as_int
from soardb.errors import InvalidArgument, NotFound, Unavailable

__all__ = ["served"]

_MAGIC = b"GGUF"


@contextmanager
def served(
    gguf: str | Path, *, context: int = 8192, threads: int | None = None, samples: int = 16
) -> Iterator[str]:
    """The url of a server of a GGUF file, for OpenAIModel, as long as the block is in.

    context  tokens that a prompt and its sample may have together
    threads  as many as llama.cpp likes unless told
    samples  that are written side by side; more of one prompt are refused. They share the memory
             of `context` tokens, and a prompt's its own once

    Costs as long as the file takes to load. Errors: NotFound; InvalidArgument for a file that is no
    model; Unavailable without the xllamacpp package.
    """
    path = Path(gguf)
    if not path.is_file():
        raise NotFound(f"expected a GGUF file, there is none at {path}")
    with path.open("rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise InvalidArgument(f"{path}: expected a GGUF file, got another")
    library = _need_xllamacpp()
    params = library.CommonParams()
    params.model.path = str(path)
    params.port = 0
    params.hostnames = ["127.0.0.1"]
    params.n_ctx = as_int(context, "context", 16, 2**24)
    params.n_parallel = as_int(samples, "samples", 1, 256)
    params.kv_unified = True  # or each of the samples had a share of the context alone
    params.verbosity = 0
    params.warmup = False
    params.ui = False
    if threads is not None:
        count = as_int(threads, "threads", 1, 1024)
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = count
    try:
        server = library.Server(params)
    except RuntimeError as error:
        raise InvalidArgument(f"{path}: llama.cpp cannot load it: {error}") from error
    try:
        yield f"{server.listening_address}/v1"
    finally:
        del server  # which ends it
        gc.collect()


def _need_xllamacpp() -> Any:
    try:
        import xllamacpp
    except ModuleNotFoundError as error:
        raise Unavailable("xllamacpp is not installed; pip install 'soardb[llama-cpp]'") from error
    return xllamacpp
