"""Loading, replying, merging, publishing; and one sentence for each thing missing."""

import json
import shutil
from copy import deepcopy
from types import SimpleNamespace

import pytest
from machines import CPU, L4, T4

from course_utils import inference
from course_utils.inference import load_base, load_model, merge_adapter, push, reply
from course_utils.plumbing.hub import model_card
from course_utils.plumbing.model_folder import ModelFolderError, base_hash, find_base

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


def test_an_adapter_changes_replies_and_merging_keeps_them(loaded, tiny_base, adapter, tmp_path):
    tuned = load_model(tiny_base, adapter, dtype="float32", device="cpu")
    expected = reply(*tuned, PROMPTS, max_new_tokens=12)
    assert expected != reply(*loaded, PROMPTS, max_new_tokens=12)
    merged = merge_adapter(tiny_base, adapter, tmp_path / "merged")
    again = load_model(merged, dtype="float32", device="cpu")
    assert reply(*again, PROMPTS, max_new_tokens=12) == expected


def damaged(folder, copy, file, content):
    """Copy a folder with one file missing (None), cut ("half"), with other JSON in it, or other."""
    path = shutil.copytree(folder, copy) / file
    if isinstance(content, dict):
        content = json.dumps(json.loads(path.read_text()) | content).encode()
    elif content == "half":
        content = path.read_bytes()[: path.stat().st_size // 2]
    path.write_bytes(content or b"")
    if content is None:
        path.unlink()
    return copy


DEEP, SHARDS = b"[" * 100_000, "model.safetensors.index.json"


@pytest.mark.parametrize(("file", "content", "message"), [
    ("config.json", None, "base has no config.json; download or make"),
    ("model.safetensors", None, "base has no model.safetensors; download or make"),
    ("tokenizer.json", None, "base has no tokenizer.json; download or make"),
    ("model.safetensors", "half", "cannot be loaded .*; download the folder again, or"),
    ("config.json", b"null", "cannot be loaded .*; download"),
    ("config.json", DEEP, "cannot be loaded .*recursion"),
    ("config.json", {"model_type": "brain"}, "cannot be loaded .*`brain`.*; download the folder"),
    ("config.json", {"model_type": "vit"}, "cannot be loaded .*; download the folder again, or"),
    ("config.json", {"num_hidden_layers": 3}, "lacks 9 of its tensors, model.layers.2.input_layer"),
    ("tokenizer_config.json", DEEP, "cannot be loaded .*recursion"),
    (SHARDS, b'{"weight_map": {"a": "model-2.safetensors"}}', "base has no model-2.safetensors;"),
    (SHARDS, b'{"weight_map": {"a": 3}}', "base has no 3;"),
    (SHARDS, b'{"weight_map": []}', "is damaged or does not say its weight_map; download"),
    (SHARDS, DEEP, "is damaged or does not say its weight_map; download"),
])  # fmt: skip
def test_a_base_that_is_not_whole_is_one_sentence(tiny_base, tmp_path, file, content, message):
    with pytest.raises(ModelFolderError, match=message) as caught:
        load_model(damaged(tiny_base, tmp_path / "base", file, content))
    assert "\n" not in str(caught.value)


CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


@pytest.mark.parametrize(("file", "content", "message"), [
    (WEIGHTS, None, "copy has no adapter_model.safetensors"),
    (WEIGHTS, "half", "copy does not fit .*tiny-gemma.*; train it again"),
    (CONFIG, None, "copy has no adapter_config.json"),
    (CONFIG, b"{", "adapter_config.json is damaged"), (CONFIG, DEEP, "adapter_config.json is dama"),
    (CONFIG, {"peft_type": None}, "damaged or does not say its peft_type"),
    *[(CONFIG, {"peft_type": kind}, f"of the kind '{kind}', and this course loads LoRA alone: take")
      for kind in ("UNHEARD_OF", "IA3", "PREFIX_TUNING")],
    (CONFIG, {"base_model_name_or_path": 3}, "does not say its base_model_name_or_path"),
    (CONFIG, {"base_model_name_or_path": "x" * 5000}, "was trained on 'xxx.*not on '.*tiny-gemma'"),
    (CONFIG, {"r": 3}, "copy does not fit"), (CONFIG, {"r": "two"}, "copy does not fit"),
    (CONFIG, {"target_modules": ["up_proj"]}, "copy does not fit .*belong to other layers"),
])  # fmt: skip
def test_an_adapter_that_does_not_fit_is_one_sentence(
        tiny_base, adapter, tmp_path, file, content, message):
    copy = damaged(adapter, tmp_path / "copy", file, content)
    with pytest.raises(ModelFolderError, match=message) as caught:
        load_model(tiny_base, copy, dtype="float32", device="cpu")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("base", [
    "assets/no-such-model", "./gemma", "/no/gemma", "~/no-gemma", "~nobody/gemma", "a/b/c", "gemma",
    "x" * 5000])  # fmt: skip
def test_a_folder_that_is_not_there_is_never_looked_up_on_the_hub(base, monkeypatch):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *_, **__: pytest.fail("Hub"))
    with pytest.raises(ModelFolderError, match=f"There is no model folder '{base}'"):
        load_model(base)


