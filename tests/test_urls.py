"""Promises of outspike.urls on a local disk; S3 is tested in tests/store/test_s3.py."""

import os
import pickle

import pytest

from outspike import urls
from outspike.errors import ConfigError, MissingUrlError, UrlError


@pytest.mark.parametrize("url", ["gs://bucket/x", "memory://x", "http://host/x", "hdfs://n/x"])
def test_other_schemes_are_refused_by_name(url):
    """Only files and S3 are supported, and the message says which scheme was found."""
    with pytest.raises(ConfigError, match=url.split("://", maxsplit=1)[0]):
        urls.filesystem(url)


@pytest.mark.parametrize("url", ["", "s3://", "s3:///"])
def test_an_address_without_a_place_is_refused(url):
    with pytest.raises(ConfigError):
        urls.scheme(url)


def test_join_keeps_the_spelling_of_the_root():
    assert urls.join("s3://bucket/a/", "/b/", "c.mp4") == "s3://bucket/a/b/c.mp4"
    assert urls.join("/data", "x") == "/data/x"
    assert urls.join("data/", "") == "data"


def test_list_files_is_recursive_sorted_and_filters_by_suffix_without_case(tmp_path):
    for name in ("b/2.MP4", "b/1.mp4", "a.mp4", "notes.txt"):
        urls.write_bytes(str(tmp_path / name), b"x")
    found = urls.list_files(str(tmp_path), [".mp4"])
    assert [os.path.relpath(url, tmp_path) for url in found] == ["a.mp4", "b/1.mp4", "b/2.MP4"]
    assert len(urls.list_files(f"file://{tmp_path}")) == 4
    assert urls.list_files(f"file://{tmp_path}")[0].startswith("file://")
    assert urls.list_files(str(tmp_path / "a.mp4")) == [str(tmp_path / "a.mp4")]


def test_relative_paths_stay_relative(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    urls.write_bytes("clips/one.mp4", b"x")
    assert urls.list_files("clips") == ["clips/one.mp4"]
    assert urls.stat("clips/one.mp4").size == 1


def test_an_empty_folder_lists_nothing_and_an_absent_one_is_an_error(tmp_path):
    assert urls.list_files(str(tmp_path)) == []
    with pytest.raises(MissingUrlError, match="nowhere"):
        urls.list_files(str(tmp_path / "nowhere"))


def test_the_local_etag_follows_size_and_modification_time(tmp_path):
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"one")
    first = urls.stat(str(path))
    assert first == urls.stat(str(path))
    os.utime(path, ns=(1, 1))
    assert urls.stat(str(path)).etag != first.etag


def test_listing_and_stat_agree(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"abc")
    assert urls.list_stats(str(tmp_path)) == [urls.stat(str(tmp_path / "a.mp4"))]


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path):
    with pytest.raises(MissingUrlError, match=r"gone\.mp4"):
        urls.stat(str(tmp_path / "gone.mp4"))
    with pytest.raises(UrlError, match="folder"):
        urls.stat(str(tmp_path))
    with pytest.raises(FileNotFoundError):
        urls.open_url(str(tmp_path / "gone.mp4"))


def test_files_open_seekable(tmp_path):
    urls.write_bytes(str(tmp_path / "x" / "y"), b"0123456789")
    with urls.open_url(str(tmp_path / "x" / "y")) as file:
        file.seek(4)
        assert file.read(3) == b"456"
    assert sorted(os.listdir(tmp_path / "x")) == ["y"], "no temporary file stays behind"


def test_options_carry_no_secret(monkeypatch):
    """Neither repr, nor pickle, nor the keyword arguments of a library hold a credential."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very-secret")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    options = urls.storage_options()
    shown = (
        repr(options) + repr(options.for_fsspec("s3://b")) + repr(options.for_deltalake("s3://b"))
    )
    assert "very-secret" not in shown
    assert "AKIAEXAMPLE" not in shown
    assert b"very-secret" not in pickle.dumps(options)
    assert options.for_deltalake("s3://b")["AWS_REGION"] == "eu-west-1"


def test_plain_http_must_be_asked_for(monkeypatch):
    """An unencrypted endpoint without AWS_ALLOW_HTTP is refused the same way for every library."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.delenv("AWS_ALLOW_HTTP", raising=False)
    with pytest.raises(ConfigError, match="AWS_ALLOW_HTTP"):
        urls.storage_options()
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    assert urls.storage_options().allow_http
