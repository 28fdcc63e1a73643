"""The micro-world knows its own truth, keeps its splits apart and reads like Korean."""

import random
import re
from collections import Counter

import pytest

from course_utils import REPO
from course_utils.offline import world
from course_utils.offline.world import FAMILIES, facts, josa, solve
from course_utils.stats import exact_match
from course_utils.tasks import read_jsonl
from tools.base_model import documents


def test_particles_follow_the_last_sound():
    for word, particle, joined in [
        ("사과", "은", "사과는"), ("귤", "은", "귤은"), ("감", "이", "감이"), ("배", "이", "배가"),
        ("서울", "으로", "서울로"), ("부산", "으로", "부산으로"), ("제주", "으로", "제주로"),
        ("책", "이에요", "책이에요"), ("나무", "이에요", "나무예요"), ("전세", "이라는", "전세라는"),
    ]:  # fmt: skip
        assert josa(word, particle) == joined


@pytest.mark.parametrize("family", FAMILIES)
def test_solve_knows_every_task(family):
    for split in ("train", "heldout"):
        for wordings in ("train", "unseen"):
            tasks = world.sample_tasks(150, split, 3, family, wordings)
            for task in tasks:
                assert solve(task.instruction, task.input) == task.output, task


@pytest.mark.parametrize(
    "family, question, answer",
    [
        ("reversal", "사과, 배, 감", "감, 배, 사과"),
        ("counting", "사과, 배, 감", "모두 3개입니다."),
        ("province", "춘천", "강원특별자치도입니다."),
        ("speciality", "춘천", "닭갈비입니다."),
        ("politeness", "나는 내일 집에서 빵을 먹을 거야.", "저는 내일 집에서 빵을 먹을 거예요."),
        ("politeness", "내가 어제 방을 청소했어.", "제가 어제 방을 청소했어요."),
        ("translation", "나는 어제 시장에서 빵을 샀다.", "I bought bread at the market yesterday."),
        ("translation", "그는 내일 방을 청소할 것이다.", "He will clean the room tomorrow."),
        ("arithmetic", "귤이 31개 있었습니다. 그중 12개를 나누어 주었습니다. 몇 개 남았습니까?", "19개입니다."),
        ("arithmetic", "귤을 아침에 31개, 저녁에 12개 팔았습니다. 모두 몇 개 팔았습니까?", "43개입니다."),
        ("comparison", "가빌라의 보증금은 3500만 원, 나빌라의 보증금은 2800만 원입니다.", "나빌라입니다."),
    ],
)  # fmt: skip
def test_answers_of_known_questions(family, question, answer):
    wordings = facts()["wordings"][family]
    wording = next(x for x in wordings["train"] if "{" not in x)
    assert solve(wording, question) == answer


@pytest.mark.parametrize("layout", range(3))
def test_every_field_is_found_in_every_layout(layout):
    ad = {"집": "한빛빌라", "위치": "춘천", "층수": "3층", "방 개수": "2개", "보증금": "500만 원",
          "월세": "45만 원", "관리비": "7만 원"}  # fmt: skip

    class Layout(random.Random):
        def randrange(self, *_):
            return layout

    text = world.advertisement(ad, Layout(1))
    wording = facts()["wordings"]["extraction"]["train"][0]
    for field in world.FIELDS:
        assert solve(world.fill(wording, {"field": field}), text) == f"{ad[field]}입니다."


TASKS = {family: world.sample_tasks(1, family=family)[0] for family in FAMILIES}


@pytest.mark.parametrize(("instruction", "text"), [
    *((text, "사과, 배") for text in ("", "오늘 날씨가 어때요?", "다음 목록", "{town}")),
    ("그런데 말이죠 " + TASKS["counting"].instruction, "사과, 배"),  # an opener must be whole
    *((task.instruction, "12개") for name, task in TASKS.items() if task.input),
])
def test_other_texts_are_refused(instruction, text):
    with pytest.raises(world.Unsolvable, match="No task of this world asks"):
        solve(instruction, text)


def test_splits_share_no_question():
    for family in FAMILIES:
        train = {(t.input, t.output) for t in world.sample_tasks(400, "train", 1, family)}
        held = {(t.input, t.output) for t in world.sample_tasks(200, "heldout", 1, family)}
        if family not in ("province", "speciality", "sentiment"):  # few answers, shared by nature
            assert not {i for i, _ in train if i} & {i for i, _ in held if i}, family


def test_heldout_towns_never_appear_in_training_tasks():
    for family in ("province", "speciality"):
        towns = [t for t in facts()["towns"] if world.is_heldout(family, t)]
        assert 15 <= len(towns) <= 35
        # 이천, 장수 and the like are also parts of other words: look for them as whole tokens
        for task in world.sample_tasks(600, "train", 0, family):
            words = re.findall(r"[가-힣]+", task.instruction.split(". ")[-1]) + [task.input]
            assert not any(word == town for word in words for town in towns)


def test_heldout_tasks_are_all_different_and_enough():
    tasks = world.heldout_tasks(per_family=30)
    assert len(tasks) == len(set((t.instruction, t.input) for t in tasks)) == 12 * 30
    assert tasks == world.heldout_tasks(per_family=30) != world.heldout_tasks(30, seed=8)


def test_facts_are_as_many_as_promised():
    f = facts()
    assert len(f["towns"]) >= 90 and len(f["terms"]) == 40
    for family in FAMILIES:
        assert len(f["wordings"][family]["train"]) >= 8
        assert len(f["wordings"][family]["unseen"]) >= 2
        assert not set(f["wordings"][family]["train"]) & set(f["wordings"][family]["unseen"])


@pytest.mark.parametrize("exercises", [False, True])
def test_documents_hold_no_instruction_and_no_chat_turn(exercises):
    source = documents.documents(5, exercises=exercises)
    text = "\n".join(next(source) for _ in range(4000))
    for kinds in facts()["wordings"].values():
        for wording in kinds["train"] + kinds["unseen"]:
            fixed = max(re.split(r"\{[^}]*\}", wording), key=len).strip()
            assert fixed not in text, wording
    for kinds in facts()["openers"].values():
        assert not any(opener in text for opener in kinds["train"] + kinds["unseen"])
    assert "주세요" not in text and "<" not in re.sub(r"만 원 < ", "", text)


def test_exercises_keep_heldout_questions_to_themselves():
    source = documents.documents(6, exercises=True)
    text = "\n".join(next(source) for _ in range(6000))
    for family in ("counting", "reversal", "politeness", "translation", "summary", "sentiment"):
        held = world.sample_tasks(60, "heldout", 2, family)
        shared = [task.input for task in held if task.input in text]
        assert not shared, (family, shared[:3])


def test_documents_keep_heldout_sums_to_themselves():
    source = documents.documents(6)
    for _ in range(3000):
        for a, op, b in re.findall(r"(\d\d)([+-])(\d\d)=", next(source)):
            assert not world.is_heldout("arithmetic", f"{a} {1 if op == '+' else -1} {b}")


def test_the_recorded_ways_to_train_answer_the_held_out_questions():
    """What 03 lets compete: tests/benchmarks/variants.py."""
    rows = read_jsonl(REPO / "assets" / "sample" / "variants.jsonl")
    right = Counter()
    for row, task in zip(rows, 3 * world.heldout_tasks(30), strict=True):
        right[row["way"]] += exact_match(row["reply"], task.output)
    assert right == {"response": 311, "everything": 212, "rank 16": 297}
