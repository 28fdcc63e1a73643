"""The journal: every reply that was paid for, kept in a file before anybody sees it.

One JSON line a reply, appended, flushed and fsynced, under a key that is a hash of what was asked.
Asking the same again is answered from the file, so rerunning a cell never pays twice, and a process
killed at any moment loses at most the replies that were still on their way:

    {"key": "9f2c...", "model": "gpt-4o-mini", "text": "...", "finish_reason": "stop", "usage": ...}

What was sent as a batch stands there as well (sources/batch.py). A last line torn by a kill, and
zeros left by a power cut, are cut off when the file is opened again. Memory holds where each line
lies, and no line: a million replies are gigabytes. Taught in 01, section 6.
"""

import json
import os
import re
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from course_utils import CourseError
from course_utils.plumbing.scrub import scrub_known

try:
    import fcntl  # not filelock, which leaves a second file that would be sealed along
except ImportError:  # Windows
    fcntl = None

_BEGINNING = re.compile(rb'\{"key": "([^"\\]*)", "')
_open: "weakref.WeakValueDictionary[str, Journal]" = weakref.WeakValueDictionary()
_owing: "set[Journal]" = set()  # those with lines that found no room: they may not be swept away


class Journal:
    """Replies by key; made by `Journal.open(path)`, or `Journal.open(None)` for one in memory.
    `watch` is called after new lines, by whichever thread wrote them: a store seals them then."""

    watch: Callable[[], object] | None = None

    @staticmethod
    def open(path=None) -> "Journal":
        """The journal at this path, created if need be. One process owns it at a time; inside that
        process the same file gives the same object (a cell may run again), unless it was deleted
        to start afresh. Raises CourseError."""
        if path is None:
            return Journal(None)
        name = os.path.realpath(path)
        old = _open.get(name)
        try:
            if os.path.samestat(os.stat(name), os.fstat(old.file.fileno())):
                return old
        except (AttributeError, OSError, ValueError):
            pass  # none is open, or its file is gone
        journal = _open[name] = Journal(Path(path))
        if old in _owing:  # another disk is there now
            _owing.remove(old)
            for key in old._unwritten:
                with suppress(CourseError):
                    journal.add(old.get(key))
        return journal

    def __init__(self, path: Path | None):
        self.path, self.file, self._lock = path, None, threading.Lock()
        self._lines: dict[str, bytes | tuple[int, int]] = {}  # where it lies, how long it is
        self._batches: list[str] = []  # the keys of what was sent as a batch
        self._unwritten: list[str] = []  # those that are not on the disk yet
        self._torn_at: int | None = None  # where an attempt to write them may have left half a line
        if path is None:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # For its owner alone, whatever the umask; kept open, for it carries the lock.
            self.file = open(path, "a+b", buffering=0,
                             opener=lambda name, flags: os.open(name, flags, 0o600))
            self._reader = open(path, "rb")
            try:
                fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise CourseError(f"The journal {path} is in use by another process, perhaps "
                                  "another notebook's kernel: stop that, or use another journal."
                                  ) from None
            except (AttributeError, OSError):
                pass  # Windows has no fcntl, and some network file systems know no locks
            self._load()
        except (CourseError, OSError) as error:
            if self.file:
                self.file.close()  # or its lock would outlive the error
            raise error if isinstance(error, CourseError) else CourseError(
                f"The journal {path} cannot be opened: {error.strerror}.") from None

    def __len__(self) -> int:
        return len(self._lines)

    def __contains__(self, key: str) -> bool:
        return key in self._lines

    def get(self, key: str, request: bool = True) -> dict | None:
        """The record with this key, or None. Without its request, which is most of a line, it is
        read in a fraction of the time."""
        with self._lock:
            line = self._lines.get(key)
            if isinstance(line, tuple):
                self._reader.seek(line[0])
                line = self._reader.read(line[1])
        if line is None:
            return None
        if not request and b'"price_factor"' not in line:  # in a batch it stands behind the request
            head, found, _ = line.partition(b', "request": {')
            line = head + b"}" if found else line
        try:
            return json.loads(line)
        except (ValueError, RecursionError):
            raise CourseError(f'{self.path}: the line of the key "{key}" is broken: delete it, and '
                              "restart this kernel.") from None

    def records(self, requests: bool = True) -> Iterator[dict]:
        """All records, in the order in which they arrived."""
        return (self.get(key, requests) for key in list(self._lines))

    def waiting(self, model: str, base_url: str) -> list[dict]:
        """The batches of a model at an address whose replies are not here yet."""
        sent = [self.get(key) for key in self._batches if f"{key}/end" not in self]
        return [record for record in sent if record["batch_of"][0] == model
                and record["batch_of"][1].rstrip("/") == base_url]

    def add(self, record: dict) -> None:
        """Append a record, which has a "key"; on return it is on disk. The first of a key stays.
        Where the disk has no room it stays in memory until there is some; raises CourseError."""
        # A server may send back a key it was sent; nothing that is stored holds one. And half an
        # emoji is no UTF-8.
        text = scrub_known(json.dumps(record, ensure_ascii=False, default=str))
        key = record["key"]
        with self._lock:
            if key in self:
                return
            self._lines[key] = text.encode("utf-8", "replace") + b"\n"
            if "batch_of" in record:
                self._batches.append(key)
            if self.file is not None:
                self._unwritten.append(key)
        self.catch_up()

    def catch_up(self) -> None:
        """Write what is not on the disk yet; raises CourseError while there is no room for it."""
        with self._lock:
            if not self._unwritten:
                return
            data = b"".join(self._lines[key] for key in self._unwritten)
            try:
                if self._torn_at is not None:
                    self.file.truncate(self._torn_at)
                self._torn_at = end = os.fstat(self.file.fileno()).st_size
                while data:
                    data = data[self.file.write(data):]
                os.fsync(self.file.fileno())
            except (OSError, ValueError) as error:
                _owing.add(self)
                raise CourseError(
                    f"The journal {self.path} cannot be written ({error}). {len(self._unwritten):,}"
                    " replies wait in memory until it can. Make room or remount its disk, then run "
                    "again, without restarting.") from None
            for key in self._unwritten:
                place = self._lines[key] = (end, len(self._lines[key]))
                end += place[1]
            self._unwritten, self._torn_at = [], None
            _owing.discard(self)
        if self.watch is not None:
            self.watch()

    def close(self) -> None:
        """Give the file up, so that another process may open it. Raises CourseError, and keeps it,
        while something of it finds no room."""
        self.catch_up()
        self.file.close()

    def _load(self) -> None:
        end = 0
        for number, line in enumerate(self._reader, 1):
            if (key := _key(line)) is None:
                torn = tail = line + self._reader.read()
                if b"\0" in tail:
                    torn = tail.rstrip(b"\0\n")
                # A foreign file is left alone, and so is one that is broken in its middle.
                if b"\n" in torn or not (
                        end and torn[:1] == b"\0" or b'{"key": '.startswith(torn[:8])):
                    raise CourseError(f"{self.path}:{number} is not a journal line: delete that "
                                      "line, or name another file as the journal.")
                self.file.truncate(end)
                return
            if key not in self:
                self._lines[key] = (end, len(line))
                if b'"batch_of": [' in line[:200]:
                    self._batches.append(key)
            end += len(line)
        if end and not line.endswith(b"\n"):
            self.file.write(b"\n")


def _key(line: bytes) -> str | None:
    """The key of a line; None for what is no whole line. Only one of a form of its own, or one that
    may be torn, is read to its end."""
    try:
        beginning = _BEGINNING.match(line)
        if beginning and line.endswith(b"}\n") and b"\0" not in line:
            return beginning[1].decode()
        key = json.loads(line)["key"]
        return key if isinstance(key, str) else None
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
