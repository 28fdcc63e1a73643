"""A small Korean world whose every question has one right answer.

Towns lie in provinces, homes have rents, people buy apples: enough to write documents that a tiny
model can learn from, and to ask it twelve families of questions in Alpaca's form. Because the
world is closed, `solve` knows the truth, and filters, tuned models and judges can be checked
against it. It is a simulation: nothing it says about a model holds for a real one.

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

import yaml

from course_utils import CourseError
from course_utils.tasks import Task

HERE = Path(__file__).parent


class Unsolvable(CourseError):
    """The text is no task of this world, so this world knows no answer to it."""


@cache
def facts() -> dict:
    """Towns, terms, words and wordings: `facts.yaml` and `lexicon.yaml` as one dictionary."""
    merged: dict = {}
    for name in ("facts.yaml", "lexicon.yaml"):
        merged |= yaml.safe_load((HERE / name).read_text(encoding="utf-8"))
    return merged


# --- Korean -----------------------------------------------------------------------------------

PARTICLES = {
    "은": "는",
    "이": "가",
    "을": "를",
    "과": "와",
    "으로": "로",
    "이라는": "라는",
    "이라고": "라고",
    "이란": "란",
    "이에요": "예요",
    "이야": "야",
    "이다": "다",
    "이래": "래",
    "이란다": "란다",
    "이지": "지",
    "이고": "고",
}
"""Each particle after a final consonant -> its form after a vowel."""


def josa(word: str, particle: str) -> str:
    """The word with the form of the particle that its last sound asks for.

    >>> josa("사과", "은"), josa("귤", "은"), josa("서울", "으로")
    ('사과는', '귤은', '서울로')
    """
    final = (ord(word[-1]) - ord("가")) % 28 if "가" <= word[-1] <= "힣" else 0
    closed = final and not (particle == "으로" and final == 8)  # ㄹ takes 로
    return word + (particle if closed else PARTICLES[particle])


# --- Families ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Draft:
    """One question before it has words: `key` decides the split, `slots` go into the wording."""

    key: str
    input: str
    slots: dict[str, str]


@dataclass(frozen=True)
class Family:
    """A kind of task: how a question is drawn, and how any question of it is answered."""

    name: str
    title_ko: str
    title_en: str
    draw: Callable[[random.Random], Draft]
    answer: Callable[[dict[str, str], str], str]


FAMILIES: dict[str, Family] = {}


def _family(name: str, title_ko: str, title_en: str, draw: Callable) -> Callable:
    def register(answer: Callable) -> Callable:
        FAMILIES[name] = Family(name, title_ko, title_en, draw, answer)
        return answer

    return register


@dataclass(frozen=True)
class Event:
    """Somebody does something somewhere: what stories, translations and 반말 are made of."""

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
        times = f["future_times"] if self.future else f["past_times"]
        did = f"will {verb['verb']}" if self.future else verb["did"]
        place = f["places"].get(self.place, "")
        words = [f["subjects"][self.subject], did, verb["objects"][self.object], place]
        return " ".join(filter(None, [*words, times[self.time]])) + "."


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


CASUAL_SUBJECTS = {
    "나는": "저는", "내가": "제가", "나도": "저도", "우리는": "저희는", "우리도": "저희도",
}  # fmt: skip
CASUAL_ENDINGS = {False: ["어.", "거든."], True: [" 거야.", "래.", "게."]}


def casual(event: Event, rng: random.Random) -> str:
    """The event told to a friend in 반말; its own subject gives way to 나 or 우리."""
    return event.words(rng.choice(list(CASUAL_SUBJECTS)), rng.choice(CASUAL_ENDINGS[event.future]))


def polite(sentence: str) -> str:
    """반말 into 해요체, for the sentences of this world; raises Unsolvable for another one.

    >>> polite("나는 내일 시장에서 사과를 살 거야.")
    '저는 내일 시장에서 사과를 살 거예요.'
    """
    subject, _, rest = sentence.partition(" ")
    endings = [e for kind in CASUAL_ENDINGS.values() for e in kind]
    if subject not in CASUAL_SUBJECTS or not rest.endswith(tuple(endings)):
        raise Unsolvable(f"Not a sentence in 반말 of this world: {sentence!r}.")
    told = rest.removesuffix(".").replace("거야", "거예")
    return f"{CASUAL_SUBJECTS[subject]} {told}요."


def _draw_politeness(rng: random.Random) -> Draft:
    event = draw_event(rng)
    return Draft(event.key, casual(event, rng), {})


@_family("politeness", "반말을 존댓말로", "Casual to polite", _draw_politeness)
def _answer_politeness(slots: dict[str, str], text: str) -> str:
    return polite(text)


def story(event: Event, rng: random.Random) -> str:
    """Four sentences, of which the middle two carry the event."""
    f = facts()
    name = rng.choice(f["people"])
    there = rng.choice(["거기에서", "그곳에서"])
    went = f"{josa(name, '은')} {event.place}에 갔습니다."
    verb = f["activities"][event.stem]["past"]
    did = f"{there} {josa(event.object, '을')} {verb}습니다."
    return " ".join([rng.choice(f["story_openings"]), went, did, rng.choice(f["story_endings"])])


def draw_visit(rng: random.Random) -> Event:
    """A past event at a place one can go to."""
    while not (event := draw_event(rng, future=False)).place or event.place in ("집", "부엌"):
        pass
    return event


def _draw_summary(rng: random.Random) -> Draft:
    event = draw_visit(rng)
    return Draft(event.key, story(event, rng), {})


STORY = re.compile(
    r"(?P<name>[가-힣]+?)[은는] (?P<place>[가-힣 ]+?)에 갔습니다\. "
    r"(?:거기|그곳)에서 (?P<did>[^.]+\.)"
)


@_family("summary", "한 문장 요약", "One-sentence summary", _draw_summary)
def _answer_summary(slots: dict[str, str], text: str) -> str:
    if not (found := STORY.search(text)):
        raise Unsolvable("The story does not say who went where and did what.")
    return f"{josa(found['name'], '이')} {found['place']}에서 {found['did']}"


def _draw_translation(rng: random.Random) -> Draft:
    event = draw_event(rng)
    return Draft(event.key, event.plain(), {})


@_family("translation", "한국어를 영어로", "Korean to English", _draw_translation)
def _answer_translation(slots: dict[str, str], text: str) -> str:
    event = read_event(text)
    return event.english()


@cache
def _event_pattern() -> re.Pattern:
    f = facts()
    times = "|".join([*f["past_times"], *f["future_times"]])
    places = "|".join(f["places"])
    subjects = "|".join(f["subjects"])
    return re.compile(
        rf"(?P<subject>{subjects})[은는] (?P<time>{times}) (?:(?P<place>{places})에서 )?"
        r"(?P<object>[가-힣]+)[을를] (?P<verb>.+?)(?P<end>다| 것이다)\."
    )


def read_event(text: str) -> Event:
    """`Event.plain` backwards; raises Unsolvable for a sentence that it did not write."""
    if found := _event_pattern().fullmatch(text):
        future = found["end"] != "다"
        for stem, verb in facts()["activities"].items():
            form = verb["future" if future else "past"]
            if form == found["verb"] and found["object"] in verb["objects"]:
                place = found["place"] or ""
                event = (found["subject"], found["time"], place, found["object"], stem, future)
                return Event(*event)
    raise Unsolvable(f"Not a sentence of this world: {text!r}.")


def review(rng: random.Random, positive: bool) -> str:
    """A neutral first sentence and two remarks of one polarity, all about one kind of thing."""
    reviews = facts()["reviews"]
    kind = rng.randrange(3)  # things bought, eating out, staying somewhere: a third of each list
    first, remarks = (
        lines[kind * len(lines) // 3 : (kind + 1) * len(lines) // 3]
        for lines in (reviews["subjects"], reviews["positive" if positive else "negative"])
    )
    return " ".join([rng.choice(first), *rng.sample(remarks, 2)])


def _draw_sentiment(rng: random.Random) -> Draft:
    text = review(rng, rng.random() < 0.5)
    return Draft(text, text, {})


@_family("sentiment", "후기의 감정", "Sentiment of a review", _draw_sentiment)
def _answer_sentiment(slots: dict[str, str], text: str) -> str:
    found = {p: sum(r in text for r in facts()["reviews"][p]) for p in ("positive", "negative")}
    if bool(found["positive"]) == bool(found["negative"]):
        raise Unsolvable("The review holds no remark of this world, or remarks of both kinds.")
    return f"{'긍정' if found['positive'] else '부정'}적인 후기입니다."


def draw_list(rng: random.Random, low: int, high: int) -> list[str]:
    """Between `low` and `high` different things."""
    return rng.sample(facts()["items"], rng.randint(low, high))


def _draw_counting(rng: random.Random) -> Draft:
    text = ", ".join(draw_list(rng, 3, 8))
    return Draft(text, text, {})


def _read_list(text: str) -> list[str]:
    things = text.split(", ")
    if len(things) < 2:
        raise Unsolvable(f"Not a list of things divided by commas: {text!r}.")
    return things


@_family("counting", "목록 세기", "Counting a list", _draw_counting)
def _answer_counting(slots: dict[str, str], text: str) -> str:
    return f"모두 {len(_read_list(text))}개입니다."


def _draw_entity(table: str, slot: str) -> Callable[[random.Random], Draft]:
    def draw(rng: random.Random) -> Draft:
        name = rng.choice(list(facts()[table]))
        return Draft(name, name, {slot: name})

    return draw


def _look_up(table: str, name: str):
    if name not in facts()[table]:
        raise Unsolvable(f"{name!r} is not among the {table} of this world.")
    return facts()[table][name]


@_family("province", "고장이 속한 도", "Province of a town", _draw_entity("towns", "town"))
def _answer_province(slots: dict[str, str], text: str) -> str:
    return f"{_look_up('towns', slots.get('town', text))[0]}입니다."


@_family("speciality", "고장의 특산물", "Speciality of a town", _draw_entity("towns", "town"))
def _answer_speciality(slots: dict[str, str], text: str) -> str:
    return f"{_look_up('towns', slots.get('town', text))[1]}입니다."


@_family("definition", "부동산 용어 뜻", "Definition of a term", _draw_entity("terms", "term"))
def _answer_definition(slots: dict[str, str], text: str) -> str:
    return f"{_look_up('terms', slots.get('term', text))}입니다."


FIELDS = ["보증금", "월세", "관리비", "층수", "방 개수", "위치"]


def draw_ad(rng: random.Random) -> dict[str, str]:
    """The fields of a rental advertisement, and the home's name."""
    f = facts()
    return {
        "집": rng.choice(f["homes"]),
        "위치": rng.choice(list(f["towns"])),
        "층수": f"{rng.randint(1, 15)}층",
        "방 개수": f"{rng.randint(1, 4)}개",
        "보증금": f"{rng.randint(3, 50) * 100}만 원",
        "월세": f"{rng.randint(20, 99)}만 원",
        "관리비": f"{rng.randint(3, 19)}만 원",
    }


