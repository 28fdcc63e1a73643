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
# # 05 데모: 두 모델을 나란히 놓고 말 걸어 보기
#
# 숫자는 03에서 다 냈습니다. 이제 직접 말을 걸어 볼 차례입니다. 같은 지시문을 베이스 모델과 미세조정한 모델에 동시에 보내고,
# 두 답이 한 토큰씩 자라는 것을 나란히 지켜보는 페이지를 띄웁니다. Alpaca도 누구나 말을 걸어 볼 수 있는 데모와 함께 세상에 나왔습니다.
#
# 끝까지 가면 이런 것이 손에 남습니다.
#
# - 브라우저에서 여는 데모 페이지. 네트워크가 없어도 되고, Colab에서는 공유 링크로 엽니다.
# - 온도(temperature)가 무엇을 바꾸는지 눈으로 본 경험
# - 모델 하나를 메모리에 올려 두 모델처럼 쓰는 방법
#
# offline 레시피라면 02를 아직 실행하지 않았어도 함께 배포한 견본 어댑터를 씁니다. 어느 쪽인지 셀이 알려 줍니다. 다른 레시피라면 02를 먼저 실행하세요.

# %% [markdown] lang="en" of="8f603bda"
# # 05 Demo: talk to both models, side by side
#
# 03 gave you the numbers. Now talk to the models yourself: a page sends one instruction to the base model and to the
# tuned one, and you watch both replies grow token by token. Alpaca, too, came into the world with a demo that anybody could talk to.
#
# At the end you will have
#
# - a demo page in your browser, without any network; on Colab it opens through a share link
# - your own impression of what the temperature changes
# - a way to hold one model in memory and use it as two
#
# With the offline recipe a sample adapter that comes with the course stands in if you have not run 02 yet; the cell says which one it is. With any other recipe, run 02 first.

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
# ## 1. 같은 것을 둘에게 묻기
#
# 베이스 모델은 메모리에 한 번만 올립니다. 질문을 두 행짜리 배치로 만들고, 첫째 행은 어댑터 없이, 둘째 행은 어댑터를 얹어 계산합니다.
# 그래서 메모리는 모델 하나만큼만 들고 두 답이 동시에 자랍니다.

# %% [markdown] lang="en" of="7cd9051b"
# ## 1. Ask both the same thing
#
# The base model is in memory once. A question becomes a batch of two rows: the first is computed without the adapter, the second with it.
# So it takes the memory of one model, and both replies grow at the same time.

# %%
from course_utils.demo.page import example_tasks, load_duo, stream_both

duo = load_duo(course)
tasks = example_tasks(course)
for task in tasks[:3]:
    *_, (base, tuned) = stream_both(duo, duo.template.render(task), max_new_tokens=48)
    print(f"{task.instruction}\n{task.input}".strip())
    print(f"  base   {base.text!r}\n  tuned  {tuned.text!r}\n")

# %% [markdown] lang="ko"
# 카드의 Base model이 `assets/tiny-gemma-ko`라면, 그 작은 모델은 강의가 지어낸 작은 세계만 압니다. 그 세계의 질문에는 답하지만 다른 질문에 하는 답에는 아무 뜻이 없습니다.
#
# 이 작은 베이스 모델은 지시를 따르지 않고 본 적 있는 글을 이어 씁니다. 스스로 멈추더라도 대답을 마쳐서가 아니라 이어 쓰던 글이 끝나서입니다.
# 베이스가 gemma-2b-it처럼 이미 지시를 배운 모델이라면 그쪽도 대답을 하니, 무엇이 달라졌는지 비교해 보세요.
# 미세조정한 모델의 답은 그럴듯합니다. 그럴듯해도 틀릴 수 있으니 입력과 하나하나 맞춰 보세요.
# 이제 첫 질문의 두 답이 자라는 모습을 세 토큰마다 봅니다. 왼쪽 베이스의 답은 길어서 끝의 22글자만 적었습니다. 페이지가 보여 주는 것도 바로 이 중간 결과들입니다.

