"""Every exception wellfit raises on purpose, and the exit code each one means.

    WellfitError
    ├── UserError        2   the user's mistake: one sentence with the rule, the value got, what to do
    ├── GateFailed       1   a check of the recipe failed; carries its findings, and stands beside them
    └── Interrupted    130   stopped by Ctrl-C

Anything else that escapes is a defect of wellfit and exits with 3.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class WellfitError(Exception):
    """Root of the tree; `exit_code` is what the command line returns."""

    exit_code = 3


class UserError(WellfitError):
    """Input that wellfit cannot work with. The message is one sentence and names what to do."""

    exit_code = 2


class Interrupted(WellfitError):
    """The user stopped the run before there was anything to hand over."""

    exit_code = 130


def nearest(name: str, known: Iterable[str]) -> str:
    """Return " (did you mean 'x'?)" for the closest known name, or "" when none is close."""
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" (did you mean '{found[0]}'?)" if found else ""


def _alike(name: str, known: list[str]) -> list[str]:
    """Up to five names that begin as `name` does, or else that resemble it."""
    beginning = [k for k in known if name[:3].lower() == k[:3].lower()]
    return (beginning or difflib.get_close_matches(name, known, n=5, cutoff=0.4) or known)[:5]


def unknown_name(what: str, name: str, known: Iterable[str]) -> UserError:
    """The error for a name that is not in a table: names the nearest one and the first few known.

    >>> str(unknown_name("optimizer", "sdg", ["sgd", "adam"]))
    "unknown optimizer 'sdg' (did you mean 'sgd'?); known: adam, sgd"
    """
    known = sorted(known)
    listed = ", ".join(known) if len(known) <= 20 else f"{len(known)} names, such as {', '.join(_alike(name, known))}"
    return UserError(f"unknown {what} '{name}'{nearest(name, known)}; known: {listed}")
