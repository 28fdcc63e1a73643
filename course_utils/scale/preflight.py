"""What a training will be, told before it begins: GPU, memory, rows, tokens, steps, padding.

    card = preflight(recipe, rows)
    print(card)      # nothing is loaded yet
    check(card)      # raises what would otherwise fail later, and says what to do instead

Taught in 02, section 5.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from course_utils import CourseError
from course_utils.collator import IGNORE_INDEX, EncodeReport, Row
from course_utils.inference import Device, find_device, pick_attention
from course_utils.recipe import Recipe, TrainSpec, recipe_names
from course_utils.scale.memory import MemoryEstimate, UnknownSize, estimate_memory, what_would_fit
from course_utils.scale.parallel import batch_shape, processes

if TYPE_CHECKING:
    import datasets

MULTIPLE = 8
"""Batches are padded to a multiple of this, as MaskingCollator does."""


class PreflightError(CourseError):
    """A training that cannot work as it is; the message names what would."""


@dataclass(frozen=True)
class Preflight:
    """Everything that is known before the first step; printed, it is the card.

    `recipe` is as it runs here: float32 on a CPU, an attention that works. `memory` is for this
    device and so many `processes`, `meant` for the GPUs that the recipe was written for; both are
    None for a model whose size only loading it can tell. `free` is GiB, None where it is not known.
    `tokens` are those of one epoch without padding, `padding` the share of it in all that is
    computed, `rate` tokens a second if measured, `untrained` the rows in which no token is trained.
    """

    recipe: Recipe
    device: Device
    memory: MemoryEstimate | None
    meant: MemoryEstimate | None
    free: float | None
    processes: int
    rows: int
    longest: int
    tokens: int
    trained_tokens: int
    padding: float
    steps: int
    untrained: tuple[int, ...] = field(repr=False)
    report: EncodeReport | None = None
    rate: float | None = None

    @property
    def minutes(self) -> float | None:
        """The whole training in minutes at the measured rate, or None if none was measured."""
        return self.tokens * self.recipe.train.epochs / self.rate / 60 if self.rate else None

    def __str__(self) -> str:
        spec, memory, meant = self.recipe.train, self.memory, self.meant
        room = "unknown" if self.free is None else f"{self.free:.1f} GiB free"
        lost = ""
        if self.report:
            lost = f", {self.report.truncated:,} truncated, {self.report.dropped:,} dropped"
        rows = {
            "Recipe": self.recipe.name,
            "Device": self.device.name,
            "Memory": f"unknown for this model, {room}",
            "Meant for": None,
            "Attention": spec.attention,
            "Trained": None,
            "Rows": f"{self.rows:,}, the longest {self.longest} tokens{lost}",
            "Tokens": f"{self.tokens:,} an epoch, {self.trained_tokens:,} of them trained",
            "Padding": f"about {self.padding:.1%} of what is computed ({spec.sampling} batches)",
            "Batch": f"{spec.batch_size} x {spec.gradient_accumulation} x {self.processes} "
            f"= {spec.effective_batch} rows a step",
            "Steps": f"{self.steps:,} in {spec.epochs:g} epochs",
            "Time": "unknown until the first steps"
            if self.minutes is None
            else f"about {self.minutes:.0f} minutes at {self.rate:,.0f} tokens a second",
        }
        if memory and meant:
            share = memory.trained / memory.parameters
            rows["Memory"] = f"{memory.total:.1f} GiB estimated{memory.like}, {room}"
            rows["Trained"] = (
                f"{memory.trained:,} of {memory.parameters:,} parameters ({share:.2%})"
            )
            if meant != memory:
                s, each = ("s", " each") if meant.gpus > 1 else ("", "")
                rows["Meant for"] = f"{meant.gpus} GPU{s} with {meant.total:.1f} GiB{each}"
        return "\n".join(f"{name:<11}{text}" for name, text in rows.items() if text)


def preflight(
    recipe: Recipe,
    rows: "Sequence[Row] | datasets.Dataset",
    *,
    report: EncodeReport | None = None,
    device: Device | None = None,
    free: float | None = None,
    rate: float | None = None,
) -> Preflight:
    """Find out what training a recipe on encoded rows will take, without loading the model.

    `device` None looks for a GPU, `free` None asks how many GiB it has left. `rate` is tokens a
    second as measured on this device before, such as `result.tokens / result.seconds`.
    """
    lengths = [len(row["input_ids"]) for row in rows]
    trained = [sum(label != IGNORE_INDEX for label in row["labels"]) for row in rows]
    if not lengths:
        raise PreflightError("There are no rows to train on.")
    device = device or find_device()
    free = _free_gib(device) if free is None else free
    count = processes()
    width = math.ceil(max(lengths) / MULTIPLE) * MULTIPLE
    meant = _estimate(recipe, width)
    recipe = _as_it_runs(recipe, device, count)
    spec = recipe.train
    batches = math.ceil(len(lengths) / (spec.batch_size * count))
    per_epoch = math.ceil(batches / spec.gradient_accumulation)
    return Preflight(
        recipe=recipe,
        device=device,
        memory=_estimate(recipe, width),
        meant=meant,
        free=free,
        processes=count,
        rows=len(lengths),
        longest=max(lengths),
        tokens=sum(lengths),
        trained_tokens=sum(trained),
        padding=padding_share(lengths, spec),
        steps=math.ceil(per_epoch * spec.epochs),
        untrained=tuple(i for i, n in enumerate(trained) if n == 0),
        report=report,
        rate=rate,
    )


def check(card: Preflight) -> None:
    """Raise PreflightError if a training cannot work: bfloat16, memory, a row without labels."""
    spec, device = card.recipe.train, card.device
    if device.kind == "cuda" and spec.dtype == "bfloat16" and device.capability < (8, 0):
        same = f"{card.recipe.name.removesuffix('-l4')}-t4"
        other = same if same in recipe_names() else "midm-2b-t4"
        raise PreflightError(
            f"{device.name} has no bfloat16, which the recipe {card.recipe.name} asks for: use the "
            f'recipe {other}, or recipe.replace("train.dtype", "float16").'
        )
    if card.untrained:
        first, others = card.untrained[0], len(card.untrained) - 1
        raise PreflightError(
            f"Row {first}{f' and {others} more' if others else ''} has no trained token: every "
            f"label is {IGNORE_INDEX}, so it would count as a loss of 0; look at it with show_mask "
            "and mend or drop it."
        )
    if card.free is None or card.memory is None:
        return
    memory, needed = card.memory, card.memory.total
    if device.kind != "cuda":  # main memory can be swapped: only what is always held must fit
        needed = memory.weights + memory.adapter + memory.gradients + memory.optimizer
    if needed > card.free:
        advice = "Run it on a GPU, or try it here with --tiny."
        if device.kind == "cuda":
            advice = what_would_fit(card.recipe, card.free, length=memory.rows[1])
        raise PreflightError(
            f"The recipe {card.recipe.name} takes about {needed:.1f} GiB and {device.name} has "
            f"{card.free:.1f} free. {advice}"
        )


def padding_share(lengths: Sequence[int], spec: TrainSpec) -> float:
    """Return the share of padding among all tokens of an epoch's batches, a seeded example of it.

    "length" is transformers' way: shuffle, take groups of 50 batches, sort each group by length.
    """
    order = list(range(len(lengths)))
    random.Random(spec.seed).shuffle(order)
    if spec.sampling == "length":
        together = spec.batch_size * spec.gradient_accumulation
        group = together * max(1, min(len(lengths) // (together * 4), 50))
        groups = [order[i : i + group] for i in range(0, len(order), group)]
        order = [i for g in groups for i in sorted(g, key=lambda i: -lengths[i])]
    computed = 0
    for start in range(0, len(order), spec.batch_size):
        batch = [lengths[i] for i in order[start : start + spec.batch_size]]
        computed += len(batch) * math.ceil(max(batch) / MULTIPLE) * MULTIPLE
    return 1 - sum(lengths) / computed


def _as_it_runs(recipe: Recipe, device: Device, count: int) -> Recipe:
    """Return a recipe with what a device and so many processes make of it."""
    rows, accumulated = batch_shape(recipe.train, count)
    if device.kind != "cuda":
        spec = replace(recipe.train, dtype="float32", activation_checkpointing=False)
        attention = "sdpa" if spec.attention == "auto" else spec.attention
    else:
        spec = recipe.train
        attention = pick_attention() if spec.attention == "auto" else spec.attention
    spec = replace(spec, attention=attention, gpus=count, batch_size=rows,
                   gradient_accumulation=accumulated)
    return replace(recipe, train=spec)


def _estimate(recipe: Recipe, length: int) -> MemoryEstimate | None:
    try:
        return estimate_memory(recipe, length=length)
    except UnknownSize:  # any model may be trained, also one that cannot be sized up before
        return None


def _free_gib(device: Device) -> float | None:
    """Return what is free on the GPU, or in main memory without one; None where nothing tells."""
    if device.kind == "cuda":
        import torch

        if torch.cuda.is_available():
            return torch.cuda.mem_get_info()[0] / 2**30
        return device.gib
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            sizes = dict(line.split(":") for line in file)
        return int(sizes["MemAvailable"].split()[0]) / 2**20
    except (OSError, KeyError, ValueError):
        return None
