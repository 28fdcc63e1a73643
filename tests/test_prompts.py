"""Templates, and the generation prompt."""

import copy
import datetime
import importlib.util
import shutil
from pathlib import Path
from string import ascii_letters
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_parsing import WITH, WITHOUT

from course_utils import CourseError
from course_utils.inference import load_tokenizer
from course_utils.parsing import parse_generation
from course_utils.prompts import (
    ALPACA,
    ALPACA_KO,
    KOALPACA,
    TASKS_FORMAT,
    TEMPLATES,
    TODAY,
    chat_template,
    generation_prompt,
    get_template,
    read_generation_prompt,
    with_fixed_date,
)
from course_utils.tasks import Task

SEEDS = [WITH, WITHOUT, Task("두 수를 더하세요.", "3, 4", "7")]
TURN = [{"role": "user", "content": "?"}]

# ---------------------------------------------------------------- templates


def test_alpaca_and_koalpaca_are_the_published_prompts():
    assert ALPACA.render(Task("Name a color.")) == (
        "Below is an instruction that describes a task. Write a response that appropriately "
        "completes the request.\n\n### Instruction:\nName a color.\n\n### Response:")
    assert "paired with an input that provides further context." in ALPACA.render(WITH)
    assert "\n\n### Input:\n밥 먹었어?\n\n### Response:" in ALPACA.render(WITH)
    assert KOALPACA.render(WITHOUT) == "### 질문: 춘천은 어느 도에 있나요?\n\n### 답변:"
    assert KOALPACA.render(WITH) == (
        "### 질문: 존댓말로 바꾸어 주세요.\n\n### 맥락: 밥 먹었어?\n\n### 답변:")


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=list(TEMPLATES))
def test_a_prompt_ends_where_the_response_begins(template):
    for task in (WITH, WITHOUT, Task("{instruction} {0} %s", "{", "}}}")):
        prompt = template.render(task)
        assert prompt.endswith(template.response_marker)
        assert task.instruction in prompt and task.input in prompt
        assert task.output not in prompt


def assert_writes_what_the_tokenizer_writes(template, tokenizer):
    for task in (WITH, WITHOUT, Task("  {빈칸} {0}", " {}\n", "x")):
        user = "\n\n".join(part.strip() for part in (task.instruction, task.input) if part)
        turns = [{"role": "user", "content": user}]
        options = {"tokenize": False, "enable_thinking": False}
        asked = tokenizer.apply_chat_template(turns, add_generation_prompt=True, **options)
        assert template.render(task).startswith(asked)
        assert template.render(task).endswith(template.response_marker)
        turns.append({"role": "assistant", "content": task.output})
        whole = tokenizer.apply_chat_template(turns, **options)
        assert template.render(task) + task.output + template.end == whole


def test_the_chat_template_is_the_tokenizers_own(tokenizer):
    template = get_template("chat", tokenizer)
    assert_writes_what_the_tokenizer_writes(template, tokenizer)
    assert template.response_marker == "<start_of_turn>model\n"
    assert template.end == "<end_of_turn>\n"


class Odd:
    """A tokenizer whose chat template is missing, or does what a given function does."""

    def __init__(self, chat_template):
        self.chat_template = chat_template

    def get_chat_template(self):
        return "made by hand"

    def apply_chat_template(self, turns, *, add_generation_prompt, **options):
        return self.chat_template([turn["content"] for turn in turns], add_generation_prompt)


@pytest.mark.parametrize(("template", "reason"), [
    (None, "is missing, so"),
    (lambda texts, prompt: "".join(texts * 2), "does not write the text of a turn exactly once"),
    (lambda texts, prompt: "images", "does not write the text of a turn exactly once"),
    (lambda texts, prompt: ">".join(texts) + "A:" * prompt, "opens a response with 'A:', which is"),
    (lambda texts, prompt: 1 / 0, r"no turn that is plain text \(division by zero\)"),
    ("{{ ['A', 'B']|random }}", "uses 'random', so no two prompts"),
    ("{% filter random %}{{ messages }}{% endfilter %}", "uses 'random', so no two prompts"),
    ({"default": "{{ messages }}{{ lipsum(1) }}"}, "uses 'lipsum', so no two prompts"),
])
def test_a_chat_template_that_cannot_be_used_is_refused(template, reason):
    with pytest.raises(CourseError, match=f'{reason}.*"alpaca-ko"'):
        chat_template(Odd(template))


