"""Make the tiny Gemma: `make base-model`, once, about an hour of two CPU cores.

A GemmaForCausalLM of 3.5 million parameters learns to continue the documents of the micro-world,
and nothing else: it has seen no instruction and no chat turn. It is the offline stand-in for
`google/gemma-2b-it`, so that everybody can watch instruction tuning do its work; it is a
simulation and knows nothing outside its world.

The rows of <start_of_turn> and <end_of_turn> get no useful gradient here, because no document holds
them. Under tied embeddings all such rows are pushed the same way until they are one vector, and a
tuned model could not tell the end of a turn from its start. They are drawn anew at the end.
"""

import hashlib
import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import GemmaConfig, GemmaForCausalLM, PreTrainedTokenizerFast

from course_utils import REPO
from course_utils.scale.tiny import GEMMA_CHAT
from tools.base_model.documents import documents


@dataclass(frozen=True)
class Phase:
    """A part of pretraining: tokens to read, peak learning rate, and whether exercises are read."""

    tokens: int
    peak: float
    exercises: bool


PHASES = (Phase(30_000_000, 3e-3, exercises=False), Phase(18_000_000, 2e-3, exercises=True))
"""First what there is to know, then what can be done with it; the second begins like the first."""

SPECIAL = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]
VOCABULARY = 2048
CONTEXT = 256
BATCH = 32  # rows of so many tokens a step
SEED = 0
OUT = REPO / "assets" / "tiny-gemma-ko"


def train_tokenizer(seed: int, n_documents: int = 40_000) -> PreTrainedTokenizerFast:
    """A byte-fallback BPE of 2,048 tokens in Gemma's conventions: ▁ for spaces, single digits."""
    bpe = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    bpe.normalizer = normalizers.Replace(" ", "▁")
    pieces = Regex(r"\p{N}|▁?\p{L}+|▁?[^\p{L}\p{N}▁]|▁")
    bpe.pre_tokenizer = pre_tokenizers.Split(pieces, "isolated")
    words = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    bpe.decoder = decoders.Sequence(words)
    special = SPECIAL + [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=special,
                                  show_progress=False)  # fmt: skip
    roles = ["user\nmodel\n"] * 2000  # so that both role names become whole tokens
    bpe.train_from_iterator([*islice(documents(seed), n_documents), *roles], trainer)

    # The bytes belong to the vocabulary but must not be recognised when spelled out in a text.
    state = json.loads(bpe.to_str())
    state["added_tokens"] = [t for t in state["added_tokens"] if t["content"] in SPECIAL]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(state)),
        bos_token="<bos>", eos_token="<eos>", pad_token="<pad>", unk_token="<unk>",
        additional_special_tokens=["<start_of_turn>", "<end_of_turn>"],
        clean_up_tokenization_spaces=False, padding_side="left", model_max_length=CONTEXT * 4,
    )
    tokenizer.chat_template = GEMMA_CHAT
    return tokenizer


def token_stream(tokenizer, n: int, source: Iterator[str]) -> torch.Tensor:
    """The first n tokens of the documents, each between <bos> and <eos>, as one int16 vector."""
    parts, total = [], 0
    while total < n:
        batch = tokenizer(list(islice(source, 5000)), add_special_tokens=False)["input_ids"]
        ids = [i for row in batch for i in (tokenizer.bos_token_id, *row, tokenizer.eos_token_id)]
        parts.append(torch.tensor(ids, dtype=torch.int16))
        total += len(ids)
    return torch.cat(parts)[:n]


def new_model(tokenizer: PreTrainedTokenizerFast, seed: int) -> GemmaForCausalLM:
    """An untrained Gemma, 256 wide, 4 layers, 4 heads sharing 1 key-value head."""
    torch.manual_seed(seed)
    return GemmaForCausalLM(GemmaConfig(
        vocab_size=VOCABULARY, hidden_size=256, intermediate_size=768, num_hidden_layers=4,
        num_attention_heads=4, num_key_value_heads=1, head_dim=64, max_position_embeddings=1024,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id, tie_word_embeddings=True,
    ))  # fmt: skip


