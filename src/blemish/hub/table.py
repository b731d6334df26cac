"""The published files in public git repositories, as data.

Names give the training data, since the authors' own names disagree: AnomalyCLIP's folder `9_12_4_multiscale_visa` is
for tests on VisA, APRIL-GAN's `visa_pretrained.pth` was trained on it. VCP-CLIP's files are in no git repository;
`blemish weights import` reads them, too.
"""

from __future__ import annotations

from dataclasses import dataclass

from blemish.methods import METHODS


@dataclass(frozen=True)
class Published:
    """One published file, pinned to its content."""

    name: str
    """Name that users type."""
    method: str
    trained_on: str
    repository: str
    """owner/name on GitHub."""
    commit: str
    path: str
    """Path in the repository."""
    blob: str
    """Git's id of the content: SHA-1 of "blob <size>", a zero byte, and the content."""

    @property
    def backbone(self) -> str:
        """Hub id of the backbone that it was trained on."""
        return METHODS[self.method].default_backbone

    @property
    def source(self) -> str:
        """Repository, path, commit and git blob id in one line."""
        return f"https://github.com/{self.repository} {self.path} at {self.commit} (git blob {self.blob})"


def _files(method: str, repository: str, commit: str, files: dict[str, tuple[str, str]]) -> dict[str, Published]:
    """Return the entries of one repository; `files` maps training data to path and blob id."""
    entries = {}
    for trained_on, (path, blob) in files.items():
        name = f"{method}-trained-on-{trained_on.split()[0].lower()}"
        entries[name] = Published(name, method, trained_on, repository, commit, path, blob)
    return entries


TABLE: dict[str, Published] = {
    **_files(
        "anomalyclip",
        "zqhang/AnomalyCLIP",
        "45ed4dd35c05797d854294b5e8d585c545920089",
        {
            "VisA": ("checkpoints/9_12_4_multiscale/epoch_15.pth", "c90f1d9d92d158b436a8fc193f984d4cec8b1fc8"),
            "MVTec AD": (
                "checkpoints/9_12_4_multiscale_visa/epoch_15.pth",
                "72adc786e031b49ea288ba5f815f0d38cf158708",
            ),
        },
    ),
    **_files(
        "april-gan",
        "ByChelsea/VAND-APRIL-GAN",
        "f13b8a634e04f9fde8fa03db125b25af5695d8e1",
        {
            "MVTec AD": ("exps/pretrained/mvtec_pretrained.pth", "a057cec6c2ba5996baa0160a51e155908156813f"),
            "VisA": ("exps/pretrained/visa_pretrained.pth", "86d6848c543f8393663d35c0333498ffb5ce9b68"),
        },
    ),
    **_files(
        "clip-ad-sdp-plus",
        "ByChelsea/CLIP-AD",
        "f004973a41344d8c0966934af0c01781989b80e3",
        {
            "MVTec AD": ("pretrained_models/train_on_mvtec.pth", "d9102b131ceb8d1d668fbf6bce4e6940eb02986c"),
            "VisA": ("pretrained_models/train_on_visa.pth", "854cc1034a1d49207f66b2ca20fd2c7aefbb75ca"),
        },
    ),
}
