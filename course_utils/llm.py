"""The client: many requests to an OpenAI-compatible server, each paid for once.

A server is a `base_url` and a model name, so the same code talks to OpenAI, to vLLM, to
`transformers serve` and to this course's simulation. To the openai package it adds what a long and
costly job needs:

- several requests at once, their replies in the order of the requests whatever the network does;
- retries for what may pass, and one clear sentence for what will not (plumbing/connection.py);
- a journal that holds every reply before anyone sees it (plumbing/journal.py);
- a plan that says what a job will cost before anything is spent, and a budget that stops it.

Threads, not asyncio: a notebook already runs an event loop. Taught in 01, section 5.
"""

import hashlib
import json
import math
import re
import threading
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from course_utils import CourseError
from course_utils.plumbing.connection import Connection, ErrorInReply, NoAnswer
from course_utils.plumbing.entries import retirement
from course_utils.plumbing.journal import Journal

_THOUGHT = re.compile(r"\s*(?:<(think(?:ing)?|thought|reasoning)>(?:.*?</\1>|.*\Z)"
                      r"|\[THINK\].*?\[/THINK\])\s*", re.DOTALL | re.IGNORECASE)
_END_OF_THOUGHT = re.compile(r"</think(?:ing)?>[ \t]*(?:\n\s*|\Z)", re.IGNORECASE)


class BudgetReached(CourseError):
    """The next request could cost more than what is left of the budget; it was not sent."""


@dataclass(frozen=True)
class Request:
    """One chat completion: messages, parameters of the API, and which of several equal samples."""

    messages: list[dict]
    params: dict = field(default_factory=dict)
    sample: int = 0


@dataclass(frozen=True)
class Reply:
    """What came back. `text` is None if nothing did; then `error` says why, and `finish_reason` is
    "refused" for a request that the server would always refuse, None where retries were spent.

    `usage` counts prompt_tokens and completion_tokens, `cost` is in dollars.
    """

    request: Request
    key: str
    text: str | None
    finish_reason: str | None
    usage: dict
    cached: bool
    error: str | None
    model: str
    cost: float = 0.0


@dataclass(frozen=True)
class Plan:
    """What requests would take: calls to pay for, calls in the journal, tokens and dollars."""

    calls: int
    cached: int
    tokens: int
    cost: float

    def __str__(self) -> str:
        return (f"{self.calls:,} calls to make ({self.cached:,} already in the journal), "
                f"about {self.tokens:,} tokens, about ${self.cost:.2f}")


