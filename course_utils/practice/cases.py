"""The exercises of the notebooks, read from exercises.yaml: inputs, right results, hints."""

from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from course_utils import CourseError
from course_utils.parsing import RULES
from course_utils.tasks import Task


class Hint(NamedTuple):
    """A sentence toward the idea, not the solution, in both languages."""

    ko: str
    en: str


class Case(NamedTuple):
    """One input of an exercise, its right result, and a hint for whoever gets it wrong."""

    args: tuple
    expected: Any
    hint: Hint | None = None


def fitting(gib: float, bfloat16: bool) -> list[str]:
    """The results of exercise 04.2, which change with the recipes that there are."""
    from course_utils.recipe import load_recipe, recipe_names
    from course_utils.scale.memory import estimate_memory, fits

    recipes = [load_recipe(name) for name in recipe_names()]
    return [recipe.name for recipe in recipes if recipe.train.gpus == 1
            and (bfloat16 or recipe.train.dtype != "bfloat16")
            and fits(estimate_memory(recipe), gib)]


RULES_ASKED = ["missing field", "too short", "not Korean", "leading punctuation"]
# Names in calls and results: what exercise 01.3 sorts, and by which rules.
NAMES = {
    "fitting": fitting,
    "good": Task("속담의 뜻을 풀어 주세요.", "", "네."),
    "short": Task("요약", "", "네."),
    "english": Task("Please explain this", "", "네."),
    "both": Task("Explain", "", "네."),  # too short, and not Korean
    "empty": Task("", "", "네."),
    "mark": Task("- 이 글을 요약해 주세요.", "", "네."),
    "rules": {name: RULES[name].test for name in RULES_ASKED},
    "backwards": {name: RULES[name].test for name in reversed(RULES_ASKED)},
}


@cache
def exercises() -> dict[str, dict]:
    """Every exercise by its number, "01.2", as it stands in exercises.yaml."""
    text = Path(__file__).with_name("exercises.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text)


def read_cases(number: str) -> list[Case]:
    """Return the inputs of an exercise, easy ones first. Raises CourseError."""
    if number not in exercises():
        near = [name for name in exercises() if name.startswith(str(number)[:2])]
        raise CourseError(f"There is no exercise '{number}'; there are "
                          f"{', '.join(near or exercises())}.")
    cases = []
    for group in exercises()[number]["cases"]:
        for call in group["calls"].splitlines():
            args, _, result = call.rpartition(" -> ")
            args, expected = eval(f"({args},)", dict(NAMES)), eval(result, dict(NAMES))
            cases.append(Case(args, expected, Hint(group["ko"], group["en"])))
    return cases
