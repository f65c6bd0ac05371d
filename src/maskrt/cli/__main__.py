"""`python -m maskrt.cli`, for when the script is not on the path."""

from maskrt.cli.main import main

if __name__ == "__main__":
    main()
