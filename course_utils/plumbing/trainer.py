"""From a recipe to TRL's SFTTrainer: everything that depends on the names of TRL and its kin.

Rows come with their labels, so the library tokenises, cuts and masks nothing. Several processes
are DDP, or FSDP2 where the recipe says so. Taught in 02, section 5, and in 04, section 4.
"""

import dataclasses
import importlib.util
import math
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import datasets
import torch
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from peft import LoraConfig, PeftModel
from safetensors.torch import load_file
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torch.utils.data import Sampler, SequentialSampler
from transformers import PrinterCallback, TrainerCallback
from trl import SFTConfig, SFTTrainer

from course_utils import CourseError
from course_utils.collator import IGNORE_INDEX, MaskingCollator, Row
from course_utils.inference import load_base
from course_utils.plumbing.resume import checkpoints
from course_utils.recipe import Recipe, TrainSpec
from course_utils.scale import parallel
from course_utils.scale.parallel import TrainError, batch_shape, is_sharded

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

POOL = 200
"""Rows are grouped by length within pools of this many batches; which rows meet stays random."""


def make_trainer(
    recipe: Recipe,
    tokenizer: "PreTrainedTokenizerBase",
    rows: Sequence[Row],
    heldout: Sequence[Row],
    folder: Path,
    *,
    name: str = "train",
    reports: Path | None = None,
    resumed: bool = False,
    progress: bool = True,
) -> SFTTrainer:
    """Return a trainer that writes checkpoints to `folder`; every process calls this alike.

    `heldout` rows give an evaluation loss; there may be none. W&B shows the run as `name`,
    TensorBoard's files go to `reports`. Raises TrainError, ModelFolderError.
    """
    spec = recipe.train
    if spec.report_to != "none" and not importlib.util.find_spec(spec.report_to):
        raise TrainError(
            f"The recipe reports to {spec.report_to}, which is not installed: run "
            f'`pip install {spec.report_to}` or use recipe.replace("train.report_to", "none").'
        )
    gpu = torch.cuda.is_available()
    dtype = spec.dtype if gpu else "float32"
    if dtype == "bfloat16" and torch.cuda.get_device_capability()[0] < 8:
        raise TrainError(
            f"{torch.cuda.get_device_name()} has no bfloat16; "
            'use recipe.replace("train.dtype", "float16").'
        )
    sharded = is_sharded(spec)
    steps = math.ceil(len(rows) / spec.effective_batch) * spec.epochs
    batch, accumulated = batch_shape(spec, parallel.processes())
    try:
        arguments = SFTConfig(
            output_dir=str(folder),
            num_train_epochs=spec.epochs,
            per_device_train_batch_size=batch,
            per_device_eval_batch_size=batch,
            gradient_accumulation_steps=accumulated,
            learning_rate=spec.learning_rate,
            lr_scheduler_type=spec.scheduler,
            warmup_steps=spec.warmup,
            weight_decay=spec.weight_decay,
            optim=spec.optim,
            max_grad_norm=spec.max_grad_norm,
            bf16=dtype == "bfloat16",
            fp16=dtype == "float16",
            use_cpu=not gpu,
            seed=spec.seed,
            data_seed=spec.seed,
            logging_steps=max(1, int(steps) // 40),
            eval_strategy="steps" if heldout else "no",
            eval_steps=max(1, int(steps) // 10),
            # The loss before the first step; a resumed run has it in its log already.
            eval_on_start=bool(heldout) and not resumed,
            save_strategy="steps",
            save_steps=spec.save_steps,
            report_to="wandb" if spec.report_to == "wandb" else "none",
            run_name=name,
            disable_tqdm=True,
            dataloader_pin_memory=gpu,
            # The rows are ready: nothing is tokenised, cut or dropped behind our back.
            max_length=None,
            dataset_kwargs={"skip_prepare_dataset": True},
            **_checkpointing(spec, gpu, sharded),
        )
    except ValueError as error:  # of an optimiser or a schedule that transformers lacks
        raise CourseError(
            f"The recipe's training settings are refused ({' '.join(str(error).split())}): correct "
            "them in the recipe."
        ) from None
    # Updates are too small for 16 bits, so weights that are trained are held in float32; mixed
    # precision rounds them for each step. LoRA's own are float32 by PEFT.
    held = spec.held_dtype if gpu else "float32"
    model, _ = load_base(
        recipe.base_model, dtype=held, attention=_attention(spec), quantize=spec.quantize
    )
    pad = tokenizer.pad_token_id
    trainer = _Trainer(
        model=model,
        args=arguments,
        train_dataset=datasets.Dataset.from_list(list(rows)),
        # By length, so that the evaluation pads little.
        eval_dataset=datasets.Dataset.from_list(sorted(heldout, key=_length)) if heldout else None,
        data_collator=MaskingCollator(
            # Any id will do for padding, since no mask is derived from it.
            tokenizer.eos_token_id if pad is None else pad,
            # A GPU likes widths of a multiple of 8; a CPU only pays for them.
            pad_to_multiple_of=8 if gpu or spec.sampling == "random" else 1,
        ),
        processing_class=tokenizer,
        peft_config=_lora(spec),
    )
    if spec.quantize == "4bit":  # TRL 1.16 rounds such an adapter to bfloat16, also on a T4
        for parameter in trainer.model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
    trainer.order = RowOrder(
        len(rows),
        spec.seed,
        lengths=[_length(row) for row in rows] if spec.sampling == "length" else None,
        batch=spec.effective_batch,
    )
    trainer.heldout_labels = sum(map(_labels, heldout)) / max(1, len(heldout))
    trainer.remove_callback(PrinterCallback)
    for callback in (Epochs(trainer.order), SaveTogether(), KeepNewest(), Progress(progress)):
        trainer.add_callback(callback)
    if spec.report_to == "tensorboard" and parallel.is_main():
        from torch.utils.tensorboard import SummaryWriter
        from transformers.integrations import TensorBoardCallback

        trainer.add_callback(TensorBoardCallback(SummaryWriter(log_dir=str(reports))))
    return trainer


class RowOrder(Sampler):
    """The order in which rows are trained on: another one each epoch, the same after a resumption.

    With `lengths`, the rows of each `batch` are alike in length and the longest come first, so that
    too little memory shows at once. transformers' own grouping draws from the global generator:
    the second half of a resumed epoch would be that of another order.
    """

    def __init__(
        self, rows: int, seed: int, *, lengths: Sequence[int] | None = None, batch: int = 1
    ) -> None:
        self.rows, self.seed, self.lengths, self.batch = rows, seed, lengths, batch
        self.epoch = 0

    def __len__(self) -> int:
        return self.rows

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        order = torch.randperm(self.rows, generator=generator).tolist()
        if self.lengths is None:
            return iter(order)
        pool = POOL * self.batch
        pools = [order[start : start + pool] for start in range(0, self.rows, pool)]
        order = [row for rows in pools for row in sorted(rows, key=self.lengths.__getitem__)]
        batches = [order[at : at + self.batch] for at in range(0, self.rows, self.batch)]
        last = [batches.pop()] if len(batches[-1]) < self.batch else []
        batches = [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]
        if batches:
            longest = max(range(len(batches)), key=lambda i: self.lengths[batches[i][-1]])
            batches[0], batches[longest] = batches[longest], batches[0]
        return iter([row for rows in batches + last for row in rows])


class _Trainer(SFTTrainer):
    """SFTTrainer with our order of rows, an exact evaluation loss, and FSDP2 on CPUs as well."""

    order: RowOrder
    heldout_labels: float

    def _get_train_sampler(self, train_dataset=None):
        return self.order

    def _get_eval_sampler(self, eval_dataset):
        return SequentialSampler(eval_dataset)

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        # The Trainer averages these losses over rows. Divided by the mean number of labels a row
        # instead of the batch's own, that average is the mean over all labels.
        inputs = self._prepare_inputs(inputs)
        labels = self.heldout_labels * len(inputs["input_ids"]) * self.accelerator.num_processes
        with torch.no_grad(), self.compute_loss_context_manager():
            return self.compute_loss(model, inputs, num_items_in_batch=labels).detach(), None, None

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
        # accelerate 1.14 keeps one process's shards of an adapter and reads back none, silently.
        # The adapter's own file beside them is whole.
        state = {}
        if self.is_world_process_zero():
            saved = load_file(Path(resume_from_checkpoint, "adapter_model.safetensors"))
            state = {name.replace(".weight", ".default.weight"): w for name, w in saved.items()}
        options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True, strict=False)
        set_model_state_dict(self.model, state, options=options)


class Epochs(TrainerCallback):
    """Tell the order of the rows which epoch it is: accelerate forgets to after a resumption."""

    def __init__(self, order: RowOrder) -> None:
        self.order = order

    def on_epoch_begin(self, args, state, control, **kwargs):
        self.order.epoch = int(state.epoch)


class SaveTogether(TrainerCallback):
    """Wait for every process: each has a part of a checkpoint to write, and one seals it."""

    def on_save(self, args, state, control, **kwargs):
        parallel.wait()


class KeepNewest(TrainerCallback):
    """Remove older checkpoints once a newer one is whole: by number, not by a clock."""

    def on_save(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            for path in checkpoints(Path(args.output_dir))[:-1]:
                shutil.rmtree(path, ignore_errors=True)


class Progress(TrainerCallback):
    """Note the seconds in the log, those before a resumption included, and print some lines."""

    def __init__(self, progress: bool) -> None:
        self.progress = progress

    def on_train_begin(self, args, state, control, **kwargs):
        seconds = [entry["seconds"] for entry in state.log_history if "seconds" in entry]
        self.start = time.monotonic() - (seconds[-1] if seconds else 0.0)
        self.printed = 10 * state.global_step // max(1, state.max_steps)

    def on_step_end(self, args, state, control, **kwargs):
        if args.eval_strategy != "no" and state.global_step >= state.max_steps:
            control.should_evaluate = True

    def on_log(self, args, state, control, logs=None, **kwargs):
        entry = state.log_history[-1]
        entry["seconds"] = round(time.monotonic() - self.start, 2)
        for name in ("num_tokens", "eval_num_tokens"):  # TRL counts anew after a resumption
            entry.pop(name, None)
        tenth = 10 * state.global_step // state.max_steps
        if not (self.progress and state.is_world_process_zero):
            return
        at = f"step {state.global_step:>5}/{state.max_steps}"
        if "loss" in entry and tenth > self.printed:
            self.printed = tenth
            print(f"{at}   loss {entry['loss']:.3f}   {entry['seconds']:>5.0f} s", flush=True)
        elif "eval_loss" in entry:
            print(f"{at}   held-out loss {entry['eval_loss']:.3f}", flush=True)


def _checkpointing(spec: TrainSpec, gpu: bool, sharded: bool) -> dict[str, Any]:
    """Return the arguments for FSDP2 and for recomputing activations."""
    wanted = spec.activation_checkpointing and (gpu or sharded)
    # FSDP2's own recomputes without a second gathering of the weights, but it wraps the layers,
    # whereupon PEFT 0.21 saves an empty adapter, and draws dropout anew: not for LoRA.
    inside = wanted and sharded and spec.full
    names = {f.name for f in dataclasses.fields(SFTConfig)}
    # transformers 5.23 renamed gradient_checkpointing; 5.15 knows only the old name.
    new = "activation_checkpointing"
    arguments = {new if new in names else "gradient_checkpointing": wanted and not inside}
    if sharded:
        arguments["fsdp"] = True
        arguments["fsdp_config"] = {
            "version": 2,
            "activation_checkpointing": inside,
            # Every process shards the main one's weights, without a whole model on any GPU.
            "cpu_ram_efficient_loading": True,
            "state_dict_type": "FULL_STATE_DICT",
        }
    return arguments


def _lora(spec: TrainSpec) -> LoraConfig | None:
    if spec.full:
        return None
    return LoraConfig(
        r=spec.lora_r,
        lora_alpha=spec.lora_alpha,
        lora_dropout=spec.lora_dropout,
        target_modules=list(spec.target_modules),
        bias="none",
        task_type="CAUSAL_LM",
    )


def _attention(spec: TrainSpec) -> str:
    if spec.attention != "auto":
        return spec.attention
    from course_utils.inference import pick_attention

    return pick_attention()


def _length(row: Row) -> int:
    return len(row["input_ids"])


def _labels(row: Row) -> int:
    return sum(label != IGNORE_INDEX for label in row["labels"])
