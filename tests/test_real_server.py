"""A server of your own with a real model behind it, as TEACHER=local asks it.

    LOCAL_URL=http://127.0.0.1:8011/v1 python -m pytest tests/test_real_server.py -s

Start one first, for instance llama.cpp's: `python -m llama_cpp.server --model FILE.gguf`. A real
model does as it likes, so what is held is the course's side: every reply has a name for its fate,
nothing is asked twice, and nobody guesses a verdict.
"""

import os
from itertools import islice

import pytest

from course_utils import REPO
from course_utils.generate import generation_requests
from course_utils.judge import Item, Judge
from course_utils.llm import LLM
from course_utils.parsing import parse_generation
from course_utils.sources.endpoints import located, named
from course_utils.tasks import read_tasks

pytestmark = pytest.mark.skipif("LOCAL_URL" not in os.environ, reason="only with LOCAL_URL")


@pytest.fixture
def client(tmp_path):
    endpoint = located(named("local", "teacher"), "teacher")
    assert endpoint.model  # the one that the server lists
    return lambda: LLM(endpoint.model, base_url=endpoint.base_url, workers=1, timeout=600,
                       journal=tmp_path / "journal.jsonl")


def test_a_teachers_reply_is_read_and_kept(client):
    seeds = read_tasks(REPO / "data" / "seed_tasks.jsonl")
    requests = list(islice(generation_requests(seeds, batch=2), 2))
    replies = list(client().complete(requests))
    for reply in replies:
        print(reply.text, reply.usage, sep="\n")
        parsed = parse_generation(reply.text, first_number=4, finish_reason=reply.finish_reason)
        assert parsed.tasks or parsed.rejected  # whatever it wrote has a name
    again = list(client().complete(requests))
    assert [r.text for r in again] == [r.text for r in replies] and all(r.cached for r in again)


def test_a_judge_gives_a_verdict_or_a_named_failure(client):
    items = [Item("1", "대한민국의 수도는 어디인가요?", answer="서울입니다.", a="서울입니다.",
                  b="부산입니다."),
             Item("2", "3에 4를 더하면?", answer="7", a="8입니다.", b="7입니다.")]  # fmt: skip
    judge = Judge(client(), progress=False)
    judge.battle(items)
    for judgment in judge.judgments:
        print(judgment)
        assert (judgment.verdict is None) == bool(judgment.invalid)
    calls = len(judge.llm.journal)
    assert calls >= 4 and judge.battle(items) and len(judge.llm.journal) == calls
