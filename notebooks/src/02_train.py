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
# # 02 학습: 어느 토큰을 가르칠 것인가
#
# 노트북 01에서 지시 데이터를 얻었습니다. 이제 베이스 모델, 곧 글을 이어 쓰는 법만 배운 모델이 지시를 따르도록 **미세조정**(fine-tuning)합니다.
# 학습은 라이브러리가 거의 다 해 줍니다. 사람이 정해야 하는 것은 하나, **어느 토큰에서 배우게 할 것인가**입니다. 토큰(token)은 모델이 글을 읽고 쓰는 조각입니다.
# 배우지 않을 토큰을 가리는 이 일을 마스킹(masking)이라 부르고, 여기서 직접 코드로 써 보고 맞는지 증명합니다.
#
# 끝까지 가면 이런 것이 손에 남습니다.
#
# - 과제 하나가 글, 토큰, 정답(label), 배치로 바뀌는 과정을 직접 짠 코드(TRL 라이브러리가 만든 정답과 견주어 확인합니다)
# - 이 데이터로 학습한 LoRA 어댑터(adapter)와 그 기록 `log.json`, `result.json`
# - 학습 전과 후의 응답, 그리고 마스크가 얼마나 중요한지 잰 표
#
# ```text
# 씨앗 과제 ──▶ [01 전처리] ──▶ 지시 데이터 ──▶ [02 학습] ──▶ LoRA 어댑터 ──▶ [03 평가] ──▶ 보고서
# ```
#
# 아래 셀을 실행하면 카드가 나옵니다. 어디서 실행되는지, 어떤 베이스 모델을 쓰는지, 결과가 어디에 쌓이는지 먼저 읽어 보세요.

# %% [markdown] lang="en" of="acf9f2e4"
# # 02 Train: which tokens to teach
#
# Notebook 01 left you with instruction data. Now **fine-tune** a base model, one that has only learned to continue text, until
# it follows instructions. Libraries do nearly all of the training. One decision is yours: **which tokens the model is to learn
# from**. Tokens are the pieces in which a model reads and writes. Hiding those that it should not learn is called masking;
# here you write it yourself and prove it right.
#
# At the end you will have
#
# - your own code from task to text, tokens, labels and batch, checked against the labels of the TRL library
# - a LoRA adapter trained on your data, with its record in `log.json` and `result.json`
# - replies from before and after training, and a table of what the mask is worth
#
# ```text
# seed tasks ──▶ [01 preprocess] ──▶ instruction data ──▶ [02 train] ──▶ LoRA adapter ──▶ [03 evaluate] ──▶ report
# ```
#
# Run the cell below and read its card first: where this runs, which base model it uses, where results go.

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
# Base model 줄에 `assets/tiny-gemma-ko`가 보인다면, 이 강의가 직접 사전학습(pretraining)한 아주 작은 Gemma입니다. 구조는 진짜 Gemma와 같고 크기만 작아서
# 노트북 컴퓨터의 CPU에서 몇 분이면 배웁니다. 아는 세계도 그만큼 작습니다. 여기서 나온 정답률을 진짜 모델의 실력으로 읽지는 마세요.
#
# 시작하기 전에, 앞선 학습이 얼마나 걸렸는지 봅니다.

# %% [markdown] lang="en" of="b2c4fbc9"
# If the card's base model is `assets/tiny-gemma-ko`, it is a very small Gemma that this course pretrained itself. It is built
# like the real Gemma and differs only in size, so it learns in minutes on a laptop's CPU. The world it knows is just as small:
# do not read its scores as those of a real model.
#
# Before you start: how long did the last training take?

# %%
import json

from course_utils import CourseError

try:
    last = json.loads((course.artefact("train") / "result.json").read_text(encoding="utf-8"))
    print("{rows:,} rows, {steps:,} steps, {tokens:,} tokens, {seconds:.0f} s".format(**last))
except CourseError as problem:
    print(f"No earlier training to learn from. {problem}")

# %% [markdown] lang="ko"
# ## 1. 봉인된 데이터에서 시작하기
#
# 01에서 봉인한 과제를 꺼냅니다. 아직 만들지 않았다면 함께 배포한 견본을 씁니다. 어느 쪽인지 셀이 알려 줍니다.
# 평가에 쓸 문제는 따로 떼어 두었습니다(held-out). 한 문제라도 겹치면 03의 숫자는 하나도 믿을 수 없게 되므로, 짐작하지 않고 확인합니다.
#
# 나중에 어느 절부터 다시 시작하든, 이 절까지만 먼저 실행하면 됩니다.

# %% [markdown] lang="en" of="2e1bf62b"
# ## 1. Start from sealed data
#
# Take the tasks that 01 sealed. If there are none yet, a sample that comes with the course stands in; the cell says which.
# The tasks for evaluation are held out. If a single one were in both, no number of 03 could be trusted. So we check.
#
# Whatever section you want to start from later, run this one first.

# %%
tasks, heldout = course.training_tasks(), course.heldout()
task = next((task for task in tasks if task.input), tasks[0])  # the example of sections 2 and 3
overlap = {(t.instruction, t.input) for t in tasks} & {(t.instruction, t.input) for t in heldout}
print(f"{len(tasks):,} tasks to train on, {len(heldout)} held out, {len(overlap)} in both")
assert not overlap

print("\ninstruction ", task.instruction)
print("input       ", task.input or "-")
print("output      ", task.output)

families = {}
for question in heldout:
    families.setdefault(question.meta["family"], []).append(question)
