"""`python -m soardb_service DIR ...` is `soardb serve DIR ...`.

the shell -> [__main__.py] -> cli.py
"""

import sys

from soardb_service.cli import serve_main

sys.exit(serve_main(sys.argv[1:]))
