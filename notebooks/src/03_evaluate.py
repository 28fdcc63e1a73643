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
# 손실은 내려갔습니다. 그런데 모델은 정말 나아졌을까요? 학습에 쓰지 않은 질문을 미세조정 전과 후의 모델에 똑같이 묻고 응답을 비교합니다. 이 노트북에서 직접 쓰는 것은 셋입니다.
#
# - 정답률(exact match)과 그 신뢰구간
# - 두 순서로 묻고, 판정을 읽고, 되돌려 점수로 바꾸는 **심사 모델**(LLM-as-a-judge)
# - 승률(win rate)과 그 구간
#
# 결과에는 꼬리표가 붙습니다. **모의**는 정답을 아는 프로그램, **작은 실제**는 매개변수 2억 7천만 개(270M)와 15억 개(1.5B)인 모델의 기록(2026-11-30), 나머지는 **여러분의 것**입니다.
#
# 연습까지 모두 하면 두 시간쯤 걸립니다. 바쁘면 1절에서 4절까지와 6절의 앞부분(실제 대결 둘)만 읽고, 연습과 5, 7, 8절은 나중에 하세요. 먼저 아래 카드에서 심사 모델(Judge)이 누구인지 봅니다.

# %% [markdown] lang="en" of="c941e3a0"
# # 03 Evaluate: how much better, and how sure
#
# The loss went down. But did the model get better? Put questions that were kept out of training to the model before and after tuning, and compare the replies. You will write three things yourself:
#
# - exact match, with its confidence interval
# - an LLM as a **judge**: ask in both orders, read the verdict, swap it back, score it
# - a win rate, with its interval
#
# Every result says what it is: **simulated** (a program that knows the answers), **small and real** (recorded from models of 270M and 1.5B parameters, 2026-11-30), or **yours**.
#
# With all exercises this takes about two hours. In a hurry, read sections 1 to 4 and the first part of 6 (two real battles); leave the exercises and sections 5, 7 and 8 for later. First see on the card below who judges.

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
# Judge 줄에 `SIMULATED`가 보이면 심사 모델 자리에 정답을 아는 프로그램이 있습니다. 그 숫자는 실제 모델에 대해 아무것도 말해 주지 않습니다. 대신 참값을 알기 때문에, 평가 방법이 참값을 찾아내는지 확인할 수 있습니다.

# %% [markdown] lang="en" of="e05a53c5"
# Where the Judge line says `SIMULATED`, a program that knows the answers stands in for a judge. Its numbers say nothing about real models, but its truth is known: you can check whether a method finds it.

# %% [markdown] lang="ko"
# ## 1. 응답부터 읽기
#
# 필요한 것은 미세조정 전 모델, 02의 어댑터, 학습에 쓰지 않은 질문입니다. 02를 아직 실행하지 않았다면 offline 레시피에서는 견본 어댑터를 씁니다.
#
# 이 노트북이 가져다 쓰는 것은 다음 셀에 모두 있습니다. 이 절을 실행한 뒤에는 어느 절로든 건너뛸 수 있습니다.

# %% [markdown] lang="en" of="eff45b17"
# ## 1. Read the replies first
#
# You need the model before tuning, the adapter of 02, and questions that training never saw. Without 02, the offline recipe takes a sample adapter.
#
# The next cell imports everything. After this section you can jump to any other.

# %%
import hashlib
import json
import math
import random
import shutil
import tempfile
from dataclasses import asdict, replace
from pathlib import Path

from IPython.display import Image

from course_utils import REPO, CourseError, shown, stats
from course_utils.inference import generate, load_model
from course_utils.judge import JSON, Item, Judge, battle_prompt, verdict_format
from course_utils.llm import LLM, Request
from course_utils.offline.start import offline_url
from course_utils.offline.world import heldout_tasks
from course_utils.plots import win_rate
from course_utils.plumbing.model_folder import find_base
from course_utils.prompts import get_template
from course_utils.reports.judgments import write_judgment_report
from course_utils.reports.labelling import choose_items, label_items, read_labels
from course_utils.reports.run import write_report
from course_utils.similarity import morphemes, rouge_l
from course_utils.tasks import read_jsonl, read_tasks, write_atomic, write_jsonl

# %% [markdown] lang="ko"
# 응답을 받는 일은 02에서 배웠으니 여기서는 보조 코드(plumbing)입니다. 늘 가장 그럴듯한 토큰만 고르므로(greedy) 다시 물어도 응답이 같습니다. `made_by`는 가중치와 질문의 지문이고, 지문이 같으면 저장해 둔 응답을 다시 씁니다.

# %% [markdown] lang="en" of="3adf04ad"
# Getting replies was taught in 02 and is plumbing here. The likeliest token is taken each time (greedy), so asking again gives the same replies. `made_by` is a fingerprint of weights and questions: while it is the same, saved replies are used.

# %%
adapter = course.artefact("train") / "adapter"
heldout, unseen = course.heldout(), course.unseen()
tasks, spec, template = heldout + unseen, course.recipe.evaluate, course.recipe.train.template


def ask(*adapters):
    """Replies to all tasks: of the model before tuning, or with the adapter."""
    precision = course.recipe.train.quantize
    model, tokenizer = load_model(course.base_model, *adapters, quantize=precision)
    prompts = [get_template(template, tokenizer).render(task) for task in tasks]
    limits = {"max_new_tokens": spec.max_new_tokens, "batch_size": spec.batch_size}
    return generate(model, tokenizer, prompts, **limits)


def made_by(*adapters):
    """A fingerprint of all that the replies depend on."""
    base = course.recipe.base_model
    found = hashlib.sha256(repr([tasks, base, template, spec.max_new_tokens]).encode())
    for folder in (Path(find_base(course.base_model)), *adapters):
        for weights in sorted(folder.glob("*.safetensors")):
            found.update(weights.read_bytes())
    return found.hexdigest()[:16]

# %% [markdown] lang="ko"
# 두 모델의 응답을 나란히 읽습니다. 질문은 고르지 않고 일정한 간격으로 셋을 뽑습니다.

# %% [markdown] lang="en" of="caa21054"
# Read both models side by side: three questions at equal distances, not the nicest.

# %%
work = course.store.restore("evaluate")  # what an earlier session has sealed


def text_of(task):
    """A task as one text: the instruction, a blank line, the input."""
    return "\n\n".join(filter(None, [task.instruction, task.input]))


def replies(name, *adapters):
    """One row a task, from the file where the same model has answered before."""
    path, mark = work / f"replies_{name}.jsonl", made_by(*adapters)
    if not path.is_file() or read_jsonl(path)[0]["made_by"] != mark:
        rows = [{**task.meta, "id": f"{'heldout' if i < len(heldout) else 'unseen'}-{i:04d}",
                 "question": text_of(task), "reference": task.output, "reply": said.text,
                 "stopped": said.stopped, "made_by": mark}
                for i, (task, said) in enumerate(zip(tasks, ask(*adapters), strict=True))]
        write_jsonl(path, rows)
    return read_jsonl(path)


before, after = replies("before"), replies("after", adapter)
for i in range(0, len(heldout), math.ceil(len(heldout) / 3)):
    print(before[i]["question"].replace("\n\n", " / ")[:130])
    print(f"   before {before[i]['reply'][:110]!r}\n   after  {after[i]['reply'][:110]!r}\n")

# %% [markdown] lang="ko"
# 미세조정 전 모델은 질문에 답하지 않고 제 글을 이어 씁니다. 미세조정한 모델은 짧게 답하고 멈춥니다. (여기에 보이는 것은 작은 세계의 3.5M 모델입니다.)
#
# 숫자를 세기 전에 하나를 확인합니다. 이 질문이 학습 데이터에 섞여 있다면 뒤의 숫자는 모두 거짓입니다. (글자까지 같은 질문만 찾습니다. 비슷한 질문을 찾는 법은 01의 4절에 있습니다.)

# %% [markdown] lang="en" of="e35367f3"
# Asked for: "I will buy an umbrella at the market" in polite form, how many things are listed (7), how many rooms a flat has (4). Before tuning, the model tells a story of its own ("School ended early ..."); the tuned one answers and stops. (This is the 3.5M model of the small world.)
#
# One check before counting: had these questions slipped into the training data, every number below would be false. (This finds only exact copies; section 4 of 01 shows how to find near ones.)

# %%
training = {(task.instruction, task.input) for task in course.training_tasks()}
leaked = [task for task in tasks if (task.instruction, task.input) in training]
assert not leaked, leaked[:3]
print(f"{len(heldout)} questions and {len(unseen)} in wordings unlike those of the training data: "
      f"none is among its {len(training):,}")
