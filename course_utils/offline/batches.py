"""Files and batches of the simulated API: OpenAI's Batch API, as far as the course uses it.

A batch reads an uploaded file with one request a line, answers each as /v1/chat/completions would,
and leaves a file of replies and a file of errors. It takes as long as it is told to. Everything
lives in this process alone: a new one knows no files and no batches.
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


class Batches:
    """All files and batches of one server; `answer(body)` gives status and content of a request,
    and a batch takes `seconds`."""

    def __init__(self, answer: Callable[[Any], tuple[int, dict]], seconds: float):
        self.answer, self.seconds = answer, seconds
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, dict[str, Any]] = {}  # each as the API shows it
        self._work: set[asyncio.Task] = set()  # a task that nobody holds may be swept away

    def routes(self) -> list[Route]:
        return [Route("/v1/files", self.upload, methods=["POST"]),
                Route("/v1/files/{id}/content", self.content),
                Route("/v1/batches", self.create, methods=["POST"]),
                Route("/v1/batches", self.listing),
                Route("/v1/batches/{id}", self.retrieve)]

    async def upload(self, request: Request) -> Response:
        head = f"content-type: {request.headers.get('content-type', '')}\n\n"
        form = email.message_from_bytes(head.encode() + await request.body())
        for part in form.get_payload() if form.is_multipart() else []:
            if part.get_param("name", header="content-disposition") == "file":
                content, name = part.get_payload(decode=True), part.get_filename()
                return JSONResponse({
                    "id": self._keep(content, name), "object": "file", "bytes": len(content),
                    "filename": name, "created_at": int(time.time()), "purpose": "batch"})
        raise HTTPException(400, "An upload has a 'file' and a 'purpose'.")

    async def content(self, request: Request) -> Response:
        return Response(_find(self.files, request.path_params["id"], "File"))

    async def create(self, request: Request) -> Response:
        asked = await request.json()
        content = _find(self.files, asked.get("input_file_id"), "File")
        digest = hashlib.sha256(asked["input_file_id"].encode()).hexdigest()[:16]
        batch = {"id": f"batch_{digest}_{len(self.batches)}", "object": "batch",
                 "endpoint": ENDPOINT, "completion_window": "24h", "status": "in_progress",
                 "input_file_id": asked["input_file_id"], "metadata": asked.get("metadata"),
                 "created_at": int(time.time()), "errors": None, "request_counts": None,
                 "output_file_id": None, "error_file_id": None}
        self.batches[batch["id"]] = batch
        task = asyncio.create_task(self._run(batch, content.splitlines()))
        self._work.add(task)
        task.add_done_callback(self._work.discard)
        return JSONResponse(batch)

    async def listing(self, request: Request) -> Response:
        newest = list(self.batches.values())[::-1]
        return JSONResponse({"object": "list", "data": newest, "has_more": False})

    async def retrieve(self, request: Request) -> Response:
        return JSONResponse(_find(self.batches, request.path_params["id"], "Batch"))

    async def _run(self, batch: dict[str, Any], lines: list[bytes]) -> None:
        await asyncio.sleep(self.seconds)
        replies, mistakes = [], []
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
                asked = row["custom_id"], row["method"], row["url"], row["body"]["model"]
                if asked[1:3] != ("POST", ENDPOINT):
                    raise ValueError
            except (ValueError, KeyError, TypeError):
                error = {"code": "invalid_json_line", "line": number,
                         "message": "This line is not a request of a batch."}
                batch.update(status="failed", errors={"object": "list", "data": [error]})
                return
            status, body = self.answer(row["body"])
            (replies if status == 200 else mistakes).append(
                {"custom_id": asked[0], "response": {"status_code": status, "body": body}})
        counts = {"total": len(lines), "completed": len(replies), "failed": len(mistakes)}
        batch.update({"status": "completed", "request_counts": counts}
                     | self._results(replies, mistakes))

    def _results(self, replies: list[Any], mistakes: list[Any]) -> dict[str, str | None]:
        """The files of replies and of errors, where there are any."""
        def written(rows: list[Any]) -> str | None:
            lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
            return self._keep("".join(lines).encode()) if rows else None

        return {"output_file_id": written(replies), "error_file_id": written(mistakes)}

    def _keep(self, content: bytes, name: str = "") -> str:
        digest = hashlib.sha256(f"{len(self.files)}/{name}".encode() + content).hexdigest()[:24]
        self.files[f"file-{digest}"] = content
        return f"file-{digest}"


def _find(kept: dict[str, Any], name: str, kind: str) -> Any:
    if name not in kept:
        raise HTTPException(404, f"No such {kind} object: {name}")
    return kept[name]
