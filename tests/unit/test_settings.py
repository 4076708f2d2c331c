"""Settings: what each one accepts, and which place wins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from taskqueue.errors import ConfigurationError, InvalidSetting, TaskQueueError, UnknownSetting, UsageError
from taskqueue.options import options_of
from taskqueue.settings import (
    GROUPS,
    DatabaseSettings,
    EncryptionSettings,
    LoadedSettings,
    Settings,
    WorkerSettings,
    load_settings,
    mask_url,
)

SECRET = "hunter2-and-more"


@pytest.fixture
def load(tmp_path: Path) -> Any:
    """Load from the files of an empty folder and from the variables given."""

    def load_from(flags: Any = None, **environ: str) -> LoadedSettings:
        return load_settings(flags, environ=environ, directory=tmp_path)

    return load_from


def write(directory: Path, name: str, text: str, mode: int = 0o600) -> None:
    (directory / name).write_bytes(text.encode())
    (directory / name).chmod(mode)


# --- precedence ------------------------------------------------------------------------------------------------------

PLACES = ("flags", "environment", ".env", "taskqueue.toml", "pyproject.toml")
SOURCES = (
    "--workers",
    "environment WORKERS",
    ".env WORKERS",
    "taskqueue.toml worker.workers",
    "pyproject.toml tool.taskqueue.worker.workers",
    "default",
)


def give(place: str, number: int, directory: Path, environ: dict[str, str], flags: dict[str, Any]) -> None:
    match place:
        case "flags":
            flags["worker"] = {"workers": str(number)}
        case "environment":
            environ["WORKERS"] = str(number)
        case ".env":
            write(directory, ".env", f"WORKERS={number}\n")
        case "taskqueue.toml":
            write(directory, "taskqueue.toml", f"[worker]\nworkers = {number}\n")
        case _:
            write(directory, "pyproject.toml", f"[tool.taskqueue.worker]\nworkers = {number}\n")


@pytest.mark.parametrize("first", range(len(PLACES) + 1))
def test_of_all_places_that_give_a_value_the_strongest_wins(first: int, tmp_path: Path) -> None:
    environ: dict[str, str] = {}
    flags: dict[str, Any] = {}
    for rank, place in list(enumerate(PLACES))[first:]:
        give(place, 10 + rank, tmp_path, environ, flags)
    loaded = load_settings(flags, environ=environ, directory=tmp_path)
    assert loaded.settings.worker.workers == (10 + first if first < len(PLACES) else 1)
    assert loaded.sources["worker"]["workers"] == SOURCES[first]


@pytest.mark.parametrize(("strong", "weak"), [(a, b) for a in range(len(PLACES)) for b in range(a + 1, len(PLACES))])
def test_of_each_pair_of_places_the_stronger_wins(strong: int, weak: int, tmp_path: Path) -> None:
    environ: dict[str, str] = {}
    flags: dict[str, Any] = {}
    give(PLACES[strong], 5, tmp_path, environ, flags)
    give(PLACES[weak], 6, tmp_path, environ, flags)
    assert load_settings(flags, environ=environ, directory=tmp_path).settings.worker.workers == 5


def test_a_flag_that_is_none_leaves_the_environment_alone(load: Any) -> None:
    assert load({"worker": {"workers": None}}, WORKERS="3").settings.worker.workers == 3


@pytest.mark.parametrize(("flag", "variable"), [(False, "true"), (True, "false")])
def test_a_switch_on_the_command_line_beats_the_environment_both_ways(load: Any, flag: bool, variable: str) -> None:
    loaded = load({"worker": {"stop_when_empty": flag}}, WORKER_STOP_WHEN_EMPTY=variable)
    assert loaded.settings.worker.stop_when_empty is flag


def test_zero_on_the_command_line_beats_the_environment(load: Any) -> None:
    assert load({"worker": {"grace": "0"}}, WORKER_GRACE="9").settings.worker.grace == 0


def test_keywords_are_settings_of_their_own_place(tmp_path: Path) -> None:
    loaded = load_settings(keywords={"worker": {"workers": 7}}, environ={"WORKERS": "3"}, directory=tmp_path)
    assert (loaded.settings.worker.workers, loaded.sources["worker"]["workers"]) == (7, "keyword")
    with pytest.raises(InvalidSetting, match=r"^keyword: workers must be"):
        load_settings(keywords={"worker": {"workers": 0}}, environ={}, directory=tmp_path)


def test_the_working_directory_is_where_files_are_looked_for(tmp_cwd: Path) -> None:
    write(tmp_cwd, ".env", "WORKERS=9\n")
    assert load_settings(environ={}).settings.worker.workers == 9


# --- what the documents promise --------------------------------------------------------------------------------------


def test_the_defaults_are_the_documented_ones(load: Any) -> None:
    worker = load().settings.worker
    assert (worker.memory, worker.max_jobs, worker.timeout, worker.max_workers) == (52_428_800, 1000, 3600, 10)
    assert load().settings == Settings()


def test_the_sample_env_file_is_read(load: Any, tmp_path: Path) -> None:
    write(
        tmp_path,
        ".env",
        "# Database configuration\nDB_CONNECTION=sqlite\nDB_PATH=storage/queue.db\n\n# DB_CONNECTION=mysql\n"
        "ENCRYPTION_KEY=your-32-character-encryption-key\nWORKER_MEMORY_LIMIT=52428800  # 50MB\nWORKER_MAX_JOBS=1000\n"
        "WORKER_TIMEOUT=3600  # 1 hour\nMAX_WORKERS=10\n",
    )
    loaded = load()
    assert loaded.settings.worker == WorkerSettings()
    assert loaded.settings.encryption.key == "your-32-character-encryption-key"
    assert loaded.warnings == ()


@pytest.mark.parametrize(("given", "size"), [("100", 100 * 1024**2), ("100m", 100 * 1024**2), ("1GB", 1024**3)])
def test_a_bare_memory_flag_counts_megabytes(load: Any, given: str, size: int) -> None:
    assert load({"worker": {"memory": given}}).settings.worker.memory == size


@pytest.mark.parametrize(("given", "size"), [("52428800", 52_428_800), ("64MiB", 64 * 1024**2)])
def test_a_bare_memory_variable_counts_bytes(load: Any, given: str, size: int) -> None:
    assert load(WORKER_MEMORY_LIMIT=given).settings.worker.memory == size


@pytest.mark.parametrize(
    ("name", "value", "group", "option", "expected"),
    [
        ("WORKER_POOL_SIZE", "4", "worker", "max_workers", 4),
        ("APP_ENV", "prod", "general", "environment", "production"),
        ("APP_ENV", "dev", "general", "environment", "development"),
        ("DB_USER", "me", "database", "username", "me"),
        ("DB_NAME", "jobs", "database", "database", "jobs"),
        ("SCHEDULER_MAX_EXECUTION_TIME", "50", "scheduler", "max_time", 50.0),
        ("SCHEDULER_WORKER_SLEEP", "100", "scheduler", "poll_interval", 0.1),
        ("SCHEDULER_POLL_INTERVAL", "5s", "scheduler", "poll_interval", 5.0),
        ("SCHEDULER_HTTP_TIMEOUT", "30s", "scheduler", "http_timeout", 30.0),
        ("WORKER_HTTP_TIMEOUT", "90", "scheduler", "worker_http_timeout", 90.0),
        ("LOG_LEVEL", "WARN", "general", "log_level", "warning"),
        ("TASKQUEUE_IMPORT", "a.jobs,b.jobs", "worker", "imports", ("a.jobs", "b.jobs")),
        ("ENCRYPTION", "off", "encryption", "enabled", False),
    ],
)
def test_a_variable_reaches_its_setting(
    load: Any, name: str, value: str, group: str, option: str, expected: object
) -> None:
    loaded = load(**{name: value})
    assert getattr(getattr(loaded.settings, group), option) == expected
    assert loaded.sources[group][option] == f"environment {name}"
    assert loaded.warnings == ()


def test_the_documented_name_beats_its_alias(load: Any) -> None:
    assert load(MAX_WORKERS="3", WORKER_POOL_SIZE="4").settings.worker.max_workers == 3


def test_production_is_asked_for_by_name(load: Any) -> None:
    assert load(ENVIRONMENT="production").settings.general.production
    assert not load().settings.general.production


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "value", "part"),
    [
        (
            "workers",
            "0",
            "--workers: workers must be a whole number from 1 to 256, got '0'; to stop claiming use queue:pause",
        ),
        ("workers", "abc", "a whole number from 1 to 256, got 'abc'"),
        ("workers", "-4", "got '-4'"),
        ("workers", "1.5", "got '1.5'"),
        ("workers", "100000", "from 1 to 256, got '100000'"),
        ("memory", "5 bananas", "--memory: memory must be a size in bytes, or such as 50MB or 64MiB"),
        ("timeout", "0", "for no limit say none, or --no-timeout"),
        ("timeout", "-1", "--timeout: timeout must be seconds"),
        ("max_jobs", "0", "--max-jobs: max_jobs must be a whole number of jobs from 1 up, or none, got '0'"),
    ],
)
def test_a_bad_flag_is_a_usage_error(load: Any, option: str, value: str, part: str) -> None:
    with pytest.raises(UsageError) as refusal:
        load({"worker": {option: value}})
    assert part in str(refusal.value)
    assert refusal.value.exit_code == 2


@pytest.mark.parametrize(
    ("name", "value", "part"),
    [
        ("WORKERS", "abc", "environment WORKERS: workers must be a whole number from 1 to 256, got 'abc'"),
        ("DB_CONNECTION", "oracle", "one of sqlite, mysql, mariadb, pgsql, postgresql, postgres, got 'oracle'"),
        ("DB_PORT", "tcp://10.0.0.1:5432", "port must be a whole number from 1 to 65535"),
        ("ENVIRONMENT", "prodution", "got 'prodution'; did you mean production?"),
        ("LOG_FORMAT", "xml", "log_format must be one of text, json, got 'xml'"),
        ("ENCRYPTION", "maybe", "enabled must be true or false, got 'maybe'"),
        ("ENCRYPTION_KEY", "", "key must be text that is not empty"),
        ("DATABASE_URL", "oracle://scott:tiger@host/db", "not with oracle://, got a value that is not shown"),
        ("DATABASE_URL", "queue.db", "url must be a URL that starts with one of sqlite://"),
    ],
)
def test_a_bad_variable_is_a_configuration_error(load: Any, name: str, value: str, part: str) -> None:
    with pytest.raises(InvalidSetting) as refusal:
        load(**{name: value})
    assert part in str(refusal.value)
    assert str(refusal.value).startswith(f"environment {name}: ")
    assert "tiger" not in str(refusal.value)
    assert refusal.value.exit_code == 78


def test_a_bad_value_in_a_file_names_file_and_key(load: Any, tmp_path: Path) -> None:
    write(tmp_path, "taskqueue.toml", "[worker]\nworkers = true\n")
    with pytest.raises(InvalidSetting, match=r"^taskqueue.toml worker.workers: workers must be .*, got True"):
        load()


@pytest.mark.parametrize(
    ("flags", "part"),
    [
        ({"pm": "dynamic", "min_workers": "5", "max_workers": "2"}, "min_workers must be at most max_workers"),
        ({"worker_id": "5", "total_workers": "5"}, "worker_id must be from 0 to 4 of 5, got 5"),
    ],
)
def test_flags_that_contradict_one_another_are_a_usage_error(load: Any, flags: dict[str, str], part: str) -> None:
    with pytest.raises(UsageError, match=part):
        load({"worker": flags})


def test_a_lease_shorter_than_three_heartbeats_is_refused(load: Any) -> None:
    with pytest.raises(ConfigurationError, match="three heartbeats"):
        load(WORKER_LEASE="10", WORKER_HEARTBEAT="5")


def test_an_empty_variable_counts_as_not_given(load: Any) -> None:
    loaded = load(WORKERS="", DATABASE_URL="")
    assert (loaded.settings.worker.workers, loaded.sources["worker"]["workers"]) == (1, "default")


def test_an_unknown_group_is_refused(load: Any) -> None:
    with pytest.raises(UsageError, match="did you mean worker"):
        load({"workers": {}})


# --- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("[worker]\nwrokers = 1\n", "taskqueue.toml: there is no setting worker.wrokers; did you mean workers or"),
        ("[wroker]\nworkers = 1\n", "taskqueue.toml: there is no setting wroker; did you mean worker?"),
        ("workers = 1\n", "taskqueue.toml: there is no setting workers; workers belongs in the table worker"),
        ("[worker]\nlog_level = 'info'\n", "log_level belongs outside of any table"),
        ("worker = 3\n", "taskqueue.toml: worker must be a table: write [worker]"),
        ("[general]\nlog_level = 'info'\n", "there is no setting general"),
    ],
)
def test_an_unknown_key_in_our_file_is_refused(load: Any, tmp_path: Path, text: str, part: str) -> None:
    write(tmp_path, "taskqueue.toml", text)
    with pytest.raises(UnknownSetting) as refusal:
        load()
    assert part in str(refusal.value)
    assert refusal.value.exit_code == 78


def test_an_unknown_key_in_the_project_file_is_refused(load: Any, tmp_path: Path) -> None:
    write(tmp_path, "pyproject.toml", "[tool.taskqueue.worker]\nwrokers = 1\n")
    with pytest.raises(UnknownSetting, match=r"there is no setting tool\.taskqueue\.worker\.wrokers"):
        load()


def test_a_project_file_of_others_is_left_alone(load: Any, tmp_path: Path) -> None:
    write(tmp_path, "pyproject.toml", "[tool.other]\nworkers = 99\n[project]\nname = 'x'\n", 0o644)
    assert load().settings == Settings()


def test_general_settings_stand_outside_of_any_table(load: Any, tmp_path: Path) -> None:
    write(tmp_path, "taskqueue.toml", "log_format = 'json'\n[worker]\ntimeout = '30m'\nimports = ['a', 'b']\n")
    loaded = load()
    assert loaded.settings.general.log_format == "json"
    assert (loaded.settings.worker.timeout, loaded.settings.worker.imports) == (1800, ("a", "b"))


def test_broken_toml_is_a_configuration_error_with_its_line(load: Any, tmp_path: Path) -> None:
    write(tmp_path, "taskqueue.toml", "[worker]\nworkers = = 3\n")
    with pytest.raises(ConfigurationError, match=r"^taskqueue.toml is not valid TOML: .*line 2"):
        load()


def test_a_file_that_cannot_be_read_is_a_configuration_error(load: Any, tmp_path: Path) -> None:
    (tmp_path / ".env").mkdir()
    with pytest.raises(ConfigurationError, match=r"^\.env cannot be read: "):
        load()


def test_text_that_is_not_utf8_is_refused_by_its_line(load: Any, tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"WORKERS=1\nDB_PASSWORD=\xff\n")
    with pytest.raises(ConfigurationError, match=r"^\.env line 2: expected text in UTF-8$"):
        load()


# --- unknown variables and rights ------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["environment", ".env"])
def test_an_unknown_variable_with_our_prefix_is_a_warning(load: Any, tmp_path: Path, place: str) -> None:
    if place == ".env":
        write(tmp_path, ".env", "WORKER_MAXJOBS=5\n")
        loaded = load()
    else:
        loaded = load(WORKER_MAXJOBS="5")
    (warning,) = loaded.warnings
    assert warning.startswith(f"{place}: WORKER_MAXJOBS is no setting and was ignored; did you mean WORKER_MAX_JOBS")


def test_variables_of_others_are_no_warning(load: Any) -> None:
    loaded = load(PATH="/bin", DB_SERVICE_HOST="10.0.0.1", DB_PORT_5432_TCP="tcp://x", TASKQUEUE_TEST_URL="x")
    assert loaded.warnings == ()


SECRET_FILES = [
    (".env", f"DB_PASSWORD={SECRET}\n"),
    (".env", f"DATABASE_URL=postgresql://u:{SECRET}@h/d\n"),
    (".env", f"ENCRYPTION_KEY={SECRET}\n"),
    ("taskqueue.toml", f"[encryption]\nkey = '{SECRET}'\n"),
]


@pytest.mark.parametrize(("name", "text"), SECRET_FILES)
def test_a_file_with_secrets_that_others_can_read_is_a_warning(load: Any, tmp_path: Path, name: str, text: str) -> None:
    write(tmp_path, name, text, 0o644)
    (warning,) = load().warnings
    assert f"other users can read it (mode 0644): run chmod 600 {name}" in warning
    assert SECRET not in warning


@pytest.mark.parametrize(("name", "text"), SECRET_FILES)
def test_in_production_it_is_an_error(load: Any, tmp_path: Path, name: str, text: str) -> None:
    write(tmp_path, name, text, 0o640)
    with pytest.raises(ConfigurationError, match="chmod 600") as refusal:
        load(ENVIRONMENT="production")
    assert refusal.value.exit_code == 78


def test_a_file_that_only_its_owner_can_read_may_hold_secrets(load: Any, tmp_path: Path) -> None:
    write(tmp_path, ".env", f"ENCRYPTION_KEY={SECRET}\n", 0o600)
    assert load(ENVIRONMENT="production").warnings == ()


def test_a_file_without_secrets_may_be_read_by_others(load: Any, tmp_path: Path) -> None:
    write(tmp_path, ".env", "WORKERS=2\nDATABASE_URL=sqlite:///x.db\nDB_PASSWORD=\n", 0o644)
    assert load(ENVIRONMENT="production").warnings == ()


# --- the database ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "url"),
    [
        ({}, "sqlite:///storage/queue.db"),
        ({"DB_PATH": "/var/q.db"}, "sqlite:////var/q.db"),
        ({"DB_PATH": ":memory:"}, "sqlite:///:memory:"),
        ({"DB_CONNECTION": "pgsql", "DB_DATABASE": "q"}, "postgresql://localhost/q"),
        (
            {"DB_CONNECTION": "mysql", "DB_DATABASE": "q", "DB_HOST": "h", "DB_PORT": "3307", "DB_USERNAME": "root"},
            "mysql://root@h:3307/q",
        ),
        (
            {
                "DB_CONNECTION": "postgresql",
                "DB_NAME": "q",
                "DB_USER": "a@b",
                "DB_PASSWORD": "p/@:?#",
                "DB_SSLMODE": "require",
            },
            "postgresql://a%40b:p%2F%40%3A%3F%23@localhost/q?sslmode=require",
        ),
        ({"DB_CONNECTION": "pgsql", "DB_DATABASE": "q", "DB_HOST": "::1"}, "postgresql://[::1]/q"),
        ({"DB_CONNECTION": "pgsql", "DB_DATABASE": "q", "DB_HOST": "/run/pg"}, "postgresql:///q?host=/run/pg"),
        ({"DATABASE_URL": "postgres://u:p@h:5432/d?serverVersion=15"}, "postgresql://u:p@h:5432/d"),
        (
            {"DATABASE_URL": "mysql://u:p@h/d?serverVersion=mariadb-10.11&charset=utf8mb4"},
            "mysql://u:p@h/d",
        ),
        ({"DATABASE_URL": "mariadb://u:p@h/d"}, "mariadb://u:p@h/d"),
        ({"DATABASE_URL": "postgresql+psycopg://h/d"}, "postgresql://h/d"),
        ({"DATABASE_URL": "postgresql+asyncpg://h/d?sslmode=require"}, "postgresql://h/d?sslmode=require"),
        ({"DATABASE_URL": "mysql+pymysql://u:p@h/d"}, "mysql://u:p@h/d"),
        ({"DATABASE_URL": "mariadb+mariadbconnector://u:p@h/d"}, "mariadb://u:p@h/d"),
        ({"DATABASE_URL": "sqlite+aiosqlite:///x.db"}, "sqlite:///x.db"),
        ({"DATABASE_URL": "postgresql://u:p/x:y#z@h:5432/d"}, "postgresql://u:p/x:y#z@h:5432/d"),
        ({"DATABASE_URL": "mysql://u:p%40%3A%2F%25@[::1]:3306/d"}, "mysql://u:p%40%3A%2F%25@[::1]:3306/d"),
        ({"DB_CONNECTION": "mysql", "DB_DATABASE": "q", "DB_PASSWORD": "p%"}, "mysql://:p%25@localhost/q"),
        ({"DATABASE_URL": "sqlite:///x.db", "DB_CONNECTION": "mysql", "DB_DATABASE": "q"}, "sqlite:///x.db"),
    ],
)
def test_the_parts_or_the_url_make_one_url(load: Any, environ: dict[str, str], url: str) -> None:
    assert load(**environ).settings.database.url == url


@pytest.mark.parametrize(
    "parts", [{"DB_CONNECTION": "sqlite", "DB_PATH": "mine.db"}, {"DB_PATH": "mine.db"}], ids=["both", "path"]
)
def test_parts_in_the_environment_beat_a_url_in_the_env_file(load: Any, tmp_path: Path, parts: dict[str, str]) -> None:
    write(tmp_path, ".env", "DATABASE_URL=postgresql://production/jobs\n")
    assert load(**parts).settings.database.url == "sqlite:///mine.db"


def test_a_url_in_the_environment_beats_parts_in_the_env_file(load: Any, tmp_path: Path) -> None:
    write(tmp_path, ".env", "DB_CONNECTION=mysql\nDB_DATABASE=q\n")
    assert load(DATABASE_URL="sqlite:///x.db").settings.database.url == "sqlite:///x.db"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://u:canary@4711@h/d", "written as %40"),
        ("mysql://u:can@ary:x@h/d", "written as %40"),
        ("mysql://h:canary/d", "USER:PASSWORD@HOST:PORT/DATABASE"),
        ("sqlite+pysqlcipher://:canary@/x.db", "starts with sqlite://"),
        ("mysql+canary://h/d", "starts with mysql://"),
        ("oracle://u:canary@h/d", "not with oracle://"),
    ],
)
def test_a_url_that_cannot_be_read_is_refused_without_its_password(load: Any, url: str, said: str) -> None:
    with pytest.raises(InvalidSetting) as refusal:
        load(DATABASE_URL=url)
    assert said in str(refusal.value)
    assert "canary" not in str(refusal.value)


def test_a_server_database_needs_a_name(load: Any) -> None:
    with pytest.raises(InvalidSetting, match="set DB_DATABASE"):
        load(DB_CONNECTION="mysql")


def test_an_ssl_mode_that_the_database_does_not_know_is_refused(load: Any) -> None:
    with pytest.raises(InvalidSetting, match="DB_SSLMODE does not apply to mysql"):
        load(DB_CONNECTION="mysql", DB_DATABASE="q", DB_SSLMODE="require")


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("postgresql://u:p@h/d", "postgresql://u:***@h/d"),
        ("postgresql://u:p@ss@h/d", "postgresql://u:***@h/d"),
        ("postgresql://u:p/?#@h/d", "postgresql://u:***@h/d"),
        ("postgresql://:p@h/d", "postgresql://:***@h/d"),
        ("postgresql://u@h/d?password=p&sslmode=require", "postgresql://u@h/d?password=***&sslmode=require"),
        ("postgresql://h/d?sslmode=require&SSLPassword=p", "postgresql://h/d?sslmode=require&SSLPassword=***"),
        ("postgresql://h:5432/d", "postgresql://h:5432/d"),
        ("sqlite:///x.db", "sqlite:///x.db"),
    ],
)
def test_a_shown_url_has_no_password(url: str, masked: str) -> None:
    assert mask_url(url) == masked


# --- secrets ---------------------------------------------------------------------------------------------------------


def test_rows_name_every_setting_and_mask_secrets(load: Any) -> None:
    loaded = load(
        ENCRYPTION_KEY=SECRET,
        DATABASE_URL=f"mysql://u:{SECRET}@h/d",
        DB_PASSWORD=SECRET,
        SERVER_TOKEN=SECRET,
        WORKERS="2",
    )
    rows = {(row.group, row.option): (row.value, row.source) for row in loaded.rows()}
    assert rows["encryption", "key"] == ("***", "environment ENCRYPTION_KEY")
    assert rows["database", "url"] == ("mysql://u:***@h/d", "environment DATABASE_URL")
    assert rows["database", "password"][0] == rows["server", "token"][0] == "***"
    assert rows["worker", "workers"] == (2, "environment WORKERS")
    assert rows["worker", "grace"] == (25.0, "default")
    assert SECRET not in repr(rows)


def test_settings_do_not_show_secrets(load: Any) -> None:
    loaded = load(ENCRYPTION_KEY=SECRET, DATABASE_URL=f"mysql://u:{SECRET}@h/d", DB_PASSWORD=SECRET)
    assert SECRET not in repr(loaded)


def test_two_keys_in_one_place_are_refused(load: Any) -> None:
    with pytest.raises(InvalidSetting, match="not both") as refusal:
        load(ENCRYPTION_KEY=SECRET, ENCRYPTION_KEY_FILE="/k")
    assert SECRET not in str(refusal.value)


def test_a_key_file_in_the_environment_beats_a_key_in_the_env_file(load: Any, tmp_path: Path) -> None:
    write(tmp_path, ".env", f"ENCRYPTION_KEY={SECRET}\n")
    assert load(ENCRYPTION_KEY_FILE="/k").settings.encryption == EncryptionSettings(key_file="/k")


def test_no_secret_can_be_given_as_a_flag(load: Any) -> None:
    secrets = [option for cls in GROUPS.values() for option in options_of(cls) if option.secret]
    assert {option.name for option in secrets} == {"url", "password", "key", "token"}
    assert all(option.flag == "" for option in secrets)


def test_no_variable_belongs_to_two_settings() -> None:
    names = [name for cls in GROUPS.values() for option in options_of(cls) for name in option.env]
    assert len(names) == len(set(names))


def test_a_refusal_is_one_line(load: Any) -> None:
    with pytest.raises(TaskQueueError) as refusal:
        load(WORKERS="a\nb")
    assert "\n" not in str(refusal.value)


def test_database_settings_can_be_made_by_hand() -> None:
    assert DatabaseSettings(given_url="sqlite:///x.db").url == "sqlite:///x.db"
