"""Damage a program's files, kill it, fill its disk. Prints tried and right.

python -m tests.faults damage [--count N] [--seed S] [--only "resume an unfinished run"]
python -m tests.faults kills  [--count N] [--seed S] [--only "two processes"]
unshare --map-root-user --mount python -m tests.faults disks [--count N] [--seed S] [--only train]
"""

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import damage
import disks
import kills


def main() -> int:
    """Returns the exit code: 1 where anything was not right."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("damage", "kills", "disks"))
    parser.add_argument("--count", type=int, help="so many at random; of damage all where absent")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="one command of damage, or one kind of work of the others")
    given = parser.parse_args()
    tried = right = 0
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        if given.what == "damage":
            found = damage.damage_all(place, given.count, given.seed, given.only)
        else:
            happens = kills.kill_at_random if given.what == "kills" else disks.full_at_random
            found = happens(place, given.count or 20, given.seed, given.only)
        for case, problem in found:
            tried, right = tried + 1, right + (not problem)
            if given.what == "damage" and tried % 100 == 0:
                print(f"{tried} tried, {right} right", flush=True)
            if problem or given.what != "damage":
                print(f"{case}: {problem or 'right'}", flush=True)
    print(f"{given.what}: {tried} tried, {right} right")
    return int(right < tried)


if __name__ == "__main__":
    sys.exit(main())
