"""How much GPU memory a training takes, from the recipe and the model's config.json alone.

Nothing is loaded: transformers makes the model without numbers in it (on PyTorch's "meta" device),
which counts parameters exactly for any architecture. The rest is arithmetic. A training holds the
weights; for each trained weight a gradient and the optimizer's numbers; and what the forward pass
keeps for the backward pass, which grows with the tokens of a batch and is the hardest to guess:
tests/benchmarks/memory.py holds it against real models. Taught in 04, section 1.
"""

import functools
import json
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from course_utils import CourseError
from course_utils.inference import load_config, own_head_dim, quiet
from course_utils.plumbing.model_folder import ModelFolderError
from course_utils.recipe import Recipe, TrainSpec, load_recipe, recipe_names

GIB = 2**30
WIDTH = {"float32": 4, "bfloat16": 2, "float16": 2}  # bytes of a number
TILE_TOKENS, TILE_WIDTH = 4096, 32768
"""TRL 1.16 computes logits in tiles of so many tokens and entries of the vocabulary."""
NF4_BYTES = 1 / 2 + (1 + 4 / 256) / 64
"""Four bits a weight, a byte for the scale of 64 weights, and a float32 for 256 such scales."""
READ_TOGETHER = ({"q_proj", "k_proj", "v_proj"}, {"gate_proj", "up_proj"})
"""Matrices that read one input; every other one reads an input of its own."""
MEASURED = ("gemma", "gemma3_text", "gpt_neox", "llama", "qwen3")
"""Types of model whose kept activations were held against real ones; others count as a relative."""


class UnknownSize(CourseError):
    """A model whose size cannot be known without loading it; the message says what to add."""


