"""A part on disk: immutable files and, written last, the manifest that vouches for them.

Nothing is believed because it is there: names must stay inside the part, sizes and checksums must
be those of the manifest, and the manifest must be as it was written. Names are composed (NFC): a
Mac takes Hangul apart, and they stay the same names. checkpoint.py decides what is copied and when.
Taught in 02, section 8.
"""

import contextlib
import hashlib
import io
import json
import os
import platform
import re
import shutil
import tempfile
import time
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, BinaryIO

import psutil

from course_utils import CourseError

MANIFEST = "MANIFEST.json"
JOURNALS = "journals"
KEEP = 2
DAY = 24 * 3600

class CheckpointError(CourseError):
    """A checkpoint that could not be sealed or looked for, or a name that cannot be a folder."""


class BrokenPart(Exception):
    """Why a part is not believed; what a disk refuses to read may be whole, and is an OSError."""


def is_safe(name: str) -> bool:
    """Whether a name leads to a file inside the folder it is joined to, on any system.

    >>> [is_safe(name) for name in ("a/b", "../b", "/b", "C:b", "a\\\\b")]
    [True, False, False, False, False]
    """
    path = PureWindowsPath(name)  # the stricter one: it knows both slashes, and drives
    stays = bool(path.parts) and not path.anchor and ".." not in path.parts
    try:
        fits = all(len(piece.encode()) <= 255 for piece in path.parts)
    except UnicodeEncodeError:  # bytes that are no text
        return False
    return stays and fits and path.as_posix() == name and "\0" not in name


def is_journal(name: str) -> bool:
    """Return whether a file of a working folder only ever grows, by its name."""
    return bool(re.fullmatch(r"[^/]*(?:journal|batch)[^/]*\.jsonl", name.rpartition("/")[2]))


def digest(content: Any) -> str:
    """Return the sha256 of anything JSON can hold, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


_where = [platform.node(), os.path.basename(os.path.realpath("/proc/self/ns/pid"))]
with contextlib.suppress(OSError):  # it is there on Linux
    _where += Path("/proc/sys/kernel/random/boot_id").read_text().split()
_MACHINE = digest(_where)[:12]
"""Where a process id means something: a host since it started, and a namespace of it."""


def composed(name: str) -> str:
    """Return a name as every system can write it, Hangul in whole syllables."""
    return unicodedata.normalize("NFC", name)


def find(folder: Path, name: str) -> Path:
    """Return where a name is in a folder, or would be: the disk may have its Hangul in pieces."""
    with contextlib.suppress(FileNotFoundError):
        for path in folder.iterdir():
            if composed(path.name) == name:
                return path
    return folder / name


def files_in(folder: Path) -> dict[str, Path]:
    """Return the files below a folder by their composed names; no links, and nothing else."""
    found: dict[str, Path] = {}
    folders = [(folder, "")]
    for inside, prefix in folders:  # it grows
        with os.scandir(inside) as entries:  # unlike os.walk, an error here is one
            for entry in entries:
                name = prefix + composed(entry.name)
                if entry.is_dir(follow_symlinks=False):
                    folders.append((Path(entry.path), f"{name}/"))
                elif entry.is_file(follow_symlinks=False):
                    if name in found:
                        raise CheckpointError(f"{inside} has two files named {name!r}, whose "
                                              "letters are composed in two ways: rename one.")
                    found[name] = Path(entry.path)
    return found


def describe(source: Path | bytes, into: BinaryIO | None = None) -> dict[str, Any]:
    """Read a source to its end, write it `into` a file; return size and checksum of what came."""
    sha256, size = hashlib.sha256(), 0
    with io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb") as file:
        while block := file.read(1 << 20):
            sha256.update(block)
            size += len(block)
            if into:
                into.write(block)
    return {"bytes": size, "sha256": sha256.hexdigest()}


def copy(source: Path | bytes, folder: Path, name: str) -> dict[str, Any]:
    """Copy a file, for its owner alone, into a folder that is there; describe what came."""
    for inner in reversed(PurePosixPath(name).parents):  # never what lies above the folder
        (folder / inner).mkdir(exist_ok=True)
    with open(folder / name, "wb", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
        return describe(source, file)


def copy_durably(sources: Mapping[str, Path | bytes], folder: Path) -> dict[str, dict[str, Any]]:
    """Copy files as `copy` does and wait until the disk has them; describe them by name."""
    def one(name: str) -> dict[str, Any]:
        came = copy(sources[name], folder, name)
        with open(folder / name, "r+b") as file:
            os.fsync(file.fileno())
        return came

    with ThreadPoolExecutor(8) as pool:  # most of the time of small files is waiting for fsync
        return dict(zip(sources, pool.map(one, sources), strict=True))


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """Write the manifest of a folder's files, which are on disk by then, with its own checksum."""
    manifest = {**manifest, "sha256": digest(manifest)}
    copy_durably({MANIFEST: json.dumps(manifest, indent=1).encode()}, folder)


