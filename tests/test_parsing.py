"""A reply becomes tasks or named rejections; each rule fires on what it is for, and only there."""

import json
import time
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from course_utils.parsing import (
    RULES,
    Rejected,
    check_task,
    parse_generation,
    read_fields,
    split_candidates,
)
from course_utils.sources.domain import parse_answer, parse_questions
from course_utils.tasks import Task

WITH = Task("존댓말로 바꾸어 주세요.", "밥 먹었어?", "식사하셨어요?")
WITHOUT = Task("춘천은 어느 도에 있나요?", "", "춘천은 강원특별자치도에 있습니다.")

# ---------------------------------------------------------------- a reply

PLAIN = """ 존댓말로 바꾸어 주세요.
4. 입력: 밥 먹었어?
4. 출력: 식사하셨어요?
###
5. 지시문: 춘천은 어느 도에 있나요?
5. 입력: <noinput>
5. 출력: 춘천은 강원특별자치도에 있습니다.
"""


def as_json(*rows, **options):
    options = {"ensure_ascii": False} | options
    return json.dumps({"tasks": [row if isinstance(row, dict) else row.to_dict() for row in rows]},
                      **options)


JSON = as_json(WITH, WITHOUT)


def parse(text, **settings):
    return parse_generation(text, **({"first_number": 4} | settings))


@pytest.mark.parametrize("text", [
    PLAIN,
    unicodedata.normalize("NFD", PLAIN),  # Hangul in parts is read as syllables
    PLAIN.replace("\n", "\r\n"),
    "4. 지시문:" + PLAIN,
    "###\n4. 지시문:" + PLAIN,
    "물론입니다! 과제을 만들겠습니다.\n\n###\n4. 지시문:" + PLAIN,
    "물론입니다! 다음과 같습니다.\n4. 지시문:" + PLAIN,
    "```\n4. 지시문:" + PLAIN + "```",
    ("4. 지시문:" + PLAIN).replace("4.", "1.").replace("5.", "2."),
    ("4. 지시문:" + PLAIN).replace("지시문", "명령어"),
    ("4. 지시문:" + PLAIN).replace("지시문", "지시"),
    ("4. 지시문:" + PLAIN).replace("지시문", "Instruction").replace("입력", "Input")
    .replace("출력", "OUTPUT"),
    PLAIN.replace("4. 입력:", "**4. 입력:**").replace("5. 지시문:", "5. **지시문**:"),
    PLAIN.replace("5. 출력:", "**5. 출력**："),
    ("4. 지시문:" + PLAIN).replace("4", "４").replace("5", "５").replace(":", "："),
    PLAIN.replace("###\n", "\n"),
    PLAIN.replace("###\n", "---\n"),
    PLAIN.replace("###\n5. ", "\n### 5. "),
    PLAIN.replace("<noinput>", "`<NoInput>`"),
    PLAIN.replace("<noinput>", ""),
    PLAIN.replace("<noinput>", '""'),
    PLAIN.replace("4. 입력", "입력").replace("4. 출력", "- 출력"),
    PLAIN + "###",
    PLAIN.replace("4. ", "4) ").replace("5. ", "5) "),
    PLAIN.replace("4. ", "").replace("5. ", ""),
    ("지시문:" + PLAIN).replace("4. ", "").replace("5. ", "").replace("###", ""),
    ("4.\n지시문:" + PLAIN).replace("4. ", "").replace("###\n5. ", "\n5.\n").replace("5. ", ""),
    ("### 과제 4\n지시문:" + PLAIN).replace("4. ", "").replace("###\n5. ", "\n**과제 5**\n\n")
    .replace("5. ", ""),
    PLAIN.replace("출력", "답변"),
    PLAIN.replace("4. 출력: ", "4. 출력:\n").replace("<noinput>", "no input"),
], ids=range(30))
def test_what_models_really_send(text):
    parsed = parse(text)
    assert (parsed.tasks, parsed.rejected) == ([WITH, WITHOUT], [])


RECIPE = Task("라면을 끓이는 두 단계를 쓰세요.", "라면",
              "이렇게 합니다.\n1. 입력: 물을 붓는다\n2. 출력: 끓인다\n\n- 입력 확인")
