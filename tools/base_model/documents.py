"""What the tiny model reads before anybody instructs it: documents of the micro-world.

Every skill that a task later asks for is exercised here, and never in a task's form: no document
holds a request, a chat turn or a wording of `facts.yaml`. Declarative text alone is not enough:
people in dialogues ask and answer, pupils repeat after their teacher, travellers read a list
backwards. Questions whose answer is a matter of combination (sums, lists, sentences) are drawn
from the training side of the split only; towns and terms are all here, or nobody could know them.
"""

import random
from collections.abc import Callable, Iterator

from course_utils.offline import world
from course_utils.offline.world import facts, josa

Writer = Callable[[random.Random], str]
WRITERS: list[tuple[float, Writer]] = []


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


def _several(rng: random.Random, low: int, high: int, write: Callable[[], str], sep: str) -> str:
    return sep.join(write() for _ in range(rng.randint(low, high)))


# --- Towns ------------------------------------------------------------------------------------


@_writes(7, (2, 5))
def _towns_told(rng: random.Random) -> str:
    town, (province, speciality) = rng.choice(list(facts()["towns"].items()))
    where = [
        f"{josa(town, '은')} {province}에 있는 고장이다.",
        f"{province}에는 {josa(town, '이')} 있다.",
        f"{josa(town, '은')} {province}의 한 고장이다.", f"{town}, {province}.",
    ]
    famous = [
        f"{town} 하면 {josa(speciality, '이')} 먼저 떠오른다.",
        f"이 고장은 예로부터 {josa(speciality, '으로')} 이름났다.",
        f"{josa(town, '은')} {josa(speciality, '으로')} 이름난 곳이다.",
        f"{town}의 자랑은 {josa(speciality, '이다')}.",
        f"장날이면 {town} 장터에 {josa(speciality, '이')} 가득하다.",
    ]
    return rng.choice(where) + " " + rng.choice(famous)


@_writes(9, (2, 4))
def _towns_talked(rng: random.Random) -> str:
    town, (province, speciality) = rng.choice(list(facts()["towns"].items()))
    talks = [
        (f"{josa(town, '이')} 어디쯤이더라?", f"{josa(province, '이지')}."),
        (f"{town}에 간다며? 거기가 어느 쪽이야?", f"{province} 쪽이야."),
        (f"{town} 사람들은 무슨 도에 사는 거야?", f"{province}에 살지."),
        (f"{town}, 그게 어디더라.", f"{province}."),
        (f"{town}에 가면 뭘 사 올까?", f"{josa(speciality, '이지')}."),
        (f"{town} 장터에는 뭐가 많아?", f"{josa(speciality, '이')} 많아."),
        (f"{josa(town, '은')} 뭘로 이름난 데야?", f"{josa(speciality, '으로')} 이름났지."),
        (f"{town} 하면 뭐가 떠올라?", f"{speciality}."),
    ]
    return _talk(rng, *rng.choice(talks))


@_writes(4)
def _towns_noted(rng: random.Random) -> str:
    def one() -> str:
        town, (province, speciality) = rng.choice(list(facts()["towns"].items()))
        return rng.choice([
            f"{town} - {province} - {speciality}", f"앞면 {town} | 뒷면 {province}",
            f"앞면 {town} | 뒷면 {speciality}", f"{town}({province}): {speciality}",
            f"출발 {town}, 도착 {province}의 바다. 손에는 {speciality} 한 상자.",
        ])

    title = rng.choice(["여행 수첩", "낱말 쪽지", "길 위의 기록"])
    return title + "\n" + _several(rng, 3, 7, one, "\n")


# --- Terms ------------------------------------------------------------------------------------


@_writes(5, (2, 4))
def _terms_told(rng: random.Random) -> str:
    term, meaning = rng.choice(list(facts()["terms"].items()))
    return rng.choice([
        f"{josa(term, '이란')} {josa(meaning, '을')} 말한다.",
        f"{josa(term, '은')} {josa(meaning, '이다')}.",
        f"{josa(meaning, '을')} {josa(term, '이라고')} 한다.", f"{term}: {meaning}.",
    ])


@_writes(6, (1, 3))
def _terms_talked(rng: random.Random) -> str:
    term, meaning = rng.choice(list(facts()["terms"].items()))
    talks = [
        (f"{josa(term, '이')} 뭐더라?", f"{josa(meaning, '이지')}."),
        (f"할아버지, {josa(term, '이')} 뭐예요?", f"{josa(meaning, '이란다')}."),
        (f"{josa(term, '이라는')} 말 들어 봤어?", f"응, {josa(meaning, '이야')}."),
        (f"계약서에 {josa(term, '이라고')} 적혀 있네.", f"{josa(meaning, '이래')}."),
        (f"{term}?", f"{meaning}."),
    ]
    return _talk(rng, *rng.choice(talks))