@dataclass(frozen=True)
class MemoryEstimate:
    """What a training holds on each GPU when it holds most, in GiB, part by part.

    `activations` is what all layers keep for the backward pass, `copies` the matrices in half
    precision beside float32 ones, or the one that is unpacked from 4 bits. On top comes either
    `layer` (one layer's backward pass, with what it computes again) or `head` (the logits, a tile
    at a time, and their gradients), never both; `update` is for the optimizer's step, when these
    are gone. `full_logits` is what `head` would be without tiles. `overhead` is assumed: the CUDA
    context, workspaces, blocks that PyTorch holds unused. `parameters` and `trained` are counts,
    `rows` is (rows, tokens each); `like` is " as for llama" for a type that was never measured.
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
    overhead: float = 1.0
    like: str = ""

    @property
    def working(self) -> float:
        """The most that forward and backward pass hold beside what is held all the time."""
        return self.copies + self.activations + max(self.layer, self.head)

    @property
    def held(self) -> float:
        """What is held all the time."""
        return self.weights + self.adapter + self.gradients + self.optimizer

    @property
    def total(self) -> float:
        """The most that is held at once, in GiB on each GPU."""
        return self.held + self.overhead + max(self.working, self.update)

    def __str__(self) -> str:
        left_out = {"layer", "update"} if self.layer < self.head else {"head", "update"}
        if self.update > self.working:
            left_out = {"copies", "activations", "layer", "head"}
        guess = f", estimated{self.like}" if self.like else ""
        notes = {
            "weights": f"{self.parameters:,} parameters",
            "adapter": f"{self.trained:,} parameters, the only ones trained",
            "gradients": "", "optimizer": "", "copies": "matrices in the type they compute in",
            "activations": f"{self.rows[0]} rows of {self.rows[1]} tokens{guess}",
            "layer": "one layer's backward pass",
            "head": f"logits in tiles; {self.full_logits:.2f} if they were whole",
            "update": "the optimizer's step",
            "overhead": "assumed: CUDA context, workspaces, fragments",
            "total": f"GiB on each of {self.gpus} GPUs" if self.gpus > 1 else "GiB"}
        lines = []
        for name, note in notes.items():
            if value := getattr(self, name):  # in brackets stands what is not added
                figure = f"({value:.2f})" if name in left_out else f"{value:.2f} "
                lines.append(f"{name:<12}{figure:>8}  {note}".rstrip())
        return "\n".join(lines)


@dataclass(frozen=True)
class _Model:
    """What a model's modules say: parameters, and matrices by name as (in, out).

    `family` is whose way of keeping activations it has, `heads` (heads, those of keys and values,
    the width of one), `inner` the widest part of a layer. `ends` adds up in + out of all matrices
    of a name. The weights of a layer's matrices and the numbers a token that its norms read are
    means, where layers differ.
    """

    config: Any
    family: str
    heads: tuple[int, int, int]
    parameters: int
    matrices: dict[str, tuple[int, int]]
    inner: int
    ends: Counter[str]
    layer_weights: float
    norms: float


def estimate_memory(recipe: Recipe, *, length: int | None = None) -> MemoryEstimate:
    """Estimate a training's memory on each GPU for batches of rows of `length` tokens.

    `length` None is the longest that the recipe allows. Raises UnknownSize where neither recipe nor
    folder nor Hub tells the model's size.
    """
    model, spec = _model(recipe), recipe.train
    hidden, layers = model.config.hidden_size, model.config.num_hidden_layers
    vocabulary, length = model.config.vocab_size * hidden, length or spec.max_length
    tokens, width = spec.batch_size * length, WIDTH[spec.dtype]
    trained = trained_parameters(recipe)
    shards = spec.gpus if spec.parallel == "fsdp" else 1
    a_layer, outside = model.layer_weights, model.parameters - layers * model.layer_weights
    held, packed = WIDTH[spec.held_dtype], spec.quantize == "4bit"
    parts = {
        "weights": (outside * held + layers * a_layer * (NF4_BYTES if packed else held)) / shards,
        "adapter": 0 if spec.full else trained * 4 / shards,
        "gradients": trained * 4 / shards,
        "optimizer": trained * 8 / shards,  # AdamW's two moments, in float32
        # Packed matrices are unpacked one at a time.
        "copies": max(i * o for i, o in model.matrices.values()) * width if packed else 0,
        # What is not fused makes one more array of the size of all trained weights.
        "update": trained * 4 / shards if spec.optim == "adamw_torch" else 0,
    }
    if spec.parallel == "ddp":
        parts["gradients"] *= 2  # copied into buckets to be exchanged

    a_pass = tokens * sum(layer_parts(recipe, length).values())
    # Gradients on their way through the widest part; LoRA has one in float32 beside the model's.
    layer = tokens * model.inner * (width + (width if spec.full else 4))
    if spec.activation_checkpointing:
        parts["activations"] = layers * hidden * _stream_width(spec) * tokens
        layer += a_pass
    else:
        parts["activations"] = layers * a_pass
    parts["activations"] += tokens * hidden * _norm_bytes(model, spec)  # the last norm

    head = min(tokens, TILE_TOKENS) * TILE_WIDTH * width
    head += tokens * hidden * (width + 4)  # the labelled positions, and their gradients
    full_logits = tokens * model.config.vocab_size * 12  # log-probabilities, two gradients of them
    if spec.full:
        head += vocabulary * 4
        full_logits += vocabulary * 4
    if shards > 1:
        # Embeddings and head are whole on every GPU; so are two layers, one at work and the next,
        # and the gradients of the one at work.
        parts["weights"] += outside * width
        layer += a_layer * width * (3 if spec.full else 2)
        head += a_layer * width + (vocabulary * width if spec.full else 0)
    elif spec.full and width == 2:
        parts["copies"] = layers * a_layer * 2  # autocast keeps them for the whole pass
    parts |= {"layer": layer, "head": head, "full_logits": full_logits}
    return MemoryEstimate(
        model.parameters, trained, (spec.batch_size, length), spec.gpus,
        **{name: value / GIB for name, value in parts.items()},
        like="" if model.config.model_type in MEASURED else f" as for {model.family}")


def layer_parts(recipe: Recipe, length: int) -> dict[str, float]:
    """Return the bytes a token that one layer keeps for its backward pass, by where they arise.

    Counted for batches with some padding. A frozen matrix does not keep its input; one with LoRA
    keeps a copy of it, because autocast converts it anew for PEFT's float32 matrices.
    """
    model, spec = _model(recipe), recipe.train
    width, matrices, (heads, kv_heads, head_dim) = WIDTH[spec.dtype], model.matrices, model.heads
    trained = set(matrices) if spec.full else set(spec.target_modules)
    # Converted for each matrix that reads it, unless it has the type of the matrices already.
    converted = width == 2 and (
        not spec.full or _stream_width(spec) == 4 or model.family == "gpt_neox")
    norms = model.norms * _norm_bytes(model, spec)
    if getattr(model.config, "use_parallel_residual", False) and _stream_width(spec) == 4:
        norms /= 2  # both read the same tensor, and neither has to convert it

    inputs = 0 if spec.full else len(trained) * spec.lora_r * width
    if not converted and spec.attention != "eager":
        trained -= {"o_proj"}  # it reads what attention keeps anyway
    for name in (name for name in matrices if name in trained):
        together = next((group & trained for group in READ_TOGETHER if name in group), {name})
        inputs += matrices[name][0] * width / (1 if converted else len(together))

    query = heads * head_dim
    if spec.attention == "eager":
        # Every score after the softmax, in float32, and once more in half precision.
        attention = 3 * query * width + heads * length * (4 if width == 4 else 6)
    else:
        # SDPA gets a mask for each layer, and keys and values repeated for every head that has none
        # of its own; one head for all is only looked at many times.
        flash = spec.attention.startswith("flash")
        repeated = kv_heads > 1 and not flash
        key = query if repeated else kv_heads * head_dim
        attention = 2 * (query + key) * width + heads * 4 + (0 if flash else length * width)
        if model.family == "gpt_neox":
            attention += 2 * query * width  # values are a view of queries, keys and values
    gated = any("gate" in name for name in matrices)
    mlp = (3 if gated else 1) * model.inner * width
    return {"norms": norms, "inputs of matrices": inputs, "attention": attention, "mlp": mlp}


def model_config(recipe: Recipe) -> dict[str, Any]:
    """Return a model's configuration: the recipe's, else the folder's or the Hub's."""
    if recipe.architecture is not None:
        return recipe.architecture
    try:
        return load_config(recipe.base_model).to_dict()
    except ModelFolderError as error:
        raise UnknownSize(
            f"How large '{recipe.base_model}' is cannot be known here: {error} Or copy its "
            "config.json into the recipe under 'architecture', as gemma-2b-l4.yaml does.") from None


def parameters(recipe: Recipe) -> int:
    """Return the number of a base model's parameters: 2,506,172,416 for Gemma-2B."""
    return _model(recipe).parameters


