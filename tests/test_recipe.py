"""Recipes: what ships loads, and every mistake is named with its place and its nearest cure."""

import dataclasses
import json

import pytest
import yaml

from course_utils.recipe import PRESETS, RECIPES, RecipeError, TrainSpec, load_recipe, recipe_names

HALF = "base_model: m\nteacher: {model: t}\n"
MINIMAL = HALF + "judge: {model: j}\n"


def write(folder, text):
    path = folder / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_loads_and_survives_json(name):
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe == load_recipe(RECIPES / f"{name}.yaml")
    assert json.loads(json.dumps(recipe.to_dict()))["train"]["lora_r"] == recipe.train.lora_r


def test_the_shipped_recipes_say_what_the_course_says():
    offline, l4 = load_recipe("offline"), load_recipe("gemma-2b-l4")
    assert (offline.teacher.base_url, offline.judge.base_url) == ("offline", "offline")
    assert (offline.train.learning_rate, offline.train.epochs) == (2e-3, 2)
    for recipe in (offline, l4):
        assert (recipe.train.lora_r, recipe.train.lora_alpha) == (4, 32)
        assert len(recipe.train.target_modules) == 7
    assert (l4.base_model, l4.train.dtype) == ("google/gemma-2b-it", "bfloat16")
    assert (l4.train.learning_rate, l4.train.epochs) == (1e-4, 5)
    assert l4.train.batch_size * l4.train.gradient_accumulation == 8
    assert l4.teacher.endpoint == l4.judge.endpoint == "auto"


def test_another_model_has_another_price_and_another_address_other_models():
    recipe = load_recipe("gemma-2b-l4").replace("teacher", "openai")
    assert recipe.teacher.model == "gpt-6-luna" and recipe.teacher.price == (0.1, 0.5)
    assert recipe.replace("teacher.model", "gpt-6.1-terra").teacher.price == (1, 5)
    own = recipe.replace("teacher.base_url", "http://127.0.0.1:8001/v1").teacher
    assert (own.endpoint, own.secret, own.price, own.model) == (None, None, None, "gpt-6-luna")


def test_recipes_of_one_family_differ_where_their_comments_say_so():
    def differences(one, other):
        a, b = load_recipe(one).to_dict()["train"], load_recipe(other).to_dict()["train"]
        return {key for key in a if a[key] != b[key]}

    for_a_t4 = {"batch_size", "gradient_accumulation", "dtype", "attention"}
    for one, other, changed in [
        ("gemma-2b-l4", "gemma-2b-t4", for_a_t4), ("midm-2b-l4", "midm-2b-t4", for_a_t4),
        ("koalpaca-12.8b-a100", "koalpaca-12.8b-2xa100",
         {"gradient_accumulation", "gpus", "parallel"}),
        ("gemma-2b-l4", "midm-2b-l4", {"max_length"}), ("gemma-2b-l4", "kanana-2b-l4", set()),
        ("gemma-2b-l4", "qwen3-4b-l4", set()),
    ]:
        assert differences(one, other) == changed


def test_what_the_originals_of_the_large_recipes_say():
    alpaca, ko = load_recipe("alpaca-7b-fsdp").train, load_recipe("koalpaca-12.8b-a100").train
    assert (alpaca.effective_batch, ko.effective_batch) == (128, 256)
    # Taori et al., 2023; tatsu-lab/stanford_alpaca
    assert (alpaca.learning_rate, alpaca.epochs, alpaca.max_length) == (2e-5, 3, 512)
    assert (alpaca.scheduler, alpaca.warmup, alpaca.weight_decay) == ("cosine", 0.03, 0.0)
    assert alpaca.full and alpaca.held_dtype == "float32" and alpaca.template == "alpaca"
    # Beomi/KoAlpaca, train_v1.1b/train.sh; an adapter in place of every weight
    assert (ko.epochs, ko.max_length, ko.scheduler, ko.template) == (2, 1024, "linear", "koalpaca")
    assert not ko.full and ko.held_dtype == "bfloat16" and len(ko.target_modules) == 4


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_names_its_source_and_can_be_sized_without_its_model(name):
    text = (RECIPES / f"{name}.yaml").read_text(encoding="utf-8")
    assert text.startswith("# ")
    recipe = load_recipe(name)
    assert hash(recipe) == hash(load_recipe(name))
    assert recipe.architecture or name == "offline"  # its model comes with the course
    settings = yaml.safe_load(text)
    assert name == "offline" or (settings["teacher"], settings["judge"]) == ("auto", "auto")


