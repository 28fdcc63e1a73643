"""Run 01 to 03 on a Colab GPU with Google's own command, and write down what they took.

    python tools/colab/run.py --gpu T4 --preset quick

Needs a Google account and the `colab` command (package google-colab-cli). What runs is the last
commit. The machine is given back whatever happens, what ran is kept in runs/colab, and
measured.json changes only when all three notebooks have run to their end.
"""

import argparse
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from datetime import date
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
NOTEBOOKS = ("01_preprocess", "02_train", "03_evaluate")
GPUS = {"T4": "T4", "L4": "L4", "G4": "RTX PRO 6000", "A100": "A100", "H100": "H100"}  # their names
CURES = (  # what the command says last, and what helps; the first that fits is taken
    ("appears to be lost|not found", "Colab took the machine away: run this again"),
    ("Connection was lost|TimeoutError", "the connection broke, or the cell took longer than "
     "--minutes: run this again"),
    ("rejected accelerator", "this account may not have that GPU: try another, or a paid plan"),
    ("precondition failed|Service Unavailable|Too Many", "Colab has no such machine for you now: "
     "see `colab sessions` and `colab usage`, then try later, or another GPU"),
    ("authorization code|[Dd]efault [Cc]redentials|Unauthorized|Forbidden",
     "you are not logged in (any more): run `colab sessions` in a terminal, follow its link"),
    ("Connection|resolve", "is the network there? Run this again"),
    ("", "run this again"),
)  # fmt: skip
HOME = "/content/instruction-tuning-course"
# A folder in Drive's place: nobody is asked for permission, and no earlier run is found there.
UNPACK = f"""!mkdir -p {HOME} /content/drive/MyDrive && tar xzf /content/course.tgz -C {HOME}
!nvidia-smi -L"""
BEFORE = f"""import os, sys
os.environ.update(PRESET="%s", RUNS="/content/sealed")
sys.path.append("{HOME}/tools/colab")
from meter import Meter
_meter = Meter(get_ipython())"""
AFTER = """_judge = globals().get("judge")
print(_meter.result(course, globals().get("teacher") or getattr(_judge, "llm", None)))"""


class Failed(Exception):
    """What happened, where, and what to do next."""


def colab(folder: Path, *arguments: object) -> None:
    """Run Google's command and show the lines that are its own; raises Failed."""
    # In a session of its own it hears of Ctrl-C only from here, once, and saves what it has.
    process = subprocess.Popen(
        ["colab", "--config", folder / "sessions.json", *map(str, arguments)],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        errors="replace", start_new_session=True,
    )  # fmt: skip
    said = ""
    try:
        for line in process.stdout:
            said += line
            print(line if line.startswith("[colab]") else "", end="", flush=True)
    except KeyboardInterrupt:
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=30)
        process.kill()
        raise
    if process.wait():
        cell = re.findall(r"Executing cell (\d+)/", said)  # the first one is ours
        where = f"{Path(arguments[-3]).stem}, cell {int(cell[-1]) - 1}: " if cell else ""
        end = said.strip().split("\n")[-5:]
        cure = next(cure for words, cure in CURES if re.search(words, " ".join(end)))
        raise Failed(f"{where}`colab {arguments[0]}` failed ({end[-1].strip()}): {cure}.")


def give_back(folder: Path) -> None:
    """Give the machine back, also one that the command has lost sight of; raises Failed."""
    for attempt in range(3):
        time.sleep(attempt)
        shutil.copy(folder / "machine.json", folder / "sessions.json")
        try:
            colab(folder, "stop", "-s", "course")
            return (folder / "machine.json").unlink()
        except Failed as problem:
            print(problem, file=sys.stderr)
    raise Failed("THE MACHINE MAY STILL BE RUNNING, and cost: run this again, which gives it back "
                 "first, or end it in a browser (colab.research.google.com, Runtime > Manage "
                 "sessions).")  # fmt: skip