def advertisement(ad: dict[str, str], rng: random.Random) -> str:
    """One of three layouts in which such advertisements appear."""
    layout = rng.randrange(3)
    if layout == 0:
        fields = [f"{name}: {ad[name]}" for name in rng.sample(FIELDS, len(FIELDS))]
        return f"{ad['집']} / " + " / ".join(fields)
    if layout == 1:
        return (
            f"{ad['위치']}에 있는 {ad['집']}입니다. {ad['층수']}이고 방은 {ad['방 개수']}입니다. "
            f"보증금 {ad['보증금']}에 월세 {ad['월세']}이고 관리비는 {ad['관리비']}입니다."
        )
    rooms = f"{ad['집']} {ad['층수']}, 방 {ad['방 개수']}"
    costs = f"보증금 {ad['보증금']}, 월세 {ad['월세']}, 관리비 {ad['관리비']}"
    return f"[{ad['위치']}] {rooms}, {costs}"


AD_FIELDS = {
    "위치": re.compile(r"위치: ([가-힣]+)|^([가-힣]+)에 있는|^\[([가-힣]+)\]"),
    "층수": re.compile(r"(\d+층)"),
    "방 개수": re.compile(r"방(?: 개수:|은)? (\d+개)"),
    "보증금": re.compile(r"보증금:? (\d+만 원)"),
    "월세": re.compile(r"월세:? (\d+만 원)"),
    "관리비": re.compile(r"관리비[:는]? (\d+만 원)"),
}


