"""All hostile inputs, in families of about equal length; run as a script it prints what they gave.

python tests/helpers/hostile/corpus.py [WORD ...]: only the families whose names have one of the words.
"""

import contextlib
import io
import random
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

if __name__ == "__main__":  # as pytest has it
    sys.path.insert(0, str(Path(__file__).parents[1]))

from hostile import checkpoints, commands, configs, genomes, models, overrides, paths, states, tables
from hostile.base import make_base
from hostile.case import Base, Case, Family
from hostile.checks import Outcome
from hostile.runner import run

_MODULES: dict[ModuleType, tuple[Family, ...]] = {
    configs: (configs.texts, configs.sections, configs.options, configs.references),
    checkpoints: (checkpoints.files, checkpoints.weights, checkpoints.data_states, checkpoints.resumed),
    states: (states.states,),
    models: (models.model_folders, models.tokenizers, models.forecaster_folders, models.metrics),
    tables: (tables.series, tables.fits),
    genomes: (genomes.fasta, genomes.vcf, genomes.bed, genomes.sequences, genomes.texts),
    commands: (commands.flags, commands.verbs, commands.helps),
    paths: (paths.paths, paths.links),
    overrides: (overrides.overrides,),
}
FAMILIES: dict[str, Family] = {
    f"{module.__name__.rpartition('.')[2]}-{family.__name__}": family
    for module, families in _MODULES.items()
    for family in families
}


def every_case(base: Base) -> list[Case]:
    """The whole corpus; it follows the files that the project writes now."""
    return [case for family in FAMILIES.values() for case in family(base)]


def of_every_kind(cases: Iterable[Case], count: int) -> list[Case]:
    """So many commands, drawn by seed in turn from every kind."""
    kinds = defaultdict(list)
    for case in cases:
        if case.words and not any(
            "\x00" in word or len(word) > 10_000 for word in case.words
        ):  # no process has such words
            kinds[case.kind].append(case)
    draw = random.Random(0)
    for each in kinds.values():
        draw.shuffle(each)
    turns = [case for place in range(count) for each in kinds.values() for case in each[place : place + 1]]
    return turns[:count]


def run_family(name: str, base: Base, folder: Path) -> list[Outcome]:
    """Run one family, a folder per case."""
    return [run(case, base, folder / str(i)) for i, case in enumerate(FAMILIES[name](base))]


def counts(outcomes: Iterable[Outcome]) -> str:
    """How many inputs of each kind, and how many ended as expected, as docs/reliability.md shows them."""
    tried, held = Counter[str](), Counter[str]()
    for each in outcomes:
        tried[each.case.kind] += 1
        held[each.case.kind] += not each.problems
    rows = [f"| {kind} | {count:,} | {held[kind]:,} |" for kind, count in tried.items()]
    return "\n".join(
        ["| kind | inputs | held |", "|---|---:|---:|", *rows, f"| all | {tried.total():,} | {held.total():,} |"]
    )


def failures(outcomes: list[Outcome]) -> str:
    """Outcomes that were not as expected, by cause."""
    causes = defaultdict(list)
    for each in outcomes:
        causes[each.cause or each.problems[0].split(":")[0]].append(each)
    lines = []
    for cause, found in sorted(causes.items(), key=lambda item: -len(item[1])):
        lines += [f"{len(found)} x {cause}", *(f"    {each}" for each in found)]
    return "\n".join(lines)


def campaign(words: list[str]) -> int:
    """Run the families that are meant; print what did not hold and how many there are; return whether any did not."""
    with tempfile.TemporaryDirectory() as place:
        with contextlib.redirect_stdout(io.StringIO()):
            base = make_base(_made(Path(place, "base")))
        names = [name for name in FAMILIES if not words or any(word in name for word in words)]
        begin, outcomes = time.perf_counter(), list[Outcome]()
        for name in names:
            outcomes += run_family(name, base, Path(place, name))
            print(
                f"{name}: {time.perf_counter() - begin:.0f} s, {time.process_time():.0f} s of the processor",
                file=sys.stderr,
            )
    failed = [each for each in outcomes if each.problems]
    print(failures(failed))
    print(counts(outcomes))
    print(f"{len(outcomes) - len(failed):,} of {len(outcomes):,} held, in {time.perf_counter() - begin:.0f} s")
    return int(bool(failed))


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


if __name__ == "__main__":
    sys.exit(campaign(sys.argv[1:]))
