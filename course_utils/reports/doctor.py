"""What is there of each step of a run, whether it is whole, and what running it again would cost.

It looks and reads, and changes nothing: no part is copied, no journal opened for writing.
Taught at the beginning of 01.
"""

import json
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from course_utils import REPO
from course_utils.plumbing.parts import (
    JOURNALS,
    BrokenPart,
    gather,
    is_journal,
    parts,
    read_manifest,
    verify,
)

if TYPE_CHECKING:
    from course_utils.session import Course

PER_CALL = 20  # tasks asked for in one request
LONGEST_VERDICT = 512  # tokens, for an estimate before there is a verdict


def steps(course: "Course") -> list[str]:
    """Return the lines about the run's steps."""
    rows = [("preprocess", _preprocess), ("train", _train), ("evaluate", _evaluate)]
    lines = []
    for step, rerun in rows:
        lines.append(f"{step:<13}{_state(course, step)}")
        if step == "train" and (progress := _state(course, "train-progress")) != "nothing yet":
            lines.append(f"{'':13}on the way: {progress}")
        lines.append(f"{'':13}rerun: {rerun(course)}")
    return lines


def _state(course: "Course", step: str) -> str:
    """What lies in a step's folders, and whether it is whole: every byte is read."""
    home, said = course.store.root / course.store.run / step, []
    for part in [*reversed(parts(home)), *reversed(parts(home / JOURNALS))]:
        name = part.relative_to(home).as_posix()
        try:
            manifest = read_manifest(part)
            verify(part, manifest)
            size = sum(file["bytes"] for file in manifest["files"].values())
            said.append(f"{name} whole ({len(manifest['files'])} files, {size:,} bytes)")
        except BrokenPart as broken:
            said.append(f"{name} BROKEN ({broken})")
    work = _work(course, step)
    if work.is_dir() and (files := [path for path in work.rglob("*") if path.is_file()]):
        said.append(f"working folder with {len(files)} files")
    return "; ".join(said) or "nothing yet"


def _preprocess(course: "Course") -> str:
    from course_utils.generate import generation_requests
    from course_utils.tasks import read_tasks

    if course.data:
        return "reads DATA again, no calls."
    llm = _reader(course, "preprocess", course.recipe.teacher)
    spec, done = course.recipe.data, _newest(course, "preprocess", "funnel.json")
    seeds = read_tasks(REPO / "data" / "seed_tasks.jsonl")
    calls = done.get("calls") or -(-spec.n // PER_CALL)
    plan = llm.plan(islice(generation_requests(seeds, seed=spec.seed), calls))
    least = "" if done or not plan.calls else " at least, more where tasks are rejected"
    return f"{plan}{least}."


def _train(course: "Course") -> str:
    if _newest(course, "train", "result.json"):
        return "returns the sealed adapter if recipe and data are the same; no calls, $0.00."
    found = [path.name.rpartition("-")[2] for base in _places(course, "train-progress")
             for path in (base / "checkpoints").glob("checkpoint-*")]  # fmt: skip
    if steps := [int(step) for step in found if step.isdigit()]:
        newest = max(steps)
        return f"goes on from step {newest}; no calls, $0.00."
    return "trains from the start; no calls, $0.00."


def _evaluate(course: "Course") -> str:
    llm = _reader(course, "evaluate", course.recipe.judge)
    spec, records = course.recipe.evaluate, len(llm.journal)
    if _newest(course, "evaluate", "summary.json"):
        return f"0 calls to make ({records:,} already in the journal), $0.00."
    calls = max(0, 2 * spec.questions - records)
    guess = {"prompt_tokens": 400 + 2 * spec.max_new_tokens, "completion_tokens": LONGEST_VERDICT}
    each = llm.spent / records if records else llm.cost(guess)
    return (f"{calls:,} calls to make ({records:,} already in the journal), "
            f"about ${calls * each:.2f}, for {spec.questions:,} questions in both orders.")


def _reader(course: "Course", step: str, endpoint):
    """A client that only plans: what journals hold, here and sealed, in memory."""
    from course_utils.llm import LLM
    from course_utils.plumbing.journal import Journal

    memory, home = Journal.open(None), course.store.root / course.store.run / step
    found = [path.read_bytes() for path in _work(course, step).rglob("*")
             if path.is_file() and is_journal(path.name)]  # fmt: skip
    found += gather(home, {}).values()
    for line in b"\n".join(found).split(b"\n"):
        try:
            record = json.loads(line)
            used = record["usage"]["prompt_tokens"] + record["usage"]["completion_tokens"]
            if record["model"] == endpoint.model and used >= 0:
                memory.add(record)
        except (ValueError, KeyError, TypeError):
            continue  # a torn line, or a record about batches
    address = None if endpoint.simulated else endpoint.base_url
    return LLM(endpoint.model, base_url=address, journal=memory, price=endpoint.price,
               params=endpoint.params)


def _newest(course: "Course", step: str, name: str) -> dict:
    """The content of a file of the step's newest whole part, or {}."""
    for base in _places(course, step)[1:]:
        try:
            found = json.loads((base / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(found, dict):
            return found
    return {}


def _places(course: "Course", step: str) -> list[Path]:
    """The working folder of a step, then its whole parts, newest first."""
    places = [_work(course, step)]
    for part in reversed(parts(course.store.root / course.store.run / step)):
        try:
            verify(part, read_manifest(part), contents=False)
            places.append(part)
        except BrokenPart:
            continue
    return places


def _work(course: "Course", step: str) -> Path:
    """Where a step works; unlike `store.local`, this makes no folder."""
    return course.store.local_root / course.store.run / step / "work"
