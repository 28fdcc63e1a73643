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
# 이 강의에서는 한국어 지시를 따르는 작은 언어 모델을 직접 만들어 봅니다. 데이터를 만들고(01), 학습하고(02), 얼마나 나아졌는지 잽니다(03).
# 연습문제와 6절을 빼고 읽는 데 50분쯤, 연습문제 네 개에 45분쯤 잡으세요. 아래의 두 셀을 실행하면 카드가 나옵니다. 지금은 훑어만 보고, 곧바로 **끝에서 얻을 것**부터 봅니다.

# %% [markdown] lang="en" of="96ba981d"
# # 01 Preprocess: from seed tasks to instruction data
#
# In this course you make a small language model that follows instructions in Korean: its data (01), its training (02), and a measurement of how much better it got (03). Allow about 50 minutes here without exercises and section 6, and 45 for the four exercises.
# The two cells below print a card; glance at it, and then look at **where it all ends**.

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
# ### 끝부터 보기: 학습 전과 후
#
# 아래는 실제 모델이 쓴 글입니다. Gemma 3 270M(가중치가 2억 7천만 개인 아주 작은 모델)에게 같은 부탁을 두 번 했습니다. `before`는 내려받은 그대로의 베이스 모델이고,
# `after`는 이 강의의 방법으로 만든 과제 295개로 학습한 모델입니다. (작은 실제 기록, 2026년 11월 30일.)

# %% [markdown] lang="en" of="84a778c2"
# ### The end first: before and after
#
# What follows was written by a real model, Gemma 3 270M (270 million weights), given the same request twice: `before` is the base model as downloaded, `after` the same model tuned on 295 tasks made the way this course makes them. (Small and real, recorded 30 November 2026.)
# The request: an e-mail asking a professor for more time, with a subject line, all the facts given, at most six sentences. The facts: student Han Ji-ho, introductory data analysis; assignment 3, due 8 May; laptop in repair; new date 10 May.

# %%
from collections import Counter

from course_utils import REPO
from course_utils.tasks import read_jsonl, read_tasks

REAL = REPO / "assets" / "real"
questions = {task.meta["id"]: task for task in read_tasks(REPO / "data" / "eval_tasks.jsonl")}
replies = {(row["model"], row["id"]): row for row in read_jsonl(REAL / "replies.jsonl")}
question = questions["eval_030"]
print(f"{question.instruction}\n{question.input}")
for name, model in {"before": "base", "after": "both"}.items():
    print(f"\n[{name}]\n{replies[model, 'eval_030']['reply']}")

# %% [markdown] lang="ko"
# 베이스 모델은 `1. 1. 1.`만 되풀이합니다. 학습한 모델은 교수님께 인사하고, 과제와 날짜를 챙겨 **이메일을 씁니다**. 잘 쓴 것은 아닙니다. 제목도 이름도 없고, 뒤로 가면 날짜를 뒤섞으며 맴돕니다.
#
# 마음에 드는 하나를 고른 것이 아닌지 의심해야 합니다. 그래서 규칙을 먼저 정했습니다. 평가 과제 105개에서 **열 개마다** 하나씩, 모두 열 개의 첫머리를 그대로 보입니다.

# %% [markdown] lang="en" of="3c3b8377"
# The base model repeats `1. 1. 1.` and nothing else. The tuned one greets the professor, takes up the assignment and its dates, and **writes an e-mail**. Not a good one: no subject, no name, and towards the end it goes round in circles.
#
# Did we pick a pleasing example? The rule was fixed first: of 105 evaluation tasks **every tenth**, with the beginnings of both replies. (The ten: a conclusion, a probability, the e-mail, a fake review, pandas code, answers from a text, a comma that settles a meaning, the planets in order, a pan on fire, a building's ratios.)

# %%
def beginning(text, most=64):
    return " ".join(text.split())[:most]


for number in range(10, 101, 10):
    key = f"eval_{number:03}"
    print(f"{key} {beginning(questions[key].instruction)}")
    print(f"  before {beginning(replies['base', key]['reply'])}")
    print(f"  after  {beginning(replies['both', key]['reply'])}")
ended = Counter(model for (model, _), row in replies.items() if row["ended"])
print(f"ended within 128 tokens: before {ended['base']}, after {ended['both']} of {len(questions)}")

# %% [markdown] lang="ko"
# 학습한 모델은 대개 응답하듯 시작하고 스스로 끝맺습니다. 그래도 090은 질문을 되뇌고 100은 입력을 베낍니다. 그리고 **위의 열 개 가운데 내용이 맞는 것은 하나도 없습니다.** 행성의 순서도(080) 확률도(020) 모릅니다.
# 작은 모델이 과제 몇백 개로 배운 것은 지식이 아니라 *지시에 응답하는 모양*입니다. 02와 03에서 이 차이를 숫자로 다룹니다.
#
# 여기까지 오는 길은 이렇습니다. 이 노트북은 `01` 상자입니다.

# %% [markdown] lang="en" of="233b5dfb"
# The tuned model mostly begins like an answer and stops by itself, though 090 repeats the question and 100 copies its input. And **not one of these ten is right**: it knows neither the order of the planets (080: "twelve, the twelve of twelve") nor a probability (020: "100%").
# What a small model learns from a few hundred tasks is not knowledge but *what answering an instruction looks like*. 02 and 03 put numbers to that.
#
# This is the way there; this notebook is the box `01`.

# %%
from IPython.display import Image

Image(filename=REPO / "assets" / "figures" / "pipeline.png", width=820)

# %% [markdown] lang="ko"
# ## 1. 내 데이터와 씨앗
#
# 지시 데이터의 한 줄은 **과제**(task)입니다. `instruction`은 시키는 말, `input`은 그 일에 필요한 글(없어도 됩니다), `output`은 바른 응답입니다.
# 여러분의 데이터가 있다면 이런 JSON 파일이면 됩니다. 먼저 이 노트북이 쓰는 것을 한꺼번에 불러오고, 과제 다섯 개짜리 파일을 만들어 읽어 봅니다.

# %% [markdown] lang="en" of="22646854"
# ## 1. Your data, and seeds
#
# One row of instruction data is a **task**: `instruction` says what to do, `input` is the text to do it with (there may be none), `output` is a good response.
# Data of your own can be a JSON file like the one below. Import what this notebook uses, then write and read five rows: make this polite; classify a complaint; our shop's opening hours; a title; a country of three letters.

# %%
import json
import random
import re
import string
from dataclasses import asdict, replace
from itertools import islice

from course_utils import korean, plots
from course_utils.generate import (
    GenerationReport,
    filter_tasks,
    generate_tasks,
    generation_requests,
    question_text,
)
from course_utils.llm import LLM, Request
from course_utils.parsing import RULES, check_task, parse_generation, split_candidates
from course_utils.practice.checks import check
from course_utils.prompts import generation_prompt
from course_utils.similarity import SimilarityFilter, filter_similar, morphemes, rouge_l
from course_utils.tasks import Task, split_heldout, write_atomic, write_tasks

# %%
five_rows = """[
{"instruction": "높임말로 바꿔 주세요.", "input": "밥 먹었어?", "output": "식사하셨어요?"},
{"instruction": "한 단어로 분류해 주세요.", "input": "배송이 늦어요.", "output": "불만"},
{"instruction": "우리 가게 영업시간을 알려 주세요.", "output": "오전 10시부터 밤 9시까지입니다."},
{"instruction": "제목을 지어 주세요.", "input": "첫눈을 본 강아지", "output": "하얀 첫걸음"},
{"instruction": "세 글자 나라 이름을 하나 말해 주세요.", "output": "캐나다"}
]"""
path = course.store.local("mine") / "my_tasks.json"
path.write_text(five_rows, encoding="utf-8")
mine = read_tasks(path)
training, heldout = split_heldout(mine)
print(f"{len(mine)} tasks: {len(training)} to train on, held out {[t.instruction for t in heldout]}")

