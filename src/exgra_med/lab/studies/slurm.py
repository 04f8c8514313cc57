"""The same nodes as Slurm arrays: one array per level of what needs what.

A level begins when the one before has ended, however it ended: a node whose needs are not there
says so in one sentence, the others run.
"""

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from exgra_med import files, reading
from exgra_med.errors import RunError
from exgra_med.lab.studies.plan import Node, seed_after_seed

FOLDER = "slurm"
_SCRIPT = """\
#!/bin/bash
#SBATCH --job-name={name}
#SBATCH --output={logs}/slurm-%A_%a.out
#SBATCH --requeue
#SBATCH --signal=B:TERM@300
#SBATCH --cpus-per-task={threads}
# Add what your site wants: partition, account, time, --gpus-per-task=1.
set -euo pipefail
cd {here}
node=$(sed -n "$((SLURM_ARRAY_TASK_ID + 1))p" "$1")
export OMP_NUM_THREADS="${{SLURM_CPUS_PER_TASK:-{threads}}}"
exec {python} -m exgra_med study node {folder} "$node"
"""


def levels(nodes: Sequence[Node], finished: set[str]) -> list[list[str]]:
    """Unfinished nodes by what has to be finished before them, in each level seed after seed."""
    depth = dict.fromkeys(finished, -1)
    found: list[list[str]] = []
    for node in seed_after_seed(nodes):
        if node.id in finished:
            continue
        level = 1 + max((depth[need] for need in node.needs), default=-1)
        depth[node.id] = level
        found += [[] for _ in range(level + 1 - len(found))]
        found[level].append(node.id)
    return [level for level in found if level]


def check_words(folder: Path, name: str) -> None:
    """Refuse what cannot stand in a script: where it is a comment, no quotes keep a line together.

    Raises:
        RunError: a path or the study's name holds a line break and the like.
    """
    for word in (name, str(folder), str(folder.absolute()), str(Path.cwd()), sys.executable):
        if reading.STEERING.search(word):
            raise RunError(
                f"{reading.short(word)} cannot stand in a script of the shell: it has a line break "
                "or its like.",
                "Choose another folder with --out.",
            )


def write_arrays(
    folder: Path, name: str, nodes: Sequence[Node], finished: set[str], jobs: int, threads: int
) -> list[list[str]]:
    """Write the script and one list of nodes per level into `slurm/`; `jobs` nodes of an array run
    at the same time.

    Raises:
        RunError: see `check_words`.

    Returns:
        `sbatch` commands in their order, as argument lists; each but the first wants
        `--dependency=afterany:ID` with the job id of the one before.
    """
    check_words(folder, name)
    here, logs = Path.cwd(), (folder / "logs").absolute()
    place = folder / FOLDER
    place.mkdir(parents=True, exist_ok=True)
    (folder / "logs").mkdir(exist_ok=True)
    script = place / "array.sh"
    files.write_text(
        script,
        _SCRIPT.format(
            name=name,
            # Slurm reads `%` as the beginning of a number of the job.
            logs=shlex.quote(str(logs).replace("%", "%%")),
            threads=threads,
            here=shlex.quote(str(here)),
            python=shlex.quote(sys.executable),
            folder=shlex.quote(str(folder)),
        ),
    )
    commands = []
    for number, level in enumerate(levels(nodes, finished)):
        listed = place / f"nodes-{number}.txt"
        files.write_text(listed, "".join(f"{node}\n" for node in level))
        array, paths = f"--array=0-{len(level) - 1}%{jobs}", (script, listed)
        commands.append(["sbatch", "--parsable", array, *(str(each.absolute()) for each in paths)])
    return commands


def shell_lines(commands: Sequence[list[str]]) -> list[str]:
    """The commands for a person to paste, each waiting for the one before."""
    lines = []
    for number, command in enumerate(commands):
        words = [shlex.quote(word) for word in command]
        if number:
            words.insert(2, f'--dependency=afterany:"${{level_{number - 1}%%;*}}"')
        lines.append(f"level_{number}=$({' '.join(words)})")
    return lines


def submit(commands: Sequence[list[str]]) -> list[str]:
    """Submit the arrays, each after the one before; returns the job ids.

    Raises:
        RunError: `sbatch` is not here, or refuses.
    """
    if shutil.which("sbatch") is None:
        raise RunError(
            "There is no sbatch on this machine.", "Paste the printed commands where there is one."
        )
    jobs: list[str] = []
    for command in commands:
        waits = [f"--dependency=afterany:{jobs[-1]}"] if jobs else []
        done = subprocess.run(
            [*command[:2], *waits, *command[2:]], capture_output=True, text=True, check=False
        )
        found = re.match(r"\d+", done.stdout)
        if done.returncode or found is None:
            raise RunError(f"sbatch refused: {' '.join(done.stderr.split()) or 'no job id'}.")
        jobs.append(found[0])
    return jobs
