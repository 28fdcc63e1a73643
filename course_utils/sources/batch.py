"""The same requests as a batch: half the price, an answer within a day, paid for once all the same.

    batch.submit(llm, requests)       # uploads a file, starts a batch, comes back at once
    batch.collect(llm)                # waits for it, perhaps tomorrow in another process
    list(llm.complete(requests))      # everything is in the journal: no call is made

OpenAI's Batch API takes a file with one request a line and gives back a file with the replies. They
go into the journal under the keys that `complete` uses. A process may be killed between any two
lines of this module: what was sent stands in the journal too, with up to three records a batch:

    NAME          before the batch is created: its requests, its input file, when that was
    NAME/batch    the id that the server gave it
    NAME/end      its replies are in the journal, and this is what became of the rest

NAME is a hash of the input file and travels with the batch as metadata. A batch is created only
after the server's list has been searched for its name, so one whose id never arrived is found
again, even if the journal is lost. Taught in 01, section 6.
"""

import hashlib
import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import count

from course_utils import CourseError
from course_utils.llm import LLM, Plan, Request
from course_utils.plumbing.connection import ErrorInReply, Missing, NoAnswer
from course_utils.plumbing.scrub import scrub

ENDPOINT = "/v1/chat/completions"
METADATA = "course-batch"
PRICE_FACTOR = 0.5
SETTLE = 10.0  # seconds until a batch that a killed process asked for is on the server's list
LONGEST_PAUSE = 120
TIMEOUT = 600  # seconds: files are large
ENDED = {"completed", "failed", "expired", "cancelled"}


@dataclass
class BatchReport:
    """What `collect` brought: replies, dollars for them, why each other key has none, and a
    sentence for every batch that ended early."""

    answered: int = 0
    cost: float = 0.0
    unanswered: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        said = f"{self.answered:,} replies collected (${self.cost:.2f})"
        if self.unanswered:
            said += f", {len(self.unanswered):,} without an answer:"
        often = Counter(self.unanswered.values()).most_common(8)
        return "\n".join([said, *(f"  {n:,} x {reason}" for reason, n in often), *self.notes])


def submit(llm: LLM, requests: Iterable[Request]) -> Plan:
    """Send what is neither in the journal nor on its way as a batch, and return its plan.

    A second call finds it and sends nothing. It is answered within a day, for half of the price; at
    OpenAI 50,000 requests or 200 MB are the most. One request of each kind (by the names of its
    parameters) is asked directly first: a refused key, an unknown model or a parameter it wants
    otherwise shows now and not tomorrow.

    Raises BudgetReached, before anything is sent, if the worst case exceeds the budget; CourseError
    if the server knows no batches or the journal is not a file.
    """
    if llm.journal.path is None:
        raise CourseError("A batch needs a journal that is a file: pass journal=PATH to LLM.")
    for sent in llm.journal.waiting(llm.model, llm.base_url):
        _create(llm, sent)
    wanted = {llm.key(request): request for request in requests}
    coming = {key for key in llm.waiting() if key in wanted and key not in llm.journal}
    if coming:
        print(f"{len(coming):,} of {len(wanted):,} requests are on their way in a batch already.")
    plan = llm.plan(request for key, request in wanted.items() if key not in coming)
    plan = replace(plan, cost=PRICE_FACTOR * plan.cost)
    todo = {key: wanted[key] for key in wanted if key not in coming and key not in llm.journal}
    if not todo:
        return plan
    print(f"Batch: {plan} at {PRICE_FACTOR:g} of the price.")
    kinds = {tuple(sorted(llm.params_of(request))): request for request in reversed(todo.values())}
    what, direct = f"this batch of {len(todo):,} requests", _worst(llm, kinds)
    llm.check_budget(direct + PRICE_FACTOR * _worst(llm, todo), what)
    # Does this server know batches at all? Better asked before anything is paid for.
    _call(llm, lambda client: client.batches.list(limit=1),
          f"{llm.base_url} has no Batch API: use complete(), which asks for the same one by one.")
    list(llm.complete(kinds.values()))
    todo = {key: request for key, request in todo.items() if key not in llm.journal}
    if todo:
        llm.check_budget(PRICE_FACTOR * _worst(llm, todo), what)  # now it told how it counts
        _send(llm, todo)
    return plan


def collect(llm: LLM, *, pause: float = 5, progress: bool = True) -> BatchReport:
    """Wait until every batch of this model has ended, and put its replies into the journal.

    Looks after `pause` seconds, then after twice as many, and so on. After an interruption run it
    again: nothing is lost and nothing counts twice. Requests without an answer are in the report;
    `complete` asks them directly, `submit` in another batch.

    Raises CourseError if a batch failed as a whole, after all others have been collected.
    """
    waiting = [(sent, _create(llm, sent))
               for sent in llm.journal.waiting(llm.model, llm.base_url)]
    report, failures = BatchReport(), []
    while waiting:
        for sent, id in list(waiting):
            found = _call(
                llm, lambda client, id=id: client.batches.retrieve(id),
                f"{llm.base_url} knows no batch {id}: is the API key of the same project? If it is "
                f"gone for good, delete the lines that begin with {sent['key']} from "
                f"{llm.journal.path}, and submit again.")
            if found.status in ENDED:
                failures += _harvest(llm, sent, found, report)
                waiting.remove((sent, id))
            elif progress:
                print(f"{time.strftime('%H:%M')} batch {id}: {found.status}")
        if waiting:
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
    if failures:
        raise CourseError(" ".join(failures))
    return report


