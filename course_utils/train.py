"""Fine-tune a base model with LoRA as a recipe says: our rows and masks, TRL's SFTTrainer.

    python -m course_utils.train offline --tasks data.jsonl --run my-run

The result is sealed when it is complete, and training the same recipe on the same data again
returns it. While it runs, checkpoints are sealed under "<step>-progress": a killed run goes on from
the last whole one, bit for bit on a CPU. Taught in 02, sections 4 to 7.
"""

import argparse
import contextlib
import dataclasses
import hashlib
import json
import math
import platform
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from course_utils import REPO, CourseError
from course_utils.checkpoint import CheckpointStore, SealingCallback
from course_utils.collator import IGNORE_INDEX, EncodeReport, MaskingCollator, Row, encode_tasks
from course_utils.inference import base_hash, find_base, load_base, load_tokenizer, quiet
from course_utils.prompts import get_template
from course_utils.recipe import Recipe, load_recipe
from course_utils.tasks import Task, read_tasks, write_atomic

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DATA_STEP, DATA_FILE = "preprocess", "tasks.jsonl"
CHECKPOINT_FILES = (
    "adapter_model.safetensors", "adapter_config.json", "optimizer.pt", "scheduler.pt",
    "trainer_state.json",
)  # fmt: skip


class TrainError(CourseError):
    """Training that cannot begin: no data, a row that trains nothing, a GPU that lacks bfloat16."""


@dataclass(frozen=True)
class TrainResult:
    """A finished training: the adapter's folder, the log, and what it took.

    `log` holds the Trainer's entries (step, loss, learning_rate, grad_norm, seconds); the losses
    are means over the first and last logged steps. `tokens` counts every token read, all epochs.
    """

    adapter: Path
    log: list[dict[str, Any]]
    first_loss: float
    last_loss: float
    seconds: float
    tokens: int
    steps: int
    encode_report: EncodeReport | None

    @classmethod
    def load(cls, folder: Path) -> "TrainResult":
        """Read the result that `train` sealed into a folder."""
        result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        log = json.loads((folder / "log.json").read_text(encoding="utf-8"))
        names = ("first_loss", "last_loss", "seconds", "tokens", "steps")
        report = result["encode_report"] and EncodeReport(**result["encode_report"])
        return cls(folder / "adapter", log, *(result[n] for n in names), encode_report=report)


def train(
    recipe: Recipe,
    store: CheckpointStore,
    tasks: Iterable[Task] | None = None,
    *,
    rows: Sequence[Row] | None = None,
    step: str = "train",
    callbacks: Sequence[Any] = (),
    progress: bool = True,
) -> TrainResult:
    """Train an adapter, or return the sealed one if this recipe and data have been trained before.

    `tasks` None takes what step "preprocess" has sealed. `rows`, already encoded, are used as they
    are. Give each experiment of a run a `step` of its own. Raises TrainError, ModelFolderError.
    """
    tokenizer = load_tokenizer(recipe.base_model)
    if rows is None:
        rows, report = _encode(recipe, store, tasks, tokenizer)
    else:
        rows, report = list(rows), None
        _check_rows(rows)
    rows = [{"input_ids": row["input_ids"], "labels": row["labels"]} for row in rows]
    identity = {
        "base_model": recipe.base_model,
        "base": base_hash(recipe.base_model),
        "train": dataclasses.asdict(recipe.train),
        "data": hashlib.sha256(json.dumps(rows).encode()).hexdigest(),
    }
    identity = json.loads(json.dumps(identity))  # tuples become lists, as in the sealed file

    sealed = store.latest(step)
    if sealed:
        before = _identity_of(sealed / "result.json")
        if before == identity:
            _say(progress, f"Already trained: {store.run}/{step}/{sealed.name}.")
            return TrainResult.load(sealed)
        _say(progress, f"Training anew: {_difference(before, identity)}.")

    progress_step = f"{step}-progress"
    checkpoint = _find_checkpoint(store, progress_step, identity)
    work = store.local(progress_step)
    if checkpoint:
        _say(progress, f"Going on from {checkpoint.name}.")
    with quiet(), _threads(recipe):
        trainer = _trainer(recipe, tokenizer, rows, work)
        for callback in (*_own_callbacks(progress), SealingCallback(store, progress_step)):
            trainer.add_callback(callback)
        for callback in callbacks:
            trainer.add_callback(callback)
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        trainer.save_model(work / "adapter")
    if trainer.is_world_process_zero():
        _write_result(recipe, store, step, trainer, identity, report, rows)
        store.seal(step, {"data": identity["data"], "base": identity["base"]})
        store.clear(progress_step)
    trainer.accelerator.wait_for_everyone()
    return TrainResult.load(store.latest(step))


