"""A journal on Drive: slices that are never rewritten, each named by its own checksum.

    journals/journal.jsonl/0001-81230-3f0a...
    journals/journal.jsonl/0002-40712-9c41...

A journal only grows, so a seal adds one slice with the lines since the last. A slice is believed
when its bytes have the checksum in its name: it needs no manifest, and one that is broken takes
nothing from the others, for every line of a journal stands alone. Put together in order they are
the journal again. As of parts there are two, each slice has a copy in `copy/` beside it: what is in
it was paid for.
"""

import contextlib
import hashlib
import json
import os
import re
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from course_utils.parts import (
    is_safe,
    open_private,
    private_folder,
    sync_folder,
    temporary_folder,
    write,
)

FOLDER, COPY = "journals", "copy"

_JOURNAL = re.compile(r"(?:.*/)?[^/]*(?:journal|batch)[^/]*\.jsonl")
_NAME = re.compile(r"(\d{4,})-(\d+)-([0-9a-f]{64})")
_adding = threading.Lock()  # the loop's timer and the end of a step may seal at once


@dataclass(frozen=True, order=True)
class Slice:
    """One file of a journal: its number, size and checksum, all of them in its name."""

    number: int
    bytes: int
    sha256: str
    path: Path

    @classmethod
    def of(cls, path: Path) -> Self | None:
        """The slice at this path, or None if the name is none of a slice."""
        match = _NAME.fullmatch(path.name)
        return cls(int(match[1]), int(match[2]), match[3], path) if match else None

    def read(self) -> bytes | None:
        """Its content, from whichever copy is what the name says; None if neither is."""
        for path in self._both():
            try:
                if not path.is_symlink() and path.stat().st_size == self.bytes:
                    data = path.read_bytes()
                    if _sha256(data) == self.sha256:
                        return data
            except OSError:
                continue
        return None

    def looks_whole(self) -> bool:
        """Whether both copies are there with their size; reads nothing."""
        try:
            return all(path.stat().st_size == self.bytes for path in self._both())
        except OSError:
            return False

    def _both(self) -> tuple[Path, Path]:
        return self.path, self.path.parent / COPY / self.path.name


def is_journal(name: str) -> bool:
    """Whether a file of a working folder only ever grows, by its name."""
    return bool(_JOURNAL.fullmatch(name))


def journals(home: Path) -> Iterator[str]:
    """The names of the journals that have slices in a step's folder."""
    top = home / FOLDER
    for folder, _, _ in os.walk(top):
        name = Path(folder).relative_to(top).as_posix()
        if is_journal(name) and is_safe(name) and slices(home, name):
            yield name


def slices(home: Path, name: str) -> list[Slice]:
    """The slices of a journal, in order; not one is read."""
    folder, names = home / FOLDER / name, set()
    for place in (folder, folder / COPY):
        with contextlib.suppress(FileNotFoundError):
            names |= {path.name for path in place.iterdir()}
    return sorted(filter(None, (Slice.of(folder / name) for name in names)))


def add(journal: Path, home: Path, name: str) -> list[str]:
    """Seal what a journal has gained, and return the names of all the slices it consists of.

    A slice that is gone or has lost bytes is written again: the journal here still has them. Only
    whole lines are sealed; the last may still be on its way.
    """
    with _adding:
        data = journal.read_bytes()
        whole = data.rfind(b"\n") + 1
        if not _is_line(data[whole:]):  # torn, or still on its way
            data = data[:whole]
        there = slices(home, name)
        used, start = [], 0
        for piece in there:
            content = data[start : start + piece.bytes]
            if len(content) == piece.bytes and _sha256(content) == piece.sha256:
                if not piece.looks_whole():
                    _write(home, name, piece.path.name, content)
                used.append(piece.path.name)
                start += piece.bytes
        if rest := data[start:]:
            number = max((piece.number for piece in there), default=0) + 1
            used.append(f"{number:04d}-{len(rest)}-{_sha256(rest)}")
            _write(home, name, used[-1], rest)
        return used


def put_together(
    home: Path, name: str, target: Path, names: Sequence[str] | None = None
) -> list[str]:
    """Write a journal from its whole slices, and return the names of those that are broken.

    With `names`, of these slices alone.
    """
    folder = home / FOLDER / name
    wanted = slices(home, name) if names is None else [Slice.of(folder / n) for n in names]
    broken, content = [], []
    for piece in filter(None, wanted):
        data = piece.read()
        broken.append(piece.path.name) if data is None else content.append(data)
    if content or names is not None:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        try:
            with open_private(temporary) as file:
                file.write(b"".join(content))
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
    return broken


def holds(path: Path, names: Sequence[str]) -> bool:
    """Whether a file is what these slices make when put together; it alone is read."""
    try:
        with open(path, "rb") as file:
            pieces = filter(None, (Slice.of(path / name) for name in names))
            whole = all(_sha256(file.read(piece.bytes)) == piece.sha256 for piece in pieces)
            return whole and not file.read(1)
    except OSError:
        return False


def superseded(home: Path, name: str, going: set[str], kept: set[str]) -> set[str]:
    """Those of the slices that go whose every line is in one that is kept."""
    there = {piece.path.name: piece for piece in slices(home, name)}

    def lines(names: set[str]) -> set[bytes]:
        contents = [there[n].read() or b"" for n in names if n in there]
        return {line for content in contents for line in content.split(b"\n")}

    have = lines(kept) if going else set()
    return {slice_name for slice_name in going if lines({slice_name}) <= have}


def remove(home: Path, name: str, names: set[str]) -> None:
    """Remove slices that nothing needs any more."""
    for slice_name in names:
        if _NAME.fullmatch(slice_name) and is_safe(name):
            for folder in (home / FOLDER / name, home / FOLDER / name / COPY):
                with contextlib.suppress(OSError):
                    (folder / slice_name).unlink()


def _is_line(tail: bytes) -> bool:
    try:
        return isinstance(json.loads(tail), dict)
    except ValueError:
        return False


def _write(home: Path, name: str, slice_name: str, data: bytes) -> None:
    for folder in (home / FOLDER / name, home / FOLDER / name / COPY):
        private_folder(folder)
        with temporary_folder(home) as temporary:
            write(temporary / slice_name, data)
            os.replace(temporary / slice_name, folder / slice_name)
        sync_folder(folder)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
