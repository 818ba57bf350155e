"""The wire: protobuf messages and gRPC stubs that the service and the client share.

    client/soardb_client -> [soardb_proto] <- service/soardb_service

It holds nothing yet. The first version of the protocol will be the package `soardb_proto.v1`: its
.proto files with the Python generated from them beside, never edited by hand.

This package imports nobody of ours.
"""