# %% [markdown] lang="en" of="decdfc91"
# If the card's base model is `assets/tiny-gemma-ko`, it knows only the small world that the course invented. It answers questions about that world; what it says about anything else means nothing.
#
# This tiny base model does not follow the instruction; it goes on with texts like those it has read. Where it stops by itself, it is because that text is over, not because it has answered.
# A base model that has already learned to follow instructions, such as gemma-2b-it, does answer: then look for what has changed.
# The tuned model's replies sound right. They may still be wrong: compare each with its input.
# Now watch both replies to the first question grow, every three tokens; of the base model's, on the left, only the last 22 characters are printed. These intermediate results are exactly what the page shows.

# %%
for step, (base, tuned) in enumerate(stream_both(duo, duo.template.render(tasks[0]))):
    if step % 3 == 0 and step < 24:
        print(f"{step:3}  {base.text[-22:]!r:28} {tuned.text}{' (stopped)' * tuned.stopped}")

# %% [markdown] lang="ko"
# 이 일을 하는 함수 전체가 아래에 있습니다. `adapter_names`가 행마다 어댑터를 정하고, 캐시(cache) 덕분에 이미 읽은 토큰은 다시 계산하지 않습니다. `_TURN`은 여러 사람이 한꺼번에 물어도 한 토큰씩 차례를 지키게 하는 잠금(lock)입니다.

# %% [markdown] lang="en" of="80348af7"
# Below is the whole function that does this. `adapter_names` gives each row its adapter, and the cache avoids recomputing what was already read. `_TURN` is a lock: if several people ask at once, they take turns, token by token.

# %%
import inspect

print(inspect.getsource(stream_both))

# %% [markdown] lang="ko"
# ## 2. 온도
#
# 모델이 내놓는 것은 답이 아니라, 다음에 올 수 있는 모든 토큰에 매긴 점수(logit)입니다. 그 점수를 보고 토큰 하나를 고르는 일은 아래 함수가 합니다.

# %% [markdown] lang="en" of="afd4d630"
# ## 2. Temperature
#
# What a model gives is not a reply but a score (logit) for every token that could come next. The function below chooses one token by those scores.

# %%
from course_utils.demo.page import draw

print(inspect.getsource(draw))

# %%
import torch

prompt = duo.template.render(tasks[1])
print(f"{tasks[1].instruction} {tasks[1].input}\n")
different = {}
for temperature in (0.0, 0.7, 1.5):
    torch.manual_seed(0)
    replies = []
    for _ in range(4):
        *_, (_, tuned) = stream_both(duo, prompt, max_new_tokens=32, temperature=temperature)
        replies.append(tuned.text)
    different[temperature] = len(set(replies))
    print(f"temperature {temperature}: {different[temperature]} different", *replies, sep="\n  ")
assert different[0.0] == 1

# %% [markdown] lang="ko"
# 온도 0에서는 네 번 모두 같은 답이 나옵니다(늘 같다고 늘 맞는 것은 아니니 입력과 맞춰 보세요). 온도를 올릴수록 점수가 낮은 토큰에도 기회가 가고, 어느 선을 넘으면 말이 흐트러집니다.
# 정답이 하나인 일에는 낮은 온도가, 이야기를 짓는 일에는 조금 높은 온도가 어울립니다. 03에서는 두 모델의 답을 모두 온도 0에서 받았습니다(03의 1절에서 greedy라고 한 것입니다). 그래야 다시 해도 같은 답이 나오니까요.

# %% [markdown] lang="en" of="c481c4e6"
# At temperature 0 all four replies are the same (being the same every time does not make them right: compare them with the input). The higher the temperature, the more often a token with a low score gets its chance, and beyond some point the language falls apart.
# A low temperature suits work that has one right answer; a somewhat higher one suits making up stories. In 03 all replies of both models were made at temperature 0 (section 1 there calls it greedy), so that running it again gives the same replies.

# %% [markdown] lang="ko"
# ## 3. 거절하는 법
#
# 남에게 열어 두는 페이지는 어떤 글을 받아도 무너지지 않아야 합니다. 빈 지시문과 너무 긴 글은 모델에 넘기지 않고, 왜 안 되는지 알려 주는 안내만 돌려줍니다.
# 얼마나 길면 안 되는지는 글자 수가 아니라 토큰 수로 셉니다. 프롬프트와 답변을 합쳐 레시피의 `max_length`까지입니다. 모델은 미세조정하는 동안 그보다 긴 글을 본 적이 없기 때문입니다.

