"""With which configuration a daemon begins: the file's, or the last good one.

Pure. Whoever stopped the daemon cleanly and starts it again stands beside it: a bad file is then an
error to be seen. Whoever finds it started again after a crash does not: then the last good
configuration is served, loudly, instead of nothing. "Bad" is a file that can't be read or is wrong,
and after a crash also one that was refused, rolled back, or never got ready.
"""

from __future__ import annotations

from netclawd.core.events import Refusal
from netclawd.core.manifest import Manifest
from netclawd.core.settings import OnInvalid, Snapshot
from netclawd.core.values import frozen
from netclawd.errors import ConfigError, ConfigSyntaxError


@frozen
class RefusedConfig:
    """A configuration that was refused or rolled back, remembered in ``state/refused.cbor``."""

    #: Digest of the whole, secrets included.
    digest: str
    refusal: Refusal


@frozen
class Beginning:
    """What a start serves, and what it says of the file if it serves something else."""

    snapshot: Snapshot
    refusal: Refusal | None = None
    #: Digest that is not tried again by itself; None when the file has none.
    refused_digest: str | None = None


@frozen
class Past:
    """What earlier starts have left."""

    #: The manifest that waits; None when there is none or it can't be read.
    manifest: Manifest | None
    #: ``state/last-good.toml``, judged anew; None when there is none or it isn't good any more.
    last_good: Snapshot | None
    refused: RefusedConfig | None

    @property
    def ended_cleanly(self) -> bool:
        """Whether the last daemon stopped after a whole drain."""
        manifest = self.manifest
        return manifest is not None and manifest.reason == "stop" and manifest.settled


def judge_beginning(found: Snapshot | ConfigError, mode: OnInvalid | None, past: Past) -> Beginning:
    """Return what to serve, or raise the ConfigError that ends the start.

    ``found`` is the reading of the file, ``mode`` what it says of ``daemon.on_invalid_config`` if so
    much of it can be read.
    """
    if past.ended_cleanly or past.last_good is None:
        return _the_file(found)
    if isinstance(found, Snapshot):
        refusal = _why_not_again(found, past)
        if refusal is None:
            return Beginning(found)
        return Beginning(past.last_good, refusal, found.digest)
    in_force = mode or past.last_good.settings.daemon.on_invalid_config
    if in_force is OnInvalid.ABORT and not isinstance(found, ConfigSyntaxError):
        raise found
    return Beginning(past.last_good, Refusal(found.slug, found.what, found.remedy))


def _the_file(found: Snapshot | ConfigError) -> Beginning:
    if isinstance(found, ConfigError):
        raise found
    return Beginning(found)


def _why_not_again(found: Snapshot, past: Past) -> Refusal | None:
    """Say why a file that can be read is not tried again after a crash; None when it may be."""
    assert past.last_good is not None
    if found.digest == past.last_good.digest:
        return None
    if past.refused is not None and past.refused.digest == found.digest:
        return past.refused.refusal
    manifest = past.manifest
    if manifest is None or manifest.reason != "reload" or not manifest.settled:
        return None
    if found.published_digest != manifest.new_digest or manifest.old_digest == manifest.new_digest:
        return None
    return Refusal(
        "boot-crashed",
        "The process ended while it changed over to this configuration.",
        "Look at the log, then try it again: `netclaw reload`.",
    )
