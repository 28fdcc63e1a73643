"""How much better, and how sure: pure functions over judgments, without a client and without luck.

The unit is the question. A battle asks about each question twice, with the two answers in either
order, and those two verdicts make one result: 60 questions are 60 observations, not 120.
"""

import math
import random
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean
from typing import Any, Literal

from course_utils import CourseError

Verdict = Literal["a", "b", "tie"]
"""Who is better, in terms of the two models, never of the positions they were shown in."""

POINTS = {"a": 1, "tie": 0, "b": -1}


class StatsError(CourseError):
    """The judgments do not support the number asked for, so there is no number."""


@dataclass(frozen=True)
class Game:
    """One question judged in both orders: `first` with a shown first, `second` with b shown first.

    None is an invalid judgment. `len_a` and `len_b` are the answers' lengths in characters.
    """

    id: str
    first: Verdict | None
    second: Verdict | None
    len_a: int
    len_b: int

    def __post_init__(self):
        for verdict in (self.first, self.second):
            if verdict is not None and verdict not in POINTS:
                raise StatsError(
                    f"Game {self.id}: a verdict is 'a', 'b', 'tie' or None, not {verdict!r}."
                )

    @property
    def score(self) -> float | None:
        """1 for a win of a, 0 for a loss, 0.5 for a tie, None when a verdict is invalid.

        The two verdicts count together: a+a and a+tie are wins, b+b and b+tie losses. A
        contradiction (a+b) says that the judge could not tell, so it is a tie like tie+tie.
        """
        if self.first is None or self.second is None:
            return None
        points = POINTS[self.first] + POINTS[self.second]
        return 0.5 if points == 0 else float(points > 0)


@dataclass(frozen=True)
class Grade:
    """One answer's grade from 1 to 10 and the judge's reason; score None is an invalid judgment."""

    id: str
    score: int | None
    reason: str = ""