sealed = course.store.seal("evaluate")  # the replies are safe now: section 8

# %% [markdown] lang="ko"
# 다음은 뒤의 절들이 함께 쓰는 도구입니다. `gemma`와 `qwen`은 **작은 실제**의 기록입니다. 270M짜리 Gemma 3의 응답과, 그것을 심사한 Qwen2.5-Coder 1.5B의 판정입니다. 서버가 없는 주소라 판정은 기록(일지, journal)에서만 나옵니다.

# %% [markdown] lang="en" of="cf1e2043"
# The tools that later sections share. `gemma` and `qwen` are the **small and real** record: replies of Gemma 3 270M, and the verdicts of Qwen2.5-Coder 1.5B on them. There is no server at that address: verdicts come from the record (a journal) alone.

# %%
def right(row):
    """Whether a reply begins with the reference, to the letter."""
    return stats.exact_match(row["reply"], row["reference"])


def share(values):
    """The share of true values, or the mean of numbers."""
    values = list(values)
    return sum(values) / len(values)


REAL = REPO / "assets" / "real"
journal = shutil.copy(REAL / "judge.jsonl", tempfile.mkdtemp())  # a journal has one user at a time
qwen = LLM("qwen2.5-coder-1.5b-instruct", base_url="http://127.0.0.1:9/v1", journal=journal)
gemma = {(row["model"], row["id"]): row["reply"] for row in read_jsonl(REAL / "replies.jsonl")}
questions = {task.meta["id"]: task for task in read_tasks(REPO / "data" / "eval_tasks.jsonl")}


def real_battle(a, b):
    """The 105 evaluation questions with the recorded replies of two Gemmas."""
    return [Item(i, text_of(task), a=gemma[a, i], b=gemma[b, i], reference=task.output or None)
            for i, task in questions.items()]

# %% [markdown] lang="ko"
# ## 2. 정답률과 그 구간
#
# 정답이 한 줄로 정해진 질문이라면 세기만 하면 됩니다. 응답이 모범 답안과 글자까지 똑같이 시작하면 맞은 것입니다(뒤에 다른 줄이 이어져도 됩니다).
#
# 30개 가운데 26개를 맞혔다면 87%입니다. 질문을 끝없이 물었다면 몇 %일까요? 그 참값이 있을 만한 범위가 **95% 신뢰구간**입니다. 약속은 이렇습니다. 시험을 되풀이하며 매번 구간을 구하면, 100번에 95번꼴로 구간이 참값을 품습니다. 교과서의 구간과 **윌슨(Wilson) 구간**을 차례로 씁니다. `1.96`은 정규분포의 가운데 95%가 평균에서 표준오차의 1.96배 안에 있다는 뜻입니다. 표준오차는 시험을 되풀이할 때 정답률이 흩어지는 폭입니다.

# %% [markdown] lang="en" of="0701086c"
# ## 2. Exact match and its interval
#
# Where the answer is one fixed line, counting will do: a reply is right if it begins with the reference, to the letter (more lines may follow).
#
# 26 right of 30 is 87%. What would it be over endless questions? The range in which that true share may well lie is the **95% confidence interval**. Its promise: repeat the test, work out the interval each time, and about 95 in 100 of them hold the true share. Write the textbook's, then **Wilson's**. The standard error is how far the share scatters from test to test, and 95% of a normal distribution lies within 1.96 of them.

# %%
def textbook(k, n):
    """The share, give or take 1.96 standard errors."""
    p = k / n
    margin = 1.96 * math.sqrt(p * (1 - p) / n)
    return p - margin, p + margin


def no_surprise(k, n):
    """The lowest and highest true share p at most 1.96 of its own standard errors from k of n."""
    tried = [i / 10_000 for i in range(10_001)]
    near = [p for p in tried if abs(k / n - p) <= 1.96 * math.sqrt(p * (1 - p) / n)]
    return near[0], near[-1]


for k in (15, 26, 30):
    (low, high), (first, last) = textbook(k, 30), no_surprise(k, 30)
    print(f"{k} of 30   textbook [{low:.0%}, {high:.0%}]   no surprise [{first:.0%}, {last:.0%}]")

# %% [markdown] lang="ko"
# 30개를 모두 맞히면 교과서 구간은 [100%, 100%], 앞으로도 절대 틀리지 않는다는 말이 됩니다. `no_surprise`는 거꾸로 묻습니다. "참 정답률 p가 얼마여야 이 결과가 놀랍지 않을까?" 하나하나 대 보는 대신 p에 대해 방정식을 풀면 윌슨의 공식입니다. 어느 쪽이 95%라는 이름값을 하는지 실험해 봅니다.

# %% [markdown] lang="en" of="ba299c7f"
# With 30 of 30 the textbook's interval is [100%, 100%], as if this model could never err. `no_surprise` asks the other way round: "for which true shares p would this result be no surprise?" Solve for p instead of trying one by one, and you have Wilson's formula. Which of the two deserves its 95%?

# %%
def wilson(k, n, z=1.959964):
    """The same two shares, solved for p."""
    p, shrink = k / n, 1 + z * z / n
    center = (p + z * z / (2 * n)) / shrink
    margin = z / shrink * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return center - margin, center + margin


ways = wilson(26, 30), no_surprise(26, 30), stats.wilson_interval(26, 30)
for ours, tried, theirs in zip(*ways, strict=True):
    assert math.isclose(ours, tried, abs_tol=1e-4) and math.isclose(ours, theirs, abs_tol=1e-6)
rng, truth = random.Random(0), 0.95
for interval in (textbook, wilson):
    covered = 0
    for _ in range(4000):
        k = sum(rng.random() < truth for _ in range(30))
        low, high = interval(k, 30)
        covered += low <= truth <= high
    print(f"{interval.__name__:9} covers the true share, 95%, in {covered / 4000:.1%} of 4,000 tests")

# %% [markdown] lang="ko"
# 참 정답률이 95%인 모델에게 시험을 4,000번 보게 했습니다. 윌슨 구간은 약속대로 참값을 품고, 교과서 구간은 다섯 번에 한 번꼴로 놓칩니다. 이제 유형별로 셉니다. 평균 하나만 보면 실패한 유형이 잘된 유형 뒤에 숨습니다.

# %% [markdown] lang="en" of="64ce5a16"
# A model whose true share is 95% sat 4,000 tests. Wilson's interval keeps its promise; the textbook's misses one time in five. Now count by family: a single mean hides one that failed.

# %%
def by_family(rows):
    """For each family, whether its replies are right."""
    found = {}
    for row in rows:
        found.setdefault(row["family"], []).append(right(row))
    return found


n = len(heldout)
old, new = by_family(before[:n]), by_family(after[:n])
for rows, found in ((before, old), (after, new)):
    found["all"] = [right(row) for row in rows[:n]]
    if unseen:
        found["new wordings"] = [right(row) for row in rows[n:]]
for name, hits in new.items():
    low, high = stats.wilson_interval(sum(hits), len(hits))
    print(f"{name:12}{share(old[name]):6.0%} -> {share(hits):4.0%}  of {len(hits):3}"
          f"   [{low:.0%}, {high:.0%}]")

# %% [markdown] lang="ko"
# 구간이 넓습니다. 30개로는 87%와 97%를 가를 수 없습니다. 비교(comparison)의 50%는 둘 중 하나를 고르는 질문이니 동전 던지기와 같습니다. 마지막 줄은 학습 데이터에 없던 표현으로 물은 질문입니다. 더 낮은 것은 표현을 외운 몫이 있다는 신호입니다.
#
# 80%에 못 미치는 유형의 틀린 응답을 읽어 봅니다. (실제 모델의 모범 답안은 대개 긴 글이라 이 표가 0%에 가까울 수 있습니다. 고장이 아닙니다. 그때는 유형마다 하나씩만 나옵니다.)

# %% [markdown] lang="en" of="72f4388f"
# The intervals are wide: thirty questions cannot tell 87% from 97%. The 50% of `comparison`, where one of two is to be chosen, is no better than tossing a coin. The last line has wordings that training never used; that it is lower is a sign that some phrasing was learned by heart.
#
# Read a wrong reply from each family below 80%. (With a real model, whose references are long texts, this table may be close to 0%. Nothing is broken.)

