"""The SDK without asyncio: `Client` of here blocks, and has all that the asynchronous one has.

    with Client() as client, client.lock("/locks/a") as held:
        while held.is_held(): ...

It runs on an event loop in a thread of its own, and may be used by any number of threads. What is awaited there
blocks here; `async with`, `async for` are `with`, `for`; futures are those of concurrent.futures. Callbacks
are called on that thread: they must not block, nor call the client. A thread cannot be cancelled: the block of a
hold that is lost goes on, and raises HoldLost when it is left; look at `is_held()`, or wait for `held.lost`.

sync.pyi, which is generated, has the types.
"""

from __future__ import annotations

from zkside.client.faces import FACES, Client

globals().update({source.__name__: face for source, face in FACES.items()}, Client=Client)

__all__ = [source.__name__ for source in FACES]
