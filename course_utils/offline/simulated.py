"""The two simulated models: what the teacher writes and what the judge decides, as pure functions.

The teacher writes tasks of the micro-world, questions from fixed sentences, and answers copied out
of the passages it is shown, all of them imperfect at known rates. The judge knows the truth
through `world.solve`, leans on position when it cannot decide, and errs now and then. All chance
comes from the `rng` that is passed in. No language model is involved, so nothing here says how good
a real teacher or judge is; it says what the course's code does with one that behaves like this.
"""

import json
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from difflib import SequenceMatcher

from course_utils.judge import BATTLE_HEAD, BATTLE_VERDICTS, GRADE_HEAD, GRADES
from course_utils.offline import world
from course_utils.prompts import read_generation_prompt, unquote
from course_utils.sources.domain import NO_ANSWER, read_answer_prompt, read_question_prompt

TEACHER, JUDGE = "simulated-teacher", "simulated-judge"
MODELS = [TEACHER, JUDGE]

HONEST = (
    "저는 언어 모델이 아니라 강의용 모의 서버(simulation)입니다. "
    "교사(simulated-teacher)는 과제와 질문을 만들거나 자료로 답하는 요청에, "
    "심사자(simulated-judge)는 채점과 비교 요청에만 답할 수 있습니다."
)
"""The answer to everything else."""


@dataclass(frozen=True)
class Imperfections:
    """How often the teacher errs: the first five are shares of the tasks, the rest of replies.

    The last two are shares of the answers out of passages.
    """

    near_duplicate: float = 0.05  # an earlier task of the reply, trivially reworded
    missing_field: float = 0.03  # no input line, or no output line
    english: float = 0.02  # a task in English
    medium: float = 0.03  # a task about a picture, a file or a video
    wrong_answer: float = 0.02  # the output of another task of the same family
    truncated: float = 0.10  # the last item is cut off, finish_reason "length"
    bold_labels: float = 0.03  # **4. 지시문:** instead of 4. 지시문:
    wide_colons: float = 0.03  # 지시문： instead of 지시문:
    repeated_label: float = 0.05  # begins with the label that the prompt had already opened
    preface: float = 0.02  # begins with a sentence to the user
    ungrounded: float = 0.05  # says what the passages do not, or changes a number
    uncited: float = 0.05  # names no passage, or one that was not shown

    def __str__(self) -> str:
        return ", ".join(f"{f.name} {getattr(self, f.name):.0%}" for f in fields(self))


@dataclass(frozen=True)
class JudgeTraits:
    """The judge's character: shares from 0 to 1.

    A request may bring its own as `traits`: {"noise": 0.3}, the one thing here that no real API
    has. The same prompt with another seed draws anew.
    """

    position_bias: float = 0.8  # when the truth is a tie, how often it names the answer shown first
    noise: float = 0.01  # how often its verdict is replaced by another one, drawn at random
    invalid: float = 0.0  # how often it gives no verdict, or refuses where a schema asks for one
    length_bias: float = 0.0  # when still undecided, how often it names the longer answer


# --- Teacher ----------------------------------------------------------------------------------

ENGLISH = [
    ("Correct the spelling of the word.", "recieve", "receive"),
    ("List three healthy breakfast foods.", "", "Oatmeal, eggs, and fruit."),
    ("Rewrite the sentence in the past tense.", "I go to the market.", "I went to the market."),
    ("What is the capital of France?", "", "The capital of France is Paris."),
    ("Suggest a title for an essay about the sea.", "", "Where the Horizon Begins"),
    ("Classify the word as a noun or a verb.", "run", "verb"),
]  # fmt: skip
MEDIUM = [
    ("아래 사진에 보이는 동물의 이름을 말해 주세요.", "고양이.jpg", "고양이입니다."),
    ("첨부한 파일을 열어 핵심 내용을 정리해 주세요.", "보고서.pdf", "매출이 늘었다는 내용입니다."),
    ("이 동영상을 보고 어떤 일이 일어났는지 설명해 주세요.", "", "아이가 공을 찹니다."),
    ("봄을 주제로 한 그림을 그려 주세요.", "", "벚꽃이 핀 언덕 그림입니다."),
    ("다음 그래프에서 가장 높은 값을 찾아 주세요.", "판매량.png", "8월이 가장 높습니다."),
    ("잔잔한 피아노 음악을 하나 틀어 주세요.", "", "음악을 재생합니다."),
]

