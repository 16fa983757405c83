"""Downloads from a server on this machine: complete, or nothing at all in the data set's place."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from disks import no_file_beyond

from titans_seq.datamodules import DataError, ForecastDataModule, download_dataset
from titans_seq.datamodules.forecast.registry import home_of

Serve = Callable[..., ThreadingHTTPServer]


class _Handler(BaseHTTPRequestHandler):
    """Serves `server.content` under /good, and the same with one fault under every other path."""

    def do_GET(self) -> None:
        content: bytes = self.server.content
        kind = self.path.split("/")[1]
        self.server.asked.append(self.path)
        if kind == "absent":
            self.send_error(404)
            return
        if kind == "garbage":
            self.wfile.write(b"not http at all\r\n\r\n")
            return
        self.send_response(200)
        if kind != "unannounced":
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if kind in ("good", "unannounced"):
            self.wfile.write(content)
        elif kind == "other":
            self.wfile.write(content[::-1])
        else:
            self.wfile.write(content[: len(content) // 2])
            self.wfile.flush()
        if kind == "interrupt":
            os.kill(os.getpid(), signal.SIGINT)  # Ctrl-C, half way through
        if kind in ("stall", "interrupt"):
            self.server.released.wait(10)

    def log_message(self, *_: object) -> None:
        """Keep the test's output clean."""


@pytest.fixture
def server(serve: Serve) -> ThreadingHTTPServer:
    return serve(_Handler, content=b"", asked=[])


def _url(server: ThreadingHTTPServer, kind: str) -> str:
    return f"http://127.0.0.1:{server.server_port}/{kind}"


def _left(root: Path) -> list[str]:
    return sorted(path.name for path in root.rglob("*") if path.is_file())


@pytest.mark.parametrize("kind", ["good", "unannounced"])
@pytest.mark.parametrize("checksum", [True, False], ids=["sha256", "shape"])
def test_complete_download(no_data: Path, toy, server, kind: str, checksum: bool) -> None:
    spec, server.content = toy(checksum=checksum)
    path = download_dataset("TOY", quiet=True, base_url=_url(server, kind))
    assert path == home_of(spec)
    assert path.read_bytes() == server.content
    assert _left(no_data) == ["toy.csv"]
    assert server.asked == [f"/{kind}/toy.csv"]


def test_it_is_downloaded_once(no_data: Path, toy, server) -> None:
    _, server.content = toy()
    for _ in range(2):
        download_dataset("toy", quiet=True, base_url=_url(server, "good"))
    assert len(server.asked) == 1


def test_progress_bar_on_a_terminal_unless_quiet(
    no_data: Path, toy, server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, server.content = toy()
    path = download_dataset("toy", base_url=_url(server, "good"))
    assert capsys.readouterr() == ("", "")
    path.unlink()
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    path = download_dataset("toy", base_url=_url(server, "good"))
    shown = capsys.readouterr()
    assert "Toy" in shown.err
    assert shown.out == ""
    path.unlink()
    download_dataset("toy", quiet=True, base_url=_url(server, "good"))
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("kind", "checksum", "reason"),
    [
        ("other", True, "wrong sha256"),
        ("half", False, "the server closed after"),
        ("half", True, "the server closed after"),
        ("absent", True, "HTTP 404"),
        ("garbage", True, "not http at all"),
        ("stall", True, "timed out"),
    ],
)
def test_a_bad_answer_leaves_nothing_and_says_what_was_tried(
    no_data: Path, toy, server, kind: str, checksum: bool, reason: str
) -> None:
    spec, server.content = toy(checksum=checksum)
    url = _url(server, kind)
    with pytest.raises(DataError, match=reason) as caught:
        download_dataset("toy", quiet=True, base_url=url, timeout=0.5)
    message = str(caught.value)
    assert f"{url}/toy.csv" in message
    assert f"put the file by hand at {home_of(spec)}" in message
    assert "\n" not in message
    assert _left(no_data) == []


