"""The settings of what runs: workers and their node, the scheduler, the web server."""

from __future__ import annotations

from dataclasses import dataclass

from taskqueue.errors import SettingsConflict
from taskqueue.options import NO_FLAG, option

LIMITLESS = "for no limit say none"
KEPT_FOR_EVER = "to keep them for ever say none"
LONGEST_RETENTION = 100 * 365 * 86_400.0
MOST_WORKERS = 256


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """One node: a supervisor and its workers."""

    workers: int = option(
        1,
        help="Worker processes of a static node.",
        minimum=1,
        maximum=MOST_WORKERS,
        env=("WORKERS",),
        hint="to stop claiming use queue:pause",
    )
    memory: int = option(
        50 * 1024**2,
        help="Private memory at which a worker is replaced after its job; on the command line a bare number is MB.",
        unit="bytes",
        minimum=1024**2,
        env=("WORKER_MEMORY_LIMIT",),
        bare_units={"--memory": "MB"},
        metavar="MB",
    )
    max_jobs: int | None = option(
        1000,
        help="Jobs after which a worker is replaced.",
        unit="jobs",
        minimum=1,
        env=("WORKER_MAX_JOBS",),
        hint=LIMITLESS,
    )
    timeout: float | None = option(
        3600.0,
        help="Life of a worker process: it is replaced after the job that it then runs.",
        unit="seconds",
        minimum=1,
        env=("WORKER_TIMEOUT",),
        hint=f"{LIMITLESS}, or --no-timeout",
    )
    job_timeout: float | None = option(
        None,
        help="Longest run of one job that sets no timeout itself.",
        unit="seconds",
        minimum=0.01,
        env=("WORKER_JOB_TIMEOUT",),
        hint=LIMITLESS,
    )
    concurrency: int = option(
        1,
        help="Jobs that one worker runs at a time: threads, or tasks where the handlers are async.",
        minimum=1,
        maximum=1024,
        env=("WORKER_CONCURRENCY",),
    )
    pm: str = option(
        "static",
        help="Whether the number of workers is fixed, follows the load, or falls to none while nothing is due.",
        choices=("static", "dynamic", "ondemand"),
        env=("WORKER_PM",),
    )
    min_workers: int = option(
        1,
        help="Fewest workers of a dynamic node.",
        minimum=1,
        maximum=MOST_WORKERS,
        env=("MIN_WORKERS",),
    )
    max_workers: int = option(
        10,
        help="Most workers of a dynamic or ondemand node.",
        minimum=1,
        maximum=MOST_WORKERS,
        env=("MAX_WORKERS", "WORKER_POOL_SIZE"),
    )
    stop_when_empty: bool = option(
        False, help="End when nothing is pending or processing.", env=("WORKER_STOP_WHEN_EMPTY",)
    )
    max_time: float | None = option(
        None,
        help="Stop the node after this time.",
        unit="seconds",
        minimum=1,
        env=("WORKER_MAX_TIME",),
        hint=LIMITLESS,
    )
    grace: float = option(
        25.0,
        help="What running jobs are given to finish when the node is asked to stop.",
        unit="seconds",
        minimum=0,
        maximum=86_400,
        env=("WORKER_GRACE",),
    )
    heartbeat: float = option(
        5.0,
        help="Time between two heartbeats of a node.",
        unit="seconds",
        minimum=0.05,
        maximum=3600,
        env=("WORKER_HEARTBEAT",),
        flag=NO_FLAG,
    )
    lease: float = option(
        30.0,
        help="Silence after which other nodes take the jobs of a node over.",
        unit="seconds",
        minimum=0.15,
        maximum=86_400,
        env=("WORKER_LEASE",),
        flag=NO_FLAG,
    )
    imports: tuple[str, ...] = option(
        (),
        help="Modules with job classes; may be given several times.",
        env=("TASKQUEUE_IMPORT",),
        flag="--import",
        metavar="MODULE",
    )
    scheduler: bool = option(True, help="Whether the node also fires schedules.", env=("WORKER_SCHEDULER",))
    node_name: str | None = option(
        None, help="Name of the node; the host's unless given.", minimum=1, maximum=64, env=("TASKQUEUE_NODE_NAME",)
    )
    worker_id: int = option(
        0,
        help="Which of --total-workers equal commands this one is, counted from 0.",
        minimum=0,
        env=("WORKER_ID",),
    )
    total_workers: int = option(
        1, help="How many equal commands share the queues.", minimum=1, maximum=100_000, env=("TOTAL_WORKERS",)
    )

    retention_completed: float | None = option(
        7 * 86_400.0,
        help="How long completed jobs are kept.",
        unit="seconds",
        minimum=0,
        maximum=LONGEST_RETENTION,
        env=("WORKER_RETENTION_COMPLETED",),
        flag=NO_FLAG,
        hint=KEPT_FOR_EVER,
    )
    retention_failed: float | None = option(
        30 * 86_400.0,
        help="How long failed and cancelled jobs are kept.",
        unit="seconds",
        minimum=0,
        maximum=LONGEST_RETENTION,
        env=("WORKER_RETENTION_FAILED",),
        flag=NO_FLAG,
        hint=KEPT_FOR_EVER,
    )
    retention_keep: int | None = option(
        None,
        help="How many finished jobs of each queue are kept at most, the last ones.",
        unit="jobs",
        minimum=0,
        env=("WORKER_RETENTION_KEEP",),
        flag=NO_FLAG,
        hint=LIMITLESS,
    )
    retention_rollups: float | None = option(
        90 * 86_400.0,
        help="How long the statistics of each minute are kept.",
        unit="seconds",
        minimum=3600,
        maximum=LONGEST_RETENTION,
        env=("WORKER_RETENTION_ROLLUPS",),
        flag=NO_FLAG,
        hint=KEPT_FOR_EVER,
    )

    def __post_init__(self) -> None:
        """Refuse settings that cannot hold together."""
        if self.lease < 3 * self.heartbeat:
            text = f"lease must be at least three heartbeats, got {self.lease:g} s and {self.heartbeat:g} s"
            raise SettingsConflict(text, "lease", "heartbeat")
        if self.pm == "dynamic" and self.min_workers > self.max_workers:
            text = f"min_workers must be at most max_workers, got {self.min_workers} and {self.max_workers}"
            raise SettingsConflict(text, "min_workers", "max_workers")
        if self.worker_id >= self.total_workers:
            text = f"worker_id must be from 0 to {self.total_workers - 1} of {self.total_workers}, got {self.worker_id}"
            raise SettingsConflict(text, "worker_id", "total_workers")