# %% [markdown] lang="ko"
# - **어디에 넣나요?** 노트북마다 첫 셀 위에 `%env DATA=내_파일의_경로.json`이라고 쓰고 처음부터 실행하세요. 01은 교사가 쓴 과제 대신 그 파일을 같은 규칙과 필터로 거르고, 02는 그것으로 학습합니다.
# - **무엇을 떼어 두나요?** 질문의 해시(hash)로 고른 10분의 1(적어도 하나)은 학습에 쓰지 않고 03의 시험에 씁니다.
# - **몇 개면 되나요?** 정해진 답은 없습니다. 영어 지시 데이터인 Alpaca는 52,002개, LIMA는 사람이 고른 1,000개였고, 앞의 Gemma는 295개로 말하는 모양만 배웠습니다. 말투와 형식은 적은 데이터로도 배우지만, 지식은 훨씬 많은 데이터로도 잘 배우지 못합니다.
# - **학습하지 말아야 할 때**: 자주 바뀌는 사실(위의 영업시간!)은 검색해서 프롬프트에 넣으세요(노트북 06). 형식만 문제라면 프롬프트에 보기 몇 개를 넣는 것이 먼저입니다.
#
# 데이터가 없다면 만듭니다. 사람은 **씨앗**(seed)만 쓰고, 나머지는 더 큰 모델인 **교사**(teacher)에게 씨앗을 보여 주며 쓰게 합니다. 이 방법이 Self-Instruct입니다. Alpaca처럼 우리도 씨앗 175개를 손으로 썼습니다.

# %% [markdown] lang="en" of="9bc5ecc8"
# - **Where does it go?** Write `%env DATA=path/to/my_file.json` above the first cell of each notebook and run from the top. 01 then puts your file through the same rules and filter in place of the teacher's tasks, and 02 trains on it.
# - **What is held out?** A tenth (at least one), chosen by a hash of the question, is never trained on; 03 tests with it.
# - **How many are enough?** Nobody can say. In English, Alpaca had 52,002, LIMA 1,000 picked by people; the Gemma above learned only a manner of answering, from 295. Tone and format take few examples; facts take many, and stick badly even then.
# - **When not to fine-tune**: facts that change (opening hours!) belong in the prompt, looked up for each question (notebook 06). If only the format is wrong, first put a few examples into the prompt.
#
# Without data, make some. People write only **seeds**; a larger model, the **teacher**, is shown some and writes the rest. This is Self-Instruct. Like Alpaca, we wrote 175 seeds by hand. The two shown: sort a shopping list by shop section; five things to buy for a first home.

# %%
seeds = read_tasks(REPO / "data" / "seed_tasks.jsonl")
print(f"{len(seeds)} seeds, {sum(bool(task.input) for task in seeds)} of them with an input")
for task in seeds[:2]:
    print(f"\ninstruction {task.instruction}\ninput       {task.input or '-'}")
    print("output     ", task.output.replace("\n", " / "))

spec = course.recipe.data  # of the recipe (the card's first line): how many tasks, which threshold
work = course.store.restore("preprocess")  # the folder where this notebook works
teacher = course.llm("teacher", journal=work / "journal.jsonl")

# %% [markdown] lang="ko"
# 실제 교사는 씨앗의 말투와 범위를 흉내 냅니다. 그래서 데이터의 품질은 많은 부분이 씨앗에서 정해집니다.
#
# 맨 위 카드의 Recipe는 크기와 설정의 묶음(**레시피**)입니다. Teacher 줄에 `SIMULATED`가 보인다면 교사는 언어 모델이 아니라 **정답을 아는 작은 프로그램**입니다. 작은 세계의 과제를 열두 유형으로 쓰면서, 실제 교사가 하는 실수를 정해진 비율로 섞습니다.
# 절차를 배우기에는 좋지만, 씨앗을 읽지도 않고 실제 모델의 품질을 말해 주지도 않습니다. 그래서 필요한 자리마다 작은 실제 기록을 나란히 보입니다. GPU나 API 키가 있으면 같은 셀을 실제 교사가 맡습니다.

# %% [markdown] lang="en" of="1d80d78d"
# A real teacher imitates the tone and the range of the seeds, so much of your data's quality is decided there.
#
# The **recipe** on the card at the top is a set of sizes and settings. If its Teacher line says `SIMULATED`, the teacher is not a language model but **a small program that knows the answers**. It writes tasks of twelve kinds about a small world and mixes in mistakes at fixed rates.
# Good for learning the procedure; but it does not read the seeds and says nothing about the quality of real models. For that, a small real record stands beside it. With a GPU or an API key a real teacher answers the same cells.

# %% [markdown] lang="ko"
# ## 2. 교사에게 묻고 응답 읽기
#
# 교사에게 보내는 글이 **프롬프트**입니다. 씨앗 셋을 보여 주고, 이어서 새 과제 스무 개를 써 달라고 합니다. 씨앗은 난수로 고르되 요청 번호가 난수를 정하므로, n번째 요청은 언제 만들어도 글자 하나까지 같습니다. (코드의 `seed`는 씨앗 과제가 아니라 난수의 출발점입니다.)

# %% [markdown] lang="en" of="db57f199"
# ## 2. Ask the teacher, read the reply
#
# What we send is the **prompt**: three seeds, and the request to go on with twenty new tasks. The seeds are drawn at random, but the number of the request decides the draw, so request n is always the same to the letter. (In code, `seed` is where random numbers start, not a seed task.)

# %%
index = 0  # the first request
three = random.Random(f"{spec.seed}/{index}").sample(seeds, 3)
prompt = generation_prompt(three, n=20)
request = Request([{"role": "user", "content": prompt}], {"seed": index, "max_tokens": 4000})
assert request == next(generation_requests(seeds, seed=spec.seed))
print(prompt)

# %% [markdown] lang="ko"
# 앞부분은 교사가 지킬 것, 뒷부분은 씨앗 셋입니다. 끝을 보세요. `4. 지시문:`에서 멈춥니다. 글을 이어 쓰기만 하던 옛 모델에게 묻던 방식입니다. 채팅 모델은 새 차례에서 응답하므로 4번부터 이어 쓴다는 보장이 없습니다. 이 절 뒤쪽의 실제 응답은 1번부터 시작합니다.
# `assert`는 손으로 만든 요청이 라이브러리의 것과 같다는 확인입니다. 이 강의의 중요한 함수는 모두 이렇게 **직접 써 보고, 같은지 확인한 다음에** 라이브러리의 것을 씁니다. 이제 물어봅시다.

# %% [markdown] lang="en" of="f2e8a46c"
# First the rules for the teacher (varied verbs, many kinds of task, only what a text model can do, and so on), then three seeds. Look at the end: it stops at `4. 지시문:` ("4. Instruction:"). That comes from older models, which only continued text. A chat model begins a new turn and may not go on with item 4; the real one below begins with 1.
# The `assert` says that the request made by hand equals the library's. So it goes with every function that matters here: **write it, see that it is equal, then** use the library's.

# %%
LIVE = False  # True: really ask again each time, in front of a class, and pay for it

