"""The same requests as a batch: half the price, an answer within a day, paid for once all the same.

    llm.submit_batch(requests)        # uploads a file, starts a batch, comes back at once
    llm.collect_batch()               # waits for it, perhaps tomorrow in another process
    list(llm.complete(requests))      # everything is in the journal: no call is made

OpenAI's Batch API takes a file with one request a line and gives back a file with the replies. They
go into the journal under the keys that `complete` uses, so nothing later can tell the difference.

A process may be killed between any two lines of this module. What was sent stands in a file beside
the journal, `journal.batches.jsonl`, itself a journal, with up to three records a batch:

    NAME          before the batch is created: its requests, its input file, when that was
    NAME/batch    the id that the server gave it
    NAME/end      its replies are in the journal, and this is what became of the rest

NAME is a hash of the input file and travels with the batch as metadata. A batch is created only
after the server's list has been searched for its name, so one whose id never arrived is found
again, even if both files are lost. Taught in 01, section 6.
"""

import hashlib
import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from tqdm.auto import tqdm

from course_utils import CourseError
from course_utils.llm import LLM, BudgetReached, Plan, Request
from course_utils.plumbing.connection import Missing, NoAnswer
from course_utils.plumbing.journal import Journal
from course_utils.plumbing.secrets import scrub

ENDPOINT = "/v1/chat/completions"
METADATA = "course-batch"
SETTLE = 10.0
"""Seconds after which a batch that a killed process asked for would be on the server's list."""

ENDED = {"completed", "failed", "expired", "cancelled"}


@dataclass
class BatchReport:
    """What `collect_batch` brought: replies, dollars for them, and why each other key has none.

    `waiting` counts requests whose batch has not ended; `notes` has a sentence for every batch that
    ended early.
    """

    answered: int = 0
    cost: float = 0.0
    unanswered: dict[str, str] = field(default_factory=dict)
    waiting: int = 0
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        said = f"{self.answered:,} replies collected (${self.cost:.2f})"
        if self.waiting:
            said += f", {self.waiting:,} requests still on their way"
        if self.unanswered:
            said += f", {len(self.unanswered):,} without an answer:"
        reasons: dict[str, list[str]] = {}
        for key, reason in self.unanswered.items():
            reasons.setdefault(reason, []).append(key[:12])
        often = sorted(reasons.items(), key=lambda item: -len(item[1]))[:8]
        lines = [f"  {len(keys):,} x {reason} ({_some(keys)})" for reason, keys in often]
        return "\n".join([said, *lines, *self.notes])


def submit(llm: LLM, requests: Iterable[Request], price_factor: float, max_requests: int,
           max_bytes: int) -> Plan:
    """Send every request that is neither in the journal nor on its way, and return their plan.

    One request of each kind (by the names of its parameters) is asked directly first, so that a
    refused key, an unknown model or a parameter it wants otherwise shows now and not tomorrow.
    More than `max_requests` or `max_bytes` become several batches: 50,000 and 200 MB are OpenAI's
    limits and half the usual price its rule, all three as its Batch API guide states them.
    What a batch refused as such is not submitted again. Raises BudgetReached, before anything is
    sent, if the worst case exceeds the budget; CourseError if the server knows no batches.
    """
    state = _state(llm)
    for name in _open(llm, state):
        _create(llm, state, name)
    coming = llm._batched = on_their_way(llm)
    refused = {key for name in _mine(llm, state)
               for key in (state.get(f"{name}/end") or {}).get("refused", ())}
    wanted = {llm.key(request): request for request in requests}
    missing = {key: request for key, request in wanted.items() if llm.journal.get(key) is None}
    todo = {key: request for key, request in missing.items()
            if key not in coming and key not in refused}
    plan = llm.plan(todo.values())
    plan = replace(plan, cached=len(wanted) - len(missing), cost=plan.cost * price_factor)
    for keys, what in ((coming, "are on their way in a batch already"),
                       (refused, "were refused in an earlier batch and are not submitted again")):
        if number := len(keys & missing.keys()):
            print(f"{number:,} of {len(wanted):,} requests {what}.")
    if not todo:
        return plan
    print(f"Batch: {plan} at {price_factor:g} of the price.")
    _check_budget(llm, todo, price_factor)
    # Does this server know batches at all? Better asked before anything is paid for.
    llm._connection.call(lambda client: client.batches.list(limit=1), _no_batches(llm))
    kinds = {tuple(sorted(llm.params_of(request))): request for request in reversed(todo.values())}
    for _ in llm.complete(kinds.values()):
        pass
    todo = {key: request for key, request in todo.items() if llm.journal.get(key) is None}
    _check_budget(llm, todo, price_factor)
    for part, lines in _parts(llm, todo, max_requests, max_bytes):
        _send(llm, state, part, lines, price_factor)
    return plan


