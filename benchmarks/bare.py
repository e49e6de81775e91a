"""The reference: falcon on waitress with one route, and nothing else."""

from __future__ import annotations

import sys
from typing import Any

import falcon
import waitress


class Live:
    def on_get(self, _request: Any, response: Any) -> None:
        response.media = {"phase": "ready", "generation": 1, "digest": "0" * 64}


def main() -> None:
    application = falcon.App()
    application.add_route("/api/health/live", Live())
    waitress.serve(
        application,
        host="127.0.0.1",
        port=int(sys.argv[1]),
        threads=int(sys.argv[2]),
        connection_limit=4096,
        asyncore_use_poll=True,
        _quiet=True,
    )


if __name__ == "__main__":
    main()
