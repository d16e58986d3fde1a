"""Ports, and the way to another machine."""

from __future__ import annotations

import fcntl
import secrets
import socket
import struct
from contextlib import closing
from pathlib import Path

_PORT_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_FIRST_PORT = 10_000
_PORT_TRIES = 100
_SIOCGIFADDR = 0x8915
_REQUEST = 256


def free_port() -> int:
    """Return a port of this machine that nobody listens at.

    It lies below the ports that the system hands out by itself, so that no outgoing connection takes it
    between this choice and rank 0's use of it.
    """
    lowest_automatic = int(_PORT_RANGE.read_text().split()[0]) if _PORT_RANGE.exists() else 0
    for _ in range(_PORT_TRIES if lowest_automatic > _FIRST_PORT else 0):
        port = _FIRST_PORT + secrets.randbelow(lowest_automatic - _FIRST_PORT)
        if _bound_port(port):
            return port
    return _bound_port(0)


def is_loopback(address: str) -> bool:
    """Whether an address means this machine to whoever reads it."""
    return address in ("localhost", "::1") or address.startswith("127.")


def interface_to(address: str, port: int) -> str | None:
    """The network interface through which this machine reaches an IPv4 address, which may be its own.

    None where that cannot be told. Libraries that guess by the machine's name often find one that no other
    machine reaches.
    """
    try:
        with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as probe:
            probe.connect((address, port))  # sends nothing
            own = probe.getsockname()[0]
            names = (name for _, name in socket.if_nameindex())
            return next((name for name in names if _address_of(probe, name) == own), None)
    except OSError:
        return None


def _address_of(probe: socket.socket, interface: str) -> str | None:
    request = struct.pack(f"{_REQUEST}s", interface.encode()[:15])
    try:
        answer = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, request)
    except OSError:
        return None
    return socket.inet_ntoa(answer[20:24])


def _bound_port(port: int) -> int:
    """Return the port that could be bound for a moment (0 asks the system for one), or 0 when it is taken."""
    with closing(socket.socket()) as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return 0
        number: int = probe.getsockname()[1]
        return number
