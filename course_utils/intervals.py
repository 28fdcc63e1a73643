"""How sure: intervals for shares, win rates and means, an exact test, and how many questions.

Ground floor of `stats`: counts and values in, numbers out, for thousands of questions in a moment.
"""

import math
import random
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Collection
from itertools import accumulate
from statistics import NormalDist, fmean

from course_utils import CourseError


class StatsError(CourseError):
    """The judgments do not support the number asked for, so there is no number."""


def wilson_interval(k: float, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval for k successes in n trials, as shares from 0 to 1.

    k may hold halves, a tie being half a win; but scores of 0, 1/2 and 1 vary less than a coin
    with the same mean, so with ties this interval is too wide: see `win_rate_interval`. Raises
    StatsError without trials. Wilson, JASA 22 (1927).

    >>> [round(limit, 3) for limit in wilson_interval(11, 15)]
    [0.48, 0.891]
    """
    if n < 1 or not 0 <= k <= n:
        raise StatsError(f"An interval needs 0 <= k <= n and n >= 1, not k={k}, n={n}.")
    z = _z(level)
    p, shrink = k / n, 1 + z * z / n
    center = (p + z * z / (2 * n)) / shrink
    margin = z / shrink * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, center - margin), min(1.0, center + margin)


def win_rate_interval(
    wins: float, ties: float, losses: float, level: float = 0.95
) -> tuple[float, float]:
    """Score interval for a win rate with ties: Wilson's when there are none, narrower when many.

    It holds the win rates that the score test of three outcomes does not reject. As the win rate is
    (1 + P(win) - P(loss)) / 2, this is Tango's interval for the difference of two proportions
    measured on the same questions. Raises StatsError without questions. Tango, Statistics in
    Medicine 17 (1998).

    >>> [round(limit, 3) for limit in win_rate_interval(40, 100, 20)]
    [0.515, 0.609]
    """
    n = wins + ties + losses
    if min(wins, ties, losses) < 0 or n <= 0:
        raise StatsError(
            f"An interval needs counts >= 0 of at least one question, not {wins} wins, {ties} ties "
            f"and {losses} losses."
        )
    z, found = _z(level), (wins - losses) / n

    def plausible(lead: float) -> bool:
        """Whether P(win) - P(loss) = lead is not rejected: the likeliest P(loss) given the lead
        is the root of a quadratic, and gives the variance."""
        b = 2 * n * lead - (wins + losses) - (wins - losses) * lead
        c = -losses * lead * (1 - lead)
        loss = (math.sqrt(max(0.0, b * b - 8 * n * c)) - b) / (4 * n)
        variance = n * max(0.0, 2 * loss + lead * (1 - lead))
        return (wins - losses - n * lead) ** 2 <= z * z * variance

    low, high = _edge(plausible, found, -1.0), _edge(plausible, found, 1.0)
    return (1 + low) / 2, (1 + high) / 2


def _edge(holds: Callable[[float], bool], inside: float, outside: float) -> float:
    """Where, on the way from inside to outside, something ceases to hold; by bisection."""
    if holds(outside):
        return outside
    for _ in range(60):
        middle = (inside + outside) / 2
        inside, outside = (middle, outside) if holds(middle) else (inside, middle)
    return inside


def bootstrap_interval(
    values: Collection[float], *, seed: int = 0, resamples: int = 2000, level: float = 0.95
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean, the same for the same values and seed.

    Resamples whole values, so give one value a question; their order does not matter. Raises
    StatsError without values. Efron and Tibshirani, An Introduction to the Bootstrap (1993).
    """
    values = list(values)
    if not values:
        raise StatsError("A bootstrap needs at least one value.")
    if not all(value is not None and math.isfinite(value) for value in values):
        raise StatsError("A bootstrap needs numbers: leave out what failed and count it.")
    rng, n = random.Random(seed), len(values)
    counts = sorted(Counter(values).items())
    if len(counts) <= 3:  # wins, ties, losses: draw how many of each instead of each question
        means = [total / n for total in _resampled_totals(counts, rng, resamples)]
    else:
        values = sorted(values)
        means = [fmean(rng.choices(values, k=n)) for _ in range(resamples)]
    means.sort()
    cut = round((1 - level) / 2 * resamples)
    return means[cut], means[-1 - cut]


def _resampled_totals(
    counts: list[tuple[float, int]], rng: random.Random, resamples: int
) -> list[float]:
    """Sums of n values drawn with replacement from at most three: two binomial draws a sum."""
    (low, few), (middle, some), (high, _) = [(0.0, 0)] * (3 - len(counts)) + counts
    n = sum(count for _, count in counts)
    tables: dict[tuple[int, float], tuple[int, list[float]]] = {}

    def draw(trials: int, p: float) -> int:
        if (trials, p) not in tables:
            tables[trials, p] = _binomial_cdf(trials, p)
        first, cdf = tables[trials, p]
        return first + bisect_left(cdf, rng.random())

    totals = []
    for _ in range(resamples):
        lowest = draw(n, few / n)
        between = draw(n - lowest, some / (n - few)) if n > few else 0
        totals.append(low * lowest + middle * between + high * (n - lowest - between))
    return totals


def _binomial_cdf(n: int, p: float) -> tuple[int, list[float]]:
    """P(at most k successes in n trials) for k = first, first + 1, ... up to 1: (first, shares).

    What lies nine deviations off the mean is left out: it would be drawn once in 10**15 times.
    """
    if p in (0, 1):
        return int(n * p), [1.0]
    reach = 9 * math.sqrt(n * p * (1 - p)) + 9
    first, last = max(0, math.floor(n * p - reach)), min(n, math.ceil(n * p + reach))
    log_p, log_q, whole = math.log(p), math.log1p(-p), math.lgamma(n + 1)
    terms = (
        math.exp(whole - math.lgamma(k + 1) - math.lgamma(n - k + 1) + k * log_p + (n - k) * log_q)
        for k in range(first, last)
    )
    return first, [*accumulate(terms), 1.0]


def sign_test(wins: int, losses: int) -> float:
    """Exact two-sided sign test: how often a fair coin is at least as lopsided; ties say nothing.

    >>> round(sign_test(10, 3), 3)
    0.092
    """
    n = wins + losses
    tail = ways = 1
    for i in range(min(wins, losses)):
        ways = ways * (n - i) // (i + 1)
        tail += ways
    return min(1.0, 2 * tail / 2**n)


def questions_needed(
    win_rate: float, *, half_width: float | None = None, ties: float = 0.0, level: float = 0.95
) -> int:
    """How many questions until the interval leaves out 50%, or is at most `half_width` each side.

    Takes the win rate and the share of ties that will be found. Chance finds a lower win rate every
    other time, so prepare more than this. Raises StatsError when no number is enough.

    >>> questions_needed(0.6), questions_needed(0.6, half_width=0.05)
    (97, 366)
    """
    shares = win_rate - ties / 2, ties, 1 - win_rate - ties / 2
    if min(shares) < -1e-12:
        raise StatsError(f"A win rate of {win_rate:.1%} cannot come with {ties:.1%} ties.")
    if half_width is None and win_rate == 0.5 or half_width is not None and half_width <= 0:
        raise StatsError("No number of questions is enough for that: ask for less certainty.")

    def too_few(n: int) -> bool:
        low, high = win_rate_interval(*(max(0.0, n * share) for share in shares), level)
        if half_width is None:
            return low <= 0.5 <= high
        return (high - low) / 2 > half_width

    enough = 1
    while too_few(enough):
        enough *= 2
    return bisect_left(range(enough), True, lo=enough // 2, key=lambda n: n > 0 and not too_few(n))


def _z(level: float) -> float:
    return NormalDist().inv_cdf((1 + level) / 2)
