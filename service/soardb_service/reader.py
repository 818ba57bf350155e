"""A reading process: `python -m soardb_service.reader`, its settings on standard input.

    readers.py -> [reader.py] -> server.py

It ends with its parent, however that ended.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys

from soardb_service.config import ServerConfig
from soardb_service.observe import set_up_logs
from soardb_service.server import serve

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Serve reads beside the process that started this one."""
    given = json.load(sys.stdin)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != given["parent"]:
        sys.exit("the parent is gone")
    config = ServerConfig.model_validate(given["settings"])
    set_up_logs(config.log_level, config.log_format)
    serve(config, reads_beside=given["writer"])


if __name__ == "__main__":
    main()
