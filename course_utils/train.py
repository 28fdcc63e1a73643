"""Fine-tune a base model as a recipe says: our rows and masks, TRL's SFTTrainer, one or many GPUs.

    python -m course_utils.train offline --tasks data.jsonl --run my-run
    python -m course_utils.train alpaca-7b-fsdp --dry-run
    torchrun --nproc_per_node=2 -m course_utils.train alpaca-7b-fsdp --tiny

The result is sealed when it is complete, and training the same recipe on the same data again
returns it. While it runs, checkpoints are sealed under "<step>-progress": a killed run goes on from
the last whole one, bit for bit on a CPU. --dry-run says what would happen and what it would need;
--tiny trains a tiny random model of the same architecture on a few tasks, on any machine. Taught in
02, sections 4 to 7, and in 04.
"""

import argparse
import contextlib
import dataclasses
import hashlib
import json
import platform
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from course_utils import REPO, CourseError
from course_utils.checkpoint import CheckpointStore, SealingCallback
from course_utils.collator import IGNORE_INDEX, EncodeReport, Row, encode_tasks
from course_utils.inference import find_base, find_device, load_tokenizer, quiet
from course_utils.plumbing.parts import digest
from course_utils.plumbing.resume import difference, find_checkpoint, identity_of, read_identity
from course_utils.prompts import get_template
from course_utils.recipe import Recipe, load_recipe
from course_utils.scale import parallel
from course_utils.scale.memory import estimate_memory
from course_utils.scale.parallel import TrainError
from course_utils.scale.preflight import check, preflight
from course_utils.scale.tiny import tiny_recipe
from course_utils.tasks import Task, read_tasks, write_atomic

DATA_STEP, DATA_FILE = "preprocess", "tasks.jsonl"
TINY_TASKS = 48


@dataclass(frozen=True)
class TrainResult:
    """A finished training: the adapter's folder, the log, and what it took.

    After full fine-tuning `adapter` is the folder of the whole model: `load_model(result.adapter)`.
    `log` holds the Trainer's entries: step and seconds with loss, learning_rate and grad_norm, or
    with eval_loss, the mean over the labels of the held-out rows. first_loss and last_loss are
    means over the first and last logged steps; the eval losses are those before the first and
    after the last step, None without held-out rows. `tokens` counts every token read, all epochs.
    """

    adapter: Path
    log: list[dict[str, Any]]
    first_loss: float
    last_loss: float
    seconds: float
    tokens: int
    steps: int
    encode_report: EncodeReport | None
    first_eval_loss: float | None = None
    last_eval_loss: float | None = None

    @classmethod
    def load(cls, folder: Path) -> "TrainResult":
        """Read the result that `train` sealed into a folder."""
        result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        log = json.loads((folder / "log.json").read_text(encoding="utf-8"))
        names = [f.name for f in dataclasses.fields(cls)][2:]
        values = {name: result.get(name) for name in names}
        if values["encode_report"]:
            values["encode_report"] = EncodeReport(**values["encode_report"])
        weights = next(p for p in (folder / "adapter", folder / "model") if p.is_dir())
        return cls(weights, log, **values)


@dataclass(frozen=True)
class _Plan:
    """What the main process found and every process needs to train."""

    rows: list[Row]
    heldout: list[Row]
    work: Path
    checkpoint: Path | None
    reports: Path | None
    identity: dict[str, Any]
    encode_report: EncodeReport | None


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
    """Train as a recipe says, or return what is sealed if this recipe and data have been before.

    With train.lora_r 0 every weight is trained, otherwise a LoRA adapter. `tasks` None takes what
    step "preprocess" has sealed. `rows`, already encoded, are used as they are. Give each
    experiment of a run a `step` of its own. Under torchrun or accelerate launch every process
    calls this; the main one alone touches the store. Raises TrainError, ModelFolderError.
    """
    progress = progress and parallel.is_main()
    tokenizer = load_tokenizer(recipe.base_model)
    plan = parallel.from_main(
        lambda: _prepare(recipe, store, tasks, rows, step, tokenizer, progress)
    )
    if isinstance(plan, TrainResult):
        return plan
    from course_utils.plumbing.trainer import make_trainer

    with quiet(), _threads(recipe), parallel.own_environment():
        trainer = make_trainer(
            recipe,
            tokenizer,
            plan.rows,
            plan.heldout,
            plan.work / "checkpoints",
            name=f"{store.run}-{step}",
            reports=plan.reports,
            resumed=plan.checkpoint is not None,
            progress=progress,
        )
        for callback in (SealingCallback(store, _progress_of(step)), *callbacks):
            trainer.add_callback(callback)
        trainer.train(resume_from_checkpoint=plan.checkpoint and str(plan.checkpoint))
        trainer.save_model(plan.work / "trained")
    return parallel.from_main(lambda: _seal(recipe, store, step, plan, trainer.state))


