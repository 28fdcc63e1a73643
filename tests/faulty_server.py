"""The simulated API as it must not be: limits, errors, broken replies, refused parameters.

    python -m tests.faulty_server --port 0 --faults 0.2 --fault-kinds 429,drop --log requests.jsonl

Everything else is course_utils.offline.server, and so are the replies that get through.
"""

import asyncio
import json
import os
import random
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, fields

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from course_utils import REPO
from course_utils.offline import server, world
from course_utils.offline.server import ApiError, digest_of
from course_utils.offline.simulated import JudgeTraits

FAULTS = {
    "429": "too many requests, with Retry-After",
    "500": "a server error",
    "drop": "a reply that breaks off after its first bytes",
    "429-bare": "too many requests, without Retry-After",
    "reset": "a connection that is reset before the reply",
    "timeout": "no reply for --hang seconds",
    "half": "half of the reply's body",
    "html": "a page of HTML where JSON belongs",
    "empty": "a reply without choices",
    "filter": "a content filter took the text; the same request meets it every time",
}
REFUSED_KEY = "refused"
CHAT = "/v1/chat/completions"


@dataclass(frozen=True)
class Settings(server.Settings):
    faults: float = 0.0  # share of attempts that meet one
    fault_kinds: tuple[str, ...] = ("429", "500", "drop")
    hang: float = 5.0
    refuse_max_tokens: bool = False  # as OpenAI's reasoning models do
    refuse_json_schema: bool = False  # as servers without schemas do
    log: str | None = None  # one JSON line for every attempt


class Dropped(Response):
    """A reply that breaks off: the server closes the connection after the first bytes."""

    def __init__(self, first: bytes = b'{"id": "chat'):
        super().__init__()
        self.first = first

    async def __call__(self, scope, receive, send) -> None:
        length = str(2 * len(self.first) + 1000).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", length)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": self.first, "more_body": True})


class Reset(Response):
    async def __call__(self, scope, receive, send) -> None:
        send.__self__.transport.abort()  # the cycle of uvicorn's h11, which serve() asks for


