"""The server: collections over gRPC and REST, with keys, limits, metrics and reading processes.

    soardb_proto, soardb -> [soardb_service] <- soardb serve, soardb keys

cli.py          `soardb serve` and `soardb keys`
config.py       what can be set, from a file, the environment and flags
server.py       one serving process, from start to drained end
readers.py      reading processes beside it, on the same port
rpc.py          every method of the descriptors behind one gate
gate.py         who calls, and whether they may: keys, scopes, rates
patience.py     how long a call waits for its client
keys.py         the file of keys
access.py       the access rules, read from the descriptors
collections.py, points.py, ingest.py, indexes.py, snapshots.py, admin.py   one a proto service
operations.py   long work: progress, cancelling
convert.py      messages <-> the engine's arguments; errors -> statuses
limits.py       what one call may hold
rest.py         the same over HTTP and JSON
observe.py      metrics, traces, logs

The server runs no code, loads no model and opens no path that a client named.
"""
