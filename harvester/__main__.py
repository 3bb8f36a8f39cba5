"""``python -m harvester``, and the command ``harvester``."""

import sys


def main() -> None:
    """Run the command, or say that this system is not supported: without this check, its imports would fail."""
    if sys.platform == "win32":
        sys.stderr.write("harvester: Windows is not supported; use a container, or Linux in WSL 2\n")
        sys.exit(2)
    from harvester.cli import main as run_command  # noqa: PLC0415 - see above

    run_command()


if __name__ == "__main__":
    main()
