"""A run's steps, sealed on Google Drive: worked on locally, kept as immutable, verified parts.

    <root>/<run>/<step>/part-0001/           the step's working folder as it was, and its manifest
    <root>/<run>/<step>/journals/part-0007/  its journals, copied while the work went on

A part is made under a temporary name, its manifest last, and renamed: at any instant it is whole or
not there. Whatever a manifest does not vouch for is not believed (plumbing/parts.py). Two parts are
kept. A root that is not there is an error: an unmounted Drive is no empty one, and nothing above
the run's folder is ever made while sealing. Taught in 02, section 7.
"""

import contextlib
import json
import os
import platform
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Self

from course_utils import REPO, __version__
from course_utils.plumbing import parts
from course_utils.plumbing.colab import CONTENT as COLAB
from course_utils.plumbing.colab import DRIVE, on_colab
from course_utils.plumbing.parts import JOURNALS, BrokenPart, CheckpointError, is_journal
from course_utils.plumbing.scrub import scrub

MINUTES = 10.0
"""Work is sealed at least this often."""
_RESTORING = ".restoring"  # in a working folder that is being filled


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

    @classmethod
    def open(cls, run: str, root: str | Path | None = None, *,
             about: Mapping[str, Any] | None = None,
             mirror: Callable[[dict[str, Path]], str] | None = None) -> Self:
        """Open the store of a run: on Google Drive on Colab, under ./runs elsewhere, or in `root`.

        On Colab the work itself stays on the machine's own disk. Raises CheckpointError where the
        root cannot be made.
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
        _check_name("run", self.run)
        try:
            if self.root.is_relative_to(DRIVE.parent) and not os.path.isdir(DRIVE):
                raise FileNotFoundError(2, "Google Drive is not mounted: run the first cell")
            self.root.mkdir(parents=True, exist_ok=True)  # now or never: later it may be unmounted
        except OSError as error:
            raise CheckpointError(f"The folder {self.root} cannot be made ({error.strerror}); "
                                  "choose another folder for the runs.") from error

    def local(self, step: str) -> Path:
        """Return the local working folder of a step, made if it is not there."""
        home = self.local_root / self.run / _check_name("step", step)
        with self._on_root("opened"):
            if self.local_root != self.root:
                self.local_root.mkdir(parents=True, exist_ok=True)
            parts.private_folder(self.local_root / self.run)
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
            if (work / _RESTORING).exists():  # a kill came between: half a folder is never sealed
                self.restore(step)
            sources = {name: work / name for name in sorted(_names(work))}
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
            for folder in (home.parent, home):
                parts.private_folder(folder)
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
            marker = work / _RESTORING
            if not marker.exists() and not all(map(is_journal, _names(work))):
                return work  # what is there is newer
            if part := self.latest(step):
                parts.copy(b"", work, _RESTORING)
                for name in parts.read_manifest(part)["files"]:
                    if not is_journal(name):
                        _bring_back(part / name, work, name)
            marker.unlink(missing_ok=True)
        return work

    def restore_journals(self, step: str) -> Path:
        """Give the journals of a step the sealed lines that they lack; return the working folder.

        Raises CheckpointError where a disk does not tell them: they would be paid for again.
        """
        with self._on_root("brought back"):
            work = self.local(step)
            here = _journals(work)
            for name, text in parts.gather(self._home(step), here, self._skip).items():
                if text != here.get(name):
                    _bring_back(text, work, name)
        return work

    def check(self, limit: int = 256 << 20) -> list[str]:
        """Return a line for every part of the run that is not whole, by its manifest and sizes.

        Contents are read up to `limit` bytes in all, the newest parts first: seconds, even through
        Drive's mount. `latest` reads every byte before anything is used.
        """
        found, top = [], self.root / self.run
        with self._on_root("checked"):
            homes = [path for path in top.iterdir() if path.is_dir()] if top.exists() else []
            homes += [home / JOURNALS for home in homes]
            newest_first = sorted((age, part.relative_to(top).as_posix(), part) for home in homes
                                  for age, part in enumerate(reversed(parts.parts(home))))
            for _, name, part in newest_first:
                try:
                    manifest = parts.read_manifest(part)
                    size = sum(file["bytes"] for file in manifest["files"].values())
                    parts.verify(part, manifest, contents=size <= limit)
                    limit -= size if size <= limit else 0
                except BrokenPart as broken:
                    found.append(f"{name} is broken: {broken}.")
        return found

    def clear(self, step: str) -> None:
        """Remove everything a step has, working folder, parts and journals."""
        with self._on_root("cleared"):
            for home in {self._home(step), self.local_root / self.run / step}:
                if home.exists():
                    for folder in [*parts.parts(home), home / "work", home / JOURNALS]:
                        parts.discard(folder)
                    parts.sweep(home)

    def _skip(self, path: Path, broken: BrokenPart) -> None:
        """Say what is left out; an error where a disk refused to read it, for it may be all."""
        where = path.relative_to(self.root)
        if isinstance(broken, parts.UnreadablePart):
            raise CheckpointError(f"{where}: {broken}. Mount Drive again (the first cell) and run "
                                  f"this again; if it stays so, remove it from {self.root}.")
        print(f"Skipping {where}: {broken}.")

    def _home(self, step: str) -> Path:
        return self.root / self.run / _check_name("step", step)

    def _manifest(self, step: str, note: dict[str, Any] | None = None) -> dict[str, Any]:
        note = json.loads(json.dumps(note or {}, default=str))
        return {"run": self.run, "step": step, "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
                "versions": {"course_utils": __version__, "python": platform.python_version()},
                "about": dict(self.about), "note": note}

    @contextlib.contextmanager
    def _on_root(self, what: str) -> Iterator[None]:
        """Turn what a disk says into what to do, an unmounted one too: it looks as if empty."""
        try:
            disk = os.stat(self.root).st_dev
            yield
            if os.stat(self.root).st_dev != disk:
                raise FileNotFoundError(f"{self.root} was unmounted")
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
    if not re.fullmatch(r"[\w.+-]*\w", name):
        raise CheckpointError(f"A {kind} cannot be named {name!r}: take letters, digits, . _ + -")
    return name


def _names(work: Path) -> set[str]:
    """The files of a working folder that are its work: no links, half-written files or keys."""
    def fail(error: OSError) -> None:
        raise error

    paths = [Path(base, name) for base, _, names in os.walk(work, onerror=fail) for name in names]
    # A part that was copied back to go on from brings its old manifest; a new one replaces it.
    return {path.relative_to(work).as_posix() for path in paths
            if path.is_file() and not path.is_symlink() and path != work / parts.MANIFEST
            and path.name not in (_RESTORING, ".env")
            and not re.fullmatch(r"\..*\.tmp", path.name)}


def _journals(work: Path) -> dict[str, bytes]:
    """The whole lines of the journals in a working folder, by name."""
    return {name: parts.whole_lines((work / name).read_bytes())
            for name in filter(is_journal, _names(work))}


def _bring_back(source: Path | bytes, work: Path, name: str) -> None:
    """Copy a file into a working folder; it gets its name when all of it has arrived."""
    arrived = str(PurePosixPath(name).with_name(".restoring.tmp"))
    parts.copy(source, work, arrived)
    os.replace(work / arrived, work / name)
