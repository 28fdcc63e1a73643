"""Every figure of the course, each a function that returns a matplotlib Figure.

Labels are short and in both languages, so one figure serves both editions; the caller gives the
title. Hangul needs a font that neither Colab nor most machines have: NanumGothic is taken from the
files of koreanize-matplotlib and becomes matplotlib's font from the first figure on.
"""

import importlib.util
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
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
BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#00805E"
GREY, PALE, INK = "#9AA0A6", "#E4E7EA", "#333333"
COLORS = (BLUE, ORANGE, GREEN, "#9C4A7B", "#50616D", "#8A6A00")
STYLE = {"figure.dpi": 110, "axes.spines.top": False, "axes.spines.right": False,
         "axes.edgecolor": GREY, "axes.labelcolor": INK, "axes.axisbelow": True, "grid.color": PALE,
         "xtick.color": GREY, "ytick.color": GREY, "xtick.labelcolor": INK,
         "ytick.labelcolor": INK, "xtick.labelsize": 9, "ytick.labelsize": 9}
PERCENT = mpl.ticker.PercentFormatter(1, decimals=0)


def use_korean_font() -> str:
    """Make NanumGothic matplotlib's font, for your own plots as well, and return its name."""
    known = {entry.fname for entry in font_manager.fontManager.ttflist}
    for path in (font_file(), font_file(bold=True)):
        if str(path) not in known:
            font_manager.fontManager.addfont(path)
    mpl.rcParams |= {"font.family": ["NanumGothic", "DejaVu Sans"], "axes.unicode_minus": False}
    return "NanumGothic"


def font_file(bold: bool = False) -> Path:
    """Return the file of NanumGothic; raises CourseError where it is not installed."""
    # Only found, never imported: its code needs distutils, which Python 3.12 removed.
    if not (package := importlib.util.find_spec("koreanize_matplotlib")):
        raise CourseError("No font has Hangul for figures: run `pip install koreanize-matplotlib`.")
    name = "NanumGothicBold.ttf" if bold else "NanumGothic.ttf"
    return Path(package.submodule_search_locations[0]) / "fonts" / name


def funnel(report: Any, *, title: str = "") -> Figure:
    """What became of the candidates of a GenerationReport: how many were kept, and why not all."""
    counts = {"kept 남김": report.kept}
    counts |= dict(sorted(report.rejected.items(), key=lambda row: -row[1]))
    total = sum(counts.values())
    fig, ax = _rows(counts, f"tasks 과제 (total 전체 {total:,})", title=title)
    for place, count in enumerate(counts.values()):
        ax.barh(place, count, height=0.68, color=GREY if place else BLUE)
        _label(ax, (count, place), f"{count:,}  ({count / (total or 1):.1%})", dx=5)
    ax.set_xlim(0, max(counts.values()) * 1.22 or 1)
    ax.xaxis.set_major_formatter("{x:,.0f}")
    return fig


def loss_curve(logs: Any, *, title: str = "") -> Figure:
    """The loss by optimiser step: the training's, its running mean, and that on held-out rows.

    `logs` is a Trainer's log, rows with step and loss or eval_loss, or {name: log}, a panel each.
    """
    logs = logs if isinstance(logs, Mapping) else {"": logs}
    if not all(any("loss" in row for row in log) for log in logs.values()):
        raise CourseError("The log holds no row with a loss, so there is no curve to draw.")
    fig, panels = _panels(3.2, len(logs), title=title)
    top = max(row[key] for log in logs.values() for row in log for key in ("loss", "eval_loss")
              if key in row)
    for ax, (name, log) in zip(panels, logs.items(), strict=True):
        for key, color, label in (("eval_loss", ORANGE, "held-out 떼어 둔 행"),
                                  ("loss", BLUE, "training 학습")):
            if not (rows := [(row["step"], row[key]) for row in log if key in row]):
                continue
            steps, losses = zip(*rows, strict=True)
            half = len(losses) // (40 if len(logs) == 1 else 16) if key == "loss" else 0
            smooth = [fmean(losses[max(0, i - half) : i + half + 1]) for i in range(len(losses))]
            ax.plot(steps, losses, "o", markersize=3, color=color, alpha=0.35, markeredgewidth=0)
            ax.plot(steps, smooth, color=color, linewidth=1.8, label=label)
            if len(logs) == 1:
                _label(ax, (steps[0], losses[0]), f"{losses[0]:.2f}", dx=5, dy=8, color=color)
            _label(ax, (steps[-1], smooth[-1]), f"{smooth[-1]:.2f}", dx=4, dy=5, color=color)
        first, last = ax.dataLim.intervalx
        ax.set(xlim=(first - 0.05 * (last - first), last + 0.1 * len(logs) * ((last - first) or 1)),
               ylim=(0, 1.12 * top), xlabel="step 스텝")
        ax.xaxis.set_major_locator(mpl.ticker.MaxNLocator(9 if len(logs) == 1 else 5, integer=True))
        ax.set_title(name, loc="left", fontsize=9, color=INK) if name else None
    panels[0].set_ylabel("loss 손실")
    if len(panels[0].get_legend_handles_labels()[1]) > 1:
        panels[0].legend(frameon=False, labelcolor="linecolor", fontsize=9)
    return fig


def win_rate(summary: BattleSummary, one_order: Mapping[str, VerdictSummary] | None = None,
             truth: float | None = None, *, title: str = "") -> Figure:
    """Win rates with 95% intervals: both orders, each order alone, the truth if it is known."""
    rows = [("both orders 두 순서", summary.win_rate, summary.interval, BLUE)]
    rows += [(n, s.win_rate, s.interval, ORANGE) for n, s in (one_order or {}).items()]
    fig, ax = _intervals(rows, "win rate 승률", "even 대등", title=title, also=truth)
    if truth is not None:
        ax.axvline(truth, color=INK, linewidth=1.1, linestyle="--", zorder=0)
        _label(ax, (truth, -0.55), f"truth 참값 {truth:.1%}", dx=4)
    return fig


