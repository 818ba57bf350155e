"""A Tandem at work: the large model reads blocks, the small one writes within them.

    model.py -> [session.py] -> write(), and speculative decoding

The large model's session keeps the states that the small one looks at; the small one's keys and
values of them are made once a token. Within a block it has a cache of its own, that is dropped with
the block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from soardb.arrays import as_int
from soardb.errors import InvalidArgument
from soardb.models.cache import Cache
from soardb.models.decoder import Layer
from soardb.models.sampling import Sampling, drawn
from soardb.pipelines.tandem.model import Tandem
from soardb.pipelines.tandem.router import Router

__all__ = ["PrimaryModel", "PrimarySession", "TandemDrafter", "Written", "write"]


class PrimarySession:
    """Session of the primary that keeps the states that are looked at."""

    def __init__(self, tandem: Tandem) -> None:
        self._tandem = tandem
        self._cache = Cache(tandem.primary.config)
        width, room = tandem.primary.config.width, tandem.primary.config.context
        self._states = torch.empty(len(tandem.map), room, width)
        self._kept = 0

    @property
    def length(self) -> int:
        """Tokens read so far."""
        return self._cache.length

    @property
    def room(self) -> int:
        """Tokens that fit in all."""
        return self._cache.room

    def read(self, tokens: Sequence[int]) -> Tensor:
        """Read t more tokens: (t, vocabulary) logits. Errors: InvalidArgument past the context."""
        if not len(tokens):
            raise InvalidArgument("expected tokens to read, got none")
        first = self.length
        primary = self._tandem.primary
        with torch.inference_mode():
            found = primary.states(torch.tensor([list(tokens)]), self._cache)
            for row, number in enumerate(self._tandem.map):
                self._states[row, first : self.length] = found[number][0]
            return primary.logits(primary.norm(found[-1]))[0]

    def back_to(self, length: int) -> None:
        """Forget the tokens from position `length` on."""
        self._cache.back_to(length)
        self._kept = min(self._kept, length)

    def kept(self) -> int:
        """How many positions are what they were when this was asked last."""
        found, self._kept = self._kept, self.length
        return found

    def states(self, first: int) -> list[Tensor]:
        """(1, t, width) of the positions from `first` on, one a layer of the secondary."""
        return [one[None, first : self.length] for one in self._states]


class PrimaryModel:
    """The primary as a Model. last: its latest session, that a TandemDrafter looks at."""

    def __init__(self, tandem: Tandem) -> None:
        self._tandem = tandem
        self.last: PrimarySession | None = None

    @property
    def vocabulary(self) -> int:
        """Tokens that there are."""
        return self._tandem.primary.config.vocabulary

    def session(self) -> PrimarySession:
        """A new one, with nothing read."""
        self.last = PrimarySession(self._tandem)
        return self.last


class _Secondary:
    """Keys and values of what the primary read, and of the present block."""

    def __init__(self, tandem: Tandem) -> None:
        self._tandem = tandem
        self._before: list[tuple[Tensor, Tensor] | None] = [None] * len(tandem.map)
        self._block: list[tuple[Tensor, Tensor] | None] = [None] * len(tandem.map)
        self.length = 0  # positions that are held of the primary
        self.passes = 0

    def begin_block(self, session: PrimarySession) -> None:
        """Look at all that the primary has read, and nothing else."""
        self._block = [None] * len(self._block)
        self.length = min(self.length, session.kept())
        self._before = [_first(pair, self.length) for pair in self._before]
        if session.length == self.length:
            return
        layers = self._tandem.secondary.layers
        for j, state in enumerate(session.states(self.length)):
            layer = layers[j]
            assert isinstance(layer, Layer)
            seen = self._tandem.projected(layer, state, self._tandem.projections[j])
            k = layer.attention.key_of(seen, self.length)
            self._before[j] = _joined(self._before[j], (k, layer.attention.value_of(seen)))
        self.length = session.length

    def read(self, token: int, place: int) -> Tensor:
        """(vocabulary,) logits after one more token of the block, at its position."""
        self.passes += 1
        secondary = self._tandem.secondary
        x = secondary.embedding(torch.tensor([[token]]))
        for j, layer in enumerate(secondary.layers):
            assert isinstance(layer, Layer)
            own = layer.attention_norm(x)
            pair = (layer.attention.key_of(own, place), layer.attention.value_of(own))
            self._block[j] = _joined(self._block[j], pair)
            k, v = _joined(self._before[j], self._block[j])
            everything = torch.ones(1, k.shape[2], dtype=torch.bool)
            x = x + layer.attention.attend(layer.attention.queries(own, place), k, v, everything)
            x = x + layer.mixer(layer.mixer_norm(x))
        return secondary.logits(secondary.norm(x))[0, 0]


def _first(pair: tuple[Tensor, Tensor] | None, length: int) -> tuple[Tensor, Tensor] | None:
    """Keys and values of the first positions."""
    return None if pair is None else (pair[0][:, :, :length], pair[1][:, :, :length])


def _joined(
    a: tuple[Tensor, Tensor] | None, b: tuple[Tensor, Tensor] | None
) -> tuple[Tensor, Tensor]:
    """Keys and values of both, one after the other."""
    if a is None or b is None:
        found = a or b
        assert found is not None
        return found
    return torch.cat([a[0], b[0]], 2), torch.cat([a[1], b[1]], 2)


class TandemDrafter:
    """The secondary as a drafter for its primary: soardb.pipelines.speculate.

    target   the PrimaryModel that is decoded with
    router   ends a block where the primary would likely say something else; None: never
    """

    def __init__(self, tandem: Tandem, target: PrimaryModel, router: Router | None = None) -> None:
        self._tandem = tandem
        self._target = target
        self._router = router
        self._secondary = _Secondary(tandem)
        self.passes = 0

    def begin(self) -> None:
        """A new text."""
        self._secondary = _Secondary(self._tandem)

    def propose(
        self, read: Sequence[int], most: int, sampling: Sampling, random: torch.Generator
    ) -> tuple[list[int], Tensor]:
        """See speculate.Drafter. The primary has read all but the last token."""
        session = self._target.last
        if session is None or session.length != len(read) - 1:
            raise InvalidArgument("expected the primary to have read all but the last token")
        tokens: list[int] = []
        laws: list[Tensor] = []
        token, before = read[-1], self._secondary.passes
        with torch.inference_mode():
            self._secondary.begin_block(session)
            for place in range(session.length, session.length + most):
                logits = self._secondary.read(token, place)
                if self._router is not None and tokens and not self._router.goes_on(logits):
                    break
                law = sampling.law(logits)
                token = int(drawn(law, random))
                tokens.append(token)
                laws.append(law)
        self.passes += self._secondary.passes - before
        return tokens, torch.stack(laws)


@dataclass(frozen=True, slots=True)
class Written:
    """tokens after a prompt; how often the primary and the secondary ran."""

    tokens: list[int]
    primary_passes: int
    secondary_passes: int


def write(
    tandem: Tandem,
    prompt: Sequence[int],
    longest: int,
    gamma: int,
    sampling: Sampling,
    random: torch.Generator,
    *,
    free_token: bool = True,
    end: int | None = None,
) -> Written:
    """Write without anyone who checks: the secondary's own text, block by block.

    free_token  the primary, which reads each block anyhow, says the token after it: gamma + 1
                tokens a round. Without, it reads all but the last token, and gamma come of a round
    """
    as_int(gamma, "gamma", 1, 1_000_000)
    sampling.check()
    if not len(prompt):
        raise InvalidArgument("expected a prompt of at least one token, got none")
    session, secondary = PrimarySession(tandem), _Secondary(tandem)
    row, passes = list(prompt), 0
    until = min(len(row) + longest, session.room)

    def say(logits: Tensor) -> bool:
        row.append(int(drawn(sampling.law(logits), random)))
        return row[-1] == end or len(row) >= until

    with torch.inference_mode():
        while True:
            unread = row[session.length :] if free_token else row[session.length : -1]
            if unread:
                logits = session.read(unread)
                passes += 1
                if free_token and say(logits[-1]):
                    break
            secondary.begin_block(session)
            if any(say(secondary.read(row[-1], len(row) - 1)) for _ in range(gamma)):
                break
    return Written(row[len(prompt) :], passes, secondary.passes)
