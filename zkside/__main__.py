"""`python -m zkside` is the command `zkside`."""

from zkside.cli import main

if __name__ == "__main__":
    main()
