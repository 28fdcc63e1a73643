"""The seed tasks: their schema, that they pass the course's own filters, and their answers."""

import json
import re

import pytest

from course_utils import REPO
from course_utils.prompts import check_task, generation_prompt, read_generation_prompt
from course_utils.similarity import filter_similar
from course_utils.tasks import Task, read_jsonl, read_tasks

PATH = REPO / "data" / "seed_tasks.jsonl"
ROWS = read_jsonl(PATH)
TASKS = read_tasks(PATH)


def code(name):
    output = next(row["output"] for row in ROWS if row["name"] == name)
    space = {}
    exec(re.search(r"```python\n(.*?)```", output, re.DOTALL)[1], space)
    return space


def test_the_schema():
    for number, row in enumerate(ROWS, 1):
        assert list(row) == ["id", "name", "instruction", "input", "output", "is_classification"]
        assert row["id"] == f"seed_{number:03d}"
        assert re.fullmatch(r"[a-z_]+", row["name"])
        assert isinstance(row["is_classification"], bool)
        assert all(row[key] == row[key].strip() for key in ("instruction", "input", "output"))
        assert row["instruction"].endswith((".", "?"))
    assert len({row["name"] for row in ROWS}) == len({row["instruction"] for row in ROWS}) == 40
    assert sum(bool(row["input"]) for row in ROWS) == 28
    assert sum(row["is_classification"] for row in ROWS) == 6


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.meta["id"])
def test_every_seed_passes_the_rules_and_the_prompt(task):
    assert check_task(task) is None
    bare = Task(task.instruction, task.input, task.output)
    assert read_generation_prompt(generation_prompt([bare])) == ([bare], 20)


def test_no_two_seeds_are_alike():
    assert len(filter_similar([task.instruction for task in TASKS], 0.7).kept) == 40


def test_the_answers_that_can_be_computed_are_right():
    assert code("fix_average")["average"]([1, 2, 6]) == 3
    assert code("mask_resident_number")["mask"]("a 900101-1234567 b") == "a 900101-******* b"
    outputs = {row["name"]: row["output"] for row in ROWS}
    assert json.loads(outputs["to_json"])["취미"] == ["등산", "뜨개질"]
    assert f"{20_000 - 2 * 3_500 - 4_500:,}원" in outputs["change_from_receipt"]
    assert str(len(range(3, 101, 3))) + "개" in outputs["multiples_of_three"]
    assert f"{45 + 7 + 2}만 원" in outputs["monthly_cost"]
    assert 200 / 80 == 2.5 and "2시간 30분" in outputs["bus_travel_time"]
    assert 91 % 7 == 0 and outputs["is_it_prime"] == "합성수"