# %%
failing = [name for name, hits in by_family(after[: len(heldout)]).items() if share(hits) < 0.8]
for name in failing[:6]:
    wrong = next(row for row in after if row["family"] == name and not right(row))
    print(f"[{name}]", wrong["question"].replace("\n\n", " / ")[:130])
    print(f"   reference {wrong['reference'][:90]!r}\n   after     {wrong['reply'][:90]!r}")

# %% [markdown] lang="ko"
# 번역에서는 교실이 부엌이 되었고, 비교에서는 더 비싼 집을 골랐습니다. 무엇을 못 배웠는지 숫자보다 잘 보입니다.
#
# 정답률이 보지 못하는 것도 있습니다. 모범 답안이 "모두 5개입니다."일 때 네 응답을 채점합니다. 겹치는 형태소를 세는 ROUGE-L도 곁에 둡니다.

# %% [markdown] lang="en" of="53f5ef03"
# The translation turned the classroom into a kitchen; the comparison asked for the lower deposit (구름빌라, 74 million won) and got the higher. That says more than a number.
#
# Exact match is blind, too. Let it mark four replies where the reference is "모두 5개입니다." (five in all): that very sentence, "모두 다섯 개예요." (five, in other words), "모두 6개입니다." (six) and "모두 50개입니다." (fifty). Beside it stands ROUGE-L, which counts shared morphemes.

# %%
reference = "모두 5개입니다."
for answer in ("모두 5개입니다.", "모두 다섯 개예요.", "모두 6개입니다.", "모두 50개입니다."):
    overlap = rouge_l(morphemes(answer), morphemes(reference))
    print(f"{answer:16} exact match {stats.exact_match(answer, reference)!s:6} ROUGE-L {overlap:.2f}")
written = {i: task.output for i, task in questions.items() if task.output}
for name in ("base", "seeds", "both"):
    hits = sum(stats.exact_match(gemma[name, i], output) for i, output in written.items())
    print(f"Gemma 270M (real), {name}: {hits} of {len(written)} replies match exactly")

# %% [markdown] lang="ko"
# 정답률은 맞는 응답을 틀렸다 하고, ROUGE-L은 틀린 응답에 더 높은 점수를 줍니다. 작은 실제의 Gemma는 미세조정 전에도 후에도 0개입니다. 나아졌는지 아닌지 이 지표로는 볼 수 없습니다. 뜻을 읽는 심사 모델이 필요합니다.

# %% [markdown] lang="en" of="2687d65a"
# Exact match calls a right reply wrong, and ROUGE-L gives the wrong ones a higher score. Real Gemma scores 0 before and after tuning: this measure cannot see whether it got better. It takes a judge that reads for meaning.

# %% [markdown] lang="ko"
# ## 3. 심사 모델을 손으로 (작은 실제)
#
# 심사 모델 Qwen에게 간 글부터 읽습니다. 승자를 아는 쌍입니다. 하나는 모범 답안 "떡"이고, 다른 하나는 그것을 로마자로 적어 망친 것입니다.

# %% [markdown] lang="en" of="7a6d3b2e"
# ## 3. A judge by hand (small and real)
#
# Begin with what Qwen, the judge, was sent. The question: if our food is soup, namul, rice cake or stew, which is baekseolgi? The winner is known: one reply is the right "떡" (rice cake), the other the same word spoiled, in Latin letters.

# %%
pair = next(pair for pair in read_jsonl(REAL / "pairs.jsonl") if pair["id"] == "latin-25")
print(battle_prompt(pair["question"], pair["right"], pair["spoiled"], form=JSON))

# %% [markdown] lang="ko"
# 응답의 모든 줄 앞에 세로줄(|)이 있고, 시작과 끝 표시에는 이 글 전체에서 계산한 부호가 붙습니다. 응답 속에 "판정은 A"라는 말이 있어도 인용문 밖으로 나오지 못합니다. (심사 모델이 그 말에 솔깃해지는 것은 막지 못합니다.)
#
# 이제 **두 번** 묻습니다. 두 번째에는 자리만 바꿉니다.

# %% [markdown] lang="en" of="e6f207c3"
# The prompt asks a fair judge to look at accuracy and fluency, not at length or position, and to write JSON: a reason, then "A", "B", or "C" for a tie. With a bar (|) before each of its lines, and marks whose code is worked out from the whole text, a reply that says "the verdict is A" stays inside its quotation. (It may still impress the judge.)
#
# Now ask **twice**. The second time the two have changed places.

# %%
def ask_judge(question, first, second, reference=None):
    """Qwen's reply about two answers, shown in this order."""
    prompt = battle_prompt(question, first, second, reference, form=JSON)  # printed above
    shape = verdict_format("ABC")  # the JSON allowed: a reason, then one of these verdicts
    params = {"temperature": 0, "max_tokens": 400, "response_format": shape}
    [reply] = qwen.complete([Request([{"role": "user", "content": prompt}], params)])
    return reply


for first, second in (("right", "spoiled"), ("spoiled", "right")):
    reply = ask_judge(pair["question"], pair[first], pair[second])
    said = json.loads(reply.text)["verdict"]
    chosen = {"A": first, "B": second, "C": "neither"}[said]
    print(f"A = {pair[first]!r} ({first})   B = {pair[second]!r} ({second})   {said} -> {chosen}")
    print(reply.text, "\n")
Image(filename=REPO / "assets" / "figures" / "battle.png", width=820)

# %% [markdown] lang="ko"
# 두 번 다 `A`입니다. 판정은 **자리**를 말합니다. 그 자리에 무엇이 있었는지 되돌려 보면 첫 번째는 옳은 쪽, 두 번째는 망친 쪽입니다. 이유도 그때그때 지어냈습니다. 이렇게 `A`가 두 번이거나 `B`가 두 번이면 두 순서가 서로 다른 승자를 말한 것입니다. 그런 질문을 **모순**(contradiction)이라 하고, 점수는 1/2입니다. 위 그림 한 장이 규칙의 전부입니다(`=`는 무승부).

# %% [markdown] lang="en" of="4127f9fe"
# Twice `A`. A verdict names a **position**: put back into models, it was the right reply first and the spoiled one second. The reasons follow suit: "A is the better choice; '떡' is the most common way", then "choosing 'tteok' is the better choice". Twice `A`, or twice `B`, means that the two orders name different winners: such a question is a **contradiction** and counts 1/2. The picture above is the whole rule (`=` is a tie).

# %% [markdown] lang="ko"
# 판정은 읽는 것이지 짐작하는 것이 아닙니다. 다음은 400토큰에서 잘린 실제 응답입니다. 첫 초안 `guess`는 글자 A가 있는지만 봅니다.

# %% [markdown] lang="en" of="540a0b27"
# A verdict is read, never guessed. Here a real reply was cut at 400 tokens: "A writes the owner's reply, B writes the owner's reply, both ...", over and over. The first draft, `guess`, only looks for a letter A.

# %%
def guess(reply):
    """A first draft."""
    return "A" if "A" in reply.text else "B"


def read(reply):
    """The verdict "A", "B" or "C"; None where the reply is cut or holds none of them."""
    if reply.finish_reason != "stop":
        return None
    try:
        said = json.loads(reply.text)["verdict"]
    except (ValueError, KeyError, TypeError):
        return None
    return said if said in ("A", "B", "C") else None


half = next(pair for pair in read_jsonl(REAL / "pairs.jsonl") if pair["id"] == "half-24")
cut = ask_judge(half["question"], half["spoiled"], half["right"])
print(cut.text[:110], "...", cut.text[-40:])
print(f"finish_reason {cut.finish_reason}: guessed {guess(cut)}, read {read(cut)}")

# %% [markdown] lang="ko"
# `None`은 **무효**(invalid)이지 무승부가 아닙니다. 무승부로 바꾸는 순간 심사 모델의 고장이 모델의 성적이 됩니다. (JSON을 모르는 서버에는 마지막 줄의 `[[A]]`로 판정을 받습니다. 그것을 읽는 일은 연습 2입니다.)
#
# 이제 전부 잇습니다. 두 순서로 묻고, 읽고, 되돌리고, 점수로 바꿉니다.

# %% [markdown] lang="en" of="e3754899"
# `None` is **invalid**, not a tie. Once it is stored as a tie, a fault of the judge is a result of the model. (A server without JSON schemas is asked for `[[A]]` on the last line; reading that is exercise 2.)
#
# Now all of it: ask in both orders, read, swap back, score.

# %%
def score(first, second):
    """What a question is worth to model a: 1, 0 or 1/2; None where a verdict is invalid."""
    if first is None or second is None:
        return None
    return {("a", "a"): 1.0, ("b", "b"): 0.0}.get((first, second), 0.5)


