"""Korean text in pieces: one shared morphological analyser, made when it is first needed.

Spaces do not separate Korean words: `지도를`, `지도는` and `지도에서` are one noun with three
particles, and `지도자` (a leader) is another noun altogether. Kiwi (kiwipiepy) takes them apart:

    tokens("지도를 보자")  ->  [("지도", "NNG"), ("를", "JKO"), ("보", "VV"), ("자", "EF")]

Loading its model takes one to two seconds, so it is loaded by the first text that needs it.
"""

import re
import threading
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

_HANGUL = re.compile("[가-힣ㄱ-ㆎᄀ-ᇿ]")
_IN_PARTS = re.compile("[가-힣]?[ᄀ-ᇿ]+")
_lock = threading.Lock()
_kiwi = None


def tokens(text: str) -> list[tuple[str, str]]:
    """Morphemes of a text as (form, part of speech), in Kiwi's tag set: NNG a common noun, ..."""
    return [(token.form, token.tag) for token in _tokenize([clean(text)])[0]]


def forms(texts: Iterable[str]) -> list[list[str]]:
    """The morphemes of many texts, without tags; one call is much faster than one call a text."""
    return [[token.form for token in row] for row in _tokenize(list(map(clean, texts)))]


def clean(text: str) -> str:
    """The text with Hangul in syllables, and "?" for half a character (a lone surrogate).

    A Mac writes 한 as ㅎ, ㅏ and ㄴ, which look the same and are other characters.
    """
    whole = text.encode("utf-8", "replace").decode()
    return _IN_PARTS.sub(lambda match: unicodedata.normalize("NFC", match[0]), whole)


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


_NO_PROSE = re.compile(
    r"^ {0,3}(?P<fence>```+|~~~+).*?(?:^ {0,3}(?P=fence)[`~]*\s*$|\Z)|`[^`\n]+`|(?:https?://|www\.)\S+",
    re.DOTALL | re.MULTILINE,
)
_LETTERS = {  # language, what its letters are called, how their names in Unicode begin
    "ko": ("Korean", "Hangul", ("HANGUL",)),
    "en": ("English", "Latin letters", ("LATIN",)),
    "ja": ("Japanese", "kana and kanji", ("HIRAGANA", "KATAKANA", "CJK")),
    "zh": ("Chinese", "Chinese characters", ("CJK",)),
}


def verb_object(text: str) -> tuple[str, str | None] | None:
    """The root verb of an instruction in its dictionary form, and its object, None if it has none.

    "다음 글을 읽고 한 문장으로 요약해 주세요."  ->  ("요약하다", "글")
    "광합성에 대해 알려 줄래요?"               ->  ("알리다", "광합성")
    "한국의 수도는 어디인가요?"                ->  ("어디이다", "수도")

    The verb is the last one of the first sentence that asks for something; auxiliaries and
    politeness (-어 주다, -ㄹ 수 있다, -면 좋겠다) do not count, a noun with 하다 is one verb. The
    object is the nearest noun before it with 을/를 or 에 대해, else one with 은/는/도/만, else the
    object of a clause joined by -고 or -어; in a question without one, what it asks about.

    It is a rule over morphemes and no parser: of two things asked for it sees one, a clause in
    the object's place ("맞는지 말하세요") is no object, "할머니께서 편찮으세요." looks like
    a request, and it errs where the analyser does. None for a text without a verb. After
    Self-Instruct (Wang et al., 2023), which parses English. Taught in 01, section 7.
    """
    text = _LONE_ONE.sub(" 한 가지", _QUOTED.sub(_unquoted, clean(text)))
    parts = _SENTENCE_END.split(text)
    rows = _tokenize(parts)
    sentences = [_Sentence(part, row) for part, row in zip(parts, rows, strict=True) if row]
    if not sentences:
        return None
    sentence = next((each for each in sentences if each.asks()), sentences[-1])
    found = sentence.predicate(len(sentence.tokens))
    return found and (found[0], sentence.object(found[1]))


