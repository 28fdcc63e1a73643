"""What is there of each step of a run, whether it is whole, and what running it again would cost.

It looks and reads, and changes nothing: no part is copied, no journal opened for writing.
Taught at the beginning of 01.
"""

import json
from itertools import islice
from pathlib import Path

from course_utils import REPO
from course_utils.checkpoint import CheckpointStore
from course_utils.generate import generation_requests
from course_utils.llm import LLM
from course_utils.plumbing.journal import Journal
from course_utils.plumbing.parts import BrokenPart, is_journal, parts, read_manifest, verify
from course_utils.recipe import Endpoint, Recipe
from course_utils.tasks import read_tasks

LONGEST_VERDICT = 512  # tokens, for an estimate before there is a verdict


def steps(store: CheckpointStore, recipe: Recipe, data: Path | None = None) -> list[str]:
    """Return two lines for each step of a run: what there is of it, and what a rerun would do."""
    lines = []
    progress, on_the_way = _look(store, "train-progress")
    for step in ("preprocess", "train", "evaluate"):
        said, places = _look(store, step)
        if step == "preprocess":
            rerun = _preprocess(recipe, places, data)
        elif step == "train":
            rerun = _train(places, on_the_way)
            said += f"; on the way: {progress}"
        else:
            rerun = _evaluate(recipe, places)
        lines += [f"{step:<13}{said}", f"{'':13}rerun: {rerun}"]
    return lines


def _look(store: CheckpointStore, step: str) -> tuple[str, list[Path]]:
    """Say what lies in a step's folders; return its whole parts, newest first, and its work."""
    home, said, places = store.root / store.run / step, [], []
    for part in [*reversed(parts(home)), *reversed(parts(home / "journals"))]:
        name = part.relative_to(home).as_posix()
        try:
            manifest = read_manifest(part)
            verify(part, manifest)  # every byte
            said.append(f"{name} whole ({len(manifest['files'])} files)")
            places.append(part)
        except BrokenPart as broken:
            said.append(f"{name} BROKEN ({broken})")
    work = store.local_root / store.run / step / "work"  # `store.local` would make it
    if files := [path for path in work.rglob("*") if path.is_file()]:
        said.append(f"working folder with {len(files)} files")
    return "; ".join(said) or "nothing yet", [*places, work]


def _preprocess(recipe: Recipe, places: list[Path], data: Path | None) -> str:
    if data:
        return "reads DATA again, no calls."
    calls = _sealed(places, "funnel.json").get("calls")
    requests = generation_requests(read_tasks(REPO / "data" / "seed_tasks.jsonl"),
                                   seed=recipe.data.seed)
    plan = _client(recipe.teacher, places).plan(islice(requests, calls or recipe.data.n // 20))
    return f"{plan}." if calls else f"{plan} at least, more where tasks are rejected."


def _train(places: list[Path], on_the_way: list[Path]) -> str:
    if _sealed(places, "result.json"):
        return "returns the sealed adapter if recipe and data are the same; no calls, $0.00."
    saved = [path for place in on_the_way for path in place.glob("checkpoints/checkpoint-*")]
    numbers = [int(path.name.rpartition("-")[2]) for path in saved]
    begin = f"goes on from step {max(numbers)}" if numbers else "trains from the start"
    return f"{begin}; no calls, $0.00."


def _evaluate(recipe: Recipe, places: list[Path]) -> str:
    llm, spec = _client(recipe.judge, places), recipe.evaluate
    there = len(llm.journal)
    calls = 0 if _sealed(places, "summary.json") else max(0, 2 * spec.questions - there)
    guess = {"prompt_tokens": 400 + 2 * spec.max_new_tokens, "completion_tokens": LONGEST_VERDICT}
    each = llm.spent / there if there else llm.cost(guess)
    return (f"{calls:,} calls to make ({there:,} already in the journal), about "
            f"${calls * each:.2f}, for {spec.questions:,} questions in both orders.")


def _client(endpoint: Endpoint, places: list[Path]) -> LLM:
    """A client that only plans: what the journals in these folders hold, in memory."""
    journal = Journal.open(None)
    found = [path for place in places for path in place.rglob("*.jsonl") if is_journal(path.name)]
    for line in b"\n".join(path.read_bytes() for path in found).split(b"\n"):
        try:
            record = json.loads(line)
            used = record["usage"]["prompt_tokens"] + record["usage"]["completion_tokens"]
            if record["model"] == endpoint.model and used >= 0:
                journal.add(record)
        except (ValueError, KeyError, TypeError):
            continue  # a torn line, or a record about batches
    return LLM(endpoint.model, journal=journal, price=endpoint.price, params=endpoint.params)


def _sealed(places: list[Path], name: str) -> dict:
    """The content of a file of the newest whole part that has it, or {}."""
    for path in (place / name for place in places[:-1]):
        if path.is_file():
            return json.loads(path.read_text(encoding="utf-8"))
    return {}
