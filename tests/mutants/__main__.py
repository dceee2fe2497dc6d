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
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.mutants import reach
from tests.mutants.sample import PACKAGES, Mutant, sample
from tests.mutants.trial import FAILED, Result, change, tests_of
from tests.tables import lines

KEPT = Path("build/mutants")
EQUIVALENT = Path(__file__).with_name("equivalent.toml")
KILLED = ("near", "fast", "interop", "timeout")
"""By the tests of the package, by others without root, by the gateways in namespaces, by running too long."""
VERDICTS = (*KILLED, "survived", "equivalent", "not run")
WANTED = 0.95


def main() -> int:
    """The exit code: 0 if all were tried, and at least 95 % of what is not equivalent was killed."""
    parser = argparse.ArgumentParser(prog="make mutants", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--commit", default="HEAD", help="what is copied; results are kept by its vpnd/")
    parser.add_argument("--only", action="append", default=[], help="of modules below this, such as vpnd/ike")
    parser.add_argument("--stage", action="append", choices=reach.TESTS, help="only these, without root")
    parser.add_argument("--jobs", type=int, default=2, help="how many processes try mutants")
    parser.add_argument("--minutes", type=float, default=1e6, help="begin no other mutant after these")
    parser.add_argument(
        "--seconds",
        type=float,
        default=60,
        help="of tests without root for each mutant, by their own time; a third of it at first",
    )
    parser.add_argument(
        "--interop-seconds", type=float, default=300, help="of interop files for each survivor"
    )
    parser.add_argument("--no-interop", action="store_true", help="only the tests without root")
    arguments = parser.parse_args()
    kept = (KEPT / _git("rev-parse", f"{arguments.commit}:vpnd")[:7]).absolute()
    ends = time.time() + 60 * arguments.minutes
    copies = [_copy(arguments.commit, kept / f"copy{number}") for number in range(arguments.jobs)]
    mutants = sample(copies[0], arguments.seed, arguments.count, tuple(arguments.only))
    results = _Results(kept / "results.jsonl", mutants, copies[0])
    for stage in arguments.stage or reach.TESTS:
        left = [asdict(mutant) for mutant in results.left(stage)]
        if not left or time.time() > ends:
            continue
        files = [
            file for file in reach.test_files(copies[0], stage) if not _is_recorded(copies[0], kept, file)
        ]
        _share_out("record", copies, kept, files)
        if any(not _is_recorded(copies[0], kept, file) for file in files):
            raise SystemExit(f"the tests without a mutant were interrupted: see {kept}/copy*/pytest.log")
        seconds = arguments.seconds / (3 if stage == "near" else 1)
        options = f"--stage={stage}", f"--budget={seconds}", f"--ends={ends}"
        _share_out("try", copies, kept, left, *options)
    if not arguments.no_interop:
        _interop(copies[0], kept, results, arguments.interop_seconds, ends)
    return results.tell(arguments.seed, _git("rev-parse", "--short", arguments.commit))


def _is_recorded(copy: Path, kept: Path, file: str) -> bool:
    return reach.recorded(copy, kept, file).with_suffix(".json").exists()


def _share_out(what: str, copies: list[Path], kept: Path, jobs: list[Any], *options: str) -> None:
    """A process in each copy, which does its part of the jobs."""
    running = []
    for number, copy in enumerate(copies):
        if part := jobs[number :: len(copies)]:
            job = copy / "job.json"
            job.write_text(json.dumps(part))
            command = [
                sys.executable,
                "-m",
                "tests.mutants.trial",
                what,
                str(job),
                f"--kept={kept}",
                *options,
            ]
            running.append(subprocess.Popen(command, cwd=copy, env=reach.environment(copy)))
    for process in running:
        process.wait()


def _interop(copy: Path, kept: Path, results: _Results, budget: float, ends: float) -> None:
    left = results.left("interop")
    if left and time.time() < ends:
        interop = reach.interop(copy, kept / "interop.json")
        for mutant in left:
            if time.time() < ends:
                results.add(_judge_interop(copy, mutant, interop, budget))


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
                [sys.executable, "-B", "-m", "pytest", *reach.ROOT, "-x", what], cwd=copy, check=False,
                env=reach.environment(copy), capture_output=True, text=True, timeout=60 + 3 * seconds,
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

    def __init__(self, path: Path, mutants: list[Mutant], copy: Path) -> None:
        self._path = path
        self._mutants = mutants
        self._tests = tests_of(copy)
        self._equivalent = {
            entry["change"].strip(): entry["reason"]
            for entry in tomllib.loads(EQUIVALENT.read_text()).get("mutant", ())
        }

    def _entries(self) -> Iterator[tuple[str, str, Result]]:
        for line in self._path.read_text().splitlines() if self._path.exists() else ():
            entry = json.loads(line)
            yield entry.pop("stage"), entry.pop("tests"), Result(**entry)

    def left(self, stage: str) -> list[Mutant]:
        """The mutants that no test has killed, and the tests of this stage, as they are, have not tried."""
        found = self._found()
        tried = {result.key for at, tests, result in self._entries() if (at, tests) == (stage, self._tests)}
        left = [mutant for mutant in self._mutants if mutant.key not in tried]
        return [mutant for mutant in left if self._verdict(found, mutant)[0] in ("survived", "not run")]

    def _found(self) -> dict[str, Result]:
        """The last result of each mutant; once killed, it is."""
        found: dict[str, Result] = {}
        for _, _, result in self._entries():
            if result.key not in found or found[result.key].verdict == "survived":
                found[result.key] = result
        return found

    def add(self, result: Result) -> None:
        """Keep a result of the interop files, also beyond this run."""
        with self._path.open("a") as file:
            file.write(json.dumps({"stage": "interop", "tests": self._tests, **asdict(result)}) + "\n")
        print(f"{result.verdict:9} {result.key}  {result.by[:110]}", flush=True)

    def _verdict(self, found: dict[str, Result], mutant: Mutant) -> tuple[str, Result | None]:
        result = found.get(mutant.key)
        if result is None:
            return "not run", None
        if result.verdict == "survived" and result.change in self._equivalent:
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
        print(f"\nseed {seed}, {len(judged)} mutants of {commit}: killed by near, fast, interop tests")
        print("\n".join(lines(rows)))
        for mutant, verdict, result in judged:
            if result and verdict in ("survived", "equivalent", "timeout"):
                reason = self._equivalent.get(result.change, f"{result.asked} tests")
                print(f"\n{verdict}: {mutant.module}:{mutant.line} ({reason})\n{result.change}")
        return 0 if not counts["not run"] and _share(counts) >= WANTED else 1


def _share(counts: Counter[str]) -> float:
    killed = sum(counts[verdict] for verdict in KILLED)
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
    (directory / "tests.id").write_text(_git("rev-parse", f"{commit}:tests"))
    return directory


if __name__ == "__main__":
    raise SystemExit(main())
