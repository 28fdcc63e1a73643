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
# 노트북 01에서 지시 데이터를 얻었습니다. 이제 베이스 모델이 지시를 따르도록 **미세조정**(fine-tuning)합니다.
# 학습 코드는 라이브러리가 거의 다 해 줍니다. 사람이 정해야 하는 것은 하나, **어느 토큰에서 배우게 할 것인가**입니다.
# 이 결정을 마스킹(masking)이라 부르고, 여기서 직접 써서 맞는지 증명합니다.
#
# 끝까지 가면 이런 것이 손에 남습니다.
#
# - 과제 하나가 글이 되고, 토큰이 되고, 정답(label)이 되기까지를 직접 짠 코드
# - 이 데이터로 학습한 LoRA 어댑터(adapter)와 그 기록 `log.json`, `result.json`
# - 학습 전과 후의 응답, 그리고 마스크가 얼마나 중요한지 잰 표
#
# ```text
# 씨앗 과제 ──▶ [01 전처리] ──▶ 지시 데이터 ──▶ [02 학습] ──▶ LoRA 어댑터 ──▶ [03 평가] ──▶ 보고서
# ```
#
# 아래 셀을 실행하면 카드가 나옵니다. 어디서 도는지, 어떤 베이스 모델을 쓰는지, 결과가 어디에 쌓이는지 먼저 읽어 보세요.

# %% [markdown] lang="en" of="f632422b"
# # 02 Train: which tokens to teach
#
# Notebook 01 left you with instruction data. Now **fine-tune** a base model until it follows instructions.
# Libraries do nearly all of the training. One decision is yours: **which tokens the model is to learn from**.
# It is called masking; here you write it yourself and prove it right.
#
# At the end you will have
#
# - your own code for the way from a task to text, to tokens, to labels
# - a LoRA adapter trained on your data, with its record in `log.json` and `result.json`
# - replies from before and after training, and a table of what the mask is worth
#
# ```text
# seed tasks ──▶ [01 preprocess] ──▶ instruction data ──▶ [02 train] ──▶ LoRA adapter ──▶ [03 evaluate] ──▶ report
# ```
#
# Run the cell below and read its card first: where this runs, which base model it uses, where results go.

# %%
import subprocess
import sys

if "google.colab" in sys.modules:  # on Colab: the tagged course, cloned once and installed
    home = "/content/instruction-tuning-course"
    source = "https://github.com/ORG/instruction-tuning-course"
    clone = f"git clone -q --depth 1 --branch v0.1.0 {source} {home}"
    install = f"{sys.executable} -m pip install -q -e '{home}[colab]'"
    subprocess.run(f"(test -d {home} || {clone}) && {install}", shell=True, check=True)
    sys.path[:0] = [home] if home not in sys.path else []

from course_utils.runtime import setup

course = setup()

# %% [markdown] lang="ko"
# Base model 줄에 `assets/tiny-gemma-ko`가 보인다면, 이 강의가 직접 사전학습한 아주 작은 Gemma입니다. 구조는 진짜 Gemma와 같고 크기만 작아서
# 노트북 컴퓨터의 CPU에서 몇 분이면 배웁니다. 아는 세계도 그만큼 작습니다. 여기서 나온 정답률을 진짜 모델의 실력으로 읽지는 마세요.
#
# 시작하기 전에, 앞선 학습이 얼마나 걸렸는지 봅니다.

# %% [markdown] lang="en" of="16d3619c"
# If the card's base model is `assets/tiny-gemma-ko`, it is a very small Gemma that this course pretrained itself. It is built
# like the real Gemma and differs in size, so it learns in minutes on a laptop's CPU. The world it knows is just as small:
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
# 01에서 봉인한 과제를 꺼냅니다. 아직 만들지 않았다면 함께 배포한 견본을 씁니다. 셀이 어느 쪽인지 알려 줍니다.
# 평가에 쓸 문제는 따로 떼어 두었습니다(held-out). 한 문제라도 겹치면 03의 모든 숫자가 거짓이 되므로, 믿지 않고 확인합니다.
#
# 나중에 어느 절부터 다시 시작하든, 이 절까지만 먼저 실행하면 됩니다.

# %% [markdown] lang="en" of="a9e58939"
# ## 1. Start from sealed data
#
# Take the tasks that 01 sealed. If there are none yet, a sample that comes with the course stands in; the cell says which.
# The tasks for evaluation are held out. If a single one were in both, every number of 03 would be a lie. So we check.
#
# Whatever section you want to start from later, run this one first.

