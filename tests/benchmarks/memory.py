"""The memory estimate against measurement, without a GPU.

    python tests/benchmarks/memory.py [--quick]

1. What a forward pass keeps for the backward pass: real small models of each architecture, every
   kept tensor counted once, with and without checkpointing.
2. The most that whole training steps hold: the true configurations of the recipes, the real code of
   transformers, PEFT, TRL and PyTorch, on tensors that have a shape and a type but no memory.
3. The same for FSDP2: one process of eight, small, with collectives that do nothing.

Where a CPU computes differently from a GPU, the GPU's way is put in its place (`as_on_a_gpu`). What
only a GPU can tell (allocator, workspaces) is in gpu.py. Writes results/memory.json.
"""

import argparse
import contextlib
import datetime
import json
import warnings
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from course_utils import REPO
from course_utils.recipe import Recipe, load_recipe
from course_utils.scale.memory import GIB, estimate_memory
from course_utils.tasks import write_atomic

KINDS = {
    "gemma": "gemma-2b-l4", "gpt_neox": "koalpaca-12.8b-a100", "llama": "alpaca-7b-fsdp",
    "qwen3": "qwen3-4b-l4", "gemma3_text": "gemma-270m",
}  # fmt: skip
ALL_LINEAR = {kind: load_recipe(name).train.target_modules for kind, name in KINDS.items()}


class Peak(TorchDispatchMode):
    """Note after each operation how many bytes are held, each storage once, and the most so far."""

    def __init__(self) -> None:
        super().__init__()
        self.held: dict[int, weakref.ref] = {}
        self.most = 0

    def add(self, tensor: torch.Tensor) -> None:
        tensor = getattr(tensor, "_local_tensor", tensor)  # of a DTensor, the part that is here
        storage = tensor.untyped_storage()
        if storage._cdata not in self.held:
            self.held[storage._cdata] = weakref.ref(storage)
            weakref.finalize(storage, self.held.pop, storage._cdata, None)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self.add(leaf)
        storages = [reference() for reference in self.held.values()]
        self.most = max(self.most, sum(s.nbytes() for s in storages if s is not None))
        return result


@contextlib.contextmanager
def as_on_a_gpu() -> Iterator[None]:
    """Compute the way CUDA does: norms in float32 under autocast, logits folded within their tile.

    TRL folds each tile of logits in place with a Triton kernel; its substitute for a CPU makes
    float32 copies of the tile, which are no part of a training on a GPU.
    """
    import trl.kernels.chunked_logprob as tiles

    def layer_norm(self, x):
        if not torch.is_autocast_enabled("cpu"):
            return before[0](self, x)
        weight, bias = self.weight.float(), self.bias.float()
        return torch.nn.functional.layer_norm(
            x.float(), self.normalized_shape, weight, bias, self.eps
        )

    before = (torch.nn.LayerNorm.forward, *(getattr(tiles, name) for name in FOLDS))
    torch.nn.LayerNorm.forward = layer_norm
    for name in FOLDS:
        setattr(tiles, name, lambda *args, **kwargs: None)
    try:
        yield
    finally:
        torch.nn.LayerNorm.forward = before[0]
        for name, function in zip(FOLDS, before[1:], strict=True):
            setattr(tiles, name, function)


FOLDS = ("_forward_tile", "_backward_tile", "_addmm_fp32")


def computing(dtype: str) -> torch.autocast:
    """Return the context in which the Trainer computes: autocast unless it is float32."""
    half = dtype != "float32"
    return torch.autocast("cpu", getattr(torch, dtype if half else "bfloat16"), enabled=half)


def build(recipe: Recipe, config: dict[str, Any], *, tiled: bool = True) -> torch.nn.Module:
    """Return the model as the trainer makes it, with random weights and adapters."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM
    from trl.trainer.utils import add_fused_lm_head

    spec = recipe.train
    attention = "sdpa" if spec.attention == "auto" else spec.attention
    dtype = getattr(torch, spec.held_dtype)
    model = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(**config), attn_implementation=attention, dtype=dtype
    )
    model.tie_weights()
    if tiled:
        add_fused_lm_head(model, outputs=("log_probs", "entropy", "is_top1"))
    if not spec.full:
        targets = list(spec.target_modules)
        model = get_peft_model(
            model, LoraConfig(r=spec.lora_r, target_modules=targets, task_type="CAUSAL_LM")
        )
    if spec.activation_checkpointing:
        old_name = "gradient_checkpointing_enable"  # before transformers 5.23
        enable = getattr(model, "activation_checkpointing_enable", None) or getattr(model, old_name)
        enable({"use_reentrant": False})
        if not spec.full:
            model.enable_input_require_grads()
    return model.train()


def small(kind: str, layers: int = 4, **settings: Any) -> dict[str, Any]:
    """Return the configuration of a small model: 512 wide, 8 heads."""
    config = {
        "model_type": kind, "hidden_size": 512, "intermediate_size": 1408, "vocab_size": 2048,
        "num_hidden_layers": layers, "num_attention_heads": 8, "tie_word_embeddings": False,
    }  # fmt: skip
    if kind.startswith("gemma"):
        config |= {"num_key_value_heads": 1, "head_dim": 64, "pad_token_id": 0}
    if kind == "qwen3":
        config |= {"num_key_value_heads": 2, "head_dim": 96}
    return config | settings


def with_settings(kind: str, **settings: Any) -> Recipe:
    """Return the L4 recipe with an architecture's matrices and other settings of `train`."""
    recipe = load_recipe("gemma-2b-l4")
    settings = {"target_modules": ALL_LINEAR[kind], "activation_checkpointing": False, **settings}
    return replace(recipe, architecture=None, train=replace(recipe.train, **settings))


