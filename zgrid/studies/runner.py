"""Run a study: in parallel processes, resumable, with the same rows whatever their number."""

from __future__ import annotations

import json
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from zgrid.errors import Finding, MissingExtraError, StudyError, TopologyError, UnknownNameError
from zgrid.lifeline import ORPHANED
from zgrid.studies.case import Case, ProtocolPart
from zgrid.studies.config import Label, Run, Study
from zgrid.studies.protocol_run import HISTORY as CURVE
from zgrid.studies.protocol_run import play_protocol
from zgrid.studies.store import COMPARISON, HISTORY, ROWS, Row, Store
from zgrid.topology import SHIPPED_FOLDERS, examine, findings_of, override, read_yaml

Progress = Callable[[str, int, int], None]
"""Told the name of the study, how many of its runs are over, and how many there are."""


class Done(NamedTuple):
    """What came of a study: files that were written, the numbers of failed runs with their rows, and a hint of what
    would be needed for more."""

    files: tuple[Path, ...]
    rows: list[Row]
    failed: tuple[str, ...]
    hint: str


def find_study(name: str) -> Path:
    """The file of a study that ships with zgrid (``delay_sensitivity``), or the name itself as a path."""
    if not Path(name).suffix and not Path(name).is_file():
        for folder in SHIPPED_FOLDERS:
            if (folder / "studies" / f"{name}.yaml").is_file():
                return folder / "studies" / f"{name}.yaml"
    return Path(name)


def load_study(file: str | Path) -> Study:
    """The study of a file, with every one of its combinations checked.

    Raises:
        TopologyError: with every finding and its path.
    """
    path = find_study(str(file))
    raw, findings = read_yaml(path)
    if raw is None or findings:
        raise TopologyError(str(file), findings)
    beside = path.parent / str(raw.get("topology"))
    if "topology" in raw and beside.suffix and beside.is_file():
        raw["topology"] = str(beside.resolve())
    try:
        study = Study.model_validate(raw)
    except ValidationError as error:
        pairs = zip(findings_of(error), error.errors(), strict=True)
        findings = [finding if one["loc"] else finding._replace(path="study") for finding, one in pairs]
        raise TopologyError(str(file), findings) from error
    findings = check(study)
    if findings:
        raise TopologyError(str(file), findings)
    return study


def check(study: Study) -> list[Finding]:
    """What is wrong with the combinations: the path is that in the topology, or in the section protocol."""
    found: dict[Finding, str] = {}
    for labels, overrides in study.combinations():
        where = ", ".join(f"{knob}={label}" for knob, label in labels.items())
        for finding in _look(study, overrides):
            found.setdefault(finding, where)
    return [Finding(path, f"{text} ({where})" if where else text) for (path, text), where in found.items()]


def _look(study: Study, overrides: Mapping[str, Any]) -> list[Finding]:
    if "seed" in overrides:
        return [Finding("seed", "the study's own seeds set it; expected other keys")]
    if study.topology is not None:
        return examine(study.topology, overrides)[1]
    try:
        part = part_of(study, overrides)
        found = Case(part, study.seed_list[0]).misfits()
    except TopologyError as error:
        return list(error.findings)
    except ValidationError as error:
        return findings_of(error, "protocol.config")
    except UnknownNameError as error:
        return [Finding("protocol.kind", str(error))]
    return [Finding("protocol", text) for text in found]


def part_of(study: Study, overrides: Mapping[str, Any]) -> ProtocolPart:
    """The section ``protocol`` with keys set.

    Raises:
        TopologyError: it does not fit any more.
    """
    assert study.protocol is not None
    raw = json.loads(study.protocol.model_dump_json(exclude_unset=True))
    findings = [finding for key, value in overrides.items() for finding in override(raw, key, value)]
    if not findings:
        try:
            return ProtocolPart.model_validate(raw)
        except ValidationError as error:
            findings = findings_of(error, "protocol")
    raise TopologyError(study.name, findings)


