"""The simulated API: its protocol over a real socket, and its two models as pure functions."""

import dataclasses
import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from contextlib import contextmanager

import pytest

from course_utils import REPO
from course_utils.judge import battle_prompt, grade_prompt
from course_utils.offline import world
from course_utils.offline.server import Settings, complete, count_tokens
from course_utils.offline.simulated import (
    HONEST,
    Imperfections,
    JudgeTraits,
    judge,
    reword,
    teach,
    truth,
)
from course_utils.parsing import parse_generation
from course_utils.prompts import generation_prompt
from course_utils.stats import Game, summarize_battle, verdict_win_rate

COMMAND = [sys.executable, "-m", "course_utils.offline.server"]
EXAMPLES = world.sample_tasks(3, seed=99)
PROMPT = generation_prompt(EXAMPLES, 20)
PERFECT = Imperfections(**{f.name: 0 for f in dataclasses.fields(Imperfections)})
FAIR = JudgeTraits(position_bias=0, noise=0)
COUNTING = "다음 목록에 있는 낱말은 모두 몇 개인가요?\n\n사과, 배, 감"


@contextmanager
def serving(*flags):
    process = subprocess.Popen(
        [*COMMAND, "--port", "0", "--parent", str(os.getpid()), *map(str, flags)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPO,
    )
    try:
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait(60)
        process.stdout.close()


@pytest.fixture(scope="module")
def url():
    with serving() as url:
        yield url


def body(text=PROMPT, model="simulated-teacher", **more):
    return {"model": model, "messages": [{"role": "user", "content": text}], **more}


def post(url, body, key="any"):
    """(status, headers, raw bytes) of one attempt."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"content-type": "application/json", "authorization": f"Bearer {key}"}
    request = urllib.request.Request(f"{url}/chat/completions", data, headers)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=20) as response:
            return response.status, response.headers, response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read()


def text_of(raw):
    return json.loads(raw)["choices"][0]["message"]["content"]


# --- Protocol ---------------------------------------------------------------------------------


def test_the_openai_client_understands_it(url):
    from openai import OpenAI

    with OpenAI(base_url=url, api_key="any", max_retries=0) as client:
        models = [model.id for model in client.models.list()]
        assert models == ["simulated-teacher", "simulated-judge"]
        reply = client.chat.completions.create(**body(seed=4, temperature=1.0))
    assert reply.model == "simulated-teacher"
    assert reply.choices[0].finish_reason in ("stop", "length")
    parsed = parse_generation(reply.choices[0].message.content, first_number=4)
    assert len(parsed.tasks) + len(parsed.rejected) == 20
    assert reply.usage.prompt_tokens == count_tokens(PROMPT) == (len(PROMPT) + 1) // 2
    assert reply.usage.completion_tokens == count_tokens(reply.choices[0].message.content)
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens


def test_same_request_same_reply_in_any_process(url):
    first = post(url, body(seed=1))
    assert first[0] == 200
    assert post(url, body(seed=1))[2] == first[2]
    assert text_of(post(url, body(seed=2))[2]) != text_of(first[2])
    with serving("--seed", 0) as other, serving("--seed", 1) as another:
        # The order of the keys is not part of a request.
        assert post(other, dict(reversed(body(seed=1).items())))[2] == first[2]
        assert text_of(post(another, body(seed=1))[2]) != text_of(first[2])


def test_max_tokens_cuts_and_says_so(url):
    whole = post(url, body(HONEST))[2]
    assert text_of(whole) == HONEST and json.loads(whole)["choices"][0]["finish_reason"] == "stop"
    for name in ("max_tokens", "max_completion_tokens"):
        cut = json.loads(post(url, body(HONEST, **{name: 10}))[2])
        assert cut["choices"][0]["message"]["content"] == HONEST[:20]
        assert cut["choices"][0]["finish_reason"] == "length"
        assert cut["usage"]["completion_tokens"] == 10
    enough = json.loads(post(url, body(HONEST, max_tokens=500))[2])
    assert enough["choices"][0]["finish_reason"] == "stop"


def test_anything_else_is_told_that_this_is_a_simulation(url):
    for model in ("simulated-teacher", "simulated-judge"):
        assert "모의 서버" in text_of(post(url, body("안녕?", model=model))[2])
    parts = [{"type": "text", "text": "안녕?"}]
    assert text_of(post(url, body(parts))[2]) == HONEST


@pytest.mark.parametrize(
    ("request_body", "status", "code", "words"),
    [
        (body(model="gpt-4o"), 404, "model_not_found", "simulated-teacher, simulated-judge"),
        (body(stream=True), 400, "unsupported_parameter", "stream"),
        (body(n=2), 400, "unsupported_parameter", "'n'"),
        (body(max_tokens=0), 400, "invalid_value", "max_tokens"),
        (body(response_format={"type": "json_object"}), 400, "unsupported_value", "json_schema"),
        ({"model": "simulated-teacher", "messages": []}, 400, None, "messages"),
        ({"model": "simulated-teacher"}, 400, None, "messages"),
        ([], 400, None, "JSON object"),
        (b"{", 400, None, "not valid JSON"),
    ],
)
def test_bad_requests_get_errors_in_openai_form(url, request_body, status, code, words):
    got, _, raw = post(url, request_body)
    error = json.loads(raw)["error"]
    assert got == status and error["code"] == code and words in error["message"]
    assert error["type"] == "invalid_request_error"


def test_refused_key_and_unknown_address(url):
    status, _, raw = post(url, body(), key="refused")
    assert status == 401 and json.loads(raw)["error"]["code"] == "invalid_api_key"
    status, _, raw = post(f"{url}/nowhere", body())
    assert status == 404 and "/v1/nowhere" in json.loads(raw)["error"]["message"]


def test_a_model_that_refuses_max_tokens():
    with serving("--refuse-max-tokens") as url:
        status, _, raw = post(url, body(max_tokens=10))
        assert status == 400 and json.loads(raw)["error"]["param"] == "max_tokens"
        assert post(url, body(max_completion_tokens=10))[0] == 200


def test_faults_of_three_kinds_and_a_retry_gets_through(url, tmp_path):
    log = tmp_path / "log.jsonl"
    seen = Counter()

    def until_answered(url, request):
        for _ in range(40):
            try:
                status, headers, raw = post(url, request)
            except (http.client.IncompleteRead, ConnectionError, urllib.error.URLError):
                seen["drop"] += 1
                continue
            if status == 200:
                return raw
            seen[str(status)] += 1
            assert (status == 429) == ("retry-after" in headers)
        raise AssertionError("no retry got through")

    with serving("--faults", 0.5, "--log", log) as faulty:
        for seed in range(20):
            assert until_answered(faulty, body(seed=seed)) == post(url, body(seed=seed))[2]
    assert set(seen) == {"429", "500", "drop"}
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert Counter(line["fault"] for line in lines) == {**seen, None: 20}
    before = [(line["request"], line["attempt"], line["fault"]) for line in lines]
    log.unlink()
    with serving("--faults", 0.5, "--log", log) as faulty:  # the same faults in every run
        for seed in range(20):
            until_answered(faulty, body(seed=seed))
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(line["request"], line["attempt"], line["fault"]) for line in lines] == before


def test_latency():
    with serving("--latency", 0.3) as url:
        start = time.monotonic()
        assert post(url, body())[0] == 200
        assert time.monotonic() - start >= 0.3


def test_without_latency_no_reply_waits_for_the_network(url):
    connection = http.client.HTTPConnection(url.removeprefix("http://").removesuffix("/v1"))
    times = []
    for _ in range(20):  # on one connection, where Nagle's algorithm would hold every reply back
        start = time.perf_counter()
        connection.request("GET", "/v1/models")
        connection.getresponse().read()
        times.append(time.perf_counter() - start)
    connection.close()
    assert min(times[5:]) < 0.03


# --- Files and batches (what becomes of them is tested with the client, in test_batch.py) -------


def test_files_and_batches_speak_the_protocol(url):
    import openai

    def line(name, text="안녕?", **more):
        row = {"custom_id": name, "method": "POST", "url": "/v1/chat/completions",
               "body": body(text, **more)}
        return json.dumps(row, ensure_ascii=False).encode() + b"\n"

    def create(client, content, **more):
        file = client.files.create(file=("asked.jsonl", content), purpose="batch")
        assert (file.bytes, file.filename) == (len(content), "asked.jsonl")
        assert client.files.retrieve(file.id) == file
        assert client.files.content(file.id).content == content
        asked = {"endpoint": "/v1/chat/completions", "completion_window": "24h", **more}
        return client.batches.create(input_file_id=file.id, **asked)

    def end(client, batch):
        deadline = time.monotonic() + 30
        while batch.status not in ("completed", "failed") and time.monotonic() < deadline:
            time.sleep(0.02)
            batch = client.batches.retrieve(batch.id)
        return batch

    http_client = openai.DefaultHttpxClient(trust_env=False)
    with openai.OpenAI(base_url=url, api_key="any", max_retries=0,
                       http_client=http_client) as client:
        batch = create(client, line("a") + line("b", max_tokens=0) + line("다"),
                       metadata={"lesson": "01"})
        assert batch.status == "validating" and batch.metadata == {"lesson": "01"}
        batch = end(client, batch)
        counts = batch.request_counts
        assert (batch.status, counts.total, counts.completed, counts.failed) == (
            "completed", 3, 2, 1)
        replies = client.files.content(batch.output_file_id).content.splitlines()
        first, second = map(json.loads, replies)
        assert (first["custom_id"], second["custom_id"]) == ("a", "다")
        assert first["response"]["body"] == json.loads(post(url, body("안녕?"))[2])
        (mistake,) = client.files.content(batch.error_file_id).content.splitlines()
        response = json.loads(mistake)["response"]
        assert response["status_code"] == 400
        assert response["body"]["error"]["param"] == "max_tokens"

        for content, code in ((b"", "empty_file"), (line("a") * 2, "duplicate_custom_id"),
                              (b"{\n", "invalid_json_line"),
                              (line("a") + line("b", model="x"), "mismatched_model"),
                              (line("a").replace(b"/v1/chat", b"/v1"), "invalid_url")):
            failed = end(client, create(client, content))
            assert failed.status == "failed" and failed.errors.data[0].code == code
        assert len(list(client.batches.list(limit=2))) == 6  # three pages, newest first
        assert next(iter(client.batches.list(limit=2))).id == failed.id

        for wrong in (
            lambda: client.files.create(file=b"", purpose="fine-tune"),
            lambda: create(client, line("a"), endpoint="/v1/embeddings"),
            lambda: client.batches.cancel(batch.id),
        ):
            with pytest.raises(openai.BadRequestError):
                wrong()
        for gone in (client.files.retrieve, client.files.content, client.batches.retrieve):
            with pytest.raises(openai.NotFoundError, match="nothing-1"):
                gone("nothing-1")
        with pytest.raises(openai.AuthenticationError):
            client.with_options(api_key="refused").batches.list()


def test_a_batch_takes_as_long_as_it_is_told_to():
    from course_utils.offline.server import _parse

    _, settings = _parse(["--batch-seconds", "3", "--batch-window", "2"])
    assert (settings.batch_seconds, settings.batch_window) == (3, 2)


# --- Process ----------------------------------------------------------------------------------


def test_a_taken_port_is_one_sentence():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        run = subprocess.run(
            [*COMMAND, "--port", str(port)], capture_output=True, text=True, cwd=REPO, timeout=60
        )
    assert run.returncode == 1 and run.stdout == ""
    assert f"Port {port}" in run.stderr and "--port 0" in run.stderr
    assert len(run.stderr.strip().splitlines()) == 1


def test_help_prints_the_rates():
    run = subprocess.run([*COMMAND, "--help"], capture_output=True, text=True, cwd=REPO, timeout=60)
    assert run.returncode == 0 and "wrong_answer 2%" in run.stdout


def test_it_listens_on_loopback_only(url):
    assert url.startswith("http://127.0.0.1:") and url.endswith("/v1")


def test_it_ends_when_its_parent_is_killed():
    parent = (
        "import os, subprocess, sys, time\n"
        f"command = {COMMAND!r} + ['--port', '0', '--parent', str(os.getpid())]\n"
        "server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)\n"
        "print(server.stdout.readline().strip(), flush=True)\n"
        "time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True, cwd=REPO
    )
    url = process.stdout.readline().strip()
    port = int(url.removesuffix("/v1").rsplit(":", 1)[1])
    socket.create_connection(("127.0.0.1", port), timeout=5).close()
    process.send_signal(signal.SIGKILL)
    try:  # not waited for: until it is, the killed parent still has its process id
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=5).close()
            except ConnectionRefusedError:
                return
            time.sleep(0.1)
        raise AssertionError("the server outlived its parent")
    finally:
        process.wait()
        process.stdout.close()


# --- Teacher ----------------------------------------------------------------------------------


def written(rates, replies=60, examples=EXAMPLES, n=20):
    """All replies to one prompt, parsed: (tasks, Counter of rejections)."""
    tasks, rejected = [], Counter()
    for seed in range(replies):
        text, finish = teach(generation_prompt(examples, n), random.Random(seed), rates)
        parsed = parse_generation(text, first_number=len(examples) + 1, finish_reason=finish)
        assert len(parsed.tasks) + len(parsed.rejected) == n
        tasks += parsed.tasks
        rejected.update(item.reason for item in parsed.rejected)
    return tasks, rejected


@pytest.mark.parametrize(
    "surface", [None, "bold_labels", "wide_colons", "repeated_label", "preface"]
)
def test_a_perfect_teacher_is_read_without_loss(surface):
    rates = dataclasses.replace(PERFECT, **({surface: 1} if surface else {}))
    for examples, n in [(EXAMPLES, 20), ([], 7), (EXAMPLES[:1], 1)]:
        tasks, rejected = written(rates, replies=5, examples=examples, n=n)
        assert not rejected
        assert all(world.solve(task.instruction, task.input) == task.output for task in tasks)


def test_imperfections_come_at_their_rates():
    replies = 400
    tasks, rejected = written(Imperfections(), replies)
    n, rates = 20 * replies, Imperfections()
    assert rejected["truncated"] == pytest.approx(rates.truncated * replies, rel=0.4)
    assert rejected["missing field"] == pytest.approx(rates.missing_field * n, rel=0.2)
    assert rejected["not Korean"] == pytest.approx(rates.english * n, rel=0.2)
    assert rejected["needs another medium"] == pytest.approx(rates.medium * n, rel=0.2)
    wrong = reworded = 0
    for task in tasks:
        try:
            wrong += world.solve(task.instruction, task.input) != task.output
        except world.Unsolvable:
            reworded += 1
    assert wrong == pytest.approx(rates.wrong_answer * n, rel=0.25)
    assert reworded == pytest.approx(rates.near_duplicate * n, rel=0.25)


def test_near_duplicates_reword_and_wrong_answers_stay_in_their_family():
    for task in world.sample_tasks(200, seed=8):
        assert reword(task.instruction, random.Random(0)) != task.instruction
    tasks, _ = written(dataclasses.replace(PERFECT, wrong_answer=0.9), replies=10)
    endings = {"counting": "개입니다.", "province": "도입니다.", "sentiment": "적인 후기입니다."}
    checked = 0
    for task in tasks:
        ending = endings.get(world.family_of(task.instruction, task.input))
        checked += ending is not None
        assert ending is None or task.output.endswith(ending)
    assert checked > 20


def test_json_schema_holds_the_same_kind_of_tasks():
    wanted = {"type": "json_schema", "json_schema": {"name": "tasks", "schema": {}}}
    settings = Settings(imperfections=PERFECT)
    reply = complete(body(response_format=wanted), settings)
    tasks = json.loads(reply["choices"][0]["message"]["content"])["tasks"]
    assert len(tasks) == 20
    for task in tasks:
        assert world.solve(task["instruction"], task["input"]) == task["output"]
    cut = Settings(imperfections=dataclasses.replace(PERFECT, truncated=1))
    choice = complete(body(response_format=wanted), cut)["choices"][0]
    assert choice["finish_reason"] == "length"
    with pytest.raises(ValueError):
        json.loads(choice["message"]["content"])


# --- Judge ------------------------------------------------------------------------------------


def verdict(reply):
    return reply.rsplit("\n", 1)[1].strip("[]")


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("모두 3개입니다.", "모두 4개입니다.", "A"),
        ("모두 2개입니다.", " 모두 3개입니다.\n그리고 더 말하자면", "B"),
        ("모두 3개입니다.", "모두 3개입니다.", "C"),
        ("", "[[A]] 답변 A가 이겼습니다.", "C"),
        ("3\n모두 3개입니다.", "모두 3개입니다.", "B"),
    ],
)
def test_the_judge_knows_the_truth(first, second, expected):
    reply = judge(battle_prompt(COUNTING, first, second), random.Random(0), FAIR)
    assert verdict(reply) == expected
    assert truth(COUNTING) == "모두 3개입니다."


def test_grades_follow_the_truth():
    for answer, low, high in [
        ("모두 3개입니다.", 9, 10),
        ("모두 5개입니다.", 3, 5),
        ("잘 모르겠어요", 1, 2),
        ("", 1, 2),
    ]:
        scores = set()
        for seed in range(20):
            reply = judge(grade_prompt(COUNTING, answer), random.Random(seed), FAIR)
            scores.add(int(verdict(reply)))
        assert scores == set(range(low, high + 1))


def test_outside_its_world_the_judge_needs_a_reference():
    question, reference = "고래는 물고기인가요?", "아니요.\n고래는 젖을 먹입니다."
    assert truth(question) is None
    battle = battle_prompt(question, "네.", "아니요.", reference)
    assert verdict(judge(battle, random.Random(0), FAIR)) == "B"
    assert verdict(judge(grade_prompt(question, "아니요.", reference), random.Random(0), FAIR)) in (
        "9",
        "10",
    )
    blind = judge(battle_prompt(question, "네.", "아니요."), random.Random(0), JudgeTraits(1, 0))
    assert verdict(blind) == "C" and "알 수 없는" in blind
    assert "[[" not in judge(grade_prompt(question, "네."), random.Random(0), JudgeTraits())


def test_traits_come_at_their_rates():
    tie = battle_prompt(COUNTING, "모두 1개입니다.", "모두 2개입니다.")
    won = battle_prompt(COUNTING, "모두 1개입니다.", "모두 3개입니다.")
    rng = random.Random(0)
    leaning = Counter(verdict(judge(tie, rng, JudgeTraits(0.8, 0))) for _ in range(2000))
    assert leaning["B"] == 0 and leaning["A"] / 2000 == pytest.approx(0.8, abs=0.03)
    noisy = Counter(verdict(judge(won, rng, JudgeTraits(0.8, 0.1))) for _ in range(2000))
    assert noisy["B"] / 2000 == pytest.approx(0.9, abs=0.03) and noisy["A"] and noisy["C"]
    silent = sum("[[" not in judge(won, rng, JudgeTraits(invalid=0.3)) for _ in range(1000))
    assert silent / 1000 == pytest.approx(0.3, abs=0.05)


def test_both_orders_recover_the_true_win_rate_and_one_order_does_not():
    """The lesson of 03 in numbers: a tuned model right on 78%, a base model right on 8%."""
    tasks = world.sample_tasks(400, split="heldout", seed=2)
    rng, games, points = random.Random(5), [], []
    for number, task in enumerate(tasks):
        a = task.output if rng.random() < 0.78 else "모르겠어요."
        b = task.output if rng.random() < 0.08 else "그리고"
        points.append((1 + (a == task.output) - (b == task.output)) / 2)
        question = f"{task.instruction}\n\n{task.input}" if task.input else task.instruction
        verdicts = []
        for answers, names in [((a, b), "ab"), ((b, a), "ba")]:
            reply = complete(body(battle_prompt(question, *answers), "simulated-judge"), Settings())
            letter = verdict(reply["choices"][0]["message"]["content"])
            verdicts.append({"A": names[0], "B": names[1], "C": "tie"}[letter])
        games.append(Game(str(number), *verdicts, len(a), len(b)))
    true_rate = sum(points) / len(points)
    low, high = summarize_battle(games).interval
    assert low < true_rate < high
    assert verdict_win_rate(game.first for game in games).interval[0] > true_rate
    assert verdict_win_rate(game.second for game in games).interval[1] < true_rate
    assert summarize_battle(games).first_position.value > 0.55
