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
# 노트북 01에서 지시 데이터를 얻었습니다. 이제 모델이 지시를 따르도록 **미세조정**(fine-tuning)합니다.
# 학습은 라이브러리가 거의 다 해 줍니다. 사람이 정할 것은 **어느 토큰에서 배우게 할 것인가**입니다. 토큰(token)은 모델이 글을 읽고 쓰는 조각이고, 배우지 않을 토큰을 가리는 일이 마스킹(masking)입니다.
#
# 끝까지 가면 이런 것이 남습니다.
#
# - 과제가 글, 토큰, 레이블(label), 배치로 바뀌는 과정을 직접 쓴 코드
# - 직접 쓴 LoRA 층과 학습 반복문, 그리고 그것이 `SFTTrainer`와 같다는 확인
# - 봉인된 LoRA 어댑터(adapter), 학습 전과 후의 응답: 작은 모의 세계와 진짜 Gemma
#
# ```text
# 씨앗 과제 ──▶ [01 전처리] ──▶ 지시 데이터 ──▶ [02 학습] ──▶ LoRA 어댑터 ──▶ [03 평가] ──▶ 보고서
# ```

# %% [markdown] lang="en" of="00000000"
# # 02 Train: which tokens to teach
#
# Notebook 01 left you with instruction data. Now **fine-tune** a model until it follows instructions.
# Libraries do nearly all of the training. One decision is yours: **which tokens the model is to learn from**. Tokens are the pieces in which a model reads and writes; hiding those that it should not learn is called masking.
#
# At the end you will have
#
# - your own code from a task to text, tokens, labels and a batch
# - a LoRA layer and a training loop that you wrote, shown to equal `SFTTrainer`
# - a sealed LoRA adapter, and replies from before and after: in a small simulated world, and from a real Gemma
#
# ```text
# seed tasks ──▶ [01 preprocess] ──▶ instruction data ──▶ [02 train] ──▶ LoRA adapter ──▶ [03 evaluate] ──▶ report
# ```

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
# Base model 줄에 `assets/tiny-gemma-ko`가 보인다면, 이 강의가 직접 사전학습(pretraining)한 아주 작은 Gemma입니다. 구조는 진짜와 같고 크기만 작아 CPU에서 몇 분이면 배우지만, 아는 세계도 그만큼 작습니다. 여기서 나온 숫자를 진짜 모델의 실력으로 읽지 마세요.
# 이 모델은 글을 이어 쓰는 법만 배운 **베이스 모델**입니다. 출발점은 레시피마다 다릅니다. `gemma-2b-l4`라면 지시를 이미 한 번 배운 gemma-2b-it에서 시작합니다.

# %% [markdown] lang="en" of="00000000"
# If the card's base model is `assets/tiny-gemma-ko`, it is a very small Gemma that this course pretrained itself. It is built like the real one and only smaller, so it learns in minutes on a CPU, but the world it knows is just as small. Do not read its numbers as those of a real model.
# It is a **base model**, one that has only learned to continue text. Recipes differ in where they start: `gemma-2b-l4` starts from gemma-2b-it, which has been taught instructions once already.

# %% [markdown] lang="ko"
# ## 1. 봉인된 데이터에서 시작하기
#
# 아래 셀이 이 노트북에서 쓸 이름을 모두 들여옵니다. `MaskingCollator`, `encode_tasks`, `train`처럼 직접 써 볼 것도 있는데, 쓴 다음에 같은지 비교하기 위해서입니다. 나머지는 배관(plumbing)입니다.
# 나중에 어느 절부터 다시 시작하든, 여기 1절까지만 먼저 실행하면 됩니다.

# %% [markdown] lang="en" of="00000000"
# ## 1. Start from sealed data
#
# The cell below imports every name this notebook uses. Some, such as `MaskingCollator`, `encode_tasks` and `train`, you will write yourself; they are there so that yours can be compared with them. The rest is plumbing.
# Whatever section you want to start from later, run up to the end of this one first.

# %%
import json
import math
import random
import shutil
import tempfile
from pathlib import Path
from statistics import fmean

import datasets
import torch
from peft import LoraConfig, get_peft_model
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM, PrinterCallback, TrainerCallback
from trl import SFTConfig, SFTTrainer

from course_utils import REPO, plots
from course_utils.checkpoint import CheckpointStore
from course_utils.collator import IGNORE_INDEX, MaskingCollator, encode_prompts, encode_tasks, show_mask
from course_utils.inference import generate, load_base, load_model, load_tokenizer, quiet, reply
from course_utils.practice.checks import check
from course_utils.prompts import KOALPACA, TEMPLATES, get_template
from course_utils.recipe import load_recipe
from course_utils.stats import exact_match
from course_utils.tasks import read_tasks
from course_utils.train import train

datasets.disable_progress_bars()

# %% [markdown] lang="ko"
# 01에서 봉인한 과제를 꺼냅니다. 아직 없다면 함께 배포한 견본을 씁니다. 평가에 쓸 문제는 따로 떼어 두었습니다(held out). 한 문제라도 학습 데이터와 겹치면 03의 숫자는 믿을 수 없으므로 확인합니다.

# %% [markdown] lang="en" of="00000000"
# Take the tasks that 01 sealed, or the sample that comes with the course. The tasks for evaluation are held out. If a single one were in both, no number of 03 could be trusted, so we check.

# %%
tasks, heldout = course.training_tasks(), course.heldout()
task = next((task for task in tasks if task.input), tasks[0])  # the example of sections 2 and 3
overlap = {(t.instruction, t.input) for t in tasks} & {(t.instruction, t.input) for t in heldout}
print(f"{len(tasks):,} tasks to train on, {len(heldout)} held out, {len(overlap)} in both")
assert not overlap
print(f"\ninstruction  {task.instruction}\ninput        {task.input}\noutput       {task.output}")

tokenizer = load_tokenizer(course.base_model)
template = get_template(course.recipe.train.template, tokenizer)
end = template.end or tokenizer.eos_token
names = [*TEMPLATES, "chat"] if tokenizer.chat_template else [*TEMPLATES]

small = load_recipe("offline")  # the tiny Gemma's, for the experiments of sections 4, 5 and 8
small_tokenizer = load_tokenizer(small.base_model)
shipped = read_tasks(REPO / "assets" / "sample" / "preprocess" / "tasks.jsonl")
sample = random.Random(0).sample(shipped, 160)

# %% [markdown] lang="ko"
# 겹치는 문제는 없습니다. 보기로 든 과제는 "귀농할 만한 곳을 알아보는 중입니다. 주어진 고장이 포함된 도를 적어 주실 수 있나요?"에 `가평`이라는 입력, `경기도입니다.`라는 출력으로 되어 있습니다.
#
# ## 2. 과제 하나가 글이 되기까지
#
# 무엇을 어떻게 학습할지는 **레시피**(recipe)에 적혀 있습니다. 노트북 컴퓨터든 L4든 바뀌는 것은 이 파일뿐입니다. 여기서는 두 가지만 봅니다. `template`은 과제를 글로 펴는 틀, `max_length`는 그 글의 최대 토큰 수입니다.
#
# 모델은 칸 셋을 따로 읽지 못하고, 이어진 글 하나만 읽습니다. 같은 과제를 틀 세 가지로 펴 봅니다. `⟨…⟩`가 응답이 들어갈 자리입니다.

# %% [markdown] lang="en" of="00000000"
# Nothing is in both. The task shown asks, of someone looking for a place to start farming, which province a town is in; its input is `가평` (Gapyeong), its output `경기도입니다.` (It is Gyeonggi Province.)
#
# ## 2. From a task to text
#
# What is trained, and how, is in the **recipe**. Laptop or L4, this file is the only thing that changes. Two lines of it matter here: `template` lays a task out as text, and `max_length` is the most tokens that text may have.
#
# A model does not see three fields, only one string of text. Here is the same task in three layouts. The response goes where `⟨…⟩` is.

# %%
user = f"{task.instruction}\n\n{task.input}" if task.input else task.instruction
turns = [{"role": "user", "content": user}, {"role": "assistant", "content": task.output}]
for name in names[1:]:
    layout = get_template(name, tokenizer)
    closing = (layout.end or tokenizer.eos_token).strip()
    print(f"----- {name}\n{layout.render(task)}⟨…⟩{closing}\n")
    if name == "chat":
        ours = layout.render(task) + task.output + layout.end
        assert ours == tokenizer.apply_chat_template(turns, tokenize=False)

# %% [markdown] lang="ko"
# | 틀 | 이럴 때 씁니다 |
# |---|---|
# | `chat` | 대화 틀(chat template)이 있는 모델. 서빙 도구도 이 틀을 쓰므로, 있으면 따릅니다 |
# | `koalpaca` | 대화를 모르는 한국어 베이스. 고정된 문구가 짧습니다 |
# | `alpaca-ko` | 베이스에게 지시문과 입력이 무엇인지 문장으로 풀어 알려 줄 때 |
#
# 무엇을 고르든 **학습할 때와 쓸 때 같은 틀**이어야 합니다. 끝도 보세요. 대화 틀은 `<end_of_turn>`으로, 나머지는 `<eos>`로 끝납니다. **이 끝 표시까지 가르쳐야** 모델이 멈출 줄 압니다.
# 대화 틀은 손으로 옮기지 않고 토크나이저(tokenizer, 글을 토큰으로 바꾸는 도구)에서 끌어냈습니다. 그래서 마지막 줄의 `assert`처럼 토크나이저가 만든 글과 글자 하나까지 같습니다.
#
# 이제 토큰으로 자릅니다. 글의 시작을 알리는 BOS(`<bos>`) 토큰은 **꼭 하나** 있어야 합니다. 둘이면 모델이 본 적 없는 모양이 되고, 없으면 진짜 Gemma는 엉뚱한 글을 씁니다. 토크나이저의 기본값에 맡기면 몇 개가 붙을까요?

# %% [markdown] lang="en" of="00000000"
# | template | when |
# |---|---|
# | `chat` | the model has a chat template. Tools that serve it use it too, so follow it where there is one |
# | `koalpaca` | a Korean base model that knows no conversation. Its fixed text is short |
# | `alpaca-ko` | a base model that is to be told in sentences what instruction and input are |
#
# Whichever it is, **train and use the model with the same one**. And look at the ends: the chat template closes with `<end_of_turn>`, the others with `<eos>`. **Unless this end is trained as well**, the model never learns to stop.
# The chat layout is not typed in but derived from the tokenizer, the tool that turns text into tokens. So it equals, to the letter, what the tokenizer itself writes: that is the `assert` at the end.
#
# Now cut text into tokens. The token that begins a text, BOS (`<bos>`), must be there **exactly once**. With two, the model sees something it has never seen; with none, the real Gemma writes nonsense. How many does a tokenizer add by default?