def read_manifest(part: Path) -> dict[str, Any]:
    """Return a part's manifest, or raise BrokenPart: it is missing, cut, edited or unsafe."""
    try:
        manifest = json.loads((part / MANIFEST).read_text(encoding="utf-8"))
        if manifest.pop("sha256") != digest(manifest):
            raise BrokenPart(f"{MANIFEST} was changed after it was written")
        for name, file in manifest["files"].items():
            if not is_safe(name):
                raise BrokenPart(f"{MANIFEST} names {name!r}, outside the part")
            if type(file["bytes"]) is not int:
                raise ValueError
        manifest["files"] = {composed(name): file for name, file in manifest["files"].items()}
    except FileNotFoundError:
        raise BrokenPart(f"{MANIFEST} is missing") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise BrokenPart(f"{MANIFEST} is damaged") from None
    return manifest


def verify(part: Path, manifest: dict[str, Any], *, contents: bool = True,
           read: Callable[[str, Path], dict[str, Any]] = lambda name, path: describe(path)) -> None:
    """Raise BrokenPart unless every file is there, no link, of its size and, if asked, as sealed.

    It may be read into another file: what a mount serves short is not believed there either.
    """
    there = files_in(part)
    for name, expected in manifest["files"].items():
        if not (path := there.get(name)):
            kind = "a link" if os.path.lexists(part / name) else "missing"
            raise BrokenPart(f"{name} is {kind}")
        try:
            if (size := path.stat().st_size) != expected["bytes"]:
                raise BrokenPart(f"{name} has {size} bytes instead of {expected['bytes']}")
            if contents and read(name, path) != expected:
                raise BrokenPart(f"{name} is not what was written (its sha256 differs)")
        except FileNotFoundError:  # just now
            raise BrokenPart(f"{name} is missing") from None


def parts(home: Path) -> list[Path]:
    """Return the parts in a folder, oldest first: by number, since a clock may jump."""
    try:
        found = [(int(number[1]), path) for path in home.iterdir()
                 if (number := re.fullmatch(r"part-(\d{4,})", path.name))]
    except FileNotFoundError:
        return []
    except OSError as error:  # "nothing there" would be a lie that costs all the work
        raise CheckpointError(f"{home} cannot be read ({error.strerror}); if it is on Drive, mount "
                              "it again.") from error
    return [path for _, path in sorted(found)]


def seal_part(home: Path, manifest: dict[str, Any],
              sources: Mapping[str, Path | bytes]) -> tuple[Path, dict[str, dict], bool]:
    """Copy files into the next part, unless the newest holds just them, and keep two whole ones.

    Return the part, its files as the manifest has them, and whether it is new. Raises
    CheckpointError where it is not whole once it has its name.
    """
    home.mkdir(exist_ok=True, mode=0o700)  # what lies above it must be there
    part = None
    for newest in parts(home)[-1:]:
        with contextlib.suppress(BrokenPart, OSError):
            there = read_manifest(newest)
            alike = all(there.get(key) == manifest[key] for key in ("about", "note"))
            if alike and there["files"] == {n: describe(source) for n, source in sources.items()}:
                verify(newest, there)
                part, files = newest, there["files"]
    if new := part is None:
        with _temporary(home) as folder:
            files = copy_durably(sources, folder)
            write_manifest(folder, {**manifest, "files": files})
            part = _publish(folder, home)
        try:
            verify(part, there := read_manifest(part), contents=False)
            if there["files"] != files:
                raise BrokenPart("another one has its name")
        except BrokenPart as broken:
            raise CheckpointError(f"{part} was not sealed ({broken}): seal again, while no other "
                                  "session seals this run.") from None
    whole = 0
    for old in reversed(parts(home)):
        try:
            if old == part:
                whole += 1
            elif whole >= KEEP:
                discard(old)
            else:
                verify(old, read_manifest(old), contents=False)
                whole += 1
        except (BrokenPart, OSError):
            pass  # broken ones in between are kept: they may be looked at
    return part, files, new


