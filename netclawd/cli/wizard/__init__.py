"""The pages of ``netclaw init``, in their order."""

from __future__ import annotations

from netclawd.cli.wizard.agent import AGENT
from netclawd.cli.wizard.drain import DRAIN
from netclawd.cli.wizard.exposure import EXPOSURE
from netclawd.cli.wizard.page import Page

PAGES: tuple[Page, ...] = (AGENT, EXPOSURE, DRAIN)
