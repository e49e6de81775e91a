"""Which channels the settings make, and how slack_sdk is found without being imported."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from netclawd.adapters.settings_file import SettingsFile
from netclawd.cli import channels
from netclawd.core.settings import Settings
from netclawd.daemon.signals import spawn
from netclawd.errors import ConfigMeaningError

SLACK = '[slack]\napp_token = "env:A"\nbot_token = "env:B"\n'
VALUES = {"env:A": "xapp-1", "env:B": "xoxb-1"}


@pytest.fixture
def other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Have another slack_sdk before the one that is installed; its folder."""
    folder = tmp_path / "slack_sdk"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise RuntimeError('imported')\n")
    for name in [name for name in sys.modules if name.split(".")[0] == "slack_sdk"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(tmp_path))
    return folder


def settings(text: str) -> Settings:
    found = channels.find_slack_sdk
    file = SettingsFile("netclaw.toml", {}, b"", VALUES.__getitem__, find_sdk=found)
    return file.judge(text.encode()).settings


@pytest.mark.parametrize(
    ("version", "found"),
    [
        ('"""The version."""\n\n__version__ = "3.44.0"\n', "3.44.0"),
        ("__version__ = '3.46.1'\n", "3.46.1"),
        ("VERSION = 3\n", "unknown"),
        ("\udcff", "unknown"),
    ],
)
def test_the_version_is_read_and_nothing_is_imported(other: Path, version: str, found: str) -> None:
    (other / "version.py").write_bytes(version.encode("utf-8", "surrogateescape"))
    assert channels.find_slack_sdk() == found
    assert "slack_sdk" not in sys.modules


def test_an_older_one_is_a_wrong_configuration_and_without_slack_it_is_none(other: Path) -> None:
    (other / "version.py").write_text('__version__ = "3.44.9"\n')
    with pytest.raises(ConfigMeaningError, match=r"3\.44\.9 is installed"):
        settings(SLACK)
    assert settings("").slack is None


def test_without_slack_sdk_slack_is_a_wrong_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channels, "find_spec", lambda _: None)
    with pytest.raises(ConfigMeaningError, match=r"slack_sdk isn't installed"):
        settings(SLACK)


@pytest.mark.parametrize("missing", ["app_token", "bot_token"])
def test_one_token_alone_is_a_wrong_configuration(missing: str) -> None:
    lines = [line for line in SLACK.splitlines() if missing not in line]
    with pytest.raises(ConfigMeaningError, match=f"slack.{missing} isn't"):
        settings("\n".join(lines))


def test_a_channel_is_made_where_one_is_set_and_it_does_nothing_yet() -> None:
    assert channels.make_channels(settings(""), VALUES.__getitem__, spawn) == ()
    (slack,) = channels.make_channels(settings(SLACK), VALUES.__getitem__, spawn)
    assert slack.name == "slack"
    assert slack.state().phase.value == "connecting"
