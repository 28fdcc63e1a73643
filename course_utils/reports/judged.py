"""Judgments in order: by question, order and repeat, with what is missing counted as invalid.

Between the judge, which leaves a flat list of judgments, and a report, which needs games and grades
with the judge's words beside them.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from course_utils import CourseError
from course_utils.stats import Game, Grade

if TYPE_CHECKING:
    from course_utils.judge import Item, Judgment


@dataclass(frozen=True)
class JudgedBattle:
    """The battle of two models: said[id][order] are the judgments in that order, by repeat."""

    names: tuple[str, str]
    items: "dict[str, Item]"
    said: "dict[str, dict[str, list[Judgment]]]"

    @classmethod
    def read(
        cls, names: tuple[str, str], items: "Iterable[Item]", judgments: "Iterable[Judgment]"
    ) -> "JudgedBattle":
        """Put the judgments in order; CourseError for those that do not belong to the items."""
        if names[0] == names[1]:
            raise CourseError(f"Both models are called {names[0]!r}: give each its own name.")
        items = _by_id(items, "a", "b")
        said = {id: {"ab": [], "ba": []} for id in items}
        for judgment in _in_order(judgments, items, "battle"):
            said[judgment.id][judgment.order].append(judgment)
        return cls(names, items, said)

    @property
    def judgments(self) -> "list[Judgment]":
        return [j for orders in self.said.values() for told in orders.values() for j in told]

    @property
    def games(self) -> list[Game]:
        """One game an item, of the first judgment in each order; a missing one is invalid."""
        games = []
        for id, item in self.items.items():
            first, second = (told[0].verdict if told else None for told in self.said[id].values())
            games.append(Game(id, first, second, len(item.a), len(item.b)))
        return games

    @property
    def answers(self) -> "list[tuple[Item, str, str]]":
        """Every answer as (item, model, text)."""
        a, b = self.names
        return [each for i in self.items.values() for each in ((i, a, i.a), (i, b, i.b))]


@dataclass(frozen=True)
class JudgedGrades:
    """One model's graded answers: said[id] are the judgments of one answer, by repeat."""

    name: str
    items: "dict[str, Item]"
    said: "dict[str, list[Judgment]]"

    @classmethod
    def read(
        cls, name: str, items: "Iterable[Item]", judgments: "Iterable[Judgment]"
    ) -> "JudgedGrades":
        """Put the judgments in order; CourseError for those that do not belong to the items."""
        items = _by_id(items, "answer")
        said = {id: [] for id in items}
        for judgment in _in_order(judgments, items, "grade"):
            said[judgment.id].append(judgment)
        return cls(name, items, said)

    @property
    def judgments(self) -> "list[Judgment]":
        return [judgment for told in self.said.values() for judgment in told]

    @property
    def grades(self) -> list[Grade]:
        """One grade an item, of its first judgment; a missing one is invalid."""
        return [
            Grade(id, grade_of(told[0]), told[0].reason) if told else Grade(id, None)
            for id, told in self.said.items()
        ]

    @property
    def answers(self) -> "list[tuple[Item, str, str]]":
        """Every answer as (item, model, text)."""
        return [(item, self.name, item.answer) for item in self.items.values()]


def grade_of(judgment: "Judgment") -> int | None:
    """The grade that a judgment gives, None if it is invalid."""
    return None if judgment.verdict is None else int(judgment.verdict)


@dataclass(frozen=True)
class Disagreement:
    """A question worth reading, and why."""

    game: Game
    rank: int
    why: str


def pick_disagreements(
    games: Iterable[Game], gains: Mapping[str, float] | None = None, most: int = 10
) -> list[Disagreement]:
    """The questions to read first: those where the judge is least to be trusted.

    In this order: (1) the two orders name different winners; (2) the grades prefer the other model
    (`gains`: grade of a minus grade of b, by id); (3) one order names a winner, the other a tie;
    (4) both orders name the longer answer. Within each, the greatest difference in length first.
    """
    found = []
    for game in games:
        if game.score is None:
            continue
        lead, gain = game.score - 0.5, (gains or {}).get(game.id, 0)
        if game.contradicts:
            position = "first" if game.first == "a" else "second"
            found.append(Disagreement(game, 1, f"whichever was shown {position} won"))
        elif lead * gain < 0:
            found.append(Disagreement(game, 2, "the grades prefer the other model"))
        elif game.first != game.second:
            found.append(Disagreement(game, 3, "one order names a winner, the other a tie"))
        elif lead * (game.len_a - game.len_b) > 0:
            found.append(Disagreement(game, 4, "both orders name the longer answer"))
    found.sort(key=lambda one: (one.rank, -abs(one.game.len_a - one.game.len_b)))
    return found[:most]


def _by_id(items: "Iterable[Item]", *fields: str) -> "dict[str, Item]":
    items = list(items)
    for field in fields:
        if lacking := [item.id for item in items if getattr(item, field) is None]:
            raise CourseError(f"No '{field}' in the items {', '.join(lacking[:5])}.")
    if twice := [id for id, n in Counter(item.id for item in items).items() if n > 1]:
        raise CourseError(f"Several items have one id: {', '.join(twice[:5])}.")
    return {item.id: item for item in items}


def _in_order(
    judgments: "Iterable[Judgment]", items: "dict[str, Item]", kind: str
) -> "list[Judgment]":
    """The judgments by repeat, if each is of this kind, has an item, and comes once."""
    judgments = sorted(judgments, key=lambda judgment: judgment.repeat)
    for judgment in judgments:
        if judgment.kind != kind:
            raise CourseError(
                f"The judgment of {judgment.id} is a {judgment.kind} among those of a {kind}: give "
                "a battle's judgments first, grades as grades={model: (items, judgments)}."
            )
        if judgment.id not in items:
            raise CourseError(f"There is a judgment of {judgment.id}, but no such item.")
    asked = Counter((judgment.id, judgment.order, judgment.repeat) for judgment in judgments)
    if twice := [id for (id, *_), n in asked.items() if n > 1]:
        raise CourseError(f"Judged twice in one order and repeat: {', '.join(twice[:5])}.")
    return judgments
