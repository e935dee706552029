"""A supervised `k2` process: it ends when its supervisor does.

The supervisor holds the other end of our standard input and never writes; end-of-file there means that it is gone, even
by kill -9, so nobody is left behind holding a port or the store's folder.
"""

import os
import signal
import sys
import threading
import time

from k2.cli import main
from k2.ops import journal

LEAVE_WITHIN = 5.0


def _leave_with_supervisor() -> None:
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(LEAVE_WITHIN)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    threading.Thread(target=_leave_with_supervisor, name="lifeline", daemon=True).start()
    journal.to_stderr = False
    sys.argv[0] = "k2"
    main()
