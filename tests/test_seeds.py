"""The seed tasks: their schema, that they pass the course's own filters, and their answers."""

import csv
import datetime
import json
import re
import sqlite3
import statistics
import subprocess
from itertools import combinations, product, starmap

import pytest

from course_utils import REPO
from course_utils.parsing import check_task
from course_utils.prompts import generation_prompt, read_generation_prompt
from course_utils.similarity import morphemes, rouge_l
from course_utils.tasks import Task, read_jsonl, read_tasks

PATH = REPO / "data" / "seed_tasks.jsonl"
ROWS = read_jsonl(PATH)
TASKS = read_tasks(PATH)
BY_NAME = {row["name"]: row for row in ROWS}


def block(name, language="python"):
    return re.search(rf"```{language}\n(.*?)```", BY_NAME[name]["output"], re.DOTALL)[1]


def code(name, before=""):
    space = {}
    exec(before + "\n" + block(name), space)
    return space


def test_the_schema():
    for number, row in enumerate(ROWS, 1):
        assert list(row) == ["id", "name", "instruction", "input", "output", "is_classification"]
        assert row["id"] == f"seed_{number:03d}"
        assert re.fullmatch(r"[a-z_]+", row["name"])
        assert isinstance(row["is_classification"], bool)
        assert all(row[key] == row[key].strip() for key in ("instruction", "input", "output"))
        assert row["instruction"].endswith((".", "?"))
        if row["is_classification"]:  # the answer is one of the labels that the task names
            words = row["instruction"] + row["input"]
            assert row["output"] in words or row["output"] in ("참", "표준어"), row["id"]
            assert len(row["output"].split()) <= 2
    assert len({row["name"] for row in ROWS}) == len({row["instruction"] for row in ROWS}) == 175
    assert len(ROWS) == 175 and sum(bool(row["input"]) for row in ROWS) == 125
    assert sum(row["is_classification"] for row in ROWS) == 26


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.meta["id"])
def test_every_seed_passes_the_rules_and_the_prompt(task):
    assert check_task(task) is None
    bare = Task(task.instruction, task.input, task.output)
    assert read_generation_prompt(generation_prompt([bare])) == ([bare], 20)


def test_no_two_seeds_are_alike():
    tokens = [morphemes(task.instruction) for task in TASKS]
    highest = max(starmap(rouge_l, combinations(tokens, 2)))
    card = (REPO / "data" / "README.md").read_text(encoding="utf-8")
    assert highest <= 0.7 and f"(the highest is {highest:.2f}), that each" in " ".join(card.split())


