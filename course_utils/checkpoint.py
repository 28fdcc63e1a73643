"""Sealed checkpoints: work on a fast local disk, keep immutable, verified parts where they survive.

A step's parts lie under `<root>/<run>/<step>/part-0001/`, each a copy of the step's working folder
with a MANIFEST.json that was written last. A part is made under a temporary name and renamed, so at
any instant a part is either whole or not there; whatever its manifest does not vouch for is not
believed (parts.py). Journals only grow, so they are sealed in slices beside the parts (slices.py),
during the work and not only at its end. Taught in 02, section 7.
"""

import contextlib
import errno
import importlib.metadata
import json
import os
import platform
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

from course_utils import REPO, __version__, slices
from course_utils.colab import CONTENT as COLAB
from course_utils.colab import DRIVE, on_colab
from course_utils.parts import (
    MANIFEST,
    BrokenPart,
    CheckpointError,
    copy,
    describe,
    discard,
    is_safe,
    parts,
    private_folder,
    prune,
    publish,
    read_manifest,
    sweep,
    temporary_folder,
    verify,
    write,
    write_manifest,
)
from course_utils.sealing import MINUTES, Sealing
from course_utils.secrets import scrub

KEEP = 2
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

    `about` goes into every manifest: hashes of the recipe and of the data. `mirror` names a
    repository on the Hub that gets a copy of every adapter that is sealed.
    """

    run: str
    root: Path
    local_root: Path
    about: Mapping[str, Any] = field(default_factory=dict, compare=False)
    mirror: str | None = None

    @classmethod
    def open(
        cls,
        run: str,
        root: str | Path | None = None,
        *,
        about: Mapping[str, Any] | None = None,
        mirror: str | None = None,
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

        `note` is stored in the manifest. Of a journal only what it has gained is copied, and a
        folder that is sealed as it stands makes no new part. Raises CheckpointError when there is
        nothing to seal or when the disk refuses; what was sealed and the working folder are
        untouched then.
        """
        work = self.local(step)
        if (work / _RESTORING).exists():  # a kill came between: half a folder is never sealed
            self.restore(step)
        names = sorted(_names(work))
        if not names:
            raise CheckpointError(f"There is nothing to seal in {work}; run the step first.")
        for name in names:
            if not is_safe(name):
                raise CheckpointError(f"{work} has a file named {name!r}, which cannot be sealed "
                                      "on every system: rename it.")  # fmt: skip
        home = self._home(step)
        plain = [name for name in names if not slices.is_journal(name)]
        manifest = {
            "run": self.run,
            "step": step,
            "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "versions": _versions(),
            "about": dict(self.about),
            "note": json.loads(json.dumps(note or {}, default=str)),
        }
        with self._refusals(step):
            private_folder(self.root / self.run)
            sweep(home)
            manifest["journals"] = {
                name: slices.add(work / name, home, name) for name in names if name not in plain
            }
            if part := self._sealed_already(home, work, plain, manifest):
                manifest = read_manifest(part)
            else:
                with temporary_folder(home) as temporary:
                    manifest["files"] = {n: copy(work / n, temporary / n) for n in plain}
                    write_manifest(temporary, manifest)
                    part = publish(temporary, home)
                self._send_to_hub(step, part, plain)
            prune(home, KEEP, lambda old: self._remove_slices(home, old))
        size = sum(file["bytes"] for file in manifest["files"].values())
        size += sum(int(s.split("-")[1]) for names in manifest["journals"].values() for s in names)
        return Sealed(part, len(names), size)

    def seal_journals(self, step: str) -> None:
        """Seal what the journals of a step have gained; no part is made. Raises CheckpointError."""
        work = self.local(step)
        with self._refusals(step):
            private_folder(self.root / self.run)
            for name in filter(slices.is_journal, sorted(_names(work))):
                slices.add(work / name, self._home(step), name)

    def sealing(self, step: str, minutes: float = MINUTES) -> Sealing:
        """Return what a loop tells of each reply, so that none stays unsealed for longer.

        `llm.journal.watch = store.sealing(step)` is all it takes; `Course.teacher` does it.
        """
        return Sealing(self, step, minutes)

    # ------------------------------------------------------------ back

    def latest(self, step: str) -> Path | None:
        """Return the newest whole part of a step, verified now and on the local disk; None if none.

        Every file is read and checked against the manifest. A broken part is named and skipped.
        The folder is for reading: `restore` fetches the work. Its journals are put together here
        from their slices.
        """
        for part in reversed(parts(self._home(step))):
            try:
                folder = self._bring(part)
                for name, names in read_manifest(part).get("journals", {}).items():
                    if not slices.holds(folder / name, names):
                        with self._refusals(step, "brought back"):
                            self._put_together(step, name, folder / name, names)
                return folder
            except BrokenPart as broken:
                print(f"Skipping {self.run}/{step}/{part.name}: {broken}.")
        return None

    def restore(self, step: str) -> Path:
        """Return the working folder of a step, filled with what is sealed where it is empty.

        What is there is newer and stays: files come back only into a folder without any, a journal
        only where there is none. A journal's slices are all taken that are whole, those from after
        the last part too; broken ones are named. A kill on the way does no harm: the next call
        goes on.
        """
        work = self.restore_journals(step)
        marker = work / _RESTORING
        if not marker.exists() and not all(map(slices.is_journal, _names(work))):
            return work
        with self._refusals(step, "brought back"):
            if part := self.latest(step):
                write(marker, b"")
                for name, expected in read_manifest(part)["files"].items():
                    if slices.is_journal(name) and (work / name).exists():
                        continue
                    arrived = work / ".restoring.tmp"
                    if copy(part / name, arrived) != expected:
                        raise OSError(errno.EIO, f"{name} was read differently the second time")
                    (work / name).parent.mkdir(parents=True, exist_ok=True)
                    os.replace(arrived, work / name)
            marker.unlink(missing_ok=True)
        return work

    def restore_journals(self, step: str) -> Path:
        """Bring back the journals of a step that the working folder lacks; return that folder."""
        work, home = self.local(step), self._home(step)
        with self._refusals(step, "brought back"):
            for name in slices.journals(home):
                if (work / name).is_file() and (work / name).stat().st_size:
                    continue
                self._put_together(step, name, work / name)
        return work

    def check(self, limit: int = CHECKED) -> list[str]:
        """Return a line for every part and slice of the run that is not whole.

        Manifests and sizes are looked at everywhere. Contents are read, the newest part of each
        step first, up to `limit` bytes in all: seconds, even through Drive's mount. What is beyond
        is not believed either, for `latest` reads every byte before anything is used.
        """
        found, left = [], limit
        newest_first = sorted(
            ((age, home.name, part) for home in self._homes()
             for age, part in enumerate(reversed(parts(home)))),
            key=lambda entry: entry[:2],
        )  # fmt: skip
        for _, step, part in newest_first:
            try:
                manifest = read_manifest(part)
                size = sum(file["bytes"] for file in manifest["files"].values())
                verify(part, manifest, contents=size <= left)
                left -= size if size <= left else 0
            except BrokenPart as broken:
                found.append(f"{step}/{part.name} is broken: {broken}.")
        for home in self._homes():
            for name in slices.journals(home):
                for piece in slices.slices(home, name):
                    readable = piece.bytes <= left
                    left -= piece.bytes if readable else 0
                    if not (piece.read() is not None if readable else piece.looks_whole()):
                        found.append(f"{home.name}/{name} lacks slice {piece.number}: it is not "
                                     "what was written; Drive may still deliver it.")  # fmt: skip
        return found

    def clear(self, step: str) -> None:
        """Remove everything a step has, working folder, parts and slices."""
        for base in {self.root, self.local_root}:
            home = base / self.run / _check_name("step", step)
            for folder in [*parts(home), home / "work", home / slices.FOLDER]:
                if folder.exists():
                    discard(folder)
            if home.exists():
                sweep(home)

    # ------------------------------------------------------------ inside

    def _home(self, step: str) -> Path:
        return self.root / self.run / _check_name("step", step)

    def _homes(self) -> list[Path]:
        top = self.root / self.run
        return sorted(p for p in top.iterdir() if p.is_dir()) if top.is_dir() else []

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

    def _put_together(
        self, step: str, name: str, target: Path, names: Sequence[str] | None = None
    ) -> None:
        """Write a journal from its slices, and name those that are broken."""
        for broken in slices.put_together(self._home(step), name, target, names):
            print(f"Skipping {self.run}/{step}/{slices.FOLDER}/{name}/{broken[:40]}: it is not "
                  "what was written; the replies in the other slices are kept.")

    def _sealed_already(self, home: Path, work: Path, names: list[str], now: dict) -> Path | None:
        """Return the newest part if it holds these very contents and is whole."""
        for part in parts(home)[-1:]:
            with contextlib.suppress(BrokenPart):
                there = read_manifest(part)
                alike = all(there.get(key) == now[key] for key in ("journals", "about", "note"))
                files = there["files"]
                sizes = {name: file["bytes"] for name, file in files.items()}
                if not alike or sizes != {name: (work / name).stat().st_size for name in names}:
                    return None
                if all(describe(work / name) == files[name] for name in names):
                    verify(part, there)
                    return part
        return None

    def _remove_slices(self, home: Path, going: Path) -> None:
        """Remove the slices that a part names and no other part does, before the part goes."""
        with contextlib.suppress(BrokenPart):
            others = [read_manifest(part) for part in parts(home) if part != going]
            for name, named in read_manifest(going).get("journals", {}).items():
                kept = {s for other in others for s in other.get("journals", {}).get(name, ())}
                slices.remove(home, name, slices.superseded(home, name, set(named) - kept, kept))

    def _bring(self, part: Path) -> Path:
        """Return a verified local copy of a part, or the part itself where it is local already."""
        manifest = read_manifest(part)
        home = self.local_root / self.run / part.parent.name
        target = home / part.name
        if target == part:
            verify(part, manifest)
            return part
        if target.exists():
            try:
                if read_manifest(target) == manifest:
                    verify(target, manifest)
                    return target
            except BrokenPart:
                pass  # only a stale copy; the part itself decides
        verify(part, manifest, contents=False)
        with temporary_folder(home) as temporary:
            for name in manifest["files"]:
                try:
                    copy(part / name, temporary / name)
                except OSError as error:
                    if error.errno in (errno.ENOSPC, errno.EDQUOT):
                        raise CheckpointError(
                            f"There is no room in {home} to bring {part} back; free some space."
                        ) from error
                    raise BrokenPart(f"{name} cannot be read ({error.strerror})") from None
            # Reading through a mount may have been served short: what arrived is what counts.
            verify(temporary, manifest)
            write_manifest(temporary, manifest)
            for old in parts(home):
                discard(old)
            os.rename(temporary, target)
        return target

    def _send_to_hub(self, step: str, part: Path, names: list[str]) -> None:
        """Copy an adapter to the mirror; a Hub that does not answer never fails a seal."""
        files = {f"{self.run}/{step}/{name}": part / name
                 for name in names if name.startswith("adapter/")}  # fmt: skip
        if not self.mirror or not files:
            return
        from course_utils.sources.share import upload

        try:
            print(f"The adapter of '{step}' is on the Hub as well: {upload(self.mirror, files)}")
        except Exception as error:  # the seal is done, whatever the Hub says
            print(f"The adapter is sealed, but not copied to the Hub: {scrub(str(error))}")


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


@lru_cache(maxsize=1)
def _versions() -> dict[str, str]:
    versions = {"course_utils": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions
