"""The card before a training: GPU, memory, rows, tokens, padding, steps. Taught in 02, section 6.

    card = preflight(recipe, rows)
    print(card)      # nothing is loaded yet
    check(card)      # raises what would otherwise fail later, and says what to do instead
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from course_utils.collator import IGNORE_INDEX, EncodeReport, MaskingCollator, Row
from course_utils.inference import Device, find_device, pick_attention
from course_utils.recipe import Recipe, TrainSpec, recipe_names
from course_utils.scale.memory import MemoryEstimate, UnknownSize, estimate_memory, what_would_fit
from course_utils.scale.parallel import TrainError, batch_shape, is_sharded, processes


@dataclass(frozen=True)
class Preflight:
    """Everything that is known before the first step; printed, it is the card.

    `recipe` is as it runs here. `memory` is for this device, `meant` for the GPUs that the recipe
    was written for; None where only loading tells a model's size. `free` is GiB. `tokens` are those
    of one epoch without padding, `padding` is its share in what the first epoch computes.
    """

    recipe: Recipe
    device: Device
    memory: MemoryEstimate | None
    meant: MemoryEstimate | None
    free: float
    rows: int
    longest: int
    tokens: int
    trained_tokens: int
    padding: float
    steps: int
    report: EncodeReport | None = None

    def __str__(self) -> str:
        spec, memory, meant = self.recipe.train, self.memory, self.meant
        rows = f"{self.rows:,}, the longest {self.longest} tokens"
        if self.report:
            rows += f", {self.report.truncated:,} truncated, {self.report.dropped:,} dropped"
        held, trained, written_for = "unknown for this model", "", ""
        if memory:
            held = f"{memory.total:.1f} GiB estimated{memory.like}"
            share = memory.trained / memory.parameters
            trained = f"{memory.trained:,} of {memory.parameters:,} parameters ({share:.2%})"
        if meant != memory:
            gpus, each = ("1 GPU", "") if meant.gpus == 1 else (f"{meant.gpus} GPUs", " each")
            written_for = f"{gpus} with {meant.total:.1f} GiB{each}"
        lines = {
            "Recipe": self.recipe.name, "Device": self.device.name,
            "Memory": f"{held}, {self.free:.1f} GiB free", "Meant for": written_for,
            "Attention": spec.attention, "Trained": trained, "Rows": rows,
            "Tokens": f"{self.tokens:,} an epoch, {self.trained_tokens:,} of them trained",
            "Padding": f"{self.padding:.1%} of what is computed ({spec.sampling} batches)",
            "Batch": f"{spec.batch_size} x {spec.gradient_accumulation} x {spec.gpus} "
                     f"= {spec.effective_batch} rows a step",
            "Steps": f"{self.steps:,} in {spec.epochs:g} epochs"}
        return "\n".join(f"{name:<11}{text}" for name, text in lines.items() if text)


def preflight(recipe: Recipe, rows: Iterable[Row], *, report: EncodeReport | None = None,
              device: Device | None = None) -> Preflight:
    """Find out what training on encoded rows takes here, or on another `device`; nothing loads."""
    import psutil
    import torch

    from course_utils.scale.trainer import RowOrder

    rows, device = list(rows), device or find_device()
    here, gpu, free = as_it_runs(recipe, device), device.kind == "cuda", device.gib
    if not gpu:
        free = psutil.virtual_memory().available / 2**30
    elif torch.cuda.is_available():
        free = torch.cuda.mem_get_info()[0] / 2**30
    lengths = [len(row["input_ids"]) for row in rows]
    trained = sum(label != IGNORE_INDEX for row in rows for label in row["labels"])
    spec, collator = here.train, MaskingCollator(0, padded_to(here.train, gpu))
    order = list(RowOrder(lengths, spec))
    batches = [[lengths[row] for row in order[at : at + spec.batch_size]]
               for at in range(0, len(order), spec.batch_size)]
    computed = sum(len(batch) * collator.width(batch) for batch in batches)
    each = math.ceil(len(batches) / spec.gpus)  # batches of an epoch, for each process
    steps = math.ceil(math.ceil(each / spec.gradient_accumulation) * spec.epochs)
    try:
        memory, meant = (estimate_memory(r, length=collator.width(lengths)) for r in (here, recipe))
    except UnknownSize:  # any model may be trained, also one that cannot be sized up before
        memory = meant = None
    return Preflight(here, device, memory, meant, free, rows=len(rows), longest=max(lengths),
                     tokens=sum(lengths), trained_tokens=trained,
                     padding=1 - sum(lengths) / computed, steps=steps, report=report)


def check(card: Preflight) -> None:
    """Raise TrainError for a training without bfloat16 or memory where it needs them."""
    device, memory, name = card.device, card.memory, card.recipe.name
    gpu, bfloat16 = device.kind == "cuda", card.recipe.train.dtype == "bfloat16"
    if gpu and bfloat16 and device.capability < (8, 0):
        same = f"{name.removesuffix('-l4')}-t4"
        other = same if same in recipe_names() else "midm-2b-t4"
        raise TrainError(f"{device.name} has no bfloat16, which {name} needs: use the recipe "
                         f'{other}, or recipe.replace("train.dtype", "float16").')
    # Main memory can be swapped: there only what is always held must fit.
    if memory and (needed := memory.total if gpu else memory.held) > card.free:
        advice = "Run it on a GPU, or try it here with --tiny."
        if gpu:
            advice = what_would_fit(card.recipe, card.free, length=memory.rows[1])
        raise TrainError(f"The recipe {name} takes about {needed:.1f} GiB and {device.name} "
                         f"has {card.free:.1f} free. {advice}")


def as_it_runs(recipe: Recipe, device: Device) -> Recipe:
    """Return a recipe as a device and so many processes train it: on a CPU in float32, unless it is
    a recipe for a CPU, one that names its threads, and the CPU computes in bfloat16."""
    batch, times = batch_shape(recipe.train, processes())
    spec = replace(recipe.train, gpus=processes(), batch_size=batch, gradient_accumulation=times)
    if device.kind != "cuda":
        again = spec.activation_checkpointing and is_sharded(spec)
        half = spec.threads and spec.dtype == "bfloat16" and cpu_has_bfloat16()
        spec = replace(spec, dtype="bfloat16" if half else "float32",
                       activation_checkpointing=again)
    if spec.attention == "auto":
        spec = replace(spec, attention=pick_attention() if device.kind == "cuda" else "sdpa")
    return replace(recipe, train=spec)


def cpu_has_bfloat16() -> bool:
    """Return whether this CPU multiplies in bfloat16, rather than pretending to, slowly."""
    import torch

    found = torch.cpu.get_capabilities()
    return any(found.get(name) for name in ("avx512_bf16", "amx_bf16"))


def padded_to(spec: TrainSpec, gpu: bool) -> int:
    """Return the multiple that batches are padded to: a GPU likes 8, a CPU only pays for it."""
    return 8 if gpu or spec.sampling == "random" else 1
