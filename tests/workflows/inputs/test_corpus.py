"""Text for pretraining: documents and their pieces, what is held out, and files that cannot be read."""

import gzip
import zlib

import pytest
from huggingface_hub import constants

from orchestration.store.fingerprint_cache import FingerprintCache
from workflows.config.pretrain import Corpus
from workflows.errors import ConfigError
from workflows.inputs import corpus
from workflows.inputs.corpus import corpus_digests, corpus_files, is_held_out, pieces


def test_an_empty_line_ends_a_document(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("one\ntwo\n\n \nthree  \r\n", encoding="utf-8")
    assert list(pieces(path)) == ["one\ntwo", "three  "]


def test_indentation_stays(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("\n  def f(x):\n\treturn x\n", encoding="utf-8")
    assert list(pieces(path)) == ["  def f(x):\n\treturn x"]


def test_a_byte_order_mark_is_no_text(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("one\n\ntwo", encoding="utf-8-sig")
    assert list(pieces(path)) == ["one", "two"]


def test_a_long_document_is_cut_between_lines_and_nothing_is_lost(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus, "PIECE_CHARACTERS", 10)
    lines = [f"line {number}" for number in range(20)] + ["a line longer than a piece"]
    path = tmp_path / "a.txt"
    path.write_text("\n".join(lines), encoding="utf-8")
    found = list(pieces(path))
    assert "\n".join(found).split("\n") == lines
    assert all(len(piece) <= 10 for piece in found[:-1])


def test_packed_text_is_the_same_text(tmp_path):
    (tmp_path / "a.txt").write_text("one\n\nzwölf\n", encoding="utf-8")
    with gzip.open(tmp_path / "b.txt.gz", "wt", encoding="utf-8") as file:
        file.write("one\n\nzwölf\n")
    assert list(pieces(tmp_path / "a.txt")) == list(pieces(tmp_path / "b.txt.gz")) == ["one", "zwölf"]


def test_bytes_that_are_not_utf8_are_told_with_file_and_line(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"right\nwr\xffng\n")
    with pytest.raises(ConfigError, match=r"a\.txt: line 2: not UTF-8 text"):
        list(pieces(path))


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_text_of_another_encoding_is_told_by_its_nul_characters(tmp_path, encoding):
    """Without a byte order mark, plain UTF-16 is UTF-8 too, as bytes go."""
    path = tmp_path / "a.txt"
    path.write_bytes("plain\n".encode(encoding))
    with pytest.raises(ConfigError, match=r"a\.txt: line 1: found a NUL character, as in UTF-16"):
        list(pieces(path))


def test_a_gzip_file_with_a_flipped_bit_is_told(tmp_path):
    path, whole = tmp_path / "a.txt.gz", gzip.compress(bytes(range(32, 127)) * 400)
    told = set()
    for place in range(12, len(whole) - 8):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
        with pytest.raises(ConfigError, match=r"a\.txt\.gz: not a complete gzip file .* download it again") as caught:
            list(pieces(path))
        told.add(type(caught.value.__cause__))
    assert zlib.error in told


def test_a_gzip_file_that_was_cut_is_told(tmp_path):
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress(b"some text\n" * 1000)[:-12])
    with pytest.raises(ConfigError, match="not a complete gzip file"):
        list(pieces(path))


def test_patterns_name_files_once_and_in_order(tmp_path):
    for name in ("b.txt", "a.txt", "c.md"):
        (tmp_path / name).write_text("x")
    found = corpus_files(Corpus(files=("*.txt", "a.txt")), tmp_path)
    assert [path.name for path in found] == ["a.txt", "b.txt"]


def test_brackets_of_a_folders_or_a_files_own_name_are_no_pattern(tmp_path):
    base = tmp_path / "run[1]"
    base.mkdir()
    for name in ("a.txt", "b[2].txt", "b2.txt"):
        (base / name).write_text("x")
    assert [path.name for path in corpus_files(Corpus(files=("a*.txt",)), base)] == ["a.txt"]
    assert corpus_files(Corpus(files=("b[2].txt",)), base) == [base / "b[2].txt"]
    assert corpus_files(Corpus(files=("[b]2.txt",)), base) == [base / "b2.txt"]


def test_a_pattern_may_be_absolute_or_lead_below_folders(tmp_path):
    (tmp_path / "text" / "deep").mkdir(parents=True)
    (tmp_path / "text" / "deep" / "a.txt").write_text("x")
    base = tmp_path / "elsewhere"
    base.mkdir()
    for pattern in (f"{tmp_path}/text/*/a.txt", f"{tmp_path}/text/deep/a.txt", "../text/**/*.txt"):
        assert corpus_files(Corpus(files=(pattern,)), base) == [tmp_path / "text" / "deep" / "a.txt"]


def test_a_corpus_of_the_hub_that_cannot_be_had_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match="download the files, and name them without `hub`"):
        corpus_files(Corpus(hub="someone/texts", files=("a.txt",)), tmp_path)


def test_a_link_is_known_by_its_own_name_and_what_it_leads_to_is_read_once(tmp_path):
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "abc123").write_text("one\n")
    for name in ("b.txt", "a.txt"):
        (tmp_path / name).symlink_to("blobs/abc123")
    assert corpus_files(Corpus(files=("b.txt",)), tmp_path) == [tmp_path / "b.txt"]
    assert corpus_files(Corpus(files=("*.txt",)), tmp_path) == [tmp_path / "a.txt"]


@pytest.mark.parametrize(("pattern", "told"), [("*.txt", "no file matches"), ("c.md", "cannot be read as text")])
def test_files_that_are_not_there_or_not_text_are_told(tmp_path, pattern, told):
    (tmp_path / "c.md").write_text("x")
    with pytest.raises(ConfigError, match=told) as caught:
        corpus_files(Corpus(files=(pattern,)), tmp_path)
    assert caught.value.place == ("corpus", "files")


def test_a_corpus_is_known_by_content(tmp_path):
    for name, text in (("a.txt", "x"), ("b.txt", "x"), ("c.txt", "y")):
        (tmp_path / name).write_text(text)
    a, b, c = corpus_digests(
        [tmp_path / name for name in ("a.txt", "b.txt", "c.txt")], FingerprintCache(tmp_path / "facts.json")
    )
    assert a == b != c


def test_the_share_held_out_is_about_the_one_asked_for():
    held = sum(is_held_out(f"text {number}", 0.1) for number in range(5000))
    assert 400 < held < 600
