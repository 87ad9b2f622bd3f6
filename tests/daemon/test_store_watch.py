"""The watch over stores: which are watched, what a hung mount costs, and what is told of it meanwhile."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from model_stores import KIB, OllamaStore, Repository, grown

from exporter.daemon import stores as watching
from exporter.daemon.poller import Poller
from exporter.daemon.stores import StoreWatch, wanted
from exporter.engines.discovery import Instance
from exporter.engines.launch import Launch, Role
from exporter.engines.process import Process
from exporter.exposition.collect import samples
from exporter.hardware.inventory import Inventory
from exporter.models.catalog import catalog
from exporter.settings.options import Host, Nvml, Settings, Storage, Store
from exporter.snapshot import Snapshot, to_plain
from exporter.storage.facts import RootState
from exporter.storage.facts import Store as StoreFacts
from exporter.storage.space import Probe, probe

R1 = "deepseek-ai/DeepSeek-R1"
GPUS_OFF = Nvml(enabled=False)


def hub(folder: Path) -> Path:
    repository = Repository(folder, R1)
    repository.ref("main", "aaaa")
    repository.shards("aaaa", 2)
    return folder


def configured(*paths: Path, **names: str) -> list[Store]:
    return [Store(path=path) for path in paths]


def process(pid: int) -> Process:
    return Process(pid, 1, 10, frozenset({"vllm"}), frozenset(), candidate=True)


def instance(pid: int, model: str, **more: object) -> Instance:
    launch = Launch(Role.SERVER, "vllm", model=model)
    base: dict[str, object] = {"folder": "/", "namespace": ""}
    one = process(pid)
    return Instance("vllm", launch, one, one, frozenset({pid}), None, None, **(base | more))  # type: ignore[arg-type]


async def until(watch: StoreWatch, holds: Callable[[], bool], *instances: Instance) -> None:
    for _ in range(500):
        watch.see(instances)
        await watch.refresh()
        if holds():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come about")


def run(work: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await work()

    asyncio.run(main())


def state_of(watch: StoreWatch, name: str) -> RootState:
    roots = {root.name: root.state for store in watch.stores({}) for root in store.roots}
    return roots[name]


def is_up(watch: StoreWatch) -> bool:
    told = watch.stores({})
    return bool(told) and all(root.state is RootState.UP for one in told for root in one.roots)


def test_a_configured_store_is_told_with_its_models(tmp_path: Path) -> None:
    watch = StoreWatch(Storage(), configured(hub(tmp_path)))

    async def work() -> None:
        await until(watch, lambda: is_up(watch))
        [one] = watch.stores({})
        assert one.used_bytes == 128 * KIB
        assert one.free_bytes is not None
        assert (watch.state, watch.expected) == ("up", True)

    run(work)


def test_two_roots_on_one_disk_share_it_and_nested_ones_count_once(tmp_path: Path) -> None:
    hub(tmp_path / "hub")
    grown(tmp_path / "DeepSeek-V3.gguf", 64 * KIB)
    OllamaStore(tmp_path / "ollama").model("deepseek-r1", "7b", {"w": 32 * KIB})
    watch = StoreWatch(Storage(), configured(tmp_path, tmp_path / "hub", tmp_path / "ollama"))

    async def work() -> None:
        await until(watch, lambda: is_up(watch))
        [one] = watch.stores({})
        assert one.used_bytes == (128 + 64 + 32) * KIB
        assert [root.name for root in one.roots] == ["models", "models-2", "ollama"]

    run(work)


def test_the_store_of_an_engine_is_found_and_outlives_it(tmp_path: Path) -> None:
    snapshot = hub(tmp_path) / "models--deepseek-ai--DeepSeek-R1" / "snapshots" / "aaaa"
    watch = StoreWatch(Storage(), [])

    async def work() -> None:
        await until(watch, lambda: is_up(watch), instance(7, str(snapshot)))
        [one] = watch.stores({"r1": frozenset({7, 8}), "other": frozenset({9})})
        assert (one.name, one.deployments) == ("huggingface", ("r1",))
        assert (watch.state, watch.expected) == ("up", False)
        watch.see(())
        [left] = watch.stores({})
        assert (left.name, left.deployments, left.used_bytes) == ("huggingface", (), 128 * KIB)

    run(work)


def test_an_engine_that_fetches_from_a_hub_tells_its_cache(tmp_path: Path) -> None:
    watch = StoreWatch(Storage(), [])

    async def work() -> None:
        await until(
            watch, lambda: is_up(watch), instance(7, R1, model_cache=str(hub(tmp_path / "c" / "hub")))
        )

    run(work)


@pytest.mark.parametrize(
    "one",
    [
        instance(7, "/nowhere/at/all"),
        instance(7, R1),
        instance(7, "/etc/passwd", namespace=None),
        instance(7, "/\0"),
        instance(7, "~/models"),
    ],
)
def test_an_engine_whose_files_are_not_seen_makes_no_store(one: Instance) -> None:
    watch = StoreWatch(Storage(), [])

    async def work() -> None:
        for _ in range(5):
            watch.see([one])
            await watch.refresh()
            await asyncio.sleep(0.01)
        assert watch.stores({}) == ()
        assert not watch.is_watching

    run(work)


def test_a_container_that_takes_over_keeps_the_name_of_its_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Each process reaches the folder by a path of its own, /proc/PID/root.
    monkeypatch.setattr(watching, "SPACE_SECONDS", 0.02)
    places = [tmp_path / "7", tmp_path / "8"]
    hub(tmp_path / "hub")
    for place in places:
        place.symlink_to(tmp_path)
    monkeypatch.setattr(
        watching,
        "place_of",
        lambda path, prefix: watching.Place(path, watching.Kind.AUTO, "models"),
    )
    old, new = (instance(pid, f"{place}/hub") for pid, place in zip((7, 8), places, strict=True))
    watch = StoreWatch(Storage(), [])
    owned = {"old": frozenset({7}), "new": frozenset({8})}

    def told() -> tuple[str, tuple[str, ...]] | None:
        found = watch.stores(owned)
        return (found[0].roots[0].name, found[0].deployments) if len(found) == 1 and is_up(watch) else None

    async def work() -> None:
        await until(watch, lambda: told() == ("models", ("old",)), old)
        await until(watch, lambda: told() == ("models", ("new", "old")), old, new)
        places[0].unlink()  # the first container has ended
        await until(watch, lambda: told() == ("models", ("new",)), new)

    run(work)


def test_discovery_can_be_switched_off(tmp_path: Path) -> None:
    watch = StoreWatch(Storage(discover=False), [])
    watch.see([instance(7, str(hub(tmp_path)))])
    assert not watch.is_watching
    assert not StoreWatch(Storage(enabled=False), configured(tmp_path)).is_watching


@pytest.fixture
def hung(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Path], threading.Event]]:
    """A mount that does not answer any more: a call to it sleeps until it is let go."""
    events: list[threading.Event] = []

    def hang(path: Path) -> threading.Event:
        answers = threading.Event()
        events.append(answers)

        def sleeping(root: str) -> Probe:
            if root == str(path):
                answers.wait(30)
            return probe(root)

        monkeypatch.setattr(watching, "probe", sleeping)
        return answers

    monkeypatch.setattr(watching, "ANSWER_SECONDS", 0.05)
    monkeypatch.setattr(watching, "SPACE_SECONDS", 0.02)
    yield hang
    for event in events:
        event.set()


def test_a_hung_mount_costs_its_own_store_alone(
    tmp_path: Path, hung: Callable[[Path], threading.Event]
) -> None:
    (tmp_path / "nfs").mkdir()
    hub(tmp_path / "disk")
    watch = StoreWatch(Storage(), configured(tmp_path / "nfs", tmp_path / "disk"))
    answers = hung(tmp_path / "nfs")

    async def work() -> None:
        started = time.monotonic()
        await watch.refresh()
        assert time.monotonic() - started < 1
        # As long as it lasts: one thread, not one for each look.
        before = threading.active_count()
        await until(watch, lambda: state_of(watch, "models-2") is RootState.UP)
        await until(watch, lambda: state_of(watch, "models") is RootState.STALLED)
        assert threading.active_count() <= before + 1
        lost, found = watch.stores({})
        assert (lost.free_bytes, lost.size_bytes, lost.used_bytes) == (None, None, None)
        assert found.used_bytes == 128 * KIB
        assert (watch.state, watch.errors["stalled"]) == ("stalled", 1)
        answers.set()
        await until(watch, lambda: is_up(watch))
        assert watch.state == "up"
        [both] = watch.stores({})  # they turn out to be on one disk
        assert len(both.roots) == 2

    run(work)


def test_what_was_known_of_a_store_that_hangs_is_not_told_any_more(
    tmp_path: Path, hung: Callable[[Path], threading.Event]
) -> None:
    watch = StoreWatch(Storage(), configured(hub(tmp_path)))

    async def work() -> None:
        await until(watch, lambda: is_up(watch))
        hung(tmp_path)
        await until(watch, lambda: state_of(watch, "models") is RootState.STALLED)
        [one] = watch.stores({})
        assert (one.free_bytes, one.used_bytes, one.checkpoints) == (None, None, ())

    run(work)


def test_a_folder_that_goes_is_missing_and_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "SPACE_SECONDS", 0.02)
    root = hub(tmp_path / "hub")
    watch = StoreWatch(Storage(), configured(root))

    async def work() -> None:
        await until(watch, lambda: is_up(watch))
        root.rename(tmp_path / "away")
        await until(watch, lambda: state_of(watch, "models") is RootState.MISSING)
        assert watch.state == "missing"
        (tmp_path / "away").rename(root)
        await until(watch, lambda: is_up(watch))

    run(work)


def test_a_reload_takes_up_and_lets_go(tmp_path: Path) -> None:
    one, other = hub(tmp_path / "one"), hub(tmp_path / "other")
    watch = StoreWatch(Storage(), configured(one))

    async def work() -> None:
        await until(watch, lambda: is_up(watch))
        watch.apply(Storage(), [Store(path=other, name="spare"), *configured(one)])
        assert state_of(watch, "models") is RootState.UP  # what is known is kept
        await until(watch, lambda: is_up(watch))
        [both] = watch.stores({})
        assert [root.name for root in both.roots] == ["spare", "models"]
        watch.apply(Storage(), [])
        assert not watch.is_watching

    run(work)


def test_scanning_goes_on_beside_and_never_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = StoreWatch(Storage(), configured(hub(tmp_path)))
    release, begun = threading.Event(), []

    def slow(*_: object) -> None:
        begun.append(1)
        release.wait(10)

    monkeypatch.setattr(watch, "_scan_all", slow)

    async def work() -> None:
        for _ in range(20):
            await watch.refresh()
            await watch.scan()
            await asyncio.sleep(0.005)
        assert begun == [1]
        release.set()

    run(work)


class TestPlan:
    def test_it_has_the_size_of_the_published_files(self) -> None:
        one = wanted(Storage(next_model="deepseek-ai/DeepSeek-V3.2"), catalog())
        assert one is not None
        assert (one.model, one.quantization, one.native) == ("deepseek-ai/DeepSeek-V3.2", "fp8", True)
        assert one.size_bytes == pytest.approx(689e9, rel=0.01)

    def test_a_quantization_of_its_own(self) -> None:
        one = wanted(Storage(next_model=R1, next_quantization="Q4_K_M"), catalog())
        assert one is not None
        assert one.size_bytes == pytest.approx(404e9, rel=0.01)  # energy-capacity: published GGUF of 671B

    @pytest.mark.parametrize(
        ("model", "quantization"), [("deepseek-ai/V9", None), (R1, "nonsense"), (R1, "int4")]
    )
    def test_what_is_not_known_is_refused(self, model: str, quantization: str | None) -> None:
        with pytest.raises(ValueError, match=r"\w"):
            wanted(Storage(next_model=model, next_quantization=quantization), catalog())


def test_a_snapshot_has_the_stores_and_no_path(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "meminfo").write_text("MemTotal: 67108864 kB\nMemAvailable: 41943040 kB\n")
    settings = Settings(
        nvml=GPUS_OFF,
        host=Host(proc_path=tmp_path / "proc", sys_path=tmp_path / "sys"),
        storage=Storage(next_model="deepseek-ai/DeepSeek-V9"),
        stores=configured(hub(tmp_path / "secret-place")),
    )
    poller = Poller(settings, Inventory(None))

    async def main() -> Snapshot:
        await poller.poll()
        await poller.stores.scan(10)
        return await poller.poll()

    snapshot = asyncio.run(main())
    [one] = snapshot.stores
    assert isinstance(one, StoreFacts)
    assert one.used_bytes == 128 * KIB
    assert one.next_model is None  # no such model: told in the log, and nothing else is lost
    states = {source.name: source.state for source in snapshot.sources}
    assert states["stores"] == "up"
    told = {family.name: value for family, labels, value in samples(snapshot)}
    assert told["deepseek_model_store_used_bytes"] == 128 * KIB
    everything = f"{to_plain(snapshot)}{[labels for _, labels, _ in samples(snapshot)]}"
    assert "secret-place" not in everything
    assert str(tmp_path) not in everything