# %% [markdown] lang="en" of="82276612"
# ## 3. Saying no
#
# A page that others may open must not fall over, whatever it is sent. An empty instruction or too long a text never reaches the model; what comes back is a short notice that says why (in Korean, as the page is).
# Length is counted in tokens, not in letters, and prompt and reply together may take up to the recipe's `max_length`: in fine-tuning the model never saw anything longer.

# %%
from course_utils.demo.page import respond

for instruction in ["", "전주의 특산물을 알려 주세요. " * 200]:
    for *_, notice in respond(duo, instruction, "", temperature=0, length=64):
        print(notice)

# %% [markdown] lang="ko"
# ## 4. 페이지 띄우기
#
# 이제 Gradio로 페이지를 만들어 띄웁니다. 출력된 주소를 브라우저에서 여세요. 내 컴퓨터에서 돌린다면 밖으로는 아무것도 나가지 않습니다.
# **"모두 실행"을 했다면 페이지는 이미 닫혔습니다.** 이 절 끝에 있는 `KEEP_OPEN`을 `True`로 바꾸고, 이 글 바로 아래 셀부터 다시 실행하세요.
#
# 열었다면 세 가지를 해 보세요. 예시의 입력만 바꾸어 보고, 온도를 끝까지 올려 보고, 학습한 적이 없을 법한 일을 시켜 보세요. 어디서부터 틀리기 시작하나요?
#
# Colab에서는 내 브라우저가 Colab 컴퓨터에 곧바로 닿지 못하므로 공유 링크(`share=True`)를 만듭니다. **공유 링크는 공개됩니다.**
# 주소를 아는 사람은 누구나 이 모델을 쓸 수 있으니, 볼일이 끝나면 닫으세요.

# %% [markdown] lang="en" of="11d28340"
# ## 4. Start the page
#
# Now build the page with Gradio and start it. Open the printed address in your browser; on your own computer nothing leaves the machine.
# **After "run all" the page is already closed again**: set `KEEP_OPEN` at the end of this section to `True` and run again from the cell right below this text.
#
# Then try three things: change only the input of an example, turn the temperature all the way up, and ask for something that was surely not in the training data. Where does it begin to go wrong?
#
# On Colab your browser cannot reach the machine directly, so a share link is made (`share=True`). **A share link is public**:
# whoever knows the address can use this model, so close it when you are done.

# %%
from course_utils.demo.page import build_page, launch
from course_utils.plumbing.colab import on_colab

page = build_page(duo, course)
address = launch(page, share=on_colab(), inline=False)
print("open", address)

# %% [markdown] lang="ko"
# 페이지가 정말 대답하는지, 브라우저 대신 프로그램으로 물어봅니다. 페이지의 '묻기' 단추를 누르는 것과 똑같은 일이 일어납니다.

# %% [markdown] lang="en" of="fbb9f633"
# Does the page really answer? Ask it from a program instead of a browser: it is the same as pressing its button.

# %%
from gradio_client import Client

visitor = Client(address, verbose=False, analytics_enabled=False)
base, tuned, notice = visitor.predict(tasks[0].instruction, tasks[0].input, 0, 48, api_name="/ask")
print(f"base   {base!r}\ntuned  {tuned!r}\n{notice}")

# %% [markdown] lang="ko"
# 충분히 물어보았다면 닫습니다. `KEEP_OPEN = True`로 바꾸면 "모두 실행"을 해도 페이지가 열린 채로 남습니다. 그때는 다 쓴 뒤 `False`로 되돌려 이 셀을 한 번 더 실행하면 닫힙니다.

# %% [markdown] lang="en" of="771bea99"
# When you have asked enough, close it. With `KEEP_OPEN = True` the page stays open even after "run all"; set it back to `False` and run this cell once more to close the page.

# %%
KEEP_OPEN = False

if not KEEP_OPEN:
    page.close(verbose=False)

