"""Slack over Socket Mode: the channel, its connection, what it receives and what it posts."""
