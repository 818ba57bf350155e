"""A language model's scores and samples, of a model that is a table; and losses of training.

language.py, training.py -> [test_decide_language.py]
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from soardb.errors import InvalidArgument
from soardb.kernels.layout import I64
from soardb.pipelines import decide
from soardb.pipelines.decide import Laws

V, END = 4, 0
ANSWERS = [[1], [1, 2], [3, 3, 1]]


class Chain:
    """What follows depends on the last two tokens; it counts what it is asked."""

    def __init__(self, seed: int = 0) -> None:
        p = np.random.default_rng(seed).dirichlet(np.ones(V), (V, V))
        self.logs = np.log(p)
        self.rows = 0

    def __call__(self, tokens: I64, since: int) -> npt.NDArray[Any]:
        self.rows += len(tokens)
        before = np.concatenate([np.zeros((len(tokens), 1), np.int64), tokens[:, :-1]], axis=1)
        found: npt.NDArray[Any] = self.logs[before, tokens][:, since:]
        return found

    def of(self, prompt: list[int], answer: list[int]) -> float:
        """The log probability of an answer with its end, token by token."""
        said, total = list(prompt), 0.0
        for token in [*answer, END]:
            before = said[-2] if len(said) > 1 else 0
            total += self.logs[before, said[-1], token]
            said.append(token)
        return total


def test_scores_are_products_over_tokens_and_the_end() -> None:
    """Of prompts of unequal lengths, in their order, whatever the batch is."""
    model = Chain()
    prompts = [[1, 2, 3], [2], [3, 1], [1]]
    want = [[model.of(p, a) for a in ANSWERS] for p in prompts]
    for batch in (1, 4, 100):
        shares: list[float] = []
        got = decide.score(model, prompts, ANSWERS, END, batch=batch, progress=shares.append)
        assert got == pytest.approx(np.array(want))
        assert shares[-1] == 1
    assert 0 < Laws.of_log_probabilities(got, ["1", "12", "331"]).mass[0] < 1


def test_an_answer_without_its_end_would_count_what_begins_with_it() -> None:
    """That "1" includes "12" is what the end is for."""
    model = Chain()
    alone, longer = np.exp(decide.score(model, [[2]], [[1], [1, 2]], END)[0])
    begins = float(np.exp(model.logs[0, 2, 1]))
    assert alone + longer < begins


def test_samples_have_the_frequencies_of_their_scores() -> None:
    """And bring their log probabilities, with the end."""
    model = Chain()
    said, logs = decide.draw(model, [[1], [2, 3]], END, 20_000, longest=30)
    for prompt, some, log in zip([[1], [2, 3]], said, logs, strict=True):
        counts = Counter(some)
        for text, count in counts.most_common(5):
            p = np.exp(model.of(prompt, list(text)))
            assert count / 20_000 == pytest.approx(p, abs=4 * (p / 20_000) ** 0.5)
            assert log[some.index(text)] == pytest.approx(np.log(p))


def test_equal_beginnings_share_a_pass() -> None:
    """Many samples of one prompt: the first token is asked about once."""
    model = Chain()
    decide.draw(model, [[1]], END, 500, longest=1)
    assert model.rows == 1
    decide.draw(model, [[1]], END, 500, longest=2)
    assert model.rows <= 1 + 1 + V - 1


def test_temperature_sharpens_and_zero_is_greedy() -> None:
    """Log probabilities stay those of temperature 1."""
    model = Chain()
    greedy, logs = decide.draw(model, [[1]], END, 3, temperature=0, longest=6)
    assert len(set(greedy[0])) == 1
    first = greedy[0][0][0] if greedy[0][0] else END
    assert first == model.logs[0, 1].argmax()
    cold, _ = decide.draw(model, [[1]], END, 4000, temperature=0.5, longest=1)
    share = np.mean([(text[0] if text else END) == first for text in cold[0]])
    p = np.exp(model.logs[0, 1]) ** 2
    assert share == pytest.approx(p.max() / p.sum(), abs=0.03)
    assert logs[0][0] < 0


def test_the_same_seed_draws_the_same() -> None:
    """And another one does not."""
    model = Chain()
    drawn = [decide.draw(model, [[1], [2]], END, 20, seed=seed)[0] for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: decide.score(Chain(), [[]], ANSWERS, END), "at least one token, row 0"),
        (lambda: decide.score(Chain(), [[1]], [], END), "answers to score"),
        (lambda: decide.draw(Chain(), [[1]], END, 0), "k"),
        (lambda: decide.draw(Chain(), [[1]], END, 1, temperature=-1), "at least 0"),
    ],
)
def test_what_cannot_be_asked_is_refused(call: Any, message: str) -> None:
    """With what was expected."""
    with pytest.raises(InvalidArgument, match=message):
        call()


def test_raft_makes_the_mean_right_and_mbr_makes_one_value_sure() -> None:
    """From the same start, with a truth between two values of the grid, by gradient descent."""
    grid, targets = torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([2.5, 2.5])
    found = {}
    for name, loss in (("raft", decide.raft_loss), ("mbr", decide.mbr_loss)):
        logits = torch.tensor([[0.5, 0.0, 0.1, 0.0]] * 2, requires_grad=True)
        adam = torch.optim.Adam([logits], lr=0.1)
        for _ in range(400):
            adam.zero_grad()
            loss(logits.log_softmax(1), grid, targets).backward()
            adam.step()
        p = logits.detach().softmax(1)
        found[name] = (p @ grid)[0].item(), p[0].max().item()
    assert found["raft"][0] == pytest.approx(2.5, abs=1e-3)
    assert found["mbr"][1] > 0.5
    assert found["raft"][1] < found["mbr"][1]


def test_losses_by_hand() -> None:
    """Of one question."""
    logs = torch.log(torch.tensor([[0.5, 0.25, 0.25]]))
    grid, target = torch.tensor([0.0, 4.0, 8.0]), torch.tensor([4.0])
    assert decide.raft_loss(logs, grid, target).item() == pytest.approx(1)
    assert decide.mbr_loss(logs, grid, target).item() == pytest.approx(12)