# %%
tasks, heldout = course.training_tasks(), course.heldout()
task = next((task for task in tasks if task.input), tasks[0])  # the example of sections 2 to 4
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
# What is trained and how is all in the **recipe**. Laptop or L4, this file is the only thing that changes.

# %%
import dataclasses

for name, value in dataclasses.asdict(course.recipe.train).items():
    print(f"{name:26}{', '.join(value) if isinstance(value, tuple) else value}")

# %% [markdown] lang="ko"
# 지금은 세 줄만 보면 됩니다. `template`은 과제를 글로 펴는 틀, `max_length`는 그 글의 최대 토큰 수, `lora_r`은 4절에서 만날 어댑터의 크기입니다.
# `attention`이 `auto`이면 빠른 구현이 **이미 있을 때만** 그것을 고르고, 없으면 PyTorch의 SDPA를 씁니다. 결과는 같고 속도만 다릅니다.
#
# 모델은 칸 셋을 읽지 못하고 글 한 줄기만 읽습니다. 같은 과제를 틀 세 가지로 펴 봅니다. `⟨…⟩` 안이 응답이 들어갈 자리입니다.

# %% [markdown] lang="en" of="7908dbe6"
# Three lines matter now: `template` lays a task out as text, `max_length` is the most tokens that text may have, and `lora_r`
# is the size of the adapter of section 4. With `attention: auto` a faster implementation is chosen only where one **is there
# already**, else PyTorch's SDPA; results are the same, only the speed differs.
#
# A model reads no fields, only one string of text. Here is the same task in three layouts. The response goes where `⟨…⟩` is.

# %%
from course_utils.inference import load_tokenizer
from course_utils.prompts import get_template

tokenizer = load_tokenizer(course.base_model)
for name in ("alpaca-ko", "koalpaca", "chat"):
    template = get_template(name, tokenizer)
    print(f"----- {name}\n{template.render(task)}⟨…⟩{template.end or tokenizer.eos_token}\n")

# %% [markdown] lang="ko"
# 앞의 둘은 우리말로 옮긴 Alpaca의 틀과 KoAlpaca의 틀입니다. 대화를 모르는 베이스 모델을 처음 가르칠 때 씁니다. 셋째는 모델 자신의 대화 틀(chat template)입니다.
# 이미 대화 틀이 있는 모델이라면 그것을 따르는 편이 낫습니다. 서빙 도구도 같은 틀을 쓰기 때문입니다.
#
# 끝을 보세요. 대화 틀은 `<end_of_turn>`으로 끝나고 나머지는 `<eos>`로 끝납니다. **이 끝 표시까지 가르쳐야** 모델이 멈출 줄 압니다.
#
# 대화 틀은 토크나이저에서 만들어 냅니다. 손으로 옮겨 적지 않으니, 토크나이저가 직접 만든 글과 글자까지 같아야 합니다.

# %% [markdown] lang="en" of="da8aff0f"
# The first two are Alpaca's, put into Korean, and KoAlpaca's, for base models that know no conversation. The third is the
# model's own chat template. Where a model has one, follow it: the tools that serve the model use it, too.
#
# Look at the ends. The chat template closes with `<end_of_turn>`, the others with `<eos>`. **Unless this end is trained as
# well**, the model never learns to stop.
#
# The chat layout is derived from the tokenizer, not typed in, so it must equal what the tokenizer itself writes.

# %%
template = get_template("chat", tokenizer)
text = f"{task.instruction}\n\n{task.input}" if task.input else task.instruction
turns = [{"role": "user", "content": text}, {"role": "assistant", "content": task.output}]
whole = tokenizer.apply_chat_template(turns, tokenize=False)
assert template.render(task) + task.output + template.end == whole
print(f"equal, {len(whole)} characters; the response ends with {template.end!r}")

# %% [markdown] lang="ko"
# 이제 글을 토큰으로 자릅니다. 글의 첫머리를 알리는 BOS 토큰은 **꼭 하나** 있어야 합니다. 둘이면 모델이 본 적 없는 모양이고, 없으면 Gemma는 엉뚱한 글을 냅니다.
# 토크나이저의 기본값에 맡기면 몇 개가 붙는지 세어 봅니다.

# %% [markdown] lang="en" of="1242a941"
# Now cut text into tokens. The token that begins a text, BOS, must be there **exactly once**: with two the model sees
# something it has never seen, with none Gemma writes nonsense. How many do a tokenizer's defaults give you?

# %%
from course_utils.collator import encode_prompts

