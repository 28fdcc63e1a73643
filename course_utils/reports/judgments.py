"""The report of a set of judgments: one folder with report.md and its figures, to read on GitHub.

What a number cannot show is in it as well: every invalid judgment with its reason, and the
disagreements that teach most, with both answers and what the judge said in either order.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from course_utils import CourseError
from course_utils.agreement import summarize_repeats
from course_utils.intervals import StatsError
from course_utils.korean import language_flag
from course_utils.reports.judged import JudgedBattle, JudgedGrades, grade_of, pick_disagreements
from course_utils.reports.markdown import fenced, plain, table
from course_utils.stats import (
    BattleSummary,
    Game,
    Grade,
    judge_bias,
    paired_difference,
    summarize_battle,
    summarize_grades,
)
from course_utils.tasks import write_atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from course_utils.judge import Item, Judgment

LISTED = 100  # rows of one list
FIGURES = ("win_rate.png", "categories.png", "grades.png", "bias.png")


def write_judgment_report(
    folder: str | Path,
    items: "Iterable[Item]" = (),
    judgments: "Iterable[Judgment]" = (),
    *,
    grades: "Mapping[str, tuple[Iterable[Item], Iterable[Judgment]]] | None" = None,
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
    report = _Report(
        JudgedBattle.read(names, items, judgments),
        {name: JudgedGrades.read(name, *given) for name, given in (grades or {}).items()},
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
class _Report:
    battle: JudgedBattle
    grades: dict[str, JudgedGrades]
    seed: int
    most: int
    figures: "dict[str, Figure]" = field(default_factory=dict)

    @property
    def judgments(self) -> "list[Judgment]":
        graded = [judgment for one in self.grades.values() for judgment in one.judgments]
        return self.battle.judgments + graded

    @property
    def items(self) -> "list[Item]":
        graded = [item for one in self.grades.values() for item in one.items.values()]
        return [*self.battle.items.values(), *graded]

    def summarize(self, games: Sequence[Game]) -> BattleSummary:
        return summarize_battle(games, seed=self.seed, allow_invalid=True)

    def draw(self, file: str, name: str, plot: str, data: Any) -> str:
        from course_utils import plots  # matplotlib only when something is drawn

        self.figures[file] = getattr(plots, plot)(data)
        return f"![{name}]({file})"


def _opening(report: _Report) -> Iterator[str]:
    models = sorted({judgment.model for judgment in report.judgments if judgment.model})
    if any(model.startswith("simulated") for model in models):
        yield (
            "> **THE JUDGE WAS A SIMULATION. 이 판정은 모의 심사자가 한 것입니다.** It is a "
            "program with a known position bias and noise, made to learn the method with. None of "
            "these numbers says anything about a real model."
        )
    sides = " and ".join(
        plain(n) for n in (report.battle.names if report.battle.items else report.grades)
    )
    judges = ", ".join(map(plain, models)) or "unknown"
    yield f"Models 모델: **{sides}**. Judge 심사자: **{judges}**."


def _win_rate(report: _Report) -> Iterator[str]:
    if not report.battle.items:
        return
    a, b = map(plain, report.battle.names)
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
    if len({item.category for item in report.items}) < 2:
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


def _by_category(items: "Iterable[Item]", results: Iterable) -> dict[str, list]:
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


def _difference(one: JudgedGrades, other: JudgedGrades, seed: int) -> str:
    a, b = plain(one.name), plain(other.name)
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
    said = report.battle.said.values()
    asked = {
        f"battle, {shown} first": [[judgment.verdict for judgment in one[order]] for one in said]
        for order, shown in zip(("ab", "ba"), report.battle.names, strict=True)
    }
    for name, one in report.grades.items():
        asked[f"grades of {name}"] = [list(map(grade_of, told)) for told in one.said.values()]
    rows = []
    for name, told in asked.items():
        k = max(map(len, told), default=0)
        if k > 1:  # a repeat that is missing is invalid
            whole = [row + [None] * (k - len(row)) for row in told]
            rows.append([plain(name), k, *_repeat_cells(whole)])
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
    parts = {"battle 비교": report.battle.judgments} if report.battle.items else {}
    parts |= {f"grades of {name} 채점": one.judgments for name, one in report.grades.items()}
    parts["all 전체"] = report.judgments
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
    answers = report.battle.answers + [a for one in report.grades.values() for a in one.answers]
    flags = dict.fromkeys(  # an answer that is in the battle and graded as well is named once
        (item.id, name, reason)
        for item, name, answer in answers
        if (reason := language_flag(answer, item.answer_lang))
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
    asked = [
        (id, f"battle, {report.battle.names[order == 'ba']} first", told)
        for id, orders in report.battle.said.items()
        for order, told in orders.items()
    ]
    for name, one in report.grades.items():
        asked += [(id, f"grade of {name}", told) for id, told in one.said.items()]
    rows = []
    for id, what, told in asked:
        failed = [(j.invalid or "invalid", j.error) for j in told if j.verdict is None]
        if not told:
            failed = [("not judged", "There is no judgment.")]
        rows += [(plain(id), plain(what), plain(why), plain(error, 300)) for why, error in failed]
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
    a, b = map(plain, battle.names)
    for number, one in enumerate(found, 1):
        item, said = battle.items[one.game.id], battle.said[one.game.id]
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
        for order, shown in (("ab", a), ("ba", b)):
            judgment = said[order][0]
            winner = {"a": a, "b": b, "tie": "tie 무승부"}[judgment.verdict]
            yield f"**Judge 심사자, {shown} shown first: {winner}**"
            yield fenced(judgment.reason)


def _gains(report: _Report) -> dict[str, float]:
    """Grade of a minus grade of b, where both models of the battle were graded on a question."""
    if any(name not in report.grades for name in report.battle.names):
        return {}
    of_a, of_b = ({g.id: g.score for g in report.grades[n].grades} for n in report.battle.names)
    both = [id for id in of_a if of_a[id] is not None and of_b.get(id) is not None]
    return {id: of_a[id] - of_b[id] for id in both}


def _span(interval: tuple[float, float]) -> str:
    return f"{interval[0]:.1%} to {interval[1]:.1%}"


def _listed(head: Sequence[str], rows: Sequence[Sequence]) -> Iterator[str]:
    yield table(head, rows[:LISTED])
    if (more := len(rows) - LISTED) > 0:
        yield f"And {more:,} more."
