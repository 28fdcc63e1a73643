"""Seals during the work, and not only at its end: a session may die at any moment of its hours.

A loop that asks for replies gives them to a `Sealing`, a training has a `SealingCallback`. Both
seal at least every ten minutes, and let the work go on when the Drive fails. Taught in 02,
section 7.
"""

import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from course_utils.parts import CheckpointError

if TYPE_CHECKING:
    from course_utils.checkpoint import CheckpointStore

MINUTES = 10.0
"""Work is sealed at least this often."""


class Sealing:
    """Seals the journals of a step soon after they have grown; called after each reply.

    The first call sets a timer, so nothing waits for a slow Drive, and a reply is sealed in time
    even if none follows it. A Drive that fails is reported once and tried again.
    """

    def __init__(self, store: "CheckpointStore", step: str, minutes: float):
        self._store, self._step, self._seconds = store, step, 60 * minutes
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None
        self._failing = False

    def __call__(self) -> None:
        with self._lock:
            if self._timer is None:
                self._timer = threading.Timer(self._seconds, self.seal)
                self._timer.daemon = True
                self._timer.start()

    def seal(self) -> None:
        """Seal now; a failure is printed, and set right by a later call."""
        with self._lock:
            self._timer = None
        try:
            self._store.seal_journals(self._step)
            self._failing = False
        except CheckpointError as error:
            if not self._failing:
                print(f"{error} Until then it is tried again now and then; work goes on.")
            self._failing = True
            self()


def SealingCallback(store: "CheckpointStore", step: str, minutes: float = MINUTES) -> Any:  # noqa: N802
    """Return a TrainerCallback that seals `step` each time the Trainer has saved a checkpoint.

    Where the recipe's save_steps are farther apart, it has the Trainer save after `minutes`. The
    Trainer's `output_dir` must lie inside `store.local(step)`. A seal that fails is reported and
    training goes on: the next save tries again.
    """
    from transformers import TrainerCallback

    from course_utils.scale import parallel

    class _SealingCallback(TrainerCallback):
        saved = time.monotonic()

        def on_train_begin(self, args, state, control, **kwargs):
            self.saved = time.monotonic()

        def on_step_end(self, args, state, control, **kwargs):
            # One process decides for all: each has a part of the checkpoint to write.
            if parallel.from_main(lambda: time.monotonic() - self.saved >= 60 * minutes):
                control.should_save = True

        def on_save(self, args, state, control, **kwargs):
            self.saved = time.monotonic()
            if state.is_world_process_zero:
                try:
                    store.seal(step, {"step": state.global_step})
                except CheckpointError as error:
                    print(error, file=sys.stderr)

    return _SealingCallback()
