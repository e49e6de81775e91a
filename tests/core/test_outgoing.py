"""What a question says once it was decided."""

from __future__ import annotations

import pytest

from netclawd.core.outgoing import answered
from netclawd.core.session import ApprovalState


@pytest.mark.parametrize(
    ("state", "by", "said"),
    [
        (ApprovalState.GRANTED, "uid 1000", "Granted by uid 1000."),
        (ApprovalState.DENIED, "uid 1000", "Denied by uid 1000."),
        (ApprovalState.DENIED, "", "Denied."),
        (ApprovalState.EXPIRED, "", "Nobody answered in time."),
        (
            ApprovalState.EXPIRED,
            "uid 1000",
            "Not needed any more: uid 1000 has cancelled this.",
        ),
    ],
)
def test_a_decided_question_says_what_became_of_it(
    state: ApprovalState, by: str, said: str
) -> None:
    assert answered("May I?", state, by) == f"May I?\n\n{said}"
