"""A part is believed only when its manifest vouches for every byte; a crash loses nothing."""

import errno
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from course_utils import REPO, checkpoint
from course_utils.checkpoint import CheckpointStore, Sealing, SealingCallback
from course_utils.plumbing import parts
from course_utils.plumbing.parts import MANIFEST, CheckpointError


def fill(store, step, **files):
    work = store.local(step)
    for name, content in files.items():
        path = work / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return work


def contents(folder):
    return {
        p.relative_to(folder).as_posix(): p.read_text()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p.name != MANIFEST
    }


@pytest.fixture
def store(tmp_path):
    return CheckpointStore.open("run", tmp_path)


@pytest.fixture
def drive(tmp_path):
    """A store whose parts are on another disk than the work, as on Colab."""
    return CheckpointStore("run", tmp_path / "drive", tmp_path / "local")


def test_sealed_and_brought_back(store):
    assert store.latest("train") is None
    fill(store, "train", a="1", adapter__b="22")
    sealed = store.seal("train", {"data": "hash"})
    assert (sealed.path.name, sealed.files, sealed.bytes) == ("part-0001", 2, 3)
    assert store.latest("train") == sealed.path
    assert contents(sealed.path) == {"a": "1", "adapter/b": "22"}
    manifest = json.loads((sealed.path / MANIFEST).read_text())
    assert manifest["note"] == {"data": "hash"}
    assert manifest["files"]["a"] == {
        "bytes": 1,
        "sha256": "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b",
    }


def test_parts_are_numbered_immutable_and_two_are_kept(store):
    for i in range(4):
        fill(store, "train", a=str(i))
        store.seal("train")
    parts = sorted(p.name for p in (store.root / "run/train").glob("part-*"))
    assert parts == ["part-0003", "part-0004"]
    assert contents(store.root / "run/train/part-0003") == {"a": "2"}
    assert contents(store.latest("train")) == {"a": "3"}


def test_numbers_beyond_four_digits_keep_their_order(store):
    for name in ("part-9999", "part-10000"):
        fill(store, "train", a=name)
        os.rename(store.seal("train").path, store.root / "run/train" / name)
    fill(store, "train", a="newest")
    assert store.seal("train").path.name == "part-10001"


def _cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def _zeros(path):
    path.write_bytes(bytes(path.stat().st_size))


def _edit(path):
    path.write_text(path.read_text().replace('"run": "run"', '"run": "ruin"'))


def _naming(name):
    def rename(path):
        """Write a manifest that is right in itself and names a file that is none of the part's."""
        manifest = json.loads(path.read_text())
        manifest["files"] = {name: next(iter(manifest["files"].values()))}
        manifest["sha256"] = parts.seal_of(manifest)
        path.write_text(json.dumps(manifest))

    return rename


def _link(path):
    elsewhere = path.parent.parent / "elsewhere"
    os.rename(path, elsewhere)
    path.symlink_to(elsewhere)


def _no_checksum(path):
    manifest = json.loads(path.read_text())
    manifest["files"]["a"] = {"bytes": "5", "sha256": None}
    manifest["sha256"] = parts.seal_of(manifest)
    path.write_text(json.dumps(manifest))


