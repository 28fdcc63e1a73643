"""A task is one line of instruction data: an instruction, an optional input, and an output.

Everything in this course is made of tasks: the seeds, what the teacher generates, the file a
student brings along, the training set. This module reads and writes their files, nothing else.

    {"instruction": "존댓말로 바꾸어 주세요.", "input": "밥 먹었어?", "output": "식사하셨어요?"}

A file is read whole or not at all: what is wrong is said in a sentence with the file and the line.
It is written whole or not at all: a killed process leaves the old one.
"""

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from course_utils import CourseError, korean
from course_utils.plumbing.files import TABLE, TaskFileError, plain_name, read_text


@dataclass(frozen=True)
class Task:
    """One example of instruction data, as in Stanford Alpaca; `input` is "" where none is needed.

    `meta` holds what else is known (an id, a source): kept in files, never shown to a model.
    The texts are kept in the one form that korean.clean gives them, whoever made the task. Raises
    CourseError for what is no text, such as the NaN that pandas has for an empty cell.
    """

    instruction: str
    input: str = ""
    output: str = ""
    meta: dict = field(default_factory=dict, hash=False)

    def __post_init__(self):
        for name in ("instruction", "input", "output"):
            value = getattr(self, name)
            if not isinstance(value, str):
                raise CourseError(f'"{name}" is {value!r:.40}, but it must be text')
            if (text := korean.clean(value)) != value:
                object.__setattr__(self, name, text)

    def to_dict(self) -> dict:
        """The task as a JSON object; `meta` appears only if there is any."""
        row = {"instruction": self.instruction, "input": self.input, "output": self.output}
        return {**row, "meta": self.meta} if self.meta else row


def read_tasks(path) -> list[Task]:
    """Read a JSON list or a JSONL file of tasks with Alpaca's or KoAlpaca's fields.

    Other fields (KoAlpaca's `url`) go to `meta`. Raises TaskFileError. Taught in 01, section 1.
    """
    return _read(Path(path), _task)


def write_tasks(path, tasks: Iterable[Task]) -> None:
    """Write tasks as JSONL, UTF-8 as is, atomically."""
    write_jsonl(path, (task.to_dict() for task in tasks))


def read_jsonl(path) -> list[dict]:
    """Read a JSON list or a JSONL file of plain objects; raises TaskFileError."""
    return _read(Path(path), _record)


def write_jsonl(path, rows: Iterable[dict]) -> None:
    """Write plain objects as JSONL, UTF-8 as is, atomically; NaN, which is no JSON, is an error."""
    try:
        data = "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n"
                       for row in rows).encode()
    except ValueError as error:
        raise CourseError(f"{path} was not written, for a row holds what no JSON file can: {error}."
                          ) from None
    write_atomic(path, data)


def write_atomic(path, data: bytes | str) -> None:
    """Replace the file in one step: whoever looks sees the old content or the new, never a part."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data.encode("utf-8") if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def split_heldout(tasks: Iterable, share: float = 0.1, *, key=None) -> tuple[list, list]:
    """Divide tasks into (training, held out) by the hash of each question, order kept.

    The share with the lowest hashes is held out, at least one and not all, whatever the order of
    the file. `key` returns the text of what is no task. Raises CourseError for fewer than two
    different questions.
    """
    tasks = list(tasks)
    key = key or (lambda task: f"{task.instruction}\n{task.input}")
    hashes = [hashlib.sha256(korean.clean(key(task)).encode()).hexdigest() for task in tasks]
    ranked = sorted(set(hashes))
    if len(ranked) < 2:
        raise CourseError("Bring at least two different questions: one cannot be divided into "
                          "training and held-out tasks.")
    limit = ranked[min(max(1, round(len(ranked) * share)), len(ranked) - 1) - 1]
    pairs = list(zip(tasks, hashes, strict=True))
    return ([task for task, own in pairs if own > limit],
            [task for task, own in pairs if own <= limit])


def _refuse(constant: str):
    raise ValueError(f"{constant} is no JSON: pandas writes it for an empty cell, fillna('') helps")


_DECODER = json.JSONDecoder(parse_constant=_refuse)
_GAP = re.compile(r"\s*[\[,]?\s*")  # what stands between two records, or before the first


def _read(path: Path, make: Callable) -> list:
    """What `make`, which raises ValueError for a bad one, makes of every record of the file."""
    text, made, records, name = read_text(path), [], None, plain_name(path)
    is_list = text.lstrip().startswith("[")
    try:
        if is_list:
            records = _DECODER.decode(text)
        else:  # not splitlines(): strings may hold U+2028 and its like, which are no ends of a line
            records = (_DECODER.decode(line) for line in text.split("\n") if line.strip())
        for record in records:
            made.append(make(record))
    except json.JSONDecodeError as error:
        line = error.lineno if is_list else _line_of(text, len(made))
        table = "" if text.lstrip()[:1] in "[{" else f" A table is converted with {TABLE}."
        raise TaskFileError(f"{name}:{line} is not JSON (column {error.colno}: {error.msg}): a "
                            "file is one JSON list, or one JSON object a line."
                            f"{table.format('csv')}") from None
    except (ValueError, RecursionError, CourseError) as error:
        line = _line_of(text, len(text) if records is None else len(made))
        raise TaskFileError(f"{name}:{line}: {error}. Mend this record, or take it out.") from None
    if not made:
        raise TaskFileError(f"{name} is empty: it should hold one JSON object a line, or a list.")
    return made


def _line_of(text: str, number: int) -> int:
    """The line where a record begins, or the first one before it that cannot be decoded."""
    position = _GAP.match(text).end()
    with suppress(ValueError, RecursionError):
        for _ in range(number):
            position = _GAP.match(text, _DECODER.raw_decode(text, position)[1]).end()
    return text.count("\n", 0, position) + 1


def _record(record) -> dict:
    if not isinstance(record, dict):
        raise ValueError(f'{record!r:.40} is no JSON object like {{"instruction": "...", ...}}')
    return record


def _task(record) -> Task:
    if missing := {"instruction", "output"}.difference(_record(record)):
        raise ValueError(f'there is no "{min(missing)}" field, which a task needs (there are: '
                         f"{', '.join(record)!r:.100})")
    extra = dict(record)
    texts = [_text(extra.pop(name, None), name) for name in ("instruction", "input", "output")]
    meta = extra.pop("meta", None) or {}
    if not isinstance(meta, dict):
        raise ValueError(f'"meta" is {meta!r:.40}, but it must be a JSON object')
    if meta := {**extra, **meta}:
        text = _text(json.dumps(meta, ensure_ascii=False, allow_nan=False), "meta")
        meta = json.loads(korean.clean(text))
    return Task(*texts, meta)


def _text(value, name: str):
    """A field as text, where it is None or a number: 12 for "12" is an honest mistake."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError(f'"{name}" holds half of a character: write it again') from None
    elif type(value) in (int, float):
        return json.dumps(value, allow_nan=False)
    return "" if value is None else value
