"""`soardb models`: the registry of a database directory, trained, filled and asked.

commands.py -> [models.py] -> soardb/models, pipelines/distillspec, pipelines/speculate; or
                              served_models.py, for those of a server
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from soardb.cli import served_models, tables
from soardb.errors import InvalidArgument, NotFound

if TYPE_CHECKING:
    from soardb.models.info import ModelInfo
    from soardb.models.registry import Registry

app = typer.Typer(no_args_is_help=True, help="Language models that a database directory holds.")

Directory = Annotated[Path, typer.Argument(metavar="DIR", help="A database directory.")]
Place = Annotated[
    str, typer.Argument(metavar="DIR", help="A database directory, or grpc://HOST:PORT.")
]
Name = Annotated[str, typer.Argument(metavar="MODEL", help="Its name in the registry.")]
Texts = Annotated[
    Path, typer.Option("--texts", help="A file of texts, one a line; or a collection's, below.")
]
Json = Annotated[bool, typer.Option("--json", help="As one JSON object.")]


def register(program: typer.Typer) -> None:
    """Add the commands to the program."""
    program.add_typer(app, name="models")


@app.command("list")
def list_models(place: Place, as_json: Json = False) -> None:
    """Models, then pairs of target and draft."""
    entries, pairs = _listed(place)
    if as_json:
        told = {
            "models": [entry.to_json() for entry in entries],
            "pairs": [pair.to_json() for pair in pairs],
        }
        print(json.dumps(told))
        return
    tables.facts("models", {entry.name: _line(entry) for entry in entries})
    if pairs:
        tables.facts(
            "pairs",
            {f"{pair.target} <- {pair.draft}": _metrics(pair.metrics) for pair in pairs},
        )


@app.command()
def show(place: Place, name: Name, as_json: Json = False) -> None:
    """What is told of a model; in a directory, its files are checked."""
    if served_models.is_served(place):
        with served_models.served(place) as models:
            entry = models.get(name)
    else:
        entry = registry_of(Path(place)).check(name)
    if as_json:
        print(json.dumps(entry.to_json()))
        return
    tables.facts(
        name,
        {
            "architecture": entry.architecture,
            "parameters": f"{entry.parameters:,}",
            "bytes": f"{entry.size:,}",
            "metrics": _metrics(entry.metrics) or "none",
            "lineage": json.dumps(entry.lineage),
            "files": ", ".join(entry.files),
        },
    )


@app.command("import")
def import_model(
    directory: Directory,
    name: Name,
    source: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Of Hugging Face, or a GGUF file.")
    ],
) -> None:
    """Register a causal model of Hugging Face from a local folder or a GGUF file."""
    entry = registry_of(directory, make=True).add_hugging(name, source)
    tables.note(f"{name}: {_line(entry)}")


@app.command()
def remove(place: Place, name: Name) -> None:
    """Delete a model and its pairs."""
    if served_models.is_served(place):
        with served_models.served(place) as models:
            models.delete(name)
    else:
        registry_of(Path(place)).remove(name)


@app.command()
def upload(
    directory: Directory,
    name: Name,
    place: Annotated[str, typer.Argument(metavar="SERVER", help="As grpc://HOST:PORT.")],
    called: Annotated[
        str | None, typer.Option("--as", help="What it will be called there; the same unless told.")
    ] = None,
) -> None:
    """Send a model of a directory to a server, which checks and loads it."""
    entry = served_models.upload(directory, name, place, called or name)
    tables.note(f"{entry.name}: {_line(entry)}")


@app.command()
def evaluate(
    place: Place,
    target: Annotated[str, typer.Argument(metavar="TARGET", help="Whose text is drafted.")],
    draft: Annotated[str, typer.Argument(metavar="DRAFT", help="What drafts it.")],
    texts: Annotated[
        Path | None, typer.Option(help="A file of texts to begin with, one a line.")
    ] = None,
    collection: Annotated[
        str | None, typer.Option(help="In its place: a collection whose points have texts.")
    ] = None,
    text_field: Annotated[str, typer.Option(help="Where its points have their text.")] = "text",
    limit: Annotated[int, typer.Option(min=1, help="How many texts.")] = 32,
    gamma: Annotated[int, typer.Option(min=1, help="Tokens drafted a block.")] = 5,
    length: Annotated[int, typer.Option(min=1, help="Tokens that are written after each.")] = 32,
    prompt_tokens: Annotated[
        int, typer.Option(min=1, help="Tokens of each text to begin with.")
    ] = 16,
    temperature: Annotated[float, typer.Option(min=0, help="0 is greedy.")] = 1.0,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    as_json: Json = False,
) -> None:
    """Measure a draft with a target, and keep the pair."""
    if (texts is None) == (collection is None):
        raise InvalidArgument("expected one of --texts and --collection")
    lines = None if texts is None else lines_of(texts)[:limit]
    told: dict[str, Any] = {"gamma": gamma, "length": length, "prompt_tokens": prompt_tokens}
    if served_models.is_served(place):
        with served_models.served(place) as models, tables.bars() as progress:
            metrics = models.evaluate(
                target, draft, lines, collection=collection, text_field=text_field, limit=limit,
                temperature=temperature, seed=seed, **told,
            ).wait(progress=progress)  # fmt: skip
    else:
        from soardb.models.sampling import Sampling
        from soardb.pipelines.distillspec import evaluated

        held = registry_of(Path(place))
        large, small = held.load(target), held.load(draft)
        if collection is not None:
            lines = _stored_texts(Path(place), collection, text_field, limit)
        with tables.bars() as progress:
            metrics = evaluated(
                large, small, lines or [], sampling=Sampling(temperature), seed=seed,
                progress=progress, **told,
            )  # fmt: skip
        held.pair(target, draft, metrics)
    if as_json:
        print(json.dumps(metrics))
        return
    tables.facts(f"{target} <- {draft}", metrics)


@app.command()
def train(
    directory: Directory,
    name: Name,
    texts: Texts,
    like: Annotated[
        str | None, typer.Option(help="Take the tokenizer of this model, as a draft must.")
    ] = None,
    vocabulary: Annotated[int, typer.Option(min=257, help="Tokens to learn.")] = 1024,
    width: Annotated[int, typer.Option(min=2, help="Of the residual stream.")] = 128,
    layers: Annotated[int, typer.Option(min=1)] = 2,
    heads: Annotated[int, typer.Option(min=1)] = 4,
    context: Annotated[int, typer.Option(min=2, help="Tokens that are seen at once.")] = 256,
    steps: Annotated[int, typer.Option(min=1)] = 1000,
    batch: Annotated[int, typer.Option(min=1)] = 32,
    window: Annotated[int, typer.Option(min=2, help="Tokens of a sequence in training.")] = 64,
    rate: Annotated[float, typer.Option(help="Of learning, at its highest.")] = 3e-3,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Train a decoder on texts, and keep it."""
    from soardb.models.config import DecoderConfig
    from soardb.models.decoder import Decoder
    from soardb.models.tokens import Tokens
    from soardb.models.training import TrainConfig, Windows, cross_entropy, descend, row_of

    held = registry_of(directory, make=True)
    lines = lines_of(texts)
    tokens = Tokens.trained(lines, vocabulary) if like is None else held.load(like).tokens
    config = DecoderConfig(len(tokens), width, layers, heads, context=context)
    told = TrainConfig(steps, batch, window, rate, seed=seed)
    decoder = Decoder(config, seed)
    windows = Windows(row_of(lines, tokens), window, seed)
    with tables.bars() as progress:
        losses = descend(
            [decoder], lambda step: cross_entropy(decoder, windows(batch)), told, progress
        )
    entry = held.add_decoder(
        name,
        decoder.eval(),
        tokens,
        metrics={"training_loss": sum(losses[-50:]) / len(losses[-50:])},
        lineage={"method": "cross entropy", "texts": texts.name, "steps": steps, "seed": seed},
    )
    tables.note(f"{name}: {_line(entry)}")


