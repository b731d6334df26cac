"""What logs never hold: keys, and contents of pictures."""

from __future__ import annotations

import base64
import logging
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from service_helpers import listening

from blemish.serve.options import ServeOptions
from blemish.serve.profiles import Registry
from helpers import save_picture

KEY, TOKEN = "key-7f3a9c", "token-51d2e8"


def post(port: int, data: bytes, key: str) -> int:
    address = f"http://127.0.0.1:{port}/v1/detect"
    headers = {"Content-Type": "image/png", "Authorization": f"Bearer {key}"}
    try:
        with urllib.request.urlopen(urllib.request.Request(address, data, headers), timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def test_neither_keys_nor_pictures(
    registry: Registry, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = save_picture(tmp_path / "a.png").read_bytes()
    caplog.set_level(logging.DEBUG)
    webhook = f"http://127.0.0.1:9/hook?key={TOKEN}"
    with listening(registry, api_key=KEY, webhook=webhook, access_log=True) as (service, port):
        assert post(port, picture, KEY) == 200
        assert post(port, picture, f"wrong{KEY}") == 401
        assert post(port, picture[:60] + b"CONTENT-OF-PICTURE", KEY) == 422
        monkeypatch.setattr(service, "detect", None)  # a bug of ours, which is logged with its trace
        assert post(port, picture, KEY) == 500
    captured = capfd.readouterr()
    logs = caplog.text + captured.out + captured.err
    assert "Traceback" in logs
    assert "/v1/detect" in logs
    assert "The webhook did not take" in logs
    pixels = base64.b64encode(picture).decode()
    for secret in (KEY, TOKEN, "CONTENT-OF-PICTURE", pixels[100:140], repr(picture[100:130])[2:-1]):
        assert secret not in logs


def test_a_representation_holds_no_key() -> None:
    options = ServeOptions(api_key=KEY, webhook=f"http://line.example/{TOKEN}")
    assert KEY not in repr(options)
    assert TOKEN not in repr(options)
