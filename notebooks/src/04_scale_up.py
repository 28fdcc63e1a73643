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
# # 04 키우기: 같은 레시피로 더 큰 모델을
#
# 지금까지는 노트북 컴퓨터나 L4 한 장에서 학습했습니다. 모델이 다섯 배로 커지면 무엇이 달라질까요?
# 코드는 그대로입니다. **레시피 파일의 이름**이 바뀌고, 그 레시피가 어느 GPU에 들어가는지 셈할 줄 알아야 합니다.
#
# 이 노트북은 두 길을 걷습니다. 한국어 모델 Polyglot-Ko 12.8B를 KoAlpaca의 데이터로 미세조정하는 길, 그리고 LLaMA 7B를 Alpaca와 똑같이
# 전체 미세조정(full fine-tuning)하는 길입니다. 끝까지 가면 이런 것이 손에 남습니다.
#
# - 돌리기 전에 GPU 메모리를 셈하는 법, 어느 레시피가 어느 GPU에 들어가는지 적은 표
# - KoAlpaca의 데이터를 읽고, 틀로 펴고, 가려서 GPT-NeoX(Polyglot-Ko의 구조)를 LoRA로 학습한 기록
# - GPU가 둘이어도 같은 모델이 나오는 까닭과, 그러려면 지켜야 하는 것
# - 모델 하나를 두 프로세스가 나누어 드는 FSDP2를 실제로 띄워 본 기록
#
# ```text
# 01 전처리 ──▶ 02 학습 ──▶ 03 평가        GPU 한 장, 또는 노트북 컴퓨터
#                 └──▶ 04 키우기           12.8B를 A100 한 장에서, 7B를 여덟 장에서
# ```
#
# 큰 GPU가 없어도 모든 셀이 돕니다. 12.8B와 7B의 대역으로 **구조만 같고 가중치는 무작위인 아주 작은 모델**을 세우기 때문입니다.
# 거쳐 가는 코드는 진짜와 같지만, 그런 모델의 손실이나 글은 실제 모델에 관해 아무것도 말해 주지 않습니다. 나올 때마다 다시 밝히겠습니다.

# %% [markdown] lang="en" of="a4ea0268"
# # 04 Scale up: the same recipe for larger models
#
# So far you trained on a laptop or on one L4. What changes when the model is five times as large?
# Not the code. You name **another recipe file**, and you have to know which GPU that recipe fits into.
#
# This notebook does two things: it tunes the Korean model Polyglot-Ko 12.8B on KoAlpaca's data, and it fine-tunes all of
# LLaMA 7B just as Alpaca did. At the end you will have
#
# - a way to work out GPU memory before anything runs, and a table of which recipe fits into which GPU
# - KoAlpaca's data read, laid out and masked, and a GPT-NeoX (Polyglot-Ko's architecture) tuned on it with LoRA
# - the reason why two GPUs give the same model as one, and what that takes
# - the record of a real FSDP2 run, one model held by two processes
#
# ```text
# 01 preprocess ──▶ 02 train ──▶ 03 evaluate      one GPU, or a laptop
#                      └──▶ 04 scale up           12.8B on one A100, 7B on eight
# ```
#
# Every cell runs without a large GPU: **very small models of the same architecture with random weights** stand in for the 12.8B and
# the 7B. The code they pass through is the real one, but the losses and texts of such a model say nothing about any real model.
# The text says so again wherever they appear.

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
# 카드의 Recipe 줄은 01부터 03까지가 쓰는 레시피입니다. 이 노트북은 큰 모델의 레시피를 이름으로 직접 부르므로, 여기서는 Device와 Artefacts 두 줄만 보면 됩니다.

# %% [markdown] lang="en" of="713259ba"
# The card's Recipe line is the recipe of notebooks 01 to 03. This notebook calls the recipes of large models by name, so only
# the lines Device and Artefacts matter here.

# %% [markdown] lang="ko"
# ## 1. 어느 레시피가 어느 GPU에 들어가는가
#
# 레시피는 파일 하나입니다. 강의에 들어 있는 것을 모두 펼쳐 놓고, 무엇이 바뀌고 무엇이 그대로인지 봅니다.
#
# 나중에 어느 절부터 다시 시작하든, 이 절의 첫 셀만 먼저 실행하면 됩니다.

# %% [markdown] lang="en" of="e654309a"
# ## 1. Which recipe fits into which GPU
#
# A recipe is one file. Here are all those that come with the course: what changes from one to the next, and what stays?
#
# Whatever section you want to start from later, run the first cell of this section before it.

# %%
from course_utils.checkpoint import CheckpointStore
from course_utils.recipe import load_recipe, recipe_names
from course_utils.scale.memory import parameters

store = CheckpointStore.open("scale-up", course.store.root)  # this notebook's own run
recipes = {name: load_recipe(name) for name in recipe_names()}
recipes = dict(sorted(recipes.items(), key=lambda item: parameters(item[1])))
print(f"{'recipe':22}{'parameters':>15}  {'method':10}{'GPUs':>8}{'batch':>7}{'rate':>9}{'epochs':>8}"
      f"{'tokens':>8}  template")  # fmt: skip
for name, recipe in recipes.items():
    spec = recipe.train
    method = "full" if spec.full else f"LoRA r={spec.lora_r}"
    gpus = f"{spec.gpus} {spec.parallel}" if spec.gpus > 1 else "1"
    print(f"{name:22}{parameters(recipe):>15,}  {method:10}{gpus:>8}{spec.effective_batch:>7}"
          f"{spec.learning_rate:>9.0e}{spec.epochs:>8g}{spec.max_length:>8}  {spec.template}")  # fmt: skip

# %% [markdown] lang="ko"
# `batch`는 한 번 갱신할 때 읽는 행의 수(effective batch)입니다. 배치 크기, 기울기 누적(gradient accumulation) 횟수, GPU의 수를 곱한 값입니다.
# GPU가 늘거나 메모리가 모자라 배치를 줄일 때 **이 곱을 지키면** 학습률을 다시 찾지 않아도 됩니다.
# `koalpaca` 두 줄, `gemma-2b` 두 줄, `midm-2b` 두 줄이 그렇게 짝을 이룹니다. `rate`는 학습률, `tokens`는 한 행의 최대 토큰 수이고, `ddp`와 `fsdp`는 GPU 여러 장을 쓰는 두 방법입니다(3절과 4절).
#
# 메모리는 눈대중하지 않고 셈합니다. 학습하는 파라미터 하나마다 수를 네 개씩 들고 있어야 합니다. 가중치(weights) 자신, 기울기(gradient), 그리고 옵티마이저 AdamW가 기억하는 두 평균입니다.
# 수 하나를 4바이트에 적는 float32라면 모두 4 + 4 + 8 = 16바이트입니다. 얼려 둔 가중치는 2바이트짜리 bfloat16 하나면 됩니다.

# %% [markdown] lang="en" of="6a6f1912"
# `batch` is the number of rows behind one update (the effective batch): batch size times gradient accumulation times GPUs.
# When there are more GPUs, or when memory asks for smaller batches, **keep this product**, and you need not look for a new
# learning rate. The two `koalpaca` lines are such a pair, and so are those of `gemma-2b` and of `midm-2b`. `rate` is the learning rate,
# `tokens` the most tokens in a row; `ddp` and `fsdp` are two ways to use several GPUs (sections 3 and 4).
#
# Memory is worked out, not guessed. For every trained parameter four numbers are held: the weight itself, its gradient, and the two
# means that the optimizer, AdamW, remembers. In float32, at 4 bytes a number, that is 4 + 4 + 8 = 16 bytes. A frozen weight is one
# number in bfloat16, 2 bytes.

# %%
from course_utils.scale.memory import GIB, trained_parameters

recipe = load_recipe("koalpaca-12.8b-a100")
total, adapter = parameters(recipe), trained_parameters(recipe)
full = 16 * total / GIB
lora = (2 * total + 16 * adapter) / GIB
print(f"{total:,} parameters, {adapter:,} of them in the adapter ({adapter / total:.2%})\n")
print(f"full fine-tuning   16 bytes x all                    = {full:6.1f} GiB")
for gpus in (2, 4, 8):
    print(f"   cut into {gpus}                                        {full / gpus:6.1f} GiB on each GPU")
print(f"LoRA               2 bytes x all + 16 x the adapter  = {lora:6.1f} GiB")
assert full / 2 > 80 > full / 4 and lora < 40

# %% [markdown] lang="ko"
# 12.8B를 통째로 학습하려면 이것만 해도 A100 80GB 두 장으로는 모자랍니다. 그래서 KoAlpaca는 **네 장**을 쓰고, 4절에서 다룰 ZeRO-3로 가중치와 기울기와 옵티마이저를 나누어 들었습니다.
# (원본은 가중치를 float16으로 두고 float32 사본을 따로 들었지만, 2 + 2 + 4 + 8도 16바이트입니다.) LoRA라면 얼려 둔 가중치가 거의 전부라 **한 장**이면 됩니다.
#
# 나머지는 읽는 글의 길이를 따라 늘어납니다. 역전파(backward pass) 때 쓰려고 층마다 남겨 두는 활성값(activations), 그리고 마지막에 토큰마다 어휘 크기만큼 펼쳐지는 로짓(logits)입니다.
# `estimate_memory`는 이것까지 셉니다. 모델을 내려받지 않고 설정 파일만 보고 셈합니다. 파라미터의 수는 transformers와 PEFT가 **값은 비워 둔 채** 모양만 갖춘 모델을 만들어 세므로 어떤 구조든 정확합니다.
# 활성값은 어림입니다. 진짜 모델에 대어 본 적이 없는 구조라면, 어느 구조처럼 어림했는지 출력에 적힙니다.

# %% [markdown] lang="en" of="623b8744"
# For all of the 12.8B, these four numbers alone take more than two A100s with 80 GB. That is why KoAlpaca took **four** and let ZeRO-3, of
# which section 4 says more, share out weights, gradients and optimizer. (The original held float16 weights and a float32 copy of
# them, but 2 + 2 + 4 + 8 is 16 bytes as well.) With LoRA, the frozen weights are nearly everything, and **one** GPU will do.
#
# The rest grows with the text that is read: activations, which each layer keeps for the backward pass, and logits, which spread out
# to the size of the vocabulary at the end, for every token. `estimate_memory` counts these as well, from a configuration file,
# without downloading a model. For the parameters, transformers and PEFT make a model that has shapes **and no numbers in them**, so their count is exact
# for any architecture. The activations are an estimate; for an architecture that was never held against a real model, the
# output says as which other one it was estimated.