@pytest.mark.parametrize("rate", ["1e-4", "1E-4", ".1e-3", "1.e-4", "+1.0e-4", "0.0001"])
def test_defaults_and_numbers(tmp_path, rate):
    text = MINIMAL + f"train: {{learning_rate: {rate}, epochs: 3}}\n"
    recipe = load_recipe(write(tmp_path, text))
    assert recipe.name == "mine"
    assert recipe.train == dataclasses.replace(TrainSpec(), learning_rate=1e-4, epochs=3.0)
    assert (recipe.train.gpus, recipe.train.heldout, recipe.train.report_to) == (1, 0.0, "none")


@pytest.mark.parametrize(("text", "message"), [
    (MINIMAL + "train: {lora_rank: 8}", "unknown key 'train.lora_rank'.*'train.lora_r'"),
    (MINIMAL + "tarin: {}", "unknown key 'tarin'.*'train'"),
    (HALF + "judge: {modle: x}", "unknown key 'judge.modle'.*'judge.model'"),
    (MINIMAL + "train: {lora_r: four}", "'train.lora_r' must be a valid integer, not 'four'"),
    (MINIMAL + "train: {lora_r: true}", "'train.lora_r' must be a valid integer, not True"),
    (MINIMAL + "train: {epochs: many}", "'train.epochs' must be a valid number"),
    (MINIMAL + "train: {dtype: bf16}", "'train.dtype' must be 'float32', 'bfloat16' or"),
    (MINIMAL + "train: 3", "'train' must be a dictionary .*, not 3"),
    (HALF + "judge: {model: j, price: [1]}", "'judge.price.1' is missing; add it"),
    (HALF + "judge: {model: j, price: 1}", "'judge.price' must be a list, not 1"),
    (HALF + "judge: {model: j, price: [-1, 0]}", "'judge.price.0' must be greater than"),
    (MINIMAL + "train: {target_modules: q_proj}", "'train.target_modules' must be a list, not"),
    (MINIMAL + "train: {target_modules: []}", "target_modules is empty"),
    (MINIMAL + "train: {lora_r: -1}", "'train.lora_r' must be .* equal to 0, not -1"),
    (MINIMAL + "train: {batch_size: 0}", "'train.batch_size' must be .* equal to 1, not 0"),
    (MINIMAL + "train: {heldout: 1}", "'train.heldout' must be less than 1, not 1"),
    (MINIMAL + "train: {epochs: .nan}", "'train.epochs' must be a finite number, not nan"),
    (MINIMAL + "train: {paralel: ddp}", "unknown key 'train.paralel'.*'train.parallel'"),
    (MINIMAL + "train: {parallel: dp}", "'train.parallel' must be 'none', 'ddp' or 'fsdp'"),
    (MINIMAL + "train: {report_to: wb}", "'train.report_to' must be 'none' or 'wandb'"),
    (MINIMAL + "train: {quantize: 8bit}", "'train.quantize' must be 'none' or '4bit'"),
    (MINIMAL + "train: {quantize: 4bit, lora_r: 0}", "'train.quantize' 4bit .*above 0.*fsdp"),
    (MINIMAL + "train: {quantize: 4bit, parallel: fsdp, gpus: 2}", "4bit .*another 'train.parall"),
    (MINIMAL + "train: {gpus: 2}", "'train.gpus' is 2 but 'train.parallel' is 'none'"),
    (MINIMAL + "train: {parallel: ddp}", "'train.gpus' is 1 but 'train.parallel' is 'ddp'"),
    (MINIMAL + "architecture: gemma", "'architecture' must be a valid dictionary"),
    ("base_model: m\njudge: {model: j}", "'teacher' is missing"),
    ("base_model: m\ntecher: auto\njudge: auto", "unknown key 'techer'.*'teacher'"),
    ("base_model: m\nteacher: {}\njudge: {model: j}", "'teacher' says nothing: name an"),
    ("base_model: m\nteacher: opnai\njudge: auto", "'teacher': .* the closest is 'openai'"),
    ("base_model: m\nteacher: {endpoint: 3}\njudge: auto", "'teacher': .* named '3'"),
    (MINIMAL + "train: {epochs: true}", "'train.epochs' must be a valid number, not True"),
    (MINIMAL + "train: {batch_size: 4.0}", "'train.batch_size' must be a valid integer, not 4"),
    (MINIMAL + "1: 2", "unknown key '1'"),
    (MINIMAL + "base_model: n", "the key 'base_model' is given twice.*line 4"),
    (MINIMAL + "train: {seed: 1, epochs: 2, 'seed': 1}", "the key 'seed' is given twice"),
    (MINIMAL + "train: {<<: {seed: 1, seed: 2}}", "the key 'seed' is given twice"),
    (MINIMAL + "train: {<<: {seed: 1}, <<: {seed: 2}}", "the key '<<' is given twice"),
    (HALF + "judge: {model: j, params: {a: {b: 1, b: 2}}}", "the key 'b' is given twice"),
    (MINIMAL + "train: {seed: 4294967296}", "'train.seed' must be less than 4294967296"),
    (MINIMAL + "train: {scheduler: cosin}", "'train.scheduler' must be 'cosine', 'linear', "),
    (MINIMAL + "train: {optim: adam}", "'train.optim' must be 'adamw_torch' or"),
    ("train: [", "cannot be read as YAML.*line 1"),
    ("[" * 5000, "cannot be read as YAML.*recursion"),
    ("", "holds no settings"),
])
def test_mistakes_in_a_file_are_named(tmp_path, text, message):
    path = write(tmp_path, text)
    with pytest.raises(RecipeError, match=message) as caught:
        load_recipe(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_recipe_names_the_closest_and_all():
    with pytest.raises(RecipeError, match="'ofline'; the closest is 'offline'.*gemma-2b-l4, g"):
        load_recipe("ofline")
    with pytest.raises(RecipeError, match="nowhere.yaml cannot be read.*No such file.*one of: alp"):
        load_recipe("nowhere.yaml")


@pytest.mark.parametrize("name", recipe_names())
def test_a_preset_makes_nothing_larger_and_changes_nothing_else(name):
    recipe = load_recipe(name)
    quick = recipe.preset("quick")
    assert recipe.preset("full") == recipe
    assert quick.name == f"{name}-quick"
    back = quick.replace("name", name)
    for key, most in PRESETS["quick"].items():
        part, setting = key.split(".")
        value, ours = (getattr(getattr(r, part), setting) for r in (recipe, quick))
        assert ours == min(most, value)
        back = back.replace(key, value)
    assert back == recipe
    with pytest.raises(RecipeError, match="'fast'; the closest is .*all are: quick, full"):
        recipe.preset("fast")


def test_replace_changes_one_setting():
    recipe = load_recipe("offline")
    changed = recipe.replace("train.lora_r", 16).replace("name", "r16")
    assert (changed.train.lora_r, changed.name, recipe.train.lora_r) == (16, "r16", 4)
    assert changed.replace("train.lora_r", 4).replace("name", "offline") == recipe
    for key, value, said in [
        ("train.lora", 1, "unknown key 'train.lora'; the nearest one is 'train.lora_r'"),
        ("trian.lora_r", 1, "unknown key 'trian'; the nearest one is 'train'"),
        ("name.x", 1, "unknown key 'name.x'"),
        ("train.seed", "a", "'train.seed' must be a valid integer"),
    ]:
        with pytest.raises(RecipeError, match=said):
            recipe.replace(key, value)
