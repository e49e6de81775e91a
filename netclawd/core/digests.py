"""Digests of a configuration: what decides whether there is anything to restart for.

Pure. Two readings have the same digest when every effective value, every secret behind a
reference and the text of the system prompt are the same, however the file is written. The
latter two enter as keyed hashes, so that the digest of a short secret can't be turned round; the
published digest leaves them out.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Any


def canonical(values: Mapping[str, Any]) -> bytes:
    """Write values in the one form that is hashed: JSON, keys sorted, no spaces, ASCII."""
    return json.dumps(
        values, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    ).encode()


def published_digest(effective: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical(effective)).hexdigest()


def full_digest(effective: Mapping[str, Any], secrets: Mapping[str, str], key: bytes) -> str:
    """Digest the values and, by the key of its setting, each secret and the system prompt."""
    hashed = {
        name: hmac.new(key, secret.encode(), hashlib.sha256).hexdigest()
        for name, secret in secrets.items()
    }
    return hashlib.sha256(canonical({"effective": effective, "secrets": hashed})).hexdigest()
