"""Addresses of files: a local path or ``s3://bucket/key``, read the same way.

Settings come from the standard AWS environment (``AWS_ENDPOINT_URL``, ``AWS_REGION``,
``AWS_ALLOW_HTTP``) through one :class:`StorageOptions`. Credentials are not part of it: each
library finds them in the same chain (``AWS_ACCESS_KEY_ID`` and ``AWS_SECRET_ACCESS_KEY``, a
profile, the machine's role), so that no object, repr or pickle of ours ever holds a secret.
"""

import hashlib
import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

import fsspec

from outspike.errors import ConfigError, MissingUrlError, UrlError

Scheme = Literal["file", "s3"]

_TRUE = ("1", "true", "yes", "on")


@dataclass(frozen=True, kw_only=True)
class SourceStat:
    """Size and identity of a file.

    ``etag`` changes when the file does. On S3 it is the object's own; on a local disk it is a hash
    of size and modification time (ns): cheap, stable while nobody writes to the file, and blind to
    a writer who restores both.
    """

    url: str
    size: int
    etag: str


#: To one server at a time; the client's own ten would hold back the sixteen requests that reads of
#: the store have under way.
_MAX_CONNECTIONS = 32


@dataclass(frozen=True, kw_only=True)
class StorageOptions:
    """Where S3 is; the same for every library. Holds no credentials."""

    endpoint_url: str | None = None
    region: str | None = None
    allow_http: bool = False

    def __post_init__(self) -> None:
        if self.endpoint_url and self.endpoint_url.startswith("http://") and not self.allow_http:
            raise ConfigError(
                f"AWS_ENDPOINT_URL={self.endpoint_url} is not encrypted; set AWS_ALLOW_HTTP=true "
                "if that is meant (a test server, a closed network), else use https://."
            )

    @classmethod
    def from_environment(cls) -> "StorageOptions":
        """What the standard AWS environment says now."""
        return cls(
            endpoint_url=os.environ.get("AWS_ENDPOINT_URL_S3")
            or os.environ.get("AWS_ENDPOINT_URL")
            or None,
            region=os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or None,
            allow_http=os.environ.get("AWS_ALLOW_HTTP", "").lower() in _TRUE,
        )

    def for_fsspec(self, url: str) -> dict[str, Any]:
        """Keyword arguments of ``fsspec.filesystem`` for ``url``."""
        if scheme(url) == "file":
            return {}
        options: dict[str, Any] = {
            "use_listings_cache": False,
            "config_kwargs": {"max_pool_connections": _MAX_CONNECTIONS},
        }
        if self.endpoint_url:
            options["endpoint_url"] = self.endpoint_url
        if self.region:
            options["client_kwargs"] = {"region_name": self.region}
        return options

    def for_deltalake(self, url: str) -> dict[str, str]:
        """The ``storage_options`` of deltalake for ``url``."""
        if scheme(url) == "file":
            return {}
        options = {"AWS_ALLOW_HTTP": str(self.allow_http).lower()}
        if self.endpoint_url:
            options["AWS_ENDPOINT_URL"] = self.endpoint_url
        if self.region:
            options["AWS_REGION"] = self.region
        return options


def storage_options() -> StorageOptions:
    """The options every library is given, from the environment of this process."""
    return StorageOptions.from_environment()


def scheme(url: str) -> Scheme:
    """``file`` or ``s3``.

    Raises:
        ConfigError: any other scheme, or an S3 address without a bucket.
    """
    prefix, separator, rest = url.partition("://")
    if not separator:
        if not url:
            raise ConfigError("An empty address; give a local path or s3://bucket/key.")
        return "file"
    if prefix == "file":
        return "file"
    if prefix == "s3":
        if not rest.strip("/"):
            raise ConfigError(f"{url!r} names no bucket; expected s3://bucket/key.")
        return "s3"
    raise ConfigError(
        f"{url!r}: scheme {prefix!r} is not supported; use a local path, file:// or s3://."
    )


def is_local(url: str) -> bool:
    """Whether ``url`` lies on this machine's file system."""
    return scheme(url) == "file"


def local_path(url: str) -> Path:
    """The path a local address stands for.

    Raises:
        ConfigError: ``url`` is not local.
    """
    if not is_local(url):
        raise ConfigError(f"{url!r} is not on a local disk.")
    return Path(url.removeprefix("file://"))


def absolute(url: str) -> str:
    """``url``, no longer dependent on the current folder; for processes that run elsewhere."""
    return str(local_path(url).absolute()) if is_local(url) else url


def join(url: str, *parts: str) -> str:
    """``url`` extended by path components."""
    scheme(url)
    pieces = [part.strip("/") for part in parts]
    return "/".join([url.rstrip("/") or "/", *(piece for piece in pieces if piece)])


