"""A small Korean world whose every question has one right answer.

Towns lie in provinces, homes have rents, people buy apples: enough to write documents that a tiny
model can learn from, and to ask it twelve families of questions in Alpaca's form. `solve` knows the
truth, so filters, tuned models and judges can be checked against it. It is a simulation: nothing it
says about a model holds for a real one.

>>> solve("다음 목록의 순서를 거꾸로 바꿔 주세요.", "사과, 배, 감")
'감, 배, 사과'
"""

import hashlib
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

import yaml

from course_utils import CourseError
from course_utils.tasks import Task

SLOT = r"\{([a-z]+)([가-힣]*)\}"  # {town} or {town은} in a wording


class Unsolvable(CourseError):
    """The text is no task of this world, so this world knows no answer to it."""


@cache
def facts() -> dict:
    """Towns, terms, words and wordings: the YAML files of this folder as one dictionary."""
    files = sorted(Path(__file__).parent.glob("*.yaml"))
    return yaml.safe_load("\n".join(file.read_text(encoding="utf-8") for file in files))


def josa(word: str, particle: str) -> str:
    """The word with the form of the particle that its last sound asks for.

    >>> josa("사과", "은"), josa("귤", "은"), josa("서울", "으로")
    ('사과는', '귤은', '서울로')
    """
    final = (ord(word[-1]) - ord("가")) % 28 if "가" <= word[-1] <= "힣" else 0
    closed = final and not (particle == "으로" and final == 8)  # ㄹ takes 로
    return word + (particle if closed else facts()["particles"][particle])


def fill(text: str, slots: dict[str, str]) -> str:
    """Put slots into a wording: {town} plainly, {town은} with its particle."""
    def put(found: re.Match) -> str:
        word = str(slots[found[1]])
        return josa(word, found[2]) if found[2] else word

    return re.sub(SLOT, put, text)


@dataclass(frozen=True)
class Event:
    """Somebody does something somewhere: stories, translations and 반말 are made of it."""

    subject: str
    time: str
    place: str
    object: str
    stem: str
    future: bool

    @property
    def key(self) -> str:
        """What makes two events the same for the split: place, object and verb."""
        return f"{self.place}/{self.object}/{self.stem}"

    def words(self, subject: str, ending: str) -> str:
        """The Korean sentence: `ending` follows the past stem, or the future form."""
        verb = facts()["activities"][self.stem]["future" if self.future else "past"] + ending
        place = self.place and self.place + "에서"
        return " ".join(filter(None, [subject, self.time, place, josa(self.object, "을"), verb]))

    def plain(self) -> str:
        """As it stands in a diary: 나는 어제 시장에서 사과를 샀다."""
        return self.words(josa(self.subject, "은"), " 것이다." if self.future else "다.")

    def english(self) -> str:
        """The one English rendering: I bought apples at the market yesterday."""
        f = facts()
        verb = f["activities"][self.stem]
        did = f"will {verb['verb']}" if self.future else verb["did"]
        words = [f["subjects"][self.subject], did, verb["objects"][self.object],
                 f["places"].get(self.place), (f["past_times"] | f["future_times"])[self.time]]
        return " ".join(filter(None, words)) + "."


def draw_event(rng: random.Random, future: bool | None = None) -> Event:
    """Any event of the world, uniformly over verbs."""
    f = facts()
    stem = rng.choice(list(f["activities"]))
    verb = f["activities"][stem]
    future = rng.random() < 0.4 if future is None else future
    times = f["future_times"] if future else f["past_times"]
    place = rng.choice(verb["places"]) if verb["places"] else ""
    subject, time = rng.choice(list(f["subjects"])), rng.choice(list(times))
    return Event(subject, time, place, rng.choice(list(verb["objects"])), stem, future)


def draw_visit(rng: random.Random) -> Event:
    """A past event at a place one can go to."""
    while (event := draw_event(rng, future=False)).place in ("", "집", "부엌"):
        pass
    return event


def _translate(text: str) -> str | None:
    """`Event.plain` backwards, then in English."""
    f = facts()
    subjects, times = "|".join(f["subjects"]), "|".join([*f["past_times"], *f["future_times"]])
    place = rf"(?:({'|'.join(f['places'])})에서 )?"
    plain = rf"({subjects})[은는] ({times}) {place}([가-힣]+)[을를] (.+?)(다| 것이다)\."
    if found := re.fullmatch(plain, text):
        subject, time, place, thing, form, end = found.groups()
        future = end != "다"
        for stem, verb in f["activities"].items():
            if verb["future" if future else "past"] == form and thing in verb["objects"]:
                return Event(subject, time, place or "", thing, stem, future).english()
    return None


