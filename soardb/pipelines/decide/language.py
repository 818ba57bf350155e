"""Language: laws of a language model, from scores of a closed set or from samples.

    a model's log probabilities -> [language.py] -> laws.py

A model is a function: (b, t) int64 tokens and a position -> (b, t - since, v) natural log
probabilities of the token that follows each position from `since` on. It must look back only, as
rows are padded at their end.

Nothing here knows of texts: tokens in, numbers and tokens out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from soardb.arrays import as_int
from soardb.errors import InvalidArgument
from soardb.kernels.layout import I64
from soardb.options import as_number
from soardb.pipelines.decide.laws import F64

__all__ = ["Model", "draw", "score"]

Progress = Callable[[float], None]
Tokens = Sequence[Sequence[int]]
Beginning = tuple[int, tuple[int, ...]]  # which prompt, and what has been said


class Model(Protocol):
    """(b, t) tokens -> (b, t - since, v) log probabilities of what follows."""

    def __call__(self, tokens: I64, since: int, /) -> npt.NDArray[Any]: ...


def score(
    model: Model,
    prompts: Tokens,
    answers: Tokens,
    end: int,
    *,
    batch: int = 256,
    progress: Progress = lambda share: None,
) -> F64:
    """(n, c) log probabilities of c answers after each of n prompts, each with its end.

    end  the token that ends an answer: without it "1" would count what is "10"

    Costs n x c passes over a prompt and an answer. Errors: InvalidArgument for empty prompts.
    """
    as_int(batch, "batch", 1, 1_000_000)
    whole = [[*answer, end] for answer in answers]
    if not whole:
        raise InvalidArgument("expected answers to score, got none")
    longest = max(map(len, whole))
    padded = np.array([row + [end] * (longest - len(row)) for row in whole], np.int64)
    counts = np.arange(longest) < np.array([len(row) for row in whole])[:, None]
    out = np.empty((len(prompts), len(whole)))
    pairs = _by_length(prompts)
    done = 0
    for length, rows in pairs:
        each = max(1, batch // len(whole))
        for first in range(0, len(rows), each):
            some = rows[first : first + each]
            heads = np.array([prompts[row] for row in some], np.int64)
            tokens = np.concatenate(
                [
                    np.repeat(heads, len(whole), axis=0),
                    np.tile(padded[:, :-1], (len(some), 1)),
                ],
                axis=1,
            )
            logs = np.asarray(model(tokens, length - 1), np.float64)
            said = np.tile(padded, (len(some), 1))
            found = np.take_along_axis(logs, said[:, :, None], 2)[:, :, 0]
            found = np.where(np.tile(counts, (len(some), 1)), found, 0.0)
            out[some] = found.sum(axis=1).reshape(len(some), len(whole))
            done += len(some)
            progress(done / len(prompts))
    return out


def draw(
    model: Model,
    prompts: Tokens,
    end: int,
    k: int,
    *,
    temperature: float = 1.0,
    longest: int = 16,
    seed: int = 0,
    batch: int = 256,
    progress: Progress = lambda share: None,
) -> tuple[list[list[tuple[int, ...]]], list[list[float]]]:
    """k samples of tokens after each of n prompts, without their end; and their log probabilities.

    temperature  drawn from p^(1/temperature), 0 takes the likeliest token at each step; the log
                 probabilities are those of temperature 1
    longest      tokens after which a sample is cut off; such a one has no end in its probability

    Costs, for each prompt, a pass for every different beginning that was drawn. Errors:
    InvalidArgument.
    """
    as_int(k, "k", 1, 1_000_000)
    as_int(longest, "longest", 1, 1_000_000)
    if as_number(temperature, "temperature") < 0:
        raise InvalidArgument(f"expected a temperature of at least 0, got {temperature}")
    rng = np.random.default_rng(seed)
    said: list[list[tuple[int, ...]]] = [[()] * k for _ in prompts]
    logs = [[0.0] * k for _ in prompts]
    # Which samples go on, by prompt and what they say so far: equal beginnings share a pass.
    going: dict[Beginning, list[int]] = {(row, ()): list(range(k)) for row in range(len(prompts))}
    for step in range(longest):
        further: dict[Beginning, list[int]] = {}
        for (row, begun), z in _following(model, prompts, list(going), batch):
            mine = going[row, begun]
            for i, token in zip(mine, _drawn(z, temperature, len(mine), rng), strict=True):
                logs[row][i] += float(z[token])
                if token != end:
                    said[row][i] = (*begun, token)
                    further.setdefault((row, said[row][i]), []).append(i)
        going = further
        progress((step + 1) / longest)
        if not going:
            break
    progress(1.0)
    return said, logs


def _following(
    model: Model, prompts: Tokens, wanted: Sequence[Beginning], batch: int
) -> Iterator[tuple[Beginning, F64]]:
    """Each beginning of each prompt with the (v,) log probabilities of what follows it."""
    tokens = [[*prompts[row], *begun] for row, begun in wanted]
    for length, rows in _by_length(tokens):
        for first in range(0, len(rows), batch):
            some = rows[first : first + batch]
            held = np.array([tokens[i] for i in some], np.int64)
            found = np.asarray(model(held, length - 1), np.float64)[:, 0]
            yield from zip((wanted[i] for i in some), found, strict=True)


def _drawn(logs: F64, temperature: float, count: int, rng: np.random.Generator) -> list[int]:
    if temperature == 0:
        return [int(logs.argmax())] * count
    z = np.exp((logs - logs.max()) / temperature)
    edges = np.cumsum(z)
    found = np.searchsorted(edges, rng.random(count) * edges[-1], "right")
    return [min(int(token), len(z) - 1) for token in found]


def _by_length(rows: Tokens) -> Iterator[tuple[int, list[int]]]:
    """Positions of rows of one length at a time."""
    by_length: dict[int, list[int]] = {}
    for i, row in enumerate(rows):
        if not len(row):
            raise InvalidArgument(f"expected prompts of at least one token, row {i} has none")
        by_length.setdefault(len(row), []).append(i)
    yield from sorted(by_length.items())
