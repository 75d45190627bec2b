"""The lines that `wellfit predict` writes. Exit code 0 as long as one file could be judged."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from typing import Any

from wellfit.models.saved import read_card
from wellfit.record import RunFolder


def write_json_lines(folder: RunFolder, answers: Iterator[dict[str, Any]]) -> int:
    """One JSON object a line."""
    judged = 0
    for answer in answers:
        judged += "error" not in answer
        print(json.dumps(answer, ensure_ascii=False), flush=True)
    return 0 if judged else 2


def write_csv(folder: RunFolder, answers: Iterator[dict[str, Any]]) -> int:
    """file, label, error, then one column of probability a class."""
    classes = read_card(folder)["classes"]
    writer = csv.writer(sys.stdout)
    writer.writerow(["file", "label", "error", *classes])
    judged = 0
    for answer in answers:
        judged += "error" not in answer
        probabilities = answer.get("probabilities", {})
        cells = [probabilities.get(name, "") for name in classes]
        writer.writerow([answer["file"], answer.get("label") or "", answer.get("error", ""), *cells])
    return 0 if judged else 2
