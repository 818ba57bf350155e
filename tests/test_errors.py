"""The tree of errors, as a caller meets it.

    soardb/errors.py -> [test_errors.py]

What each call raises is tested where the call is; here is what holds for every error.
"""

from __future__ import annotations

import pytest

import soardb
from soardb import errors

LEAVES: dict[type[errors.SoarError], type[Exception]] = {
    errors.InvalidArgument: ValueError,
    errors.AlreadyExists: ValueError,
    errors.NotTrained: RuntimeError,
    errors.NotFound: LookupError,
    errors.CorruptStorage: OSError,
    errors.OutOfSpace: OSError,
    errors.WriteFailed: OSError,
    errors.InUse: OSError,
    errors.ReadOnly: PermissionError,
    errors.OutOfMemory: MemoryError,
    errors.NotAllowed: PermissionError,
    errors.Closed: RuntimeError,
    errors.Unavailable: ConnectionError,
    errors.TimedOut: TimeoutError,
    errors.MalformedOutput: ValueError,
}


class TestTree:
    def test_this_file_knows_every_error(self) -> None:
        """A new leaf without a line above would be untested."""
        assert {getattr(errors, name) for name in errors.__all__} == {errors.SoarError, *LEAVES}

    @pytest.mark.parametrize(("leaf", "builtin"), LEAVES.items())
    def test_each_is_the_builtin_that_a_caller_expects(
        self, leaf: type[errors.SoarError], builtin: type[Exception]
    ) -> None:
        """Code written against ValueError or OSError goes on working."""
        with pytest.raises(builtin, match="what came"):
            raise leaf("what came")
        with pytest.raises(errors.SoarError):
            raise leaf("what came")

    @pytest.mark.parametrize("leaf", LEAVES)
    def test_the_message_is_shown_as_it_was_written(self, leaf: type[errors.SoarError]) -> None:
        """KeyError would add quotes, OSError an errno."""
        assert str(leaf("expected a, got b; do c")) == "expected a, got b; do c"

    def test_no_leaf_is_another_one(self) -> None:
        """One `except` catches one kind."""
        for leaf in LEAVES:
            assert [other for other in LEAVES if issubclass(leaf, other)] == [leaf]

    def test_all_are_public(self) -> None:
        """Callers catch soardb.InvalidArgument, not a name of a module inside."""
        for name in errors.__all__:
            assert getattr(soardb, name) is getattr(errors, name)
