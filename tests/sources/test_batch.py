"""Batches against the simulated API: paid for once, whatever expires, breaks off or is killed."""

import asyncio
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter

import pytest
import uvicorn
from loopback import Loopback

from course_utils import REPO, CourseError
from course_utils.llm import LLM, BudgetReached, Request
from course_utils.offline import batches
from course_utils.sources import batch
from tests.faulty_server import Dropped, Faulty, Settings


class Server:
    """The simulated API in a thread of this process, its settings, and what it was asked."""

    def __init__(self, folder, **settings):
        self.log = folder / "log.jsonl"
        self.settings = Settings(log=str(self.log), **settings)
        self.app = Faulty(self.settings)
        listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        # Its own log configuration would close every handler of this process, and absl's
        # (rouge-score stands on absl) takes pytest's stderr with it.
        config = uvicorn.Config(self.app, http="h11", ws="none", lifespan="off", log_config=None,
                                log_level="critical", timeout_graceful_shutdown=1)
        self.running = uvicorn.Server(config)
        threading.Thread(target=self.running.run, kwargs={"sockets": [listener]},
                         daemon=True).start()

    def requests(self):
        """Every attempt that reached it: the digest of a chat request, or a method and a path."""
        text = self.log.read_text(encoding="utf-8") if self.log.exists() else ""
        return [json.loads(line)["request"] for line in text.splitlines()]

    def asked(self):
        return [name for name in self.requests() if " " not in name]

    def batches(self):
        """The custom_ids in the input file of each batch, oldest first."""
        kept = self.app.app.state.batches
        return [[json.loads(line)["custom_id"]
                 for line in kept.files[each["input_file_id"]].splitlines()]
                for each in list(kept.batches.values())]


@pytest.fixture
def start(tmp_path):
    """Start a server: start(**settings of the simulation)."""
    servers = []

    def make(folder=tmp_path, **settings):
        servers.append(Server(folder, **settings))
        return servers[-1]

    yield make
    for server in servers:
        server.running.should_exit = True


@pytest.fixture
def client(tmp_path, monkeypatch):
    monkeypatch.setattr(batch, "SETTLE", 0.3)

    def make(server, **settings):
        settings = {"journal": tmp_path / "journal.jsonl", "backoff": 0.01, **settings}
        return LLM("simulated-teacher", base_url=server.url, **settings)

    return make


def ask(number, **params):
    params = {"max_tokens": 50, **params}
    return Request([{"role": "user", "content": f"안녕하세요, {number}번째 인사입니다."}], params)


ASKED = [ask(number) for number in range(12)]
COLLECT = {"pause": 0.05, "progress": False}


def test_a_batch_brings_what_complete_would_have_brought(start, client, tmp_path, capsys):
    server = start(batch_seconds=0.4)
    direct = client(server, journal=tmp_path / "direct.jsonl", price=(1, 2))
    wanted = list(direct.complete(ASKED))
    llm = client(server, price=(1, 2))
    plan = batch.submit(llm, ASKED)
    assert plan.calls == 12 and "at 0.5 of the price" in capsys.readouterr().out
    report = batch.collect(llm, **COLLECT)
    assert (report.answered, report.unanswered, report.notes) == (11, {}, [])
    asked = len(server.requests())
    replies = list(llm.complete(ASKED))
    assert len(server.requests()) == asked
    assert [(r.key, r.text, r.usage, r.model) for r in replies] == [
        (r.key, r.text, r.usage, r.model) for r in wanted]
    for key in (reply.key for reply in wanted):
        record, same = dict(llm.journal.get(key)), direct.journal.get(key)
        assert record.pop("batch", "batch_").startswith("batch_")
        assert record.pop("price_factor", 0.5) == 0.5
        assert record == same
    # The first request was asked directly, at the full price; all others at half of it.
    assert replies[0].cost == wanted[0].cost
    assert [r.cost for r in replies[1:]] == [pytest.approx(r.cost / 2) for r in wanted[1:]]
    assert llm.spent == pytest.approx(sum(reply.cost for reply in replies))
    assert client(server, price=(1, 2)).spent == pytest.approx(llm.spent)
    assert report.cost == pytest.approx(llm.spent - replies[0].cost)


