"""`python -m faasmoe`."""

from faasmoe.cli.main import main

if __name__ == "__main__":
    main()
