"""What TRL's trainer lacks here: checkpoints that say whether they are whole, an order of rows to
go on with, an exact evaluation loss, a short way on CPUs, FSDP2 there, adapters read from shards.

It is set up in train.py; all that reaches into accelerate or transformers stands here.
"""

import contextlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import trl.trainer.utils
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from peft import PeftModel
from safetensors import safe_open
from safetensors.torch import load_file
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torch.utils.data import Sampler
from transformers import PrinterCallback, TrainerCallback
from trl import SFTTrainer

from course_utils import CourseError
from course_utils.collator import IGNORE_INDEX
from course_utils.recipe import TrainSpec
from course_utils.tasks import write_atomic

LIST = "files.json"
"""Written last into a checkpoint: what training it is of, and every file with its size."""


class RowOrder(Sampler, TrainerCallback):
    """The order in which rows of these lengths are trained: the same again after a resumption.

    Each `epoch` has another one. With `sampling` "length" the rows of a step are alike in length,
    the longest first, so that too little memory shows at once. transformers' own grouping draws
    from the global generator: the rest of an epoch would follow another order. A callback too,
    since accelerate forgets after a resumption to tell which epoch it is.
    """

    def __init__(self, lengths: Sequence[int], spec: TrainSpec) -> None:
        self.lengths, self.seed, self.batch = list(lengths), spec.seed, spec.effective_batch
        self.grouped, self.epoch = spec.sampling == "length", 0

    def on_epoch_begin(self, args, state, control, **kwargs):
        self.epoch = int(state.epoch)

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        order = torch.randperm(len(self), generator=generator).tolist()
        if not self.grouped:
            return iter(order)
        pool = 200 * self.batch  # sorted pool by pool: which rows meet stays random
        pools = [order[start : start + pool] for start in range(0, len(self), pool)]
        order = [row for rows in pools for row in sorted(rows, key=self.lengths.__getitem__)]
        batches = [order[at : at + self.batch] for at in range(0, len(self), self.batch)]
        last = [batches.pop()] if len(batches[-1]) < self.batch else []
        batches = [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]
        if batches:
            longest = max(range(len(batches)), key=lambda i: self.lengths[batches[i][-1]])
            batches[0], batches[longest] = batches[longest], batches[0]
        return iter([row for rows in batches + last for row in rows])


class CourseTrainer(SFTTrainer):
    """SFTTrainer with our order of rows, an exact evaluation loss, and FSDP2 on CPUs as well."""

    def __init__(self, spec: TrainSpec, **options: Any) -> None:
        self.order = RowOrder([len(ids) for ids in options["train_dataset"]["input_ids"]], spec)
        heldout = options["eval_dataset"]["labels"] if options["eval_dataset"] else [[]]
        labels = sum(label != IGNORE_INDEX for row in heldout for label in row)
        self.mean_labels = labels / len(heldout)  # trained tokens in a row of the evaluation
        super().__init__(**options)
        # TRL 1.16 rounds an adapter on 4 bits to bfloat16, whose gradients a T4 cannot scale.
        for parameter in self.model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
        self.remove_callback(PrinterCallback)
        self.add_callback(self.order)

    def _get_train_sampler(self, train_dataset=None):
        return self.order

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        # The Trainer averages these losses over rows. Divided by the mean number of labels a row
        # instead of the batch's own, that average is the mean over all labels.
        inputs = self._prepare_inputs(inputs)
        labels = self.mean_labels * len(inputs["input_ids"]) * self.accelerator.num_processes
        with torch.no_grad(), self.compute_loss_context_manager():
            return self.compute_loss(model, inputs, num_items_in_batch=labels).detach(), None, None

    def compute_loss(self, *args, **options):
        # On a GPU TRL 1.16 puts only trained positions through the head, on a CPU all of them. That
        # of Gemma 3 270M is larger than all its layers: to spare it there halves a step's time.
        with patch.object(trl.trainer.utils, "_use_triton", lambda device: True):
            return super().compute_loss(*args, **options)

    def create_accelerator_and_postprocess(self):
        super().create_accelerator_and_postprocess()
        if self.args.fsdp and not self.is_fsdp_enabled:
            # accelerate shards on GPUs only and would run DDP here without a word.
            plugin = FullyShardedDataParallelPlugin(**self.args.fsdp_plugin_args)
            for state in (AcceleratorState, PartialState):
                state._shared_state["distributed_type"] = DistributedType.FSDP
            AcceleratorState._shared_state["fsdp_plugin"] = plugin
            self.is_fsdp_enabled = True

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        if not (self.is_fsdp_enabled and isinstance(self.model, PeftModel)):
            return super()._load_from_checkpoint(resume_from_checkpoint, model)
        # accelerate 1.14 reads back no shard of an adapter, silently; its own file is whole.
        state = {}
        if self.is_world_process_zero():
            saved = load_file(Path(resume_from_checkpoint, "adapter_model.safetensors"))
            state = {name.replace(".weight", ".default.weight"): w for name, w in saved.items()}
        set_model_state_dict(self.model, state, options=StateDictOptions(
            full_state_dict=True, broadcast_from_rank0=True, strict=False))


