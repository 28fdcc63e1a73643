"""How large a model is, from its config.json alone: its matrices and number of parameters."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from course_utils import CourseError
from course_utils.inference import ModelFolderError, find_base
from course_utils.recipe import Recipe

Config = Any
"""A model's configuration: config.json as a dict, or a transformers object."""


class UnknownSize(CourseError):
    """A model whose size cannot be known without loading it; the message says what to add."""


@dataclass(frozen=True)
class Architecture:
    """A model's sizes: the matrices of a layer as (in, out), and which of them read one input."""

    kind: str
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    parallel_residual: bool
    matrices: dict[str, tuple[int, int]]
    readers: tuple[tuple[str, ...], ...]
    parameters: int


def read_architecture(config: Config) -> Architecture:
    """Read a model's configuration as transformers would, with its defaults.

    Raises UnknownSize for a model that is not Gemma's, GPT-NeoX's or Llama's kind, CourseError for
    a configuration that lacks a size.
    """
    config = _as_dict(config)
    kind = config.get("model_type")
    if kind not in ("gemma", "gpt_neox", "llama"):
        raise UnknownSize(
            f"How large a model of type '{kind}' is cannot be worked out here: 'model_type' in its "
            "config.json has to be gemma, gpt_neox or llama."
        )
    names = ("num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads")
    missing = [name for name in (*names, "vocab_size") if not isinstance(config.get(name), int)]
    if missing:
        raise CourseError(
            f"The architecture lacks {', '.join(missing)}: copy it from the model's config.json."
        )
    layers, hidden, inner, heads = (config[name] for name in names)
    head_dim = config.get("head_dim") or (256 if kind == "gemma" else hidden // heads)
    kv_heads = heads if kind == "gpt_neox" else config.get("num_key_value_heads") or heads
    query, key = heads * head_dim, kv_heads * head_dim
    if kind == "gpt_neox":
        matrices = {
            "query_key_value": (hidden, 3 * hidden), "dense": (hidden, hidden),
            "dense_h_to_4h": (hidden, inner), "dense_4h_to_h": (inner, hidden),
        }  # fmt: skip
        readers = tuple((name,) for name in matrices)
        with_bias = ["dense_h_to_4h", "dense_4h_to_h"]
        with_bias += ["query_key_value", "dense"] if config.get("attention_bias", True) else []
        norm = 2 * hidden  # a LayerNorm has a scale and a shift, an RMSNorm only a scale
    else:
        matrices = {
            "q_proj": (hidden, query), "k_proj": (hidden, key), "v_proj": (hidden, key),
            "o_proj": (query, hidden), "gate_proj": (hidden, inner), "up_proj": (hidden, inner),
            "down_proj": (inner, hidden),
        }  # fmt: skip
        attention, mlp = tuple(matrices)[:4], tuple(matrices)[4:]
        readers = (attention[:3], attention[3:], mlp[:2], mlp[2:])
        with_bias = [*attention] if config.get("attention_bias") else []
        with_bias += mlp if config.get("mlp_bias") else []
        norm = hidden
    a_layer = sum(i * o for i, o in matrices.values()) + sum(matrices[n][1] for n in with_bias)
    embeddings = 1 if config.get("tie_word_embeddings", kind == "gemma") else 2
    return Architecture(
        kind, layers, hidden, inner, heads, kv_heads, head_dim, config["vocab_size"],
        kind == "gpt_neox" and config.get("use_parallel_residual", True), matrices, readers,
        layers * (a_layer + 2 * norm) + norm + embeddings * config["vocab_size"] * hidden,
    )  # fmt: skip


def parameters(config: Config) -> int:
    """Return the number of a model's parameters: 2,506,172,416 for Gemma-2B's configuration."""
    return read_architecture(config).parameters


def model_config(recipe: Recipe, config: Config = None) -> dict[str, Any]:
    """Return a model's configuration: the one given, the recipe's, or the local folder's.

    Raises UnknownSize where there is none of them.
    """
    if config is not None:
        return _as_dict(config)
    if recipe.architecture is not None:
        return recipe.architecture
    try:
        path = Path(find_base(recipe.base_model)) / "config.json"
        return json.loads(path.read_text(encoding="utf-8"))
    except (ModelFolderError, OSError, ValueError):
        raise UnknownSize(
            f"How large '{recipe.base_model}' is cannot be known here: copy the settings of its "
            "config.json into the recipe under 'architecture', as gemma-2b-l4.yaml does."
        ) from None


def _as_dict(config: Config) -> dict[str, Any]:
    return dict(config) if isinstance(config, Mapping) else config.to_dict()
