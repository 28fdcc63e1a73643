"""Loading, replying, merging, publishing; and one sentence for each thing missing."""

import json
import shutil
from types import SimpleNamespace

import pytest
from machines import CPU, L4, T4

from course_utils import inference
from course_utils.inference import (
    ModelFolderError,
    find_base,
    generate,
    load_base,
    load_model,
    merge_adapter,
    push,
    reply,
)
from course_utils.plumbing.hub import model_card

QUESTIONS = ["안녕", "전주는 어디에 있습니까?", "사과 세 개와 배 네 개를 더하면?", "월세의 뜻은?"]
PROMPTS = [f"<bos><start_of_turn>user\n{q}<end_of_turn>\n<start_of_turn>model\n" for q in QUESTIONS]


@pytest.fixture(scope="module")
def loaded(tiny_base):
    return load_model(tiny_base, dtype="float32", device="cpu")


def make_adapter(base, folder, scale=0.3):
    """Save a LoRA adapter with random weights, as `train` would have."""
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(1)
    model, _ = load_model(base, dtype="float32", device="cpu")
    model = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj", "down_proj"]))
    for name, weights in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weights, std=scale)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def adapter(tiny_base, tmp_path_factory):
    return make_adapter(tiny_base, tmp_path_factory.mktemp("train") / "adapter")