class Faulty:
    """The application of the simulated API, and what happens on the way to it and back."""

    def __init__(self, settings: Settings):
        self.settings, self.attempts = settings, Counter()
        self.app = server.make_app(settings)
        self.whole_line = self.app.state.batches.answer
        self.app.state.batches.answer = self.line

    async def __call__(self, scope, receive, send) -> None:
        request = Request(scope, receive)
        response = await self.respond(request, await request.body())
        await response(scope, receive, send)

    async def respond(self, request: Request, body: bytes) -> Response:
        path, chat = request.url.path, request.url.path == CHAT
        if request.headers.get("authorization") == f"Bearer {REFUSED_KEY}":
            return error(401, "Incorrect API key provided: refused.", "invalid_api_key")
        if path == "/v1/models":
            return await self.whole(request, body)
        if chat:  # so that an attempt is noted when it is answered
            await asyncio.sleep(self.settings.latency)
        asked = json.loads(body) if chat else None
        fault = self.strike(digest_of(asked) if chat else f"{request.method} {path}")
        if fault in ("429", "429-bare"):
            told = {"retry-after": "1", "retry-after-ms": "50"} if fault == "429" else None
            return error(429, "Rate limit reached (simulated): try again.", headers=told)
        if fault == "500":
            return error(500, "The server had an error (simulated): try again.")
        if chat and (refused := self.refusal(asked)):
            return JSONResponse(refused.body, refused.status)
        response = await self.whole(request, body)
        if fault is None or response.status_code != 200:
            return response
        if chat:
            return await self.spoilt(fault, response.body)
        # One that breaks off has done its work all the same.
        return response if fault == "filter" else Dropped()

    async def whole(self, request: Request, body: bytes) -> Response:
        """The simulation's own response."""
        messages = []

        async def receive():
            return {"type": "http.request", "body": body}

        async def send(message):
            messages.append(message)

        await self.app(request.scope, receive, send)
        content = b"".join(message.get("body", b"") for message in messages[1:])
        response = Response(content, messages[0]["status"])
        response.raw_headers = messages[0]["headers"]
        return response

    def strike(self, name: str) -> str | None:
        """The fault that this attempt meets."""
        settings = self.settings
        self.attempts[name] += 1
        # Each attempt draws anew, so whoever tries again gets through, and does so in every run.
        rng = random.Random(f"fault/{settings.seed}/{name}/{self.attempts[name]}")
        fault = rng.choice(settings.fault_kinds) if rng.random() < settings.faults else None
        if fault == "filter" or fault is None:  # a filter goes by what is asked, not by chance
            rng = random.Random(f"filter/{settings.seed}/{name}")
            share = settings.faults * settings.fault_kinds.count("filter")
            fault = "filter" if rng.random() < share / len(settings.fault_kinds) else None
        if settings.log:
            line = {"request": name, "attempt": self.attempts[name], "fault": fault}
            with open(settings.log, "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        return fault

    async def spoilt(self, fault: str, whole: bytes) -> Response:
        """A reply as the fault leaves it."""
        reply = json.loads(whole)
        if fault == "timeout":
            await asyncio.sleep(self.settings.hang)
        elif fault == "empty":
            reply["choices"] = []
        elif fault == "filter":
            reply["choices"][0]["message"]["content"] = None
            reply["choices"][0]["finish_reason"] = "content_filter"
            reply["usage"]["completion_tokens"] = 0
        elif fault == "html":
            page = "<html><body><h1>502 Bad Gateway</h1>nginx (simulated)</body></html>"
            return Response(page, media_type="text/html")
        elif fault == "reset":
            return Reset()
        elif fault == "half":
            return Dropped(whole[: len(whole) // 2])
        elif fault == "drop":
            return Dropped()
        return JSONResponse(reply)

    def refusal(self, body: dict) -> ApiError | None:
        if self.settings.refuse_max_tokens and "max_tokens" in body:
            return ApiError(400, "Unsupported parameter: 'max_tokens' is not supported with this "
                            "model. Use 'max_completion_tokens' instead.", "unsupported_parameter",
                            "max_tokens")
        wanted = (body.get("response_format") or {}).get("type")
        if self.settings.refuse_json_schema and wanted == "json_schema":
            return ApiError(400, "This response_format type is unavailable now.")

    def line(self, body: dict) -> tuple[int, dict]:
        """One line of a batch."""
        refused = self.refusal(body)
        if self.strike(digest_of(body)) not in (None, "filter"):
            refused = ApiError(500, "The server had an error (simulated): submit it again.")
        return (refused.status, refused.body) if refused else self.whole_line(body)


def start(*flags) -> tuple[subprocess.Popen, str]:
    """Start it as a process that ends with this one, and return that and its address."""
    command = [sys.executable, "-m", "tests.faulty_server", "--port", "0",
               "--parent", str(os.getpid()), *map(str, flags)]
    process = subprocess.Popen(command, cwd=REPO, stdout=subprocess.PIPE, text=True)
    return process, process.stdout.readline().strip()


def error(status: int, message: str, code: str | None = None, headers=None) -> Response:
    return JSONResponse(ApiError(status, message, code).body, status, headers)


def main() -> None:
    parser = server.options()
    parser.prog = "python -m tests.faulty_server"
    parser.add_argument("--faults", type=float, default=0.0)
    parser.add_argument("--fault-kinds", default=",".join(Settings.fault_kinds))
    parser.add_argument("--hang", type=float, default=5.0)
    parser.add_argument("--refuse-max-tokens", action="store_true")
    parser.add_argument("--refuse-json-schema", action="store_true")
    parser.add_argument("--log")
    for trait in fields(JudgeTraits):
        parser.add_argument(f"--{trait.name.replace('_', '-')}", type=float, default=trait.default)
    given = vars(parser.parse_args())
    port, parent = given.pop("port"), given.pop("parent")
    given["traits"] = JudgeTraits(**{f.name: given.pop(f.name) for f in fields(JudgeTraits)})
    given["fault_kinds"] = tuple(given["fault_kinds"].split(","))
    with suppress(world.Unsolvable):
        world.solve("")  # reads the world now: the first request has little time to wait for it
    server.serve(Faulty(Settings(**given)), port, parent)


if __name__ == "__main__":
    main()