@dataclass(frozen=True)
class BattleSummary:
    """What a battle shows about model a; intervals are 95%, rates run from 0 to 1.

    n counts the valid questions = wins + ties + losses; contradictions are among the ties.
    consistency: share of questions whose two verdicts are equal. first_position_rate: share of the
    verdicts that named somebody and named the answer shown first (0.5 is fair). longer_win_rate:
    share of the won or lost questions that the longer answer won. The last two are None when no
    question qualifies.
    """

    n: int
    wins: int
    ties: int
    losses: int
    contradictions: int
    invalid: int
    win_rate: float
    wilson: tuple[float, float]
    bootstrap: tuple[float, float]
    sign_test_p: float
    consistency: float
    first_position_rate: float | None
    longer_win_rate: float | None

    def __str__(self) -> str:
        low, high = self.wilson
        return (
            f"win rate {self.win_rate:.1%} (95% interval {low:.1%} to {high:.1%}): "
            f"{self.wins} wins, {self.ties} ties, {self.losses} losses on {self.n} questions, "
            f"{self.invalid} invalid; sign test p = {self.sign_test_p:.2g}"
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
    wilson: tuple[float, float]


@dataclass(frozen=True)
class GradeSummary:
    """Mean grade of the n valid judgments with its 95% bootstrap interval."""

    n: int
    mean: float
    bootstrap: tuple[float, float]
    invalid: int


def summarize_battle(
    games: Iterable[Game], *, seed: int = 0, allow_invalid: bool = False
) -> BattleSummary:
    """Summarize a battle from the side of model a; a question is won, lost or tied as a whole.

    Raises StatsError when a judgment is invalid, unless `allow_invalid` leaves those questions out
    (and counts them). Taught in 03.
    """
    games = list(games)
    valid = [game for game in games if game.score is not None]
    invalid = _count_invalid(games, valid, "questions", allow_invalid)
    scores = [game.score for game in valid]
    wins, ties, losses = (scores.count(s) for s in (1.0, 0.5, 0.0))
    # In terms of positions: a stands first in the first order, b in the second.
    named_first = [game.first == "a" for game in valid if game.first != "tie"]
    named_first += [game.second == "b" for game in valid if game.second != "tie"]
    longer_won = [
        (game.len_a > game.len_b) == (game.score == 1)
        for game in valid
        if game.score != 0.5 and game.len_a != game.len_b
    ]
    return BattleSummary(
        n=len(valid),
        wins=wins,
        ties=ties,
        losses=losses,
        contradictions=sum({game.first, game.second} == {"a", "b"} for game in valid),
        invalid=invalid,
        win_rate=fmean(scores),
        wilson=wilson_interval(wins + ties / 2, len(valid)),
        bootstrap=bootstrap_interval(scores, seed=seed),
        sign_test_p=sign_test(wins, losses),
        consistency=fmean(game.first == game.second for game in valid),
        first_position_rate=fmean(named_first) if named_first else None,
        longer_win_rate=fmean(longer_won) if longer_won else None,
    )


def verdict_win_rate(
    verdicts: Iterable[Verdict | None], *, allow_invalid: bool = False
) -> VerdictSummary:
    """Win rate of a from the verdicts of one order alone, as a judge asked once would report it.

    Raises StatsError when a verdict is invalid (None), unless `allow_invalid` leaves it out.
    """
    verdicts = list(verdicts)
    valid = [verdict for verdict in verdicts if verdict is not None]
    invalid = _count_invalid(verdicts, valid, "verdicts", allow_invalid)
    wins, ties, losses = (valid.count(v) for v in ("a", "tie", "b"))
    won = wins + ties / 2
    interval = wilson_interval(won, len(valid))
    return VerdictSummary(len(valid), wins, ties, losses, invalid, won / len(valid), interval)


def summarize_grades(
    grades: Iterable[Grade | float | None], *, seed: int = 0, allow_invalid: bool = False
) -> GradeSummary:
    """Mean grade with a bootstrap interval over the questions; takes Grades or bare scores.

    Raises StatsError when a grade is invalid, unless `allow_invalid` leaves it out and counts it.
    """
    scores = [grade.score if isinstance(grade, Grade) else grade for grade in grades]
    valid = [score for score in scores if score is not None]
    invalid = _count_invalid(scores, valid, "grades", allow_invalid)
    return GradeSummary(len(valid), fmean(valid), bootstrap_interval(valid, seed=seed), invalid)


def exact_match(reply: str, reference: str) -> bool:
    """Whether the first line of a reply is the reference, white space at its ends apart.

    The first line, because a base model that never learned to stop goes on after its answer: this
    judges it generously. exact_match("4\nand then", "4") -> True. Taught in 03, section 2.
    """
    lines = reply.strip().splitlines()
    return bool(lines) and lines[0].strip() == reference.strip()


def stop_rate(replies: Iterable[Any]) -> float:
    """Share of generated replies that ended by themselves, not at the limit of new tokens.

    Takes what `inference.generate` returns: objects with `stopped`. Raises StatsError without any.
    """
    stopped = [reply.stopped for reply in replies]
    if not stopped:
        raise StatsError("A stop rate needs at least one reply.")
    return fmean(stopped)


def repetition_rate(texts: Iterable[str], *, n: int = 4, times: int = 3) -> float:
    """Share of replies in which the same n words in a row, white space apart, come `times` times.

    Four words that come three times are how a model that has lost its thread sounds; people
    hardly ever write so. Raises StatsError without a reply.

    >>> repetition_rate(["네, 알겠습니다.", "비가 오면 나는 비가 오면 나는 비가 오면 나는 비가"])
    0.5
    """
    repeated = []
    for text in texts:
        words = text.split()
        grams = Counter(tuple(words[at : at + n]) for at in range(len(words) - n + 1))
        repeated.append(max(grams.values(), default=0) >= times)
    if not repeated:
        raise StatsError("A repetition rate needs at least one reply.")
    return fmean(repeated)


def wilson_interval(k: float, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval for k successes in n trials, as shares from 0 to 1.

    k may hold halves: a tie is half a win. Scores of 0, 1/2 and 1 vary less than a coin with the
    same mean, so with ties the interval is too wide rather than too narrow. Raises StatsError
    without trials. Wilson, JASA 22 (1927).

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


def bootstrap_interval(
    values: Collection[float], *, seed: int = 0, resamples: int = 2000, level: float = 0.95
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean, the same for the same values and seed.

    Resamples whole values, so give one value a question. Raises StatsError without values.
    """
    values = list(values)
    if not values:
        raise StatsError("A bootstrap needs at least one value.")
    rng = random.Random(seed)
    means = sorted(fmean(rng.choices(values, k=len(values))) for _ in range(resamples))
    cut = round((1 - level) / 2 * resamples)
    return means[cut], means[-1 - cut]


def sign_test(wins: int, losses: int) -> float:
    """Exact two-sided sign test: how often a fair coin is at least as lopsided; ties say nothing.

    >>> round(sign_test(10, 3), 3)
    0.092
    """
    n = wins + losses
    tail = sum(math.comb(n, i) for i in range(min(wins, losses) + 1))
    return min(1.0, 2 * tail / 2**n)


def cohen_kappa(a: Sequence[Any], b: Sequence[Any]) -> float:
    """Agreement of two raters beyond chance: 1 is perfect, 0 is what chance gives.

    Raises StatsError for lists of unequal length, an invalid label (None), or a kappa that does not
    exist because both raters gave one and the same label throughout. Cohen (1960).

    >>> cohen_kappa(["a", "a", "b", "b"], ["a", "b", "b", "b"])
    0.5
    """
    if len(a) != len(b) or not a:
        raise StatsError(f"Kappa compares labels in pairs, but there are {len(a)} and {len(b)}.")
    if None in a or None in b:
        raise StatsError("Kappa needs valid labels: leave out the pairs with None and count them.")
    n = len(a)
    # In whole numbers: observed and expected agreement, both times n * n.
    observed = n * sum(x == y for x, y in zip(a, b, strict=True))
    expected = sum(list(a).count(label) * list(b).count(label) for label in set(a))
    if expected == n * n:
        raise StatsError("Kappa is undefined: both raters gave one and the same label throughout.")
    return (observed - expected) / (n * n - expected)


def bradley_terry(
    games: Mapping[tuple[str, str], Iterable[Game]], *, allow_invalid: bool = False
) -> dict[str, float]:
    """Strengths of several models from their battles: {("tuned", "base"): games} -> log-strengths.

    Model x beats y with probability 1 / (1 + exp(strength[y] - strength[x])); the strengths have
    mean 0, and a tie is half a win for each. Raises StatsError for invalid judgments, and when some
    models never lost to the others, for then no finite strength fits. Hunter, Ann. Stat. 32 (2004).
    """
    won: dict[str, dict[str, float]] = {}  # won[x][y]: questions that x won against y
    for (a, b), battle in games.items():
        battle = list(battle)
        scores = [game.score for game in battle if game.score is not None]
        _count_invalid(battle, scores, f"questions of {a} against {b}", allow_invalid)
        for x, y, points in [(a, b, sum(scores)), (b, a, len(scores) - sum(scores))]:
            row = won.setdefault(x, {})
            row[y] = row.get(y, 0) + points
    if not won:
        raise StatsError("Bradley-Terry needs at least one battle.")
    _refuse_unbeaten(won)
    strength = dict.fromkeys(won, 1.0)
    for _ in range(10_000):
        update = {}
        for x, row in won.items():
            faced = sum((row[y] + won[y][x]) / (strength[x] + strength[y]) for y in row)
            update[x] = sum(row.values()) / faced
        mean = fmean(math.log(s) for s in update.values())
        update = {x: s / math.exp(mean) for x, s in update.items()}
        moved = max(abs(math.log(update[x] / strength[x])) for x in won)
        strength = update
        if moved < 1e-10:
            break
    return {x: math.log(s) for x, s in strength.items()}


def _refuse_unbeaten(won: dict[str, dict[str, float]]) -> None:
    """Every model must have lost to every other, at least through a chain of losses."""
    for start in won:
        reached, frontier = {start}, [start]
        while frontier:
            x = frontier.pop()
            new = {y for y, points in won[x].items() if points > 0} - reached
            reached |= new
            frontier += new
        if unbeaten := sorted(won.keys() - reached):
            raise StatsError(
                f"Bradley-Terry has no finite answer: {', '.join(unbeaten)} never lost to {start}, "
                "not even through other models; add battles between them."
            )


def _count_invalid(everything: Collection, valid: Collection, what: str, allowed: bool) -> int:
    invalid = len(everything) - len(valid)
    if invalid and not allowed:
        raise StatsError(
            f"{invalid} of {len(everything)} {what} have an invalid judgment: judge them again, or "
            "pass allow_invalid=True to leave them out and report their number."
        )
    if not valid:
        raise StatsError(f"There are no valid {what} to summarize.")
    return invalid
