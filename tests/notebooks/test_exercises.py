"""Every exercise of every notebook: its solution passes, its stub waits, and mistakes are named."""

import math
import re
from collections import Counter
from typing import NamedTuple

import pytest

from course_utils.practice.cases import exercises, read_cases
from course_utils.practice.checks import check, examine
from tools.notebooks import kernel

FENCE = re.compile(r"```python\n(.*?)\n```", re.DOTALL)
CHECK = re.compile(r'check\("(\d\d\.\d)", (\w+)\)\Z')


class Exercise(NamedTuple):
    """One exercise as it stands in a source: the cells around its check."""

    name: str
    task: dict[str, str]
    stub: str
    check: str
    solution: dict[str, str]


def read_exercises() -> dict[str, Exercise]:
    found = {}
    for path in kernel.sources():
        cells = kernel.read_source(path).cells
        texts = [cell.source for cell in cells]
        for i, cell in enumerate(cells):
            if cell.cell_type == "code" and (asked := CHECK.search(cell.source)):
                number, name = asked.groups()
                assert number.startswith(path.name[:2]), f"{number} stands in {path.name}"
                assert number not in found, f"{number} is there twice"
                above, _, asks = cell.source.rpartition("\n")
                whole = "def " in above  # stub and check in one cell, or in one each
                stub, asks = (above, asks) if whole else (texts[i - 1], cell.source)
                task, solution = ({"ko": texts[at], "en": texts[at + 1]}
                                  for at in (i - 3 + whole, i + 1))
                found[number] = Exercise(name, task, stub, asks, solution)
    return found


WRITTEN = read_exercises()


def run(code: str, name: str):
    space = {}
    exec(compile(code, "<cell>", "exec"), space)
    return space[name]


@pytest.mark.parametrize("notebook", ["01", "02", "03", "04", "05"])
def test_a_notebook_has_three_to_five_exercises(notebook):
    assert 3 <= sum(number.startswith(notebook) for number in WRITTEN) <= 5


def test_every_exercise_is_in_a_notebook_and_every_check_has_its_exercise():
    functions = {number: exercise["function"] for number, exercise in exercises().items()}
    assert {number: exercise.name for number, exercise in WRITTEN.items()} == functions


@pytest.mark.parametrize("number", WRITTEN)
def test_the_task_names_its_level_and_minutes_in_both_languages(number):
    task, index = WRITTEN[number].task, number.split(".")[1]
    korean = re.match(rf"### 연습 {index}\. .+\n\n(★+) · 약 (\d+)분 · (\d+)절\n", task["ko"])
    english = re.match(rf"### Exercise {index}\. .+\n\n"
                       r"(★+) · about (\d+) minutes · section (\d+)\n", task["en"])
    assert korean and english and korean.groups() == english.groups()
    assert 1 <= len(korean[1]) <= 3


@pytest.mark.parametrize("number", WRITTEN)
def test_the_solution_is_folded_and_the_same_in_both_languages(number):
    solution = WRITTEN[number].solution
    for language, word in (("ko", "풀이"), ("en", "Solution")):
        assert solution[language].startswith(f"<details><summary>{word}</summary>\n\n```python\n")
        assert solution[language].endswith("\n\n</details>")
    assert FENCE.findall(solution["ko"]) == FENCE.findall(solution["en"])


@pytest.mark.parametrize("number", WRITTEN)
def test_the_solution_passes(number):
    exercise = WRITTEN[number]
    [code] = FENCE.findall(exercise.solution["ko"])
    outcome = examine(number, run(code, exercise.name))
    assert outcome.state == "right", outcome.message


@pytest.mark.parametrize("language", ["ko", "en"])
@pytest.mark.parametrize("number", WRITTEN)
def test_the_results_that_a_task_shows_are_right(number, language):
    exercise = WRITTEN[number]
    [code] = FENCE.findall(exercise.solution[language])
    function, text = run(code, exercise.name), exercise.task[language]
    calls = re.findall(rf"`({exercise.name}\(.+?\))`", text)
    for call in calls:
        result = eval(call, {exercise.name: function})
        parts = result.values() if isinstance(result, dict) else [result]
        if isinstance(result, list | tuple) and any(isinstance(v, float) for v in result):
            parts = result
        for value in parts:
            written = [repr(value)]
            written += [f"{value:.3g}"] if isinstance(value, float) else []
            assert any(form in text for form in written), f"{call} is {result!r}"
    assert calls or number in ("01.1", "01.3", "02.3", "04.5"), "no example is shown"


@pytest.mark.parametrize("number", WRITTEN)
def test_the_untouched_stub_runs_and_waits(number, capsys):
    exercise = WRITTEN[number]
    space = {"check": check}
    exec(exercise.stub, space)
    exec(exercise.check, space)
    said = capsys.readouterr().out
    assert "아직 시작하지 않았습니다" in said and "Not started yet" in said


# Mistakes that people make, each with a part of the input that must be named.


def any_number(text):
    names = {"지시문": "instruction", "입력": "input", "출력": "output"}
    parts = re.split(r"^\d+\. (지시문|입력|출력):", text, flags=re.MULTILINE)[1:]
    values = (v.strip().replace("<noinput>", "") for v in parts[1::2])
    return dict(zip(map(names.get, parts[::2]), values, strict=True))


