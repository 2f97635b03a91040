"""Machines: which one an address or a name means, and by what address others reach this one."""

from __future__ import annotations

import ipaddress
import re
import socket

ANY = "0.0.0.0"
"""Every address of this machine: a proxy may listen there, but nobody can connect to it from elsewhere."""

_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?")
_DISCARD = 9


def is_loopback(host: str) -> bool:
    """Whether an address stays on this machine."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_address_or_name(text: str) -> bool:
    """Whether a text has the form of one machine's IPv4 address, or of a host name."""
    if text.replace(".", "").isdigit():
        try:
            return text != ANY and bool(ipaddress.IPv4Address(text))
        except ValueError:
            return False
    return len(text) < 254 and _NAME.fullmatch(text) is not None


def resolve(host: str) -> str | None:
    """The IPv4 address of a machine; None for a name that is not known here."""
    try:
        return socket.gethostbyname(host)
    except (OSError, UnicodeError):
        return None


def is_here(host: str) -> bool:
    """Whether an address or name is one of this machine."""
    try:
        with socket.socket() as probe:
            probe.bind((host, 0))
    except (OSError, UnicodeError):
        return False
    return True


def own_address(other: str) -> str | None:
    """This machine's address on the route to another; None where there is no route. Nothing is sent."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((other, _DISCARD))
            address: str = probe.getsockname()[0]
    except (OSError, UnicodeError):
        return None
    return address
