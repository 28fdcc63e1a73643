"""In front of a class: LIVE = True asks once more and keeps the reply; the page of presets."""

import random
import re
from dataclasses import replace

import pytest

from course_utils.generate import generation_requests
from course_utils.recipe import PRESETS
from course_utils.session import setup
from course_utils.tasks import Task
from tools import REPO
from tools.notebooks import kernel

NOTEBOOKS = ["01_preprocess", "03_evaluate"]


def live_cells(name: str) -> list[str]:
    cells = kernel.read_source(kernel.SOURCES / f"{name}.py").cells
    return [c.source for c in cells if c.cell_type == "code" and "LIVE = " in c.source]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_live_is_off_in_what_is_published(name):
    cells = live_cells(name)
    assert len(cells) == 1 and "LIVE = False" in cells[0]


def test_a_live_request_is_asked_anew_and_kept(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PRESET", "quick")
    teacher = setup("offline", root=tmp_path).llm("teacher", journal=tmp_path / "journal.jsonl")
    request = next(generation_requests([Task("인사말을 써 주세요.", "", "안녕하세요.")]))
    [cell] = live_cells("01_preprocess")
    space = {"teacher": teacher, "request": request, "replace": replace, "random": random}

    def run(live: bool) -> bool:
        exec(cell.replace("LIVE = False", f"LIVE = {live}"), space)
        return space["reply"].cached

    assert [run(False), run(False)] == [False, True]  # the journal answers
    assert [run(True), run(True)] == [False, False]  # asked in earnest, twice
    assert run(False) and len(teacher.journal) == 3  # and nothing that was paid for is lost
    assert teacher.plan([request]).calls == 0
    assert "cached" in capsys.readouterr().out


PAGE = (REPO / "notebooks" / "TEACHING.md").read_text(encoding="utf-8")
KOREAN, ENGLISH = PAGE.split("\n## A class of three hours\n")


@pytest.mark.parametrize("half, most", [(KOREAN, r"(\d+)까지"), (ENGLISH, r"at most (\d+)")])
def test_the_page_for_instructors_has_the_presets_numbers(half, most):
    [row] = [line for line in half.splitlines() if line.startswith("| `PRESET=quick`")]
    quick = PRESETS["quick"]
    keys = ("data.n", "train.epochs", "data.heldout", "evaluate.questions")
    assert set(keys) == set(quick)
    assert list(map(int, re.findall(most, row))) == [quick[key] for key in keys]


def test_both_halves_of_the_page_have_the_same_tables():
    tables = [
        [line.count("|") for line in half.splitlines() if line.startswith("|")]
        for half in (KOREAN, ENGLISH)
    ]
    assert tables[0] == tables[1]
    assert KOREAN.count("LIVE") == ENGLISH.count("LIVE") and "not measured" in ENGLISH.lower()
    named = set(re.findall(r"`(mask_\w+)`", PAGE))
    code = (kernel.SOURCES / "02_train.py").read_text(encoding="utf-8")
    assert named and all(f"def {name}(" in code for name in named)