def run_study(
    study: Study,
    folder: Path,
    *,
    processes: int = 1,
    fresh: bool = False,
    progress: Progress = lambda name, done, total: None,
) -> Done:
    """Run what of a study is not in the folder yet, and write its tables there.

    A run that failed is tried again. With more than one of ``processes``, which are spawned, runs end in any order; the
    tables are the same.

    Raises:
        StudyError: another study is in the folder, it cannot be written, or a process died.
    """
    runs = study.runs()
    store = Store(folder, identity(study), fresh=fresh)
    failed = {*store.failed()}
    left = [run for run in runs if run.number not in store.done or run.number in failed]
    progress(study.name, over := len(runs) - len(left), len(runs))
    for run, (row, history) in _play_all(study, left, processes):
        store.keep(run.number, row, history)
        progress(study.name, over := over + 1, len(runs))
    return _write(study, store, runs)


def identity(study: Study) -> dict[str, Any]:
    """What a study is, ready for JSON: with what is in its topology, so that a change of the file is another study."""
    content: dict[str, Any] = study.model_dump(mode="json", exclude_defaults=True)
    if study.topology is not None:
        topology, _ = examine(study.topology)
        assert topology is not None
        content["topology_hash"] = topology.hash()
    return content


def _write(study: Study, store: Store, runs: Sequence[Run]) -> Done:
    from zgrid.studies.compare import compare  # brings scipy, which the processes that run do without

    rows, knobs = store.rows(), list(study.knobs)
    files = [store.write(ROWS, rows)]
    files.append(store.write(COMPARISON, compare(rows, knobs, study.reference)))
    if study.curves:
        files.append(store.write(HISTORY, store.histories(CURVE, knobs)))
    hint = ""
    try:
        files.append(store.write_parquet(rows))
    except MissingExtraError as error:
        hint = f"no rows.parquet: {error}"
    failed = tuple(f"run {k} ({runs[k].text}): {store.done[k]['row']['error']}" for k in store.failed())
    return Done(tuple(files), rows, failed, hint)


Played = tuple[Row, list[tuple[Any, ...]]]
"""The row of a run, and how it went round by round, where that is kept."""


def _play_all(study: Study, runs: Sequence[Run], processes: int) -> Iterator[tuple[Run, Played]]:
    """Each run and what came of it, as they end."""
    if min(processes, len(runs)) < 2:
        for run in runs:
            yield run, play_run(study, run)
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(processes, len(runs)), context, initializer=_begin)
    try:
        yield from _as_they_end(pool, study, runs, 2 * processes)
    except BrokenProcessPool as error:
        raise StudyError(
            f"{study.name}: a process of the study died; run it again to go on from where it was"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _as_they_end(
    pool: ProcessPoolExecutor, study: Study, runs: Sequence[Run], at_once: int
) -> Iterator[tuple[Run, Played]]:
    """A few runs at a time are with the pool, so that an interrupt has little to wait for."""
    coming, going = iter(runs), dict[Future[Played], Run]()
    while True:
        for run in coming:
            going[pool.submit(play_run, study, run)] = run
            if len(going) >= at_once:
                break
        if not going:
            return
        for future in wait(going, return_when=FIRST_COMPLETED).done:
            yield going.pop(future), future.result()


def _begin() -> None:
    """A process of the pool ends with its parent, however that ends."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(ORPHANED)

    threading.Thread(target=watch, daemon=True, name="lifeline").start()


def play_run(study: Study, run: Run) -> Played:
    """The row of a run; one that raised has status failed and what it said."""
    row: Row = {"run": run.number, **run.labels, "seed": run.seed, "status": "ok", "error": None}
    history: list[tuple[Any, ...]] = []
    try:
        if study.topology is None:
            outcome = play_protocol(part_of(study, run.overrides), run.seed, study.tolerance)
            metrics: Mapping[str, Label | None] = outcome.metrics
            history = list(outcome.history) if study.curves and run.seed == study.seed_list[0] else []
        else:
            from zgrid.studies.environment_run import play_topology  # brings pandapower, which protocols do without

            metrics = play_topology(study.topology, run.overrides, run.seed, (study.episodes, study.steps))
    except Exception as error:  # noqa: BLE001 - protocols and devices may be users' code; the other runs go on
        text = " ".join(f"{type(error).__name__}: {error}".split())
        return {**row, "status": "failed", "error": text}, []
    return {**row, **metrics}, history