each = max(1, 6 // len(families))
questions = [question for family in families.values() for question in family[:each]]

# %% [markdown] lang="ko"
# ## 2. 과제 하나가 글이 되기까지
#
# 무엇을 어떻게 학습할지는 모두 **레시피**(recipe)에 적혀 있습니다. 노트북 컴퓨터에서 돌리든 L4에서 돌리든, 바뀌는 것은 이 파일뿐입니다.

# %% [markdown] lang="en" of="82787c5c"
# ## 2. From a task to text
#
# What is trained, and how, is all in the **recipe**. Laptop or L4, this file is the only thing that changes.

# %%
import dataclasses

for name, value in dataclasses.asdict(course.recipe.train).items():
    print(f"{name:26}{', '.join(value) if isinstance(value, tuple) else value}")

# %% [markdown] lang="ko"
# 지금은 세 줄만 보면 됩니다. `template`은 과제를 글로 펴는 틀, `max_length`는 그 글의 최대 토큰 수, `lora_r`은 5절에서 만날 어댑터의 크기입니다.
# (`attention`은 어텐션을 무엇으로 계산할지입니다. `sdpa`는 PyTorch에 들어 있는 구현이고, `auto`라면 더 빠른 구현이 **이미 설치되어 있을 때만** 그것을 씁니다. 결과는 같고 속도만 다릅니다.)
#
# 모델은 칸 셋을 따로 읽지 못하고, 이어진 글 하나만 읽습니다. 같은 과제를 틀 세 가지로 펴 봅니다. `⟨…⟩`가 응답이 들어갈 자리입니다.

# %% [markdown] lang="en" of="ab2bbf23"
# Three lines matter now: `template` lays a task out as text, `max_length` is the most tokens that text may have, and `lora_r`
# is the size of the adapter of section 5. (`attention` says what computes attention: `sdpa` is PyTorch's own, and `auto` takes
# a faster one only where it **is installed already**. Results are the same, only the speed differs.)
#
# A model does not see fields, only one string of text. Here is the same task in three layouts. The response goes where `⟨…⟩` is.

# %%
from course_utils.inference import load_tokenizer
from course_utils.prompts import get_template

tokenizer = load_tokenizer(course.base_model)
for name in ("alpaca-ko", "koalpaca", "chat"):
    template = get_template(name, tokenizer)
    end = (template.end or tokenizer.eos_token).strip()
    print(f"----- {name}\n{template.render(task)}⟨…⟩{end}\n")

# %% [markdown] lang="ko"
# 첫째는 Alpaca의 틀을 우리말로 옮긴 것, 둘째는 KoAlpaca의 틀, 셋째는 모델 자신의 대화 틀(chat template)입니다. 무엇을 고를지는 대개 베이스 모델이 정해 줍니다.
#
# | 틀 | 이럴 때 씁니다 |
# |---|---|
# | `chat` | 대화 틀이 있는 모델(gemma-2b-it). 서빙 도구도 같은 틀을 쓰므로, 있으면 이것을 따릅니다 |
# | `koalpaca` | 대화를 모르는 한국어 베이스(Polyglot-Ko). 고정된 문구가 짧습니다 |
# | `alpaca-ko` | 한국어 베이스에 지시문과 입력이 무엇인지 문장으로 풀어 알려 줄 때 |
# | `alpaca` | 영어 데이터로 Alpaca를 그대로 재현할 때 |
#
# 무엇을 고르든 **학습할 때와 쓸 때 같은 틀**이어야 합니다. 그리고 끝을 보세요. 대화 틀은 `<end_of_turn>`으로, 나머지는 `<eos>`로 끝납니다.
# **이 끝 표시까지 가르쳐야** 모델이 멈출 줄 압니다. 대화 틀로 학습하면서 `<eos>`만 가르치면, 모델은 `<end_of_turn>`을 쓰는 법을 배우지 못합니다.
#
# 대화 틀은 손으로 옮겨 적지 않고 토크나이저(tokenizer), 곧 글을 토큰으로 바꾸는 도구에서 끌어냅니다. 그러니 토크나이저가 직접 만든 글과 글자 하나까지 같아야 합니다.

# %% [markdown] lang="en" of="15161fa6"
# The first is Alpaca's in Korean, the second KoAlpaca's, the third the model's own chat template. Which one to use depends
# mostly on the base model.
#
# | template | when |
# |---|---|
# | `chat` | the model has a chat template (gemma-2b-it). The tools that serve it use it too, so follow it where there is one |
# | `koalpaca` | a Korean base model that knows no conversation (Polyglot-Ko). Its fixed text is short |
# | `alpaca-ko` | a Korean base model that is to be told in sentences what instruction and input are |
# | `alpaca` | English data, to reproduce Alpaca as it was |
#
# Whichever it is, **train and use the model with the same one**. And look at the ends: the chat template closes with
# `<end_of_turn>`, the others with `<eos>`. **Unless this end is trained as well**, the model never learns to stop; and if the chat
# template is trained with `<eos>` alone, it never learns to write `<end_of_turn>`.
#
# The chat layout is not typed in but derived from the tokenizer, the tool that turns text into tokens. So it must equal, to
# the letter, what the tokenizer itself writes.

# %%
template = get_template("chat", tokenizer)
text = f"{task.instruction}\n\n{task.input}" if task.input else task.instruction
turns = [{"role": "user", "content": text}, {"role": "assistant", "content": task.output}]
whole = tokenizer.apply_chat_template(turns, tokenize=False)
assert template.render(task) + task.output + template.end == whole
print(f"equal, {len(whole)} characters; the response ends with {template.end!r}")

# %% [markdown] lang="ko"
# 이제 글을 토큰으로 자릅니다. 글의 첫머리를 알리는 BOS(`<bos>`) 토큰은 **꼭 하나** 있어야 합니다. (글의 끝을 알리는 짝은 EOS, 곧 `<eos>`입니다.)
# BOS가 둘이면 모델이 본 적 없는 모양이 되고, 없으면 진짜 Gemma는 엉뚱한 글을 씁니다. 토크나이저의 기본값에 맡기면 몇 개가 붙는지 틀마다 세어 봅니다.

# %% [markdown] lang="en" of="670d848c"
# Now cut text into tokens. The token that begins a text, BOS (`<bos>`), must be there **exactly once**. (Its counterpart at the
# end is EOS, `<eos>`.) With two BOS the model sees something it has never seen; with none, the real Gemma writes nonsense. How
# many do a tokenizer's defaults give each template?

# %%
from course_utils.collator import encode_prompts
from course_utils.prompts import TEMPLATES

bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
print(f"{'':18}BOS by default   in this course   tokens")
for name in (*TEMPLATES, "chat"):
    prompt = get_template(name, tokenizer).render(task)
    by_default = tokenizer(prompt)["input_ids"].count(bos)
    [ids] = encode_prompts(tokenizer, [prompt])
    print(f"{name:18}{by_default:14}{ids.count(bos):17}{len(ids):9}")
    assert ids.count(bos) == 1 or bos in (None, eos)

# %% [markdown] lang="ko"
# 기본값은 틀에 따라, 모델에 따라 달라집니다. 대화 틀에는 `<bos>`가 글자로 이미 적혀 있는데 토크나이저가 하나를 더 붙이기도 합니다.
# 이 강의에서는 늘 하나입니다. 맨 오른쪽은 프롬프트의 길이입니다. 과제는 같으니 차이는 모두 틀의 문구이고, 그만큼이 과제마다 되풀이됩니다.
#
# 이제 토큰을 눈으로 봅니다. `▁`는 공백, `⏎`는 줄바꿈입니다.

# %% [markdown] lang="en" of="f05152ea"
# The default depends on the template and on the model; a chat template spells `<bos>` out, and some tokenizers add another.
# In this course it is always one. On the right is the prompt's length: the task is the same, so all of the difference is the
# template's fixed text, paid for again in every row.
#
# Now look at the tokens themselves: `▁` is a space, `⏎` a line break.

# %%
[ids] = encode_prompts(tokenizer, [template.render(task)])
pieces = [piece.replace("\n", "⏎") for piece in tokenizer.convert_ids_to_tokens(ids)]
print(" | ".join(pieces))
text = task.instruction + task.input
count = len(tokenizer(text, add_special_tokens=False)["input_ids"])
print(f"\n{len(text)} characters of Korean are {count} tokens: {len(text) / count:.2f} each")

# %% [markdown] lang="ko"
# 자주 나오는 말은 한 토큰이 되고 드문 말은 음절로 쪼개집니다. 어휘에 없는 음절은 `<0xEB>` 같은 **바이트**로 더 쪼개집니다(한글 한 음절은 바이트 셋입니다).
# 한 토큰에 담기는 글자가 많을수록 같은 `max_length`에 긴 글이 들어갑니다.

# %% [markdown] lang="en" of="b1d68bc6"
# Frequent words are one token, rare ones fall apart into syllables, and a syllable that the vocabulary lacks into **bytes** such
# as `<0xEB>` (three for a Korean syllable). The more characters a token holds, the longer the text that fits into the same
# `max_length`.

# %% [markdown] lang="ko"
# ## 3. 무엇을 가르칠 것인가: 마스킹
#
# 언어 모델은 토큰마다 **다음 토큰**을 맞히며 배웁니다. 과제 하나를 토큰으로 바꾼 것을 행(row)이라 하고, 그 정답을 `labels`에 적습니다.
# 정답은 입력과 **같은 자리**에 적습니다. 한 칸 밀어 다음 토큰과 짝짓는 일은 모델이 합니다.
#
# 이 절에서는 한 행의 정답을 초안부터 고쳐 가며 써 봅니다. 끝에 가면 아래 그림처럼 됩니다. 프롬프트는 읽기만 하고, 응답과 끝 표시만 배웁니다.

# %% [markdown] lang="en" of="59b73b9a"
# ## 3. What to teach: masking
#
# A language model learns by predicting the **next token** at every position. A task turned into tokens is a row, and its right
# answers are the `labels`. They stand at the **same positions** as the input: the model itself shifts them by one.
#
# In this section you write the labels of one row, draft by draft. In the end they look like this: the prompt is only read; the
# response and its end are learned.

# %%
from IPython.display import Image

from course_utils import REPO

Image(filename=REPO / "assets" / "figures" / "masking.png", width=820)

# %% [markdown] lang="ko"
# 가장 단순한 방법부터 써 봅시다. 입력을 그대로 정답으로 쓰는 것입니다.

# %% [markdown] lang="en" of="4b709ecf"
# Begin with the simplest way: use the input itself as labels.

# %%
from course_utils.collator import IGNORE_INDEX, show_mask
from course_utils.inference import load_tokenizer
from course_utils.prompts import get_template

spec, tokenizer = course.recipe.train, load_tokenizer(course.base_model)
template = get_template(spec.template, tokenizer)
prompt, end = template.render(task), template.end or tokenizer.eos_token


def tokens(text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


ids = tokens(prompt + task.output + end)
print(show_mask(tokenizer, {"input_ids": ids, "labels": ids}))

# %% [markdown] lang="ko"
# 모두 `trained`입니다. 이대로면 모델은 **사용자의 질문을 지어내는 법**까지 배웁니다. 질문이 응답보다 길수록 배우는 힘의 대부분이 그리로 갑니다.
#
# 응답만 가르치려면 프롬프트 자리의 정답을 `-100`으로 지웁니다. Alpaca의 학습 코드는 이렇게 합니다. 프롬프트와 응답을 **이어서** 토큰으로 바꾸고,
# 프롬프트만 **한 번 더** 토큰으로 바꿔 그 개수만큼 가립니다. 첫째 초안으로 삼아 봅니다.

# %% [markdown] lang="en" of="0420e8c1"
# Everything is `trained`. This way the model also learns **to make up the user's questions**, and the longer they are
# compared with the responses, the more of its effort goes there.
#
# To teach the response only, put `-100` in place of the prompt's labels. Alpaca's training code does it like this: tokenise
# prompt and response **together**, tokenise the prompt **once more** by itself, and mask as many tokens as that gives. Take it
# as draft 1.

# %%
def mask_by_length(prompt, response):
    """Draft 1, Alpaca's way: the prompt's length is that of the prompt tokenised alone."""
    ids, length = tokens(prompt + response), len(tokens(prompt))
    return {"input_ids": ids, "labels": [IGNORE_INDEX] * length + ids[length:]}


print(show_mask(tokenizer, mask_by_length(prompt, task.output + end)))

# %% [markdown] lang="ko"
# 그럴듯합니다. 끝 표시도 `trained` 쪽에 있습니다. 하지만 이 초안에는 가정이 하나 숨어 있습니다. 따로 자른 프롬프트의 토큰이 이어서 자른 토큰의 앞부분과 **똑같다**는 가정입니다.
# 토큰이 경계를 넘어 붙으면 어긋납니다. 우리 틀은 괜찮은지, 그리고 `### 답변:` 뒤에 누군가 공백 하나를 더 써 두었다면 어떤지 모든 과제로 세어 봅니다.

# %% [markdown] lang="en" of="fe64e6cd"
# It looks right: even the end is `trained`. But this draft makes an assumption: that the tokens of the prompt alone
# are **exactly** those with which prompt and response together begin. Where a token grows across the border, they are not. Count
# over all tasks how often that happens, for our template and for a prompt where somebody left one space after `### 답변:`.

# %%
def border_moves(prompt, response):
    """Whether the prompt alone has other tokens than the beginning of prompt and response."""
    alone = tokens(prompt)
    return tokens(prompt + response)[: len(alone)] != alone


asked = "### 답변: "  # the end of a prompt, with the space that invites trouble
moved = [t.output for t in tasks if border_moves(asked, t.output + end)]
luck = sum(border_moves(template.render(t), t.output + end) for t in tasks)
print(f"this recipe's template, {template.name:12} wrong for {luck:6,} of {len(tasks):,} tasks")
print(f"a prompt that ends in {asked!r:14} wrong for {len(moved):6,} of {len(tasks):,} tasks")

# %% [markdown] lang="ko"
# 우리 틀이 무사한 것은 줄바꿈이나 쌍점으로 끝난다는 **우연** 덕분입니다. 공백 하나에 많은 과제의 마스크가 소리 없이 틀어집니다. 한 과제를 펼쳐 봅니다.
# 한 줄이 토큰 하나이고, 숫자는 토큰의 번호입니다.

# %% [markdown] lang="en" of="0c699f79"
# Our template is safe **by luck**: it happens to end in a line break or a colon. With one space, the masks of many tasks are
# silently wrong. Here is one of them: one token a line, with its id.

# %%
answer = next(iter(moved), "식사하셨어요?") + end
row = mask_by_length(asked, answer)
print("together\n" + show_mask(tokenizer, row, each_token=True))
print("\nthe prompt alone\n" + " | ".join(map(tokenizer.decode, tokens(asked))))
hidden = [i for i, label in zip(*row.values(), strict=True) if label == IGNORE_INDEX]
lost = tokenizer.decode(hidden)[len(asked) :]
print(f"\nmasked although it belongs to the response: {lost!r}")
assert not moved or hidden != tokens(asked)

# %% [markdown] lang="ko"
# 공백이 응답의 첫머리와 한 토큰으로 붙었고, 그 토큰이 통째로 가려졌습니다. 모델은 응답을 **시작하는 법**을 배우지 못합니다. 오류도 경고도 없습니다.
#
# 둘째 초안은 두 조각을 **따로** 토큰으로 바꿔 이어 붙입니다. 경계를 찾을 필요가 없습니다. 이미 알고 있으니까요.

# %% [markdown] lang="en" of="6e6d6cef"
# The space has merged with the beginning of the response, and that token is masked: the model does not learn **how to begin**.
# No error, no warning.
#
# Draft 2 tokenises the two segments **separately** and joins them. There is no border to look for: you know it.

# %%
def mask_by_segments(prompt, response):
    """Draft 2: each segment tokenised once, so where one ends and the other begins is known."""
    asked, answered = tokens(prompt), tokens(response)
    return {"input_ids": asked + answered, "labels": [IGNORE_INDEX] * len(asked) + answered}


print(show_mask(tokenizer, mask_by_segments(asked, answer), each_token=True))
for t in tasks:
    labels = mask_by_segments(asked, t.output + end)["labels"]
    trained = [label for label in labels if label != IGNORE_INDEX]
    assert tokenizer.decode(trained) == t.output + end
print(f"\nthe response and its end are trained, whole, in all {len(tasks):,} rows")

# %% [markdown] lang="ko"
# 프롬프트를 따로 잘랐으므로, 그 토큰은 나중에 응답을 만들 때(추론) 모델이 보게 될 토큰과 똑같습니다. 학습과 추론의 토큰이 같도록, 조각으로 나누어 자르는 것입니다.
# 토큰 하나가 얼마나 큰 차이를 내는지는 6절에서 숫자로 봅니다.
#
# 그런데 왜 하필 -100일까요? 손실(loss)은 예측이 정답에서 얼마나 빗나갔는지 재는 수이고, 학습은 이 수를 줄이는 일입니다.
# PyTorch의 교차 엔트로피 손실(cross-entropy loss)은 정답이 -100인 자리를 **없는 자리**로 치기로 약속해 두었습니다. 낱말이 셋뿐인 세계에서 손으로 셈해 봅니다.

# %% [markdown] lang="en" of="f319b663"
# The prompt was cut by itself, so these are the very tokens the model will see when it is asked later. Segments let training and inference
# see the same tokens. Section 6 shows in numbers how much one token matters.
#
# But why -100? The loss is a number that says how far predictions are from the right answers, and training makes it smaller. By
# convention PyTorch's cross-entropy loss treats the label -100 as **a position that is not there**. Work it out by hand in a
# world of three words.

# %%
import torch
from torch.nn.functional import cross_entropy

scores = torch.tensor([[2.0, 0.5, -1.0], [0.1, 1.5, 0.3]])  # two positions, three words
two = cross_entropy(scores, torch.tensor([0, 1]))
by_hand = -sum(torch.log_softmax(scores, dim=1)[i, word] for i, word in enumerate([0, 1])) / 2
print(f"two tokens                  {two:.4f}   by hand {by_hand:.4f}")

scores = torch.cat([scores, torch.tensor([[-5.0, -5.0, 5.0]])])  # a third one, badly predicted
scores.requires_grad_()
masked = cross_entropy(scores, torch.tensor([0, 1, IGNORE_INDEX]))
trained = cross_entropy(scores, torch.tensor([0, 1, 0]))
print(f"a third with label -100     {masked:.4f}")
print(f"a third with label 0        {trained:.4f}")
masked.backward()
print("gradients of the third with label -100 ", scores.grad[2].tolist())
assert torch.isclose(two, by_hand) and masked == two and trained > two
assert not scores.grad[2].any() and scores.grad[:2].all()

# %% [markdown] lang="ko"
# 엉뚱하게 예측한 셋째 자리도 -100이면 손실을 조금도 바꾸지 않습니다. 합에서도 빠지고, 나누는 개수에서도 빠지고, 기울기(gradient)도 0입니다. 나머지 자리의 손실은 그대로입니다.
# 기울기는 가중치를 어느 쪽으로 얼마나 고칠지 알려 주는 값이니, 0이면 그 자리에서는 아무것도 배우지 않습니다.
#
# 그렇다면 **모든** 자리가 -100인 행은 어떻게 될까요? 억지스러운 물음이 아닙니다. 긴 글을 `max_length`에서 자르면 응답이 통째로 잘려 나갈 수 있습니다.
# 길이를 줄여 가며 세어 봅니다.

# %% [markdown] lang="en" of="5c520cd2"
# A third position, however badly predicted, does not change the loss at all when its label is -100: it is left out of the sum and of
# the number that the sum is divided by, and its gradient is 0. The loss of the others stays as it is. A gradient says which way
# and how far to change the weights, so at 0 nothing is learned from that position.
#
# Then what about a row where **every** label is -100? This is not far-fetched: cut long texts at `max_length`, and a response may be
# cut away entirely. Count as the limit gets smaller.

# %%
full = [mask_by_segments(template.render(t), t.output + end) for t in tasks]
lengths = sorted(len(row["labels"]) for row in full)
print("max_length   whole     cut   nothing left to train")
for limit in (lengths[-1], lengths[len(full) * 3 // 4], lengths[len(full) // 2]):
    cut = sum(len(row["labels"]) > limit for row in full)
    empty = sum(set(row["labels"][:limit]) == {IGNORE_INDEX} for row in full)
    print(f"{limit:10} {len(full) - cut:7,} {cut - empty:7,} {empty:7,}")

nothing = cross_entropy(torch.zeros(4, 3), torch.full((4,), IGNORE_INDEX))
print(f"\nthe loss of a row with nothing left to train: {nothing}")
assert nothing.isnan()

# %% [markdown] lang="ko"
# 0을 0으로 나누어 `nan`(수가 아님)이 되었습니다. 라이브러리는 흔히 이것을 0으로 적거나 그런 행을 말없이 지나칩니다. 우리 코드는 그런 행을 버리고, 몇 개를 버렸는지 셉니다.
#
# 이제 마지막 초안입니다. 조각으로 나누어 자르고, BOS는 한 번만 넣고, 끝 표시까지 가르치고, 정한 길이를 넘으면 자르고, 가르칠 것이 없으면 버립니다.
# 잘 썼다면 강의의 `encode_tasks`와 한 토큰도 다르지 않아야 합니다.

# %% [markdown] lang="en" of="0932bc6a"
# Zero divided by zero: `nan`, not a number. Libraries often write it down as 0, or pass over such rows without a word. Our code
# drops them and counts what it dropped.
#
# Now the final draft: by segments, BOS once, the end trained, cut at the limit, dropped where nothing is left to train. If it is
# right, not one token differs from the course's `encode_tasks`.

# %%
from course_utils.collator import encode_prompts, encode_tasks


def encode_draft(task, max_length):
    """The final draft; None where the prompt leaves no room for the response."""
    [asked] = encode_prompts(tokenizer, [template.render(task)])  # BOS exactly once, from section 2
    answered = tokens(task.output + end)
    ids, labels = asked + answered, [IGNORE_INDEX] * len(asked) + answered
    row = {"input_ids": ids[:max_length], "labels": labels[:max_length]}
    return row if len(asked) < max_length else None


for limit in (spec.max_length, lengths[len(full) // 2]):
    drafts = [encode_draft(t, limit) for t in tasks]
    rows, report = encode_tasks(tokenizer, tasks, template, limit)
    assert list(rows) == [row for row in drafts if row] and report.dropped == drafts.count(None)
    print(f"max_length {limit}: {report}")

# %% [markdown] lang="ko"
# 같습니다. 잘린(truncated) 것도 버린(dropped) 것도 이제 숫자로 보입니다. 첫 줄이 이 레시피의 것입니다. 가린 토큰이 가르친 토큰보다 얼마나 많은지도 보세요.
#
# 이 절을 마치기 전에 틀마다 두 가지 약속을 확인합니다. BOS는 하나, 마지막으로 가르치는 것은 그 틀의 끝 표시입니다.

# %% [markdown] lang="en" of="223bc6d7"
# They are equal, and what was truncated or dropped is now counted. The first line is this recipe's. See also how many more
# tokens are masked than trained.
#
# Before you leave this section, check two promises for every template: one BOS, and the last thing trained is that template's end.

# %%
from course_utils.collator import encode
from course_utils.prompts import TEMPLATES

bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
for name in (*TEMPLATES, "chat"):
    layout = get_template(name, tokenizer)
    row = encode(tokenizer, layout.render(task), task.output, 4096, end=layout.end)
    trained = [label for label in row["labels"] if label != IGNORE_INDEX]
    ending = layout.end or tokenizer.eos_token
    count = row["input_ids"].count(bos)
    print(f"{name:18}{count} BOS, {len(trained):3} tokens trained, the end is {ending!r}")
    assert tokenizer.decode(trained) == task.output + ending
    assert count == 1 or bos in (None, eos)

# %% [markdown] lang="ko"
# ## 4. 배치: 채우고, 이어 붙이고, 나누기
#
# 행 하나하나가 바르더라도, 여러 행을 한꺼번에 계산하려고 배치(batch)로 묶을 때 다시 틀릴 수 있습니다. 이 절에서는 어느 레시피에서든 강의에 딸린 작은 모델과 견본 과제 여덟 개로 실험합니다.
# 중간에 모델을 정말로 가르쳐 보는데, 작은 모델이면 몇 초로 충분하기 때문입니다. 틀은 `<eos>`로 끝나는 KoAlpaca의 것입니다.

# %% [markdown] lang="en" of="ed0100ff"
# ## 4. Batches: padding, packing, dividing
#
# Right rows can still go wrong when they are put together in a batch, to be computed at once. Whatever the recipe, this section
# experiments with the course's tiny model and eight tasks of its sample: on the way you really train it, which for the tiny one
# takes seconds. The template is KoAlpaca's, which ends with `<eos>`.

# %%
import torch

from course_utils import REPO
from course_utils.collator import IGNORE_INDEX, encode_tasks, show_mask
from course_utils.inference import generate, load_model
from course_utils.prompts import KOALPACA
from course_utils.tasks import read_tasks

TINY = "assets/tiny-gemma-ko"
model, tokenizer = load_model(TINY, dtype="float32", device="cpu")
sample = read_tasks(REPO / "assets" / "sample" / "preprocess" / "tasks.jsonl")
sample = sorted(sample, key=lambda t: len(t.instruction + t.input))[:800:100]
prompts = [KOALPACA.render(t) for t in sample]
rows = list(encode_tasks(tokenizer, sample, KOALPACA, 256)[0])
for t, row in zip(sample, rows, strict=True):
    print(f"{len(row['labels']):3} tokens   {t.instruction[:40]} -> {t.output}")

# %% [markdown] lang="ko"
# 길이가 제각각이라 짧은 행은 패딩(padding) 토큰으로 채워야 한 배치가 됩니다. 첫째 초안은 채운 다음, **패딩 토큰인 자리**를 모두 가립니다.
# 그림에서 `-`는 가린 프롬프트, `#`은 가르치는 토큰, `.`은 모델에게 보이지 않는 자리입니다.

# %% [markdown] lang="en" of="1924226e"
# Their lengths differ, so the short ones are padded to make one batch. Draft 1 fills them up with the padding token, and then masks
# **every such token**. In the picture `-` is the masked prompt, `#` what is trained, `.` what the model does not see.

# %%
def collate_by_id(rows, pad):
    """Draft 1: fill up with pad; what is pad is neither seen nor trained."""
    width = max(len(row["labels"]) for row in rows)
    ids = torch.tensor([row["input_ids"] + [pad] * (width - len(row["labels"])) for row in rows])
    labels = [row["labels"] + [pad] * (width - len(row["labels"])) for row in rows]
    labels = torch.tensor(labels).masked_fill(ids == pad, IGNORE_INDEX)
    return {"input_ids": ids, "attention_mask": (ids != pad).long(), "labels": labels}


def picture(batch):
    marks = torch.where(batch["labels"] == IGNORE_INDEX, ord("-"), ord("#"))
    marks = torch.where(batch["attention_mask"] == 0, ord("."), marks)
    return "\n".join("".join(map(chr, line)) for line in marks)


print(picture(collate_by_id(rows, tokenizer.pad_token_id)))

# %% [markdown] lang="ko"
# 그림은 옳습니다. 하지만 Polyglot-Ko처럼 패딩 토큰이 없는 모델이 많고, 그럴 때 흔히 `pad = eos`로 둡니다. 같은 초안에 eos를 넣어 봅니다.

# %% [markdown] lang="en" of="f2db5ad6"
# The picture is right. But many models, Polyglot-Ko among them, have no padding token, and then people set `pad = eos`. Give the same
# draft eos.

# %%
eos = tokenizer.eos_token_id
by_id = collate_by_id(rows, eos)
print(picture(by_id))
ends, left = sum(row["labels"][-1] == eos for row in rows), int((by_id["labels"] == eos).sum())
print(f"\nrows that end with a trained eos: {ends}; in this batch: {left}")
assert ends == len(rows) and left == 0

# %% [markdown] lang="ko"
# 행마다 마지막 `#` 하나가 사라졌습니다. 진짜 끝 표시입니다. 이 여덟 토큰이 빠지면 무엇이 달라질까요?
# 마지막 초안을 쓴 다음, 두 배치로 정말 가르쳐 봅니다. 마지막 초안은 번호를 보지 않고 **길이**만 봅니다. 무엇을 채웠는지는 채운 사람이 알기 때문입니다.

# %% [markdown] lang="en" of="22e932cd"
# One `#` is gone from the end of each row: the real end. What do these eight tokens change? Write the final draft, then really train
# with both batches. The final draft looks at **lengths** only, never at ids: whoever did the padding knows what is padding.

# %%
from course_utils.collator import MaskingCollator


def collate(rows, pad, multiple=8):
    """The final draft: masks follow the lengths; the width is a multiple that GPUs like."""
    longest = max(len(row["labels"]) for row in rows)
    width = -(-longest // multiple) * multiple  # rounded up
    batch = {"input_ids": [], "attention_mask": [], "labels": []}
    for row in rows:
        length, padding = len(row["labels"]), width - len(row["labels"])
        batch["input_ids"].append(row["input_ids"] + [pad] * padding)
        batch["attention_mask"].append([1] * length + [0] * padding)
        batch["labels"].append(row["labels"] + [IGNORE_INDEX] * padding)
    return {name: torch.tensor(values) for name, values in batch.items()}


for pad in (tokenizer.pad_token_id, eos):
    ours, theirs = collate(rows, pad), MaskingCollator(pad)(rows)
    assert ours.keys() == theirs.keys() and all(ours[name].equal(theirs[name]) for name in ours)
print(f"equal to the course's collator, whatever the padding is\n{picture(ours)}")

# %% [markdown] lang="ko"
# 강의의 `MaskingCollator`와 같은 텐서가 나왔고, 이번에는 pad가 eos인데도 끝의 `#`이 그대로 있습니다. 이제 똑같은 모델 둘을 똑같이 20스텝(step)씩 가르칩니다.
# 스텝 하나는 가중치를 한 번 고치는 일입니다. 다른 것은 배치뿐입니다.

# %% [markdown] lang="en" of="51bece37"
# The tensors equal those of the course's `MaskingCollator`, and this time the last `#` is there although pad is eos. Now train two
# identical models in the same way, twenty steps each; each step changes the weights once. Only their batches differ.

# %%
def taught(batch):
    """A fresh tiny model after twenty steps on one batch, and its last loss."""
    model, _ = load_model(TINY, dtype="float32", device="cpu")
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4)
    for _ in range(20):
        optimizer.zero_grad()
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
    return model, loss.item()


for name, batch in {"masked by length": collate(rows, eos), "masked by id": by_id}.items():
    tuned, last = taught(batch)
    said = generate(tuned, tokenizer, prompts, max_new_tokens=24)
    stops = sum(reply.stopped for reply in said)
    print(f"{name}: loss {last:.2f}, {stops} of {len(said)} replies stop, {said[1].text!r}")
    assert 2 * stops < len(rows) if batch is by_id else stops == len(rows)

# %% [markdown] lang="ko"
# 손실은 둘 다 낮고 답도 배웠습니다. 그런데 한쪽은 **멈출 줄 모릅니다**. 끝 표시를 한 번도 배우지 못했으니, 어쩌다 멈춰도 우연입니다.
#
# 채우는 쪽도 중요합니다. 학습할 때는 오른쪽을 채우지만, 응답을 만들 때는 왼쪽을 채워야 프롬프트의 끝이 응답의 시작과 맞닿습니다.
# 하나씩 물었을 때와 한꺼번에 물었을 때 답이 같은지 봅니다. (아직 가르치지 않은 처음 모델에게 묻는 것이라 답은 엉뚱합니다. 같은지만 보세요.)

# %% [markdown] lang="en" of="824f9c3a"
# Both losses are low, and both models learned the answers. But one of them **does not know how to stop**: it was never once shown
# an end, and where it stops, it is by chance.
#
# Which side is padded matters, too. For training we pad on the right; to generate, padding goes to the left, so that every prompt
# ends where its reply begins. Does a batch get the same replies as one prompt at a time? (This is the model before any teaching,
# so its replies make no sense: look only at whether they are the same.)

# %%
from course_utils.collator import encode_prompts
from course_utils.inference import quiet, reply

alone = reply(model, tokenizer, prompts, max_new_tokens=12, batch_size=1)
left = reply(model, tokenizer, prompts, max_new_tokens=12)  # one batch, padded on the left

ids = encode_prompts(tokenizer, prompts)
batch = collate([{"input_ids": row, "labels": row} for row in ids], tokenizer.pad_token_id)
width = batch.pop("labels").shape[1]
with quiet():  # transformers would warn
    output = model.generate(**batch, max_new_tokens=12, do_sample=False)[:, width:]
right = [text.strip() for text in tokenizer.batch_decode(output, skip_special_tokens=True)]
for name, replies in {"left": left, "right": right}.items():
    same = sum(map(str.__eq__, alone, replies))
    print(f"padded on the {name:6}{same} of {len(alone)} replies as if asked alone, {replies[0]!r}")
assert left == alone and right != alone

# %% [markdown] lang="ko"
# 오른쪽을 채우면 모델은 빈칸 뒤에 글을 이어야 합니다.
#
# 채우는 대신 행을 한 줄로 **이어 붙이는**(packing) 방법도 있습니다. 낭비가 없지만, 행마다 위치 번호를 0부터 다시 매기지 않으면 앞 행의 글이 뒤 행의 문맥이 됩니다.

# %% [markdown] lang="en" of="97754db7"
# With padding on the right, the model has to go on after a gap.
#
# Instead of padding, rows can be **packed** into one long one. Nothing is wasted, but unless the positions begin at 0 again with
# every row, each row is read as if the ones before were its context.

# %%
@torch.no_grad()
def loss(**batch):
    return model(**batch, use_cache=False).loss.item()


packed = {
    name: torch.tensor([[token for row in rows for token in row[name]]])
    for name in ("input_ids", "labels")
}
positions = torch.cat([torch.arange(len(row["labels"])) for row in rows])[None]
padded, reset = loss(**collate(rows, eos)), loss(**packed, position_ids=positions)
run_on = loss(**packed)
print(f"a padded batch            {padded:.4f}")
print(f"packed, positions reset   {reset:.4f}")
print(f"packed, one long text     {run_on:.4f}")
assert abs(padded - reset) < 1e-4 < 0.05 < abs(padded - run_on)

# %% [markdown] lang="ko"
# 잘못은 이어 붙이기가 아니라 위치를 다시 매기지 않는 데 있습니다. 이때도 오류는 없고 손실만 조용히 달라집니다.
#
# 마지막 함정은 나눗셈입니다. 메모리가 모자라면 배치 하나를 여러 번에 나누어 계산하고, 기울기를 모았다가 가중치를 한 번만 고칩니다(기울기 누적, gradient accumulation). 그렇게 모으는 한 묶음을 **창**(window)이라 하겠습니다.
# 4행을 한 번에 계산하든, 2행씩 두 번이나 1행씩 네 번에 나누어 계산하든 결과는 같아야 합니다. 그런데 매번 평균을 내고 그 평균들을 다시 평균하면 달라집니다. 가르치는 토큰의 수가 행마다 다르기 때문입니다.

# %% [markdown] lang="en" of="6f76e381"
# Packing itself is fine; the mistake is not to reset the positions. Here too nothing raises an error; the loss is
# just quietly different.
#
# The last trap is a division. Where memory is short, a batch is computed in several parts, whose gradients are accumulated before
# the weights change once (gradient accumulation); call such a group a **window**. Whether 4 rows are computed at once, as 2 and 2,
# or as 1 four times, the result should be the same. Take the mean of each part and the mean of those means, and it is not, because
# rows have different numbers of trained tokens.

# %%
trained = [sum(label != IGNORE_INDEX for label in row["labels"]) for row in rows]
order = sorted(range(len(rows)), key=trained.__getitem__)[1::2]
window, total = [rows[i] for i in order], sum(trained[i] for i in order)
print("trained tokens a row", [trained[i] for i in order])
by_tokens = []
for size in (4, 2, 1):
    steps = [collate(window[i : i + size], eos) for i in range(0, 4, size)]
    means = sum(loss(**step) for step in steps) / len(steps)
    by_tokens.append(sum(loss(**step, num_items_in_batch=total) for step in steps))
    print(f"{len(steps)} x {size} rows: mean of means {means:.4f}, by tokens {by_tokens[-1]:.4f}")
assert max(by_tokens) - min(by_tokens) < 1e-4 and abs(means - by_tokens[0]) > 0.01

# %% [markdown] lang="ko"
# 오른쪽 칸은 모두 같습니다. 손실의 **합**을 모은 다음, 창 전체에서 가르치는 토큰의 수로 **한 번만** 나누었기 때문입니다. 요즘 Trainer는 `num_items_in_batch`로 이렇게 합니다.
# 왼쪽 칸처럼 나누면 짧은 응답의 토큰이 더 큰 몫을 차지합니다.
#
# 이제 우리 정답이 맞는지 남의 눈으로 확인합니다. TRL은 허깅페이스가 만든, 미세조정에 널리 쓰는 라이브러리입니다. 그 안의 `SFTTrainer`는 글이나 대화를 받으면 스스로 정답을 만듭니다.
# 같은 과제를 건네고 무엇을 만드는지 꺼내 봅니다. 학습은 하지 않으므로 모델은 모양만 갖춘 가장 작은 것이면 됩니다.

# %% [markdown] lang="en" of="cddb0f69"
# The column on the right is the same throughout: the **sums** of the losses are collected and divided **once**, by all trained tokens
# of the window. Today's Trainer does the same, through `num_items_in_batch`. With the division on the left, tokens of short responses
# weigh more.
#
# Now have our labels checked by somebody else. TRL is Hugging Face's widely used library for fine-tuning; its `SFTTrainer` makes
# labels of its own from texts or conversations. Hand it the same tasks and take out what it makes. Nothing is trained, so the
# smallest model of the right shape will do.

# %%
from tempfile import TemporaryDirectory

import datasets
from transformers import LlamaConfig, LlamaForCausalLM
from trl import SFTConfig, SFTTrainer

datasets.disable_progress_bars()
size = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
stub = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **size))


def trl_rows(examples, **options):
    """The rows that TRL would train on."""
    data, options = datasets.Dataset.from_list(examples), {"max_length": None, **options}
    with TemporaryDirectory() as folder, quiet():
        options = SFTConfig(folder, use_cpu=True, bf16=False, report_to="none", **options)
        trainer = SFTTrainer(stub, args=options, train_dataset=data, processing_class=tokenizer)
    data = trainer.train_dataset
    return [{"input_ids": row["input_ids"], "labels": row["labels"]} for row in data]

# %% [markdown] lang="ko"
# TRL에 건네는 모양은 세 가지입니다. 대화 전체(`messages`), 프롬프트와 응답으로 나눈 대화, 프롬프트와 응답으로 나눈 글.

# %% [markdown] lang="en" of="5eea97e6"
# Tasks can be handed over in three forms: a whole conversation (`messages`), a conversation in two parts, prompt and completion, and text
# in two parts.

# %%
from course_utils.prompts import get_template

chat, bos = get_template("chat", tokenizer), tokenizer.bos_token
users = ["\n\n".join(filter(None, (t.instruction, t.input))) for t in sample]
turns = [
    [{"role": "user", "content": user}, {"role": "assistant", "content": t.output}]
    for user, t in zip(users, sample, strict=True)
]
messages = [{"messages": turn} for turn in turns]
parts = [{"prompt": turn[:1], "completion": turn[1:]} for turn in turns]
texts = [{"prompt": bos + p, "completion": t.output} for p, t in zip(prompts, sample, strict=True)]

by_chat = list(encode_tasks(tokenizer, sample, chat, 1024)[0])
equal = {
    "messages, assistant_only_loss=True": (trl_rows(messages, assistant_only_loss=True), by_chat),
    "prompt and completion, messages": (trl_rows(parts), by_chat),
    "prompt and completion, text": (trl_rows(texts), rows),
}

# %% [markdown] lang="ko"
# 입력과 정답을 토큰 하나하나 견줍니다.

# %% [markdown] lang="en" of="8ea5d47b"
# Compare inputs and labels token for token.

# %%
for name, (theirs, ours) in equal.items():
    same = sum(a == b for a, b in zip(theirs, ours, strict=True))
    count = sum(len(row["labels"]) for row in ours)
    print(f"{name:36}{same} of {len(ours)} rows equal, {count} tokens")
    assert theirs == ours

# %% [markdown] lang="ko"
# 세 모양 모두 우리 것과 같습니다. 다만 **아무렇게나 건네도** 같은 것은 아닙니다. 조금만 다르게 건네면 오류 없이 다른 것을 배웁니다. 네 가지를 봅니다.

# %% [markdown] lang="en" of="cbda0d1d"
# All three equal ours. That does not hold for **everything** you hand over: do it a little differently, and something else is
# learned, without an error. Here are four ways.

# %%
import logging

logging.getLogger("trl").setLevel("ERROR")  # it warns of the last one; here you look for yourself
spaced = [{"prompt": bos + "### 답변: ", "completion": t.output} for t in sample]
closed = [{"prompt": chat.render(t), "completion": t.output + chat.end} for t in sample]
bare = [{"prompt": p, "completion": t.output} for p, t in zip(prompts, sample, strict=True)]

whole, closed, bare, spaced = map(trl_rows, (messages, closed, bare, spaced))
assert all(row["labels"] == row["input_ids"] for row in whole)
assert [row["labels"] for row in closed] == [row["labels"] + [eos] for row in by_chat]
assert [row["labels"] for row in bare] == [row["labels"][1:] for row in rows]
trained = [[i for i in row["labels"] if i != IGNORE_INDEX] for row in spaced]
assert any(tokenizer.decode(labels).startswith(" ") for labels in trained)  # the prompt's space
names = ("messages alone", "a turn as text", "text without BOS", "a prompt that ends in a space")
for name, made in zip(names, (whole, closed, bare, spaced), strict=True):
    print(f"{name}\n{show_mask(tokenizer, made[1])}\n")

# %% [markdown] lang="ko"
# - `messages`만 건네고 `assistant_only_loss`를 켜지 않으면 질문까지 **모두** 배웁니다.
# - 끝 표시까지 적은 글을 건네면 TRL이 그 뒤에 `<eos>`를 **하나 더** 붙입니다.
# - BOS는 토크나이저의 기본값을 따릅니다. 이 토크나이저는 붙이지 않고, 진짜 Gemma의 것은 붙입니다. 그래서 `<bos>`가 적힌 글이면 진짜 Gemma에서는 둘이 됩니다.
# - 공백으로 끝나는 프롬프트에서는 경계를 넘은 토큰을 가리지 않고 가르칩니다. Alpaca보다 낫지만, 모델이 배운 프롬프트에는 나중에 받을 그 공백이 없습니다.
#
# 그래서 이 강의는 글을 건네지 않고 **우리가 만든 `input_ids`와 `labels`를** 건넵니다. TRL은 그것을 그대로 씁니다.

# %% [markdown] lang="en" of="8b74b59b"
# - Hand over `messages` and leave `assistant_only_loss` off: **everything** is trained, the question included.
# - Hand over text that already has its end of turn: TRL appends **one more**, `<eos>`.
# - BOS is as the tokenizer's defaults have it. This one adds none, the real Gemma's does; so text that spells `<bos>` out would have
#   two with the real Gemma.
# - Where a prompt ends in a space, the token across the border is not masked but trained. That is better than Alpaca's way, but in training
#   the prompt lacks the very space that it will have when the model is asked.
#
# That is why this course hands over not text but **the `input_ids` and `labels` you have made**. TRL uses them as they are.

# %% [markdown] lang="ko"
# ## 5. LoRA와 학습
#
# 무엇을 학습하는지부터 셉니다. LoRA는 큰 행렬 $W$를 얼려 두고(학습하지 않고), 곁에 얇은 행렬 $A$와 $B$를 붙여 $W + \frac{\alpha}{r}BA$로 셈합니다. 이 얇은 행렬들이 어댑터입니다.
# $W$의 입력이 $n$, 출력이 $m$이면 $A$는 $r \times n$, $B$는 $m \times r$이니, 새로 배우는 수는 $r(n+m)$개뿐입니다. $r$과 $\alpha$는 레시피의 `lora_r`과 `lora_alpha`입니다.
# 모양만 알면 되니 모델을 메모리에 올리지 않고 셉니다.

# %% [markdown] lang="en" of="9eadab42"
# ## 5. LoRA and training
#
# First count what is trained. LoRA freezes a large matrix $W$ (does not train it) and puts two thin ones, $A$ and $B$, beside it:
# $W + \frac{\alpha}{r}BA$. These thin matrices are the adapter. Where $W$ has $n$ inputs and $m$ outputs, $A$ is $r \times n$ and
# $B$ is $m \times r$: only $r(n+m)$ new numbers. $r$ and $\alpha$ are `lora_r` and `lora_alpha` of the recipe. Shapes are all you
# need, so no weights are loaded.

# %%
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

from course_utils.inference import quiet
from course_utils.plumbing.model_folder import find_base

spec = course.recipe.train
config = AutoConfig.from_pretrained(find_base(course.base_model))
with torch.device("meta"):  # shapes without memory
    model = AutoModelForCausalLM.from_config(config)
total = model.num_parameters()
layers = [m for name, m in model.named_modules() if name.endswith(spec.target_modules)]
ours = sum(spec.lora_r * (m.in_features + m.out_features) for m in layers)
print(f"base   {total:>13,} parameters, frozen")
print(f"LoRA   {ours:>13,} parameters beside {len(layers)} matrices, trained")
print(f"share  {ours / total:>13.2%}")
lora = LoraConfig(r=spec.lora_r, target_modules=list(spec.target_modules), task_type="CAUSAL_LM")
with quiet():
    theirs = get_peft_model(model, lora).get_nb_trainable_parameters()[0]
assert ours == theirs

# %% [markdown] lang="ko"
# 손으로 센 수가 PEFT 라이브러리가 세는 수와 같습니다. 나머지는 건드리지 않으므로 기울기와 옵티마이저의 상태도 이만큼만 있으면 되고, 결과물은 작은 파일 하나입니다.
#
# 가르치기 전에 먼저 물어봅니다. 1절에서 유형마다 골라 둔 `questions`에 학습하기 전의 모델은 뭐라고 답할까요?

# %% [markdown] lang="en" of="f68b3aae"
# Your count agrees with the PEFT library's. Nothing else is touched, so gradients and optimizer states are needed for these only, and
# what comes out is one small file.
#
# Ask before you teach: what does the model say to the few fixed held-out `questions` of section 1 before it is tuned?

# %%
from course_utils.inference import generate, load_model
from course_utils.prompts import get_template

model, tokenizer = load_model(course.base_model, quantize=course.recipe.train.quantize)
template = get_template(course.recipe.train.template, tokenizer)
prompts = [template.render(task) for task in questions]
limit = course.recipe.evaluate.max_new_tokens
said = generate(model, tokenizer, prompts, max_new_tokens=limit)
for question, spoken in list(zip(questions, said, strict=True))[:4]:
    print(f"{question.instruction} {question.input}"[:120] + f"\n   -> {spoken.text[:120]!r}\n")
print(f"{sum(reply.stopped for reply in said)} of {len(said)} replies ended by themselves")
del model  # the trainer loads its own

# %% [markdown] lang="ko"
# 작은 베이스 모델이라면 글은 이어지지만 지시를 따르지 않고, 대개 멈출 때를 모릅니다. 세계를 알지만 **묻고 답하는 법**을 모릅니다.
# (이미 지시를 배운 gemma-2b-it는 이때도 제법 답합니다.)
#
# 이제 학습합니다. 레시피, 저장소, 과제를 건네면 됩니다. 도중에 끊겨도 마지막 체크포인트(checkpoint)에서 이어지고, 다 끝난 학습은 되풀이하지 않습니다.

# %% [markdown] lang="en" of="1bdc1841"
# The tiny base model writes fluently, but it follows no instruction and mostly does not know when to stop. It knows its world, but not
# **how to answer**. (gemma-2b-it, which has been tuned already, answers quite well here.)
#
# Now train: hand over recipe, store and tasks. If it is interrupted it goes on from the last checkpoint, and a finished
# training run is not repeated.

# %%
from course_utils.train import train

result = train(course.recipe, course.store, course.training_tasks())
print(f"\nloss {result.first_loss:.3f} -> {result.last_loss:.3f} in {result.steps:,} steps")
print(f"{result.tokens:,} tokens in {result.seconds:.0f} s")

# %% [markdown] lang="ko"
# 셀을 다시 실행하면 `Already trained`라고 하며 봉인된 결과를 돌려줍니다. 손실이 어떻게 내려갔는지 그림으로 봅니다.

# %% [markdown] lang="en" of="8563876d"
# Run the cell again and it says `Already trained` and returns the sealed result. How did the loss go down?

# %%
from course_utils import plots
from course_utils.train import TrainResult

result = TrainResult.load(course.artefact("train"))
plots.loss_curve(result.log, title="Training loss 학습 손실")

# %% [markdown] lang="ko"
# 점은 기록한 손실, 선은 그 이동 평균입니다. 그래서 선 끝의 숫자는 위에 출력한 마지막 손실과 조금 다릅니다.
# 처음에 가파르게 내려가는 동안 모델은 대개 **형식**부터, 곧 어떻게 시작하고 언제 끝내는지부터 배웁니다. 내용은 주로 그 뒤의 완만한 구간에서 배웁니다. 손실은 가리지 않은 토큰, 곧 응답에서만 잰 값이라는 것을 잊지 마세요.

# %% [markdown] lang="en" of="26352fb0"
# Dots are logged losses, the line is their running mean; so the number at its end differs a little from the last loss printed
# above. While it falls steeply the model mostly learns **form**: how to begin and when to end. Most of the content comes later,
# where the curve is gentle. Remember that this loss is measured on response tokens alone.

# %% [markdown] lang="ko"
# ## 6. 전과 후
#
# 학습한 것은 어댑터뿐이니, 껐다 켰다 할 수 있습니다. 어댑터를 끄면 학습 전의 모델입니다. 같은 질문을 두 번 던져 나란히 놓습니다.
# 질문 아래에서 화살표 왼쪽이 학습 전, 오른쪽이 학습 후의 응답입니다(긴 글은 줄였습니다).

# %% [markdown] lang="en" of="4f9a9573"
# ## 6. Before and after
#
# Nothing but the adapter was trained, so it can be switched off and on. Switched off, this is the model before training. Ask the
# same questions twice and set the replies side by side: below each question, left of the arrow, the reply before training, and on
# its right the one after it (long texts are shortened).

# %%
from course_utils.inference import generate, load_model
from course_utils.prompts import get_template
from course_utils.stats import exact_match

model, tokenizer = load_model(course.base_model, course.artefact("train") / "adapter")
template = get_template(course.recipe.train.template, tokenizer)
prompts = [template.render(task) for task in questions]
limit = course.recipe.evaluate.max_new_tokens
with model.disable_adapter():
    before = generate(model, tokenizer, prompts, max_new_tokens=limit)
after = generate(model, tokenizer, prompts, max_new_tokens=limit)

for question, old, new in zip(questions, before, after, strict=True):
    right = exact_match(new.text, question.output)
    asked = f"{question.instruction} {question.input}"
    if len(asked) > 90:
        asked = "... " + asked[-90:].partition(" ")[2]  # the end says what to do, and with what
    print(f"{'right' if right else 'WRONG'} [{question.meta['family']}] {asked.strip()}")
    instead = "" if right else f", not {question.output[:36]!r}"
    print(f"      {old.text[:24]!r} -> {new.text[:36]!r}{instead}")

# %% [markdown] lang="ko"
# 맞은 것만 보지 말고 틀린 것을 읽어 보세요. 형식부터 틀렸나요, 아니면 형식은 맞고 내용만 틀렸나요?
# 스스로 멈춘 응답의 비율(stop rate)과, 똑같은 네 어절을 세 번 이상 되풀이한 응답의 비율(repetition rate)도 셉니다.
# 끝 표시를 가르친 보람은 앞의 것에 나타납니다. 뒤의 것이 커지면 모델이 같은 말을 맴돌고 있다는 신호입니다.

# %% [markdown] lang="en" of="2a8dbbea"
# Do not look only at the right ones; read the wrong ones too. Is their form wrong, or is the form right and the content not?
# Also count the replies that ended by themselves (stop rate) and those that say the same four words three times or more
# (repetition rate). The first shows what training the end was worth; when the second grows, the model is going round in circles.

# %%
from collections import Counter


def goes_round(text):
    """Whether the same four words in a row come three times or more."""
    words = text.split()
    fours = Counter(zip(words, words[1:], words[2:], words[3:], strict=False))
    return max(fours.values(), default=0) >= 3


print(f"{'':8}{'right':>8}{'stopped':>10}{'repeated':>10}   of {len(questions)} questions")
for name, replies in {"before": before, "after": after}.items():
    right = [exact_match(r.text, t.output) for r, t in zip(replies, questions, strict=True)]
    stopped = [reply.stopped for reply in replies]
    repeated = [goes_round(reply.text) for reply in replies]
    print(f"{name:8}{sum(right) / len(right):8.0%}{sum(stopped) / len(stopped):10.0%}"
          f"{sum(repeated) / len(repeated):10.0%}")

# %% [markdown] lang="ko"
# 응답은 어떻게 잘라 냈을까요? 모델은 프롬프트 뒤에 이어 쓰므로, 프롬프트를 떼어 내야 응답만 남습니다. 글에서 `model`이라는 말을 찾아 그 뒤를 응답으로 삼는 코드가 흔한데, 응답에 그 말이 나오면 무너집니다.

# %% [markdown] lang="en" of="286dd389"
# How is a reply cut out? A model's output begins with the prompt, so the prompt has to come off. Code that looks for the word `model` in
# the text is common, and breaks as soon as a reply has that word in it.

# %%
from course_utils.collator import encode_prompts
from course_utils.prompts import get_template

said = "이 model은 Gemma입니다."
prompt = get_template("chat", tokenizer).render(questions[0])
[asked] = encode_prompts(tokenizer, [prompt])
written = asked + tokenizer(said, add_special_tokens=False)["input_ids"]  # as generate returns it
by_word = tokenizer.decode(written, skip_special_tokens=True).split("model")[-1]
by_length = tokenizer.decode(written[len(asked) :], skip_special_tokens=True)
print(f"after the word 'model'   {by_word!r}\nafter {len(asked)} tokens{'':10}{by_length!r}")
assert by_length == said and by_word != said

# %% [markdown] lang="ko"
# 프롬프트의 **토큰 수**만큼 떼면 글에 무엇이 적혀 있든 상관없습니다. 여기서도 답은 찾는 것이 아니라 이미 아는 길이였습니다.
#
# 질문 몇 개로는 아무것도 단정할 수 없습니다. 유형별 정답률과 그것이 얼마나 확실한지는 떼어 둔 문제 전체로 03에서 잽니다.
#
# 마지막으로 3절의 물음에 숫자로 답합니다. **마스크는 얼마나 중요할까요?** 미리 재어 둔 결과를 읽습니다. 시드(seed, 난수의 출발값)마다 데이터를 새로 만들고, 같은 데이터를 방법만 바꾸어 같은 스텝만큼 가르쳤습니다.
# `response`는 응답만 가르친 것, `everything`은 프롬프트까지 다 가르친 것, `one token late`는 마스크가 토큰 하나만큼 길어 응답의 첫 토큰을 가린 것입니다.
# 견주어 보도록 응답만 가르치되 어댑터를 키운 것(`rank 16`)과 모든 가중치를 학습한 것(`full`)도 함께 쟀습니다.
# `right`는 정답률, `new wordings`는 학습 데이터에 한 번도 없던 표현으로 물었을 때의 정답률입니다.

# %% [markdown] lang="en" of="311216b8"
# Take off as many **tokens** as the prompt has, and it does not matter what the text says. Here too there was nothing to
# search for: the length is known.
#
# A few questions prove nothing. Notebook 03 measures exact match by family (kind of task), and how sure it is, on all held-out tasks.
#
# Last, section 3's question, answered in numbers: **what is the mask worth?** These were measured beforehand: for each seed (the
# number that random draws start from) new data was made, and a model trained on it in each of these ways, in the same number of steps.
# `response` is the response only, `everything` the prompt as well, and with `one token late` the mask is one token too long and
# hides the first token of the response. For comparison, also trained on the response only: a larger adapter (`rank 16`) and all
# weights (`full`). `right` is the share of right answers, `new wordings` the same for questions in words that the training data
# does not have.

# %%
import json
from statistics import fmean

from course_utils import REPO

path = REPO / "tests" / "benchmarks" / "results" / "tuning.json"
measured = json.loads(path.read_text(encoding="utf-8"))
variants, right = {}, {}
for run in measured["runs"]:
    variants.setdefault(run.get("variant") or run["mask"], []).append(run)

print(f"exact match on held-out tasks of the small world, measured {measured.get('date', '')}\n")
print(f"{'':18}{'last loss':>10}{'right':>8}{'new wordings':>14}   right, each seed")
for name, runs in variants.items():
    loss = fmean(run.get("last_loss", float("nan")) for run in runs)
    right[name], unseen = (fmean(run[key] for run in runs) for key in ("mean", "unseen_mean"))
    each = "  ".join(f"{run['mean']:.1%}" for run in runs)
    print(f"{name:18}{loss:>10.3f}{right[name]:>8.1%}{unseen:>14.1%}   {each}")
assert right["response"] > right["everything"] and right["response"] > right["one token late"]

# %% [markdown] lang="ko"
# 작은 세계와 작은 모델에서 잰 것이므로 숫자 자체보다 **순위와 간격**을 보세요. 어느 방법에서도 오류는 나지 않았습니다.
# 마지막 손실 칸과 정답률 칸을 견주어 보세요. 손실이 가장 낮은 쪽이 정답률도 가장 높은가요? 마스크마다 손실을 재는 토큰이 다르니, 손실끼리는 견줄 수 없습니다.
# 마스크의 실수는 손실 그림에 나타나지 않습니다. 그래서 학습하기 전에 `show_mask`로 눈으로 보는 것입니다.
#
# 시드가 셋이니 결과가 얼마나 흔들리는지도 볼 수 있습니다. 점 하나가 학습 한 번이고, 옅은 띠는 문제를 달리 골랐다면 평균이 달라졌을 폭(95% 신뢰구간)입니다. 두 방법의 점들이 서로 섞여 있다면, 어느 쪽이 낫다고 말하기에는 이릅니다.

# %% [markdown] lang="en" of="b29414f2"
# This was measured with a small model in a small world, so look at **the order and the gaps**, not at the numbers themselves. None of
# the ways raised an error. Compare the last losses with the shares that are right: does the lowest loss mean the best model? Each mask
# measures its loss on different tokens, so losses of different masks cannot be compared with each other. A wrong mask does not show in
# a loss curve. That is why you look at it with `show_mask` before you train.
#
# With three seeds you also see how much it varies. One dot is one training run; the pale band is how far the choice of prompts alone may
# move the mean (95% confidence interval). Where the dots of two ways overlap, it is too early to call one of them better.

# %%
from course_utils import plots

plots.variants(measured, title="Ways to train 학습 방법 (simulated 모의)")

# %% [markdown] lang="ko"
# ## 7. 봉인하고 다시 불러오기
#
# `train`은 학습이 끝나자마자 결과를 봉인했습니다. 봉인된 폴더에는 파일마다 크기와 체크섬(SHA-256)을 적은 목록(manifest)이 있고, 목록은 **맨 나중에** 씁니다.
# 목록이 없거나 맞지 않으면 그 폴더는 없는 것으로 칩니다. 그래서 반쯤 쓰다 끊긴 체크포인트를 믿는 일이 없습니다.

# %% [markdown] lang="en" of="70f46fea"
# ## 7. Seal and load again
#
# `train` sealed its result as soon as it was done. A sealed folder has a manifest with the size and checksum (SHA-256) of every file, and
# the manifest is written **last**. A folder without one, or with one that does not fit, counts as not there, so a checkpoint
# that was cut off half-way is never trusted.

# %%
import json

sealed = course.artefact("train")
manifest = sealed / "MANIFEST.json"  # the shipped sample has none: it is part of the course itself
if manifest.is_file():
    for name, file in json.loads(manifest.read_text(encoding="utf-8"))["files"].items():
        print(f"{file['sha256'][:16]}  {file['bytes']:>9,} bytes  {name}")

# %% [markdown] lang="ko"
# 베이스 모델과 어댑터만 있으면 다른 컴퓨터에서도 같은 모델이 됩니다. 여기서는 그 대신 어댑터를 다른 폴더에 복사하고, 이 노트북을 전혀 모르는 **새 프로세스**에서 불러와 응답이 같은지 견줍니다.

# %% [markdown] lang="en" of="635ec5de"
# With base model and adapter you have the same model on another machine. The closest we can get to that here: copy the adapter to another
# folder, load it in a **fresh process** that knows nothing of this notebook, and compare the replies.

# %%
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from course_utils.inference import load_model, reply
from course_utils.prompts import get_template

ASK = """
import json, sys
from course_utils.inference import load_model, reply
base, adapter, limit = sys.argv[1:]
prompts = json.load(sys.stdin)
print(json.dumps(reply(*load_model(base, adapter), prompts, max_new_tokens=int(limit))))
"""
model, tokenizer = load_model(course.base_model, sealed / "adapter")
template = get_template(course.recipe.train.template, tokenizer)
prompts, limit = [template.render(q) for q in questions], course.recipe.evaluate.max_new_tokens
with tempfile.TemporaryDirectory() as elsewhere:
    copy = shutil.copytree(sealed / "adapter", Path(elsewhere) / "adapter")
    command = [sys.executable, "-c", ASK, course.base_model, str(copy), str(limit)]
    done = subprocess.run(command, input=json.dumps(prompts), capture_output=True, text=True, check=True)
assert json.loads(done.stdout) == reply(model, tokenizer, prompts, max_new_tokens=limit)
print(f"{len(prompts)} equal replies from this notebook and from a fresh process")

# %% [markdown] lang="ko"
# 다른 사람도 쓰게 하려면 허깅페이스 허브(Hub)에 올립니다. `push`는 모델 카드도 함께 만들어 올리는데, 무엇으로 만든 모델인지가 저절로 적힙니다. 올리기 전에 먼저 읽어 봅니다.
#
# ```python
# from course_utils.inference import push
#
# push(sealed / "adapter", "내-아이디/gemma-2b-ko-lora")  # 비공개로 올라갑니다
# ```
#
# 어댑터를 모르는 도구에 넘길 때는 `merge_adapter`로 베이스 모델에 합칩니다. [04](04_scale_up.ipynb)의 5절에서 합치고, 같은 말을 하는지 확인합니다.

# %% [markdown] lang="en" of="30d15b74"
# To let others use it, put it on the Hugging Face Hub. `push` also makes a model card, in which what the model was made from is
# filled in for you. Read it before you push.
#
# ```python
# from course_utils.inference import push
#
# push(sealed / "adapter", "your-name/gemma-2b-ko-lora")  # private, unless you say otherwise
# ```
#
# For tools that know no adapters, `merge_adapter` merges it into the base model. Section 5 of [04](04_scale_up.ipynb) does so and
# checks that the merged model says the same.

# %%
from course_utils.plumbing.hub import model_card

print("\n".join(model_card(sealed / "adapter").splitlines()[:24]))

# %% [markdown] lang="ko"
# 이제 가진 것은 이렇습니다.
#
# - 봉인된 LoRA 어댑터: 베이스 모델에 얹으면 지시를 따르는 모델이 됩니다.
# - `result.json`: 레시피, 데이터의 해시, 라이브러리 버전, 걸린 시간. 누가 다시 해도 같은 것을 만들 수 있는 기록입니다.
# - 마스크를 직접 쓰고 증명해 본 경험. 다른 틀, 다른 모델로 옮겨 갈 때 가장 먼저 확인할 것이 무엇인지 압니다.
#
# 더 해 볼 것: `course.recipe.replace("train.template", "koalpaca")`로 만든 레시피를 `train(..., step="koalpaca")`에 건네 보세요. 대화 틀 없이 배운 모델의 응답은 어디가 다른가요?
#
# 다음은 [03 평가](03_evaluate.ipynb)입니다. 얼마나 나아졌는지, 그리고 그 말이 얼마나 확실한지 잽니다.

# %% [markdown] lang="en" of="5c4f69e9"
# What you have now:
#
# - A sealed LoRA adapter: put on the base model, it makes a model that follows instructions.
# - `result.json`: recipe, hash of the data, versions of the libraries, time. With it anybody can repeat the run.
# - The experience of having written a mask and proved it right. With another template or another model you know what to check first.
#
# To try: give `train(..., step="koalpaca")` a recipe made by `course.recipe.replace("train.template", "koalpaca")`. Where do the
# replies of a model that was taught without the chat template differ?
#
# Next is [03 Evaluate](03_evaluate.ipynb): how much better the model is, and how sure that is.

# %% [markdown] lang="ko"
# ## 연습
#
# 본문을 읽는 흐름이 끊기지 않도록 문제는 모두 여기에 모았습니다. 다섯 문제이고, 별이 많을수록 어렵습니다. 걸리는 시간은 어림입니다.
#
# 문제마다 셀이 둘 있습니다. 첫 셀의 `...` 자리에 쓰고, 다음 셀을 실행하세요. `check`가 여러 입력으로 함수를 불러 보고, 어긋나면 **어떤 입력에서** 무엇이 나왔는지 바로 알려 줍니다.
# 비워 두어도 오류는 나지 않습니다. 풀이는 접혀 있으니, 먼저 해 보고 펼치세요.

# %% [markdown] lang="en" of="636ad559"
# ## Exercises
#
# All exercises are gathered here, so that they do not interrupt your reading. There are five; more stars mean harder, and the minutes are a guess.
#
# Each has two cells. Write in place of `...` in the first, then run the second: `check` calls your function on a number of inputs and, where something is
# wrong, says at once **on which input** and what came back. Cells left as they are raise no error. Solutions are folded: try before you open them.

# %% [markdown] lang="ko"
# ### 연습 1. 여러 번 주고받은 대화
#
# ★★ · 약 10분 · 3절
#
# 3절의 행에는 프롬프트 하나와 응답 하나가 있었습니다. 대화가 여러 번 오갔다면 응답도 여럿입니다.
# `(역할, 토큰 번호의 목록)` 쌍으로 된 목록을 받아 `{"input_ids": [...], "labels": [...]}`를 돌려주세요. `model`의 토큰만 가르치고 나머지 자리의 정답은 `-100`입니다.
# 가르칠 토큰이 하나도 없으면 `None`을 돌려주세요.
#
# 보기: `mask_turns([("user", [5, 6]), ("model", [7, 1])])`은 `{"input_ids": [5, 6, 7, 1], "labels": [-100, -100, 7, 1]}`입니다.

# %% [markdown] lang="en" of="72f9a318"
# ### Exercise 1. A conversation of several turns
#
# ★★ · about 10 minutes · section 3
#
# A row of section 3 had one prompt and one response. A longer conversation has several responses.
# Take a list of `(role, token ids)` and return `{"input_ids": [...], "labels": [...]}`. Only tokens of `model` are trained; everywhere else the label is `-100`.
# Return `None` if not a single token is left to train.
#
# Example: `mask_turns([("user", [5, 6]), ("model", [7, 1])])` is `{"input_ids": [5, 6, 7, 1], "labels": [-100, -100, 7, 1]}`.

# %%
def mask_turns(turns):
    """One row of a conversation in which what the model says is trained; None if that is nothing."""
    ...

# %%
from course_utils.practice.checks import check

check("02.1", mask_turns)

# %% [markdown] lang="ko"
# <details><summary>풀이</summary>
#
# ```python
# def mask_turns(turns):
#     ids, labels = [], []
#     for role, turn in turns:
#         ids += turn
#         labels += turn if role == "model" else [-100] * len(turn)
#     if all(label == -100 for label in labels):
#         return None
#     return {"input_ids": ids, "labels": labels}
# ```
#
# 번호를 찾지 않고 조각을 따라가므로, 사용자가 모델과 똑같은 말을 해도 마스크는 틀어지지 않습니다.
#
# </details>

# %% [markdown] lang="en" of="56d17c33"
# <details><summary>Solution</summary>
#
# ```python
# def mask_turns(turns):
#     ids, labels = [], []
#     for role, turn in turns:
#         ids += turn
#         labels += turn if role == "model" else [-100] * len(turn)
#     if all(label == -100 for label in labels):
#         return None
#     return {"input_ids": ids, "labels": labels}
# ```
#
# It follows the segments and searches for nothing, so the mask is right even where a user says just what the model says.
#
# </details>

# %% [markdown] lang="ko"
# ### 연습 2. 경계를 넘은 토큰 고치기
#
# ★★ · 약 10분 · 3절
#
# 3절의 첫째 초안은 프롬프트의 **토큰 수**만큼 가려서, 경계를 넘어 붙은 토큰을 잃었습니다. 이어서 자른 토큰을 그대로 쓰면서 고쳐 봅니다.
#
# 이어서 자른 토큰의 글 `pieces`와 프롬프트의 글 `prompt`를 받아, 토큰마다 가르칠지(`True`) 가릴지(`False`)를 목록으로 돌려주세요.
# **응답의 문자가 하나라도 들어 있으면** 가르칩니다. 공백과 문장 부호도 문자입니다. `pieces`를 이으면 프롬프트와 응답을 이은 글이 됩니다.
#
# 보기: `trained_pieces(["답변:", " 네", "."], "답변: ")`는 `[False, True, True]`입니다. 둘째 토큰에는 프롬프트의 공백과 응답의 `네`가 함께 들어 있습니다.

# %% [markdown] lang="en" of="2424053b"
# ### Exercise 2. Fix the token across the border
#
# ★★ · about 10 minutes · section 3
#
# Draft 1 of section 3 masked as many **tokens** as the prompt has by itself and lost the one that had grown across the border. Fix it, but keep the tokens of the joined text.
#
# Take `pieces`, the texts of those tokens, and `prompt`, the prompt's text; return for each token whether it is trained (`True`) or masked (`False`).
# A token is trained **if it holds at least one character of the response**, a space or a full stop included. Joined, `pieces` are the prompt followed by the response.
#
# Example: `trained_pieces(["답변:", " 네", "."], "답변: ")` is `[False, True, True]`: the second token holds the prompt's space and the response's `네`.

# %%
def trained_pieces(pieces, prompt):
    """For each token of prompt and response together, whether it is trained."""
    ...

# %%
from course_utils.practice.checks import check

check("02.2", trained_pieces)

# %% [markdown] lang="ko"
# <details><summary>풀이</summary>
#
# ```python
# def trained_pieces(pieces, prompt):
#     trained, end = [], 0
#     for piece in pieces:
#         end += len(piece)  # this token ends before the character number `end`
#         trained.append(end > len(prompt))
#     return trained
# ```
#
# 4절에서 TRL이 하는 일이 이것입니다. 첫 글자를 잃지 않지만, 나중에 물을 때는 그 공백이 프롬프트 쪽의 토큰이 됩니다. 그래서 강의는 조각을 따로 자릅니다.
#
# </details>

# %% [markdown] lang="en" of="8218a2c4"
# <details><summary>Solution</summary>
#
# ```python
# def trained_pieces(pieces, prompt):
#     trained, end = [], 0
#     for piece in pieces:
#         end += len(piece)  # this token ends before the character number `end`
#         trained.append(end > len(prompt))
#     return trained
# ```
#
# This is what TRL does in section 4. No letter is lost, but when the model is asked later, that space is a token of the prompt. That is why the course tokenises the segments separately.
#
# </details>

# %% [markdown] lang="ko"
# ### 연습 3. 왼쪽을 채우는 배치
#
# ★★ · 약 15분 · 4절
#
# 4절의 `collate`는 오른쪽을 채웁니다. 응답을 만들 때 쓸, **왼쪽**을 채우는 배치를 만드세요.
# 프롬프트마다 토큰 번호의 목록이 든 `prompts`와 패딩 번호 `pad`를 받아, 아래 세 키를 가진 딕셔너리를 돌려주세요. 값은 모두 목록의 목록입니다.
#
# - `input_ids`: 가장 긴 것에 맞추어 왼쪽을 `pad`로 채웁니다.
# - `attention_mask`: 진짜 토큰은 1, 채운 자리는 0입니다. **`pad`와 같은 번호가 프롬프트 안에도 있을 수 있습니다.**
# - `position_ids`: 진짜 첫 토큰이 0입니다. 채운 자리는 0으로 둡니다.
#
# 보기: `pad_left([[5, 6, 7], [8]], 0)`의 `input_ids`는 `[[5, 6, 7], [0, 0, 8]]`, `attention_mask`는 `[[1, 1, 1], [0, 0, 1]]`, `position_ids`는 `[[0, 1, 2], [0, 0, 0]]`입니다.

# %% [markdown] lang="en" of="74e91bbe"
# ### Exercise 3. A batch padded on the left
#
# ★★ · about 15 minutes · section 4
#
# The `collate` of section 4 pads on the right. Make a batch to generate from, padded on the **left**: take `prompts`, a list of token ids for each prompt, and the id `pad`;
# return a dictionary with the three keys below, each a list of lists.
#
# - `input_ids`: filled up with `pad` on the left, to the length of the longest.
# - `attention_mask`: 1 for a real token, 0 for padding. **The id of `pad` may occur within a prompt, too.**
# - `position_ids`: the first real token is 0; for padding, put 0 as well.
#
# Example: for `pad_left([[5, 6, 7], [8]], 0)`, `input_ids` is `[[5, 6, 7], [0, 0, 8]]`, `attention_mask` `[[1, 1, 1], [0, 0, 1]]` and `position_ids` `[[0, 1, 2], [0, 0, 0]]`.

# %%
def pad_left(prompts, pad):
    """{"input_ids": ..., "attention_mask": ..., "position_ids": ...}, each a list of lists."""
    ...

# %%
from course_utils.practice.checks import check

check("02.3", pad_left)

# %% [markdown] lang="ko"
# <details><summary>풀이</summary>
#
# ```python
# def pad_left(prompts, pad):
#     width = max(len(ids) for ids in prompts)
#     batch = {"input_ids": [], "attention_mask": [], "position_ids": []}
#     for ids in prompts:
#         gap = width - len(ids)
#         batch["input_ids"].append([pad] * gap + ids)
#         batch["attention_mask"].append([0] * gap + [1] * len(ids))
#         batch["position_ids"].append([0] * gap + list(range(len(ids))))
#     return batch
# ```
#
# 무엇을 채웠는지는 채운 사람이 압니다. `[i != pad for i in ids]`로 되찾으려 하면 `pad`가 eos인 모델에서 틀립니다.
#
# </details>

# %% [markdown] lang="en" of="2c9ca341"
# <details><summary>Solution</summary>
#
# ```python
# def pad_left(prompts, pad):
#     width = max(len(ids) for ids in prompts)
#     batch = {"input_ids": [], "attention_mask": [], "position_ids": []}
#     for ids in prompts:
#         gap = width - len(ids)
#         batch["input_ids"].append([pad] * gap + ids)
#         batch["attention_mask"].append([0] * gap + [1] * len(ids))
#         batch["position_ids"].append([0] * gap + list(range(len(ids))))
#     return batch
# ```
#
# Whoever did the padding knows what is padding. Recovering it with `[i != pad for i in ids]` goes wrong wherever pad is eos.
#
# </details>

# %% [markdown] lang="ko"
# ### 연습 4. 창 하나의 손실
#
# ★ · 약 5분 · 4절
#
# 기울기를 모으는 창 하나의 손실을 구하세요. `steps`에는 나누어 계산한 배치마다 **가르치는 토큰의 손실**이 목록으로 들어 있고, 토큰의 수는 배치마다 다릅니다.
# 배치를 어떻게 나누었든 같은 값이 나와야 합니다. 창 전체에 가르치는 토큰이 없으면 `None`입니다.
#
# 보기: `window_loss([[4.0], [1.0, 1.0, 1.0]])`은 (4 + 1 + 1 + 1) / 4 = 1.75입니다. 평균의 평균인 2.5가 아닙니다.

# %% [markdown] lang="en" of="b4253723"
# ### Exercise 4. The loss of one window
#
# ★ · about 5 minutes · section 4
#
# Work out the loss of one window of gradient accumulation. `steps` holds, for each part of it, a list of **the losses of its trained tokens**, and their numbers differ.
# The result must be the same however the window is cut into parts. If the whole window has no trained token, it is `None`.
#
# Example: `window_loss([[4.0], [1.0, 1.0, 1.0]])` is (4 + 1 + 1 + 1) / 4 = 1.75, and not the mean of means, 2.5.

# %%
def window_loss(steps):
    """The loss of an accumulation window, each trained token weighing the same."""
    ...

# %%
from course_utils.practice.checks import check

check("02.4", window_loss)

# %% [markdown] lang="ko"
# <details><summary>풀이</summary>
#
# ```python
# def window_loss(steps):
#     losses = [loss for step in steps for loss in step]
#     return sum(losses) / len(losses) if losses else None
# ```
#
# 빈 창에 0을 돌려주면 손실 그림에서는 완벽한 학습으로 보입니다. 실패한 것을 숫자로 적지 마세요.
#
# </details>

# %% [markdown] lang="en" of="50cdd886"
# <details><summary>Solution</summary>
#
# ```python
# def window_loss(steps):
#     losses = [loss for step in steps for loss in step]
#     return sum(losses) / len(losses) if losses else None
# ```
#
# A 0 for an empty window would look like perfect training in a loss curve. What failed must not become a number.
#
# </details>

# %% [markdown] lang="ko"
# ### 연습 5. 설정만 보고 LoRA 세기
#
# ★★ · 약 15분 · 5절
#
# Gemma 구조의 설정 `config`와 `r`을 받아, 층마다 있는 일곱 행렬에 모두 LoRA를 붙였을 때 학습하는 파라미터의 수를 돌려주세요. 모델을 만들지 말고 셈만으로 구합니다.
# 입력이 $n$, 출력이 $m$인 행렬 하나에는 $r(n+m)$개가 붙습니다.
#
# | 행렬 | 입력 → 출력 |
# |---|---|
# | `q_proj` | hidden → 헤드 수 × head_dim |
# | `k_proj`, `v_proj` | hidden → **키·값** 헤드 수 × head_dim |
# | `o_proj` | 헤드 수 × head_dim → hidden |
# | `gate_proj`, `up_proj` | hidden → intermediate |
# | `down_proj` | intermediate → hidden |
#
# `config`의 키는 `hidden_size`, `intermediate_size`, `num_hidden_layers`, `num_attention_heads`, `num_key_value_heads`, `head_dim`입니다.
#
# 보기: Gemma-2B의 설정(2048, 16384, 18, 8, 1, 256)에 `r = 4`이면 4,902,912입니다.

# %% [markdown] lang="en" of="edfc5db6"
# ### Exercise 5. Count LoRA from a configuration
#
# ★★ · about 15 minutes · section 5
#
# Take the configuration `config` of a Gemma-like model and `r`, and return how many parameters are trained with LoRA on all seven matrices of every layer. Build no model: work it out.
# Beside a matrix with $n$ inputs and $m$ outputs there are $r(n+m)$.
#
# | matrix | in → out |
# |---|---|
# | `q_proj` | hidden → heads x head_dim |
# | `k_proj`, `v_proj` | hidden → **key and value** heads x head_dim |
# | `o_proj` | heads x head_dim → hidden |
# | `gate_proj`, `up_proj` | hidden → intermediate |
# | `down_proj` | intermediate → hidden |
#
# The keys of `config` are `hidden_size`, `intermediate_size`, `num_hidden_layers`, `num_attention_heads`, `num_key_value_heads`, `head_dim`.
#
# Example: for Gemma-2B (2048, 16384, 18, 8, 1, 256) and `r = 4` it is 4,902,912.

# %%
def lora_size(config, r):
    """The number of trained parameters with LoRA of rank r on every linear layer."""
    ...

# %%
from course_utils.practice.checks import check

check("02.5", lora_size)

# %% [markdown] lang="ko"
# <details><summary>풀이</summary>
#
# ```python
# def lora_size(config, r):
#     hidden, inner = config["hidden_size"], config["intermediate_size"]
#     query = config["num_attention_heads"] * config["head_dim"]
#     key = config["num_key_value_heads"] * config["head_dim"]
#     attention = [(hidden, query), (hidden, key), (hidden, key), (query, hidden)]
#     mlp = [(hidden, inner), (hidden, inner), (inner, hidden)]
#     ends = sum(n + m for n, m in attention + mlp)
#     return config["num_hidden_layers"] * r * ends
# ```
#
# `hidden_size`가 헤드 수 × `head_dim`과 같다고 여기면 Gemma-2B에서는 우연히 맞고, Gemma-7B에서는 틀립니다.
#
# </details>

# %% [markdown] lang="en" of="623e29f9"
# <details><summary>Solution</summary>
#
# ```python
# def lora_size(config, r):
#     hidden, inner = config["hidden_size"], config["intermediate_size"]
#     query = config["num_attention_heads"] * config["head_dim"]
#     key = config["num_key_value_heads"] * config["head_dim"]
#     attention = [(hidden, query), (hidden, key), (hidden, key), (query, hidden)]
#     mlp = [(hidden, inner), (hidden, inner), (inner, hidden)]
#     ends = sum(n + m for n, m in attention + mlp)
#     return config["num_hidden_layers"] * r * ends
# ```
#
# Taking `hidden_size` for heads x `head_dim` happens to be right for Gemma-2B but is wrong for Gemma-7B.
#
# </details>
