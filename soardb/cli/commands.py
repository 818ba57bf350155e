"""The commands of `soardb`: options in, calls to the engine, finished figures to tables.py.

    soardb.cli:main -> [commands.py] -> demo, index, evaluate, vectors_io

Results go to standard output, progress and errors to standard error. An error of soardb, or of the
file system, ends as one red line and exit code 2; an interrupt ends with 130. Whatever is slow to
load is imported inside the command that needs it, so that help comes at once.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from enum import StrEnum
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from soardb.cli import (
    asking,
    database,
    deciding,
    diagnosing,
    embedding,
    hiring,
    improving,
    layouts,
    models,
    pretraining,
    selecting,
    service,
    spactoring,
    tables,
)
from soardb.errors import InvalidArgument, NotFound, SoarError

if TYPE_CHECKING:
    from soardb.index import Index, SoarIndex
    from soardb.kernels.layout import F32, I64

EXIT_ERROR = 2
_PROBED_SHARES = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)  # of nlist, by `soardb bench`

app = typer.Typer(
    name="soardb",
    help="Vector search around a SOAR index: a database of collections, and the bare index.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


class MetricName(StrEnum):
    """How closeness is measured."""

    cosine = "cosine"
    dot = "dot"
    l2 = "l2"


class LayoutName(StrEnum):
    """How the options of an index are chosen."""

    formula = "formula"
    measured = "measured"


database.register(app)
service.register(app)
layouts.register(app)
selecting.register(app)
diagnosing.register(app)
deciding.register(app)
models.register(app)
hiring.register(models.app)
pretraining.register(models.app)
spactoring.register(models.app)
embedding.register(app, models.app)
asking.register(app)
improving.register(app)

VECTOR_FILE = "Vectors: .npy, .fvecs, .fbin, or an .hdf5 of ann-benchmarks."

K = Annotated[int, typer.Option("--k", "-k", min=1, help="Neighbours a query.")]
Nlist = Annotated[
    int | None, typer.Option(min=0, help="Partitions; 0 is exact search. Default: from the data.")
]
SoarLambda = Annotated[
    float | None, typer.Option(min=0, help="SOAR spilling; 0 is off. Default: from the data.")
]
DimsPerBlock = Annotated[
    int | None, typer.Option(min=1, help="Dimensions a 4-bit code. Default: from the data.")
]
Nprobe = Annotated[int | None, typer.Option(min=1, help="Partitions visited a query.")]
Rerank = Annotated[int | None, typer.Option(min=1, help="Candidates that are scored again.")]
Seed = Annotated[int, typer.Option(min=0, help="Same seed and data, same index.")]
CORES = os.cpu_count() or 1
BuildThreads = Annotated[int, typer.Option("--threads", min=1, help="Threads of the build.")]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0, 2 on an error, 130 on an interrupt."""
    try:
        app(args=None if arguments is None else list(arguments))
    except (SoarError, OSError) as error:
        tables.failure(error)
        sys.exit(EXIT_ERROR)


