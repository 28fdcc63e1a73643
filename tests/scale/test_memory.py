"""The memory estimate: exact where it counts, within 10% of what real models keep."""

import json
import re
import runpy
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from course_utils import REPO, CourseError
from course_utils.recipe import load_recipe, recipe_names
from course_utils.scale.memory import (
    GIB,
    UnknownSize,
    estimate_memory,
    fits,
    layer_parts,
    model_config,
    parameters,
    trained_parameters,
    what_would_fit,
)  # fmt: skip

BENCHMARK = runpy.run_path(str(REPO / "tests" / "benchmarks" / "memory.py"))
KINDS = BENCHMARK["KINDS"]
L4, A100, ALPACA = (load_recipe(KINDS[kind]) for kind in ("gemma", "gpt_neox", "llama"))
PUBLISHED = {
    "alpaca-7b-fsdp": 6_738_415_616, "gemma-270m": 268_098_176, "gemma-2b-l4": 2_506_172_416,
    "kanana-2b-l4": 2_086_979_328, "koalpaca-12.8b-a100": 12_893_603_840,
    "midm-2b-l4": 2_305_517_312, "qwen3-4b-l4": 4_022_468_096,
}  # fmt: skip
OTHERS = {
    "exaone4": {"num_key_value_heads": 2}, "gemma2": {"num_key_value_heads": 2, "head_dim": 64},
    "gpt2": {}, "mistral": {"num_key_value_heads": 2}, "olmo2": {}, "phi3": {}, "qwen2": {},
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_parameters_of_the_true_models_are_exact(name):
    assert parameters(load_recipe(name)) == PUBLISHED[name]


@pytest.mark.parametrize("kind", [*KINDS, *OTHERS])
@pytest.mark.parametrize("tied", [False, True])
def test_the_parameters_of_small_models_are_those_they_really_have(kind, tied):
    """Of whatever architecture; tied weights count once. LoRA trains what PEFT says it does."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM

    options = OTHERS.get(kind, {}) | {"tie_word_embeddings": tied, "pad_token_id": 0}
    config = BENCHMARK["small"](kind, layers=2, **options)
    if kind == "gpt2":  # its own name; the width in between is four times the other
        config["n_inner"] = config.pop("intermediate_size")
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config))
    recipes = [replace(L4, architecture=a) for a in (config, model.config.to_dict())]
    assert [parameters(recipe) for recipe in recipes] == [model.num_parameters()] * 2
    (target,) = {"gpt_neox": ["dense"], "gpt2": ["c_fc"]}.get(kind, ["o_proj"])
    recipe = recipes[0].replace("train.target_modules", [target])
    lora = get_peft_model(model.bfloat16(), LoraConfig(r=4, target_modules=[target],
                                                       task_type="CAUSAL_LM"))
    trained = [p for p in lora.parameters() if p.requires_grad]
    assert trained_parameters(recipe) == sum(p.numel() for p in trained)
    assert {p.dtype.itemsize for p in trained} == {4}  # float32, also on a half-precision model
    text = str(estimate_memory(recipe))
    assert ("estimated as for" in text) == (kind in OTHERS)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("rank", [4, 0])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_what_layers_keep_is_within_a_tenth(kind, attention, checkpointing, rank, dtype):
    recipe = BENCHMARK["with_settings"](kind, attention=attention, lora_r=rank, dtype=dtype,
                                        activation_checkpointing=checkpointing, batch_size=2)
    config = BENCHMARK["small"](kind, layers=4, hidden_size=128, intermediate_size=352)
    if "head_dim" in config:
        config["head_dim"] = 16
    estimated, measured = BENCHMARK["kept"](recipe, config, 64)
    assert estimated == pytest.approx(measured, rel=0.1)


@pytest.mark.parametrize("kind", ["gemma", "llama"])
def test_keys_shared_by_some_heads_are_counted_as_they_are_repeated(kind):
    recipe = BENCHMARK["with_settings"](kind, batch_size=2)
    config = BENCHMARK["small"](kind, num_key_value_heads=2)
    estimated, measured = BENCHMARK["kept"](recipe, config, 64)
    assert estimated == pytest.approx(measured, rel=0.1)
    flash = BENCHMARK["with_settings"](kind, attention="flash_attention_2")
    sized = [replace(r, architecture=config) for r in (recipe, flash)]
    parts = [layer_parts(r, 64)["attention"] for r in sized]
    assert parts[0] > parts[1]


def test_the_most_that_is_held_at_true_size():
    # Two layers of Gemma-2B at full width, the whole step, and its logits without tiles.
    recipe = replace(L4, architecture=L4.architecture | {"num_hidden_layers": 2})
    recipe = recipe.replace("train.batch_size", 2).replace("train.max_length", 128)
    for tiled in (True, False):
        estimated, measured = BENCHMARK["whole"](recipe, tiled=tiled)
        assert estimated == pytest.approx(measured, rel=0.05), tiled


def test_sharding_is_within_a_tenth():
    spec = replace(ALPACA.train, max_length=64)
    config = BENCHMARK["small"]("llama", vocab_size=4000)
    estimated, measured = BENCHMARK["sharded"](replace(ALPACA, train=spec), config)
    assert estimated == pytest.approx(measured, rel=0.1)


@settings(max_examples=60, deadline=None)
@given(name=st.sampled_from(recipe_names()), batch=st.integers(1, 32), length=st.integers(8, 4096),
       checkpointing=st.booleans(), rank=st.sampled_from([0, 4, 64]))
def test_more_rows_or_longer_ones_never_take_less(name, batch, length, checkpointing, rank):
    recipe = load_recipe(name)
    spec = replace(recipe.train, batch_size=batch, activation_checkpointing=checkpointing,
                   lora_r=rank)
    if rank and name.startswith("alpaca"):
        spec = replace(spec, target_modules=L4.train.target_modules)
    recipe = replace(recipe, train=spec)
    estimate = estimate_memory(recipe, length=length)
    assert estimate.total <= estimate_memory(recipe, length=length + 8).total
    more = replace(recipe, train=replace(spec, batch_size=batch + 1))
    assert estimate.total <= estimate_memory(more, length=length).total
    kept = replace(recipe, train=replace(spec, activation_checkpointing=False))
    assert estimate.activations <= estimate_memory(kept, length=length).activations


def test_the_parts_of_the_l4_recipe():
    estimate = estimate_memory(L4)
    assert estimate.weights == pytest.approx(PUBLISHED["gemma-2b-l4"] * 2 / GIB)
    states = estimate.adapter + estimate.gradients + estimate.optimizer
    assert states == pytest.approx(trained_parameters(L4) * 16 / GIB)
    assert estimate.full_logits == pytest.approx(4 * 512 * 256_000 * 12 / GIB)
    assert estimate.total < 8 < estimate.total - estimate.layer + estimate.full_logits
    parts = (estimate.weights, states, estimate.activations, estimate.layer, estimate.overhead)
    assert estimate.total == pytest.approx(sum(parts))


def test_sharding_divides_what_is_held_and_ddp_does_not():
    whole = estimate_memory(ALPACA.replace("train.gpus", 1).replace("train.parallel", "none"))
    eight = estimate_memory(ALPACA)
    assert eight.optimizer == pytest.approx(whole.optimizer / 8)
    assert eight.gradients == pytest.approx(whole.gradients / 8)
    assert eight.weights > whole.weights / 8  # embeddings and head are whole on each
    four = estimate_memory(ALPACA.replace("train.gpus", 4))
    assert fits(four, 80) and fits(eight, 40) and not fits(whole, 80)
    both = estimate_memory(A100), estimate_memory(load_recipe("koalpaca-12.8b-2xa100"))
    assert both[0].weights == both[1].weights


def test_the_table_lines_up_and_brackets_what_is_not_added():
    text = str(estimate_memory(L4))
    lines = text.splitlines()
    assert lines[0].startswith("weights") and lines[-1].startswith("total")
    assert len({line.index(".") for line in lines}) == 1
    assert any(line.startswith("head") and "(0.15)" in line for line in lines)
    assert "2,506,172,416 parameters" in text and "4 rows of 512 tokens" in text
    assert "on each of 8 GPUs" in str(estimate_memory(ALPACA))
    full = L4.replace("train.lora_r", 0)
    not_fused = estimate_memory(full.replace("train.optim", "adamw_torch"))
    assert "adapter" not in str(not_fused)
    assert not_fused.total > estimate_memory(full).total  # the step's own array


@pytest.mark.parametrize(("recipe", "gib", "named"), [
    (L4.replace("train.activation_checkpointing", False), 8, "activation_checkpointing true"),
    (L4, 6.2, "train.batch_size 2, train.gradient_accumulation 4"),
    (L4, 5.85, "train.gradient_accumulation 8, train.max_length 256"),
    (L4, 3, "Only the recipe offline would fit; this one needs a GPU with 7 GiB"),
    (A100, 22, "The recipe qwen3-4b-l4 would fit.*needs a GPU with 32 GiB"),
    (ALPACA, 12, "an adapter instead of all weights"),
])  # fmt: skip
def test_what_would_fit_names_a_change_that_does(recipe, gib, named):
    assert not fits(estimate_memory(recipe), gib)
    sentence = what_would_fit(recipe, gib)
    assert re.search(named, sentence), sentence
    assert sentence.count(". ") == 0 and sentence.endswith(".")


def test_where_a_configuration_comes_from(tmp_path, tiny_base, monkeypatch):
    assert model_config(L4) == L4.architecture
    local = replace(L4, architecture=None, base_model=str(tiny_base))
    assert model_config(local)["hidden_size"] == 32
    assert estimate_memory(local).parameters == parameters(local)
    # A Hub id that the cache knows, without its weights.
    snapshot = tmp_path / "models--me--small" / "snapshots" / "1"
    snapshot.mkdir(parents=True)
    (tmp_path / "models--me--small" / "refs").mkdir()
    (tmp_path / "models--me--small" / "refs" / "main").write_text("1")
    (snapshot / "config.json").write_text(json.dumps(L4.architecture))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    cached = replace(L4, architecture=None, base_model="me/small")
    assert estimate_memory(cached) == estimate_memory(L4)
    unknown = replace(L4, architecture=None)
    with pytest.raises(UnknownSize, match="google/gemma-2b-it.*under 'architecture'"):
        estimate_memory(unknown)
    (tmp_path / "config.json").write_text("{")
    broken = replace(L4, architecture=None, base_model=str(tmp_path))
    with pytest.raises(CourseError, match="cannot be known"):
        estimate_memory(broken)


@pytest.mark.parametrize(("config", "message"), [
    ({"model_type": "brain"}, "of type 'brain'.*compare the architecture with its config.json"),
    (L4.architecture | {"model_type": "vit"}, "no language model of type 'vit'"),
    ({}, "of type 'None'"),
    (L4.architecture | {"hidden_size": "2048"}, "of type 'gemma'.*'hidden_size'.*'2048'"),
    ({"model_type": "llama", "hidden_size": 8}, "lacks num_hidden_layers, intermediate_size"),
    ({"model_type": "gpt2", "n_embd": 8}, "lacks num_hidden_layers, num_attention_heads, v"),
])  # fmt: skip
def test_a_configuration_that_says_too_little(config, message):
    with pytest.raises(CourseError, match=message) as caught:
        estimate_memory(replace(L4, architecture=config))
    assert isinstance(caught.value, UnknownSize) == ("type" in message)


def test_the_recorded_measurements_are_within_a_tenth():
    record = json.loads((REPO / "tests/benchmarks/results/memory.json").read_text("utf-8"))
    ratios = [row["ratio"] for row in record["rows"]]
    assert len(ratios) > 30 and all(0.9 <= ratio <= 1.1 for ratio in ratios)
    l4 = next(row for row in record["rows"] if row["what"] == "gemma-2b-l4")
    estimate = estimate_memory(L4)
    now = estimate.total - estimate.overhead
    assert l4["estimated"] == pytest.approx(now, abs=0.001), "run tests/benchmarks/memory.py again"