@app.command()
def distil(
    directory: Directory,
    target: Annotated[str, typer.Argument(metavar="TARGET", help="Learned from.")],
    draft: Annotated[str, typer.Argument(metavar="DRAFT", help="Where it begins.")],
    name: Annotated[str, typer.Argument(metavar="NEW", help="What becomes of it.")],
    texts: Texts,
    preset: Annotated[
        str, typer.Option(help="SeqKD, SupKD, ImitKD, f-Distill, GKD; or control.")
    ] = "GKD",
    divergence: Annotated[
        str | None, typer.Option(help="In place of the preset's: fkl, rkl, jsd, tvd, tvd++.")
    ] = None,
    steps: Annotated[int, typer.Option(min=1)] = 300,
    rate: Annotated[float, typer.Option(help="Of learning, at its highest.")] = 1e-3,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    gamma: Annotated[int, typer.Option(min=1, help="Block length that is measured.")] = 5,
    as_json: Json = False,
) -> None:
    """Distil a draft towards its target, measure it before and after, and keep the pair."""
    from dataclasses import replace

    from soardb.models.training import TrainConfig, Windows, row_of
    from soardb.pipelines.distillspec import PRESETS, agreement, cost_of, metrics_of, run

    if preset not in PRESETS:
        raise InvalidArgument(f"expected preset one of {', '.join(PRESETS)}, got {preset!r}")
    held = registry_of(directory)
    large, small = held.load(target), held.load(draft)
    teacher, student = large.decoder, small.decoder
    row = row_of(lines_of(texts), large.tokens)
    config = replace(PRESETS[preset], train=TrainConfig(steps, rate=rate, seed=seed))
    if divergence is not None:
        config = replace(config, divergence=divergence)
    end = large.tokens.end
    with tables.bars() as progress:
        found = run(teacher, student, row, config, end=end, progress=progress)
    prompts = Windows(row, config.prompt, seed + 1)(256)
    # The distilled draft has the shape of the one it began as, and so its cost.
    cost = cost_of(large.model, small.model, prompts[0].tolist(), gamma)
    measured: dict[str, dict[str, float]] = {}
    for which, network in ((draft, student), (name, found.draft)):
        mine = agreement(teacher, network, prompts, config.length, (gamma,), end=end, seed=seed)
        measured[which] = metrics_of(mine.alpha, mine.tau[gamma], gamma, cost)
    lineage = {
        "method": f"DistillSpec, {preset}",
        "divergence": config.divergence,
        "parent": draft,
        "target": target,
        "texts": texts.name,
        "steps": steps,
        "seed": seed,
    }
    held.add_decoder(name, found.draft, small.tokens, metrics=measured[name], lineage=lineage)
    for which in (draft, name):
        held.pair(target, which, measured[which])
    if as_json:
        print(json.dumps(measured))
        return
    tables.facts(f"drafts of {target}", {k: _metrics(v) for k, v in measured.items()})


