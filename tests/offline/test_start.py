"""The simulated API's own process: started once, and gone with the process that started it."""

import os
import signal
import subprocess
import sys
import time
import urllib.request

import pytest

from course_utils import REPO, CourseError
from course_utils.offline import start


def test_the_server_starts_once_and_ends_with_the_process_that_started_it():
    code = (
        "from course_utils.offline.start import offline_url\n"
        "import sys\n"
        "assert offline_url() == offline_url()\n"
        "print(offline_url(), flush=True)\n"
        "sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=REPO, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        # A proxy that is not there: loopback must not go through it.
        env={**os.environ, "OFFLINE_URL": "", "http_proxy": "http://127.0.0.1:9"},
    )  # fmt: skip
    try:
        url = process.stdout.readline().strip()
        assert urllib.request.urlopen(f"{url}/models", timeout=10).status == 200
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(f"{url}/models", timeout=2)
        except OSError:
            return
        time.sleep(0.2)
    pytest.fail("The server outlived the process that started it.")


def test_a_server_that_ends_at_once_is_explained(monkeypatch):
    monkeypatch.delenv("OFFLINE_URL", raising=False)
    monkeypatch.setattr(start, "COMMAND", [*start.COMMAND, "--no-such-option"])
    monkeypatch.setattr(start, "_server", None)
    with pytest.raises(CourseError, match="did not start .*no-such-option"):
        start.offline_url()
