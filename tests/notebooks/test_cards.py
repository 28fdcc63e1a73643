"""The card: what was measured is on it, what was not is said, and every notebook has one."""

import json
import os
import re
import time

import pytest

from tools.notebooks import cards
from tools.notebooks.kernel import read_source, sources


def test_every_notebook_has_a_card_and_was_measured():
    assert [path.stem for path in sources()] == list(cards.CARDS)
    assert set(cards.WORDS["ko"]) == set(cards.WORDS["en"])
    assert set(cards.measured()) - {"machines"} == set(cards.CARDS)
    assert all("offline" in cards.measured()[name] for name in cards.CARDS)


@pytest.mark.parametrize("language", ["ko", "en"])
def test_what_was_measured_is_on_it_and_what_was_not_is_said(language, tmp_path, monkeypatch):
    monkeypatch.setattr(cards, "MEASURED", tmp_path / "measured.json")
    say = cards.WORDS[language]
    assert cards.card("02_train", language).count(say["not measured"]) == 2
    assert cards.card("01_preprocess", language).count(say["not measured"]) == 3  # the API too
    took = {"seconds": 200, "memory_gib": 1.62, "cores": 2, "date": "2026-01-02"}
    (tmp_path / "measured.json").write_text(json.dumps({"02_train": {"offline": took}}))
    card = cards.card("02_train", language)
    assert "2026-01-02" in card and "1.6 GiB" in card and say["minutes"].format(3) in card


def test_the_links_stand_below_the_title(tmp_path):
    text = cards.with_card("# 02 Train\n\nWords.", "02_train", "en")
    title, _, links, *_ = text.split("\n")
    assert title == "# 02 Train" and "Open in Colab" in links
    for target in ("../ko/02_train.ipynb", "(01_preprocess.ipynb)", "(03_evaluate.ipynb)"):
        assert target in links
    assert text.index("Words.") < text.index("**Needs**")
    assert cards.with_card("# 99", "99_other", "en") == "# 99"


def test_the_meter_measures(tmp_path, monkeypatch):
    monkeypatch.setattr(cards, "MEASURED", tmp_path / "measured.json")
    meter = cards.Meter()
    meter.watch(os.getpid())
    while not meter.peak:
        time.sleep(0.01)
    meter.write("02_train")
    found = json.loads((tmp_path / "measured.json").read_text())["02_train"]["offline"]
    assert 0 < found["memory_gib"] < 100 and found["seconds"] >= 0


def test_every_source_begins_with_its_title():
    for path in sources():
        for cell in read_source(path).cells[:2]:
            assert cell.source.startswith(f"# {path.stem[:2]} ")


@pytest.mark.parametrize("name", cards.CARDS)
def test_every_card_says_everything_in_both_languages(name):
    for key in ("title", "needs", "makes"):
        said = cards.CARDS[name].get(key) or {}
        assert all(said.get(language) for language in cards.WORDS), f"{name}: {key}: {said}"
        assert re.search("[가-힣]", said["ko"]), f"{name}: {key}: no Korean in {said['ko']!r}"
        assert not re.search("[가-힣]", said["en"]), f"{name}: {key}: Korean in {said['en']!r}"