@dataclass(frozen=True, slots=True)
class SchedulerSettings:
    """What fires schedules."""

    poll_interval: float = option(
        5.0,
        help="Longest time between two looks for due schedules; a bare SCHEDULER_WORKER_SLEEP is milliseconds.",
        unit="seconds",
        minimum=0.01,
        maximum=3600,
        env=("SCHEDULER_POLL_INTERVAL", "SCHEDULER_WORKER_SLEEP"),
        bare_units={"SCHEDULER_WORKER_SLEEP": "ms"},
        flag=NO_FLAG,
    )
    batch_size: int = option(
        100,
        help="Most schedules that are fired in one transaction.",
        minimum=1,
        maximum=10_000,
        env=("SCHEDULER_BATCH_SIZE",),
        flag=NO_FLAG,
    )
    http_timeout: float = option(
        30.0,
        help="Longest wait for the answer to a request that the scheduler itself makes.",
        unit="seconds",
        minimum=0.1,
        maximum=3600,
        env=("SCHEDULER_HTTP_TIMEOUT",),
        flag=NO_FLAG,
    )
    worker_http_timeout: float = option(
        90.0,
        help="Longest wait for the answer to the request of an HTTP job.",
        unit="seconds",
        minimum=0.1,
        maximum=3600,
        env=("WORKER_HTTP_TIMEOUT",),
        flag=NO_FLAG,
    )
    max_time: float | None = option(
        None,
        help="Stop schedule:run after this time.",
        unit="seconds",
        minimum=1,
        env=("SCHEDULER_MAX_TIME", "SCHEDULER_MAX_EXECUTION_TIME"),
        hint=LIMITLESS,
    )


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """The dashboard and the HTTP interface."""

    host: str = option(
        "127.0.0.1",
        help="Address to listen on; any but a loopback address needs a token.",
        minimum=1,
        env=("SERVER_HOST",),
    )
    port: int = option(
        8080, help="Port to listen on; 0 lets the system choose.", minimum=0, maximum=65535, env=("SERVER_PORT",)
    )
    token: str | None = option(
        None, help="What callers must present as bearer token.", minimum=16, env=("SERVER_TOKEN",), secret=True
    )
