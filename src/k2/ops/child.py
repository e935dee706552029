"""A supervised `k2` process: it ends when its supervisor does.

The supervisor holds the other end of our standard input and never writes; end-of-file there means that it is gone, even
by kill -9, so nobody is left behind holding a port or the store's folder.
"""

import os
import signal
import sys
import threading

from k2.cli import main


def _leave_with_supervisor() -> None:
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=_leave_with_supervisor, name="lifeline", daemon=True).start()
    sys.argv[0] = "k2"
    main()
