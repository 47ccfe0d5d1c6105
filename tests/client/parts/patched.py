"""A process in which threads are greenlets: python -m tests.client.parts.patched ADDRESS WHO"""

from __future__ import annotations

import sys
from importlib import import_module

address, who = sys.argv[1:]
if who == "gevent":
    import_module("gevent.monkey").patch_all()
elif who == "gevent without threads":
    import_module("gevent.monkey").patch_all(thread=False)
elif who == "gevent for sockets alone":
    import_module("gevent.monkey").patch_socket()
elif who == "eventlet":
    import_module("eventlet").monkey_patch()

from zkside.client import Client, sync  # noqa: E402
from zkside.errors import ZksideError  # noqa: E402

for make in (Client, sync.Client):
    try:
        make(address)
        print("made")
    except ZksideError as error:
        print(error)
if who == "gevent for sockets alone":
    with sync.Client(address) as client:
        print(client.get("/").path)
