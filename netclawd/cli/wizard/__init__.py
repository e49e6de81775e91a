"""The pages of ``netclaw init``, in their order."""

from __future__ import annotations

from netclawd.cli.wizard.agent import AGENT, WINDOW
from netclawd.cli.wizard.drain import DRAIN
from netclawd.cli.wizard.exposure import EXPOSURE
from netclawd.cli.wizard.page import Page
from netclawd.cli.wizard.tools import TOOLS

PAGES: tuple[Page, ...] = (AGENT, WINDOW, TOOLS, EXPOSURE, DRAIN)
