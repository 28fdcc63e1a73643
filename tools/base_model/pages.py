"""Pages of exercises: a cue, something to work on, a line of signs, and what comes of it.

In the documents before these, an answer follows its question closely. An instruction stands far
from its answer, with other sentences and the marks of a chat between them. So the second half of
pretraining reads exercises: after some unrelated talk a short cue names one of several things that
can be done with the material, signs of any kind follow, and then the outcome. The cues are words
that no instruction uses, the outcomes end otherwise than answers do, and copying the material is
always among the things to do: nothing here can be answered without reading the cue.
"""

import random

from course_utils.offline import world
from course_utils.offline.world import facts, josa
from tools.base_model.documents import (
    Writer,
    train_ad,
    train_deposits,
    train_event,
    train_list,
    train_review,
    train_sum,
)

Exercise = tuple[str, str, str]
"""What to do, what to do it with, and the outcome."""

COPY = ["그대로", "베껴 쓰기", "똑같이 한 번 더", "메아리"]
SPEAKERS = "손님 점원 언니 동생 선생님 학생 가 나 민지 톰 첫째 둘째".split()
SIGNS = "!@#$%^&*-=+~|/:;.,()[]{}"


def exercises(rng: random.Random) -> str:
    """One page: one to three exercises of any kind, all laid out alike."""
    layout = _layout(rng)
    kinds = rng.choices(KINDS, k=rng.choice([1, 1, 2, 3]))
    return "\n\n".join(layout(kind(rng)) for kind in kinds)


def _layout(rng: random.Random) -> Writer:
    """A way to set exercises, with signs of its own between question and outcome."""
    signs = "".join(rng.choices(SIGNS, k=rng.randint(1, 5)))
    asks, tells = rng.sample(SPEAKERS, 2)
    shape = rng.randrange(5)

    def lay(exercise: Exercise) -> str:
        cue, material, outcome = exercise
        talk = " ".join(rng.sample(facts()["sayings"], rng.choice([0, 1, 1, 2])))
        question = f"{talk} {cue}".strip()
        return [
            f"{asks}\n{question}\n\n{material}{signs}\n{signs}{tells}\n{outcome}{signs}",
            f"{question}\n{material}\n{signs}\n{outcome}",
            f"{question} {signs} {material} {signs} {outcome}",
            f"{asks}: {question}\n\n{material}\n{tells}: {outcome}",
            f"{signs}{asks}\n{material}\n{question}{signs}\n{signs}{tells}\n{outcome}{signs}",
        ][shape]

    return lay


def _pick(rng: random.Random, material: str, *ways: tuple[list[str], list[str]]) -> Exercise:
    """One of several things to do with the material; each way is (its cues, its outcomes)."""
    cues, outcomes = rng.choice([*ways, ways[0], (COPY, [material])])
    return rng.choice(cues), material, rng.choice(outcomes)


def _list(rng: random.Random) -> Exercise:
    things = train_list(rng, rng.choice(["reversal", "counting"]), 3, 8)
    n = len(things)
    back = ", ".join(reversed(things))
    text = ", ".join(things)
    if world.is_heldout("reversal", text) or world.is_heldout("counting", text):
        return _list(rng)
    return _pick(
        rng, text,
        (
            ["되짚기", "거울 순서", "오던 길로", "끝에서 처음으로", "돌아서 보기"],
            [back, back + "."],
        ),
        (
            ["가짓수", "머릿수", "다 해서 얼마", "세어 보기"],
            [f"{n}가지", f"다 해서 {n}개", f"{n}"],
        ),
        (["맨 앞", "첫째 것"], [things[0]]),
        (["맨 끝", "막내"], [things[-1]]),
    )


def _speech(rng: random.Random) -> Exercise:
    said = world.casual(train_event(rng, "politeness"), rng)
    return _pick(
        rng, said,
        (["어른 앞", "할머니께 드릴 말", "높여서", "선생님 귀에는"], [world.polite(said)]),
        (["맞장구", "친구의 대꾸"], ["그렇구나.", "그래?", "와, 좋겠다.", "정말?"]),
    )


def _english(rng: random.Random) -> Exercise:
    event = train_event(rng, "translation")
    return _pick(
        rng,
        event.plain(),
        (["톰의 귀에는", "바다 건너 말", "오른쪽 공책", "In English"], [event.english()]),
        (["누구", "임자말"], [event.subject]),
        (["무엇을", "부림말"], [event.object]),
        (["언제"], [event.time]),
    )