# %%
from course_utils.scale.memory import estimate_memory

print(estimate_memory(recipe))

# %% [markdown] lang="ko"
# 맨 아랫줄이 한 번에 가장 많이 쥐는 양입니다. 활성값이 작은 것은 층의 입력만 남기고 나머지는 역전파 때 다시 계산하기(activation checkpointing) 때문입니다.
# 로짓도 한꺼번에 펼치지 않고 조각으로 나누어 계산합니다. 조각내지 않으면 얼마인지는 `head` 줄 끝에 있습니다. `layer`와 `head`는 동시에 쥐지 않으므로 작은 쪽은 괄호에 넣고 합에서 뺐습니다.
#
# 이제 레시피마다 GPU에 대어 봅니다. 들어가는 가장 작은 GPU를 적고, 가중치를 모두 학습한다면 어떻게 되는지도 봅니다.

# %% [markdown] lang="en" of="b736c3a2"
# The last line is the most that is held at once. Activations are small because only the input of each layer is kept and the
# rest is computed again in the backward pass (activation checkpointing). The logits are not held all at once either but computed tile by
# tile; what they would take otherwise is at the end of the `head` line. `layer` and `head` are never held at the same time, so
# the smaller one is in brackets and not in the sum.
#
# Now compare every recipe with the GPUs: which is the smallest that it fits into, and what if all weights were trained?

# %%
from course_utils.scale.memory import fits

GPUS = {"T4": 15, "L4": 22, "A100-40": 39, "A100-80": 79}  # GiB that a program can see


def smallest(recipe):
    """The smallest GPU that one GPU's share of a training fits into; a T4 has no bfloat16."""
    able = {k: v for k, v in GPUS.items() if k != "T4" or recipe.train.dtype != "bfloat16"}
    need = estimate_memory(recipe)
    return next((name for name, gib in able.items() if fits(need, gib)), "none")


def full_on(recipe, gpus):
    """The same recipe as full fine-tuning, cut into as many parts as there are GPUs."""
    recipe = recipe.replace("train.lora_r", 0).replace("train.gpus", gpus)
    return recipe.replace("train.parallel", "fsdp" if gpus > 1 else "none")

# %%
plans = {name: recipe for name, recipe in recipes.items() if name != "offline"}
for name in ("gemma-2b-l4", "koalpaca-12.8b-a100"):
    for gpus in (1, 4, 8):
        plans[f"{name}, all weights, {gpus} GPU{'s' * (gpus > 1)}"] = full_on(recipes[name], gpus)
plans["alpaca-7b-fsdp, 4 GPUs"] = full_on(recipes["alpaca-7b-fsdp"], 4)
for name, plan in plans.items():
    print(f"{name:42}{estimate_memory(plan).total:7.1f} GiB   {smallest(plan)}")

# %%
import matplotlib.pyplot as plt

from course_utils import plots

plots.use_korean_font()
fig, ax = plt.subplots(figsize=(8.4, 6.2), layout="constrained")
for y, plan in enumerate(plans.values()):
    need, left = estimate_memory(plan), 0
    held = {"weights 가중치": need.weights + need.adapter + need.copies,
            "gradients 기울기": need.gradients, "AdamW": need.optimizer}  # fmt: skip
    held["the rest 그 밖"] = need.total - sum(held.values())
    for (part, gib), color in zip(held.items(), plots.COLORS, strict=False):
        ax.barh(y, gib, left=left, color=color, label=part if y == 0 else None)
        left += gib
ax.set(yticks=range(len(plans)), yticklabels=plans, xlabel="GiB on each GPU, estimated 장당 추정")
ax.invert_yaxis()
for name, gib in GPUS.items():
    ax.axvline(gib, color=plots.INK, linewidth=0.6)
    ax.text(gib, 1.01, name, transform=ax.get_xaxis_transform(), ha="center", fontsize=8)
ax.spines[["top", "right"]].set_visible(False)
_ = ax.legend(frameon=False, loc="lower right")

# %% [markdown] lang="ko"
# 세로줄이 GPU의 메모리입니다. LoRA 막대에는 기울기와 AdamW가 보이지 않습니다. LoRA가 줄여 주는 것은 얼린 가중치가 아니라 **학습할 때 따라다니는 것들**입니다.
# 가중치를 모두 학습하면 GPU가 늘수록 앞의 셋이 나란히 짧아집니다. 마지막 조각은 그만큼 줄지 않습니다. 나누어 드는 것은 모델이고, 읽는 글은 저마다의 몫이기 때문입니다.
#
# `none`은 이 가운데 어느 GPU에도 들어가지 않는다는 뜻입니다. T4에는 bfloat16 연산이 없어서 bfloat16 레시피에는 나오지 않습니다.
#
# 추정은 어디까지나 추정입니다. KoAlpaca가 재어 공개한 사용량은 네 장일 때 장당 약 74GB로 우리 셈(`all weights, 4 GPUs`)보다 많습니다. 원본의 학습 명령은 활성값을 다시 계산하지 않았고, ZeRO-3가 쓰는 통신 공간도 있습니다. 1~2GiB 차이로 들어간다면 그 GPU는 피하세요.
#
# 들어가지 않으면 어떻게 할까요? 결과를 가장 적게 바꾸는 것부터 시도합니다. 먼저 배치를 반으로 줄이고 누적을 두 배로 늘립니다. 그다음에는 글의 길이를 줄이고, 그래도 안 되면 다른 방법으로 바꿉니다.

# %% [markdown] lang="en" of="e0fb7cf8"
# The vertical lines are the GPUs. In the LoRA bars, gradients and AdamW are too small to see. What LoRA saves is not the frozen
# weights but **what goes with trained ones**. Where all weights are trained, the first three parts shrink with every GPU added, and the
# last does not: the model is shared out, but each GPU reads rows of its own.
#
# `none` means that it fits into none of these. A T4 has no bfloat16, so it never appears beside a bfloat16 recipe.
#
# An estimate is an estimate. On four GPUs KoAlpaca measured and published about 74 GB each, more than our sum (`all weights,
# 4 GPUs`). Its command did not recompute activations, and ZeRO-3 has buffers of its own. Where a recipe fits with only a GiB or two to spare,
# do not take that GPU.
#
# And if it does not fit? Begin with what changes the result least: half the batch with twice the accumulation, then the length of
# the texts, then another method.

# %%
from course_utils.scale.memory import what_would_fit

koalpaca = recipes["koalpaca-12.8b-a100"]
for name, recipe, gib in [
    ("LoRA, 30 GiB free", koalpaca, 30),
    ("LoRA on an L4", koalpaca, GPUS["L4"]),
    ("all weights on an A100-80", koalpaca.replace("train.lora_r", 0), GPUS["A100-80"]),
]:
    print(f"{name:27}{what_would_fit(recipe, gib)}")

# %% [markdown] lang="ko"
# 학습을 시작하면 같은 셈을 남은 메모리에 대어 보고, 들어가지 않으면 모델을 올리기 **전에** 이런 문장을 보여 주고 멈춥니다.

# %% [markdown] lang="en" of="faf8b17d"
# `train` does the same sum against the memory that is free, and if it does not fit, stops with this sentence **before**
# the model is loaded.

# %% [markdown] lang="ko"
# ## 2. KoAlpaca: 12.8B를 한 장에서
#
# KoAlpaca의 데이터는 두 가지입니다.
#
# | | 파일 | 행 | 칸 | 어떻게 만들었나 |
# |---|---|---|---|---|
# | v1.0 | `ko_alpaca_data.json` | 49,620 | instruction, input, output | Alpaca의 질문을 기계로 번역하고 ChatGPT가 다시 답함. CC-BY-NC-4.0 |
# | v1.1 | `KoAlpaca_v1.1.jsonl`, 허브(Hub)의 `beomi/KoAlpaca-v1.1a` | 약 21,000 | instruction, output, url | 네이버 지식iN에 사람이 올린 질문에서 출발해 ChatGPT가 다시 씀 |
#
# 번역은 뜻을 잃기도 합니다. KoAlpaca가 보기로 든 행에서 "Identify the odd one out"(하나만 다른 것을 고르세요)은 "홀수 중 하나를 밝히세요"가 되었습니다.
# 이런 행은 규칙이나 필터로 걸러지지 않습니다. 데이터를 고르면 몇십 행은 직접 읽어 보세요.
#
# 두 파일은 칸이 다릅니다. 01에서 쓴 `read_tasks`가 둘 다 `Task`로 바꿔 주므로 뒤의 코드는 어느 쪽인지 몰라도 됩니다.
# v1.0은 상업적으로 쓸 수 없습니다. 데이터를 고를 때 라이선스부터 보세요. 라이선스는 그 데이터로 학습한 모델에도 따라갑니다.
#
# 여기서는 네트워크 없이 돌도록, 강의의 씨앗 과제를 **KoAlpaca의 칸에 옮겨 담은** 두 파일을 씁니다. KoAlpaca의 글은 한 줄도 들어 있지 않습니다.
# 진짜 데이터로 하려면 다다음 셀에 내려받은 파일의 이름을 적거나, 허브에서 바로 읽는 두 줄을 쓰세요. 그 뒤는 그대로입니다.

# %% [markdown] lang="en" of="f731d08c"
# ## 2. KoAlpaca: 12.8B on one GPU
#
# KoAlpaca published two data sets.
#
# | | file | rows | fields | how it was made |
# |---|---|---|---|---|
# | v1.0 | `ko_alpaca_data.json` | 49,620 | instruction, input, output | Alpaca's questions translated by machine, answered anew by ChatGPT. CC-BY-NC-4.0 |
# | v1.1 | `KoAlpaca_v1.1.jsonl`, on the Hub `beomi/KoAlpaca-v1.1a` | about 21,000 | instruction, output, url | written by ChatGPT from questions that people asked on Naver |
#
# Translation can lose the meaning. In the example that KoAlpaca itself shows, "Identify the odd one out" became "홀수 중 하나를 밝히세요",
# "name one of the odd numbers". No rule and no filter catches such a row. Read a few dozen yourself before you settle on a data set.
#
# Their fields differ. `read_tasks` of notebook 01 turns both into `Task`s, and the code after it need not know which one it
# was. v1.0 may not be used commercially. Look at the licence first when you choose data: it follows the data into the model.
#
# So that this runs without a network, two files hold the seed tasks of this course **in KoAlpaca's fields**. Not one line is KoAlpaca's.
# For the real data, name a file that you downloaded in the cell after next, or use the two lines there that read the Hub. The rest
# stays as it is.

