"""Templates (Alpaca, KoAlpaca, chat) that lay out a task, and the prompt that asks for new ones.

`Template` serves training and inference; `generation_prompt` asks a teacher for new tasks, as text
or as JSON (parsing.py reads the reply); `quote` lets somebody else's text stand in a prompt without
posing as a part of it. Sources: Stanford Alpaca (Taori et al., 2023), Self-Instruct (Wang et al.,
2023). Taught in 01, sections 2 and 3; 02, section 2.
"""

import datetime
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from course_utils import CourseError
from course_utils.parsing import FIELDS, read_fields, split_candidates
from course_utils.plumbing.entries import no_such
from course_utils.tasks import Task

# ---------------------------------------------------------------- 1. templates


@dataclass(frozen=True)
class Template:
    """How a task becomes a prompt.

    `response_marker` is the text that announces the response, so `render(task)` ends with it. `end`
    is the text appended after the response; "" stands for the tokenizer's own eos token.
    """

    name: str
    with_input: str
    without_input: str
    response_marker: str
    end: str = ""

    def render(self, task: Task) -> str:
        """The prompt of a task, ending where its response begins."""
        text = self.with_input if task.input.strip() else self.without_input
        return text.format(instruction=task.instruction.strip(), input=task.input.strip())


ALPACA = Template(
    name="alpaca",
    with_input="Below is an instruction that describes a task, paired with an input that provides "
    "further context. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:",
    without_input="Below is an instruction that describes a task. Write a response that "
    "appropriately completes the request.\n\n### Instruction:\n{instruction}\n\n### Response:",
    response_marker="### Response:",
)
ALPACA_KO = Template(
    name="alpaca-ko",
    with_input="아래에는 할 일을 설명하는 지시문과 그 일에 필요한 입력이 있습니다. "
    "지시를 알맞게 수행한 응답을 쓰세요.\n\n"
    "### 지시문:\n{instruction}\n\n### 입력:\n{input}\n\n### 응답:",
    without_input="아래에는 할 일을 설명하는 지시문이 있습니다. "
    "지시를 알맞게 수행한 응답을 쓰세요.\n\n### 지시문:\n{instruction}\n\n### 응답:",
    response_marker="### 응답:",
)
KOALPACA = Template("koalpaca", "### 질문: {instruction}\n\n### 맥락: {input}\n\n### 답변:",
                    "### 질문: {instruction}\n\n### 답변:", response_marker="### 답변:")
TEMPLATES = {template.name: template for template in (ALPACA, ALPACA_KO, KOALPACA)}
TODAY = datetime.date(2026, 1, 1)
"""What a chat template that writes today's date is told, so that a prompt is the same every day."""
_DRAWN = r"""(?:\||\bfilter|\bmap\(\s*['"])\s*(random)\b|\b(lipsum)\b"""  # as Jinja offers it


def with_fixed_date(template: str) -> str:
    """The same chat template, for which every day is TODAY; one without a clock stays as it is.

    transformers gives a template its clock as `strftime_now`; a macro of that name takes its place,
    and knows whatever codes of strftime the template has (but %s, which tells where a machine is).
    """
    if "strftime_now" not in template:
        return template
    codes = sorted(set(re.findall(r"%[-_^#:EO\d]*[a-rt-zA-Z]", template)))
    dated = "".join(f".replace({code!r}, {written!r})" for code in codes
                    if "%" not in (written := TODAY.strftime(code)))  # else it is no code
    macro = ("{% macro strftime_now(format) %}{% for part in format.split('%%') %}"
             f"{{{{ '%' * (not loop.first) ~ part{dated} }}}}{{% endfor %}}{{% endmacro %}}\n")
    return macro + template.removeprefix(macro)


def get_template(name: str, tokenizer=None) -> Template:
    """The template of that name; "chat" is the tokenizer's own. Raises CourseError."""
    if name == "chat":
        if tokenizer is None:
            raise CourseError('The template "chat" is built from a tokenizer: pass one.')
        return chat_template(tokenizer)
    if name not in TEMPLATES:
        raise CourseError(no_such("template", name, [*TEMPLATES, "chat"]))
    return TEMPLATES[name]