# %%
bos = tokenizer.bos_token_id
print(f"{'':12}BOS by default   in this course   tokens")
for name in names:
    prompt = get_template(name, tokenizer).render(task)
    [ids] = encode_prompts(tokenizer, [prompt])
    by_default = tokenizer(prompt)["input_ids"].count(bos)
    print(f"{name:12}{by_default:14}{ids.count(bos):17}{len(ids):9}")
    assert ids.count(bos) == 1 or bos in (None, tokenizer.eos_token_id)

pieces = [piece.replace("\n", "⏎") for piece in tokenizer.convert_ids_to_tokens(ids)]
print("\n" + " | ".join(pieces))

# %% [markdown] lang="ko"
# 기본값은 틀과 모델에 따라 달라지고, 이 강의에서는 늘 하나입니다. 맨 오른쪽은 프롬프트의 길이입니다. 과제는 같으니 차이는 모두 틀의 문구이고, 행마다 되풀이됩니다.
# 아래는 그 토큰들입니다. `▁`는 공백, `⏎`는 줄바꿈입니다. 자주 나오는 말은 한 토큰이 되고, 어휘에 없는 음절은 `<0xEB>` 같은 바이트 셋으로 쪼개집니다.
#
# ## 3. 무엇을 가르칠 것인가: 마스킹
#
# 언어 모델은 자리마다 **다음 토큰**을 맞히며 배웁니다. 과제 하나를 토큰으로 바꾼 것을 행(row), 맞혀야 할 토큰을 적은 것을 **레이블**(`labels`)이라 합니다. 레이블은 입력과 **같은 자리**에 적습니다. 한 칸 미는 일은 모델이 합니다(4절).
#
# 가장 단순한 방법은 입력을 그대로 레이블로 쓰는 것입니다. 그런데 이대로면 사용자의 질문을 지어내는 법까지 배웁니다. 응답만 가르치려면 프롬프트 자리의 레이블을 `-100`으로 지웁니다.
# Alpaca의 학습 코드는 이렇게 합니다. 프롬프트와 응답을 **이어서** 토큰으로 바꾸고, 프롬프트만 **한 번 더** 토큰으로 바꿔 그 개수만큼 가립니다. 이것이 첫째 초안입니다.

# %% [markdown] lang="en" of="00000000"
# The default depends on the template and on the model; in this course it is always one. On the right is the prompt's length: the task is the same, so all of the difference is the template's fixed text, paid for again in every row.
# Below are the tokens: `▁` is a space, `⏎` a line break. Frequent words are one token; a syllable that the vocabulary lacks falls apart into three bytes such as `<0xEB>`.
#
# ## 3. What to teach: masking
#
# A language model learns by predicting the **next token** at every position. A task turned into tokens is a row; what is to be predicted is written down as its **labels**. They stand at the **same positions** as the input: the model itself shifts them by one (section 4).
#
# The simplest way is to use the input itself as labels. But then the model also learns to make up the user's questions. To teach the response only, put `-100` in place of the prompt's labels.
# Alpaca's training code does it like this: tokenise prompt and response **together**, tokenise the prompt **once more** by itself, and mask as many tokens as that gives. This is draft 1.

