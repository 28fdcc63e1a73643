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


def record(key, **more):
    return {"key": key, "model": "m", "text": "가", **more}


def test_the_first_of_a_key_stays_and_the_order_is_that_of_arrival(tmp_path):
    kept = Journal.open(tmp_path / "journal.jsonl")
    for key, text in (("b", "1"), ("a", "2"), ("b", "3")):
        kept.add(record(key, text=text))
    kept.close()
    again = Journal.open(tmp_path / "journal.jsonl")
    assert [(r["key"], r["text"]) for r in again.records()] == [("b", "1"), ("a", "2")]


def test_a_line_is_on_disk_before_add_returns(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(journal.os, "fsync", lambda fd: synced.append(os.fstat(fd).st_size))
    kept = Journal.open(tmp_path / "journal.jsonl")
    kept.add(record("a"))
    assert synced == [kept.path.stat().st_size] != [0]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.ENOTCONN])
def test_a_disk_that_refuses_is_one_sentence_and_the_reply_is_not_taken_for_kept(
    tmp_path, monkeypatch, number
):
    kept = Journal.open(tmp_path / "journal.jsonl")
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
    assert len(Journal.open(tmp_path / "journal.jsonl")) == 2


FILL = """
import sys
from course_utils.plumbing.journal import Journal
kept = Journal.open(sys.argv[1])
for n in range(10**6):
    kept.add({"key": str(n), "model": "m", "text": "x" * 3000})
    print(n, flush=True)
"""


def test_sigkill_while_appending_loses_no_line_that_was_promised(tmp_path):
    path = tmp_path / "journal.jsonl"
    for attempt in range(4):
        process = subprocess.Popen([sys.executable, "-c", FILL, str(path)], cwd=REPO, text=True,
                                   stdout=subprocess.PIPE)  # fmt: skip
        for _ in range(3 + 7 * attempt):
            process.stdout.readline()
        process.kill()
        said = process.stdout.read().split()
        process.wait()
        kept = Journal.open(path)
        promised = int(said[-1]) if said else 2 + 7 * attempt
        assert {str(n) for n in range(promised + 1)} <= {r["key"] for r in kept.records()}
        kept.close()


def test_it_belongs_to_its_owner_alone_whatever_the_umask(tmp_path):
    before = os.umask(0)
    try:
        kept = Journal.open(tmp_path / "journal.jsonl")
    finally:
        os.umask(before)
    assert kept.path.stat().st_mode & 0o777 == 0o600


def test_whoever_watches_is_told_of_each_new_line(tmp_path):
    kept, told = Journal.open(tmp_path / "journal.jsonl"), []
    kept.watch = lambda: told.append(len(kept.path.read_bytes().splitlines()))
    for key in ("a", "b", "a"):
        kept.add(record(key))
    assert told == [1, 2]


def test_no_key_is_written(tmp_path, monkeypatch):
    monkeypatch.setenv("MY_API_KEY", "planted-0f31aa92")
    kept = Journal.open(tmp_path / "journal.jsonl")
    kept.add(record("a", text="the key is planted-0f31aa92, said the server"))
    assert json.loads(kept.path.read_text())["text"] == "the key is [MY_API_KEY], said the server"
