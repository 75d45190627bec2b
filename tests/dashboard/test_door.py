"""Who may come in, and what is never handed out, asked of a real server over a real socket."""

from __future__ import annotations

import io
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tests.dashboard.conftest import Served, append, opening, step, training
from wellfit.dashboard.door import is_loopback, is_our_name
from wellfit.dashboard.serve import open_server
from wellfit.errors import UserError
from wellfit.record import RunFolder
from wellfit.request import read_request

Serve = Callable[..., Served]


@pytest.mark.parametrize(
    ("host", "listens_on", "ours"),
    [
        ("127.0.0.1:8732", "127.0.0.1", True),
        ("localhost", "127.0.0.1", True),
        ("LOCALHOST:1", "127.0.0.1", True),
        ("[::1]:8732", "127.0.0.1", True),
        ("evil.example", "127.0.0.1", False),
        ("evil.example:8732", "0.0.0.0", False),
        ("127.0.0.1.evil.example", "127.0.0.1", False),
        ("192.168.0.7", "127.0.0.1", False),
        ("192.168.0.7:8732", "0.0.0.0", True),
        (socket.gethostname(), "0.0.0.0", True),
        (socket.gethostname() + ".evil.example", "0.0.0.0", False),
        ("", "127.0.0.1", False),
        ("user@127.0.0.1", "127.0.0.1", False),
        ("127.0.0.1/x", "127.0.0.1", False),
        ("127.0.0.1:port", "127.0.0.1", False),
        ("[::1", "127.0.0.1", False),
        ("box.lan:80", "box.lan", True),
    ],
)
def test_names_of_ours_and_of_others(host: str, listens_on: str, ours: bool) -> None:
    assert is_our_name(host, listens_on) is ours


def test_which_addresses_are_this_machine_alone() -> None:
    assert all(is_loopback(host) for host in ("127.0.0.1", "127.8.8.8", "::1", "localhost"))
    assert not any(is_loopback(host) for host in ("0.0.0.0", "::", "10.0.0.1", "box", ""))


def test_a_foreign_host_is_refused_whatever_it_asks(serve: Serve) -> None:
    served = serve()
    for path in ("/", "/api/runs", "/static/app.js", "/api/hello"):
        assert served.request(path, host="evil.example")[0] == 421
        assert served.request(path, host=f"evil.example:{served.port}")[0] == 421
    assert served.request("/", host=f"localhost:{served.port}")[0] == 200


