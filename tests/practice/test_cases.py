"""The stored results of the exercises are right: each one is worked out again, another way."""

import re
from collections import Counter

import pytest

from course_utils import CourseError
from course_utils.judge import VerdictError, parse_verdict
from course_utils.korean import hangul_share
from course_utils.parsing import read_fields
from course_utils.practice.cases import exercises, fitting, read_cases
from course_utils.practice.checks import same, show
from course_utils.recipe import TrainSpec, load_recipe
from course_utils.scale.memory import estimate_memory, trained_parameters
from course_utils.scale.parallel import TrainError, batch_shape
from course_utils.similarity import rouge_l
from course_utils.stats import Game, StatsError, cohen_kappa


def sort_out(tasks, rules):
    reasons = [next((name for name, test in rules.items() if test(task)), None) for task in tasks]
    kept = [task for task, reason in zip(tasks, reasons, strict=True) if reason is None]
    return kept, dict(Counter(filter(None, reasons)))


def may_exceed(a, b, threshold):
    possible = 2 * (Counter(a) & Counter(b)).total() > threshold * (len(a) + len(b))
    assert possible or rouge_l(a, b) <= threshold  # never rules out what the score would drop
    return possible


def mask_turns(turns):
    labels = [i if role == "model" else -100 for role, ids in turns for i in ids]
    ids = [i for _, turn in turns for i in turn]
    return {"input_ids": ids, "labels": labels} if set(labels) - {-100} else None


def window_loss(steps):
    losses = sum(steps, [])
    return sum(losses) / len(losses) if losses else None


def lora_size(config, r):
    whole = {"model_type": "gemma", "vocab_size": 256, **config}
    recipe = load_recipe("gemma-2b-l4").replace("architecture", whole)
    return trained_parameters(recipe.replace("train.lora_r", r))


def question_score(one, two):
    first = {"A": "a", "B": "b", "C": "tie"}.get(one)
    second = {"A": "b", "B": "a", "C": "tie"}.get(two)
    return Game("q", first, second, 0, 0).score


def read_verdict(text, allowed):
    try:
        return parse_verdict(text, allowed)
    except VerdictError:
        return None


def kappa(a, b):
    pairs = [pair for pair in zip(a, b, strict=True) if None not in pair]
    try:
        return cohen_kappa(*zip(*pairs, strict=True)) if pairs else None
    except StatsError:  # one and the same verdict throughout
        return None


def states_gib(parameters, trained):
    for name in ("alpaca-7b-fsdp", "gemma-2b-l4", "koalpaca-12.8b-a100"):
        recipe = load_recipe(name).replace("train.gpus", 1).replace("train.parallel", "none")
        for need in map(estimate_memory, (recipe, recipe.replace("train.lora_r", 0))):
            if (need.parameters, need.trained) == (parameters, trained):
                return need.weights + need.adapter + need.gradients + need.optimizer


def shrink(fixed, row, batch, times, gib):
    halves = [batch >> n for n in range(5) if batch % 2**n == 0]
    found = [(rows, batch * times // rows) for rows in halves if fixed + row * rows <= gib]
    return found[0] if found else None


def share_rows(effective, gpus, most):
    try:
        return batch_shape(TrainSpec(batch_size=most, gradient_accumulation=effective // most),
                           gpus)
    except TrainError:
        return None


def own_rows(rows, gpus, rank):
    torch = pytest.importorskip("torch")
    parts = torch.arange(rows).chunk(gpus)  # how torch cuts
    return (parts[rank][0], parts[rank][-1] + 1) if rank < len(parts) else (rows, rows)


def softmax(logits, temperature):
    torch = pytest.importorskip("torch")
    scores = torch.tensor(logits, dtype=torch.float64)
    return torch.eye(len(logits))[scores.argmax()] if temperature == 0 else (
        scores / temperature).softmax(-1)


def refuse(instruction, tokens, length, window):
    if not (instruction or "").strip():
        return "지시문이 비어 있습니다."
    over = tokens + length - window
    return f"{over:,}토큰만큼 줄여 주세요." if over > 0 else None


def last_turns(turns, room):
    ends = [turns[i:] for i, (role, _) in enumerate(turns) if role == "user"]
    return next((end for end in ends if sum(len(ids) for _, ids in end) <= room), None)


# The course's own, as they are; 04.2 is computed where it is read.
OWN = {"read_item": read_fields, "hangul_share": hangul_share, "fitting": fitting}


@pytest.mark.parametrize("number", exercises())
def test_every_stored_result_is_right(number):
    name = exercises()[number]["function"]
    reference = OWN.get(name) or globals()[name]
    for case in read_cases(number):
        found = reference(*case.args)
        assert same(case.expected, found), f"{name}{show(case.args)} is {show(found)}"


@pytest.mark.parametrize("number", exercises())
def test_inputs_are_varied_and_each_has_a_hint_in_both_languages(number):
    cases = read_cases(number)
    assert len(cases) >= 4
    assert len({repr(case.expected) for case in cases}) > 1, "one constant would pass"
    for case in cases:
        assert re.search("[가-힣]", case.hint.ko) and not re.search("[가-힣]", case.hint.en[:1])


def test_an_unknown_exercise_names_those_of_its_notebook():
    with pytest.raises(CourseError, match=r"'01\.9'; there are 01\.1, 01\.2"):
        read_cases("01.9")
