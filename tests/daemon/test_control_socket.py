"""The control socket: who may listen, and what bad clients cost."""

from __future__ import annotations

import asyncio
import json
import socket
import stat
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from exporter.daemon import control
from exporter.daemon.control import Answer, ControlError, ControlServer, ask, is_alive


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "control.sock"


async def echo(request: Answer) -> Answer:
    return {"asked": request}


def serving(path: Path, body: Callable[[], Awaitable[None]]) -> None:
    """Run `body` while a server listens."""

    async def main() -> None:
        server = ControlServer(path, echo)
        await server.start()
        try:
            await body()
        finally:
            server.close()

    asyncio.run(main())


async def talk(path: Path, sent: bytes) -> bytes:
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(sent)
    async with asyncio.timeout(5):
        try:
            return await reader.read()
        except ConnectionError:
            return b""
        finally:
            writer.close()


def test_a_request_is_answered(path: Path) -> None:
    async def body() -> None:
        answer = await asyncio.to_thread(ask, path, {"command": "status"})
        assert answer == {"asked": {"command": "status"}}

    serving(path, body)


def test_only_its_owner_can_open_it(path: Path) -> None:
    async def body() -> None:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700

    serving(path, body)


def test_it_is_gone_after_the_end(path: Path) -> None:
    async def body() -> None:
        assert is_alive(path)

    serving(path, body)
    assert not path.exists()
    assert not is_alive(path)


def test_the_socket_of_a_daemon_that_was_killed_is_replaced(path: Path) -> None:
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert path.is_socket()

    async def body() -> None:
        assert "asked" in await asyncio.to_thread(ask, path, {})

    serving(path, body)


def test_a_second_daemon_is_refused_and_does_not_harm_the_first(path: Path) -> None:
    async def body() -> None:
        with pytest.raises(ControlError, match="another deepseek-exporter already runs here"):
            await ControlServer(path, echo).start()
        assert "asked" in await asyncio.to_thread(ask, path, {})

    serving(path, body)


def test_a_file_that_is_no_socket_is_not_deleted(tmp_path: Path) -> None:
    precious = tmp_path / "config.toml"
    precious.write_text("pool = 'production'")

    async def main() -> None:
        await ControlServer(precious, echo).start()

    with pytest.raises(ControlError, match="no socket"):
        asyncio.run(main())
    assert precious.read_text() == "pool = 'production'"


@pytest.mark.parametrize("name", ["x" * 200, "file/control.sock"])
def test_a_place_where_no_socket_can_be_is_one_clear_error(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")

    async def main() -> None:
        await ControlServer(tmp_path / name, echo).start()

    with pytest.raises(ControlError, match=r"--state\.control-socket") as caught:
        asyncio.run(main())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        (b"not JSON\n", {"error": "not JSON"}),
        (b"[1]\n", {"error": "not an object"}),
        (b"\xff\xfe\n", {"error": "not JSON"}),
        (b"[" * 4000 + b"\n", {"error": "not JSON"}),
    ],
)
def test_garbage_is_named(path: Path, sent: bytes, answer: Answer) -> None:
    async def body() -> None:
        assert json.loads(await talk(path, sent)) == answer

    serving(path, body)


def test_a_client_that_says_too_much_costs_only_itself(path: Path) -> None:
    async def body() -> None:
        await talk(path, b"x" * 100_000)
        assert "asked" in await asyncio.to_thread(ask, path, {})

    serving(path, body)


def test_clients_that_say_nothing_do_not_keep_others_waiting(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "_REQUEST_SECONDS", 0.2)

    async def body() -> None:
        silent = [await asyncio.open_unix_connection(path) for _ in range(20)]
        assert "asked" in await asyncio.to_thread(ask, path, {})
        async with asyncio.timeout(5):  # and they are hung up on
            assert [await reader.read() for reader, _ in silent] == [b""] * 20
        for _, writer in silent:
            writer.close()

    serving(path, body)


# Asking


def test_asking_where_no_daemon_runs_says_so(path: Path) -> None:
    with pytest.raises(ControlError, match="no daemon answers"):
        ask(path, {"command": "status"})


def answering(path: Path, answer: bytes) -> threading.Thread:
    """A daemon that gives one client this answer."""
    path.parent.mkdir(parents=True)
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen()

    def serve() -> None:
        with server, server.accept()[0] as client:
            client.recv(4096)
            client.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


@pytest.mark.parametrize("answer", [b"", b"garbage\n", b"5\n", b'{"error": "no such thing"}\n'])
def test_an_answer_that_is_none_is_an_error(path: Path, answer: bytes) -> None:
    thread = answering(path, answer)
    with pytest.raises(ControlError):
        ask(path, {"command": "status"})
    thread.join()


def test_a_daemon_that_does_not_answer_is_waited_for_so_long_and_no_longer(path: Path) -> None:
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        with pytest.raises(ControlError, match="gave no answer"):
            ask(path, {"command": "status"}, seconds=0.1)
