"""How much GPU memory a training takes, from the recipe and the model's config.json alone.

Nothing is loaded: every figure is arithmetic on widths, layers and tokens, and says what it counts.
A training holds the weights; for each trained weight a gradient and the optimizer's numbers; and
what the forward pass keeps for the backward pass, which grows with the tokens of a batch and is the
hardest part to guess. `saved_bytes` measures that part on a real model, for the arithmetic to be
held against. Taught in 04, section 1.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from course_utils import CourseError
from course_utils.architecture import (
    Architecture,
    Config,
    model_config,
    parameters,
    read_architecture,
)
from course_utils.recipe import Recipe, TrainSpec, load_recipe, recipe_names

if TYPE_CHECKING:
    import torch

__all__ = [  # with the sizes, which live next door
    "GIB", "OVERHEAD_GIB", "MemoryEstimate", "estimate_memory", "fits", "layer_parts",
    "model_config", "parameters", "saved_bytes", "trained_parameters", "what_would_fit",
]  # fmt: skip

GIB = 2**30
OVERHEAD_GIB = 1.0
"""Assumed, not computed: the CUDA context, the workspaces of its libraries, and blocks that
PyTorch's allocator holds without using them."""
TILE_TOKENS, TILE_WIDTH = 4096, 32768
"""TRL 1.16 computes logits in tiles of so many tokens and entries of the vocabulary."""
OPTIMIZER_BYTES = {"adafactor": 0, "sgd": 0, "adamw_8bit": 2, "adamw_bnb_8bit": 2}
"""Bytes a trained weight; any other optimizer is counted as AdamW, two moments in float32."""


@dataclass(frozen=True)
class MemoryEstimate:
    """What a training holds on each GPU when it holds most, in GiB, part by part.

    `activations` is what all layers keep for the backward pass, `copies` the matrices in half
    precision beside float32 ones. On top comes either `layer` (one layer's backward pass, with what
    it computes again) or `head` (the logits, a tile at a time, and their gradients), never both;
    `update` is for the optimizer's step, when all of these are gone. `full_logits` is what `head`
    would be without tiles. `parameters` and `trained` are counts, `rows` is (rows, tokens each).
    """

    parameters: int
    trained: int
    rows: tuple[int, int]
    gpus: int
    weights: float
    adapter: float
    gradients: float
    optimizer: float
    copies: float
    activations: float
    layer: float
    head: float
    update: float
    full_logits: float
    overhead: float = OVERHEAD_GIB

    @property
    def total(self) -> float:
        """The most that is held at once, in GiB on each GPU."""
        states = self.weights + self.adapter + self.gradients + self.optimizer + self.overhead
        working = self.copies + self.activations + max(self.layer, self.head)
        return states + max(working, self.update)

    def __str__(self) -> str:
        working = self.copies + self.activations + max(self.layer, self.head)
        either = {"layer": self.layer < self.head, "head": self.head <= self.layer}
        left_out = {name for name, smaller in either.items() if smaller}
        left_out |= {"update"} if self.update <= working else {"copies", "activations", *either}
        notes = {
            "weights": f"{self.parameters:,} parameters",
            "adapter": f"{self.trained:,} parameters, the only ones trained",
            "gradients": "",
            "optimizer": "",
            "copies": "matrices in half precision",
            "activations": "{} rows of {} tokens".format(*self.rows),
            "layer": "one layer's backward pass",
            "head": f"logits in tiles; {self.full_logits:.2f} if they were whole",
            "update": "the optimizer's step",
            "overhead": "assumed: CUDA context, workspaces, fragments",
            "total": f"GiB on each of {self.gpus} GPUs" if self.gpus > 1 else "GiB",
        }
        lines = []
        for name, note in notes.items():
            value = getattr(self, name)
            if value:
                figure = f"({value:.2f})" if name in left_out else f"{value:.2f} "
                lines.append(f"{name:<12}{figure:>8}  {note}".rstrip())
        return "\n".join(lines)


