"""The two simulated models: what the teacher writes and what the judge decides, as pure functions.

The teacher writes tasks of the micro-world, questions from fixed sentences, and answers copied out
of the passages it is shown, imperfect at known rates. The judge knows the truth, leans on position
when it cannot decide, and errs now and then. All chance comes from the `rng` that is passed in.
Nothing here says how good a real teacher or judge is, only what the course's code does with such a
one.
"""

import json
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from course_utils.judge import BATTLE_HEAD, BATTLE_VERDICTS, GRADE_HEAD, GRADES
from course_utils.offline import world
from course_utils.offline.world import facts
from course_utils.prompts import read_generation_prompt, unquote
from course_utils.sources.domain import NO_ANSWER, read_answer_prompt, read_question_prompt

TEACHER, JUDGE = "simulated-teacher", "simulated-judge"
MODELS = [TEACHER, JUDGE]

HONEST = ("저는 언어 모델이 아니라 강의용 모의 서버(simulation)입니다. "  # the answer to all else
          "교사(simulated-teacher)는 과제와 질문을 만들거나 자료로 답하는 요청에, "
          "심사자(simulated-judge)는 채점과 비교 요청에만 답할 수 있습니다.")
Item = dict[str, str]  # a task as it is written, without the fields that are missing


@dataclass(frozen=True)
class Imperfections:
    """How often the teacher errs: five shares of tasks, five of replies, two of answers."""

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


@dataclass(frozen=True)
class JudgeTraits:
    """The judge's character, in shares from 0 to 1.

    A request may bring its own as `traits`, the one thing here that no real API has.
    """

    position_bias: float = 0.8  # when the truth is a tie, how often it names the answer shown first
    noise: float = 0.01  # how often its verdict is replaced by another one, drawn at random
    invalid: float = 0.0  # how often it gives no verdict, or refuses where a schema asks for one
    length_bias: float = 0.0  # when still undecided, how often it names the longer answer
    clear_bias: float = 0.0  # when one answer alone is right, how often the first is named anyway


def teach(prompt: str, rng: random.Random, rates: Imperfections, *,
          as_json: bool = False) -> tuple[str, str]:
    """Answer one of the teacher's prompts: (text, finish_reason); HONEST to any other prompt.

    Tasks are in the prompt's numbered format or, with `as_json`, {"tasks": [...]}.
    """
    if not as_json and (asked := read_question_prompt(prompt)):
        return _write_questions(*asked, rng), "stop"
    if not as_json and (asked := read_answer_prompt(prompt)):
        return _answer(*asked, rng, rates), "stop"
    if (asked := read_generation_prompt(prompt)) is None:
        return HONEST, "stop"
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
    fields = ("instruction", "input", "output")
    kinds = ["near_duplicate", "missing_field", "english", "medium", "wrong_answer"]
    weights = [getattr(rates, kind) for kind in kinds]
    items, good = [], []
    for task in world.sample_tasks(n, seed=rng.getrandbits(48)):
        item = {field: getattr(task, field) for field in fields}
        kind = rng.choices([*kinds, "good"], [*weights, 1 - sum(weights)])[0]
        if kind == "near_duplicate" and good:
            item = dict(rng.choice(good))
            item["instruction"] = reword(item["instruction"], rng)
        elif kind == "missing_field":
            del item[rng.choice(["input", "output"])]
        elif kind in ("english", "medium"):
            item = dict(zip(fields, rng.choice(facts()[kind]), strict=True))
        elif kind == "wrong_answer":
            others = world.sample_tasks(20, seed=rng.getrandbits(48), family=task.meta["family"])
            wrong = (other.output for other in others if other.output != task.output)
            item["output"] = next(wrong, task.output)
        else:
            good.append(item)
        items.append(item)
    return items


def reword(instruction: str, rng: random.Random) -> str:
    """The same request a little changed: 세어 주세요 -> 좀 세어 주세요, 세어 주시겠어요?"""
    softened = re.sub(r"(.*[을를]) (?=[^.]*주[세시실십])", r"\1 좀 ", instruction, count=1)
    endings = (pair for pair in facts()["endings"] if instruction.endswith(pair[0]))
    old, new = next(endings, ("", ""))
    changed = instruction.removesuffix(old) + new
    marked = instruction.rstrip(".?") + ("??" if instruction.endswith("?") else "!")
    return rng.choice([text for text in (softened, changed, marked) if text != instruction])


def _write_items(items: Sequence[Item], first: int, rng: random.Random,
                 rates: Imperfections) -> tuple[str, int]:
    """The items in the prompt's format, continuing its open label; and the last one's length."""
    bold = "**" if rng.random() < rates.bold_labels else ""
    colon = "：" if rng.random() < rates.wide_colons else ":"
    names = {"instruction": "지시문", "input": "입력", "output": "출력"}
    written = []
    for number, item in enumerate(items, first):
        lines = [f"{bold}{number}. {names[field]}{colon}{bold} {value or '<noinput>'}"
                 for field, value in item.items()]
        written.append("\n".join(lines))
    opening = rng.random()
    if opening < rates.preface:
        written[0] = f"네, 새 과제를 이어서 쓰겠습니다.\n\n###\n{written[0]}"
    elif opening >= rates.preface + rates.repeated_label:
        written[0] = written[0].split(f"{colon}{bold} ", 1)[1]
    return "\n###\n".join(written), len(written[-1])


