"""Laws of decide: from samples, closed sets, probabilities and tables, by hand.

laws.py -> [test_decide_laws.py]
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from soardb.errors import InvalidArgument
from soardb.pipelines.decide import Laws, rules


def held(laws: Laws, row: int = 0) -> dict[Any, float]:
    """Value to weight of one law."""
    kept = laws.merged().weights[row]
    return {v: w for v, w in zip(laws.values[row].tolist(), kept, strict=True) if w > 0}


def test_samples_that_do_not_parse_are_dropped() -> None:
    """And their share is told."""
    laws = Laws.of_samples([["1", "x", "3", "3"], ["2"]], float)
    assert held(laws) == pytest.approx({1.0: 1 / 3, 3.0: 2 / 3})
    assert laws.mass.tolist() == [0.75, 1]


def test_samples_that_do_not_parse_may_count_as_a_constant() -> None:
    """Each of them, or only where nothing else is left."""
    texts = [["1", "x"], ["x", "y"]]
    each = Laws.of_samples(texts, float, failure="constant", constant=0)
    assert held(each) == {1.0: 0.5, 0.0: 0.5}
    last = Laws.of_samples(texts, float, constant=0)
    assert (held(last), held(last, 1)) == ({1.0: 1.0}, {0.0: 1.0})
    assert last.mass.tolist() == [0.5, 0]
    with pytest.raises(InvalidArgument, match="question 1 that parses, none of 2 does"):
        Laws.of_samples(texts, float)


def test_samples_that_do_not_parse_may_be_refused() -> None:
    """By name."""
    with pytest.raises(InvalidArgument, match=r"'x' \(str\) of question 0"):
        Laws.of_samples([["1", "x"]], float, failure="raise")
    with pytest.raises(InvalidArgument, match="drop, constant, raise"):
        Laws.of_samples([["1"]], float, failure="ignore")  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="a constant"):
        Laws.of_samples([["1"]], float, failure="constant")
    with pytest.raises(InvalidArgument, match="logs of the samples"):
        Laws.of_samples([["1"]], float, alpha=2)


def test_samples_stand_for_p_to_the_alpha() -> None:
    """Weighing p^(alpha - 1) each; distinct ones p^alpha: both come to p^alpha, in the long run."""
    p = {"1": 0.6, "2": 0.3, "3": 0.1}
    rng = np.random.default_rng(0)
    said = rng.choice(list(p), 20_000, p=list(p.values())).tolist()
    logs = [[np.log(p[text]) for text in said]]
    for alpha in (0.5, 1.0, 2.0):
        power = {float(k): v**alpha for k, v in p.items()}
        wanted = {k: v / sum(power.values()) for k, v in power.items()}
        weighed = Laws.of_samples([said], float, logs=logs, alpha=alpha)
        assert held(weighed) == pytest.approx(wanted, abs=0.02)
        once = Laws.of_samples([said], float, logs=logs, alpha=alpha, distinct=True)
        assert held(once) == pytest.approx(wanted)
        assert once.weights.shape == (1, 3)


def test_a_closed_set_is_made_to_sum_to_one() -> None:
    """Its probability is told, alpha sharpens, and what is impossible stays so."""
    logs = np.log([[0.2, 0.4], [0.1, 0.0001]])
    laws = Laws.of_log_probabilities(logs, [1, 2])
    assert laws.weights[0] == pytest.approx([1 / 3, 2 / 3])
    assert laws.mass == pytest.approx([0.6, 0.1001])
    assert Laws.of_log_probabilities(logs, [1, 2], 2).weights[0] == pytest.approx([0.2, 0.8])
    for alpha in (0.0, 1.0):
        impossible = Laws.of_log_probabilities([[-np.inf, -1.0]], [1, 2], alpha)
        assert impossible.weights.tolist() == [[0, 1]]
    with pytest.raises(InvalidArgument, match="row 0 has none"):
        Laws.of_log_probabilities([[-np.inf, -np.inf]], [1, 2])
    with pytest.raises(InvalidArgument, match="at most 0"):
        Laws.of_log_probabilities([[0.5, -1]], [1, 2])


@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 4), st.integers(0, 5)), min_size=1, max_size=7).filter(
            lambda row: any(w for _, w in row)
        ),
        min_size=1,
        max_size=4,
    ),
    st.booleans(),
)
def test_merging_keeps_the_weight_of_each_value(rows: Any, is_text: bool) -> None:
    """Where the first of them stands, as numbers or words; powers are of the merged weights."""
    values = [[str(v) if is_text else v for v, _ in row] for row in rows]
    laws = Laws.of_rows(values, [[float(w) for _, w in row] for row in rows])
    merged, squared = laws.merged(), laws.powered(2)
    for row, pairs in enumerate(rows):
        total = sum(w for _, w in pairs)
        for value in {v for v, _ in pairs}:
            share = sum(w for v, w in pairs if v == value) / total
            assert laws.at([str(value) if is_text else value] * len(rows))[row] == pytest.approx(
                share
            )
        positive = [i for i, (_, w) in enumerate(pairs) if w > 0]
        kept = [i for i in positive if pairs[i][0] not in {pairs[j][0] for j in positive if j < i}]
        assert np.flatnonzero(merged.weights[row]).tolist() == kept
        powers = merged.weights[row] ** 2
        assert squared.weights[row] == pytest.approx(powers / powers.sum())
    assert merged.weights.sum(1) == pytest.approx(1)


def test_flat_and_plain_powers() -> None:
    """0 makes all that is possible alike, 1 changes nothing."""
    laws = Laws.of_rows([[1, 2, 3]], [[0.5, 0.5, 0]])
    assert laws.powered(0).weights.tolist() == [[0.5, 0.5, 0]]
    assert laws.powered(1) is laws
    with pytest.raises(InvalidArgument, match="alpha of at least 0"):
        laws.powered(-1)


def test_whole_numbers_stay_whole() -> None:
    """A mode of them is one; together with halves they are floats, with words anything."""
    assert rules.mode(Laws.of_rows([[3, 3]])).tolist() == [3]
    assert Laws.of_rows([[3, 3]]).values.dtype == np.int64
    assert Laws.of_rows([[3, 0.5]]).values.dtype == np.float64
    assert Laws.of_rows([[3, "a"]]).values.dtype == object
    assert Laws.of_rows([[True, False]]).values.dtype == object


def test_tables_come_back() -> None:
    """Ragged rows of words and of numbers, weights and mass."""
    for rows in ([["a", "b"], ["c"]], [[1, 2], [7]]):
        laws = Laws.of_rows(rows, [[0.25, 0.5], [1.0]])
        again = Laws.of_arrow(laws.to_arrow())
        assert again.mass.tolist() == [0.75, 1]
        assert [held(again, i) for i in (0, 1)] == [held(laws, i) for i in (0, 1)]
    with pytest.raises(InvalidArgument, match="a column 'values'"):
        Laws.of_arrow(laws.to_arrow().drop_columns(["values"]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Laws.of_rows([[1], []]), "row 1"),
        (lambda: Laws.of_rows([[1]], [[0.0]]), "row 0 has none"),
        (lambda: Laws.of_rows([[1]], [[-1.0]]), "at least 0"),
        (lambda: Laws.of_rows([[1, 2]], [[1.0]]), "as many weights"),
        (lambda: Laws.of_rows([[np.nan]]), "finite"),
        (lambda: Laws.of_rows([[1]], [[1.0], [1.0]]), "each of 1 rows"),
        (lambda: Laws.of_probabilities([[0.5, 0.5]], [1]), r"\(n, 1\)"),
        (lambda: Laws.of_probabilities([["a"]], [1]), "as numbers"),
    ],
)
def test_what_is_no_law_is_refused(make: Any, message: str) -> None:
    """With the row."""
    with pytest.raises(InvalidArgument, match=message):
        make()


def test_rows_may_be_arrays() -> None:
    """Of numbers and of words, in a list or as one matrix."""
    some: Any = [[1], np.array([2]), np.array([3, 4])]
    mixed = Laws.of_rows(some)
    assert [held(mixed, i) for i in range(3)] == [{1: 1.0}, {2: 1.0}, {3: 0.5, 4: 0.5}]
    some = np.array([[1, 2], [3, 4]])
    assert Laws.of_rows(some).values.tolist() == [[1, 2], [3, 4]]
    some = np.array([["1", "2"]])
    assert held(Laws.of_rows(some)) == {"1": 0.5, "2": 0.5}
    assert held(Laws.of_samples(some, float)) == {1.0: 0.5, 2.0: 0.5}


def test_truth_values_are_no_numbers() -> None:
    """True is not 1, in an array or in a list, wherever values are compared."""
    laws = Laws.of_rows([[True, 1, False]])
    assert laws.of(True).tolist() == pytest.approx([1 / 3])
    assert laws.of(1).tolist() == pytest.approx([1 / 3])
    assert laws.at([True]).tolist() == pytest.approx([1 / 3])
    assert (laws.merged().weights > 0).sum() == 3
    assert Laws.of_rows([[1, 0]]).of(True).tolist() == [0]
    assert Laws.of_rows([list(np.array([True, False]))]).values.tolist() == [[True, False]]


def test_numbers_among_words_are_numbers_where_no_word_weighs() -> None:
    """Of some rows of others, and where a word weighs nothing."""
    assert rules.mean(Laws.of_rows([[1, 2], ["a", "b"]])[:1]) == pytest.approx([1.5])
    assert rules.mean(Laws.of_rows([[1, "x"]], [[1.0, 0.0]])) == pytest.approx([1])


def test_some_laws_are_laws() -> None:
    """By a number, a slice, a mask."""
    laws = Laws.of_rows([[1], [2], [3]])
    for rows, want in ((1, [2]), (slice(1, 3), [2, 3]), (np.array([True, False, True]), [1, 3])):
        assert rules.mean(laws[rows]).tolist() == want


def test_what_is_no_number_cannot_be_parsed() -> None:
    """nan and infinity, which float() reads, and None."""
    texts = [["1", "nan", "2", "inf"]]
    assert held(Laws.of_samples(texts, float)) == {1.0: 0.5, 2.0: 0.5}
    assert Laws.of_samples(texts, float).mass.tolist() == [0.5]
    for parse in (float, lambda text: None if text == "nan" else text):
        with pytest.raises(InvalidArgument, match="'nan'"):
            Laws.of_samples(texts, parse, failure="raise")


def test_probabilities_that_sum_to_more_are_refused() -> None:
    """And nulls in tables."""
    with pytest.raises(InvalidArgument, match="at most 1, got 8"):
        Laws.of_probabilities([[3.0, 5.0]], [0, 1])
    import pyarrow as pa

    for table in (
        pa.table({"values": [[1, None]]}),
        pa.table({"values": [[1], None]}),
        pa.table({"values": [[1]], "weights": pa.array([None], pa.list_(pa.float64()))}),
    ):
        with pytest.raises(InvalidArgument, match="without nulls"):
            Laws.of_arrow(table)
