"""A training is killed (SIGKILL) again and again, and its disk lost: the adapter is the same bytes.

The process that trains is forked from one that has imported everything, so that a life takes about
a second and kills fall into every part of it. `FAULTS=all` (make faults) kills 24 times.
"""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from course_utils import REPO
from course_utils.checkpoint import CheckpointStore

FULL = os.environ.get("FAULTS") == "all"
LIVES = 4  # of one training, at least, before it may end

NURSERY = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import torch
torch.set_num_threads(1)
from course_utils.scale import trainer
from course_utils.recipe import load_recipe
from course_utils.tasks import Task
from course_utils.train import train
from test_kill_training import a_store
recipe = load_recipe("offline").replace("base_model", sys.argv[2])
for key, value in {"epochs": 2.0, "batch_size": 4, "save_steps": 2, "threads": 1}.items():
    recipe = recipe.replace(f"train.{key}", value)
tasks = [
    Task("존댓말로 바꾸세요.", f"밥 {i}번 먹었어?", f"식사를 {i}번 하셨어요?") for i in range(24)
]
print("ready", flush=True)
for folder in sys.stdin:
    child = os.fork()
    if child == 0:
        with open(Path(folder.strip(), "said"), "a") as said:
            os.dup2(said.fileno(), 1)
            os.dup2(said.fileno(), 2)
        code = 1
        try:
            train(recipe, a_store(Path(folder.strip())), tasks)
            code = 0
        finally:
            os._exit(code)
    print(child, flush=True)
    print(os.waitpid(child, 0)[1], flush=True)
"""


def a_store(folder):
    return CheckpointStore("run", folder / "drive", folder / "local")


class Nursery:
    """Trains in children that may be killed."""

    def __init__(self, base):
        self.process = subprocess.Popen(
            [sys.executable, "-c", NURSERY, str(Path(__file__).parent), str(base)],
            cwd=REPO, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPO)},
        )  # fmt: skip
        assert self.process.stdout.readline() == "ready\n"

    def train(self, folder, life=None):
        """Train until the end, or be killed after `life` seconds; whether it was killed."""
        folder.mkdir(exist_ok=True)
        self.process.stdin.write(f"{folder}\n")
        self.process.stdin.flush()
        child = int(self.process.stdout.readline())
        if life is not None:
            time.sleep(life)
            with contextlib.suppress(ProcessLookupError):  # it has ended already
                os.kill(child, signal.SIGKILL)
        status = int(self.process.stdout.readline())
        assert status in (0, signal.SIGKILL), (folder / "said").read_text()
        return status == signal.SIGKILL

    def close(self):
        self.process.stdin.close()
        self.process.wait(60)


def adapter(folder):
    (path,) = folder.glob("drive/run/train/part-*/adapter/adapter_model.safetensors")
    return path.read_bytes()


def sealed_step(folder):
    """The step of the newest whole checkpoint on Drive, 0 if there is none."""
    part = a_store(folder).latest("train-progress")
    found = part.glob("checkpoints/checkpoint-*") if part else ()
    return max((int(path.name.rpartition("-")[2]) for path in found), default=0)


def test_a_training_killed_again_and_again(tmp_path, tiny_base, record_fault):
    chance, nursery, wanted = random.Random(0), Nursery(tiny_base), 24 if FULL else 3
    start = time.monotonic()
    nursery.train(tmp_path / "whole")
    long = time.monotonic() - start
    kills = runs = right = wrong = 0
    while kills < wanted:
        runs += 1
        folder, lives = tmp_path / f"killed-{runs}", 0
        while lives < LIVES and nursery.train(folder, chance.uniform(0, long)):
            kills, lives = kills + 1, lives + 1
            if chance.random() < 0.5:  # the machine is gone too
                shutil.rmtree(folder / "local", ignore_errors=True)
            before = sealed_step(folder)
            said = len((folder / "said").read_text())
        if lives and nursery.train(folder) is False:
            gone_on = (folder / "said").read_text()[said:]
            if before and "Already trained" not in gone_on:
                assert "Going on from checkpoint-" in gone_on, gone_on
                wrong += int(gone_on.split("Going on from checkpoint-")[1].split(".")[0]) < before
        right += adapter(folder) == adapter(tmp_path / "whole")
    nursery.close()
    record_fault("SIGKILL while training", injected=kills, runs=runs, right=right, wrong=wrong)
    assert (right, wrong) == (runs, 0)
