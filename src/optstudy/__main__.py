"""``python -m optstudy``: the same as the command ``optstudy``."""

from optstudy.cli import main

if __name__ == "__main__":
    main()
