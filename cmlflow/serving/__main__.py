"""End the endpoints that the lessons started in this working area. The same as:  make stop."""

from __future__ import annotations

import argparse

from cmlflow.serving.on_laptop import stop_all


def main() -> None:
    """End all endpoints and say which there were."""
    parser = argparse.ArgumentParser(prog="python -m cmlflow.serving", description=__doc__)
    parser.add_argument("--stop", action="store_true", required=True, help="end all endpoints")
    parser.parse_args()
    print("\n".join(f"Stopped {name}" for name in stop_all()) or "Nothing to stop")


if __name__ == "__main__":
    main()
