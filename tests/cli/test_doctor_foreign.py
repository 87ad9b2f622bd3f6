"""`doctor` and devices that we have no driver for: each configured exporter, and what nobody reads."""

from __future__ import annotations

import os
from pathlib import Path

import foreign_pages
import pytest
from foreign_exporter import exporting

from exporter.cli.checks import Check
from exporter.cli.doctor_foreign import accelerators, foreign
from exporter.cli.doctor_gpus import gpus
from exporter.settings.options import Deployment, ForeignExporter, Host, Settings


def settings(sys: Path, *entries: ForeignExporter, **more: object) -> Settings:
    host = Host(sys_path=sys)
    return Settings(host=host, foreign_exporters=list(entries), **more)  # type: ignore[arg-type]


def checks(page: str | None, kind: str, sys: Path) -> dict[str, Check]:
    with exporting(page) as exporter:
        entry = ForeignExporter(kind=kind, url=exporter.url)  # type: ignore[arg-type]
        return {one.id: one for one in foreign(settings(sys, entry))}


def pci(sys: Path, address: str, vendor: int, device: int, kind: int) -> None:
    folder = sys / "bus" / "pci" / "devices" / address
    folder.mkdir(parents=True)
    for name, value in (("vendor", vendor), ("device", device), ("class", kind)):
        (folder / name).write_text(f"0x{value:04x}\n")


def test_an_exporter_that_answers_is_named_with_its_devices_and_as_experimental(tmp_path: Path) -> None:
    processes = {chip: {os.getpid(): 55904} for chip in range(8)}
    found = checks(foreign_pages.ascend((59356,) * 8, processes), "ascend", tmp_path)
    assert set(found) == {"ascend", "ascend.memory"}
    assert found["ascend"].verdict == "ok"
    assert "8 devices" in found["ascend"].found and "experimental" in found["ascend"].found
    assert (found["ascend.memory"].verdict, found["ascend.memory"].found) == (
        "ok",
        "8 × 910B2-Ascend-V1: 64.0 GiB",
    )


def test_one_that_lists_no_processes_says_what_that_means(tmp_path: Path) -> None:
    check = checks(foreign_pages.gaudi(), "gaudi", tmp_path)["gaudi.processes"]
    assert (check.verdict, check.found) == ("note", "not listed")
    assert "declare `devices`" in check.advice


def test_processes_of_another_namespace_are_told(tmp_path: Path) -> None:
    page = foreign_pages.ascend((59356,), {0: {4_194_000: 55904}})
    assert "pid namespace" in checks(page, "ascend", tmp_path)["ascend.processes"].advice


@pytest.mark.parametrize(("page", "state"), [(None, "loading"), ("<html></html>", "nonsense")])
def test_one_that_does_not_answer_is_a_problem_with_its_advice(
    page: str | None, state: str, tmp_path: Path
) -> None:
    check = checks(page, "ascend", tmp_path)["ascend"]
    assert (check.verdict, check.found) == ("problem", state)
    assert check.advice


def test_another_kind_s_page_is_named_so(tmp_path: Path) -> None:
    check = checks(foreign_pages.gaudi(), "ascend", tmp_path)["ascend"]
    assert (check.verdict, check.found) == ("problem", "no_device")
    assert "correct kind" in check.advice


def test_a_size_in_another_unit_is_a_problem(tmp_path: Path) -> None:
    page = foreign_pages.gaudi((0,)).replace(str(98304 * 2**20), "98304")
    check = checks(page, "gaudi", tmp_path)["gaudi.memory"]
    assert check.verdict == "problem" and "scale" in check.advice


def test_a_device_that_is_counted_and_not_told_is_a_problem(tmp_path: Path) -> None:
    page = foreign_pages.ascend((3448,) * 8, chips=range(7)).replace(
        "machine_npu_nums 7", "machine_npu_nums 8"
    )
    check = checks(page, "ascend", tmp_path)["ascend.count"]
    assert (check.verdict, check.found) == ("problem", "it counts 8 devices and tells of 7")


