"""The journal: every reply that was paid for, kept in a file before anybody sees it.

One JSON line a reply, appended, flushed and fsynced, under a key that is a hash of what was asked.
Asking the same again is answered from the file, so rerunning a cell never pays twice, and a process
killed at any moment loses at most the replies that were still on their way:

    {"key": "9f2c...", "model": "gpt-4o-mini", "text": "...", "finish_reason": "stop", "usage": ...}

What was sent as a batch stands there as well (sources/batch.py). A last line torn by a kill, and
zeros left by a power cut, are cut off when the file is opened again. Taught in 01, section 5.
"""

import json
import os
import threading
import weakref
from collections.abc import Callable
from pathlib import Path

from course_utils import CourseError
from course_utils.plumbing.scrub import scrub_known

try:
    import fcntl  # not filelock, which leaves a second file that would be sealed along
except ImportError:  # Windows
    fcntl = None

_open: "weakref.WeakValueDictionary[str, Journal]" = weakref.WeakValueDictionary()


class Journal:
    """Replies by key; made by `Journal.open(path)`, or `Journal.open(None)` for one in memory.
    `watch` is called after each new line, by whichever thread wrote it: a store seals it then."""

    watch: Callable[[], object] | None = None

    @staticmethod
    def open(path=None) -> "Journal":
        """The journal at this path, created if need be. One process owns it at a time; inside that
        process the same file gives the same object (a cell may run again), unless it was deleted
        to start afresh. Raises CourseError."""
        if path is None:
            return Journal(None)
        name = os.path.realpath(path)
        journal = _open.get(name)
        try:
            same = os.path.samestat(os.stat(name), os.fstat(journal.file.fileno()))
        except (AttributeError, OSError, ValueError):  # none is open, or its file is gone
            same = False
        if not same:
            journal = _open[name] = Journal(Path(path))
        return journal

    def __init__(self, path: Path | None):
        self.path, self.file = path, None
        self._lock = threading.Lock()
        self._records: dict[str, dict] = {}
        if path is None:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # For its owner alone, whatever the umask; kept open, for it carries the lock.
            self.file = open(path, "a+b", opener=lambda name, flags: os.open(name, flags, 0o600))
        except OSError as error:
            raise CourseError(f"The journal {path} cannot be opened: {error.strerror}.") from None
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CourseError(f"The journal {path} is in use by another process, perhaps another "
                              "notebook's kernel: stop that, or use another journal.") from None
        except (AttributeError, OSError):
            pass  # Windows has no fcntl, and some network file systems know no locks
        try:
            self._load()
        except CourseError:
            self.file.close()  # or its lock would outlive the error
            raise

    def __len__(self) -> int:
        return len(self._records)

    def get(self, key: str) -> dict | None:
        """The record with this key, or None."""
        return self._records.get(key)

    def records(self) -> list[dict]:
        """All records, in the order in which they arrived."""
        return list(self._records.values())

    def waiting(self, model: str, base_url: str) -> list[dict]:
        """The batches of a model at an address whose replies are not here yet."""
        return [record for record in self.records() if record.get("batch_of") == [model, base_url]
                and f"{record['key']}/end" not in self._records]

    def add(self, record: dict) -> None:
        """Append a record, which has a "key"; on return it is on disk. The first of a key stays."""
        # A server may send back a key it was sent; nothing that is stored holds one.
        line = scrub_known(json.dumps(record, ensure_ascii=False)).encode("utf-8") + b"\n"
        with self._lock:
            if record["key"] in self._records:
                return
            if self.file is not None:
                try:
                    self.file.write(line)
                    self.file.flush()
                    os.fsync(self.file.fileno())
                except (OSError, ValueError) as error:
                    raise CourseError(f"The journal {self.path} cannot be written ({error}): make "
                                      "room or remount its disk, then run again.") from None
            self._records[record["key"]] = json.loads(line)  # as it is on disk
        if self.watch is not None:
            self.watch()

    def close(self) -> None:
        """Give the file up, so that another process may open it."""
        self.file.close()

    def _load(self) -> None:
        self.file.seek(0)
        data = self.file.read()
        whole = data.rstrip(b"\0")
        lines = whole.split(b"\n")
        for number, line in enumerate(lines, 1):
            try:
                record = json.loads(line)
                self._records.setdefault(record["key"], record)
            except (ValueError, TypeError, KeyError):  # no JSON, no object, no key
                if number < len(lines) or not b'{"key": '.startswith(line[:8]):
                    raise CourseError(f"{self.path}:{number} is not a journal line: delete that "
                                      "line, or name another file as the journal.") from None
                whole = whole[:len(whole) - len(line)]  # torn
        self.file.truncate(len(whole))
        if whole and not whole.endswith(b"\n"):
            self.file.write(b"\n")
            self.file.flush()
