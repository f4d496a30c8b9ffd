"""Which addresses may be fetched from."""

from ipaddress import ip_address

import pytest

from workers.knowledge.addresses import Allowances, NoSuchAllowance, literal, plain, public

REFUSED = [
    address
    for line in (
        "0.0.0.0 0.1.2.3 10.0.0.1 100.64.0.1 100.100.100.200 127.0.0.1 127.255.255.254 169.254.169.254 172.16.0.1",
        "172.31.255.255 192.0.0.8 192.0.2.1 192.88.99.1 192.168.1.1 198.18.0.1 198.19.255.255 198.51.100.7 203.0.113.9",
        "224.0.0.1 239.255.255.255 240.0.0.1 255.255.255.255 168.63.129.16",
        ":: ::1 ::7f00:1 fe80::1 fec0::1 fc00::1 fd00:ec2::254 ff02::1 2001:db8::1 2001::1 2002:7f00:1::",
        "64:ff9b::7f00:1 64:ff9b:1::1 100::1 3fff::1 5f00::1 4000::1",
    )
    for address in line.split()
]


@pytest.mark.parametrize("address", REFUSED)
def test_what_is_not_public_is_refused(address: str) -> None:
    """Private, loopback, link-local, shared, documentation, multicast, reserved and translating ranges are refused."""
    assert not public(ip_address(address))
    assert not Allowances().allow(plain(ip_address(address)), host="docs.example", port=443)


@pytest.mark.parametrize("address", ["127.0.0.1", "10.1.2.3", "169.254.169.254", "0.0.0.0", "192.168.0.1"])
def test_a_wrapped_address_is_the_address_it_wraps(address: str) -> None:
    """An IPv4 address inside an IPv6 one is judged as itself."""
    wrapped = ip_address(f"::ffff:{address}")
    assert plain(wrapped) == ip_address(address)
    assert not Allowances().allow(wrapped, host="docs.example", port=443)


@pytest.mark.parametrize("address", ["93.184.216.34", "8.8.8.8", "172.32.0.1", "100.128.0.1", "2606:4700::1111"])
def test_the_internet_is_allowed(address: str) -> None:
    """Public addresses may be spoken to without any setting."""
    assert Allowances().allow(ip_address(address), host="docs.example", port=443)


@pytest.mark.parametrize(
    "host",
    [
        *(
            "2130706433",
            "0x7f000001",
            "0x7f.1",
            "0177.0.0.1",
            "017700000001",
            "127.1",
            "127.0.0.1.",
            "a.0x",
            "1.2.3.4.5",
        ),
        *("::1%eth0", "::ffff:127.0.0.1.5", "exa mple", "ex%61mple", "-x.example", "", "a..b", "x" * 64),
    ],
)
def test_unusual_spellings_are_no_hosts(host: str) -> None:
    """A host that ends in a number and is no dotted quad, or that is no name, is refused before anybody resolves it."""
    with pytest.raises(ValueError, match=r".*"):
        literal(host)


def test_usual_spellings_are_read() -> None:
    """A dotted quad and an IPv6 address are addresses; a name is none."""
    assert literal("127.0.0.1") == ip_address("127.0.0.1")
    assert literal("::1") == ip_address("::1")
    assert literal("docs.example.com") is None
    assert literal("1password.com") is None
    assert literal("xn--bcher-kva.example") is None


def test_an_installation_allows_hosts_and_networks() -> None:
    """A name, a name at a port, an address and a network each open exactly what they say."""
    allowed = Allowances.of("Wiki.intranet, docs:8080, 127.0.0.2, 10.1.0.0/16, fd12::/16")
    for host, port, address, expected in (
        ("wiki.intranet", 80, "192.168.0.7", True),
        ("WIKI.intranet.", 8443, "127.0.0.1", True),
        ("docs", 8080, "10.9.9.9", True),
        ("docs", 80, "10.9.9.9", False),
        ("any.example", 80, "127.0.0.2", True),
        ("any.example", 80, "127.0.0.1", False),
        ("any.example", 80, "10.1.200.3", True),
        ("any.example", 80, "10.2.0.1", False),
        ("any.example", 80, "fd12::1", True),
        ("notwiki.intranet", 80, "192.168.0.7", False),
    ):
        assert allowed.allow(ip_address(address), host=host, port=port) is expected, (host, port, address)


@pytest.mark.parametrize("address", ["169.254.169.254", "0.0.0.0", "224.0.0.1", "fe80::1", "fd00:ec2::254", "::"])
def test_no_setting_opens_metadata_services(address: str) -> None:
    """Also an allowed name and an allowed network never lead to a link-local, multicast or unspecified address."""
    allowed = Allowances.of("wiki.intranet,0.0.0.0/0,::/0")
    assert not allowed.allow(ip_address(address), host="wiki.intranet", port=80)


@pytest.mark.parametrize("entry", ["http://wiki", "10.0.0.0/33", "wiki/path", "a b", "wiki:", "127.1", "*.example"])
def test_an_allowance_that_is_none_is_told(entry: str) -> None:
    """A setting that opens nothing as written is refused with its entry."""
    with pytest.raises(NoSuchAllowance, match="neither a host"):
        Allowances.of(f"docs, {entry}")