for name in ("alpaca-ko", "koalpaca", "chat"):
    prompt = get_template(name, tokenizer).render(task)
    by_default = tokenizer(prompt)["input_ids"].count(tokenizer.bos_token_id)
    ours = encode_prompts(tokenizer, [prompt])[0].count(tokenizer.bos_token_id)
    print(f"{name:10} BOS by default {by_default}, in this course {ours}")
    assert ours == 1 or tokenizer.bos_token_id in (None, tokenizer.eos_token_id)

# %% [markdown] lang="ko"
# 기본값은 틀에 따라, 모델에 따라 달라집니다. 대화 틀에는 `<bos>`가 글자로 이미 적혀 있는데 토크나이저가 하나를 더 붙이기도 합니다.
# 이 강의의 코드는 늘 하나입니다. 이제 토큰을 눈으로 봅니다. `▁`는 공백, `⏎`는 줄바꿈입니다.

# %% [markdown] lang="en" of="b4a50bce"
# The default depends on the template and on the model; a chat template spells `<bos>` out, and some tokenizers add another.
# In this course it is always one. Now look at the tokens themselves: `▁` is a space, `⏎` a line break.

# %%
ids = encode_prompts(tokenizer, [template.render(task)])[0]
pieces = [piece.replace("\n", "⏎") for piece in tokenizer.convert_ids_to_tokens(ids)]
print(" | ".join(pieces))
text = task.instruction + task.input
count = len(tokenizer(text, add_special_tokens=False)["input_ids"])
print(f"\n{len(text)} characters of Korean are {count} tokens: {len(text) / count:.2f} characters each")

# %% [markdown] lang="ko"
# 자주 나오는 말은 한 토큰이 되고 드문 말은 음절로 쪼개집니다. 한 토큰에 담기는 글자가 많을수록 같은 `max_length`에 긴 글이 들어갑니다.

# %% [markdown] lang="en" of="b1b92ff2"
# Frequent words are one token, rare ones fall apart into syllables. The more characters a token holds, the longer the text
# that fits into the same `max_length`.

# %% [markdown] lang="ko"
# ## 3. 무엇을 가르칠 것인가: 마스킹
#
# 언어 모델은 토큰마다 **다음 토큰**을 맞히며 배웁니다. 정답은 `labels`에 적습니다. 가장 단순한 방법은 입력을 그대로 정답으로 쓰는 것입니다.

# %% [markdown] lang="en" of="a613ef75"
# ## 3. What to teach: masking
#
# A language model learns by predicting the **next token** at every position. The right answers are its `labels`. The
# simplest way is to use the input itself.

# %%
from course_utils.collator import IGNORE_INDEX, encode, encode_prompts, show_mask
from course_utils.inference import load_tokenizer
from course_utils.prompts import get_template

spec, tokenizer = course.recipe.train, load_tokenizer(course.base_model)
template = get_template(spec.template, tokenizer)
prompt, end = template.render(task), template.end or tokenizer.eos_token

prompt_ids = encode_prompts(tokenizer, [prompt])[0]
response_ids = tokenizer(task.output + end, add_special_tokens=False)["input_ids"]
everything = {"input_ids": prompt_ids + response_ids, "labels": prompt_ids + response_ids}
print(show_mask(tokenizer, everything))

# %% [markdown] lang="ko"
# 모두 `trained`입니다. 이대로면 모델은 **사용자의 질문을 지어내는 법**까지 배웁니다. 질문이 응답보다 길수록 배우는 힘의 대부분이 그리로 갑니다.
#
# 응답만 가르치려면 프롬프트 자리의 정답을 `-100`으로 지웁니다. 두 조각을 따로 토큰으로 바꿔 이어 붙이면, 경계는 찾을 필요도 없이 이미 알고 있습니다.

# %% [markdown] lang="en" of="28a331a8"
# Everything is `trained`. Like this the model also learns **to make up the user's questions**, and the longer they are
# compared with the responses, the more of its effort goes there.
#
# To teach the response only, put `-100` in place of the prompt's labels. Tokenise the two segments apart and join them, and
# you never have to look for the border: you know it.

# %%
row = {
    "input_ids": prompt_ids + response_ids,
    "labels": [IGNORE_INDEX] * len(prompt_ids) + response_ids,
}
print(show_mask(tokenizer, row))
assert row == encode(tokenizer, prompt, task.output, spec.max_length, end=template.end)

# %% [markdown] lang="ko"
# 세 줄로 쓴 마스크가 강의의 `encode`와 같습니다. 끝 표시도 `trained` 쪽에 들어 있는지 확인하세요.
#
# 그런데 왜 하필 -100일까요? 교차 엔트로피 손실(cross-entropy loss)이 이 값을 **없는 자리**로 치기 때문입니다. 낱말이 셋뿐인 세계에서 손으로 셈해 봅니다.

