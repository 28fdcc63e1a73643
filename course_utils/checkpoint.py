"""A run's steps, sealed on Google Drive: worked on locally, kept as immutable, verified parts.

    <root>/<run>/<step>/part-0001/           the step's working folder as it was, and its manifest
    <root>/<run>/<step>/journals/part-0007/  its journals, copied while the work went on

A part is made under a temporary name, its manifest last, and renamed: at any instant it is whole or
not there. Whatever a manifest does not vouch for is not believed (plumbing/parts.py). Two parts are
kept. An unmounted Drive looks as if empty: a folder that was there and is not is an error, and
nothing above the run's folder is ever made while sealing. Taught in 02, section 8.
"""

import contextlib
import errno
import json
import os
import platform
import re
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from course_utils import REPO, __version__
from course_utils.plumbing import parts
from course_utils.plumbing.colab import CONTENT as COLAB
from course_utils.plumbing.colab import DRIVE, on_colab
from course_utils.plumbing.parts import JOURNALS, BrokenPart, CheckpointError, is_journal
from course_utils.plumbing.scrub import scrub

MINUTES = 10.0
"""Work is sealed at least this often."""
# Where files arrive in a working folder: while the first is there, it is not filled yet.
_RESTORING, _MERGING = ".restoring", ".merging"


@dataclass(frozen=True)
class Sealed:
    """What `seal` wrote: the part's folder, how many files, how many bytes."""

    path: Path
    files: int
    bytes: int