def test_running_the_cells_again_submits_nothing(start, client, capsys):
    server = start(batch_seconds=3)
    for _ in range(2):
        batch.submit(client(server), ASKED)
    assert "11 of 12 requests are on their way" in capsys.readouterr().out
    with pytest.raises(CourseError, match="on its way in a batch .* collect it first"):
        list(client(server).complete(ASKED))  # nor are they asked for directly
    assert batch.collect(client(server), **COLLECT).answered == 11
    for _ in range(2):
        batch.submit(client(server), ASKED)
        assert batch.collect(client(server), **COLLECT).answered == 0
    assert len(server.batches()) == 1 and len(server.asked()) == 12
    batch.submit(client(server), [*ASKED, ask("a"), ask("b")])  # more of them later: only those
    assert [len(keys) for keys in server.batches()] == [11, 1]


def test_a_batch_is_found_again_when_the_journal_is_lost(start, client, tmp_path):
    server = start()
    batch.submit(client(server), ASKED)
    (tmp_path / "journal.jsonl").unlink()
    batch.submit(client(server), ASKED)
    server.url += "/"  # the same address
    assert batch.collect(client(server), **COLLECT).answered == 11
    assert len(server.batches()) == 1


# ---------------------------------------------------------------- killed

CHILD = """
import os, signal, sys
from course_utils.plumbing import connection, journal
from course_utils.sources import batch
from openai.resources.batches import Batches
from course_utils.llm import LLM, Request

url, path, fatal, number = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
steps = 0

def step():
    global steps
    steps += 1
    if steps == fatal:
        os.kill(os.getpid(), signal.SIGKILL)

def mortal(function):
    def wrapped(*arguments, **more):
        step()
        result = function(*arguments, **more)
        step()
        return result
    return wrapped

for owner, name in ((journal.Journal, "add"), (connection.Connection, "call"),
                    (Batches, "create")):
    setattr(owner, name, mortal(getattr(owner, name)))
batch.SETTLE = 0.3
requests = [Request([{"role": "user", "content": f"{i}번"}], {"max_tokens": 9})
            for i in range(number)]
llm = LLM("simulated-teacher", base_url=url, journal=path, workers=1, backoff=0.01)
batch.submit(llm, requests[:4])
batch.submit(llm, requests)
batch.collect(llm, pause=0.05, progress=False)
print(steps, len(list(llm.complete(requests))))
"""


def live(server, path, fatal=0, number=6):
    """Submit, collect and complete in a process that dies at its step `fatal`."""
    command = [sys.executable, "-c", CHILD, server.url, str(path), str(fatal), str(number)]
    return subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=120)


def check_nothing_was_paid_twice(server, path, deaths):
    submitted = [key for keys in server.batches() for key in keys]
    assert len(submitted) == len(set(submitted))
    records = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    records = [record for record in records if "text" in record]  # not what was sent
    assert {record["key"] for record in records if "batch" in record} == set(submitted)
    # Only a direct reply that was on its way when the process died may be asked for again.
    assert sum(Counter(server.asked()).values()) - len(records) <= deaths


@pytest.mark.slow
def test_killed_at_chance_again_and_again(start, tmp_path):
    server, chance, deaths = start(batch_seconds=0.2), random.Random(0), 0
    path = tmp_path / "journal.jsonl"
    while (life := live(server, path, chance.randint(4, 30))).returncode:
        assert life.returncode == -signal.SIGKILL, life.stderr
        deaths += 1
        assert deaths < 50
    assert deaths
    check_nothing_was_paid_twice(server, path, deaths)
    asked = len(server.requests())
    assert live(server, path).stdout.split()[-1] == "6"
    assert len(server.requests()) == asked  # neither a call nor a look at the server's list


@pytest.mark.slow
@pytest.mark.skipif(os.environ.get("FAULTS") != "all", reason="only with FAULTS=all")
def test_killed_at_every_step(start, tmp_path):
    steps = int(live(start(), tmp_path / "journal.jsonl").stdout.split()[-2])
    for fatal in range(1, steps + 1):
        folder = tmp_path / str(fatal)
        folder.mkdir()
        server = start(folder)
        life = live(server, folder / "journal.jsonl", fatal)
        assert life.returncode == -signal.SIGKILL, life.stderr
        assert live(server, folder / "journal.jsonl").stdout.split()[-1] == "6"
        check_nothing_was_paid_twice(server, folder / "journal.jsonl", 1)


