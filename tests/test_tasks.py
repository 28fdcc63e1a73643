"""Task files: what is read, what is refused with which sentence, and that writing is atomic."""

import gzip
import json
import os
import time
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from course_utils import CourseError
from course_utils.korean import clean
from course_utils.plumbing.files import TaskFileError
from course_utils.tasks import (
    Task,
    read_jsonl,
    read_tasks,
    split_heldout,
    write_atomic,
    write_jsonl,
    write_tasks,
)

ROWS = [
    {"instruction": "존댓말로 바꾸세요.", "input": "밥 먹었어?", "output": "식사하셨어요?"},
    {"instruction": "3에 4를 더하면 얼마입니까?", "input": "", "output": "7"},
]
TASKS = [Task(**row) for row in ROWS]
text = st.text(st.characters(codec="utf-8"))


@pytest.fixture
def file(tmp_path):
    def make(content):
        path = tmp_path / "data.json"
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
        return path

    return make


def lines(rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


@pytest.mark.parametrize("content", [
    json.dumps(ROWS), json.dumps(ROWS, indent=2), lines(ROWS),
    "\n" + lines(ROWS).replace("\n", "\r\n\r\n"),
    b"\xef\xbb\xbf" + lines(ROWS).encode(), b"\xef\xbb\xbf" + json.dumps(ROWS).encode()])
def test_a_list_and_lines_are_read_alike_with_a_byte_order_mark_or_without(file, content):
    assert read_tasks(file(content)) == TASKS


def test_koalpaca_and_seed_fields(file):
    path = file(lines([
        {"instruction": "양파는 어떤 식물인가요?", "output": "백합목의 식물입니다.", "url": "https://a"},
        {"id": "seed-1", "instruction": "a", "input": None, "output": 7, "meta": {"family": "x"}},
    ]))
    koalpaca, seed = read_tasks(path)
    assert (koalpaca.input, koalpaca.meta) == ("", {"url": "https://a"})
    assert (seed.input, seed.output, seed.meta) == ("", "7", {"id": "seed-1", "family": "x"})


def test_hangul_in_pieces_and_what_nobody_sees_are_one_text(file):
    row = {"instruction": "존댓말로 바꾸세요.", "output": "é", "id": "가-1"}
    odd = {name: unicodedata.normalize("NFD", text) for name, text in row.items()}
    odd["instruction"] = "\ufeff" + odd["instruction"].replace(" ", "\u00a0") + "\u200b"
    for content in (lines([row, odd]), json.dumps([row, odd])):  # as it is, and with \\u escapes
        one, other = read_tasks(file(content))
        assert one == other and one.meta == other.meta == {"id": "가-1"}
    assert Task(odd["instruction"]) == Task(row["instruction"])
    training, heldout = split_heldout([odd["id"], row["id"], "나"], key=str)
    assert sorted(map(len, (training, heldout))) == [1, 2]


@pytest.mark.parametrize("value", [float("nan"), None, True, 7, ["a"], b"a"])
def test_what_is_no_text_is_no_task(value):
    for fields in ({"instruction": value}, {"input": value}, {"output": value}):
        with pytest.raises(CourseError, match="but it must be text"):
            Task(**ROWS[0] | fields)


GOOD = lines(ROWS[:1])


@pytest.mark.parametrize(("content", "place", "words"), [
    *[(empty, "", "is empty") for empty in ("", " \n\n", "[]")],
    (GOOD * 16 + '{"instruction": "가", "output": \n' + GOOD, ":17", "not JSON"),
    (GOOD * 2 + '["a"]\n', ":3", "['a'] is no JSON object"),
    (GOOD + '{"instruction": "a"}\n', ":2", 'no "output" field'),
    ('{"question": "a", "output": "b"}', ":1", 'no "instruction" field'),
    (GOOD + '{"instruction": ["a"], "output": "b"}', ":2", '"instruction" is [\'a\']'),
    (GOOD + '{"instruction": "a", "output": "\\ud83d"}', ":2", "half of a character"),
    ('[\n {"instruction": "a", "output": "b"},\n {"instruction": "a"}\n]', ":3", "no \"output\""),
    ('[\n {"instruction": "a", "output": "b"}\n {"instruction": "a"}\n]', ":3", "',' delimiter"),
    ('[\n {"instruction": "a", "output": "b"},\n', ":3", "not JSON"),
    ('[\n {"instruction": "a", "output": "b"},\n]', ":", "not JSON"),  # Python 3.13: line 2
    ('[\n {"instruction": "a", "output": "b"}\n]\n{}', ":4", "Extra data"),
    ('[1]', ":1", "1 is no JSON object"),
    ('[\n {"instruction": "a", "output": "b"},\n [{}]]', ":3", "[{}] is no JSON object"),
    ('\n [\n\n {"instruction": "a", "output": "b", "meta": 3}]', ":4", '"meta" is 3'),
    *[(GOOD + f'{{"instruction": "a", "output": {no_number}}}', ":2", words)
      for no_number, words in (("NaN", "pandas"), ("-Infinity", "no JSON"), ("1e999", "not JSON"))],
    (GOOD + '{"instruction": "a", "output": "b", "score": [NaN]}', ":2", "pandas"),
    (GOOD + '{"instruction": "a", "output": true}', ":2", "must be text"),
    (f'[\n {{"instruction": "a", "output": "b"}},\n {{"output": {"7" * 5000}}}]', ":3", "limit"),
    (GOOD + '{"url": ' + "[" * 99_999, ":2", "recursion"),
    ("\n\n" + GOOD + "\n" + GOOD.strip() + " {}", ":5", "Extra data"),
    ('[\n {"instruction": "a", "output": "b"},\n ' + "[" * 99_999, ":3", "recursion"),
    (GOOD + '{"instruction": "a", "output": "b", "url": ["\\udc00"]}', ":2", '"meta" holds half'),
    (GOOD.encode() * 4 + lines(ROWS).encode("cp949"), ":5", "cp949"),
    (GOOD.encode("utf-16"), ":1", "iconv -f utf-16"),
    (GOOD.encode("utf-16-le"), ":1", "iconv -f utf-16"),
    (GOOD.encode() + b"\x80\x80\n", ":2", "the file is damaged"),
    (GOOD.encode() + "caf\u00e9".encode("latin-1") + b" a\n", ":2", "the file is damaged"),
    (b"PAR1\x15\x04" + b"\0" * 90, "", "a parquet file: convert it with pandas, read_parquet"),
    (b"PK\x03\x04" + bytes(range(256)), "", ".xlsx"),
    (gzip.compress(GOOD.encode()), "", "unpack it"),
    (b"%PDF-1.7\n%\xe2\xe3", "", "a PDF"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1", "", ".hwp"),
    (b"\xef\xbb\xbf\n<!DOCTYPE html>", "", "a page of the web"),
    (b"version https://git-lfs.github.com/spec/v1\n", "", "git lfs pull"),
    ("instruction,output\n봄,3월\n", ":1", "pandas, read_csv"),
    (f'{{"\\ud83d{"k" * 999}": 1}}', ":1", "no \"instruction\" field"),
])
def test_what_is_wrong_is_said_in_one_sentence(file, content, place, words):
    path = file(content)
    with pytest.raises(TaskFileError) as error:
        read_tasks(path)
    said = str(error.value)
    assert str(path) + place in said and words in said and "\n" not in said
    assert len(said) < 600 and said.encode()


@pytest.mark.parametrize("indent", [None, 1])
def test_reading_costs_no_more_than_decoding_and_making(file, indent):
    rows = [{"instruction": f"{i}에 1을 더하세요.", "output": str(i + 1)} for i in range(20_000)]
    path = file(json.dumps(rows, ensure_ascii=False, indent=indent))

    def seconds(read):
        times = []
        for _ in range(3):
            start = time.process_time()
            assert len(read()) == 20_000
            times.append(time.process_time() - start)
        return min(times)

    plain = seconds(lambda: [Task(**row) for row in json.loads(path.read_text("utf-8"))])
    assert seconds(lambda: read_tasks(path)) < 4 * plain  # 1.1 to 1.8 on a machine of its own


@pytest.mark.parametrize("name", ["no.json", "", "가" * 300, "a\0b", "\udcff.json", "no/no.json"])
def test_a_file_that_is_none_is_named(tmp_path, name):
    with pytest.raises(TaskFileError, match=f"{tmp_path}.* cannot be read .*check its") as error:
        read_tasks(tmp_path / name)
    assert str(error.value).encode()


def test_a_name_that_only_looks_the_same_is_found_out(tmp_path):
    (tmp_path / unicodedata.normalize("NFD", "과제.jsonl")).write_text(GOOD, encoding="utf-8")
    with pytest.raises(TaskFileError, match="that only looks like it"):
        read_tasks(tmp_path / "과제.jsonl")


@settings(max_examples=30, deadline=None)
@given(st.lists(st.builds(Task, text, text, text, st.dictionaries(
    text.map(lambda key: "." + clean(key)), st.integers())), min_size=1))
def test_what_is_written_is_read_back(tmp_path_factory, tasks):
    path = tmp_path_factory.getbasetemp() / "round.jsonl"
    write_tasks(path, tasks)
    assert read_tasks(path) == tasks


def test_plain_objects_round_and_korean_stays_as_it_is(tmp_path):
    path = tmp_path / "new" / "a.jsonl"
    write_jsonl(path, [{"a": 1}, {"b": "나\u2028다"}])  # a Unicode line separator ends no line
    assert read_jsonl(path) == [{"a": 1}, {"b": "나\u2028다"}] and "나" in path.read_text("utf-8")
    for value in (float("nan"), float("-inf"), "\ud83d"):  # others could not read it
        with pytest.raises(CourseError, match="a.jsonl was not written"):
            write_jsonl(path, [{"a": [value]}])
    assert read_jsonl(path)[0] == {"a": 1}


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    write_atomic(path, "old")

    def fail(*_):
        raise OSError("disk full")

    for step in ("fsync", "replace"):
        with monkeypatch.context() as patch, pytest.raises(OSError, match="disk full"):
            patch.setattr(os, step, fail)
            write_atomic(path, "new")
        assert [p.name for p in tmp_path.iterdir()] == ["a.txt"] and path.read_text() == "old"
    write_atomic(path, b"new")
    assert path.read_text() == "new"


def test_a_task_can_be_a_member_of_a_set_and_cannot_change():
    assert len({TASKS[0], Task(**ROWS[0], meta={"id": 1}), TASKS[1]}) == 3
    with pytest.raises(AttributeError):
        TASKS[0].output = "다른 답"


@given(st.sets(st.text(min_size=1), min_size=2, max_size=60), st.randoms())
@settings(max_examples=60, deadline=None)
def test_heldout_questions_are_never_trained_on(questions, chance):
    tasks = [Task(question, "", "answer") for question in questions for _ in range(2)]
    chance.shuffle(tasks)
    training, heldout = split_heldout(tasks)
    assert len(training) + len(heldout) == len(tasks) and training and heldout
    assert not {t.instruction for t in training} & {t.instruction for t in heldout}
    again = split_heldout(sorted(tasks, key=hash))[1]  # in another order
    assert {t.instruction for t in again} == {t.instruction for t in heldout}


def test_one_question_cannot_be_divided():
    with pytest.raises(CourseError, match="at least two"):
        split_heldout([Task("only one", "", "answer")] * 3)