asked = replace(request, sample=random.getrandbits(31)) if LIVE else request
[reply] = teacher.complete([asked])
assert reply.text is not None, reply.error
print("finish_reason", reply.finish_reason, "  cached", reply.cached, "\n")
print(*reply.text.splitlines()[:11], "...", sep="\n")

# %% [markdown] lang="ko"
# 이것이 받은 그대로의 응답입니다. 첫 과제에 `4. 지시문:`이 없는 것은 우리가 이미 써 주었기 때문입니다. `finish_reason`은 왜 끝났는지입니다. `stop`은 스스로 마쳤고, `length`라면 길이 제한에 잘렸습니다. 잘린 응답의 마지막 과제는 다 쓴 것처럼 보여도 중간에 끊겼을 수 있으므로 버립니다.
#
# 글을 과제로 바꿔 봅시다. `###`에서 자르고, 이름표 셋으로 나누면 됩니다.

# %% [markdown] lang="en" of="ae79306b"
# This is the reply as it came. Its first item lacks `4. 지시문:`, which we had already written. The labels are 지시문 (instruction), 입력 (input), 출력 (output). `finish_reason` is `stop` if the model ended by itself, `length` if a limit cut it off; then the last task is dropped, complete as it may look.
#
# Now turn the text into tasks: cut at `###`, then at the labels.

# %%
def parse_clean(text, number=4):
    """The tasks of a clean reply, which goes on where the prompt ended."""
    tasks = []
    for item in f"{number}. 지시문:{text}".split("###"):
        parts = re.split(r"^\d+\. (?:지시문|입력|출력):", item.strip(), flags=re.MULTILINE)
        if len(parts) == 4:  # what stands before the first label (nothing), and three values
            _, instruction, given, output = (part.strip() for part in parts)
            tasks.append(Task(instruction, "" if given == "<noinput>" else given, output))
    return tasks


hand = [task for task in parse_clean(reply.text) if check_task(task) is None]
parsed = parse_generation(reply.text, first_number=4, finish_reason=reply.finish_reason)
print(f"by hand {len(hand)} tasks, by the library {len(parsed.tasks)}, rejected:", *parsed.rejected)
assert hand == parsed.tasks or not course.simulated

# %% [markdown] lang="ko"
# 이 응답에서는 우리 함수와 라이브러리의 `parse_generation`이 같은 과제를 읽었습니다. (`check_task`는 3절의 규칙이고, `parse_generation`은 이것까지 적용합니다. 그래프를 보라는 과제 하나를 `needs another medium`, 곧 글만으로는 할 수 없다며 거절했습니다.)
#
# 그런데 이것은 모의 교사의 **깨끗한** 응답입니다. 실제 모델은 어떨까요? Qwen2.5-Coder 1.5B가 쓴 응답 하나를 봅니다(작은 실제 기록). 이 모델에게는 한 번에 여덟 개씩 부탁했습니다.

# %% [markdown] lang="en" of="775a16d9"
# On this reply our function and the library's `parse_generation` read the same tasks. (`check_task` holds the rules of section 3, which `parse_generation` applies too; one task, about reading a graph, was rejected as `needs another medium`.)
#
# But this was a simulated, **clean** reply. Here is one by a real model, Qwen2.5-Coder 1.5B, asked for eight tasks at a time (small and real, recorded).

# %%
recorded = read_jsonl(REAL / "teacher.jsonl")
print(*recorded[13]["text"].splitlines()[:11], "...", sep="\n")

# %% [markdown] lang="ko"
# 4번부터 쓰라고 했는데 1번부터 씁니다. 번호가 `1. 입력`, `2. 출력`처럼 어긋나고, 한국어 이름표 대신 중국어 `输入`(입력)이 나옵니다. 이런 응답 125개를 두 함수로 읽어 봅니다. (우리 함수에는 3절의 규칙을 적용하지 않았습니다.)

# %% [markdown] lang="en" of="22857303"
# Numbers begin with 1, not 4, and drift (`1. 입력`, then `2. 출력`), and one label is the Chinese `输入` ("input"). Read all 125 recorded replies with both functions, ours without the rules of section 3.

# %%
by_hand, good, reasons, sizes = 0, 0, Counter(), []
for row in recorded:
    parsed = parse_generation(row["text"], first_number=4, finish_reason=row["finish_reason"])
    by_hand += len(parse_clean(row["text"]))
    good += len(parsed.tasks)
    reasons.update(reason for reason, _ in parsed.rejected)
    sizes.append(len(split_candidates(row["text"], first_number=4)))
candidates = sum(sizes)
print(f"by hand: {by_hand} tasks, and not a word about the rest")
print(f"library: {candidates} candidates = {good} tasks + {reasons.total()} rejected", dict(reasons))
print(f"{sum(size <= 1 for size in sizes)} of {len(sizes)} replies hold one candidate or none")
assert candidates == good + reasons.total()

# %% [markdown] lang="ko"
# 여기서 지킬 것은 하나입니다. **모든 후보(candidate)는 과제가 되거나, 이름 붙은 이유 하나로 거절됩니다.** 조용히 사라지는 것은 없습니다. 우리 함수는 모르는 모양을 만나면 말없이 버리지만, 라이브러리는 `missing field`(빠진 칸), `truncated`(잘림)처럼 이유를 남깁니다.
# 그래야 무엇을 고칠지 알 수 있습니다. 또 여덟 개를 부탁했는데 하나밖에 못 쓴 응답이 절반을 넘습니다. 작은 교사의 한계입니다.

# %% [markdown] lang="en" of="b2785069"
# One rule holds here: **every candidate becomes a task or is rejected for one named reason.** Our function silently drops what it does not know; the library says `missing field`, `truncated` and so on, which tells you what to mend.
# And asked for eight tasks, the small teacher wrote at most one in more than half of its replies.

# %% [markdown] lang="ko"
# ### 연습 1. 번호 붙은 과제 하나 읽기
#
# ★★★ · 약 20분 · 2절
#
# `...` 자리에 쓰고 셀을 실행하면 `check`가 여러 입력으로 불러 보고, 어긋나면 **어떤 입력에서** 무엇이 나왔는지 알려 줍니다. 비워 두어도 오류는 나지 않습니다.
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

# %% [markdown] lang="en" of="c6487175"
# ### Exercise 1. Read one numbered item
#
# ★★★ · about 20 minutes · section 2
#
# Write in place of `...` and run the cell: `check` calls your function on many inputs and says **on which** it was wrong. Left empty it raises no error.
#
# Write `read_item`: it takes the text of one item and returns a dictionary of its fields.
#
# - A label begins a line: `4. 지시문:` (instruction), `4. 입력:` (input) or `4. 출력:` (output). Within an item the number is the same.
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
# ## 3. 한국어를 위한 규칙
#
# Alpaca는 과제를 몇 가지 규칙으로 먼저 거릅니다. 그런데 영어를 위한 규칙입니다. 그대로 옮겨, 손으로 공들여 쓴 씨앗에 적용하면 어떻게 될까요?

# %% [markdown] lang="en" of="58a0c382"
# ## 3. Rules for Korean
#
# Alpaca first filters tasks with a handful of rules, made for English. What do they do to our handwritten seeds?

# %%
BLACKLIST = "image|images|graph|graphs|picture|pictures|file|files|map|maps|draw|plot|go to"
BLACKLIST += "|video|audio|music|flowchart|diagram"


def alpaca_says(instruction):
    """Alpaca's rules on instructions, in their order."""
    if not 3 < len(instruction.split()) <= 150:
        return "too short or too long"
    if re.search(rf"\b({BLACKLIST})\b", instruction, re.IGNORECASE):
        return "a word from the blacklist"
    if instruction.startswith("Write a program"):
        return "Write a program"
    if instruction[0] in string.punctuation:
        return "starts with punctuation"
    return "kept" if instruction[0].isascii() else "starts with a non-English character"

