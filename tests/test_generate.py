"""The loop: the dataset is a function of the journal, and every candidate is accounted for."""

import json
import random
import time

import pytest
from loopback import Chat, chat, refusal, said

from course_utils import CourseError
from course_utils.generate import (
    REASONS,
    filter_tasks,
    generate_tasks,
    generation_requests,
    question_text,
)
from course_utils.llm import LLM, BudgetReached
from course_utils.parsing import check_task
from course_utils.prompts import TASKS_FORMAT, read_generation_prompt
from course_utils.similarity import morphemes, rouge_l
from course_utils.tasks import Task, read_tasks

SEEDS = [Task(f"{city}의 특산물은 무엇인가요?", "", f"{food}입니다.") for city, food in (
    ("춘천", "막국수"), ("안동", "간고등어"), ("보성", "녹차"), ("상주", "곶감"), ("금산", "인삼"))]
NOUNS = ("바다 하늘 나무 학교 시장 버스 편지 우산 거울 시계 신발 의자 창문 다리 공원 도서관 병원 "
         "은행 기차 자전거 고양이 강아지 참새 개미 장미 소나무 감자 양파 고추 마늘").split()
VERBS = "설명하세요 비교하세요 요약하세요 소개하세요 묘사하세요 정의하세요 분류하세요".split()


def write_reply(seed, dry=False, as_json=False):
    """20 candidates from item 4 on: good ones, a near copy, and one of several bad ones."""
    rng = random.Random(0 if dry else seed)
    items = []
    for number in range(4, 24):
        a, *others = rng.sample(NOUNS, 7)
        kind = rng.choice(["good"] * 4 + ["copy", "no output", "map", "english"])
        instruction = f"{a} {' '.join(others)} {rng.choice(VERBS)}."
        if kind == "copy":
            instruction = SEEDS[number % 5].instruction
        elif kind == "map":
            instruction = f"{a} 근처의 지도를 보여 주세요."
        elif kind == "english":
            instruction = "Describe the sea in one sentence."
        output = "" if kind == "no output" else f"{number} 답입니다."
        label = "" if number == 4 else f"{number}. 지시문: "
        items.append(json.dumps({"instruction": instruction, "input": "", "output": output})
                     if as_json else
                     f"{label}{instruction}\n{number}. 입력: <noinput>\n{number}. 출력: {output}")
    text = f'{{"tasks": [{", ".join(items)}]}}' if as_json else "\n###\n".join(items)
    return text, "length" if seed % 5 == 2 else "stop"


class Teacher(Chat):
    """A teacher on loopback whose reply depends on the request's seed alone."""

    def __init__(self):
        super().__init__()
        self.seeds, self.answer, self.dry = [], self.reply, False
        self.delay = lambda seed: 0.0
        self.status = lambda seed: 200

    def reply(self, body, n):
        seed = body["seed"]
        assert read_generation_prompt(said(body))[1] == 20
        self.seeds.append(seed)
        time.sleep(self.delay(seed))
        if self.status(seed) != 200:
            return refusal(self.status(seed), "out of order")
        as_json = body.get("response_format") == TASKS_FORMAT
        return chat(*write_reply(seed, self.dry, as_json), tokens=(700, 900))


@pytest.fixture
def teacher():
    with Teacher() as server:
        yield server


@pytest.fixture
def run(teacher, tmp_path):
    def generate(n=40, name="a", workers=4, **settings):
        client = {key: settings.pop(key) for key in ("price", "budget") if key in settings}
        llm = LLM("teacher", base_url=teacher.url, journal=tmp_path / f"{name}.journal.jsonl",
                  workers=workers, backoff=0.01, max_retries=2, **client)
        return generate_tasks(llm, SEEDS, n, out=tmp_path / f"{name}.jsonl", progress=False,
                              **settings)

    return generate


def test_the_report_is_the_funnel_and_every_candidate_is_in_it(run):
    report = run(price=(1, 2))
    assert report.kept == 40 == len(read_tasks(report.path))
    assert report.candidates == report.kept + sum(report.rejected.values())
    assert set(report.rejected) == {"missing field", "not Korean", "needs another medium",
                                    "truncated", "similar"}
    assert list(report.rejected) == [reason for reason in REASONS if reason in report.rejected]
    assert (report.tokens, report.note) == (1600 * report.calls, "")
    assert report.cost == pytest.approx(report.calls * (700 + 2 * 900) / 1e6)
    assert str(report).splitlines()[0].split() == ["candidates", str(report.candidates)]


def test_what_is_kept_is_good_and_new_and_says_where_it_comes_from(run):
    tasks = read_tasks(run().path)
    before = [morphemes(question_text(task)) for task in SEEDS]
    for task in tasks:
        assert check_task(task) is None
        tokens = morphemes(question_text(task))
        scores = [rouge_l(other, tokens) for other in before]
        near = task.meta["nearest"]
        index = near["index"] + (len(SEEDS) if near["among"] == "kept" else 0)
        assert near["score"] == round(max(scores), 4) <= 0.7
        assert index == scores.index(max(scores))
        assert (task.meta["model"], len(task.meta["request"])) == ("echo-small-1", 64)
        before.append(tokens)


def test_the_order_of_the_network_does_not_matter(run, teacher):
    first = run(name="one", workers=1)
    teacher.delay = lambda seed: 0.05 * (3 - seed % 4)  # the later request is answered earlier
    second = run(name="two", workers=4)
    assert first.path.read_bytes() == second.path.read_bytes()
    assert first.rejected == second.rejected


