"""A part on disk: immutable files and, written last, the manifest that vouches for them.

Nothing is believed because it is there: names must stay inside the part, sizes and checksums must
be those of the manifest, and the manifest must be as it was written. Files are written for their
owner alone and are durable before they get their name.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path, PureWindowsPath
from typing import Any

from course_utils import CourseError

MANIFEST = "MANIFEST.json"

_PART = re.compile(r"part-(\d{4,})")
_HASH = re.compile(r"[0-9a-f]{64}")


class CheckpointError(CourseError):
    """A checkpoint that could not be sealed, or a name that cannot be a folder."""


class BrokenPart(Exception):
    """Why a part is not believed."""


# ---------------------------------------------------------------- names and files


def is_safe(name: str) -> bool:
    """Whether a name leads to a file inside the folder it is joined to, on any system.

    >>> [is_safe(name) for name in ("a/b", "../b", "/b", "C:b", "a\\\\b")]
    [True, False, False, False, False]
    """
    pieces = name.split("/")
    windows = PureWindowsPath(name)
    return not (
        windows.drive or windows.root or "\\" in name or "\0" in name
        or any(piece in ("", ".", "..") for piece in pieces)
    )  # fmt: skip


def digest(content: Any) -> str:
    """Return the sha256 of anything JSON can hold, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def private_folder(folder: Path) -> None:
    """Make a folder that only its owner may enter, whatever the umask."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with contextlib.suppress(OSError):  # Drive's mount has modes of its own
        os.chmod(folder, 0o700)


def open_private(path: Path):
    """Open a new file for writing that only its owner may read."""
    return open(path, "wb", opener=lambda name, flags: os.open(name, flags, 0o600))


def write(path: Path, data: bytes) -> None:
    """Write a file durably."""
    with open_private(path) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def copy(source: Path, target: Path) -> dict[str, Any]:
    """Copy a file durably and return the size and checksum of the bytes that were copied."""
    target.parent.mkdir(parents=True, exist_ok=True)
    sha256, size = hashlib.sha256(), 0
    with open(source, "rb") as src, open_private(target) as dst:
        while block := src.read(1 << 20):
            sha256.update(block)
            size += len(block)
            dst.write(block)
        dst.flush()
        os.fsync(dst.fileno())
    return {"bytes": size, "sha256": sha256.hexdigest()}


def describe(path: Path) -> dict[str, Any]:
    """Return the size and checksum of a file."""
    with open(path, "rb") as file:
        return {"bytes": path.stat().st_size,
                "sha256": hashlib.file_digest(file, "sha256").hexdigest()}  # fmt: skip


def sync_folder(folder: Path) -> None:
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


@contextlib.contextmanager
def temporary_folder(home: Path) -> Iterator[Path]:
    """A new folder beside the parts; whatever has not been renamed away at the end is removed."""
    private_folder(home)
    sweep(home)
    folder = home / f".making-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    try:
        folder.mkdir(mode=0o700)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# ---------------------------------------------------------------- the manifest


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """Write the manifest of a folder's files, which are made durable first."""
    for inner in sorted({(folder / name).parent for name in manifest["files"]}):
        sync_folder(inner)
    manifest = {**manifest, "sha256": seal_of(manifest)}
    write(folder / MANIFEST, json.dumps(manifest, indent=1, ensure_ascii=False).encode())
    sync_folder(folder)


def seal_of(manifest: dict[str, Any]) -> str:
    """Return the checksum of a manifest without its own, so that an edited one is noticed."""
    return digest({k: v for k, v in manifest.items() if k != "sha256"})


def read_manifest(part: Path) -> dict[str, Any]:
    """Return a part's manifest, or raise BrokenPart: it is missing, cut, edited or unsafe."""
    try:
        manifest = json.loads((part / MANIFEST).read_text(encoding="utf-8"))
        if manifest["sha256"] != seal_of(manifest):
            raise BrokenPart(f"{MANIFEST} was changed after it was written")
        named = [*manifest["files"]]
        for journal, slices in manifest.get("journals", {}).items():
            named += [journal, *(f"{journal}/{name}" for name in slices)]
        for name in named:
            if not is_safe(name):
                raise BrokenPart(f"{MANIFEST} names {name!r}, outside the part")
        for file in manifest["files"].values():
            if not (type(file["bytes"]) is int and _HASH.fullmatch(file["sha256"])):
                raise ValueError
    except FileNotFoundError:
        raise BrokenPart(f"{MANIFEST} is missing") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise BrokenPart(f"{MANIFEST} is damaged") from None
    return manifest


def verify(part: Path, manifest: dict[str, Any], *, contents: bool = True) -> None:
    """Raise BrokenPart unless every file is there with its size and, if asked, its checksum."""
    home = part.resolve()
    for name, expected in manifest["files"].items():
        path = part / name
        try:
            if path.resolve() != home / name:
                raise BrokenPart(f"{name} is a link")
            if (size := path.stat().st_size) != expected["bytes"]:
                raise BrokenPart(f"{name} has {size} bytes instead of {expected['bytes']}")
            if contents and describe(path)["sha256"] != expected["sha256"]:
                raise BrokenPart(f"{name} is not what was written (its sha256 differs)")
        except FileNotFoundError:
            raise BrokenPart(f"{name} is missing") from None
        except OSError as error:
            raise BrokenPart(f"{name} cannot be read ({error.strerror})") from None


# ---------------------------------------------------------------- the parts of a step


def parts(home: Path) -> list[Path]:
    """Return the parts of a step, oldest first: by number, since a clock may jump."""
    try:
        found = [(int(m[1]), p) for p in home.iterdir() if (m := _PART.fullmatch(p.name))]
    except FileNotFoundError:
        return []
    except OSError as error:  # "nothing there" would be a lie that costs all the work
        raise CheckpointError(
            f"{home} cannot be read ({error.strerror}); if it is on Drive, mount it again."
        ) from error
    return [path for _, path in sorted(found)]


def publish(temporary: Path, home: Path) -> Path:
    """Rename a finished part to the next free number."""
    while True:
        number = max((int(p.name[5:]) for p in parts(home)), default=0) + 1
        part = home / f"part-{number:04d}"
        try:
            os.rename(temporary, part)  # fails on a folder that is there: another seal was faster
        except OSError:
            if not part.exists():
                raise
            continue
        sync_folder(home)
        return part


def prune(home: Path, keep: int, discarding: Callable[[Path], None]) -> None:
    """Remove the parts older than the newest `keep` that look whole (sizes, not contents)."""
    whole = 0
    for part in reversed(parts(home)):
        if whole >= keep:
            discarding(part)
            discard(part)
            continue
        try:
            verify(part, read_manifest(part), contents=False)
            whole += 1
        except BrokenPart:
            pass  # kept while fewer than `keep` whole ones are newer: it may be looked at


def discard(folder: Path) -> None:
    """Remove a folder so that a half-removed one never bears its name."""
    hidden = folder.with_name(f".removing-{os.getpid()}-{uuid.uuid4().hex[:8]}")
    try:
        os.rename(folder, hidden)
    except OSError:
        return  # another process removed it first, or it cannot be removed: nothing depends on it
    shutil.rmtree(hidden, ignore_errors=True)


def sweep(home: Path) -> None:
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