DAMAGE = {
    "a file is missing": ("a", os.unlink, "a is missing"),
    "a file reads short": ("a", _cut, "a has 4 bytes instead of 5"),
    "a file reads as zeros": ("a", _zeros, "a is not what was written"),
    "the manifest is missing": (MANIFEST, os.unlink, "MANIFEST.json is missing"),
    "the manifest is cut": (MANIFEST, _cut, "MANIFEST.json is damaged"),
    "the manifest is zeros": (MANIFEST, _zeros, "MANIFEST.json is damaged"),
    "the manifest was edited": (MANIFEST, _edit, "was changed after it was written"),
    "the manifest knows no checksum": (MANIFEST, _no_checksum, "MANIFEST.json is damaged"),
    "a file is a link": ("a", _link, "a is a link"),
    **{
        f"the manifest names {name!r}": (MANIFEST, _naming(name), "outside the part")
        for name in ("../../../a", "/etc/passwd", "C:a", "..\\a", "a\0b", "b/./a", "")
    },
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("kind", ["store", "drive"])
def test_a_broken_part_is_named_and_the_one_before_it_used(kind, damage, request, capsys):
    store = request.getfixturevalue(kind)
    for content in ("older", "newer"):
        fill(store, "train", a=content)
        newest = store.seal("train").path
    name, break_it, reason = DAMAGE[damage]
    break_it(newest / name)
    assert contents(store.latest("train")) == {"a": "older"}
    said = capsys.readouterr().out
    assert said.startswith("Skipping run/train/part-0002: ") and reason in said
    # The next part gets a number of its own, and the broken one is not counted among those kept.
    fill(store, "train", a="newest")
    assert store.seal("train").path.name == "part-0003"
    assert contents(store.latest("train")) == {"a": "newest"}


def test_nothing_whole_is_nothing(store, capsys):
    fill(store, "train", a="1")
    os.unlink(store.seal("train").path / "a")
    assert store.latest("train") is None
    assert "part-0001: a is missing" in capsys.readouterr().out


def test_from_drive_it_is_copied_once_and_verified(drive, monkeypatch):
    fill(drive, "train", a="1")
    drive.seal("train")
    shutil.rmtree(drive.local_root)  # the session died: only Drive is left
    local = drive.latest("train")
    assert local == drive.local_root / "run/train/part-0001"
    assert contents(local) == {"a": "1"}
    (local / "a").write_text("2")  # somebody wrote into the copy: it is made anew
    assert contents(drive.latest("train")) == {"a": "1"}
    monkeypatch.setattr(parts, "copy", lambda *_: pytest.fail("copied again"))
    assert drive.latest("train") == local


def test_a_part_that_was_copied_into_the_work_can_be_sealed_again(store):
    fill(store, "train", a="1")
    shutil.copytree(store.seal("train").path, store.local("train"), dirs_exist_ok=True)
    again = store.seal("train")
    assert store.latest("train") == again.path
    assert again.files == 1


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.ENOTCONN])
@pytest.mark.parametrize("call", ["fsync", "rename", "mkdir"])
def test_a_disk_that_refuses_leaves_everything_as_it_was(store, monkeypatch, call, number):
    fill(store, "train", a="1")
    before = store.seal("train").path
    work = fill(store, "train", a="2", b="3")

    def refuse(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(parts.os, call, refuse)
        with pytest.raises(CheckpointError, match="could not be sealed.*work is still in"):
            store.seal("train")
    assert store.latest("train") == before
    assert contents(work) == {"a": "2", "b": "3"}
    assert [p.name for p in before.parent.iterdir() if p.name.startswith(".")] == []
    assert store.seal("train").path.name == "part-0002"


class Killed(BaseException):
    """Stands for SIGKILL: nothing after it is done, not even a `finally`."""


def test_a_crash_at_any_call_leaves_the_old_part_or_the_new_one(tmp_path):
    crashes = 0
    while _seal_and_crash(CheckpointStore.open(f"run{crashes}", tmp_path), crashes + 1):
        crashes += 1
    assert crashes > 20


def _seal_and_crash(store, at):
    """Die at the call number `at` that touches the disk while sealing; return whether it came."""
    for content in ("one", "two"):
        fill(store, "train", a=content, b__c=content)
        store.seal("train")
    fill(store, "train", a="three", b__c="three")
    count = 0

    def counted(function):
        def call(*args, **kwargs):
            nonlocal count
            count += 1
            if count >= at:  # once dead, nothing works any more
                raise Killed
            return function(*args, **kwargs)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in ("fsync", "rename", "open"):
            patch.setattr(parts.os, name, counted(getattr(os, name)))
        patch.setattr(parts.shutil, "rmtree", counted(shutil.rmtree))
        patch.setattr(parts, "open", counted(open), raising=False)
        patch.setattr(Path, "mkdir", counted(Path.mkdir))
        try:
            store.seal("train")
            crashed = False
        except Killed:
            crashed = True
    found = contents(store.latest("train"))
    assert found in ({"a": "two", "b/c": "two"}, {"a": "three", "b/c": "three"})
    again = store.seal("train")
    assert contents(store.latest("train")) == {"a": "three", "b/c": "three"}
    assert len(list(again.path.parent.glob("part-*"))) == 2
    return crashed


def test_sigkill_while_sealing(tmp_path):
    """A real process, killed at real moments, again and again: the newest part is always whole."""
    script = (
        "import sys\n"
        "from course_utils.checkpoint import CheckpointStore\n"
        "store = CheckpointStore.open('run', sys.argv[1])\n"
        "for i in range(10**6):\n"
        "    for name in 'abc':\n"
        "        (store.local('train') / name).write_text(str(i) * 5000)\n"
        "    store.seal('train')\n"
        "    print(i, flush=True)\n"
    )
    store = CheckpointStore.open("run", tmp_path)
    for attempt in range(6):
        process = subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, cwd=REPO
        )
        process.stdout.readline()
        time.sleep(0.013 * attempt)
        process.kill()
        last = int(([b"0"] + process.stdout.read().split())[-1])
        process.wait()
        found = contents(store.latest("train"))
        assert len(set(found.values())) == 1
        assert found["a"] in (str(last) * 5000, str(last + 1) * 5000)
    leftovers = [p for p in (tmp_path / "run/train").iterdir() if p.name.startswith(".")]
    store.seal("train")
    assert not any(p.exists() for p in leftovers)


