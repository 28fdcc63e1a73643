"""What Google Colab does its own way: its Drive, and its Secrets. Taught at the beginning of 01."""

import errno
import math
import os
import time
from pathlib import Path

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
