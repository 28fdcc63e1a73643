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
# # 03 평가: 얼마나 나아졌고, 얼마나 확실한가
#
# 노트북 02에서 어댑터를 얻었습니다. 손실은 내려갔습니다. 그런데 모델은 정말 나아졌을까요?
# 이 노트북은 학습에 쓰지 않은 질문을 미세조정 전과 후의 모델에 똑같이 던지고, 그 답을 두 가지 방법으로 견줍니다.
#
# 끝까지 가면 이런 것이 손에 남습니다.
#
# - 과제 유형별 정답률(exact match): 무엇이 되고 무엇이 아직 안 되는지
# - 심사하는 모델을 **먼저 재어 본** 경험: 참값을 아는 세계에서 한 번, 여러분이 직접 내린 판정 스무 개와 견주어 한 번
# - 두 모델을 맞붙인 승률(win rate)과 95% 신뢰구간(confidence interval)
# - 이 모두를 담아 봉인한 `summary.json`, 그림이 든 심사 보고서, 그리고 전체를 묶은 표
#
# 아래 셀을 실행하면 카드가 나옵니다. 어디서 도는지, 심사자가 누구인지, 결과가 어디에 쌓이는지 먼저 읽어 보세요.

# %% [markdown] lang="en" of="3d685522"
# # 03 Evaluate: how much better, and how sure
#
# Notebook 02 left you with an adapter. The loss went down. But did the model get better?
# This notebook puts questions that were kept out of training to the model before and after tuning,
# and compares the replies in two ways.
#
# At the end you will have
#
# - exact match for every family of tasks: what works and what does not yet
# - a judge that you have **measured first**: in a world whose truth is known, and against twenty verdicts of your own
# - the win rate of the two models against each other, with a 95% confidence interval
# - all of it sealed: `summary.json`, a report of the judgments with figures, and one table for everything
#
# Run the cell below and read its card first: where this runs, who judges, where results go.

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
# 카드의 Judge 줄에 `SIMULATED`가 보인다면 심사자는 언어 모델이 아니라 **정답을 아는 프로그램**입니다.
# 두 답변 가운데 먼저 보여 준 쪽(앞자리)을 편들고 가끔 틀리도록 일부러 만들었습니다. 여기서 나온 숫자는 실제 모델에 관해 아무것도 말해 주지 않습니다.
# 대신 참값을 아는 **작은 세계**라서, 평가 방법이 그 참값을 제대로 알아내는지 확인할 수 있습니다. 진짜 심사자로는 할 수 없는 일입니다.

# %% [markdown] lang="en" of="74fa5947"
# If the card's Judge line says `SIMULATED`, the judge is not a language model but **a program that knows the answers**.
# It is made to favour whichever of two answers is shown first (the first position), and to err now and then. Its numbers say nothing about real models.
# What you get is a **small world** whose truth is known, where you can check that the method finds it.
# With a real judge you cannot.

# %% [markdown] lang="ko"
# ## 1. 평가의 재료
#
# 필요한 것은 셋입니다. 베이스 모델, 02에서 봉인한 어댑터, 그리고 학습에 한 번도 쓰지 않은 문제입니다.
# offline 레시피라면 02를 아직 실행하지 않았어도 함께 배포한 견본 어댑터를 씁니다. 어느 쪽인지 셀이 알려 줍니다. 다른 레시피라면 02를 먼저 실행하세요.
#
# 이 절의 셀은 모두 금방 끝납니다. 한 번 끝까지 실행한 뒤라면, 여기까지만 실행하고 어느 절로든 건너뛸 수 있습니다. 나머지는 저장된 파일에서 읽습니다.

# %% [markdown] lang="en" of="ebf3e7b9"
# ## 1. What we start from
#
# Three things: the base model, the adapter that 02 sealed, and tasks that training never saw.
# With the offline recipe a sample adapter that comes with the course stands in if you have not run 02 yet; the cell says which one it is. With any other recipe, run 02 first.
#
# The cells of this section are quick. Once the notebook has run to its end, run just these and jump to any section: the rest is read from files.

# %%
import dataclasses
import json
from collections import Counter
from pathlib import Path

trained = course.artefact("train")
adapter = trained / "adapter"
heldout, unseen = course.heldout(), course.unseen()
print(f"{len(heldout)} held-out tasks; {len(unseen)} more in wordings that training never used")
print(dict(Counter(task.meta["family"] for task in heldout)))

work = course.store.restore("evaluate")  # a new session takes back what the last one sealed

# %% [markdown] lang="ko"
# 떼어 둔(held-out) 문제가 학습 데이터에 섞여 있으면 이 노트북의 모든 숫자가 거짓이 됩니다. 그래서 믿지 않고 확인합니다.

# %% [markdown] lang="en" of="8ce75238"
# If a held-out task had slipped into the training data, every number below would be a lie. So we check.

# %%
training = {(task.instruction, task.input) for task in course.training_tasks()}
leaked = [task for task in heldout + unseen if (task.instruction, task.input) in training]
assert not leaked, leaked[:3]
print(f"{len(training):,} different training questions, {len(leaked)} of them held out")
for task in [heldout[0], *unseen[:1]]:
    print("-", task.instruction, "/", task.input)

# %% [markdown] lang="ko"
# `-`로 시작하는 줄이 둘이라면, 둘째 줄은 더 어려운 시험에서 가져온 문제입니다. 같은 일을 시키되 학습 데이터에 **한 번도 나오지 않은 표현**으로 묻습니다.
#
# 앞으로 쓸 작은 도구 몇 개도 여기서 정해 둡니다. 채점 규칙은 하나입니다. 응답의 **첫 줄**이 모범 답안과 글자 하나까지 같으면 정답입니다.
# 첫 줄만 보는 까닭은, 문서를 이어 쓰듯 여러 줄을 쓰곤 하는 베이스 모델을 너그럽게 봐주기 위해서입니다.

# %% [markdown] lang="en" of="27dfe9b4"
# Where two lines begin with `-`, the lower one is from a harder exam: the same work asked for in wordings that **never occur** in the training data.
#
# A few small tools for later. There is one rule for marking: a reply is right if its **first line** equals the reference to the letter.
# Only the first line counts because a base model tends to write on and on as if it continued a document, and we want to be generous to it.

# %%
from course_utils.stats import exact_match
from course_utils.tasks import read_jsonl, write_jsonl

known = course.truth(heldout[0]) is not None  # the small world, whose right answers are known


def right(row):
    """Whether the first line of a reply is the reference."""
    return exact_match(row["reply"], row["reference"])


def share(flags):
    """The share of true values, from 0 to 1."""
    flags = list(flags)
    return sum(flags) / len(flags)


def compare(pairs):
    """Exact match of both models over pairs of rows: {"n", "before", "after"}."""
    before, after = zip(*[(right(old), right(new)) for old, new in pairs], strict=True)
    return {"n": len(pairs), "before": share(before), "after": share(after)}


assert right({"reply": "경상남도입니다.\n그리고", "reference": "경상남도입니다."})

# %% [markdown] lang="ko"
# 저장한 답을 읽어 들이고, 유형별로 나누고, 고르게 뽑는 함수도 둡니다.

# %% [markdown] lang="en" of="1f9d69cd"
# The next functions read the saved replies back, sort them by family, and draw some of them evenly.

# %%
def load():
    """The saved replies as (before, after), one pair of rows a task."""
    both = (read_jsonl(work / f"replies_{name}.jsonl") for name in ("before", "after"))
    return list(zip(*both, strict=True))


def by_family(pairs):
    """The pairs of rows of each family."""
    found = {}
    for old, new in pairs:
        found.setdefault(new["family"], []).append((old, new))
    return found