def test_a_living_process_keeps_its_unfinished_part(store):
    home, here = fill(store, "train", a="1").parent, re.sub(r"\W", "", platform.node())
    ours, dead = (home / f".making-{here}-{pid}-0a1b2c3d" for pid in (os.getpid(), 4194999))
    another, old = (home / f".removing-another-4194999-{name}" for name in ("0a1b2c3d", "4e5f6a7b"))
    for folder in (ours, dead, another, old):
        folder.mkdir()
    os.utime(old, (time.time() - 25 * 3600,) * 2)  # nothing takes a day
    store.seal("train")
    assert [path.exists() for path in (ours, dead, another, old)] == [True, False, True, False]


def test_a_part_that_another_machine_broke_while_it_was_named_is_no_success(store, monkeypatch):
    fill(store, "train", a="1")
    real = os.rename

    def rename(source, target):
        real(source, target)
        if Path(target).name == "part-0001":
            (target / "a").unlink()

    monkeypatch.setattr(parts.os, "rename", rename)
    with pytest.raises(CheckpointError, match="part-0001 was not sealed .a is missing.: seal"):
        store.seal("train")


def test_two_that_seal_at_once_get_two_numbers(store, monkeypatch):
    fill(store, "train", a="1")
    real, raced = os.rename, []

    def rename(source, target):
        if not raced and Path(target).name == "part-0001":
            raced.append(True)
            store.seal("train")  # the other notebook is faster
        real(source, target)

    monkeypatch.setattr(parts.os, "rename", rename)
    assert store.seal("train").path.name == "part-0002"
    assert len(list((store.root / "run/train").glob("part-*"))) == 2


def test_nothing_to_seal_and_bad_names(store):
    with pytest.raises(CheckpointError, match="nothing to seal"):
        store.seal("train")
    for name in ("", "..", "a/b", "a.", "../x"):
        with pytest.raises(CheckpointError, match="cannot be named"):
            store.local(name)
        with pytest.raises(CheckpointError, match="cannot be named"):
            CheckpointStore.open(name)


