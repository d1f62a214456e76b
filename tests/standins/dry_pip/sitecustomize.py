"""Makes `pip install -r requirements.txt` say what it would do, and do the rest as ever."""

import sys

if "pip" in sys.orig_argv and "requirements.txt" in sys.orig_argv:
    sys.argv.append("--dry-run")
