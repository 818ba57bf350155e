"""`soardb select`: which points of a collection to label or train on.

commands.py -> [selecting.py] -> pipelines/select
"""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from soardb.cli import tables
from soardb.errors import InvalidArgument

Target = Annotated[
    str, typer.Argument(metavar="DIR", help="A database directory, or grpc://HOST:PORT.")
]
Name = Annotated[str, typer.Argument(metavar="COLLECTION", help="A collection or an alias.")]


class MethodName(StrEnum):
    """How points are chosen."""

    wkc = "wkc"
    gonzalez = "gonzalez"
    margin = "margin"
    random = "random"
    facility = "facility"
    gist = "gist"


class KindName(StrEnum):
    """What uncertainty is."""

    margin = "margin"
    entropy = "entropy"
    least_confidence = "least_confidence"


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("select")(select)


def select(
    target: Target,
    collection: Name,
    k: Annotated[int, typer.Option("--k", "-k", min=1, help="How many points.")],
    method: Annotated[
        MethodName, typer.Option(help="wkc is weighted k-center, the rest to compare with it.")
    ] = MethodName.wkc,
    radius_weight: Annotated[
        float, typer.Option("--lambda", min=0, help="What the radius counts beside the weights.")
    ] = 1.0,
    weight_field: Annotated[
        str | None, typer.Option(help="Payload field: what a point costs, at least 0.")
    ] = None,
    label_field: Annotated[
        str | None,
        typer.Option(help="Payload field of labels: weights by the votes of the neighbours."),
    ] = None,
    uncertainty: Annotated[KindName, typer.Option(help="Of the votes.")] = KindName.margin,
    neighbours: Annotated[int, typer.Option(min=1, help="Votes a point.")] = 10,
    where: Annotated[
        str | None, typer.Option("--filter", help='Choose from these: SQL, such as "n < 10".')
    ] = None,
    eps: Annotated[float, typer.Option(help="How far guesses of the radius are apart.")] = 0.1,
    machines: Annotated[int, typer.Option(min=1, help="Processes that share the points.")] = 1,
    sequential: Annotated[
        bool, typer.Option(help="One after the other: factor 3 in place of 5.")
    ] = False,
    index: Annotated[bool, typer.Option(help="Find balls by an index, where k is large.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of what is random.")] = 0,
    write_field: Annotated[
        str | None, typer.Option(help="Set this payload field of the chosen points to true.")
    ] = None,
    to: Annotated[
        str | None, typer.Option(help="Copy the chosen points to this new collection.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw them as *.png, *.svg, ...")] = None,
    tradeoff: Annotated[
        Path | None, typer.Option(help="Choose for several lambdas and draw radius and weight.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As one JSON object.")] = False,
) -> None:
    """Choose the points of a collection that are worth a label, with a certificate."""
    from soardb.connect import connect
    from soardb.pipelines.select import SelectConfig, read, run

    config = SelectConfig(
        k,
        method.value,
        radius_weight,
        eps=eps,
        filter=where,
        uncertainty=uncertainty.value,
        weight_field=weight_field,
        label_field=label_field,
        neighbours=neighbours,
        machines=machines,
        sequential=sequential,
        index=index,
        seed=seed,
    )
    writes = write_field is not None or to is not None
    options: dict[str, Any] = {} if "://" in target else {"read_only": not writes, "create": False}
    with connect(target, **options) as database, tables.bars() as progress:
        held = database.get_collection(collection)
        if to is not None and to in database.list_collections():
            raise InvalidArgument(f"expected a new collection, there is one named {to!r}")
        source = read(held, config, progress=progress)
        chosen = run(source, config, progress=progress)
        if write_field is not None:
            chosen.write_field(held, write_field)
        if to is not None:
            made = database.create_collection(to, held.d, held.metric, schema=held.schema)
            chosen.write_collection(held, made)
        if plot is not None:
            from soardb.pipelines.select.plot import plot_selection

            plot_selection(source.points, chosen, plot, seed)
        if tradeoff is not None:
            from soardb.pipelines.select.plot import plot_tradeoff

            plot_tradeoff(source, config, tradeoff, progress=progress)
    for file in (plot, tradeoff):
        if file is not None:
            tables.note(f"plot in {file}")
    if as_json:
        print(json.dumps(chosen.to_json()))
        return
    found = chosen.certificate
    tables.facts(
        f"{collection}: {len(chosen)} of {chosen.n:,} by {method.value}",
        {
            "radius": f"{found.radius:.6g}",
            "radius of 99 %": f"{found.radius_p99:.6g}",
            "weight": f"{found.weight:.6g}",
            "objective": f"{found.objective:.6g}",
            "lower bound": f"{found.lower_bound:.6g}",
            "at most off by": f"x {found.ratio:.3f}",
            "guesses": f"{found.guesses}",
            "seconds": f"{chosen.seconds:.2f}",
            "ids": ", ".join(map(str, chosen.ids[:10])) + (", ..." if len(chosen) > 10 else ""),
        },
    )
