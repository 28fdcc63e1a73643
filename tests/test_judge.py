"""The judge reads strictly, asks in both orders, and never turns a failure into a number."""

import doctest
import os
import subprocess
import sys

import pytest

import course_utils.judge
from course_utils import REPO, CourseError
from course_utils.judge import BATTLE_VERDICTS, GRADES, Item, Judge, VerdictError, parse_verdict
from course_utils.llm import LLM, Reply
from course_utils.offline import world
from course_utils.prompts import read_battle_prompt, read_grade_prompt
from course_utils.stats import Game, Grade, StatsError, summarize_battle, summarize_grades


@pytest.mark.parametrize(
    ("text", "allowed", "verdict"),
    [
        ("A가 낫습니다.\n\n[[A]]", BATTLE_VERDICTS, "A"),
        ("[[C]]", BATTLE_VERDICTS, "C"),
        ("따라서 최종 판정은 [[B]]입니다.\n\n  \n", BATTLE_VERDICTS, "B"),
        ("**[[B]]**", BATTLE_VERDICTS, "B"),
        ("처음에는 [[A]]로 보였고 다시 보아도 그렇습니다.\n[[A]]", BATTLE_VERDICTS, "A"),
        ("정확합니다.\n[[10]]", GRADES, "10"),
        ("점수: [[1]]", GRADES, "1"),
    ],
)
def test_a_verdict_is_read(text, allowed, verdict):
    assert parse_verdict(text, allowed) == verdict


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("", BATTLE_VERDICTS),
        ("   \n\n", GRADES),
        ("A가 더 낫습니다.", BATTLE_VERDICTS),
        ("Assistant B", BATTLE_VERDICTS),
        ("[A]", BATTLE_VERDICTS),
        ("[[D]]", BATTLE_VERDICTS),
        ("[[a]]", BATTLE_VERDICTS),
        ("[[A]] 아니면 [[B]]", BATTLE_VERDICTS),
        ("[[A]]\n[[B]]", BATTLE_VERDICTS),
        ("[[A]]\n다시 생각하니 판정할 수 없습니다.", BATTLE_VERDICTS),
        ("```\n[[A]]\n```", BATTLE_VERDICTS),
        ("[[A or B]]", BATTLE_VERDICTS),
        ("[[]]", BATTLE_VERDICTS),
        ("[[11]]", GRADES),
        ("[[0]]", GRADES),
        ("[[-1]]", GRADES),
        ("[[7.5]]", GRADES),
        ("[[05]]", GRADES),
        ("[[７]]", GRADES),
        ("8점", GRADES),
        ("8/10", GRADES),
        ("[[8]], 형식은 [[9]]", GRADES),
    ],
)
def test_anything_else_is_an_error_and_not_a_guess(text, allowed):
    with pytest.raises(VerdictError):
        parse_verdict(text, allowed)


def test_the_errors_say_what_was_wrong():
    with pytest.raises(VerdictError, match="no verdict"):
        parse_verdict("모르겠습니다.", BATTLE_VERDICTS)
    with pytest.raises(VerdictError, match="2 different verdicts"):
        parse_verdict("[[A]] [[B]]", BATTLE_VERDICTS)
    with pytest.raises(VerdictError, match=r"\[\[11\]\] is none of \[\[1\]\], "):
        parse_verdict("[[11]]", GRADES)
    with pytest.raises(VerdictError, match="last line"):
        parse_verdict("[[A]]\n끝", BATTLE_VERDICTS)


def test_the_examples_in_the_docstrings():
    assert doctest.testmod(course_utils.judge).failed == 0


class Scripted:
    """A client that answers a prompt with what `answer` makes of it; None is a failed request."""

    def __init__(self, answer, finish_reason="stop"):
        self.answer, self.finish_reason, self.requests = answer, finish_reason, []

    def complete(self, requests):
        for request in requests:
            self.requests.append(request)
            text = self.answer(request.messages[0]["content"])
            error = "given up after 7 attempts: overloaded" if text is None else None
            reason = None if text is None else self.finish_reason
            yield Reply(request, "key", text, reason, {}, False, error, "scripted")


def longer_wins(prompt):
    parts = read_battle_prompt(prompt)
    if len(parts.first) == len(parts.second):
        return "같습니다.\n[[C]]"
    return "더 깁니다.\n[[A]]" if len(parts.first) > len(parts.second) else "더 깁니다.\n[[B]]"


ITEMS = [
    Item("q1", "질문 하나", a="긴 답변입니다.", b="짧다"),
    Item("q2", "질문 둘", a="짧다", b="긴 답변입니다."),
    Item("q3", "질문 셋", a="하나", b="둘둘"),
]


