"""The tiny stand-ins: the right architecture and tokens, the same bytes every time, trainable."""

import json
from dataclasses import replace

import pytest

from course_utils import CourseError
from course_utils.collator import IGNORE_INDEX, encode_tasks
from course_utils.inference import load_base, load_tokenizer
from course_utils.memory import estimate_memory, model_config, parameters, trained_parameters
from course_utils.prompts import get_template
from course_utils.recipe import load_recipe, recipe_names
from course_utils.tasks import Task, read_tasks
from course_utils.tiny import KINDS, SEEDS, tiny_base, tiny_recipe

ONE_OF_EACH = {
    "gemma": "gemma-2b-l4",
    "gpt_neox": "koalpaca-12.8b-a100",
    "llama": "alpaca-7b-fsdp",
}
TASKS = [Task("2에 3을 더하면?", "", "5입니다."), Task("존댓말로 바꾸세요.", "먹어.", "드세요.")]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("tiny")
    return {kind: tiny_base(load_recipe(name), root / kind) for kind, name in ONE_OF_EACH.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_the_model_is_of_its_kind_and_tiny(folders, kind):
    model, tokenizer = load_base(folders[kind])
    config, real = model.config, load_recipe(ONE_OF_EACH[kind]).architecture
    assert (config.model_type, config.num_hidden_layers, config.hidden_size) == (kind, 2, 64)
    assert config.tie_word_embeddings == real["tie_word_embeddings"]
    assert config.vocab_size == len(tokenizer) == model.get_input_embeddings().num_embeddings
    assert config.eos_token_id == tokenizer.eos_token_id
    assert parameters(config) == model.num_parameters() < 500_000
    if kind == "gemma":  # one key head for all, as in the real one
        assert config.num_key_value_heads == 1
    if kind == "gpt_neox":
        assert config.rope_parameters["partial_rotary_factor"] == 0.5


def test_special_tokens(folders):
    gemma, neox, llama = (load_tokenizer(folders[kind]) for kind in KINDS)
    assert (gemma.pad_token, gemma.eos_token, gemma.bos_token) == ("<pad>", "<eos>", "<bos>")
    for token in ("<start_of_turn>", "<end_of_turn>"):
        assert len(gemma(token, add_special_tokens=False)["input_ids"]) == 1
    assert (neox.eos_token, neox.bos_token, neox.pad_token) == ("<|endoftext|>",) * 2 + (None,)
    assert neox.eos_token_id == 2  # Polyglot-Ko's
    assert (llama.unk_token_id, llama.bos_token_id, llama.eos_token_id) == (0, 1, 2)
    assert llama.pad_token is None and neox.chat_template is None
    assert [tokenizer("밥")["input_ids"][0] for tokenizer in (gemma, llama)] == [2, 1]
    assert neox("밥")["input_ids"][0] != neox.bos_token_id


@pytest.mark.parametrize("kind", KINDS)
def test_no_text_is_unknown_and_every_text_comes_back(folders, kind):
    tokenizer = load_tokenizer(folders[kind])
    for text in ("존댓말로 바꾸세요.", "뷁 🍚  두 칸\n줄", "<0x41>은 바이트가 아니다", "漢字"):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(ids) == text
        assert tokenizer.unk_token_id not in ids


@pytest.mark.parametrize("name", recipe_names())
def test_each_recipe_encodes_its_data_with_its_template(name, tmp_path):
    recipe = tiny_recipe(load_recipe(name), tmp_path / "tiny")
    tokenizer = load_tokenizer(recipe.base_model)
    template = get_template(recipe.train.template, tokenizer)
    rows, report = encode_tasks(tokenizer, TASKS, template, recipe.train.max_length)
    assert (report.rows, report.truncated) == (2, 0)
    end = tokenizer.eos_token_id
    if template.end:
        end = tokenizer(template.end, add_special_tokens=False)["input_ids"][-1]
    for row in rows:
        ids, labels = row["input_ids"], row["labels"]
        has_bos = tokenizer.bos_token_id != tokenizer.eos_token_id
        assert ids.count(tokenizer.bos_token_id) == 1
        assert (ids[0] == tokenizer.bos_token_id) == has_bos
        assert labels[0] == IGNORE_INDEX and labels[-1] == ids[-1] == end
    whole, report = encode_tasks(tokenizer, read_tasks(SEEDS), template, recipe.train.max_length)
    assert report.dropped == 0 and report.truncated < 20  # real tasks fit, too


def test_gemmas_turn_ends_are_trained(folders):
    tokenizer = load_tokenizer(folders["gemma"])
    rows, _ = encode_tasks(tokenizer, TASKS, get_template("chat", tokenizer), 256)
    turn = tokenizer.convert_tokens_to_ids("<end_of_turn>")
    assert all(row["labels"].count(turn) == 1 for row in rows)
    assert all(row["input_ids"].count(turn) == 2 for row in rows)


def test_the_same_bytes_every_time(folders, tmp_path):
    for kind, folder in folders.items():
        again = tiny_base(load_recipe(ONE_OF_EACH[kind]), tmp_path / kind)
        names = sorted(path.name for path in folder.iterdir())
        assert names == sorted(path.name for path in again.iterdir())
        assert all((folder / n).read_bytes() == (again / n).read_bytes() for n in names)


def test_randomness_elsewhere_is_left_alone(tmp_path):
    import torch

    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    tiny_base(load_recipe("gemma-2b-l4"), tmp_path / "tiny")
    assert torch.equal(torch.rand(3), expected)


def test_a_folder_is_used_again_and_never_overwritten(folders, tmp_path):
    recipe = load_recipe(ONE_OF_EACH["llama"])
    before = (folders["llama"] / "model.safetensors").stat().st_mtime_ns
    assert tiny_base(recipe, folders["llama"]) == folders["llama"]
    assert (folders["llama"] / "model.safetensors").stat().st_mtime_ns == before
    with pytest.raises(CourseError, match="something else than a tiny llama"):
        tiny_base(recipe, folders["gemma"])
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(CourseError, match="something else"):
        tiny_base(recipe, tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_process_that_comes_second_takes_what_is_there(folders, tmp_path, monkeypatch):
    import shutil

    recipe, folder = load_recipe(ONE_OF_EACH["gemma"]), tmp_path / "tiny"

    def first(source, target):  # between our looking and our renaming
        shutil.copytree(folders["gemma"], target)
        raise OSError("not empty")

    monkeypatch.setattr("course_utils.tiny.os.rename", first)
    assert tiny_base(recipe, folder) == folder
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]

    def full(source, target):
        raise OSError("No space left on device")

    monkeypatch.setattr("course_utils.tiny.os.rename", full)
    with pytest.raises(OSError, match="No space"):
        tiny_base(recipe, tmp_path / "other")
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]