def _write_questions(word: str, n: int, rng: random.Random) -> str:
    """n questions about a word, numbered; they repeat themselves when n is large."""
    asks, particles = rng.sample(facts()["asks"], len(facts()["asks"])), facts()["particles"]

    def with_particle(found: re.Match) -> str:
        return world.josa(word, found[1]) if found[1] in particles else word + found[1]

    questions = [re.sub(r"\{(\w+)\}", with_particle, ask) for ask in asks]
    return "\n".join(f"{i + 1}. {rng.choice(facts()['openings'])}{questions[i % len(asks)]}"
                     for i in range(n))


def _answer(question: str, passages: Sequence[str], rng: random.Random,
            rates: Imperfections) -> str:
    """The sentence that shares most with the question, as it stands, and its passage's number.

    What a question is about must be in the passages; else there is no answer.
    """
    words = re.findall("[가-힣]{2,}", question.rpartition(", ")[2])
    matter = [word for word in words if word[:2] not in facts()["filler"].split()]
    sentences = [(number, sentence) for number, passage in enumerate(passages, 1)
                 for sentence in re.split(r"(?<=[.?!])\s+|\n", passage) if sentence.endswith(".")]
    if not sentences or not all(_shared([word], "\n".join(passages)) for word in matter):
        return f"{NO_ANSWER}."

    def fitness(candidate: tuple[int, str]) -> tuple[int, bool, int]:
        text = candidate[1]
        begins = any(text.startswith(word[:2]) for word in matter)
        return _shared(matter, text), begins, _shared(words, text)

    number, text = max(sentences, key=fitness)
    if rng.random() < rates.ungrounded:
        other = re.sub(r"\d+", lambda m: str(int(m[0]) + rng.randint(1, 9)), text)
        text = other if other != text else rng.choice(facts()["invented"])
    if rng.random() < rates.uncited:
        return rng.choice([text, f"{text}\n[[{len(passages) + 1}]]"])
    return f"{text}\n[[{number}]]"


def _shared(words: Sequence[str], text: str) -> int:
    """How many syllables of the words, two or more of a word, begin something in the text."""
    return sum(max((n for n in range(2, len(word) + 1) if word[:n] in text), default=0)
               for word in words)


def judge(prompt: str, rng: random.Random, traits: JudgeTraits, *,
          as_json: bool = False) -> tuple[str, str | None]:
    """Answer a grade or battle prompt: (text, refusal); HONEST to any other prompt.

    The verdict is on the last line; held to a schema the judge can only fill it in, or refuse.
    """
    if texts := unquote(prompt, BATTLE_HEAD):
        asked = texts["질문"], texts["답변 A"], texts["답변 B"], texts.get("모범 답안")
        (reason, verdict), allowed = _compare(*asked, rng, traits), BATTLE_VERDICTS
    elif texts := unquote(prompt, GRADE_HEAD):
        asked = texts["질문"], texts["답변"], texts.get("모범 답안")
        (reason, verdict), allowed = _grade(*asked, rng), GRADES
    else:
        return HONEST, None
    if verdict and rng.random() < traits.noise:
        verdict = rng.choice([other for other in allowed if other != verdict])
    if rng.random() < traits.invalid:
        verdict = None
    if verdict is None:
        return reason, reason if as_json else None
    if as_json:
        return json.dumps({"reason": reason, "verdict": verdict}, ensure_ascii=False), None
    return f"{reason}\n\n[[{verdict}]]", None


def truth(question: str, reference: str | None = None) -> str | None:
    """The right answer to a question (instruction, blank line, input), the reference, or None."""
    instruction, _, text = question.partition("\n\n")
    try:
        return world.solve(instruction, text)
    except world.Unsolvable:
        return _first_line(reference or "") or None


def _first_line(text: str) -> str:
    """What of an answer is compared with the truth, as everywhere in the course."""
    return text.strip().split("\n", 1)[0].strip()


def _compare(question: str, first: str, second: str, reference: str | None, rng: random.Random,
             traits: JudgeTraits) -> tuple[str, str]:
    right = truth(question, reference)
    if right is None:
        return "정답을 알 수 없는 질문이라 어느 쪽이 나은지 가릴 수 없습니다.", "C"
    a_right, b_right = (_first_line(answer) == right for answer in (first, second))
    if a_right != b_right:
        better, other = "AB" if a_right else "BA"
        if traits.clear_bias and rng.random() < traits.clear_bias:
            return "답변 A가 더 자연스럽고 정확합니다.", "A"
        return f"답변 {better}는 정답과 같지만 답변 {other}는 다릅니다.", better
    both = "두 답변이 모두 맞습니다." if a_right else "두 답변이 모두 틀렸습니다."
    # What position bias looks like from outside: a reason is found, and it favours the first.
    if rng.random() < traits.position_bias:
        return f"{both} 다만 답변 A가 조금 더 자연스럽습니다.", "A"
    if rng.random() < traits.length_bias and len(first) != len(second):
        longer = "A" if len(first) > len(second) else "B"
        return f"{both} 다만 답변 {longer}가 더 자세합니다.", longer
    return f"{both} 우열을 가리기 어렵습니다.", "C"


def _grade(question: str, answer: str, reference: str | None,
           rng: random.Random) -> tuple[str, str | None]:
    right, answer = truth(question, reference), _first_line(answer)
    if right is None:
        return "정답을 알 수 없는 질문이라 점수를 매길 수 없습니다.", None
    if answer == right:
        return "정답과 같습니다.", str(rng.randint(9, 10))
    if SequenceMatcher(None, answer, right, autojunk=False).ratio() >= 0.5:
        return f"정답은 '{right}'인데 일부만 맞습니다.", str(rng.randint(3, 5))
    return f"정답은 '{right}'인데 답변은 다릅니다.", str(rng.randint(1, 2))
