"""The agent: five kinds of steps around one tool, one question at a time or many at once.

    prompts.py, language.py, tools.py -> [machine.py] -> trajectory.py

    decision -> search -> summary -> decision ... -> answer -> relevance check -> grounding check

The way to an answer is a generator that says what it needs, samples for a prompt or snippets for a
query, and is told; it knows no model and no collection. One driver runs one question and hands out
each step as it is done; another runs many in step, so that a local model sees all prompts at once.
Of the samples of a step the readable one of lowest perplexity is gone on from (arXiv 2312.10003,
section 2.3).
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any
from uuid import uuid4

from soardb import deadline
from soardb.arrays import as_int
from soardb.errors import InvalidArgument, MalformedOutput
from soardb.pipelines.agent.actions import (
    END,
    Action,
    ActionWrapper,
    Answer,
    LinkSelection,
    Output,
    ResultItem,
    Revise_Answer,
    Search,
    SearchResult,
    SelectLink,
    Step,
    Terminate,
    citations,
    items_by_id,
    read_output,
)
from soardb.pipelines.agent.language import Completion, LanguageModel, Wish
from soardb.pipelines.agent.prompts import Case, Exemplar, prompt
from soardb.pipelines.agent.tools import Snippet, Tool
from soardb.pipelines.agent.trajectory import Sample, StepRecord, ToolUse, Trajectory

__all__ = ["Agent", "AgentConfig", "Question", "Run"]

MOST_SEARCHES = 10
"""Of one trajectory (arXiv 2312.10003, section 2.1)."""


@dataclass(frozen=True, slots=True)
class Question:
    """text; references: answers that are right, where they are known."""

    id: str
    text: str
    references: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """How the agent works.

    searches     at most, 1 to 10
    samples, temperature  of each step: 4, or 16 for a small model, at 0.5 in the paper
    longest      tokens of a sample (not told by the paper: not verified)
    tries        rounds of samples where none can be read (not told by the paper: not verified)
    self_checks  whether the answer is checked
    grammars     whether samples are held to the grammar of their step, by a model that can
    seed         of the samples
    """

    searches: int = MOST_SEARCHES
    samples: int = 4
    temperature: float = 0.5
    longest: int = 512
    tries: int = 2
    self_checks: bool = True
    grammars: bool = False
    seed: int = 0

    def check(self) -> None:
        """InvalidArgument, naming what is wrong."""
        as_int(self.searches, "searches", 1, MOST_SEARCHES)
        as_int(self.tries, "tries", 1, 100)
        self.wish(0).check()

    def wish(self, attempt: int) -> Wish:
        """For the samples of a step that is asked for the so many-th time."""
        return Wish(
            self.samples, self.temperature, self.longest, (END,), (self.seed + attempt) % 2**63
        )


@dataclass(frozen=True, slots=True)
class _Ask:
    """Samples are needed for a case, for the so many-th time."""

    case: Case
    attempt: int = 0


@dataclass(frozen=True, slots=True)
class _Look:
    """Snippets are needed for a query."""

    query: str


_Need = _Ask | _Look | StepRecord  # a record needs nothing: it is handed out
_Told = list[Completion] | list[Snippet] | InvalidArgument | None


@dataclass(slots=True)
class Run:
    """One way to an answer while it is gone. record: of what happened so far."""

    record: Trajectory
    config: AgentConfig
    _links: dict[Snippet, int] = field(default_factory=dict)

    def steps(self) -> Generator[_Need, Any, None]:
        """What is needed, one by one; the record is complete at the end.

        Errors: MalformedOutput, InvalidArgument for a prompt that does not fit. The record names
        them too.
        """
        try:
            past = yield from self._search()
            answer = yield from self._step("answer", past)
            assert isinstance(answer.action, Answer)  # read_output() gives no other
            self._note(draft=answer.action.answer)
            yield from self._checks((*past, answer.action))
        except (MalformedOutput, InvalidArgument) as error:
            self._note(error=f"{type(error).__name__}: {error}")
            raise

    def _search(self) -> Generator[_Need, Any, tuple[Action, ...]]:
        """Decisions and searches until there is an end of them."""
        past: tuple[Action, ...] = ()
        for remaining in range(self.config.searches, 0, -1):
            decided = (yield from self._step("decision", past, remaining=remaining)).action
            assert isinstance(decided, ActionWrapper)
            if isinstance(decided.action, Terminate):
                return (*past, Terminate(decided.thoughts))
            query = decided.action.query
            found: Sequence[Snippet] = yield _Look(query)
            last = self.record.steps[-1]
            results = SearchResult(tuple(map(self._item, found)))
            links = tuple(item.link_id for item in results.links)
            use = ToolUse(query, tuple(found), links)
            steps = (*self.record.steps[:-1], replace(last, tool=use))
            self._note(steps=steps, searches=self.record.searches + 1)
            yield self.record.steps[-1]
            past = (*past, Search(query, decided.thoughts))
            chosen = (yield from self._step("summary", past, results=results)).action
            assert isinstance(chosen, LinkSelection)
            by_id = {item.link_id: item for item in results.links}
            selected = tuple(by_id[number] for number in chosen.selected_link_ids)
            past = (*past, SelectLink(selected, chosen.grounded_summarization, chosen.thoughts))
        return (*past, Terminate("No searches are left."))

    def _checks(self, past: tuple[Action, ...]) -> Generator[_Need, Any, None]:
        answer = self.record.draft
        steps: tuple[Step, ...] = ("relevance", "grounding") if self.config.self_checks else ()
        for step in steps:
            said = (yield from self._step(step, past, answer=answer)).action
            if isinstance(said, Revise_Answer):
                answer = said.revised_answer
            if step == "relevance":
                self._note(after_relevance=answer)
        self._note(answer=answer)

    def _step(
        self, step: Step, past: tuple[Action, ...], **told: Any
    ) -> Generator[_Need, Any, Output]:
        """Samples of a step until one can be read; the best of them is put on record.

        A decision that searches is handed out by its caller, with what it found.
        """
        case = Case(step, self.record.question, past, **told)
        samples: list[Sample] = []
        for attempt in range(self.config.tries):
            came = yield _Ask(case, attempt)
            if isinstance(came, InvalidArgument):
                raise came
            read = [self._read(case, one) for one in came]
            good = [
                (sample.perplexity, len(samples) + number, output)
                for number, (sample, output) in enumerate(read)
                if output is not None
            ]
            samples += [sample for sample, _ in read]
            if good:
                _, chosen, output = min(good, key=lambda one: one[:2])
                record = StepRecord(step, prompt(case), tuple(samples), chosen)
                self._note(steps=(*self.record.steps, record))
                searched = isinstance(output.action, ActionWrapper) and isinstance(
                    output.action.action, Search
                )
                if not searched:
                    yield record
                return output
        raise MalformedOutput(
            f"expected one of {len(samples)} samples of the step {step!r} to be read, got "
            f"{samples[-1].error}; use a model that was tuned for it, or grammars"
        )

    def _read(self, case: Case, one: Completion) -> tuple[Sample, Output | None]:
        """A sample, and what it says; None where that cannot be."""
        output, error = None, None
        try:
            output = read_output(case.step, one.text)
            _expect_known_links(case, output)
        except MalformedOutput as refused:
            output, error = None, str(refused)
        return Sample(one.text, one.logprob, one.tokens, one.is_finished, error), output

    def _item(self, snippet: Snippet) -> ResultItem:
        """The snippet under its id, which is a new one at its first time."""
        number = self._links.setdefault(snippet, len(self._links) + 1)
        self._note(links={**self.record.links, number: snippet.document})
        return ResultItem(number, snippet.title, snippet.text)

    def _note(self, **changes: Any) -> None:
        self.record = replace(self.record, **changes)


class Agent:
    """A language model, a tool, and how they are used.

    shots  examples of each step that prompts show, for a model that was not fine-tuned for them
    """

    def __init__(
        self,
        model: LanguageModel,
        tool: Tool,
        config: AgentConfig | None = None,
        shots: Mapping[Step, Sequence[Exemplar]] | None = None,
    ) -> None:
        self.config = AgentConfig() if config is None else config
        self.config.check()
        self._model = model
        self._tool = tool
        self._shots = shots or {}

    @property
    def model(self) -> str:
        """Its name."""
        return self._model.name

    @property
    def settings(self) -> dict[str, Any]:
        """All that its trajectories depend on but the model, the question and the seed."""
        told = {**asdict(self.config), "tool": self._tool.key, "shots": bool(self._shots)}
        del told["seed"]
        return told

    def configured(self, config: AgentConfig) -> Agent:
        """The same model and tool, used in another way."""
        return Agent(self._model, self._tool, config, self._shots)

    def reseeded(self, seed: int) -> Agent:
        """The same one, drawing other samples."""
        return self.configured(replace(self.config, seed=seed))

    def ask(self, question: str) -> Iterator[StepRecord | Trajectory]:
        """Answer a question: each step as it is done, and at last the whole trajectory.

        Errors: MalformedOutput, InvalidArgument, and those of the model and of the tool.
        """
        run = self._run(Question(uuid4().hex, question))
        began = time.perf_counter()
        steps = run.steps()
        told: _Told = None
        while True:
            deadline.check()
            try:
                need = steps.send(told)
            except StopIteration:
                yield replace(run.record, seconds=time.perf_counter() - began)
                return
            told = None
            if isinstance(need, _Ask):
                told = self._asked([need])[0]
            elif isinstance(need, _Look):
                told = self._found(steps, need.query)
            else:
                yield need

    def answers(
        self,
        questions: Sequence[Question],
        *,
        generation: int = 0,
        repetition: int = 0,
        at_once: int = 64,
    ) -> Iterator[Trajectory]:
        """The trajectories of many questions, each as it is done; one that failed says why.

        at_once  how many are gone side by side, a prompt of each in one call of the model
        """
        as_int(at_once, "at_once", 1, 100_000)
        waiting = list(reversed(questions))
        going: list[tuple[Run, Generator[_Need, Any, None], _Ask, float]] = []
        while waiting or going:
            deadline.check()
            while waiting and len(going) < at_once:
                run = self._run(waiting.pop(), generation, repetition)
                steps = run.steps()
                need = self._sent(steps, None)
                assert need is not None  # a run begins by asking for samples
                going.append((run, steps, need, time.perf_counter()))
            asked, going = going, []
            told = self._asked([need for _, _, need, _ in asked])
            for (run, steps, _, began), came in zip(asked, told, strict=True):
                need = self._sent(steps, came)
                if need is None:
                    yield replace(run.record, seconds=time.perf_counter() - began)
                else:
                    going.append((run, steps, need, began))

    def _sent(self, steps: Generator[_Need, Any, None], told: _Told) -> _Ask | None:
        """The next prompt that the run needs, with whatever it looks for before; None at its end.

        A run that fails is at its end too, and its record says so.
        """
        try:
            need = steps.send(told)
            while not isinstance(need, _Ask):
                told = self._found(steps, need.query) if isinstance(need, _Look) else None
                need = steps.send(told)
        except (StopIteration, MalformedOutput, InvalidArgument):
            return None
        return need

    def _found(self, steps: Generator[_Need, Any, None], query: str) -> list[Snippet]:
        """What the tool finds; a query that it refuses ends the run, whose record says why."""
        try:
            return self._tool.search(query)
        except InvalidArgument as error:
            steps.throw(error)
            raise

    def _asked(self, needs: Sequence[_Ask]) -> list[Any]:
        """Samples for the prompts of some cases, in one call for each wish.

        A wish says nothing of the others that are asked for, so a trajectory of a model that can be
        seeded is the same whatever is beside it.
        """
        alike: dict[Wish, list[int]] = {}
        for number, one in enumerate(needs):
            alike.setdefault(self._wish(one), []).append(number)
        found: list[Any] = [None] * len(needs)
        for wish, numbers in alike.items():
            cases = [needs[number].case for number in numbers]
            came = self._model.complete(
                [prompt(case, self._shots.get(case.step, ())) for case in cases], wish
            )
            for number, samples in zip(numbers, came, strict=True):
                found[number] = samples
        return found

    def _wish(self, need: _Ask) -> Wish:
        wish = self.config.wish(need.attempt)
        if not self.config.grammars:
            return wish
        from soardb.pipelines.agent.grammars import grammar

        return replace(wish, grammar=grammar(need.case))

    def _run(self, question: Question, generation: int = 0, repetition: int = 0) -> Run:
        if not isinstance(question.text, str) or not question.text.strip():
            raise InvalidArgument(f"expected a question, got {question.text!r}")
        record = Trajectory(
            uuid4().hex, question.id, question.text, self._model.name, generation, repetition,
            settings=self.settings,
        )  # fmt: skip
        return Run(record, self.config)


def _expect_known_links(case: Case, output: Output) -> None:
    """MalformedOutput where links are selected that were not shown, or cited and not selected."""
    action = output.action
    if isinstance(action, LinkSelection):
        shown = [item.link_id for item in case.results.links] if case.results else []
        chosen = list(action.selected_link_ids)
        if unknown := [number for number in chosen if number not in shown]:
            raise MalformedOutput(f"expected links of {shown} selected, got {unknown[0]}")
        if len(set(chosen)) < len(chosen):
            raise MalformedOutput(f"expected each link selected once, got {chosen}")
        text, known = action.grounded_summarization, set(chosen)
    else:
        text = getattr(action, "answer", "") or getattr(action, "revised_answer", "")
        known = set(items_by_id(case.past))
    if wrong := [number for number in citations(text) if number not in known]:
        raise MalformedOutput(
            f"expected citations of links that were selected, {sorted(known)}, got {wrong[0]}"
        )
