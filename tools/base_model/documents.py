"""What the tiny model reads before anybody instructs it: documents of the micro-world.

Every skill that a task later asks for is exercised here, and never in a task's form: no document
holds a request, a chat turn or a wording of `facts.yaml`. Declarative text alone is not enough:
people in dialogues ask and answer, pupils repeat after their teacher, travellers read a list
backwards. Questions whose answer is a matter of combination (sums, lists, sentences) are drawn
from the training side of the split only; towns and terms are all here, or nobody could know them.
The wordings are in documents.yaml.
"""

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import yaml

from course_utils.offline import world
from course_utils.offline.world import facts, fill

Writer = Callable[[random.Random], str]
WRITERS: list[tuple[float, Writer]] = []
WORDINGS = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))


def _writes(weight: float, times: tuple[int, int] = (1, 1)) -> Callable[[Writer], Writer]:
    """Register a writer: how often it is drawn, and of how many of its texts a document is made."""

    def register(writer: Writer) -> Writer:
        def several(rng: random.Random) -> str:
            return "\n".join(writer(rng) for _ in range(rng.randint(*times)))

        WRITERS.append((weight, writer if times == (1, 1) else several))
        return writer

    return register


def documents(seed: int = 0, *, exercises: bool = False) -> Iterator[str]:
    """Documents without end, the same for the same seed; `exercises` makes half of them those."""
    rng = random.Random(f"documents/{seed}")
    weights, writers = zip(*WRITERS, strict=True)
    if exercises:
        from tools.base_model import pages

        weights, writers = (*weights, sum(weights)), (*writers, pages.exercises)
    while True:
        yield rng.choices(writers, weights)[0](rng)


def _talk(rng: random.Random, *turns: str) -> str:
    """A dialogue of two speakers, named one way or another."""
    pairs = [("가", "나"), ("A", "B"), ("언니", "동생"), ("형", "아우"), ("영수", "미나")]
    names = rng.choice(pairs)
    return "\n".join(f"{names[i % 2]}: {turn}" for i, turn in enumerate(turns))


def _worded(rng: random.Random, name: str, slots: dict) -> list[str]:
    """Every wording of this name with its slots filled."""
    return [fill(wording, slots) if isinstance(wording, str)
            else _talk(rng, *(fill(turn, slots) for turn in wording))
            for wording in WORDINGS[name]]  # fmt: skip


def _one(rng: random.Random, name: str, slots: dict) -> str:
    return rng.choice(_worded(rng, name, slots))


def draw_town(rng: random.Random) -> dict[str, str]:
    town, (province, speciality) = rng.choice(list(facts()["towns"].items()))
    return {"town": town, "province": province, "speciality": speciality}


def draw_term(rng: random.Random) -> dict[str, str]:
    term, meaning = rng.choice(list(facts()["terms"].items()))
    return {"term": term, "meaning": meaning}


@_writes(7, (2, 5))
def _towns_told(rng: random.Random) -> str:
    slots = draw_town(rng)
    return _one(rng, "town where", slots) + " " + _one(rng, "town famous", slots)


@_writes(9, (2, 4))
def _towns_talked(rng: random.Random) -> str:
    slots = draw_town(rng)
    return _talk(rng, *(fill(turn, slots) for turn in rng.choice(WORDINGS["town talked"])))


@_writes(4)
def _towns_noted(rng: random.Random) -> str:
    title = rng.choice(["여행 수첩", "낱말 쪽지", "길 위의 기록"])
    notes = [_one(rng, "town noted", draw_town(rng)) for _ in range(rng.randint(3, 7))]
    return "\n".join([title, *notes])


@_writes(5, (2, 4))
def _terms_told(rng: random.Random) -> str:
    return _one(rng, "term told", draw_term(rng))


@_writes(6, (1, 3))
def _terms_talked(rng: random.Random) -> str:
    slots = draw_term(rng)
    return _talk(rng, *(fill(turn, slots) for turn in rng.choice(WORDINGS["term talked"])))


def train_ad(rng: random.Random) -> tuple[dict[str, str], str]:
    """An advertisement and its text, from the training side."""
    while True:
        ad = world.draw_ad(rng)
        text = world.advertisement(ad, rng)
        if not world.is_heldout("extraction", text):
            return ad, text


@_writes(11)
def _ads_talked(rng: random.Random) -> str:
    ad, text = train_ad(rng)
    lines = [text]
    for field in rng.sample(world.FIELDS, rng.randint(2, 5)):
        asked = rng.choice(WORDINGS["ad asked"][field])
        lines.append(_talk(rng, asked, _one(rng, "ad answered", {"value": ad[field]})))
    return "\n".join(lines)


@_writes(6)
def _ads_noted(rng: random.Random) -> str:
    ad, text = train_ad(rng)
    fields = rng.sample(world.FIELDS, rng.randint(2, 6))
    arrow = rng.choice([" → ", ": ", " = ", " "])
    return "\n".join([text, "메모", *(f"{field}{arrow}{ad[field]}" for field in fields)])


def train_event(rng: random.Random, family: str, draw=world.draw_event) -> world.Event:
    """An event that no held-out task of the family is about."""
    while world.is_heldout(family, (event := draw(rng)).key):
        pass
    return event


def train_story(rng: random.Random) -> tuple[str, dict[str, str]]:
    """A story from the training side, and who did what where in it."""
    text = world.story(train_event(rng, "summary", world.draw_visit), rng)
    found = world.STORY.search(text).groupdict()
    return text, {**found, "did": found["did"].removesuffix("습니다.")}


@_writes(8)
def _stories(rng: random.Random) -> str:
    text, slots = train_story(rng)
    after = _worded(rng, "story after", slots)
    return "\n".join([text, *rng.sample(after, rng.randint(1, 3))])


