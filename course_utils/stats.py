"""Win rate, intervals, agreement: pure functions over judgments, without a client and without luck.

The unit is the question. A battle asks about each question twice, with the two answers in either
order, and those two verdicts make one result: 60 questions are 60 observations, not 120. Where a
judgment is invalid there is a StatsError and no number, unless `allow_invalid` leaves its question
out and counts it. (scipy takes long to import, so only functions that call it do.)
"""

import math
import unicodedata
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from statistics import NormalDist, fmean
from typing import Any, Literal

from course_utils import CourseError

Verdict = Literal["a", "b", "tie"]
"""Who is better, in terms of the two models, never of the positions they were shown in."""

Interval = tuple[float, float]
Z = NormalDist().inv_cdf(0.975)  # 1.96: 95% of a normal distribution lie within so many deviations


class StatsError(CourseError):
    """The judgments do not support the number asked for, so there is no number."""


def wilson_interval(k: float, n: float) -> Interval:
    """Wilson's 95% score interval for k successes in n trials, as shares from 0 to 1.

    k may hold halves (scipy's may not), but with ties it is too wide: see `win_rate_interval`.
    Wilson, JASA 22 (1927). Taught in 03, section 2. wilson_interval(11, 15) -> (0.480, 0.891)
    """
    if not (_is_number(n, 1) and _is_number(k, 0, n)):
        raise StatsError(f"An interval needs 0 <= k <= n and n >= 1, not k={k}, n={n}.")
    p, shrink = k / n, 1 + Z * Z / n
    center = (p + Z * Z / (2 * n)) / shrink
    margin = Z / shrink * math.sqrt(p * (1 - p) / n + Z * Z / (4 * n * n))
    return max(0.0, center - margin), min(1.0, center + margin)


def win_rate_interval(wins: float, ties: float, losses: float) -> Interval:
    """95% score interval for a win rate: Wilson's without ties, the narrower the more there are.

    As the win rate is (1 + P(win) - P(loss)) / 2, this is the interval for a difference of two
    proportions measured on the same questions: Tango, Statistics in Medicine 17 (1998). Taught in
    03, section 6. win_rate_interval(40, 100, 20) -> (0.515, 0.609)
    """
    from scipy.optimize import brentq

    counts = (wins, ties, losses)
    if not all(_is_number(count, 0) for count in counts) or not (n := sum(counts)):
        raise StatsError(f"There is no interval of {wins} wins, {ties} ties, {losses} losses.")
    found = (wins - losses) / n

    def surprise(lead: float) -> float:
        # Above 0 where P(win) - P(loss) = lead is rejected: the likeliest P(loss) given the lead
        # is the root of a quadratic, and gives the variance.
        b = 2 * n * lead - (wins + losses) - (wins - losses) * lead
        c = -losses * lead * (1 - lead)
        loss = (math.sqrt(max(0.0, b * b - 8 * n * c)) - b) / (4 * n)
        variance = n * max(0.0, 2 * loss + lead * (1 - lead))
        return (wins - losses - n * lead) ** 2 - Z * Z * variance

    def edge(end: float) -> float:  # where, from `found` on to there, leads begin to be rejected
        start = found + 1e-9 * (end - found)  # at `found` the surprise may be 0 as well
        return brentq(surprise, start, end) if surprise(end) > 0 else end

    return (1 + edge(-1.0)) / 2, (1 + edge(1.0)) / 2


def bootstrap_interval(values: Iterable[float], *, seed: int = 0) -> Interval:
    """95% percentile bootstrap interval of the mean, the same for the same values and seed.

    Resamples whole values, so give one value a question. Efron and Tibshirani (1993).
    """
    import numpy as np
    from scipy.stats import bootstrap

    values = list(values)
    if not values or not all(map(_is_number, values)):
        raise StatsError("A bootstrap needs numbers, one at least: leave out what failed.")
    values.sort()  # in whatever order they come
    if values[0] == values[-1]:  # all the same, or one alone, which scipy refuses
        return values[0], values[0]
    found = bootstrap((values,), np.mean, method="percentile", n_resamples=2000, rng=seed,
                      batch=100)  # of 10,000 questions, so many resamples fit into 8 MB
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def sign_test(wins: int, losses: int) -> float:
    """Exact two-sided sign test: how often a fair coin is at least as lopsided; ties say nothing.
    sign_test(10, 3) -> 0.092. Taught in 03, section 6."""
    from scipy.stats import binomtest

    if not (_is_count(wins) and _is_count(losses)):
        raise StatsError(f"A sign test counts wins and losses, not {wins!r} and {losses!r}.")
    # The smaller count, so that both directions give the same number to the last digit.
    return float(binomtest(min(wins, losses), wins + losses).pvalue) if wins + losses else 1.0


