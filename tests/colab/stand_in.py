"""Stands in for google-colab-cli 0.7.5: its options, words, exit codes and habits, no machine.

FAKE says what goes wrong, CALLS where each call is written down. As with the real one, `exec` goes
on after a cell that failed and ends with 0, `stop` of an unknown session too.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

_, flag, config, command, *rest = sys.argv
assert flag == "--config"
config, fake = Path(config), os.environ.get("FAKE", "")
options = dict(zip(rest[::2], rest[1::2], strict=False))
sessions = json.loads(config.read_text()) if config.exists() else {}
with open(os.environ["CALLS"], "a") as calls:
    calls.write(f"{command} {Path(options['-f']).stem if '-f' in options else ''}".strip() + "\n")


def end(code, *lines):
    print(*lines, sep="\n", flush=True)
    sys.exit(code)


def failing(what):
    return fake.startswith(what)


if command == "new":
    assert options == {"-s": "course", "--gpu": "T4"}
    if failing("login"):
        end(1, "To authorize colab-cli, visit", "Enter the authorization code: ", "Aborted.")
    if failing("no entitlement"):
        end(1, "[colab] Backend rejected accelerator 'T4'. You may not have quota or entitlement.")
    if failing("no quota"):
        end(1, "[colab] Allocation refused (precondition failed). This can mean too many sessions")
    if failing("Ctrl-C while it is taken"):
        os.kill(os.getppid(), signal.SIGINT)
        time.sleep(0.2)
    config.write_text(json.dumps({"course": {"endpoint": "gpu-t4-s-1"}}))
    end(0, "[colab] Creating session 'course'...", "[colab] Session READY.")
if command == "stop":
    if "course" not in sessions:
        end(0, "[colab] Session 'course' not found.")
    stops = Path(os.environ["CALLS"]).read_text().split().count("stop")
    if failing("no network") or (failing("stop fails once") and stops == 1):
        end(1, "requests.exceptions.ConnectionError: Max retries exceeded")
    config.write_text("{}")
    end(0, "[colab] Stopping session 'course'...", "[colab] Session terminated.")
if "course" not in sessions:
    end(1, "[colab] Session 'course' not found.")
if command == "upload":
    assert Path(rest[2]).stat().st_size > 1e6 and rest[3] == "content/course.tgz"
    end(0, f"[colab] Uploaded '{rest[2]}' to '{rest[3]}'")
if command == "restart-kernel":
    end(0)

assert command == "exec" and set(options) == {"-s", "-f", "--timeout"}, sys.argv
path = Path(options["-f"])
page = json.loads(path.read_text())
code = [cell for cell in page["cells"] if cell["cell_type"] == "code"]
problem = emptied = None
for number, cell in enumerate(code):
    cell["outputs"] = []
    print(f"[colab] Executing cell {number + 1}/{len(code)} - {cell['id']}...", flush=True)
    said = "" if emptied else "spoken by the cell\n"
    if cell["id"] == "unpack":
        said = f"GPU 0: {'NVIDIA L4' if failing('another GPU') else 'Tesla T4'} (UUID: GPU-1)\n"
    if cell["id"] == "after" and not emptied and not failing("no end"):
        said = "MEASURED " + json.dumps({
            "recipe": "offline-quick" if failing("nobody to ask") else "midm-2b-t4-quick",
            "seconds": 600, "memory_gib": 3.2, "gpu_gib": 7.1, "dollars": 0, "python": "3.13.5",
            "packages": "torch==2.11.0 trl==1.16.0",
        })  # fmt: skip
    cell["outputs"].append({"output_type": "stream", "name": "stdout", "text": said})
    error = None
    if path.stem == "00_setup" and number == 1:
        error = "RestartNeeded", "pyarrow was replaced."
    if path.stem == "02_train" and number == 5 and not emptied:
        if failing("error"):
            error = "ValueError", "a long story\nand its last line"
        elif failing("lost"):
            config.write_text("{}")
            problem = "[colab] Session 'course' appears to be lost (404/401). Cleaning up."
        elif failing("broken connection"):
            problem = "RuntimeError: Connection was lost."
        elif failing("SIG") or failing("Ctrl-C in a cell"):
            name = fake if failing("SIG") else "SIGINT"
            try:
                os.kill(os.getppid(), getattr(signal, name))
                time.sleep(30)
            except KeyboardInterrupt:
                problem = "Aborted."
    if error:
        emptied = path.stem != "00_setup"
        cell["outputs"].append({"output_type": "error", "ename": error[0], "evalue": error[1],
                                "traceback": []})  # fmt: skip
    if problem:
        break
path.with_name(f"{path.stem}_output.ipynb").write_text(json.dumps(page))
end(1 if problem else 0, problem or "[colab] Saving notebook with outputs")
