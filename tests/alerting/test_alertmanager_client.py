"""The push to one Alertmanager over HTTP and TLS: what it sends, and what it says when that is not taken."""

from __future__ import annotations

import ssl
import threading
from pathlib import Path
from typing import Any

import pytest
import trustme
from prometheus_process import free_port
from webhook import Webhook

from exporter.alerting.alertmanager import AlertmanagerClient, NotSent, name_of
from exporter.settings.options import Alertmanager

CANARY = "canary-77d1e0"


def client(url: str, **options: Any) -> AlertmanagerClient:
    return AlertmanagerClient(Alertmanager(url=url, timeout=2.0, **options))


def why(url: str, **options: Any) -> str:
    with pytest.raises(NotSent) as caught:
        client(url, **options).post(b"[]")
    return str(caught.value)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def server_tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> Path:
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return path


def secret(tmp_path: Path, text: str = f"{CANARY}\n") -> Path:
    path = tmp_path / "secret"
    path.write_text(text)
    return path


def test_it_posts_json_to_the_v2_api_below_the_urls_path() -> None:
    with Webhook() as receiver:
        client(f"{receiver.url}/alertmanager/").post(b'[{"labels": {}}]')
    [request] = receiver.received
    assert request.path == "/alertmanager/api/v2/alerts"
    assert request.headers["content-type"] == "application/json"
    assert request.json == [{"labels": {}}]


def test_basic_authentication_comes_from_a_file_that_may_change(tmp_path: Path) -> None:
    password = secret(tmp_path)
    with Webhook() as receiver:
        one = client(receiver.url, username="exporter", password_file=password)
        one.post(b"[]")
        password.write_text("another")
        one.post(b"[]")
    first, second = (request.headers["authorization"] for request in receiver.received)
    assert first.startswith("Basic ")
    assert first != second


def test_a_token_comes_from_a_file(tmp_path: Path) -> None:
    with Webhook() as receiver:
        client(receiver.url, bearer_token_file=secret(tmp_path)).post(b"[]")
    assert receiver.received[0].headers["authorization"] == f"Bearer {CANARY}"


def test_tls_is_verified_against_the_configured_authority(server_tls: ssl.SSLContext, ca_file: Path) -> None:
    with Webhook(tls=server_tls) as receiver:
        client(receiver.url, ca_file=ca_file).post(b"[]")
        assert why(receiver.url) == "certificate not accepted; give its authority as ca_file"
        client(receiver.url, insecure_skip_verify=True).post(b"[]")
    assert len(receiver.received) == 2


def test_a_client_certificate_is_shown(
    authority: trustme.CA, server_tls: ssl.SSLContext, ca_file: Path, tmp_path: Path
) -> None:
    mine = authority.issue_cert("exporter.example")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    mine.cert_chain_pems[0].write_to_path(str(cert))
    mine.private_key_pem.write_to_path(str(key))
    server_tls.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(server_tls)
    with Webhook(tls=server_tls) as receiver:
        client(receiver.url, ca_file=ca_file, cert_file=cert, key_file=key).post(b"[]")
        with pytest.raises(NotSent):
            client(receiver.url, ca_file=ca_file).post(b"[]")
    assert len(receiver.received) == 1


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (500, "HTTP status 500"),
        (400, "HTTP status 400"),
        (401, "HTTP status 401; username and password, or token, are missing or wrong"),
        (404, "HTTP status 404; is the path of the URL right?"),
        (302, "HTTP status 302; give the address that it redirects to"),
    ],
)
def test_a_refusal_is_told_and_no_redirect_followed(status: int, reason: str) -> None:
    with Webhook(statuses=[status]) as receiver:
        assert why(receiver.url) == reason


def test_nobody_there() -> None:
    assert why(f"http://127.0.0.1:{free_port()}") == "connection refused"


def test_one_that_never_answers_is_given_up_in_time() -> None:
    silent = threading.Event()
    silent.set()
    with Webhook(silent=silent) as receiver:
        assert why(receiver.url) == "no answer in time"


def test_an_endless_answer_is_cut() -> None:
    with Webhook(answer=b"x" * 2**20) as receiver:
        client(receiver.url).post(b"[]")
        with pytest.raises(NotSent, match="is no Alertmanager"):
            client(receiver.url).version()
    assert len(receiver.received) == 2


@pytest.mark.parametrize("text", ["", "two\nlines", "bell\x07"])
def test_a_credential_file_that_cannot_be_one_is_named_and_not_repeated(text: str, tmp_path: Path) -> None:
    with Webhook() as receiver:
        told = why(receiver.url, bearer_token_file=secret(tmp_path, text))
    assert told == "credential file secret: should hold one line"
    assert receiver.received == []


def test_missing_files_are_named(tmp_path: Path) -> None:
    with Webhook() as receiver:
        assert why(receiver.url, bearer_token_file=tmp_path / "gone") == (
            "credential file gone: No such file or directory"
        )
        assert why("https://127.0.0.1:1", ca_file=tmp_path / "gone") == (
            "certificate files: No such file or directory"
        )
        assert why("https://127.0.0.1:1", ca_file=secret(tmp_path)).startswith(
            "certificate files: not in PEM format"
        )
    assert receiver.received == []


def test_what_is_no_alertmanager_is_told_from_one() -> None:
    with Webhook(answer=b'{"versionInfo": {"version": "0.25.0"}}') as receiver:
        assert client(receiver.url).version() == "0.25.0"
    with Webhook(answer=b"<html>") as receiver, pytest.raises(NotSent, match="is no Alertmanager"):
        client(receiver.url).version()


def test_names_have_neither_path_nor_secret() -> None:
    assert name_of(Alertmanager(url="https://am.example/path")) == "am.example:443"
    assert name_of(Alertmanager(url="http://[::1]:9093")) == "[::1]:9093"
