"""The landing page: tells what runs here, escapes every foreign name, and loads nothing."""

from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser

from fixed_snapshot import EMPTY, FULL, declared, identity

from exporter.capacity.assessment import DeploymentStatus
from exporter.hardware.gpu import Gpu, GpuState
from exporter.snapshot import Source
from exporter.web.page import landing

EVIL = "<script>alert('x')</script>\"&amp;${version}"


class Elements(HTMLParser):
    """Collects every element with its attributes."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(page.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def text_of(page: bytes) -> str:
    body = page.decode().partition("</head>")[2]
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", body))


def test_it_tells_memory_deployments_and_sources() -> None:
    text = text_of(landing(FULL))
    assert "GPU 0 H200 up 120.0 GiB 140.4 GiB 137.5 GiB 2.9 GiB" in text
    assert "GPU 1 H200 lost – – – –" in text
    assert "RAM up 136.0 GiB 1.5 TiB 150.0 GiB 1.4 TiB" in text
    assert "r1 deepseek-ai/DeepSeek-R1 fp8 warm" in text
    assert "engines unreadable yes" in text


def test_a_deployment_without_expectation_says_why() -> None:
    assert "unknown model &#x27;deepseek-ai/DeepSeek-V9&#x27;" in landing(FULL).decode()


def test_a_host_with_nothing_has_a_page_too() -> None:
    assert b"<table>" not in landing(EMPTY)
    assert b'href="metrics"' in landing(EMPTY)


def test_foreign_names_are_escaped() -> None:
    device = dataclasses.replace(identity(0), name=EVIL)
    evil = dataclasses.replace(
        FULL,
        gpus=(Gpu(device, GpuState.ERROR),),
        sources=(Source(EVIL, EVIL, True, None, 0.0),),
        assessment=dataclasses.replace(
            FULL.assessment,
            deployments=(DeploymentStatus(declared(EVIL, EVIL, problem=EVIL), "declared_only", frozenset()),),
        ),
    )
    page = landing(evil)
    assert "script" not in {tag for tag, _ in Elements(page).found}
    assert page.count(b"&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt;&quot;&amp;amp;${version}") == 6


def test_the_page_is_well_formed_and_loads_nothing_from_anywhere() -> None:
    page = Elements(landing(FULL))
    assert page.open == []
    links = {attributes[key] for _, attributes in page.found for key in ("href", "src") if key in attributes}
    assert links == {"metrics", "-/healthy", "-/ready"}
    assert b"url(" not in landing(FULL)
    assert b"@import" not in landing(FULL)
