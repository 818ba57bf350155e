"""Laws: predictive distributions of several questions, whatever they come from.

    samples, log probabilities, probabilities, neighbours -> [laws.py] -> rules.py, metrics.py

A law is values with weights that sum to 1. Nothing here decides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

import numpy as np
import numpy.typing as npt

from soardb.errors import InvalidArgument
from soardb.hits import need_pyarrow
from soardb.kernels.layout import I64
from soardb.options import as_number
from soardb.schema import shown

__all__ = ["F64", "FAILURES", "Failure", "Laws", "Values", "as_values", "same"]

F64 = npt.NDArray[np.float64]
Values = npt.NDArray[Any]
"""int64 or float64 where all are numbers, otherwise object."""

Failure = Literal["drop", "constant", "raise"]
FAILURES: tuple[Failure, ...] = get_args(Failure)


@dataclass(frozen=True, slots=True)
class Laws:
    """n discrete distributions over at most m values each; made by the methods below.

    values   (n, m) int64 or float64, or object where some are not numbers; what weighs 0 may be
             anything
    weights  (n, m) at least 0, each row sums to 1
    mass     (n,) what the weights summed to before: of samples the share that could be parsed, of a
             closed set the probability that a model gives to all of it; 1 where nothing is missing
    """

    values: Values
    weights: F64
    mass: F64

    def __len__(self) -> int:
        return len(self.weights)

    def __getitem__(self, rows: Any) -> Laws:
        """Some of the laws, by a slice, a mask or places; always as many as there are rows."""
        some = np.atleast_1d(np.arange(len(self))[rows])
        return Laws(self.values[some], self.weights[some], self.mass[some])

    @property
    def numbers(self) -> F64:
        """The values, (n, m); 0 where nothing weighs. Errors: InvalidArgument if some are none."""
        there = self.weights > 0
        for value in self.values[there] if self.values.dtype == object else ():
            if not _is_number(value):
                raise InvalidArgument(
                    f"expected values that are numbers for this metric, got {shown(value)}"
                )
        return np.where(there, self.values, 0.0).astype(np.float64)

    # --- from where ---------------------------------------------------------------------------

    @classmethod
    def of_rows(cls, values: Sequence[Sequence[Any]], weights: Any = None) -> Self:
        """Of n rows of values, as long as they like, with as many weights each, or all alike.

        Weights are finite, at least 0 and not all 0; they are divided by their sum, which becomes
        `mass` where it is below 1. Errors: InvalidArgument.
        """
        if weights is None:
            weights = [np.full(len(row), 1 / max(1, len(row))) for row in values]
        if len(weights) != len(values):
            raise InvalidArgument(
                f"expected weights for each of {len(values)} rows, got {len(weights)}"
            )
        width = max((len(row) for row in values), default=0)
        w = np.zeros((len(values), width))
        flat: list[Any] = []
        for row, (some, given) in enumerate(zip(values, weights, strict=True)):
            mine = _floats(given, f"weights of row {row}")
            if not len(some) or mine.shape != (len(some),):
                raise InvalidArgument(
                    f"expected row {row} to hold values and as many weights, got {len(some)} "
                    f"values and weights of shape {mine.shape}"
                )
            w[row, : len(some)] = mine
            flat.extend(some)
        held = as_values(flat)
        v = np.zeros((len(values), width), held.dtype)
        v[np.arange(width) < np.array([[len(row)] for row in values]).reshape(-1, 1)] = held
        return cls.of_matrix(v, w)

    @classmethod
    def of_probabilities(cls, probabilities: npt.ArrayLike, values: Sequence[Any]) -> Self:
        """Of (n, c) probabilities for the same c values, such as a classifier's classes."""
        p = _floats(probabilities, "probabilities")
        v = _alike(p, values)
        if (p.sum(axis=1) > 1 + 1e-3).any():
            raise InvalidArgument(
                f"expected probabilities that sum to at most 1, got {p.sum(axis=1).max():g}; "
                "scores go through softmax"
            )
        return cls.of_matrix(v, p)

    @classmethod
    def of_log_probabilities(
        cls, logs: npt.ArrayLike, values: Sequence[Any], alpha: float = 1.0
    ) -> Self:
        """Of (n, c) natural log probabilities of the same c values; -inf is none.

        The probability of a text is the product over its tokens and the one that ends it: without
        the latter that of "10" counts for "1" too. `mass` is the probability of all of the set; it
        is made to sum to 1, as a mean would otherwise be drawn to 0. alpha: p^alpha is taken.
        """
        z = _floats(logs, "log probabilities")
        if z.ndim != 2 or np.isnan(z).any() or (z > 1e-6).any():
            raise InvalidArgument(
                f"expected (n, c) log probabilities, which are at most 0, got shape {z.shape} and "
                "some that are not; scores go through softmax"
            )
        v = _alike(z, values)
        top = z.max(axis=1, keepdims=True)
        if np.isneginf(top).any():
            row = int(np.isneginf(top).argmax())
            raise InvalidArgument(f"expected a value that is possible, row {row} has none")
        possible = np.isfinite(z)
        found = cls.of_matrix(
            v, np.exp(_alpha(alpha) * np.where(possible, z - top, 0.0)) * possible
        )
        return cls(found.values, found.weights, np.minimum(np.exp(z).sum(axis=1), 1.0))

    @classmethod
    def of_samples(
        cls,
        texts: Sequence[Sequence[str]],
        parse: Callable[[str], Any],
        *,
        failure: Failure = "drop",
        constant: Any = None,
        logs: Any = None,
        alpha: float = 1.0,
        distinct: bool = False,
    ) -> Self:
        """Of samples of a model, a list a question; `parse` raises ValueError for what is no value,
        or gives None, nan or infinity.

        failure   "drop": left out; "constant": `constant` in their place, as RAFT does with 0;
                  "raise": refused. Where none of a question can be parsed, `constant` stands alone,
                  and without one it is refused
        logs      natural log probabilities of the samples, as `texts`: for alpha or distinct
        alpha     1 takes the samples as they were drawn. With logs, drawn at temperature 1, each
                  weighs p^(alpha - 1) (importance weights), so that they stand for p^alpha
        distinct  each different text once, weighing p^alpha: less variance than counting

        Errors: InvalidArgument.
        """
        if failure not in FAILURES:
            raise InvalidArgument(f"expected failure one of {', '.join(FAILURES)}, got {failure!r}")
        if failure == "constant" and constant is None:
            raise InvalidArgument("expected a constant with failure='constant', got none")
        if logs is None and (distinct or alpha != 1):
            raise InvalidArgument("expected logs of the samples with alpha or distinct, got none")
        if logs is not None and list(map(len, logs)) != list(map(len, texts)):
            raise InvalidArgument("expected a log for each sample of each question")
        power = _alpha(alpha) - (0 if distinct else 1)
        rows, weights, mass = [], [], []
        for question, said in enumerate(texts):
            meaning = {text: _parsed(text, parse, question, failure) for text in said}
            parsed = sum(meaning[text] is not None for text in said)
            if failure == "constant" or not parsed:
                if constant is None:
                    raise InvalidArgument(
                        f"expected a sample of question {question} that parses, none of "
                        f"{len(said)} does; give a constant to stand for it"
                    )
                meaning = {t: constant if v is None else v for t, v in meaning.items()}
                meaning = meaning or {"": constant}
            p = np.zeros(len(said)) if logs is None else _floats(logs[question], "logs")
            pairs = zip(said, p, strict=True) if len(said) else [("", 0.0)]
            chosen = [
                (meaning[text], power * log)
                for text, log in (dict(pairs).items() if distinct else pairs)
                if meaning[text] is not None
            ]
            powers = np.array([power for _, power in chosen])
            rows.append([value for value, _ in chosen])
            weights.append(np.exp(powers - powers.max()))
            mass.append(parsed / max(1, len(said)))
        found = cls.of_rows(rows, weights)
        return cls(found.values, found.weights, np.array(mass))

    @classmethod
    def of_matrix(cls, values: Values, weights: F64) -> Self:
        """Of (n, m) values as of as_values, and weights: finite, at least 0, no row all 0.

        A row is divided by its sum, which becomes `mass` where it is below 1. Errors:
        InvalidArgument.
        """
        bad = ~np.isfinite(weights) | (weights < 0)
        if weights.ndim != 2 or bad.any():
            raise InvalidArgument(
                f"expected (n, m) finite weights of at least 0, got shape {weights.shape}"
                + (f" and {weights[bad][0]}" if bad.any() else "")
            )
        total = weights.sum(axis=1)
        if not (total > 0).all():
            row = int((total > 0).argmin())
            raise InvalidArgument(f"expected weights that are not all 0, row {row} has none")
        return cls(values, weights / total[:, None], np.minimum(total, 1.0))

    # --- what is done with them ----------------------------------------------------------------

    def merged(self) -> Laws:
        """Equal values of a law weigh together, where the first of them stands. n log n."""
        codes = _codes(self.values, self.weights)
        order = np.argsort(codes, axis=1, kind="stable")
        sorted_codes = np.take_along_axis(codes, order, 1)
        w = np.take_along_axis(self.weights, order, 1)
        is_first = np.ones(w.shape, np.bool_)
        is_first[:, 1:] = sorted_codes[:, 1:] != sorted_codes[:, :-1]
        flat = is_first.ravel()
        sums = np.zeros(w.size)
        if w.size:
            sums[flat] = np.add.reduceat(w.ravel(), np.flatnonzero(flat))
        out = np.empty_like(w)
        np.put_along_axis(out, order, sums.reshape(w.shape), 1)
        return Laws(self.values, out, self.mass)

    def powered(self, alpha: float) -> Laws:
        """p^alpha of the merged laws, made to sum to 1: sharper above 1, flatter below."""
        if _alpha(alpha) == 1:
            return self
        merged = self.merged()
        w = merged.weights / merged.weights.max(axis=1, keepdims=True)
        w = np.where(w > 0, w, 0.0) ** alpha if alpha > 0 else (w > 0).astype(np.float64)
        return Laws(self.values, w / w.sum(axis=1, keepdims=True), self.mass)

    def of(self, value: Any) -> F64:
        """(n,) the weight of one value."""
        return np.asarray(np.where(same(self.values, value), self.weights, 0.0).sum(axis=1))

    def at(self, values: npt.ArrayLike) -> F64:
        """(n,) the weight of a value each, such as the truths."""
        found = as_values(values)
        if found.shape != (len(self),):
            raise InvalidArgument(f"expected {len(self)} values, got shape {found.shape}")
        return np.asarray(
            np.where(same(self.values, found[:, None]), self.weights, 0.0).sum(axis=1)
        )

    def to_arrow(self) -> Any:
        """A pyarrow.Table: values and weights, lists without what weighs 0, and mass."""
        pa = need_pyarrow()
        kept = [np.flatnonzero(row > 0) for row in self.weights]
        return pa.table(
            {
                "values": [self.values[i, at].tolist() for i, at in enumerate(kept)],
                "weights": [self.weights[i, at].tolist() for i, at in enumerate(kept)],
                "mass": self.mass,
            }
        )

    @classmethod
    def of_arrow(cls, table: Any) -> Self:
        """Of a table with a column of lists `values`, and one of `weights` unless all are alike."""
        names = table.column_names
        if "values" not in names:
            raise InvalidArgument(
                f"expected a column 'values', of lists, and 'weights', got {', '.join(names)}"
            )
        rows = table.column("values").to_pylist()
        weights = table.column("weights").to_pylist() if "weights" in names else None
        for row in rows:
            if not isinstance(row, list) or None in row:
                raise InvalidArgument("expected lists without nulls in 'values', got some with")
        if weights is not None and None in weights:
            raise InvalidArgument("expected lists without nulls in 'weights', got some with")
        found = cls.of_rows(rows, weights)
        if "mass" not in names:
            return found
        return cls(found.values, found.weights, _floats(table.column("mass"), "mass"))


