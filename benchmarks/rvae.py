"""Figures of the rVAE engine against known truth and against its peers; every part runs alone.

    python benchmarks/rvae.py                      all parts at full size, 3 seeds
    python benchmarks/rvae.py kinds cards --seeds 5
    python benchmarks/rvae.py speed --quick        small sizes, one seed, a minute or two

A run at full size writes its parts into ``docs/benchmarks.md`` and leaves the others as they are; ``--out FILE`` writes
elsewhere. Stored scenes are read from ``../shared/data/sim`` beside the repository and left out where that is absent,
the peers run in ``.venv-bench``, which ``make bench`` sets up.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import costs
import crystals
import playing_cards

ROOT = Path(__file__).parents[1]


def frame(options):
    """One frame: models trained from different seeds on the same cards (one constant per suit is what the seeds have to
    agree on) and on the same image.
    """
    yield from playing_cards.cards_frame(options)
    yield from crystals.grain_frame(options)


def calibration(options):
    """Shares of errors within the reported 68 and 95 % intervals: angles and latents of cards 3 at three noises,
    offsets of atoms a patch from the edge at three doses; one constant per class removed.
    """
    yield from playing_cards.cards_calibration(options)
    yield from crystals.offset_calibration(options)


PARTS = {
    "speed": costs.speed,
    "card": costs.card,
    "cards": playing_cards.cards123,
    "cards4": playing_cards.cards4,
    "frame": frame,
    "kinds": crystals.kinds,
    "offsets": crystals.offsets,
    "polar": crystals.polar,
    "strain": crystals.strain,
    "poly": crystals.poly,
    "molecules": crystals.molecules,
    "calibration": calibration,
    "invariance": playing_cards.invariance,
    "memory": costs.memory,
    "growth": costs.growth,
}


def described(part):
    return " ".join(part.__doc__.split())


def section(name, description, command, rows, seconds):
    """The part as Markdown."""
    import platform
    from importlib.metadata import version

    import torch

    asked = ["git", "describe", "--always", "--dirty"]  # what is installed for development names an older state
    commit = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
    program = f"napari-rvae {commit or version('napari-rvae')}"
    versions = f"{program}, torch {torch.__version__}, Python {platform.python_version()}"
    machine = f"{os.cpu_count()} cores ({platform.machine()})"
    lines = [f"## {name}", "", description, "", "| what | bar | measured | spread | |", "|---|---|---|---|---|"]
    for row in rows:
        verdict = {True: "pass", False: "**short**", None: ""}[row.passed]
        lines.append(f"| {row.what.strip()} | {row.bar} | {row.measured} | {row.spread} | {verdict} |")
    lines += ["", f"`{command}`, {time.strftime('%Y-%m-%d')}, {seconds / 60:.0f} min, {machine}, {versions}", ""]
    return "\n".join(lines)


def write(path, name, text, order):
    """Replace one part of the page; those that have an order come first, in that order."""
    head, *rest = path.read_text().split("\n## ") if path.exists() else ["# Benchmarks\n"]
    parts = {one.split("\n", 1)[0]: f"## {one.rstrip()}\n" for one in rest} | {name: text}
    ordered = sorted(parts, key=lambda one: order.index(one) if one in order else len(order))
    path.write_text("\n".join([head.rstrip() + "\n", *(parts[one] for one in ordered)]))


def main(available, script, description):
    """Run parts of a benchmark as the command line says."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(available))
    parser.add_argument("--seeds", type=int, help="how many (default: 3, where quick 1)")
    parser.add_argument("--quick", action="store_true", help="small sizes; nothing is written without --out")
    parser.add_argument("--peer-epochs", type=int, default=15, help="how long peers learn cards; 0 leaves them out")
    parser.add_argument("--out", type=Path, help="Markdown page (default: docs/benchmarks.md)")
    options = parser.parse_args()
    unknown = set(options.parts) - set(available)
    if unknown:
        parser.error(f"no such part: {', '.join(sorted(unknown))}; choose from {', '.join(available)}")
    options.seeds = range(options.seeds or (1 if options.quick else 3))
    out = options.out or (None if options.quick else ROOT / "docs" / "benchmarks.md")
    for name in options.parts or available:
        print(f"{name}: {described(available[name])}", flush=True)
        start, rows = time.perf_counter(), []
        for row in available[name](options):
            rows.append(row)
            print(row, flush=True)
        seconds = time.perf_counter() - start
        print(f"  {seconds:.0f} s\n", flush=True)
        if out is not None:
            command = f"python benchmarks/{script} {name} --seeds {len(options.seeds)}{' --quick' * options.quick}"
            if options.peer_epochs != parser.get_default("peer_epochs"):
                command += f" --peer-epochs {options.peer_epochs}"
            text = section(name, described(available[name]), command, rows, seconds)
            write(out, name, text, [*PARTS, *available])
    sys.stdout.flush()


if __name__ == "__main__":
    main(PARTS, "rvae.py", __doc__)
