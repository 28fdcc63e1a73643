"""From a prompt and its response to token ids, labels and padded batches: masks by segment.

The prompt and the response are tokenised once each and concatenated, so the border between what is
read and what is trained is known, not searched for. Taught in 02, sections 3 and 4.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from course_utils import CourseError

if TYPE_CHECKING:
    import datasets
    import torch
    from transformers import PreTrainedTokenizerBase

    from course_utils.prompts import Template
    from course_utils.tasks import Task

IGNORE_INDEX = -100
"""The label that PyTorch's cross-entropy leaves out."""

Row = dict[str, list[int]]


class EncodeError(CourseError):
    """A row that would train nothing: an empty response, or a prompt that fills `max_length`."""


@dataclass(frozen=True)
class EncodeReport:
    """What became of the tasks: rows kept and truncated, tasks dropped, tokens in the rows."""

    rows: int
    truncated: int
    dropped: int
    prompt_tokens: int
    response_tokens: int

    def __str__(self) -> str:
        return (f"{self.rows:,} rows ({self.truncated:,} truncated, {self.dropped:,} dropped), "
                f"{self.prompt_tokens:,} prompt tokens masked, {self.response_tokens:,} trained")


def encode(tokenizer: "PreTrainedTokenizerBase", prompt: str, response: str, max_length: int, *,
           end: str = "") -> Row:
    """Return `input_ids` and `labels` of one example, two lists of equal length.

    The prompt's labels are -100; the response's are its own tokens and those of `end`, the text
    that ends a turn ("" stands for the tokenizer's eos). BOS, if there is one, comes first exactly
    once. What is beyond `max_length` is cut off. Raises EncodeError when nothing would be trained.

        prompt "2+2=", response "4"  ->  input_ids [bos, 2, +, 2, =, 4, eos]
                                         labels    [-100 five times,  4, eos]
    """
    (pair,) = _segments(tokenizer, [prompt], [response], max_length, end)
    if isinstance(pair, EncodeError):
        raise pair
    return _row(*pair, max_length)


def _row(asked: list[int], answered: list[int], max_length: int) -> Row:
    # What is read: the prompt, then the response. What is trained: the response alone.
    ids, labels = asked + answered, [IGNORE_INDEX] * len(asked) + answered
    return {"input_ids": ids[:max_length], "labels": labels[:max_length]}


def encode_tasks(tokenizer: "PreTrainedTokenizerBase", tasks: Iterable["Task"],
                 template: "Template", max_length: int) -> tuple["datasets.Dataset", EncodeReport]:
    """Encode tasks through a template, counting those that would train nothing and are dropped."""
    import datasets

    tasks = list(tasks)
    prompts, responses = [template.render(task) for task in tasks], [t.output for t in tasks]
    columns: dict[str, list] = {"input_ids": [], "labels": []}
    reasons, truncated, masked = [], 0, 0
    for pair in _segments(tokenizer, prompts, responses, max_length, template.end):
        if isinstance(pair, EncodeError):
            reasons.append(pair)
            continue
        for name, values in _row(*pair, max_length).items():
            columns[name].append(values)
        masked += len(pair[0])
        truncated += sum(map(len, pair)) > max_length
    if not columns["labels"]:
        first = f" The first one: {reasons[0]}" if reasons else ""
        raise EncodeError(f"None of {len(tasks)} tasks can be trained on.{first}")
    rows, tokens = datasets.Dataset.from_dict(columns), sum(map(len, columns["labels"]))
    return rows, EncodeReport(len(rows), truncated, len(reasons), masked, tokens - masked)


def encode_prompts(tokenizer: "PreTrainedTokenizerBase", prompts: Sequence[str]) -> list[list[int]]:
    """Tokenise rendered prompts the way training does: BOS exactly once, nothing else added."""
    bos = tokenizer.bos_token_id
    encoded = _tokenize(tokenizer, prompts)
    # In GPT-NeoX one token is both BOS and EOS and means only the end: it does not begin a text.
    if bos not in (None, tokenizer.eos_token_id):
        for ids in encoded:
            there = next((i for i, token in enumerate(ids) if token != bos), len(ids))
            ids[:there] = [bos]
    return encoded