def pretrain(
    model: GemmaForCausalLM, stream: torch.Tensor, *, peak: float, seed: int
) -> list[tuple[int, float, float]]:
    """One pass over the stream; returns (step, loss in nats per token, seconds) along the way."""
    rows = stream[: len(stream) // CONTEXT * CONTEXT].view(-1, CONTEXT)
    rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))]
    steps, warmup = len(rows) // BATCH, 100
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim == 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}],
        lr=peak, betas=(0.9, 0.95), fused=True,
    )
    forward = torch.compile(lambda ids: model(input_ids=ids, labels=ids, use_cache=False).loss)
    curve, recent, start = [], [], time.time()
    for step in range(steps):
        progress = max(0.0, (step - warmup) / max(1, steps - warmup))
        decay = 0.02 + 0.98 * (1 + math.cos(math.pi * progress)) / 2
        rate = peak * min((step + 1) / warmup, decay)
        for group in optimizer.param_groups:
            group["lr"] = rate
        ids = rows[step * BATCH : (step + 1) * BATCH].long()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = forward(ids)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        recent.append(loss.item())
        if (step + 1) % 100 == 0 or step + 1 == steps:
            curve.append((step + 1, sum(recent) / len(recent), time.time() - start))
            speed = (step + 1) * BATCH * CONTEXT / curve[-1][2]
            line = f"step {step + 1}/{steps}  loss {curve[-1][1]:.3f}  {speed:,.0f} tokens/s"
            print(line, flush=True)
            recent = []
    return curve


def redraw_turn_rows(model: GemmaForCausalLM, tokenizer, seed: int) -> None:
    """Give the two turn tokens new random rows, as long as those of ordinary tokens."""
    table = model.get_input_embeddings().weight.data
    generator = torch.Generator().manual_seed(seed)
    length = table[len(SPECIAL) + 256 :].norm(dim=1).mean()
    for token in ("<start_of_turn>", "<end_of_turn>"):
        row = torch.randn(table.shape[1], generator=generator)
        table[tokenizer.convert_tokens_to_ids(token)] = row / row.norm() * length


def main() -> None:
    tokenizer = train_tokenizer(SEED)
    model = new_model(tokenizer, SEED)
    curves = []
    for number, phase in enumerate(PHASES):
        seed = SEED + number
        source = documents(seed, exercises=phase.exercises)
        stream = token_stream(tokenizer, phase.tokens, source)
        curves.append(pretrain(model, stream, peak=phase.peak, seed=seed))
        redraw_turn_rows(model, tokenizer, seed)
        model.to(torch.bfloat16).float()  # what is kept of a phase is what could be shipped

    model.generation_config.eos_token_id = [
        tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<end_of_turn>"),
    ]
    model.to(torch.bfloat16).save_pretrained(OUT)
    tokenizer.save_pretrained(OUT)
    record = {
        "seed": SEED, "batch": BATCH, "phases": [asdict(phase) for phase in PHASES],
        "parameters": sum(p.numel() for p in model.parameters()),
        "torch": torch.__version__, "threads": torch.get_num_threads(),
        "documents": fingerprint(SEED),
        "weights": hashlib.sha256((OUT / "model.safetensors").read_bytes()).hexdigest(),
        "curves": [[[n, round(loss, 4), round(s)] for n, loss, s in curve] for curve in curves],
    }  # fmt: skip
    (OUT / "pretraining.json").write_text(json.dumps(record) + "\n", encoding="utf-8")
    (OUT / "README.md").write_text(card(record), encoding="utf-8")
    print(f"{OUT}: sha256 of the weights {record['weights'][:16]}")


def fingerprint(seed: int, n: int = 1000) -> str:
    """sha256 of the first n documents of each phase: changes when the world writes otherwise."""
    texts: list[str] = []
    for number, phase in enumerate(PHASES):
        texts += islice(documents(seed + number, exercises=phase.exercises), n)
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()


def card(record: dict) -> str:
    """The model card, every number of it from the record of the run."""
    rows = []
    for number, (phase, curve) in enumerate(zip(record["phases"], record["curves"], strict=True)):
        shown = curve[:: max(1, len(curve) // 6)]
        for step, loss, s in shown if shown[-1] == curve[-1] else [*shown, curve[-1]]:
            row = (number + 1, f"{step:,}", f"{loss:.3f}", f"{s / 60:.0f}", phase["peak"])
            rows.append(f"| {' | '.join(map(str, row))} |")
    steps, seconds = (sum(curve[-1][i] for curve in record["curves"]) for i in (0, 2))
    template = Path(__file__).with_name("card.md").read_text(encoding="utf-8")
    return template.format(
        **record, context=CONTEXT, vocabulary=VOCABULARY, curve="\n".join(rows), steps=steps,
        minutes=seconds / 60, tokens=sum(phase["tokens"] for phase in record["phases"]),
    )  # fmt: skip


if __name__ == "__main__":
    main()
