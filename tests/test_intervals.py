"""Intervals against published tables, other software, brute force, and 1,000 simulated battles."""

import itertools
import math
import random
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from course_utils.intervals import (
    StatsError,
    bootstrap_interval,
    questions_needed,
    sign_test,
    wilson_interval,
    win_rate_interval,
)
from course_utils.offline.simulated import JudgeTraits
from course_utils.stats import Game, verdict_win_rate

counts = st.tuples(*[st.integers(0, 300)] * 3).filter(any)


# Newcombe, Statistics in Medicine 17 (1998), table I, method 3 (Wilson without continuity).
@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)  # fmt: skip
def test_wilson_against_newcombe(k, n, low, high):
    assert wilson_interval(k, n) == pytest.approx((low, high), abs=5e-5)


@settings(deadline=None)
@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, 2 * n), st.just(n))))
def test_wilson_holds_the_estimate_and_stays_in_range(case):
    halves, n = case
    low, high = wilson_interval(halves / 2, n)
    assert 0 <= low <= halves / 2 / n + 1e-12 and halves / 2 / n <= high + 1e-12 <= 1 + 1e-12


def test_wilson_covers_the_truth_as_often_as_it_says():
    """Exact coverage for 60 questions: about 95% on average over win rates, nowhere far below."""
    n, coverage = 60, []
    intervals = [wilson_interval(k, n) for k in range(n + 1)]
    for p in (i / 200 for i in range(20, 181)):
        probability = [math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1)]
        covered = [low <= p <= high for low, high in intervals]
        coverage.append(sum(x for x, c in zip(probability, covered, strict=True) if c))
    assert sum(coverage) / len(coverage) == pytest.approx(0.95, abs=0.005)
    assert min(coverage) > 0.92


@pytest.mark.parametrize(("k", "n"), [(0, 0), (3, 2), (-1, 4)])
def test_wilson_refuses_the_impossible(k, n):
    with pytest.raises(StatsError, match=f"k={k}, n={n}"):
        wilson_interval(k, n)


def test_sign_test_against_brute_force():
    assert sign_test(0, 0) == 1
    for n in range(1, 11):
        flips = [sum(c) for c in itertools.product([0, 1], repeat=n)]
        for wins in range(n + 1):
            extreme = abs(wins - n / 2)
            p = sum(abs(f - n / 2) >= extreme for f in flips) / 2**n
            assert sign_test(wins, n - wins) == pytest.approx(p)


# statsmodels 0.15.0, proportion_confint(k, n, method="wilson"). 90 of 179: Alpaca's blind
# comparison, 90 wins to 89; 11 of 15: the seed course's questions.
@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    [
        (90, 179, 0.4302619629217492, 0.5752072561845185),
        (11, 15, 0.48049565944019423, 0.8910254667430763),
        (402.5, 805, 0.4655422914404002, 0.5344577085595998),
        (0, 10, 0.0, 0.27753279986288926),
        (4321, 5000, 0.8544243819032877, 0.8734164239999327),
    ],
)
def test_wilson_against_statsmodels(k, n, low, high):
    assert wilson_interval(k, n) == pytest.approx((low, high), abs=1e-12)


# Tango's interval for the difference of paired proportions: Fagerland et al., Statistics in
# Medicine 33 (2014), airway data; Agresti and Min, Statistics in Medicine 24 (2005). Both as
# repeated in the tests of the R package ratesci.
@pytest.mark.parametrize(
    ("wins", "ties", "losses", "low", "high"),
    [(1, 13, 7, -0.517, -0.026), (16, 62, 8, -0.020, 0.207)],
)
def test_win_rate_interval_against_published_differences(wins, ties, losses, low, high):
    found = [2 * limit - 1 for limit in win_rate_interval(wins, ties, losses)]
    assert found == pytest.approx([low, high], abs=5e-4)


