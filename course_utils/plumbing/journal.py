"""The journal: every reply that was paid for, kept in a file before anybody sees it.

One JSON line a reply, appended, flushed and fsynced, under a key that is a hash of what was asked.
Asking the same again is answered from the file, so rerunning a cell never pays twice, and a process
killed at any moment loses at most the replies that were still on their way:

    {"key": "9f2c...", "model": "gpt-4o-mini", "text": "...", "finish_reason": "stop", "usage": ...}

A last line torn by a kill is cut off when the file is opened again. One process owns a journal at a
time; inside that process everybody who opens the same path shares one object.
Taught in 01, section 5.
"""

import json
import os
import threading
import weakref
from collections.abc import Callable
from pathlib import Path

from course_utils import CourseError
from course_utils.plumbing.secrets import scrub_known

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


class JournalError(CourseError):
    """A journal that cannot be opened or written; nothing in it has been lost."""


class Journal:
    """Replies by key; made by `Journal.open(path)`, or `Journal.open(None)` for one in memory.

    `watch` is called after each new line, by whichever thread wrote it: a store seals it then.
    """

    watch: Callable[[], object] | None = None

    _open: "weakref.WeakValueDictionary[str, Journal]" = weakref.WeakValueDictionary()
    _opening = threading.Lock()

    @classmethod
    def open(cls, path=None) -> "Journal":
        """The journal at this path, created if need be. Raises JournalError.

        In a notebook the cell that opens a journal runs again while the old object is still alive,
        so the same file gives the same object within one process.
        """
        if path is None:
            return cls(None)
        with cls._opening:
            name = os.path.realpath(path)
            journal = cls._open.get(name)
            if journal is None or not journal._is_still_there():
                journal = cls._open[name] = cls(Path(path))
            return journal

    def __init__(self, path: Path | None):
        self.path = path
        self._file = None
        self._lock = threading.Lock()
        self._records: dict[str, dict] = {}
        if path is None:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # For its owner alone, whatever the umask; kept open, for it carries the lock.
            self._file = open(path, "a+b", opener=lambda name, flags: os.open(name, flags, 0o600))
        except OSError as error:
            raise JournalError(f"The journal {path} cannot be opened: {error.strerror}.") from None
        try:
            self._claim()
            self._load()
        except BaseException:
            self._file.close()
            raise

    def __len__(self) -> int:
        return len(self._records)

    def get(self, key: str) -> dict | None:
        """The record with this key, or None."""
        return self._records.get(key)

    def records(self) -> list[dict]:
        """All records, in the order in which they arrived."""
        with self._lock:
            return list(self._records.values())

    def add(self, record: dict) -> None:
        """Append a record, which has a "key"; on return it is on disk. The first of a key stays."""
        # A server may send back a key it was sent; nothing that is stored holds one.
        line = scrub_known(json.dumps(record, ensure_ascii=False)).encode("utf-8") + b"\n"
        with self._lock:
            if record["key"] in self._records:
                return
            if self._file is not None:
                try:
                    self._file.write(line)
                    self._file.flush()
                    os.fsync(self._file.fileno())
                except (OSError, ValueError) as error:
                    raise JournalError(f"The journal {self.path} cannot be written ({error}): make "
                                       "room or remount its disk, then run again.") from None
            self._records[record["key"]] = json.loads(line)  # as it is on disk
        if self.watch is not None:
            self.watch()

    def close(self) -> None:
        """Give the file up, so that another process may open it."""
        if self._file is not None:
            self._file.close()

    def _is_still_there(self) -> bool:
        # Somebody may have deleted the file to start afresh while this object was alive.
        try:
            return os.path.samestat(os.stat(self.path), os.fstat(self._file.fileno()))
        except (OSError, ValueError):
            return False

    def _claim(self) -> None:
        if fcntl is None:
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise JournalError(f"The journal {self.path} is in use by another process: stop that "
                               "one (perhaps another notebook's kernel) or use another journal.",
                               ) from None
        except OSError:
            pass  # some network file systems know no locks

    def _load(self) -> None:
        self._file.seek(0)
        *lines, torn = self._file.read().split(b"\n")
        for number, line in enumerate(lines, 1):
            record = _parse(line)
            if record is None:
                raise JournalError(f"{self.path}:{number} is not a journal line: delete that line, "
                                   "or name another file as the journal.")
            self._records.setdefault(record["key"], record)
        if not torn:
            return
        record = _parse(torn)
        if record is not None:  # only its line break is missing
            self._file.write(b"\n")
            self._records.setdefault(record["key"], record)
        elif b'{"key": '.startswith(torn[:8]):
            self._file.truncate(self._file.tell() - len(torn))
        else:  # not our file: leave it alone
            raise JournalError(f"{self.path} is not a journal: name another file as the journal.")
        self._file.flush()


def _parse(line: bytes) -> dict | None:
    try:
        record = json.loads(line)
    except ValueError:  # not JSON, or not UTF-8
        return None
    return record if isinstance(record, dict) and isinstance(record.get("key"), str) else None