def _publish(temporary: Path, home: Path) -> Path:
    """Rename a finished part to the next free number."""
    while True:
        number = max((int(p.name[5:]) for p in parts(home)), default=0) + 1
        part = home / f"part-{number:04d}"
        try:
            os.rename(temporary, part)  # fails on a folder that is there: another seal was faster
            return part
        except OSError:
            if not part.exists():
                raise


def bring(part: Path, home: Path) -> Path:
    """Return a verified copy of a part in another folder, or itself there; raises BrokenPart."""
    manifest, target = read_manifest(part), home / part.name
    try:
        if read_manifest(target) == manifest:  # a stale copy decides nothing
            verify(target, manifest)
            return target
    except BrokenPart:
        if target == part:
            raise
    with _temporary(home) as new:
        verify(part, manifest, read=lambda name, path: copy(path, new, name))
        write_manifest(new, manifest)
        for old in parts(home):
            discard(old)
        os.rename(new, target)
    return target


def discard(folder: Path) -> None:
    """Remove a folder, if it is there, so that a half-removed one never bears its name."""
    with contextlib.suppress(FileNotFoundError), _temporary(folder.parent) as hidden:
        os.rename(folder, hidden / folder.name)
        shutil.rmtree(hidden)


@contextlib.contextmanager
def _temporary(home: Path) -> Iterator[Path]:
    """A new folder beside the parts; what has not been renamed away at the end is removed.

    So is what this machine's dead processes left behind, and what is a day old.
    """
    for path in home.iterdir():
        if match := re.fullmatch(r"\.making-(\w+)-(\d+)-\w+", path.name):
            with contextlib.suppress(FileNotFoundError):  # its owner has just finished
                dead = match[1] == _MACHINE and not psutil.pid_exists(int(match[2]))
                if dead or time.time() - path.stat().st_mtime > DAY:
                    shutil.rmtree(path, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f".making-{_MACHINE}-{os.getpid()}-", dir=home))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def whole_lines(data: bytes) -> bytes:
    """Return a journal without a last line that is torn, or still on its way."""
    whole = data.rfind(b"\n") + 1
    try:
        return data if isinstance(json.loads(data[whole:]), dict) else data[:whole]
    except (ValueError, RecursionError):
        return data[:whole]


def gather(home: Path, here: Mapping[str, bytes],
           skipping: Callable[..., object] = lambda path, broken: None) -> dict[str, bytes]:
    """Return a step's journals by name: lines of whole copies, then those that are only `here`.

    Copies lie in the step's parts and beside them. `skipping` is told what is not whole, and why.
    """
    found = dict(here)
    for part in [*reversed(parts(home / JOURNALS)), *reversed(parts(home))]:
        try:
            files = read_manifest(part)["files"]
        except (BrokenPart, OSError) as broken:
            skipping(part, broken)
            continue
        for name in filter(is_journal, files):
            data, file = found.get(name, b""), io.BytesIO()
            # Most copies are the beginning of what is here already, and are not read.
            if describe(data[: files[name]["bytes"]]) == files[name]:
                continue
            try:
                verify(part, {"files": {name: files[name]}},
                       read=lambda name, path, file=file: describe(path, file))
                found[name] = _joined(whole_lines(file.getvalue()), data)
            except (BrokenPart, OSError) as broken:
                skipping(part / name, broken)
    return found


def _joined(there: bytes, here: bytes) -> bytes:
    """Return the lines of two journals, each key once: as it was sealed first."""
    if not here:
        return there
    lines: dict[Any, bytes] = {}
    for line in filter(None, [*there.split(b"\n"), *here.split(b"\n")]):
        try:
            key = str(json.loads(line)["key"])
        except (ValueError, KeyError, TypeError, RecursionError):
            key = line
        lines.setdefault(key, line)
    return b"\n".join([*lines.values(), b""])