NAMES = ("지시문", "입력", "출력")


def write(style, tasks, numbers=lambda i: (i + 4,) * 3, heading=""):
    """A reply with labels in a style, whose n is one of numbers(i) and whose k is 1, 2 and 3."""
    text = ""
    for i, task in enumerate(tasks):
        text += heading.format(n=i + 4)
        values = (task.instruction, task.input or "<noinput>", task.output)
        for k, (name, value, n) in enumerate(zip(NAMES, values, numbers(i), strict=True), 1):
            text += style.format(name=name, n=n, k=k, circle=chr(0x245F + n)) + value + "\n"
        text += "\n"
    return text


@pytest.mark.parametrize("tasks", [(WITH, RECIPE), (RECIPE, WITHOUT)], ids=["first", "last"])
@pytest.mark.parametrize("style", [
    "과제 {n}: {name}: ", "({n}) {name}: ", "{n}번. {name}: ", "{n}.\u00a0{name}: ", "{name}: ",
    "{n}.\u3000{name}: ", "**과제 {n}. {name}: ", "**{name} {n}:** ", "{name}({n}): ",
    "{name} {n}. ", "{n}-{k}. {name}: ", "{n}.{k} {name}: ", "{circle} {name}: ", "- **{name}**: ",
    "[{name}] ", "【{name} {n}】 ", "### {name}\n", "📝 {name}: ", "{n}. {name}\n",
    "{n}. {name}:\n", "과제 {n} - {name}: ", "{name}(Input) {n}: ", "#{n} {name}: "])
def test_other_ways_to_write_a_label(style, tasks):
    for heading in "", "## 과제 {n}\n\n", "**과제 {n}: 요약**\n", "### {n}. 요약\n", "{n}.\n":
        parsed = parse("네, 만들겠습니다.\n\n" + write(style, tasks, heading=heading))
        assert (parsed.tasks, parsed.rejected) == (list(tasks), [])


