"""What is asked of the grid stands in the page's address, and comes back from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.dashboard.conftest import Page, Served, training

RUNS = [f"run-{i}" for i in range(6)]


@pytest.fixture
def page(chromium: Any, serve: Callable[..., Served], tmp_path: Path) -> Iterator[Page]:
    for i, name in enumerate(RUNS):
        training(tmp_path / "runs" / name, lr=10.0 ** (i - 5), model=("resnet18", "vgg11")[i % 2])
    page = Page(chromium, serve())
    page.problems()  # those of the test before
    yield page
    assert page.problems() == []
    page.driver.get("about:blank")


def test_a_link_a_reload_and_the_way_back_bring_again_what_was_asked(page: Page) -> None:
    page.open()
    page.wait_for_names(*RUNS)
    page.find("#grid-view input[type=search]").send_keys("run- ")
    handle = page.find('.axis[data-axis="lr"] .handle[data-end=low]')
    for _ in range(3):
        handle.send_keys("\ue00e")  # page up: three fifths of the decades from 1e-5 to 1
    page.wait_for_names("run-3", "run-4", "run-5")
    page.find("#grid-view .tools button").click()  # least first
    page.until("location.hash.includes('order=up') && location.hash.includes('from.lr=')")
    asked = page.js("location.hash")
    page.js("document.querySelector('#grid-view .card .head a').click()")
    page.until("document.querySelector('#run-view .links a:last-child')?.getAttribute('href') === arguments[0]", asked)

    page.open(asked)  # as another person opens the link
    page.wait_for_names("run-3", "run-4", "run-5")
    assert page.js("document.querySelector('#grid-view input[type=search]').value") == "run-"
    assert page.js("document.querySelector('#grid-view .tools button').textContent") == "↑"
    page.js("(document.querySelector('.chip[data-filter=lr]').click(), 1)")
    page.wait_for_names(*RUNS)
    page.until("!location.hash.includes('from.lr=')")
    page.js("(location.hash = '#/?in.model=vgg11&judge=gap', 1)")
    page.wait_for_names("run-1", "run-3", "run-5")
    page.until("[...document.querySelectorAll('#grid-view .tools select')][1].value === 'gap'")


def test_an_address_that_makes_no_sense_harms_nothing(page: Page) -> None:
    page.open("#/?from.lr=x&to.lr=&in.=&sort=%3Cb%3E&judge=constructor&order=%00&from.&q")
    page.wait_for_names(*RUNS)
    page.open("#/?to.__proto__=1")
    page.until("!document.querySelector('#grid-view .notice').hidden && document.querySelectorAll('.chip').length > 0")
    assert page.names() == []
    assert page.js("({}).high === undefined")
    page.find("#grid-view .notice button").click()
    page.wait_for_names(*RUNS)
    page.until("location.hash === '#/'")


def test_it_is_read_as_it_was_written(page: Page) -> None:
    page.open()
    there_and_back = """
    const done = arguments[arguments.length - 1];
    import("/static/address.js").then(({ read, written }) => {
      const usual = { sort: "started" };
      const asked = { query: "a&b=1 #?/", sort: "lr", down: false, judged: "loss" };
      const ranges = {
        lr: { low: 1e-5, high: Infinity }, "a.b=c": { low: -0.25, high: 12.5 }, model: { values: ["x&", ""] },
      };
      const text = written({ ...asked, ranges: { ...ranges, none: { values: [] } } }, usual);
      const found = read(text, usual);
      const { lr, model, none } = found.ranges, own = found.ranges["a.b=c"];
      done([found.query, found.sort, found.down, found.judged, lr.low, lr.high === Infinity, own.low, own.high,
        model.values, none.values, written(found, usual) === text, written(read("", usual), usual)]);
    });
    """
    found = page.driver.execute_async_script(there_and_back)
    assert found[:4] == ["a&b=1 #?/", "lr", False, "loss"]
    assert found[4:] == [1e-5, True, -0.25, 12.5, ["x&", ""], [], True, ""]
