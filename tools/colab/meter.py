"""Measure a notebook on the machine that runs it: run.py puts a cell before and one after it."""

import json
import subprocess
import sys
import threading
import time
from importlib.metadata import distributions

import psutil

LOOK = "nvidia-smi --query-gpu=memory.used --format=csv,noheader,nounits".split()


class Meter:
    """Seconds, the largest memory of the kernel with its children, the largest of the whole GPU."""

    def __init__(self, shell):
        self._ram, self._gpu, self._began, self._shell = 0, 0, time.monotonic(), shell
        self._over = threading.Event()
        self._watching = threading.Thread(target=self._watch, daemon=True)
        self._watching.start()
        shell.events.register("post_run_cell", self._halt)

    def _watch(self):
        me = psutil.Process()
        while not self._over.wait(0.5):
            try:
                family = [me, *me.children(recursive=True)]
                self._ram = max(self._ram, sum(p.memory_info().rss for p in family))
            except psutil.Error:
                pass  # a child has just ended
            used = subprocess.run(LOOK, capture_output=True, text=True, check=True).stdout
            self._gpu = max([self._gpu, *map(int, used.split())])  # MiB

    def _halt(self, result):
        """Empty every cell after one that failed: Google's command would run them all."""
        if not result.success:
            self._shell.input_transformers_cleanup.append(lambda lines: [])

    def result(self, course, llm) -> str:
        """Return what was measured as a line of JSON; `llm` is the client that paid, if any.

        Raises RuntimeError where the watching ended early: a peak may be missing.
        """
        seconds = round(time.monotonic() - self._began)
        if not self._watching.is_alive():
            raise RuntimeError("The memory was not watched to the end; see the first cell's output")
        self._over.set()
        self._watching.join()
        return "MEASURED " + json.dumps({
            "recipe": course.recipe.name, "seconds": seconds,
            "memory_gib": round(self._ram / 2**30, 1), "gpu_gib": round(self._gpu / 1024, 1),
            "dollars": round(llm.spent, 2) if llm else 0, "python": sys.version.split()[0],
            "packages": " ".join(sorted(f"{d.name}=={d.version}" for d in distributions())),
        })  # fmt: skip