def test_folders_that_cannot_be_used_are_not_taken_for_empty_ones(store, monkeypatch):
    fill(store, "train", a="1")
    store.seal("train")

    def gone(*args, **kwargs):
        raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "iterdir", gone)
        with pytest.raises(CheckpointError, match="not connected.; if it is on Drive, mount it"):
            store.latest("train")
    (store.root / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot be made"):
        CheckpointStore.open("run", store.root / "file").local("train")


def test_a_link_is_not_followed(store, tmp_path):
    (tmp_path / "secret").write_text("key")
    (fill(store, "train", a="1") / "link").symlink_to(tmp_path / "secret")
    assert contents(store.seal("train").path) == {"a": "1"}


def test_clear_removes_a_step(drive):
    fill(drive, "train", a="1")
    fill(drive, "other", a="1")
    drive.seal("train")
    drive.seal("other")
    drive.clear("train")
    assert drive.latest("train") is None
    assert contents(drive.local("train")) == {}
    assert drive.latest("other") is not None


def test_where_runs_are_kept(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("COLAB_RELEASE_TAG", raising=False)
    monkeypatch.chdir(REPO / "tests")
    assert CheckpointStore.open("x").root == REPO / "runs"
    monkeypatch.chdir(tmp_path)
    assert CheckpointStore.open("x").root == tmp_path / "runs"
    # On Colab: work on the machine's disk, parts on Drive; without Drive a warning.
    monkeypatch.setenv("COLAB_RELEASE_TAG", "release")
    monkeypatch.setattr(checkpoint, "COLAB", tmp_path / "content")
    monkeypatch.setattr(checkpoint, "DRIVE", tmp_path / "MyDrive")
    assert CheckpointStore.open("x").root == tmp_path / "content/runs"
    assert "Drive is not mounted" in capsys.readouterr().out
    (tmp_path / "MyDrive").mkdir()
    store = CheckpointStore.open("x")
    assert store.root == tmp_path / "MyDrive/instruction-tuning/runs"
    assert store.local("train") == tmp_path / "content/runs/x/train/work"


def test_the_callback_seals_and_survives_a_failing_disk(store, monkeypatch, capsys):
    from types import SimpleNamespace

    callback = SealingCallback(store, "train")
    state = SimpleNamespace(is_world_process_zero=True, global_step=7)
    fill(store, "train", a="1")
    callback.on_save(None, state, None)
    part = store.latest("train")
    assert json.loads((part / MANIFEST).read_text())["note"] == {"step": 7}
    fill(store, "train", a="2")
    monkeypatch.setattr(parts.os, "fsync", lambda _: (_ for _ in ()).throw(OSError(5, "EIO")))
    callback.on_save(None, state, None)
    assert "could not be sealed" in capsys.readouterr().err
    callback.on_save(None, SimpleNamespace(is_world_process_zero=False), None)
    monkeypatch.undo()
    assert store.latest("train") == part


def test_the_callback_has_the_trainer_save_when_its_steps_take_long(store, monkeypatch):
    from types import SimpleNamespace

    callback = SealingCallback(store, "train", minutes=10)
    now = [0.0]
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: now[0])
    callback.on_train_begin(None, None, None)
    asked = []
    for minute in range(1, 26):
        now[0] = 60.0 * minute
        control = SimpleNamespace(should_save=False)
        callback.on_step_end(None, None, control)
        if control.should_save:
            asked.append(minute)
            callback.on_save(None, SimpleNamespace(is_world_process_zero=False), None)
    assert asked == [10, 20]


# --- journals: copied while they grow -----------------------------------------------------------


def lines(*numbers):
    return b"".join(b'{"key": "%d"}\n' % number for number in numbers)


def copies(store, step="train"):
    """What the copies beside the parts hold, oldest first."""
    home = store.root / "run" / step / "journals"
    return [(part / "journal.jsonl").read_bytes() for part in parts.parts(home)]


def test_a_journal_is_copied_while_it_grows_and_no_part_is_made(drive):
    journal = drive.local("train") / "journal.jsonl"
    journal.write_bytes(lines(1, 2) + b'{"key": "3')  # a reply is being written
    drive.seal_journals("train")
    assert copies(drive) == [lines(1, 2)] and drive.latest("train") is None  # nothing is finished
    journal.write_bytes(lines(1, 2, 3))
    drive.seal_journals("train")
    drive.seal_journals("train")  # nothing new
    assert copies(drive) == [lines(1, 2), lines(1, 2, 3)]
    fill(drive, "train", a="1")
    sealed = drive.seal("train")
    assert contents(sealed.path) == {"a": "1", "journal.jsonl": lines(1, 2, 3).decode()}
    assert (sealed.files, sealed.bytes) == (2, 1 + len(lines(1, 2, 3)))
    journal.write_bytes(lines(1, 2, 3, 4))
    drive.seal_journals("train")
    assert copies(drive) == [lines(1, 2, 3), lines(1, 2, 3, 4)]  # two are kept
    assert drive.latest("train").name == "part-0001"


def test_a_step_without_a_journal_has_no_copies(drive):
    fill(drive, "train", a="1")
    drive.seal("train")
    assert [path.name for path in (drive.root / "run/train").iterdir()] == ["part-0001"]


def test_restored_from_part_and_copies_byte_for_byte(drive):
    work = fill(drive, "train", a="1", b__c="2")
    journal = work / "journal.jsonl"
    journal.write_bytes(lines(1, 2))
    drive.seal("train")
    journal.write_bytes(lines(1, 2, 3))
    drive.seal_journals("train")  # after the part: ten minutes into the next step's work
    shutil.rmtree(drive.local_root)
    work = drive.restore("train")
    assert contents(work) == {"a": "1", "b/c": "2", "journal.jsonl": lines(1, 2, 3).decode()}
    assert not [path for path in work.rglob(".*")]
    again = drive.seal("train")
    assert again.path.name == "part-0002" and len(copies(drive)) == 2


def test_a_part_is_read_with_the_journal_as_it_was_then(drive):
    work = fill(drive, "train", a="1")
    for number in (1, 2):
        (work / "journal.jsonl").write_bytes(lines(*range(number)))
        part = drive.seal("train", {"n": number}).path
    (work / "journal.jsonl").write_bytes(lines(0, 1, 2))
    drive.seal_journals("train")
    read = drive.latest("train") / "journal.jsonl"
    assert read.read_bytes() == lines(0, 1)
    read.write_bytes(lines(0, 7))  # somebody wrote into it
    assert (drive.latest("train") / "journal.jsonl").read_bytes() == lines(0, 1)
    (part / MANIFEST).unlink()
    assert (drive.latest("train") / "journal.jsonl").read_bytes() == lines(0)


def test_restoring_overwrites_nothing(drive):
    work = fill(drive, "train", a="old", b="old")
    (work / "journal.jsonl").write_bytes(lines(1))
    drive.seal("train")
    (work / "a").write_text("newer")
    (work / "b").unlink()
    (work / "journal.jsonl").write_bytes(lines(1, 2))
    assert contents(drive.restore("train")) == {
        "a": "newer", "journal.jsonl": lines(1, 2).decode()}  # fmt: skip
    (work / "a").unlink()  # a journal alone, perhaps an empty one: the files come back beside it
    (work / "journal.jsonl").write_bytes(b"")
    assert contents(drive.restore("train")) == {
        "a": "old", "b": "old", "journal.jsonl": lines(1).decode()}  # fmt: skip


def test_a_restoration_that_was_killed_is_finished(drive, monkeypatch):
    fill(drive, "train", **{name: name for name in "abcd"})
    drive.seal("train")
    shutil.rmtree(drive.local_root)
    real, left = os.replace, [2]

    def replace(source, target):
        if Path(target).parent.name == "work":
            left[0] -= 1
            if left[0] < 0:
                raise Killed
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.os, "replace", replace)
        with pytest.raises(Killed):
            drive.restore("train")
    assert len(contents(drive.local("train"))) < 4 + 1
    sealed = drive.seal("train")  # not what is there of it, but the whole
    assert contents(sealed.path) == {name: name for name in "abcd"} == contents(
        drive.restore("train"))  # fmt: skip


