"""Ranks on different hosts meet: gloo is told the interface that carries a node's address."""

import logging
import os
import socket

import pytest
import ray

from outspike.train.ray_network import NamedInterface, address_of, choose_interface


def test_the_interface_of_a_node_is_found_by_its_address(monkeypatch):
    """Whatever the host name resolves to, the interface is the one with Ray's address."""
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "restored afterwards")
    del os.environ["GLOO_SOCKET_IFNAME"]
    with_address = {name: address_of(name) for _, name in socket.if_nameindex()}
    assert with_address["lo"] == "127.0.0.1"
    name, address = next((n, a) for n, a in with_address.items() if a is not None)
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: address)
    choose_interface()
    assert os.environ["GLOO_SOCKET_IFNAME"] == name


def test_what_the_user_has_set_stays(monkeypatch):
    """An interface chosen by hand is not replaced."""
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "chosen0")
    choose_interface()
    assert os.environ["GLOO_SOCKET_IFNAME"] == "chosen0"


def test_an_address_nobody_has_is_a_warning(monkeypatch, caplog):
    """Training goes on with gloo's own choice, and says what to set if ranks cannot meet."""
    monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: "203.0.113.7")
    monkeypatch.setattr(logging.getLogger("outspike"), "propagate", True)
    with caplog.at_level("WARNING", logger="outspike"):
        choose_interface()
    assert "203.0.113.7" in caplog.text


def test_the_process_group_is_rays_own_with_one_step_before():
    """Only the choice of the interface is added to Ray's backend."""
    config = NamedInterface(backend="gloo", timeout_s=5)
    assert config.to_dict()["timeout_s"] == 5
    assert any("Torch" in parent.__name__ for parent in config.backend_cls.__mro__[1:])


@pytest.mark.parametrize("name", ["nothing0", "a-name-much-longer-than-an-interface-can-be"])
def test_an_interface_that_is_not_there_has_no_address(name):
    """Asking for it is no error."""
    assert address_of(name) is None
