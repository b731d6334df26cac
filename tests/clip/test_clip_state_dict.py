"""TorchScript archives are read without running anything in them."""

from __future__ import annotations

import io
import pickle
import warnings
import zipfile

import pytest
import torch

from blemish.clip.state_dict import is_torchscript, read_torchscript
from blemish.errors import WeightsError


class Leaf(torch.nn.Module):
    """Holds one tensor of each kind that archives have."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.arange(6.0).reshape(2, 3).half())
        self.register_buffer("count", torch.tensor(7))
        self.register_buffer("view", torch.arange(12).reshape(3, 4).T[1:, :2])
        self.sizes = [1, 2]
        self.title = "leaf"
        self.rate = 0.5

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


class Tree(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.leaf = Leaf()
        self.rows = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.LayerNorm(2))
        self.positional_embedding = torch.nn.Parameter(torch.ones(2, 2, dtype=torch.bfloat16))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.leaf(x)


@pytest.fixture(scope="module")
def tree():
    return Tree()


@pytest.fixture(scope="module")
def archive(tree, tmp_path_factory):
    path = tmp_path_factory.mktemp("archives") / "tree.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch is giving up TorchScript; OpenAI's files stay what they are
        torch.jit.script(tree).save(str(path))
    return path


def test_every_tensor_is_found_under_its_name(tree, archive):
    assert is_torchscript(archive)
    found = read_torchscript(archive)
    wanted = tree.state_dict()
    assert set(found) == set(wanted)
    for key, value in wanted.items():
        assert found[key].dtype == value.dtype
        assert torch.equal(found[key], value), key


def test_other_files_are_not_archives(tmp_path):
    torch.save({"a": torch.zeros(1)}, tmp_path / "plain.pt")
    (tmp_path / "text.pt").write_text("hello")
    assert not is_torchscript(tmp_path / "plain.pt")
    assert not is_torchscript(tmp_path / "text.pt")
    assert not is_torchscript(tmp_path / "missing.pt")


def write_archive(path, data, records=None, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as out:
        out.writestr("model/data.pkl", data)
        out.writestr("model/constants.pkl", b")")
        for name, raw in (records or {}).items():
            out.writestr(f"model/data/{name}", raw)
    return path


class Evil:
    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("how", ["open", "eval", "getattr", "torch.load", "Path.write_text"])
def test_code_in_an_archive_is_refused_and_not_run(tmp_path, how):
    from pathlib import Path

    mark = tmp_path / "ran"
    evil = {
        "open": Evil(open, str(mark), "w"),
        "eval": Evil(eval, f"open({str(mark)!r}, 'w')"),
        "getattr": Evil(getattr, mark, "touch"),
        "torch.load": Evil(torch.load, str(mark)),
        "Path.write_text": Evil(Path.write_text, mark, "ran"),
    }[how]
    path = write_archive(tmp_path / "evil.pt", pickle.dumps({"x": evil}, protocol=2))
    assert is_torchscript(path)
    with pytest.raises(WeightsError, match="refused because it asks for"):
        read_torchscript(path)
    assert not mark.exists()


def tensor_pickle(size, stride, *, count=6, offset=0, kind="storage", key="0"):
    """A pickle of {"w": tensor} in the manner of TorchScript, sizes freely chosen."""

    class Storage:
        pass

    class Pickler(pickle.Pickler):
        def persistent_id(self, thing):
            return (kind, torch.FloatStorage, key, "cpu", count) if isinstance(thing, Storage) else None

    class Tensor:
        def __reduce__(self):
            return torch._utils._rebuild_tensor_v2, (Storage(), offset, size, stride, False, None)

    stream = io.BytesIO()
    Pickler(stream, protocol=2).dump(Tensor())
    # The tree of an archive is an object: GLOBAL, (), NEWOBJ, {"w": tensor}, BUILD.
    body = stream.getvalue()[2:-1]
    return b"\x80\x02c__torch__\nModel\n)\x81}X\x01\x00\x00\x00w" + body + b"sb."


SIX = torch.arange(6.0).numpy().tobytes()


def test_a_tensor_of_a_handmade_archive(tmp_path):
    path = write_archive(tmp_path / "made.pt", tensor_pickle((3, 2), (1, 3)), {"0": SIX})
    assert read_torchscript(path)["w"].tolist() == [[0, 3], [1, 4], [2, 5]]


@pytest.mark.parametrize(
    "options",
    [
        {"size": (7,), "stride": (1,)},
        {"size": (6,), "stride": (1,), "offset": 1},
        {"size": (6,), "stride": (1,), "offset": -1},
        {"size": (2,), "stride": (6,)},
        {"size": (10**12,), "stride": (0,)},
        {"size": (7,), "stride": (1,), "count": 7},
        {"size": (6,), "stride": (1,), "count": -6},
        {"size": (6,), "stride": (1,), "kind": "file"},
        {"size": (6,), "stride": (1,), "key": "1"},
        {"size": ("6",), "stride": (1,)},
    ],
    ids=str,
)
def test_tensors_beyond_their_storage_are_refused(tmp_path, options):
    path = write_archive(tmp_path / "made.pt", tensor_pickle(**options), {"0": SIX})
    with pytest.raises(WeightsError):
        read_torchscript(path)


def test_compressed_records_are_refused(tmp_path):
    data = tensor_pickle((6,), (1,))
    path = write_archive(tmp_path / "made.pt", data, {"0": SIX}, zipfile.ZIP_DEFLATED)
    with pytest.raises(WeightsError, match="refused"):
        read_torchscript(path)


def test_a_tree_that_contains_itself_is_an_error_not_a_hang(tmp_path):
    # An object whose attribute "w" is the object itself (memo 0).
    data = b"\x80\x02c__torch__\nModel\n)\x81q\x00}X\x01\x00\x00\x00wh\x00sb."
    with pytest.raises(WeightsError, match="damaged"):
        read_torchscript(write_archive(tmp_path / "loop.pt", data))


@pytest.mark.parametrize("data", [b"", b"\x80\x02", b"garbage", b"\x80\x02c__torch__\nModel\n"])
def test_damaged_pickles_are_refused(tmp_path, data):
    with pytest.raises(WeightsError):
        read_torchscript(write_archive(tmp_path / "bad.pt", data))


def test_a_flipped_byte_is_noticed(archive, tmp_path):
    raw = bytearray(archive.read_bytes())
    where = raw.find(torch.arange(6.0).half().numpy().tobytes())
    raw[where] ^= 1
    path = tmp_path / "flipped.pt"
    path.write_bytes(raw)
    with pytest.raises(WeightsError, match="damaged"):
        read_torchscript(path)
