"""Whole hosts whose devices another exporter tells of, from its page and their processes to the exposition.

Pages and their sources: tests/foreign_pages.py; processes: tests/engine_processes.py.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import foreign_pages
import pytest
import recorded_exposition
from engine_processes import Host, vllm_of
from foreign_exporter import Exporter, exporting
from recorded_exposition import assert_as_recorded

from exporter.capacity.conditions import CONDITIONS
from exporter.exposition.collect import samples
from exporter.hardware.gpu import GpuState
from exporter.hardware.inventory import Inventory
from exporter.settings.options import Deployment, ForeignExporter, Nvml, Settings
from exporter.settings.options import Host as HostOptions
from exporter.snapshot import Snapshot, Source
from exporter.units import GIB, MIB

GOLDEN = Path(__file__).parent / "golden"
VLLM = 4100
WORKERS = tuple(range(VLLM + 2, VLLM + 10))
DISTILL = "deepseek-ai/DeepSeek-R1-Distill-Llama-70B"
DECLARED = Deployment(
    name="r1", model=DISTILL, devices=list(range(8)), tp=8, max_model_len=32768, max_num_seqs=16
)
FLAGS = ("--max-model-len", "32768", "--max-num-seqs", "16")
LITE = Deployment(name="lite", model="deepseek-ai/DeepSeek-V2-Lite", devices=[0])


def proc(tmp_path: Path) -> Host:
    """A host without processes."""
    folder = tmp_path / "proc"
    folder.mkdir()
    (folder / "meminfo").write_text("MemTotal: 1610612736 kB\nMemAvailable: 1468006400 kB\nSwapTotal: 0 kB\n")
    return Host(folder)


def poll(
    made: Host,
    exporter: Exporter,
    kind: str = "ascend",
    *,
    inventory: Inventory | None = None,
    until: Callable[[Snapshot], bool] = lambda snapshot: source(snapshot, "starting") is None,
    **more: object,
) -> Snapshot:
    entry = ForeignExporter(kind=kind, url=exporter.url)  # type: ignore[arg-type]
    base: dict[str, object] = {
        "nvml": Nvml(enabled=False),
        "host": HostOptions(proc_path=made.proc, sys_path=made.proc.parent / "sys"),
        "foreign_exporters": [entry],
    }
    return recorded_exposition.poll(Settings(**(base | more)), inventory, until=until)  # type: ignore[arg-type]


def source(snapshot: Snapshot, state: str) -> Source | None:
    return next((one for one in snapshot.sources if one.state == state), None)


def held(snapshot: Snapshot) -> list[dict[str, int]]:
    """What each holder has of each device."""
    return [
        {one.holder: one.size_bytes for one in snapshot.assessment.held.get(gpu.identity.uuid, ())}
        for gpu in snapshot.gpus
    ]


def foreign_bytes(snapshot: Snapshot) -> list[float]:
    """What DeepSeekForeignVram compares with its threshold."""
    totals: dict[str, float] = {}
    for family, labels, value in samples(snapshot):
        if family.name == "deepseek_gpu_memory_held_bytes" and labels[3] in ("other", "unattributed"):
            totals[labels[1]] = totals.get(labels[1], 0) + float(value)
    return list(totals.values())


def test_eight_910b_that_serve_are_as_recorded(tmp_path: Path) -> None:
    made = proc(tmp_path)
    vllm_of(made, VLLM, 8, *FLAGS, model=DISTILL)
    processes = {chip: {WORKERS[chip]: 55904} for chip in range(8)}
    with exporting(foreign_pages.ascend((59356,) * 8, processes)) as exporter:
        snapshot = poll(made, exporter)
        assert_as_recorded(snapshot, GOLDEN / "eight_910b.prom")
    assert foreign_bytes(snapshot) == [0.0] * 8
    (status,) = snapshot.assessment.deployments
    assert status.state == "warm"
    assert all(abs(one.size_bytes) < status.tolerance[uuid] for uuid, one in status.deviation.items())
    assert all(one.headroom.low > 0 for one in snapshot.assessment.devices.values())


def test_an_engine_on_ascend_holds_what_its_processes_hold(tmp_path: Path) -> None:
    made = proc(tmp_path)
    vllm_of(made, VLLM, 8, *FLAGS, model=DISTILL)
    made.run(77, "python3", "train.py")
    processes = {chip: {WORKERS[chip]: 55904} for chip in range(8)} | {3: {WORKERS[3]: 50000, 77: 5904}}
    with exporting(foreign_pages.ascend((59356,) * 8, processes)) as exporter:
        snapshot = poll(made, exporter, deployments=[DECLARED])
    (status,) = snapshot.assessment.deployments
    assert status.running and status.declared.origin == "declared"
    assert held(snapshot)[0] == {"r1": 55904 * MIB, "other": 0, "unattributed": 0}
    assert held(snapshot)[3] == {"r1": 50000 * MIB, "other": 5904 * MIB, "unattributed": 0}
    assert foreign_bytes(snapshot)[3] > GIB  # the stranger is told of
    assert {one.capacity for one in snapshot.assessment.devices.values()} == {(65536 - 3452) * MIB}


def test_a_discovered_engine_on_gaudi_is_placed_where_alone_it_can_be(tmp_path: Path) -> None:
    made = proc(tmp_path)
    vllm_of(made, VLLM, 8, *FLAGS, model=DISTILL)
    with exporting(foreign_pages.gaudi((94963,) * 8)) as exporter:
        snapshot = poll(made, exporter, "gaudi")
    (status,) = snapshot.assessment.deployments
    assert status.declared.device_indices == tuple(range(8))
    assert held(snapshot) == [{status.declared.name: 94963 * MIB, "other": 0, "unattributed": 0}] * 8
    assert foreign_bytes(snapshot) == [0.0] * 8
    assert status.deviation == {}  # nobody tells it from the driver's own


def test_an_engine_that_could_be_anywhere_is_placed_nowhere(tmp_path: Path) -> None:
    made = proc(tmp_path)
    vllm_of(made, VLLM, 4, *FLAGS, model=DISTILL)
    with exporting(foreign_pages.gaudi((94963,) * 4 + (768,) * 4)) as exporter:
        snapshot = poll(made, exporter, "gaudi")
    (status,) = snapshot.assessment.deployments
    assert status.declared.device_indices == ()
    assert held(snapshot)[0] == {"other": 0, "unattributed": 94963 * MIB}
    assert held(snapshot)[7] == {"other": 0, "unattributed": 0}  # what an idle one uses is its driver's


def test_visible_devices_of_ascend_place_an_engine(tmp_path: Path) -> None:
    made = proc(tmp_path)
    vllm_of(made, VLLM, 4, *FLAGS, model=DISTILL, env={"ASCEND_RT_VISIBLE_DEVICES": "4,5,6,7"})
    with exporting(foreign_pages.ascend((3448,) * 4 + (59356,) * 4)) as exporter:
        snapshot = poll(made, exporter)
    (status,) = snapshot.assessment.deployments
    assert status.declared.device_indices == (4, 5, 6, 7)
    assert [sorted(one) for one in held(snapshot)[3:5]] == [
        ["other", "unattributed"],
        ["other", "unattributed", status.declared.name],
    ]


def test_a_declared_deployment_that_does_not_run_gets_nothing(tmp_path: Path) -> None:
    with exporting(foreign_pages.gaudi((94963,) + (768,) * 7)) as exporter:
        snapshot = poll(proc(tmp_path), exporter, "gaudi", deployments=[LITE])
    assert held(snapshot)[0] == {"other": 0, "unattributed": 94963 * MIB}
    assert foreign_bytes(snapshot)[0] > GIB  # somebody has the place that is promised


def test_nothing_is_missed_of_nvidia_or_amd_on_such_a_host(tmp_path: Path) -> None:
    with exporting(foreign_pages.ascend()) as exporter:
        snapshot = poll(
            proc(tmp_path),
            exporter,
            nvml=Nvml(),
            deployments=[DECLARED],
            until=lambda one: source(one, "starting") is None and source(one, "initialising") is None,
        )
    expected = {one.name: one.expected for one in snapshot.sources}
    assert (expected["nvml"], expected["ascend"]) == (False, True)
    assert snapshot.visible_gpus == {"huawei": 8}
    assert snapshot.expected_gpus == 8


def test_an_exporter_that_is_down_blinds_and_loses_nothing(tmp_path: Path) -> None:
    made, inventory = proc(tmp_path), Inventory(None)
    with exporting(foreign_pages.ascend()) as exporter:
        poll(made, exporter, inventory=inventory)
        exporter.page = None
        snapshot = poll(made, exporter, inventory=inventory)
    blind = source(snapshot, "loading")
    assert blind is not None and blind.expected and not blind.up
    assert {gpu.state for gpu in snapshot.gpus} == {GpuState.SOURCE_DOWN}
    assert snapshot.expected_gpus == 8
    names = {family.name for family, _, _ in samples(snapshot)}
    assert not any(name.startswith("deepseek_gpu_memory_") for name in names)


def test_devices_of_an_exporter_that_is_no_longer_configured_are_not_expected(tmp_path: Path) -> None:
    made, inventory = proc(tmp_path), Inventory(None)
    with exporting(foreign_pages.ascend()) as exporter:
        poll(made, exporter, inventory=inventory)
        snapshot = poll(made, exporter, inventory=inventory, foreign_exporters=[])
    assert (snapshot.gpus, snapshot.expected_gpus) == ((), 0)


def test_every_state_of_such_a_device_is_one_that_an_alert_knows() -> None:
    (lost,) = [one for one in CONDITIONS if one.name == "DeepSeekGpuLost"]
    assert "source_down" in repr(lost.expression)


@pytest.mark.parametrize("statement", ["import exporter.daemon.service", "import exporter.cli"])
def test_without_a_configured_exporter_nothing_of_this_is_loaded(statement: str) -> None:
    code = (
        f"{statement}; import sys; "
        "print([name for name in sys.modules if 'foreign' in name and name.startswith('exporter.')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
