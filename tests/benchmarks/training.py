"""What batches hold and how fast they are trained: padding, tokens per second, and what it costs.

    python tests/benchmarks/training.py [--repeats 3] [--seeds 3] [--only padding speed accuracy]

Padding: the share of padding in what is computed, for batches drawn at random, grouped by length
(ours, and transformers' own way) and padding-free, on the offline recipe's data and on rows of
widely different lengths. Speed: tokens that are no padding, per second of training, for the offline
recipe with random and with length-grouped batches against a plain SFTTrainer that is given the same
conversations, interleaved, one thread each. Accuracy: exact match on held-out tasks after training
with either order, over seeds. Writes results/training.json with the machine's load at each part.
"""

import argparse
import datetime
import json
import os
import platform
import random
import statistics
import tempfile
import time
from pathlib import Path

import datasets
import torch
from peft import LoraConfig
from transformers import PrinterCallback, TrainerCallback
from transformers.trainer_pt_utils import get_length_grouped_indices
from trl import SFTConfig, SFTTrainer
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from course_utils import REPO
from course_utils.checkpoint import CheckpointStore
from course_utils.collator import MaskingCollator, encode_tasks
from course_utils.inference import load_base, load_model, load_tokenizer, quiet, reply
from course_utils.offline import world
from course_utils.prompts import get_template
from course_utils.recipe import TrainSpec, load_recipe
from course_utils.scale.trainer import RowOrder
from course_utils.stats import exact_match, wilson_interval
from course_utils.tasks import read_tasks, write_atomic
from course_utils.train import train

DATA = REPO / "assets/sample/preprocess/tasks.jsonl"
EPOCHS = 3  # of batches, for the padding


def wide_rows(n: int) -> list[dict]:
    """Rows whose lengths are spread like those of real answers: log-normal, 8 to 2,048 tokens."""
    rng = random.Random(0)
    lengths = [min(2048, max(8, int(rng.lognormvariate(5.0, 0.9)))) for _ in range(n)]
    return [{"input_ids": [5] * n, "labels": [5] * n} for n in lengths]


def padding_of(rows: list[dict], orders: list[list[int]], batch: int, collate) -> float:
    """The share of padding in all tokens of the batches that a collator makes."""
    real = computed = 0
    for order in orders:
        for at in range(0, len(order), batch):
            chosen = [rows[i] for i in order[at : at + batch]]
            real += sum(len(row["input_ids"]) for row in chosen)
            computed += collate(chosen)["input_ids"].numel()
    return 1 - real / computed


def measure_padding(body: str, rows: list[dict], batch: int) -> list[dict]:
    """One line a way of batching: its share of padding over EPOCHS epochs."""
    lengths = [len(row["input_ids"]) for row in rows]

    def orders(sampling):
        spec = TrainSpec(batch_size=batch, sampling=sampling)
        order, found = RowOrder(lengths, spec), []
        for order.epoch in range(EPOCHS):
            found.append(list(order))
        return found

    shuffled, grouped = orders("random"), orders("length")
    torch.manual_seed(0)
    theirs = [get_length_grouped_indices(lengths, batch) for _ in range(EPOCHS)]
    flat = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)
    ways = [
        ("random", shuffled, MaskingCollator(0)),
        ("length, on a GPU", grouped, MaskingCollator(0)),
        ("length, on a CPU", grouped, MaskingCollator(0, pad_to_multiple_of=1)),
        ("length, transformers' order", theirs, MaskingCollator(0)),
        ("padding-free", shuffled, flat),
    ]
    return [
        {
            "data": body, "rows": len(rows), "batch": batch, "way": way,
            "mean_length": statistics.mean(lengths), "longest": max(lengths),
            "padding": padding_of(rows, order, batch, collate),
        }
        for way, order, collate in ways
    ]  # fmt: skip


