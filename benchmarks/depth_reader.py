"""A small transformer that reads a gloss and says the depth as two digits, trained for it.

    depths.py, torch -> [depth_reader.py] -> bench_decide.py

Two layers that look back only. The loss is cross entropy of the two digits and the end, nothing of
the gloss; then, to compare, more of it or a loss of soardb.pipelines.decide.training.
"""

from __future__ import annotations

import copy
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.depths import DEEPEST
from benchmarks.environment import need
from soardb.kernels.layout import I64
from soardb.pipelines.decide import mbr_loss, raft_loss

__all__ = ["Reader", "ReaderSetup", "Vocabulary", "train", "tuned"]

EXTRA = "bench-decide"
PAD, UNKNOWN, SAYS, END = 0, 1, 2, 3
DIGIT = 4  # of the token "0"
_WORD = DIGIT + 10
Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class ReaderSetup:
    """What is trained. tune_steps: of more training, with each loss."""

    words: int = 6000
    longest: int = 24
    width: int = 128
    layers: int = 2
    heads: int = 4
    steps: int = 900
    batch: int = 96
    rate: float = 2e-3
    tune_steps: int = 300
    tune_rate: float = 3e-4


class Vocabulary:
    """Tokens of glosses: the commonest words of those that are trained on."""

    def __init__(self, glosses: Sequence[str], setup: ReaderSetup) -> None:
        counts = Counter(word for gloss in glosses for word in _words(gloss))
        self._number = {w: _WORD + i for i, (w, _) in enumerate(counts.most_common(setup.words))}
        self._longest = setup.longest

    def __len__(self) -> int:
        return _WORD + len(self._number)

    def prompt(self, gloss: str) -> list[int]:
        """The first words, then the token after which the depth is said."""
        words = _words(gloss)[: self._longest]
        return [*(self._number.get(word, UNKNOWN) for word in words), SAYS]


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z]+|[0-9]", text.lower())


