"""Every figure of the course, each a function that returns a matplotlib Figure.

Labels are short and in both languages, so one figure serves both editions; the caller gives the
title. Hangul needs a font that neither Colab nor most machines have: NanumGothic is taken from the
files of koreanize-matplotlib and becomes matplotlib's font from the first figure on.
"""

import importlib.util
import math
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from course_utils import CourseError
from course_utils.korean import verb_object
from course_utils.stats import BattleSummary, VerdictSummary, wilson_interval
from course_utils.tasks import Task

# Okabe and Ito's colours, which the colour-blind can tell apart.
BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#00805E"
GREY, PALE, INK = "#9AA0A6", "#E4E7EA", "#333333"
TILES = (BLUE, ORANGE, GREEN, "#9C4A7B", "#50616D", "#8A6A00")


def use_korean_font() -> str:
    """Make NanumGothic matplotlib's font, for your own plots as well, and return its name.

    Raises CourseError when the font files are not installed.
    """
    known = {entry.fname for entry in font_manager.fontManager.ttflist}
    for path in (_font_file("NanumGothic.ttf"), _font_file("NanumGothicBold.ttf")):
        if str(path) not in known:
            font_manager.fontManager.addfont(path)
    mpl.rcParams["font.family"] = ["NanumGothic", "DejaVu Sans"]
    mpl.rcParams["axes.unicode_minus"] = False
    return "NanumGothic"


def funnel(report: Any, *, title: str = "") -> Figure:
    """What became of the generated candidates: how many were kept, and why the others were not.

    `report` has kept (a number) and rejected (reason -> number), as a GenerationReport does.
    """
    rows = sorted(report.rejected.items(), key=lambda row: -row[1])
    total = report.kept + sum(count for _, count in rows)
    names = ["kept 남김", *(reason for reason, _ in rows)]
    counts = [report.kept, *(count for _, count in rows)]
    fig, ax = _axes(title, height=1.1 + 0.32 * len(names))
    places = range(len(names))
    ax.barh(places, counts, height=0.68, color=[BLUE] + [GREY] * len(rows))
    for place, count in zip(places, counts, strict=True):
        share = count / total if total else 0
        _label(ax, (count, place), f"{count:,}  ({share:.1%})", dx=5)
    ax.set_yticks(places, names)
    ax.invert_yaxis()
    ax.set_xlim(0, max(counts, default=0) * 1.22 or 1)
    ax.xaxis.set_major_formatter("{x:,.0f}")
    ax.set_xlabel(f"tasks 과제 (total 전체 {total:,})")
    _hide(ax, "left", ticks="y")
    return fig


def loss_curve(log: Sequence[Mapping[str, float]], *, title: str = "") -> Figure:
    """The training loss by optimiser step, from the Trainer's log rows that have step and loss.

    The line is a running mean over a twentieth of the rows; the dots are the rows themselves.
    """
    rows = [(row["step"], row["loss"]) for row in log if "loss" in row]
    if not rows:
        raise CourseError("The log holds no row with a loss, so there is no curve to draw.")
    steps, losses = zip(*rows, strict=True)
    half = len(losses) // 40
    smooth = [fmean(losses[max(0, i - half) : i + half + 1]) for i in range(len(losses))]
    fig, ax = _axes(title, height=3.2)
    ax.plot(steps, losses, "o", markersize=3, color=BLUE, alpha=0.35, markeredgewidth=0)
    ax.plot(steps, smooth, color=BLUE, linewidth=1.8)
    _label(ax, (steps[0], losses[0]), f"{losses[0]:.2f}", dx=5, dy=8, color=BLUE)
    _label(ax, (steps[-1], smooth[-1]), f"{smooth[-1]:.2f}", dx=7, dy=5, color=BLUE)
    ax.set_ylim(0, max(losses) * 1.12)
    span = (steps[-1] - steps[0]) or 1
    ax.set_xlim(steps[0] - 0.05 * span, steps[-1] + 0.1 * span)  # room for the last label
    ax.xaxis.set_major_locator(mpl.ticker.MaxNLocator(integer=True))
    ax.set_xlabel("step 스텝")
    ax.set_ylabel("loss 손실")
    ax.grid(axis="y", color=PALE)
    return fig


