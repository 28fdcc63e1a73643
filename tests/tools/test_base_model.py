"""The shipped tiny Gemma is what its card says, and knows no chat turn yet."""

import hashlib
import json

import pytest

from course_utils import REPO
from course_utils.inference import load_base, load_tokenizer
from tools.base_model.pretrain import SPECIAL, card, fingerprint

FOLDER = REPO / "assets/tiny-gemma-ko"


@pytest.fixture(scope="module")
def record():
    return json.loads((FOLDER / "pretraining.json").read_text(encoding="utf-8"))


def test_card_and_weights_belong_together(record):
    weights = (FOLDER / "model.safetensors").read_bytes()
    assert hashlib.sha256(weights).hexdigest() == record["weights"]
    assert len(weights) <= 8_000_000
    assert (FOLDER / "README.md").read_text(encoding="utf-8") == card(record)


def test_world_still_writes_the_documents_it_read(record):
    assert fingerprint(record["seed"]) == record["documents"], (
        "the documents changed: the base model must be made again (make base-model)"
    )


def test_turn_tokens_have_rows_of_their_own():
    model, tokenizer = load_base(FOLDER)
    table = model.get_input_embeddings().weight.detach().float()
    start, end = (table[tokenizer.convert_tokens_to_ids(t)] for t in SPECIAL[-2:])
    cosine = float(start @ end / start.norm() / end.norm())
    assert abs(cosine) < 0.5, "collapsed onto each other under tied embeddings"
    assert 0.5 < float(start.norm() / table[300:].norm(dim=1).mean()) < 2


def test_tokenizer_follows_gemma():
    tokenizer = load_tokenizer(FOLDER)
    assert len(tokenizer) == 2048
    pieces = tokenizer.tokenize("<start_of_turn>user\n방 25개<end_of_turn>\n<start_of_turn>model\n")
    assert pieces[:3] == ["<start_of_turn>", "user", "\n"] and pieces[-2:] == ["model", "\n"]
    assert "2" in pieces and "5" in pieces
    for text in ("나는 <0x41> 사과를 샀다.", "뷁 🙂 ñ", "a  b\n\n c", "2025년 11월"):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(ids) == text
        assert tokenizer.unk_token_id not in ids


def test_chat_template_marks_the_response():
    tokenizer = load_tokenizer(FOLDER)
    turns = [{"role": "user", "content": "안녕?"}, {"role": "assistant", "content": "안녕하세요."}]
    text = tokenizer.apply_chat_template(turns, tokenize=False)
    assert text == (
        "<bos><start_of_turn>user\n안녕?<end_of_turn>\n"
        "<start_of_turn>model\n안녕하세요.<end_of_turn>\n"
    )
    encoded = tokenizer.apply_chat_template(
        turns, return_dict=True, return_assistant_tokens_mask=True
    )
    marks = zip(encoded["input_ids"], encoded["assistant_masks"], strict=True)
    trained = [token for token, mark in marks if mark]
    assert tokenizer.decode(trained) == "안녕하세요.<end_of_turn>\n"
