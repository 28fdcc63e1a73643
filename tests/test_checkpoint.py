"""A part is believed only when its manifest vouches for every byte; a crash loses nothing."""

import errno
import json
import os
import shutil
import threading
import time
import unicodedata
from pathlib import Path
from types import SimpleNamespace

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
    return {p.relative_to(folder).as_posix(): p.read_text()
            for p in sorted(folder.rglob("*")) if p.is_file() and p.name != MANIFEST}


@pytest.fixture
def store(tmp_path):
    return CheckpointStore.open("run", tmp_path)


@pytest.fixture
def drive(tmp_path):
    """A store whose parts are on another disk than the work, as on Colab."""
    return CheckpointStore("run", tmp_path / "drive", tmp_path / "local")


def test_sealed_and_brought_back(tmp_path):
    store = CheckpointStore.open("run", tmp_path, about={"recipe": "abc", "data": None})
    assert store.latest("train") is None
    fill(store, "train", a="1", adapter__b="22")
    sealed = store.seal("train", {"data": "hash"})
    assert (sealed.path.name, sealed.files, sealed.bytes) == ("part-0001", 2, 3)
    assert store.latest("train") == sealed.path
    assert contents(sealed.path) == {"a": "1", "adapter/b": "22"}
    manifest = json.loads((sealed.path / MANIFEST).read_text())
    assert manifest["note"] == {"data": "hash"}
    assert manifest["about"] == {"recipe": "abc", "data": None}
    assert manifest["versions"].keys() == {"course_utils", "python"}
    assert manifest["time"].startswith("20")
    assert manifest["files"]["a"] == {
        "bytes": 1, "sha256": "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b"}
    shutil.copytree(sealed.path, store.local("train"), dirs_exist_ok=True)  # to go on from it
    assert store.seal("train").files == 2


def test_parts_are_numbered_immutable_and_two_are_kept(store):
    home = store.root / "run/train"
    for i in range(4):
        fill(store, "train", a=str(i))
        store.seal("train")
    assert sorted(p.name for p in home.glob("part-*")) == ["part-0003", "part-0004"]
    assert contents(home / "part-0003") == {"a": "2"}
    assert contents(store.latest("train")) == {"a": "3"}
    for old, new in (("part-0003", "part-9999"), ("part-0004", "part-10000")):
        os.rename(home / old, home / new)
    fill(store, "train", a="newest")
    newest = store.seal("train").path
    assert newest.name == "part-10001"
    for part in home.glob("part-*"):
        os.unlink(part / "a")
    assert store.latest("train") is None  # nothing whole is nothing


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def zeros(path):
    path.write_bytes(bytes(path.stat().st_size))


def forged(files):
    def forge(path):
        """Write a manifest that is right in itself and vouches for something else."""
        manifest = json.loads(path.read_text())
        manifest["files"] = files(manifest["files"]["a"])
        del manifest["sha256"]
        manifest["sha256"] = parts.digest(manifest)
        path.write_text(json.dumps(manifest))

    return forge


def link(path):
    elsewhere = path.parent.parent / "elsewhere"
    os.rename(path, elsewhere)
    path.symlink_to(elsewhere)


