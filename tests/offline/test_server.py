"""The simulated API: its protocol over a real socket, and the process that it runs in."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager

import pytest

from course_utils import REPO
from course_utils.offline import world
from course_utils.offline.server import count_tokens
from course_utils.offline.simulated import HONEST
from course_utils.parsing import parse_generation
from course_utils.prompts import generation_prompt

COMMAND = [sys.executable, "-m", "course_utils.offline.server"]
PROMPT = generation_prompt(world.sample_tasks(3, seed=99), 20)


@contextmanager
def serving(*flags):
    command = [*COMMAND, "--port", "0", "--parent", str(os.getpid()), *map(str, flags)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPO)
    try:
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait(60)
        process.stdout.close()


@pytest.fixture(scope="module")
def url():
    with serving() as url:
        assert url.startswith("http://127.0.0.1:") and url.endswith("/v1")  # nowhere but here
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
        (b"{", 400, None, "JSON object"),
    ],
)
def test_bad_requests_get_errors_in_openai_form(url, request_body, status, code, words):
    got, _, raw = post(url, request_body)
    error = json.loads(raw)["error"]
    assert got == status and error["code"] == code and words in error["message"]
    assert error["type"] == "invalid_request_error"
    status, _, raw = post(f"{url}/nowhere", body())
    assert status == 404 and "/v1/nowhere" in json.loads(raw)["error"]["message"]


def test_same_request_same_reply_in_any_process_of_a_seed(url):
    first = post(url, body(seed=1))
    assert first[0] == 200
    # The order of the keys is not part of a request.
    assert post(url, dict(reversed(body(seed=1).items())))[2] == first[2]
    assert text_of(post(url, body(seed=2))[2]) != text_of(first[2])
    for seed, same in ((0, True), (1, False)):
        with serving("--latency", 0.3, "--seed", seed) as other:
            start = time.monotonic()
            assert (post(other, body(seed=1))[2] == first[2]) == same
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
        assert batch.metadata == {"lesson": "01"}
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

        for content in (b"{\n", line("a").replace(b"/v1/chat", b"/v1")):
            failed = end(client, create(client, content))
            assert failed.status == "failed"
            assert failed.errors.data[0].code == "invalid_json_line"
        assert [each.id for each in client.batches.list()][::2] == [failed.id, batch.id]
        for gone in (client.files.content, client.batches.retrieve):
            with pytest.raises(openai.NotFoundError, match="nothing-1"):
                gone("nothing-1")


# --- Process ----------------------------------------------------------------------------------


def test_a_taken_port_is_one_sentence():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        run = subprocess.run([*COMMAND, "--port", str(port)], capture_output=True, text=True,
                             cwd=REPO, timeout=60)
    assert run.returncode == 1 and run.stdout == ""
    assert f"Port {port}" in run.stderr and "--port 0" in run.stderr
    assert len(run.stderr.strip().splitlines()) == 1


def test_it_ends_when_its_parent_is_killed():
    parent = (
        "import os, subprocess, sys, time\n"
        f"command = {COMMAND!r} + ['--port', '0', '--parent', str(os.getpid())]\n"
        "server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)\n"
        "print(server.stdout.readline().strip(), flush=True)\n"
        "time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True,
                               cwd=REPO)
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
