"""The rules an instruction-data task must pass, rewritten from Alpaca's heuristics for Korean.

Alpaca's own post-processing throws away every instruction that begins with a letter outside ASCII,
which in Korean is every instruction. Its ideas are kept here and its assumptions are not: lengths
are counted in 어절 (what stands between spaces), and words that give away a task no text model can
do, such as 지도 (a map), are looked for among morphemes, so that 지도자 (a leader) is none.

Each rule has a name, a description and a test that is true for a bad task; the first rule that
fires is the one reason a task is rejected for. Taught in 01, section 3.
"""

import re
import unicodedata
from collections.abc import Callable
from typing import NamedTuple

from course_utils import korean
from course_utils.tasks import Task

MIN_WORDS, MAX_WORDS = 2, 100  # 어절 of an instruction; Alpaca: 4 to 150 English words
MIN_HANGUL = 0.2  # of the letters: "SQL에서 LEFT JOIN과 INNER JOIN을 비교하세요." is Korean enough


class Rule(NamedTuple):
    """One reason to reject a task: what it is for, and a test that is true for a bad task."""

    description: str
    test: Callable[[Task], bool]


# What a text model cannot see, show or play.
_MEDIA = frozenset(
    "그림 사진 이미지 동영상 비디오 오디오 지도 그래프 차트 파일 링크 스크린샷".split())
_PLAYABLE = frozenset("음악 노래 영상 소리 음성 라디오".split())
# A cheap first look: most instructions hold none of these syllables and need no analysis.
_HINT = re.compile("|".join([*sorted(_MEDIA), "재생", "그[리려렸린릴립]", "트[는세]|틀"]))
_GUIDANCE = frozenset("하 되 받 교수 교사".split())  # 지도하다, 지도받다, 지도 교수: not a map


def _needs_medium(task: Task) -> bool:
    text = unicodedata.normalize("NFC", task.instruction)
    if not _HINT.search(text):
        return False
    pieces = korean.tokens(text)
    for (form, tag), (after, its_tag) in zip(pieces, [*pieces[1:], ("", "")], strict=True):
        if tag.startswith("NN") and form in _MEDIA:
            compound = its_tag.startswith("NN") and form + after in text  # 그림책, 사진사
            if not compound and not (form == "지도" and after in _GUIDANCE):
                return True
        if form == "그리" and tag.startswith("VV"):  # to draw
            return True
    nouns = {form for form, tag in pieces if tag.startswith("NN")}
    plays = "재생" in nouns or any(form == "틀" and tag.startswith("VV") for form, tag in pieces)
    return plays and not nouns.isdisjoint(_PLAYABLE)


_OPENING = dict(zip("\"'“‘「『《〈([<`", "\"'”’」』》〉)]>`", strict=True))


def _leading_punctuation(task: Task) -> bool:
    first, rest = task.instruction.strip()[0], task.instruction.strip()[1:]
    if first in _OPENING:  # a quotation that is closed is a good beginning: '사과'의 뜻은?
        return _OPENING[first] not in rest
    return unicodedata.category(first)[0] in "PS"


def _repeats_instruction(task: Task) -> bool:
    instruction, output = task.instruction.strip(), task.output.strip()
    if instruction[-1] in ".?!:" and output.startswith(instruction):
        return True  # only a whole sentence: "한국의 수도" may begin "한국의 수도는 서울입니다."
    squashed = _squash(instruction)
    return bool(squashed) and squashed == _squash(output)


def _squash(text: str) -> str:
    return "".join(filter(str.isalnum, unicodedata.normalize("NFC", text))).casefold()


_ANYWHERE = frozenset("없음 해당없음 입력없음 필요없음 n/a none null noinput".split())
_IN_BRACKETS = frozenset("입력 입력값 내용 텍스트 문장 본문 글 기사 질문 생략 input text".split())
_PLEASE_FILL = re.compile("(입력|삽입|넣|적|써|쓰)(하|으|어)?( ?주)?(세요|십시오)$")


def _placeholder(task: Task) -> bool:
    text = task.input.strip()
    bare = text.strip("<>()[]{}〈〉「」 \t\n.").replace(" ", "").lower()
    if text and (bare in _ANYWHERE or not bare.strip("-–—_…")):
        return True
    inside = re.fullmatch(r"[<(\[{〈]([^<>()\[\]{}〈〉]+)[>)\]}〉]", text)
    if not inside:
        return False
    words = inside[1].strip(" .")
    if bare in _IN_BRACKETS or _PLEASE_FILL.search(words):
        return True
    # "<기사 본문>" stands for something; "<html>" and "[1, 2, 3]" are something.
    return text[0] in "<〈" and len(words.split()) <= 5 and korean.hangul_share(words) > 0.5


RULES: dict[str, Rule] = {
    "missing field": Rule(
        "The instruction or the output is missing or empty.",
        lambda task: not (task.instruction.strip() and task.output.strip())),
    "too short": Rule(
        f"The instruction has fewer than {MIN_WORDS} 어절.",
        lambda task: len(task.instruction.split()) < MIN_WORDS),
    "too long": Rule(
        f"The instruction has more than {MAX_WORDS} 어절.",
        lambda task: len(task.instruction.split()) > MAX_WORDS),
    "not Korean": Rule(
        f"Less than {MIN_HANGUL:.0%} of the instruction's letters are Hangul.",
        lambda task: korean.hangul_share(task.instruction) < MIN_HANGUL),
    "needs another medium": Rule(
        "The instruction asks for a picture, a map, a file, a link, music or the like.",
        _needs_medium),
    "leading punctuation": Rule(
        "The instruction begins with a mark that opens no quotation or bracket.",
        _leading_punctuation),
    "repeats the instruction": Rule(
        "The output is the instruction again, or begins by repeating it.",
        _repeats_instruction),
    "placeholder input": Rule(
        'The input only stands for an input, as in "<기사 본문>", "(없음)" or "N/A".',
        _placeholder),
}
"""The rules in the order they are asked. Besides these, a candidate of a reply may be "truncated"
(prompts.py), and a good task may still be "similar" to an earlier one (similarity.py)."""


def check_task(task: Task) -> str | None:
    """The name of the first rule that rejects this task, or None for a good one.

    Task("서울 지도를 그려 주세요.", "", "네.") -> "needs another medium"
    """
    return next((name for name, rule in RULES.items() if rule.test(task)), None)