def _draw_extraction(rng: random.Random) -> Draft:
    ad = draw_ad(rng)
    text = advertisement(ad, rng)
    return Draft(text, text, {"field": rng.choice(FIELDS)})


@_family("extraction", "광고에서 찾기", "Field of an advertisement", _draw_extraction)
def _answer_extraction(slots: dict[str, str], text: str) -> str:
    if not (found := AD_FIELDS[slots["field"]].search(text)):
        raise Unsolvable(f"The advertisement does not give the field {slots['field']}.")
    return f"{next(filter(None, found.groups()))}입니다."


PROBLEMS = [
    ("{i이} {a}개 있었습니다. {b}개를 더 샀습니다. 모두 몇 개입니까?", 1),
    ("{i을} 아침에 {a}개, 저녁에 {b}개 팔았습니다. 모두 몇 개 팔았습니까?", 1),
    ("상자에 {i이} {a}개 있고 바구니에 {b}개 있습니다. 합하면 몇 개입니까?", 1),
    ("{i이} {a}개 있었습니다. 그중 {b}개를 나누어 주었습니다. 몇 개 남았습니까?", -1),
    ("{i을} {a}개 샀는데 {b}개를 잃어버렸습니다. 몇 개 남았습니까?", -1),
]
"""Word problems and the sign of their second number."""