# --- Advertisements ---------------------------------------------------------------------------


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
    fields = rng.sample(world.FIELDS, rng.randint(2, 5))

    def one(field: str) -> str:
        value = ad[field]
        asks = {
            "보증금": ["보증금이 얼마랬지?", "보증금은?", "처음에 맡길 보증금이 꽤 되려나?"],
            "월세": ["달마다 내는 월세는?", "월세가 얼마래?", "월세, 그게 걱정인데."],
            "관리비": ["관리비는?", "관리비가 얼마나 나온대?", "관리비도 따로 있어?"],
            "층수": ["층수는?", "몇 층이래?", "층수가 높아?"],
            "방 개수": ["방 개수는?", "방이 몇 개래?", "방 개수는 넉넉해?"],
            "위치": ["위치는?", "위치가 어디래?", "어디 있는 집이야?"],
        }
        replies = [f"{josa(value, '이래')}.", f"{value}."]
        return _talk(rng, rng.choice(asks[field]), rng.choice(replies))

    return text + "\n" + "\n".join(one(field) for field in fields)


@_writes(6)
def _ads_noted(rng: random.Random) -> str:
    ad, text = train_ad(rng)
    fields = rng.sample(world.FIELDS, rng.randint(2, 6))
    arrow = rng.choice([" → ", ": ", " = ", " "])
    return f"{text}\n메모\n" + "\n".join(f"{field}{arrow}{ad[field]}" for field in fields)


# --- Stories, speech and English --------------------------------------------------------------


def train_event(rng: random.Random, family: str, draw=world.draw_event) -> world.Event:
    """An event that no held-out task of the family is about."""
    while world.is_heldout(family, (event := draw(rng)).key):
        pass
    return event


@_writes(8)
def _stories(rng: random.Random) -> str:
    event = train_event(rng, "summary", world.draw_visit)
    text = world.story(event, rng)
    found = world.STORY.search(text)
    name, place = found["name"], found["place"]
    did = found["did"].removesuffix("습니다.")
    after = [
        f"(집에서) {josa(name, '이')} {place}에서 {did}대.", f"제목: {place}에서 {did}던 {name}",
        f"그날의 주인공 {name}, 간 곳 {place}, {did}다.",
        f"소문: {name} 말이야, {place}에서 {did}다더라.",
        f"일기 한 줄: {josa(name, '은')} {place}에서 {did}다.",
        _talk(rng, f"{josa(name, '이')} 뭘 했대?", f"{place}에서 {did}대."),
        _talk(rng, "누구 이야기야?", f"{name} 이야기지.", "어디에 갔는데?", f"{place}에 갔대."),
    ]
    return text + "\n" + "\n".join(rng.sample(after, rng.randint(1, 3)))


@_writes(9, (1, 3))
def _speech(rng: random.Random) -> str:
    event = train_event(rng, "politeness")
    said = world.casual(event, rng)
    high = world.polite(said)
    return rng.choice([
        f"친구 앞: {said}\n어른 앞: {high}", f"어른 앞: {high}\n친구 앞: {said}",
        f"아이: {said}\n엄마: 할머니께는 다르게 말해야지.\n아이: {high}",
        f"동생에게는 \"{said}\" 선생님께는 \"{high}\"",
        f"선생님께는 \"{high}\" 동생에게는 \"{said}\"",
    ])


@_writes(4, (1, 4))
def _casual_chat(rng: random.Random) -> str:
    """반말 that goes on in 반말: a casual sentence alone must not call for a polite one."""
    said = world.casual(train_event(rng, "politeness"), rng)
    replies = ["그래?", "와, 좋겠다.", "나도 같이 갈걸.", "정말?", "재미있었겠네.", "그렇구나."]
    return _talk(rng, said, rng.choice(replies))


@_writes(14, (1, 4))
def _english(rng: random.Random) -> str:
    event = train_event(rng, "translation")
    ko, en = event.plain(), event.english()
    return rng.choice([
        f"왼쪽 공책: {ko}\n오른쪽 공책: {en}", f"{en} / {ko}", f"Tom: {en}\n통역: {ko}",
        f"민지: {ko}\n통역: {en}", f"{ko} ({en})", f"자막 1: {ko}\n자막 2: {en}",
        f"아빠: {ko}\n톰: 아, {en}",
    ])


@_writes(3)
def _diary(rng: random.Random) -> str:
    """Plain sentences in a row: a Korean sentence alone must not call for English."""
    sentences = [train_event(rng, "translation") for _ in range(rng.randint(2, 5))]
    return "\n".join(event.plain() for event in sentences)


