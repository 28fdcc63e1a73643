"""Win rate, intervals, agreement: pure functions over judgments, without a client and without luck.

The unit is the question. A battle asks about each question twice, with the two answers in either
order, and those two verdicts make one result: 60 questions are 60 observations, not 120.
scipy takes most of a second to import, so only the two functions that call it do.
"""

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Real
from statistics import NormalDist, fmean, stdev
from typing import Any, Literal

from course_utils import CourseError

Verdict = Literal["a", "b", "tie"]
"""Who is better, in terms of the two models, never of the positions they were shown in."""

Interval = tuple[float, float]


class StatsError(CourseError):
    """The judgments do not support the number asked for, so there is no number."""


# --- intervals and a test ---------------------------------------------------------------------


def wilson_interval(k: float, n: float, level: float = 0.95) -> Interval:
    """Wilson's score interval for k successes in n trials, as shares from 0 to 1.

    k may hold halves, a tie being half a win (which is why scipy's, for whole numbers, is not used
    here); but scores of 0, 1/2 and 1 vary less than a coin with the same mean, so with ties this
    interval is too wide: see `win_rate_interval`. Raises StatsError without trials. Wilson, JASA 22
    (1927). Taught in 03, sections 3 and 8.

    >>> [round(limit, 3) for limit in wilson_interval(11, 15)]
    [0.48, 0.891]
    """
    if n < 1 or not 0 <= k <= n:
        raise StatsError(f"An interval needs 0 <= k <= n and n >= 1, not k={k}, n={n}.")
    z = NormalDist().inv_cdf((1 + level) / 2)
    p, shrink = k / n, 1 + z * z / n
    center = (p + z * z / (2 * n)) / shrink
    margin = z / shrink * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, center - margin), min(1.0, center + margin)


def win_rate_interval(wins: float, ties: float, losses: float) -> Interval:
    """95% score interval for a win rate: Wilson's without ties, the narrower the more there are.

    It holds the win rates that the score test of three outcomes does not reject. As the win rate is
    (1 + P(win) - P(loss)) / 2, this is Tango's interval for the difference of two proportions
    measured on the same questions. Raises StatsError without questions. Tango, Statistics in
    Medicine 17 (1998). Taught in 03, section 10.

    >>> [round(limit, 3) for limit in win_rate_interval(40, 100, 20)]
    [0.515, 0.609]
    """
    n = wins + ties + losses
    if min(wins, ties, losses) < 0 or n <= 0:
        raise StatsError(
            f"An interval needs counts >= 0 of at least one question, not {wins} wins, {ties} ties "
            f"and {losses} losses."
        )
    z = NormalDist().inv_cdf(0.975)

    def plausible(lead: float) -> bool:
        """Whether P(win) - P(loss) = lead is not rejected: the likeliest P(loss) given the lead
        is the root of a quadratic, and gives the variance."""
        b = 2 * n * lead - (wins + losses) - (wins - losses) * lead
        c = -losses * lead * (1 - lead)
        loss = (math.sqrt(max(0.0, b * b - 8 * n * c)) - b) / (4 * n)
        variance = n * max(0.0, 2 * loss + lead * (1 - lead))
        return (wins - losses - n * lead) ** 2 <= z * z * variance

    def edge(outside: float) -> float:
        """Where, on the way from the lead found to -1 or 1, leads cease to be plausible."""
        if plausible(outside):
            return outside
        inside = (wins - losses) / n
        for _ in range(60):
            middle = (inside + outside) / 2
            inside, outside = (middle, outside) if plausible(middle) else (inside, middle)
        return inside

    return (1 + edge(-1.0)) / 2, (1 + edge(1.0)) / 2


def bootstrap_interval(values: Iterable[float], *, seed: int = 0) -> Interval:
    """95% percentile bootstrap interval of the mean, the same for the same values and seed.

    Resamples whole values, so give one value a question; their order does not matter. Raises
    StatsError without values. Efron and Tibshirani, An Introduction to the Bootstrap (1993).
    """
    import numpy as np
    from scipy.stats import bootstrap

    values = sorted(values)
    if not values or not all(map(math.isfinite, values)):
        raise StatsError("A bootstrap needs numbers: leave out what failed and count it.")
    if values[0] == values[-1]:  # all the same, or one alone, which scipy refuses
        return values[0], values[0]
    found = bootstrap(
        (values,), np.mean, method="percentile", n_resamples=2000, rng=seed,
        batch=100,  # of 10,000 questions, so many resamples fit into 8 MB
    ).confidence_interval  # fmt: skip
    return float(found.low), float(found.high)


