"""What keeps a `[[foreign_exporters]]` entry from being used: its address, its name, its mapping.

Only an address of this host is ever asked: a metrics page that somebody else writes would decide what is told
of this host's memory, and a URL in a file must not make the daemon a way into other machines.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator, Sequence
from dataclasses import fields
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import get_args
from urllib.parse import urlsplit

from exporter.settings.options import ForeignExporter, ForeignKind, ForeignLabels, ForeignMetrics

OWN_SOURCES = frozenset({"nvml", "amdgpu", "host", "processes", "engines", "snapshot"})
"""Sources of the daemon's own, whose names stand in the same label."""
OWN_VENDORS = frozenset({"nvidia", "amd"})
"""Vendors whose devices the daemon reads itself: a second word on them would be a second device."""

_NAME = re.compile(r"[a-z][a-z0-9_-]*", re.ASCII)
_SERIES = re.compile(r"[A-Za-z_:][A-Za-z0-9_:]*", re.ASCII)
_LABEL = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_PATH = re.compile(r"/[!-~]*", re.ASCII)


def place_of(url: str) -> tuple[bool, str, int, str]:
    """Whether a URL wants TLS, its numeric host, its port and its path.

    Raises ValueError, saying what is wrong without repeating the URL, which may hold a password.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError("url is no URL; write http://127.0.0.1:PORT/metrics") from None
    if parts.scheme not in ("http", "https") or not host:
        raise ValueError("url should be http://ADDRESS:PORT/metrics or https://ADDRESS:PORT/metrics")
    if parts.username is not None or parts.password is not None:
        raise ValueError("url has a user or password in it; use bearer_token_file")
    if parts.fragment:
        raise ValueError("url should end with the path, without #")
    path = (parts.path or "/metrics") + (f"?{parts.query}" if parts.query else "")
    if not _PATH.fullmatch(path):
        raise ValueError("the path of url has characters that no path has; percent-encode them")
    tls = parts.scheme == "https"
    return tls, _numeric(host), port if port is not None else (443 if tls else 80), path


def is_of_this_host(host: str) -> bool:
    """Whether a numeric address is one of this host's: only such a one can be bound (ip(7)), unless the host
    allows others to be (ip_nonlocal_bind)."""
    address = ip_address(host)
    if address.is_loopback:
        return True
    if address.is_unspecified or address.is_multicast or address.is_link_local:
        return False
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.bind((host, 0))
    except OSError:
        return False
    return True


def problems(entries: Sequence[ForeignExporter]) -> Iterator[tuple[int, str]]:
    """(place in the list, what is wrong with the entry), for every problem."""
    seen: set[str] = set()
    for index, entry in enumerate(entries):
        for problem in (*_address_problems(entry), *_name_problems(entry, seen), *_kind_problems(entry)):
            yield index, problem
        seen.add(entry.source)


def _numeric(host: str) -> str:
    if host == "localhost":
        return "127.0.0.1"
    try:
        address: IPv4Address | IPv6Address = ip_address(host)
    except ValueError:
        raise ValueError(
            "url should name this host by address (127.0.0.1, ::1, one of its own) or as localhost: "
            "an exporter of another host is not asked"
        ) from None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return str(address)


def _address_problems(entry: ForeignExporter) -> Iterator[str]:
    if not entry.url:
        yield "url is missing: where the exporter answers, http://127.0.0.1:PORT/metrics"
        return
    try:
        tls, host, port, _ = place_of(entry.url)
    except ValueError as error:
        yield str(error)
        return
    if port == 0:
        yield "url should name the port on which the exporter listens"
    if not is_of_this_host(host):
        yield (
            "url is no address of this host: only exporters of the host itself are asked. "
            "Let the exporter listen on 127.0.0.1, and run this daemon on its host"
        )
    if not tls and (entry.ca_file is not None or entry.insecure_skip_verify):
        yield "ca_file and insecure_skip_verify belong to an https:// url"


def _name_problems(entry: ForeignExporter, seen: set[str]) -> Iterator[str]:
    name = entry.source
    if entry.name and not _NAME.fullmatch(entry.name):
        yield "name should begin with a small letter and have small letters, digits, - and _ only"
    elif name in OWN_SOURCES:
        yield f"name {name!r} is a source of the daemon's own; choose another"
    elif name in seen and entry.kind is not None:
        yield f"name {name!r} is used twice; give each entry a name of its own"


def _kind_problems(entry: ForeignExporter) -> Iterator[str]:
    if entry.kind is None:
        yield f"kind is missing: one of {', '.join(get_args(ForeignKind))}"
    elif entry.kind != "custom":
        given = [
            key for key in ("vendor", "product", "driver_share", "labels", "metrics") if getattr(entry, key)
        ]
        if given:
            yield f'{" and ".join(given)} belong to kind = "custom"; of {entry.kind} they are known'
    else:
        yield from _custom_problems(entry)


def _custom_problems(entry: ForeignExporter) -> Iterator[str]:
    if not _NAME.fullmatch(entry.vendor):
        yield 'vendor is missing, or not in small letters: who makes the devices, as in "metax"'
    elif entry.vendor in OWN_VENDORS:
        yield f"devices of vendor {entry.vendor!r} are read by the daemon itself, without another exporter"
    if not entry.product.isprintable():
        yield "product has control characters, such as a line break, in it"
    labels, metrics = entry.labels or ForeignLabels(), entry.metrics or ForeignMetrics()
    if labels.index is None and labels.uuid is None and labels.pci_bus_id is None:
        yield "labels should name what tells devices apart: index, uuid or pci_bus_id"
    for key in fields(ForeignLabels):
        if (label := getattr(labels, key.name)) is not None and not _LABEL.fullmatch(label):
            yield f"labels.{key.name}: {label[:40]!r} is no name of a label"
    if metrics.memory_total_bytes is None:
        yield "metrics.memory_total_bytes is missing: without a size there is no capacity"
    if metrics.memory_used_bytes is None and metrics.memory_free_bytes is None:
        yield "metrics needs memory_used_bytes or memory_free_bytes"
    if metrics.process_bytes is not None and labels.process is None:
        yield "metrics.process_bytes needs labels.process: which label has the process id"
    for key in fields(ForeignMetrics):
        metric = getattr(metrics, key.name)
        if metric is not None and not _SERIES.fullmatch(metric.name):
            yield f"metrics.{key.name}: name {metric.name[:40]!r} is no name of a series"
