"""`soardb models pretrain`: a decoder by parts that grow from stage to stage, kept in the registry.

commands.py -> [pretraining.py] -> soardb/models, pipelines/raptr
"""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from soardb.cli import models, tables
from soardb.cli import texts as sources
from soardb.errors import Unavailable

if TYPE_CHECKING:
    from soardb.pipelines.raptr import Pretrained

__all__ = ["register"]

_CURVE, _PLOT = "losses.json", "losses.png"
_HELD_OUT = 256  # windows that the whole network is evaluated on


class LengthsName(StrEnum):
    """How long stages are."""

    equal = "equal"
    proportional = "proportional"


class PathsName(StrEnum):
    """How layers are drawn."""

    exact = "exact"
    bernoulli = "bernoulli"


class ScaleName(StrEnum):
    """What layers are multiplied by while others are left out."""

    sqrt = "sqrt"
    none = "none"
    inverse = "inverse"
    stream = "stream"


class SkippedName(StrEnum):
    """What becomes of the optimiser's moments of layers that do not run."""

    frozen = "frozen"
    decayed = "decayed"


class MethodName(StrEnum):
    """What runs in a stage."""

    random = "random"
    stacking = "stacking"


def register(program: typer.Typer) -> None:
    """Add the command to those of models."""
    program.command()(pretrain)


