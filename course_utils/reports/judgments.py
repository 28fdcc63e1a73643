"""The report of a set of judgments: one folder with report.md and its figures, to read on GitHub.

What a number cannot show is in it as well: every invalid judgment with its reason, and the
disagreements that teach most, with both answers and what the judge said in either order. The page
stands in judgments.md.j2, the numbers are made here. Texts of models are escaped or fenced, so that
no answer can change the page: Markdown libraries read Markdown, and none writes any text into it.
"""

import re
import textwrap
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unicodedata import category, east_asian_width

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from course_utils import CourseError, stats
from course_utils.judge import ORDERS, Item, Judgment, check_items
from course_utils.korean import language_flag
from course_utils.tasks import write_atomic

LISTED, MOST = 100, 10  # rows of one list, disagreements
FIGURES = {"win_rate.png": "win_rate", "categories.png": "category_win_rates",
           "grades.png": "grade_histogram", "bias.png": "judge_bias"}
"""The functions of plots that draw them."""

Judged = tuple[Iterable[Item], Iterable[Judgment]]
_GIVE = "give a battle's items and judgments first, grades as grades={model: (items, judgments)}"


def write_judgment_report(
        folder: str | Path, items: Iterable[Item] = (), judgments: Iterable[Judgment] = (), *,
        grades: Mapping[str, Judged] | None = None, names: tuple[str, str] = ("a", "b")) -> Path:
    """Write report.md and its figures into a folder, from a battle, from grades, or from both.

    `items` and `judgments` are what Judge.battle was given and left in Judge.judgments, `names` the
    models a and b; `grades` is {model: (items, judgments)} of Judge.grade, and the first two models
    are compared. Of several judgments the first counts. Returns the path of report.md. Raises
    CourseError when there is nothing to report, and for judgments that do not belong to the items.
    Taught in 03, section 8.
    """
    a, b = names
    if a == b:
        raise CourseError(f"Both models are called {a!r}: give each its own name.")
    orders = {"ab": f"battle, {a} first", "ba": f"battle, {b} first"}
    battle = _Judged.read("battle 비교", {a: "a", b: "b"}, orders, items, judgments)
    graded = {name: _Judged.read(f"grades of {name} 채점", {name: "answer"},
                                 {"": f"grades of {name}"}, *given)
              for name, given in (grades or {}).items()}
    parts = [part for part in (battle, *graded.values()) if part.items]
    if not parts:
        raise CourseError(f"There is nothing to report: {_GIVE}.")
    told = [judgment for part in parts for judgment in part.judgments]
    judges = sorted({judgment.model for judgment in told if judgment.model})
    found, why_not = _summary(stats.summarize_battle, battle.games)
    pair = [one.grades for one in graded.values()][:2]
    gain, no_gain = _summary(stats.paired_difference, *pair) if len(pair) == 2 else (None, "")
    scores = {name: {grade.id: grade.score for grade in one.grades if grade.score is not None}
              for name, one in graded.items()}
    of_b = scores.get(b, {})
    gains = {id: score - of_b[id] for id, score in scores.get(a, {}).items() if id in of_b}
    categories = _by_category(battle)
    invalid = [row for part in parts for row in _invalid(part)]
    page = _PAGES.get_template("judgments.md.j2").render(
        a=a, b=b, battle=battle.items, listed=LISTED,
        models=names if battle.items else list(graded), judges=judges or ["unknown"],
        simulated=any(judge.startswith("simulated") for judge in judges),
        found=found, why_not=why_not, categories=categories, gain=gain, no_gain=no_gain,
        grades=[(name, _summary(stats.summarize_grades, one.grades)[0], len(one.grades))
                for name, one in graded.items()],
        costs={part.name: part.judgments for part in parts} | {"all 전체": told},
        flags=_flags(parts), invalid=invalid,
        failures=Counter(why for _, _, why, _ in invalid).most_common(),
        disagreements=[(battle.items[game.id], why,
                        {order: battle.said[game.id, order][0] for order in ORDERS})
                       for _, game, why in pick_disagreements(battle.games, gains)[:MOST]])
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    draw(folder, {
        "win_rate.png": found,
        "categories.png": {name: some for name, some, _ in categories if some},
        "grades.png": {name: list(given.values()) for name, given in scores.items()},
        "bias.png": found if found and found.first_position else None})
    write_atomic(folder / "report.md", page)
    return folder / "report.md"