def collect(llm: LLM, timeout: float | None, pause: float, longest_pause: float, cancel: bool,
            progress: bool) -> BatchReport:
    """Wait until every batch of this model has ended, and put its replies into the journal.

    Looks after `pause` seconds, then after twice as many, up to `longest_pause`; `timeout` (0: look
    once) ends the wait, `cancel` the batches. After an interruption run it again: nothing is lost
    and nothing counts twice. Requests without an answer are in the report; `complete` asks them
    directly, `submit_batch` in another batch.

    Raises CourseError if a batch failed as a whole, after all others have been collected.
    """
    state = _state(llm)
    waiting = {name: _create(llm, state, name) for name in _open(llm, state)}
    if cancel:
        for batch_id in waiting.values():
            _cancel(llm, batch_id)
    sizes = {name: len(state.get(name)["requests"]) for name in waiting}
    report, failures, done = BatchReport(), [], 0
    deadline = time.monotonic() + (float("inf") if timeout is None else timeout)
    with tqdm(total=sum(sizes.values()), desc="batch", unit="request",
              disable=not progress or not waiting) as bar:
        while waiting:
            partly, statuses = 0, Counter()
            for name, batch_id in list(waiting.items()):
                batch = _retrieve(llm, state, batch_id)
                statuses[batch.status] += 1
                if batch.status in ENDED:
                    failures += _harvest(llm, state, name, batch, report)
                    done += sizes[name]
                    del waiting[name]
                elif counts := batch.request_counts:
                    partly += counts.completed + counts.failed
            bar.set_postfix(statuses)
            bar.update(done + partly - bar.n)
            left = deadline - time.monotonic()
            if left <= 0:
                break
            if waiting:
                time.sleep(min(pause, left))
                pause = min(2 * pause, longest_pause)
    llm._batched = on_their_way(llm)
    if failures:
        raise CourseError(" ".join(failures))
    report.waiting = sum(sizes[name] for name in waiting)
    return report


def on_their_way(llm: LLM) -> dict[str, float]:
    """The keys that wait in a batch of this model, and the most that each may cost in dollars."""
    if llm.journal.path is None or not _path(llm).exists():
        return {}
    state = _state(llm)
    return {
        key: llm.cost(llm._estimate(Request(*asked), worst=True)) * state.get(name)["price_factor"]
        for name in _open(llm, state) for key, asked in state.get(name)["requests"].items()}


# ---------------------------------------------------------------- what was sent


def _path(llm: LLM) -> Path:
    path = llm.journal.path
    return path.with_name(f"{path.stem}.batches{path.suffix}")


def _state(llm: LLM) -> Journal:
    if llm.journal.path is None:
        raise CourseError("A batch takes longer than a process lives, so it needs a journal that "
                          "is a file: pass journal=PATH to LLM.")
    llm._batches = Journal.open(_path(llm))  # a journal stays open as long as somebody holds it
    llm._batches.watch = llm.journal.watch  # what waits in a batch is paid for as well
    return llm._batches


def _mine(llm: LLM, state: Journal) -> list[str]:
    """The names of all batches of this model at this address."""
    return [record["key"] for record in state.records() if "requests" in record
            and (record["model"], record["base_url"]) == (llm.model, llm.base_url)]


def _open(llm: LLM, state: Journal) -> list[str]:
    return [name for name in _mine(llm, state) if state.get(f"{name}/end") is None]


# ---------------------------------------------------------------- there


