"""Sealed checkpoints: work on a fast local disk, keep immutable, verified parts where they survive.

    <root>/<run>/<step>/part-0001/           the step's working folder as it was, and its manifest
    <root>/<run>/<step>/journals/part-0007/  its journals, copied while the work went on

A part is made under a temporary name, its manifest last, and renamed: at any instant it is whole or
not there. Whatever a manifest does not vouch for is not believed (parts.py). Two parts are kept.
Taught in 02, section 7.
"""

import contextlib
import importlib.metadata
import json
import os
import platform
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

from course_utils import REPO, __version__
from course_utils.plumbing.colab import CONTENT as COLAB
from course_utils.plumbing.colab import DRIVE, on_colab
from course_utils.plumbing.parts import (
    JOURNALS,
    MANIFEST,
    BrokenPart,
    CheckpointError,
    bring,
    copy,
    discard,
    gather,
    is_journal,
    is_safe,
    parts,
    private_folder,
    read_manifest,
    seal_part,
    sweep,
    verify,
    whole_lines,
)
from course_utils.plumbing.secrets import scrub

MINUTES = 10.0
"""Work is sealed at least this often."""
CHECKED = 256 << 20
"""Bytes that `check` reads; of what is beyond them it looks at manifests and sizes."""
PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "tokenizers",
            "openai", "kiwipiepy", "rapidfuzz")  # fmt: skip