def spread(rows, most):
    """At most so many of the rows, evenly spaced."""
    return rows[:: -(-len(rows) // most)]  # -(-a // b) is a / b, rounded up

# %% [markdown] lang="ko"
# 끝으로, 두 답을 심사자에게 보일 문항으로 바꿉니다. 모범 답안이 있으면 함께 보여 줍니다. 다만 모의 심사자는 정답을 스스로 알고 있으니 보여 주지 않습니다.

# %% [markdown] lang="en" of="f5a8e788"
# Last, two replies become an item for a judge. The reference goes along where there is one; the simulated judge knows the answers by itself and is not shown any.

# %%
from course_utils.judge import Item


def to_item(old, new):
    """A battle about one question: the tuned model is a, the base model is b."""
    return Item(
        new["id"], new["question"], a=new["reply"], b=old["reply"],
        reference=None if known else new["reference"] or None,
        category=new["family"], answer_lang=new["answer_lang"],
    )


def to_judge():
    """The held-out questions to judge: all where it is free, else some of each family."""
    pairs = load()[: len(heldout)]
    limit = len(pairs) if course.simulated else course.recipe.evaluate.questions
    return [to_item(old, new) for old, new in spread(pairs, limit)]

# %% [markdown] lang="ko"
# ## 2. 두 모델에게 답 받기
#
# 두 모델에 같은 프롬프트를 넣고 가장 그럴듯한 토큰만 고르게 합니다(greedy). 우연이 끼어들지 않으니 같은 컴퓨터에서 다시 실행하면 답이 같습니다.
# 답은 파일에 남기고, 모델과 문제와 설정이 그대로면 새로 묻지 않고 그 파일을 읽습니다. 정말 그대로인지는 지문(fingerprint)을 견주어 확인합니다.

# %% [markdown] lang="en" of="4d1f8f5a"
# ## 2. Replies of both models
#
# Both models get the same prompts and always take the likeliest token (greedy decoding), so that chance has no say
# and a second run on the same machine gives the same replies. They are kept in a file, which is used again as long as model, tasks and
# settings are the same; a fingerprint shows whether they are.

# %%
import hashlib

from course_utils.plumbing.model_folder import find_base

tasks = heldout + unseen


def fingerprint(*folders):
    """Stands for everything that replies depend on: weights, tasks, template, length."""
    spec, template = course.recipe.evaluate, course.recipe.train.template
    parts = ["rows 2", course.recipe.base_model, template, spec.max_new_tokens, spec.batch_size]
    parts += [task.to_dict() for task in tasks]
    digest = hashlib.sha256(json.dumps(parts).encode())
    for folder in folders:  # a base model on the Hub has no folder here: its name stands for it
        for weights in sorted(folder.glob("*.safetensors")):
            digest.update(weights.read_bytes())
    return digest.hexdigest()[:16]


base = Path(find_base(course.base_model))
print("before", fingerprint(base), " after", fingerprint(base, adapter))

# %%
def to_row(number, task, said):
    """What is kept of one reply, with its question and reference beside it."""
    family = task.meta["family"]
    return {
        "id": f"{'heldout' if number < len(heldout) else 'unseen'}-{number:04d}",
        "family": family,
        "answer_lang": "en" if family == "translation" else task.meta.get("answer_lang", "ko"),
        "question": "\n\n".join(filter(None, [task.instruction, task.input])),
        "reference": task.output,
        "reply": said.text,
        "stopped": said.stopped,
    }

# %% [markdown] lang="ko"
# 이제 묻습니다. 같은 지문의 답이 파일에 있으면 모델을 올리지도 않습니다.

# %% [markdown] lang="en" of="b336eb7e"
# Now ask. Where the file has replies with the same fingerprint, the model is not even loaded.

# %%
from course_utils import shown
from course_utils.inference import generate, load_model
from course_utils.prompts import get_template


def replies(name, adapter=None):
    """One row a task: from the file if the same model has answered before, else asked now."""
    path = work / f"replies_{name}.jsonl"
    mark = fingerprint(base, adapter) if adapter else fingerprint(base)
    if path.is_file() and (rows := read_jsonl(path))[0]["made_by"] == mark:
        return rows
    model, tokenizer = load_model(course.base_model, adapter, quantize=course.recipe.train.quantize)
    template, spec = get_template(course.recipe.train.template, tokenizer), course.recipe.evaluate
    prompts = [template.render(task) for task in tasks]
    limits = {"max_new_tokens": spec.max_new_tokens, "batch_size": spec.batch_size}
    said = generate(model, tokenizer, prompts, **limits)
    rows = [to_row(i, *both) | {"made_by": mark} for i, both in enumerate(zip(tasks, said, strict=True))]
    write_jsonl(path, rows)
    return rows


before, after = replies("before"), replies("after", adapter)
print(f"{len(before)} replies before, {len(after)} after, in {shown(work)}")
sealed = course.store.seal("evaluate")  # minutes of a GPU: copied to where they survive

# %% [markdown] lang="ko"
# 숫자보다 먼저 답을 **읽습니다**. 평균은 나중에 봐도 늦지 않습니다.

# %% [markdown] lang="en" of="1b0b113c"
# Before any number, **read** some replies. Averages can wait.

# %%
step = max(1, len(heldout) // 5)
for old, new in load()[: len(heldout) : step]:
    print(f"[{new['family']}]", new["question"].replace("\n\n", " / ")[:130])
    print(f"   reference  {new['reference'][:90]!r}")
    print(f"   before     {old['reply'][:90]!r}")
    print(f"   after      {new['reply'][:90]!r}\n")

# %% [markdown] lang="ko"
# 또 하나, 모델이 **스스로 멈추는지** 봅니다. 02에서 `<end_of_turn>`까지 학습시킨 까닭이 여기서 드러납니다.
# 멈춤 비율(stop rate)이 낮으면 답은 맞더라도 그 뒤로 군말이 이어집니다. 멈춘 까닭도 다를 수 있습니다.
# 베이스 모델은 제 차례가 끝나서가 아니라, 지어내던 글 한 편이 끝나서 멈추기도 합니다. 그래서 평균 길이를 함께 봅니다.

# %% [markdown] lang="en" of="61853576"
# One more thing: does the model **stop by itself**? This is what training `<end_of_turn>` in 02 was for.
# Where the stop rate is low, even a right answer is followed by chatter. Models also stop for different reasons:
# a base model may end not because its turn is over, but because the text it was making up has come to its end. Hence the mean length beside it.

# %%
for name, rows in {"before": before, "after": after}.items():
    mean = sum(len(row["reply"]) for row in rows) / len(rows)
    print(f"{name:7} stopped {share(row['stopped'] for row in rows):6.1%}   {mean:5.1f} characters")

# %% [markdown] lang="ko"
# ## 3. 정답률: 무엇이 되고 무엇이 안 되나
#
# 유형별로 셉니다. 전체 평균 하나만 보면, 완전히 실패한 유형이 잘된 유형 뒤에 숨습니다.
# 오른쪽 끝은 미세조정 후 정답률의 95% 신뢰구간입니다. 이만큼의 문제로 참 정답률을 어디에서 어디까지로 좁힐 수 있는지 보여 줍니다(정확한 뜻은 9절). 유형마다 문제가 많지 않으니 구간이 얼마나 넓은지 보세요.
#
# 작은 세계 밖의 평가 문제는 모범 답안이 대개 문장이나 설명이라 글자 하나까지 같기를 바랄 수 없습니다. 실제 모델에서 이 표가 온통 0%에 가깝더라도 고장이 아닙니다. 까닭은 4절에서 다룹니다.

# %% [markdown] lang="en" of="58528983"
# ## 3. Exact match: what works and what does not
#
# Count by family. A single mean lets a family that failed entirely hide behind those that went well.
# The last column is the 95% confidence interval of the share after tuning: how closely these tasks can pin down the true share (section 9 says what that means exactly). Look how wide it is with so few tasks in a family.
#
# Outside the small world most references are sentences or explanations, and no model will match them to the letter. If this table is close to 0% throughout for a real model, nothing is broken: section 4 says why.

# %%
from course_utils.stats import wilson_interval

pairs = load()[: len(heldout)]
scores = {name: compare(some) for name, some in by_family(pairs).items()}
for name, score in [*scores.items(), ("all", compare(pairs))]:
    low, high = wilson_interval(round(score["after"] * score["n"]), score["n"])
    print(f"{name:12}{score['n']:5}{score['before']:9.1%} ->{score['after']:7.1%}"
          f"   [{low:.0%}, {high:.0%}]")

# %% [markdown] lang="ko"
# 같은 값을 정답률이 높은 유형부터 그림으로 봅니다. 주황이 미세조정 전, 파랑이 후입니다.

# %% [markdown] lang="en" of="29d81496"
# The same numbers as a figure, the best family at the top: orange is before tuning, blue is after.

# %%
from course_utils.plots import before_after

titles = {}
if known:
    from course_utils.offline.world import FAMILIES

    titles = {name: f"{f.title_ko} {f.title_en}" for name, f in FAMILIES.items()}
before_after(
    {name: score["before"] for name, score in scores.items()},
    {name: score["after"] for name, score in scores.items()},
    titles, title="Exact match by family 유형별 정답률",
)

# %% [markdown] lang="ko"
# 아직 안 되는 유형이 무엇인지 밝힙니다. 80%에 못 미치는 유형은 지우지 않고 보고서에 그대로 남깁니다.
# 실패한 답을 하나씩 읽어 보면, 무엇을 못 배웠는지 숫자보다 잘 보입니다.

# %% [markdown] lang="en" of="92309d9a"
# Name what still fails. A family below 80% is not hidden: it stays in the report as it is.
# One wrong reply from each says more about what was not learned than the number does.

# %%
failing = [name for name, score in scores.items() if score["after"] < 0.8]
print(f"{len(failing)} of {len(scores)} families are below 80%: {', '.join(failing) or '-'}\n")
for name in failing:
    wrong = next(new for _, new in by_family(pairs)[name] if not right(new))
    print(f"[{name}]", wrong["question"].replace("\n\n", " / ")[:130])
    print(f"   reference  {wrong['reference'][:90]!r}\n   after      {wrong['reply'][:90]!r}")

# %% [markdown] lang="ko"
# 이제 학습 데이터에 없던 표현으로 물었을 때입니다. 위의 전체 정답률보다 많이 낮다면, 모델이 **일**보다 **표현**을 외웠다는 신호입니다. 다만 문제도 서로 다르고 수도 적으니, 차이를 모두 외운 탓으로 돌릴 수는 없습니다.

# %% [markdown] lang="en" of="4ed3ea6e"
# Now the wordings that training never used. A share far below the one above is a sign that the model learned
# the **phrasing** rather than the **task**. The tasks differ as well, and they are few, so not all of the gap is phrasing.

# %%
if unseen:
    new_words = compare(load()[len(heldout) :])
    print("unseen wordings: n = {n}, before {before:.1%}, after {after:.1%}".format(**new_words))
else:
    print("This run has no set of unseen wordings.")

# %% [markdown] lang="ko"
# ## 4. 정답률만으로는 부족한 까닭
#
# 정답률은 답이 한 줄로 정해진 문제에서만 통합니다. 사람은 같은 뜻을 여러 가지로 말하고, 긴 글에는 모범 답안이 하나가 아닙니다.
# 낱말이 겹치는 정도를 재는 ROUGE-L은 어떨까요? 모범 답안이 "모두 5개입니다."일 때, 모범 답안을 그대로 쓴 답 하나와 달리 쓴 답 셋을 채점해 봅니다.

# %% [markdown] lang="en" of="2faf4901"
# ## 4. Why exact match is not enough
#
# Exact match works only where the answer is one fixed line. People say one thing in many ways, and a longer text has no single reference.
# What about ROUGE-L, which measures overlapping words? The reference is "모두 5개입니다." ("five in all"); let it mark that very answer and three others:
# "모두 다섯 개예요." (five, in other words), "모두 6개입니다." (six) and "모두 50개입니다." (fifty).

# %%
from course_utils.similarity import morphemes, rouge_l

reference = "모두 5개입니다."
scores = {}
for answer in ["모두 5개입니다.", "모두 다섯 개예요.", "모두 6개입니다.", "모두 50개입니다."]:
    scores[answer] = rouge_l(morphemes(answer), morphemes(reference))
    print(f"{answer:20} exact match {answer == reference!s:6} ROUGE-L {scores[answer]:.2f}")
assert scores["모두 6개입니다."] > scores["모두 다섯 개예요."]  # a wrong answer beats a right one

# %% [markdown] lang="ko"
# 정답률은 맞는 답을 틀렸다고 하고, ROUGE-L은 틀린 답에 더 높은 점수를 줍니다. 뜻을 읽는 심사자가 필요합니다.
# 그래서 다른 언어 모델에게 심사를 맡깁니다(LLM-as-a-judge). 다만 이제는 **심사자도 평가해야** 합니다.

# %% [markdown] lang="en" of="668a3995"
# Exact match calls a right answer wrong, and ROUGE-L scores a wrong one higher. Marking takes a reader who understands.
# So another language model is asked to judge (LLM-as-a-judge). From now on **the judge has to be evaluated, too**.

# %% [markdown] lang="ko"
# ## 5. 판정 한 번을 손으로
#
# 심사자에게 실제로 가는 글을 한 번 끝까지 읽어 봅니다. 질문과 두 답변, 판정을 쓰는 규칙이 들어 있습니다. (JSON을 지원하는 서버에는 맨 끝의 규칙만 JSON으로 쓰라는 말로 바꿔 보냅니다.)
# 시작 표시와 끝 표시에 붙은 짧은 부호는 이 글 전체에서 계산한 것이라, 답변을 쓰는 쪽은 미리 알 수 없습니다. 답변의 모든 줄 앞에는 세로줄(|)이 붙습니다.
# 그래서 답변 속에 `[[A]]`나 "A가 낫다고 판정하라"는 말이 있어도 인용 밖으로 나와 판정 행세를 하지 못합니다.
# 다만 심사자가 그런 말에 솔깃해지는 것까지 막아 주지는 않습니다.

# %% [markdown] lang="en" of="0d450833"
# ## 5. One judgment by hand
#
# Read once, to the end, what the judge is really sent: the question, both answers, and how to write a verdict (where the server can, the last lines ask for JSON instead).
# The short code at each beginning and end is worked out from this whole text, so whoever writes an answer cannot know it beforehand. Every line of
# an answer begins with a bar (|). If it contains `[[A]]` or "say that A is better", that cannot break out of the quotation and pose as a verdict.
# It may still impress the judge.

# %%
from course_utils.judge import battle_prompt

old, new = load()[0]
print(battle_prompt(new["question"], new["reply"], old["reply"], to_item(old, new).reference))

# %% [markdown] lang="ko"
# 이제 두 질문을 골라 심사자에게 묻습니다. 하나는 한쪽 답만 맞은 질문, 하나는 둘 다 맞거나 둘 다 틀린 질문입니다. 모의 심사자는 정답과 같은지만 보므로, 둘째 질문에서는 우리 눈에 한쪽이 나아 보여도 우열이 없다고 여깁니다.
# 질문마다 **두 번** 묻습니다. 두 번째에는 두 답변의 자리만 바꿉니다.
#
# `LIVE = True`로 바꾸면 일지(journal)에 답이 있어도 한 번 더 진짜로 묻습니다. 실제 심사자라면 그때마다 값을 치릅니다. 수업에서 보여 줄 때 쓰세요.

# %% [markdown] lang="en" of="6bfbecf1"
# Now ask the judge about two questions: one where only one answer is right, and one where both are right or both are wrong. The simulated judge looks only at whether an answer is right, so it finds nothing to choose in the second, even where you would.
# Each is asked **twice**. The second time, only the two answers have changed places.
#
# With `LIVE = True` each run really asks again even if the journal has the reply, and a real judge is paid each time: use it to show a class.

# %%
import time

from course_utils.judge import Judge

LIVE = False
fresh = {"seed": time.time_ns() % 2**31} if LIVE else {}  # another seed is another request
judge = Judge(course.llm("judge", journal=work / "journal.jsonl"), progress=False, **fresh)
pairs = [pair for pair in load()[: len(heldout)] if pair[0]["reply"] != pair[1]["reply"]]
clear = next((pair for pair in pairs if right(pair[1]) and not right(pair[0])), pairs[0])
close = next((pair for pair in pairs if right(pair[1]) == right(pair[0])), pairs[-1])
for item in (to_item(*clear), to_item(*close)):
    print(f"{item.question!r}\n   tuned {item.a[:60]!r}\n   base  {item.b[:60]!r}")
    [game] = judge.battle([item])
    for order, said in zip(["tuned, base", "base, tuned"], judge.judgments, strict=True):
        print(f"   {order}:  {said.reason or said.error}  ->  {said.verdict}")
    print(f"   the question as a whole: {game.score}\n")

# %% [markdown] lang="ko"
# 화살표 뒤의 판정은 자리가 아니라 **모델** 기준으로 옮겨 적은 것입니다. 앞의 이유는 심사자가 쓴 그대로라 A와 B로 되어 있습니다. `a`는 미세조정 모델, `b`는 베이스 모델입니다. 자리를 바꾸어도 같은 모델을 골랐다면 그 질문은 이기거나 진 것입니다.
# 두 번 다 같은 자리가 이겨 승자가 뒤바뀌었다면 심사자는 답변이 아니라 **자리**를 고른 것입니다. 이를 모순(contradiction)이라 부릅니다. 모순도, 한 번은 이기고 한 번은 비긴 질문도 무승부와 똑같이 1/2로 칩니다. 이기면 1, 지면 0으로 하여 모든 질문의 점수를 평균 낸 것이 **승률**(win rate)입니다.
#
# 판정을 읽는 일도 엄격해야 합니다. 서버가 지원하면 판정을 JSON 스키마에 맞춰 받고, 지원하지 않으면 마지막 줄의 이중 대괄호에서 읽습니다. 어느 쪽이든 허락된 판정이 정확히 하나 있어야 합니다.
# 나머지는 모두 `VerdictError`이고, 한 번만 다시 물은 뒤 무효로 남깁니다.

# %% [markdown] lang="en" of="739f381f"
# The verdict after each arrow is in terms of **models**, not positions (the reason before it is the judge's own wording, with A and B): `a` is the tuned model, `b` the base model. Where the same model is named in both orders the question is won or lost.
# Where the same position wins twice, so that the winner changes, the judge chose a **position**, not an answer. That is a contradiction. It counts 1/2, like a tie, and so does a question with one win and one tie. With 1 for a win and 0 for a loss, the mean over all questions is the **win rate**.
#
# Reading a verdict has to be strict as well. Where the server can, the verdict comes as JSON held to a schema; elsewhere it is read from double brackets on the last line. Either way there must be exactly one allowed verdict.
# Anything else is a `VerdictError`: asked once more, then kept as invalid.

# %%
from course_utils.judge import VerdictError, parse_verdict

for text in ["B가 정확합니다.\n[[B]]", "B가 더 낫습니다.", "[[A]]도 [[B]]도 좋습니다.\n[[B]]",
             "둘 다 틀렸습니다.\n[[D]]", "[[A]]\n덧붙이면 B도 좋습니다.", "Assistant B"]:
    try:
        said = parse_verdict(text, ["A", "B", "C"])
    except VerdictError as error:
        said = f"invalid: {error}"
    print(f"{text!r:40} {said}")

# %% [markdown] lang="ko"
# 읽을 수 없는 판정은 **무승부가 아니라 무효**(invalid)입니다. 실패한 요청도 마찬가지입니다. 0점이나 무승부로 바꿔 넣는 순간,
# 심사자의 고장이 모델의 성적이 되어 버립니다. 무효는 따로 세고, 어느 질문이 왜 무효인지 보여 줍니다.

# %% [markdown] lang="en" of="580c1781"
# A verdict that cannot be read is **invalid, not a tie**, and so is a request that failed. The moment they are stored as a zero or a tie,
# a fault of the judge becomes a result of the model. They are counted and named instead.

# %% [markdown] lang="ko"
# ## 6. 심사자부터 재어 보기 (모의 실험)
#
# 심사자를 믿기 전에 재어 봅니다. 진짜 심사자가 얼마나 틀리는지는 아무도 정확히 모르니, 참값을 아는 곳에서 먼저 연습합니다.
#
# 작은 세계의 문제 120개에 **가짜 모델 둘**이 답합니다. `a`는 대략 85%, `b`는 45%를 맞히도록 정답과 엉뚱한 답을 섞었으므로, 참 승률을 셀 수 있습니다. `b`는 답 끝에 늘 인사말을 덧붙입니다. 두 글이 똑같으면 심사자에게 묻지 않고 무승부로 치므로, 둘 다 맞아도 글은 다르게 한 것입니다.
# 심사자는 이 노트북과 같은 컴퓨터에서 도는 모의 심사자입니다. 손잡이가 둘 달려 있습니다. 우열이 없을 때 앞자리를 편드는 정도(`position_bias`)와, 판정이 엉뚱하게 바뀌는 정도(`noise`)입니다. 이 절은 Colab에서도 돈이 들지 않습니다.

# %% [markdown] lang="en" of="f19787a2"
# ## 6. Measure the judge first (a simulation)
#
# Before you believe a judge, measure it. Nobody knows for sure how often a real one errs, so practise where the truth is known.
#
# **Two make-believe models** answer 120 tasks of the small world. Right and wrong answers are mixed so that `a` is right about 85% of the time, `b` about 45%: the true win rate can be counted. `b` ends each answer with a polite phrase: two equal texts would be a tie without asking the judge, so they have to differ even where both are right.
# The judge is the simulated one on this machine. It has two knobs: how often it favours the first position when there is nothing to choose (`position_bias`), and how often its verdict is replaced by another (`noise`). On Colab, too, this section costs nothing.

# %%
import random

from course_utils.offline.world import heldout_tasks

rng = random.Random(0)
world = heldout_tasks(10)  # ten of each family
wrong = {t.meta["family"]: [o.output for o in world if o.meta["family"] == t.meta["family"]] for t in world}


def answer(task, skill):
    """The right answer with that probability, else the answer to another task of the family."""
    others = [text for text in wrong[task.meta["family"]] if text != task.output]
    return task.output if rng.random() < skill or not others else rng.choice(others)


trial = [
    Item(f"t{i}", "\n\n".join(filter(None, [t.instruction, t.input])),
         a=answer(t, 0.85), b=answer(t, 0.45) + "\n도움이 되셨기를 바랍니다.")
    for i, t in enumerate(world)
]
hits = [(exact_match(i.a, t.output), exact_match(i.b, t.output)) for i, t in zip(trial, world, strict=True)]
true_rate = share((1 + a - b) / 2 for a, b in hits)
print(f"a is right in {share(a for a, _ in hits):.1%}, b in {share(b for _, b in hits):.1%}: "
      f"the true win rate of a is {true_rate:.1%}")

# %% [markdown] lang="ko"
# 손잡이를 돌려 가며 같은 120문제를 심사시킵니다. 한 순서만 물었을 때와 두 순서를 모두 물었을 때, 95% 구간이 참 승률을 품는지 봅니다.

# %% [markdown] lang="en" of="bb7525b5"
# Turn the knobs and have the same 120 tasks judged each time. Does the 95% interval cover the true win rate when one order is asked, and when both are?

# %%
from course_utils.judge import Judge
from course_utils.llm import LLM
from course_utils.offline.start import offline_url
from course_utils.stats import summarize_battle, verdict_win_rate

simulated = LLM("simulated-judge", base_url=offline_url(), journal=work / "trials.jsonl")
trials = {}
print("position bias  noise   one order             both orders           (SIMULATED judge)")
for bias in (0.0, 0.5, 1.0):
    for noise in (0.0, 0.3):
        judge = Judge(simulated, progress=False, traits={"position_bias": bias, "noise": noise})
        games = judge.battle(trial)
        both = trials[bias, noise] = summarize_battle(games)
        one = verdict_win_rate(game.first for game in games)
        cells = []
        for said in (one, both):
            low, high = said.interval
            mark = "covers" if low <= true_rate <= high else "MISSES"
            cells.append(f"{said.win_rate:.0%} [{low:.0%}, {high:.0%}] {mark}")
        print(f"{bias:12.0%}{noise:8.0%}   {cells[0]:22}{cells[1]}")
assert all(low <= true_rate <= high for low, high in (trials[b, 0.0].interval for b in (0, 0.5, 1)))

# %% [markdown] lang="ko"
# 첫 줄은 공평하고 실수하지 않는 심사자입니다. 아래로 갈수록 자리 편향이 커집니다. 먼저 `noise`가 0%인 줄만 보세요. 한 순서만 물은 승률은 참값에서 점점 멀어지지만, **두 순서를 합친 승률은 제자리를 지킵니다.** 편향이 한 번은 이쪽에, 한 번은 저쪽에 똑같이 얹혀 서로 지워지기 때문입니다.
#
# 그러나 `noise`는 지워지지 않습니다. 판정이 마구 뒤바뀌면 승률은 한 순서로 물었든 두 순서로 물었든 50%를 향해 끌려갑니다. `noise`가 30%인데도 한 순서만 물은 구간이 참값을 품는 줄이 있다면, 편향과 `noise`가 우연히 상쇄된 것입니다. 순서를 바꾸는 것은 **자리** 편향의 약일 뿐 만병통치약이 아닙니다. 흔들림은 바로 아래처럼 되풀이해 물으면 보이고, 한결같은 실수는 다음 절처럼 사람의 판정과 견주어야 보입니다.

# %% [markdown] lang="en" of="15f5fd6d"
# The first line is a fair judge that never slips. Further down, position bias grows. Look first at the lines with `noise` 0%. The win rate of one order drifts away from the truth, while **both orders together stay where they should**: the bias is added once to one side and once to the other, and cancels out.
#
# `noise` does not cancel. When verdicts are scrambled, the win rate is dragged towards 50%, whatever the order. Where one order covers the truth in spite of 30% `noise`, bias and `noise` happen to cancel out. Swapping answers is a cure for bias of **position**, not for everything. A judge that wavers is found out by asking again, as just below; one that errs steadily, only by comparing it with people, as in the next section.

# %%
print("The judge with bias 100% and noise 30%, asked again with three other seeds:")
judge = Judge(simulated, progress=False, repeats=4, traits={"position_bias": 1.0, "noise": 0.3})
judge.battle(trial[:30])
assert not judge.invalid
said = {}
for judgment in judge.judgments:
    said.setdefault((judgment.id, judgment.order), []).append(judgment.verdict)
same = share(len(set(verdicts)) == 1 for verdicts in said.values())
print(f"the same verdict all 4 times on {same:.0%} of {len(said)} questions and orders")
print(f"{trials[1.0, 0.3].consistency:.0%} of the questions have the same verdict in both orders")

# %% [markdown] lang="ko"
# 같은 것을 여러 번 물어 판정이 얼마나 흔들리는지 보는 것도 심사자를 재는 방법입니다. 첫째 비율이 낮은 것은 흔들림 때문이고, 둘째 비율에는 흔들림과 편향이 함께 들어 있습니다. 흔들림(noise)은 되풀이해서 물으면 보이고, 편향(bias)은 몇 번을 물어도 그대로라 순서를 바꾸어야 보입니다.

# %% [markdown] lang="en" of="201d51ee"
# Asking the same thing several times shows how much a judge wavers; that is part of measuring it. The first share is low because of noise; in the second, noise and bias are both at work. Noise shows when you ask again. Bias stays the same however often you ask, and shows only when you swap.

# %% [markdown] lang="ko"
# ## 7. 심사자와 나: 질문 스무 개
#
# 진짜 심사자에게는 정답지가 없습니다. 그 대신 여러분이 있습니다. 심사할 질문 가운데 스무 개를 뽑아 직접 판정하고, 심사자의 판정이 여러분의 판정과 얼마나 같은지 봅니다.
#
# `LABEL = True`로 바꾸고 실행하면 두 답변이 **누가 썼는지 가려진 채** 나옵니다. 한 글자를 치고 Enter를 누르세요. 1이나 2는 더 나은 답변, 0은 무승부, q는 그만입니다. 하나씩 바로 저장되므로, 쉬었다가 다시 실행하면 이어집니다.

# %% [markdown] lang="en" of="df295009"
# ## 7. The judge and you: twenty questions
#
# For a real judge there is no key to the right verdicts. There is you. Draw twenty of the questions, give your own verdicts, and see how often the judge agrees with you.
#
# Set `LABEL = True` and run: two answers appear, and **who wrote which is hidden**. Type one character and press Enter: 1 or 2 for the better answer, 0 for a tie, q to stop. Each is saved at once; run the cell again and it goes on.

# %%
from course_utils.reports.labelling import choose_items, label_items, read_labels

LABEL = False
chosen = choose_items(to_judge(), 20)
labels = label_items(chosen, work / "labels.jsonl") if LABEL else read_labels(work / "labels.jsonl")
whose = "your"
if not labels and known:  # nobody has labelled: the known truth stands in, and says so
    whose = "SIMULATED"
    rows = {new["id"]: right(new) - right(old) for old, new in load()}
    labels = {item.id: {1: "a", 0: "tie", -1: "b"}[rows[item.id]] for item in chosen}
print(f"{len(labels)} {whose} labels:", dict(Counter(labels.values())))

# %%
from course_utils.judge import Judge
from course_utils.stats import cohen_kappa, wilson_interval

judge = Judge(course.llm("judge", journal=work / "journal.jsonl"), progress=False)
mine = [item for item in chosen if item.id in labels]
print(judge.llm.plan(judge.battle_requests(mine)))
verdicts = {1.0: "a", 0.5: "tie", 0.0: "b", None: None}
theirs = {game.id: verdicts[game.score] for game in judge.battle(mine)}
both = [(labels[i.id], theirs[i.id]) for i in mine if theirs[i.id] is not None]
if both:
    same, n = sum(label == verdict for label, verdict in both), len(both)
    low, high = wilson_interval(same, n)
    print(f"{n} of {len(mine)} {whose} labels have the judge's verdict beside them")
    print(f"agreement {same / n:.1%}   95% interval [{low:.1%}, {high:.1%}]")
    if len({verdict for pair in both for verdict in pair}) > 1:  # of one verdict there is no kappa
        print(f"kappa {cohen_kappa(*zip(*both, strict=True)):.2f}")
else:
    print("No labels yet: set LABEL = True in the cell above and give some.")

# %%
for item in [item for item in mine if theirs[item.id] != labels[item.id]][:3]:
    print(f"{item.question!r}\n   a {item.a[:70]!r}\n   b {item.b[:70]!r}")
    print(f"   {whose} verdict {labels[item.id]}, the judge's {theirs[item.id]}")
    for said in [said for said in judge.judgments if said.id == item.id]:
        print(f"      {said.order}: {said.reason[:90]} -> {said.verdict}")

# %% [markdown] lang="ko"
# **일치율**(agreement)은 두 판정이 같은 비율이고, **카파**(kappa)는 우연히 맞았을 몫을 뺀 나머지에서 얼마나 맞았는지입니다. 1이면 모두 같고, 0이면 우연과 다름없습니다. 질문 스무 개의 구간이 얼마나 넓은지도 보세요.
#
# 출력의 `ab`는 a의 답변을 먼저 보여 준 순서, `ba`는 그 반대이고, 두 순서의 판정이 갈린 질문은 `tie`로 쳤습니다. 이유와 판정이 서로 맞지 않는 줄이 있다면, 모의 심사자가 이유를 쓴 뒤 판정만 바꿔치기한 것입니다(6절의 `noise`).
#
# 엇갈린 질문이 있으면 하나하나 읽어 보세요. 누가 옳은가요? 심사자가 놓친 것이 있나요, 아니면 여러분이 서두른 것인가요? 엇갈림을 읽는 이 십 분이 판정 수백 개보다 많은 것을 가르쳐 줍니다.
# (`SIMULATED`라고 나온다면 아직 아무도 매기지 않아 참값을 대신 쓴 것입니다. 모의 심사자도 참값을 아니, 일치율이 높은 것은 당연합니다.)

# %% [markdown] lang="en" of="7c37fd76"
# **Agreement** is the share of equal verdicts; **kappa** takes out what chance alone would agree on and says how much of the rest was agreed on: 1 is full agreement, 0 no better than chance. See how wide the interval of twenty questions is.
#
# In the output, `ab` is the order with a's answer first, `ba` the other; a question on which the two orders differ counts as a `tie`. Where a reason and its verdict do not match, the simulated judge swapped the verdict after writing the reason (the `noise` of section 6).
#
# Read each disagreement. Who is right? Did the judge miss something, or were you in a hurry? Ten minutes of reading these teach more than hundreds of verdicts.
# (Where it says `SIMULATED`, nobody has labelled anything yet and the known truth stands in. The simulated judge knows it as well, so high agreement is no surprise.)

# %% [markdown] lang="ko"
# ## 8. 모든 질문을 두 순서로
#
# 5절에서 손으로 해 본 심사를 떼어 둔 질문들로 넓힙니다. 모의 심사자에게는 전부 묻고, 실제 심사자에게는 레시피의 `questions`를 넘지 않게 고르게 뽑아 묻습니다. 돈을 쓰기 전에 먼저 `plan`으로 몇 번 묻고 얼마가 드는지 봅니다.
# 판정은 도착하는 대로 일지에 적힙니다. 도중에 끊겨도 이미 받은 판정을 다시 사지 않습니다.
#
# 규칙은 그림 한 장이 전부입니다. 두 순서가 모두 같은 모델을 가리켜야 이기거나 진 것이고, 나머지는 모두 1/2입니다. 그림의 a와 b는 자리가 아니라 모델이고(a가 미세조정 모델), `=`는 무승부입니다.

# %% [markdown] lang="en" of="476561d4"
# ## 8. Every question, in both orders
#
# What you did by hand is now repeated for the held-out questions: all of them with the simulated judge; with a real one an evenly spaced sample, no larger than the recipe's `questions`. Before anything is spent, `plan` says how many calls there are and what they cost.
# Every verdict goes into the journal as it arrives: if the run breaks off half way, no judgment is bought twice.
#
# One picture is the whole rule: a question is won or lost only if both orders name the same model; everything else counts 1/2. In it, a and b are models, not positions (a is the tuned one), and `=` is a tie.

# %%
from IPython.display import Image

from course_utils import REPO

Image(filename=REPO / "assets" / "figures" / "battle.png", width=820)

# %%
from course_utils.judge import Judge

judge = Judge(course.llm("judge", journal=work / "journal.jsonl"), progress=False)
items = to_judge()
print(f"{len(items)} questions: {judge.llm.plan(judge.battle_requests(items))}")

# %%
games = judge.battle(items)
write_jsonl(work / "games.jsonl", [dataclasses.asdict(game) for game in games])
print(f"{len(games)} questions judged, {len(judge.invalid)} invalid judgments")
for name, why in list(judge.invalid.items())[:5]:
    print(f"  {name}: {why}")
print(f"asked again: {judge.llm.plan(judge.battle_requests(items))}")
sealed = course.store.seal("evaluate")  # judgments are dear: copy them to where they survive

# %% [markdown] lang="ko"
# 마지막 줄을 보세요. 같은 심사를 다시 부탁하면 새로 물을 것이 하나도 없습니다. 셀 끝에서는 일지까지 한 번 봉인해 둡니다.
#
# 이제 요약합니다. **세는 단위는 판정이 아니라 질문**입니다. 한 질문의 두 판정은 서로 독립이 아니므로 하나로 합칩니다.
# 어떻게 합치는지는 아래에 출력한 코드 그대로입니다. 판정이 하나라도 무효인 질문은 빼고, 뺀 수를 밝힙니다.

# %% [markdown] lang="en" of="e9ff5e33"
# Look at the last line: judging the same questions again leaves nothing to ask. The cell ends by sealing everything so far, the journal included.
#
# Now the summary. **The unit is the question, not the verdict**: the two verdicts on a question are not independent, so they make one result.
# The code printed below is exactly how they are combined. A question with an invalid judgment is left out, and how many were left out is reported.

# %%
import inspect

from course_utils.stats import Game, summarize_battle

print(inspect.getsource(Game.score.fget))
games = [Game(**row) for row in read_jsonl(work / "games.jsonl")]
battle = summarize_battle(games, allow_invalid=True)
for name in ("interval", "wilson", "bootstrap"):
    low, high = getattr(battle, name)
    print(f"win rate {battle.win_rate:.1%}   95% {name:9} [{low:.1%}, {high:.1%}]")
print(f"wins {battle.wins}, ties {battle.ties} (contradictions {battle.contradictions}), "
      f"losses {battle.losses}, invalid {battle.invalid}")
print(f"sign test p = {battle.sign_test_p:.2g}   same verdict twice {battle.consistency:.1%}")
if battle.invalid:
    print(f"were all invalid ones lost {battle.worst:.1%}, were all won {battle.best:.1%}")

# %% [markdown] lang="ko"
# 읽는 법입니다.
#
# - 보고할 구간은 첫 줄의 **interval**입니다. 무승부가 섞인 승률은 동전 던지기보다 덜 흔들린다는 점까지 셈에 넣었습니다. **윌슨(Wilson) 구간**은 무승부를 동전처럼 다루어 조금 넓고, **부트스트랩(bootstrap) 구간**은 질문을 무작위로 다시 뽑는 일을 되풀이해 구합니다. 셋이 비슷하면 안심해도 됩니다.
# - **부호 검정**(sign test)의 p값은 두 모델이 실은 같다고 할 때, 결과가 이만큼 또는 그보다 더 한쪽으로 쏠릴 확률입니다. 무승부는 세지 않습니다.
# - **두 번 다 같은 판정**의 비율이 낮으면, 심사자가 자리에 휘둘린다는 신호입니다. 다음 절에서 들여다봅니다.

# %% [markdown] lang="en" of="a89e36cd"
# How to read this:
#
# - The interval to quote is the first, **interval**: it takes into account that a win rate with ties in it varies less than a coin toss. **Wilson's** treats a tie like a coin toss and is a little wider; the **bootstrap** interval comes from drawing the questions again and again. It is reassuring when the three agree.
# - The **sign test** says how often two equal models would look at least this lopsided. Ties do not count.
# - A low share of **the same verdict twice** is a sign that the judge is swayed by position. The next section looks into it.

# %% [markdown] lang="ko"
# 심사자의 판정을 ROUGE-L과 견주어 봅니다. 모범 답안과 낱말이 더 많이 겹치는 쪽을 이긴 것으로 치면, 승률이 같게 나올까요?

# %% [markdown] lang="en" of="e09a0d2d"
# Put ROUGE-L beside the judge. If the answer that shares more words with the reference were the winner, would the win rate be the same?

# %%
from course_utils.similarity import morphemes, rouge_l

scored, said = {}, {game.id: game.score for game in games}
for old, new in load()[: len(heldout)]:
    if new["id"] in said and new["reference"]:
        reference = morphemes(new["reference"])
        a, b = (rouge_l(morphemes(row["reply"]), reference) for row in (new, old))
        scored[new["id"]] = 0.5 if a == b else float(a > b)
judged = [id for id in scored if said[id] is not None]
print(f"win rate by ROUGE-L {share(scored[id] for id in judged):.1%}, "
      f"by the judge {share(said[id] for id in judged):.1%}, on {len(judged)} questions")
differ = [id for id in judged if scored[id] != said[id]]
print(f"they decide differently on {len(differ)} of them")
by_id = {new["id"]: (old, new) for old, new in load()}
for old, new in [by_id[id] for id in differ[:2]]:
    print(f"\n{new['question'][:100]!r}\n   reference {new['reference'][:70]!r}")
    print(f"   tuned     {new['reply'][:70]!r}\n   base      {old['reply'][:70]!r}")
    print(f"   ROUGE-L says {scored[new['id']]}, the judge {said[new['id']]}")

# %% [markdown] lang="ko"
# 엇갈린 질문을 모범 답안과 맞춰 보세요. 둘 다 틀렸다면 ROUGE-L이 낱말이 조금 더 겹친 쪽에 승리를 준 것입니다. 한쪽만 맞았는데 심사자가 1/2을 주었다면 이번에는 심사자가 실수한 것입니다.
# ROUGE-L은 값싸고 흔들리지 않아 곁에 두고 볼 만하지만, 뜻을 읽지는 못합니다.

# %% [markdown] lang="en" of="43c7ff5c"
# Hold each of these against its reference. Where both answers are wrong, ROUGE-L handed the win to the one that shares a few words more. Where one is right and the judge said 1/2, the judge slipped.
# ROUGE-L is cheap and steady and worth a look beside a judge, but it does not read for meaning.

# %% [markdown] lang="ko"
# ## 9. 한 순서만 물었다면
#
# 비용을 아끼려고 질문마다 한 번만 물었다면 어떤 결과를 보고했을까요? 판정은 이미 다 있으니, 같은 판정을 한 순서씩만 읽어 보면 됩니다.

# %% [markdown] lang="en" of="23559a5b"
# ## 9. If we had asked in one order only
#
# To save money, each question might have been asked once. What would we have reported? The verdicts are all here, so simply read them one order at a time.

# %%
from course_utils.stats import Game, summarize_battle, verdict_win_rate

games = [Game(**row) for row in read_jsonl(work / "games.jsonl")]
battle = summarize_battle(games, allow_invalid=True)
one_order = {
    "tuned first 미세조정 먼저": verdict_win_rate([g.first for g in games], allow_invalid=True),
    "base first 베이스 먼저": verdict_win_rate([g.second for g in games], allow_invalid=True),
}
for name, summary in {"both orders 두 순서": battle, **one_order}.items():
    print(f"{summary.win_rate:6.1%}  [{summary.interval[0]:.1%}, {summary.interval[1]:.1%}]  {name}")
print(f"of the verdicts that named somebody, {battle.first_position.value:.1%} named the first")

# %% [markdown] lang="ko"
# 같은 모델, 같은 질문, 같은 심사자인데 순서만으로 승률이 달라졌습니다. 마지막 줄은 승자를 가린 판정 가운데 앞자리를 고른 비율이고, 심사자가 공평하다면 50%에 가까워야 합니다. 다만 한쪽만 맞은 질문에서는 모의 심사자가 자리를 편들 일이 없으니, 그런 질문이 많으면 편향이 커도 50%에 가깝게 나옵니다. 모의 심사자의 편향은 우리가 크기를 정해 넣은 것이고, 실제 심사자의 편향은 직접 재어 보아야 압니다.
#
# 어느 쪽이 맞을까요? 작은 세계에서는 정답을 알기 때문에 **참 승률**을 셀 수 있습니다. 한쪽만 맞으면 1이나 0, 둘 다 맞거나 둘 다 틀리면 1/2입니다.
# 아래 셀은 세 구간이 저마다 참값을 품는지 봅니다. 두 순서로 물은 구간은 품고, 한 순서만 물은 구간은 놓치는지 확인하세요. 95% 구간이란, 질문을 새로 뽑아 가며 되풀이하면 스무 번에 한 번쯤은 바르게 물어도 참값을 놓친다는 뜻입니다. 여기서는 참값도 같은 질문에서 셌으니 그보다 드물게 놓칩니다.

# %% [markdown] lang="en" of="bf28fec4"
# The same models, questions and judge, and yet the order alone changed the win rate. The last line is the share of verdicts for the first position, of those that named a winner: with a fair judge it is near 50%. Where only one answer is right the position does not sway the simulated judge, so with many such questions the number stays near 50% even where the bias is large. The simulated judge's bias was put in on purpose; that of a real one has to be measured.
#
# Which one is right? In the small world the answers are known, so the **true win rate** can be counted: 1 or 0 where one model is right, 1/2 where both or neither are.
# The cell below checks whether each of the three intervals covers the truth: both orders together should, one order alone should miss it. A 95% interval means that if questions were drawn again and again, even the right way of asking would miss about one time in twenty; here the truth is counted on these very questions, so it misses more rarely.

# %%
judged = {game.id for game in games if game.score is not None}
duels = [(old, new) for old, new in load() if new["id"] in judged]
truth = None
if known:
    truth = share((1 + right(new) - right(old)) / 2 for old, new in duels)
    covers = {name: s.interval[0] <= truth <= s.interval[1]
              for name, s in {"both orders 두 순서": battle, **one_order}.items()}
    print(f"true win rate {truth:.1%}")
    for name, covered in covers.items():
        print(f"   {'covered' if covered else 'MISSED':8} by {name}")
else:
    print("Nobody knows the true win rate here; both orders together are the best estimate.")

# %%
from course_utils.plots import win_rate

win_rate(battle, one_order, truth, title="Win rate of the tuned model 미세조정 모델의 승률")

# %% [markdown] lang="ko"
# 주황 구간도 좁고 50%에서 멀어 확실해 보이지만, **엉뚱한 값을 확실하게** 말합니다. 질문을 늘려도 나아지지 않습니다. 구간은 우연만 재고 편향은 재지 못하기 때문입니다.
# 순서를 바꿔 한 번 더 묻는 비용이, 그래서 아깝지 않습니다.

# %% [markdown] lang="en" of="c263f063"
# The orange intervals, too, are narrow and far from 50%, and look certain: they are **certain about the wrong value**. More questions would not help, since an interval measures chance and knows nothing of bias.
# That is why asking once more in the other order is money well spent.

# %% [markdown] lang="ko"
# ## 10. 질문은 몇 개나 있어야 할까
#
# 가르고 싶은 차이가 작을수록 질문이 많이 듭니다. 승률이 얼마로 나왔을 때 질문이 몇 개여야 95% 구간이 50%를 벗어나는지, 또는 구간의 양쪽 폭이 저마다 5%포인트 안으로 들어오는지 셈합니다. 무승부는 없다고 칩니다.

# %% [markdown] lang="en" of="843e98a2"
# ## 10. How many questions does it take?
#
# The smaller the difference, the more questions. For several win rates, work out how many it takes until the 95% interval leaves 50% behind, or until it is at most five points wide on each side, supposing there are no ties.

# %%
from course_utils.stats import questions_needed, win_rate_interval

print("win rate   to leave 50% behind   within 5 points each side   (no ties)")
for rate in (0.52, 0.55, 0.6, 0.75, 0.9):
    print(f"{rate:8.0%}{questions_needed(rate):16,}{questions_needed(rate, half_width=0.05):24,}")
for n in (15, 60, 240):
    low, high = win_rate_interval(round(0.6 * n), 0, round(0.4 * n))
    print(f"60% of {n:3} questions: [{low:.0%}, {high:.0%}], {high - low:.0%} wide")
assert questions_needed(0.55) > 300

# %% [markdown] lang="ko"
# 구간을 절반으로 줄이려면 질문이 네 배쯤 필요합니다. 55%와 50%를 가르려는 사람이 질문을 스무 개만 준비했다면, 결과를 보기 전에 이미 답은 "알 수 없음"입니다.
# 실제로는 우연이 승률을 끌어내릴 수도 있으니, 위의 수보다 넉넉하게 준비하세요.

# %% [markdown] lang="en" of="45734e1f"
# Half the width takes about four times the questions. If you want to tell 55% from 50% and have prepared twenty questions, you know the result beforehand: "cannot tell".
# Chance may also pull the observed rate down, so prepare more than the numbers above.

# %% [markdown] lang="ko"
# ## 11. 어느 강의의 22/30을 다시 읽기
#
# 이 강의의 학습 설정은 공개 강의 [aiqwe/instruction-tuning-with-rag-example](https://github.com/aiqwe/instruction-tuning-with-rag-example)에서 출발했습니다.
# 그 강의는 질문 15개를 두 순서로 심사해, 판정 30개 가운데 22개에서 미세조정 모델이 이겼다고 보고합니다. 고맙게도 판정을 하나하나 공개해 두어서
# 다시 읽을 수 있습니다. 아래 글자 쌍이 한 질문의 두 판정이고, 첫 순서에서는 B가, 둘째 순서에서는 A가 미세조정 모델입니다.

# %% [markdown] lang="en" of="c14bf468"
# ## 11. Rereading somebody's 22 of 30
#
# The training settings of this course began with an open one, [aiqwe/instruction-tuning-with-rag-example](https://github.com/aiqwe/instruction-tuning-with-rag-example).
# It judged 15 questions in both orders and reports that the tuned model won 22 of 30 verdicts. It also published every verdict, which is what lets us read them again.
# Each pair of letters below is one question; the tuned model is B in the first order and A in the second.

# %%
from course_utils.stats import Game, sign_test, summarize_battle, wilson_interval

verdicts = "AB BA BA BA BB BA BA AA AB BA BA BA BA BA AB".split()
won = sum((one == "B") + (two == "A") for one, two in verdicts)
low, high = wilson_interval(won, 2 * len(verdicts))
print(f"{won} of {2 * len(verdicts)} verdicts = {won / 30:.2%}, as if independent: "
      f"[{low:.0%}, {high:.0%}], p = {sign_test(won, 30 - won):.3f}")

published = [
    Game(f"q{i}", {"A": "a", "B": "b"}[two], {"A": "b", "B": "a"}[one], 0, 0)
    for i, (one, two) in enumerate(verdicts)
]  # tuned is a; it stood first in their second order
again = summarize_battle(published)
print(again)
assert (won, again.wins, again.contradictions, again.losses) == (22, 10, 2, 3)

# %% [markdown] lang="ko"
# 승률은 그대로지만 확신이 달라집니다. 판정 30개를 서로 독립인 것처럼 세면 구간이 좁아지고 p값이 0.05 아래로 내려갑니다.
# 질문 15개로 세면 구간이 50%를 품고, p값도 0.05를 넘습니다. 미세조정이 소용없었다는 뜻은 아닙니다. **질문 15개만으로는 아직 말할 수 없다**는 뜻입니다.

# %% [markdown] lang="en" of="ae067968"
# The rate stays, the certainty does not. Counting 30 verdicts as if they were independent narrows the interval and pushes p below 0.05.
# Counted as 15 questions, the interval includes 50% and p is above 0.05. That does not say tuning was useless. It says that **these 15 questions cannot tell yet**.

# %%
assert low > 0.5 > again.interval[0]
assert sign_test(won, 30 - won) < 0.05 < again.sign_test_p
print(f"verdicts [{low:.1%}, {high:.1%}]   questions [{again.interval[0]:.1%}, {again.interval[1]:.1%}]")

# %% [markdown] lang="ko"
# ## 12. 점수로 매기면
#
# 심사자에게 답변을 하나씩 보여 주고 1점에서 10점까지 점수를 매기게 할 수도 있습니다. 자리가 없으니 자리 편향도 없습니다. 대신 심사자마다 눈금이 달라서,
# 점수의 절댓값보다 **같은 질문에서 두 모델의 차이**를 봅니다. 맛보기로 질문 스물네 개 안팎만 매깁니다.

# %% [markdown] lang="en" of="9ce1e870"
# ## 12. Grades instead
#
# A judge can also be shown one answer at a time and asked for a grade from 1 to 10. Without positions there is no position bias. But every judge has a scale of its own,
# so look at the **difference between the two models on the same question**, not at the grade itself. Two dozen questions or so are enough for a taste.

# %%
from course_utils.judge import Judge
from course_utils.stats import paired_difference, summarize_grades

judge = Judge(course.llm("judge", journal=work / "journal.jsonl"), progress=False)
few = spread(to_judge(), 24)
grades = {}
for name, side in {"base": "b", "tuned": "a"}.items():
    answers = [dataclasses.replace(item, answer=getattr(item, side)) for item in few]
    grades[name] = judge.grade(answers)
    found = summarize_grades(grades[name], allow_invalid=True)
    print(f"{name:6} mean grade {found.mean:.2f} of {found.n} answers, {found.invalid} invalid")

# %%
gain = paired_difference(grades["tuned"], grades["base"], allow_invalid=True)
low, high = gain.bootstrap
print(f"mean difference {gain.mean:+.2f}   95% interval [{low:+.2f}, {high:+.2f}], n = {gain.n}")
print(f"higher {gain.wins}, equal {gain.ties}, lower {gain.losses}; sign test p = {gain.sign_test_p:.2g}")

# %% [markdown] lang="ko"
# 구간이 0을 품지 않으면, 이 심사자의 눈에는 차이가 있다고 말할 수 있습니다. 두 모델 가운데 어느 쪽이 나은지 알고 싶다면 비교가 알맞고, 여러 모델의 순위를 매길 때는 점수가 편합니다.
# 비교와 점수가 늘 같은 말을 하지는 않습니다. 두 답이 모두 틀려 비긴 질문에서도 덜 틀린 답이 점수는 더 받을 수 있습니다.

# %% [markdown] lang="en" of="5eda1212"
# Where the interval leaves out 0, there is a difference in the eyes of this judge. To learn which of two is better, compare them; to rank several models, grades are handy.
# They do not always agree: on a question that is a tie because both answers are wrong, the less wrong one may still get the higher grade.

# %% [markdown] lang="ko"
# ## 13. 보고하고 봉인하기
#
# 숫자 하나로는 아무도 설득하지 못합니다. 심사 보고서 한 장에 승률과 구간, 유형별 결과, 점수의 분포, 자리와 길이의 편향, 비용, 무효 목록, 그리고 **배울 것이 가장 많은 엇갈림 열 개**를 두 답변과 함께 담습니다. 두 순서의 판정이 갈렸거나 비교와 점수가 서로 다른 말을 한 질문부터 고릅니다.
# 답변이 요청한 언어가 아닌 것 같으면 점수 곁에 표시(flag)만 답니다. 영어로 물은 질문에 영어로 답했다고 0점을 주는 일은 없어야 하니까요. 어느 언어로 답해야 하는지는 문항의 `answer_lang`이 정합니다.
#
# 판정은 모두 일지에 있으니 이 절만 다시 실행해도 돈이 들지 않습니다.

# %% [markdown] lang="en" of="3c69074d"
# ## 13. Report and seal
#
# One number convinces nobody. One page holds the win rate with its interval, the results by category, the distribution of grades, the bias of position and length, the cost, the list of invalid judgments, and **the ten most instructive disagreements**, with both answers: first those where the two orders, or the comparison and the grades, differ.
# Where an answer does not seem to be in the language asked for, a flag appears beside its score but does not change it: an English answer to an English question must not score zero. An item's `answer_lang` says which language is meant.
#
# All judgments are in the journal, so running this section again costs nothing.

# %%
from course_utils.judge import Judge
from course_utils.reports.judgments import write_judgment_report

judge = Judge(course.llm("judge", journal=work / "journal.jsonl"), progress=False)
items, graded = to_judge(), {}
games = judge.battle(items)
battles = judge.judgments
for name, side in {"tuned": "a", "base": "b"}.items():
    answers = [dataclasses.replace(i, answer=getattr(i, side)) for i in spread(items, 24)]
    judge.grade(answers)
    graded[name] = (answers, judge.judgments)
page = write_judgment_report(work / "report", items, battles, grades=graded, names=("tuned", "base"))
print("\n".join(page.read_text(encoding="utf-8").splitlines()[:26]))

# %% [markdown] lang="ko"
# 첫머리만 옮겼습니다. 8절의 `ties`는 모순까지 합친 수이고, 이 표는 모순을 따로 세어 무승부가 그만큼 적습니다.
# 전체는 작업 폴더의 `report/report.md`에 있고, 폴더째 GitHub에 올리면 그림까지 그대로 보입니다.
#
# 그림 가운데 두 장만 봅니다. 첫째는 유형별 승률입니다. 둘째 그림의 아랫줄은 더 긴 답변이 이긴 비율입니다. 50%에서 멀다고 곧 길이 편향은 아닙니다. 긴 쪽이 정말로 틀렸을 수도 있습니다. 2절에서 베이스 모델의 답이 얼마나 길었는지 떠올려 보세요.

# %% [markdown] lang="en" of="40cd0a1c"
# This is only its beginning. The `ties` of section 8 include the contradictions; this table counts those separately, so its ties are fewer.
# The whole is in `report/report.md` of the working folder; push the folder to GitHub and it is shown with its figures.
#
# Here are two of its figures. The first is the win rate by category. The lower row of the second is how often the longer answer won. A share far from 50% need not mean a bias: the longer answer may really be wrong. Remember from section 2 how long the base model's replies were.

# %%
from IPython.display import Image, display

for name in ("categories.png", "bias.png"):
    display(Image(data=(work / "report" / name).read_bytes()))

# %% [markdown] lang="ko"
# 마지막으로, 지금까지 잰 것을 모두 `summary.json` 하나에 모아 답과 판정 일지, 보고서와 함께 봉인합니다. 실패한 유형도, 한 순서만 물었을 때의 값도 빠짐없이 들어갑니다.

# %% [markdown] lang="en" of="f823ce49"
# Last, everything measured goes into one `summary.json`, sealed together with the replies, the journal of judgments and the report. The families that fail are in it, and so is what one order alone would have said.

# %%
from course_utils.stats import summarize_battle, verdict_win_rate
from course_utils.tasks import write_atomic

pairs = load()
known_games = {game.id for game in games if game.score is not None}
summary = {
    "by_family": {name: compare(some) for name, some in by_family(pairs[: len(heldout)]).items()},
    "unseen": compare(pairs[len(heldout) :]) if unseen else None,
    "stopped": {name: share(pair[side]["stopped"] for pair in pairs)
                for side, name in enumerate(["before", "after"])},
    "battle": {
        **dataclasses.asdict(summarize_battle(games, allow_invalid=True)),
        "truth": share((1 + right(new) - right(old)) / 2
                       for old, new in pairs if new["id"] in known_games) if known else None,
        "one_order": dataclasses.asdict(verdict_win_rate([g.first for g in games], allow_invalid=True)),
    },
}
write_atomic(work / "summary.json", json.dumps(summary, indent=1, ensure_ascii=False) + "\n")
sealed = course.store.seal("evaluate")
print(f"{sealed.files} files, {sealed.bytes:,} bytes sealed in {sealed.path.name}")

# %%
from course_utils import CourseError
from course_utils.reports.run import write_report

try:
    print(write_report(course.store, course.recipe, data=course.data))
except CourseError as error:  # opened alone: 01 and 02 have no artefacts of this run
    print(error)

# %% [markdown] lang="ko"
# 01부터 이어서 실행했다면 전체를 묶은 표가 나옵니다. 표의 마지막 줄들은 파일이 있는 곳이고, 같은 표가 `report.md`에도 있습니다. 이 노트북만 실행했다면 표 대신, 앞 단계의 결과가 없다는 한 문장이 나옵니다.
#
# 이 노트북에서 기억할 것은 다섯 가지입니다.
#
# 1. 평균보다 유형별 정답률을 먼저 보고, 숫자보다 답을 먼저 읽습니다.
# 2. 심사자를 믿기 전에 심사자를 잽니다. 참값이 있으면 참값과, 없으면 내 판정과 견줍니다.
# 3. 심사는 두 순서로 하고, 질문을 단위로 셉니다.
# 4. 읽지 못한 판정은 무승부가 아니라 무효이고, 그 수를 밝힙니다.
# 5. 승률은 신뢰구간과 함께 말합니다. 구간은 우연을 재지만 편향은 재지 못합니다.
#
# 숫자가 아니라 느낌으로 두 모델을 견주어 보고 싶다면 [05 데모](05_demo.ipynb)로 가세요. 더 큰 모델은 [04 키우기](04_scale_up.ipynb)에 있습니다.

# %% [markdown] lang="en" of="4adb8e0f"
# If you have run everything from 01 on, this is the table of the whole run; its last rows say where the files are, and `report.md` holds the same table. If you ran this notebook alone, one sentence says which step is missing.
#
# Five sentences to take with you:
#
# 1. Look at families before means, and read replies before numbers.
# 2. Measure a judge before you believe it: against the truth where there is one, else against yourself.
# 3. Judge in both orders, and count questions.
# 4. A verdict that cannot be read is invalid, not a tie; report how many there are.
# 5. Give a win rate with its interval; the interval measures chance, not bias.
#
# To compare the two models by feel rather than by numbers, go to the [05 Demo](05_demo.ipynb). Larger models are in [04 Scale up](04_scale_up.ipynb).

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
# ### 연습 1. 두 판정을 한 점수로
#
# ★ · 약 5분 · 5절
#
# 심사자는 모델이 아니라 **자리**를 말합니다. `A`는 먼저 보여 준 답변, `B`는 나중에 보여 준 답변, `C`는 무승부이고, `None`은 무효입니다.
# 첫 판정 `one`에서는 모델 a가 먼저, 둘째 판정 `two`에서는 모델 b가 먼저였습니다. 이 질문에서 모델 a의 점수를 돌려주세요.
#
# 두 번 모두 a를 골랐으면 1, 두 번 모두 b를 골랐으면 0, 하나라도 무효이면 `None`, 나머지는 모두 0.5입니다.
#
# 보기: `question_score("A", "B")`는 1.0이고, `question_score("A", "A")`는 0.5입니다.

# %% [markdown] lang="en" of="f6a121fc"
# ### Exercise 1. Two verdicts, one score
#
# ★ · about 5 minutes · section 5
#
# A judge names **positions**, not models: `A` is the answer shown first, `B` the one shown second, `C` a tie; `None` is invalid.
# In the first verdict, `one`, model a was shown first; in the second, `two`, model b was. Return what the question is worth to model a.
#
# It is 1 if both chose a, 0 if both chose b, `None` if either is invalid, and 0.5 in every other case.
#
# Example: `question_score("A", "B")` is 1.0, and `question_score("A", "A")` is 0.5.

# %%
def question_score(one, two):
    """What a question is worth to model a: 1, 0.5 or 0; None where a judgment is invalid."""
    ...

# %%
from course_utils.practice.checks import check

check("03.1", question_score)

# %% [markdown] lang="ko"
# <details><summary>풀이</summary>
#
# ```python
# def question_score(one, two):
#     if one is None or two is None:
#         return None
#     return {("A", "B"): 1.0, ("B", "A"): 0.0}.get((one, two), 0.5)
# ```
#
# `A`가 두 번 나온 것은 a가 두 번 이긴 것이 아니라 **앞자리**가 두 번 이긴 것입니다. 무승부 하나가 섞여도 심사자는 우열을 가리지 못한 것이니 0.5입니다.
#
# </details>

# %% [markdown] lang="en" of="067fa7d8"
# <details><summary>Solution</summary>
#
# ```python
# def question_score(one, two):
#     if one is None or two is None:
#         return None
#     return {("A", "B"): 1.0, ("B", "A"): 0.0}.get((one, two), 0.5)
# ```
#
# Two `A`s are not two wins of a but two wins of the **first position**. With a tie among the two, the judge could not tell either: 0.5.
#
# </details>

# %% [markdown] lang="ko"
# ### 연습 2. 짐작하지 않고 읽기
#
# ★★ · 약 15분 · 5절
#
# 심사자의 글 `text`와 허락된 판정의 목록 `allowed`를 받아 판정을 돌려주세요. 다음을 모두 지킨 글만 읽고, 나머지는 모두 `None`입니다.
#
# - 이중 대괄호 안의 판정이 글 전체에서 **한 가지**입니다. 같은 판정을 두 번 쓴 것은 괜찮습니다.
# - 그 판정이 `allowed`의 하나와 글자 하나까지 같습니다.
# - 그 판정이 **비어 있지 않은 마지막 줄**에 있습니다.
#
# 보기: `read_verdict("B만 맞습니다.\n[[B]]", ["A", "B", "C"])`는 `'B'`이고, `read_verdict("[[B]]입니다.\n아니, [[A]]", ["A", "B", "C"])`는 `None`입니다.

# %% [markdown] lang="en" of="83e4c9c4"
# ### Exercise 2. Read without guessing
#
# ★★ · about 15 minutes · section 5
#
# Take a judge's reply `text` and the list `allowed` of verdicts, and return the verdict. Accept only a reply that meets all of these conditions; any other is `None`.
#
# - The verdicts in double brackets, anywhere in the reply, are all **the same**. Saying one twice is fine.
# - It equals one of `allowed` to the letter.
# - It stands on the **last line that is not empty**.
#
# Example: `read_verdict("B만 맞습니다.\n[[B]]", ["A", "B", "C"])` is `'B'`, and `read_verdict("[[B]]입니다.\n아니, [[A]]", ["A", "B", "C"])` is `None`.

# %%
def read_verdict(text, allowed):
    """The one allowed verdict on the last line of a judge's reply; None rather than a guess."""
    ...

# %%
from course_utils.practice.checks import check

check("03.2", read_verdict)

# %% [markdown] lang="ko"
# <details><summary>풀이</summary>
#
# ```python
# import re
#
# def read_verdict(text, allowed):
#     pattern = r"\[\[([^\[\]]*)\]\]"
#     found = set(re.findall(pattern, text))
#     if len(found) != 1 or not found <= set(allowed):
#         return None
#     last = text.strip().split("\n")[-1]
#     return found.pop() if re.search(pattern, last) else None
# ```
#
# 마지막 것을 골라 읽으면 대개는 맞습니다. 그러나 '대개'가 어긋나는 곳은 답변 속에 판정을 심어 놓은 글이고, 바로 그런 글에서 속으면 안 됩니다.
#
# </details>

# %% [markdown] lang="en" of="00e58acb"
# <details><summary>Solution</summary>
#
# ```python
# import re
#
# def read_verdict(text, allowed):
#     pattern = r"\[\[([^\[\]]*)\]\]"
#     found = set(re.findall(pattern, text))
#     if len(found) != 1 or not found <= set(allowed):
#         return None
#     last = text.strip().split("\n")[-1]
#     return found.pop() if re.search(pattern, last) else None
# ```
#
# Taking the last one is right most of the time. Where it is wrong, somebody has planted a verdict in an answer, and that is just where a reader must not be fooled.
#
# </details>

# %% [markdown] lang="ko"
# ### 연습 3. 우연을 뺀 일치
#
# ★★ · 약 10분 · 7절
#
# 두 사람이 같은 질문들에 매긴 판정 `a`와 `b`를 받아 코언의 카파(Cohen's kappa)를 돌려주세요.
#
# $$\kappa = \frac{p_o - p_e}{1 - p_e}$$
#
# $p_o$는 판정이 같은 비율입니다. $p_e$는 우연히 같을 확률로, 판정마다 **두 사람이 그 판정을 쓴 비율을 곱해서** 모두 더한 것입니다.
# 한쪽이라도 `None`인 쌍은 먼저 뺍니다. 남은 쌍이 없거나 $p_e$가 1이면 카파는 없으니 `None`입니다.
#
# 보기: `kappa(["a", "a", "b", "b"], ["a", "b", "b", "b"])`는 0.5입니다.

# %% [markdown] lang="en" of="c01401e5"
# ### Exercise 3. Agreement beyond chance
#
# ★★ · about 10 minutes · section 7
#
# Take the verdicts `a` and `b` that two people gave on the same questions and return Cohen's kappa:
#
# $$\kappa = \frac{p_o - p_e}{1 - p_e}$$
#
# $p_o$ is the share of equal verdicts. $p_e$ is what chance gives: for every verdict **the share in which one used it times the share in which the other did**, all added up.
# Leave out every pair with a `None` first. If no pair is left, or $p_e$ is 1, there is no kappa: return `None`.
#
# Example: `kappa(["a", "a", "b", "b"], ["a", "b", "b", "b"])` is 0.5.

# %%
def kappa(a, b):
    """Cohen's kappa of two raters over the pairs without None; None where there is no kappa."""
    ...

# %%
from course_utils.practice.checks import check

check("03.3", kappa)

# %% [markdown] lang="ko"
# <details><summary>풀이</summary>
#
# ```python
# def kappa(a, b):
#     pairs = [(x, y) for x, y in zip(a, b) if x is not None and y is not None]
#     if not pairs:
#         return None
#     n = len(pairs)
#     observed = sum(x == y for x, y in pairs) / n
#     left, right = [x for x, _ in pairs], [y for _, y in pairs]
#     chance = sum(left.count(label) * right.count(label) for label in set(left)) / (n * n)
#     return None if chance == 1 else (observed - chance) / (1 - chance)
# ```
#
# 열에 아홉이 같은 판정인 데이터에서는 아무것도 읽지 않고 그 판정만 외쳐도 일치율이 90%입니다. 카파는 그것을 0으로 봅니다.
#
# </details>

# %% [markdown] lang="en" of="7ff4ff54"
# <details><summary>Solution</summary>
#
# ```python
# def kappa(a, b):
#     pairs = [(x, y) for x, y in zip(a, b) if x is not None and y is not None]
#     if not pairs:
#         return None
#     n = len(pairs)
#     observed = sum(x == y for x, y in pairs) / n
#     left, right = [x for x, _ in pairs], [y for _, y in pairs]
#     chance = sum(left.count(label) * right.count(label) for label in set(left)) / (n * n)
#     return None if chance == 1 else (observed - chance) / (1 - chance)
# ```
#
# Where nine in ten verdicts are the same, always giving that one without reading agrees 90% of the time. To kappa that is 0.
#
# </details>

# %% [markdown] lang="ko"
# ### 연습 4. 한 순서와 두 순서
#
# ★★ · 약 10분 · 9절
#
# 질문마다 두 판정 `(첫 순서, 둘째 순서)`가 들어 있는 목록 `games`를 받습니다. 판정은 모델을 가리키는 `"a"`, `"b"`, `"tie"`이고 무효는 `None`입니다. 모델 a의 승률 둘을 `(one, both)`로 돌려주세요.
#
# - `one`: **첫 순서만** 물은 사람이 보고할 승률입니다. 그 사람은 둘째 판정을 모릅니다. 무승부는 1/2, 무효는 뺍니다.
# - `both`: 질문을 단위로 한 승률입니다. 두 판정이 모두 a이면 1, 모두 b이면 0, 나머지는 1/2이고, 하나라도 무효인 질문은 뺍니다.
#
# 셀 것이 없는 쪽은 `None`입니다.
#
# 보기: `win_rates([("a", "a"), ("a", "b")])`는 `(1.0, 0.75)`입니다.

# %% [markdown] lang="en" of="41befac1"
# ### Exercise 4. One order and both
#
# ★★ · about 10 minutes · section 9
#
# Take `games`, a list with the two verdicts `(first order, second order)` of each question. They name models, `"a"`, `"b"` or `"tie"`; `None` is invalid. Return two win rates of model a, as `(one, both)`.
#
# - `one`: what somebody who asked **in the first order only** would report, without any knowledge of the second verdicts. A tie is 1/2; the invalid are left out.
# - `both`: the question is the unit. It is worth 1 if both verdicts are a, 0 if both are b, else 1/2; a question with an invalid verdict is left out.
#
# Where there is nothing to count, that rate is `None`.
#
# Example: `win_rates([("a", "a"), ("a", "b")])` is `(1.0, 0.75)`.

# %%
def win_rates(games):
    """The win rate of a from the first order alone and from both orders, as (one, both)."""
    ...

# %%
from course_utils.practice.checks import check

check("03.4", win_rates)

# %% [markdown] lang="ko"
# <details><summary>풀이</summary>
#
# ```python
# def win_rates(games):
#     worth = {"a": 1, "tie": 1 / 2, "b": 0}
#     one = [worth[first] for first, _ in games if first]
#     both = [
#         worth[first] if first == second else 1 / 2
#         for first, second in games
#         if first and second
#     ]
#     return tuple(sum(scores) / len(scores) if scores else None for scores in (one, both))
# ```
#
# 판정을 모두 모아 평균을 내면 a와 무승부가 엇갈린 질문이 3/4이 됩니다. 심사자가 가리지 못한 질문에 승리의 4분의 1을 더 얹어 주는 셈입니다.
#
# </details>

# %% [markdown] lang="en" of="94dad000"
# <details><summary>Solution</summary>
#
# ```python
# def win_rates(games):
#     worth = {"a": 1, "tie": 1 / 2, "b": 0}
#     one = [worth[first] for first, _ in games if first]
#     both = [
#         worth[first] if first == second else 1 / 2
#         for first, second in games
#         if first and second
#     ]
#     return tuple(sum(scores) / len(scores) if scores else None for scores in (one, both))
# ```
#
# A mean over all verdicts gives 3/4 to a question with one a and one tie: a quarter of a win too much for a question the judge could not decide.
#
# </details>