def before_after(
    before: Mapping[str, float],
    after: Mapping[str, float],
    titles: Mapping[str, str] | None = None,
    *,
    title: str = "",
) -> Figure:
    """Share of right answers by family, untuned and tuned: {family: 0..1}, the best at the top.

    `titles` gives the families readable names.
    """
    names = sorted(after, key=lambda name: (after[name], before[name], name))
    fig, ax = _axes(title, height=1.2 + 0.32 * len(names))
    for place, name in enumerate(names):
        old, new = before[name], after[name]
        ax.plot([old, new], [place, place], color=GREY, linewidth=2, alpha=0.6, zorder=1)
        right = new >= old
        _label(ax, (new, place), f"{new:.0%}", dx=8 if right else -8, color=BLUE)
    for shares, name, color in [(before, "before 전", ORANGE), (after, "after 후", BLUE)]:
        values = [shares[name] for name in names]
        ax.plot(values, range(len(names)), "o", color=color, markersize=7, label=name)
    ax.legend(
        loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False,
        borderaxespad=0, handletextpad=0, labelcolor="linecolor", fontsize=9,
    )  # fmt: skip
    ax.set_yticks(range(len(names)), [(titles or {}).get(name, name) for name in names])
    ax.set_ylim(-0.6, len(names) - 0.4)
    ax.set_xlim(-0.03, 1.1)
    _percent(ax, "exact match 정답률")
    _hide(ax, "left", ticks="y")
    return fig


def variants(
    measured: Mapping[str, Any],
    names: Mapping[str, str] | None = None,
    *,
    title: str = "",
) -> Figure:
    """Exact match of several ways to train: one dot a seed, a bar for the 95% interval of all.

    `measured` is what tests/benchmarks/tuning.py writes. The bar (Wilson) covers the choice of
    prompts; how far the dots lie apart shows what the seed alone can do. `names` gives the variants
    readable names.
    """
    found: dict[str, list[float]] = {}
    prompts = measured["per_family"] * len(measured["before"])
    for run in measured["runs"]:
        found.setdefault(run["variant"], []).append(run["mean"])
    fig, ax = _axes(title, height=1.2 + 0.42 * len(found))
    for place, means in enumerate(found.values()):
        color = ORANGE if place and max(means) < min(next(iter(found.values()))) else BLUE
        total = prompts * len(means)
        low, high = wilson_interval(fmean(means) * total, total)
        ax.plot([low, high], [place, place], color=color, linewidth=9, alpha=0.3)
        ax.plot(means, [place] * len(means), "o", color=color, markersize=6)
        _label(ax, (1.0, place), f"{fmean(means):.1%}", dx=8, color=color)
    ax.set_yticks(range(len(found)), [(names or {}).get(name, name) for name in found])
    ax.set_ylim(len(found) - 0.5, -0.6)
    ax.set_xlim(0, 1)
    _percent(ax, "exact match on held-out prompts 떼어 둔 문제의 정답률")
    _hide(ax, "left", ticks="y")
    return fig


def win_rate(
    summary: BattleSummary,
    one_order: Mapping[str, VerdictSummary] | None = None,
    truth: float | None = None,
    *,
    title: str = "",
) -> Figure:
    """Win rates with 95% intervals: both orders, then each order alone under its own label.

    `truth` is drawn as a line where the true win rate is known, as in the simulated world.
    """
    rows = [("both orders 두 순서", summary.win_rate, summary.interval, BLUE)]
    rows += [(n, s.win_rate, s.interval, ORANGE) for n, s in (one_order or {}).items()]
    fig, ax = _intervals(rows, title=title, line=truth)
    _label(ax, (0.5, -0.9), "even 대등", dx=4)
    if truth is not None:
        ax.axvline(truth, color=INK, linewidth=1.1, linestyle="--", zorder=0)
        _label(ax, (truth, -0.55), f"truth 참값 {truth:.1%}", dx=4)
    _percent(ax, "win rate 승률")
    return fig