def test_values_that_are_left_out_are_counted_by_reason(tmp_path: Path) -> None:
    page = foreign_pages.gaudi((768,)).replace("habanalabs_utilization{", "habanalabs_power_mW{")
    assert checks(page, "gaudi", tmp_path)["gaudi.values"].found == "left out, by reason: contradiction 1"


class TestUnread:
    def test_accelerators_that_nobody_reads_are_told_with_what_would_read_them(self, tmp_path: Path) -> None:
        for number in range(8):
            pci(tmp_path, f"0000:{number:02x}:00.0", 0x1DA3, 0x1020, 0x120000)
        (check,) = foreign(settings(tmp_path))
        assert (check.id, check.verdict) == ("unread.1da3", "note")
        assert check.found == "8 devices of Habana Labs (Intel Gaudi) are here and not read"
        assert 'kind = "gaudi"' in check.advice and "docs/FOREIGN.md" in check.advice

    def test_what_is_configured_is_read(self, tmp_path: Path) -> None:
        pci(tmp_path, "0000:c1:00.0", 0x19E5, 0xD802, 0x120000)
        assert "unread.19e5" not in checks(foreign_pages.ascend(), "ascend", tmp_path)

    @pytest.mark.parametrize(
        ("address", "vendor", "device", "kind"),
        [
            ("0000:18:00.0", 0x10DE, 0x2330, 0x030200),  # an H100
            ("0000:63:00.0", 0x1002, 0x74A1, 0x120000),  # an MI300X
            ("0000:c4:00.1", 0x1022, 0x1502, 0x118000),  # the NPU of a Ryzen
            ("0000:03:00.0", 0x1A03, 0x2000, 0x030000),  # the display of a BMC
            ("0000:00:02.0", 0x8086, 0x4680, 0x030000),  # the display of an Intel processor
            ("0000:00:0b.0", 0x8086, 0x7D1D, 0x120000),  # its NPU
            ("0000:75:00.0", 0x19E5, 0xA250, 0x120000),  # the ZIP engine of a Kunpeng
            ("0000:05:00.0", 0x19E5, 0x1711, 0x030000),  # the display of a Huawei server
            ("0000:01:00.0", 0x144D, 0xA80A, 0x010802),  # a disk
        ],
    )
    def test_what_is_no_foreign_accelerator_is_not_told(
        self, address: str, vendor: int, device: int, kind: int, tmp_path: Path
    ) -> None:
        pci(tmp_path, address, vendor, device, kind)
        assert not accelerators(tmp_path)

    def test_an_accelerator_of_a_vendor_that_nobody_knows_is_told_by_its_number(self, tmp_path: Path) -> None:
        pci(tmp_path, "0000:c1:00.0", 0x1E36, 0x0033, 0x120000)
        (check,) = foreign(settings(tmp_path))
        assert check.found == "1 devices of PCI vendor 0x1e36 are here and not read"

    def test_an_intel_card_in_a_slot_is_told(self, tmp_path: Path) -> None:
        pci(tmp_path, "0000:03:00.0", 0x8086, 0xE211, 0x030000)
        assert accelerators(tmp_path) == {0x8086: 1}

    def test_files_that_make_no_sense_are_no_devices(self, tmp_path: Path) -> None:
        folder = tmp_path / "bus" / "pci" / "devices" / "0000:03:00.0"
        folder.mkdir(parents=True)
        (folder / "vendor").write_bytes(b"\xff\xfe")
        assert not accelerators(tmp_path)
        assert not accelerators(tmp_path / "none")


def test_devices_that_an_exporter_may_tell_of_are_not_missed_of_nvidia(tmp_path: Path) -> None:
    entry = ForeignExporter(kind="ascend", url="http://127.0.0.1:1/metrics")
    declared = Deployment(name="r1", model="deepseek-ai/DeepSeek-R1", devices=[0])
    found = {one.id: one for one in gpus(settings(tmp_path, entry, deployments=[declared]))}
    assert found["nvml"].verdict == "note"
    assert "gpus.declared" not in found
