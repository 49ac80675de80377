"""A small Hugging Face hub on this machine: the requests with which its client reads and writes, in
a thread."""

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote

import pytest

TOKEN = "hf_a-token-that-may-write"


@dataclass
class Hub:
    """`repos`: of each repository the files of its branch `main`; those of another branch are under
    `REPO@BRANCH`. `asked`: all requests. `commits`: all sets of files that were sent."""

    repos: dict[str, dict[str, bytes]] = field(default_factory=dict)
    private: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)
    commits: list[list[str]] = field(default_factory=list)
    objects: dict[str, bytes] = field(default_factory=dict)
    url: str = ""

    def commit(self, repo: str) -> str:
        """Changes with the files."""
        digest = hashlib.sha1(repr(sorted(self.repos[repo].items())).encode())
        return digest.hexdigest()

    def branch(self, repo: str, revision: str) -> str | None:
        """The key in `repos` of a branch or commit."""
        branches = [key for key in self.repos if key.partition("@")[0] == repo]
        named = {key.partition("@")[2] or "main": key for key in branches}
        commits = {self.commit(key): key for key in branches}
        return {**commits, **named}.get(revision)

    def downloads(self) -> list[str]:
        """The files whose content was sent."""
        return [each.rsplit("/", 1)[1] for each in self.asked if each.startswith("GET /resolve")]


@contextmanager
def hub_here(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Iterator[Hub]:
    """The hub of this process and of those that it starts, with a cache in `folder`."""
    constants = pytest.importorskip("huggingface_hub.constants")
    pytest.importorskip("safetensors")
    with serving() as found:
        template = found.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", found.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder / "cache"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(folder / "token"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # a protocol of its own
        monkeypatch.setenv("HF_ENDPOINT", found.url)
        monkeypatch.setenv("HF_HOME", str(folder / "home"))
        monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.chdir(folder)
        yield found


@contextmanager
def serving() -> Iterator[Hub]:
    hub = Hub()

    class Handler(_Handler):
        of = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    of: Hub

    def log_message(self, *_: object) -> None:
        """Tests are quiet."""

    # ---- reading

    def do_HEAD(self) -> None:
        self._read(send=False)

    def do_GET(self) -> None:
        self._read(send=True)

    def _read(self, *, send: bool) -> None:
        hub, parts = self.of, self._parts()
        if parts[:2] == ["api", "models"]:
            self._list("/".join(parts[2:4]), "/".join(parts[5:]) or "main")
            return
        repo, revision, file = "/".join(parts[:2]), parts[3], "/".join(parts[4:])
        hub.asked.append(f"{self.command} /resolve/{repo}/{file}")
        key = hub.branch(repo, revision)
        if repo not in hub.repos:
            self._refuse(404, "RepoNotFound")
        elif key is None:
            self._refuse(404, "RevisionNotFound")
        elif file not in hub.repos[key]:
            self._refuse(404, "EntryNotFound", commit=hub.commit(key))
        else:
            self._file(key, hub.repos[key][file], send=send)

    def _file(self, key: str, content: bytes, *, send: bool) -> None:
        self.send_response(200)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", self.of.commit(key))
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if send:
            self.wfile.write(content)

    def _list(self, repo: str, revision: str) -> None:
        key = self.of.branch(repo, revision)
        if repo not in self.of.repos:
            self._refuse(404, "RepoNotFound")
        elif key is None:
            self._refuse(404, "RevisionNotFound")
        else:
            names = [{"rfilename": name} for name in self.of.repos[key]]
            about = {"id": repo, "sha": self.of.commit(key), "siblings": names}
            self._answer({**about, "private": repo in self.of.private})

    # ---- writing

    def do_PUT(self) -> None:
        self.of.objects[self._parts()[1]] = self._body()
        self._answer({})

    def do_POST(self) -> None:
        parts, body = self._parts(), self._body()
        self.of.asked.append(f"POST {self.path}")
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._refuse(403, "")
        elif parts == ["api", "validate-yaml"]:
            self._answer({"errors": [], "warnings": []})
        elif parts == ["api", "repos", "create"]:
            self._create(json.loads(body))
        elif parts[-1] == "batch":
            self._answer({"objects": [*map(self._upload, json.loads(body)["objects"])]})
        elif parts[4] == "branch":
            repo = "/".join(parts[2:4])
            self.of.repos[f"{repo}@{parts[5]}"] = dict(self.of.repos[repo])
            self._answer({})
        elif parts[4] == "preupload":
            self._answer({"files": [*map(_mode, json.loads(body)["files"])]})
        else:
            self._commit("/".join(parts[2:4]), parts[5], body)

    def _create(self, wanted: dict[str, Any]) -> None:
        repo = f"{wanted['organization']}/{wanted['name']}"
        self.of.repos[repo] = {".gitattributes": b""}
        if wanted.get("visibility") == "private" or wanted.get("private"):
            self.of.private.add(repo)
        self._answer({"url": f"{self.of.url}/{repo}"})

    def _upload(self, wanted: dict[str, Any]) -> dict[str, Any]:
        href = f"{self.of.url}/objects/{wanted['oid']}"
        return {**wanted, "actions": {"upload": {"href": href}}}

    def _commit(self, repo: str, revision: str, body: bytes) -> None:
        key = self.of.branch(repo, revision)
        assert key is not None
        lines = [json.loads(line) for line in body.splitlines()]
        files: dict[str, bytes] = {}
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.of.objects[value["oid"]]
            elif value.get("parentCommit", self.of.commit(key)) != self.of.commit(key):
                self._refuse(412, "")
                return
        self.of.repos[key].update(files)
        self.of.commits.append(sorted(files))
        sha = self.of.commit(key)
        self._answer({"commitOid": sha, "commitUrl": f"{self.of.url}/{repo}/commit/{sha}"})

    # ---- both

    def _parts(self) -> list[str]:
        parts = self.path.partition("?")[0].strip("/").split("/")
        return [unquote(part) for part in parts]

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        content = b""
        while size := int(self.rfile.readline(), 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return content

    def _answer(self, about: dict[str, Any]) -> None:
        content = json.dumps(about).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _refuse(self, status: int, code: str, commit: str = "") -> None:
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        if commit:
            self.send_header("X-Repo-Commit", commit)
        self.send_header("Content-Length", "0")
        self.end_headers()


def _mode(file: dict[str, Any]) -> dict[str, Any]:
    mode = "lfs" if file["path"].endswith(".safetensors") else "regular"
    return {"path": file["path"], "uploadMode": mode, "shouldIgnore": False}
