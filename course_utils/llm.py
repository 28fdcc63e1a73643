"""The client: many requests to an OpenAI-compatible server, each paid for once.

A server is a `base_url` and a model name, so the same code talks to OpenAI, to vLLM, to
`transformers serve` and to this course's simulation. To the openai package it adds what a long and
costly job needs:

- several requests at once, their replies in the order of the requests whatever the network does;
- retries for what may pass, and one clear sentence for what will not (plumbing/connection.py);
- a journal that holds every reply before anyone sees it (plumbing/journal.py);
- a plan that says what a job will cost before anything is spent, and a budget that stops it.

Threads, not asyncio: a notebook already runs an event loop. Taught in 01, section 6.
"""

import hashlib
import json
import math
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from copy import copy
from dataclasses import dataclass, field

from course_utils import CourseError
from course_utils.plumbing.connection import Connection, NoAnswer
from course_utils.plumbing.entries import retirement
from course_utils.plumbing.journal import Journal
from course_utils.plumbing.reply import read, reported

LOST = "lost"  # how a reply ends that was billed and holds no message


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

    `usage` counts prompt_tokens and completion_tokens, `cost` is in dollars. What broken replies
    before it were billed for stands in `LLM.spent` alone.
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
        self.spent = 0.0
        self._lock = threading.Lock()
        self._reserved: dict[str, float] = {}  # the worst case of every request on its way
        self._waiting: dict[str, float] = {}  # the same for those in a batch
        self._seen = Counter()  # how many replies, their tokens, those of their prompts, our guess
        self._most = {"longest": 0, "prompt": 1.0, "limit": 1.0}  # in tokens, guesses and limits
        self._refused: list[str] = []  # what was said of each that was refused
        self._silent = 0  # how many of the latest replies in a row said nothing
        others = set()
        for record in self.journal.records(requests=False):
            if record.get("model") != model:
                others.add(record.get("model", ""))
            elif "usage" in record:
                self._count(record)
        for ended in filter(None, map(retirement, sorted(others))):
            print(f"This journal has replies of another model. {ended}")

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
        message, or as many times that as the server reported of earlier ones. A completion as the
        mean of those in the journal; before there are any, as `max_tokens` (so the first plan is
        the worst case), or 512.
        """
        requests = [(self.key(request), request) for request in requests]
        calls = {key: self.estimate(request) for key, request in requests
                 if key not in self.journal}
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
        self.journal.catch_up()  # what found no room on the disk before
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
                    if future is None and key not in self.journal:
                        if not self._may_send(held, key, alone=not queue):
                            break
                        future = running[key] = pool.submit(self._ask, held, key, halt)
                        # One that is cancelled before it began will not give it back itself.
                        future.add_done_callback(
                            lambda end, key=key: end.cancelled() and self._release(key))
                    queue.append((held, key, future))
                    held = next(requests, None)
                request, key, future = queue.popleft()
                failure = future and future.result()
                cached = running.pop(key, None) is None  # asked for twice, it is paid for once
                if failure:
                    yield Reply(request, key, None, failure.finish_reason, {}, False, str(failure),
                                self.model)
                else:
                    record = self.journal.get(key)
                    yield Reply(request, key, record["text"], record["finish_reason"],
                                record["usage"], cached, None,
                                record.get("served_by") or record["model"], self.paid(record))
            self._check_refusals()
        finally:
            halt.set()
            pool.shutdown(wait=True, cancel_futures=True)

    def estimate(self, request: Request, worst: bool = False) -> dict:
        """The usage that a request may have, or at worst will have, as `plan` counts it."""
        guess, seen, most = self._guess(request), self._seen, self._most
        limit = guess["completion_tokens"]
        if worst:
            # Who counts otherwise than we do may do so by more the next time; and without a limit
            # a reply may become longer than any before.
            times = 1.25 * most["prompt"] if most["prompt"] > 1 else 1
            over = 1.25 * most["limit"] if most["limit"] > 1 else 1
            completion = limit * over or 2 * most["longest"]
        else:
            times = max(1, seen["prompt"] / max(1, seen["guess"]))
            completion = seen["completion"] / seen["replies"] if seen["replies"] else limit
        return {"prompt_tokens": math.ceil(guess["prompt_tokens"] * times),
                "completion_tokens": math.ceil(completion) or 512}

    def _guess(self, request: Request) -> dict:
        """The tokens of a prompt by its characters, and the limit of its completion, 0 for none."""
        prompt = 0
        for message in request.messages:
            text = str(message.get("content", ""))
            plain = len(text.encode("ascii", "ignore"))
            prompt += 4 + math.ceil(plain / 4 + (len(text) - plain) / 1.5)
        params = self.params_of(request)
        limit = params.get("max_completion_tokens") or params.get("max_tokens")
        return {"prompt_tokens": prompt, "completion_tokens": limit if type(limit) is int else 0}

    def cost(self, usage: dict) -> float:
        """Dollars for a usage, by the price; 0 without one, and never less."""
        prompt, completion = self.price or (0, 0)
        return max(0.0, usage["prompt_tokens"] * prompt
                   + usage["completion_tokens"] * completion) / 1e6

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
        self.spent += self.paid(record)
        if record.get("finish_reason") == LOST:
            return
        prompt, completion = map(record["usage"].get, ("prompt_tokens", "completion_tokens"))
        self._seen.update(replies=1, completion=completion)
        most = {"longest": completion}
        if guess := record.get("guessed"):
            self._seen.update(prompt=prompt, guess=guess["prompt_tokens"])
            most["prompt"] = prompt / max(1, guess["prompt_tokens"])
            most["limit"] = completion / (guess["completion_tokens"] or math.inf)
        self._most |= {name: max(self._most[name], most[name]) for name in most}
        self._silent = 0 if (record.get("text") or "").strip() else self._silent + 1

    def keep(self, record: dict) -> None:
        """Put a reply into the journal, once, and count what it cost."""
        with self._lock:
            if record["key"] not in self.journal:
                self._count(record)  # first: one that finds no room on the disk is paid for as well
        self.journal.add(record)

    def lose(self, request: Request, key: str, response, when: object, factor: float = 1) -> None:
        """Count, in the journal too, what was billed for a response without an answer."""
        if usage := self.billed(request, response):
            self.keep({"key": f"{key}/{LOST}/{when}", "model": self.model, "text": "",
                       "finish_reason": LOST, "usage": usage, "price_factor": factor})

    def _check_silence(self, record: dict) -> None:
        """Raise CourseError where one reply after the other is empty: the next would be, too."""
        end, told = record["finish_reason"], record["usage"]["completion_tokens"]
        thought = end == "length" or (end == "stop" and told >= 50)
        if not record["text"].strip() and self._silent >= (3 if thought else 10):
            raise CourseError(
                f"The last {self._silent} replies of {self.model} are empty: finish_reason {end}. "
                "If they went into reasoning, switch it off with params={'reasoning_effort': "
                "'none'}, or as its provider calls it, or raise max_tokens.")

    def _check_refusals(self, last: bool = True) -> None:
        """Raise CourseError where nothing but refusals came: it is not this one request."""
        if len(refused := self._refused) >= 3 and not self._seen["replies"]:
            if last:
                self._refused = []  # whoever runs the cell again begins anew
            raise CourseError(f"{self.base_url} refused the first {len(refused)} requests, "
                              f"and answered none: {refused[-1]}.")

    def _may_send(self, request: Request, key: str, alone: bool) -> bool:
        """Set aside what a request may cost, or return False where it has to wait for those on
        their way. Raises CourseError where it is alone and cannot be sent."""
        if not alone and self.budget is not None and not self._seen["guess"]:
            return False  # until one is answered nobody knows how its tokens are counted
        try:
            self._check_refusals(last=alone)
            self.connection.client()
            self._reserve(request, key)
        except CourseError:
            if alone:
                raise
            return False
        return True

    def _reserve(self, request: Request, key: str) -> None:
        """Set the worst case of a request aside. Raises CourseError if it cannot be sent now."""
        if key in self._waiting:
            raise CourseError("The next request is on its way in a batch and would be paid for "
                              "twice: collect it first, with course_utils.sources.batch.collect.")
        worst = self.cost(self.estimate(request, worst=True))
        with self._lock:
            self._reserved.pop(key, None)
            self.check_budget(worst)
            self._reserved[key] = worst

    def _ask(self, request: Request, key: str, halt: "_Halt") -> NoAnswer | None:
        """Put the reply into the journal, or return why there is none."""
        broken = []  # replies without a message; what was billed for them is spent

        def send(client, params):
            halt.pause(0)
            if broken:
                self._reserve(request, key)
            # extra_body rather than keywords: servers know parameters that openai does not
            response = client.chat.completions.create(
                model=self.model, messages=request.messages, extra_body=params)
            try:
                return self.record(request, key, response)
            except ValueError:
                broken.append(response)
                self.lose(request, key, response, time.time_ns())
                raise

        try:
            record = self.connection.call(send, self.params_of(request), wait=halt.pause)
            self.keep(record)
            self._check_silence(record)
        except NoAnswer as end:
            if end.finish_reason == "refused":
                self._refused.append(str(end))
            return end
        except CourseError as error:
            if not halt.is_set():
                halt.reason = error
            halt.set()
            raise
        finally:
            self._release(key)

    def _release(self, key: str) -> None:
        with self._lock:
            self._reserved.pop(key, None)

    def record(self, request: Request, key: str, response) -> dict:
        """The journal's record of a response. Raises ValueError if it holds no reply."""
        said = read(response)
        return {"key": key, "model": self.model, **said,
                "usage": self.billed(request, response, said["text"]),
                "guessed": self._guess(request),
                "request": {"messages": request.messages, "params": self.params_of(request),
                            "sample": request.sample}}

    def billed(self, request: Request, response, text: str = "") -> dict:
        """The usage of a response; {} for a page or an error, which nobody bills. What is not
        reported counts as the most that it may be, so that no budget is exceeded."""
        if (told := reported(response)) is None:
            return {}
        usage = self._guess(request)
        usage["completion_tokens"] = usage["completion_tokens"] or max(512, len(text))
        return usage | {name: count for name, count in zip(usage, told, strict=True)
                        if count is not None}


class _Halt(threading.Event):
    """Tells the workers of one `complete` to send nothing more, and why."""

    reason = CourseError("Nobody asks for more.")

    def pause(self, seconds: float) -> None:
        if self.wait(seconds):
            raise copy(self.reason)  # each thread adds its own lines to what it raises
