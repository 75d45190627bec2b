"""The last section: what it takes to repeat the run."""

from __future__ import annotations

import json

from wellfit.report.history import History, mapping, rows
from wellfit.report.markup import MOST_ROWS, Html, block, cell, escape, join, table, tag
from wellfit.report.words import moment, plain


def origin(history: History) -> Html:
    """What it takes to repeat the run: command, seed, versions, machine, engine, configuration, plan."""
    run, engine = history.run, history.engine
    facts: list[tuple[object, object]] = [
        (key, moment(run[key]) if key == "started" else cell(run[key]))
        for key in ("seed", "started", "schema")
        if run.get(key) is not None
    ]
    facts += [(plain(key, 40), cell(value)) for key, value in mapping(run, "versions").items()]
    machine = [(plain(key, 40), cell(value)) for key, value in mapping(run, "machine").items()]
    machine += [(key, cell(engine[key])) for key in ("device", "dtype", "layout", "threads") if key in engine]
    command = run.get("command")
    command = " ".join(map(str, command)) if isinstance(command, list) else str(command or "")
    keys = ("dtype", "layout", "threads", "images_per_second")
    candidates = [tuple(cell(row.get(key)) for key in keys) for row in rows(engine, "candidates")[:MOST_ROWS]]
    head = ("dtype", "layout", "threads", "images/s")
    probe = table(head, candidates, numeric=(2, 3), caption="Settings that the probe compared") if candidates else None
    return join(
        tag("h3", "Command"),
        block(command or "not recorded"),
        tag("p", escape(engine.get("line"))) if engine.get("line") else None,
        tag(
            "div",
            tag("div", table(("", ""), facts, caption="Seed and versions")),
            tag("div", table(("", ""), machine, caption="Machine"), probe),
            class_="columns",
        ),
        _file("config.toml", history.config_text),
        _file("plan.toml", history.plan_text),
        _file("model.json", json.dumps(history.card, indent=1, ensure_ascii=False) if history.card else ""),
    )


def _file(title: str, text: str) -> Html:
    if not text.strip():
        return tag("p", tag("code", title), " is not in the run folder.", class_="quiet")
    return tag("details", tag("summary", tag("code", title), " in full"), block(text))
