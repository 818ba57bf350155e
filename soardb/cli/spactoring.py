"""`soardb models spactor`: an encoder-decoder pretrained on texts, and kept.

commands.py -> [spactoring.py] -> soardb/models, pipelines/spactor
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from soardb.cli import models, tables
from soardb.cli import texts as sources
from soardb.errors import InvalidArgument, Unavailable

if TYPE_CHECKING:
    from soardb.pipelines.spactor import Pretrained

__all__ = ["register"]

_LOSSES, _PLOT = "losses.json", "losses.png"
_EACH = 20  # every so many texts, one is to measure with


def register(program: typer.Typer) -> None:
    """Add the command to those of models."""
    program.command()(spactor)


def spactor(
    directory: models.Directory,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it will be called.")],
    texts: sources.Texts = None,
    collection: sources.Collection = None,
    field: sources.Field = "text",
    where: sources.Where = None,
    first: Annotated[
        str, typer.Option(help="Of the first stage: hybrid, noise, rtd, sc+mlm; or sc.")
    ] = "hybrid",
    tau: Annotated[
        float, typer.Option(min=0, help="Share of the steps that it has: 0 none, inf all.")
    ] = 0.25,
    lambda1: Annotated[float, typer.Option(help="Weight of replaced-token detection.")] = 10.0,
    lambda2: Annotated[float, typer.Option(help="Weight of span corruption.")] = 10.0,
    like: Annotated[str | None, typer.Option(help="Take the tokenizer of this model.")] = None,
    vocabulary: Annotated[int, typer.Option(min=257, help="Tokens to learn.")] = 2048,
    width: Annotated[int, typer.Option(min=2, help="Of the residual stream.")] = 128,
    layers: Annotated[int, typer.Option(min=1, help="Of the encoder.")] = 4,
    decoder_layers: Annotated[int, typer.Option(min=1)] = 2,
    heads: Annotated[int, typer.Option(min=1)] = 4,
    context: Annotated[int, typer.Option(min=2, help="Tokens that are seen at once.")] = 256,
    steps: Annotated[int, typer.Option(min=1)] = 3000,
    batch: Annotated[int, typer.Option(min=1)] = 32,
    window: Annotated[int, typer.Option(min=2, help="Tokens of a sequence in training.")] = 48,
    rate: Annotated[float, typer.Option(help="Of learning, at its highest.")] = 2e-3,
    looks: Annotated[int, typer.Option(min=1, help="How often it is measured.")] = 5,
    every: Annotated[int, typer.Option(min=1, help="Steps between two checkpoints.")] = 250,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    as_json: models.Json = False,
) -> None:
    """Pretrain an encoder-decoder on texts by SpacTor, and keep it; the same call goes on.

    A twentieth of the texts measures it.
    """
    from soardb.models.config import EncoderConfig, T5Config
    from soardb.models.t5 import T5
    from soardb.models.training import TrainConfig
    from soardb.pipelines.spactor import ObjectiveConfig, SpactorConfig, Spans, run, span_counts

    lines, source = sources.texts_from(directory, texts, collection, field, where)
    held = models.registry_of(directory, make=True)
    sources.expect_new(held, name)
    train, test = sources.split(lines, 1 / _EACH)
    place = directory / "pretraining" / name
    tokens = held.load(like).tokens if like else sources.tokens_of(place, train, vocabulary)
    if tokens.end is None:
        raise InvalidArgument(f"expected a tokenizer with an end of texts, {like} has none")
    spans = Spans()
    shape = EncoderConfig(
        len(tokens), span_counts(window, spans)[1], width, layers, heads, context=context
    )
    config = SpactorConfig(
        first,  # type: ignore[arg-type]  # checked by it
        tau,
        ObjectiveConfig(lambda1, lambda2),
        spans,
        TrainConfig(steps, batch, window, rate, seed=seed),
        tuple(range(0, steps, max(1, steps // looks))),
        held=256,
    )
    t5 = T5(T5Config(shape, decoder_layers), seed)
    with tables.bars() as progress:
        found = run(
            t5,
            sources.row(train, tokens, window, "to learn from"),
            config,
            end=tokens.end,
            held=sources.row(test, tokens, window, "to measure with"),
            checkpoint=place / sources.CHECKPOINT,
            every=every,
            progress=progress,
        )
    last = found.looks[-1]
    metrics = {"clean_loss": last.clean, "tflops": last.flops / 1e12}
    if last.detection is not None and last.detection.area is not None:
        metrics["rtd_auc"] = last.detection.area
    lineage = {
        "method": "SpacTor", "first": first, "tau": str(tau), "switch": config.switch,
        "lambda1": lambda1, "lambda2": lambda2, "texts": source, "steps": steps, "seed": seed,
    }  # fmt: skip
    held.add_t5(name, t5, tokens, metrics=metrics, lineage=lineage)
    curves = _written(place, name, found)
    sources.clear(place)
    if as_json:
        print(json.dumps({"looks": [one.to_json() for one in found.looks], "metrics": metrics}))
        return
    told = {f"step {one.step}": f"clean loss {one.clean:.4f}" for one in found.looks}
    shown = {k: f"{v:.4g}" for k, v in metrics.items()}
    tables.facts(name, {**told, **shown, "losses": curves})


def _written(folder: Path, name: str, found: Pretrained) -> Path:
    """Parts of the loss and operations of every step, and what was measured, as JSON; and a plot
    where there is matplotlib.
    """
    from soardb.pipelines.spactor.plot import plot_training

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / _LOSSES
    looks = [one.to_json() for one in found.looks]
    told = {"looks": looks, "parts": found.parts, "flops": found.flops}
    path.write_text(json.dumps(told) + "\n", "utf-8")
    try:
        plot_training(found, folder / _PLOT, name)
    except Unavailable as error:
        tables.note(f"no plot of the losses: {error}")
    return path