@app.command()
def generate(
    place: Place,
    name: Name,
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="What to go on from.")],
    draft: Annotated[
        str | None, typer.Option(help="Speculate with this model; the text keeps its law.")
    ] = None,
    collection: Annotated[
        str | None,
        typer.Option(help="Text of its closest points goes before the prompt, by full text."),
    ] = None,
    text_field: Annotated[str, typer.Option(help="Where its points have their text.")] = "text",
    passages: Annotated[int, typer.Option(min=1, help="How many of them.")] = 3,
    from_text: Annotated[
        bool, typer.Option("--draft-from-text", help="Speculate with these passages.")
    ] = False,
    gamma: Annotated[int, typer.Option(min=1, help="Tokens drafted a block.")] = 5,
    longest: Annotated[int, typer.Option(min=1, help="Tokens to write.")] = 64,
    temperature: Annotated[float, typer.Option(min=0, help="0 is greedy.")] = 1.0,
    top_k: Annotated[int | None, typer.Option(min=1)] = None,
    top_p: Annotated[float, typer.Option()] = 1.0,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    as_json: Json = False,
) -> None:
    """Write on from a prompt, as it comes; with a draft in fewer passes of the model."""
    if from_text and (collection is None or draft is not None):
        raise InvalidArgument("expected --collection, and no --draft, with --draft-from-text")
    if served_models.is_served(place):
        options: dict[str, Any] = {
            "draft": draft, "collection": collection, "text_field": text_field,
            "passages": passages, "draft_passages": from_text, "gamma": gamma, "longest": longest,
            "temperature": temperature, "top_k": top_k, "top_p": top_p, "seed": seed,
        }  # fmt: skip
        _tell(served_models.written(place, name, prompt, options), as_json)
        return
    from soardb.models.sampling import Sampling
    from soardb.pipelines.speculate import SpeculateConfig, writing

    directory = Path(place)
    held = registry_of(directory)
    found = held.load(name)
    context = (
        [] if collection is None else _passages(directory, collection, prompt, text_field, passages)
    )
    drafts = context if from_text else None if draft is None else held.load(draft)
    sampling = Sampling(temperature, top_k, top_p)
    config = SpeculateConfig(gamma, longest, sampling, seed=seed)
    _tell(writing(found, prompt, config, context=context, draft=drafts), as_json)


