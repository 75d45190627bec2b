"""What the run settled on: model, sizes and settings, in words. What is still open is left out."""

from __future__ import annotations

import math

from wellfit.report.curves_transfer import probe_curve
from wellfit.report.history import History, mapping, rows
from wellfit.report.words import count, figure, number, plain


def model_name(history: History) -> str:
    """The model's name as the plan or the model card has it; "the model" where neither does."""
    architecture = mapping(history.card, "architecture")
    name = history.plan.get("model") or mapping(architecture, "options").get("backbone") or architecture.get("name")
    if architecture.get("name") == "ensemble":
        members = rows(mapping(architecture, "options"), "members")
        kinds = " and ".join(dict.fromkeys(plain(each.get("name"), 60) for each in members))
        return f"an ensemble of {len(members)} ({kinds})"
    return plain(name, 60) if isinstance(name, str) and name else "the model"


def image_size(history: History) -> str:
    """Side of the network's input, such as "288 px": the saved model's own, else the planned one; "" where unknown."""
    sizes = (mapping(history.card, "architecture").get("image_size"), history.plan.get("image_size"))
    known = (number(size) for size in sizes)
    return next((f"{size:.0f} px" for size in known if math.isfinite(size)), "")


def parameters(history: History) -> str:
    """Parameters of the saved model, else of the planned one; "" where unknown."""
    known = (number(source.get("parameters")) for source in (history.card, history.plan))
    return next((count(value) for value in known if math.isfinite(value)), "")


def settings(history: History) -> list[tuple[str, str]]:
    """(name, value) of the settings that config.toml holds: found by the run, or given. "auto" and its like are open.

    A classifier on frozen features has a strength; learning rate and decay belong to networks that are trained.
    """
    model, optimizer, training = (mapping(history.config, table) for table in ("model", "optimizer", "training"))
    found = [(plain(name, 30), _listed(value)) for name, value in list(mapping(model, "options").items())[:6]]
    found.append(("weights", _word(model.get("weights"), "none")))
    probes = probe_curve(history)
    if probes is not None and probes.chosen is not None:
        found.append(("strength", figure(probes.chosen.strength)))
    if history.steps or not history.transfers:
        lr, decay = number(optimizer.get("lr")), number(optimizer.get("weight_decay"))
        found += [
            ("optimizer", _word(optimizer.get("name"))),
            ("learning rate", figure(lr) if lr > 0 else ""),
            ("weight decay", figure(decay) if decay >= 0 else ""),
        ]
    found.append(("balance", _word(training.get("balance"))))
    return [(name, value) for name, value in found if value]


def _word(value: object, unsaid: str = "") -> str:
    return plain(value, 40) if isinstance(value, str) and value not in ("auto", unsaid) else ""


def _listed(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(_listed(item) for item in value[:8])
    if isinstance(value, float):
        return figure(value)
    return plain(value, 40)