_NAME = re.compile(r"[\w.+-]*\w")
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

    `about` goes into every manifest: hashes of the recipe and of the data. `mirror` is given the
    files of every adapter that is sealed, by name, and returns where it has put copies of them.
    """

    run: str
    root: Path
    local_root: Path
    about: Mapping[str, Any] = field(default_factory=dict, compare=False)
    mirror: Callable[[dict[str, Path]], str] | None = field(default=None, compare=False)

    @classmethod
    def open(
        cls,
        run: str,
        root: str | Path | None = None,
        *,
        about: Mapping[str, Any] | None = None,
        mirror: Callable[[dict[str, Path]], str] | None = None,
    ) -> Self:
        """Open the store of a run: on Google Drive on Colab, under ./runs elsewhere.

        With `root`, parts and working folders lie under it, except on Colab, where work always
        stays on the machine's own disk.
        """
        _check_name("run", run)
        if root is None and on_colab():
            if DRIVE.is_dir():
                root = DRIVE / "instruction-tuning" / "runs"
            else:
                root = COLAB / "runs"
                print(f"Google Drive is not mounted: {root} will be gone when this session ends.")
        elif root is None:
            # A notebook's working folder is the notebook's own; the runs belong to the checkout.
            cwd = Path.cwd()
            root = (REPO if cwd.is_relative_to(REPO) else cwd) / "runs"
        root = Path(root).absolute()
        return cls(run, root, COLAB / "runs" if on_colab() else root, about or {}, mirror)

    def local(self, step: str) -> Path:
        """Return the local working folder of a step, made if it is not there."""
        work = self.local_root / self.run / _check_name("step", step) / "work"
        try:
            private_folder(self.local_root / self.run)
            work.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CheckpointError(
                f"The working folder {work} cannot be made ({error.strerror}); choose another "
                "folder for the runs."
            ) from error
        return work

    # ------------------------------------------------------------ out

    def seal(self, step: str, note: dict[str, Any] | None = None) -> Sealed:
        """Copy the working folder of a step into its next part and keep the newest two whole ones.

        `note` is stored in the manifest. A folder that is sealed as it stands makes no new part.
        Raises CheckpointError when there is nothing to seal or when the disk refuses; what was
        sealed and the working folder are untouched then.
        """
        work, home = self.local(step), self._home(step)
        if (work / _RESTORING).exists():  # a kill came between: half a folder is never sealed
            self.restore(step)
        names = sorted(_names(work))
        if not names:
            raise CheckpointError(f"There is nothing to seal in {work}; run the step first.")
        if unsafe := [name for name in names if not is_safe(name)]:
            raise CheckpointError(f"{work} has a file named {unsafe[0]!r}, which cannot be sealed "
                                  "on every system: rename it.")  # fmt: skip
        self.seal_journals(step)
        sources, manifest = {name: work / name for name in names}, self._manifest(step, note)
        with self._refusals(step):
            part, files, new = seal_part(home, manifest, sources)
        if new:
            self._send_to_mirror(step, part, names)
        return Sealed(part, len(files), sum(file["bytes"] for file in files.values()))

    def seal_journals(self, step: str) -> None:
        """Copy the journals of a step beside its parts: its work goes on. Raises CheckpointError.

        What other machines have sealed of them goes into the copy as well, so that the oldest of
        three can go. Where nothing is new, no copy is made.
        """
        work, home = self.local(step), self._home(step)
        with self._refusals(step):
            private_folder(self.root / self.run)
            here = {name: whole_lines((work / name).read_bytes())
                    for name in filter(is_journal, _names(work))}  # fmt: skip
            found = {name: content for name, content in gather(home, here).items() if content}
            if found:
                seal_part(home / JOURNALS, self._manifest(step), found)

    # ------------------------------------------------------------ back

    def latest(self, step: str) -> Path | None:
        """Return the newest whole part of a step, verified now and on the local disk; None if none.

        Every file is read and checked against the manifest. A broken part is named and skipped.
        The folder is for reading: `restore` fetches the work.
        """
        for part in reversed(parts(self._home(step))):
            try:
                return bring(part, self.local_root / self.run / step)
            except BrokenPart as broken:
                print(f"Skipping {self.run}/{step}/{part.name}: {broken}.")
        return None

    def restore(self, step: str) -> Path:
        """Return the working folder of a step, filled with what is sealed where it is empty.

        What is there is newer and stays: files come back only into a folder without any, a journal
        only where there is none, and then with every line that a whole copy has. A kill on the way
        does no harm: the next call goes on.
        """
        work = self.restore_journals(step)
        marker = work / _RESTORING
        if not marker.exists() and not all(map(is_journal, _names(work))):
            return work
        with self._refusals(step, "brought back"):
            if part := self.latest(step):
                copy(b"", marker)
                for name in read_manifest(part)["files"]:
                    if not (is_journal(name) and (work / name).exists()):
                        _bring_back(part / name, work / name)
            marker.unlink(missing_ok=True)
        return work

    def restore_journals(self, step: str) -> Path:
        """Bring back the journals of a step that the working folder lacks; return that folder."""
        work, home = self.local(step), self._home(step)

        def lacks(name: str) -> bool:
            return is_journal(name) and not (
                (work / name).is_file() and (work / name).stat().st_size)

        with self._refusals(step, "brought back"):
            for name, content in gather(home, {}, lacks, skipping=print).items():
                _bring_back(content, work / name)
        return work

    def check(self, limit: int = CHECKED) -> list[str]:
        """Return a line for every part of the run that is not whole.

        Manifests and sizes are looked at everywhere. Contents are read, the newest part of each
        step first, up to `limit` bytes in all: seconds, even through Drive's mount. What is beyond
        is not believed either, for `latest` reads every byte before anything is used.
        """
        found, left, top = [], limit, self.root / self.run
        steps = sorted(p for p in top.iterdir() if p.is_dir()) if top.is_dir() else []
        newest_first = sorted(
            ((age, part.relative_to(top).as_posix(), part)
             for step in steps for home in (step, step / JOURNALS)
             for age, part in enumerate(reversed(parts(home)))),
        )  # fmt: skip
        for _, name, part in newest_first:
            try:
                manifest = read_manifest(part)
                size = sum(file["bytes"] for file in manifest["files"].values())
                verify(part, manifest, contents=size <= left)
                left -= size if size <= left else 0
            except BrokenPart as broken:
                found.append(f"{name} is broken: {broken}.")
        return found

    def clear(self, step: str) -> None:
        """Remove everything a step has, working folder, parts and journals."""
        for base in {self.root, self.local_root}:
            home = base / self.run / _check_name("step", step)
            for folder in [*parts(home), home / "work", home / JOURNALS]:
                if folder.exists():
                    discard(folder)
            if home.exists():
                sweep(home)

    # ------------------------------------------------------------ inside

    def _home(self, step: str) -> Path:
        return self.root / self.run / _check_name("step", step)

    def _manifest(self, step: str, note: dict[str, Any] | None = None) -> dict[str, Any]:
        return {
            "run": self.run,
            "step": step,
            "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "versions": _versions(),
            "about": dict(self.about),
            "note": json.loads(json.dumps(note or {}, default=str)),
        }

    @contextlib.contextmanager
    def _refusals(self, step: str, what: str = "sealed") -> Iterator[None]:
        """Turn what a disk says into what to do."""
        try:
            yield
        except OSError as error:
            raise CheckpointError(
                f"Step '{step}' could not be {what} in {self._home(step)} ({error}); earlier parts "
                f"are untouched and the work is still in {self.local(step)}: make room or remount, "
                "then run it again."
            ) from error

    def _send_to_mirror(self, step: str, part: Path, names: list[str]) -> None:
        """Copy an adapter to the mirror; one that does not answer never fails a seal."""
        files = {f"{self.run}/{step}/{name}": part / name
                 for name in names if name.startswith("adapter/")}  # fmt: skip
        if not self.mirror or not files:
            return
        try:
            print(f"The adapter of '{step}' is on the Hub as well: {self.mirror(files)}")
        except Exception as error:  # the seal is done, whatever the Hub says
            print(f"The adapter is sealed, but not copied to the Hub: {scrub(str(error))}")


# ---------------------------------------------------------------- during the work


class Sealing:
    """Seals the journals of a step soon after they have grown; called after each reply.

    `llm.journal.watch = Sealing(store, step)` is all it takes; `Course.llm` does it. The first
    call sets a timer, so nothing waits for a slow Drive, and a reply is sealed in time even if none
    follows it. A Drive that fails is reported once and tried again.
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
                print(f"{error} Until then it is tried again now and then; work goes on.")
            self._failing = True
            self()


