"""Built indexes of the measured libraries, kept between runs with what their build cost.

    [index_cache.py] <- peer_worker.py, bench_batch.py

An index is found again by everything that decides what it is: the data set's sum, the library and
its version, and the parameters of the build. Its folder holds what the library saved and, written
last, facts.json: seconds, memory and date of the build. A folder without it is one whose writing
was cut off, and is made anew.

The code at hand changes without its version, so a library may say more of what it is
(face.Library.identity).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.peers.face import Library, Peer, Spec

FACTS = "facts.json"


def root() -> Path:
    """The folder of all kept indexes: $SOARDB_INDEXES, else ~/.cache/soardb/indexes."""
    return Path(os.environ.get("SOARDB_INDEXES") or Path.home() / ".cache" / "soardb" / "indexes")


def folder_of(spec: Spec, library: Library, dataset_sha256: str, k: int, threads: int) -> Path:
    """Where this index is kept, whether it is there or not."""
    identity = json.dumps(
        {
            "data": dataset_sha256,
            "library": f"{library.distribution} {library.version} {library.identity()}",
            "build": dict(spec.build),
            "k": k,
            "threads": threads,
        },
        sort_keys=True,
    )
    return root() / f"{spec.label}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"


def read_facts(folder: Path) -> dict[str, Any] | None:
    """What was written down when the index in this folder was built; None where there is none."""
    path = folder / FACTS
    if not path.exists():
        return None
    facts: dict[str, Any] = json.loads(path.read_text())
    return facts


def keep(peer: Peer, folder: Path, facts: Mapping[str, Any]) -> None:
    """Save a built index into its folder, whatever was there before."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "index").mkdir(parents=True)
    peer.save(folder / "index")
    (folder / FACTS).write_text(json.dumps(facts, indent=1) + "\n")


def reopen(peer: Peer, folder: Path) -> None:
    """Let a peer be the index of this folder."""
    peer.open(folder / "index")
