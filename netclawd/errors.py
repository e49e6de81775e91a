"""Every error that a person or a client may meet: one tree, each with a slug, an exit code and a remedy.

Pure. The slug is protocol: it stands in problem+json bodies, in the control protocol and in
``--json`` output, and never changes meaning. The text says what happened and why; the remedy says
what to do. An error carries no secret and no text of a user.
"""

from __future__ import annotations

from typing import ClassVar

EXIT_OK = 0
EXIT_FAILURE = 1
EXIT_USAGE = 2
#: A temporary failure: the supervisor should start us again (sysexits EX_TEMPFAIL).
EXIT_TEMPORARY = 75
#: The configuration is wrong: starting again changes nothing (sysexits EX_CONFIG).
EXIT_CONFIG = 78


class NetclawError(Exception):
    """Base of all: ``what`` in one sentence, ``remedy`` in one sentence."""

    slug: ClassVar[str] = "internal-error"
    exit_code: ClassVar[int] = EXIT_FAILURE
    #: The HTTP status under which the API reports it.
    status: ClassVar[int] = 500

    def __init__(self, what: str, remedy: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.what} {self.remedy}".strip()


class ConfigError(NetclawError):
    """The configuration can't be used."""

    slug = "config-invalid"
    exit_code = EXIT_CONFIG


class ConfigSyntaxError(ConfigError):
    """The file can't be read or parsed; it may be half-written."""

    slug = "config-syntax"


class ConfigAbsentError(ConfigSyntaxError):
    """The file is missing or empty while the daemon runs: it counts as half-written, not as a change."""

    slug = "config-absent"

    def __init__(self, what: str, remedy: str = "", *, missing: bool) -> None:
        super().__init__(what, remedy)
        #: There is no file at all, rather than one without content.
        self.missing = missing


class ConfigSchemaError(ConfigError):
    """The file parses but has an unknown key or a value of the wrong type or range."""

    slug = "config-schema"


class ConfigMeaningError(ConfigError):
    """Each value is well-formed, but together they can't be served (exposure, addresses, secrets)."""

    slug = "config-meaning"


class ConfigNotWrittenError(NetclawError):
    """The configuration file can't be changed; it is what it was."""

    slug = "config-not-written"


class EditorError(NetclawError):
    """The editor can't be started or ended with an error."""

    slug = "editor-failed"


class RehearsalError(NetclawError):
    """The child that rehearses a configuration with the code on disk failed."""

    slug = "rehearsal-failed"


class AddressError(NetclawError):
    """An address can't be bound or adopted."""

    slug = "address-unavailable"
    exit_code = EXIT_TEMPORARY


class AlreadyRunningError(NetclawError):
    """Another daemon holds the lock of this home."""

    slug = "already-running"


class NotRunningError(NetclawError):
    """No daemon answers at the control socket."""

    slug = "not-running"
    exit_code = 3


class ControlError(NetclawError):
    """The daemon answered a control request with an error that has its own slug."""

    slug = "control-failed"


class NoAnswerError(ControlError):
    """Something listens at the control socket and does not answer in time."""

    slug = "no-answer"


class SupervisorError(NetclawError):
    """systemd owns this home and can't be asked, or does not do what was asked."""

    slug = "supervisor-failed"


class StoreError(NetclawError):
    """The session store can't be opened, read or written."""

    slug = "store-failed"


class StoreFullError(StoreError):
    """There is no room for what is to be stored."""

    slug = "store-full"
    status = 507
    exit_code = EXIT_TEMPORARY


class StoreLockedError(StoreError):
    """Another program holds the session store."""

    slug = "store-locked"
    status = 503
    exit_code = EXIT_TEMPORARY


class StoreReadOnlyError(StoreError):
    """The session store can be read but not written."""

    slug = "store-read-only"
    status = 503


class StoreGoneError(StoreError):
    """The files of the open session store are no longer under their names."""

    slug = "store-gone"
    status = 503


