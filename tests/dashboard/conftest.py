"""Run folders written line by line, a server on a free port, and a real browser where there is one."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from wellfit.dashboard.serve import open_server
from wellfit.dashboard.watch import Watch

BROWSER_REQUIRED = "WELLFIT_REQUIRE_BROWSER"


def step(number: int, loss: float, **more: Any) -> dict[str, Any]:
    """A step line with its fields in the order in which the training loop writes them."""
    return {"kind": "step", "step": number, "epoch": number / 100, "lr": 0.01, "of": 1000, **more, "loss": loss}


def opening(**more: Any) -> dict[str, Any]:
    return {"kind": "run", "schema": 1, "command": "wellfit fit photos/", "seed": 0, "started": 1.7e9, **more}


def append(path: Path, *lines: dict[str, Any]) -> None:
    """Append lines to a run's record; the folder is made where it is not there."""
    path.mkdir(parents=True, exist_ok=True)
    with (path / "record.jsonl").open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


def training(path: Path, *, lr: float = 0.01, model: str = "resnet18", accuracy: float = 0.8, steps: int = 40) -> Path:
    """A finished run of `steps` steps and one evaluation."""
    append(path, opening(), {"kind": "plan", "model": model, "steps": steps, "batch_size": 32})
    append(path, *(step(i, 2.0 - i / steps) for i in range(1, steps + 1)))
    figures = {"train_accuracy": accuracy + 0.05, "validation_accuracy": accuracy}
    append(path, {"kind": "epoch", "epoch": 1, "step": steps, "seconds": 12.0, **figures})
    append(path, {"kind": "end", "status": "done", "seconds": 15.0})
    (path / "config.toml").write_text(
        f'seed = 0\n[model]\nname = "{model}"\n[optimizer]\nname = "adamw"\nlr = {lr}\nweight_decay = 0.0\n',
        encoding="utf-8",
    )
    return path


@dataclass
class Served:
    """A running dashboard."""

    root: Path
    host: str
    port: int
    watch: Watch

    def request(
        self, path: str, method: str = "GET", body: Any = None, **headers: str | None
    ) -> tuple[int, dict[str, str], bytes]:
        """(status, headers, body). Headers by keyword, underscores for dashes; None leaves a usual one out."""
        usual: dict[str, str | None] = {"host": f"127.0.0.1:{self.port}"}
        given = usual | {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection(self.host, self.port, timeout=20)
        try:
            connection.putrequest(method, path, skip_host=True)
            data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
            if method == "POST":
                connection.putheader("content-length", str(len(data)))
            for name, value in given.items():
                if value is not None:
                    connection.putheader(name, value)
            connection.endheaders(data if method == "POST" else None)
            answer = connection.getresponse()
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def json(self, path: str, **headers: str | None) -> Any:
        status, _, body = self.request(path, **headers)
        assert status == 200, body
        return json.loads(body)

    def post(self, path: str, body: Any, **headers: str | None) -> tuple[int, Any]:
        """As the page posts: with its word, and the origin that a browser states."""
        word = self.json("/api/hello")["word"]
        own = {"origin": f"http://127.0.0.1:{self.port}", "x-wellfit-word": word}
        status, _, said = self.request(path, "POST", body, **(own | headers))
        return status, json.loads(said) if said.startswith(b"{") else said.decode()

    def runs(self, until: Callable[[dict[str, dict[str, Any]]], bool] = lambda runs: True) -> dict[str, dict[str, Any]]:
        """All runs by name, as soon as they are what is waited for."""
        deadline = time.monotonic() + 15
        while True:
            said = self.json("/api/runs?since=0")
            found = {run["name"]: run for run in said["runs"]}
            if not said["behind"] and until(found):
                return found
            assert time.monotonic() < deadline, found
            time.sleep(0.05)


class Page:
    """The open page; every look waits until what is looked for is there."""

    def __init__(self, driver: Any, served: Served) -> None:
        self.driver, self.address = driver, f"http://127.0.0.1:{served.port}/"

    def open(self, where: str = "", width: int = 1280, height: int = 800, dark: bool = False) -> None:
        self.driver.get("about:blank")
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        self.driver.get(self.address + where)

    def js(self, script: str, *given: Any) -> Any:
        return self.driver.execute_script(f"return ({script});", *given)

    def until(self, script: str, *given: Any, seconds: float = 150) -> Any:
        deadline = time.monotonic() + seconds
        while not (found := self.js(script, *given)):
            assert time.monotonic() < deadline, (script, self.js("document.body.innerText"))
            time.sleep(0.1)
        return found

    def find(self, selector: str) -> Any:
        self.until("document.querySelector(arguments[0])", selector)
        return self.driver.find_element("css selector", selector)

    def names(self) -> list[str]:
        return list(self.js("[...document.querySelectorAll('#grid-view .card .head a')].map((a) => a.textContent)"))

    def wait_for_names(self, *names: str) -> None:
        self.until(
            "[...document.querySelectorAll('#grid-view .card .head a')].map((a) => a.textContent).sort().join('|')"
            " === arguments[0]",
            "|".join(sorted(names)),
        )

    def problems(self) -> list[str]:
        """What the browser complained of, blocked scripts and failed loads included."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """serve(root, token=…) starts a dashboard, which is ended with the test."""
    opened: list[tuple[Any, threading.Thread, Any, Watch]] = []

    def start(root: Path | None = None, **how: Any) -> Served:
        root = tmp_path / "runs" if root is None else root
        server, watch, listening = open_server(root, **how)
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        opened.append((server, thread, listening, watch))
        return Served(root, "127.0.0.1", listening.getsockname()[1], watch)

    yield start
    for server, thread, listening, watch in opened:
        server.should_exit = True
        thread.join(timeout=10)
        listening.close()
        watch.close()


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """A headless Chromium under Selenium; skips where one of them, or the driver, is not there."""
    lacking = ""
    programs = [shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")]
    if None in programs:
        lacking = "the page is tested in a real browser: Debian's chromium and chromium-driver are not installed"
    if lacking and os.environ.get(BROWSER_REQUIRED) == "1":
        pytest.fail(lacking)
    if lacking:
        pytest.skip(lacking)
    webdriver = pytest.importorskip("selenium.webdriver", reason="the page is tested by Selenium, not installed here")
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    options.binary_location = str(programs[0])
    for flag in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "disable-gpu", "window-size=1280,800"):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(programs[1])))
    yield driver
    driver.quit()
