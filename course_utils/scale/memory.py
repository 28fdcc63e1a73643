"""How much GPU memory a training takes, from the recipe and the model's config.json alone.

Nothing is loaded: transformers and PEFT make the model without numbers in it (on PyTorch's "meta"
device), which counts parameters exactly for any architecture. The rest is arithmetic on widths,
layers and tokens, and says what it counts. A training holds the weights; for each trained weight a
gradient and the optimizer's numbers; and what the forward pass keeps for the backward pass, which
grows with the tokens of a batch and is the hardest part to guess: tests/benchmarks/memory.py holds
it against real models. Taught in 04, section 1.
"""

import functools
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from course_utils import CourseError
from course_utils.inference import ModelFolderError, load_config, own_head_dim, quiet
from course_utils.recipe import Recipe, TrainSpec, load_recipe, recipe_names

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

Config = Any
"""A model's configuration: config.json as a dict, or a transformers object."""

GIB = 2**30
OVERHEAD_GIB = 1.0
"""Assumed, not computed: the CUDA context, the workspaces of its libraries, and blocks that
PyTorch's allocator holds without using them."""
TILE_TOKENS, TILE_WIDTH = 4096, 32768
"""TRL 1.16 computes logits in tiles of so many tokens and entries of the vocabulary."""
OPTIMIZER_BYTES = {"adafactor": 0, "sgd": 0, "adamw_8bit": 2, "adamw_bnb_8bit": 2}
"""Bytes a trained weight; any other optimizer is counted as AdamW, two moments in float32."""
NF4_BYTES = 1 / 2 + (1 + 4 / 256) / 64
"""Four bits a weight, a byte for the scale of 64 weights, and a float32 for 256 such scales."""
READ_TOGETHER = ({"q_proj", "k_proj", "v_proj"}, {"gate_proj", "up_proj"})
"""Matrices that read one input; every other one reads an input of its own."""
MEASURED = ("gemma", "gemma3_text", "gpt_neox", "llama", "qwen3")
"""Types of model whose kept activations were held against real ones; others count as a relative."""


class UnknownSize(CourseError):
    """A model whose size cannot be known without loading it; the message says what to add."""


@dataclass(frozen=True)
class _Sizes:
    """What a model's modules and configuration say: counts, widths, and its matrices as (in, out).

    `family` is whose way of keeping activations it has. `layer_weights` counts the matrices of a
    layer, `norms` the numbers a token that its norms read: the mean, where layers differ.
    """

    text: str
    kind: str
    family: str
    parameters: int
    layers: int
    hidden: int
    inner: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    parallel_residual: bool
    matrices: dict[str, tuple[int, int]]
    layer_weights: float
    norms: float


@dataclass(frozen=True)
class MemoryEstimate:
    """What a training holds on each GPU when it holds most, in GiB, part by part.

    `activations` is what all layers keep for the backward pass, `copies` the matrices in half
    precision beside float32 ones, or the one that is unpacked from 4 bits. On top comes either
    `layer` (one layer's backward pass, with what it computes again) or `head` (the logits, a tile
    at a time, and their gradients), never both; `update` is for the optimizer's step, when all of
    these are gone. `full_logits` is what `head` would be without tiles. `parameters` and `trained`
    are counts, `rows` is (rows, tokens each). `like` is " as for llama" where a model's type was
    never measured: it is counted as if.
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
    like: str = ""

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
            "copies": "matrices in the type they compute in",
            "activations": "{} rows of {} tokens".format(*self.rows)
            + (f", estimated{self.like}" if self.like else ""),
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
    `architecture`, else what the folder or the Hub has. Raises UnknownSize where there is none.
    """
    sizes, spec = _sizes(model_config(recipe, config)), recipe.train
    length = length or spec.max_length
    tokens, width = spec.batch_size * length, _width(spec)
    trained = trained_parameters(recipe, config)
    shards = spec.gpus if spec.parallel == "fsdp" else 1
    a_layer, outside = sizes.layer_weights, sizes.parameters - sizes.layers * sizes.layer_weights
    held, packed = 4 if spec.held_dtype == "float32" else 2, spec.quantize == "4bit"
    in_layers = sizes.layers * a_layer * (NF4_BYTES if packed else held)
    parts = {
        "weights": (outside * held + in_layers) / shards,
        "adapter": 0 if spec.full else trained * 4 / shards,
        "gradients": trained * 4 / shards,
        "optimizer": trained * OPTIMIZER_BYTES.get(spec.optim, 8) / shards,
        # Packed matrices are unpacked one at a time.
        "copies": max(i * o for i, o in sizes.matrices.values()) * width if packed else 0,
        # What is not fused makes one more array of the size of all trained weights.
        "update": trained * 4 / shards if spec.optim == "adamw_torch" else 0,
    }
    if spec.parallel == "ddp":
        parts["gradients"] *= 2  # copied into buckets to be exchanged

    a_pass = tokens * sum(layer_parts(recipe, length, config=config).values())
    # Gradients on their way through the widest part; LoRA has one in float32 beside the model's.
    layer = tokens * sizes.inner * width
    layer += tokens * sizes.inner * (width if spec.full else 4)
    if spec.activation_checkpointing:
        parts["activations"] = sizes.layers * sizes.hidden * _stream_width(spec) * tokens
        layer += a_pass
    else:
        parts["activations"] = sizes.layers * a_pass
    parts["activations"] += tokens * sizes.hidden * _norm_bytes(sizes, spec)  # the last norm

    head = min(tokens, TILE_TOKENS) * TILE_WIDTH * width
    head += tokens * sizes.hidden * (width + 4)  # the labelled positions, and their gradients
    full_logits = tokens * sizes.vocabulary * 12  # log-probabilities, and two gradients of them
    if spec.full:
        head += sizes.vocabulary * sizes.hidden * 4
        full_logits += sizes.vocabulary * sizes.hidden * 4
    if shards > 1:
        # Embeddings and head are whole on every GPU; so are two layers, one at work and the next,
        # and the gradients of the one at work.
        parts["weights"] += outside * width
        layer += a_layer * width * (3 if spec.full else 2)
        head += a_layer * width + (sizes.vocabulary * sizes.hidden * width if spec.full else 0)
    elif spec.full and width == 2:
        parts["copies"] = sizes.layers * a_layer * 2  # autocast keeps them for the whole pass
    parts |= {"layer": layer, "head": head, "full_logits": full_logits}
    return MemoryEstimate(
        sizes.parameters, trained, (spec.batch_size, length), spec.gpus,
        **{name: value / GIB for name, value in parts.items()},
        like="" if sizes.kind in MEASURED else f" as for {sizes.family}",
    )  # fmt: skip


