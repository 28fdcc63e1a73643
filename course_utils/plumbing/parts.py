"""A part on disk: immutable files and, written last, the manifest that vouches for them.

Nothing is believed because it is there: names must stay inside the part, sizes and checksums must
be those of the manifest, and the manifest must be as it was written. Files are written for their
owner alone and are durable before they get their name. The journals of a step have parts of their
own, so that they can be copied while the step is at work. The store of checkpoint.py decides what
is copied and when. Taught in 02, section 7.
"""

import contextlib
import errno
import hashlib
import io
import json
import os
import platform
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PureWindowsPath
from typing import Any

from course_utils import CourseError

MANIFEST = "MANIFEST.json"
JOURNALS = "journals"
KEEP = 2

_PART = re.compile(r"part-(\d{4,})")
_JOURNAL = re.compile(r"(?:.*/)?[^/]*(?:journal|batch)[^/]*\.jsonl")
_HASH = re.compile(r"[0-9a-f]{64}")
_MACHINE = re.sub(r"\W", "", platform.node()) or "unnamed"
_DAY = 24 * 3600


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


def copy(source: Path | bytes, target: Path) -> dict[str, Any]:
    """Copy a file durably, for its owner alone; return size and checksum of what was copied."""
    target.parent.mkdir(parents=True, exist_ok=True)
    sha256, size = hashlib.sha256(), 0
    with _reading(source) as src, open(target, "wb", opener=_private) as dst:
        while block := src.read(1 << 20):
            sha256.update(block)
            size += len(block)
            dst.write(block)
        dst.flush()
        os.fsync(dst.fileno())
    return {"bytes": size, "sha256": sha256.hexdigest()}


def describe(source: Path | bytes) -> dict[str, Any]:
    """Return the size and checksum of a file, or of bytes that could be one."""
    with _reading(source) as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return {"bytes": file.seek(0, os.SEEK_END), "sha256": sha256}


def _reading(source: Path | bytes):
    return io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb")


def _private(name: str, flags: int) -> int:
    return os.open(name, flags, 0o600)


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


@contextlib.contextmanager
def temporary_folder(home: Path) -> Iterator[Path]:
    """A new folder beside the parts; whatever has not been renamed away at the end is removed."""
    private_folder(home)
    folder = _hidden(home, "making")
    try:
        folder.mkdir(mode=0o700)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _hidden(home: Path, doing: str) -> Path:
    return home / f".{doing}-{_MACHINE}-{os.getpid()}-{uuid.uuid4().hex[:8]}"


# ---------------------------------------------------------------- the manifest


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """Write the manifest of a folder's files, which are made durable first."""
    for inner in sorted({(folder / name).parent for name in manifest["files"]}):
        _sync_folder(inner)
    manifest = {**manifest, "sha256": seal_of(manifest)}
    copy(json.dumps(manifest, indent=1, ensure_ascii=False).encode(), folder / MANIFEST)
    _sync_folder(folder)


def seal_of(manifest: dict[str, Any]) -> str:
    """Return the checksum of a manifest without its own, so that an edited one is noticed."""
    return digest({k: v for k, v in manifest.items() if k != "sha256"})


def read_manifest(part: Path) -> dict[str, Any]:
    """Return a part's manifest, or raise BrokenPart: it is missing, cut, edited or unsafe."""
    try:
        manifest = json.loads((part / MANIFEST).read_text(encoding="utf-8"))
        if manifest["sha256"] != seal_of(manifest):
            raise BrokenPart(f"{MANIFEST} was changed after it was written")
        for name, file in manifest["files"].items():
            if not is_safe(name):
                raise BrokenPart(f"{MANIFEST} names {name!r}, outside the part")
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
            if contents and describe(path) != expected:
                raise BrokenPart(f"{name} is not what was written (its sha256 differs)")
        except FileNotFoundError:
            raise BrokenPart(f"{name} is missing") from None
        except OSError as error:
            raise BrokenPart(f"{name} cannot be read ({error.strerror})") from None


# ---------------------------------------------------------------- the parts of a folder


def parts(home: Path) -> list[Path]:
    """Return the parts in a folder, oldest first: by number, since a clock may jump."""
    try:
        found = [(int(m[1]), p) for p in home.iterdir() if (m := _PART.fullmatch(p.name))]
    except FileNotFoundError:
        return []
    except OSError as error:  # "nothing there" would be a lie that costs all the work
        raise CheckpointError(
            f"{home} cannot be read ({error.strerror}); if it is on Drive, mount it again."
        ) from error
    return [path for _, path in sorted(found)]


def seal_part(
    home: Path, manifest: dict[str, Any], sources: Mapping[str, Path | bytes]
) -> tuple[Path, dict[str, dict], bool]:
    """Copy files into the next part, unless they are the newest one's already; keep two whole ones.

    Return the part, its files as the manifest has them, and whether it is new.
    """
    sweep(home)
    already = _holding(home, manifest, sources)
    if already:
        part, files = already
    else:
        with temporary_folder(home) as new:
            files = {name: copy(source, new / name) for name, source in sources.items()}
            write_manifest(new, {**manifest, "files": files})
            part = _publish(new, home)
    whole = 0
    for old in reversed(parts(home)):
        if whole >= KEEP:
            discard(old)
            continue
        try:
            verify(old, read_manifest(old), contents=False)
            whole += 1
        except BrokenPart as broken:
            if old == part and part.exists():  # an older runtime may have removed some of it
                raise CheckpointError(f"{part} was not sealed ({broken}): seal again.") from None
            # Others are kept while fewer whole ones are newer: they may be looked at.
    return part, files, not already


