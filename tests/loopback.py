"""Servers on loopback whose answers a test writes: `with Chat() as api: api.answer = ...`."""

import http.server
import json
import threading


class Loopback(http.server.ThreadingHTTPServer):
    """A server; `get(path, key)` and `post(path, body, key)` return (status, content, headers).

    Content is JSON unless it is bytes, headers may be left out, and a status of None hangs up.
    `key` is the Authorization header.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.host = f"http://127.0.0.1:{self.server_port}"
        self.url = f"{self.host}/v1"
        self.lock = threading.Lock()
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()

    def handle_error(self, *_):
        pass  # a client that went away is part of some tests

    def get(self, path, key):
        return 404, b"nothing here"

    post = get


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.headers = self.headers  # those of the last request
        self.send(*self.server.get(self.path, self.headers["authorization"]))

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.send(*self.server.post(self.path, body, self.headers["authorization"]))

    def send(self, status, content, headers=()):
        if status is None:
            return self.connection.close()
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in ({"content-type": "application/json"} | dict(headers)).items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


class Chat(Loopback):
    """An API whose `answer(body, n)` is the response to the n-th chat request; `asked` has all."""

    def __init__(self):
        self.asked = []
        self.answer = lambda body, n: chat(f"to {said(body)}")
        super().__init__()

    def get(self, path, key):
        return 200, {"object": "list", "data": [{"id": "echo-large"}, {"id": "echo-small"}]}

    def post(self, path, body, key):
        with self.lock:
            self.asked.append(body | {"authorization": key})
            n = len(self.asked) - 1
        return self.answer(self.asked[n], n)


def said(body):
    return body["messages"][0]["content"]


def chat(text, finish_reason="stop", tokens=(10, 20)):
    """The response with this reply."""
    message = {"role": "assistant", "content": text}
    return 200, {
        "id": "x", "object": "chat.completion", "created": 0, "model": "echo-small-1",
        "choices": [{"index": 0, "message": message, "finish_reason": finish_reason}],
        "usage": {"prompt_tokens": tokens[0], "completion_tokens": tokens[1],
                  "total_tokens": sum(tokens)}}


def refusal(status, message="no", *, headers=(), **more):
    """The response with this error."""
    return status, {"error": {"message": message, "type": "error", **more}}, headers
