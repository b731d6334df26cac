"""Reviewed pictures go back into a profile: a preview first, then the file, and the former one is kept."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from service_helpers import files, png, serving
from starlette.testclient import TestClient

from blemish.detector import AMONG_DEFECTS, AMONG_GOOD
from blemish.profile import read_profile
from blemish.serve import feedback
from blemish.serve.profiles import load_registry

Form = list[tuple[str, tuple[str, bytes, str]]]


@pytest.fixture
def file(profile_file: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(profile_file, tmp_path / "part.profile"))


@pytest.fixture
def own(file: Path, tiny_backbone: Path) -> Iterator[TestClient]:
    """A service with a profile that may be changed."""
    registry = load_registry([file], backbone=str(tiny_backbone), device="cpu", precision="float32")
    with serving(registry) as client:
        yield client


def reviewed(**seeds: int) -> Form:
    return [(field, (f"{field}.png", png(seed), "image/png")) for field, seed in seeds.items()]


def score(client: TestClient, seed: int) -> float:
    return float(client.post("/v1/detect", files=files(seed)).json()["results"][0]["score"])


def test_a_preview_changes_nothing_and_accepting_it_does(own: TestClient, file: Path) -> None:
    before, data = score(own, 1), file.read_bytes()
    places = [each["in_profile"] for each in own.post("/v1/detect", files=files(1, 2)).json()["results"]]
    assert places == [None, None]
    form = reviewed(false_alarm=1, missed=2, confirmed_good=3, confirmed_defect=4)
    answer = own.post("/v1/profiles/part/feedback", files=form)
    assert answer.status_code == 200, answer.text
    preview = answer.json()
    good = preview["before"]["good"]
    assert preview["after"]["good"] == good + 1
    assert (preview["before"]["known_defects"], preview["after"]["known_defects"]) == (0, 1)
    # The picture was chosen because of its score: the promise does not count on it.
    assert preview["after"]["threshold"] == preview["before"]["threshold"]
    rows = {row["review"]: row for row in preview["pictures"]}
    assert [row["name"] for row in preview["pictures"]] == [f"{field}.png" for field in feedback.FIELDS]
    alarm = rows["false_alarm"]
    assert alarm["score_before"] == pytest.approx(before, abs=1e-6)
    assert alarm["verdict_before"] == "reject"
    assert alarm["score_after"] < alarm["score_before"]
    assert alarm["verdict_after"] == "pass"
    assert alarm["score_without_itself"] == pytest.approx(alarm["score_before"], abs=1e-3)
    assert "score_without_itself" not in rows["missed"]
    assert "1 false alarm becomes a good picture and 1 missed picture is kept as known defect;" in preview["sentence"]
    assert alarm["notes_after"] == [AMONG_GOOD]
    assert rows["missed"]["notes_after"] == [AMONG_DEFECTS]
    for state in (preview["before"], preview["after"]):
        assert state["false_alarms"] == read_profile(file).guarantee["bound"]
        assert state["mask_threshold"] == read_profile(file).limits.mask_threshold
    assert score(own, 1) == before
    assert file.read_bytes() == data
    assert own.get("/v1/profiles").json()["profiles"][0]["good"] == good

    accepted = own.post(f"/v1/profiles/part/feedback/{preview['token']}")
    assert accepted.status_code == 200, accepted.text
    assert accepted.json()["former"] == "part.profile.1"
    assert (file.parent / "part.profile.1").read_bytes() == data
    assert score(own, 1) == pytest.approx(alarm["score_after"], abs=1e-6)
    (listed,) = own.get("/v1/profiles").json()["profiles"]
    assert listed["good"] == good + 1
    (defect,) = listed["known_defects"]
    assert defect["name"] == "missed.png"
    assert defect["score"] == pytest.approx(rows["missed"]["score_after"], abs=1e-6)
    stored = read_profile(file)
    assert len(stored.good) == good + 1
    assert stored.good[-1].selected
    places = [each["in_profile"] for each in own.post("/v1/detect", files=files(1, 2, 3)).json()["results"]]
    assert places == ["good", "known_defect", None]
    # The token has done its work.
    again = own.post(f"/v1/profiles/part/feedback/{preview['token']}")
    assert (again.status_code, again.json()["error"]["code"]) == (404, "unknown_token")


def test_the_good_pictures_of_a_whole_batch_move_the_threshold(own: TestClient, file: Path) -> None:
    form = reviewed(false_alarm=1, confirmed_good=3, confirmed_defect=4)
    preview = own.post("/v1/profiles/part/feedback?whole_batch=true", files=form).json()
    good = preview["before"]["good"]
    assert preview["after"]["good"] == good + 2
    assert preview["after"]["threshold"] != preview["before"]["threshold"]
    assert preview["sentence"].startswith(
        "The 2 good pictures join those that the promise rests on; the threshold moves"
    )
    rows = {row["review"]: row for row in preview["pictures"]}
    assert rows["confirmed_good"]["score_without_itself"] > rows["confirmed_good"]["score_after"]
    assert own.post(f"/v1/profiles/part/feedback/{preview['token']}").status_code == 200
    stored = read_profile(file)
    assert not any(entry.selected for entry in stored.good)
    assert stored.limits.threshold == preview["after"]["threshold"]
    # A picture that the profile has already joins no more.
    again = own.post("/v1/profiles/part/feedback?whole_batch=true", files=[*form, *reviewed(confirmed_good=5)]).json()
    assert again["sentence"].startswith("The 1 good picture joins those that the promise rests on;")
    batch = own.post("/v1/profiles/part/feedback?whole_batch=maybe", files=form)
    assert (batch.status_code, batch.json()["error"]["code"]) == (422, "bad_option")


def test_a_preview_that_is_too_old_or_no_longer_fits(
    own: TestClient, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def token() -> str:
        return str(own.post("/v1/profiles/part/feedback", files=reviewed(missed=2)).json()["token"])

    assert own.post("/v1/profiles/part/feedback/nonsense").status_code == 404
    # Another preview was accepted since.
    old, new = token(), token()
    assert own.post(f"/v1/profiles/part/feedback/{new}").status_code == 200
    assert own.post(f"/v1/profiles/part/feedback/{old}").json()["error"]["code"] == "changed"
    # Somebody else wrote the file.
    current = token()
    file.write_bytes(file.read_bytes() + b" ")
    data = file.read_bytes()
    assert own.post(f"/v1/profiles/part/feedback/{current}").status_code == 409
    assert file.read_bytes() == data
    with monkeypatch.context() as patch:
        patch.setattr(feedback, "LIFETIME", -1)
        old = token()
    assert own.post(f"/v1/profiles/part/feedback/{old}").status_code == 404
    monkeypatch.setattr(feedback, "_MAX_PENDING", 2)
    for _ in range(3):
        token()
    assert len(own.service.feedback._pending) == 2  # type: ignore[attr-defined]


def test_a_profile_that_cannot_be_written(own: TestClient, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token = own.post("/v1/profiles/part/feedback", files=reviewed(missed=2)).json()["token"]
    before = score(own, 1)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.replace", full)
        answer = own.post(f"/v1/profiles/part/feedback/{token}")
    assert answer.status_code == 503
    assert "the disk is full" in answer.json()["error"]["message"]
    assert score(own, 1) == before
    assert own.post(f"/v1/profiles/part/feedback/{token}").status_code == 200


def test_wrong_feedback(own: TestClient) -> None:
    def refused(status: int, code: str, form: Form, name: str = "part") -> str:
        answer = own.post(f"/v1/profiles/{name}/feedback", files=form)
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.text
        return str(answer.json()["error"]["message"])

    refused(404, "unknown_profile", reviewed(missed=1), "parts")
    assert "Nothing would change" in refused(422, "no_change", reviewed(confirmed_good=1))
    assert "did you mean missed" in refused(422, "bad_option", reviewed(misssed=1))
    broken: Form = [("missed", ("b.png", b"x", "image/png"))]
    assert "b.png: " in refused(422, "unreadable", broken)
    assert "known defect" in refused(422, "bad_option", reviewed(missed=1, false_alarm=1))
    assert own.post("/v1/profiles/part/feedback", content=b"x").status_code == 415