def test_a_complete_journal_makes_no_request_and_the_same_bytes(run, teacher):
    report = run(price=(1, 2))
    data = report.path.read_bytes()
    asked = len(teacher.seeds)
    report.path.unlink()
    again = run(price=(1, 2))
    assert len(teacher.seeds) == asked
    assert (again, again.path.read_bytes()) == (report, data)


def test_json_brings_the_same_tasks_by_the_same_way(run):
    as_text, as_json = run(name="text"), run(name="json", as_json=True)
    assert as_json.rejected == as_text.rejected
    one, other = ([(task.instruction, task.output) for task in read_tasks(report.path)]
                  for report in (as_text, as_json))
    assert one == other


def test_a_surplus_stays_in_the_journal(run, teacher):
    small = [task.to_dict() for task in read_tasks(run(n=5).path)]
    assert len(small) == 5
    run(n=60)
    assert len(teacher.seeds) == len(set(teacher.seeds))  # no request was sent twice
    tasks = [task.to_dict() for task in read_tasks(run(n=60).path)]
    assert tasks[:5] == small


def test_a_teacher_that_has_run_dry_is_said_in_the_report(run, teacher):
    teacher.dry = True
    report = run(n=100, patience=4)
    assert 0 < report.kept < 20
    assert report.calls == 5
    assert report.note == (f"Stopped at {report.kept} of 100 tasks: the last 4 calls brought "
                           "nothing new.")
    assert len(read_tasks(report.path)) == report.kept


ENGLISH = "Describe the sea.\n4. 입력: <noinput>\n4. 출력: It is wide and blue.\n"
CHINESE = "请介绍一下大海。\n4. 입력: <noinput>\n4. 출력: 大海很宽阔。\n"
ONE = "바다를 소개하세요.\n4. 입력: <noinput>\n4. 출력: 넓고 푸릅니다.\n"


@pytest.mark.parametrize("text, finish, kept, reasons", [
    (ENGLISH, "stop", 0, {"not Korean"}),
    (CHINESE, "stop", 0, {"too short"}),  # it has no spaces, so it is one word
    (ONE, "stop", 1, {"similar"}),  # one task in place of twenty, the same one for ever
    ((ONE + "###\n4. 지시문: ") * 30, "length", 1, {"similar", "truncated"}),  # in a loop
    ("저는 언어 모델입니다. 무엇을 도와드릴까요?", "stop", 0, {"missing field"}),
])  # fmt: skip
def test_a_small_teacher_runs_dry_and_each_candidate_has_a_name(
        run, teacher, text, finish, kept, reasons):
    teacher.answer = lambda body, n: chat(text, finish)
    report = run(n=10, patience=3)
    assert (report.kept, report.calls, set(report.rejected)) == (kept, 3 + kept, reasons)
    assert "the last 3 calls brought nothing new" in report.note


def test_a_failing_server_stops_the_loop_and_the_next_run_goes_on(run, teacher):
    whole = run(name="whole").path.read_bytes()
    teacher.seeds.clear()
    teacher.status = lambda seed: 500 if seed == 2 else 200
    with pytest.raises(CourseError, match="at request 3, with .* of 40 tasks: .*out of order"):
        run(name="halted")
    answered = {seed for seed in teacher.seeds if seed != 2}
    teacher.seeds.clear()
    teacher.status = lambda seed: 200
    assert run(name="halted").path.read_bytes() == whole
    assert answered.isdisjoint(teacher.seeds)


def test_a_refused_request_is_passed_over(run, teacher):
    teacher.status = lambda seed: 400 if seed == 0 else 200
    report = run(n=10)
    assert (report.kept, report.calls) == (10, 2)
    teacher.status = lambda seed: 400 if seed else 200
    report = run(n=100, name="b", patience=6, workers=1)
    assert report.calls == 7 and report.kept > 0
    assert "6 of 7 were refused, the last because the server refused the request (400: out of" in (
        report.note)
    teacher.status = lambda seed: 400  # nothing but refusals is no accident
    with pytest.raises(CourseError, match=r"refused the first \d+ requests.* out of order"):
        run(n=10, name="c")


def test_a_budget_stops_and_a_larger_one_goes_on(run, teacher):
    with pytest.raises(BudgetReached):
        run(price=(1000, 1000), budget=8)
    asked = len(teacher.seeds)
    assert asked > 0
    run(price=(1000, 1000), budget=1000)
    assert len(teacher.seeds) == len(set(teacher.seeds)) > asked


def test_requests_are_a_function_of_the_seed():
    def first(seed, n=4):
        requests = generation_requests(SEEDS, seed=seed)
        return [next(requests) for _ in range(n)]

    assert first(0) == first(0) != first(1)
    assert [request.params["seed"] for request in first(0)] == [0, 1, 2, 3]
    assert len({request.messages[0]["content"] for request in first(0)}) > 1
    examples, n = read_generation_prompt(first(0)[0].messages[0]["content"])
    assert (len(examples), n) == (3, 20)
    assert all(example in SEEDS for example in examples)


def test_generation_needs_seeds():
    with pytest.raises(CourseError, match="no seed task"):
        next(generation_requests([]))


def test_a_file_goes_through_the_same_rules_and_filter():
    good = Task("바다를 한 문장으로 묘사하세요.", "", "푸르고 넓습니다.", {"id": 1})
    tasks = [*SEEDS[:2], good, Task("Name a color.", "", "Red"), Task("짧다", "", "네"),
             Task("바다를 한 문장으로 묘사하세요.", "", "넓습니다."),
             Task("이 글을 요약하세요.", "(없음)", "네")]
    kept, rejected = filter_tasks(tasks, threshold=0.9)
    assert kept == [*SEEDS[:2], good]
    assert rejected == {"too short": 1, "not Korean": 1, "placeholder input": 1, "similar": 1}
    assert filter_tasks([]) == ([], {})
