"""Self-instruct: seeds go in, a dataset of new tasks comes out.

    3 seeds -> prompt -> teacher -> candidates -> rules -> similarity -> kept, until there are n

Request i shows seeds drawn by a generator seeded with i, and replies are taken in the order of the
requests, so the dataset is a function of the journal: run it again, with the network faster, slower
or gone, and every byte is the same. Whatever is not kept is counted under one named reason.

Sources: Self-Instruct (Wang et al., 2023), Stanford Alpaca (2023). Taught in 01, section 5.
"""

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import count
from pathlib import Path

from tqdm.auto import tqdm

from course_utils import CourseError
from course_utils.llm import LLM, Reply, Request
from course_utils.parsing import RULES, check_task, parse_generation
from course_utils.prompts import TASKS_FORMAT, generation_prompt
from course_utils.similarity import SimilarityFilter, filter_similar, morphemes
from course_utils.tasks import Task, write_tasks

EXAMPLES = 3  # seeds shown in a prompt
REASONS = (*RULES, "truncated", "similar")
"""Every reason a candidate can be rejected for, in the order in which reports list them."""


@dataclass(frozen=True)
class GenerationReport:
    """The funnel: candidates = kept + everything rejected, by reason.

    `calls`, `tokens` and `cost` (dollars) are those of the replies that were used, paid for now or
    earlier. `note` says why there are fewer tasks than asked for.
    """

    candidates: int
    kept: int
    rejected: dict[str, int]
    calls: int
    tokens: int
    cost: float
    path: Path
    note: str = ""

    @classmethod
    def of(cls, kept: Sequence[Task], rejected: Counter, used: Sequence[Reply], out, note: str,
           reasons: Sequence[str] = REASONS):
        """The report of a run whose tasks this writes to `out`."""
        write_tasks(out, kept)
        return cls(len(kept) + rejected.total(), len(kept), _ordered(rejected, reasons), len(used),
                   sum(sum(reply.usage.values()) for reply in used),
                   sum(reply.cost for reply in used), Path(out), note)

    def __str__(self) -> str:
        rows = [("candidates", self.candidates), *self.rejected.items(), ("kept", self.kept)]
        lines = [f"{name:24}{number:8,}" for name, number in rows]
        lines.append(f"{self.calls:,} calls, {self.tokens:,} tokens, ${self.cost:.2f}, {self.path}")
        return "\n".join([*lines, self.note]).rstrip()


def question_text(task: Task) -> str:
    """What the similarity filter compares: the instruction and, below it, the input."""
    return f"{task.instruction}\n{task.input}".strip()


def generation_requests(seeds: Sequence[Task], *, seed: int = 0, batch: int = 20,
                        as_json: bool = False) -> Iterator[Request]:
    """The endless requests of the loop, the i-th always the same, each for `batch` tasks, as
    numbered text or `as_json`; `LLM.plan` takes a slice."""
    if not seeds:
        raise CourseError("There is no seed task to start from: data/seed_tasks.jsonl has some.")
    for index in count():
        shown = random.Random(f"{seed}/{index}").sample(seeds, min(EXAMPLES, len(seeds)))
        prompt = generation_prompt(shown, batch, as_json=as_json)
        params = {"seed": index, "max_tokens": 200 * batch}
        if as_json:
            params["response_format"] = TASKS_FORMAT
        yield Request([{"role": "user", "content": prompt}], params)


def generate_tasks(llm: LLM, seeds: Sequence[Task], n: int, *, out, threshold: float = 0.7,
                   seed: int = 0, batch: int = 20, as_json: bool = False, progress: bool = True,
                   patience: int = 20) -> GenerationReport:
    """Ask the teacher for tasks until n good ones are kept, and write them to `out` (JSONL).

    A task is kept if it passes the rules and its ROUGE-L with every seed and every task kept so
    far is at most `threshold`. Its meta names the request, the model and the nearest neighbour.
    After `patience` calls in a row without a new task the teacher has run dry, as the report says.
    Raises CourseError if the server fails or the budget is reached; run it again to go on.
    """
    # A kept task is looked up twice, admitted and then for its nearest; tokenising is what costs.
    similar = SimilarityFilter(threshold, lru_cache(maxsize=1)(morphemes))
    for task in seeds:
        similar.add(question_text(task))
    kept: list[Task] = []
    used: list[Reply] = []
    rejected, barren = Counter(), 0
    requests = generation_requests(seeds, seed=seed, batch=batch, as_json=as_json)
    with (closing(llm.complete(requests)) as replies,
          tqdm(total=n, desc="tasks", unit="task", disable=not progress) as bar):
        while len(kept) < n and barren < patience:
            # The next reply, always in the order of the requests.
            reply, before = next(replies), len(kept)
            used.append(reply)
            if reply.text is None and reply.finish_reason != "refused":
                # The next run would fill a gap here, and all that follows would be different.
                raise CourseError(f"Generation stopped at request {len(used)}, with {before} of "
                                  f"{n} tasks: {reply.error}. Run again to go on.")
            # Cut it into tasks. What is no task, or breaks a rule, is counted by its reason.
            parsed = parse_generation(reply.text or "", finish_reason=reply.finish_reason,
                                      first_number=min(EXAMPLES, len(seeds)) + 1)
            rejected.update(reason for reason, _ in parsed.rejected)
            for task in parsed.tasks:
                if len(kept) == n:
                    break
                # What resembles a seed, or a task that is kept already, teaches nothing new.
                if similar.admit(question_text(task)):
                    rejected["similar"] += 1
                    continue
                origin = {"request": reply.key, "model": reply.model,
                          "nearest": _nearest(similar, task, len(seeds))}
                kept.append(replace(task, meta=origin))
            barren = 0 if len(kept) > before else barren + 1
            bar.update(len(kept) - before)
            bar.set_postfix(rejected=rejected.total(), spent=f"${llm.spent:.2f}")
    note = ""
    if len(kept) < n:
        note = f"Stopped at {len(kept)} of {n} tasks: the last {barren} calls brought nothing new."
        if refused := [reply.error for reply in used if reply.text is None]:
            note += f" {len(refused)} of {len(used)} were refused, the last because {refused[-1]}."
    return GenerationReport.of(kept, rejected, used, out, note)


def filter_tasks(tasks: Iterable[Task], threshold: float = 0.7) -> tuple[list[Task], dict]:
    """The same rules and the same filter for tasks from elsewhere: (kept, rejected by reason)."""
    reasons = [(task, check_task(task)) for task in tasks]
    good = [task for task, reason in reasons if reason is None]
    filtered = filter_similar(map(question_text, good), threshold)
    rejected = Counter(reason for _, reason in reasons)
    rejected["similar"] += len(filtered.dropped)
    return [good[index] for index in filtered.kept], _ordered(rejected)


def _nearest(similar: SimilarityFilter, task: Task, seeds: int) -> dict:
    """The nearest neighbour of the task admitted last, for its meta."""
    match = similar.nearest(question_text(task), among=len(similar) - 1)
    among, index = ("seeds", match.index) if match.index < seeds else ("kept", match.index - seeds)
    return {"among": among, "index": index, "score": round(match.score, 4)}


def _ordered(rejected: Counter, reasons: Sequence[str] = REASONS) -> dict[str, int]:
    return {reason: rejected[reason] for reason in reasons if rejected[reason]}
