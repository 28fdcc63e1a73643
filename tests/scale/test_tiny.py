"""The tiny stand-ins: the right architecture and tokens, the same bytes every time, trainable."""

import math
from dataclasses import replace

import pytest

from course_utils import REPO, CourseError
from course_utils.collator import IGNORE_INDEX, MaskingCollator, encode_tasks
from course_utils.inference import load_base, load_tokenizer, stop_ids
from course_utils.prompts import get_template
from course_utils.recipe import load_recipe, recipe_names
from course_utils.scale.memory import estimate_memory, model_config, trained_parameters
from course_utils.scale.tiny import LAYOUTS, tiny_base, tiny_recipe
from course_utils.tasks import Task, read_tasks

ONE_OF_EACH = {"gemma": "gemma-2b-l4", "gpt_neox": "koalpaca-12.8b-a100",
               "llama": "alpaca-7b-fsdp", "llama3": "midm-2b-t4", "chatml": "qwen3-4b-l4"}
TASKS = [Task("2에 3을 더하면?", "", "5입니다."), Task("존댓말로 바꾸세요.", "먹어.", "드세요.")]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("tiny")
    return {kind: tiny_base(load_recipe(name), root / kind) for kind, name in ONE_OF_EACH.items()}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_model_is_of_its_kind_and_tiny(folders, layout):
    model, tokenizer = load_base(folders[layout])
    config, real = model.config, load_recipe(ONE_OF_EACH[layout]).architecture
    assert (config.num_hidden_layers, config.hidden_size) == (2, 64)
    assert config.model_type == real["model_type"]
    assert config.tie_word_embeddings == real["tie_word_embeddings"]
    assert config.vocab_size == len(tokenizer) == model.get_input_embeddings().num_embeddings
    assert config.eos_token_id == tokenizer.eos_token_id
    assert model.num_parameters() < 500_000
    if layout in ("gemma", "llama3"):  # as in the real ones, four heads share one for keys
        assert config.num_key_value_heads == 1
    if layout == "gpt_neox":
        assert config.rope_parameters["partial_rotary_factor"] == 0.5


def test_special_tokens(folders):
    gemma, neox, llama, llama3, chatml = (load_tokenizer(folders[name]) for name in LAYOUTS)
    assert (gemma.pad_token, gemma.eos_token, gemma.bos_token) == ("<pad>", "<eos>", "<bos>")
    for token in ("<start_of_turn>", "<end_of_turn>"):
        assert len(gemma(token, add_special_tokens=False)["input_ids"]) == 1
    assert (neox.eos_token, neox.bos_token, neox.pad_token) == ("<|endoftext|>",) * 2 + (None,)
    assert neox.eos_token_id == 2  # Polyglot-Ko's
    assert (llama.unk_token_id, llama.bos_token_id, llama.eos_token_id) == (0, 1, 2)
    assert llama.pad_token is None and neox.chat_template is None
    assert [tokenizer("밥")["input_ids"][0] for tokenizer in (gemma, llama)] == [2, 1]
    assert neox("밥")["input_ids"][0] != neox.bos_token_id
    # Midm's ids, and padding that is the end of a text; Qwen's texts begin with nothing.
    assert (llama3.bos_token_id, llama3.eos_token_id, llama3.pad_token_id) == (0, 2, 2)
    assert (chatml.bos_token, chatml.eos_token) == (None, "<|im_end|>")


@pytest.mark.parametrize(
    ("layout", "prompt", "end"),
    [
        ("gemma", "<bos><start_of_turn>user\n봄?<end_of_turn>\n<start_of_turn>model\n",
         "<end_of_turn>\n"),
        ("llama3", "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n봄?<|eot_id|>"
         "<|start_header_id|>assistant<|end_header_id|>\n\n", "<|eot_id|>"),
        ("chatml", "<|im_start|>user\n봄?<|im_end|>\n<|im_start|>assistant\n", "<|im_end|>\n"),
    ],
)  # fmt: skip
def test_turns_are_those_of_the_real_models(folders, layout, prompt, end):
    tokenizer = load_tokenizer(folders[layout])
    template = get_template("chat", tokenizer)
    assert (template.render(Task("봄?")), template.end) == (prompt, end)
    ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    assert tokenizer.unk_token_id not in ids and stop_ids(tokenizer)[-1] <= len(LAYOUTS) * 2
    (turn,) = (i for i in stop_ids(tokenizer) if tokenizer.decode([i]) in end)
    assert ids.count(turn) == 1  # one token, at which a reply stops


@pytest.mark.parametrize("kind", ["exaone4", "gpt2", "mistral", "phi3", "qwen2"])
def test_other_architectures_have_a_stand_in_too(kind, tmp_path):
    from transformers import CONFIG_MAPPING

    recipe = replace(load_recipe("gemma-2b-l4"), architecture=CONFIG_MAPPING[kind]().to_dict())
    model, tokenizer = load_base(tiny_base(recipe, tmp_path / kind))
    assert model.config.model_type == kind and model.num_parameters() < 500_000
    assert tokenizer.eos_token == "<|im_end|>"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_text_is_unknown_and_every_text_comes_back(folders, layout):
    tokenizer = load_tokenizer(folders[layout])
    for text in ("존댓말로 바꾸세요.", "뷁 🍚  두 칸\n줄", "<0x41>은 바이트가 아니다", "漢字"):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(ids) == text
        assert tokenizer.unk_token_id not in ids


