"""Korean text in one form, and in pieces: one shared morphological analyser, made when needed.

Spaces do not separate Korean words: `지도를`, `지도는` and `지도에서` are one noun with three
particles, and `지도자` (a leader) is another noun altogether. Kiwi (kiwipiepy) takes them apart:

    tokens("지도를 보자")  ->  [("지도", "NNG"), ("를", "JKO"), ("보", "VV"), ("자", "EF")]

Loading its model takes one to two seconds, so it is loaded by the first text that needs it.
"""

import re
import threading
import unicodedata
from collections.abc import Iterable

_HANGUL = re.compile("[가-힣ㄱ-ㆎᄀ-ᇿ]")
# What most texts are made of and nothing needs to be done about.
_PLAIN = re.compile(r"[\t\n -~가-힣ㄱ-ㅎㅏ-ㅣ一-鿿·‘’“”…]*")
# What nobody sees: controls, soft hyphens, fillers, blanks without width, directions, byte order.
_UNSEEN = re.compile("[\x00-\x08\x0e-\x1f\x7f\xad\u115f\u1160\u180e\u200b\u200e\u200f\u202a-\u202e"
                     "\u2060-\u2069\u3164\ufeff\uffa0]")
# A joiner is of use between two letters or emoji that can be joined, which these cannot.
_IDLE = re.compile(r"(?<![^\s -~가-힣ᄀ-ᇿ])[\u200c\u200d]+|[\u200c\u200d]+(?![^\s -~가-힣ᄀ-ᇿ])")
_BLANK = re.compile("[\u00a0\u2000-\u200a\u202f\u205f\u3000]")  # a space of another width
_lock = threading.Lock()
_kiwi = None


def tokens(text: str) -> list[tuple[str, str]]:
    """Morphemes of a text as (form, part of speech), in Kiwi's tag set: NNG a common noun, ..."""
    return [(token.form, token.tag) for token in _tokenize([clean(text)])[0]]


def forms(texts: Iterable[str]) -> list[list[str]]:
    """The morphemes of many texts, without tags; one call is much faster than one call a text."""
    return [[token.form for token in row] for row in _tokenize(list(map(clean, texts)))]


def clean(text: str) -> str:
    """The one form of all texts that look alike: whatever compares texts compares these.

    Letters in one piece (a Mac writes 한 as ㅎ, ㅏ and ㄴ), plain spaces and ends of lines,
    nothing that nobody sees, and "?" for half a character.
    """
    if _PLAIN.fullmatch(text):
        return text
    text = unicodedata.normalize("NFC", text.encode("utf-8", "replace").decode())
    text = _BLANK.sub(" ", text.replace("\r\n", "\n").replace("\r", "\n"))
    return unicodedata.normalize("NFC", _IDLE.sub("", _UNSEEN.sub("", text)))


def _tokenize(texts: list[str]) -> list[list]:
    """Kiwi's tokens of many texts; one thread at a time, and the first one loads the model."""
    global _kiwi
    with _lock:
        if _kiwi is None:
            from kiwipiepy import Kiwi

            _kiwi = Kiwi()
        return list(_kiwi.tokenize(texts))


def hangul_share(text: str) -> float:
    """The share of Hangul among the letters of a text, 0 if it has no letter.

    "Python 설치" -> 0.25
    """
    letters = sum(character.isalpha() for character in text)
    return len(_HANGUL.findall(text)) / letters if letters else 0.0


def language_flag(text: str, answer_lang: str = "ko") -> str | None:
    """Why an answer looks as if it were not in the language asked for, or None.

    A flag to show beside a score, never a score: a name or a quotation may be right as it is.
    Knows "ko", "en", "ja" and "zh" by their letters; of "code" and "json" it only says when nothing
    was written. "Seoul is the capital." -> "mostly not Korean: 0% Hangul"
    """
    if not text.strip():
        return "empty answer"
    if answer_lang in ("code", "json"):
        return None
    if answer_lang not in _LETTERS:
        return f"not checked: no rule for the language {answer_lang!r}"
    language, name, scripts = _LETTERS[answer_lang]
    letters = [character for character in _NO_PROSE.sub(" ", text) if character.isalpha()]
    share = sum(unicodedata.name(c, "").startswith(scripts) for c in letters) / (len(letters) or 1)
    if not letters or share >= 0.5:
        return None
    return f"mostly not {language}: {share:.0%} {name}"


