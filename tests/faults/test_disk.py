"""Sealing and bringing back on disks that fail: whatever is believed is whole, nothing is lost.

Every test really injects its fault: a process is killed, a file system is full or read-only, a call
returns an error, bytes change. The short versions inject a few; `FAULTS=all` (make faults) many.
"""

import errno
import itertools
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from course_utils import REPO, checkpoint
from course_utils.checkpoint import CheckpointStore
from course_utils.plumbing import parts
from course_utils.plumbing.parts import MANIFEST, CheckpointError

FULL = os.environ.get("FAULTS") == "all"
PATIENCE = 120


def a_store(folder):
    """A store whose parts are elsewhere than its work, as on Colab."""
    return CheckpointStore("run", folder / "drive", folder / "local")


def work_at(store, number, size=2000):
    """The work as it stands at a number: files that say it, and a journal that grew to it."""
    work = store.local("train")
    for name in ("a", "b/c"):
        (work / name).parent.mkdir(exist_ok=True)
        (work / name).write_text(f"{number} " * size)
    (work / "journal.jsonl").write_bytes(journal(number))


def journal(number):
    return b"".join(b'{"key": "%d", "text": "%s"}\n' % (n, b"x" * 500) for n in range(number + 1))


def believed(folder):
    """The number that a folder of the step holds, None if its files disagree: no such is whole."""
    found = {(folder / name).read_text().split()[0] for name in ("a", "b/c")}
    whole = {len(set((folder / name).read_text().split())) for name in ("a", "b/c")}
    return int(found.pop()) if len(found) == 1 == max(whole) else None


def after_the_session(store):
    """What a new session finds, as (number of the part, number of replies): only Drive is left."""
    shutil.rmtree(store.local_root, ignore_errors=True)
    work = store.restore("train")
    lines = (work / "journal.jsonl").read_bytes().splitlines()
    keys = {int(json.loads(line)["key"]) for line in lines}
    assert keys == set(range(len(keys))), "a reply is missing in the middle"
    return believed(work), len(keys)


def python(code, *arguments, before=(), **pipes):
    """A process that runs a piece of code which imports this file, by a command `before` it."""
    paths = f"{REPO}{os.pathsep}{Path(__file__).parent}"
    command = [*before, sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, text=True, cwd=REPO,
                            env={**os.environ, "PYTHONPATH": paths}, **pipes)


WORKER = """
import shutil, sys
from pathlib import Path
from test_disk import a_store, work_at
store, start = a_store(Path(sys.argv[1])), int(sys.argv[2])
for number in range(start, 10**6):
    work_at(store, number)
    store.seal_journals("train")
    print("reply", number, flush=True)
    store.seal("train")
    print("part", number, flush=True)
    if number % 3 == 0:  # a new session begins
        shutil.rmtree(store.local_root)
        store.restore("train")
"""


def test_sigkill_while_sealing_and_restoring(tmp_path, record_fault):
    chance, store, wanted = random.Random(0), a_store(tmp_path), 20 if FULL else 2
    right = lost = wrong = start = 0
    for _ in range(wanted):
        process = python(WORKER, tmp_path, start, stdout=subprocess.PIPE)
        said = [process.stdout.readline(), process.stdout.readline()]
        time.sleep(chance.uniform(0, 0.15))
        process.kill()
        said += process.stdout.read().splitlines()
        process.wait()
        told = dict(line.split() for line in said if len(line.split()) == 2)
        part, replies = after_the_session(store)
        wrong += part is None or part < int(told["part"])
        lost += max(0, int(told["reply"]) + 1 - replies)
        right += part is not None and store.check() == []
        start = max(part or 0, replies - 1) + 1
    work_at(store, start)
    sealed = store.seal("train").path.parent
    assert not [path for path in sealed.iterdir() if path.name.startswith(".")]
    record_fault("SIGKILL while sealing and restoring", injected=wanted, runs=wanted, right=right,
                 lost=lost, wrong=wrong)
    assert (right, lost, wrong) == (wanted, 0, 0)


