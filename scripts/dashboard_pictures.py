"""Takes the pictures of the dashboard that the guide shows, in a headless Chromium.

    python scripts/dashboard_pictures.py RUNS_DIR RUN [--into docs/_static] [--wait SECONDS]

RUNS_DIR holds the runs of the grid, RUN is the name of the one whose page is shown. The kept pictures show
`write_runs(Path(RUNS_DIR), 30, 400)` of `benchmarks/dashboard.py` and a few real runs. Needs chromium, chromedriver,
selenium and Pillow. Paths of this machine are replaced by "runs" before a picture is taken.
"""

from __future__ import annotations

import argparse
import base64
import io
import shutil
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

from wellfit.dashboard.serve import open_server

PHONE, DESK, TALL = (390, 844), (1280, 800), (1280, 1500)
# Every chart in sight is drawn: no canvas that is blank, no figure that is waited for.
READY = """
const seen = [...document.querySelectorAll(".card canvas:not([hidden]), .plot")].filter((node) => {
  const box = node.getBoundingClientRect();
  return box.height > 0 && box.top < innerHeight && box.bottom > 0;
});
const drawn = (node) => (node.tagName === "CANVAS" ? node.width !== 300 : node.data && !node.matches(".waiting"));
const said = document.querySelectorAll("#run-view .verdict p").length > 1; // on a phone the charts are further down
return (seen.length > 0 || said) && seen.every(drawn);
"""
NAMELESS = """
const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walk.nextNode()) walk.currentNode.data = walk.currentNode.data.replaceAll(arguments[0], "runs");
"""


def browser() -> Any:
    options = Options()
    options.binary_location = str(shutil.which("chromium") or shutil.which("google-chrome"))
    for flag in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "disable-gpu", "hide-scrollbars"):
        options.add_argument(f"--{flag}")
    return webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))


def take(driver: Any, address: str, size: tuple[int, int], dark: bool, root: Path, wait: float) -> Image.Image:
    """The page as it looks once everything in sight is drawn; RuntimeError where that takes longer than `wait`."""
    driver.get("about:blank")
    width, height = size
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    driver.get(address)
    deadline = time.monotonic() + wait
    while not driver.execute_script(READY):
        if time.monotonic() > deadline:
            raise RuntimeError(f"{address} was not drawn within {wait:.0f} s")
        time.sleep(0.2)
    time.sleep(1.0)
    driver.execute_script(NAMELESS, str(root))
    shown = driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})["data"]
    return Image.open(io.BytesIO(base64.b64decode(shown))).convert("RGB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, metavar="RUNS_DIR")
    parser.add_argument("run", metavar="RUN")
    parser.add_argument("--into", type=Path, default=Path("docs/_static"))
    parser.add_argument("--wait", type=float, default=60.0, help="seconds that a page may take")
    given = parser.parse_args()
    page = f"#/run/{quote(given.run, safe='')}"
    pictures = [
        ("grid", "", DESK, False), ("grid-dark", "", DESK, True), ("phone", "", PHONE, False),
        ("run", page, TALL, False), ("run-dark", page, DESK, True), ("phone-run", page, PHONE, False),
    ]  # fmt: skip
    server, watch, listening = open_server(given.runs)
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    driver = browser()
    try:
        for name, where, size, dark in pictures:
            address = f"http://127.0.0.1:{listening.getsockname()[1]}/{where}"
            shown = take(driver, address, size, dark, watch.root, given.wait)
            # A palette halves the file; this one keeps rare colours, which tell lines apart.
            few = shown.quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=4, dither=Image.Dither.NONE)
            few.save(given.into / f"dashboard-{name}.png", optimize=True)
            print(given.into / f"dashboard-{name}.png", flush=True)
    finally:
        driver.quit()
        server.should_exit = True
        thread.join(timeout=10)
        watch.close()


if __name__ == "__main__":
    main()
