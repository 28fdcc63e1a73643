"""The judge reads strictly, asks in both orders, and never turns a failure into a number."""

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from course_utils import REPO, CourseError
from course_utils.judge import (
    PROMPT_VERSION,
    Item,
    Judge,
    Judgment,
    read_battle_prompt,
    read_grade_prompt,
    repeat_rows,
)
from course_utils.llm import LLM, BudgetReached
from course_utils.offline import world
from course_utils.plumbing.connection import NoAnswer
from course_utils.stats import (
    Game,
    Grade,
    StatsError,
    summarize_battle,
    summarize_grades,
    summarize_repeats,
)


def scripted(answer, **settings) -> LLM:
    """A client of a server that says what `answer(prompt, parameters)` returns, or raises.

    A dict is a verdict as JSON, a text the content; (content, finish_reason, refusal) says it all.
    """
    llm = LLM("scripted", base_url="http://127.0.0.1:9/v1", workers=2, **settings)
    llm.asked = []

    def create(model, messages, extra_body):
        llm.asked.append(SimpleNamespace(prompt=messages[0]["content"], **extra_body))
        said = answer(messages[0]["content"], extra_body)
        if isinstance(said, Exception):
            raise said
        if isinstance(said, dict):
            said = json.dumps({"reason": "까닭"} | said)
        text, why, refusal = (said, "stop", None) if isinstance(said, str) else said
        message = SimpleNamespace(content=text, refusal=refusal)
        usage = SimpleNamespace(prompt_tokens=100, completion_tokens=10)
        return SimpleNamespace(choices=[SimpleNamespace(message=message, finish_reason=why)],
                               usage=usage, model="scripted-2026", system_fingerprint="fp_1")

    completions = SimpleNamespace(create=create)
    llm._connection.client = lambda: SimpleNamespace(chat=SimpleNamespace(completions=completions))
    return llm


def judge_of(answer, **settings):
    return Judge(scripted(answer), progress=False, **settings)


def as_asked(verdict, params, reason="까닭"):
    """The verdict in the form that was asked for, as a good model gives it."""
    return {"verdict": verdict} if "response_format" in params else f"{reason}\n\n[[{verdict}]]"


def longer_wins(prompt, params):
    first, second = map(len, read_battle_prompt(prompt)[1:3])
    return as_asked("C" if first == second else "A" if first > second else "B", params)


ITEMS = [
    Item("q1", "질문 하나", a="긴 답변입니다.", b="짧다"),
    Item("q2", "질문 둘", a="짧다", b="긴 답변입니다."),
    Item("q3", "질문 셋", a="하나", b="둘둘"),
]
GAMES = [Game("q1", "a", "a", 8, 2), Game("q2", "b", "b", 2, 8), Game("q3", "tie", "tie", 2, 2)]


def test_a_battle_asks_both_orders_and_speaks_of_models():
    judge = judge_of(longer_wins)
    assert judge.battle(iter(ITEMS)) == GAMES
    shown = [read_battle_prompt(asked.prompt)[:3] for asked in judge.llm.asked]
    assert sorted(shown) == sorted(
        (item.question, *answers) for item in ITEMS
        for answers in ((item.a, item.b), (item.b, item.a)))  # fmt: skip
    assert all(asked.temperature == 0 and asked.response_format for asked in judge.llm.asked)
    assert [(j.id, j.order, j.verdict) for j in judge.judgments][:3] == [
        ("q1", "ab", "a"), ("q1", "ba", "a"), ("q2", "ab", "b")]


def test_a_judgment_can_be_audited():
    judge = Judge(scripted(longer_wins, price=(10, 100)), progress=False, max_tokens=300)
    judge.battle(ITEMS[:1])
    judgment = judge.judgments[0]
    assert judgment == Judgment("q1", "battle", "ab", 0, "a", "까닭", None, "", judgment.key,
                                "scripted-2026", 0.002)
    record = judge.llm.journal.get(judgment.key)
    assert record["model"] == "scripted" and record["served_by"] == "scripted-2026"
    assert record["system_fingerprint"] == "fp_1" and record["finish_reason"] == "stop"
    assert json.loads(record["text"]) == {"reason": "까닭", "verdict": "A"}
    assert record["usage"] == {"prompt_tokens": 100, "completion_tokens": 10}
    assert record["request"]["params"]["max_tokens"] == 300
    assert PROMPT_VERSION in record["request"]["messages"][0]["content"].splitlines()[0]