def by_hand(model, tokenizer, prompt, max_new_tokens):
    """Greedy decoding without a cache, a batch or padding: the slow truth."""
    import torch

    ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    start = len(ids)
    stops = {tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<end_of_turn>")}
    while len(ids) - start < max_new_tokens:
        with torch.no_grad():
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        if ids[-1] in stops:
            ids.pop()
            break
    return tokenizer.decode(ids[start:], skip_special_tokens=True).strip()


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_replies_equal_greedy_decoding_by_hand_in_order(loaded, batch_size):
    expected = [by_hand(*loaded, prompt, 12) for prompt in PROMPTS]
    assert len(set(expected)) == len(PROMPTS)
    assert reply(*loaded, PROMPTS, max_new_tokens=12, batch_size=batch_size) == expected
    assert reply(*loaded, [], max_new_tokens=12) == []


def test_bos_is_there_once_whether_the_prompt_has_it_or_not(loaded):
    bare = [prompt.removeprefix("<bos>") for prompt in PROMPTS]
    options = {"max_new_tokens": 8}
    assert reply(*loaded, bare, **options) == reply(*loaded, PROMPTS, **options)


@pytest.mark.parametrize("stop", ["<end_of_turn>", "<eos>"])
def test_a_reply_ends_at_the_turn_or_the_text(loaded, stop):
    """A model that says one word and then a stop token for ever."""
    model, tokenizer = loaded
    word = tokenizer("전주", add_special_tokens=False)["input_ids"]
    end = tokenizer.convert_tokens_to_ids(stop)
    script, real = word + [end] * 99, model.forward

    def forward(input_ids, *args, **kwargs):
        output = real(input_ids, *args, **kwargs)
        position = 0 if input_ids.shape[1] > 1 else forward.said  # one token a call with a cache
        output.logits[:, -1] = -1e9
        output.logits[:, -1, script[position]] = 0
        forward.said = position + 1
        return output

    model.forward = forward
    try:
        (answer,) = generate(model, tokenizer, PROMPTS[:1], max_new_tokens=16)
        assert (answer.text, answer.tokens, answer.stopped) == ("전주", len(word), True)
        (cut,) = generate(model, tokenizer, PROMPTS[:1], max_new_tokens=len(word))
        assert (cut.text, cut.stopped) == ("전주", False)
    finally:
        model.forward = real


def test_an_adapter_changes_replies_and_merging_keeps_them(loaded, tiny_base, adapter, tmp_path):
    tuned = load_model(tiny_base, adapter, dtype="float32", device="cpu")
    expected = reply(*tuned, PROMPTS, max_new_tokens=12)
    assert expected != reply(*loaded, PROMPTS, max_new_tokens=12)
    merged = merge_adapter(tiny_base, adapter, tmp_path / "merged")
    again = load_model(merged, dtype="float32", device="cpu")
    assert reply(*again, PROMPTS, max_new_tokens=12) == expected


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_missing_file_is_named(tiny_base, tmp_path, name):
    folder = shutil.copytree(tiny_base, tmp_path / "base")
    (folder / name).unlink()
    with pytest.raises(ModelFolderError, match=f"{folder} has no {name}; download or make"):
        load_model(folder)


def test_a_missing_shard_is_named(tiny_base, tmp_path):
    folder = shutil.copytree(tiny_base, tmp_path / "base")
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-2.safetensors"}}
    (folder / "model.safetensors").rename(folder / "model-2.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelFolderError, match="has no model-00001-of-00002.safetensors;"):
        load_model(folder)


def test_damaged_weights_are_one_sentence(tiny_base, tmp_path):
    folder = shutil.copytree(tiny_base, tmp_path / "base")
    (folder / "model.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(ModelFolderError, match="cannot be loaded .*repair or download") as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "base", ["assets/no-such-model", "./gemma", "/no/gemma", "~/no-gemma", "a/b/c", "gemma"]
)
def test_a_folder_that_is_not_there_is_never_looked_up_on_the_hub(base, monkeypatch):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *_, **__: pytest.fail("Hub"))
    with pytest.raises(ModelFolderError, match=f"There is no model folder '{base}'"):
        load_model(base)


def test_where_a_base_is(tiny_base, tmp_path, monkeypatch):
    assert find_base("google/gemma-2b-it") == "google/gemma-2b-it"
    assert find_base(tiny_base) == str(tiny_base.resolve())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(inference, "REPO", tiny_base.parent)
    (tmp_path / "mine").mkdir()
    assert find_base("mine") == str(tmp_path.resolve() / "mine")
    (tmp_path / "tiny-gemma").mkdir()
    assert find_base("tiny-gemma") == str(tiny_base.resolve())  # the checkout's comes first
    assert find_base("./tiny-gemma") == str(tmp_path.resolve() / "tiny-gemma")


def test_code_that_a_model_brings_along_is_never_run(tiny_base, tmp_path, monkeypatch):
    folder = shutil.copytree(tiny_base, tmp_path / "base")
    config = json.loads((folder / "config.json").read_text())
    own = {"model_type": "theirs", "auto_map": {"AutoConfig": "theirs.Config"}}
    (folder / "config.json").write_text(json.dumps(config | own))
    (folder / "theirs.py").write_text("raise SystemExit('it was run')")
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked at the keyboard"))
    with pytest.raises(ModelFolderError, match="code of its own, which this course never runs"):
        inference.load_config(folder)


def test_pickled_weights_are_never_loaded(tiny_base, adapter, tmp_path):
    for folder, name in ((tiny_base, "model"), (adapter, "adapter_model")):
        copy = shutil.copytree(folder, tmp_path / name)
        (copy / f"{name}.safetensors").rename(copy / f"{name.replace('model', 'pytorch')}.bin")
        loaded = (copy,) if name == "model" else (tiny_base, copy)
        with pytest.raises(ModelFolderError, match=f"has no {name}.safetensors"):
            load_model(*loaded)


def test_the_hub_without_a_network_is_one_sentence():
    with pytest.raises(ModelFolderError, match="Hub cannot be reached.*unset HF_HUB_OFF") as caught:
        load_model("google/gemma-2b-it")
    assert "\n" not in str(caught.value)


def test_a_llama_whose_heads_have_a_width_of_their_own(tmp_path, tokenizer, monkeypatch):
    """Kanana's case; where transformers no longer refuses it, `own_head_dim` can go."""
    from transformers import LlamaConfig, LlamaForCausalLM

    checks = [LlamaConfig.validate_architecture]
    monkeypatch.setattr(LlamaConfig, "__class_validators__", checks)
    sizes = {"hidden_size": 28, "intermediate_size": 32, "num_hidden_layers": 1, "head_dim": 16,
             "num_attention_heads": 3, "num_key_value_heads": 1, "vocab_size": 600}  # fmt: skip
    with pytest.raises(Exception, match=r"hidden size \(28\) is not a multiple of .* heads \(3\)"):
        LlamaConfig(**sizes)
    checks.clear()
    LlamaForCausalLM(LlamaConfig(**sizes)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    checks.append(LlamaConfig.validate_architecture)
    model, _ = load_base(tmp_path)
    assert model.model.layers[0].self_attn.q_proj.weight.shape == (48, 28)


def test_adapters_that_do_not_fit(tiny_base, adapter, tmp_path):
    other = shutil.copytree(tiny_base, tmp_path / "other")
    with pytest.raises(ModelFolderError, match="was trained on '.*tiny-gemma', not on '.*other'"):
        load_model(other, adapter)
    # The same name but another shape: the base was made anew.
    config = json.loads((adapter / "adapter_config.json").read_text())
    changed = shutil.copytree(adapter, tmp_path / "changed")
    (changed / "adapter_config.json").write_text(json.dumps({**config, "r": 3}))
    with pytest.raises(ModelFolderError, match="does not fit.*train it again"):
        load_model(tiny_base, changed)
    (changed / "adapter_model.safetensors").unlink()
    with pytest.raises(ModelFolderError, match="has no adapter_model.safetensors"):
        load_model(tiny_base, changed)


RESULT = {
    "recipe": {"name": "offline", "base_model": "google/gemma-2b-it"},
    "identity": {"data": "0123abcd"},
    "versions": {"torch": "2.13.0"},
    "rows": 10,
    "steps": 20,
    "first_loss": 2.5,
    "last_loss": 0.5,
}


def test_an_adapter_of_other_weights_is_refused(tiny_base, adapter, tmp_path):
    shutil.copytree(adapter, tmp_path / "adapter")
    def load_with(base):
        identity = RESULT["identity"] | {"base": base}
        (tmp_path / "result.json").write_text(json.dumps(RESULT | {"identity": identity}))
        load_model(tiny_base, tmp_path / "adapter", dtype="float32", device="cpu")

    load_with(inference.base_hash(tiny_base))
    with pytest.raises(ModelFolderError, match="other weights"):
        load_with("other")


@pytest.fixture
def hub(monkeypatch):
    """Every upload, as (repository, {path: content or file}, options)."""
    uploads = []

    def upload(repo_id, files, **options):
        uploads.append((repo_id, files, options))
        return f"https://huggingface.co/{repo_id}"

    monkeypatch.setattr(inference, "upload", upload)  # test_share asks a Hub for real
    return uploads


def test_push_uploads_the_adapter_with_a_card(adapter, tmp_path, hub):
    folder = shutil.copytree(adapter, tmp_path / "train/adapter")
    (folder.parent / "result.json").write_text(json.dumps(RESULT))
    assert push(folder, "me/tuned") == "https://huggingface.co/me/tuned"
    [(repo, files, options)] = hub
    assert (repo, options) == ("me/tuned", {"private": True})
    assert files["adapter_model.safetensors"] == folder / "adapter_model.safetensors"
    card = files["README.md"].decode()
    assert card == model_card(folder)
    for fact in ("base_model: google/gemma-2b-it", "`0123abcd`", "| torch | 2.13.0 |", "| 0.5 |"):
        assert fact in card
    assert "library_name: peft" in card
    assert "Simulated" not in card and "first_eval_loss" not in card
    with pytest.raises(ModelFolderError, match="has no adapter_config.json, adapter_model"):
        push(tmp_path, "me/tuned")


def test_a_merged_model_keeps_its_record_and_says_that_it_is_simulated(
    tiny_base, adapter, tmp_path, hub
):
    folder = shutil.copytree(adapter, tmp_path / "train/adapter")
    recipe = RESULT["recipe"] | {"teacher": {"model": "t", "base_url": "offline"}}
    identity = {"data": "0123abcd", "base": inference.base_hash(tiny_base)}
    result = RESULT | {"recipe": recipe, "identity": identity, "last_eval_loss": 0.75}
    (folder.parent / "result.json").write_text(json.dumps(result))
    merged = merge_adapter(tiny_base, folder, tmp_path / "merged")
    push(merged, "me/merged")
    card = hub[-1][1]["README.md"].decode()
    assert "library_name: transformers" in card and "`0123abcd`" in card
    assert "**Simulated.**" in card and "| last_eval_loss | 0.75 |" in card


def test_a_model_in_several_files_is_pushed_whole_or_not_at_all(loaded, tiny_base, tmp_path, hub):
    model, tokenizer = loaded
    model.save_pretrained(tmp_path / "model", max_shard_size="50KB")
    tokenizer.save_pretrained(tmp_path / "model")
    shards = sorted((tmp_path / "model").glob("model-*.safetensors"))
    assert len(shards) > 1
    again = load_model(tmp_path / "model", dtype="float32", device="cpu")
    assert reply(*again, PROMPTS, max_new_tokens=8) == reply(*loaded, PROMPTS, max_new_tokens=8)
    assert inference.base_hash(tmp_path / "model") != inference.base_hash(tiny_base)
    push(tmp_path / "model", "me/whole")
    assert {shard.name for shard in shards} < set(hub[0][1])
    shards[0].unlink()
    with pytest.raises(ModelFolderError, match=f"has no {shards[0].name}"):
        push(tmp_path / "model", "me/whole")
    assert len(hub) == 1


def test_an_adapter_of_other_layers_or_a_damaged_one_is_refused(tiny_base, adapter, tmp_path):
    from safetensors.torch import load_file, save_file

    tensors = load_file(adapter / "adapter_model.safetensors")
    other = shutil.copytree(adapter, tmp_path / "other")
    renamed = {name.replace("layers.", "layers.9"): value for name, value in tensors.items()}
    save_file(renamed, other / "adapter_model.safetensors")
    with pytest.raises(ModelFolderError, match="belong to other layers"):
        load_model(tiny_base, other, dtype="float32", device="cpu")
    data = (adapter / "adapter_model.safetensors").read_bytes()
    (other / "adapter_model.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(ModelFolderError, match="does not fit"):
        load_model(tiny_base, other, dtype="float32", device="cpu")
    config = json.loads((other / "adapter_config.json").read_text())
    (other / "adapter_config.json").write_text(json.dumps(config | {"peft_type": "UNHEARD_OF"}))
    with pytest.raises(ModelFolderError, match="does not fit.*UNHEARD_OF"):
        load_model(tiny_base, other, dtype="float32", device="cpu")
    (other / "adapter_config.json").write_text("{")
    with pytest.raises(ModelFolderError, match="adapter_config.json is damaged"):
        load_model(tiny_base, other, dtype="float32", device="cpu")


def test_an_empty_prompt_is_answered(loaded):
    assert len(reply(*loaded, ["", PROMPTS[0]], max_new_tokens=4)) == 2


# --- attention ----------------------------------------------------------------------------------


def attention(monkeypatch, device, installed=(), trial=None):
    monkeypatch.setattr(inference, "find_device", lambda: device)
    has = lambda name: name if name in installed else None  # noqa: E731
    found = SimpleNamespace(util=SimpleNamespace(find_spec=has))
    monkeypatch.setattr(inference, "importlib", found)
    monkeypatch.setattr("course_utils.plumbing.trial.training_step", trial)
    return inference.pick_attention()


def test_attention_is_sdpa_wherever_flash_attention_would_not_work(monkeypatch, capsys):
    everything = ("flash_attn", "kernels")
    assert attention(monkeypatch, CPU, everything) == "sdpa"
    assert attention(monkeypatch, T4, everything) == "sdpa"
    assert attention(monkeypatch, L4) == "sdpa"
    assert capsys.readouterr().out.count("\n") == 1

    def broken(name, device):
        raise ImportError("no build for this torch")

    assert attention(monkeypatch, L4, ["kernels"], broken) == "sdpa"
    assert "ImportError" in capsys.readouterr().out


def test_attention_takes_what_works(monkeypatch):
    assert attention(monkeypatch, L4, ["flash_attn"]) == "flash_attention_2"
    tried = []
    trial = lambda name, device: tried.append((name, device))  # noqa: E731
    assert (attention(monkeypatch, L4, ["kernels"], trial), "cuda") == tried[0]
