"""Opens the dashboard: one process, one port, until Ctrl-C."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from wellfit.errors import UserError

if TYPE_CHECKING:
    import uvicorn

    from wellfit.dashboard.watch import Watch

SHORTEST_TOKEN = 8
_NEEDED = ("plotly", "starlette", "uvicorn")


def serve(folder: str | Path, *, host: str, port: int, token: str, say: Callable[[str], None]) -> None:
    """Serve the runs below `folder` until the process is stopped; `say` is told the address.

    UserError: a package is missing, the port is taken, or others could come in without a token.
    """
    server, watch, listening = open_server(folder, host=host, port=port, token=token)
    try:
        address, number = listening.getsockname()[:2]
        name = f"[{address}]" if ":" in address else address
        say(f"dashboard of {watch.root}: http://{name}:{number}/ (Ctrl-C ends it; runs go on)")
        server.run([listening])
    finally:
        listening.close()
        watch.close()


def open_server(
    folder: str | Path, *, host: str = "127.0.0.1", port: int = 0, token: str = ""
) -> tuple[uvicorn.Server, Watch, socket.socket]:
    """A server that is ready to run on the socket that comes with it; port 0 takes a free one."""
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise UserError(
            f"the dashboard needs {', '.join(_NEEDED)}, and {missing[0]} is not installed; "
            "install them with `pip install 'wellfit[dashboard]'`"
        )
    import uvicorn

    from wellfit.dashboard.app import make_app
    from wellfit.dashboard.door import is_loopback
    from wellfit.dashboard.watch import Watch

    if token and len(token) < SHORTEST_TOKEN:
        raise UserError(f"a token has at least {SHORTEST_TOKEN} characters, got {len(token)}; give a longer one")
    if not is_loopback(host) and not token:
        raise UserError(
            f"others can reach a dashboard on '{host}' and stop runs there, so it needs a token; "
            f"give one, such as --token {secrets.token_urlsafe(12)}"
        )
    listening = _listen(host, port)
    watch = Watch(Path(folder))
    app = make_app(watch, host=host, token=token)
    config = uvicorn.Config(app, log_level="warning", access_log=False, ws="none", server_header=False, lifespan="off")
    return uvicorn.Server(config), watch, listening


def _listen(host: str, port: int) -> socket.socket:
    if not 0 <= port <= 65535:
        raise UserError(f"a port is a number from 0 (any that is free) to 65535, got {port}; give another --port")
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
    except OSError as error:
        raise UserError(
            f"--host is an address or a name of this machine, but '{host}' is none; try 127.0.0.1"
        ) from error
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        if hasattr(socket, "SO_EXCLUSIVEADDRUSE"):  # Windows lets two servers share a port otherwise
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(128)
    except OSError as error:
        listening.close()
        raise UserError(
            f"'{host}' port {port} cannot be listened on ({error.strerror}); give another --port, or --port 0"
        ) from error
    return listening
