"""An HTTP proxy before an S3 server: counts, delays the first byte, and fails on request.

    python benchmarks/s3_proxy.py http://127.0.0.1:5000 [--delay 0.02] [--keep]

prints its own address and runs until its standard input closes.
"""

import argparse
import http.client
import re
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import urlsplit

#: What may be done to a request: answered 500 or 503, never answered in time, cut in the middle of
#: the body (announced in full or as the whole), or given one wrong byte.
Fault = Literal["500", "503", "slow", "half", "short", "flip"]

_HOP_HEADERS = ("connection", "transfer-encoding", "keep-alive", "content-length")
_RANGE = re.compile(r"bytes=(\d+)-(\d+)$")


@dataclass
class Proxy:
    """Forwards to ``upstream``; ``fault`` may spoil a request, told by method, path and range.

    ``keep`` answers repeated reads of an object from memory, so that a slow server behind does not
    limit what is measured before it. Without ``conditional_puts`` it answers them as a server that
    does not know them.
    """

    upstream: str
    delay_s: float = 0.0
    keep: bool = False
    conditional_puts: bool = True
    fault: Callable[[str, str, str | None], Fault | None] = lambda method, path, range_: None
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    num_bytes: int = 0
    slow_s: float = 30.0

    def __enter__(self) -> "Proxy":
        handler = type("Handler", (_Handler,), {"proxy": self})
        self.objects: dict[str, bytes] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        """Address to give as ``AWS_ENDPOINT_URL``."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def gets(self) -> list[tuple[str, str | None]]:
        """Path and range of every object read so far."""
        return [(path, range_) for method, path, range_ in self.requests if method == "GET"]


class _Handler(BaseHTTPRequestHandler):
    proxy: Proxy
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing is printed."""

    def _serve(self) -> None:
        proxy, range_ = self.proxy, self.headers.get("Range")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        proxy.requests.append((self.command, self.path, range_))
        fault = proxy.fault(self.command, self.path, range_)
        if proxy.delay_s:
            time.sleep(proxy.delay_s)
        if fault == "slow":
            time.sleep(proxy.slow_s)
        if fault in ("500", "503"):
            code = "InternalError" if fault == "500" else "SlowDown"
            self._answer(int(fault), {}, f"<Error><Code>{code}</Code></Error>".encode())
            return
        if not proxy.conditional_puts and self.headers.get("If-None-Match"):
            self._answer(501, {}, b"<Error><Code>NotImplemented</Code></Error>")
            return
        status, headers, data = self._kept(range_) or self._forward(body)
        if fault == "half" and self.command == "GET":
            self._answer(status, headers, data, sent=len(data) // 2)
        elif fault == "short" and self.command == "GET":
            self._answer(status, headers, data[: len(data) // 2])
        elif fault == "flip" and self.command == "GET" and data:
            self._answer(status, headers, bytes([data[0] ^ 1]) + data[1:])
        else:
            self._answer(status, headers, data)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _serve  # noqa: N815

    def _forward(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(urlsplit(self.proxy.upstream).netloc)
        connection.request(self.command, self.path, body, dict(self.headers))
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        headers = {k: v for k, v in answer.getheaders() if k.lower() not in _HOP_HEADERS}
        if self.command == "HEAD":
            headers["Content-Length"] = answer.getheader("Content-Length") or "0"
        return answer.status, headers, data

    def _kept(self, range_: str | None) -> tuple[int, dict[str, str], bytes] | None:
        """Answer the read of an object from memory."""
        found = _RANGE.match(range_ or "")
        if not (self.proxy.keep and self.command == "GET") or "?" in self.path:
            return None
        if range_ and not found:
            return None
        if self.path not in self.proxy.objects:
            del self.headers["Range"]
            status, headers, data = self._forward(b"")
            if status != 200:
                return status, headers, data
            self.proxy.objects[self.path] = data
        data = self.proxy.objects[self.path]
        headers = {"ETag": '"kept"', "Accept-Ranges": "bytes"}
        if found is None:
            return 200, headers, data
        first, last = int(found[1]), min(int(found[2]), len(data) - 1)
        if first > last:
            return 416, headers, b"<Error><Code>InvalidRange</Code></Error>"
        headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
        return 206, headers, data[first : last + 1]

    def _answer(
        self, status: int, headers: dict[str, str], data: bytes, sent: int | None = None
    ) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if self.command != "HEAD":
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(data[:sent])
        self.proxy.num_bytes += len(data[:sent])
        if sent is not None:
            self.close_connection = True


def main() -> None:
    """Run as a process of its own, so that it takes no time from what is measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("upstream")
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args()
    with Proxy(options.upstream, delay_s=options.delay, keep=options.keep) as proxy:
        print(proxy.url, flush=True)
        for line in sys.stdin:  # a line asks for what was served since the last one
            print(len(proxy.gets()), proxy.num_bytes, flush=True)
            if line.strip() == "reset":
                proxy.requests.clear()
                proxy.num_bytes = 0


if __name__ == "__main__":
    main()