def test_a_judge_that_only_looks_at_position_decides_nothing():
    games = judge_of(lambda prompt, params: as_asked("A", params)).battle(ITEMS)
    summary = summarize_battle(games)
    assert summary.win_rate == 0.5 and summary.contradictions == 3
    assert summary.first_position_rate == 1 and summary.consistency == 0


# ---------------------------------------------------------------- the two forms


def no_schema(prompt, params):
    """A server that takes response_format and does not care."""
    return longer_wins(prompt, {})


def refuses_schema(prompt, params):
    if "response_format" in params:
        return NoAnswer("refused", "the server refused the request (400: what is that?)")
    return longer_wins(prompt, params)


@pytest.mark.parametrize("server", [no_schema, refuses_schema])
def test_a_server_without_schemas_is_found_out_with_one_question(server, capsys, tmp_path):
    journal = tmp_path / "journal.jsonl"
    judge = Judge(scripted(server, journal=journal), progress=False)
    assert judge.llm.plan(judge.battle_requests(ITEMS)).calls == 6
    assert judge.battle(ITEMS) == GAMES
    tried = [hasattr(asked, "response_format") for asked in judge.llm.asked]
    assert tried == [True] + [False] * 6
    assert capsys.readouterr().out == ("scripted does not keep to a JSON schema here: its verdicts "
                                       "are asked for in double brackets.\n")
    judge.battle(ITEMS)  # remembered, and in the journal
    assert judge.grade_requests([Item("g", "q", "a")])[0].params == {"temperature": 0}
    again = Judge(scripted(server, journal=journal), progress=False)  # as after a restart
    assert again.llm.plan(again.battle_requests(ITEMS)).calls == 0
    assert again.battle(ITEMS) == GAMES and again.judgments == judge.judgments
    more = [*ITEMS, Item("q4", "질문 넷", a="네 글자다", b="둘둘")]
    assert len(again.battle(more)) == 4
    assert [hasattr(asked, "response_format") for asked in again.llm.asked] == [False, False]
    assert len(judge.llm.asked) == 7 and capsys.readouterr().out == ""


@pytest.mark.parametrize(("reply", "form"), [({"verdict": "7"}, "JSON"), ("낫다.\n[[7]]", "[[")])
def test_a_client_that_learns_to_leave_the_schema_out(reply, form, capsys):
    """The client drops a parameter that is refused by its name; the prompt alone asks for JSON."""

    class Unsupported(Exception):
        status_code, code, param = 400, "unsupported_parameter", "response_format"

    judge = judge_of(lambda p, params: Unsupported() if "response_format" in params else reply)
    items = [Item(str(n), "q", f"답 {n}") for n in range(4)]
    assert [grade.score for grade in judge.grade(items)] == [7] * 4
    said = capsys.readouterr().out
    assert 'does not accept "response_format"' in said
    assert ("double brackets" in said) == (form == "[[")
    assert [form in asked.prompt for asked in judge.llm.asked[-4:]] == [True] * 4
    assert len(judge.llm.asked) == (5 if form == "JSON" else 6)  # one reply was in the wrong form


def test_replies_of_either_form_are_never_paid_for_twice(tmp_path):
    """Half judged by a server with schemas, then the server lost them: both halves stay."""
    journal = tmp_path / "journal.jsonl"
    Judge(scripted(longer_wins, journal=journal), progress=False).battle(ITEMS[:2])
    other = Judge(scripted(refuses_schema, journal=journal), progress=False)
    assert other.battle(ITEMS) == GAMES
    assert len([a for a in other.llm.asked if not hasattr(a, "response_format")]) == 2
    last = Judge(scripted(lambda *asked: CourseError("asked again"), journal=journal),
                 progress=False)  # fmt: skip
    assert last.llm.plan(last.battle_requests(ITEMS)).calls == 0
    assert last.battle(ITEMS) == GAMES and last.judgments == other.judgments


