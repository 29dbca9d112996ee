"""Requests to user-supplied URLs (picture URLs and webhooks) with SSRF protection.

The host is resolved here, every address is checked, and the connection goes to the checked address. Hence
unusual spellings (127.1, 0x7f.1, ::ffff:127.0.0.1), redirects and DNS rebinding cannot reach private
networks. Proxy settings of the environment are ignored. Hosts and ports allowed by the operator are exempt.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NoReturn
from urllib.parse import urljoin, urlsplit

import httpcore

from kontext.errors import BadConfig, BadRequest

PORTS = (80, 443)
DEFAULT_PORTS = {"http": 80, "https": 443}
ANY_PORT = "*"
REDIRECTS = 3
LOOKUP_SECONDS = 2.0
_lookups = ThreadPoolExecutor(4, "lookup")  # slow name servers must not take the threads of other requests
# Networks whose addresses embed an IPv4 address: NAT64, 6to4 and Teredo.
CARRIERS = tuple(map(ipaddress.IPv6Network, ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32")))


def check_address(text: str) -> None:
    """Raises BadRequest for an address that is not publicly routable."""
    address = ipaddress.ip_address(text.split("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped:
            address = address.ipv4_mapped
        elif any(address in network for network in CARRIERS):
            raise BadRequest("the URL leads to a private address, which is not allowed")
    if not address.is_global or address.is_multicast or address.is_reserved:
        raise BadRequest("the URL leads to a private address, which is not allowed")


def parse_host(entry: str) -> tuple[str, tuple[int, ...] | None]:
    """(host, ports) of "NAME", "NAME:PORT", "[IPv6]:PORT" or "NAME:*"; ports None means all of them.

    Raises BadConfig.
    """
    wrong = BadConfig(f"invalid host {entry!r}; write NAME, NAME:PORT or NAME:*, such as n8n.lan:5678")
    text, ports = entry.strip(), None if entry.strip().endswith(f":{ANY_PORT}") else PORTS
    if ports is None:
        text = text.removesuffix(f":{ANY_PORT}")
    try:
        if text.count(":") > 1 and not text.startswith("["):
            text = f"[{ipaddress.IPv6Address(text)}]"
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        raise wrong from None
    if not host or parts.path or parts.query or parts.fragment or "@" in text or any(map(str.isspace, text)):
        raise wrong
    return _canonical(host), ports if port is None else (port,)


def is_named(host: str, port: int, hosts: Sequence[str]) -> bool:
    """Whether one of the operator's entries (see `parse_host`) is this host with this port."""
    for named, ports in map(parse_host, hosts):
        if named == _canonical(host) and (ports is None or port in ports):
            return True
    return False


def _canonical(host: str) -> str:
    """A host for comparison: lower case, no final dot, one spelling of an IP address."""
    host = host.strip("[]").rstrip(".").lower()
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return host


