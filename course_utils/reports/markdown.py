"""Markdown around texts of models: escaped or fenced, so that no answer can change the page."""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from itertools import accumulate


def plain(text: str, limit: int = 80) -> str:
    """A text on one line as it is: what Markdown or HTML would read in it becomes &#...;.

    Safe in a table's cell, in a heading and within a sentence, though not at the beginning of a
    line, where "1." or "-" makes a list. "a|b" -> "a&#124;b"
    """
    text = " ".join(visible(str(text)).split())
    text = text if len(text) <= limit else text[: limit - 1] + "…"
    return _ACTIVE.sub(lambda found: f"&#{ord(found[0])};", text)


# All punctuation but -,%+' and: a colon before a space, a full stop unless it makes an address.
_ACTIVE = re.compile(r"[!-$&(*/;-@\[-`{-~)]|:(?! )|(?<=www)\.")


def fenced(text: str, limit: int = 1_200) -> str:
    """A text in a fence longer than any in it, cut with a note where it is longer than `limit`.

    Lines wider than a page are folded, since GitHub does not.
    """
    text = visible(text)
    if not text.strip():
        return "(empty 빈 글)"
    shown, more = "\n".join(map(_folded, text[:limit].split("\n"))), len(text) - limit
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", shown)), default=0))
    note = f"\n\n(cut 생략: {more:,} more characters in the journal)" if more > 0 else ""
    return f"{fence}text\n{shown}\n{fence}{note}"


def _folded(line: str, width: int = 100) -> str:
    """A line as lines of at most `width` columns, a Korean letter being two of them wide."""
    lines = []
    while True:
        columns = accumulate(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in line)
        fits = sum(column <= width for column in columns)
        if fits == len(line):
            return "\n".join([*lines, line])
        end = line.rfind(" ", fits // 2, fits + 1) + 1 or fits
        lines.append(line[:end].rstrip(" "))
        line = line[end:]


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
