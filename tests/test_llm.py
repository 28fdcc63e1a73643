"""The client against a server on loopback: order, retries, the journal, money, plain errors."""

import errno
import itertools
import json
import math
import socket
import threading
import time
from contextlib import suppress
from types import SimpleNamespace

import pytest
from loopback import Chat, chat, refusal, said

from course_utils import CourseError, llm
from course_utils.llm import LLM, BudgetReached, Plan, Request
from course_utils.plumbing import connection


@pytest.fixture
def api():
    with Chat() as server:
        yield server


@pytest.fixture
def client(api, tmp_path):
    def make(**settings):
        journal = tmp_path / "journal.jsonl"
        defaults = {"model": "echo-small", "base_url": api.url, "journal": journal, "backoff": 0.01}
        return LLM(**(defaults | settings))

    return make


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes on only where the client waits."""
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now, time=lambda: clock.now)

    def pause(halt, seconds):
        clock.now += seconds
        if halt.is_set():
            raise halt.reason

    monkeypatch.setattr(connection, "time", clock)
    monkeypatch.setattr(llm._Halt, "pause", pause)
    return clock


def ask(text, sample=0, **params):
    return Request([{"role": "user", "content": str(text)}], params, sample)


def asks(count=20):
    return (ask(n) for n in range(count))


def texts(replies):
    return [reply.text for reply in replies]


def lines(llm):
    return [json.loads(line) for line in llm.journal.path.read_text("utf-8").splitlines()]


# ---------------------------------------------------------------- order and concurrency


def test_replies_come_in_the_order_of_requests_and_from_the_journal(api, client):
    def answer(body, n):
        time.sleep(0.03 * (4 - int(said(body)) % 4))
        return chat(f"to {said(body)}")

    api.answer = answer
    llm = client(workers=4)
    replies = []
    for reply in llm.complete(asks(12)):
        assert reply.key in {record["key"] for record in lines(llm)}  # before anybody sees it
        replies.append(reply)
    assert texts(replies) == [f"to {n}" for n in range(12)]
    assert {(reply.cached, reply.error, reply.model) for reply in replies} == {
        (False, None, "echo-small-1")}
    assert replies[0].usage == {"prompt_tokens": 10, "completion_tokens": 20}


def test_requests_are_sent_together_but_never_more_than_workers(api, client):
    together = threading.Barrier(5)  # nobody is answered before five are asking
    lock, running, most = threading.Lock(), [0], [0]

    def answer(body, n):
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        together.wait(timeout=50)
        with lock:
            running[0] -= 1
        return chat("ok")

    api.answer = answer
    replies = client(workers=5).complete(asks())
    assert texts(replies) == ["ok"] * 20
    assert most[0] == 5


def test_sending_goes_on_while_the_caller_works(api, client):
    replies = client(workers=3).complete(asks(100))
    next(replies)
    deadline = time.monotonic() + 20
    while len(api.asked) < 6 and time.monotonic() < deadline:
        time.sleep(0.01)  # the caller is busy and asks for nothing
    time.sleep(0.1)
    assert len(api.asked) == 6  # and yet it is not left far behind
    replies.close()


def test_a_slow_reply_does_not_hold_up_those_behind_it(api, client):
    others = threading.Event()

    def answer(body, n):
        if said(body) == "0":
            assert others.wait(20)
        elif len(api.asked) == 6:
            others.set()
        return chat(f"to {said(body)}")

    api.answer = answer
    assert texts(client(workers=3).complete(asks(9))) == [f"to {n}" for n in range(9)]


def test_an_interrupt_loses_nothing_that_was_paid_for(api, client):
    api.answer = lambda body, n: time.sleep(0.05) or chat("ok")
    llm = client(workers=3)
    with pytest.raises(KeyboardInterrupt):
        for number, _ in enumerate(llm.complete(asks(50))):
            if number == 4:
                raise KeyboardInterrupt
    assert len(lines(llm)) == len(api.asked) < 12
    time.sleep(0.1)
    assert len(lines(llm)) == len(api.asked)  # and no more were sent
    assert len(list(llm.complete(asks()))) == 20  # the cell is run again
    assert len(api.asked) == 20


def test_a_second_interrupt_leaves_nothing_set_aside(api, client, monkeypatch):
    def interrupted(pool, wait, cancel_futures):
        shutdown(pool, wait=False, cancel_futures=True)
        raise KeyboardInterrupt

    shutdown = llm.ThreadPoolExecutor.shutdown
    monkeypatch.setattr(llm.ThreadPoolExecutor, "shutdown", interrupted)
    may = threading.Event()
    api.answer = lambda body, n: chat("ok") if said(body) in "01" or may.wait(20) else None
    asker = client(workers=2, price=(1, 1), budget=1)
    replies = asker.complete(asks())
    next(replies)
    next(replies)
    assert len(asker._reserved) == 3  # two on their way, and one that has not begun
    with pytest.raises(KeyboardInterrupt):
        replies.close()
    may.set()
    deadline = time.monotonic() + 20
    while asker._reserved and time.monotonic() < deadline:
        time.sleep(0.01)
    assert asker._reserved == {}


def test_replies_that_find_no_room_on_the_disk_are_kept_and_counted(api, client, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("course_utils.plumbing.journal.os.fsync", full)
        with pytest.raises(CourseError, match="No space left.* wait in memory"):
            list(client(workers=4, price=(1, 1)).complete(asks()))
        paid = len(api.asked)
        with pytest.raises(CourseError, match="No space left"):
            list(client(price=(1, 1)).complete(asks()))  # nothing more is paid for meanwhile
        assert len(api.asked) == paid <= 4 and client(price=(1, 1)).spent > 0
    assert texts(client().complete(asks())) == [f"to {n}" for n in range(20)]
    assert len(api.asked) == 20 == len(lines(client()))


# ---------------------------------------------------------------- paid once


def test_nothing_is_asked_twice(api, client):
    requests = [ask("a"), ask("b"), ask("a"), ask("a", sample=1), ask("a", temperature=0)]
    replies = list(client().complete(requests))
    assert len(api.asked) == 4
    assert [reply.cached for reply in replies] == [False, False, True, False, False]
    again = list(client().complete(requests))
    assert len(api.asked) == 4
    assert all(reply.cached for reply in again)
    assert [reply.text for reply in again] == [reply.text for reply in replies]
    list(client(model="echo-large").complete(requests[:1]))
    assert len(api.asked) == 5  # another model is another question


def test_a_complete_journal_needs_no_server_and_no_key(client, monkeypatch):
    list(client().complete([ask("a")]))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    offline = client(base_url="https://no.such.host.invalid/v1")
    assert [reply.text for reply in offline.complete([ask("a")])] == ["to a"]


def test_what_the_journal_has_is_taken_without_looking_ahead(api, client):
    """A rerun once drew one request further than the run before it, and paid for that one."""
    requests = [ask(n) for n in range(20)]
    asked = []
    for _ in range(5):
        replies = client(workers=3).complete(iter(requests))
        for _ in range(6):
            next(replies)
        replies.close()
        asked.append(len(api.asked))
    assert asked == [asked[0]] * 5


def test_the_key_depends_on_what_is_asked_alone(client):
    llm = client()
    assert llm.key(ask("a", x=1, y=2)) == llm.key(ask("a", y=2, x=1))
    assert len({llm.key(r) for r in (ask("a"), ask("b"), ask("a", x=1), ask("a", sample=1))}) == 4
    assert llm.key(ask("가")) == client(base_url="http://127.0.0.1:9/v1").key(ask("가"))
    # What journals hold already must be found again: this value may never change.
    assert client(params={"temperature": 0.5}).key(
        ask("가 \ud83d", sample=2, max_tokens=5, temperature=0)
    ) == "f9ff38ee19db950db66c0eb69b88dbc5717e30ada882bc81979edd62004b4bac"


@pytest.mark.parametrize("journal", [{}, {"journal": None}])
def test_half_an_emoji_can_be_kept(api, client, journal):
    api.answer = lambda body, n: chat("좋아요 \ud83d")
    asker = client(**journal)
    for cached in (False, True):
        assert [(r.text, r.cached) for r in asker.complete([ask("a")])] == [("좋아요 ?", cached)]


# ---------------------------------------------------------------- what may pass


HTML = b"<html><body><h1>502 Bad Gateway</h1>" + b"nginx " * 500 + b"</body></html>"
PAGE = {"content-type": "text/html"}


def test_passing_failures_are_tried_again(api, client):
    faults = [refusal(429), refusal(500), refusal(503), (None, b""), (200, b"{broken"),
              (200, {"object": "chat.completion", "choices": []}), (200, HTML, PAGE),
              (502, HTML, PAGE), (503, b"", {}), (200, json.dumps(chat("whole")[1]).encode()[:60])]
    api.answer = lambda body, n: faults[n] if n < len(faults) else chat("at last")
    (reply,) = client(workers=1, max_retries=20, backoff=0.0001).complete([ask("a")])
    assert (reply.text, len(api.asked)) == ("at last", len(faults) + 1)
    assert [line["text"] for line in lines(client()) if "request" in line] == ["at last"]
    api.answer = lambda body, n: (502, HTML, PAGE)
    (reply,) = client(max_retries=1).complete([ask("b")])
    assert "502" in reply.error and "<html>" not in reply.error


@pytest.mark.parametrize("headers", [{"retry-after": "30"}, {"retry-after-ms": "30000"},
                                     {"retry-after": "Thu, 01 Jan 1970 00:00:30 GMT"}])
def test_retry_after_is_honoured_up_to_two_minutes(api, client, clock, headers):
    api.answer = lambda body, n: chat("ok") if n else refusal(503, headers=headers)
    assert texts(client().complete([ask("a")])) == ["ok"] and clock.now == 30
    api.answer = lambda body, n: refusal(503, headers={"retry-after": "86400"})
    with pytest.raises(CourseError, match="No request for 86400 s"):  # nobody sits there for a day
        list(client().complete([ask("b")]))


@pytest.mark.parametrize("first", [b"", b"HTTP/1.1 200 OK\r\n",
                                   b"HTTP/1.1 200 OK\r\ncontent-length: 999\r\n\r\n"])
def test_a_server_that_drips_does_not_hold_a_request(client, first):
    """Each read is answered in time, and none is the last one."""
    def drip(connection):
        with suppress(OSError):
            connection.recv(9999)
            connection.sendall(first)
            while time.sleep(0.05) is None:
                connection.sendall(b"x")

    def serve():
        with suppress(OSError):
            while True:
                threading.Thread(target=drip, args=listener.accept()[:1], daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        (reply,) = client(base_url=url, timeout=0.3, max_retries=1).complete([ask("a")])
    assert "no whole answer within 0.3 s" in reply.error


def test_spent_retries_give_a_reply_with_an_error_and_no_record(api, client):
    api.answer = lambda body, n: refusal(500, "out of order") if said(body) == "b" else chat("ok")
    llm = client(max_retries=2)
    replies = list(llm.complete([ask("a"), ask("b"), ask("c")]))
    assert texts(replies) == ["ok", None, "ok"]
    assert replies[1].error == "given up after 3 attempts: out of order"
    assert replies[1].finish_reason is None
    assert len(lines(llm)) == 2
    api.answer = lambda body, n: chat("now")
    assert [r.text for r in llm.complete([ask("a"), ask("b")])] == ["ok", "now"]


@pytest.mark.parametrize(("status", "words"), [(400, "too long"), (403, "flagged by moderation")])
def test_a_refused_request_does_not_stop_the_others(api, client, status, words):
    api.answer = lambda body, n: refusal(status, words) if said(body) == "b" else chat("ok")
    replies = list(client().complete([ask("a"), ask("b"), ask("c")]))
    assert [reply.finish_reason for reply in replies] == ["stop", "refused", "stop"]
    assert words in replies[1].error and len(api.asked) == 3


# ---------------------------------------------------------------- what will not pass


@pytest.mark.parametrize(("response", "sentence"), [
    (refusal(401, "Incorrect API key"), "refused the API key .401: Incorrect"),
    (refusal(400, "API key not valid. Please pass a valid API key."), "refused the API key .400"),
    (refusal(400, "User location is not supported for the API use."), "not let this account ask"),
    (refusal(400, "Billing hard limit has been reached"), "does not let this account ask"),
    (refusal(403, "Country not supported"), "does not let this account ask .403: Country"),
    (refusal(429, "quota", code="insufficient_quota"), "no credit left"),
    ((429, [{"error": {"code": "insufficient_quota"}}]), "no credit left"),
    (refusal(402, "pay"), "no credit left"),
    (refusal(404, code="model_not_found"), 'model "echo-smal": .* offers is "echo-small"'),
    (refusal(429, "Rate limit reached on tokens per day (TPD): Limit 100000."), "Today's quota"),
    ((200, {"error": {"code": 429, "message": "free-models-per-day"}}), "Today's quota"),
])
def test_what_no_attempt_will_cure_stops_at_once(api, client, response, sentence):
    api.answer = lambda body, n: response
    with pytest.raises(CourseError, match=sentence) as error:
        list(client(model="echo-smal", workers=1).complete(asks()))
    assert api.url in str(error.value) and len(api.asked) == 1
    assert error.value.__context__ is None  # the library's own message is not shown with it


def test_a_refused_key_stops_all_workers(api, client):
    api.answer = lambda body, n: refusal(401)
    with pytest.raises(CourseError, match="refused the API key"):
        list(client().complete(asks(100)))
    assert len(api.asked) <= 8


def test_what_cannot_be_cured_interrupts_what_is_waiting(api, client):
    slow = refusal(500, headers={"retry-after": "60"})
    api.answer = lambda body, n: slow if said(body) == "0" else refusal(401)
    start = time.perf_counter()
    with pytest.raises(CourseError, match="refused the API key"):
        list(client().complete([ask(0), ask(1)]))
    assert time.perf_counter() - start < 45


def test_a_server_that_is_not_there_is_named(client):
    with pytest.raises(CourseError, match="Cannot reach http://127.0.0.1:9/v1"):
        list(client(base_url="http://127.0.0.1:9/v1").complete([ask("a")]))


def test_a_missing_key_is_said_before_anything_is_sent(client, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(CourseError, match="set OPENAI_API_KEY"):
        list(client(base_url=None).complete([ask("a")]))


def test_keys_go_where_they_belong(api, client, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    list(client().complete([ask("a")]))
    assert api.asked[0]["authorization"] == "Bearer none"  # not to a server on this machine
    list(client(api_key="given").complete([ask("b")]))
    assert api.asked[1]["authorization"] == "Bearer given"
    assert "given" not in client().journal.path.read_text()


def test_a_proxy_is_not_asked_for_this_machine(client, monkeypatch):
    for name in ("http_proxy", "all_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert [reply.text for reply in client().complete([ask("a")])] == ["to a"]


def test_a_filtered_reply_is_kept_as_it_is_and_not_asked_for_again(api, client):
    api.answer = lambda body, n: chat(None, finish_reason="content_filter")
    for cached in (False, True):
        (reply,) = client().complete([ask("a")])
        assert (reply.text, reply.finish_reason, reply.cached) == ("", "content_filter", cached)
    assert len(api.asked) == 1


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ([{"error": {"code": 400, "message": "a list"}}], "a list"),
        ({"error": "a string"}, "a string"),
        ("a string alone", "a string alone"),
        ({"detail": [{"loc": ["body"], "msg": "a list of details"}]}, "a list of details"),
        ({"error": {"message": json.dumps({"error": {"message": "JSON inside"}})}}, "JSON inside"),
        ({"error": {"message": "Provider returned error",
                    "metadata": {"raw": '{"error": {"message": "nested"}}'}}},
         "Provider returned error: nested"),
        (b"<html><head><title>t</title></head><body>a page</body></html>", "a page"),
        (b"", "400, without a word"),
        ({}, "{}"), ([], "[]"), (None, "null"), ({"error": None}, '{"error": null}'),
        ({"message": {"message": {"detail": "deep"}}}, "deep"),
    ],
)
def test_an_errors_body_of_any_shape_is_quoted(api, client, body, said):
    api.answer = lambda _, n: (400, body)
    (reply,) = client().complete([ask("a")])
    assert reply.finish_reason == "refused"
    assert reply.error.startswith("the server refused the request (400: ") and said in reply.error


@pytest.mark.parametrize(("words", "seconds"), [
    ("try again in 1m30s", 90), ("try again in 0.5 minutes. Visit us.", 30), ("Retry after 30", 30),
    ("Please retry in 500 milliseconds.", 0.5), ('"retryDelay": "37s"', 37), ("in a while", 0),
    ("again in 1.2.3s", 1.2)])
def test_a_delay_in_the_body_is_kept_to(api, client, clock, words, seconds):
    api.answer = lambda body, n: refusal(429, words) if n == 0 else chat("ok")
    assert texts(client(workers=1, backoff=0).complete([ask("a"), ask("b")])) == ["ok"] * 2
    assert clock.now == pytest.approx(seconds)


def test_a_delay_is_kept_to_by_everybody(api, client):
    times = []

    def answer(body, n):
        times.append(time.monotonic())
        return refusal(429, "try again in 300ms") if n == 0 else chat("ok")

    api.answer = answer
    assert texts(client(workers=2, backoff=0).complete(asks(3))) == ["ok"] * 3
    assert max(times) - times[0] >= 0.3
    assert sum(at - times[0] < 0.25 for at in times) <= 2  # those sent before it spoke


@pytest.mark.parametrize(
    "words",
    ['"quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier"',
     "Rate limit exceeded: free-models-per-day", "try again in 1h2m3s", "try again in 3m0.5s",
     "try again in 1 day",
     "limit of 50 requests per 24 hours", "Requests for today are used up until midnight"],
)
def test_a_used_up_quota_stops_at_once_and_keeps_what_there_is(api, client, words):
    api.answer = lambda body, n: chat("ok") if n < 2 else refusal(429, words)
    llm = client(workers=1)
    with pytest.raises(CourseError, match="every reply so far is kept; run this cell again later"):
        list(llm.complete(asks()))
    assert (len(llm.journal), len(api.asked)) == (2, 3)


def test_a_delay_of_nothing_is_no_reason_to_hurry(api, client, clock):
    api.answer = lambda body, n: refusal(429, headers={"retry-after": "0"}) if n < 3 else chat("ok")
    assert texts(client(backoff=1).complete([ask("a")])) == ["ok"]
    assert 0.75 * 7 <= clock.now <= 1.25 * 7  # 1, 2 and 4 seconds, give or take


def test_a_limit_of_a_minute_may_speak_of_days(api, client):
    words = ('"quotaId": "GenerateRequestsPerMinutePerProject" Requests per day are reset at '
             'midnight. Please retry in 0.1s')  # fmt: skip
    api.answer = lambda body, n: refusal(429, words) if n == 0 else chat("ok")
    assert [r.text for r in client().complete([ask("a")])] == ["ok"]


def test_refusals_and_nothing_else_stop_once_none_is_on_its_way(api, client):
    api.answer = lambda body, n: refusal(400, "the context is too small")
    with pytest.raises(CourseError, match=r"refused the first \d requests, .* is too small"):
        list(client(workers=1).complete(asks()))
    assert 3 <= len(api.asked) <= 5
    llm = client(workers=1)
    for _ in range(2):  # the check at the end of a list begins anew, too, when the cell is rerun
        api.asked.clear()
        with pytest.raises(CourseError, match="refused the first 3 requests"):
            list(llm.complete(asks(3)))
        assert len(api.asked) == 3
    late = threading.Event()

    def answer(body, n):
        if said(body) == "0":
            return chat("a slow answer") if late.wait(20) else None
        late.set() if n >= 5 else None
        return refusal(400, "too long")

    api.asked.clear()
    api.answer = answer
    replies = list(client(workers=3).complete(asks(12)))
    assert [reply.finish_reason for reply in replies] == ["stop"] + ["refused"] * 11


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ({"error": {"message": "Unrecognized request argument supplied: seed"}}, "seed"),
        ({"detail": [{"loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}]}, "seed"),
        ({"error": {"message": "response format is not supported"}}, "response_format"),
        ({"error": {"message": "'reasoning_effort' must be one of low, high"}}, "reasoning_effort"),
        ({"error": {"message": "blocked: unsupported topic, the seed of violence"}}, None),
        ({"error": {"message": "the temperature of this topic is not supported"}}, None),
    ],
)
def test_a_parameter_is_left_out_only_where_it_is_meant(api, client, body, name):
    sent = {"seed": 1, "temperature": 0, "response_format": {}, "reasoning_effort": "none"}
    api.answer = lambda asked, n: (400, body) if name is None or name in asked else chat("ok")
    (reply,) = client().complete([ask("a", **sent)])
    assert (reply.text, reply.finish_reason) == (("ok", "stop") if name else (None, "refused"))


@pytest.mark.parametrize(("odd", "told"), [
    ("20", 20), (20.0, 20), *((odd, None) for odd in (-20, 1e400, 1e300, None, True, [1], "many"))])
def test_usage_that_is_no_count_is_the_most_that_it_may_be(api, client, odd, told):
    whole = chat("네")
    whole[1]["usage"] = {"prompt_tokens": odd, "completion_tokens": odd}
    api.answer = lambda body, n: whole
    llm = client(price=(1, 1))
    (reply,) = llm.complete([ask("a", max_tokens=70)])
    assert reply.usage == {"prompt_tokens": told or 5, "completion_tokens": told or 70}
    assert client(price=(1, 1)).spent == llm.spent > 0


def test_thoughts_that_stand_in_the_total_alone_are_paid_as_well(api, client):
    whole = chat("네")
    whole[1]["usage"]["total_tokens"] = 500
    api.answer = lambda *_: whole
    assert next(client().complete([ask("a")])).usage["completion_tokens"] == 490


def test_no_minute_has_more_requests_than_it_may(api, client, clock):
    times = []
    api.answer = lambda body, n: times.append(clock.now) or chat("ok")
    for model, end in (("echo-small", ""), ("echo-large", "/")):  # the address is the same
        list(client(model=model, base_url=api.url + end, workers=1, rpm=30).complete(asks(3)))
    assert times == [0, 2, 4, 6, 8, 10]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ([{"type": "thinking", "thinking": [{"text": "음"}]},
          {"type": "text", "text": "네"}], "네"),
        (["네", "요"], "네요"), ([], ""), ([{"type": "text", "text": None}], ""),
        ([{"type": "text", "text": "음", "thought": True}, {"type": "text", "text": "네"}], "네"),
        ({"type": "text", "text": {"value": "네"}}, "네"), ([[{"text": "네"}, None]], "네"),
        ("<think>\n음\n</think>\n\n네", "네"), ("음\n</think>\n\n네", "네"), ("<think>음", ""),
        ("<thinking>a</thinking><think>b</think>네", "네"), ("[THINK]음[/THINK]네", "네"),
        ("<THINK></THINK>\n네", "네"), ("</think>\n\n네", "네"), ("음\n</Thinking>네", "네"),
        ("<reasoning>음", ""), ("음</thought>\n네", "네"),
        ("<think>a <think> b</think>\n네", "네"), ("음</think>", ""),
        ("네,\n<think>음</think>\n그럼요", "네,\n그럼요"), ("네\n<think>\n음", "네\n"),
        (None, ""),
        *((whole, whole) for whole in (
            "태그는 <think>와 </think>입니다.", "`</think>`는 생각의 끝입니다.",
            "<think>와 </think>는 태그입니다.", "<think>는 생각을 엽니다.", "</think>는 닫습니다.",
            "<think>…</think>는 태그입니다.", "예:\n```\n<think>\n음\n</think>\n```\n끝",
            "예:\n```\n</think>\n```\n끝", '{"끝": "음</think>"}', "Use <think> and </think>.",
            "<think> tags open a thought.")),
    ],
)  # fmt: skip
def test_what_a_model_thought_is_not_its_answer(api, client, content, text):
    api.answer = lambda body, n: chat(content)
    (reply,) = client().complete([ask("a")])
    assert reply.text == text


USAGE = {"prompt_tokens": 10, "completion_tokens": 20}
SAID = {"message": {"content": "네"}, "finish_reason": "stop"}


@pytest.mark.parametrize("body", [
    {"choices": SAID}, {"choices": {"0": SAID}}, {"choices": [{"message": "네"}]},
    {"choices": [{"delta": SAID["message"]}]}, {"choices": [{"message": None, "text": "네"}]},
    {"choices": [{"message": {"content": None, "refusal": "네"}}]}, [{"choices": [SAID]}],
    {"choices": [SAID | {"finish_reason": {"type": "stop"}}], "model": ["x"], "id": 3},
    {"choices": [SAID], "system_fingerprint": {"a": 1}},
])
def test_a_reply_of_any_shape_is_read(api, client, body):
    api.answer = lambda *_: (200, body)
    assert texts(client().complete([ask("a")])) == ["네"]
    assert next(client().journal.records())["text"] == "네"


@pytest.mark.parametrize(("body", "said"), [
    *(({"choices": choices}, "holds no message") for choices in (
        None, [], {}, "네", ["네"], [None], [[1]], 3, {"message": 1}, [{}], [{"message": None}],
        [{"message": {"content": 3}}], [{"message": {"content": [True]}}])),
    ({"choices": [SAID | {"finish_reason": "error"}]}, "broke its reply off"),
    ({"choices": [{"error": {"code": 502, "message": "overloaded"}}]}, "overloaded"),
    ({"error": {"message": "overloaded", "code": "503"}}, "overloaded"),
])
def test_a_reply_that_cannot_be_read_is_named_and_its_tokens_count(api, client, body, said):
    """It passes, or it does not; what was billed for it counts, in the next run too."""
    whole = chat("at last", tokens=(1, 2))
    api.answer = lambda _, n: whole if n == 1 else (200, body | {"usage": USAGE})
    llm = client(price=(1, 1), max_retries=1)
    (reply,) = llm.complete([ask("a")])
    assert (reply.text, reply.cost, llm.spent) == ("at last", 3e-6, 33e-6)
    (reply,) = llm.complete([ask("b")])
    assert reply.text is None and said in reply.error
    assert llm.spent == client(price=(1, 1)).spent == pytest.approx(93e-6)
    dear = client(price=(1, 1), max_retries=9, budget=200e-6)
    with pytest.raises(BudgetReached):  # however often it is asked again
        list(dear.complete([ask("c", max_tokens=20)]))
    assert 93e-6 < dear.spent <= 200e-6


@pytest.mark.parametrize(("body", "said"), [
    ([], "holds no message"), (None, "holds no message"), (3, "holds no message"),
    ("네", "holds no message"), (HTML, "is no JSON"), (b"", "is no JSON"), (b"\xff", "is no JSON"),
    (b"[" * 10**5, "is no JSON"), ([{"error": {"code": 429, "message": "busy"}}], "busy")])
def test_what_is_no_reply_at_all_is_named(api, client, body, said):
    api.answer = lambda *_: (200, body)
    llm = client(max_retries=0, price=(1, 1))
    assert said in next(llm.complete([ask("a")])).error and llm.spent == 0


def test_ten_replies_that_say_nothing_are_enough_as_well(api, client):
    api.answer = lambda *_: chat(" \n", "stop", (10, 1))
    with pytest.raises(CourseError, match="last 10 replies .* empty: finish_reason stop"):
        list(client(workers=1).complete(asks()))
    assert len(api.asked) == 10


def test_three_empty_replies_in_a_row_are_enough(api, client):
    api.answer = lambda body, n: chat("", "length", (10, 500))
    llm = client(workers=1)
    with pytest.raises(CourseError, match="last 3 replies of echo-small are empty: .*reasoning"):
        list(llm.complete(asks()))
    assert len(api.asked) == 3
    again = client(workers=1)  # the cell is run again, and says so with the first new call
    with pytest.raises(CourseError, match="last 4 replies"):
        list(again.complete(asks()))
    better = client(workers=1, params={"reasoning_effort": "none"})
    api.answer = lambda body, n: chat("ok")
    assert texts(better.complete(asks(4))) == ["ok"] * 4
    assert api.asked[-1]["reasoning_effort"] == "none"


def test_a_404_that_is_not_the_models_quotes_the_server(api, client):
    words = "No endpoints found matching your data policy"
    api.answer = lambda body, n: refusal(404, words)
    with pytest.raises(CourseError, match=f'offers "echo-small" and yet answers 404: {words}'):
        list(client().complete([ask("a")]))
    api.answer = lambda *_: (200, chat("ok")[1] | {"model": "evil\x1b[31m\n-1"})
    assert [reply.model for reply in client().complete([ask("b")])] == ["evil[31m-1"]
    api.answer = lambda body, n: refusal(404, words)
    with pytest.raises(CourseError, match='"gpt-4o-mini": gpt-4o-mini ends on .* gpt-6-luna'):
        list(client(model="gpt-4o-mini").complete([ask("a")]))


# ---------------------------------------------------------------- keys stay where they are


@pytest.mark.parametrize(("key", "name"), [
    ("planted-key-77f0a1c2", "LLM_API_KEY"), ('pa"ss-word-987654321', "API key")])
def test_a_server_that_sends_the_key_back_gives_it_to_nobody(
        api, client, monkeypatch, capsys, key, name):
    if name == "LLM_API_KEY":  # the other one is but an argument
        monkeypatch.setenv(name, key)
    api.answer = lambda body, n: refusal(401, f"Incorrect API key provided: {key}")
    with pytest.raises(CourseError) as error:
        list(client(api_key=key).complete([ask("a")]))
    assert f"[{name}]" in str(error.value) and key not in repr(error.value)
    for status in (400, 500):
        api.answer = lambda body, n, status=status: refusal(status, f"bad {key}")
        (reply,) = client(api_key=key, max_retries=0).complete([ask("b")])
        assert f"bad [{name}]" in reply.error and key not in repr(reply)
    api.answer = lambda body, n: chat(f"You sent {body['authorization']}")
    llm = client(api_key=key)
    list(llm.complete([ask("c")]))
    assert key[-8:] not in llm.journal.path.read_text()
    assert key not in "".join(capsys.readouterr())


def test_a_proxy_with_a_password_is_not_named(client, monkeypatch):
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://student:planted-77@127.0.0.1:9")
    far = client(base_url="https://api.example.org/v1", api_key="k", max_retries=0)
    with pytest.raises(CourseError, match="Cannot reach https://api.example.org") as error:
        list(far.complete([ask("a")]))
    assert "planted-77" not in repr(error.value)


@pytest.mark.parametrize(("address", "said"), [
    ("http://me:planted-77@host.local/v1", "put it into LLM_API_KEY"),
    ("me:planted-77@host.local/v1", "put it into LLM_API_KEY"),
    *((odd, "is no address of a server") for odd in (
        "127.0.0.1:8000/v1", "http://", "ftp://host/v1", "http://ho st/v1", "http://host/v1\nx",
        "http://host:port/v1", "http://[host/v1", "/v1"))])
def test_an_address_that_is_none_or_holds_a_password_is_refused(client, address, said):
    with pytest.raises(CourseError, match=said) as error:
        client(base_url=address)
    assert "planted" not in str(error.value)


# ---------------------------------------------------------------- parameters


def test_refused_parameters_are_adapted_once_and_said(api, client, capsys):
    def answer(body, n):
        if "max_tokens" in body:
            return refusal(400, "Unsupported parameter: 'max_tokens' is not supported with this "
                           "model. Use 'max_completion_tokens' instead.", param="max_tokens",
                           code="unsupported_parameter")
        if "temperature" in body:
            return refusal(400, "Unsupported value: 'temperature' does not support 0.2.",
                           param="temperature", code="unsupported_value")
        return chat(json.dumps({k: v for k, v in body.items() if k.startswith(("max", "top"))}))

    api.answer = answer
    llm = client(workers=1)
    first, second = llm.complete([ask(n, max_tokens=5, temperature=0.2, top_k=4) for n in range(2)])
    assert json.loads(first.text) == json.loads(second.text) == {
        "max_completion_tokens": 5, "top_k": 4}  # the others reach it as they are
    assert len(api.asked) == 4  # two lessons, then one request each
    assert capsys.readouterr().out.splitlines() == [
        'echo-small does not accept "max_tokens": "max_completion_tokens" is sent instead.',
        'echo-small does not accept "temperature": it is left out from now on.']
    assert first.key == client().key(ask(0, max_tokens=5, temperature=0.2, top_k=4))


def test_errors_in_the_form_of_other_servers_are_understood(api, client, capsys):
    """FastAPI says `detail` where OpenAI says `error`; these two are of transformers serve."""
    unknown = 422, {"detail": "Unexpected fields in the request: {'top_k'}"}
    api.answer = lambda body, n: unknown if "top_k" in body else chat("ok")
    assert [reply.text for reply in client().complete([ask("a", top_k=3, seed=1)])] == ["ok"]
    assert '"top_k": it is left out' in capsys.readouterr().out
    form = 500, {"error": {"message": "1 validation error: {'loc': ('body', 'response_format', "
                           "'type'), 'msg': \"Input should be 'text' or 'json_object'\"}"}}
    api.answer = lambda body, n: form if "response_format" in body else chat("ok")
    schema = {"type": "json_schema"}  # llama-cpp-python's server takes it for its own mistake
    (reply,) = client().complete([ask("c", response_format=schema)])
    assert reply.text == "ok" and '"response_format": it is left' in capsys.readouterr().out
    pinned = 400, {"detail": "Server is pinned to 'folder'; requested 'echo-small'."}
    api.answer = lambda body, n: pinned
    with pytest.raises(CourseError, match='the model "echo-small": Server is pinned to .folder'):
        list(client().complete([ask("b")]))


def test_a_server_that_refuses_everything_is_not_asked_for_ever(api, client):
    def answer(body, n):
        name = next((name for name in body if name.startswith("max")), "nothing")
        return refusal(400, f"'{name}' is unsupported. Use 'max_completion_tokens'.", param=name)

    api.answer = answer
    (reply,) = client().complete([ask("a", max_tokens=5)])
    assert reply.finish_reason == "refused"
    assert len(api.asked) == 3


# ---------------------------------------------------------------- money


def test_a_plan_spends_nothing(api, client):
    llm = client(price=(1, 2))
    requests = [ask("abcd" * 10, max_tokens=100), ask("가" * 30, max_tokens=50), ask("가" * 30,
                max_tokens=50)]
    plan = llm.plan(requests)
    prompts = 14 + 24  # 40 / 4 + 4 and 30 / 1.5 + 4
    assert plan == Plan(2, 1, prompts + 150, pytest.approx((prompts + 2 * 150) / 1e6))
    assert api.asked == []
    list(llm.complete(requests[:1]))
    assert llm.spent == pytest.approx((10 + 2 * 20) / 1e6)
    plan = llm.plan(requests)  # from now on a completion is as long as those before it
    assert (plan.calls, plan.cached, plan.tokens) == (1, 2, 24 + 20)
    assert "1 calls to make (2 already in the journal), about 44 tokens" in str(plan)


def test_the_budget_stops_before_the_request_that_would_exceed_it(api, client):
    api.answer = lambda body, n: time.sleep(0.02) or chat("ok", tokens=(5, 100))
    settings = {"price": (0, 10_000), "workers": 4}  # a cent a token, a dollar a reply
    llm = client(**settings, budget=5.5)
    texts = []
    with pytest.raises(BudgetReached, match=r"budget of \$5.5 is reached: \$5.0000 is spent"):
        for reply in llm.complete(ask(n, max_tokens=100) for n in itertools.count()):
            texts.append(reply.text)
    assert texts == ["ok"] * 5 == ["ok"] * len(api.asked)
    with pytest.raises(BudgetReached):  # what earlier runs spent counts
        list(client(**settings, budget=5.5).complete([ask("new", max_tokens=100)]))
    more = client(**settings, budget=7)
    assert sum(1 for _ in more.complete(ask(n, max_tokens=100) for n in range(7))) == 7
    assert len(api.asked) == 7


@pytest.mark.parametrize("limit", [{"max_tokens": 90}, {}])
@pytest.mark.parametrize("counting", ["exactly", "threefold", "silently", "backwards"])
def test_no_way_of_counting_exceeds_the_budget(api, client, counting, limit):
    lock, paid = threading.Lock(), []
    asker = client(price=(10_000, 10_000), budget=12)  # a cent a token

    def answer(body, n):
        guess = 4 + math.ceil(len(said(body)) / 1.5)
        usage = {"prompt_tokens": guess, "completion_tokens": 60 + n % 5}
        if counting == "threefold":
            usage = {name: 3 * count for name, count in usage.items()}
        with lock:
            paid.append(sum(usage.values()) / 100)
        time.sleep(0.02)  # the others are sent meanwhile
        reply = chat("가" * 100)
        told = {"silently": None, "backwards": {name: -count for name, count in usage.items()}}
        reply[1]["usage"] = told.get(counting, usage)
        return reply

    api.answer = answer
    with pytest.raises(BudgetReached):
        list(asker.complete(ask("가" * (50 + n), **limit) for n in range(100)))
    assert len(api.asked) >= 1 and sum(paid) <= 12 and asker.spent <= 12
    assert asker._reserved == {}


def test_a_reply_that_is_kept_twice_counts_once(api, client):
    llm = client(price=(1, 1))
    list(llm.complete([ask("a")]))
    spent = llm.spent
    llm.keep(next(llm.journal.records()))  # a batch is collected again after a kill
    assert llm.spent == spent > 0


def test_a_budget_needs_a_price():
    with pytest.raises(CourseError, match="A budget needs a price"):
        LLM("m", budget=1)
