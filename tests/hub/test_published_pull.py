"""Fetching published files: broken connections, wrong content, servers with and without ranges; nothing unchecked."""

from __future__ import annotations

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from blemish.errors import OutputError, UsageError, WeightsError
from blemish.hub import TABLE, base_address, blob_id, download, entry, find, home, local_path, pull
from blemish.hub.download import RetryPolicy, fetch
from blemish.hub.published import locate

CONTENT = bytes(range(256)) * 1000
FAST = RetryPolicy(attempts=3, timeout=5, pause=0.01)


def blob_of(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@pytest.fixture
def get(server, tmp_path: Path):
    """Fetches /file, expecting CONTENT, with a place that has no file yet."""
    server.files["/file"] = CONTENT

    def call(**options):
        retry = options.pop("retry", FAST)
        fetch(f"{server.address}/file", tmp_path / "x" / "file.pth", blob_of(CONTENT), retry=retry, **options)
        return tmp_path / "x" / "file.pth"

    return call


def test_blob_id_is_gits(tmp_path: Path) -> None:
    (tmp_path / "hello").write_bytes(b"hello\n")
    assert blob_id(tmp_path / "hello") == "ce013625030ba8dba906f756967f9e9ca394464a"


def test_the_table() -> None:
    assert len(TABLE) == 6
    assert len({one.blob for one in TABLE.values()}) == 6
    for name, one in TABLE.items():
        assert name == one.name == entry(name).name
        assert len(one.blob) == len(one.commit) == 40
        assert int(one.blob, 16)
        assert int(one.commit, 16)
        assert one.backbone.count("/") == 1


def test_whole(get, server) -> None:
    seen: list[tuple[int, int | None]] = []
    path = get(on_progress=lambda done, total: seen.append((done, total)))
    assert path.read_bytes() == CONTENT
    assert [one.name for one in path.parent.iterdir()] == ["file.pth"]
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert server.requests == [("/file", None)]


def test_continued_where_it_broke(get, server) -> None:
    server.cuts = [100_000, 50_000]
    assert get().read_bytes() == CONTENT
    assert [asked for _, asked in server.requests] == [None, "bytes=100000-", "bytes=150000-"]


def test_begun_anew_where_there_are_no_ranges(get, server) -> None:
    server.ranges, server.cuts = False, [100_000]
    assert get().read_bytes() == CONTENT
    assert [asked for _, asked in server.requests] == [None, "bytes=100000-"]


def test_without_a_length(get, server) -> None:
    server.length = False
    assert get().read_bytes() == CONTENT


def test_gives_up_and_keeps_what_came(get, server, tmp_path: Path) -> None:
    server.cuts = [1000, 0, 0, 0]
    with pytest.raises(WeightsError, match="broke after 1,000 of 256,000 bytes; the 1,000 bytes that arrived are kept"):
        get()
    assert (tmp_path / "x" / "file.pth.part").stat().st_size == 1000
    server.cuts = []
    assert get().read_bytes() == CONTENT
    assert server.requests[-1][1] == "bytes=1000-"


def test_progress_earns_more_attempts(get, server) -> None:
    server.cuts = [10_000] * 10
    assert get().read_bytes() == CONTENT


def test_breaking_off_forever_without_ranges_ends(get, server) -> None:
    server.ranges, server.cuts = False, [500, 400] * 20
    with pytest.raises(WeightsError, match="could not be fetched"):
        get()
    assert len(server.requests) == 3


def test_passing_troubles(get, server) -> None:
    server.answers = [503, 429]
    assert get().read_bytes() == CONTENT


def test_lasting_troubles(get, server) -> None:
    server.answers = [500] * 5
    with pytest.raises(WeightsError, match="the server answered 500"):
        get()
    assert len(server.requests) == 3


@pytest.mark.parametrize("code", [404, 403, 410])
def test_not_there(get, server, tmp_path: Path, code: int) -> None:
    server.answers = [code]
    with pytest.raises(WeightsError, match=f"is not there .*{code}"):
        get()
    assert len(server.requests) == 1


def test_wrong_content(get, server, tmp_path: Path) -> None:
    server.files["/file"] = b"<html>please log in</html>"
    with pytest.raises(WeightsError, match=f"something else .*not {blob_of(CONTENT)}.*deleted unread"):
        get()
    assert list((tmp_path / "x").iterdir()) == []


def test_a_wrong_beginning_is_replaced(get, server, tmp_path: Path) -> None:
    for piece in (b"wrong" * 10, b"wrong" * len(CONTENT)):  # shorter and longer than the file
        (tmp_path / "x").mkdir(exist_ok=True)
        (tmp_path / "x" / "file.pth.part").write_bytes(piece)
        assert get().read_bytes() == CONTENT


def test_a_complete_piece_needs_no_more(get, server, tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "file.pth.part").write_bytes(CONTENT)
    assert get().read_bytes() == CONTENT
    assert len(server.requests) == 1


def test_too_large(get, server) -> None:
    for length in (True, False):
        server.length = length
        with pytest.raises(WeightsError, match="larger than any published file"):
            get(retry=RetryPolicy(max_bytes=1000, pause=0.01))


def test_nobody_answers(tmp_path: Path, server) -> None:
    with pytest.raises(WeightsError, match=r"could not be fetched: .*refused"):
        fetch("http://127.0.0.1:9/x", tmp_path / "x", "0" * 40, retry=FAST)


def test_a_server_that_stalls(tmp_path: Path) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/x"
        with pytest.raises(WeightsError, match="did not answer in time"):
            fetch(address, tmp_path / "x", "0" * 40, retry=RetryPolicy(attempts=1, timeout=0.1))


def test_only_http(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no http or https address"):
        fetch((tmp_path / "x").as_uri(), tmp_path / "y", "0" * 40)


def test_cannot_be_written(get, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("")
    with pytest.raises(OutputError, match=r"cannot write .*BLEMISH_HOME"):
        get()


def test_one_at_a_time(get, tmp_path: Path) -> None:
    fcntl = pytest.importorskip("fcntl")
    (tmp_path / "x").mkdir()
    with (tmp_path / "x" / "file.pth.part").open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(WeightsError, match="another run is fetching"):
            get()
    assert get().read_bytes() == CONTENT


def test_through_a_proxy(get, server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The proxy is asked for the whole address; the name itself is never looked up."""
    asked: list[str] = []

    class Proxy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            self.wfile.write(CONTENT)

        def log_message(self, *words: object) -> None:
            pass

    proxy = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    thread = threading.Thread(target=proxy.serve_forever, args=(0.01,))
    thread.start()
    try:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.server_port}")
        monkeypatch.setenv("no_proxy", "")
        fetch("http://mirror.invalid/file", tmp_path / "file", blob_of(CONTENT), retry=FAST)
    finally:
        proxy.shutdown()
        proxy.server_close()
        thread.join()
    assert asked == ["http://mirror.invalid/file"]
    assert (tmp_path / "file").read_bytes() == CONTENT


# by name


def test_pull_and_find(publish, server) -> None:
    publish("plates", "anomalyclip", CONTENT)
    with pytest.raises(WeightsError, match="run blemish weights pull plates"):
        find("plates")
    path = pull("plates", retry=FAST)
    assert path == find("plates") == local_path(entry("plates")) == home() / "published" / "plates.pth"
    pull("plates", retry=FAST)
    assert len(server.requests) == 1


def test_a_kept_file_that_changed_is_not_used(publish, server) -> None:
    publish("plates", "anomalyclip", CONTENT)
    path = pull("plates", retry=FAST)
    path.write_bytes(CONTENT[:-1])
    with pytest.raises(WeightsError, match="not the published file any more"):
        find("plates")
    assert pull("plates", retry=FAST).read_bytes() == CONTENT


def test_from_a_mirror(publish, server, monkeypatch: pytest.MonkeyPatch) -> None:
    publish("plates", "anomalyclip", CONTENT)
    monkeypatch.setenv("BLEMISH_WEIGHTS_URL", "http://127.0.0.1:9")
    assert pull("plates", base=f"{server.address}/", retry=FAST).read_bytes() == CONTENT
    monkeypatch.delenv("BLEMISH_WEIGHTS_URL")
    assert base_address() == "https://raw.githubusercontent.com"


def test_where_files_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("BLEMISH_HOME", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert home() == tmp_path / "blemish"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert home() == Path.home() / ".cache" / "blemish"
    monkeypatch.setenv("BLEMISH_HOME", str(tmp_path / "own"))
    assert home() == tmp_path / "own"


def test_names_for_detect(publish, tmp_path: Path) -> None:
    one = publish("plates", "anomalyclip", CONTENT)
    path = pull("plates", retry=FAST)
    assert locate("plates", "anomalyclip", one.backbone) == path
    (tmp_path / "file").write_text("")
    assert locate(tmp_path / "file", "clip", "builtin") == tmp_path / "file"
    for words, message in (
        (("plates", "april-gan", one.backbone), "weights of anomalyclip, not of april-gan"),
        (("plates", "anomalyclip", "builtin"), "learnt on openai/.*, not on the built-in"),
        (("plate", "anomalyclip", "x/y"), "no weights file plate, and .*did you mean plates"),
        ((tmp_path / "none.pth", "anomalyclip", "x/y"), "there is no weights file .*none.pth$"),
    ):
        with pytest.raises(UsageError, match=message):
            locate(*words)


def test_blob_id_of_an_empty_and_a_large_file(tmp_path: Path) -> None:
    for content in (b"", b"x" * 200_000):
        (tmp_path / "f").write_bytes(content)
        assert blob_id(tmp_path / "f") == blob_of(content)


def test_a_file_that_another_run_finished_meanwhile_is_left_alone(
    get, server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other run renames the file between our opening and our locking it."""
    folder, lock = tmp_path / "x", download.file_lock
    folder.mkdir()
    (folder / "file.pth.part").write_bytes(CONTENT[:9])

    def finish(file, path):
        (folder / "file.pth.part").replace(folder / "file.pth")
        return lock(file, path)

    monkeypatch.setattr(download, "file_lock", finish)
    with pytest.raises(WeightsError, match="another run has just fetched"):
        get()
    assert (folder / "file.pth").read_bytes() == CONTENT[:9]
    assert server.requests == []