def _tell(written: Any, as_json: bool) -> None:
    """Show a text as it is written, then what it took."""
    text = _shown(written, quiet=as_json)
    told = written.to_json()
    if as_json:
        print(json.dumps({"text": text, **told}))
        return
    tables.note(f"{told['tokens']} tokens, {told['passes']} passes, {told['seconds']:.2f} s")


def _listed(place: str) -> tuple[list[Any], list[Any]]:
    """Models and pairs, of a directory or of a server."""
    if served_models.is_served(place):
        with served_models.served(place) as models:
            return models.list(), models.pairs()
    held = registry_of(Path(place))
    return [held.get(name) for name in held.names()], held.pairs()


def _shown(pieces: Iterable[str], quiet: bool) -> str:
    """The whole text; each piece of it on standard output as it comes, unless it is to be quiet."""
    text = ""
    for piece in pieces:
        text += piece
        if not quiet:
            sys.stdout.write(piece)
            sys.stdout.flush()
    if not quiet:
        print()
    return text


def registry_of(directory: Path, make: bool = False) -> Registry:
    from soardb.connect import connect
    from soardb.models.registry import Registry

    if not (directory / "catalog.json").is_file():
        if not make:
            raise NotFound(f"expected a soardb database in {directory}, found none")
        connect(directory).close()
    return Registry(directory)


def _passages(directory: Path, collection: str, prompt: str, field: str, count: int) -> list[str]:
    from soardb.connect import connect
    from soardb.pipelines.stored import retrieved

    with connect(directory, read_only=True) as database:
        return retrieved(database.get_collection(collection), field, count, text=prompt)


def _stored_texts(directory: Path, collection: str, field: str, count: int) -> list[str]:
    from soardb.connect import connect
    from soardb.pipelines.stored import texts_of

    with connect(directory, read_only=True) as database:
        points = database.get_collection(collection).scroll(page_size=count).points
    return texts_of((point.payload for point in points), field)


def lines_of(file: Path) -> list[str]:
    if not file.is_file():
        raise NotFound(f"expected a file of texts, there is none at {file}")
    try:
        found = [line for line in file.read_text("utf-8").split("\n") if line.strip()]
    except UnicodeDecodeError as error:
        raise InvalidArgument(f"expected {file.name} in UTF-8: {error}") from error
    if not found:
        raise InvalidArgument(f"expected texts, one a line, in {file.name}, got none")
    return found


def _line(entry: ModelInfo) -> str:
    numbers = _metrics(entry.metrics)
    return f"{entry.architecture}, {entry.parameters:,} parameters" + (
        f", {numbers}" if numbers else ""
    )


def _metrics(metrics: Any) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
