"""The journal: one line a reply, kept before anybody sees it, whatever happens to the process."""

import errno
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


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.ENOTCONN])
def test_a_disk_that_refuses_is_one_sentence_and_the_reply_is_not_taken_for_kept(
        path, monkeypatch, number):
    kept = Journal.open(path)
    kept.add(record("a"))

    def refuse(_):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(journal.os, "fsync", refuse)
        with pytest.raises(CourseError, match="make room or remount"):
            kept.add(record("b"))
    assert kept.get("b") is None and kept.get("a")
    kept.add(record("b"))  # there is room again: the key stands twice, and counts once
    kept.close()
    assert keys_of(path) == ["a", "b"]


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


@pytest.mark.parametrize("end", [b"", b"{", b'{"key": "b"', written("b")[0][:-2]])
@pytest.mark.parametrize("zeros", [0, 4096])
def test_a_torn_line_and_a_tail_of_zeros_are_cut_off(path, end, zeros):
    path.write_bytes(written("a")[0] + end + b"\0" * zeros)
    kept = Journal.open(path)
    kept.add(record("c"))
    kept.close()
    assert path.read_bytes() == b"".join(written("a", "c"))


def test_only_a_line_break_was_missing(path):
    path.write_bytes(b"".join(written("a", "b"))[:-1])
    Journal.open(path).add(record("c"))
    assert path.read_bytes() == b"".join(written("a", "b", "c"))


@pytest.mark.parametrize("content, number", [
    (written("a")[0] + b"?\n" + written("b")[0], 2), (b"[1, 2]", 1), (b'{"a": 1}\n', 1),
    (written("a")[0] + b"\0\0\n" + written("b")[0], 2)])
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
