"""Every figure of the course, each a function that returns a matplotlib Figure.

Labels are short and in both languages, so one figure serves both editions; the caller gives the
title. Hangul needs a font that neither Colab nor most machines have: NanumGothic is taken from the
files of koreanize-matplotlib and becomes matplotlib's font from the first figure on.
"""

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from course_utils import CourseError
from course_utils.stats import BattleSummary, VerdictSummary

# Okabe and Ito's colours, which the colour-blind can tell apart.
BLUE, ORANGE, GREY, PALE, INK = "#0072B2", "#D55E00", "#9AA0A6", "#E4E7EA", "#333333"


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
    _label(ax, (steps[-1], smooth[-1]), f"{smooth[-1]:.2f}", dx=7, color=BLUE)
    ax.set_ylim(0, max(losses) * 1.12)
    ax.margins(x=0.06)
    ax.xaxis.set_major_locator(mpl.ticker.MaxNLocator(integer=True))
    ax.set_xlabel("step 학습 단계")
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


def win_rate(
    summary: BattleSummary,
    one_order: Mapping[str, VerdictSummary] | None = None,
    truth: float | None = None,
    *,
    title: str = "",
) -> Figure:
    """Win rates with 95% Wilson intervals: both orders, then each order alone under its own label.

    `truth` is drawn as a line where the true win rate is known, as in the simulated world.
    """
    rows = [("both orders 두 순서", summary.win_rate, summary.wilson, BLUE)]
    rows += [(n, s.win_rate, s.wilson, ORANGE) for n, s in (one_order or {}).items()]
    fig, ax = _axes(title, height=1.5 + 0.45 * len(rows))
    for place, (_, rate, (low, high), color) in enumerate(rows):
        ax.plot([low, high], [place, place], color=color, linewidth=3, solid_capstyle="butt")
        ax.plot([rate], [place], "o", color=color, markersize=8)
        text = f"{rate:.1%}  [{low:.1%}, {high:.1%}]"
        _label(ax, (1.02, place), text, dx=8, color=color)
    ax.axvline(0.5, color=INK, linewidth=1.1, linestyle=":", zorder=0)
    _label(ax, (0.5, -0.9), "even 대등", dx=4)
    if truth is not None:
        ax.axvline(truth, color=INK, linewidth=1.1, linestyle="--", zorder=0)
        _label(ax, (truth, -0.55), f"truth 참값 {truth:.1%}", dx=4)
    ax.set_yticks(range(len(rows)), [name for name, *_ in rows])
    ax.set_ylim(len(rows) - 0.5, -1.1)
    left = min(0.5, truth or 0.5, *(low for *_, (low, _), _ in rows))
    ax.set_xlim(max(-0.02, left - 0.05), 1.02)
    _percent(ax, "win rate 승률")
    _hide(ax, "left", ticks="y")
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


def _font_file(name: str) -> Path:
    # Only found, never imported: its code needs distutils, which Python 3.12 removed.
    package = importlib.util.find_spec("koreanize_matplotlib")
    if package is None:
        raise CourseError(
            "There is no font for Hangul in figures: run `pip install koreanize-matplotlib`."
        )
    return Path(package.submodule_search_locations[0]) / "fonts" / name


def _axes(title: str, height: float) -> tuple[Figure, Axes]:
    use_korean_font()
    fig, ax = plt.subplots(figsize=(7.5, height), layout="constrained", dpi=110)
    plt.close(fig)  # a notebook shows what a cell returns; pyplot would show it a second time
    # By file and not by weight: matplotlib's versions disagree on how heavy this font is.
    bold = _font_file("NanumGothicBold.ttf")
    ax.set_title(title, loc="left", fontproperties=bold, fontsize=11, color=INK)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        ax.spines[side].set_color(GREY)
    ax.tick_params(color=GREY, labelcolor=INK, labelsize=9)
    ax.xaxis.label.set_color(INK)
    ax.yaxis.label.set_color(INK)
    ax.set_axisbelow(True)
    ax.grid(False)
    return fig, ax


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
