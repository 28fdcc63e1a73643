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
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

ENDPOINT = "/v1/chat/completions"
ENDED = ("completed", "failed", "expired", "cancelled")


class Batches:
    """All files and batches of one server; `answer(body)` gives status and content of a request.

    A batch takes `seconds` and expires after `window` of them.
    """

    def __init__(self, answer: Callable[[Any], tuple[int, dict]], seconds: float, window: float):
        self.answer, self.seconds, self.window = answer, seconds, window
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, dict[str, Any]] = {}  # each as the API shows it
        self._work: set[asyncio.Task] = set()  # a task that nobody holds may be swept away

    def routes(self) -> list[Route]:
        return [Route("/v1/files", self.upload, methods=["POST"]),
                Route("/v1/files/{id}/content", self.content),
                Route("/v1/batches", self.create, methods=["POST"]),
                Route("/v1/batches", self.listing),
                Route("/v1/batches/{id}", self.retrieve),
                Route("/v1/batches/{id}/cancel", self.cancel, methods=["POST"])]

    async def upload(self, request: Request) -> Response:
        head = f"content-type: {request.headers.get('content-type', '')}\n\n"
        form = email.message_from_bytes(head.encode() + await request.body())
        for part in form.get_payload() if form.is_multipart() else []:
            if part.get_param("name", header="content-disposition") == "file":
                return JSONResponse(self._keep(part.get_payload(decode=True), part.get_filename()))
        raise HTTPException(400, "An upload has a 'file' and a 'purpose'.")

    async def content(self, request: Request) -> Response:
        return Response(_find(self.files, request.path_params["id"], "File"))

    def _keep(self, content: bytes, name: str) -> dict[str, Any]:
        number = f"{len(self.files)}/{name}".encode()
        file_id = f"file-{hashlib.sha256(number + content).hexdigest()[:24]}"
        self.files[file_id] = content
        return {"id": file_id, "object": "file", "bytes": len(content), "filename": name,
                "created_at": int(time.time()), "purpose": "batch", "status": "processed"}

    async def create(self, request: Request) -> Response:
        asked, now = await request.json(), time.time()
        content = _find(self.files, asked.get("input_file_id"), "File")
        digest = hashlib.sha256(asked["input_file_id"].encode()).hexdigest()[:16]
        batch = {"id": f"batch_{digest}_{len(self.batches)}", "object": "batch",
                 "endpoint": ENDPOINT, "completion_window": "24h", "status": "validating",
                 "input_file_id": asked["input_file_id"], "metadata": asked.get("metadata"),
                 "created_at": int(now), "expires_at": int(now + self.window), "errors": None,
                 "request_counts": {"total": 0, "completed": 0, "failed": 0},
                 "output_file_id": None, "error_file_id": None}
        self.batches[batch["id"]] = batch
        task = asyncio.create_task(self._run(batch, content.splitlines(), now + self.window))
        self._work.add(task)
        task.add_done_callback(self._work.discard)
        return JSONResponse(batch)

    async def listing(self, request: Request) -> Response:
        newest = list(self.batches.values())[::-1]
        after = request.query_params.get("after")
        start = [batch["id"] for batch in newest].index(after) + 1 if after in self.batches else 0
        end = start + int(request.query_params.get("limit", 20))
        return JSONResponse({"object": "list", "data": newest[start:end],
                             "has_more": end < len(newest)})

    async def retrieve(self, request: Request) -> Response:
        return JSONResponse(_find(self.batches, request.path_params["id"], "Batch"))

    async def cancel(self, request: Request) -> Response:
        batch = _find(self.batches, request.path_params["id"], "Batch")
        if batch["status"] in ENDED:
            raise HTTPException(400, f"Cannot cancel a batch with status '{batch['status']}'.")
        batch["status"] = "cancelling"
        return JSONResponse(batch)

    async def _run(self, batch: dict[str, Any], lines: list[bytes], deadline: float) -> None:
        rows, errors = _read(lines)
        if errors:
            batch.update(status="failed", errors={"object": "list", "data": errors})
            return
        if batch["status"] == "validating":
            batch["status"] = "in_progress"
        replies, mistakes, end = [], [], "completed"
        for row in rows:
            if end == "completed":
                await asyncio.sleep(self.seconds / len(rows))
                if time.time() >= deadline:
                    end = "expired"
                elif batch["status"] == "cancelling":
                    end = "cancelled"
            line = {"custom_id": row["custom_id"], "response": None, "error": None}
            if end == "completed":
                status, body = self.answer(row["body"])
                line["response"] = {"status_code": status, "body": body}
            else:
                ended = "expired" if end == "expired" else "was cancelled"
                line["error"] = {"code": f"batch_{end}", "message": "This request could not be "
                                 f"executed before the batch {ended}."}
            (replies if end == "completed" and status == 200 else mistakes).append(line)
            batch["request_counts"] = {"total": len(rows), "completed": len(replies),
                                       "failed": len(mistakes)}
        batch["output_file_id"] = self._write(batch, "output", replies)
        batch["error_file_id"] = self._write(batch, "error", mistakes)
        batch["status"] = end

    def _write(self, batch: dict[str, Any], kind: str, rows: list[dict]) -> str | None:
        content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        name = f"{batch['id']}_{kind}.jsonl"
        return self._keep(content.encode(), name)["id"] if rows else None


def _find(kept: dict[str, Any], name: str, kind: str) -> Any:
    if name not in kept:
        raise HTTPException(404, f"No such {kind} object: {name}")
    return kept[name]


def _read(lines: list[bytes]) -> tuple[list[dict], list[dict]]:
    """The requests of an input file, and what is wrong with it."""
    rows, errors, names = [], [], set()
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            if (row["method"], row["url"]) != ("POST", ENDPOINT) or "model" not in row["body"]:
                raise ValueError
            if row["custom_id"] in names:
                errors.append({"code": "duplicate_custom_id", "line": number,
                               "message": f"The custom_id '{row['custom_id']}' is used twice."})
            names.add(row["custom_id"])
            rows.append(row)
        except (ValueError, KeyError, TypeError):
            errors.append({"code": "invalid_json_line", "line": number,
                           "message": "This line is not a request of a batch."})
    return rows, errors
