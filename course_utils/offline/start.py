"""Start the simulated API as its own process, once, and find its address."""

import os
import re
import subprocess
import sys
import tempfile
import time

from course_utils import REPO, CourseError

COMMAND = [sys.executable, "-m", "course_utils.offline.server"]
_server: tuple[subprocess.Popen, str] | None = None


def offline_url() -> str:
    """Return the address of the simulated API, starting it once for this Python process.

    The environment variable OFFLINE_URL names one that already runs. Raises CourseError if it does
    not come up.
    """
    global _server
    if running := os.environ.get("OFFLINE_URL"):
        return running.rstrip("/")
    if _server is None or _server[0].poll() is not None:
        _server = _start()
    return _server[1]


def _start(timeout: float = 120.0) -> tuple[subprocess.Popen, str]:
    # A file and not a pipe: nobody would empty the pipe, and a full one stops the server.
    log = tempfile.TemporaryFile()
    command = [*COMMAND, "--port", "0", "--parent", str(os.getpid())]  # it ends with this process
    # Its own session: interrupting a cell must not interrupt the server as well.
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, cwd=REPO,
                               stderr=subprocess.STDOUT, start_new_session=True)
    deadline = time.monotonic() + timeout
    while True:
        ended = process.poll() is not None or time.monotonic() > deadline
        # pread has its own offset: the server writes through a copy of this descriptor.
        said = os.pread(log.fileno(), 1 << 16, 0).decode("utf-8", "replace")
        if found := re.search(r"http://127\.0\.0\.1:\d+/v1", said):
            return process, found[0]
        if ended:
            break
        time.sleep(0.05)
    process.kill()
    last = (said.strip().splitlines() or ["it printed nothing"])[-1]
    raise CourseError(f"The simulated API did not start ({last}). Run this cell again, or start it "
                      f"by hand to see why: python -m course_utils.offline.server")