def syllables_only(text):
    letters = sum(map(str.isalpha, text))
    return len(re.findall("[가-힣]", text)) / letters if letters else 0.0


def every_reason(tasks, rules):
    fired = [[name for name, test in rules.items() if test(task)] for task in tasks]
    kept = [task for task, names in zip(tasks, fired, strict=True) if not names]
    return kept, dict(Counter(name for names in fired for name in names))


def at_least(a, b, threshold):
    return 2 * sum((Counter(a) & Counter(b)).values()) >= threshold * (len(a) + len(b))


def last_turn_only(turns):
    ids = [i for _, turn in turns for i in turn]
    last = turns[-1][1] if turns and turns[-1][0] == "model" else []
    labels = [-100] * (len(ids) - len(last)) + list(last)
    return {"input_ids": ids, "labels": labels} if last else None


def mean_of_means(steps):
    return sum(sum(step) / len(step) for step in steps) / len(steps)


def as_many_keys_as_heads(config, r):
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    query = config["num_attention_heads"] * config["head_dim"]
    return config["num_hidden_layers"] * r * (4 * (hidden + query) + 3 * (hidden + inner))


def positions_as_models(one, two):
    verdicts = {"A": "a", "B": "b", "C": "tie"}
    if one is None or two is None:
        return None
    return {"a": 1.0, "b": 0.0, "tie": 0.5}[verdicts[one]] if one == two else 0.5


def the_last_one(text, allowed):
    found = re.findall(r"\[\[(.*?)\]\]", text.strip().split("\n")[-1])
    return found[-1] if found and found[-1] in allowed else None


def plain_agreement(a, b):
    return sum(x == y for x, y in zip(a, b, strict=True)) / len(a)


def all_are_trained(parameters, trained):
    return 16 * parameters / 2**30


def without_the_card(gib, bfloat16):
    from course_utils.recipe import load_recipe, recipe_names
    from course_utils.scale.memory import estimate_memory

    recipes = map(load_recipe, recipe_names())
    single = [recipe for recipe in recipes if recipe.train.gpus == 1]
    return [recipe.name for recipe in single if estimate_memory(recipe).total <= gib]


def halves_to_nothing(fixed, row, batch, times, gib):
    while fixed + row * batch > gib and batch:
        batch, times = batch // 2, times * 2
    return (batch, times) if batch else None


def rounds_down(effective, gpus, most):
    return most, effective // most // gpus


def parts_rounded_down(rows, gpus, rank):
    size = rows // gpus
    return rank * size, (rank + 1) * size if rank < gpus - 1 else rows


def as_in_the_formula(logits, temperature):
    weights = [math.exp(logit / temperature) for logit in logits]
    return [weight / sum(weights) for weight in weights]


def refuses_a_full_window(instruction, tokens, length, window):
    over = tokens + length - window
    return f"{over:,}토큰만큼 줄여 주세요." if over >= 0 else None


def begins_with_a_reply(turns, room):
    ends = (turns[i:] for i in range(len(turns)))
    return next((end for end in ends if sum(len(ids) for _, ids in end) <= room), None)


MISTAKES = [
    ("01.1", any_number, "1. 입력: 자료를 모읍니다."),
    ("01.2", syllables_only, "ㅋㅋ"),
    ("01.3", every_reason, "'Explain'"),
    ("01.4", at_least, "['가', '나', '다', '라']"),
    ("02.1", last_turn_only, "('model', [7, 1]), ('user', [8])"),
    ("02.2", mean_of_means, "[[4.0], [1.0, 1.0, 1.0]]"),
    ("02.3", as_many_keys_as_heads, "'num_key_value_heads': 1"),
    ("03.1", positions_as_models, "('A', 'B')"),
    ("03.2", the_last_one, "[[A]]도 [[B]]도 좋습니다."),
    ("03.3", plain_agreement, "['a', 'a', 'b', 'b'], ['a', 'b', 'b', 'b']"),
    ("04.1", all_are_trained, "2506172416, "),
    ("04.2", without_the_card, "(15, False)"),
    ("04.3", halves_to_nothing, "(10.0, 2.0, 12, 2, 13)"),
    ("04.4", rounds_down, "(128, 64, 4)"),
    ("04.5", parts_rounded_down, "(7, 3, 0)"),
    ("05.1", as_in_the_formula, "([1.0, 3.0, 2.0], 0.0)"),
    ("05.2", refuses_a_full_window, "448, 64, 512"),
    ("05.3", begins_with_a_reply, "('user', [8])], 4)"),
]


def test_every_exercise_has_a_typical_mistake():
    assert {number for number, _, _ in MISTAKES} == set(exercises())


@pytest.mark.parametrize("number, answer, named", MISTAKES)
def test_a_mistake_is_told_with_the_input_that_shows_it(number, answer, named):
    outcome = examine(number, answer)
    assert outcome.state == "wrong"
    first = next(line for line in outcome.message.split("\n") if line.startswith("  입력 input"))
    assert named in first, outcome.message
    hints = {hint for case in read_cases(number) for hint in case.hint}
    told = [line for line in outcome.message.split("\n") if line in hints]
    # Korean, then English; whose value is right needs no hint toward it.
    assert len(told) == 2 or "입력을 바꿔" in outcome.message, outcome.message
