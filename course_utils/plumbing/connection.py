"""The way to a model on an OpenAI-compatible server, and what to make of each of its errors.

An error may pass (429, 5xx, a timeout, a broken line): then there is a pause, and another attempt.
(The openai package retries as well, but knows neither turns nor delays that stand in a body.) It
may concern one request alone: NoAnswer. It may name a parameter that this model wants otherwise:
that is learned once, for all later requests. Or it stays whatever one does (a refused key, an
unknown model, an account without credit): CourseError, in one sentence.
"""

import difflib
import json
import os
import random
import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from email.utils import mktime_tz, parsedate_tz
from typing import Any
from urllib.parse import urlsplit

from course_utils import CourseError
from course_utils.plumbing.entries import retirement
from course_utils.plumbing.scrub import remember, scrub
from course_utils.plumbing.secrets import checked

LONGEST_WAIT = 120  # seconds: for more patience than that, the cell is run again later

_DELAY = re.compile(r"(?:retryDelay\W+|\b(?:retry|again) (?:in|after) )"
                    r"((?:\d+(?:\.\d+)? ?[a-z]* ?)+)", re.IGNORECASE)
_UNITS = {"ms": 0.001, "milli": 0.001, "s": 1, "": 1, "m": 60, "h": 3600, "d": 86_400}
_DAILY = re.compile(r"(?:per|by|for|each)[ _-]?(?:to)?day\b|per(?:day|week|month)per|daily|weekly|"
                    r"monthly|\b[RT]PD\b|24 ?h", re.IGNORECASE)
_ADDRESS = re.compile(r"https?://(\[[\da-f:]+\]|[^\s:/?\[\]]+)(:\d+)?(/[!-~]*)?", re.IGNORECASE)
_WRONG_KEY = re.compile("API_KEY_INVALID|API key (?:not valid|expired)", re.IGNORECASE)
_NOT_ALLOWED = re.compile("location is not supported|billing", re.IGNORECASE)
_NOT_TAKEN = re.compile("unsupported|not support|unknown|unrecognized|unexpected|not permitted|"
                        "validation error|must be one of", re.IGNORECASE)

_next_turn: dict[str, float] = {}  # when an address may be asked next, whoever asks it
_turns = threading.Lock()


class NoAnswer(CourseError):
    """A request stays without an answer: `finish_reason` is "refused" if it always would, or None
    if its attempts are spent."""

    def __init__(self, finish_reason: str | None, message: str):
        super().__init__(message)
        self.finish_reason = finish_reason


class Missing(NoAnswer):
    """The server has nothing at an address (404)."""


class ErrorInReply(ValueError):
    """An error that came as a reply, with its status inside; in the form of openai's own errors."""

    def __init__(self, error: Any, status: int | None = None):
        fields = error if isinstance(error, dict) else {}
        fields = fields["error"] if isinstance(fields.get("error"), dict) else fields
        self.body, self.code, self.param = {"error": error}, fields.get("code"), fields.get("param")
        self.status_code = status or (int(self.code) if str(self.code).isdigit() else 500)
        super().__init__(_message(error) or self.code or "an error without a word")


