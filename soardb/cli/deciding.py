"""`soardb decide`: the answers that are best for a metric, under stored labels or given laws.

commands.py -> [deciding.py] -> pipelines/decide
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from soardb.cli import tables
from soardb.errors import InvalidArgument, NotFound

if TYPE_CHECKING:
    from soardb.pipelines.decide import Decisions, Table


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("decide")(decide)


def decide(
    target: Annotated[
        str | None,
        typer.Argument(metavar="DIR", help="A database directory, or grpc://HOST:PORT."),
    ] = None,
    collection: Annotated[
        str | None, typer.Argument(metavar="COLLECTION", help="Its points have labels.")
    ] = None,
    label_field: Annotated[
        str | None, typer.Option(help="Payload field of the labels, numbers or text.")
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(
            help="What is to be good: squared_error, which is taken unless told, absolute_error, "
            "exact_match, pinball:0.9, f1:POSITIVE, ... (docs)."
        ),
    ] = None,
    costs: Annotated[
        Path | None,
        typer.Option(help='In its place, JSON: {"costs": [[...], ...], "classes", "actions"}.'),
    ] = None,
    queries: Annotated[
        Path | None, typer.Option(help="Vectors to ask about, .npy; or the points with no label.")
    ] = None,
    laws: Annotated[
        Path | None,
        typer.Option(help="In place of DIR: *.parquet with lists `values`, `weights`, and id."),
    ] = None,
    neighbours: Annotated[int, typer.Option(min=1, help="Labelled points a question.")] = 64,
    temperature: Annotated[
        float | None, typer.Option(help="Of the scores; measured on held-out points unless told.")
    ] = None,
    held_out: Annotated[int, typer.Option(min=1, help="How many of these.")] = 1000,
    alpha: Annotated[float, typer.Option(min=0, help="Decide under p^alpha.")] = 1.0,
    rounded: Annotated[
        bool, typer.Option("--round", help="Numbers become the closest whole ones.")
    ] = False,
    where: Annotated[
        str | None, typer.Option("--filter", help='Points that take part: SQL, such as "n < 10".')
    ] = None,
    target_recall: Annotated[float | None, typer.Option(help="Of the searches.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of which points are held out.")] = 0,
    trial: Annotated[
        bool, typer.Option("--trial", help="Decide held-out points: decisions by metrics.")
    ] = False,
    write_field: Annotated[
        str | None, typer.Option(help="Set this payload field of the points with no label.")
    ] = None,
    table: Annotated[Path | None, typer.Option(help="A row a question, as *.parquet.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As one JSON object.")] = False,
) -> None:
    """Decide what is best for a metric, under the labels near to each question."""
    from soardb.connect import connect
    from soardb.pipelines.decide import DecideConfig, run
    from soardb.pipelines.decide import trial as tried

    if (target is None) == (laws is None):
        raise InvalidArgument("expected DIR and COLLECTION, or --laws FILE")
    if costs is not None and metric is not None:
        raise InvalidArgument("expected --metric or --costs, got both")
    if trial and not (queries is None and write_field is None and table is None):
        raise InvalidArgument("expected --trial alone, got --queries, --write-field or --table too")
    if table is not None and table.suffix != ".parquet":
        raise InvalidArgument(f"expected a file name ending in .parquet, got {table.name}")
    config = DecideConfig(
        (metric or "squared_error") if costs is None else _costs(costs),
        alpha,
        rounded,
        label_field,
        neighbours,
        temperature,
        held_out,
        where,
        target_recall,
        seed,
    )
    if target is None:
        assert laws is not None
        of_points = (write_field, queries, label_field, temperature, where, target_recall)
        if trial or any(option is not None for option in of_points):
            raise InvalidArgument(
                "expected DIR and COLLECTION with --trial, --queries, --write-field, "
                "--label-field, --temperature, --filter or --target-recall"
            )
        held, ids = _laws(laws)
        _tell(laws.name, run(held, config, ids=ids), table, as_json)
        return
    if collection is None or label_field is None:
        raise InvalidArgument("expected COLLECTION and --label-field after DIR")
    if write_field is not None and queries is not None:
        raise InvalidArgument("expected stored points to set a field of, got --queries")
    options: dict[str, Any] = {}
    if "://" not in target:
        options = {"read_only": write_field is None, "create": False}
    with connect(target, **options) as database, tables.bars() as progress:
        points = database.get_collection(collection)
        if trial:
            compared = tried(points, config, progress=progress)
        else:
            asked = None if queries is None else _vectors(queries)
            decided = run(points, config, asked, progress=progress)
            if write_field is not None:
                decided.write_field(points, write_field)
    if trial:
        _tell_trial(collection, compared, as_json)
    else:
        _tell(collection, decided, table, as_json)


def _costs(file: Path) -> Any:
    from soardb.pipelines.decide import cost

    try:
        told = json.loads(file.read_text("utf-8"))
    except FileNotFoundError as error:
        raise NotFound(f"expected a file of costs, there is none at {file}") from error
    except ValueError as error:
        raise InvalidArgument(f"expected JSON in {file.name}: {error}") from error
    if not isinstance(told, dict) or not {"costs", "classes"} <= set(told):
        raise InvalidArgument(f"expected an object of costs and classes in {file.name}")
    return cost(told["costs"], told["classes"], told.get("actions"))


def _laws(file: Path) -> tuple[Any, list[Any] | None]:
    from soardb.pipelines.decide import Laws
    from soardb.pipelines.stored import read_parquet

    held = read_parquet(file)
    ids = held.column("id").to_pylist() if "id" in held.column_names else None
    return Laws.of_arrow(held), ids


def _vectors(file: Path) -> Any:
    from soardb.vectors_io import read_vectors

    return read_vectors(file)


def _tell(name: str, found: Decisions, table: Path | None, as_json: bool) -> None:
    if table is not None:
        rows = found.to_arrow()
        import pyarrow.parquet as parquet

        parquet.write_table(rows, table)
        tables.note(f"{len(found):,} rows in {table}")
    if as_json:
        print(json.dumps(found.to_json(), allow_nan=False))
        return
    first = zip(found.ids[:10], found.values[:10].tolist(), strict=True)
    rows = {
        "temperature": None if found.temperature is None else f"{found.temperature:.4g}",
        "score at it": None if found.score is None else f"{found.score:.4g}",
        "expected loss": None if found.risk is None else f"{found.risk.mean():.4g}",
        "mass": f"{found.laws.mass.mean():.4f}",
        "seconds": f"{found.seconds:.2f}",
        "decisions": ", ".join(f"{i}: {_short(v)}" for i, v in first)
        + (", ..." if len(found) > 10 else ""),
    }
    tables.facts(
        f"{name}: {len(found):,} decided for {found.metric.name}",
        {k: v for k, v in rows.items() if v is not None},
    )


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _tell_trial(name: str, found: Table, as_json: bool) -> None:
    if as_json:
        print(json.dumps(found.to_json(), allow_nan=False))
        return
    metrics = list(found.own)
    tables.facts(
        f"{name}: {found.n:,} held-out points",
        {
            f"best for {decisions}": ", ".join(
                f"{metric} {found.cells[decisions, metric].value:.4f}" for metric in metrics
            )
            for decisions in metrics
        },
    )
