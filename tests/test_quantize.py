"""Four bits a weight under an adapter: trained, resumed, loaded, merged, and counted truly."""

import math
import runpy
from dataclasses import replace

import pytest
from test_train import TASKS, Killed, adapter_bytes, changed, kill_at

from course_utils import REPO
from course_utils.checkpoint import CheckpointStore
from course_utils.inference import find_device, load_base, load_model, merge_adapter, reply
from course_utils.plumbing.model_folder import ModelFolderError
from course_utils.recipe import load_recipe
from course_utils.scale import trainer
from course_utils.scale.memory import GIB, NF4_BYTES, estimate_memory
from course_utils.scale.preflight import as_it_runs
from course_utils.scale.tiny import tiny_recipe, tiny_tokenizer
from course_utils.train import make_trainer, train

BENCHMARK = runpy.run_path(str(REPO / "tests" / "benchmarks" / "memory.py"))
T4 = load_recipe("midm-2b-t4").replace("train.quantize", "4bit")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    recipe = tiny_recipe(T4, tmp_path_factory.mktemp("base") / "tiny")
    return changed(recipe, epochs=2, learning_rate=0.01, lora_dropout=0.1, heldout=0.2)


@pytest.fixture(scope="module")
def result(recipe, tmp_path_factory):
    return train(recipe, CheckpointStore.open("whole", tmp_path_factory.mktemp("runs")), TASKS)


def packed(model):
    return {name for name, p in model.named_parameters() if type(p).__name__ == "Params4bit"}


def test_the_loss_is_finite_and_falls(result):
    losses = [entry["loss"] for entry in result.log if "loss" in entry]
    assert all(map(math.isfinite, losses)) and result.last_loss < result.first_loss
    assert result.last_eval_loss < result.first_eval_loss - 0.02


def test_a_killed_run_ends_in_the_same_bytes_with_recomputed_activations(
        recipe, result, tmp_path, monkeypatch):
    """As on a GPU: gradients come through TRL's checkpointing without peft's preparations."""
    assert recipe.train.activation_checkpointing
    arguments = trainer.sharding(recipe.train, False)
    assert True in arguments.values()
    monkeypatch.setattr(trainer, "sharding", lambda *_: arguments)
    store = CheckpointStore.open("killed", tmp_path)
    with pytest.raises(Killed):
        train(recipe, store, TASKS, callbacks=[kill_at(6)])
    assert adapter_bytes(train(recipe, store, TASKS)) == adapter_bytes(result)


def test_the_adapter_is_trained_in_float32(recipe, result, tmp_path):
    import torch
    from safetensors.torch import load_file

    here, rows = as_it_runs(recipe, find_device()), [{"input_ids": [1], "labels": [1]}]
    trained = make_trainer(here, load_base(recipe.base_model)[1], rows, [], tmp_path)
    kinds = {p.dtype for p in trained.model.parameters() if p.requires_grad}
    assert kinds == {torch.float32}  # a T4 cannot scale gradients in TRL's bfloat16
    saved = load_file(result.adapter / "adapter_model.safetensors")
    assert any((weights != weights.bfloat16()).any() for weights in saved.values())


def test_the_adapter_replies_on_what_it_was_trained_on_or_on_whole_weights(
        recipe, result, tmp_path):
    base, options = recipe.base_model, {"dtype": "float32", "device": "cpu"}
    tuned, tokenizer = load_model(base, result.adapter, **options)
    assert len(packed(tuned)) == 2 * 7
    assert len(reply(tuned, tokenizer, ["안녕", "봄"], max_new_tokens=4)) == 2
    whole, _ = load_model(base, result.adapter, quantize="none", **options)
    merged, _ = load_model(merge_adapter(base, result.adapter, tmp_path / "merged"), **options)
    assert not packed(whole) and not packed(merged)
    import torch

    ids = torch.tensor([tokenizer("존댓말로 바꾸세요.")["input_ids"]])
    with torch.no_grad():
        logits = [model(ids).logits for model in (whole, merged, tuned)]
    torch.testing.assert_close(logits[0], logits[1], atol=1e-5, rtol=1e-5)
    assert 0 < (logits[0] - logits[2]).abs().max() < 0.5  # near, but not the same


def test_a_reply_leaves_the_weights_as_they_were(recipe):
    """On a CPU with bfloat16, bitsandbytes packs them anew unless it is told not to."""
    import torch

    model, tokenizer = load_base(recipe.base_model, quantize="4bit", dtype="float32")
    before = {name: p.clone() for name, p in model.named_parameters() if name in packed(model)}
    reply(model.eval(), tokenizer, ["안녕"], max_new_tokens=2)
    after = dict(model.named_parameters())
    assert before and all(torch.equal(old, after[name]) for name, old in before.items())


@pytest.mark.parametrize("kind", ["gemma", "gpt_neox", "llama"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_the_weights_take_what_is_counted(kind, dtype, tmp_path):
    from transformers import AutoConfig, AutoModelForCausalLM

    config = BENCHMARK["small"](kind, layers=2, tie_word_embeddings=kind == "gemma")
    AutoModelForCausalLM.from_config(AutoConfig.for_model(**config)).save_pretrained(tmp_path)
    tiny_tokenizer(T4).save_pretrained(tmp_path)
    model, _ = load_base(tmp_path, quantize="4bit", dtype=dtype)
    bytes_held = model.get_memory_footprint()
    for name in packed(model):  # the footprint leaves their scales out
        state = model.get_parameter(name).quant_state
        bytes_held += sum(t.nbytes for t in (state.absmax, state.state2.absmax, state.offset))
    recipe = BENCHMARK["with_settings"](kind, quantize="4bit", dtype=dtype)
    estimate = estimate_memory(replace(recipe, architecture=config))
    assert estimate.weights * GIB == pytest.approx(bytes_held, rel=0.005)


def test_what_the_t4_recipe_saves():
    whole, quantized = (estimate_memory(T4.replace("train.quantize", q)) for q in ("none", "4bit"))
    matrices = 48 * (2 * 1792 * 4096 + 2 * 1792 * 1024 + 3 * 1792 * 4608)
    saved = (whole.weights - quantized.weights) * GIB
    assert saved == pytest.approx(matrices * (2 - NF4_BYTES))
    assert quantized.copies * GIB == 2 * 1792 * 4608  # the largest matrix, while it is used
    assert quantized.total < whole.total - 2


def test_without_bitsandbytes(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr("course_utils.inference.importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModelFolderError, match="run `pip install bitsandbytes`") as caught:
        train(recipe, CheckpointStore.open("none", tmp_path), TASKS)
    assert "\n" not in str(caught.value)