# %%
for verdict, count in Counter(alpaca_says(task.instruction) for task in seeds).most_common():
    print(f"{count:4} {verdict}")
begin_in_hangul = [task for task in seeds if "가" <= task.instruction[0] <= "힣"]
assert not any(alpaca_says(task.instruction) == "kept" for task in begin_in_hangul)

# %% [markdown] lang="ko"
# 한글로 시작하는 지시문은 **하나도 남지 않습니다**. 남은 몇 개는 우연히 숫자나 영문자로 시작했을 뿐입니다. 오류도 나지 않으니, 모르고 돌리면 빈 데이터만 남습니다.
#
# 비슷한 과제를 거르는 필터는 거꾸로 틀립니다. 두 글이 함께 가진 **토큰**(token, 글을 자른 조각)을 세는데, Alpaca가 쓰는 rouge-score는 영문자와 숫자만 토큰으로 남깁니다.

# %% [markdown] lang="en" of="7677f2e0"
# Of the instructions that begin in Hangul, **not one is left**; the few that remain begin with a digit or a Latin letter. No error is raised: unless you look, your data is empty.
#
# The filter for near-duplicates fails the other way round. It counts the **tokens** (pieces of text) that two texts share, and Alpaca's rouge-score keeps only Latin letters and digits.

# %%
def stock_tokens(text):
    """What rouge-score's own tokenizer does: everything but a-z and 0-9 is a space to it."""
    return re.sub(r"[^a-z0-9]+", " ", text.lower()).split()


for text in ["다음 문장을 존댓말로 바꿔 주세요.", "SQL에서 LEFT JOIN을 설명해 주세요."]:
    print(text, "->", stock_tokens(text))
blind = sum(not stock_tokens(task.instruction) for task in seeds)
print(f"{blind} of {len(seeds)} seed instructions have no token at all")

# %% [markdown] lang="ko"
# 토큰이 없으면 겹치는 것도 없어 유사도는 늘 0입니다. 그러니 한글뿐인 글이라면 앞의 규칙은 **모두 버리고**, 이 필터는 **모두 통과**시킵니다.
#
# 한국어에는 어절(띄어 쓴 한 덩이)보다 작은 단위가 필요합니다. `지도를`과 `지도에서`는 같은 명사에 조사가 붙은 것이고, `지도자`는 다른 단어입니다. 글을 뜻이 있는 가장 작은 조각으로 나누는 **형태소**(morpheme) 분석기가 이것을 가려 줍니다.
# 단어가 들어 있는지만 보는 검사와 비교해 봅니다. (`NNG`는 명사, `JKO`는 목적격 조사라는 품사 표시입니다.)

# %% [markdown] lang="en" of="20f43277"
# Without tokens nothing overlaps, and every similarity is 0. So of text in Hangul alone the rules **reject everything** and this filter **admits everything**.
#
# Korean needs a unit smaller than what stands between two spaces (an 어절, eojeol): `지도를` and `지도에서` are one noun, "map", with different particles, while `지도자`, "leader", is another word. A **morpheme** analyser, which cuts text into its smallest meaningful pieces, tells them apart. Against it stands a test that only looks for the words "map", "picture" and "music". The six: draw a map of Seoul; the qualities of a good leader; a letter to my supervisor (`지도 교수`); why shadows (`그림자`) form; play quiet music; terms from music class.

# %%
cases = {
    "서울 지도를 그려 주세요.": True,  # impossible for a text model: a map
    "좋은 지도자의 자질을 알려 주세요.": False,
    "지도 교수님께 드릴 편지를 써 주세요.": False,
    "그림자가 생기는 이유를 설명해 주세요.": False,
    "잔잔한 음악을 틀어 주세요.": True,  # impossible: music
    "음악 시간에 배운 빠르기말을 설명해 주세요.": False,
}
print(*korean.tokens("서울 지도를 그려 주세요."), "\n")
for instruction, impossible in cases.items():
    by_word = any(word in instruction for word in ("지도", "그림", "음악"))
    by_rule = check_task(Task(instruction, output="네.")) == "needs another medium"
    print(f"by word {by_word!s:6} by morpheme {by_rule!s:6} {instruction}")
    assert by_word and by_rule == impossible

# %% [markdown] lang="ko"
# 단어만 보면 여섯 문장이 모두 걸리고, 형태소를 보면 정말 못 하는 둘만 걸립니다. 규칙은 모두 여덟 개이고, 먼저 걸린 하나가 거절 이유가 됩니다. 우리 씨앗을 버리지는 않는지도 봅니다.

# %% [markdown] lang="en" of="4497a385"
# By word all six are caught; by morpheme only the two that are impossible. There are eight rules; the first that fires is the reason. Do they spare our seeds?

# %%
for name, rule in RULES.items():
    print(f"{name:24}{rule.description}")
print(f"\n{sum(check_task(task) is not None for task in seeds)} of {len(seeds)} seeds rejected")
assert len(RULES) == 8

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
# Return what share of a text's **letters** is Hangul, from 0 to 1. `str.isalpha` decides what is a letter; spaces, digits and punctuation are not.
# Single jamo such as `ㅋ` (from `ㄱ` to `ㆎ`) are Hangul as well. For a text without letters return 0.0.
#
# Example: of the eight letters of `hangul_share("Python 설치")` two are Hangul, so it is 0.25.

# %%
def hangul_share(text):
    """The share of Hangul among the letters of a text, from 0 to 1."""
    ...


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
# 3절의 규칙 `not Korean`이 바로 이 값을 씁니다.
#
# </details>

# %% [markdown] lang="en" of="43a0a259"
# <details><summary>Solution</summary>
#
# ```python
# def hangul_share(text):
#     letters = [character for character in text if character.isalpha()]
#     hangul = [c for c in letters if "가" <= c <= "힣" or "ㄱ" <= c <= "ㆎ"]
#     return len(hangul) / len(letters) if letters else 0.0
# ```
#
# The rule `not Korean` of section 3 uses this number.
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
# From a list of tasks and the rules, return **the tasks that are kept** and **how many were rejected, by reason**. `rules` is `{name: test}`, and a test is `True`
# for a bad task. Ask the rules in the order given; the first that fires is the only reason. List no reason that did not occur.
#
# Example: of three tasks the second alone is `too short`: `([first, third], {"too short": 1})`.

# %%
def sort_out(tasks, rules):
    """The tasks that no rule rejects, and a dictionary: reason -> number of rejected tasks."""
    ...


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
# ## 4. 비슷한 과제 걸러 내기
#
# 교사는 같은 과제를 말끝만 바꿔 되풀이합니다. 그런 과제가 쌓이면 데이터는 커져도 배울 것은 늘지 않습니다. Alpaca는 새 과제를 지금까지 남긴 모든 과제와 비교해, ROUGE-L이 0.7을 넘는 것이 하나라도 있으면 버립니다.
#
# ROUGE-L은 두 글에 **같은 순서로** 들어 있는 토큰을 가장 길게 고른 것(최장 공통 부분 수열, LCS)에서 나옵니다. LCS의 길이 $L$을 두 글의 토큰 수 $m$, $n$으로 나누면 정밀도 $P = L/m$과 재현율 $R = L/n$이고, 둘의 조화 평균 F1이 점수입니다. 0이면 겹치는 것이 없고 1이면 똑같습니다. 손으로 구해 봅니다.

