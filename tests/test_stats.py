"""Summaries of battles and grades against published results and counting by hand."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from course_utils.intervals import StatsError, wilson_interval, win_rate_interval
from course_utils.stats import (
    Game,
    Grade,
    judge_bias,
    paired_difference,
    summarize_battle,
    summarize_grades,
    verdict_win_rate,
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
    assert summary.interval == win_rate_interval(10, 2, 3) and summary.interval[0] < 0.5
    said = "10 wins, 2 ties (2 of them contradictions), 3 losses on 15 questions, 0 invalid"
    assert said in str(summary)


@pytest.mark.parametrize(
    ("first", "second", "score"),
    [
        ("a", "a", 1), ("a", "tie", 0.5), ("tie", "a", 0.5),
        ("b", "b", 0), ("b", "tie", 0.5), ("tie", "b", 0.5),
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
    for name in ("wilson", "interval"):
        low, high = getattr(other, name)
        assert getattr(one, name) == pytest.approx((1 - high, 1 - low))
    assert one.contradictions == other.contradictions <= one.ties
    assert one.sign_test_p == other.sign_test_p
    assert one.first_position_rate == other.first_position_rate
    assert one.longer_win_rate == other.longer_win_rate


def test_position_and_length():
    pairs = [("a", "b"), ("a", "tie"), ("b", "b"), ("a", "a")]
    summary = summarize_battle(games(*pairs, len_a=9, len_b=4))
    # Named first: both verdicts of the first question, one of one, one of two, one of two.
    assert summary.first_position_rate == pytest.approx(5 / 7)
    assert summary.longer_win_rate == pytest.approx(1 / 2)
    bias = judge_bias(games(*pairs, len_a=9, len_b=4))
    assert (bias.first.n, bias.longer.n) == (7, 2)
    assert bias.longer.interval == wilson_interval(1, 2)
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


def test_two_orders_cancel_a_position_bias_and_one_does_not():
    rng = random.Random(1)
    battle, truth = [], []
    for i in range(4000):
        better = rng.choices(["a", "tie", "b"], [5, 4, 1])[0]
        truth.append({"a": 1, "tie": 0.5, "b": 0}[better])
        lean = [x if better == "tie" and rng.random() < 0.8 else better for x in "ab"]
        battle.append(Game(str(i), *lean, 1, 1))
    true_rate = sum(truth) / len(truth)
    low, high = summarize_battle(battle).interval
    assert low < true_rate < high
    low, high = verdict_win_rate(game.first for game in battle).interval
    assert true_rate < low
    low, high = verdict_win_rate(game.second for game in battle).interval
    assert high < true_rate


def test_the_interval_of_the_position_counts_questions_not_verdicts():
    """A judge that says A twice tells one thing about a question, not two."""
    pairs = [("a", "b")] * 30 + [("b", "a")] * 10
    found = judge_bias(games(*pairs)).first
    assert (found.value, found.n) == (0.75, 80)
    assert found.interval == pytest.approx(wilson_interval(30, 40))
    always = judge_bias(games(*[("a", "b")] * 5)).first
    assert (always.value, always.interval) == (1, wilson_interval(5, 5))
    assert judge_bias([]).first is None and judge_bias(games(("a", None))).longer is None


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


def test_alpaca_blind_comparison():
    """Alpaca's authors against text-davinci-003: 90 wins to 89 (crfm.stanford.edu, March 2023)."""
    summary = verdict_win_rate(["a"] * 90 + ["b"] * 89)
    assert (summary.wins, summary.ties, summary.losses) == (90, 0, 89)
    assert summary.win_rate == 90 / 179 and summary.wilson[0] < 0.5 < summary.wilson[1]


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
    assert (with_invalid.worst, with_invalid.best) == (16 / 4, 25 / 4)
    assert summary.worst == summary.best == 5
    for failed in (-1, float("nan")):  # how other tools store a judgment that failed
        with pytest.raises(StatsError, match="write a judgment that failed as None"):
            summarize_grades([9, failed])


def graded(*scores, ids="vwxyz"):
    return [Grade(id, score) for id, score in zip(ids, scores, strict=False)]


def test_grades_of_two_models_are_compared_question_by_question():
    a, b = graded(9, 4, 7), graded(2, 4, 8)
    found = paired_difference(a, reversed(b))  # matched by id, not by place
    assert found.mean == 2 and found.n == 3 and found.invalid == 0
    assert (found.wins, found.ties, found.losses, found.sign_test_p) == (1, 1, 1, 1.0)
    assert found.bootstrap[0] <= 2 <= found.bootstrap[1] and found.worst == found.best == 2


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(1, 10), st.integers(1, 10)), min_size=1, max_size=5))
def test_swapping_the_models_turns_the_difference_round(scores):
    a, b = (graded(*column) for column in zip(*scores, strict=True))
    one, other = paired_difference(a, b), paired_difference(b, a)
    assert one.mean == pytest.approx(-other.mean)
    assert (one.wins, one.losses) == (other.losses, other.wins)
    assert one.mean == pytest.approx(summarize_grades(a).mean - summarize_grades(b).mean)


def test_a_missing_grade_is_bounded_by_the_scale():
    a, b = graded(9, None, 5), graded(2, 4, None)
    with pytest.raises(StatsError, match="2 of 3 questions"):
        paired_difference(a, b)
    found = paired_difference(a, b, allow_invalid=True)
    assert (found.n, found.mean, found.invalid) == (1, 7, 2)
    assert found.worst == pytest.approx((7 + (1 - 4) + (5 - 10)) / 3)
    assert found.best == pytest.approx((7 + (10 - 4) + (5 - 1)) / 3)


def test_lists_of_different_questions_are_refused_by_name():
    with pytest.raises(StatsError, match="Graded for one model only: w, y"):
        paired_difference(graded(1, 2, ids="vw"), graded(1, 2, ids="vy"))
    with pytest.raises(StatsError, match="Model b has several grades for one question: v"):
        paired_difference(graded(1, 2, ids="vw"), graded(1, 2, 3, ids="vwv"))
