"""Statistics against published tables, other software, brute force, and 1,000 simulated battles."""

import itertools
import math
import random
import unicodedata
from collections import Counter
from decimal import Decimal
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from course_utils import REPO
from course_utils.offline.simulated import JudgeTraits
from course_utils.stats import (
    Game,
    Grade,
    StatsError,
    bootstrap_interval,
    cohen_kappa,
    exact_match,
    paired_difference,
    questions_needed,
    sign_test,
    summarize_battle,
    summarize_grades,
    verdict_win_rate,
    wilson_interval,
    win_rate_interval,
)
from course_utils.tasks import read_tasks

VERDICTS = ["a", "b", "tie"]

# --- intervals and a test ---------------------------------------------------------------------

counts = st.tuples(*[st.integers(0, 300)] * 3).filter(any)


# Newcombe, Statistics in Medicine 17 (1998), table I, method 3 (Wilson without continuity); then
# statsmodels 0.15.0, proportion_confint(k, n, method="wilson"). 90 of 179: Alpaca's blind
# comparison, 90 wins to 89; 11 of 15: the seed course's questions.
@pytest.mark.parametrize(("k", "n", "low", "high", "off"), [
    (81, 263, 0.2553, 0.3662, 5e-5),
    (15, 148, 0.0624, 0.1605, 5e-5),
    (0, 20, 0, 0.1611, 5e-5),
    (1, 29, 0.0061, 0.1718, 5e-5),
    (90, 179, 0.4302619629217492, 0.5752072561845185, 1e-12),
    (11, 15, 0.48049565944019423, 0.8910254667430763, 1e-12),
    (402.5, 805, 0.4655422914404002, 0.5344577085595998, 1e-12),
    (0, 10, 0.0, 0.27753279986288926, 1e-12),
    (4321, 5000, 0.8544243819032877, 0.8734164239999327, 1e-12),
])
def test_wilson_against_newcombe_and_statsmodels(k, n, low, high, off):
    assert wilson_interval(k, n) == pytest.approx((low, high), abs=off)


@settings(deadline=None)
@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, 2 * n), st.just(n))))
def test_wilson_holds_the_estimate_and_stays_in_range(case):
    halves, n = case
    low, high = wilson_interval(halves / 2, n)
    assert 0 <= low <= halves / 2 / n + 1e-12 and halves / 2 / n <= high + 1e-12 <= 1 + 1e-12


def test_sign_test_against_brute_force():
    assert sign_test(0, 0) == 1
    for n in range(1, 11):
        flips = [sum(c) for c in itertools.product([0, 1], repeat=n)]
        for wins in range(n + 1):
            extreme = abs(wins - n / 2)
            p = sum(abs(f - n / 2) >= extreme for f in flips) / 2**n
            assert sign_test(wins, n - wins) == pytest.approx(p)


# Tango's interval for the difference of paired proportions: Fagerland et al., Statistics in
# Medicine 33 (2014), airway data; Agresti and Min, Statistics in Medicine 24 (2005). Both as
# repeated in the tests of the R package ratesci.
@pytest.mark.parametrize(("wins", "ties", "losses", "low", "high"), [
    (1, 13, 7, -0.517, -0.026), (16, 62, 8, -0.020, 0.207)])  # fmt: skip
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


@pytest.mark.parametrize("found", [(10, 2, 3), (40, 100, 20), (3, 30, 0)])
@pytest.mark.parametrize("end", [0, 1])
def test_the_win_rate_interval_is_the_score_test_turned_round(found, end):
    """At each limit, the likeliest shares with that win rate lie z deviations from the data."""
    lead, n = 2 * win_rate_interval(*found)[end] - 1, sum(found)

    def likelihood(loss):
        shares = (loss + lead, 1 - lead - 2 * loss, loss)
        return sum(k * math.log(p) for k, p in zip(found, shares, strict=True) if k)

    grid = [max(0, -lead) + (1 - abs(lead)) / 2 * i / 20_000 for i in range(1, 20_000)]
    variance = n * (2 * max(grid, key=likelihood) + lead - lead**2)
    z = abs(found[0] - found[2] - n * lead) / math.sqrt(variance)
    assert z == pytest.approx(1.96, rel=2e-3)