# %% [markdown] lang="en" of="921118d1"
# ## 4. Leaving out near-duplicates
#
# A teacher repeats itself with new endings, which teaches nothing. Alpaca compares a new task with everything kept so far and drops it if any ROUGE-L is above 0.7.
#
# ROUGE-L comes from the longest series of tokens that both texts hold **in the same order** (longest common subsequence, LCS). Its length $L$ divided by the token counts $m$ and $n$ gives precision $P = L/m$ and recall $R = L/n$; their harmonic mean F1 is the score, 0 if nothing is shared, 1 if the tokens are equal. By hand, for "Please change the following sentence into polite speech" and "Would you change the sentence below into polite speech?":

# %%
def lcs(a, b):
    """The length of the longest common subsequence: best[i][j] is that of a[:i] and b[:j]."""
    best = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, x in enumerate(a, 1):
        for j, y in enumerate(b, 1):
            same = best[i - 1][j - 1] + 1
            best[i][j] = same if x == y else max(best[i - 1][j], best[i][j - 1])
    return best[-1][-1]


a = morphemes("다음 문장을 존댓말로 바꿔 주세요.")
b = morphemes("아래 문장을 존댓말로 바꿔 주시겠어요?")
precision, recall = lcs(a, b) / len(a), lcs(a, b) / len(b)
f1 = 2 * precision * recall / (precision + recall)
print(" ".join(a), "\n" + " ".join(b))
print(f"LCS {lcs(a, b)}, {len(a)} and {len(b)} tokens, F1 = {f1:.3f}")
assert f1 == rouge_l(a, b)

# %% [markdown] lang="ko"
# 손으로 구한 값이 `rouge_l`과 마지막 자리까지 같습니다. 그러면 필터는 이렇게 쓰면 됩니다. 씨앗 175개와 모의 교사의 과제 300개로 해 봅니다. 비교하는 글은 지시문과 입력을 이은 것입니다.

# %% [markdown] lang="en" of="d1ac99cf"
# Your value and `rouge_l` agree to the last digit. Now a filter, tried on the 175 seeds and 300 simulated tasks; instruction and input are compared together.

# %%
def brute_force(rows, threshold):
    """Which rows are kept, and how many pairs had to be scored."""
    kept, scored = [], 0
    for i, row in enumerate(rows):
        scores = [rouge_l(row, rows[j]) for j in kept]
        scored += len(scores)
        if max(scores, default=0) <= threshold:
            kept.append(i)
    return kept, scored


sample = read_tasks(REPO / "assets" / "sample" / "preprocess" / "tasks.jsonl")[:300]
texts = [question_text(task) for task in seeds + sample]
rows = [morphemes(text) for text in texts]
kept, scored = brute_force(rows, 0.7)
print(f"{len(kept)} of {len(rows)} texts kept, {scored:,} pairs scored")

# %% [markdown] lang="ko"
# 맞지만 느립니다. 과제가 52,000개면 쌍이 13억 개입니다. (바쁘면 다음 그림 뒤로 건너뛰어도 됩니다. 판정은 그대로이고 빨라지기만 합니다.) LCS를 구하지 않고도 점수의 **상한**(bound)은 알 수 있습니다.
#
# 1. $P$와 $R$을 넣어 정리하면 $F_1 = \dfrac{2PR}{P+R} = \dfrac{2L}{m+n}$ 입니다.
# 2. LCS의 토큰은 두 글이 함께 가진 토큰이므로, 함께 가진 토큰의 수를 $s$라 하면 $L \le s$이고 $F_1 \le \dfrac{2s}{m+n}$ 입니다.
#
# 그러니 이 상한이 기준보다 작은 쌍은 계산하지 않아도 됩니다. 순서를 보지 않고 세기만 하면 되니 훨씬 빠릅니다.

# %% [markdown] lang="en" of="34cc31bc"
# Right, but slow: 52,000 tasks make 1.3 billion pairs. (In a hurry, skip to below the next figure: this changes the speed and no decision.) Without any LCS there is an upper **bound** on a score.
#
# 1. Substituting $P$ and $R$, $F_1 = \dfrac{2PR}{P+R} = \dfrac{2L}{m+n}$.
# 2. The tokens of an LCS are shared by both texts, so if they share $s$ tokens, $L \le s$ and $F_1 \le \dfrac{2s}{m+n}$.
#
# So a pair whose bound is below the threshold need not be scored, and counting is much faster.

# %%
def best_possible(a, b):
    """The bound: no ROUGE-L F1 of two token lists is higher."""
    return 2 * (Counter(a) & Counter(b)).total() / (len(a) + len(b))


def with_bound(rows, threshold):
    """The same as brute_force, but only what may be too similar is scored."""
    kept, scored = [], 0
    for i, row in enumerate(rows):
        # >= and not >: where both are equal, rounding must not decide
        close = [j for j in kept if best_possible(row, rows[j]) >= threshold]
        scores = [rouge_l(row, rows[j]) for j in close]
        scored += len(scores)
        if max(scores, default=0) <= threshold:
            kept.append(i)
    return kept, scored


for threshold in (0.7, 0.4):
    slow, fast = brute_force(rows, threshold), with_bound(rows, threshold)
    assert slow[0] == fast[0] == filter_similar(texts, threshold).kept
    print(f"threshold {threshold}: {len(fast[0])} kept; scored {slow[1]:,} -> {fast[1]:,} pairs")

# %% [markdown] lang="ko"
# 판정은 하나도 다르지 않습니다. 107,379쌍 가운데 0.7에 이를 수라도 있는 것은 57쌍입니다. 평범한 쌍은 대개 0.7보다 훨씬 아래에 있다는 뜻이기도 합니다. 라이브러리의 `filter_similar`와 `SimilarityFilter`도 같은 판정을 내립니다.
# 그림은 모의 견본 데이터 2,200개를 하나씩 **앞서 남긴 과제와** 비교한 쌍(1,659,298개)입니다. 길이만 비교하면 72%가 남지만, 함께 가진 토큰을 세면 0.11%만 남습니다.

# %% [markdown] lang="en" of="627b2a80"
# Not one decision differs. Of 107,379 pairs only 57 could reach 0.7 at all; ordinary pairs mostly lie far below it. The library's `filter_similar` and `SimilarityFilter` decide the same.
# The figure: each of the 2,200 simulated sample tasks against **those kept before it**. Lengths alone leave 72% of the pairs, counting shared tokens 0.11%.

# %%
Image(filename=REPO / "assets" / "figures" / "pruning.png", width=820)

# %% [markdown] lang="ko"
# 형태소와 0.7이 옳은 선택일까요? 강의를 쓴 사람이 두 과제씩 120쌍을 지어 뜻에 따라 '같은 과제'와 '다른 과제'로 나누고, 다른 사람이 규칙과 글만 보고 다시 나누었습니다(120쌍 모두 일치). `caught`는 걸러 낸 같은 과제, `lost`는 잘못 걸러 낸 다른 과제, `agrees`는 레이블과 일치한 비율입니다.
# 다만 이 쌍들은 **일부러 어려운 것만**, 점수가 0.45에서 0.95 사이인 것으로, 두 레이블을 반반씩 모은 것입니다.

# %% [markdown] lang="en" of="873f2879"
# Are morphemes and 0.7 right? An author of the course wrote 120 pairs of tasks and labelled each, by meaning, as the same task or different ones; another reader, given only rule and texts, gave the same 120 labels. `caught` is the share of same tasks filtered out, `lost` that of different ones filtered out by mistake.
# But mind: these pairs were **chosen to be hard**, with scores of 0.45 to 0.95, and half of each label.

