"""A model by its hub id, from a hub of our own on loopback."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from gguf import GGMLQuantizationType
from safetensors.torch import load_file, save_file

from faasmoe.model.checkpoint.weight_files import INDEX_FILE
from tests.gguf_files import save_model, write_gguf
from tests.tiny import save_tiny

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(http.server.BaseHTTPRequestHandler):
    """The endpoints that a download needs. `fetched` has the files whose bytes it has sent, `asked` what was asked."""

    folder: Path
    fetched: list[str]
    asked: list[str]

    def do_GET(self) -> None:
        self._answer(True)

    def do_HEAD(self) -> None:
        self._answer(False)

    def _answer(self, with_body: bool) -> None:
        path = self.path.partition("?")[0]
        self.asked.append(path)
        if path.startswith("/api/models/org/tiny"):
            files = [
                {"rfilename": name, "path": name, "type": "file", "size": f.stat().st_size, "oid": "0" * 40}
                for name, f in (
                    (str(f.relative_to(self.folder)), f) for f in self.folder.rglob("*") if f.is_file()
                )
            ]
            found = files if "/tree/" in path else {"id": "org/tiny", "sha": COMMIT, "siblings": files}
            self._send(json.dumps(found).encode(), "application/json", with_body)
        elif path.startswith("/org/tiny/resolve/"):
            name = path.removeprefix("/org/tiny/resolve/").partition("/")[2]
            if with_body:
                self.fetched.append(name)
            self._send((self.folder / name).read_bytes(), "application/octet-stream", with_body)
        else:
            self.send_error(404)

    def _send(self, body: bytes, kind: str, with_body: bool) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Silent."""


@pytest.fixture
def fetched() -> list[str]:
    return []


@pytest.fixture
def asked() -> list[str]:
    return []


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    save_tiny("olmoe", tmp_path / "repository")
    return tmp_path / "repository"


@pytest.fixture
def hub(repository: Path, fetched: list[str], asked: list[str]) -> Iterator[str]:
    handler = type("Handler", (Hub,), {"folder": repository, "fetched": fetched, "asked": asked})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def run(tmp_path: Path, hub: str, *command: str, **extra: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HF_ENDPOINT": hub, "HF_HOME": str(tmp_path / "cache"), **extra}
    return subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, timeout=120, env=environment, check=False
    )


