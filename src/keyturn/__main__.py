"""`python -m keyturn`: the same as the command."""

from keyturn.cli import main

if __name__ == "__main__":
    main()