_SENTENCE_END = re.compile(r"(?<=[.?!])\s+|:\s|\n+")
_QUOTED = re.compile(r"(?:'([^'\n]+)'|\"([^\"\n]+)\"|‘([^’]+)’|“([^”]+)”)([를는가와])?")
_LONE_ONE = re.compile(r"(?<=[을를]) 하나(?= )")  # Kiwi reads this numeral as a form of 하다

_NOUN = {"NNG", "NNP", "NNB", "NP", "NR", "SL", "SW", "SN", "XR", "XPN", "XSN", "ETN"}
_VERB = {"VV", "VA", "VX", "XSV", "XSA", "VCP", "VCN"}
_NUMBER = {"MM", "NR", "SN"}
_ABOUT = {"대하", "관하"}  # 에 대해, 에 관해
# The clause of these says how: 예를 들어, 경험을 살려, 표를 이용해.
_MEANS = {"들", "보", "살리", "이용하", "사용하", "활용하", "위하", "통하", "따르"} | _ABOUT
_POINTER = {"다음", "아래", "위", "이것", "그것", "무엇", "뭐", "어디", "누구", "누", "나", "저"}
_ADVERBIAL = {"게", "도록", "듯이"}  # endings whose clause only says how
_SHARED = {"고", "며", "어", "아", "여", "어서", "아서", "여서"}  # endings that share an object


def _unquoted(match: re.Match) -> str:
    """A quoted word as it is, a quoted text as one noun with the particle that this noun takes."""
    inside, particle = next(filter(None, match.groups()[:4])), match[5] or ""
    if inside.isalnum():
        return inside + particle
    return "인용문" + particle.translate(str.maketrans("를는가와", "을은이과"))