def test_a_request_that_is_refused_in_both_forms_says_nothing_about_schemas(capsys):
    def answer(prompt, params):
        if read_grade_prompt(prompt).answer == "너무 길다":
            return NoAnswer("refused", "the server refused the request (400: too long)")
        return as_asked("7", params)

    judge = judge_of(answer)
    items = [Item("long", "q", "너무 길다"), Item("short", "q", "짧다"), Item("other", "q", "말")]
    assert [grade.score for grade in judge.grade(items)] == [None, 7, 7]
    assert judge.judgments[0].invalid == "refused request" and "too long" in judge.invalid["long"]
    assert len(judge.llm.asked) == 4 and capsys.readouterr().out == ""
    assert all(hasattr(asked, "response_format") for asked in judge.llm.asked[2:])


# ---------------------------------------------------------------- what is no verdict


@pytest.mark.parametrize(
    ("reply", "name"),
    [
        ("A가 더 낫습니다.", "no verdict"),
        ("Assistant B", "no verdict"),
        ("", "no verdict"),
        ("```\n[[B]]\n```", "not on the last line"),
        ("[[A]] 아니 [[B]]", "several verdicts"),
        ("[[11]]", "not offered"),
    ],
)
def test_what_cannot_be_read_is_asked_once_more_and_then_invalid(reply, name, tmp_path):
    journal = tmp_path / "journal.jsonl"
    judge = Judge(scripted(lambda *asked: reply, journal=journal), progress=False)
    assert judge.battle(ITEMS[:1]) == [Game("q1", None, None, 8, 2)]
    assert [j.invalid for j in judge.judgments] == [name, name]
    assert list(judge.invalid) == ["q1 (ab order)", "q1 (ba order)"]
    assert {j.reason for j in judge.judgments} == {reply}
    prompts = [asked.prompt for asked in judge.llm.asked]
    # As JSON and then in brackets; in brackets and then with a reminder.
    assert len(set(prompts)) == len(prompts) == 4
    again = Judge(scripted(lambda *asked: "[[A]]", journal=journal), progress=False)
    again.battle(ITEMS[:1])
    assert again.llm.asked == [] and again.judgments == judge.judgments
    assert again.llm.plan(again.battle_requests(ITEMS[:1])).calls == 0


def test_the_second_reply_counts_and_both_are_paid():
    def answer(prompt, params):
        return "잘 모르겠습니다." if "판정을 읽지 못했습니다" not in prompt else "낫다.\n[[8]]"

    judge = Judge(scripted(answer, price=(0, 1000)), progress=False)
    assert [g.score for g in judge.grade([Item("1", "q", "a"), Item("2", "q", "b")])] == [None, 8]
    assert [j.cost for j in judge.judgments] == [0.02, 0.02]
    assert judge.llm.spent == 0.04


@pytest.mark.parametrize(
    ("reply", "name", "words"),
    [
        ((None, "stop", "도울 수 없습니다."), "refusal", "refused"),
        (('{"reason": "낫', "length", None), "truncated", "length"),
        ((json.dumps({"reason": "", "verdict": "9"}), "length", None), "truncated", "cut"),
        (("", "content_filter", None), "content filter", "content_filter"),
        (NoAnswer(None, "given up after 7 attempts: overloaded"), "no reply", "overloaded"),
    ],
)
def test_other_failures_have_their_own_names_and_are_not_asked_again(reply, name, words):
    judge = judge_of(lambda *asked: reply)
    assert judge.grade([Item("q1", "질문", answer="답")])[0].score is None
    (judgment,) = judge.judgments
    assert (judgment.verdict, judgment.invalid) == (None, name) and words in judgment.error
    assert len(judge.llm.asked) == 1 and judge.invalid == {"q1": judgment.error}


