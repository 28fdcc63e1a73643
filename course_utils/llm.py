"""The client: many requests to an OpenAI-compatible server, each paid for once.

A server is a `base_url` and a model name, so the same code talks to OpenAI, to vLLM, to
`transformers serve` and to this course's simulation. To the openai package it adds what a long and
costly job needs:

- several requests at once, the replies in the order of the requests (so that what is made from them
  does not depend on the network's mood);
- retries with growing pauses, for what may pass (429, 5xx, timeouts, a broken line), and one clear
  sentence at once for what will not (a refused key, an unknown model, a spent budget);
- a journal (journal.py) that holds every reply before anyone sees it;
- a plan that says what a job will cost before anything is spent, and a budget that stops it.

Threads, not asyncio: a notebook already runs an event loop. Taught in 01, section 5.
"""

import difflib
import email.utils
import hashlib
import json
import math
import os
import random
import re
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from course_utils import CourseError
from course_utils.journal import Journal


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
    """What came back. `text` is None if nothing did, and `error` then says why.

    `usage` counts prompt_tokens and completion_tokens. A request that the server refused as such
    (and would refuse again) has the finish_reason "refused"; one whose retries were spent has None.
    """

    request: Request
    key: str
    text: str | None
    finish_reason: str | None
    usage: dict
    cached: bool
    error: str | None
    model: str


