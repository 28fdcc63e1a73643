"""Bradley-Terry against a textbook's table, known strengths, and what has no answer."""

import itertools
import math
import random

import pytest

from course_utils.intervals import StatsError
from course_utils.ranking import bradley_terry
from course_utils.stats import Game

# American League 1987: games that the row's team won against the column's. Agresti, Categorical
# Data Analysis (2002), table 10.10, whose estimates have Baltimore at 0.
TEAMS = "Milwaukee Detroit Toronto NewYork Boston Cleveland Baltimore".split()
WON = """
0 7 9 7 7 9 11
6 0 7 5 11 9 9
4 6 0 7 7 8 12
6 8 6 0 6 7 10
6 2 6 7 0 7 12
4 4 5 6 6 0 6
2 4 1 3 1 7 0
"""
ESTIMATES = [1.581, 1.436, 1.294, 1.248, 1.108, 0.684, 0.0]


def games(*pairs):
    return [Game(f"q{i}", *pair, 10, 10) for i, pair in enumerate(pairs)]


def test_the_textbook_table_comes_out():
    won = [list(map(int, line.split())) for line in WON.split("\n") if line]
    battles = {
        (TEAMS[i], TEAMS[j]): games(*[("a", "a")] * won[i][j], *[("b", "b")] * won[j][i])
        for i, j in itertools.combinations(range(7), 2)
    }
    strength = bradley_terry(battles)
    found = [strength[team] - strength["Baltimore"] for team in TEAMS]
    assert found == pytest.approx(ESTIMATES, abs=5e-4)


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