def estimate_memory(
    recipe: Recipe, *, length: int | None = None, config: Config = None
) -> MemoryEstimate:
    """Estimate a training's memory on each GPU for batches of rows of `length` tokens.

    `length` None is the longest that the recipe allows. Without `config` it is the recipe's
    `architecture`, else the local folder's config.json. Raises UnknownSize where there is none, and
    for a model that is not Gemma's, GPT-NeoX's or Llama's kind.
    """
    shape, spec = read_architecture(model_config(recipe, config)), recipe.train
    length = length or spec.max_length
    tokens, width = spec.batch_size * length, _width(spec)
    trained = trained_parameters(recipe, config)
    shards = spec.gpus if spec.parallel == "fsdp" else 1
    a_layer = sum(i * o for i, o in shape.matrices.values())
    outside = shape.parameters - shape.layers * a_layer
    parts = {
        "weights": shape.parameters * (4 if spec.held_dtype == "float32" else 2) / shards,
        "adapter": 0 if spec.full else trained * 4 / shards,
        "gradients": trained * 4 / shards,
        "optimizer": trained * OPTIMIZER_BYTES.get(spec.optim, 8) / shards,
        "copies": 0,
        # What is not fused makes one more array of the size of all trained weights.
        "update": trained * 4 / shards if spec.optim == "adamw_torch" else 0,
    }
    if spec.parallel == "ddp":
        parts["gradients"] *= 2  # copied into buckets to be exchanged

    a_pass = tokens * sum(layer_parts(recipe, length, config=config).values())
    # Gradients on their way through the widest part; LoRA has one in float32 beside the model's.
    layer = tokens * shape.intermediate * width
    layer += tokens * shape.intermediate * (width if spec.full else 4)
    if spec.activation_checkpointing:
        parts["activations"] = shape.layers * shape.hidden * _stream_width(spec) * tokens
        layer += a_pass
    else:
        parts["activations"] = shape.layers * a_pass
    parts["activations"] += tokens * _norm_bytes(shape, spec)  # the last norm

    head = min(tokens, TILE_TOKENS) * TILE_WIDTH * width
    head += tokens * shape.hidden * (width + 4)  # the labelled positions, and their gradients
    full_logits = tokens * shape.vocabulary * 12  # log-probabilities, and two gradients of them
    if spec.full:
        head += shape.vocabulary * shape.hidden * 4
        full_logits += shape.vocabulary * shape.hidden * 4
    if shards > 1:
        # Embeddings and head are whole on every GPU; so are two layers, one at work and the next,
        # and the gradients of the one at work.
        parts["weights"] += outside * width
        layer += a_layer * width * (3 if spec.full else 2)
        head += a_layer * width + (shape.vocabulary * shape.hidden * width if spec.full else 0)
    elif spec.full and width == 2:
        parts["copies"] = shape.layers * a_layer * 2  # autocast keeps them for the whole pass
    parts |= {"layer": layer, "head": head, "full_logits": full_logits}
    return MemoryEstimate(
        shape.parameters, trained, (spec.batch_size, length), spec.gpus,
        **{name: value / GIB for name, value in parts.items()},
    )  # fmt: skip


def layer_parts(recipe: Recipe, length: int, *, config: Config = None) -> dict[str, float]:
    """Return the bytes a token that one layer keeps for its backward pass, by where they arise.

    Counted for batches with some padding. A frozen matrix does not keep its input; one with LoRA
    keeps a copy of it, because autocast converts it anew for PEFT's float32 matrices.
    """
    shape, spec = read_architecture(model_config(recipe, config)), recipe.train
    width = _width(spec)
    trained = set(shape.matrices) if spec.full else set(spec.target_modules)
    # Converted for each matrix that reads it, unless it has the type of the matrices already.
    converted = width == 2 and (
        not spec.full or _stream_width(spec) == 4 or shape.kind == "gpt_neox"
    )
    norms = 2 * _norm_bytes(shape, spec)
    if shape.parallel_residual and _stream_width(spec) == 4:
        norms /= 2  # both read the same tensor, and neither has to convert it

    inputs = 0 if spec.full else len(trained) * spec.lora_r * width
    for group in shape.readers:
        readers = len(trained.intersection(group))
        if group == ("o_proj",) and not converted and spec.attention != "eager":
            continue  # it reads what attention keeps anyway
        inputs += (readers if converted else min(readers, 1)) * shape.matrices[group[0]][0] * width

    query = shape.heads * shape.head_dim
    if spec.attention == "eager":
        # Every score after the softmax, in float32, and once more in half precision.
        scores = shape.heads * length * (4 if width == 4 else 6)
        attention = 3 * query * width + scores
    else:
        # SDPA gets a mask for each layer, and keys and values repeated for every head that has none
        # of its own; one head for all is only looked at many times.
        flash = spec.attention.startswith(("flash", "kernels-community"))
        repeated = shape.kv_heads > 1 and not flash
        key = query if repeated else shape.kv_heads * shape.head_dim
        attention = 2 * (query + key) * width + shape.heads * 4 + (0 if flash else length * width)
        if shape.kind == "gpt_neox":
            attention += 2 * query * width  # values are a view of queries, keys and values
    mlp = (1 if shape.kind == "gpt_neox" else 3) * shape.intermediate * width
    return {"norms": norms, "inputs of matrices": inputs, "attention": attention, "mlp": mlp}


