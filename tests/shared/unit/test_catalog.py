"""Cards are complete, files are found where they lie, and downloads are whole or not there at all."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from stcore import catalog
from stcore.catalog import CARDS, Card, CardFile
from stcore.errors import UserError
from stcore.readers import read_event_parts
from stcore.readers.options import EventReadOptions

CONTENT = b"sequence,time,x,y\n" + b"".join(b"%d,%d.5,1.0,2.0\n" % (i // 10, i % 10) for i in range(100))


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv(catalog.DATA_VARIABLE, raising=False)
    monkeypatch.delenv(catalog.OFFLINE_VARIABLE, raising=False)


@pytest.mark.parametrize("card", CARDS.values(), ids=CARDS)
def test_cards_are_complete(card: Card) -> None:
    for text in (card.title, card.content, card.axes, card.units, card.licence):
        assert len(text) > 2
    assert "commit" in card.source and card.size_mb > 0 and card.folders
    assert {file.part for file in card.files} in ({"train", "val", "test"}, {"train", "test"}, {""})
    assert all(
        len(bytes.fromhex(file.sha256)) == 32 and file.origin.endswith(Path(file.path).suffix) for file in card.files
    )
    assert catalog.reading_options(card, EventReadOptions()).time_unit in ("days", "hours", "seconds")


def test_names_and_folder_names_are_found() -> None:
    assert catalog.find("Earthquake").name == catalog.find("smash_earthquake").name == "earthquake"
    with pytest.raises(
        UserError, match=r"'quake'.*expected one of earthquake, crime, football, citibike, world_quakes"
    ):
        catalog.find("quake")


def test_a_missing_set_says_where_it_was_looked_for_and_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        UserError, match=r"earthquake: not found under STCORE_DATA \(not set\); expected data_train.pkl"
    ):
        read_event_parts(EventReadOptions(source=("earthquake",)))
    monkeypatch.setenv(catalog.DATA_VARIABLE, str(tmp_path))
    with pytest.raises(
        UserError, match=r"download datasets/crime/data_train.pkl, .* by hand from github.com/zichongli5"
    ):
        catalog.locate(CARDS["crime"])
    with pytest.raises(UserError, match="no address to fetch it from is known; expected a download by hand"):
        catalog.fetch(CARDS["crime"])


def test_options_of_the_caller_win_over_those_of_the_card() -> None:
    options = catalog.reading_options(CARDS["world_quakes"], EventReadOptions(window=30.0, mark_column="Magnitude"))
    assert (options.window, options.mark_column, options.time_column) == (30.0, "Magnitude", "Date")


class Server:
    """A local server whose answer is set by the test; it counts what it was asked."""

    def __init__(self) -> None:
        self.answer: Callable[[BaseHTTPRequestHandler], None] = self.whole
        self.asked = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked += 1
                outer.answer(self)

            def log_message(self, format: str, *args: Any) -> None:
                """Say nothing."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.http.server_address[1]}/quakes.csv"

    def send(
        self, handler: BaseHTTPRequestHandler, body: bytes, *, length: int | None = None, status: int = 200
    ) -> None:
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(body) if length is None else length))
        handler.end_headers()
        handler.wfile.write(body)

    def whole(self, handler: BaseHTTPRequestHandler) -> None:
        self.send(handler, CONTENT)


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


def card_at(address: str) -> Card:
    digest = hashlib.sha256(CONTENT).hexdigest()
    file = CardFile(path="quakes.csv", part="", origin="quakes.csv", sha256=digest, address=address)
    return replace(CARDS["world_quakes"], name="toy", folders=("toy",), files=(file,), reading={})


def test_a_whole_download_is_kept_and_asked_for_once(server: Server) -> None:
    card = card_at(server.address)
    folder = catalog.fetch(card)
    assert (folder / "quakes.csv").read_bytes() == CONTENT and folder == catalog.cache_folder(card)
    assert catalog.fetch(card) == catalog.locate(card) == folder and server.asked == 1


def cut_at(share: float) -> Callable[[Server], Callable[[BaseHTTPRequestHandler], None]]:
    return lambda server: lambda h: server.send(h, CONTENT[: int(share * len(CONTENT))], length=len(CONTENT))


def redirected(server: Server) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        if handler.path == "/login":
            return server.send(handler, b"<html>please log in</html>")
        handler.send_response(302)
        handler.send_header("Location", "/login")
        handler.send_header("Content-Length", "0")
        handler.end_headers()
        return None

    return answer


@pytest.mark.parametrize(
    "broken",
    [
        cut_at(0.0), cut_at(0.5), cut_at(0.99), redirected,
        lambda server: lambda h: server.send(h, CONTENT[::-1]),
        lambda server: lambda h: server.send(h, b"gone", status=404),
        lambda server: lambda h: server.send(h, b"oops", status=500),
    ],
    ids=["cut at 0 %", "cut at 50 %", "cut at 99 %", "a page instead", "wrong checksum", "404", "500"],
)  # fmt: skip
def test_a_broken_download_leaves_nothing_and_is_mended_by_the_next(
    server: Server, broken: Callable[[Server], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)  # no waiting between tries
    card = card_at(server.address)
    server.answer = broken(server)
    with pytest.raises(UserError) as caught:
        catalog.fetch(card)
    assert str(caught.value).startswith(f"toy: {server.address}: ") and "expected" in str(caught.value)
    assert "\n" not in str(caught.value) and server.asked >= 2
    assert [path.name for path in catalog.cache_folder(card).iterdir()] == [".lock"]
    server.answer = server.whole
    assert (catalog.fetch(card) / "quakes.csv").read_bytes() == CONTENT


def test_a_server_that_hangs_is_given_up(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    monkeypatch.setattr(catalog, "_SECONDS", 0.05)
    monkeypatch.setattr(catalog, "_RETRIES", 0)
    server.answer = lambda handler: (release.wait(10.0), None)[1]
    with pytest.raises(UserError, match="expected a download; try again"):
        catalog.fetch(card_at(server.address))
    release.set()


@pytest.mark.parametrize("by", ["argument", "variable"])
def test_offline_opens_no_socket(by: str, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_socket(*_: Any, **__: Any) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket.socket, "connect", no_socket)
    if by == "variable":
        monkeypatch.setenv(catalog.OFFLINE_VARIABLE, "1")
    with pytest.raises(UserError, match=r"toy: not here, and offline; expected quakes\.csv"):
        catalog.fetch(card_at(server.address), offline=by == "argument")
    assert server.asked == 0


def test_processes_that_start_together_download_once(server: Server, tmp_path: Path) -> None:
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); from test_catalog import card_at; from stcore import catalog\n"
        "print((catalog.fetch(card_at(sys.argv[2])) / 'quakes.csv').stat().st_size)"
    )
    command = [sys.executable, "-c", program, str(Path(__file__).parent), server.address]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, env=dict(os.environ)) for _ in range(3)]
    sizes = [int(process.communicate()[0]) for process in started]
    assert sizes == [len(CONTENT)] * 3 and server.asked == 1