def test_the_answers_that_can_be_computed_are_right():
    outputs = {name: row["output"] for name, row in BY_NAME.items()}
    assert json.loads(outputs["to_json"])["취미"] == ["등산", "뜨개질"]
    assert f"{20_000 - 2 * 3_500 - 4_500:,}원" in outputs["change_from_receipt"]
    assert str(len(range(3, 101, 3))) + "개" in outputs["multiples_of_three"]
    assert f"{45 + 7 + 2}만 원" in outputs["monthly_cost"]
    assert outputs["part_time_pay"].startswith(f"{11_000 * (3.5 + 4.5 + 5.5):,.0f}원")
    assert outputs["share_a_subscription"].startswith("지우는 3,500원, 나머지 세 사람은 4,500원씩")
    assert 3_500 + 3 * 4_500 == 17_000
    assert 91 % 7 == 0 and outputs["is_it_prime"] == "합성수"
    assert all(f"{n * 5 // 2:,}" in outputs["recipe_for_five"] for n in (200, 100, 80, 2, 500))
    assert "8시 54분" in outputs["choose_route"] and "9시 3분" in outputs["choose_route"]
    assert all(f"{won:,}원" in outputs["price_per_hundred_grams"]
               for won in (6300 * 100 // 450, 6500 * 100 // 500))
    assert statistics.mean([1, 2, 3, 4, 90]) == 20 and "20이지만" in outputs["mean_and_median"]
    assert statistics.median([1, 2, 3, 4, 90]) == 3 and "3입니다" in outputs["mean_and_median"]
    assert f"{1200 + 1500 + 1350:,}만" in outputs["sales_table_to_text"]
    assert "450kg" in outputs["harvest_last_year"] and 450 * 6 / 5 == 540
    assert f"{47 * 2 + 1}" in outputs["next_in_sequence"]
    later = datetime.date(2025, 3, 25) + datetime.timedelta(100)
    assert outputs["hundred_days_later"].startswith(f"{later.month}월 {later.day}일 목요일")
    assert datetime.date(2025, 3, 25).weekday() == 1 and later.weekday() == 3
    assert f"{30 - (18 + 15 - 7)}명" in outputs["neither_sport"]
    assert sum(coins.count("앞") == 2 for coins in product("앞뒤", repeat=3)) == 3
    assert outputs["three_coin_tosses"].startswith("3/8")
    assert f"{round(1e6 * 1.03 ** 2):,}원" in outputs["simple_or_compound_interest"]
    assert 16 + 25 > 36 and outputs["triangle_kind"] == "예각삼각형"
    assert 5 * 1 + 2 * 3 == 11 and 4 * 11 == 44 and "모두 44시간" in outputs["toeic_in_four_weeks"]


def test_the_code_does_what_its_text_says():
    assert code("fix_average")["average"]([1, 2, 6]) == 3
    assert code("mask_resident_number")["mask"]("a 900101-1234567 b") == "a 900101-******* b"
    pattern = BY_NAME["color_code_regex"]["output"].split("`")[1]
    assert re.findall(pattern, "#1A2B3C로 #ffffff #FFF #1234567 #12345G") == ["#1A2B3C", "#ffffff"]
    assert code("removing_while_looping")["remove_negatives"]([-1, -2, 3]) == [3]
    space = {}
    exec(BY_NAME["removing_while_looping"]["input"], space)
    assert space["remove_negatives"]([-1, -2, 3]) == [-2, 3]  # the bug is as described
    broken, said = BY_NAME["explain_type_error"]["input"].split("\n\n")
    with pytest.raises(TypeError, match=re.escape(said.removeprefix("TypeError: "))):
        exec(broken, {})
    tests = code("write_pytest_cases", BY_NAME["write_pytest_cases"]["input"])
    tests["test_pass"](60), tests["test_fail"](59), tests["test_out_of_range"](101)
    rows = csv.DictReader(BY_NAME["weather_json_to_csv"]["output"].splitlines())
    assert list(rows) == [{key: str(value) for key, value in row.items()}
                          for row in json.loads(BY_NAME["weather_json_to_csv"]["input"])]
    database = sqlite3.connect(":memory:")
    database.execute("CREATE TABLE orders(id, customer, amount, ordered_on)")
    database.executemany("INSERT INTO orders(customer, amount) VALUES (?, ?)",
                         [("가", 5), ("나", 3), ("가", 1), ("다", 9), ("라", 1)])
    best = database.execute(block("sql_top_customers", "sql")).fetchall()
    assert best == [("다", 9), ("가", 6), ("나", 3)]


def test_the_pandas_code_gives_the_table_in_its_answer(tmp_path, monkeypatch):
    pandas = pytest.importorskip("pandas")
    monkeypatch.chdir(tmp_path)
    table = BY_NAME["pandas_sales_by_menu"]["input"].removeprefix("sales.csv\n")
    (tmp_path / "sales.csv").write_text(table, encoding="utf-8")
    for menu, won in code("pandas_sales_by_menu")["result"].itertuples(index=False):
        assert f"| {menu} | {won} |" in BY_NAME["pandas_sales_by_menu"]["output"]
    space = {"df": pandas.DataFrame({"나이": [20, None, 40, 90], "이메일": ["a", "b", "c", None]})}
    exec(block("pandas_missing_values"), space)
    assert space["df"]["나이"].tolist() == [20, 40, 40]


def test_the_git_command_undoes_a_commit_and_keeps_the_change(tmp_path):
    def shell(commands):
        return subprocess.check_output(commands, shell=True, cwd=tmp_path, text=True)

    commit = "git add a; git -c user.name=a -c user.email=a@b.org commit -m"
    shell(f"git init; echo 1 > a; {commit} first; echo 2 > a; {commit} second")
    shell(block("undo_last_commit", "bash"))
    assert shell("git log --format=%s; git status --short") == "first\nM  a\n"  # staged