def SealingCallback(store: CheckpointStore, step: str, minutes: float = MINUTES) -> Any:  # noqa: N802
    """Return a TrainerCallback that seals `step` each time the Trainer has saved a checkpoint.

    Where the recipe's save_steps are farther apart, it has the Trainer save after `minutes`. The
    Trainer's `output_dir` must lie inside `store.local(step)`. A seal that fails is reported and
    training goes on: the next save tries again.
    """
    from accelerate.utils import broadcast_object_list
    from transformers import TrainerCallback

    class _SealingCallback(TrainerCallback):
        saved = time.monotonic()

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


# ---------------------------------------------------------------- inside


def _check_name(kind: str, name: str) -> str:
    if not _NAME.fullmatch(name):
        raise CheckpointError(
            f"A {kind} cannot be named {name!r}: use letters, digits, '.', '_', '+' and '-'."
        )
    return name


def _names(work: Path) -> set[str]:
    """The files of a working folder that are its work: no links, half-written files or keys."""
    return {
        path.relative_to(work).as_posix()
        for path in work.rglob("*")
        # A link is not followed: it would seal something from outside the folder. A part that was
        # copied back to go on from brings its old manifest; a new one replaces it.
        if path.is_file() and not path.is_symlink()
        and path.name not in (_RESTORING, ".env") and not re.fullmatch(r"\..*\.tmp", path.name)
        and path != work / MANIFEST
    }  # fmt: skip


def _bring_back(source: Path | bytes, target: Path) -> None:
    """Copy a file into a working folder; it gets its name when all of it has arrived."""
    arrived = target.with_name(".restoring.tmp")
    copy(source, arrived)
    os.replace(arrived, target)


@lru_cache(maxsize=1)
def _versions() -> dict[str, str]:
    versions = {"course_utils": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions
