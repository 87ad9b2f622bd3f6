"""Pages of other exporters, constructed from their sources and documentation: no host with one was ever seen.

Shapes: `ascend` is the example of hiascend.com, MindCluster 7.3, "Prometheus Metrics API", with the labels of
Ascend/mind-cluster component/npu-exporter at 835e8df; `gaudi` HabanaAI/gaudi-metric-exporter at c5973e8,
exporter.go; `xpumd` the end-to-end test of its chart in intel/xpumanager; `cambricon` Cambricon/mlu-exporter
at 02ba4ac, examples/metrics.yaml. Sizes of chips and of what idle ones use: npu-smi in vllm-ascend#10504,
hl-smi in public captures.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence

ASCEND_PCI = ("c1", "c2", "81", "82", "01", "02", "41", "42")


def line(name: str, labels: Mapping[str, object], value: object, at_seconds: float | None = None) -> str:
    """A sample of the text format; with a time, that in milliseconds."""
    inside = ",".join(f'{key}="{said}"' for key, said in labels.items())
    end = "" if at_seconds is None else f" {round(at_seconds * 1000)}"
    return f"{name}{{{inside}}} {value}{end}\n"


def vdie(chip: int) -> str:
    return f"185011D4-21104518-A0C4ED94-14CC040A-5610200{chip}"


def ascend(
    used_mb: Sequence[int] = (3448,) * 8,
    processes: Mapping[int, Mapping[int, int]] | None = None,
    *,
    at_seconds: float | None = None,
    healthy: Sequence[int] = (1,) * 8,
    chips: Iterable[int] | None = None,
) -> str:
    """8 × 910B2. ``used_mb`` by chip; ``processes``: chip → pid → MB, None: the group is not told."""
    at = time.time() if at_seconds is None else at_seconds
    told = list(range(len(used_mb)) if chips is None else chips)
    page = [
        "# HELP machine_npu_nums Amount of npu installed on the machine.\n",
        f"# TYPE machine_npu_nums gauge\nmachine_npu_nums {len(told)}\n",
    ]
    for chip in told:
        labels = {
            "id": chip,
            "model_name": "910B2-Ascend-V1",
            "vdie_id": vdie(chip),
            "pcie_bus_info": f"0000:{ASCEND_PCI[chip].upper()}:00.0",
            "namespace": "",
            "pod_name": "",
            "container_name": "",
        }
        values = {
            "npu_chip_info_aicore_current_freq": 1800,
            "npu_chip_info_hbm_used_memory": used_mb[chip],
            "npu_chip_info_hbm_total_memory": 65536,
            "npu_chip_info_hbm_utilization": 5,
            "npu_chip_info_hbm_temperature": 38,
            "npu_chip_info_hbm_bandwidth_utilization": 2,
            "npu_chip_info_hbm_ecc_single_bit_error_cnt": 0,
            "npu_chip_info_hbm_ecc_double_bit_error_cnt": 0,
            "npu_chip_info_utilization": 37,
            "npu_chip_info_temperature": 36,
            "npu_chip_info_power": 99.0999984741211,
            "npu_chip_info_health_status": healthy[chip],
        }
        page += [line(name, labels, value, at) for name, value in values.items()]
        if processes is not None:
            held = processes.get(chip, {})
            page.append(line("npu_chip_info_process_info_num", labels, len(held), at))
            for pid, size in held.items() or (("", 0),):
                more = {"process_id": pid, "container_id": ""}
                page.append(line("npu_chip_info_process_info", labels | more, size, at))
    return "".join(page)


def gaudi(used_mib: Sequence[int] = (768,) * 8) -> str:
    """8 × HL-225 (Gaudi 2)."""
    page = []
    for device, used in enumerate(used_mib):
        labels = {
            "Serial": f"AN4700085{device}",
            "UUID": f"01P0-HL2080A0-15-TF8A81-03-07-0{device}",
            "device": f"AN4700085{device}",
            "id": device,
            "fit": "1.23.0-fw-61.3.2.0",
            "spi": "1.23.0-fw-61.3.2.0",
            "driver": "1.23.0-a4f4aec",
            "pod_namespace": "",
            "pod_name": "",
        }
        values = {
            "habanalabs_memory_free_bytes": (98304 - used) * 2**20,
            "habanalabs_memory_total_bytes": 98304 * 2**20,
            "habanalabs_memory_used_bytes": used * 2**20,
            "habanalabs_power_default_limit_mW": 600000,
            "habanalabs_power_mW": 84000,
            "habanalabs_temperature_onboard": 27,
            "habanalabs_temperature_onchip": 30,
            "habanalabs_utilization": 0,
        }
        page += [line(name, labels, value) for name, value in values.items()]
    return "".join(page)


def xpumd() -> str:
    """A GPU of two memory modules; its name stands with hw_gpu_info alone."""
    gpu = {"pci_bdf": "0000:05:00.0", "hw_id": "12345678-0000-0000-0000-000000000000"}
    info = gpu | {"hw_model": "Intel Data Center GPU Max 1550", "hw_vendor": "Intel(R) Corporation"}
    page = [line("hw_gpu_info", info, 1)]
    for tile, used in enumerate((8589934592, 4294967296)):
        module = gpu | {
            "com_intel_subdevice_id": tile,
            "hw_memory_location": "device",
            "hw_name": f"mem-{tile}",
        }
        page.append(line("hw_memory_size_bytes", module, 68719476736))
        page.append(line("hw_memory_usage_bytes", module, used))
    system = gpu | {"hw_memory_location": "system", "hw_name": "mem-9"}
    page.append(line("hw_memory_size_bytes", system, 2**40))
    for sensor, celsius in (("global", 51), ("gpu", 48), ("memory", 52)):
        page.append(
            line(
                "hw_temperature_celsius",
                gpu | {"hw_name": f"temp-{sensor}", "hw_sensor_location": sensor, "statistic": "max"},
                celsius,
            )
        )
    page.append(line("hw_energy_joules_total", gpu | {"hw_sensor_location": "package"}, 5))
    return "".join(page)


def cambricon() -> str:
    """An MLU that is divided: its virtual functions have their own utilization."""
    mlu = {
        "driver": "6.2.10",
        "mcu": "1.1.4",
        "mlu": 0,
        "model": "MLU590-M9",
        "node": "n1",
        "sn": "512305280042",
        "type": "mlu590-m9",
        "uuid": "MLU-42002305-1280-0000-0000-000000000000",
    }
    return "".join(
        (
            line("mlu_memory_total", mlu, 85899345920),
            line("mlu_memory_used", mlu, 21474836480),
            line("mlu_chip_temperature", mlu, 41),
            line("mlu_temperature", mlu, 35),
            line("mlu_utilization", mlu | {"vf": ""}, 55),
            line("mlu_utilization", mlu | {"vf": "1"}, 90),
        )
    )