def trained_parameters(recipe: Recipe, config: Config = None) -> int:
    """Return how many parameters a recipe trains: all, or r x (in + out) for a matrix with LoRA.

    Raises CourseError for a target module that the architecture does not have.
    """
    shape, spec = read_architecture(model_config(recipe, config)), recipe.train
    if spec.full:
        return shape.parameters
    for name in spec.target_modules:
        if name not in shape.matrices:
            raise CourseError(
                f"{recipe.name}: 'train.target_modules' has '{name}', which a {shape.kind} model "
                f"does not have; it has {', '.join(shape.matrices)}."
            )
    ends = sum(sum(shape.matrices[name]) for name in set(spec.target_modules))
    return spec.lora_r * shape.layers * ends


def fits(estimate: MemoryEstimate, gib: float) -> bool:
    """Return whether a training fits into so much free memory on each GPU."""
    return estimate.total <= gib


def what_would_fit(recipe: Recipe, gib: float, *, length: int | None = None) -> str:
    """Return one sentence that names the smallest change with which a recipe fits into `gib`."""
    length = length or recipe.train.max_length
    for change, changed in _smaller(recipe, length):
        estimate = estimate_memory(changed, length=min(length, changed.train.max_length))
        if fits(estimate, gib):
            return f"It would fit with {change} (about {estimate.total:.1f} GiB)."
    needed = math.ceil(estimate_memory(recipe, length=length).total)
    needed = f"this one needs a GPU with {needed} GiB free"
    others = [load_recipe(name) for name in recipe_names() if name not in ("offline", recipe.name)]
    totals = {
        other.name: estimate_memory(other).total
        for other in others
        if other.train.gpus <= recipe.train.gpus
    }
    smaller = {name: total for name, total in totals.items() if total <= gib}
    if smaller:
        name = max(smaller, key=smaller.__getitem__)
        return f"The recipe {name} would fit (about {smaller[name]:.1f} GiB); {needed}."
    return f"Only the recipe offline would fit; {needed}."


def saved_bytes(model: "torch.nn.Module", forward: Callable[[], Any]) -> int:
    """Run a forward pass and return the bytes it keeps for the backward pass, parameters apart."""
    import torch

    known = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept = {}

    def note(tensor: "torch.Tensor") -> "torch.Tensor":
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage  # held on to, so that no address comes twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        result = forward()  # what the graph keeps lives as long as its result
    del result
    return sum(storage.nbytes() for storage in kept.values())


def _width(spec: TrainSpec) -> int:
    """Bytes of a number that matrices compute with."""
    return 4 if spec.dtype == "float32" else 2


def _stream_width(spec: TrainSpec) -> int:
    """Bytes of a number on its way from layer to layer: the type of the embeddings at work."""
    return 2 if spec.parallel == "fsdp" and spec.dtype != "float32" else _held_width(spec)


def _held_width(spec: TrainSpec) -> int:
    return 4 if spec.held_dtype == "float32" else 2


def _norm_bytes(shape: Architecture, spec: TrainSpec) -> int:
    """Bytes a token that one norm keeps: its input in float32, and what its own gradient needs."""
    own = {"gemma": 4, "llama": _stream_width(spec), "gpt_neox": 0}[shape.kind] if spec.full else 0
    return shape.hidden * (4 + own)


def _smaller(recipe: Recipe, length: int) -> Iterator[tuple[str, Recipe]]:
    """Yield smaller trainings in words and as a recipe, those that change least first."""
    spec, words = recipe.train, []

    def now() -> tuple[str, Recipe]:
        return ", ".join(words), replace(recipe, train=spec)

    if not spec.activation_checkpointing:
        spec = replace(spec, activation_checkpointing=True)
        words.append("train.activation_checkpointing true")
        yield now()
    said = len(words)
    while spec.batch_size % 2 == 0:  # the same rows in a step, fewer of them at a time
        batch, accumulation = spec.batch_size // 2, spec.gradient_accumulation * 2
        spec = replace(spec, batch_size=batch, gradient_accumulation=accumulation)
        words[said:] = [f"train.batch_size {batch}", f"train.gradient_accumulation {accumulation}"]
        yield now()
    said = len(words)
    for shorter in (length // 16 * 8, length // 32 * 8):
        if shorter >= 64:
            spec = replace(spec, max_length=shorter)
            words[said:] = [f"train.max_length {shorter}"]
            yield now()
    if spec.full:
        spec = replace(recipe.train, lora_r=8, activation_checkpointing=True)
        targets = tuple(read_architecture(model_config(recipe)).matrices)
        spec = replace(spec, target_modules=targets)
        words = ["an adapter instead of all weights (train.lora_r 8)"]
        yield now()
