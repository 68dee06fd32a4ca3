"""A real browser without a window: a page opened, what it asks for and complains of, and what it says of itself."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

PROGRAM = shutil.which("chromium") or shutil.which("google-chrome")


class Page:
    """A page in a browser that listens at one pipe and answers at another (the DevTools protocol)."""

    def __init__(self, writing: int, reading: int) -> None:
        self._write, self._read = os.fdopen(writing, "wb", 0), os.fdopen(reading, "rb", 0)
        self._held, self._count, self._session = b"", 0, ""
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> Any:
        """The result of a command; events that come meanwhile are kept."""
        self._count += 1
        session = {"sessionId": self._session} if self._session else {}
        message = {"id": self._count, "method": method, "params": parameters, **session}
        self._write.write(json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._count:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def open(self, page: Path) -> None:
        """Open a file, and wait until it is loaded."""
        self.call("Page.navigate", url=page.as_uri())
        while not self.of("Page.loadEventFired"):
            self.events.append(self._next())

    def of(self, *methods: str) -> list[dict[str, Any]]:
        """The events of some kinds."""
        return [event["params"] for event in self.events if event.get("method") in methods]

    def value(self, expression: str) -> Any:
        """What an expression comes to in the page."""
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"]["value"]

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._held:
            data = self._read.read(2**16)
            assert data, "the browser has gone"
            self._held += data
        text, _, self._held = self._held.partition(b"\0")
        return dict(json.loads(text))


@contextmanager
def browser(folder: Path) -> Iterator[Page]:
    """A page in a browser of its own, whose files go into a folder."""
    assert PROGRAM
    (there, writing), (reading, back) = os.pipe(), os.pipe()
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-pipe"]
    # the browser listens at 3 and answers at 4
    shell = f'exec 3<&{there} 4>&{back}; exec "$@"'
    process = subprocess.Popen(
        ["bash", "-c", shell, "browser", PROGRAM, *options, f"--user-data-dir={folder}"],
        pass_fds=(there, back),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(there)
    os.close(back)
    try:
        page = Page(writing, reading)
        yield page
        with suppress(AssertionError, OSError):
            page.call("Browser.close")
    finally:
        process.kill()
        process.wait()
