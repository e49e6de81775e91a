"""What model servers tell of themselves, and that nothing they do holds anybody up."""

from __future__ import annotations

import http.server
import json
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from netclawd.adapters.model_servers import ask_window, find_local, list_models
from tests.counterparts import ChatServer, MessagesServer

MODELS = {"object": "list", "data": [{"id": "m", "object": "model"}]}


class Told:
    """A server that has one answer for each path."""

    def __init__(self, answers: Mapping[str, Any]) -> None:
        told = self
        #: Paths, with the key that came along.
        self.asked: list[tuple[str, str | None]] = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                told.asked.append((self.path, self.headers.get("Authorization")))
                found = answers.get(self.path)
                body = found if isinstance(found, bytes) else json.dumps(found).encode()
                self.send_response(404 if found is None else 200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None: ...

        self._server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def tell() -> Iterator[Any]:
    servers: list[Told] = []

    def make(answers: Mapping[str, Any]) -> Told:
        servers.append(Told(answers))
        return servers[-1]

    yield make
    for server in servers:
        server.close()


@pytest.fixture
def silent() -> Iterator[int]:
    """A port where connections are made and never answered."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_what_answers_in_the_right_form_is_found_and_the_rest_holds_nobody_up(
    tell: Any, silent: int
) -> None:
    right = tell({"/v1/models": {"data": [{"id": "a", "owned_by": "llamacpp"}, {"id": "b"}]}})
    wrong = tell({"/v1/models": b"<html>"})
    empty = tell({"/v1/models": {"data": []}})
    odd = tell({"/v1/models": {"data": [{"id": 3}, {"id": "\x1b[2J"}, 5]}})
    ours = tell({"/v1/models": {"data": [{"id": "netclaw", "owned_by": "netclawd"}]}})
    others = [server.port for server in (wrong, empty, odd, ours, right)]
    ports = [(port, "Ollama") for port in (silent, 1, *others)]
    began = time.monotonic()
    found = find_local(ports, timeout_s=0.5)
    assert time.monotonic() - began < 3.0
    assert [(server.name, server.base_url, server.models) for server in found] == [
        ("llama.cpp", right.url, ("a", "b"))
    ]


def test_a_server_that_drips_is_given_up(tell: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip() -> None:
            connection, _ = listener.accept()
            with connection:
                try:
                    while True:
                        connection.sendall(b"H")
                        time.sleep(0.05)  # The server's own pace.
                except OSError:
                    pass

        thread = threading.Thread(target=drip)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        assert list_models("openai", url, None, timeout_s=0.3) == ()
        thread.join(10.0)
        assert not thread.is_alive(), "the connection is closed"


def test_models_are_asked_for_with_the_key_that_their_kind_has() -> None:
    with ChatServer(api_key="k", models=["a", "b"]) as chat:
        assert list_models("openai", chat.base_url, "k") == ("a", "b")
        assert list_models("openai", chat.base_url, "wrong") == ()
    with MessagesServer(api_key="k", models=["c"]) as messages:
        assert list_models("anthropic", messages.base_url, "k") == ("c",)


def test_a_long_list_comes_newest_first(tell: Any) -> None:
    rows = [{"id": f"m{n}", "created": n} for n in range(30)]
    assert list_models("openai", tell({"/v1/models": {"data": rows}}).url, None)[:2] == (
        "m29",
        "m28",
    )


@pytest.mark.parametrize(
    ("model", "path", "answer", "tokens"),
    [
        ({"max_model_len": 8192, "owned_by": "vllm"}, "", None, 8192),
        (
            {"owned_by": "llamacpp"},
            "/props",
            {"default_generation_settings": {"n_ctx": 4096}},
            4096,
        ),
        (
            {"owned_by": "library"},
            "/api/ps",
            {"models": [{"name": "m", "context_length": 2048}]},
            2048,
        ),
        ({"owned_by": "library"}, "/api/ps", {"models": []}, None),
        ({"owned_by": "library"}, "/api/ps", {"models": [{"name": "m"}]}, None),
        ({"max_model_len": True}, "", None, None),
        ({}, "/props", {"default_generation_settings": {"n_ctx": 4096}}, None),
    ],
)
def test_the_window_is_what_is_told_and_a_key_goes_to_no_other_path(
    tell: Any, model: Mapping[str, Any], path: str, answer: Any, tokens: int | None
) -> None:
    server = tell({"/v1/models": {"data": [{"id": "m", **model}]}, path: answer})
    assert ask_window("openai", server.url, "m", "k") == tokens
    assert {key for asked, key in server.asked if asked != "/v1/models"} <= {None}
