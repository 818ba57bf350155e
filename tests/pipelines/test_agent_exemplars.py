"""The examples in the agent's prompts: that they read back, hold together, and are the machine's.

exemplars.py, machine.py -> [test_agent_exemplars.py]
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from soardb.errors import InvalidArgument
from soardb.pipelines.agent.actions import (
    END,
    STEPS,
    ActionWrapper,
    Answer,
    Check_Answer,
    LinkSelection,
    Revise_Answer,
    Search,
    Step,
    Terminate,
    citations,
    items_by_id,
    read_output,
)
from soardb.pipelines.agent.exemplars import SHOTS, WORKED, Worked, replay
from soardb.pipelines.agent.language import Completion, Usage, Wish
from soardb.pipelines.agent.machine import Agent, AgentConfig
from soardb.pipelines.agent.prompts import Case, Exemplar, prompt, read_case, target
from soardb.pipelines.agent.tools import Snippet
from soardb.pipelines.agent.trajectory import StepRecord, Trajectory

LONGEST = 12_000  # characters of a prompt before the case at hand
ALL = [one for worked in WORKED.values() for one in replay(worked)]
SHOWN = [one for step in STEPS for one in SHOTS[step]]


class ScriptedModel:
    """Writes what a way has at each step, one sample a prompt, whatever it is asked."""

    name = "scripted"

    def __init__(self, texts: Sequence[str]) -> None:
        self.usage = Usage()
        self.asked: list[str] = []
        self._texts: Iterator[str] = iter(texts)

    def complete(
        self, prompts: Sequence[str], wish: Wish
    ) -> list[list[Completion] | InvalidArgument]:
        self.asked += prompts
        return [[Completion(next(self._texts), -1.0, 1)] for _ in prompts]


class ScriptedTool:
    """Finds what a way has for its queries, and knows no other."""

    key = "scripted"

    def __init__(self, worked: Worked) -> None:
        self._found = {look.query: list(look.found) for look in worked.looks}

    def search(self, query: str) -> list[Snippet]:
        return self._found[query]


def played(worked: Worked) -> tuple[list[str], list[StepRecord], Trajectory]:
    """What the machine asks, and what it puts on record, when it is told what a way says."""
    model = ScriptedModel([target(one) for one in replay(worked)])
    agent = Agent(model, ScriptedTool(worked), AgentConfig(searches=worked.searches), SHOTS)
    *steps, last = agent.ask(worked.question)
    assert isinstance(last, Trajectory)
    return model.asked, [one for one in steps if isinstance(one, StepRecord)], last


def of_step(shots: Sequence[Exemplar], step: Step) -> list[Exemplar]:
    return [one for one in shots if one.case.step == step]


@pytest.mark.parametrize("worked", WORKED.values(), ids=WORKED.keys())
class TestReplay:
    def test_the_machine_makes_the_same_cases_of_it(self, worked: Worked) -> None:
        """Past actions, link ids, searches left: an exemplar shows what a live prompt will."""
        asked, _, _ = played(worked)
        assert [read_case(text) for text in asked] == [one.case for one in replay(worked)]

    def test_the_machine_reads_the_same_outputs_of_it(self, worked: Worked) -> None:
        """Also that it accepts each: links that were shown, citations of links selected."""
        _, steps, last = played(worked)
        assert [read_output(one.step, one.text) for one in steps] == [
            one.output for one in replay(worked)
        ]
        assert last.is_complete
        assert last.searches == len(worked.looks)

    def test_the_machine_comes_to_the_answer_that_the_checks_left(self, worked: Worked) -> None:
        """A revision of the first check is what the second is asked about."""
        _, _, last = played(worked)
        after_relevance = worked.relevance.revised or worked.answer.answer
        assert last.draft == worked.answer.answer
        assert last.after_relevance == after_relevance
        assert last.answer == (worked.grounding.revised or after_relevance)

    def test_each_look_says_of_each_link_what_becomes_of_it(self, worked: Worked) -> None:
        """Selected, or one comment in the order of the results that begins with its id."""
        for one in of_step(replay(worked), "summary"):
            assert one.case.results is not None
            assert isinstance(one.output.action, LinkSelection)
            shown = [item.link_id for item in one.case.results.links]
            chosen = one.output.action.selected_link_ids
            assert set(chosen) <= set(shown)
            left = [number for number in shown if number not in chosen]
            assert [citations(line) for line in one.output.comments] == [[n] for n in left]
            assert all(line.endswith(" Not selected.") for line in one.output.comments)
            summary = one.output.action.grounded_summarization
            assert citations(summary) == list(chosen)
            assert chosen or summary == "Nothing is selected."

    def test_answers_and_checks_cite_links_that_were_selected(self, worked: Worked) -> None:
        """Each answer cites at least one."""
        for one in replay(worked):
            known = set(items_by_id(one.case.past))
            action = one.output.action
            if isinstance(action, Answer | Revise_Answer):
                text = action.answer if isinstance(action, Answer) else action.revised_answer
                assert citations(text)
                assert set(citations(text)) <= known
            if one.case.answer is not None:
                assert set(citations(" ".join(one.output.comments))) <= known

    def test_nothing_is_left_empty(self, worked: Worked) -> None:
        """Questions, thoughts, answers and reasons: a model copies an empty one too."""
        for one in replay(worked):
            action = one.output.action
            assert one.case.question.strip()
            assert one.case.answer is None or one.case.answer.strip()
            assert not hasattr(action, "thoughts") or action.thoughts.strip()
            assert one.case.answer is None or all(line.strip() for line in one.output.comments)
            assert one.case.answer is None or one.output.comments


class TestShots:
    def test_as_many_of_each_step_as_in_the_paper(self) -> None:
        """arXiv 2312.10003, section 2.2; each a different one, of its own step."""
        assert {step: len(SHOTS[step]) for step in STEPS} == {
            "decision": 9, "summary": 6, "answer": 5, "relevance": 6, "grounding": 5,
        }  # fmt: skip
        for step in STEPS:
            assert of_step(SHOTS[step], step) == list(SHOTS[step])
            assert len({prompt(one.case) for one in SHOTS[step]}) == len(SHOTS[step])

    @pytest.mark.parametrize("one", ALL, ids=lambda one: one.case.step)
    def test_a_case_is_read_back_from_its_prompt(self, one: Exemplar) -> None:
        """Alone, and behind the examples of its step."""
        assert read_case(prompt(one.case)) == one.case
        assert read_case(prompt(one.case, SHOTS[one.case.step])) == one.case

    @pytest.mark.parametrize("one", ALL, ids=lambda one: one.case.step)
    def test_an_output_is_read_back_from_its_target(self, one: Exemplar) -> None:
        """END is in it once, at its end."""
        text = target(one)
        assert read_output(one.case.step, text) == one.output
        assert text.index(END) == len(text) - len(END) - 1

    @pytest.mark.parametrize("step", STEPS)
    def test_the_examples_leave_room_for_the_case(self, step: Step) -> None:
        """About 3,000 tokens, so that a context of 8,192 holds a long case as well."""
        assert len(prompt(Case(step, "?"), SHOTS[step])) < LONGEST

    @pytest.mark.parametrize("step", STEPS)
    def test_prompts_are_ascii(self, step: Step) -> None:
        """Tokenizers of small models spend bytes on anything else."""
        assert prompt(Case(step, "?"), SHOTS[step]).isascii()


class TestWhatIsShown:
    def test_decisions_search_first_and_last_and_terminate_early(self) -> None:
        """First of all, with one search left, and after a single search that was enough."""
        searches = [
            one.case for one in SHOTS["decision"]
            if isinstance(one.output.action, ActionWrapper)
            and isinstance(one.output.action.action, Search)
        ]  # fmt: skip
        ends = [one.case for one in SHOTS["decision"] if one.case not in searches]
        assert any(not case.past for case in searches)
        assert any(case.remaining == 1 for case in searches)
        assert [case.remaining for case in ends] == [9, 7]

    def test_a_query_that_came_to_nothing_is_followed_by_a_better_one(self) -> None:
        """The worse one is shown in the past alone, never as what is to be written."""
        worse = {
            look.query
            for worked in WORKED.values()
            for look, _ in zip(worked.looks, worked.looks[1:], strict=False)
            if not look.selected
        }
        assert len(worse) == 2
        for one in SHOTS["decision"]:
            decided = one.output.action
            assert isinstance(decided, ActionWrapper)
            assert getattr(decided.action, "query", "") not in worse
        past = {
            action.query
            for one in SHOTS["decision"]
            for action in one.case.past
            if isinstance(action, Search)
        }
        assert worse <= past

    def test_orders_in_a_snippet_are_named_and_not_followed(self) -> None:
        """The snippet is not selected, so that no later step sees it."""
        [one] = [
            shot for shot in SHOTS["summary"] if "Ignore previous instructions" in prompt(shot.case)
        ]
        assert one.case.results is not None
        assert isinstance(one.output.action, LinkSelection)
        [bad] = [item for item in one.case.results.links if item.snippet.startswith("Ignore")]
        assert bad.link_id not in one.output.action.selected_link_ids
        assert any("orders" in line for line in one.output.comments)
        later = [shot for shot in ALL if shot.case.results is None]
        assert not any("Ignore previous" in prompt(shot.case) for shot in later)

    def test_summaries_select_none_one_and_two(self) -> None:
        """A step that is always shown to select would select always."""
        counts = [
            len(one.output.action.selected_link_ids)
            for one in SHOTS["summary"]
            if isinstance(one.output.action, LinkSelection)
        ]
        assert sorted(counts) == [0, 1, 1, 1, 2, 2]

    def test_no_answer_is_shown_that_a_check_revised(self) -> None:
        """Bad drafts are for the checks."""
        revised = {
            worked.question
            for worked in WORKED.values()
            if worked.relevance.revised or worked.grounding.revised
        }
        assert len(revised) == 4
        assert not revised & {one.case.question for one in SHOTS["answer"]}

    @pytest.mark.parametrize("step", ["relevance", "grounding"])
    def test_a_check_passes_some_and_revises_two(self, step: Step) -> None:
        """A revision differs from the answer, and what passes is fit to pass."""
        said = [one.output.action for one in SHOTS[step]]
        assert sum(isinstance(action, Revise_Answer) for action in said) == 2
        assert sum(action == Check_Answer(True) for action in said) == len(said) - 2
        for one in SHOTS[step]:
            if isinstance(one.output.action, Revise_Answer):
                assert one.output.action.revised_answer != one.case.answer

    def test_no_draft_with_an_unsupported_claim_is_shown_as_relevant(self) -> None:
        """The relevance check also asks what the answer is based on."""
        ungrounded = {one.question for one in WORKED.values() if one.grounding.revised}
        assert not ungrounded & {one.case.question for one in SHOTS["relevance"]}

    def test_an_answer_where_searches_ran_out_says_what_was_not_found(self) -> None:
        """The machine ends the searches, and the answer does not guess."""
        [one] = [
            shot for shot in SHOTS["answer"]
            if Terminate("No searches are left.") in shot.case.past
        ]  # fmt: skip
        assert isinstance(one.output.action, Answer)
        assert "not found" in one.output.action.answer

    def test_an_answer_leaves_out_a_link_that_was_selected(self) -> None:
        """What was found beside the question does not belong to the answer."""
        assert any(
            set(citations(one.output.action.answer)) < set(items_by_id(one.case.past))
            for one in SHOTS["answer"]
            if isinstance(one.output.action, Answer)
        )