@contextmanager
def small_disk(folder, size):
    """A file system of so many bytes; without the right to mount one, files of at most as many."""
    folder.mkdir(exist_ok=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)],
                             capture_output=True).returncode == 0  # fmt: skip
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    if not mounted:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size // 4, limits[1]))
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=True)
        else:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk(tmp_path, record_fault):
    chance, store = random.Random(0), a_store(tmp_path)
    injected = right = wrong = 0
    with small_disk(tmp_path / "drive", 1 << 20) as mounted:
        work_at(store, 0)
        store.seal("train")
        for number in range(1, 31 if FULL else 3):
            work_at(store, number, size=chance.randint(1 << 18, 1 << 19))  # at least as much again
            with pytest.raises(CheckpointError, match="make room or remount"):
                store.seal("train")
            injected += 1
            wrong += believed(store.latest("train")) != number - 1
            assert store.check() == [] and believed(store.local("train")) == number
            work_at(store, number, size=2000)  # there is room again
            store.seal("train")
            right += after_the_session(store) == (number, number + 1)
        assert mounted or os.geteuid() != 0
    record_fault("a full disk", injected=injected, runs=injected, right=right, wrong=wrong)
    assert (right, wrong) == (injected, 0)


def test_a_read_only_drive(tmp_path, record_fault):
    store, home = a_store(tmp_path), tmp_path / "drive"
    with small_disk(home, 1 << 22) as mounted:
        if not mounted and os.geteuid() == 0:
            pytest.skip("this root may not mount, and nothing is read-only for root")
        work_at(store, 1)
        store.seal("train")

        def let(write):
            if mounted:
                mode = "remount,rw" if write else "remount,ro"
                subprocess.run(["mount", "-o", mode, str(home)], check=True)
            else:
                for folder in (home / "run/train", home / "run/train/journals"):
                    os.chmod(folder, 0o700 if write else 0o500)

        injected = right = 0
        for number in range(2, 12 if FULL else 4):
            work_at(store, number)
            let(write=False)
            for seal in (store.seal, store.seal_journals):
                with pytest.raises(CheckpointError, match="make room or remount"):
                    seal("train")
                injected += 1
            assert believed(store.latest("train")) == number - 1
            let(write=True)
            store.seal("train")
            right += after_the_session(store) == (number, number + 1)
    runs = injected // 2
    record_fault("a read-only Drive", injected=injected, runs=runs, right=right)
    assert right == runs


class Killed(BaseException):
    """Stands for SIGKILL: once dead, nothing works any more."""


class Calls:
    """Counts the calls that touch a disk, and has a fault strike at one of them."""

    def __init__(self, patch, at, strike):
        self.at, self.strike, self.numbers, self.struck = at, strike, itertools.count(1), False
        patch.setattr(parts, "open", self.open, raising=False)
        for name in ("listdir", "scandir", "mkdir", "open", "stat", "lstat", "fsync", "rename",
                     "replace", "chmod", "unlink", "rmdir"):
            patch.setattr(os, name, self.counted(getattr(os, name)))

    def counted(self, function):
        def call(*args, **kwargs):
            number = next(self.numbers)  # whichever thread it is
            if number == self.at or number > self.at and self.strike is kill:
                self.struck = True
                self.strike()
            return function(*args, **kwargs)

        return call

    def open(self, *args, **kwargs):
        return _File(self.counted(open)(*args, **kwargs), self)


class _File:
    """An open file whose reads and writes may fail."""

    def __init__(self, file, calls):
        self._file, self._calls = file, calls

    def __getattr__(self, name):
        found = getattr(self._file, name)
        return self._calls.counted(found) if name in ("read", "write") else found

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._file.close()


def kill():
    raise Killed


def failing(number):
    def fail():
        raise OSError(number, os.strerror(number))

    return fail


def unmounting(drive, rename=os.rename, mkdir=os.mkdir, left=False):
    def unmount():
        rename(drive, drive.with_name("unmounted"))
        if left:  # the folder it was mounted in
            mkdir(drive)

    return unmount


