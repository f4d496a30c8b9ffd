"""Which addresses may be spoken to when somebody names a URL: public ones, and what the installation allows."""

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final, Self, TypeAlias

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network

_NOT_PUBLIC_4: Final = tuple(
    IPv4Network(network)
    for network in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
        *("192.0.0.0/24", "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16"),
        *("192.175.48.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
        "168.63.129.16/32",  # a cloud's metadata service at an address that looks public
    )
)
_PUBLIC_6: Final = IPv6Network("2000::/3")
_NOT_PUBLIC_6: Final = tuple(
    IPv6Network(network)
    for network in (
        *("2001::/23", "2001:db8::/32", "3fff::/20"),
        "2002::/16",  # carries an IPv4 address, which may be any
    )
)
_NEVER: Final = tuple(
    ip_network(network)
    for network in (
        *("0.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "255.255.255.255/32", "168.63.129.16/32"),
        *("::/128", "fe80::/10", "ff00::/8", "fd00:ec2::/32"),
    )
)
"""Metadata services, broadcast and nobody: not even for a host that is allowed."""

_NUMERIC: Final = re.compile(r"(?:.*\.)?(?:\d+|0x[0-9a-f]*)\.?", re.IGNORECASE)
_NAME: Final = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*\.?", re.IGNORECASE)


class NoSuchAllowance(ValueError):
    """An entry of the allowed hosts is neither a name, `name:port`, an address nor a network."""


def public(address: Address) -> bool:
    """Whether this is an address of the public internet that carries no other address in it."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _NOT_PUBLIC_4)
    return address in _PUBLIC_6 and not any(address in network for network in _NOT_PUBLIC_6)


def plain(address: Address) -> Address:
    """Return the address itself: the IPv4 one where IPv6 only wraps it (`::ffff:127.0.0.1`)."""
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def literal(host: str) -> Address | None:
    """Return the address that a URL's host spells in the usual way; None for a name.

    Raises:
        ValueError: it spells one in an unusual way (decimal, hexadecimal, octal, shortened), or is no name at all.
    """
    if ":" in host:
        address = ip_address(host)
        if isinstance(address, IPv6Address) and address.scope_id is not None:
            raise ValueError(host)
        return address
    if _NUMERIC.fullmatch(host):
        return IPv4Address(host)
    if not _NAME.fullmatch(host):
        raise ValueError(host)
    return None


@dataclass(frozen=True, kw_only=True)
class Allowances:
    """What an installation allows beyond the public internet."""

    hosts: frozenset[str] = frozenset()
    """`name` or `name:port`: whatever it resolves to may be private or this machine."""
    networks: tuple[Network, ...] = ()
    """Whatever resolves into one of these may be spoken to."""

    @classmethod
    def of(cls, entries: str) -> Self:
        """Read `docs.intranet, wiki:8080, 10.1.0.0/16`.

        Raises:
            NoSuchAllowance: an entry is none of these.
        """
        hosts: set[str] = set()
        networks: list[Network] = []
        for entry in filter(None, (part.strip().lower() for part in entries.split(","))):
            try:
                networks.append(ip_network(entry))
            except ValueError:
                if not re.fullmatch(rf"{_NAME.pattern}(?::\d{{1,5}})?", entry) or _NUMERIC.fullmatch(entry):
                    raise NoSuchAllowance(
                        f"'{entry}' is neither a host, host:port, an address nor a network such as 10.1.0.0/16"
                    ) from None
                hosts.add(entry)
        return cls(hosts=frozenset(hosts), networks=tuple(networks))

    def allow(self, address: Address, *, host: str, port: int) -> bool:
        """Whether this address, which `host` resolved to or spells, may be spoken to."""
        address = plain(address)
        if any(address in network for network in _NEVER):
            return False
        name = host.lower().rstrip(".")
        return (
            public(address)
            or bool({name, f"{name}:{port}"} & self.hosts)
            or any(address in network for network in self.networks)
        )