def test_wrong_shape_is_refused_where_no_checksum_is_known(no_data: Path, toy, server) -> None:
    _, content = toy(checksum=False)
    server.content = content[: content.index(b"\n", len(content) // 2)]
    with pytest.raises(DataError, match="not 28 rows x 2 channels"):
        download_dataset("toy", quiet=True, base_url=_url(server, "good"))
    assert _left(no_data) == []


def test_connection_refused(no_data: Path, toy) -> None:
    toy()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(DataError, match=rf"tried http://127.0.0.1:{port}/toy.csv \(Connection refused\)"):
        download_dataset("toy", quiet=True, base_url=f"http://127.0.0.1:{port}")
    assert _left(no_data) == []


def test_no_network(no_data: Path, toy) -> None:
    toy()
    with pytest.raises(DataError, match="could not be downloaded; tried http://nowhere.invalid/toy.csv"):
        download_dataset("toy", quiet=True)
    assert _left(no_data) == []


def test_the_next_address_is_tried(no_data: Path, toy, server) -> None:
    urls = tuple(f"{_url(server, kind)}/toy.csv" for kind in ("half", "absent", "good"))
    _, server.content = toy(urls=urls)
    assert download_dataset("toy", quiet=True).read_bytes() == server.content
    assert len(server.asked) == 3


def test_interruption_leaves_nothing(no_data: Path, toy, server) -> None:
    _, server.content = toy()
    with pytest.raises(KeyboardInterrupt):
        download_dataset("toy", quiet=True, base_url=_url(server, "interrupt"))
    assert _left(no_data) == []


def test_full_disk_leaves_nothing(no_data: Path, toy, server) -> None:
    """The kernel refuses to let files grow: the same failing write as on a full disk."""
    _, server.content = toy()
    with no_file_beyond(100), pytest.raises(DataError, match="cannot write .*File too large; make room"):
        download_dataset("toy", quiet=True, base_url=_url(server, "good"))
    assert _left(no_data) == []


def test_a_data_folder_that_cannot_be_made(no_data: Path, toy, server) -> None:
    _, server.content = toy()
    no_data.write_text("a file where the folder should be")
    with pytest.raises(DataError, match="cannot write .*TITANS_SEQ_DATA"):
        download_dataset("toy", quiet=True, base_url=_url(server, "good"))


def test_a_present_file_that_is_not_the_published_one_is_kept_and_named(toy, put, server) -> None:
    _, server.content = toy()
    place = put(b"date,a,b\n2024-01-01,1,2\n")
    with pytest.raises(DataError, match="not the published Toy: sha256 is .*; remove it and run"):
        download_dataset("toy", quiet=True, base_url=_url(server, "good"))
    assert place.read_bytes().startswith(b"date,a,b")


def test_slices_cannot_be_downloaded(no_data: Path) -> None:
    with pytest.raises(DataError, match="traffic_first6: no file .* it has no download: put the file there by hand"):
        download_dataset("traffic_first6", quiet=True)


def test_the_data_module_downloads_what_it_needs(no_data: Path, toy, server) -> None:
    _, server.content = toy(urls=(f"{_url(server, 'good')}/toy.csv",))
    data = ForecastDataModule("toy", lookback=3, horizon=2)
    data.prepare_data()
    data.setup()
    # row by row as published: the repeated and the unsorted date neither drop nor move a row
    assert data.panel.target[:28].tolist() == list(range(1, 29))
    assert data.protocol.ranges(28, 3) == {"train": (0, 14), "val": (11, 21), "test": (18, 28)}
    assert len(server.asked) == 1


def test_what_a_killed_download_has_left_is_removed(no_data: Path, toy, server) -> None:
    spec, server.content = toy()
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    place = home_of(spec)
    place.parent.mkdir(parents=True)
    place.with_name(f".{place.name}.{socket.gethostname()}.{int(dead.stdout)}.0a1b2c3d.part").touch()
    place.with_name(f".{place.name}.elsewhere.{int(dead.stdout)}.0a1b2c3d.part").touch()
    download_dataset("toy", quiet=True, base_url=_url(server, "good"))
    assert _left(no_data) == [f".{place.name}.elsewhere.{int(dead.stdout)}.0a1b2c3d.part", place.name]