# %%
import json

from course_utils import REPO
from course_utils.tasks import read_tasks, write_atomic, write_jsonl

files = store.local("data")
seeds = [task.to_dict() for task in read_tasks(REPO / "data" / "seed_tasks.jsonl")]
v10 = [{k: seed[k] for k in ("instruction", "input", "output")} for seed in seeds]
v11 = [
    {"instruction": row["instruction"], "output": row["output"], "url": f"https://example.org/{n}"}
    for n, row in enumerate(v10)
    if not row["input"]
]
write_atomic(files / "ko_alpaca_data.json", json.dumps(v10, ensure_ascii=False, indent=4))
write_jsonl(files / "KoAlpaca_v1.1.jsonl", v11)
print(f"{len(v10)} rows like v1.0, {len(v11)} rows like v1.1, written for this course")

# %%
tasks = read_tasks(files / "ko_alpaca_data.json")  # or a file that you downloaded
asked = read_tasks(files / "KoAlpaca_v1.1.jsonl")
# From the Hub, with a network, in place of the second file (import datasets, and Task beside read_tasks):
# rows = datasets.load_dataset("beomi/KoAlpaca-v1.1a", split="train")
# asked = [Task(row["instruction"], "", row["output"], {"url": row["url"]}) for row in rows]
print(f"{len(tasks):,} tasks, {sum(bool(task.input) for task in tasks):,} with an input")
for name, task in (("v1.0", tasks[0]), ("v1.1", asked[1])):
    fields = {key: str(value)[:24] for key, value in vars(task).items()}
    print(name, "->", fields)
assert all(task.meta["url"] and not task.input for task in asked)

# %% [markdown] lang="ko"
# `url`은 `meta`에 남아 출처를 되짚을 수 있지만 모델에게는 보이지 않습니다. KoAlpaca v1.1b를 학습할 때는 채택된 답변의 글을 `input`으로 더 넣었다고 하는데,
# 공개된 v1.1a에는 그 칸이 없습니다. 같은 이름의 데이터라도 무엇이 빠졌는지 살펴보세요.
#
# 이제 KoAlpaca의 틀로 폅니다. 입력이 있으면 `맥락`이라는 칸이 하나 더 생깁니다.

# %% [markdown] lang="en" of="7a224e70"
# `url` stays in `meta`, where a source can be traced, and no model sees it. For KoAlpaca v1.1b the text of the accepted answer was
# added as `input`, its authors say; the published v1.1a has no such field. Even under one name, look at what was left out.
#
# Now lay the tasks out in KoAlpaca's template. Where there is an
# input, one more field, `맥락` (context), appears.

# %%
from course_utils.prompts import KOALPACA

for task in (tasks[0], asked[1]):
    print(KOALPACA.render(task) + "⟨…⟩\n")
assert KOALPACA.render(asked[1]) == f"### 질문: {asked[1].instruction}\n\n### 답변:"

# %% [markdown] lang="ko"
# ### Polyglot-Ko의 함정
#
# Polyglot-Ko는 GPT-NeoX 구조입니다. Gemma를 쓰다가 옮겨 오면 토크나이저 때문에 네 군데에서 걸려 넘어집니다. 앞의 세 가지는 작은 대역에도 그대로 있으니 하나씩 확인합니다.

# %% [markdown] lang="en" of="5a8845e8"
# ### Polyglot-Ko's pitfalls
#
# Polyglot-Ko is a GPT-NeoX. Coming from Gemma, you can stumble over its tokenizer in four ways. The tiny stand-in has the first three as
# well, so check them one by one.

# %%
from course_utils.inference import load_base
from course_utils.recipe import load_recipe
from course_utils.scale.tiny import tiny_base

recipe = load_recipe("koalpaca-12.8b-a100")
base = tiny_base(recipe, store.local("tiny-neox"))  # random weights: what it writes means nothing
model, tokenizer = load_base(base)
text = KOALPACA.render(asked[1])
print("kind             ", model.config.model_type, f"{model.num_parameters():,} random parameters")
print("pad token        ", tokenizer.pad_token)
print("eos, tokenizer   ", tokenizer.eos_token_id, tokenizer.eos_token)
print("eos, config      ", model.config.eos_token_id)
print("bos is eos       ", tokenizer.bos_token_id == tokenizer.eos_token_id)
print("tokenizer returns", list(tokenizer(text)))

# %% [markdown] lang="ko"
# 1. **패딩 토큰이 없습니다.** `pad = eos`로 두고 번호로 가리면 끝 표시까지 사라진다는 것을 02에서 보았습니다. 우리 마스크는 길이를 따르므로 무엇으로 채워도 됩니다.
# 2. **eos의 번호는 설정과 토크나이저가 따로 압니다.** 둘이 다르면 학습한 끝과 생성이 멈추는 끝이 달라집니다. 쓰기 전에 같은지 확인합니다. Polyglot-Ko에서는 2번입니다.
# 3. **BOS와 EOS가 같은 토큰입니다.** 이 토큰은 끝만 뜻하므로 글 앞에 붙이지 않습니다. Gemma에서는 꼭 하나 있어야 했던 것입니다.
# 4. **`token_type_ids`가 딸려 올 수 있습니다.** 이 대역의 토크나이저는 내놓지 않지만(출력의 마지막 줄), 내놓는 것도 있고 `generate`에 그대로 넘기면 오류가 납니다. 우리는 토큰 번호와 마스크만 넘깁니다.

# %% [markdown] lang="en" of="4a694d0c"
# 1. **There is no padding token.** In 02 you saw that with `pad = eos` and a mask by id the real end disappears as well. Our masks follow
#    lengths, so anything will do for padding.
# 2. **The configuration and the tokenizer each have an id for eos.** If they differ, the end that is trained is not the one at which
#    generation stops. Check before use. In Polyglot-Ko it is 2.
# 3. **BOS and EOS are one token.** It means only the end, so nothing is put before a text, where Gemma wants exactly one BOS.
# 4. **`token_type_ids` may come along.** The stand-in's tokenizer returns none (last line of the output), but some do, and passed on
#    to `generate` they are an error. We pass token ids and the mask, nothing else.

# %%
from course_utils.collator import MaskingCollator, encode, encode_prompts, show_mask

eos = tokenizer.eos_token_id
assert tokenizer.pad_token is None and eos == model.config.eos_token_id
assert eos not in encode_prompts(tokenizer, [text])[0]
row = encode(tokenizer, text, asked[1].output, recipe.train.max_length)
for line in show_mask(tokenizer, row).split("\n"):
    print(line if len(line) < 110 else f"{line[:70]} ... {line[-30:]}")

short = encode(tokenizer, KOALPACA.render(tasks[0]), tasks[0].output, recipe.train.max_length)
batch = MaskingCollator(pad_token_id=eos)([row, short])
trained = [(labels == eos).sum().item() for labels in batch["labels"]]
print("\npadded with eos, and yet the ends that are trained in these two rows are", trained)
assert trained == [1, 1] and (batch["input_ids"] == eos).sum() > 2
assert set(batch) == {"input_ids", "labels", "attention_mask"}  # and no token_type_ids

# %% [markdown] lang="ko"
# ### 원본이 한 일
#
# KoAlpaca는 언어 모델을 사전학습할 때 쓰는 코드를 그대로 가져다 학습했습니다. 이 코드는 틀로 편 글을 모두 한 줄로 이어 붙이고, 정해진 길이마다 자릅니다.
# `group_texts`라고 부르는 이 방법을 몇 줄로 옮겨, 우리 과제가 어떻게 잘리는지 봅니다. 원본의 블록은 1,024토큰이지만 여기서는 눈으로 볼 수 있게 짧게 자릅니다.

# %% [markdown] lang="en" of="fecf2f42"
# ### What the original did
#
# KoAlpaca was trained with a script for pretraining language models. It joins all texts into one and cuts it every so many
# tokens. Here is the idea, called `group_texts`, in a few lines: how are our tasks cut? The original's blocks have 1,024
# tokens; these are shorter, so that you can look at one.

# %%
from course_utils.collator import IGNORE_INDEX, encode_tasks

rows, report = encode_tasks(tokenizer, tasks, KOALPACA, recipe.train.max_length)
joined = [token for row in rows for token in row["input_ids"]]
masks = [label != IGNORE_INDEX for row in rows for label in row["labels"]]
BLOCK = 256
blocks = [joined[i : i + BLOCK] for i in range(0, len(joined) - BLOCK + 1, BLOCK)]
print(show_mask(tokenizer, {"input_ids": blocks[1], "labels": blocks[1]})[:150], "...\n")

ends = {i for i, token in enumerate(joined) if token == eos}
whole = sum(i == 0 or i - 1 in ends for i in range(0, len(joined) - BLOCK + 1, BLOCK))
print(f"{len(blocks)} blocks, {whole} of them begin where a task begins")
print(f"{1 - sum(masks) / len(masks):.0%} of what they train is prompt; {len(joined) % BLOCK} tokens are thrown away")
print(f"by segments: {report}")

# %% [markdown] lang="ko"
# 보기로 든 블록은 다른 과제의 답 한가운데에서 시작합니다. 나머지 블록도 거의 다 과제의 중간에서 시작합니다. 모두 `trained`이니 질문도 배웁니다. 앞 과제의 답을 보면서 다음 과제를 읽기도 합니다.
# 그래도 학습은 됩니다. 남는 자리가 없어 빠르고, 블록이 과제보다 훨씬 길면 잘리는 과제는 얼마 되지 않습니다. 대신 배우는 힘의 일부가 질문을 지어내는 데 쓰입니다.
#
# 우리는 과제 하나를 한 행으로 두고, 응답만 가르치고, 길이가 비슷한 행끼리 모아(`sampling: length`) 패딩을 줄입니다. 나란히 놓으면 이렇습니다.

