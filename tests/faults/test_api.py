"""A fifth of the API's attempts fail, in ten ways: nothing is lost, and nothing is paid for twice.

A reply counts as paid for when the API delivered it whole. `FAULTS=all` (make faults) also takes
each way by itself, so that each is met often. Then replies in odd shapes, budgets against servers
that count in odd ways, and a disk that fills up under the journal.
"""

import json
import os
import random
import resource
from collections import Counter
from contextlib import contextmanager
from itertools import islice

import pytest

from course_utils import REPO, CourseError
from course_utils.generate import generate_tasks, generation_requests
from course_utils.judge import Item, Judge
from course_utils.llm import LLM, BudgetReached, Request
from course_utils.offline import world
from course_utils.offline.server import Settings, complete
from course_utils.tasks import read_tasks
from tests.faulty_server import FAULTS, start
from tests.loopback import Chat, chat, said

FULL = os.environ.get("FAULTS") == "all"
RATE = 0.2
PASSING = [kind for kind in FAULTS if kind != "filter"]  # what another attempt gets past
SEEDS = read_tasks(REPO / "data" / "seed_tasks.jsonl")


def replies(journal):
    """The records of a journal that are replies, as its file has them."""
    records = map(json.loads, journal.read_text(encoding="utf-8").splitlines())
    return [record for record in records if "request" in record]


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
        return len(whole) - len({reply["key"] for reply in replies(folder / "journal.jsonl")})


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
        found = list(api.llm(folder).complete(requests))
        filtered = [reply for reply in found if reply.finish_reason == "content_filter"]
        right = [reply for reply, request in zip(found, requests, strict=True)
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
             for n, task in enumerate(world.sample_tasks(60 if FULL else 10, seed=3))]
    for name, rate in (("calm", 0), ("rough", RATE)):
        folder = tmp_path / name
        with failing(folder, PASSING, rate) as api:
            generate_tasks(api.llm(folder), SEEDS, 400 if FULL else 60, out=folder / "tasks.jsonl",
                           threshold=0.8, progress=False)
            games = Judge(api.llm(folder, "simulated-judge"), progress=False).battle(items)
        made.append(((folder / "tasks.jsonl").read_bytes(), games))
        struck = api.struck().total()
        lost, twice = lost + api.lost(folder), twice + api.paid_twice()
    assert struck > (5 if FULL else 2)
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


class Provider(Chat):
    """A loopback API, which replies it has delivered whole, and what a journal kept of them."""

    def __init__(self, journal, **settings):
        super().__init__()
        self.journal, self.whole, self.client = journal, [], None
        self.settings = {"base_url": self.url, "backoff": 0.01, "journal": journal, **settings}

    def llm(self, **settings):
        """A client of a new session, which knows what the journal's file says and nothing else."""
        if self.client:
            self.client.journal.close()
        self.client = LLM("echo", **(self.settings | settings))
        return self.client

    def result(self):
        kept = {reply["request"]["messages"][0]["content"] for reply in replies(self.journal)}
        counted = Counter(self.whole)
        return {"lost": len(counted.keys() - kept), "twice": counted.total() - len(counted)}


def questions(count, **params):
    return [Request([{"role": "user", "content": f"봄에 피는 꽃은? {n:03}"}], params)
            for n in range(count)]  # fmt: skip


def texts(replies):
    return [reply.text for reply in replies]


def changed(text, **fields):
    """A reply that has other fields than it should."""
    status, body = chat(text)
    return status, body | fields


# What a server that calls itself compatible may send with status 200, made of what it has to say.
WHOLE = {
    "content as a list of parts": lambda text: chat([{"type": "text", "text": text[:3]},
                                                     {"type": "text", "text": text[3:]}]),
    "half a character in the text": lambda text: chat(text + "\ud83d"),
    "no content, cut off by length": lambda text: chat(None, "length"),
    "no usage": lambda text: changed(text, usage=None),
    "choices that are an object": lambda text: changed(
        text, choices={"message": {"content": text}, "finish_reason": "stop"}),
}  # fmt: skip
MEANT = {"half a character in the text": "{}?", "no content, cut off by length": ""}
BROKEN = {  # these hold no reply; another attempt gets past them
    "no message": {"choices": [{"index": 0, "message": None}]},
    "no choices": {"choices": []},
    "an error with status 200": {"choices": None, "error": {"message": "busy", "code": 503}},
    "HTML with status 200": b"<html>Welcome</html>",
}


