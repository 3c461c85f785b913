"""`python -m meshserve.cli`."""

from meshserve.cli import main

if __name__ == "__main__":
    main.main()
