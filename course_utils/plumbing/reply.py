"""What a server sent back, of whatever shape: its answer without the thoughts, its end, its cost.

A reply is a message, a delta or a text of the first choice; its content is a text or a list of
parts. What the model thought aloud is not its answer. Whatever holds none is a ValueError.
"""

import math
import re

from course_utils.plumbing.connection import ErrorInReply

_TAG = r"(?:think(?:ing)?|thoughts?|reasoning)"
_OPEN, _CLOSE = rf"(?:<{_TAG}\s*>|\[THINK\])", rf"(?:</{_TAG}\s*>|\[/THINK\])"
# What follows a tag that the answer speaks of: "<think>와 </think>는 태그입니다."
_SPOKEN = r" ?(?:[은는을를란와과] |라는|태그|토큰|(?:tag|token)s?\b)"
# Thoughts begin a line, and one that nothing closes goes on to the end. Code stays as it is.
_THOUGHTS = re.compile(
    rf"(?P<code>```.*?```)|^[ \t]*(?!{_OPEN}(?:[^\n]*{_CLOSE})?{_SPOKEN})"
    rf"(?:{_OPEN}.*?(?:{_CLOSE}|\Z)\s*)+", re.DOTALL | re.MULTILINE | re.IGNORECASE)
# The end of one that the prompt had opened.
_END = re.compile(rf"(?:^[ \t]*{_CLOSE}(?!{_SPOKEN})|{_CLOSE}[ \t]*$)\s*",
                  re.MULTILINE | re.IGNORECASE)


def without_thoughts(text: str) -> str:
    """Return a reply without what its model thought aloud: a draft is no answer.

    "<think>초안</think> 네." -> "네."; also where the prompt opened the tag, or nothing closes it.
    A tag within a line, or with a particle, is one that the answer speaks of, and stays.
    """
    text = _THOUGHTS.sub(lambda found: found["code"] or "", text)
    end = _END.search(text)
    before = text[:end.start()] if end else ""
    spoken = re.search(_OPEN, before, re.IGNORECASE) or before.count("```") % 2
    return text[end.end():] if end and not spoken else text


def ends_in_thought(text: str) -> bool:
    """Return whether the last tag of a reply opens a thought, wherever in a line it stands."""
    tags = re.findall(f"{_OPEN}|{_CLOSE}", text, re.IGNORECASE)
    return bool(tags) and "/" not in tags[-1]


def read(response) -> dict:
    """The fields of the journal that a response gives. Raises ValueError if it holds no reply."""
    response = _first(response)
    choice = _at(response, "choices")
    if isinstance(choice, dict) and not choice.keys() & {"message", "delta", "text"}:
        choice = [*choice.values()]
    choice = _first(choice)
    if error := _at(response, "error") or _at(choice, "error"):
        raise ErrorInReply(error)
    said = next((message for name in ("message", "delta", "text")
                 if (message := _at(choice, name)) is not None), None)
    refusal, end = _at(said, "refusal"), _at(choice, "finish_reason")
    try:
        if isinstance(said, dict) or hasattr(said, "content"):
            said = _at(said, "content")
        elif not isinstance(said, str | list):
            raise TypeError
        text = without_thoughts(_text(said)) or without_thoughts(_text(refusal))
    except (TypeError, RecursionError):
        raise ValueError("the server's reply holds no message") from None
    if str(end).lower() == "error":
        raise ValueError("the server broke its reply off (finish_reason error)")
    return {"text": text, "finish_reason": None if end is None else str(end),
            "served_by": _name(_at(response, "model")),
            "system_fingerprint": _name(_at(response, "system_fingerprint")),
            "refusal": refusal if isinstance(refusal, str) else None}


def reported(response) -> tuple[int | None, int | None] | None:
    """The tokens of prompt and completion that a response reports, None for each that it does not;
    None alone for a page or an error, which nobody bills."""
    response = _first(response)
    usage = _at(response, "usage")
    if not usage and _at(response, "choices") is None:
        return None
    asked, told, total = (_tokens(_at(usage, f"{name}_tokens"))
                          for name in ("prompt", "completion", "total"))
    if told is not None and asked is not None:
        told = max(told, (total or 0) - asked)  # Gemini counts thoughts in the total alone
    return asked, told


def _text(content) -> str:
    """The text of a reply or of its parts, but for thoughts; TypeError for what holds none."""
    if content is None or isinstance(content, str):
        return content or ""
    if isinstance(content, list):
        return "".join(map(_text, content))
    if not isinstance(content, dict):
        raise TypeError
    if content.get("thought") or re.search("think|thought|reason", str(content.get("type"))):
        return ""
    return _text(next(filter(None, map(content.get, ("text", "value", "content", "refusal"))), ""))


def _at(thing, name: str):
    """A field of an object or of a dict, None where it has none."""
    return thing.get(name) if isinstance(thing, dict) else getattr(thing, name, None)


def _first(thing):
    """The first of a list, None of an empty one; anything else as it is."""
    return next(iter(thing), None) if isinstance(thing, list) else thing


def _name(said) -> str | None:
    """A server's name for something, without signs that would write elsewhere than in its line."""
    return "".join(filter(str.isprintable, said))[:200] or None if isinstance(said, str) else None


def _tokens(said) -> int | None:
    """A number of tokens, None for what is none: "12" is one, -1 and true are not."""
    try:
        number = math.ceil(float(said))
    except (TypeError, ValueError, OverflowError):
        return None
    return number if 0 <= number < 10**9 and not isinstance(said, bool) else None