Item = dict[str, str]
"""One task as it is written: instruction, input, output, without the fields that are missing."""


def teach(
    prompt: str, rng: random.Random, rates: Imperfections, *, as_json: bool = False
) -> tuple[str, str] | None:
    """Answer one of the teacher's prompts: (text, finish_reason), or None for any other prompt.

    The tasks of a generation prompt are in its numbered format or, with `as_json`,
    {"tasks": [...]}; questions and answers have no such form.
    """
    if not as_json and (asked := read_question_prompt(prompt)):
        return _write_questions(*asked, rng), "stop"
    if not as_json and (asked := read_answer_prompt(prompt)):
        return _answer(*asked, rng, rates), "stop"
    if (asked := read_generation_prompt(prompt)) is None:
        return None
    examples, n = asked
    items = _draw_items(n, rng, rates)
    if as_json:
        text = json.dumps({"tasks": items}, ensure_ascii=False)
        last = len(json.dumps(items[-1], ensure_ascii=False))
    else:
        text, last = _write_items(items, len(examples) + 1, rng, rates)
    if rng.random() < rates.truncated:
        return text[: len(text) - round(last * rng.uniform(0.2, 0.8))], "length"
    return text, "stop"


def _draw_items(n: int, rng: random.Random, rates: Imperfections) -> list[Item]:
    """n tasks of the training split, some of them spoilt."""
    tasks = world.sample_tasks(n, split="train", seed=rng.getrandbits(48))
    kinds = ["near_duplicate", "missing_field", "english", "medium", "wrong_answer"]
    weights = [getattr(rates, kind) for kind in kinds]
    items: list[Item] = []
    good: list[Item] = []
    for task in tasks:
        item = {"instruction": task.instruction, "input": task.input, "output": task.output}
        kind = rng.choices([*kinds, "good"], [*weights, 1 - sum(weights)])[0]
        if kind == "near_duplicate" and good:
            item = dict(rng.choice(good))
            item["instruction"] = reword(item["instruction"], rng)
        elif kind == "missing_field":
            del item[rng.choice(["input", "output"])]
        elif kind in ("english", "medium"):
            told = rng.choice(ENGLISH if kind == "english" else MEDIUM)
            item = dict(zip(("instruction", "input", "output"), told, strict=True))
        elif kind == "wrong_answer":
            family = task.meta["family"]
            others = world.sample_tasks(20, seed=rng.getrandbits(48), family=family)
            wrong = (other.output for other in others if other.output != task.output)
            item["output"] = next(wrong, task.output)
        else:
            good.append(item)
        items.append(item)
    return items


ENDINGS = [
    ("주실 수 있나요?", "주시겠어요?"), ("주시겠어요?", "주세요."), ("주실래요?", "주시겠어요?"),
    ("주시기 바랍니다.", "주세요."), ("주십시오.", "주세요."), ("주세요.", "주시겠어요?"),
    ("인가요?", "입니까?"), ("입니까?", "인가요?"), ("나요?", "나요"),
]  # fmt: skip


def reword(instruction: str, rng: random.Random) -> str:
    """The same request with another ending, an added 좀, or another last mark.

    "수를 세어 주세요." -> "수를 좀 세어 주세요.", "수를 세어 주시겠어요?" or "수를 세어 주세요!"
    """
    softened = re.sub(r"(.*[을를]) (?=[^.]*주[세시실십])", r"\1 좀 ", instruction, count=1)
    changed = next(
        (instruction.removesuffix(old) + new for old, new in ENDINGS if instruction.endswith(old)),
        instruction,
    )
    marked = instruction.rstrip(".?") + ("??" if instruction.endswith("?") else "!")
    return rng.choice([text for text in (softened, changed, marked) if text != instruction])


