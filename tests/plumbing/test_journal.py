"""The journal: one line a reply, kept before anybody sees it, whatever happens to the process."""

import errno
import gc
import json
import os
import subprocess
import sys

import pytest

from course_utils import REPO, CourseError
from course_utils.plumbing import journal
from course_utils.plumbing.journal import Journal


@pytest.fixture
def path(tmp_path):
    return tmp_path / "journal.jsonl"


def record(key, **more):
    return {"key": key, "model": "m", "text": "가", **more}


def written(*keys):
    return [json.dumps(record(key), ensure_ascii=False).encode() + b"\n" for key in keys]


def keys_of(path):
    kept = Journal.open(path)
    keys = [each["key"] for each in kept.records()]
    kept.close()
    return keys


def test_the_first_of_a_key_stays_and_the_order_is_that_of_arrival(path):
    kept = Journal.open(path)
    for key, text in (("b", "1"), ("a", "2"), ("b", "3")):
        kept.add(record(key, text=text))
    kept.close()
    again = Journal.open(path)
    assert [(r["key"], r["text"]) for r in again.records()] == [("b", "1"), ("a", "2")]


def test_a_line_is_on_disk_before_add_returns(path, monkeypatch):
    synced = []
    monkeypatch.setattr(journal.os, "fsync", lambda fd: synced.append(os.fstat(fd).st_size))
    kept = Journal.open(path)
    kept.add(record("a"))
    assert synced == [path.stat().st_size] != [0]


class Disk:
    """Half of a line finds room, or all of it and yet no certainty, until `room` is there."""

    def __init__(self, kept, error, where):
        self.file, self.error, self.where, self.room = kept.file, error, where, False

    def __getattr__(self, name):
        return getattr(self.file, name)

    def write(self, data):
        if not self.room and self.where == "write":
            if len(data) < 30:
                raise OSError(self.error, os.strerror(self.error))
            return self.file.write(data[:-20])
        return self.file.write(data)

    def fileno(self):
        return self.file.fileno()


@pytest.fixture(params=[(errno.ENOSPC, "write"), (errno.EIO, "sync"), (errno.ENOTCONN, "sync")])
def full(request, path, monkeypatch):
    """A disk that takes a journal's first line, and not its second before `full.room` is set."""
    error, where = request.param
    kept = Journal.open(path)
    kept.add(record("a"))
    kept.file = disk = Disk(kept, error, where)

    def sync(_):
        if not disk.room:
            raise OSError(error, os.strerror(error))

    monkeypatch.setattr(journal.os, "fsync", sync)
    with pytest.raises(CourseError, match="1 replies wait in memory.* Make room"):
        kept.add(record("b"))
    return disk


def test_a_reply_that_finds_no_room_is_said_and_kept_until_there_is_some(path, full):
    gc.collect()  # nothing else holds it; the cell is run again
    kept = Journal.open(path)
    with pytest.raises(CourseError, match="2 replies wait"):
        kept.add(record("c"))
    assert [each["key"] for each in kept.records()] == ["a", "b", "c"]
    with pytest.raises(CourseError, match="2 replies wait"):
        kept.close()
    full.room = True
    kept.add(record("d"))
    kept.close()
    assert path.read_bytes() == b"".join(written(*"abcd"))
    assert keys_of(path) == ["a", "b", "c", "d"]


@pytest.mark.parametrize("again", [
    lambda path: Journal.open(path).close(),
    lambda path: path.unlink() or Journal.open(path).add(record("c"))])  # another disk is there
def test_what_waits_is_written_as_soon_as_there_is_room(path, full, again):
    full.room = True
    again(path)
    assert written("b")[0] in path.read_bytes()


FILL = """
import sys
from course_utils.plumbing.journal import Journal
kept = Journal.open(sys.argv[1])
for n in range(10**6):
    kept.add({"key": str(n), "model": "m", "text": "x" * 3000})
    print(n, flush=True)
"""


def test_sigkill_while_appending_loses_no_line_that_was_promised(path):
    for attempt in range(2):
        process = subprocess.Popen([sys.executable, "-c", FILL, str(path)], cwd=REPO, text=True,
                                   stdout=subprocess.PIPE)
        for _ in range(3 + 14 * attempt):
            process.stdout.readline()
        process.kill()
        said = process.stdout.read().split()
        process.wait()
        promised = int(said[-1]) if said else 2 + 14 * attempt
        assert {str(n) for n in range(promised + 1)} <= set(keys_of(path))