@pytest.mark.parametrize("name", recipe_names())
def test_a_tiny_recipe_encodes_its_data_and_changes_amounts_alone(name, tmp_path):
    real = load_recipe(name)
    recipe = tiny_recipe(real, tmp_path / "tiny")
    before, after = real.to_dict()["train"], recipe.to_dict()["train"]
    assert {key for key in before if before[key] != after[key]} <= {
        "max_length", "epochs", "batch_size", "gradient_accumulation", "save_steps", "threads"}
    assert (recipe.name, recipe.base_model) == (f"{name}-tiny", str(tmp_path / "tiny"))
    assert model_config(recipe)["hidden_size"] == 64 and trained_parameters(recipe) > 0
    assert estimate_memory(recipe).parameters < 500_000
    tokenizer = load_tokenizer(recipe.base_model)
    template = get_template(recipe.train.template, tokenizer)
    rows, report = encode_tasks(tokenizer, TASKS, template, recipe.train.max_length)
    assert (report.rows, report.truncated) == (2, 0)
    end = tokenizer.eos_token_id
    if template.end:
        end = tokenizer(template.end, add_special_tokens=False)["input_ids"][-1]
    for row in rows:
        ids, labels = row["input_ids"], row["labels"]
        bos = tokenizer.bos_token_id
        assert bos is None or ids.count(bos) == 1
        assert (ids[0] == bos) == (bos not in (None, tokenizer.eos_token_id))
        assert labels[0] == IGNORE_INDEX and labels[-1] == ids[-1] == end
    seeds = read_tasks(REPO / "data" / "seed_tasks.jsonl")
    _, report = encode_tasks(tokenizer, seeds, template, recipe.train.max_length)
    assert report.dropped == 0 and report.truncated < 20  # real tasks fit, too


def test_the_same_bytes_every_time_and_randomness_elsewhere_is_left_alone(folders, tmp_path):
    import torch

    for kind, folder in folders.items():
        state = torch.get_rng_state()
        again = tiny_base(load_recipe(ONE_OF_EACH[kind]), tmp_path / kind)
        assert torch.equal(torch.get_rng_state(), state)
        names = sorted(path.name for path in folder.iterdir())
        assert names == sorted(path.name for path in again.iterdir())
        assert all((folder / n).read_bytes() == (again / n).read_bytes() for n in names)


def test_a_folder_is_used_again_and_never_overwritten(folders, tmp_path):
    recipe = load_recipe(ONE_OF_EACH["llama"])
    before = (folders["llama"] / "model.safetensors").stat().st_mtime_ns
    assert tiny_base(recipe, folders["llama"]) == folders["llama"]
    assert (folders["llama"] / "model.safetensors").stat().st_mtime_ns == before
    with pytest.raises(CourseError, match="something else than a tiny llama"):
        tiny_base(recipe, folders["gemma"])
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(CourseError, match="config.json"):
        tiny_base(recipe, tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_an_architecture_without_a_stand_in(tmp_path):
    recipe = load_recipe("gemma-2b-l4")
    with pytest.raises(CourseError, match="under 'architecture'"):
        tiny_base(replace(recipe, architecture=None), tmp_path / "tiny")
    assert not (tmp_path / "tiny").exists()


@pytest.mark.parametrize("name", ["gemma-2b-t4", "midm-2b-t4"])
@pytest.mark.parametrize("quantize", ["none", "4bit"])
def test_float16_trains_what_a_t4_recipe_trains(name, quantize, tmp_path):
    """Steps as the Trainer makes them on a T4: half-precision weights, scaled loss, tiny model.

    It shows that these settings hold together: gradients come through and the loss falls. It does
    not show that the real model's numbers stay below 65,504, nor how a T4's own kernels round.
    """
    import torch
    from peft import LoraConfig, get_peft_model

    recipe = tiny_recipe(load_recipe(name), tmp_path / "tiny")
    spec = recipe.train
    model, tokenizer = load_base(recipe.base_model, dtype=spec.held_dtype, quantize=quantize)
    packed = {torch.uint8} if quantize == "4bit" else set()
    assert {p.dtype for p in model.parameters()} == {torch.float16} | packed
    template = get_template(spec.template, tokenizer)
    rows, _ = encode_tasks(tokenizer, TASKS, template, spec.max_length)
    batch = MaskingCollator(tokenizer.pad_token_id)(list(rows))
    targets = list(spec.target_modules)
    model = get_peft_model(model, LoraConfig(target_modules=targets, task_type="CAUSAL_LM"))
    trained = [p for p in model.parameters() if p.requires_grad]
    assert {p.dtype for p in trained} == {torch.float32}  # GradScaler refuses float16 gradients
    optimizer, scaler = torch.optim.AdamW(trained, lr=0.01), torch.amp.GradScaler("cpu")
    losses, whole = [], []
    for _ in range(10):
        with torch.autocast("cpu", torch.float16):
            loss = model(**batch).loss
        scaler.scale(loss).backward()
        whole.append(all(p.grad.isfinite().all() for p in trained))
        scaler.step(optimizer)  # passes over a step whose scaled gradients are not finite ...
        scaler.update()  # ... and scales the next ones up by less
        optimizer.zero_grad()
        losses.append(loss.item())
    assert all(map(math.isfinite, losses)) and sum(whole) >= 5
    assert losses[-1] < losses[0] - 0.1
