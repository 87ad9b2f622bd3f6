"""Other exporters as the poller sees them: what each answer makes of their devices, what silence does, and
that nothing which one of them does costs another or the poll.
"""

from __future__ import annotations

import asyncio
import gzip
import os
import socket
import ssl
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import foreign_pages
import pytest
import trustme
from stand_in_http import Handler, Requests, answering, flooding, response, saying, serving

from exporter.hardware import foreign
from exporter.hardware.foreign import ADVICE, ForeignExporters, ForeignSource
from exporter.hardware.foreign_map import MOST_DEVICES
from exporter.hardware.foreign_scrape import PAGE_LIMIT_BYTES
from exporter.hardware.gpu import Gpu, GpuIdentity, GpuState
from exporter.hardware.inventory import Inventory
from exporter.hardware.sweep import Sweep
from exporter.settings.options import ForeignExporter
from exporter.units import GIB, MIB

INTERVAL_SECONDS = 5.0
UP, LOST, STALLED, SOURCE_DOWN = GpuState.UP, GpuState.LOST, GpuState.STALLED, GpuState.SOURCE_DOWN
NVIDIA = GpuIdentity("GPU-1", 0, "NVIDIA H200", "nvidia", "00000000:18:00.0", "dedicated")


@dataclass
class Pages:
    """A server whose answer can change; it answers every question with it."""

    answer: bytes = b""
    asked: list[bytes] = field(default_factory=list)

    def say(self, page: str, **more: str) -> None:
        self.answer = response(page.encode(), **more)

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(self.answer)
        await writer.drain()
        writer.close()


@dataclass
class Watched:
    """One configured exporter."""

    exporters: ForeignExporters
    pages: Pages
    inventory: Inventory

    async def sweep(self) -> tuple[ForeignSource, Sweep]:
        """What it says now: the answer to a question that was put after this was called."""
        for _ in range(2):  # the first may have been under way
            await until_heard(self.exporters)
        (found,) = await self.exporters.sweep(INTERVAL_SECONDS)
        return found

    async def gpus(self) -> tuple[Gpu, ...]:
        return (await self.sweep())[1].gpus

    async def states(self) -> list[GpuState]:
        return [gpu.state for gpu in await self.gpus()]


async def until_heard(exporters: ForeignExporters) -> None:
    """Until each of them has answered once more."""
    before = {one.name: one.heard_at for one in exporters.sources}
    async with asyncio.timeout(5):
        while any(one.heard_at == before[one.name] for one in exporters.sources):
            await exporters.sweep(INTERVAL_SECONDS)
            await asyncio.sleep(0.005)


def entry(port: int, **more: object) -> ForeignExporter:
    base: dict[str, object] = {"kind": "ascend", "url": f"http://127.0.0.1:{port}/metrics", "timeout": 0.3}
    return ForeignExporter(**(base | more))  # type: ignore[arg-type]


def run(
    body: Callable[[Watched], Coroutine[Any, Any, None]],
    inventory: Inventory | None = None,
    proc: Path = Path("/proc"),
    **more: object,
) -> None:
    """Run a test's body on one exporter."""

    async def main() -> None:
        pages, known = Pages(), inventory or Inventory(None)
        async with serving(pages) as port:
            exporters = ForeignExporters(known, proc)
            exporters.apply([entry(port, **more)])
            try:
                await body(Watched(exporters, pages, known))
            finally:
                await exporters.close()

    asyncio.run(main())


def answer_of(handler: Handler, **more: object) -> tuple[ForeignSource, Sweep]:
    """What one exporter that behaves so is found to be."""

    async def main() -> tuple[ForeignSource, Sweep]:
        async with serving(handler) as port:
            exporters = ForeignExporters(Inventory(None), Path("/proc"))
            exporters.apply([entry(port, **more)])
            try:
                await until_heard(exporters)
                (found,) = await exporters.sweep(INTERVAL_SECONDS)
                return found
            finally:
                await exporters.close()

    return asyncio.run(main())


