"""The client against a real server: `transformers serve` with the course's own tiny model."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from course_utils import REPO, CourseError
from course_utils.judge import Item, Judge
from course_utils.llm import LLM, Request
from course_utils.sources import batch

MODEL = "assets/tiny-gemma-ko"
NAMES = ("no verdict", "several verdicts", "not offered", "not at the end", "truncated")

pytestmark = pytest.mark.slow
pytest.importorskip("torch")
pytest.importorskip("fastapi", reason="transformers serve needs fastapi: pip install -e '.[dev]'")


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("serve") / "log.txt"
    command = [Path(sys.executable).with_name("transformers"), "serve", MODEL, "--device", "cpu",
               "--host", "127.0.0.1", "--port", str(port)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with open(log, "w") as out:
        process = subprocess.Popen(command, cwd=REPO, env=environment, stdout=out, stderr=out)
    try:
        deadline = time.monotonic() + 300  # 10 s on two idle cores
        while not answers(port):
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.kill()
        process.wait()


def answers(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=2).close()
    except OSError:
        return False
    return True


@pytest.fixture
def client(url, tmp_path):
    return lambda model=MODEL: LLM(model, base_url=url, journal=tmp_path / "journal.jsonl",
                                   workers=2, timeout=300, price=(1, 2))


def ask(text, **params):
    return Request([{"role": "user", "content": text}], {"temperature": 0, **params})


def test_replies_usage_plan_and_journal(client):
    requests = [ask("2와 3을 더하면?", max_tokens=6), ask("안녕하세요?", max_tokens=4)]
    llm = client()
    assert llm.plan(requests).calls == 2
    first, second = llm.complete(requests)
    assert first.text and second.text
    assert first.model.startswith(MODEL)  # it adds the revision: @main
    assert first.usage["completion_tokens"] <= 6 and second.usage["completion_tokens"] == 4
    assert (second.finish_reason, second.cached) == ("length", False)
    assert first.usage["prompt_tokens"] > 5 and llm.spent > 0
    again = client()
    assert again.spent == pytest.approx(llm.spent) and again.plan(requests).calls == 0
    assert [(r.text, r.cached) for r in again.complete(requests)] == [
        (first.text, True), (second.text, True)]


def test_another_model_is_refused_by_name(client):
    with pytest.raises(CourseError, match='does not offer the model "gpt-4o": .*' + MODEL):
        list(client("gpt-4o").complete([ask("안녕?")]))


def test_a_parameter_it_does_not_know_is_left_out(client, capsys):
    (reply,) = client().complete([ask("안녕?", max_tokens=4, top_k=3)])
    assert reply.usage["completion_tokens"] <= 4
    assert capsys.readouterr().out == (
        f'{MODEL} does not accept "top_k": it is left out from now on.\n')


def test_it_has_no_batches_and_the_client_says_what_to_do(client):
    with pytest.raises(CourseError, match=r"has no Batch API: use complete\(\)"):
        batch.submit(client(), [ask("안녕?")])


def test_a_judge_without_schemas_judges_by_name_or_not_at_all(url, tmp_path, capsys):
    """The tiny model knows nothing of judging: each verdict is one, or it is a named failure."""
    items = [Item(f"q{i}", f"{i}에 1을 더하면?", answer=str(i + 1), a=str(i + 1), b="모르겠어요.")
             for i in range(2)]
    results = []
    for _ in range(2):
        llm = LLM(MODEL, base_url=url, journal=tmp_path / "judge.jsonl", workers=2, timeout=300)
        # Without the stop words it babbles to the limit, and that says nothing about schemas.
        judge = Judge(llm, progress=False, max_tokens=24, stop=[" ", "\n"])
        calls = len(llm.journal)
        games, judgments = judge.battle(items), judge.judgments
        results.append((games, judgments, judge.grade(items), judge.judgments))
    assert results[0] == results[1] and len(llm.journal) == calls  # the second run asked nothing
    assert llm.plan(judge.battle_requests(items)).calls == 0
    games, battled, grades, graded = results[0]
    assert len(games) == len(grades) == 2 and len(battled) == 4
    for judgment in [*battled, *graded]:
        assert (judgment.verdict is None) == (judgment.invalid in NAMES)
        assert judgment.key and judgment.model.startswith(MODEL)
    # It ignores response_format: the first reply shows that, and nothing else is asked for as JSON.
    forms = ["response_format" in r["request"]["params"] for r in llm.journal.records()]
    assert forms[0] and not any(forms[1:])
    assert "keeps to no JSON schema" in capsys.readouterr().out
