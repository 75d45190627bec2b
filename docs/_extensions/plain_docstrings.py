"""Lets autodoc read docstrings as this project writes them: plain English with bare formulas.

Such a docstring is no reStructuredText: `Σ|w|` is a norm and no substitution, `lr: learning rate` a line about an
argument, and an indented block a table to be kept as it stands. Each is put into the form that Sphinx expects.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx

ARGUMENT = re.compile(r"^(\*{0,2}\w+(?:, \*{0,2}\w+)*): +(?=\S)")
CODE = re.compile(r"(`[^`]+`|\*\*[^*\s][^*]*\*\*)")


def process(_app: Sphinx, _what: str, _name: str, _object: Any, _options: Any, lines: list[str]) -> None:
    """autodoc-process-docstring: `lines` is changed in place."""
    lines[:] = as_restructured_text(lines)


def as_restructured_text(lines: list[str]) -> list[str]:
    """The docstring with arguments as a list, indented blocks as literal blocks and everything else escaped.

    >>> as_restructured_text(["λΣ|w|.", "", "lr: the rate,", "    at least 0.", "", "    x ← x − lr·g"])
    ['λΣ\\\\|w\\\\|.', '', '', '- `lr`: the rate,', '  at least 0.', '', '::', '', '    x ← x − lr·g']
    """
    result: list[str] = []
    in_list = literal = doctest = False
    previous_blank = True
    for line in lines:
        blank = not line.strip()
        indented = line.startswith(("    ", "\t"))
        if blank:
            doctest = False
        elif line.lstrip().startswith(">>>"):
            doctest = True
        if blank or doctest:
            result.append(line)
            in_list = in_list and blank
        elif (found := ARGUMENT.match(line)) and (previous_blank or in_list or not result):
            result += [] if in_list else [""]
            result.append(f"- `{found[1]}`: {escape(line[found.end() :])}")
            in_list, literal = True, False
        elif indented and (literal or previous_blank):
            result += [] if literal else ["::", ""]
            result.append(line)
            literal = True
        elif indented and in_list:
            result.append("  " + escape(line.strip()))
        else:
            result += [""] if in_list and not previous_blank else []
            result.append(escape(line.strip()))
            in_list = literal = False
        previous_blank = blank
    return result


def escape(text: str) -> str:
    """Bars, asterisks and trailing underscores of formulas, outside of `code` and **bold**."""
    parts = CODE.split(text)
    return "".join(
        part if i % 2 else re.sub(r"([|*\\])|(?<=\w)(_)(?!\w)", r"\\\g<0>", part) for i, part in enumerate(parts)
    )


def shorten(
    _app: Sphinx, _what: str, _name: str, _object: Any, _options: Any, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """autodoc-process-signature: `~typing.Any` → `Any`, which Sphinx does only where it can parse the defaults."""
    return tuple(text and re.sub(r"~(?:\w+\.)+", "", text) for text in (signature, returns))


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("autodoc-process-signature", shorten)
    app.connect("autodoc-process-docstring", process)
    return {"parallel_read_safe": True}