# Every chat template that TRL ships, and why those are refused that are.
SHIPPED = Path(importlib.util.find_spec("trl").origin).parent / "chat_templates"
REFUSED = {
    "deepseek_r1_distill": r"'<think>\\n', which is not there .*always thinks",
    "deepseekv3": r"'<think>\\n', which is not there .*always thinks",
    "idefics3": "does not write the text of a turn.*images, instead of text",
    "llava_next": "takes no turn that is plain text .*has no attribute 'text'",
    "smolvlm": "does not write the text of a turn.*images, instead of text",
}


def with_template(tokenizer, template):
    tokenizer = copy.copy(tokenizer)
    tokenizer.chat_template = template
    return tokenizer


@pytest.fixture
def day(monkeypatch):
    """Make it another day for whatever a chat template asks transformers."""
    return lambda date: monkeypatch.setattr("transformers.utils.chat_template_utils.datetime",
                                            SimpleNamespace(now=lambda: date))


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.jinja")), ids=lambda path: path.stem)
def test_every_chat_template_of_trl_is_taken_or_refused_for_what_it_does(path, tokenizer, day):
    day(TODAY)
    tokenizer = with_template(tokenizer, path.read_text(encoding="utf-8"))
    reason = REFUSED.get(path.stem.removesuffix("_training"))
    if reason:
        with pytest.raises(CourseError, match=reason):
            chat_template(tokenizer)
        return
    assert_writes_what_the_tokenizer_writes(chat_template(tokenizer), tokenizer)


@pytest.mark.parametrize(("name", "thought"), [
    ("qwen3", "<think>\n\n</think>\n\n"), ("qwen3_5_think", "<think>\n\n</think>\n\n"),
    ("nemotron_3_nano", "<think></think>"), ("glm4moe", "<think></think>\n"),
    ("gptoss", "<|channel|>final<|message|>"), ("phi3", "<|assistant|>\n"),
])
def test_a_thought_that_is_not_thought_belongs_to_the_prompt(name, thought, tokenizer):
    shipped = (SHIPPED / f"{name}.jinja").read_text(encoding="utf-8")
    template = chat_template(with_template(tokenizer, shipped))
    assert template.response_marker.endswith(thought) and thought not in template.end


# As in Midm 2.0 and Llama 3.2: the date in words.
DATED = """\
{%- if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}
{{- bos_token + '오늘 날짜는 ' + date_string + '이다.' }}{% for message in messages %}
{{- '<|' + message.role + '|>' + message.content }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"""


def test_every_code_of_strftime_is_that_of_the_one_day(tokenizer):
    codes = [f"%{sign}{code}" for sign in ("", "-", "_", "0", "^", "#") for code in ascii_letters
             if code != "s"]
    codes = [code for code in codes if "%" not in TODAY.strftime(code)]
    assert len(codes) > 200
    for wanted in [*codes, "%%Y %%%Y %Y%% 100%", "%10d|%Ey|%Od|%:z", "%H:%M:%S, %-d. %j, it's %c"]:
        with_clock = with_template(tokenizer, f'{{{{ strftime_now("{wanted}") }}}}')
        dated = with_fixed_date(with_clock.chat_template)
        assert dated == with_fixed_date(dated)
        written = with_clock.apply_chat_template(TURN, chat_template=dated, tokenize=False)
        assert written == TODAY.strftime(wanted)


@pytest.mark.parametrize(("name", "written"), [
    ("llama3_2", "01 Jan 2026"), ("gptoss", "2026-01-01"), ("muse_glimmer", "2026-01-01"),
    (None, "오늘 날짜는 01 Jan 2026이다.")])