# %%
def tokens(text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def mask_by_length(prompt, response):
    """Draft 1, Alpaca's way: the prompt's length is that of the prompt tokenised alone."""
    ids, length = tokens(prompt + response), len(tokens(prompt))
    return {"input_ids": ids, "labels": [IGNORE_INDEX] * length + ids[length:]}


prompt = template.render(task)
ids = tokens(prompt + task.output + end)
print("the input as labels\n" + show_mask(tokenizer, {"input_ids": ids, "labels": ids}))
print("\ndraft 1\n" + show_mask(tokenizer, mask_by_length(prompt, task.output + end)))

# %% [markdown] lang="ko"
# 그럴듯합니다. 끝 표시도 `trained` 쪽에 있습니다. 하지만 가정이 하나 숨어 있습니다. 따로 자른 프롬프트의 토큰이 이어서 자른 토큰의 앞부분과 **똑같다**는 것입니다.
# 토큰이 경계를 넘어 붙으면 어긋납니다. 우리 틀은 괜찮은지, `### 답변:`(답변은 answer) 뒤에 누군가 공백 하나를 더 써 두었다면 어떤지 모든 과제로 세고, 어긋난 것 하나를 펼쳐 봅니다. 한 줄이 토큰 하나, 숫자는 토큰의 번호입니다.

# %% [markdown] lang="en" of="00000000"
# It looks right: even the end is `trained`. But it assumes that the tokens of the prompt alone are **exactly** those with which prompt and response together begin.
# Where a token grows across the border, they are not. Count over all tasks how often that happens, for our template and for a prompt where somebody left one space after `### 답변:` ("answer:"). Then look at one that went wrong: one token a line, with its id.

# %%
def border_moves(prompt, response):
    """Whether the prompt alone has other tokens than the beginning of prompt and response."""
    alone = tokens(prompt)
    return tokens(prompt + response)[: len(alone)] != alone


asked = "### 답변: "  # the end of a prompt, with the space that invites trouble
moved = [t.output for t in tasks if border_moves(asked, t.output + end)]
luck = sum(border_moves(template.render(t), t.output + end) for t in tasks)
print(f"this recipe's template, {course.recipe.train.template:12} wrong for {luck:6,} of {len(tasks):,} tasks")
print(f"a prompt that ends in {asked!r:14} wrong for {len(moved):6,} of {len(tasks):,} tasks")

answer = next(iter(moved), "식사하셨어요?") + end
row = mask_by_length(asked, answer)
print("together\n" + show_mask(tokenizer, row, each_token=True))
print("\nthe prompt alone\n" + " | ".join(map(tokenizer.decode, tokens(asked))))
pairs = zip(row["input_ids"], row["labels"], strict=True)
hidden = [token for token, label in pairs if label == IGNORE_INDEX]
lost = tokenizer.decode(hidden)[len(asked) :]
print(f"\nmasked although it belongs to the response: {lost!r}")
assert not moved or hidden != tokens(asked)

# %% [markdown] lang="ko"
# 우리 틀이 무사한 것은 줄바꿈이나 콜론으로 끝난다는 **우연** 덕분입니다. 공백 하나에 많은 과제의 마스크가 소리 없이 틀어집니다. 공백이 응답의 첫머리 `경기도`와 한 토큰으로 붙었고, 그 토큰이 통째로 가려졌습니다. 모델은 응답을 **시작하는 법**을 배우지 못합니다.
#
# 둘째 초안은 두 조각을 **따로** 토큰으로 바꿔 이어 붙입니다. 경계를 찾을 필요가 없습니다. 이미 알고 있으니까요.

# %% [markdown] lang="en" of="00000000"
# Our template is safe **by luck**: it happens to end in a line break or a colon. With one space, the masks of many tasks are silently wrong. Here the space has merged with the beginning of the response, `경기도`, and that token is masked: the model does not learn **how to begin**.
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
# 프롬프트를 따로 잘랐으므로, 나중에 질문을 받을 때 모델이 보게 될 토큰과 똑같습니다. 토큰 하나의 차이가 얼마나 큰지는 7절에서 숫자로 봅니다.
#
# 왜 하필 -100일까요? **손실**(loss)은 예측이 레이블에서 얼마나 빗나갔는지 재는 수이고, 학습은 이 수를 줄이는 일입니다. PyTorch의 교차 엔트로피(cross-entropy)는 레이블이 -100인 자리를 **없는 자리**로 치기로 약속했습니다. 단어가 셋뿐인 세계에서 손으로 계산해 봅니다.

# %% [markdown] lang="en" of="00000000"
# The prompt was cut by itself, so these are the very tokens the model will see when it is asked later. Section 7 shows in numbers how much one token matters.
#
# Why -100? The **loss** says how far predictions are from the labels, and training makes it smaller. By convention PyTorch's cross-entropy treats the label -100 as **a position that is not there**. Work it out by hand in a world of three words.

# %%
scores = torch.tensor([[2.0, 0.5, -1.0], [0.1, 1.5, 0.3]])  # two positions, three words
two = cross_entropy(scores, torch.tensor([0, 1]))
chances = torch.softmax(scores, dim=1)
by_hand = -(chances[0, 0].log() + chances[1, 1].log()) / 2
print(f"two positions               {two:.4f}   by hand {by_hand:.4f}")

scores = torch.cat([scores, torch.tensor([[-5.0, -5.0, 5.0]])])  # a third one, badly predicted
scores.requires_grad_()
masked = cross_entropy(scores, torch.tensor([0, 1, IGNORE_INDEX]))
trained = cross_entropy(scores, torch.tensor([0, 1, 0]))
print(f"a third with label -100     {masked:.4f}")
print(f"a third with label 0        {trained:.4f}")
masked.backward()
print("gradient of the third with label -100 ", scores.grad[2].tolist())
assert torch.isclose(two, by_hand) and masked == two and trained > two
assert not scores.grad[2].any() and scores.grad[:2].all()

# %% [markdown] lang="ko"
# 엉뚱하게 예측한 셋째 자리도 -100이면 손실을 조금도 바꾸지 않습니다. 합에서도, 나누는 개수에서도 빠지고, 그 예측에 대한 기울기(gradient, 값을 어느 쪽으로 얼마나 고칠지)도 0입니다. 그렇다고 프롬프트가 쓸모없는 것은 아닙니다. 응답의 토큰들이 프롬프트를 **읽고** 예측하므로, 프롬프트를 읽는 법은 그쪽에서 배웁니다.
#
# 그렇다면 **모든** 자리가 -100인 행은 어떨까요? 긴 글을 `max_length`에서 자르면 응답이 통째로 잘려 나갈 수 있습니다. 길이를 줄여 가며 세어 봅니다.

# %% [markdown] lang="en" of="00000000"
# A third position, however badly predicted, does not change the loss at all when its label is -100: it is left out of the sum and of the number that the sum is divided by, and the gradient of that prediction (which way and how far to change it) is 0. The prompt is not wasted, though: the response's tokens are predicted by **reading** it, and through them the model learns to read prompts.
#
# Then what about a row where **every** label is -100? Cut long texts at `max_length`, and a response may be cut away entirely. Count as the limit gets smaller.

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
# 0을 0으로 나누어 `nan`(수가 아님)이 되었습니다. 라이브러리는 흔히 이것을 0으로 적거나 그런 행을 말없이 지나칩니다. 우리는 버리고, 몇 개를 버렸는지 셉니다.
#
# 마지막 초안입니다. 조각으로 나누어 자르고, BOS는 한 번만 넣고, 끝 표시까지 가르치고, 길이를 넘으면 자르고, 가르칠 것이 없으면 버립니다. 강의의 `encode_tasks`와 한 토큰도 다르지 않아야 합니다.

# %% [markdown] lang="en" of="00000000"
# Zero divided by zero: `nan`, not a number. Libraries often write it down as 0, or pass over such rows without a word. We drop them and count what we dropped.
#
# The final draft: by segments, BOS once, the end trained, cut at the limit, dropped where nothing is left to train. Not one token may differ from the course's `encode_tasks`.

# %%
def encode_draft(task, layout, max_length):
    """The final draft; None where the prompt leaves no room for the response."""
    [asked] = encode_prompts(tokenizer, [layout.render(task)])  # BOS exactly once, from section 2
    answered = tokens(task.output + (layout.end or tokenizer.eos_token))
    ids, labels = asked + answered, [IGNORE_INDEX] * len(asked) + answered
    row = {"input_ids": ids[:max_length], "labels": labels[:max_length]}
    return row if len(asked) < max_length else None


for limit in (course.recipe.train.max_length, lengths[len(full) // 2]):
    drafts = [encode_draft(t, template, limit) for t in tasks]
    rows, report = encode_tasks(tokenizer, tasks, template, limit)
    assert list(rows) == [row for row in drafts if row] and report.dropped == drafts.count(None)
    print(f"max_length {limit}: {report}")
for name in names:  # every template: its end is the last thing trained
    layout = get_template(name, tokenizer)
    labels = encode_draft(task, layout, 4096)["labels"]
    trained = [label for label in labels if label != IGNORE_INDEX]
    assert tokenizer.decode(trained) == task.output + (layout.end or tokenizer.eos_token)

# %% [markdown] lang="ko"
# 같습니다. 첫 줄이 이 레시피의 것입니다. 가린 토큰이 가르친 토큰의 몇 배인지도 보세요. 마지막 네 줄은 어느 틀에서든 마지막으로 가르치는 것이 그 틀의 끝 표시임을 확인합니다.
#
# 연습은 배운 절의 끝에 있습니다. `...` 자리에 쓰고 셀을 다시 실행하면 `check`가 여러 입력으로 불러 보고, 어긋나면 **어떤 입력에서** 무엇이 나왔는지 알려 줍니다. 비워 두어도 오류는 나지 않습니다.

# %% [markdown] lang="en" of="00000000"
# They are equal. The first line is this recipe's; see how many more tokens are masked than trained. The last lines of the cell check that with every template the last thing trained is that template's end.
#
# Exercises stand at the end of the section they belong to. Write in place of `...` and run the cell again: `check` calls your function on a number of inputs and says **on which one** something came out wrong. A cell left as it is raises no error.

# %% [markdown] lang="ko"
# ### 연습 1. 여러 번 주고받은 대화
#
# ★★ · 약 10분 · 3절
#
# 대화가 여러 번 오갔다면 응답도 여럿입니다. `(역할, 토큰 번호의 목록)`의 목록을 받아 `{"input_ids": [...], "labels": [...]}`를 돌려주세요. `model`의 토큰만 가르치고 나머지 레이블은 `-100`입니다. 가르칠 토큰이 하나도 없으면 `None`입니다.
#
# 보기: `mask_turns([("user", [5, 6]), ("model", [7, 1])])`은 `{"input_ids": [5, 6, 7, 1], "labels": [-100, -100, 7, 1]}`입니다.

# %% [markdown] lang="en" of="00000000"
# ### Exercise 1. A conversation of several turns
#
# ★★ · about 10 minutes · section 3
#
# A longer conversation has several responses. Take a list of `(role, token ids)` and return `{"input_ids": [...], "labels": [...]}`. Only tokens of `model` are trained; everywhere else the label is `-100`. Return `None` if not a single token is left to train.
#
# Example: `mask_turns([("user", [5, 6]), ("model", [7, 1])])` is `{"input_ids": [5, 6, 7, 1], "labels": [-100, -100, 7, 1]}`.

# %%
def mask_turns(turns):
    """One row of a conversation in which what the model says is trained; None if that is nothing."""
    ...


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

# %% [markdown] lang="en" of="00000000"
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
# 첫째 초안을 다르게 고쳐 봅니다. 이어서 자른 토큰의 글 `pieces`와 프롬프트의 글 `prompt`를 받아, 토큰마다 가르칠지(`True`) 가릴지(`False`)를 목록으로 돌려주세요. **응답의 문자가 하나라도 들어 있으면** 가르칩니다. 공백과 문장 부호도 문자입니다.
#
# 보기: `trained_pieces(["답변:", " 네", "."], "답변: ")`는 `[False, True, True]`입니다. 둘째 토큰에는 프롬프트의 공백과 응답의 `네`가 함께 들어 있습니다.

# %% [markdown] lang="en" of="00000000"
# ### Exercise 2. Fix the token across the border
#
# ★★ · about 10 minutes · section 3
#
# Fix draft 1 in another way. Take `pieces`, the texts of the tokens of prompt and response together, and `prompt`, the prompt's text; return for each token whether it is trained (`True`) or masked (`False`). It is trained **if it holds at least one character of the response**, a space or a full stop included.
#
# Example: `trained_pieces(["답변:", " 네", "."], "답변: ")` is `[False, True, True]`: the second token holds the prompt's space and the response's `네`.

# %%
def trained_pieces(pieces, prompt):
    """For each token of prompt and response together, whether it is trained."""
    ...


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
# 4절에서 보듯 TRL이 이렇게 합니다. 첫 글자를 잃지 않지만, 나중에 물을 때는 그 공백이 프롬프트 쪽의 토큰이 됩니다. 그래서 강의는 조각을 따로 자릅니다.
#
# </details>

# %% [markdown] lang="en" of="00000000"
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
# TRL does this, as section 4 shows. No letter is lost, but when the model is asked later, that space is a token of the prompt. That is why the course tokenises the segments separately.
#
# </details>

# %% [markdown] lang="ko"
# ## 4. 배치: 채우고, 밀고, 나누기
#
# 행 하나하나가 바르더라도 여러 행을 배치(batch)로 묶을 때 다시 틀릴 수 있습니다. 이 절과 다음 절의 실험은 어느 레시피에서든 강의에 딸린 작은 Gemma와 견본 과제로 합니다. 정말로 가르쳐 보는데, 작은 모델이면 몇 초로 충분하기 때문입니다. 이 절의 틀은 `<eos>`로 끝나는 KoAlpaca의 것입니다.

# %% [markdown] lang="en" of="00000000"
# ## 4. Batches: pad, shift, divide
#
# Right rows can still go wrong when they are put together in a batch. Whatever the recipe, this section and the next experiment with the course's tiny Gemma and its sample tasks: on the way you really train it, which for the tiny one takes seconds. The template here is KoAlpaca's, which ends with `<eos>`.

# %%
eight = sorted(sample[:40], key=lambda t: len(t.instruction + t.input))[:8]
prompts = [KOALPACA.render(t) for t in eight]
rows = list(encode_tasks(small_tokenizer, eight, KOALPACA, 256)[0])
for t, row in zip(eight, rows, strict=True):
    print(f"{len(row['labels']):3} tokens   {t.instruction[:30]} {t.input[:30]} -> {t.output}")

# %% [markdown] lang="ko"
# 길이가 제각각이라 짧은 행은 패딩(padding) 토큰으로 채워야 한 배치가 됩니다. 첫째 초안은 채운 다음, **패딩 토큰인 자리**를 모두 가립니다. 그림에서 `-`는 가린 프롬프트, `#`은 가르치는 토큰, `.`은 모델에게 보이지 않는 자리입니다.
# 패딩 토큰이 따로 없는 모델이 많고(Polyglot-Ko), 그럴 때 흔히 `pad = eos`로 둡니다. 두 가지를 그려 봅니다.

# %% [markdown] lang="en" of="00000000"
# Their lengths differ, so the short ones are padded to make one batch. Draft 1 fills them up with the padding token, and then masks **every such token**. In the picture `-` is the masked prompt, `#` what is trained, `.` what the model does not see.
# Many models, Polyglot-Ko among them, have no padding token, and then people set `pad = eos`. Here are both.

# %%
def collate_by_id(rows, pad):
    """Draft 1: fill up with pad; what is pad is neither seen nor trained."""
    width = max(len(row["labels"]) for row in rows)
    ids = torch.tensor([row["input_ids"] + [pad] * (width - len(row["labels"])) for row in rows])
    labels = [row["labels"] + [pad] * (width - len(row["labels"])) for row in rows]
    labels = torch.tensor(labels).masked_fill(ids == pad, IGNORE_INDEX)
    return {"input_ids": ids, "attention_mask": (ids != pad).long(), "labels": labels}


def picture(batch):
    """One letter a token: - the prompt, # what is trained, . what the model does not see."""
    marks = torch.where(batch["labels"] == IGNORE_INDEX, ord("-"), ord("#"))
    marks = torch.where(batch["attention_mask"] == 0, ord("."), marks)
    return "\n".join("".join(map(chr, line)) for line in marks)


eos = small_tokenizer.eos_token_id
print(f"pad is a token of its own\n{picture(collate_by_id(rows, small_tokenizer.pad_token_id))}")
by_id = collate_by_id(rows, eos)
print(f"\npad is eos\n{picture(by_id)}")
assert all(row["labels"][-1] == eos for row in rows) and not (by_id["labels"] == eos).any()

# %% [markdown] lang="ko"
# 아래 그림에서는 행마다 마지막 `#` 하나가 사라졌습니다. 진짜 끝 표시입니다. 마지막 초안은 번호를 보지 않고 **길이**만 봅니다. 무엇을 채웠는지는 채운 사람이 알기 때문입니다.

# %% [markdown] lang="en" of="00000000"
# In the lower picture one `#` is gone from the end of each row: the real end. The final draft looks at **lengths** only, never at ids: whoever did the padding knows what is padding.

# %%
def collate(rows, pad, multiple=8):
    """The final draft: masks follow the lengths; the width is a multiple that GPUs like."""
    longest = max(len(row["labels"]) for row in rows)
    width = math.ceil(longest / multiple) * multiple
    batch = {"input_ids": [], "attention_mask": [], "labels": []}
    for row in rows:
        length, padding = len(row["labels"]), width - len(row["labels"])
        batch["input_ids"].append(row["input_ids"] + [pad] * padding)
        batch["attention_mask"].append([1] * length + [0] * padding)
        batch["labels"].append(row["labels"] + [IGNORE_INDEX] * padding)
    return {name: torch.tensor(values) for name, values in batch.items()}


for pad in (small_tokenizer.pad_token_id, eos):
    ours, theirs = collate(rows, pad), MaskingCollator(pad)(rows)
    assert ours.keys() == theirs.keys() and all(ours[name].equal(theirs[name]) for name in ours)
print(f"equal to the course's collator, whatever the padding is\n{picture(ours)}")

# %% [markdown] lang="ko"
# 강의의 `MaskingCollator`와 같은 텐서이고, pad가 eos인데도 끝의 `#`이 그대로 있습니다. 그 여덟 토큰이 무엇을 바꾸는지 봅니다. 똑같은 모델 둘을 20스텝(step)씩 가르칩니다. 스텝 하나는 가중치를 한 번 고치는 일입니다.

# %% [markdown] lang="en" of="00000000"
# The tensors equal those of the course's `MaskingCollator`, and the last `#` is there although pad is eos. What do those eight tokens change? Train two identical models, twenty steps each; each step changes the weights once.

# %%
def taught(batch):
    """A fresh tiny model after twenty steps on one batch, and its last loss."""
    model, _ = load_model(small.base_model, dtype="float32", device="cpu")
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4)
    for _ in range(20):
        optimizer.zero_grad()
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
    return model, loss.item()


for name, batch in {"masked by length": collate(rows, eos), "masked by id": by_id}.items():
    tuned, last = taught(batch)
    said = generate(tuned, small_tokenizer, prompts, max_new_tokens=24)
    learned = sum(r.text.startswith(t.output) for r, t in zip(said, eight, strict=True))
    stops = sum(reply.stopped for reply in said)
    print(f"{name}: loss {last:.2f}, {learned} of 8 begin with their label, {stops} stop")
    print(f"   {said[0].text!r}")
    assert 2 * stops < len(rows) if batch is by_id else stops == len(rows)

# %% [markdown] lang="ko"
# 손실은 둘 다 0.00이고, 두 모델 모두 여덟 응답을 자기 행의 레이블로 시작합니다. 그런데 한쪽은 **멈출 줄 모릅니다**. 끝 표시를 한 번도 배우지 못했으니, 멈춘다면 우연입니다.
#
# 모델은 이 레이블을 어떻게 쓸까요? 자리 $i$까지 읽고 예측한 것을 자리 $i + 1$의 레이블과 짝짓습니다. 이것이 **한 칸 밀기**(shift)입니다.

# %% [markdown] lang="en" of="00000000"
# Both losses are 0.00, and both models begin all eight replies with their own row's label. But one of them **does not know how to stop**: it was never once shown an end, and where it stops, it is by chance.
#
# How does the model use these labels? What it predicts after reading place $i$ is paired with the label at place $i + 1$. That is the **shift** by one.

# %%
model, _ = load_model(small.base_model, dtype="float32", device="cpu")
batch = collate(rows[:1], eos)
with torch.no_grad():
    output = model(**batch)
ids, labels = batch["input_ids"][0], batch["labels"][0]
first = labels.tolist().index(next(label for label in labels.tolist() if label != IGNORE_INDEX))
print("place   reads        is to say    in the loss")
for place in (*range(first - 3, first + 4), len(rows[0]["labels"]) - 2):
    said, wanted = small_tokenizer.convert_ids_to_tokens(ids[place : place + 2])
    print(f"{place:5}   {said:12} {wanted:12} {'yes' if labels[place + 1] != IGNORE_INDEX else 'no'}")
by_hand = cross_entropy(output.logits[0, :-1], labels[1:])  # place i against the label at i + 1
print(f"\nloss of the model {output.loss:.4f}, shifted by hand {by_hand:.4f}")
assert torch.isclose(output.loss, by_hand)

# %% [markdown] lang="ko"
# 가려진 프롬프트의 **마지막 자리**가 응답의 첫 토큰을 예측합니다. 마지막 토큰 다음에는 맞힐 것이 없습니다. 직접 밀어 계산한 손실이 모델의 손실과 같습니다.
#
# 채우는 쪽도 중요합니다. 응답은 맨 오른쪽 자리에서 이어집니다. 그래서 학습할 때와 달리 응답을 만들 때는 **왼쪽**을 채워야 프롬프트의 끝과 응답의 시작(`>`)이 맞닿습니다. 하나씩 물었을 때와 답이 같은지 봅니다. (가르치지 않은 모델이라 답 자체는 엉뚱합니다.)

# %% [markdown] lang="en" of="00000000"
# The **last place of the masked prompt** predicts the response's first token. After the last token there is nothing to predict. The loss shifted by hand equals the model's.
#
# Which side is padded matters, too. A reply is continued from the rightmost place. So to generate, unlike in training, padding goes to the **left**, where every prompt ends next to its reply (`>`). Does a batch get the same replies as one prompt at a time? (The model is untrained, so the replies themselves make no sense.)

# %%
asked = encode_prompts(small_tokenizer, prompts)
width, pad = max(map(len, asked)), small_tokenizer.pad_token_id
alone = [reply.text for reply in generate(model, small_tokenizer, prompts, max_new_tokens=12, batch_size=1)]
for side in ("left", "right"):
    batch = {"input_ids": [], "attention_mask": []}
    print(f"padded on the {side}")
    for ids in asked:
        gap, seen = [pad] * (width - len(ids)), [1] * len(ids)
        batch["input_ids"].append(gap + ids if side == "left" else ids + gap)
        hidden = [0] * len(gap)
        batch["attention_mask"].append(hidden + seen if side == "left" else seen + hidden)
    for marks in batch["attention_mask"][:3]:
        print("   " + "".join("-" if mark else "." for mark in marks) + ">>>")
    with quiet():  # transformers would warn of the right side
        out = model.generate(**{k: torch.tensor(v) for k, v in batch.items()}, max_new_tokens=12, do_sample=False)
    replies = [text.strip() for text in small_tokenizer.batch_decode(out[:, width:], skip_special_tokens=True)]
    same = sum(a == b for a, b in zip(alone, replies, strict=True))
    print(f"   {same} of {len(alone)} replies as if asked alone")
    assert same == (len(alone) if side == "left" else 0)

# %% [markdown] lang="ko"
# 오른쪽을 채우면 모델은 빈칸 뒤에 글을 이어야 하고, 여덟 응답이 모두 달라졌습니다. 채우는 대신 행을 이어 붙이는 방법(packing)은 [04](04_scale_up.ipynb)에서 다룹니다.
#
# 마지막 함정은 나눗셈입니다. 메모리가 모자라면 한 스텝의 행을 여러 번에 나누어 계산하고, 기울기를 모았다가 가중치를 한 번만 고칩니다(기울기 누적, gradient accumulation). 어떻게 나누어도 손실은 같아야 합니다.

# %% [markdown] lang="en" of="00000000"
# With padding on the right the model has to go on after a gap, and all eight replies changed. Packing rows end to end instead of padding them is for [04](04_scale_up.ipynb).
#
# The last trap is a division. Where memory is short, the rows of one step are computed in parts, whose gradients are accumulated before the weights change once (gradient accumulation). However they are divided, the loss should be the same.

# %%
window = rows[:4]  # four rows that belong to one step
trained = [sum(label != IGNORE_INDEX for label in row["labels"]) for row in window]
print("trained tokens in each row", trained)
by_tokens = []
for size in (4, 2, 1):
    parts = [collate(window[i : i + size], eos) for i in range(0, 4, size)]
    with torch.no_grad():
        means = fmean(model(**part).loss.item() for part in parts)
        sums = [model(**part, num_items_in_batch=sum(trained)).loss.item() for part in parts]
    by_tokens.append(sum(sums))
    print(f"{len(parts)} x {size} rows: mean of means {means:.4f}, by tokens {by_tokens[-1]:.4f}")
assert max(by_tokens) - min(by_tokens) < 1e-4 and abs(means - by_tokens[0]) > 0.01

# %% [markdown] lang="ko"
# 가르치는 토큰의 수가 행마다 달라서, 평균들의 평균은 나누는 방법에 따라 달라집니다. 짧은 응답의 토큰이 더 큰 몫을 차지하기 때문입니다. 오른쪽 칸은 손실의 **합**을 모은 다음 모든 토큰의 수로 **한 번만** 나누었습니다. 요즘 Trainer가 `num_items_in_batch`로 하는 일입니다.
#
# 이제 우리 레이블을 남의 눈으로 확인합니다. TRL의 `SFTTrainer`는 글이나 대화를 받으면 스스로 레이블을 만듭니다. 여러 모양으로 건네고, 무엇을 가르치려 했는지 꺼내 봅니다.

# %% [markdown] lang="en" of="00000000"
# Rows have different numbers of trained tokens, so the mean of means depends on the division: tokens of short responses weigh more. On the right the **sums** are collected and divided **once**, by all trained tokens. Today's Trainer does this, through `num_items_in_batch`.
#
# Now have our labels checked by somebody else. TRL's `SFTTrainer` makes labels of its own from texts or conversations. Hand it the same tasks in several forms and take out what it meant to train.

# %%
size = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
stub = LlamaForCausalLM(LlamaConfig(vocab_size=len(small_tokenizer), **size))


def trl_rows(examples, **options):
    """The rows that TRL would train on; the stub of a model is never trained."""
    with tempfile.TemporaryDirectory() as folder, quiet():
        options = SFTConfig(folder, use_cpu=True, bf16=False, report_to="none", max_length=None, **options)
        data = datasets.Dataset.from_list(examples)
        trainer = SFTTrainer(stub, args=options, train_dataset=data, processing_class=small_tokenizer)
    return [{"input_ids": row["input_ids"], "labels": row["labels"]} for row in trainer.train_dataset]


chat, bos = get_template("chat", small_tokenizer), small_tokenizer.bos_token
ours = list(encode_tasks(small_tokenizer, eight, chat, 256)[0])
turns = [[{"role": "user", "content": "\n\n".join(filter(None, (t.instruction, t.input)))},
          {"role": "assistant", "content": t.output}] for t in eight]
print(show_mask(small_tokenizer, ours[0]))

# %% [markdown] lang="ko"
# 이것은 우리 것입니다. 같은 과제를 일곱 가지로 건네고, 토큰과 레이블이 여덟 행 모두 우리 것과 같은지 비교합니다.

# %% [markdown] lang="en" of="00000000"
# That one is ours. Now hand the same tasks over in seven ways and compare tokens and labels with ours, in all eight rows.

# %%
messages = [{"messages": turn} for turn in turns]
halves = [{"prompt": turn[:1], "completion": turn[1:]} for turn in turns]
text = [{"prompt": bos + p, "completion": t.output} for p, t in zip(prompts, eight, strict=True)]
bare = [{"prompt": p, "completion": t.output} for p, t in zip(prompts, eight, strict=True)]
closed = [{"prompt": chat.render(t), "completion": t.output + chat.end} for t in eight]
spaced = [{"prompt": bos + p + " ", "completion": t.output} for p, t in zip(prompts, eight, strict=True)]
table = {
    "messages, assistant_only_loss=True": (trl_rows(messages, assistant_only_loss=True), ours),
    "messages": (trl_rows(messages), ours),
    "prompt and completion, messages": (trl_rows(halves), ours),
    "prompt and completion, text": (trl_rows(text), rows),
    "text without BOS": (trl_rows(bare), rows),
    "text that has its end already": (trl_rows(closed), ours),
    "a prompt that ends in a space": (trl_rows(spaced), rows),
}
print(f"{'handed over':36}ours?   masked trained   the trained part of one row")
for name, (theirs, wanted) in table.items():
    labels = [label for label in theirs[0]["labels"] if label != IGNORE_INDEX]
    said = small_tokenizer.decode(labels).replace("\n", "⏎")
    print(f"{name:36}{'equal' if theirs == wanted else 'NO':8}{len(theirs[0]['labels']) - len(labels):6}"
          f"{len(labels):8}   {said if len(said) < 42 else said[:20] + ' ... ' + said[-16:]!r}")
same = [theirs == wanted for theirs, wanted in table.values()]
assert same == [True, False, True, True, False, False, False]

# %% [markdown] lang="ko"
# 우리 레이블은 TRL이 만든 것과 토큰 하나까지 같습니다. 다만 **아무렇게나 건네도** 같은 것은 아니고, 달라질 때 오류는 나지 않습니다.
#
# - `messages`만 건네고 `assistant_only_loss`를 켜지 않으면 질문까지 모두 배웁니다.
# - 틀의 끝까지 적은 글이면 `<eos>`를 하나 더 붙입니다. 글의 BOS는 토크나이저의 기본값을 따릅니다.
# - 공백으로 끝나는 프롬프트에서는 경계를 넘은 토큰을 가르칩니다. 모델이 나중에 받을 프롬프트에는 있는 공백이 학습할 때는 없습니다.
#
# 그래서 이 강의는 글이 아니라 **우리가 만든 `input_ids`와 `labels`를** 건넵니다. TRL은 그대로 씁니다.

# %% [markdown] lang="en" of="00000000"
# Our labels equal TRL's, token for token. But not for **everything** you hand over, and where they differ there is no error.
#
# - `messages` with `assistant_only_loss` left off trains everything, the question included.
# - Text that already has its end gets one more, `<eos>`. BOS in text is as the tokenizer's defaults have it.
# - Where a prompt ends in a space, the token across the border is trained: in training the prompt lacks the very space that it will have when the model is asked.
#
# That is why this course hands over not text but **the `input_ids` and `labels` you have made**. TRL uses them as they are.

# %% [markdown] lang="ko"
# ### 연습 3. 왼쪽을 채우는 배치
#
# ★★ · 약 15분 · 4절
#
# 프롬프트마다 토큰 번호의 목록이 든 `prompts`와 패딩 번호 `pad`를 받아, 아래 세 키를 가진 딕셔너리를 돌려주세요. 값은 모두 목록의 목록입니다.
#
# - `input_ids`: 가장 긴 것에 맞추어 왼쪽을 `pad`로 채웁니다.
# - `attention_mask`: 진짜 토큰은 1, 채운 자리는 0입니다. **`pad`와 같은 번호가 프롬프트 안에도 있을 수 있습니다.**
# - `position_ids`: 진짜 첫 토큰이 0입니다. 채운 자리도 0으로 둡니다.
#
# 보기: `pad_left([[5, 6, 7], [8]], 0)`의 `input_ids`는 `[[5, 6, 7], [0, 0, 8]]`, `attention_mask`는 `[[1, 1, 1], [0, 0, 1]]`, `position_ids`는 `[[0, 1, 2], [0, 0, 0]]`입니다.

# %% [markdown] lang="en" of="00000000"
# ### Exercise 3. A batch padded on the left
#
# ★★ · about 15 minutes · section 4
#
# Take `prompts`, a list of token ids for each prompt, and the id `pad`; return a dictionary with three keys, each a list of lists.
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
# `[i != pad for i in ids]`로 되찾으려 하면 `pad`가 eos인 모델에서 틀립니다.
#
# </details>

# %% [markdown] lang="en" of="00000000"
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
# Recovering the mask with `[i != pad for i in ids]` goes wrong wherever pad is eos.
#
# </details>

# %% [markdown] lang="ko"
# ### 연습 4. 한 스텝의 손실
#
# ★ · 약 5분 · 4절
#
# `steps`에는 한 스텝을 나누어 계산한 배치마다 **가르치는 토큰의 손실**이 목록으로 들어 있습니다. 어떻게 나누었든 같은 손실을 돌려주세요. 가르치는 토큰이 하나도 없으면 `None`입니다.
#
# 보기: `window_loss([[4.0], [1.0, 1.0, 1.0]])`은 (4 + 1 + 1 + 1) / 4 = 1.75입니다. 평균의 평균인 2.5가 아닙니다.

# %% [markdown] lang="en" of="00000000"
# ### Exercise 4. The loss of one step
#
# ★ · about 5 minutes · section 4
#
# `steps` holds, for each part of one accumulated step, a list of **the losses of its trained tokens**. Return the loss, the same however the step is cut into parts. If there is no trained token at all, it is `None`.
#
# Example: `window_loss([[4.0], [1.0, 1.0, 1.0]])` is (4 + 1 + 1 + 1) / 4 = 1.75, and not the mean of means, 2.5.

# %%
def window_loss(steps):
    """The loss of an accumulation window, each trained token weighing the same."""
    ...


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
# 0을 돌려주면 손실 그림에서는 완벽한 학습으로 보입니다. 실패한 것을 숫자로 적지 마세요.
#
# </details>

# %% [markdown] lang="en" of="00000000"
# <details><summary>Solution</summary>
#
# ```python
# def window_loss(steps):
#     losses = [loss for step in steps for loss in step]
#     return sum(losses) / len(losses) if losses else None
# ```
#
# A 0 would look like perfect training in a loss curve. What failed must not become a number.
#
# </details>

# %% [markdown] lang="ko"
# ## 5. LoRA와 학습
#
# 이 레이블로 가르칩니다. 레시피의 학습 설정 가운데 결과를 좌우하는 것은 여섯 가지입니다. 작은 Gemma(`offline`), 진짜 Gemma 3 270M, L4의 Gemma 2B에서 어떻게 다른지 봅니다.

# %% [markdown] lang="en" of="00000000"
# ## 5. LoRA and training
#
# Now teach with these labels. Of all the training settings in a recipe, six decide what comes out. See how they differ between the tiny Gemma (`offline`), the real Gemma 3 270M, and Gemma 2B on an L4.

# %%
six = ("learning_rate", "epochs", "batch_size", "gradient_accumulation", "warmup", "lora_r", "lora_alpha")
recipes = {name: load_recipe(name).train for name in ("offline", "gemma-270m", "gemma-2b-l4")}
print(f"{'':24}" + "".join(f"{name:>14}" for name in recipes))
for name in six:
    print(f"{name:24}" + "".join(f"{getattr(spec, name):>14g}" for spec in recipes.values()))
print(f"{'rows a step':24}" + "".join(f"{spec.effective_batch:>14}" for spec in recipes.values()))
print(f"{'alpha / r':24}" + "".join(f"{spec.lora_alpha / spec.lora_r:>14g}" for spec in recipes.values()))

# %% [markdown] lang="ko"
# | 설정 | 뜻 | 왜 이 값인가 |
# |---|---|---|
# | `learning_rate` 학습률 | 한 스텝에 가중치를 고치는 폭 | 작으면 더디고 크면 망가집니다(아래 그림). 작은 모델은 더 큰 폭이 필요하고, 또 견딥니다 |
# | `epochs` 에폭 | 데이터를 되풀이해 읽는 횟수 | 모자라면 덜 배우고 넘치면 외웁니다. 행이 2,200개면 두 번으로 되고, 175개면 세 번 읽힙니다. L4의 다섯 번은 원본을 따른 것입니다 |
# | `batch_size` × `gradient_accumulation` | 한 스텝에 읽는 행의 수 | 많으면 기울기가 덜 흔들리지만 스텝이 줄어듭니다. 메모리가 모자라면 곱을 지키며 나눕니다 |
# | `warmup` 예열 | 학습률을 0에서 올리는 처음 구간 | 옵티마이저가 기울기의 크기를 알 때까지 5%만 조심합니다 |
# | `lora_r` | $A$, $B$의 좁은 쪽 길이(rank) | 답하는 법을 배우는 데는 작아도 됩니다. 7절에서 16과 비교합니다 |
# | `lora_alpha` | 변화에 곱하는 $\alpha / r$의 $\alpha$ | 배율이 크면 학습률을 키운 것과 비슷합니다. $r$를 바꾸면 함께 살핍니다 |
#
# <details><summary>나머지 스무 가지</summary>
#
# `template`, `max_length`: 2절. `target_modules`, `lora_dropout`: LoRA를 붙이는 행렬(층마다 일곱), 무작위로 끄는 비율(0). `scheduler`: 예열한 뒤 학습률을 내리는 곡선. `optim`, `weight_decay`, `max_grad_norm`: AdamW, 가중치 줄이기(0), 기울기 길이의 한도(0.3). `dtype`, `quantize`, `attention`, `activation_checkpointing`: 정밀도, 메모리, 속도. `gpus`, `parallel`, `sampling`, `threads`: 나누어 계산하기. `heldout`, `seed`, `save_steps`, `report_to`: 검증할 몫, 난수의 출발값, 체크포인트 간격, 지켜볼 곳.
#
# </details>
#
# **LoRA**는 큰 행렬 $W$를 얼려 두고(고치지 않고), 곁에 얇은 행렬 $A$와 $B$를 붙여 $W + \frac{\alpha}{r}BA$로 계산합니다. 이 얇은 행렬들이 **어댑터**입니다. 배우는 수는 $mn$개가 아니라 $r(n + m)$개입니다.
#
# ```text
#           W                            B            A
#    ┌───────────────┐                 ┌───┐   ┌───────────────┐
#    │               │                 │   │   │     r × n     │
#    │     m × n     │    +   α / r    │ m │ · └───────────────┘
#    │    (얼림)      │                 │ × │
#    │               │                 │ r │
#    └───────────────┘                 └───┘
# ```
#
# 여덟 줄 남짓이면 쓸 수 있습니다.

# %% [markdown] lang="en" of="00000000"
# | setting | what it is | why this number |
# |---|---|---|
# | `learning_rate` | how far a step changes the weights | too small is slow, too large breaks the model (figure below). A small model needs larger steps, and survives them |
# | `epochs` | how often the data is read | too few teach little, too many are learned by heart. 2,200 rows take two, 175 rows three; the L4's five follow the original |
# | `batch_size` × `gradient_accumulation` | rows read in one step | many make a steadier gradient but fewer steps. Where memory is short, divide them and keep the product |
# | `warmup` | the first stretch, in which the rate climbs from 0 | for 5% of the steps, go carefully until the optimizer knows how large gradients are |
# | `lora_r` | the narrow side of $A$ and $B$ (rank) | learning how to answer takes little. Section 7 compares it with 16 |
# | `lora_alpha` | the $\alpha$ of $\alpha / r$, by which the change is multiplied | a larger factor acts much like a larger rate. Look at it when you change $r$ |
#
# <details><summary>The other twenty</summary>
#
# `template`, `max_length`: section 2. `target_modules`, `lora_dropout`: the matrices that get LoRA (seven in each layer), the share switched off at random (0). `scheduler`: the curve along which the rate falls after the warm-up. `optim`, `weight_decay`, `max_grad_norm`: AdamW, shrinking of weights (0), the longest gradient allowed (0.3). `dtype`, `quantize`, `attention`, `activation_checkpointing`: precision, memory, speed. `gpus`, `parallel`, `sampling`, `threads`: sharing out the work. `heldout`, `seed`, `save_steps`, `report_to`: the share kept for validation, where random draws start, how often to save, who watches.
#
# </details>
#
# **LoRA** freezes a large matrix $W$ (does not change it) and puts two thin ones, $A$ and $B$, beside it: $W + \frac{\alpha}{r}BA$. These thin matrices are the **adapter**. What is learned is $r(n + m)$ numbers instead of $mn$.
#
# ```text
#           W                            B            A
#    ┌───────────────┐                 ┌───┐   ┌───────────────┐
#    │               │                 │   │   │     r × n     │
#    │     m × n     │    +   α / r    │ m │ · └───────────────┘
#    │   (frozen)    │                 │ × │
#    │               │                 │ r │
#    └───────────────┘                 └───┘
# ```
#
# It takes about eight lines.

# %%
class LoRALinear(torch.nn.Module):
    def __init__(self, linear, r, alpha):
        super().__init__()
        self.linear = linear.requires_grad_(False)  # W stays as it is
        self.A = torch.nn.Parameter(torch.randn(r, linear.in_features) / r)
        self.B = torch.nn.Parameter(torch.zeros(linear.out_features, r))
        self.scale = alpha / r

    def forward(self, x):
        return self.linear(x) + self.scale * (x @ self.A.T @ self.B.T)


x, linear = torch.randn(5, 256), torch.nn.Linear(256, 768, bias=False)
lora, double = LoRALinear(linear, r=4, alpha=32), LoRALinear(linear, r=4, alpha=64)
for name, matrix in {"W": linear.weight, "A": lora.A, "B": lora.B}.items():
    print(f"{name}  {str(tuple(matrix.shape)):12}{matrix.numel():8,} numbers, trained: {matrix.requires_grad}")
assert lora(x).equal(linear(x))  # B is 0: nothing has changed yet
torch.nn.init.normal_(lora.B)
double.load_state_dict(lora.state_dict())
change, twice = lora(x) - linear(x), double(x) - linear(x)
assert not lora(x).equal(linear(x)) and torch.allclose(2 * change, twice, atol=1e-3)
print("B = 0 changes nothing; twice alpha is twice the change")

# %% [markdown] lang="ko"
# $B$가 0에서 시작하므로 처음에는 **아무것도 바뀌지 않습니다**. $A$까지 0이면 둘 다 기울기가 0이라 영영 배우지 못하니, $A$는 무작위로 시작합니다. $\alpha$를 두 배로 하면 변화도 두 배입니다. 이제 PEFT 라이브러리가 작은 Gemma에 붙인 층에 같은 수를 넣어 비교합니다.

# %% [markdown] lang="en" of="00000000"
# $B$ starts at 0, so at first **nothing is changed**. If $A$ were 0 as well, both gradients would be 0 and neither would ever learn; so $A$ starts at random. Twice $\alpha$ is twice the change. Now give the same numbers to a layer that the PEFT library put on the tiny Gemma.

# %%
spec = small.train
settings = LoraConfig(r=spec.lora_r, lora_alpha=spec.lora_alpha, task_type="CAUSAL_LM",
                      target_modules=list(spec.target_modules))
model = get_peft_model(load_base(small.base_model)[0], settings)
theirs = model.get_submodule("base_model.model.model.layers.0.mlp.up_proj")
ours = LoRALinear(theirs.base_layer, spec.lora_r, spec.lora_alpha)
torch.nn.init.normal_(theirs.lora_B["default"].weight)  # as if it had been trained
ours.A.data, ours.B.data = theirs.lora_A["default"].weight.data, theirs.lora_B["default"].weight.data
assert torch.allclose(ours(x), theirs(x), atol=1e-5)
trained, everything = model.get_nb_trainable_parameters()
print(f"equal to peft's layer; {trained:,} of {everything:,} numbers are trained ({trained / everything:.1%})")

# %% [markdown] lang="ko"
# 같습니다. 다음은 **학습 반복문**(training loop)입니다. 4절의 `taught`에 네 가지를 더했습니다. LoRA, 예열하고 내리는 학습률, 너무 긴 기울기 줄이기, 그리고 학습에 쓰지 않은 행(`unseen`)에서도 손실 재기입니다. 마지막 것을 **검증**(validation)이라 합니다.

# %% [markdown] lang="en" of="00000000"
# Equal. Next, a **training loop**. To section 4's `taught` it adds four things: LoRA, a rate that climbs and falls, gradients cut down where they are too long, and the loss on rows that are not trained on (`unseen`). The last is called **validation**.

# %%
chat = get_template(spec.template, small_tokenizer)
encoded = list(encode_tasks(small_tokenizer, sample, chat, spec.max_length)[0])
batches = MaskingCollator(small_tokenizer.pad_token_id)


def fit(rows, rate, epochs, size, unseen=None):
    """A bare training loop; returns a log of the loss of each step and on unseen rows."""
    torch.manual_seed(spec.seed)  # A is drawn at random
    model = get_peft_model(load_base(small.base_model)[0], settings)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=rate, weight_decay=0.0)
    steps = epochs * len(rows) // size
    warm = math.ceil(spec.warmup * steps)
    wave = [(1 + math.cos(math.pi * i / (steps - warm))) / 2 for i in range(steps - warm)]
    shares = [i / warm for i in range(warm)] + wave  # of the rate: up, then down along a cosine
    log = []
    for step, share in enumerate(shares):
        start = step * size % len(rows)
        if unseen and start == 0:
            with torch.no_grad():
                log.append({"step": step, "eval_loss": model(**batches(unseen)).loss.item()})
        optimizer.param_groups[0]["lr"] = rate * share
        loss = model(**batches(rows[start : start + size])).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, spec.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        log.append({"step": step + 1, "loss": loss.item()})
    return log

# %% [markdown] lang="ko"
# 같은 128행을 세 가지로 가르칩니다. 우리 반복문, 아무것도 고치지 않은 `SFTTrainer`, 그리고 강의의 `train()`입니다. `train()`은 시드(seed)로 행을 섞으므로, 앞의 둘에는 같은 순서로 섞어 건넵니다.

# %% [markdown] lang="en" of="00000000"
# Train on the same 128 rows in three ways: our loop, a plain `SFTTrainer`, and the course's `train()`. `train()` shuffles rows by its seed, so the other two get them in that order.

# %%
rows, size = encoded[:128], spec.batch_size
order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(spec.seed)).tolist()
ordered = [rows[i] for i in order]
by_hand = [entry["loss"] for entry in fit(ordered, spec.learning_rate, 1, size)]

