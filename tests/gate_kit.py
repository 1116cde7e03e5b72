"""A gate before the emulator that answers calls only together: only calls under way at the same time pass it."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

_HOP_BY_HOP = ("host", "connection", "transfer-encoding", "content-length", "date", "server")


@contextmanager
def gate(url: str, calls: int, timeout: float = 60.0) -> Iterator[str]:
    """The address of a gate before `url`: no call is answered before so many are there, and no body sent before all
    have the first byte of their answers. Who waits `timeout` seconds for the others is cut off.
    """
    together = threading.Barrier(calls, timeout=timeout)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # as http.server calls it
            body = self.rfile.read(int(self.headers["Content-Length"]))
            together.wait()
            with closing(http.client.HTTPConnection(urlsplit(url).netloc)) as behind:
                asked = {name: value for name, value in self.headers.items() if name.lower() not in _HOP_BY_HOP}
                behind.request("POST", self.path, body, asked)
                answer = behind.getresponse()
                content = answer.read()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in _HOP_BY_HOP:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            together.wait()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            together.abort()
            server.shutdown()
