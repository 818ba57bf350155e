"""`soardb ask` and `soardb mcp`: a language model answers by searching, for a person or a program.

commands.py -> [asking.py] -> pipelines/agent, integrations/mcp.py; or soardb.connect("grpc://...")

Steps go to standard error as they are done, the answer to standard output. What stored texts and
models say is shown without control characters, which a terminal would obey.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from soardb.cli import models, tables
from soardb.cli import texts as sources
from soardb.cli.served_models import is_served
from soardb.errors import InvalidArgument, NotFound

if TYPE_CHECKING:
    from soardb.pipelines.agent.told import AgentAnswer, AgentStep

__all__ = ["embedding", "key_of", "register"]

_SHOWN = 160  # characters of a passage


class EndpointName(StrEnum):
    """Where a server takes prompts."""

    completions = "completions"
    chat = "chat"


Place = Annotated[
    str, typer.Argument(metavar="PLACE", help="A database directory, or grpc://HOST:PORT.")
]
TextField = Annotated[str, typer.Option("--text", help="The payload field with the passages.")]
TitleField = Annotated[str | None, typer.Option("--title", help="That with their titles.")]
Url = Annotated[
    str | None,
    typer.Option(help="Of a server that speaks the OpenAI protocol, http://HOST:PORT/v1."),
]
KeyFile = Annotated[
    Path | None, typer.Option(help="A file with the key of that server, and nothing else.")
]
Endpoint = Annotated[EndpointName, typer.Option(help="Which of that server's, with --url.")]
EmbedderName = Annotated[
    str | None,
    typer.Option("--embedder", help="Search by vectors of this model of the registry too."),
]
Passages = Annotated[int, typer.Option(min=1, help="That a search finds.")]
PassageLength = Annotated[
    int, typer.Option(min=1, max=10_000, help="Characters of one that are shown.")
]
Searches = Annotated[int, typer.Option(min=1, max=10, help="At most.")]
Samples = Annotated[int, typer.Option(min=1, help="Of each step.")]
Temperature = Annotated[float, typer.Option(min=0, help="0 takes the likeliest token.")]
Longest = Annotated[int, typer.Option(min=1, help="Tokens of a sample.")]
SelfChecks = Annotated[bool, typer.Option("--self-checks/--no-self-checks", help="Of the answer.")]
Shots = Annotated[
    bool | None,
    typer.Option(
        "--shots/--no-shots",
        help="Show examples in prompts; unless told, to models that were not fine-tuned for it.",
    ),
]
Grammars = Annotated[
    bool, typer.Option("--grammars", help="Hold samples to the grammar of their step.")
]


def register(program: typer.Typer) -> None:
    """Add the commands to the program."""
    program.command()(ask)
    program.command()(mcp)


@dataclass(frozen=True, slots=True)
class _Wishes:
    """How the agent answers. endpoint, url and key_file: of a model that is no server's of ours."""

    model: str
    url: str | None
    key_file: Path | None
    endpoint: str
    text: str
    title: str | None
    embedder: str | None
    where: str | None
    passages: int = 3
    passage_length: int = 500
    searches: int = 10
    samples: int = 4
    temperature: float = 0.5
    longest: int = 512
    self_checks: bool = True
    shots: bool | None = None
    grammars: bool = False
    seed: int = 0


