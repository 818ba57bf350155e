"""From one machine to a cluster on Ray, and back: run me.

    soardb.connect -> [cluster.py]; needs pip install 'soardb[ray]'

    python examples/cluster.py [DIRECTORY]

Two thousand points of a database go to four shards, each a process of its own, by a snapshot; they
are searched there, whole and merged from fewer results than were wanted; one shard dies and comes
back; then all goes home again.
"""

import os
import signal
import sys
import tempfile
from pathlib import Path

import numpy as np

import soardb


def main(directory: Path) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((2_000, 32), dtype=np.float32)
    with soardb.connect(directory / "one") as here:
        notes = here.create_collection("notes", dim=32, schema={"page": "int"})
        notes.upsert(np.arange(2_000), vectors, {"page": list(range(2_000))})
        here.snapshot("notes", directory / "notes.snapshot")

        with soardb.connect("ray://local", storage=directory / "shared", shards=4) as there:
            spread = there.restore(directory / "notes.snapshot", "notes")
            print(f"{len(spread):,} points on {spread.shards} shards")

            same = notes.search(vectors[5], 20, exact=True).ids.tolist()
            assert spread.search(vectors[5], 20, exact=True).ids.tolist() == same
            hits = spread.search(vectors[5], 20, merge_recall=0.95, measure_merge=True)
            print(hits.plan.spread)

            os.kill(there.processes()["shard-0002"], signal.SIGKILL)
            spread.upsert([2_000], vectors[:1], {"page": [2_000]})
            print(f"{spread.count('page >= 1000'):,} match after a shard has died")

            there.snapshot("notes", directory / "four")
            there.stop()
        back = here.restore(directory / "four", "notes-again")
        print(f"{len(back):,} points are home again")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(Path(folder))
