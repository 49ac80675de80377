"""A small Hugging Face hub on this machine: the requests with which its client reads, in a
thread."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import unquote


@dataclass
class Hub:
    """`repos`: of each repository the files of its branch `main`. `asked`: all requests."""

    repos: dict[str, dict[str, bytes]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    url: str = ""

    def commit(self, repo: str) -> str:
        """Changes with the files."""
        digest = hashlib.sha1(repr(sorted(self.repos[repo].items())).encode())
        return digest.hexdigest()

    def downloads(self) -> list[str]:
        """The files whose content was sent."""
        return [each.rsplit("/", 1)[1] for each in self.asked if each.startswith("GET /resolve")]


@contextmanager
def serving() -> Iterator[Hub]:
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Tests are quiet."""

        def do_HEAD(self) -> None:
            self._answer(send=False)

        def do_GET(self) -> None:
            self._answer(send=True)

        def _answer(self, *, send: bool) -> None:
            parts = unquote(self.path.partition("?")[0]).strip("/").split("/")
            if parts[:2] == ["api", "models"]:
                self._list("/".join(parts[2:4]))
                return
            repo, revision, file = "/".join(parts[:2]), parts[3], "/".join(parts[4:])
            hub.asked.append(f"{self.command} /resolve/{repo}/{file}")
            if repo not in hub.repos:
                self._refuse("RepoNotFound")
            elif revision not in ("main", hub.commit(repo)):
                self._refuse("RevisionNotFound")
            elif file not in hub.repos[repo]:
                self._refuse("EntryNotFound", commit=hub.commit(repo))
            else:
                self._file(repo, hub.repos[repo][file], send=send)

        def _file(self, repo: str, content: bytes, *, send: bool) -> None:
            self.send_response(200)
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", hub.commit(repo))
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if send:
                self.wfile.write(content)

        def _list(self, repo: str) -> None:
            names = [{"rfilename": name} for name in hub.repos[repo]]
            about = {"id": repo, "sha": hub.commit(repo), "siblings": names}
            content = json.dumps(about).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def _refuse(self, code: str, commit: str = "") -> None:
            self.send_response(404)
            self.send_header("X-Error-Code", code)
            if commit:
                self.send_header("X-Repo-Commit", commit)
            self.send_header("Content-Length", "0")
            self.end_headers()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
