"""A bucket: what is made once stays; whatever a server refuses is one clear error."""

import sys
import threading

import pytest

from orchestration.errors import StoreError
from orchestration.store import s3
from orchestration.store.artifacts import existing_store, open_store
from orchestration.store.object_store import parse
from orchestration.store.transfers import transfers_reported
from tests.s3_server import SECRET, refusal


@pytest.fixture
def opened(bucket):
    return parse(f"s3://{bucket}/a/b").opened("version", None)[0]


@pytest.fixture
def file(tmp_path):
    def make(content: bytes):
        path = tmp_path / f"{len(content)}-{content[:1].hex()}"
        path.write_bytes(content)
        return path

    return make


def test_an_object_is_made_once_and_stays(opened, file):
    assert opened.create("x/one", file(b"first"))
    assert not opened.create("x/one", file(b"second"))
    assert opened.get("x/one") == b"first"
    assert opened.get("x/two") is None
    assert opened.find("x/two") is None
    assert opened.find("x/one").bytes == 5


def test_of_writers_at_the_same_time_one_wins(opened, file, server):
    paths = [file(bytes([number]) * (number + 1)) for number in range(12)]
    won = []
    threads = [threading.Thread(target=lambda p=path: won.append((opened.create("x/one", p), p))) for path in paths]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = [path for first, path in won if first]
    assert opened.get("x/one") == winner.read_bytes()


def test_keys_are_below_the_prefix_and_removed_by_name(opened, file, server, bucket):
    for key in ("x/1/a", "x/2/b", "y"):
        opened.put(key, file(key.encode()))
    assert set(server.objects(bucket)) == {"a/b/x/1/a", "a/b/x/2/b", "a/b/y"}
    assert {key: entry.bytes for key, entry in opened.listing("x/").items()} == {"x/1/a": 5, "x/2/b": 5}
    assert opened.folders() == ["x"]
    opened.delete(["x/1/a", "not/there"])
    assert set(opened.listing()) == {"x/2/b", "y"}


@pytest.mark.parametrize("code", ["MissingContentMD5", "InvalidRequest", "NotImplemented"])
def test_where_the_server_refuses_to_remove_many_at_once_they_go_one_by_one(opened, file, server, code):
    """Some ask for a Content-MD5 there, and others do not know the request at all."""
    for key in ("x/1", "x/2", "y"):
        opened.put(key, file(key.encode()))
    server.before = lambda request: refusal(400, code) if request.method == "POST" else None
    opened.delete(["x/1", "x/2", "not/there"])
    assert set(opened.listing()) == {"y"}


def test_what_may_not_be_removed_is_told(opened, file, server):
    opened.put("y", file(b"y"))
    server.before = lambda request: refusal(403, "AccessDenied") if request.method in ("POST", "DELETE") else None
    with pytest.raises(StoreError, match=r"cannot be written \(AccessDenied\)"):
        opened.delete(["y"])


@pytest.mark.parametrize(
    ("name", "value"), [("AWS_PROFILE", "nope"), ("AWS_CONFIG_FILE", "broken"), ("AWS_DEFAULT_REGION", "no region")]
)
def test_settings_of_the_aws_tools_that_cannot_be_used_are_told(bucket, monkeypatch, tmp_path, name, value):
    (tmp_path / "broken").write_text("no section here")
    monkeypatch.setenv("VOCABSEM_CACHE", str(tmp_path))
    monkeypatch.setenv(name, str(tmp_path / value) if value == "broken" else value)
    s3._client.cache_clear()
    with pytest.raises(StoreError, match=r"the settings of the AWS tools .* look at \$AWS_PROFILE"):
        open_store(f"s3://{bucket}/x")
    s3._client.cache_clear()


def test_a_listing_of_many_pages_is_whole(opened, file, server, monkeypatch):
    for number in range(7):
        opened.put(f"x/{number}", file(b"-"))
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "2")
    asked = len(server.asked)
    assert len(opened.listing("x/")) == 7
    assert len(server.asked) - asked == 4


