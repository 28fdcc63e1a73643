"""Keys: where they are found, in which order, and that no text keeps one."""

import getpass
import json
import os
import sys
from types import SimpleNamespace

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
    ("authorization: Bearer abc.def-123_x", "Bearer [secret]"),
    ("http://me:pass-word@proxy.local:80 refused", "http://[secret]@proxy.local:80 refused"),
    (f"the value of {PLANTED}", "the value of [MY_TOKEN]"),
    ("typed-at-the-prompt twice", "[ASKED_FOR] twice"),
    ("risk-adjusted hf_transfer key_padding", "risk-adjusted hf_transfer key_padding"),
])
def test_keys_are_scrubbed_from_every_message(monkeypatch, text, clean):
    os.environ["MY_TOKEN"] = PLANTED
    monkeypatch.setattr(secrets, "can_ask", lambda: True)
    monkeypatch.setattr(getpass, "getpass", lambda prompt: "typed-at-the-prompt")
    secret("ASKED_FOR")
    assert clean in scrub(text)
    error = CourseError(text)
    assert clean in str(error) and clean in repr(error)


@pytest.mark.parametrize("value", ["none", "postgres", "Postgres", "not-needed", "prompt_tokens",
                                   "20261130", "POSTGRES", "no key needed"])  # fmt: skip
def test_a_value_that_is_ordinary_text_is_no_secret(value):
    os.environ["POSTGRES_PASSWORD"] = value
    reply = json.dumps({"text": f"{value}는 데이터베이스입니다.", value: 1}, ensure_ascii=False)
    assert scrub_known(reply) == reply


@pytest.mark.parametrize("value", ["p0stgres", "abcdefghijklmnop", "QwErTyUi", "ab/cd+ef"])
def test_a_value_with_the_shape_of_a_key_is_one_however_short(value):
    os.environ["POSTGRES_PASSWORD"] = value
    assert scrub_known(f"<{value}>") == "<[POSTGRES_PASSWORD]>"


def test_a_key_that_begins_like_another_is_taken_out_whole_and_one_that_json_escapes_as_well():
    os.environ |= {"A_KEY": "a1b2c3d4e5", "B_KEY": "a1b2c3d4e5-more"}
    assert scrub_known("a1b2c3d4e5-more, a1b2c3d4e5") == "[B_KEY], [A_KEY]"
    os.environ["MY_KEY"] = 'quo"ted\\key'
    assert scrub_known(json.dumps({"text": 'quo"ted\\key'})) == '{"text": "[MY_KEY]"}'


def test_a_key_file_that_others_may_read_is_said_once(tmp_path, capsys):
    (tmp_path / ".env").write_text("MY_KEY=from-file\n")
    (tmp_path / ".env").chmod(0o644)
    for _ in range(2):
        assert secret("MY_KEY") == "from-file"
    assert capsys.readouterr().out.count("chmod 600 .env") == 1


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
