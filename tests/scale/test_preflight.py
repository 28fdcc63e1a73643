"""The card before a training, and what it refuses, with devices that are not there."""

import importlib.util
import json
from dataclasses import replace

import pytest
from machines import CPU, L4, T4

from course_utils import REPO, CourseError
from course_utils.collator import IGNORE_INDEX, EncodeReport
from course_utils.inference import Device, load_tokenizer
from course_utils.recipe import load_recipe
from course_utils.scale.memory import estimate_memory
from course_utils.scale.parallel import TrainError
from course_utils.scale.preflight import check, preflight
from course_utils.train import make_trainer

A100 = Device("cuda", "NVIDIA A100-SXM4-80GB, 79 GiB, capability 8.0", 79.0, (8, 0))


def row(length, prompt=5):
    return {"input_ids": [1] * length, "labels": [IGNORE_INDEX] * prompt + [1] * (length - prompt)}


ROWS = [row(10 + i % 50) for i in range(101)]


@pytest.fixture(autouse=True)
def one_process(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)


@pytest.fixture
def recipe():
    return load_recipe("gemma-2b-l4").replace("train.attention", "sdpa")


def test_the_card_of_the_l4_recipe(recipe):
    report = EncodeReport(101, 3, 2, 505, 2900)
    card = preflight(recipe, ROWS, report=report, device=L4)
    check(card)
    assert (card.rows, card.longest, card.tokens) == (101, 59, sum(10 + i % 50 for i in range(101)))
    assert card.trained_tokens == card.tokens - 505
    assert card.memory == estimate_memory(recipe, length=64) == card.meant
    lines = dict(line.split(maxsplit=1) for line in str(card).splitlines())
    assert lines["Memory"] == f"{card.memory.total:.1f} GiB estimated, 22.0 GiB free"
    assert lines["Trained"] == "4,902,912 of 2,506,172,416 parameters (0.20%)"
    assert lines["Rows"] == "101, the longest 59 tokens, 3 truncated, 2 dropped"
    assert lines["Batch"] == "4 x 2 x 1 = 8 rows a step"
    assert "Meant" not in lines


def test_other_processes_than_the_recipe_means(monkeypatch):
    recipe = load_recipe("alpaca-7b-fsdp").replace("train.attention", "sdpa")
    monkeypatch.setenv("WORLD_SIZE", "4")
    card = preflight(recipe, ROWS, device=A100)
    check(card)
    text = str(card)
    assert "4 x 8 x 4 = 128 rows a step" in text  # the recipe's 128, on half the GPUs
    assert "8 GPUs with" in text
    assert card.memory.optimizer == pytest.approx(2 * card.meant.optimizer)
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert "4 x 4 x 8 = 128 rows a step" in str(preflight(recipe, ROWS, device=A100))
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(CourseError, match="cannot be divided among 3 processes"):
        preflight(recipe, ROWS, device=A100)


def test_a_gpu_without_bfloat16(recipe):
    with pytest.raises(TrainError, match='no bfloat16.*gemma-2b-t4.*"train.dtype", "float16"'):
        check(preflight(recipe, ROWS, device=T4))
    check(preflight(load_recipe("gemma-2b-t4"), ROWS, device=T4))
    with pytest.raises(TrainError, match="use the recipe midm-2b-t4"):
        check(preflight(load_recipe("qwen3-4b-l4"), ROWS, device=T4))


def test_too_little_memory_names_what_would_fit(recipe):
    card = replace(preflight(recipe, [row(512)], device=L4), free=6.1)
    with pytest.raises(TrainError, match="about 6.4 GiB.* 6.1 free. It would fit with train"):
        check(card)
    check(replace(preflight(recipe, [row(64)], device=L4), free=6.1))  # short rows need less
    with pytest.raises(TrainError, match="The recipe qwen3-4b-l4 would fit"):
        check(preflight(load_recipe("koalpaca-12.8b-a100"), [row(1024)], device=L4))
    # Eight processes share what one cannot hold.
    with pytest.raises(TrainError, match="an adapter instead of all weights"):
        check(preflight(load_recipe("alpaca-7b-fsdp"), [row(512)], device=A100))


@pytest.mark.parametrize("name, native, dtype", [
    ("gemma-270m", True, "bfloat16"), ("gemma-270m", False, "float32"),
    ("gemma-2b-l4", True, "float32"), ("offline", True, "float32")])  # fmt: skip
def test_a_recipe_for_a_cpu_computes_in_bfloat16_where_the_cpu_does(
        name, native, dtype, monkeypatch):
    found = {"avx512_bf16": native, "amx_bf16": False}
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: found)
    assert preflight(load_recipe(name), ROWS, device=CPU).recipe.train.dtype == dtype