def test_failures_stay_invalid_in_the_summary():
    def answer(prompt, params):
        question = read_battle_prompt(prompt).question
        failure = NoAnswer(None, "given up after 7 attempts: overloaded")
        return failure if question == "질문 하나" else as_asked("A", params)

    judge = judge_of(answer)
    games = judge.battle(ITEMS)
    assert [(g.first, g.second) for g in games] == [(None, None), ("a", "b"), ("a", "b")]
    with pytest.raises(StatsError, match="1 of 3"):
        summarize_battle(games)


def test_a_failed_request_is_tried_again_in_the_next_run(tmp_path):
    journal = tmp_path / "journal.jsonl"
    failing = Judge(scripted(lambda *a: NoAnswer(None, "busy"), journal=journal), progress=False)
    assert failing.battle(ITEMS)[0].first is None
    working = Judge(scripted(longer_wins, journal=journal), progress=False)
    assert working.llm.plan(working.battle_requests(ITEMS)).calls == 6
    assert working.battle(ITEMS) == GAMES


def test_grades_keep_their_reason():
    def answer(prompt, params):
        parts = read_grade_prompt(prompt)
        assert parts.reference == ("둘" if parts.question == "q" else None)
        return {"reason": "정확하고 간결합니다. ", "verdict": "9" if parts.answer == "둘" else "10"}

    items = [Item("1", "q", answer="둘", reference="둘"), Item("2", "다른 질문", answer="셋")]
    judge = judge_of(answer)
    assert judge.grade(items) == [
        Grade("1", 9, "정확하고 간결합니다."), Grade("2", 10, "정확하고 간결합니다.")]
    assert summarize_grades(judge.grade(items)).mean == 9.5


# ---------------------------------------------------------------- repeats


def test_repeats_ask_with_other_seeds_and_keep_every_verdict():
    def answer(prompt, params):
        return as_asked("ABC"[params.get("seed", 0) % 3], params)

    judge = judge_of(answer, repeats=3, temperature=1)
    assert judge.battle(ITEMS[:2]) == judge_of(answer).battle(ITEMS[:2])  # the first ones count
    seeds = [getattr(asked, "seed", 0) for asked in judge.llm.asked]
    assert sorted(seeds) == [0] * 4 + [1] * 4 + [2] * 4
    assert {asked.temperature for asked in judge.llm.asked} == {1}
    assert [j.repeat for j in judge.judgments] == [0] * 4 + [1] * 4 + [2] * 4
    assert repeat_rows(judge.judgments)[:2] == [["a", "b", "tie"], ["b", "a", "tie"]]
    assert summarize_repeats(repeat_rows(judge.judgments)).unanimous == 0
    assert judge.llm.plan(judge.battle_requests(ITEMS[:2])).cached == 12
    graded = judge_of(lambda p, params: as_asked(str(7 + params.get("seed", 0)), params), repeats=2)
    assert [g.score for g in graded.grade([Item("1", "q", "a")])] == [7]
    assert repeat_rows(graded.judgments) == [[7, 8]]
    with pytest.raises(CourseError, match="at least once, not 0"):
        judge_of(answer, repeats=0)


def test_an_invalid_repeat_is_named_by_its_number():
    judge = judge_of(lambda p, params: "흠" if "seed" in params else as_asked("A", params),
                     repeats=2)  # fmt: skip
    judge.battle(ITEMS[:1])
    assert list(judge.invalid) == ["q1 (ab order, repeat 2)", "q1 (ba order, repeat 2)"]
    assert repeat_rows(judge.judgments) == [["a", None], ["b", None]]


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([Item("q1", "질문", a="답")], "'b' in the items q1"),
        ([Item(f"q{i}", "질문", b="답") for i in range(9)], "q4 and 4 more"),
        ([Item("q1", None, a="답", b="말")], "'question' in the items q1"),
        ([Item("q1", "질문", a="답", b=float("nan"))], "'b' in the items q1"),
        ([ITEMS[0], ITEMS[0]], "several items have the id q1"),
    ],
)
def test_unusable_items_cost_nothing(items, message):
    judge = judge_of(longer_wins)
    with pytest.raises(CourseError, match=message):
        judge.battle(items)
    with pytest.raises(CourseError, match=message):
        judge.battle_requests(items)
    assert judge.llm.asked == []