with tempfile.TemporaryDirectory() as folder, quiet():
    arguments = SFTConfig(
        folder, learning_rate=spec.learning_rate, num_train_epochs=1,
        per_device_train_batch_size=size, warmup_steps=spec.warmup, lr_scheduler_type="cosine",
        max_grad_norm=spec.max_grad_norm, weight_decay=0.0, seed=spec.seed,
        train_sampling_strategy="sequential", max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},  # our labels, as they are
        logging_steps=1, save_strategy="no", use_cpu=True, bf16=False, report_to="none",
        disable_tqdm=True)
    trainer = SFTTrainer(
        load_base(small.base_model)[0], args=arguments, peft_config=settings,
        processing_class=small_tokenizer, train_dataset=datasets.Dataset.from_list(ordered),
        data_collator=batches)
    trainer.remove_callback(PrinterCallback)
    trainer.train()
plain = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]

# %%
with tempfile.TemporaryDirectory() as folder:
    store, recipe = CheckpointStore.open("compare", folder), small.replace("train.epochs", 1.0)
    ours = [entry["loss"] for entry in train(recipe, store, rows=rows, progress=False).log]
print("step   the loop   SFTTrainer    train()")
for step, losses in enumerate(zip(by_hand, plain, ours, strict=True), 1):
    print(f"{step:4}" + "".join(f"{loss:12.5f}" for loss in losses))
    assert max(losses) - min(losses) < 1e-3