def draw_sum(rng: random.Random) -> tuple[int, int, int]:
    """(a, b, sign) with two-digit a and b and a result from 1 to 99."""
    while True:
        a, b, sign = rng.randint(10, 89), rng.randint(10, 89), rng.choice([1, -1])
        if 0 < a + sign * b < 100:
            return a, b, sign


def fill(text: str, slots: dict[str, str]) -> str:
    """Put slots into a wording: {town} plainly, {town은} with its particle."""

    def put(found: re.Match) -> str:
        word = str(slots[found[1]])
        return josa(word, found[2]) if found[2] else word

    return re.sub(r"\{([a-z]+)([가-힣]*)\}", put, text)


def problem(a: int, b: int, sign: int, rng: random.Random) -> str:
    """A word problem with these numbers."""
    text = rng.choice([text for text, s in PROBLEMS if s == sign])
    things = [thing for thing in facts()["countable"] if thing not in text]  # no box in a box
    return fill(text, {"i": rng.choice(things), "a": a, "b": b})


def _draw_arithmetic(rng: random.Random) -> Draft:
    a, b, sign = draw_sum(rng)
    return Draft(f"{a} {sign} {b}", problem(a, b, sign, rng), {})


@_family("arithmetic", "문장제 계산", "Word problems", _draw_arithmetic)
def _answer_arithmetic(slots: dict[str, str], text: str) -> str:
    numbers = [int(n) for n in re.findall(r"\d+", text)]
    if len(numbers) != 2:
        raise Unsolvable(f"Not a problem with two numbers: {text!r}.")
    sign = -1 if "남았" in text else 1
    return f"{numbers[0] + sign * numbers[1]}개입니다."


def draw_deposits(rng: random.Random) -> tuple[str, int, str, int]:
    """Two homes and their different deposits, in units of 10,000 won."""
    first, second = rng.sample(facts()["homes"], 2)
    a, b = rng.sample(range(1000, 10000, 100), 2)
    return first, a, second, b


def _draw_comparison(rng: random.Random) -> Draft:
    first, a, second, b = draw_deposits(rng)
    text = f"{first}의 보증금은 {a}만 원, {second}의 보증금은 {b}만 원입니다."
    return Draft(f"{a}/{b}", text, {})


DEPOSIT = re.compile(r"([가-힣]+)의 보증금은 (\d+)만 원")


@_family("comparison", "보증금 비교", "Comparing deposits", _draw_comparison)
def _answer_comparison(slots: dict[str, str], text: str) -> str:
    homes = DEPOSIT.findall(text)
    if len(homes) != 2:
        raise Unsolvable(f"Not two homes with their deposits: {text!r}.")
    return f"{min(homes, key=lambda home: int(home[1]))[0]}입니다."


def _draw_reversal(rng: random.Random) -> Draft:
    text = ", ".join(draw_list(rng, 3, 5))
    return Draft(text, text, {})