def test_nothing_to_judge_is_nothing_judged():
    judge = judge_of(longer_wins)
    assert judge.battle([]) == judge.grade([]) == judge.judgments == judge.battle_requests([]) == []


def test_an_empty_answer_is_an_answer_and_is_named(capsys):
    judge = judge_of(longer_wins)
    items = [Item("q1", "질문", a="", b="답"), Item("q2", "질문", a="답", b=" \n")]
    assert judge.battle(items) == [Game("q1", "b", "b", 0, 1), Game("q2", "b", "b", 1, 2)]
    assert capsys.readouterr().out == "Empty answers, judged as they are: q1 (a), q2 (b).\n"
    judge_of(lambda p, params: as_asked("1", params)).grade([Item("q3", "질문", "")])
    assert "judged as they are: q3.\n" in capsys.readouterr().out


def test_identical_answers_are_a_tie_that_nobody_asked_for(capsys):
    judge = judge_of(lambda p, params: as_asked("A", params))
    items = [Item("same", "질문", a="답", b="답"), ITEMS[0], Item("empty", "질문", a="", b="")]
    games = judge.battle(items)
    assert games[0] == Game("same", "tie", "tie", 1, 1) and games[2].score == 0.5
    assert "tie without asking the judge: same, empty.\n" in capsys.readouterr().out
    assert [(j.id, j.order) for j in judge.judgments if not j.key] == [
        ("same", "ab"), ("same", "ba"), ("empty", "ab"), ("empty", "ba")]
    assert all((j.model, j.reason, j.cost) == ("", "", 0) for j in judge.judgments if not j.key)
    assert len(judge.llm.asked) == len(judge.battle_requests(items)) == 2


def test_a_quota_that_ends_half_way_keeps_what_was_paid_and_names_what_is_missing(tmp_path):
    journal, items = tmp_path / "journal.jsonl", [
        Item(f"q{i}", f"질문 {i}", a="긴 답변입니다.", b="짧다") for i in range(20)]  # fmt: skip
    left = [15]

    def answer(prompt, params):
        left[0] -= 1
        if left[0] < 0:
            return CourseError("The account has no credit left: add credit and run again.")
        return longer_wins(prompt, params)

    judge = Judge(scripted(answer, journal=journal), progress=False)
    with pytest.raises(CourseError, match=r"no credit left.* 15 of 40 judgments are made, not yet: "
                       r"q\d+ \((ab|ba) order\), .* and 20 more\."):
        judge.battle(items)
    assert len(judge.judgments) == 15 and not judge.invalid
    left[0] = 25
    again = Judge(scripted(answer, journal=journal), progress=False)
    assert again.llm.plan(again.battle_requests(items)).calls == 25
    assert {game.score for game in again.battle(items)} == {1} and left == [0]


def test_a_budget_that_ends_half_way_says_so():
    llm = scripted(longer_wins, price=(0, 1000), budget=0.055)  # $0.01 a judgment
    judge = Judge(llm, progress=False, max_tokens=10)
    with pytest.raises(BudgetReached, match=r"raise the budget .* 5 of 6 judgments are made, not "
                       r"yet: q3 \(ba order\)"):
        judge.battle(ITEMS)


def test_a_journal_whose_last_line_is_cut_asks_for_that_one_again(tmp_path):
    journal = tmp_path / "journal.jsonl"
    judge = Judge(scripted(longer_wins, journal=journal), progress=False)
    judge.battle(ITEMS)
    judge.llm.journal.close()
    journal.write_bytes(journal.read_bytes()[:-40])
    again = Judge(scripted(longer_wins, journal=tmp_path / "." / "journal.jsonl"), progress=False)
    assert again.battle(ITEMS) == GAMES and len(again.llm.asked) == 1