def test_a_broken_copy_is_named_and_takes_nothing_from_the_others(drive, capsys):
    journal = drive.local("train") / "journal.jsonl"
    for upto in (2, 4):
        journal.write_bytes(lines(*range(upto)))
        drive.seal_journals("train")
    shutil.rmtree(drive.local_root)
    assert drive.check() == []
    _cut(drive.root / "run/train/journals/part-0002/journal.jsonl")
    (broken,) = drive.check()
    assert broken == ("train/journals/part-0002 is broken: journal.jsonl has 51 bytes instead of "
                      "52.")
    work = drive.restore("train")
    assert (work / "journal.jsonl").read_bytes() == lines(0, 1)
    said = capsys.readouterr().out
    assert said.startswith("Skipping run/train/journals/part-0002/journal.jsonl: journal.jsonl has")
    (work / "journal.jsonl").write_bytes(lines(0, 1, 4))
    fill(drive, "train", a="1")
    part = drive.seal("train").path  # from here on the part has it, too
    for copy in parts.parts(drive.root / "run/train/journals"):
        (copy / MANIFEST).unlink()
    shutil.rmtree(drive.local_root)
    assert (drive.restore("train") / "journal.jsonl").read_bytes() == lines(0, 1, 4)
    assert part.name == "part-0001"


def test_a_copy_that_drive_lost_is_made_again(drive):
    journal = drive.local("train") / "journal.jsonl"
    journal.write_bytes(lines(1))
    drive.seal_journals("train")
    for lose in (_cut, _zeros, os.unlink):
        for again in (False, True):
            newest = parts.parts(drive.root / "run/train/journals")[-1] / "journal.jsonl"
            if not again:
                lose(newest)
            drive.seal_journals("train")
        assert newest.read_bytes() == lines(1)


