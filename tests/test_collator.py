"""Rows, masks and batches: what `encode` and the collator promise, for any text and any row."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from course_utils.collator import (
    IGNORE_INDEX,
    EncodeError,
    MaskingCollator,
    encode,
    encode_prompts,
    encode_tasks,
    show_mask,
)
from course_utils.prompts import TEMPLATES, get_template
from course_utils.tasks import Task

TASKS = [
    Task("다음 문장을 존댓말로 바꾸세요.", "밥 먹었어?", "식사하셨어요?"),
    Task("전주는 어디에 있습니까?", "", "전주는 전북특별자치도에 있습니다."),
    Task("보증금의 뜻을 쓰세요.", "", "계약할 때 맡기는 돈입니다.\n월세와 다릅니다."),
    Task("漢字를 한글로 바꾸세요.", "全州 🍚", "전주"),
]
END = "<end_of_turn>\n"
fixture_is_constant = settings(max_examples=60, deadline=None,
                               suppress_health_check=[HealthCheck.function_scoped_fixture])


@fixture_is_constant
@given(prompt=st.text(max_size=30), response=st.text(min_size=1, max_size=30))
def test_any_text_keeps_its_border(tokenizer, prompt, response):
    if not response.strip():
        return
    row = encode(tokenizer, prompt, response, 10_000, end=END)
    alone = tokenizer(response + END, add_special_tokens=False)["input_ids"]
    border = len(row["labels"]) - len(alone)
    assert row["labels"] == [IGNORE_INDEX] * border + alone
    assert row["input_ids"][border:] == alone


@pytest.mark.parametrize("text", ["안녕", "<bos>안녕", "<bos><bos>안녕"])
def test_bos_comes_first_exactly_once(tokenizer, text):
    row = encode(tokenizer, text, "네", 64)
    bos = tokenizer.bos_token_id
    assert row["input_ids"][0] == bos
    assert row["input_ids"].count(bos) == 1 and row["labels"][-1] == tokenizer.eos_token_id
    assert encode_prompts(tokenizer, [text]) == [row["input_ids"][: row["labels"].count(-100)]]


def test_what_cannot_be_trained_is_an_error(tokenizer):
    with pytest.raises(EncodeError, match="pass its eos_token_id"):
        MaskingCollator(None)
    with pytest.raises(EncodeError, match="response is empty"):
        encode(tokenizer, "안녕", " \n", 64, end=END)
    with pytest.raises(EncodeError, match="prompt alone has .* max_length is 4"):
        encode(tokenizer, "전주는 어디에 있습니까?", "전북", 4)


def test_tasks_are_counted(tokenizer):
    long = Task("x" * 200, "", "전북")
    tasks = [*TASKS, long, Task("안녕", "", "")]
    template = get_template("chat", tokenizer)
    _, whole = encode_tasks(tokenizer, tasks, template, 10_000)
    assert (whole.rows, whole.truncated, whole.dropped) == (5, 0, 1)
    rows, report = encode_tasks(tokenizer, tasks, template, 60)
    assert (report.rows, report.dropped) == (4, 2)
    assert report.truncated == sum(len(r["input_ids"]) == 60 for r in rows)
    labels = [label for row in rows for label in row["labels"]]
    assert report.prompt_tokens == labels.count(IGNORE_INDEX)
    assert report.response_tokens == len(labels) - report.prompt_tokens
    assert all(any(label != IGNORE_INDEX for label in row["labels"]) for row in rows)
    with pytest.raises(EncodeError, match="None of 1 tasks.*response is empty"):
        encode_tasks(tokenizer, [Task("안녕", "", "")], template, 60)


def test_batch_of_tasks_equals_one_at_a_time(tokenizer):
    for template in (*TEMPLATES.values(), get_template("chat", tokenizer)):
        rows, _ = encode_tasks(tokenizer, TASKS, template, 500)
        for row, task in zip(rows, TASKS, strict=True):
            prompt = template.render(task)
            assert row == encode(tokenizer, prompt, task.output, 500, end=template.end)


def test_show_mask(tokenizer):
    row = encode(tokenizer, "<bos>안녕", "네", 64, end=END)
    lines = show_mask(tokenizer, row).splitlines()
    assert lines == ["masked      2 | <bos>안녕", "trained     3 | 네<end_of_turn>\\n"]
    assert len(show_mask(tokenizer, row, each_token=True).splitlines()) == len(row["labels"])
    shifted = {**row, "labels": row["labels"][1:] + [IGNORE_INDEX]}
    assert "wrong" in show_mask(tokenizer, shifted)
