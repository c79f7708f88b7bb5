"""Ray's process group, after gloo was told which interface the nodes know each other by.

Apart from the workers' code, since Ray's controller imports this and should start quickly.
"""

import fcntl
import logging
import os
import socket
import struct
from dataclasses import dataclass
from typing import Any

import ray
from ray.train.torch import TorchConfig
from ray.train.torch.config import _TorchBackend

logger = logging.getLogger(__name__)

_SIOCGIFADDR = 0x8915


@dataclass
class NamedInterface(TorchConfig):
    """A process group whose ranks meet on the interface of their node's Ray address."""

    @property
    def backend_cls(self) -> type[_TorchBackend]:
        """What sets the group up."""
        return _Backend


class _Backend(_TorchBackend):
    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        worker_group.execute(choose_interface)
        super().on_start(worker_group, backend_config)


def choose_interface() -> None:
    """Set ``GLOO_SOCKET_IFNAME`` to the interface that carries the node's Ray address.

    Left alone, gloo resolves the host name, and takes loopback where it does not resolve: ranks on
    different hosts then cannot meet. What the user has set stays.
    """
    if "GLOO_SOCKET_IFNAME" in os.environ:
        return
    address: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    for _, name in socket.if_nameindex():
        if address_of(name) == address:
            os.environ["GLOO_SOCKET_IFNAME"] = name
            return
    logger.warning(
        "no interface carries this node's address %s; if ranks cannot meet, set "
        "GLOO_SOCKET_IFNAME on every node",
        address,
    )


def address_of(interface: str) -> str | None:
    """IPv4 address of a Linux network interface; None where it has none."""
    request = struct.pack("256s", interface.encode()[:15])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            answer = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, request)
        except OSError:  # an interface without an address
            return None
    return socket.inet_ntoa(answer[20:24])
