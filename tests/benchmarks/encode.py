"""Encoding and masking 10,000 examples: by segments in batches, against Alpaca's way.

    python tests/benchmarks/encode.py [--examples 10000] [--repeats 3]

Alpaca's train.py tokenises every prompt with its response and then every prompt once more to learn
its length, one string at a time; its preprocessing is written here again. Both start from the same
tasks and end in ids and labels. Labels must be equal wherever Alpaca's are right; where they are
not, the reason is counted, and any other difference ends the run. Times are medians of interleaved
repeats. Writes results/encode.json.
"""

import argparse
import copy
import dataclasses
import datetime
import json
import os
import platform
import statistics
import time
from collections import Counter
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import torch

from course_utils import REPO
from course_utils.collator import IGNORE_INDEX, encode_prompts, encode_tasks, show_mask
from course_utils.inference import load_tokenizer
from course_utils.offline import world
from course_utils.prompts import KOALPACA, Template
from course_utils.tasks import Task, read_tasks, write_atomic

MAX_LENGTH = 512  # Alpaca's
SHOWN = 6  # tokens on either side of a border


def alpaca(tokenizer, tasks: list[Task], template: Template) -> list[tuple[list, list]]:
    """Ids and labels as Alpaca's preprocessing makes them."""
    prompts = [template.render(task) for task in tasks]
    texts = [p + task.output + tokenizer.eos_token for p, task in zip(prompts, tasks, strict=True)]

    def one_by_one(strings: list[str]) -> tuple[list[torch.Tensor], list[int]]:
        tokenized = [
            tokenizer(string, return_tensors="pt", padding="longest", max_length=MAX_LENGTH,
                      truncation=True, add_special_tokens=False).input_ids
            for string in strings
        ]
        lengths = [ids.ne(tokenizer.pad_token_id).sum().item() for ids in tokenized]
        return [ids[0] for ids in tokenized], lengths

    ids, _ = one_by_one(texts)
    _, lengths = one_by_one(prompts)
    labels = copy.deepcopy(ids)
    for label, length in zip(labels, lengths, strict=True):
        label[:length] = IGNORE_INDEX
    return list(zip(ids, labels, strict=True))


def compare(tokenizer, tasks: list[Task], template: Template) -> dict:
    """How many rows are equal, and for each reason how many are not, with an example."""
    rows = iter(encode_tasks(tokenizer, tasks, template, MAX_LENGTH)[0])
    prompts = encode_prompts(tokenizer, [template.render(task) for task in tasks])
    counts: Counter[str] = Counter()
    example = None
    theirs = alpaca(tokenizer, tasks, template)
    for task, prompt, (ids, labels) in zip(tasks, prompts, theirs, strict=True):
        ids, labels = ids.tolist(), labels.tolist()
        if len(prompt) >= MAX_LENGTH:  # encode_tasks drops and counts these
            if any(label != IGNORE_INDEX for label in labels):
                raise SystemExit(f"Alpaca trains on what is dropped here: {task}")
            counts["nothing left to train"] += 1
            continue
        ours = next(rows)
        if ids[:len(prompt)] != prompt:
            counts["a token merged across the border"] += 1
            around = slice(len(prompt) - SHOWN, len(prompt) + SHOWN)
            example = example or {
                name: show_mask(tokenizer, {
                    "input_ids": row[0][around], "labels": row[1][around]
                }, each_token=True).split("\n")
                for name, row in {"alpaca": (ids, labels),
                                  "by_segments": (ours["input_ids"], ours["labels"])}.items()
            }
        elif (ids, labels) == (ours["input_ids"], ours["labels"]):
            counts["equal"] += 1
        else:
            raise SystemExit(f"Rows differ for no known reason: {task}")
    if next(rows, None) is not None:
        raise SystemExit("There are more rows than tasks that can be trained on.")
    return {"end_of_prompt": template.response_marker, **dict(counts), "example": example}


def measure(function: Callable) -> dict[str, float]:
    """Wall and CPU seconds of one call."""
    start, cpu = time.perf_counter(), time.process_time()
    function()
    return {"wall": time.perf_counter() - start, "cpu": time.process_time() - cpu}


def ours(tokenizer, tasks: list[Task], template: Template, threads: str) -> None:
    """`encode_tasks` with as many threads as there are cores, or with one."""
    os.environ["TOKENIZERS_PARALLELISM"] = {"all": "true", "one": "false"}[threads]
    encode_tasks(tokenizer, tasks, template, MAX_LENGTH)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=REPO / "tests/benchmarks/results/encode.json")
    args = parser.parse_args()

    tokenizer = load_tokenizer("assets/tiny-gemma-ko")
    seeds = read_tasks(REPO / "data/seed_tasks.jsonl")[:args.examples]
    tasks = seeds + world.sample_tasks(args.examples - len(seeds), seed=0)
    # This tokenizer adds no BOS by itself; with one in the text both ways begin alike.
    template = dataclasses.replace(KOALPACA, **{
        name: tokenizer.bos_token + getattr(KOALPACA, name)
        for name in ("with_input", "without_input")})
    spaced = dataclasses.replace(
        template, with_input=template.with_input + " ",
        without_input=template.without_input + " ",
        response_marker=template.response_marker + " ")

    ways = {"alpaca": lambda: alpaca(tokenizer, tasks, template),
            "ours": lambda: ours(tokenizer, tasks, template, "all"),
            "ours_one_thread": lambda: ours(tokenizer, tasks, template, "one")}
    runs: dict[str, list[dict]] = {name: [] for name in ways}
    for _ in range(args.repeats):
        for name, way in ways.items():
            runs[name].append(measure(way))
    seconds = {name: {clock: round(statistics.median(run[clock] for run in each), 3)
                      for clock in ("wall", "cpu")} for name, each in runs.items()}
    _, report = encode_tasks(tokenizer, tasks, template, MAX_LENGTH)
    record = {
        "date": datetime.date.today().isoformat(), "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("transformers", "tokenizers", "datasets")},
        "examples": len(tasks), "seed_tasks": len(seeds), "max_length": MAX_LENGTH,
        "repeats": args.repeats, "report": dataclasses.asdict(report), "seconds": seconds,
        "times_faster": {name: round(seconds["alpaca"]["wall"] / seconds[name]["wall"], 1)
                         for name in ways if name != "alpaca"},
        "labels": [compare(tokenizer, tasks, each) for each in (template, spaced)],
    }
    write_atomic(args.out, json.dumps(record, ensure_ascii=False, indent=1) + "\n")
    print(f"{len(tasks):,} examples, {report}\n")
    for name, row in seconds.items():
        print(f"{name:18}{row['wall']:8.2f} s wall {row['cpu']:8.2f} s CPU"
              f"{seconds['alpaca']['wall'] / row['wall']:8.1f} times")
    for labels in record["labels"]:
        print("\n" + ", ".join(f"{k}: {v!r}" for k, v in labels.items() if k != "example"))
        for name, lines in (labels["example"] or {}).items():
            print(f"  {name}", *lines, sep="\n    ")
    print(f"written to {args.out}")


if __name__ == "__main__":
    main()