def check_url(url: str, private: bool = False, hosts: Sequence[str] = (), public: bool = True) -> None:
    """Check a URL without resolving its host. Raises BadRequest.

    `hosts` are always allowed; others only if `public`, and private addresses only if `private`.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise BadRequest("the URL is malformed") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BadRequest("the URL must begin with http:// or https:// and name a host")
    if parts.username is not None or parts.password is not None:
        raise BadRequest("the URL must not carry a name or password")
    if any(ord(letter) <= 32 or letter == "\\" for letter in url):
        raise BadRequest("the URL contains invalid characters")
    if is_named(parts.hostname, port or DEFAULT_PORTS[parts.scheme], hosts):
        return
    if not private:
        if port is not None and port not in PORTS:
            raise BadRequest(f"the port of the URL must be {' or '.join(map(str, PORTS))}, got {port}")
        try:
            check_address(parts.hostname)
        except ValueError:
            pass  # a host name, checked when it is resolved
    if not public:
        raise BadRequest("this server does not fetch pictures by URL; send the picture itself (base64)")


async def check_host(url: str, private: bool = False, hosts: Sequence[str] = ()) -> None:
    """`check_url`, and that the host is not a name of a private address now. Raises BadRequest.

    A name that is not resolved within `LOOKUP_SECONDS` passes: every connection checks the address again.
    """
    check_url(url, private, hosts)
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or DEFAULT_PORTS[parts.scheme]
    if private or is_named(host, port, hosts):
        return
    lookup = asyncio.get_running_loop().run_in_executor(
        _lookups, partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    )
    try:
        found = await asyncio.wait_for(lookup, LOOKUP_SECONDS)
    except (OSError, UnicodeError, TimeoutError):
        return
    for entry in found:
        check_address(str(entry[4][0]))


class GuardedNetwork(httpcore.AsyncNetworkBackend):
    """Resolves host names and connects only to checked addresses."""

    def __init__(self, private: bool, hosts: Sequence[str] = ()) -> None:
        from httpcore._backends.auto import AutoBackend

        self.private, self.hosts, self._inner = private, hosts, AutoBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        loop = asyncio.get_running_loop()
        try:
            found = await asyncio.wait_for(loop.getaddrinfo(host, port, type=socket.SOCK_STREAM), timeout)
        except (OSError, UnicodeError, TimeoutError):
            raise BadRequest("the host of the URL cannot be resolved") from None
        addresses = [str(entry[4][0]) for entry in found]
        if not self.private and not is_named(host, port, self.hosts):
            for address in addresses:
                check_address(address)
        return await self._inner.connect_tcp(addresses[0], port, timeout, local_address, socket_options)

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> NoReturn:
        raise BadRequest("Unix sockets are not supported")

    async def sleep(self, seconds: float) -> None:
        await self._inner.sleep(seconds)


async def request(
    method: str,
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    limit_bytes: int,
    seconds: float,
    private: bool = False,
    hosts: Sequence[str] = (),
    public: bool = True,
    redirects: int = 0,
) -> tuple[int, bytes]:
    """(status, body). Raises BadRequest if the URL is forbidden, unreachable, slow or its body too large."""
    try:
        async with asyncio.timeout(seconds):
            return await _request(method, url, headers, body, limit_bytes, private, hosts, public, redirects)
    except TimeoutError:
        raise BadRequest(f"the URL did not answer within {seconds:g} seconds") from None
    except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.UnsupportedProtocol, OSError) as error:
        raise BadRequest(f"the URL cannot be reached ({type(error).__name__})") from None


async def _request(
    method: str,
    url: str,
    headers: Mapping[str, str] | None,
    body: bytes | None,
    limit_bytes: int,
    private: bool,
    hosts: Sequence[str],
    public: bool,
    redirects: int,
) -> tuple[int, bytes]:
    async with httpcore.AsyncConnectionPool(network_backend=GuardedNetwork(private, hosts)) as pool:
        for _ in range(redirects + 1):
            check_url(url, private, hosts, public)
            target = httpcore.URL(url.split("#")[0].encode("ascii", "strict")) if url.isascii() else None
            if target is None:
                raise BadRequest("the URL contains invalid characters")
            async with pool.stream(
                method, target, headers=list((headers or {}).items()), content=body
            ) as answer:
                location = dict(answer.headers).get(b"location") or dict(answer.headers).get(b"Location")
                if redirects and answer.status in (301, 302, 303, 307, 308) and location:
                    url = urljoin(url, location.decode("latin-1"))
                    continue
                data = bytearray()
                async for chunk in answer.aiter_stream():
                    data += chunk
                    if len(data) > limit_bytes:
                        raise BadRequest(f"the response of the URL is larger than {limit_bytes // 2**20} MiB")
                return answer.status, bytes(data)
    raise BadRequest(f"the URL redirects more than {redirects} times")


async def fetch(
    url: str,
    *,
    limit_bytes: int,
    seconds: float,
    private: bool = False,
    hosts: Sequence[str] = (),
    public: bool = True,
) -> bytes:
    """The body at a URL, after at most 3 redirects. Raises BadRequest."""
    status, data = await request(
        "GET",
        url,
        limit_bytes=limit_bytes,
        seconds=seconds,
        private=private,
        hosts=hosts,
        public=public,
        redirects=REDIRECTS,
    )
    if status != 200:
        raise BadRequest(f"the URL responded with status {status}")
    return data
