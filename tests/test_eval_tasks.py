"""The evaluation tasks: their schema, that no seed is like them, and their reference answers."""

import contextlib
import io
import json
import re
import sqlite3
import subprocess
from collections import Counter
from dataclasses import replace
from datetime import date, timedelta
from fractions import Fraction
from itertools import combinations, count, permutations, product
from math import lcm

import pytest

from course_utils import REPO
from course_utils.checkpoint import CheckpointStore
from course_utils.korean import hangul_share, language_flag
from course_utils.parsing import check_task
from course_utils.recipe import load_recipe
from course_utils.session import Course
from course_utils.similarity import SimilarityFilter, filter_similar
from course_utils.tasks import Task, read_jsonl, write_tasks

ROWS = read_jsonl(REPO / "data" / "eval_tasks.jsonl")
SEEDS = read_jsonl(REPO / "data" / "seed_tasks.jsonl")
OPEN = {"eval_102", "eval_105"}  # advice and an advertisement; in 글쓰기 any task may be open
CARD = (REPO / "data" / "README.md").read_text(encoding="utf-8")
MOST = 0.5  # ROUGE-L on morphemes, the limit among themselves and with every seed


def get(number, key="output"):
    return ROWS[number - 1][key]


def instruction(row):
    return row["instruction"]


def question(row):
    return f"{row['instruction']}\n{row['input']}".strip()


def definitions(number):
    space = {}
    exec(re.search(r"```python\n(.*?)```", get(number), re.DOTALL)[1], space)
    return space


def printed(number):
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(get(number, "input"), {})
    return out.getvalue().strip()


def test_the_schema():
    keys = ["id", "category", "instruction", "input", "output", "answer_lang"]
    for number, row in enumerate(ROWS, 1):
        assert list(row) == keys
        assert row["id"] == f"eval_{number:03d}"
        assert row["answer_lang"] in {"ko", "en", "code", "json"}
        assert all(row[key] == row[key].strip() for key in keys)
        assert row["instruction"].endswith((".", "?"))
        assert row["output"] or row["category"] == "글쓰기" or row["id"] in OPEN
    assert Counter(row["category"] for row in ROWS) == {
        "추론": 13, "수학": 14, "글쓰기": 13, "코딩": 13,
        "이해": 13, "문법": 13, "상식": 13, "부동산": 13,
    }
    assert sum(not row["output"] for row in ROWS) == 13


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["id"])
def test_every_task_passes_the_rules(row):
    assert check_task(Task(row["instruction"], row["input"], row["output"] or "예")) is None


@pytest.mark.parametrize("row", [row for row in ROWS if row["output"]], ids=lambda row: row["id"])
def test_every_reference_is_in_the_language_it_announces(row):
    assert language_flag(row["output"], row["answer_lang"]) is None
    match row["answer_lang"]:
        case "en":
            assert hangul_share(row["output"]) == 0 and row["output"].endswith(".")
        case "json":
            json.loads(row["output"])
        case "code":
            assert row["output"].startswith("`")


@pytest.mark.parametrize("text", [instruction, question])
def test_no_two_tasks_are_alike(text):
    assert filter_similar(map(text, ROWS), MOST).dropped == {}


@pytest.mark.parametrize("text", [instruction, question])
def test_no_task_is_like_a_seed(text):
    seeds = SimilarityFilter(MOST)
    for seed in SEEDS:
        seeds.add(text(seed))
    nearest = {row["id"]: seeds.nearest(text(row)) for row in ROWS}
    assert {id: match for id, match in nearest.items() if match.score > MOST} == {}
    highest = max(match.score for match in nearest.values())
    assert text is question or f"of a seed (the highest is {highest:.2f})" in CARD


def test_the_puzzles_have_the_one_solution_given():
    says = {
        "은우": lambda who: who != "은우",
        "수민": lambda who: who == "은우",
        "재호": lambda who: who != "재호",
    }
    assert ["재호"] == [who for who in says if sum(say(who) for say in says.values()) == 1]
    assert get(2).startswith("재호")

    rows = [
        row for row in permutations(["가영", "나래", "다솜", "라희", "마루"])
        if row[2] == "가영" and abs(row.index("가영") - row.index("나래")) != 1
        and row.index("다솜") == row.index("나래") + 1 and row.index("라희") not in (0, 4)
    ]
    assert [", ".join(row) for row in rows] == [get(4).split("의")[0]]

    rosters = []
    for people, places in product(permutations(["보라", "찬호", "해린"]),
                                  permutations(["창문", "바닥", "책상"])):
        day = {name: number for number, name in enumerate(people + places)}  # places from 3
        if (day["바닥"] - 3 == day["찬호"] == day["책상"] - 3 + 1
                and day["해린"] != 0 and day["창문"] - 3 == 2):
            rosters.append(list(zip(people, places, strict=True)))
    assert rosters == [[("보라", "책상"), ("찬호", "바닥"), ("해린", "창문")]]
    assert get(11).startswith("보라는 월요일에 책상, 찬호는 화요일에 바닥, 해린은 수요일에 창문")