# %% [markdown] lang="en" of="2680cb7f"
# The block shown begins in the middle of another task's answer, and nearly all the others begin within a task, too. All of it is
# `trained`, so questions are learned as well, and each task is read with the answer to the one before in sight. It works all the
# same: no space is wasted, which makes it fast, and where blocks are much longer than tasks, few tasks are cut. But part of the effort goes
# into making up questions.
#
# We keep one task a row, train the response only, and put rows of similar length side by side (`sampling: length`) so that little is
# padded. Here are the two compared:

# %%
from course_utils.scale.memory import GIB, estimate_memory, trained_parameters

spec = recipe.train
print(f"{'':16}{'KoAlpaca v1.1b, published':34}here")
for name, theirs, ours in [
    ("trained", "every weight", f"LoRA r={spec.lora_r}, {trained_parameters(recipe):,} weights"),
    ("prompt", "trained as well", "masked"),
    ("rows", "packed, blocks of 1,024 tokens", f"one task each, up to {spec.max_length:,}"),
    ("a step", "1 x 64 x 4 GPUs = 256 blocks", f"{spec.batch_size} x {spec.gradient_accumulation} x "
     f"{spec.gpus} GPU = {spec.effective_batch} rows"),
    ("rate, epochs", "5e-5, 2", f"{spec.learning_rate:.0e}, {spec.epochs:g}"),
    ("precision", "float16", spec.dtype),
    ("GPUs", "4 x A100-80, ZeRO-3", "1 x A100-80"),
    ("GB a GPU", "about 74, measured", f"{estimate_memory(recipe).total * GIB / 1e9:.0f}, estimated"),
]:  # fmt: skip
    print(f"{name:16}{theirs:34}{ours}")
assert spec.effective_batch == 256

# %% [markdown] lang="ko"
# - **LoRA인 까닭**: 한 장에 들어갑니다. 학습하는 파라미터가 적으므로 학습률은 더 크게 잡습니다. GPT-NeoX에서 PEFT는 기본으로 `query_key_value`에만 붙이지만,
#   우리는 층의 행렬 넷 모두에 붙입니다. 통째로 학습한 것에 가까워지려면 이렇게 행렬마다 붙이는 쪽이 낫다고 알려져 있습니다(QLoRA, 2023).
# - **bfloat16인 까닭**: 차지하는 메모리는 float16과 같은데 큰 수에서 넘치지 않습니다.
# - **256을 지킨 까닭**: 원본과 견줄 수 있는 것은 지키고, 바꿀 이유가 있는 것만 바꿉니다. 다만 원본의 256은 꽉 찬 블록이고 우리의 256은 그보다 짧은 행입니다.
#
# 왜 다른지는 레시피 파일에도 설정마다 적어 두었습니다.

# %% [markdown] lang="en" of="4a5f83c9"
# - **Why LoRA**: it fits into one GPU. So few trained weights need a larger learning rate. PEFT's default for GPT-NeoX is an adapter on
#   `query_key_value` alone; ours is on all four matrices of a layer, which is reported to come closer to full fine-tuning (QLoRA, 2023).
# - **Why bfloat16**: it takes as much memory as float16 and large numbers do not overflow.
# - **Why 256 again**: keep what can be compared, and change only what there is a reason to change. Mind that the original's 256 are full blocks
#   and ours are rows, which are shorter.
#
# The recipe file gives the reason beside each setting, too.

# %%
from course_utils.recipe import RECIPES

text = (RECIPES / "koalpaca-12.8b-a100.yaml").read_text(encoding="utf-8")
print(*text.split("\ntrain:\n")[1].splitlines()[:24], sep="\n")

# %% [markdown] lang="ko"
# ### 이어 붙이기
#
# 자르지 않고 행을 **통째로** 이어 붙이는 방법(packing)도 있습니다. 패딩에 쓰는 계산이 없어지지만, 뒤 행이 앞 행을 읽지 못하게 해야 합니다.
# 02의 작은 Gemma와 여덟 행으로, 네 가지 배치의 손실을 잽니다. 같은 행이니 같은 손실이 나와야 합니다.

# %% [markdown] lang="en" of="b29931c0"
# ### Packing
#
# Rows can also be joined **whole**, without cutting them (packing). Nothing is spent on padding, but no row may read the ones before it. Take
# the tiny Gemma of 02 and eight rows, and measure the loss of four kinds of batch. The rows are the same, so the loss should be.

# %%
import torch

from course_utils.inference import load_model

gemma, words = load_model("assets/tiny-gemma-ko", dtype="float32", device="cpu")
sample = read_tasks(REPO / "assets" / "sample" / "preprocess" / "tasks.jsonl")[:8]
rows = list(encode_tasks(words, sample, KOALPACA, 256)[0])
packed = {name: torch.tensor([sum((row[name] for row in rows), [])]) for name in rows[0]}
again = torch.cat([torch.arange(len(row["labels"])) for row in rows])[None]  # 0, 1, 2, ... 0, 1, ...
seen = torch.ones_like(again)
ways = {
    "a padded batch": MaskingCollator(words.pad_token_id)(rows),
    "packed, positions begin again with each row": packed | {"position_ids": again},
    "the same, but everything before is seen": packed | {"position_ids": again, "attention_mask": seen},
    "packed, one long text": packed,
}
losses = []
for name, batch in ways.items():
    with torch.no_grad():
        losses.append(gemma(**batch, use_cache=False).loss.item())
    print(f"{name:46}{batch['input_ids'].numel():4} places   loss {losses[-1]:.4f}")
assert abs(losses[0] - losses[1]) < 1e-4 and min(losses[2:]) > losses[0] + 0.1

# %% [markdown] lang="ko"
# 행마다 위치 번호를 0부터 다시 매긴 둘째 줄은 패딩한 배치와 손실이 같고, 자리는 더 적습니다. 그런데 **번호만 고쳐서 되는 일이 아닙니다.** transformers는 마스크 없이 이런 번호를 받으면
# 행의 경계를 알아보고 **어텐션까지 끊어 줍니다.** 셋째 줄은 앞을 모두 보라는 마스크를 함께 건네 그 일을 막은 것입니다. 번호가 같아도 손실이 크게 어긋납니다. 넷째 줄에서는 앞 행의 글이 뒤 행의 문맥이 됩니다.
# 어느 쪽에서도 오류는 나지 않습니다. 이어 붙인다면 이렇게 손실로 확인하세요. 이 강의의 `train`은 이어 붙이지 않습니다.

# %% [markdown] lang="en" of="1213c122"
# With positions that begin again at 0, the second line has the padded batch's loss in fewer places. But **it takes more than the positions.**
# Given such positions and no mask, transformers sees where rows begin and **cuts attention there as well.** The third line prevents
# that: it also passes a mask that lets everything before be seen. The positions are the same, and the loss is far off. In the fourth, each row has the ones before as its context.
# None of this raises an error. Where you pack, check the loss like this. The course's `train` does not pack.

# %% [markdown] lang="ko"
# ### 학습
#
# A100 80GB가 있다면 명령은 한 줄입니다. `--dry-run`을 붙이면 아무것도 학습하지 않고 카드만 보여 줍니다. 돈을 쓰기 전에 꼭 먼저 해 보세요.
#
# ```bash
# python -m course_utils.train koalpaca-12.8b-a100 --tasks KoAlpaca_v1.1.jsonl --dry-run
# python -m course_utils.train koalpaca-12.8b-a100 --tasks KoAlpaca_v1.1.jsonl
# ```
#
# 같은 명령에 `--tiny`를 붙이면 베이스 모델 자리에 무작위인 작은 대역을 세우고, 몇 초 만에 끝나도록 글의 길이, 배치, 에폭 수를 줄입니다. 여기서는 그 일을 코드로 직접 합니다.
# 그 밖에 두 가지를 더 바꿉니다. 모델이 작으니 학습률을 키우고, 과제가 적으니 떼어 두는 몫(`heldout`)을 늘립니다.

# %% [markdown] lang="en" of="dac9afb9"
# ### Train
#
# With an A100-80 it is one command. `--dry-run` trains nothing and shows the card only: always do that first, before you spend
# anything.
#
# ```bash
# python -m course_utils.train koalpaca-12.8b-a100 --tasks KoAlpaca_v1.1.jsonl --dry-run
# python -m course_utils.train koalpaca-12.8b-a100 --tasks KoAlpaca_v1.1.jsonl
# ```
#
# Add `--tiny` to the command and a small random stand-in takes the base model's place, with length, batch and epochs cut down so that
# it takes seconds. Here we do the same in code. Two more settings differ: so small a model needs a larger learning rate, and with so
# few tasks a larger share is held out.

# %%
from course_utils.scale.tiny import tiny_recipe
from course_utils.train import train

tiny = tiny_recipe(recipe, store.local("tiny-neox"))
tiny = tiny.replace("train.learning_rate", 1e-2).replace("train.heldout", 0.1)
result = train(tiny, store, tasks, step="koalpaca", progress=False)
before, after = result.first_eval_loss, result.last_eval_loss
print(f"a tiny random GPT-NeoX, {result.steps} steps: held-out loss {before:.3f} -> {after:.3f}")
assert after < before

# %% [markdown] lang="ko"
# 학습에 쓰지 않고 떼어 둔 행의 손실이 내려가지만 조금뿐입니다. 무작위 모델에는 꺼내 쓸 지식이 없고, 출력층도 무작위인 채로 얼어 있습니다.
# 이 숫자가 말해 주는 것은 하나, **데이터에서 어댑터까지 가는 길이 끊김 없이 이어져 있다**는 것입니다.
#
# 봉인된 어댑터를 다시 불러와 정말 배운 것이 담겨 있는지 봅니다. 어댑터를 켰을 때와 껐을 때 응답의 손실을 잽니다.

# %% [markdown] lang="en" of="d23f1ea7"
# The loss on rows that were held out goes down, but only a little: a random model has no knowledge to call on, and its output layer is
# random, too, and frozen. These numbers say one thing: **the path from data to adapter works from end to end**.
#
# Load the sealed adapter again and see whether it holds what was learned: the loss on responses with the adapter on, and off.

# %%
from course_utils import shown

tuned, tokenizer = load_model(tiny.base_model, result.adapter, device="cpu", dtype="float32")
rows, _ = encode_tasks(tokenizer, tasks[:24], KOALPACA, tiny.train.max_length)
batch = MaskingCollator(pad_token_id=tokenizer.eos_token_id)(list(rows))
with torch.no_grad():
    on = tuned(**batch).loss.item()
    with tuned.disable_adapter():
        off = tuned(**batch).loss.item()
