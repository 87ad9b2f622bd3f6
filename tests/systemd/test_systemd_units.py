"""The shipped unit and its drop-ins, judged by systemd itself: they load without a complaint, they stay as
closed as they claim, and they keep what the daemon needs.
Facts: systemd-analyze(1), systemd.exec(5), systemd.service(5).
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pytest

from exporter.settings.resolve import resolve

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "systemd" / "deepseek-exporter.service"
DROP_INS = sorted((ROOT / "systemd" / "deepseek-exporter.service.d").iterdir())
INSTALL = ROOT / "docs" / "INSTALL.md"
PREFIX = "/opt/deepseek-exporter"
CONFIG = "/etc/deepseek-exporter/config.toml"
EXPOSURE_LIMIT = 1.5
# The weights of systemd's score may move between its releases; ours are written for systemd 252.
EXPOSURE_TOLERANCE = 0.2

Settings = Mapping[str, Sequence[str]]


def parse(text: str) -> Settings:
    """Every assignment of a unit file by key, in order: systemd's lists repeat a key, configparser cannot."""
    settings: defaultdict[str, list[str]] = defaultdict(list)
    for line in text.splitlines():
        key, separator, value = line.partition("=")
        if separator and not line.startswith(("#", ";")):
            settings[key.strip()].append(value.strip())
    return settings


def analyze(*arguments: str) -> str:
    """What systemd-analyze prints, both streams together."""
    if shutil.which("systemd-analyze") is None:
        pytest.fail("systemd-analyze is missing, so the unit cannot be checked: apt install systemd")
    # Neither SYSTEMD_UNIT_PATH nor the locale of whoever runs the tests may decide the answer.
    answer = subprocess.run(
        ["systemd-analyze", "--no-pager", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "SYSTEMD_LOG_TARGET": "console"},
        check=False,
    )
    return answer.stdout


def stage(folder: Path, drop_ins: Iterable[Path] = (), extra: str = "") -> Path:
    """A copy of the unit as installed, its prefix holding an executable so that only the unit is judged."""
    prefix = folder / "prefix"
    (prefix / "bin").mkdir(parents=True)
    shutil.copy("/bin/true", prefix / "bin" / "deepseek-exporter")
    unit = folder / UNIT.name
    unit.write_text(UNIT.read_text().replace(PREFIX, str(prefix)))
    applied = folder / f"{UNIT.name}.d"
    applied.mkdir()
    for drop_in in drop_ins:
        text = drop_in.read_text().replace(PREFIX, str(prefix))
        (applied / drop_in.name.removesuffix(".example")).write_text(text)
    if extra:
        (applied / "zz-extra.conf").write_text(extra)
    return unit


def exposure(unit: Path) -> float:
    """systemd's overall exposure level of a staged unit, 0 (closed) to 10 (open)."""
    printed = analyze("security", "--offline=true", str(unit))
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", printed)
    assert found, printed
    return float(found[1])


def allowed_system_calls(filters: Sequence[str]) -> set[str]:
    """The calls that SystemCallFilter= lines leave, in their order; @default always is (systemd.exec(5))."""
    sets: dict[str, list[str]] = {}
    current: list[str] = []
    for line in analyze("syscall-filter").splitlines():
        if line.startswith("@"):
            current = sets.setdefault(line.strip(), [])
        elif line.startswith("    ") and not line.strip().startswith("#"):
            current.append(line.strip())

    def expand(names: Iterable[str]) -> set[str]:
        return {call for name in names for call in (expand(sets[name]) if name.startswith("@") else {name})}

    allowed = expand(["@default"])
    for line in filters:
        calls = expand(line.removeprefix("~").split())
        allowed = allowed - calls if line.startswith("~") else allowed | calls
    return allowed


@pytest.fixture(scope="module")
def settings() -> Settings:
    return parse(UNIT.read_text())


def test_systemd_has_no_complaint_about_the_unit(tmp_path: Path) -> None:
    assert analyze("verify", str(stage(tmp_path))) == ""


@pytest.mark.parametrize(
    ("mistake", "complaint"),
    [
        ("[Service]\nProtectHomes=yes\n", "ProtectHomes"),
        ("[Service]\nExecStart=\nExecStart=/nowhere/daemon\n", "/nowhere/daemon is not executable"),
    ],
)
def test_silence_means_something_since_a_mistake_in_a_drop_in_is_reported(
    tmp_path: Path, mistake: str, complaint: str
) -> None:
    assert complaint in analyze("verify", str(stage(tmp_path, extra=mistake)))


def test_exposure_stays_within_the_limit(tmp_path: Path) -> None:
    assert exposure(stage(tmp_path)) <= EXPOSURE_LIMIT


def test_exposure_notices_an_opened_unit(tmp_path: Path) -> None:
    opened = "[Service]\nDynamicUser=no\nPrivateUsers=no\nCapabilityBoundingSet=CAP_SYS_ADMIN\n"
    assert exposure(stage(tmp_path, extra=opened)) > EXPOSURE_LIMIT


@pytest.mark.parametrize("drop_in", DROP_INS, ids=lambda path: path.name)
def test_systemd_has_no_complaint_about_a_drop_in(tmp_path: Path, drop_in: Path) -> None:
    assert analyze("verify", str(stage(tmp_path, [drop_in]))) == ""


def test_drop_ins_go_together(tmp_path: Path) -> None:
    assert analyze("verify", str(stage(tmp_path, DROP_INS))) == ""


@pytest.mark.parametrize("drop_in", DROP_INS, ids=lambda path: path.name)
def test_a_drop_in_says_why_and_what_it_costs(tmp_path: Path, drop_in: Path) -> None:
    text = drop_in.read_text()
    claimed = re.search(r"^# Exposure level: ([\d.]+) \(the unit alone: ([\d.]+)\)$", text, re.MULTILINE)
    assert claimed, f"{drop_in.name} does not state its exposure level"
    assert "\n# Why: " in text
    measured = exposure(stage(tmp_path / "with", [drop_in])), exposure(stage(tmp_path / "alone"))
    assert measured == pytest.approx((float(claimed[1]), float(claimed[2])), abs=EXPOSURE_TOLERANCE)


@pytest.mark.parametrize("drop_in", DROP_INS, ids=lambda path: path.name)
def test_a_drop_in_changes_something_and_only_once_it_is_renamed(drop_in: Path) -> None:
    assert drop_in.name.endswith(".conf.example")
    assert parse(drop_in.read_text())


@pytest.mark.parametrize("name", ["rapl.conf.example", "ptrace.conf.example"])
def test_a_capability_is_ambient_and_not_void_in_a_user_namespace(name: str) -> None:
    drop_in = parse((DROP_INS[0].parent / name).read_text())
    assert drop_in["AmbientCapabilities"] == drop_in["CapabilityBoundingSet"]
    assert drop_in["PrivateUsers"] == ["no"]


def test_opening_the_network_starts_the_same_daemon_and_denies_all_others(settings: Settings) -> None:
    drop_in = parse((DROP_INS[0].parent / "network.conf.example").read_text())
    reset, command = drop_in["ExecStart"]
    assert reset == ""
    assert command.startswith(f"{settings['ExecStart'][0]} --web.listen-address=")
    assert drop_in["IPAddressDeny"] == ["any"]
    assert "localhost" in drop_in["IPAddressAllow"], "engines are asked on loopback"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("Type", "notify"),
        ("NotifyAccess", "main"),
        ("WatchdogSec", "60"),
        ("Restart", "always"),
        ("StartLimitIntervalSec", "0"),
        ("KillMode", "mixed"),
        ("OOMPolicy", "continue"),
        ("MemoryMax", "256M"),
        ("DynamicUser", "yes"),
        ("StateDirectory", "deepseek-exporter"),
        ("RuntimeDirectory", "deepseek-exporter"),
        ("ConfigurationDirectory", "deepseek-exporter"),
        ("CapabilityBoundingSet", ""),
        ("NoNewPrivileges", "yes"),
        ("ExecReload", "/bin/kill -HUP $MAINPID"),
        (
            "ExecStart",
            f"{PREFIX}/bin/deepseek-exporter serve --config.file={CONFIG}",
        ),
    ],
)
def test_setting_that_operators_and_the_daemon_rely_on(settings: Settings, key: str, value: str) -> None:
    assert settings[key] == [value]


