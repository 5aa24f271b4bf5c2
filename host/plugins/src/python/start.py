# What the host starts: the package beside this file, if this Python is new enough. It is in the syntax of any version.
import sys

if sys.version_info < (3, 9):
    import os
    import socket
    import struct

    def text(words):
        words = words.encode("utf-8")
        return b"\xda" + struct.pack(">H", len(words)) + words

    def pair(name, words):
        return text(name) + text(words)

    control = socket.fromfd(0, socket.AF_UNIX, socket.SOCK_STREAM)
    # The order to open a plugin, so that the answer is one.
    length = struct.unpack("<I", control.recv(4))[0]
    while length > 0:
        length -= len(control.recv(min(length, 65536)))
    version = ".".join(str(part) for part in sys.version_info[:3])
    message = "`" + sys.executable + "` is Python " + version + ", and plugins in Python need 3.9 or newer"
    hint = "install a newer Python, or name one with `[run] python`"
    body = b"\x81" + text("refused") + b"\x82" + pair("message", message) + pair("hint", hint)
    control.sendall(struct.pack("<I", len(body)) + body)
    os._exit(1)

import os

from host_plugin._child import main

status = main()
sys.stdout.flush()
sys.stderr.flush()
# Threads of a callback must not keep a process that the host has dismissed.
os._exit(status)
