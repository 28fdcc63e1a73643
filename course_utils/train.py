"""Fine-tune a base model as a recipe says, with TRL's SFTTrainer, or go on where that stopped.

    python -m course_utils.train offline --tasks data.jsonl --run my-run
    python -m course_utils.train alpaca-7b-fsdp --dry-run
    torchrun --nproc_per_node=2 -m course_utils.train alpaca-7b-fsdp --tiny

`make_trainer` is the set-up: model, arguments, LoRA, rows, collator. A complete result is sealed,
and training the same again returns it. Until then checkpoints are sealed under "<step>-progress": a
killed run goes on from the last whole one, bit for bit on a CPU. --dry-run says what a training
would need; --tiny trains a tiny random stand-in on any machine. Taught in 02, sections 5 to 8.
"""

import argparse
import dataclasses
import hashlib
import json
import math
import platform
import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from course_utils import REPO, CourseError
from course_utils.checkpoint import CheckpointStore, SealingCallback
from course_utils.collator import IGNORE_INDEX, EncodeReport, MaskingCollator, Row, encode_tasks
from course_utils.inference import load_base, load_tokenizer, quiet
from course_utils.plumbing.model_folder import base_hash, find_base
from course_utils.plumbing.parts import digest
from course_utils.prompts import get_template
from course_utils.recipe import Recipe, TrainSpec, load_recipe
from course_utils.scale import parallel
from course_utils.scale.memory import estimate_memory
from course_utils.scale.parallel import TrainError
from course_utils.scale.preflight import check, padded_to, preflight
from course_utils.scale.tiny import tiny_recipe
from course_utils.tasks import Task, read_tasks, split_heldout, write_atomic

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from course_utils.scale.trainer import CourseTrainer