def category_win_rates(summaries: Mapping[str, BattleSummary], *, title: str = "") -> Figure:
    """Win rates by category with 95% intervals and the number of questions, as in LogicKor."""
    rows = [(f"{name} ({s.n})", s.win_rate, s.interval, BLUE) for name, s in summaries.items()]
    return _intervals(rows, "win rate 승률 (questions 문항)", "even 대등", title=title)[0]


def judge_bias(summary: BattleSummary, *, title: str = "") -> Figure:
    """How often the judge names the answer shown first and the longer one, with 95% intervals."""
    found = {"first position 앞자리\n({} verdicts 판정)": summary.first_position,
             "longer answer 긴 답변\n({} questions 문항)": summary.longer_answer}
    rows = [(name.format(rate.n), rate.value, rate.interval, ORANGE)
            for name, rate in found.items() if rate]
    return _intervals(rows, "named by the judge 심사자가 고른 비율", "no lean 치우침 없음",
                      title=title, row=0.7)[0]


def grade_histogram(grades: Mapping[str, Sequence[int]], *, title: str = "") -> Figure:
    """How many answers of each model got each grade from 1 to 10; a model's name with its mean."""
    fig, (ax,) = _panels(3.2, title=title)
    width, tallest = 0.84 / max(1, len(grades)), 1
    for k, ((name, scores), color) in enumerate(zip(grades.items(), COLORS, strict=False)):
        counts, mean = Counter(scores), f"{fmean(scores):.2f}" if scores else "-"
        places = [grade + (k - (len(grades) - 1) / 2) * width for grade in counts]
        ax.bar(places, counts.values(), width=0.92 * width, color=color,
               label=f"{_literal(name)}: mean 평균 {mean} ({len(scores)})")
        tallest = max([tallest, *counts.values()])
    ax.legend(loc="upper left", frameon=False, fontsize=9, labelcolor="linecolor")
    ax.set(xlim=(0.4, 10.6), xticks=range(1, 11), xlabel="grade 점수", ylabel="answers 답변",
           ylim=(0, tallest * (1.08 + 0.1 * len(grades))))  # room for the names
    ax.yaxis.set_major_locator(mpl.ticker.MaxNLocator(5, integer=True))
    return fig


def _panels(height: float, columns: int = 1, *, title: str) -> tuple[Figure, Sequence[Axes]]:
    """A figure of one row of axes, with lines across at the ticks of y."""
    use_korean_font()
    with mpl.rc_context(STYLE):
        fig, (panels,) = plt.subplots(1, columns, figsize=(7.5, height), layout="constrained",
                                      squeeze=False)
        for ax in panels:
            ax.grid(axis="y")
    plt.close(fig)  # a notebook shows what a cell returns; pyplot would show it a second time
    # By file and not by weight: matplotlib's versions disagree on how heavy this font is.
    style = {"fontproperties": font_file(bold=True), "fontsize": 11, "color": INK}
    if columns == 1:
        panels[0].set_title(title, loc="left", **style)
    elif title:
        fig.suptitle(title, x=0.01, ha="left", **style)
    return fig, panels


def _rows(names: Collection[str], xlabel: str, *, title: str, row: float = 0.32,
          percent: bool = False) -> tuple[Figure, Axes]:
    """A figure with one named row a thing, the first at the top; `row` is its height in inches."""
    fig, (ax,) = _panels(1.15 + row * len(names), title=title)
    ax.grid(False)
    ax.set_yticks(range(len(names)), map(_literal, names), linespacing=1.5)
    ax.set_ylim(max(1, len(names)) - 0.4, -0.6)
    ax.spines["left"].set_visible(False)
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel(xlabel)
    if percent:
        ax.xaxis.set_major_formatter(PERCENT)
        ax.grid(axis="x", color=PALE)
    return fig, ax


def _intervals(rows: Sequence[tuple[str, float, tuple[float, float], str]], xlabel: str,
               half: str, *, title: str, also: float | None = None,
               row: float = 0.45) -> tuple[Figure, Axes]:
    """Shares with their intervals, (name, share, (low, high), colour) a row; `half` names 50%."""
    fig, ax = _rows([name for name, *_ in rows], xlabel, title=title, row=row, percent=True)
    for place, (_, share, (low, high), color) in enumerate(rows):
        ax.plot([low, high], [place, place], color=color, linewidth=3, solid_capstyle="butt")
        ax.plot([share], [place], "o", color=color, markersize=8)
        _label(ax, (1.02, place), f"{share:.1%}  [{low:.1%}, {high:.1%}]", dx=8, color=color)
    ax.axvline(0.5, color=INK, linewidth=1.1, linestyle=":", zorder=0)
    _label(ax, (0.5, -0.9), half, dx=4)
    ax.set_ylim(len(rows) - 0.5, -1.1)
    lowest = min([0.5, 0.5 if also is None else also, *(low for *_, (low, _), _ in rows)])
    ax.set_xlim(max(-0.02, lowest - 0.05), 1.02)
    return fig, ax


def _literal(text: str) -> str:
    # Between two dollar signs matplotlib would see a formula.
    return text.replace("$", r"\$")


def _label(ax: Axes, point: tuple[float, float], text: str, dx=0, dy=0, color=INK) -> None:
    ax.annotate(text, point, (dx, dy), textcoords="offset points", color=color, fontsize=9,
                va="center", ha="left" if dx >= 0 else "right")
