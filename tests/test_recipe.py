"""Recipes: what ships loads, and every mistake is named with its place and its nearest cure."""

import dataclasses
import json

import pytest

from course_utils.recipe import (
    RECIPES,
    RecipeError,
    TrainSpec,
    load_recipe,
    recipe_names,
)

MINIMAL = "base_model: m\nteacher: {model: t}\njudge: {model: j}\n"


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
    assert l4.teacher.base_url is None and l4.teacher.price[0] > 0


def test_defaults_and_numbers(tmp_path):
    recipe = load_recipe(write(tmp_path, MINIMAL + "train: {learning_rate: 1e-4, epochs: 3}\n"))
    assert recipe.name == "mine"
    assert recipe.train == dataclasses.replace(TrainSpec(), learning_rate=1e-4, epochs=3.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (MINIMAL + "train: {lora_rank: 8}", "unknown key 'train.lora_rank'.*'train.lora_r'"),
        (MINIMAL + "tarin: {}", "unknown key 'tarin'.*'train'"),
        (MINIMAL + "judge: {modle: x}", "unknown key 'judge.modle'.*'judge.model'"),
        (MINIMAL + "train: {lora_r: four}", "'train.lora_r' must be a whole number, not 'four'"),
        (MINIMAL + "train: {lora_r: true}", "'train.lora_r' must be a whole number, not True"),
        (MINIMAL + "train: {epochs: many}", "'train.epochs' must be a number"),
        (MINIMAL + "train: {dtype: bf16}", "'train.dtype' must be float32 or bfloat16 or float16"),
        (MINIMAL + "train: 3", "'train' must hold settings, not 3"),
        (MINIMAL + "judge: {model: j, price: [1]}", r"'judge.price' must be a list such as \[0.15"),
        ("base_model: m\njudge: {model: j}", "'teacher' is missing"),
        ("base_model: m\nteacher: {}\njudge: {model: j}", "'teacher.model' is missing"),
        ("train: [", "cannot be read as YAML.*line 1"),
        ("", "holds no settings"),
    ],
)
def test_mistakes_in_a_file_are_named(tmp_path, text, message):
    path = write(tmp_path, text)
    with pytest.raises(RecipeError, match=message) as caught:
        load_recipe(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_recipe_names_the_closest_and_all():
    with pytest.raises(RecipeError, match="'ofline'; the closest is 'offline'.*gemma-2b-l4, off"):
        load_recipe("ofline")
    with pytest.raises(RecipeError, match="no recipe file nowhere.yaml"):
        load_recipe("nowhere.yaml")


def test_replace_changes_one_setting():
    recipe = load_recipe("offline")
    changed = recipe.replace("train.lora_r", 16).replace("name", "r16")
    assert (changed.train.lora_r, changed.name, recipe.train.lora_r) == (16, "r16", 4)
    assert changed.replace("train.lora_r", 4).replace("name", "offline") == recipe
    for key, value in [("train.lora", 1), ("trian.lora_r", 1), ("name.x", 1), ("train.seed", "a")]:
        with pytest.raises(RecipeError, match="unknown key|must be"):
            recipe.replace(key, value)