class LLM:
    """A model behind an OpenAI-compatible server.

    `price` is dollars per million tokens, (prompt, completion). `budget` is dollars for everything
    this model has in the journal, earlier runs included; it needs a price. `timeout` and `backoff`
    (the first pause before a retry) are seconds, `rpm` is requests a minute: no more are sent.
    `params` go along with every request that does not say otherwise. Without `api_key`,
    OPENAI_API_KEY is used, and no key at all for a server on this machine.
    """

    def __init__(self, model: str, *, base_url: str | None = None, api_key: str | None = None,
                 journal=None, workers: int = 8, rpm: float | None = None,
                 params: dict | None = None, max_retries: int = 6, timeout: float = 60,
                 price: tuple[float, float] | None = None, budget: float | None = None,
                 backoff: float = 0.5):
        if budget is not None and price is None:
            raise CourseError("A budget needs a price: pass price=(dollars per million prompt "
                              "tokens, dollars per million completion tokens).")
        self.connection = Connection(model, base_url, api_key, timeout=timeout,
                                     max_retries=max_retries, backoff=backoff, rpm=rpm)
        self.params = params or {}
        self.model, self.base_url = model, self.connection.base_url
        self.journal = journal if isinstance(journal, Journal) else Journal.open(journal)
        self.workers, self.price, self.budget = workers, price, budget
        self._lock = threading.Lock()
        self._reserved: dict[str, float] = {}  # the worst case of every request on its way
        self._waiting: dict[str, float] = {}  # the same for those in a batch
        records = self.journal.records()
        for other in dict.fromkeys(record.get("model", "") for record in records):
            if other != model and (ended := retirement(other)):
                print(f"This journal has replies of another model. {ended}")
        self.spent = 0.0
        self._completions = Counter()  # how many, their tokens together, and those of the longest
        self._refused: list[str] = []  # what was said of each that was refused
        self._silent = 0  # how many of the latest replies in a row thought and said nothing
        for record in records:
            if record.get("model") == model:
                self._count(record)

    def key(self, request: Request) -> str:
        """The name of a request in the journal: SHA-256 of model, messages, params and sample."""
        asked = {"model": self.model, "messages": request.messages,
                 "params": self.params_of(request), "sample": request.sample}
        text = json.dumps(asked, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    def params_of(self, request: Request) -> dict:
        """The parameters that a request is sent with: its own before those of the LLM."""
        return self.params | request.params

    def plan(self, requests: Iterable[Request]) -> Plan:
        """Estimate what these requests would take; asks nobody and spends nothing.

        A prompt is counted as a token for every 4 ASCII characters, every 1.5 others, and 4 a
        message. A completion as the mean of those in the journal; before there are any, as
        `max_tokens` (so the first plan is the worst case), or 512.
        """
        requests = [(self.key(request), request) for request in requests]
        calls = {key: self.estimate(request) for key, request in requests
                 if self.journal.get(key) is None}
        return Plan(len(calls), len(requests) - len(calls),
                    sum(sum(usage.values()) for usage in calls.values()),
                    sum(map(self.cost, calls.values())))

    def complete(self, requests: Iterable[Request]) -> Iterator[Reply]:
        """Yield one Reply a request, in the order of the requests, each already in the journal.

        Requests are drawn as needed, so they may be endless and the caller may stop: at most
        `workers` are in flight, and at most twice as many ahead of the caller. Closing the
        generator, or Ctrl-C, waits for the requests on their way, whose replies reach the journal,
        and starts no other. A request that keeps failing gives a Reply with an `error`; a refused
        key, an unknown model, a server that cannot be reached, a spent budget or a request that
        waits in a batch raise CourseError.
        """
        requests = iter(requests)
        self.waiting()
        queue: deque[tuple[Request, str, Future | None]] = deque()
        running: dict[str, Future] = {}
        halt = _Halt()
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="llm")
        held = next(requests, None)
        try:
            while held or queue:
                # Look ahead only while something is on its way: when the journal has all that the
                # caller will take, nothing is sent.
                while held and (not queue or len(queue) < 2 * self.workers
                                and any(future for _, _, future in queue)):
                    key = self.key(held)
                    future = running.get(key)
                    if future is None and self.journal.get(key) is None:
                        self.connection.client()
                        try:
                            self._reserve(held, key)
                        except CourseError:
                            if queue:
                                break  # those on their way come first: then it may be sent
                            self._refused = []  # whoever runs the cell again begins anew
                            raise
                        future = pool.submit(self._ask, held, key, halt)
                        running[key] = future
                    queue.append((held, key, future))
                    held = next(requests, None)
                request, key, future = queue.popleft()
                if future is None:
                    yield self._from_journal(request, key)
                    continue
                try:
                    failure = future.result()
                except _Halted:
                    raise halt.reason from None  # another request met what no retry can cure
                again = running.pop(key, None) is not future  # asked for twice, and paid for once
                if failure is None:
                    yield self._from_journal(request, key, cached=again)
                else:
                    yield Reply(request, key, None, failure.finish_reason, {}, False, str(failure),
                                self.model)
            self._check_refusals()
        finally:
            halt.set()
            pool.shutdown(wait=True, cancel_futures=True)
            for key in running:  # those that were cancelled before they began
                self._reserved.pop(key, None)

    def _from_journal(self, request: Request, key: str, cached: bool = True) -> Reply:
        record = self.journal.get(key)
        return Reply(request, key, record["text"], record["finish_reason"], record["usage"], cached,
                     None, record.get("served_by") or record["model"], self.paid(record))

    def estimate(self, request: Request, worst: bool = False) -> dict:
        """The usage that a request may have, or at worst will have, as `plan` counts it."""
        prompt = 0
        for message in request.messages:
            text = str(message.get("content", ""))
            plain = len(text.encode("ascii", "ignore"))
            prompt += 4 + math.ceil(plain / 4 + (len(text) - plain) / 1.5)
        params = self.params_of(request)
        limit = params.get("max_completion_tokens") or params.get("max_tokens")
        seen = self._completions
        if seen["number"] and not (worst and limit):
            completion = seen["longest"] if worst else math.ceil(seen["tokens"] / seen["number"])
        else:
            completion = limit or 512
        return {"prompt_tokens": prompt, "completion_tokens": completion}

    def cost(self, usage: dict) -> float:
        """Dollars for a usage, by the price; 0 without one."""
        prompt, completion = self.price or (0, 0)
        return (usage["prompt_tokens"] * prompt + usage["completion_tokens"] * completion) / 1e6

    def paid(self, record: dict) -> float:
        """Dollars that a record of the journal has cost; in a batch it was cheaper."""
        return self.cost(record["usage"]) * record.get("price_factor", 1)

    def waiting(self) -> dict[str, float]:
        """Of each key that waits in a batch, the most that it may yet cost in dollars."""
        self._waiting = {
            key: self.cost(self.estimate(Request(*asked), worst=True)) * batch["price_factor"]
            for batch in self.journal.waiting(self.model, self.base_url)
            for key, asked in batch["requests"].items()}
        return self._waiting

    def check_budget(self, worst: float, what: str = "the next request") -> None:
        """Raise BudgetReached if so many dollars more than are spent or set aside are too many."""
        aside = sum(self._reserved.values()) + sum(self._waiting.values())
        if self.budget is not None and self.spent + aside + worst > self.budget:
            raise BudgetReached(f"The budget of ${self.budget:g} is reached: ${self.spent:.4f} is "
                                f"spent, ${aside:.4f} set aside for what is on its way, and {what} "
                                f"could cost ${worst:.4f}. Raise the budget and run again.")

    def _count(self, record: dict) -> None:
        tokens = record["usage"]["completion_tokens"]
        self.spent += self.paid(record)
        self._completions.update(number=1, tokens=tokens)
        end = record.get("finish_reason")
        silent = not record.get("text") and (end == "length" or (end == "stop" and tokens >= 50))
        self._silent = self._silent + 1 if silent else 0
        self._completions["longest"] = max(self._completions["longest"], tokens)

    def keep(self, record: dict) -> None:
        """Put a reply into the journal, once, and count what it cost."""
        new = self.journal.get(record["key"]) is None
        self.journal.add(record)
        if not new:
            return
        with self._lock:
            self._count(record)
            silent = self._silent
        if silent >= 3 and not record["text"]:
            raise CourseError(
                f"The last {silent} replies of {self.model} are empty: all their tokens went into "
                "reasoning. Switch it off with params={'reasoning_effort': 'none'}, or as its "
                "provider calls it, or raise max_tokens.")

    def _check_refusals(self) -> None:
        """Raise CourseError where nothing but refusals came: it is not this one request."""
        if len(self._refused) >= 3 and not self._completions["number"]:
            raise CourseError(f"{self.base_url} refused the first {len(self._refused)} requests, "
                              f"and answered none: {self._refused[-1]}.")

    def _reserve(self, request: Request, key: str) -> None:
        """Set the worst case of a request aside, or raise CourseError if it cannot be sent now."""
        if key in self._waiting:
            raise CourseError("The next request is on its way in a batch and would be paid for "
                              "twice: collect it first, with course_utils.sources.batch.collect.")
        self._check_refusals()
        worst = self.cost(self.estimate(request, worst=True))
        with self._lock:
            self.check_budget(worst)
            self._reserved[key] = worst

    def _ask(self, request: Request, key: str, halt: "_Halt") -> NoAnswer | None:
        """Put the reply into the journal, or return why there is none."""
        def send(client, params):
            halt.pause(0)
            # extra_body rather than keywords: servers know parameters that openai does not
            response = client.chat.completions.create(
                model=self.model, messages=request.messages, extra_body=params)
            return self.record(request, key, response)

        try:
            try:
                record = self.connection.call(send, self.params_of(request), wait=halt.pause)
            except NoAnswer as end:
                if end.finish_reason == "refused":
                    self._refused.append(str(end))
                return end
            self.keep(record)
        except CourseError as error:
            halt.reason = halt.reason or error
            halt.set()
            raise
        finally:
            with self._lock:
                self._reserved.pop(key, None)

    def record(self, request: Request, key: str, response) -> dict:
        """The journal's record of a response. Raises ValueError if it holds no reply."""
        if error := getattr(response, "error", None):
            raise ErrorInReply(error)
        try:
            choice = response.choices[0]
            message = choice.message
            refusal = getattr(message, "refusal", None) or ""
            text = _answer(message.content) or _answer(refusal)
        except (AttributeError, IndexError, KeyError, TypeError):
            raise ValueError("the server's reply holds no message") from None
        if choice.finish_reason == "error":
            raise ValueError("the server broke its reply off (finish_reason error)")
        text = text.encode("utf-8", "replace").decode("utf-8")  # half an emoji is no UTF-8
        usage = self.estimate(request) | {"completion_tokens": math.ceil(len(text) / 1.5)}
        for name in usage:
            reported = getattr(getattr(response, "usage", None), name, None)
            if type(reported) is int and reported >= 0:
                usage[name] = reported
        return {"key": key, "model": self.model, "text": text,
                "finish_reason": choice.finish_reason, "usage": usage,
                "served_by": getattr(response, "model", None),
                "system_fingerprint": getattr(response, "system_fingerprint", None),
                "refusal": getattr(message, "refusal", None),
                "request": {"messages": request.messages, "params": self.params_of(request),
                            "sample": request.sample}}


def _answer(content) -> str:
    """The text of a reply without what the model thought aloud: parts of a list, or what stands
    before the answer, between <think> and </think>, of which the first may be missing. A tag that
    the answer speaks of stays."""
    if isinstance(content, list):
        parts = [{"text": part} if isinstance(part, str) else part for part in content]
        content = "".join(part.get("text") or "" for part in parts if not part.get("thought")
                          and part.get("type") not in ("thinking", "thought", "reasoning"))
    text = content or ""
    while thought := _THOUGHT.match(text):
        text = text[thought.end():]
    if (end := _END_OF_THOUGHT.search(text)) and not _THOUGHT.search(text[:end.start()]):
        return text[end.end():]
    return text


class _Halted(Exception):
    """Raised in a worker that must not send another request."""


class _Halt(threading.Event):
    """Tells the workers of one `complete` to send nothing more, and why."""

    reason: CourseError | None = None

    def pause(self, seconds: float) -> None:
        if self.wait(seconds):
            raise _Halted
