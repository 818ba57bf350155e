"""`soardb agent`: a policy improves itself; how good one is; the steps that it learns from.

commands.py -> [improving.py] -> pipelines/agent
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from soardb.cli import asking, models, tables
from soardb.errors import InvalidArgument, NotFound

if TYPE_CHECKING:
    from soardb.pipelines.agent.judge import Accuracy
    from soardb.pipelines.agent.store import Trajectories

__all__ = ["register"]

app = typer.Typer(help="Agents that learn from their own searches.", no_args_is_help=True)


class TargetsName(StrEnum):
    """What a step's target is."""

    ranked = "ranked"
    perplexity = "perplexity"


Questions = Annotated[Path, typer.Option(help="CSV or JSON Lines with question and answer.")]
Collection = Annotated[str, typer.Option(help="Where is searched.")]
Model = Annotated[str, typer.Option(help="The policy: of the registry, or behind --url.")]
Judge = Annotated[
    str | None, typer.Option(help="Judges answers: where the policy is; itself unless told.")
]
Kept = Annotated[str, typer.Option("--kept", help="The collection of trajectories.")]
Name = Annotated[str, typer.Option(help="Of the undertaking, and of its policies.")]
Targets = Annotated[TargetsName, typer.Option(help="Ranked best, or of lowest perplexity.")]
AtOnce = Annotated[int, typer.Option(min=1, help="Questions side by side.")]
Runs = Annotated[int, typer.Option(min=1, help="Trajectories of each question for a judge.")]


def register(program: typer.Typer) -> None:
    """Add the group to the program."""
    program.add_typer(app, name="agent")


@app.command()
def improve(
    directory: models.Directory,
    name: Name,
    base: Annotated[str, typer.Option(help="The model that every policy starts from.")],
    collection: Collection,
    questions: Questions,
    validation: Annotated[Path, typer.Option(help="Others, that say whether to go on.")],
    model: Model,
    rater: Annotated[str | None, typer.Option(help="Ranks samples; as --judge.")] = None,
    judge: Judge = None,
    text: asking.TextField = "text",
    title: asking.TitleField = None,
    url: asking.Url = None,
    key_file: asking.KeyFile = None,
    endpoint: asking.Endpoint = asking.EndpointName.completions,
    embedder: asking.EmbedderName = None,
    kept: Kept = "trajectories",
    generations: Annotated[int, typer.Option(min=1, help="At most.")] = 2,
    repetitions: Annotated[int, typer.Option(min=1, help="Of each question.")] = 1,
    targets: Targets = TargetsName.ranked,
    may_refuse: Annotated[
        bool,
        typer.Option("--may-refuse", help="Steps of bad samples alone are not learned from."),
    ] = False,
    runs: Runs = 10,
    patient: Annotated[
        bool, typer.Option("--patient", help="Go on after a generation that was no better.")
    ] = False,
    epochs: Annotated[float, typer.Option(help="Times that each step is read.")] = 2.0,
    rate: Annotated[float, typer.Option(help="Of learning, at its highest.")] = 1e-3,
    lora: Annotated[
        int | None, typer.Option(min=1, help="Rank of additions that learn; else all weights do.")
    ] = None,
    reading: Annotated[
        float, typer.Option(help="Weight of the loss of prompts; 1 teaches small models to copy.")
    ] = 0.0,
    passages: asking.Passages = 3,
    passage_length: asking.PassageLength = 500,
    searches: asking.Searches = 10,
    samples: asking.Samples = 4,
    temperature: asking.Temperature = 0.5,
    grow_samples: Annotated[
        int | None, typer.Option(min=1, help="Of each step where it grows; as --samples else.")
    ] = None,
    grow_temperature: Annotated[
        float | None, typer.Option(min=0, help="Where it grows; as --temperature else.")
    ] = None,
    longest: asking.Longest = 512,
    shots: asking.Shots = None,
    at_once: AtOnce = 64,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    as_json: models.Json = False,
) -> None:
    """Grow, rank, fine-tune, verify, and again (ReST); the same call goes on.

    Policies are kept as NAME-g1, NAME-g2.
    """
    from soardb.pipelines.agent.feedback import RankConfig
    from soardb.pipelines.agent.machine import AgentConfig
    from soardb.pipelines.agent.questions import read_questions
    from soardb.pipelines.agent.rest import Rest, RestConfig
    from soardb.pipelines.agent.tuning import TuneConfig

    measured = AgentConfig(searches, samples, temperature, longest, seed=seed)
    growing = replace(
        measured, samples=samples if grow_samples is None else grow_samples,
        temperature=temperature if grow_temperature is None else grow_temperature,
    )  # fmt: skip
    shown = min(100, max(4, grow_samples or 0))
    config = RestConfig(
        generations, repetitions, targets.value, measured, growing,
        rank=RankConfig(seed=seed, may_refuse=may_refuse, shown=shown),
        tune=TuneConfig(epochs, rate=rate, lora=lora, seed=seed, reading=reading), runs=runs,
        is_patient=patient, at_once=at_once,
    )  # fmt: skip
    config.check()
    asked, held_out = read_questions(questions, answer=None), read_questions(validation)
    place = _Place(directory, url, key_file, endpoint.value)
    with place.opened(collection, text, title, embedder, passages, passage_length) as (
        database,
        tool,
        embed,
    ):
        loop = Rest(
            name,
            models.registry_of(directory),
            base,
            place.model(model),
            tool,
            place.model(rater or model),
            place.model(judge or model),
            _kept(database, kept, embed, name),
            _kept(database, kept, embed, _measured(name)),
            asked,
            held_out,
            config,
            place.shots(model, shots),
        )
        with tables.bars() as progress:
            found = loop.run(progress)
    if as_json:
        print(json.dumps([one.to_json() for one in found]))
        return
    for one in found:
        tables.out.print(f"{one.number}  {one.model:<24} {_told(one.validation)}", soft_wrap=True)


