"""The dashboard under load: 500 runs of 2,000 steps, some of them growing, in a real browser and under 20 pages.

    python benchmarks/dashboard.py [--runs 500] [--steps 2000] [--pages 20] [--folder DIR]

It writes the runs (once: DIR is taken up again), starts `wellfit dashboard` as a process of its own, and prints:
the time until everything is read, first paint and drawn charts, the longest task while the whole grid is scrolled, the
server's time for one refresh under 20 pages while ten runs grow, and the server's peak memory. Beside them it draws
small charts by Plotly instead, which is what the grid's own charts are for. Needs chromium, chromedriver and selenium.
"""

from __future__ import annotations

import argparse
import http.client
import json
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from wellfit.randomness import generator

GROWING = 10
TASKS = """
window.tasks = [];
new PerformanceObserver((list) => window.tasks.push(...list.getEntries().map((e) => e.duration)))
  .observe({ type: "longtask", buffered: true });
"""
SCROLL = """
const done = arguments[arguments.length - 1];
window.tasks.length = 0;
console.timeStamp("scrolling");
const end = document.documentElement.scrollHeight - innerHeight, begun = performance.now();
const frames = [];
let last = begun;
(function next(now) {
  frames.push(now - last);
  last = now;
  const share = (now - begun) / 6000;
  scrollTo(0, end * Math.min(1, share < 0.5 ? 2 * share : 2 - 2 * share));
  if (share < 1) requestAnimationFrame(next);
  else setTimeout(() => done([window.tasks, frames.slice(1)]), 300);
})(begun);
"""
BY_PLOTLY = """
const done = arguments[arguments.length - 1];
const script = document.createElement("script");
script.src = "/static/plotly.min.js";
script.onload = async () => {
  const took = [];
  const x = [...Array(200).keys()], y = x.map((i) => Math.exp(-i / 50));
  for (let i = 0; i < 13; i++) {
    const node = document.createElement("div");
    node.style = "width:260px;height:96px;position:fixed;top:0";
    document.body.append(node);
    const begun = performance.now();
    const data = [{ x, y, mode: "lines" }, { x: [50, 100, 150], y: [0.5, 0.6, 0.7], yaxis: "y2" }];
    const layout = { margin: { l: 0, r: 0, t: 0, b: 0 }, showlegend: false, yaxis2: { overlaying: "y" } };
    await Plotly.newPlot(node, data, layout, { staticPlot: true });
    took.push(performance.now() - begun);
    node.remove();
  }
  done(took.slice(3));
};
document.head.append(script);
"""
BY_CANVAS = """
const done = arguments[arguments.length - 1];
import("/static/chart.js").then(({ drawChart }) => {
  const x = [...Array(200).keys()], y = x.map((i) => Math.exp(-i / 50));
  const epochs = { steps: [50, 100, 150], validation: [0.5, 0.6, 0.7], averaged: [null, null, null], train: [] };
  const curve = { steps: x, loss: y, lr: y, epochs };
  const node = document.createElement("canvas");
  node.style = "width:260px;height:96px;position:fixed;top:0";
  document.body.append(node);
  const begun = performance.now();
  for (let i = 0; i < 200; i++) drawChart(node, curve, "both", [260, 96]);
  done((performance.now() - begun) / 200);
});
"""


def write_runs(root: Path, runs: int, steps: int) -> None:
    """Records as the training loop writes them: figures of 20 weights and 10 layers every 20 steps."""
    for number in range(runs):
        folder = root / f"run-{number:03d}"
        if (folder / "record.jsonl").exists():
            continue
        folder.mkdir(parents=True, exist_ok=True)
        draw = generator(0, "dashboard-benchmark", number)
        lr, decay = 10 ** draw.uniform(-4, -1), float(draw.choice([0.0, 1e-5, 1e-4, 1e-3]))
        model, batch = str(draw.choice(["resnet18", "whitened", "vgg11"])), int(draw.choice([32, 64, 128]))
        best = 0.9 - 0.08 * abs(math.log10(lr / 0.01)) ** 1.5 + 0.02 * draw.standard_normal()
        lines = opening(number, steps, model, batch)
        lines += [line for step in range(1, steps + 1) for line in step_lines(step, steps, lr, best, draw)]
        if number >= GROWING:
            lines.append({"kind": "end", "status": "done", "seconds": 300.0})
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / "config.toml").write_text(
            f'seed = {number}\n[model]\nname = "{model}"\n'
            f'[optimizer]\nname = "adamw"\nlr = {lr}\nweight_decay = {decay}\n'
            f"[training]\nbatch_size = {batch}\n",
            encoding="utf-8",
        )
        (folder / "record.jsonl").write_text(text, encoding="utf-8")


