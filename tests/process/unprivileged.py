"""Starts the daemon without the rights of root that let it read everything and bind every port.

A launcher for :class:`tests.process.harness.Daemon`; arguments are passed on. Root loses three
capabilities for good (capabilities(7), the bounding set), its number stays; others have none to lose.
"""

from __future__ import annotations

import ctypes
import os
import sys

PR_CAPBSET_DROP = 24
CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_NET_BIND_SERVICE = 1, 2, 10

if __name__ == "__main__":
    libc = ctypes.CDLL(None, use_errno=True)
    for capability in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_NET_BIND_SERVICE):
        if os.geteuid() == 0 and libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0):
            sys.exit(os.strerror(ctypes.get_errno()))
    os.execv(sys.executable, [sys.executable, "-P", "-m", "netclawd", *sys.argv[1:]])
