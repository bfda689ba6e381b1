"""A hub on this machine: the addresses of Hugging Face's that its client libraries ask for.

with Hub(tmp_path / "hub") as hub:
    commit = hub.push("models/org/tiny", folder)     # and "main" is that commit now
    HF_ENDPOINT=hub.url
"""

import hashlib
import json
import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

_INFO = re.compile(r"/api/(models|datasets)/([^/]+/[^/]+)(?:/revision/([^/]+))?")
_TREE = re.compile(r"/api/(models|datasets)/([^/]+/[^/]+)/tree/([^/]+)/?(.*)")
_PATHS = re.compile(r"/api/(models|datasets)/([^/]+/[^/]+)/paths-info/([^/]+)")
_FILE = re.compile(r"/(?:(datasets)/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)")


class Hub:
    """Repositories, each with its commits; what is asked is kept in `asked`.

    Args:
        folder: for them.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.heads: dict[str, str] = {}
        self.asked: list[str] = []
        self.answers = threading.Event()
        self.answers.set()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Answering)
        self._server.hub = self
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_error):
        self.stop()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Take requests and answer none of them until the end."""
        self.answers.clear()
        try:
            yield
        finally:
            self.answers.set()

    def push(self, repository: str, folder: Path) -> str:
        """A new commit of `models/org/name` or `datasets/org/name`, which is `main` from now on."""
        commit = hashlib.sha1(f"{repository} {len(self.asked)} {self.heads}".encode()).hexdigest()
        shutil.copytree(folder, self.folder / repository / commit)
        self.heads[repository] = commit
        return commit

    def commit(self, repository: str, revision: str | None) -> str | None:
        """The commit of a branch or of itself."""
        if revision in (None, "main"):
            return self.heads.get(repository)
        return revision if (self.folder / repository / revision).is_dir() else None


class _Answering(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_arguments):
        pass

    def do_HEAD(self):
        self._answer()

    def do_GET(self):
        self._answer()

    def do_POST(self):
        self._answer(self.rfile.read(int(self.headers.get("Content-Length", 0))).decode())

    def _answer(self, body=""):
        path, _, _query = self.path.partition("?")
        path = path.replace("%2F", "/").replace("%40", "@")
        self.server.hub.asked.append(f"{self.command} {path}")
        self.server.hub.answers.wait()
        for pattern, answer in (
            (_TREE, self._tree),
            (_PATHS, self._paths),
            (_INFO, self._info),
        ):
            if match := pattern.fullmatch(path):
                kind, name, *rest = match.groups()
                commit = self.server.hub.commit(f"{kind}/{name}", rest[0])
                if commit is None:
                    return self._missing()
                root = self.server.hub.folder / kind / name / commit
                return self._json(answer(name, commit, root, [*rest[1:], body]))
        if match := _FILE.fullmatch(path):
            kind, name, revision, file = match.groups()
            return self._file(kind or "models", name, revision, file)
        return self._missing()

    def _info(self, name, commit, root, _rest):
        names = [path.relative_to(root).as_posix() for path in _files(root)]
        siblings = [{"rfilename": each} for each in sorted(names)]
        return {"id": name, "sha": commit, "private": False, "siblings": siblings}

    def _tree(self, _name, _commit, root, rest):
        top = root / rest[0] if rest[0] else root
        recursive = "recursive=True" in self.path or "recursive=true" in self.path
        found = sorted(top.rglob("*") if recursive else top.iterdir())
        return [_entry(path, root) for path in found]

    def _paths(self, _name, _commit, root, rest):
        try:
            wanted = json.loads(rest[-1])["paths"]
        except ValueError:
            from urllib.parse import parse_qs

            wanted = parse_qs(rest[-1])["paths"]
        return [_entry(root / each, root) for each in wanted if (root / each).exists()]

    def _file(self, kind, name, revision, file):
        commit = self.server.hub.commit(f"{kind}/{name}", revision)
        path = self.server.hub.folder / kind / name / str(commit) / file
        if commit is None or not path.is_file():
            self._missing("EntryNotFound")
            return
        data, status = path.read_bytes(), 200
        extra = {"X-Repo-Commit": commit, "ETag": f'"{_blob(path)}"', "Accept-Ranges": "bytes"}
        if match := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            start, end = int(match[1]), int(match[2] or len(data) - 1)
            extra["Content-Range"] = f"bytes {start}-{min(end, len(data) - 1)}/{len(data)}"
            data, status = data[start : end + 1], 206
        self._send(status, data, "application/octet-stream", extra)

    def _json(self, body):
        self._send(200, json.dumps(body).encode(), "application/json", {})

    def _missing(self, code="RepoNotFound"):
        self._send(404, b"{}", "application/json", {"X-Error-Code": code})

    def _send(self, status, data, kind, extra):
        self.send_response(status)
        for key, value in {"Content-Type": kind, "Content-Length": len(data), **extra}.items():
            self.send_header(key, str(value))
        self.end_headers()
        if self.command != "HEAD":
            with suppress(BrokenPipeError):  # who asked was told to stop
                self.wfile.write(data)


def _files(root: Path):
    return [path for path in root.rglob("*") if path.is_file()]


def _blob(path: Path) -> str:
    return hashlib.sha1(path.read_bytes()).hexdigest()


def _entry(path: Path, root: Path):
    name = path.relative_to(root).as_posix()
    if path.is_dir():
        return {"type": "directory", "path": name, "oid": "0" * 40, "size": 0}
    return {"type": "file", "path": name, "oid": _blob(path), "size": path.stat().st_size}