def battle(items):
    """For each question: its id, the verdict with a shown first, with b shown first, the score."""
    games = []
    for item in items:
        first = second = "tie"  # about two equal replies nobody has to ask
        if item.a != item.b:
            said = read(ask_judge(item.question, item.a, item.b, item.reference))
            first = {"A": "a", "B": "b", "C": "tie", None: None}[said]
            said = read(ask_judge(item.question, item.b, item.a, item.reference))
            second = {"A": "b", "B": "a", "C": "tie", None: None}[said]  # b stood first
        games.append((item.id, first, second, score(first, second)))
    return games

# %% [markdown] lang="ko"
# 맞는지 확인할 차례입니다. 실제 판정 240개에서 `Judge.battle`과 하나하나 같은지 봅니다.

# %% [markdown] lang="en" of="686e6359"
# Now check it: is it equal to `Judge.battle` on 240 real verdicts?

# %%
items = [Item(pair["id"], pair["question"], a=pair["right"], b=pair["spoiled"])
         for pair in read_jsonl(REAL / "pairs.jsonl")]
games = Judge(qwen, progress=False, max_tokens=400).battle(items)
mine = battle(items)
assert mine == [(game.id, game.first, game.second, game.score) for game in games]
print(f"{len(mine)} questions, equal to Judge.battle; the first: {mine[0]}")

# %% [markdown] lang="ko"
# ### 연습 1. 두 판정을 한 점수로
#
# ★ · 약 5분 · 3절
#
# 심사 모델은 **자리**를 말합니다. `A`는 먼저 보여 준 응답, `B`는 나중에 보여 준 응답, `C`는 무승부, `None`은 무효입니다. 첫 판정 `one`에서는 모델 a가, 둘째 판정 `two`에서는 모델 b가 먼저였습니다. 이 질문에서 모델 a의 점수를 돌려주세요.
#
# 두 번 모두 a를 골랐으면 1, 두 번 모두 b를 골랐으면 0, 하나라도 무효이면 `None`, 나머지는 0.5입니다.
#
# 보기: `question_score("A", "B")`는 1.0이고, `question_score("A", "A")`는 0.5입니다.

# %% [markdown] lang="en" of="ae7da197"
# ### Exercise 1. Two verdicts, one score
#
# ★ · about 5 minutes · section 3
#
# A judge names **positions**: `A` is the reply shown first, `B` the second, `C` a tie; `None` is invalid. In the first verdict, `one`, model a was shown first; in the second, `two`, model b was. Return what the question is worth to model a.
#
# It is 1 if both chose a, 0 if both chose b, `None` if either is invalid, else 0.5.
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
# `A`가 두 번이면 a가 아니라 **앞자리**가 두 번 이긴 것입니다.
#
# </details>

# %% [markdown] lang="en" of="9d4e1104"
# <details><summary>Solution</summary>
#
# ```python
# def question_score(one, two):
#     if one is None or two is None:
#         return None
#     return {("A", "B"): 1.0, ("B", "A"): 0.0}.get((one, two), 0.5)
# ```
#
# Two `A`s are two wins of the **first position**, not of a.
#
# </details>

# %% [markdown] lang="ko"
# ### 연습 2. 짐작하지 않고 읽기
#
# ★★ · 약 15분 · 3절
#
# 심사 모델의 글 `text`와 허락된 판정의 목록 `allowed`를 받아 판정을 돌려주세요. 다음을 모두 지킨 글만 읽고, 나머지는 `None`입니다.
#
# - 이중 대괄호 안의 판정이 글 전체에서 **한 가지**입니다. 같은 판정을 두 번 쓴 것은 괜찮습니다.
# - 그 판정이 `allowed`의 하나와 글자까지 같습니다.
# - 그 판정이 **비어 있지 않은 마지막 줄**에 있습니다.
#
# 보기: `read_verdict("B만 맞습니다.\n[[B]]", ["A", "B", "C"])`는 `'B'`이고, `read_verdict("[[B]]입니다.\n아니, [[A]]", ["A", "B", "C"])`는 `None`입니다.

# %% [markdown] lang="en" of="bdc59dc8"
# ### Exercise 2. Read without guessing
#
# ★★ · about 15 minutes · section 3
#
# Take a judge's reply `text` and the list `allowed` of verdicts, and return the verdict. Read only a reply that meets all of these; any other is `None`.
#
# - The verdicts in double brackets, anywhere in the reply, are all **the same**. Saying one twice is fine.
# - It equals one of `allowed` to the letter.
# - It stands on the **last line that is not empty**.
#
# Example: `read_verdict("B만 맞습니다.\n[[B]]", ["A", "B", "C"])` ("only B is right") is `'B'`, and `read_verdict("[[B]]입니다.\n아니, [[A]]", ["A", "B", "C"])` ("B. No, A") is `None`.

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
# 마지막 것을 골라 읽으면 대개는 맞습니다. 틀리는 곳은 누군가 응답 속에 판정을 심어 놓은 글이고, 바로 거기서 속으면 안 됩니다.
#
# </details>

# %% [markdown] lang="en" of="cbe7033f"
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
# Taking the last one is right most of the time. Where it is wrong, somebody has planted a verdict, and there least of all should a reader be fooled.
#
# </details>

# %% [markdown] lang="ko"
# ## 4. 실제 심사 모델의 실력 (작은 실제)
#
# 심사 모델도 시험을 봐야 합니다. 승자를 아는 쌍이 120개 있습니다. 씨앗 과제의 모범 답안과, 그것을 코드로 망친 답안입니다. 숫자 하나를 바꾸거나(number), 절반을 자르거나(half), 로마자로 적거나(latin), 다른 과제의 답으로 바꿨습니다(other). 좋은 심사 모델이라면 어느 순서로 물어도 옳은 쪽을 고릅니다. 모범 답안은 따로 보여 주지 않습니다.

# %% [markdown] lang="en" of="3e617880"
# ## 4. What a real judge is worth (small and real)
#
# A judge has to sit a test as well. There are 120 pairs whose winner is known: the answer of a seed task, and the same spoiled by code. A number was changed (number), half cut off (half), Hangul spelt in Latin letters (latin), or another task's answer put in its place (other). A good judge picks the right one in either order. It is shown no reference.

# %%
items = [Item(pair["id"], pair["question"], a=pair["right"], b=pair["spoiled"])
         for pair in read_jsonl(REAL / "pairs.jsonl")]
games = Judge(qwen, progress=False, max_tokens=400).battle(items)
first = [game.first for game in games if game.first]  # the right answer stood first
second = [game.second for game in games if game.second]
both = [game for game in games if game.score is not None]
counts = {
    "right, with the right answer shown first": (first.count("a"), len(first)),
    "right, with the right answer shown second": (second.count("a"), len(second)),
    "right in both orders": (sum(game.score == 1 for game in both), len(both)),
    "the same verdict in both orders": (sum(game.first == game.second for game in both), len(both)),
    "invalid": (2 * len(games) - len(first) - len(second), 2 * len(games)),
}
print("Qwen2.5-Coder 1.5B, real, recorded 2026-11-30")
for name, (k, n) in counts.items():
    low, high = stats.wilson_interval(k, n)
    print(f"{name:42}{k:4} of {n:3}  {k / n:4.0%}  [{low:.0%}, {high:.0%}]")
for kind in ("number", "half", "latin", "other"):
    some = [game.score for game in games if game.id.startswith(kind)]
    print(f"{kind:7} right twice {some.count(1.0):2}, wrong twice {some.count(0.0)}, "
          f"undecided {some.count(0.5)}, invalid {some.count(None)}")

# %% [markdown] lang="ko"
# 옳은 응답을 먼저 보여 주면 84%를 맞히고, 나중에 보여 주면 23%만 맞힙니다. 대부분 자리를 고른 것입니다. 숫자 하나가 바뀐 30쌍에서는 28쌍을 가리지 못했습니다. 이런 심사 모델로 승률을 재면 어떻게 보일까요? 참 승률은 100%입니다.

# %% [markdown] lang="en" of="7dae3598"
# Shown first, the right answer wins 84% of the time; shown second, 23%. Mostly a position was chosen. Of the 30 pairs with a changed number, 28 stay undecided. What does a win rate look like through this judge? The true one is 100%.