# %% [markdown] lang="en" of="65d6586f"
# Three lines, and they equal the course's `encode`. See that the end is among what is `trained`.
#
# But why -100? Because the cross-entropy loss treats that value as **a position that is not there**. Work it out by hand in a
# world of three words.

# %%
import torch
from torch.nn.functional import cross_entropy

scores = torch.tensor([[2.0, 0.5, -1.0], [0.1, 1.5, 0.3]])  # two positions, three words
two = cross_entropy(scores, torch.tensor([0, 1]))
by_hand = -sum(torch.log_softmax(scores, dim=1)[i, word] for i, word in enumerate([0, 1])) / 2
print(f"two tokens                  {two:.4f}   by hand {by_hand:.4f}")

scores = torch.cat([scores, torch.tensor([[-5.0, -5.0, 5.0]])])  # a third one, badly predicted
masked = cross_entropy(scores, torch.tensor([0, 1, IGNORE_INDEX]))
trained = cross_entropy(scores, torch.tensor([0, 1, 0]))
print(f"a third with label -100     {masked:.4f}")
print(f"a third with label 0        {trained:.4f}")
assert torch.isclose(two, by_hand) and masked == two and trained > two

# %% [markdown] lang="ko"
# 엉뚱하게 예측한 셋째 자리도 -100이면 손실을 조금도 바꾸지 않습니다. 합에서도 빠지고, 나누는 개수에서도 빠집니다.
#
# 널리 쓰이는 다른 방법이 있습니다. 프롬프트와 응답을 **이어서** 토큰으로 바꾸고, 프롬프트만 **한 번 더** 토큰으로 바꿔 그 길이만큼 가리는 것입니다.
# Alpaca의 학습 코드가 그렇게 합니다. 토큰이 경계를 넘어 붙지 않는다면 괜찮습니다. 프롬프트가 공백으로 끝나면 어떻게 될까요?

# %% [markdown] lang="en" of="e1879439"
# A third position, however badly predicted, does not change the loss at all when its label is -100: it is left out of the sum
# and out of the number that the sum is divided by.
#
# There is another popular way: tokenise prompt and response **together**, tokenise the prompt **once more** by itself, and
# mask as many tokens as that gives. Alpaca's training code does so. It works as long as no token grows across the border.
# What if the prompt ends with a space?

