"""The Hub, on loopback: one commit goes up, and each refusal says in one sentence what to do."""

import base64
import json
import re
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import yaml

from course_utils import CourseError
from course_utils.inference import load_tokenizer
from course_utils.plumbing.hub import (
    answers,
    brief,
    code,
    facts_table,
    model_card,
    plain,
    record_of,
    upload,
)

huggingface_hub = pytest.importorskip("huggingface_hub")

RECORD = {"recipe": {"name": "mine"}, "identity": {}, "versions": {"torch": "2"}}


class Hub(ThreadingHTTPServer):
    """As much of the Hub's API as an upload needs; it refuses who is called after a status."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.public, self.existing = False, False
        self.created, self.commits, self.tokens = [], [], set()


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def answer(self, body, status=200, headers=()):
        data = json.dumps(body).encode()
        self.send_response(status)
        for name, value in (("Content-Length", str(len(data))), *headers):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data if self.command != "HEAD" else b"")

    def refused(self, body=b""):
        refusal = re.search(r"s([45]\d\d)(-gated)?\b", self.path + body.decode())
        if refusal:
            status, gated = refusal.groups()
            code = "GatedRepo" if gated else "RepoNotFound"
            told = [("X-Error-Code", code)] * bool(gated or status == "404")
            self.answer({"error": "somebody's reason"}, int(status), told)
        return refusal

    def do_GET(self):  # noqa: N802
        if not self.refused():
            self.answer({"id": "me/ko", "private": not self.server.public, "sha": "0" * 40})

    do_HEAD = do_GET  # noqa: N815

    def do_POST(self):  # noqa: N802
        hub, address = self.server, f"http://127.0.0.1:{self.server.server_port}"
        body = self.rfile.read(int(self.headers["Content-Length"]))
        hub.tokens.add(self.headers.get("Authorization"))
        if self.refused(body):
            return
        if self.path == "/api/repos/create":
            hub.created.append(json.loads(body))
            self.answer({"url": f"{address}/datasets/me/ko"}, 409 if hub.existing else 200)
        elif self.path == "/api/validate-yaml":
            bad = "license: nonsense" in json.loads(body)["content"]
            error = {"message": '"license" must be one of [...]'}
            self.answer({"warnings": [], "errors": [error] * bad}, 400 if bad else 200)
        elif "/preupload/" in self.path:
            files = json.loads(body)["files"]
            mode = {"uploadMode": "regular", "shouldIgnore": False}
            self.answer({"files": [{"path": file["path"], **mode} for file in files]})
        elif "/commit/" in self.path:
            hub.commits.append([json.loads(line) for line in body.splitlines()])
            oid = "1" * 40
            self.answer({"commitUrl": f"{address}/datasets/me/ko/commit/{oid}", "commitOid": oid})


def point_to(monkeypatch, address):
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", address)
    template = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr("urllib.request.getproxies", dict)


@pytest.fixture
def hub(monkeypatch):
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    huggingface_hub.close_session()
    point_to(monkeypatch, f"http://127.0.0.1:{server.server_port}")
    yield server
    server.shutdown()
    thread.join()
    server.server_close()
    huggingface_hub.close_session()


def refusal_of(act):
    with pytest.raises(CourseError) as caught:
        act()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_files_go_up_in_one_private_commit(hub, tmp_path):
    (tmp_path / "a.txt").write_text("속", encoding="utf-8")
    address = upload("me/ko", {"deep/a.txt": tmp_path / "a.txt", "b": b"2"}, token="hf_secret")
    assert address == "https://huggingface.co/me/ko"
    (made,), (commit,) = hub.created, hub.commits
    assert made["organization"] == "me" and made["name"] == "ko"
    assert made.get("private") is True or made.get("visibility") == "private"
    files = [row["value"] for row in commit if row["key"] == "file"]
    found = {file["path"]: base64.b64decode(file["content"]) for file in files}
    assert found == {"deep/a.txt": "속".encode(), "b": b"2"}
    assert hub.tokens == {"Bearer hf_secret"}


def test_a_dataset_has_its_own_kind_and_address(hub):
    address = upload("me/ko", {"b": b"2"}, repo_type="dataset", token="t")
    assert address == "https://huggingface.co/datasets/me/ko"
    assert hub.created[0]["type"] == "dataset"


def test_a_public_repository_takes_nothing_private_and_one_of_ours_is_written_again(hub):
    hub.existing = hub.public = True
    said = refusal_of(lambda: upload("me/ko", {"b": b"2"}, token="t"))
    assert re.search("me/ko is there already and public.*private=False", said)
    assert not hub.commits
    upload("me/ko", {"b": b"2"}, private=False, token="t")
    hub.public = False
    upload("me/ko", {"b": b"2"}, token="t")
    assert len(hub.commits) == 2


REFUSALS = {
    "s401-gated/gemma": r"gated\); accept its terms on https://huggingface.co/s401-gated/gemma "
    r"and set HF_TOKEN, in the environment or as a Colab secret, to a token from .*same account",
    "s403-gated/gemma": r"gated\); accept its terms on https://huggingface.co/s403-gated/gemma",
    "s401/gemma": r"\(401, no such token, or no such name\); check the name .*, or set HF_TOKEN",
    "s403/gemma": r"\(403, the token may not do this\); set HF_TOKEN.* your own user name",
    "s404/gemma": r"\(404, the Hub has no such name\); check https:.* before the slash",
}


@pytest.mark.parametrize("repo", [*REFUSALS, "s500/gemma"])
def test_each_refusal_is_one_sentence_for_what_comes_down_and_what_goes_up(hub, repo, monkeypatch):
    """Asked for real: the Hub's own client, and what a server on loopback answers."""
    said = refusal_of(lambda: upload(repo, {"b": b"2"}, token="hf_test"))
    wanted = REFUSALS.get(repo, r"\(500: .*\); correct what it names, or try again later")
    assert re.search(f"{repo} was not uploaded .*{wanted}", said), said
    if repo in REFUSALS:  # a 500 is asked again and again
        said = refusal_of(lambda: load_tokenizer(repo))
        assert re.search(f"'{repo}' cannot be loaded .*{wanted}", said), said
    assert not hub.commits


