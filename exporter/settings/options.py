"""Every option, its default, bounds and meaning, in one table of frozen dataclasses.

The daemon imports only this module: reading and validating (`reader`) needs pydantic, which costs about
14 MiB of memory, and therefore runs in a short-lived child process (`resolve`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Le, Len

DEFAULT_FILE = Path("/etc/deepseek-exporter/config.toml")
"""Read when no file is named; it may be absent."""

STRICT = {"extra": "forbid"}
"""Configuration that pydantic reads off `__pydantic_config__`: an unknown key is an error."""


def option(default: Any, meaning: str, *, reloadable: bool = True) -> Any:
    """A dataclass field with its default and what it means; `reloadable` says whether SIGHUP applies it."""
    metadata = {"meaning": meaning, "reloadable": reloadable}
    if isinstance(default, (list, dict)):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


Seconds = Annotated[float, Gt(0), Le(86400)]
Ratio = Annotated[float, Gt(0), Le(100)]
Days = Annotated[float, Gt(0), Le(3650)]
Count = Annotated[int, Ge(1)]
Bytes = Annotated[int, Ge(0)]
"""A size; in the file an integer (bytes) or text such as "512MiB", "80GB"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Poll:
    __pydantic_config__ = STRICT
    interval: Annotated[float, Ge(0.2), Le(3600)] = option(5.0, "seconds between two readings of the host")
    discovery_interval: Annotated[float, Ge(0.2), Le(3600)] = option(
        15.0, "seconds between two looks for engines that came or went", reloadable=False
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Web:
    __pydantic_config__ = STRICT
    listen_address: str = option("127.0.0.1:9671", "host:port of the HTTP server", reloadable=False)
    max_connections: Annotated[int, Ge(8), Le(4096)] = option(
        256, "open connections; beyond, the one that has been silent longest is closed", reloadable=False
    )
    request_deadline: Seconds = option(5.0, "seconds a client has to send its request head", reloadable=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    __pydantic_config__ = STRICT
    level: Literal["debug", "info", "warning", "error"] = option("info", "least severe line that is written")
    format: Literal["logfmt", "json"] = option("logfmt", "shape of a log line")


@dataclass(frozen=True, slots=True, kw_only=True)
class Nvml:
    __pydantic_config__ = STRICT
    enabled: bool = option(True, "read NVIDIA GPUs through NVML", reloadable=False)
    links: bool = option(False, "read how much went over PCIe and NVLink")
    device_deadline: Seconds = option(
        10.0, "seconds a device may take to answer, and at most 0.4 of poll.interval; then it is stalled"
    )
    init_deadline: Seconds = option(90.0, "seconds the driver may take to initialise")
    quarantine: Seconds = option(30.0, "seconds a stalled device is left alone at first; doubles to 10 min")
    retry: Seconds = option(5.0, "seconds before the driver is tried again at first; doubles to 5 min")
    release_for: Seconds = option(600.0, "seconds after which a released driver is taken up again by itself")


@dataclass(frozen=True, slots=True, kw_only=True)
class Amd:
    """Deadlines and rests are those of `Nvml`: the worker is watched in the same way."""

    __pydantic_config__ = STRICT
    enabled: bool = option(True, "read AMD GPUs through sysfs, where there are any", reloadable=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    __pydantic_config__ = STRICT
    proc_path: Path = option(Path("/proc"), "root of the process file system", reloadable=False)
    sys_path: Path = option(Path("/sys"), "root of the system file system", reloadable=False)
    cgroup_limit: Literal["auto", "ignore"] = option(
        "auto", "auto: inside a container its memory limit is the host's size; ignore: never"
    )
    memory_bandwidth: Annotated[int, Ge(10**9)] | None = option(
        None,
        'bytes a second that the RAM of all sockets gives, "460GB/s"; default: by modules or processor',
        reloadable=False,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    __pydantic_config__ = STRICT
    enabled: bool = option(True, "read network interfaces and RDMA ports", reloadable=False)
    interfaces: Annotated[str, Len(0, 512)] = option(
        "",
        "what carries the traffic between nodes, with commas between: eth2 or mlx5_0:1,mlx5_1:1;"
        " default: found by itself",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    __pydantic_config__ = STRICT
    gpu_safety_margin: Bytes = option(0, "bytes of every device that are never promised to a deployment")
    host_safety_margin: Bytes = option(2**30, "bytes of RAM that are never promised to a deployment")


@dataclass(frozen=True, slots=True, kw_only=True)
class Storage:
    """How the stores of checkpoints are watched; `[[stores]]` names those that no engine tells of."""

    __pydantic_config__ = STRICT
    enabled: bool = option(True, "watch the disks where checkpoints lie")
    discover: bool = option(True, "also those of the engines that run here, where their files may be seen")
    scan_interval: Annotated[float, Ge(10), Le(86400)] = option(
        300.0,
        "seconds between two looks at the files; at free space: 15",
        reloadable=False,
    )
    scan_deadline: Annotated[float, Ge(1), Le(600)] = option(60.0, "seconds one look at a root may take")
    max_entries: Annotated[int, Ge(100), Le(1_000_000)] = option(
        100_000, "files and folders of one root; a root with more is not told, only its disk"
    )
    next_model: str | None = option(None, "model that is to be fetched next: its room is told of every store")
    next_quantization: str | None = option(None, "its quantization; default: the published one")


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """Alert thresholds in force; each is exported as `deepseek_threshold{name=…}`."""

    __pydantic_config__ = STRICT
    vram_overcommit_ratio: Ratio = option(1.0, "committed / capacity of a device")
    host_memory_overcommit_ratio: Ratio = option(1.0, "committed / capacity of RAM")
    foreign_vram_bytes: Bytes = option(2**30, "bytes that others may hold of a device that serves")
    host_memory_pressure_ratio: Ratio = option(0.1, "share of five minutes in which all tasks wait for RAM")
    host_swap_used_bytes: Bytes = option(2**30, "bytes in swap while a deployment runs")
    confined_memory_overcommit_ratio: Ratio = option(1.0, "committed / capacity of a cgroup or of NUMA nodes")
    deployment_memory_pressure_ratio: Ratio = option(
        0.1, "share of five minutes in which all tasks of a confined deployment wait for RAM"
    )
    deployment_swapped_bytes: Bytes = option(2**28, "bytes of one deployment that may be in swap")
    gpu_error_recent_seconds: Seconds = option(300.0, "age up to which an Xid starts its alert")
    active_utilization_ratio: Ratio = option(0.05, "utilization above which a device works")
    source_stale_seconds: Seconds = option(60.0, "age at which a source counts as blind")
    vram_overcommit_near_ratio: Ratio = option(
        0.97, "committed / capacity (high end) above which pending loads are told"
    )
    vram_growth_bytes: Bytes = option(2**28, "bytes of growth in six hours below which none is forecast")
    rollout_seconds: Seconds = option(3600.0, "age up to which a second generation is a roll-out")
    deviation_exact_ratio: Ratio = option(0.03, "share of the counted bytes that may be held as well")
    deviation_exact_bytes: Bytes = option(2**29, "and bytes, where everything is counted")
    deviation_estimate_ratio: Ratio = option(0.08, "share of the estimated bytes that may be held as well")
    deviation_estimate_bytes: Bytes = option(2**31, "and bytes, where something is estimated")
    vram_below_expected_ratio: Ratio = option(0.3, "share of the expected bytes whose lack is told")
    load_seconds: Seconds = option(3600.0, "seconds after which a deployment should have loaded")
    weights_resident_ratio: Ratio = option(0.95, "share of mapped weights that should be in RAM")
    kv_cache_saturated_ratio: Ratio = option(0.95, "use above which a KV cache is full")
    plan_error_ratio: Ratio = option(0.1, "difference from the engine's own figure that is told")
    link_saturated_ratio: Ratio = option(0.9, "share of a link's speed above which it is full")
    link_tokens_per_second: Annotated[float, Gt(0), Le(1e6)] = option(
        200.0, "tokens a second for each GPU that a link between nodes must be able to carry"
    )
    model_store_free_ratio: Ratio = option(0.05, "share of a store's disk below which it is full, and")
    model_store_free_bytes: Bytes = option(100 * 2**30, "bytes free below which it is; both must hold")
    model_store_growth_bytes: Bytes = option(10 * 2**30, "growth in 24 hours below which none is forecast")
    model_store_download_margin_bytes: Bytes = option(2**30, "bytes that a running download must leave free")
    exhaustion_warning_days: Days = option(7.0, "days to exhaustion below which a ticket opens")
    exhaustion_info_days: Days = option(30.0, "days to exhaustion below which it is shown")
    exhaustion_fit_r2: Ratio = option(0.8, "share of the variance that a forecast must explain")


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    __pydantic_config__ = STRICT
    directory: Path | None = option(
        None,
        "where the inventory is remembered; default $STATE_DIRECTORY, else the user's state folder",
        reloadable=False,
    )
    control_socket: Path | None = option(
        None, "socket of `ctl`; default $RUNTIME_DIRECTORY/control.sock", reloadable=False
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Alerting:
    __pydantic_config__ = STRICT
    evaluate: bool = option(True, "judge the conditions of the alert rules here too", reloadable=False)
    instance: str = option(
        "", "what this host is called in its own alerts; default: its name and the port of web.listen_address"
    )
    job: Annotated[str, Len(1, 64)] = option("deepseek", "label job of its own alerts, as the scraper has it")
    runbook_base: str = option("docs/ALERTS.md", "page of the runbooks, to which alerts link")
    resend_interval: Seconds = option(60.0, "seconds after which Alertmanager is told again what still fires")
    time_scale: Annotated[float, Gt(0), Le(1)] = option(
        1.0, "every waiting and keeping time is multiplied by this: below 1 for rehearsals", reloadable=False
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Alertmanager:
    """One `[[alertmanagers]]` entry: whom the daemon tells of its own alerts. Secrets stand in files."""

    __pydantic_config__ = STRICT
    url: Annotated[str, Len(1, 512)] = option("", "http:// or https://, without /api/v2")
    username: str | None = option(None, "basic authentication")
    password_file: Path | None = option(None, "file with its password")
    bearer_token_file: Path | None = option(None, "file with a token, instead of basic authentication")
    ca_file: Path | None = option(None, "certificates to trust; default: the system's")
    cert_file: Path | None = option(None, "certificate to show")
    key_file: Path | None = option(None, "its key")
    insecure_skip_verify: bool = option(False, "take any certificate; for tests only")
    timeout: Annotated[float, Gt(0), Le(60)] = option(10.0, "seconds one try may take")
    labels: dict[str, str] = option({}, "labels on every alert, such as the external_labels of Prometheus")


ForeignKind = Literal["ascend", "gaudi", "xpumd", "cambricon", "custom"]
"""Exporters whose series are known (hardware/data/foreign.toml), or one whose series the operator names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignLabels:
    """Which label of another exporter's series says what; identity needs `index`, `uuid` or `pci_bus_id`."""

    __pydantic_config__ = STRICT
    index: str | None = option(None, "label with the device's number")
    uuid: str | None = option(None, "label with what identifies the device for good: uuid, serial number")
    pci_bus_id: str | None = option(None, "label with its PCI address")
    name: str | None = option(None, "label with the name of the product")
    driver_version: str | None = option(None, "label with the version of its driver")
    process: str | None = option(None, "label with a process id, as the host counts them")


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignMetric:
    """One series of another exporter: its value × `scale` is the value in our unit."""

    __pydantic_config__ = STRICT
    name: Annotated[str, Len(1, 128)] = option("", "name of the series")
    scale: Annotated[float, Gt(0), Le(1e15)] = option(1.0, "factor to our unit: 1048576 for MiB, 0.01 for %")
    where: dict[str, str] = option({}, "labels that a sample must have, to be meant")
    parts: bool = option(False, "several samples of one device are parts of it, and are added up")
    equals: float = option(1.0, "of `healthy`: the value that means healthy")


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignMetrics:
    """What another exporter's series are here; memory_total_bytes is needed, and used or free."""

    __pydantic_config__ = STRICT
    memory_total_bytes: ForeignMetric | None = option(None, "device memory")
    memory_used_bytes: ForeignMetric | None = option(None, "of it, in use")
    memory_free_bytes: ForeignMetric | None = option(None, "of it, free")
    process_bytes: ForeignMetric | None = option(None, "what one process holds; needs labels.process")
    power_watts: ForeignMetric | None = option(None, "power draw")
    power_limit_watts: ForeignMetric | None = option(None, "its limit")
    energy_joules: ForeignMetric | None = option(None, "energy since the driver was loaded")
    utilization_ratio: ForeignMetric | None = option(None, "share of time in which it works, 0-1")
    memory_bandwidth_utilization_ratio: ForeignMetric | None = option(None, "use of memory bandwidth, 0-1")
    temperature_gpu_celsius: ForeignMetric | None = option(None, "temperature of the chip")
    temperature_memory_celsius: ForeignMetric | None = option(None, "temperature of its memory")
    temperature_board_celsius: ForeignMetric | None = option(None, "temperature of its board")
    ecc_corrected: ForeignMetric | None = option(None, "corrected ECC errors")
    ecc_uncorrected: ForeignMetric | None = option(None, "uncorrected ECC errors")
    healthy: ForeignMetric | None = option(None, "whether the exporter calls it healthy")
    count: ForeignMetric | None = option(None, "how many devices there are; a 0 means that all are lost")
    info: ForeignMetric | None = option(None, "a series of each device that is read for its labels alone")


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignExporter:
    """One `[[foreign_exporters]]` entry: an exporter of this host that tells of devices; experimental."""

    __pydantic_config__ = STRICT
    kind: ForeignKind | None = option(None, "which exporter it is: " + ", ".join(get_args(ForeignKind)))
    url: Annotated[str, Len(0, 512)] = option(
        "", "http:// or https://, an address of this host, and its path"
    )
    name: Annotated[str, Len(0, 32)] = option("", "what it is called in label source; default: its kind")
    bearer_token_file: Path | None = option(None, "file with a token to show")
    ca_file: Path | None = option(None, "certificates to trust; default: the system's")
    insecure_skip_verify: bool = option(False, "take any certificate; for tests only")
    timeout: Annotated[float, Gt(0), Le(10)] = option(2.0, "seconds one answer may take")
    max_age: Annotated[float, Ge(1), Le(3600)] = option(
        60.0, "seconds after which a value with a time of its own is too old"
    )
    vendor: Annotated[str, Len(0, 32)] = option("", "custom: who makes the devices")
    product: Annotated[str, Len(0, 64)] = option("", "custom: their name where no label has it")
    driver_share: Bytes = option(0, "custom: bytes that driver and firmware use of each idle device, at most")
    labels: ForeignLabels | None = option(None, "custom: which label says what")
    metrics: ForeignMetrics | None = option(None, "custom: which series are what")

    @property
    def source(self) -> str:
        """What it is called in labels and logs."""
        return self.name or str(self.kind)


Engine = Literal[
    "vllm",
    "sglang",
    "llama.cpp",
    "ik_llama.cpp",
    "llama-cpp-python",
    "ollama",
    "ktransformers",
    "lmdeploy",
    "tensorrt-llm",
    "tgi",
    "transformers",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """How the processes of a declared deployment are known. All keys given must hold."""

    __pydantic_config__ = STRICT
    program: str | None = option(None, 'name of the program, `*` allowed: "llama-server", "VLLM::*"')
    unit: str | None = option(None, 'systemd unit (or container scope) they run in: "vllm-r1.service"')


DEVICE = re.compile(r"[0-9]{1,4}:[0-9]{1,5}|(?:GPU|MIG)-[0-9A-Za-z:@.-]{4,90}", re.ASCII)
"""How a device is named beside its index: GPU and GPU instance of a MIG slice, or the driver's uuid."""
Device = int | str


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """One `[[deployments]]` entry: what the operator says this host serves."""

    __pydantic_config__ = STRICT
    name: Annotated[str, Len(1, 64)] = option("", "stable name, the `deployment` label")
    model: Annotated[str, Len(1, 128)] = option("", "hub id or alias from the catalogue")
    engine: Engine = option("vllm", "inference engine: " + ", ".join(get_args(Engine)))
    quantization: str | None = option(None, "default: the checkpoint's own")
    devices: list[Device] = option([], 'GPU indices, slices ("0:3") or uuids; empty: RAM only')
    required: bool = option(True, "its room must stay free also while it does not run")
    match: Match | None = option(None, "default: the engine's usual program names")
    tp: Count = option(1, "tensor parallel size")
    pp: Count = option(1, "pipeline parallel size")
    dp: Count = option(1, "data parallel size")
    max_model_len: Count | None = option(None, "context, tokens")
    max_num_seqs: Count | None = option(None, "sequences at once")
    planned_sequences: Count | None = option(None, "requests that it must hold at once; less room pages")
    planned_context: Count | None = option(None, "tokens of each of them; default: max_model_len")
    max_num_batched_tokens: Count | None = option(None, "tokens a step may hold")
    memory_fraction: Annotated[float, Gt(0), Le(1)] | None = option(None, "share of a device it takes")
    kv_cache_dtype: str | None = option(None, "type of the KV cache")
    kv_cache_bytes: Bytes | None = option(None, "size of the KV pool per rank, when fixed")
    ep: Count | None = option(None, "expert parallel size")
    engine_version: str | None = option(None, "release, where defaults differ by it")
    dtype: str | None = option(None, "type that an unquantized model is loaded in")
    speculative: str | None = option(None, "speculative decoding: mtp, eagle, draft …")
    speculative_tokens: Count | None = option(None, "tokens drafted in a step")
    draft_model: str | None = option(None, "model that drafts")
    cpu_offload_bytes: Bytes | None = option(None, "weights moved to RAM, per device")
    dp_attention: bool = option(False, "SGLang: data parallel attention")
    enforce_eager: bool = option(False, "vLLM: without CUDA graphs")
    gpu_layers: Annotated[int, Ge(0)] | None = option(None, "llama.cpp: layers on GPUs")
    n_cpu_moe: Annotated[int, Ge(0)] | None = option(None, "llama.cpp: layers whose experts stay in RAM")
    parallel: Count | None = option(None, "llama.cpp: slots")
    cpu_moe: bool = option(False, "llama.cpp: the experts of every layer stay in RAM")
    override_tensor: list[str] = option([], "llama.cpp: -ot rules, in order")
    mla: Annotated[int, Ge(0), Le(3)] | None = option(None, "ik_llama.cpp: -mla")
    kv_unified: bool | None = option(None, "llama.cpp: one cache for all slots")
    micro_batch: Count | None = option(None, "llama.cpp: -ub")
    cache_type_k: str | None = option(None, "llama.cpp: -ctk")
    cache_type_v: str | None = option(None, "llama.cpp: -ctv")
    flash_attention: bool | None = option(None, "llama.cpp: -fa")
    mmap: bool | None = option(None, "llama.cpp: weights mapped from the file")
    mlock: bool = option(False, "llama.cpp: weights locked in RAM")
    repack: bool | None = option(None, "llama.cpp: weights rearranged for the processor")
    cache_ram_bytes: Bytes | None = option(None, "llama.cpp: limit of the prompt cache")
    numa: Literal["distribute", "isolate", "numactl"] | None = option(None, "llama.cpp: --numa")
    expert_copies: Annotated[int, Ge(1), Le(16)] | None = option(
        None, "KTransformers: copies of the experts in RAM; default: one to one a node"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """One `[[stores]]` entry: a folder of checkpoints."""

    __pydantic_config__ = STRICT
    path: Path = option(Path(), "the folder: a Hugging Face cache, a store of Ollama, or a folder of models")
    kind: Literal["auto", "huggingface", "ollama", "plain"] = option(
        "auto", "what in it counts; auto: each of its folders by what it is"
    )
    name: Annotated[str, Len(0, 64)] = option("", "the `store` label; default: huggingface, ollama or models")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The effective configuration."""

    __pydantic_config__ = STRICT
    poll: Poll = field(default_factory=Poll)
    web: Web = field(default_factory=Web)
    log: Log = field(default_factory=Log)
    nvml: Nvml = field(default_factory=Nvml)
    amd: Amd = field(default_factory=Amd)
    host: Host = field(default_factory=Host)
    network: Network = field(default_factory=Network)
    capacity: Capacity = field(default_factory=Capacity)
    storage: Storage = field(default_factory=Storage)
    thresholds: Thresholds = field(default_factory=Thresholds)
    state: State = field(default_factory=State)
    alerting: Alerting = field(default_factory=Alerting)
    pool: Annotated[str, Len(0, 64)] = option("", "what this host is for: production, research …")
    expected_gpus: Annotated[int, Ge(0)] | None = option(
        None, "GPUs this host should have; default: as many as were ever seen here"
    )
    deployments: list[Deployment] = option([], "what this host serves")
    alertmanagers: list[Alertmanager] = option([], "whom the daemon tells of its own alerts")
    foreign_exporters: list[ForeignExporter] = option([], "exporters of this host that tell of other devices")
    stores: list[Store] = option([], "folders of checkpoints to watch, whatever runs")


TABLES: dict[str, type] = {
    "deployments": Deployment,
    "alertmanagers": Alertmanager,
    "foreign_exporters": ForeignExporter,
    "stores": Store,
}
"""Keys of lists of tables → what an entry is."""


def sections() -> dict[str, type]:
    """Section name → its dataclass, in the order of the file."""
    hints = get_type_hints(Settings)
    return {f.name: hints[f.name] for f in fields(Settings) if is_dataclass(hints[f.name])}


def scalar_options() -> list[tuple[str, str, Any, dict[str, Any]]]:
    """Every option that a flag can set: (section, key, type without bounds, metadata)."""
    found = []
    for section, kind in sections().items():
        hints = get_type_hints(kind)
        found += [(section, f.name, hints[f.name], dict(f.metadata)) for f in fields(kind)]
    return found


def from_plain(kind: Any, value: Any) -> Any:
    """Rebuild a value of type `kind` from JSON data that the reader has validated."""
    if value is None:
        return None
    if is_dataclass(kind) and isinstance(kind, type):
        hints = get_type_hints(kind)
        return kind(**{key: from_plain(hints[key], item) for key, item in value.items()})
    if get_origin(kind) is list:
        return [from_plain(get_args(kind)[0], item) for item in value]
    inner = [one for one in get_args(kind) if one is not type(None)] if type(None) in get_args(kind) else []
    if inner:
        return from_plain(inner[0], value)
    return Path(value) if kind is Path else value