def chat_template(tokenizer) -> Template:
    """A Template that renders exactly what `tokenizer.apply_chat_template` would.

    The user's turn is the instruction, or instruction, blank line, input. What is written before an
    answer, an empty thought too, belongs to the prompt. Raises CourseError for an unusable one.
    """
    def refused(reason: str) -> CourseError:
        return CourseError(f"This tokenizer's chat template {reason}, so it cannot be used: take "
                           'the template "alpaca-ko".')

    if not (found := getattr(tokenizer, "chat_template", None)):
        raise refused("is missing")
    if drawn := re.search(_DRAWN, str(found)):
        raise refused(f"uses '{drawn[1] or drawn[2]}', so no two prompts need be the same")

    def render(turns: list[dict[str, str]], *, prompt: bool = False) -> str:
        try:
            return tokenizer.apply_chat_template(
                turns, chat_template=with_fixed_date(tokenizer.get_chat_template()),
                tokenize=False, add_generation_prompt=prompt, enable_thinking=False)
        except Exception as error:  # whatever a template may raise, on purpose or not
            raise refused(f"takes no turn that is plain text ({error})") from None

    user, answer = "USER-TEXT", "ANSWER-TEXT"
    turn = {"role": "user", "content": user}
    asked, prompt = render([turn]), render([turn], prompt=True)
    whole = render([turn, {"role": "assistant", "content": answer}])
    if not prompt.count(user) == whole.count(user) == whole.count(answer) == 1:
        raise refused("does not write the text of a turn exactly once (it may expect parts, such "
                      "as images, instead of text)")
    announced, end = whole.split(answer)
    if not announced.startswith(prompt):
        opened = prompt[len(os.path.commonprefix([prompt, announced])):]
        thinks = " (the model always thinks before it answers)" if "think" in opened else ""
        raise refused(f"opens a response with {opened!r}, which is not there in a whole "
                      f"conversation{thinks}")
    if not announced.startswith(asked):  # Phi-3's eos ends whatever is no prompt
        asked = announced[: announced.index(user) + len(user)]
    before, after = (part.replace("{", "{{").replace("}", "}}") for part in announced.split(user))
    return Template("chat", before + "{instruction}\n\n{input}" + after,
                    before + "{instruction}" + after, announced[len(asked):], end)


# ---------------------------------------------------------------- 2. asking for tasks

_NO_INPUT = "<noinput>"
_GENERATION = """\
다양한 과제 {n}개를 새로 만들어 주세요. \
이 과제들은 언어 모델에게 주어지고, 우리는 모델이 지시를 얼마나 잘 따르는지 평가합니다.

지켜야 할 것:
1. 지시문마다 되도록 다른 동사를 써서 표현을 다양하게 하세요.
2. 물음과 부탁을 섞는 등 지시문의 말투도 다양하게 하세요.
3. 과제의 종류를 다양하게 하세요: \
글쓰기, 요약, 분류, 고쳐쓰기, 번역, 질문에 답하기, 계산, 코드 등.
4. 글만 읽고 쓰는 모델이 할 수 있는 일이어야 합니다. \
그림이나 소리를 다루는 일, 알람이나 예약처럼 행동이 필요한 일은 안 됩니다.
5. 지시문은 한국어로, 한두 문장으로 쓰세요. 명령하거나 부탁하는 문장도 되고 묻는 문장도 됩니다.
6. 입력에는 그 과제에 쓸 구체적이고 현실적인 내용을 100어절 이내로 쓰세요. \
빈칸이나 "<기사 본문>" 같은 자리표시는 안 됩니다.
7. 입력이 필요 없는 과제도 있습니다. {no_input}
8. 출력은 지시와 입력에 맞는 정확하고 자연스러운 응답으로, 100어절 이내로 쓰세요.
9. {form}

"""
_AS_TEXT = _GENERATION.format(
    n="{n}",
    no_input=f'그럴 때에는 입력에 "{_NO_INPUT}"이라고만 쓰세요.',
    form="아래 형식 그대로 {first}번부터 {last}번까지 번호를 이어 쓰고, "
         '과제 사이에는 "###"만 있는 줄을 두세요.',
) + "과제 목록:\n"
_AS_JSON = _GENERATION.format(
    n="{n}",
    no_input="그럴 때에는 input을 빈 문자열로 두세요.",
    form="다른 말 없이 JSON 하나만, 아래 보기와 같은 모양으로 쓰세요. instruction은 지시문, "
         "input은 입력, output은 출력입니다. 보기에 있는 과제는 되풀이하지 마세요.",
) + "보기:\n"