def as_values(values: Any) -> Values:
    """A 1-d array: int64 or float64 where all are numbers (a bool is none), otherwise object."""
    plain = values.tolist() if hasattr(values, "tolist") else list(values)
    plain = [one.item() if isinstance(one, np.generic) else one for one in plain]
    if all(map(_is_number, plain)):
        found = np.array(plain)
        if found.dtype.kind in "iu" and found.dtype != np.uint64:
            return found.astype(np.int64)
        found = found.astype(np.float64)
        if not np.isfinite(found).all():
            raise InvalidArgument("expected values that are finite, got some that are not")
        return found
    out = np.empty(len(plain), object)
    out[:] = plain
    return out


def same(values: Values, others: Any) -> npt.NDArray[np.bool_]:
    """Where values are equal to others, of a shape that fits; True is not 1, nor 1.0 "1"."""
    if not isinstance(others, np.ndarray):
        others = as_values([others])[0:1].reshape(())
    if values.dtype != object and others.dtype != object:
        return np.asarray(values == others)
    left, right = np.broadcast_arrays(values, others)
    equal = np.asarray(left.astype(object) == right.astype(object), np.bool_)
    return equal & np.asarray(_are_bools(left) == _are_bools(right), np.bool_)


_are_bools = np.frompyfunc(lambda value: isinstance(value, bool), 1, 1)


