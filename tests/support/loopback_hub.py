"""A fake Hugging Face hub on loopback, for the HTTP calls of huggingface_hub that create, commit, upload and read.

Any request can fail, before or after it takes effect. The rules that matter to BiLoRA are the hub's: a commit names its
parent or is refused (412), a large file goes through LFS and is identified by SHA-256, any other file by its git blob
id, and a Space is rebuilt after a commit while its old container still answers.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from support.faulty_server import Fault, Reply, serving

TOKEN, IDENTITY = "hf_loopback", "identity-of-a-ci"
LFS_SUFFIXES = (".safetensors",)
Files = dict[str, bytes]


@dataclass(frozen=True)
class Commit:
    oid: str
    title: str
    files: Files


@dataclass
class Repo:
    kind: str
    id: str
    private: bool
    commits: list[Commit]

    def find(self, revision: str) -> Commit:
        if revision == "main":
            return self.commits[-1]
        for commit in self.commits:
            if commit.oid == revision:
                return commit
        raise Refused(404, "RevisionNotFound")


class Refused(Exception):
    """A refused request: the status, and the error code that the client reads."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(code)
        self.status, self.code = status, code


def blob_oid(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def is_lfs(name: str) -> bool:
    return name.endswith(LFS_SUFFIXES)


@dataclass
class Hub:
    """The state of the hub. `fault` is called for every request; `requests` records them."""

    url: str = ""
    cdn_url: str = ""
    """The same server under another host name, to which the client must send no token."""
    repos: dict[str, Repo] = field(default_factory=dict)
    lfs: Files = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    bearers: set[str] = field(default_factory=set)
    fault: Callable[[int, str], Fault | None] = lambda number, request: None
    before_commit: Callable[[Hub, Repo], None] = lambda hub, repo: None
    """Called when a commit arrives: a test can commit something else first."""
    healthy: Callable[[Files], bool] = lambda files: True
    """Whether a Space with these files starts."""
    stage: Callable[[], str | None] = lambda: None
    """The stage that the hub reports for a Space; None reports the true stage."""
    lag: int = 1
    """The number of health checks that a Space's old container answers after a commit."""
    checks_since_commit: dict[str, int] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def repo(self, key: str) -> Repo:
        """Return a repository by `models/owner/name`, `datasets/…` or `spaces/…`."""
        if key not in self.repos:
            raise Refused(404, "RepoNotFound")
        return self.repos[key]

    def files(self, key: str) -> Files:
        """Return a repository's files, without the file that the hub itself creates."""
        files = self.repo(key).commits[-1].files if key in self.repos else {}
        return {name: data for name, data in files.items() if name != ".gitattributes"}

    def titles(self, key: str) -> list[str]:
        return [commit.title for commit in self.repo(key).commits] if key in self.repos else []

    def commit(self, repo: Repo, files: Mapping[str, bytes], title: str) -> str:
        seed = json.dumps([repo.id, len(repo.commits), title, sorted((n, blob_oid(d)) for n, d in files.items())])
        oid = hashlib.sha1(seed.encode()).hexdigest()
        repo.commits.append(Commit(oid, title, dict(files)))
        self.checks_since_commit[repo.id] = 0
        return oid

    # Endpoints. `answer` uses the first route whose pattern matches.

    def answer(self, method: str, path: str, bearer: str | None, body: bytes) -> Reply:
        for verb, pattern, name in ROUTES:
            if method in verb.split("|") and (match := re.fullmatch(pattern, path)):
                try:
                    reply: Reply = getattr(self, name)(
                        bearer, body, *(unquote(group or "models") for group in match.groups())
                    )
                except Refused as refused:
                    return refused.status, {"X-Error-Code": refused.code}, b'{"error": "refused"}'
                return reply
        return 404, {"X-Error-Code": "Unknown"}, f"no route for {method} {path}".encode()

    def readable(self, key: str, bearer: str | None) -> Repo:
        repo = self.repo(key)
        if repo.private and bearer != TOKEN:
            raise Refused(401, "RepoNotFound")
        return repo

    def writable(self, key: str, bearer: str | None) -> Repo:
        if bearer != TOKEN:
            raise Refused(401, "Unauthorized")
        return self.repo(key)

    def create(self, bearer: str | None, body: bytes) -> Reply:
        if bearer != TOKEN:
            raise Refused(401, "Unauthorized")
        request = json.loads(body)
        kind = request.get("type", "model")
        key = f"{kind}s/{request['organization']}/{request['name']}"
        status = 409 if key in self.repos else 200
        if status == 200:
            if kind == "space" and request.get("sdk") != "docker":
                raise Refused(400, "BadSdk")
            repo = Repo(kind, key.partition("/")[2], request.get("visibility") == "private", [])
            self.repos[key] = repo
            self.commit(repo, {".gitattributes": b"*.safetensors filter=lfs\n"}, "initial commit")
        return reply({"url": f"{self.url}/{key.removeprefix('models/')}"}, status)

    def info(self, bearer: str | None, body: bytes, kind: str, name: str, revision: str | None = None) -> Reply:
        repo = self.readable(f"{kind}/{name}", bearer)
        commit = repo.find(revision or "main")
        space = {"host": f"{self.url}/space/{name}", "sdk": "docker"} if kind == "spaces" else {}
        return reply({"id": name, "sha": commit.oid, "private": repo.private, "tags": [], "downloads": 0, **space})

    def refs(self, bearer: str | None, body: bytes, kind: str, name: str) -> Reply:
        repo = self.readable(f"{kind}/{name}", bearer)
        branch = {"name": "main", "ref": "refs/heads/main", "targetCommit": repo.commits[-1].oid}
        return reply({"branches": [branch], "converts": [], "tags": []})

    def commits_of(self, bearer: str | None, body: bytes, kind: str, name: str, revision: str) -> Reply:
        repo = self.readable(f"{kind}/{name}", bearer)
        date = "2026-01-01T00:00:00.000Z"
        commits = [
            {"id": commit.oid, "authors": [], "date": date, "title": commit.title, "message": ""}
            for commit in repo.commits
        ]
        return reply(commits[::-1])

    def tree(self, bearer: str | None, body: bytes, kind: str, name: str, revision: str) -> Reply:
        commit = self.readable(f"{kind}/{name}", bearer).find(revision)
        rows = []
        for path, data in sorted(commit.files.items()):
            row: dict[str, Any] = {"type": "file", "path": path, "size": len(data), "oid": blob_oid(data)}
            if is_lfs(path):
                row["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
            rows.append(row)
        return reply(rows)

    def yaml(self, bearer: str | None, body: bytes) -> Reply:
        return reply({"errors": [], "warnings": []})

    def preupload(self, bearer: str | None, body: bytes, kind: str, name: str, revision: str) -> Reply:
        repo = self.writable(f"{kind}/{name}", bearer)
        files = repo.find(revision).files
        paths = [entry["path"] for entry in json.loads(body)["files"]]
        rows = [
            {
                "path": path,
                "uploadMode": "lfs" if is_lfs(path) else "regular",
                "shouldIgnore": False,
                "oid": blob_oid(files[path]) if path in files else None,
            }
            for path in paths
        ]
        return reply({"files": rows})

    def lfs_batch(self, bearer: str | None, body: bytes, kind: str, name: str) -> Reply:
        self.writable(f"{kind}/{name}", bearer)
        objects = []
        for requested in json.loads(body)["objects"]:
            oid = requested["oid"]
            row = {"oid": oid, "size": requested["size"]}
            if oid not in self.lfs:
                row["actions"] = {
                    "upload": {"href": f"{self.url}/lfs/{oid}"},
                    "verify": {"href": f"{self.url}/lfs-verify"},
                }
            objects.append(row)
        return reply({"transfer": "basic", "objects": objects})

    def lfs_put(self, bearer: str | None, body: bytes, oid: str) -> Reply:
        if hashlib.sha256(body).hexdigest() != oid:
            raise Refused(400, "BadDigest")
        self.lfs[oid] = body
        return reply({})

    def lfs_verify(self, bearer: str | None, body: bytes) -> Reply:
        request = json.loads(body)
        if len(self.lfs.get(request["oid"], b"")) != request["size"]:
            raise Refused(404, "NotUploaded")
        return reply({})

    def commit_to(self, bearer: str | None, body: bytes, kind: str, name: str, revision: str) -> Reply:
        repo = self.writable(f"{kind}/{name}", bearer)
        self.before_commit(self, repo)
        lines = [json.loads(line) for line in body.splitlines()]
        header = lines[0]["value"]
        if header.get("parentCommit", repo.commits[-1].oid) != repo.commits[-1].oid:
            raise Refused(412, "PreconditionFailed")
        files = dict(repo.commits[-1].files)
        for line in lines[1:]:
            value = line["value"]
            match line["key"]:
                case "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                case "lfsFile":
                    if value["oid"] not in self.lfs:
                        raise Refused(400, "LfsObjectMissing")
                    files[value["path"]] = self.lfs[value["oid"]]
                case "deletedFile":
                    del files[value["path"]]
        oid = self.commit(repo, files, header["summary"])
        return reply({"success": True, "commitOid": oid, "commitUrl": f"{self.url}/{name}/commit/{oid}"})

    def resolve(self, bearer: str | None, body: bytes, kind: str, name: str, revision: str, path: str) -> Reply:
        commit = self.readable(f"{kind}/{name}", bearer).find(revision)
        if path not in commit.files:
            raise Refused(404, "EntryNotFound")
        data = commit.files[path]
        headers = {"X-Repo-Commit": commit.oid}
        if is_lfs(path):
            oid = hashlib.sha256(data).hexdigest()
            headers |= {"X-Linked-Etag": f'"{oid}"', "X-Linked-Size": str(len(data))}
            return 302, {**headers, "Location": f"{self.cdn_url}/cdn/{oid}"}, b""
        return 200, {**headers, "ETag": f'"{blob_oid(data)}"', "Content-Type": "application/octet-stream"}, data

    def cdn(self, bearer: str | None, body: bytes, oid: str) -> Reply:
        if bearer is not None:
            raise Refused(400, "TokenLeftTheHub")
        return 200, {"ETag": f'"{oid}"'}, self.lfs[oid]

    def whoami(self, bearer: str | None, body: bytes) -> Reply:
        if bearer != TOKEN:
            raise Refused(401, "Unauthorized")
        return reply({"type": "user", "name": "owner", "orgs": []})

    def exchange(self, bearer: str | None, body: bytes) -> Reply:
        request = json.loads(body)
        if request["subject_token"] != IDENTITY or not request["resource"].startswith("spaces/"):
            raise Refused(401, "Untrusted")
        return reply({"access_token": TOKEN, "token_type": "bearer", "expires_in": 3600})

    # A Space runs its last commit once that is built, and until then the newest earlier commit that started.

    def running(self, name: str) -> Files | None:
        *earlier, last = self.repo(f"spaces/{name}").commits
        candidates = earlier if self.checks_since_commit[name] <= self.lag else [last]
        started = [commit.files for commit in candidates if "Dockerfile" in commit.files and self.healthy(commit.files)]
        return started[-1] if started else None

    def runtime(self, bearer: str | None, body: bytes, name: str) -> Reply:
        last = self.repo(f"spaces/{name}").commits[-1].files
        stage = "RUNNING" if self.healthy(last) else "BUILD_ERROR"
        stage = "BUILDING" if self.checks_since_commit[name] <= self.lag else stage
        stage = self.stage() or stage
        return reply({"stage": stage, "hardware": {"current": "cpu-basic", "requested": "cpu-basic"}, "storage": None})

    def health(self, bearer: str | None, body: bytes, name: str) -> Reply:
        """Answer as the Space's page: report the bundle that its release.json names, read from this hub."""
        self.checks_since_commit[name] += 1
        files = self.running(name)
        if files is None:
            return 503, {}, b"your Space is not running"
        release = json.loads(files["hf_space/release.json"])
        bundle, _, revision = release["bundle"].partition("@")
        manifest = json.loads(self.repo(f"models/{bundle}").find(revision).files["manifest.json"])
        adapters = {task: entry["sha256"] for task, entry in manifest["adapters"].items()}
        return reply({"status": "ready", "release": release["release"], "adapters": adapters})


NAME = r"([\w.-]+/[\w.-]+)"
KIND = "(models|datasets|spaces)"
ROUTES = (
    ("POST", "/api/repos/create", "create"),
    ("POST", "/api/validate-yaml", "yaml"),
    ("GET", "/api/whoami-v2", "whoami"),
    ("POST", "/oauth/token", "exchange"),
    ("GET", f"/api/spaces/{NAME}/runtime", "runtime"),
    ("GET", f"/api/{KIND}/{NAME}", "info"),
    ("GET", f"/api/{KIND}/{NAME}/revision/([^/]+)", "info"),
    ("GET", f"/api/{KIND}/{NAME}/refs", "refs"),
    ("GET", f"/api/{KIND}/{NAME}/commits/([^/]+)", "commits_of"),
    ("GET", f"/api/{KIND}/{NAME}/tree/([^/]+)", "tree"),
    ("POST", f"/api/{KIND}/{NAME}/preupload/([^/]+)", "preupload"),
    ("POST", f"/api/{KIND}/{NAME}/commit/([^/]+)", "commit_to"),
    ("POST", rf"/(?:(datasets|spaces)/)?{NAME}\.git/info/lfs/objects/batch", "lfs_batch"),
    ("PUT", "/lfs/([0-9a-f]{64})", "lfs_put"),
    ("POST", "/lfs-verify", "lfs_verify"),
    ("GET", "/cdn/([0-9a-f]{64})", "cdn"),
    ("GET", f"/space/{NAME}/health", "health"),
    ("GET|HEAD", rf"/(?:(datasets|spaces)/)?{NAME}/resolve/([^/]+)/(.+)", "resolve"),
)


def reply(body: Any, status: int = 200) -> Reply:
    return status, {"Content-Type": "application/json"}, json.dumps(body).encode()


@contextlib.contextmanager
def serving_hub() -> Iterator[Hub]:
    """Serve a hub for the length of the block."""
    hub = Hub()

    def fault(method: str, path: str, bearer: str | None) -> Fault | None:
        with hub.lock:
            hub.requests.append(f"{method} {path}")
            hub.bearers.update({bearer} if bearer is not None else ())
            return hub.fault(len(hub.requests), hub.requests[-1])

    def answer(method: str, path: str, bearer: str | None, body: bytes) -> Reply:
        with hub.lock:
            return hub.answer(method, path, bearer, body)

    with serving(fault, answer) as port:
        hub.url, hub.cdn_url = f"http://127.0.0.1:{port}", f"http://localhost:{port}"
        yield hub