DAMAGE = {
    "a file is missing": ("a", os.unlink, "a is missing"),
    "a file reads short": ("a", cut, "a has 4 bytes instead of 5"),
    "a file reads as zeros": ("a", zeros, "a is not what was written"),
    "a file is a link": ("a", link, "a is a link"),
    "the manifest is missing": (MANIFEST, os.unlink, "MANIFEST.json is missing"),
    "the manifest is cut": (MANIFEST, cut, "MANIFEST.json is damaged"),
    "the manifest is zeros": (MANIFEST, zeros, "MANIFEST.json is damaged"),
    "the manifest was edited": (
        MANIFEST, lambda path: path.write_text(path.read_text().replace('"run"', '"ran"', 1)),
        "was changed after it was written"),
    "the manifest knows no checksum": (
        MANIFEST, forged(lambda file: {"a": {"bytes": "5", "sha256": None}}), "is damaged"),
    **{f"the manifest names {name!r}": (
        MANIFEST, forged(lambda file, name=name: {name: file}), "outside the part")
        for name in ("../../../a", "b/../../a", "/etc/passwd", "C:a", "C:/a", "..\\a", "a\0b",
                     "b/./a", "b//a", "b/", ".", "")},
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


def test_from_drive_it_is_copied_once_and_verified(drive, monkeypatch, capsys):
    fill(drive, "train", a="1")
    part = drive.seal("train").path
    shutil.rmtree(drive.local_root)  # the session died: only Drive is left
    local = drive.latest("train")
    assert local == drive.local_root / "run/train/part-0001"
    assert contents(local) == {"a": "1"}
    (local / "a").write_text("2")  # somebody wrote into the copy: it is made anew
    assert contents(drive.latest("train")) == {"a": "1"}
    with monkeypatch.context() as patch:
        patch.setattr(parts, "copy", lambda *_, **__: pytest.fail("copied again"))
        assert drive.latest("train") == local
    shutil.rmtree(local)
    real = open

    def served_short(name, *given, **named):  # the size is right, what is read is not
        file = real(name, *given, **named)
        if Path(name) == part / "a":
            file.read(1)
        return file

    monkeypatch.setattr(parts, "open", served_short, raising=False)
    assert drive.latest("train") is None
    assert "a is not what was written" in capsys.readouterr().out
    monkeypatch.setattr(parts, "open", real)
    assert contents(drive.latest("train")) == {"a": "1"}


def refuse(number):
    def call(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    return call


class Killed(BaseException):
    """Stands for SIGKILL."""


def test_a_living_process_keeps_its_unfinished_part(store):
    home, here = fill(store, "train", a="1").parent, parts._MACHINE
    ours, dead = (home / f".making-{here}-{pid}-0a1b2c3d" for pid in (os.getpid(), 4194999))
    another, old = (home / f".making-another-4194999-{name}" for name in ("0a1b2c3d", "4e5f6a7b"))
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


def test_what_is_refused(store, tmp_path, monkeypatch):
    with pytest.raises(CheckpointError, match="nothing to seal"):
        store.seal("train")
    for name in ("", "..", "a/b", "a.", "../x"):
        for ask in (store.local, store.latest, store.clear, CheckpointStore.open):
            with pytest.raises(CheckpointError, match="cannot be named"):
                ask(name)
    (tmp_path / "file").write_text("")
    for root in ("file", "file/runs"):
        with pytest.raises(CheckpointError, match="cannot be made"):
            CheckpointStore.open("run", tmp_path / root)
    for at in (os, "rename"), (shutil, "rmtree"):  # all that is read-only, or some of it
        fill(store, "train", a="1")
        store.seal("train")
        with monkeypatch.context() as patch:
            patch.setattr(*at, refuse(errno.EROFS))
            with pytest.raises(CheckpointError, match="could not be cleared.*Read-only"):
                store.clear("train")


@pytest.mark.parametrize("name", [b"a\\b", b"a\xff", b"\xff/a", "가".encode() * 85 + b"/a\xed"])
def test_a_name_that_not_every_system_has_is_refused(store, name):
    path = os.path.join(os.fsencode(fill(store, "train", a="1")), name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    open(path, "w").close()
    with pytest.raises(CheckpointError, match="cannot be sealed on every system: rename it"):
        store.seal("train")
    with pytest.raises(CheckpointError):
        store.seal("가" * 90)  # too long for a folder
    assert store.seal("other", fill(store, "other", a="1") and {"half": "\udcff"}).files == 1
    assert store.latest("other")


def test_hangul_in_pieces_is_the_same_name(tmp_path):
    """A Mac takes syllables apart in the names of its files; so does an archive made on one."""
    whole, pieces = "한글", unicodedata.normalize("NFD", "한글")
    one, two = (CheckpointStore(name, tmp_path / "drive", tmp_path / "local")
                for name in (whole, pieces))
    work = fill(two, pieces, **{f"{pieces}__{pieces}": "1", "journal.jsonl": "{}"})
    assert one.local(whole) == work == tmp_path / "local" / whole / whole / "work"
    one.seal(whole)
    part = two.seal(pieces).path
    assert part.name == "part-0001" == one.latest(whole).name
    for path in sorted((tmp_path / "drive").rglob(f"*{whole}*"), reverse=True):
        os.rename(path, path.with_name(unicodedata.normalize("NFD", path.name)))
    shutil.rmtree(tmp_path / "local")
    for name in (whole, pieces):
        store = CheckpointStore(name, tmp_path / "drive", tmp_path / "local")
        assert store.check() == []
        assert contents(store.restore(name))[f"{whole}/{whole}"] == "1"
        assert len(list((tmp_path / "drive").iterdir())) == 1
    work = store.local(whole)
    (work / pieces).mkdir()
    (work / pieces / pieces).write_text("2")
    with pytest.raises(CheckpointError, match="two files named '한글/한글'"):
        store.seal(whole)


def test_looking_makes_nothing_and_what_was_there_is_not_made_again(tmp_path):
    root = tmp_path / "above/drive"
    store = CheckpointStore("run", root, tmp_path / "local")
    assert store.check() == [] and store.latest("train") is None
    store.clear("train")
    assert not list(tmp_path.iterdir())
    fill(store, "train", a="1")
    for left in (False, True):  # what an unmounted Drive leaves: nothing, or an empty folder
        os.rename(root, tmp_path / "away")
        if left:
            root.mkdir()
        for act in (store.seal, store.latest, store.restore, store.seal_journals, store.clear):
            with pytest.raises(CheckpointError, match="remount"):
                act("train")
        with pytest.raises(CheckpointError, match="remount"):
            store.check()
        assert root.exists() == left and not list(root.parent.glob("*/*"))
        shutil.rmtree(root, ignore_errors=True)
        os.rename(tmp_path / "away", root)
    assert contents(store.seal("train").path) == {"a": "1"}


def test_what_a_disk_refuses_to_read_is_no_part_to_skip(drive, monkeypatch):
    """The newest part is on a bad spot: nobody goes on from an older one, and sealing goes on."""
    for content in "12":
        fill(drive, "train", a=content)
        newest = drive.seal("train").path
    real, bad = open, {newest / "a", newest / MANIFEST}

    def refused(name, *given, **named):
        if Path(name) in bad:
            raise OSError(errno.EIO, "Input/output error", str(name))
        return real(name, *given, **named)

    monkeypatch.setattr(parts, "open", refused, raising=False)
    monkeypatch.setattr(Path, "read_text", lambda self, **named: refused(self, **named).read())
    for act in (drive.latest, drive.restore, drive.restore_journals):
        shutil.rmtree(drive.local("train"))
        with pytest.raises(CheckpointError, match="Input/output error.*part-0002"):
            act("train")
    assert "part-0002 is broken: [Errno 5]" in drive.check()[0]
    fill(drive, "train", a="3")
    assert contents(drive.seal("train").path) == contents(drive.latest("train")) == {"a": "3"}


def test_small_files_do_not_wait_for_the_disk_one_by_one(store, monkeypatch):
    waits, real = [], os.fsync

    def fsync(file):
        waits.append(threading.get_ident())
        time.sleep(0.02)
        real(file)

    monkeypatch.setattr(os, "fsync", fsync)
    fill(store, "train", **{str(number): "x" for number in range(40)})
    store.seal("train")
    assert len(waits) >= 41 and len(set(waits)) > 4  # each is on disk, several wait at once


def test_neither_links_nor_keys_nor_half_written_files_are_sealed(store, tmp_path):
    work = fill(store, "train", a="1")
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/key").write_text("key")
    (work / "link").symlink_to(tmp_path / "secret/key")
    (work / "folder").symlink_to(tmp_path / "secret")
    for name in (".env", ".a.123.tmp"):
        (work / name).write_text("x")
    assert contents(store.seal("train").path) == {"a": "1"}


def test_nobody_else_may_read_a_run(store):
    before = os.umask(0)
    try:
        work = fill(store, "train", a="1")
        (work / "journal.jsonl").write_bytes(lines(1))
        part = store.seal("train").path
        for path in [store.root / "run", part, part / "a", part / MANIFEST,
                     *(store.root / "run/train/journals").rglob("*")]:
            assert not path.stat().st_mode & 0o077, path
        os.chmod(store.root / "run", 0o755)  # made by an older version
        store.local("train")
        assert (store.root / "run").stat().st_mode & 0o777 == 0o700
    finally:
        os.umask(before)


def test_clear_removes_a_step(drive):
    for step in ("train", "other"):
        fill(drive, step, a="1")
        drive.seal(step)
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
    monkeypatch.setattr(checkpoint, "DRIVE", tmp_path / "content/drive/MyDrive")
    assert CheckpointStore.open("x").root == tmp_path / "content/runs"
    assert "Drive is not mounted" in capsys.readouterr().out
    for folder in ("MyDrive/mine", "Shareddrives/ours"):
        with pytest.raises(CheckpointError, match="Drive is not mounted: run the first cell"):
            CheckpointStore.open("x", tmp_path / "content/drive" / folder)
    assert not (tmp_path / "content/drive").exists()  # or Drive could not be mounted there
    (tmp_path / "content/drive/MyDrive").mkdir(parents=True)
    store = CheckpointStore.open("x")
    assert store.root == tmp_path / "content/drive/MyDrive/instruction-tuning/runs"
    assert store.local("train") == tmp_path / "content/runs/x/train/work"


def test_the_callback_seals_and_survives_a_failing_disk(store, monkeypatch, capsys):
    callback = SealingCallback(store, "train")
    state = SimpleNamespace(is_world_process_zero=True, global_step=7)
    fill(store, "train", a="1")
    callback.on_save(None, state, None)
    part = store.latest("train")
    assert json.loads((part / MANIFEST).read_text())["note"] == {"step": 7}
    fill(store, "train", a="2")
    with monkeypatch.context() as patch:
        patch.setattr(parts.os, "fsync", refuse(errno.EIO))
        callback.on_save(None, state, None)
    assert "could not be sealed" in capsys.readouterr().err
    other, asked, now = SimpleNamespace(is_world_process_zero=False), [], [0.0]
    callback.on_save(None, other, None)
    assert store.latest("train") == part
    # Where its steps take long, the Trainer is to save at least every ten minutes.
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: now[0])
    callback.on_train_begin(None, None, None)
    for minute in range(1, 26):
        now[0], control = 60.0 * minute, SimpleNamespace(should_save=False)
        callback.on_step_end(None, None, control)
        if control.should_save:
            asked.append(minute)
            callback.on_save(None, other, None)
    assert asked == [10, 20]


def test_an_adapter_goes_to_the_mirror_and_no_seal_fails_for_it(tmp_path, capsys):
    mirrored = {}

    def mirror(files):
        mirrored.update({name: path.read_text() for name, path in files.items()})
        if "newer" in mirrored.values():
            raise RuntimeError("Bad token hf_abcdefghijklmnopqrstu")
        return "me/adapters"

    store = CheckpointStore.open("run", tmp_path, mirror=mirror)
    fill(store, "evaluate", a="1")
    store.seal("evaluate")
    fill(store, "train", log="1", adapter__x="weights")
    store.seal("train")
    assert mirrored == {"run/train/adapter/x": "weights"}
    mirrored.clear()
    store.seal("train")
    assert mirrored == {}  # nothing new
    fill(store, "train", adapter__x="newer")
    sealed = store.seal("train")
    assert store.latest("train") == sealed.path
    said = capsys.readouterr().out
    assert "on the Hub as well: me/adapters" in said
    assert "not copied to the Hub" in said and "hf_abc" not in said


# --- journals: copied while they grow -----------------------------------------------------------
def lines(*numbers):
    return b"".join(b'{"key": "%d"}\n' % number for number in numbers)


def copies(store, step="train"):
    """What the copies beside the parts hold, oldest first."""
    home = store.root / "run" / step / "journals"
    return [(part / "journal.jsonl").read_bytes() for part in parts.parts(home)]


def test_a_journal_is_copied_while_it_grows_and_no_part_is_made(drive):
    journal = drive.local("train") / "journal.jsonl"
    drive.seal_journals("train")  # nothing yet
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


def test_restored_from_part_and_copies_byte_for_byte(drive):
    work = fill(drive, "train", a="1", b__c="2")
    (work / "journal.jsonl").write_bytes(lines(1, 2))
    drive.seal("train")
    (work / "journal.jsonl").write_bytes(lines(1, 2, 3))
    drive.seal_journals("train")  # after the part: ten minutes into the next step's work
    assert (drive.latest("train") / "journal.jsonl").read_bytes() == lines(1, 2)  # as it was then
    shutil.rmtree(drive.local_root)
    work = drive.restore("train")
    assert contents(work) == {"a": "1", "b/c": "2", "journal.jsonl": lines(1, 2, 3).decode()}
    assert not [path for path in work.rglob(".*")]
    again = drive.seal("train")
    assert again.path.name == "part-0002" and len(copies(drive)) == 2


def test_restoring_overwrites_nothing(drive):
    work = fill(drive, "train", a="old", b="old")
    (work / "journal.jsonl").write_bytes(lines(1))
    drive.seal("train")
    (work / "a").write_text("newer")
    (work / "b").unlink()
    (work / "journal.jsonl").write_bytes(lines(1, 2))
    now = {"a": "newer", "journal.jsonl": lines(1, 2).decode()}
    assert contents(drive.restore("train")) == now
    (work / "a").unlink()  # a journal alone: the files come back beside it
    assert contents(drive.restore("train")) == now | {"a": "old", "b": "old"}


@pytest.mark.parametrize(("here", "after"), [
    (b"", lines(1, 2, 3)),
    (lines(1), lines(1, 2, 3)),
    (lines(7, 8), lines(1, 2, 3, 7, 8)),  # ten asked while Drive was not there
    (lines(2, 7) + b'{"key": "8', lines(1, 2, 3, 7)),
    (b'{"key": "2", "text": "asked twice"}\n', lines(1, 2, 3)),  # what was sealed counts
    (b'{"key": ["no", "text"]}\n', lines(1, 2, 3) + b'{"key": ["no", "text"]}\n'),
    (lines(1, 2, 3, 4), lines(1, 2, 3, 4)),
    (lines(1, 2, 3) + b'{"key": "4', lines(1, 2, 3) + b'{"key": "4'),  # the journal's own to cut
])
def test_what_a_journal_lacks_is_merged_by_key(drive, here, after):
    journal = drive.local("train") / "journal.jsonl"
    journal.write_bytes(lines(1, 2, 3))
    drive.seal_journals("train")
    journal.write_bytes(here)
    drive.restore_journals("train")
    assert journal.read_bytes() == after


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
    assert "d" not in contents(drive.local("train"))
    sealed = drive.seal("train")  # not what is there of it, but the whole
    whole = {name: name for name in "abcd"}
    assert contents(sealed.path) == whole == contents(drive.restore("train"))


def test_a_broken_copy_is_named_and_takes_nothing_from_the_others(drive, capsys):
    journal = drive.local("train") / "journal.jsonl"
    for upto in (2, 4):
        journal.write_bytes(lines(*range(upto)))
        (journal.parent / "batch.jsonl").write_bytes(lines(*range(upto)))
        drive.seal_journals("train")
    shutil.rmtree(drive.local_root)
    assert drive.check() == []
    cut(drive.root / "run/train/journals/part-0002/batch.jsonl")
    assert drive.check() == [
        "train/journals/part-0002 is broken: batch.jsonl has 51 bytes instead of 52."]
    work = drive.restore("train")
    assert (work / "batch.jsonl").read_bytes() == lines(0, 1)
    assert (work / "journal.jsonl").read_bytes() == lines(0, 1, 2, 3)
    said = capsys.readouterr().out
    assert said.startswith("Skipping run/train/journals/part-0002/batch.jsonl: batch.jsonl has")
    (work / "journal.jsonl").write_bytes(lines(0, 1, 2, 3, 4))
    fill(drive, "train", a="1")
    drive.seal("train")  # from here on the part has it, too
    for copy in parts.parts(drive.root / "run/train/journals"):
        (copy / MANIFEST).unlink()
    shutil.rmtree(drive.local_root)
    assert (drive.restore("train") / "journal.jsonl").read_bytes() == lines(0, 1, 2, 3, 4)
    assert "Skipping run/train/journals/part-0003: MANIFEST.json" in capsys.readouterr().out


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
    journal, sealed = drive.local("train") / "journal.jsonl", drive.root / "run/train/journals"
    for upto in (1, 2, 3):
        journal.write_bytes(lines(*range(upto)))
        drive.seal_journals("train")
    read, real = [], parts.describe

    def describe(source, into=None):
        read.extend([source] if isinstance(source, Path) else [])
        return real(source, into)

    monkeypatch.setattr(parts, "describe", describe)
    journal.write_bytes(lines(*range(4)))
    drive.seal_journals("train")
    assert read == []  # nothing through Drive's mount
    shutil.rmtree(drive.local_root)
    drive.restore("train")
    assert read == [sealed / "part-0004/journal.jsonl"]


@pytest.mark.parametrize("tail", [b'{"key": "9", "text": "x"}', b'{"key": "9", "te', b"\0\0\0"])
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
    zeros(drive.root / "run/train/part-0002/a")
    zeros(drive.root / "run/train/journals/part-0001/journal.jsonl")
    assert drive.seal("train", {"n": 2}).path.name == "part-0003"  # and so is a broken part
    assert copies(drive)[-1] == lines(1)  # or a copy that Drive lost
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
        patch.setattr(parts, "copy", refuse(errno.ENOTCONN))
        arrives(2)
        time.sleep(0.5)  # it has failed several times
        assert len(copies(drive)) == 1
    wait_for(lambda: len(copies(drive)) == 2)  # without another reply
    assert capsys.readouterr().out.count("could not be sealed") == 1


def test_checking_names_each_broken_part_and_reads_no_more_than_it_may(drive):
    assert drive.check() == []  # nothing yet
    for content in ("older", "newer"):
        for step in ("train", "evaluate"):
            fill(drive, step, a=content)
            drive.seal(step)
    (drive.root / "run/report.md").write_text("no step")
    assert drive.check() == []
    home = drive.root / "run"
    zeros(home / "evaluate/part-0002/a")
    cut(home / "train/part-0001" / MANIFEST)
    assert [line.split(":")[0] for line in drive.check()] == [
        "evaluate/part-0002 is broken", "train/part-0001 is broken"]
    assert len(drive.check(limit=4)) == 1  # zeros have the right size