def execute(folder: Path, name: str, cells: list[dict], minutes: float) -> list[str]:
    """Run cells on the machine and return what each code cell printed; raises Failed."""
    path, done = folder / f"{name}.ipynb", folder / f"{name}_output.ipynb"
    done.unlink(missing_ok=True)
    page = {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    path.write_text(json.dumps(page), encoding="utf-8")
    problem = None
    try:
        colab(folder, "exec", "-s", "course", "-f", path, "--timeout", minutes * 60)
    except Failed as failure:
        problem = failure
    said = []
    executed = json.loads(done.read_text(encoding="utf-8"))["cells"] if done.is_file() else []
    for cell in (cell for cell in executed if cell["cell_type"] == "code"):
        for output in cell["outputs"]:
            if output["output_type"] == "error" and output["ename"] != "RestartNeeded":
                last = f"{output['ename']}: {output['evalue'].strip()}".split("\n")[-1]
                raise Failed(f"{name}, cell {len(said)}: {last}\nLook at {done}, mend it, commit, "
                             "and run this again.")  # fmt: skip
        said.append("".join("".join(output.get("text", "")) for output in cell["outputs"]))
    if problem:
        raise problem
    return said


def code(source: str, name: str) -> dict:
    """Return a code cell."""
    return {"cell_type": "code", "id": name, "source": source, "metadata": {}, "outputs": [],
            "execution_count": None}  # fmt: skip


def measure(gpu: str, preset: str, folder: Path, minutes: float) -> dict[str, dict]:
    """Run the notebooks on the machine that was taken; return what each took. Raises Failed."""
    pages = {name: json.loads((REPO / f"notebooks/ko/{name}.ipynb").read_text(encoding="utf-8"))
             for name in NOTEBOOKS}  # fmt: skip
    colab(folder, "upload", "-s", "course", folder / "course.tgz", "content/course.tgz")
    (folder / "course.tgz").unlink()  # it may hold keys
    first = next(c for c in pages[NOTEBOOKS[0]]["cells"] if c["cell_type"] == "code")
    # Installed beforehand: where that replaces what is loaded, a student restarts here as well.
    machine = execute(folder, "00_setup", [code(UNPACK, "unpack"), first], minutes)[0].strip()
    if GPUS[gpu] not in machine:
        raise Failed(f"Colab gave {machine or 'no GPU'}, not the {gpu} asked for: try again later.")
    results = {}
    for name, page in pages.items():
        colab(folder, "restart-kernel", "-s", "course")
        cells = [code(BEFORE % preset, "before"), *page["cells"], code(AFTER, "after")]
        last = execute(folder, name, cells, minutes)[-1]
        if not last.startswith("MEASURED "):
            raise Failed(f"{name} did not reach its end: look at {folder}, then run this again.")
        results[name] = {**json.loads(last.removeprefix("MEASURED ")), "machine": machine}
        if results[name]["recipe"].startswith("offline"):
            raise Failed("The course found nobody to ask and took the offline recipe, which says "
                         "nothing about this GPU: put a key into .env, then run this with --keys.")
    return results


def write(path: Path, gpu: str, results: dict[str, dict]) -> None:
    """Put a whole run into measured.json; the machine and its packages are under "machines"."""
    known = json.loads(path.read_text(encoding="utf-8"))
    for name, result in results.items():
        known.setdefault("machines", {})[gpu] = {
            "name": result.pop("machine"), "python": result.pop("python"),
            "packages": result.pop("packages"),
        }
        known.setdefault(name, {})[gpu] = {**result, "date": date.today().isoformat()}
    text = json.dumps(dict(sorted(known.items())), indent=1) + "\n"
    path.with_suffix(".tmp").write_text(text, encoding="utf-8")
    path.with_suffix(".tmp").replace(path)


def run(options: argparse.Namespace) -> None:
    """Take a machine, measure on it, give it back, write what was measured; raises Failed."""
    folder = options.folder / f"{options.gpu}-{options.preset}"
    folder.mkdir(parents=True, exist_ok=True)
    taken = folder / "machine.json"  # what the command knows of the machine, while there is one
    if not shutil.which("colab"):
        raise Failed("The command `colab` is missing: `uv tool install google-colab-cli` (Python "
                     "3.12 or newer), then log in with `colab sessions`.")  # fmt: skip
    keys = ["--add-file=.env"] if options.keys else []
    archive = ["git", "archive", "-1", "-o", folder.absolute() / "course.tgz", *keys, "HEAD"]
    subprocess.run(archive, cwd=REPO, check=True)
    if taken.exists():  # an earlier run was killed
        give_back(folder)
    # Ctrl-C waits while a machine changes hands: half-taken, it would go on costing.
    signals = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        colab(folder, "new", "-s", "course", "--gpu", options.gpu)
        shutil.copy(folder / "sessions.json", taken)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        results = measure(options.gpu, options.preset, folder, options.minutes)
        write(options.into, options.gpu, results)
    finally:
        signal.pthread_sigmask(signal.SIG_BLOCK, signals)
        try:
            if taken.exists():
                give_back(folder)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--gpu", choices=GPUS, default="T4")
    parser.add_argument("--preset", choices=("quick", "full"), default="quick")
    # Only after so long does Google's command notice that the connection broke.
    parser.add_argument("--minutes", type=float, default=60, help="the longest a cell may take")
    # Colab's Secrets do not answer Google's command.
    parser.add_argument("--keys", action="store_true", help="send the checkout's .env along")
    parser.add_argument("--folder", type=Path, default=REPO / "runs" / "colab")
    parser.add_argument("--into", type=Path, default=REPO / "notebooks" / "measured.json")
    options = parser.parse_args(arguments)
    for number in (signal.SIGTERM, signal.SIGHUP):  # a closed terminal, say: as Ctrl-C
        signal.signal(number, signal.default_int_handler)
    try:
        run(options)
    except (Failed, OSError, subprocess.SubprocessError) as problem:
        print("", problem.__context__ or "", problem, sep="\n", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\nInterrupted; what ran is in {options.folder}.", file=sys.stderr)
        return 130
    print(f"{options.into} knows the {options.gpu}; the cards will, after build.py --text.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
