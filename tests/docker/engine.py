"""Stands in for ``docker``: knows the options of docs/container.md, runs what a container would.

The image is the folder ``docker/`` that it was built of, for this machine has no engine.
"""

import argparse
import subprocess
import sys
from pathlib import Path


def build(asked):
    """Look for what the image is made of."""
    assert Path(asked.f).parent.resolve() == (Path(asked.context) / "docker").resolve()
    assert (Path(asked.context) / "docker" / "model.safetensors").exists()


def run(asked):
    """``sh predict.sh`` on the mounted folders; nothing where none are."""
    mounted = {inside: outside for outside, inside in (one.split(":") for one in asked.v)}
    if not mounted:
        return
    assert asked.command == ["/bin/bash", "-c", "sh predict.sh"]
    folders = [mounted[f"/workspace/{name}/"] for name in ("inputs", "outputs")]
    words = ["sh", "docker/predict.sh", *folders, "docker/model.safetensors"]
    sys.exit(subprocess.run(words, check=False).returncode)


def save(asked):
    """An archive's place holder, on stdout."""
    sys.stdout.write(f"{asked.image}\n")


def main():
    """One command of docker's."""
    parser = argparse.ArgumentParser(prog="docker")
    verbs = parser.add_subparsers(required=True)
    one = verbs.add_parser("build")
    one.add_argument("-f", required=True)
    one.add_argument("-t", required=True)
    one.add_argument("context")
    one.set_defaults(do=build)
    one = verbs.add_parser("container").add_subparsers(required=True).add_parser("run")
    for option in ("--gpus", "-m", "--shm-size", "--name"):
        one.add_argument(option)
    one.add_argument("--rm", action="store_true")
    one.add_argument("-v", action="append", default=[])
    one.add_argument("image")
    one.add_argument("command", nargs=argparse.REMAINDER)
    one.set_defaults(do=run)
    one = verbs.add_parser("save")
    one.add_argument("image")
    one.set_defaults(do=save)
    asked = parser.parse_args()
    asked.do(asked)


if __name__ == "__main__":
    main()
