"""From a teacher's reply to tasks: a candidate becomes a task, or a rejection with a named reason.

A reply is numbered text, as the generation prompt asks for it, or JSON. Models keep to neither:
they greet, number anew, set labels in bold, write ４． for 4., leave a field out, or are cut off.
What cannot be understood is rejected under a name and kept as it came, so that for any text

    len(parsed.tasks) + len(parsed.rejected) == len(split_candidates(text))

What is understood must pass the rules, which are Alpaca's, rewritten: those throw away whatever
begins with a letter outside ASCII, as all Korean does. Lengths are in 어절 (what stands between
spaces), and 지도 (a map) is looked for among morphemes, so that 지도자 (a leader) is none. Taught
in 01, sections 2 and 3.
"""

import json
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from course_utils import korean
from course_utils.plumbing.reply import without_thoughts
from course_utils.tasks import Task

MIN_WORDS, MAX_WORDS = 2, 100  # 어절 of an instruction; Alpaca: 4 to 150 English words
MIN_HANGUL = 0.2  # of the letters: "SQL에서 LEFT JOIN과 INNER JOIN을 비교하세요." is Korean enough


# ---------------------------------------------------------------- 1. a reply


class Rejected(NamedTuple):
    """A candidate that did not become a task: the name of the reason, and its text as it came."""

    reason: str
    text: str


@dataclass(frozen=True)
class Parsed:
    """What a reply held; its candidates are all in `tasks` or all in `rejected`, each once."""

    tasks: list[Task]
    rejected: list[Rejected]


WHOLE = {"stop", "stop_sequence", "end_turn", "eos", "eos_token", "complete"}
"""What servers call the end that a model gave its reply itself; whatever else ends one cuts it."""
FIELDS = ("instruction", "input", "output")
_NAMES = (r"(?P<instruction>지시(?:문|[ ]?사항|어)?|명령[어문]?|instruction)"
          r"|(?P<input>입력[값문]?|input)|(?P<output>출력[값문]?|output)"
          r"|(?P<answer>응답|답변|정답|response)")
# Signs before a name or a number, but no quotation mark, which JSON has there. Whatever is repeated
# has an end: without one 80,000 blanks would take minutes.
_SIGNS = r"""[^\w\n"'“”{}]{0,20}"""
_ITEM = r"(?:과제|문제|예시|예제|task|example|item)"
_EACH_LINE = re.IGNORECASE | re.MULTILINE
_LABEL = re.compile(rf"""
    ^{_SIGNS} (?:{_ITEM}{_SIGNS})?                               # - **   ### 과제
    (?:(?P<number>\d{{1,6}}|[①-⑳])(?:[-.]\d{{1,3}})?번?{_SIGNS})?  # 4.   ４．   (4)   4-1.   ④
    (?:{_NAMES})                                                 # 지시문   Instruction
    (?:[ ]?[(](?:instruction|input|output|response)[)])?         # 지시문(Instruction)
    (?:[ ]?[(]?(?P<after>\d{{1,6}})[)]?)?                         # 지시문 4   지시문(4)
    [ \t*_`]{{0,6}} (?:[:：] | (?<=\d)[.] | []】][:：]? | $)        # :   ：   ]   or the line ends
    [*_`]{{0,3}}                                                  # **지시문:**
    """, _EACH_LINE | re.VERBOSE)
_SEPARATOR = re.compile(r"^[ \t]*#{3,}[ \t]*$", re.MULTILINE)
# A line such as "5.", "## 과제 5: 요약" or "### 5. 요약" above an item belongs to it.
_HEADING = re.compile(
    rf"^(?:{_SIGNS}\d{{1,6}}번?{_SIGNS}|(?:{_SIGNS}{_ITEM}[ ]?\d|[#]{{1,6}}[ ])[^\n]{{0,80}})\n+",
    _EACH_LINE)
_IS_NO_INPUT = re.compile("[`\"']?(<?[ ]?no[ _-]?input[ ]?>?)?[`\"']?", re.IGNORECASE)
_KEY = re.compile(_NAMES, re.IGNORECASE)
# An object with a field of a task; an id or the like may stand before it.
_OBJECT = re.compile(rf"""\{{\s*(?:"[^"\\]*"\s*:\s*(?:"[^"\\]*"|[^\s"\[{{}},]+)\s*,\s*){{0,4}}?"""
                     rf""""(?:{_NAMES})"\s*:""", re.IGNORECASE)


def parse_generation(text: str, *, first_number: int, finish_reason: str | None = "stop") -> Parsed:
    """Turn a teacher's reply into tasks, and say what was wrong with every candidate that is none.

    Copes with JSON, whole or cut, fenced or not; with numbers that go on, start anew, drift or are
    missing; with labels in bold, in brackets or above their text; with 명령어 or Instruction for
    지시문; with thoughts before it all. `<noinput>` means no input. Of a reply that was cut (see
    `is_whole`) the last candidate is "truncated". Never raises. Taught in 01, section 2.
    """
    tasks, rejected = [], []
    candidates = split_candidates(text, first_number=first_number)
    for position, candidate in enumerate(candidates, 1):
        fields = read_fields(candidate)
        if position == len(candidates) and not is_whole(finish_reason):
            reason = "truncated"  # a limit struck while this one was being written
        elif len(fields) < len(FIELDS):
            reason = "missing field"  # what the teacher left out is not for us to guess
        else:
            task = Task(**fields)
            reason = check_task(task)  # the name of the rule it breaks, None for a good task
        # One of the two, always: nothing disappears, and every rejection has a name.
        if reason:
            rejected.append(Rejected(reason, candidate))
        else:
            tasks.append(task)
    return Parsed(tasks, rejected)


def is_whole(finish_reason: str | None) -> bool:
    """Return whether a reply ended as its model wanted: "stop", but not "length" or "SAFETY"."""
    return str(finish_reason).lower() in WHOLE


def split_candidates(text: str, *, first_number: int) -> list[str]:
    """Cut a reply into its candidate items, as they came but with their number and label in front.

    In JSON an item is an object that begins with a field of a task. In text it begins at a "###"
    line or at a numbered 지시문 label (at any, if none has a number). The prompt had opened item
    `first_number`, so a reply may begin in its middle; other text before the first label is none.
    """
    text = without_thoughts(korean.clean(text))
    first_object = _OBJECT.search(text)
    if first_object and not _LABEL.search(text[:first_object.start()]):
        return _split_json(text)
    # Cut the text at every line of ### and at every label that opens an item.
    starts = {0} | {match.end() for match in _SEPARATOR.finditer(text)} | _item_starts(text)
    edges = [*sorted(starts), len(text)]
    chunks = [_SEPARATOR.sub("", text[a:b]).strip() for a, b in pairwise(edges)]
    chunks = [chunk for chunk in chunks if chunk]
    labels = [_LABEL.search(chunk) for chunk in chunks]
    first = next((index for index, label in enumerate(labels) if label), None)
    if first is None:  # no label anywhere: a refusal, say, is one candidate and will be rejected
        return ["\n".join(chunks)] if chunks else []
    # The prompt ended with "4. 지시문:", so the reply may go on from there: its first label is
    # then 입력, or the next item's 지시문. We put the opening back in front of such a reply.
    opening, chunk, number = f"{first_number}. 지시문: ", chunks[first], _number(labels[first])
    if labels[first]["instruction"]:
        if first and number == first_number + 1:
            return [opening + "\n".join(chunks[:first]), *chunks[first:]]
        return [chunk[labels[first].start():], *chunks[first + 1:]]  # before it was a greeting
    # "... 고쳐 쓰세요.\n4. 입력: ..."; two inputs are two items, and where one ends nobody knows.
    inputs = [label for label in _LABEL.finditer(chunk)
              if label["input"] and _number(label) in (number, first_number + 1)]
    return [("" if len(inputs) > 1 else opening) + chunk, *chunks[first + 1:]]


def _item_starts(text: str) -> set[int]:
    """Where items begin: at the 지시문 labels with a number, or at all if none has one."""
    labels = [label for label in _LABEL.finditer(text) if label["instruction"]]
    labels = [label for label in labels if _number(label)] or labels
    above = {heading.end(): heading.start() for heading in _HEADING.finditer(text)
             if not _LABEL.match(heading[0])}
    return {above.get(label.start(), label.start()) for label in labels}


def _number(label: re.Match) -> int | None:
    """The number of a label, None if it has none: 4 for "4-1.", "４." and "④"."""
    number = label["number"] or label["after"]
    return int(unicodedata.normalize("NFKC", number)) if number else None


def read_fields(candidate: str) -> dict[str, str]:
    """The fields of one candidate: those that are there of instruction, input and output.

    Its labels are believed if all have its number, else by their order: a line of an output may
    look like one ("1. 입력: 자료를 모은다"), and a model may have lost count.
    """
    if candidate.startswith("{"):
        return _json_fields(candidate)
    labels = list(_LABEL.finditer(candidate))
    while labels and not labels[0]["instruction"]:
        labels.pop(0)
    numbered = [label for label in labels if _number(label) == _number(labels[0])]
    found = _in_order(numbered)
    if len(found) < len(FIELDS):
        found = _in_order(labels)
    fields = {}
    for label, after in pairwise([*found, None]):
        name = _field(label)
        fields[name] = _value(name, candidate[label.end():after and after.start()])
    return fields


def _in_order(labels: list[re.Match]) -> list[re.Match]:
    """Of labels that begin with an item's 지시문 its own: with an input, then an output, if any."""
    if len(labels) < 3 or not labels[1]["input"]:
        return labels[:2]  # what follows an output is part of it
    # Labels of one item look alike, and 답변 is one only where there is no 출력.
    looks = [re.sub(r"\w+", "x", label[0]).strip() for label in labels]
    alike = [label for label, look in zip(labels, looks, strict=True) if look == looks[1]]
    outputs = [label for some in (alike, labels) for name in ("output", "answer")
               for label in some if label[name]]
    return labels[:2] + outputs[:1]


def _field(label: re.Match) -> str:
    """The field that a label names: 답변 is an output as well."""
    return next((name for name in FIELDS if label[name]), "output")


def _value(name: str, text: str) -> str:
    lines = text.strip().split("\n")
    while len(lines) > 1 and re.fullmatch(r"[ \t]*[-=*#_]{3,}[ \t]*", lines[-1]):
        lines.pop()  # a line such as "---" that parts this item from the next
    value = "\n".join(lines).strip()
    for mark in ("```", "**"):  # opened before the label, closed after the value
        if value.endswith(mark) and value.count(mark) % 2:
            value = value[:-len(mark)].rstrip()
    return "" if name == "input" and _IS_NO_INPUT.fullmatch(value) else value


def _split_json(text: str) -> list[str]:
    decoder, items = json.JSONDecoder(strict=False), []
    found = _OBJECT.search(text)
    while found:
        start = found.start()
        try:
            _, end = decoder.raw_decode(text, start)
            found = _OBJECT.search(text, end)
        except (ValueError, RecursionError):  # broken or cut: it reaches to the next one
            found = _OBJECT.search(text, start + 1)
            end = found.start() if found else len(text)
        items.append(text[start:end].rstrip(" \n\t,"))
    return items


def _json_fields(candidate: str) -> dict[str, str]:
    try:
        # A decimal as it was written; NaN and the like are no value.
        record = json.loads(candidate, strict=False, parse_float=str,
                            parse_constant=lambda name: None)
    except (ValueError, RecursionError):
        return {}
    fields = {}
    for key, value in record.items():
        name = _KEY.fullmatch(key.strip())
        if name and (value is None or type(value) in (str, int)):
            text = "" if value is None else str(value)
            fields.setdefault(_field(name), _value(_field(name), korean.clean(text)))
    return fields


# ---------------------------------------------------------------- 2. the rules


class Rule(NamedTuple):
    """One reason to reject a task: what it is for, and a test that is true for a bad task."""

    description: str
    test: Callable[[Task], bool]


# What a text model cannot see, show or play.
_MEDIA = "그림 사진 이미지 동영상 비디오 오디오 지도 그래프 차트 파일 링크 스크린샷".split()
_PLAYABLE = {"음악", "노래", "영상", "소리", "음성", "라디오"}
# A cheap first look: most instructions hold none of these syllables and need no analysis.
_HINT = re.compile("|".join([*_MEDIA, "재생", "그[리려렸린릴립]", "트[는세]|틀"]))
_GUIDANCE = ("하", "되", "받", "교수", "교사")  # 지도하다, 지도받다, 지도 교수: not a map


def _needs_medium(task: Task) -> bool:
    text = task.instruction
    if not _HINT.search(text):
        return False
    pieces = [(form, tag[:2]) for form, tag in korean.tokens(text)]
    for (form, tag), (after, its_tag) in pairwise([*pieces, ("", "")]):
        compound = its_tag == "NN" and form + after in text  # 그림책, 사진사
        guidance = form == "지도" and after in _GUIDANCE
        if tag == "NN" and form in _MEDIA and not compound and not guidance:
            return True
    plays = ("재생", "NN") in pieces or ("틀", "VV") in pieces
    nouns = {form for form, tag in pieces if tag == "NN"}
    return ("그리", "VV") in pieces or plays and bool(nouns & _PLAYABLE)  # to draw, or to play


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
    asked, said = ("".join(filter(str.isalnum, text)).casefold() for text in (instruction, output))
    return asked == said != ""


