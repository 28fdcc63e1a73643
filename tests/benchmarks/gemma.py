"""How fast Gemma 3 270M is tuned on a CPU: ours against a plain SFTTrainer, on the same rows.

    make open-models
    python tests/benchmarks/gemma.py [--repeats 3] [--threads 2]

8 of the seeds are one step, the same for each way whatever its order of rows: a plain SFTTrainer
in float32, ours in float32 (the head for trained tokens alone), ours in bfloat16. Two steps a run,
interleaved; the losses lie beside the times. Writes results/gemma.json.
"""

import argparse
import datetime
import json
import os
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import datasets
import torch
from peft import LoraConfig
from transformers import PrinterCallback, TrainerCallback
from trl import SFTConfig, SFTTrainer

from course_utils import REPO
from course_utils.collator import MaskingCollator, encode_tasks
from course_utils.inference import load_base, load_tokenizer, quiet
from course_utils.prompts import get_template
from course_utils.recipe import load_recipe
from course_utils.tasks import read_tasks, write_atomic
from course_utils.train import make_trainer

OUT = REPO / "tests/benchmarks/results/gemma.json"
ROWS, STEPS = 8, 2


class Clock(TrainerCallback):
    """The seconds between the beginning and the end of training."""

    def on_train_begin(self, args, state, control, **kwargs):
        self.start = time.perf_counter()

    def on_train_end(self, args, state, control, **kwargs):
        self.seconds = time.perf_counter() - self.start


def plain(recipe, tokenizer, rows, folder: Path) -> SFTTrainer:
    """TRL's own trainer, given rows, masks and settings, in float32."""
    spec = recipe.train
    model, _ = load_base(recipe.base_model, dtype="float32")
    return SFTTrainer(
        model=model,
        args=SFTConfig(
            output_dir=str(folder), num_train_epochs=spec.epochs, seed=spec.seed,
            per_device_train_batch_size=spec.batch_size, learning_rate=spec.learning_rate,
            gradient_accumulation_steps=spec.gradient_accumulation, warmup_steps=spec.warmup,
            lr_scheduler_type=spec.scheduler, max_grad_norm=spec.max_grad_norm, bf16=False,
            use_cpu=True, gradient_checkpointing=False, report_to="none", disable_tqdm=True,
            logging_steps=1, save_strategy="no", dataloader_pin_memory=False, max_length=None,
            dataset_kwargs={"skip_prepare_dataset": True}),
        train_dataset=datasets.Dataset.from_list(rows), processing_class=tokenizer,
        data_collator=MaskingCollator(tokenizer.pad_token_id),
        peft_config=LoraConfig(r=spec.lora_r, lora_alpha=spec.lora_alpha, task_type="CAUSAL_LM",
                               target_modules=list(spec.target_modules)))  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    if not (REPO / "models" / "gemma-3-270m").is_dir():
        return print("Gemma is not here: `make open-models` fetches it.")
    torch.set_num_threads(args.threads)
    recipe = load_recipe("gemma-270m")
    spec = replace(recipe.train, batch_size=4, gradient_accumulation=ROWS // 4, epochs=float(STEPS),
                   attention="sdpa", save_steps=1000)  # fmt: skip
    tokenizer = load_tokenizer(recipe.base_model)
    seeds = read_tasks(REPO / "data" / "seed_tasks.jsonl")[:ROWS]
    rows = list(encode_tasks(tokenizer, seeds, get_template(spec.template), spec.max_length)[0])
    trained = STEPS * sum(label != -100 for row in rows for label in row["labels"])
    runs = []
    for number in range(args.repeats):
        for way in ("plain", "float32", "bfloat16"):
            with quiet(), tempfile.TemporaryDirectory() as folder:
                dtype = "float32" if way == "plain" else way
                here, clock = replace(recipe, train=replace(spec, dtype=dtype)), Clock()
                trainer = (plain(here, tokenizer, rows, Path(folder)) if way == "plain" else
                           make_trainer(here, tokenizer, rows, [], Path(folder)))  # fmt: skip
                trainer.remove_callback(PrinterCallback)
                trainer.add_callback(clock)
                trainer.train()
            losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
            runs.append({"way": way, "run": number, "seconds": round(clock.seconds, 2),
                         "trained_per_second": round(trained / clock.seconds, 2),
                         "losses": losses})  # fmt: skip
            print(runs[-1], flush=True)
            del trainer
    speed = {way: statistics.median(r["trained_per_second"] for r in runs if r["way"] == way)
             for way in ("plain", "float32", "bfloat16")}  # fmt: skip
    apart = max(abs(a - b) for run in range(args.repeats) for a, b in zip(
        *[r["losses"] for r in runs if r["run"] == run and r["way"] != "bfloat16"], strict=True))
    record = {
        "date": datetime.date.today().isoformat(), "cpus": os.cpu_count(),
        "threads": args.threads, "torch": torch.__version__, "rows": ROWS,
        "trained_tokens": trained, "speed": speed, "losses_apart": apart, "runs": runs,
        "ratio": {way: round(value / speed["plain"], 2) for way, value in speed.items()},
    }  # fmt: skip
    write_atomic(OUT, json.dumps(record, indent=1) + "\n")
    print(record["ratio"], f"losses apart by {apart:.1g} in float32")


if __name__ == "__main__":
    main()