def test_the_win_rate_interval_where_nobody_lost_or_nobody_won():
    """At the edges and in the middle, where the score test says nothing about the rate found."""
    z2 = 1.959963984540054**2
    assert win_rate_interval(10, 0, 0) == pytest.approx((10 / (10 + z2), 1), abs=1e-9)
    assert win_rate_interval(0, 0, 10) == pytest.approx((0, z2 / (10 + z2)), abs=1e-9)
    half = z2 / (30 + z2) / 2
    assert win_rate_interval(0, 30, 0) == pytest.approx((0.5 - half, 0.5 + half), abs=1e-9)


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
    truth, covered = shares[0] + shares[1] / 2, Counter()
    for _ in range(1000):
        battle = [Game("q", verdict(better, "ab", rng), verdict(better, "ba", rng), 1, 1)
                  for better in rng.choices(("a", "tie", "b"), shares, k=n)]
        scores = [game.score for game in battle]
        found = [scores.count(score) for score in (1, 0.5, 0)]
        for name, (low, high) in {
                "score": win_rate_interval(*found), "bootstrap": resample(*found),
                "wilson": wilson_interval(sum(scores), n),
                "one order": verdict_win_rate(game.first for game in battle).interval}.items():
            covered[name] += low <= truth <= high
    assert 930 <= covered["score"] <= 970 and 930 <= covered["bootstrap"] <= 970, covered
    if shares[1] >= 0.25:  # Wilson takes a tie for half a coin: never too narrow, but too wide
        assert covered["wilson"] > 970 and covered["one order"] < 200


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


@pytest.mark.parametrize("half_width", [None, 0.1, 0.05])
@pytest.mark.parametrize("rate", [0.3, 0.55, 0.6, 0.8])
def test_questions_needed_is_enough_and_one_less_is_not(rate, half_width):
    def enough(n):
        low, high = win_rate_interval(n * rate, 0, n * (1 - rate))
        leaves_half = low > 0.5 or high < 0.5
        return leaves_half if half_width is None else (high - low) / 2 <= half_width

    n = questions_needed(rate, half_width=half_width)
    assert enough(n) and not enough(n - 1)
    assert questions_needed(0.6) == 97 and questions_needed(0.6, half_width=0.05) == 366


NO_NUMBERS = [math.nan, math.inf, -math.inf, True, False, np.True_, np.float64("nan"), "7", None,
              [7], Decimal(7), -1]


@pytest.mark.parametrize("value", NO_NUMBERS)
@pytest.mark.parametrize("statistic", [
    lambda value: wilson_interval(value, 10), lambda value: wilson_interval(5, value),
    lambda value: win_rate_interval(value, 1, 1), lambda value: win_rate_interval(1, value, 1),
    lambda value: win_rate_interval(1, 1, value), lambda value: sign_test(value, 3),
    lambda value: sign_test(3, value), lambda value: questions_needed(value),
    lambda value: Game("q", "a", "a", value, 1), lambda value: Game("q", "a", "a", 1, value)])
def test_what_is_no_number_gives_no_statistic(statistic, value):
    with pytest.raises(StatsError):
        statistic(value)


@pytest.mark.parametrize("value", [value for value in NO_NUMBERS if value not in ("7", None)])
def test_what_is_no_grade_verdict_or_text_is_none_either(value):
    for make in (lambda value: Grade("q", value), lambda value: Game("q", value, "a", 1, 1),
                 lambda value: verdict_win_rate(["a", value]),
                 lambda value: questions_needed(0.6, half_width=value),
                 lambda value: exact_match(value, "7"), lambda value: exact_match("7", value)):
        with pytest.raises(StatsError):
            make(value)


@pytest.mark.parametrize("refused", [
    lambda: wilson_interval(0, 0), lambda: wilson_interval(3, 2), lambda: wilson_interval(0.2, 0.5),
    lambda: win_rate_interval(0, 0, 0), lambda: sign_test(1.5, 2), lambda: bootstrap_interval([]),
    lambda: questions_needed(1.2), lambda: questions_needed(0.6, half_width=2),
    *(lambda value=value: bootstrap_interval([0.5, value]) for value in NO_NUMBERS[:-1]),
    lambda: Grade("q", 99), lambda: Grade("q", 10.5), lambda: Grade("q", 0.5),
    lambda: Game("q", "a", "a", 1.5, 1), lambda: Game("q", "a", "b ", 1, 1)])
def test_a_number_out_of_range_gives_no_statistic(refused):
    with pytest.raises(StatsError):
        refused()


@pytest.mark.parametrize(("rate", "half_width"), [(0.5, None), (0.6, 0)])
def test_questions_needed_says_when_no_number_is_enough(rate, half_width):
    with pytest.raises(StatsError, match="No number of questions"):
        questions_needed(rate, half_width=half_width)


