"""Text to tokens and back, whole and one token at a time."""

import json

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from titans_seq.datamodules.language.tokenizers import ByteTokenizer, FileTokenizer, read_tokenizer, train_bpe

TEXT = "Grüße, 世界! 🙂\n\ttwo  blanks"


@pytest.fixture(params=["bytes", "byte pairs"])
def tokenizer(request):
    return ByteTokenizer() if request.param == "bytes" else train_bpe(["two blanks and two tanks " * 9], 280)


def test_text_comes_back(tokenizer):
    tokens = tokenizer.encode(TEXT)
    assert tokens.max() < tokenizer.vocabulary
    assert tokenizer.decode(tokens.tolist()) == TEXT


def test_text_comes_back_token_by_token(tokenizer):
    decode = tokenizer.decoder()
    parts = [decode(token) for token in tokenizer.encode(TEXT).tolist()]
    assert "".join(parts) == TEXT
    assert all("�" not in part for part in parts)


def test_bytes_that_are_no_text_are_shown():
    decode = ByteTokenizer().decoder()
    assert "".join(map(decode, b"a\xffb")) == "a�b"


def test_a_file(tokenizer, tmp_path):
    (tmp_path / "tokenizer.json").write_text(tokenizer.to_json())
    for place in (tmp_path, tmp_path / "tokenizer.json"):
        read = read_tokenizer(place)
        assert type(read) is type(tokenizer)
        assert read.encode(TEXT).tolist() == tokenizer.encode(TEXT).tolist()


def test_what_a_vocabulary_lacks():
    words = Tokenizer(models.WordLevel({"two": 0, "[UNK]": 1}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = FileTokenizer(words.to_str())
    assert tokenizer.encode("two two").tolist() == [0, 0]
    with pytest.raises(ValueError, match="the vocabulary lacks a part of the text"):
        tokenizer.encode("two three")
    letters = FileTokenizer(Tokenizer(models.BPE({"a": 0, "b": 1}, [])).to_str())
    with pytest.raises(ValueError, match="the vocabulary lacks a part of the text"):
        letters.encode("zzz")


def words(*known, **options):
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(known)}, **options))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return made


def test_truncation_and_padding_are_left_out():
    made = words("two", "one")
    made.enable_truncation(3)
    made.enable_padding(length=5)
    assert FileTokenizer(made.to_str()).encode("two one two one two two").tolist() == [0, 1, 0, 1, 0, 0]


@pytest.mark.parametrize(
    "model", [models.BPE({"a": 0, "b": 1}, []), models.Unigram([("<unk>", 0.0), ("a", -1.0), ("b", -2.0)], unk_id=0)]
)
def test_a_letter_that_is_left_out_within_a_text(model):
    tokenizer = FileTokenizer(Tokenizer(model).to_str())
    assert len(tokenizer.encode("abba")) == 4
    with pytest.raises(ValueError, match="the vocabulary lacks a part of the text"):
        tokenizer.encode("abzba")


def test_numbers_with_gaps_fit_the_vocabulary():
    made = Tokenizer(models.WordLevel({"a": 0, "b": 7}))
    assert FileTokenizer(made.to_str()).vocabulary == 8


def test_a_blank_before_the_first_drawn_word():
    tokenizer = FileTokenizer(words("the", "cat").to_str())
    decode = tokenizer.decoder(tokenizer.encode("the cat").tolist())
    assert [decode(0), decode(1)] == [" the", " cat"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no tokenizer at"),
        ("{", "holds no JSON"),
        ("{}", "has no model"),
        ('{"model": {"type": "BPE"}}', "does not read it"),
    ],
)
def test_files_that_are_no_tokenizers(tmp_path, text, message):
    if text is not None:
        (tmp_path / "tokenizer.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_tokenizer(tmp_path / "tokenizer.json")


def test_too_small_a_vocabulary():
    with pytest.raises(ValueError, match=r"must have 257 \(one more than bytes\) to 1,000,000 tokens; got 256"):
        train_bpe(["abc"], 256)


@pytest.mark.parametrize("number", [1_000_000, 2**31])
def test_tokens_beyond_the_largest_vocabulary_are_refused(number, tmp_path):
    definition = json.loads(train_bpe(["abc"], 257).to_json())
    definition["model"]["vocab"]["far"] = number
    (tmp_path / "tokenizer.json").write_text(json.dumps(definition))
    with pytest.raises(ValueError, match=r"tokenizer.json: its tokens must be below 1,000,000; got"):
        read_tokenizer(tmp_path)


def test_deep_nesting_is_no_tokenizer(tmp_path):
    (tmp_path / "tokenizer.json").write_text('{"model":' * 3000)
    with pytest.raises(ValueError, match="is not a tokenizer.json: it holds no JSON"):
        read_tokenizer(tmp_path)
