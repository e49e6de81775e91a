"""What acts: the arbiter and everything that it starts, over the ports of :mod:`netclawd.ports`."""
