"""When an approval that nobody has answered is denied. Pure.

The time it was asked at is durable, the timeout is the setting in force: a changed one counts for
what was asked before, too.
"""

from __future__ import annotations

from netclawd.core.session import Approval, ApprovalState
from netclawd.core.values import replace


def with_expiry(approval: Approval, timeout_s: float) -> Approval:
    """Say when a pending one expires; a decided one never does."""
    pending = approval.state is ApprovalState.PENDING
    return replace(approval, expires_at=approval.asked_at + timeout_s if pending else None)


def is_overdue(approval: Approval, timeout_s: float, now: float) -> bool:
    """Whether it waits for an answer that didn't come in time; ``now`` is wall clock."""
    expires_at = with_expiry(approval, timeout_s).expires_at
    return expires_at is not None and now >= expires_at
