"""Text for pretraining: documents and their pieces, what is held out, and files that cannot be read."""

import gzip

import pytest

from orchestration.facts import Facts
from workflows import corpus
from workflows.corpus import corpus_digests, corpus_files, is_held_out, pieces
from workflows.errors import ConfigError
from workflows.pretrain_config import Corpus


def test_an_empty_line_ends_a_document(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("one\ntwo\n\n \nthree  \r\n", encoding="utf-8")
    assert list(pieces(path)) == ["one\ntwo", "three"]


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


def test_a_gzip_file_that_was_cut_is_told(tmp_path):
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress(b"some text\n" * 1000)[:-12])
    with pytest.raises(ConfigError, match="not a whole gzip file"):
        list(pieces(path))


def test_patterns_name_files_once_and_in_order(tmp_path):
    for name in ("b.txt", "a.txt", "c.md"):
        (tmp_path / name).write_text("x")
    found = corpus_files(Corpus(files=("*.txt", "a.txt")), tmp_path)
    assert [path.name for path in found] == ["a.txt", "b.txt"]


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
    a, b, c = corpus_digests([tmp_path / name for name in ("a.txt", "b.txt", "c.txt")], Facts(tmp_path / "facts.json"))
    assert a == b != c


def test_the_share_held_out_is_about_the_one_asked_for():
    held = sum(is_held_out(f"text {number}", 0.1) for number in range(5000))
    assert 400 < held < 600