@dataclass(frozen=True)
class MaskingCollator:
    """Pad rows on the right into one batch of `input_ids`, `attention_mask` and `labels`.

    Each is (rows, longest row rounded up to `pad_to_multiple_of`). The masks follow the lengths of
    the rows, never the ids: where padding is the eos token, the real eos stays visible and trained.
    """

    pad_token_id: int
    pad_to_multiple_of: int = 8

    def __post_init__(self):
        if self.pad_token_id is None:
            raise EncodeError("The tokenizer has no pad token: pass its eos_token_id instead.")

    def width(self, lengths: Iterable[int]) -> int:
        """Return how wide a batch of rows of these lengths is."""
        return -(-max(lengths) // self.pad_to_multiple_of) * self.pad_to_multiple_of

    def __call__(self, rows: Sequence[Row]) -> dict[str, "torch.Tensor"]:
        import torch

        width = self.width(len(row["input_ids"]) for row in rows)
        batch: dict[str, list] = {"input_ids": [], "attention_mask": [], "labels": []}
        for row in rows:
            # What is padded is not seen and not trained.
            length, padding = len(row["input_ids"]), width - len(row["input_ids"])
            batch["input_ids"].append(row["input_ids"] + [self.pad_token_id] * padding)
            batch["attention_mask"].append([1] * length + [0] * padding)
            batch["labels"].append(row["labels"] + [IGNORE_INDEX] * padding)
        return {name: torch.tensor(values) for name, values in batch.items()}


def show_mask(tokenizer: "PreTrainedTokenizerBase", row: Row, *, each_token: bool = False) -> str:
    r"""Return a row as plain text, one line a run of masked or trained tokens, or one a token.

    A label that is neither -100 nor its own token is shown as "wrong".

        masked    5 | <bos>2+2=
        trained   2 | 4<eos>
    """
    runs: list[tuple[str, list[int]]] = []
    for token, label in zip(row["input_ids"], row["labels"], strict=True):
        kind = {IGNORE_INDEX: "masked", token: "trained"}.get(label, "wrong")
        if each_token or not runs or runs[-1][0] != kind:
            runs.append((kind, []))
        runs[-1][1].append(token)
    lines = []
    for kind, ids in runs:
        text = tokenizer.decode(ids).replace("\n", "\\n")
        lines.append(f"{kind:7} {ids[0] if each_token else len(ids):5} | {text}")
    return "\n".join(lines)


def _tokenize(tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str]) -> list[list[int]]:
    """Tokenise texts as they are, in one call that a fast tokenizer spreads over all cores."""
    if not texts:
        return []
    distinct = list(dict.fromkeys(texts))  # short answers come again and again
    options = {"add_special_tokens": False, "return_attention_mask": False, "verbose": False}
    ids = dict(zip(distinct, tokenizer(distinct, **options)["input_ids"], strict=True))
    return [ids[text].copy() for text in texts]


def _segments(tokenizer: "PreTrainedTokenizerBase", prompts: Sequence[str],
              responses: Sequence[str], max_length: int, end: str) -> Iterator[Any]:
    """Yield prompt and response ids, or the EncodeError that says why not, for each example."""
    # A model learns to stop from the end alone: without one of the template's, the eos is it.
    suffix = [] if end else [tokenizer.eos_token_id]
    if suffix == [None]:
        raise EncodeError("The tokenizer has no eos token; use a template with an end of its own.")
    prompt_ids = encode_prompts(tokenizer, prompts)
    response_ids = _tokenize(tokenizer, [response + end for response in responses])
    for prompt, ids, response in zip(prompt_ids, response_ids, responses, strict=True):
        if not response.strip():
            yield EncodeError("The response is empty; give the task an output or remove it.")
        elif len(prompt) >= max_length:
            yield EncodeError(f"The prompt alone has {len(prompt)} tokens and max_length is "
                              f"{max_length}: raise max_length or shorten the prompt.")
        else:
            yield prompt, ids + suffix