class TestDevices:
    def test_they_are_devices_like_any_other(self) -> None:
        async def body(watched: Watched) -> None:
            watched.pages.say(
                foreign_pages.ascend((59356,) * 8, {chip: {os.getpid(): 55904} for chip in range(8)})
            )
            source, sweep = await watched.sweep()
            assert (sweep.state, sweep.visible, source.vendor) == ("up", 8, "huawei")
            one = sweep.gpus[3]
            assert one.identity == GpuIdentity(
                uuid=foreign_pages.vdie(3),
                index=3,
                name="910B2-Ascend-V1",
                vendor="huawei",
                pci_bus_id="0000:82:00.0",
                memory_kind="dedicated",
                source="ascend",
            )
            assert one.state is UP and one.reading is not None and one.last_success_seconds is not None
            assert not +source.errors

        run(body)

    def test_numbers_continue_after_those_of_our_own_drivers(self) -> None:
        inventory = Inventory(None)
        inventory.remember(NVIDIA)

        async def body(watched: Watched) -> None:
            watched.pages.say(foreign_pages.ascend((3448,) * 2))
            assert [gpu.identity.index for gpu in await watched.gpus()] == [1, 2]

        run(body, inventory)

    def test_a_device_without_a_number_keeps_the_one_it_got(self) -> None:
        async def body(watched: Watched) -> None:
            page = foreign_pages.xpumd()
            other = page.replace("12345678", "00000000").replace("0000:05:00.0", "0000:01:00.0")
            watched.pages.say(page)
            assert [gpu.identity.index for gpu in await watched.gpus()] == [0]
            watched.pages.say(other + page)
            assert {gpu.identity.pci_bus_id: gpu.identity.index for gpu in await watched.gpus()} == {
                "0000:05:00.0": 0,
                "0000:01:00.0": 1,
            }

        run(body, kind="xpumd")

    def test_a_uuid_that_is_another_driver_s_is_not_taken_over(self) -> None:
        inventory = Inventory(None)
        inventory.remember(NVIDIA)

        async def body(watched: Watched) -> None:
            watched.pages.say(foreign_pages.ascend((3448,)).replace(foreign_pages.vdie(0), "GPU-1"))
            source, sweep = await watched.sweep()
            assert (sweep.gpus, source.errors["duplicate"] > 0) == ((), True)
            assert watched.inventory.all() == [NVIDIA]

        run(body, inventory)

    def test_uuids_that_change_for_ever_do_not_fill_the_inventory(self) -> None:
        async def body(watched: Watched) -> None:
            for number in range(4):
                page = "".join(
                    foreign_pages.line(
                        f"npu_chip_info_hbm_{what}_memory", {"vdie_id": f"N{number}-{one}"}, size
                    )
                    for one in range(MOST_DEVICES)
                    for what, size in (("total", 65536), ("used", 1))
                )
                watched.pages.say(page)
                await watched.sweep()
            assert len(watched.inventory.all()) == MOST_DEVICES

        run(body)


