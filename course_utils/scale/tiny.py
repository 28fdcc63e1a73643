"""Tiny random models that stand in for the real ones, so that every recipe can be run anywhere.

A stand-in has its recipe's architecture, two layers, special tokens and turns like the real ones,
and no knowledge at all: it shows that a training works, never how well. `python -m
course_utils.train RECIPE --tiny` uses it. Taught in 04, section 2.
"""

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from course_utils import REPO, CourseError
from course_utils.inference import quiet
from course_utils.prompts import TEMPLATES
from course_utils.recipe import Recipe
from course_utils.scale.memory import model_config
from course_utils.tasks import read_tasks

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SEED = 0
VOCABULARY = 2000
SEEDS = REPO / "data" / "seed_tasks.jsonl"

# Special tokens in the order of their ids, which of them has which part, and what a chat puts
# before a turn's role, between role and text, and after the text.
LAYOUTS: dict[str, dict[str, Any]] = {
    "gemma": {
        "special": ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"],
        "parts": {"pad": "<pad>", "eos": "<eos>", "bos": "<bos>", "unk": "<unk>"},
        "adds_bos": True,
        "turn": ("<start_of_turn>", "\n", "<end_of_turn>\n"),
    },
    # As in Polyglot-Ko: one token that begins and ends texts, with id 2, and none for padding.
    "gpt_neox": {
        "special": ["<|unused0|>", "<|unused1|>", "<|endoftext|>"],
        "parts": {"eos": "<|endoftext|>", "bos": "<|endoftext|>"},
        "adds_bos": False,
    },
    "llama": {
        "special": ["<unk>", "<s>", "</s>"],
        "parts": {"eos": "</s>", "bos": "<s>", "unk": "<unk>"},
        "adds_bos": True,
    },
    # As in Midm 2.0: Llama 3's turns, and texts are padded with what ends them.
    "llama3": {
        "special": ["<|begin_of_text|>", "<pad>", "<|end_of_text|>", "<|eot_id|>",
                    "<|start_header_id|>", "<|end_header_id|>"],
        "parts": {"pad": "<|end_of_text|>", "eos": "<|end_of_text|>", "bos": "<|begin_of_text|>"},
        "adds_bos": True,
        "turn": ("<|start_header_id|>", "<|end_header_id|>\n\n", "<|eot_id|>"),
    },
    # As in Qwen: no token begins a text.
    "chatml": {
        "special": ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        "parts": {"pad": "<|endoftext|>", "eos": "<|im_end|>"},
        "adds_bos": False,
        "turn": ("<|im_start|>", "\n", "<|im_end|>\n"),
    },
}  # fmt: skip


def _chat(start: str, middle: str, end: str, model: str = "assistant") -> str:
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


GEMMA_CHAT = _chat(*LAYOUTS["gemma"]["turn"], model="model")


def tiny_base(recipe: Recipe, folder: str | Path) -> Path:
    """Write a tiny random model of a recipe's architecture with a tokenizer, and return the folder.

    The same bytes every time, and a folder that is there already is used again, so that several
    processes may ask at once. Raises CourseError for a folder that holds something else.
    """
    import torch
    from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM

    folder, real = Path(folder), model_config(recipe)
    real = real.get("text_config", real)
    kind = real["model_type"]
    if _is_there(folder, kind):
        return folder
    tokenizer = train_tokenizer(recipe)
    config = CONFIG_MAPPING[kind].from_dict(real)  # with what a config.json leaves out
    heads = config.num_attention_heads
    shared = getattr(config, "num_key_value_heads", None) or heads
    settings = {
        "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "head_dim": 16,
        "num_attention_heads": 4, "num_key_value_heads": max(1, 4 * shared // heads),
        "vocab_size": len(tokenizer), "max_position_embeddings": 1024,
        "tie_word_embeddings": config.tie_word_embeddings, "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id,
    }  # fmt: skip
    if kind == "gpt_neox":
        settings["rotary_pct"] = real.get("rotary_pct", 0.25)
        del settings["num_key_value_heads"], settings["head_dim"]  # it has no such settings
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **settings))
    # Written beside and renamed: no other process ever sees a part of it.
    beside = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        with quiet():
            model.save_pretrained(beside)
            tokenizer.save_pretrained(beside)
        os.rename(beside, folder)
    except OSError:
        if not _is_there(folder, kind):  # another process was first, or nobody was
            raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return folder


