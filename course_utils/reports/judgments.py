"""The report of a set of judgments: one folder with report.md and its figures, to read on GitHub.

What a number cannot show is in it as well: every invalid judgment with its reason, and the
disagreements that teach most, with both answers and what the judge said in either order. Texts of
models are escaped or fenced, so that no answer can change the page. (A Markdown library would not
help: those that are well kept read Markdown, and none writes any text safely into it.)
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from statistics import fmean
from typing import Any

from course_utils import CourseError
from course_utils.judge import ORDERS, Item, Judgment, check_items
from course_utils.korean import language_flag
from course_utils.stats import (
    BattleSummary,
    Game,
    Grade,
    StatsError,
    judge_bias,
    paired_difference,
    summarize_battle,
    summarize_grades,
    summarize_repeats,
)
from course_utils.tasks import write_atomic

LISTED = 100  # rows of one list
FIGURES = ("win_rate.png", "categories.png", "grades.png", "bias.png")


def write_judgment_report(
    folder: str | Path,
    items: Iterable[Item] = (),
    judgments: Iterable[Judgment] = (),
    *,
    grades: Mapping[str, tuple[Iterable[Item], Iterable[Judgment]]] | None = None,
    names: tuple[str, str] = ("a", "b"),
    title: str = "Judgments 심사 보고서",
    most: int = 10,
    seed: int = 0,
) -> Path:
    """Write report.md and its figures into a folder, from a battle, from grades, or from both.

    `items` and `judgments` are what Judge.battle was given and left in Judge.judgments, `names` the
    models a and b; `grades` is {model: (items, judgments)} of Judge.grade, and the first two models
    are compared. What was judged several times counts with its first judgment. `most` disagreements
    are shown. Returns the path of report.md. Raises CourseError when there is nothing to report,
    and for judgments that do not belong to the items. Taught in 03.
    """
    a, b = names
    if a == b:
        raise CourseError(f"Both models are called {a!r}: give each its own name.")
    report = _Report(
        _Judged.read("battle", {a: "a", b: "b"}, items, judgments),
        {name: _Judged.read("grade", {name: "answer"}, *given)
         for name, given in (grades or {}).items()},
        seed,
        most,
    )
    if not report.battle.items and not report.grades:
        raise CourseError(
            "There is nothing to report: give the items and judgments of a battle, or "
            "grades={model: (items, judgments)}."
        )
    sections = [_opening, _win_rate, _categories, _grades, _bias, _repeats]
    sections += [_cost, _flags, _invalid, _disagreements]
    page = [f"# {plain(title, 200)}", *(part for section in sections for part in section(report))]
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name in FIGURES:
        if figure := report.figures.get(name):
            figure.savefig(folder / name, facecolor="white", metadata={"Software": None})
        else:  # left by a report of other judgments
            (folder / name).unlink(missing_ok=True)
    write_atomic(folder / "report.md", "\n\n".join(page) + "\n")
    return folder / "report.md"


@dataclass(frozen=True)
class _Judged:
    """A battle, or one model's grades: said[id, order] are the judgments of an item, by repeat.

    `sides` says which field of an item is whose answer: {"tuned": "a", "base": "b"}.
    """

    sides: dict[str, str]
    items: dict[str, Item]
    said: dict[tuple[str, str], list[Judgment]]

    @classmethod
    def read(cls, kind: str, sides: dict[str, str], items: Iterable[Item],
             judgments: Iterable[Judgment]) -> "_Judged":
        """Put the judgments in order; CourseError for those that do not belong to the items."""
        items = {item.id: item for item in check_items(items, *sides.values())}
        orders = ORDERS if kind == "battle" else ("",)
        said = {(id, order): [] for id in items for order in orders}
        for judgment in sorted(judgments, key=lambda judgment: judgment.repeat):
            if judgment.kind != kind:
                raise CourseError(
                    f"The judgment of {judgment.id} is a {judgment.kind} among those of a {kind}: "
                    "give a battle's judgments first, grades as grades={model: (items, judgments)}."
                )
            if judgment.id not in items:
                raise CourseError(f"There is a judgment of {judgment.id}, but no such item.")
            told = said[judgment.id, judgment.order]
            if told and told[-1].repeat == judgment.repeat:
                raise CourseError(f"Judged twice in one order and repeat: {judgment.id}.")
            told.append(judgment)
        return cls(sides, items, said)

    @property
    def judgments(self) -> list[Judgment]:
        return [judgment for told in self.said.values() for judgment in told]

    @property
    def asked(self) -> dict[str, str]:
        """What was asked for, by order."""
        names = list(self.sides)
        if len(names) == 1:
            return {"": f"grades of {names[0]}"}
        return {order: f"battle, {name} first" for order, name in zip(ORDERS, names, strict=True)}

    @property
    def games(self) -> list[Game]:
        """One game an item, of the first judgment in each order; a missing one is invalid."""
        first = {where: told[0].verdict if told else None for where, told in self.said.items()}
        return [
            Game(id, first[id, "ab"], first[id, "ba"], len(item.a), len(item.b))
            for id, item in self.items.items()
        ]

    @property
    def grades(self) -> list[Grade]:
        """One grade an item, of its first judgment; a missing one is invalid."""
        return [
            Grade(id, told[0].value, told[0].reason) if told else Grade(id, None)
            for (id, _), told in self.said.items()
        ]


@dataclass(frozen=True)
class _Report:
    battle: _Judged
    grades: dict[str, _Judged]
    seed: int
    most: int
    figures: dict[str, Any] = field(default_factory=dict)

    @property
    def parts(self) -> list[_Judged]:
        """Whatever was judged: the battle, if there is one, and each model's grades."""
        return [part for part in (self.battle, *self.grades.values()) if part.items]

    def summarize(self, games: Sequence[Game]) -> BattleSummary:
        return summarize_battle(games, seed=self.seed, allow_invalid=True)

    def draw(self, file: str, name: str, plot: str, data: Any) -> str:
        from course_utils import plots  # matplotlib only when something is drawn

        self.figures[file] = getattr(plots, plot)(data)
        return f"![{name}]({file})"