_NO_PROSE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]+`|https?://\S+", re.DOTALL)  # code, addresses
_LETTERS = {  # language, what its letters are called, how their names in Unicode begin
    "ko": ("Korean", "Hangul", ("HANGUL",)),
    "en": ("English", "Latin letters", ("LATIN",)),
    "ja": ("Japanese", "kana and kanji", ("HIRAGANA", "KATAKANA", "CJK")),
    "zh": ("Chinese", "Chinese characters", ("CJK",)),
}


def verb_object(text: str) -> tuple[str, str | None] | None:
    """The verb of an instruction in its dictionary form, and its object, None if it has none.

    "다음 글을 읽고 한 문장으로 요약해 주세요."  ->  ("요약하다", "글")
    "광합성에 대해 알려 줄래요?"               ->  ("알리다", "광합성")

    The verb is the last one, auxiliaries apart, of the last sentence that asks for something; a
    noun with 하다 or 이다 is one verb. The object is the nearest noun before it with 을/를, 은/는,
    도 or 에 대해. A rule and no parser: of 60 instructions read by hand (tests/test_korean.py) it
    agrees on 48. None for a text without a verb. After Self-Instruct (Wang et al., 2023), which
    parses English. Used in 01, section 5.
    """
    sentences = [part for part in _SENTENCE_END.split(clean(text)) if part.strip()]
    asking = [sentence for sentence in sentences if _ASKS.search(sentence)]
    if not sentences:
        return None
    sentence = (asking or sentences)[-1]
    pieces = [piece for piece in _tokenize([sentence])[0] if piece.form != "좀"]  # 설명 좀 해 줘
    for i in reversed(range(len(pieces))):
        if _tag(pieces[i]) in _VERBS and not _helps(pieces, i):
            break
    else:
        return None
    verb = pieces[i].form
    if i and (verb == "하" or _tag(pieces[i]) in ("XSV", "XSA", "VCP")):  # 설명하다, 설명을 하다
        i -= 2 if i > 1 and pieces[i - 1].tag == "JKO" else 1
        verb = pieces[i].form + verb
    return verb + "다", _object(sentence, pieces, i)


_SENTENCE_END = re.compile(r"(?<=[.?!])\s+|:\s|\n+")
_ASKS = re.compile(r"(\?|세요|시오|[라줘])[.!]*\s*$")
_VERBS = {"VV", "VA", "VX", "VCP", "XSV", "XSA"}
_NOUNS = {"NNG", "NNP", "SL", "SW", "XR", "XPN", "XSN"}  # and of what they may be joined: is_even
_COUNTERS = {"NNB", "NR", "SN", "MM"}  # 생활용품 다섯 가지를: what is counted is meant


def _tag(piece) -> str:
    """A part of speech without Kiwi's mark of a regular or irregular stem (VV-I)."""
    return piece.tag.partition("-")[0]


def _helps(pieces: list, i: int) -> bool:
    """Whether verb i only completes another: -어 주다, -ㄹ 수 있다, -면 되다, -면 좋다."""
    form, before = pieces[i].form, pieces[i - 1]
    if _tag(pieces[i]) == "VX" and before.tag == "EC" or form in ("좋", "어떻", "바라"):
        return True
    return before.form == "수" or before.form.endswith("면") or (before.form, form) == ("게", "하")


def _object(sentence: str, pieces: list, end: int) -> str | None:
    """The nearest marked noun before `end`, with the nouns it is written together with."""
    for i in reversed(range(1, end)):
        form, tag, after = pieces[i].form, pieces[i].tag, pieces[i + 1].form
        about = form == "에" and after in ("대하", "관하")
        if not about and tag != "JKO" and (tag != "JX" or form not in ("은", "는", "도")):
            continue
        last = i - 1
        while last and pieces[last].tag in _COUNTERS:
            last -= 1
        first = last
        while (first and pieces[first - 1].tag in _NOUNS
               and pieces[first - 1].end == pieces[first].start):
            first -= 1
        noun = sentence[pieces[first].start:pieces[last].end]
        points = pieces[last].tag not in _NOUNS or noun in ("다음", "아래", "위")  # 무엇을, 다음을
        return None if points else noun
    return None