print(f"loss on {len(rows)} rows: adapter off {off:.3f}, on {on:.3f}")
print("adapter:", shown(result.adapter))
assert on < off

# %% [markdown] lang="ko"
# KoAlpaca가 얻은 것도 적어 둡니다. 영화평의 긍정과 부정을 맞히는 NSMC에서, 예를 열 개 보여 주고 잰 정확도입니다. **원본이 5.8B 모델로 재어 공개한 숫자**이고 우리가 잰 것이 아닙니다.
#
# | | 프롬프트 1 | 프롬프트 2 |
# |---|---|---|
# | Polyglot-Ko 5.8B | 0.5752 | 0.7223 |
# | KoAlpaca 5.8B | 0.6939 | 0.7683 |
#
# 두 프롬프트 모두에서 올랐습니다. 그런데 베이스 모델은 프롬프트만 바꾸어도 그보다 크게 움직입니다. 숫자 하나로 모델을 말하지 않는 까닭이 여기에 있습니다.

# %% [markdown] lang="en" of="15cdcb56"
# What did KoAlpaca gain? This is the accuracy on NSMC, telling positive from negative film reviews, with ten examples shown.
# **The original measured and published these, for its 5.8B model**; they are not ours.
#
# | | prompt 1 | prompt 2 |
# |---|---|---|
# | Polyglot-Ko 5.8B | 0.5752 | 0.7223 |
# | KoAlpaca 5.8B | 0.6939 | 0.7683 |
#
# It rose with both prompts. But changing the prompt alone moves the base model further still, which is why one number is not a verdict on
# a model.

# %% [markdown] lang="ko"
# ## 3. GPU 두 장: 데이터 나누기
#
# GPU가 하나 더 생기면 가장 쉬운 방법은 **데이터 병렬**(data parallel)입니다. 두 장이 같은 모델을 통째로 들고, 서로 다른 행을 읽고, 기울기를 평균 내어 똑같이 갱신합니다.
# 레시피 두 파일에서 무엇이 다른지 봅니다.

# %% [markdown] lang="en" of="968502ec"
# ## 3. Two GPUs: share out the data
#
# With a second GPU the simplest thing is **data parallel** training: both hold the whole model, read different rows, average their
# gradients and make the same update. What differs between the two recipe files?

# %%
import dataclasses

from course_utils.recipe import load_recipe

one = dataclasses.asdict(load_recipe("koalpaca-12.8b-a100").train)
two = dataclasses.asdict(load_recipe("koalpaca-12.8b-2xa100").train)
for name in one:
    if one[name] != two[name]:
        print(f"{name:24}{one[name]!s:>8} -> {two[name]}")
rows = [spec["batch_size"] * spec["gradient_accumulation"] * spec["gpus"] for spec in (one, two)]
print(f"{'rows a step':24}{rows[0]:>8} -> {rows[1]}")
assert rows[0] == rows[1]

# %% [markdown] lang="ko"
# GPU가 두 배가 되었으니 누적을 반으로 줄여 256행을 지켰습니다. 한 번 갱신할 때 저마다 읽는 행이 반이라, 같은 학습이 거의 절반의 시간에 끝납니다.
# 오가는 것은 어댑터의 기울기뿐이라 통신도 가볍습니다.
#
# 정말 같은 결과일까요? 네 행의 기울기를 한꺼번에 구한 것과, 두 행씩 나누어 구해 평균 낸 것을 견줍니다. 응답이 짧은 두 행은 이쪽이, 긴 두 행은 저쪽이 읽습니다.

# %% [markdown] lang="en" of="4feca89d"
# Twice the GPUs, half the accumulation: still 256 rows a step. Each reads half the rows of an update, so the same training is done
# in close to half the time. Only the adapter's gradients travel, so there is little to send.
#
# Is the result really the same? Compare the gradient of four rows at once with the average of two and two: one side reads the two rows
# with short responses, the other the two with long ones.

# %%
import torch

from course_utils import REPO
from course_utils.collator import IGNORE_INDEX, MaskingCollator, encode_tasks
from course_utils.inference import load_base
from course_utils.prompts import KOALPACA
from course_utils.scale.tiny import tiny_base
from course_utils.tasks import read_tasks

base = tiny_base(load_recipe("koalpaca-12.8b-2xa100"), store.local("tiny-neox"))
model, tokenizer = load_base(base, dtype="float32")  # random weights
tasks = read_tasks(REPO / "data" / "seed_tasks.jsonl")
rows = encode_tasks(tokenizer, tasks[:40], KOALPACA, 256)[0]
rows = sorted(rows, key=lambda row: sum(label != IGNORE_INDEX for label in row["labels"]))
rows = rows[:2] + rows[-2:]  # two rows with short responses and two with long ones
for row in rows:
    trained = sum(label != IGNORE_INDEX for label in row["labels"])
    print(f"{len(row['input_ids']):>4} tokens, {trained:>4} of them trained")

# %%
def learn(rows):
    """The gradient of a batch as one long vector, and how many tokens it was taken over."""
    model.zero_grad()
    model(**MaskingCollator(pad_token_id=2)(rows)).loss.backward()
    trained = sum(label != IGNORE_INDEX for row in rows for label in row["labels"])
    return torch.cat([p.grad.flatten() for p in model.parameters()]), trained


whole, trained = learn(rows)
(left, n_left), (right, n_right) = learn(rows[:2]), learn(rows[2:])
for name, average in [
    ("plain average", (left + right) / 2),
    ("weighted by trained tokens", (n_left * left + n_right * right) / trained),
]:
    off = ((average - whole).norm() / whole.norm()).item()
    print(f"{name:28}off by {off:.4f} of the gradient's length")
    assert (off < 1e-4) == (name != "plain average")

# %% [markdown] lang="ko"
# 그냥 평균 내면 크게 어긋나고, 가르치는 토큰 수로 가중 평균하면 맞습니다. 그냥 평균은 짧은 응답의 토큰 하나를 긴 응답의 토큰 하나보다 훨씬 무겁게 치기 때문입니다.
# 기울기 누적도 같은 일을 시간 차이를 두고 하는 것이므로 규칙이 같습니다. 요즘 Trainer는 한 번 갱신할 때 읽은 **모든** 토큰의 수로 나누어 이것을 지켜 줍니다.
#
# 명령은 두 가지로 쓸 수 있고 결과는 같습니다. 실행기(launcher)가 GPU마다 프로세스를 하나씩 띄웁니다.
#
# ```bash
# torchrun --nproc_per_node=2 -m course_utils.train koalpaca-12.8b-2xa100 --tasks KoAlpaca_v1.1.jsonl
# accelerate launch --num_processes=2 -m course_utils.train koalpaca-12.8b-2xa100 --tasks KoAlpaca_v1.1.jsonl
# ```

# %% [markdown] lang="en" of="8212a544"
# A plain average is far off; one weighted by the number of trained tokens is right. In a plain average, a token of a short response
# counts for much more than one of a long response.
# Gradient accumulation does the same, one part after another, so the same rule holds. Today's Trainer sees to it by dividing by the
# number of **all** trained tokens behind an update.
#
# There are two ways to write the command, with the same result. The launcher starts one process for each GPU.
#
# ```bash
# torchrun --nproc_per_node=2 -m course_utils.train koalpaca-12.8b-2xa100 --tasks KoAlpaca_v1.1.jsonl
# accelerate launch --num_processes=2 -m course_utils.train koalpaca-12.8b-2xa100 --tasks KoAlpaca_v1.1.jsonl
# ```

# %% [markdown] lang="ko"
# ## 4. Alpaca 7B: 모델 나누기
#
# 전체 미세조정은 LoRA와 다릅니다. 1절의 셈대로라면 LLaMA 7B의 가중치, 기울기, 옵티마이저는 67억 × 16바이트, 약 100GiB라서 한 장에 들어가지 않습니다. 데이터를 나누어도 소용없습니다. 모두가 모델을 통째로 들기 때문입니다.
# 그래서 모델을 조각내어 **나누어 듭니다**(sharding). PyTorch에서는 FSDP(Fully Sharded Data Parallel)라 하고, DeepSpeed의 ZeRO-3와 같은 생각입니다.
#
# ```text
#               data parallel               FSDP2
#             GPU 0      GPU 1         GPU 0      GPU 1
# weights     ########   ########      ####....   ....####
# gradients   ########   ########      ####....   ....####
# AdamW       ########   ########      ####....   ....####
#             ########   ########      ####....   ....####
# rows        0 1 2 3    4 5 6 7       0 1 2 3    4 5 6 7
# ```
#
# 층 하나를 계산할 차례가 되면 모두가 그 층의 조각을 모아 **잠깐** 통째로 만들고, 계산이 끝나면 남의 조각을 버립니다. 역전파 때도 한 번 더 모읍니다.
# 기울기는 더해서 저마다 자기 조각만 가져갑니다. 메모리를 통신과 바꾸는 셈입니다. 읽는 행은 여전히 저마다 다릅니다.

# %% [markdown] lang="en" of="87ac4456"
# ## 4. Alpaca 7B: share out the model
#
# Full fine-tuning is another matter. By the sum of section 1, weights, gradients and optimizer of LLaMA 7B take 6.7 billion x 16
# bytes, about 100 GiB, and do not fit into one GPU. Sharing out the data does not help, since every GPU would hold the whole model.
# So the model is cut up and **each GPU holds a part** (sharding). PyTorch calls it FSDP (Fully Sharded Data Parallel); DeepSpeed's ZeRO-3
# is the same idea.
#
# ```text
#               data parallel               FSDP2
#             GPU 0      GPU 1         GPU 0      GPU 1
# weights     ########   ########      ####....   ....####
# gradients   ########   ########      ####....   ....####
# AdamW       ########   ########      ####....   ....####
#             ########   ########      ####....   ....####
# rows        0 1 2 3    4 5 6 7       0 1 2 3    4 5 6 7
# ```
#
# When a layer's turn comes, all GPUs collect its parts and hold it whole **for a moment**; once it is computed, each drops what is
# not its own. In the backward pass they collect once more. Gradients are added up, and each keeps its own part. You pay for memory
# with communication. Each still reads rows of its own.

# %%
from course_utils.recipe import load_recipe
from course_utils.scale.memory import estimate_memory
from course_utils.scale.parallel import batch_shape