@pytest.fixture
def late_creation(monkeypatch):
    """The answer to a creation breaks off, and the batch is on the server's list only later."""
    create = batches.Batches.create

    async def late(self, request):
        await request.body()

        async def work():
            await asyncio.sleep(0.7)
            await create(self, request)

        self._work.add(asyncio.create_task(work()))
        return Dropped()

    monkeypatch.setattr(batches.Batches, "create", late)
    monkeypatch.setattr(batch, "SETTLE", 2)


def test_a_creation_that_breaks_off_is_looked_for_by_whoever_goes_on(start, client,
                                                                     late_creation):
    server = start()
    process = threading.Thread(target=batch.submit, args=(client(server), ASKED))
    process.start()
    while "POST /v1/batches" not in server.requests():
        time.sleep(0.01)
    assert batch.collect(client(server), **COLLECT).answered == 11  # as after a kill
    process.join()
    assert len(server.batches()) == 1


# ---------------------------------------------------------------- what ends early


def test_lines_that_failed_are_named_counted_and_left_to_complete(start, client, tmp_path):
    server = start(faults=0.4, seed=3)
    llm = client(server, max_retries=20)
    batch.submit(llm, ASKED)
    report = batch.collect(llm, **COLLECT)
    assert report.answered + len(report.unanswered) == 11 and report.unanswered
    assert set(report.unanswered) <= {llm.key(request) for request in ASKED}
    assert f"{len(report.unanswered)} without an answer" in str(report)
    assert "x The server" in str(report)
    batch.submit(llm, ASKED)  # a second batch takes what the first left, all but one of it
    assert len(server.batches()[-1]) == len(report.unanswered) - 1
    batch.collect(llm, **COLLECT)
    assert all(reply.text for reply in llm.complete(ASKED))


@pytest.mark.parametrize("at_once", [True, False])
def test_a_parameter_is_learned_before_a_batch_is_sent_or_line_by_line(start, client, capsys,
                                                                      at_once):
    server = start(batch_seconds=0.8, refuse_max_tokens=at_once)
    llm = client(server)
    batch.submit(llm, ASKED)
    object.__setattr__(server.settings, "refuse_max_tokens", True)  # the provider changed its mind
    report = batch.collect(llm, **COLLECT)
    assert len(report.unanswered) == (0 if at_once else 11)
    assert ("Unsupported parameter" in str(report)) != at_once
    batch.submit(llm, ASKED)
    assert not batch.collect(llm, **COLLECT).unanswered
    assert capsys.readouterr().out.count("does not accept") == 1


@pytest.fixture
def results(monkeypatch):
    """Have a batch end with what `results(change)` makes of its lines, and with what it returns."""
    whole = batches.Batches._results

    def make(change):
        def changed(self, replies, mistakes):
            more = change(replies) or {}
            return whole(self, replies, mistakes) | more

        monkeypatch.setattr(batches.Batches, "_results", changed)

    return make


@pytest.mark.parametrize("status", ["expired", "cancelled"])
def test_a_batch_that_ends_early_keeps_what_it_had(start, client, results, status):
    server = start()
    llm = client(server)
    results(lambda replies: replies.__delitem__(slice(5, None)) or {"status": status})
    batch.submit(llm, ASKED)
    report = batch.collect(llm, **COLLECT)
    assert (report.answered, len(report.unanswered)) == (5, 6)
    assert f"is {status}: 5 of its 11 requests were answered and are kept" in str(report)
    batch.submit(llm, ASKED)
    assert len(server.batches()[-1]) == 6 - 1
    assert sum(bool(reply.text) for reply in client(server).complete(ASKED[:7])) == 7


def test_a_batch_that_fails_as_a_whole_is_one_sentence_and_may_be_sent_again(
        start, client, results, monkeypatch):
    """Equal requests make an equal file; the batch that failed must not pass for the new one."""
    server = start()
    llm = client(server)
    list(llm.complete(ASKED[:1]))
    monkeypatch.setattr(LLM, "complete", lambda *_: iter(()))  # so that nothing is asked directly
    full = {"status": "failed", "errors": {"data": [{"message": "full"}]}}
    results(lambda replies: replies.clear() or full)
    for _ in range(2):
        batch.submit(llm, ASKED)
        with pytest.raises(CourseError, match=r"failed as a whole \(full\).* submit again"):
            batch.collect(llm, **COLLECT)
    assert batch.collect(llm, **COLLECT).answered == 0
    first, second = server.batches()
    assert first == second
    results(lambda replies: None)
    batch.submit(llm, ASKED)
    assert batch.collect(llm, **COLLECT).answered == 11


