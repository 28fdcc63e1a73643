"""The simulated teacher on a field of your own, and the simulated judge: known errors of both."""

import dataclasses
import json
import random
from collections import Counter

import pytest

from course_utils import REPO
from course_utils.judge import (
    BATTLE_VERDICTS,
    BRACKETS,
    GRADES,
    JSON,
    REMINDER,
    battle_prompt,
    grade_prompt,
    read_reply,
    verdict_format,
)
from course_utils.offline.protocol import ApiError
from course_utils.offline.server import Settings, complete
from course_utils.offline.simulated import HONEST, Imperfections, JudgeTraits, teach
from course_utils.parsing import check_task
from course_utils.sources.domain import (
    NO_ANSWER,
    answer_prompt,
    groundedness,
    parse_answer,
    parse_questions,
    question_prompt,
)
from course_utils.tasks import Task

PERFECT = Imperfections(**{field.name: 0 for field in dataclasses.fields(Imperfections)})
SHOWN = ["관리비\n\n관리비는 건물을 함께 쓰는 데 드는 돈입니다. 달마다 냅니다.",
         "# 계약금\n계약금은 먼저 내는 돈으로, 보증금의 10%쯤입니다. 계약은 신중히 합니다."]
QUESTION = "처음 배우는데, 계약금이란 무엇인가요?"


def ask(question=QUESTION, shown=SHOWN, rates=PERFECT, seed=0):
    return teach(answer_prompt(question, shown), random.Random(seed), rates)[0]


def test_questions_are_about_the_word_and_differ():
    for word in ("전세", "묵시적 갱신", "월세", "SQL"):
        text, finish = teach(question_prompt(word, 8), random.Random(word), PERFECT)
        questions = parse_questions(text)
        assert finish == "stop" and len(set(questions)) == 8
        for question in questions:
            assert word in question and "{" not in question
            assert check_task(Task(question, "", "네.")) is None
    assert "전세란 " in "".join(teach(question_prompt("전세", 11), random.Random(0), PERFECT)[0])


def test_more_questions_than_it_knows_repeat():
    questions = parse_questions(teach(question_prompt("전세", 30), random.Random(0), PERFECT)[0])
    assert len(questions) == 30


def test_an_answer_is_a_sentence_of_the_passages_with_its_number():
    assert ask() == "계약금은 먼저 내는 돈으로, 보증금의 10%쯤입니다.\n[[2]]"
    assert ask("관리비란 무엇인가요?") == "관리비는 건물을 함께 쓰는 데 드는 돈입니다.\n[[1]]"


@pytest.mark.parametrize("question", [
    "계약금의 역사를 알려 주세요.", "다른 나라에도 계약금이 있나요?", "은하수란 무엇인가요?"])
def test_what_the_passages_do_not_hold_is_not_answered(question):
    assert ask(question) == f"{NO_ANSWER}."


def test_passages_without_a_sentence_have_no_answer():
    assert ask(shown=["계약금", "- 계약금: 10%"]) == ask(shown=[]) == f"{NO_ANSWER}."


def test_the_same_request_gets_the_same_answer_and_another_another():
    bodies = [{"model": "simulated-teacher", "seed": seed,
               "messages": [{"role": "user", "content": question_prompt("전세")}]}
              for seed in (1, 1, 2)]
    texts = [complete(body, Settings())["choices"][0]["message"]["content"] for body in bodies]
    assert texts[0] == texts[1] != texts[2]


def test_questions_and_answers_have_no_json_form():
    for prompt in (question_prompt("전세"), answer_prompt(QUESTION, SHOWN)):
        assert teach(prompt, random.Random(0), PERFECT, as_json=True) is None
        asked = {"model": "simulated-judge", "messages": [{"role": "user", "content": prompt}]}
        assert complete(asked, Settings())["choices"][0]["message"]["content"] == HONEST


def test_errors_come_at_their_rates_and_only_then():
    rates = dataclasses.replace(PERFECT, ungrounded=0.3, uncited=0.2)
    seen = Counter()
    for seed in range(1000):
        answer = parse_answer(ask(rates=rates, seed=seed), len(SHOWN))
        text = answer.text.split("\n")[0]
        seen["bad citation"] += answer.reason == "bad citation"
        seen["number"] += "계약금" in text and groundedness(text, SHOWN) == 0
        seen["right"] += answer == ("계약금은 먼저 내는 돈으로, 보증금의 10%쯤입니다.", (2,), None)
    assert 150 < seen["bad citation"] < 250
    assert 250 < seen["number"] < 350  # it has a number, so that is what gets changed
    assert 490 < seen["right"] < 630
    for seed in range(200):
        assert parse_answer(ask(seed=seed), len(SHOWN)).cited == (2,)