def _opening(report: _Report) -> Iterator[str]:
    models = sorted({j.model for part in report.parts for j in part.judgments if j.model})
    if any(model.startswith("simulated") for model in models):
        yield (
            "> **THE JUDGE WAS A SIMULATION. 이 판정은 모의 심사자가 한 것입니다.** It is a "
            "program with a known position bias and noise, made to learn the method with. None of "
            "these numbers says anything about a real model."
        )
    named = report.battle.sides if report.battle.items else report.grades
    judges = ", ".join(map(plain, models)) or "unknown"
    yield f"Models 모델: **{' and '.join(map(plain, named))}**. Judge 심사자: **{judges}**."


def _win_rate(report: _Report) -> Iterator[str]:
    if not report.battle.items:
        return
    a, b = map(plain, report.battle.sides)
    yield f"## Win rate of {a} against {b} 승률"
    try:
        found = report.summarize(report.battle.games)
    except StatsError as error:
        yield f"There is no win rate: {plain(str(error), 300)}"
        return
    rows = [
        ("win rate 승률", f"**{found.win_rate:.1%}**"),
        ("95% interval 신뢰구간", f"**{_span(found.interval)}**"),
        ("95% interval, bootstrap 부트스트랩", _span(found.bootstrap)),
        ("wins 승 (both orders)", found.wins),
        ("ties 무승부", found.ties - found.contradictions),
        ("contradictions 모순 (orders name different winners)", found.contradictions),
        ("losses 패 (both orders)", found.losses),
        ("questions 문항", found.n),
        ("sign test 부호 검정", f"p = {found.sign_test_p:.2g}"),
    ]
    if found.invalid:
        rows += [
            ("invalid 무효, left out", found.invalid),
            ("win rate if all of these were lost or won", _span((found.worst, found.best))),
        ]
    yield table([f"from the side of {a} 쪽에서", "both orders 두 순서"], rows)
    yield (
        "A question is won or lost when both orders agree; a tie or a contradiction is half a win. "
        "The interval is Tango's score interval over questions, which is Wilson's when there is no "
        "tie."
    )
    yield report.draw("win_rate.png", "win rate", "win_rate", found)