def _holding(
    home: Path, manifest: dict[str, Any], sources: Mapping[str, Path | bytes]
) -> tuple[Path, dict[str, dict]] | None:
    """The newest part and its files, if it is whole and holds these very contents."""
    for part in parts(home)[-1:]:
        with contextlib.suppress(BrokenPart):
            there = read_manifest(part)
            alike = all(there.get(key) == manifest[key] for key in ("about", "note"))
            if alike and there["files"] == {n: describe(source) for n, source in sources.items()}:
                verify(part, there)
                return part, there["files"]
    return None


def bring(part: Path, home: Path) -> Path:
    """Return a verified copy of a part in another folder, the part itself where it lies there.

    Raises BrokenPart, and CheckpointError where there is no room.
    """
    manifest, target = read_manifest(part), home / part.name
    if target == part:
        verify(part, manifest)
        return part
    with contextlib.suppress(BrokenPart):  # a stale copy decides nothing
        if read_manifest(target) == manifest:
            verify(target, manifest)
            return target
    verify(part, manifest, contents=False)
    sweep(home)
    with temporary_folder(home) as new:
        for name, expected in manifest["files"].items():
            try:
                arrived = copy(part / name, new / name)
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise CheckpointError(
                        f"There is no room in {home} to bring {part} back; free some space."
                    ) from error
                raise BrokenPart(f"{name} cannot be read ({error.strerror})") from None
            # Reading through a mount may be served short: what arrived is what counts.
            if arrived != expected:
                raise BrokenPart(f"{name} is not what was written (its sha256 differs)")
        write_manifest(new, manifest)
        for old in parts(home):
            discard(old)
        os.rename(new, target)
    return target


def _publish(temporary: Path, home: Path) -> Path:
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
        _sync_folder(home)
        return part


def discard(folder: Path) -> None:
    """Remove a folder so that a half-removed one never bears its name."""
    hidden = _hidden(folder.parent, "removing")
    try:
        os.rename(folder, hidden)
    except OSError:
        return  # another process removed it first, or it cannot be removed: nothing depends on it
    shutil.rmtree(hidden, ignore_errors=True)


def sweep(home: Path) -> None:
    """Remove what processes that died left behind; a living one may still be writing its own."""
    for path in home.glob(".*-*-*-*"):
        match = re.fullmatch(r"\.(?:making|removing)-(\w+)-(\d+)-\w+", path.name)
        if match and _abandoned(path, match[1], int(match[2])):
            shutil.rmtree(path, ignore_errors=True)


def _abandoned(path: Path, machine: str, pid: int) -> bool:
    try:
        if machine != _MACHINE or os.name == "nt":  # its processes cannot be asked after from here
            return time.time() - path.stat().st_mtime > _DAY
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass
    return False


# ---------------------------------------------------------------- journals


def is_journal(name: str) -> bool:
    """Return whether a file of a working folder only ever grows, by its name."""
    return bool(_JOURNAL.fullmatch(name))


def whole_lines(data: bytes) -> bytes:
    """Return a journal without a last line that is torn, or still on its way."""
    whole = data.rfind(b"\n") + 1
    try:
        return data if isinstance(json.loads(data[whole:]), dict) else data[:whole]
    except ValueError:
        return data[:whole]


def gather(
    home: Path,
    here: Mapping[str, bytes],
    wanted: Callable[[str], bool] = is_journal,
    *,
    skipping: Callable[[str], object] = lambda line: None,
) -> dict[str, bytes]:
    """Return a step's journals by name: the lines that whole copies hold, then those only `here`.

    Copies lie in the step's parts and beside them. What is not whole is skipped, with a line.
    """
    found = dict(here)
    for part in [*reversed(parts(home / JOURNALS)), *reversed(parts(home))]:
        files, where = {}, part.relative_to(home.parent.parent)
        try:
            files = read_manifest(part)["files"]
        except BrokenPart as broken:
            skipping(f"Skipping the journals in {where}: {broken}.")
        for name, expected in files.items():
            data = found.get(name, b"")
            # Most copies are the beginning of what is here already, and are not read.
            if not wanted(name) or describe(data[: expected["bytes"]]) == expected:
                continue
            try:
                found[name] = _joined(whole_lines(_read(part, name, expected)), data)
            except BrokenPart as broken:
                skipping(f"Skipping {where / name}: {broken}.")
    return found


def _read(part: Path, name: str, expected: dict[str, Any]) -> bytes:
    verify(part, {"files": {name: expected}}, contents=False)
    try:
        data = (part / name).read_bytes()
    except OSError as error:
        raise BrokenPart(f"{name} cannot be read ({error.strerror})") from None
    if describe(data) != expected:
        raise BrokenPart(f"{name} is not what was written (its sha256 differs)")
    return data


def _joined(there: bytes, here: bytes) -> bytes:
    if not here:
        return there
    lines = dict.fromkeys(filter(None, [*there.split(b"\n"), *here.split(b"\n")]))
    return b"\n".join([*lines, b""])
