"""`python -m translog`."""

from translog.cli.main import main

main()
