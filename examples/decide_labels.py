"""Answers that are best for a metric, under the labels stored near to a question. Run me.

    soardb.connect, soardb.pipelines.decide -> [decide_labels.py]

    python examples/decide_labels.py [DIRECTORY]

Made-up reviews with 1 to 5 stars are stored; 200 come without stars. Their neighbours give a
distribution over stars each, and every metric wants another answer of it.
"""

import sys
import tempfile

import numpy as np

import soardb
from soardb.pipelines import decide

DIM = 6


def main(directory: str) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((4_200, DIM)).astype(np.float32)
    mood = vectors[:, :3].sum(axis=1) + rng.standard_normal(4_200)
    stars = np.clip(np.rint(3.5 + 0.8 * mood), 1, 5).astype(int)
    known, asked = slice(0, 4_000), slice(4_000, None)

    with soardb.connect(directory) as db:
        reviews = db.create_collection("reviews", DIM, "l2", schema={"stars": "int"})
        reviews.upsert(np.arange(4_000), vectors[known], {"stars": stars[known].tolist()})
        reviews.upsert(np.arange(4_000, 4_200), vectors[asked])

        decided = decide.run(reviews, decide.DecideConfig("rmse", label_field="stars"))
        print(f"temperature {decided.temperature:.2f}, measured on stored reviews")
        truths = stars[decided.ids]
        laws = decided.laws
        metrics = {"exact_match": "mode", "rmse": "mean", "absolute_error": "median"}
        rules = {name: decide.METRICS[m].decide(laws) for m, name in metrics.items()}
        table = decide.compare(rules, truths, metrics)
        for (name, metric), cell in table.cells.items():
            own = "  <- its own" if table.own[metric] == name else ""
            print(f"{name:<7} {metric:<15} {cell.value:.3f} ({cell.low:.3f}..{cell.high:.3f}){own}")

        best = decide.run(reviews, decide.DecideConfig("exact_match", label_field="stars"))
        print(f"{best.write_field(reviews, 'stars')} reviews have stars now")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(folder)