class Connection:
    """One model at one address; see `LLM` for the parameters."""

    def __init__(self, model: str, base_url: str | None, api_key: str | None, *,
                 timeout: float = 60, max_retries: int = 6, backoff: float = 0.5,
                 rpm: float | None = None):
        default = os.environ.get("OPENAI_BASE_URL") or "https://api.openai.com/v1"
        # Without its last slash: the same address has the same turns, and the same batches.
        self.model, self.base_url = model, (base_url or default).strip().rstrip("/")
        self.timeout, self.max_retries, self.backoff = timeout, max_retries, backoff
        if "@" in self.base_url.rpartition("://")[2].partition("/")[0]:
            raise CourseError("The address of the server holds a user name or a password, which "
                              "would be shown and stored: put it into LLM_API_KEY instead.")
        if not _ADDRESS.fullmatch(self.base_url):
            raise CourseError(f"{self.base_url!r} is no address of a server, such as "
                              "http://127.0.0.1:8000/v1.")
        remember(api_key)
        self._api_key, self._client = api_key, None
        self._distance = 60 / rpm if rpm else 0.0  # seconds between two requests
        self._reached = False  # whether the server has ever answered
        self._renamed: dict[str, str | None] = {}  # parameters this model wants otherwise, or not
        self._lock = threading.Lock()

    def client(self):
        """The openai client, made when first needed. Raises CourseError without a key."""
        if self._client is None:
            import openai

            address = urlsplit(self.base_url)
            local = address.hostname in ("localhost", "127.0.0.1", "::1")
            key = self._api_key or ("none" if local else os.environ.get("OPENAI_API_KEY"))
            if not key:
                raise CourseError(f"There is no API key for {self.base_url}: set OPENAI_API_KEY, "
                                  "or pass base_url for a server that needs none.")
            checked(key, f"The API key for {self.base_url}")
            http = None
            if local:  # a proxy for the outside world must not be asked, nor certificates be read
                secure = address.scheme == "https"
                http = openai.DefaultHttpxClient(trust_env=False, verify=secure)
            self._client = openai.OpenAI(base_url=self.base_url, api_key=key, max_retries=0,
                                         timeout=self.timeout, http_client=http)
        return self._client

    def call(self, ask: Callable[[Any, dict], Any], params: dict | None = None, *,
             missing: str = "", wait: Callable[[float], object] = time.sleep,
             timeout: float | None = None) -> Any:
        """What `ask(client, params)` returns, asked again while its errors may pass.

        `params` arrive as this model wants them; `wait` is called with seconds, and an attempt has
        `timeout` of them in all. Raises NoAnswer where this request has no answer, CourseError
        where none would have one, and Missing, with the sentence `missing`, for an address that is
        not there.
        """
        client, attempt = self.client(), 0
        while True:
            while pause := self._turn():
                wait(pause)
            sent = self.adapted(params or {})
            try:
                answer = within(timeout or self.timeout, ask, client, sent)
                self._reached = True  # from now on, losing the server may pass
                return answer
            except Exception as failed:
                error = failed
            # Out here, so that no sentence is shown with the library's own error above it.
            if missing and getattr(error, "status_code", None) in (404, 405, 501):
                raise Missing("refused", missing)
            if not self.learn(error, sent):
                wait(self._pause(error, attempt))
                attempt += 1

    def _turn(self) -> float:
        """Take the turn to send a request and return 0, or return the seconds until the next one.
        Turns are even, so that no minute of the provider's, wherever it begins, has too many."""
        with _turns:
            now, due = time.monotonic(), _next_turn.get(self.base_url, 0.0)
            if now >= due:
                _next_turn[self.base_url] = now + self._distance
            return max(0.0, due - now)

    def _pause(self, error: Exception, attempt: int) -> float:
        """Seconds until the next attempt; raises NoAnswer or CourseError if there must be none."""
        import openai

        if isinstance(error, CourseError):
            raise error
        status, said, body = getattr(error, "status_code", None), _said(error), _body(error)
        self._stop(status, said, body)
        if status is not None:
            self._reached = True
            if status < 500 and status not in (408, 409, 425, 429):
                raise NoAnswer("refused", f"the server refused the request ({status}: {said})")
        elif isinstance(error, openai.APIConnectionError | TimeoutError):
            # By name, because openai 2 is built on httpx and openai 3 on httpx2.
            never = type(error.__cause__).__name__ in ("ConnectError", "ConnectTimeout")
            if never and not self._reached and attempt >= min(2, self.max_retries):
                raise CourseError(f"Cannot reach {self.base_url}: does the server run there?")
            said = f"no answer from {self.base_url}: {said}"
        elif isinstance(error, UnicodeEncodeError):
            raise NoAnswer("refused", f"the request holds half of a character ({error})")
        elif isinstance(error, json.JSONDecodeError | UnicodeDecodeError | RecursionError):
            said = f"what {self.base_url} sent is no JSON (a page for people, or half of a reply)"
        elif not isinstance(error, openai.APIError | ValueError):
            raise error  # a ValueError is a reply without a message
        wait = retry_after(error)
        quotas = re.findall(r'quotaId\W+(\w+)', body)  # where they are named, their names decide
        daily = status == 429 and _DAILY.search(" ".join(quotas) or body)
        if daily or (wait or 0) > LONGEST_WAIT:
            what = "Today's quota is used up" if daily else f"No request for {wait:.0f} s"
            raise CourseError(f"{what} at {self.base_url} ({said}): every reply so far is kept; "
                              "run this cell again later, or with another endpoint.")
        if attempt >= self.max_retries:
            raise NoAnswer(None, f"given up after {attempt + 1} attempts: {said}")
        if not wait or wait < 0:  # no delay at all would only be refused again
            return min(60.0, self.backoff * 2**attempt) * random.uniform(0.75, 1.25)
        if status == 429:
            with _turns:  # the others would only be told the same
                due = _next_turn.get(self.base_url, 0.0)
                _next_turn[self.base_url] = max(due, time.monotonic() + wait)
        return wait

    def _stop(self, status: int | None, said: str, body: str) -> None:
        """Raise CourseError for what no attempt of any request would cure."""
        if "pinned to" in said:  # transformers serve, which has but one model
            raise CourseError(f'{self.base_url} does not offer the model "{self.model}": {said}.')
        if status == 404 or '"model_not_found"' in body:
            raise CourseError(self._not_found(said))
        # Gemini answers 400 to a wrong key.
        if status == 401 or (status == 400 and _WRONG_KEY.search(body)):
            raise CourseError(f"{self.base_url} refused the API key ({status}: {said}): check it.")
        flagged = re.search("moderat|flagged|safety", said, re.IGNORECASE)  # this one request
        if (status == 403 and not flagged) or (status == 400 and _NOT_ALLOWED.search(said)):
            raise CourseError(f"{self.base_url} does not let this account ask ({status}: {said}): "
                              "settle it there, or take another endpoint.")
        if status == 402 or '"insufficient_quota"' in body:
            raise CourseError(f"The account at {self.base_url} has no credit left ({said}): every "
                              "reply so far is kept; add credit and run again.")

    def _not_found(self, said: str) -> str:
        """Say in a sentence why a server answers 404: its model, its address, or its own words."""
        try:
            offered = within(self.timeout, lambda: [
                model.id for model in self.client().models.list()
                if isinstance(model.id, str) and model.id.isprintable()])
        except Exception:
            return f"{self.base_url} answers 404 ({said}): check it; most addresses end in /v1."
        if any(name == self.model or name.endswith(f"/{self.model}") for name in offered):
            return f'{self.base_url} offers "{self.model}" and yet answers 404: {said}.'
        closest = difflib.get_close_matches(self.model, offered, 1, 0) or ["nothing"]
        why = retirement(self.model) or f'the closest it offers is "{closest[0]}".'
        return f'{self.base_url} does not offer the model "{self.model}": {why} It says: {said}.'

    def adapted(self, params: dict) -> dict:
        """The parameters as this model wants them, by what was learned so far."""
        adapted = {}
        for name, value in params.items():
            while name in self._renamed:
                name = self._renamed[name]
            if name is not None:
                adapted[name] = value
        return adapted

    def learn(self, error: Exception, sent: dict) -> bool:
        """Learn from a 400 which parameter to rename or leave out in all later requests (whose keys
        in a journal stay the same); False if that is not its cause."""
        status, said = getattr(error, "status_code", None), _said(error)
        # llama-cpp-python's server answers 500 where its form does not know a value.
        if status not in (400, 422) and not (status == 500 and "validation error" in said):
            return False
        # Named by itself, in quotes, or where a form says which of its fields it means.
        named = [getattr(error, "param", None), *re.findall(r"['\"`](\w+)['\"`]", said)]
        for place in re.findall(r'"loc"\s*:\s*\[([^\]]*)\]', _body(error)):
            named += re.findall(r"\w+", place)
        named += [name for name in sent if _is_meant(name, said)]
        name = next((name for name in named if name in sent), None)
        known = _NOT_TAKEN.search(said) or str(error.code).startswith("unsupported")
        if name is None or not known:
            return False
        other = "max_completion_tokens"
        new = other if name == "max_tokens" and other in said else None
        with self._lock:
            if name not in self._renamed:
                self._renamed[name] = new
                action = f'"{new}" is sent instead' if new else "it is left out from now on"
                print(f'{self.model} does not accept "{name}": {action}.')
        return self.adapted(sent) != sent