@settings(deadline=None)
@given(counts)
def test_without_ties_the_win_rate_interval_is_wilsons(found):
    wins, _, losses = found
    if wins + losses:
        expected = wilson_interval(wins, wins + losses)
        assert win_rate_interval(wins, 0, losses) == pytest.approx(expected, abs=1e-9)


@settings(deadline=None)
@given(counts)
def test_the_win_rate_interval_mirrors_and_holds_the_rate(found):
    wins, ties, losses = found
    low, high = win_rate_interval(wins, ties, losses)
    assert 0 <= low <= (wins + ties / 2) / sum(found) <= high <= 1
    mirrored = win_rate_interval(losses, ties, wins)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=1e-9)
    wider = wilson_interval(wins + ties / 2, sum(found))
    assert high - low <= wider[1] - wider[0] + 1e-9  # ties vary less than coins


def test_the_win_rate_interval_is_the_score_test_turned_round():
    """At each limit, the likeliest shares with that win rate lie z deviations from the data."""
    for wins, ties, losses in [(10, 2, 3), (40, 100, 20), (3, 30, 0)]:
        n = wins + ties + losses
        for limit in win_rate_interval(wins, ties, losses):
            lead = 2 * limit - 1

            def likelihood(loss, lead=lead, counts=(wins, ties, losses)):
                shares = (loss + lead, 1 - lead - 2 * loss, loss)
                return sum(k * math.log(p) for k, p in zip(counts, shares, strict=True) if k)

            grid = [max(0, -lead) + (1 - abs(lead)) / 2 * i / 20_000 for i in range(1, 20_000)]
            loss = max(grid, key=likelihood)
            variance = n * (2 * loss + lead - lead**2)
            assert abs(wins - losses - n * lead) / math.sqrt(variance) == pytest.approx(
                1.96, rel=2e-3
            )


@pytest.mark.parametrize("found", [(0, 0, 0), (-1, 2, 3)])
def test_a_win_rate_interval_needs_questions(found):
    with pytest.raises(StatsError, match=f"{found[0]} wins"):
        win_rate_interval(*found)


# --- 1,000 simulated battles ------------------------------------------------------------------

WORLDS = {  # how often a, neither and b is truly better
    "equal models": (0.3, 0.4, 0.3),
    "a better model": (0.5, 0.4, 0.1),
    "tuned against base": (0.7, 0.27, 0.03),  # about what the micro-world gives
    "mostly ties": (0.1, 0.8, 0.1),
    "hardly a tie": (0.55, 0.05, 0.4),
}
TRAITS = JudgeTraits(position_bias=0.8, noise=0.01)


@cache
def resample(wins, ties, losses):
    return bootstrap_interval([1.0] * wins + [0.5] * ties + [0.0] * losses)


def verdict(better, order, rng, traits=TRAITS):
    """What the simulated judge says: position when it cannot tell, now and then another verdict."""
    said = order[0] if better == "tie" and rng.random() < traits.position_bias else better
    if rng.random() < traits.noise:
        said = rng.choice([other for other in ("a", "b", "tie") if other != said])
    return said


@pytest.mark.parametrize("world", WORLDS)
def test_intervals_cover_the_truth_in_95_of_100_battles_in_spite_of_position_bias(world):
    """1,000 battles of 100 questions each; the truth is the win rate that a judge without bias
    and noise would give over all questions of the world, of which a battle draws 100.
    """
    rng, shares, n = random.Random(5), WORLDS[world], 100
    truth = shares[0] + shares[1] / 2
    covered, missed_by_one_order = {"score": 0, "bootstrap": 0, "wilson": 0}, 0
    for _ in range(1000):
        battle = [
            Game("q", verdict(better, "ab", rng), verdict(better, "ba", rng), 1, 1)
            for better in rng.choices(("a", "tie", "b"), shares, k=n)
        ]
        scores = [game.score for game in battle]
        found = [scores.count(score) for score in (1, 0.5, 0)]
        intervals = {
            "score": win_rate_interval(*found),
            "bootstrap": resample(*found),
            "wilson": wilson_interval(sum(scores), n),
        }
        for name, (low, high) in intervals.items():
            covered[name] += low <= truth <= high
        low, high = verdict_win_rate(game.first for game in battle).interval
        missed_by_one_order += not low <= truth <= high
    assert 930 <= covered["score"] <= 970 and 930 <= covered["bootstrap"] <= 970, covered
    if shares[1] >= 0.25:  # Wilson takes a tie for half a coin: never too narrow, but too wide
        assert covered["wilson"] > 970
        assert missed_by_one_order > 800