# %% [markdown] lang="ko"
# 세 손실이 같습니다. **`train()`은 이 반복문에 이어 가기, 봉인, 카드를 더한 것**입니다(8절). 이제부터는 안심하고 씁니다.
#
# 학습률과 에폭이 하는 일을 반복문으로 봅니다. 일부러 아주 적은 16행만, 레시피의 학습률로 24에폭, 열 배로 8에폭 가르칩니다. 주황색은 학습에 쓰지 않은 32행의 손실입니다.

# %% [markdown] lang="en" of="00000000"
# The three losses agree. **`train()` is this loop, plus resuming, sealing and the card** (section 8). From here on you can trust it.
#
# What do learning rate and epochs do? Take the loop and, on purpose, only 16 rows: 24 epochs at the recipe's rate, 8 at ten times that. Orange is the loss on 32 rows that are not trained on.

# %%
few, unseen = encoded[:16], encoded[128:]
logs = {"the recipe's rate 레시피의 학습률": fit(few, spec.learning_rate, 24, 8, unseen),
        "ten times 열 배": fit(few, 10 * spec.learning_rate, 8, 8, unseen)}
for name, log in logs.items():
    losses = [entry["eval_loss"] for entry in log if "eval_loss" in entry]
    best = min(losses)
    print(f"{name}: held-out loss {losses[0]:.2f}, lowest {best:.2f} after {losses.index(best)} epochs, "
          f"at the end {losses[-1]:.2f}")