def test_numbers_of_numpy_are_numbers():
    assert wilson_interval(np.int64(11), np.float64(15)) == pytest.approx(wilson_interval(11, 15))
    assert sign_test(np.int64(10), 3) == sign_test(10, 3)
    assert summarize_grades([Grade("q", np.float32(7))]).mean == 7
    assert bootstrap_interval(np.array([1.0, 2.0, 3.0])) == bootstrap_interval([1, 2, 3])


# --- battles ----------------------------------------------------------------------------------


def games(*pairs, len_a=10, len_b=10):
    return [Game(f"q{i}", *pair, len_a, len_b) for i, pair in enumerate(pairs)]


# aiqwe/instruction-tuning-with-rag-example, its 15 questions in two orders: B in the first order
# and A in the second name the tuned model. It counts verdicts: 22 of 30 = 73.33%.
SEED_COURSE = "AB BA BA BA BB BA BA AA AB BA BA BA BA BA AB".split()
SEED_GAMES = games(*[({"A": "b", "B": "a"}[x], {"A": "a", "B": "b"}[y]) for x, y in SEED_COURSE])


def test_seed_course_counted_by_question():
    summary = summarize_battle(SEED_GAMES)
    assert (summary.wins, summary.ties, summary.losses) == (10, 2, 3)
    assert summary.contradictions == 2 and summary.n == 15 and summary.invalid == 0
    assert summary.win_rate == pytest.approx(22 / 30)
    assert summary.wilson == pytest.approx((0.48, 0.89), abs=0.005)
    assert summary.sign_test_p == pytest.approx(0.0923, abs=5e-5)
    assert summary.consistency == pytest.approx(13 / 15)
    assert summary.interval == win_rate_interval(10, 2, 3) and summary.interval[0] < 0.5
    said = "10 wins, 2 ties (2 of them contradictions), 3 losses on 15 questions, 0 invalid"
    assert said in str(summary)


@pytest.mark.parametrize(("first", "second", "score"), [
    ("a", "a", 1), ("a", "tie", 0.5), ("tie", "a", 0.5),
    ("b", "b", 0), ("b", "tie", 0.5), ("tie", "b", 0.5),
    ("a", "b", 0.5), ("b", "a", 0.5), ("tie", "tie", 0.5),
    (None, "a", None), ("b", None, None), (None, None, None)])  # fmt: skip
def test_score_of_one_question(first, second, score):
    assert Game("q", first, second, 1, 1).score == score


def test_a_verdict_in_terms_of_positions_is_refused():
    with pytest.raises(StatsError, match="q7.*'A'"):
        Game("q7", "A", "b", 1, 1)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.sampled_from(VERDICTS), st.sampled_from(VERDICTS)), min_size=1))
def test_swapping_the_models_mirrors_the_summary(pairs):
    mirror = {"a": "b", "b": "a", "tie": "tie"}
    one = summarize_battle([Game("q", x, y, 3, 5) for x, y in pairs])
    # With the models swapped, the order that showed a first now shows b first.
    other = summarize_battle([Game("q", mirror[y], mirror[x], 5, 3) for x, y in pairs])
    assert (one.wins, one.ties, one.losses) == (other.losses, other.ties, other.wins)
    assert one.win_rate == pytest.approx(1 - other.win_rate)
    for name in ("wilson", "interval"):
        low, high = getattr(other, name)
        assert getattr(one, name) == pytest.approx((1 - high, 1 - low))
    assert one.contradictions == other.contradictions <= one.ties
    assert one.sign_test_p == other.sign_test_p
    assert one.first_position == other.first_position
    assert one.longer_answer == other.longer_answer


def test_position_and_length():
    pairs = [("a", "b"), ("a", "tie"), ("b", "b"), ("a", "a")]
    summary = summarize_battle(games(*pairs, len_a=9, len_b=4))
    first, longer = summary.first_position, summary.longer_answer
    # Named first: both verdicts of the first question, one of one, one of two, one of two.
    assert (first.value, first.n) == (pytest.approx(5 / 7), 7)
    assert (longer.value, longer.n, longer.interval) == (0.5, 2, wilson_interval(1, 2))
    tied = summarize_battle(games(("tie", "tie")))
    assert tied.first_position is None and tied.longer_answer is None
    assert tied.sign_test_p == 1 and tied.win_rate == 0.5
    assert summarize_battle(games(("a", "a"), len_a=4, len_b=4)).longer_answer is None