@dataclass(frozen=True)
class CheckpointStore:
    """The steps of one run: `root` is where parts survive, `local_root` where work is fast.

    `about` goes into every manifest. `mirror` is given the files of every adapter that is sealed,
    by name, and returns where it has put copies of them.
    """

    run: str
    root: Path
    local_root: Path
    about: Mapping[str, Any] = field(default_factory=dict, compare=False)
    mirror: Callable[[dict[str, Path]], str] | None = field(default=None, compare=False)
    _disks: dict[Path, int] = field(default_factory=dict, init=False, repr=False, compare=False)

    @classmethod
    def open(cls, run: str, root: str | Path | None = None, *,
             about: Mapping[str, Any] | None = None,
             mirror: Callable[[dict[str, Path]], str] | None = None) -> Self:
        """Open the store of a run: on Google Drive on Colab, under ./runs elsewhere, or in `root`.

        On Colab the work itself stays on the machine's own disk. Nothing is made before there is
        work. Raises CheckpointError where the root is not mounted or cannot be made.
        """
        if root is None and on_colab():
            root = DRIVE / "instruction-tuning" / "runs"
            if not os.path.isdir(DRIVE):  # False where a mount broke
                root = COLAB / "runs"
                print(f"Google Drive is not mounted: {root} will be gone when this session ends.")
        elif root is None:
            # A notebook's working folder is the notebook's own; the runs belong to the checkout.
            cwd = Path.cwd()
            root = (REPO if cwd.is_relative_to(REPO) else cwd) / "runs"
        root = Path(root).absolute()
        return cls(run, root, COLAB / "runs" if on_colab() else root, about or {}, mirror)

    def __post_init__(self) -> None:
        name, above = _check_name("run", self.run), self.root
        try:
            self._look()
            while not os.path.lexists(above):
                above = above.parent
            if not os.path.isdir(above) or above != self.root and not os.access(above, os.W_OK):
                raise PermissionError(errno.EACCES, f"no folder can be made in {above}")
            object.__setattr__(self, "run", parts.find(self.root, name).name)
            self._look()
        except OSError as error:
            raise CheckpointError(f"The folder {self.root} cannot be made ({error.strerror}); "
                                  "choose another folder for the runs.") from error

    def local(self, step: str) -> Path:
        """Return the local working folder of a step, made if it is not there."""
        step = _check_name("step", step)
        with self._on_root("opened"):
            for root in (self.root, self.local_root):
                if root not in self._disks:  # made once: later it is not missing but unmounted
                    root.mkdir(parents=True, exist_ok=True)
                if root / self.run not in self._disks:
                    (root / self.run).mkdir(exist_ok=True, mode=0o700)
            with contextlib.suppress(OSError):  # Drive's mount has modes of its own
                os.chmod(self.local_root / self.run, 0o700)
            home = parts.find(self.local_root / self.run, step)
            for folder in (home, home / "work"):
                folder.mkdir(exist_ok=True)
        return home / "work"

    def seal(self, step: str, note: dict[str, Any] | None = None) -> Sealed:
        """Copy the working folder of a step into its next part and keep the newest two whole ones.

        `note` goes into the manifest. A folder that is sealed as it stands makes no new part.
        Raises CheckpointError where there is nothing to seal or the disk refuses: nothing changed.
        """
        with self._on_root("sealed"):
            work = self.local(step)
            if (work / _RESTORING).is_dir():  # a kill came between: half is never sealed
                self.restore(step)
            sources = dict(sorted(_files(work).items()))
            if not sources:
                raise CheckpointError(f"There is nothing to seal in {work}; run the step first.")
            if unsafe := [name for name in sources if not parts.is_safe(name)]:
                raise CheckpointError(f"{work} has a file named {unsafe[0]!r}, which cannot be "
                                      "sealed on every system: rename it.")
            self.seal_journals(step)
            manifest = self._manifest(step, note)
            part, files, new = parts.seal_part(self._home(step), manifest, sources)
        if new:
            self._send_to_mirror(step, {name: part / name for name in files})
        return Sealed(part, len(files), sum(file["bytes"] for file in files.values()))

    def seal_journals(self, step: str) -> None:
        """Copy the journals of a step, if they have grown, beside its parts: its work goes on.

        What other machines have sealed of them goes into the copy, so that the oldest can go.
        """
        with self._on_root("sealed"):
            here, home = _journals(self.local(step)), self._home(step)
            home.mkdir(exist_ok=True, mode=0o700)
            if found := {name: text for name, text in parts.gather(home, here).items() if text}:
                parts.seal_part(home / JOURNALS, self._manifest(step), found)

    def _send_to_mirror(self, step: str, files: dict[str, Path]) -> None:
        """Copy an adapter to the mirror; one that does not answer never fails a seal."""
        adapter = {f"{self.run}/{step}/{name}": path for name, path in files.items()
                   if name.startswith("adapter/")}
        if self.mirror and adapter:
            try:
                print(f"The adapter of '{step}' is on the Hub as well: {self.mirror(adapter)}")
            except Exception as error:  # the seal is done, whatever the Hub says
                print(f"The adapter is sealed, but not copied to the Hub: {scrub(str(error))}")

    def latest(self, step: str) -> Path | None:
        """Return the newest whole part of a step, every byte of it verified, on the local disk.

        None if there is none; a broken part is named and skipped. It is there to be read: `restore`
        fetches the work.
        """
        with self._on_root("brought back"):
            for part in reversed(parts.parts(self._home(step))):
                try:
                    return parts.bring(part, self.local(step).parent)
                except BrokenPart as broken:
                    self._skip(part, broken)
        return None

    def restore(self, step: str) -> Path:
        """Return the working folder of a step, filled with what is sealed where it is empty.

        A journal gets the sealed lines that it lacks. After a kill the next call goes on.
        """
        with self._on_root("brought back"):
            work = self.restore_journals(step)
            filling = (work / _RESTORING).is_dir()
            if not filling and not all(map(is_journal, _files(work))):
                return work  # what is there is newer
            part = self.latest(step)
            names = parts.read_manifest(part)["files"] if part else ()
            _bring_back({name: path for name, path in parts.files_in(part or work).items()
                         if name in names and not is_journal(name)}, work, _RESTORING)
        return work

    def restore_journals(self, step: str) -> Path:
        """Give the journals of a step the sealed lines that they lack; return the working folder.

        Raises CheckpointError where a disk does not tell them: they would be paid for again.
        """
        with self._on_root("brought back"):
            work = self.local(step)
            here = _journals(work)
            found = parts.gather(self._home(step), here, self._skip)
            _bring_back({name: text for name, text in found.items() if text != here.get(name)},
                        work, _MERGING)
        return work

    def check(self, limit: int = 16 << 20) -> list[str]:
        """Return a line for every part of the run that is not whole, by its manifest and sizes.

        Parts of up to `limit` bytes are read: seconds, even through Drive's mount. `latest` reads
        every byte before anything is used.
        """
        found, homes, top = [], [], self.root / self.run
        with self._on_root("checked"):
            with contextlib.suppress(FileNotFoundError):  # nothing yet
                homes = sorted(Path(step.path) for step in os.scandir(top) if step.is_dir())
            for part in (part for home in homes for inner in (home, home / JOURNALS)
                         for part in reversed(parts.parts(inner))):
                try:
                    manifest = parts.read_manifest(part)
                    size = sum(file["bytes"] for file in manifest["files"].values())
                    parts.verify(part, manifest, contents=size <= limit)
                except (BrokenPart, OSError) as broken:
                    found.append(f"{part.relative_to(top).as_posix()} is broken: {broken}.")
        return found

    def clear(self, step: str) -> None:
        """Remove everything a step has, working folder, parts and journals."""
        with self._on_root("cleared"):
            parts.discard(self._home(step))
            parts.discard(parts.find(self.local_root / self.run, step))

    def _skip(self, path: Path, broken: BrokenPart | OSError) -> None:
        if isinstance(broken, OSError):  # it may be whole
            raise broken
        print(f"Skipping {path.relative_to(self.root)}: {broken}.")

    def _home(self, step: str) -> Path:
        return parts.find(self.root / self.run, _check_name("step", step))

    def _manifest(self, step: str, note: dict[str, Any] | None = None) -> dict[str, Any]:
        note = json.loads(json.dumps(note or {}, default=str))
        return {"run": self.run, "step": step, "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
                "versions": {"course_utils": __version__, "python": platform.python_version()},
                "about": dict(self.about), "note": note}

    def _look(self) -> None:
        """Raise OSError where the root or the run's folder, once there, is not there any more."""
        if self.root.is_relative_to(DRIVE.parent) and not os.path.isdir(DRIVE):
            raise FileNotFoundError(errno.ENOENT, "Google Drive is not mounted: run the first cell")
        for folder in (self.root, self.root / self.run):
            if folder in self._disks or os.path.lexists(folder):
                disk = os.stat(folder).st_dev
                if self._disks.setdefault(folder, disk) != disk:
                    raise FileNotFoundError(errno.ENOENT, f"{folder} was unmounted")

    @contextlib.contextmanager
    def _on_root(self, what: str) -> Iterator[None]:
        """Turn what a disk says into what to do, an unmounted one too: it looks as if empty."""
        try:
            self._look()
            yield
            self._look()
        except OSError as error:
            raise CheckpointError(
                f"The run '{self.run}' could not be {what} in {self.root} ({error}); the work is "
                f"still in {self.local_root}: make room or remount (the first cell mounts Drive), "
                "then run it again.") from error