@pytest.mark.parametrize("numbers", [
    lambda i: (5 + i, 5 + i, 6 + i),  # as a real model of 270 million parameters wrote
    lambda i: (4 + 3 * i, 5 + 3 * i, 6 + 3 * i),  # every label counts
    lambda i: (1, 2, 3),
    lambda i: (9 - i // 2, 1, 1),
    lambda i: (4, 4, 4),
], ids=range(5))
@pytest.mark.parametrize("style", ["### {n}. {name}: ", "**{name} {n}**: "])
def test_a_model_that_has_lost_count_is_read_by_the_order_of_its_labels(numbers, style):
    pair = Task("이 보기를 설명하세요.", "입력: 3\n출력: 9", "제곱입니다.")
    tasks = [WITH, RECIPE, pair, WITHOUT, *[
        Task(f"{n}에 {n}을 더하면 얼마인지 쓰세요.", f"{n}", f"{n + n}입니다.") for n in range(8)]]
    parsed = parse(write(style, tasks, numbers))
    assert parsed.tasks == tasks and not parsed.rejected


@pytest.mark.parametrize("text", [
    "■ {}\n입력: {}\n출력: {}\n\n■ {}\n입력: {}\n출력: {}",
    "4. 질문: {}\n4. 입력: {}\n4. 답변: {}\n5. 질문: {}\n5. 입력: {}\n5. 답변: {}",
    " {}\n4. 입력: {}\n4. 출력: {}\n\n{}\n5. 입력: {}\n5. 출력: {}",
    "<지시문>{}</지시문>\n<입력>{}</입력>\n<출력>{}</출력>\n" * 2,
])
def test_no_item_swallows_the_next_one_for_want_of_a_label(text):
    fields = [(t.instruction, t.input or "<noinput>", t.output) for t in (WITH, WITHOUT)]
    parsed = parse(text.format(*fields[0], *fields[1]))  # where the first one ends is not known
    assert not parsed.tasks and {reason for reason, _ in parsed.rejected} == {"missing field"}


DRAFT = "4. 지시문: 초안을 하나 쓰세요.\n4. 입력: <noinput>\n4. 출력: 초안\n"


@pytest.mark.parametrize("thought", [
    f"<think>\n{DRAFT}</think>\n\n", f"\n<THINK>{DRAFT}</THINK>", "<think>\n\n</think>\n\n",
    f"{DRAFT}</think>\n", f"생각하자. </think>\n<think>{DRAFT}</think>", f"[THINK]{DRAFT}[/THINK]",
    f"네.\n<thinking>\n{DRAFT}</thinking>\n"])
def test_a_thought_is_no_answer_and_its_draft_no_task(thought):
    for text in ("4. 지시문:" + PLAIN, JSON):
        assert parse(thought + text) == parse(text)
    assert parse(f"<think>\n{DRAFT}{DRAFT}", finish_reason="length").tasks == []  # never closed


def test_a_tag_that_a_reply_speaks_of_stays():
    task = Task("태그를 설명하세요.", "<think>", "`</think>`는 생각의 끝, </think> 뒤가 답.")
    assert parse(write("{n}. {name}: ", [task])).tasks == [task]


@pytest.mark.parametrize("text", [
    "4. 지시문: 두 단계를 쓰세요.\n4. 출력: 둘입니다.\n1. 입력: 받습니다.\n2. 출력: 보입니다.",
    "4. 지시문: 두 단계를 쓰세요.\n4. 출력: 둘입니다.\n입력: 받습니다.",
    "4. 지시문: 두 단계를 쓰세요.\n4. 답변: 둘입니다.\n\n입력: 3\n출력: 9",
])
def test_labels_out_of_their_order_are_content_so_the_input_is_missing(text):
    [(reason, kept)] = parse(text).rejected
    assert (reason, kept) == ("missing field", text)
    fields = read_fields(text)
    assert fields["instruction"] == "두 단계를 쓰세요." and fields["output"].startswith("둘입니다.")


PIECES = [
    " ", "\u00a0", "-", "---\n", "#", "# \n", "*", "`", "```\n", '"', "\\", '\\"', "{", "[{", "}",
    "(", "5", "5.\n", "①", "가.", "ᄒ", "\ud800", "\u200d", "🙂", ":", "지시문 ", "지시문: 가 나\n",
    "5. 출력: 가\n", "5.\n지시문: 가\n", "5. 가나다\n입력: \n", "과제 5 - 지시문: a\n",
    "<think>\n", "</think>\n", "[think]\n",
    '{"instruction":', '{"instruction": "a", ', '{"a": "b", ', "[[1]]", "[[1, ", "없음 ",
    '{"instruction": "a", "input": "", "output": [[[[']


@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.parametrize(("before", "after"), [
    ("", ""), ("4. 지시문: 가\n4. 입력: \n4. 출력: ", " 끝")])
def test_a_long_reply_is_read_in_a_moment(piece, before, after):
    text = before + piece * (80_000 // len(piece)) + after
    start = time.process_time()
    parsed = parse(text)
    parse_questions(text), parse_answer(text, 3)
    assert time.process_time() - start < 5  # 0.5 at most on a machine of its own
    assert len(parsed.tasks) + len(parsed.rejected) == len(split_candidates(text, first_number=4))


@pytest.mark.parametrize("text", ["", " \n\r\n ", "###", "\n###\n###\n"])
def test_an_empty_reply_has_no_candidates(text):
    assert parse(text).tasks == parse(text, finish_reason="length").rejected == []


@pytest.mark.parametrize(("text", "reasons"), [
    ("죄송하지만 도와드릴 수 없습니다.", ["missing field"]),
    *[(PLAIN.replace(part, ""), ["missing field"]) for part in (
        "5. 출력: 춘천은 강원특별자치도에 있습니다.\n", "5. 입력: <noinput>\n",
        "춘천은 강원특별자치도에 있습니다.", "4. 출력: 식사하셨어요?\n")],
    (PLAIN + "###\n이상입니다.", ["missing field"]),
    (PLAIN.replace("춘천은 어느 도에", "서울 지도에는 무엇이"), ["needs another medium"]),
    (PLAIN.replace("밥 먹었어?", "<문장>"), ["placeholder input"]),
    ("요약하세요\n###\n5. 지시문: 봄은 언제 오나요?\n5. 입력: <noinput>\n5. 출력: 삼월에 옵니다.",
     ["missing field"]),
])
def test_every_bad_candidate_is_one_rejection(text, reasons):
    parsed = parse(text)
    assert [reason for reason, _ in parsed.rejected] == reasons
    assert len(parsed.tasks) + len(parsed.rejected) == len(split_candidates(text, first_number=4))


@pytest.mark.parametrize("reason", ["length", "content_filter", "error", "model_length", "SAFETY",
                                    "max_tokens", "MAX_TOKENS", "RECITATION", "", None])
def test_the_last_candidate_of_a_cut_reply_is_truncated(reason):
    parsed = parse(PLAIN, finish_reason=reason)
    assert parsed.tasks == [WITH]
    assert parsed.rejected == [Rejected("truncated", PLAIN.split("###\n")[1].strip())]
    parsed = parse(PLAIN + "###\n6. 지시문: 다음 글을", finish_reason="length")
    assert parsed.tasks == [WITH, WITHOUT]
    assert parsed.rejected == [Rejected("truncated", "6. 지시문: 다음 글을")]


@pytest.mark.parametrize("reason", ["stop", "STOP", "end_turn", "eos_token"])
def test_a_reply_that_its_model_ended_is_whole(reason):
    assert parse(PLAIN, finish_reason=reason) == parse(PLAIN)


def test_numbered_lines_of_an_output_are_no_labels():
    output = "두 단계입니다.\n1. 입력: 받습니다.\n2. 출력: 보입니다.\n\n입력: 3\n출력: 9"
    text = f"프로그램의 두 단계를 쓰세요.\n4. 입력: <noinput>\n4. 출력: {output}\n###"
    assert parse(text).tasks == [Task("프로그램의 두 단계를 쓰세요.", "", output)]


@pytest.mark.parametrize("text", [
    JSON,
    as_json(WITH, WITHOUT, indent=2).replace("\n", "\r\n"),
    as_json(WITH, WITHOUT, ensure_ascii=True),
    f"네, 새 과제입니다.\n\n```json\n{JSON}\n```\n도움이 되었기를 바랍니다.",
    JSON[JSON.index("["):-1],  # the bare list
    "\n".join(json.dumps(task.to_dict()) for task in (WITH, WITHOUT)),
    JSON.replace("instruction", "지시문").replace("input", "입력").replace("output", "출력"),
    JSON.replace('{"instr', '{"id": 4, "type": "글쓰기", "instr'),
    JSON.replace('"input": ""', '"input": null'),
    JSON.replace('"input": ""', '"input": "<noinput>"'),
    JSON.replace("}]}", "},]}"),
], ids=range(11))
def test_json_that_models_really_send(text):
    parsed = parse(text)
    assert (parsed.tasks, parsed.rejected) == ([WITH, WITHOUT], [])


@pytest.mark.parametrize(("text", "reasons", "finish_reason"), [
    (JSON[:-12], ["truncated"], "length"),
    (JSON[:-12], ["missing field"], "stop"),
    (JSON, ["truncated"], "length"),
    (as_json(WITH, {"instruction": "한국의 봄을 설명하세요.", "output": "짧습니다."}),
     ["missing field"], "stop"),
    (as_json({"instruction": "하나, 둘을 세세요.", "input": "", "output": ["하나", "둘"]}, WITH),
     ["missing field"], "stop"),
    (JSON.replace('바꾸어 주세요."', "바꾸어 주세요.", 1), ["missing field"], "stop"),
    (as_json(WITH, {"instruction": "서울 지도를 그려 주세요.", "input": "", "output": "네."}),
     ["needs another medium"], "stop"),
])
def test_every_bad_json_candidate_is_one_rejection(text, reasons, finish_reason):
    parsed = parse(text, finish_reason=finish_reason)
    assert [reason for reason, _ in parsed.rejected] == reasons
    assert len(parsed.tasks) + len(parsed.rejected) == len(split_candidates(text, first_number=4))


def test_json_inside_an_output_is_content():
    output = 'JSON은 이렇습니다.\n{"instruction": "a", "input": "", "output": "b"}'
    text = f"자료를 JSON으로 바꿔 주세요.\n4. 입력: a와 b\n4. 출력: {output}"
    assert parse(text).tasks == [Task("자료를 JSON으로 바꿔 주세요.", "a와 b", output)]


@pytest.mark.parametrize(("value", "output"), [
    ("7", "7"), ("7.10", "7.10"), ("NaN", None), ("-Infinity", None), ("true", None),
    ("9" * 5000, None)])
def test_numbers_are_text_and_half_an_emoji_is_mended(value, output):
    row = '{"instruction": "셋과 넷을 더하세요.", "input": "\\ud83d", "output": VALUE}'
    parsed = parse(f"[{row.replace('VALUE', value)}]")
    assert [(task.input, task.output) for task in parsed.tasks] == [("?", output)][:bool(output)]
    assert [reason for reason, _ in parsed.rejected] == ["missing field"][:not output]


fragments = st.sampled_from([
    '{"tasks": [', '{"instruction": "', '", "input": ', '""', '"output": "', '"}', "]}", "[[", "{",
    '\\ud83d', "null", "\\", "5.\n", "과제 6\n", "지시문: ", "답변: ",
    "###", "\n", "\r\n", "\n###\n", "4. 지시문:", "5. 지시문: ", "６. 명령어：", "**", "입력:",
    "4. 입력: ", "5. Input:", "출력: ", "4. 출력:", "5. 출력: ", "<noinput>", "한 문장으로 쓰세요.",
    "답입니다.", "---\n", "```", "999999999999. 지시문:", "지도를 그려 주세요.", " ", "²", "7",
    "네,", "٣. 지시문:", "\ud800"])


@settings(max_examples=300, deadline=None)
@given(st.lists(fragments | st.text(max_size=12), max_size=30).map("".join),
       st.integers(1, 9), st.sampled_from(["stop", "length", "content_filter", "", None]))
def test_parsing_never_raises_and_its_counts_add_up(text, first_number, finish_reason):
    candidates = split_candidates(text, first_number=first_number)
    parsed = parse_generation(text, first_number=first_number, finish_reason=finish_reason)
    assert len(parsed.tasks) + len(parsed.rejected) == len(candidates)
    for rejected in parsed.rejected:
        assert rejected.text in candidates
    if finish_reason == "length" and candidates:
        assert parsed.rejected[-1] == Rejected("truncated", candidates[-1])


# ---------------------------------------------------------------- the rules

LONG = "다음 문장을 " * 51


@pytest.mark.parametrize(("instruction", "input", "output", "reason"), [
    ("", "밥", "답", "missing field"),
    ("이것을 요약하세요.", "밥", " \n", "missing field"),
    ("요약하세요.", "", "답", "too short"),
    (LONG, "", "답", "too long"),
    ("Summarize the following text.", "", "답", "not Korean"),
    ("次の文を 要約してください。", "", "답", "not Korean"),
    ("3 + 4 = ?", "", "7", "not Korean"),
    *[("이 글을 요약하세요.", "봄이 왔다.", nothing, "missing field") for nothing in (
        "<No Output>", "<nooutput>", "no output needed", "N/A", "없음", "없음.", "(빈 출력)",
        "출력 없음", "-", "...", "[생략]", "TODO: 나중에", "<output>", "{output}", "(답변 내용)",
        "[Your answer here]", "여기에 답을 쓰세요.", "null", "NaN", "None", "```\n```", '""',
        "**해당 없음**", "응답이 없습니다.")],
    ("이 기사의 장점을 쓰세요.", "흠이 없다.", "없음", "missing field"),
    ("문자 메시지를 쓰세요.", "(지각)", "...", "missing field"),
    ("다음 output을 설명하세요.", "3", "<output>", "missing field"),
    *[(medium, "", "답", "needs another medium") for medium in (
        "서울 지도를 보여 주세요.", unicodedata.normalize("NFD", "서울 지도를 보여 주세요."),
        "이 그림의 분위기를 설명하세요.", "아래 사진을 묘사해 주세요.", "동영상을 보고 요약하세요.",
        "신나는 음악을 재생해 주세요.", "라디오를 틀어 주세요.", "매출을 그래프로 나타내세요.",
        "첨부 파일을 읽고 답하세요.", "다음 링크의 글을 요약하세요.", "고양이를 그려 주세요.")],
    *[(f"{mark}글을 요약하세요.", "", "답", "leading punctuation") for mark in ("- ", "(", "★ ")],
    ("봄에 대해 쓰세요.", "", "봄에 대해 쓰세요", "repeats the instruction"),
    ("춘천은 어느 도에 있나요?", "", "춘천은 어느 도에 있나요? 강원도입니다.",
     "repeats the instruction"),
    *[("이 글을 요약하세요.", empty, "답", "placeholder input") for empty in (
        "<입력>", "(없음)", "없음", "N/A", "n/a.", "-", "...", "[텍스트]", "<기사 본문>",
        "nan",
        "(여기에 글을 입력하세요)", "<텍스트를 붙여 넣어 주세요>", "<noinput>", "〈본문 내용〉")],
])
def test_a_bad_task_is_rejected_under_its_reason(instruction, input, output, reason):
    assert check_task(Task(instruction, input, output)) == reason


@pytest.mark.parametrize(("instruction", "input", "output"), [
    ("춘천은 어느 도에 있나요?", "", "춘천은 강원특별자치도에 있습니다."),
    ("두 수를 더하세요.", "3, 4", "7"),
    ("반대말을 쓰세요.", "내용", "형식"),
    ("원소의 이름을 쓰세요.", "Na", "나트륨"),
    ("훌륭한 지도자의 덕목은 무엇인가요?", "", "경청입니다."),
    ("학생을 잘 지도하는 방법은 무엇인가요?", "", "칭찬입니다."),
    ("그림자가 생기는 까닭을 설명하세요.", "", "빛이 막히기 때문입니다."),
    ("그림책의 제목을 지어 주세요.", "", "달님 안녕"),
    ("파일럿이 하는 일을 설명하세요.", "", "비행기를 조종합니다."),
    ("고향을 그리워하는 글을 쓰세요.", "", "내 고향은 남쪽입니다."),
    ("그리고와 그러나의 차이를 쓰세요.", "", "순접과 역접입니다."),
    ("음악이 정서에 미치는 영향을 쓰세요.", "", "마음을 가라앉힙니다."),
    ("'사과'의 두 가지 뜻을 쓰세요.", "", "과일과 용서를 비는 일입니다."),
    ("“가는 날이 장날”의 뜻은 무엇인가요?", "", "뜻밖의 일과 마주친다는 뜻입니다."),
    ("한국의 수도", "", "한국의 수도는 서울입니다."),
    ("SQL에서 LEFT JOIN과 INNER JOIN을 비교하세요.", "", "왼쪽 행을 모두 남기는지가 다릅니다."),
    ("목록을 뒤집으세요.", "[1, 2, 3]", "[3, 2, 1]"),
    ("무엇을 만드는 코드인가요?", "<p>안녕</p>", "문단입니다."),
    ("업종을 쓰세요.", "(주)한빛식품", "식품"),
    # What stands for nothing may be the answer where the question asks for it.
    ("이 문장에 틀린 곳이 있나요?", "봄이 왔다.", "없음"),
    ("틀린 곳을 찾아 쓰세요.", "봄이 왔다.", "없음"),
    ("사건을 모두 쓰고, 모르면 '생략'이라고 쓰세요.", "봄이 왔다.", "생략"),
    ("이 함수의 반환값은 무엇인가요?", "def f(): pass", "None"),
    ("다음 값을 그대로 쓰세요.", '{"a": null}', "null"),
    ("빈 목록을 파이썬으로 쓰세요.", "", "[]"),
    ("할 일 앱의 이름을 쓰세요.", "", "TODO 앱"),
    ("뺄셈을 나타내는 기호를 쓰세요.", "", "-"),
    ("이 소설의 제목은 무엇인가요?", "허균이 썼다.", "<홍길동전>"),
    ("글을 쓰는 칸을 만드는 HTML 태그는 무엇인가요?", "", "<input>"),
    ("소금을 이루는 금속은 무엇인가요?", "", "Na"),
])
def test_a_good_task_passes(instruction, input, output):
    assert check_task(Task(instruction, input, output)) is None


def test_rules_have_names_and_descriptions_and_an_order():
    assert list(RULES)[0] == "missing field"
    assert all(rule.description.endswith(".") for rule in RULES.values())
    both = Task("- Draw 지도 please now", "", "네.")
    assert check_task(both) == "not Korean"  # earlier than the medium and the punctuation