@_writes(9, (1, 3))
def _speech(rng: random.Random) -> str:
    said = world.casual(train_event(rng, "politeness"), rng)
    return _one(rng, "speech", {"said": said, "high": world.polite(said)})


@_writes(4, (1, 4))
def _casual_chat(rng: random.Random) -> str:
    """반말 that goes on in 반말: a casual sentence alone must not call for a polite one."""
    said = world.casual(train_event(rng, "politeness"), rng)
    return _talk(rng, said, rng.choice(WORDINGS["casual replies"]))


@_writes(14, (1, 4))
def _english(rng: random.Random) -> str:
    event = train_event(rng, "translation")
    return _one(rng, "english", {"ko": event.plain(), "en": event.english()})


@_writes(3)
def _diary(rng: random.Random) -> str:
    """Plain sentences in a row: a Korean sentence alone must not call for English."""
    sentences = [train_event(rng, "translation") for _ in range(rng.randint(2, 5))]
    return "\n".join(event.plain() for event in sentences)


def train_review(rng: random.Random, good: bool) -> str:
    """A review from the training side."""
    while world.is_heldout("sentiment", text := world.review(rng, good)):
        pass
    return text


def train_list(rng: random.Random, family: str, low: int, high: int) -> list[str]:
    """A list from the training side."""
    while world.is_heldout(family, ", ".join(things := world.draw_list(rng, low, high))):
        pass
    return things


@_writes(9, (1, 3))
def _reviews(rng: random.Random) -> str:
    good = rng.random() < 0.5
    slots = {"text": train_review(rng, good)}
    of_this_kind = WORDINGS["good review" if good else "bad review"]
    slots |= {who: rng.choice(of_this_kind[who]) for who in ("owner", "friend")}
    return _one(rng, "review", slots | of_this_kind["words"])


@_writes(9, (1, 4))
def _counts(rng: random.Random) -> str:
    things = train_list(rng, "counting", 2, 9)
    numbered = " ".join(f"{i}번 {thing}" for i, thing in enumerate(things, 1))
    slots = {"text": ", ".join(things), "n": len(things), "numbered": numbered}
    return _one(rng, "count", slots)


@_writes(9, (1, 4))
def _reversals(rng: random.Random) -> str:
    things = train_list(rng, "reversal", 2, 6)
    return _one(rng, "reversal", {"there": ", ".join(things), "back": ", ".join(things[::-1])})


def train_sum(rng: random.Random) -> tuple[int, int, int]:
    """(a, b, sign) from the training side."""
    while True:
        a, b, sign = world.draw_sum(rng)
        if not world.is_heldout("arithmetic", f"{a} {sign} {b}"):
            return a, b, sign


@_writes(9)
def _sums(rng: random.Random) -> str:
    between, sums = rng.choice(["\n", ", "]), []
    for _ in range(rng.randint(6, 14)):
        a, b, sign = train_sum(rng)
        sums.append(f"{a}{'+' if sign > 0 else '-'}{b}={a + sign * b}")
    return between.join(sums)


@_writes(12, (2, 5))
def _sums_told(rng: random.Random) -> str:
    a, b, sign = train_sum(rng)
    slots = {"a": a, "b": b, "c": a + sign * b, "thing": rng.choice(facts()["countable"])}
    plus, minus = (_worded(rng, name, slots) for name in ("plus", "minus"))
    return rng.choice(plus if sign > 0 else minus)


def train_deposits(rng: random.Random) -> dict[str, str | int]:
    """Two homes and their deposits, from the training side, and which is low and which high."""
    while True:
        first, a, second, b = world.draw_deposits(rng)
        if not world.is_heldout("comparison", f"{a}/{b}"):
            low, high = (first, second) if a < b else (second, first)
            return {"first": first, "a": a, "second": second, "b": b, "low": low, "high": high,
                    "least": min(a, b), "most": max(a, b)}  # fmt: skip


@_writes(9, (2, 4))
def _deposits(rng: random.Random) -> str:
    return _one(rng, "deposits", train_deposits(rng))


@_writes(9, (1, 4))
def _copying(rng: random.Random) -> str:
    text = rng.choice([
        lambda: rng.choice(facts()["sayings"]),
        lambda: ", ".join(world.draw_list(rng, 2, 7)),
        lambda: world.draw_event(rng).plain(),
        lambda: train_review(rng, rng.random() < 0.5),
        lambda: " ".join(str(rng.randint(1, 9999)) for _ in range(rng.randint(1, 5))),
        lambda: rng.choice(list(facts()["terms"].values())),
        lambda: " ".join(rng.sample(facts()["homes"], rng.randint(1, 3))),
    ])()
    return _one(rng, "copy", {"text": text})


@_writes(5)
def _pairs(rng: random.Random) -> str:
    """A private code that holds for one page: reading the page is the only way to know it."""
    things = rng.sample(facts()["items"], rng.randint(3, 5))
    signs = rng.sample(facts()["homes"] + facts()["people"], len(things))
    code = dict(zip(things, signs, strict=True))
    lines = [f"{thing} = {code[thing]}" for thing in things]
    again = rng.sample(things, len(things))
    asked = [_talk(rng, f"{thing}?", f"{code[thing]}.") for thing in again]
    return "\n".join(lines + asked)


@_writes(5)
def _sayings(rng: random.Random) -> str:
    return " ".join(rng.sample(facts()["sayings"], rng.randint(2, 5)))


@_writes(3)
def _about_words(rng: random.Random) -> str:
    return " ".join(rng.sample(WORDINGS["about words"], rng.randint(1, 3)))
