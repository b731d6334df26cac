"""Tokenizers: CLIP's own from its merges, those of folders, those of transformers."""

from __future__ import annotations

import json

import pytest
import torch
from tokenizers import Tokenizer

from blemish.clip import Backbone
from blemish.clip.tokenizer import as_text_tokenizer, clip_merges, clip_tokenizer, read_tokenizer
from blemish.errors import UsageError, WeightsError

#: Numbers that OpenAI's tokenizer gives, start and end left out.
KNOWN = {
    "a photo of a cat": [320, 1125, 539, 320, 2368],
    "X X object.": [343, 343, 14115, 269],
    "a damaged metal_nut": [320, 13568, 4044, 318, 6491],
    "": [],
}
STRANGE = [
    "It's  METAL_nut\n#12 don't we'll",
    "Ünïcödé 日本語 🎉 naïve",
    "<|endoftext|> hi <|startoftext|>",
    "   ",
    "1234 3.14 foo-bar/baz",
    "aaaaaaaaaaaaaaaaaaaaaaaa",
    "e\u0301 ¡™ ½ \u00a0 x \u2028 y",
    "ＡＢＣ ß İ",
]


@pytest.fixture(scope="module")
def own():
    return clip_tokenizer()


def test_known_numbers(own):
    for text, ids in KNOWN.items():
        row = own.encode([text], 12)[0].tolist()
        assert row == [49406, *ids, 49407] + [0] * (10 - len(ids))
    assert own.eos == 49407
    assert own.encode(["a"], 5).dtype == torch.int64


def test_the_vocabulary_is_clips(own):
    vocabulary = own.backend.get_vocab()
    assert len(vocabulary) == 49408
    assert sorted(vocabulary.values()) == list(range(49408))
    assert len(clip_merges()) == 48894
    assert [vocabulary[token] for token in ("!", "!</w>", "in", "<|startoftext|>", "<|endoftext|>")] == [
        0,
        256,
        512,
        49406,
        49407,
    ]


def test_it_is_the_tokenizer_of_transformers(own):
    from transformers import CLIPTokenizer

    theirs = CLIPTokenizer(vocab=own.backend.get_vocab(), merges=clip_merges())
    mine = json.loads(own.backend.to_str())
    other = json.loads(theirs.backend_tokenizer.to_str())
    for part in ("normalizer", "pre_tokenizer", "post_processor", "model"):
        assert mine[part] == other[part], part
    for text in [*KNOWN, *STRANGE]:
        assert own.backend.encode(text).ids == theirs(text)["input_ids"], text


def test_a_tokenizer_of_transformers_is_copied_not_changed(own, backbone):
    from transformers import CLIPTokenizer

    theirs = CLIPTokenizer(vocab=own.backend.get_vocab(), merges=clip_merges())
    theirs(["a", "a b c"], padding=True, truncation=True, max_length=4)
    before = theirs.backend_tokenizer.to_str()
    mine = Backbone(backbone.model, theirs)
    assert torch.equal(mine.tokenize([*KNOWN]), backbone.tokenize([*KNOWN]))
    assert theirs.backend_tokenizer.to_str() == before


def test_a_text_tokenizer_is_taken_as_it_is(own):
    assert as_text_tokenizer(own) is own


def test_long_sentences_are_refused_not_cut(backbone):
    with pytest.raises(UsageError, match="25 tokens"):
        backbone.tokenize(["a", "a " * 23])
    assert backbone.tokenize(["a " * 22]).shape == (1, 24)


def test_vocabulary_and_merges_of_a_folder(own, tmp_path):
    (tmp_path / "vocab.json").write_text(json.dumps(own.backend.get_vocab()), encoding="utf-8")
    lines = ["#version: 0.2", *(f"{left} {right}" for left, right in clip_merges())]
    (tmp_path / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    found = read_tokenizer(tmp_path)
    assert found.eos == 49407
    for text in [*KNOWN, *STRANGE]:
        assert found.backend.encode(text).ids == own.backend.encode(text).ids, text


def test_tokenizer_json_of_a_folder(own, tmp_path):
    backend = Tokenizer.from_str(own.backend.to_str())
    backend.enable_padding(length=9)
    backend.enable_truncation(3)
    backend.save(str(tmp_path / "tokenizer.json"))
    found = read_tokenizer(tmp_path)
    assert found.encode(["a photo of a cat"], 9)[0].tolist() == [49406, *KNOWN["a photo of a cat"], 49407, 0, 0]


def small_tokenizer(folder, end="</s>", *, added=True):
    from tokenizers import models, pre_tokenizers, processors

    backend = Tokenizer(models.WordLevel({"[UNK]": 0, "<s>": 1, end: 2, "a": 3, "b": 4}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    if added:
        backend.post_processor = processors.TemplateProcessing(
            single=f"<s> $A {end}", special_tokens=[("<s>", 1), (end, 2)]
        )
    backend.save(str(folder / "tokenizer.json"))


@pytest.mark.parametrize("named", ["</s>", {"content": "</s>"}])
def test_the_end_token_is_the_one_that_the_folder_names(tmp_path, named):
    small_tokenizer(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": named}))
    assert read_tokenizer(tmp_path, model_eos=4).eos == 2


def test_the_end_token_may_come_from_the_model(tmp_path):
    small_tokenizer(tmp_path)
    assert read_tokenizer(tmp_path, model_eos=2).eos == 2


def test_a_folder_without_a_tokenizer(tmp_path):
    assert read_tokenizer(tmp_path) is None


def test_a_tokenizer_that_does_not_end_sentences_is_refused(tmp_path):
    small_tokenizer(tmp_path, added=False)
    with pytest.raises(WeightsError, match="end-of-text"):
        read_tokenizer(tmp_path, model_eos=2)


@pytest.mark.parametrize("file", ["tokenizer.json", "tokenizer_config.json"])
def test_damaged_files_are_refused(tmp_path, file):
    small_tokenizer(tmp_path)
    (tmp_path / file).write_text('{"model": ')
    with pytest.raises(WeightsError, match=file):
        read_tokenizer(tmp_path, model_eos=2)
