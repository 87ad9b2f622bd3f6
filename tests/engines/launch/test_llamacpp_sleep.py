"""llama.cpp's --sleep-idle-seconds: what is asked of a server must not keep it awake."""

from __future__ import annotations

import pytest

from exporter.engines.launch import read_launch


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        (["--sleep-idle-seconds", "300"], 300),
        (["--sleep-idle-seconds", "-1"], None),
        ([], None),
    ],
)
def test_the_time_until_it_sleeps_is_read(said: list[str], seconds: int | None) -> None:
    launch = read_launch(["llama-server", "-m", "/srv/a.gguf", *said, "-c", "4096"], {})
    assert (launch.sleep_idle_seconds, launch.max_model_len) == (seconds, 4096)