recipe = load_recipe("alpaca-7b-fsdp")
print(f"{'GiB on each':13}{'weights':>8}{'gradients':>11}{'AdamW':>7}{'the rest':>10}{'total':>7}   rows a step")
for gpus in (1, 2, 4, 8):
    on = recipe.replace("train.gpus", gpus).replace("train.parallel", "fsdp" if gpus > 1 else "none")
    need, (rows, times) = estimate_memory(on), batch_shape(recipe.train, gpus)
    rest = need.total - need.weights - need.gradients - need.optimizer
    print(f"{gpus} GPU{'s' * (gpus > 1):8}{need.weights:>8.1f}{need.gradients:>11.1f}{need.optimizer:>7.1f}"
          f"{rest:>10.1f}{need.total:>7.1f}   {rows} x {times} x {gpus}")  # fmt: skip
    assert rows * times * gpus == recipe.train.effective_batch

# %% [markdown] lang="ko"
# 기울기와 AdamW는 GPU의 수에 정확히 반비례합니다. 가중치가 그보다 덜 줄어드는 것은 임베딩과 출력층을 계산하는 동안 통째로 들기 때문입니다.
# 한 장일 때 `the rest`가 유난히 큰 것은 bfloat16 사본(약 12GiB) 때문입니다. 나누지 않는 학습은 이것을 float32 가중치 곁에 따로 들고, FSDP2는 조각을 모을 때 바꾸므로 들지 않습니다(1절의 그림은 이 사본을 가중치로 쳤습니다).
# A100 80GB라면 네 장으로 넉넉하고, 여덟 장이면 더 빠릅니다. 맨 오른쪽은 배치와 누적과 GPU의 수입니다. 몇 장이든 곱은 같습니다.
#
# Alpaca가 공개한 설정을 우리 것과 나란히 놓습니다.

# %% [markdown] lang="en" of="4c42249f"
# Gradients and AdamW shrink exactly with the number of GPUs. Weights shrink a little less: embeddings and output layer are held whole
# during a pass. On one GPU `the rest` is so large because of a bfloat16 copy (about 12 GiB), which unsharded training keeps
# beside the float32 weights; FSDP2 converts the parts as it collects them (the figure of section 1 counts the copy among the weights).
#
# With 80 GB each, four GPUs are plenty, and eight are faster. On the right: batch, accumulation and GPUs, whose product
# is the same for any number.
#
# Alpaca's published settings beside ours:

# %%
spec = recipe.train
print(f"{'':16}{'Alpaca 7B, published':26}here")
for name, theirs, ours in [
    ("data", "52,002 tasks", f"{recipe.data.n:,} tasks"),
    ("template", "Alpaca's", spec.template),
    ("rows a step", 128, spec.effective_batch),
    ("learning rate", 2e-5, spec.learning_rate),
    ("schedule", "cosine", spec.scheduler),
    ("warm-up", 0.03, spec.warmup),
    ("epochs", 3, spec.epochs),
    ("tokens a row", 512, spec.max_length),
    ("weight decay", 0.0, spec.weight_decay),
    ("sharding", "FSDP, full shard", "FSDP2" if spec.parallel == "fsdp" else "none"),
    ("prompt", "masked, tokenised twice", "masked by segment"),
]:
    print(f"{name:16}{theirs!s:26}{ours}")
assert (spec.effective_batch, spec.learning_rate, spec.epochs, spec.max_length) == (128, 2e-5, 3, 512)

# %% [markdown] lang="ko"
# A100 80GB 여덟 장이 있는 컴퓨터에서 쓰는 명령입니다. 네 장이면 숫자만 4로 바꿉니다. 누적이 저절로 두 배가 되어 128행이 지켜집니다.
#
# ```bash
# torchrun --nproc_per_node=8 -m course_utils.train alpaca-7b-fsdp --tasks alpaca_data.json
# ```
#
# 이제 **진짜로 두 프로세스를 띄웁니다.** GPU 대신 CPU에서, 통신은 CPU에서도 되는 라이브러리 gloo로, 모델은 무작위인 작은 Llama로 합니다. 나머지는 위의 명령과 같은 코드입니다.
# 프로세스마다 무엇을 얼마나 들고 있는지 적어 두도록 콜백(callback) 하나를 끼워 넣습니다. 갱신 직후, 기울기를 지우기 전에 셉니다.

# %% [markdown] lang="en" of="dbebfd07"
# This is the command for a machine with eight A100-80. On four, write 4: accumulation doubles by itself, and it is
# still 128 rows a step.
#
# ```bash
# torchrun --nproc_per_node=8 -m course_utils.train alpaca-7b-fsdp --tasks alpaca_data.json
# ```
#
# Now **really start two processes**: on the CPU instead of GPUs, with gloo, a library that can communicate there, and a small random
# Llama for the model. The rest is the code of the command above. One callback is added, which writes down how much each process
# holds, counted right after an update, before the gradients are cleared.

# %%
LOOK = '''
import json, os, pathlib, sys
from transformers import TrainerCallback

folder, root, step = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3]

def own(tensor):  # a DTensor is a part of something larger; to_local() is the part itself
    return (tensor.to_local() if hasattr(tensor, "to_local") else tensor).numel()

class Look(TrainerCallback):
    def on_optimizer_step(self, args, state, control, model=None, optimizer=None, **kwargs):
        weights, states = list(model.parameters()), optimizer.state.values()
        moments = [state[name] for state in states for name in ("exp_avg", "exp_avg_sq")]
        held = {"weights": weights, "gradients": [w.grad for w in weights], "AdamW": moments}
        for name, group in held.items():
            total = sum(tensor.numel() for tensor in group)
            held[name] = [type(group[0].data).__name__, sum(map(own, group)), total]
        (folder / f"{step}-{os.environ['RANK']}.json").write_text(json.dumps(held))
'''

# %%
import yaml

from course_utils import REPO
from course_utils.scale.tiny import tiny_recipe
from course_utils.tasks import read_tasks, write_atomic, write_tasks

JOB = '''
from course_utils.checkpoint import CheckpointStore
from course_utils.recipe import load_recipe
from course_utils.tasks import read_tasks
from course_utils.train import train

recipe, tasks = load_recipe(folder / "recipe.yaml"), read_tasks(folder / "tasks.jsonl")
store = CheckpointStore.open("scale-up", root)
train(recipe, store, tasks, step=step, callbacks=[Look()], progress=False)
'''
folder, tiny = store.local("fsdp"), tiny_recipe(recipe, store.local("tiny-llama"))
write_atomic(folder / "job.py", LOOK + JOB)
write_atomic(folder / "recipe.yaml", yaml.safe_dump(tiny.to_dict()))  # a recipe is a file
write_tasks(folder / "tasks.jsonl", read_tasks(REPO / "data" / "seed_tasks.jsonl")[:96])

# %%
import json
import os
import subprocess
import sys


def launch(processes, step):
    '''Run job.py in several processes that train together, as torchrun on the command line does.'''
    settings = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPO)}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]  # on a free port
    command += [f"--nproc_per_node={processes}", folder / "job.py", folder, store.root, step]
    store.clear(step)  # a sealed training would not be repeated
    done = subprocess.run(command, env=os.environ | settings, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads((folder / f"{step}-{rank}.json").read_text()) for rank in range(processes)]

# %%
for processes, step in [(1, "one-process"), (2, "two-processes")]:
    for rank, held in enumerate(launch(processes, step)):
        print(f"{step}, rank {rank}")
        for name, (kind, own, total) in held.items():
            print(f"   {name:12}{kind:10}{own:>9,} of {total:,}")
            assert own * processes == total and kind == ("DTensor" if processes > 1 else "Tensor")

# %% [markdown] lang="ko"
# `rank`는 프로세스의 번호입니다. 혼자일 때는 보통의 `Tensor`를 모두 들고, 둘일 때는 가중치도 기울기도 AdamW도 `DTensor`(여럿이 나누어 든 텐서)이며 저마다 **정확히 반**을 듭니다. 무작위인 작은 모델이지만 나누는 일은 진짜입니다.
#
# 이 확인은 군더더기가 아닙니다. GPU가 없는 컴퓨터에서 라이브러리의 기본값에 맡기면 FSDP를 켜도 **아무 말 없이 데이터 병렬로** 돕니다. 손실만 보아서는 알 수 없습니다.
#
# 이제 손실을 봅니다. 나누어 들어도 같은 학습이라면 같은 손실이 나와야 합니다.

# %% [markdown] lang="en" of="a6fc0279"
# `rank` is the number of a process. Alone, a process holds ordinary `Tensor`s, all of them. Two processes hold `DTensor`s (tensors
# that several share), weights, gradients and AdamW alike, and each **exactly half**. The model is small and random, but the sharding is real.
#
# This check is not for show. Left to the libraries' defaults, a machine without GPUs runs **plain data parallel without a word**,
# even with FSDP switched on, and the losses do not show it.
#
# Now look at the losses. If it is the same training, they must be the same.

# %%
from course_utils import shown
from course_utils.train import TrainResult

one, two = (TrainResult.load(store.latest(step)) for step in ("one-process", "two-processes"))
for alone, together in zip(one.log, two.log, strict=True):
    print(f"step {alone['step']}   one process {alone['loss']:.5f}   two {together['loss']:.5f}")
    assert abs(alone["loss"] - together["loss"]) < 1e-4
print("trained model:", shown(two.adapter))

# %% [markdown] lang="ko"
# 같습니다. 더하는 순서가 달라 마지막 자리는 흔들릴 수 있습니다. 두 프로세스의 배치와 누적은 한 번 갱신할 때 읽는 행의 수(레시피의 `effective_batch`)에서 저절로 정해졌습니다.
#
# 어댑터가 없는 학습이므로 결과는 모델 폴더 하나입니다. 조각들은 저장할 때 다시 하나로 합쳐지고, 봉인은 주 프로세스만 합니다.
# 같은 것을 명령 한 줄로 해 볼 수 있습니다. 레시피 이름만 바꾸면 다른 레시피도 됩니다.
#
# ```bash
# torchrun --nproc_per_node=2 -m course_utils.train alpaca-7b-fsdp --tiny
# ```