def _categories(report: _Report) -> Iterator[str]:
    if len({item.category for part in report.parts for item in part.items.values()}) < 2:
        return
    yield "## By category 유형별"
    if games := _by_category(report.battle.items.values(), report.battle.games):
        rows, summaries = [], {}
        for name, some in games.items():
            try:
                found = summaries[name] = report.summarize(some)
            except StatsError:  # nothing valid
                rows.append([plain(name), 0, *"------", len(some)])
                continue
            ties = found.ties - found.contradictions
            rows.append([
                plain(name), found.n, f"{found.win_rate:.1%}", _span(found.interval),
                found.wins, ties, found.contradictions, found.losses, found.invalid,
            ])  # fmt: skip
        yield table(
            ["category 유형", "n", "win rate 승률", "95% interval 구간", "wins 승", "ties 무",
             "contradictions 모순", "losses 패", "invalid 무효"], rows,
        )  # fmt: skip
        if summaries:
            text = "win rate by category"
            yield report.draw("categories.png", text, "category_win_rates", summaries)
    graded = [_by_category(one.items.values(), one.grades) for one in report.grades.values()]
    if graded:
        rows = [
            [
                plain(name),
                *(cell for one in graded for cell in _mean_cells(one.get(name, []), report)),
            ]
            for name in dict.fromkeys(name for one in graded for name in one)
        ]
        heads = [(f"{plain(name)} mean 평균", "95%", "n") for name in report.grades]
        yield table(["category 유형", *(cell for head in heads for cell in head)], rows)


def _by_category(items: Iterable[Item], results: Iterable) -> dict[str, list]:
    """What came of the items, by their category, in the items' order."""
    found: dict[str, list] = {}
    for item, result in zip(items, results, strict=True):
        found.setdefault(item.category or "-", []).append(result)
    return found


def _mean_cells(grades: Sequence[Grade], report: _Report) -> tuple:
    try:
        found = summarize_grades(grades, seed=report.seed, allow_invalid=True)
    except StatsError:  # nothing valid
        return "-", "-", 0
    low, high = found.bootstrap
    return f"{found.mean:.2f}", f"{low:.2f} to {high:.2f}", found.n


def _grades(report: _Report) -> Iterator[str]:
    if not report.grades:
        return
    rows, scores = [], {}
    for name, one in report.grades.items():
        scores[name] = [grade.score for grade in one.grades if grade.score is not None]
        invalid, bounds = len(one.grades) - len(scores[name]), "-"
        if invalid and scores[name]:
            found = summarize_grades(one.grades, seed=report.seed, allow_invalid=True)
            bounds = f"{found.worst:.2f} to {found.best:.2f}"
        rows.append([plain(name), *_mean_cells(one.grades, report), invalid, bounds])
    yield "## Grades 점수"
    yield table(
        ["model 모델", "mean grade 평균", "95% interval 구간", "n", "invalid 무효",
         "mean if these were 1 or 10"], rows,
    )  # fmt: skip
    if len(report.grades) > 1:
        yield _difference(*list(report.grades.values())[:2], report.seed)
    yield report.draw("grades.png", "grades", "grade_histogram", scores)


def _difference(one: _Judged, other: _Judged, seed: int) -> str:
    a, b = (plain(name) for judged in (one, other) for name in judged.sides)
    try:
        found = paired_difference(one.grades, other.grades, seed=seed, allow_invalid=True)
    except StatsError as error:
        return f"No comparison of {a} and {b}: {plain(str(error), 300)}"
    low, high = found.bootstrap
    return (
        f"On the same {found.n} questions {a} is graded **{found.mean:+.2f}** against {b} (95% "
        f"interval {low:+.2f} to {high:+.2f}): higher on {found.wins}, equal on {found.ties}, "
        f"lower on {found.losses}; sign test p = {found.sign_test_p:.2g}."
    )


