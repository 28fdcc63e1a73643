"""Fixtures that several tests share: a Gemma and a tokenizer made here in seconds, a browser."""

import json
import os
import shutil

import pytest

# One thread: the machines that run these tests have few cores, and the models are tiny.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}{{ '<start_of_turn>model\n' }}"
    "{% generation %}{{ message['content'] | trim + '<end_of_turn>\n' }}{% endgeneration %}"
    "{% else %}"
    "{{ '<start_of_turn>' + message['role'] + '\n' + message['content'] | trim }}"
    "{{ '<end_of_turn>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
SPECIAL = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]
CORPUS = [
    "다음 문장을 존댓말로 바꾸세요. 밥 먹었어? 식사하셨어요? 어디 가? 어디 가세요?",
    "전주는 전북특별자치도에 있는 도시이며 비빔밥이 유명합니다. 강릉은 강원특별자치도에 있습니다.",
    "보증금은 계약할 때 집주인에게 맡기는 돈입니다. 월세는 달마다 내는 돈입니다.",
    "사과 세 개와 배 네 개를 더하면 모두 일곱 개입니다. 하나 둘 셋 넷 다섯 여섯 일곱 여덟",
    'user model 질문: 답변: "안녕하세요" 안녕히 계세요. 반갑습니다! 0 1 2 3 4 5 6 7 8 9',
]


def make_tokenizer(vocabulary: int = 600):
    """Train a BPE with byte fallback, Gemma's special tokens and its chat template."""
    from tokenizers import Tokenizer, decoders, models, normalizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    raw.normalizer = normalizers.Replace(" ", "▁")
    raw.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    raw.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=vocabulary - 256, special_tokens=SPECIAL)
    )
    # The 256 byte tokens join the vocabulary as ordinary tokens: nothing is ever unknown.
    content = json.loads(raw.to_str())
    tokens = content["model"]["vocab"]
    for byte in range(256):
        tokens[f"<0x{byte:02X}>"] = len(tokens)
    raw = Tokenizer.from_str(json.dumps(content))
    # As in Gemma, the tokenizer itself puts a BOS before any text: text that has one gets two.
    raw.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A <bos> $B", special_tokens=[("<bos>", tokens["<bos>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        pad_token="<pad>",
        eos_token="<eos>",
        bos_token="<bos>",
        unk_token="<unk>",
        extra_special_tokens=["<start_of_turn>", "<end_of_turn>"],
        chat_template=CHAT_TEMPLATE,
    )


# Files that take longest, longest first: the workers of `make test` take one after the other, and
# so end together.
LONGEST = ["test_parallel", "test_train", "test_batch", "test_trial", "test_kill",
           "test_endpoints", "test_kill_training", "test_kill_judging", "test_site", "test_api",
           "test_demo", "test_run", "test_release", "test_jupyter"]  # fmt: skip


def pytest_collection_modifyitems(items):
    place = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(LONGEST)))


@pytest.fixture(scope="session")
def tokenizer():
    return make_tokenizer()


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory, tokenizer):
    """The folder of a Gemma with two layers of width 32 and random weights."""
    import torch
    from transformers import GemmaConfig, GemmaForCausalLM

    torch.set_num_threads(1)
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("base") / "tiny-gemma"
    config = GemmaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=512,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.bos_token_id,
    )
    model = GemmaForCausalLM(config)
    for name, weights in model.named_parameters():
        if "proj" in name:  # as they come, tied embeddings would make it repeat its last token
            torch.nn.init.normal_(weights, std=0.4)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def chromium() -> str | None:
    """The path of a Chromium: the one that CHROMIUM names, an installed one, or None."""
    names = (os.environ.get("CHROMIUM"), "chromium", "chromium-browser", "google-chrome", "chrome")
    return next(filter(None, map(shutil.which, filter(None, names))), None)


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium of the machine's own; tests that ask for it are skipped without one."""
    if not (found := chromium()):
        pytest.skip("no Chromium on this machine: install chromium, or name one in CHROMIUM")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(browser):
    """Open an address in a page of its own; `page.asked` it for these, `page.complaints` it had."""
    pages = []

    def visit(address, width=1280, height=900):
        page = browser.new_page(viewport={"width": width, "height": height}, locale="ko")
        page.set_default_timeout(60_000)
        page.asked, page.complaints = [], []
        page.on("request", lambda request: page.asked.append(request.url))
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.on("console", lambda message: message.type == "error"
                and page.complaints.append(message.text))  # fmt: skip
        page.goto(address)
        pages.append(page)
        return page

    yield visit
    for page in pages:
        page.close()
