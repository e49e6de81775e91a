"""A sender of webhooks, as the specification of Standard Webhooks describes one."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

KEY = bytes(range(32))
SECRET = "whsec_" + base64.b64encode(KEY).decode()
OTHER_KEY = bytes(range(100, 132))


def signature(id_: str, timestamp: int | str, body: bytes, key: bytes = KEY) -> str:
    mac = hmac.new(key, f"{id_}.{timestamp}.".encode() + body, hashlib.sha256)
    return "v1," + base64.b64encode(mac.digest()).decode()


def headers(id_: str, timestamp: int | str, body: bytes, key: bytes = KEY) -> dict[str, str]:
    """Return the headers of one attempt."""
    return {
        "webhook-id": id_,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": signature(id_, timestamp, body, key),
        "Content-Type": "application/json",
    }


def encode(value: Any) -> bytes:
    return json.dumps(value).encode()