def _parsed(text: str, parse: Callable[[str], Any], question: int, failure: Failure) -> Any:
    """What the text says; None where that is nothing and may be."""
    why: Exception | str = "it is no value"
    try:
        found = parse(text)
        if found is not None and not (isinstance(found, float) and not np.isfinite(found)):
            return found
    except ValueError as error:
        why = error
    if failure == "raise":
        raise InvalidArgument(
            f"expected samples that parse, {shown(text)} of question {question} does not: {why}"
        )
    return None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def _alike(rows: F64, values: Sequence[Any]) -> Values:
    held = as_values(values)
    if rows.ndim != 2 or rows.shape[1] != len(held):
        raise InvalidArgument(f"expected (n, {len(held)}), one a value, got shape {rows.shape}")
    return np.broadcast_to(held, rows.shape)


def _codes(values: Values, weights: F64) -> I64:
    """(n, m) equal where values are; what weighs nothing has a code of its own."""
    if values.dtype != object:
        codes = np.unique(values, return_inverse=True)[1].reshape(values.shape).astype(np.int64)
    else:
        number: dict[Any, int] = {}
        try:
            flat = [
                number.setdefault((isinstance(v, bool), v), len(number))
                for v in values.ravel().tolist()
            ]
        except TypeError as error:
            raise InvalidArgument(f"expected values that can be compared: {error}") from error
        codes = np.array(flat, np.int64).reshape(values.shape)
    return np.where(weights > 0, codes, -1)


def _floats(given: Any, name: str) -> F64:
    try:
        return np.asarray(given, np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidArgument(f"expected {name} as numbers: {error}") from None


def _alpha(alpha: float) -> float:
    if as_number(alpha, "alpha") < 0:
        raise InvalidArgument(f"expected alpha of at least 0, got {alpha}")
    return float(alpha)
