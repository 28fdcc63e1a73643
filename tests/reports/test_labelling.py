"""Labels: blind, kept one by one, in terms of the models, and gone on with after a break."""

import json

import pytest

from course_utils import CourseError
from course_utils.judge import Item
from course_utils.reports.labelling import choose_items, label_items, read_labels

ITEMS = [Item(f"q{i:02}", f"질문 {i}?", a=f"가 {i}", b=f"나 {i}") for i in range(12)]


def keys(*pressed):
    """An `input` that presses these keys and notes what was asked."""
    waiting = iter(pressed)

    def ask(prompt):
        try:
            return next(waiting)
        except StopIteration:
            raise EOFError from None

    return ask


def test_a_label_names_the_model_whose_answer_was_chosen(tmp_path, capsys):
    labels = label_items(ITEMS, tmp_path / "labels.jsonl", ask=keys(*"1" * 12))
    shown = capsys.readouterr().out
    rows = [json.loads(line) for line in (tmp_path / "labels.jsonl").read_text().splitlines()]
    assert len(labels) == len(rows) == 12
    assert {row["first"] for row in rows} == {"a", "b"}, "the sides never change"
    for item, row in zip(ITEMS, rows, strict=True):
        assert row["verdict"] == row["first"] == labels[item.id]
        page = shown.split(item.question)[1].split("---")[0]
        answers = (item.a, item.b) if row["first"] == "a" else (item.b, item.a)
        assert page.index(answers[0]) < page.index(answers[1])
    assert label_items(ITEMS, tmp_path / "other.jsonl", ask=keys(*"2" * 12)) == {
        id: {"a": "b", "b": "a"}[verdict] for id, verdict in labels.items()}


def test_a_session_that_ends_is_gone_on_with(tmp_path, capsys):
    path = tmp_path / "labels.jsonl"
    first = label_items(ITEMS, path, ask=keys("0", "7", "", " 1 ", "Q"))
    assert list(first) == ["q00", "q01"] and first["q00"] == "tie"
    assert capsys.readouterr().out.count("키를 확인해 주세요") == 2
    again = label_items(ITEMS, path, ask=keys("2"))  # then nobody can type any more
    assert list(again) == ["q00", "q01", "q02"] and again["q01"] == first["q01"]
    assert "질문 0?" not in capsys.readouterr().out
    assert read_labels(path) == again
    assert label_items(ITEMS[:3], path, ask=keys()) == again

    def ctrl_c(prompt):
        raise KeyboardInterrupt

    assert label_items(ITEMS, path, ask=ctrl_c) == again


def test_the_reference_is_shown_and_no_model_is_named(tmp_path, capsys):
    item = Item("q", "2+2?", a="넷", b="다섯", reference="4")
    label_items([item], tmp_path / "labels.jsonl", ask=keys())
    shown = capsys.readouterr().out
    assert "모범 답안" in shown and "tuned" not in shown and "base" not in shown


def test_items_are_drawn_once_and_differ(tmp_path):
    equal = [Item(f"same{i}", "?", a="같음", b=" 같음 ") for i in range(50)]
    drawn = choose_items([*equal, *ITEMS], 5)
    assert len(drawn) == 5 and drawn == choose_items([*equal, *ITEMS], 5)
    assert drawn != choose_items(ITEMS, 5, seed=1)
    assert all(item in ITEMS for item in drawn)
    assert choose_items(ITEMS, 99) == ITEMS


def test_a_file_of_something_else_is_named(tmp_path):
    path = tmp_path / "labels.jsonl"
    path.write_text('{"id": "q", "verdict": "a"}\n{"id": "q", "verdict": "B"}\n')
    with pytest.raises(CourseError, match=r"labels\.jsonl:2 is no label"):
        label_items(ITEMS, path, ask=keys("1"))