def _bias(report: _Report) -> Iterator[str]:
    valid = [game for game in report.battle.games if game.score is not None]
    bias = judge_bias(valid)
    if not bias.first:
        return
    consistent = fmean(game.first == game.second for game in valid)
    rows = [
        ("the same verdict in both orders 일관성", f"{consistent:.1%} of {len(valid)}", "", "100%")
    ]
    for name, rate in (
        ("the answer shown first 앞자리", bias.first),
        ("the longer answer 긴 답변", bias.longer),
    ):
        if rate:
            share = f"{rate.value:.1%} of {rate.n}"
            rows.append((f"named: {name}", share, _span(rate.interval), "50%"))
    yield "## Position and length 자리와 길이"
    yield table(["", "share 비율", "95% interval 구간", "a judge that minds neither"], rows)
    yield "A longer answer may be the better one: its rate is a hint, that of position a fault."
    yield report.draw("bias.png", "position and length", "judge_bias", bias)


def _repeats(report: _Report) -> Iterator[str]:
    rows = []
    for part in report.parts:
        for order, what in part.asked.items():
            told = [
                [j.value for j in row] for (_, shown), row in part.said.items() if shown == order
            ]
            k = max(map(len, told))
            if k > 1:  # a repeat that is missing is invalid
                whole = [row + [None] * (k - len(row)) for row in told]
                rows.append([plain(what), k, *_repeat_cells(whole)])
    if rows:
        yield "## Asked again 반복"
        yield table(
            ["", "times asked", "n", "all equal 모두 같음", "95% interval 구간",
             "mean deviation 평균 편차", "invalid 무효"], rows,
        )  # fmt: skip


def _repeat_cells(rows: list[list]) -> tuple:
    try:
        found = summarize_repeats(rows, allow_invalid=True)
    except StatsError:  # nothing valid
        return 0, "-", "-", "-", len(rows)
    deviation = "-" if found.deviation is None else f"{found.deviation:.2f}"
    return found.n, f"{found.unanimous:.1%}", _span(found.wilson), deviation, found.invalid


def _cost(report: _Report) -> Iterator[str]:
    parts = {
        "battle 비교" if part is report.battle else f"grades of {next(iter(part.sides))} 채점":
        part.judgments for part in report.parts
    }
    parts["all 전체"] = [judgment for told in parts.values() for judgment in told]
    rows = []
    for name, told in parts.items():
        asked = sum(judgment.key != "" for judgment in told)
        invalid = sum(judgment.verdict is None for judgment in told)
        cost = f"{sum(judgment.cost for judgment in told):.4f}"
        rows.append((plain(name), len(told), asked, invalid, cost))
    yield "## Calls and cost 호출과 비용"
    yield table(
        ["", "judgments 판정", "asked of the judge 물음", "invalid 무효", "cost 비용 (USD)"], rows
    )
    yield (
        "Two identical answers are a tie without asking. Cost is what the replies cost when they "
        "were first asked for, 0 for a client without a price."
    )


def _flags(report: _Report) -> Iterator[str]:
    flags = dict.fromkeys(  # an answer that is in the battle and graded as well is named once
        (item.id, name, reason)
        for part in report.parts
        for item in part.items.values()
        for name, field in part.sides.items()
        if (reason := language_flag(getattr(item, field), item.answer_lang))
    )
    yield "## Language flags 언어 표시"
    if not flags:
        yield "No answer is flagged 없음."
        return
    yield (
        f"{len(flags)} flagged: not in the language that was asked for, as it seems, or empty. A "
        "flag changes no grade and no verdict: read the answer."
    )
    rows = [tuple(map(plain, flag)) for flag in flags]
    yield from _listed(["question 문항", "model 모델", "flag 표시"], rows)


def _invalid(report: _Report) -> Iterator[str]:
    rows = []
    for part in report.parts:
        for (id, order), told in part.said.items():
            failed = [(j.invalid or "invalid", j.error) for j in told if j.verdict is None]
            if not told:
                failed = [("not judged", "There is no judgment.")]
            rows += [
                (plain(id), plain(part.asked[order]), plain(why), plain(error, 300))
                for why, error in failed
            ]
    yield "## Invalid judgments 무효 판정"
    if not rows:
        yield "None 없음."
        return
    counted = ", ".join(f"{why} {n}" for why, n in Counter(row[2] for row in rows).most_common())
    yield (
        f"{len(rows)} invalid: {counted}. None of them became a number or a tie; the "
        "summaries leave their questions out and say so."
    )
    yield from _listed(["question 문항", "asked for", "failure 실패", "what happened"], rows)


