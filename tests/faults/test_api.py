"""A fifth of the API's attempts fail, in ten ways: nothing is lost, and nothing is paid for twice.

A reply counts as paid for when the API delivered it whole. `FAULTS=all` (make faults) also takes
each way by itself, so that each is met often.
"""

import json
import os
from collections import Counter
from contextlib import contextmanager
from itertools import islice

import pytest

from course_utils import REPO
from course_utils.generate import generate_tasks, generation_requests
from course_utils.judge import Item, Judge
from course_utils.llm import LLM
from course_utils.offline import world
from course_utils.offline.server import Settings, complete
from course_utils.tasks import read_tasks
from tests.faulty_server import FAULTS, start

FULL = os.environ.get("FAULTS") == "all"
RATE = 0.2
PASSING = [kind for kind in FAULTS if kind != "filter"]  # what another attempt gets past
SEEDS = read_tasks(REPO / "data" / "seed_tasks.jsonl")


class Api:
    """A simulated API in a process of its own, and the log of every attempt that reached it."""

    def __init__(self, url, log):
        self.url, self._log = url, log

    def llm(self, folder, model="simulated-teacher"):
        return LLM(model, base_url=self.url, journal=folder / "journal.jsonl", backoff=0.02,
                   timeout=1.5, max_retries=10)

    def attempts(self):
        if not self._log.exists():
            return []
        return [json.loads(line) for line in self._log.read_text().splitlines()]

    def struck(self):
        return Counter(line["fault"] for line in self.attempts() if line["fault"])

    def paid_twice(self):
        """How often a request was answered that had been answered before."""
        whole = [line["request"] for line in self.attempts() if line["fault"] in (None, "filter")]
        return sum(count - 1 for count in Counter(whole).values())

    def lost(self, folder):
        """How many requests were answered whole and are not in the journal."""
        whole = {line["request"] for line in self.attempts() if line["fault"] in (None, "filter")}
        lines = (folder / "journal.jsonl").read_text(encoding="utf-8").splitlines()
        return len(whole) - len({json.loads(line)["key"] for line in lines})


@contextmanager
def failing(folder, kinds, rate=RATE):
    folder.mkdir(exist_ok=True)
    log = folder / "requests.log"
    server, url = start("--hang", 3, "--faults", rate, "--fault-kinds", ",".join(kinds),
                        "--log", log)
    try:
        yield Api(url, log)
    finally:
        server.kill()
        server.communicate()


def expected(request):
    """The reply that an API without faults gives, from the very function that makes it."""
    body = {"model": "simulated-teacher", "messages": request.messages, **request.params}
    return complete(body, Settings())["choices"][0]["message"]["content"]


def ask_and_compare(folder, kinds, count):
    """Ask, compare each reply, ask again; return how often each kind struck, and what was wrong."""
    requests = list(islice(generation_requests(SEEDS, batch=5), count))
    with failing(folder, kinds) as api:
        replies = list(api.llm(folder).complete(requests))
        filtered = [reply for reply in replies if reply.finish_reason == "content_filter"]
        right = [reply for reply, request in zip(replies, requests, strict=True)
                 if reply.text == ("" if reply in filtered else expected(request))]  # fmt: skip
        struck, asked = api.struck(), len(api.attempts())
        assert len(filtered) == struck["filter"]
        list(api.llm(folder).complete(requests))
        assert len(api.attempts()) == asked, "the journal did not answer the second time"
        return struck, {"right": int(len(right) == count), "lost": api.lost(folder),
                        "twice": api.paid_twice()}  # fmt: skip


def test_a_fifth_of_the_attempts_fail_in_every_way(tmp_path):
    struck, result = ask_and_compare(tmp_path, FAULTS, 150)
    assert result == {"right": 1, "lost": 0, "twice": 0}
    assert struck.keys() == FAULTS.keys(), "a way to fail was never met"


@pytest.mark.skipif(not FULL, reason="only with make faults")
@pytest.mark.parametrize("kind", FAULTS)
def test_a_fifth_of_the_attempts_fail_in_one_way(tmp_path, kind, record_fault):
    struck, result = ask_and_compare(tmp_path, [kind], 200)
    assert struck.keys() == {kind} and struck[kind] >= 20
    record_fault(f"the API: {FAULTS[kind]}", injected=struck[kind], **result)
    assert result == {"right": 1, "lost": 0, "twice": 0}


def test_dataset_and_verdicts_are_those_of_an_api_without_faults(tmp_path, record_fault):
    made, struck, lost, twice = [], 0, 0, 0
    items = [Item(str(n), task.instruction, a=task.output, b="잘 모르겠습니다.")
             for n, task in enumerate(world.sample_tasks(60 if FULL else 20, seed=3))]
    for name, rate in (("calm", 0), ("rough", RATE)):
        folder = tmp_path / name
        with failing(folder, PASSING, rate) as api:
            generate_tasks(api.llm(folder), SEEDS, 400 if FULL else 120, out=folder / "tasks.jsonl",
                           threshold=0.8, progress=False)
            games = Judge(api.llm(folder, "simulated-judge"), progress=False).battle(items)
        made.append(((folder / "tasks.jsonl").read_bytes(), games))
        struck = api.struck().total()
        lost, twice = lost + api.lost(folder), twice + api.paid_twice()
    assert struck > 5
    record_fault("the API: all of these while generating and judging", injected=struck,
                 right=int(made[0] == made[1]), lost=lost, twice=twice)
    assert made[0] == made[1] and (lost, twice) == (0, 0)


def test_a_content_filter_is_counted_and_never_a_task_or_a_verdict(tmp_path):
    with failing(tmp_path, ["filter"], 0.5) as api:
        report = generate_tasks(api.llm(tmp_path), SEEDS, 60, out=tmp_path / "tasks.jsonl",
                                threshold=0.8, batch=5, progress=False)
        judge = Judge(api.llm(tmp_path, "simulated-judge"), progress=False)
        games = judge.battle([Item(str(n), "뭐죠?", a="하나", b=str(n)) for n in range(10)])
    assert report.candidates == report.kept + sum(report.rejected.values())
    verdicts = [verdict for game in games for verdict in (game.first, game.second)]
    assert verdicts.count(None) == len(judge.invalid) > 0
    assert all("content_filter" in why for why in judge.invalid.values())
    assert api.paid_twice() == 0 == api.lost(tmp_path)
