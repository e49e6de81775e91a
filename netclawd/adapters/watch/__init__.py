"""Tells when the configuration file may have changed, by inotify(7) and by looking again and again."""

from netclawd.adapters.watch.watcher import FileWatcher, WatchError

__all__ = ["FileWatcher", "WatchError"]