class Clock(TrainerCallback):
    """The seconds between the beginning and the end of training."""

    def on_train_begin(self, args, state, control, **kwargs):
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def on_train_end(self, args, state, control, **kwargs):
        self.wall = time.perf_counter() - self.wall
        self.cpu = time.process_time() - self.cpu


def train_ours(recipe, rows, sampling: str, root: str, step: str) -> Clock:
    """Train the recipe with our trainer, checkpoints and their sealing included."""
    clock = Clock()
    recipe = recipe.replace("train.sampling", sampling)
    store = CheckpointStore.open("speed", root)
    train(recipe, store, rows=rows, step=step, callbacks=[clock], progress=False)
    return clock


def train_plain(recipe, tasks, root: str, step: str) -> Clock:
    """Give SFTTrainer the conversations and the same settings, and leave the rest to it."""
    spec, clock = recipe.train, Clock()
    model, tokenizer = load_base(recipe.base_model, dtype="float32")

    def turns(task):
        question = f"{task.instruction}\n\n{task.input}" if task.input else task.instruction
        return {
            "prompt": [{"role": "user", "content": question}],
            "completion": [{"role": "assistant", "content": task.output}],
        }

    with quiet():
        trainer = SFTTrainer(
            model=model,
            args=SFTConfig(
                output_dir=f"{root}/{step}", num_train_epochs=spec.epochs,
                per_device_train_batch_size=spec.batch_size, learning_rate=spec.learning_rate,
                lr_scheduler_type=spec.scheduler, warmup_steps=spec.warmup,
                max_grad_norm=spec.max_grad_norm, seed=spec.seed, bf16=False, use_cpu=True,
                gradient_checkpointing=False, report_to="none", disable_tqdm=True,
                max_length=spec.max_length, save_strategy="no", dataloader_pin_memory=False,
            ),
            train_dataset=datasets.Dataset.from_list([turns(task) for task in tasks]),
            processing_class=tokenizer,
            peft_config=LoraConfig(
                r=spec.lora_r, lora_alpha=spec.lora_alpha, task_type="CAUSAL_LM",
                target_modules=list(spec.target_modules),
            ),
            callbacks=[clock],
        )  # fmt: skip
        trainer.remove_callback(PrinterCallback)
        clock.tokens = sum(len(row["input_ids"]) for row in trainer.train_dataset)
        trainer.train()
    return clock


def measure_speed(recipe, tasks, rows, repeats: int) -> list[dict]:
    """Interleaved runs of one epoch: real tokens a second, by wall clock and by CPU time."""
    recipe = recipe.replace("train.epochs", 1.0)
    tokens = sum(len(row["input_ids"]) for row in rows)
    runs = []
    with tempfile.TemporaryDirectory() as root:
        for number in range(repeats):
            for way in ("plain", "random", "length"):
                load, step = os.getloadavg()[0], f"{way}-{number}"
                if way == "plain":
                    clock = train_plain(recipe, tasks, root, step)
                    seen = clock.tokens
                else:
                    clock = train_ours(recipe, rows, way, root, step)
                    seen = tokens
                runs.append({
                    "way": way, "run": number, "load": round(load, 2), "tokens": seen,
                    "seconds": round(clock.wall, 2), "cpu_seconds": round(clock.cpu, 2),
                    "tokens_per_second": seen / clock.wall,
                    "tokens_per_cpu_second": seen / clock.cpu,
                })  # fmt: skip
                print(f"{step}: {seen / clock.wall:,.0f} tokens/s, load {load:.2f}", flush=True)
    return runs


def summarize_speed(runs: list[dict]) -> list[dict]:
    """Medians of each way, and how many times as fast as the plain trainer it is."""
    rows = []
    for way in ("plain", "random", "length"):
        row = {"way": way}
        for name in ("tokens_per_second", "tokens_per_cpu_second"):
            values = {
                w: statistics.median(r[name] for r in runs if r["way"] == w)
                for w in (way, "plain")
            }
            row[name] = values[way]
            row[f"{name}_ratio"] = values[way] / values["plain"]
        rows.append(row)
    return rows


