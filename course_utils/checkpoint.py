"""Sealed checkpoints: work on a fast local disk, keep immutable, verified parts where they survive.

A step's parts lie under `<root>/<run>/<step>/part-0001/`, each a copy of the step's working folder
with a MANIFEST.json that was written last. A part is made under a temporary name and renamed, so at
any instant a part is either whole or not there; whatever its manifest does not vouch for is not
believed. Taught in 02, section 7.
"""

import errno
import hashlib
import json
import os
import re
import shutil
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from course_utils import REPO, CourseError, __version__

MANIFEST = "MANIFEST.json"
KEEP = 2
DRIVE = Path("/content/drive/MyDrive")
COLAB = Path("/content")

_PART = re.compile(r"part-(\d{4,})")
_NAME = re.compile(r"[\w.+-]*\w")


class CheckpointError(CourseError):
    """A checkpoint that could not be sealed, or a name that cannot be a folder."""


@dataclass(frozen=True)
class Sealed:
    """What `seal` wrote: the part's folder, how many files, how many bytes."""

    path: Path
    files: int
    bytes: int


@dataclass(frozen=True)
class CheckpointStore:
    """The steps of one run: `root` is where parts survive, `local_root` where work is fast."""

    run: str
    root: Path
    local_root: Path

    @classmethod
    def open(cls, run: str, root: str | Path | None = None) -> Self:
        """Open the store of a run: on Google Drive on Colab, under ./runs elsewhere.

        With `root`, parts and working folders lie under it, except on Colab, where work always
        stays on the machine's own disk.
        """
        _check_name("run", run)
        on_colab = "COLAB_RELEASE_TAG" in os.environ
        if root is None and on_colab:
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
        return cls(run, root, COLAB / "runs" if on_colab else root)

    def local(self, step: str) -> Path:
        """Return the local working folder of a step, made if it is not there."""
        work = self.local_root / self.run / _check_name("step", step) / "work"
        try:
            work.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CheckpointError(
                f"The working folder {work} cannot be made ({error.strerror}); choose another "
                "folder for the runs."
            ) from error
        return work

    def seal(self, step: str, note: dict[str, Any] | None = None) -> Sealed:
        """Copy the working folder of a step into its next part and keep the newest two whole ones.

        `note` is stored in the manifest. Raises CheckpointError when there is nothing to seal or
        when the disk refuses; the earlier parts and the working folder are untouched then.
        """
        work = self.local(step)
        # A part that was copied back to go on from brings its old manifest; a new one replaces it.
        names = sorted({p.relative_to(work).as_posix() for p in _files(work)} - {MANIFEST})
        if not names:
            raise CheckpointError(f"There is nothing to seal in {work}; run the step first.")
        home = self.root / self.run / step
        temporary = home / f".making-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        try:
            home.mkdir(parents=True, exist_ok=True)
            _sweep(home)
            temporary.mkdir()
            files = {name: _copy(work / name, temporary / name) for name in names}
            manifest = {
                "run": self.run,
                "step": step,
                "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
                "course_utils": __version__,
                "note": note or {},
                "files": files,
            }
            _write_manifest(temporary, manifest)
            part = _publish(temporary, home)
        except OSError as error:
            raise CheckpointError(
                f"Step '{step}' could not be sealed in {home} ({error}); earlier parts are "
                f"untouched and the work is still in {work}: make room or remount, then seal again."
            ) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        _prune(home)
        return Sealed(part, len(files), sum(f["bytes"] for f in files.values()))

    def latest(self, step: str) -> Path | None:
        """Return the newest whole part of a step, verified now and on the local disk; None if none.

        Every file is read and checked against the manifest. A broken part is named and skipped.
        The folder is for reading: change a copy of it, or the working folder.
        """
        home = self.root / self.run / _check_name("step", step)
        for part in reversed(_parts(home)):
            try:
                return self._bring(part)
            except _BrokenPart as broken:
                print(f"Skipping {self.run}/{step}/{part.name}: {broken}.")
        return None

    def clear(self, step: str) -> None:
        """Remove everything a step has, working folder and parts."""
        for base in {self.root, self.local_root}:
            home = base / self.run / _check_name("step", step)
            for folder in [*_parts(home), home / "work"]:
                if folder.exists():
                    _discard(folder)
            if home.exists():
                _sweep(home)

    def _bring(self, part: Path) -> Path:
        """Return a verified local copy of a part, or the part itself where it is local already."""
        manifest = _read_manifest(part)
        home = self.local_root / self.run / part.parent.name
        target = home / part.name
        if target == part:
            _verify(part, manifest)
            return part
        if target.exists():
            try:
                if _read_manifest(target) == manifest:
                    _verify(target, manifest)
                    return target
            except _BrokenPart:
                pass  # only a stale copy; the part itself decides
        _verify(part, manifest, contents=False)
        temporary = home / f".making-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        try:
            home.mkdir(parents=True, exist_ok=True)
            _sweep(home)
            temporary.mkdir()
            for name in manifest["files"]:
                try:
                    _copy(part / name, temporary / name)
                except OSError as error:
                    if error.errno in (errno.ENOSPC, errno.EDQUOT):
                        raise CheckpointError(
                            f"There is no room in {home} to bring {part} back; free some space."
                        ) from error
                    raise _BrokenPart(f"{name} cannot be read ({error.strerror})") from None
            # Reading through a mount may have been served short: what arrived is what counts.
            _verify(temporary, manifest)
            _write_manifest(temporary, manifest)
            for old in _parts(home):
                _discard(old)
            os.rename(temporary, target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return target


def SealingCallback(store: CheckpointStore, step: str) -> Any:  # noqa: N802
    """Return a TrainerCallback that seals `step` each time the Trainer has saved a checkpoint.

    The Trainer's `output_dir` must lie inside `store.local(step)`. A seal that fails is reported
    and training goes on: the next save tries again.
    """
    from transformers import TrainerCallback

    class _SealingCallback(TrainerCallback):
        def on_save(self, args, state, control, **kwargs):
            if state.is_world_process_zero:
                try:
                    store.seal(step, {"step": state.global_step})
                except CheckpointError as error:
                    print(error, file=sys.stderr)

    return _SealingCallback()


class _BrokenPart(Exception):
    """Why a part is not believed."""


def _check_name(kind: str, name: str) -> str:
    if not _NAME.fullmatch(name):
        raise CheckpointError(
            f"A {kind} cannot be named {name!r}: use letters, digits, '.', '_', '+' and '-'."
        )
    return name


def _files(folder: Path) -> Iterator[Path]:
    # A link is not followed: it would seal something from outside the folder.
    return (p for p in folder.rglob("*") if p.is_file() and not p.is_symlink())


def _parts(home: Path) -> list[Path]:
    """Return the parts of a step, oldest first."""
    try:
        found = [(int(m[1]), p) for p in home.iterdir() if (m := _PART.fullmatch(p.name))]
    except FileNotFoundError:
        return []
    except OSError as error:  # "nothing there" would be a lie that costs all the work
        raise CheckpointError(
            f"{home} cannot be read ({error.strerror}); if it is on Drive, mount it again."
        ) from error
    return [path for _, path in sorted(found)]


def _copy(source: Path, target: Path) -> dict[str, Any]:
    """Copy a file durably and return the size and checksum of the bytes that were copied."""
    target.parent.mkdir(parents=True, exist_ok=True)
    digest, size = hashlib.sha256(), 0
    with open(source, "rb") as src, open(target, "wb") as dst:
        while block := src.read(1 << 20):
            digest.update(block)
            size += len(block)
            dst.write(block)
        dst.flush()
        os.fsync(dst.fileno())
    return {"bytes": size, "sha256": digest.hexdigest()}


def _sync_folder(folder: Path) -> None:
    """Make a folder's entries durable, where the file system knows how."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        pass  # Drive's mount refuses; the manifest still decides what is believed
    finally:
        os.close(descriptor)


def _seal_of(manifest: dict[str, Any]) -> str:
    """Return the checksum of a manifest without its own, so that an edited one is noticed."""
    content = {k: v for k, v in manifest.items() if k != "sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    for inner in sorted({p.parent for p in _files(folder)}):
        _sync_folder(inner)
    manifest = {**manifest, "sha256": _seal_of(manifest)}
    with open(folder / MANIFEST, "w", encoding="utf-8") as file:
        json.dump(manifest, file, indent=1, ensure_ascii=False)
        file.flush()
        os.fsync(file.fileno())
    _sync_folder(folder)


def _publish(temporary: Path, home: Path) -> Path:
    """Rename a finished part to the next free number."""
    while True:
        number = max((int(p.name[5:]) for p in _parts(home)), default=0) + 1
        part = home / f"part-{number:04d}"
        try:
            os.rename(temporary, part)  # fails on a folder that is there: another seal was faster
        except OSError:
            if not part.exists():
                raise
            continue
        _sync_folder(home)
        return part


def _read_manifest(part: Path) -> dict[str, Any]:
    """Return a part's manifest, or raise _BrokenPart: it is missing, cut, edited or unsafe."""
    try:
        manifest = json.loads((part / MANIFEST).read_text(encoding="utf-8"))
        if manifest["sha256"] != _seal_of(manifest):
            raise _BrokenPart(f"{MANIFEST} was changed after it was written")
        for name in manifest["files"]:
            if Path(name).is_absolute() or ".." in Path(name).parts:
                raise _BrokenPart(f"{MANIFEST} names {name!r}, outside the part")
    except FileNotFoundError:
        raise _BrokenPart(f"{MANIFEST} is missing") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise _BrokenPart(f"{MANIFEST} is damaged") from None
    return manifest


def _verify(part: Path, manifest: dict[str, Any], *, contents: bool = True) -> None:
    """Raise _BrokenPart unless every file is there with its size and, if asked, its checksum."""
    for name, expected in manifest["files"].items():
        path = part / name
        try:
            if path.stat().st_size != expected["bytes"]:
                raise _BrokenPart(
                    f"{name} has {path.stat().st_size} bytes instead of {expected['bytes']}"
                )
            if contents:
                with open(path, "rb") as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
                if digest != expected["sha256"]:
                    raise _BrokenPart(f"{name} is not what was written (its sha256 differs)")
        except FileNotFoundError:
            raise _BrokenPart(f"{name} is missing") from None
        except OSError as error:
            raise _BrokenPart(f"{name} cannot be read ({error.strerror})") from None


def _prune(home: Path) -> None:
    """Remove the parts older than the newest KEEP that look whole (sizes, not contents)."""
    whole = 0
    for part in reversed(_parts(home)):
        if whole >= KEEP:
            _discard(part)
            continue
        try:
            _verify(part, _read_manifest(part), contents=False)
            whole += 1
        except _BrokenPart:
            pass  # kept while fewer than KEEP whole ones are newer: somebody may want to look at it


def _discard(folder: Path) -> None:
    """Remove a folder so that a half-removed one never bears its name."""
    hidden = folder.with_name(f".removing-{os.getpid()}-{uuid.uuid4().hex[:8]}")
    try:
        os.rename(folder, hidden)
    except OSError:
        return  # another process removed it first, or it cannot be removed: nothing depends on it
    shutil.rmtree(hidden, ignore_errors=True)


def _sweep(home: Path) -> None:
    """Remove what processes that died left behind; a living one may still be writing its own."""
    for path in home.glob(".*-*-*"):
        match = re.fullmatch(r"\.(?:making|removing)-(\d+)-\w+", path.name)
        if match and not _alive(int(match[1])):
            shutil.rmtree(path, ignore_errors=True)


def _alive(pid: int) -> bool:
    if os.name == "nt":
        return True  # asking with signal 0 would end the process there
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
