"""A throw-away MySQL server from Debian's packages, beside whatever is installed.

``python -m tests.servers.mysql [pytest's arguments]`` fetches them once (60 MB) into a cache folder, starts a server
and runs the tests of the drivers and of the faults against it. Nothing is installed: the packages are unpacked, and
the server is started through their own dynamic loader. Needs apt-get and dpkg, and Debian's keyring.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.servers.mariadb import MariaDB

FOLDER = "TASKQUEUE_TEST_MYSQL_FOLDER"
"""The variable that names the folder in which the packages were unpacked."""

ADMINISTRATED = "TASKQUEUE_TEST_MYSQL"
"""The variable that names the server on which the tests make their databases."""

ROOT = Path(__file__).resolve().parents[2]
_CACHES = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() if os.geteuid() else Path("/var/cache")
_CACHE = _CACHES / "taskqueue-tests" / "mysql"
"""Where the account that the server runs as may read."""

_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
_SOURCE = f"deb [signed-by={_KEYRING}] http://deb.debian.org/debian sid main\n"
_PACKAGE = "mysql-server-core"
_NEEDED = ("apt-get", "dpkg", _KEYRING)

_SETTINGS = (
    "--bind-address=127.0.0.1",
    "--skip-name-resolve",
    "--mysqlx=OFF",
    "--tls-version=",  # The proxy has to see a COMMIT.
    "--secure-file-priv=NULL",
    "--innodb-flush-log-at-trx-commit=2",  # Processes are killed here, never the machine.
    "--innodb-buffer-pool-size=64M",
    "--max-connections=300",
)


class MySQL(MariaDB):
    """MySQL, from the folder that ``TASKQUEUE_TEST_MYSQL_FOLDER`` names."""

    name = "mysql"

    @classmethod
    def missing(cls) -> str | None:
        folder = os.environ.get(FOLDER)
        return None if folder and _program(Path(folder)).exists() else f"MySQL in the folder that {FOLDER} names"

    def _make(self) -> None:
        self._data = self.folder / "data"
        self._socket = self.folder / "server.sock"
        self._run(*self._program_words(), "--initialize-insecure")

    def _command(self) -> Sequence[str]:
        places = (f"--socket={self._socket}", f"--port={self.port}", f"--pid-file={self.folder}/server.pid")
        return [*self._program_words(), *places, *_SETTINGS]

    def _program_words(self) -> list[str]:
        unpacked = Path(os.environ[FOLDER])
        libraries = sorted({str(each.parent) for each in unpacked.glob("usr/lib/**/*.so*")})
        (loader, *_) = sorted(unpacked.glob("usr/lib*/ld-linux*.so*")) or sorted(unpacked.glob("usr/lib*/**/ld-linux*"))
        return [
            str(loader), "--library-path", ":".join(libraries), str(_program(unpacked)), "--no-defaults",
            f"--basedir={unpacked}/usr", f"--lc-messages-dir={unpacked}/usr/share/mysql", f"--datadir={self._data}",
            f"--plugin-dir={unpacked}/usr/lib/mysql/plugin",
        ]  # fmt: skip


def _program(unpacked: Path) -> Path:
    return unpacked / "usr" / "sbin" / "mysqld"


def fetch(folder: Path) -> Path:
    """Return a folder with the unpacked packages, which are downloaded where they are not there yet."""
    unpacked = folder / "root"
    if (folder / "complete").exists():
        return unpacked
    absent = [each for each in _NEEDED if not (shutil.which(each) or Path(each).exists())]
    if absent:
        sys.exit(f"make test-mysql needs {', '.join(absent)}, which this machine has not: it works on Debian")
    shutil.rmtree(folder, ignore_errors=True)
    for each in ("apt/lists/partial", "apt/archives/partial", "apt/parts", "root"):
        (folder / each).mkdir(parents=True)
    (folder / "apt/status").touch()
    (folder / "apt/sources.list").write_text(_SOURCE)
    options = [word for setting in _apt_settings(folder / "apt") for word in ("-o", setting)]
    subprocess.run(["apt-get", *options, "update"], check=True)
    install = ["install", "--yes", "--download-only", "--no-install-recommends", _PACKAGE]
    subprocess.run(["apt-get", *options, *install], check=True)
    for package in sorted(folder.glob("apt/archives/*.deb")):
        subprocess.run(["dpkg", "-x", str(package), str(unpacked)], check=True)
    shutil.rmtree(folder / "apt")
    (folder / "complete").touch()
    return unpacked


def _apt_settings(apt: Path) -> Sequence[str]:
    """Return settings under which apt sees nothing of this machine's own packages and sources."""
    return (
        f"Dir::State={apt}", f"Dir::State::status={apt}/status", f"Dir::State::lists={apt}/lists",
        f"Dir::Cache={apt}", f"Dir::Cache::archives={apt}/archives", f"Dir::Etc::sourcelist={apt}/sources.list",
        f"Dir::Etc::sourceparts={apt}/parts", f"Dir::Etc::preferencesparts={apt}/parts",
        "Dir::Etc::preferences=/dev/null", "APT::Sandbox::User=root", "Acquire::Languages=none",
    )  # fmt: skip


def main() -> int:
    """Fetch the server, start one, run the tests against it, and return their exit code."""
    os.environ[FOLDER] = str(fetch(_CACHE))
    server = MySQL()
    try:
        server.execute("CREATE USER administrator@'%' IDENTIFIED BY ''")
        server.execute("GRANT ALL ON *.* TO administrator@'%' WITH GRANT OPTION")
        ((version,),) = server.execute("SELECT VERSION()")
        sys.stdout.write(f"MySQL {version}\n")
        sys.stdout.flush()
        environment = {**os.environ, ADMINISTRATED: f"mysql://administrator@127.0.0.1:{server.port}"}
        asked = sys.argv[1:] or ["-q", "-k", "mysql", "tests/drivers", "tests/faults", "tests/chaos"]
        return subprocess.run(
            [sys.executable, "-m", "pytest", *asked], cwd=ROOT, env=environment, check=False
        ).returncode
    finally:
        server.close()


if __name__ == "__main__":
    sys.exit(main())
