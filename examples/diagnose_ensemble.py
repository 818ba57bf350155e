"""Which samples an ensemble cannot be right about: bias and variance of each. Run me.

    soardb.connect, soardb.pipelines.diagnose -> [diagnose_ensemble.py]

    python examples/diagnose_ensemble.py [DIRECTORY]

Twenty small networks are trained on made-up points of four kinds, from different initial weights
and in different orders. A few of the 1,000 test points bear a wrong label, which all networks get
wrong in the same way: much bias and little variance, so they are off the line.
"""

import sys
import tempfile

import numpy as np

import soardb
from soardb.pipelines import diagnose

MEMBERS, KINDS, DIM, HIDDEN = 20, 4, 16, 64


def trained(x: np.ndarray, y: np.ndarray, test: np.ndarray, seed: int) -> np.ndarray:
    """(n, c) logits for `test` of a network with one hidden layer, by gradient descent."""
    rng = np.random.default_rng(seed)
    first = rng.standard_normal((DIM, HIDDEN)) / np.sqrt(DIM)
    second = rng.standard_normal((HIDDEN, KINDS)) / np.sqrt(HIDDEN)
    for _ in range(400):
        rows = rng.integers(0, len(x), 64)
        hidden = np.maximum(x[rows] @ first, 0)
        e = np.exp(hidden @ second)
        error = (e / e.sum(axis=1, keepdims=True) - np.eye(KINDS)[y[rows]]) / len(rows)
        back = (error @ second.T) * (hidden > 0)
        second -= 0.1 * hidden.T @ error
        first -= 0.1 * x[rows].T @ back
    return np.maximum(test @ first, 0) @ second


def main(directory: str) -> None:
    rng = np.random.default_rng(0)
    middles = rng.standard_normal((KINDS, DIM))
    kind = rng.integers(0, KINDS, 2_000)
    points = (middles[kind] + rng.standard_normal((2_000, DIM))).astype(np.float32)
    test, labels = points[1_000:], kind[1_000:].copy()
    wrong = rng.random(1_000) < 0.02
    labels[wrong] = (labels[wrong] + rng.integers(1, KINDS, wrong.sum())) % KINDS
    logits = [trained(points[:1_000], kind[:1_000], test, seed) for seed in range(MEMBERS)]

    with soardb.connect(directory) as db:
        schema = {"bias": "float", "variance": "float", "misaligned": "bool"}
        samples = db.create_collection("samples", DIM, "l2", schema=schema)
        samples.upsert(np.arange(1_000), test, {"label": labels.tolist()})

        ensemble = diagnose.Ensemble.of_logits(logits, labels, randomness="init and order")
        found = diagnose.run(ensemble)
        line, half = found.fits["correct"], found.split_half[0]
        print(f"correct samples: slope {line.slope:.2f}, R^2 {line.r2:.2f}")
        print(f"from disjoint replicas: slope {half.slope:.2f}, R^2 {half.r2:.2f}")

        found.write_fields(samples)
        flagged = samples.scroll(filter="misaligned = true", page_size=1_000).points
        ids = [point.id for point in flagged]
        print(f"{len(ids)} misaligned, {wrong[ids].sum()} of {wrong.sum()} wrong labels in them")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(folder)
