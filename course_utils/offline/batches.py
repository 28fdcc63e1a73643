"""Files and batches of the simulated API: OpenAI's Batch API, as far as the course uses it.

A batch reads an uploaded file with one request a line, answers each as /v1/chat/completions would,
and leaves a file of replies and a file of errors. It takes as long as it is told to, expires and
can be cancelled. Everything lives in this process alone: a new one knows no files and no batches.
"""

import asyncio
import email
import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from course_utils.offline.protocol import ApiError

ENDPOINT = "/v1/chat/completions"
ENDED = ("completed", "failed", "expired", "cancelled")


@dataclass
class Batch:
    """A batch and its lines: what was asked, what was answered, what went wrong."""

    id: str
    input_file_id: str
    metadata: dict[str, str] | None
    expires_at: float
    status: str = "validating"
    total: int = 0
    replies: list[dict] = field(default_factory=list)
    mistakes: list[dict] = field(default_factory=list)
    errors: list[dict] = field(default_factory=list)
    output_file_id: str | None = None
    error_file_id: str | None = None
    times: dict[str, int] = field(default_factory=lambda: {"created_at": int(time.time())})

    def become(self, status: str) -> None:
        self.status = status
        self.times[f"{status}_at"] = int(time.time())

    def to_dict(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": "batch",
            "endpoint": ENDPOINT,
            "completion_window": "24h",
            "input_file_id": self.input_file_id,
            "metadata": self.metadata,
            "status": self.status,
            "expires_at": int(self.expires_at),
            "request_counts": {
                "total": self.total,
                "completed": len(self.replies),
                "failed": len(self.mistakes),
            },
            "errors": {"object": "list", "data": self.errors} if self.errors else None,
            "output_file_id": self.output_file_id,
            "error_file_id": self.error_file_id,
            **self.times,
        }


