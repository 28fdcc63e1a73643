"""A simulated API on loopback in OpenAI's protocol: `python -m course_utils.offline.server`.

The course reaches it through the openai client and a base_url, like any other provider, so that not
a line of its code differs. The same request body always gets the same reply, byte for byte.

What it is: /v1/models and /v1/chat/completions with usage, finish_reason, replies as json_schema,
files and batches (see `batches`), errors in OpenAI's form, and delays and faults on
demand. What it is not: streaming, tools, several choices, or a language model (see `simulated`).
"""

import argparse
import asyncio
import hashlib
import json
import os
import random
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from course_utils.offline.batches import Batches
from course_utils.offline.protocol import ApiError, authorize
from course_utils.offline.simulated import (
    HONEST,
    JUDGE,
    MODELS,
    Imperfections,
    JudgeTraits,
    decide,
    judge,
    teach,
)

HOST = "127.0.0.1"
CHARACTERS_PER_TOKEN = 2
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
USUAL = ("429", "500", "drop")


@dataclass(frozen=True)
class Settings:
    """What the command line sets: shares, and seconds (`latency`, `hang`, `batch_...`)."""

    latency: float = 0.0
    faults: float = 0.0
    fault_kinds: tuple[str, ...] = USUAL
    hang: float = 5.0
    seed: int = 0
    refuse_max_tokens: bool = False
    refuse_json_schema: bool = False
    log: str | None = None
    batch_seconds: float = 0.0
    batch_window: float = 86_400.0
    traits: JudgeTraits = field(default_factory=JudgeTraits)
    imperfections: Imperfections = field(default_factory=Imperfections)


def count_tokens(text: str) -> int:
    """An estimate of tokens that needs no tokenizer: one for every two characters, rounded up.

    >>> count_tokens("안녕하세요")
    3
    """
    return -(-len(text) // CHARACTERS_PER_TOKEN)


def complete(body: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """The reply to a chat completion request, decided by its body alone; raises ApiError."""
    _check(body, settings)
    digest = _digest(body)
    rng = random.Random(f"{settings.seed}/{digest}")
    prompt = _text_of(body["messages"][-1])
    finish, refusal = "stop", None
    as_json = (body.get("response_format") or {}).get("type") == "json_schema"
    if body["model"] == JUDGE:
        traits = replace(settings.traits, **body.get("traits") or {})
        if as_json:
            text, refusal = _judge_as_json(prompt, rng, traits)
        else:
            text = judge(prompt, rng, traits)
    else:
        taught = teach(prompt, rng, settings.imperfections, as_json=as_json)
        text, finish = taught or (None, "stop")
    if text is None:
        text = HONEST
    limit = body.get("max_completion_tokens", body.get("max_tokens"))
    if limit is not None and count_tokens(text) > limit:
        text, finish = text[: limit * CHARACTERS_PER_TOKEN], "length"
    asked = sum(count_tokens(_text_of(message)) for message in body["messages"])
    told = count_tokens(text)
    return {
        "id": f"chatcmpl-simulated-{digest[:24]}",
        "object": "chat.completion",
        "created": 0,  # the same request gets the same reply, so no clock
        "model": body["model"],
        "system_fingerprint": f"simulated-{settings.seed}",
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": None if refusal else text,
                    "refusal": refusal,
                },
                "finish_reason": finish,
                "logprobs": None,
            }
        ],
        "usage": {
            "prompt_tokens": asked,
            "completion_tokens": told,
            "total_tokens": asked + told,
        },
    }


def _judge_as_json(
    prompt: str, rng: random.Random, traits: JudgeTraits
) -> tuple[str | None, str | None]:
    """The judge's (text, refusal): held to a schema it can only fill it in or refuse."""
    judged = decide(prompt, rng, traits)
    if judged is None:
        return None, None
    reason, verdict = judged
    if verdict is None:
        return reason, reason
    return json.dumps({"reason": reason, "verdict": verdict}, ensure_ascii=False), None


def _digest(body: dict[str, Any]) -> str:
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _text_of(message: dict[str, Any]) -> str:
    """A message's text, whether it is given plainly or in parts."""
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content)