def measure_accuracy(recipe, rows, seeds: int, per_family: int) -> list[dict]:
    """Exact match on held-out tasks after the whole recipe, with either order of rows."""
    heldout = world.heldout_tasks(per_family)
    template = get_template(recipe.train.template, load_tokenizer(recipe.base_model))
    prompts, measured = [template.render(task) for task in heldout], []
    with tempfile.TemporaryDirectory() as root:
        store = CheckpointStore.open("accuracy", root)
        for seed in range(seeds):
            for sampling in ("random", "length"):
                changed = recipe.replace("train.seed", seed).replace("train.sampling", sampling)
                result = train(changed, store, rows=rows, progress=False, step=f"{sampling}-{seed}")
                model, tokenizer = load_model(recipe.base_model, result.adapter)
                replies = reply(
                    model, tokenizer, prompts, batch_size=recipe.evaluate.batch_size,
                    max_new_tokens=recipe.evaluate.max_new_tokens,
                )  # fmt: skip
                hits = [exact_match(r, t.output) for r, t in zip(replies, heldout, strict=True)]
                low, high = wilson_interval(sum(hits), len(hits))
                measured.append({
                    "sampling": sampling, "seed": seed, "prompts": len(hits),
                    "exact_match": statistics.mean(hits), "low": low, "high": high,
                    "last_loss": result.last_loss, "seconds": result.seconds,
                })  # fmt: skip
                print(f"seed {seed}, {sampling}: {statistics.mean(hits):.1%}", flush=True)
    return measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts = ("padding", "speed", "accuracy")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--per-family", type=int, default=30)
    parser.add_argument("--only", nargs="*", default=parts, choices=parts)
    parser.add_argument("--out", type=Path, default=REPO / "tests/benchmarks/results/training.json")
    args = parser.parse_args()

    datasets.disable_progress_bars()
    # One thread: two jobs of two threads each are many times slower than one thread each.
    recipe = load_recipe("offline").replace("train.threads", 1)
    torch.set_num_threads(1)
    tokenizer = load_tokenizer(recipe.base_model)
    template = get_template(recipe.train.template, tokenizer)
    tasks = read_tasks(DATA)
    rows = list(encode_tasks(tokenizer, tasks, template, recipe.train.max_length)[0])
    record = json.loads(args.out.read_text(encoding="utf-8")) if args.out.is_file() else {}
    about = {"date": datetime.date.today().isoformat(), "machine": platform.machine(),
             "cpus": os.cpu_count(), "torch": torch.__version__, "threads": 1}  # fmt: skip

    def write(**found):
        record.update(found)
        write_atomic(args.out, json.dumps(record, ensure_ascii=False, indent=1) + "\n")

    if "padding" in args.only:
        measured = []
        for batch in (4, recipe.train.batch_size):
            measured += measure_padding("offline", rows, batch)
            measured += measure_padding("wide", wide_rows(len(rows)), batch)
        for row in measured:
            print(f"{row['data']:8} batch {row['batch']:2}  {row['padding']:6.1%}  {row['way']}")
        write(padding={**about, "rows": measured})
    if "speed" in args.only:
        runs = measure_speed(recipe, tasks, rows, args.repeats)
        summary = summarize_speed(runs)
        for row in summary:
            print(f"{row['way']:7} {row['tokens_per_second']:7,.0f} tokens/s, "
                  f"{row['tokens_per_second_ratio']:.2f} times plain "
                  f"({row['tokens_per_cpu_second_ratio']:.2f} by CPU time)")  # fmt: skip
        write(speed={**about, "summary": summary, "runs": runs})
    if "accuracy" in args.only:
        runs = measure_accuracy(recipe, rows, args.seeds, args.per_family)
        write(accuracy={**about, "runs": runs})
    print(f"written to {args.out}")


if __name__ == "__main__":
    main()
