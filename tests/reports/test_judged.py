"""Judgments put in order: nothing is lost, nothing is made up, and the questions to read first."""

import random

import pytest

from course_utils import CourseError
from course_utils.reports.judged import JudgedBattle, JudgedGrades, pick_disagreements
from course_utils.stats import Game, Grade
from tests.judgments import item, said

ITEMS = [item("q1", "가나다", "가"), item("q2", "가", "가나"), item("q3", "가", "나")]


def test_games_come_in_the_items_order_whatever_the_order_of_the_judgments():
    judgments = [
        said("q1", "ab", "a"), said("q1", "ba", "b"), said("q2", "ab", "tie"),
        said("q2", "ba"), said("q1", "ab", "tie", repeat=1), said("q1", "ba", "tie", repeat=1),
    ]  # fmt: skip
    for seed in range(5):
        shuffled = random.Random(seed).sample(judgments, len(judgments))
        battle = JudgedBattle.read(("tuned", "base"), iter(ITEMS), iter(shuffled))
        assert battle.games == [
            Game("q1", "a", "b", 3, 1),
            Game("q2", "tie", None, 1, 2),  # invalid stays invalid
            Game("q3", None, None, 1, 1),  # so does what was never judged
        ]
        assert len(battle.judgments) == 6
        assert [j.repeat for j in battle.said["q1"]["ab"]] == [0, 1]


def test_grades_are_whole_numbers_or_none():
    items = [item("q1", answer="가"), item("q2", answer="나"), item("q3", answer="다")]
    judgments = [said("q2"), said("q1", verdict="10"), said("q1", verdict="2", repeat=1)]
    graded = JudgedGrades.read("tuned", items, judgments)
    assert graded.grades == [Grade("q1", 10, "까닭"), Grade("q2", None, "까닭"), Grade("q3", None)]


@pytest.mark.parametrize(
    ("items", "judgments", "message"),
    [
        ([*ITEMS, item("q2", "가", "나")], [], "Several items have one id: q2"),
        ([item("q9", "가", None)], [], "No 'b' in the items q9"),
        (ITEMS, [said("q9", "ab", "a")], "judgment of q9, but no such item"),
        (ITEMS, [said("q1", "", "7")], "judgment of q1 is a grade among those of a battle"),
        (ITEMS, [said("q1", "ab", "a")] * 2, "Judged twice in one order and repeat: q1"),
    ],
)
def test_judgments_that_do_not_belong_to_the_items_are_named(items, judgments, message):
    with pytest.raises(CourseError, match=message):
        JudgedBattle.read(("tuned", "base"), items, judgments)


def test_two_models_of_one_name_are_refused():
    with pytest.raises(CourseError, match="Both models are called 'x'"):
        JudgedBattle.read(("x", "x"), ITEMS, [])


def test_disagreements_come_by_kind_then_by_length():
    games = [
        Game("longer", "a", "a", 50, 10),
        Game("half", "a", "tie", 90, 10),
        Game("shorter", "a", "a", 10, 50),
        Game("graded", "b", "b", 10, 80),
        Game("second", "b", "a", 10, 20),
        Game("first", "a", "b", 10, 60),
        Game("invalid", "a", None, 10, 900),
        Game("tied", "tie", "tie", 10, 900),
    ]
    gains = {"graded": 3, "longer": 2, "first": -5, "tied": 4}
    found = pick_disagreements(games, gains)
    assert [one.game.id for one in found] == ["first", "second", "graded", "half", "longer"]
    assert [one.rank for one in found] == [1, 1, 2, 3, 4]
    assert found[0].why == "whichever was shown first won"
    assert found[1].why == "whichever was shown second won"
    assert pick_disagreements(games, gains, most=2) == found[:2]
    assert [one.rank for one in pick_disagreements(games)] == [1, 1, 3, 4, 4]
    assert pick_disagreements([]) == []
