"""The report of a set of judgments: one folder with report.md and its figures, to read on GitHub.

What a number cannot show is in it as well: every invalid judgment with its reason, and the
disagreements that teach most, with both answers and what the judge said in either order. The page
stands in judgments.md.j2, the numbers are made here. Texts of models are escaped or fenced, so that
no answer can change the page. (A Markdown library would not help: those that are well kept read
Markdown, and none writes any text safely into it.)
"""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from course_utils import CourseError, stats
from course_utils.judge import ORDERS, Item, Judgment, check_items
from course_utils.korean import language_flag
from course_utils.tasks import write_atomic

LISTED = 100  # rows of one list
MOST = 10  # disagreements
FIGURES = {"win_rate.png": "win_rate", "categories.png": "category_win_rates",
           "grades.png": "grade_histogram", "bias.png": "judge_bias"}
"""The functions of plots that draw them."""

Judged = tuple[Iterable[Item], Iterable[Judgment]]


def write_judgment_report(folder: str | Path, items: Iterable[Item] = (),
                          judgments: Iterable[Judgment] = (), *,
                          grades: Mapping[str, Judged] | None = None,
                          names: tuple[str, str] = ("a", "b"),
                          title: str = "Judgments 심사 보고서") -> Path:
    """Write report.md and its figures into a folder, from a battle, from grades, or from both.

    `items` and `judgments` are what Judge.battle was given and left in Judge.judgments, `names` the
    models a and b; `grades` is {model: (items, judgments)} of Judge.grade, and the first two models
    are compared. What was judged several times counts with its first judgment. Returns the path of
    report.md. Raises CourseError when there is nothing to report, and for judgments that do not
    belong to the items. Taught in 03, section 13.
    """
    a, b = names
    if a == b:
        raise CourseError(f"Both models are called {a!r}: give each its own name.")
    battle = _Judged.read("battle 비교", {a: "a", b: "b"}, items, judgments)
    graded = {name: _Judged.read(f"grades of {name} 채점", {name: "answer"}, *given)
              for name, given in (grades or {}).items()}
    parts = [part for part in (battle, *graded.values()) if part.items]
    if not parts:
        raise CourseError("There is nothing to report: give the items and judgments of a battle, "
                          "or grades={model: (items, judgments)}.")
    told = [judgment for part in parts for judgment in part.judgments]
    models = sorted({judgment.model for judgment in told if judgment.model})
    found, why_not = _summary(stats.summarize_battle, battle.games)
    gain, no_gain = None, ""
    if len(graded) > 1:
        pair = [one.grades for one in graded.values()][:2]
        gain, no_gain = _summary(stats.paired_difference, *pair)
    scores = {name: {grade.id: grade.score for grade in one.grades if grade.score is not None}
              for name, one in graded.items()}
    of_a, of_b = scores.get(a, {}), scores.get(b, {})
    gains = {id: of_a[id] - of_b[id] for id in of_a.keys() & of_b.keys()}
    categories = _by_category(battle, graded)
    invalid = [row for part in parts for row in _invalid(part)]
    page = _template().render(
        title=title, a=a, b=b, battle=battle.items, listed=LISTED,
        models=names if battle.items else list(graded), judges=models or ["unknown"],
        simulated=any(model.startswith("simulated") for model in models),
        found=found, why_not=why_not, categories=categories, gain=gain, no_gain=no_gain,
        grades=[(name, _summary(stats.summarize_grades, one.grades)[0], len(one.grades))
                for name, one in graded.items()],
        repeats=[row for part in parts for row in _repeats(part)],
        costs={part.name: part.judgments for part in parts} | {"all 전체": told},
        flags=_flags(parts),
        invalid=invalid, failures=Counter(why for _, _, why, _ in invalid).most_common(),
        disagreements=[(battle.items[game.id], why,
                        {order: battle.said[game.id, order][0] for order in ORDERS})
                       for _, game, why in pick_disagreements(battle.games, gains)[:MOST]])
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    draw(folder, {
        "win_rate.png": found,
        "categories.png": {name: some for name, some, _ in categories.get("battle", []) if some},
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

    `sides` says which field of an item is whose answer: {"tuned": "a", "base": "b"}.
    """

    name: str
    sides: dict[str, str]
    items: dict[str, Item]
    said: dict[tuple[str, str], list[Judgment]]

    @classmethod
    def read(cls, name: str, sides: dict[str, str], items: Iterable[Item],
             judgments: Iterable[Judgment]) -> "_Judged":
        """Put the judgments in order; CourseError for those that do not belong to the items."""
        items = {item.id: item for item in check_items(items, *sides.values())}
        said = {(id, order): [] for id in items for order in (ORDERS if len(sides) > 1 else [""])}
        for judgment in sorted(judgments, key=lambda judgment: judgment.repeat):
            id, told = judgment.id, said.get((judgment.id, judgment.order))
            if id not in items:
                raise CourseError(f"There is a judgment of {id}, but no such item.")
            if told is None:
                kind = "battle" if judgment.order else "grade"
                raise CourseError(f"The judgment of {id} is a {kind} among those of {name}: give a "
                                  "battle's judgments first, grades as grades={model: (items, "
                                  "judgments)}.")
            if told and told[-1].repeat == judgment.repeat:
                raise CourseError(f"Judged twice in one order and repeat: {id}.")
            told.append(judgment)
        return cls(name, sides, items, said)

    @property
    def judgments(self) -> list[Judgment]:
        return [judgment for told in self.said.values() for judgment in told]

    @property
    def asked(self) -> dict[str, str]:
        """What was asked for, by order."""
        if len(self.sides) == 1:
            return {"": f"grades of {next(iter(self.sides))}"}
        shown_first = zip(ORDERS, self.sides, strict=True)
        return {order: f"battle, {name} first" for order, name in shown_first}

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


def _by_category(battle: _Judged, graded: Mapping[str, _Judged]) -> dict[str, list]:
    """(category, summary, questions) of the battle, (category, a summary a model) of the grades;
    nothing where there are no two categories."""
    games = _split(battle, battle.games)
    grades = [_split(one, one.grades) for one in graded.values()]
    categories = dict.fromkeys(name for one in grades for name in one)
    if len({*games, *categories}) < 2:
        return {}
    return {"battle": [(name, _summary(stats.summarize_battle, some)[0], len(some))
                       for name, some in games.items()],
            "grades": [(name, [_summary(stats.summarize_grades, one[name])[0] for one in grades])
                       for name in categories]}


def _split(part: _Judged, results: Iterable) -> dict[str, list]:
    found = defaultdict(list)
    for item, result in zip(part.items.values(), results, strict=True):
        found[item.category or "-"].append(result)
    return found


def _repeats(part: _Judged) -> Iterator[tuple]:
    """What was asked for, how often, on how many questions, how many of them got one and the same
    verdict (with the interval), the grades' mean deviation, and how many questions lack a verdict.
    """
    for order, what in part.asked.items():
        told = [[j.value for j in row] for (_, shown), row in part.said.items() if shown == order]
        times = max(map(len, told))
        whole = [row for row in told if len(row) == times and None not in row]
        n, same = len(whole), sum(len(set(row)) == 1 for row in whole)
        share, interval = (same / n, stats.wilson_interval(same, n)) if whole else (None, None)
        deviation = fmean(map(stdev, whole)) if whole and times > 1 and not order else None
        if times > 1:
            yield what, times, n, share, interval, deviation, len(told) - n


def _flags(parts: Iterable[_Judged]) -> list[tuple[str, str, str]]:
    """(question, model, flag), once for an answer that is in the battle and graded as well."""
    return list(dict.fromkeys(
        (item.id, name, flag)
        for part in parts for item in part.items.values() for name, field in part.sides.items()
        if (flag := language_flag(getattr(item, field), item.answer_lang))))


def _invalid(part: _Judged) -> Iterator[tuple[str, str, str, str]]:
    """(question, what was asked for, failure, what happened)."""
    for (id, order), told in part.said.items():
        if not told:
            yield id, part.asked[order], "not judged", "There is no judgment."
        for judgment in told:
            if judgment.verdict is None:
                yield id, part.asked[order], judgment.invalid or "invalid", judgment.error


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


def _template():
    """The page: whatever it writes goes through `plain`, unless it is Markdown already."""
    def percent(share: float | tuple[float, float]) -> str:
        return " to ".join(f"{one:.1%}" for one in (share if isinstance(share, tuple) else [share]))

    pages = Environment(loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined,
                        autoescape=True, trim_blocks=True, keep_trailing_newline=True,
                        finalize=lambda text: text if isinstance(text, Markup) else plain(text))
    pages.filters |= {"plain": plain, "fenced": fenced, "percent": percent}
    return pages.get_template("judgments.md.j2")


def plain(text: Any, limit: int = 80) -> Markup:
    """A text on one line as it is: what Markdown or HTML would read in it becomes &#...;.

    Safe in a table's cell, in a heading and within a sentence, though not at the beginning of a
    line, where "1." or "-" makes a list. "a|b" -> "a&#124;b"
    """
    text = " ".join(visible(str(text)).split())
    text = text if len(text) <= limit else text[: limit - 1] + "…"
    return Markup(_ACTIVE.sub(lambda found: f"&#{ord(found[0])};", text))


# All punctuation but -,%+' and: a colon before a space, a full stop unless it makes an address.
_ACTIVE = re.compile(r"[!-$&(*/;-@\[-`{-~)]|:(?! )|(?<=www)\.")


def fenced(text: str, limit: int = 1_200) -> Markup:
    """A text in a fence longer than any in it, cut with a note where it is longer than `limit`.

    Lines wider than a page are folded, since GitHub does not.
    """
    text = visible(text)
    if not text.strip():
        return Markup("(empty 빈 글)")
    shown, more = "\n".join(map(_folded, text[:limit].split("\n"))), len(text) - limit
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", shown)), default=0))
    note = f"\n\n(cut 생략: {more:,} more characters in the journal)" if more > 0 else ""
    return Markup(f"{fence}text\n{shown}\n{fence}{note}")


def _folded(line: str, width: int = 100) -> str:
    """A line as lines of at most `width` columns, a Korean letter being two of them wide."""
    lines = []
    while True:
        columns = accumulate(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in line)
        fits = sum(column <= width for column in columns)
        if fits == len(line):
            return "\n".join([*lines, line])
        end = line.rfind(" ", fits // 2, fits + 1) + 1 or fits
        lines.append(line[:end].rstrip(" "))
        line = line[end:]


def visible(text: str) -> str:
    """Lines end in one way, and what acts without being seen is written out, as \\u202e.

    Joined emoji stay joined; letters that turn round the direction of a line do not stay hidden.
    """
    text = re.sub("\r\n?|[\v\f\x1c-\x1f\x85\u2028\u2029]", "\n", text)
    return "".join(c if c in "\n\t\u200d" or c.isprintable() or unicodedata.category(c) == "Zs"
                   else f"\\u{ord(c):04x}" for c in text)