plots.loss_curve(logs, title="Training and held-out loss 학습 손실과 떼어 둔 행의 손실 (tiny Gemma)")

# %% [markdown] lang="ko"
# 그림 설명

# %% [markdown] lang="en" of="00000000"
# figure

# %% [markdown] lang="ko"
# ### 연습 5. 설정만 보고 LoRA 세기
#
# ★★ · 약 15분 · 5절
#
# Gemma 구조의 설정 `config`와 `r`을 받아, 층마다 있는 일곱 행렬에 모두 LoRA를 붙였을 때 학습하는 수의 개수를 돌려주세요. 모델은 만들지 않습니다.
#
# | 행렬 | 입력 → 출력 |
# |---|---|
# | `q_proj` | hidden → 헤드 수 × head_dim |
# | `k_proj`, `v_proj` | hidden → **키·값** 헤드 수 × head_dim |
# | `o_proj` | 헤드 수 × head_dim → hidden |
# | `gate_proj`, `up_proj` | hidden → intermediate |
# | `down_proj` | intermediate → hidden |
#
# 키는 `hidden_size`, `intermediate_size`, `num_hidden_layers`, `num_attention_heads`, `num_key_value_heads`, `head_dim`입니다. 보기: Gemma-2B(2048, 16384, 18, 8, 1, 256)에 `r = 4`이면 4,902,912입니다.

