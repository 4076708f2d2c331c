"""The command line, installed as ``taskqueue.cli``.

Its modules import one another relatively and the library as ``taskqueue``. A second copy under the name ``cli`` would
have its own classes and its own state, so that name is refused.
"""

import os
import signal
import sys
import threading

if __name__ == "cli":
    raise ImportError("the command line is the package taskqueue.cli: import it by that name, not as cli")

if os.getpid() == 1:
    # The first process of a container ignores a signal that it has no handler for. A node installs its own, half a
    # second from here; until then there is nothing to finish.
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))

if "queue:work" in sys.argv and threading.current_thread() is threading.main_thread():
    # Nothing is claimed yet: a node that is told to stop while it imports has drained, as one that serves. It leaves
    # at once, since an exception that is raised in the middle of an import may be swallowed there.
    signal.signal(signal.SIGTERM, lambda _number, _frame: os._exit(0))
