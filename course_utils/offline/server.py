"""A simulated API on loopback in OpenAI's protocol: `python -m course_utils.offline.server`.

The course reaches it through the openai client and a base_url, like any other provider, so that not
a line of its code differs. The same request body always gets the same reply, byte for byte.

What it is: /v1/models and /v1/chat/completions with usage, finish_reason, replies as json_schema,
files and batches (see `batches`), errors in OpenAI's form. What it is not: streaming, tools,
several choices, keys, or a language model (see `simulated`).
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
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from course_utils.offline.batches import Batches
from course_utils.offline.simulated import JUDGE, MODELS, Imperfections, JudgeTraits, judge, teach

HOST = "127.0.0.1"
CHARACTERS_PER_TOKEN = 2


@dataclass(frozen=True)
class Settings:
    """How the simulation behaves; the seconds: before a reply, and of a batch."""

    latency: float = 0.0
    seed: int = 0
    batch_seconds: float = 0.0
    traits: JudgeTraits = JudgeTraits()
    imperfections: Imperfections = Imperfections()


class ApiError(Exception):
    """A request that is refused: its HTTP status, and a body in OpenAI's form."""

    def __init__(self, status: int, message: str, code: str | None = None,
                 param: str | None = None):
        super().__init__(message)
        kind = "server_error" if status >= 500 else "invalid_request_error"
        self.status = status
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}