def _encode(recipe, store, tasks, tokenizer) -> tuple[Any, EncodeReport]:
    if tasks is None:
        folder = store.latest(DATA_STEP)
        if folder is None:
            raise TrainError(
                f"The run '{store.run}' has no instruction data yet; run notebook 01 first or pass "
                "tasks (on the command line: --tasks FILE)."
            )
        tasks = read_tasks(folder / DATA_FILE)
    template = get_template(recipe.train.template, tokenizer)
    return encode_tasks(tokenizer, tasks, template, recipe.train.max_length)


def _check_rows(rows: Sequence[Row]) -> None:
    if not rows:
        raise TrainError("There are no rows to train on.")
    for i, row in enumerate(rows):
        if all(label == IGNORE_INDEX for label in row["labels"]):
            raise TrainError(
                f"Row {i} has no trained token: every label is {IGNORE_INDEX}, so it would count "
                "as a loss of 0; look at it with show_mask and mend or drop it."
            )


def _difference(before: dict, now: dict) -> str:
    """Say in words what sets this training apart from the sealed one."""
    if before.keys() != now.keys():
        return "what is sealed does not say what it was trained from"
    words = [
        f"train.{key} was {before['train'].get(key)!r} and is {value!r}"
        for key, value in now["train"].items()
        if before["train"].get(key) != value
    ]
    if (before["base_model"], before["base"]) != (now["base_model"], now["base"]):
        words.append("the base model is another")
    if before["data"] != now["data"]:
        words.append("the data is other data")
    return "; ".join(words)


def _find_checkpoint(store: CheckpointStore, step: str, identity: dict) -> Path | None:
    """Return the newest full checkpoint of an unfinished run of the same training, or None.

    The working folder comes first: it holds at least what was sealed from it. Where it was lost
    with its machine, the sealed part is copied back. What belongs to another training is removed.
    """
    work = store.local(step)
    if _identity_of(work / "identity.json") != identity:
        part = store.latest(step)
        if part and _identity_of(part / "identity.json") == identity:
            shutil.rmtree(work)
            # identity.json is written last: without it a half-copied folder counts for nothing.
            shutil.copytree(part / "checkpoints", work / "checkpoints")
        else:
            store.clear(step)
    work = store.local(step)
    write_atomic(work / "identity.json", _json(identity))
    return _newest_full(work / "checkpoints")


def _identity_of(path: Path) -> dict:
    """Return what a training was: its recipe, base model and data; {} where nothing tells."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content.get("identity", content)


def _newest_full(folder: Path) -> Path | None:
    """Return the highest-numbered checkpoint that was saved to its end, naming those skipped."""
    for path in reversed(_checkpoints(folder)):
        missing = [name for name in CHECKPOINT_FILES if not (path / name).is_file()]
        if not missing:
            try:
                json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))
                return path
            except ValueError:
                missing = ["whole trainer_state.json"]
        print(f"Skipping {path.name}: it was not saved to its end (no {', '.join(missing)}).")
        shutil.rmtree(path)
    return None


def _checkpoints(folder: Path) -> list[Path]:
    """Return the Trainer's checkpoint folders by number; their times depend on the clock."""
    found = [p for p in folder.glob("checkpoint-*") if p.name.removeprefix("checkpoint-").isdigit()]
    return sorted(found, key=lambda p: int(p.name.removeprefix("checkpoint-")))