# %%
summary = stats.summarize_battle(games, allow_invalid=True)
one_order = {
    "right first 옳은 쪽 먼저": stats.verdict_win_rate(first),
    "spoiled first 망친 쪽 먼저": stats.verdict_win_rate(second),
}
chosen = summary.first_position
print(f"first position: {chosen.value:.0%} of {chosen.n} verdicts that name a winner")
win_rate(summary, one_order, 1.0, title="Qwen 1.5B, known winner 승자를 아는 120쌍 (real 작은 실제)")

# %% [markdown] lang="ko"
# 무승부를 1/2로 치면, 한 순서만 물은 사람은 91%, 또는 38%라고 보고합니다. 두 순서를 합치면 58%입니다. (두 값의 평균이 아닙니다. 승리와 무승부가 만나도 3/4이 아니라 1/2로 셉니다.) 참값 100%는 구간 밖에 멀리 있습니다. **두 순서로 물으면 어느 한쪽의 편을 들지는 않지만, 승률은 50% 쪽으로 눌립니다.** 심사 모델이 못 알아본 차이는 보이지 않습니다. 구간은 우연만 재고 편향은 재지 못합니다.
#
# | 결함 | Qwen 1.5B에서 | 승률에 하는 일 |
# |---|---|---|
# | 앞자리를 고름 | 승자를 말한 판정 173개의 84% | 한 순서: 앞쪽으로. 두 순서: 50% 쪽으로 |
# | 긴 쪽을 고름 | 이 쌍들로는 모름(half에서는 옳은 쪽이 늘 김) | 긴 쪽으로, 순서를 바꿔도 그대로 |
# | 무효 | 판정의 4% | 질문이 빠짐. 빠진 것이 특별하면 치우침 |

# %% [markdown] lang="en" of="ed58e5a7"
# With a tie counted as 1/2, whoever asks in one order reports 91%, or 38%. Both orders give 58%. (Not the mean of the two: a win that meets a tie counts 1/2, not 3/4.) The true 100% is far outside the interval. **Asking in both orders favours neither side, but presses the win rate towards 50%.** What the judge missed stays missed. An interval measures chance and knows nothing of bias.
#
# | Fault | In Qwen 1.5B | What it does to a win rate |
# |---|---|---|
# | picks the first position | 84% of the 173 verdicts that name a winner | one order: towards the first. Both: towards 50% |
# | picks the longer | these pairs cannot tell (in `half` the right one is always longer) | towards the longer, swapped or not |
# | invalid | 4% of verdicts | questions drop out; a bias where those are special |

# %% [markdown] lang="ko"
# ## 5. 결함을 조절할 수 있는 심사 모델 (모의, 바쁘면 나중에)
#
# 실제로는 여러 결함이 섞여 있고 참값도 모릅니다. 모의 심사 모델은 정답을 알고, 결함을 하나씩 켤 수 있습니다. **가짜 모델 둘**이 작은 세계의 질문 120개에 답합니다. `a`는 85%쯤, `b`는 60%쯤 맞히고, `b`는 늘 인사말을 붙여 더 깁니다.

# %% [markdown] lang="en" of="ba2bf3a9"
# ## 5. A judge with knobs (simulated, may wait)
#
# In reality faults come together and the truth is unknown. The simulated judge knows the answers, and has a knob for each fault. **Two make-believe models** answer 120 questions of the small world: `a` is right about 85% of the time, `b` about 60%, and `b` always adds "I hope this helped", which makes it longer.

# %%
rng = random.Random(0)
world = heldout_tasks(10)  # ten of each family


def answer(task, skill):
    """The right answer with that probability, else that of another task of the family."""
    others = [o.output for o in world if o.meta["family"] == task.meta["family"]]
    wrong = [text for text in others if text != task.output]
    return task.output if rng.random() < skill or not wrong else rng.choice(wrong)


trial = [
    Item(f"t{i}", text_of(t), a=answer(t, 0.85), b=answer(t, 0.6) + "\n도움이 되셨기를 바랍니다.")
    for i, t in enumerate(world)
]
hits = [(stats.exact_match(item.a, t.output), stats.exact_match(item.b, t.output))
        for item, t in zip(trial, world, strict=True)]
truth = share((1 + a - b) / 2 for a, b in hits)
print(f"a is right in {share(a for a, _ in hits):.0%}, b in {share(b for _, b in hits):.0%}; "
      f"on {sum(a != b for a, b in hits)} of {len(hits)} one alone is right: win rate {truth:.0%}")

# %% [markdown] lang="ko"
# 한쪽만 맞으면 1이나 0, 둘 다 맞거나 둘 다 틀리면 1/2입니다. 그 평균이 참 승률입니다. 이제 결함을 하나씩 켜고 같은 질문을 심사시킵니다. 자리 80%는 열에 여덟은 앞쪽을 고른다는 뜻이고, 길이 80%는 긴 쪽을 고른다는 뜻입니다. 흔들림(noise) 30%는 열에 셋은 판정을 다른 것으로 바꾼다는 뜻입니다.

# %% [markdown] lang="en" of="b0381b01"
# Where one alone is right, the question counts 1 or 0; where both or neither is, 1/2. The mean is the true win rate. Now turn on one fault at a time and have the same questions judged. Position 80% names the first in eight cases of ten, length 80% the longer; noise 30% replaces three verdicts in ten by another.

# %%
knobs = {
    "fair": {},
    "position 80%, where undecided": {"position_bias": 0.8},
    "position 80%, in clear cases too": {"position_bias": 0.8, "clear_bias": 0.8},
    "length 80%, where undecided": {"length_bias": 0.8},
    "noise 30%": {"noise": 0.3},
    "invalid 15%": {"invalid": 0.15},
}
simulated = LLM("simulated-judge", base_url=offline_url(), journal=work / "trials.jsonl")
print(f"{f'SIMULATED, truth {truth:.0%}':34}a first  b first  both orders")
for name, traits in knobs.items():
    fair = {"position_bias": 0, "noise": 0}
    games = Judge(simulated, progress=False, traits=fair | traits).battle(trial)
    one = stats.verdict_win_rate([game.first for game in games], allow_invalid=True)
    two = stats.verdict_win_rate([game.second for game in games], allow_invalid=True)
    both = stats.summarize_battle(games, allow_invalid=True)
    low, high = both.interval
    print(f"{name:34}{one.win_rate:7.0%}{two.win_rate:9.0%}{both.win_rate:9.0%}"
          f"  [{low:.0%}, {high:.0%}] of {both.n}")

# %% [markdown] lang="ko"
# 한 줄씩 읽습니다.
#
# - **자리, 우열이 없을 때만**: 한 순서는 크게 틀리고 두 순서는 참값 그대로입니다. 그런 질문에서는 두 판정이 엇갈려 1/2이 되도록 **우리가 만들었기** 때문입니다.
# - **자리, 분명할 때도**: 두 순서를 합쳐도 50% 가까이 끌려갑니다. 4절의 Qwen이 이 줄을 닮았습니다.
# - **길이**: 두 순서가 똑같이 틀리고, `a`의 우세가 사라집니다. 순서를 바꿔도 길이 편향은 줄지 않습니다.
# - **흔들림**: 판정이 마구 바뀌면 어떻게 물어도 50% 쪽으로 갑니다.
# - **무효**: 아무 질문이나 빠지면 참값 근처지만 구간이 넓어집니다.

# %% [markdown] lang="en" of="09cce895"
# Line by line:
#
# - **Position, where undecided**: one order is far off, both together hit the truth, because **we built it** so that such a question gets two opposite verdicts, 1/2.
# - **Position, in clear cases too**: even both orders are dragged close to 50%. Qwen resembles this line.
# - **Length**: both orders err alike, and the lead of `a` is gone. Swapping does nothing against length.
# - **Noise**: scrambled verdicts go towards 50%, however you ask.
# - **Invalid**: if questions drop out at random, the rate stays near the truth and the interval widens.

# %% [markdown] lang="ko"
# ## 6. 우열을 가려야 하는 대결
#
# offline 레시피의 두 모델은 정답률로 311 대 0입니다. 통계가 필요 없습니다(심사 모델로 잰 승률은 8절에 있습니다). 통계가 필요한 것은 이런 대결입니다. 씨앗 175개로 미세조정한 Gemma 270M(`seeds`)은 미세조정 전(`base`)보다 나을까요? 먼저 읽습니다. 105개에서 35개마다 하나입니다.

# %% [markdown] lang="en" of="5448181f"
# ## 6. Battles that need deciding
#
# With the offline recipe exact match says 311 to 0: no statistics needed (the judge's win rate is in section 8). Here they are needed: is Gemma 270M tuned on the 175 seeds (`seeds`) better than before tuning (`base`)? Read first, every 35th of 105.

