"""Takes keys out of a text: those that were found, and whatever has the shape of one.

Every CourseError passes through `scrub`, and every line of a journal through `scrub_known`, because
a server may send back the very key it refuses. Imports nothing of the package.
"""

import json
import os
import re

_NAMES = re.compile(r"(?i)(?:\w*_)?(?:API)?(?:KEY|TOKEN|SECRET|PASSWORD|PASSWD)(?:_ID|_\d+)?"
                    r"|NAVER_CLIENT_\w+")
_WORD = "(?:[A-Z]?[a-z]+|[A-Z]+|[0-9]+)"
_WORDS = re.compile(f"{_WORD}(?:[ _.-]{_WORD})*")
_PATTERNS = (
    # http://user:password@proxy, or a token as the user's name
    (re.compile(r"(?<=://)(?:[^/\s:@]*:[^/\s@]+|[^/\s:@]{16,})@"), "[secret]@"),
    (re.compile(r"\bsk-[\w*-]{8,}|\bAIza[\w*-]{16,}|\b(?:nvapi-|github_pat_)[\w*-]{16,}"
                r"|\b(?:hf_|gsk_|xai-|gh[pousr]_)[A-Za-z0-9*]{16,}", re.ASCII), "[secret]"),
    # With a digit or a sign in it: "bearer authentication" is no key.
    (re.compile(r"(?i)(?<=\bbearer )(?=\S*[\d*_.~+/=-])[\w*.~+/=-]{6,}"), "[secret]"),
    (re.compile(r"(?i)(?<=\bbasic )[\w+/]{12,}=*"), "[secret]"),
)  # fmt: skip
_found: dict[str, str] = {}  # keys that did not come from the environment: their values and names


def remember(value: str | None, name: str = "API key") -> None:
    """Have a key taken out of every text from now on; one of the environment is without it."""
    if value:
        _found.setdefault(value, name)


def scrub(text: str) -> str:
    """Return a text without keys: those known here, and whatever looks like one.

    >>> scrub("Incorrect API key provided: sk-12345678")
    'Incorrect API key provided: [secret]'
    """
    text = scrub_known(text)
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def scrub_known(text: str) -> str:
    """Return a text without the keys of the environment and those that are remembered."""
    environment = {value: name for name, value in os.environ.items() if _NAMES.fullmatch(name)}
    known = _found | environment  # the environment knows what a key is called
    for value in sorted(known, key=len, reverse=True):  # one may be the beginning of another
        # "none", "postgres", "not-needed" and 12345678 are ordinary text, no keys.
        if len(value) >= 16 or (len(value) >= 8 and not _WORDS.fullmatch(value)):
            for written in {value, json.dumps(value, ensure_ascii=False)[1:-1]}:  # in JSON, too
                text = text.replace(written, f"[{known[value]}]")
    return text
