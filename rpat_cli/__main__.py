"""`python -m rpat_cli` and the console command `rpat`."""

from rpat_cli.signals import importing

with importing():
    from rpat_cli.cli.app import main

if __name__ == "__main__":
    main()
