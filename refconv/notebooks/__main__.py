"""``python -m refconv.notebooks [NAME]…``: run notebooks again and keep their outputs."""

import sys

from refconv.notebooks import main

main(sys.argv[1:])
