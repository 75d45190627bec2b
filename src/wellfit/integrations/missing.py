"""What to say where the library that an adapter is for is not installed."""

from __future__ import annotations

from wellfit.errors import UserError


class MissingLibrary(UserError, ImportError):
    """An adapter was imported without its library; also an ImportError, so that `try: import` works as ever."""


def missing(adapter: str, libraries: str, extra: str) -> MissingLibrary:
    """The error of `adapter` for want of `libraries`, which `pip install wellfit[extra]` brings.

    >>> print(missing("wellfit.integrations.lightning", "Lightning", "lightning"))
    wellfit.integrations.lightning needs Lightning, which is not installed; pip install 'wellfit[lightning]'
    """
    return MissingLibrary(f"{adapter} needs {libraries}, which is not installed; pip install 'wellfit[{extra}]'")