def test_where_a_base_is(tiny_base, tmp_path, monkeypatch):
    assert find_base("google/gemma-2b-it") == "google/gemma-2b-it"
    assert find_base(tiny_base) == str(tiny_base.resolve())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("course_utils.plumbing.model_folder.REPO", tiny_base.parent)
    (tmp_path / "mine").mkdir()
    assert find_base("mine") == str(tmp_path.resolve() / "mine")
    (tmp_path / "tiny-gemma").mkdir()
    assert find_base("tiny-gemma") == str(tiny_base.resolve())  # the checkout's comes first
    assert find_base("./tiny-gemma") == str(tmp_path.resolve() / "tiny-gemma")
    # What `make open-models` made stands for its Hub id, and for no other.
    monkeypatch.setattr("course_utils.plumbing.model_folder.REPO", tmp_path)
    (tmp_path / "models" / "gemma-3-270m").mkdir(parents=True)
    assert find_base("google/gemma-3-270m") == str(tmp_path / "models" / "gemma-3-270m")
    assert find_base("google/gemma-3-1b-pt") == "google/gemma-3-1b-pt"


def test_a_named_template_is_loaded_with_a_date_that_stays(tiny_base, tokenizer, tmp_path):
    base, dated = shutil.copytree(tiny_base, tmp_path / "base"), deepcopy(tokenizer)
    dated.chat_template = {"default": "{{ strftime_now('%Y') }}", "tools": "no clock"}
    dated.save_pretrained(base)
    loaded = inference.load_tokenizer(base)
    turn = [{"role": "user", "content": "안녕"}]
    assert loaded.apply_chat_template(turn, tokenize=False).strip() == "2026"
    assert loaded.chat_template["tools"] == "no clock"


@pytest.mark.parametrize("load", [inference.load_config, load_base, load_model])
@pytest.mark.parametrize("own", ["theirs.Config", "someone/else--theirs.Config"])
def test_code_that_a_model_brings_along_is_never_run(tiny_base, tmp_path, monkeypatch, load, own):
    folder = damaged(tiny_base, tmp_path / "base", "config.json", {
        "model_type": "theirs", "auto_map": {"AutoConfig": own, "AutoModelForCausalLM": own}})
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked at the keyboard"))
    (folder / "theirs.py").write_text("raise SystemExit('it was run')")
    with pytest.raises(ModelFolderError, match="code of its own, which this course never runs"):
        load(folder)


def test_code_beside_a_model_that_needs_none_is_never_run(tiny_base, adapter, tmp_path):
    own = {name: "theirs.Own" for name in ("AutoConfig", "AutoModelForCausalLM")}
    base = damaged(tiny_base, tmp_path / "tiny-gemma", "config.json", {"auto_map": own})
    damaged(tiny_base, tmp_path / "t", "tokenizer_config.json",
            {"auto_map": {"AutoTokenizer": ["theirs.Own"] * 2}, "tokenizer_class": "Own"})
    shutil.copy(tmp_path / "t/tokenizer_config.json", base)
    (base / "custom_generate").mkdir()
    for name in ("theirs.py", "custom_generate/generate.py"):
        (base / name).write_text("raise SystemExit('it was run')")
    their = {"base_model_class": "Own", "parent_library": "theirs"}
    copy = damaged(adapter, tmp_path / "copy", CONFIG,
                   {"auto_mapping": their, "base_model_name_or_path": str(base)})
    assert len(reply(*load_model(base, copy, device="cpu"), ["안녕"], max_new_tokens=2)) == 1


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


RESULT = {
    "recipe": {"name": "offline", "base_model": "google/gemma-2b-it"},
    "identity": {"data": "0123abcd"},
    "versions": {"torch": "2.13.0", "odd": "\ud800"},
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

    load_with(base_hash(tiny_base))
    with pytest.raises(ModelFolderError, match="other weights"):
        load_with("other")
    bare = damaged(tiny_base, tmp_path / "tiny-gemma", "tokenizer.json", None)
    with pytest.raises(ModelFolderError, match="tiny-gemma has no tokenizer.json"):
        base_hash(bare)


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
    assert card == model_card(folder).replace("\ud800", r"\ud800")
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
    identity = {"data": "0123abcd", "base": base_hash(tiny_base)}
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
    assert base_hash(tmp_path / "model") != base_hash(tiny_base)
    push(tmp_path / "model", "me/whole")
    assert {shard.name for shard in shards} < set(hub[0][1])
    shards[0].unlink()
    with pytest.raises(ModelFolderError, match=f"has no {shards[0].name}"):
        push(tmp_path / "model", "me/whole")
    assert len(hub) == 1


def test_an_empty_prompt_is_answered(loaded):
    assert len(reply(*loaded, ["", PROMPTS[0]], max_new_tokens=4)) == 2


# --- attention ----------------------------------------------------------------------------------


def attention(monkeypatch, device, installed=()):
    monkeypatch.setattr(inference, "find_device", lambda: device)
    has = lambda name: name if name in installed else None  # noqa: E731
    found = SimpleNamespace(util=SimpleNamespace(find_spec=has))
    monkeypatch.setattr(inference, "importlib", found)
    return inference.pick_attention()


def test_attention_is_sdpa_wherever_flash_attention_would_not_work(monkeypatch, capsys):
    assert attention(monkeypatch, CPU, ["flash_attn"]) == "sdpa"
    assert attention(monkeypatch, T4, ["flash_attn"]) == "sdpa"
    assert attention(monkeypatch, L4) == "sdpa"
    assert capsys.readouterr().out.count("\n") == 1
    assert attention(monkeypatch, L4, ["flash_attn"]) == "flash_attention_2"