def test_invalid_judgments_are_refused_or_counted():
    battle = games(("a", "a"), ("a", None), (None, None))
    with pytest.raises(StatsError, match="2 of 3 questions"):
        summarize_battle(battle)
    summary = summarize_battle(battle, allow_invalid=True)
    assert (summary.n, summary.invalid, summary.win_rate) == (1, 2, 1.0)
    assert (summary.worst, summary.best) == pytest.approx((1 / 3, 1))
    assert "2 invalid (win rate 33.3% if all lost, 100.0% if all won)" in str(summary)
    whole = summarize_battle(battle[:1])
    assert whole.worst == whole.best == whole.win_rate
    with pytest.raises(StatsError, match="no valid"):
        summarize_battle(battle[1:], allow_invalid=True)
    with pytest.raises(StatsError, match="no valid"):
        summarize_battle([])


def test_one_order_alone():
    summary = verdict_win_rate(["a", "a", "tie", "b"])
    assert (summary.wins, summary.ties, summary.losses, summary.win_rate) == (2, 1, 1, 0.625)
    assert summary.wilson == wilson_interval(2.5, 4)
    with pytest.raises(StatsError, match="1 of 2 verdicts"):
        verdict_win_rate(["a", None])
    assert verdict_win_rate(["a", None], allow_invalid=True).invalid == 1
    assert summary.interval == win_rate_interval(2, 1, 1)
    with pytest.raises(StatsError, match="'A'"):
        verdict_win_rate(["A", "b"])


def test_the_interval_of_the_position_counts_questions_not_verdicts():
    """A judge that says A twice tells one thing about a question, not two."""
    pairs = [("a", "b")] * 30 + [("b", "a")] * 10
    found = summarize_battle(games(*pairs)).first_position
    assert (found.value, found.n) == (0.75, 80)
    assert found.interval == pytest.approx(wilson_interval(30, 40))
    always = summarize_battle(games(*[("a", "b")] * 5)).first_position
    assert (always.value, always.interval) == (1, wilson_interval(5, 5))
    named = [("a", "tie")] * 30 + [("tie", "a")] * 10  # one verdict a question: nothing is shared
    found = summarize_battle(games(*named)).first_position
    assert found.interval == pytest.approx(wilson_interval(30, 40))


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.tuples(st.sampled_from(VERDICTS), st.sampled_from(VERDICTS)), min_size=1),
    st.randoms(),
)
def test_the_order_of_the_questions_does_not_matter(pairs, rng):
    battle = games(*pairs)
    assert summarize_battle(rng.sample(battle, len(battle))) == summarize_battle(battle)
    summary = summarize_battle(battle)
    assert summary.n == summary.wins + summary.ties + summary.losses == len(pairs)
    assert summary.win_rate == (summary.wins + summary.ties / 2) / summary.n


# --- grades -----------------------------------------------------------------------------------


def test_grades():
    grades = [Grade("q1", 9, "맞습니다."), Grade("q2", 2), Grade("q3", 4)]
    summary = summarize_grades(grades)
    assert summary.mean == 5 and summary.n == 3 and summary.invalid == 0
    assert 2 <= summary.bootstrap[0] < 5 < summary.bootstrap[1] <= 9
    with pytest.raises(StatsError, match="1 of 4 grades"):
        summarize_grades([*grades, Grade("q4", None)])
    with_invalid = summarize_grades([*grades, Grade("q4", None)], allow_invalid=True)
    assert (with_invalid.mean, with_invalid.invalid) == (5, 1)
    assert (with_invalid.worst, with_invalid.best) == (16 / 4, 25 / 4)
    assert summary.worst == summary.best == 5


@pytest.mark.parametrize("failed", [-1, 0, 99, math.nan, True, "7"])
def test_how_other_tools_store_a_failure_is_no_grade(failed):
    with pytest.raises(StatsError, match="write a judgment that failed as None"):
        paired_difference([Grade("q", 7)], [Grade("q", failed)])


def graded(*scores, ids="vwxyz"):
    return [Grade(id, score) for id, score in zip(ids, scores, strict=False)]


def test_grades_of_two_models_are_compared_question_by_question():
    a, b = graded(9, 4, 7), graded(2, 4, 8)
    found = paired_difference(a, reversed(b))  # matched by id, not by place
    assert found.mean == 2 and found.n == 3 and found.invalid == 0
    assert (found.wins, found.ties, found.losses, found.sign_test_p) == (1, 1, 1, 1.0)
    assert found.bootstrap[0] <= 2 <= found.bootstrap[1]