# %% [markdown] lang="ko"
# 터미널에서는 명령 하나로 같은 페이지를 띄웁니다. 다른 어댑터를 쓰려면 `--adapter 폴더`를, 공유 링크를 만들려면 `--share`를 붙이세요.
#
# ```bash
# python -m course_utils.demo.page
# ```
#
# 데모가 보여 주지 못하는 것도 있습니다. 잘된 답 몇 개는 모델이 좋다는 증거가 아니고, 우리는 잘된 것을 더 오래 기억합니다.
# **얼마나 나아졌는지는 03에서 잰 값으로 말하세요.** 데모의 몫은 그 숫자가 어떤 답들로 이루어졌는지 느끼게 해 주는 데까지입니다.
#
# 여기까지가 강의의 전부입니다. 데이터를 만들고, 가르치고, 재고, 보여 주는 일을 한 번씩 모두 해 보았습니다. 이제 [01 전처리](01_preprocess.ipynb)로 돌아가 여러분의 씨앗으로 다시 시작해 보세요.

# %% [markdown] lang="en" of="9ccd3c7e"
# In a terminal one command starts the same page. Add `--adapter FOLDER` for another adapter, `--share` for a share link.
#
# ```bash
# python -m course_utils.demo.page
# ```
#
# There is something a demo cannot show. A few good replies are no proof of a good model, and we remember the good ones longer.
# **How much better it became is for the numbers of 03 to say.** A demo lets you feel what kind of replies those numbers are made of, and no more.
#
# This is the end of the course: you have made data, taught a model, measured it and shown it. Go back to [01 Preprocess](01_preprocess.ipynb) and begin again with seeds of your own.

# %% [markdown] lang="ko"
# ## 연습
#
# 본문을 읽는 흐름이 끊기지 않도록 문제는 모두 여기에 모았습니다. 세 문제이고, 별이 많을수록 어렵습니다. 걸리는 시간은 어림입니다.
#
# 문제마다 셀이 둘 있습니다. 첫 셀의 `...` 자리에 쓰고, 다음 셀을 실행하세요. `check`가 여러 입력으로 함수를 불러 보고, 어긋나면 **어떤 입력에서** 무엇이 나왔는지 바로 알려 줍니다.
# 비워 두어도 오류는 나지 않습니다. 풀이는 접혀 있으니, 먼저 해 보고 펼치세요.

# %% [markdown] lang="en" of="40f436c1"
# ## Exercises
#
# All exercises are gathered here, so that they do not interrupt your reading. There are three; more stars mean harder, and the minutes are a guess.
#
# Each has two cells. Write in place of `...` in the first, then run the second: `check` calls your function on a number of inputs and, where something is
# wrong, says at once **on which input** and what came back. Cells left as they are raise no error. Solutions are folded: try before you open them.

# %% [markdown] lang="ko"
# ### 연습 1. 온도가 있는 소프트맥스
#
# ★★ · 약 10분 · 2절
#
# 2절의 `draw`가 `torch.softmax`에 맡긴 일을 직접 합니다. 점수의 목록 `logits`와 온도를 받아 확률의 목록을 돌려주세요. 점수 $x_i$인 토큰의 확률은 다음과 같습니다.
#
# $$p_i = \frac{e^{x_i/T}}{\sum_j e^{x_j/T}}$$
#
# 온도 $T$가 0이면 나눌 수 없습니다. 그때는 점수가 가장 높은 토큰 하나가 1, 나머지는 0입니다. 가장 높은 것이 여럿이면 앞의 것입니다.
# 점수가 1,000이어도 넘치지(overflow) 않아야 합니다. 모든 점수에서 같은 수를 빼도 확률은 그대로입니다.
#
# 보기: `softmax([2.0, 1.0], 0.5)`는 약 [0.881, 0.119]입니다.

# %% [markdown] lang="en" of="b930ae3b"
# ### Exercise 1. Softmax with a temperature
#
# ★★ · about 10 minutes · section 2
#
# Do yourself what `draw` of section 2 leaves to `torch.softmax`: take a list of scores, `logits`, and a temperature, and return the list of probabilities. A token with the score $x_i$ has
#
# $$p_i = \frac{e^{x_i/T}}{\sum_j e^{x_j/T}}$$
#
# At a temperature $T$ of 0 you cannot divide: the token with the highest score has 1 and all others 0; if there are several, it is the first of them.
# Nothing may overflow, not even with a score of 1,000. Taking the same number off all scores leaves the probabilities as they are.
#
# Example: `softmax([2.0, 1.0], 0.5)` is about [0.881, 0.119].