def kept(recipe: Recipe, config: dict[str, Any], length: int) -> tuple[float, float]:
    """Return MiB that the layers keep for the backward pass: (estimated, measured)."""
    spec = recipe.train
    model = build(recipe, config, tiled=False)
    layers = (model if spec.full else model.get_base_model()).base_model
    ids = torch.randint(1, config["vocab_size"], (spec.batch_size, length))
    mask = torch.ones_like(ids)
    mask[0, length // 2 :] = 0  # some padding, as in most batches

    def forward() -> torch.Tensor:
        with computing(spec.dtype):
            return layers(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state

    with as_on_a_gpu():
        measured = saved_bytes(model, forward)
    estimate = estimate_memory(replace(recipe, architecture=config), length=length)
    copies = 0 if spec.activation_checkpointing else estimate.copies  # made again layer by layer
    return (estimate.activations + copies) * 1024, measured / 2**20


def saved_bytes(model: torch.nn.Module, forward: Callable[[], Any]) -> int:
    """Run a forward pass and return the bytes it keeps for the backward pass, parameters apart."""
    known = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage  # held on to, so that no address comes twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        result = forward()  # what the graph keeps lives as long as its result
    del result
    return sum(storage.nbytes() for storage in kept.values())


def without_memory(model: torch.nn.Module) -> None:
    """Replace all parameters and buffers by tensors of a FakeTensorMode that is on."""
    made: dict[int, torch.Tensor] = {}
    for module in model.modules():
        for table in (module._parameters, module._buffers):
            for name, old in table.items():
                if old is not None and id(old) not in made:
                    new = torch.empty(old.shape, dtype=old.dtype)
                    if isinstance(old, torch.nn.Parameter):
                        new = torch.nn.Parameter(new, requires_grad=old.requires_grad)
                    made[id(old)] = new
                    made[id(new)] = old  # keeps the old one, so that its id is not used again
                if old is not None:
                    table[name] = made[id(old)]


def steps(model: torch.nn.Module, recipe: Recipe, ids: torch.Tensor, *, tiled: bool = True) -> int:
    """Train for two steps of two batches each; return the most bytes held in the second."""
    spec = recipe.train
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, foreach=spec.optim == "adamw_torch")
    head = {"fused_lm_head": True} if tiled else {}
    with as_on_a_gpu(), Peak() as peak:
        for parameter in model.parameters():
            peak.add(parameter)
        for _ in range(2):
            peak.most = 0
            for _ in range(min(2, spec.gradient_accumulation)):
                with computing(spec.dtype):
                    output = model(input_ids=ids, labels=ids.clone(), use_cache=False, **head)
                loss = output.loss
                del output
                loss.backward()
                del loss
            optimizer.step()
            optimizer.zero_grad()
    return peak.most


def whole(recipe: Recipe, *, tiled: bool = True) -> tuple[float, float]:
    """Return GiB that two steps of a recipe hold at most, at true size: (estimated, measured)."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    spec = recipe.train
    with torch.device("meta"):
        model = build(recipe, recipe.architecture, tiled=tiled)
    with FakeTensorMode(allow_non_fake_inputs=True):
        without_memory(model)
        ids = torch.randint(1, 1000, (spec.batch_size, spec.max_length))
        measured = steps(model, recipe, ids, tiled=tiled)
    estimate = estimate_memory(recipe)
    if not tiled:
        estimate = replace(estimate, head=estimate.full_logits)
    return estimate.total - estimate.overhead, measured / GIB


def sharded(recipe: Recipe, config: dict[str, Any]) -> tuple[float, float]:
    """Return MiB that one process of an FSDP2 training holds at most: (estimated, measured)."""
    import torch.distributed as dist
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
    from torch.testing._internal.distributed.fake_pg import FakeStore

    spec = recipe.train
    dist.init_process_group("fake", rank=0, world_size=spec.gpus, store=FakeStore())
    try:
        half = torch.bfloat16
        options = {
            "mesh": init_device_mesh("cpu", (spec.gpus,)),
            "mp_policy": MixedPrecisionPolicy(half, half, half),
        }
        checkpointing = replace(recipe, train=replace(spec, activation_checkpointing=False))
        model = build(checkpointing, config)
        # The units that accelerate makes of a model: layers, embeddings, last norm with head, rest.
        base = model.model
        for i, layer in enumerate(base.layers):
            if spec.activation_checkpointing:
                base.layers[i] = checkpoint_wrapper(layer, preserve_rng_state=False)
            fully_shard(base.layers[i], **options)
        fully_shard(base.embed_tokens, **options)
        fully_shard([base.norm, model.lm_head], reshard_after_forward=False, **options)
        fully_shard(model, **options)
        ids = torch.randint(1, 1000, (spec.batch_size, spec.max_length))
        measured = steps(model, recipe, ids)
    finally:
        dist.destroy_process_group()
    estimate = estimate_memory(replace(recipe, architecture=config))
    return (estimate.total - estimate.overhead) * 1024, measured / 2**20


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    """Print and write the table; return its rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the small models only")
    parser.add_argument("--out", type=Path, default=REPO / "tests/benchmarks/results/memory.json")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    rows: list[dict[str, Any]] = []

    def add(part: str, what: str, unit: str, pair: tuple[float, float]) -> None:
        estimated, measured = pair
        row = {"part": part, "what": what, "unit": unit, "estimated": round(estimated, 3),
               "measured": round(measured, 3), "ratio": round(estimated / measured, 3)}  # fmt: skip
        rows.append(row)
        print(
            f"{part:<9}{what:<52}{estimated:9.2f} {measured:9.2f} {unit}   {row['ratio']:.3f}",
            flush=True,
        )

    print(f"{'':<61}estimated  measured")
    for kind in KINDS:
        for rank in (4, 0):
            for checkpointing in (False, True):
                for attention in ("sdpa", "eager"):
                    recipe = with_settings(
                        kind, lora_r=rank, attention=attention, batch_size=2,
                        activation_checkpointing=checkpointing,
                    )  # fmt: skip
                    what = f"{kind}, {f'LoRA r={rank}' if rank else 'full'}, {attention}"
                    what += ", checkpointed" * checkpointing
                    add("kept", what, "MiB", kept(recipe, small(kind, layers=6), 256))
    l4, a100 = load_recipe("gemma-2b-l4"), load_recipe("koalpaca-12.8b-a100")
    alpaca = load_recipe("alpaca-7b-fsdp")
    alone = alpaca.replace("train.gpus", 1).replace("train.parallel", "none")
    off, full = ("train.activation_checkpointing", False), ("train.lora_r", 0)
    if not options.quick:
        for what, recipe in {
            "gemma-2b-l4": l4,
            "gemma-2b-l4, 16 rows": l4.replace("train.batch_size", 16),
            "gemma-2b-l4, no checkpointing": l4.replace(*off),
            "gemma-2b-l4, no checkpointing, eager": l4.replace(*off).replace(
                "train.attention", "eager"
            ),
            "gemma-2b-l4, every weight": l4.replace(*full),
            "gemma-2b-l4, every weight, AdamW not fused": l4.replace(*full).replace(
                "train.optim", "adamw_torch"
            ),
            "gemma-2b-t4": load_recipe("gemma-2b-t4"),
            "koalpaca-12.8b-a100": a100,
            "koalpaca-12.8b-a100, query_key_value only": a100.replace(
                "train.target_modules", ["query_key_value"]
            ),
            "alpaca-7b on one GPU": alone,
            "alpaca-7b on one GPU, no checkpointing": alone.replace(*off),
        }.items():
            add("whole", what, "GiB", whole(recipe))
        add("whole", "gemma-2b-l4, whole logits", "GiB", whole(l4, tiled=False))
    for batch in (2, 8):
        for checkpointing in (True, False):
            spec = replace(
                alpaca.train, batch_size=batch, max_length=256,
                activation_checkpointing=checkpointing,
            )  # fmt: skip
            what = f"llama, full, 1 of 8, {batch} rows" + ", checkpointed" * checkpointing
            recipe = replace(alpaca, train=spec)
            add("sharded", what, "MiB", sharded(recipe, small("llama", layers=8, vocab_size=8000)))
    packages = ("torch", "transformers", "trl", "peft", "accelerate")
    record = {
        "date": datetime.date.today().isoformat(),
        "versions": {name: version(name) for name in packages},
        "rows": rows,
    }
    write_atomic(options.out, json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    return rows


if __name__ == "__main__":
    main()