INSPECT = ("-m", "faasmoe.cli.main", "inspect")
RESOLVE = """
import sys
from faasmoe.errors import UserError
from faasmoe.model.checkpoint.source import resolve
try:
    print(*(f.name for f in resolve("org/tiny").folder.iterdir()))
except UserError as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""
SMALL = {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"}


def test_a_hub_id_is_downloaded_and_then_found_offline(
    hub: str, repository: Path, fetched: list[str], tmp_path: Path
) -> None:
    older = {"weight_map": {"a": "model-00001-of-00001.safetensors"}}  # one file wins over shards
    (repository / INDEX_FILE).write_text(json.dumps(older))
    (repository / "model-00001-of-00001.safetensors").write_text("older")
    first = run(tmp_path, hub, *INSPECT, "org/tiny", "--json")
    assert first.returncode == 0, first.stderr
    assert json.loads(first.stdout)["model"] == "org/tiny"
    assert "100%" in first.stderr  # the progress bar
    assert set(fetched) == {*SMALL, INDEX_FILE, "model.safetensors"}
    again = run(tmp_path, hub, "-c", RESOLVE, HF_HUB_OFFLINE="1")
    assert set(again.stdout.split()) == set(fetched)


def test_a_revision_is_served_under_the_model_s_name(hub: str, asked: list[str], tmp_path: Path) -> None:
    shown = run(tmp_path, hub, *INSPECT, "org/tiny@v1.2", "--json")
    assert shown.returncode == 0, shown.stderr
    assert json.loads(shown.stdout)["model"] == "org/tiny"
    paths = [path for path in asked if "/org/tiny" in path]
    assert paths[0] == "/api/models/org/tiny/revision/v1.2"
    assert all(COMMIT in path or "v1.2" in path for path in paths)
    bad = run(tmp_path, hub, *INSPECT, "org/tiny@")
    assert bad.returncode == 2
    assert bad.stderr.strip() == "error: org/tiny@ names no revision after @; leave it out for the main branch"


def test_a_gguf_file_alone_is_fetched(hub: str, repository: Path, fetched: list[str], tmp_path: Path) -> None:
    model = save_model("olmoe", tmp_path / "saved")
    for name in ("Tiny-F16.gguf", "Tiny-F32.gguf"):
        write_gguf(model, repository / name, lambda _, kind=name[5:8]: GGMLQuantizationType[kind])
    shown = run(
        tmp_path, hub, *INSPECT, "org/tiny@v1:Tiny-F16.gguf", "--json", FAASMOE_CACHE=str(tmp_path / "own")
    )
    assert shown.returncode == 0, shown.stderr
    assert json.loads(shown.stdout)["model"] == "Tiny-F16"
    assert fetched == ["Tiny-F16.gguf"]
    bad = run(tmp_path, hub, *INSPECT, "org/tiny:Tiny-Q4_K_M.gguf")
    assert bad.returncode == 2
    assert bad.stderr.splitlines()[-1] == (
        "error: org/tiny holds no file Tiny-Q4_K_M.gguf; its GGUF files are Tiny-F16.gguf, Tiny-F32.gguf"
    )


def test_only_the_shards_that_will_be_loaded_are_fetched(
    hub: str, repository: Path, fetched: list[str], tmp_path: Path
) -> None:
    tensors = load_file(repository / "model.safetensors")
    (repository / "model.safetensors").unlink()
    names = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    parts = [dict(list(tensors.items())[i::2]) for i in (0, 1)]
    for name, part in zip(names, parts, strict=True):
        save_file(part, repository / name, {"format": "pt"})
    index = {"weight_map": {key: name for name, part in zip(names, parts, strict=True) for key in part}}
    (repository / INDEX_FILE).write_text(json.dumps(index))
    (repository / "original").mkdir()
    for name in ("model.fp16.safetensors", "consolidated.safetensors", "x.gguf", "pytorch_model.bin", "README.md",
                 "original/consolidated.00.pth", "original/config.json", "original/model.safetensors"):  # fmt: skip
        (repository / name).write_text("large")
    done = run(tmp_path, hub, "-c", RESOLVE)
    assert done.returncode == 0, done.stderr
    assert set(fetched) == {*SMALL, INDEX_FILE, *names}
    assert set(fetched[-2:]) == set(names)
    assert len(fetched) == len(set(fetched))


DENSE = {
    "model_type": "llama",
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "vocab_size": 128,
    "num_attention_heads": 4,
}


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"config.json": json.dumps(DENSE)}, "UnsupportedModel: llama is a dense model"),
        (
            {"adapter_config.json": '{"base_model_name_or_path": "org/base"}'},
            "an adapter (LoRA) of the model org/base",
        ),
    ],
)
def test_weights_are_not_fetched_for_a_refusal(
    hub: str, repository: Path, fetched: list[str], tmp_path: Path, files: dict[str, str], said: str
) -> None:
    for name, text in files.items():
        (repository / name).write_text(text)
    done = run(tmp_path, hub, "-c", RESOLVE)
    assert done.returncode == 1
    assert said in done.stderr
    assert not [name for name in fetched if name.endswith(".safetensors")]


@pytest.mark.parametrize(
    ("removed", "added", "said"),
    [
        ("config.json", "a.Q4.gguf", "UnsupportedModel: org/tiny holds no config.json, but a.Q4.gguf: a GGUF"),
        ("config.json", "sub/config.json", "give one of them: org/tiny/sub"),
        (
            "model.safetensors",
            "pytorch_model.bin",
            "UnsupportedModel: org/tiny holds neither model.safetensors nor",
        ),
    ],
)
def test_other_repositories_are_told_what_they_are(
    hub: str, repository: Path, fetched: list[str], tmp_path: Path, removed: str, added: str, said: str
) -> None:
    (repository / removed).unlink()
    (repository / added).parent.mkdir(exist_ok=True)
    (repository / added).write_text("large")
    done = run(tmp_path, hub, "-c", RESOLVE)
    assert said in done.stderr
    assert added not in fetched


def test_an_unknown_id_is_one_line(hub: str, tmp_path: Path) -> None:
    done = run(tmp_path, hub, *INSPECT, "org/other")
    assert done.returncode == 2
    assert done.stderr.startswith("error: org/other")
    assert len(done.stderr.strip().splitlines()) == 1