class Batches:
    """All files and batches of one server.

    `answer(body)` gives the reply to a request or raises ApiError. A batch takes `seconds` and
    expires after `window` of them.
    """

    def __init__(self, answer: Callable[[dict], dict], seconds: float, window: float):
        self.answer, self.seconds, self.window = answer, seconds, window
        self.files: dict[str, tuple[dict[str, Any], bytes]] = {}
        self.batches: dict[str, Batch] = {}
        self._work: set[asyncio.Task] = set()  # a task that nobody holds may be swept away

    def routes(self, handler: Callable) -> list[Route]:
        """The routes, each handler wrapped by `handler`."""
        one = "/v1/batches/{id}"
        return [
            Route("/v1/files", handler(self.upload), methods=["POST"]),
            Route("/v1/files/{id}", handler(self.file)),
            Route("/v1/files/{id}/content", handler(self.content)),
            Route("/v1/batches", handler(self.create), methods=["POST"]),
            Route("/v1/batches", handler(self.listing)),
            Route(one, handler(self.retrieve)),
            Route(f"{one}/cancel", handler(self.cancel), methods=["POST"]),
        ]

    # --- Files ------------------------------------------------------------------------------------

    async def upload(self, request: Request) -> Response:
        kind = request.headers.get("content-type", "")
        form = email.message_from_bytes(
            f"content-type: {kind}\n\n".encode() + await request.body()
        )
        parts = {part.get_param("name", header="content-disposition"): part
                 for part in form.get_payload() if form.is_multipart()}  # fmt: skip
        if "file" not in parts or "purpose" not in parts:
            raise ApiError(400, "An upload has a 'file' and a 'purpose'.", param="file")
        if parts["purpose"].get_payload().strip() != "batch":
            raise ApiError(400, "This simulation takes files for batches only.", param="purpose")
        name, content = parts["file"].get_filename(), parts["file"].get_payload(decode=True)
        return JSONResponse(self._keep(content, name, "batch"))

    async def file(self, request: Request) -> Response:
        return JSONResponse(self._file(request.path_params["id"])[0])

    async def content(self, request: Request) -> Response:
        return Response(self._file(request.path_params["id"])[1])

    def _keep(self, content: bytes, name: str, purpose: str) -> dict[str, Any]:
        number = f"{len(self.files)}/{name}".encode()
        about = {
            "id": f"file-{hashlib.sha256(number + content).hexdigest()[:24]}",
            "object": "file",
            "bytes": len(content),
            "created_at": int(time.time()),
            "filename": name,
            "purpose": purpose,
            "status": "processed",
        }
        self.files[about["id"]] = about, content
        return about

    def _file(self, name: str) -> tuple[dict[str, Any], bytes]:
        if name not in self.files:
            raise ApiError(404, f"No such File object: {name}", param="id")
        return self.files[name]

    # --- Batches ----------------------------------------------------------------------------------

    async def create(self, request: Request) -> Response:
        asked = await request.json()
        if asked.get("endpoint") != ENDPOINT or asked.get("completion_window") != "24h":
            raise ApiError(400, f"This simulation knows the endpoint {ENDPOINT} and a completion "
                           "window of 24h.", "invalid_value", "endpoint")  # fmt: skip
        about, content = self._file(asked.get("input_file_id"))
        batch_id = f"batch_{hashlib.sha256(about['id'].encode()).hexdigest()[:16]}"
        batch_id += f"_{len(self.batches)}"
        batch = Batch(batch_id, about["id"], asked.get("metadata"), time.time() + self.window)
        self.batches[batch_id] = batch
        task = asyncio.create_task(self._run(batch, content))
        self._work.add(task)
        task.add_done_callback(self._work.discard)
        return JSONResponse(batch.to_dict())

    async def listing(self, request: Request) -> Response:
        newest = list(self.batches)[::-1]
        after = request.query_params.get("after")
        start = newest.index(after) + 1 if after in newest else 0
        limit = min(int(request.query_params.get("limit", 20)), 100)
        page = newest[start : start + limit]
        return JSONResponse({
            "object": "list",
            "data": [self.batches[name].to_dict() for name in page],
            "first_id": page[0] if page else None,
            "last_id": page[-1] if page else None,
            "has_more": start + limit < len(newest),
        })  # fmt: skip

    async def retrieve(self, request: Request) -> Response:
        return JSONResponse(self._batch(request).to_dict())

    async def cancel(self, request: Request) -> Response:
        batch = self._batch(request)
        if batch.status in ENDED:
            raise ApiError(400, f"Cannot cancel a batch with status '{batch.status}'.")
        batch.become("cancelling")
        return JSONResponse(batch.to_dict())

    def _batch(self, request: Request) -> Batch:
        name = request.path_params["id"]
        if name not in self.batches:
            raise ApiError(404, f"No batch found with id '{name}'.")
        return self.batches[name]

    async def _run(self, batch: Batch, content: bytes) -> None:
        lines = content.splitlines()
        batch.total = len(lines)
        rows = _read(lines, batch.errors)
        if batch.errors:
            return batch.become("failed")
        if batch.status == "validating":
            batch.become("in_progress")
        for number, row in enumerate(rows, 1):
            await asyncio.sleep(self.seconds / len(rows))
            expired = time.time() >= batch.expires_at
            if expired or batch.status == "cancelling":
                end = "expired" if expired else "cancelled"
                late = {"code": f"batch_{end}", "message": "This request could not be executed "
                        f"before the batch {'expired' if expired else 'was cancelled'}."}
                batch.mistakes += [_line(row, error=late) for row in rows[number - 1:]]
                break
            try:
                batch.replies.append(_line(row, 200, self.answer(row["body"])))
            except ApiError as error:
                batch.mistakes.append(_line(row, error.status, {"error": error.error}))
        else:
            end = "completed"
            batch.become("finalizing")
        batch.output_file_id = self._write(batch, "output", batch.replies)
        batch.error_file_id = self._write(batch, "error", batch.mistakes)
        batch.become(end)

    def _write(self, batch: Batch, kind: str, rows: list[dict]) -> str | None:
        if not rows:
            return None
        content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        return self._keep(content.encode(), f"{batch.id}_{kind}.jsonl", "batch_output")["id"]


def _read(lines: list[bytes], errors: list[dict]) -> list[dict]:
    """The rows of an input file; what is wrong with the file is added to `errors`."""
    rows, names, models = [], set(), set()

    def wrong(code: str, message: str, line: int | None) -> None:
        errors.append({"code": code, "message": message, "line": line, "param": None})

    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            name, model = row["custom_id"], row["body"]["model"]
            address = (row["method"], row["url"])
        except (ValueError, KeyError, TypeError):
            wrong("invalid_json_line", "This line is not a request of a batch.", number)
            continue
        if address != ("POST", ENDPOINT):
            wrong("invalid_url", f"The url of a request must be that of its batch: {ENDPOINT}.",
                  number)
        if name in names:
            wrong("duplicate_custom_id", f"The custom_id '{name}' is used twice.", number)
        names.add(name)
        models.add(model)
        rows.append(row)
    if len(models) > 1:
        wrong("mismatched_model", "All requests of a batch must be for one model.", None)
    if not lines:
        wrong("empty_file", "The input file is empty.", None)
    return rows


def _line(row: dict, status: int | None = None, body: dict | None = None,
          error: dict | None = None) -> dict[str, Any]:
    digest = hashlib.sha256(row["custom_id"].encode()).hexdigest()[:24]
    response = status and {"status_code": status, "request_id": f"req_{digest}", "body": body}
    return {"id": f"batch_req_{digest}", "custom_id": row["custom_id"], "response": response,
            "error": error}  # fmt: skip
