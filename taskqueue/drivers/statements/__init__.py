"""The statements, in SQLAlchemy Core: built once at import, or once for each dialect; nothing is run here."""
