# SPDX-License-Identifier: Apache-2.0
"""`python -m lowbit`: the command line, as `lowbit`."""

import sys

from lowbit_cli import main

if __name__ == "__main__":
    sys.exit(main())