def _prepare(recipe, store, tasks, rows, step, tokenizer, progress) -> "_Plan | TrainResult":
    """Return the result that is sealed already, or what there is to train on and to go on from."""
    if rows is None:
        rows, report = _encode(recipe, store, tasks, tokenizer)
    else:
        rows, report = list(rows), None
        _check_rows(rows)
    rows = [{"input_ids": row["input_ids"], "labels": row["labels"]} for row in rows]
    identity = identity_of(recipe, rows)
    sealed = store.latest(step)
    if sealed:
        before = read_identity(sealed / "result.json")
        if before == identity:
            _say(progress, f"Already trained: {store.run}/{step}/{sealed.name}.")
            return TrainResult.load(sealed)
        _say(progress, f"Training anew: {difference(before, identity)}.")

    _refuse_lonely_process()
    training, heldout = _split(rows, recipe.train.heldout)
    # What is too much for this machine is said before a model is loaded or an old run is cleared.
    card = preflight(recipe, training, report=report)
    _say(progress, str(card))
    check(card)
    checkpoint = find_checkpoint(store, _progress_of(step), identity, recipe.train)
    if checkpoint:
        _say(progress, f"Going on from {checkpoint.name}.")
    reports = None
    if recipe.train.report_to == "tensorboard":
        reports = store.local(f"{step}-reports")
        _say(progress, f"To watch: tensorboard --logdir {reports}")
    work = store.local(_progress_of(step))
    return _Plan(training, heldout, work, checkpoint, reports, identity, report)


def _progress_of(step: str) -> str:
    return f"{step}-progress"


def _encode(recipe, store, tasks, tokenizer) -> tuple[Any, EncodeReport]:
    template = get_template(recipe.train.template, tokenizer)
    tasks = _find_tasks(store) if tasks is None else tasks
    return encode_tasks(tokenizer, tasks, template, recipe.train.max_length)


def _find_tasks(store: CheckpointStore) -> list[Task]:
    folder = store.latest(DATA_STEP)
    if folder is None:
        raise TrainError(
            f"The run '{store.run}' has no instruction data yet; run notebook 01 first or pass "
            "tasks (on the command line: --tasks FILE)."
        )
    return read_tasks(folder / DATA_FILE)


def _check_rows(rows: Sequence[Row]) -> None:
    if not rows:
        raise TrainError("There are no rows to train on.")
    for i, row in enumerate(rows):
        if all(label == IGNORE_INDEX for label in row["labels"]):
            raise TrainError(
                f"Row {i} has no trained token: every label is {IGNORE_INDEX}, so it would count "
                "as a loss of 0; look at it with show_mask and mend or drop it."
            )


def _split(rows: list[Row], share: float) -> tuple[list[Row], list[Row]]:
    """Divide rows into (training, held out): the share with the lowest hashes, at least one.

    The order of the rows does not matter, and equal rows fall on the same side.
    """
    if not share:
        return rows, []
    hashes = [hashlib.sha256(json.dumps(row["input_ids"]).encode()).hexdigest() for row in rows]
    ranked = sorted(set(hashes))
    limit = ranked[max(1, round(len(ranked) * share)) - 1]
    training = [row for row, own in zip(rows, hashes, strict=True) if own > limit]
    if not training:
        raise TrainError(
            f"train.heldout is {share}, which leaves none of {len(rows)} rows to train on; "
            "lower it or bring more data."
        )
    return training, [row for row, own in zip(rows, hashes, strict=True) if own <= limit]


def _refuse_lonely_process() -> None:
    import torch

    count = torch.cuda.device_count()
    if count > 1 and parallel.processes() == 1:
        raise TrainError(
            f"This one process sees {count} GPUs: start one process a GPU with `torchrun "
            f"--nproc_per_node={count} -m course_utils.train RECIPE`, or set "
            "CUDA_VISIBLE_DEVICES=0 before Python starts to use one of them."
        )


def _seal(recipe, store, step, plan, state) -> TrainResult:
    """Seal the result, remove what was the way there, and return it."""
    _write_result(recipe, store, step, plan, state)
    hashes = {name: plan.identity[name] for name in ("data", "base")}
    store.seal(step, hashes | {"recipe": digest(recipe.to_dict())})
    store.clear(_progress_of(step))
    return TrainResult.load(store.latest(step))


