"""The server: the engine behind gRPC.

    soardb_proto -> [soardb_service] -> soardb

It holds nothing yet, so there is no server to start. Here will be the process that opens a
directory of collections and answers requests for it: conversion, limits and configuration, and
not one line of search, which is the engine's.

This package may import soardb and soardb_proto, never soardb_client.
"""