# %%
pairs = list(zip(before[: len(heldout)], after[: len(heldout)], strict=True))
won = sum(right(new) and not right(old) for old, new in pairs)
lost = sum(right(old) and not right(new) for old, new in pairs)
print(f"this run: the tuned model alone is right on {won} of {len(pairs)}, the other on {lost}\n")
for item in real_battle("seeds", "base")[::35]:
    print(item.question.replace("\n", " ")[:110])
    print(f"   seeds {item.a[:110]!r}\n   base  {item.b[:80]!r}\n")

# %% [markdown] lang="ko"
# `base`는 같은 말을 끝없이 되풀이합니다. `seeds`는 짧게 쓰고 멈추지만 맞지는 않습니다(노란 모자는 지수입니다). 그래도 우리 눈에는 `seeds`가 낫습니다. Qwen의 눈에는 어떨까요? 4절과 달리, 모범 답안이 있는 92개에서는 Qwen에게 그것도 보여 줍니다.
#
# 구간은 **부트스트랩**(bootstrap)으로 씁니다. 뽑은 질문을 되돌려 놓으면서(복원추출) 같은 수만큼 다시 뽑아 평균을 내는 일을 2,000번 하고, 양쪽 끝의 2.5%씩을 버립니다. 세는 단위는 판정이 아니라 질문입니다.

# %% [markdown] lang="en" of="a772afd5"
# The first asks who wears the yellow hat (Jisu; `seeds` says Yuri), the second for a poem on a late autumn night, the third to pick out subject, object and predicate. `base` repeats itself without end. `seeds` is short and stops, but is not right. We would still call it the better. Would Qwen? Unlike in section 4, it is shown the reference too where there is one (92 questions).
#
# The interval is a **bootstrap**: draw as many questions with replacement, take the mean, 2,000 times over, and leave out 2.5% at either end. The unit is the question, not the verdict.

# %%
def drawn_anew(scores, rng):
    """The mean over as many questions, drawn at random, each free to come again."""
    return share(rng.choices(scores, k=len(scores)))


def bootstrap(scores):
    """The middle 95% of 2,000 such means."""
    rng = random.Random(0)
    means = sorted(drawn_anew(scores, rng) for _ in range(2000))
    return means[50], means[-51]


ten = [1.0] * 6 + [0.5] * 2 + [0.0] * 2
rng = random.Random(1)
print(f"ten questions, mean {share(ten):.2f}; drawn anew:",
      *(f"{drawn_anew(ten, rng):.2f}" for _ in range(6)))
print("bootstrap [{:.2f}, {:.2f}]".format(*bootstrap(ten)))

# %%
judge = Judge(qwen, progress=False, max_tokens=400)
for a, b in (("seeds", "base"), ("both", "seeds")):
    games = judge.battle(real_battle(a, b))
    scores = [game.score for game in games if game.score is not None]
    low, high = bootstrap(scores)
    found = stats.summarize_battle(games, allow_invalid=True)
    assert abs(low - found.bootstrap[0]) < 0.02 and abs(high - found.bootstrap[1]) < 0.02
    one = stats.verdict_win_rate([game.first for game in games], allow_invalid=True)
    two = stats.verdict_win_rate([game.second for game in games], allow_invalid=True)
    print(f"{a} against {b} (real), {len(games)} questions: {share(scores):.1%} [{low:.1%}, {high:.1%}]\n"
          f"   {a} first {one.win_rate:.1%}, {b} first {two.win_rate:.1%}\n"
          f"   won {found.wins}, lost {found.losses}, undecided {found.ties} "
          f"({found.contradictions} contradictions), invalid {found.invalid}\n"
          f"   all invalid lost {found.worst:.1%}, all invalid won {found.best:.1%}")
    sure = min(low, found.worst) > 0.5 or max(high, found.best) < 0.5
    assert not sure, "who is better no longer hangs on chance or on the invalid ones"

# %% [markdown] lang="ko"
# 첫 대결을 한 순서만 물었다면 90%, 또는 28%였습니다. 두 순서로는 57%, 구간은 50%를 벗어납니다. 그런데 질문 15개가 무효입니다. 모두 졌다고 치면 48.6%, 모두 이겼다고 치면 62.9%입니다. **무효를 어떻게 보느냐에 결론이 달렸습니다.** 그러니 무효의 수와 두 경우를 늘 함께 적습니다.
#
# 둘째 대결의 `both`는 씨앗에 교사의 과제 120개를 더해 미세조정한 것입니다. 구간과 무효의 두 경우가 모두 50%의 같은 쪽에 있어야 우열을 말할 수 있는데, 그렇지 않습니다(셀의 `assert`). 과제를 더한 보람이 있는지 이 심사 모델로는 가리지 못합니다.
#
# 4절과 5절에서, 그리고 아래에서 쓰는 라이브러리의 `interval`은 무승부까지 계산에 넣은 윌슨 구간(Tango, 1998)입니다. 공식은 여기서 다루지 않습니다.

# %% [markdown] lang="en" of="289fe578"
# Of the first battle one order alone would have said 90%, or 28%. Both say 57%, and the interval leaves out 50%. But 15 questions are invalid: all lost, it is 48.6%; all won, 62.9%. **The conclusion hangs on what the invalid ones are.** So report how many there are, and both cases.
#
# In the second, `both` was tuned on the seeds and the teacher's 120 tasks. A winner can be named only if the interval and both cases of the invalid lie on one side of 50%; they do not (the `assert`). Whether the tasks helped, this judge cannot tell.
#
# The library's `interval`, in sections 4 and 5 and below, is Wilson's with ties taken into account (Tango, 1998). Its formula is not taught here.

# %% [markdown] lang="ko"
# 더 가까운 대결입니다. 02의 학습을 조금씩 바꾼 어댑터 셋이 작은 세계의 질문 360개에 답했습니다(기록). `response`는 응답에만 손실을 매긴 랭크 4, `everything`은 프롬프트까지 학습한 것, `rank 16`은 랭크만 키운 것입니다. 심사는 모의라 참값을 압니다. (이 심사 모델은 우열이 없을 때 80%는 앞쪽을 고르고, 판정의 1%는 흔들립니다.)

# %% [markdown] lang="en" of="cda22c5b"
# Closer ones. Three adapters answered 360 questions of the small world (recorded): rank 4 trained on the response alone (`response`), on the prompt as well (`everything`), and `rank 16`. The judge is simulated, so the truth is known. (Where undecided it names the first in 80%, and its noise is 1%.)

# %%
said = {}
for row in read_jsonl(REPO / "assets" / "sample" / "variants.jsonl"):
    said.setdefault(row["way"], []).append(row["reply"])
exam = heldout_tasks(30)
simulated = LLM("simulated-judge", base_url=offline_url(), journal=work / "trials.jsonl")
for a, b in (("response", "everything"), ("rank 16", "response")):
    items = [Item(f"{i}", text_of(task), a=said[a][i], b=said[b][i]) for i, task in enumerate(exam)]
    gains = [stats.exact_match(item.a, task.output) - stats.exact_match(item.b, task.output)
             for item, task in zip(items, exam, strict=True)]
    print(f"{a} against {b} (SIMULATED judge): true win rate {(1 + share(gains)) / 2:.1%}")
    for step in (6, 1):
        games = Judge(simulated, progress=False).battle(items[::step])
        found = stats.summarize_battle(games, allow_invalid=True)
        low, high = found.interval
        print(f"   {found.n:3} questions: {found.win_rate:.1%} [{low:.1%}, {high:.1%}], won {found.wins}, "
              f"lost {found.losses}, sign test p = {found.sign_test_p:.2g}")

# %% [markdown] lang="ko"
# 이 작은 세계에서 프롬프트까지 학습하면 못하다는 것은 질문 60개로도 분명합니다. 랭크 16은 60개로는 알 수 없고, 360개에서야 조금 못해 보입니다. 구간은 50%를 아슬아슬하게 벗어나고, **부호 검정**(sign test: 두 모델이 같다면 이만큼 이상 한쪽으로 쏠릴 확률)은 0.05를 살짝 넘습니다. 이럴 때는 "가리지 못했다"고 적습니다. 게다가 학습은 한 번씩이었습니다. 구간은 질문의 우연만 알고 학습 시드의 우연은 모릅니다. 시드 셋의 평균은 랭크 4가 82%, 랭크 16이 86%로 거꾸로입니다(README).
#
# 질문은 몇 개나 있어야 할까요? 잰 승률과 50%의 차이가 $d$이면 약 $(0.98 / d)^2$개부터 구간이 50%를 벗어납니다(무승부가 없을 때, 0.98은 1.96의 반).

