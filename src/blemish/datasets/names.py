"""What the names of files and folders say: one table of words, and the few rules that read names with it."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, TypeAlias

Role: TypeAlias = Literal["normal", "anomalous", "train", "validation", "test", "masks", "pictures", "results", "aside"]

VOCABULARY: dict[Role, str] = {
    "normal": (
        "good goods ok okay normal normals fine io pass passed clean intact healthy flawless undamaged accept "
        "accepted conform conforming conforme conformes defectfree nodefect nodefects withoutdefect "
        "withoutdefects nondefect nondefective notdefective noanomaly noanomalies nonanomalous notdamaged "
        "nodamage notbad gut gutteil gutteile inordnung fehlerfrei bon bons bonne bonnes sain sains bueno "
        "buenos buena buenas buono buoni buona buone bom boa boas goed goede dobry dobre dobra saglam iyi "
        "норма норм нормальные годен годные хорошие 正常 正常品 良品 良好 合格 合格品 정상 양품 양호"
    ),
    "anomalous": (
        "bad bads ng nok ko nio nogood notgood ungood notok defect defects defective defectives defected "
        "anomaly anomalies anomalous anomal abnormal abnormals abnormality abnormalities notnormal nonnormal "
        "unnormal fault faults faulty flaw flaws flawed damage damages damaged reject rejects rejected "
        "notpassed fail fails failed failure failures scrap outlier outliers nonconform nonconforming "
        "nonconformity nonconforme notconforming unhealthy notclean schlecht schlechtteil schlechtteile "
        "defekt defekte fehler fehlerhaft fehlerhafte ausschuss anomalie anomalien nichtinordnung nichtok "
        "mauvais mauvaise defaut defauts defectueux defectueuse anormal anormaux malo malos mala malas "
        "defecto defectos defectuoso defectuosos anomalia anomalias anomalo anomalos difetto difetti "
        "difettoso difettosi difettosa difettose scarto scarti ruim ruins defeito defeitos defeituoso "
        "defeituosos slecht slechte wada wady wadliwe wadliwy hatali kusurlu bozuk брак бракованные дефект "
        "дефекты дефектные аномалия аномалии "
        "异常 異常 不良 不良品 缺陷 缺陷品 欠陥 欠陥品 瑕疵 次品 不合格 不合格品 불량 불량품 이상 비정상 결함"
    ),
    "train": "train training trains trn 训练 訓練 학습 обучение",
    "validation": "validation val valid validate dev 验证 検証 검증",
    "test": "test testing tests tst 测试 テスト 테스트 тест",
    "masks": (
        "mask masks gt gts groundtruth groundtruths label labels anno annos annotation annotations seg segs "
        "segmask segmasks segmentation segmentations segmentationmask segmentationmasks pixelmask pixelmasks "
        "pixellabel pixellabels anomalymask anomalymasks defectmask defectmasks binarymask binarymasks gtmask "
        "gtmasks labelmask maske masken masque masques mascara mascaras maschera maschere маска маски "
        "разметка 掩码 掩膜 标注 标签 真值 マスク 마스크 라벨"
    ),
    "pictures": (
        "image images img imgs picture pictures pic pics photo photos jpegimages rgb bild bilder foto fotos "
        "图片 图像 画像 이미지"
    ),
    "results": ("result results output outputs prediction predictions pred preds heatmap heatmaps overlay overlays"),
    "aside": (
        "old backup backups bak archive archives archived copy copies kopie kopien trash tmp temp thumbs thumbnail "
        "thumbnails preview previews unused ignore ignored excluded deleted"
    ),
}
"""Words by what they say, without case, accents, blanks, dashes and underscores."""

_FILLERS = (
    "image images img imgs picture pictures pic pics photo photos bild bilder foto fotos sample samples part parts "
    "piece pieces product products item items case cases class folder set data dataset only teil teile"
)
FILLERS = frozenset(_FILLERS.split())
"""Words that change nothing beside another: "good parts" is "good"."""

TELLING = frozenset("good ok okay normal io 正常 良品 合格 정상 양품".split())  # noqa: SIM905
"""Words that make a name normal even among others ("lid_good"); "fine" does not ("fine scratch")."""

RESULTS = frozenset(("result", "results", "prediction", "predictions", "pred", "preds", "heatmap", "heatmaps"))
"""Words that make a folder one of results if its name begins with them ("results_2024")."""

SYSTEM_FILES = frozenset(("desktop.ini", "thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "icon\r"))
SYSTEM_FOLDERS = frozenset(
    ("__macosx", "$recycle.bin", "system volume information", "@eadir", "#recycle", "@recycle", "lost+found")
)


def _plain(word: str) -> str:
    decomposed = unicodedata.normalize("NFKD", word.casefold())
    if any("\u0300" <= mark <= "\u036f" for mark in decomposed):
        decomposed = "".join(mark for mark in decomposed if not "\u0300" <= mark <= "\u036f")
    return decomposed


_ROLE_OF: dict[str, Role] = {_plain(word): role for role, text in VOCABULARY.items() for word in text.split()}
_COPY_WORD = "copy|kopie|copie|copia|kopia|cópia|old|backup|bak|副本|コピー|복사본"
_COPY_END = re.compile(rf"^(.+?)(?:[\s_.-]+|\s*\()(?:{_COPY_WORD})\)?(?:[\s_-]*\(?\d+\)?)?$", re.IGNORECASE)
_COPY_START = re.compile(
    r"^(?:(?:copy of|kopie von|copie de|copia de|cópia de)\s|(?:old|backup|bak)[\s_-])\s*(.+?)(?:\s*\(\d+\))?$",
    re.IGNORECASE,
)
_COPY_NUMBER = re.compile(r"^(.+?)\s*\(\d+\)$")


def same(name: str) -> str:
    """Return a key under which names are the same: whatever their Unicode form, case, and kind of blanks and dashes."""
    return re.sub(r"[\s_-]+", "_", unicodedata.normalize("NFC", name).casefold())


@lru_cache(maxsize=65536)
def tokens(name: str) -> tuple[str | int, ...]:
    """Return the words and numbers of a name, without case and accents: "GroundTruth_007" is (ground, truth, 7)."""
    text = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", unicodedata.normalize("NFC", name))
    parts = re.findall(r"\d+|[^\W\d_]+", text)
    return tuple(int(word) if word.isdecimal() else _plain(word) for word in parts)


@lru_cache(maxsize=4096)
def role(name: str) -> Role | None:
    """Return what the name of a folder says, whatever its case and spelling; None if it says nothing."""
    words = [word for word in tokens(name) if isinstance(word, str)]
    if words and all(_ROLE_OF.get(word) == "aside" for word in words):
        return "aside"
    if words and words[0] in RESULTS:
        return "results"
    telling = [word for word in words if word not in FILLERS]
    return _ROLE_OF.get("".join(telling or words))


@lru_cache(maxsize=65536)
def label_of(name: str) -> int | None:
    """Return the label that the words of a name say: 1 for "defect_002", 0 for "lid good"; None if none or both.

    Words that belong together are read together: "not_ok_3" and "no defect 4".
    """
    words = [word for word in tokens(name) if isinstance(word, str)]
    labels: set[int] = set()
    start = 0
    while start < len(words):
        for end in range(min(len(words), start + 3), start, -1):
            word = "".join(words[start:end])
            kind = _ROLE_OF.get(word)
            if kind == "anomalous" or (kind == "normal" and (end > start + 1 or word in TELLING)):
                labels.add(int(kind == "anomalous"))
                start = end
                break
        else:
            start += 1
    return labels.pop() if len(labels) == 1 else None


def without_mask_words(name: str) -> tuple[str | int, ...] | None:
    """Return the tokens of a name before or after a word for masks; None if it neither starts nor ends with such."""
    own = tokens(name)
    for count in (3, 2, 1):
        for word, rest in ((own[-count:], own[:-count]), (own[:count], own[count:])):
            letters = len(word) == count and all(isinstance(word, str) for word in word)
            if letters and _ROLE_OF.get("".join(map(str, word))) == "masks":
                return rest
    return None


def are_masks(name: str) -> bool:
    """Return whether a name with a word for masks and one for a label or split means masks: not "bad label"."""
    rest = without_mask_words(name)
    meaning = role(" ".join(map(str, rest or ())))
    return meaning in ("normal", "anomalous", "train", "validation", "test") and "label" not in tokens(name)


def split_and_label(name: str) -> tuple[str, str]:
    """Return the split and the label's word of a name that says both ("test_good"); "" and "" for all others."""
    words = [str(word) for word in tokens(name)]
    for split, rest in ((words[:1], words[1:]), (words[-1:], words[:-1])):
        label = " ".join(rest)
        if role("".join(split)) in ("train", "validation", "test") and role(label) in ("normal", "anomalous"):
            return str(role("".join(split))), label
    return "", ""


def without_fillers(name: str | Sequence[str | int]) -> tuple[str | int, ...]:
    """Return the tokens of a name that say something: ("ng",) of "NG images"."""
    own = tokens(name) if isinstance(name, str) else name
    return tuple(token for token in own if token not in FILLERS)


def without_picture_words(own: Sequence[str | int]) -> tuple[str | int, ...]:
    """Return tokens without words for pictures: "image3" is (3,)."""
    return tuple(word for word in own if isinstance(word, int) or _ROLE_OF.get(word) != "pictures")


def system_file(name: str) -> bool:
    """Return whether an operating system or an editor left a file, or it is hidden."""
    return name.startswith((".", "~$")) or name.casefold() in SYSTEM_FILES


def system_folder(name: str) -> bool:
    """Return whether a folder belongs to an operating system, or is hidden."""
    return name.startswith(".") or name.casefold() in SYSTEM_FOLDERS


def original_of(name: str) -> tuple[str, bool] | None:
    """Return what a name says it is a copy of ("0 - Copy", "test_old", "0 (1)"), and whether a word says so."""
    for pattern in (_COPY_START, _COPY_END):
        if match := pattern.match(name):
            return match[1], True
    match = _COPY_NUMBER.match(name)
    return (match[1], False) if match else None