# %% [markdown] lang="en" of="00000000"
# ### Exercise 5. Count LoRA from a configuration
#
# ★★ · about 15 minutes · section 5
#
# Take the configuration `config` of a Gemma-like model and `r`, and return how many numbers are trained with LoRA on all seven matrices of every layer. Build no model.
#
# | matrix | in → out |
# |---|---|
# | `q_proj` | hidden → heads x head_dim |
# | `k_proj`, `v_proj` | hidden → **key and value** heads x head_dim |
# | `o_proj` | heads x head_dim → hidden |
# | `gate_proj`, `up_proj` | hidden → intermediate |
# | `down_proj` | intermediate → hidden |
#
# The keys are `hidden_size`, `intermediate_size`, `num_hidden_layers`, `num_attention_heads`, `num_key_value_heads`, `head_dim`. Example: for Gemma-2B (2048, 16384, 18, 8, 1, 256) and `r = 4` it is 4,902,912.

# %%
def lora_size(config, r):
    """The number of trained parameters with LoRA of rank r on every linear layer."""
    ...


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
# `hidden_size`가 헤드 수 × `head_dim`과 같다고 여기면 Gemma-2B에서는 우연히 맞고 Gemma-7B에서는 틀립니다.
#
# </details>

# %% [markdown] lang="en" of="00000000"
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

# %% [markdown] lang="ko"
# ## 6. 학습하기
#
# 이제 모든 과제로 학습합니다. 레시피, 저장소, 과제를 건네면 됩니다. 먼저 카드가 나옵니다. 메모리가 얼마나 필요한지, 몇 스텝을 갈지, 잘리거나 버린 행이 있는지 읽어 보세요.

# %% [markdown] lang="en" of="00000000"
# ## 6. Train
#
# Now train on all the tasks: hand over recipe, store and tasks. The card comes first. Read on it how much memory this takes, how many steps it will be, and whether rows were truncated or dropped.

# %%
result = train(course.recipe, course.store, course.training_tasks())
print(f"\nloss {result.first_loss:.3f} -> {result.last_loss:.3f} in {result.steps:,} steps, {result.seconds:.0f} s")
plots.loss_curve(result.log, title="Training loss 학습 손실")

# %% [markdown] lang="ko"
# 만들어진 것은 어댑터와 두 기록, `log.json`(이 그림)과 `result.json`(레시피, 데이터의 해시, 버전)입니다. 셀을 다시 실행하면 `Already trained`라고 하며 봉인된 결과를 돌려줍니다.
# 점은 스텝마다의 손실, 선은 이동 평균입니다. 모의 세계의 이 데이터에서는 처음 몇십 스텝에 거의 다 내려가고, 나머지는 완만합니다. 응답의 토큰에서만 잰 손실이라는 것을 잊지 마세요.
#
# ## 7. 전과 후
#
# ### 모의 세계의 작은 모델
#
# 어댑터를 끄면 학습 전의 모델입니다. 떼어 둔 문제에서 유형마다 하나를 골라 두 번 묻습니다. 화살표 왼쪽이 학습 전, 오른쪽이 학습 후입니다(긴 글은 줄였습니다).

# %% [markdown] lang="en" of="00000000"
# What was made is an adapter and two records, `log.json` (this figure) and `result.json` (recipe, hash of the data, versions). Run the cell again and it says `Already trained` and returns the sealed result.
# Dots are the losses of steps, the line is their running mean. On this data of a simulated world nearly all of the fall is in the first few dozen steps. Remember that this loss is measured on response tokens alone.
#
# ## 7. Before and after
#
# ### The tiny model of the simulated world
#
# Switch the adapter off and you have the model before training. Ask one held-out question of each kind twice. Left of the arrow is the reply before training, on its right the one after it (long texts are shortened).

# %%
model, tuned_tokenizer = load_model(course.base_model, course.artefact("train") / "adapter")
families = {}
for question in heldout:
    families.setdefault(question.meta["family"], []).append(question)
