"""Library calls go through the table: nothing more, nothing less, nothing by default."""

from __future__ import annotations

import inspect

import pytest
from doubles import cuml_on_host

from gpuseg.backends.gpu.libraries import CALLS, GIVEN, Call, Libraries
from gpuseg.errors import BackendUnavailableError


@pytest.mark.parametrize("name", CALLS)
def test_the_stand_ins_have_the_parameters_of_the_table_and_no_others(name):
    call = CALLS[name]
    parameters = inspect.signature(cuml_on_host.resolve(call.target)).parameters
    assert [*call.positional, *call.keywords] == list(parameters)


@pytest.mark.parametrize("name", CALLS)
def test_only_what_the_table_leaves_open_can_be_given(name):
    call: Call = CALLS[name]
    taken = []

    def found(*positional, **keywords):
        taken.append((positional, keywords))

    libraries = Libraries(lambda target: found if target == call.target else None)
    asked = {key: key.upper() for key, value in call.keywords.items() if value is GIVEN}
    libraries.call(name, *call.positional, **asked)
    positional, keywords = taken[0]
    assert positional == call.positional
    assert keywords == {**call.keywords, **asked}
    assert GIVEN not in keywords.values()
    with pytest.raises(TypeError, match=name):
        libraries.call(name, *call.positional, **asked, more=1)
    with pytest.raises(TypeError, match=name):
        libraries.call(name, *call.positional, "more", **asked)
    if asked:
        with pytest.raises(TypeError, match=name):
            libraries.call(name, *call.positional)


def test_a_missing_library_is_said_with_what_to_install():
    with pytest.raises(BackendUnavailableError, match=r"cuml\.KMeans.*gpuseg\[cuda13\]"):
        Libraries().call("kmeans", n_clusters=2, max_iter=1, tol=0.1, init=None)


def test_a_name_that_is_gone_is_said_too():
    def gone(_target):
        raise AttributeError("module 'cuml' has no attribute 'KMeans'")

    with pytest.raises(BackendUnavailableError, match="has no attribute 'KMeans'"):
        Libraries(gone).call("kmeans", n_clusters=2, max_iter=1, tol=0.1, init=None)
