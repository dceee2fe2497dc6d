"""`python -m tests.mutants --seed 1 --count 300`: the table of what was killed, and each survivor."""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
import tomllib
from collections import Counter
from dataclasses import asdict
from pathlib import Path

from tests.mutants import reach
from tests.mutants.sample import PACKAGES, Mutant, sample
from tests.mutants.trial import FAILED, LEAST, SLACK, Result, change
from tests.tables import lines

KEPT = Path("build/mutants")
EQUIVALENT = Path(__file__).with_name("equivalent.toml")
STAGES = ("near", "fast", "interop")
"""The tests about the package, those that use it, the gateways in namespaces: each for what is left."""
VERDICTS = ("fast", "timeout", "interop", "survived", "equivalent", "not run")
WANTED = 0.95


def main() -> int:
    """The exit code: 0 if all were tried, and at least 95 % of what is not equivalent was killed."""
    parser = argparse.ArgumentParser(prog="make mutants", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--commit", default="HEAD", help="what is copied; its results are kept")
    parser.add_argument("--package", action="append", choices=PACKAGES, help="only the mutants of these")
    parser.add_argument("--minutes", type=float, default=1e6, help="begin no other mutant after these")
    parser.add_argument(
        "--fast-seconds", type=float, default=60, help="of tests for each mutant, by their own time"
    )
    parser.add_argument(
        "--interop-seconds", type=float, default=300, help="of interop files for each survivor"
    )
    parser.add_argument("--last", choices=STAGES, default="interop", help="the last stage")
    arguments = parser.parse_args()
    commit = _git("rev-parse", "--short", arguments.commit)
    kept = (KEPT / commit).absolute()
    ends = time.time() + 60 * arguments.minutes
    copy = _copy(commit, kept / "copy")
    results = _Results(kept / "results.jsonl", sample(copy, arguments.seed, arguments.count))
    for stage in STAGES[: 2 if arguments.last != "near" else 1]:
        for package in arguments.package or PACKAGES:
            left = [mutant for mutant in results.left(stage) if mutant.package == package]
            if left and time.time() < ends:
                _fast(copy, kept, stage, left, arguments.fast_seconds, ends)
    if arguments.last == "interop":
        _interop(copy, results, arguments.interop_seconds, ends)
    return results.tell(arguments.seed, commit)


def _fast(copy: Path, kept: Path, stage: str, mutants: list[Mutant], budget: float, ends: float) -> None:
    job = kept / "mutants.json"
    job.write_text(json.dumps([asdict(mutant) for mutant in mutants]))
    subprocess.run(
        [sys.executable, "-m", "tests.mutants.trial", str(job), f"--kept={kept}",
         f"--stage={stage}", f"--budget={budget}", f"--ends={ends}"],
        cwd=copy, env=reach.environment(copy), check=True,
    )  # fmt: skip


def _interop(copy: Path, results: _Results, budget: float, ends: float) -> None:
    left = results.left("interop")
    if left and time.time() < ends:
        interop = reach.interop(copy, (KEPT / "interop.json").absolute())
        for mutant in left:
            if time.time() < ends:
                results.add("interop", _judge_interop(copy, mutant, interop, budget))


def _judge_interop(copy: Path, mutant: Mutant, interop: reach.Interop, budget: float) -> Result:
    """Try the interop files that reach the function; what fails must fail twice."""
    path = copy / mutant.module
    original = path.read_text()
    mutated = mutant.code(original)
    function, _ = reach.function_at(copy, mutant.module, mutant.line)
    ends, asked = time.monotonic() + budget, 0

    def failed(what: str, seconds: float) -> str:
        try:
            ran = subprocess.run(
                [sys.executable, "-B", "-m", "pytest", *reach.QUIET, "-x", what], cwd=copy, check=False,
                env=reach.environment(copy), capture_output=True, text=True, timeout=LEAST + SLACK * seconds,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return what
        found = FAILED.search(ran.stdout)
        return "" if ran.returncode in (0, 5) else found[1] if found else what

    path.write_text(mutated)
    try:
        for file in interop.of(function):
            if time.monotonic() > ends:
                break
            asked += 1
            by = failed(file, interop.seconds[file])
            if by and failed(by, interop.seconds[file]):
                return Result(mutant.key, "interop", by, change(original, mutated), asked)
    finally:
        path.write_text(original)
    return Result(mutant.key, "survived", "", change(original, mutated), asked)


class _Results:
    """The results so far, in a file that grows by a line for each: an interrupted run goes on from it."""

    def __init__(self, path: Path, mutants: list[Mutant]) -> None:
        self._path = path
        self._mutants = mutants
        self._equivalent = {
            (entry["module"], entry["change"]): entry["reason"]
            for entry in tomllib.loads(EQUIVALENT.read_text()).get("mutant", ())
        }

    def _found(self) -> dict[tuple[str, str], Result]:
        found: dict[tuple[str, str], Result] = {}
        if self._path.exists():
            for line in self._path.read_text().splitlines():
                entry = json.loads(line)
                stage = entry.pop("stage")
                found[stage, entry["key"]] = Result(**entry)
        return found

    def left(self, stage: str) -> list[Mutant]:
        """The mutants that this stage has not tried, of those that lived through the one before."""
        found = self._found()
        left = [mutant for mutant in self._mutants if (stage, mutant.key) not in found]
        return [mutant for mutant in left if stage == "near" or self._verdict(found, mutant)[0] == "survived"]

    def add(self, stage: str, result: Result) -> None:
        """Keep a result, also beyond this run."""
        with self._path.open("a") as file:
            file.write(json.dumps({"stage": stage, **asdict(result)}) + "\n")
        print(f"{result.verdict:9} {result.key}  {result.by[:110]}", flush=True)

    def _verdict(self, found: dict[tuple[str, str], Result], mutant: Mutant) -> tuple[str, Result | None]:
        result = next(filter(None, (found.get((stage, mutant.key)) for stage in reversed(STAGES))), None)
        if result is None:
            return "not run", None
        if result.verdict == "survived" and (mutant.module, result.change) in self._equivalent:
            return "equivalent", result
        return result.verdict, result

    def tell(self, seed: int, commit: str) -> int:
        """Print the table, what survived, and what was killed by its time alone."""
        found = self._found()
        judged = [(mutant, *self._verdict(found, mutant)) for mutant in self._mutants]
        rows = []
        for package in (*PACKAGES, "all"):
            counts = Counter(verdict for mutant, verdict, _ in judged if package in ("all", mutant.package))
            row = {"module": package, "mutants": str(counts.total())}
            row |= {verdict: str(counts[verdict]) for verdict in VERDICTS}
            rows.append(row | {"killed": f"{_share(counts):.1%}"})
        print(f"\nseed {seed}, {len(judged)} mutants of {commit}, killed by fast tests, by interop")
        print("\n".join(lines(rows)))
        for mutant, verdict, result in judged:
            if result and verdict in ("survived", "equivalent", "timeout"):
                reason = self._equivalent.get((mutant.module, result.change), f"{result.asked} tests")
                print(f"\n{verdict}: {mutant.module}:{mutant.line} ({reason})\n{result.change}")
        return 0 if not counts["not run"] and _share(counts) >= WANTED else 1


def _share(counts: Counter[str]) -> float:
    killed = counts["fast"] + counts["timeout"] + counts["interop"]
    return killed / ((killed + counts["survived"]) or 1)


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
