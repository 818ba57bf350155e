"""`soardb embed` and `soardb models embedder`: vectors of texts, by a model that was made for it.

commands.py -> [embedding.py] -> soardb/models, pipelines/embed
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from soardb.cli import models, tables
from soardb.cli import texts as sources
from soardb.errors import InvalidArgument

__all__ = ["register"]

_HELD = 20  # of so many texts, one is to measure with, at most 1,000 of them


def register(program: typer.Typer, registry: typer.Typer) -> None:
    """Add `embed` to the program and `embedder` to the commands of models."""
    program.command()(embed)
    registry.command()(embedder)


def embed(
    directory: models.Directory,
    name: Annotated[
        str, typer.Argument(metavar="MODEL", help="An embedder, or another encoder or t5.")
    ],
    texts: sources.Texts = None,
    collection: sources.Collection = None,
    field: sources.Field = "text",
    where: sources.Where = None,
    into: Annotated[
        str | None,
        typer.Option(help="Write to this collection, made if there is none; or in place."),
    ] = None,
    longest: Annotated[
        int | None, typer.Option(min=1, help="Tokens of a text that are read; as many as can be.")
    ] = None,
    as_json: models.Json = False,
) -> None:
    """Give points the vectors of their texts, in place or in another collection."""
    from soardb.connect import connect
    from soardb.pipelines.embed import Embedder, embed_points, embed_texts, expect_text

    if (texts is None) == (collection is None):
        raise InvalidArgument("expected one of --texts and --collection")
    if collection is None and into is None:
        raise InvalidArgument("expected --into, a collection for the texts")
    found = models.registry_of(directory).load(name)
    made = Embedder(found.encoder, found.tokens, longest)
    lines = [] if texts is None else sources.texts_from(directory, texts, None, field, where)[0]
    with connect(directory) as database, tables.bars() as progress:
        source = None if collection is None else database.get_collection(collection)
        if source is not None:
            expect_text(source, field, where)  # before anything is made
        target = None
        if into is not None:
            schema = {field: "text"} if source is None else source.schema
            if into in database.list_collections():
                target = database.get_collection(into)
            else:
                ttl = None if source is None else source.ttl
                target = database.create_collection(into, made.d, schema=schema, ttl=ttl)
        if source is None:
            count = embed_texts(made, lines, target, field, progress)
        else:
            count = embed_points(made, source, field, target, where, progress)
    place = into or collection
    if as_json:
        print(json.dumps({"collection": place, "points": count, "dim": made.d}))
        return
    tables.note(f"{count:,} points of {place} with vectors of {made.d} dimensions by {name}")


def embedder(
    directory: models.Directory,
    base: Annotated[str, typer.Argument(metavar="BASE", help="An encoder or t5 to begin with.")],
    name: Annotated[str, typer.Argument(metavar="NEW", help="What becomes of it.")],
    pairs: Annotated[
        Path | None, typer.Option(help="A file: a question, a tab and its text a line.")
    ] = None,
    collection: sources.Collection = None,
    query_field: Annotated[
        str, typer.Option(help="Payload field with the question, or a list of them.")
    ] = "title",
    field: sources.Field = "text",
    where: sources.Where = None,
    temperature: Annotated[float, typer.Option(help="What products are divided by.")] = 0.1,
    steps: Annotated[int, typer.Option(min=1)] = 1000,
    batch: Annotated[int, typer.Option(min=2, help="Pairs a step.")] = 64,
    window: Annotated[int, typer.Option(min=2, help="Tokens of a text that are read.")] = 48,
    rate: Annotated[float, typer.Option(help="Of learning, at its highest.")] = 1e-3,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    as_json: models.Json = False,
) -> None:
    """Fine-tune an encoder on pairs so that its vectors search; a twentieth of them measures it."""
    from soardb.connect import connect
    from soardb.models.training import TrainConfig
    from soardb.pipelines import embed as pipeline

    if (pairs is None) == (collection is None):
        raise InvalidArgument("expected one of --pairs and --collection")
    held = models.registry_of(directory)
    sources.expect_new(held, name)
    found = held.load(base)
    if pairs is not None:
        source, told = pairs.name, pipeline.read_pairs(pairs)
    else:
        assert collection is not None
        source = f"{collection}.{query_field}, {field}" + (f" where {where}" if where else "")
        with connect(directory, read_only=True) as database:
            points = database.get_collection(collection)
            told = pipeline.stored_pairs(points, query_field, field, where)
    test = set(list(dict.fromkeys(pair.text for pair in told))[::_HELD][:1000])
    asked = {pair.query for pair in told if pair.text in test}
    train = [pair for pair in told if pair.text not in test and pair.query not in asked]
    judged = [pair for pair in told if pair.text in test]
    config = pipeline.ContrastConfig(
        temperature, train=TrainConfig(steps, batch, window, rate, weight_decay=0.01, seed=seed)
    )
    with tables.bars() as progress:
        made, losses = pipeline.contrasted(found.encoder, found.tokens, train, config, progress)
    metrics = {"training_loss": sum(losses[-50:]) / len(losses[-50:])}
    for which, encoder in (("before", found.encoder), ("after", made)):
        measured = pipeline.judged(pipeline.Embedder(encoder, found.tokens, window), judged)
        metrics |= {f"{which}_{key}": value for key, value in measured.items()}
    lineage = {
        "method": "in-batch negatives", "parent": base, "temperature": temperature,
        "pairs": source, "steps": steps, "seed": seed,
    }  # fmt: skip
    held.add_encoder(name, made, found.tokens, metrics=metrics, lineage=lineage)
    if as_json:
        print(json.dumps(metrics))
        return
    tables.facts(f"{name}, of {len(judged):,} pairs of {len(test):,} texts that it did not see",
                 {key: f"{value:.4f}" for key, value in metrics.items()})  # fmt: skip