def trained_parameters(recipe: Recipe) -> int:
    """Return how many parameters a recipe trains: all, or r x (in + out) for a matrix with LoRA."""
    model, spec = _model(recipe), recipe.train
    if spec.full:
        return model.parameters
    if missing := [name for name in spec.target_modules if name not in model.matrices]:
        raise CourseError(f"{recipe.name}: 'train.target_modules' has '{missing[0]}', which "
                          f"{model.config.model_type} has not; it has {', '.join(model.matrices)}.")
    return spec.lora_r * sum(model.ends[name] for name in set(spec.target_modules))


def fits(estimate: MemoryEstimate, gib: float) -> bool:
    """Return whether a training fits into so much free memory on each GPU."""
    return estimate.total <= gib


def what_would_fit(recipe: Recipe, gib: float, *, length: int | None = None) -> str:
    """Return one sentence that names the smallest change with which a recipe fits into `gib`."""
    length = length or recipe.train.max_length
    for changes, spec in _smaller(recipe, length):
        estimate = estimate_memory(replace(recipe, train=spec), length=min(length, spec.max_length))
        if fits(estimate, gib):
            return f"It would fit with {', '.join(changes)} (about {estimate.total:.1f} GiB)."
    needed = math.ceil(estimate_memory(recipe, length=length).total)
    others = [load_recipe(name) for name in recipe_names() if name not in ("offline", recipe.name)]
    totals = [(estimate_memory(other).total, other.name)
              for other in others if other.train.gpus <= recipe.train.gpus]
    total, name = max((pair for pair in totals if pair[0] <= gib), default=(0, ""))
    instead = f"The recipe {name} would fit (about {total:.1f} GiB)"
    if not name:
        instead = "Only the recipe offline would fit"
    return f"{instead}; this one needs a GPU with {needed} GiB free."


