"""The command line, installed as ``taskqueue.cli``.

Its modules import one another relatively and the library as ``taskqueue``. A second copy under the name ``cli`` would
have its own classes and its own state, so that name is refused.
"""

if __name__ == "cli":
    raise ImportError("the command line is the package taskqueue.cli: import it by that name, not as cli")