def _trainer(recipe: Recipe, tokenizer: "PreTrainedTokenizerBase", rows: list[Row], work: Path):
    """Return an SFTTrainer for a recipe: everything that depends on TRL's names is here."""
    import datasets
    import torch
    from peft import LoraConfig
    from transformers import PrinterCallback
    from trl import SFTConfig, SFTTrainer

    spec = recipe.train
    gpu = torch.cuda.is_available()
    dtype = spec.dtype if gpu else "float32"
    if dtype == "bfloat16" and torch.cuda.get_device_capability()[0] < 8:
        raise TrainError(
            f"{torch.cuda.get_device_name()} has no bfloat16; "
            'use recipe.replace("train.dtype", "float16").'
        )
    attention = spec.attention
    if attention == "auto":
        from course_utils.runtime import pick_attention

        attention = pick_attention()
    model, _ = load_base(recipe.base_model, dtype=dtype, attention=attention)
    steps = math.ceil(len(rows) / spec.batch_size / spec.gradient_accumulation) * spec.epochs
    # transformers 5.23 renamed gradient_checkpointing; 5.15 knows only the old name.
    names = {f.name for f in dataclasses.fields(SFTConfig)}
    checkpointing = "activation_checkpointing"
    checkpointing = checkpointing if checkpointing in names else "gradient_checkpointing"
    arguments = SFTConfig(
        output_dir=str(work / "checkpoints"),
        num_train_epochs=spec.epochs,
        per_device_train_batch_size=spec.batch_size,
        gradient_accumulation_steps=spec.gradient_accumulation,
        learning_rate=spec.learning_rate,
        lr_scheduler_type=spec.scheduler,
        warmup_steps=spec.warmup,
        optim=spec.optim,
        max_grad_norm=spec.max_grad_norm,
        bf16=dtype == "bfloat16",
        fp16=dtype == "float16",
        use_cpu=not gpu,
        seed=spec.seed,
        data_seed=spec.seed,
        logging_steps=max(1, int(steps) // 40),
        save_strategy="steps",
        save_steps=spec.save_steps,
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=gpu,
        # The rows are ready: nothing is tokenised, cut or dropped behind our back.
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        **{checkpointing: spec.activation_checkpointing and gpu},
    )
    pad = tokenizer.pad_token_id
    trainer = SFTTrainer(
        model=model,
        args=arguments,
        train_dataset=datasets.Dataset.from_list(rows),
        # Any id will do for padding, since no mask is derived from it.
        data_collator=MaskingCollator(tokenizer.eos_token_id if pad is None else pad),
        processing_class=tokenizer,
        peft_config=LoraConfig(
            r=spec.lora_r,
            lora_alpha=spec.lora_alpha,
            lora_dropout=spec.lora_dropout,
            target_modules=list(spec.target_modules),
            bias="none",
            task_type="CAUSAL_LM",
        ),
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _own_callbacks(progress: bool) -> list[Any]:
    from transformers import TrainerCallback

    class KeepNewest(TrainerCallback):
        """Remove older checkpoints once a newer one is whole: by number, not by a clock."""

        def on_save(self, args, state, control, **kwargs):
            if state.is_world_process_zero:
                for path in _checkpoints(Path(args.output_dir))[:-1]:
                    shutil.rmtree(path, ignore_errors=True)

    class Progress(TrainerCallback):
        """Note the seconds in the log, those before a resumption included, and print some lines."""

        def on_train_begin(self, args, state, control, **kwargs):
            seconds = [entry["seconds"] for entry in state.log_history if "seconds" in entry]
            self.start = time.monotonic() - (seconds[-1] if seconds else 0.0)
            self.printed = 10 * state.global_step // max(1, state.max_steps)

        def on_log(self, args, state, control, logs=None, **kwargs):
            entry = state.log_history[-1]
            entry["seconds"] = round(time.monotonic() - self.start, 2)
            tenth = 10 * state.global_step // state.max_steps
            if "loss" in entry and tenth > self.printed and state.is_world_process_zero:
                self.printed = tenth
                _say(
                    progress,
                    f"step {state.global_step:>5}/{state.max_steps}   loss {entry['loss']:.3f}"
                    f"   {entry['seconds']:>5.0f} s",
                )

    return [KeepNewest(), Progress()]


def _write_result(recipe, store, step, trainer, identity, report, rows) -> None:
    """Write adapter, log and result into the working folder of a step."""
    work = store.local(step)
    shutil.rmtree(work)
    (work / "adapter").mkdir(parents=True)
    saved = store.local(f"{step}-progress") / "adapter"
    shutil.copy(saved / "adapter_model.safetensors", work / "adapter")
    config = json.loads((saved / "adapter_config.json").read_text(encoding="utf-8"))
    base = Path(find_base(recipe.base_model))
    if base.is_dir():
        inside = base.is_relative_to(REPO)
        config["base_model_name_or_path"] = str(base.relative_to(REPO) if inside else base)
    # PEFT keeps these in a set, so their order in the file would change from run to run.
    config["target_modules"] = sorted(config["target_modules"])
    write_atomic(work / "adapter" / "adapter_config.json", _json(config))

    log = [entry for entry in trainer.state.log_history if "loss" in entry]
    packages = ("torch", "transformers", "trl", "peft", "accelerate", "tokenizers")
    result = {
        "recipe": recipe.to_dict(),
        "identity": identity,
        "versions": {"python": platform.python_version(), **{p: version(p) for p in packages}},
        "rows": len(rows),
        "steps": trainer.state.global_step,
        "tokens": round(sum(len(row["input_ids"]) for row in rows) * recipe.train.epochs),
        "seconds": log[-1]["seconds"],
        "first_loss": log[0]["loss"],
        "last_loss": log[-1]["loss"],
        "encode_report": report and dataclasses.asdict(report),
    }
    write_atomic(work / "log.json", _json(log))
    write_atomic(work / "result.json", _json(result))


def _json(content: Any) -> str:
    return json.dumps(content, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


@contextlib.contextmanager
def _threads(recipe: Recipe) -> Iterator[None]:
    """Compute on as many CPU threads as the recipe says: a sum depends on how it is split."""
    import torch

    before = torch.get_num_threads()
    if recipe.train.threads:
        torch.set_num_threads(recipe.train.threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _say(progress: bool, text: str) -> None:
    if progress:
        print(text, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train from the command line; see `python -m course_utils.train --help`."""
    parser = argparse.ArgumentParser(prog="python -m course_utils.train", description=__doc__)
    parser.add_argument("recipe", help="a recipe's name or YAML file")
    parser.add_argument("--tasks", help="instruction data, JSON or JSONL (default: the run's own)")
    parser.add_argument("--run", help="the run's name (default: the recipe's)")
    parser.add_argument("--root", help="the folder of the runs (default: ./runs, Drive on Colab)")
    options = parser.parse_args(arguments)
    try:
        recipe = load_recipe(options.recipe)
        store = CheckpointStore.open(options.run or recipe.name, options.root)
        result = train(recipe, store, read_tasks(options.tasks) if options.tasks else None)
    except CourseError as error:
        print(error, file=sys.stderr)
        return 1
    print(
        f"loss {result.first_loss:.3f} -> {result.last_loss:.3f} in {result.steps} steps, "
        f"{result.seconds:.0f} s; adapter: {result.adapter}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