# %% [markdown] lang="en" of="4106ca58"
# They are. The last digit may differ, because the sums are taken in another order. Batch and accumulation of the two processes followed
# by themselves from the recipe's `effective_batch`.
#
# Without an adapter the result is a folder with a whole model. The parts are put together again when it is saved, and the main
# process alone seals it. The same thing as one command; another name runs another recipe:
#
# ```bash
# torchrun --nproc_per_node=2 -m course_utils.train alpaca-7b-fsdp --tiny
# ```

# %% [markdown] lang="ko"
# ## 5. 학습한 뒤에
#
# 2절에서 봉인한 어댑터를 꺼냅니다. 무엇이 얼마나 큰지 봅니다.

# %% [markdown] lang="en" of="8e8c0db2"
# ## 5. Afterwards
#
# Take out the adapter that section 2 sealed. What is there, and how large is it?

# %%
from course_utils.recipe import load_recipe
from course_utils.scale.memory import GIB, parameters, trained_parameters
from course_utils.scale.tiny import tiny_base

recipe, sealed = load_recipe("koalpaca-12.8b-a100"), store.latest("koalpaca")
base = tiny_base(recipe, store.local("tiny-neox"))
for path in sorted(path for path in sealed.rglob("*") if path.is_file()):
    print(f"{path.stat().st_size:>12,} bytes  {path.relative_to(sealed)}")
total, adapter = parameters(recipe), trained_parameters(recipe)
print(f"\nFor the 12.8B the adapter would be {4 * adapter / 2**20:.0f} MiB (float32),")
print(f"the model with the adapter merged into it {4 * total / GIB:.0f} GiB (float32).")

# %% [markdown] lang="ko"
# 나누어 주기에는 어댑터가 가볍습니다. 받은 사람이 베이스 모델을 따로 내려받아 얹으면 됩니다. 어댑터를 모르는 도구에 넘길 때는 베이스 모델에 **합칩니다**(merge).
# 합친 모델이 어댑터를 얹은 모델과 같은 말을 하는지 확인합니다.

# %% [markdown] lang="en" of="05626861"
# The adapter is light to hand on: whoever gets it downloads the base model and puts the adapter on. For tools that know no adapters, **merge** it
# into the base model. Does the merged model say the same as the base with the adapter on it?

# %%
import torch

from course_utils.inference import load_model, merge_adapter

out = merge_adapter(base, sealed / "adapter", store.local("merged"))
merged, tokenizer = load_model(out, device="cpu", dtype="float32")
tuned, _ = load_model(base, sealed / "adapter", device="cpu", dtype="float32")
ids = torch.tensor([tokenizer("### 질문: 봄에 피는 꽃은 무엇인가요?\n\n### 답변:")["input_ids"]])
with torch.no_grad():
    apart, together = tuned(input_ids=ids).logits, merged(input_ids=ids).logits
print(f"largest difference of {apart.numel():,} logits: {(apart - together).abs().max():.1e}")
assert torch.allclose(apart, together, atol=1e-4)

# %% [markdown] lang="ko"
# 끝으로 허브에 올립니다. 모델 카드에는 레시피, 데이터의 해시, 라이브러리 버전, 손실이 저절로 적힙니다. 기본은 비공개입니다. 공개하기 전에 데이터와 베이스 모델의 라이선스를 확인하세요.
#
# ```python
# from course_utils.inference import push
#
# push(sealed / "adapter", "내-아이디/koalpaca-12.8b-lora")
# ```
#
# 시간과 돈은 얼마나 들까요? 아래는 **남이 재어 공개한 것**뿐이고 우리가 잰 것은 없습니다.
#
# | 무엇을 | 어디서 | 얼마나 | 누가 밝혔나 |
# |---|---|---|---|
# | Alpaca 7B, 전체 미세조정, 3에폭 | A100-80 8장 | 3시간, 100달러 미만 | Stanford Alpaca의 글 |
# | Alpaca의 데이터 52,002개 | OpenAI API | 500달러 미만 | Stanford Alpaca의 글 |
# | KoAlpaca 12.8B v1.1b, 전체 미세조정, 2에폭 | A100-80 4장, 장당 약 74GB | 밝히지 않음 | KoAlpaca의 저장소 |
# | KoAlpaca 12.8B v1.1a, QLoRA(베이스를 4비트로 줄인 LoRA), 1에폭 | Colab의 A100 한 장 | 약 2~3시간 | KoAlpaca의 README |
# | 같은 것 | Colab의 T4 한 장 | 약 15시간 | KoAlpaca의 README |

# %% [markdown] lang="en" of="e3ed2421"
# Last, push it to the Hub. The model card with recipe, hash of the data, versions and losses writes itself. It is private unless you
# say otherwise. Look at the licences of the data and of the base model before you publish.
#
# ```python
# from course_utils.inference import push
#
# push(sealed / "adapter", "your-name/koalpaca-12.8b-lora")
# ```
#
# What does it cost in time and money? Here is only **what others measured and published**; none of it is ours.
#
# | what | where | how much | who says so |
# |---|---|---|---|
# | Alpaca 7B, full fine-tuning, 3 epochs | 8 x A100-80 | 3 hours, under $100 | Stanford Alpaca's post |
# | Alpaca's data, 52,002 tasks | OpenAI's API | under $500 | Stanford Alpaca's post |
# | KoAlpaca 12.8B v1.1b, full fine-tuning, 2 epochs | 4 x A100-80, about 74 GB each | not published | KoAlpaca's repository |
# | KoAlpaca 12.8B v1.1a, QLoRA (LoRA on a base cut to 4 bits), 1 epoch | one A100 on Colab | about 2 to 3 hours | KoAlpaca's README |
# | the same | one T4 on Colab | about 15 hours | KoAlpaca's README |

# %%
from course_utils.train import TrainResult

hours, gpus, epochs, examples = 3, 8, 3, 52_002  # Alpaca 7B, as published
print(f"Alpaca 7B: {hours * gpus} GPU hours for under $100, so under ${100 / hours / gpus:.2f} an hour and GPU,")
print(f"           {examples * epochs / hours / 3600:.1f} tasks a second on {gpus} GPUs together")
result = TrainResult.load(store.latest("koalpaca"))
rate = result.tokens / result.seconds
print(f"the tiny random GPT-NeoX on this machine: {rate:,.0f} tokens a second, a rate for no other model")

# %% [markdown] lang="ko"
# 여러분의 학습에 걸릴 시간은 이렇게 셈합니다. **시간 = 에폭 하나의 토큰 × 에폭 수 ÷ 초당 토큰 ÷ 3,600.** 토큰의 수는 `--dry-run`의 카드에 있고, 초당 토큰은 몇 스텝만 돌려 보면 압니다.
#
# 이 노트북에서 기억할 것은 네 가지입니다.
#
# 1. 돌리기 전에 셈합니다. 학습하는 파라미터는 16바이트, 얼린 것은 2바이트, 나머지는 읽는 글을 따라갑니다.
# 2. GPU의 수가 바뀌어도 한 번 갱신할 때 읽는 행의 수를 지킵니다.
# 3. 데이터를 나누면 빨라지고, 모델을 나누면 들어갑니다.
# 4. 나누었다고 믿지 말고, 정말 나뉘었는지 봅니다.
#
# 평가는 [03](03_evaluate.ipynb)과 똑같습니다. 모델이 커져도 물어야 할 것은 같습니다. 얼마나 나아졌고, 얼마나 확실한가.

# %% [markdown] lang="en" of="80ff049e"
# The time of your own training: **hours = tokens of one epoch x epochs / tokens a second / 3,600.** The number of tokens is on the card of
# `--dry-run`, and a few steps are enough to learn the tokens a second.
#
# Four sentences to take with you:
#
# 1. Work it out before you run it: 16 bytes for what is trained, 2 for what is frozen, and the rest grows with the texts.
# 2. However many GPUs there are, keep the number of rows behind an update.
# 3. Sharing out the data makes it faster; sharing out the model makes it fit.
# 4. Do not believe that something is sharded. Look.
#
# Evaluate a larger model as in [03](03_evaluate.ipynb). The questions stay the same: how much better is it, and how sure is that?

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
# ### 연습 1. 들고 있는 것
#
# ★ · 약 5분 · 1절
#
# 활성값을 뺀 나머지, 곧 가중치와 기울기와 AdamW가 GPU 한 장에서 차지하는 GiB를 셈하세요. `parameters`는 베이스 모델의 파라미터 수, `trained`는 학습하는 파라미터 수입니다.
#
# - 둘이 같으면 전체 미세조정입니다. 하나에 16바이트입니다.
# - `trained`가 더 작으면 LoRA입니다. 얼린 베이스는 하나에 2바이트, **그 곁에 따로 붙은** 어댑터는 하나에 16바이트입니다.
#
# 1GiB는 $2^{30}$바이트입니다. 보기: `states_gib(1_000_000_000, 1_000_000_000)`은 약 14.9입니다.

# %% [markdown] lang="en" of="b7b02820"
# ### Exercise 1. What is held
#
# ★ · about 5 minutes · section 1
#
# Work out the GiB that weights, gradients and AdamW take on one GPU, activations left out. `parameters` counts those of the base model, `trained` those that are trained.
#
# - If both are equal, all weights are trained: 16 bytes each.
# - If `trained` is smaller it is LoRA: 2 bytes for each of the frozen base, and 16 for each of the adapter, which stands **beside** it.
#
# A GiB is $2^{30}$ bytes. Example: `states_gib(1_000_000_000, 1_000_000_000)` is about 14.9.

# %%
def states_gib(parameters, trained):
    """GiB of weights, gradients and AdamW on one GPU."""
    ...

# %%
from course_utils.practice.checks import check

check("04.1", states_gib)

# %% [markdown] lang="ko"
# <details><summary>풀이</summary>
#
# ```python
# def states_gib(parameters, trained):
#     if trained == parameters:
#         return 16 * parameters / 2**30
#     return (2 * parameters + 16 * trained) / 2**30
# ```
#
# `check`는 강의의 `estimate_memory`가 레시피에서 셈한 값과 견줍니다.
#
# </details>

# %% [markdown] lang="en" of="1e9ae300"
# <details><summary>Solution</summary>
#
# ```python
# def states_gib(parameters, trained):
#     if trained == parameters:
#         return 16 * parameters / 2**30
#     return (2 * parameters + 16 * trained) / 2**30
# ```
#
# `check` compares with what the course's `estimate_memory` works out from the recipes.
#
# </details>