def test_the_other_reasoning_is_right():
    final = [letter for letter in "강나" if (ord(letter) - ord("가")) % 28]
    odd = [number for number in "47" if int(number) % 2]  # a letter like 강 may be behind it
    assert (final, odd) == (["강"], ["7"]) and get(3).startswith("'강'과 '7'입니다")
    days = "월화수목금토일"
    today = next(day for day in range(7) if days[(day - 1 + 3) % 7] == "금")
    assert get(5).startswith(days[(today + 1) % 7] + "요일")
    assert get(6).startswith(["봄", "여름", "가을", "겨울"][(50 - 1) % 4] + "입니다")
    four, seven = 0, 4  # after the first filling and pouring
    four, seven = 4 - (7 - seven), 7
    assert (four, seven) == (1, 7) and "4리터 통에 1리터가 남습니다" in get(7)
    bag = {"빨강": 5, "파랑": 4, "노랑": 3}
    draws = list(product(*(range(n + 1) for n in bag.values())))
    safe = next(n for n in count(1) if all(max(d) >= 3 for d in draws if sum(d) == n))
    assert get(9).startswith(f"{safe}개")
    words = dict(line.split(" → ") for line in get(13, "input").split("\n"))
    assert all(word[::-1] == changed for word, changed in words.items())
    assert "해바라기"[::-1] in get(13)


def test_the_arithmetic_is_right():
    paid = (18_000 + 2 * 2_500) * 9 // 10 + 3_000
    assert get(14).startswith(f"{paid:,}원")
    assert get(15).startswith(f"{Fraction(3, 4) + Fraction(2, 3)}입니다")
    mean = sum(map(int, re.findall(r"\d+", get(16, "input")))) // 5
    assert get(16).startswith(f"{mean // 60}시간 {mean % 60}분")
    assert get(17).startswith(f"{Fraction(200 * 6 + 100 * 12, 300)}%")
    assert get(18).startswith(f"{36 * 10 // 24}바퀴")
    evens = [n for n in permutations(range(5), 3) if n[0] and n[2] % 2 == 0]
    assert get(19).startswith(f"{len(evens)}개")
    pairs = list(combinations("흰흰흰검검", 2))
    assert get(20).startswith(str(Fraction(sum(a != b for a, b in pairs), len(pairs))))
    diagonals = [(a, b) for a, b in combinations(range(8), 2) if b - a not in (1, 7)]
    assert get(21).startswith(f"한 내각은 {180 * 6 // 8}도, 대각선은 {len(diagonals)}개")
    assert [age for age in range(1, 60) if 4 * age + 5 == 3 * (age + 5)] == [10]
    assert get(22).startswith("딸은 10살, 어머니는 40살")
    assert [x for x in range(-20, 21) if x * x - 5 * x - 14 == 0] == [-2, 7]
    assert "x = 7과 x = -2" in get(23)
    together = (1 - Fraction(4, 12)) / (Fraction(1, 12) + Fraction(1, 20))
    assert get(24).startswith(f"{together}일")
    assert divmod(14 * 60 + 50 + 105 + 10, 60) == (16, 45) and get(25).startswith("오후 4시 45분")
    assert get(26).startswith(f"{len(range(0, 300 + 1, lcm(12, 18)))}번")
    assert get(27).startswith(f"{pow(3, 50, 10)}입니다")


def test_the_housing_sums_are_right():
    assert get(93).startswith(f"{2_000 - 200 + 55 + 26 + 80:,}만 원")
    assert get(94).startswith(f"{4_000 * 3 // 100 // 12}만 원")
    first, second = (32 + 9) * 24, 38 * 24 + 20
    assert get(99).startswith(f"나가 {first - second}만 원 더 적게")
    assert f"{first}만 원" in get(99) and f"{second}만 원" in get(99)
    last = date(2001, 10, 31) - timedelta(days=30)
    assert f"{last.month}월 {last.day}일까지" in get(98) and date(2001, 10, 5) > last
    assert get(100).startswith(f"건폐율은 {100 * 100 // 200}%, 용적률은 {4 * 100 * 100 // 200}%")
    left = 20_000 - 13_500
    assert f"{left:,}만 원, 받지 못할 돈은 {10_000 - left:,}만 원" in get(104)