# %% [markdown] lang="en" of="880e8fd7"
# That training on the prompt is worse in this small world shows with 60 questions. About rank 16, 60 say nothing, and 360 hint that it is a little worse: the interval just leaves out 50%, the **sign test** (how often two equal models would look at least this lopsided) is just above 0.05. Then write "could not tell". Besides, each was trained once, and an interval knows the luck of the questions, not of the training seed. Over three seeds the means are 82% for rank 4 and 86% for rank 16, the other way round (README).
#
# How many questions does it take? Where the rate found is $d$ away from 50%, the interval leaves out 50% from about $(0.98 / d)^2$ questions on (without ties; 0.98 is half of 1.96).

# %%
print("rate found   questions until the interval leaves out 50%")
for rate in (0.52, 0.55, 0.6, 0.75, 0.9):
    print(f"{rate:10.0%}{stats.questions_needed(rate):12,}")

# %% [markdown] lang="ko"
# 차이가 반이면 질문은 네 배쯤 듭니다. 다만 참 승률이 60%여도 97개로는 두 번에 한 번꼴로만 50%를 벗어납니다. 잰 승률은 우연히 60%보다 낮기도 하기 때문입니다. 열에 여덟 번 벗어나려면 두 배쯤 필요합니다. 자리를 고르는 심사 모델이라면 더 듭니다. 심사 모델을 고르는 일이 질문을 늘리는 일보다 먼저입니다.
#
# 마지막으로 남의 결과를 다시 읽습니다. 이 강의의 설정은 공개 강의 [aiqwe/instruction-tuning-with-rag-example](https://github.com/aiqwe/instruction-tuning-with-rag-example)에서 출발했습니다. 거기서는 질문 15개를 두 순서로 심사해, 판정 30개 가운데 22개를 이겼다고 합니다. 고맙게도 판정이 모두 공개되어 있습니다. 글자 쌍 하나가 한 질문이고, 첫 순서에서는 B가, 둘째 순서에서는 A가 미세조정 모델입니다.

# %% [markdown] lang="en" of="2aa794d5"
# Half the difference takes about four times the questions. But with a true rate of 60%, 97 questions suffice only about every other time, since chance often finds a lower rate; for eight times in ten it takes about double. A judge that picks positions needs more still: choose a better judge before you add questions.
#
# Last, reread somebody else's result. This course took its first settings from an open one, [aiqwe/instruction-tuning-with-rag-example](https://github.com/aiqwe/instruction-tuning-with-rag-example), which judged 15 questions in both orders, reports 22 wins of 30 verdicts and, thankfully, published them. A pair of letters is one question; the tuned model is B in the first order, A in the second.

# %%
verdicts = "AB BA BA BA BB BA BA AA AB BA BA BA BA BA AB".split()
won = sum((one == "B") + (two == "A") for one, two in verdicts)
low, high = stats.wilson_interval(won, 30)
print(f"verdicts:  {won} of 30 = {won / 30:.1%} [{low:.1%}, {high:.1%}], "
      f"p = {stats.sign_test(won, 30 - won):.3f}")
published = [
    stats.Game(f"q{i}", {"A": "a", "B": "b"}[two], {"A": "b", "B": "a"}[one], 0, 0)
    for i, (one, two) in enumerate(verdicts)
]  # the tuned model is a, which stood first in their second order
again = stats.summarize_battle(published)
print(f"questions: {again}")
assert (won, again.wins, again.contradictions, again.losses) == (22, 10, 2, 3)

# %% [markdown] lang="ko"
# 승률은 그대로이고 확신이 달라집니다. 한 질문의 두 판정은 서로 독립이 아닌데 30개로 세면 구간이 좁아집니다. 질문 15개로 세면 구간이 50%를 품습니다. 미세조정이 소용없었다는 뜻이 아니라, **질문 15개로는 아직 말할 수 없다**는 뜻입니다.

# %% [markdown] lang="en" of="bbb4b8d2"
# The rate stays, the certainty does not. Two verdicts on one question are not independent, and counting 30 narrows the interval. Over 15 questions it includes 50%. That does not mean tuning was useless: **15 questions cannot tell yet**.

# %% [markdown] lang="ko"
# ## 7. 심사 모델과 나 (실습, 건너뛰어도 됩니다)
#
# 두 사람의 판정이 얼마나 같은지는 **카파**(kappa)로 잽니다. 우연히 같아질 몫을 뺀 나머지에서 얼마나 같았는지입니다. 1이면 모두 같고 0이면 우연과 다름없습니다. 심사 모델의 두 순서를 두 사람으로 보고 재어 봅니다.

# %% [markdown] lang="en" of="7ecf1c29"
# ## 7. The judge and you (hands-on, may be skipped)
#
# How far two raters agree is measured by **kappa**: agreement beyond what chance gives. 1 is full agreement, 0 no better than chance. Take the judge's two orders for two raters.

# %%
items = [Item(pair["id"], pair["question"], a=pair["right"], b=pair["spoiled"])
         for pair in read_jsonl(REAL / "pairs.jsonl")]
games = Judge(qwen, progress=False, max_tokens=400).battle(items)
valid = [game for game in games if game.score is not None]
one, two = [game.first for game in valid], [game.second for game in valid]
print(f"the same in {share(a == b for a, b in zip(one, two, strict=True)):.0%} of {len(valid)}, "
      f"kappa {stats.cohen_kappa(one, two):.2f}")

# %% [markdown] lang="ko"
# Qwen은 자기 자신과도 거의 우연만큼만 일치합니다. 여러분과는 어떨까요? `LABEL = True`로 바꾸고 실행하면 `seeds`와 `base`의 응답이 열 쌍, **누가 썼는지 가려진 채** 나옵니다. 1이나 2는 나은 쪽, 0은 무승부, q는 그만입니다. 하나씩 저장되므로 쉬었다 이어서 해도 됩니다.

# %% [markdown] lang="en" of="db0a37aa"
# Qwen agrees with itself hardly better than chance. And with you? Set `LABEL = True` and run: ten pairs of replies by `seeds` and `base` appear, **without names**. Type 1 or 2 for the better one, 0 for a tie, q to stop. Each is saved at once.

# %%
LABEL = False
chosen = choose_items(real_battle("seeds", "base"), 10)
labels = label_items(chosen, work / "labels.jsonl") if LABEL else read_labels(work / "labels.jsonl")
games = Judge(qwen, progress=False, max_tokens=400).battle(chosen)
both = [(labels[game.id], {1.0: "a", 0.5: "tie", 0.0: "b"}[game.score])
        for game in games if game.id in labels and game.score is not None]
print(f"{len(both)} of your labels have a verdict beside them")
if len({verdict for pair in both for verdict in pair}) > 1:  # of one verdict there is no kappa
    print(f"the same in {share(mine == its for mine, its in both):.0%}, "
          f"kappa {stats.cohen_kappa(*zip(*both, strict=True)):.2f}")

# %% [markdown] lang="ko"
# 엇갈린 질문은 하나하나 읽어 보세요. 심사 모델이 놓친 것이 있나요, 아니면 여러분이 서두른 것인가요?

# %% [markdown] lang="en" of="fd775417"
# Read the questions on which you differ. Did the judge miss something, or were you in a hurry?

# %% [markdown] lang="ko"
# ### 연습 3. 우연을 뺀 일치
#
# ★★ · 약 10분 · 7절
#
# 두 사람이 같은 질문들에 매긴 판정 `a`와 `b`를 받아 코언의 카파를 돌려주세요.
#
# $$\kappa = \frac{p_o - p_e}{1 - p_e}$$
#
# $p_o$는 판정이 같은 비율입니다. $p_e$는 우연히 같을 확률로, 판정마다 **두 사람이 그 판정을 쓴 비율을 곱해서** 모두 더한 것입니다. 한쪽이라도 `None`인 쌍은 먼저 뺍니다. 남은 쌍이 없거나 $p_e$가 1이면 `None`입니다.
#
# 보기: `kappa(["a", "a", "b", "b"], ["a", "b", "b", "b"])`는 0.5입니다.