def test_posts_of_other_sites_are_refused(serve: Serve, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "a"
    append(run, opening(), step(1, 1.0))
    served = serve()
    key = served.runs(lambda runs: "a" in runs)["a"]["key"]
    path = f"/api/run/{key}/note"
    for origin in (None, "null", "http://evil.example", f"http://evil.example:{served.port}", "http://127.0.0.1:1"):
        assert served.post(path, {"note": "x"}, origin=origin)[0] == 403
    assert served.post(path, {"note": "x"}, sec_fetch_site="cross-site")[0] == 403
    assert served.post(path, {"note": "x"}, x_wellfit_word="guessed")[0] == 403
    assert served.post(path, {"note": "x"}, x_wellfit_word=None)[0] == 403
    assert served.request(path)[0] == 405  # nothing is written by following a link
    assert served.request(path, "PUT", {"note": "x"})[0] == 405
    assert read_request(RunFolder(run)).note == ""
    assert served.post(path, {"note": "x"}, sec_fetch_site="same-origin") == (200, {"note": "x"})
    assert read_request(RunFolder(run)).note == "x"


def test_posts_that_say_nonsense_are_answered_in_a_sentence(serve: Serve, tmp_path: Path) -> None:
    training(tmp_path / "runs" / "done")
    served = serve()
    key = served.runs(lambda runs: "done" in runs)["done"]["key"]
    path = f"/api/run/{key}/note"
    for body in (b"", b"{", b"[1]", b"\xff", b"[" * 50_000, {"note": 3}, {}, {"note": "x" * 5000}, b"x" * 200_000):
        status, said = served.post(path, body)
        assert status == 400, body
        assert said["error"]
    assert served.post(f"/api/run/{key}/stop", {}) == (400, {"error": "this run has ended already"})
    assert served.post("/api/run/999999/stop", {})[0] == 404
    assert served.post("/api/run/..%2F/stop", {})[0] == 404


def test_every_answer_carries_the_safety_headers(serve: Serve) -> None:
    served = serve()
    for path in ("/", "/static/app.js", "/api/runs", "/nowhere", "/report/1"):
        _, headers, _ = served.request(path)
        assert (
            "script-src 'self';" in headers["content-security-policy"]
            or "sandbox" in headers["content-security-policy"]
        )
        assert "unsafe-eval" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert "access-control-allow-origin" not in headers


def test_a_token_is_asked_for_once(serve: Serve) -> None:
    token = "a long enough token"
    served = serve(token=token)
    assert served.request("/api/runs")[0] == 401
    assert served.request("/static/plotly.min.js")[0] == 401
    status, _, page = served.request("/")
    assert status == 401
    assert b"asks for the token" in page
    assert served.request("/?token=wrong")[0] == 401
    assert served.request("/api/runs?token=a+long+enough+token")[0] == 401
    status, headers, _ = served.request("/?token=a+long+enough+token")
    assert (status, headers["location"]) == (303, "/")
    cookie = headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "samesite=strict" in cookie.lower()
    assert token not in cookie
    mine = cookie.partition(";")[0]
    assert served.request("/api/runs", cookie=mine)[0] == 200
    assert served.request("/api/runs", cookie=mine[:-1] + "0x")[0] == 401
    assert served.request("/api/runs", cookie="wellfit-dashboard=\xff")[0] == 401
    assert served.request("/", host="evil.example", cookie=mine)[0] == 421


def test_others_may_come_in_with_a_token_alone(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"needs a token; give one, such as --token \S{12,}"):
        open_server(tmp_path, host="0.0.0.0")
    with pytest.raises(UserError, match="at least 8 characters, got 3"):
        open_server(tmp_path, token="abc")
    with pytest.raises(UserError, match="'no such host' is none"):
        open_server(tmp_path, host="no such host", token="long enough")
    with pytest.raises(UserError, match=r"from 0 .* to 65535, got 70000"):
        open_server(tmp_path, port=70000)


def test_a_port_that_is_taken_is_said(tmp_path: Path, serve: Serve) -> None:
    port = serve(tmp_path).port
    with pytest.raises(UserError, match=f"port {port} cannot be listened on .*give another --port"):
        open_server(tmp_path, port=port)


def test_pictures_come_without_exif_and_from_the_runs_arrays_alone(serve: Serve, tmp_path: Path) -> None:
    run = training(tmp_path / "runs" / "a")
    arrays = run / "arrays"
    (arrays / "inner").mkdir(parents=True)
    image = Image.new("RGB", (40, 30), (200, 30, 30))
    exif = image.getexif()
    exif[0x010E] = "where I live"
    exif.get_ifd(0x8825)[1] = "N"
    image.save(arrays / "x.jpg", exif=exif, comment=b"my comment")
    image.save(arrays / "inner" / "y.png", exif=exif)
    (arrays / "z.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>")
    image.save(run.parent / "beside.png")
    image.save(tmp_path / "outside.png")
    (tmp_path / "runs" / "b").mkdir()
    served = serve()
    key = served.runs(lambda runs: "a" in runs and runs["a"]["read"])["a"]["key"]

    def picture(file: str) -> tuple[int, bytes]:
        status, headers, body = served.request(f"/api/run/{key}/picture?file={file}")
        assert status != 200 or headers["content-type"] == "image/jpeg"
        return status, body

    for file in ("x.jpg", "inner%2Fy.png"):
        status, body = picture(file)
        assert status == 200
        assert b"where I live" in (arrays / file.replace("%2F", "/")).read_bytes()
        for secret in (b"where I live", b"my comment", b"Exif"):
            assert secret not in body
        with Image.open(io.BytesIO(body)) as shown:
            assert not shown.getexif()
            assert shown.size == (40, 30)
    for file in (
        "z.svg",
        "..%2F..%2Fbeside.png",
        "..%2Frecord.jsonl",
        str(tmp_path / "outside.png"),
        "",
        ".",
        "no",
        "%00",
        "x" * 5000,
    ):
        assert picture(file)[0] == 404, file
    if os.name != "nt":
        (arrays / "link.png").symlink_to(tmp_path / "outside.png")
        assert picture("link.png")[0] == 404
        assert picture("x.jpg")[0] == 404  # a run with such a link is not served at all
        assert served.request(f"/api/run/{key}/page")[0] == 404


def test_files_are_served_by_name_alone(serve: Serve) -> None:
    served = serve()
    for path in (
        "/static/..%2Fapp.py",
        "/static/../app.py",
        "/static/%2Fetc%2Fpasswd",
        "/static/app.py",
        "/record.jsonl",
        "/static/",
    ):
        assert served.request(path)[0] == 404, path
    status, headers, body = served.request("/static/plotly.min.js")
    assert (status, headers["content-type"].partition(";")[0]) == (200, "text/javascript")
    assert len(body) > 1_000_000


def test_a_report_may_show_and_not_act(serve: Serve, tmp_path: Path) -> None:
    run = training(tmp_path / "runs" / "a")
    served = serve()
    key = served.runs(lambda runs: "a" in runs)["a"]["key"]
    assert served.request(f"/report/{key}")[0] == 404
    (run / "report.html").write_text("<script>steal()</script>")
    status, headers, _ = served.request(f"/report/{key}")
    assert status == 200
    assert headers["content-security-policy"].startswith("sandbox; default-src 'none'")


def test_the_same_question_twice_is_answered_with_what_changed(serve: Serve, tmp_path: Path) -> None:
    training(tmp_path / "runs" / "a")
    served = serve()
    served.runs(lambda runs: "a" in runs and runs["a"]["read"])
    said = served.json("/api/runs?since=0")
    again = served.json(f"/api/runs?since={said['version']}&instance={said['instance']}")
    assert again["runs"] == []
    # A page that knew another server is told everything.
    assert len(served.json(f"/api/runs?since={said['version']}&instance=other")["runs"]) == 1
    assert len(served.json("/api/runs?since=x&instance=" + said["instance"])["runs"]) == 1
    assert json.loads(served.request("/api/curves?keys=a,,-1,9999999,99999999999999999999")[2]) == {}


def test_a_record_that_cannot_be_understood_ends_nothing(serve: Serve, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    training(root / "good")
    append(
        root / "odd",
        opening(),
        {"kind": "audit", "classes": 7},
        {"kind": "evaluation", "per_class": {}, "confusion": "x"},
    )
    (root / "odd" / "record.jsonl").open("ab").write(b"[" * 100_000 + b"\n\xff\xfe\n")
    served = serve()
    runs = served.runs(lambda runs: len(runs) == 2)
    for run in runs.values():
        assert served.json(f"/api/run/{run['key']}/page")["verdict"]
