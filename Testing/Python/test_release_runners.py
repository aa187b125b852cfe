"""Who does a release: processes that die, runs that meet, shards, Dask, full disks, and a user who changes his mind."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from pkgutil import resolve_name
from urllib.parse import urlparse
from urllib.request import urlopen

import psutil
import pytest

from MedProtectLib.cli.main import main
from MedProtectLib.release.claims import claimed
from MedProtectLib.release.ledger import Ledger, merge, read_ledger
from MedProtectLib.release.runners import Job
from MedProtectLib.release.runners.dask import DaskRunner
from MedProtectLib.release.runners.local import LocalRunner
from MedProtectLib.release.runners.memory import PROCESS_BYTES, needed, stored_bytes
from MedProtectLib.release.runners.shard import Shard
from MedProtectLib.release.writer import this_writer
from release_cases import NAMES, decathlon, ledger, tree
from release_processes import crashing, kill_group, noting, running, start, wait_for_case
from samples import ROOT, Run

CASES = 3
posix = pytest.mark.skipif(os.name != "posix", reason="signals and process groups of POSIX")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return decathlon(tmp_path_factory.mktemp("dataset") / "in", CASES)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, dataset: Path, profile: Path) -> dict[str, str]:
    """The shareable root of a release that nothing happened to."""
    out = tmp_path_factory.mktemp("undisturbed") / "release"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("MedProtectLib.release.make.write_pictures", lambda *_, **__: None)
        assert main(["release", *options(dataset, out, profile), "--jobs", "0"]) == 0
    return tree(out)


def options(dataset: Path, out: Path, profile: Path) -> list[str]:
    return [str(dataset), "--output", str(out), "--profile", str(profile), "--no-vault", "--no-reports", "--name", "release", "--resume"]


def each_once(private: Path) -> bool:
    """Whether the ledger shows every case as committed once."""
    return set(Counter(e["case"] for e in ledger(private) if e["event"] == "ok").values()) == {1}


def leftovers(*roots: Path) -> list[Path]:
    """What is only there while somebody works."""
    hidden = [p for root in roots for p in root.rglob("*") if p.name.endswith((".part", ".lock", ".stale")) or "staging" in p.parts[-2:]]
    return [p for p in hidden if p.is_file()]


@posix
def test_a_killed_worker_costs_its_case_one_attempt(dataset: Path, profile: Path, undisturbed: dict[str, str], tmp_path: Path) -> None:
    out, private = tmp_path / "release", tmp_path / "release_private"
    process = start(*options(dataset, out, profile), "--jobs", 1)
    ((case, pid),) = wait_for_case(process, private).items()
    os.kill(pid, signal.SIGKILL)
    said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    died = [entry for entry in ledger(private) if entry["event"] == "died"]
    assert [(entry["case"], entry["exit_code"]) for entry in died] == [(case, -signal.SIGKILL)]
    assert [e["attempt"] for e in ledger(private) if e["event"] == "ok" and e["case"] == case] == [2]
    assert tree(out) == undisturbed
    assert each_once(private)
    assert leftovers(out, private) == []


@posix
def test_a_killed_run_goes_on_where_it_was(dataset: Path, profile: Path, undisturbed: dict[str, str], tmp_path: Path) -> None:
    out, private = tmp_path / "release", tmp_path / "release_private"
    process = start(*options(dataset, out, profile), "--jobs", 2)
    killed = set(wait_for_case(process, private))
    kill_group(process)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert killed
    assert not [case for case in killed if (private / "cases" / case / "record.json").exists()]
    assert not (out / "medprotect_release.json").exists()
    again = start(*options(dataset, out, profile), "--jobs", 1)
    assert again.communicate(timeout=120) is not None
    assert again.returncode == 0
    assert tree(out) == undisturbed
    assert each_once(private)
    assert leftovers(out, private) == []


@posix
def test_two_runs_at_once_share_the_cases(dataset: Path, profile: Path, undisturbed: dict[str, str], tmp_path: Path) -> None:
    out, private = tmp_path / "release", tmp_path / "release_private"
    runs = [start(*options(dataset, out, profile), "--jobs", 0, "--json") for _ in range(2)]
    answers = [json.loads(process.communicate(timeout=120)[0]) for process in runs]
    assert [process.returncode for process in runs] == [0, 0]
    assert sum(answer["counts"]["ok"] for answer in answers) == CASES
    assert [answer["counts"]["ok"] + answer["counts"]["skipped"] for answer in answers] == [CASES, CASES]
    assert tree(out) == undisturbed
    assert each_once(private)
    assert leftovers(out, private) == []


@pytest.mark.parametrize("place", ["opening.put_if_absent", "inventory.file_name_of", "audit._entry"])
def test_processes_with_one_number_in_two_containers_write_apart(
    place: str, dataset: Path, profile: Path, undisturbed: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one does the whole release while the first is in the middle of a file."""
    out, patched = tmp_path / "release", f"MedProtectLib.release.{place}"
    real = resolve_name(patched)
    command = ["release", *options(dataset, out, profile), "--jobs", "0"]

    def meanwhile(*arguments: object) -> object:
        monkeypatch.setattr(patched, real)
        with monkeypatch.context() as patch:
            patch.setattr("MedProtectLib.release.writer._host", lambda: "another")
            assert main(command) == 0
        return real(*arguments)

    monkeypatch.setattr("MedProtectLib.release.make.write_pictures", lambda *_, **__: None)
    monkeypatch.setattr(patched, meanwhile)
    assert main(command) == 0
    assert tree(out) == undisturbed
    assert leftovers(out, tmp_path / "release_private") == []


