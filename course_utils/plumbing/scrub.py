"""Takes keys out of a text: those that were found, and whatever has the shape of one.

Every CourseError passes through `scrub`, and every line of a journal through `scrub_known`, because
a server may send back the very key it refuses. It hides keys, not words: a value that is ordinary
text stays wherever it stands. Imports nothing of the package.
"""

import functools
import os
import re

_NAMES = re.compile(r"(?i)(?:\w*_)?(?:API|PG)?(?:KEY|TOKEN|SECRET|PASS(?:WORD|WD)?)(?:_ID|_\d+)?"
                    r"|\w+_(?:PAT|PWD)|NAVER_CLIENT_\w+")
_SHAPE = (r"sk-(?!learn)[\w*-]{8,}|AIza[\w*-]{16,}|(?:nvapi-|github_pat_)[\w*-]{16,}"
          r"|(?:hf_|gsk_|xai-|gh[pousr]_|AKIA|ASIA)[A-Za-z0-9*]{16,}")
_PATTERNS = (
    # http://user:password@proxy, or a token as the user's name
    (re.compile(r"(?<=://)(?:[^/\s:@]*:[^/\s@]+|[^/\s:@]{16,})@"), "[secret]@"),
    (re.compile(rf"\b(?:{_SHAPE})", re.ASCII), "[secret]"),
    # With a digit or a sign in it: "bearer authentication" is no key.
    (re.compile(r"(?i)(?<=\bbearer )(?=\S*[\d*_.~+/=-])[\w*.~+/=-]{6,}"), "[secret]"),
    (re.compile(r"(?i)(?<=\bbasic )[\w+/]{12,}=*"), "[secret]"),
    # ?key=... of an address, x-api-key: ... of a header
    (re.compile(r"(?i)([?&](?:api_?|access_)?(?:key|token)=|\bapi-key[\"']?: ?[\"']?)"
                r"(?=\S*\d)[\w.~+/%-]{8,}"), r"\1[secret]"),
)  # fmt: skip
_WORD = "(?:[A-Z]?[a-z]{1,15}|[A-Z]{1,15}|[0-9]{1,15}|[0-9]{1,3}[a-zA-Z])"
# One or two words, three of an identifier, any of less than 16 letters; then a file or an address,
# whose words may end in digits. "postgres", "prompt_tokens", "no-key-needed", "~/.ssh/id_ed25519".
_TEXT = re.compile(rf"{_WORD}(?:-{_WORD}|(?:[_.]{_WORD}){{0,2}})"
                   rf"|(?!.{{16}}){_WORD}(?:[-_.]{_WORD})*"
                   rf"|(?=.*[/\\.:])[~/\\.]*(?:(?:[A-Za-z]{{1,15}}[0-9]{{1,5}}|{_WORD})"
                   r"(?:[-_./\\:?=&#@~,]+|$))+")
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
    keys = {key: name for value, name in (_found | environment).items() for key in _keys(value)}
    for key in sorted(keys, key=len, reverse=True):  # one may be the beginning of another
        text = _written(key).sub(f"[{keys[key]}]", text)
    return text


def _keys(value: str) -> list[str]:
    """Return what of a value is a key: not what was pasted with it, and no ordinary text."""
    parts = (part.strip("\"'`") for part in re.findall(r"[!-~]{8,}", value))
    return [part for part in parts if len(part) >= 8 and (
        re.match(_SHAPE, part) or not _TEXT.fullmatch(part.strip("-_.")))]


@functools.lru_cache(1000)
def _written(key: str) -> re.Pattern:
    """Return a pattern for a key however it is written: escaped, in an address, over two lines."""
    def one(sign: str) -> str:
        if sign.isalnum():
            return sign
        return rf"(?:\\*{re.escape(sign)}|(?i:\\+u00{ord(sign):02x}|%{ord(sign):02x}))"

    line_break = r"(?:[ \t\r]*(?:\\+r)?(?:\n|\\+n)[ \t]*)?"
    return re.compile(line_break.join(map(one, key)))
