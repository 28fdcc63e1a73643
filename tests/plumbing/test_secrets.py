"""Keys: where they are found, in which order, and that no text keeps one."""

import getpass
import json
import os
import re
import sys
from types import SimpleNamespace
from urllib.parse import quote

import machines
import pytest

from course_utils import CourseError
from course_utils.plumbing import colab, secrets
from course_utils.plumbing.scrub import scrub, scrub_known
from course_utils.plumbing.secrets import MissingSecret, secret

PLANTED = "planted-in-the-environment"


@pytest.fixture(autouse=True)
def bare_machine(monkeypatch, tmp_path):
    machines.bare(monkeypatch, tmp_path)


def test_the_environment_comes_before_the_env_file(tmp_path):
    text = '# keys\nOTHER=1\nexport MY_KEY = "from-file"\nMY_KEY_2=x=y\n'
    (tmp_path / ".env").write_text(text)
    assert secret("MY_KEY") == "from-file"
    assert secret("MY_KEY_2") == "x=y"
    os.environ["MY_KEY"] = "from-environment"
    assert secret("MY_KEY") == "from-environment"


def test_somebody_is_asked_last_and_only_where_somebody_is(monkeypatch):
    monkeypatch.setattr(getpass, "getpass", lambda prompt: " typed ")
    monkeypatch.setattr(secrets, "can_ask", lambda: True)
    assert secret("MY_KEY") == "typed"
    with pytest.raises(MissingSecret, match="MY_KEY .*environment.*[.]env.*Secrets"):
        secret("MY_KEY", ask=False)

    def no_front_end(prompt):
        raise RuntimeError("raw_input was called, but this frontend does not support it")

    monkeypatch.setattr(getpass, "getpass", no_front_end)
    with pytest.raises(MissingSecret):
        secret("MY_KEY")


@pytest.mark.parametrize(("kind", "hint"), [
    (machines.SecretNotFoundError, "does not exist"),
    (machines.NotebookAccessError, "does not have access to secret"),
    (machines.TimeoutException, "did not answer")])
def test_colabs_secrets_fail_in_words(monkeypatch, kind, hint):
    def get(key):
        raise kind(key)

    machines.on_colab(monkeypatch, get)
    with pytest.raises(MissingSecret, match=hint):
        secret("MY_KEY")
    monkeypatch.setattr(colab, "_silent_since", float("-inf"))  # a minute later
    machines.on_colab(monkeypatch, lambda key: "from-colab")
    assert secret("MY_KEY") == "from-colab"


def test_where_colabs_secrets_never_answer_they_are_asked_once(monkeypatch):
    """From VS Code every question takes ten seconds, and a card asks for half a dozen keys."""
    asked = []

    def get(key):
        asked.append(key)
        raise machines.TimeoutException(key)

    machines.on_colab(monkeypatch, get)
    for name in ("A_KEY", "B_KEY", "C_KEY"):
        with pytest.raises(MissingSecret, match="From VS Code they never do: paste the key"):
            secret(name)
    assert asked == ["A_KEY"]


def test_outside_the_browser_colabs_secrets_are_not_there(monkeypatch):
    os.environ["COLAB_RELEASE_TAG"] = "release-colab-test"
    monkeypatch.setitem(sys.modules, "google.colab", None)
    with pytest.raises(MissingSecret, match="Secrets do not give it .*google.colab"):
        secret("MY_KEY")


@pytest.mark.parametrize(("text", "clean"), [
    ("Incorrect API key provided: sk-ab12****************wxyz.", "provided: [secret]."),
    ("Invalid token hf_abcdefghijklmnopqrstuvwxyz", "token [secret]"),
    ("키sk-ab12cd34ef", "키[secret]"),
    (f"API key not valid: AIza{'Sy_-0aB' * 5}.", "valid: [secret]."),
    (f"gsk_{'a1B2' * 13} xai-{'a1B2' * 20}", "[secret] [secret]"),
    (f"nvapi-{'a1-B_' * 12} github_pat_{'11A_b' * 15}", "[secret] [secret]"),
    (f"AKIA{'A1B2' * 4} ghp_{'a1B2' * 9} sk-ant-api03-a1B2", "[secret] [secret] [secret]"),
    ("GET /v1/models?alt=sse&key=a1b2c3d4e5f6 401", "alt=sse&key=[secret] 401"),
    ("{'x-api-key': 'a1b2c3d4e5f6'}", "'x-api-key': '[secret]'"),
    ("authorization: Bearer abc.def-123_x", "Bearer [secret]"),
    ("http://me:pass-word@proxy.local:80 refused", "http://[secret]@proxy.local:80 refused"),
    (f"the value of {PLANTED}", "the value of [MY_TOKEN]"),
    ("typed-at-the-prompt twice", "[ASKED_FOR] twice"),
    ("risk-adjusted sk-learn-contrib", "risk-adjusted sk-learn-contrib"),
    ("hf_transfer key_padding ?key=postgres", "hf_transfer key_padding ?key=postgres"),
])
def test_keys_are_scrubbed_from_every_message(monkeypatch, text, clean):
    os.environ["MY_TOKEN"] = PLANTED
    monkeypatch.setattr(secrets, "can_ask", lambda: True)
    monkeypatch.setattr(getpass, "getpass", lambda prompt: "typed-at-the-prompt")
    secret("ASKED_FOR")
    assert clean in scrub(text)
    error = CourseError(text)
    assert clean in str(error) and clean in repr(error)


