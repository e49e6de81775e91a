"""What a failed call means for a message, and in which words people hear of it.

Pure. Slack's codes: https://docs.slack.dev/reference/methods/chat.postMessage.
"""

from __future__ import annotations

from netclawd.adapters.slack.web import CallError
from netclawd.ports.channels import (
    DeliveryError,
    TryLaterError,
    UncertainError,
    UndeliverableError,
)

#: Codes that nothing but another token or another right of the app mends, with the remedy.
REFUSALS = {
    "invalid_auth": "Store the one that the app's page shows, and run `netclaw reload`.",
    "not_authed": "Store the one that the app's page shows, and run `netclaw reload`.",
    "account_inactive": "Install the app in the workspace again, store its new token, and run `netclaw"
    " reload`.",
    "token_revoked": "Make a new one on the app's page, store it, and run `netclaw reload`.",
    "token_expired": "Switch token rotation off in the app's settings, store a new token, and run `netclaw"
    " reload`.",
    "not_allowed_token_type": "Store an app-level token (xapp-) in app_token and a bot token (xoxb-) in"
    " bot_token.",
    "no_permission": "Give the app-level token the scope connections:write.",
    "missing_scope": "Give the app the scopes of the README's manifest, and install it again.",
    "org_login_required": "The workspace is being moved; try it again when that is done.",
    "ekm_access_denied": "Ask the workspace's administrators to let the app in.",
    "team_access_not_granted": "Ask the workspace's administrators to let the app in.",
    "access_denied": "Ask the workspace's administrators to let the app in.",
    "forbidden_team": "Install the app in this workspace.",
    "link_disabled": "Switch Socket Mode on in the app's settings.",
}
#: What people call the two tokens.
APP_TOKEN, BOT_TOKEN = "app-level token", "bot token"
#: Refusals of one method, not of the whole app.
_OF_ONE = frozenset({"missing_scope", "no_permission", "access_denied"})
_PERMANENT = {
    "channel_not_found": "Slack doesn't know the conversation, or the app is not in it (channel_not_found)."
    " Invite the app there, then retry it.",
    "not_in_channel": "The app is not in the channel (not_in_channel). Invite it there, then retry it.",
    "is_archived": "The channel is archived (is_archived). Unarchive it and retry it, or drop it.",
    "thread_not_found": "The thread was deleted (thread_not_found). Drop it.",
    "cannot_reply_to_message": "The thread can't be replied to (cannot_reply_to_message). Drop it.",
    "restricted_action": "The workspace lets apps not post there (restricted_action). Ask its"
    " administrators.",
    "messages_tab_disabled": "The app's messages tab is off (messages_tab_disabled). Switch it on under App"
    " Home, then retry it.",
    "missing_scope": "The app lacks a scope (missing_scope). Give it those of the README's manifest, install"
    " it again and retry it.",
    "msg_too_long": "Slack takes not even small parts of it (msg_too_long). Drop it.",
}
_FOR_NOW = frozenset(
    {"service_unavailable", "request_timeout", "message_limit_exceeded", "team_added_to_org"}
)
#: After a refusal of the whole app nothing is tried for so long.
REFUSED_S = 300.0


def is_refusal(error: CallError) -> bool:
    """Whether it means that Slack doesn't take us at all."""
    return error.code in REFUSALS and error.code not in _OF_ONE


def trouble(error: CallError, token: str) -> str:
    """Say why there is no connection, and what to do where that is known; ``token``: whose call it was."""
    if error.code not in REFUSALS:
        return f"Slack can't be reached: {error.why}."
    lacks_scope = token == APP_TOKEN and error.code in _OF_ONE
    remedy = REFUSALS["no_permission"] if lacks_scope else REFUSALS[error.code]
    return f"Slack refuses the {token} ({error.code}). {remedy}"


def _pause(error: CallError) -> str:
    return f"{error.why.capitalize()}."


def after_post(error: CallError) -> DeliveryError:
    """Say what became of a new message."""
    if error.maybe_done:
        return UncertainError(f"Slack's answer to it is missing: {error.why}.")
    if error.after_s is not None:
        return TryLaterError(_pause(error), error.after_s, everything=True)
    return after_edit(error)


def after_edit(error: CallError) -> DeliveryError:
    """Say what became of what may be done again. Slack limits each method by itself: where it wants no more
    edits or looks for a while, what is new is posted all the same."""
    if error.after_s is not None:
        return TryLaterError(_pause(error), error.after_s)
    if is_refusal(error):
        return TryLaterError(trouble(error, BOT_TOKEN), REFUSED_S, everything=True)
    if error.code in _PERMANENT:
        return UndeliverableError(_PERMANENT[error.code])
    if error.code and error.code not in _FOR_NOW and not error.maybe_done:
        return UndeliverableError(
            f"Slack refuses it ({error.code}). Drop it, or mend that and retry it."
        )
    return TryLaterError(f"Slack can't be reached: {error.why}.")