def test_an_invention_is_not_grounded():
    rates = dataclasses.replace(PERFECT, ungrounded=1)
    said = {parse_answer(ask("관리비란 무엇인가요?", rates=rates, seed=seed), 2).text
            for seed in range(30)}
    assert len(said) == 3
    assert all(groundedness(text, SHOWN) < 0.3 for text in said)


def test_the_rates_are_announced():
    assert str(Imperfections()).endswith("ungrounded 5%, uncited 5%")


# --- Judge ------------------------------------------------------------------------------------

FAIR = Settings(traits=JudgeTraits(position_bias=0, noise=0))
COUNTING, RIGHT = "다음 목록에 있는 낱말은 모두 몇 개인가요?\n\n사과, 배, 감", "모두 3개입니다."
HOSTILE = [
    row["text"] * row.get("times", 1)
    for row in map(json.loads, (REPO / "tests/hostile_answers.jsonl").open(encoding="utf-8"))
]


def judged(prompt, settings=FAIR, allowed=BATTLE_VERDICTS, form=BRACKETS, **params):
    """The message of the simulated judge, asked in a form."""
    if form == JSON:
        params["response_format"] = verdict_format(allowed)
    body = {"model": "simulated-judge", "messages": [{"role": "user", "content": prompt}], **params}
    return complete(body, settings)["choices"][0]["message"]


@pytest.mark.parametrize("form", [JSON, BRACKETS, REMINDER])
def test_no_hostile_answer_changes_a_verdict(form):
    """Prompt, reply and reader together: the truth decides, whatever an answer says."""
    for text in HOSTILE:
        for *answers, expected in [(RIGHT, text, "A"), (text, RIGHT, "B"), (text, "몰라요", "C")]:
            prompt = battle_prompt(COUNTING, *answers, form=form)
            reply = judged(prompt, form=form)["content"]
            assert read_reply(reply, BATTLE_VERDICTS, form)[0] == expected
        reply = judged(grade_prompt(COUNTING, text, form=form), allowed=GRADES, form=form)
        assert int(read_reply(reply["content"], GRADES, form)[0]) <= 5


def test_held_to_a_schema_the_judge_fills_it_in_or_refuses():
    won, blind = battle_prompt(COUNTING, RIGHT, "몰라요"), grade_prompt("고래는 어떤가요?", "네.")
    said = judged(won, form=JSON)
    assert list(json.loads(said["content"])) == ["reason", "verdict"] and said["refusal"] is None
    said = judged(blind, form=JSON, allowed=GRADES)
    assert said["content"] is None and "알 수 없는" in said["refusal"]
    silent = Settings(traits=JudgeTraits(invalid=1))
    assert judged(won, silent, form=JSON)["refusal"]
    assert judged(won, silent)["refusal"] is None and "[[" not in judged(won, silent)["content"]


def test_a_server_may_refuse_schemas():
    settings = Settings(refuse_json_schema=True)
    with pytest.raises(ApiError, match="response_format"):
        judged(battle_prompt(COUNTING, "1", "2"), settings, form=JSON)
    assert judged(battle_prompt(COUNTING, "1", "2"), settings)["content"]


def test_traits_travel_with_a_request():
    tie = battle_prompt(COUNTING, "하나", "둘입니다")

    def share(verdict, **traits):
        said = [judged(tie, traits=traits, seed=seed)["content"] for seed in range(300)]
        return sum(text.endswith(f"[[{verdict}]]") for text in said) / len(said)

    # Another seed is another draw, and the same one the same.
    assert share("A", position_bias=0.5) == pytest.approx(0.5, abs=0.1)
    assert share("C", position_bias=0) == share("B", length_bias=1) == 1
    assert share("B", length_bias=0.5, position_bias=0.5) == pytest.approx(0.25, abs=0.1)
    assert judged(tie, traits={"position_bias": 1}) == judged(tie, traits={"position_bias": 1})
    for wrong in ({"bias": 1}, {"noise": 2}, {"noise": "0.1"}, {"noise": True, "x": 0}, [0.1]):
        with pytest.raises(ApiError, match="'traits' are shares from 0 to 1"):
            judged(tie, traits=wrong)
