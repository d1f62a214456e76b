"""A Chromium without a window, told what to do through its own pipe (the DevTools protocol)."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from conftest import LIMIT

NAMES = ("chromium", "chromium-browser", "google-chrome")


def needs(found: object, what: str) -> None:
    """Skip a test on a machine that lacks something; where CI is set, fail instead."""
    if not found:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{what} on this machine")


class Browser:
    """One window of a new visitor: nothing is remembered from before."""

    def __init__(self, profile: Path, *switches: str) -> None:
        program = next(filter(None, map(shutil.which, NAMES)), None)
        needs(program, "no Chromium")
        # Chromium reads commands from descriptor 3 and writes answers to 4: ours lie higher.
        pipes = (*os.pipe(), *os.pipe())
        theirs, self.commands, self.answers, theirs_too = (
            fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in pipes
        )
        for end in pipes:
            os.close(end)
        self.process = subprocess.Popen(
            [
                *(program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"),
                *("--no-first-run", "--disable-background-networking", "--disable-sync"),
                *("--disable-component-update", f"--user-data-dir={profile}"),
                *("--remote-debugging-pipe", "--window-size=1280,1600", *switches),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            close_fds=False,
            preexec_fn=lambda: (os.dup2(theirs, 3), os.dup2(theirs_too, 4)),
        )
        os.close(theirs)
        os.close(theirs_too)
        self.count, self.rest, self.session = 0, b"", {}
        self.events: list[dict] = []  # of the domains that a test has enabled, such as Network
        target = self.tell("Target.createTarget", url="about:blank")["targetId"]
        attached = self.tell("Target.attachToTarget", targetId=target, flatten=True)
        self.session = {"sessionId": attached["sessionId"]}

    @classmethod
    def of_this_machine(cls, profile: Path, name: str) -> Browser:
        """One for which a name is this machine too, and which finds nothing else."""
        rules = f"MAP {name} 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
        return cls(profile, f"--host-resolver-rules={rules}")

    def close(self) -> None:
        """End the browser."""
        self.process.kill()
        self.process.wait()
        os.close(self.answers)
        os.close(self.commands)

    def tell(self, method: str, **parameters) -> dict:
        """Send one command and return its result; events that come first are kept."""
        self.count += 1
        message = {"id": self.count, "method": method, "params": parameters} | self.session
        os.write(self.commands, json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self.rest:
                chunk = os.read(self.answers, 1 << 16)
                assert chunk, "Chromium has ended"
                self.rest += chunk
            answer, _, self.rest = self.rest.partition(b"\0")
            answer = json.loads(answer)
            if "id" not in answer:
                self.events.append(answer)
            elif answer["id"] == self.count:
                assert "error" not in answer, answer
                return answer["result"]

    def evaluate(self, expression: str) -> object:
        """Return the value of a JavaScript expression in the page."""
        answer = self.tell("Runtime.evaluate", expression=expression, returnByValue=True)
        return answer["result"].get("value")

    def press(self, key: str, times: int = 1, modifiers: int = 0) -> None:
        """Press a key that has no text, such as ArrowRight or Tab, as a keyboard does."""
        code = {"Backspace": 8, "Tab": 9, "Enter": 13, "Escape": 27, " ": 32, "a": 65}
        code |= {"End": 35, "Home": 36, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39}
        code |= {"ArrowDown": 40, "PageUp": 33, "PageDown": 34}
        pressed = {"key": key, "windowsVirtualKeyCode": code[key], "modifiers": modifiers}
        text = {"text": "\r"} if key == "Enter" else {}
        for _ in range(times):
            self.tell("Input.dispatchKeyEvent", type="keyDown", **pressed, **text)
            self.tell("Input.dispatchKeyEvent", type="keyUp", **pressed)

    def type_over(self, selector: str, text: str) -> None:
        """Replace what stands in a field, letter by letter; an empty text empties it."""
        self.evaluate(f"document.querySelector({selector!r}).focus()")
        self.evaluate(f"document.querySelector({selector!r}).select()")
        self.press("Backspace")
        for letter in text:
            self.tell("Input.dispatchKeyEvent", type="char", text=letter)

    def text_of(self, url: str, *expected: str) -> str:
        """Open a page afresh; return its visible text as soon as all that is expected is in it."""
        self.tell("Page.navigate", url="about:blank")
        self.tell("Page.navigate", url=url)
        end = time.monotonic() + LIMIT
        missing = expected
        while missing:
            text = self.evaluate("document.body ? document.body.innerText : ''") or ""
            missing = [word for word in expected if word not in text]
            assert time.monotonic() < end, f"{url} does not show {missing}, but:\n{text}"
            time.sleep(0.1)
        return text
