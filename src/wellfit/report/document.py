"""The frame of a page: one self-contained HTML document without scripts or requests, in light and dark.

A content-security policy forbids scripts and requests besides; every foreign text was escaped by `markup`.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import resources
from pathlib import Path

from wellfit.errors import UserError
from wellfit.record import write_atomically
from wellfit.report.drawing import themed
from wellfit.report.markup import Html, escape, tag

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"

Part = tuple[str, str, Html]  # anchor, heading, what stands under it


def document(title: str, header: Html, parts: Iterable[Part], footer: object) -> str:
    """The page as text: the header, links to the parts, the parts as sections, the footer."""
    parts = list(parts)
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("style", Html(resources.files("wellfit.report").joinpath("style.css").read_text(encoding="utf-8"))),
    )
    links = [tag("a", heading, href=f"#{anchor}") for anchor, heading, _ in parts]
    body = tag(
        "body",
        header,
        tag("nav", *links, aria_label="Sections"),
        tag("main", *(tag("section", tag("h2", heading), inside, id=anchor) for anchor, heading, inside in parts)),
        tag("footer", footer),
    )
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def figure(heading: str, svg: str, alt: str, text: str, *, size: str = "") -> Html:
    """A drawing of `static`'s under its heading, in the page's colours. alt: for who cannot see it. text: below it."""
    drawing = themed(svg).replace("<svg ", f'<svg role="img" aria-label="{escape(alt)}" ', 1)
    box = tag("div", Html(drawing), class_="scroll", tabindex=0)
    return tag("figure", tag("h3", heading), box, tag("figcaption", text), class_=size or None)


def write_page(path: Path, page: str) -> Path:
    """Write the page, whole or not at all. UserError where the place cannot be written to."""
    try:
        write_atomically(path, page)
    except OSError as error:
        raise UserError(
            f"the report needs a place to be written to, but '{path}' cannot be written: "
            f"{error.strerror or error}; free some space, make its folder writable or choose another place"
        ) from error
    return path
