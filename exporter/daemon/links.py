"""Keeps watch over the network, and over which interfaces carry what goes to the nodes of a deployment."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.capacity.links import Carrier, choose
from exporter.hardware.network import NetworkReading
from exporter.hardware.network_rates import WINDOW_SECONDS
from exporter.hardware.network_source import NetworkSource
from exporter.settings.options import Network

if TYPE_CHECKING:
    from exporter.engines.launch import Link

LEAST_WINDOW_SECONDS = 10.0


class LinkWatch:
    """One per daemon."""

    def __init__(
        self, settings: Network, sys_path: Path, proc_path: Path, *, time_scale: float = 1.0
    ) -> None:
        """``time_scale`` shortens what rates are averaged over, as it shortens what alerts wait for."""
        self.settings = settings
        window = max(LEAST_WINDOW_SECONDS, WINDOW_SECONDS * time_scale)
        self.source = NetworkSource(sys_path, proc_path, window_seconds=window)
        self._carriers: dict[str, Carrier] = {}

    async def read(self) -> NetworkReading | None:
        """The network now; None while it cannot be told, or is not to be read."""
        return await self.source.read(self._configured()) if self.settings.enabled else None

    def has_word(self, links: Mapping[str, object]) -> bool:
        """Whether there is anything to say of this source: a host without a network of its own, such as a
        container, has nothing, unless a deployment reaches other nodes.
        """
        return self.settings.enabled and (bool(links) or self.source.state != "enoent")

    def carry(self, links: Mapping[str, Link | None], network: NetworkReading | None) -> dict[str, Carrier]:
        """What carries the traffic of each deployment in ``links``, by what its launch says of the way.

        While nothing is read it is what it was: the engine goes on with what it has.
        """
        self._carriers = {name: one for name, one in self._carriers.items() if name in links}
        for name, said in links.items() if network is not None else ():
            assert network is not None
            before = frozenset(self._carriers[name].interfaces if name in self._carriers else ())
            carrier = choose(network, self.source.routes, self._configured(), said, before)
            if carrier is not None:
                self._carriers[name] = carrier
        return dict(self._carriers)

    def _configured(self) -> tuple[str, ...]:
        said = (one.strip() for one in self.settings.interfaces.split(","))
        return tuple(dict.fromkeys(one for one in said if one))