@pytest.mark.parametrize("shape", [*WHOLE, *BROKEN])
def test_a_reply_in_an_odd_shape(tmp_path, shape, record_fault):
    requests, struck = questions(200 if FULL else 40), set()

    def answer(body, n):
        text = f"{said(body)} 개나리."
        odd = said(body).endswith("0")
        if odd and shape in BROKEN and text not in struck:
            struck.add(text)
            broken = BROKEN[shape]
            if isinstance(broken, bytes):
                return 200, broken, {"content-type": "text/html"}
            return changed(text, **broken)
        api.whole.append(said(body))
        return WHOLE[shape](text) if odd and shape in WHOLE else chat(text)

    with Provider(tmp_path / "journal.jsonl") as api:
        api.answer = answer
        found = [texts(api.llm().complete(requests)) for _ in range(2)]
    meant = [f"{request.messages[0]['content']} 개나리." for request in requests]
    meant[::10] = [MEANT.get(shape, "{}").format(text) for text in meant[::10]]
    right, result = int(found == [meant, meant]), api.result()
    record_fault(f"the API: {shape}", injected=len(meant[::10]), right=right, **result)
    assert (right, result) == (1, {"lost": 0, "twice": 0})


# For a prompt and a completion of so many tokens, as the plan guesses them: what is on the bill,
# and what the server says that it was.
COUNTED = {
    "as the plan does": lambda *guess: (guess, guess),
    "three times as high": lambda prompt, reply: ((3 * prompt, 3 * reply),) * 2,
    "and not reported": lambda *guess: (guess, None),
    "below nothing": lambda *guess: (guess, (-guess[0], -guess[1])),
}


@pytest.mark.parametrize("counted", COUNTED)
def test_a_budget_is_kept_to_however_a_server_counts(tmp_path, counted, record_fault):
    text, requests = "네. " * 6, questions(200 if FULL else 60, max_tokens=50)
    guess = LLM("echo").estimate(requests[0])["prompt_tokens"]
    bill, reported = COUNTED[counted](guess, len(text) * 2 // 3)
    runs = [share * sum(bill) * len(requests) for share in (0.2, 0.5, 0.9)]
    injected, sums = 0, Counter()

    def answer(body, n):
        api.whole.append(said(body))
        return chat(text, tokens=reported) if reported else changed(text, usage=None)

    for number, budget in enumerate(runs):
        with Provider(tmp_path / f"{number}.jsonl", price=(1e6, 1e6)) as api:  # $1 a token
            api.answer = answer
            for allowed in (budget / 2, budget):  # a new session raises it
                with pytest.raises(BudgetReached):
                    list(api.llm(budget=allowed).complete(requests))
                sums["over"] += len(api.whole) * sum(bill) > allowed
        injected += len(api.whole)
        sums.update(api.result(), right=len(api.whole) > 0)
    record_fault(f"a budget, tokens counted {counted}", injected=injected, runs=len(runs), **sums)
    assert sums == {"right": len(runs), "over": 0, "lost": 0, "twice": 0}


def test_a_disk_that_fills_up_under_the_journal(tmp_path, record_fault):
    """The file may not grow beyond some byte; once there is room again, the cell is run again."""
    chance, times, limits = random.Random(0), 20 if FULL else 3, resource.RLIMIT_FSIZE
    requests, (soft, hard) = questions(40 * times), resource.getrlimit(limits)
    meant, right = [f"{request.messages[0]['content']} 개나리." for request in requests], 0

    def answer(body, n):
        api.whole.append(said(body))
        return chat(f"{said(body)} 개나리.")

    with Provider(tmp_path / "journal.jsonl") as api:
        api.answer, llm = answer, api.llm()
        for end in range(40, len(requests) + 1, 40):
            room = api.journal.stat().st_size + chance.randint(0, 4000)
            resource.setrlimit(limits, (room, hard))
            try:
                with pytest.raises(CourseError, match="[Mm]ake room"):
                    list(llm.complete(requests[:end]))
            finally:
                resource.setrlimit(limits, (soft, hard))
            right += texts(llm.complete(requests[:end])) == meant[:end]
        assert texts(api.llm().complete(requests)) == meant  # from the file alone
    result = api.result()
    record_fault("a full disk under the journal", injected=times, runs=times, right=right, **result)
    assert (right, result) == (times, {"lost": 0, "twice": 0})