@app.callback(invoke_without_command=True)
def version(
    show: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if show:
        print(metadata.version("soardb"))
        raise typer.Exit


@app.command()
def demo(
    word: Annotated[
        list[str] | None, typer.Option("--word", "-w", help="A word to ask; may be repeated.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(help="Only so many words, the most frequent ones.")
    ] = None,
    seed: Seed = 0,
    threads: BuildThreads = CORES,
    save: Annotated[Path | None, typer.Option(help="Write the index to this file.")] = None,
) -> None:
    """Index 400,000 real word vectors, measure the index, ask it a few words."""
    from soardb.demo import load_words, run

    if save is not None:
        _check_folder(save)
    tables.note("reading the word vectors")
    words = load_words(limit)
    with tables.bars() as progress:
        found = run(words, word, seed=seed, threads=threads, progress=progress)
    tables.neighbours(found.neighbours)
    title = f"recall@10 and speed of {found.held_out:,} words that the index had not seen"
    usual = _usual_nprobe(found.index)
    tables.curve(found.curve, f"{title}, one query a call, one thread", usual)
    _show_memory("bytes a vector, as built", found.memory)
    _show_index("index", found.index, found.train_s, found.add_s)
    tables.facts("machine", _installation())
    if save is not None:
        found.index.save(save)
        tables.note(f"saved to {save}")


@app.command()
def build(
    source: Annotated[Path, typer.Argument(metavar="INPUT", help=VECTOR_FILE)],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The index file to write.")],
    metric: Annotated[MetricName, typer.Option(help="Closeness.")] = MetricName.cosine,
    layout: Annotated[
        LayoutName, typer.Option(help="How options that are not given are chosen.")
    ] = LayoutName.formula,
    nlist: Nlist = None,
    soar_lambda: SoarLambda = None,
    dims_per_block: DimsPerBlock = None,
    seed: Seed = 0,
    threads: BuildThreads = CORES,
    ids: Annotated[
        Path | None, typer.Option(help="Ids: .npy of integers. Default: row numbers.")
    ] = None,
) -> None:
    """Build an index over a file of vectors."""
    from soardb.vectors_io import read_ids, read_vectors

    _check_folder(out)
    tables.note(f"reading {source}")
    vectors = read_vectors(source)
    index, train_s, add_s = _build(
        vectors,
        metric.value,
        None if ids is None else read_ids(ids),
        layout=layout.value,
        nlist=nlist,
        soar_lambda=soar_lambda,
        dims_per_block=dims_per_block,
        seed=seed,
        threads=threads,
    )
    index.save(out)
    _show_index(str(out), index, train_s, add_s)


@app.command()
def search(
    index_file: Annotated[Path, typer.Argument(metavar="INDEX", help="An index file.")],
    queries_file: Annotated[Path, typer.Argument(metavar="QUERIES", help=VECTOR_FILE)],
    k: K = 10,
    nprobe: Nprobe = None,
    rerank: Rerank = None,
    target_recall: Annotated[
        float | None,
        typer.Option(
            help="Share of the true neighbours to find: settings are chosen for it.", min=0, max=1
        ),
    ] = None,
    exact: Annotated[bool, typer.Option("--exact", help="Score every vector.")] = False,
    threads: Annotated[int, typer.Option(min=1, help="Threads for many queries.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a query.")] = False,
    out: Annotated[Path | None, typer.Option(help="Write scores and ids to this .npz.")] = None,
) -> None:
    """Find the neighbours of every query in a file (of an .hdf5: its test set)."""
    from soardb.vectors_io import read_vectors

    if out is not None:
        _check_folder(out)
        if out.suffix != ".npz":
            raise InvalidArgument(f"expected a file name ending in .npz, got {out.name}")
    index = _load(index_file)
    queries = read_vectors(queries_file, part="test")
    scores, ids = index.search(
        queries,
        k,
        nprobe=nprobe,
        rerank=rerank,
        target_recall=target_recall,
        exact=exact,
        threads=threads,
    )
    if out is not None:
        import numpy as np

        np.savez(out, scores=scores, ids=ids)
        tables.note(f"saved to {out}")
    if as_json:
        rows = zip(ids.tolist(), scores.tolist(), strict=True)
        for query, (row_ids, row_scores) in enumerate(rows):
            print(json.dumps({"query": query, "ids": row_ids, "scores": row_scores}))
    elif out is None:
        tables.results(scores, ids)


@app.command()
def info(
    index_file: Annotated[
        Path | None, typer.Argument(metavar="[INDEX]", help="An index file, which is checked.")
    ] = None,
) -> None:
    """Show this installation; and of an index file, what it holds and whether it is sound."""
    tables.facts("soardb", _installation())
    if index_file is None:
        return
    from soardb.evaluate import bytes_per_vector

    index = _load(index_file)
    index.validate()
    tables.facts(str(index_file), {"vectors": f"{len(index):,}"} | _parameters(index))
    if len(index):
        _show_memory("bytes a vector", bytes_per_vector(index))
    print("valid: every checksum and every invariant holds")


@app.command()
def bench(
    data: Annotated[Path, typer.Argument(metavar="DATA.hdf5", help="A file of ann-benchmarks.")],
    k: K = 10,
    nprobe: Annotated[
        list[int] | None, typer.Option(min=1, help="Partitions visited; may be repeated.")
    ] = None,
    rerank: Rerank = None,
    queries: Annotated[int | None, typer.Option(min=1, help="Only so many of the queries.")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Passes over the queries.")] = 3,
    nlist: Nlist = None,
    soar_lambda: SoarLambda = None,
    dims_per_block: DimsPerBlock = None,
    seed: Seed = 0,
    threads: BuildThreads = CORES,
    out: Annotated[Path | None, typer.Option("--json", help="Write all figures here.")] = None,
) -> None:
    """Index a benchmark file; measure recall and speed over nprobe."""
    import numpy as np

    from soardb.evaluate import Exam, bytes_per_vector, exact_scores, search_curve
    from soardb.vectors_io import read_benchmark

    if out is not None:
        _check_folder(out)
    tables.note(f"reading {data}")
    file = read_benchmark(data)
    listed = file.neighbors.shape[1]
    if k > listed:
        raise InvalidArgument(f"expected k within 1..{listed}, as {data} lists so many, got {k}")
    index, train_s, add_s = _build(
        file.train,
        file.metric,
        None,
        nlist=nlist,
        soar_lambda=soar_lambda,
        dims_per_block=dims_per_block,
        seed=seed,
        threads=threads,
    )
    # Drawn, as the first ones of a sorted file may be easier than most.
    drawn = np.random.default_rng(seed).permutation(len(file.test))[:queries]
    asked, true_rows = file.test[drawn], file.neighbors[drawn, :k]
    true_scores = exact_scores(file.train, asked, true_rows, file.metric)
    exam = Exam(file.train, asked, true_scores, file.metric, k)
    curve = search_curve(index, exam, nprobe or _nprobes(index), rerank=rerank, repeats=repeats)
    title = f"{data.stem}: recall@{k} and speed, one query a call, one thread"
    tables.curve(curve, title, _usual_nprobe(index))
    memory = bytes_per_vector(index)
    _show_memory("bytes a vector", memory)
    _show_index("index", index, train_s, add_s)
    if out is not None:
        report = {
            "installation": _installation(),
            "dataset": {"name": data.stem, "n": len(file.train), "queries": len(asked), "k": k},
            "index": _parameters(index),
            "query_threads": 1,
            "repeats": repeats,
            "train_s": train_s,
            "add_s": add_s,
            "bytes_per_vector": memory,
            "points": [point.as_dict() for point in curve],
        }
        out.write_text(json.dumps(report, indent=1) + "\n", "utf-8")


# ------------------------------------------------------------------ what commands share


def _check_folder(file: Path) -> None:
    """Before any work is done for a file that cannot be written."""
    if file.is_dir():
        raise InvalidArgument(f"expected the name of a file to write, got the folder {file}")
    if not file.parent.is_dir():
        raise NotFound(f"expected the folder {file.parent} to exist; make it first")
    if not os.access(file.parent, os.W_OK):
        raise InvalidArgument(f"expected a folder that can be written to, got {file.parent}")


def _build(
    vectors: F32, metric: str, ids: I64 | None, **options: Any
) -> tuple[SoarIndex, float, float]:
    """A filled index, seconds of train() and seconds of add()."""
    from soardb.index import SoarIndex

    index = SoarIndex(vectors.shape[1], metric, **options)
    with tables.bars() as progress:
        start = time.perf_counter()
        index.train(vectors, progress)
        trained = time.perf_counter()
        index.add(vectors, ids, progress)
        return index, trained - start, time.perf_counter() - trained


def _load(file: Path) -> Index:
    """An index of whatever kind the file holds."""
    from soardb.index import INDEXES

    for kind in INDEXES[:-1]:
        try:
            return kind.load(file)
        except InvalidArgument:  # a sound file of another kind
            continue
    return INDEXES[-1].load(file)


def _usual_nprobe(index: SoarIndex) -> int | None:
    """What a search visits unless told otherwise; None where every search is exact."""
    return index.default_nprobe or None


def _nprobes(index: SoarIndex) -> list[int | None]:
    usual = _usual_nprobe(index)
    if usual is None:
        return [None]
    return [*sorted({max(1, round(share * index.nlist)) for share in _PROBED_SHARES} | {usual})]


def _parameters(index: Index) -> dict[str, Any]:
    """The parameters of an index, chosen ones included."""
    from soardb.index import SoarIndex

    if isinstance(index, SoarIndex):
        facts = index.describe() | {"spilled_share": round(index.spilled_share, 4)}
        return {name: value for name, value in facts.items() if value is not None}
    return {"kind": "exact", "d": index.d, "metric": index.metric}


def _show_index(title: str, index: SoarIndex, train_s: float, add_s: float) -> None:
    built = f"{train_s + add_s:.1f} s (train {train_s:.1f}, add {add_s:.1f})"
    tables.facts(title, {"vectors": f"{len(index):,}", "built in": built} | _parameters(index))


def _show_memory(title: str, parts: dict[str, float]) -> None:
    tables.facts(title, {part: f"{size:,.1f}" for part, size in parts.items()})


def _installation() -> dict[str, str]:
    import numpy as np

    from soardb.kernels import dispatch

    chosen = dispatch.describe()
    return {
        "version": metadata.version("soardb"),
        "kernels": chosen.backend,
        "SIMD level": chosen.simd,
        "SIMD levels here": " ".join(dispatch.levels()) or "none",
        "CPU features": chosen.cpu_features or "only the native kernels look at them",
        "CPU": f"{platform.machine()}, {os.cpu_count()} cores",
        "NumPy": np.__version__,
        "Python": f"{platform.python_version()}, {platform.system()}",
    }