def _check(body: Any, settings: Settings) -> None:
    if not isinstance(body, dict) or not isinstance(body.get("messages"), list):
        raise ApiError(400, "The body must be a JSON object with 'model' and 'messages'.")
    if not body["messages"] or not all(isinstance(m, dict) for m in body["messages"]):
        raise ApiError(400, "'messages' must hold at least one message.", param="messages")
    if body.get("model") not in MODELS:
        message = (
            f"The model `{body.get('model')}` does not exist or you do not have access to it. "
            f"This simulation offers: {', '.join(MODELS)}."
        )
        raise ApiError(404, message, "model_not_found", "model")
    if settings.refuse_max_tokens and "max_tokens" in body:
        message = (
            "Unsupported parameter: 'max_tokens' is not supported with this model. "
            "Use 'max_completion_tokens' instead."
        )
        raise ApiError(400, message, "unsupported_parameter", "max_tokens")
    for name in ("max_tokens", "max_completion_tokens"):
        limit = body.get(name)
        if limit is not None and (type(limit) is not int or limit < 1):
            raise ApiError(400, f"'{name}' must be a whole number from 1.", "invalid_value", name)
    if body.get("stream") or (body.get("n") or 1) != 1 or body.get("tools"):
        param = "stream" if body.get("stream") else "tools" if body.get("tools") else "n"
        message = f"Unsupported parameter: this simulation does not know '{param}'."
        raise ApiError(400, message, "unsupported_parameter", param)
    wanted = (body.get("response_format") or {}).get("type", "text")
    if wanted not in ("text", "json_schema"):
        message = "This simulation replies as text or as json_schema, in no other form."
        raise ApiError(400, message, "unsupported_value", "response_format")
    if wanted == "json_schema" and settings.refuse_json_schema:
        raise ApiError(400, "This response_format type is unavailable now.")
    traits = body.get("traits") or {}
    known = {field.name for field in fields(JudgeTraits)}
    if not isinstance(traits, dict) or not traits.keys() <= known or not all(
        isinstance(share, int | float) and 0 <= share <= 1 for share in traits.values()
    ):
        message = f"'traits' are shares from 0 to 1, of: {', '.join(sorted(known))}."
        raise ApiError(400, message, "invalid_value", "traits")


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
    """No reply at all: the connection is reset."""

    async def __call__(self, scope, receive, send) -> None:
        send.__self__.transport.abort()  # the cycle of uvicorn's h11, which main() asks for


def make_app(settings: Settings) -> Starlette:
    """The application; `settings` decide everything but the count of attempts at each request."""
    attempts: Counter[str] = Counter()

    def strike(name: str) -> str | None:
        """The fault that this attempt meets; raises ApiError for those that are an error."""
        attempts[name] += 1
        # Each attempt draws anew, so whoever tries again gets through, and does so in every run.
        rng = random.Random(f"fault/{settings.seed}/{name}/{attempts[name]}")
        fault = rng.choice(settings.fault_kinds) if rng.random() < settings.faults else None
        if fault == "filter" or fault is None:  # a filter goes by what is asked, not by chance
            rng = random.Random(f"filter/{settings.seed}/{name}")
            share = settings.faults * settings.fault_kinds.count("filter")
            fault = "filter" if rng.random() < share / len(settings.fault_kinds) else None
        _log(settings.log, {"request": name, "attempt": attempts[name], "fault": fault})
        if fault in ("429", "429-bare"):
            message = "Rate limit reached (simulated): try again."
            raise ApiError(429, message, "rate_limit_exceeded", patient=fault == "429")
        if fault == "500":
            raise ApiError(500, "The server had an error (simulated): try again.")
        return fault

    async def spoilt(fault: str, reply: dict[str, Any]) -> Response:
        """A reply as the fault leaves it."""
        whole = json.dumps(reply).encode()
        if fault == "timeout":
            await asyncio.sleep(settings.hang)
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

    async def list_models(request: Request) -> Response:
        authorize(request)
        model = {"object": "model", "created": 0, "owned_by": "simulation"}
        return JSONResponse({"object": "list", "data": [{"id": name, **model} for name in MODELS]})

    async def chat_completions(request: Request) -> Response:
        authorize(request)
        try:
            body = json.loads(await request.body())
        except ValueError:
            raise ApiError(400, "The request body is not valid JSON.") from None
        await asyncio.sleep(settings.latency)
        fault = strike(_digest(body))
        reply = complete(body, settings)
        return await spoilt(fault, reply) if fault else JSONResponse(reply)

    def answer(body: dict[str, Any]) -> dict[str, Any]:
        """One line of a batch."""
        if strike(_digest(body)) not in (None, "filter"):
            raise ApiError(500, "The server had an error (simulated): submit it again.")
        return complete(body, settings)

    def handler(handle):
        """An address of the Batch API; one that breaks off has done its work all the same."""
        async def handled(request: Request) -> Response:
            authorize(request)
            await asyncio.sleep(settings.latency)
            broken = strike(f"{request.method} {request.url.path}") not in (None, "filter")
            response = await handle(request)
            return Dropped() if broken else response

        return handled

    async def explain(request: Request, error: Exception) -> Response:
        if isinstance(error, HTTPException):
            address = f"{request.method} {request.url.path}"
            error = ApiError(error.status_code, f"Unknown request URL: {address}.")
        elif not isinstance(error, ApiError):
            error = ApiError(500, f"The simulation itself failed, which is a bug: {error!r}")
        waits = {"retry-after": "1", "retry-after-ms": "50"}
        waits = waits if error.status == 429 and error.patient else None
        return JSONResponse({"error": error.error}, error.status, waits)

    routes = [
        Route("/v1/models", list_models),
        Route("/v1/chat/completions", chat_completions, methods=["POST"]),
        *Batches(answer, settings.batch_seconds, settings.batch_window).routes(handler),
    ]
    kinds = (ApiError, HTTPException, Exception)
    return Starlette(routes=routes, exception_handlers=dict.fromkeys(kinds, explain))


