"""python -m MedProtectLib: the same as the command medprotect."""

import sys

from MedProtectLib.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