def _schema(**properties) -> dict:
    return {"type": "object", "properties": properties, "required": list(properties),
            "additionalProperties": False}


_TASK = _schema(**{name: {"type": "string"} for name in FIELDS})
TASKS_FORMAT = {"type": "json_schema", "json_schema": {
    "name": "tasks", "strict": True, "schema": _schema(tasks={"type": "array", "items": _TASK})}}
"""The `response_format` to send with a prompt that asks for JSON: {"tasks": [a task, ...]}."""


def generation_prompt(examples: Sequence[Task], n: int = 20, *, as_json: bool = False) -> str:
    """Ask a teacher for n new tasks, shown a few examples; the Korean form of Alpaca's prompt.

    As text, the prompt ends by opening item len(examples) + 1, so parse a reply with that
    `first_number`. With `as_json` the examples and the reply are JSON; send TASKS_FORMAT along.
    """
    if as_json:
        rows = [{name: getattr(task, name) for name in FIELDS} for task in examples]
        return _AS_JSON.format(n=n) + json.dumps({"tasks": rows}, ensure_ascii=False, indent=1)
    first = len(examples) + 1
    head = _AS_TEXT.format(n=n, first=first, last=first + n - 1)
    items = [f"###\n{number}. 지시문: {task.instruction}\n{number}. 입력: "
             f"{task.input or _NO_INPUT}\n{number}. 출력: {task.output}\n"
             for number, task in enumerate(examples, 1)]
    return head + "".join(items) + f"###\n{first}. 지시문:"


def read_generation_prompt(text: str) -> tuple[list[Task], int] | None:
    """The (examples, n) that a generation prompt was made of, or None for any other text."""
    asked = re.match(r"다양한 과제 (\d+)개", text)
    if not asked:
        return None
    n, as_json = int(asked.group(1)), text.startswith(_AS_JSON.format(n=asked.group(1)))
    items = text.partition("\n보기:\n" if as_json else "\n과제 목록:\n")[2]
    chunks = split_candidates(items, first_number=1)
    chunks = chunks if as_json else chunks[:-1]  # the last one is the opened item
    examples = [Task(*(fields.get(name, "") for name in FIELDS))
                for fields in map(read_fields, chunks)]
    return (examples, n) if generation_prompt(examples, n, as_json=as_json) == text else None


# ---------------------------------------------------------------- 3. other people's texts

_BREAK = "\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]"  # whatever somebody may take for a line break


def quote(parts: list[tuple[str, str | None]], tag: str = "") -> str:
    """Set titled texts between delimiters, a bar before each line, so none can pose as anything."""
    sections = []
    for title, text in parts:
        if text is not None:
            # One more space after each "[" that another follows: undone exactly by unquote.
            text = re.sub(r"\[( *)(?=\[)", r"[\1 ", text)
            text = "| " + re.sub(f"({_BREAK})", r"\1| ", text)
            begin, end = (f"===== {' '.join([title, word, tag]).strip()} ====="
                          for word in ("시작", "끝"))
            sections.append(f"\n{begin}\n{text}\n{end}\n")
    return "".join(sections) + "\n"


def unquote(text: str, head: str) -> dict[str, str] | None:
    """The texts that `quote` put after `head`, by title, exactly; None if it begins otherwise."""
    if not text.startswith(head):
        return None
    section = re.compile(
        r"^===== (.+) 시작( \w+)? =====\n((?:\| .*\n)+)===== \1 끝\2? =====$", re.MULTILINE)
    return {title: re.sub(r"\[( *) (?=\[)", r"[\1",
                          re.sub(rf"({_BREAK})\| ", r"\1", lines[2:-1]))
            for title, _, lines in section.findall(text)}
