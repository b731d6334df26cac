"""Parts of a batch side by side: the same numbers, in order, and nobody else's threads are touched."""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Iterator

import pytest
import torch

from blemish import concurrency
from blemish.clip import Backbone, Request, Tap

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def four_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("parts", "at_once"), [(0, 1), (1, 1), (2, 2), (3, 2), (4, 4), (9, 4)])
def test_divides_the_threads(parts: int, at_once: int) -> None:
    with torch.inference_mode():
        assert concurrency.num_workers(parts, CPU) == at_once


def test_leaves_gradients_autocast_and_gpus_alone() -> None:
    assert concurrency.num_workers(8, CPU) == 1
    with torch.inference_mode():
        assert concurrency.num_workers(8, torch.device("cuda")) == 1
        with torch.autocast("cpu", torch.bfloat16):
            assert concurrency.num_workers(8, CPU) == 1


def test_parts_meet_and_come_back_in_order() -> None:
    met = threading.Barrier(2, timeout=60)  # broken if one waits for the other to end

    def slow_first(part: int) -> tuple[int, int]:
        met.wait()
        time.sleep(0.05 * (part == 0))
        return part, torch.get_num_threads()

    with torch.inference_mode():
        assert concurrency.parallel_map(slow_first, range(4), 2) == [(part, 2) for part in range(4)]
    assert torch.get_num_threads() == 4
    later: list[int] = []
    thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert later == [4]


def test_an_error_comes_through() -> None:
    with torch.inference_mode(), pytest.raises(ZeroDivisionError):
        concurrency.parallel_map(lambda part: 1 // part, (1, 0), 2)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="there is no fork here")
def test_a_fork_has_threads_of_its_own() -> None:
    with torch.inference_mode():
        concurrency.parallel_map(abs, (1, 2), 2)
        child = multiprocessing.get_context("fork").Process(target=concurrency.parallel_map, args=(abs, (1, 2), 2))
        child.start()
    child.join(60)
    code = child.exitcode
    child.kill()
    assert code == 0


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_the_tower_says_the_same(backbone: Backbone, monkeypatch: pytest.MonkeyPatch, precision: torch.dtype) -> None:
    request = Request(frozenset({Tap(2), Tap(5, "value", 2)}), windows=(2,))
    pixels = torch.randn(5, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    seen: list[int] = []
    in_threads = concurrency.parallel_map
    monkeypatch.setattr(concurrency, "parallel_map", lambda f, parts, n: seen.append(n) or in_threads(f, parts, n))
    with torch.inference_mode():
        found = backbone.encode_image(pixels, request, precision=precision)
        assert max(seen) == 4
        monkeypatch.setattr(concurrency, "num_workers", lambda parts, device: 1)
        expected = backbone.encode_image(pixels, request, precision=precision)
    close = {"atol": 1e-5, "rtol": 1e-5} if precision == torch.float32 else {"atol": 0.02, "rtol": 0.02}
    for tap in request.taps:
        torch.testing.assert_close(found.taps[tap], expected.taps[tap], **close)
    torch.testing.assert_close(found.class_token, expected.class_token, **close)
    torch.testing.assert_close(found.windows[2], expected.windows[2], **close)
