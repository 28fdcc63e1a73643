"""How much better, and how sure: pure functions over judgments, without a client and without luck.

The unit is the question. A battle asks about each question twice, with the two answers in either
order, and those two verdicts make one result: 60 questions are 60 observations, not 120. Intervals,
agreement, ranking and what is counted on replies have their own modules; their names are all here.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from course_utils.agreement import (
    count_invalid,
)
from course_utils.intervals import (
    StatsError,
    bootstrap_interval,
    sign_test,
    wilson_interval,
    win_rate_interval,
)

Verdict = Literal["a", "b", "tie"]
"""Who is better, in terms of the two models, never of the positions they were shown in."""

VERDICTS = ("a", "b", "tie")
LOWEST, HIGHEST = 1, 10  # the judge's scale

Interval = tuple[float, float]


@dataclass(frozen=True)
class Game:
    """One question judged in both orders: `first` with a shown first, `second` with b shown first.

    None is an invalid judgment. `len_a` and `len_b` are the answers' lengths in characters.
    Verdicts of one order alone are no Games: see `verdict_win_rate`.
    """

    id: str
    first: Verdict | None
    second: Verdict | None
    len_a: int
    len_b: int

    def __post_init__(self):
        for verdict in (self.first, self.second):
            if verdict is not None and verdict not in VERDICTS:
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
class Grade:
    """One answer's grade from 1 to 10 and the judge's reason; score None is an invalid judgment."""

    id: str
    score: int | None
    reason: str = ""


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


@dataclass(frozen=True)
class BattleSummary:
    """What a battle shows about model a; intervals are 95%, rates run from 0 to 1.

    n counts the valid questions = wins + ties + losses. A tie is any question worth half a win;
    `contradictions` counts those among them whose two orders name different winners. `interval` is
    the one to quote: it knows that ties vary less than coins (`win_rate_interval`), while `wilson`
    treats a tie as half a coin and is too wide when there are many. worst and best: the win rate
    if every invalid question were lost or won. consistency: share of questions whose two verdicts
    are equal. first_position_rate and longer_win_rate are those of `judge_bias`.
    """

    n: int
    wins: int
    ties: int
    losses: int
    contradictions: int
    invalid: int
    win_rate: float
    interval: Interval
    wilson: Interval
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


@dataclass(frozen=True)
class VerdictSummary:
    """A win rate from single verdicts of one order, as if position did not matter."""

    n: int
    wins: int
    ties: int
    losses: int
    invalid: int
    win_rate: float
    interval: Interval
    wilson: Interval


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
    grade. worst and best: the mean difference if every missing grade went against a, or for a.
    """

    n: int
    mean: float
    bootstrap: Interval
    wins: int
    ties: int
    losses: int
    sign_test_p: float
    invalid: int
    worst: float
    best: float


def summarize_battle(
    games: Iterable[Game], *, seed: int = 0, allow_invalid: bool = False
) -> BattleSummary:
    """Summarize a battle from the side of model a; a question is won, lost or tied as a whole.

    Raises StatsError when a judgment is invalid, unless `allow_invalid` leaves those questions out
    (and counts them). Taught in 03.
    """
    games = list(games)
    valid = [game for game in games if game.score is not None]
    invalid = count_invalid(games, valid, "questions", allow_invalid)
    scores = [game.score for game in valid]
    n = len(valid)
    wins, ties, losses = (scores.count(s) for s in (1.0, 0.5, 0.0))
    points = wins + ties / 2
    bias = judge_bias(valid)
    return BattleSummary(
        n=n,
        wins=wins,
        ties=ties,
        losses=losses,
        contradictions=sum(game.contradicts for game in valid),
        invalid=invalid,
        win_rate=points / n,
        interval=win_rate_interval(wins, ties, losses),
        wilson=wilson_interval(points, n),
        bootstrap=bootstrap_interval(scores, seed=seed),
        worst=points / (n + invalid),
        best=(points + invalid) / (n + invalid),
        sign_test_p=sign_test(wins, losses),
        consistency=fmean(game.first == game.second for game in valid),
        first_position_rate=bias.first and bias.first.value,
        longer_win_rate=bias.longer and bias.longer.value,
    )