def category_win_rates(summaries: Mapping[str, BattleSummary], *, title: str = "") -> Figure:
    """Win rates by category with 95% intervals and the number of questions, as in LogicKor."""
    rows = [
        (f"{_literal(name)} ({summary.n})", summary.win_rate, summary.interval, BLUE)
        for name, summary in summaries.items()
    ]
    fig, ax = _intervals(rows, title=title)
    _label(ax, (0.5, -0.9), "even 대등", dx=4)
    _percent(ax, "win rate 승률 (questions 문항)")
    return fig


def judge_bias(summary: BattleSummary, *, title: str = "") -> Figure:
    """How often the judge names the answer shown first and the longer one, with 95% intervals."""
    found = {
        "first position 앞자리": (summary.first_position, "verdicts 판정"),
        "longer answer 긴 답변": (summary.longer_answer, "questions 문항"),
    }
    rows = [
        (f"{name}\n({rate.n} {unit})", rate.value, rate.interval, ORANGE)
        for name, (rate, unit) in found.items()
        if rate
    ]
    fig, ax = _intervals(rows, title=title, spacing=0.7)
    _label(ax, (0.5, -0.9), "no lean 치우침 없음", dx=4)
    _percent(ax, "named by the judge 심사자가 고른 비율")
    return fig


def grade_histogram(grades: Mapping[str, Sequence[int]], *, title: str = "") -> Figure:
    """How many answers of each model got each grade from 1 to 10; a model's name with its mean."""
    fig, ax = _axes(title, height=3.2)
    width = 0.84 / max(1, len(grades))
    tallest = 1
    for k, ((name, scores), color) in enumerate(zip(grades.items(), TILES, strict=False)):
        counts = Counter(scores)
        places = [grade + (k - (len(grades) - 1) / 2) * width for grade in counts]
        mean = f"{fmean(scores):.2f}" if scores else "-"
        label = f"{_literal(name)}: mean 평균 {mean} ({len(scores)})"
        ax.bar(places, counts.values(), width=0.92 * width, color=color, label=label)
        tallest = max([tallest, *counts.values()])
    ax.set_ylim(0, tallest * (1.08 + 0.1 * len(grades)))  # room for the names
    ax.legend(loc="upper left", frameon=False, fontsize=9, labelcolor="linecolor")
    ax.set_xticks(range(1, 11))
    ax.set_xlim(0.4, 10.6)
    ax.yaxis.set_major_locator(mpl.ticker.MaxNLocator(5, integer=True))
    ax.set_xlabel("grade 점수")
    ax.set_ylabel("answers 답변")
    ax.grid(axis="y", color=PALE)
    return fig


def similarity_histogram(
    before: Sequence[float],
    after: Sequence[float],
    *,
    threshold: float | None = 0.7,
    title: str = "",
) -> Figure:
    """How close each task is to its nearest one (ROUGE-L, 0..1), before and after the filter."""
    fig, ax = _axes(title, height=3.2)
    edges = [i / 20 for i in range(21)]
    name = f"before 전 ({len(before):,})"
    ax.hist(before, bins=edges, color=GREY, alpha=0.5, histtype="stepfilled", label=name)
    name = f"after 후 ({len(after):,})"
    ax.hist(after, bins=edges, color=BLUE, linewidth=1.8, histtype="step", label=name)
    if threshold is not None:
        ax.axvline(threshold, color=ORANGE, linewidth=1.3, linestyle="--")
        high = ax.get_ylim()[1]
        _label(ax, (threshold, high * 0.97), f"threshold 기준 {threshold:g}", dx=5, color=ORANGE)
    ax.set_xlim(0, 1)
    ax.set_xlabel("ROUGE-L to the nearest task 가장 비슷한 과제와의 ROUGE-L")
    ax.set_ylabel("tasks 과제")
    ax.grid(axis="y", color=PALE)
    ax.legend(loc="upper left", frameon=False)
    return fig


