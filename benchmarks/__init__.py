"""What `make bench` measures: the queue beside a bare ``sqlite3`` loop, in the same run on the same machine."""
