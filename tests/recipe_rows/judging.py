"""Run the tests of the recipe's table, and each mutation's test with the part replaced, in one process.

    python -m tests.recipe_rows.judging RESULTS.json NODE…

One collection serves all runs. Fixtures are made anew for each run, so that none is carried over from the sound part
to the mutated one. Results: {"tests": {node: {outcome, items, seconds, reason}}, "mutations": [{…}]}.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import hypothesis
import pytest
from _pytest.runner import runtestprotocol

from tests.recipe_rows.mutating import ROOT, Mutation, applied, read_mutations


@dataclass
class Verdict:
    """How a node's items ended: "passed", "failed" (an assertion), "crashed" (another exception), "broken" (outside
    the test itself), "skipped", or "absent" where nothing was collected."""

    outcome: str = "absent"
    items: int = 0
    seconds: float = 0.0
    reason: str = ""

    def add(self, seconds: float, outcome: str, reason: str) -> None:
        """Count one more item; the first that did not pass gives the outcome, and any failure comes before a skip."""
        self.items += 1
        self.seconds += seconds
        if self.outcome in ("absent", "passed") or (self.outcome == "skipped" and outcome != "passed"):
            self.outcome, self.reason = outcome, reason


@dataclass(eq=False)
class Judge:
    """The plugin: collected items are run by `pytest_runtestloop`, some of them several times."""

    nodes: list[str]
    mutations: list[Mutation]
    tests: dict[str, Verdict] = field(default_factory=dict)
    mutated: list[Verdict] = field(default_factory=list)

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        nodes = list(dict.fromkeys([*self.nodes, *(m.test for m in self.mutations)]))
        self.tests = {node: Verdict() for node in nodes}
        named: dict[pytest.Item, list[str]] = {}
        for node in nodes:
            for item in items_of(session, node):
                named.setdefault(item, []).append(node)
        items = [item for item in session.items if item in named]  # neighbours share their fixtures
        for item, after in zip(items, [*items[1:], None], strict=True):
            ended = run(item, after)
            for node in named[item]:
                self.tests[node].add(*ended)
        for mutation in self.mutations:
            self.mutated.append(Verdict())
            chosen = items_of(session, mutation.test)
            with applied(mutation, [item.callspec.params for item in chosen if hasattr(item, "callspec")]):
                for item in chosen:
                    self.mutated[-1].add(*run(item, None))
                    if self.mutated[-1].outcome not in ("passed", "skipped"):
                        break
        return True

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> None:
        if call.when == "call":
            item.stash[RAISED] = None if call.excinfo is None else call.excinfo.type


RAISED = pytest.StashKey[type[BaseException] | None]()


def items_of(session: pytest.Session, node: str) -> list[pytest.Item]:
    """The items of a node id: one test, or all parameters of it."""
    return [item for item in session.items if item.nodeid == node or item.nodeid.startswith(node + "[")]


def run(item: pytest.Item, after: pytest.Item | None) -> tuple[float, str, str]:
    """Seconds, outcome and reason. after: the item that runs next, whose fixtures stay; None tears all of them down."""
    begun = time.perf_counter()
    outcome, reason = ending(item, runtestprotocol(item, log=False, nextitem=after))
    return time.perf_counter() - begun, outcome, reason


def ending(item: pytest.Item, reports: list[pytest.TestReport]) -> tuple[str, str]:
    for report in reports:
        if report.outcome == "passed":
            continue
        reason = getattr(report.longrepr, "reprcrash", None) or report.longrepr
        text = str(getattr(reason, "message", reason)).partition("\n")[0][:200]
        if report.outcome == "skipped":
            return "skipped", text
        if report.when != "call":
            return "broken", text
        noticed = issubclass(item.stash[RAISED] or Exception, (AssertionError, pytest.fail.Exception))
        return ("failed" if noticed else "crashed"), text
    return "passed", ""


def main(results: str, *nodes: str) -> int:
    # A mutated property test must not leave its examples behind, nor spend time on making them small.
    hypothesis.settings.register_profile(
        "mutated",
        database=None,
        report_multiple_bugs=False,
        phases=(hypothesis.Phase.explicit, hypothesis.Phase.generate),
    )
    hypothesis.settings.load_profile("mutated")
    mutations = read_mutations()
    judge = Judge(list(nodes), mutations)
    # Whole files: pytest stops at a node that is not there, and here it is to be named.
    files = {node.partition("::")[0] for node in (*nodes, *(m.test for m in mutations))}
    wanted = sorted(file for file in files if (ROOT / file).is_file())
    options = [
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        "--continue-on-collection-errors",
        "--rootdir",
        str(ROOT),
    ]
    pytest.main([*options, *wanted], plugins=[judge])
    Path(results).write_text(
        json.dumps(
            {
                "tests": {node: vars(verdict) for node, verdict in judge.tests.items()},
                "mutations": [vars(verdict) for verdict in judge.mutated],
            },
            indent=1,
        ),
        encoding="utf-8",
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
