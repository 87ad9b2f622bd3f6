"""Which options a reload applies, and which wait for a restart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from exporter.daemon.service import needs_restart, without_restart
from exporter.settings.options import Nvml, Poll, Settings, State, Web


def test_equal_settings_need_no_restart() -> None:
    assert needs_restart(Settings(), Settings()) == []


def test_what_a_reload_does_not_apply_is_named() -> None:
    after = Settings(
        poll=Poll(interval=1),
        web=Web(listen_address="127.0.0.1:1"),
        nvml=Nvml(enabled=False, retry=1),
        state=State(directory=Path("/elsewhere")),
        pool="research",
    )
    assert needs_restart(Settings(), after) == ["web.listen_address", "nvml.enabled", "state.directory"]


def test_the_settings_in_force_after_a_reload_keep_what_needs_a_restart() -> None:
    before = Settings()
    after = replace(
        before,
        poll=Poll(interval=1),
        web=Web(listen_address="127.0.0.1:1"),
        nvml=Nvml(enabled=False, retry=1),
        pool="research",
    )
    assert without_restart(before, after) == replace(
        before, poll=Poll(interval=1), nvml=Nvml(enabled=True, retry=1), pool="research"
    )


def test_a_second_reload_names_it_again() -> None:
    after = Settings(web=Web(listen_address="127.0.0.1:1"))
    in_force = without_restart(Settings(), after)
    assert needs_restart(in_force, after) == ["web.listen_address"]
