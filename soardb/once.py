"""A write under a request id: done once, however often it is asked for.

    collection.py -> [once.py] -> writer.py, storage/requests.py

The job looks for its id in the transaction that it would write in. Where the id was answered, it
writes nothing and gives the same answer; else it does its work and leaves the answer beside it. So
two calls that wait in one group, and a call after a crash, see one another. A job that is refused
leaves nothing, so it may be tried again under the same id.

A fingerprint of the whole call goes with the answer: an id that comes again with other contents is
a mistake of the caller, and is refused as one.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from soardb.errors import InvalidArgument
from soardb.schema import PointId
from soardb.storage.requests import Answered
from soardb.writer import Delete, Effect, Group, Job, Patch, Put

__all__ = ["Once", "once"]


def once(job: Put | Patch | Delete, request_id: str | None, said: Any = None) -> Job:
    """The job itself without an id, else one that does it once.

    said: JSON values of what the job holds as functions: a filter, changes of a payload.
    """
    if request_id is None:
        return job
    return Once(job, request_id, _fingerprint(job, said))


@dataclass(slots=True)
class Once:
    """A job and the id under which its answer is remembered."""

    job: Job
    request_id: str
    what: str

    @property
    def alone(self) -> bool:
        """As the job."""
        return self.job.alone

    def size(self) -> tuple[int, int]:
        """See Job.size."""
        return self.job.size()

    def run(self, group: Group) -> tuple[Effect, Any]:
        """See Job.run; answers as the job did the first time."""
        now, requests = _now(), group.store.requests
        known = requests.find(self.request_id, now)
        if known is None:
            effect, answer = self.job.run(group)
            requests.remember(self.request_id, Answered(self.what, int(answer)), now)
            return effect, answer
        if known.what != self.what:
            raise InvalidArgument(
                f"expected the same call under request_id {self.request_id!r}, which was used for "
                f"{_named(known.what)}; got {_named(self.what)}"
                + (" with other contents" if _named(known.what) == _named(self.what) else "")
                + ". Take a new id for each call, and repeat one only with its call"
            )
        return Effect(np.empty(0, np.int64)), known.answer


def _now() -> int:
    return int(time.time() * 1e6)


def _fingerprint(job: Put | Patch | Delete, said: Any) -> str:
    """ "kind:number of ids:digest" of all that the caller passed."""
    kind = job.mode if isinstance(job, Put) else type(job).__name__.lower()
    digest = hashlib.blake2b(_said(job.ids, said), digest_size=16)
    if isinstance(job, Put):
        for payload in job.payloads:
            digest.update(b"%d:" % len(payload))
            digest.update(payload)
        digest.update(np.ascontiguousarray(job.vectors).data)
    return f"{kind}:{-1 if job.ids is None else len(job.ids)}:{digest.hexdigest()}"


def _said(ids: Sequence[PointId] | None, said: Any) -> bytes:
    return json.dumps([ids, said], sort_keys=True, default=str).encode()


def _named(what: str) -> str:
    kind, n, _ = what.split(":")
    call = "update_payload" if kind == "patch" else kind
    return f"{call} by filter" if n == "-1" else f"{call} of {int(n):,} ids"
