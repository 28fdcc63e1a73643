"""KoAlpaca's data in both published forms, from a file and from the Hub, and what is refused.

The rows are written for these tests in the fields that KoAlpaca publishes; none is KoAlpaca's.
"""

import json

import datasets
import pytest

from course_utils import CourseError
from course_utils.collator import encode_tasks, show_mask
from course_utils.prompts import KOALPACA
from course_utils.scale.koalpaca import HUB_ID, KoAlpacaError, load_koalpaca
from course_utils.tasks import Task, TaskFileError

V10 = [
    {"instruction": "다음 낱말을 높임말로 바꾸세요.", "input": "밥", "output": "진지"},
    {"instruction": "봄꽃 하나를 말해 보세요.", "input": "", "output": "개나리입니다."},
]
V11 = [
    {"instruction": "양파는 어떤 식물인가요?", "output": "뿌리가 아니라 줄기를 먹는 식물입니다.",
     "url": "https://example.org/1"},
    {"instruction": "월세가 무엇인가요?", "output": "달마다 내는 돈입니다.",
     "url": "https://example.org/2"},
]  # fmt: skip


@pytest.fixture
def hub(monkeypatch):
    """What load_dataset returns in these tests, and the names that it was asked for."""
    asked, answer = [], {"rows": datasets.Dataset.from_list(V11)}

    def load_dataset(name, split):
        asked.append((name, split))
        return answer["rows"]

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    answer["asked"] = asked
    return answer


def test_the_first_version_is_a_json_list_with_inputs(tmp_path):
    path = tmp_path / "ko_alpaca_data.json"
    path.write_text(json.dumps(V10, ensure_ascii=False, indent=4), encoding="utf-8")
    tasks = load_koalpaca(path)
    assert tasks == [Task(**row) for row in V10]
    assert KOALPACA.render(tasks[0]) == (
        "### 질문: 다음 낱말을 높임말로 바꾸세요.\n\n### 맥락: 밥\n\n### 답변:"
    )
    assert KOALPACA.render(tasks[1]) == "### 질문: 봄꽃 하나를 말해 보세요.\n\n### 답변:"


def test_the_second_version_is_the_same_from_a_file_and_from_the_hub(tmp_path, hub):
    path = tmp_path / "KoAlpaca_v1.1.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in V11), encoding="utf-8")
    tasks = load_koalpaca(str(path))
    assert hub["asked"] == []
    assert load_koalpaca() == tasks
    assert hub["asked"] == [(HUB_ID, "train")]
    assert [task.input for task in tasks] == ["", ""]
    assert [task.meta["url"] for task in tasks] == ["https://example.org/1", "https://example.org/2"]


def test_what_is_loaded_can_be_encoded(tokenizer, hub):
    rows, report = encode_tasks(tokenizer, load_koalpaca(), KOALPACA, 256)
    assert report.rows == 2 and report.dropped == report.truncated == 0
    masked, trained = show_mask(tokenizer, rows[1]).split("\n")
    assert masked.startswith("masked") and masked.endswith("### 답변:")
    assert trained.startswith("trained") and trained.endswith("달마다 내는 돈입니다.<eos>")


def test_a_missing_input_is_an_empty_one_and_no_row_is_lost(hub):
    hub["rows"] = datasets.Dataset.from_list(
        [{"instruction": "a", "input": None, "output": ""}, {"instruction": "b", "output": "c"}]
    )
    assert load_koalpaca() == [Task("a", "", ""), Task("b", "", "c")]


@pytest.mark.parametrize(
    "row, field",
    [
        ({"text": "### 질문: a\n\n### 답변: b"}, "instruction"),
        ({"instruction": "a", "output": None}, "output"),
        ({"instruction": "a", "output": ["b"]}, "output"),
    ],
)
def test_rows_of_another_kind_are_refused_by_number(hub, row, field):
    hub["rows"] = [*V11, row]
    with pytest.raises(KoAlpacaError, match=f'{HUB_ID}, row 3 has no text in "{field}"'):
        load_koalpaca()


def test_without_the_hub_the_message_names_the_files_that_would_do():
    # Offline mode is on in every test, so this is what a machine without a network gets.
    with pytest.raises(CourseError, match=r"KoAlpaca-v1.1a' cannot be loaded .*jsonl") as caught:
        load_koalpaca()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("source", ["KoAlpaca", "a/b/c", "my data.csv", ""])
def test_what_is_neither_a_file_nor_a_name_is_refused(source):
    with pytest.raises((KoAlpacaError, TaskFileError)) as caught:
        load_koalpaca(source)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_not_looked_up_on_the_hub(hub, tmp_path):
    with pytest.raises(TaskFileError, match="There is no file"):
        load_koalpaca(tmp_path / "KoAlpaca_v1.1.jsonl")
    with pytest.raises(TaskFileError, match="There is no file"):
        load_koalpaca("data/ko_alpaca_data.json")
    assert hub["asked"] == []
