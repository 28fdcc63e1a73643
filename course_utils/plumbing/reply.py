"""What a server sent back, of whatever shape: the answer in it, how it ended, what it took.

A reply is a message, a delta or a text of the first choice; its content is a text or a list of
parts. What the model thought aloud is not its answer. Whatever holds none is a ValueError.
"""

import math
import re

from course_utils.plumbing.connection import ErrorInReply

_TAG = r"(?:\w+:|\|)?(?:think(?:ing)?|thoughts?|reasoning)"
_OPEN = rf"(?:[<◁]{_TAG}(?:\||\s[^<>\n/]*)?[>▷]|\[THINK\])"
_CLOSE = rf"(?:[<◁]/{_TAG}\|?\s*[>▷]|\[/THINK\])"
# An answer may begin with the tag that it speaks of: "<think>와 </think>는 태그입니다."
_SPOKEN = r"\s?(?:[는란를]|라는|태그|토큰|(?:tag|token)s?\b|(?:와|과|및|and|,|/)\s*[<\[]/)"
_PARTICLES = {"는 ", "란 ", "를 ", "라는"}  # no answer begins so, unless it speaks of the tag
_THOUGHT = re.compile(rf"\s*(?:<{_TAG}\s*/>|{_OPEN}(?!{_SPOKEN})(?:.*?{_CLOSE}|.*\Z))\s*",
                      re.DOTALL | re.IGNORECASE)
# The end of thoughts that a template began: at a line's end, or where no particle follows.
_END_OF_THOUGHT = re.compile(
    rf"{_CLOSE}[ \t]*(?:\n\s*|\Z)|(?:^[ \t]*|(?<=[^\s`'\"(])){_CLOSE}"
    r"(?![ \t]?[`'\").,은는란를라로가와과이을의에까태토]|[ \t](?:is|tag|and)\b)[ \t]*",
    re.MULTILINE | re.IGNORECASE)


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
        text = answer(said) or answer(refusal)
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


def answer(content) -> str:
    """The text of a reply without what the model thought aloud: parts of a list, or what stands
    before the answer, between <think> and </think>, of which the first may be missing. A tag that
    the answer speaks of stays. Raises TypeError for what holds no text."""
    text = _text(content)
    while (thought := _THOUGHT.match(text)) and text[thought.end():][:2] not in _PARTICLES:
        text = text[thought.end():]
    end = _END_OF_THOUGHT.search(text)
    before = text[:end.start()] if end else ""
    if end and not re.search(_OPEN, before, re.IGNORECASE) and before.count("```") % 2 == 0:
        return text[end.end():]
    return text


def _text(content) -> str:
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
