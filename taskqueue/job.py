"""`Job`: what users subclass. One required method, ``handle``; everything else has a default."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from datetime import datetime
from typing import Any, ClassVar, NamedTuple
from uuid import UUID

from taskqueue.backoff import Backoff
from taskqueue.desk import Desk, Reception, not_running
from taskqueue.errors import InvalidOption
from taskqueue.ids import new_id
from taskqueue.job_options import JobOptions, Priority
from taskqueue.options import convert_all
from taskqueue.registry import REGISTRY, module_name
from taskqueue.states import Delivery, OnConflict, ParentFailure
from taskqueue.transactional import check_transactional
from taskqueue.worker_hooks import WorkerContext

_OPTION_NAMES = tuple(field.name for field in fields(JobOptions))


class Run(NamedTuple):
    """What a handler may know of its own run. A tuple, because one is made for every job that runs."""

    attempt: int
    max_attempts: int
    lease: int
    reception: Reception | None = None
    """Where the desk of this run is opened, and for which claimed job; None outside of a run."""
    claimed: Any = None


_NOT_RUNNING = Run(attempt=0, max_attempts=0, lease=0)
_logger = logging.getLogger("taskqueue.job")


class Job:
    """A unit of work: a payload, options, and ``handle``.

    ::

        class SendEmail(Job):
            queue, priority, max_attempts, timeout = "emails", Priority.HIGH, 5, 30

            def handle(self):
                deliver(self.payload["to"])
                return {"sent": True}

    Class attributes are defaults, keyword arguments override them, an unknown option is an error. What ``handle``
    returns is stored, sealed, as the result; if it returns None and changed the payload, the changed payload is. Any
    exception fails the attempt; the job is tried again while attempts are left, unless ``give_up_on`` names the
    exception or ``retry_on`` does not.
    """

    queue: str = "default"
    priority: int = Priority.NORMAL
    tags: tuple[str, ...] | list[str] = ()
    category: str | None = None
    dependencies: Sequence[Any] = ()
    on_parent_failure: ParentFailure | str = ParentFailure.FAIL
    delay: float | None = None
    at: datetime | None = None
    run_at: datetime | None = None
    expires_in: float | None = None
    max_attempts: int = 3
    retry_interval: float | None = None
    backoff: Backoff | float | None = None
    timeout: float | None = None
    memory_limit: int | str | None = None
    force_spawn: bool = False
    delivery: Delivery | str = Delivery.AT_LEAST_ONCE
    unique_key: str | None = None
    on_conflict: OnConflict | str = OnConflict.ERROR

    name: ClassVar[str] = ""
    """The name under which jobs of this class are stored; empty: ``module.QualName``."""
    aliases: ClassVar[tuple[str, ...]] = ()
    """Older names, under which stored jobs still find this class."""
    retry_on: ClassVar[tuple[type[BaseException], ...]] = (Exception,)
    """Exceptions after which the job is tried again."""
    give_up_on: ClassVar[tuple[type[BaseException], ...]] = ()
    """Exceptions after which it is not, whatever ``retry_on`` says."""
    transactional: ClassVar[bool] = False
    """Whether ``handle(self, session)`` gets a SQLAlchemy session on the queue's database, in whose transaction the job
    is acknowledged: what it writes there counts exactly once."""
    transaction_timeout: ClassVar[float | None] = None
    """Seconds for a transactional run, unless ``timeout`` is shorter; None: 60, on a database with one writer 5."""
    session_factory: ClassVar[Any] = None
    """What makes the session: a ``sessionmaker``, or a class derived from ``Session``; None for a plain one."""
    compress: ClassVar[bool] = True
    """Whether large payloads are compressed; switch it off where secret and foreign text share a payload."""

    job_class: ClassVar[str] = ""
    _run: Run = _NOT_RUNNING
    _desk: Desk | None = None

    def __init_subclass__(cls, **keywords: Any) -> None:
        """Enter the class into the registry, so that workers that import its module know it."""
        super().__init_subclass__(**keywords)
        own = cls.__dict__.get("name", "")
        cls.job_class = own or f"{module_name(cls)}.{cls.__qualname__}"
        if not 0 < len(cls.job_class) <= 255:
            raise InvalidOption(f"a job class needs a name of 1 to 255 characters, got {len(cls.job_class)}; set name=")
        cls.retry_on = _exceptions(cls, "retry_on")
        cls.give_up_on = _exceptions(cls, "give_up_on")
        if isinstance(cls.__dict__.get("aliases"), str):
            raise InvalidOption(
                f"aliases must be a list of names, got the text {cls.aliases!r}; write ({cls.aliases!r},)"
            )
        if cls.transactional is not False and cls.handle is not Job.handle:
            check_transactional(cls)
        if cls.handle is not Job.handle:
            REGISTRY.add(cls, cls.job_class, cls.__dict__.get("aliases", ()))

    def __init__(self, payload: Any = None, **options: Any) -> None:
        self._id: UUID | bytes = new_id()
        self.payload: Any = payload
        if options:
            self.__dict__.update(convert_all(JobOptions, options, f"{type(self).__name__}()"))
            self.__dict__["_given"] = tuple(name for name, value in options.items() if value is not None)

    @property
    def id(self) -> UUID:
        """Return the job's id, which is known before the push."""
        made = self._id
        if isinstance(made, bytes):  # As it came to a worker; most handlers never ask.
            made = self._id = UUID(bytes=made)
        return made

    def handle(self, *_session: Any, **_nothing: Any) -> Any:
        """Do the work. What it returns is stored as the job's result. A transactional class takes a session here."""
        raise NotImplementedError(f"{type(self).__qualname__} has no handle() method; define one")

    def before(self) -> Any:
        """Run before ``handle``; an exception counts as the attempt's failure."""

    def after(self, result: Any) -> Any:
        """Run after ``handle`` has returned; an exception counts as the attempt's failure."""

    def on_failure(self, error: BaseException) -> Any:
        """Run after an attempt has failed; an exception here is logged and changes nothing."""

    @property
    def options(self) -> JobOptions:
        """Return all options of this job: its own, else its class's, else the defaults.

        Raises `InvalidOption` for a class attribute that does not fit.
        """
        base = class_options(type(self))
        given: tuple[str, ...] = self.__dict__.get("_given", ())
        return replace(base, **{name: self.__dict__[name] for name in given}) if given else base

    def configure(self, **options: Any) -> Job:
        """Override options of this job before its push, and return it."""
        converted = convert_all(JobOptions, options, f"{type(self).__name__}()")
        self.__dict__.update(converted)
        self.__dict__["_given"] = tuple({*self.__dict__.get("_given", ()), *converted})
        return self

    @property
    def attempt(self) -> int:
        """Return the number of this attempt, counted from 1; 0 outside a run."""
        return self._run.attempt

    @property
    def fencing_token(self) -> int:
        """Return a number that rises with each claim of this job, to pass on to systems that can check it."""
        return self._run.lease

    # --- while it runs ---------------------------------------------------------------------------------------

    def progress(self, percent: float, message: str | None = None) -> None:
        """Note how far this run has come: 0 to 100, and a short message; both are sealed.

        Costs next to nothing: at most four values a second are written, and the last one in any case. It does not
        prolong a ``timeout``; the lease needs no prolonging, since the node's heartbeat keeps it.
        """
        self._at_desk("progress()").progress(percent, message)

    def checkpoint(self, state: Any) -> Any:
        """Store ``state``, sealed and durably, before this returns; later attempts find it as ``self.state``.

        In an ``async def`` handler, await it. Kept until the job completes: over retries, crashes, a rescue by another
        node, a retry by hand. Raises `JobLost` where this run does not hold the job any more, `PayloadError` for what
        cannot be stored.
        """
        return self._at_desk("checkpoint()").checkpoint(state)

    @property
    def state(self) -> Any:
        """Return the state of the last `checkpoint`, in this attempt or an earlier one; None before the first."""
        return self._at_desk("state").state()

    @property
    def should_stop(self) -> bool:
        """Say whether to come to an end soon, with a `checkpoint` if need be.

        That is so when the node winds down, when it may lose its lease, when the job's time is up, and when the job is
        lost already. Cheap enough for every turn of a loop.
        """
        return self._at_desk("should_stop").should_stop()

    def push(self, job: Job, **options: Any) -> Any:
        """Store another job at once, and return the id of the one that stands; in an ``async def`` handler, await it.

        Takes what `QueueManager.push` takes but a session, and raises the same errors. The job is stored in one
        transaction that also makes sure that this run still holds its own job: otherwise nothing is stored and
        `JobLost` is raised. What follows in the handler does not undo it.
        """
        return self._at_desk("push()").push(job, options)

    @property
    def context(self) -> WorkerContext:
        """Return the context of this worker, with what the functions of `on_worker_start` have put there."""
        reception = self._run.reception
        if reception is None:
            raise not_running("context")
        return reception.context

    def _at_desk(self, what: str) -> Desk:
        desk = self._desk
        if desk is None:
            reception = self._run.reception
            if reception is None:
                raise not_running(what)
            desk = self._desk = reception.open(self._run.claimed)
        return desk

    @property
    def logger(self) -> logging.LoggerAdapter[logging.Logger]:
        """Return a logger that adds the job's id, class, queue and attempt to each record."""
        about = {
            "job_id": str(self.id),
            "job_class": type(self).job_class,
            "queue": self.queue,
            "attempt": self.attempt,
        }
        return logging.LoggerAdapter(_logger, about)

    def __repr__(self) -> str:
        """Name the class and the id, never the payload."""
        return f"<{type(self).job_class} {self.id}>"


def class_options(cls: type[Job]) -> JobOptions:
    """Return the options that a class sets by its attributes, checked once a class."""
    cached = cls.__dict__.get("_class_options")
    if isinstance(cached, JobOptions):
        return cached
    given: Mapping[str, Any] = {name: getattr(cls, name) for name in _OPTION_NAMES}
    made = JobOptions(**convert_all(JobOptions, given, f"class {cls.__name__}"))
    cls._class_options = made  # type: ignore[attr-defined]
    return made


def _exceptions(cls: type[Job], attribute: str) -> tuple[type[BaseException], ...]:
    """Return exception types as a tuple. Checked here, because in a worker a wrong one would be a crash."""
    given: Any = getattr(cls, attribute)
    listed = tuple(given) if isinstance(given, (tuple, list)) else (given,)
    for each in listed:
        if not (isinstance(each, type) and issubclass(each, BaseException)):
            raise InvalidOption(f"{attribute} must be exception types, got {each!r} in class {cls.__name__}")
    return listed
