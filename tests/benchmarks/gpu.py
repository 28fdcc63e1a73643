"""What only a GPU can tell: memory, speed and kinds of attention, at Gemma-2B's true size.

    python tests/benchmarks/gpu.py [--recipe gemma-2b-l4] [--steps 30]
    python tests/benchmarks/gpu.py --dry       a tiny model on the CPU, to try the script itself

The weights are random, so nothing is downloaded and nothing is learned; shapes, types, batches and
code are those of a real training: SFTTrainer with our rows and collator, LoRA, checkpointing and
TRL's tiled head. Rows have the lengths of the course's 175 Korean seed tasks in the recipe's
template, drawn with replacement, in tokens of a byte-fallback BPE of 2,048 pieces; ids are random,
answers are trained. A second set has rows of the greatest length only: what the estimate is for.

Speed is tokens without padding a second, first steps left out. The share of the card's peak counts
what the mathematics of a step needs, not what checkpointing computes twice. Where there is no GPU
it says so and ends. Writes results/gpu.json.
"""

import argparse
import dataclasses
import datetime
import gc
import json
import random
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PrinterCallback, TrainerCallback

from course_utils import REPO
from course_utils.collator import IGNORE_INDEX, MaskingCollator, encode_tasks
from course_utils.inference import pick_attention, quiet
from course_utils.prompts import get_template
from course_utils.recipe import Recipe, load_recipe
from course_utils.scale.memory import (
    estimate_memory,
    model_config,
    parameters,
    trained_parameters,
)
from course_utils.scale.tiny import tiny_recipe, tiny_tokenizer
from course_utils.tasks import read_tasks, write_atomic

WARM_UP = 3
# Dense TFLOP/s of the tensor cores in half precision, from NVIDIA's data sheets; the first name
# that is part of the card's name counts.
PEAKS = {
    "H200": 989, "H100 PCIe": 756, "H100": 989, "A100": 312, "L40S": 362, "L4": 121, "A10G": 70,
    "A10": 125, "T4": 65,
}  # fmt: skip


def korean_rows(recipe: Recipe, n: int, vocabulary: int) -> list[dict[str, list[int]]]:
    """Rows with the lengths of real Korean tasks and random ids; the same every time."""
    tokenizer = tiny_tokenizer(recipe)
    template = get_template(recipe.train.template, tokenizer)
    seeds = read_tasks(REPO / "data" / "seed_tasks.jsonl")
    real, _ = encode_tasks(tokenizer, seeds, template, recipe.train.max_length)
    rng = random.Random(recipe.train.seed)
    rows = []
    for row in rng.choices(list(real), k=n):
        ids = [rng.randrange(vocabulary) for _ in row["input_ids"]]
        masked = [label == IGNORE_INDEX for label in row["labels"]]
        labels = [IGNORE_INDEX if m else i for i, m in zip(ids, masked, strict=True)]
        rows.append({"input_ids": ids, "labels": labels})
    return rows


def longest_rows(recipe: Recipe, n: int, vocabulary: int) -> list[dict[str, list[int]]]:
    """Rows of the greatest length, all of it trained."""
    rng, length = random.Random(recipe.train.seed), recipe.train.max_length
    rows = [[rng.randrange(vocabulary) for _ in range(length)] for _ in range(n)]
    return [{"input_ids": ids, "labels": ids} for ids in rows]