def questions_needed(win_rate: float, *, half_width: float | None = None) -> int:
    """How many questions until the interval leaves out 50%, or is at most `half_width` each side.

    Takes the win rate that will be found, without ties. Chance finds a lower one every other time:
    prepare more. questions_needed(0.6) -> 97. Taught in 03, section 6.
    """
    if not all(_is_number(share, 0, 1) for share in (win_rate, half_width or 0)):
        raise StatsError(f"Shares are from 0 to 1, not {win_rate!r} and {half_width!r}.")

    def enough(n: int) -> bool:
        low, high = wilson_interval(n * win_rate, n)
        return not low <= 0.5 <= high if half_width is None else high - low <= 2 * half_width

    if not enough(10**9):
        raise StatsError("No number of questions is enough for that: ask for less certainty.")
    return bisect_left(range(10**9), True, lo=1, key=enough)


@dataclass(frozen=True)
class Game:
    """One question judged in both orders: `first` with a shown first, `second` with b shown first.

    None is an invalid judgment, `len_a` the length of a's answer. Taught in 03, section 3.
    """

    id: str
    first: Verdict | None
    second: Verdict | None
    len_a: int
    len_b: int

    def __post_init__(self):
        if any(said not in ("a", "b", "tie", None) for said in (self.first, self.second)):
            raise StatsError(f"Game {self.id}: {self.first!r} or {self.second!r} is no verdict, "
                             "which is 'a', 'b', 'tie' or None.")
        if not (_is_count(self.len_a) and _is_count(self.len_b)):
            raise StatsError(f"Game {self.id}: {self.len_a!r} or {self.len_b!r} is no length.")

    @property
    def score(self) -> float | None:
        """1 if both orders say a, 0 if both say b, None when a verdict is invalid, else 0.5: where
        the verdict changes with the order (a and b, or a and tie), the judge could not tell."""
        if None in (self.first, self.second):
            return None
        return {"aa": 1.0, "bb": 0.0}.get(self.first + self.second, 0.5)

    @property
    def contradicts(self) -> bool:
        """Whether the two orders name different winners, so that one position won twice."""
        return {self.first, self.second} == {"a", "b"}


@dataclass(frozen=True)
class Rate:
    """A share of n things with its 95% interval."""

    value: float
    interval: Interval
    n: int


@dataclass(frozen=True)
class VerdictSummary:
    """What single verdicts of one order show about model a, as if position did not matter.

    n counts the valid ones. Quote `interval`: `wilson` is too wide where there are many ties.
    """

    n: int
    wins: int
    ties: int
    losses: int
    invalid: int
    win_rate: float
    interval: Interval
    wilson: Interval


@dataclass(frozen=True)
class BattleSummary(VerdictSummary):
    """What a battle shows about model a: as VerdictSummary, but counting questions.

    A tie is any question worth half a win; `contradictions` of them have two orders that name
    different winners. worst and best: the win rate if every invalid question were lost or won.
    consistency: share of questions whose two verdicts are equal. first_position: of the verdicts
    that named somebody, those that named the answer shown first; longer_answer: of the questions
    won or lost, those that it won; None when nothing qualifies, near 50% for a judge without bias.
    """

    contradictions: int
    bootstrap: Interval
    worst: float
    best: float
    sign_test_p: float
    consistency: float
    first_position: Rate | None
    longer_answer: Rate | None

    def __str__(self) -> str:
        low, high = self.interval
        bounds = f" (win rate {self.worst:.1%} if all lost, {self.best:.1%} if all won)"
        return (f"win rate {self.win_rate:.1%} (95% interval {low:.1%} to {high:.1%}): {self.wins} "
                f"wins, {self.ties} ties ({self.contradictions} of them contradictions), "
                f"{self.losses} losses on {self.n} questions, {self.invalid} invalid"
                f"{bounds if self.invalid else ''}; sign test p = {self.sign_test_p:.2g}")


