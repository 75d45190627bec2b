"""What the server answers: the page, its scripts, JSON about the runs. Names of runs are looked up, never opened."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from wellfit.dashboard.door import Door
from wellfit.dashboard.folders import is_inside, leads_out
from wellfit.dashboard.pages import Pages
from wellfit.dashboard.watch import Watch, Watched
from wellfit.errors import UserError
from wellfit.report.thumbnails import shrink
from wellfit.request import ask_to_stop, leave_note

MOST_CURVES = 500
_LARGEST_PICTURE = 20_000_000
_LARGEST_POST = 100_000
_KINDS = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
# A report is a file of the folder, and whoever can write there could put anything in it: it may show, not act.
_REPORT_POLICY = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_FRESH = {"cache-control": "no-store"}
_CHECKED = {"cache-control": "no-cache"}
_KEPT = {"cache-control": "private, max-age=86400"}


class Unknown(Exception):
    """There is no such run, or no such file of it."""


def make_app(watch: Watch, *, host: str = "127.0.0.1", token: str = "") -> Starlette:
    """The application over a folder that is watched. token: what visitors have to know; "": nothing."""
    word = secrets.token_urlsafe(24)
    pages = Pages()
    plotly = plotly_file()
    static = resources.files("wellfit.dashboard").joinpath("static")
    shipped = {entry.name: entry.read_bytes() for entry in static.iterdir() if Path(entry.name).suffix in _KINDS}
    instance = secrets.token_hex(6)

    def run_of(key: str) -> Watched:
        run = watch.get(int(key)) if key.isdecimal() and len(key) < 16 else None
        if run is None:
            raise Unknown("this run is no longer there")
        if run.problem or leads_out(run.folder, watch.root):
            raise Unknown(run.problem or "a link in this run leads out of the runs folder")
        return run

    def page(request: Request) -> Response:
        return Response(shipped["index.html"], media_type="text/html", headers=_FRESH)

    def shipped_file(request: Request) -> Response:
        name = request.path_params["name"]
        if name == "plotly.min.js":
            return FileResponse(plotly, media_type="text/javascript", headers=_KEPT)
        if name not in shipped:
            raise Unknown("there is no such file")
        return Response(shipped[name], media_type=_KINDS[Path(name).suffix], headers=_CHECKED)

    def hello(request: Request) -> Response:
        return JSONResponse({"word": word, "instance": instance, "folder": str(watch.root)}, headers=_FRESH)

    def runs(request: Request) -> Response:
        since = request.query_params.get("since", "0")
        same = request.query_params.get("instance") == instance
        body = watch.changes(int(since) if same and since.isdecimal() and len(since) < 16 else 0)
        head = json.dumps({"instance": instance})[:-1].encode()
        return Response(head + b", " + body[1:], media_type="application/json", headers=_FRESH)

    def curves(request: Request) -> Response:
        given = request.query_params.get("keys", "").split(",")[:MOST_CURVES]
        return JSONResponse(watch.curves([int(k) for k in given if k.isdecimal() and len(k) < 16]), headers=_FRESH)

    def details(request: Request, what: str) -> Response:
        run = run_of(request.path_params["key"])
        try:
            body = pages.get(run.folder, what)
        except OSError as error:
            raise Unknown(f"its record cannot be read ({error.strerror})") from error
        return Response(body, media_type="application/json", headers=_FRESH)

    def page_of_run(request: Request) -> Response:
        return details(request, "page")

    def trials_of_run(request: Request) -> Response:
        return details(request, "trials")

    def picture(request: Request) -> Response:
        run = run_of(request.path_params["key"])
        arrays = run.folder.arrays
        file = arrays / request.query_params.get("file", "")
        try:
            if not is_inside(file, arrays.resolve()) or not file.is_file() or file.stat().st_size > _LARGEST_PICTURE:
                raise Unknown("there is no such picture")
            data = shrink(file.read_bytes())
        except (OSError, ValueError) as error:
            raise Unknown("there is no such picture") from error
        if data is None:
            raise Unknown("this is no picture")
        return Response(data, media_type="image/jpeg", headers=_KEPT)

    def report(request: Request) -> Response:
        run = run_of(request.path_params["key"])
        if not run.folder.report.is_file():
            raise Unknown("this run has no report yet")
        headers = {**_FRESH, "content-security-policy": _REPORT_POLICY}
        return Response(run.folder.report.read_bytes(), media_type="text/html", headers=headers)

    async def note(request: Request) -> Response:
        run, given = run_of(request.path_params["key"]), await _posted(request)
        text = given.get("note")
        if not isinstance(text, str):
            raise UserError("a note is text")
        leave_note(run.folder, text)
        watch.touch(run.key)
        return JSONResponse({"note": run.note})

    async def stop(request: Request) -> Response:
        run = run_of(request.path_params["key"])
        if run.state not in ("running", "silent", "starting"):
            raise UserError("this run has ended already")
        ask_to_stop(run.folder)
        watch.touch(run.key)
        return JSONResponse({"stopping": True})

    routes = [
        Route("/", page),
        Route("/static/{name}", shipped_file),
        Route("/api/hello", hello),
        Route("/api/runs", runs),
        Route("/api/curves", curves),
        Route("/api/run/{key}/picture", picture),
        Route("/api/run/{key}/note", note, methods=["POST"]),
        Route("/api/run/{key}/stop", stop, methods=["POST"]),
        Route("/api/run/{key}/page", page_of_run),
        Route("/api/run/{key}/trials", trials_of_run),
        Route("/report/{key}", report),
    ]
    handlers: dict[Any, Callable[..., Any]] = {Unknown: _unknown, UserError: _mistake, 404: _no_page}
    middleware = [
        Middleware(Door, host=host, token=token, word=word),
        Middleware(GZipMiddleware, minimum_size=2000, compresslevel=4),
    ]
    return Starlette(routes=routes, middleware=middleware, exception_handlers=handlers)


def plotly_file() -> Path:
    """The script of the installed plotly: pages load it from here, never from a network."""
    import plotly

    return Path(plotly.__file__).parent / "package_data" / "plotly.min.js"


async def _posted(request: Request) -> dict[str, Any]:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _LARGEST_POST:
            raise UserError("that is too long")
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise UserError("a post is a JSON object")
    return value


def _unknown(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, 404, headers=_FRESH)


def _mistake(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, 400, headers=_FRESH)


def _no_page(request: Request, error: Exception) -> Response:
    return PlainTextResponse("There is no such page here; the dashboard is at /.", 404)