# --- Reviews ----------------------------------------------------------------------------------


def train_review(rng: random.Random, good: bool) -> str:
    """A review from the training side."""
    while world.is_heldout("sentiment", text := world.review(rng, good)):
        pass
    return text


@_writes(9, (1, 3))
def _reviews(rng: random.Random) -> str:
    good = rng.random() < 0.5
    text = train_review(rng, good)
    owner = (
        ["칭찬 고맙습니다.", "또 들러 주십시오.", "마음에 드셨다니 기쁩니다."]
        if good
        else ["불편을 드려 죄송합니다.", "속상하셨겠습니다.", "바로 고치겠습니다."]
    )
    friend = (
        ["마음에 들었나 보네. 긍정적이야.", "칭찬이네.", "좋았다는 말이구나."]
        if good
        else ["많이 실망했나 봐. 부정적이야.", "불만이네.", "나빴다는 말이구나."]
    )
    stars = "다섯" if good else "하나"
    return rng.choice([
        f"손님: {text}\n사장: {rng.choice(owner)}", f"{text}\n별 {stars}",
        f"별 {stars}: {text}", f"{'칭찬' if good else '불만'}함에서 나온 쪽지: {text}",
        f"{text}\n듣던 친구: {rng.choice(friend)}",
        f"{text} 이 손님의 마음은 {'긍정' if good else '부정'} 쪽이다.",
    ])


# --- Lists ------------------------------------------------------------------------------------


def train_list(rng: random.Random, family: str, low: int, high: int) -> list[str]:
    """A list from the training side."""
    while world.is_heldout(family, ", ".join(things := world.draw_list(rng, low, high))):
        pass
    return things


@_writes(9, (1, 4))
def _counts(rng: random.Random) -> str:
    things = train_list(rng, "counting", 2, 9)
    text, n = ", ".join(things), len(things)
    return rng.choice([
        f"바구니에 든 것: {text}. 세어 보니 {n}개였다.", f"{n}개를 챙겼다: {text}.",
        f"장바구니 {text} (총 {n}개)",
        " ".join(f"{i}번 {thing}" for i, thing in enumerate(things, 1)) + f" 끝. {n}개.",
        _talk(rng, f"{text}, 이게 다야.", f"그럼 {n}개네."),
        _talk(rng, f"책상 위에 {text} 있더라.", f"{n}개나?"),
    ])


@_writes(9, (1, 4))
def _reversals(rng: random.Random) -> str:
    things = train_list(rng, "reversal", 2, 6)
    there, back = ", ".join(things), ", ".join(reversed(things))
    return rng.choice([
        f"가는 길에 본 것: {there}\n오는 길에 본 것: {back}",
        f"앞줄부터 {there}. 뒷줄부터 {back}.", f"쌓은 차례 {there}\n내린 차례 {back}",
        _talk(rng, there, f"거울에는 {back}"),
        f"왼쪽에서 보면 {there}\n오른쪽에서 보면 {back}",
    ])


# --- Numbers ----------------------------------------------------------------------------------


def train_sum(rng: random.Random) -> tuple[int, int, int]:
    """(a, b, sign) from the training side."""
    while True:
        a, b, sign = world.draw_sum(rng)
        if not world.is_heldout("arithmetic", f"{a} {sign} {b}"):
            return a, b, sign


@_writes(9)
def _sums(rng: random.Random) -> str:
    def one() -> str:
        a, b, sign = train_sum(rng)
        return f"{a}{'+' if sign > 0 else '-'}{b}={a + sign * b}"

    return _several(rng, 6, 14, one, rng.choice(["\n", ", "]))


@_writes(12, (2, 5))
def _sums_told(rng: random.Random) -> str:
    a, b, sign = train_sum(rng)
    thing, c = rng.choice(facts()["countable"]), a + sign * b
    plus = [
        f"{thing} {a}개에 {b}개를 더하니 {c}개가 되었다.",
        f"{josa(thing, '이')} {a}개 있었는데 {b}개를 더 사서 {c}개가 되었다.",
        f"아침에 {a}개, 저녁에 {b}개를 팔았으니 {josa(thing, '은')} 합해서 {c}개 팔렸다.",
        f"상자에 {thing} {a}개, 바구니에 {b}개. 합하면 {c}개다.",
        _talk(rng, f"{thing} {a}개에 {b}개를 더하면?", f"{c}개지."),
        _talk(rng, f"{josa(thing, '이')} {a}개 있는데 {b}개 더 샀어.", f"그럼 {c}개네."),
        _talk(rng, f"상자에 {a}개, 바구니에 {b}개 있어.", f"합해서 {c}개구나."),
    ]
    minus = [
        f"{thing} {a}개에서 {b}개를 빼니 {c}개가 남았다.",
        f"{josa(thing, '이')} {a}개 있었는데 {b}개를 나누어 주어 {c}개가 남았다.",
        f"{thing} {a}개를 샀다가 {b}개를 잃어버려 {c}개만 남았다.",
        _talk(rng, f"{thing} {a}개에서 {b}개를 주면?", f"{c}개 남지."),
        _talk(rng, f"{josa(thing, '을')} {a}개 샀는데 {b}개 잃어버렸어.", f"{c}개 남았겠네."),
    ]
    return rng.choice(plus if sign > 0 else minus)