def summarize_battle(games: Iterable[Game], *, seed: int = 0,
                     allow_invalid: bool = False) -> BattleSummary:
    """Summarize a battle from the side of model a; a question is won, lost or tied as a whole.
    Taught in 03, section 6."""
    games = list(games)
    scores, invalid = _valid([game.score for game in games], "questions", allow_invalid)
    points, rate = sum(scores), _win_rate(scores, invalid)
    valid = [game for game in games if game.score is not None]
    return BattleSummary(
        **vars(rate), contradictions=sum(game.contradicts for game in games),
        bootstrap=bootstrap_interval(scores, seed=seed),
        worst=points / len(games), best=(points + invalid) / len(games),
        sign_test_p=sign_test(rate.wins, rate.losses),
        consistency=fmean(game.first == game.second for game in valid),
        first_position=_first_position(valid), longer_answer=_longer_answer(valid))


def verdict_win_rate(verdicts: Iterable[Verdict | None], *,
                     allow_invalid: bool = False) -> VerdictSummary:
    """Win rate of a from the verdicts of one order alone, as a judge asked once would report it.
    Taught in 03, section 4. verdict_win_rate(["a", "a", "tie", "b"]).win_rate -> 0.625
    """
    # A verdict is worth what a question is whose two verdicts agree.
    scores = [Game(str(i), said, said, 0, 0).score for i, said in enumerate(verdicts)]
    return _win_rate(*_valid(scores, "verdicts", allow_invalid))


def _win_rate(scores: list[float], invalid: int) -> VerdictSummary:
    n, points = len(scores), sum(scores)
    counts = [scores.count(score) for score in (1, 0.5, 0)]
    return VerdictSummary(n, *counts, invalid, points / n, win_rate_interval(*counts),
                          wilson_interval(points, n))


def _longer_answer(games: list[Game]) -> Rate | None:
    won = [(game.len_a > game.len_b) == (game.score == 1) for game in games
           if game.score != 0.5 and game.len_a != game.len_b]
    return Rate(fmean(won), wilson_interval(sum(won), len(won)), len(won)) if won else None


def _first_position(games: list[Game]) -> Rate | None:
    # The two verdicts on one question are not independent, so the interval is Wilson's for as many
    # independent ones as would vary like these do (design effect: Kish, Survey Sampling, 1965), or
    # for the questions where nothing varies. First stands a in the first order, b in the second.
    hits = [(game.first == "a") + (game.second == "b") for game in games]
    named = [(game.first != "tie") + (game.second != "tie") for game in games]
    if not any(named):
        return None
    share, trials = sum(hits) / sum(named), sum(named)
    spread = math.fsum((hit - share * tried) ** 2 for hit, tried in zip(hits, named, strict=True))
    alike = sum(tried > 0 for tried in named)
    if 0 < share < 1 and spread:
        alike = max(1, min(share * (1 - share) * trials**2 / spread, trials))
    return Rate(share, wilson_interval(share * alike, alike), trials)


@dataclass(frozen=True)
class Grade:
    """One answer's grade from 1 to 10 and the judge's reason; score None is an invalid judgment."""

    id: str
    score: float | None
    reason: str = ""

    def __post_init__(self):  # -1, NaN and True are how some tools store a failure
        if self.score is not None and not _is_number(self.score, 1, 10):
            raise StatsError(f"{self.score!r} is no grade: write a judgment that failed as None.")


@dataclass(frozen=True)
class GradeSummary:
    """Mean grade of the n valid judgments; worst and best: if all invalid ones were 1, or 10."""

    n: int
    mean: float
    bootstrap: Interval
    invalid: int
    worst: float
    best: float


@dataclass(frozen=True)
class PairedSummary:
    """Grades of a minus those of b on n questions, `wins` of them for a; `invalid` lack a grade."""

    n: int
    mean: float
    bootstrap: Interval
    wins: int
    ties: int
    losses: int
    sign_test_p: float
    invalid: int


def summarize_grades(grades: Iterable[Grade], *, allow_invalid: bool = False) -> GradeSummary:
    """Mean grade with a bootstrap interval over the questions. Shown in 03, section 8."""
    valid, invalid = _valid([grade.score for grade in grades], "grades", allow_invalid)
    worst, best = (fmean([*valid, *[grade] * invalid]) for grade in (1, 10))
    return GradeSummary(len(valid), fmean(valid), bootstrap_interval(valid), invalid, worst, best)


