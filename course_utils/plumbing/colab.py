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

INDEX = re.compile(
    "NewConnectionError|NameResolutionError|Temporary failure in name|ConnectTimeout|ReadTimeout|"
    "ProxyError|Max retries exceeded|Network is unreachable|Connection (?:refused|reset|aborted)"
)
DRIVE = Path("/content/drive/MyDrive")
CONTENT = Path("/content")
"""The machine's own disk, gone with the session."""

AGAIN = "run this cell again before you spend anything"
RESTART = "restart the session (Runtime > Restart session) and run this cell first of all"
# What drive.mount says, in its own words, and what helps. The first that fits is taken.
MOUNT_PROBLEMS = (
    ("already contain files", "files were written to /content/drive before it was there", RESTART),
    ("symlink", "/content/drive is a link", RESTART),
    ("either be a directory", "/content/drive is a file", RESTART),
    ("directory that exists", "/content is not there", RESTART),
    ("policy", "the administrator of this Google account does not allow it",
     "open Colab with another account"),
    ("timeout during initial read", "the top folder of your Drive holds too many files to list",
     "move some of them into folders, then " + AGAIN),
    ("oauth", "the permission was not given", AGAIN + " and allow all that it asks for"),
    ("credential propagation", "the permission was not given",
     AGAIN + " and allow all that it asks for"),
    ("not connected", "the connection to Drive broke", RESTART),
    ("mount failed", "Google gave no reason", AGAIN + "; if it fails again, " + RESTART),
)  # fmt: skip


def on_colab() -> bool:
    """Return whether this is a Colab session."""
    return "COLAB_RELEASE_TAG" in os.environ


def install() -> None:
    """Install what the image lacks, remove what our libraries refuse, say what changed in one line.

    Once the course is installed, this takes no time and no network. torch and numpy stay as they
    are. Raises CourseError, with the last that pip said, where pip fails.
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
        if name in before and _release(before[name]) < least:
            _pip("uninstall", "-y", name)
    if changed := _changes(before, installed()):
        print(f"{'Installed':<12}{changed}")


def installed() -> dict[str, str]:
    """Return name (as it is imported, mostly) and version of every installed package.

    What lies in the checkout is none: pip describes the course there before it has installed it.
    """
    importlib.invalidate_caches()
    folders = [folder for folder in sys.path if Path(folder).resolve() != REPO]
    found: dict[str, str] = {}
    for distribution in importlib.metadata.distributions(path=folders):
        about = distribution.metadata
        if about["Name"]:  # none where an installation was cut off
            found.setdefault(name_of(about["Name"]), about["Version"])
    return found


def _asked() -> set[str]:
    """Return the names of the packages that the course asks for on Colab."""
    project = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = project["dependencies"] + project["optional-dependencies"]["colab"]
    return set(map(name_of, lines))


def name_of(requirement: str) -> str:
    """Return a package's name as `installed` writes it: "trl>=1.16" and "TRL" are both "trl"."""
    return re.sub(r"[-_.]+", "_", re.match(r"[\w.-]*", requirement)[0].rstrip(".")).lower()


def _release(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version)[:2]))


def _changes(before: dict[str, str], after: dict[str, str]) -> str:
    """Return "datasets 4.0.0 -> 5.2.0; new: trl 1.16.0; removed: torchao 0.10.0 (...)", or ""."""
    replaced = [f"{name} {version} -> {after[name]}" for name, version in before.items()
                if after.get(name, version) != version]  # fmt: skip
    new = [f"{name} {after[name]}" for name in after.keys() - before.keys()]
    removed = [
        f"{name} {before[name]}" + (f" ({REFUSED[name][1]} refuses it)" if name in REFUSED else "")
        for name in before.keys() - after.keys()
    ]
    parts = {"": replaced, "new: ": new, "removed: ": removed}
    return "; ".join(what + ", ".join(sorted(names)) for what, names in parts.items() if names)


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", *arguments, "-q", "--no-input"]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "PIP_RETRIES": "2"}
    )
    if done.returncode == 0:
        return
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")]
    said = (errors or lines or ["nothing"])[-1].removeprefix("ERROR: ").rstrip(".")
    reason, cure = "pip failed", "run this cell again; if it fails again, show this to the course"
    if "No space left on device" in done.stderr:
        reason, cure = "the disk is full", "delete what you can spare and run this cell again"
    elif INDEX.search(done.stderr):
        reason, cure = "the package index cannot be reached", "run this cell again in a while"
    raise CourseError(f"The course is not installed: {reason} (pip: {said}); {cure}.")


def mount_drive() -> str | None:
    """Mount Google Drive; return what went wrong and what to do in one sentence, or None.

    A mount that broke (errno 107) is mounted anew. No failure stops a lesson.
    """
    broken = _is_broken()
    if not broken and DRIVE.is_dir():
        return None
    try:
        from google.colab import drive

        drive.mount(str(DRIVE.parent), force_remount=broken)
    except NotImplementedError:
        reason, cure = "this runtime has no Drive", "use a runtime hosted by Colab"
    except Exception as error:  # ValueError, OSError, MessageError and others of Colab's own
        said = " ".join(str(error).split())[:200] or type(error).__name__
        known = [(why, how) for words, why, how in MOUNT_PROBLEMS if words in said]
        reason, cure = known[0] if known else (said.rstrip("."), AGAIN)
    else:
        if DRIVE.is_dir():
            return None
        reason, cure = f"it was mounted, but {DRIVE} is not there", AGAIN
    return f"NOT MOUNTED, nothing outlasts this session: {reason}; {cure}."


def _is_broken() -> bool:
    try:
        os.stat(DRIVE)
    except OSError as error:
        return error.errno in (errno.ENOTCONN, errno.EIO)
    return False


_silent_since = -math.inf
_SILENT = (
    " Colab's Secrets did not answer in time: run the cell again in a minute. From VS Code they "
    "never do: paste the key when asked, or set it with os.environ above the first cell."
)


def colab_secret(name: str) -> tuple[str | None, str]:
    """Return the value of a Colab secret, or None and a sentence for the error message."""
    global _silent_since
    silent = time.monotonic() - _silent_since < 60  # every question to VS Code would take 10 s
    try:
        from google.colab import userdata

        return (None, _SILENT) if silent else (userdata.get(name), "")
    except Exception as error:  # NotebookAccessError is a plain Exception
        if type(error).__name__ == "TimeoutException":
            _silent_since = time.monotonic()
        problem = {
            "SecretNotFoundError": " Colab's Secrets do not have it.",
            "NotebookAccessError": " This notebook has no access to it in Colab's Secrets yet.",
            "TimeoutException": _SILENT,
            "ImportError": " Colab's Secrets cannot be used from here (VS Code, for one).",
        }
        return None, problem.get(type(error).__name__, "")
