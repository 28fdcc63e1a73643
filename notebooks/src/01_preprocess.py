# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown] lang="ko"
# # 01 전처리: 씨앗 과제에서 지시 데이터까지
#
# 언어 모델이 지시를 따르게 하려면 **지시문, 입력, 응답**으로 된 예가 수천 개 있어야 합니다. 사람이 모두 쓰기에는 너무 많습니다.
# 그래서 사람은 씨앗(seed)만 쓰고, 나머지는 더 큰 모델, 곧 **교사**(teacher)에게 씨앗을 보여 주며 새로 쓰게 합니다. 이 방법이 Self-Instruct이고,
# Stanford Alpaca는 씨앗 175개로 52,002개를 얻었습니다. 이 노트북은 그 길을 한국어로 다시 걷습니다.
#
# 끝까지 가면 이런 것이 손에 남습니다.
#
# - 직접 만들고 걸러 낸 한국어 지시 데이터 `tasks.jsonl`
# - 무엇을 왜 버렸는지 하나도 빠짐없이 센 `funnel.json`
# - 교사 모델에게서 받은 응답을 모두 남긴 일지 `journal.jsonl`
#
# 강의 전체는 이렇게 이어집니다. 지금은 첫 화살표입니다.
#
# ```text
# 씨앗 과제 ──▶ [01 전처리] ──▶ 지시 데이터 ──▶ [02 학습] ──▶ LoRA 어댑터 ──▶ [03 평가] ──▶ 보고서
# ```
#
# 아래 셀을 실행하면 카드가 나옵니다. 어디서 실행되는지, 교사가 누구인지, 결과가 어디에 쌓이는지 먼저 읽어 보세요.

# %% [markdown] lang="en" of="2ecb3bb9"
# # 01 Preprocess: from seed tasks to instruction data
#
# To teach a language model to follow instructions you need thousands of examples, each an **instruction, an input and a
# response**. That is too many to write by hand. So people write a few seeds, and a larger model, the **teacher**, is shown
# some of them and writes the rest. The method is called Self-Instruct; Stanford Alpaca turned 175 seeds into 52,002
# examples with it. This notebook does the same in Korean.
#
# At the end you will have
#
# - Korean instruction data that you generated and filtered yourself: `tasks.jsonl`
# - a complete count of what was thrown away, and why: `funnel.json`
# - every reply the teacher ever gave you: `journal.jsonl`
#
# The whole course looks like this. You are at the first arrow.
#
# ```text
# seed tasks ──▶ [01 preprocess] ──▶ instruction data ──▶ [02 train] ──▶ LoRA adapter ──▶ [03 evaluate] ──▶ report
# ```
#
# Run the cell below and read its card first: where this runs, who the teacher is, where results go.

# %% cellView="form" jupyter={"source_hidden": true}
# @title 준비 · Set-up { display-mode: "form" }
import subprocess
import sys

if "google.colab" in sys.modules:  # on Colab: the tagged course, cloned once, and what it needs
    home = "/content/instruction-tuning-course"
    source = "https://github.com/ORG/instruction-tuning-course"
    clone = f"git -c advice.detachedHead=false clone -q --depth 1 --branch v0.1.0 {source} {home}"
    if subprocess.run(f"test -d {home} || {clone}", shell=True).returncode:
        raise ConnectionError(f"{source} could not be cloned, see above: run this cell again.")
    sys.path[:0] = [home] if home not in sys.path else []
    from course_utils.plumbing.colab import install

    install()

# %%
from course_utils.session import setup

course = setup()

# %% [markdown] lang="ko"
# 카드의 Teacher 줄에 `SIMULATED`가 보인다면 교사는 언어 모델이 아니라 **정답을 아는 작은 프로그램**입니다.
# 지명과 특산물, 낱말의 뜻처럼 강의가 정해 둔 **작은 세계**만 알고, 열두 가지 유형의 과제를 쓰면서 진짜 교사에게 있을 법한 실수도 정해진 비율로 섞습니다.
# 절차를 익히고 결과를 검산하기에는 좋지만, 이렇게 만든 데이터의 품질은 실제 모델에 관해 아무것도 말해 주지 않습니다.
# GPU가 있으면 같은 셀이 진짜 모델로 돌아갑니다. Colab에서는 키가 없어도 됩니다. Colab이 빌려주는 모델이 교사를 맡고, API 키가 있으면 그 키로 쓰는 모델이 맡습니다.
# 바뀌는 것은 **레시피**(recipe), 곧 어떤 모델을 어떤 값으로 쓸지 적어 둔 설정 파일뿐입니다.
#
# 돈과 시간을 쓰기 전에, 앞선 실행에 얼마나 들었는지 봅니다. `candidates`는 교사가 쓴 후보, `kept`는 그 가운데 남긴 과제, `calls`는 물은 횟수입니다.
# `tokens`는 모델이 글을 세는 단위인 토큰의 수이고, 요금도 이것으로 매깁니다.

# %% [markdown] lang="en" of="cea33b18"
# If the card's Teacher line says `SIMULATED`, the teacher is not a language model but **a small program that knows the
# answers**. All it knows is a **small world** of places and their specialities, meanings of words and the like. It writes
# tasks of twelve kinds and, at fixed rates, makes the mistakes that a real teacher might make. That is good for learning the
# procedure and for checking results; the quality of such data says nothing about real models. On a GPU the same cells run
# with a real one. On Colab you need no key for that: a model that Colab lends you is the teacher, or, if you have an API
# key, the model behind it. Only the **recipe** changes, the file that says which models to use and with what settings.
#
# Before anything is spent: what did the last run take? `candidates` are the tasks that the teacher wrote, `kept` those that
# were kept, and `calls` how often it was asked. `tokens` are the units in which a model counts text, and in which you pay.

# %%
import json

from course_utils import CourseError

try:
    last = json.loads((course.artefact("preprocess") / "funnel.json").read_text(encoding="utf-8"))
    print("{candidates:,} candidates, {kept:,} kept".format(**last))
    print("{calls:,} calls, {tokens:,} tokens, ${cost:.2f}".format(**last))
except CourseError as problem:
    print(f"No earlier run to learn from. {problem}")

# %% [markdown] lang="ko"
# ## 1. 씨앗 과제
#
# 과제(task) 하나는 세 칸으로 되어 있습니다. `instruction`은 시키는 말, `input`은 그 일에 필요한 글(없을 수도 있습니다), `output`은 바른 응답입니다.
# 씨앗은 사람이 손으로 씁니다. 실제 교사는 씨앗의 말투와 범위를 흉내 내므로, 데이터 품질의 절반은 여기서 이미 정해집니다. (모의 교사는 씨앗을 읽지 않습니다.)

# %% [markdown] lang="en" of="28315cf6"
# ## 1. Seed tasks
#
# A task has three fields: `instruction` says what to do, `input` is the text to do it with (there may be none), and
# `output` is a correct response. Seeds are written by hand. A real teacher imitates their tone and their range, so half of
# your data's quality is decided here. (The simulated one does not read them.)

# %%
from course_utils import REPO
from course_utils.tasks import read_tasks

seeds = read_tasks(REPO / "data" / "seed_tasks.jsonl")
with_input = sum(bool(task.input) for task in seeds)
print(f"{len(seeds)} seeds, {with_input} of them with an input\n")
for task in seeds[:3]:
    print("instruction ", task.instruction)
    print("input       ", task.input or "-")
    print("output      ", task.output.replace("\n", " / "), "\n")

# %% [markdown] lang="ko"
# 입력이 있는 과제와 없는 과제가 섞여 있습니다. Alpaca의 데이터는 약 40%에 입력이 있었습니다.
# `read_tasks`는 파일을 통째로 읽거나 아예 읽지 않습니다. 17번째 줄이 깨졌다면 그 줄 번호를 알려 주고 멈춥니다.

# %% [markdown] lang="en" of="3be67d80"
# Some tasks have an input, some have none; in Alpaca's data about 40% have one.
# `read_tasks` reads a file whole or not at all: if line 17 is broken, it names that line and stops.

# %% [markdown] lang="ko"
# ## 2. 교사에게 묻고 답을 읽기
#
# Alpaca는 교사에게 씨앗 세 개를 보여 주고, 이어서 새 과제를 줄줄이 써 달라고 합니다. 우리는 새 과제 스무 개를 부탁합니다. 그 부탁을 적은 글이 생성 프롬프트(prompt)입니다.
# 첫 요청에 실제로 무엇을 적어 보내는지 끝까지 읽어 보세요. 앞부분은 교사가 지켜야 할 것입니다.

# %% [markdown] lang="en" of="4812f6fe"
# ## 2. Ask the teacher and read the reply
#
# Alpaca shows its teacher three seeds and asks it to continue with new ones. We ask for twenty. This request is the generation
# prompt. Read what the first request really sends, to the end. It begins with the rules that the teacher is to follow.

# %%
from course_utils import REPO
from course_utils.generate import generation_requests
from course_utils.tasks import read_tasks

seeds = read_tasks(REPO / "data" / "seed_tasks.jsonl")
request = next(generation_requests(seeds, seed=course.recipe.data.seed))
orders, heading, examples = request.messages[0]["content"].partition("과제 목록:")  # list of tasks
print(orders.strip())

# %% [markdown] lang="ko"
# 같은 프롬프트가 씨앗 세 개로 이어지고, 새 과제가 시작될 자리에서 끝납니다.

# %% [markdown] lang="en" of="1be9f20a"
# The same prompt goes on with three seeds, and ends where the new tasks are to begin.

# %%
print(heading + examples)

# %% [markdown] lang="ko"
# 맨 끝을 보세요. 프롬프트가 `4. 지시문:`에서 멈춥니다. 모델은 이어 쓰는 기계이므로, 문을 열어 두면 4번부터 쓰기 시작합니다.
# 어떤 씨앗을 보여 줄지는 난수로 고르되, 난수는 요청 번호로 정해집니다. 그래서 n번째 요청은 언제 다시 만들어도 글자 하나까지 같습니다.
#
# 보내기 전에 **계획**부터 세웁니다. 계획은 아무에게도 묻지 않으니 돈도 들지 않습니다.

# %% [markdown] lang="en" of="e2f864e3"
# Look at the very end: the prompt stops at `4. 지시문:` ("4. Instruction:"). A language model continues text, so a door
# left open there makes it begin with item 4. The three seeds are drawn at random, but the draw depends only on the number of
# the request, so request n is the same to the letter whenever it is made.
#
# Before sending it, **plan**. A plan asks nobody and spends nothing.

# %%
from itertools import islice

work = course.store.restore("preprocess")  # a new session takes back what the last one sealed