def test_a_prompt_is_the_same_every_day(name, written, tokenizer, day):
    shipped = (SHIPPED / f"{name}.jinja").read_text("utf-8") if name else DATED
    tokenizer = with_template(tokenizer, shipped)
    ours, theirs = set(), set()
    for date in (datetime.datetime(2030, 5, 1), datetime.datetime(2030, 5, 2)):
        day(date)
        ours.add(chat_template(tokenizer).render(WITHOUT))
        theirs.add(tokenizer.apply_chat_template(TURN, tokenize=False))
    assert (len(ours), len(theirs)) == (1, 2)
    assert written in ours.pop()


def test_a_tokenizer_is_loaded_with_a_date_that_stays(tokenizer, tiny_base, tmp_path, day):
    base = shutil.copytree(tiny_base, tmp_path / "base")
    with_template(tokenizer, DATED).save_pretrained(base)
    loaded, texts = load_tokenizer(base), set()
    for date in (datetime.datetime(2030, 5, 1), datetime.datetime(2030, 5, 2)):
        day(date)
        texts.add(loaded.apply_chat_template(TURN, tokenize=False, add_generation_prompt=True))
    template = chat_template(loaded)  # the same whether the tokenizer was loaded here or not
    assert texts == {template.render(Task("?"))}
    loaded.save_pretrained(base)  # as a merged model's is
    assert load_tokenizer(base).chat_template == loaded.chat_template


def test_a_mistyped_template_names_the_closest_and_chat_needs_a_tokenizer():
    assert get_template("alpaca-ko") is ALPACA_KO
    with pytest.raises(CourseError, match="the closest is 'koalpaca'"):
        get_template("koalpacca")
    with pytest.raises(CourseError, match="pass one"):
        get_template("chat")


# ---------------------------------------------------------------- generation


def test_the_generation_prompt_opens_the_next_item():
    prompt = generation_prompt(SEEDS)
    assert prompt.endswith("###\n4. 지시문:")
    assert "2. 입력: <noinput>\n" in prompt
    assert "4번부터 23번까지" in prompt and "과제 20개" in prompt
    numbers = [line.split(".")[0] for line in prompt.split("\n\n")[1].split("\n")[1:]]
    assert numbers == [str(n) for n in range(1, 10)]  # Alpaca's own list is misnumbered


line = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z", "P", "S"]), min_size=1)


@settings(deadline=None)
@given(st.lists(st.builds(Task, line, st.just("") | line, line), max_size=4), st.integers(1, 40))
def test_a_generation_prompt_is_read_back(examples, n):
    prompt = generation_prompt(examples, n)
    expected = (examples, n)
    if any(task.input.lower() == "noinput" for task in examples):
        expected = None
    assert read_generation_prompt(prompt) == expected
    assert read_generation_prompt(prompt + "x") is read_generation_prompt("x" + prompt) is None


def test_the_json_prompt_is_read_back_and_names_its_format():
    prompt = generation_prompt(SEEDS, 17, as_json=True)
    assert read_generation_prompt(prompt) == (SEEDS, 17)
    assert read_generation_prompt(prompt + " ") is read_generation_prompt("안녕하세요") is None
    reply = prompt.partition("보기:\n")[2]
    assert parse_generation(reply, first_number=4).tasks == SEEDS
    item = TASKS_FORMAT["json_schema"]["schema"]["properties"]["tasks"]["items"]
    assert item["required"] == list(item["properties"]) == ["instruction", "input", "output"]


words = st.lists(st.sampled_from("봄 여름 가을 겨울 3 하늘 바다".split()), min_size=2, max_size=6)
item = st.builds(Task, words.map(lambda w: "말하세요 " + " ".join(w)),
                 st.just("") | words.map("\n".join), words.map(" ".join))


@settings(max_examples=60, deadline=None)
@given(st.lists(item, min_size=1, max_size=6), st.integers(0, 3))
def test_what_is_written_in_the_format_is_read_back(tasks, examples):
    text = generation_prompt([*SEEDS[:examples], *tasks])
    reply = text.split(f"\n{examples + 1}. 지시문:", 1)[1].rsplit("###", 1)[0]
    assert parse_generation(reply, first_number=examples + 1).tasks == tasks