# %%
def softmax(logits, temperature):
    """The probability of each token; at temperature 0 the first of the likeliest has all of it."""
    ...

# %%
from course_utils.practice.checks import check

check("05.1", softmax)

# %% [markdown] lang="ko"
# <details><summary>풀이</summary>
#
# ```python
# from math import exp
#
# def softmax(logits, temperature):
#     highest = max(logits)
#     if temperature == 0:
#         return [float(i == logits.index(highest)) for i in range(len(logits))]
#     weights = [exp((logit - highest) / temperature) for logit in logits]
#     return [weight / sum(weights) for weight in weights]
# ```
#
# 가장 높은 점수를 빼면 지수는 모두 0 이하가 됩니다. 가장 큰 항이 1이니 넘칠 일도, 0으로 나눌 일도 없습니다.
#
# </details>

# %% [markdown] lang="en" of="8f84b84a"
# <details><summary>Solution</summary>
#
# ```python
# from math import exp
#
# def softmax(logits, temperature):
#     highest = max(logits)
#     if temperature == 0:
#         return [float(i == logits.index(highest)) for i in range(len(logits))]
#     weights = [exp((logit - highest) / temperature) for logit in logits]
#     return [weight / sum(weights) for weight in weights]
# ```
#
# With the highest score taken off, every exponent is 0 or less. The largest term is 1: nothing overflows, and nothing is divided by 0.
#
# </details>

# %% [markdown] lang="ko"
# ### 연습 2. 공손하게 거절하기
#
# ★ · 약 5분 · 3절
#
# 3절의 거절을 직접 씁니다. 지시문 `instruction`, 프롬프트의 토큰 수 `tokens`, 답변에 줄 토큰 수 `length`, 둘을 합한 한도 `window`를 받습니다.
#
# - 지시문이 `None`이거나 비었거나 공백뿐이면 `"지시문이 비어 있습니다."`
# - 프롬프트와 답변을 합쳐 `window`를 **넘으면**, 얼마나 줄여야 하는지 `"52토큰만큼 줄여 주세요."`처럼 알립니다. 천 단위에는 쉼표를 넣습니다.
# - 괜찮으면 `None`입니다.
#
# 둘 다 걸리면 지시문이 비었다는 것만 알립니다.
#
# 보기: `refuse("요약해 주세요.", 500, 64, 512)`는 `'52토큰만큼 줄여 주세요.'`이고, `refuse("요약해 주세요.", 400, 64, 512)`는 `None`입니다.

# %% [markdown] lang="en" of="eff929cd"
# ### Exercise 2. Refuse politely
#
# ★ · about 5 minutes · section 3
#
# Write the refusal of section 3 yourself. Take the `instruction`, the number of `tokens` in the prompt, the `length` granted to the reply, in tokens, and the `window` for both together.
#
# - If the instruction is `None`, empty, or nothing but space: `"지시문이 비어 있습니다."` ("The instruction is empty.")
# - If prompt and reply together are **more than** `window`, say by how much to shorten it, as in `"52토큰만큼 줄여 주세요."` ("Please make it 52 tokens shorter."), with a comma between thousands.
# - If all is well: `None`.
#
# Where both are wrong, report the empty instruction only.
#
# Example: `refuse("요약해 주세요.", 500, 64, 512)` is `'52토큰만큼 줄여 주세요.'`, and `refuse("요약해 주세요.", 400, 64, 512)` is `None`.

# %%
def refuse(instruction, tokens, length, window):
    """A sentence for a request that the model must not see; None for one that it may."""
    ...

# %%
from course_utils.practice.checks import check

check("05.2", refuse)