def test_lines_of_any_shape_are_read_or_named_and_what_was_billed_counts(start, client, results):
    def spoil(replies):
        usage = {"prompt_tokens": 10, "completion_tokens": 20}
        bodies = [{"choices": [], "usage": usage}, {"choices": [{"text": "예"}], "usage": usage}]
        replies[0], replies[2] = "not an object", {"custom_id": "a stranger"}
        for row, body in zip(replies[4:6], bodies, strict=True):
            row["response"]["body"] = body
        replies[3] |= {"response": [], "error": "odd"}

    results(spoil)
    llm = client(start(), price=(0, 1000))
    batch.submit(llm, ASKED)
    before = llm.spent
    report = batch.collect(llm, **COLLECT)
    assert Counter(report.unanswered.values()) == {
        "neither a reply nor an error came back": 2, "the server's reply holds no message": 1,
        "odd": 1}
    assert llm.spent - before == pytest.approx(report.cost + 0.01)  # 20 tokens at half the price
    assert client(start(), price=(0, 1000)).spent == llm.spent
    results(lambda _: {"output_file_id": "file-gone"})
    batch.submit(llm, ASKED)
    with pytest.raises(CourseError, match="are gone from .* submit these requests again"):
        batch.collect(llm, **COLLECT)


def test_empty_replies_are_all_kept_before_anybody_complains(start, client, results):
    def silence(replies):
        for row in replies:
            row["response"]["body"]["choices"][0] |= {"message": {}, "finish_reason": "length"}

    results(silence)
    llm = client(start())
    batch.submit(llm, ASKED)
    assert batch.collect(llm, **COLLECT).answered == 11


def test_a_batch_that_the_server_does_not_know_is_not_submitted_again(start, client, tmp_path):
    server = start()
    batch.submit(client(server), ASKED)
    state = tmp_path / "journal.jsonl"
    state.write_text(state.read_text("utf-8").replace('"id": "batch_', '"id": "gone_'), "utf-8")
    for _ in range(2):
        with pytest.raises(CourseError, match="API key of the same project.*delete the lines"):
            batch.collect(client(server), **COLLECT)
        batch.submit(client(server), ASKED)
    assert len(server.batches()) == 1


# ---------------------------------------------------------------- money, other servers


def test_the_budget_counts_before_anything_is_sent(start, client):
    server = start()
    settings = {"price": (0, 10_000)}  # a cent a token: 50 cents a request, 25 in a batch
    llm = client(server, **settings, budget=3.4)
    with pytest.raises(BudgetReached, match=r"\$3.4 is reached: .* 12 requests could cost \$3.5"):
        batch.submit(llm, ASKED)
    assert server.asked() == []
    llm = client(server, **settings, budget=3.5)
    batch.submit(llm, ASKED)
    llm.budget = 3.2
    with pytest.raises(BudgetReached, match="the next request could cost"):
        list(llm.complete([ask("new")]))  # what is on its way may yet cost all of it
    with pytest.raises(BudgetReached, match=r"\$2.7500 set aside"):
        batch.submit(llm, [ask("new")])
    batch.collect(llm, **COLLECT)
    assert llm.spent <= 3.5


def test_a_refused_key_and_an_unknown_model_are_said_at_once(start, client):
    server = start()
    with pytest.raises(CourseError, match="refused the API key"):
        batch.submit(client(server, api_key="refused"), ASKED)
    llm = LLM("simulated-teach", base_url=server.url, journal=client(server).journal)
    with pytest.raises(CourseError, match='the closest it offers is "simulated-teacher"'):
        batch.submit(llm, ASKED)
    assert server.batches() == []


@pytest.mark.parametrize(("journal", "said"), [
    ({}, r"no Batch API: use complete\(\)"), ({"journal": None}, "needs a journal that is a file")])
def test_what_cannot_take_batches_says_what_to_do_instead(client, journal, said):
    with Loopback() as server, pytest.raises(CourseError, match=said):
        batch.submit(client(server, **journal), ASKED)