# %%
measured = json.loads((REPO / "tests/benchmarks/results/threshold.json").read_text("utf-8"))
print(f"{'tokens':10} {'above':>6} {'caught':>7} {'lost':>5} {'agrees':>7}  95% interval")
for row in measured["agreement"]:
    if row["tokens"] != "syllables" and row["threshold"] in (0.6, 0.7, 0.8):
        caught, agrees = row["recall"], row["accuracy"]
        lost = 1 + caught - 2 * agrees  # half of the pairs are the same task, half are not
        print(f"{row['tokens']:10} {row['threshold']:6} {caught:7.0%} {lost:5.0%} {agrees:7.0%}"
              f"  {row['low']:.0%} to {row['high']:.0%}")

# %% [markdown] lang="ko"
# 일치율이 50%쯤인 것은 쌍을 이렇게 골랐기 때문이지, 교사의 과제에서 필터가 동전 던지기라는 뜻이 아닙니다. 구간이 모두 겹치니 **이 표로는 가장 나은 설정을 가릴 수 없습니다.** 형태소는 어절보다 되풀이를 더 잡고(75%와 57%), 그만큼 다른 과제도 더 잃습니다.
# 잃은 과제는 교사에게 더 써 달라고 하면 되지만 남은 되풀이는 학습에 들어갑니다. 그래서 형태소를 쓰고, 0.7은 Alpaca의 관례를 따릅니다. 모의 교사의 과제는 서로 많이 닮아 offline 레시피만 0.8입니다. 필터는 무엇을 혼동할까요?

# %% [markdown] lang="en" of="66ffe10d"
# Agreement is near 50% because of how the pairs were chosen; on a teacher's tasks the filter is no coin toss. All intervals overlap: **this table cannot tell which setting is best.** Morphemes catch more repeats than words (75% against 57%) and lose more different tasks. But a teacher can write another task, while a repeat that stays is trained on: hence morphemes.
# The 0.7 is Alpaca's; the offline recipe has 0.8, because simulated tasks resemble each other. What does the filter confuse?

# %%
in_short = ["other words", "other name or number", "other word order", "a synonym", "other endings",
            "words added", "other object", "other input", "other numbers or conditions",
            "another question", "the opposite", "another job"]
rows_07 = [row for row in measured["reasons"]
           if (row["tokens"], row["threshold"]) == ("morphemes", 0.7)]
for row, english in zip(rows_07, in_short, strict=True):
    label = "same" if row["same"] else "different"
    print(f"{label:9} {row['above']:2} of {row['pairs']} caught  {row['why']} ({english})")

# %% [markdown] lang="ko"
# 말을 덧붙였거나 이름만 다른 되풀이는 열에 열을 잡지만, 통째로 다시 쓴 같은 과제는 열에 여덟을 놓칩니다. 반대로 **다른** 과제 여섯 가지 가운데 네 가지는 열에 여덟아홉을 비슷하다고 봅니다. ROUGE-L은 뜻이 아니라 겉모습을 봅니다.

# %% [markdown] lang="en" of="25902822"
# Repeats with words added or another name are all caught, but of those told in other words eight in ten are missed. And of six kinds of **different** tasks four are called similar eight or nine times in ten. ROUGE-L looks at appearance, not meaning.

# %% [markdown] lang="ko"
# ### 연습 4. 재지 않고 빼기
#
# ★★ · 약 10분 · 4절
#
# 위의 `best_possible`을 보지 말고, 두 줄짜리 증명을 떠올리며 써 보세요.
#
# F1이 `threshold`를 **넘을 수도 있으면** `True`, 절대 넘을 수 없으면 `False`를 돌려주세요. 순서는 보지 말고, 같은 토큰이 여러 번 나오면 그만큼 셉니다.
#
# 보기: `may_exceed(["나", "는", "간다"], ["나", "는", "온다"], 0.5)`는 함께 가진 토큰이 둘이고 2 > 0.5 × 6 / 2이므로 `True`입니다.

# %% [markdown] lang="en" of="61ca753d"
# ### Exercise 4. Rule out without scoring
#
# ★★ · about 10 minutes · section 4
#
# Think of the proof, and do not look at `best_possible`.
#
# Return `True` if F1 **might** be above `threshold`, `False` if it cannot be. Ignore the order, and count a token as often as both have it.
#
# Example: `may_exceed(["나", "는", "간다"], ["나", "는", "온다"], 0.5)` shares two tokens, and 2 > 0.5 x 6 / 2, so it is `True`.

# %%
def may_exceed(a, b, threshold):
    """Whether the ROUGE-L F1 of two token lists can be above a threshold, judged by overlap."""
    ...


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
# `Counter`의 `&`는 토큰마다 적은 쪽의 수를 남깁니다. 집합으로 세면 되풀이된 토큰을 놓쳐, 버려야 할 과제가 남습니다.
#
# </details>

# %% [markdown] lang="en" of="c69145ca"
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
# `&` of two `Counter`s keeps the smaller count of each token. Sets miss repeated tokens, and near-duplicates stay.
#
# </details>

# %% [markdown] lang="ko"
# ## 5. 반복: 씨앗에서 데이터까지
#
# 묻고, 읽고, 규칙과 필터로 거르고, 원하는 수가 남을 때까지 되풀이합니다. 이것이 Self-Instruct의 전부입니다.
# 요청은 끝없이 만들 수 있고, `complete`가 필요한 만큼(조금은 미리) 꺼내 보냅니다. `admit`은 비슷한 것이 있으면 그것을 돌려주고, 없으면 글을 **넣고** `None`을 돌려줍니다.

# %% [markdown] lang="en" of="9b908d2a"
# ## 5. The loop: from seeds to data
#
# Ask, read, apply rules and filter, and repeat until enough is kept: that is all of Self-Instruct.
# Requests are endless; `complete` sends as many as are needed (a few ahead). `admit` returns what a text is too similar to; if nothing, it **keeps** the text and returns `None`.

# %%
def self_instruct(teacher, seeds, n, threshold, seed=0, batch=20):
    """Ask until n tasks are kept; also count what was rejected, by reason."""
    similar, kept, rejected = SimilarityFilter(threshold), [], Counter()
    for task in seeds:
        similar.add(question_text(task))  # nothing new may resemble a seed
    for reply in teacher.complete(generation_requests(seeds, seed=seed, batch=batch)):
        assert reply.text is not None, reply.error
        parsed = parse_generation(reply.text, first_number=4, finish_reason=reply.finish_reason)
        # its tasks have passed the rules of section 3
        rejected.update(reason for reason, _ in parsed.rejected)
        for task in parsed.tasks:
            if similar.admit(question_text(task)) is not None:
                rejected["similar"] += 1
                continue
            kept.append(task)
            if len(kept) == n:
                return kept, rejected

# %% [markdown] lang="ko"
# 과제 100개를 만들어, 라이브러리의 `generate_tasks`와 같은지 봅니다.

# %% [markdown] lang="en" of="4ac3eea7"
# Make 100 tasks with it, and compare with the library's `generate_tasks`.

# %%
def texts_of(tasks):
    return [(task.instruction, task.input, task.output) for task in tasks]


kept, rejected = self_instruct(teacher, seeds, 100, spec.threshold, spec.seed)
options = {"threshold": spec.threshold, "seed": spec.seed, "progress": False}
report = generate_tasks(teacher, seeds, 100, out=work / "hundred.jsonl", **options)
assert texts_of(kept) == texts_of(read_tasks(report.path)) and rejected == report.rejected
print(report)
(work / "hundred.jsonl").unlink()