class StoreDamagedError(StoreError):
    """The session store, or its write-ahead log, is not what was written."""

    slug = "store-damaged"


class StoreNewerError(StoreError):
    """The session store was written by a newer release, and this one would misread it."""

    slug = "store-newer"


class StoreClosedError(StoreError):
    """A commit came after the store was closed for a handoff."""

    slug = "store-closed"
    status = 503


class FencedError(StoreError):
    """A commit by a generation or a lease that has been superseded."""

    slug = "fenced"


class ProviderError(NetclawError):
    """A model provider refused, failed or answered what can't be understood."""

    slug = "provider-failed"
    status = 502


class ProviderUnauthorizedError(ProviderError):
    """The model server refused the key, or wants one (401, 403)."""

    slug = "provider-unauthorized"


class ProviderNotFoundError(ProviderError):
    """The model server has no such path or model (404)."""

    slug = "provider-not-found"


class ProviderBusyError(ProviderError):
    """The model server asks to come back later (429, overloaded), and still did after the retries."""

    slug = "provider-busy"
    status = 503


class ProviderUnavailableError(ProviderError):
    """The model server can't be reached, or failed (5xx), and still did after the retries."""

    slug = "provider-unavailable"


class ProviderTimeoutError(ProviderError):
    """The model server took longer than one of its timeouts."""

    slug = "provider-timeout"
    status = 504


class ProviderRedirectedError(ProviderError):
    """The model server sends its clients elsewhere; the key isn't carried there."""

    slug = "provider-redirected"


class ProviderBadReplyError(ProviderError):
    """What answered is no model server of this kind: HTML, broken JSON, more than can be a reply."""

    slug = "provider-bad-reply"


class ProviderCutError(ProviderError):
    """A reply ended without a finish reason or an end marker; what had come of it is no answer."""

    slug = "provider-cut"


class ProviderRefusedError(ProviderError):
    """The model server refused the request (another 4xx)."""

    slug = "provider-refused"


class ContextOverflowError(ProviderError):
    """The conversation is larger than the model's window, says the model server."""

    slug = "context-overflow"


class ManifestError(NetclawError):
    """A manifest or handoff record is damaged, too large or not ours."""

    slug = "manifest-damaged"


class NotFoundError(NetclawError):
    """A session, turn or approval with that id does not exist."""

    slug = "not-found"
    status = 404


class KeyReusedError(NetclawError):
    """An idempotency key came again with another text."""

    slug = "idempotency-key-reused"
    status = 422


class BadRequestError(NetclawError):
    """The request can't be understood."""

    slug = "bad-request"
    status = 400


class SignatureError(NetclawError):
    """No signature of a webhook is that of who shares its secret with us."""

    slug = "bad-signature"
    status = 401


class TimestampError(NetclawError):
    """A webhook was signed too long ago, or in the future."""

    slug = "bad-timestamp"
    status = 400


class TemplateError(NetclawError):
    """The body of a webhook doesn't have what the hook's template asks for."""

    slug = "template-unfilled"
    status = 422


class ForbiddenError(NetclawError):
    """Who asks may not do that."""

    slug = "forbidden"
    status = 403


class ConflictError(NetclawError):
    """The thing asked for is not possible in the state that its object is in."""

    slug = "conflict"
    status = 409


class DrainingError(NetclawError):
    """New work is refused while the daemon restarts or stops."""

    slug = "draining"
    status = 503

    def __init__(self, what: str, remedy: str = "", *, retry_after_s: int = 1) -> None:
        super().__init__(what, remedy)
        #: Whole seconds after which a retry is worth while, at least 1.
        self.retry_after_s = retry_after_s


class CutError(NetclawError):
    """A drain cut what a client waited for."""

    slug = "cut-by-restart"
    status = 503


class TooManyCallsError(NetclawError):
    """As many model calls of clients run as may."""

    slug = "too-many-calls"
    status = 429


class HungUpError(NetclawError):
    """The client closed its connection, and had asked for nothing to go on then."""

    slug = "client-closed"
    status = 499