def threshold_choice(
    kept: Mapping[str, Mapping[float, float]],
    agreement: Mapping[str, Mapping[float, tuple[float, float, float]]],
    *,
    chosen: tuple[str, float] | None = None,
    title: str = "",
) -> Figure:
    """What each kind of token keeps at each threshold, beside how often it agrees with people.

    `kept` is {tokens: {threshold: share}} and `agreement` {tokens: {threshold: (accuracy, low,
    high)}}, all from 0 to 1. `chosen` is the (tokens, threshold) to mark.
    """
    fig, (left, right) = _panels(3.2, 2, title=title)
    apart = 0.0
    for k, (name, color) in enumerate(zip(kept, TILES, strict=False)):
        left.plot(*zip(*sorted(kept[name].items()), strict=True), "o-", color=color, label=name)
        rows = sorted(agreement.get(name, {}).items())
        apart = (k - (len(kept) - 1) / 2) * 0.012  # so that intervals stand side by side
        places = [threshold + apart for threshold, _ in rows]
        right.plot(places, [rate for _, (rate, _, _) in rows], "o-", color=color)
        for place, (_, (_, low, high)) in zip(places, rows, strict=True):
            right.plot([place, place], [low, high], color=color, linewidth=3, alpha=0.35)
    for ax, name in ((left, "kept 남긴 비율"), (right, "agreement with people 사람과의 일치")):
        ax.set_title(name, loc="left", fontsize=9, color=INK)
        ax.yaxis.set_major_formatter(mpl.ticker.PercentFormatter(1, decimals=0))
        ax.grid(axis="y", color=PALE)
        if chosen:
            ax.axvline(chosen[1], color=INK, linewidth=1.1, linestyle=":", zorder=0)
    if chosen:
        place = (chosen[1], kept[chosen[0]][chosen[1]])
        left.plot(*place, "o", markersize=13, markerfacecolor="none", markeredgecolor=INK)
    left.set_ylim(0, 1.03)
    left.legend(loc="lower right", frameon=False, labelcolor="linecolor", fontsize=9)
    fig.supxlabel("threshold 기준 (ROUGE-L)", fontsize=10, color=INK)
    return fig