def _write_result(recipe, store, step, plan, state) -> None:
    """Write adapter or model, log and result into the working folder of a step."""
    work, spec = store.local(step), recipe.train
    shutil.rmtree(work)
    folder = work / ("model" if spec.full else "adapter")
    folder.mkdir(parents=True)
    if spec.full:
        for path in (plan.work / "trained").iterdir():
            if path.name not in ("training_args.bin", "README.md"):
                shutil.move(path, folder)
    else:
        _write_adapter(recipe, plan.work / "trained", folder)

    log = [entry for entry in state.log_history if "loss" in entry or "eval_loss" in entry]
    losses, eval_losses = (
        [entry[name] for entry in log if name in entry] or [None] for name in ("loss", "eval_loss")
    )
    packages = ("torch", "transformers", "trl", "peft", "accelerate", "tokenizers")
    result = {
        "recipe": recipe.to_dict(),
        "identity": plan.identity,
        "versions": {"python": platform.python_version(), **{p: version(p) for p in packages}},
        "processes": parallel.processes(),
        "rows": len(plan.rows),
        "heldout_rows": len(plan.heldout),
        "steps": state.global_step,
        "tokens": round(sum(len(row["input_ids"]) for row in plan.rows) * spec.epochs),
        "seconds": log[-1]["seconds"],
        "first_loss": losses[0],
        "last_loss": losses[-1],
        "first_eval_loss": eval_losses[0],
        "last_eval_loss": eval_losses[-1],
        "encode_report": plan.encode_report and dataclasses.asdict(plan.encode_report),
    }
    write_atomic(work / "log.json", _json(log))
    write_atomic(work / "result.json", _json(result))


def _write_adapter(recipe: Recipe, saved: Path, folder: Path) -> None:
    from safetensors import safe_open

    with safe_open(saved / "adapter_model.safetensors", "pt") as weights:
        if not weights.keys():
            raise TrainError(
                f"The adapter in {saved} was saved empty, by a fault of the installed peft "
                f"{version('peft')}; install the version of constraints.txt and train again: it "
                "goes on from the last checkpoint."
            )
    shutil.copy(saved / "adapter_model.safetensors", folder)
    config = json.loads((saved / "adapter_config.json").read_text(encoding="utf-8"))
    base = Path(find_base(recipe.base_model))
    if base.is_dir():
        inside = base.is_relative_to(REPO)
        config["base_model_name_or_path"] = str(base.relative_to(REPO) if inside else base)
    # PEFT keeps these in a set, so their order in the file would change from run to run.
    config["target_modules"] = sorted(config["target_modules"])
    write_atomic(folder / "adapter_config.json", _json(config))


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
    parser = argparse.ArgumentParser(
        prog="python -m course_utils.train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
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
        step = "train"
        if options.tiny:  # a step of its own, so that no real result is replaced
            step = "tiny"
            recipe = parallel.from_main(
                lambda: tiny_recipe(recipe, store.local(f"{recipe.name}-tiny-base"))
            )
            tasks = tasks or read_tasks(REPO / "data" / "seed_tasks.jsonl")[:TINY_TASKS]
        if options.dry_run:
            parallel.from_main(lambda: print(_dry_run(recipe, store, tasks)))
        else:
            result = train(recipe, store, tasks, step=step)
            _say(parallel.is_main(), _summary(recipe, result))
    except CourseError as error:
        parallel.complain(error)
        return 1
    parallel.leave()
    return 0


def _dry_run(recipe: Recipe, store: CheckpointStore, tasks: list[Task] | None) -> str:
    """Return the card and the memory estimate, and what would keep this training from starting."""
    try:
        tokenizer = load_tokenizer(recipe.base_model)
        rows, report = _encode(recipe, store, tasks, tokenizer)
    except CourseError as error:  # no network, no data: the model's size is in the recipe
        longest = f"Memory for rows of {recipe.train.max_length} tokens, the longest allowed:"
        head = {"Recipe": recipe.name, "Device": find_device().name, "Rows": f"unknown. {error}"}
        lines = [f"{name:<11}{text}" for name, text in head.items()]
        return "\n".join([*lines, "", longest, str(estimate_memory(recipe))])
    card = preflight(recipe, _split(list(rows), recipe.train.heldout)[0], report=report)
    parts = [str(card), str(card.memory) if card.memory else ""]
    try:
        check(card)
    except CourseError as error:
        parts.append(f"It would not start here. {error}")
    return "\n\n".join(filter(None, parts))


def _summary(recipe: Recipe, result: TrainResult) -> str:
    kind = "model" if recipe.train.full else "adapter"
    return (
        f"loss {result.first_loss:.3f} -> {result.last_loss:.3f} in {result.steps} steps, "
        f"{result.seconds:.0f} s; {kind}: {result.adapter}"
    )


if __name__ == "__main__":
    sys.exit(main())
