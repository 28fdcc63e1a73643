"""A headless Chromium that tests can drive: the DevTools protocol over two pipes, no driver.

    with Chromium() as browser:
        page = browser.open("http://127.0.0.1:7860", width=400)
        page.wait("document.title")
"""

import base64
import fcntl
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections import deque

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def find() -> str | None:
    """Return the path of a Chromium: the one that CHROMIUM names, an installed one, or None."""
    named = os.environ.get("CHROMIUM")
    return next(filter(None, map(shutil.which, [named] if named else NAMES)), None)


class Chromium:
    """A browser without a window, closed with the block it is opened for."""

    def __enter__(self) -> "Chromium":
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        # Chromium reads its commands from descriptor 3 and answers on 4.
        commands, self._commands = os.pipe()
        self._answers, answers = os.pipe()
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (commands, answers)]

        def connect():
            for end, number in zip(ends, (3, 4), strict=True):
                os.dup2(end, number)

        self._process = subprocess.Popen(
            [
                find(), "--headless=new", "--remote-debugging-pipe", "--no-sandbox",
                "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--mute-audio",
                "--disable-background-networking", "--lang=ko", "--hide-scrollbars",
                f"--user-data-dir={self._profile.name}", "about:blank",
            ],
            preexec_fn=connect, pass_fds=(3, 4), stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        for end in (commands, answers, *ends):
            os.close(end)
        self._unread, self._number, self._events = b"", 0, deque()
        return self

    def __exit__(self, *_) -> None:
        self._process.terminate()
        self._process.wait(20)
        os.close(self._commands)
        os.close(self._answers)
        self._profile.cleanup()

    def open(self, address: str, width: int = 1280, height: int = 900) -> "Page":
        """Return a new page of this size at an address, loaded."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, target, session)
        for domain in ("Page", "Network", "Runtime", "Log"):
            page.call(f"{domain}.enable")
        page.call("Emulation.setFocusEmulationEnabled", enabled=True)
        page.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height,
            deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip
        page.go(address)
        return page

    def call(self, method: str, session: str | None = None, **parameters) -> dict:
        """Send one command of the DevTools protocol and return its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                assert "error" not in answer, f"{method}: {answer['error']['message']}"
                return answer["result"]
            self._events.append(answer)

    def _read(self) -> dict:
        while b"\0" not in self._unread:
            part = os.read(self._answers, 1 << 20)
            assert part, "Chromium ended by itself"
            self._unread += part
        message, _, self._unread = self._unread.partition(b"\0")
        return json.loads(message)


class Page:
    """One tab. `requests` are the addresses it asked for, `errors` what its console complains."""

    def __init__(self, browser: Chromium, target: str, session: str):
        self._browser, self._target, self._session = browser, target, session
        self.requests: list[str] = []
        self.errors: list[str] = []
        self._loaded = 0

    def go(self, address: str, seconds: float = 60) -> None:
        """Go to an address and return when the page and all it needs are there."""
        before, end = self._loaded, time.monotonic() + seconds
        self.call("Page.navigate", url=address)
        while self._loaded == before:
            assert time.monotonic() < end, f"{address} did not load in {seconds} s"
            time.sleep(0.02)
            self.call("Runtime.evaluate", expression="0")  # so that events come in

    def close(self) -> None:
        """Close the tab."""
        self._browser.call("Target.closeTarget", targetId=self._target)

    def call(self, method: str, **parameters) -> dict:
        """Send one command of the DevTools protocol to this page and return its result."""
        result = self._browser.call(method, self._session, **parameters)
        while self._browser._events:
            event = self._browser._events.popleft()
            if event.get("sessionId") == self._session:
                self._hear(event["method"], event["params"])
        return result

    def evaluate(self, script: str):
        """Return the value of a JavaScript expression in the page."""
        result = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def wait(self, script: str, seconds: float = 60):
        """Return the value of an expression as soon as it is true."""
        end = time.monotonic() + seconds
        while not (value := self.evaluate(script)):
            assert time.monotonic() < end, f"never became true in {seconds} s: {script}"
            time.sleep(0.05)
        return value

    def click(self, selector: str, seconds: float = 60) -> None:
        """Click with the mouse in the middle of the first such element that is shown."""
        place = self.wait(
            f"[...document.querySelectorAll({json.dumps(selector)})].map(element => {{"
            " element.scrollIntoView({block: 'nearest'});"
            " const box = element.getBoundingClientRect();"
            " return {x: box.x + box.width / 2, y: box.y + box.height / 2, shown: !!box.width}"
            "}).find(place => place.shown)", seconds
        )  # fmt: skip
        del place["shown"]
        for event in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.call(
                "Input.dispatchMouseEvent", type=event, **place, button="left", clickCount=1
            )

    def picture(self) -> bytes:
        """Return what the page shows as a PNG."""
        return base64.b64decode(self.call("Page.captureScreenshot")["data"])

    def _hear(self, event: str, details: dict) -> None:
        if event == "Page.loadEventFired":
            self._loaded += 1
        elif event == "Network.requestWillBeSent":
            self.requests.append(details["request"]["url"])
        elif event == "Runtime.exceptionThrown":
            self.errors.append(str(details["exceptionDetails"].get("exception", details)))
        elif event == "Runtime.consoleAPICalled" and details["type"] == "error":
            self.errors.append(" ".join(str(arg.get("value", arg)) for arg in details["args"]))
        elif event == "Log.entryAdded" and details["entry"]["level"] == "error":
            self.errors.append(f"{details['entry']['text']} {details['entry'].get('url', '')}")
