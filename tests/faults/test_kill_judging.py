"""A judge killed (SIGKILL) again and again: no reply is paid for twice, and nothing else comes out.

The short version kills three times; `FAULTS=all` (make faults) twenty times, in both forms of
verdicts.
"""

import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from course_utils import REPO
from tests.faults.test_kill import FULL, PATIENCE, WORKERS, digest_of, whole_lines
from tests.faulty_server import start

BATTLES = 200 if FULL else 40
KILLS = 20 if FULL else 3
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


class Judging:
    """A battle and some grades, against a server that outlives whoever judges."""

    def __init__(self, folder: Path, flags: list[str]):
        self.journal, self.results = folder / "journal.jsonl", folder / "results.json"
        self.log = folder / "requests.jsonl"
        folder.mkdir()
        self.server, self.url = start("--latency", 0.1, "--log", self.log, *flags)

    def start(self) -> subprocess.Popen:
        command = [sys.executable, "-c", JUDGING, self.url, str(self.journal.parent), str(BATTLES)]
        return subprocess.Popen(command, cwd=REPO)

    def asked(self) -> list[str]:
        return [line["request"] for line in whole_lines(self.log)]

    def kept(self) -> set[str]:
        """The digests of the replies that are in the journal."""
        return {digest_of(record) for record in whole_lines(self.journal)}

    def close(self) -> None:
        self.server.kill()
        self.server.wait()
        self.server.stdout.close()


@pytest.fixture
def judging(tmp_path):
    made = []

    def make(name, flags):
        made.append(Judging(tmp_path / name, flags))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.mark.parametrize("form", FORMS if FULL else ["brackets"])
def test_a_judge_killed_again_and_again(judging, form, record_fault):
    whole = judging("whole", FORMS[form])
    assert whole.start().wait(PATIENCE) == 0
    assert max(Counter(whole.asked()).values()) == 1
    # Requests in one life, at most: so many lives do not finish the work.
    life = max(2, len(whole.asked()) // (KILLS + 1))

    chance, killed = random.Random(form), judging("killed", FORMS[form])
    kept, asked_then = set(), 0
    for kill_number in range(1, KILLS + 1):
        target = len(killed.asked()) + chance.randint(1, life)
        process = killed.start()
        while len(killed.asked()) < target:
            assert process.poll() is None, f"it ended before kill {kill_number}"
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 0.05))
        process.kill()
        process.wait()
        time.sleep(0.2)  # what was on its way reaches the server's log
        again = kept & set(killed.asked()[asked_then:])
        assert not again, f"{len(again)} replies that were kept were asked for again"
        kept, asked_then = killed.kept(), len(killed.asked())
        assert not killed.results.exists()
    assert kept and killed.start().wait(PATIENCE) == 0
    assert not kept & set(killed.asked()[asked_then:])
    twice = sum(count - 1 for count in Counter(killed.asked()).values())
    assert twice <= KILLS * WORKERS, f"{twice} requests repeated after {KILLS} kills"
    assert killed.results.read_bytes() == whole.results.read_bytes()
    assert killed.kept() == whole.kept()
    record_fault("SIGKILL while judging", injected=KILLS)
