"""The commands over a database directory: stats, tune, check, repair and their like.

    commands.py -> [database.py] -> connect, checkup, exchange

Each opens the directory, does one thing and closes it. What only reads may run beside a process
that has it open; what writes may not, and says which process that is.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from soardb.cli import tables
from soardb.curve import DEFAULT_TARGET, QUERIES
from soardb.errors import InvalidArgument

EXIT_FOUND = 1

Directory = Annotated[Path, typer.Argument(metavar="DIR", help="A database directory.")]
Name = Annotated[str, typer.Argument(metavar="COLLECTION", help="A collection or an alias.")]
New = Annotated[str, typer.Argument(metavar="COLLECTION", help="The collection.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    for name, command in (
        ("stats", stats),
        ("tune", tune),
        ("check", check),
        ("repair", repair),
        ("snapshot", snapshot),
        ("restore", restore),
        ("export", export),
        ("import", import_),
    ):
        app.command(name)(command)


def stats(
    directory: Directory,
    as_json: Annotated[bool, typer.Option("--json", help="As one JSON object.")] = False,
) -> None:
    """Show the collections of a database: points, index, bytes in memory and on disk."""
    from soardb.connect import connect

    with connect(directory, read_only=True) as database:
        names = database.list_collections()
        found = {name: database.get_collection(name) for name in names}
        figures = {name: collection.stats() for name, collection in found.items()}
        if as_json:
            print(json.dumps(figures))
            return
        aliases = database.list_aliases()
        for name, collection in found.items():
            figure = figures[name]
            also = ", ".join(alias for alias, target in aliases.items() if target == name)
            tables.facts(
                name + (f" (also {also})" if also else ""),
                {
                    "vectors": f"{figure['points']:,} of {collection.d} dimensions",
                    "metric": collection.metric,
                    "fields": ", ".join(f"{n} {t}" for n, t in collection.schema.items()) or "none",
                    "index": "exact" if figure["is_exact"] else f"{figure['nlist']} partitions",
                    "since the last generation": f"{figure['since_generation']:,}",
                    "struck": f"{figure['struck']:,}",
                }
                | {f"memory: {k}": f"{v:,}" for k, v in figure["memory_bytes"].items() if v}
                | {f"disk: {k}": f"{v:,}" for k, v in figure["disk_bytes"].items()},
            )


def tune(
    directory: Directory,
    collection: Name,
    k: Annotated[int, typer.Option("--k", "-k", help="recall@k.", min=1)] = 10,
    queries: Annotated[
        int, typer.Option(help="Drawn from the stored points, at most.", min=1)
    ] = QUERIES,
    nprobe: Annotated[
        list[int] | None, typer.Option(help="A setting to measure; repeat.", min=1)
    ] = None,
    rerank: Annotated[
        list[int] | None, typer.Option(help="A setting to measure; repeat.", min=1)
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the draw.", min=0)] = 0,
    plot: Annotated[Path | None, typer.Option(help="Write the curve as *.png, *.svg, ...")] = None,
    store: Annotated[
        bool,
        typer.Option(
            help="Keep the curves, for searches to choose by; --no-store looks beside a process "
            "that has the database open."
        ),
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="As one JSON object.")] = False,
) -> None:
    """Measure what recall costs in a collection, for searches with a target_recall to choose by."""
    from soardb.connect import connect

    is_look = not store or nprobe is not None or rerank is not None
    with connect(directory, read_only=is_look, create=False) as database, tables.bars() as progress:
        curve = database.get_collection(collection).tune(
            k, queries=queries, nprobes=nprobe, reranks=rerank, seed=seed, progress=progress
        )
    if plot is not None:
        from soardb.evaluate import plot_recall_qps

        lines: dict[str, tuple[list[float], list[float]]] = {}
        for point in curve.points:
            name = "exact" if point.rerank is None else f"rerank {point.rerank}"
            recalls, rates = lines.setdefault(name, ([], []))
            recalls.append(point.recall)
            rates.append(1e6 / point.latency_us)
        plot_recall_qps(lines, plot, title=collection, k=k, min_recall=0.0)
        tables.note(f"plot in {plot}")
    if as_json:
        print(json.dumps(curve.to_json()))
        return
    tables.operating_points(curve, f"{collection}: recall@{k} of {curve.queries} queries")
    tables.choices([curve.choose(target) for target in (0.8, 0.9, DEFAULT_TARGET, 0.99)])


def check(directory: Directory) -> None:
    """Read everything once and say what is wrong; exit 1 if anything is."""
    from soardb.checkup import check as look

    with tables.bars() as progress:
        findings = look(directory, progress)
    for finding in findings:
        print(finding)
    if findings:
        tables.note("`soardb repair` saves what is sound; a snapshot brings back what is not")
        raise typer.Exit(EXIT_FOUND)
    print("sound: every checksum, count and invariant holds")


def repair(directory: Directory) -> None:
    """Save what is sound and say what was lost; damaged files are kept beside. Exit 1 if any."""
    from soardb.checkup import repair as mend

    with tables.bars() as progress:
        done = mend(directory, progress)
    for line in done.done:
        print(line)
    if not done.done:
        print("sound: nothing to repair")
    if any(done.lost.values()):
        raise typer.Exit(EXIT_FOUND)


def snapshot(
    directory: Directory,
    collection: Name,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The snapshot to write.")],
) -> None:
    """Write a collection to one file, to be restored under any name."""
    from soardb import snapshot as snapshots
    from soardb.connect import connect

    with connect(directory, read_only=True) as database, tables.bars() as progress:
        snapshots.take(database.get_collection(collection)._core, file, progress)
    tables.note(f"snapshot of {collection!r} in {file}, {file.stat().st_size:,} bytes")


def restore(
    directory: Directory,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A snapshot.")],
    collection: New,
) -> None:
    """Make a new collection from a snapshot."""
    from soardb.connect import connect

    with connect(directory) as database, tables.bars() as progress:
        count = database.restore(file, collection, progress).count()
    tables.note(f"{count:,} points in {collection!r}")


def export(
    directory: Directory,
    collection: Name,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="*.parquet or *.arrow, new.")],
) -> None:
    """Write every point of a collection as Parquet or Arrow."""
    from soardb.connect import connect
    from soardb.exchange import export_points

    with connect(directory, read_only=True) as database, tables.bars() as progress:
        count = export_points(database.get_collection(collection), file, progress)
    tables.note(f"{count:,} points in {file}")


def import_(
    directory: Directory,
    collection: New,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="*.parquet or *.arrow.")],
    metric: Annotated[
        str | None, typer.Option(help="Of a collection that is made: cosine, dot or l2.")
    ] = None,
    field: Annotated[
        list[str] | None,
        typer.Option(help="A payload field of a collection that is made, as NAME:TYPE; repeat."),
    ] = None,
) -> None:
    """Upsert the rows of a Parquet or Arrow file: columns id and vector, the others are payload."""
    from soardb.connect import connect
    from soardb.exchange import import_points

    schema = dict(_field(text) for text in field) if field else None
    with connect(directory) as database, tables.bars() as progress:
        count = import_points(
            database, collection, file, metric=metric, schema=schema, progress=progress
        )
    tables.note(f"{count:,} points into {collection!r}")


def _field(text: str) -> tuple[str, str]:
    name, colon, kind = text.partition(":")
    if not colon:
        raise InvalidArgument(f"expected --field NAME:TYPE, such as price:float, got {text!r}")
    return name, kind
