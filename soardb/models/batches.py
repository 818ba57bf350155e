"""Samples of what a decoder may write after prompts of unlike lengths, all of them at once.

    decoder.py, cache.py, sampling.py -> [batches.py] -> pipelines that sample much

Prompts stand flush right, and what is before them is never seen; rotary positions say only how far
apart two tokens are, so a prompt that begins later is read as the same. Each is read once, and up
to four of its samples, as many as divide them evenly, go on as branches of one row of the cache:
keys and values of a prompt, which are most of what is read for a token, are read for all of these.
Rows whose samples ended leave the batch when they are a quarter of it, so that the time goes to
what is written still.

Every sample draws from numbers of its own, so it is what it is whatever is sampled beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from soardb import deadline
from soardb.arrays import as_int
from soardb.errors import InvalidArgument
from soardb.models.cache import Cache
from soardb.models.decoder import Decoder
from soardb.models.sampling import Sampling

__all__ = ["Draws", "Sample", "continued", "token_at", "tokens_held"]

_MOST_GOING = 0.75  # of the rows; with fewer, those that ended are dropped
_BRANCHES = 4  # of a row, at most


@dataclass(frozen=True, slots=True)
class Sample:
    """tokens: with that which ended it; logprob: natural, of all of them, at temperature 1.

    is_finished  whether it ended by itself, and not at the longest
    """

    tokens: list[int]
    logprob: float
    is_finished: bool


@dataclass(frozen=True, slots=True)
class Draws:
    """How samples are drawn and when they end.

    n        of each prompt
    longest  tokens of each sample, at most
    end      the token that ends one
    is_over  tokens so far -> whether the last of them ends it, as for a text to stop at
    """

    n: int = 1
    longest: int = 128
    sampling: Sampling = field(default_factory=Sampling)
    end: int | None = None
    is_over: Callable[[list[int]], bool] | None = None

    def check(self) -> None:
        """InvalidArgument, naming what is wrong."""
        as_int(self.n, "n", 1, 100_000)
        as_int(self.longest, "longest", 1, 1_000_000)
        self.sampling.check()


def continued(
    decoder: Decoder, prompts: Sequence[Sequence[int]], draws: Draws, seeds: Sequence[int]
) -> list[list[Sample]]:
    """draws.n samples after each prompt; a sample ends where the context is full, too.

    seeds  one of each prompt: with it, and the same prompt, the samples are the same

    Costs a pass over all prompts, as long as the longest, and for each token one over all rows
    that have a sample which is not ended; memory by tokens_held().

    Errors: InvalidArgument for a prompt that fills the context, or is empty; TimedOut.
    """
    draws.check()
    context = decoder.config.context
    lengths = [len(prompt) for prompt in prompts]
    if len(seeds) != len(prompts):
        raise InvalidArgument(f"expected {len(prompts)} seeds, got {len(seeds)}")
    if not prompts:
        return []
    if min(lengths) < 1 or max(lengths) >= context:
        raise InvalidArgument(
            f"expected prompts of 1..{context - 1} tokens, got {min(lengths)} and {max(lengths)}"
        )
    limits = [min(draws.longest, context - length) for length in lengths]
    width = _branches(draws.n)
    room = max(lengths) + width * max(limits)
    with torch.inference_mode():
        cache, logits = _read(decoder, prompts, room)
        if draws.n > width:
            rows = torch.arange(len(prompts)).repeat_interleave(draws.n // width)
            cache, logits = cache.picked(rows, room), logits[rows]
        cache.branch(width)
        batch = _Batch(
            decoder, draws, cache, logits[:, None].expand(-1, width, -1),
            _numbers(seeds, draws.n, max(limits)),
            [limit for limit in limits for _ in range(draws.n)],
        )  # fmt: skip
        while len(batch.going):
            deadline.check()
            batch.step()
    found = batch.samples()
    return [found[first : first + draws.n] for first in range(0, len(found), draws.n)]


def tokens_held(n: int, length: int, longest: int) -> int:
    """Tokens whose keys and values continued() holds at most for one of its prompts.

    n samples of `longest` tokens after it; length: of the longest prompt beside it
    """
    width = _branches(n)
    rows = n // width
    return (rows + (rows > 1)) * (length + width * longest)


def _branches(n: int) -> int:
    """Samples of a row of the cache, of n after a prompt: as many in each."""
    return next(width for width in range(_BRANCHES, 0, -1) if n % width == 0)


def token_at(law: Tensor, numbers: Tensor) -> Tensor:
    """(..., v) probabilities and (...) numbers in [0, 1) -> (...) tokens, of that law if uniform.

    The token at which the sum of the law goes past the number; never one of probability 0.
    """
    sums = law.cumsum(-1)
    aims = numbers[..., None] * sums[..., -1:]
    found = torch.searchsorted(sums, aims, right=True)[..., 0]
    # A number next to 1 may be rounded up to the whole sum: the last token that can be is meant.
    last = torch.searchsorted(sums, sums[..., -1:].contiguous())[..., 0]
    return torch.minimum(found, last)


def _read(decoder: Decoder, prompts: Sequence[Sequence[int]], room: int) -> tuple[Cache, Tensor]:
    """The keys and values of all prompts, flush right, and (prompts, v) logits after them."""
    width = max(map(len, prompts))
    tokens = torch.zeros(len(prompts), width, dtype=torch.int64)
    for row, prompt in enumerate(prompts):
        tokens[row, width - len(prompt) :] = torch.tensor(list(prompt))
    starts = torch.tensor([width - len(prompt) for prompt in prompts])
    cache = Cache(decoder.config, len(prompts), room, starts)
    return cache, decoder.logits(decoder(tokens, cache)[:, -1])


def _numbers(seeds: Sequence[int], n: int, longest: int) -> Tensor:
    """(prompts n, longest) in [0, 1), those of a prompt from its seed."""
    drawn = []
    for seed in seeds:
        random = torch.Generator().manual_seed(seed)
        # A token after another, so that a sample does not change with the longest.
        drawn.append(torch.rand(longest, n, generator=random, dtype=torch.float64).T)
    return torch.cat(drawn)


class _Batch:
    """Samples while they are written.

    going     (rows, branches) which sample each branch is of
    is_going  (rows, branches) whether it is not ended
    logits    (rows, branches, v) after what was written so far
    """

    def __init__(
        self,
        decoder: Decoder,
        draws: Draws,
        cache: Cache,
        logits: Tensor,
        numbers: Tensor,
        limits: list[int],
    ) -> None:
        self._decoder, self._draws = decoder, draws
        self._cache, self._logits = cache, logits
        self._numbers, self._limits = numbers, limits
        self._written: list[list[int]] = [[] for _ in limits]
        self._logprobs = torch.zeros(len(limits), dtype=torch.float64)
        self._is_finished = [False] * len(limits)
        self._steps = 0
        self.going = torch.arange(len(limits)).reshape(-1, cache.branches)
        self._is_going = torch.ones_like(self.going, dtype=torch.bool)

    def step(self) -> None:
        """A token more of each that is going."""
        tokens = token_at(
            self._draws.sampling.law(self._logits), self._numbers[self.going, self._steps]
        )
        laws = self._logits.double().log_softmax(-1)
        told = laws.gather(-1, tokens[..., None])[..., 0]
        self._logprobs[self.going] += torch.where(self._is_going, told, 0.0)
        self._steps += 1
        writing = self._is_going.nonzero(as_tuple=True)
        drawn = zip(self.going[writing].tolist(), tokens[writing].tolist(), strict=True)
        self._is_going[writing] = torch.tensor([not self._ends(*one) for one in drawn])
        kept = self._is_going.any(1).nonzero()[:, 0]
        if not len(kept):
            self.going = kept
            return
        if len(kept) <= _MOST_GOING * len(self.going):
            self._cache.keep(kept)
            self.going, tokens = self.going[kept], tokens[kept]
            self._is_going = self._is_going[kept]
        self._logits = self._decoder.logits(self._decoder(tokens, self._cache))

    def _ends(self, sample: int, token: int) -> bool:
        """Note a token; whether the sample ends with it."""
        written, is_over = self._written[sample], self._draws.is_over
        written.append(token)
        if token == self._draws.end or (is_over is not None and is_over(written)):
            self._is_finished[sample] = True
        return self._is_finished[sample] or len(written) >= self._limits[sample]

    def samples(self) -> list[Sample]:
        """All, in their order."""
        told = zip(self._written, self._logprobs.tolist(), self._is_finished, strict=True)
        return [Sample(*one) for one in told]