def sign_test(wins: int, losses: int) -> float:
    """Exact two-sided sign test: how often a fair coin is at least as lopsided; ties say nothing.

    Taught in 03, sections 8 and 11.

    >>> round(sign_test(10, 3), 3)
    0.092
    """
    from scipy.stats import binomtest

    # The smaller count, so that both directions give the same number to the last digit.
    return float(binomtest(min(wins, losses), wins + losses).pvalue) if wins + losses else 1.0


def questions_needed(win_rate: float, *, half_width: float | None = None, ties: float = 0.0) -> int:
    """How many questions until the interval leaves out 50%, or is at most `half_width` each side.

    Takes the win rate and the share of ties that will be found. Chance finds a lower win rate every
    other time, so prepare more than this. Raises StatsError when no number is enough. Taught in 03,
    section 10.

    >>> questions_needed(0.6), questions_needed(0.6, half_width=0.05)
    (97, 366)
    """
    shares = win_rate - ties / 2, ties, 1 - win_rate - ties / 2
    if min(shares) < -1e-12:
        raise StatsError(f"A win rate of {win_rate:.1%} cannot come with {ties:.1%} ties.")
    if half_width is None and win_rate == 0.5 or half_width is not None and half_width <= 0:
        raise StatsError("No number of questions is enough for that: ask for less certainty.")

    def too_few(n: int) -> bool:
        low, high = win_rate_interval(*(max(0.0, n * share) for share in shares))
        if half_width is None:
            return low <= 0.5 <= high
        return (high - low) / 2 > half_width

    enough = 1
    while too_few(enough):
        enough *= 2
    return bisect_left(range(enough), True, lo=enough // 2, key=lambda n: n > 0 and not too_few(n))


# --- battles ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Game:
    """One question judged in both orders: `first` with a shown first, `second` with b shown first.

    None is an invalid judgment. `len_a` and `len_b` are the answers' lengths in characters.
    Verdicts of one order alone are no Games: see `verdict_win_rate`. Taught in 03, section 8.
    """

    id: str
    first: Verdict | None
    second: Verdict | None
    len_a: int
    len_b: int

    def __post_init__(self):
        for verdict in (self.first, self.second):
            if verdict not in ("a", "b", "tie", None):
                raise StatsError(
                    f"Game {self.id}: a verdict is 'a', 'b', 'tie' or None, not {verdict!r}."
                )

    @property
    def score(self) -> float | None:
        """1 if both orders say a, 0 if both say b, None when a verdict is invalid, else 0.5.

        A verdict that changes with the order (a and b, or a and tie) says that the judge could not
        tell, so it counts like a tie in both orders.
        """
        if self.first is None or self.second is None:
            return None
        if self.first != self.second:
            return 0.5
        return {"a": 1.0, "tie": 0.5, "b": 0.0}[self.first]

    @property
    def contradicts(self) -> bool:
        """Whether the two orders name different winners, so that one position won twice."""
        return {self.first, self.second} == {"a", "b"}


@dataclass(frozen=True)
class VerdictSummary:
    """What single verdicts of one order show about model a, as if position did not matter.

    Intervals are 95%, rates run from 0 to 1; n counts the valid ones = wins + ties + losses.
    `interval` is the one to quote: it knows that ties vary less than coins (`win_rate_interval`),
    while `wilson` treats a tie as half a coin and is too wide when there are many.
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

    A tie is any question worth half a win; `contradictions` counts those among them whose two
    orders name different winners. worst and best: the win rate if every invalid question were lost
    or won. consistency: share of questions whose two verdicts are equal. first_position_rate and
    longer_win_rate are those of `judge_bias`.
    """

    contradictions: int
    bootstrap: Interval
    worst: float
    best: float
    sign_test_p: float
    consistency: float
    first_position_rate: float | None
    longer_win_rate: float | None

    def __str__(self) -> str:
        low, high = self.interval
        invalid = f"{self.invalid} invalid"
        if self.invalid:
            invalid += f" (win rate {self.worst:.1%} if all lost, {self.best:.1%} if all won)"
        return (
            f"win rate {self.win_rate:.1%} (95% interval {low:.1%} to {high:.1%}): "
            f"{self.wins} wins, {self.ties} ties ({self.contradictions} of them contradictions), "
            f"{self.losses} losses on {self.n} questions, {invalid}; "
            f"sign test p = {self.sign_test_p:.2g}"
        )


def summarize_battle(
    games: Iterable[Game], *, seed: int = 0, allow_invalid: bool = False
) -> BattleSummary:
    """Summarize a battle from the side of model a; a question is won, lost or tied as a whole.

    Raises StatsError when a judgment is invalid, unless `allow_invalid` leaves those questions out
    (and counts them). Taught in 03, section 8.
    """
    games = list(games)
    scores, invalid = _valid((game.score for game in games), "questions", allow_invalid)
    points, rate, bias = sum(scores), _win_rate(scores, invalid), judge_bias(games)
    return BattleSummary(
        **vars(rate),
        contradictions=sum(game.contradicts for game in games),
        bootstrap=bootstrap_interval(scores, seed=seed),
        worst=points / len(games),
        best=(points + invalid) / len(games),
        sign_test_p=sign_test(rate.wins, rate.losses),
        consistency=fmean(game.first == game.second for game in games if game.score is not None),
        first_position_rate=bias.first and bias.first.value,
        longer_win_rate=bias.longer and bias.longer.value,
    )


def verdict_win_rate(
    verdicts: Iterable[Verdict | None], *, allow_invalid: bool = False
) -> VerdictSummary:
    """Win rate of a from the verdicts of one order alone, as a judge asked once would report it.

    Raises StatsError when a verdict is invalid (None), unless `allow_invalid` leaves it out. Taught
    in 03, sections 6 and 9.

    >>> verdict_win_rate(["a", "a", "tie", "b"]).win_rate
    0.625
    """
    # A verdict is worth what a question is whose two verdicts agree.
    scores = (Game(str(i), said, said, 0, 0).score for i, said in enumerate(verdicts))
    return _win_rate(*_valid(scores, "verdicts", allow_invalid))


def _win_rate(scores: list[float], invalid: int) -> VerdictSummary:
    n, points = len(scores), sum(scores)
    counts = wins, ties, losses = [scores.count(score) for score in (1, 0.5, 0)]
    return VerdictSummary(
        n, wins, ties, losses, invalid,
        points / n, win_rate_interval(*counts), wilson_interval(points, n),
    )  # fmt: skip


@dataclass(frozen=True)
class Rate:
    """A share of n things with its 95% interval."""

    value: float
    interval: Interval
    n: int


@dataclass(frozen=True)
class JudgeBias:
    """What should be near 50% for a judge that minds neither position nor length.

    first: of the verdicts that named somebody, those that named the answer shown first. longer: of
    the questions won or lost, those that the longer answer won; this is only a hint, for a longer
    answer may be the better one. None when nothing qualifies.
    """

    first: Rate | None
    longer: Rate | None


def judge_bias(games: Iterable[Game]) -> JudgeBias:
    """How far the judge follows position and length, from the valid questions of a battle.

    The interval of `first` counts questions: the two verdicts on one question are not independent.
    Taught in 03, section 9.
    """
    valid = [game for game in games if game.score is not None]
    # How many of a question's verdicts named the answer shown first, and how many named any. In
    # terms of positions: a stands first in the first order, b in the second.
    named = [
        ((game.first == "a") + (game.second == "b"), (game.first != "tie") + (game.second != "tie"))
        for game in valid
    ]
    longer = [
        (game.len_a > game.len_b) == (game.score == 1)
        for game in valid
        if game.score != 0.5 and game.len_a != game.len_b
    ]
    won, decided = sum(longer), len(longer)
    by_length = Rate(won / decided, wilson_interval(won, decided), decided) if decided else None
    return JudgeBias(_clustered(named), by_length)


def _clustered(counts: Sequence[tuple[int, int]]) -> Rate | None:
    """The share of all things named, (hits, trials) a question, its interval over questions.

    Wilson's interval for as many independent trials as would vary like these do (design effect:
    Kish, Survey Sampling, 1965); with no variation at all, for as many as there are questions.
    """
    hits, trials = (sum(column) for column in zip(*counts, strict=True)) if counts else (0, 0)
    if not trials:
        return None
    share = hits / trials
    spread = sum((hit - share * tried) ** 2 for hit, tried in counts)
    questions = sum(tried > 0 for _, tried in counts)
    alike = share * (1 - share) * trials**2 / spread if 0 < share < 1 and spread else questions
    alike = max(1, min(alike, trials))
    return Rate(share, wilson_interval(share * alike, alike), trials)


# --- grades -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Grade:
    """One answer's grade from 1 to 10 and the judge's reason; score None is an invalid judgment."""

    id: str
    score: int | None
    reason: str = ""


@dataclass(frozen=True)
class GradeSummary:
    """Mean grade of the n valid judgments with its 95% bootstrap interval.

    worst and best: the mean if every invalid answer had the lowest or the highest grade.
    """

    n: int
    mean: float
    bootstrap: Interval
    invalid: int
    worst: float
    best: float


@dataclass(frozen=True)
class PairedSummary:
    """Grades of a minus grades of b on the same n questions: the mean with a bootstrap interval.

    wins, ties and losses count the questions on which a has the higher, the same or the lower
    grade; `invalid` those on which a grade is missing.
    """

    n: int
    mean: float
    bootstrap: Interval
    wins: int
    ties: int
    losses: int
    sign_test_p: float
    invalid: int


def summarize_grades(
    grades: Iterable[Grade | float | None], *, seed: int = 0, allow_invalid: bool = False
) -> GradeSummary:
    """Mean grade with a bootstrap interval over the questions; takes Grades or bare scores.

    Raises StatsError for a negative score, which is how some tools store a failure, and for an
    invalid grade (None), unless `allow_invalid` leaves it out and counts it. Taught in 03, section
    12.
    """
    scores = [grade.score if isinstance(grade, Grade) else grade for grade in grades]
    valid, invalid = _valid(scores, "grades", allow_invalid)
    if strange := [score for score in valid if not 0 <= score < math.inf]:
        raise StatsError(f"{strange[0]} is no grade: write a judgment that failed as None.")
    total = math.fsum(valid)
    return GradeSummary(
        n=len(valid),
        mean=total / len(valid),
        bootstrap=bootstrap_interval(valid, seed=seed),
        invalid=invalid,
        worst=(total + 1 * invalid) / len(scores),  # the judge's scale is 1 to 10
        best=(total + 10 * invalid) / len(scores),
    )


def paired_difference(
    a: Iterable[Grade], b: Iterable[Grade], *, seed: int = 0, allow_invalid: bool = False
) -> PairedSummary:
    """How much higher model a is graded than model b on the same questions, matched by id.

    Raises StatsError for ids that come twice or in one list only, and for an invalid grade, unless
    `allow_invalid` leaves out and counts the questions that have one. Taught in 03, section 12.
    """
    of_a, of_b = _by_id(a, "a"), _by_id(b, "b")
    if alone := of_a.keys() ^ of_b.keys():
        names = some_of(sorted(alone, key=str))
        raise StatsError(f"Graded for one model only: {names}. Grade both on these.")
    pairs = [(of_a[id].score, of_b[id].score) for id in of_a]
    found = (None if None in pair else pair[0] - pair[1] for pair in pairs)
    gains, invalid = _valid(found, "questions", allow_invalid)
    wins, losses = sum(gain > 0 for gain in gains), sum(gain < 0 for gain in gains)
    return PairedSummary(
        n=len(gains),
        mean=fmean(gains),
        bootstrap=bootstrap_interval(gains, seed=seed),
        wins=wins,
        ties=len(gains) - wins - losses,
        losses=losses,
        sign_test_p=sign_test(wins, losses),
        invalid=invalid,
    )


def _by_id(grades: Iterable[Grade], model: str) -> dict[str, Grade]:
    grades = list(grades)
    twice = [id for id, count in Counter(grade.id for grade in grades).items() if count > 1]
    if twice:
        raise StatsError(f"Model {model} has several grades for one question: {some_of(twice)}.")
    return {grade.id: grade for grade in grades}


# --- agreement --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Agreement:
    """How far two raters agree on n pairs of labels; `excluded` pairs had an invalid label.

    rate is the share of equal labels, with Wilson's 95% interval; kappa is Cohen's, None when it
    does not exist because both gave one and the same label throughout.
    """

    n: int
    excluded: int
    rate: float
    wilson: Interval
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
    wilson: Interval
    deviation: float | None
    invalid: int


def cohen_kappa(a: Sequence[Any], b: Sequence[Any]) -> float:
    """Agreement of two raters beyond chance: 1 is perfect, 0 is what chance gives.

    Raises StatsError for lists of unequal length, an invalid label (None), or a kappa that does not
    exist because both raters gave one and the same label throughout. Cohen (1960). Taught in 03,
    section 7.

    >>> cohen_kappa(["a", "a", "b", "b"], ["a", "b", "b", "b"])
    0.5
    """
    pairs = _pairs(a, b)
    if any(None in pair for pair in pairs):
        raise StatsError("Kappa needs valid labels: leave out the pairs with None and count them.")
    n, given_a, given_b = len(pairs), Counter(a), Counter(b)
    # In whole numbers: observed and expected agreement, both times n * n.
    observed = n * sum(x == y for x, y in pairs)
    expected = sum(count * given_b[label] for label, count in given_a.items())
    if expected == n * n:
        raise StatsError("Kappa is undefined: both raters gave one and the same label throughout.")
    return (observed - expected) / (n * n - expected)


def agreement(a: Sequence[Any], b: Sequence[Any], *, allow_invalid: bool = False) -> Agreement:
    """How often two raters give the same label, and Cohen's kappa, as with a person's own labels.

    Raises StatsError for lists of unequal length and for an invalid label (None), unless
    `allow_invalid` leaves those pairs out and counts them. Taught in 03, section 7.

    >>> agreement(["a", "a", "b", None], ["a", "b", "b", "b"], allow_invalid=True).rate
    0.6666666666666666
    """
    found = (None if None in pair else pair for pair in _pairs(a, b))
    pairs, excluded = _valid(found, "pairs of labels", allow_invalid)
    agreed, n = sum(x == y for x, y in pairs), len(pairs)
    kept_a, kept_b = zip(*pairs, strict=True)
    kappa = None if len({*kept_a, *kept_b}) == 1 else cohen_kappa(kept_a, kept_b)
    return Agreement(n, excluded, agreed / n, wilson_interval(agreed, n), kappa)


def _pairs(a: Sequence[Any], b: Sequence[Any]) -> list[tuple[Any, Any]]:
    if len(a) != len(b) or not len(a):
        raise StatsError(f"Labels are compared in pairs, but there are {len(a)} and {len(b)}.")
    return list(zip(a, b, strict=True))


def summarize_repeats(
    rows: Iterable[Sequence[Any]], *, allow_invalid: bool = False
) -> RepeatSummary:
    """Spread of a judge asked k times: one row a question, its k verdicts or its k grades.

    Raises StatsError for rows of different lengths or fewer than two, and for an invalid verdict
    (None), unless `allow_invalid` leaves out and counts the questions that have one. Taught in 03,
    section 6.

    >>> summarize_repeats([["a", "a", "a"], ["a", "b", "a"]]).unanimous
    0.5
    """
    rows = [list(row) for row in rows]
    if not rows or len({len(row) for row in rows}) != 1 or len(rows[0]) < 2:
        lengths = sorted({len(row) for row in rows})
        raise StatsError(f"Every question needs the same number of verdicts, 2 or more: {lengths}.")
    found = (None if None in row else row for row in rows)
    valid, invalid = _valid(found, "repeated questions", allow_invalid)
    same, n = sum(len(set(row)) == 1 for row in valid), len(valid)
    graded = all(isinstance(grade, Real) for row in valid for grade in row)
    deviation = fmean(map(stdev, valid)) if graded else None
    return RepeatSummary(n, len(rows[0]), same / n, wilson_interval(same, n), deviation, invalid)


# --- without a judge --------------------------------------------------------------------------


def exact_match(reply: str, reference: str) -> bool:
    """Whether the first line of a reply is the reference, white space at its ends apart.

    The first line, because a base model that never learned to stop goes on after its answer: this
    judges it generously. exact_match("4\\nand then", "4") -> True. Taught in 03, section 1.
    """
    lines = reply.strip().splitlines()
    return bool(lines) and lines[0].strip() == reference.strip()


def repetition_rate(texts: Iterable[str]) -> float:
    """Share of replies in which the same four words in a row, white space apart, come three times.

    It is how a model that has lost its thread sounds; people hardly ever write so. Raises
    StatsError without a reply. Taught in 02, section 6.

    >>> repetition_rate(["네, 알겠습니다.", "비가 오면 나는 비가 오면 나는 비가 오면 나는 비가"])
    0.5
    """
    repeated = []
    for text in texts:
        words = text.split()
        fours = Counter(zip(words, words[1:], words[2:], words[3:], strict=False))
        repeated.append(max(fours.values(), default=0) >= 3)
    if not repeated:
        raise StatsError("A repetition rate needs at least one reply.")
    return fmean(repeated)


# --- what all of these share ------------------------------------------------------------------


def some_of(ids: Sequence[str]) -> str:
    """The first five ids for a message, and how many more there are."""
    more = f" and {len(ids) - 5} more" if len(ids) > 5 else ""
    return ", ".join(map(str, ids[:5])) + more


def _valid(found: Iterable, what: str, allow_invalid: bool) -> tuple[list, int]:
    """What is not None, and how many were: StatsError if that was not allowed, or if all were."""
    found = list(found)
    valid = [one for one in found if one is not None]
    invalid = len(found) - len(valid)
    if invalid and not allow_invalid:
        raise StatsError(
            f"{invalid} of {len(found)} {what} have an invalid judgment: judge them again, or "
            "pass allow_invalid=True to leave them out and report their number."
        )
    if not valid:
        raise StatsError(f"There are no valid {what} to summarize.")
    return valid, invalid
