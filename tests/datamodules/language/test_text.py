"""Text in windows: parts, order, tokenizers, what is refused."""

import numpy as np
import pytest

from titans_seq.datamodules import DataError, TextData

TEXT = "".join(np.random.default_rng(0).choice(list("abcdefgh \n"), 2000))


@pytest.fixture
def data(tmp_path):
    def of(text=TEXT, **options):
        (tmp_path / "some.txt").write_text(text) if isinstance(text, str) else (tmp_path / "some.txt").write_bytes(text)
        made = TextData(str(tmp_path / "some.txt"), **{"length": 16, "batch_size": 4} | options)
        made.setup()
        return made

    return of


def text_of(tokens):
    return bytes(tokens.tolist()).decode()


def windows(loader, epoch=0):
    if hasattr(loader.sampler, "set_epoch"):
        loader.sampler.set_epoch(epoch)
    return [
        (text_of(a), text_of(b)) for batch in loader for a, b in zip(batch["tokens"], batch["targets"], strict=True)
    ]


def test_parts_are_cut_in_order(data):
    made = data()
    assert text_of(np.concatenate([made.splits[name] for name in ("train", "val", "test")])) == TEXT
    assert [len(made.splits[name]) for name in ("train", "val", "test")] == [1800, 100, 100]


def test_targets_follow_tokens(data):
    made = data()
    for loader in (made.train_dataloader(), made.val_dataloader(), made.test_dataloader()):
        for tokens, targets in windows(loader):
            assert len(tokens) == 16 and tokens[1:] == targets[:-1]


def test_validation_windows_cover_the_part_once(data):
    made = data()
    read = windows(made.val_dataloader())
    assert "".join(tokens for tokens, _ in read) == TEXT[1800:1896]
    assert "".join(targets for _, targets in read) == TEXT[1801:1897]


def test_training_windows_are_of_the_training_part_and_begin_anywhere(data):
    loader = data(steps_per_epoch=50).train_dataloader()
    read = windows(loader)
    assert len(read) == 200
    places = [TEXT[:1800].find(tokens + targets[-1]) for tokens, targets in read]
    assert min(places) >= 0 and len({place % 16 for place in places}) == 16
    assert windows(loader) == read != windows(loader, 1)
    assert windows(data(steps_per_epoch=50, seed=1).train_dataloader()) != read


def test_the_last_window_can_be_drawn(data):
    loader = data(steps_per_epoch=3000).train_dataloader()
    drawn = set(loader.sampler)
    assert (min(drawn), max(drawn)) == (0, 1800 - 17)


def test_an_epoch_covers_the_text_by_default(data):
    assert len(data().train_dataloader()) == -(-(1799 // 16) // 4)


def test_the_whole_file_as_test(data):
    made = data(whole=True)
    assert list(made.splits) == ["test"] and text_of(made.splits["test"]) == TEXT


def test_byte_pairs_are_learned_from_the_training_part(data):
    made = data("ab ab ab " * 200 + "xyz xyz xyz xyz " * 20, vocab_size=260, length=4)
    assert made.tokenizer_.vocabulary <= 260
    assert made.tokenizer_.decode(made.splits["test"].tolist()) == ("ab ab ab " * 200 + "xyz xyz xyz xyz " * 20)[-106:]
    assert made.bytes_per_token == pytest.approx(106 / len(made.splits["test"]))
    assert len(made.tokenizer_.encode("ab ab")) < len(made.tokenizer_.encode("xyz x"))


def test_streams_read_the_text_on(data):
    """Every window once but for the remainder, each row in stretches of at most three in a row."""
    made = data(carry=3, batch_size=5)
    loader = made.train_dataloader()

    def rows(epoch):
        loader.batch_sampler.sampler.set_epoch(epoch)
        read = [[] for _ in range(5)]
        for step, batch in enumerate(loader):
            for row, carried, tokens, targets in zip(
                read, batch["carried"], batch["tokens"], batch["targets"], strict=True
            ):
                assert text_of(tokens)[1:] == text_of(targets)[:-1]
                assert step or not carried
                row.append(row.pop() + text_of(tokens) if carried else text_of(tokens))
        return read

    read = rows(0)
    assert rows(0) == read != rows(1)
    stretches = [stretch for row in read for stretch in row]
    assert all(stretch in TEXT[:1800] and len(stretch) <= 48 for stretch in stretches)
    assert sum(map(len, stretches)) == (1799 // 16) // 5 * 5 * 16
    assert len({TEXT.index(stretch) for stretch in stretches}) == len(stretches)
    assert {len(stretch) for stretch in stretches} == {16, 32, 48}


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("", {}, "some.txt is empty"),
        (" \n", {}, "some.txt is empty"),
        (b"abc\xff", {}, "some.txt is not UTF-8 text: it holds the byte 0xff; convert it with iconv"),
        ("short text", {}, "the train split has 9 tokens, too few for a window of 16"),
        (TEXT, {"length": 100}, "the val split has 100 tokens, too few for a window of 100"),
        (TEXT, {"length": 0}, "length must be at least 1; got 0"),
        (TEXT, {"steps_per_epoch": 0}, "steps_per_epoch must be at least 1; got 0"),
        (TEXT, {"carry": 0}, "carry must be at least 1; got 0"),
        (TEXT, {"carry": 2, "steps_per_epoch": 3}, "leave steps_per_epoch out"),
        (TEXT, {"carry": 2, "batch_size": 200}, "batch_size is 200, but there are 112 windows; make one smaller"),
        (TEXT, {"vocab_size": 100}, "must have 257"),
        (TEXT, {"tokenizer": "none.json"}, "no tokenizer at none.json"),
        (TEXT, {"tokenizer": "none.json", "vocab_size": 300}, "not both"),
        (TEXT, {"seed": -1}, "seed must be at least 0; got -1"),
    ],
)
def test_texts_that_cannot_be_read(data, text, options, message):
    with pytest.raises(DataError, match=message) as error:
        data(text, **options)
    assert "\n" not in str(error.value)
