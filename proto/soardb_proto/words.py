"""Words of the wire: names that callers use <-> values of its enums, and how an error is named.

    soardb_client, soardb_service -> [words.py] -> v1/types_pb2.py

Both ends read these tables, so that neither can say what the other does not understand.
"""

from __future__ import annotations

import re

from soardb_proto.v1 import types_pb2 as pb

__all__ = ["ACKS", "DETAILS", "DOMAIN", "METRICS", "reason_of"]

ACKS: dict[str, pb.Durability] = {"fsync": pb.FSYNC, "logged": pb.LOGGED, "memory": pb.MEMORY}
METRICS: dict[str, pb.Metric] = {"cosine": pb.COSINE, "dot": pb.DOT, "l2": pb.L2}

DETAILS = "grpc-status-details-bin"
"""The trailer that holds the google.rpc.Status of a failed call."""

DOMAIN = "soardb"
"""Of the google.rpc.ErrorInfo of our errors."""


def reason_of(kind: type[Exception]) -> str:
    """The name of an error as it travels: INVALID_ARGUMENT for InvalidArgument."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", kind.__name__).upper()
