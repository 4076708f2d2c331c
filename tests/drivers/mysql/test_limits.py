"""How long statements may take."""

from __future__ import annotations

from sqlalchemy import text

from taskqueue.drivers.mysql import MySQLDriver


def test_a_read_may_take_longer_than_a_silent_server_is_waited_for(mysql: MySQLDriver) -> None:
    with mysql._connections.use() as kept:
        kept.raw.patient(0.5)
        number = kept.number
    assert mysql.read(lambda connection: connection.scalar(text("SELECT SLEEP(1.5)"))) == 0
    with mysql._connections.use() as kept:
        assert kept.number == number, "the same connection"


def test_what_has_no_haste_has_no_limits_and_they_are_back_afterwards(mysql: MySQLDriver) -> None:
    names = "SELECT @@innodb_lock_wait_timeout, @@lock_wait_timeout"
    limits = mysql.write(lambda connection: tuple(connection.execute(text(names)).one()), repeatable=False)
    assert limits == (3600, 3600)
    assert mysql.read(lambda connection: tuple(connection.execute(text(names)).one())) == (10, 10)
