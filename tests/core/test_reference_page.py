"""netclaw.toml(5) says what the schema says."""

from __future__ import annotations

from pathlib import Path

from netclawd.core.overrides import variable_for
from netclawd.core.reference_page import reference_page
from netclawd.core.schema import settings_of
from tests.core.test_settings import SCHEMA

PAGE = Path(__file__).parents[2] / "docs" / "netclaw.toml.5.md"


def test_the_page_is_current() -> None:
    assert PAGE.read_text() == reference_page(SCHEMA), "run `make docs`"


def test_the_page_names_every_setting_with_its_variable() -> None:
    page = reference_page(SCHEMA)
    for setting in settings_of(SCHEMA):
        assert f"`{setting.path[-1]}`" in page
        assert f"`{variable_for(setting.path)}`" in page


def test_a_tools_settings_stand_under_its_own_name() -> None:
    _, _, shell = reference_page(SCHEMA).partition("### [tools.shell]\n")
    shell, _, rest = shell.partition("### [tools.read_file]\n")
    assert "`NETCLAW_TOOLS__SHELL__POLICY`" in shell
    assert "`NETCLAW_TOOLS__READ_FILE__POLICY`" not in shell
    assert "`NETCLAW_TOOLS__READ_FILE__POLICY`" in rest