def casual(event: Event, rng: random.Random) -> str:
    """The event told to a friend in 반말; its own subject gives way to 나 or 우리."""
    casual = facts()["casual"]
    endings = casual["future" if event.future else "past"]
    return event.words(rng.choice(list(casual["subjects"])), rng.choice(endings))


def polite(sentence: str) -> str | None:
    """반말 into 해요체, for the sentences of this world.

    >>> polite("나는 내일 시장에서 사과를 살 거야.")
    '저는 내일 시장에서 사과를 살 거예요.'
    """
    subject, _, rest = sentence.partition(" ")
    casual = facts()["casual"]
    endings = (*casual["past"], *casual["future"])
    if subject not in casual["subjects"] or not rest.endswith(endings):
        return None
    told = rest.removesuffix(".").replace("거야", "거예")
    return f"{casual['subjects'][subject]} {told}요."


def story(event: Event, rng: random.Random) -> str:
    """Four sentences, of which the middle two carry the event."""
    f = facts()
    went = f"{josa(rng.choice(f['people']), '은')} {event.place}에 갔습니다."
    there, verb = rng.choice(["거기에서", "그곳에서"]), f["activities"][event.stem]["past"]
    did = f"{there} {josa(event.object, '을')} {verb}습니다."
    return " ".join([rng.choice(f["story_openings"]), went, did, rng.choice(f["story_endings"])])


STORY = re.compile(r"(?P<name>[가-힣]+?)[은는] (?P<place>[가-힣 ]+?)에 갔습니다\. "
                   r"(?:거기|그곳)에서 (?P<did>[^.]+\.)")


def _sum_up(text: str) -> str | None:
    found = STORY.search(text)
    return found and f"{josa(found['name'], '이')} {found['place']}에서 {found['did']}"


