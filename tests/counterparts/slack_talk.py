"""A person at a terminal in a Slack workspace: each line is said, what the app posts is shown."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from tests.counterparts.slack import DIRECT, Workspace
from tests.counterparts.slack_ledger import Message

HELP = """\
A line is said to the app in #general, in one thread. Besides, and /help:
  /new TEXT      begin another thread      /dm TEXT     as a direct message
  /as NAME       be somebody else (ada)    /press N     button N of the newest question, from 1
  /aside TEXT    without a mention         /drop        break the connection
"""


class Person:
    def __init__(self, slack: Workspace) -> None:
        self._slack = slack
        self._name = "ada"
        self._thread: Message | None = None

    def talk(self, lines: Iterable[str]) -> None:
        """Do what each line asks for, until there are no more."""
        for line in lines:
            if line.strip():
                self._take(line.strip())

    def _take(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        match word:
            case "/new":
                self._thread = self._slack.say(self._name, "general", rest)
            case "/dm":
                self._slack.say(self._name, DIRECT, rest)
            case "/aside":
                self._slack.say(self._name, "general", rest, self._thread, mention=False)
            case "/as":
                self._name = rest.strip() or "ada"
            case "/drop":
                self._slack.drop_sockets()
            case "/press":
                self._press(int(rest) - 1 if rest.strip().isdigit() else 0)
            case "/help":
                show(HELP)
            case _:  # The agent has commands of its own, which begin so too.
                said = self._slack.say(self._name, "general", line, self._thread)
                self._thread = self._thread or said

    def _press(self, number: int) -> None:
        asked = [m for m in self._slack.posts if len(m.buttons) > number]
        if not asked:
            show("(there is no such button)")
        elif self._slack.press(self._name, asked[-1], number) is None:
            show("(the app isn't connected)")


def show_post(message: Message) -> None:
    """Show what the app posted or edited."""
    where = f"to {message.only_for} alone" if message.only_for else message.channel
    buttons = "".join(f"  [{b['text']['text']}]" for b in message.buttons)
    edited = f" (edit {message.edits})" if message.edits else ""
    show(f"{where} {message.thread}{edited}: {message.text}{buttons}")


def show(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def introduce(slack: Workspace) -> None:
    """Show what the agent's configuration needs."""
    show("# Where the daemon is started:")
    show(f"#   export SLACK_APP_TOKEN={slack.app_token} SLACK_BOT_TOKEN={slack.bot_token}")
    show('[slack]\napp_token = "env:SLACK_APP_TOKEN"\nbot_token = "env:SLACK_BOT_TOKEN"')
    show(f'base_url = "{slack.base_url}"\nallow_users = ["*"]\nallow_channels = ["*"]\n')
    if sys.stdin.isatty():
        show(HELP)