def flops_a_token(recipe: Recipe, length: float, answered: float) -> float:
    """Floating point operations that a training needs for one token.

    Two for each weight in the forward pass and two for the gradient of its input; two more where
    the weight is trained. The head counts for the share of answers. Attention adds 4 x length x
    width in each layer, half of it for the causal mask, three times for both passes.
    """
    config = model_config(recipe)
    embeddings = config["vocab_size"] * config["hidden_size"]
    layers = parameters(recipe) - embeddings * (1 if config["tie_word_embeddings"] else 2)
    heads = config["num_attention_heads"]
    width = heads * config.get("head_dim", config["hidden_size"] // heads)
    attention = 3 * 4 * length * width * config["num_hidden_layers"] / 2
    return (6 if recipe.train.full else 4) * (layers + embeddings * answered) + attention


class Watch(TrainerCallback):
    """Note when each step ends, with the GPU's work done."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, args, state, control, **kwargs):
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.ends.append(time.perf_counter())


class CountingCollator:
    """MaskingCollator that also counts what it has put together."""

    def __init__(self, pad: int) -> None:
        self.collate, self.batches = MaskingCollator(pad), []

    def __call__(self, rows):
        batch = self.collate(rows)
        tokens = int(batch["attention_mask"].sum())
        answered = int((batch["labels"] != IGNORE_INDEX).sum())
        self.batches.append((tokens, answered, batch["input_ids"].numel()))
        return batch


def trainer_for(recipe: Recipe, rows: list, folder: str, steps: int, collator: Any) -> Any:
    """An SFTTrainer as course_utils.train makes it, on a model with random weights."""
    import datasets
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    spec, gpu = recipe.train, torch.cuda.is_available()
    dtype = spec.dtype if gpu else "float32"
    names = {field.name for field in dataclasses.fields(SFTConfig)}
    checkpointing = next(
        name for name in ("activation_checkpointing", "gradient_checkpointing") if name in names
    )
    arguments = SFTConfig(
        output_dir=folder,
        max_steps=steps,
        per_device_train_batch_size=spec.batch_size,
        gradient_accumulation_steps=spec.gradient_accumulation,
        learning_rate=spec.learning_rate,
        optim=spec.optim,
        max_grad_norm=spec.max_grad_norm,
        bf16=dtype == "bfloat16",
        fp16=dtype == "float16",
        use_cpu=not gpu,
        seed=spec.seed,
        logging_steps=steps,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=gpu,
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        **{checkpointing: spec.activation_checkpointing},
    )
    with torch.device("cuda" if gpu else "cpu"):
        torch.manual_seed(spec.seed)
        model = AutoModelForCausalLM.from_config(
            AutoConfig.for_model(**model_config(recipe)),
            dtype=getattr(torch, "float32" if spec.full else dtype),
            attn_implementation=spec.attention,
        )
    lora = LoraConfig(
        r=spec.lora_r, lora_alpha=spec.lora_alpha, target_modules=list(spec.target_modules),
        task_type="CAUSAL_LM",
    )  # fmt: skip
    trainer = SFTTrainer(
        model=model,
        args=arguments,
        train_dataset=datasets.Dataset.from_list(rows),
        data_collator=collator,
        processing_class=tiny_tokenizer(recipe),
        peft_config=None if spec.full else lora,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def measure(recipe: Recipe, rows: list, steps: int, peak_tflops: float | None) -> dict[str, Any]:
    """Train for some steps; return memory in GiB (None without a GPU) and speed."""
    gpu, spec = torch.cuda.is_available(), recipe.train
    if gpu:
        gc.collect()  # the training before this one
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    watch, collator = Watch(), CountingCollator(0)
    with quiet(), tempfile.TemporaryDirectory() as folder:
        trainer = trainer_for(recipe, rows, folder, steps, collator)
        trainer.add_callback(watch)
        trainer.train()
    width = max(len(row["input_ids"]) for row in rows)
    width = -(-width // 8) * 8
    estimate = estimate_memory(recipe, length=width)
    result: dict[str, Any] = {
        "attention": spec.attention,
        "longest": width,
        "estimated_gib": round(estimate.total - estimate.overhead, 3),
        "allocated_gib": None,
    }
    if gpu:
        free, total = torch.cuda.mem_get_info()
        result["allocated_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 3)
        result["reserved_gib"] = round(torch.cuda.max_memory_reserved() / 2**30, 3)
        # What the driver counts beyond PyTorch's blocks: the context and its libraries.
        outside = total - free - torch.cuda.memory_reserved()
        result["outside_gib"] = round(outside / 2**30, 3)
        result["ratio"] = round(result["estimated_gib"] / result["allocated_gib"], 3)
    first = min(WARM_UP, steps - 1)
    seconds = watch.ends[-1] - watch.ends[first - 1]
    timed = collator.batches[first * spec.gradient_accumulation :][
        : (steps - first) * spec.gradient_accumulation
    ]
    tokens, answered, computed = (sum(column) for column in zip(*timed, strict=True))
    mean = tokens / len(timed) / spec.batch_size
    speed = tokens / seconds
    result |= {
        "tokens_a_second": round(speed, 1),
        "padding": round(1 - tokens / computed, 3),
        "mean_length": round(mean, 1),
    }
    if peak_tflops:
        flops = speed * flops_a_token(recipe, mean, answered / tokens)
        result["share_of_peak"] = round(flops / peak_tflops / 1e12, 3)
    return result


def main(arguments: list[str] | None = None) -> int:
    """Measure, print a line each and write the record; 0 also where there is no GPU."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", default="gemma-2b-l4")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--dry", action="store_true", help="a tiny model on the CPU, not recorded")
    parser.add_argument("--out", type=Path, default=REPO / "tests/benchmarks/results/gpu.json")
    options = parser.parse_args(arguments)
    if options.dry and torch.cuda.is_available():
        parser.error("--dry is for machines without a GPU")
    gpu = torch.cuda.is_available()
    if not gpu and not options.dry:
        print("There is no GPU here, so there is nothing to measure; --dry tries the script.")
        return 0
    recipe, card, tflops = load_recipe(options.recipe), "CPU", None
    if gpu:
        card = torch.cuda.get_device_name()
        tflops = next((peak for name, peak in PEAKS.items() if name in card), None)
    attentions = ["sdpa", "eager"]
    with tempfile.TemporaryDirectory() as folder:
        if options.dry:
            recipe = tiny_recipe(recipe, Path(folder) / "tiny").replace("train.max_length", 64)
            options.steps = min(options.steps, 3)
        elif (best := pick_attention()) not in attentions:
            attentions.insert(0, best)
        vocabulary, trained = model_config(recipe)["vocab_size"], trained_parameters(recipe)
        n = recipe.train.effective_batch * options.steps
        runs = []
        for attention in attentions:
            for name, make in (("korean", korean_rows), ("longest", longest_rows)):
                changed = recipe.replace("train.attention", attention)
                rows = make(changed, n, vocabulary)
                run = {"rows": name, **measure(changed, rows, options.steps, tflops)}
                runs.append(run)
                print("  ".join(f"{key} {value}" for key, value in run.items()), flush=True)
    record = {
        "date": datetime.date.today().isoformat(),
        "card": card,
        "peak_tflops": tflops,
        "recipe": recipe.name,
        "trained": trained,
        "steps": options.steps,
        "versions": {name: version(name) for name in ("torch", "transformers", "trl", "peft")},
        "runs": runs,
    }
    if not options.dry or options.out != parser.get_default("out"):
        write_atomic(options.out, json.dumps(record, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
