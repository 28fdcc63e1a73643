"""What Google Colab does its own way: its image, its Drive, its Secrets. Taught at the start of 01.

The first cell imports this before anything is installed: the standard library has to do.
"""

import errno
import importlib
import importlib.metadata
import math
import os
import re
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

from course_utils import REPO, CourseError, __version__

KEPT = ("torch", "numpy")
"""The machine's own: a newer torch wants a newer driver, and much is built against this numpy."""
REFUSED = {"torchao": ((0, 16), "peft")}
"""What the image has and a library of ours refuses: the first version it takes, who refuses."""
NO_NETWORK = re.compile(
    "NewConnectionError|NameResolutionError|Temporary failure in name|ConnectTimeout|ReadTimeout|"
    "ProxyError|Max retries exceeded|Network is unreachable|Connection (?:refused|reset|aborted)"
)
DRIVE = Path("/content/drive/MyDrive")
CONTENT = Path("/content")
"""The machine's own disk, gone with the session."""


def on_colab() -> bool:
    """Return whether this is a Colab session."""
    return "COLAB_RELEASE_TAG" in os.environ


def install() -> None:
    """Install what the image lacks, remove what our libraries refuse, say what changed in one line.

    A second time it does nothing. Raises CourseError, with the last that pip said, where pip fails.
    """
    before = installed()
    # pip installs the course last, after all it needs; a later checkout may need more.
    if before.get("course_utils") != __version__ or not _asked() <= before.keys():
        with tempfile.TemporaryDirectory() as folder:
            constraints = Path(folder) / "constraints.txt"
            kept = [f"{name}=={before[name]}\n" for name in KEPT if name in before]
            constraints.write_text("".join(kept))
            _pip("install", "-c", str(constraints), "-e", f"{REPO}[colab]")
    for name, (least, _) in REFUSED.items():
        if name in before and tuple(map(int, re.findall(r"\d+", before[name])[:2])) < least:
            _pip("uninstall", "-y", name)
    if changed := _changes(before, installed()):
        print(f"{'Installed':<12}{changed}")


def installed() -> dict[str, str]:
    """Return name (as it is imported, mostly) and version of every installed package."""
    importlib.invalidate_caches()
    # Not the checkout: pip describes the course there before it has installed it.
    folders = [folder for folder in sys.path if Path(folder).resolve() != REPO]
    found: dict[str, str] = {}
    for distribution in importlib.metadata.distributions(path=folders):
        about = distribution.metadata
        if about["Name"]:  # none where an installation was cut off
            found.setdefault(name_of(about["Name"]), about["Version"])
    return found


def version_of(name: str) -> str | None:
    """Return the version of one package, None where it is not installed; `installed` reads all."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def name_of(requirement: str) -> str:
    """Return a package's name as `installed` writes it: "trl>=1.16" and "TRL" are both "trl"."""
    return re.sub(r"[-_.]+", "_", re.match(r"[\w.-]*", requirement)[0].rstrip(".")).lower()


def _asked() -> set[str]:
    """Return the names of the packages that the course asks for on Colab."""
    project = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return set(map(name_of, project["dependencies"] + project["optional-dependencies"]["colab"]))


def _changes(before: dict[str, str], after: dict[str, str]) -> str:
    """Return "datasets 4.0.0 -> 5.2.0; new: trl 1.16.0; removed: torchao 0.10.0 (...)", or ""."""
    why = {name: f" ({who} refuses it)" for name, (_, who) in REFUSED.items()}
    said = {"": [f"{name} {before[name]} -> {after[name]}" for name in sorted(before.keys() & after)
                 if before[name] != after[name]],
            "new: ": [f"{name} {after[name]}" for name in sorted(after.keys() - before)],
            "removed: ": [f"{name} {before[name]}{why.get(name, '')}"
                          for name in sorted(before.keys() - after)]}
    return "; ".join(what + ", ".join(names) for what, names in said.items() if names)


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", *arguments, "-q", "--no-input", "--retries", "2"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode == 0:
        return
    lines = [line.strip() for line in f"nothing\n{done.stderr}".splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")]
    said = (errors or lines)[-1].removeprefix("ERROR: ").rstrip(".")
    network = NO_NETWORK.search(done.stderr)  # its last words are then of something else
    reason = "the package index cannot be reached" if network else "pip failed"
    raise CourseError(f"The course is not installed: {reason} (pip: {said}); run this cell again "
                      "in a while; if it fails again, show this to the course.")


_believed: tuple[Path, int] | None = None  # what Colab's library called mounted, and its inode


def drive_mounted() -> bool:
    """Return whether Google Drive is there, and not a folder of this machine in its place."""
    if not os.path.isdir(DRIVE):  # False where a mount broke
        return False
    return os.path.ismount(DRIVE.parent) or _believed == (DRIVE, os.stat(DRIVE).st_ino)


def mount_drive() -> str | None:
    """Mount Google Drive; return what went wrong and what to do in one sentence, or None."""
    global _believed
    if drive_mounted():
        return None
    broken = False
    try:
        os.stat(DRIVE)
    except OSError as error:
        broken = error.errno in (errno.ENOTCONN, errno.EIO)  # then it is mounted anew
    try:
        from google.colab import drive

        drive.mount(str(DRIVE.parent), force_remount=broken)
        if DRIVE.is_dir():
            _believed = DRIVE, os.stat(DRIVE).st_ino
            return None
        said = f"it is mounted, but {DRIVE} is not there"
    except Exception as error:  # ValueError, OSError, MessageError and others of Colab's own
        said = " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
    cure = "run this cell again before you spend anything, and allow all that it asks for"
    if "Mountpoint" in said and os.path.isdir(DRIVE.parent):
        cure = (f"a folder of this machine is in its place, run `!mv {DRIVE.parent} "
                f"{DRIVE.parent}-before` in a cell, then this one again")
    elif "Mountpoint" in said or "not connected" in said:
        cure = "restart the session (Runtime > Restart session) and run this cell first of all"
    elif "policy" in said:
        cure = "open Colab with another account"
    return f"NOT MOUNTED, nothing outlasts this session ({said}): {cure}."


_silent_since = -math.inf


def colab_secret(name: str) -> tuple[str | None, str]:
    """Return the value of a Colab secret, or None and a sentence for the error message."""
    global _silent_since
    problem = (" Colab's Secrets did not answer in time: run the cell again in a minute. From VS "
               "Code they never do: paste the key when asked, or set it with os.environ above.")
    if time.monotonic() - _silent_since < 60:  # every question from VS Code would take 10 s
        return None, problem
    try:
        from google.colab import userdata

        return userdata.get(name), ""
    except Exception as error:  # NotebookAccessError is a plain Exception
        if type(error).__name__ == "TimeoutException":
            _silent_since = time.monotonic()
            return None, problem
        return None, f" Colab's Secrets do not give it ({' '.join(str(error).split())})."