# What is written in place of a text, and what an instruction speaks of to which it is an answer.
# The first line that fits decides; the words have no blanks and no capitals here.
_NOTHING = [
    (r"<?no[_-]?(in|out)put.{0,12}|no(answer|response)|todo([:：].*)?|tbd|fixme|placeholder"
     r"|(입력|출력|응답|답변?|내용)(값|사항)?(이|은)?없(음|습니다)|빈(출력|응답|답변?)"
     r"|(여기|이곳|아래)에.{0,9}(답|글|내용|결과|출력).{0,3}(쓰|써|적|넣|입력|작성).*(세요|시오)",
     "(?!)"),
    (r"(해당(사항)?|결과)?없음|필요없음|생략|미정|공란|빈칸|공백",
     r"없|있(나|니|는지|는가|습니까|을까|으면|다면)|찾|남[은는]"),
    (r"none|null|nil|nan|undefined|n[/.]a|empty|빈(문자열|값)|\[\]|\{\}|\(\)|\"\"|''",
     r"코드|함수|프로그램|파이썬|변수|반환|출력|자료형|print|return|select|json"),
    (r"[(<\[]*[-–—_.…·~*]+[)>\]]*|[\"'`]+", r"부호|기호|줄표|밑줄|마침표|줄임표"),
]
_IN_BRACKETS = """입력 입력값 내용 텍스트 문장 본문 글 기사 질문 생략 출력 출력값 응답 답 답변 정답
결과 input text output response answer result here""".split()
_PLEASE_FILL = re.compile("(작성|입력|삽입|넣|적|써|쓰)(하|으|어)?( ?주)?(세요|십시오)$")


def _inside(text: str) -> str:
    """What stands between the brackets around the whole of a text, "" if there are none."""
    found = re.fullmatch(r"[<(\[{〈「]+([^<>()\[\]{}〈〉「」]+)[>)\]}〉」]+", text.strip())
    return found[1].strip(" .…") if found else ""


def _only_stands_for_one(text: str, instruction: str = "", given: str = "") -> bool:
    """Whether a text is none: "<No Output>", "(답변 내용)", "...", "없음".

    But "없음" answers "틀린 곳이 있나요?", "None" a question about code, "<input>" one about a tag,
    and each a question that names it.
    """
    inside = _inside(text)
    word = re.sub(r"\s", "", inside or text).casefold()
    word = word.strip("`\"'“”*.!") or word
    asks = next((asks for nothing, asks in _NOTHING if re.fullmatch(nothing, word)), None)
    if inside and (inside.split()[-1].casefold() in _IN_BRACKETS or _PLEASE_FILL.search(inside)):
        asks, word = "태그|html|xml", text.strip().casefold()
    return asks is not None and word not in f"{instruction}\n{given}".casefold() and not re.search(
        asks, instruction.casefold())


def _missing(task: Task) -> bool:
    return (not (task.instruction.strip() and task.output.strip())
            or _only_stands_for_one(task.output, task.instruction, task.input))


def _placeholder(task: Task) -> bool:
    # "<기사 본문>" stands for something; "<html>" and "[1, 2, 3]" are something.
    words = _inside(task.input) if task.input.strip().startswith(("<", "〈")) else ""
    described = len(words.split()) <= 5 and korean.hangul_share(words) > 0.5
    return described or _only_stands_for_one(task.input)


RULES: dict[str, Rule] = {
    "missing field": Rule("The instruction or the output is missing or empty.", _missing),
    "too short": Rule(f"The instruction has fewer than {MIN_WORDS} 어절.",
                      lambda task: len(task.instruction.split()) < MIN_WORDS),
    "too long": Rule(f"The instruction has more than {MAX_WORDS} 어절.",
                     lambda task: len(task.instruction.split()) > MAX_WORDS),
    "not Korean": Rule(f"Less than {MIN_HANGUL:.0%} of the instruction's letters are Hangul.",
                       lambda task: korean.hangul_share(task.instruction) < MIN_HANGUL),
    "needs another medium": Rule(
        "The instruction asks for a picture, a map, a file, a link, music or the like.",
        _needs_medium),
    "leading punctuation": Rule(
        "The instruction begins with a mark that opens no quotation or bracket.",
        _leading_punctuation),
    "repeats the instruction": Rule(
        "The output is the instruction again, or begins by repeating it.", _repeats_instruction),
    "placeholder input": Rule(
        'The input only stands for one, as in "<기사 본문>", "(없음)" or "N/A".', _placeholder),
}
"""The rules in the order they are asked. Besides, a candidate of a reply may be "truncated", and a
good task may still be "similar" to an earlier one (similarity.py)."""


def check_task(task: Task) -> str | None:
    """The name of the first rule that rejects this task, or None for a good one.

    Task("서울 지도를 그려 주세요.", "", "네.") -> "needs another medium"
    """
    return next((name for name, rule in RULES.items() if rule.test(task)), None)