def paired_difference(a: Iterable[Grade], b: Iterable[Grade], *,
                      allow_invalid: bool = False) -> PairedSummary:
    """How much higher model a is graded than model b on the same questions, matched by id.
    Raises StatsError for ids that come twice or in one list only."""
    a, b = list(a), list(b)
    if twice := repeated(grade.id for grade in a) or repeated(grade.id for grade in b):
        raise StatsError(f"A model has several grades for one question: {some_of(twice)}.")
    of_a, of_b = ({grade.id: grade.score for grade in grades} for grades in (a, b))
    if alone := of_a.keys() ^ of_b.keys():
        raise StatsError(f"Graded for one model only: {some_of(sorted(alone))}. Grade both.")
    pairs = [(of_a[id], of_b[id]) for id in of_a]
    found = [None if None in pair else pair[0] - pair[1] for pair in pairs]
    gains, invalid = _valid(found, "questions", allow_invalid)
    wins, losses = sum(gain > 0 for gain in gains), sum(gain < 0 for gain in gains)
    return PairedSummary(len(gains), fmean(gains), bootstrap_interval(gains), wins,
                         len(gains) - wins - losses, losses, sign_test(wins, losses), invalid)


def cohen_kappa(a: Sequence[Any], b: Sequence[Any]) -> float:
    """Agreement of two raters beyond chance: 1 is perfect, 0 is what chance gives. Cohen (1960).

    Raises StatsError for unequal lengths, an invalid label (None), or one label throughout.
    cohen_kappa(["a", "a", "b", "b"], ["a", "b", "b", "b"]) -> 0.5. Taught in 03, section 7.
    """
    if not len(a) == len(b) > 0:
        raise StatsError(f"Labels are compared in pairs, but there are {len(a)} and {len(b)}.")
    if any(label is None or label != label for label in (*a, *b)):  # NaN is not even itself
        raise StatsError("Kappa needs valid labels: leave out the pairs with None and count them.")
    n, given_a, given_b = len(a), Counter(a), Counter(b)
    # In whole numbers: observed and expected agreement, both times n * n.
    observed = n * sum(x == y for x, y in zip(a, b, strict=True))
    expected = sum(count * given_b[label] for label, count in given_a.items())
    if expected == n * n:
        raise StatsError("Kappa is undefined: both raters gave one and the same label throughout.")
    return (observed - expected) / (n * n - expected)


def exact_match(reply: str, reference: str) -> bool:
    """Whether a reply begins with the reference, line by line and to the letter.

    What follows does not count: a base model that never learned to stop goes on after its answer;
    nor does white space at the ends of lines, nor how line breaks and Hangul are encoded. An empty
    reference is matched by an empty reply alone. Of GSM8K compare what follows "####". Raises
    StatsError for no text. exact_match("4\\nand then", "4") -> True. Taught in 03, section 2.
    """
    if not (isinstance(reply, str) and isinstance(reference, str)):
        raise StatsError(f"There is no text to compare in {reply!r} and {reference!r}.")
    texts = (unicodedata.normalize("NFC", text).strip() for text in (reply, reference))
    said, wanted = ([line.rstrip() for line in text.splitlines()] for text in texts)
    return said[:len(wanted)] == wanted if wanted else not said


def repeated(ids: Iterable[str]) -> list[str]:
    """Those that come more than once."""
    return [id for id, count in Counter(ids).items() if count > 1]


def some_of(ids: Sequence[str]) -> str:
    """The first five ids for a message, and how many more there are."""
    return ", ".join(map(str, ids[:5])) + (f" and {len(ids) - 5} more" if len(ids) > 5 else "")


def _valid(found: Sequence, what: str, allow_invalid: bool) -> tuple[list, int]:
    """What is not None, and how many were: StatsError if that was not allowed, or if all were."""
    valid = [one for one in found if one is not None]
    invalid = len(found) - len(valid)
    if invalid and not allow_invalid:
        raise StatsError(f"{invalid} of {len(found)} {what} have an invalid judgment: judge them "
                         "again, or pass allow_invalid=True to leave them out and count them.")
    if not valid:
        raise StatsError(f"There are no valid {what} to summarize.")
    return valid, invalid


def _is_number(value: Any, low: float = -math.inf, high: float = math.inf) -> bool:
    """Whether it is a finite number in this range: NaN, True and "7" are none, numpy's 7 is."""
    return (isinstance(value, Real) and not isinstance(value, bool)
            and -math.inf < value < math.inf and low <= value <= high)


def _is_count(value: Any) -> bool:
    return isinstance(value, Integral) and _is_number(value, 0)
