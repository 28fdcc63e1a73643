"""Several processes on one training: the main one reads and writes, the others do as it found.

`torchrun` and `accelerate launch` start the processes and tell each its number in the environment.
They need one folder that all of them see: one machine, or a shared disk. Taught in 04, section 4.
"""

import atexit
import math
import os
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from course_utils import CourseError
from course_utils.recipe import TrainSpec

PATIENCE = timedelta(hours=2)
"""How long processes wait for the main one while it encodes, seals or downloads."""


class TrainError(CourseError):
    """Training that cannot begin: no data, too little memory; the message says what to do."""


class MainProcessError(CourseError):
    """Raised in the other processes when the main one has failed; it is the one to say why."""


def processes() -> int:
    """Return how many processes train together; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", 1))


def is_main() -> bool:
    """Return whether this process is the one that reads, writes and prints."""
    return int(os.environ.get("RANK", 0)) == 0


def is_sharded(spec: TrainSpec) -> bool:
    """Return whether FSDP2 divides the model among processes: one process has nothing to divide."""
    return spec.parallel == "fsdp" and processes() > 1


def check_gpus() -> None:
    """Raise TrainError where one process alone sees several GPUs."""
    import torch

    count = torch.cuda.device_count()
    if count > 1 and processes() == 1:
        raise TrainError(
            f"One process sees {count} GPUs: start `torchrun --nproc_per_node={count} -m "
            "course_utils.train RECIPE`, or set CUDA_VISIBLE_DEVICES=0 before Python starts.")


def batch_shape(spec: TrainSpec, count: int) -> tuple[int, int]:
    """Return (rows in a batch, batches accumulated) for each of `count` processes.

    The effective batch is the recipe's, however many share it: 4 x 8 on 4 GPUs are 128 rows, so
    8 GPUs take 4 x 4 each. Raises TrainError where it cannot be divided.
    """
    rows, rest = divmod(spec.effective_batch, count)
    if rest:
        raise TrainError(f"A step of {spec.effective_batch} rows cannot be divided among {count} "
                         "processes; start another number of them or change train.batch_size.")
    fewest = math.ceil(rows / spec.batch_size)
    accumulated = next(n for n in range(fewest, rows + 1) if rows % n == 0)
    return rows // accumulated, accumulated


def from_main(function: Callable[[], Any]) -> Any:
    """Call a function in the main process alone and return its result in every process.

    The others wait for it; where it raises an error, they raise MainProcessError.
    """
    if processes() == 1:
        return function()
    import torch
    from accelerate import PartialState

    found, error = [None, None], None
    if is_main():
        try:
            found[0] = function()
        except Exception as caught:
            error, found[1] = caught, f"{type(caught).__name__}: {caught}"
    if not torch.distributed.is_initialized():  # NCCL joins GPUs, gloo CPUs
        PartialState(cpu=not torch.cuda.is_available(), timeout=PATIENCE)
        # gloo's threads let go of a message after it was received. If Python is gone by then, the
        # process ends in an abort although its work is done: one in five did.
        atexit.register(time.sleep, 0.5)
    torch.distributed.broadcast_object_list(found)
    if error:
        raise error
    if found[1]:
        raise MainProcessError(found[1])
    return found[0]


def leave() -> None:
    """Leave the group, as NCCL asks every process to before its end."""
    torch = sys.modules.get("torch")
    if torch and torch.distributed.is_initialized() and torch.distributed.get_backend() == "nccl":
        torch.distributed.destroy_process_group()


def complain(error: CourseError) -> None:
    """Print an error on stderr, once for all processes."""
    if isinstance(error, MainProcessError):
        return
    if not is_main():
        # Let the main one say what all run into: its end makes the launcher end the others.
        time.sleep(20)
    print(error, file=sys.stderr, flush=True)