@dataclass(frozen=True)
class _Sentence:
    """A sentence and its morphemes; indices may run over the ends, where every form is ""."""

    text: str
    tokens: list

    def form(self, i: int) -> str:
        return self.tokens[i].form if 0 <= i < len(self.tokens) else ""

    def tag(self, i: int) -> str:
        """A part of speech without Kiwi's mark of a regular or irregular stem (VV-I)."""
        return self.tokens[i].tag.partition("-")[0] if 0 <= i < len(self.tokens) else ""

    def surface(self, first: int, end: int) -> str:
        return self.text[self.tokens[first].start:self.tokens[end - 1].end]

    def is_question(self) -> bool:
        return "?" in self.text[-2:]

    def asks(self) -> bool:
        """Whether the sentence is a question, an imperative or ends with -어 줘."""
        last = max((i for i in range(len(self.tokens)) if self.tag(i) == "EF"), default=0)
        if self.form(last - 2) in ("안녕", "못"):
            return False
        give = self.form(last - 1) == "주" and self.tag(last - 1) == "VX"
        return give or self.is_question() or self.form(last).endswith(("세요", "시오", "라"))

    def predicate(self, end: int) -> tuple[str, int] | None:
        """The last main verb before `end`, in its dictionary form, and where it begins."""
        i = end - 1
        while i >= 0:
            form, tag = self.form(i), self.tag(i)
            helper = tag == "VX" or form in ("오", "가") and self.form(i - 1) in ("어", "아")
            if tag not in _VERB or helper and self.tag(i - 1) == "EC":
                i -= 1  # -어 주다, 사 오다
            elif form in ("있", "없") and "수" in (self.form(i - 1), self.form(i - 2)):
                i -= 3  # -ㄹ 수 있다
            elif form == "바라" and self.tag(i - 1) == "ETN":
                i -= 2  # -기 바라다
            elif form == "좋" and self.form(i - 2) == "것":
                i -= 3  # -는 것이 좋다
            elif form in ("되", "하", "좋", "어떻") and tag != "XSV" and self.condition(i):
                i = self.condition(i)  # -면 되다, -려면 어떻게 하다, -면 좋다, -면 어떻다
            else:
                return self.verb(i)
        return None

    def condition(self, i: int) -> int:
        """Where the clause with -면 ends that verb i, without words of its own, only completes."""
        for j in range(i - 1, 0, -1):
            if self.tag(j) == "EC" and self.form(j).endswith("면"):
                return j
            if self.tag(j) in ("JKO", "JX"):
                return 0
        return 0

    def verb(self, i: int) -> tuple[str, int]:
        """The dictionary form of the verb with morpheme i, and where the verb begins."""
        form, tag, before = self.form(i), self.tag(i), i - 1
        if tag in ("VCP", "VCN"):
            first = self.first(before)
            first -= self.tag(first - 1) == "MM"  # 몇 개이다
            return self.surface(first, i) + form + "다", first
        if tag == "VV" and (self.tag(before) == "JKO" or self.form(before) == "좀"):
            before -= 1  # 설명을 하다, 설명 좀 하다
        if tag in ("XSV", "XSA") or self.tag(before) == "NNG" and form in ("하", "드리"):
            first = self.first(before)
            form = "하" if form == "드리" else form
            return self.surface(first, before + 1) + form + "다", first
        return form + "다", i

    def object(self, start: int, topics: bool = True) -> str | None:
        """The object of the verb that begins at `start`; `topics` allows 은/는/도/만 to mark it."""
        topic = None
        for i in range(start - 1, -1, -1):
            form, tag = self.form(i), self.tag(i)
            if tag == "EC" and form not in _ADVERBIAL and self.tag(i + 1) != "VX":  # a clause ends
                joined = self.predicate(i) if form in _SHARED else None
                if joined and joined[0].removesuffix("다") in _MEANS:
                    continue
                if topic or not joined or self.form(start - 1) == "에":  # 물음에 답하다
                    return topic
                return self.object(joined[1], topics and self.is_question())
            if i + 1 < start and self.governed(i + 1):
                continue
            if tag == "JKO" or form == "에" and self.form(i + 1) in _ABOUT:
                if noun := self.noun(i):
                    return noun
            elif not topic and topics:
                marked = tag == "JX" and form in ("은", "는", "도", "만")
                if marked or tag == "JKS" and self.is_question():
                    topic = self.noun(i)
                if topic and self.is_question() and form in ("은", "는"):
                    return topic
        if not topic and self.tag(start) == "NNG" == self.tag(start - 1):
            topic = self.noun(start)  # 메뉴 추천해 줘
        return topic

    def governed(self, i: int) -> bool:
        """Whether a verb of an inner clause begins at i: the noun before it is its own."""
        while self.tag(i) == "NNG" and self.tokens[i].end == self.tokens[i + 1].start:
            i += 1
        inner = self.tag(i) in ("VV", "XSV") and self.form(i) not in _ABOUT
        return inner and self.form(i + 1) not in ("ᆷ", "음")  # 높임말 is 높이 + ㅁ + 말

    def first(self, i: int) -> int:
        """Where the word begins that ends with morpheme i: compounds are written together."""
        while i and self.tokens[i - 1].end >= self.tokens[i].start:
            if self.tag(i - 1) not in _NOUN and self.tag(i) != "ETN":
                break
            i -= 1
        return i

    def noun(self, end: int) -> str | None:
        """The noun before `end`; a number or a counter gives way to what is counted."""
        last = end - 1
        while last >= 0 and self.tag(last) in _NOUN:
            first = self.first(last)
            counted = self.tag(first - 1) in _NUMBER or self.tag(first) in _NUMBER
            if self.tag(last) in _NUMBER or self.tag(last) == "NNB" and counted:
                last = first - 1 - (self.tag(first - 1) in _NUMBER)
                continue
            last -= self.tag(last) == "XSN" and self.form(last) == "들"
            word = self.surface(first, last + 1)
            return None if word in _POINTER else word
        return None