# %%
def tokens(text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def border_moves(prompt, response):
    """Whether the prompt alone has other tokens than the beginning of prompt and response."""
    alone = tokens(prompt)
    return tokens(prompt + response)[: len(alone)] != alone


asked = "답: "  # a prompt's last words, with the space that invites trouble
moved = [t.output for t in tasks if border_moves(asked, t.output)]
luck = sum(border_moves(template.render(t), t.output) for t in tasks)
print(f"a prompt that ends with '답: '   wrong for {len(moved):,} of {len(tasks):,} tasks")
print(f"the {template.name} template          wrong for {luck:,} of {len(tasks):,} tasks")

# %% [markdown] lang="ko"
# 대화 틀이 무사한 것은 줄바꿈으로 끝난다는 **우연** 덕분입니다. 틀을 조금만 바꾸면 많은 과제의 마스크가 소리 없이 틀어집니다. 한 과제를 펼쳐 봅니다.

# %% [markdown] lang="en" of="f21913ac"
# The chat template is safe **by luck**: it ends with a line break. Change it a little, and the masks of a great many tasks
# are wrong without a word. Here is one of them.

# %%
answer = next(iter(moved), "식사하셨어요?")
together, length = tokens(asked + answer), len(tokens(asked))
twice = {"input_ids": together, "labels": [IGNORE_INDEX] * length + together[length:]}
print("measured by tokenising twice\n" + show_mask(tokenizer, twice, each_token=True))
apart = {"input_ids": tokens(asked) + tokens(answer)}
apart["labels"] = [IGNORE_INDEX] * length + tokens(answer)
print("\nby segments\n" + show_mask(tokenizer, apart, each_token=True))
assert twice["labels"].count(IGNORE_INDEX) == length and together[:length] != tokens(asked)

# %% [markdown] lang="ko"
# 한 줄이 토큰 하나이고, 숫자는 토큰의 번호입니다. 위쪽에서는 공백이 응답의 첫 글자와 한 토큰으로 붙었고, 그 토큰이 가려졌습니다. 모델은 응답을 **시작하는 법**을 배우지 못합니다.
# 아래쪽은 프롬프트를 따로 잘랐으므로, 나중에 응답을 만들 때 모델이 보게 될 토큰과 똑같습니다. 학습과 추론의 토큰이 같다는 것, 그것이 조각으로 나누는 까닭입니다.
#
# 토큰 하나가 얼마나 큰 차이를 내는지는 6절에서 숫자로 봅니다. 데이터 전체를 토큰으로 바꾸고 이 절을 마칩니다.

# %% [markdown] lang="en" of="7f852d2c"
# One line is one token, the number is its id. Above, the space has merged with the beginning of the response, and that token
# is masked: the model does not learn **how to begin**. Below, the prompt was cut by itself, so these are the very tokens the
# model will see when it is asked later. That training and inference see the same tokens is the reason for segments.
#
# How much one token matters you will see in numbers in section 6. End this section by encoding all of the data.

# %%
from course_utils.collator import encode_tasks

rows, report = encode_tasks(tokenizer, tasks, template, spec.max_length)
lengths = sorted(len(row["input_ids"]) for row in rows)
print(report)
median = lengths[len(lengths) // 2]
print(f"tokens a row: median {median}, longest {lengths[-1]}, at most {spec.max_length}")
assert report.rows + report.dropped == len(tasks)

# %% [markdown] lang="ko"
# 잘린(truncated) 것과 버린(dropped) 것을 셉니다. 라이브러리의 기본 동작은 긴 글을 말없이 자르고, 가르칠 토큰이 없는 줄도 말없이 지나칩니다.

# %% [markdown] lang="en" of="f6a90f74"
# What was truncated and what was dropped is counted. Libraries by default cut long rows silently and pass over rows without a
# trained token just as silently.

# %% [markdown] lang="ko"
# ## 4. 배치와 LoRA
#
# 길이가 다른 줄을 한 배치로 묶으려면 짧은 줄을 채워야 합니다(padding). 짧은 세 줄로 그림을 그려 봅니다.
# `-`는 가린 프롬프트, `#`은 가르치는 토큰, `.`은 채운 자리입니다.

# %% [markdown] lang="en" of="efabecc9"
# ## 4. Batches and LoRA
#
# To put rows of different lengths into one batch, the short ones are padded. A picture of three short rows: `-` is the masked
# prompt, `#` what is trained, `.` padding.

# %%
import torch

from course_utils.collator import IGNORE_INDEX, MaskingCollator, encode, encode_tasks
from course_utils.inference import load_tokenizer
from course_utils.prompts import get_template

tokenizer, spec = load_tokenizer(course.base_model), course.recipe.train
template = get_template(spec.template, tokenizer)
rows, _ = encode_tasks(tokenizer, tasks[:40], template, spec.max_length)
by_length = sorted(rows, key=lambda row: len(row["input_ids"]))
short = [by_length[0], by_length[len(by_length) // 4], by_length[len(by_length) // 2]]

batch = MaskingCollator(tokenizer.pad_token_id or 0)(short)
for labels, mask in zip(batch["labels"], batch["attention_mask"], strict=True):
    marks = torch.where(labels == IGNORE_INDEX, ord("-"), ord("#"))
    print("".join(map(chr, torch.where(mask == 0, ord("."), marks))))
print({name: tuple(values.shape) for name, values in batch.items()})

# %% [markdown] lang="ko"
# 채운 자리는 정답도 -100이고 주의 마스크(attention mask)도 0입니다. 폭은 8의 배수로 맞춥니다. GPU가 그런 폭을 빠르게 계산합니다.
# 학습할 때는 오른쪽을 채우고, 응답을 만들 때는 왼쪽을 채웁니다. 그래야 모든 프롬프트의 끝이 응답의 시작과 맞닿습니다.
#
# 흔한 사고가 하나 있습니다. 채움 토큰이 따로 없는 모델에서 `pad = eos`로 두고, 채운 자리를 **토큰 번호로** 찾아 가리는 것입니다.

# %% [markdown] lang="en" of="072c1969"
# Padding has the label -100 and an attention mask of 0. The width is a multiple of 8, which GPUs compute faster. For training
# we pad on the right, for generation on the left, so that every prompt ends where its reply begins.
#
# A common accident: a model has no padding token, somebody sets `pad = eos`, and padding is then found, and masked, **by its
# number**.

# %%
eos = tokenizer.eos_token_id
ends_with_eos = encode(tokenizer, template.render(task), task.output, spec.max_length)
batch = MaskingCollator(pad_token_id=eos)([ends_with_eos])
by_number = batch["labels"].masked_fill(batch["input_ids"] == eos, IGNORE_INDEX)

print("eos trained, mask by length  ", int((batch["labels"] == eos).sum()))
print("eos trained, mask by number  ", int((by_number == eos).sum()))
assert (batch["labels"] == eos).sum() == 1 and (by_number == eos).sum() == 0

# %% [markdown] lang="ko"
# 번호로 가리면 진짜 끝 표시까지 사라집니다. 그렇게 배운 모델은 **멈추지 않습니다**. 그래서 우리 마스크는 번호가 아니라 길이를 따릅니다.
#
# 이제 무엇을 학습하는지 셉니다. LoRA는 큰 행렬 $W$를 얼려 두고, 곁에 얇은 행렬 둘을 붙여 $W + \frac{\alpha}{r}BA$로 셈합니다.
# 입력이 $n$, 출력이 $m$인 층에서 새로 배우는 수는 $r(n+m)$개뿐입니다. 모양만 알면 되니 모델을 메모리에 올리지 않고 셉니다.

# %% [markdown] lang="en" of="a9578983"
# Masked by number, the real end disappears as well, and a model that learns so **never stops**. That is why our masks follow
# lengths and not ids.
#
# Now count what is trained. LoRA freezes a large matrix $W$ and puts two thin ones beside it: $W + \frac{\alpha}{r}BA$. In a
# layer with $n$ inputs and $m$ outputs that is only $r(n+m)$ new numbers. Shapes are all you need, so no weights are loaded.

# %%
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

from course_utils.inference import find_base, quiet

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

# %% [markdown] lang="en" of="6d77f5be"
# Your count is the PEFT library's. Nothing else is touched, so gradients and optimiser states are needed for these only, and
# what comes out is one small file.

# %% [markdown] lang="ko"
# ## 5. 학습
#
# 가르치기 전에 먼저 물어봅니다. 1절에서 유형마다 골라 둔 `questions`에 학습하기 전의 모델은 뭐라고 답할까요?

# %% [markdown] lang="en" of="39b45a51"
# ## 5. Train
#
# Ask before you teach: what does the model say to the few fixed held-out `questions` of section 1 before it is tuned?

# %%
from course_utils.inference import generate, load_model
from course_utils.prompts import get_template

model, tokenizer = load_model(course.base_model)
template = get_template(course.recipe.train.template, tokenizer)
prompts = [template.render(task) for task in questions]
limit = course.recipe.evaluate.max_new_tokens
said = generate(model, tokenizer, prompts, max_new_tokens=limit)
for task, reply in list(zip(questions, said, strict=True))[:4]:
    print(f"{task.instruction} {task.input}"[:120] + f"\n   -> {reply.text[:120]!r}\n")
print(f"{sum(reply.stopped for reply in said)} of {len(said)} replies ended by themselves")
del model  # the trainer loads its own

# %% [markdown] lang="ko"
# 작은 베이스 모델이라면 글은 이어지지만 지시를 따르지 않고, 대개 멈출 때를 모릅니다. 세계를 알지만 **묻고 답하는 법**을 모릅니다.
# (이미 지시를 배운 gemma-2b-it는 이때도 제법 답합니다.)
#
# 이제 학습합니다. 레시피, 저장소, 과제를 건네면 됩니다. 도중에 끊겨도 마지막 체크포인트(checkpoint)에서 이어지고, 다 끝난 학습은 되풀이하지 않습니다.

# %% [markdown] lang="en" of="1bdc1841"
# From the tiny base model text flows, but it follows no instruction and mostly does not know when to stop. It knows its world, but not
# **how to answer**. (gemma-2b-it, tuned before, already answers quite well here.)
#
# Now train: hand over recipe, store and tasks. If it is interrupted it goes on from the last checkpoint, and a finished
# training is not repeated.

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
# 점은 기록한 손실, 선은 그 이동 평균입니다. 처음에 가파르게 내려가는 동안 모델은 대개 **형식**부터 배웁니다. 어떻게 시작하고 언제 끝내는지입니다.
# 내용은 주로 그 뒤의 완만한 구간에서 배웁니다. 손실은 가리지 않은 토큰, 곧 응답에서만 잰 값이라는 것을 잊지 마세요.

# %% [markdown] lang="en" of="b5a40af1"
# Dots are logged losses, the line is their running mean. While it falls steeply the model mostly learns **form**: how to begin
# and when to end. Content comes for the larger part later, where the curve is gentle. Remember that this loss is measured on response tokens alone.

# %% [markdown] lang="ko"
# ## 6. 전과 후
#
# 학습한 것은 어댑터뿐이니, 껐다 켰다 할 수 있습니다. 어댑터를 끄면 학습 전의 모델입니다. 같은 질문을 두 번 던져 나란히 놓습니다.

# %% [markdown] lang="en" of="d8878894"
# ## 6. Before and after
#
# Nothing but the adapter was trained, so it can be switched off and on. Switched off, this is the model before training. Put
# the same questions twice, side by side.

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

for task, old, new in zip(questions, before, after, strict=True):
    print(f"[{task.meta['family']}] {task.instruction} {task.input}"[:140])
    print(f"   reference  {task.output[:100]}")
    print(f"   before     {old.text[:100]!r}")
    verdict = "right" if exact_match(new.text, task.output) else "wrong"
    print(f"   after      {new.text[:100]!r}  {verdict}\n")

# %% [markdown] lang="ko"
# 맞은 것만 보지 말고 틀린 것을 읽어 보세요. 형식부터 틀렸나요, 아니면 형식은 맞고 내용만 틀렸나요?
# 스스로 멈춘 응답의 수도 셉니다. 끝 표시를 가르친 값이 여기에 나타납니다.

# %% [markdown] lang="en" of="e7318e23"
# Do not look at the right ones only; read the wrong ones. Is their form wrong, or is the form right and the content not?
# Count also the replies that ended by themselves: this is what training the end token has bought.

# %%
for name, replies in {"before": before, "after": after}.items():
    right = sum(exact_match(r.text, t.output) for r, t in zip(replies, questions, strict=True))
    stopped = sum(reply.stopped for reply in replies)
    print(f"{name:8}{right:3} of {len(questions)} right, {stopped:3} ended by themselves")

# %% [markdown] lang="ko"
# 질문 몇 개로는 아무것도 단정할 수 없습니다. 유형별 정답률과 그 확실함은 03에서 떼어 둔 문제 전체로 잽니다.
#
# 마지막으로 3절의 물음에 숫자로 답합니다. **마스크는 얼마나 중요할까요?** 데이터와 학습량을 똑같이 두고 마스크만 바꿔 미리 재어 둔 결과를 읽습니다.
# 셋을 견줍니다. 응답만 가르치기, 프롬프트까지 다 가르치기, 마스크가 토큰 하나만큼 길어 응답의 첫 토큰을 가린 것입니다.

# %% [markdown] lang="en" of="3cc23ba3"
# A few questions prove nothing. Exact match by family, and how sure it is, is measured in 03 on all held-out tasks.
#
# Last, section 3's question, answered in numbers: **what is the mask worth?** These were measured beforehand, on the same data
# with the same amount of training; only the mask differs. Response only, prompt as well, and a mask one token too long, which
# hides the first token of the response.

# %%
import json

from course_utils import REPO

path = REPO / "tests" / "benchmarks" / "results" / "tuning.json"
if path.is_file():
    measured = json.loads(path.read_text(encoding="utf-8"))
    print(f"exact match on held-out tasks of the micro-world, tiny-gemma-ko, {measured.get('date', '')}\n")
    assert all(run["last_loss"] < run["first_loss"] for run in measured["runs"])
    print(f"{'trained on':18}{'last loss':>9}{'right':>8}   each seed")
    print(f"{'nothing yet':18}{'-':>9}{measured['before_mean']:>8.1%}")
    for mask in dict.fromkeys(run["mask"] for run in measured["runs"]):
        runs = [run for run in measured["runs"] if run["mask"] == mask]
        loss, right = (sum(run[k] for run in runs) / len(runs) for k in ("last_loss", "mean"))
        each = "  ".join(f"{run['mean']:.1%}" for run in runs)
        print(f"{mask:18}{loss:>9.3f}{right:>8.1%}   {each}")
else:
    print("Not measured on this copy yet: python tests/benchmarks/tuning.py")

# %% [markdown] lang="ko"
# 이 표는 작은 세계와 작은 모델에서 잰 것이므로 숫자 자체보다 **차례와 간격**을 보세요. 오류는 한 번도 나지 않았고, 어느 마스크로도 손실은 얌전히 내려갔습니다.
# 마지막 손실 칸과 정답률 칸을 견주어 보세요. 손실이 가장 낮은 쪽이 정답률도 가장 높은가요? 마스크마다 손실을 재는 토큰이 다르니, 손실끼리는 견줄 수 없습니다.
# 마스크의 실수는 손실 그림에 나타나지 않습니다. 그래서 학습하기 전에 `show_mask`로 눈으로 보는 것입니다.

# %% [markdown] lang="en" of="4ffa35e2"
# This was measured with a small model in a small world, so look at **order and distance**, not at the numbers themselves. There
# was not one error, and with every mask the loss went down politely. Compare the last losses with the shares that are right:
# is the lowest loss the best model? Each mask measures its loss on other tokens, so these losses cannot be compared with each
# other. A wrong mask does not show in a loss curve. That is why you look at it with `show_mask` before you train.

# %% [markdown] lang="ko"
# ## 7. 봉인하고 다시 불러오기
#
# `train`은 학습이 끝나자마자 결과를 봉인했습니다. 봉인된 폴더에는 파일마다 크기와 SHA-256을 적은 목록(manifest)이 있고, 목록은 **맨 나중에** 쓰입니다.
# 목록이 없거나 맞지 않으면 그 폴더는 없는 것으로 칩니다. 반쯤 쓰다 끊긴 체크포인트를 믿는 일이 없어집니다.

# %% [markdown] lang="en" of="e652561c"
# ## 7. Seal and load again
#
# `train` sealed its result as soon as it was done. A sealed folder has a manifest with the size and SHA-256 of every file, and
# the manifest is written **last**. A folder without one, or with one that does not fit, counts as not there, so a checkpoint
# that was cut off half-way is never believed.

# %%
import json

sealed = course.artefact("train")
manifest = sealed / "MANIFEST.json"  # the shipped sample has none: it is part of the course itself
if manifest.is_file():
    for name, file in json.loads(manifest.read_text(encoding="utf-8"))["files"].items():
        print(f"{file['sha256'][:16]}  {file['bytes']:>9,} bytes  {name}")

# %% [markdown] lang="ko"
# 베이스 모델과 어댑터만 있으면 다른 컴퓨터에서도 같은 모델이 됩니다. 정말 그런지, 폴더를 다른 곳에 복사해 새로 불러오고 응답이 같은지 봅니다.

# %% [markdown] lang="en" of="c326ce80"
# With base model and adapter you have the same model on another machine. Copy the adapter's folder somewhere else, load it
# afresh, and see whether the replies are the same.

# %%
import shutil
import tempfile
from pathlib import Path

from course_utils.inference import load_model, reply
from course_utils.prompts import get_template


def answers(adapter):
    """The replies to the fixed questions from a model that is loaded for this alone."""
    model, tokenizer = load_model(course.base_model, adapter)
    template = get_template(course.recipe.train.template, tokenizer)
    prompts = [template.render(task) for task in questions]
    return reply(model, tokenizer, prompts, max_new_tokens=course.recipe.evaluate.max_new_tokens)


with tempfile.TemporaryDirectory() as elsewhere:
    copy = Path(shutil.copytree(sealed / "adapter", Path(elsewhere) / "adapter"))
    assert answers(copy) == answers(sealed / "adapter")
print(f"{len(questions)} equal replies from the sealed adapter and from a copy of it")

# %% [markdown] lang="ko"
# 이제 가진 것은 이렇습니다.
#
# - 봉인된 LoRA 어댑터: 베이스 모델에 얹으면 지시를 따르는 모델이 됩니다.
# - `result.json`: 레시피, 데이터의 해시, 라이브러리 버전, 걸린 시간. 누가 다시 해도 같은 것을 만들 수 있는 기록입니다.
# - 마스크를 직접 쓰고 증명해 본 경험. 다른 틀, 다른 모델로 옮겨 갈 때 가장 먼저 확인할 것이 무엇인지 압니다.
#
# 더 해 볼 것: `course.recipe.replace("train.lora_r", 16)`으로 만든 레시피를 `train(..., step="rank-16")`에 건네 보세요. 어댑터는 네 배가 됩니다. 응답도 그만큼 나아지나요?
#
# 다음은 [03 평가](03_evaluate.ipynb)입니다. 얼마나 나아졌는지, 그리고 그 말이 얼마나 확실한지 잽니다.

# %% [markdown] lang="en" of="4599780f"
# What you have now:
#
# - A sealed LoRA adapter: put on the base model, it makes a model that follows instructions.
# - `result.json`: recipe, hash of the data, versions of the libraries, time. With it anybody can make the same again.
# - The experience of having written a mask and proved it. With another template or another model you know what to check first.
#
# To try: give `train(..., step="rank-16")` a recipe made by `course.recipe.replace("train.lora_r", 16)`. The adapter is four
# times as large. Are the replies that much better?
#
# Next is [03 Evaluate](03_evaluate.ipynb): how much better the model is, and how sure that is.