def layer_parts(recipe: Recipe, length: int, *, config: Config = None) -> dict[str, float]:
    """Return the bytes a token that one layer keeps for its backward pass, by where they arise.

    Counted for batches with some padding. A frozen matrix does not keep its input; one with LoRA
    keeps a copy of it, because autocast converts it anew for PEFT's float32 matrices.
    """
    sizes, spec = _sizes(model_config(recipe, config)), recipe.train
    width = _width(spec)
    trained = set(sizes.matrices) if spec.full else set(spec.target_modules)
    # Converted for each matrix that reads it, unless it has the type of the matrices already.
    converted = width == 2 and (
        not spec.full or _stream_width(spec) == 4 or sizes.family == "gpt_neox"
    )
    norms = sizes.norms * _norm_bytes(sizes, spec)
    if sizes.parallel_residual and _stream_width(spec) == 4:
        norms /= 2  # both read the same tensor, and neither has to convert it

    inputs = 0 if spec.full else len(trained) * spec.lora_r * width
    if not converted and spec.attention != "eager":
        trained -= {"o_proj"}  # it reads what attention keeps anyway
    for name in (name for name in sizes.matrices if name in trained):
        together = next((group & trained for group in READ_TOGETHER if name in group), {name})
        inputs += sizes.matrices[name][0] * width / (1 if converted else len(together))

    query = sizes.heads * sizes.head_dim
    if spec.attention == "eager":
        # Every score after the softmax, in float32, and once more in half precision.
        scores = sizes.heads * length * (4 if width == 4 else 6)
        attention = 3 * query * width + scores
    else:
        # SDPA gets a mask for each layer, and keys and values repeated for every head that has none
        # of its own; one head for all is only looked at many times.
        flash = spec.attention.startswith(("flash", "kernels-community"))
        repeated = sizes.kv_heads > 1 and not flash
        key = query if repeated else sizes.kv_heads * sizes.head_dim
        attention = 2 * (query + key) * width + sizes.heads * 4 + (0 if flash else length * width)
        if sizes.family == "gpt_neox":
            attention += 2 * query * width  # values are a view of queries, keys and values
    gated = any("gate" in name for name in sizes.matrices)
    mlp = (3 if gated else 1) * sizes.inner * width
    return {"norms": norms, "inputs of matrices": inputs, "attention": attention, "mlp": mlp}


def model_config(recipe: Recipe, config: Config = None) -> Config:
    """Return a model's configuration: the one given, the recipe's, the folder's or the Hub's.

    Raises UnknownSize where there is none of them.
    """
    config = recipe.architecture if config is None else config
    if config is not None:
        return config
    try:
        return load_config(recipe.base_model).to_dict()
    except ModelFolderError as error:
        raise UnknownSize(
            f"How large '{recipe.base_model}' is cannot be known here: {error} Or copy what its "
            "config.json says into the recipe under 'architecture', as gemma-2b-l4.yaml does."
        ) from None


def parameters(config: Config) -> int:
    """Return the number of a model's parameters: 2,506,172,416 for Gemma-2B's configuration."""
    return _sizes(config).parameters