@pytest.mark.parametrize("name", recipe_names())
def test_a_tiny_recipe_changes_amounts_and_nothing_else(name, tmp_path):
    recipe = load_recipe(name)
    tiny = tiny_recipe(recipe, tmp_path / "tiny")
    before, after = recipe.to_dict()["train"], tiny.to_dict()["train"]
    changed = {key for key in before if before[key] != after[key]}
    assert changed <= {
        "max_length", "epochs", "batch_size", "gradient_accumulation", "save_steps", "threads",
    }  # fmt: skip
    assert (tiny.name, tiny.base_model) == (f"{name}-tiny", str(tmp_path / "tiny"))
    assert model_config(tiny)["hidden_size"] == 64
    assert trained_parameters(tiny) > 0 and estimate_memory(tiny).parameters < 500_000
    assert json.loads(json.dumps(tiny.to_dict()))["train"]["template"] == recipe.train.template


def test_an_architecture_without_a_stand_in(tmp_path):
    recipe = replace(load_recipe("gemma-2b-l4"), architecture={"model_type": "bert"})
    with pytest.raises(CourseError, match="type 'bert'.*gemma, gpt_neox, llama"):
        tiny_base(recipe, tmp_path / "tiny")
    with pytest.raises(CourseError, match="under 'architecture'"):
        tiny_base(replace(recipe, architecture=None), tmp_path / "tiny")
    assert not (tmp_path / "tiny").exists()
