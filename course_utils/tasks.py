"""A task is one line of instruction data: an instruction, an optional input, and an output.

Everything in this course is made of tasks: the seeds, what the teacher generates, the file a
student brings along, the training set. This module reads and writes their files, nothing else.

    {"instruction": "존댓말로 바꾸어 주세요.", "input": "밥 먹었어?", "output": "식사하셨어요?"}

A file is read whole or not at all: whatever is wrong with it is said in one sentence that names the
file and the line. A file is written whole or not at all: a killed process leaves the old one.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from course_utils import CourseError


class TaskFileError(CourseError):
    """A task file that cannot be used; the message names the file, the line and the cure."""


@dataclass(frozen=True)
class Task:
    """One example of instruction data, as in Stanford Alpaca.

    `input` is "" when the instruction needs none. `meta` holds whatever else is known about the
    task (its id, where it came from); it is kept in files and never shown to a model.
    """

    instruction: str
    input: str = ""
    output: str = ""
    meta: dict = field(default_factory=dict, hash=False)

    def to_dict(self) -> dict:
        """The task as a JSON object; `meta` appears only if there is any."""
        row = {"instruction": self.instruction, "input": self.input, "output": self.output}
        return {**row, "meta": self.meta} if self.meta else row


def read_tasks(path) -> list[Task]:
    """Read a JSON list or a JSONL file of tasks with Alpaca's or KoAlpaca's fields.

    Fields beside instruction, input and output (KoAlpaca's `url`, a seed's `id`) go to `meta`.
    Raises TaskFileError. Taught in 01, section 1.
    """
    path = Path(path)
    return [_task(record, f"{path}:{line}") for line, record in _records(path)]


def write_tasks(path, tasks: Iterable[Task]) -> None:
    """Write tasks as JSONL, UTF-8 as is, atomically."""
    write_jsonl(path, (task.to_dict() for task in tasks))


def read_jsonl(path) -> list[dict]:
    """Read a JSON list or a JSONL file of plain objects; raises TaskFileError."""
    return [record for _, record in _records(Path(path))]


def write_jsonl(path, rows: Iterable[dict]) -> None:
    """Write plain objects as JSONL, UTF-8 as is, atomically."""
    write_atomic(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


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

    The share with the lowest hashes is held out, at least one and not all, so the division does not
    depend on the order of the file. `key` returns the text of what is no task. Raises CourseError
    for fewer than two different questions.
    """
    tasks = list(tasks)
    key = key or (lambda task: f"{task.instruction}\n{task.input}")
    hashes = [hashlib.sha256(key(task).encode()).hexdigest() for task in tasks]
    ranked = sorted(set(hashes))
    if len(ranked) < 2:
        raise CourseError("One question cannot be divided into training and held-out tasks: bring "
                          "at least two different ones, better some hundreds.")
    limit = ranked[min(max(1, round(len(ranked) * share)), len(ranked) - 1) - 1]
    pairs = list(zip(tasks, hashes, strict=True))
    return ([task for task, own in pairs if own > limit],
            [task for task, own in pairs if own <= limit])


def _records(path: Path) -> Iterator[tuple[int, dict]]:
    """Yield (line number, JSON object) for every record of the file."""
    text = read_text(path)
    start = len(text) - len(text.lstrip())
    if start == len(text):
        raise TaskFileError(f"{path} is empty: it should hold one JSON object a line, "
                            "or one JSON list of objects.")
    records = _from_list(path, text, start) if text[start] == "[" else _from_lines(path, text)
    found = False
    for line, record in records:
        if not isinstance(record, dict):
            raise TaskFileError(f"{path}:{line} is {_kind(record)}, but a record is a JSON object "
                                'like {"instruction": ..., "input": ..., "output": ...}.')
        found = True
        yield line, record
    if not found:
        raise TaskFileError(f"{path} holds an empty list: there is no task in it.")


def read_text(path: Path) -> str:
    """Read a UTF-8 file whole; raises TaskFileError, which says what to do about another one."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise TaskFileError(f"There is no file {path}: check its name and folder.") from None
    except OSError as error:
        raise TaskFileError(f"{path} cannot be read: {error.strerror}.") from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        name, guess = _guess_encoding(data)
        raise TaskFileError(
            f"{path}:{line} is not UTF-8{name}: convert the file first, for example with "
            f"`iconv -f {guess} -t utf-8 {path.name} > utf8{path.suffix}`.") from None


def _guess_encoding(data: bytes) -> tuple[str, str]:
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return " but UTF-16", "utf-16"
    try:
        data.decode("cp949")
    except UnicodeDecodeError:
        return "", "cp949"
    return " but looks like cp949, the old Korean Windows encoding", "cp949"


def _from_lines(path: Path, text: str) -> Iterator[tuple[int, object]]:
    # Not splitlines(): JSON strings may hold U+2028 and its like, which are no ends of a line.
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except json.JSONDecodeError as error:
                raise TaskFileError(f"{path}:{number} is not JSON (column {error.colno}: "
                                    f"{error.msg}): every line is one JSON object.") from None


def _from_list(path: Path, text: str, start: int) -> Iterator[tuple[int, object]]:
    # Item by item rather than json.loads on the whole, so that each item's line is known.
    decoder, position, separator = json.JSONDecoder(), start, "["
    while True:
        position = _skip_space(text, position + 1)
        closes = text[position:position + 1] == "]"
        if closes and separator == "[":
            break
        try:
            item, end = decoder.raw_decode(text, position)
        except json.JSONDecodeError as error:
            raise TaskFileError(f"{path}:{error.lineno} is not JSON (column {error.colno}: "
                                f"{error.msg}): the file should be one JSON list.") from None
        yield text.count("\n", 0, position) + 1, item
        position = _skip_space(text, end)
        separator = text[position:position + 1]
        if separator == "]":
            break
        if separator != ",":
            line = text.count("\n", 0, position) + 1
            raise TaskFileError(f"{path}:{line} breaks the JSON list: a comma or the closing "
                                "bracket is missing after the record that ends there.")
    rest = _skip_space(text, position + 1)
    if rest < len(text):
        line = text.count("\n", 0, rest) + 1
        raise TaskFileError(f"{path}:{line} comes after the end of the JSON list: remove it.")


def _skip_space(text: str, position: int) -> int:
    while position < len(text) and text[position] in " \t\r\n":
        position += 1
    return position


def _task(record: dict, where: str) -> Task:
    for name in ("instruction", "output"):
        if name not in record:
            raise TaskFileError(f"{where} has no \"{name}\" field (it has {', '.join(record)}): "
                                "a task needs instruction and output, and may have an input.")
    extra = {key: value for key, value in record.items()
             if key not in ("instruction", "input", "output", "meta")}
    meta = record.get("meta") or {}
    if not isinstance(meta, dict):
        raise TaskFileError(f'{where}: "meta" is {_kind(meta)}, but it must be a JSON object.')
    values = {name: _text(record.get(name), name, where)
              for name in ("instruction", "input", "output")}
    return Task(**values, meta={**extra, **meta})


def _text(value, name: str, where: str) -> str:
    if value is None:
        return ""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)  # "output": 12 is an honest mistake with one meaning
    if not isinstance(value, str):
        raise TaskFileError(f'{where}: "{name}" is {_kind(value)}, but it must be text.')
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise TaskFileError(f'{where}: "{name}" holds half of a character (a lone surrogate): '
                            "write that character again.")
    return value


def _kind(value) -> str:
    return {dict: "an object", list: "a list", str: "a text", bool: "true or false",
            type(None): "null"}.get(type(value), "a number")