def draw(folder: Path, data: Mapping[str, Any]) -> None:
    """Draw the figures there is something to draw for; no other stays of an earlier report."""
    from course_utils import plots  # matplotlib only when something is drawn

    for name, plot in FIGURES.items():
        if data[name]:
            figure = getattr(plots, plot)(data[name])
            figure.savefig(folder / name, facecolor="white", metadata={"Software": None})
        else:
            (folder / name).unlink(missing_ok=True)


@dataclass(frozen=True)
class _Judged:
    """A battle, or one model's grades: said[id, order] are the judgments of an item, by repeat.

    `sides` says which field of an item is whose answer, {"tuned": "a", "base": "b"}; `asked` what
    was asked for, by order.
    """

    name: str
    sides: dict[str, str]
    asked: dict[str, str]
    items: dict[str, Item]
    said: dict[tuple[str, str], list[Judgment]]

    @classmethod
    def read(cls, name: str, sides: dict[str, str], asked: dict[str, str],
             items: Iterable[Item], judgments: Iterable[Judgment]) -> "_Judged":
        """Put the judgments in order; CourseError for those that do not belong to the items."""
        items = {item.id: item for item in check_items(items, *sides.values())}
        said = {(id, order): [] for id in items for order in asked}
        for judgment in sorted(judgments, key=lambda judgment: judgment.repeat):
            told = said.get((judgment.id, judgment.order))
            if told is None:
                raise CourseError(f"The judgment {judgment.name} is of no item of {name}: {_GIVE}.")
            if told and told[-1].repeat == judgment.repeat:
                raise CourseError(f"Judged twice in one order and repeat: {judgment.name}.")
            told.append(judgment)
        return cls(name, sides, asked, items, said)

    @property
    def judgments(self) -> list[Judgment]:
        return [judgment for told in self.said.values() for judgment in told]

    @property
    def games(self) -> list[stats.Game]:
        """One game an item, of the first judgment in each order; a missing one is invalid."""
        first = {where: told[0].verdict if told else None for where, told in self.said.items()}
        return [stats.Game(id, first[id, "ab"], first[id, "ba"], len(item.a), len(item.b))
                for id, item in self.items.items()]

    @property
    def grades(self) -> list[stats.Grade]:
        """One grade an item, of its first judgment; a missing one is invalid."""
        return [stats.Grade(id, told[0].value if told else None)
                for (id, _), told in self.said.items()]


def _summary(summarize: Callable, *given: Iterable) -> tuple[Any, str]:
    """A summary without what is invalid; or None, where nothing is left, and why."""
    try:
        return summarize(*given, allow_invalid=True), ""
    except stats.StatsError as error:
        return None, str(error)


def _by_category(battle: _Judged) -> list[tuple[str, stats.BattleSummary | None, int]]:
    """(category, summary, questions), or nothing where there are no two categories."""
    found = defaultdict(list)
    for item, game in zip(battle.items.values(), battle.games, strict=True):
        found[item.category or "-"].append(game)
    return [(name, _summary(stats.summarize_battle, some)[0], len(some))
            for name, some in found.items() if len(found) > 1]


def _flags(parts: Iterable[_Judged]) -> list[tuple[str, str, str]]:
    """(question, model, flag), once for an answer that is in the battle and graded as well."""
    answers = ((item, name, getattr(item, field)) for part in parts
               for item in part.items.values() for name, field in part.sides.items())
    flags = ((item.id, name, language_flag(text, item.answer_lang)) for item, name, text in answers)
    return list(dict.fromkeys(row for row in flags if row[2]))


def _invalid(part: _Judged) -> Iterator[tuple[str, str, str, str]]:
    """(question, what was asked for, failure, what happened)."""
    for (id, order), told in part.said.items():
        if not told:
            yield id, part.asked[order], "not judged", "There is no judgment."
        for judgment in told:
            if judgment.verdict is None:
                yield id, part.asked[order], judgment.invalid, judgment.error


