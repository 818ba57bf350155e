"""One question, asked: the agent's steps as they are told, and at last the answer.

    machine.py -> [asking.py] -> told.py; cli, integrations/mcp.py, soardb_service

The records of the machine hold all that there was, to be learned from; what is told here is what
somebody who waits for the answer wants to see.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from soardb.pipelines.agent.actions import (
    ActionWrapper,
    Answer,
    LinkSelection,
    Revise_Answer,
    Step,
    citations,
    read_output,
)
from soardb.pipelines.agent.language import LanguageModel, Usage
from soardb.pipelines.agent.machine import Agent, AgentConfig
from soardb.pipelines.agent.prompts import Exemplar
from soardb.pipelines.agent.told import AgentAnswer, AgentStep, FoundPassage, Source
from soardb.pipelines.agent.tools import Tool
from soardb.pipelines.agent.trajectory import StepRecord, ToolUse, Trajectory

__all__ = ["Asking", "asking", "shots_for"]


def shots_for(
    wanted: bool | None, lineage: Mapping[str, Any] | None = None
) -> Mapping[Step, Sequence[Exemplar]] | None:
    """The examples that prompts show; None for none.

    wanted   None: shown unless the model was fine-tuned for the agent
    lineage  of a model of a registry, whose "agent" says that it was
    """
    if wanted is None:
        wanted = not (lineage or {}).get("agent")
    if not wanted:
        return None
    from soardb.pipelines.agent.exemplars import SHOTS

    return SHOTS


def asking(
    question: str,
    model: LanguageModel,
    tool: Tool,
    config: AgentConfig | None = None,
    shots: Mapping[Step, Sequence[Exemplar]] | None = None,
) -> Asking:
    """Ask one question: an iterator of steps.

    Errors: InvalidArgument; those of the model and of the tool, and MalformedOutput, as it is gone
    through.
    """
    return Asking(Agent(model, tool, config, shots).ask(question), model)


class Asking:
    """Steps as they are done: an iterator. close(), or leaving the block, ends the agent.

    answer      once the last step has come; trajectory: all that happened, to be kept
    """

    def __init__(self, records: Iterator[StepRecord | Trajectory], model: LanguageModel) -> None:
        self._records = records
        self._model = model
        self._before: Usage = replace(model.usage)
        self._titles: dict[int, str] = {}
        self.answer: AgentAnswer | None = None
        self.trajectory: Trajectory | None = None

    def __iter__(self) -> Asking:
        return self

    def __next__(self) -> AgentStep:
        if self.answer is not None:
            raise StopIteration
        record = next(self._records)
        if isinstance(record, StepRecord):
            return self._step(record)
        self.trajectory = record
        self.answer = self._answer(record)
        raise StopIteration

    def close(self) -> None:
        """Let go of it, finished or not."""
        self._records.close()  # type: ignore[attr-defined]  # Agent.ask is a generator

    def __enter__(self) -> Asking:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _step(self, record: StepRecord) -> AgentStep:
        output = read_output(record.step, record.text)
        action = output.action
        said: str | None = None
        query: str | None = None
        selected: tuple[int, ...] = ()
        if isinstance(action, ActionWrapper):
            query = None if record.tool is None else record.tool.query
        elif isinstance(action, LinkSelection):
            said, selected = action.grounded_summarization, action.selected_link_ids
        elif isinstance(action, Answer):
            said = action.answer
        elif isinstance(action, Revise_Answer):
            said = action.revised_answer
        return AgentStep(
            step=record.step,
            text=record.text,
            comments=output.comments,
            thoughts=getattr(action, "thoughts", ""),
            query=query,
            found=() if record.tool is None else self._found(record.tool),
            said=said,
            selected=selected,
            samples=len(record.samples),
            perplexity=record.samples[record.chosen].perplexity,
        )

    def _found(self, use: ToolUse) -> tuple[FoundPassage, ...]:
        self._titles |= {link: one.title for link, one in zip(use.links, use.found, strict=True)}
        return tuple(
            FoundPassage(link, one.document, one.title, one.text)
            for link, one in zip(use.links, use.found, strict=True)
        )

    def _answer(self, record: Trajectory) -> AgentAnswer:
        assert record.answer is not None  # one that failed was raised
        assert record.draft is not None
        used = self._model.usage
        return AgentAnswer(
            answer=record.answer,
            draft=record.draft,
            after_relevance=record.after_relevance,
            sources=tuple(
                Source(link, record.links[link], self._titles[link])
                for link in citations(record.answer)
            ),
            searches=record.searches,
            prompt_tokens=used.prompt_tokens - self._before.prompt_tokens,
            completion_tokens=used.completion_tokens - self._before.completion_tokens,
            seconds=record.seconds,
        )
