"""One call of a model, on a thread of its own, so that Ctrl-C and a deadline end it."""

from __future__ import annotations

import threading
import time

from netclawd.cli.progress import Progress
from netclawd.core.session import Message, ModelReply, ModelRequest, Role, ToolSpec
from netclawd.daemon.board import CancelFlag
from netclawd.errors import ProviderTimeoutError
from netclawd.ports import Cancelled, Provider

#: A local server may have to load the model first, seconds.
CALL_S = 30.0
#: A cancelled call has this long to come to its end, seconds.
_CANCEL_S = 1.0
_LOOK_S = 0.2
#: With a tool, as every call of the daemon: some servers and models refuse that.
_REQUEST = ModelRequest(
    messages=(Message(Role.USER, "Answer with the word ok."),),
    tools=(ToolSpec("clock", "Tells the time.", {"type": "object", "properties": {}}),),
    options={"max_tokens": 16},
)


class Attempt:
    """Asks for a word."""

    def __init__(self, provider: Provider, model: str) -> None:
        self._provider = provider
        self._model = model
        self._cancel = CancelFlag()
        self._reply: ModelReply | None = None
        self._error: Exception | None = None
        self._ended = threading.Event()

    def run(self, *, quiet: bool) -> None:
        """Wait for the reply; ProviderError, or another one, says why there is none."""
        thread = threading.Thread(target=self._reply_to, name="model-call", daemon=True)
        deadline = time.monotonic() + CALL_S
        thread.start()
        try:
            with Progress(quiet=quiet) as progress:
                while not self._ended.wait(_LOOK_S) and (left := deadline - time.monotonic()) > 0:
                    progress.show(f"{self._model} is asked for a word, for {left:.0f} s at most …")
        finally:
            if not self._ended.is_set():
                self._cancel.set()
            thread.join(_CANCEL_S)
        if self._error is not None and not isinstance(self._error, Cancelled):
            raise self._error
        if self._reply is None:
            raise ProviderTimeoutError(
                f"{self._model} has not answered within {CALL_S:.0f} s.",
                "See whether the server is up; one that has to load a large model first is quicker the "
                "second time.",
            )

    def _reply_to(self) -> None:
        try:
            self._reply = self._provider.reply(_REQUEST, lambda _text: None, self._cancel)
        except Exception as error:  # noqa: BLE001 - raised in the thread that waits
            self._error = error
        finally:
            self._ended.set()
