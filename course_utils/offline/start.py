"""Start the simulated API as its own process, once, and find its address."""

import atexit
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
import urllib.request

from course_utils import REPO, CourseError

_server: tuple[subprocess.Popen, str] | None = None


def offline_url() -> str:
    """Return the address of the simulated API, starting it once for this Python process.

    The environment variable OFFLINE_URL names one that already runs; OFFLINE_OPTIONS adds to its
    command line, as in "--latency 0.3 --faults 0.1". Raises CourseError if it does not come up.
    """
    _bypass_proxy()
    if running := os.environ.get("OFFLINE_URL"):
        return running.rstrip("/")
    global _server
    if _server is None or _server[0].poll() is not None:
        _server = _start_server()
    return _server[1]


def _start_server(timeout: float = 120.0) -> tuple[subprocess.Popen, str]:
    # A file and not a pipe: nobody would empty the pipe, and a full one stops the server.
    log = tempfile.TemporaryFile(mode="w+", encoding="utf-8", errors="replace")
    command = [sys.executable, "-m", "course_utils.offline.server", "--port", "0"]
    command += ["--parent", str(os.getpid())]  # it ends with this process, however that ends
    command += shlex.split(os.environ.get("OFFLINE_OPTIONS", ""))
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}
    # Its own session: interrupting a cell must not interrupt the server as well.
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
        cwd=REPO, env=environment, start_new_session=True,
    )  # fmt: skip
    atexit.register(_stop, process)
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        said = _read(log)
        if (found := re.search(r"http://127\.0\.0\.1:\d+", said)) and _answers(f"{found[0]}/v1"):
            return process, f"{found[0]}/v1"
        if process.poll() is not None:
            last = (said.strip().splitlines() or ["it printed nothing"])[-1]
            raise CourseError(
                f"The simulated API ended at once ({last}); start it by hand to see why: "
                f"python -m course_utils.offline.server"
            )
        time.sleep(0.05)
    _stop(process)
    raise CourseError(
        f"The simulated API did not answer within {timeout:.0f} s; the machine may be busy: try "
        f"again, or start it by hand (python -m course_utils.offline.server)."
    )


def _read(log) -> str:
    # Its own offset: the server writes through a copy of this descriptor and shares the other one.
    return os.pread(log.fileno(), 1 << 20, 0).decode("utf-8", "replace")


def _answers(url: str) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{url}/models", timeout=2) as response:
            return response.status == 200
    except (OSError, urllib.error.URLError):
        return False


def _stop(process: subprocess.Popen) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(timeout=3)
        except subprocess.TimeoutExpired:
            process.kill()


def _bypass_proxy() -> None:
    """Keep a proxy of the machine away from loopback addresses."""
    for name in ("NO_PROXY", "no_proxy"):
        hosts = [h for h in os.environ.get(name, "").split(",") if h]
        if "127.0.0.1" not in hosts and "*" not in hosts:
            os.environ[name] = ",".join([*hosts, "127.0.0.1", "localhost"])