def outcomes(shares, traits):
    """P(win), P(tie) and P(loss) of a question under the simulated judge, both orders together."""
    won = lost = 0.0
    for better, share in zip(("a", "tie", "b"), shares, strict=True):
        said = []
        for order in ("ab", "ba"):
            clean = {better: 1.0}
            if better == "tie":
                clean = {order[0]: traits.position_bias, "tie": 1 - traits.position_bias}
            said.append({
                verdict: (1 - traits.noise) * clean.get(verdict, 0)
                + traits.noise / 2 * (1 - clean.get(verdict, 0))
                for verdict in ("a", "b")
            })  # fmt: skip
        won += share * said[0]["a"] * said[1]["a"]
        lost += share * said[0]["b"] * said[1]["b"]
    return won, 1 - won - lost, lost


@pytest.mark.parametrize("bias", [0.0, 0.8, 1.0])
def test_the_estimate_is_unbiased_whatever_the_position_bias(bias):
    for shares in WORLDS.values():
        won, tied, _ = outcomes(shares, JudgeTraits(position_bias=bias, noise=0.0))
        assert won + tied / 2 == pytest.approx(shares[0] + shares[1] / 2)
        # Noise pulls towards 1/2, by about 2 verdicts times half a win where there is a winner.
        won, tied, _ = outcomes(shares, JudgeTraits(position_bias=bias, noise=0.01))
        pull = won + tied / 2 - (shares[0] + shares[1] / 2)
        assert abs(pull) < 0.011 * abs(shares[0] - shares[2]) + 1e-9


@pytest.mark.parametrize("shares", [(0.5, 0.4, 0.1), (0.85, 0.1, 0.05), (0.1, 0.8, 0.1)])
def test_exact_coverage_without_chance(shares):
    """All outcomes of 100 questions with their probabilities: 95% to within a point."""
    n, truth = 100, shares[0] + shares[1] / 2
    logs = [math.log(share) for share in shares]
    covered = 0.0
    for wins, losses in itertools.product(range(n + 1), repeat=2):
        found = (wins, n - wins - losses, losses)
        if found[1] < 0:
            continue
        chance = math.lgamma(n + 1) + sum(
            k * log - math.lgamma(k + 1) for k, log in zip(found, logs, strict=True)
        )
        if chance > -20:
            low, high = win_rate_interval(*found)
            covered += math.exp(chance) * (low <= truth <= high)
    assert covered == pytest.approx(0.95, abs=0.01)


# --- bootstrap, sign test, how many questions -------------------------------------------------


def test_bootstrap_is_deterministic_and_close_to_theory():
    rng = random.Random(0)
    numbers = [rng.random() for _ in range(50)]
    assert bootstrap_interval(numbers, seed=3) == bootstrap_interval(numbers, seed=3)
    assert bootstrap_interval(numbers, seed=3) != bootstrap_interval(numbers, seed=4)
    values = [0.0] * 40 + [1.0] * 60
    half = 1.96 * math.sqrt(0.6 * 0.4 / 100)
    assert bootstrap_interval(values) == pytest.approx((0.6 - half, 0.6 + half), abs=0.02)
    assert bootstrap_interval([7, 7, 7]) == (7, 7)
    with pytest.raises(StatsError):
        bootstrap_interval([])