def test_a_licence_the_hub_does_not_know(hub):
    card = b"---\nlicense: nonsense\n---\n"
    said = refusal_of(lambda: upload("me/ko", {"README.md": card}, token="t"))
    assert '"license" must be one of' in said and not hub.commits


def test_nobody_waits_for_a_hub_that_does_not_answer(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    point_to(monkeypatch, f"http://127.0.0.1:{port}")
    began = time.monotonic()
    for act in (lambda: load_tokenizer("google/gemma-2b-it"), lambda: upload("me/ko", {})):
        assert "the Hub cannot be reached" in refusal_of(act)
    assert time.monotonic() - began < 5
    monkeypatch.setattr("urllib.request.getproxies", lambda: {"https": "proxy"})
    assert answers()  # a proxy would know
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert not answers() and "HF_HUB_OFFLINE" in refusal_of(lambda: upload("me/ko", {}))


@pytest.mark.parametrize("name", ["ko", "a/b/c", "", "나/과제", "me/a b"])
def test_a_name_the_hub_would_not_take_is_refused_before_anything_is_sent(hub, name):
    assert "user/name" in refusal_of(lambda: upload(name, {"b": b"2"}, token="t"))
    assert not hub.created


def test_without_a_token_it_says_which_one_to_make_and_no_token_gets_out(hub, monkeypatch):
    from huggingface_hub.errors import LocalTokenNotFoundError

    def create_repo(*args, **options):
        raise errors.pop()

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", create_repo)
    errors = [RuntimeError("Bad hf_abcdefghijklmnopqrstu"), LocalTokenNotFoundError("Token\nlong")]
    said = refusal_of(lambda: upload("me/x", {"README.md": b"x"}))
    assert re.search("me/x was not uploaded .*set HF_TOKEN.*huggingface.co/settings/tokens", said)
    with pytest.raises(CourseError) as caught:
        upload("me/x", {"README.md": b"x"})
    assert "hf_abc" not in str(caught.value) and caught.value.__cause__ is None


def test_what_an_error_says_in_brief():
    assert brief(ValueError("one\n  two.")) == "one two"
    assert brief(KeyError()) == "KeyError"
    assert len(brief(ValueError("long " * 100))) <= 200


@pytest.mark.parametrize("content", [
    "[" * 100_000, '{"a":' * 100_000, "null", "[]", '"recipe identity versions"', "{", "{}",
    *(json.dumps(RECORD | {name: other}) for name in RECORD for other in (None, 3, "x", [[]])),
    json.dumps(RECORD | {"recipe": {"train": "4bit"}}),
    json.dumps(RECORD | {"recipe": {"teacher": "offline"}})])
def test_what_is_no_record_of_a_training_is_none(tmp_path, content):
    (tmp_path / "result.json").write_text(json.dumps(RECORD))
    folder = tmp_path / "adapter"
    folder.mkdir()
    assert record_of(folder) == RECORD and "| torch | 2 |" in model_card(folder)
    (tmp_path / "result.json").write_text(content)
    assert record_of(folder) == {} and "# adapter" in model_card(folder)


def test_no_fact_breaks_out_of_its_cell():
    table = facts_table({"model": "a|b\n\n# c", "first_loss": 2, "<b>": code("x`|")})
    assert table == ("| | |\n|---|---|\n| model | a\\|b # c |\n| first_loss | 2 |\n"
                     "| &lt;b&gt; | `` x`\\| `` |\n")


def test_a_name_is_shown_as_it_is_whatever_it_holds(tmp_path):
    assert plain("my_data-1.0 (ko)") == "my_data-1.0 (ko)"
    assert plain("_a_ *b* [x](y) <i>\udcff") == r"\_a\_ \*b\* \[x\](y) &lt;i&gt;?"
    assert plain(code("a``")) == code("a``") == "``` a`` ```"
    folder = tmp_path / "<script>_x"
    folder.mkdir()
    recipe = {"name": "a\n\n# b <img>", "base_model": "x: |\n---"}
    record = {"recipe": recipe, "identity": {"data": "`<b>"}, "versions": {"a|b": "<c>"}}
    (folder / "result.json").write_text(json.dumps(record))
    _, head, body = model_card(folder).split("---\n", 2)
    assert yaml.safe_load(head)["base_model"] == recipe["base_model"]
    assert body.startswith("\n# a # b &lt;img&gt;\n")
    assert "| data (sha256) | `` `<b> `` |\n| a\\|b | &lt;c&gt; |" in body
    (folder / "result.json").write_text(json.dumps(record | {"recipe": "a"}))
    assert "# &lt;script&gt;\\_x\n" in model_card(folder)  # what is no record is not read