def count_tokens(text: str) -> int:
    """An estimate of tokens that needs no tokenizer: one for every two characters, rounded up."""
    return -(-len(text) // CHARACTERS_PER_TOKEN)


def complete(body: Any, settings: Settings) -> dict[str, Any]:
    """The reply to a chat completion request, decided by its body alone; raises ApiError."""
    _check(body)
    digest = digest_of(body)
    rng = random.Random(f"{settings.seed}/{digest}")
    prompt = _text_of(body["messages"][-1])
    as_json = (body.get("response_format") or {}).get("type") == "json_schema"
    finish, refusal = "stop", None
    if body["model"] == JUDGE:
        traits = replace(settings.traits, **body.get("traits") or {})
        text, refusal = judge(prompt, rng, traits, as_json=as_json)
    else:
        text, finish = teach(prompt, rng, settings.imperfections, as_json=as_json)
    limit = body.get("max_completion_tokens", body.get("max_tokens"))
    if limit is not None and count_tokens(text) > limit:
        text, finish = text[: limit * CHARACTERS_PER_TOKEN], "length"
    asked = sum(count_tokens(_text_of(message)) for message in body["messages"])
    told = count_tokens(text)
    message = {"role": "assistant", "content": None if refusal else text, "refusal": refusal}
    choice = {"index": 0, "message": message, "finish_reason": finish, "logprobs": None}
    usage = {"prompt_tokens": asked, "completion_tokens": told, "total_tokens": asked + told}
    return {"id": f"chatcmpl-simulated-{digest[:24]}", "object": "chat.completion",
            "created": 0,  # the same request gets the same reply, so no clock
            "model": body["model"], "system_fingerprint": f"simulated-{settings.seed}",
            "choices": [choice], "usage": usage}


def digest_of(body: Any) -> str:
    """A hash of a request body, whatever the order of its keys."""
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _text_of(message: dict[str, Any]) -> str:
    """A message's text, whether it is given plainly or in parts."""
    content = message.get("content") or ""
    parts = [{"text": content}] if isinstance(content, str) else content
    return "".join(part.get("text", "") for part in parts)


def _check(body: Any) -> None:
    messages = body.get("messages") if isinstance(body, dict) else None
    if not isinstance(messages, list) or not messages or not isinstance(messages[-1], dict):
        raise ApiError(400, "The body must be a JSON object with 'model' and a list of 'messages'.",
                       param="messages")
    if body.get("model") not in MODELS:
        raise ApiError(404, f"The model `{body.get('model')}` does not exist or you do not have "
                       f"access to it. This simulation offers: {', '.join(MODELS)}.",
                       "model_not_found", "model")
    for name in ("max_tokens", "max_completion_tokens"):
        limit = body.get(name)
        if limit is not None and (type(limit) is not int or limit < 1):
            raise ApiError(400, f"'{name}' must be a whole number from 1.", "invalid_value", name)
    for name in ("stream", "tools", "n"):
        if body.get(name) and (name, body[name]) != ("n", 1):
            raise ApiError(400, f"Unsupported parameter: this simulation does not know '{name}'.",
                           "unsupported_parameter", name)
    wanted = (body.get("response_format") or {}).get("type", "text")
    if wanted not in ("text", "json_schema"):
        raise ApiError(400, "This simulation replies as text or as json_schema, in no other form.",
                       "unsupported_value", "response_format")
    traits, known = body.get("traits") or {}, {field.name for field in fields(JudgeTraits)}
    if not isinstance(traits, dict) or not traits.keys() <= known or not all(
            isinstance(share, int | float) and 0 <= share <= 1 for share in traits.values()):
        raise ApiError(400, f"'traits' are shares from 0 to 1, of: {', '.join(sorted(known))}.",
                       "invalid_value", "traits")


def make_app(settings: Settings) -> Starlette:
    """The application, which remembers nothing but files and batches."""
    def answer(body: Any) -> tuple[int, dict[str, Any]]:
        """Status and content for a request, be it one by itself or a line of a batch."""
        try:
            return 200, complete(body, settings)
        except ApiError as error:
            return error.status, error.body

    async def list_models(request: Request) -> JSONResponse:
        model = {"object": "model", "created": 0, "owned_by": "simulation"}
        return JSONResponse({"object": "list", "data": [{"id": name, **model} for name in MODELS]})

    async def chat_completions(request: Request) -> JSONResponse:
        try:
            body = json.loads(await request.body())
        except ValueError:
            body = None
        await asyncio.sleep(settings.latency)
        status, content = answer(body)
        return JSONResponse(content, status)

    async def explain(request: Request, error: HTTPException) -> JSONResponse:
        said = f"{error.detail} ({request.method} {request.url.path})"
        return JSONResponse(ApiError(error.status_code, said).body, error.status_code)

    batches = Batches(answer, settings.batch_seconds)
    chat = Route("/v1/chat/completions", chat_completions, methods=["POST"])
    app = Starlette(routes=[Route("/v1/models", list_models), chat, *batches.routes()],
                    exception_handlers={HTTPException: explain})
    app.state.batches = batches  # tests let some of its lines fail
    return app


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m course_utils.offline.server",
        description="A simulated OpenAI-compatible API on loopback; it prints its base_url.")
    add = parser.add_argument
    add("--port", type=int, default=8000, help="0 picks a free one (default %(default)s)")
    add("--latency", type=float, default=0.0, metavar="S", help="seconds before each reply")
    add("--seed", type=int, default=0, help="all chance depends on this and on the request")
    add("--parent", type=int, metavar="PID", help="end when this process, its parent, has ended")
    return parser


def serve(app: Any, port: int, parent: int | None) -> None:
    """Serve until interrupted; a port that cannot be used is one sentence and exit code 1."""
    if parent:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    try:
        listener = socket.create_server((HOST, port), backlog=512)
    except (OSError, OverflowError) as error:
        sys.exit(f"Port {port} on {HOST} cannot be used ({error}): --port 0 picks a free one.")
    # Or every reply would wait 40 ms for an ACK (Nagle's algorithm); connections inherit it.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    config = uvicorn.Config(app, http="h11", ws="none", lifespan="off", log_level="critical",
                            timeout_keep_alive=75, timeout_graceful_shutdown=1)
    # From here on the system takes connections, and they wait until they are served.
    print(f"http://{HOST}:{listener.getsockname()[1]}/v1", flush=True)
    with suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listener])


def _end_with(parent: int) -> None:
    """End this process soon after its parent, however that ended."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(0)


if __name__ == "__main__":
    given = options().parse_args()
    serve(make_app(Settings(given.latency, given.seed)), given.port, given.parent)
