"""The libraries that soardb is measured against, and soardb itself, behind one face.

    face.py -> soardb.py, scann.py, faiss.py, ... -> [peers] -> bench_peers.py, bench_batch.py

To add one: a module with a class of face.Peer's shape, and its line in PEERS.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

from benchmarks.peers.exact import Exact
from benchmarks.peers.face import (
    RERANKS,
    WIDTHS,
    Arguments,
    Library,
    Peer,
    Size,
    Spec,
    band,
    partitions,
    probes,
)
from benchmarks.peers.faiss import Faiss
from benchmarks.peers.hnswlib import Hnswlib
from benchmarks.peers.rabitq import SymQG
from benchmarks.peers.scann import Scann
from benchmarks.peers.soardb import Soardb, code_digest
from benchmarks.peers.svs import Svs
from benchmarks.peers.usearch import Usearch
from soardb.errors import InvalidArgument

__all__ = [
    "PEERS",
    "RERANKS",
    "WIDTHS",
    "Arguments",
    "Library",
    "Peer",
    "Size",
    "Soardb",
    "Spec",
    "band",
    "check_installed",
    "partitions",
    "probes",
]

PEERS = {
    "soardb": Library(Soardb, "soardb", "soardb", code_digest),
    "scann": Library(Scann, "scann", "scann"),
    "faiss": Library(Faiss, "faiss", "faiss-cpu"),
    "svs": Library(Svs, "svs", "scalable-vs"),
    "rabitq": Library(SymQG, "rabitqlib", "rabitqlib"),
    "hnswlib": Library(Hnswlib, "hnswlib", "hnswlib"),
    "usearch": Library(Usearch, "usearch", "usearch"),
    "exact": Library(Exact, "numpy", "numpy"),
}


def check_installed(libraries: Sequence[str]) -> None:
    """Raise InvalidArgument unless all libraries are known and importable here."""
    if unknown := [library for library in libraries if library not in PEERS]:
        raise InvalidArgument(f"expected libraries among {', '.join(PEERS)}; got {unknown}")
    missing = [name for name in libraries if importlib.util.find_spec(PEERS[name].module) is None]
    if missing:
        raise InvalidArgument(
            f"not installed: {', '.join(missing)}; pip install 'soardb[bench]', "
            "or name only the others with --libraries"
        )