def test_a_battle_asks_both_orders_and_speaks_of_models():
    llm = Scripted(longer_wins)
    games = Judge(llm, progress=False).battle(iter(ITEMS))
    assert games == [
        Game("q1", "a", "a", 8, 2),
        Game("q2", "b", "b", 2, 8),
        Game("q3", "tie", "tie", 2, 2),
    ]
    shown = [read_battle_prompt(r.messages[0]["content"])[:3] for r in llm.requests]
    assert shown[0] == ("질문 하나", "긴 답변입니다.", "짧다")
    assert shown[1] == ("질문 하나", "짧다", "긴 답변입니다.")
    assert [r.params for r in llm.requests] == [{"temperature": 0}] * 6


def test_a_judge_that_only_looks_at_position_decides_nothing():
    games = Judge(Scripted(lambda prompt: "[[A]]"), progress=False).battle(ITEMS)
    summary = summarize_battle(games)
    assert summary.win_rate == 0.5 and summary.contradictions == 3
    assert summary.first_position_rate == 1 and summary.consistency == 0


def test_failures_stay_invalid_and_are_explained():
    def answer(prompt):
        parts = read_battle_prompt(prompt)
        if parts.question == "질문 하나":
            return None
        if parts.question == "질문 둘" and parts.first == "짧다":
            return "둘 다 좋습니다."
        return "[[A]]"

    judge = Judge(Scripted(answer), progress=False)
    games = judge.battle(ITEMS)
    assert [(g.first, g.second) for g in games] == [(None, None), (None, "b"), ("a", "b")]
    assert list(judge.invalid) == ["q1 (ab order)", "q1 (ba order)", "q2 (ab order)"]
    assert "overloaded" in judge.invalid["q1 (ab order)"]
    assert "no verdict" in judge.invalid["q2 (ab order)"]
    with pytest.raises(StatsError, match="2 of 3"):
        summarize_battle(games)


def test_a_reply_that_was_cut_has_no_last_word():
    judge = Judge(Scripted(lambda prompt: "[[A]]", finish_reason="length"), progress=False)
    assert judge.grade([Item("q1", "질문", answer="답")]) == [Grade("q1", None, "[[A]]")]
    assert "cut" in judge.invalid["q1"]


def test_grades_keep_their_reason():
    def answer(prompt):
        parts = read_grade_prompt(prompt)
        assert parts.reference == ("둘" if parts.question == "q" else None)
        return "정확하고 간결합니다.\n\n[[9]]" if parts.answer == "둘" else "[[10]]점 만점에 10점"

    items = [Item("1", "q", answer="둘", reference="둘"), Item("2", "다른 질문", answer="셋")]
    judge = Judge(Scripted(answer), progress=False)
    assert judge.grade(items) == [
        Grade("1", 9, "정확하고 간결합니다."),
        Grade("2", 10, "[[10]]점 만점에 10점"),
    ]
    assert summarize_grades(judge.grade(items)).mean == 9.5


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([Item("q1", "질문", a="답")], "'b' in the items q1"),
        ([Item(f"q{i}", "질문", b="답") for i in range(9)], "q4 and 4 more"),
        ([ITEMS[0], ITEMS[0]], "several items have the id q1"),
    ],
)
def test_unusable_items_cost_nothing(items, message):
    llm = Scripted(longer_wins)
    with pytest.raises(CourseError, match=message):
        Judge(llm, progress=False).battle(items)
    assert llm.requests == []


def test_an_empty_answer_is_an_answer():
    games = Judge(Scripted(longer_wins), progress=False).battle([Item("q", "질문", a="", b="답")])
    assert games == [Game("q", "b", "b", 0, 1)]


def test_against_the_simulated_api(tmp_path):
    """Through the openai client: the truth is found, and judging again asks for nothing."""
    tasks = world.sample_tasks(24, split="heldout", seed=3)
    items = [
        Item(
            f"q{i}",
            f"{task.instruction}\n\n{task.input}" if task.input else task.instruction,
            answer=task.output,
            a=task.output,
            b="모르겠습니다.",
        )
        for i, task in enumerate(tasks)
    ]
    log, journal = tmp_path / "log.jsonl", tmp_path / "judge.jsonl"
    command = [sys.executable, "-m", "course_utils.offline.server", "--port", "0", "--noise", "0"]
    server = subprocess.Popen(
        [*command, "--log", str(log), "--faults", "0.1", "--parent", str(os.getpid())],
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPO,
    )
    try:
        url = server.stdout.readline().strip()
        results = []
        for _ in range(2):  # the second time as after a restart: from the journal
            llm = LLM("simulated-judge", base_url=url, journal=journal, backoff=0.01)
            judge = Judge(llm, progress=False)
            results.append((judge.battle(items), judge.grade(items), judge.invalid))
            answered = [line for line in log.read_text().splitlines() if '"fault": null' in line]
            assert len(answered) == 3 * len(items)
    finally:
        server.terminate()
        server.wait(60)
        server.stdout.close()
    assert results[0] == results[1]
    games, grades, invalid = results[0]
    assert invalid == {}
    assert summarize_battle(games).win_rate == 1 and {g.score for g in grades} == {9, 10}
