"""Triton's own Python clients, as their users install them."""

import pytest

from tests.conformance.peers import Results, checks, demand, results

pytestmark = pytest.mark.conformance

SYNC, AIO = "triton_http.py", "triton_http_aio.py"


@pytest.fixture(scope="module")
def sync_results(address: str) -> Results:
    return results("triton", SYNC, address)


@pytest.fixture(scope="module")
def aio_results(address: str) -> Results:
    return results("triton", AIO, address)


@pytest.mark.parametrize("check", checks(SYNC))
def test_tritonclient_http_passes(sync_results: Results, check: str) -> None:
    demand(sync_results, check)


@pytest.mark.parametrize("check", checks(AIO))
def test_tritonclient_http_aio_passes(aio_results: Results, check: str) -> None:
    demand(aio_results, check)
