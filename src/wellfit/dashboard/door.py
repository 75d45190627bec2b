"""Who may come in: a middleware that looks at every request before anything else does.

A page of another site can make a visitor's browser send requests here. It can not choose the Host that its own name was
resolved from (so names that are not ours are refused: DNS rebinding), nor the Origin that the browser states (so a post
of another origin is refused), and it can not read the word that our own page was given.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
import socket
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "wellfit-dashboard"
WORD = "x-wellfit-word"  # the header that our own page sends with every post
LOOPBACK = ("localhost", "127.0.0.1", "::1")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "connect-src 'self'; manifest-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
_HEADERS = (
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cross-origin-opener-policy", "same-origin"),
)
_ASK = """<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>wellfit dashboard</title><link rel="stylesheet" href="/static/style.css"><body class="ask"><main>
<h1>wellfit dashboard</h1><p>{}</p>
<form action="/" method="get"><label>Token <input name="token" type="password" autocomplete="off" autofocus required>
</label> <button>Open</button></form></main></body></html>"""


class Door:
    """Refuses what must not come in, lets the rest through to `app`, and puts the safety headers on every answer.

    host: what the server listens on. token: what a visitor has to know, "" where nothing is asked.
    """

    def __init__(self, app: ASGIApp, host: str, token: str, word: str) -> None:
        self.app, self.host, self.token, self.word = app, host, token, word
        # The cookie is not the token: who reads it from a browser's files cannot type it elsewhere after a restart.
        salt = secrets.token_bytes(16)
        self._cookie = hmac.new(salt, token.encode(), hashlib.sha256).hexdigest()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # no web sockets here

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                names = {name for name, _ in message["headers"]}
                policy = () if b"content-security-policy" in names else (("content-security-policy", POLICY),)
                added = [(name.encode(), value.encode()) for name, value in (*_HEADERS, *policy)]
                message = {**message, "headers": [*message["headers"], *added]}
            await send(message)

        answer = self._refusal(scope)
        await (answer or self.app)(scope, receive, guarded)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if not is_our_name(host, self.host):
            return PlainTextResponse("This server does not go by that name.", 421)
        if scope["method"] not in ("GET", "HEAD", "POST"):
            return PlainTextResponse("Only GET and POST are known here.", 405)
        if scope["method"] == "POST":
            origin = headers.get("origin")
            if origin is None or urlsplit(origin).netloc.lower() != host.lower():
                return PlainTextResponse("A page of another site may not write here.", 403)
            if headers.get("sec-fetch-site", "same-origin") != "same-origin":
                return PlainTextResponse("A page of another site may not write here.", 403)
            if not _same(headers.get(WORD, ""), self.word):
                return PlainTextResponse("This page is from before a restart; reload it.", 403)
        return self._unknown_visitor(scope, headers) if self.token else None

    def _unknown_visitor(self, scope: Scope, headers: Headers) -> Response | None:
        if scope["path"] == "/static/style.css" or _same(_cookie(headers), self._cookie):
            return None
        given = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("token", [])
        if scope["path"] != "/" or not given:
            text = "This dashboard asks for the token that it was started with."
        elif _same(given[0], self.token):
            welcome = RedirectResponse("/", 303)  # the token leaves the address, and with it the browser's history
            welcome.set_cookie(COOKIE, self._cookie, httponly=True, samesite="strict", max_age=30 * 86400)
            return welcome
        else:
            text = "That is not the token that it was started with. Try again."
        return HTMLResponse(_ASK.format(text), 401, {"cache-control": "no-store"})


def is_our_name(host: str, listens_on: str) -> bool:
    """Whether a Host header names this machine: any name of its own, or where it serves others, any address.

    A rebinding attack comes with the name of the attacker's site, never with an address.
    """
    try:
        parts = urlsplit(f"//{host}")
        name = (parts.hostname or "").lower()
        _ = parts.port
    except ValueError:
        return False
    if not name or parts.username is not None or parts.path or parts.query or parts.fragment:
        return False
    if name in LOOPBACK or name == listens_on.lower():
        return True
    if is_loopback(listens_on):
        return False
    own = socket.gethostname().lower()
    return name in (own, f"{own}.local", socket.getfqdn().lower()) or _is_address(name)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server that listens on `host`."""
    if host.lower() == "localhost":
        return True
    return _is_address(host) and ipaddress.ip_address(host).is_loopback


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _cookie(headers: Headers) -> str:
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    return found.value if found is not None else ""


def _same(given: str, known: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "replace"), known.encode())
