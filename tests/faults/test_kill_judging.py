"""A judge killed (SIGKILL) again and again: no reply is paid for twice, and nothing else comes out.

The short version kills twice; `FAULTS=all` (make faults) twenty times, in both forms of
verdicts.
"""

import pytest

from tests.faults.test_kill import FULL, Job, killed_and_compared

KILLS, BATTLES = (20, 200) if FULL else (2, 30)
# Brackets come with a refused schema and verdicts that are forgotten: most requests are asked
# again, in other words, which makes this the harder case.
FORMS = {"brackets": ["--refuse-json-schema", "--invalid", "0.3"], "json": ["--invalid", "0.1"]}

JUDGING = """
import dataclasses, json, sys
from pathlib import Path
from course_utils.judge import Item, Judge
from course_utils.llm import LLM
from course_utils.offline import world
from course_utils.stats import summarize_battle, summarize_grades

url, folder, n = sys.argv[1:]
items = [
    Item(f"q{i}", task.instruction + (task.input and "\\n\\n" + task.input), answer=task.output,
         a=task.output if i % 3 else "그리고", b=task.output + "!" if i % 2 else "모르겠어요.")
    for i, task in enumerate(world.sample_tasks(int(n), split="heldout", seed=1))
]
judge = Judge(LLM("simulated-judge", base_url=url, journal=f"{folder}/journal.jsonl"),
              progress=False)
battle = summarize_battle(judge.battle(items), allow_invalid=True)
judged = judge.judgments
grades = summarize_grades(judge.grade(items[::4]), allow_invalid=True)
found = [battle, grades, *judged, *judge.judgments]
text = json.dumps(list(map(dataclasses.asdict, found)), ensure_ascii=False, indent=1)
Path(folder, "results.json").write_text(text, "utf-8")
"""


@pytest.mark.parametrize("form", FORMS if FULL else ["brackets"])
def test_a_judge_killed_again_and_again(tmp_path, form, record_fault):
    result = killed_and_compared(
        tmp_path, lambda folder: Job(folder, "results.json", JUDGING, BATTLES, FORMS[form]),
        KILLS, 1 / (KILLS + 1),  # so many lives do not finish the work
    )  # fmt: skip
    record_fault("SIGKILL while judging", injected=KILLS, **result)
    assert result == {"right": 1, "lost": 0, "twice": 0}