def ask(
    question: Annotated[str, typer.Argument(metavar="QUESTION")],
    place: Place,
    collection: Annotated[str, typer.Option(help="Where is searched.")],
    model: Annotated[
        str,
        typer.Option(help="A model of the registry, of a server's settings, or behind --url."),
    ],
    text: TextField = "text",
    title: TitleField = None,
    url: Url = None,
    key_file: KeyFile = None,
    endpoint: Endpoint = EndpointName.completions,
    embedder: EmbedderName = None,
    where: sources.Where = None,
    passages: Passages = 3,
    passage_length: PassageLength = 500,
    searches: Searches = 10,
    samples: Samples = 4,
    temperature: Temperature = 0.5,
    longest: Longest = 512,
    self_checks: SelfChecks = True,
    shots: Shots = None,
    grammars: Grammars = False,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    as_json: models.Json = False,
) -> None:
    """Answer a question by searching a collection: each step as it is done, then the answer."""
    wishes = _Wishes(
        model, url, key_file, endpoint.value, text, title, embedder, where, passages,
        passage_length, searches, samples, temperature, longest, self_checks, shots, grammars,
        seed,
    )  # fmt: skip
    told = []
    with (
        _opened(place) as database,
        _asker(place, database, wishes) as asker,
        asker(collection, question) as steps,
    ):
        for step in steps:
            told.append(step)
            if not as_json:
                _show_step(step)
    answer: AgentAnswer = steps.answer
    if as_json:
        print(json.dumps({**answer.to_json(), "steps": [step.to_json() for step in told]}))
        return
    _show_answer(answer)