STRIKES = {
    "EIO at any call": lambda drive: failing(errno.EIO),
    "errno 107 at any call": lambda drive: failing(errno.ENOTCONN),
    "Drive unmounted at any call": unmounting,
    "Drive unmounted at any call, its folder left": lambda drive: unmounting(drive, left=True),
    "a stop at any call": lambda drive: kill,
}


@pytest.mark.parametrize("doing", ["seal", "seal_journals", "latest", "restore",
                                   "restore_journals"])
@pytest.mark.parametrize("fault", STRIKES)
def test_a_fault_at_any_call(tmp_path, fault, doing, record_fault):
    """At one call after another: an error or what is right, never "nothing is sealed"."""
    store, away = a_store(tmp_path), tmp_path / "unmounted"
    injected = right = wrong = lost = before = 0
    for at in itertools.count(1, 1 if FULL else 11):
        if "seal" not in doing or at == 1:
            work_at(store, before := at)
            store.seal("train")
        if "seal" in doing:
            work_at(store, at)
        else:
            shutil.rmtree(store.local_root)  # the session died: only Drive is left
        with pytest.MonkeyPatch.context() as patch:
            calls = Calls(patch, at, STRIKES[fault](store.root))
            try:
                found = getattr(store, doing)("train")
            except (CheckpointError, Killed):
                found = CheckpointError
        if not calls.struck:
            break
        injected += 1
        if away.exists():
            assert found is CheckpointError
            if store.root.exists():
                store.root.rmdir()  # nothing was made in it
            os.rename(away, store.root)
        for half in store.root.rglob(".making-*"):  # its process lives, so nobody sweeps it
            shutil.rmtree(half)
        if isinstance(found, Path):
            wrong += (found / "journal.jsonl").read_bytes() != journal(at)
        wrong += believed(store.latest("train")) not in (before, at)
        if "seal" in doing:
            store.seal("train")
        before, (part, replies) = at, after_the_session(store)
        wrong, lost = wrong + (part != at), lost + at + 1 - replies
        right += (part, replies) == (at, at + 1)
    assert injected > 2 or not FULL
    record_fault(fault.split(",")[0], injected=injected, runs=injected, right=right, wrong=wrong,
                 lost=lost)
    assert (right, wrong, lost) == (injected, 0, 0)


def zeros(path, chance):
    path.write_bytes(bytes(path.stat().st_size))


def short(path, chance):
    path.write_bytes(path.read_bytes()[: chance.randrange(path.stat().st_size)])


def gone(path, chance):
    path.unlink()


def edited(path, chance):
    data = bytearray(path.read_bytes())
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(data)


DAMAGE = {
    "a file that reads back short or as zeros": (["a", "b/c"], [zeros, short]),
    "a manifest that is missing, cut or edited": ([MANIFEST], [gone, short, edited, zeros]),
    "a journal's copy that is missing, cut, edited or zeros": ([], [gone, short, edited, zeros]),
}


@pytest.mark.parametrize("fault", DAMAGE)
def test_a_broken_newest_part_while_an_older_one_is_whole(tmp_path, fault, record_fault, capsys):
    names, ways = DAMAGE[fault]
    chance, times = random.Random(0), 50 if FULL else 4
    right = wrong = lost = 0
    for attempt in range(times):
        store = a_store(tmp_path / str(attempt))
        for number in (0, 1):
            work_at(store, number)
            newest = store.seal("train").path
        copies = sorted((store.root / "run/train/journals").rglob("*.*"))
        path = newest / chance.choice(names) if names else chance.choice(copies)
        chance.choice(ways)(path, chance)
        assert store.check()
        shutil.rmtree(store.local_root)
        capsys.readouterr()
        work = store.restore("train")
        replies = (work / "journal.jsonl").read_bytes()
        named = ("Skipping run/train/part-0002" in capsys.readouterr().out) == bool(names)
        wrong += believed(work) != (0 if names else 1)
        lost += len(journal(1).splitlines()) - len(replies.splitlines())
        right += replies == journal(1) and named
    record_fault(fault, injected=times, runs=times, right=right, wrong=wrong, lost=lost)
    assert (right, wrong, lost) == (times, 0, 0)


