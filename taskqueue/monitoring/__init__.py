"""Looking at a queue from outside: whether everything is well, and what to do where it is not."""
