"""A scan of S3, against moto's server on this machine. Skipped where s3fs or moto is missing: `pip install
'blemish[cloud]' 'moto[server]'`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from blemish.errors import UsageError
from blemish.scan.stores import StoreError, _filesystem
from scan_helpers import pack, rows_of

pytest.importorskip("s3fs", reason="needs the extra cloud")
pytest.importorskip("moto", reason="needs moto[server]")
pytestmark = [
    # Of moto's web server and of the store's event loop, not of blemish.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch, folder: Path, tmp_path: Path) -> Iterator[str]:
    """A bucket with the pictures, and with the same as two shards."""
    import s3fs
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("HTTP_PROXY", raising=False)
    _filesystem.cache_clear()
    s3fs.S3FileSystem.clear_instance_cache()
    store = s3fs.S3FileSystem()
    if not store.exists("parts"):  # moto keeps buckets as long as the process lives
        store.mkdir("parts")
    files = [(file.name, file.read_bytes()) for file in sorted(folder.rglob("*.png"))]
    for name, data in files:
        store.pipe(f"parts/photos/{name}", data)
    for number, chosen in enumerate((files[:5], files[5:])):
        shard = pack(tmp_path / f"{number}.tar", chosen)
        store.pipe(f"parts/shards/{number}.tar", shard.read_bytes())
    yield "s3://parts"
    server.stop()
    _filesystem.cache_clear()
    s3fs.S3FileSystem.clear_instance_cache()


def test_objects_and_shards(bucket: str, begin, tmp_path: Path) -> None:
    for out, source in (("objects", f"{bucket}/photos"), ("shards", f"{bucket}/shards/{{0..1}}.tar")):
        with begin(source, out=out) as scan:
            scan.execute()
            assert (scan.summary()["pictures"], scan.summary()["failed"]) == (10, 1)
        with begin(source, out=out) as scan:
            assert (scan.todo, scan.change()) == ([], None)
    objects, shards = ({row["sha256"]: row["score"] for row in rows_of(tmp_path / n)} for n in ("objects", "shards"))
    assert objects == {key: score and pytest.approx(score, rel=1e-5) for key, score in shards.items()}
    assert rows_of(tmp_path / "objects")[0]["path"] == "s3://parts/photos/0.png"
    assert rows_of(tmp_path / "shards")[0]["path"] == "s3://parts/shards/0.tar/0.png"


def test_what_is_not_there(bucket: str, begin) -> None:
    with pytest.raises(UsageError, match="holds no pictures"):
        begin(f"{bucket}/nothing/")
    with pytest.raises(UsageError, match="does not exist"):
        begin(f"{bucket}/shards/7.tar")


def test_a_store_that_is_down(bucket: str, begin, monkeypatch: pytest.MonkeyPatch) -> None:
    import s3fs

    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    _filesystem.cache_clear()
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(StoreError, match="cannot be read"):
        begin(f"{bucket}/photos")