@_family("reversal", "목록 뒤집기", "Reversing a list", _draw_reversal)
def _answer_reversal(slots: dict[str, str], text: str) -> str:
    return ", ".join(reversed(_read_list(text)))


# --- Tasks ------------------------------------------------------------------------------------


def is_heldout(family: str, key: str) -> bool:
    """Whether a question belongs to the held-out quarter, decided by its hash alone."""
    return hashlib.sha256(f"{family}:{key}".encode()).digest()[0] % 4 == 0


def draw(family: str, rng: random.Random, *, heldout: bool) -> Draft:
    """A question of the family from one side of the split."""
    while True:
        draft = FAMILIES[family].draw(rng)
        if is_heldout(family, draft.key) == heldout:
            return draft


def _task(family: str, draft: Draft, wordings: str, rng: random.Random) -> Task:
    f = facts()
    wording = rng.randrange(len(f["wordings"][family][wordings]))
    core = f["wordings"][family][wordings][wording]
    # A wording with a slot for the town or the term holds the whole question.
    named = "{" in core and draft.input in draft.slots.values()
    instruction = fill(core, draft.slots)
    if rng.random() < 0.8:
        instruction = f"{rng.choice(f['openers'][family][wordings])} {instruction}"
    meta = {"family": family, "wording": wording}
    answer = FAMILIES[family].answer(draft.slots, draft.input)
    return Task(instruction, "" if named else draft.input, answer, meta)


def sample_tasks(
    n: int, split: str = "train", seed: int = 0, family: str | None = None, wordings: str = "train"
) -> list[Task]:
    """Draw n tasks, families in turn, the same for the same arguments; they may repeat.

    split is "train" or "heldout", wordings "train" or "unseen". meta holds the family's name and
    the number of the wording.
    """
    rng = random.Random(f"{split}/{wordings}/{seed}/{family}")
    names = [family] if family else list(FAMILIES)
    if not family:
        rng.shuffle(names)
    chosen = [names[i % len(names)] for i in range(n)]
    return [_task(f, draw(f, rng, heldout=split == "heldout"), wordings, rng) for f in chosen]


def heldout_tasks(per_family: int = 30, seed: int = 0, wordings: str = "train") -> list[Task]:
    """Evaluation tasks, all different, about entities or combinations never trained on."""
    tasks = []
    for family in FAMILIES:
        pool = sample_tasks(per_family * 8, "heldout", seed, family, wordings)
        different = {(t.instruction, t.input): t for t in pool}
        tasks += list(different.values())[:per_family]
    return tasks


# --- Truth ------------------------------------------------------------------------------------


@cache
def _patterns() -> list[tuple[re.Pattern, str]]:
    f = facts()
    names = {"town": f["towns"], "term": f["terms"], "field": FIELDS}

    def slot(found: re.Match) -> str:
        particle = found[2] and f"(?:{found[2]}|{PARTICLES[found[2]]})"
        longest_first = sorted(names[found[1]], key=len, reverse=True)
        return f"(?P<{found[1]}>{'|'.join(longest_first)}){particle}"

    patterns = []
    for family in FAMILIES:
        for core in [*f["wordings"][family]["train"], *f["wordings"][family]["unseen"]]:
            escaped = re.sub(r"[.?()*+]", r"\\\g<0>", core)
            patterns.append((re.compile(re.sub(r"\{([a-z]+)([가-힣]*)\}", slot, escaped)), family))
    return patterns


def _read(instruction: str) -> tuple[str, dict[str, str]]:
    for pattern, family in _patterns():
        openers = facts()["openers"][family]
        if found := pattern.search(instruction):
            before, after = instruction[: found.start()], instruction[found.end() :]
            if not after and (not before or before[:-1] in openers["train"] + openers["unseen"]):
                return family, found.groupdict()
    raise Unsolvable(f"No task of this world asks: {instruction!r}.")


def family_of(instruction: str, input: str = "") -> str | None:
    """The family a question belongs to, or None when it is not of this world."""
    try:
        return _read(instruction)[0]
    except Unsolvable:
        return None


def solve(instruction: str, input: str = "") -> str:
    """The one right answer to a task of this world; raises Unsolvable for any other text."""
    family, slots = _read(instruction)
    return FAMILIES[family].answer(slots, input)