def review(rng: random.Random, positive: bool) -> str:
    """A neutral first sentence and two remarks of one polarity, all about one kind of thing."""
    reviews = facts()["reviews"]
    kind = rng.randrange(3)  # things bought, eating out, staying somewhere: a third of each list
    lists = reviews["subjects"], reviews["positive" if positive else "negative"]
    first, remarks = (lines[kind * len(lines) // 3 : (kind + 1) * len(lines) // 3]
                      for lines in lists)
    return " ".join([rng.choice(first), *rng.sample(remarks, 2)])


def _sentiment(text: str) -> str | None:
    good, bad = (any(remark in text for remark in facts()["reviews"][kind])
                 for kind in ("positive", "negative"))
    return None if good == bad else f"{'긍정' if good else '부정'}적인 후기입니다."


def draw_list(rng: random.Random, low: int, high: int) -> list[str]:
    """Between `low` and `high` different things."""
    return rng.sample(facts()["items"], rng.randint(low, high))


AD_FIELDS = {
    "보증금": re.compile(r"보증금:? (\d+만 원)"),
    "월세": re.compile(r"월세:? (\d+만 원)"),
    "관리비": re.compile(r"관리비[:는]? (\d+만 원)"),
    "층수": re.compile(r"(\d+층)"),
    "방 개수": re.compile(r"방(?: 개수:|은)? (\d+개)"),
    "위치": re.compile(r"위치: ([가-힣]+)|^([가-힣]+)에 있는|^\[([가-힣]+)\]"),
}
FIELDS = list(AD_FIELDS)


def draw_ad(rng: random.Random) -> dict[str, str]:
    """The fields of a rental advertisement, and the home's name."""
    return {"집": rng.choice(facts()["homes"]), "위치": rng.choice(list(facts()["towns"])),
            "층수": f"{rng.randint(1, 15)}층", "방 개수": f"{rng.randint(1, 4)}개",
            "보증금": f"{rng.randint(3, 50) * 100}만 원", "월세": f"{rng.randint(20, 99)}만 원",
            "관리비": f"{rng.randint(3, 19)}만 원"}


def advertisement(ad: dict[str, str], rng: random.Random) -> str:
    """One of three layouts in which such advertisements appear."""
    if layout := rng.randrange(3):
        return facts()["advertisements"][layout - 1].format(**ad)
    return " / ".join([ad["집"], *(f"{name}: {ad[name]}" for name in rng.sample(FIELDS, 6))])


def _find_field(text: str, field: str) -> str | None:
    found = AD_FIELDS[field].search(text)
    return found and f"{next(filter(None, found.groups()))}입니다."


def draw_deposits(rng: random.Random) -> tuple[str, int, str, int]:
    """Two homes and their different deposits, in units of 10,000 won."""
    first, second = rng.sample(facts()["homes"], 2)
    a, b = rng.sample(range(1000, 10000, 100), 2)
    return first, a, second, b


def _lower_deposit(text: str) -> str | None:
    homes = re.findall(r"([가-힣]+)의 보증금은 (\d+)만 원", text)
    lower = min(homes, key=lambda home: int(home[1]), default=None)
    return f"{lower[0]}입니다." if len(homes) == 2 else None


def draw_sum(rng: random.Random) -> tuple[int, int, int]:
    """(a, b, sign) with two-digit a and b and a result from 1 to 99."""
    while True:
        a, b, sign = rng.randint(10, 89), rng.randint(10, 89), rng.choice([1, -1])
        if 0 < a + sign * b < 100:
            return a, b, sign


def _work_out(text: str) -> str | None:
    numbers = [int(n) for n in re.findall(r"\d+", text)]
    if len(numbers) != 2:
        return None
    return f"{numbers[0] + (-1 if '남았' in text else 1) * numbers[1]}개입니다."


class Draft(NamedTuple):
    """One question before it has words: `slots` go into the wording; its key decides the split."""

    input: str
    key: str | None = None  # the input, if it is no other
    slots: dict[str, str] = {}


class Family(NamedTuple):
    """A kind of task: how a question is drawn, and answered: `answer(text, **slots)` or None."""

    title_ko: str
    title_en: str
    draw: Callable[[random.Random], Draft]
    answer: Callable


def _told(draw: Callable, tell: Callable[[Event, random.Random], str]) -> Callable:
    def drawn(rng: random.Random) -> Draft:
        event = draw(rng)
        return Draft(tell(event, rng), event.key)

    return drawn


def _looked_up(title_ko: str, title_en: str, table: str, slot: str, column: int | None) -> Family:
    """A family about the entries of a table: the wording names one, or else the input does."""
    def draw(rng: random.Random) -> Draft:
        name = rng.choice(list(facts()[table]))
        return Draft(name, slots={slot: name})

    def answer(text: str, **slots: str) -> str | None:
        said = facts()[table].get(slots.get(slot, text))
        return said and f"{said if column is None else said[column]}입니다."

    return Family(title_ko, title_en, draw, answer)


def _draw_problem(rng: random.Random) -> Draft:
    a, b, sign = draw_sum(rng)
    text = rng.choice(facts()["problems"]["plus" if sign > 0 else "minus"])
    things = [thing for thing in facts()["countable"] if thing not in text]  # no box in a box
    return Draft(fill(text, {"i": rng.choice(things), "a": a, "b": b}), f"{a} {sign} {b}")


def _draw_comparison(rng: random.Random) -> Draft:
    first, a, second, b = draw_deposits(rng)
    return Draft(f"{first}의 보증금은 {a}만 원, {second}의 보증금은 {b}만 원입니다.", f"{a}/{b}")


FAMILIES = {
    "politeness": Family("반말을 존댓말로", "Casual to polite", _told(draw_event, casual), polite),
    "summary": Family("한 문장 요약", "One-sentence summary", _told(draw_visit, story), _sum_up),
    "translation": Family("한국어를 영어로", "Korean to English",
                          _told(draw_event, lambda event, _: event.plain()), _translate),
    "sentiment": Family("후기의 감정", "Sentiment of a review",
                        lambda rng: Draft(review(rng, rng.random() < 0.5)), _sentiment),
    "counting": Family("목록 세기", "Counting a list",
                       lambda rng: Draft(", ".join(draw_list(rng, 3, 8))),
                       lambda text: ", " in text and f"모두 {text.count(', ') + 1}개입니다."),
    "province": _looked_up("고장이 속한 도", "Province of a town", "towns", "town", 0),
    "speciality": _looked_up("고장의 특산물", "Speciality of a town", "towns", "town", 1),
    "definition": _looked_up("부동산 용어 뜻", "Definition of a term", "terms", "term", None),
    "extraction": Family("광고에서 찾기", "Field of an advertisement",
                         lambda rng: Draft(advertisement(draw_ad(rng), rng),
                                           slots={"field": rng.choice(FIELDS)}), _find_field),
    "arithmetic": Family("문장제 계산", "Word problems", _draw_problem, _work_out),
    "comparison": Family("보증금 비교", "Comparing deposits", _draw_comparison, _lower_deposit),
    "reversal": Family("목록 뒤집기", "Reversing a list",
                       lambda rng: Draft(", ".join(draw_list(rng, 3, 5))),
                       lambda text: ", " in text and ", ".join(reversed(text.split(", ")))),
}


def is_heldout(family: str, key: str) -> bool:
    """Whether a question belongs to the held-out quarter, decided by its hash alone."""
    return hashlib.sha256(f"{family}:{key}".encode()).digest()[0] % 4 == 0


def _draw_task(name: str, heldout: bool, wordings: str, rng: random.Random) -> Task:
    f, family = facts(), FAMILIES[name]
    draft = family.draw(rng)
    while is_heldout(name, draft.key or draft.input) != heldout:
        draft = family.draw(rng)
    number, core = rng.choice(list(enumerate(f["wordings"][name][wordings])))
    # A wording with a slot for the town or the term holds the whole question.
    named = "{" in core and draft.input in draft.slots.values()
    instruction = fill(core, draft.slots)
    if rng.random() < 0.8:
        instruction = f"{rng.choice(f['openers'][name][wordings])} {instruction}"
    answer = family.answer(draft.input, **draft.slots)
    return Task(instruction, "" if named else draft.input, answer,
                {"family": name, "wording": number})


def sample_tasks(n: int, split: str = "train", seed: int = 0, family: str | None = None,
                 wordings: str = "train") -> list[Task]:
    """Draw n tasks, families in turn, the same for the same arguments; they may repeat.

    split is "train" or "heldout", wordings "train" or "unseen"; meta has family and wording.
    """
    rng = random.Random(f"{split}/{wordings}/{seed}/{family}")
    names = [family] if family else list(FAMILIES)
    if not family:
        rng.shuffle(names)
    return [_draw_task(names[i % len(names)], split == "heldout", wordings, rng) for i in range(n)]


def heldout_tasks(per_family: int = 30, seed: int = 0, wordings: str = "train") -> list[Task]:
    """Evaluation tasks, all different, about entities or combinations never trained on."""
    tasks = []
    for family in FAMILIES:
        pool = sample_tasks(per_family * 8, "heldout", seed, family, wordings)
        different = {(task.instruction, task.input): task for task in pool}
        tasks += list(different.values())[:per_family]
    return tasks


@cache
def _patterns() -> list[tuple[re.Pattern, str]]:
    """Every wording as a pattern whose groups are its slots, and the family that it asks for."""
    f = facts()
    names = {"town": f["towns"], "term": f["terms"], "field": FIELDS}

    def slot(found: re.Match) -> str:
        particle = found[2] and f"(?:{found[2]}|{f['particles'][found[2]]})"
        longest_first = sorted(names[found[1]], key=len, reverse=True)
        return f"(?P<{found[1]}>{'|'.join(longest_first)}){particle}"

    patterns = []
    for family in FAMILIES:
        cores, openers = ([*f[kind][family]["train"], *f[kind][family]["unseen"]]
                          for kind in ("wordings", "openers"))
        opener = f"(?:(?:{'|'.join(map(re.escape, openers))}) )?"
        for core in cores:
            escaped = re.sub(r"[.?()*+]", r"\\\g<0>", core)
            patterns.append((re.compile(opener + re.sub(SLOT, slot, escaped)), family))
    return patterns


def solve(instruction: str, input: str = "") -> str:
    """The one right answer to a task of this world; raises Unsolvable for any other text."""
    for pattern, family in _patterns():
        found = pattern.fullmatch(instruction)
        if found and (answer := FAMILIES[family].answer(input, **found.groupdict())):
            return answer
    raise Unsolvable(f"No task of this world asks {instruction!r} of {input!r}.")
