"""Write one of our data sets as the Parquet files of VectorDBBench's custom data sets.

    benchmarks/datasets.py, exact.py -> [dataset.py] -> a folder for --custom-dataset-dir

    python -m benchmarks.vectordbbench.dataset glove6b-100-angular FOLDER --n 50000 --queries 1000

    train.parquet          id int64, emb list<float32>
    test.parquet           id, emb
    neighbors.parquet      id, neighbors_id list<int64>: the exact 100 nearest rows, nearest first
    scalar_labels.parquet  id, labels: label_1p for 1 % of the rows, label_10p, label_50p, or other
    neighbors_labels_label_1p.parquet and so on: the exact nearest ones among the rows of that label

The rows are the first ones of the set, so a cut of a word set holds its frequent words.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks import datasets
from benchmarks.dataset_files import Dataset, Vectors
from benchmarks.environment import need
from benchmarks.exact import ground_truth

PERCENTAGES = (0.01, 0.1, 0.5)
METRICS = {"cosine": "COSINE", "l2": "L2"}


def label_of(percentage: float) -> str:
    """The label that marks this share of the rows, 0.01..0.99, as VectorDBBench spells it."""
    return f"label_{int(percentage * 100)}p"


def write(dataset: Dataset, folder: Path, *, n: int | None = None, queries: int = 1000) -> Path:
    """Write the first n rows and queries of a set, with exact answers; the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    train, test = dataset.train[:n], dataset.test[:queries]
    labels = labels_for(len(train))
    _table(folder / "train.parquet", emb=train)
    _table(folder / "test.parquet", emb=test)
    _table(folder / "scalar_labels.parquet", labels=labels)
    _neighbours(folder / "neighbors.parquet", dataset, np.arange(len(train)), train, test)
    for percentage in PERCENTAGES:
        label = label_of(percentage)
        rows = np.flatnonzero(labels == label)
        path = folder / f"neighbors_labels_{label}.parquet"
        _neighbours(path, dataset, rows, train, test)
    return folder


def labels_for(n: int) -> npt.NDArray[np.str_]:
    """A label for each of n rows, which knows nothing of the vectors; always the same ones."""
    labels = np.full(n, "other", dtype="U16")
    order, start = np.random.default_rng(0).permutation(n), 0
    for percentage in PERCENTAGES:
        end = start + max(1, round(percentage * n))
        labels[order[start:end]] = label_of(percentage)
        start = end
    return labels


def _neighbours(
    path: Path, dataset: Dataset, rows: npt.NDArray[np.int64], train: Vectors, test: Vectors
) -> None:
    """The exact nearest ones of these rows to each query."""
    k = min(datasets.NEIGHBOURS, len(rows))
    nearest, _ = ground_truth(train[rows], test, dataset.metric, k=k)
    _table(path, neighbors_id=rows[nearest].astype(np.int64))


def _table(path: Path, **columns: npt.NDArray[np.generic]) -> None:
    """A file of a column `id`, which counts the rows, and the given ones."""
    arrow, parquet = need("pyarrow"), need("pyarrow.parquet")
    n = len(next(iter(columns.values())))
    table = {"id": arrow.array(np.arange(n))}
    for name, values in columns.items():
        if values.ndim == 1:
            table[name] = arrow.array(values.tolist())
            continue
        offsets = np.arange(n + 1, dtype=np.int32) * values.shape[1]
        flat = arrow.array(np.ascontiguousarray(values).ravel())
        table[name] = arrow.ListArray.from_arrays(arrow.array(offsets), flat)
    parquet.write_table(arrow.table(table), path)


def main(arguments: Sequence[str] | None = None) -> None:
    """Write a set and say with which options VectorDBBench reads it."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.vectordbbench.dataset",
        description="One of our data sets as Parquet files for VectorDBBench.",
    )
    parser.add_argument("name", help="a set that `python -m benchmarks.datasets list` names")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--n", type=int, help="rows; all of them unless told")
    parser.add_argument("--queries", type=int, default=1000)
    given = parser.parse_args(arguments)
    dataset = datasets.load(given.name)
    folder = write(dataset, given.folder, n=given.n, queries=given.queries)
    print(" ".join(options(dataset, folder, given.n)))


def options(dataset: Dataset, folder: Path, n: int | None) -> list[str]:
    """The options of VectorDBBench's command line that choose this folder."""
    size, d = dataset.train[:n].shape
    return [
        *("--case-type", "PerformanceCustomDataset", "--custom-case-name", dataset.name),
        *("--custom-dataset-name", dataset.name, "--custom-dataset-dir", str(folder.resolve())),
        *("--custom-dataset-size", str(size), "--custom-dataset-dim", str(d)),
        *("--custom-dataset-metric-type", METRICS[dataset.metric]),
        *("--custom-dataset-file-count", "1", "--custom-dataset-with-gt"),
        "--skip-custom-dataset-use-shuffled",
    ]


if __name__ == "__main__":
    main()
