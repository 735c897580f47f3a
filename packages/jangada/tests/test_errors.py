"""The tree of errors: seven kinds, each error of one kind, each with a code of its own."""

import importlib
import pkgutil
import re
from collections import Counter
from dataclasses import FrozenInstanceError
from datetime import timedelta
from types import ModuleType

import pytest

import jangada
import jangada_queue
from jangada.errors import KINDS, FieldError, JangadaError, Unavailable, all_errors

CODE = re.compile(r"[a-z][a-z0-9_]*\.[a-z][a-z0-9_]*")


def modules(package: ModuleType) -> set[str]:
    """Every module of a package, imported."""
    found = pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    left_out = ("__main__", ".testing", ".env", ".launch")
    names = {
        info.name
        for info in found
        if not info.name.endswith(left_out) and ".versions" not in info.name
    }
    for name in names:
        importlib.import_module(name)
    return names


@pytest.fixture(scope="module")
def errors() -> list[type[JangadaError]]:
    """Those of the libraries; the conventions look at the services, nobody at the tests."""
    names = modules(jangada) | modules(jangada_queue)
    return [error for error in all_errors() if error.__module__ in names]


def test_there_are_seven_kinds_and_each_error_is_of_one(errors: list[type[JangadaError]]) -> None:
    assert len(KINDS) == 7
    assert {error for error in errors if JangadaError in error.__bases__} == set(KINDS)
    for error in errors:
        assert sum(issubclass(error, kind) for kind in KINDS) == 1, error


def test_each_error_has_a_code_of_its_own(errors: list[type[JangadaError]]) -> None:
    """`feature.reason`: clients tell errors apart by it, for ever."""
    assert len(errors) > len(KINDS)
    assert [error for error in errors if "code" not in vars(error)] == []
    assert [error.code for error in errors if not CODE.fullmatch(error.code)] == []
    assert [code for code, count in Counter(e.code for e in errors).items() if count > 1] == []


def test_each_error_says_what_it_is(errors: list[type[JangadaError]]) -> None:
    assert [error for error in errors if error not in KINDS and not error.__doc__] == []


def test_an_error_carries_what_a_delivery_needs() -> None:
    fault = FieldError("/email", "email.invalid", "No address.")
    error = Unavailable("Away.", errors=[fault], retry_after=timedelta(seconds=5))
    assert (str(error), error.detail) == ("Away.", "Away.")
    assert (error.errors, error.retry_after) == ((fault,), timedelta(seconds=5))
    assert (JangadaError("x").errors, JangadaError("x").retry_after) == ((), None)
    with pytest.raises(FrozenInstanceError):
        fault.code = "other"  # type: ignore[misc]
