"""The wire: protobuf messages and gRPC stubs that the service and the client share.

    client/soardb_client -> [soardb_proto] <- service/soardb_service

v1/          the .proto files of `soardb.v1`, and beside them the Python generated from them, never
             edited by hand; `make proto` makes it anew
words.py     names <-> enums, and how errors are named
columns.py   packed columns of the messages <-> NumPy arrays and lists

This package imports nobody of ours.
"""