def test_a_large_file_goes_in_parts_once_and_leaves_none_behind(opened, file, server, bucket, monkeypatch, tmp_path):
    monkeypatch.setattr(s3, "_PART_BYTES", 5 << 20)
    large = file(b"a" * (11 << 20))
    assert opened.create("x/large", large)
    assert opened.download("x/large", tmp_path / "back", large.stat().st_size)
    assert (tmp_path / "back").read_bytes() == large.read_bytes()
    asked = len(server.asked)
    assert not opened.create("x/large", file(b"b" * (12 << 20)))
    assert len(server.asked) - asked == 1, "it looked before it sent"
    monkeypatch.setattr(type(opened), "find", lambda *_: None)  # another wins while this one sends
    assert not opened.create("x/large", file(b"b" * (12 << 20)))
    assert opened.get("x/large") == large.read_bytes()
    assert not server.client.list_multipart_uploads(Bucket=bucket).get("Uploads")


def test_a_large_transfer_says_how_far_it_is(opened, file, monkeypatch, tmp_path):
    monkeypatch.setattr(s3, "_PART_BYTES", 5 << 20)
    large, said = file(b"a" * (11 << 20)), []
    with transfers_reported(said.append):
        opened.create("x/large", large)
        uploaded = list(said)
        opened.download("x/large", tmp_path / "back", 11 << 20)
    assert uploaded == [f"uploading large: {done} of 12 MB" for done in (5, 10, 12)] + [""]
    assert said[4] == "downloading back: 0 of 12 MB"
    assert said[-2:] == ["downloading back: 12 of 12 MB", ""]
    opened.download("x/large", tmp_path / "back", 11 << 20)
    assert said.count("") == 2, "nobody watches any longer"


def test_an_unfinished_put_of_anothers_is_waited_for(opened, file, server, monkeypatch):
    answers = [refusal(409, "ConditionalRequestConflict"), None]
    server.before = lambda request: answers.pop(0) if request.method == "PUT" else None
    assert opened.create("x/one", file(b"first"))
    assert answers == []


@pytest.mark.parametrize("answer", ["ignores", "refuses"])
def test_a_server_without_conditional_puts_is_found_out(server, bucket, file, answer):
    def before(request):
        if request.environ.pop("HTTP_IF_NONE_MATCH", None) and answer == "refuses":
            return refusal(501, "NotImplemented")
        return None

    server.before = before
    for _ in range(2):
        opened, found = parse(f"s3://{bucket}").opened("version", file(b"1"))
        assert (opened.conditional, found) == (False, b"1")
    assert opened.create("x/one", file(b"first"))
    assert not opened.create("x/one", file(b"second!"))
    assert opened.get("x/one") == b"first"


def test_without_conditional_puts_an_object_made_while_parts_are_sent_stays(server, bucket, file, monkeypatch):
    """The put that completes an upload in parts has no condition there: it would replace what another made."""
    monkeypatch.setattr(s3, "_PART_BYTES", 5 << 20)
    opened = s3.Bucket(bucket, "", conditional=False)
    large, small = file(b"b" * (6 << 20)), file(b"first")

    def another_wins(request):
        if request.method == "PUT" and "partNumber=2" in request.query_string.decode():
            server.before = None
            assert opened.create("x/large", small)

    server.before = another_wins
    assert not opened.create("x/large", large)
    assert opened.get("x/large") == b"first"
    assert not server.client.list_multipart_uploads(Bucket=bucket).get("Uploads")
    opened.delete(["x/large"])
    assert opened.create("x/large", large)
    assert opened.get("x/large") == large.read_bytes()


def test_a_server_with_conditional_puts_is_known(bucket, file):
    for _ in range(2):
        opened, found = parse(f"s3://{bucket}").opened("version", file(b"1"))
        assert (opened.conditional, found) == (True, b"1")


@pytest.mark.parametrize(
    "url", ["s3://", "s3://B", "s3://ab", "s3://bucket/../x", "s3://bucket/a//b", "s3://bucket/a b"]
)
def test_a_malformed_address_is_told(url):
    with pytest.raises(StoreError, match="expected s3://bucket/prefix"):
        open_store(url)


