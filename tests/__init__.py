"""The tests. This one file makes the name `tests` ours; the folders below need none."""
