"""The biggest of many: exactly, nearly, by prediction, and over shards. Run me.

    soardb.topk -> [best_of_many.py]

    python examples/best_of_many.py

Made-up vectors with a falling spectrum, as embeddings have it. Every approximate answer is printed
with the recall that was expected of it and the recall that it has.
"""

import numpy as np

from soardb.topk import (
    Hire,
    Quantized,
    approx_topk,
    expected_recall,
    merge_topk,
    plan_shards,
    topk,
)


def recall(found: np.ndarray, exact: np.ndarray) -> float:
    return float(np.mean([np.isin(a, b).mean() for a, b in zip(exact, found, strict=True)]))


def main() -> None:
    rng = np.random.default_rng(0)
    spectrum = 1 / np.sqrt(1 + np.arange(64, dtype=np.float32))
    vectors = rng.standard_normal((50_000, 64), dtype=np.float32) * spectrum
    queries = rng.standard_normal((600, 64), dtype=np.float32) * spectrum
    asked = queries[500:]
    scores = asked @ vectors.T  # (100, 50_000)

    _, exact = topk(scores, 2000)
    found = approx_topk(scores, 2000, recall_target=0.95)
    print(
        f"2,000 of 50,000 by {found.plan.buckets} buckets of {found.plan.keep}: "
        f"expected {found.plan.expected_recall:.3f}, found {recall(found.ids, exact):.3f}"
    )

    hire = Hire(vectors, Quantized(vectors, bits=4))
    hire.calibrate(queries[:500], k=10, recall_target=0.95)
    _, rows = hire.topk(asked, k=10)
    print(
        f"10 neighbours from 4-bit copies, {hire.predicted} scored again: "
        f"asked for 0.950, found {recall(rows, exact[:, :10]):.3f}"
    )

    shards, k = 8, 100
    plan = plan_shards(len(vectors), k, shards, recall_target=0.99)
    home = rng.permutation(len(vectors)) % shards  # at random, as a hash of the id places them
    answers = []
    for shard in range(shards):
        held = np.flatnonzero(home == shard)
        best, places = topk(np.ascontiguousarray(scores[:, held]), plan.c)
        answers.append((best, held[places]))
    _, ids = merge_topk(answers, k)
    print(
        f"{k} from {shards} shards that answer with {plan.c} each: expected "
        f"{expected_recall(len(vectors), k, shards, plan.c):.3f}, "
        f"found {recall(ids, exact[:, :k]):.3f}"
    )


if __name__ == "__main__":
    main()