each = max(1, 6 // len(families))
questions = list(chain.from_iterable(family[:each] for family in families.values()))
prompts = [template.render(question) for question in questions]
limit = course.recipe.evaluate.max_new_tokens
with model.disable_adapter():
    before = generate(model, tuned_tokenizer, prompts, max_new_tokens=limit)
after = generate(model, tuned_tokenizer, prompts, max_new_tokens=limit)
for question, old, new in zip(questions, before, after, strict=True):
    right = exact_match(new.text, question.output)
    asked = f"{question.instruction} {question.input}"
    print(f"{'right' if right else 'WRONG'}  {asked if len(asked) < 76 else '... ' + asked[-72:]}")
    print(f"       {old.text[:20]!r} -> {new.text[:36]!r}" + f", not {question.output[:36]!r}" * (not right))
for name, replies in {"before": before, "after": after}.items():
    right = sum(exact_match(r.text, q.output) for r, q in zip(replies, questions, strict=True))
    print(f"{name:7}{right:3} right, {sum(r.stopped for r in replies):3} stopped by themselves, of {len(questions)}")

# %% [markdown] lang="ko"
# 틀린 것을 읽어 보세요. 형식은 맞고 내용만 틀렸습니다. 전에는 어느 질문에나 이야기를 지어 이어 썼습니다. 질문 몇 개로 단정할 수는 없습니다. 얼마나 나아졌고 그것이 얼마나 확실한지는 03에서 잽니다.
#
# **마스크는 얼마나 중요할까요?** 미리 재어 둔 결과입니다. 시드마다 데이터를 새로 만들고 방법만 바꾸어 같은 스텝만큼 가르쳤습니다. `everything`은 프롬프트까지 가르친 것, `one token late`는 마스크가 한 토큰 길어 응답의 첫 토큰을 가린 것입니다. `full`은 LoRA 없이 모든 가중치를 고친 것으로, **학습률도 다릅니다**(4분의 1인 5e-4, 찾아본 값은 아닙니다).

# %% [markdown] lang="en" of="00000000"
# Read the wrong ones: their form is right, only the content is not. Before, the model answered every question by making up a story. But a few questions prove nothing; 03 measures how much better the model is, and how sure that is.
#
# **What is the mask worth?** This was measured beforehand: new data for each seed, and the same number of steps each way. `everything` trains the prompt as well; with `one token late` the mask is one token too long and hides the response's first. `full` changes all weights, without LoRA, and **its rate differs too** (5e-4, a quarter; it was not searched for).

# %%
path = REPO / "tests" / "benchmarks" / "results" / "tuning.json"
measured, ways = json.loads(path.read_text(encoding="utf-8")), {}
for run in measured["runs"]:
    ways.setdefault(run["variant"], []).append(run)
print(f"SIMULATED world, {measured['recipe']['base_model']}, measured {measured['date']}")
print(f"{'':18}last loss   right   each of three seeds")
for name, runs in ways.items():
    each = "  ".join(f"{run['mean']:.1%}" for run in runs)
    print(f"{name:18}{fmean(run['last_loss'] for run in runs):9.3f}{fmean(run['mean'] for run in runs):8.1%}   {each}")
right = {name: [run["mean"] for run in runs] for name, runs in ways.items()}
assert min(right["response"]) > max(right["everything"]) > max(right["one token late"])

# %% [markdown] lang="ko"
# 어느 방법에서도 오류는 나지 않았고, 손실이 가장 낮은 `one token late`가 정답률은 가장 낮습니다. 마스크마다 손실을 재는 토큰이 다르므로 손실끼리는 비교할 수 없습니다. 그래서 학습하기 전에 `show_mask`로 봅니다.
# 이것은 모의 세계의 작은 모델에서 잰 것이고, 순위가 다른 데로 **옮겨 가지는 않습니다**. Raschka의 책 『LLMs from Scratch』 7장에서는 지시문을 가린 쪽이 오히려 조금 나빴습니다. `rank 16`과 `response`는 시드 사이의 차이 안에서 겹칩니다. 여러분의 데이터라면 재어 보세요.
#
# ### 진짜 모델은?
#
# 이번에는 작지만 **진짜**입니다. 베이스 모델 google/gemma-3-270m을 `gemma-270m` 레시피로 2026-11-30에 세 번 학습했습니다. 씨앗 175개(`seeds`), 01의 진짜 교사가 지은 120개(`teacher`), 둘 다(`both`)입니다. 사람이 쓴 평가 문제 105개에 답하게 하고 기록했습니다. 대괄호는 문제를 달리 골랐을 때의 95% 구간입니다.

# %% [markdown] lang="en" of="00000000"
# None of the ways raised an error, and the one with the lowest loss, `one token late`, has the fewest right answers. Each mask measures its loss on different tokens, so losses of different masks cannot be compared. That is why you look with `show_mask` before you train.
# This is a tiny model in a simulated world, and the order **does not transfer**. In chapter 7 of Raschka's book *LLMs from Scratch*, masking the instruction came out slightly worse. `rank 16` and `response` overlap within the spread of the seeds. On your own data, measure.
#
# ### And a real one?
#
# This time it is small but **real**. The base model google/gemma-3-270m was trained three times with the recipe `gemma-270m`, recorded 2026-11-30: on the 175 seeds (`seeds`), on the 120 tasks that 01's real teacher wrote (`teacher`), and on both. Then it answered 105 evaluation tasks written by people. Brackets are 95% intervals over the choice of tasks.

# %%
real = REPO / "assets" / "real"
found = json.loads((real / "results.json").read_text(encoding="utf-8"))["replies"]
told = {"loss": "loss a token", "rouge_l": "ROUGE-L", "ended": "ended", "repeated": "repeated",
        "hangul": "Hangul", "sums": "sums right"}
models = ("base", "seeds", "teacher", "both")
print(f"{'':14}" + "".join(f"{name:22}" for name in models))
for key, name in told.items():
    cells = [found[m][key] for m in models]
    texts = [f"{c['value']:.2f} [{c['interval'][0]:.2f}, {c['interval'][1]:.2f}]" for c in cells]
    print(f"{name:14}" + "".join(f"{text:22}" for text in texts) + f"n = {cells[0]['n']}")
assert all(found[m]["sums"]["value"] == 0 for m in models)
runs = json.loads((real / "training.json").read_text(encoding="utf-8"))
logs = {f"{name} ({run['rows']} rows 행)": run["log"] for name, run in runs.items()}
plots.loss_curve(logs, title="Gemma 3 270M, training loss 학습 손실 (recorded 기록)")

# %% [markdown] lang="ko"
# a

# %% [markdown] lang="en" of="00000000"
# b

# %%
lines = (real / "replies.jsonl").read_text(encoding="utf-8").splitlines()
replies = {(row["id"], row["model"]): row for row in map(json.loads, lines)}
asked = {t.meta["id"]: t for t in read_tasks(REPO / "data" / "eval_tasks.jsonl")}
for name in ("eval_037", "eval_014", "eval_084"):
    print(f"{asked[name].instruction}\n{asked[name].input}".strip())
    for model_name in ("base", "both"):
        row = replies[name, model_name]
        text = row["reply"].replace("\n", " ⏎ ")
        print(f"   {model_name:5} {'' if row['ended'] else '(cut off) '}{text if len(text) < 150 else text[:90] + ' ...'}")
    print()

# %% [markdown] lang="ko"
# a
#
# ## 8. 봉인하고, 다시 불러오고, 이어 가기
#
# 건너뛰어도 되는 절입니다. `train`은 끝나자마자 결과를 봉인했습니다. 파일마다 크기와 체크섬(SHA-256)을 적은 목록(manifest)을 **맨 나중에** 쓰고, 목록이 없거나 맞지 않는 폴더는 없는 것으로 칩니다. 그래서 반쯤 쓰다 끊긴 것을 믿는 일이 없습니다.
# 봉인된 어댑터를 다른 폴더에 복사해, 이 노트북을 전혀 모르는 **새 프로세스**에서 불러와 응답이 같은지 비교합니다.

# %% [markdown] lang="en" of="00000000"
# b
#
# ## 8. Seal, load again, resume
#
# You may skip this section. `train` sealed its result as soon as it was done. The manifest, with the size and checksum (SHA-256) of every file, is written **last**, and a folder without one that fits counts as not there. So nothing that was cut off half-way is ever trusted.
# Copy the sealed adapter to another folder, load it in a **fresh process** that knows nothing of this notebook, and compare the replies.

# %%
sealed = course.artefact("train")
manifest = sealed / "MANIFEST.json"  # the shipped sample has none: it is part of the course itself
if manifest.is_file():
    for name, file in json.loads(manifest.read_text(encoding="utf-8"))["files"].items():
        print(f"{file['sha256'][:16]}  {file['bytes']:>9,} bytes  {name}")

ASK = """
import json, sys
from course_utils.inference import load_model, reply
base, adapter, limit = sys.argv[1:]
prompts = json.load(sys.stdin)
print(json.dumps(reply(*load_model(base, adapter), prompts, max_new_tokens=int(limit))))
"""
prompts, limit = [template.render(question) for question in heldout[:6]], 48
here = reply(*load_model(course.base_model, sealed / "adapter"), prompts, max_new_tokens=limit)
with tempfile.TemporaryDirectory() as elsewhere:
    copy = shutil.copytree(sealed / "adapter", Path(elsewhere) / "adapter")
    command = [sys.executable, "-c", ASK, course.base_model, str(copy), str(limit)]
    done = subprocess.run(command, input=json.dumps(prompts), capture_output=True, text=True, check=True)
assert json.loads(done.stdout) == here
print(f"{len(prompts)} equal replies from this notebook and from a fresh process")

# %% [markdown] lang="ko"
# 이제 학습을 도중에 끊어 봅니다. 작은 모델로 4스텝마다 체크포인트(checkpoint)를 봉인하고, 5스텝 뒤에 전원이 나간 것처럼 멈춥니다. 같은 호출을 되풀이하면 마지막 체크포인트에서 이어집니다.

# %% [markdown] lang="en" of="00000000"
# Now cut a training off. The tiny model seals a checkpoint every 4 steps and is stopped after step 5, as if the power had failed. The same call again goes on from the last checkpoint.

# %%
class PowerCut(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 5:
            raise KeyboardInterrupt


recipe = small.replace("train.epochs", 1.0).replace("train.save_steps", 4)
with tempfile.TemporaryDirectory() as folder:
    cut, whole = CheckpointStore.open("cut", folder), CheckpointStore.open("whole", folder)
    try:
        train(recipe, cut, sample[:128], callbacks=[PowerCut()], progress=False)
    except KeyboardInterrupt:
        print("interrupted after step 5")
    again = train(recipe, cut, sample[:128])
    never = train(recipe, whole, sample[:128], progress=False)
    weights = [(run.adapter / "adapter_model.safetensors").read_bytes() for run in (again, never)]
print("the adapter is byte for byte that of an uninterrupted training:", weights[0] == weights[1])

# %% [markdown] lang="ko"
# 한 번도 끊기지 않은 학습과 어댑터가 바이트까지 같습니다.
#
# 다른 사람도 쓰게 하려면 허깅페이스 허브(Hub)에 올립니다. 무엇으로 만든 모델인지 적은 모델 카드가 저절로 만들어지니, 먼저 읽어 보세요.
#
# ```python
# from course_utils.inference import push
# from course_utils.plumbing.hub import model_card
#
# print(model_card(sealed / "adapter"))
# push(sealed / "adapter", "내-아이디/gemma-2b-ko-lora")  # 비공개로 올라갑니다
# ```
#
# 어댑터를 모르는 도구에 넘기려면 베이스 모델에 합칩니다. [04](04_scale_up.ipynb)의 5절에 있습니다.
#
# ## 9. 이제 가진 것
#
# - 마스크, 배치, LoRA, 학습 반복문을 직접 쓰고 라이브러리와 같음을 확인한 경험. 다른 틀이나 모델로 옮겨 갈 때 무엇부터 볼지 압니다.
# - 봉인된 LoRA 어댑터와, 누가 해도 같은 것을 만들 수 있는 기록 `result.json`
# - 학습이 가르친 것과 가르치지 못한 것: 형식은 쉽게 바뀌고, 능력은 그렇지 않습니다.
#
# 더 해 볼 것: `course.recipe.replace("train.heldout", 0.1)`로 만든 레시피를 `train(..., step="validated")`에 건네 보세요. 손실 그림에 주황색이 생깁니다. 언제부터 평평해지나요?
#
# 다음은 [03 평가](03_evaluate.ipynb)입니다. 얼마나 나아졌는지, 그 말이 얼마나 확실한지 잽니다.

# %% [markdown] lang="en" of="00000000"
# Byte for byte, the adapter is that of a training that was never interrupted.
#
# To let others use it, put it on the Hugging Face Hub. A model card that says what the model was made from writes itself; read it first.
#
# ```python
# from course_utils.inference import push
# from course_utils.plumbing.hub import model_card
#
# print(model_card(sealed / "adapter"))
# push(sealed / "adapter", "your-name/gemma-2b-ko-lora")  # private, unless you say otherwise
# ```
#
# For tools that know no adapters, merge it into the base model: section 5 of [04](04_scale_up.ipynb).
#
# ## 9. What you have now
#
# - Mask, batch, LoRA and training loop, written by you and shown to equal the libraries. With another template or model you know what to check first.
# - A sealed LoRA adapter, and its record `result.json`, with which anybody can repeat the run.
# - What training taught, and what it did not: form changes easily, ability does not.
#
# To try: give `train(..., step="validated")` a recipe made by `course.recipe.replace("train.heldout", 0.1)`. The loss figure gets an orange line. From when on is it flat?
#
# Next is [03 Evaluate](03_evaluate.ipynb): how much better the model is, and how sure that is.