def _log(path: str | None, line: dict[str, Any]) -> None:
    if path:
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


# --- Process ----------------------------------------------------------------------------------


class AnnouncingServer(uvicorn.Server):
    """Prints its address once it accepts connections, and not before."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        print(f"http://{HOST}:{sockets[0].getsockname()[1]}/v1", flush=True)


def _end_with(parent: int) -> None:
    """End this process soon after `parent` has ended, however that happened."""
    is_child = os.getppid() == parent

    def watch() -> None:
        while True:
            if is_child and os.getppid() != parent:
                os._exit(0)
            try:
                os.kill(parent, 0)
            except ProcessLookupError:
                os._exit(0)
            except PermissionError:
                pass
            time.sleep(0.5)

    threading.Thread(target=watch, daemon=True).start()


def _share(text: str) -> float:
    if not 0 <= (value := float(text)) <= 1:
        raise argparse.ArgumentTypeError(f"must be from 0 to 1, not {text}")
    return value


def _kinds(text: str) -> tuple[str, ...]:
    if unknown := set(kinds := tuple(text.split(","))) - set(FAULTS):
        raise argparse.ArgumentTypeError(f"knows no {', '.join(sorted(unknown))}")
    return kinds


def _parse(arguments: Sequence[str] | None) -> tuple[argparse.Namespace, Settings]:
    traits = JudgeTraits()
    parser = argparse.ArgumentParser(
        prog="python -m course_utils.offline.server",
        description="A simulated OpenAI-compatible API on loopback; it prints its base_url.",
        epilog=f"The teacher's imperfections: {Imperfections()}.",
    )
    add = parser.add_argument
    add("--port", type=int, default=8000, help="0 picks a free one (default %(default)s)")
    add("--latency", type=float, default=0.0, metavar="S", help="seconds before each reply")
    add("--faults", type=_share, default=0.0, metavar="RATE",
        help="share of attempts that meet a fault")  # fmt: skip
    add("--fault-kinds", type=_kinds, default=USUAL, metavar="KIND,KIND",
        help=f"which of {', '.join(FAULTS)} (default {','.join(USUAL)})")
    add("--hang", type=float, default=5.0, metavar="S", help="how long a timeout takes")
    add("--position-bias", type=_share, default=traits.position_bias, metavar="B",
        help="how often the judge names the first of two equals (default %(default)s)")  # fmt: skip
    add("--noise", type=_share, default=traits.noise, metavar="E",
        help="how often the judge errs at random (default %(default)s)")  # fmt: skip
    add("--invalid", type=_share, default=traits.invalid, metavar="RATE",
        help="how often the judge gives no verdict (default %(default)s)")  # fmt: skip
    add("--length-bias", type=_share, default=traits.length_bias, metavar="L",
        help="how often it then names the longer of them (default %(default)s)")  # fmt: skip
    add("--seed", type=int, default=0, help="all chance depends on this and on the request")
    add("--refuse-max-tokens", action="store_true", help="as OpenAI's reasoning models do")
    add("--refuse-json-schema", action="store_true", help="as servers without schemas do")
    add("--parent", type=int, metavar="PID", help="end when this process has ended")
    add("--batch-seconds", type=float, default=0.0, metavar="S", help="how long a batch takes")
    add("--batch-window", type=float, default=86_400.0, metavar="S",
        help="when it expires (default %(default)s)")  # fmt: skip
    add("--log", metavar="FILE", help="append one JSON line for every attempt")
    options = parser.parse_args(arguments)
    settings = Settings(
        latency=options.latency,
        faults=options.faults,
        fault_kinds=options.fault_kinds,
        hang=options.hang,
        seed=options.seed,
        refuse_max_tokens=options.refuse_max_tokens,
        refuse_json_schema=options.refuse_json_schema,
        log=options.log,
        batch_seconds=options.batch_seconds,
        batch_window=options.batch_window,
        traits=JudgeTraits(
            options.position_bias, options.noise, options.invalid, options.length_bias
        ),
    )
    return options, settings


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until interrupted; a port that cannot be used is one sentence and exit code 1."""
    options, settings = _parse(arguments)
    if options.parent:
        _end_with(options.parent)
    # Named as TCP, or asyncio leaves Nagle's algorithm on and every reply waits 40 ms for an ACK.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, options.port))
        listener.listen(512)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        sys.exit(
            f"Port {options.port} on {HOST} cannot be used ({reason}): choose another one with "
            "--port, or let --port 0 pick a free one."
        )
    config = uvicorn.Config(
        make_app(settings),
        http="h11",
        ws="none",
        lifespan="off",
        log_level="critical",
        timeout_keep_alive=75,
        timeout_graceful_shutdown=1,
    )
    try:
        AnnouncingServer(config).run(sockets=[listener])
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
