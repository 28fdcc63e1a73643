"""What Colab does its own way: what the first cell installs and removes, and its Drive."""

import os
import subprocess

import machines
import pytest

from course_utils.plumbing import colab

asked_for = colab._asked  # the tests put another in its place


@pytest.fixture
def pip(plant, tmp_path, monkeypatch):
    """A pip that writes down what it was asked, and fails as it is told."""

    def pip(stderr="", code=0):
        plant("pip", "1", f"import sys, os\nopen({str(tmp_path / 'asked')!r}, 'a').write("
              f"' '.join(sys.argv[1:]) + chr(10))\nsys.stderr.write({stderr!r})\n")  # fmt: skip
        (tmp_path / "pip/__main__.py").write_text(f"import sys; sys.exit({code})\n")
        return tmp_path / "asked"

    there = {"torch": "2.11.0+cu128", "numpy": "2.1.3", "datasets": "4.0.0"}
    monkeypatch.setattr(colab, "installed", lambda: dict(there))
    monkeypatch.setattr(colab, "_asked", lambda: {"datasets"})
    pip.there = there
    return pip


def test_torch_and_numpy_are_held_and_what_changed_is_one_line(pip, monkeypatch, capsys):
    asked = pip()
    run, held = subprocess.run, []

    def watched(command, **settings):
        if "-c" in command:
            held.append(open(command[command.index("-c") + 1]).read())
        done = run(command, **settings)
        pip.there |= {"datasets": "5.2.0", "trl": "1.16.0", "course_utils": colab.__version__}
        return done

    monkeypatch.setattr(subprocess, "run", watched)
    colab.install()
    assert held == ["torch==2.11.0+cu128\nnumpy==2.1.3\n"]
    assert capsys.readouterr().out == (
        f"Installed   datasets 4.0.0 -> 5.2.0; new: course_utils {colab.__version__}, trl 1.16.0\n"
    )
    colab.install()
    assert capsys.readouterr().out == "" and asked.read_text().count("\n") == 1


def test_a_checkout_that_asks_for_more_is_installed_again(pip, monkeypatch):
    assert {"openai", "python_dotenv", "scipy", "trl", "gradio"} <= asked_for()
    asked = pip()
    pip.there |= {"course_utils": colab.__version__}
    colab.install()
    assert not asked.exists()
    monkeypatch.setattr(colab, "_asked", lambda: {"datasets", "something_new"})
    colab.install()
    assert "[colab]" in asked.read_text()


@pytest.mark.parametrize(("number", "goes"), [("0.10.0", True), ("0.16.0", False), ("1.0", False)])
def test_only_a_version_that_is_refused_is_removed(pip, number, goes):
    asked = pip()
    pip.there |= {"course_utils": colab.__version__, "torchao": number}
    colab.install()
    assert ("uninstall -y torchao" in asked.read_text() if asked.exists() else False) == goes


@pytest.mark.parametrize(("stderr", "words"), [
    ("WARNING: Retrying after connection broken by 'NewConnectionError(...)'\n"
     "  ERROR: No matching distribution found for trl\nerror: subprocess-exited-with-error\n",
     "the package index cannot be reached (pip: No matching distribution found for trl)"),
    ("ERROR: Cannot install course-utils because these package versions conflict.\n\n",
     "pip failed (pip: Cannot install course-utils because these package versions conflict)"),
    ("", "pip failed (pip: nothing)"),
], ids=["network", "conflict", "silent"])
def test_pips_failure_is_one_sentence(pip, stderr, words):
    pip(stderr, code=2)
    with pytest.raises(colab.CourseError) as error:
        colab.install()
    said = str(error.value)
    assert words in said and said.endswith(".") and "\n" not in said


def test_what_lies_in_the_checkout_is_not_installed(monkeypatch, tmp_path):
    monkeypatch.setattr(colab, "REPO", tmp_path)
    about = tmp_path / "course_utils.egg-info"
    about.mkdir()
    (about / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: left-over\nVersion: 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert "left_over" not in colab.installed() and "pytest" in colab.installed()


# --- Drive ----------------------------------------------------------------------------------------

TIMEOUT = "mount failed: timeout during initial read of root folder; for more info: https://..."
POLICY = "The domain policy has disabled Drive File Stream: https://support.google.com/a/answer"


@pytest.fixture
def drive(monkeypatch, tmp_path):
    machines.bare(monkeypatch, tmp_path)
    monkeypatch.setattr(colab, "DRIVE", tmp_path / "drive/MyDrive")
    return colab.DRIVE


@pytest.mark.parametrize(("error", "cure"), [
    (ValueError(TIMEOUT), "run this cell again"),
    (ValueError("Mountpoint must not already contain files"), "restart the session"),
    (ValueError("Mountpoint must not be a symlink"), "restart the session"),
    (ValueError(POLICY), "another account"),
    (ValueError("mount failed: invalid oauth code"), "allow all that it asks for"),
    (NotImplementedError(), "run this cell again"),
    (OSError(107, "Transport endpoint is not connected"), "restart the session"),
    (None, "run this cell again"),
], ids=str)
def test_a_drive_that_does_not_mount_is_quoted_with_the_next_step(monkeypatch, drive, error, cure):
    def mount(folder, force_remount):
        assert folder == str(drive.parent) and not force_remount
        if error:
            raise error

    machines.on_colab(monkeypatch, mount=mount)
    said = colab.mount_drive()
    assert said.startswith("NOT MOUNTED") and cure in said and said.endswith(".")
    words = (str(error) or type(error).__name__) if error else "is not there"
    assert words.rstrip(".") in said and "\n" not in said


def test_a_folder_in_drives_place_is_not_taken_for_it(monkeypatch, drive):
    """Something made one while Drive was not mounted: Colab's library will not mount there."""
    drive.mkdir(parents=True)
    mounted = []

    def mount(folder, force_remount):
        mounted.append(folder)
        raise ValueError("Mountpoint must not already contain files")

    machines.on_colab(monkeypatch, mount=mount)
    said = colab.mount_drive()
    assert not colab.drive_mounted() and f"`!mv {drive.parent} {drive.parent}-before`" in said
    monkeypatch.setattr(os.path, "ismount", lambda path: path == drive.parent)
    assert colab.mount_drive() is None and colab.drive_mounted() and len(mounted) == 1


def test_a_drive_is_mounted_once_and_a_connection_that_broke_is_made_anew(monkeypatch, drive):
    broken, mounted, real = [], [], os.stat

    def stat(path, *args, **kwargs):
        if broken and str(path) == str(drive):
            raise OSError(107, "Transport endpoint is not connected")
        return real(path, *args, **kwargs)

    def mount(folder, force_remount):
        mounted.append(force_remount)
        broken.clear()
        drive.mkdir(parents=True, exist_ok=True)

    monkeypatch.setattr(os, "stat", stat)
    machines.on_colab(monkeypatch, mount=mount)
    assert colab.mount_drive() is None and colab.mount_drive() is None and mounted == [False]
    broken.append(True)
    assert colab.mount_drive() is None and mounted == [False, True]