def test_an_address_with_a_secret_is_not_shown():
    with pytest.raises(StoreError) as error:
        open_store(f"s3://key:{SECRET}@bucket/x")
    assert SECRET not in str(error.value)


def test_an_address_of_another_kind_is_told():
    with pytest.raises(StoreError, match="a store at gs: is not known; expected a folder, or s3://bucket/prefix"):
        open_store("gs://bucket/x")


def denied(*methods, status=403, code="AccessDenied"):
    return lambda request: refusal(status, code) if request.method in methods else None


@pytest.mark.parametrize(
    ("before", "told"),
    [
        (denied("PUT"), "cannot be written \\(AccessDenied\\); these credentials need to list, read and write it"),
        (denied("GET", "HEAD"), "cannot be read \\(AccessDenied\\)"),
        (denied("GET", "PUT", code="InvalidAccessKeyId"), "refuses the credentials \\(InvalidAccessKeyId\\)"),
        (
            denied("GET", "PUT", status=500, code="InternalError"),
            "cannot be read \\(InternalError: InternalError it is\\)",
        ),
    ],
)
def test_what_the_server_refuses_is_told(server, machine, before, told):
    server.before = before
    with pytest.raises(StoreError, match=told) as error:
        machine()
    assert SECRET not in str(error.value)


def test_a_bucket_that_is_not_there_is_told(bucket, monkeypatch, tmp_path, server):
    monkeypatch.setenv("VOCABSEM_CACHE", str(tmp_path))
    with pytest.raises(StoreError, match=f"no bucket 'nothing' at {server.address}; make it"):
        open_store("s3://nothing/x")
    with pytest.raises(StoreError, match=f"s3://{bucket}/x: no store; run a workflow first"):
        existing_store(f"s3://{bucket}/x")
    assert not server.objects(bucket), "to read is not to make"


def test_no_credentials_no_server_no_address_are_told(bucket, monkeypatch, tmp_path):
    monkeypatch.setenv("VOCABSEM_CACHE", str(tmp_path))
    for name, value, told in [
        ("AWS_ACCESS_KEY_ID", None, "no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
        ("AWS_ENDPOINT_URL", "http://user:secret@127.0.0.1:9", "no S3 server answers at http://127.0.0.1:9 "),
        ("AWS_ENDPOINT_URL", "nonsense", "\\$AWS_ENDPOINT_URL is no address; expected http://host:port"),
    ]:
        with monkeypatch.context() as patch:
            patch.setenv("HOME", str(tmp_path))
            patch.setenv(name, value) if value else patch.delenv(name)
            s3._client.cache_clear()
            with pytest.raises(StoreError, match=told) as error:
                open_store(f"s3://{bucket}/x")
            assert "secret@" not in str(error.value)
    s3._client.cache_clear()


def test_without_boto3_the_way_out_is_told(bucket, monkeypatch, tmp_path):
    monkeypatch.setenv("VOCABSEM_CACHE", str(tmp_path))
    monkeypatch.setitem(sys.modules, "boto3.session", None)
    s3._client.cache_clear()
    with pytest.raises(StoreError, match="needs boto3, which is not installed here: `pip install boto3`"):
        open_store(f"s3://{bucket}/x")


def test_a_folder_of_copies_that_cannot_be_made_is_told(bucket, monkeypatch, tmp_path):
    (tmp_path / "taken").write_text("a file")
    monkeypatch.setenv("VOCABSEM_CACHE", str(tmp_path / "taken"))
    with pytest.raises(StoreError, match=r"on this machine cannot be written .*; name another with \$VOCABSEM_CACHE"):
        open_store(f"s3://{bucket}/x")


def test_a_store_of_another_format_is_told_and_kept(bucket, server, machine):
    server.client.put_object(Bucket=bucket, Key="store/VOCABSEM_STORE.json", Body=b'{"format": 9}')
    with pytest.raises(StoreError, match="a store of format 9; this version of vocabsem reads format 1"):
        machine()
    assert server.objects(bucket)["store/VOCABSEM_STORE.json"] == b'{"format": 9}'