@app.command()
def evaluate(
    directory: models.Directory,
    collection: Collection,
    questions: Questions,
    model: Model,
    judge: Judge = None,
    text: asking.TextField = "text",
    title: asking.TitleField = None,
    url: asking.Url = None,
    key_file: asking.KeyFile = None,
    endpoint: asking.Endpoint = asking.EndpointName.completions,
    embedder: asking.EmbedderName = None,
    kept: Kept = "trajectories",
    name: Annotated[
        str | None, typer.Option(help="Of the measurement; the model's unless told.")
    ] = None,
    runs: Runs = 10,
    judge_anew: Annotated[
        bool, typer.Option("--judge-anew", help="Ask about what was judged before, too.")
    ] = False,
    passages: asking.Passages = 3,
    passage_length: asking.PassageLength = 500,
    searches: asking.Searches = 10,
    samples: asking.Samples = 4,
    temperature: asking.Temperature = 0.5,
    longest: asking.Longest = 512,
    shots: asking.Shots = None,
    at_once: AtOnce = 64,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    as_json: models.Json = False,
) -> None:
    """Accuracy over runs, before and after the self-checks; trajectories are kept."""
    from soardb.pipelines.agent.machine import Agent, AgentConfig
    from soardb.pipelines.agent.questions import read_questions
    from soardb.pipelines.agent.rest import evaluate as measured

    config = AgentConfig(searches, samples, temperature, longest, seed=seed)
    config.check()
    name = name or model
    asked = read_questions(questions)
    place = _Place(directory, url, key_file, endpoint.value)
    with place.opened(collection, text, title, embedder, passages, passage_length) as (
        database,
        tool,
        embed,
    ):
        agent = Agent(place.model(model), tool, config, place.shots(model, shots))
        with tables.bars() as progress:
            found = measured(
                agent, place.model(judge or model), _kept(database, kept, embed, _measured(name)),
                asked, 0, runs, at_once, progress=lambda share: progress("evaluate", share),
                judge_anew=judge_anew,
            )  # fmt: skip
    if as_json:
        print(json.dumps(found.to_json()))
        return
    tables.out.print(f"{model:<24} {_told(found)}", soft_wrap=True)