def _story(rng: random.Random) -> Exercise:
    event = train_event(rng, "summary", world.draw_visit)
    text = world.story(event, rng)
    found = world.STORY.search(text)
    name, place, did = found["name"], found["place"], found["did"].removesuffix("습니다.")
    return _pick(
        rng, text,
        (
            ["간추림", "무슨 일", "일기 한 줄", "소문"],
            [f"{josa(name, '이')} {place}에서 {did}{end}." for end in "다대"],
        ),
        (["주인공"], [name]),
        (["간 곳"], [place]),
    )


def _review(rng: random.Random) -> Exercise:
    good = rng.random() < 0.5
    text = train_review(rng, good)
    return _pick(
        rng, text,
        (
            ["손님 마음", "이 글의 빛깔"],
            ["긍정 쪽", "긍정적"] if good else ["부정 쪽", "부정적"],
        ),
        (["별", "별의 수"], ["별 다섯" if good else "별 하나"]),
        (["사장의 말"], ["고맙습니다."] if good else ["죄송합니다."]),
    )


def _town(rng: random.Random) -> Exercise:
    town, (province, speciality) = rng.choice(list(facts()["towns"].items()))
    where = ["어느 땅", "사는 도", "어디쯤", f"{josa(town, '이')} 어디더라"]
    sells = ["장터 자랑", "사 올 것", "이름난 것", f"{town} 장터에는 뭐가 많아"]
    told = [province, f"{province} 땅", f"{province}지", f"{josa(province, '이야')}"]
    sold = [speciality, josa(speciality, "이지"), josa(speciality, "이야")]
    cue, material, outcome = _pick(rng, town, (where, told), (sells, sold))
    return cue, "" if town in cue else material, outcome


def _term(rng: random.Random) -> Exercise:
    term, meaning = rng.choice(list(facts()["terms"].items()))
    cues = ["낱말 풀이", "무슨 소리", "풀어 보면"]
    cues += [f"{josa(term, '이')} 뭐더라", f"{term}, 그게 뭐야"]
    told = [meaning, josa(meaning, "이다"), josa(meaning, "이야"), josa(meaning, "이지")]
    cue, material, outcome = _pick(rng, term, (cues, told))
    return cue, "" if term in cue else material, outcome


def _ad(rng: random.Random) -> Exercise:
    ad, text = train_ad(rng)
    field = rng.choice(world.FIELDS)
    cues = [f"{field}?", f"궁금한 것은 {field}"]
    cues += [f"{josa(field, '이')} 얼마더라", f"메모할 것: {field}"]
    value = ad[field]
    told = [value, josa(value, "이래"), josa(value, "이야"), f"{value}."]
    return rng.choice(cues), text, rng.choice(told)


def _sum(rng: random.Random) -> Exercise:
    a, b, sign = train_sum(rng)
    thing, c = rng.choice(facts()["countable"]), a + sign * b
    plus = [
        f"{josa(thing, '이')} {a}개 있었다. {b}개를 더 샀다.",
        f"{josa(thing, '을')} 아침에 {a}개, 저녁에 {b}개 팔았다.",
        f"상자에 {josa(thing, '이')} {a}개 있고 바구니에 {b}개 있다.",
    ]
    minus = [
        f"{josa(thing, '이')} {a}개 있었다. 그중 {b}개를 나누어 주었다.",
        f"{josa(thing, '을')} {a}개 샀는데 {b}개를 잃어버렸다.",
    ]
    cue = rng.choice(["이제 얼마", "셈", "주판", "몇일까"])
    told = [f"{c}개", f"{c}개지", f"{c}", f"{c}개야."]
    return cue, rng.choice(plus if sign > 0 else minus), rng.choice(told)


def _deposits(rng: random.Random) -> Exercise:
    first, a, second, b = train_deposits(rng)
    low, high = (first, second) if a < b else (second, first)
    text = rng.choice([
        f"{first}의 보증금은 {a}만 원, {second}의 보증금은 {b}만 원이다.",
        f"{first} {a}만 원, {second} {b}만 원",
    ])
    return _pick(
        rng, text,
        (["헐한 쪽", "낮은 쪽", "돈이 모자라면"], [low, josa(low, "이지"), josa(low, "이야")]),
        (["비싼 쪽", "높은 쪽"], [high, josa(high, "이지"), josa(high, "이야")]),
    )


KINDS = [_list, _list, _speech, _english, _story, _review, _town, _town, _term, _ad, _ad, _sum,
         _sum, _deposits]  # fmt: skip
