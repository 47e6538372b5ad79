"""Chromium, driven over its DevTools protocol through a pipe: no port, no network, no package."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
from pathlib import Path
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SWITCHES = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--hide-scrollbars", "--remote-debugging-pipe",
)  # fmt: skip
SECONDS = 60
"""Maximum seconds for an answer."""


class Browser:
    """One page of a headless Chromium. `complaints` has its errors and log entries, `requests` all addresses."""

    def __init__(self, profile: Path) -> None:
        assert CHROMIUM is not None
        to_read, self._write = os.pipe()
        self._read, to_write = os.pipe()
        # Chromium reads commands from descriptor 3 and writes answers to 4.
        command = f'exec "$@" 3<&{to_read} 4>&{to_write}'
        self._process = subprocess.Popen(
            ["bash", "-c", command, "bash", CHROMIUM, *SWITCHES, f"--user-data-dir={profile}", "about:blank"],
            pass_fds=(to_read, to_write),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_read)
        os.close(to_write)
        self._count = 0
        self._buffer = b""
        self._session: str | None = None
        self.complaints: list[Any] = []
        self.requests: list[str] = []
        self._loaded: set[str] = set()
        (target,) = [one for one in self("Target.getTargets")["targetInfos"] if one["type"] == "page"]
        attached = self("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self(f"{domain}.enable")
        self("Page.setLifecycleEventsEnabled", enabled=True)

    def _message(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            assert select.select([self._read], [], [], SECONDS)[0], f"Chromium said nothing for {SECONDS} s"
            part = os.read(self._read, 1 << 20)
            assert part, "Chromium ended"
            self._buffer += part
        text, _, self._buffer = self._buffer.partition(b"\0")
        message = json.loads(text)
        method, params = message.get("method"), message.get("params", {})
        if method in ("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled"):
            self.complaints.append(params)
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        if method == "Page.lifecycleEvent" and params["name"] == "load":
            self._loaded.add(params["loaderId"])
        return message

    def __call__(self, method: str, **params: Any) -> Any:
        """Send a command and return its result."""
        self._count += 1
        request = {"id": self._count, "method": method, "params": params}
        if self._session:
            request["sessionId"] = self._session
        os.write(self._write, json.dumps(request).encode() + b"\0")
        while (answer := self._message()).get("id") != self._count:
            pass
        assert "error" not in answer, answer["error"]
        return answer["result"]

    def open(self, address: str) -> None:
        """Load a page and wait for it."""
        for url in ("about:blank", address):  # the first, so that another anchor of the same page loads it again
            loader = self("Page.navigate", url=url)["loaderId"]
            while loader not in self._loaded:
                self._message()
        self.settle()

    def run(self, script: str) -> Any:
        """Return the value of a JavaScript expression, awaited."""
        answer = self("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def settle(self) -> None:
        """Wait until the page has been drawn."""
        self.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(0))))")

    def size(self, width: int, height: int, ratio: float = 1) -> None:
        self("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=ratio, mobile=False)
        self.settle()

    def media(self, vision: str = "none", **features: str) -> None:
        """Emulate preferences such as ``prefers_color_scheme="dark"``, and a deficiency of colour vision."""
        named = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        self("Emulation.setEmulatedMedia", features=named)
        self("Emulation.setEmulatedVisionDeficiency", type=vision)
        self.settle()

    def mouse(self, kind: str, x: float, y: float, buttons: int = 0) -> None:
        """Move, press or release the mouse."""
        button = "left" if buttons or kind != "mouseMoved" else "none"
        self("Input.dispatchMouseEvent", type=kind, x=x, y=y, button=button, buttons=buttons, clickCount=1)

    def move(self, x: float, y: float) -> None:
        self.mouse("mouseMoved", x, y)
        self.settle()

    def click(self, x: float, y: float) -> None:
        self.mouse("mousePressed", x, y, 1)
        self.mouse("mouseReleased", x, y)
        self.settle()

    def key(self, *names: str) -> None:
        """Press keys such as ``"ArrowRight"``."""
        for name in names:
            for kind in ("rawKeyDown", "keyUp"):
                self("Input.dispatchKeyEvent", type=kind, key=name, code=name, windowsVirtualKeyCode=KEYS.get(name, 0))

    def picture(self, path: Path, whole: bool = True) -> None:
        """Save a screenshot."""
        shot = self("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))

    def close(self) -> None:
        with contextlib.suppress(OSError, AssertionError):
            self("Browser.close")
        os.close(self._write)
        os.close(self._read)
        self._process.wait(timeout=20)


KEYS = {"Tab": 9, "Escape": 27, "PageUp": 33, "PageDown": 34, "End": 35, "Home": 36,
        "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}  # fmt: skip