def test_a_missing_grade_takes_its_question_out():
    a, b = graded(9, None, 5), graded(2, 4, None)
    with pytest.raises(StatsError, match="2 of 3 questions"):
        paired_difference(a, b)
    found = paired_difference(a, b, allow_invalid=True)
    assert (found.n, found.mean, found.invalid) == (1, 7, 2)


def test_lists_of_different_questions_are_refused_by_name():
    with pytest.raises(StatsError, match="Graded for one model only: w, y"):
        paired_difference(graded(1, 2, ids="vw"), graded(1, 2, ids="vy"))
    with pytest.raises(StatsError, match="A model has several grades for one question: v"):
        paired_difference(graded(1, 2, ids="vw"), graded(1, 2, 3, ids="vwv"))


# --- agreement --------------------------------------------------------------------------------

def test_kappa_against_a_worked_example():
    # Two raters on 50 grant proposals: yes/yes 20, yes/no 5, no/yes 10, no/no 15 -> kappa 0.4.
    a = ["yes"] * 25 + ["no"] * 25
    b = ["yes"] * 20 + ["no"] * 5 + ["yes"] * 10 + ["no"] * 15
    assert cohen_kappa(a, b) == pytest.approx(0.4)
    assert cohen_kappa(a, a) == 1
    assert cohen_kappa(["a", "b"], ["b", "a"]) == -1


@pytest.mark.parametrize(("a", "b", "message"), [
    (["a"], ["a", "b"], "1 and 2"), ([], [], "0 and 0"), (["a", None], ["a", "b"], "None"),
    (["a", "b"], [math.nan, "b"], "None"),
    (["a", "a"], ["a", "a"], "undefined")])  # fmt: skip
def test_kappa_that_does_not_exist_is_no_number(a, b, message):
    with pytest.raises(StatsError, match=message):
        cohen_kappa(a, b)


def test_kappa_of_three_labels_against_scikit_learn():
    a = "ABACBBAAAABCBAACCBBAABAACBBAABBCCBACBCBC"
    b = "ABACACBCAABCBAACBBCAABCBCBBAACBCABACBBBC"
    # sklearn.metrics.cohen_kappa_score of scikit-learn 1.9.1
    assert cohen_kappa(a, b) == pytest.approx(0.5849056603773585, abs=1e-12)


# --- without a judge --------------------------------------------------------------------------


EVALUATION = [task.output for task in read_tasks(REPO / "data" / "eval_tasks.jsonl")]
GSM8K = "Natalia sold 48/2 = <<48/2=24>>24 clips in May.\nAltogether 48+24 = 72.\n#### 72"


def test_every_reference_matches_itself_however_it_is_written_and_nothing_shorter():
    others = ["한 줄", "", " \n", "가\u2028나", "a\n\n\n  b\tc \n", "1,234"]
    for reference in [*EVALUATION, GSM8K, *others]:
        crlf, nfd = reference.replace("\n", "\r\n"), unicodedata.normalize("NFD", reference)
        spaced = "\n " + "".join(line + " \t\n" for line in reference.split("\n"))
        for reply in (reference, crlf, nfd, spaced, reference + "\n\n" if reference else ""):
            assert exact_match(reply, reference) and exact_match(reference, reply)
        if lines := reference.strip().splitlines():
            assert exact_match("\n".join([*lines, "그리고"]), reference)
            assert not exact_match("\n".join([*lines[:-1], lines[-1] + "."]), reference)
            assert not exact_match("\n".join(lines[:-1]), reference)


@given(st.text())
def test_any_reference_matches_itself(reference):
    assert exact_match(reference, reference) and exact_match(reference + "\n덧붙임", reference) == (
        bool(reference.strip()))


@pytest.mark.parametrize(("reply", "reference", "equal"), [
    ("4\nand then some", "4", True), ("  4 ", "4", True), ("44", "4", False), ("so\n4", "4", False),
    ("", "4", False), ("\n \n", "4", False), ("4", "", False), ("1234", "1,234", False),
    ("x = 1\ny = 2", "x = 1\n  y = 2", False), ("가나", "가 나", False), ("A", "a", False)])
def test_what_an_exact_match_is(reply, reference, equal):
    assert exact_match(reply, reference) is equal
