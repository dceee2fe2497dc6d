"""`python -m tests.mutants --seed 1 --count 300`: the table of what was killed, and each survivor."""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from queue import SimpleQueue

from tests.mutants import reach
from tests.mutants.sample import PACKAGES, Mutant, sample
from tests.mutants.trial import Copy, Result, judge_fast, judge_interop, judge_near
from tests.tables import lines

KEPT = Path("build/mutants")
EQUIVALENT = Path(__file__).with_name("equivalent.toml")
STAGES = ("near", "fast", "interop")
"""The tests about the module, all that reach the line, the gateways in namespaces: each for what is left."""
VERDICTS = ("fast", "timeout", "interop", "survived", "equivalent")
WANTED = 0.95


def main() -> int:
    """The exit code: 0 if at least 95 % of what is not equivalent was killed."""
    parser = argparse.ArgumentParser(prog="make mutants", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument(
        "--fast-seconds", type=float, default=60, help="of tests for each mutant, by their own time"
    )
    parser.add_argument(
        "--interop-seconds", type=float, default=300, help="for each survivor; 0 leaves interop out"
    )
    parser.add_argument("--commit", default="HEAD", help="what is copied; its results are kept")
    parser.add_argument("--near-seconds", type=float, default=120, help="for the tests about the module")
    parser.add_argument("--only-near", action="store_true", help="only the tests about the module")
    arguments = parser.parse_args()
    commit = _git("rev-parse", "--short", arguments.commit)
    base = _copy(commit, KEPT / commit / "base")
    mutants = sample(base, arguments.seed, arguments.count)
    results = _Results(KEPT / commit / f"results-{arguments.seed}.jsonl", mutants)
    copies: SimpleQueue[Copy] = SimpleQueue()
    for number in range(arguments.workers):
        copies.put(Copy(_copy(commit, KEPT / commit / f"copy-{number}").absolute()))

    def run(judge: Callable[[Copy, Mutant], Result], on: Iterable[Mutant]) -> None:
        def one(mutant: Mutant) -> None:
            copy = copies.get()
            try:
                results.add(judge(copy, mutant))
            finally:
                copies.put(copy)

        with ThreadPoolExecutor(arguments.workers) as pool:
            for _ in pool.map(one, on):
                pass

    run(lambda copy, mutant: judge_near(copy, mutant, arguments.near_seconds), results.left("near"))
    if arguments.only_near:
        return results.tell(arguments.seed, commit)
    fast = reach.fast(base.absolute(), (KEPT / "fast.json").absolute(), commit, arguments.workers)
    run(lambda copy, mutant: judge_fast(copy, mutant, fast, arguments.fast_seconds), results.left("fast"))
    if arguments.interop_seconds:
        interop = reach.interop(base.absolute(), (KEPT / "interop.json").absolute())
        run(
            lambda copy, mutant: judge_interop(copy, mutant, interop, arguments.interop_seconds),
            results.left("interop"),
        )
    return results.tell(arguments.seed, commit)


class _Results:
    """The results so far, in a file that grows by a line for each: an interrupted run goes on from it."""

    def __init__(self, path: Path, mutants: list[Mutant]) -> None:
        self._path = path
        self._mutants = mutants
        self._found: dict[str, dict[str, Result]] = {stage: {} for stage in STAGES}
        if path.exists():
            for line in path.read_text().splitlines():
                entry = json.loads(line)
                stage = entry.pop("stage")
                self._found[stage][entry["key"]] = Result(**entry)
        self._equivalent = {
            (entry["module"], entry["change"]): entry["reason"]
            for entry in tomllib.loads(EQUIVALENT.read_text()).get("mutant", ())
        }

    def left(self, stage: str) -> list[Mutant]:
        """The mutants that this stage has not tried, of those that lived through the one before."""
        done, first = self._found[stage], stage == STAGES[0]
        left = [mutant for mutant in self._mutants if mutant.key not in done]
        return [mutant for mutant in left if first or self._verdict(mutant) == "survived"]

    def add(self, result: Result) -> None:
        """Keep a result, also beyond this run."""
        stage = next(stage for stage in STAGES if result.key not in self._found[stage])
        self._found[stage][result.key] = result
        with self._path.open("a") as file:
            file.write(json.dumps({"stage": stage, **asdict(result)}) + "\n")
        count = f"{stage} {len(self._found[stage])}/{len(self._mutants)}"
        print(f"{count} {result.verdict:9} {result.key}  {result.by[:100]}", flush=True)

    def _result(self, mutant: Mutant) -> Result:
        found = (self._found[stage].get(mutant.key) for stage in reversed(STAGES))
        return next(result for result in found if result is not None)

    def _verdict(self, mutant: Mutant) -> str:
        result = self._result(mutant)
        if result.verdict == "survived" and (mutant.module, result.change) in self._equivalent:
            return "equivalent"
        return result.verdict

    def tell(self, seed: int, commit: str) -> int:
        """Print the table and what survived."""
        rows = []
        for package in (*PACKAGES, "all"):
            counts = Counter(
                self._verdict(mutant) for mutant in self._mutants if package in ("all", mutant.package)
            )
            total = counts.total() - counts["equivalent"]
            killed = total - counts["survived"]
            share = f"{killed / total:.1%}" if total else "-"
            rows.append(
                {"module": package, "mutants": str(counts.total())}
                | {verdict: str(counts[verdict]) for verdict in VERDICTS}
                | {"result": share}
            )
        print(f"\nseed {seed}, {len(self._mutants)} mutants of {commit}, killed by fast tests, by interop")
        print("\n".join(lines(rows)))
        for mutant in self._mutants:
            result, verdict = self._result(mutant), self._verdict(mutant)
            if verdict in ("survived", "equivalent", "timeout"):
                reason = self._equivalent.get((mutant.module, result.change), f"{result.asked} tests")
                print(f"\n{verdict}: {mutant.module}:{mutant.line} ({reason})\n{result.change}")
        everything = Counter(self._verdict(mutant) for mutant in self._mutants)
        total = everything.total() - everything["equivalent"]
        return 0 if total - everything["survived"] >= WANTED * total else 1


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout.strip()


def _copy(commit: str, directory: Path) -> Path:
    """A commit in a directory, without what an interrupted run may have left there."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    archive = subprocess.Popen(["git", "archive", commit], stdout=subprocess.PIPE)
    subprocess.run(["tar", "-x", "-C", str(directory)], stdin=archive.stdout, check=True)
    if archive.wait():
        raise RuntimeError("git archive failed")
    return directory


if __name__ == "__main__":
    raise SystemExit(main())