def test_the_code_prints_and_does_what_the_references_say():
    assert get(41).startswith(f"{printed(41)}입니다")
    assert get(42).startswith(f"`{printed(42)}`")
    n, positive = 10, []
    while n > 0:
        positive.append(n)
        n -= 3
    assert ", ".join(map(str, positive)) + "을 출력" in get(47) and n < 0
    broken = get(52, "input")
    with pytest.raises(json.JSONDecodeError):
        json.loads(broken)
    assert json.loads(get(52)) == eval(broken)


def test_the_functions_queries_and_patterns_work():
    hangul = definitions(44)["count_hangul"]
    assert [hangul(text) for text in ("안녕, Kim!", "", "ㅋㅋ", "힣가 a1")] == [2, 0, 0, 2]
    compress = definitions(45)["compress"]
    assert [compress(text) for text in ("aaabcc", "", "aba", "z" * 12)] == [
        "a3b1c2", "", "a1b1a1", "z12"]
    second = definitions(46)["second_largest"]
    assert [second(n) for n in ([5, 5, 3], [7, 7], [], [1, 9, 4], [-1, -3])] == [
        3, None, None, 4, -3]
    books = sqlite3.connect(":memory:")
    books.execute(f"CREATE TABLE {get(48, 'input')}")
    for row in [(1, "가", "갑", 300), (2, "나", "을", 299), (3, "다", "병", 512)]:
        books.execute("INSERT INTO books VALUES (?, ?, ?, ?)", row)
    query = re.search(r"```sql\n(.*?)```", get(48), re.DOTALL)[1]
    assert books.execute(query).fetchall() == [("다", 512), ("가", 300)]
    books.close()
    pattern = re.compile(get(49).split("`")[1])
    times = {f"{hour:02d}:{minute:02d}" for hour in range(100) for minute in range(100)}
    assert {time for time in times if pattern.search(time)} == {
        f"{hour:02d}:{minute:02d}" for hour in range(24) for minute in range(60)}
    assert not any(map(pattern.search, ("9:30", "24:00", "12:345", "x12:30")))


def test_pandas_and_git_do_what_the_references_say(tmp_path):
    pandas = pytest.importorskip("pandas")
    space = {"df": pandas.DataFrame({"점수": [79, 80, 95], "이름": ["가", "나", "다"]})}
    exec(re.search(r"```python\n(.*?)```", get(50), re.DOTALL)[1], space)
    assert space["passed"]["이름"].tolist() == ["다", "나"]
    steps = ["git init -q", "echo secret > .env", "git add .env", get(51).split("`")[1]]
    subprocess.run("\n".join([*steps, "git ls-files > tracked"]), shell=True, cwd=tmp_path)
    assert (tmp_path / ".env").exists() and (tmp_path / "tracked").read_text() == ""


def test_the_reading_references_follow_from_their_texts():
    costs = {}
    for line in get(59, "input").split("\n")[2:5]:
        name, *cells = line.strip("| ").split(" | ")
        won, data, calls = (int("".join(filter(str.isdigit, cell))) for cell in cells)
        costs[name] = won + 1_500 * max(20 - data, 0) + 100 * max(100 - calls, 0)
    best = min(costs, key=costs.get)
    assert get(59).startswith(f"{best} 요금제가 가장 싸고 {costs[best]:,}원")
    assert all(f"{won:,}원" in get(59) for won in costs.values())
    summary = get(63).split("\n\n")[0]
    assert len(summary.split()) <= 20 and summary.count(".") == 1
    assert get(54) == "물통, 모자, 우비"


def test_a_run_with_real_models_is_evaluated_on_them(tmp_path):
    recipe = load_recipe("gemma-2b-l4")
    store = CheckpointStore.open("real", tmp_path)
    course = Course(recipe, store)
    heldout = course.heldout()
    assert len(heldout) == 105 and len({task.meta["family"] for task in heldout}) == 8
    assert any(task.meta.get("answer_lang") == "en" for task in heldout)
    assert course.truth(heldout[0]) is None and course.unseen() == []
    generated = [replace(task, meta={}) for task in heldout[:20]]
    write_tasks(store.local("preprocess") / "tasks.jsonl", generated)
    store.seal("preprocess")
    assert len(course.training_tasks()) == 20  # nothing of the data has to be kept back