def pretrain(
    directory: models.Directory,
    name: models.Name,
    texts: Annotated[Path | None, typer.Option(help="A file of texts, one a line.")] = None,
    collection: Annotated[
        str | None, typer.Option(help="In its place: a collection whose points have texts.")
    ] = None,
    text_field: Annotated[str, typer.Option(help="Where its points have their text.")] = "text",
    where: Annotated[
        str | None,
        typer.Option(
            "--filter", help='Of these points: SQL, such as "chosen = true" after soardb select.'
        ),
    ] = None,
    schedule: Annotated[
        str | None,
        typer.Option(help="Layers of each stage, such as 4-5-7-8; all of them unless told."),
    ] = None,
    lengths: Annotated[
        LengthsName, typer.Option(help="Stages of equal steps, or of more and more.")
    ] = LengthsName.equal,
    warm_up: Annotated[
        int, typer.Option(min=0, help="Steps of the whole network before the first stage.")
    ] = 0,
    method: Annotated[
        MethodName, typer.Option(help="Random layers, or a stack that grows by copies.")
    ] = MethodName.random,
    paths: Annotated[
        PathsName, typer.Option(help="Always so many layers, or each with a probability.")
    ] = PathsName.exact,
    scale: Annotated[
        ScaleName, typer.Option(help="Of layers while others are left out.")
    ] = ScaleName.sqrt,
    head_schedule: Annotated[
        str | None, typer.Option(help="Heads of each stage too, such as 1-2-3-4.")
    ] = None,
    skipped: Annotated[
        SkippedName, typer.Option(help="Moments of layers that do not run.")
    ] = SkippedName.frozen,
    like: Annotated[
        str | None, typer.Option(help="Take the tokenizer of this model, as a draft must.")
    ] = None,
    vocabulary: Annotated[int, typer.Option(min=257, help="Tokens to learn.")] = 1024,
    width: Annotated[int, typer.Option(min=2, help="Of the residual stream.")] = 128,
    layers: Annotated[int, typer.Option(min=1)] = 8,
    heads: Annotated[int, typer.Option(min=1)] = 4,
    context: Annotated[int, typer.Option(min=2, help="Tokens that are seen at once.")] = 256,
    steps: Annotated[int, typer.Option(min=1)] = 3000,
    batch: Annotated[int, typer.Option(min=1)] = 32,
    window: Annotated[int, typer.Option(min=2, help="Tokens of a sequence in training.")] = 64,
    rate: Annotated[float, typer.Option(help="Of learning, at its highest.")] = 3e-3,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    held_out: Annotated[
        float, typer.Option(min=0, max=0.5, help="Share of the texts to evaluate with.")
    ] = 0.05,
    evaluate_every: Annotated[int, typer.Option(min=1, help="Steps.")] = 100,
    every: Annotated[int, typer.Option(min=1, help="Steps between two checkpoints.")] = 250,
    folder: Annotated[
        Path | None,
        typer.Option(help="Of checkpoint and losses; DIR/pretraining/MODEL unless told."),
    ] = None,
    as_json: models.Json = False,
) -> None:
    """Train a decoder by growing parts of it (RaPTr), and keep it; the same call goes on."""
    from soardb.models.config import DecoderConfig
    from soardb.models.decoder import Decoder
    from soardb.models.training import TrainConfig, Windows
    from soardb.pipelines.raptr import RaptrConfig, run

    lines, _ = sources.texts_from(directory, texts, collection, text_field, where)
    held = models.registry_of(directory, make=True)
    sources.expect_new(held, name)
    place = folder or directory / "pretraining" / name
    learned, kept = sources.split(lines, held_out)
    tokens = held.load(like).tokens if like else sources.tokens_of(place, learned, vocabulary)
    config = RaptrConfig(
        schedule or str(layers),
        lengths.value,
        warm_up,
        paths=paths.value,
        scale="none" if method is MethodName.stacking else scale.value,
        heads=head_schedule,
        skipped=skipped.value,
        method=method.value,
        evaluate_every=evaluate_every,
        train=TrainConfig(steps, batch, window, rate, seed=seed),
    )
    decoder = Decoder(DecoderConfig(len(tokens), width, layers, heads, context=context), seed)
    windows = None
    if kept:
        apart = sources.row(kept, tokens, window, "to evaluate with")
        windows = Windows(apart, window, seed)(_HELD_OUT)
    with tables.bars() as progress:
        found = run(
            decoder, sources.row(learned, tokens, window, "to learn from"), config,
            held_out=windows, checkpoint=place / sources.CHECKPOINT, every=every,
            progress=progress,
        )  # fmt: skip
    told = _told(found, config.to_json())
    _write_curves(place, name, found, told)
    source: dict[str, Any] = {"collection": collection, "filter": where}
    if texts is not None:
        source = {"texts": texts.name}
    entry = held.add_decoder(
        name,
        found.decoder,
        tokens,
        metrics=told["metrics"],
        lineage={
            "method": f"pretraining, {config.method}",
            **source,
            "like": like,
            "config": told["config"],
        },
    )
    sources.clear(place)
    if as_json:
        print(json.dumps({"model": entry.to_json(), **told}))
        return
    tables.facts(
        f"{name}: {entry.parameters:,} parameters",
        {
            "stages": config.depths,
            **{what: f"{value:.4g}" for what, value in told["metrics"].items()},
            "ms a step, by layers": ", ".join(
                f"{n}: {ms:.0f}" for n, ms in told["step_ms"].items()
            ),
            "losses": place / _CURVE,
        },
    )


def _told(found: Pretrained, config: dict[str, Any]) -> dict[str, Any]:
    """All that is known of a training, as JSON."""
    log, last = found.log, found.losses[-50:]
    metrics = {"training_loss": sum(last) / len(last), "flops": float(log.flops)}
    if log.evaluations:
        metrics["loss"] = log.evaluations[-1].loss
    return {
        "config": config,
        "metrics": metrics,
        "step_ms": log.step_ms(),
        **{name: log.state()[name] for name in ("evaluations", "transitions", "ran")},
    }


def _write_curves(place: Path, name: str, found: Pretrained, told: dict[str, Any]) -> None:
    """JSON, and a plot where there is matplotlib."""
    from soardb.pipelines.raptr.plot import plot_losses

    place.mkdir(parents=True, exist_ok=True)
    whole = json.dumps({**told, "losses": found.losses}, indent=1)
    (place / _CURVE).write_text(whole + "\n", "utf-8")
    try:
        plot_losses(found, place / _PLOT, title=name)
    except Unavailable as error:
        tables.note(f"no plot of the losses: {error}")