class Sealing:
    """Seals the journals of a step soon after they have grown; called after each reply.

    The first call sets a timer, so nothing waits for a slow Drive, and a reply is sealed in time
    even if none follows it. A Drive that fails is reported once and tried again.
    """

    def __init__(self, store: CheckpointStore, step: str, minutes: float = MINUTES):
        self._store, self._step, self._seconds = store, step, 60 * minutes
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None
        self._failing = False

    def __call__(self) -> None:
        with self._lock:
            if self._timer is None:
                self._timer = threading.Timer(self._seconds, self.seal)
                self._timer.daemon = True
                self._timer.start()

    def seal(self) -> None:
        """Seal now; a failure is printed, and set right by a later call."""
        with self._lock:
            self._timer = None
        try:
            self._store.seal_journals(self._step)
            self._failing = False
        except CheckpointError as error:
            if not self._failing:
                print(f"{error} It is tried again now and then; work goes on.")
            self._failing = True
            self()


def SealingCallback(store: CheckpointStore, step: str, minutes: float = MINUTES) -> Any:  # noqa: N802
    """Return a TrainerCallback that seals `step` each time the Trainer has saved a checkpoint.

    Where these are farther apart, it has the Trainer save after `minutes`; its `output_dir` must
    lie inside `store.local(step)`. A seal that fails is reported, and the next save tries again.
    """
    from accelerate.utils import broadcast_object_list
    from transformers import TrainerCallback

    class _SealingCallback(TrainerCallback):
        def on_train_begin(self, args, state, control, **kwargs):
            self.saved = time.monotonic()

        def on_step_end(self, args, state, control, **kwargs):
            # One process decides for all: each has a part of the checkpoint to write.
            if broadcast_object_list([time.monotonic() - self.saved >= 60 * minutes])[0]:
                control.should_save = True

        def on_save(self, args, state, control, **kwargs):
            self.saved = time.monotonic()
            if state.is_world_process_zero:
                try:
                    store.seal(step, {"step": state.global_step})
                except CheckpointError as error:
                    print(error, file=sys.stderr)

    return _SealingCallback()


def _check_name(kind: str, name: str) -> str:
    name = parts.composed(name)
    if not re.fullmatch(r"[\w.+-]*\w", name):
        raise CheckpointError(f"A {kind} cannot be named {name!r}: take letters, digits, . _ + -")
    return name


def _files(work: Path) -> dict[str, Path]:
    """The files of a working folder that are its work: no links, half-written files or keys."""
    # A part that was copied back to go on from brings its old manifest; a new one replaces it.
    others = (parts.MANIFEST, _RESTORING, _MERGING)
    return {name: path for name, path in parts.files_in(work).items()
            if name.split("/")[0] not in others and path.name != ".env"
            and not re.fullmatch(r"\..*\.tmp", path.name)}


def _journals(work: Path) -> dict[str, bytes]:
    """The whole lines of the journals in a working folder, by name."""
    return {name: parts.whole_lines(path.read_bytes())
            for name, path in _files(work).items() if is_journal(name)}


def _bring_back(sources: Mapping[str, Path | bytes], work: Path, arriving: str) -> None:
    """Copy files into a working folder; they get their names when all of them have arrived."""
    (work / arriving).mkdir(exist_ok=True)
    parts.copy_durably(sources, work / arriving)
    there = parts.files_in(work)
    for name in sources:
        path = there.get(name, work / name)
        path.parent.mkdir(parents=True, exist_ok=True)
        os.replace(work / arriving / name, path)
    shutil.rmtree(work / arriving)