def test_an_old_journal_is_read_as_it_is(tmp_path):
    """Journals of earlier versions hold neither a fingerprint nor a refusal."""
    journal = tmp_path / "journal.jsonl"
    judge = Judge(scripted(longer_wins, journal=journal), progress=False)
    judge.battle(ITEMS)
    judge.llm.journal.close()
    records = [json.loads(line) for line in journal.read_text("utf-8").splitlines()]
    for record in records:
        del record["system_fingerprint"], record["refusal"]
    old = tmp_path / "old.jsonl"
    old.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
    again = Judge(scripted(longer_wins, journal=old), progress=False)
    assert again.battle(ITEMS) == GAMES and again.llm.asked == []


# ---------------------------------------------------------------- the simulated API


@contextmanager
def serving(*flags):
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.faulty_server", "--port", "0",
         "--parent", str(os.getpid()), *flags],
        stdout=subprocess.PIPE, text=True, cwd=REPO,
    )  # fmt: skip
    try:
        yield server.stdout.readline().strip()
    finally:
        server.terminate()
        server.wait(60)
        server.stdout.close()


def world_items(n, seed=3):
    tasks = world.sample_tasks(n, split="heldout", seed=seed)
    return [
        Item(f"q{i}", f"{task.instruction}\n\n{task.input}" if task.input else task.instruction,
             answer=task.output, a=task.output, b="모르겠습니다.")
        for i, task in enumerate(tasks)
    ]  # fmt: skip


@pytest.mark.parametrize("flags", [(), ("--refuse-json-schema",)], ids=["json", "brackets"])
def test_against_the_simulated_api_and_its_storms(tmp_path, flags):
    """Through the openai client: the truth is found, and judging again asks for nothing."""
    items, log, journal = world_items(16), tmp_path / "log.jsonl", tmp_path / "judge.jsonl"
    results = []
    with serving("--noise", "0", "--log", str(log), "--faults", "0.4", *flags) as url:
        for _ in range(2):  # the second time as after a restart: from the journal
            llm = LLM("simulated-judge", base_url=url, journal=journal, backoff=0.01,
                      max_retries=40)  # fmt: skip
            judge = Judge(llm, progress=False)
            results.append((judge.battle(items), judge.grade(items), judge.invalid))
            asked = [json.loads(line) for line in log.read_text().splitlines()]
    assert results[0] == results[1]
    games, grades, invalid = results[0]
    assert invalid == {}
    assert summarize_battle(games).win_rate == 1 and {g.score for g in grades} == {9, 10}
    answered = {line["request"] for line in asked if line["fault"] is None}
    assert len(answered) == 3 * len(items) + len(flags)
    assert any(line["fault"] for line in asked)
    forms = {"response_format" in record["request"]["params"] for record in llm.journal.records()}
    assert forms == {not flags} and len(llm.journal) == 3 * len(items)


def test_the_simulated_judge_is_turned_up_and_down_by_the_request():
    """How notebook 03 does it: traits travel with the request, so journals keep them apart."""
    items = [Item(i.id, i.question, a="틀렸다", b="둘 다 틀린 답변") for i in world_items(60)]
    with serving() as url:
        def share_of_first(**settings):
            judge = Judge(LLM("simulated-judge", base_url=url), progress=False, **settings)
            return summarize_battle(judge.battle(items)), judge

        fair, judge = share_of_first(traits={"position_bias": 0, "noise": 0})
        assert fair.first_position_rate is None and fair.ties == 60
        biased, _ = share_of_first(traits={"position_bias": 1, "noise": 0})
        assert biased.first_position_rate == 1 and biased.contradictions == 60
        wordy, _ = share_of_first(traits={"position_bias": 0, "noise": 0, "length_bias": 1})
        assert wordy.longer_win_rate == 1 and wordy.losses == 60
        noisy, judge = share_of_first(traits={"position_bias": 0, "noise": 0.5}, repeats=3)
        assert 0 < summarize_repeats(repeat_rows(judge.judgments)).unanimous < 0.6
        silent = Judge(judge.llm, progress=False, traits={"invalid": 1})
        silent.battle(items[:2])
        assert {j.invalid for j in silent.judgments} == {"refusal"}
        wrong = Judge(judge.llm, progress=False, traits={"bias": 1})
        wrong.battle(items[:1])
        assert "position_bias" in wrong.invalid["q0 (ab order)"]
