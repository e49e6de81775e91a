"""What ``[slack]`` must be like to be served: each refusal has its words and its remedy."""

from __future__ import annotations

from typing import Any

import pytest

from netclawd.core.slack import Route, judge_slack, read_route
from netclawd.errors import ConfigMeaningError

BOTH = {"app_token": "env:A", "bot_token": "env:B", "base_url": "https://slack.com/api/"}
TOKENS = {"slack.app_token": "xapp-1", "slack.bot_token": "xoxb-1"}


def test_without_tokens_nothing_is_asked_of_the_rest() -> None:
    judge_slack({"base_url": "http://elsewhere.example/"}, {}, "")


@pytest.mark.parametrize("sdk", ["3.45.0", "3.48.1", "4.0", "10.2.dev1", None])
def test_both_tokens_and_a_known_slack_sdk_are_served(sdk: str | None) -> None:
    judge_slack(BOTH, TOKENS, sdk)


@pytest.mark.parametrize(
    ("table", "secrets", "sdk", "what", "remedy"),
    [
        ({"bot_token": ""}, {}, "3.48", "slack.bot_token isn't", "Set slack.bot_token"),
        ({"app_token": None}, {}, "3.48", "slack.app_token isn't", "Set slack.app_token"),
        (
            {},
            {"slack.app_token": "xoxb-secret"},
            "3.48",
            "not an app-level token",
            "App-Level Tokens",
        ),
        ({}, {"slack.bot_token": "xapp-secret"}, "3.48", "not a bot token", "Bot User OAuth Token"),
        ({}, {"slack.bot_token": "xoxp-secret"}, "3.48", "not a bot token", "Bot User OAuth Token"),
        ({}, {}, "", "isn't installed", "pip install 'slack_sdk>=3.45'"),
        ({}, {}, "", "isn't installed", "--break-system-packages"),
        ({}, {}, "3.44.9", "3.44.9 is installed", "pip install --upgrade"),
        ({}, {}, "2.9", "2.9 is installed", "pip install --upgrade"),
        ({}, {}, "unknown", "unknown is installed", "pip install --upgrade"),
        ({}, {}, "\x1b[2J", "of an unknown version", "pip install --upgrade"),
        ({"base_url": "http://slack.com/api/"}, {}, "3.48", "in the clear", "https://"),
        ({"base_url": "https://a:b@slack.com/api/"}, {}, "3.48", "no address", "https://slack.com"),
        ({"base_url": "https://slack.com/api/?x=/"}, {}, "3.48", "no address", "https://slack.com"),
        ({"base_url": "https:///api/"}, {}, "3.48", "no address", "https://slack.com"),
        ({"base_url": "https://[/"}, {}, "3.48", "no address", "https://slack.com"),
        ({"base_url": "https://slack.com:x/"}, {}, "3.48", "no address", "https://slack.com"),
    ],
)
def test_what_cannot_be_served_is_refused_in_words(
    table: dict[str, Any], secrets: dict[str, str], sdk: str, what: str, remedy: str
) -> None:
    with pytest.raises(ConfigMeaningError) as caught:
        judge_slack({**BOTH, **table}, {**TOKENS, **secrets}, sdk)
    assert what in caught.value.what
    assert remedy in caught.value.remedy
    assert "secret" not in str(caught.value).replace("The secret is", "")
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize("host", ["127.0.0.1:80", "localhost", "[::1]:8080", "slack.localhost"])
def test_a_loopback_address_needs_no_tls(host: str) -> None:
    judge_slack({**BOTH, "base_url": f"http://{host}/api/"}, TOKENS, "3.48")


def test_a_route_is_read_as_it_is_written() -> None:
    route = Route("T1", "D1", "1.2")
    assert read_route(str(route)) == route
    assert route.direct
    assert not Route("T1", "C1", "1.2").direct
    for text in ("", "T1", "T1/C1", "T1/C1/", "/C1/1", "T/C/1/2"):
        assert read_route(text) is None