# %% [markdown] lang="ko"
# ### 연습 2. 내 GPU에 들어가는 레시피
#
# ★★ · 약 10분 · 1절
#
# 남은 메모리가 `gib`인 GPU에서 돌 수 있는, GPU **한 장**짜리 레시피(`recipe.train.gpus`가 1)의 이름을 `recipe_names()`의 순서대로 목록으로 돌려주세요. 그 GPU에 bfloat16이 없으면(`bfloat16=False`) `recipe.train.dtype`이 `"bfloat16"`인 레시피는 뺍니다.
# `load_recipe`, `estimate_memory`, `fits`를 쓰세요.
#
# 보기: 16GB로 파는 T4는 15GiB를 보여 주고, bfloat16이 없습니다. `fitting(15, False)`는 `['gemma-2b-t4', 'midm-2b-t4', 'offline']`이고, 아무것도 들어가지 않으면 `[]`입니다.

# %% [markdown] lang="en" of="09d65e52"
# ### Exercise 2. The recipes for my GPU
#
# ★★ · about 10 minutes · section 1
#
# Return the names of the recipes for **one** GPU (`recipe.train.gpus` is 1) that run with `gib` free, as a list in the order of `recipe_names()`. If the GPU has no bfloat16 (`bfloat16=False`), leave out those whose `recipe.train.dtype` is `"bfloat16"`.
# Use `load_recipe`, `estimate_memory` and `fits`.
#
# Example: a T4, sold as 16 GB, shows 15 GiB and has no bfloat16. `fitting(15, False)` is `['gemma-2b-t4', 'midm-2b-t4', 'offline']`; where nothing fits it is `[]`.

# %%
def fitting(gib, bfloat16):
    """The names of the recipes that fit into one GPU with so many GiB free."""
    ...

# %%
from course_utils.practice.checks import check

check("04.2", fitting)

# %% [markdown] lang="ko"
# <details><summary>풀이</summary>
#
# ```python
# from course_utils.scale.memory import estimate_memory, fits
# from course_utils.recipe import load_recipe, recipe_names
#
#
# def fitting(gib, bfloat16):
#     names = []
#     for name in recipe_names():
#         recipe = load_recipe(name)
#         runs = bfloat16 or recipe.train.dtype != "bfloat16"
#         if recipe.train.gpus == 1 and runs and fits(estimate_memory(recipe), gib):
#             names.append(name)
#     return names
# ```
#
# </details>

# %% [markdown] lang="en" of="0e9e790a"
# <details><summary>Solution</summary>
#
# ```python
# from course_utils.scale.memory import estimate_memory, fits
# from course_utils.recipe import load_recipe, recipe_names
#
#
# def fitting(gib, bfloat16):
#     names = []
#     for name in recipe_names():
#         recipe = load_recipe(name)
#         runs = bfloat16 or recipe.train.dtype != "bfloat16"
#         if recipe.train.gpus == 1 and runs and fits(estimate_memory(recipe), gib):
#             names.append(name)
#     return names
# ```
#
# </details>

# %% [markdown] lang="ko"
# ### 연습 3. 들어갈 때까지 반으로
#
# ★★ · 약 10분 · 1절
#
# 한 배치에 행이 `batch`개면 메모리가 `fixed + row * batch`GiB 필요하다고 합시다. `gib`에 들어갈 때까지 **배치를 반으로 줄이고 누적 `times`를 두 배로** 늘려 `(배치, 누적)`을 돌려주세요.
# 꼭 맞으면 들어간 것입니다. 곱은 지켜야 하므로 홀수인 배치는 더 줄이지 않습니다. 그래도 들어가지 않으면 `None`입니다.
#
# 보기: `shrink(10.0, 2.0, 8, 4, 22)`에서 8행은 26GiB, 4행은 18GiB이므로 `(4, 8)`입니다.

# %% [markdown] lang="en" of="7d417fd9"
# ### Exercise 3. Halve it until it fits
#
# ★★ · about 10 minutes · section 1
#
# Suppose that a batch of `batch` rows needs `fixed + row * batch` GiB. **Halve the batch and double the accumulation `times`** until it fits into `gib`, and return `(batch, accumulation)`.
# Filling it exactly still fits. The product must stay the same, so an odd batch is not halved. If it still does not fit, return `None`.
#
# Example: for `shrink(10.0, 2.0, 8, 4, 22)` 8 rows need 26 GiB and 4 rows 18, so it is `(4, 8)`.

# %%
def shrink(fixed, row, batch, times, gib):
    """The largest batch that fits with the same effective batch, and its accumulation."""
    ...

# %%
from course_utils.practice.checks import check

check("04.3", shrink)

# %% [markdown] lang="ko"
# <details><summary>풀이</summary>
#
# ```python
# def shrink(fixed, row, batch, times, gib):
#     while fixed + row * batch > gib:
#         if batch % 2:
#             return None
#         batch, times = batch // 2, times * 2
#     return batch, times
# ```
#
# 1절의 `what_would_fit`이 권하는 첫 단계가 이것입니다. 결과를 가장 적게 바꾸기 때문입니다.
#
# </details>

# %% [markdown] lang="en" of="d917fb72"
# <details><summary>Solution</summary>
#
# ```python
# def shrink(fixed, row, batch, times, gib):
#     while fixed + row * batch > gib:
#         if batch % 2:
#             return None
#         batch, times = batch // 2, times * 2
#     return batch, times
# ```
#
# This is what `what_would_fit` of section 1 suggests first, because it changes the result least.
#
# </details>

# %% [markdown] lang="ko"
# ### 연습 4. GPU가 몇 장이든 128행
#
# ★★ · 약 10분 · 3절
#
# 한 번 갱신할 때 읽는 행이 꼭 `effective`개가 되도록, GPU `gpus`장이 저마다 쓸 `(배치, 누적)`을 돌려주세요. 배치는 `most`를 넘지 않으면서 되도록 큰 것입니다.
# 똑같이 나눌 수 없으면 `None`입니다.
#
# 보기: `share_rows(128, 8, 4)`는 한 장의 몫이 16행이므로 `(4, 4)`입니다. 4 × 4 × 8 = 128.

# %% [markdown] lang="en" of="763d7074"
# ### Exercise 4. 128 rows on any number of GPUs
#
# ★★ · about 10 minutes · section 3
#
# Return `(batch, accumulation)` for each of `gpus` GPUs so that exactly `effective` rows are behind one update. The batch is as large as possible and no larger than `most`.
# Return `None` where the rows cannot be shared evenly.
#
# Example: for `share_rows(128, 8, 4)` each GPU has 16 rows, so it is `(4, 4)`: 4 x 4 x 8 = 128.

# %%
def share_rows(effective, gpus, most):
    """Rows in a batch and batches accumulated, for each GPU."""
    ...

# %%
from course_utils.practice.checks import check

check("04.4", share_rows)

# %% [markdown] lang="ko"
# <details><summary>풀이</summary>
#
# ```python
# def share_rows(effective, gpus, most):
#     rows, rest = divmod(effective, gpus)
#     if rest:
#         return None
#     batch = next(size for size in range(min(most, rows), 0, -1) if rows % size == 0)
#     return batch, rows // batch
# ```
#
# 학습을 시작할 때 `batch_shape`가 똑같은 셈을 합니다. `torchrun`의 `--nproc_per_node`만 바꾸어도 128행이 지켜지는 까닭입니다.
#
# </details>

# %% [markdown] lang="en" of="663ec00b"
# <details><summary>Solution</summary>
#
# ```python
# def share_rows(effective, gpus, most):
#     rows, rest = divmod(effective, gpus)
#     if rest:
#         return None
#     batch = next(size for size in range(min(most, rows), 0, -1) if rows % size == 0)
#     return batch, rows // batch
# ```
#
# `batch_shape` does the same when training starts: that is why changing `--nproc_per_node` of `torchrun` keeps the 128 rows.
#
# </details>

# %% [markdown] lang="ko"
# ### 연습 5. 내 조각은 어디부터
#
# ★ · 약 5분 · 4절
#
# FSDP2는 가중치마다 첫 차원의 행을 GPU 수로 나누어 듭니다. 조각의 크기는 `rows / gpus`를 **올림**한 것으로 모두 같고, 마지막에는 남은 만큼만 갑니다. 아무것도 남지 않을 수도 있습니다.
# 번호가 `rank`인 GPU가 드는 행을 `(시작, 끝)`으로 돌려주세요. 파이썬의 조각처럼 끝은 들어가지 않습니다.
#
# 보기: 7행을 셋이 나누면 `(0, 3)`, `(3, 6)`, `(6, 7)`입니다. 5행을 넷이 나누면 마지막 GPU는 `(5, 5)`, 곧 빈손입니다.

# %% [markdown] lang="en" of="b55cee0e"
# ### Exercise 5. Where my part begins
#
# ★ · about 5 minutes · section 4
#
# FSDP2 cuts the rows of each weight's first dimension into as many parts as there are GPUs. All parts have the size `rows / gpus`, **rounded up**; the last get what is left, and that may be nothing.
# Return the rows that GPU number `rank` holds as `(start, stop)`; as in a slice of Python, `stop` is not included.
#
# Example: seven rows among three are `(0, 3)`, `(3, 6)`, `(6, 7)`. Of five rows among four the last GPU has `(5, 5)`, nothing.

# %%
def own_rows(rows, gpus, rank):
    """The rows of a weight that one GPU holds: the first, and the one after the last."""
    ...

# %%
from course_utils.practice.checks import check

check("04.5", own_rows)

# %% [markdown] lang="ko"
# <details><summary>풀이</summary>
#
# ```python
# import math
#
#
# def own_rows(rows, gpus, rank):
#     size = math.ceil(rows / gpus)
#     return min(rank * size, rows), min((rank + 1) * size, rows)
# ```
#
# `torch.chunk`가 나누는 방식입니다. 4절에서 두 프로세스가 **정확히 반**씩 든 것은 그 작은 모델에서는 가중치마다 행의 수가 짝수였기 때문입니다.
#
# </details>

# %% [markdown] lang="en" of="1d6f9f0b"
# <details><summary>Solution</summary>
#
# ```python
# import math
#
#
# def own_rows(rows, gpus, rank):
#     size = math.ceil(rows / gpus)
#     return min(rank * size, rows), min((rank + 1) * size, rows)
# ```
#
# This is how `torch.chunk` cuts. Two processes held **exactly half** in section 4 because every weight of that small model has an even number of rows.
#
# </details>
