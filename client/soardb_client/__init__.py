"""The client: how a program speaks to a soardb server.

    a program -> [soardb_client] -> soardb_proto

It holds nothing yet, as there is no server yet. Here will be the blocking and the asyncio client,
with deadlines, retries and the mapping of status codes to the exceptions of the engine.

This package may import soardb_proto only: a client needs neither the engine nor a compiler.
"""
