"""What recipes share: setting queries aside, dropping copies, drawing clusters.

The recipes themselves need packages of many megabytes; test_datasets.py makes the tiny set whole.
"""

from __future__ import annotations

import numpy as np

from benchmarks.recipes import distinct, mixture, split


class TestRows:
    def test_split_is_disjoint_seeded_and_in_order(self) -> None:
        vectors = np.arange(40, dtype=np.float32).reshape(20, 2)
        words = [str(row) for row in range(20)]
        rows, again = split(vectors, words, 5), split(vectors, words, 5)
        assert (rows.test == again.test).all()
        assert len(rows.train) == 15
        assert sorted([*rows.train[:, 0], *rows.test[:, 0]]) == list(vectors[:, 0])
        assert (np.diff(rows.train[:, 0]) > 0).all()
        assert rows.labels is not None
        assert [float(word) * 2 for word in rows.labels] == list(rows.train[:, 0])

    def test_distinct_drops_zeros_and_later_copies(self) -> None:
        vectors = np.array([[1, 0], [0, 0], [2, 0], [1, 0], [1, -0.0], [-0.0, 0]], np.float32)
        assert distinct(vectors).tolist() == [0, 2]

    def test_mixture_is_seeded_and_clustered(self) -> None:
        a = mixture(2000, 16, clusters=5, rank=2, noise=0.01, seed=3)
        b = mixture(2000, 16, clusters=5, rank=2, noise=0.01, seed=3)
        assert (a == b).all()
        # Five planes through five centres: 5 x 3 directions at most carry the variance.
        spectrum = np.linalg.svd(a, compute_uv=False)
        assert spectrum[15] < 0.05 * spectrum[0]