def opening(number: int, steps: int, model: str, batch: int) -> list[dict[str, Any]]:
    request = {"data": "photos", "budget": "10m"}
    started = 1.79e9 + 60 * number
    return [
        {"kind": "run", "schema": 1, "command": "wellfit fit photos/", "started": started, "request": request},
        {"kind": "plan", "model": model, "steps": steps, "batch_size": batch, "image_size": 32},
    ]


def step_lines(step: int, steps: int, lr: float, best: float, draw: np.random.Generator) -> list[dict[str, Any]]:
    share = step / steps
    line: dict[str, Any] = {
        "kind": "step", "step": step, "epoch": 10 * share, "lr": lr * 0.5 * (1 + math.cos(math.pi * share)),
        "images_per_second": 412.3456789, "wait": 0.0123456789, "of": steps,
    }  # fmt: skip
    if step % 20 == 0 or step < 4:
        ratios = 10 ** (-3 - share + 0.3 * draw.standard_normal(20))
        line["update_ratio"] = {f"features.{i}.conv.weight": float(f"{r:.4g}") for i, r in enumerate(ratios)}
        line["gradient_norm"] = float(f"{2 * math.exp(-share):.4g}")
        line["layers"] = {f"features.{i}.relu": {"mean": 0.1, "std": 0.9**i, "dead": 0.02 * i} for i in range(10)}
    line["loss"] = 0.3 + 2 * math.exp(-5 * share) + 0.15 * float(draw.standard_normal())
    lines = [line]
    if step % max(1, steps // 10) == 0:
        now = best - 0.6 * math.exp(-4 * share)
        figures = {"train_accuracy": now + 0.05, "validation_accuracy": now, "averaged_validation_accuracy": now + 0.01}
        lines.append({"kind": "epoch", "epoch": 10 * share, "step": step, "seconds": 300 * share, **figures})
    return lines


class Server:
    """`wellfit dashboard` as a user starts it."""

    def __init__(self, root: Path) -> None:
        self.started = time.monotonic()
        command = [sys.executable, "-m", "wellfit", "dashboard", str(root), "--port", "0"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        found = re.search(r":(\d+)/", self.process.stdout.readline())
        assert found is not None
        self.port = int(found[1])

    def get(self, path: str) -> tuple[float, int, Any]:
        """(seconds, bytes, JSON)"""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        begun = time.perf_counter()
        connection.request("GET", path)
        body = connection.getresponse().read()
        took = time.perf_counter() - begun
        connection.close()
        return took, len(body), json.loads(body)

    def peak_memory(self) -> float:
        """MB; NaN where the system does not tell."""
        try:
            status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8")
        except OSError:
            return math.nan
        found = re.search(r"VmHWM:\s+(\d+) kB", status)
        return int(found[1]) / 1024 if found else math.nan

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()


def browser() -> Any:
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    options.binary_location = str(shutil.which("chromium") or shutil.which("google-chrome"))
    for flag in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "disable-gpu", "window-size=1280,800"):
        options.add_argument(f"--{flag}")
    # Tasks with the processor time of each: on a busy machine a task's duration holds its waiting for the processor.
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    options.add_experimental_option("perfLoggingPrefs", {"traceCategories": "toplevel,devtools.timeline"})
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    driver.set_script_timeout(120)
    driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": TASKS})
    return driver


def open_page(driver: Any, port: int) -> tuple[float, float, float]:
    """Seconds from the navigation to the first paint, to the first drawn chart, and to the two rows in view."""
    driver.get(f"http://127.0.0.1:{port}/")
    drawn = (
        "const seen = [...document.querySelectorAll('#grid-view .card:nth-child(-n+8) canvas')];"
        "return [seen.filter((c) => c.width > 0 && c.width !== 300).length, seen.length, performance.now()];"
    )
    first = everything = math.nan
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        n, seen, now = driver.execute_script(drawn)
        if n and math.isnan(first):
            first = now / 1000
        if n and n == seen:
            everything = now / 1000
            break
        time.sleep(0.05)
    paint = driver.execute_script("return performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? NaN")
    return paint / 1000, first, everything


def tasks_while_scrolling(driver: Any) -> np.ndarray:
    """n×2: duration and processor time in ms of the tasks of the page's main thread since the scrolling began."""
    events = []
    for entry in driver.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Tracing.dataCollected":
            events.append(message["params"])
    names = {(e["pid"], e["tid"]): e["args"]["name"] for e in events if e.get("name") == "thread_name"}
    began = [e["ts"] for e in events if e.get("name") == "TimeStamp"]
    tasks = [
        (e.get("dur", 0) / 1000, e.get("tdur", 0) / 1000)
        for e in events
        if str(e.get("name", "")).endswith("RunTask")
        and names.get((e["pid"], e["tid"])) == "CrRendererMain"
        and began
        and e["ts"] >= began[-1]
    ]
    return np.array(tasks, np.float64).reshape(-1, 2)


def refresh_under_load(server: Server, root: Path, pages: int, steps: int, seconds: float) -> dict[str, float]:
    """Pages that ask every 1.5 s what changed, and for the curves of that, while ten runs grow."""
    took: list[float] = []
    sizes: list[int] = []
    until = time.monotonic() + seconds
    draw = generator(0, "dashboard-benchmark", "growth")

    def grow() -> None:
        step = steps
        while time.monotonic() < until:
            step += 1
            for number in range(GROWING):
                lines = step_lines(step, steps, 0.01, 0.8, draw)
                with (root / f"run-{number:03d}" / "record.jsonl").open("a", encoding="utf-8") as file:
                    file.writelines(json.dumps(line) + "\n" for line in lines)
            time.sleep(0.1)

    def page() -> None:
        _, _, said = server.get("/api/runs?since=0")
        while time.monotonic() < until:
            time.sleep(1.5)
            query = f"since={said['version']}&instance={said['instance']}"
            seconds_taken, size, said = server.get(f"/api/runs?{query}")
            keys = ",".join(str(run["key"]) for run in said["runs"][:24])
            more, more_size, _ = server.get(f"/api/curves?keys={keys}")
            took.append(seconds_taken + more)
            sizes.append(size + more_size)

    workers = [threading.Thread(target=grow), *(threading.Thread(target=page) for _ in range(pages))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    found = np.array(took)
    return {
        "median": float(np.median(found)), "95%": float(np.quantile(found, 0.95)), "longest": float(found.max()),
        "kilobytes": float(np.median(sizes) / 1000), "n": len(found),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--pages", type=int, default=20)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "wellfit-dashboard-benchmark")
    given = parser.parse_args()
    root = given.folder / f"{given.runs}x{given.steps}"
    write_runs(root, given.runs, given.steps)
    size = sum(file.stat().st_size for file in root.glob("*/record.jsonl")) / 1e6

    def row(name: str, value: str, aim: str = "") -> None:
        load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "?"
        print(f"| {name} | {value} | {aim} | {load} |", flush=True)

    print(f"{given.runs} runs of {given.steps:,} steps, {size:,.0f} MB of records\n")
    print("| what | measured | aimed at | load |\n|---|---|---|---|")
    driver = browser()
    server = Server(root)
    try:
        paint, first, everything = open_page(driver, server.port)
        row("cold: first paint", f"{paint:.2f} s", "≤ 2 s")
        row("cold: first chart, all charts in view", f"{first:.2f} s, {everything:.2f} s")
        while server.get("/api/runs?since=0")[2]["behind"]:
            time.sleep(0.2)
        row("cold: every record read", f"{time.monotonic() - server.started:.1f} s after the start of the process")
        row("memory, everything read", f"{server.peak_memory():.0f} MB", "≤ 500 MB")
        driver.quit()
        driver = browser()  # one trace holds one page
        paint, first, everything = open_page(driver, server.port)
        row("warm: first paint", f"{paint:.2f} s", "≤ 2 s")
        row("warm: first chart, all charts in view", f"{first:.2f} s, {everything:.2f} s")
        time.sleep(3)
        tasks, frames = driver.execute_async_script(SCROLL)
        traced = tasks_while_scrolling(driver)
        longest, busiest = traced.max(0) if len(traced) else (max(tasks, default=0), math.nan)
        row(
            "scrolling all cards twice in 6 s: longest task", f"{longest:.0f} ms ({len(tasks)} above 50 ms)", "≤ 100 ms"
        )
        row("the same, processor time of the busiest task", f"{busiest:.0f} ms", "≤ 100 ms")
        row("frames while scrolling: median, 99%", f"{np.median(frames):.0f} ms, {np.quantile(frames, 0.99):.0f} ms")
        plotly = driver.execute_async_script(BY_PLOTLY)
        canvas = driver.execute_async_script(BY_CANVAS)
        row("one small chart by Plotly; by the grid", f"{np.median(plotly):.0f} ms; {canvas:.2f} ms")
        driver.get("about:blank")
        load = refresh_under_load(server, root, given.pages, given.steps, 30)
        words = ", ".join(f"{load[name]:.3f} s" for name in ("median", "95%", "longest"))
        row(f"refresh of {given.pages} pages: median, 95%, longest of {load['n']:.0f}", words, "≤ 0.5 s")
        row("bytes of one refresh", f"{load['kilobytes']:.0f} kB")
        key = server.get("/api/runs?since=0")[2]["runs"][-1]["key"]
        first_time = server.get(f"/api/run/{key}/page")[0]
        again = [server.get(f"/api/run/{key}/page")[0] for _ in range(10)]
        row("a run's page: first, again", f"{first_time:.2f} s, {np.median(again):.3f} s")
        row("memory at the end", f"{server.peak_memory():.0f} MB", "≤ 500 MB")
    finally:
        driver.quit()
        server.stop()


if __name__ == "__main__":
    main()
