"""Finding pictures behind files, folders and patterns."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blemish.errors import UsageError
from blemish.image_io import find_images, natural_key

FILES = [
    "10.png",
    "2.JPG",
    "1.tif",
    "notes.txt",
    ".hidden.png",
    "sub/3.png",
    "sub/deep/4.webp",
    ".cache/5.png",
    "x.dat",
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "above" / "below").mkdir(parents=True)
    for name in ("a.CR2", "b.CR2", "c.txt"):
        (tmp_path / "above" / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def found(*paths, **options):
    return [path.as_posix() for path in find_images(paths, **options)]


@pytest.mark.parametrize(
    ("paths", "recursive", "expected"),
    [
        (["."], False, ["1.tif", "2.JPG", "10.png"]),
        (["."], True, ["1.tif", "2.JPG", "10.png", "sub/3.png", "sub/deep/4.webp"]),
        (["sub", "."], False, ["sub/3.png", "1.tif", "2.JPG", "10.png"]),
        (["notes.txt"], False, ["notes.txt"]),
        ([".hidden.png"], False, [".hidden.png"]),
        ([".cache"], False, [".cache/5.png"]),
        (["*.png"], False, ["10.png"]),
        (["*"], False, ["1.tif", "2.JPG", "10.png"]),
        (["**"], False, ["1.tif", "2.JPG", "10.png", "sub/3.png", "sub/deep/4.webp"]),
        (["**/*.webp"], False, ["sub/deep/4.webp"]),
        (["*.dat"], False, ["x.dat"]),
        (["10.png", "./10.png", ".", "sub/../10.png"], False, ["10.png", "1.tif", "2.JPG"]),
        ([], False, []),
    ],
)
def test_what_is_found(folder, paths, recursive, expected):
    assert found(*paths, recursive=recursive) == expected


def test_one_path_need_not_be_in_a_list(folder):
    assert list(find_images("sub")) == [Path("sub/3.png")]
    assert list(find_images(folder / "sub")) == [folder / "sub/3.png"]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nowhere", "'nowhere' does not exist; check the path"),
        ("nowhere.png", "'nowhere.png' does not exist"),
        ("empty", "'empty' holds no pictures; give another folder"),
        ("above", r"'above' holds no pictures; 2 \.CR2 not read \(camera raw: .*search its subfolders \(recursive\)"),
        ("*.gif", r"no pictures match '\*\.gif'"),
        ("https://example.org/a.png", "does not fetch"),
    ],
)
def test_what_is_not_there_is_named(folder, path, message):
    with pytest.raises(UsageError, match=message):
        found(path)


def test_names_with_the_letters_of_patterns_are_files_first(folder):
    (folder / "a[1].png").touch()
    assert found("a[1].png") == ["a[1].png"]


def test_links(folder):
    (folder / "sub" / "round").symlink_to(folder)
    (folder / "sub" / "broken.png").symlink_to(folder / "gone")
    assert found("sub", recursive=True) == ["sub/3.png", "sub/broken.png", "sub/deep/4.webp"]


def test_a_folder_that_cannot_be_listed_is_named(folder, monkeypatch):
    def refuse(_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UsageError, match=r"cannot be listed \(Permission denied\)"):
        found(".")


@given(st.lists(st.text(), max_size=6))
def test_natural_order_is_total(names):
    backwards = names[::-1]
    assert sorted(names, key=natural_key) == sorted(backwards, key=natural_key)
    assert sorted(["b10", "b9", "B1", "²", "a"], key=natural_key) == ["a", "B1", "b9", "b10", "²"]