def pick_disagreements(games: Iterable[stats.Game],
                       gains: Mapping[str, float]) -> list[tuple[int, stats.Game, str]]:
    """The questions to read first, as (rank, game, why): those where the judge is least to trust.

    In this order: (1) the two orders name different winners; (2) the grades prefer the other model
    (`gains`: grade of a minus grade of b, by id); (3) one order names a winner, the other a tie;
    (4) both orders name the longer answer. Within each, the greatest difference in length first.
    """
    found = []
    for game in games:
        if game.score is None:
            continue
        lead, position = game.score - 0.5, "first" if game.first == "a" else "second"
        if game.contradicts:
            found.append((1, game, f"whichever was shown {position} won"))
        elif lead * gains.get(game.id, 0) < 0:
            found.append((2, game, "the grades prefer the other model"))
        elif game.first != game.second:
            found.append((3, game, "one order names a winner, the other a tie"))
        elif lead * (game.len_a - game.len_b) > 0:
            found.append((4, game, "both orders name the longer answer"))
    return sorted(found, key=lambda row: (row[0], -abs(row[1].len_a - row[1].len_b)))


def plain(text: Any, limit: int = 80) -> Markup:
    """A text on one line as it is: what Markdown or HTML would read in it becomes &#...;.

    Safe in a table's cell, in a heading and within a sentence, though not at the beginning of a
    line, where "1." or "-" makes a list. "a|b" -> "a&#124;b"
    """
    text = " ".join(visible(str(text)).split())
    text = text if len(text) <= limit else text[: limit - 1] + "…"
    return Markup(_ACTIVE.sub(lambda found: f"&#{ord(found[0])};", text))


_FOLDER = textwrap.TextWrapper(100, expand_tabs=False, replace_whitespace=False,
                               drop_whitespace=False, break_on_hyphens=False)
# All punctuation but -,%+'()/ and: a colon before a space, a full stop unless it makes an address.
_ACTIVE = re.compile(r"[!-$&*;-@\[-`{-~]|:(?! )|(?<=www)\.")


def fenced(text: str, limit: int = 1_200) -> Markup:
    """A text in a fence longer than any in it, cut with a note where it is longer than `limit`.
    Lines are folded at 100 columns, since GitHub does not."""
    text = visible(text)
    if not text.strip():
        return Markup("(empty 빈 글)")
    more = len(text) - limit
    # A Korean letter is two columns wide: "\0", which no visible text has, stands for the second.
    wide = "".join(c + "\0" * (east_asian_width(c) in "WF") for c in text[:limit])
    folded = ("\n".join(_FOLDER.wrap(line)) for line in wide.split("\n"))
    shown = "\n".join(folded).replace("\0", "")
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", shown)), default=0))
    note = f"\n\n(cut 생략: {more:,} more characters in the journal)" if more > 0 else ""
    return Markup(f"{fence}text\n{shown}\n{fence}{note}")


def visible(text: str) -> str:
    """A text whose lines end in one way, and in which what acts without being seen is written out
    (as \\u202e, which turns lines round), but for the joints of emoji."""
    text = re.sub("\r\n?|[\v\f\x1c-\x1f\x85\u2028\u2029]", "\n", text)
    return "".join(c if c in "\n\t\u200d" or c.isprintable() or category(c) == "Zs"
                   else f"\\u{ord(c):04x}" for c in text)


def percent(share: float | tuple[float, float]) -> str:
    """A share or the two ends of an interval: (0.5, 0.75) -> "50.0% to 75.0%"."""
    return " to ".join(f"{one:.1%}" for one in (share if isinstance(share, tuple) else [share]))


# Whatever a page writes goes through `plain`, unless it is Markdown already.
_PAGES = Environment(loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined,
                     autoescape=True, trim_blocks=True, keep_trailing_newline=True,
                     finalize=lambda text: text if isinstance(text, Markup) else plain(text))
_PAGES.filters |= {"plain": plain, "fenced": fenced, "percent": percent}
