"""netclawd: a Unix service for long-running agent sessions that survives its own restarts."""

__version__ = "0.1.0"
