"""`python -m maskrt.cli`, for where the script is not on the path."""

from maskrt.cli.main import main

if __name__ == "__main__":
    main()
