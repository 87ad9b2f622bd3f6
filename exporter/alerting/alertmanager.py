"""One Alertmanager, over HTTP: urllib3 with configured certificates and credentials, no redirect, no proxy.

Credential files are read at every push, so that a rotated secret needs no reload, and no secret stays in
memory or reaches a log line.
"""

from __future__ import annotations

import json
import ssl
from pathlib import Path
from urllib.parse import urlsplit

import urllib3

from exporter.settings.options import Alertmanager

_BODY_LIMIT_BYTES = 65536
_SECRET_LIMIT_BYTES = 4096
_AGENT = "deepseek-exporter"


class NotSent(Exception):
    """Alertmanager did not take it; the text is the reason, without anything received or secret."""


def name_of(entry: Alertmanager) -> str:
    """What an Alertmanager is called in labels and logs: host and port."""
    parts = urlsplit(entry.url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return f"[{parts.hostname}]:{port}" if ":" in (parts.hostname or "") else f"{parts.hostname}:{port}"


class AlertmanagerClient:
    """Talks to one Alertmanager; its methods block, and belong into a thread of their own."""

    def __init__(self, entry: Alertmanager) -> None:
        self.name = name_of(entry)
        self._entry = entry

    def post(self, body: bytes) -> None:
        """Send alerts. Raises NotSent."""
        self._ask("POST", "/api/v2/alerts", body)

    def version(self) -> str:
        """Its version: a sign that address, certificate and credentials are right. Raises NotSent."""
        try:
            return str(json.loads(self._ask("GET", "/api/v2/status"))["versionInfo"]["version"])
        except (ValueError, KeyError, TypeError, RecursionError):
            raise NotSent("what answers is no Alertmanager; is the URL right?") from None

    def _ask(self, method: str, path: str, body: bytes | None = None) -> bytes:
        headers = {
            "User-Agent": _AGENT,
            "Content-Type": "application/json",
            "Accept-Encoding": "identity",
            **self._credentials(),
        }
        timeout = urllib3.Timeout(total=self._entry.timeout)
        # A pool for each push, so that certificates are read anew; one push a minute costs one handshake.
        try:
            with urllib3.PoolManager(retries=False, timeout=timeout, ssl_context=self._tls()) as pool:
                answer = pool.request(
                    method,
                    self._entry.url.rstrip("/") + path,
                    body=body,
                    headers=headers,
                    redirect=False,
                    preload_content=False,
                )
                try:
                    content = answer.read(_BODY_LIMIT_BYTES)
                finally:
                    answer.close()
        except urllib3.exceptions.HTTPError as error:
            raise NotSent(_reason(error)) from None
        if not 200 <= answer.status < 300:
            raise NotSent(f"HTTP status {answer.status}{_ADVICE.get(answer.status, '')}")
        return content

    def _credentials(self) -> dict[str, str]:
        entry = self._entry
        if entry.bearer_token_file is not None:
            return {"Authorization": f"Bearer {_secret(entry.bearer_token_file)}"}
        if entry.username is not None and entry.password_file is not None:
            return urllib3.make_headers(basic_auth=f"{entry.username}:{_secret(entry.password_file)}")
        return {}

    def _tls(self) -> ssl.SSLContext | None:
        entry = self._entry
        if not entry.url.startswith("https:"):
            return None
        try:
            context = ssl.create_default_context(cafile=entry.ca_file)
            if entry.cert_file is not None:
                context.load_cert_chain(entry.cert_file, entry.key_file)
        except ssl.SSLError:
            raise NotSent("certificate files: not in PEM format, or the key is another's") from None
        except OSError as error:
            raise NotSent(f"certificate files: {error.strerror}") from None
        if entry.insecure_skip_verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


_ADVICE = {
    301: "; give the address that it redirects to",
    302: "; give the address that it redirects to",
    307: "; give the address that it redirects to",
    308: "; give the address that it redirects to",
    401: "; username and password, or token, are missing or wrong",
    403: "; the user may not push alerts",
    404: "; is the path of the URL right?",
}


def _secret(file: Path) -> str:
    """What a credential file holds, less its line end. Raises NotSent."""
    try:
        with file.open("rb") as stream:
            text = stream.read(_SECRET_LIMIT_BYTES).decode().rstrip("\r\n")
    except OSError as error:
        raise NotSent(f"credential file {file.name}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise NotSent(f"credential file {file.name}: not text") from None
    if not text or not text.isprintable():
        raise NotSent(f"credential file {file.name}: should hold one line")
    return text


def _reason(error: urllib3.exceptions.HTTPError) -> str:
    """An error of urllib3 in few words: its own text repeats addresses and memory locations."""
    if isinstance(error, urllib3.exceptions.SSLError):
        return "certificate not accepted; give its authority as ca_file"
    if isinstance(error, urllib3.exceptions.NameResolutionError):
        return "its name does not resolve"
    # A refused connection is a timeout to urllib3 too, so it is asked for first.
    if isinstance(error, urllib3.exceptions.NewConnectionError):
        return "connection refused"
    if isinstance(error, urllib3.exceptions.TimeoutError):
        return "no answer in time"
    return "the connection broke off"
