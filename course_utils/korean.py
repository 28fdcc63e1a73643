"""Korean text in pieces: one shared morphological analyser, made when it is first needed.

Spaces do not separate Korean words: `지도를`, `지도는` and `지도에서` are one noun with three
particles, and `지도자` (a leader) is another noun altogether. Kiwi (kiwipiepy) takes them apart:

    tokens("지도를 보자")  ->  [("지도", "NNG"), ("를", "JKO"), ("보", "VV"), ("자", "EF")]

Loading its model takes one to two seconds, so it is loaded by the first text that needs it.
"""

import re
import threading
from collections.abc import Iterable

_HANGUL = re.compile("[가-힣ㄱ-ㆎᄀ-ᇿ]")
_lock = threading.RLock()
_kiwi = None


def tokens(text: str) -> list[tuple[str, str]]:
    """Morphemes of a text as (form, part of speech), in Kiwi's tag set: NNG a common noun, ..."""
    with _lock:
        return [(token.form, token.tag) for token in _analyser().tokenize(text)]


def forms(texts: Iterable[str]) -> list[list[str]]:
    """The morphemes of many texts, without tags; one call is much faster than one call a text."""
    with _lock:
        return [[token.form for token in row] for row in _analyser().tokenize(list(texts))]


def hangul_share(text: str) -> float:
    """The share of Hangul among the letters of a text, 0 if it has no letter.

    "Python 설치" -> 0.25
    """
    letters = sum(character.isalpha() for character in text)
    return len(_HANGUL.findall(text)) / letters if letters else 0.0


def _analyser():
    global _kiwi
    if _kiwi is None:
        from kiwipiepy import Kiwi

        _kiwi = Kiwi()
    return _kiwi
