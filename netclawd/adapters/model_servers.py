"""Asks model servers which models they have and how much those hold; finds the ones of this host.

For ``netclaw init`` alone, which offers what it learns and does without it: whatever a server does, the
answer is a list, a number or None, and comes within its deadline. Nothing is asked of a model here,
a redirect is not followed, and a key goes to no other path than the list of models.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from netclawd.core.interview import ModelServer

#: Where servers of this host listen unless they are told otherwise.
LOCAL_PORTS = ((11434, "Ollama"), (8080, "llama.cpp"), (8000, "vLLM"))
#: By the owner that a server names for its models.
_OWNERS = {"library": "Ollama", "llamacpp": "llama.cpp", "vllm": "vLLM"}
#: Our own API, behind which there is this very agent.
_OURS = "netclawd"
_LIMIT_BYTES = 4 * 1024 * 1024
_ANTHROPIC_VERSION = "2023-06-01"


def find_local(
    ports: Sequence[tuple[int, str]] | None = None, timeout_s: float = 0.5
) -> tuple[ModelServer, ...]:
    """Ask this host's loopback, all ports at once; servers in the order of the ports."""
    urls = [(f"http://127.0.0.1:{port}/v1", name) for port, name in ports or LOCAL_PORTS]
    asked = [_Ask(f"{url}/models") for url, _ in urls]
    deadline = time.monotonic() + timeout_s
    found = []
    for (url, name), ask in zip(urls, asked, strict=True):
        entries = _entries(ask.wait(deadline))
        owner = str(entries[0].get("owned_by", "")) if entries else _OURS
        if owner != _OURS:
            found.append(ModelServer(_OWNERS.get(owner, name), url, _ids(entries)))
    return tuple(found)


def list_models(
    kind: str, base_url: str, key: str | None, timeout_s: float = 5.0
) -> tuple[str, ...]:
    """Return the models that a server says it has; none when it doesn't answer with a list.

    A long list comes newest first, as far as the server tells.
    """
    entries = _list(kind, base_url, key, timeout_s)
    made = [entry.get("created") for entry in entries]
    if len(entries) > 20 and all(isinstance(at, int) for at in made):
        entries = sorted(entries, key=lambda entry: entry["created"], reverse=True)
    return _ids(entries)


def ask_window(
    kind: str, base_url: str, model: str, key: str | None, timeout_s: float = 5.0
) -> int | None:
    """Return how many tokens a model's window holds as it is served now, where the server tells.

    vLLM tells it with its models, llama.cpp among its properties, and Ollama of a model that is loaded.
    """
    if kind != "openai":
        return None
    deadline = time.monotonic() + timeout_s
    entries = _list(kind, base_url, key, timeout_s)
    entry = next((e for e in entries if e["id"] == model), None)
    if entry is None:
        return None
    root = base_url.rstrip("/").removesuffix("/v1")
    owner = entry.get("owned_by")
    if owner == "llamacpp":
        told = _Ask(f"{root}/props").wait(deadline)
        return _tokens(_inside(told, "default_generation_settings", "n_ctx"))
    if owner == "library" or urlsplit(base_url).port == 11434:
        loaded = _inside(_Ask(f"{root}/api/ps").wait(deadline), "models")
        rows = loaded if isinstance(loaded, list) else []
        named = [
            r for r in rows if isinstance(r, Mapping) and model in (r.get("name"), r.get("model"))
        ]
        return _tokens(named[0].get("context_length")) if named else None
    return _tokens(entry.get("max_model_len"))


def _list(kind: str, base_url: str, key: str | None, timeout_s: float) -> list[Mapping[str, Any]]:
    url, headers = f"{base_url.rstrip('/')}/models", {}
    if kind == "anthropic":
        url = f"{base_url.rstrip('/')}/v1/models"
        headers["anthropic-version"] = _ANTHROPIC_VERSION
    if key is not None:
        headers |= {"x-api-key": key} if kind == "anthropic" else {"Authorization": f"Bearer {key}"}
    return _entries(_Ask(url, headers).wait(time.monotonic() + timeout_s))


def _entries(answer: Any) -> list[Mapping[str, Any]]:
    """Return the models of an answer in the right form, else none."""
    data = _inside(answer, "data")
    if not isinstance(data, list):
        return []
    return [e for e in data if isinstance(e, Mapping) and _is_name(e.get("id"))]


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 256 and value.isprintable()


def _ids(entries: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(entry["id"] for entry in entries))


def _inside(value: Any, *names: str) -> Any:
    for name in names:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _tokens(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


class _Ask:
    """One GET on a thread of its own, since looking a name up knows no deadline."""

    def __init__(self, url: str, headers: Mapping[str, str] | None = None) -> None:
        self._url = url
        self._headers = {"Accept": "application/json", **(headers or {})}
        self._answer: Any = None
        self._socket: socket.socket | None = None
        self._given_up = False
        self._thread = threading.Thread(target=self._run, name="ask-models", daemon=True)
        self._thread.start()

    def wait(self, deadline: float) -> Any:
        """Return the JSON of the answer, None when there is none by the monotonic deadline."""
        try:
            self._thread.join(max(0.0, deadline - time.monotonic()))
        finally:
            self._given_up = True
            with contextlib.suppress(OSError, AttributeError):
                self._socket.shutdown(socket.SHUT_RDWR)  # type: ignore[union-attr]
        return self._answer

    def _run(self) -> None:
        # Whatever it may be: a name that can't be found, no HTTP, no JSON, a certificate.
        with contextlib.suppress(OSError, ValueError, http.client.HTTPException, RecursionError):
            self._answer = self._get()

    def _get(self) -> Any:
        parts = urlsplit(self._url)
        secure = parts.scheme == "https"
        connect = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        connection = connect(parts.hostname or "", parts.port, timeout=5.0)
        try:
            connection.connect()
            self._socket = connection.sock
            if self._given_up:
                return None
            connection.request(
                "GET", parts._replace(scheme="", netloc="").geturl(), headers=self._headers
            )
            response = connection.getresponse()
            body = response.read(_LIMIT_BYTES + 1)
            if response.status != http.client.OK or len(body) > _LIMIT_BYTES:
                return None
            return json.loads(body)
        finally:
            connection.close()
