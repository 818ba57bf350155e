"""Which points to label next: weighted k-center over a collection. Run me.

    soardb.connect, soardb.pipelines.select -> [select_points.py]

    python examples/select_points.py [DIRECTORY]

Two thousand made-up notes on four topics are stored, a few of which bear a wrong label; the votes
of their neighbours say where labels are unsure, and fifty notes are chosen that are unsure and near
all others.
"""

import sys
import tempfile

import numpy as np

import soardb
from soardb.pipelines import select


def main(directory: str) -> None:
    rng = np.random.default_rng(0)
    topics = 3 * rng.standard_normal((4, 32))
    topic = rng.integers(0, 4, 2_000)
    vectors = (topics[topic] + 2 * rng.standard_normal((2_000, 32))).astype(np.float32)
    told = np.where(rng.random(2_000) < 0.1, rng.integers(0, 4, 2_000), topic)
    with soardb.connect(directory) as db:
        notes = db.create_collection(
            "notes", 32, "l2", schema={"topic": "keyword", "look_at": "bool"}
        )
        notes.upsert(np.arange(2_000), vectors, {"topic": [f"topic-{t}" for t in told]})

        config = select.SelectConfig(k=50, label_field="topic", radius_weight=0.5)
        chosen = select.run(notes, config)
        found = chosen.certificate
        print(f"radius {found.radius:.2f}, mean weight {found.weight / 50:.2f}")
        print(f"at most {found.ratio:.2f} times the best")

        chosen.write_field(notes, "look_at")
        wrong = np.mean(told[chosen.rows] != topic[chosen.rows])
        print(f"{notes.count('look_at = true')} to look at, {wrong:.0%} of them wrongly labelled")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(folder)
