"""The pictures in assets/figures show what the code computes now, in letters without a font."""

import re

import pytest

from course_utils import REPO
from tools import figures


@pytest.fixture(scope="module")
def counts():
    return figures.pruned_pairs()


@pytest.mark.parametrize("name", figures.FIGURES)
def test_the_committed_picture_shows_what_is_computed_now(name, counts, monkeypatch):
    monkeypatch.setattr(figures, "pruned_pairs", lambda: counts)
    path = REPO / "assets" / "figures" / f"{name}.svg"
    now = figures.shown(figures.FIGURES[name]())
    assert figures.description(path) == now, "out of date: run python -m tools.figures"


@pytest.mark.parametrize("name", figures.FIGURES)
def test_letters_are_outlines_on_an_opaque_card(name):
    svg = (REPO / "assets" / "figures" / f"{name}.svg").read_text(encoding="utf-8")
    assert "<text" not in svg and "href=\"http" not in svg and len(svg) < 400_000
    background = re.search(r'<g id="patch_1">.*?style="fill: (#\w+)', svg, re.DOTALL)
    assert background[1] == "#ffffff"


def test_each_bound_leaves_fewer_pairs_than_the_one_before(counts):
    left = list(counts.values())
    assert left == sorted(left, reverse=True) and left[-1] > 0
    assert left[1] > left[0] / 2 and left[0] > 100 * left[2]  # overlap, not length, does it


def test_the_masked_tokens_are_those_before_the_response():
    labels = [text for text in figures.shown(figures.masking()) if re.fullmatch(r"-?\d+", text)]
    trained = [label != "-100" for label in labels]
    assert trained == sorted(trained) and 1 < sum(trained) < len(trained)