def within(seconds: float, ask: Callable[..., Any], *arguments: Any) -> Any:
    """What `ask` returns, or TimeoutError: httpx's own limit is for each read, and a server that
    drips would hold a request for as long as it likes. Here its thread is left behind."""
    answer: Future[Any] = Future()

    def run() -> None:
        try:
            answer.set_result(ask(*arguments))
        except BaseException as error:
            answer.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    try:
        return answer.result(seconds)
    except TimeoutError:
        if answer.done():
            raise
        raise TimeoutError(f"no whole answer within {seconds:g} s") from None


def _is_meant(name: str, said: str) -> bool:
    """Whether a sentence is about a parameter: "seed" alone may be any word of it."""
    words = name.replace("_", "[_ ]")
    about = rf"\b{words}\b" if "_" in name else (
        rf"(?:parameter|argument|field|supplied)s?:? {words}\b|\b{words} (?:is|does|are) not|"
        rf"\b{words} must be")
    return bool(re.search(about, said, re.IGNORECASE))


def _body(error: Exception) -> str:
    """What the server sent with an error, as text; not every version of openai keeps all of it."""
    try:
        return error.response.text
    except Exception:  # no response, or one that was not read
        body = getattr(error, "body", None) or ""
        return body if isinstance(body, str) else json.dumps(body, ensure_ascii=False)


