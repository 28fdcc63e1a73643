"""How far raters agree: two raters with each other, or one judge with itself when asked again."""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from numbers import Real
from statistics import fmean, stdev
from typing import Any

from course_utils.intervals import StatsError, wilson_interval


@dataclass(frozen=True)
class Agreement:
    """How far two raters agree on n pairs of labels; `excluded` pairs had an invalid label.

    rate is the share of equal labels, with Wilson's 95% interval; kappa is Cohen's, None when it
    does not exist because both gave one and the same label throughout.
    """

    n: int
    excluded: int
    rate: float
    wilson: tuple[float, float]
    kappa: float | None

    def __str__(self) -> str:
        low, high = self.wilson
        kappa = "does not exist" if self.kappa is None else f"{self.kappa:.2f}"
        return (
            f"agreement {self.rate:.1%} (95% interval {low:.1%} to {high:.1%}), kappa {kappa}, "
            f"on {self.n} labels, {self.excluded} excluded"
        )


@dataclass(frozen=True)
class RepeatSummary:
    """What a judge says when asked the same k times: n questions with k valid verdicts each.

    unanimous is the share of questions whose verdicts are all equal, with Wilson's 95% interval;
    deviation the mean standard deviation of a question's grades, None for verdicts that are words.
    """

    n: int
    k: int
    unanimous: float
    wilson: tuple[float, float]
    deviation: float | None
    invalid: int


def cohen_kappa(
    a: Sequence[Any], b: Sequence[Any], *, labels: Collection[Any] | None = None
) -> float:
    """Agreement of two raters beyond chance: 1 is perfect, 0 is what chance gives.

    Both must label in one set: with `labels`, any other label is an error. Raises StatsError as
    well for lists of unequal length, an invalid label (None), or a kappa that does not exist
    because both raters gave one and the same label throughout. Cohen (1960).

    >>> cohen_kappa(["a", "a", "b", "b"], ["a", "b", "b", "b"])
    0.5
    """
    _check_pairs(a, b, labels)
    if any(label is None for label in (*a, *b)):
        raise StatsError("Kappa needs valid labels: leave out the pairs with None and count them.")
    n, given_a, given_b = len(a), Counter(a), Counter(b)
    # In whole numbers: observed and expected agreement, both times n * n.
    observed = n * sum(x == y for x, y in zip(a, b, strict=True))
    expected = sum(count * given_b[label] for label, count in given_a.items())
    if expected == n * n:
        raise StatsError("Kappa is undefined: both raters gave one and the same label throughout.")
    return (observed - expected) / (n * n - expected)


def agreement(
    a: Sequence[Any],
    b: Sequence[Any],
    *,
    labels: Collection[Any] | None = None,
    allow_invalid: bool = False,
) -> Agreement:
    """How often two raters give the same label, and Cohen's kappa, as with a person's own labels.

    Raises StatsError for lists of unequal length, a label outside `labels`, and an invalid label
    (None), unless `allow_invalid` leaves those pairs out and counts them.

    >>> agreement(["a", "a", "b", None], ["a", "b", "b", "b"], allow_invalid=True).rate
    0.6666666666666666
    """
    _check_pairs(a, b, labels)
    pairs = list(zip(a, b, strict=True))
    valid = [pair for pair in pairs if None not in pair]
    excluded = count_invalid(pairs, valid, "pairs of labels", allow_invalid)
    agreed, n = sum(x == y for x, y in valid), len(valid)
    kept_a, kept_b = zip(*valid, strict=True)
    one_label = len({*kept_a, *kept_b}) == 1
    kappa = None if one_label else cohen_kappa(kept_a, kept_b)
    return Agreement(n, excluded, agreed / n, wilson_interval(agreed, n), kappa)


def summarize_repeats(
    rows: Iterable[Sequence[Any]], *, allow_invalid: bool = False
) -> RepeatSummary:
    """Spread of a judge asked k times: one row a question, its k verdicts or its k grades.

    Raises StatsError for rows of different lengths or fewer than two, and for an invalid verdict
    (None), unless `allow_invalid` leaves out and counts the questions that have one.

    >>> summarize_repeats([["a", "a", "a"], ["a", "b", "a"]]).unanimous
    0.5
    """
    rows = [list(row) for row in rows]
    if not rows or len({len(row) for row in rows}) != 1 or len(rows[0]) < 2:
        found = sorted({len(row) for row in rows})
        raise StatsError(f"Every question needs the same number of verdicts, 2 or more: {found}.")
    valid = [row for row in rows if None not in row]
    invalid = count_invalid(rows, valid, "repeated questions", allow_invalid)
    same, n = sum(len(set(row)) == 1 for row in valid), len(valid)
    graded = all(isinstance(grade, Real) for row in valid for grade in row)
    deviation = fmean(map(stdev, valid)) if graded else None
    return RepeatSummary(n, len(rows[0]), same / n, wilson_interval(same, n), deviation, invalid)


def count_invalid(everything: Collection, valid: Collection, what: str, allowed: bool) -> int:
    """How many are invalid; StatsError if some are and that was not allowed, or if none is left."""
    invalid = len(everything) - len(valid)
    if invalid and not allowed:
        raise StatsError(
            f"{invalid} of {len(everything)} {what} have an invalid judgment: judge them again, or "
            "pass allow_invalid=True to leave them out and report their number."
        )
    if not valid:
        raise StatsError(f"There are no valid {what} to summarize.")
    return invalid


def _check_pairs(a: Sequence[Any], b: Sequence[Any], labels: Collection[Any] | None) -> None:
    if len(a) != len(b) or not len(a):
        raise StatsError(f"Labels are compared in pairs, but there are {len(a)} and {len(b)}.")
    if labels is not None and (other := {*a, *b} - {*labels, None}):
        raise StatsError(
            f"Both raters must use the labels {', '.join(map(str, labels))}, but there is "
            f"{', '.join(sorted(map(repr, other)))}."
        )