class TestAbsence:
    def test_a_device_that_the_page_no_longer_has_is_lost(self) -> None:
        async def body(watched: Watched) -> None:
            watched.pages.say(foreign_pages.ascend((3448,) * 3))
            await watched.sweep()
            watched.pages.say(foreign_pages.ascend((3448,) * 3, chips=[0, 2]))
            gpus = await watched.gpus()
            assert [gpu.state for gpu in gpus] == [UP, LOST, UP]
            assert gpus[1].reason == "its exporter tells of 2 devices without it"
            assert gpus[1].reading is None and gpus[1].last_success_seconds is not None

        run(body)

    def test_of_an_exporter_that_is_down_nothing_is_known_and_nothing_is_lost(self) -> None:
        async def body(watched: Watched) -> None:
            watched.pages.say(foreign_pages.ascend((3448,) * 2))
            await watched.sweep()
            watched.pages.say("", status="503 Service Unavailable")
            _, sweep = await watched.sweep()
            assert sweep.state == "loading"
            assert [(gpu.state, gpu.reading) for gpu in sweep.gpus] == [(SOURCE_DOWN, None)] * 2
            watched.pages.say(foreign_pages.ascend((3448,) * 2))
            assert await watched.states() == [UP, UP]

        run(body)

    def test_a_device_that_was_lost_is_not_found_by_its_exporter_s_silence(self) -> None:
        async def body(watched: Watched) -> None:
            watched.pages.say(foreign_pages.ascend((3448,) * 2))
            await watched.sweep()
            watched.pages.say(foreign_pages.ascend((3448,) * 2, chips=[0]))
            await watched.sweep()
            watched.pages.say("", status="500 Internal Server Error")
            assert await watched.states() == [SOURCE_DOWN, LOST]

        run(body)

    def test_devices_of_before_a_restart_are_down_and_not_absent(self, tmp_path: Path) -> None:
        async def first(watched: Watched) -> None:
            watched.pages.say(foreign_pages.ascend((3448,) * 2))
            await watched.sweep()

        async def second(watched: Watched) -> None:
            watched.pages.say("", status="500 Internal Server Error")
            assert await watched.states() == [SOURCE_DOWN] * 2

        file = tmp_path / "inventory.json"
        run(first, Inventory(file))
        run(second, Inventory(file))

    def test_an_exporter_that_counts_no_device_has_lost_them_all(self) -> None:
        async def body(watched: Watched) -> None:
            watched.pages.say(foreign_pages.ascend((3448,) * 2))
            await watched.sweep()
            watched.pages.say(foreign_pages.ascend(()))
            assert await watched.states() == [LOST] * 2

        run(body)

    def test_an_exporter_that_has_only_just_started_has_lost_none(self) -> None:
        async def body(watched: Watched) -> None:
            watched.pages.say(foreign_pages.ascend((3448,) * 2))
            await watched.sweep()
            watched.pages.say("# TYPE go_goroutines gauge\ngo_goroutines 9\n")
            _, sweep = await watched.sweep()
            assert sweep.state == "no_device"
            assert [gpu.state for gpu in sweep.gpus] == [SOURCE_DOWN] * 2

        run(body)

    def test_a_page_that_has_gone_stale_is_no_news(self) -> None:
        async def body(watched: Watched) -> None:
            watched.pages.say(foreign_pages.ascend((3448,) * 2))
            await watched.sweep()
            watched.pages.say(foreign_pages.ascend((9999,) * 2, at_seconds=time.time() - 90))
            _, sweep = await watched.sweep()
            assert sweep.state == "stale"
            assert [(gpu.state, gpu.reading) for gpu in sweep.gpus] == [(SOURCE_DOWN, None)] * 2

        run(body)

    def test_one_device_whose_values_are_stale_is_stalled(self) -> None:
        async def body(watched: Watched) -> None:
            old = foreign_pages.ascend((1, 1), at_seconds=time.time() - 90, chips=[0])
            watched.pages.say(
                old + foreign_pages.ascend((1, 1), chips=[1]).partition("machine_npu_nums 1\n")[2]
            )
            assert await watched.states() == [STALLED, UP]

        run(body)