teacher = course.llm("teacher", journal=work / "journal.jsonl")
spec = course.recipe.data
loop = islice(generation_requests(seeds, seed=spec.seed), spec.n // 20)
print("this request          ", teacher.plan([request]))
print(f"{spec.n:,} tasks, none lost", teacher.plan(loop))

# %% [markdown] lang="ko"
# 아직 받은 응답이 없으면 계획은 최악을 가정합니다. 응답이 허용된 길이를 꽉 채운다고 보는 것입니다. 응답이 쌓이면 그 평균을 씁니다.
# 둘째 줄은 하나도 버리지 않을 때의 이야기입니다. 실제로는 더 많이 묻게 됩니다. 얼마나 더 묻는지는 5절에서 드러납니다.
#
# 이제 한 번만 묻습니다.

# %% [markdown] lang="en" of="36c2517e"
# As long as there is no reply to learn from, the plan assumes the worst: that replies are as long as they may be. Later it
# uses their mean. The second line supposes that nothing is thrown away. In practice it takes more requests; section 5 shows
# how many more.
#
# Now ask, once.

# %%
import time
from dataclasses import replace

LIVE = False  # True: ask anew whenever this cell runs, pay for it, and keep the reply all the same

asked = replace(request, sample=time.time_ns()) if LIVE else request
[reply] = teacher.complete([asked])
assert reply.text is not None, reply.error
print("cached", reply.cached, " finish_reason", reply.finish_reason, " usage", reply.usage, "\n")
print(*reply.text.splitlines()[:15], "...", sep="\n")

# %% [markdown] lang="ko"
# 이것이 날것 그대로의 응답입니다. 첫 과제에는 흔히 번호가 없습니다. 우리가 `4. 지시문:`까지 이미 써 주었기 때문입니다.
# `finish_reason`은 응답이 왜 끝났는지입니다. `stop`은 스스로 마친 것, `length`는 길이 제한에 잘린 것입니다.
#
# 위의 셀을 한 번 더 실행해 보세요. `cached`가 `True`로 바뀝니다. 응답은 화면에 보이기 전에 일지에 먼저 적히고, 같은 질문에는 일지가 답합니다.
# `LIVE = True`로 바꾸면 실행할 때마다 교사에게 실제로 한 번 더 물어 **새 표본**(sample)을 받습니다. 수업에서 시연할 때 쓰세요.
# 나머지 셀은 그대로 일지에서 답을 얻습니다. (모의 교사는 다시 물어도 같은 글을 씁니다.)
#
# 이제 글을 과제로 바꿉니다. 응답에 적힌 과제는 아직 **후보**(candidate)입니다. 규칙은 하나입니다.
# **모든 후보는 과제가 되거나, 이름 붙은 이유 하나로 거절됩니다.** 조용히 사라지는 것은 없습니다.

# %% [markdown] lang="en" of="ec9d25ad"
# This is the reply as it came. Its first item often has no number: we had already written `4. 지시문:` for it.
# `finish_reason` says why a reply ended: `stop` if it ended by itself, `length` if the length limit cut it off.
#
# Run the cell above again and `cached` turns to `True`. A reply is written to the journal before anybody sees it, and the
# same question is answered from there. With `LIVE = True` each run really asks again and gets **another sample**, which is
# useful in front of a class; all other cells are still answered from the journal. (The simulated teacher writes the same
# text when asked again.)
#
# Now turn text into tasks. So far a reply holds only **candidates**, and there is one rule: **every candidate becomes a
# task or is rejected for one named reason.** Nothing disappears silently.

# %%
from course_utils.parsing import parse_generation, split_candidates

candidates = split_candidates(reply.text, first_number=4)
parsed = parse_generation(reply.text, first_number=4, finish_reason=reply.finish_reason)
print(f"{len(candidates)} candidates = {len(parsed.tasks)} tasks + {len(parsed.rejected)} rejected\n")
for reason, text in parsed.rejected:
    print(f"[{reason}]\n{text}\n")
assert len(parsed.tasks) + len(parsed.rejected) == len(candidates)

# %% [markdown] lang="ko"
# 등식이 맞아떨어집니다. 대괄호 안이 거절한 이유입니다. 이를테면 `needs another medium`은 글만으로는 할 수 없는 과제라는 뜻입니다(규칙은 3절에서 봅니다).
#
# 같은 교사라도 응답의 모양은 매번 조금씩 다릅니다. 아래는 흔한 버릇을 모아 손으로 쓴 응답입니다.
# 인사말, 굵은 글씨, 전각 숫자와 쌍점, 빠진 칸, 길이 제한에 잘린 끝이 다 들어 있습니다.

# %% [markdown] lang="en" of="7132a25b"
# The sum is right. The brackets hold the reason for a rejection: `needs another medium`, for one, is a task that cannot be
# done with text alone (section 3 has the rules).
#
# The same teacher writes a little differently every time. Here is a reply put together by hand from common habits: a
# greeting, bold labels, full-width digits and colons, a missing field, and an end cut off by the length limit.

# %%
untidy = """네, 이어서 쓰겠습니다.

**4. 지시문:** 다음 낱말의 뜻을 설명해 주세요.
**4. 입력:** 전세
**4. 출력:** 보증금을 맡기고 월세 없이 집을 빌리는 방식입니다.
###
５．지시문： 봄에 어울리는 인사말을 하나 써 주세요.
５．입력： <noinput>
５．출력： 꽃이 피는 계절, 건강하시길 빕니다.
###
6. 지시문: 아래 글을 요약해 주세요.
6. 출력: 요약할 글이 없습니다.
###
7. 지시문: 세 문장으로 자기소개를"""
parsed = parse_generation(untidy, first_number=4, finish_reason="length")
print(*[task.to_dict() for task in parsed.tasks], *parsed.rejected, sep="\n")
assert [reason for reason, _ in parsed.rejected] == ["missing field", "truncated"]

# %% [markdown] lang="ko"
# 과제 둘을 건지고, 둘은 이유와 함께 거절했습니다. 마지막 후보가 `truncated`인 것은 글만 보고 안 것이 아닙니다.
# 서버가 `finish_reason="length"`라고 알려 준 덕분입니다. 잘린 응답이 우연히 그럴듯하게 끝나는 일도 있으니, 이 신호를 버리면 안 됩니다.

# %% [markdown] lang="en" of="6fc3758c"
# Two tasks are saved and two candidates rejected, each with its reason. You cannot see that the last one is `truncated` from its
# text alone: the server said so with `finish_reason="length"`. A cut reply may happen to end plausibly, so never drop that
# signal.

# %% [markdown] lang="ko"
# 번호를 붙인 글 대신 **JSON**으로 받을 수도 있습니다. 요청에 `response_format`으로 스키마(schema)를 함께 보내면, 스키마를 지원하는 서버는 꼭 그 모양으로만 답합니다.
# 부탁하는 글과 스키마가 다를 뿐, 답을 읽는 함수는 같습니다.

# %% [markdown] lang="en" of="4e8037c9"
# Instead of numbered text you can ask for **JSON**. Send a schema along as `response_format`, and a server that supports
# schemas answers in that form and no other. The prompt and the schema differ; the function that reads the reply is the same.

# %%
from course_utils.prompts import TASKS_FORMAT

[request] = islice(generation_requests(seeds, seed=course.recipe.data.seed, as_json=True), 1)
[reply] = teacher.complete([request])
assert reply.text is not None, reply.error
whole = parse_generation(reply.text, first_number=4, finish_reason=reply.finish_reason)
half = reply.text[: len(reply.text) // 2]  # as if the length limit had struck
cut = parse_generation(half, first_number=4, finish_reason="length")
print("schema of a task:", *TASKS_FORMAT["json_schema"]["schema"]["properties"]["tasks"]["items"]["required"])
print(reply.text[:180], "...\n")
print(f"whole: {len(whole.tasks)} tasks, rejected {[reason for reason, _ in whole.rejected]}")
print(f"cut:   {len(cut.tasks)} tasks, rejected {[reason for reason, _ in cut.rejected]}")
assert cut.rejected[-1].reason == "truncated" and cut.tasks == whole.tasks[: len(cut.tasks)]

# %% [markdown] lang="ko"
# 반으로 잘린 JSON은 `json.loads`로는 한 글자도 읽지 못합니다. 그래도 잘리기 전에 끝난 과제는 모두 건졌고, 잘린 마지막 하나를 `truncated`로 거절했습니다.
# 함께 나온 `missing field`는 잘려서 생긴 것이 아닙니다. 모의 교사는 스키마를 받고도 가끔 칸을 빠뜨리고, 실제 서버 가운데에도 스키마를 모르는 것이 있습니다. JSON이라고 검사를 줄이지는 않습니다.
#
# 이 뒤로는 글로 받은 응답을 씁니다. `generate_tasks(..., as_json=True)`라고 쓰면 JSON으로 받습니다.

# %% [markdown] lang="en" of="f78df19b"
# `json.loads` cannot read a single letter of a JSON text that was cut in half. Here every task that was finished before the
# cut is saved, and the last one is rejected as `truncated`. The `missing field` beside it does not come from the cut: the
# simulated teacher leaves a field out now and then even though it was sent the schema, and some real servers support no schemas
# at all. JSON is no reason to check less.
#
# From here on we use text; `generate_tasks(..., as_json=True)` asks for JSON.

# %% [markdown] lang="ko"
# ## 3. 한국어를 위한 규칙
#
# Alpaca는 과제를 받으면 몇 가지 규칙으로 먼저 거릅니다. 그런데 그 규칙은 영어를 위한 것입니다.
# 아래 함수는 그 규칙을 순서대로 옮긴 것입니다. 손으로 공들여 쓴 우리 씨앗에 그대로 적용하면 어떻게 될까요?

# %% [markdown] lang="en" of="5ab9a3bd"
# ## 3. Rules for Korean
#
# Alpaca first filters tasks with a handful of rules. They were written for English. The function below applies them in their original
# order. What do they do to our seeds, every one of them carefully written by hand?

# %%
import re
import string
from collections import Counter

from course_utils import REPO
from course_utils.tasks import read_tasks

BLACKLIST = "image|images|graph|graphs|picture|pictures|file|files|map|maps|draw|plot|go to"
BLACKLIST += "|video|audio|music|flowchart|diagram"


def alpaca_says(instruction):
    """Alpaca's rules on instructions, as they are applied to English."""
    if not 3 < len(instruction.split()) <= 150:
        return "too short or too long"
    if re.search(rf"\b({BLACKLIST})\b", instruction, re.IGNORECASE):
        return "a word from the blacklist"
    if instruction.startswith("Write a program"):
        return "Write a program"
    if instruction[0] in string.punctuation:
        return "starts with punctuation"
    return "kept" if instruction[0].isascii() else "starts with a non-English character"

# %% [markdown] lang="ko"
# 이 함수를 모든 씨앗에 적용해, 무엇 때문에 떨어지는지 셉니다.

# %% [markdown] lang="en" of="440bec88"
# Apply it to all seeds and count the verdicts.

# %%
seeds = read_tasks(REPO / "data" / "seed_tasks.jsonl")
for verdict, count in Counter(alpaca_says(task.instruction) for task in seeds).most_common():
    print(f"{count:4} {verdict}")
print("kept:", *[task.instruction for task in seeds if alpaca_says(task.instruction) == "kept"], sep="\n  ")
korean = [task for task in seeds if "가" <= task.instruction[0] <= "힣"]
assert not any(alpaca_says(task.instruction) == "kept" for task in korean)

# %% [markdown] lang="ko"
# 한글로 시작하는 지시문은 **하나도 남지 않습니다**. 남은 것은 우연히 숫자나 영문자로 시작한 몇 개뿐입니다. 오류도 나지 않으니, 모르고 돌리면 빈 데이터만 남습니다.
#
# 비슷한 과제를 거르는 필터는 거꾸로 틀립니다. Alpaca는 두 글을 토큰(token)이라는 조각으로 잘라 얼마나 겹치는지 잽니다(4절).
# 이렇게 자르는 것이 토크나이저(tokenizer)인데, Alpaca가 쓰는 rouge-score의 토크나이저는 영문자와 숫자만 남깁니다. (글을 견주려고 자른 토큰이라, 요금을 매기던 모델의 토큰과는 다릅니다.)

# %% [markdown] lang="en" of="b9d660a5"
# Of the instructions that begin in Hangul **not one is left**; what remains happens to begin with a digit or a Latin letter.
# No error is raised: if you do not look, you end up with empty data.
#
# The filter for near-duplicates fails the other way round. Alpaca cuts two texts into pieces, tokens, and measures how many
# they share (section 4). The tool that cuts them is a tokenizer, and the one in rouge-score, which Alpaca uses, keeps nothing but ASCII
# letters and digits. (These tokens are for comparing texts; they are not the model's, in which you pay.)

# %%
def stock_tokens(text):
    """What rouge-score's own tokenizer does: everything but a-z and 0-9 is a space to it."""
    return re.sub(r"[^a-z0-9]+", " ", text.lower()).split()


for text in ["다음 문장을 존댓말로 바꿔 주세요.", "SQL에서 LEFT JOIN을 설명해 주세요."]:
    print(text, "->", stock_tokens(text))
blind = sum(not stock_tokens(task.instruction) for task in seeds)
print(f"{blind} of {len(seeds)} seed instructions have no token at all")

# %% [markdown] lang="ko"
# 토큰이 없으면 겹치는 토큰도 없으니 유사도는 늘 0입니다. 한국어로만 쓴 지시문이라면 앞의 규칙은 **모두 버리고**, 이 필터는 **모두 통과**시킵니다. 둘 다 한국어를 보지 못합니다.
#
# 한국어에는 어절(띄어 쓴 한 덩이)보다 작은 단위가 필요합니다. `지도를`, `지도는`, `지도에서`는 명사 하나에 조사가 붙은 것이고, `지도자`는 아예 다른 낱말입니다.
# 글을 뜻이 있는 가장 작은 조각으로 나누는 형태소(morpheme) 분석기가 이것을 가려 줍니다.

# %% [markdown] lang="en" of="6354d26a"
# Without tokens nothing overlaps, so every similarity is 0. Of instructions written purely in Korean, the rules above **reject
# everything** and this filter **admits everything**. Neither can see Korean.
#
# Korean needs a unit smaller than the stretch between two spaces (어절, eojeol). `지도를`, `지도는` and `지도에서` are one noun (a
# map) with three particles, while `지도자` (a leader) is another word altogether. A morphological analyser, which cuts text
# into its smallest meaningful pieces, tells them apart.

# %%
from course_utils import korean

for text in ["서울 지도를 그려 주세요.", "좋은 지도자의 자질을 알려 주세요."]:
    print(" / ".join(f"{form}({tag})" for form, tag in korean.tokens(text)))

# %% [markdown] lang="ko"
# `지도`와 `지도자`가 서로 다른 명사(NNG)로 나왔습니다. 이 단위로 규칙을 쓰면, 글만 다루는 모델이 할 수 없는 일(그림이나 지도 그리기, 음악 틀기)만
# 집어낼 수 있습니다. 낱말이 들어 있는지만 보는 검사와 나란히 놓아 봅니다.

# %% [markdown] lang="en" of="cd75ebb1"
# `지도` and `지도자` come out as two different nouns (NNG). Rules built on these units can pick out what a text model cannot
# do (drawing pictures or maps, playing music) and nothing else. Here they are beside a test that only looks for the words.

# %%
from course_utils.parsing import check_task
from course_utils.tasks import Task

cases = {
    "서울 지도를 그려 주세요.": True,  # draw a map of Seoul
    "좋은 지도자의 자질을 알려 주세요.": False,  # qualities of a good leader
    "지도 교수님께 드릴 편지를 써 주세요.": False,  # a letter to one's supervisor
    "그림자가 생기는 까닭을 설명해 주세요.": False,  # why there are shadows
    "잔잔한 음악을 틀어 주세요.": True,  # play some quiet music
    "음악 시간에 배운 빠르기말을 설명해 주세요.": False,  # terms from the music lesson
}
for instruction, impossible in cases.items():
    by_word = any(word in instruction for word in ("지도", "그림", "음악"))
    by_rule = check_task(Task(instruction, output="네.")) == "needs another medium"
    print(f"by word {by_word!s:6} by morpheme {by_rule!s:6} {instruction}")
    assert by_word and by_rule == impossible

# %% [markdown] lang="ko"
# 낱말만 보면 여섯 문장이 모두 걸립니다. 형태소를 보면 정말 못 하는 둘만 걸립니다. 규칙은 모두 여덟 개이고, 먼저 걸린 하나가 거절 이유가 됩니다.
# 순서대로, 지시문이나 출력이 빈 것, 너무 짧은 것(2어절 미만), 너무 긴 것(100어절 초과), 한글이 글자의 20%도 안 되는 것, 글 밖의 매체가 필요한 것,
# 따옴표도 괄호도 아닌 부호로 시작하는 것, 출력이 지시문을 되풀이하는 것, 입력이 자리표시뿐인 것을 거릅니다.

# %% [markdown] lang="en" of="7fafa227"
# By word all six are caught; by morpheme only the two that are really impossible. There are eight rules in all, and the
# first one that fires is the reason.

# %%
import inspect

from course_utils.parsing import RULES, check_task

for name, rule in RULES.items():
    print(f"{name:24}{rule.description}")
assert len(RULES) == 8
print("\n" + inspect.getsource(check_task))

# %% [markdown] lang="ko"
# ## 4. 비슷한 과제 걸러 내기
#
# 교사는 같은 과제를 말끝만 바꿔 되풀이하곤 합니다. 그런 과제가 쌓이면 데이터는 커지는데 배울 것은 늘지 않습니다.
# Alpaca는 새 과제를 지금까지 남긴 것 전부와 견주어, ROUGE-L이 0.7을 넘는 것이 하나라도 있으면 버립니다.
#
# ROUGE-L은 두 글에 **같은 순서로** 들어 있는 토큰을 가장 길게 골라낸 것(최장 공통 부분 수열, LCS)으로 셈합니다. 토큰이 붙어 있지 않아도 됩니다.
# LCS의 길이를 한 글의 토큰 수로 나누면 정밀도(precision), 다른 글의 토큰 수로 나누면 재현율(recall)이고, 둘의 조화 평균 F1이 점수입니다.
# 0이면 겹치는 것이 없고 1이면 똑같습니다. 손으로 한번 구해 봅니다.

# %% [markdown] lang="en" of="c4be238f"
# ## 4. Leaving out near-duplicates
#
# A teacher likes to repeat itself with new endings. Such tasks make the data larger and teach nothing. Alpaca compares a new
# task with everything kept so far and drops it if any ROUGE-L is above 0.7.
#
# ROUGE-L starts from the longest series of tokens that both texts hold **in the same order**, side by side or not (the
# longest common subsequence, LCS). Its length divided by the number of tokens in one text is the precision, by the number in the other the
# recall; their harmonic mean, F1, is the score: 0 if nothing is shared, 1 if the tokens are equal. Work it out by hand once.

# %%
from course_utils.similarity import morphemes, rouge_l


def lcs(a, b):
    """The length of the longest common subsequence: best[i][j] is that of a[:i] and b[:j]."""
    best = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, x in enumerate(a, 1):
        for j, y in enumerate(b, 1):
            same = best[i - 1][j - 1] + 1
            best[i][j] = same if x == y else max(best[i - 1][j], best[i][j - 1])
    return best[-1][-1]


first, second = "다음 문장을 존댓말로 바꿔 주세요.", "아래 문장을 존댓말로 바꿔 주시겠어요?"
a, b = morphemes(first), morphemes(second)
precision, recall = lcs(a, b) / len(a), lcs(a, b) / len(b)
f1 = 2 * precision * recall / (precision + recall)
print(" ".join(a), "\n" + " ".join(b))
print(f"LCS {lcs(a, b)}, {len(a)} and {len(b)} tokens, F1 = {f1:.3f}")
assert f1 == rouge_l(a, b)

# %% [markdown] lang="ko"
# 손으로 구한 값과 `rouge_l`이 마지막 자리까지 같습니다. 이제 토큰의 단위만 바꿔 봅니다. 같은 두 문장인데 점수가 달라집니다.

# %% [markdown] lang="en" of="e2809bef"
# Your value and `rouge_l` agree to the last digit. Now change nothing but the unit: the same two sentences get different scores.

# %%
def syllables(text):
    return list("".join(text.split()))


units = {"words": str.split, "morphemes": morphemes, "syllables": syllables}
for name, tokenize in units.items():
    a, b = tokenize(first), tokenize(second)
    print(f"{name:10} {len(a):3} and {len(b):3} tokens   ROUGE-L {rouge_l(a, b):.3f}")

# %% [markdown] lang="ko"
# 그러므로 0.7 같은 기준은 토큰의 단위와 함께 말해야 뜻이 있습니다. 단위와 기준을 바꾸면 얼마나 남는지, 그 판정이 사람의 눈과 얼마나 맞는지
# 미리 재어 두었습니다(`tests/benchmarks/threshold.py`). 왼쪽은 모의 교사의 과제 2,000개 가운데 남는 비율이고, 오른쪽은 사람이 '같은 과제'와 '다른 과제'로
# 나눈 120쌍에서 필터의 판정이 사람과 일치한 비율입니다. 세로 막대는 95% 신뢰구간입니다(자세한 것은 03에서 배웁니다).

# %% [markdown] lang="en" of="f513de8c"
# So a threshold such as 0.7 means something only together with its unit. How much is left for each unit and threshold, and
# how well do the decisions agree with people? Both were measured beforehand (`tests/benchmarks/threshold.py`). On the
# left, the share kept of 2,000 tasks by the simulated teacher; on the right, agreement with 120 pairs that people labelled
# as the same task or different tasks. The bars are 95% confidence intervals (03 explains them).

# %%
import json

from course_utils import REPO, plots

measured = json.loads((REPO / "tests/benchmarks/results/threshold.json").read_text(encoding="utf-8"))
kept, agreement = {}, {}
for row in measured["kept"]:
    if row["body"] == "simulated":
        kept.setdefault(row["tokens"], {})[row["threshold"]] = row["share"]
for row in measured["agreement"]:
    interval = row["accuracy"], row["low"], row["high"]
    agreement.setdefault(row["tokens"], {})[row["threshold"]] = interval
chosen = ("morphemes", 0.7)
plots.threshold_choice(kept, agreement, chosen=chosen, title="The unit and the threshold 단위와 기준")

# %% [markdown] lang="ko"
# 왼쪽 그림에서는 선택이 중요해 보입니다. 0.7에서 어절(words)로 세면 더 많이 남고 형태소로 세면 더 많이 버립니다. 그런데 오른쪽 그림을 보면 **어느 것도 동전 던지기(50%)보다 뚜렷이 낫지 않습니다.**
# 기준 근처의 까다로운 쌍만 모아 놓으면, ROUGE-L은 같은 과제와 다른 과제를 거의 가르지 못합니다. 무엇을 놓치는지 변화의 종류별로 봅니다.

# %% [markdown] lang="en" of="ebd491fb"
# On the left the choice seems to matter: at 0.7, words keep more and morphemes drop more. But on the right **nothing is
# clearly better than tossing a coin (50%)**. Among difficult pairs near the threshold, ROUGE-L can hardly tell the same task
# from a different one. What does it miss? Look at the kinds of change.

# %%
rows = [row for row in measured["reasons"] if (row["tokens"], row["threshold"]) == ("morphemes", 0.7)]
for same, wanted in [(True, "the same task: drop one"), (False, "different tasks: keep both")]:
    print(wanted)
    for row in sorted(rows, key=lambda row: -row["above"]):
        if row["same"] == same:
            print(f"  {row['above']:2} of {row['pairs']} above 0.7   {row['why']}")

# %% [markdown] lang="ko"
# 말을 덧붙이거나 비슷한말로 바꾼 되풀이는 거의 다 잡고, 어순이나 말끝만 바꾼 것도 열에 일곱은 잡습니다.
# 반면 방향이나 수를 바꾼(이를테면 `높임말로`를 `반말로`) **다른** 과제도 똑같이 비슷해 보이고, 통째로 다시 쓴 **같은** 과제는 놓칩니다.
#
# 이 필터는 뜻이 아니라 겉모습이 겹치는 과제를 줄이는 장치입니다. 그래서 사람이 나눈 120쌍을 보고도 가장 좋은 기준을 고를 수는 없었습니다. 이 강의는 형태소와 Alpaca의 0.7을 쓰되,
# 가벼운 되풀이를 대부분 잡는 대신 새 과제도 적잖이 잃는 **절충**임을 알고 씁니다. 기준은 레시피의 `threshold`에 있습니다. 모의 교사의 작은 세계에서는 과제가 서로 많이 닮아, offline 레시피는 0.8로 높여 두었습니다.
#
# 2절에서 받은 응답을 필터로 걸러 봅니다. 견주는 글은 지시문과 입력을 이은 것입니다. 응답은 일지에서 나오므로 새로 묻지 않습니다.

# %% [markdown] lang="en" of="d35d6376"
# Repetitions with words added or a synonym are nearly all caught, and those with another ending or word order seven times in
# ten. But **different** tasks that reverse the direction (say, into `반말`, casual speech, instead of `높임말`, polite
# speech) or change a number look just as similar, and the **same** task in new words is missed.
#
# This filter thins out what looks alike, not what means the same. So even 120 labelled pairs do not show which threshold is
# best. The course takes morphemes and Alpaca's 0.7, knowing the **trade-off**: most slight variations are caught, and quite
# a few new tasks are lost. The threshold is in the recipe; in the simulated teacher's small world tasks resemble each other
# more, so the offline recipe raises it to 0.8.
#
# Try the filter on the reply of section 2; each text it compares is an instruction together with its input. The reply comes from the
# journal; nobody is asked again.

# %%
from course_utils.generate import generation_requests, question_text
from course_utils.parsing import parse_generation
from course_utils.similarity import SimilarityFilter

teacher = course.llm("teacher", journal=course.store.local("preprocess") / "journal.jsonl")
[reply] = teacher.complete([next(generation_requests(seeds, seed=course.recipe.data.seed))])
tasks = parse_generation(reply.text, first_number=4, finish_reason=reply.finish_reason).tasks

similar, looked_at = SimilarityFilter(course.recipe.data.threshold), []
for text in map(question_text, tasks):
    nearest = similar.nearest(text)  # None for the first text
    dropped = similar.admit(text)  # None if it is kept
    if nearest:
        looked_at.append((nearest.score, "dropped" if dropped else "kept", text, nearest.text))
print(f"{len(tasks)} tasks, threshold {similar.threshold}, {len(similar)} kept")
for score, verdict, text, other in sorted(looked_at, reverse=True)[:3]:
    print(f"{score:.2f} {verdict}\n  new     {text!r}\n  nearest {other!r}")

# %% [markdown] lang="ko"
# 가장 가까운 세 쌍입니다. 기준을 넘은 것은 `dropped`, 나머지는 `kept`입니다. 응답 하나 안에서는 버릴 것이 없을 수도 있습니다. 되풀이는 응답이 쌓일수록 늘어납니다(7절).
# 여러분이라면 다르게 판정했을 쌍이 있나요? 유사도는 뜻을 모릅니다.
#
# 모든 쌍을 다 재면 과제가 수만 개일 때 몇 시간이 걸립니다. 이 필터는 기준을 넘을 수 **없는** 쌍을 미리 빼고 나머지만 잽니다.
# 빠르기만 하고 답이 다르면 소용없으니, 전부 재는 방법과 판정이 같은지 확인합니다. 버리는 것이 꼭 생기도록 훨씬 낮은 기준으로도 견줍니다.

# %% [markdown] lang="en" of="a435af0a"
# These are the three closest pairs: `dropped` if above the threshold, else `kept`. Within one reply there may be nothing to
# drop; repetition grows as replies pile up (section 7). Would you have decided one of them differently? A similarity score knows
# nothing of meaning.
#
# Scoring every pair takes hours for tens of thousands of tasks. This filter rules out pairs that **cannot** pass the
# threshold and scores only the rest. Speed is worth nothing if the answer changes, so compare with scoring them all, at a
# much lower threshold as well, where some are sure to be dropped.

# %%
from course_utils.similarity import filter_similar

texts = [question_text(task) for task in seeds + tasks]
rows = [morphemes(text) for text in texts]
for threshold in (course.recipe.data.threshold, 0.4):
    kept = []
    for i, row in enumerate(rows):
        if all(rouge_l(row, rows[j]) <= threshold for j in kept):
            kept.append(i)
    assert filter_similar(texts, threshold).kept == kept
    print(f"threshold {threshold}: {len(kept)} of {len(texts)} texts kept either way")
assert len(kept) < len(texts)

# %% [markdown] lang="ko"
# 판정이 같습니다. 견본 데이터의 모든 쌍 가운데 실제로 채점한 쌍이 얼마나 적은지 그림으로 봅니다(기준은 0.7입니다). 길이와 겹치는 토큰의 수만 세어도 거의 모든 쌍이 떨어져 나갑니다.

# %% [markdown] lang="en" of="98b767d5"
# The same decisions. How many pairs of the sample data had to be scored at all (at a threshold of 0.7)? Lengths and counts of
# shared tokens alone rule out nearly every pair.

# %%
from IPython.display import Image

from course_utils import REPO

Image(filename=REPO / "assets" / "figures" / "pruning.png", width=820)

# %% [markdown] lang="ko"
# ## 5. 반복: 씨앗에서 데이터까지
#
# 이제 모든 조각을 잇습니다. 씨앗 셋을 골라 묻고, 응답을 과제로 바꾸고, 규칙과 필터로 거르고, 원하는 수가 남을 때까지 되풀이합니다.
# 여러 요청을 한꺼번에 보내지만 응답은 **요청한 순서대로** 씁니다. 그래서 네트워크가 어떤 순서로 답하든 데이터는 같습니다.
#
# 자기 데이터가 있다면 첫 셀 위에 `%env DATA=my_tasks.json`처럼 파일 이름을 넣고 처음부터 다시 실행하세요. 그러면 교사가 생성한 과제 대신 그 파일의 과제가 같은 규칙과 같은 필터를 거칩니다.

# %% [markdown] lang="en" of="a8933b92"
# ## 5. The loop: from seeds to data
#
# Now join the pieces: draw three seeds, ask, turn the reply into tasks, apply rules and filter, and repeat until enough are
# kept. Several requests are on their way at once, but replies are used **in the order of the requests**, so the data is the
# same whatever order the network answers in.
#
# If you have data of your own, name its file above the first cell, as in `%env DATA=my_tasks.json`, and run from the top:
# its tasks then go through the same rules and filter in place of generated ones.

# %%
from course_utils import REPO
from course_utils.generate import GenerationReport, filter_tasks, generate_tasks
from course_utils.tasks import read_tasks, write_tasks

work, spec = course.store.local("preprocess"), course.recipe.data
out = work / "tasks.jsonl"


def make_data(n, out, progress=True):
    """Fill a file: with n tasks grown from the seeds, or with what is good of the DATA file."""
    if course.data:
        given = read_tasks(course.data)
        kept, rejected = filter_tasks(given, spec.threshold)
        write_tasks(out, kept)
        return GenerationReport(len(given), len(kept), rejected, 0, 0, 0.0, out)
    seeds = read_tasks(REPO / "data" / "seed_tasks.jsonl")
    teacher = course.llm("teacher", journal=work / "journal.jsonl")
    options = {"threshold": spec.threshold, "seed": spec.seed, "progress": progress}
    return generate_tasks(teacher, seeds, n, out=out, **options)

# %% [markdown] lang="ko"
# 교사에게 받는 길과 내 파일을 쓰는 길은 이 함수에서만 갈라집니다. 실행하고 결과를 셉니다.

# %% [markdown] lang="en" of="fca330e0"
# Generated tasks and a file of your own are treated differently in this function only. Run it and count.

# %%
import time

start = time.perf_counter()
report = make_data(spec.n, out)
print(f"{time.perf_counter() - start:.0f} s\n{report}")
assert report.candidates == report.kept + sum(report.rejected.values())
assert report.kept, "Nothing is left: the reasons are listed above."

# %% [markdown] lang="ko"
# 후보의 수는 남긴 수와 버린 수의 합과 꼭 같습니다. 커널이 죽거나 연결이 끊겨도 다시 실행하면 이어집니다. 이미 받은 응답은 일지에 있기 때문입니다.
# 정말 그런지 확인합니다. 처음부터 다시 시작해 앞의 10분의 1을 새 파일에 만들고, 바이트 하나까지 같은지, 일지가 한 줄도 늘지 않았는지 봅니다.

# %% [markdown] lang="en" of="6cf32cbc"
# Candidates equal what was kept plus what was rejected. If the kernel dies or the connection breaks, run it again and it
# goes on, because the replies that came are in the journal. Check that: begin again, make the first tenth in a new file, and
# see whether a byte differs or the journal has grown by a line.

# %%
import tempfile
from pathlib import Path

from course_utils.tasks import read_jsonl

before = len(read_jsonl(work / "journal.jsonl"))
with tempfile.TemporaryDirectory() as folder:
    anew = Path(folder) / "again.jsonl"
    make_data(spec.n // 10, anew, progress=False)
    again = anew.read_bytes()
assert out.read_bytes().startswith(again)
assert len(read_jsonl(work / "journal.jsonl")) == before
print(f"{len(again):,} equal bytes of data; {before:,} replies in the journal before and after")

# %% [markdown] lang="ko"
# 요청은 하나도 되풀이되지 않았습니다. 일지의 응답이 위의 calls보다 많은 것은, 2절에서 JSON으로 받은 하나와 앞질러 보냈다가 쓰지 않은 것도 남겨 두기 때문입니다.
#
# 진짜 교사라면 돈을 들여 얻은 것이니 바로 **봉인**(seal)합니다. 봉인은 작업 폴더를 복사하고 체크섬(파일 내용에서 셈한 지문)을 적어,
# 나중에 한 글자라도 달라지면 알 수 있게 하는 일입니다. Colab에서는 복사본이 Google Drive에 놓입니다. 자세한 것은 02의 7절에서 다룹니다.

# %% [markdown] lang="en" of="cb628272"
# Not one request was repeated. The journal holds more replies than the calls above because it also keeps section 2's JSON
# reply and those that were asked for ahead of time and not needed.
#
# From a real teacher this data costs money, so **seal** it right away: sealing copies the working folder and records
# checksums (fingerprints of the files), so that a single changed letter is noticed later. On Colab the copy goes to Google
# Drive. More about it in 02, section 7.

# %%
import dataclasses
import json

from course_utils import shown
from course_utils.tasks import write_atomic

funnel = dataclasses.asdict(report) | {"path": out.name}
write_atomic(work / "funnel.json", json.dumps(funnel, indent=1, ensure_ascii=False) + "\n")
sealed = course.store.seal("preprocess")
print(f"{sealed.files} files, {sealed.bytes:,} bytes in {shown(sealed.path)}")

# %% [markdown] lang="ko"
# ## 6. 더 싸게, 또는 공짜로
#
# 52,000개를 만들려면 요청이 수천 번입니다. 오늘 안에 받지 않아도 된다면 **Batch API**가 있습니다. 요청을 파일 하나로 올리면 하루 안에 절반 값으로 답이 옵니다.
# 받은 응답은 같은 일지에 같은 이름으로 들어갑니다. 그래서 5절의 반복은 배치로 받았는지 바로 받았는지 알지 못하고, 알 필요도 없습니다.
#
# 모의 서버도 이 API를 흉내 냅니다. 요청 여덟 개로 해 봅니다. 5절의 데이터와 섞이지 않도록 여기서만 일지를 `batch.jsonl`로 따로 둡니다.
# (실제 교사라면 하루가 걸릴 수 있으므로 이 셀은 모의 교사일 때만 보냅니다.)

# %% [markdown] lang="en" of="c3fc45b3"
# ## 6. Cheaper, or for free
#
# 52,000 examples take thousands of requests. If you do not need them today, there is the **Batch API**: upload the requests
# as one file, and the replies come within a day at half the price. They go into the same journal under the same names, so
# the loop of section 5 does not know whether a reply came in a batch, and need not.
#
# The simulated server knows this API too. Try it with eight requests, here in a journal of their own, `batch.jsonl`, so that
# they do not mix with section 5's data. (With a real teacher it could take a day, so this cell sends nothing to one.)

# %%
from itertools import islice

from course_utils.generate import generation_requests
from course_utils.sources import batch

work, spec = course.store.local("preprocess"), course.recipe.data
teacher = course.llm("teacher", journal=work / "batch.jsonl")
eight = list(islice(generation_requests(seeds, seed=spec.seed + 1), 8))
print("before", teacher.plan(eight))
if course.recipe.teacher.simulated:
    batch.submit(teacher, eight)  # comes back at once
    print(batch.collect(teacher, progress=False))  # waits, perhaps tomorrow, in another process
    print("after ", teacher.plan(eight))
    batch.submit(teacher, eight)  # nothing is left to send
    assert teacher.plan(eight).calls == 0 and all(r.cached for r in teacher.complete(eight))
    course.store.seal("preprocess")  # the batch's journal, too, goes where it survives

# %% [markdown] lang="ko"
# 여덟 개 가운데 하나는 배치보다 먼저 바로 물어봅니다. 키나 모델 이름이 틀렸다면 내일이 아니라 지금 알아야 하기 때문입니다.
# 배치를 올린 뒤에는 커널이 죽어도 괜찮습니다. 무엇을 보냈는지 같은 일지에 먼저 적어 두므로, 다시 실행하면 같은 배치를 찾아 이어서 기다립니다. 돈을 두 번 내는 일은 없습니다.
#
# 다른 교사에게 물으려면 **주소**만 바꿉니다. 물어볼 수 있는 곳은 `course_utils/recipes/endpoints.yaml`에 이름, 요금, 분당 요청 수와 함께 적혀 있고, 첫 셀 위에
# `%env TEACHER=gemini`처럼 이름을 적으면 이 노트북의 어느 셀도 고칠 것이 없습니다. L4 한 장이면 공개된 7B 모델을 직접 띄워 `TEACHER=local`로 물을 수도 있습니다.
# 그대로 따라 칠 명령은 [colab_guide](../../colab_guide.ko.md) 5절에 있습니다.

# %% [markdown] lang="en" of="6b6b2f20"
# One of the eight is asked directly, before the batch is sent: if the key or the model's name is wrong, you want to know now
# and not tomorrow. The kernel may die after a batch has been submitted. What was sent is recorded in the same journal first, so running again finds
# the same batch and goes on waiting. Nothing is paid for twice.
#
# To ask another teacher, change nothing but the **address**. Whom you can ask stands in `course_utils/recipes/endpoints.yaml`,
# with names, prices and requests a minute; write one of the names above the first cell, as in `%env TEACHER=gemini`, and not
# a cell of this notebook needs to change. One L4 is enough to serve an open 7B model of your own and ask it as
# `TEACHER=local`. The commands to copy are in section 5 of the [colab_guide](../../colab_guide.md).

# %% [markdown] lang="ko"
# ## 7. 데이터 들여다보기
#
# 봉인한 것에서 다시 시작합니다. 먼저 깔때기(funnel)입니다. 후보가 어디에서 얼마나 빠졌는지 한눈에 봅니다.

# %% [markdown] lang="en" of="168411a0"
# ## 7. Look at the data
#
# Start from what is sealed. First the funnel: where did candidates go, and how many?

# %%
import json
from types import SimpleNamespace

from course_utils import plots
from course_utils.tasks import read_tasks

folder = course.artefact("preprocess")
tasks = read_tasks(folder / "tasks.jsonl")
report = SimpleNamespace(**json.loads((folder / "funnel.json").read_text(encoding="utf-8")))
assert report.kept == len(tasks)
simulated = " (simulated 모의)" if course.simulated and report.calls else ""
plots.funnel(report, title="What became of the candidates 후보는 어떻게 되었나" + simulated)

# %% [markdown] lang="ko"
# 가장 긴 회색 막대가 무엇인지 보세요. 모의 교사는 열두 유형에 정해진 문장 틀만 쓰므로, 새 과제가 금세 앞선 과제와 비슷해집니다.
# 실제 교사에게서도 정도만 다를 뿐 같은 일이 생깁니다. 아래 셀은 처음 열 번의 요청이 남긴 과제와 전체 평균을 견줍니다.

# %% [markdown] lang="en" of="7c05fbe8"
# See which grey bar is the longest. The simulated teacher has twelve kinds of task and a fixed set of phrasings, so new
# tasks soon resemble earlier ones. With a real teacher the same happens, to a different degree. The next cell compares what the
# first ten requests left with the average of all.

# %%
from collections import Counter

if report.calls:
    from_request = Counter(task.meta["request"] for task in tasks)  # in the order of the requests
    first_ten = list(from_request.values())[:10]
    print(f"the first {len(first_ten)} requests left {sum(first_ten) / len(first_ten):.1f} tasks each,")
    print(f"all {report.calls:,} requests {report.kept / report.calls:.1f} tasks each")
else:
    print("These tasks came from a file, not from requests.")

# %% [markdown] lang="ko"
# 뒤로 갈수록 같은 값을 내고 더 적게 얻습니다. 그래서 실제 교사를 쓸 때는 요청을 늘리기 전에 씨앗부터 다양하게 쓰는 것이 먼저입니다.
#
# 필터가 무엇을 바꾸었는지 봅니다. 과제마다 자기보다 먼저 나온 과제 가운데 가장 비슷한 것과의 ROUGE-L을 재어, 거르기 전의 후보와 거른 뒤의 과제를 겹쳐 그립니다.
# 견주는 데 시간이 걸리므로 처음 1,000개씩만 봅니다.

# %% [markdown] lang="en" of="6bae4a67"
# The longer it goes on, the less you get for the same price. So with a real teacher, vary the seeds before you send more requests.
#
# What has the filter changed? For each task take the ROUGE-L with the most similar one before it, and draw the candidates
# and what was kept in one picture. Comparing takes time, so look at the first 1,000 of each.

# %%
from course_utils.generate import question_text
from course_utils.parsing import parse_generation
from course_utils.similarity import SimilarityFilter
from course_utils.tasks import read_jsonl

candidates = []
if report.calls:
    for record in read_jsonl(folder / "journal.jsonl"):
        reason = record["finish_reason"]
        candidates += parse_generation(record["text"], first_number=4, finish_reason=reason).tasks
candidates, kept = (candidates or tasks)[:1000], tasks[:1000]


def nearest_before(tasks):
    seen, scores = SimilarityFilter(threshold=1.0), []
    for text in map(question_text, tasks):
        match = seen.nearest(text)
        scores.append(match.score if match else 0.0)
        seen.add(text)
    return scores

# %% [markdown] lang="ko"
# 거른 뒤(파란 선)에는 기준 오른쪽이 잘려 나갑니다. 바로 옆에 조금 남은 것이 있다면 점수가 **꼭 기준과 같은** 과제입니다. 기준을 넘은 것만 버리기 때문입니다.

# %% [markdown] lang="en" of="4f2841e1"
# After filtering (the blue line) what lies right of the threshold is cut off. If a few are left right beside it, those
# tasks score **exactly** the threshold: only what is above it is dropped.

# %%
before, after = nearest_before(candidates), nearest_before(kept)
threshold = course.recipe.data.threshold
assert max(after) <= threshold or not report.calls
title = "The most similar task before it 앞선 과제와의 유사도" + simulated
plots.similarity_histogram(before, after, threshold=threshold, title=title)

# %% [markdown] lang="ko"
# 이제 길이입니다. 특히 출력을 보세요. 학습한 모델은 데이터의 출력만큼 길게, 또는 짧게 답합니다. 모의 교사의 출력은 중앙값이 두 어절로, 아주 짧습니다.

# %% [markdown] lang="en" of="77289c19"
# Now lengths, and above all those of the outputs: a model answers at the length of the outputs it was trained on. The
# simulated teacher's are very short, with a median of two words.

# %%
plots.lengths(tasks, title="How long they are 얼마나 긴가" + simulated)

# %% [markdown] lang="ko"
# Self-Instruct 논문은 지시문의 동사와 목적어를 뽑아 데이터가 얼마나 다양한지 보였습니다. 같은 것을 한국어 형태소로 세어 그립니다.
# 막대 하나가 동사 하나입니다. 막대가 길수록 그 동사로 시키는 과제가 많고, 막대 안의 파란 칸은 그 동사의 목적어입니다. 먼저 손으로 쓴 씨앗을, 다음으로 생성한 데이터를 봅니다.

# %% [markdown] lang="en" of="480a9eb5"
# The Self-Instruct paper showed how varied its data was by the verbs of the instructions and their objects. Here is the same,
# counted with Korean morphemes: one bar a verb, the longer the more tasks use it, and its blue parts are the objects of
# that verb. First the seeds, written by hand; then the data that was generated.

# %%
from course_utils import REPO

seeds = read_tasks(REPO / "data" / "seed_tasks.jsonl")
plots.verb_objects(seeds, title="175 seeds 씨앗")

# %% [markdown] lang="ko"
# 같은 그림을 생성한 데이터로 그립니다.

# %% [markdown] lang="en" of="c5764107"
# The same picture for the data that was generated:

# %%
plots.verb_objects(tasks, title=f"{len(tasks):,} tasks 과제" + simulated)

# %% [markdown] lang="ko"
# 그림 아래의 수를 견주어 보세요. 손으로 쓴 씨앗은 175개뿐인데도 동사가 여든 가지가 넘습니다. 모의 교사는 그보다 훨씬 많이 쓰고도 동사의 가짓수는 더 적습니다. 유형이 열두 가지뿐이니 당연합니다.
# 진짜 교사의 데이터로 그렸을 때도 이렇다면 씨앗이나 프롬프트를 바꿀 때입니다.
#
# 발표된 Alpaca의 수치와 나란히 놓아 봅니다. `-`는 Alpaca가 밝히지 않은 값입니다.

# %% [markdown] lang="en" of="195c8afb"
# Compare the numbers below the pictures. There are only 175 seeds, with more than eighty verbs; the simulated teacher wrote
# many more tasks with fewer verbs, as it must with twelve kinds of task. If the picture of a real teacher's data looks like
# that, it is time to change the seeds or the prompt.
#
# Here is your data beside what Stanford published about Alpaca; `-` is a number they did not give:

# %%
from course_utils.korean import verb_object
from course_utils.sources.share import compare_with_alpaca

print(compare_with_alpaca(tasks))
verbs = {name: {found[0] for task in some if (found := verb_object(task.instruction))}
         for name, some in {"seeds": seeds, "tasks": tasks}.items()}
assert len(verbs["seeds"]) > 80 and (len(verbs["tasks"]) < len(verbs["seeds"]) or not simulated)

# %% [markdown] lang="ko"
# 숫자와 그림을 보았으니 글을 **읽습니다**. 남긴 과제에서 다섯을 뽑습니다. `nearest`는 먼저 남긴 과제 가운데 가장 비슷한 것의 번호와 ROUGE-L입니다.

# %% [markdown] lang="en" of="83f2c127"
# You have seen numbers and pictures; now **read**. Here are five of the tasks that were kept; `nearest` is the number and the
# ROUGE-L of the most similar one kept before it.

# %%
import random

for task in random.Random(0).sample(tasks, min(5, len(tasks))):
    print("instruction ", task.instruction)
    print("input       ", task.input or "-")
    print("output      ", task.output)
    print("nearest     ", task.meta.get("nearest", "-"), "\n")

# %% [markdown] lang="ko"
# 말은 자연스럽나요? 답은 맞나요? 규칙과 필터는 **형식**과 **되풀이**를 볼 뿐, 답이 맞는지는 모릅니다.
# 여기서 작은 세계의 쓸모가 드러납니다. 정답을 알고 있으므로, 걸러 낸 뒤에도 남은 틀린 답을 셀 수 있습니다.

# %% [markdown] lang="en" of="7382a124"
# Do they read naturally? Are the answers right? Rules and filter look at **form** and **repetition**; they cannot tell whether an answer is
# correct. Here a small world pays off: its truth is known, so you can count the wrong answers that were
# kept.

# %%
known = [(task, truth) for task in tasks if (truth := course.truth(task)) is not None]
wrong = [(task, truth) for task, truth in known if task.output != truth]
if known:
    share, strange = len(wrong) / len(known), len(tasks) - len(known)
    print(f"{len(wrong)} of {len(known):,} answers with a known truth are wrong ({share:.1%});")
    print(f"{strange} reworded tasks are not recognised and not counted\n")
    for task, truth in wrong[:2]:
        print(f"{task.instruction} {task.input}\n  kept   {task.output}\n  truth  {truth}")
else:
    print("Nobody knows the truth about these tasks: read a sample of them yourself.")

# %% [markdown] lang="ko"
# 모의 교사는 정해진 비율만큼 일부러 틀린 답을 씁니다. 어느 규칙도 이것을 잡지 못했습니다. 실제 교사는 그 비율조차 알려 주지 않습니다.
# (되풀이를 흉내 내려고 지시문을 살짝 바꾼 몇 개는 프로그램 자신도 알아보지 못해 세지 않았습니다.)
#
# 진짜 데이터라면 백 개쯤 뽑아 직접 읽고 세는 수밖에 없습니다. 그 한 시간이 이 강의 전체에서 가장 값진 시간입니다.

# %% [markdown] lang="en" of="6ce1f4cf"
# The simulated teacher gives a fixed share of its tasks a wrong answer on purpose. No rule has caught them. A real teacher
# does not even tell you the share. (A few tasks, reworded slightly to imitate repetition, are not recognised even by the
# program itself; they are not counted.)
#
# With real data there is only one way: draw a hundred, read them and count. That hour is the most valuable one of all.

# %% [markdown] lang="ko"
# ## 8. 건네주기
#
# 데이터는 다른 사람의 도구에서도 열려야 합니다. 세 칸짜리 JSON 목록이면 Alpaca의 코드가 그대로 읽고, `datasets.Dataset`이면 허깅페이스의 도구가 읽습니다.

# %% [markdown] lang="en" of="455c79b8"
# ## 8. Hand it on
#
# Data should open in other people's tools. A JSON list with three fields is what Alpaca's code reads, a `datasets.Dataset`
# what Hugging Face's tools read.

# %%
import json
from types import SimpleNamespace

from course_utils.sources.share import dataset_card, push_dataset, to_dataset, write_alpaca_json
from course_utils.tasks import read_tasks

folder, work = course.artefact("preprocess"), course.store.local("preprocess")
tasks = read_tasks(folder / "tasks.jsonl")
report = SimpleNamespace(**json.loads((folder / "funnel.json").read_text(encoding="utf-8")))
write_alpaca_json(work / "alpaca.json", tasks)
print(f"{(work / 'alpaca.json').stat().st_size:,} bytes, read back: {len(read_tasks(work / 'alpaca.json')):,} tasks")
dataset = to_dataset(tasks)
print(dataset)
assert dataset.num_rows == len(tasks) == len(read_tasks(work / "alpaca.json"))

# %% [markdown] lang="ko"
# 남에게 건넬 때는 **데이터 카드**를 함께 건넵니다. 누가 어떤 교사로 만들었는지, 무엇을 얼마나 걸렀는지, 무엇을 확인하지 않았는지를 밝히는 글입니다.
# 라이선스는 교사 모델의 이용 약관에 달려 있습니다. 응답으로 경쟁 모델을 학습하지 못하게 하는 곳도 있으니 먼저 읽어 보세요.

# %% [markdown] lang="en" of="17af6c9e"
# If you hand data on, hand on a **data card** as well: who made it with which teacher, what was filtered and how,
# what was not checked. The licence depends on the terms of the teacher model; some forbid training a competing model on
# their replies, so read them first.

# %%
card = dataset_card(
    tasks, name="my-korean-tasks", license="cc-by-nc-4.0", recipe=course.recipe, report=report
)
body = card.split("\n---\n")[1].strip()  # without the head, which is for the Hub to read
print(*body.splitlines()[:20], "...", sep="\n")

# %% [markdown] lang="ko"
# 허깅페이스 허브(Hub)에 올리려면 `repo_id`에 `내-아이디/데이터-이름` 꼴로 적고, `HF_TOKEN`을 Colab의 보안 비밀이나 환경 변수에 넣으세요. 처음에는 비공개(private)로 올라갑니다.

# %% [markdown] lang="en" of="aea5d683"
# To upload to the Hugging Face Hub, write `your-name/data-name` into `repo_id` and put `HF_TOKEN` into Colab's secrets or the
# environment. At first it is private.

# %%
repo_id = ""
if repo_id:
    print(push_dataset(tasks, repo_id, card))
else:
    print("Not uploaded: repo_id is empty.")

# %% [markdown] lang="ko"
# ## 9. 내 분야로
#
# 지금까지의 데이터는 무엇이든 조금씩 아는 모델을 위한 것이었습니다. 한 분야의 데이터가 필요하다면 씨앗 과제 대신 **그 분야의 낱말**에서 시작합니다.
# 교사에게 낱말마다 질문을 쓰게 하고, 답은 기억이 아니라 **여러분이 준 자료**에서 찾게 합니다. 그러면 답이 자료에 있는 말인지 확인할 수 있습니다.
#
# ```text
# 낱말 ──▶ 질문 ──▶ 질문에 맞는 자료 찾기 ──▶ 자료로 답하기 ──▶ 근거 확인 ──▶ 지시 데이터
# ```
#
# 자료는 폴더에 넣은 글 파일(`.txt`, `.md`, UTF-8)입니다. 여기서는 이 강의를 위해 쓴, 집을 빌리는 일에 관한 짧은 글 여섯 편을 씁니다.
# 글을 80어절을 넘지 않는 토막으로 나누고, 질문과 같은 낱말을 가진 토막을 찾습니다. 드문 낱말이 겹칠수록 점수가 높습니다. 이 셈법이 BM25입니다.

# %% [markdown] lang="en" of="0fc308db"
# ## 9. Your own field
#
# So far the data was for a model that knows a little of everything. For data of one field, begin not with seed tasks but
# with **the words of that field**. The teacher writes questions about each word, and answers them not from memory but from
# **documents that you supply**. Then you can check whether an answer is made of what the documents say.
#
# ```text
# words ──▶ questions ──▶ find what fits each ──▶ answer from it ──▶ check the grounds ──▶ instruction data
# ```
#
# Documents are the text files of a folder (`.txt`, `.md`, UTF-8). Here they are six short texts on renting a home, written
# for this course. They are cut into passages of at most 80 words, and passages that share words with the question are
# found; the rarer a shared word, the higher the score. This is BM25.

# %%
from course_utils import REPO
from course_utils.sources.retrieval import PassageIndex, passages, read_documents

documents = read_documents(REPO / "data" / "domain")
texts = {document.name: document.text for document in documents}
pieces = passages(documents)
print(f"{len(documents)} documents, {len(pieces)} passages\n")

index = PassageIndex(pieces)
for passage in index.search("계약금은 보증금의 몇 퍼센트쯤인가요?"):
    print(f"{passage.name}, characters {passage.start} to {passage.end}")
    print("   ", " ".join(passage.text.split())[:60], "...")
    assert texts[passage.name][passage.start:passage.end] == passage.text
assert max(len(piece.text.split()) for piece in pieces) <= 80

# %% [markdown] lang="ko"
# 토막은 어느 글의 몇째 글자부터 몇째 글자까지인지 알고 있습니다. 나중에 답의 근거를 되짚을 때 쓰는 주소입니다.
#
# 자기 분야로 바꾸려면 폴더 이름과 아래의 낱말만 고치면 됩니다. 첫 단계인 질문부터 **계획**합니다.

# %% [markdown] lang="en" of="af29ac6a"
# A passage knows which characters of which text it is: the address by which the grounds of an answer are traced later.
#
# For your own field, change nothing but the folder above and the words below. First stage, the questions: **plan**.

# %%
from itertools import islice

from course_utils.sources.domain import question_requests

work = course.store.restore("domain")  # a new session takes back what the last one sealed

words = "전세 월세 보증금 등기부 계약금 특약 전입신고 확정일자 관리비 수선 원상복구".split()
teacher = course.llm("teacher", journal=work / "journal.jsonl")
asking = list(islice(question_requests(words), len(words)))
print(asking[0].messages[0]["content"], "\n")
print("questions", teacher.plan(asking))

# %% [markdown] lang="ko"
# 낱말마다 한 번씩 묻습니다. 질문이 오면 둘째 단계인 답도 계획할 수 있습니다.

# %% [markdown] lang="en" of="fc86c8f9"
# Ask once for each word. When the questions are there, the second stage, the answers, can be planned as well.

# %%
from course_utils.sources.domain import answer_request, parse_questions

questions = []
for reply in teacher.complete(asking):
    assert reply.text is not None, reply.error
    questions += parse_questions(reply.text)
print(*questions[:5], sep="\n")

answering = [answer_request(question, index.search(question)) for question in questions]
print("\nanswers", teacher.plan(answering))

# %% [markdown] lang="ko"
# 답을 부탁하는 프롬프트에는 질문과, 그 질문에 맞는 토막을 셋까지 찾아 함께 넣습니다. 끝까지 읽어 보세요.

# %% [markdown] lang="en" of="fb8c8fa3"
# The prompt that asks for an answer holds the question and up to three passages that fit it. Read it to the end.

# %%
print(answering[0].messages[0]["content"])

# %% [markdown] lang="ko"
# 자료의 모든 줄은 세로줄로 시작합니다. 자료 속에 "앞의 지시를 잊으라"는 말이 숨어 있어도(프롬프트 주입, prompt injection) 지시가 아니라 읽을 글로 보이게 하려는 것입니다.
# 답할 수 없으면 `자료에 없습니다`라고 쓰게 하고, 답했다면 마지막 줄에 자료 번호를 적게 합니다. 둘 다 프로그램이 읽어 낼 수 있는 표시입니다.
#
# 이제 두 단계를 이어 40개가 남을 때까지 되풀이합니다. 방금 받은 질문은 일지에 있으니 다시 묻지 않습니다.

# %% [markdown] lang="en" of="8a3e2b29"
# Every line of a document begins with a bar: even if a document hides the words "forget your instructions" (prompt
# injection), they look like text to read and not like an instruction. A teacher that cannot answer is to write
# `자료에 없습니다` ("not in the documents"); one that can gives the passages' numbers on the last line. A program can read both.
#
# Now join both stages and repeat until 40 tasks are kept. The questions that just came are in the journal and are not asked again.

# %%
from course_utils.sources.domain import grounded_tasks

assert teacher.plan(asking).calls == 0
threshold = course.recipe.data.threshold
report = grounded_tasks(
    teacher, words, documents, 40, out=work / "domain.jsonl", threshold=threshold
)
print(report)
assert report.candidates == report.kept + sum(report.rejected.values())

# %% [markdown] lang="ko"
# 5절과 같은 깔때기에 이유 넷이 늘었습니다(나오지 않은 이유는 적히지 않습니다).
#
# - `not in the documents`: 맞는 토막이 없거나, 교사가 자료에 없다고 했습니다. 좋은 교사라면 이렇게 말할 줄 알아야 합니다.
# - `bad citation`: 자료 번호가 없거나, 보여 주지 않은 번호를 댔습니다.
# - `not grounded`: 답에 나온 명사 가운데 인용한 토막에 있는 것이 **60%**가 안 되거나, 토막에 없는 **숫자**가 하나라도 있습니다.
# - `refused`: 서버가 그 요청을 거절했습니다.
#
# 남긴 것과 버린 것을 근거와 함께 읽습니다.

# %% [markdown] lang="en" of="9482eed9"
# The funnel of section 5, with four more reasons (one that did not occur is not listed).
#
# - `not in the documents`: no passage fits, or the teacher said so. A good teacher must be able to say it.
# - `bad citation`: no passage is named, or one that was not shown.
# - `not grounded`: fewer than **60%** of the answer's nouns are in the passages it cites, or **a number** is not.
# - `refused`: the server refused that request.
#
# Read what was kept and what was not, with its grounds.

# %%
from course_utils.sources.domain import groundedness
from course_utils.tasks import read_jsonl, read_tasks


def cited(places):
    return [texts[place["name"]][place["start"]:place["end"]] for place in places]


kept = read_tasks(report.path)
assert all(groundedness(t.output, cited(t.meta["passages"])) >= 0.6 for t in kept)
for task in kept[:2]:
    print("question ", task.instruction, "\nanswer   ", task.output)
    for place in task.meta["passages"]:
        print("cited    ", place["name"], " ".join(cited([place])[0].split())[:50], "...\n")
rows = read_jsonl(work / "domain.rejected.jsonl")
assert len(rows) == sum(report.rejected.values())
for row in {row["reason"]: row for row in rows}.values():
    print(f"[{row['reason']}] {row['question']}\n    {row['reply'] or '(no answer was asked for)'}")

# %% [markdown] lang="ko"
# 카드에 `SIMULATED`가 보인다면 질문은 정해진 문장 틀에서 나오고, 답은 자료의 문장을 그대로 옮긴 것입니다. 그래서 질문과 답이 어긋난 것도 남습니다.
# 그리고 정해진 비율만큼은 일부러 답을 지어내거나 출처를 틀리게 적습니다.
#
# 근거 확인이 무엇을 잡고 무엇을 놓치는지 손으로 쓴 답 넷으로 봅니다.

# %% [markdown] lang="en" of="5935bca8"
# If the card says `SIMULATED`, questions come from fixed patterns and answers are sentences copied from the documents, so
# some answers that do not fit their question are kept as well. And a fixed share of answers is invented, or cites wrongly,
# on purpose.
#
# What does the check catch, and what does it miss? Four answers written by hand:

# %%
source = [(REPO / "data" / "domain" / "the_contract.txt").read_text(encoding="utf-8")]
answers = {
    "faithful": "보증금이 5,000만 원이라면 계약금은 500만 원이 됩니다.",
    "another number": "보증금이 5,000만 원이라면 계약금은 700만 원이 됩니다.",
    "from memory": "계약금은 민법과 법원의 판례에 따라 해약금으로 추정됩니다.",
    "the opposite": "보증금이 5,000만 원이라도 계약금은 500만 원이 아닙니다.",
}
share = {kind: groundedness(answer, source) for kind, answer in answers.items()}
for kind, answer in answers.items():
    print(f"{share[kind]:.2f}  {kind:16}{answer}")
assert share["another number"] == 0 and share["from memory"] < 0.6
assert share["faithful"] == share["the opposite"] == 1

# %% [markdown] lang="ko"
# 숫자를 바꾼 답과 기억에서 나온 답은 걸립니다(셋째 답은 내용이 맞더라도 이 자료에는 없습니다). 그러나 **뜻을 뒤집은 답은 그대로 통과합니다.** 이 확인은 낱말을 볼 뿐 뜻을 모릅니다. 그러니 남은 것을 사람이 읽어야 합니다.
#
# 데이터를 봉인합니다. 이것으로 학습하려면 `domain.jsonl`을 원하는 곳(Colab이라면 Drive)에 복사하고, 01과 02와 03의 첫 셀 위에 각각 `%env DATA=그-파일의-경로`를 넣으세요.
# 다만 마흔 개는 맛보기입니다. 실제로는 낱말과 자료를 늘려 수백 개 이상을 모읍니다.

# %% [markdown] lang="en" of="1a37e429"
# The changed number and the answer from memory are caught (the latter may even be right, but these documents do not say it). **The answer that
# says the opposite passes.** The check looks at words and knows nothing of meaning, so somebody has to read what is left.
#
# Seal the data. To train on it, copy `domain.jsonl` to a folder of your own (on Colab, to Drive) and put
# `%env DATA=path-of-that-file` above the first cell of 01, 02 and 03. But forty are only a taste: for real use, add words and
# documents until there are hundreds or more.

# %%
from course_utils import shown

sealed = course.store.seal("domain")
print(f"{sealed.files} files, {sealed.bytes:,} bytes in {shown(sealed.path)}")
assert (sealed.path / "domain.jsonl").read_bytes() == report.path.read_bytes()

# %% [markdown] lang="ko"
# ### 자료가 없다면: 네이버 검색
#
# 이 강의의 출발점이 된 [공개 강의](https://github.com/aiqwe/instruction-tuning-with-rag-example)는 네이버 검색으로 찾은 글을 자료로 썼습니다.
# [네이버 개발자 센터](https://developers.naver.com)에서 애플리케이션을 등록하고 사용 API에 **검색**을 더한 뒤, `NAVER_CLIENT_ID`와 `NAVER_CLIENT_SECRET`을 Colab의 보안 비밀이나 환경 변수에 넣으면 아래 셀이 자료를 모읍니다.
#
# 검색 결과는 **다른 사람이 쓴 글의 짧은 발췌**입니다. 그것으로 만든 데이터를 공개하기 전에 네이버 이용 약관과 각 글의 저작권 조건을 확인하세요.
# 검색 결과는 날마다 달라지므로 한 번만 찾아 파일에 적어 둡니다. 그래야 다시 실행해도 같은 요청이 되고 일지가 답합니다.

# %% [markdown] lang="en" of="9ec521bf"
# ### Without documents: Naver search
#
# The [open course](https://github.com/aiqwe/instruction-tuning-with-rag-example) from which this one started used texts found by Naver's search.
# Register an application at [Naver Developers](https://developers.naver.com), add **검색** (search) to its APIs, and put `NAVER_CLIENT_ID` and
# `NAVER_CLIENT_SECRET` into Colab's secrets or the environment; then this cell collects documents.
#
# Search results are **short extracts of other people's texts**. Before you publish data made from them, check Naver's terms
# and the licence of each text. Results change from day to day, so search once and keep them in a file: then a
# second run makes the same requests, and the journal answers them.

# %%
from dataclasses import asdict

from course_utils import CourseError
from course_utils.plumbing.secrets import secret
from course_utils.sources.retrieval import Document, search_naver
from course_utils.tasks import write_jsonl

found = work / "naver.jsonl"
try:
    if not found.exists():
        names = {"client_id": "NAVER_CLIENT_ID", "client_secret": "NAVER_CLIENT_SECRET"}
        keys = {key: secret(name, ask=False) for key, name in names.items()}
        results = [page for word in words for page in search_naver(word, 3, kind="encyc", **keys)]
        write_jsonl(found, [asdict(page) for page in dict.fromkeys(results)])
    pages = [Document(**row) for row in read_jsonl(found)]
    print(f"{len(pages)} documents: pass them to grounded_tasks in place of the files")
except CourseError as problem:
    print(f"No documents from Naver. {problem}")

# %% [markdown] lang="ko"
# ## 10. 이제 가진 것
#
# 다음 노트북이 무엇을 이어받는지 확인하고 마칩니다. 봉인한 폴더는 읽을 때마다 체크섬을 다시 맞춰 봅니다.

# %% [markdown] lang="en" of="6b4e1017"
# ## 10. What you have now
#
# End by looking at what the next notebook takes over. A sealed folder is checked against its checksums whenever it is read.

# %%
folder = course.artefact("preprocess")
for path in sorted(folder.iterdir()):
    print(f"{path.stat().st_size:>12,} bytes  {path.name}")

# %% [markdown] lang="ko"
# - `tasks.jsonl`은 한 줄에 과제 하나입니다. 과제마다 어느 요청에서 왔는지, 가장 비슷한 과제가 무엇인지 `meta`에 적혀 있습니다.
# - `funnel.json`은 버린 것의 기록입니다. 03의 보고서가 이것을 읽습니다.
# - `journal.jsonl`은 지우지 마세요. 이 파일만 있으면 데이터를 한 푼도 들이지 않고 다시 만들 수 있습니다.
#
# 더 해 볼 것: 씨앗 하나를 자기 분야의 과제로 바꾸고 2절부터 다시 실행해 보세요. 어떤 응답이 달라지고 어떤 응답이 일지에서 나오나요? (모의 교사라면 응답은 달라져도 여러분의 분야를 따라오지는 않습니다.)
#
# 다음은 [02 학습](02_train.ipynb)입니다. 이 과제들이 토큰이 되고, 그 가운데 **어느 토큰을 가르칠지** 정합니다.

# %% [markdown] lang="en" of="4a132217"
# - `tasks.jsonl` holds one task a line. Its `meta` names the request it came from and its nearest neighbour.
# - `funnel.json` records what was thrown away. The report of 03 reads it.
# - Do not delete `journal.jsonl`: with it the data can be made again without spending a cent.
#
# To try: replace one seed with a task from your own field and run again from section 2. Which replies change, and which come
# out of the journal? (The simulated teacher's replies change, but it does not follow you into your field.)
#
# Next is [02 Train](02_train.ipynb): these tasks become tokens, and you decide **which of the tokens to teach**.

# %% [markdown] lang="ko"
# ## 연습
#
# 본문을 읽는 흐름이 끊기지 않도록 문제는 모두 여기에 모았습니다. 네 문제이고, 별이 많을수록 어렵습니다. 걸리는 시간은 어림입니다.
#
# 문제마다 셀이 둘 있습니다. 첫 셀의 `...` 자리에 쓰고, 다음 셀을 실행하세요. `check`가 여러 입력으로 함수를 불러 보고, 어긋나면 **어떤 입력에서** 무엇이 나왔는지 바로 알려 줍니다.
# 비워 두어도 오류는 나지 않습니다. 풀이는 접혀 있으니, 먼저 해 보고 펼치세요.

# %% [markdown] lang="en" of="934f0c30"
# ## Exercises
#
# All exercises are gathered here, so that they do not interrupt your reading. There are four; more stars mean harder, and the minutes are a guess.
#
# Each has two cells. Write in place of `...` in the first, then run the second: `check` calls your function on a number of inputs and, where something is
# wrong, says at once **on which input** and what came back. Cells left as they are raise no error. Solutions are folded: try before you open them.

# %% [markdown] lang="ko"
# ### 연습 1. 번호 붙은 과제 하나 읽기
#
# ★★★ · 약 20분 · 2절
#
# 과제 하나의 글을 받아, 들어 있는 칸만 담은 딕셔너리를 돌려주는 `read_item`을 쓰세요.
#
# - 이름표는 줄의 맨 앞에 있고 `4. 지시문:`, `4. 입력:`, `4. 출력:` 꼴입니다. 번호는 과제마다 다르지만 한 과제 안에서는 같습니다.
# - 키는 `instruction`, `input`, `output`입니다. **빠진 칸은 키가 없어야 합니다.** `input`의 값이 `<noinput>`뿐이면 빈 문자열입니다.
# - 값은 다음 이름표 앞까지이고, 여러 줄일 수 있습니다. 앞뒤 공백은 지웁니다.
#
# ```text
# 6. 지시문: 글을 요약해 주세요.
# 6. 출력: 요약할 글이 없습니다.
# ```
#
# 이 글에서는 `{"instruction": "글을 요약해 주세요.", "output": "요약할 글이 없습니다."}`가 나옵니다.

# %% [markdown] lang="en" of="2356f34b"
# ### Exercise 1. Read one numbered item
#
# ★★★ · about 20 minutes · section 2
#
# Write `read_item`: it takes the text of one item and returns a dictionary of the fields that are there.
#
# - A label begins a line: `4. 지시문:` (instruction), `4. 입력:` (input) or `4. 출력:` (output). Numbers differ from item to item and are the same within one.
# - Keys are `instruction`, `input`, `output`. **A missing field has no key.** An `input` of `<noinput>` and nothing else becomes an empty string.
# - A value runs to the next label and may span several lines; strip the space around it.
#
# ```text
# 6. 지시문: 글을 요약해 주세요.
# 6. 출력: 요약할 글이 없습니다.
# ```
#
# gives `{"instruction": "글을 요약해 주세요.", "output": "요약할 글이 없습니다."}`.

# %%
def read_item(text):
    """The fields of one numbered item: {"instruction": ..., "input": ..., "output": ...}."""
    ...

# %%
from course_utils.practice.checks import check

check("01.1", read_item)

# %% [markdown] lang="ko"
# <details><summary>풀이</summary>
#
# ```python
# import re
#
# NAMES = {"지시문": "instruction", "입력": "input", "출력": "output"}
#
#
# def read_item(text):
#     first = re.match(r"(\d+)\.", text)
#     if not first:
#         return {}
#     label = rf"^{first[1]}\. (지시문|입력|출력):"
#     _, *parts = re.split(label, text, flags=re.MULTILINE)  # name, value, name, value, ...
#     fields = {NAMES[name]: value.strip() for name, value in zip(parts[::2], parts[1::2])}
#     if fields.get("input") == "<noinput>":
#         fields["input"] = ""
#     return fields
# ```
#
# 번호를 이름표에 넣은 것이 요령입니다. 그래서 출력 속의 `1. 입력: 자료를 모읍니다.` 같은 줄이 값으로 남습니다.
#
# </details>

# %% [markdown] lang="en" of="abd163df"
# <details><summary>Solution</summary>
#
# ```python
# import re
#
# NAMES = {"지시문": "instruction", "입력": "input", "출력": "output"}
#
#
# def read_item(text):
#     first = re.match(r"(\d+)\.", text)
#     if not first:
#         return {}
#     label = rf"^{first[1]}\. (지시문|입력|출력):"
#     _, *parts = re.split(label, text, flags=re.MULTILINE)  # name, value, name, value, ...
#     fields = {NAMES[name]: value.strip() for name, value in zip(parts[::2], parts[1::2])}
#     if fields.get("input") == "<noinput>":
#         fields["input"] = ""
#     return fields
# ```
#
# The trick is the number in the label: a line such as `1. 입력: 자료를 모읍니다.` within an output stays part of the value.
#
# </details>

# %% [markdown] lang="ko"
# ### 연습 2. 한글의 비율
#
# ★ · 약 5분 · 3절
#
# 글의 **글자** 가운데 한글이 얼마나 되는지 0과 1 사이의 수로 돌려주세요. 글자인지는 `str.isalpha`가 정합니다. 공백, 숫자, 문장 부호는 글자가 아닙니다.
# `ㅋ` 같은 낱자(`ㄱ`부터 `ㆎ`까지)도 한글입니다. 글자가 하나도 없으면 0.0입니다.
#
# 보기: `hangul_share("Python 설치")`는 글자 여덟 개 가운데 둘이 한글이므로 0.25입니다.

# %% [markdown] lang="en" of="31a76c92"
# ### Exercise 2. The share of Hangul
#
# ★ · about 5 minutes · section 3
#
# Return what share of a text's **letters** is Hangul, as a number from 0 to 1. `str.isalpha` decides what counts as a letter: spaces, digits and punctuation do not.
# Single jamo such as `ㅋ` (from `ㄱ` to `ㆎ`) are Hangul as well. For a text without letters return 0.0.
#
# Example: of the eight letters of `hangul_share("Python 설치")` two are Hangul, so it is 0.25.

# %%
def hangul_share(text):
    """The share of Hangul among the letters of a text, from 0 to 1."""
    ...

# %%
from course_utils.practice.checks import check

check("01.2", hangul_share)

# %% [markdown] lang="ko"
# <details><summary>풀이</summary>
#
# ```python
# def hangul_share(text):
#     letters = [character for character in text if character.isalpha()]
#     hangul = [c for c in letters if "가" <= c <= "힣" or "ㄱ" <= c <= "ㆎ"]
#     return len(hangul) / len(letters) if letters else 0.0
# ```
#
# 3절의 규칙 `not Korean`이 바로 이 값을 씁니다. 글자만 세므로 숫자가 많은 지시문도 억울하게 버려지지 않습니다.
#
# </details>

# %% [markdown] lang="en" of="27b19115"
# <details><summary>Solution</summary>
#
# ```python
# def hangul_share(text):
#     letters = [character for character in text if character.isalpha()]
#     hangul = [c for c in letters if "가" <= c <= "힣" or "ㄱ" <= c <= "ㆎ"]
#     return len(hangul) / len(letters) if letters else 0.0
# ```
#
# The rule `not Korean` of section 3 uses this very number. Counting letters alone, it does not punish an instruction for its digits.
#
# </details>

# %% [markdown] lang="ko"
# ### 연습 3. 빠짐없이 세기
#
# ★★ · 약 10분 · 3절
#
# 과제의 목록과 규칙을 받아 **남긴 과제의 목록**과 **이유별로 버린 수**를 돌려주세요. `rules`는 `{이름: 검사}`이고, 검사는 나쁜 과제에 `True`를 돌려줍니다.
# 규칙은 건네받은 순서대로 묻고, 먼저 걸린 하나만 이유가 됩니다. 나오지 않은 이유는 적지 않습니다.
#
# 보기: 과제가 셋이고 둘째만 `too short`에 걸리면 `([첫째, 셋째], {"too short": 1})`입니다.

# %% [markdown] lang="en" of="9228dfc7"
# ### Exercise 3. Count every one
#
# ★★ · about 10 minutes · section 3
#
# Take a list of tasks and the rules, and return **the tasks that are kept** and **how many were rejected, by reason**. `rules` is `{name: test}`, and a test is `True`
# for a bad task. Ask the rules in the order given; the first that fires is the only reason. A reason that did not occur is not listed.
#
# Example: of three tasks the second alone is `too short`: `([first, third], {"too short": 1})`.

# %%
def sort_out(tasks, rules):
    """The tasks that no rule rejects, and a dictionary: reason -> number of rejected tasks."""
    ...

# %%
from course_utils.practice.checks import check

check("01.3", sort_out)

# %% [markdown] lang="ko"
# <details><summary>풀이</summary>
#
# ```python
# def sort_out(tasks, rules):
#     kept, reasons = [], {}
#     for task in tasks:
#         for name, is_bad in rules.items():
#             if is_bad(task):
#                 reasons[name] = reasons.get(name, 0) + 1
#                 break
#         else:  # no rule fired
#             kept.append(task)
#     return kept, reasons
# ```
#
# 남긴 수와 버린 수를 더하면 언제나 후보의 수입니다. 5절의 깔때기가 이 등식을 확인합니다.
#
# </details>

# %% [markdown] lang="en" of="d2b4e608"
# <details><summary>Solution</summary>
#
# ```python
# def sort_out(tasks, rules):
#     kept, reasons = [], {}
#     for task in tasks:
#         for name, is_bad in rules.items():
#             if is_bad(task):
#                 reasons[name] = reasons.get(name, 0) + 1
#                 break
#         else:  # no rule fired
#             kept.append(task)
#     return kept, reasons
# ```
#
# What was kept and what was rejected always add up to the candidates; the funnel of section 5 asserts it.
#
# </details>

# %% [markdown] lang="ko"
# ### 연습 4. 재지 않고 빼기
#
# ★★ · 약 10분 · 4절
#
# ROUGE-L의 F1은 $2 \cdot \mathrm{LCS} / (m + n)$입니다($m$, $n$은 두 글의 토큰 수). LCS는 두 글이 **함께 가진 토큰의 수**보다 길 수 없습니다.
# 그러니 함께 가진 토큰의 수가 $t(m+n)/2$를 넘지 않으면, LCS를 구하지 않고도 F1이 기준 $t$를 넘지 못한다는 것을 알 수 있습니다.
#
# F1이 `threshold`를 **넘을 수도 있으면** `True`, 절대 넘을 수 없으면 `False`를 돌려주세요. 순서는 보지 말고, 같은 토큰이 여러 번 나오면 그만큼 셉니다.
#
# 보기: `may_exceed(["나", "는", "간다"], ["나", "는", "온다"], 0.5)`는 함께 가진 토큰이 둘이고 2 > 0.5 × 6 / 2이므로 `True`입니다.

# %% [markdown] lang="en" of="69685c82"
# ### Exercise 4. Rule out without scoring
#
# ★★ · about 10 minutes · section 4
#
# ROUGE-L's F1 is $2 \cdot \mathrm{LCS} / (m + n)$, where $m$ and $n$ count the tokens of both texts. An LCS cannot be longer than **the number of tokens that both share**.
# So if they share no more than $t(m+n)/2$ tokens, F1 cannot be above the threshold $t$, and there is no need to work out the LCS.
#
# Return `True` if F1 **might** be above `threshold`, `False` if it cannot be. Ignore the order, and count a token as often as both have it.
#
# Example: `may_exceed(["나", "는", "간다"], ["나", "는", "온다"], 0.5)` shares two tokens, and 2 > 0.5 x 6 / 2, so it is `True`.

# %%
def may_exceed(a, b, threshold):
    """Whether the ROUGE-L F1 of two token lists can be above a threshold, judged by overlap."""
    ...

# %%
from course_utils.practice.checks import check

check("01.4", may_exceed)

# %% [markdown] lang="ko"
# <details><summary>풀이</summary>
#
# ```python
# from collections import Counter
#
#
# def may_exceed(a, b, threshold):
#     shared = sum((Counter(a) & Counter(b)).values())
#     return shared > threshold * (len(a) + len(b)) / 2
# ```
#
# `Counter`의 `&`는 토큰마다 적은 쪽의 수를 남깁니다. 집합으로 세면 되풀이된 토큰을 놓쳐, 버려야 할 과제가 남습니다. 빠르지만 답이 다른 필터가 되는 것입니다.
#
# </details>

# %% [markdown] lang="en" of="c36e7e5c"
# <details><summary>Solution</summary>
#
# ```python
# from collections import Counter
#
#
# def may_exceed(a, b, threshold):
#     shared = sum((Counter(a) & Counter(b)).values())
#     return shared > threshold * (len(a) + len(b)) / 2
# ```
#
# `&` of two `Counter`s keeps the smaller count of each token. Sets miss tokens that repeat, and near-duplicates stay: a filter that is fast and wrong.
#
# </details>