def test_a_newest_part_that_lacks_any_one_file(tmp_path, record_fault):
    """Drive had not uploaded all of it when the session died."""
    right = wrong = injected = 0
    for number, missing in enumerate(["a", "b/c", MANIFEST, "b", "everything"]):
        store = a_store(tmp_path / str(number))
        for content in (0, 1, 2):
            work_at(store, content)
            newest = store.seal("train").path
        lost = newest if missing == "everything" else newest / missing
        shutil.rmtree(lost) if lost.is_dir() else lost.unlink()
        injected += 1
        part, replies = after_the_session(store)
        wrong, right = wrong + (part != 1), right + ((part, replies) == (1, 3))
    record_fault("a broken newest part, an older one whole", injected=injected, runs=injected,
                 right=right, wrong=wrong)
    assert (right, wrong) == (injected, 0)


SEALER = r"""
import json, sys
from pathlib import Path
from test_disk import CheckpointError, CheckpointStore, parts, work_at
root, name, count, machine = sys.argv[1:]
if machine:  # it knows none of the other's processes
    parts._MACHINE, parts.psutil.pid_exists = machine, lambda pid: False
store = CheckpointStore("run", Path(root) / "drive", Path(root) / name)
replies, wrong, said = b"", 0, 0
for number in range(int(count)):
    work_at(store, number)
    replies += b'{"key": "%s-%d"}\n' % (name.encode(), number)
    (store.local("train") / "batch.jsonl").write_bytes(replies)
    try:
        part = store.seal("train", {"by": name}).path
    except CheckpointError:
        said += 1
        continue
    try:
        parts.verify(part, parts.read_manifest(part))
    except (parts.BrokenPart, OSError):
        wrong += part.exists()  # otherwise the other one has sealed twice since
print(json.dumps([wrong, said]))
"""
NAMESPACE = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc"]
BEGUN = 'for n in $(seq $0); do /bin/true; done; "$@"; exit'  # so much ran there before


@pytest.mark.parametrize("fault", ["two notebooks sealing the same run", "two machines"])
def test_two_that_seal_the_same_run(tmp_path, fault, record_fault):
    """Two machines are two PID namespaces, or where these are not to be had, two names."""
    count, machines = 100 if FULL else 5, fault == "two machines"
    may = machines and subprocess.run([*NAMESPACE, "true"], capture_output=True).returncode == 0
    both = [python(SEALER, tmp_path, name, count, name * (machines and not may),
                   before=[*NAMESPACE, "sh", "-c", BEGUN, begun] * may,
                   stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            for name, begun in (("one", "5"), ("two", "50"))]
    said = [process.communicate(timeout=PATIENCE) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    wrong = sum(json.loads(out)[0] for out, _ in said)
    store = a_store(tmp_path)
    found = parts.parts(store.root / "run/train")
    wrong += sum(believed(part) is None for part in found)
    whole = store.check() == []
    lost = 2 * count - len((store.restore("train") / "batch.jsonl").read_bytes().splitlines())
    right = int(whole and after_the_session(store) == (count - 1, count))
    record_fault(fault, injected=2 * count, right=right, wrong=wrong, lost=lost)
    refused = sum(json.loads(out)[1] for out, _ in said)  # where it was not whole, and said so
    assert (right, wrong, lost) == (1, 0, 0) and len(found) <= 3 and refused <= count // 20, said


def test_a_clock_that_jumps_back(tmp_path, monkeypatch, record_fault):
    chance, store, times = random.Random(0), a_store(tmp_path), 20 if FULL else 5
    right = 0
    for number in range(times):
        now = chance.uniform(0, 2e9)  # any day since 1970
        with monkeypatch.context() as patch:
            patch.setattr(checkpoint.time, "time", lambda now=now: now)
            patch.setattr(checkpoint.time, "strftime",
                          lambda form, now=now: time.asctime(time.gmtime(now)))
            work_at(store, number)
            part = store.seal("train").path
        for path in [part, *part.rglob("*")]:
            os.utime(path, (now, now))
        right += after_the_session(store) == (number, number + 1)
    record_fault("a clock that jumps", injected=times, runs=times, right=right, wrong=times - right)
    assert right == times