@dataclass(frozen=True)
class Plan:
    """What a list of requests would take: calls to pay for, calls already in the journal,
    tokens of the former (prompt and completion), and their cost in dollars."""

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
    (the first pause before a retry) are seconds. Without `api_key`, OPENAI_API_KEY is used, and no
    key at all for a server on this machine.
    """

    def __init__(self, model: str, *, base_url: str | None = None, api_key: str | None = None,
                 journal=None, workers: int = 8, max_retries: int = 6, timeout: float = 60,
                 price: tuple[float, float] | None = None, budget: float | None = None,
                 backoff: float = 0.5):
        if budget is not None and price is None:
            raise CourseError("A budget needs a price: pass price=(dollars per million prompt "
                              "tokens, dollars per million completion tokens).")
        if workers < 1:
            raise CourseError(f"An LLM needs at least one worker, not {workers}.")
        self.model = model
        self.base_url = (base_url or os.environ.get("OPENAI_BASE_URL")
                         or "https://api.openai.com/v1")
        self.journal = journal if isinstance(journal, Journal) else Journal.open(journal)
        self.workers, self.max_retries, self.timeout = workers, max_retries, timeout
        self.price, self.budget, self.backoff = price, budget, backoff
        self._api_key = api_key
        self._client = None
        self._lock = threading.Lock()
        self._reached = False  # whether the server has ever answered
        self._renamed: dict[str, str | None] = {}  # parameters this model wants otherwise, or not
        self._reserved: dict[str, float] = {}  # the worst case of every request on its way
        own = [record for record in self.journal.records() if record.get("model") == model]
        self.spent = sum(self.cost(record["usage"]) for record in own)
        self._completions = [record["usage"]["completion_tokens"] for record in own]

    def key(self, request: Request) -> str:
        """The name of a request in the journal: SHA-256 of model, messages, params and sample."""
        asked = {"model": self.model, "messages": request.messages, "params": request.params,
                 "sample": request.sample}
        text = json.dumps(asked, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    def plan(self, requests: Iterable[Request]) -> Plan:
        """Estimate what these requests would take; asks nobody and spends nothing.

        A prompt is counted as a token for every 4 ASCII characters, every 1.5 others, and 4 a
        message. A completion as the mean of those in the journal; before there are any, as
        `max_tokens` (so the first plan is the worst case), or 512.
        """
        calls = {}
        total = 0
        for request in requests:
            total += 1
            key = self.key(request)
            if self.journal.get(key) is None:
                calls[key] = self._estimate(request)
        return Plan(len(calls), total - len(calls),
                    sum(sum(usage.values()) for usage in calls.values()),
                    sum(map(self.cost, calls.values())))

    def complete(self, requests: Iterable[Request]) -> Iterator[Reply]:
        """Yield one Reply a request, in the order of the requests, each already in the journal.

        Requests are drawn as needed, at most `workers` in flight, so they may be endless and the
        caller may stop. Closing the generator, or Ctrl-C, waits for the requests on their way,
        whose replies reach the journal, and starts no other. A request that keeps failing gives a
        Reply with an `error`; a refused key, an unknown model, a server that cannot be reached or
        a spent budget raise CourseError.
        """
        requests = iter(requests)
        waiting: deque[tuple[Request, str, Future | None]] = deque()
        running: dict[str, Future] = {}
        halt = _Halt()
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="llm")
        held = next(requests, None)
        try:
            while held or waiting:
                # Look ahead only while something is on its way: when the journal has all that the
                # caller will take, nothing is sent.
                while held and (not waiting or len(waiting) < self.workers
                                and any(future for _, _, future in waiting)):
                    key = self.key(held)
                    future = running.get(key)
                    if future is None and self.journal.get(key) is None:
                        self._connect()
                        if not self._reserve(held, key, give_up=not waiting):
                            break  # the budget may do once those on their way are counted
                        future = pool.submit(self._ask, held, key, halt)
                        running[key] = future
                    waiting.append((held, key, future))
                    held = next(requests, None)
                request, key, future = waiting.popleft()
                if future is None:
                    yield self._from_journal(request, key)
                    continue
                first = running.get(key) is future
                running.pop(key, None)
                yield self._outcome(request, key, future, first, halt)
        finally:
            halt.set()
            pool.shutdown(wait=True, cancel_futures=True)
            for key in running:  # those that were cancelled before they began
                self._reserved.pop(key, None)

    def _outcome(self, request: Request, key: str, future: Future, first: bool,
                 halt: "_Halt") -> Reply:
        try:
            failure = future.result()
        except _Halted:
            raise halt.reason from None  # another request met what no retry can cure
        if failure is None:
            return self._from_journal(request, key, cached=not first)
        reason, error = failure
        return Reply(request, key, None, reason, {}, False, error, self.model)

    def _from_journal(self, request: Request, key: str, cached: bool = True) -> Reply:
        record = self.journal.get(key)
        return Reply(request, key, record["text"], record["finish_reason"], record["usage"], cached,
                     None, record.get("served_by") or record["model"])

    # ------------------------------------------------------------ money

    def _estimate(self, request: Request, worst: bool = False) -> dict:
        prompt = 0
        for message in request.messages:
            text = str(message.get("content", ""))
            plain = sum(map(str.isascii, text))
            prompt += 4 + math.ceil(plain / 4 + (len(text) - plain) / 1.5)
        limit = request.params.get("max_completion_tokens") or request.params.get("max_tokens")
        if self._completions and not (worst and limit):
            seen = self._completions
            completion = max(seen) if worst else math.ceil(sum(seen) / len(seen))
        else:
            completion = limit or 512
        return {"prompt_tokens": prompt, "completion_tokens": completion}

    def cost(self, usage: dict) -> float:
        """Dollars for a usage, by the price; 0 without one."""
        if self.price is None:
            return 0.0
        prompt, completion = self.price
        return (usage["prompt_tokens"] * prompt + usage["completion_tokens"] * completion) / 1e6

    def _reserve(self, request: Request, key: str, give_up: bool) -> bool:
        """Set the worst case of a request aside; False if the budget is too small for it now."""
        worst = self.cost(self._estimate(request, worst=True))
        with self._lock:
            aside = sum(self._reserved.values())
            if self.budget is None or self.spent + aside + worst <= self.budget:
                self._reserved[key] = worst
                return True
        if give_up:
            raise BudgetReached(f"The budget of ${self.budget:g} is reached: ${self.spent:.4f} is "
                                f"spent and the next request could cost ${worst:.4f}. Every reply "
                                "so far is kept; raise the budget and run again to go on.")
        return False

    # ------------------------------------------------------------ one request

    def _ask(self, request: Request, key: str, halt: "_Halt") -> tuple[str | None, str] | None:
        """Put the reply into the journal and return None, or return (finish_reason, error)."""
        attempt = 0
        try:
            while True:
                if halt.is_set():
                    raise _Halted
                params = self._adapted(request.params)
                try:
                    # extra_body rather than keywords: servers know parameters that openai does not
                    response = self._client.chat.completions.create(
                        model=self.model, messages=request.messages, extra_body=params)
                    record = self._record(request, key, response)
                except Exception as error:
                    if self._adapt(error, request, params):
                        continue
                    pause = self._pause(error, attempt)
                    if isinstance(pause, tuple):
                        return pause
                    attempt += 1
                    halt.wait(pause)
                else:
                    self.journal.add(record)
                    with self._lock:
                        self._reached = True
                        self._reserved.pop(key, None)
                        self.spent += self.cost(record["usage"])
                        self._completions.append(record["usage"]["completion_tokens"])
                    return None
        except CourseError as error:
            halt.because(error)
            raise
        finally:
            with self._lock:
                self._reserved.pop(key, None)

    def _record(self, request: Request, key: str, response) -> dict:
        choices = getattr(response, "choices", None)
        if not choices:
            raise ValueError("the server's reply holds no choices")
        message = choices[0].message
        text = message.content or getattr(message, "refusal", None) or ""
        text = text.encode("utf-8", "replace").decode("utf-8")  # half an emoji is no UTF-8
        usage = self._estimate(request) | {"completion_tokens": math.ceil(len(text) / 1.5)}
        for name in usage:
            reported = getattr(response.usage, name, None)
            usage[name] = usage[name] if reported is None else reported
        return {"key": key, "model": self.model, "text": text,
                "finish_reason": choices[0].finish_reason, "usage": usage,
                "served_by": response.model,
                "request": {"messages": request.messages, "params": request.params,
                            "sample": request.sample}}

    def _pause(self, error: Exception, attempt: int) -> float | tuple[str | None, str]:
        """Seconds to wait before the next attempt, or the (finish_reason, error) to end with.

        Raises CourseError for what no attempt will cure.
        """
        import openai

        status = getattr(error, "status_code", None)
        code = getattr(error, "code", None)
        said = _said(error)
        if isinstance(error, CourseError):
            raise error
        if status in (401, 403):
            raise CourseError(f"{self.base_url} refused the API key ({status}: {said}): check the "
                              "key and what it is allowed to do.") from None
        if status == 404 or code == "model_not_found":
            raise CourseError(self._unknown_model(said)) from None
        if status == 402 or code == "insufficient_quota":
            raise CourseError(f"The account at {self.base_url} has no credit left ({said}): every "
                              "reply so far is kept; add credit and run again.") from None
        if isinstance(error, openai.APIStatusError):
            self._reached = True
            if status < 500 and status not in (408, 409, 425, 429):
                return "refused", f"the server refused the request ({status}: {said})"
        elif isinstance(error, openai.APIConnectionError):
            patience = min(2, self.max_retries)
            if _never_connected(error) and not self._reached and attempt >= patience:
                raise CourseError(f"Cannot reach {self.base_url}: is the server running, and is "
                                  "the address right?") from None
            said = f"no answer from {self.base_url}: {said}"
        elif not isinstance(error, openai.APIError | ValueError):
            raise error  # a ValueError is a broken body: no JSON, no choices
        wait = _retry_after(error)
        if attempt >= self.max_retries or (wait or 0) > 120:
            asked = f", which asks to wait {wait:.0f} s" if (wait or 0) > 120 else ""
            return None, f"given up after {attempt + 1} attempts{asked}: {said}"
        grown = min(60.0, self.backoff * 2**attempt) * random.uniform(0.75, 1.25)
        return grown if wait is None else wait

    def _unknown_model(self, said: str) -> str:
        try:
            offered = [model.id for model in self._client.models.list()]
        except Exception:
            return (f"{self.base_url} answers 404 ({said}): check the address, which usually ends "
                    "in /v1.")
        closest = difflib.get_close_matches(self.model, offered, 1, 0)
        advice = f'the closest it offers is "{closest[0]}"' if closest else "it offers none at all"
        return f'{self.base_url} does not offer the model "{self.model}": {advice}.'

    # ------------------------------------------------------------ parameters a model refuses

    def _adapted(self, params: dict) -> dict:
        adapted = {}
        with self._lock:
            for name, value in params.items():
                while name in self._renamed:
                    name = self._renamed[name]
                if name is not None:
                    adapted[name] = value
        return adapted

    def _adapt(self, error: Exception, request: Request, sent: dict) -> bool:
        """Learn from a 400 which parameter to rename or leave out; False if that is not its cause.

        What was learned holds for all later requests. The journal's keys are of the request as it
        was asked for, so they stay the same.
        """
        if getattr(error, "status_code", None) not in (400, 422):
            return False
        said = str(getattr(error, "message", error))
        named = [getattr(error, "param", None), *re.findall(r"['\"`](\w+)['\"`]", said)]
        name = next((name for name in named if name in sent), None)
        hint = re.search("unsupported|not support|unknown|unrecognized|not permitted", said,
                         re.IGNORECASE)
        if name is None or not (hint or str(error.code).startswith("unsupported")):
            return False
        other = "max_completion_tokens"
        new = other if name == "max_tokens" and other in said else None
        with self._lock:
            if name not in self._renamed:
                self._renamed[name] = new
                action = f'"{new}" is sent instead' if new else "it is left out from now on"
                print(f'{self.model} does not accept "{name}": {action}.')
        return self._adapted(request.params) != sent

    # ------------------------------------------------------------ the connection

    def _connect(self) -> None:
        if self._client is not None:
            return
        import openai

        local = urlsplit(self.base_url).hostname in ("localhost", "127.0.0.1", "::1")
        key = self._api_key or ("none" if local else os.environ.get("OPENAI_API_KEY"))
        if not key:
            raise CourseError(f"There is no API key for {self.base_url}: set OPENAI_API_KEY, or "
                              "pass base_url for a server that needs none.")
        # A proxy set for the outside world must not be asked for a server on this machine.
        http = openai.DefaultHttpxClient(trust_env=False) if local else None
        self._client = openai.OpenAI(base_url=self.base_url, api_key=key, timeout=self.timeout,
                                     max_retries=0, http_client=http)


class _Halted(Exception):
    """Raised in a worker that must not send another request."""


class _Halt(threading.Event):
    """Tells the workers of one `complete` to send nothing more, and why."""

    reason: CourseError | None = None

    def because(self, error: CourseError) -> None:
        self.reason = self.reason or error
        self.set()


def _said(error: Exception) -> str:
    body = getattr(error, "body", None)
    said = body.get("message") if isinstance(body, dict) else None
    return str(said or error).strip().rstrip(".") or type(error).__name__


def _never_connected(error: BaseException | None) -> bool:
    # By name, because openai 2 is built on httpx and openai 3 on httpx2.
    while error is not None:
        if type(error).__name__ == "ConnectError":
            return True
        error = error.__cause__ or error.__context__
    return False


def _retry_after(error: Exception) -> float | None:
    """Seconds the server asks to wait, from its Retry-After header (a number or a date)."""
    headers = getattr(getattr(error, "response", None), "headers", {})
    try:
        if "retry-after-ms" in headers:
            return max(0.0, float(headers["retry-after-ms"]) / 1000)
        if "retry-after" not in headers:
            return None
        value = headers["retry-after"]
        if re.fullmatch(r"\d+(\.\d+)?", value):
            return float(value)
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError):
        return None
