"""``python -m flarekd`` is the ``flarekd`` command."""

from flarekd.cli import main

if __name__ == "__main__":
    main()
