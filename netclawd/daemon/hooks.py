"""What becomes of a webhook whose signature was found genuine: a message of its session, once for ever.

The delivery's id is the source id of the input, so a delivery that comes again is the one that was, also
when the template has changed meanwhile and would make another text of it.
"""

from __future__ import annotations

from collections.abc import Callable

from netclawd.core.session import API, Admitted, SessionId
from netclawd.daemon.image import Image
from netclawd.errors import ConflictError, KeyReusedError, NotFoundError

#: Admits a text with a source id to a session, ``deferred`` or not.
Admit = Callable[[SessionId, str, str, bool], Admitted]


def receive_hook(
    image: Image, new_id: Callable[[str], str], admit: Admit, delivery: tuple[str, str, str]
) -> tuple[SessionId, Admitted]:
    """Admit a delivery (name of the hook, id, text) as :meth:`netclawd.ports.Service.receive_hook` says."""
    name, delivery_id, text = delivery
    source_id = f"hook:{name}:{delivery_id}"
    clock, store = image.parts.clock, image.the_store()
    # In any session: the configuration may have named this one, or none, only since the last attempt.
    if (known := store.delivered(source_id)) is not None:
        return known
    session_id = _configured(image, name) or store.outgoing.session_of(API, _alias(name))
    deferred = image.gate.judge(clock.monotonic())
    if session_id is None:
        session_id = store.open_session(_alias(name), SessionId(new_id("s")), clock.wall()).id
    try:
        return session_id, admit(session_id, text, source_id, deferred)
    except KeyReusedError:
        # Another attempt of it, with another text, has come in just now.
        known = store.delivered(source_id)
        if known is None:
            raise
        return known


def _alias(name: str) -> str:
    return f"hook:{name}"


def _configured(image: Image, name: str) -> SessionId | None:
    """Return the session that the configuration names, None when the hook has one of its own."""
    hook = image.settings.hooks.get(name)
    if hook is None:
        raise NotFoundError("There is no webhook of this name.", "Look at the configuration.")
    if not hook.session:
        return None
    try:
        return image.the_store().session(SessionId(hook.session)).id
    except NotFoundError:
        raise ConflictError(
            f"hooks.{name}.session names a session that does not exist.",
            "Set it to the id of one (netclaw sessions list), or leave it out: the hook then has its own.",
        ) from None
