"""A page in headless Chromium, driven through its pipe for developers (one JSON message after the other); no package needed."""

import base64
import itertools
import json
import os
import select
import shutil
import subprocess
import time

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_OPTIONS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run", "about:blank")
_PATIENCE = 90  # seconds for an answer, on a busy machine


class Browser:
    """Chromium with one page.

    `messages` are errors and warnings of the page's console, and files that it could not load.
    """

    def __init__(self, profile):
        (read, self._write), (self._read, write) = os.pipe(), os.pipe()

        def known_numbers():
            commands, answers = os.dup(read), os.dup(write)  # above 4, so that neither takes the other's place
            os.dup2(commands, 3)
            os.dup2(answers, 4)

        command = [CHROMIUM, "--remote-debugging-pipe", f"--user-data-dir={profile}", *_OPTIONS]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen(command, preexec_fn=known_numbers, close_fds=False, **quiet)
        os.close(read)
        os.close(write)
        self._numbers, self._rest, self._session, self.messages, self._events = itertools.count(1), b"", None, [], []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method, **parameters):
        """The answer to a command of the DevTools protocol."""
        message = {"id": next(self._numbers), "method": method, "params": parameters}
        message |= {} if self._session is None else {"sessionId": self._session}
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == message["id"]:
                assert "error" not in answer, answer
                return answer["result"]
            self._note(answer)

    def _next(self):
        until = time.monotonic() + _PATIENCE
        while b"\0" not in self._rest:
            assert select.select([self._read], [], [], max(0, until - time.monotonic()))[0], "Chromium does not answer"
            self._rest += os.read(self._read, 1 << 20)
        message, self._rest = self._rest.split(b"\0", 1)
        return json.loads(message)

    def _note(self, event):
        name, given = event.get("method"), event.get("params", {})
        self._events.append(name)
        if name == "Runtime.exceptionThrown":
            self.messages.append(given["exceptionDetails"]["exception"]["description"])
        elif name == "Runtime.consoleAPICalled" and given["type"] in ("error", "warning", "assert"):
            self.messages.append(str(given["args"]))
        elif name == "Log.entryAdded" and given["entry"]["level"] in ("error", "warning"):
            self.messages.append(given["entry"]["text"])
        elif name == "Network.loadingFailed":
            self.messages.append(given["errorText"])

    def open(self, path, width=1280, height=900, colours="light", scripts=True, media="screen", fragment=""):
        """Show a file at a size, in the light or dark colours that a system asks for, and wait until it is loaded."""
        self.messages.clear()
        self._events.clear()
        scheme = [{"name": "prefers-color-scheme", "value": colours}]
        self.call("Emulation.setEmulatedMedia", media=media, features=scheme)
        self.call("Emulation.setScriptExecutionDisabled", value=not scripts)
        self.resize(width, height)
        self.call("Page.navigate", url=path.resolve().as_uri() + fragment)
        while "Page.loadEventFired" not in self._events:
            self._note(self._next())

    def resize(self, width, height):
        """Another size of the window."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def ask(self, expression):
        """The value of an expression of JavaScript in the page, as plain data."""
        options = {"returnByValue": True, "awaitPromise": True}
        answer = self.call("Runtime.evaluate", expression=expression, **options)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def press(self, key, code):
        """A key of the keyboard."""
        for kind in ("keyDown", "keyUp"):
            text = {"text": "\r"} if key == "Enter" and kind == "keyDown" else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **text)

    def screenshot(self, path=None):
        """What is seen, as PNG."""
        content = base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])
        if path is not None:
            path.write_bytes(content)
        return content

    def close(self):
        """End Chromium."""
        os.write(self._write, json.dumps({"id": next(self._numbers), "method": "Browser.close"}).encode() + b"\0")
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._write)
        os.close(self._read)