def train_deposits(rng: random.Random) -> tuple[str, int, str, int]:
    """Two homes and their deposits, from the training side."""
    while True:
        first, a, second, b = world.draw_deposits(rng)
        if not world.is_heldout("comparison", f"{a}/{b}"):
            return first, a, second, b


@_writes(9, (2, 4))
def _deposits(rng: random.Random) -> str:
    first, a, second, b = train_deposits(rng)
    low, high = (first, second) if a < b else (second, first)
    text = f"{josa(first, '은')} {a}만 원, {josa(second, '은')} {b}만 원"
    return rng.choice([
        f"{a}만 원과 {b}만 원 가운데 낮은 쪽은 {min(a, b)}만 원이다.",
        f"{text}. 낮은 쪽은 {josa(low, '이다')}.", f"{text}. 높은 쪽은 {josa(high, '이다')}.",
        f"{first} {a}, {second} {b}. 헐한 집 {low}.",
        _talk(rng, f"보증금이 {text}이래.", f"{josa(low, '이')} 더 헐하네."),
        _talk(rng, f"{first} 보증금은 {a}만 원이고 {second} 보증금은 {b}만 원이야.",
              f"그럼 나는 {josa(low, '으로')} 갈래."),
        f"{min(a, b)}만 원 < {max(a, b)}만 원",
    ])


# --- Copying and the rest ---------------------------------------------------------------------


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
    return rng.choice([
        f"선생님: 따라 말해 보세요. {text}\n학생: {text}", f"{text}\n메아리: {text}",
        f"칠판: {text}\n공책: {text}",
    ])


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


ABOUT_WORDS = [
    "존댓말은 상대를 높이는 말이다. 높임말이라고도 하고, 공손하고 정중한 말이라고도 한다.",
    "반말은 친한 사이에 쓰는 말이다. 존댓말과 반말은 문장의 끝이 다르다.",
    "긴 글을 짧게 줄인 것을 요약이라고 한다. 좋은 요약은 한 문장이면 된다.",
    "번역은 한 나라의 말을 다른 나라의 말로 옮기는 일이다. 영어 번역가는 영어를 우리말로 옮긴다.",
    "긍정적인 사람은 좋은 면을 보고, 부정적인 사람은 나쁜 면을 본다. 후기에는 긍정도 부정도 있다.",
    "목록은 여러 항목을 차례로 적은 것이다. 목록을 보면 개수를 알 수 있다.",
    "우리나라에는 여러 도가 있고, 도마다 시와 군이 있다. 지역과 도시의 이름은 재미있다.",
    "특산물은 그 지역에서 많이 나는 물건이다. 먹거리도 있고 공예품도 있다.",
    "부동산은 땅과 집을 말한다. 부동산 용어는 어려워서 뜻을 따로 설명해 둔 책이 많다.",
    "집을 빌려주는 광고에는 보증금, 월세, 관리비, 층수, 방 개수, 위치 같은 정보가 적혀 있다.",
    "수학 문제를 풀 때는 식을 세우고 계산해서 답을 구한다. 계산이 끝나면 검산을 한다.",
    "두 집을 비교할 때는 먼저 보증금을 본다. 보증금이 적은 집도 있고 많은 집도 있다.",
    "순서를 거꾸로 하면 마지막이 처음이 된다. 역순은 뒤에서부터 세는 순서이다.",
    "선생님이 질문하면 학생이 답한다. 답은 짧고 정확한 것이 좋다.",
    "문장은 주어와 서술어로 이루어진다. 다음 문장과 앞 문장은 서로 이어진다.",
    "손님이 남긴 글을 후기라고 한다. 감정이 담긴 후기는 가게에 도움이 된다.",
]


@_writes(3)
def _about_words(rng: random.Random) -> str:
    """The words that instructions will use, met here only as words."""
    return " ".join(rng.sample(ABOUT_WORDS, rng.randint(1, 3)))