@app.command()
def export(
    directory: models.Directory,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Ends in .jsonl or .parquet.")],
    name: Name,
    kept: Kept = "trajectories",
    generation: Annotated[int | None, typer.Option(min=0, help="This one alone.")] = None,
    targets: Targets = TargetsName.ranked,
) -> None:
    """Write the steps of complete trajectories, prompt and target, for fine-tuning elsewhere."""
    from soardb.connect import connect
    from soardb.pipelines.agent.mixture import counts, mixture, write_jsonl, write_parquet
    from soardb.pipelines.agent.store import Trajectories, hashed

    writers = {".jsonl": write_jsonl, ".parquet": write_parquet}
    if name.startswith(_measured("")):
        raise InvalidArgument("expected a run to learn from, got one that measures")
    if file.suffix not in writers:
        raise InvalidArgument(f"expected a .jsonl or .parquet file, got {file.name}")
    _expect_database(directory)
    with connect(str(directory), read_only=True) as database:
        held = Trajectories(database.get_collection(kept), hashed, name)
        fields = {} if generation is None else {"generation": generation}
        examples = mixture(held.all(**fields), targets.value)
    if not examples:
        raise NotFound(f"expected complete trajectories of {name!r} in {kept!r}, there are none")
    writers[file.suffix](file, examples)
    for step, count in counts(examples).items():
        tables.out.print(f"{step:<10} {count:,}")


class _Place:
    """A database directory, and where its language models are."""

    def __init__(self, directory: Path, url: str | None, key: Path | None, endpoint: str) -> None:
        if key is not None and url is None:
            raise InvalidArgument("expected --url beside --key-file")
        self._directory, self._url, self._key, self._endpoint = directory, url, key, endpoint
        self._models: dict[str, Any] = {}

    def model(self, name: str) -> Any:
        """Of the server, or of the registry; each is loaded once."""
        from soardb.pipelines.agent.choice import language_model

        if name not in self._models:
            self._models[name] = (
                language_model(name, registry=models.registry_of(self._directory))
                if self._url is None
                else language_model(
                    name, url=self._url, key=asking.key_of(self._key), endpoint=self._endpoint
                )
            )
        return self._models[name]

    def shots(self, name: str, wanted: bool | None) -> Any:
        """Examples for that model, or none."""
        from soardb.pipelines.agent.asking import shots_for

        held = self._url is None
        lineage = models.registry_of(self._directory).get(name).lineage if held else {}
        return shots_for(wanted, lineage) or {}

    @contextlib.contextmanager
    def opened(
        self,
        collection: str,
        text: str,
        title: str | None,
        embedder: str | None,
        passages: int,
        passage_length: int,
    ) -> Iterator[tuple[Any, Any, Any]]:
        """The database, the tool with its answers kept, and what embeds questions."""
        from soardb.connect import connect
        from soardb.pipelines.agent.store import hashed
        from soardb.pipelines.agent.tools import CachedTool, CollectionTool

        _expect_database(self._directory)
        embed = asking.embedding(str(self._directory), embedder)
        with connect(str(self._directory)) as database:
            found = CollectionTool(
                database.get_collection(collection), text, title=title, embed=embed,
                count=passages, longest=passage_length, by=embedder or "",
            )  # fmt: skip
            (self._directory / "agent").mkdir(exist_ok=True)
            tool = CachedTool(found, self._directory / "agent" / "answers.sqlite")
            with contextlib.closing(tool):
                yield database, tool, embed or hashed


def _kept(database: Any, name: str, embed: Any, run: str) -> Trajectories:
    from soardb.pipelines.agent.store import Trajectories

    return Trajectories.create(database, name, embed, run)


def _measured(name: str) -> str:
    """The run of trajectories that measure: nothing is learned from them, nor exported."""
    return f"measured: {name}"


def _expect_database(directory: Path) -> None:
    if not (directory / "catalog.json").is_file():
        raise NotFound(f"expected a soardb database in {directory}, found none")


def _told(found: Accuracy) -> str:
    text = f"{found.mean:.3f}"
    if len(found.runs) > 1:
        text += f" ± {found.sd:.3f}"
    before = sum(found.before) / len(found.before)
    return (
        f"{text}, before the self-checks {before:.3f}, no answer {found.failed:.3f}, no verdict "
        f"{found.unread:.3f}"
    )