@pytest.mark.parametrize("value", [
    "none", "true", "postgres", "Postgres", "POSTGRES", "no key needed", "not-needed",
    "instruction", "prompt_tokens", "completion_tokens_details", "simulated-teacher",
    "gpt-4o-mini", "20261130", "3.14159265", "010-1234-5678", "2026-11-30", "tasks.jsonl",
    "service-account.json",
    "/run/secrets/db_password", "~/.ssh/id_ed25519", "C:\\keys\\openai.txt", "localhost:5432",
    "http://127.0.0.1:8000/v1", "https://keys.example.com/path?page=2", "Qwen/Qwen2.5-7B-Instruct",
    "대한민국만세입니다", "비밀번호는 없습니다",
])
def test_a_value_that_is_ordinary_text_is_no_secret(value):
    os.environ["POSTGRES_PASSWORD"] = value
    reply = json.dumps({"text": f"{value}는 데이터베이스입니다.", value: 1}, ensure_ascii=False)
    assert scrub_known(reply) == reply


KEYLIKE = ["p0stgres", "abcdefghijklmnop", "QwErTyUi", "ab/cd+ef", PLANTED, "a.*b+c(d", "hunter2!!",
           "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", 'quo"ted\\key', "%41+b&c=d", "p0stgres\n"]


@pytest.mark.parametrize("value", KEYLIKE)
def test_a_value_with_the_shape_of_a_key_is_one_however_it_is_written(value):
    os.environ["POSTGRES_PASSWORD"] = value
    key = value.strip()
    for way in (str, json.dumps, lambda v: json.dumps(json.dumps(v)), lambda v: quote(v, safe=""),
                lambda v: f"{v[:4]}\n    {v[4:]}", lambda v: json.dumps(f"{v[:4]}\n{v[4:]}"),
                lambda v: v.replace("/", r"\/").replace("+", r"\u002B")):
        clean = scrub_known(f"전{way(key)}는")
        assert re.fullmatch(r'전["\\]*\[POSTGRES_PASSWORD\]["\\]*는', clean)


def test_of_two_keys_the_longer_goes_first_and_each_line_of_one_is_taken_out():
    os.environ |= {"A_KEY": "a1b2c3d4e5", "B_KEY": "a1b2c3d4e5-more"}
    assert scrub_known("a1b2c3d4e5-more, a1b2c3d4e5") == "[B_KEY], [A_KEY]"
    os.environ["C_KEY"] = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADAN9x\nBgkqhkiG9w0BAQ\n"
    assert scrub("-----BEGIN\n> BgkqhkiG9w0BAQ\n") == "-----BEGIN\n> [C_KEY]\n"


@pytest.mark.parametrize("form", ['"%s"', "'%s", "%s`", "\t%s"])
def test_a_key_with_something_around_it_is_told_so(form):
    os.environ["MY_KEY"] = form % "sk-abc123456"
    with pytest.raises(secrets.BadSecret, match=r"\((quotation mark|apostrophe|grave accent|tab),"):
        secret("MY_KEY")
    assert "abc" not in scrub("key sk-abc123456")


def test_a_key_file_that_others_may_read_is_said_once_and_one_of_no_use(tmp_path, capsys):
    (tmp_path / ".env").write_text("MY_KEY=from-file\n")
    (tmp_path / ".env").chmod(0o644)
    for _ in range(2):
        assert secret("MY_KEY") == "from-file"
    assert capsys.readouterr().out.count("chmod 600 .env") == 1
    (tmp_path / ".env").write_text("MY_KEY=from-file\n", "utf-16")
    with pytest.raises(secrets.BadSecret, match=r"^\.env is not UTF-8"):
        secret("MY_KEY")


def test_a_notebook_saves_no_key_with_an_error(monkeypatch):
    os.environ["OPENAI_API_KEY"] = PLANTED
    shown = []

    class Shell:
        def _showtraceback(self, kind, error, lines):
            shown.append((kind, str(error), lines))

    shell = Shell()
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    for _ in range(2):  # the setup cell is run again
        secrets.scrub_notebook_errors()
    shell._showtraceback(ValueError, ValueError(f"{PLANTED}!"), [f"key = '{PLANTED}'"])
    assert shown == [(ValueError, "[OPENAI_API_KEY]!", ["key = '[OPENAI_API_KEY]'"])]
