"""Tiny random models that stand in for the real ones, so that every recipe can be run anywhere.

A stand-in has its recipe's architecture, two layers, special tokens and turns like the real ones:
it shows that a training works, never how well. The --tiny of train.py. Taught in 04, section 2.
"""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from course_utils import REPO, CourseError
from course_utils.inference import load_config, quiet
from course_utils.plumbing import entries
from course_utils.recipe import Recipe
from course_utils.scale.memory import model_config

LAYOUTS = entries.read_yaml(Path(__file__).with_name("layouts.yaml"))


def chat(start: str, middle: str, end: str, model: str = "assistant") -> str:
    """Return a chat template; its generation marks let TRL find the answers, to compare masks."""
    return f"""\
{{{{ bos_token }}}}{{% for message in messages %}}\
{{% if message['role'] == 'assistant' %}}\
{{{{ '{start}{model}{middle}' }}}}{{% generation %}}\
{{{{ message['content'] | trim }}}}{{{{ '{end}' }}}}{{% endgeneration %}}\
{{% else %}}\
{{{{ '{start}' + message['role'] + '{middle}' + message['content'] | trim + '{end}' }}}}\
{{% endif %}}{{% endfor %}}\
{{% if add_generation_prompt %}}{{{{ '{start}{model}{middle}' }}}}{{% endif %}}"""


GEMMA_CHAT = chat(*LAYOUTS["gemma"]["turn"], model="model")


def tiny_base(recipe: Recipe, folder: str | Path) -> Path:
    """Write a tiny random model of a recipe's architecture with a tokenizer, and return the folder.

    The same bytes every time; one that is there is used again, anything else is a CourseError.
    """
    import torch
    from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM

    folder, real = Path(folder), model_config(recipe)
    real = real.get("text_config", real)
    kind = real["model_type"]
    if folder.is_dir() and any(folder.iterdir()):
        found = load_config(folder)
        if (found.model_type, found.hidden_size) == (kind, 64):
            return folder
        raise CourseError(f"{folder} holds something else than a tiny {kind} model: give another.")
    tokenizer = tiny_tokenizer(recipe)
    config = CONFIG_MAPPING[kind].from_dict(real)  # with what a config.json leaves out
    heads = config.num_attention_heads
    shared = getattr(config, "num_key_value_heads", None) or heads
    settings = {
        "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "head_dim": 16,
        "num_attention_heads": 4, "num_key_value_heads": max(1, 4 * shared // heads),
        "vocab_size": len(tokenizer), "max_position_embeddings": 1024,
        "tie_word_embeddings": config.tie_word_embeddings, "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    if kind == "gpt_neox":
        settings["rotary_pct"] = real.get("rotary_pct", 0.25)
        del settings["num_key_value_heads"], settings["head_dim"]  # it has no such settings
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **settings))
    beside = folder.with_name(f".{folder.name}.part")  # a kill leaves nothing half-written
    shutil.rmtree(beside, ignore_errors=True)
    with quiet():
        model.save_pretrained(beside)
        tokenizer.save_pretrained(beside)
    os.rename(beside, folder)
    return folder


def tiny_recipe(recipe: Recipe, folder: str | Path) -> Recipe:
    """Return a recipe with its tiny stand-in, written into `folder`, and little of everything.

    A run takes seconds on a CPU. Template, LoRA, optimizer, precision and GPUs stay as they are.
    """
    base, spec = tiny_base(recipe, folder), recipe.train
    return replace(
        recipe, name=f"{recipe.name}-tiny", base_model=str(base), architecture=None,
        description=f"{recipe.description} (a tiny random stand-in, which learns nothing)",
        data=replace(recipe.data, n=min(recipe.data.n, 40)),
        train=replace(spec, max_length=min(spec.max_length, 384), epochs=1.0, save_steps=4,
                      threads=1, batch_size=min(spec.batch_size, 2),
                      gradient_accumulation=min(spec.gradient_accumulation, 2)),
        evaluate=replace(recipe.evaluate, questions=4, max_new_tokens=8, batch_size=4))


def tiny_tokenizer(recipe: Recipe) -> Any:
    """Return the tokenizer of tiny-gemma-ko with special tokens like those of a recipe's model.

    What it cannot spell with its pieces it spells with bytes: no text is ever unknown.
    """
    from tokenizers import Tokenizer, processors
    from transformers import PreTrainedTokenizerFast

    kind, talks = model_config(recipe)["model_type"], recipe.train.template == "chat"
    name = next((name for name in LAYOUTS if kind.startswith(name)), "chatml")
    if talks and "turn" not in LAYOUTS[name]:
        name = "llama3" if kind == "llama" else "chatml"
    special, parts = LAYOUTS[name]["special"], LAYOUTS[name]["parts"]
    path = REPO / "assets/tiny-gemma-ko/tokenizer.json"  # 6 special tokens, 256 bytes, Korean
    state = json.loads(path.read_text(encoding="utf-8"))
    renamed = {}
    for token in state["added_tokens"]:
        renamed[token["content"]] = special.get(token["id"], f"<|unused{token['id']}|>")
        token["content"] = renamed[token["content"]]
    pieces = state["model"]["vocab"].items()
    state["model"] |= {"vocab": {renamed.get(piece, piece): number for piece, number in pieces},
                       "unk_token": parts.get("unk")}
    raw, bos = Tokenizer.from_str(json.dumps(state)), parts.get("bos")
    if bos not in (None, parts["eos"]):
        raw.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, raw.token_to_id(bos))])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, clean_up_tokenization_spaces=False, model_max_length=1024,
        extra_special_tokens=[token for token in special.values() if token not in parts.values()],
        **{f"{part}_token": token for part, token in parts.items()})
    if talks:
        tokenizer.chat_template = (
            GEMMA_CHAT if name == "gemma" else chat(*LAYOUTS[name]["turn"]))
    return tokenizer