def judge_bias(games: Iterable[Game]) -> JudgeBias:
    """How far the judge follows position and length, from the valid questions of a battle.

    The interval of `first` counts questions: the two verdicts on one question are not independent.
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


def verdict_win_rate(
    verdicts: Iterable[Verdict | None], *, allow_invalid: bool = False
) -> VerdictSummary:
    """Win rate of a from the verdicts of one order alone, as a judge asked once would report it.

    Raises StatsError when a verdict is invalid (None), unless `allow_invalid` leaves it out.

    >>> verdict_win_rate(["a", "a", "tie", "b"]).win_rate
    0.625
    """
    verdicts = list(verdicts)
    valid = [verdict for verdict in verdicts if verdict is not None]
    if unknown := set(valid) - set(VERDICTS):
        raise StatsError(f"A verdict is 'a', 'b', 'tie' or None, not {sorted(unknown)}.")
    invalid = count_invalid(verdicts, valid, "verdicts", allow_invalid)
    wins, ties, losses = (valid.count(v) for v in ("a", "tie", "b"))
    won, n = wins + ties / 2, len(valid)
    return VerdictSummary(
        n=n,
        wins=wins,
        ties=ties,
        losses=losses,
        invalid=invalid,
        win_rate=won / n,
        interval=win_rate_interval(wins, ties, losses),
        wilson=wilson_interval(won, n),
    )


def summarize_grades(
    grades: Iterable[Grade | float | None], *, seed: int = 0, allow_invalid: bool = False
) -> GradeSummary:
    """Mean grade with a bootstrap interval over the questions; takes Grades or bare scores.

    Raises StatsError for a negative score, which is how some tools store a failure, and for an
    invalid grade (None), unless `allow_invalid` leaves it out and counts it.
    """
    scores = [grade.score if isinstance(grade, Grade) else grade for grade in grades]
    valid = [score for score in scores if score is not None]
    if strange := [score for score in valid if not 0 <= score < math.inf]:
        raise StatsError(f"{strange[0]} is no grade: write a judgment that failed as None.")
    invalid = count_invalid(scores, valid, "grades", allow_invalid)
    n, total = len(valid), math.fsum(valid)
    return GradeSummary(
        n=n,
        mean=total / n,
        bootstrap=bootstrap_interval(valid, seed=seed),
        invalid=invalid,
        worst=(total + LOWEST * invalid) / (n + invalid),
        best=(total + HIGHEST * invalid) / (n + invalid),
    )


def paired_difference(
    a: Iterable[Grade], b: Iterable[Grade], *, seed: int = 0, allow_invalid: bool = False
) -> PairedSummary:
    """How much higher model a is graded than model b on the same questions, matched by id.

    Raises StatsError for ids that come twice or in one list only, and for an invalid grade, unless
    `allow_invalid` leaves out and counts the questions that have one. Taught in 03.
    """
    of_a, of_b = _by_id(a, "a"), _by_id(b, "b")
    if alone := of_a.keys() ^ of_b.keys():
        names = some_of(sorted(alone, key=str))
        raise StatsError(f"Graded for one model only: {names}. Grade both on these.")
    pairs = [(of_a[id].score, of_b[id].score) for id in of_a]
    gains = [x - y for x, y in pairs if x is not None and y is not None]
    invalid = count_invalid(pairs, gains, "questions", allow_invalid)
    wins, losses = sum(gain > 0 for gain in gains), sum(gain < 0 for gain in gains)

    def mean_if(missing_a: int, missing_b: int) -> float:
        return fmean(
            (missing_a if x is None else x) - (missing_b if y is None else y) for x, y in pairs
        )

    return PairedSummary(
        n=len(gains),
        mean=fmean(gains),
        bootstrap=bootstrap_interval(gains, seed=seed),
        wins=wins,
        ties=len(gains) - wins - losses,
        losses=losses,
        sign_test_p=sign_test(wins, losses),
        invalid=invalid,
        worst=mean_if(LOWEST, HIGHEST),
        best=mean_if(HIGHEST, LOWEST),
    )


def _by_id(grades: Iterable[Grade], model: str) -> dict[str, Grade]:
    grades = list(grades)
    twice = [id for id, count in Counter(grade.id for grade in grades).items() if count > 1]
    if twice:
        raise StatsError(f"Model {model} has several grades for one question: {some_of(twice)}.")
    return {grade.id: grade for grade in grades}


def some_of(ids: Sequence[str]) -> str:
    """The first five ids for a message, and how many more there are."""
    more = f" and {len(ids) - 5} more" if len(ids) > 5 else ""
    return ", ".join(map(str, ids[:5])) + more