def test_a_cpu_computes_in_float32_and_may_swap(recipe):
    offline = load_recipe("offline")
    card = preflight(offline, ROWS, device=CPU)
    check(replace(card, free=0.5))  # activations can be swapped; what is held all the time fits
    assert card.meant == card.memory and "Meant for" not in str(card)
    card = replace(preflight(recipe, ROWS, device=CPU), free=8.0)
    spec = card.recipe.train
    assert (spec.dtype, spec.activation_checkpointing) == ("float32", False)
    assert f"1 GPU with {estimate_memory(recipe, length=64).total:.1f} GiB" in str(card)
    with pytest.raises(TrainError, match="9.4 GiB.*8.0 free. Run it on a GPU.*--tiny"):
        check(card)


def test_a_model_of_unknown_size_may_be_trained(recipe):
    card = preflight(replace(recipe, architecture=None), ROWS, device=L4)
    check(card)
    assert card.memory is None
    assert "unknown for this model, 22.0 GiB free" in str(card) and "Trained" not in str(card)
    with pytest.raises(TrainError, match="no bfloat16"):
        check(replace(card, device=T4))
    relative = replace(recipe, architecture=recipe.architecture | {"model_type": "mistral"})
    assert "GiB estimated as for llama, 22.0" in str(preflight(relative, ROWS, device=L4))
    # What is known to be wrong is still said.
    wrong = recipe.replace("train.target_modules", ["query_key_value"])
    with pytest.raises(CourseError, match="'query_key_value'.*gemma.*q_proj"):
        preflight(wrong, ROWS, device=L4)


def test_attention_is_settled_before_it_is_counted(monkeypatch):
    monkeypatch.setattr("course_utils.scale.preflight.pick_attention", lambda: "flash_attention_2")
    auto = load_recipe("gemma-2b-l4")
    assert auto.train.attention == "auto"
    card = preflight(auto, ROWS, device=L4)
    assert card.recipe.train.attention == "flash_attention_2"
    assert "flash_attention_2" in str(card)
    assert preflight(auto, ROWS, device=CPU).recipe.train.attention == "sdpa"


@pytest.mark.parametrize(("rows", "batch", "accumulation", "epochs"), [
    (13, 2, 2, 2), (13, 2, 3, 1), (3, 4, 8, 2), (8, 2, 2, 2.5), (9, 4, 1, 1)])
def test_steps_are_those_the_trainer_takes(
        rows, batch, accumulation, epochs, tiny_base, tmp_path):
    recipe = load_recipe("offline").replace("base_model", str(tiny_base))
    recipe = replace(recipe, train=replace(recipe.train, batch_size=batch, epochs=epochs,
                                           gradient_accumulation=accumulation))
    card = preflight(recipe, ROWS[:rows])
    trainer = make_trainer(card.recipe, load_tokenizer(tiny_base), ROWS[:rows], [], tmp_path)
    assert trainer.train().global_step == card.steps


@pytest.mark.parametrize("sampling", ["random", "length"])
def test_the_padding_is_that_of_the_batches_that_are_trained(sampling, tiny_base, tmp_path):
    """Those that the trainer's own loader gives, of the first epoch, to the last token."""
    recipe = load_recipe("offline").replace("base_model", str(tiny_base))
    recipe = recipe.replace("train.sampling", sampling).replace("train.batch_size", 4)
    recipe = recipe.replace("train.gradient_accumulation", 2)
    rows = [row(5 + i * 7919 % 97, prompt=3) for i in range(161)]
    card = preflight(recipe, rows)
    trainer = make_trainer(card.recipe, load_tokenizer(tiny_base), rows, [], tmp_path)
    batches = [batch["attention_mask"] for batch in trainer.get_train_dataloader()]
    seen = sum(int(mask.sum()) for mask in batches)
    assert seen == card.tokens
    assert card.padding == pytest.approx(1 - seen / sum(mask.numel() for mask in batches))
    assert (card.padding > 0.2) if sampling == "random" else (card.padding < 0.05)
    assert f"Padding    {card.padding:.1%} of what is computed ({sampling} batches)" in str(card)


def test_batches_are_padded_further_on_a_gpu():
    offline = load_recipe("offline").replace("train.sampling", "length")
    assert preflight(offline, [row(9)], device=CPU).padding == 0
    assert preflight(offline, [row(9)], device=L4).padding == pytest.approx(7 / 16)
    assert preflight(offline, [row(64)] * 3, device=L4).padding == 0


@pytest.fixture(scope="module")
def benchmark():
    path = REPO / "tests" / "benchmarks" / "gpu.py"
    spec = importlib.util.spec_from_file_location("gpu_benchmark", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_gpu_benchmark_runs_dry(benchmark, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert benchmark.main([]) == 0
    assert capsys.readouterr().out.startswith("There is no GPU here")
    assert benchmark.main(["--dry", "--steps", "2", "--out", str(tmp_path / "gpu.json")]) == 0
    record = json.loads((tmp_path / "gpu.json").read_text())
    assert [run["attention"] for run in record["runs"]] == ["sdpa", "sdpa", "eager", "eager"]
    assert all(run["tokens_a_second"] > 0 for run in record["runs"])