def tiny_recipe(recipe: Recipe, folder: str | Path) -> Recipe:
    """Return a recipe with its tiny stand-in, written into `folder`, and little of everything.

    A run then takes seconds on a CPU. Template, LoRA, optimizer, schedule, precision and the number
    of GPUs stay as they are.
    """
    base = tiny_base(recipe, folder)
    train = replace(
        recipe.train,
        max_length=min(recipe.train.max_length, 256),
        epochs=1.0,
        batch_size=min(recipe.train.batch_size, 2),
        gradient_accumulation=min(recipe.train.gradient_accumulation, 2),
        save_steps=4,
        threads=1,
    )
    return replace(
        recipe,
        name=f"{recipe.name}-tiny",
        description=f"{recipe.description} (a tiny random stand-in, which learns nothing)",
        base_model=str(base),
        architecture=None,  # the folder has its own
        data=replace(recipe.data, n=min(recipe.data.n, 40)),
        train=train,
        evaluate=replace(recipe.evaluate, questions=4, max_new_tokens=8, batch_size=4),
    )


def train_tokenizer(recipe: Recipe) -> "PreTrainedTokenizerFast":
    """Train a BPE with byte fallback on the seed tasks, with special tokens like a recipe's model.

    What it cannot spell with its pieces it spells with bytes, so no text is ever unknown.
    """
    from tokenizers import (
        Regex,
        Tokenizer,
        decoders,
        models,
        normalizers,
        pre_tokenizers,
        processors,
        trainers,
    )
    from transformers import PreTrainedTokenizerFast

    layout = _layout(recipe)
    spec = LAYOUTS[layout]
    parts = {f"{name}_token": token for name, token in spec["parts"].items()}
    raw = Tokenizer(models.BPE(byte_fallback=True, unk_token=parts.get("unk_token")))
    raw.normalizer = normalizers.Replace(" ", "▁")
    pieces = Regex(r"\p{N}|▁?\p{L}+|▁?[^\p{L}\p{N}▁]|▁")
    raw.pre_tokenizer = pre_tokenizers.Split(pieces, "isolated")
    raw.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    spelled = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=spec["special"] + spelled, show_progress=False
    )
    raw.train_from_iterator(_texts(), trainer)
    # The bytes stay in the vocabulary, but a text that spells out "<0x41>" does not mean one.
    state = json.loads(raw.to_str())
    state["added_tokens"] = [t for t in state["added_tokens"] if t["content"] in spec["special"]]
    raw = Tokenizer.from_str(json.dumps(state))
    if spec["adds_bos"]:
        bos = parts["bos_token"]
        raw.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, raw.token_to_id(bos))]
        )
    turns = "".join(spec.get("turn", ()))
    turns = [token for token in spec["special"] if token in turns and token not in parts.values()]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, clean_up_tokenization_spaces=False, model_max_length=1024,
        additional_special_tokens=turns, **parts,
    )  # fmt: skip
    if recipe.train.template == "chat":
        tokenizer.chat_template = GEMMA_CHAT if layout == "gemma" else _chat(*spec["turn"])
    return tokenizer


def _layout(recipe: Recipe) -> str:
    """Return which special tokens a recipe's model has; ChatML's where nothing else is known."""
    kind, chat = model_config(recipe)["model_type"], recipe.train.template == "chat"
    if kind == "llama" and chat:
        return "llama3"
    known = next((name for name in LAYOUTS if kind.startswith(name)), "chatml")
    return "chatml" if chat and "turn" not in LAYOUTS[known] else known


def _texts() -> Iterator[str]:
    """Yield what the tokenizer is trained on: the seed tasks, and the templates to be short."""
    for task in read_tasks(SEEDS):
        yield from (task.instruction, task.input, task.output)
    for template in TEMPLATES.values():
        yield from [template.with_input, template.without_input] * 50
    yield from ["user\nmodel\n"] * 50


def _is_there(folder: Path, kind: str) -> bool:
    """Return whether a folder holds this stand-in; raise CourseError if it holds something else."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if (config["model_type"], config["hidden_size"]) == (kind, 64):
            return True
    except (OSError, ValueError, KeyError):
        pass
    raise CourseError(
        f"{folder} holds something else than a tiny {kind} model; give a folder of its own."
    )