# scipy 1.17.1, stats.bootstrap(method="percentile", n_resamples=200_000)
@pytest.mark.parametrize(
    ("found", "low", "high"),
    [
        ((40, 100, 20), 0.515625, 0.609375),
        ((60, 20, 20), 0.62, 0.775),
        ((20, 30, 50), 0.275, 0.43),
    ],
)
def test_bootstrap_against_scipy(found, low, high):
    values = [s for s, count in zip((1.0, 0.5, 0.0), found, strict=True) for _ in range(count)]
    assert bootstrap_interval(values) == pytest.approx((low, high), abs=0.008)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=1, max_size=60), st.randoms())
def test_the_order_of_the_questions_does_not_matter(values, rng):
    shuffled = rng.sample(values, len(values))
    assert bootstrap_interval(values) == bootstrap_interval(shuffled)
    grades = [value + i % 4 for i, value in enumerate(values)]
    assert bootstrap_interval(grades) == bootstrap_interval(rng.sample(grades, len(grades)))


def test_drawing_counts_is_drawing_questions():
    """Two or three distinct values take another way than many do; they must come out the same."""
    rng = random.Random(2)
    values = [0.0] * 30 + [0.5] * 20 + [1.0] * 50
    means = sorted(sum(rng.choices(values, k=100)) / 100 for _ in range(20_000))
    one_by_one = means[500], means[-501]
    assert bootstrap_interval(values, resamples=20_000) == pytest.approx(one_by_one, abs=0.0051)
    assert bootstrap_interval([3.0] * 5 + [4.0] * 5) == pytest.approx((3.2, 3.8), abs=0.11)


def test_thousands_of_questions_take_a_moment():
    import time

    start = time.process_time()
    low, high = bootstrap_interval([0.0] * 2000 + [0.5] * 3000 + [1.0] * 5000)
    assert time.process_time() - start < 2
    assert (low, high) == pytest.approx(win_rate_interval(5000, 3000, 2000), abs=0.001)


# scipy 1.17.1, stats.binomtest(k, n).pvalue
@pytest.mark.parametrize(
    ("wins", "losses", "p"),
    [(90, 89, 1.0), (10, 3, 0.09228515625), (300, 220, 0.0005194158496652906)],
)
def test_sign_test_against_scipy(wins, losses, p):
    assert sign_test(wins, losses) == pytest.approx(p, rel=1e-12)
    assert sign_test(losses, wins) == pytest.approx(p, rel=1e-12)


@pytest.mark.parametrize("ties", [0.0, 0.3])
@pytest.mark.parametrize("half_width", [None, 0.1, 0.05])
@pytest.mark.parametrize("rate", [0.55, 0.6, 0.8])
def test_questions_needed_is_enough_and_one_less_is_not(rate, half_width, ties):
    n = questions_needed(rate, half_width=half_width, ties=ties)

    def enough(n):
        shares = rate - ties / 2, ties, 1 - rate - ties / 2
        low, high = win_rate_interval(*(n * share for share in shares))
        return low > 0.5 if half_width is None else (high - low) / 2 <= half_width

    assert enough(n) and not enough(n - 1)


def test_questions_needed_by_the_formula_of_the_score_test():
    for rate in (0.52, 0.4, 0.9):
        exact = 1.959964**2 / 4 / (rate - 0.5) ** 2
        assert questions_needed(rate) == math.ceil(exact)
    assert questions_needed(0.6, half_width=0.05) == pytest.approx(
        1.96**2 * 0.24 / 0.05**2, rel=0.02
    )
    assert questions_needed(0.55, ties=0.5) < questions_needed(0.55)


def test_questions_needed_says_when_no_number_is_enough():
    with pytest.raises(StatsError, match="No number of questions"):
        questions_needed(0.5)
    with pytest.raises(StatsError, match="No number of questions"):
        questions_needed(0.6, half_width=0)
    with pytest.raises(StatsError, match="90.0% cannot come with 30.0% ties"):
        questions_needed(0.9, ties=0.3)
