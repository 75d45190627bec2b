"""Measure our nets and torchvision's anew and write `src/wellfit/catalogue.toml`; a minute or two.

    python scripts/catalogue.py

Each net's operations are counted a second time by torch's own counter, and its parameters by itself; the two counts
must agree, or nothing is written.
"""

from __future__ import annotations

import sys
from pathlib import Path

import tomli_w
import torch
from torch.utils.flop_counter import FlopCounterMode

from wellfit.models import catalogue, foreign, zoo

TARGET = Path(__file__).resolve().parents[1] / "src" / "wellfit" / "catalogue.toml"
HEADER = (
    "# Costs and published figures of the nets by name, as scripts/catalogue.py measures them. Not written by hand.\n\n"
)


def names() -> list[str]:
    """Our nets that are built by their name alone, then torchvision's under the names that reach them."""
    own = [name for name in zoo.OWN if name not in catalogue.UNLISTED]
    return [*own, *(name for name in foreign.torchvision_names() if name not in zoo.OWN)]


def main() -> None:
    written = {}
    for name in names():
        entry, table = catalogue.measure(name)
        shape = (entry.channels, entry.input_size, entry.input_size)
        net = (
            catalogue.hollow_net(name, image_size=shape[1], classes=entry.classes, channels=shape[0]).to("meta").eval()
        )
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            net(torch.empty(1, *shape, device="meta"))
        parameters = sum(parameter.numel() for parameter in net.parameters())
        if (table.flops, table.parameters) != (counter.get_total_flops(), parameters):
            sys.exit(f"{name}: {table.flops} and {counter.get_total_flops()} operations, {parameters} parameters")
        fields = {key: value for key, value in entry.as_dict().items() if value is not None and key != "name"}
        written[name] = fields
        print(f"{name}: {entry.parameters:,} parameters, {entry.flops:,} operations", flush=True)
    TARGET.write_text(HEADER + tomli_w.dumps(written), encoding="utf-8")


if __name__ == "__main__":
    main()