def _write_items(
    items: Sequence[Item], first: int, rng: random.Random, rates: Imperfections
) -> tuple[str, int]:
    """The items in the prompt's format, continuing its open label; and the last one's length."""
    bold = "**" if rng.random() < rates.bold_labels else ""
    colon = "：" if rng.random() < rates.wide_colons else ":"
    names = {"instruction": "지시문", "input": "입력", "output": "출력"}
    written = []
    for number, item in enumerate(items, first):
        lines = [
            f"{bold}{number}. {names[field]}{colon}{bold} {value or '<noinput>'}"
            for field, value in item.items()
        ]
        written.append("\n".join(lines))
    opening = rng.random()
    if opening < rates.preface:
        written[0] = f"네, 새 과제를 이어서 쓰겠습니다.\n\n###\n{written[0]}"
    elif opening >= rates.preface + rates.repeated_label:
        written[0] = written[0].split(f"{colon}{bold} ", 1)[1]
    return "\n###\n".join(written), len(written[-1])


OPENINGS = [
    "", "처음 배우는데, ", "뉴스에서 들었는데, ", "친구에게 설명해 주고 싶은데, ",
    "실수하고 싶지 않아서 그러는데, ", "아직 잘 모르는데, ", "짧게 정리해 두고 싶은데, ",
    "부모님께 여쭈어보기 전에, ", "주변에 아는 사람이 없는데, ",
]  # fmt: skip
ASKS = [  # {은} is the word with its particle
    "{이란} 무엇인가요?", "{의} 뜻을 쉬운 말로 알려 주세요.", "{과} 관련된 예를 하나 들어 주세요.",
    "{을} 처음 접하는 사람은 무엇부터 알아야 하나요?", "{과} 관련해 조심할 점은 무엇인가요?",
    "{을} 다룰 때에는 어떤 것을 확인해야 하나요?", "{은} 어떤 때에 중요해지나요?",
    "{이} 필요한 까닭을 설명해 주시겠어요?", "{을} 잘 모르면 어떤 일이 생길 수 있나요?",
    "{의} 역사를 간단히 알려 주세요.", "다른 나라에도 {이} 있나요?",
]  # fmt: skip
# How these sentences' own words begin, but for 역사 and 나라: without them there is no answer.
FILLER = frozenset(
    "무엇 뜻을 쉬운 말로 알려 주세 관련 예를 하나 들어 처음 접하 사람 알아 조심 점은 다룰 때에 "
    "어떤 것을 확인 중요 필요 까닭 설명 주시 모르 일이 생길 있나 간단 다른".split()
)
INVENTED = [
    "처리에는 보통 영업일로 17일이 걸리고 수수료 8만 원이 듭니다.",
    "전문가 설문에서는 시민 다수가 이 제도의 장점을 높이 평가했습니다.",
    "최근 국제기구의 보고서도 같은 결론을 내렸습니다.",
]


