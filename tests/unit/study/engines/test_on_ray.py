"""Ray is asked whether it is there before anything runs; what it does with jobs is tested in `tests/engines`."""

import socket

import pytest

from attn_lightning.errors import ConfigurationError

pytest.importorskip("ray", reason="needs the extra `ray`")

from attn_lightning.study.engines.on_ray import RayEngine

# The extra is installed for the slow suite.
pytestmark = pytest.mark.slow


@pytest.fixture
def unused_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.mark.parametrize("scheme", ["ray://", ""])
def test_a_cluster_that_does_not_answer_is_one_line(unused_port, scheme):
    with pytest.raises(ConfigurationError, match=f"127.0.0.1:{unused_port}, but nobody answers there") as error:
        RayEngine(f"{scheme}127.0.0.1:{unused_port}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("address", ["ray://somewhere", "ray://", "host:", ":6379", "ray://host:port"])
def test_an_address_has_a_host_and_a_port(address):
    with pytest.raises(ConfigurationError, match=r"ray://HOST:PORT or HOST:PORT, but got"):
        RayEngine(address)
