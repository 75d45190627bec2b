"""Trainings in which nothing is wrong."""

from __future__ import annotations

from faults.case import Case


def cases() -> list[Case]:
    """All healthy cases."""
    return []
