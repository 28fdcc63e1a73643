"""Statistics against values from textbooks, from counting by hand, and from brute force."""

import itertools
import math
import random
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from course_utils.stats import (
    Game,
    Grade,
    StatsError,
    bootstrap_interval,
    bradley_terry,
    cohen_kappa,
    exact_match,
    repetition_rate,
    sign_test,
    stop_rate,
    summarize_battle,
    summarize_grades,
    verdict_win_rate,
    wilson_interval,
)

VERDICTS = ["a", "b", "tie"]


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
    assert "10 wins, 2 ties, 3 losses on 15 questions, 0 invalid" in str(summary)


@pytest.mark.parametrize(
    ("first", "second", "score"),
    [
        ("a", "a", 1), ("a", "tie", 1), ("tie", "a", 1),
        ("b", "b", 0), ("b", "tie", 0), ("tie", "b", 0),
        ("a", "b", 0.5), ("b", "a", 0.5), ("tie", "tie", 0.5),
        (None, "a", None), ("b", None, None), (None, None, None),
    ],
)  # fmt: skip
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
    assert one.wilson == pytest.approx((1 - other.wilson[1], 1 - other.wilson[0]))
    assert one.sign_test_p == other.sign_test_p
    assert one.first_position_rate == other.first_position_rate
    assert one.longer_win_rate == other.longer_win_rate


def test_position_and_length():
    summary = summarize_battle(games(("a", "b"), ("a", "tie"), ("b", "b"), len_a=9, len_b=4))
    # The answer shown first was named by a, b in the first question, a in the second, second b.
    assert summary.first_position_rate == pytest.approx(4 / 5)
    assert summary.longer_win_rate == pytest.approx(1 / 2)
    tied = summarize_battle(games(("tie", "tie")))
    assert tied.first_position_rate is None and tied.longer_win_rate is None
    assert tied.sign_test_p == 1 and tied.win_rate == 0.5
    same_length = summarize_battle(games(("a", "a"), len_a=4, len_b=4))
    assert same_length.longer_win_rate is None


def test_invalid_judgments_are_refused_or_counted():
    battle = games(("a", "a"), ("a", None), (None, None))
    with pytest.raises(StatsError, match="2 of 3 questions"):
        summarize_battle(battle)
    summary = summarize_battle(battle, allow_invalid=True)
    assert (summary.n, summary.invalid, summary.win_rate) == (1, 2, 1.0)
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


def test_two_orders_cancel_a_position_bias_and_one_does_not():
    rng = random.Random(1)
    battle, truth = [], []
    for i in range(4000):
        better = rng.choices(["a", "tie", "b"], [5, 4, 1])[0]
        truth.append({"a": 1, "tie": 0.5, "b": 0}[better])
        lean = [x if better == "tie" and rng.random() < 0.8 else better for x in "ab"]
        battle.append(Game(str(i), *lean, 1, 1))
    true_rate = sum(truth) / len(truth)
    low, high = summarize_battle(battle).wilson
    assert low < true_rate < high
    low, high = verdict_win_rate(game.first for game in battle).wilson
    assert true_rate < low
    low, high = verdict_win_rate(game.second for game in battle).wilson
    assert high < true_rate


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


def test_grades():
    grades = [Grade("q1", 9, "맞습니다."), Grade("q2", 2), Grade("q3", 4)]
    summary = summarize_grades(grades)
    assert summary.mean == 5 and summary.n == 3 and summary.invalid == 0
    assert 2 <= summary.bootstrap[0] < 5 < summary.bootstrap[1] <= 9
    assert summarize_grades([9, 2, 4]) == summary
    with pytest.raises(StatsError, match="1 of 4 grades"):
        summarize_grades([*grades, Grade("q4", None)])
    with_invalid = summarize_grades([*grades, Grade("q4", None)], allow_invalid=True)
    assert (with_invalid.mean, with_invalid.invalid) == (5, 1)


