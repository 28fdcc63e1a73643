"""Your own verdicts, to hold a judge against: read two answers blind, press a key, go on.

Which model wrote which answer is hidden and changes sides from question to question, so that no
hope for the tuned model can help it. Every label is in a file before the next question is shown: a
session that ends loses nothing, and running the cell again goes on where it stopped.
Taught in 03, section 7.
"""

import random
from collections.abc import Callable, Sequence
from pathlib import Path

from course_utils import CourseError
from course_utils.judge import Item
from course_utils.stats import Verdict
from course_utils.tasks import read_jsonl, write_jsonl

HELP = "1 = 답변 1이 낫다, 2 = 답변 2가 낫다, 0 = 비긴다, q = 그만 (1, 2, tie, stop): "


def choose_items(items: Sequence[Item], n: int = 20, *, seed: int = 0) -> list[Item]:
    """Draw up to n items whose two answers differ: the same ones for the same items and seed.

    Nobody can choose between two equal answers, so labelling them would only flatter the judge.
    """
    different = [item for item in items if (item.a or "").strip() != (item.b or "").strip()]
    drawn = random.Random(seed).sample(different, min(n, len(different)))
    return sorted(drawn, key=lambda item: item.id)


def label_items(items: Sequence[Item], path: str | Path, *, seed: int = 0,
                ask: Callable[[str], str] = input) -> dict[str, Verdict]:
    """Show each item that has no label yet, ask for a key, and return all labels by id.

    Labels are "a", "b" or "tie", in terms of the models, as a judge's verdicts are. The file at
    `path` gets one line a label: id, verdict, and which model stood first. Ends early at "q", at
    Ctrl-C, and where nobody can type.
    """
    labels = read_labels(path)
    waiting = [item for item in items if item.id not in labels]
    for number, item in enumerate(waiting, len(items) - len(waiting) + 1):
        # By the item and not by its place in the list: the sides stay when the list changes.
        sides: list[Verdict] = ["a", "b"]
        random.Random(f"{seed}/{item.id}").shuffle(sides)
        first, second = sides
        reference = f"[모범 답안 reference]\n{item.reference}\n\n" if item.reference else ""
        print(f"\n--- {number}/{len(items)} ---\n[질문 question]\n{item.question}\n\n{reference}"
              f"[답변 1]\n{getattr(item, first)}\n\n[답변 2]\n{getattr(item, second)}")
        key = None
        while key not in ("1", "2", "0", "q"):
            if key is not None:
                print("키를 확인해 주세요. (1, 2, 0 or q)")
            try:
                key = ask(HELP).strip().lower()
            except (EOFError, KeyboardInterrupt, NotImplementedError):  # the last is Jupyter's
                key = "q"
        if key == "q":
            break
        labels[item.id] = {"1": first, "2": second, "0": "tie"}[key]
        row = {"id": item.id, "verdict": labels[item.id], "first": first}
        write_jsonl(path, [*_rows(path), row])
    print(f"{sum(item.id in labels for item in items)} of {len(items)} labelled")
    return {item.id: labels[item.id] for item in items if item.id in labels}


def read_labels(path: str | Path) -> dict[str, Verdict]:
    """The labels of a file by id, the last one of each; {} if there is no file yet."""
    return {row["id"]: row["verdict"] for row in _rows(path)}


def _rows(path: str | Path) -> list[dict]:
    path = Path(path)
    rows = read_jsonl(path) if path.is_file() and path.stat().st_size else []
    for number, row in enumerate(rows, 1):
        if not isinstance(row.get("id"), str) or row.get("verdict") not in ("a", "b", "tie"):
            raise CourseError(f"{path}:{number} is no label: remove that line, or name another "
                              "file for your labels.")
    return rows