def _worst(llm: LLM, asked: dict[object, Request]) -> float:
    return sum(llm.cost(llm.estimate(request, worst=True)) for request in asked.values())


def _call(llm: LLM, ask, missing: str):
    return llm.connection.call(lambda client, _: ask(client), missing=missing, timeout=TIMEOUT)


def _send(llm: LLM, todo: dict[str, Request]) -> None:
    lines = []
    for key, request in todo.items():
        body = {"model": llm.model, "messages": request.messages,
                **llm.connection.adapted(llm.params_of(request))}
        row = {"custom_id": key, "method": "POST", "url": ENDPOINT, "body": body}
        lines.append(json.dumps(row, ensure_ascii=False).encode("utf-8", "replace") + b"\n")
    content = b"".join(lines)
    digest = hashlib.sha256(llm.base_url.encode() + content).hexdigest()[:40]
    names = (f"{digest}-{attempt}" for attempt in count())
    name = next(name for name in names if f"{name}/end" not in llm.journal)  # after it failed
    file = _call(llm, lambda client: client.files.create(
        file=(f"{name}.jsonl", content), purpose="batch", timeout=TIMEOUT),
        f"{llm.base_url} takes no files for batches: use complete().")
    sent = {"key": name, "batch_of": [llm.model, llm.base_url], "file": file.id,
            "time": time.time(), "price_factor": PRICE_FACTOR,
            "requests": {key: [request.messages, llm.params_of(request), request.sample]
                         for key, request in todo.items()}}
    llm.journal.add(sent)
    batch_id = _create(llm, sent, first=True)
    print(f"Submitted {len(todo):,} requests as {batch_id}: batch.collect waits for them.")


def _create(llm: LLM, sent: dict, first: bool = False) -> str:
    """The id of a batch: as it was noted, or from the server's list, or else of a new one."""
    import openai

    name = sent["key"]
    if noted := llm.journal.get(f"{name}/batch"):
        return noted["id"]
    if not first:
        time.sleep(min(SETTLE, max(0.0, sent["time"] + SETTLE - time.time())))

    def find_or_create(client):
        for found in client.batches.list(limit=100):
            if (found.metadata or {}).get(METADATA) == name:
                return found
        try:
            return client.batches.create(input_file_id=sent["file"], endpoint=ENDPOINT,
                                         completion_window="24h", metadata={METADATA: name})
        except openai.APIConnectionError:  # it may have been created all the same
            time.sleep(SETTLE)
            raise

    try:
        found = _call(llm, find_or_create, f"The batch {name} was not created: its server finds no "
                                           "file, or has no batches.")
    except NoAnswer as error:
        if error.finish_reason == "refused":
            llm.journal.add({"key": f"{name}/end", "status": "not created"})
        raise
    llm.journal.add({"key": f"{name}/batch", "id": found.id})
    return found.id


def _harvest(llm: LLM, sent: dict, found, report: BatchReport) -> list[str]:
    """Put the replies of a batch that has ended into the journal and into the report; returns why
    it failed as a whole, if it did."""
    requests, failure = {key: Request(*asked) for key, asked in sent["requests"].items()}, []
    unanswered = dict.fromkeys(requests, "neither a reply nor an error came back")
    try:
        for row in _rows(llm, found):
            key = row.get("custom_id")
            if key not in unanswered:
                continue
            request, body, factor = requests[key], None, sent["price_factor"]
            try:
                body = _body(row)
                record = llm.record(request, key, body) | {"price_factor": factor}
            except ValueError as error:
                unanswered[key] = scrub(str(error))
                llm.connection.learn(error, request.params | llm.connection.adapted(request.params))
                llm.lose(request, key, body, found.id, factor)
            else:
                llm.keep(record | {"batch": found.id})
                del unanswered[key]
                report.answered += 1
                report.cost += llm.paid(record)
    except Missing as error:
        failure = [str(error)]
    share = f"{len(requests) - len(unanswered):,} of its {len(requests):,} requests were answered"
    if found.status == "failed":
        causes = [str(error.message) for error in (found.errors and found.errors.data) or []]
        failure = [f"The batch {found.id} failed as a whole ({'; '.join(causes[:3])}): {share}. "
                   "Mend the cause (fewer at a time, if it is a limit) and submit again."]
    elif found.status != "completed":
        report.notes.append(f"The batch {found.id} is {found.status}: {share} and are kept.")
    report.unanswered |= unanswered
    llm.journal.add({"key": f"{sent['key']}/end", "status": found.status})
    return failure


def _rows(llm: LLM, found) -> Iterator[dict]:
    for file_id in filter(None, (found.output_file_id, found.error_file_id)):
        content = _call(
            llm, lambda client, id=file_id: client.files.content(id, timeout=TIMEOUT).content,
            f"The replies of batch {found.id} are gone from {llm.base_url} ({file_id}; OpenAI keeps"
            " them for 30 days): submit these requests again.")
        for line in content.splitlines():
            with suppress(ValueError):  # its request stays without an answer, and counts as such
                if isinstance(row := json.loads(line), dict):
                    yield row


def _body(row: dict) -> dict:
    """The response of a line. Raises ErrorInReply."""
    response = row.get("response") if isinstance(row.get("response"), dict) else {}
    status, body = response.get("status_code"), response.get("body")
    if status != 200 or not isinstance(body, dict):
        raise ErrorInReply(body or row.get("error"), status)
    return body
