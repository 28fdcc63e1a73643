"""Every figure is drawn without a warning: a missing Hangul glyph would be one."""

import importlib.util
import io
import logging
import math
import random
import subprocess
import sys
from types import SimpleNamespace

import pytest

pytest.importorskip("matplotlib")

from matplotlib.figure import Figure

from course_utils import REPO, CourseError, plots
from course_utils.stats import Game, summarize_battle, verdict_win_rate

GAMES = [Game(str(i), "a", "tie" if i % 3 else "b", 5, 7) for i in range(30)]
ORDERS = {
    "tuned first 튜닝 모델 먼저": verdict_win_rate(game.first for game in GAMES),
    "base first 원본 모델 먼저": verdict_win_rate(game.second for game in GAMES),
}
LOG = [{"step": 5 * i, "loss": 2 * math.exp(-i / 9) + 0.1} for i in range(1, 60)]
BEFORE = {"counting": 0.1, "province": 0.0, "sentiment": 0.5}
AFTER = {"counting": 1.0, "province": 0.93, "sentiment": 0.4}
TITLES = {"counting": "목록 세기", "province": "고장이 속한 도", "sentiment": "후기의 감정"}
SCORES = [abs(random.Random(i).gauss(0.5, 0.2)) for i in range(300)]

FIGURES = {
    "funnel": lambda: plots.funnel(
        SimpleNamespace(kept=2300, rejected={"similar": 412, "missing field": 88}), title="깔때기"
    ),
    "funnel of nothing": lambda: plots.funnel(SimpleNamespace(kept=0, rejected={})),
    "loss": lambda: plots.loss_curve([*LOG, {"step": 295, "train_runtime": 9.0}], title="손실"),
    "loss of one step": lambda: plots.loss_curve(LOG[:1]),
    "before and after": lambda: plots.before_after(BEFORE, AFTER, TITLES, title="튜닝 전과 후"),
    "before and after, unnamed": lambda: plots.before_after(BEFORE, AFTER),
    "win rate": lambda: plots.win_rate(summarize_battle(GAMES), ORDERS, truth=0.8, title="승률"),
    "win rate alone": lambda: plots.win_rate(summarize_battle(GAMES)),
    "similarity": lambda: plots.similarity_histogram(
        SCORES, [s for s in SCORES if s < 0.7], title="필터 전과 후"
    ),
    "similarity of nothing": lambda: plots.similarity_histogram([], [], threshold=None),
}


@pytest.mark.filterwarnings("error::UserWarning", "error::DeprecationWarning")
@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_drawn_without_a_warning(name, caplog):
    with caplog.at_level(logging.WARNING):
        figure = FIGURES[name]()
        assert isinstance(figure, Figure)
        png = io.BytesIO()
        figure.savefig(png)
    assert len(png.getvalue()) > 5000
    assert not caplog.records, caplog.text  # matplotlib reports fonts it cannot find in its log
    assert 7 <= figure.get_size_inches()[0] <= 8


@pytest.mark.filterwarnings("error::UserWarning")
def test_the_check_for_missing_glyphs_can_fail():
    figure = plots.win_rate(summarize_battle(GAMES), title="\u1c5a")  # a letter of Ol Chiki
    with pytest.raises(UserWarning, match="missing from font"):
        figure.savefig(io.BytesIO())


def words(figure):
    return [text.get_text() for text in figure.findobj(lambda o: hasattr(o, "get_text"))]


def test_the_figures_say_the_numbers():
    summary = summarize_battle(GAMES)
    low, high = summary.wilson
    said = words(plots.win_rate(summary, ORDERS, truth=0.8))
    assert f"{summary.win_rate:.1%}  [{low:.1%}, {high:.1%}]" in said
    assert "truth 참값 80.0%" in said and "tuned first 튜닝 모델 먼저" in said
    assert "2,300  (82.1%)" in words(FIGURES["funnel"]())
    said = words(plots.before_after(BEFORE, AFTER, TITLES))
    assert {"목록 세기", "100%", "93%", "40%"} <= set(said)


def test_a_log_without_a_loss_is_refused():
    with pytest.raises(CourseError, match="no row with a loss"):
        plots.loss_curve([{"step": 1, "train_runtime": 3.0}])


def test_without_the_font_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(CourseError, match="pip install koreanize-matplotlib"):
        plots.use_korean_font()


def test_the_font_package_is_never_imported():
    """koreanize_matplotlib imports distutils, which Python 3.12 removed."""
    code = (
        "import sys, course_utils.plots as plots; plots.use_korean_font(); "
        "assert 'koreanize_matplotlib' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=REPO, check=True, timeout=120)


def test_a_notebook_shows_each_figure_once():
    """A figure that pyplot still holds is shown a second time at the end of the cell."""
    import matplotlib.pyplot as plt

    plots.loss_curve(LOG)
    assert plt.get_fignums() == []
