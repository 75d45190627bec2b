"""What a rule is: its needs, and its judgement."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from wellfit.diagnosis.history import History
from wellfit.diagnosis.rules.needs import Need
from wellfit.findings import Finding


@dataclass(frozen=True)
class Rule:
    """`judge` is called only when every one of `needs` is met; None means: judged, nothing to say."""

    judge: Callable[[History], Finding | None]
    needs: tuple[Need, ...] = ()

    def fires(self, history: History) -> bool:
        """Whether it may judge and has something to say."""
        return not any(need(history) for need in self.needs) and self.judge(history) is not None
