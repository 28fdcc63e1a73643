"""What a file really is, where it is not the UTF-8 text that it should be, and what to do then."""

import re
import unicodedata
from contextlib import suppress
from pathlib import Path

from course_utils import CourseError

TABLE = "pandas, read_{} and to_json(NAME, orient='records', lines=True, force_ascii=False)"
"""How any table becomes a file of tasks."""


class TaskFileError(CourseError):
    """A task file that cannot be used; the message names the file, the line and the cure."""


def read_text(path: Path) -> str:
    """Read a UTF-8 file whole; raises TaskFileError, which says what another one is and its cure.

    A folder, a parquet file, a PDF, a page of the web, another encoding: each has its sentence.
    """
    name = plain_name(path)
    try:
        data = path.read_bytes()
        begins, line = data[:99].lstrip(b"\xef\xbb\xbf \t\r\n").lower(), 1
        problem = next((f"{name} is {what}." for what, signs in _KINDS.items()
                        if begins.startswith(signs)), None)
        if not problem and b"\0" not in data:
            return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line += data.count(b"\n", 0, error.start)
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        cure = "rename the one there that only looks like it" if _twin(path) else "check its name"
        problem = (f"{name} cannot be read ({getattr(error, 'strerror', error)}): {cure} and its "
                   "folder.")
    if not problem and (guess := _encoding(data, line)):
        problem = (f"{name}:{line} is not UTF-8 but perhaps {guess}: convert the file first, for "
                   f"example with `iconv -f {guess} -t utf-8 OLD > NEW`.")
    raise TaskFileError(problem or f"{name}:{line} is not UTF-8, nor any Korean text: the file is "
                        "damaged or of another kind. Fetch it again, or save it as UTF-8 text.")


_KINDS = {  # what other files are, and what to do: how they begin, in small letters
    f"a parquet file: convert it with {TABLE.format('parquet')}": (b"par1",),
    "packed, as .gz, .zip, .xlsx, .docx and .hwpx are: unpack it, or save it as text; a sheet is "
    f"converted with {TABLE.format('excel')}":
        (b"pk\3\4", b"pk\5\6", b"\x1f\x8b", b"bzh", b"\xfd7zxz", b"(\xb5/\xfd", b"7z\xbc\xaf"),
    "a PDF, or of an old Office or Hangul (.xls, .doc, .hwp): save its text as a .txt file, UTF-8":
        (b"%pdf-", b"\xd0\xcf\x11\xe0"),
    "a page of the web, not the file that it shows: download that file itself, on GitHub by Raw":
        (b"<!doctype", b"<html", b"<?xml"),
    "only a pointer of Git LFS: run `git lfs pull`, or download the file itself":
        (b"version https://git-lfs",),
}


def _twin(path: Path) -> bool:
    """Whether a file there has the same name but for the form of its letters, as from a Mac."""
    with suppress(OSError, ValueError):
        return any(p.name != path.name and plain_name(p.name) == plain_name(path.name)
                   for p in path.parent.iterdir())
    return False


def _encoding(data: bytes, line: int) -> str | None:
    """What a file that is not UTF-8 is written in, as its zeros or the Hangul of a line show it."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff") or data[1::2].count(0) > len(data) // 10:
        return "utf-16"
    with suppress(UnicodeDecodeError):
        text = data.split(b"\n")[line - 1].decode("cp949")  # Korean Windows
        return "cp949" if re.search("[가-힣]", text) else None


def plain_name(path: str | Path) -> str:
    """A file's name as messages show it: Hangul in one piece, "?" for half of a character."""
    return unicodedata.normalize("NFC", str(path).encode("utf-8", "replace").decode())
