"""The route of webhooks: a signed delivery becomes a message for the agent.

Its answer goes out when the message is durable. Until then nothing is written, so that whoever sent it
may send it again.
"""

from __future__ import annotations

from typing import Any

import falcon

from netclawd.adapters.http import sse
from netclawd.adapters.http.options import MAX_BODY_BYTES, HookOptions
from netclawd.core.webhooks import Delivery, check_delivery, fill, parse_secret, parse_template
from netclawd.errors import NotFoundError, SignatureError
from netclawd.ports import Service


def take_delivery(service: Service, options: HookOptions, req: Any, resp: Any, name: str) -> None:
    """Answer ``POST /api/hooks/{name}``: 202 when the message is durable, whenever it became so."""
    hook = options.hooks.get(name)
    if hook is None:
        raise NotFoundError(
            "There is no webhook of this name.",
            "Correct the name, or add [hooks.NAME] with its secret to the configuration.",
        )
    delivery = Delivery(
        req.get_header("webhook-id"),
        req.get_header("webhook-timestamp"),
        req.get_header("webhook-signature"),
        req.bounded_stream.read(),
    )
    try:
        delivery_id = check_delivery(delivery, parse_secret(options.secrets[name]), options.wall())
    except SignatureError:
        resp.set_header("WWW-Authenticate", "Webhook-Signature")  # RFC 9110 section 15.5.2
        raise
    text = fill(parse_template(hook.template), delivery.body, MAX_BODY_BYTES)
    session_id, admitted = service.receive_hook(name, delivery_id, text)
    resp.status = falcon.HTTP_202
    resp.data = sse.encode(
        {
            "input_id": admitted.input_id,
            "turn_id": admitted.turn_id,
            "session_id": session_id,
            "deferred": admitted.deferred,
            "fresh": admitted.fresh,
        }
    )