class Whole(TrainerCallback):
    """Write into each checkpoint, when every process has saved its part, what it is and holds."""

    def __init__(self, training: dict[str, Any]) -> None:
        self.training = training

    def on_save(self, args, state, control, **kwargs):
        if torch.distributed.is_initialized():
            torch.distributed.barrier()
        if not state.is_world_process_zero:
            return
        folder = Path(args.output_dir, f"checkpoint-{state.global_step}")
        content = {"training": self.training, "files": _sizes(folder)}
        write_atomic(folder / LIST, json.dumps(content, indent=1, sort_keys=True) + "\n")
        for older in set(folder.parent.glob("checkpoint-*")) - {folder}:
            shutil.rmtree(older, ignore_errors=True)


def newest_whole(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """Return the newest checkpoint with a list that agrees, and what training it is of, or None."""
    for path in sorted(folder.glob("checkpoint-*"), key=lambda p: -int(p.name.split("-")[1])):
        if (path / LIST).is_file():
            listed = json.loads((path / LIST).read_text(encoding="utf-8"))
            if listed["files"] == _sizes(path):
                return path, listed["training"]
        print(f"Skipping {path.name}: it was not saved to its end.")
    return None


def _sizes(folder: Path) -> dict[str, int]:
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in folder.rglob("*")
            if path.is_file() and path.name != LIST and path.name[0] != "."}


class Progress(TrainerCallback):
    """Note the seconds in the log, those before a resumption included, and print some lines."""

    def __init__(self, progress: bool) -> None:
        self.progress = progress

    def on_train_begin(self, args, state, control, **kwargs):
        before = state.log_history[-1]["seconds"] if state.log_history else 0.0
        self.start = time.monotonic() - before
        self.first, self.since = state.global_step, time.monotonic()
        self.printed = 10 * state.global_step // max(1, state.max_steps)

    def on_step_end(self, args, state, control, **kwargs):
        done, left = state.global_step - self.first, state.max_steps - state.global_step
        seconds = (time.monotonic() - self.since) / done * left
        if done == 3 and seconds > 120 and self.progress:
            print(f"As fast as these {done} steps, it takes {seconds / 60:.0f} more minutes.",
                  flush=True)
        if args.eval_strategy != "no" and state.global_step >= state.max_steps:
            control.should_evaluate = True

    def on_log(self, args, state, control, **kwargs):
        entry = state.log_history[-1]
        entry["seconds"] = round(time.monotonic() - self.start, 2)
        for name in ("num_tokens", "eval_num_tokens"):  # TRL counts anew after a resumption
            entry.pop(name, None)
        tenth, said = 10 * state.global_step // state.max_steps, ""
        if "loss" in entry and tenth > self.printed:
            self.printed = tenth
            said = f"loss {entry['loss']:.3f}   {entry['seconds']:>5.0f} s"
        elif "eval_loss" in entry:
            said = f"held-out loss {entry['eval_loss']:.3f}"
        if said and self.progress:
            print(f"step {state.global_step:>5}/{state.max_steps}   {said}", flush=True)


def sharding(spec: TrainSpec, sharded: bool) -> dict[str, Any]:
    """Return the arguments for recomputing activations and, where it is `sharded`, for FSDP2."""
    # FSDP2's own gathers the weights only once, but PEFT 0.21 then saves an empty adapter, and
    # dropout is drawn anew: not for LoRA.
    inside = spec.activation_checkpointing and sharded and spec.full
    # transformers 5.23 calls it activation_checkpointing; 5.15 knows only this name.
    arguments = {"gradient_checkpointing": spec.activation_checkpointing and not inside}
    if sharded:  # each process shards the main one's weights: no whole model on any GPU
        arguments |= {"fsdp": True, "fsdp_config": {
            "version": 2, "activation_checkpointing": inside, "cpu_ram_efficient_loading": True,
            "state_dict_type": "FULL_STATE_DICT"}}
    return arguments


def mend_adapter(folder: Path, base: str) -> None:
    """Let a saved adapter name its base, in the same bytes every time; raise if it is empty."""
    with safe_open(folder / "adapter_model.safetensors", "pt") as weights:
        if not weights.keys():
            raise CourseError(f"The adapter was saved empty by peft {version('peft')}: install the "
                              "one of constraints.txt and train again, from the last checkpoint.")
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8")) | {"base_model_name_or_path": base}
    config["target_modules"] = sorted(config["target_modules"])  # a set, in any order
    text = json.dumps(config, indent=1, ensure_ascii=False, sort_keys=True)
    write_atomic(path, text + "\n")


@contextlib.contextmanager
def alone(threads: int) -> Iterator[None]:
    """Compute on so many CPU threads, 0 for PyTorch's choice: a sum depends on how it is split.

    What accelerate writes into the environment is taken back: a later DDP would run as FSDP.
    """
    written = {"ACCELERATE_USE_FSDP", "FSDP_CPU_RAM_EFFICIENT_LOADING"} - os.environ.keys()
    count = torch.get_num_threads()
    torch.set_num_threads(threads or count)
    try:
        yield
    finally:
        torch.set_num_threads(count)
        for name in written:
            os.environ.pop(name, None)