def lengths(tasks: Sequence[Task], *, title: str = "") -> Figure:
    """How long instructions, inputs and outputs are, in 어절 (words between spaces).

    A panel's number is how many tasks have that part at all. The last bar holds whatever is longer
    than 99% of the texts.
    """
    parts = {"instruction": "instruction 지시문", "input": "input 입력", "output": "output 출력"}
    fig, panels = _panels(2.7, 3, title=title)
    for ax, (part, name), color in zip(panels, parts.items(), TILES, strict=False):
        words = sorted(n for task in tasks if (n := len(getattr(task, part).split())))
        end = words[(len(words) - 1) * 99 // 100] if words else 1
        width = math.ceil(end / 25)
        bars = Counter((min(n, end) - 1) // width for n in words)
        places = [(bar + 0.5) * width + 0.5 for bar in bars]
        ax.bar(places, bars.values(), width=0.92 * width, color=color)
        ax.set_title(f"{name} ({len(words):,})", loc="left", fontsize=9, color=INK)
        ax.set_xlim(0.5, (end + width) // width * width + 0.5)
        ax.set_ylim(0, max(bars.values(), default=1) * 1.25)
        if words and words[-1] > end:
            last = max(bars)
            place = ((last + 0.5) * width + 0.5, bars[last] + 0.01 * max(bars.values()))
            style = {"ha": "center", "va": "bottom", "rotation": 90, "fontsize": 8, "color": INK}
            ax.text(*place, f" {last * width + 1}+", **style)
        if words:
            middle = median(words)
            ax.axvline(middle, color=INK, linewidth=1.1, linestyle="--")
            dx = 4 if middle < 0.55 * end else -4
            _label(ax, (middle, ax.get_ylim()[1] * 0.94), f"median 중앙값 {middle:g}", dx=dx)
        ax.xaxis.set_major_locator(mpl.ticker.MaxNLocator(5, integer=True))
        ax.yaxis.set_major_locator(mpl.ticker.MaxNLocator(4, integer=True))
        ax.yaxis.set_major_formatter("{x:,.0f}")
        ax.grid(axis="y", color=PALE)
    panels[0].set_ylabel("tasks 과제")
    fig.supxlabel("words 어절", fontsize=10, color=INK)
    return fig


def verb_objects(tasks: Sequence[Task], *, verbs: int = 18, title: str = "") -> Figure:
    """What the instructions ask for: the most frequent verbs and the objects of each, by area.

    Verb and object are those of `korean.verb_object`; a verb's palest tile holds its rarer objects
    and the instructions without one. After Self-Instruct (Wang et al., 2023), figure 3.
    """
    found = [pair for task in tasks if (pair := verb_object(task.instruction))]
    counts = Counter(verb for verb, _ in found)
    top = counts.most_common(verbs)
    shown = sum(count for _, count in top)
    width, height = 7.3, 4.7  # the axes are in inches: tiles and texts are compared in one unit
    fig, ax = _axes(title, height + 0.8)
    ax.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    places = _tiles([count for _, count in top], (0, 0, width, height))
    for k, ((verb, count), (x, y, w, h)) in enumerate(zip(top, places, strict=True)):
        head, color = min(0.23, h / 2), TILES[k % len(TILES)]
        names = (f"{verb} {count:,}", verb)
        _tile(ax, (x, y, w, head), color, names, color="white", bold=True)
        objects = Counter(noun for v, noun in found if v == verb and noun).most_common()
        readable = 0.1 * shown / (width * height)  # how many tasks a tenth of a square inch is
        objects = [(noun, n) for noun, n in objects if n >= readable]
        named = sum(n for _, n in objects)
        body, other = _tiles([named, count - named], (x, y + head, w, h - head))
        _tile(ax, other, _mix(color, 0.1))
        tiles = _tiles([n for _, n in objects], body)
        for (noun, _), tile in zip(objects, tiles, strict=True):
            half = (len(noun) + 1) // 2
            folded = [] if noun.isascii() else [f"{noun[:half]}\n{noun[half:]}"]
            _tile(ax, tile, _mix(color, 0.26), [noun, *folded])
    share = shown / len(tasks) if tasks else 0
    ax.set_xlabel(
        f"{len(top)} of {len(counts)} verbs 동사, {share:.0%} of {len(tasks):,} tasks 과제"
        " (palest 옅은 칸: other or no object 그 밖)", fontsize=9,
    )  # fmt: skip
    return fig


def _font_file(name: str) -> Path:
    # Only found, never imported: its code needs distutils, which Python 3.12 removed.
    package = importlib.util.find_spec("koreanize_matplotlib")
    if package is None:
        raise CourseError(
            "There is no font for Hangul in figures: run `pip install koreanize-matplotlib`."
        )
    return Path(package.submodule_search_locations[0]) / "fonts" / name


def _axes(title: str, height: float) -> tuple[Figure, Axes]:
    fig, (ax,) = _panels(height, title=title)
    return fig, ax


def _panels(height: float, columns: int = 1, *, title: str) -> tuple[Figure, Sequence[Axes]]:
    use_korean_font()
    fig, panels = plt.subplots(
        1, columns, figsize=(7.5, height), layout="constrained", dpi=110, squeeze=False
    )
    plt.close(fig)  # a notebook shows what a cell returns; pyplot would show it a second time
    # By file and not by weight: matplotlib's versions disagree on how heavy this font is.
    style = {"fontproperties": _font_file("NanumGothicBold.ttf"), "fontsize": 11, "color": INK}
    if columns == 1:
        panels[0][0].set_title(title, loc="left", **style)
    elif title:
        fig.suptitle(title, x=0.01, ha="left", **style)
    for ax in panels[0]:
        for side in ("top", "right"):
            ax.spines[side].set_visible(False)
        for side in ("left", "bottom"):
            ax.spines[side].set_color(GREY)
        ax.tick_params(color=GREY, labelcolor=INK, labelsize=9)
        ax.xaxis.label.set_color(INK)
        ax.yaxis.label.set_color(INK)
        ax.set_axisbelow(True)
        ax.grid(False)
    return fig, panels[0]


def _intervals(
    rows: Sequence[tuple[str, float, tuple[float, float], str]],
    *,
    title: str,
    line: float | None = None,
    spacing: float = 0.45,
) -> tuple[Figure, Axes]:
    """Shares with their intervals, (name, share, (low, high), colour) a row, around 50%."""
    fig, ax = _axes(title, height=1.5 + spacing * len(rows))
    for place, (_, share, (low, high), color) in enumerate(rows):
        ax.plot([low, high], [place, place], color=color, linewidth=3, solid_capstyle="butt")
        ax.plot([share], [place], "o", color=color, markersize=8)
        text = f"{share:.1%}  [{low:.1%}, {high:.1%}]"
        _label(ax, (1.02, place), text, dx=8, color=color)
    ax.axvline(0.5, color=INK, linewidth=1.1, linestyle=":", zorder=0)
    ax.set_yticks(range(len(rows)), [name for name, *_ in rows], linespacing=1.5)
    ax.set_ylim(len(rows) - 0.5, -1.1)
    left = min([0.5, 0.5 if line is None else line, *(low for *_, (low, _), _ in rows)])
    ax.set_xlim(max(-0.02, left - 0.05), 1.02)
    _hide(ax, "left", ticks="y")
    return fig, ax


def _literal(text: str) -> str:
    """A name as it is: between two dollar signs matplotlib would see a formula."""
    return text.replace("$", r"\$")


def _tiles(sizes: Sequence[float], box: tuple[float, ...]) -> list[tuple[float, ...]]:
    """Divide a box (x, y, width, height) into tiles of these relative sizes, largest first.

    The sizes are cut into two halves of about the same sum, the box along its longer side.
    """
    if len(sizes) < 2:
        return [box] * len(sizes)
    total = sum(sizes)
    cut = min(range(1, len(sizes)), key=lambda i: abs(sum(sizes[:i]) - total / 2))
    part = sum(sizes[:cut]) / total
    x, y, w, h = box
    if w >= h:
        first, second = (x, y, w * part, h), (x + w * part, y, w * (1 - part), h)
    else:
        first, second = (x, y, w, h * part), (x, y + h * part, w, h * (1 - part))
    return _tiles(sizes[:cut], first) + _tiles(sizes[cut:], second)


def _tile(ax: Axes, box: tuple[float, ...], fill: Any, texts=(), color=INK, bold=False) -> None:
    """A filled tile (in inches) with the first of the texts that fits well, else the best."""
    x, y, w, h = box
    ax.add_patch(mpl.patches.Rectangle((x, y), w, h, facecolor=fill, edgecolor="white", lw=0.8))
    sizes = {}
    for text in texts:
        lines = text.split("\n")
        room = (72 * w - 4) / max(map(_ems, lines)), (72 * h - 3) / 1.3 / len(lines)
        sizes[text] = min(10.5, *room)
    text = next((text for text in sizes if sizes[text] >= 8), max(sizes, key=sizes.get, default=""))
    if text and sizes[text] >= 6.5:
        font = {"fontproperties": _font_file("NanumGothicBold.ttf")} if bold else {}
        style = {"color": color, "ha": "center", "va": "center", **font, "fontsize": sizes[text]}
        ax.text(x + w / 2, y + h / 2, text, **style)


def _ems(text: str) -> float:
    """About how wide a text is, in units of its size."""
    return sum(1 if unicodedata.east_asian_width(c) in "WF" else 0.62 for c in text) or 1


def _mix(color: str, share: float) -> tuple[float, ...]:
    """A colour on white, as opaque as `share` says."""
    return tuple(1 - share * (1 - part) for part in mpl.colors.to_rgb(color))


def _label(ax: Axes, point: tuple[float, float], text: str, dx=0, dy=0, color=INK) -> None:
    style = {"va": "center", "ha": "left" if dx >= 0 else "right", "fontsize": 9}
    ax.annotate(text, point, (dx, dy), textcoords="offset points", color=color, **style)


def _hide(ax: Axes, spine: str, ticks: str) -> None:
    ax.spines[spine].set_visible(False)
    ax.tick_params(axis=ticks, length=0)


def _percent(ax: Axes, name: str) -> None:
    ax.xaxis.set_major_formatter(mpl.ticker.PercentFormatter(1, decimals=0))
    ax.set_xlabel(name)
    ax.grid(axis="x", color=PALE)