def test_driver_nodes_are_reachable_even_when_the_driver_loads_later(settings: Settings) -> None:
    # A name is resolved in /proc/devices at the start of the service; NVIDIA's registered major is a number.
    assert settings["PrivateDevices"] == ["no"]
    assert settings["DevicePolicy"] == ["closed"]
    assert "char-195 rw" in settings["DeviceAllow"]


def test_nothing_beyond_driver_nodes_is_allowed(settings: Settings) -> None:
    # 226 is DRM's major: the kernel shows KFD's nodes of AMD devices to those alone who might use them.
    allowed = {entry.split()[0] for entry in settings["DeviceAllow"]}
    assert allowed == {"char-195", "char-226", "char-nvidia-caps"}


def test_other_processes_and_host_memory_stay_readable(settings: Settings) -> None:
    # hidepid would hide engines' command lines; ProcSubset=pid would hide meminfo, pressure and vmstat.
    assert settings["ProtectProc"] == ["default"]
    assert settings["ProcSubset"] == ["all"]


def test_system_calls_of_the_daemon_and_its_children_are_allowed(settings: Settings) -> None:
    start_children = {"clone", "clone3", "fork", "vfork", "execve", "wait4", "waitid", "pidfd_open"}
    govern_children = {"kill", "prctl", "prlimit64"}
    talk = {"socketpair", "socket", "bind", "listen", "accept4", "sendmsg", "recvmsg", "epoll_wait", "fchmod"}
    drive = {"openat", "ioctl", "mmap", "mprotect", "munmap", "poll", "eventfd2"}
    keep_state = {"rename", "fsync", "unlink", "flock"}
    needed = start_children | govern_children | talk | drive | keep_state
    assert needed - allowed_system_calls(settings["SystemCallFilter"]) == set()


def test_system_calls_that_only_an_intruder_wants_are_refused(settings: Settings) -> None:
    unwanted = {"ptrace", "process_vm_readv", "mount", "bpf", "kexec_load", "init_module", "setuid", "chroot"}
    assert unwanted & allowed_system_calls(settings["SystemCallFilter"]) == set()


@pytest.mark.parametrize("drop_in", DROP_INS, ids=lambda path: path.name)
def test_installation_page_names_every_drop_in(drop_in: Path) -> None:
    assert drop_in.name in INSTALL.read_text()


def test_installation_page_names_no_drop_in_that_is_not_shipped() -> None:
    named = set(re.findall(r"[a-z]+\.conf\.example", INSTALL.read_text()))
    assert named == {drop_in.name for drop_in in DROP_INS}


def test_installation_page_builds_the_program_where_the_unit_starts_it(settings: Settings) -> None:
    page = INSTALL.read_text()
    assert f"python3 -m venv {PREFIX}\n" in page
    program, *arguments = settings["ExecStart"][0].split()
    assert program.startswith(f"{PREFIX}/bin/")
    assert arguments[-1].removeprefix("--config.file=") in page


def test_installation_page_shows_a_configuration_that_is_accepted(tmp_path: Path) -> None:
    example = re.search(r"```toml\n(.*?)```", INSTALL.read_text(), re.DOTALL)
    assert example
    file = tmp_path / "config.toml"
    file.write_text(example[1])
    assert [entry.model for entry in resolve(file, {}).deployments] == ["deepseek-ai/DeepSeek-R1"]