def _disagreements(report: _Report) -> Iterator[str]:
    battle = report.battle
    if not battle.items:
        return
    yield "## Disagreements worth reading 읽어 볼 엇갈림"
    yield (
        "Chosen by rule, in this order: the two orders name different winners; the grades prefer "
        "the other model; one order names a winner, the other a tie; both orders name the longer "
        "answer. Within each, the greatest difference in length comes first."
    )
    found = pick_disagreements(battle.games, _gains(report), report.most)
    if not found:
        yield "There is none among the valid questions 없음."
    a, b = map(plain, battle.sides)
    for number, one in enumerate(found, 1):
        item = battle.items[one.game.id]
        category = f" ({plain(item.category)})" if item.category else ""
        yield f"### {number}. {plain(item.id)}{category}: {one.why}"
        yield "**Question 질문**"
        yield fenced(item.question)
        if item.reference is not None:
            yield "**Reference 모범 답안**"
            yield fenced(item.reference)
        for name, answer in ((a, item.a), (b, item.b)):
            yield f"**Answer of {name} 답변** ({len(answer):,} characters 글자)"
            yield fenced(answer)
        for order, shown in zip(ORDERS, (a, b), strict=True):
            judgment = battle.said[item.id, order][0]
            winner = {"a": a, "b": b, "tie": "tie 무승부"}[judgment.verdict]
            yield f"**Judge 심사자, {shown} shown first: {winner}**"
            yield fenced(judgment.reason)


def _gains(report: _Report) -> dict[str, float]:
    """Grade of a minus grade of b, where both models of the battle were graded on a question."""
    if any(name not in report.grades for name in report.battle.sides):
        return {}
    of_a, of_b = ({g.id: g.score for g in report.grades[n].grades} for n in report.battle.sides)
    both = [id for id in of_a if of_a[id] is not None and of_b.get(id) is not None]
    return {id: of_a[id] - of_b[id] for id in both}


def _span(interval: tuple[float, float]) -> str:
    return f"{interval[0]:.1%} to {interval[1]:.1%}"


def _listed(head: Sequence[str], rows: Sequence[Sequence]) -> Iterator[str]:
    yield table(head, rows[:LISTED])
    if (more := len(rows) - LISTED) > 0:
        yield f"And {more:,} more."


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


# ---------------------------------------------------------------- texts of models in Markdown


def plain(text: str, limit: int = 80) -> str:
    """A text on one line as it is: what Markdown or HTML would read in it becomes &#...;.

    Safe in a table's cell, in a heading and within a sentence, though not at the beginning of a
    line, where "1." or "-" makes a list. "a|b" -> "a&#124;b"
    """
    text = " ".join(visible(str(text)).split())
    text = text if len(text) <= limit else text[: limit - 1] + "…"
    return _ACTIVE.sub(lambda found: f"&#{ord(found[0])};", text)


# All punctuation but -,%+' and: a colon before a space, a full stop unless it makes an address.
_ACTIVE = re.compile(r"[!-$&(*/;-@\[-`{-~)]|:(?! )|(?<=www)\.")


def fenced(text: str, limit: int = 1_200) -> str:
    """A text in a fence longer than any in it, cut with a note where it is longer than `limit`.

    Lines wider than a page are folded, since GitHub does not.
    """
    text = visible(text)
    if not text.strip():
        return "(empty 빈 글)"
    shown, more = "\n".join(map(_folded, text[:limit].split("\n"))), len(text) - limit
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", shown)), default=0))
    note = f"\n\n(cut 생략: {more:,} more characters in the journal)" if more > 0 else ""
    return f"{fence}text\n{shown}\n{fence}{note}"


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


def table(head: Sequence, rows: Iterable[Sequence]) -> str:
    """A table of cells that are Markdown already; `plain` makes them so."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def visible(text: str) -> str:
    """Lines end in one way, and what acts without being seen is written out, as \\u202e.

    Joined emoji stay joined; letters that turn round the direction of a line do not stay hidden.
    """
    text = re.sub("\r\n?|[\v\f\x1c-\x1f\x85\u2028\u2029]", "\n", text)
    return "".join(
        c
        if c in "\n\t\u200d" or c.isprintable() or unicodedata.category(c) == "Zs"
        else f"\\u{ord(c):04x}"
        for c in text
    )