def _said(error: Exception) -> str:
    """An error in the server's own words, on one line."""
    body, status = _body(error).strip(), getattr(error, "status_code", None)
    said = scrub(_message(body) or body or (f"{status}, without a word" if status else str(error)))
    if "<html" in said.lower():  # a page for people, from a server on the way
        said = re.sub(r"<[^>]*>", " ", said)
    said = "".join(filter(str.isprintable, " ".join(said.split())))
    return said[:300].rstrip(".") or type(error).__name__


def _message(body: Any) -> str:
    """The message in a body: OpenAI's `error`, FastAPI's `detail`, Gemini's list, a proxy's JSON in
    a string."""
    if isinstance(body, str):
        try:
            return _message(json.loads(body)) if body.lstrip()[:1] in ("{", "[") else body
        except (ValueError, RecursionError):
            return body
    if isinstance(body, list):
        return next(filter(None, map(_message, body)), "")
    if not isinstance(body, dict):
        return ""
    found = _message([body.get(name) for name in ("error", "errors", "message", "detail", "msg")])
    # OpenRouter's own message is "Provider returned error"; what the provider said is in `raw`.
    metadata = body.get("metadata")
    raw = _message(metadata.get("raw")) if isinstance(metadata, dict) else ""
    return f"{found}: {raw}" if raw else found


def retry_after(error: Exception) -> float | None:
    """Seconds that a server asks to wait, in a header or in its body's words: Gemini says
    "retryDelay": "37s", Groq "try again in 7m12.5s"."""
    headers = getattr(getattr(error, "response", None), "headers", {})
    header = headers.get("retry-after", "")
    if date := parsedate_tz(header):
        return mktime_tz(date) - time.time()
    asked = f"retry after {headers.get('retry-after-ms', '')} ms; retry after {header} s; "
    if not (found := _DELAY.search(asked + _body(error))):
        return None
    seconds = 0.0
    for number, unit in re.findall(r"(\d+(?:\.\d+)?) ?([a-z]*)", found[1], re.IGNORECASE):
        known = [u for u in _UNITS if unit.lower().startswith(u)]
        seconds += float(number) * _UNITS[max(known, key=len)]
    return seconds
