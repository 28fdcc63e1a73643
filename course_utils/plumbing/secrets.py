"""Keys: where they are found, and that a notebook saves none. Taught at the beginning of 01.

`secret` is the one way to a key; what takes it out of texts is in scrub.py.
"""

import getpass
import os
import re
import sys
import unicodedata
from pathlib import Path

from course_utils import REPO, CourseError, shown
from course_utils.plumbing.colab import colab_secret, on_colab
from course_utils.plumbing.scrub import remember, scrub

_warned: set[Path] = set()  # files of keys that others may read, and that were named already


class MissingSecret(CourseError):
    """A key that is in none of the places where the course looks; the message says which."""


class BadSecret(CourseError):
    """A key with a character that no key has; the message names it, and never shows the key."""


def secret(name: str, *, ask: bool = True) -> str:
    """Return a key from the environment, a .env file, Colab's secrets or, at last, a prompt.

    The value is never printed or stored. Raises MissingSecret, which says what to do, and BadSecret
    for one that was pasted with something else in it.
    """
    if value := os.environ.get(name):
        return checked(value, name)
    problem = ""
    value = _from_env_file(name)
    if not value and on_colab():
        value, problem = colab_secret(name)
    if not value and ask and can_ask():
        try:
            value = getpass.getpass(f"{name}: ").strip()
        except Exception:  # a front end that cannot ask raises its own kind of error
            pass
    if not value:
        raise MissingSecret(f"{name} is not set: put it into the environment, into a line "
                            f"'{name}=...' of the file .env, or on Colab into Secrets (the key "
                            f"icon) with notebook access switched on.{problem}")
    remember(value, name)
    return checked(value, name)


def has_secret(name: str) -> bool:
    """Return whether a key can be found without asking for it."""
    try:
        return bool(secret(name, ask=False))
    except MissingSecret:
        return False


def checked(value: str, name: str) -> str:
    """Return a key that can be sent as it is; raises BadSecret for a character no key has.

    A key goes into a header, where a line break or a Hangul letter would fail far from its cause.
    """
    if odd := re.search(r"[^!-~]|^[\"'`]|[\"'`]$", value):
        plain = {"\n": "line break", "\r": "line break", "\t": "tab", " ": "space"}
        called = plain.get(odd[0]) or unicodedata.name(odd[0], f"U+{ord(odd[0]):04X}").lower()
        raise BadSecret(f"{name} has a character that no key has ({called}, number "
                        f"{odd.start() + 1}): copy the key once more, without anything around it, "
                        "and set it again.")
    return value


def scrub_notebook_errors() -> None:
    """Keep keys out of the tracebacks that a notebook saves, whoever raised the error."""
    ipython = sys.modules.get("IPython")
    shell = ipython and ipython.get_ipython()
    shown = getattr(shell, "_showtraceback", None)
    if shown is None or hasattr(shown, "scrubs"):
        return

    def show(kind, error, lines):
        # Whoever waits for the cell is told of the error itself, apart from what is saved of it.
        error.args = tuple(scrub(arg) if isinstance(arg, str) else arg for arg in error.args)
        clean = scrub(str(error))
        shown(kind, error if clean == str(error) else Exception(clean), [*map(scrub, lines)])

    show.scrubs = True
    shell._showtraceback = show


def can_ask() -> bool:
    """Return whether somebody is there to type: a terminal, or a notebook with a keyboard."""
    if ipython := sys.modules.get("IPython"):
        kernel = getattr(ipython.get_ipython(), "kernel", None)
        if kernel is not None:
            return bool(getattr(kernel, "_allow_stdin", False))
    return sys.stdin is not None and sys.stdin.isatty()


def _from_env_file(name: str) -> str | None:
    from dotenv import dotenv_values  # not there yet when the first cell begins

    for path in (Path.cwd() / ".env", REPO / ".env"):
        try:
            value = dotenv_values(path, encoding="utf-8-sig", interpolate=False).get(name)
        except OSError:
            continue
        except UnicodeDecodeError:  # as PowerShell's > writes it
            raise BadSecret(f"{shown(path)} is not UTF-8: save it as UTF-8.") from None
        if value:
            if os.name == "posix" and path.stat().st_mode & 0o077 and path not in _warned:
                _warned.add(path)
                print("Others on this machine can read your keys: run `chmod 600 .env`.")
            return value
    return None