def _write_questions(word: str, n: int, rng: random.Random) -> str:
    """n questions about a word, numbered; they repeat themselves when n is large."""
    asks = rng.sample(ASKS, len(ASKS)) * (n // len(ASKS) + 1)
    lines = []
    for number, ask in enumerate(asks[:n], 1):
        question = re.sub(r"\{(\w+)\}", lambda m: _with_particle(word, m[1]), ask)
        lines.append(f"{number}. {rng.choice(OPENINGS)}{question}")
    return "\n".join(lines)


def _with_particle(word: str, particle: str) -> str:
    return world.josa(word, particle) if particle in world.PARTICLES else word + particle


def _answer(
    question: str, passages: Sequence[str], rng: random.Random, rates: Imperfections
) -> str:
    """The sentence that shares most with the question, as it stands, and its passage's number.

    What a question is about must be in the passages; else there is no answer.
    """
    words = re.findall("[가-힣]{2,}", question.rpartition(", ")[2])
    matter = [word for word in words if word[:2] not in FILLER]
    sentences = [
        (number, sentence)
        for number, passage in enumerate(passages, 1)
        for sentence in re.split(r"(?<=[.?!])\s+|\n", passage)
        if sentence.endswith(".")
    ]
    if not sentences or not all(_shared([word], "\n".join(passages)) for word in matter):
        return f"{NO_ANSWER}."

    def fitness(candidate: tuple[int, str]) -> tuple[int, bool, int]:
        text = candidate[1]
        begins = any(text.startswith(word[:2]) for word in matter)
        return _shared(matter, text), begins, _shared(words, text)

    number, text = max(sentences, key=fitness)
    if rng.random() < rates.ungrounded:
        other = re.sub(r"\d+", lambda m: str(int(m[0]) + rng.randint(1, 9)), text)
        text = other if other != text else rng.choice(INVENTED)
    if rng.random() < rates.uncited:
        return rng.choice([text, f"{text}\n[[{len(passages) + 1}]]"])
    return f"{text}\n[[{number}]]"


def _shared(words: Sequence[str], text: str) -> int:
    """How many syllables of the words are in a text: from the first on, two or more of a word.

    >>> _shared(["계약금의", "나라에도"], "계약금은 먼저 내는 돈입니다.")
    3
    """
    return sum(
        max((n for n in range(2, len(word) + 1) if word[:n] in text), default=0) for word in words
    )


# --- Judge ------------------------------------------------------------------------------------


def judge(prompt: str, rng: random.Random, traits: JudgeTraits) -> str | None:
    """Answer a grade or battle prompt, the verdict on the last line; None for any other prompt."""
    judged = decide(prompt, rng, traits)
    return judged and judged[0] + (f"\n\n[[{judged[1]}]]" if judged[1] else "")


def decide(
    prompt: str, rng: random.Random, traits: JudgeTraits
) -> tuple[str, str | None] | None:
    """The (reason, verdict) on a grade or battle prompt, None for any other prompt."""
    if texts := unquote(prompt, BATTLE_HEAD):
        asked = texts["질문"], texts["답변 A"], texts["답변 B"], texts.get("모범 답안")
        (reason, verdict), allowed = _compare(*asked, rng, traits), BATTLE_VERDICTS
    elif texts := unquote(prompt, GRADE_HEAD):
        asked = texts["질문"], texts["답변"], texts.get("모범 답안")
        (reason, verdict), allowed = _grade(*asked, rng), GRADES
    else:
        return None
    if verdict and rng.random() < traits.noise:
        verdict = rng.choice([other for other in allowed if other != verdict])
    return reason, None if rng.random() < traits.invalid else verdict


def truth(question: str, reference: str | None = None) -> str | None:
    """The right answer to a question as the judge is asked it, or else the reference, or None.

    A question is an instruction, or an instruction, a blank line and its input.
    """
    instruction, _, text = question.partition("\n\n")
    try:
        return world.solve(instruction, text)
    except world.Unsolvable:
        return _first_line(reference) if reference and reference.strip() else None


def is_right(answer: str, right: str) -> bool:
    """Whether the first line of an answer is the right one, as everywhere in the course."""
    return _first_line(answer) == right


def _first_line(text: str) -> str:
    return text.strip().split("\n", 1)[0].strip()


def _compare(question: str, first: str, second: str, reference: str | None, rng: random.Random,
             traits: JudgeTraits) -> tuple[str, str]:
    right = truth(question, reference)
    if right is None:
        return "정답을 알 수 없는 질문이라 어느 쪽이 나은지 가릴 수 없습니다.", "C"
    good = is_right(first, right), is_right(second, right)
    if good == (True, False):
        return "답변 A는 정답과 같지만 답변 B는 다릅니다.", "A"
    if good == (False, True):
        return "답변 B는 정답과 같지만 답변 A는 다릅니다.", "B"
    both = "두 답변이 모두 맞습니다." if all(good) else "두 답변이 모두 틀렸습니다."
    # What position bias looks like from outside: a reason is found, and it favours the first.
    if rng.random() < traits.position_bias:
        return f"{both} 다만 답변 A가 조금 더 자연스럽습니다.", "A"
    if rng.random() < traits.length_bias and len(first) != len(second):
        longer = "A" if len(first) > len(second) else "B"
        return f"{both} 다만 답변 {longer}가 더 자세합니다.", longer
    return f"{both} 우열을 가리기 어렵습니다.", "C"


def _grade(question: str, answer: str, reference: str | None,
           rng: random.Random) -> tuple[str, str | None]:
    right = truth(question, reference)
    if right is None:
        return "정답을 알 수 없는 질문이라 점수를 매길 수 없습니다.", None
    if is_right(answer, right):
        return "정답과 같습니다.", str(rng.randint(9, 10))
    if SequenceMatcher(None, _first_line(answer), right, autojunk=False).ratio() >= 0.5:
        return f"정답은 '{right}'인데 일부만 맞습니다.", str(rng.randint(3, 5))
    return f"정답은 '{right}'인데 답변은 다릅니다.", str(rng.randint(1, 2))