def _no_batches(llm: LLM) -> str:
    return (f"{llm.base_url} has no Batch API: use complete(), which asks the same requests one "
            "by one and keeps the replies in the same journal.")


def _check_budget(llm: LLM, todo: dict[str, Request], price_factor: float) -> None:
    worst = price_factor * sum(llm.cost(llm._estimate(request, worst=True))
                               for request in todo.values())
    aside = sum(llm._batched.values())
    if llm.budget is not None and llm.spent + aside + worst > llm.budget:
        raise BudgetReached(
            f"The budget of ${llm.budget:g} does not cover this batch: ${llm.spent:.4f} is spent, "
            f"${aside:.4f} set aside for batches on their way, and these {len(todo):,} requests "
            f"could cost ${worst:.4f}. They were not submitted; submit fewer, lower max_tokens or "
            "raise the budget.")


def _parts(llm: LLM, todo: dict[str, Request], max_requests: int,
           max_bytes: int) -> Iterator[tuple[dict[str, Request], bytes]]:
    """The requests in parts within both limits, each with its input file."""
    part: dict[str, Request] = {}
    lines: list[bytes] = []
    size = 0
    for key, request in todo.items():
        body = {"model": llm.model, "messages": request.messages,
                **llm._connection.adapted(llm.params_of(request))}
        row = {"custom_id": key, "method": "POST", "url": ENDPOINT, "body": body}
        line = json.dumps(row, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
        if len(line) > max_bytes:
            raise CourseError(f"Request {key[:12]} alone takes {len(line):,} bytes, more than a "
                              f"batch may have ({max_bytes:,}): leave it out or shorten it.")
        if len(part) == max_requests or size + len(line) > max_bytes:
            yield part, b"".join(lines)
            part, lines, size = {}, [], 0
        part[key] = request
        lines.append(line)
        size += len(line)
    if part:
        yield part, b"".join(lines)


def _send(llm: LLM, state: Journal, part: dict[str, Request], lines: bytes,
          price_factor: float) -> None:
    digest = hashlib.sha256(llm.base_url.encode() + lines).hexdigest()[:40]
    attempt = 0
    while state.get(f"{digest}-{attempt}/end"):  # the same once more, after it failed
        attempt += 1
    name = f"{digest}-{attempt}"
    file = llm._connection.call(
        lambda client: client.files.create(file=(f"{name}.jsonl", lines), purpose="batch",
                                           timeout=600), _no_batches(llm))
    state.add({"key": name, "model": llm.model, "base_url": llm.base_url, "file": file.id,
               "time": time.time(), "price_factor": price_factor,
               "requests": {key: [request.messages, llm.params_of(request), request.sample]
                            for key, request in part.items()}})
    batch_id = _create(llm, state, name, settle=0)
    print(f"Submitted {len(part):,} requests as {batch_id}: collect_batch() waits for them.")


def _create(llm: LLM, state: Journal, name: str, settle: float | None = None) -> str:
    """The id of a batch: as it was noted, or from the server's list, or else of a new one."""
    import openai

    if noted := state.get(f"{name}/batch"):
        return noted["id"]
    asked = state.get(name)
    settle = SETTLE if settle is None else settle
    time.sleep(min(settle, max(0.0, asked["time"] + settle - time.time())))

    def find_or_create(client):
        for batch in client.batches.list(limit=100):
            if (batch.metadata or {}).get(METADATA) == name:
                return batch
        try:
            return client.batches.create(
                input_file_id=asked["file"], endpoint=ENDPOINT, completion_window="24h",
                metadata={METADATA: name})
        except openai.APIConnectionError:  # it may have been created all the same
            time.sleep(SETTLE)
            raise
        except openai.NotFoundError as error:
            raise NoAnswer("refused", f"the batch was not created ({error.message})") from None

    try:
        batch = llm._connection.call(find_or_create, _no_batches(llm))
    except NoAnswer as error:
        if error.finish_reason == "refused":
            state.add({"key": f"{name}/end", "status": "not created"})
        raise
    state.add({"key": f"{name}/batch", "id": batch.id})
    return batch.id


def _retrieve(llm: LLM, state: Journal, batch_id: str):
    return llm._connection.call(
        lambda client: client.batches.retrieve(batch_id),
        f"{llm.base_url} knows no batch {batch_id}, which {state.path} says is on its way: is the "
        "API key of the same project? If it is gone for good, delete that file and submit again.")


def _cancel(llm: LLM, batch_id: str) -> None:
    try:
        llm._connection.call(lambda client: client.batches.cancel(batch_id), _no_batches(llm))
    except NoAnswer:
        pass  # it has ended already


# ---------------------------------------------------------------- and back


class _LineError(Exception):
    """An error line of a batch, in the form of the openai client's errors."""

    def __init__(self, row: dict):
        response = _object(row, "response")
        error = _object(_object(response, "body"), "error") or _object(row, "error")
        self.status_code = response.get("status_code")
        self.code, self.param = error.get("code"), error.get("param")
        self.message = str(error.get("message") or self.code or "an error without a message")
        said = self.message.strip().rstrip(".")
        super().__init__(f"{self.status_code}: {said}" if self.status_code else said)


def _harvest(llm: LLM, state: Journal, name: str, batch, report: BatchReport) -> list[str]:
    """Put the replies of a batch that has ended into the journal and into the report.

    Returns why it failed as a whole, if it did.
    """
    asked = state.get(name)
    requests = {key: Request(*request) for key, request in asked["requests"].items()}
    unanswered = dict.fromkeys(requests, "neither a reply nor an error came back")
    refused, failure = [], []
    try:
        for row in _rows(llm, batch):
            key = row.get("custom_id")
            if key not in unanswered:
                continue
            try:
                record = _record(llm, key, requests[key], row)
            except _LineError as error:
                unanswered[key] = scrub(str(error))
                params = requests[key].params
                learned = llm._connection.learn(error, params | llm._connection.adapted(params))
                if error.status_code in (400, 413, 422) and not learned:
                    refused.append(key)
                continue
            record |= {"price_factor": asked["price_factor"], "batch": batch.id}
            llm._keep(record)
            del unanswered[key]
            report.answered += 1
            report.cost += llm._paid(record)
    except Missing as error:
        failure = [str(error)]
    kept = len(requests) - len(unanswered)
    share = f"{kept:,} of its {len(requests):,} requests were answered and are kept"
    if batch.status == "failed":
        causes = [error.message for error in (batch.errors and batch.errors.data) or []]
        failure = [f"The batch {batch.id} failed as a whole ({_some(causes)}): {share}. Mend the "
                   "cause, or submit fewer at a time if it is a limit, and submit again."]
    elif batch.status != "completed":
        report.notes.append(f"The batch {batch.id} is {batch.status}: {share}.")
    report.unanswered |= unanswered
    state.add({"key": f"{name}/end", "status": batch.status, "refused": refused})
    return failure


def _rows(llm: LLM, batch) -> Iterator[dict]:
    for file_id in filter(None, (batch.output_file_id, batch.error_file_id)):
        content = llm._connection.call(
            lambda client, file_id=file_id: client.files.content(file_id, timeout=600).content,
            f"The replies of batch {batch.id} are gone from {llm.base_url} ({file_id}; OpenAI keeps"
            " them for 30 days): submit these requests again.")
        for line in content.splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue  # its request stays without an answer, and is counted as such
            if isinstance(row, dict):
                yield row


def _record(llm: LLM, key: str, request: Request, row: dict) -> dict:
    """The journal's record of a line. Raises _LineError if it holds no reply."""
    from openai.types.chat import ChatCompletion

    response = _object(row, "response")
    if response.get("status_code") != 200:
        raise _LineError(row)
    try:
        return llm._record(request, key, ChatCompletion.construct(**response["body"]))
    except (AttributeError, KeyError, TypeError, ValueError):
        raise _LineError({"error": {"message": "its reply cannot be read"}}) from None


def _object(row: dict, name: str) -> dict:
    value = row.get(name)
    return value if isinstance(value, dict) else {}


def _some(causes: list[str]) -> str:
    said = "; ".join(str(cause).strip().rstrip(".") for cause in causes[:3]) or "no reason given"
    return said + (f"; {len(causes) - 3:,} more" if len(causes) > 3 else "")
