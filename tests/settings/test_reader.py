"""Which value is in force, and what is said about a configuration that cannot be used."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from exporter.settings import options, reader
from exporter.settings.errors import ConfigurationError
from exporter.settings.options import Settings
from exporter.settings.reader import ENV_PREFIX, read

Write = Callable[[str], Path]

CANARY = "hunter2-canary"
"""A secret in the wrong place; no message may repeat it."""

ONE = '[[deployments]]\nname = "r1"\nmodel = "deepseek-ai/DeepSeek-R1"\n'


def problem(path: Path, flags: dict[str, dict[str, object]] | None = None) -> str:
    with pytest.raises(ConfigurationError) as caught:
        read(path, flags or {})
    return str(caught.value)


class TestPrecedence:
    def test_without_a_file_every_option_has_its_default(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(reader, "DEFAULT_FILE", tmp_path / "config.toml")
        assert read(None, {}) == Settings()

    def test_the_default_file_is_read_when_it_is_there(
        self, write: Write, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(reader, "DEFAULT_FILE", write('pool = "research"'))
        assert read(None, {}).pool == "research"

    def test_the_environment_beats_the_file_and_a_flag_beats_both(
        self, write: Write, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = write('[poll]\ninterval = 1\n[log]\nlevel = "debug"\nformat = "json"\n')
        monkeypatch.setenv(ENV_PREFIX + "POLL_INTERVAL", "2")
        monkeypatch.setenv(ENV_PREFIX + "LOG_LEVEL", "warning")
        settings = read(path, {"poll": {"interval": "3"}})
        assert settings.poll.interval == 3
        assert settings.log == options.Log(level="warning", format="json")

    def test_an_option_of_one_section_leaves_the_others_of_that_section_alone(
        self, write: Write, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = write("[nvml]\nretry = 7\n")
        monkeypatch.setenv(ENV_PREFIX + "NVML_DEVICE_DEADLINE", "4")
        nvml = read(path, {"nvml": {"quarantine": "9"}}).nvml
        assert (nvml.retry, nvml.device_deadline, nvml.quarantine) == (7, 4, 9)

    @pytest.mark.parametrize(
        ("section", "key"), [(section, key) for section, key, _, _ in options.scalar_options()]
    )
    def test_every_option_can_be_set_by_its_variable(
        self, section: str, key: str, write: Write, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        texts = {"level": "error", "format": "json", "cgroup_limit": "ignore"}
        texts |= {"discover": "false", "max_entries": "1700"}
        texts |= {"enabled": "false", "evaluate": "false", "links": "true", "time_scale": "0.5"}
        texts |= {"memory_bandwidth": "460GB/s"}
        monkeypatch.setenv(f"{ENV_PREFIX}{section}_{key}".upper(), texts.get(key, "17"))
        set_here, default = read(write(""), {}), Settings()
        assert getattr(getattr(set_here, section), key) != getattr(getattr(default, section), key)

    def test_options_outside_a_section_have_variables_too(
        self, write: Write, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(ENV_PREFIX + "POOL", "production")
        monkeypatch.setenv(ENV_PREFIX + "EXPECTED_GPUS", "8")
        settings = read(write("expected_gpus = 4"), {})
        assert (settings.pool, settings.expected_gpus) == ("production", 8)


class TestValues:
    @pytest.mark.parametrize(
        ("text", "size_bytes"), [('"2GiB"', 2**31), ('"80GB"', 80 * 10**9), ("4096", 4096), ('"0"', 0)]
    )
    def test_sizes_read_as_people_write_them(self, text: str, size_bytes: int, write: Write) -> None:
        path = write(f"[capacity]\ngpu_safety_margin = {text}\n{ONE}kv_cache_bytes = {text}\n")
        settings = read(path, {})
        assert settings.capacity.gpu_safety_margin == size_bytes
        assert settings.deployments[0].kv_cache_bytes == size_bytes

    @pytest.mark.parametrize(
        ("text", "bytes_per_second"),
        [("460.8GB/s", 460_800_000_000), ("1 TB/s", 10**12), ("300GB", 3 * 10**11)],
    )
    def test_rates_read_as_people_write_them(self, text: str, bytes_per_second: int, write: Write) -> None:
        settings = read(write(f'[host]\nmemory_bandwidth = "{text}"'), {})
        assert settings.host.memory_bandwidth == bytes_per_second

    @pytest.mark.parametrize("value", ['"460"', "460", '"460Gbit/s"', '"fast"', '"-3GB/s"', '"460G/s"'])
    def test_a_rate_that_memory_cannot_have_is_refused(self, value: str, write: Write) -> None:
        with pytest.raises(ConfigurationError, match=r"host\.memory_bandwidth"):
            read(write(f"[host]\nmemory_bandwidth = {value}"), {})

    def test_a_size_reads_the_same_from_a_flag(self, write: Write) -> None:
        settings = read(write(""), {"capacity": {"host_safety_margin": "512MiB"}})
        assert settings.capacity.host_safety_margin == 512 * 2**20

    def test_a_deployment_has_every_launch_setting(self, write: Write) -> None:
        path = write(
            ONE + 'engine = "llama.cpp"\ndevices = [1, 0]\nmax_model_len = 32768\nmmap = false\n'
            'required = false\nmatch = { program = "llama-*", unit = "r1.service" }\n'
        )
        assert read(path, {}).deployments == [
            options.Deployment(
                name="r1",
                model="deepseek-ai/DeepSeek-R1",
                engine="llama.cpp",
                devices=[1, 0],
                max_model_len=32768,
                mmap=False,
                required=False,
                match=options.Match(program="llama-*", unit="r1.service"),
            )
        ]


class TestUnknownKeys:
    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (f'nvm = "{CANARY}"', "nvm: unknown key; did you mean 'nvml'?"),
            (f'[poll]\nintervall = "{CANARY}"', "poll.intervall: unknown key; did you mean 'interval'?"),
            (
                f'{ONE}max_model_length = "{CANARY}"',
                "deployments.0.max_model_length: unknown key; did you mean 'max_model_len'?",
            ),
            (
                f'{ONE}match = {{ programm = "{CANARY}" }}',
                "deployments.0.match.programm: unknown key; did you mean 'program'?",
            ),
            (f'[log]\nzzzz = "{CANARY}"', "log.zzzz: unknown key; known here: format, level"),
        ],
    )
    def test_names_the_nearest_and_never_the_value(self, text: str, message: str, write: Write) -> None:
        path = write(text)
        assert problem(path) == f"{path}: {message}"

    def test_in_the_environment_too(self, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(ENV_PREFIX + "POLL_INTERVALL", CANARY)
        assert problem(write("")) == (
            "DEEPSEEK_EXPORTER_POLL_INTERVALL: unknown environment variable; "
            "did you mean 'DEEPSEEK_EXPORTER_POLL_INTERVAL'?"
        )

    @pytest.mark.parametrize("name", ["POLL", "DEPLOYMENTS", "POLL_INTERVAL_X", "", "_"])
    def test_a_variable_that_names_no_single_option_is_refused(
        self, name: str, write: Write, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(ENV_PREFIX + name, CANARY)
        text = problem(write(""))
        assert text.startswith(f"{ENV_PREFIX}{name}: unknown environment variable")
        assert CANARY not in text

    def test_a_lower_case_variable_is_held_to_the_same_names(
        self, write: Write, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("deepseek_exporter_poll_intervall", "3")
        assert "unknown environment variable" in problem(write(""))

    def test_all_of_them_are_named_at_once(self, write: Write) -> None:
        assert len(problem(write("a = 1\nb = 2\n[poll]\nc = 3")).splitlines()) == 3


class TestWrongValues:
    @pytest.mark.parametrize(
        ("text", "where"),
        [
            ('poll.interval = "often"', "poll.interval"),
            ("poll.interval = 0.1", "poll.interval"),
            ("poll.interval = nan", "poll.interval"),
            ("thresholds.vram_overcommit_ratio = inf", "thresholds.vram_overcommit_ratio"),
            ("thresholds.source_stale_seconds = 0", "thresholds.source_stale_seconds"),
            ("web.max_connections = 5000", "web.max_connections"),
            ('nvml.enabled = "perhaps"', "nvml.enabled"),
            ('log.level = "loud"', "log.level"),
            ("expected_gpus = -1", "expected_gpus"),
            ('capacity.gpu_safety_margin = "2G"', "capacity.gpu_safety_margin"),
            ("capacity.gpu_safety_margin = -1", "capacity.gpu_safety_margin"),
            (f'pool = "{"x" * 65}"', "pool"),
            ("poll = 5", "poll"),
            ("deployments = 5", "deployments"),
            (ONE + "tp = 0", "deployments.0.tp"),
            (ONE + "devices = [-1]", "deployments.0.devices.0"),
            (ONE + 'engine = "vlm"', "deployments.0.engine"),
            (ONE + "memory_fraction = 1.5", "deployments.0.memory_fraction"),
            (ONE + 'kv_cache_bytes = "much"', "deployments.0.kv_cache_bytes"),
        ],
    )
    def test_file_and_key_are_named(self, text: str, where: str, write: Write) -> None:
        path = write(text)
        assert problem(path).startswith(f"{path}: {where}: ")

    def test_a_single_table_of_deployments_is_told_how_to_write_the_list(self, write: Write) -> None:
        assert "[[deployments]]" in problem(write('[deployments]\nname = "r1"'))

    def test_a_variable_and_a_flag_are_named_as_the_place(
        self, write: Write, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(ENV_PREFIX + "POLL_INTERVAL", "x")
        text = problem(write(""), {"web": {"max_connections": "y"}})
        assert {line.split(":")[0] for line in text.splitlines()} == {
            "DEEPSEEK_EXPORTER_POLL_INTERVAL",
            "--web.max-connections",
        }

    def test_deployments_need_distinct_names_a_model_and_distinct_devices(self, write: Write) -> None:
        path = write(ONE + "devices = [0, 1, 0]\n" + ONE + '[[deployments]]\nname = "v3"\n')
        assert problem(path).splitlines() == [
            f"{path}: deployments.0: devices names a GPU twice",
            f"{path}: deployments.1: name 'r1' is used twice; names must differ",
            f"{path}: deployments.2: model is missing; every [[deployments]] entry needs a name and a model",
        ]

    @pytest.mark.parametrize("key", ["name", "model"])
    def test_names_are_text_on_one_line(self, key: str, write: Write) -> None:
        other = {"name": "model", "model": "name"}[key]
        path = write(f'[[deployments]]\n{key} = "a\\nb"\n{other} = "x"\n')
        assert problem(path).startswith(f"{path}: deployments.0: {key} has control characters")


class TestFiles:
    def test_malformed_toml_names_the_line(self, write: Write) -> None:
        assert "at line 3" in problem(write('pool = "a"\n[poll]\ninterval = = 5\n'))

    def test_text_that_is_not_utf8_names_the_byte(self, tmp_path: Path) -> None:
        path = tmp_path / "config.toml"
        path.write_bytes(b'pool = "caf\xe9"')
        assert problem(path) == f"{path}: not UTF-8 text (byte 11)"

    def test_a_missing_file_that_was_asked_for_says_how_to_write_one(self, tmp_path: Path) -> None:
        text = problem(tmp_path / "none.toml")
        assert "no such file" in text
        assert "config default" in text

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
    def test_an_unreadable_file_says_so(self, write: Write) -> None:
        path = write("")
        path.chmod(0)
        assert problem(path) == f"{path}: cannot be read: Permission denied"

    def test_a_name_that_cannot_be_opened_says_why(self, tmp_path: Path) -> None:
        path = tmp_path / "loop.toml"
        path.symlink_to(path)
        assert problem(path) == f"{path}: cannot be read: Too many levels of symbolic links"

    def test_a_huge_file_is_not_read_to_its_end(self, tmp_path: Path) -> None:
        path = tmp_path / "config.toml"
        with path.open("wb") as stream:
            stream.truncate(2**40)
        assert problem(path) == f"{path}: larger than 4 MiB, which is no configuration file"

    def test_a_folder_is_no_configuration(self, tmp_path: Path) -> None:
        assert problem(tmp_path) == f"{tmp_path}: cannot be read: Is a directory"

    @pytest.mark.timeout(20)
    def test_a_named_pipe_does_not_hang_the_reader(self, tmp_path: Path) -> None:
        path = tmp_path / "config.toml"
        os.mkfifo(path)
        assert problem(path) == f"{path}: not a regular file"

    def test_endless_nesting_is_refused(self, write: Write) -> None:
        path = write("pool = " + "[" * 20_000 + "]" * 20_000)
        assert problem(path) == f"{path}: nested too deeply for a configuration file"


class TestAlertmanagers:
    @pytest.mark.parametrize(
        ("entry", "problem"),
        [
            ('url = "nonsense"', "url should be http://HOST:PORT or https://HOST:PORT"),
            ('url = "http://h:port"', "url is no URL; write http://HOST:9093"),
            ('url = "http://me:hunter2@h:9093"', "url has a user or password in it"),
            ('url = "http://h:9093/?q=1"', "url should end with the path, without ? and #"),
            ('url = "http://h:9093"\nusername = "me"', "username and password_file go together"),
            (
                'url = "http://h"\nusername = "me"\npassword_file = "/p"\nbearer_token_file = "/t"',
                "give username or bearer_token_file, not both",
            ),
            ('url = "http://h:9093"\ncert_file = "/c"', "cert_file and key_file go together"),
            ('url = "http://h:9093"\nlabels = { "a-b" = "c" }', "'a-b' is no name of a label"),
        ],
    )
    def test_what_cannot_work_is_refused_and_no_secret_repeated(
        self, entry: str, problem: str, write: Write
    ) -> None:
        with pytest.raises(ConfigurationError) as caught:
            read(write(f"[[alertmanagers]]\n{entry}\n"), {})
        assert problem in str(caught.value)
        assert "alertmanagers.0" in str(caught.value)
        assert "hunter2" not in str(caught.value)

    def test_an_unknown_key_names_the_nearest(self, write: Write) -> None:
        with pytest.raises(ConfigurationError, match="did you mean 'password_file'"):
            read(write('[[alertmanagers]]\nurl = "http://h"\npasword_file = "/x"\n'), {})

    def test_a_plan_needs_a_length_and_a_length_a_plan(self, write: Write) -> None:
        with pytest.raises(ConfigurationError, match="planned_sequences needs planned_context"):
            read(write(f"{ONE}planned_sequences = 4\n"), {})
        with pytest.raises(ConfigurationError, match="planned_context needs planned_sequences"):
            read(write(f"{ONE}planned_context = 4096\n"), {})
        settings = read(write(f"{ONE}planned_sequences = 4\nmax_model_len = 8192\n"), {})
        assert settings.deployments[0].planned_sequences == 4


class TestStores:
    def test_an_entry_needs_only_a_path(self, write: Write) -> None:
        [entry] = read(write('[[stores]]\npath = "/models"\n'), {}).stores
        assert (str(entry.path), entry.kind, entry.name) == ("/models", "auto", "")

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("", "should be the whole path"),
            ('path = "models"', "should be the whole path"),
            ('path = "/a"\nname = "x/y"', "one printable word"),
            ('path = "/a"\nname = "x\\ny"', "one printable word"),
            ('path = "/a"\nkind = "nfs"', "kind"),
            ('path = "/a"\n[[stores]]\npath = "/a"', "named twice"),
            ('path = "/a"\nname = "x"\n[[stores]]\npath = "/b"\nname = "x"', "used twice"),
            ('path = "/a"\npfad = "/b"', "did you mean 'path'"),
            ("\n".join(f'path = "/{n}"\n[[stores]]' for n in range(20)) + '\npath = "/z"', "more than 16"),
        ],
    )
    def test_what_cannot_be_is_refused(self, text: str, problem: str, write: Write) -> None:
        with pytest.raises(ConfigurationError) as caught:
            read(write(f"[[stores]]\n{text}\n"), {})
        assert problem in str(caught.value)

    def test_a_floor_reads_as_people_write_it(self, write: Write) -> None:
        found = read(write('[thresholds]\nmodel_store_free_bytes = "1TB"\n'), {})
        assert found.thresholds.model_store_free_bytes == 10**12