# %% [markdown] lang="ko"
# <details><summary>풀이</summary>
#
# ```python
# def refuse(instruction, tokens, length, window):
#     if not (instruction or "").strip():
#         return "지시문이 비어 있습니다."
#     over = tokens + length - window
#     return f"{over:,}토큰만큼 줄여 주세요." if over > 0 else None
# ```
#
# "너무 깁니다"라고만 하면 얼마나 지워야 하는지 몰라 여러 번 다시 누르게 됩니다. 다음에 할 일을 알려 주는 것이 공손한 거절입니다.
#
# </details>

# %% [markdown] lang="en" of="449b1af9"
# <details><summary>Solution</summary>
#
# ```python
# def refuse(instruction, tokens, length, window):
#     if not (instruction or "").strip():
#         return "지시문이 비어 있습니다."
#     over = tokens + length - window
#     return f"{over:,}토큰만큼 줄여 주세요." if over > 0 else None
# ```
#
# After a mere "too long" people try again and again, not knowing how much to delete. A polite refusal says what to do next.
#
# </details>

# %% [markdown] lang="ko"
# ### 연습 3. 대화를 한도에 맞추기
#
# ★★ · 약 15분 · 3절
#
# 데모를 여러 번 주고받는 대화로 바꾼다면, 길어진 대화를 한도에 맞추어 잘라야 합니다. `(역할, 토큰 번호)`의 목록 `turns`와 토큰 수의 한도 `room`을 받아, 모델에 보낼 **뒷부분**을 돌려주세요.
#
# - 가장 오래된 것부터 통째로 뺍니다. 가운데를 빼거나 차례 하나를 쪼개지 않습니다.
# - 남은 부분은 `user`로 시작해야 합니다. 질문 없이 답부터 나오는 대화는 학습 때 본 적이 없습니다.
# - 토큰의 합은 `room`을 넘지 않습니다. 그 안에서 가장 긴 것을 고릅니다. 남길 것이 없으면 `None`입니다.
#
# 보기: `last_turns([("user", [5, 6]), ("model", [7, 1]), ("user", [8])], 4)`는 `[('user', [8])]`입니다. `model`의 차례까지는 들어가지만, 답으로 시작할 수는 없습니다.

# %% [markdown] lang="en" of="071d9c3d"
# ### Exercise 3. Make a conversation fit
#
# ★★ · about 15 minutes · section 3
#
# If the demo is to hold a conversation, one that has grown too long has to be cut. Take `turns`, a list of `(role, token ids)`, and `room`, the most tokens there may be, and return the **end** of it that is sent to the model.
#
# - The oldest turns go first, and as a whole: nothing is taken out of the middle, and no turn is split.
# - What is left has to begin with `user`: in training the model never saw a conversation that begins with a reply.
# - There are no more than `room` tokens in all. Of what qualifies, take the longest; if nothing does, return `None`.
#
# Example: `last_turns([("user", [5, 6]), ("model", [7, 1]), ("user", [8])], 4)` is `[('user', [8])]`: the turn of `model` would fit, but no conversation begins with a reply.

# %%
def last_turns(turns, room):
    """The longest end of a conversation that fits and begins with the user; None if nothing fits."""
    ...

# %%
from course_utils.practice.checks import check

check("05.3", last_turns)

# %% [markdown] lang="ko"
# <details><summary>풀이</summary>
#
# ```python
# def last_turns(turns, room):
#     for start, (role, _) in enumerate(turns):
#         if role == "user" and sum(len(ids) for _, ids in turns[start:]) <= room:
#             return turns[start:]
#     return None
# ```
#
# 앞에서부터 잘라 보며 처음으로 맞는 것이 가장 긴 것입니다. 마지막 질문조차 들어가지 않으면 몰래 자르지 말고, 앞의 연습처럼 알려 주세요.
#
# </details>

# %% [markdown] lang="en" of="8875335d"
# <details><summary>Solution</summary>
#
# ```python
# def last_turns(turns, room):
#     for start, (role, _) in enumerate(turns):
#         if role == "user" and sum(len(ids) for _, ids in turns[start:]) <= room:
#             return turns[start:]
#     return None
# ```
#
# Cutting further and further from the front, the first that fits is the longest. Where not even the last question fits, do not trim it silently: say so, as in the exercise before.
#
# </details>