def mcp(
    place: Place,
    collections: Annotated[
        list[str] | None,
        typer.Option("--collection", help="Only this one; may be told several times."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Offer `ask` with this model, as `soardb ask` takes it.")
    ] = None,
    text: TextField = "text",
    title: TitleField = None,
    url: Url = None,
    key_file: KeyFile = None,
    endpoint: Endpoint = EndpointName.completions,
    embedder: EmbedderName = None,
    passages: Passages = 3,
    passage_length: PassageLength = 500,
    searches: Searches = 10,
    samples: Samples = 4,
    temperature: Temperature = 0.5,
    longest: Longest = 512,
    self_checks: SelfChecks = True,
    shots: Shots = None,
    grammars: Grammars = False,
    http: Annotated[
        int | None,
        typer.Option(
            min=1, max=65535, metavar="PORT", help="Streamable HTTP on loopback, not stdio."
        ),
    ] = None,
) -> None:
    """Serve search, get and ask as tools of the Model Context Protocol, over stdio; reads only."""
    from soardb.integrations.mcp import serve

    if model is None and url is not None:
        raise InvalidArgument("expected --model beside --url")
    with contextlib.ExitStack() as stack:
        database = stack.enter_context(_opened(place))
        if is_served(place) and embedder is not None and model is None:
            raise InvalidArgument("expected --model beside --embedder with a server, got none")
        embed = None if is_served(place) else embedding(place, embedder)
        asker = None
        if model is not None:
            wishes = _Wishes(
                model, url, key_file, endpoint.value, text, title, embedder, None, passages,
                passage_length, searches, samples, temperature, longest, self_checks, shots,
                grammars,
            )  # fmt: skip
            asker = stack.enter_context(_asker(place, database, wishes))
        if http is not None:
            tables.note(f"MCP at http://127.0.0.1:{http}/mcp")
        serve(database, ask=asker, embed=embed, only=collections or None, port=http)


@contextlib.contextmanager
def _opened(place: str) -> Iterator[Any]:
    """A database for reading, or a server's. Errors: those of connect."""
    from soardb.connect import connect

    if not is_served(place):
        if not (Path(place) / "catalog.json").is_file():
            raise NotFound(f"expected a soardb database in {place}, found none")
        with connect(place, read_only=True) as database:
            yield database
        return
    if not place.startswith(("grpc://", "grpcs://")):
        raise InvalidArgument(
            f"expected a database directory, or a server as grpc://HOST:PORT, got {place!r}"
        )
    client: Any = connect(place)
    with client:
        yield client


@contextlib.contextmanager
def _asker(place: str, database: Any, wishes: _Wishes) -> Iterator[Callable[[str, str], Any]]:
    """What asks a question of a collection: steps as they come, as a context manager."""
    if is_served(place):
        if wishes.url is not None or wishes.key_file is not None:
            raise InvalidArgument(
                "expected --url with a directory: a server asks models that its own settings name, "
                "or that its registry holds"
            )
        yield lambda collection, question: _served(database, collection, question, wishes)
        return
    from soardb.pipelines.agent.asking import asking, shots_for
    from soardb.pipelines.agent.choice import language_model
    from soardb.pipelines.agent.machine import AgentConfig
    from soardb.pipelines.agent.tools import CollectionTool

    config = AgentConfig(
        wishes.searches, wishes.samples, wishes.temperature, wishes.longest,
        self_checks=wishes.self_checks, grammars=wishes.grammars, seed=wishes.seed,
    )  # fmt: skip
    config.check()
    lineage: dict[str, Any] = {}
    if wishes.url is not None:
        model = language_model(
            wishes.model, url=wishes.url, key=key_of(wishes.key_file), endpoint=wishes.endpoint
        )
    elif wishes.key_file is not None:
        raise InvalidArgument("expected --url beside --key-file")
    else:
        registry = models.registry_of(Path(place))
        lineage = registry.get(wishes.model).lineage
        model = language_model(wishes.model, registry=registry)
    embed = embedding(place, wishes.embedder)
    shots = shots_for(wishes.shots, lineage)

    def asked(collection: str, question: str) -> Any:
        tool = CollectionTool(
            database.get_collection(collection), wishes.text, title=wishes.title, embed=embed,
            count=wishes.passages, longest=wishes.passage_length, where=wishes.where,
        )  # fmt: skip
        return asking(question, model, tool, config, shots)

    yield asked


def _served(database: Any, collection: str, question: str, wishes: _Wishes) -> Any:
    return database.ask(
        collection, question, model=wishes.model, text_field=wishes.text,
        title_field=wishes.title, embedder=wishes.embedder, filter=wishes.where,
        passages=wishes.passages, passage_length=wishes.passage_length,
        searches=wishes.searches, samples=wishes.samples, temperature=wishes.temperature,
        longest=wishes.longest, self_checks=wishes.self_checks, shots=wishes.shots,
        grammars=wishes.grammars, seed=wishes.seed,
    )  # fmt: skip


def embedding(place: str, name: str | None) -> Any:
    """What embeds texts, by a model of a directory's registry; None for none."""
    if name is None:
        return None
    from soardb.pipelines.embed import Embedder

    found = models.registry_of(Path(place)).load(name)
    return Embedder(found.encoder, found.tokens).vectors


def key_of(file: Path | None) -> str | None:
    """What stands in a file, but for blanks; None for none. Errors: NotFound."""
    if file is None:
        return None
    if not file.is_file():
        raise NotFound(f"expected a file with a key, there is none at {file}")
    return file.read_text("utf-8").strip()


# ---- what is shown ----


def _show_step(step: AgentStep) -> None:
    told = Text(f"{step.step:<10} ", "bold cyan")
    told.append(_clean(step.thoughts or step.said or "passed"), "default")
    _line(told)
    for line in step.comments:
        _line(Text(f"{'':<11}{_clean(line)}", "dim"))
    if step.query is not None:
        _line(Text.assemble(f"{'':<11}", ("search ", "bold"), _clean(step.query)))
        for one in step.found:
            text = one.text if len(one.text) <= _SHOWN else one.text[: _SHOWN - 3] + "..."
            said = _clean(f"{one.title}: {text}")
            _line(Text.assemble(f"{'':<11}", (f"[{one.link}] ", "green"), said))
        if not step.found:
            _line(Text(f"{'':<11}nothing was found", "yellow"))
    if step.said is not None and step.thoughts:
        _line(Text.assemble(f"{'':<11}", ("= ", "bold"), _clean(step.said)))


def _show_answer(answer: AgentAnswer) -> None:
    tables.out.print(Text(_clean(answer.answer)), soft_wrap=True)
    for one in answer.sources:
        tables.out.print(Text(_clean(f"[{one.link}] {one.title} ({one.point})")), soft_wrap=True)
    tables.note(
        f"{answer.searches} searches, {answer.prompt_tokens:,} tokens read, "
        f"{answer.completion_tokens:,} written, {answer.seconds:.2f} s"
    )


def _line(text: Text) -> None:
    tables.err.print(text, soft_wrap=True)


def _clean(text: str) -> str:
    """On one line, without characters that a terminal obeys."""
    return "".join(sign if sign.isprintable() else "\ufffd" for sign in " ".join(text.split()))
