"""The figures that the courses print, beside what wellfit measures, with a verdict for each.

usage: WELLFIT_TEST_DATA=DIR python benchmarks/lectures.py [--only C4 S6 …] [--quick] [--out runs/lectures]
       [--markdown] [--again]

Finished rows are kept in OUT/results.jsonl (trials of S6 in OUT/trials.jsonl) and not measured again; the run may be
stopped at any time. Rows on CIFAR-10 need WELLFIT_TEST_DATA and say so without it. Its images are JPEG files, which are
lossy: a taught figure that is not reached on them is printed as such. --quick takes fewer images, epochs and trials.
The exit code is 1 where a figure is neither reached nor excused.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))

from lectures_cifar import ROWS as CIFAR_ROWS
from lectures_cifar import Missing
from lectures_parts import ROWS as PART_ROWS

WORDS = {True: "as taught", False: "NOT as taught", None: "taught figure not reached"}
Row = tuple[str, str, str, Callable[[argparse.Namespace], tuple[str, bool | None]]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[], metavar="ROW", help="rows of SPEC, such as I3 or C4")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--again", action="store_true", help="measure anew what was measured")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown at the end")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/lectures"))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    arguments.out.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = [*PART_ROWS, *CIFAR_ROWS]
    known = {row[0] for row in rows}
    if unknown := set(arguments.only) - known:
        parser.error(f"unknown row {', '.join(sorted(unknown))}; known: {', '.join(sorted(known))}")
    results = arguments.out / "results.jsonl"
    done = [] if arguments.again or not results.exists() else [json.loads(x) for x in results.read_text().splitlines()]
    found = {(line["row"], line["what"]): line for line in done if line["quick"] == arguments.quick}
    lines = []
    try:
        for row, what, taught, measure in rows:
            if arguments.only and row not in arguments.only:
                continue
            line = found.get((row, what))
            if line is None:
                begun = time.monotonic()
                try:
                    measured, verdict = measure(arguments)
                except Missing as error:
                    print(f"{row:<4} {what}: {error}", flush=True)
                    continue
                seconds = round(time.monotonic() - begun, 1)
                line = {"row": row, "what": what, "taught": taught, "measured": measured, "verdict": WORDS[verdict]}
                line |= {"seconds": seconds, "quick": arguments.quick}
                with results.open("a") as file:
                    file.write(json.dumps(line, ensure_ascii=False) + "\n")
            lines.append(line)
            print(f"{row:<4} {what}\n     taught    {line['taught']}\n     measured  {line['measured']}", flush=True)
            print(f"     verdict   {line['verdict']} ({line['seconds']} s)", flush=True)
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130
    if arguments.markdown:
        print("\n| row | what | taught | measured | verdict |\n|---|---|---|---|---|")
        for line in lines:
            cells = [str(line[key]).replace("|", "\\|") for key in ("row", "what", "taught", "measured", "verdict")]
            print(f"| {' | '.join(cells)} |")
    tally = {word: sum(line["verdict"] == word for line in lines) for word in WORDS.values()}
    print("\n" + ", ".join(f"{count} {word}" for word, count in tally.items()) + f"; {len(lines)} figures")
    return 1 if tally[WORDS[False]] else 0


if __name__ == "__main__":
    sys.exit(main())
