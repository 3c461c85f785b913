"""`python -m meshserve.cli`."""

import os
import sys

# `-m` puts the current folder first, where a file may be named like a library. This must precede
# every import of a library.
if not sys.flags.safe_path and sys.path[0] == os.getcwd():  # noqa: PTH109 - pathlib imports much
    del sys.path[0]

from meshserve.cli import main

if __name__ == "__main__":
    main.main()