def test_a_journal_begun_anew_takes_nothing_sealed_away(drive):
    work = fill(drive, "train", a="0")
    for number, content in enumerate([lines(1), lines(2, 1), lines(3), lines(4), lines(5)]):
        (work / "journal.jsonl").write_bytes(content)  # begun anew each time
        (work / "a").write_text(str(number))
        drive.seal("train")
    (work / "journal.jsonl").unlink()  # and another one beside it
    for number in range(3):
        (work / "batch.jsonl").write_bytes(lines(*range(number + 1)))
        drive.seal_journals("train")
    shutil.rmtree(drive.local_root)
    work = drive.restore("train")
    restored = (work / "journal.jsonl").read_bytes().splitlines()
    assert sorted(restored) == lines(1, 2, 3, 4, 5).splitlines()
    assert (work / "batch.jsonl").read_bytes() == lines(0, 1, 2)


def test_a_copy_that_is_here_already_is_not_read_again(drive, monkeypatch):
    journal = drive.local("train") / "journal.jsonl"
    for upto in (1, 2, 3):
        journal.write_bytes(lines(*range(upto)))
        drive.seal_journals("train")
    read, real = [], Path.read_bytes

    def read_bytes(path):
        read.append(path)
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    journal.write_bytes(lines(*range(4)))
    drive.seal_journals("train")
    assert read == [journal]  # nothing through Drive's mount
    shutil.rmtree(drive.local_root)
    drive.restore("train")
    assert read[1:] == [drive.root / "run/train/journals/part-0004/journal.jsonl"]


def test_two_machines_on_one_drive_keep_each_others_replies(tmp_path):
    one, two = (CheckpointStore("run", tmp_path / "drive", tmp_path / name) for name in "ab")
    for number in range(6):
        for store, start in ((one, 0), (two, 100)):
            with open(store.local("evaluate") / "journal.jsonl", "ab") as file:
                file.write(lines(start + number))
            store.seal("evaluate")
    new = CheckpointStore("run", tmp_path / "drive", tmp_path / "c")
    restored = (new.restore("evaluate") / "journal.jsonl").read_bytes().splitlines()
    assert {*restored} == {*lines(*range(6), *range(100, 106)).splitlines()}


@pytest.mark.parametrize("tail", [b'{"key": "9", "text": "x"}', b'{"key": "9", "te'])
def test_a_last_line_without_its_end_is_sealed_if_it_is_whole(drive, tail):
    work = fill(drive, "train", a="0")
    (work / "journal.jsonl").write_bytes(lines(1) + tail)
    drive.seal("train")
    shutil.rmtree(drive.local_root)
    restored = (drive.restore("train") / "journal.jsonl").read_bytes()
    assert restored == lines(1) + (tail if tail.endswith(b"}") else b"")


def test_sealing_what_is_sealed_makes_no_new_part(drive):
    work = fill(drive, "train", a="1")
    (work / "journal.jsonl").write_bytes(lines(1))
    first = drive.seal("train", {"n": 1})
    assert drive.seal("train", {"n": 1}) == first
    assert drive.seal("train", {"n": 2}).path.name == "part-0002"  # another note is news
    _zeros(drive.root / "run/train/part-0002/a")
    assert drive.seal("train", {"n": 2}).path.name == "part-0003"  # and so is a broken part
    (work / "journal.jsonl").write_bytes(lines(1, 2))
    assert drive.seal("train", {"n": 2}).path.name == "part-0004"


def test_a_loop_seals_soon_after_each_reply(drive, monkeypatch, capsys):
    journal = drive.local("train") / "journal.jsonl"
    reply_arrived = Sealing(drive, "train", minutes=0.002)

    def arrives(number):
        with open(journal, "ab") as file:
            file.write(lines(number))
        reply_arrived()

    def wait_for(condition):
        deadline = time.monotonic() + 20
        while not condition() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert condition()

    arrives(1)  # and none follows
    wait_for(lambda: len(copies(drive)) == 1)
    with monkeypatch.context() as patch:
        patch.setattr(parts, "copy", lambda *_: (_ for _ in ()).throw(OSError(107, "gone")))
        arrives(2)
        time.sleep(0.5)  # it has failed several times
        assert len(copies(drive)) == 1
    wait_for(lambda: len(copies(drive)) == 2)  # without another reply
    assert capsys.readouterr().out.count("could not be sealed") == 1