def answer(depth: int) -> list[int]:
    """Its two digits."""
    return [DIGIT + depth // 10, DIGIT + depth % 10]


def said(tokens: Sequence[int]) -> str:
    """Text of what was said: digits, "?" for everything else."""
    return "".join(str(t - DIGIT) if DIGIT <= t < _WORD else "?" for t in tokens)


def depth_of(text: str) -> int:
    """Two digits of at most DEEPEST, or ValueError."""
    if len(text) != 2 or not text.isdecimal() or int(text) > DEEPEST:
        raise ValueError(f"expected two digits up to {DEEPEST}, got {text!r}")
    return int(text)


class Reader:
    """The network, and its face for soardb.pipelines.decide.language."""

    def __init__(self, vocabulary: int, setup: ReaderSetup, seed: int) -> None:
        torch = need("torch", EXTRA)
        torch.manual_seed(seed)
        nn, d = torch.nn, setup.width
        layer = nn.TransformerEncoderLayer(
            d, setup.heads, 4 * d, 0.0, "gelu", batch_first=True, norm_first=True
        )
        self.net = nn.ModuleDict(
            {
                "words": nn.Embedding(vocabulary, d),
                "places": nn.Embedding(setup.longest + 4, d),
                "body": nn.TransformerEncoder(layer, setup.layers, enable_nested_tensor=False),
                "norm": nn.LayerNorm(d),
                "head": nn.Linear(d, vocabulary),
            }
        )

    def hidden(self, tokens: Any) -> Any:
        """(b, t) tokens -> (b, t, width)."""
        torch = need("torch", EXTRA)
        t = tokens.shape[1]
        mask = torch.nn.Transformer.generate_square_subsequent_mask(t)
        x = self.net["words"](tokens) + self.net["places"].weight[:t]
        return self.net["norm"](self.net["body"](x, mask=mask, is_causal=True))

    def __call__(self, tokens: I64, since: int) -> npt.NDArray[np.float32]:
        """(b, t) -> (b, t - since, v) log probabilities of what follows."""
        torch = need("torch", EXTRA)
        with torch.inference_mode():
            logits = self.net["head"](self.hidden(torch.from_numpy(tokens))[:, since:])
            found: npt.NDArray[np.float32] = logits.log_softmax(2).numpy()
        return found


def train(
    prompts: Sequence[Sequence[int]],
    depths: I64,
    vocabulary: int,
    setup: ReaderSetup,
    seed: int,
    progress: Progress,
) -> Reader:
    """A reader trained by cross entropy from a random start."""
    reader = Reader(vocabulary, setup, seed)
    _descend(
        reader, prompts, depths, setup.steps, setup, setup.rate, seed, _cross_entropy,
        lambda share: progress("training", share),
    )  # fmt: skip
    return reader


def tuned(
    reader: Reader,
    loss: str,
    prompts: Sequence[Sequence[int]],
    depths: I64,
    setup: ReaderSetup,
    seed: int,
    progress: Progress,
) -> Reader:
    """A copy, trained on with a loss: "ce", "raft" or "mbr"."""
    other = copy.copy(reader)
    other.net = copy.deepcopy(reader.net)
    losses = {"ce": _cross_entropy, "raft": _of_grid(raft_loss), "mbr": _of_grid(mbr_loss)}
    _descend(
        other, prompts, depths, setup.tune_steps, setup, setup.tune_rate, seed + 1, losses[loss],
        lambda share: progress(f"tuning, {loss}", share),
    )  # fmt: skip
    return other


def _descend(
    reader: Reader,
    prompts: Sequence[Sequence[int]],
    depths: I64,
    steps: int,
    setup: ReaderSetup,
    rate: float,
    seed: int,
    loss_of: Callable[..., Any],
    progress: Callable[[float], None],
) -> None:
    """AdamW, the rate rising for a twentieth of the steps and then falling as a cosine."""
    torch = need("torch", EXTRA)
    adam = torch.optim.AdamW(reader.net.parameters(), lr=rate, weight_decay=0.01)
    falling = torch.optim.lr_scheduler.OneCycleLR(
        adam, rate, total_steps=steps, pct_start=0.05, cycle_momentum=False
    )
    rng = np.random.default_rng(seed)
    for step in range(steps):
        rows = rng.integers(0, len(prompts), setup.batch).tolist()
        loss = loss_of(reader, [prompts[row] for row in rows], depths[rows])
        adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(reader.net.parameters(), 1.0)
        adam.step()
        falling.step()
        if step % 20 == 19:
            progress((step + 1) / steps)


def _cross_entropy(reader: Reader, prompts: Sequence[Sequence[int]], depths: I64) -> Any:
    torch = need("torch", EXTRA)
    answers = [answer(depth) for depth in depths.tolist()]
    rows = [[*p, *a] for p, a in zip(prompts, answers, strict=True)]
    x = reader.hidden(_padded(rows))
    at = torch.tensor([[len(p) - 1 + i for i in range(3)] for p in prompts])
    logits = reader.net["head"](x[torch.arange(len(rows))[:, None], at])  # (b, 3, v)
    targets = torch.tensor([[*a, END] for a in answers])
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())


def _of_grid(loss: Callable[[Any, Any, Any], Any]) -> Callable[..., Any]:
    """The loss of the log probabilities of all depths: of a first digit, and of one after it."""

    def of(reader: Reader, prompts: Sequence[Sequence[int]], depths: I64) -> Any:
        torch = need("torch", EXTRA)
        firsts = range(DEEPEST // 10 + 1)
        rows = [[*p, DIGIT + first] for p in prompts for first in firsts]
        x = reader.hidden(_padded(rows)).unflatten(0, (len(prompts), len(firsts)))
        ends = torch.tensor([len(p) - 1 for p in prompts])
        who = torch.arange(len(prompts))
        digits = reader.net["head"].weight[DIGIT:_WORD], reader.net["head"].bias[DIGIT:_WORD]

        def logs(hidden: Any) -> Any:  # of the ten digits, among all tokens
            whole = reader.net["head"](hidden).logsumexp(-1, keepdim=True)
            return torch.nn.functional.linear(hidden, *digits) - whole

        first = logs(x[who, 0, ends])  # (b, 10)
        second = torch.stack([logs(x[who, i, ends + 1]) for i in firsts], 1)  # (b, firsts, 10)
        grid = (first[:, : len(firsts), None] + second).flatten(1)[:, : DEEPEST + 1]
        values = torch.arange(DEEPEST + 1, dtype=torch.float32)
        return loss(grid, values, torch.from_numpy(depths).float())

    return of


def _padded(rows: Sequence[Sequence[int]]) -> Any:
    torch = need("torch", EXTRA)
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[PAD] * (longest - len(row))] for row in rows])