@posix
@pytest.mark.parametrize("joined", [True, False])
def test_a_run_that_is_cancelled_while_it_lists_the_cases_leaves_the_others_to_go_on(
    joined: bool, dataset: Path, profile: Path, undisturbed: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, private = tmp_path / "release", tmp_path / "release_private"
    command = ["release", *options(dataset, out, profile), "--jobs", "0"]

    other = private / f".manifest.{replace(this_writer(), host='another').name}.part"

    def cancelled(*_: object) -> None:
        if joined:
            other.touch()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("MedProtectLib.release.run.list_cases", cancelled)
        assert main(command) == 1
    assert (private / "manifest.json").is_file() == out.is_dir() == joined
    assert [*private.glob(".*")] == ([other] if joined else [])
    monkeypatch.setattr("MedProtectLib.release.make.write_pictures", lambda *_, **__: None)
    assert main(command) == 0
    assert tree(out) == undisturbed


@posix
def test_an_interrupt_leaves_nothing_partial(dataset: Path, profile: Path, tmp_path: Path) -> None:
    out, private = tmp_path / "release", tmp_path / "release_private"
    process = start(*options(dataset, out, profile), "--jobs", 1)
    assert wait_for_case(process, private)
    kill_group(process, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "what is done is kept in" in said
    assert "--resume" in said
    assert "Traceback" not in said
    assert running(private) == {}
    assert leftovers(out, private) == []
    records = {p.parent.name for p in private.glob("cases/*/record.json")}
    assert {p.name.removesuffix(".nii.gz") for p in out.glob("imagesTr/*")} == records


def test_shards_together_are_the_whole(
    run: Run, dataset: Path, profile: Path, undisturbed: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("MedProtectLib.release.make.write_pictures", lambda *_, **__: None)
    out = tmp_path / "release"
    code, answer, _ = run("release", *options(dataset, out, profile), "--jobs", 0, "--shard", "2/2", "--json")
    first = json.loads(answer)
    assert (code, first["counts"]["ok"], first["finished"]) == (0, 1, False)
    assert not (out / "medprotect_release.json").exists()
    for name, value in {"ID": 4, "MIN": 4, "MAX": 6, "COUNT": 2}.items():
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", str(value))
    code, answer, _ = run("release", *options(dataset, out, profile), "--jobs", 0, "--shard", "auto", "--json")
    last = json.loads(answer)
    assert (code, last["counts"]["ok"], last["finished"]) == (0, 2, True)
    assert tree(out) == undisturbed
    again = ("release", *options(dataset, out, profile), "--jobs", 0, "--shard", "1/2", "--json")
    with claimed(tmp_path / "release_private" / "claims", NAMES[1].removesuffix(".nii.gz")) as mine:
        assert mine
        assert json.loads(run(*again)[1])["finished"] is False, "the other shard is at work on a case once more"
        assert not (out / "medprotect_release.json").exists()
    assert json.loads(run(*again)[1])["finished"] is True
    assert tree(out) == undisturbed


def test_shards_of_slurm_arrays() -> None:
    def slurm(**values: int) -> dict[str, str]:
        return {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in values.items()}

    assert Shard.parse("auto", slurm(ID=0, MIN=0, MAX=63, COUNT=64)) == Shard(1, 64)
    assert Shard.parse("auto", slurm(ID=63, MIN=0, MAX=63, COUNT=64)) == Shard(64, 64)
    assert Shard.parse("auto", slurm(ID=7, MIN=1, MAX=7, COUNT=4)) == Shard(4, 4)
    assert Shard.parse("auto", slurm(ID=5, MIN=5, MAX=5, COUNT=1)) == Shard(1, 1)
    contents = [{"name": str(n)} for n in range(10)]
    shares = [list(Shard(i, 3)(contents)) for i in (1, 2, 3)]
    assert sorted((c["name"] for share in shares for c in share), key=int) == [c["name"] for c in contents]
    with pytest.raises(Exception, match="gaps"):
        Shard.parse("auto", slurm(ID=9, MIN=0, MAX=9, COUNT=3))


def test_dask_gives_the_same(run: Run, dataset: Path, profile: Path, undisturbed: dict[str, str], tmp_path: Path) -> None:
    pytest.importorskip("distributed", reason="dask and distributed are not installed (medprotect[dask])")
    out = tmp_path / "release"
    code, answer, said = run("release", *options(dataset, out, profile), "--dask", "local", "--jobs", 1, "--json")
    assert code == 0, said
    assert json.loads(answer)["counts"]["ok"] == CASES
    assert tree(out) == undisturbed
    assert each_once(tmp_path / "release_private")


def test_dask_on_this_machine_listens_to_nobody_else() -> None:
    """Other accounts of the machine reach its ports; they are refused without the certificates of this run."""
    pytest.importorskip("distributed", reason="dask and distributed are not installed (medprotect[dask])")
    from distributed import Client
    from distributed.security import Security

    with ExitStack() as stack:
        client = DaskRunner("local", 1, None, lambda *_: None)._client(stack)
        assert client.submit(sum, [1, 2]).result() == 3
        servers = [client.scheduler.address, *client.scheduler_info()["workers"]]
        assert [urlparse(server).hostname for server in servers] == ["127.0.0.1"] * 2
        for server in servers:
            for scheme, security in (("tcp", None), ("tls", Security.temporary())):
                with pytest.raises(OSError, match=r"onnect|certificate"):
                    Client(f"{scheme}://{urlparse(server).netloc}", security=security, timeout=2)
        pids = [os.getpid(), *client.run(os.getpid).values()]
        ports = {c.laddr.port for pid in pids for c in psutil.Process(pid).net_connections("tcp") if c.status == psutil.CONN_LISTEN}
        for port in ports:
            with pytest.raises(OSError, match=r"404|reset|closed"):
                urlopen(f"http://127.0.0.1:{port}/health", timeout=2)


def test_dask_that_is_not_there_is_one_line(
    run: Run, dataset: Path, profile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("distributed", reason="dask and distributed are not installed (medprotect[dask])")
    monkeypatch.setattr("MedProtectLib.release.runners.dask.CONNECT_S", 1)
    code, _, said = run("release", *options(dataset, tmp_path / "release", profile), "--dask", "tcp://127.0.0.1:9")
    assert code == 1
    assert "no Dask scheduler answers there" in said
    assert "every account of this machine" in said


@posix
def test_a_lost_dask_scheduler_costs_nothing(dataset: Path, profile: Path, undisturbed: dict[str, str], tmp_path: Path) -> None:
    pytest.importorskip("distributed", reason="dask and distributed are not installed (medprotect[dask])")
    out, private, contact = tmp_path / "release", tmp_path / "release_private", tmp_path / "scheduler.json"
    dask = [sys.executable, "-m", "dask"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": ROOT}
    scheduler = subprocess.Popen(
        [*dask, "scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", contact], **quiet
    )
    worker = subprocess.Popen([*dask, "worker", "--scheduler-file", contact, "--nthreads", "1", "--no-dashboard", "--no-nanny"], **quiet)
    try:
        while not contact.exists():
            time.sleep(0.05)
        address = json.loads(contact.read_text())["address"]
        process = start(*options(dataset, out, profile), "--dask", address)
        assert wait_for_case(process, private)
        scheduler.kill()
        _, said = process.communicate(timeout=120)
        assert process.returncode == 1
        assert "scheduler was lost" in said
    finally:
        for started in (scheduler, worker):
            started.kill()
            started.wait()
    again = start(*options(dataset, out, profile), "--jobs", 0)
    again.communicate(timeout=120)
    assert again.returncode == 0
    assert tree(out) == undisturbed
    assert leftovers(out, private) == []


class FullDisk:
    """After some files the disk is full, until it is mended."""

    def __init__(self, room: int) -> None:
        self.room, self.fsync = room, os.fsync

    def __call__(self, file: int) -> None:
        self.room -= 1
        if self.room < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "disk")
        self.fsync(file)


@pytest.mark.parametrize("room", [2, 5, 9, 11, 17, 23])
def test_a_full_disk_stops_the_run_and_costs_nothing(
    run: Run, dataset: Path, profile: Path, undisturbed: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    """Every write is waited for, so that ENOSPC can meet any of them: ledger, image, record, history."""
    monkeypatch.setattr("MedProtectLib.release.make.write_pictures", lambda *_, **__: None)
    out, private = tmp_path / "release", tmp_path / "release_private"
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", FullDisk(room))
        code, _, said = run("release", *options(dataset, out, profile), "--jobs", 0)
    assert code == 1
    assert "No space left" in said
    assert "Traceback" not in said
    assert leftovers(out, private) == []
    committed = {p.parent.name for p in private.glob("cases/*/record.json")}
    assert {p.name.removesuffix(".nii.gz") for p in out.glob("imagesTr/*")} == committed
    assert run("release", *options(dataset, out, profile), "--jobs", 0)[0] == 0
    assert tree(out) == undisturbed
    assert leftovers(out, private) == []


@posix
def test_a_small_file_system_that_is_full(dataset: Path, profile: Path, undisturbed: dict[str, str], tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=120k", "tmpfs", disk], capture_output=True, check=False).returncode:
        pytest.skip("no permission to mount a small file system")
    try:
        out, private = disk / "release", tmp_path / "release_private"
        arguments = [*options(dataset, out, profile), "--private", str(private), "--jobs", "0"]
        first = start(*arguments)
        _, said = first.communicate(timeout=120)
        assert first.returncode == 1
        assert "No space left" in said
        assert leftovers(out, private) == []
        subprocess.run(["mount", "-o", "remount,size=10m", disk], check=True)
        second = start(*arguments)
        second.communicate(timeout=120)
        assert second.returncode == 0
        assert tree(out) == undisturbed
    finally:
        subprocess.run(["umount", disk], check=True)


def runner(jobs: int, memory: int = 2**40, needs: int = 1) -> tuple[LocalRunner, list[tuple[str, int | None]], list[str]]:
    died: list[tuple[str, int | None]] = []
    lost: list[str] = []
    return (
        LocalRunner(
            jobs, memory, lambda _: needs, lambda task, code: died.append((task.content["name"], code)), lambda c, _: lost.append(c["name"])
        ),
        died,
        lost,
    )


def test_a_case_that_kills_every_process_is_quarantined() -> None:
    local, died, lost = runner(2)
    results = {r["case"]: r for r in local(Job("", None, crashing), [{"name": n} for n in ("a", "twice", "always", "b")])}
    assert {name: result["status"] for name, result in results.items()} == {"a": "ok", "b": "ok", "twice": "ok", "always": "quarantined"}
    assert results["twice"]["attempt"] == 3
    assert "died 3 times" in results["always"]["reason"]
    assert Counter(name for name, _ in died) == {"twice": 2, "always": 3}
    assert lost == ["always"]


@pytest.mark.parametrize(("needs", "together"), [(1, 2), (60, 1), (1000, 1)])
def test_cases_that_do_not_fit_into_memory_together_wait_for_each_other(tmp_path: Path, needs: int, together: int) -> None:
    local, _, _ = runner(2, memory=100, needs=needs)
    assert len(list(local(Job(str(tmp_path), None, noting), [{"name": str(n)} for n in range(5)]))) == 5
    notes = [json.loads(p.read_text()) for p in tmp_path.iterdir()]
    overlap = max(sum(a["began"] <= b["began"] < a["ended"] for a in notes) for b in notes)
    assert overlap == together
    assert {note["threads"] for note in notes} == {"1"}


def test_memory_is_estimated_from_the_unpacked_size(dataset: Path, tmp_path: Path) -> None:
    import gzip

    image = next(dataset.glob("imagesTr/*"))
    assert stored_bytes(image) == len(gzip.decompress(image.read_bytes()))
    damaged = tmp_path / "x.nii.gz"
    damaged.write_bytes(image.read_bytes()[:-4] + b"\xff\xff\xff\x7f")
    assert stored_bytes(damaged) == 3 * damaged.stat().st_size, "a size that gzip cannot reach is not believed"
    assert stored_bytes(tmp_path / "missing") == 0
    content = {"image_files": [{"source": image.relative_to(dataset).as_posix()}]}
    assert needed(dataset, True, content) > needed(dataset, False, content) > PROCESS_BYTES + stored_bytes(image)


def test_a_torn_line_counts_as_nothing(tmp_path: Path) -> None:
    mine = Ledger(tmp_path)
    mine.append("started", case="a")
    mine.append("ok", case="a")
    (tmp_path / "other-1-1.jsonl").write_text('{"time": 1.0, "event": "started", "case": "b"}\n{"time": 2.0, "event": "o')
    (tmp_path / "third-1-1.jsonl").write_bytes(b"\x00\x00\n[1]\n{}\n")
    assert len(list(read_ledger(tmp_path))) == 3
    assert {case: event for case, (_, event) in merge(tmp_path).last.items()} == {"a": "ok", "b": "started"}


def test_a_case_has_one_holder(tmp_path: Path) -> None:
    lock = tmp_path / "case.lock"
    with claimed(tmp_path, "case") as mine, claimed(tmp_path, "case") as other:
        assert (mine, other) == (True, False)
    assert not lock.exists()
    script = "import os, sys, pathlib, MedProtectLib.release.claims as c\nwith c.claimed(pathlib.Path(sys.argv[1]), 'case'): os._exit(9)"
    assert subprocess.run([sys.executable, "-c", script, tmp_path], check=False).returncode == 9
    assert lock.exists()
    with claimed(tmp_path, "case") as mine:
        assert mine, "its process is gone"
    elsewhere = this_writer().as_json() | {"host": "elsewhere"}
    lock.write_text(json.dumps(elsewhere))
    with claimed(tmp_path, "case") as mine:
        assert not mine, "a process on another machine may be alive"
    old = time.time() - 3600
    os.utime(lock, (old, old))
    with claimed(tmp_path, "case") as mine:
        assert mine, "nothing touched it for an hour"
    lock.write_text("")
    with claimed(tmp_path, "case") as mine:
        assert not mine, "it is being written"
    assert [p for p in tmp_path.iterdir() if p != lock] == []
    shutil.rmtree(tmp_path)
