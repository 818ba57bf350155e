"""Questions that a server's agent answers over a collection: what is sent, and what comes back.

client.py, aio.py -> [agent.py] -> calls.py, soardb/pipelines/agent/told.py
"""

from __future__ import annotations

import json

from soardb.arrays import as_int
from soardb.errors import InvalidArgument, Unavailable
from soardb.filters.expr import Expr
from soardb.filters.json_form import from_json, to_json
from soardb.options import Filter, as_number
from soardb.pipelines.agent.told import AgentAnswer, AgentStep, FoundPassage, Source
from soardb_client.calls import Call, as_text
from soardb_proto.v1 import agent_pb2, types_pb2

__all__ = ["AgentAnswer", "AgentStep", "FoundPassage", "Source", "ask", "told_of", "unended"]

_MOST = 2**32 - 1


def ask(
    collection: str,
    question: str,
    model: str,
    text_field: str,
    title_field: str | None,
    embedder: str | None,
    filter: Filter,
    passages: int,
    passage_length: int,
    searches: int,
    samples: int,
    temperature: float,
    longest: int,
    self_checks: bool,
    shots: bool | None,
    grammars: bool,
    seed: int,
) -> Call:
    """The call that streams steps. Errors: InvalidArgument."""
    if as_number(temperature, "temperature") < 0:
        raise InvalidArgument(f"expected a temperature of at least 0, got {temperature}")
    request = agent_pb2.AskRequest(
        collection=as_text(collection, "collection"),
        question=as_text(question, "question"),
        model=as_text(model, "the name of a model"),
        text_field=as_text(text_field, "text_field"),
        title_field="" if title_field is None else as_text(title_field, "title_field"),
        embedder="" if embedder is None else as_text(embedder, "embedder"),
        filter=_filter(filter),
        passages=as_int(passages, "passages", 1, _MOST),
        passage_length=as_int(passage_length, "passage_length", 1, _MOST),
        searches=as_int(searches, "searches", 1, _MOST),
        samples=as_int(samples, "samples", 1, _MOST),
        temperature=temperature,
        longest=as_int(longest, "longest", 1, _MOST),
        seed=as_int(seed, "seed", 0, 2**63 - 1),
        self_checks=bool(self_checks),
        grammars=bool(grammars),
    )
    if shots is not None:
        request.shots = bool(shots)
    return Call("/soardb.v1.Agent/Ask", request, agent_pb2.AskReply, "long", False)


def _filter(filter: Filter) -> types_pb2.Filter | None:
    """As it travels; the server compares it with the schema."""
    if filter is None:
        return None
    if isinstance(filter, str):
        return types_pb2.Filter(sql=as_text(filter, "filter"))
    tree = filter if isinstance(filter, Expr) else from_json(filter)
    return types_pb2.Filter(json=json.dumps(to_json(tree), ensure_ascii=False).encode())


def told_of(message: agent_pb2.AskReply) -> AgentStep | AgentAnswer:
    """A step, or the answer at the end of them."""
    if message.WhichOneof("part") == "step":
        step = message.step
        return AgentStep(
            step=step.step,
            text=step.text,
            comments=tuple(step.comments),
            thoughts=step.thoughts,
            query=step.query if step.HasField("query") else None,
            found=tuple(
                FoundPassage(one.link, one.point, one.title, one.text) for one in step.found
            ),
            said=step.said if step.HasField("said") else None,
            selected=tuple(step.selected),
            samples=step.samples,
            perplexity=step.perplexity,
        )
    told = message.answer
    return AgentAnswer(
        answer=told.answer,
        draft=told.draft,
        after_relevance=told.after_relevance if told.HasField("after_relevance") else None,
        sources=tuple(Source(one.link, one.point, one.title) for one in told.sources),
        searches=told.searches,
        prompt_tokens=told.prompt_tokens,
        completion_tokens=told.completion_tokens,
        seconds=told.seconds,
    )


def unended() -> Unavailable:
    """What is raised where the steps stop without an answer."""
    return Unavailable("expected steps up to an answer, the stream ended before")
