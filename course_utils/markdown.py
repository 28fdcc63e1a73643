"""Markdown around texts of models: escaped or fenced, so that no answer can change the page."""

import re
import unicodedata
from collections.abc import Iterable, Sequence


def plain(text: str, limit: int = 80) -> str:
    """A text on one line as it is: what Markdown or HTML would read in it becomes &#...;.

    Safe in a table's cell, a heading and a sentence. "a|b" -> "a&#124;b"
    """
    text = " ".join(visible(str(text)).split())
    text = text if len(text) <= limit else text[: limit - 1] + "…"
    return re.sub(r"[!-/:-@\[-`{-~]|(?<=www)\.", _entity, text)


def _entity(match: re.Match) -> str:
    kept = match[0] in "-,%+'" or match[0] == "." and match.string[: match.start()][-3:] != "www"
    return match[0] if kept else f"&#{ord(match[0])};"


def fenced(text: str, limit: int = 1_200) -> str:
    """A text in a fence longer than any in it, cut with a note where it is longer than `limit`."""
    text = visible(text)
    if not text.strip():
        return "(empty 빈 글)"
    shown, more = text[:limit], len(text) - limit
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", shown)), default=0))
    note = f"\n\n(cut 생략: {more:,} more characters in the journal)" if more > 0 else ""
    return f"{fence}text\n{shown}\n{fence}{note}"


def table(head: Sequence, rows: Iterable[Sequence]) -> str:
    """A table of cells that are Markdown already; `plain` makes them so."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def visible(text: str) -> str:
    """Lines end in one way, and what acts without being seen is written out, as \\u202e.

    Joined emoji stay joined; letters that turn round the direction of a line do not stay hidden.
    """
    text = re.sub("\r\n?|[\v\f\x1c-\x1f\x85\u2028\u2029]", "\n", text)
    return "".join(
        c
        if c in "\n\t\u200d" or c.isprintable() or unicodedata.category(c) == "Zs"
        else f"\\u{ord(c):04x}"
        for c in text
    )