@pytest.mark.parametrize("end", [
    b"", b"{", b'{"key": "b"', b'{"key": "b", "te\0\0xt', b"\0\0x", written("b")[0][:-2]])
@pytest.mark.parametrize("zeros", [b"", b"\0" * 4096, b"\0\0\n", b"\n\0"])
def test_a_torn_line_and_a_tail_of_zeros_are_cut_off(path, end, zeros):
    path.write_bytes(written("a")[0] + end + zeros)
    kept = Journal.open(path)
    assert len(kept) == 1
    kept.add(record("c"))
    kept.close()
    assert path.read_bytes() == b"".join(written("a", "c"))


def test_a_line_that_was_torn_behind_a_brace_is_cut_off_as_well(path):
    path.write_bytes(written("a")[0] + b'{"key": "b", "usage": {"a": 1}')
    assert keys_of(path) == ["a"]


def test_a_journal_of_zeros_alone_is_empty(path):
    path.write_bytes(b"\0" * 5000)
    Journal.open(path).add(record("a"))
    assert path.read_bytes() == written("a")[0]


def test_memory_holds_no_line_and_any_form_of_one_is_read(path):
    usage = {"prompt_tokens": 1, "completion_tokens": 2}
    records = [record("a", usage=usage, request={"messages": ["가" * 100_000]}),
               {"model": "m", "key": "b"}, record("c", request={"x": 1}, price_factor=0.5)]
    path.write_text("\n".join(json.dumps(each, ensure_ascii=False) for each in records) + "\n")
    kept = Journal.open(path)
    assert list(kept.records()) == records and sys.getsizeof(kept.__dict__) < 10_000
    assert not any(isinstance(place, bytes) for place in kept._lines.values())
    assert [set(head) & {"request", "price_factor", "usage"} for head in kept.records(False)] == [
        {"usage"}, set(), {"request", "price_factor"}]
    path.write_bytes(b"x" * path.stat().st_size)
    with pytest.raises(CourseError, match='the line of the key "a" is broken: delete it'):
        kept.get("a")


def test_only_a_line_break_was_missing(path):
    path.write_bytes(b"".join(written("a", "b"))[:-1])
    Journal.open(path).add(record("c"))
    assert path.read_bytes() == b"".join(written("a", "b", "c"))


@pytest.mark.parametrize("content, number", [
    (written("a")[0] + b"?\n" + written("b")[0], 2), (b"[1, 2]", 1), (b'{"a": 1}\n', 1),
    (written("a")[0] + b"\0\0\n" + written("b")[0], 2), (b"\0\1\2", 1), (b"\n\n", 1),
    (written("a")[0] + b'{"key": "b", \0}\n' + written("c")[0], 2), (b'{"key": 3}\n', 1)])
def test_a_broken_line_is_named_and_a_foreign_file_left_alone(path, content, number):
    path.write_bytes(content)
    with pytest.raises(CourseError, match=f":{number} is not a journal line"):
        Journal.open(path)
    assert path.read_bytes() == content


def test_one_process_shares_a_journal_and_another_is_refused(path, tmp_path):
    kept = Journal.open(path)
    kept.add(record("a"))
    assert Journal.open(tmp_path / "." / "journal.jsonl") is kept  # the cell was run again
    program = f"from course_utils.plumbing.journal import Journal; Journal.open({str(path)!r})"
    other = [sys.executable, "-c", program]
    refused = subprocess.run(other, cwd=REPO, capture_output=True, text=True)
    assert "is in use by another process" in refused.stderr
    kept.close()
    subprocess.run(other, cwd=REPO, check=True)
    assert keys_of(path) == ["a"]


def test_a_deleted_journal_is_begun_anew(path):
    old = Journal.open(path)
    old.add(record("a"))
    path.unlink()
    Journal.open(path).add(record("b"))
    assert path.read_bytes() == written("b")[0]


def test_it_belongs_to_its_owner_alone_whatever_the_umask(path):
    before = os.umask(0)
    try:
        Journal.open(path)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o600


def test_whoever_watches_is_told_of_each_new_line(path):
    kept, told = Journal.open(path), []
    kept.watch = lambda: told.append(len(path.read_bytes().splitlines()))
    for key in ("a", "b", "a"):
        kept.add(record(key))
    assert told == [1, 2]


def test_no_key_is_written(path, monkeypatch):
    monkeypatch.setenv("MY_API_KEY", "planted-0f31aa92")
    kept = Journal.open(path)
    kept.add(record("a", text="the key is planted-0f31aa92, said the server"))
    assert json.loads(path.read_text())["text"] == "the key is [MY_API_KEY], said the server"