def trained_parameters(recipe: Recipe, config: Config = None) -> int:
    """Return how many parameters a recipe trains: all, or r x (in + out) for a matrix with LoRA.

    Raises CourseError for a target module that the architecture does not have.
    """
    sizes, spec = _sizes(model_config(recipe, config)), recipe.train
    if spec.full:
        return sizes.parameters
    for name in spec.target_modules:
        if name not in sizes.matrices:
            raise CourseError(
                f"{recipe.name}: 'train.target_modules' has '{name}', which a {sizes.kind} model "
                f"does not have; it has {', '.join(sizes.matrices)}."
            )
    return _in_adapter(sizes.text, spec.lora_r, tuple(sorted(set(spec.target_modules))))


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


def _width(spec: TrainSpec) -> int:
    """Bytes of a number that matrices compute with."""
    return 4 if spec.dtype == "float32" else 2


def _stream_width(spec: TrainSpec) -> int:
    """Bytes of a number on its way from layer to layer: the type of the embeddings at work."""
    dtype = spec.dtype if spec.parallel == "fsdp" else spec.held_dtype
    return 4 if dtype == "float32" else 2


def _norm_bytes(sizes: _Sizes, spec: TrainSpec) -> int:
    """Bytes a norm keeps of a number it reads: that in float32, and what its own gradient needs."""
    own = {"gemma": 4, "llama": _stream_width(spec), "gpt_neox": 0}[sizes.family]
    return 4 + (own if spec.full else 0)


def _sizes(config: Config) -> _Sizes:
    config = config if isinstance(config, Mapping) else config.to_dict()
    return _measure(json.dumps(config, sort_keys=True, default=str))


@functools.cache
def _measure(text: str) -> _Sizes:
    import torch
    from transformers.pytorch_utils import Conv1D

    model = _without_memory(text)
    config, matrices, weights, norms = model.config.get_text_config(), {}, 0, 0
    layers, hidden, heads = config.num_hidden_layers, config.hidden_size, config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or hidden // heads
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    for path, module in model.get_decoder().named_modules():
        name, weight = path.rpartition(".")[2], getattr(module, "weight", None)
        if isinstance(module, torch.nn.Linear | Conv1D):
            shape = tuple(weight.shape)
            matrices.setdefault(name, shape if isinstance(module, Conv1D) else shape[::-1])
            weights += weight.numel()
        elif weight is not None and "Norm" in type(module).__name__:
            shared = {"q_norm": heads, "k_norm": kv_heads}.get(name, 1)  # one norm for each head
            norms += weight.numel() * (shared if weight.numel() == head_dim else 1)
    kind = config.model_type
    family = next((name for name in ("gemma", "gpt_neox") if kind.startswith(name)), "llama")
    return _Sizes(
        text, kind, family, sum(p.numel() for p in model.parameters()), layers, hidden,
        max(i for i, _ in matrices.values()), heads, kv_heads, head_dim, config.vocab_size,
        getattr(config, "use_parallel_residual", False), matrices, weights / layers,
        (norms - hidden) / layers,  # the last norm is of no layer
    )  # fmt: skip


@functools.cache
def _in_adapter(text: str, r: int, targets: tuple[str, ...]) -> int:
    """Return PEFT's own count of what LoRA trains."""
    import torch
    from peft import LoraConfig, get_peft_model

    lora = LoraConfig(r=r, target_modules=list(targets), task_type="CAUSAL_LM")
    with quiet(), torch.device("meta"):
        return get_peft_model(_without_memory(text), lora).get_nb_trainable_parameters()[0]


def _without_memory(text: str) -> "PreTrainedModel":
    """Return the model of a configuration: its shapes, without numbers in them."""
    import torch
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    own_head_dim()
    given = json.loads(text)
    try:
        config = CONFIG_MAPPING[given.get("model_type")].from_dict(given)
        _check_complete(config.get_text_config(), given.get("text_config", given))
        with quiet(), torch.device("meta"):
            return AutoModelForCausalLM.from_config(config)
    except CourseError:
        raise
    except Exception as error:  # transformers, huggingface_hub and PyTorch have one each
        raise UnknownSize(
            f"How large a model of type '{given.get('model_type')}' is cannot be worked out: "
            f"transformers makes no language model of it ({' '.join(str(error).split())}); compare "
            "the architecture with its config.json."
        ) from None


def _check_complete(config: "PreTrainedConfig", given: Mapping[str, Any]) -> None:
    """Raise CourseError for a size left out: it would be that of transformers' own example."""
    names = ("num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads")
    aliases = {name: {name, config.attribute_map.get(name)} for name in (*names, "vocab_size")}
    missing = [n for n, said in aliases.items() if hasattr(config, n) and not said & given.keys()]
    if missing:
        raise CourseError(
            f"The architecture lacks {', '.join(missing)}: copy it from the model's config.json."
        )


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
        targets = tuple(_sizes(model_config(recipe)).matrices)
        spec = replace(spec, target_modules=targets)
        words = ["an adapter instead of all weights (train.lora_r 8)"]
        yield now()