def test_checking_names_each_broken_part_and_reads_no_more_than_it_may(drive):
    for content in ("older", "newer"):
        fill(drive, "train", a=content)
        drive.seal("train")
        fill(drive, "evaluate", a=content)
        drive.seal("evaluate")
    assert drive.check() == []
    home = drive.root / "run"
    _zeros(home / "evaluate/part-0002/a")
    _cut(home / "train/part-0001" / MANIFEST)
    found = drive.check()
    assert [line.split(":")[0] for line in found] == [
        "evaluate/part-0002 is broken", "train/part-0001 is broken"]  # fmt: skip
    assert len(drive.check(limit=4)) == 1  # zeros have the right size


def test_the_manifest_says_where_it_comes_from(tmp_path):
    store = CheckpointStore.open("run", tmp_path, about={"recipe": "abc", "data": None})
    fill(store, "train", a="1")
    manifest = json.loads((store.seal("train").path / MANIFEST).read_text())
    assert manifest["about"] == {"recipe": "abc", "data": None}
    assert {"course_utils", "python", "openai", "torch"} <= manifest["versions"].keys()
    assert manifest["time"].startswith("20")


def test_nobody_else_may_read_a_run(store):
    before = os.umask(0)
    try:
        work = fill(store, "train", a="1")
        (work / "journal.jsonl").write_bytes(lines(1))
        part = store.seal("train").path
        modes = {path: path.stat().st_mode & 0o777 for path in [
            store.root / "run", part, part / "a", part / MANIFEST,
            *(store.root / "run/train/journals").rglob("*")]}  # fmt: skip
        assert not [path for path, mode in modes.items() if mode & 0o077]
        os.chmod(store.root / "run", 0o755)  # made by an older version
        store.local("train")
        assert (store.root / "run").stat().st_mode & 0o777 == 0o700
    finally:
        os.umask(before)


def test_neither_keys_nor_half_written_files_are_sealed(store):
    work = fill(store, "train", a="1")
    for name in (".env", ".a.123.tmp"):
        (work / name).write_text("x")
    assert contents(store.seal("train").path) == {"a": "1"}
    (work / "a\\b").write_text("1")
    with pytest.raises(CheckpointError, match="rename it"):
        store.seal("train")


class Hub:
    """Stands for huggingface_hub.HfApi: what was uploaded, or an error."""

    uploaded: dict = {}
    error = None

    def __init__(self, token=None):
        pass

    def create_repo(self, repo_id, **_):
        if self.error:
            raise self.error

    def repo_info(self, repo_id, **_):
        from types import SimpleNamespace

        return SimpleNamespace(private=True)

    def create_commit(self, repo_id, operations, **_):
        for operation in operations:
            self.uploaded[operation.path_in_repo] = Path(operation.path_or_fileobj).read_text()


def test_an_adapter_is_copied_to_the_hub_and_no_seal_fails_for_it(tmp_path, monkeypatch, capsys):
    import huggingface_hub

    from course_utils.plumbing import hub

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    monkeypatch.setattr(Hub, "uploaded", {})
    monkeypatch.setattr(hub, "answers", lambda: True)
    store = CheckpointStore.open("run", tmp_path, mirror=partial(hub.upload, "me/adapters"))
    fill(store, "evaluate", a="1")
    store.seal("evaluate")
    assert Hub.uploaded == {}
    fill(store, "train", log="1", adapter__x="weights")
    store.seal("train")
    assert Hub.uploaded == {"run/train/adapter/x": "weights"}
    monkeypatch.setattr(Hub, "error", RuntimeError("Bad token hf_abcdefghijklmnopqrstu"))
    fill(store, "train", adapter__x="newer")
    sealed = store.seal("train")
    assert store.latest("train") == sealed.path
    said = capsys.readouterr().out
    assert "not copied to the Hub" in said and "hf_abc" not in said


def test_it_imports_no_heavy_library():
    code = (
        "import sys, course_utils.checkpoint, course_utils.recipe, course_utils.collator, "
        "course_utils.train, course_utils.inference\n"
        "print([m for m in ('torch', 'transformers', 'trl', 'datasets') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True)
    assert found.stdout.strip() == "[]", found.stderr