def filesystem(url: str) -> Any:
    """The fsspec file system of ``url``.

    Ask for it where it is used instead of keeping it: instances are cached per process, and one
    that was carried over a fork does not work.
    """
    return fsspec.filesystem(scheme(url), **storage_options().for_fsspec(url))


def path_in(url: str) -> str:
    """``url`` as the methods of :func:`filesystem` want it."""
    return str(local_path(url).absolute()) if is_local(url) else url.removeprefix("s3://")


def exists(url: str) -> bool:
    """Whether there is a file or folder."""
    with plain_errors(url):
        return bool(filesystem(url).exists(path_in(url)))


def stat(url: str) -> SourceStat:
    """Size and identity of one file.

    Raises:
        MissingUrlError: no such file.
        UrlError: a folder, or not readable.
    """
    with plain_errors(url):
        info = filesystem(url).info(path_in(url))
    if info["type"] != "file":
        raise UrlError(f"{url}: a folder; expected a file.")
    return _stat_of(url, info)


def list_stats(url: str, suffixes: Sequence[str] = ()) -> list[SourceStat]:
    """Every file below a folder or prefix, with size and identity, in the order of their addresses.

    Args:
        url: a folder or S3 prefix; a single file answers for itself.
        suffixes: endings to keep (``.mp4``), compared without case; none keeps all.

    Raises:
        MissingUrlError: nothing is there.
    """
    fs, root = filesystem(url), path_in(url)
    with plain_errors(url):
        found: dict[str, dict[str, Any]] = fs.find(root, detail=True)
        if not found and not fs.exists(root):
            raise MissingUrlError(f"{url}: no such file or folder.")
    wanted = tuple(suffix.lower() for suffix in suffixes)
    stats = [
        _stat_of(_address(url, root, path), info)
        for path, info in found.items()
        if info["type"] == "file" and not path.endswith("/")  # S3 folder markers
    ]
    kept = [s for s in stats if not wanted or s.url.lower().endswith(wanted)]
    return sorted(kept, key=lambda s: s.url)


def list_files(url: str, suffixes: Sequence[str] = ()) -> list[str]:
    """Addresses of every file below a folder or prefix; see :func:`list_stats`."""
    return [found.url for found in list_stats(url, suffixes)]


def open_url(url: str, mode: Literal["rb", "wb"] = "rb") -> BinaryIO:
    """A seekable binary file for reading, or one for writing (folders are made).

    Raises:
        MissingUrlError: no such file.
        UrlError: not readable or not writable.
    """
    fs, path = filesystem(url), path_in(url)
    with plain_errors(url):
        if mode == "wb" and is_local(url):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        return cast(BinaryIO, fs.open(path, mode))


def read_bytes(url: str) -> bytes:
    """The whole file."""
    with plain_errors(url):
        return cast(bytes, filesystem(url).cat_file(path_in(url)))


def write_bytes(url: str, data: bytes) -> None:
    """Write a whole file at once: readers see the old one or the new one, never a part."""
    with plain_errors(url):
        if not is_local(url):
            filesystem(url).pipe_file(path_in(url), data)
            return
        path = local_path(url)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        try:
            temporary.write_bytes(data)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def remove(url: str) -> None:
    """Delete a file.

    Raises:
        MissingUrlError: there is none.
        UrlError: the store refuses.
    """
    with plain_errors(url):
        filesystem(url).rm_file(path_in(url))


@contextmanager
def plain_errors(url: str) -> Iterator[None]:
    """Turn what the storage libraries raise into a :class:`UrlError` that names the address."""
    try:
        yield
    except UrlError:
        raise
    except FileNotFoundError as error:
        raise MissingUrlError(f"{url}: no such file or folder.") from error
    except Exception as error:
        if not isinstance(error, OSError) and not _is_from_botocore(error):
            raise
        raise UrlError(f"{url}: {type(error).__name__}: {error}") from error


def _is_from_botocore(error: Exception) -> bool:
    """No credentials, no connection, ...: told by module, so that local work never imports it."""
    return any(base.__module__ == "botocore.exceptions" for base in type(error).__mro__)


def _stat_of(url: str, info: dict[str, Any]) -> SourceStat:
    if is_local(url):
        status = os.stat(info["name"])
        identity = f"{status.st_size}:{status.st_mtime_ns}".encode()
        return SourceStat(
            url=url, size=status.st_size, etag=hashlib.sha256(identity).hexdigest()[:32]
        )
    return SourceStat(url=url, size=int(info["size"]), etag=str(info["ETag"]).strip('"'))


def _address(url: str, root: str, path: str) -> str:
    """Address of ``path`` found below ``root``, spelled the way ``url`` is."""
    below = path.removeprefix(root.rstrip("/")).lstrip("/")
    return join(url, below) if below else url
