"""The proto service Agent: questions that a language model answers by searching a collection.

    rpc.py -> [agent.py] -> models.py (the shelf), config.py, pipelines/agent

A request names a model, never an address: it is one of the settings' `llm`, which come first, or
one of the registry. What fails at such an address is told without it. Passages are data to the
agent; what a model writes is taken apart by a parser and nothing of it is run.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import structlog

from soardb import deadline
from soardb.database import Database
from soardb.errors import InvalidArgument, NotAllowed, NotFound, TimedOut, Unavailable
from soardb.kernels.layout import F32
from soardb_proto.v1 import agent_pb2 as pb
from soardb_service.config import OutsideModel
from soardb_service.convert import filter_of
from soardb_service.models import Models
from soardb_service.rpc import Call, opened

if TYPE_CHECKING:
    from soardb.pipelines.agent.language import Completion, LanguageModel, Usage, Wish
    from soardb.pipelines.agent.machine import AgentConfig
    from soardb.pipelines.agent.told import AgentAnswer, AgentStep

__all__ = ["Agent"]

_FIELD, _PASSAGES, _LENGTH, _SEARCHES, _SAMPLES = "text", 3, 500, 10, 4
_TEMPERATURE, _LONGEST = 0.5, 512
_MOST = {"passages": 20, "passage_length": 10_000, "samples": 32, "longest": 4096}
_LONGEST_QUESTION = 10_000  # characters


_log = structlog.get_logger("soardb_service")


class Agent:
    """One method an rpc, named as in the .proto file.

    models   whose shelf lends those of the registry; outside: those of the settings, by name
    """

    def __init__(
        self, database: Database, models: Models, outside: Mapping[str, OutsideModel]
    ) -> None:
        self._database = database
        self._models = models
        self._outside = outside

    def Ask(self, request: pb.AskRequest, call: Call) -> Iterator[pb.AskReply]:  # noqa: N802
        """Each step as it is done, then the answer."""
        from soardb.pipelines.agent.asking import asking, shots_for
        from soardb.pipelines.agent.tools import CollectionTool

        config = _config(request)
        call.notes["model"] = request.model[:80]
        collection = opened(self._database, call, request.collection)
        with contextlib.ExitStack() as stack:
            model, lineage, embed = self._lent(request, stack)
            tool = CollectionTool(
                collection,
                request.text_field or _FIELD,
                title=request.title_field or None,
                embed=embed,
                count=request.passages or _PASSAGES,
                longest=request.passage_length or _LENGTH,
                where=filter_of(request.filter),
            )
            shots = shots_for(request.shots if request.HasField("shots") else None, lineage)
            steps = stack.enter_context(asking(request.question, model, tool, config, shots))
            for step in steps:
                yield pb.AskReply(step=_step(step))
        assert steps.answer is not None
        call.notes["searches"] = steps.answer.searches
        yield pb.AskReply(answer=_answer(steps.answer))

    def _lent(
        self, request: pb.AskRequest, stack: contextlib.ExitStack
    ) -> tuple[LanguageModel, Mapping[str, Any], Callable[[Sequence[str]], F32] | None]:
        """The model, its lineage and what embeds queries, until the end of the stack."""
        outside = self._outside.get(request.model)
        names = [] if outside is not None else [request.model]
        names += [request.embedder] if request.embedder else []
        lent = stack.enter_context(self._models.shelf().lent(*names)) if names else []
        embed = None
        if request.embedder:
            from soardb.pipelines.embed import Embedder

            embed = Embedder(lent[-1].encoder, lent[-1].tokens).vectors
        if outside is not None:
            return stack.enter_context(_Outside(request.model, outside)), {}, embed
        from soardb.pipelines.agent.local import LocalModel

        return LocalModel(lent[0]), lent[0].entry.lineage, embed


class _Outside:
    """A model of the settings; a LanguageModel. What fails there is told without its address."""

    def __init__(self, name: str, told: OutsideModel) -> None:
        from soardb.pipelines.agent.openai_api import OpenAIModel

        self.name = name
        with self._discreet():
            self._model = OpenAIModel(
                told.url,
                told.model,
                key=told.key(),
                endpoint=told.endpoint,
                timeout=told.timeout_s,
            )

    def __enter__(self) -> _Outside:
        return self

    def __exit__(self, *_: object) -> None:
        self._model.close()

    @property
    def usage(self) -> Usage:
        """What it cost so far."""
        return self._model.usage

    def complete(
        self, prompts: Sequence[str], wish: Wish
    ) -> list[list[Completion] | InvalidArgument]:
        """See LanguageModel."""
        with self._discreet():
            found = self._model.complete(prompts, wish)
        return [self._refused(one) if isinstance(one, InvalidArgument) else one for one in found]

    def _refused(self, error: InvalidArgument) -> InvalidArgument:
        """What is told of it: what that server said is for the log."""
        _log.warning("language model of the settings", model=self.name, why=str(error))
        why = "it is too long" if "fits beside the sample" in str(error) else "the log says why"
        return InvalidArgument(
            f"expected a prompt that the language model {self.name!r} takes, got another: {why}"
        )

    @contextlib.contextmanager
    def _discreet(self) -> Iterator[None]:
        try:
            yield
        # Unavailable and TimedOut are OSErrors; a key file that is no text is a ValueError, as is
        # InvalidArgument.
        except (NotAllowed, NotFound, OSError, ValueError) as error:
            if isinstance(error, TimedOut):
                deadline.check()  # where it was the caller's time that was up
            _log.warning("language model of the settings", model=self.name, why=str(error))
            raise Unavailable(
                f"the language model {self.name!r}, which the server's settings name, does not "
                "answer as it should; the log of the server says why"
            ) from error


def _config(request: pb.AskRequest) -> AgentConfig:
    """How the agent works. Errors: InvalidArgument."""
    from soardb.pipelines.agent.machine import AgentConfig

    if not request.question.strip() or len(request.question) > _LONGEST_QUESTION:
        raise InvalidArgument(
            f"expected a question of at most {_LONGEST_QUESTION:,} characters, got "
            f"{len(request.question):,}"
        )
    for name, most in _MOST.items():
        if getattr(request, name) > most:
            raise InvalidArgument(
                f"expected {name} of at most {most:,}, got {getattr(request, name):,}"
            )
    config = AgentConfig(
        searches=request.searches or _SEARCHES,
        samples=request.samples or _SAMPLES,
        temperature=request.temperature if request.HasField("temperature") else _TEMPERATURE,
        longest=request.longest or _LONGEST,
        self_checks=request.self_checks if request.HasField("self_checks") else True,
        grammars=request.grammars,
        seed=request.seed,
    )
    config.check()
    return config


def _step(told: AgentStep) -> pb.AgentStep:
    values = asdict(told) | {"found": [pb.FoundPassage(**asdict(one)) for one in told.found]}
    return pb.AgentStep(**values)


def _answer(told: AgentAnswer) -> pb.AgentAnswer:
    values = asdict(told) | {"sources": [pb.AnswerSource(**asdict(one)) for one in told.sources]}
    return pb.AgentAnswer(**values)