class TestDriversShare:
    def test_what_no_process_accounts_for_is_the_driver_s_up_to_its_share(self) -> None:
        async def body(watched: Watched) -> None:
            mine = {os.getpid(): 55904}
            watched.pages.say(foreign_pages.ascend((3448, 59356, 63000), {0: {}, 1: mine, 2: mine}))
            readings = [gpu.reading for gpu in await watched.gpus()]
            told = [
                (one.memory_used_bytes, one.memory_reserved_bytes, one.memory_free_bytes)
                for one in readings
                if one is not None
            ]
            assert told == [
                (0, 3448 * MIB, (65536 - 3448) * MIB),
                (55904 * MIB, 3452 * MIB, (65536 - 59356) * MIB),
                ((63000 - 4096) * MIB, 4096 * MIB, (65536 - 63000) * MIB),  # 3,000 MiB are somebody's
            ]

        run(body)

    def test_it_holds_still_while_it_moves_a_little(self) -> None:
        """What deployments should need is worked out again when the size of a device changes."""

        async def body(watched: Watched) -> None:
            told = []
            for used in (3448, 3500, 3410, 3900):
                watched.pages.say(foreign_pages.ascend((used,), {0: {}}))
                (one,) = await watched.gpus()
                assert one.reading is not None
                reading = one.reading
                told.append((reading.memory_reserved_bytes or 0) // MIB)
                assert reading.memory_total_bytes == (
                    (reading.memory_used_bytes or 0)
                    + (reading.memory_free_bytes or 0)
                    + (reading.memory_reserved_bytes or 0)
                )
            assert told == [3448, 3448, 3410, 3900]

        run(body)

    def test_without_processes_only_an_idle_device_shows_it(self) -> None:
        async def body(watched: Watched) -> None:
            watched.pages.say(foreign_pages.gaudi((768, 94963)))
            idle, busy = [gpu.reading for gpu in await watched.gpus()]
            assert idle is not None and busy is not None
            assert (idle.memory_used_bytes, idle.memory_reserved_bytes) == (0, 768 * MIB)
            assert (busy.memory_used_bytes, busy.memory_reserved_bytes) == (94963 * MIB, None)

        run(body, kind="gaudi")


class TestProcesses:
    def test_processes_of_another_pid_namespace_are_no_strangers(self, tmp_path: Path) -> None:
        async def body(watched: Watched) -> None:
            watched.pages.say(foreign_pages.ascend((59356,), {0: {4242: 55904}}))
            source, sweep = await watched.sweep()
            (one,) = sweep.gpus
            assert one.reading is not None and one.reading.processes is None
            assert source.errors["other_pids"] > 0

        run(body, proc=tmp_path)

    def test_of_those_that_are_here_one_that_has_ended_is_left_out(self, tmp_path: Path) -> None:
        (tmp_path / "7").mkdir()

        async def body(watched: Watched) -> None:
            watched.pages.say(foreign_pages.ascend((59356,), {0: {7: 50000, 4242: 5000}}))
            (one,) = await watched.gpus()
            assert one.reading is not None and one.reading.processes is not None
            assert [process.pid for process in one.reading.processes] == [7]

        run(body, proc=tmp_path)


async def never(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(60)


async def dripping(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    for byte in response(foreign_pages.ascend().encode()):
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(0.01)


LINE = b'npu_chip_info_hbm_used_memory{id="0"} 1\n'
HOSTILE: dict[str, tuple[Handler, str]] = {
    "silent": (never, "timeout"),
    "slow": (dripping, "timeout"),
    "endless": (flooding(b"HTTP/1.1 200 OK\r\n\r\n", LINE * 1000), "too_large"),
    "claims too much": (
        saying(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (PAGE_LIMIT_BYTES + 1), hang=True),
        "too_large",
    ),
    "gzip bomb": (
        saying(response(gzip.compress(bytes(64 * 2**20)), headers="Content-Encoding: gzip\r\n")),
        "nonsense",
    ),
    "HTML": (saying(response(b"<html><head><title>NPU-Exporter</title></head></html>\n" * 9)), "nonsense"),
    "binary": (saying(response(bytes(range(256)) * 99)), "nonsense"),
    "not HTTP": (saying(b"SSH-2.0-OpenSSH_9.7\r\n"), "not_http"),
    "wants a token": (saying(response(b"", status="401 Unauthorized")), "key_required"),
    "no page there": (saying(response(b"", status="404 Not Found")), "bad_status"),
    "a hundred thousand series": (saying(response(LINE * 100_000)), "too_large"),
    "sizes without a device": (saying(response(LINE.replace(b'"0"', b'"x"') * 9)), "no_device"),
    "devices without a size": (saying(response(b'npu_chip_info_power{id="0"} 99\n')), "no_memory"),
    "sizes that are none": (saying(response(b'npu_chip_info_hbm_total_memory{id="0"} NaN\n')), "no_memory"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_each_failure_has_its_state_its_advice_and_no_device(name: str) -> None:
    handler, state = HOSTILE[name]
    started = time.monotonic()
    source, sweep = answer_of(handler)
    assert (sweep.state, sweep.gpus, sweep.visible) == (state, (), 0)
    assert source.errors[state] == 1
    assert ADVICE[state]
    assert time.monotonic() - started < 0.3 + 1


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary", "308 Permanent"])
def test_no_redirect_is_followed_and_no_token_goes_along(status: str, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("sesame\n")

    async def main() -> tuple[str, Requests]:
        elsewhere = Requests()
        async with serving(answering({"/metrics": response(b"")}, elsewhere)) as other:
            headers = f"Location: http://127.0.0.1:{other}/metrics\r\n"
            async with serving(saying(response(b"", status=status, headers=headers))) as port:
                exporters = ForeignExporters(Inventory(None), Path("/proc"))
                exporters.apply([entry(port, bearer_token_file=token)])
                await until_heard(exporters)
                ((_, sweep),) = await exporters.sweep(INTERVAL_SECONDS)
                await exporters.close()
        return sweep.state, elsewhere

    state, elsewhere = asyncio.run(main())
    assert (state, elsewhere.heads) == ("redirect", [])


def test_a_refused_connection_and_then_a_page() -> None:
    async def main() -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        exporters, pages = ForeignExporters(Inventory(None), Path("/proc")), Pages()
        pages.say(foreign_pages.ascend((3448,)))
        exporters.apply([entry(port)])
        watched = Watched(exporters, pages, Inventory(None))
        assert (await watched.sweep())[1].state == "refused"
        async with serving(pages, port=port):
            assert await watched.states() == [UP]
        await exporters.close()

    asyncio.run(main())


class TestSecrets:
    def test_a_token_is_read_anew_each_time(self, tmp_path: Path) -> None:
        token = tmp_path / "token"

        async def body(watched: Watched) -> None:
            watched.pages.say(foreign_pages.ascend((3448,)))
            for word in ("open", "sesame"):
                token.write_text(f"{word}\n")
                await watched.sweep()
                assert f"Authorization: Bearer {word}".encode() in watched.pages.asked[-1]

        run(body, bearer_token_file=token)

    @pytest.mark.parametrize("content", [None, b"", b"two\nlines", b"\xff\xfe"])
    def test_a_token_that_cannot_be_read_is_named_so_and_nobody_asked(
        self, content: bytes | None, tmp_path: Path
    ) -> None:
        token = tmp_path / "token"
        if content is not None:
            token.write_bytes(content)

        async def body(watched: Watched) -> None:
            assert (await watched.sweep())[1].state == "token_file"
            assert watched.pages.asked == []

        run(body, bearer_token_file=token)

    def test_a_certificate_authority_that_cannot_be_read_is_named_so(self, tmp_path: Path) -> None:
        _, sweep = answer_of(never, url="https://127.0.0.1:1/metrics", ca_file=tmp_path / "none")
        assert sweep.state == "ca_file"

    def test_tls_is_verified_against_the_configured_authority(self, tmp_path: Path) -> None:
        authority, file = trustme.CA(), tmp_path / "ca.pem"
        authority.cert_pem.write_to_path(str(file))
        server_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(server_tls)

        async def main() -> list[str]:
            pages, found = Pages(), []
            pages.say(foreign_pages.ascend((3448,)))
            async with serving(pages, tls=server_tls) as port:
                more: dict[str, object]
                for more in ({}, {"ca_file": file}, {"insecure_skip_verify": True}):
                    exporters = ForeignExporters(Inventory(None), Path("/proc"))
                    exporters.apply([entry(port, url=f"https://127.0.0.1:{port}/metrics", **more)])
                    await until_heard(exporters)
                    ((_, sweep),) = await exporters.sweep(INTERVAL_SECONDS)
                    found.append(sweep.state)
                    await exporters.close()
            return found

        assert asyncio.run(main()) == ["tls", "up", "up"]

    def test_plain_http_behind_https_is_named_so(self) -> None:
        async def refusing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1)
            writer.write(response(b"", status="400 Bad Request"))
            await writer.drain()

        async def main() -> str:
            async with serving(refusing) as port:
                exporters = ForeignExporters(Inventory(None), Path("/proc"))
                exporters.apply([entry(port, url=f"https://127.0.0.1:{port}/metrics")])
                await until_heard(exporters)
                ((_, sweep),) = await exporters.sweep(INTERVAL_SECONDS)
                await exporters.close()
            return sweep.state

        assert asyncio.run(main()) == "tls"


def test_an_address_that_is_no_longer_this_host_s_is_not_asked() -> None:
    _, sweep = answer_of(never, url="http://192.0.2.1:8082/metrics")
    assert sweep.state == "not_this_host"


def test_a_silent_exporter_costs_a_poll_a_moment_and_only_the_first() -> None:
    async def main() -> list[float]:
        async with serving(never) as port:
            exporters = ForeignExporters(Inventory(None), Path("/proc"))
            exporters.apply([entry(port, timeout=0.3)])
            seconds = []
            for _ in range(2):
                started = time.monotonic()
                ((_, sweep),) = await exporters.sweep(INTERVAL_SECONDS)
                seconds.append(time.monotonic() - started)
                await until_heard(exporters)
            assert sweep.state == "timeout"
            await exporters.close()
            return seconds

    first, second = asyncio.run(main())
    assert first < foreign.FIRST_WORD_SECONDS + 0.1
    assert second < 0.1


def test_one_exporter_costs_another_nothing() -> None:
    async def main() -> None:
        pages = Pages()
        pages.say(foreign_pages.gaudi((768,) * 2))
        async with serving(never) as silent, serving(pages) as port:
            exporters = ForeignExporters(Inventory(None), Path("/proc"))
            exporters.apply([entry(silent), entry(port, kind="gaudi")])
            (_, first), (_, second) = await exporters.sweep(INTERVAL_SECONDS)
            assert (first.state, second.state, len(second.gpus)) == ("starting", "up", 2)
            await exporters.close()

    asyncio.run(main())


class TestReload:
    def test_an_entry_that_stays_goes_on_and_one_that_goes_takes_its_devices_along(self) -> None:
        async def main() -> None:
            ascend, gaudi = Pages(), Pages()
            ascend.say(foreign_pages.ascend((3448,) * 2))
            gaudi.say(foreign_pages.gaudi((768,) * 2))
            async with serving(ascend) as one, serving(gaudi) as other:
                exporters = ForeignExporters(Inventory(None), Path("/proc"))
                entries = [entry(one), entry(other, kind="gaudi")]
                exporters.apply(entries)
                before = await exporters.sweep(INTERVAL_SECONDS)
                assert [gpu.identity.index for _, sweep in before for gpu in sweep.gpus] == [0, 1, 2, 3]
                exporters.apply(entries[1:])
                ((source, sweep),) = await exporters.sweep(INTERVAL_SECONDS)
                assert source is before[1][0]
                assert [gpu.identity.vendor for gpu in sweep.gpus] == ["intel"] * 2
                exporters.apply([])
                assert await exporters.sweep(INTERVAL_SECONDS) == []
                await exporters.close()

        asyncio.run(main())

    def test_an_entry_that_is_renamed_keeps_its_devices(self) -> None:
        async def body(watched: Watched) -> None:
            watched.pages.say(foreign_pages.ascend((3448,) * 2))
            await watched.sweep()
            (source,) = watched.exporters.sources
            watched.exporters.apply([replace(source.entry, name="npus")])
            gpus = await watched.gpus()
            assert [(gpu.state, gpu.identity.source, gpu.identity.index) for gpu in gpus] == [
                (UP, "npus", 0),
                (UP, "npus", 1),
            ]

        run(body)


def test_two_exporters_of_one_device_make_one_device() -> None:
    async def main() -> None:
        pages = Pages()
        pages.say(foreign_pages.ascend((3448,)))
        async with serving(pages) as port:
            exporters = ForeignExporters(Inventory(None), Path("/proc"))
            exporters.apply([entry(port), entry(port, name="again")])
            (_, first), (second, none) = await exporters.sweep(INTERVAL_SECONDS)
            assert (len(first.gpus), none.gpus, second.errors["duplicate"]) == (1, (), 1)
            await exporters.close()

    asyncio.run(main())


def test_the_share_of_no_known_kind_hides_more_than_a_stranger_may_hold() -> None:
    """A share that is too large would call a stranger's memory the driver's."""
    from exporter.hardware.foreign_map import known

    assert all(one.driver_share <= 4 * GIB for one in known().values())
