"""What the tiny Gemma learns from its own course, over three seeds: the mask, the rank, the rest.

    python tests/benchmarks/tuning.py [--seeds 3] [--per-family 60] [--variants response full ...]

For each seed the whole data engine runs (simulated teacher, rules, filter), then the offline recipe
trains once a variant with the same data and the same number of steps: LoRA r=4 on the response
only, on everything (prompt included), with a mask that reaches one token too far; LoRA r=16; full
fine-tuning. Exact match on held-out tasks, by family, and on wordings never seen in training.
Writes results/tuning.json, going on from what is there; README and notebook 02 take it from there.
"""

import argparse
import datetime
import hashlib
import json
import statistics
import tempfile
import time
from pathlib import Path

from course_utils import REPO
from course_utils.checkpoint import CheckpointStore
from course_utils.collator import IGNORE_INDEX, encode_tasks
from course_utils.generate import generate_tasks
from course_utils.inference import load_model, reply
from course_utils.offline import world
from course_utils.prompts import get_template
from course_utils.session import setup
from course_utils.stats import exact_match
from course_utils.tasks import read_tasks, write_atomic
from course_utils.train import train

SEED_TASKS = REPO / "data/seed_tasks.jsonl"
# name -> (mask, changes of the recipe). Without adapters every weight moves, so full fine-tuning
# takes smaller steps, a quarter of the adapters'; that rate was not searched for.
VARIANTS = {
    "response": ("response", {}),
    "everything": ("everything", {}),
    "one token late": ("one token late", {}),
    "rank 16": ("response", {"train.lora_r": 16}),
    "full": ("response", {"train.lora_r": 0, "train.learning_rate": 5e-4}),
}


def masked(rows, mask: str) -> list[dict]:
    """The rows with other labels; as encoded, they train the response only."""
    changed = []
    for row in rows:
        ids, labels = row["input_ids"], list(row["labels"])
        if mask == "everything":
            labels = list(ids)
        elif mask == "one token late":
            first = next(i for i, label in enumerate(labels) if label != IGNORE_INDEX)
            labels[first] = IGNORE_INDEX
        changed.append({"input_ids": ids, "labels": labels})
    return changed


def by_family(model, tokenizer, template, tasks, options) -> dict[str, float]:
    """Exact match of greedy replies, by family."""
    replies = reply(model, tokenizer, [template.render(task) for task in tasks], **options)
    right: dict[str, list[bool]] = {}
    for task, text in zip(tasks, replies, strict=True):
        right.setdefault(task.meta["family"], []).append(exact_match(text, task.output))
    return {family: sum(hits) / len(hits) for family, hits in right.items()}


def earlier_runs(path: Path, record: dict) -> list[dict]:
    """What an interrupted benchmark of the same kind has already measured."""
    if not path.is_file():
        return []
    earlier = json.loads(path.read_text(encoding="utf-8"))
    return earlier["runs"] if _agrees(earlier, json.loads(json.dumps(record))) else []


def _agrees(earlier, now) -> bool:
    """Whether all settings that both know are equal; a setting added since has its old meaning."""
    if isinstance(earlier, dict) and isinstance(now, dict):
        return all(_agrees(earlier[key], now[key]) for key in earlier.keys() & now.keys())
    return earlier == now


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--per-family", type=int, default=60)
    parser.add_argument("--variants", nargs="*", default=list(VARIANTS), choices=VARIANTS)
    parser.add_argument("--out", type=Path, default=REPO / "tests/benchmarks/results/tuning.json")
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as root:
        course = setup("offline", root=root)
        options = {"max_new_tokens": course.recipe.evaluate.max_new_tokens,
                   "batch_size": course.recipe.evaluate.batch_size}
        heldout = world.heldout_tasks(args.per_family)
        unseen = world.heldout_tasks(args.per_family // 2, wordings="unseen")
        model, tokenizer = load_model(course.base_model)
        template = get_template(course.recipe.train.template, tokenizer)
        before = by_family(model, tokenizer, template, heldout, options)
        print("before tuning", _line(before))

        record = {"per_family": args.per_family, "recipe": course.recipe.to_dict(),
                  "seeds_sha256": hashlib.sha256(SEED_TASKS.read_bytes()).hexdigest(),
                  "before": before, "before_mean": statistics.mean(before.values())}
        runs = earlier_runs(args.out, record)
        record["date"] = datetime.date.today().isoformat()
        for seed in range(args.seeds):
            done = {run["variant"] for run in runs if run["seed"] == seed}
            wanted = [name for name in args.variants if name not in done]
            if not wanted:
                continue
            recipe = course.recipe.replace("data.seed", seed).replace("train.seed", seed)
            store = CheckpointStore.open(f"seed-{seed}", root)
            out = store.local("preprocess") / "tasks.jsonl"
            report = generate_tasks(
                course.llm("teacher", journal=out.with_name("journal.jsonl")),
                read_tasks(SEED_TASKS), recipe.data.n,
                out=out, threshold=recipe.data.threshold, seed=seed, progress=False,
            )
            rows, _ = encode_tasks(tokenizer, read_tasks(out), template, recipe.train.max_length)
            for name in wanted:
                mask, changes = VARIANTS[name]
                changed = recipe
                for key, value in changes.items():
                    changed = changed.replace(key, value)
                start, cpu = time.time(), time.process_time()
                result = train(changed, store, rows=masked(rows, mask), progress=False,
                               step=name.replace(" ", "-"))
                run = {"variant": name, "seed": seed, "tasks": report.kept,
                       "first_loss": result.first_loss, "last_loss": result.last_loss,
                       "seconds": round(time.time() - start, 1),
                       "cpu_seconds": round(time.process_time() - cpu, 1)}
                if changed.train.lora_r:
                    tuned, _ = load_model(course.base_model, result.adapter)
                else:
                    tuned, _ = load_model(result.adapter)
                run["by_family"] = by_family(tuned, tokenizer, template, heldout, options)
                run["unseen"] = by_family(tuned, tokenizer, template, unseen, options)
                run["mean"] = statistics.mean(run["by_family"].values())
                run["unseen_mean"] = statistics.mean(run["unseen"].values())
                runs.append(run)
                print(f"seed {seed}, {name}: {run['mean']:.1%}, unseen wordings "
                      f"{run['unseen_mean']:.1%}, {run['cpu_seconds']} CPU s",
                      _line(run["by_family"]), flush=True)
                record["runs"] = runs
                write_atomic(args.out, json.dumps(record, ensure_ascii=False, indent=1) + "\n")

    print(f"written to {args.out}")


def _line(shares: dict[str, float]) -> str:
    return "  ".join(f"{family} {share:.0%}" for family, share in shares.items())


if __name__ == "__main__":
    main()