# %% [markdown] lang="en" of="e3244999"
# ### Exercise 3. Agreement beyond chance
#
# ★★ · about 10 minutes · section 7
#
# Take the verdicts `a` and `b` that two people gave on the same questions and return Cohen's kappa:
#
# $$\kappa = \frac{p_o - p_e}{1 - p_e}$$
#
# $p_o$ is the share of equal verdicts. $p_e$ is what chance gives: for every verdict **the share in which one used it times the share in which the other did**, all added up. Leave out every pair with a `None` first. If no pair is left, or $p_e$ is 1, return `None`.
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
# 열에 아홉이 같은 판정이면 읽지 않고 그것만 외쳐도 90%가 일치합니다. 카파는 그것을 0으로 봅니다.
#
# </details>

# %% [markdown] lang="en" of="f8603e60"
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
# Where nine in ten verdicts are the same, always giving that one agrees 90% of the time. To kappa that is 0.
#
# </details>

# %% [markdown] lang="ko"
# ## 8. 보고서와 봉인 (보조 코드, 건너뛰어도 됩니다)
#
# 이 실행의 질문을 여러분의 심사 모델에게 맡깁니다. 모의라면 전부, 실제라면 레시피의 `questions`까지만 고르게 뽑습니다. 묻기 전에 `plan`이 호출 수와 비용을 말해 줍니다. 판정은 오는 대로 일지(journal)에 적히니, 끊겨도 받은 것은 다시 사지 않습니다.

# %% [markdown] lang="en" of="443c6b0f"
# ## 8. Report and seal (plumbing, may be skipped)
#
# Hand this run's questions to your own judge: all if it is simulated, else an evenly spaced sample, no larger than the recipe's `questions`. First `plan` says how many calls there are and what they cost. Verdicts go into a journal as they come: after a break none of them is bought again.

# %%
known = course.truth(heldout[0]) is not None  # the small world: its judge needs no reference


def to_item(old, new):
    """A battle about one question of this run: the tuned model is a."""
    lang = "en" if new["family"] == "translation" else new.get("answer_lang", "ko")
    reference = None if known else new["reference"] or None
    return Item(new["id"], new["question"], a=new["reply"], b=old["reply"], reference=reference,
                category=new["family"], answer_lang=lang)


def spread(rows, most):
    """At most so many of the rows, evenly spaced."""
    return rows[:: math.ceil(len(rows) / most)]


pairs = list(zip(before, after, strict=True))
items = [to_item(old, new) for old, new in pairs[: len(heldout)]]
items = items if course.simulated else spread(items, spec.questions)
judge = Judge(course.llm("judge", journal=work / "journal.jsonl"), progress=False)
print(f"{len(items)} questions: {judge.llm.plan(judge.battle_requests(items))}")

# %%
games, battles = judge.battle(items), judge.judgments
write_jsonl(work / "games.jsonl", [asdict(game) for game in games])
print(f"{len(games)} questions judged, {len(judge.invalid)} invalid judgments")
for name, why in list(judge.invalid.items())[:5]:
    print(f"  {name}: {why}")
print(f"asked again: {judge.llm.plan(judge.battle_requests(items))}")
print(stats.summarize_battle(games, allow_invalid=True))
sealed = course.store.seal("evaluate")  # judgments are expensive: copied to where they survive

# %% [markdown] lang="ko"
# 수업에서 보여 주려면 `LIVE = True`로 바꾸세요. 일지에 있어도 질문 하나를 실제로 다시 묻습니다. 실제 심사 모델이라면 그때마다 값을 치릅니다.

# %% [markdown] lang="en" of="241c60b8"
# To show a class, set `LIVE = True`: one question is really asked again, journal or not. A real judge is paid each time. (The reasons below: A equals the answer and B does not, then the reverse.)

# %%
LIVE = False
fresh = {"seed": random.getrandbits(31)} if LIVE else {}  # another seed is another request
live = Judge(judge.llm, progress=False, **fresh)
[game] = live.battle(items[:1])
for said in live.judgments:
    print(f"{said.order}: {said.reason or said.error} -> {said.verdict}")
print(f"score {game.score}")

# %% [markdown] lang="ko"
# 보고서 한 장에는 승률과 구간, 유형별 결과, 편향, 무효 목록, 배울 것이 많은 엇갈림 열 개가 들어갑니다. 응답 하나에 1점에서 10점까지 매기는 점수도 넣습니다. 자리가 없으니 자리 편향도 없지만, 눈금이 심사 모델마다 다릅니다.

# %% [markdown] lang="en" of="a1d05020"
# One page holds the win rate with its interval, categories, biases, invalid judgments, and ten instructive disagreements. Some replies also get a grade from 1 to 10: no positions, no position bias, but each judge has a scale of its own.

# %%
graded = {}
for name, side in {"tuned": "a", "base": "b"}.items():
    answers = [replace(item, answer=getattr(item, side)) for item in spread(items, 24)]
    judge.grade(answers)
    graded[name] = (answers, judge.judgments)
page = write_judgment_report(work / "report", items, battles, grades=graded, names=("tuned", "base"))
print("\n".join(page.read_text(encoding="utf-8").splitlines()[:26]))

# %% [markdown] lang="ko"
# 여기까지는 머리 부분이고, 전체는 작업 폴더의 `report/report.md`에 있습니다. 잰 것을 모두 `summary.json`에 모아 봉인합니다. 실패한 유형도, 한 순서만 물었을 때의 값도 들어갑니다.

# %% [markdown] lang="en" of="6b47571c"
# The whole is in `report/report.md` of the working folder. All that was measured goes into `summary.json` and is sealed, failing families and what one order would have said included.

# %%
def compare(some):
    """Exact match over pairs of rows, as the table of the run reads it."""
    return {"n": len(some), "before": share(right(old) for old, _ in some),
            "after": share(right(new) for _, new in some)}


families = {}
for old, new in pairs[: len(heldout)]:
    families.setdefault(new["family"], []).append((old, new))
judged = {game.id for game in games if game.score is not None}
duels = [(1 + right(new) - right(old)) / 2 for old, new in pairs if new["id"] in judged]
one_order = stats.verdict_win_rate([game.first for game in games], allow_invalid=True)
summary = {
    "by_family": {name: compare(some) for name, some in families.items()},
    "unseen": compare(pairs[len(heldout) :]) if unseen else None,
    "stopped": {name: share(row["stopped"] for row in rows)
                for name, rows in {"before": before, "after": after}.items()},
    "battle": {**asdict(stats.summarize_battle(games, allow_invalid=True)),
               "truth": share(duels) if known else None, "one_order": asdict(one_order)},
}
write_atomic(work / "summary.json", json.dumps(summary, indent=1, ensure_ascii=False) + "\n")
sealed = course.store.seal("evaluate")
print(f"{sealed.files} files, {sealed.bytes:,} bytes sealed in {shown(sealed.path)}\n")
try:
    print(write_report(course.store, course.recipe, data=course.data))
except CourseError as error:  # opened alone: 01 and 02 have no artefacts of this run
    print(error)

# %% [markdown] lang="ko"
# 01부터 이어서 실행했다면 전체를 묶은 표가, 이 노트북만 실행했다면 무엇이 없는지 말하는 한 문장이 나옵니다.
#
# ## 9. 손에 남은 것
#
# 1. 숫자보다 응답을 먼저 읽고, 평균보다 유형을 먼저 봅니다.
# 2. 심사 모델을 믿기 전에 승자를 아는 쌍으로 시험합니다. 작은 모델은 자리를 고릅니다.
# 3. 두 순서로 묻고 질문을 단위로 셉니다. 한쪽 자리의 편을 드는 일은 없어지지만 승률은 50% 쪽으로 눌리고, 길이 치우침은 그대로입니다.
# 4. 읽지 못한 판정은 무승부가 아니라 무효이고, 최악과 최선을 함께 적습니다.
# 5. 승률은 구간과 함께 말합니다. 구간은 질문의 우연만 압니다.
#
# 두 모델과 직접 이야기해 보려면 [05 데모](05_demo.ipynb)로, 더 큰 모델은 [04 키우기](04_scale_up.ipynb)로 가세요.

# %% [markdown] lang="en" of="80282cf2"
# After 01 and 02, this is the table of the whole run; without them, one sentence says what is missing.
#
# ## 9. What you have, and what is next
#
# 1. Read replies before numbers, and families before means.
# 2. Test a judge on pairs whose winner you know before you believe it. Small models pick positions.
# 3. Ask in both orders and count questions. That favours neither side, but presses the rate towards 50%, and a bias for length stays.
# 4. An unreadable verdict is invalid, not a tie; report the worst and the best case.
# 5. Give a win rate with its interval, which knows the luck of the questions and nothing else.
#
# To talk to both models yourself, go to the [05 Demo](05_demo.ipynb); larger models are in [04 Scale up](04_scale_up.ipynb).
