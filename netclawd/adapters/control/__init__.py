"""The control socket's server side."""

from netclawd.adapters.control.server import ControlServer, bind_control

__all__ = ["ControlServer", "bind_control"]