# %% [markdown] lang="ko"
# 과제도, 이유별로 버린 수도 같습니다. `generate_tasks`는 과제마다 어느 요청에서 왔는지 적고, 스무 번 연달아 새것이 없으면 그만두기도 합니다. 돈만 쓰지 않으려는 것입니다.
#
# 이제 끝까지 합니다. `DATA` 파일이 있으면 여기에서 교사의 과제를 대신합니다.

# %% [markdown] lang="en" of="008c8f7a"
# The same tasks, and the same counts of rejections. `generate_tasks` also notes which request a task came from, and gives up after twenty calls without anything new, lest you pay a teacher that has run dry.
#
# Now all of it. Here a `DATA` file takes the place of the teacher's tasks.

# %%
out = work / "tasks.jsonl"
if course.data:
    given = read_tasks(course.data)
    tasks, rejected = filter_tasks(given, spec.threshold)
    write_tasks(out, tasks)
    report = GenerationReport(len(given), len(tasks), rejected, 0, 0, 0.0, out)
else:
    report = generate_tasks(teacher, seeds, spec.n, out=out, **options | {"progress": True})
assert report.candidates == report.kept + sum(report.rejected.values())
assert report.kept, "Nothing is left: the reasons are listed above."
funnel = asdict(report) | {"path": out.name}
write_atomic(work / "funnel.json", json.dumps(funnel, indent=1, ensure_ascii=False) + "\n")
course.store.seal("preprocess")  # a checked copy, where it survives: see section 6
simulated = " (simulated 모의)" if course.simulated else ""
plots.funnel(report, title="What became of the candidates 후보는 어떻게 되었나" + simulated)

# %% [markdown] lang="ko"
# **깔때기**(funnel)입니다. 후보의 수는 남긴 수와 버린 수의 합과 꼭 같습니다. 가장 긴 회색 막대가 `similar`인 것은 모의 교사가 열두 유형의 정해진 틀로만 쓰기 때문입니다. 모의 교사로 처음 100개를 모을 때에는 후보 114개면 되었지만, 2,200개까지 가면 남는 것이 후보의 58%입니다. 뒤로 갈수록 같은 돈으로 더 적게 얻습니다.
#
# 데이터를 **읽어** 봅시다. 숫자와 그림이 아무리 좋아도 이것을 대신하지 못합니다.

# %% [markdown] lang="en" of="c75550a5"
# In this **funnel**, candidates are exactly what was kept plus what was rejected. The longest grey bar is `similar`: the simulated teacher fills a fixed set of patterns. Its first 100 tasks took 114 candidates; on the way to 2,200 only 58% are kept, so you get less and less for your money.
#
# Now **read** the data; nothing stands in for that. (Offline: two reviews, positive or negative; a list reversed; a floor found in an advertisement.)

# %%
tasks = read_tasks(out)
for task in random.Random(0).sample(tasks, min(4, len(tasks))):
    print(f"instruction {task.instruction}\ninput       {task.input or '-'}\noutput      {task.output}\n")
