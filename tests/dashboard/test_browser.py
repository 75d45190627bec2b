"""The page in a real browser, beside a real training: what a person does with it, and what hostile names do to it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.dashboard.conftest import Page, Served, append, opening, step, training
from tests.recipe.plans import longer, write_plan
from tests.report.conftest import write_run
from wellfit.dashboard.serve import open_server
from wellfit.record import RunFolder, read_record
from wellfit.report.page import write_report
from wellfit.request import read_request

HOSTILE = '<img src=x onerror="window.broken=1">'
FIT = """
import sys, wellfit
from wellfit.recipe import steps
steps.write_report = lambda folder: None
try:
    wellfit.fit("digits", plan=sys.argv[1], out=sys.argv[2])
except wellfit.Interrupted:
    sys.exit(130)
"""


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory, chromium: Any) -> Iterator[Path]:
    """A folder in which a real training has just been started; it is ended with the tests."""
    root = tmp_path_factory.mktemp("live")
    plan = write_plan(root / "plan.toml", training=longer(200_000, evaluate_every=39))
    (root / "runs").mkdir()
    process = subprocess.Popen([sys.executable, "-c", FIT, str(plan), str(root / "runs" / "live")])
    yield root / "runs"
    process.kill()
    process.wait()


@pytest.fixture(scope="module")
def served(live: Path) -> Iterator[Served]:
    for i in range(6):
        training(live / f"run-{i}", lr=10.0 ** (i - 5), model=("resnet18", "vgg11")[i % 2], accuracy=0.5 + 0.05 * i)
    run = live / HOSTILE.replace("/", "")
    write_run(run, classes=[HOSTILE, "<b>bold</b>", "a & b"], steps=60, trials=6)
    append(run, {"kind": "alarm", "id": "plateau", "severity": "warning", "step": 30, "message": HOSTILE})
    server, watch, listening = open_server(live)
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    yield Served(live, "127.0.0.1", listening.getsockname()[1], watch)
    server.should_exit = True
    thread.join(timeout=10)
    listening.close()
    watch.close()


@pytest.fixture
def page(chromium: Any, served: Served) -> Iterator[Page]:
    page = Page(chromium, served)
    page.problems()  # those of the test before
    yield page
    assert page.problems() == []
    assert not page.js("window.broken")


FINISHED = [*(f"run-{i}" for i in range(6)), HOSTILE]


def test_find_sort_and_filter_by_any_setting_or_result(page: Page) -> None:
    page.open()
    page.until("document.querySelectorAll('#grid-view .card').length >= 7")
    search = page.find("#grid-view input[type=search]")
    search.send_keys("run- model=resnet18 validation>52% lr<1")
    page.wait_for_names("run-2", "run-4")
    search.clear()
    search.send_keys("run- ")
    page.wait_for_names(*FINISHED[:6])
    sort = page.find("#grid-view .tools select")
    sort.send_keys("lr")
    page.until("document.querySelector('#grid-view .tools select').value === 'lr'")
    page.until("document.querySelector('#grid-view .card .head a').textContent === 'run-5'")
    assert page.names() == [f"run-{i}" for i in (5, 4, 3, 2, 1, 0)]
    page.find("#grid-view .tools button").click()
    page.until("document.querySelector('#grid-view .card .head a').textContent === 'run-0'")
    search.clear()
    search.send_keys("no such run")
    page.until("!document.querySelector('#grid-view .notice').hidden")
    assert "None of the" in page.find("#grid-view .notice").text
    page.find("#grid-view .notice button").click()
    page.until("document.querySelectorAll('#grid-view .card').length >= 7")


def test_brushing_an_axis_filters_the_grid_by_mouse_and_by_keyboard(page: Page) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    page.open()
    page.find("#grid-view input[type=search]").send_keys("run- ")
    page.wait_for_names(*FINISHED[:6])
    track = page.find('.axis[data-axis="lr"] .track')
    height = track.size["height"]
    # The upper half of a logarithmic axis from 1e-5 to 1, and beyond its end.
    drag = ActionChains(page.driver, duration=50).move_to_element_with_offset(track, 0, -4)
    drag.click_and_hold().move_by_offset(0, -height // 2 - 8).release().perform()
    page.wait_for_names("run-3", "run-4", "run-5")
    assert "lr" in page.find(".chip[data-filter=lr]").text
    page.find(".chip[data-filter=lr]").click()
    page.wait_for_names(*FINISHED[:6])
    handle = page.find('.axis[data-axis="lr"] .handle[data-end=high]')
    handle.send_keys(Keys.PAGE_DOWN)
    handle.send_keys(Keys.ARROW_DOWN)
    page.wait_for_names("run-0", "run-1", "run-2", "run-3")
    assert "0." in handle.get_attribute("aria-valuetext")
    handle.send_keys(Keys.DELETE)
    page.wait_for_names(*FINISHED[:6])


def test_picked_runs_are_laid_over_each_other_and_results_set_against_settings(page: Page) -> None:
    page.open()
    for name in ("run-0", "run-5"):
        page.find(f'input[aria-label="Overlay {name}"]').click()
    page.until("document.querySelector('.of-overlay .plot')?.data?.length === 2")
    names = page.js("document.querySelector('.of-overlay .plot').data.map((d) => d.name)")
    assert names == ["run-0", "run-5"]
    assert page.js("document.querySelector('.of-overlay .plot').data[0].y.length") == 40
    page.find('button[data-tab="settings"]').click()
    page.until("document.querySelector('.plot[data-setting=lr]')?.data?.[0].x.length >= 6")
    shown = page.js("[...document.querySelector('.plot[data-setting=lr]').data[0].y]")
    assert {0.5, 0.75} <= {round(value, 6) for value in shown}
    page.find('button[data-tab="parallel"]').click()


def test_names_of_the_users_are_text_everywhere(page: Page) -> None:
    page.open()
    page.until("document.querySelectorAll('#grid-view .card').length >= 7")
    assert HOSTILE in page.names()
    page.find(f"input[aria-label='Overlay {HOSTILE}']").click()
    page.find('button[data-tab="overlay"]').click()
    page.until("document.querySelector('.of-overlay .plot .legendtext')?.textContent.startsWith('<img src=x')")
    page.find('button[data-tab="parallel"]').click()
    page.js("document.querySelector('#grid-view .card .head a[title^=\"<img\"]').click()")
    page.until("document.querySelector('#run-view [data-figure=confusion] .plot')?.data")
    ticks = page.js("[...document.querySelectorAll('[data-figure=confusion] .ytick text')].map((t) => t.textContent)")
    assert ticks == ["<img src=x oner…", "<b>bold</b>", "a & b"]
    page.until("document.querySelector('[data-figure=reliability] .plot')?.data?.length === 4")
    assert "right in 80 of 100 cases" in page.find("[data-figure=reliability] .said").text
    page.until("document.querySelector('#run-view h1').textContent === arguments[0]", HOSTILE)
    assert page.js("document.title").startswith(HOSTILE)
    assert HOSTILE in page.js("document.querySelector('#run-view .findings').textContent")
    page.until("document.querySelector('[data-figure=loss] .plot')?.layout?.annotations?.length")
    assert page.js("document.querySelectorAll('img[src=x]').length") == 0
    assert page.js("document.querySelectorAll('#run-view .pictures img').length") > 0
    page.js("document.querySelector('#run-view .pictures').scrollIntoView()")
    page.until("[...document.querySelectorAll('#run-view .pictures img')].some((image) => image.naturalWidth > 1)")


def test_trials_of_a_run_are_a_grid_with_the_edges_of_their_stages(page: Page) -> None:
    page.open()
    page.until("document.querySelectorAll('#grid-view .card').length >= 7")
    page.js("location.hash = '#/trials/' + encodeURIComponent(arguments[0])", HOSTILE)
    page.until("document.querySelectorAll('#trials-view .card').length === 6")
    page.find('#trials-view button[data-tab="settings"]').click()
    page.until("document.querySelector('#trials-view .plot[data-setting=lr]')?.layout?.shapes?.length === 4")


def test_what_cannot_be_drawn_is_said_in_words(page: Page, live: Path) -> None:
    failed = [opening(), {"kind": "end", "status": "failed", "reason": "the disk is full"}]
    append(live / "blank-failed", *failed)
    (live / "blank-noise").mkdir()
    (live / "blank-noise" / "record.jsonl").write_text("no line of ours\n")
    try:
        page.open("#/?q=blank-")
        page.wait_for_names("blank-failed", "blank-noise")
        said = (
            "[...document.querySelectorAll('#grid-view .card .problem:not([hidden])')].map((p) => p.textContent).sort()"
        )
        page.until(f"{said}.length === 2 && {said}[0].includes('no line that can be understood')")
        assert page.js(said)[1] == "the disk is full"
        page.js("(location.hash = '#/run/blank-failed', 1)")
        page.until("document.querySelector('#run-view .split .notice')?.offsetHeight > 0")
        assert "The run failed: the disk is full." in page.find("#run-view .verdict").text
    finally:
        shutil.rmtree(live / "blank-failed")
        shutil.rmtree(live / "blank-noise")


def test_a_phone_has_everything_in_one_column(page: Page) -> None:
    for where in ("", f"#/run/{FINISHED[0]}"):
        page.open(where, width=390, height=844, dark=True)
        page.until("document.querySelector('.card, [data-figure=loss] .plot .main-svg')")
        assert page.js("document.documentElement.scrollWidth") <= 390
        assert page.js("getComputedStyle(document.body).backgroundColor") == "rgb(17, 22, 27)"
        if where:  # what can be done about a run stands above its figures
            stop, figures = "#run-view .stop-and-note", "#run-view .figs"
            page.find(stop)
            top = "document.querySelector(arguments[0]).getBoundingClientRect().top"
            assert page.js(top, stop) < page.js(top, figures)
    page.open("", width=390, height=844)
    page.until("document.querySelectorAll('#grid-view .card').length >= 7")
    cut = "[...document.querySelectorAll('#grid-view .tabs button')].filter((b) => b.scrollWidth > b.clientWidth)"
    assert page.js(f"{cut}.map((b) => b.textContent)") == []
    lefts = page.js("[...document.querySelectorAll('#grid-view .card')].map((c) => c.getBoundingClientRect().left)")
    assert len(set(lefts)) == 1
    tools = "[...document.querySelectorAll('#grid-view .tools button, #grid-view .tools select')]"
    assert page.js(f"Math.min(...{tools}.map((n) => n.offsetHeight))") >= 40  # fingers are wide


def test_a_deleted_run_is_said_to_be_deleted(page: Page, live: Path) -> None:
    page.open()
    page.until("document.querySelectorAll('#grid-view .card').length >= 7")
    append(live / "passing", opening(), step(1, 1.0))
    card = "[...document.querySelectorAll('#grid-view .card')].find((c) => c.textContent.includes('passing'))"
    page.until(card)
    shutil.rmtree(live / "passing")
    page.until(f"{card}?.querySelector('.badge').textContent === 'deleted'")


def test_a_training_beside_it_appears_grows_takes_a_note_and_stops(page: Page, live: Path) -> None:
    """All without a reload: the mark that is set in the page at first is there at the end."""
    page.open()
    page.js("(window.mark = 1)")
    card = "[...document.querySelectorAll('#grid-view .card')].find((c) => c.querySelector('a').textContent === 'live')"
    page.until(card)
    folder = RunFolder(live / "live")
    page.until(f"{card}.querySelector('.badge').textContent === 'training'")
    page.until(f"{card}.textContent.includes('validation')")
    # The chart on the canvas is another picture each time that steps have come.
    picture = f"{card}.querySelector('canvas').toDataURL()"
    page.js(f"{card}.scrollIntoView({{block: 'center'}})")
    page.until(f"{card}.querySelector('canvas').width > 0")
    before = page.js(picture)
    page.until(f"{picture} !== arguments[0]", before)
    page.js(f"{card}.querySelector('a').click()")
    points = "document.querySelector('[data-figure=loss] .plot')?.data?.[1].x.at(-1)"
    first = page.until(points)
    page.until(f"{points} > arguments[0]", first)
    page.until("document.querySelector('[data-figure=ratios] .plot')?.data?.length")

    note = page.find("#note")
    note.send_keys("<b>too slow</b>")
    page.find("#run-view .primary").click()
    page.until("document.querySelector('#run-view').textContent.includes('saved beside the run')")
    assert read_request(folder).note == "<b>too slow</b>"
    deadline = time.monotonic() + 20
    while not any(line["kind"] == "note" for line in read_record(folder.record)):
        assert time.monotonic() < deadline
        time.sleep(0.2)

    stop = page.find("#run-view .danger")
    stop.click()
    assert read_request(folder).stop == ""  # once is asked whether it is meant
    stop.click()
    page.until("document.querySelector('#run-view .badge').textContent === 'stopped'")
    lines = list(read_record(folder.record))
    last = max(line["step"] for line in lines if line["kind"] == "step")
    assert last % 39 == 0  # its epoch is finished
    assert sum(line["kind"] == "evaluation" for line in lines) == 1
    assert folder.model_weights.exists()
    page.until("document.querySelector('#run-view .verdict').textContent.includes('On 269 test images')")
    assert page.js("window.mark") == 1


def test_a_server_that_is_gone_is_said(chromium: Any, serve: Callable[..., Served], tmp_path: Path) -> None:
    training(tmp_path / "runs" / "a")
    served = serve()
    page = Page(chromium, served)
    page.open()
    page.wait_for_names("a")
    page.js("(window.fetch = () => Promise.reject(new TypeError('gone')), 1)")
    page.until("!document.getElementById('banner').hidden")
    assert "does not answer" in page.find("#banner").text
    assert page.names() == ["a"]
    page.driver.get("about:blank")
    page.problems()


def test_an_empty_folder_says_how_to_begin(chromium: Any, serve: Callable[..., Served], tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    served = serve()
    page = Page(chromium, served)
    page.open()
    page.until("document.querySelector('.notice').textContent.includes('wellfit fit photos/')")
    training(tmp_path / "runs" / "first")
    page.wait_for_names("first")
    page.driver.get("about:blank")


def test_a_report_on_paper_says_what_findings_mean_and_leaves_their_lists_out(chromium: Any, tmp_path: Path) -> None:
    report = write_report(write_run(tmp_path / "run", steps=30))
    try:
        chromium.get(report.as_uri())
        pre = "return getComputedStyle(document.querySelector('.findings details pre')).display"
        meaning = "return document.querySelector('.findings details p').checkVisibility({contentVisibilityAuto: true})"
        assert chromium.execute_script(pre) != "none"
        chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
        assert chromium.execute_script(pre) == "none"
        assert chromium.execute_script(meaning)
    finally:
        chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
        chromium.get("about:blank")