def make_trainer(recipe: Recipe, tokenizer: "PreTrainedTokenizerBase", rows: Sequence[Row],
                 heldout: Sequence[Row], folder: Path, name: str = "train") -> "CourseTrainer":
    """Return an SFTTrainer for encoded rows that writes its checkpoints to `folder`.

    The recipe is one as it runs here (`as_it_runs`). `heldout` rows, if any, give an evaluation
    loss. Raises ModelFolderError. Taught in 02, section 5.
    """
    import datasets
    import torch
    from peft import LoraConfig
    from trl import SFTConfig

    from course_utils.scale.trainer import CourseTrainer, sharding

    spec, gpu = recipe.train, torch.cuda.is_available()
    # The model. Updates are too small for 16 bits, so weights that are trained are held in float32
    # and rounded for each step; frozen ones may be smaller. LoRA's own are float32 by PEFT.
    model, _ = load_base(recipe.base_model, dtype=spec.held_dtype, attention=spec.attention,
                         quantize=spec.quantize)
    # Beside the matrices that the recipe names LoRA puts two narrow ones, and only these learn.
    lora = None if spec.full else LoraConfig(
        r=spec.lora_r, lora_alpha=spec.lora_alpha, lora_dropout=spec.lora_dropout,
        target_modules=list(spec.target_modules), bias="none", task_type="CAUSAL_LM")
    steps = math.ceil(len(rows) / spec.effective_batch) * spec.epochs
    arguments = SFTConfig(
        output_dir=str(folder), run_name=name, report_to=spec.report_to, disable_tqdm=True,
        num_train_epochs=spec.epochs, seed=spec.seed, data_seed=spec.seed,
        # So many rows at a time; so many times before the weights move.
        per_device_train_batch_size=spec.batch_size, per_device_eval_batch_size=spec.batch_size,
        gradient_accumulation_steps=spec.gradient_accumulation,
        # The rate climbs during the warm-up and falls along the schedule's curve.
        learning_rate=spec.learning_rate, lr_scheduler_type=spec.scheduler,
        warmup_steps=spec.warmup, weight_decay=spec.weight_decay, optim=spec.optim,
        max_grad_norm=spec.max_grad_norm,
        # Mixed precision, on a GPU only.
        bf16=spec.dtype == "bfloat16", fp16=spec.dtype == "float16", use_cpu=not gpu,
        dataloader_pin_memory=gpu,
        # About 40 losses and 10 losses on held-out rows, the first one before any step.
        logging_steps=max(1, int(steps) // 40), eval_steps=max(1, int(steps) // 10),
        eval_strategy="steps" if heldout else "no", eval_on_start=bool(heldout),
        save_strategy="steps", save_steps=spec.save_steps,
        # Our rows have their masks: nothing is tokenised, cut or dropped behind our back.
        max_length=None, dataset_kwargs={"skip_prepare_dataset": True},
        **sharding(spec, parallel.is_sharded(spec)))
    # Any id will do for padding, since no mask is derived from it.
    pad = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    # By length, so that the evaluation pads little.
    heldout = sorted(heldout, key=lambda row: len(row["input_ids"]))
    return CourseTrainer(
        spec, model=model, args=arguments, peft_config=lora, processing_class=tokenizer,
        train_dataset=datasets.Dataset.from_list(list(rows)),
        eval_dataset=datasets.Dataset.from_list(heldout) if heldout else None,
        data_collator=MaskingCollator(pad, padded_to(spec, gpu)))


@dataclass(frozen=True)
class TrainResult:
    """A finished training: the folder of the adapter or of the whole model, the log, what it took.

    `log` holds the Trainer's entries: step and seconds with loss, learning_rate and grad_norm, or
    with eval_loss, the mean over the labels of held-out rows. The losses are those of the first and
    the last entry, None without held-out rows. `tokens` counts every token read, all epochs.
    """

    adapter: Path
    log: list[dict[str, Any]]
    first_loss: float
    last_loss: float
    seconds: float
    tokens: int
    steps: int
    first_eval_loss: float | None = None
    last_eval_loss: float | None = None

    @classmethod
    def load(cls, folder: Path) -> "TrainResult":
        """Read the result that `train` sealed into a folder."""
        result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        log = json.loads((folder / "log.json").read_text(encoding="utf-8"))
        values = {field.name: result.get(field.name) for field in dataclasses.fields(cls)[2:]}
        weights = next(p for p in (folder / "adapter", folder / "model") if p.is_dir())
        return cls(weights, log, **values)


@dataclass(frozen=True)
class _Plan:
    """What the main process found and every process needs to train; `recipe` as it runs here."""

    recipe: Recipe
    rows: list[Row]
    heldout: list[Row]
    work: Path
    checkpoint: Path | None
    training: dict[str, Any]


def train(recipe: Recipe, store: CheckpointStore, tasks: Iterable[Task] | None = None, *,
          rows: Sequence[Row] | None = None, step: str = "train", callbacks: Sequence[Any] = (),
          progress: bool = True) -> TrainResult:
    """Train as a recipe says, or return what is sealed if this recipe and data have been before.

    `tasks` None takes what step "preprocess" has sealed; `rows`, already encoded, are used as they
    are. Give each experiment of a run a `step` of its own. Under torchrun or accelerate launch
    every process calls this; the main one alone touches the store. Raises TrainError.
    """
    progress = progress and parallel.is_main()
    say = partial(print, flush=True) if progress else lambda text: None
    tokenizer = load_tokenizer(recipe.base_model)
    plan = parallel.from_main(lambda: _prepare(recipe, store, tasks, rows, step, tokenizer, say))
    if isinstance(plan, TrainResult):
        return plan
    from course_utils.scale.trainer import Progress, Whole, alone

    with quiet(), alone(recipe.train.threads):
        trainer = make_trainer(plan.recipe, tokenizer, plan.rows, plan.heldout,
                               plan.work / "checkpoints", f"{store.run}-{step}")
        for callback in (Whole(plan.training), Progress(progress),
                         SealingCallback(store, f"{step}-progress"), *callbacks):
            trainer.add_callback(callback)
        if plan.checkpoint:  # its log begins with the loss before the first step
            trainer.args.eval_on_start = False
        trainer.train(resume_from_checkpoint=plan.checkpoint and str(plan.checkpoint))
        trainer.save_model(plan.work / "trained")
    return parallel.from_main(lambda: _seal(recipe, store, step, plan, trainer.state))


def _prepare(recipe, store, tasks, rows, step, tokenizer, say) -> "_Plan | TrainResult":
    """Return the result that is sealed already, or what there is to train on and to go on from."""
    rows, report = _rows(recipe, store, tasks, rows, tokenizer)
    identity = {"base_model": recipe.base_model, "base": base_hash(recipe.base_model),
                "train": _settings(recipe.train),
                "data": hashlib.sha256(json.dumps(rows).encode()).hexdigest()}
    if sealed := store.latest(step):
        difference = _difference(sealed, identity)
        if not difference:
            say(f"Already trained: {store.run}/{step}/{sealed.name}.")
            return TrainResult.load(sealed)
        say(f"Training anew: {difference}.")
    parallel.check_gpus()
    rows, heldout = _split(rows, recipe.train.heldout)
    # What is too much for this machine is said before a model is loaded or an old run is cleared.
    card = preflight(recipe, rows, report=report)
    say(card)
    check(card)
    training, progress = {**identity, "processes": parallel.processes()}, f"{step}-progress"
    if checkpoint := _find_checkpoint(store, progress, training):
        say(f"Going on from {checkpoint.name}.")
    return _Plan(card.recipe, rows, heldout, store.local(progress), checkpoint, training)


def _rows(recipe, store, tasks, rows, tokenizer) -> tuple[list[Row], EncodeReport | None]:
    """Return the rows, each with a token to train, and what became of the tasks."""
    report = None
    if rows is None and tasks is None:
        if (folder := store.latest("preprocess")) is None:
            raise TrainError(f"The run '{store.run}' has no instruction data yet; run notebook 01 "
                             "first or pass tasks (--tasks FILE).")
        tasks = read_tasks(folder / "tasks.jsonl")
    if rows is None:
        template = get_template(recipe.train.template, tokenizer)
        rows, report = encode_tasks(tokenizer, tasks, template, recipe.train.max_length)
    rows = [{"input_ids": row["input_ids"], "labels": row["labels"]} for row in rows]
    if not rows:
        raise TrainError("There are no rows to train on.")
    for i, row in enumerate(rows):
        if all(label == IGNORE_INDEX for label in row["labels"]):
            raise TrainError(f"Row {i} has no trained token, every label is {IGNORE_INDEX}: look "
                             "at it with show_mask and mend or drop it.")
    return rows, report


def _split(rows: list[Row], share: float) -> tuple[list[Row], list[Row]]:
    """Divide rows into (training, held out), whatever their order."""
    if not share:
        return rows, []
    return split_heldout(rows, share, key=lambda row: json.dumps(row["input_ids"]))


def _settings(spec: TrainSpec) -> dict[str, Any]:
    settings = dataclasses.asdict(spec)
    del settings["report_to"]  # who watches changes nothing
    return json.loads(json.dumps(settings))  # as JSON gives them back


def _difference(sealed: Path, now: dict[str, Any]) -> str:
    """Say in words what sets this training apart from a sealed one; "" where nothing does."""
    try:
        before = json.loads((sealed / "result.json").read_text(encoding="utf-8"))["identity"]
        # A setting that did not exist yet stood where its default stands now.
        settings = _settings(TrainSpec()) | before["train"]
    except (OSError, ValueError, KeyError, TypeError):
        return "what is sealed does not say what it was trained from"
    words = [f"train.{key} was {settings[key]!r} and is {value!r}"
             for key, value in now["train"].items() if settings[key] != value]
    words += [f"the {name} is another" for name in ("base_model", "base", "data")
              if before.get(name) != now[name]]
    return "; ".join(words)


def _find_checkpoint(store: CheckpointStore, step: str, training: dict) -> Path | None:
    """Return the newest whole checkpoint of this training, here or brought back, or None.

    What is of another training is removed, but not what another number of processes began.
    """
    from course_utils.scale.trainer import newest_whole

    work = store.local(step)
    found = newest_whole(work / "checkpoints")
    if not found and (part := store.latest(step)):  # this machine's work was lost, or never was
        found = newest_whole(part / "checkpoints")
    if not found:
        return None
    checkpoint, begun = found
    if begun == training:
        if checkpoint.is_relative_to(work):
            return checkpoint
        target = work / "checkpoints" / checkpoint.name
        shutil.rmtree(target, ignore_errors=True)
        return Path(shutil.copytree(checkpoint, target))
    count, now = begun["processes"], training["processes"]
    if begun == {**training, "processes": count}:
        raise TrainError(f"This training was begun by {count} processes and {now} cannot go on: "
                         f"start {count} again, or remove {store.root / store.run / step}.")
    store.clear(step)
    return None


def _seal(recipe, store, step, plan, state) -> TrainResult:
    """Seal adapter or model, log and result; remove what was the way there."""
    from course_utils.scale.trainer import mend_adapter

    work, full = store.local(step), recipe.train.full
    shutil.rmtree(work)
    folder = work / ("model" if full else "adapter")
    folder.mkdir(parents=True)
    for path in (plan.work / "trained").iterdir():
        adapter = path.name in ("adapter_model.safetensors", "adapter_config.json")
        if adapter or (full and path.name not in ("training_args.bin", "README.md")):
            shutil.move(path, folder)
    if not full:
        base = Path(find_base(recipe.base_model))
        inside = base.is_relative_to(REPO)  # as every machine finds it
        mend_adapter(folder, str(base.relative_to(REPO) if inside else base))
    log = [entry for entry in state.log_history if "loss" in entry or "eval_loss" in entry]
    losses, eval_losses = ([entry[name] for entry in log if name in entry] or [None]
                           for name in ("loss", "eval_loss"))
    packages = ("torch", "transformers", "trl", "peft", "accelerate", "tokenizers")
    identity = {name: value for name, value in plan.training.items() if name != "processes"}
    result = {
        "recipe": recipe.to_dict(), "identity": identity,
        "versions": {"python": platform.python_version(), **{p: version(p) for p in packages}},
        "processes": plan.training["processes"],
        "rows": len(plan.rows), "heldout_rows": len(plan.heldout), "steps": state.global_step,
        "tokens": round(sum(len(row["input_ids"]) for row in plan.rows) * recipe.train.epochs),
        "seconds": log[-1]["seconds"], "first_loss": losses[0], "last_loss": losses[-1],
        "first_eval_loss": eval_losses[0], "last_eval_loss": eval_losses[-1]}
    for name, content in (("log.json", log), ("result.json", result)):
        text = json.dumps(content, indent=1, ensure_ascii=False, sort_keys=True)
        write_atomic(work / name, text + "\n")
    store.seal(step, {"data": identity["data"], "base": identity["base"],
                      "recipe": digest(recipe.to_dict())})
    store.clear(f"{step}-progress")
    return TrainResult.load(store.latest(step))


def main(arguments: Sequence[str] | None = None) -> int:
    """Train from the command line; return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m course_utils.train", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", help="a recipe's name or YAML file")
    parser.add_argument("--tasks", help="instruction data, JSON or JSONL (default: the run's own)")
    parser.add_argument("--run", help="the run's name (default: the recipe's)")
    parser.add_argument("--root", help="the folder of the runs (default: ./runs, Drive on Colab)")
    parser.add_argument("--dry-run", action="store_true", help="print the card, train nothing")
    parser.add_argument("--tiny", action="store_true", help="a tiny random model, a few tasks")
    options = parser.parse_args(arguments)
    try:
        recipe = load_recipe(options.recipe)
        store = CheckpointStore.open(options.run or recipe.name, options.root)
        tasks = read_tasks(options.tasks) if options.tasks else None
        if options.tiny:
            base = store.local(f"{recipe.name}-tiny-base")
            recipe = parallel.from_main(lambda: tiny_recipe(recipe, base))
            tasks = tasks or read_tasks(REPO / "data" / "seed_tasks.jsonl")[:48]
        if options.dry_run:
            parallel.from_main(lambda: print(_dry_run(recipe, store, tasks)))
        else:  # a stand-in has a step of its own, so that no real result is replaced
            result = train(recipe, store, tasks, step="tiny" if options.tiny else "train")
            if parallel.is_main():
                print(f"loss {result.first_loss:.3f} -> {result.last_loss:.3f} in {result.steps} "
                      f"steps, {result.seconds:.0f} s; {result.adapter.name}: {result.adapter}")
    except CourseError as error:
        parallel.complain(error)
        return 1
    parallel.leave()
    return 0


def _dry_run(recipe: Recipe, store: CheckpointStore, tasks: list[Task] | None) -> str:
    """Return the card and the memory estimate, and what would keep this training from starting."""
    try:
        rows, report = _rows(recipe, store, tasks, None, load_tokenizer(recipe.base_model))
    except CourseError as error:  # no network, no data: the model's size is in the recipe
        longest, estimate = recipe.train.max_length, estimate_memory(recipe)
        return (f"{recipe.name}: the rows are unknown. {error}\n\n"
                f"Memory for rows of {longest} tokens, the longest allowed:\n{estimate}")
    card = preflight(recipe, _split(rows, recipe.train.heldout)[0], report=report)
    said = f"{card}\n\n{card.memory}" if card.memory else str(card)
    try:
        check(card)
    except CourseError as error:
        said += f"\n\nIt would not start here. {error}"
    return said


if __name__ == "__main__":
    sys.exit(main())