def _smaller(recipe: Recipe, length: int) -> Iterator[tuple[list[str], TrainSpec]]:
    """Yield smaller trainings in words and as settings, those that change least first."""
    spec, said = replace(recipe.train, activation_checkpointing=True), []
    if spec != recipe.train:
        said = ["train.activation_checkpointing true"]
        yield said, spec
    rows = said
    while spec.batch_size % 2 == 0:  # the same rows in a step, fewer of them at a time
        batch, times = spec.batch_size // 2, spec.gradient_accumulation * 2
        spec = replace(spec, batch_size=batch, gradient_accumulation=times)
        rows = [*said, f"train.batch_size {batch}", f"train.gradient_accumulation {times}"]
        yield rows, spec
    for shorter in (length // 16 * 8, length // 32 * 8):
        if shorter >= 64:
            yield [*rows, f"train.max_length {shorter}"], replace(spec, max_length=shorter)
    if spec.full:
        yield ["an adapter instead of all weights (train.lora_r 8)"], replace(
            recipe.train, lora_r=8, activation_checkpointing=True,
            target_modules=tuple(_model(recipe).matrices))


def _stream_width(spec: TrainSpec) -> int:
    """Bytes of a number on its way from layer to layer: the type of the embeddings at work."""
    return WIDTH[spec.dtype if spec.parallel == "fsdp" else spec.held_dtype]


def _norm_bytes(model: _Model, spec: TrainSpec) -> int:
    """Bytes a norm keeps of a number it reads: that in float32, and what its own gradient needs."""
    own = {"gemma": 4, "llama": _stream_width(spec), "gpt_neox": 0}[model.family]
    return 4 + (own if spec.full else 0)


def _model(recipe: Recipe) -> _Model:
    return _measure(json.dumps(model_config(recipe), sort_keys=True, default=str))


@functools.cache
def _measure(text: str) -> _Model:
    import torch
    from transformers.pytorch_utils import Conv1D

    model = _without_memory(json.loads(text))
    config, matrices, ends, weights, norms = model.config.get_text_config(), {}, Counter(), 0, 0
    heads = config.num_attention_heads
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    for path, module in model.get_decoder().named_modules():
        name, weight = path.rpartition(".")[2], getattr(module, "weight", None)
        if isinstance(module, torch.nn.Linear | Conv1D):
            shape = tuple(weight.shape)
            matrices[name] = shape if isinstance(module, Conv1D) else shape[::-1]
            ends[name] += sum(shape)
            weights += weight.numel()
        elif weight is not None and "Norm" in type(module).__name__:
            shared = {"q_norm": heads, "k_norm": kv_heads}.get(name, 1)  # one norm for each head
            norms += weight.numel() * (shared if weight.numel() == head_dim else 1)
    layers, norms = config.num_hidden_layers, norms - config.hidden_size  # the last is of no layer
    known = [name for name in ("gemma", "gpt_neox") if config.model_type.startswith(name)]
    return _Model(config, known[0] if known else "llama", (heads, kv_heads, head_dim),
                  sum(p.numel() for p in model.parameters()), matrices,
                  max(width for width, _ in matrices.values()), ends, weights / layers,
                  norms / layers)


def _without_memory(given: dict[str, Any]) -> Any:
    """Return the model of a configuration: its shapes, without numbers in them."""
    import torch
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    own_head_dim()
    try:
        config = CONFIG_MAPPING[given.get("model_type")].from_dict(given)
        # A size left out would be that of transformers' own example.
        text, said = config.get_text_config(), given.get("text_config", given).keys()
        sizes = ("num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads",
                 "vocab_size")
        missing = [name for name in sizes if hasattr(text, name)
                   and not said & {name, text.attribute_map.get(name)}]
        if missing:
            raise CourseError(f"The architecture lacks {', '.join(missing)}: copy it from the "
                              "model's config.json.")
        with quiet(), torch.device("meta"):
            return AutoModelForCausalLM.from_config(config)
    except CourseError:
        raise
    except Exception as error:  # transformers, huggingface_hub and PyTorch have one each
        raise UnknownSize(
            f"transformers makes no language model of type '{given.get('model_type')}' "
            f"({' '.join(str(error).split())}); compare the architecture with its config.json."
        ) from None
