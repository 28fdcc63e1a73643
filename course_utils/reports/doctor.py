"""What is there of each step of a run, whether it is whole, and what running it again would cost.

It looks and reads, and changes nothing. Taught at the beginning of 01.
"""

import json
from itertools import islice
from pathlib import Path

from course_utils import REPO
from course_utils.checkpoint import CheckpointStore
from course_utils.generate import generation_requests
from course_utils.llm import LLM
from course_utils.plumbing import parts
from course_utils.plumbing.journal import Journal
from course_utils.recipe import Endpoint, Recipe
from course_utils.tasks import read_tasks


def steps(store: CheckpointStore, recipe: Recipe, data: Path | None = None) -> list[str]:
    """Return two lines for each step of a run: what there is of it, and what a rerun would do."""
    generated, trained, judged = (_look(store, s) for s in ("preprocess", "train", "evaluate"))
    progress, on_the_way = _look(store, "train-progress")
    rows = [("preprocess", generated[0], _preprocess(recipe, generated[1], data)),
            ("train", f"{trained[0]}; on the way: {progress}", _train(trained[1], on_the_way)),
            ("evaluate", judged[0], _evaluate(recipe, judged[1]))]
    return [f"{step:<13}{said}\n{'':13}rerun: {rerun}" for step, said, rerun in rows]


def _look(store: CheckpointStore, step: str) -> tuple[str, list[Path]]:
    """Say what lies in a step's folders; return its whole parts, newest first, and its work."""
    home, said, places = store.root / store.run / step, [], []
    for part in [*reversed(parts.parts(home)), *reversed(parts.parts(home / parts.JOURNALS))]:
        name = part.relative_to(home).as_posix()
        try:
            parts.verify(part, manifest := parts.read_manifest(part))  # every byte
            said.append(f"{name} whole ({len(manifest['files'])} files)")
            places.append(part)
        except (parts.BrokenPart, OSError) as broken:
            said.append(f"{name} BROKEN ({broken})")
    work = store.local_root / store.run / step / "work"  # `store.local` would make it
    if files := [path for path in work.rglob("*") if path.is_file()]:
        said.append(f"working folder with {len(files)} files")
    return "; ".join(said) or "nothing yet", [*places, work]


def _preprocess(recipe: Recipe, places: list[Path], data: Path | None) -> str:
    if data:
        return "reads DATA again, no calls."
    calls = _sealed(places, "funnel.json").get("calls")
    seeds = read_tasks(REPO / "data" / "seed_tasks.jsonl")
    requests = generation_requests(seeds, seed=recipe.data.seed)
    plan = _client(recipe.teacher, places).plan(islice(requests, calls or recipe.data.n // 20))
    return f"{plan}." if calls else f"{plan} at least, more where tasks are rejected."


def _train(places: list[Path], on_the_way: list[Path]) -> str:
    if _sealed(places, "result.json"):
        return "returns the sealed adapter if recipe and data are the same; no calls, $0.00."
    numbers = [int(path.name.rpartition("-")[2]) for place in on_the_way
               for path in place.glob("checkpoints/checkpoint-*")]
    begin = f"goes on from step {max(numbers)}" if numbers else "trains from the start"
    return f"{begin}; no calls, $0.00."


def _evaluate(recipe: Recipe, places: list[Path]) -> str:
    llm, spec = _client(recipe.judge, places), recipe.evaluate
    there = len(llm.journal)
    calls = 0 if _sealed(places, "summary.json") else max(0, 2 * spec.questions - there)
    guess = {"prompt_tokens": 400 + 2 * spec.max_new_tokens, "completion_tokens": 512}
    each = llm.spent / there if there else llm.cost(guess)
    return (f"{calls:,} calls to make ({there:,} already in the journal), about "
            f"${calls * each:.2f}, for {spec.questions:,} questions in both orders.")


def _client(endpoint: Endpoint, places: list[Path]) -> LLM:
    """A client that only plans: what the journals in these folders hold, in memory."""
    journal = Journal.open(None)
    files = (path for place in places for path in place.rglob("*.jsonl"))
    found = [path.read_bytes() for path in files if parts.is_journal(path.name)]
    for line in b"\n".join(found).split(b"\n"):
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
