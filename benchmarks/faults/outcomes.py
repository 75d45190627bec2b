"""Runs cases in worker processes and keeps what came out, so that nothing is trained twice.

A training is kept under the contents of the files that make it; the rules are none of them, so that a change of a rule
costs no training. A check or an audit is kept under the contents of the rooms that judge.
"""

from __future__ import annotations

import ast
import hashlib
import multiprocessing
import pickle
import re
import signal
import time
import traceback
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import wellfit
from faults.all_cases import all_cases
from faults.case import Case, Ground, Watched
from wellfit.findings import Finding
from wellfit.record import write_atomically

BENCHMARK = Path(__file__).parent
LIBRARY = Path(wellfit.__file__).parent
# Rooms whose contents decide what a case of each ground gives.
ROOMS: dict[Ground, tuple[str, ...]] = {
    "training": ("diagnosis",),
    "check": ("checks", "data", "recipe"),
    "audit": ("checks", "data", "recipe"),
}
# Of the diagnosis room, what only reads a history, or that no training calls.
READERS = {"rules", "statistics.py", "filters.py"}


@dataclass(frozen=True)
class Outcome:
    """What a case gave: `watched` for a training, else `findings`; or `error`, a traceback. seconds: processor time."""

    name: str
    fault: str
    ground: Ground
    seconds: float
    watched: Watched | None = None
    findings: tuple[Finding, ...] = ()
    error: str = ""


# ---- where an outcome is kept ------------------------------------------------------------------------------


def kept_at(case: Case, folder: Path) -> Path:
    """The file for the case as its sources now are."""
    plain = re.sub(r"[^a-z0-9]+", "-", case.name.lower()).strip("-")[:80]
    name = hashlib.sha256(case.name.encode()).hexdigest()[:8]
    key = hashlib.sha256((_benchmark_key(case.module) + _library_key(case.ground)).encode()).hexdigest()[:16]
    return folder / f"{plain}-{name}-{key}.pickle"


def load(case: Case, folder: Path) -> Outcome | None:
    """The outcome kept for the case; None where there is none, or an unreadable one."""
    try:
        outcome = pickle.loads(kept_at(case, folder).read_bytes())
    except (OSError, EOFError, pickle.UnpicklingError, AttributeError, ImportError):
        return None
    return outcome if isinstance(outcome, Outcome) and outcome.name == case.name else None


def keep(case: Case, outcome: Outcome, folder: Path) -> None:
    """Write the outcome in one piece and delete those of earlier sources."""
    path = kept_at(case, folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, pickle.dumps(outcome))
    stem = path.name.rsplit("-", 1)[0]
    for old in folder.glob(f"{stem}-*.pickle"):
        if old.name != path.name:
            old.unlink(missing_ok=True)


@cache
def _benchmark_key(module: str) -> str:
    return _digest(sorted(sources_of(Path(module))))


@cache
def _library_key(ground: Ground) -> str:
    files = (file for room in ROOMS[ground] for file in (LIBRARY / room).rglob("*.py"))
    return _digest(sorted(f for f in files if not READERS & set(f.relative_to(LIBRARY).parts)))


def sources_of(module: Path) -> set[Path]:
    """The file and those of this benchmark that it imports, directly or through others; `case.py` makes nothing."""
    found: set[Path] = set()
    waiting = [module]
    while waiting:
        file = waiting.pop()
        if file not in found:
            found.add(file)
            waiting += [f for f in _imported(file) if f.is_file() and f.name not in {"case.py", "__init__.py"}]
    return found


def _imported(file: Path) -> Iterator[Path]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "faults":
            place = BENCHMARK.joinpath(*node.module.split(".")[1:])
            yield place.with_suffix(".py")
            yield from (place / f"{alias.name}.py" for alias in node.names)


def _digest(files: Iterable[Path]) -> str:
    """Of the code alone: neither comments nor layout change it."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode() + ast.dump(ast.parse(file.read_text(encoding="utf-8"))).encode())
    return digest.hexdigest()


# ---- running -------------------------------------------------------------------------------------------------


def run_case(case: Case) -> Outcome:
    """Run it here. An exception of the case is an outcome too."""
    begun = time.process_time()
    try:
        got = case.run()
    except Exception:
        return Outcome(case.name, case.fault, case.ground, time.process_time() - begun, error=traceback.format_exc())
    seconds = time.process_time() - begun
    if isinstance(got, Watched):
        return Outcome(case.name, case.fault, case.ground, seconds, watched=got)
    return Outcome(case.name, case.fault, case.ground, seconds, findings=tuple(got))


def settle() -> None:
    """Of a worker: one thread; Ctrl-C is the parent's business."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)


def _run_and_keep(name: str, folder: Path) -> Outcome:
    case = all_cases()[name]
    outcome = run_case(case)
    if not outcome.error:
        keep(case, outcome, folder)
    return outcome


def run_all(names: list[str], folder: Path, jobs: int) -> Iterator[Outcome]:
    """Run the cases, `jobs` at once, and give each outcome as it comes. Ctrl-C drops those under way."""
    waiting = list(reversed(names))
    under_way: set[Future[Outcome]] = set()
    others = multiprocessing.active_children()
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), settle) as pool:
        try:
            while waiting or under_way:
                # No more than can run: so none is lost but those under way.
                while waiting and len(under_way) < jobs:
                    under_way.add(pool.submit(_run_and_keep, waiting.pop(), folder))
                done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
        except (KeyboardInterrupt, GeneratorExit):
            # A second Ctrl-C must not catch the pool while it takes leave of its workers.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            for worker in set(multiprocessing.active_children()) - set(others):
                worker.terminate()
            raise
