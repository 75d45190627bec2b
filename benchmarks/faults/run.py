"""How many planted faults the doctor names, how early, and how often it alarms a healthy training.

    WELLFIT_TEST_DATA=DIR python benchmarks/faults/run.py [--only ID …] [--half report] [--list] [--show NAME]

Cases that were run are kept and not run again; the run may be stopped at any time. Everything is judged anew by the
present rules. The rules are calibrated on one half of the cases and reported on the other: details are printed for
the calibration half alone. The exit code is 1 where a bound is missed.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from faults import data, outcomes, scoring
from faults.all_cases import all_cases, half
from faults.case import Case, Half
from faults.scoring import Judged
from wellfit.data.sources.cache import cache_folder
from wellfit.diagnosis.history import History
from wellfit.errors import UserError
from wellfit.findings import Finding

LONGEST = 20.0
HALVES = {"calibrate": "calibration half", "report": "reporting half"}


def main() -> int:
    given = _parse()
    folder: Path = given.out or cache_folder() / "faults" / "outcomes"
    try:
        if given.show:
            return show(given.show, folder)
        chosen = choose(given.only, given.half)
        if given.list:
            for case in chosen:
                print(f"{half(case):<10} {case.ground:<9} {case.fault or 'healthy':<28} {case.name}")
            print(f"{len(chosen)} cases")
            return 0
        run(chosen, folder, given.jobs)
        judged = judge(chosen, folder, given.jobs)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; what is done is kept, and the same command goes on", file=sys.stderr)
        return 130
    met = True
    for name in HALVES:
        part = [case for case in judged if case.half == name]
        if part:
            met &= report(part, name, whole=not given.only)
    return 0 if met else 1


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=2, help="cases at once, each on one thread")
    parser.add_argument("--only", nargs="+", metavar="ID", help="ids of findings, or healthy")
    parser.add_argument("--half", choices=[*HALVES, "both"], default="both")
    parser.add_argument("--list", action="store_true", help="name the cases and run none")
    parser.add_argument("--show", metavar="NAME", help="what was said of one case of the calibration half")
    parser.add_argument("--out", type=Path, help="where outcomes are kept (default: the user's cache folder)")
    return parser.parse_args()


def choose(only: list[str] | None, part: str) -> list[Case]:
    """The cases that were asked for. UserError for an id that no case plants."""
    cases = list(all_cases().values())
    known = {case.fault or "healthy" for case in cases}
    if unknown := sorted(set(only or []) - known):
        raise UserError(f"no case plants '{unknown[0]}'; there are {', '.join(sorted(known))}")
    return [
        case
        for case in cases
        if (not only or (case.fault or "healthy") in only) and (part == "both" or half(case) == part)
    ]


def run(cases: list[Case], folder: Path, jobs: int) -> None:
    """Run what is not kept yet."""
    missing = [case.name for case in cases if outcomes.load(case, folder) is None]
    if not missing:
        return
    data.prepare()
    begun = time.monotonic()
    with closing(outcomes.run_all(missing, folder, jobs)) as came:
        for done, outcome in enumerate(came, 1):
            left = (time.monotonic() - begun) / done * (len(missing) - done)
            print(
                f"{done}/{len(missing)} {outcome.seconds:5.1f} s  {outcome.name}  ({left:.0f} s left)", file=sys.stderr
            )
            if outcome.seconds > LONGEST:
                print(f"  takes {outcome.seconds:.0f} s, more than {LONGEST:.0f}: {outcome.name}", file=sys.stderr)
            if outcome.error:
                _failed[outcome.name] = outcome
                print(f"  failed: {outcome.name}\n{outcome.error}", file=sys.stderr)


# Failures are not kept: they are tried again by the next run.
_failed: dict[str, outcomes.Outcome] = {}


def judge(cases: list[Case], folder: Path, jobs: int) -> list[Judged]:
    """Judge all, by the rules as they are, some at once."""
    named = [(case.name, half(case), folder) for case in cases if case.name not in _failed]
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), outcomes.settle) as pool:
        judged = list(pool.map(_judge_one, named, chunksize=8))
    failed = [case for case in cases if case.name in _failed]
    return judged + [scoring.judge_outcome(c, half(c), _failed[c.name], _rules) for c in failed]


def _rules(history: History) -> tuple[list[Finding], dict[str, str]]:
    from wellfit.diagnosis.rules import judge

    return judge(history)


def _judge_one(asked: tuple[str, Half, Path]) -> Judged:
    name, part, folder = asked
    case = all_cases()[name]
    outcome = outcomes.load(case, folder)
    assert outcome is not None
    return scoring.judge_outcome(case, part, outcome, _rules)


# ---- what is printed ----------------------------------------------------------------------------------------


def report(judged: list[Judged], part: str, *, whole: bool) -> bool:
    """The table of one half; whether its bounds are met."""
    print(f"\n{HALVES[part]}: {sum(bool(c.fault) for c in judged)} sick, {sum(not c.fault for c in judged)} healthy")
    print(f"{'planted':<28} cases  hits  misses  undecided  share (95% interval)  named after (median of the run)")
    for row in scoring.rows(judged):
        low, high = row.interval
        named = "" if row.named_at is None else f"{row.named_at:.0%}"
        print(
            f"{row.fault:<28} {row.cases:5} {row.hits:5} {row.misses:7} {row.undecided:10}  "
            f"{row.hits / row.cases:.2f} ({low:.2f} to {high:.2f})   {named}"
        )
    for alarm in scoring.alarms(judged):
        low, high = alarm.interval
        ids = ", ".join(f"{name} {count}" for name, count in alarm.ids.most_common()) or "none"
        print(
            f"healthy {alarm.ground}s: {alarm.alarmed} of {alarm.cases} with a false alarm, "
            f"{alarm.alarmed / alarm.cases:.3f} ({low:.3f} to {high:.3f}): {ids}"
        )
    ever = scoring.alarms_on_the_way(judged)
    if ever.cases:
        ids = ", ".join(f"{name} {count}" for name, count in ever.ids.most_common()) or "none"
        print(f"healthy trainings with an alarm at any of {len(scoring.LOOKS) + 1} looks: {ever.alarmed}: {ids}")
    if part == "calibrate":
        _print_details(judged)
    _print_named("failed", ((c.name, c.error) for c in judged if c.error))
    _print_named("not healthy", ((c.name, "") for c in judged if not c.healthy and not c.error))
    print(f"processor time: {sum(c.seconds for c in judged) / 60:.1f} min")
    met = True
    for bound in scoring.bounds(judged, whole=whole):
        print(f"  {'met   ' if bound.met else 'MISSED'}  {bound.value:6.3f}  {bound.text}")
        met &= bound.met
    return met


def _print_details(judged: list[Judged]) -> None:
    said = ((c, ", ".join(c.alarms) or "nothing") for c in judged if not c.error)
    lines = [(case, f"{case.name}: said {text}") for case, text in said]
    _print_named("missed", ((line, "") for case, line in lines if case.fault and not case.hit))
    _print_named("false alarms", ((line, "") for case, line in lines if not case.fault and case.alarms))


def _print_named(title: str, lines: Iterable[tuple[str, str]]) -> None:
    for place, (name, reason) in enumerate(sorted(lines)):
        print(f"{title}:" if place == 0 else "", end="\n" if place == 0 else "")
        print(f"  {name}" + (f": {reason}" if reason else ""))


def show(name: str, folder: Path) -> int:
    """All that was said of one case of the calibration half."""
    cases = [case for case in all_cases().values() if name in (case.name, case.name.lower())] or [
        case for case in all_cases().values() if name.lower() in case.name.lower()
    ]
    if len(cases) != 1:
        raise UserError(f"{len(cases)} cases have '{name}' in their name; --list prints all")
    case = cases[0]
    if half(case) == "report":
        raise UserError(f"'{case.name}' is of the reporting half, on which nothing may be calibrated; show another")
    outcome = outcomes.load(case, folder) or outcomes.run_case(case)
    print(f"{case.name}\n{case.ground}, planted: {case.fault or 'nothing'}, {outcome.seconds:.1f} s")
    print(outcome.error, end="")
    findings, unjudged = list(outcome.findings), {}
    if outcome.watched is not None:
        from wellfit.report.terminal import sparkline

        history = outcome.watched.history
        findings, unjudged = _rules(history)
        print(f"{len(history.losses)} steps, loss {history.losses[0]:.3g} to {history.losses[-1]:.3g}")
        print(sparkline(list(history.losses), 80))
        for number, epoch in enumerate(history.epochs, 1):
            training = f"{epoch.train_loss:.3f} {epoch.train_accuracy:.3f}"
            print(f"  epoch {number:2}: training {training}, validation {epoch.val_loss:.3f} {epoch.val_accuracy:.3f}")
        if case.fault:
            share = scoring.first_named(history, case.fault, _rules)
            print("never named" if share is None else f"first named after {share:.0%} of the run")
    for finding in findings:
        print(f"{finding}\n    {finding.evidence}")
    for unknown, reason in unjudged.items():
        print(f"not judged: {unknown}: {reason}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
