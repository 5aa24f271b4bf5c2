"""The process of a plugin, as ``host`` starts it: ``python -m host_plugin``, with a socket as standard input."""

import os
import sys

from host_plugin._child import main

if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Threads of a callback must not keep a process that the host has dismissed.
    os._exit(status)