def test_kappa_against_a_worked_example():
    # Two raters on 50 grant proposals: yes/yes 20, yes/no 5, no/yes 10, no/no 15 -> kappa 0.4.
    a = ["yes"] * 25 + ["no"] * 25
    b = ["yes"] * 20 + ["no"] * 5 + ["yes"] * 10 + ["no"] * 15
    assert cohen_kappa(a, b) == pytest.approx(0.4)
    assert cohen_kappa(a, a) == 1
    assert cohen_kappa(["a", "b"], ["b", "a"]) == -1


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (["a"], ["a", "b"], "1 and 2"),
        ([], [], "0 and 0"),
        (["a", None], ["a", "b"], "None"),
        (["a", "a"], ["a", "a"], "undefined"),
    ],
)
def test_kappa_that_does_not_exist_is_no_number(a, b, message):
    with pytest.raises(StatsError, match=message):
        cohen_kappa(a, b)


def test_bradley_terry_of_two_is_the_log_odds_of_the_win_rate():
    battle = games(*[("a", "a")] * 7, *[("b", "b")] * 2, ("a", "b"))
    strength = bradley_terry({("tuned", "base"): battle})
    assert strength["tuned"] - strength["base"] == pytest.approx(math.log(7.5 / 2.5))
    assert sum(strength.values()) == pytest.approx(0)


def test_bradley_terry_recovers_known_strengths():
    truth = {"base": -1.0, "lora": 0.2, "full": 0.8}
    rng = random.Random(0)
    battles = {}
    for a, b in itertools.combinations(truth, 2):
        p = 1 / (1 + math.exp(truth[b] - truth[a]))
        pairs = [("a", "a") if rng.random() < p else ("b", "b") for _ in range(4000)]
        battles[a, b] = games(*pairs)
    assert bradley_terry(battles) == pytest.approx(truth, abs=0.08)


def test_bradley_terry_refuses_what_has_no_finite_answer():
    with pytest.raises(StatsError, match="tuned never lost to base"):
        bradley_terry({("tuned", "base"): games(("a", "a"))})
    with pytest.raises(StatsError, match="1 of 2 questions of x against y"):
        bradley_terry({("x", "y"): games(("a", "a"), (None, "b"))})
    with pytest.raises(StatsError, match="at least one"):
        bradley_terry({})


def test_exact_match_reads_the_first_line_only():
    assert exact_match("4\nand then some", "4") and exact_match("  4 ", "4")
    assert not exact_match("44", "4") and not exact_match("so\n4", "4")
    assert not exact_match("", "4") and not exact_match("\n \n", "4")


def test_stop_rate_counts_replies_that_ended():
    replies = [SimpleNamespace(stopped=stopped) for stopped in (True, False, True, True)]
    assert stop_rate(replies) == 0.75
    with pytest.raises(StatsError, match="at least one reply"):
        stop_rate([])


@pytest.mark.parametrize(
    ("text", "repeats"),
    [
        ("", False),
        ("네 네 네 네 네", False),  # the four words come twice: at 0 and at 1
        ("네 네 네 네 네 네", True),
        ("가 나 다 라 가 나 다 라", False),
        ("가 나 다 라 가 나 다 라 가 나 다 라", True),
        ("가 나 다 라 마 바 가  나\n다 라 바 가 나 다 라", True),  # not side by side
        ("전주는 전북에 있고 비빔밥이 유명하며 강릉은 강원도에 있고 커피가 유명합니다.", False),
    ],
)
def test_repetition_is_four_words_three_times(text, repeats):
    assert repetition_rate([text]) == float(repeats)


def test_repetition_rate_is_a_share_of_replies():
    assert repetition_rate(["가", "가 나 " * 9, "가 나 다", "나"]) == 0.25
    assert repetition_rate(["가 나 가 나 가 나"], n=2) == 1.0
    with pytest.raises(StatsError, match="at least one reply"):
        repetition_rate([])


@given(st.lists(st.sampled_from("가나다"), max_size=40))
def test_repetition_agrees_with_counting_by_hand(words):
    grams = [" ".join(words[i : i + 4]) for i in range(len(words) - 3)]
    assert repetition_rate([" ".join(words)]) == float(any(grams.count(g) >= 3 for g in grams))