for name, some in {"seeds": seeds, "these tasks": tasks}.items():
    verbs = {pair[0] for task in some if (pair := korean.verb_object(task.instruction))}
    words = sorted(len(task.output.split()) for task in some)[len(some) // 2]
    print(f"{name:12} {len(some):5,} tasks, {len(verbs):2} verbs, median output {words} words")

# %% [markdown] lang="ko"
# 손으로 쓴 씨앗은 175개뿐인데도 동사가 더 다양합니다. 출력의 길이도 보세요. 학습한 모델은 **데이터의 출력만큼** 길거나 짧게 응답합니다. 모의 교사의 출력은 중앙값이 두 어절이라, 이 데이터로 학습하면 짧게 응답하는 모델이 됩니다.
#
# 답은 맞을까요? 규칙과 필터는 형식과 되풀이를 볼 뿐, 맞는지는 모릅니다. 작은 세계의 쓸모가 여기에 있습니다. 정답을 아니까 셀 수 있습니다.

# %% [markdown] lang="en" of="d7b36704"
# A mere 175 handwritten seeds have more verbs. Mind the outputs, too: a model answers **as long or short as those it was trained on**. The simulated teacher's have a median of two words, so a model trained on them says little.
#
# Are the answers right? Rules and filter cannot tell. But the truth of a small world is known, so the wrong ones can be counted. (Offline, below: six words counted as three, and the translation of another sentence.)

# %%
known = [(task, truth) for task in tasks if (truth := course.truth(task)) is not None]
wrong = [(task, truth) for task, truth in known if task.output != truth]
if known:
    print(f"{len(wrong)} of {len(known):,} answers are wrong ({len(wrong) / len(known):.1%})")
    for task, truth in wrong[:2]:
        print(f"{task.instruction} {task.input}\n  kept   {task.output}\n  truth  {truth}")
else:
    print("Nobody knows the truth about these tasks: read a hundred of them yourself.")

# %% [markdown] lang="ko"
# 모의 교사는 정해진 비율만큼 일부러 틀리게 씁니다. 어느 규칙도 그것을 잡지 못했습니다. 실제 데이터라면 백 개쯤 뽑아 직접 읽는 수밖에 없습니다. 그 한 시간이 이 강의에서 가장 값진 시간입니다.
#
# ### 실제 교사라면?
#
# 방금 쓴 `self_instruct`에 교사로 Qwen2.5-Coder 1.5B의 기록을 넣습니다. (작은 실제 기록: 가중치를 4비트로 줄인 모델, 2026년 11월 30일, CPU 두 코어로 38분.) 서버가 없는 주소라 응답은 모두 기록에서 나옵니다.

# %% [markdown] lang="en" of="842fc39a"
# The simulated teacher gives a fixed share of wrong answers on purpose, and no rule has caught them. With real data, draw a hundred and read them. No hour is better spent.
#
# ### And a real teacher?
#
# Give your `self_instruct` the record of Qwen2.5-Coder 1.5B. (Small and real: weights cut to 4 bits, recorded 30 November 2026, 38 minutes on two CPU cores.) There is no server: every reply comes from the record.

# %%
copy = course.store.local("real") / "journal.jsonl"  # a journal belongs to one process at a time
copy.write_bytes((REAL / "teacher.jsonl").read_bytes())
no_server = {"base_url": "http://127.0.0.1:9/v1", "max_retries": 0, "workers": 1}
qwen = LLM("qwen2.5-coder-1.5b-instruct", journal=copy, **no_server)
real = json.loads((REAL / "funnel.json").read_text("utf-8"))
real_tasks, real_rejected = self_instruct(qwen, seeds, real["kept"], 0.7, batch=8)
assert texts_of(real_tasks) == texts_of(read_tasks(REAL / "tasks.jsonl"))
assert real_rejected == real["rejected"]

print(f"Qwen: {real['candidates']} candidates in {real['calls']} replies")
print(f"{'share of candidates':24}{'these':>8}{'Qwen':>8}")
for reason in ["kept", *RULES, "truncated", "similar"]:
    shares = [{"kept": one["kept"], **one["rejected"]}.get(reason, 0) / one["candidates"]
              for one in (funnel, real)]
    if any(shares):
        print(f"{reason:24}{shares[0]:8.1%}{shares[1]:8.1%}")

# %% [markdown] lang="ko"
# `these`는 위에서 만든 데이터입니다. (필터의 기준은 Qwen이 0.7, 위의 데이터는 레시피대로이고 offline이면 0.8입니다. 2절의 기록은 125개이지만, 120번째 과제가 남는 114번째에서 멈췄습니다.) Qwen은 칸을 훨씬 자주 빠뜨립니다. 그런데 `similar`는 왜 이렇게 많을까요? 기록에서 교사가 쓴 과제를, 그때 보여 준 씨앗과 비교해 봅니다.

# %% [markdown] lang="en" of="0bb3038a"
# `these` are the tasks made above. (Qwen's filter had 0.7, theirs the recipe's threshold, offline 0.8. Of the 125 replies of section 2 the loop needed 114: it stops at task 120.) Qwen leaves fields out far more often. But why so many `similar`? Compare the recorded tasks with the seeds shown each time.

# %%
seed_texts, written, copied = set(map(question_text, seeds)), 0, []
for row in read_jsonl(REAL / "teacher.jsonl"):
    parsed = parse_generation(row["text"], first_number=4, finish_reason=row["finish_reason"])
    written += len(parsed.tasks)
    prompt = row["request"]["messages"][0]["content"]
    copied += [task for task in parsed.tasks
               if question_text(task) in seed_texts and task.instruction in prompt]
print(f"{len(copied)} of {written} tasks are a seed that was shown, word for word, such as")
print(f"  {copied[1].instruction}\n\nthree of those kept:\n")
for task in random.Random(0).sample(real_tasks, 3):
    print(f"instruction {task.instruction}\ninput       {task.input or '-'}\noutput      {task.output}\n")

# %% [markdown] lang="ko"
# 작은 교사는 새로 쓰는 대신 **보여 준 씨앗을 자주 그대로 베낍니다.** 그래서 필터에 씨앗을 먼저 넣어 두는 것이 중요합니다. 남은 과제는 어떤가요? 위의 셋은 겉만 멀쩡하고, 그대로 가르칠 만한 것이 없습니다. 필터는 뜻을 모릅니다.
# 첫머리의 Gemma는 이 120개와 씨앗 175개로 학습했습니다. 응답의 모양은 배웠지만 내용은 배우지 못했습니다. 실제로 쓸 데이터라면 교사부터 커야 합니다.

# %% [markdown] lang="en" of="2357fa72"
# The small teacher often **copies a seed it was shown** (such as "Could you shorten my script to five minutes?"); so it matters that the filter holds the seeds from the start. And of the three that were kept, well formed as they are, none is fit for teaching: the filter knows no meaning. ("Classify today's schedule", answered "schedules are work, work, study, play, ..."; "Answer the next sentence", about some film; "Let us all walk slowly today", answered "propositive sentence".)
# The Gemma at the beginning was tuned on these 120 and the 175 seeds: it learned the manner of answering and no content. For data to be used, begin with a larger teacher.

# %% [markdown] lang="ko"
# ## 6. 뒤에서 일하는 것들
#
# 이 절은 건너뛰어도 됩니다. 교사에게 돈과 시간을 쓸 때 필요한 장치입니다.
#
# **일지**(journal). 응답은 여러분이 보기 전에 먼저 `journal.jsonl`에 적힙니다. 같은 요청에는 일지가 답하므로, 커널이 죽어도 다시 실행하면 이어지고 받은 응답에 두 번 돈을 내지 않습니다. 다만 죽는 순간 **오가던 요청**은 다시 청구될 수 있습니다.
#
# **계획**(plan). 보내기 전에 몇 번 묻고 얼마가 들지 계산합니다. 아무에게도 묻지 않으니 공짜입니다.

# %% [markdown] lang="en" of="41f64c99"
# ## 6. What works behind the scenes
#
# You may skip this section until a teacher costs you money.
#
# **Journal.** A reply is written to `journal.jsonl` before you see it. The same request is answered from there, so after a crash you go on where it stopped and pay for no reply twice. But a request **in flight** when the kernel died may be billed again.
#
# **Plan.** How often will you ask, and at what cost? A plan asks nobody and is free.

# %%
first = list(islice(generation_requests(seeds, seed=spec.seed), 5))
other = list(islice(generation_requests(seeds, seed=spec.seed + 1), 5))
print("five requests of section 5 ", teacher.plan(first))
print("five that nobody has asked ", teacher.plan(other))
before = len(teacher.journal)
assert all(reply.cached for reply in teacher.complete(first))
print(f"{before:,} replies in the journal, and as many after asking again: {len(teacher.journal):,}")

# %% [markdown] lang="ko"
# 첫 줄은 모두 일지가 답하므로 0번 묻습니다. 실제 교사라면 계획에 요금도 나오고, `course.llm("teacher", ..., budget=2.0)`이라고 쓰면 2달러를 넘기 전에 멈춥니다. 다른 교사와 절반 값의 Batch API는 [colab_guide](../../colab_guide.ko.md) 5절에 있습니다.
#
# **봉인**(seal). 5절에서 `course.store.seal`이 작업 폴더를 복사하고 파일마다 체크섬(내용에서 계산한 지문)을 적었습니다. Colab에서는 Drive에 놓입니다. 다음 노트북은 봉인한 것만 읽고, 한 글자라도 달라졌으면 멈춥니다.

# %% [markdown] lang="en" of="8395d532"
# The first line takes no calls: the journal has those replies. With a real teacher the plan shows a price, and `course.llm("teacher", ..., budget=2.0)` stops before two dollars are passed. Other teachers, and the Batch API at half the price, are in section 5 of the [colab_guide](../../colab_guide.md).
#
# **Seal.** In section 5 `course.store.seal` copied the working folder, with a checksum (a fingerprint of the content) for each file; on Colab to Drive. The next notebook reads only the copy, and stops if a single letter has changed.

# %%
folder = course.artefact("preprocess")  # checks every file against its checksum
for path in sorted(folder.iterdir()):
    print(f"{path.stat().st_size:>12,} bytes  {path.name}")

# %% [markdown] lang="ko"
# ## 7. 이제 가진 것
#
# - `tasks.jsonl`: 걸러 낸 한국어 지시 데이터, 한 줄에 과제 하나. 02가 이것으로 학습합니다.
# - `funnel.json`: 무엇을 왜 버렸는지 빠짐없이 센 것. 03의 보고서에 실립니다.
# - `journal.jsonl`: 교사의 응답 모두. 지우지 마세요. 이것만 있으면 데이터를 다시 만들 수 있습니다.
#
# 데이터를 남에게 건넬 때는 `course_utils.sources.share`의 `dataset_card`로 **데이터 카드**를 함께 쓰고, 교사 모델의 약관부터 확인하세요. 응답으로 다른 모델을 학습하지 못하게 하는 곳도 있습니다.
#
# 다음은 [02 학습](02_train.ipynb)입니다. 이 과제들이 토큰이 되고, 그 가운데 **어느 토큰을 가르칠지** 정합니다. 내 자료에서 데이터를 만들려면 [06 내 자료](06_own_documents.ipynb)로 가세요.

# %% [markdown] lang="en" of="8efffbe0"
# ## 7. What you have now
#
# - `tasks.jsonl`: filtered Korean instruction data, one task a line. 02 trains on it.
# - `funnel.json`: a complete count of what was thrown away, and why. It goes into the report of 03.
# - `journal.jsonl`: every reply of the teacher. Keep it: it can make the data again.
#
# When you hand data on, add a **data card** (`dataset_card` from `course_utils.sources.share`). Read the teacher's terms first: some forbid training other models on its replies.
#
# Next is [02 Train](02_train.ipynb): the tasks become tokens, and you decide **which of them to teach**. For data from your own documents, see [06 Own documents](06_own_documents.ipynb).
