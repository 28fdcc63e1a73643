"""Every figure is drawn without a warning, also of a character that its fonts do not have."""

import importlib.util
import inspect
import io
import logging
import math
import sys
from types import SimpleNamespace

import pytest

pytest.importorskip("matplotlib")

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from course_utils import CourseError, plots
from course_utils.stats import Game, summarize_battle, verdict_win_rate

GAMES = [Game(str(i), "a", "a" if i % 3 else "b", 5, 7) for i in range(30)]
ORDERS = {
    "tuned first 튜닝 모델 먼저": verdict_win_rate(game.first for game in GAMES),
    "base first 원본 모델 먼저": verdict_win_rate(game.second for game in GAMES),
}
CATEGORIES = {name: summarize_battle(GAMES[i:]) for i, name in enumerate(["추론", "$글$"])}
GRADES = {"tuned 튜닝": [9, 10, 9, 5, 7] * 5, "base $원본$": [1, 2, 1, 9, 5] * 5}
LOG = [{"step": 5 * i, "loss": 2 * math.exp(-i / 9) + 0.1} for i in range(1, 60)]
HELD = [*LOG, *({"step": e["step"], "eval_loss": e["loss"] + 0.1} for e in LOG[::6])]

FUNNEL = SimpleNamespace(kept=2300, rejected={"similar": 412, "missing field": 88})

def given(*arguments, **options):
    return arguments, options


FIGURES = {
    "funnel": given(FUNNEL),
    "funnel: of nothing": given(SimpleNamespace(kept=0, rejected={})),
    "loss_curve": given([*LOG, {"step": 295, "train_runtime": 9.0}]),
    "loss_curve: of one step": given(LOG[:1]),
    "loss_curve: held-out rows too": given({"one 하나": HELD, "two 둘": LOG[:9]}),
    "win_rate": given(summarize_battle(GAMES), ORDERS, truth=0.8),
    "win_rate: alone": given(summarize_battle(GAMES)),
    "category_win_rates": given(CATEGORIES),
    "category_win_rates: of nothing": given({}),
    "judge_bias": given(summarize_battle(GAMES)),
    "judge_bias: of ties": given(summarize_battle([Game("q", "tie", "tie", 1, 1)])),
    "grade_histogram": given(GRADES),
    "grade_histogram: of nothing": given({"tuned": []}),
}


def draw(name):
    function, _, special = name.partition(":")
    arguments, options = FIGURES[name]
    return getattr(plots, function)(*arguments, **options, title="" if special else "제목 title")


@pytest.mark.filterwarnings("error::UserWarning", "error::DeprecationWarning")
@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_drawn_without_a_warning(name, caplog):
    with caplog.at_level(logging.WARNING):
        figure, png = draw(name), io.BytesIO()
        figure.savefig(png)
    assert len(png.getvalue()) > 5000 and isinstance(figure, Figure)
    assert not caplog.records, caplog.text  # matplotlib reports fonts it cannot find in its log
    assert 7 <= figure.get_size_inches()[0] <= 8


@pytest.mark.filterwarnings("error::UserWarning")
def test_the_check_for_missing_glyphs_can_fail():
    figure = plots.win_rate(summarize_battle(GAMES), title="\u1c5a")  # a letter of Ol Chiki
    with pytest.raises(UserWarning, match="missing from font"):
        figure.savefig(io.BytesIO())


def test_every_public_figure_is_drawn_here():
    public = {name for name, function in inspect.getmembers(plots, inspect.isfunction)
              if function.__module__ == plots.__name__ and not name.startswith("_")}
    assert public - {"use_korean_font", "font_file"} == {name.partition(":")[0] for name in FIGURES}


def boxes(figure):
    """The texts of a drawn figure and the pixels they cover."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    texts = [t for ax in figure.axes for t in ax.texts if t.get_text()]
    return {t: t.get_window_extent(renderer) for t in texts}


def test_the_last_value_of_the_loss_is_inside_and_above_the_axis():
    """A loss that ends near zero used to be written across the axis and the edge."""
    log = [{"step": i, "loss": 3 / i**2} for i in range(1, 60)]
    figure = plots.loss_curve(log)
    covered = {text.get_text(): box for text, box in boxes(figure).items()}
    inside = figure.axes[0].get_window_extent()
    assert set(covered) == {"3.00", "0.00"}
    assert covered["0.00"].x1 < inside.x1 and covered["0.00"].y0 > inside.y0


def test_each_log_has_its_panel_and_held_out_rows_their_own_line():
    figure = plots.loss_curve({"one 하나": HELD, "two 둘": LOG})
    assert {"one 하나", "two 둘", "training 학습", "held-out 떼어 둔 행"} <= set(words(figure))
    assert [len(ax.lines) for ax in figure.axes] == [4, 2]


def words(figure):
    return [text.get_text() for text in figure.findobj(lambda o: hasattr(o, "get_text"))]


def test_the_figures_say_the_numbers():
    summary = summarize_battle(GAMES)
    low, high = summary.interval
    said = words(plots.win_rate(summary, ORDERS, truth=0.8))
    assert f"{summary.win_rate:.1%}  [{low:.1%}, {high:.1%}]" in said
    assert "truth 참값 80.0%" in said and "tuned first 튜닝 모델 먼저" in said
    assert "2,300  (82.1%)" in words(draw("funnel"))
    said = words(draw("category_win_rates"))
    assert {"추론 (30)", r"\$글\$ (29)"} <= set(said)
    rate = summarize_battle(GAMES).first_position
    low, high = rate.interval
    said = words(draw("judge_bias"))
    assert f"{rate.value:.1%}  [{low:.1%}, {high:.1%}]" in said
    assert "first position 앞자리\n(60 verdicts 판정)" in said
    assert "tuned 튜닝: mean 평균 8.00 (25)" in words(draw("grade_histogram"))


def test_a_log_without_a_loss_is_refused():
    with pytest.raises(CourseError, match="no row with a loss"):
        plots.loss_curve([{"step": 1, "train_runtime": 3.0}])


def test_without_the_font_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(CourseError, match="pip install koreanize-matplotlib"):
        plots.use_korean_font()
    assert "koreanize_matplotlib" not in sys.modules  # it imports distutils, gone with Python 3.12


def test_a_notebook_shows_each_figure_once():
    """A figure that pyplot still holds is shown a second time at the end of the cell."""
    import matplotlib.pyplot as plt

    plots.loss_curve(LOG)
    assert plt.get_fignums() == []
