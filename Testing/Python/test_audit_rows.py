"""What makes a row: releases on disk, twins, void rows, resuming, and the tables made from rows alone."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from audit_samples import nodule_slices, nodules, pictures
from MedProtectLib import Protector, read_volume
from MedProtectLib.audit import experiment as running
from MedProtectLib.audit.data import TRAIN, AuditCase, AuditData, load_dataset
from MedProtectLib.audit.experiment import Experiment, run_experiment
from MedProtectLib.audit.releases import Releases, check_method
from MedProtectLib.audit.report import write_report
from MedProtectLib.audit.rows import Row, RowFile, Run, compared, reached_plateau, read_rows, void_reason
from MedProtectLib.audit.tables import cautions, groups_of, markdown
from MedProtectLib.errors import MedProtectError, UsageError
from MedProtectLib.fitting.fit import FitOptions, fit
from MedProtectLib.verify import verify_files
from samples import SAMPLES

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:monai", "ignore::FutureWarning")

BOUND = 8 / 255
AUDITS = Path(__file__).parents[2] / "Documentation" / "audit"


@pytest.fixture
def releases(tmp_path: Path) -> Releases:
    return Releases(nodules(), tmp_path / "work", BOUND, fit_steps=2)


def test_a_release_holds_what_protect_writes_and_is_made_once(releases: Releases) -> None:
    release = releases.of("lsp")
    case = releases.data.cases[TRAIN][0]
    made = release.cases[case.name]
    path = release.folder / made.file
    expected = Protector(profile=releases.fitted("lsp"), bound=BOUND).protect(case.volume, case.labels)
    assert np.array_equal(read_volume(path).array, expected.volume.array)
    assert made.psnr_db == pytest.approx(expected.statistics.psnr_db)
    assert 0 < made.max_abs_change <= BOUND * (1 + 1e-6)
    assert np.array_equal(release.images(releases.data)[case.name], case.image_of(expected.volume))
    before = path.stat().st_mtime_ns
    assert releases.of("lsp").cases == release.cases
    assert path.stat().st_mtime_ns == before
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(MedProtectError, match="not the file that the audit wrote"):
        releases.of("lsp").images(releases.data)


def test_controls_are_bounded_noise_of_the_same_energy_elsewhere(releases: Releases) -> None:
    noise, mask = (releases.of(name) for name in ("noise", "random_mask"))
    for case in releases.data.cases[TRAIN]:
        quiet, scattered = noise.cases[case.name], mask.cases[case.name]
        assert quiet.psnr_db == pytest.approx(scattered.psnr_db, abs=0.1)
        assert quiet.psnr_roi_db < scattered.psnr_roi_db + 0.2
        found = verify_files(case.files.image, noise.folder / quiet.file, case.files.labels)
        assert found.statistics.changed_outside_regions == 0
        outside = verify_files(case.files.image, mask.folder / scattered.file, case.files.labels).statistics
        assert outside.changed_outside_regions > 0


def test_noise_of_equal_psnr(tmp_path: Path) -> None:
    releases = Releases(nodules(), tmp_path, BOUND, target_psnr=48.0, fit_steps=2)
    own, noise = releases.of("lsp"), releases.of("noise@lsp")
    for name, case in own.cases.items():
        assert case.psnr_db == pytest.approx(48.0, abs=0.5)
        assert noise.cases[name].psnr_db == pytest.approx(case.psnr_db, abs=0.5)


def test_noise_of_equal_psnr_goes_as_far_as_the_profile(tmp_path: Path) -> None:
    data, whole = nodules(), tmp_path / "whole.medprotect"
    fit([case.files for case in data.cases[TRAIN]], whole, FitOptions("lsp", bound=BOUND, scope="image"))
    releases = Releases(data, tmp_path / "work", BOUND, profiles={"whole": whole})
    own, equal, plain = (releases.of(name) for name in ("profile:whole", "noise@profile:whole", "noise"))
    for name, case in own.cases.items():
        assert equal.cases[name].psnr_db == pytest.approx(case.psnr_db, abs=0.5)
        assert case.psnr_db < plain.cases[name].psnr_db - 1


def test_a_method_that_is_louder_than_its_noise_is_told_of() -> None:
    rows = [made_row("noise", 0, [0.8], psnr_db=45.5), made_row("profile:whole", 0, [0.5], psnr_db=39.5)]
    rows += [made_row("noise@profile:whole", 0, [0.6], psnr_db=41.5), made_row("lsp", 0, [0.6], psnr_db=45.2)]
    louder = [said for said in cautions(rows, groups_of(rows)) if "dB and" in said]
    assert [said.split(": ", 1)[1] for said in louder] == [
        "noise@profile:whole has 41.5 dB and profile:whole 39.5, so that they differ in strength too.",
        "profile:whole has 39.5 dB and noise 45.5, so that they differ in strength too. Compare it with noise@profile:whole.",
    ]


@pytest.mark.parametrize("method", ["umed", "voxshield", "ar"])
def test_every_method_makes_a_release(method: str, tmp_path: Path) -> None:
    data = nodules()
    data = replace(data, cases={split: cases[:2] for split, cases in data.cases.items()})
    release = Releases(data, tmp_path, BOUND, fit_steps=1).of(method)
    assert len(release.protected) == 2


def test_a_folder_of_protected_files_is_a_release(releases: Releases, tmp_path: Path) -> None:
    folder = tmp_path / "public"
    folder.mkdir()
    made = releases.of("noise")
    for case in releases.data.cases[TRAIN]:
        source = made.folder / made.cases[case.name].file
        (folder / f"{case.name}_protected.nii.gz").write_bytes(source.read_bytes())
    given = replace(releases, folders={"public": folder}).of("released:public")
    assert given.sha256 == made.sha256
    for name, case in given.cases.items():
        assert case.psnr_db == pytest.approx(made.cases[name].psnr_db, abs=0.3)
    next(iter(folder.iterdir())).unlink()
    with pytest.raises(MedProtectError, match="holds no"):
        replace(releases, folders={"public": folder}).of("released:public")


def in_few_levels(data: AuditData, count: int) -> AuditData:
    """The first training cases stored in so few levels that the bound is below one."""

    def coarse(case: AuditCase) -> AuditCase:
        return replace(case, volume=replace(case.volume, array=(case.volume.array // 200).astype(np.int16)))

    cases = [coarse(case) if number < count else case for number, case in enumerate(data.cases[TRAIN])]
    return replace(data, cases={**data.cases, TRAIN: cases})


def test_cases_that_cannot_be_protected_are_told_of(tmp_path: Path) -> None:
    releases = Releases(in_few_levels(nodules(), 3), tmp_path / "work", BOUND)
    plan = Experiment(releases, ["noise"], ["unet"], ["none"], [0], steps=1)
    rows = list(run_experiment(plan, RowFile(tmp_path / "rows.jsonl")))
    assert [(row["protected_cases"], row["refused_cases"]) for row in rows] == [(0, 0), (1, 3)]
    written = write_report(tmp_path / "rows.jsonl", tmp_path)
    reason = f"noise: 3 training cases hold no change and were trained on as originals. {rows[1]['refused_reason']}"
    assert "level" in rows[1]["refused_reason"]
    assert reason in written.cautions
    page = (tmp_path / "audit.md").read_text()
    assert reason in page
    assert "| 1, 3 refused | 0 |" in page
    with pytest.raises(MedProtectError, match=r"^noise: none of the 4 training cases holds a change\. .*level"):
        Releases(in_few_levels(nodules(), 4), tmp_path / "none", BOUND).of("noise")


def test_unknown_methods_and_other_tasks_are_refused(releases: Releases) -> None:
    for method, said in (("nosuch", "unknown method"), ("noise@nosuch", "unknown method"), ("profile:x", "names nothing")):
        with pytest.raises(UsageError, match=said):
            releases.of(method)
    with pytest.raises(UsageError, match="3D only"):
        replace(releases, data=nodule_slices()).of("voxshield")
    with pytest.raises(UsageError, match="'random_mask' is for segmentation"):
        check_method("random_mask", pictures(), {}, {})


def run(**changed: Any) -> Run:
    return replace(Run("d", "unet", "none", "lsp", 0, 100, BOUND), **changed)


def test_twins_share_everything_but_the_data() -> None:
    twins = run(share=0.8, target_psnr_db=50.0).needs
    assert [twin.method for twin in twins] == ["none", "clean_part", "noise"]
    assert {(twin.seed, twin.steps, twin.regime, twin.victim) for twin in twins} == {(0, 100, "none", "unet")}
    assert [twin.share for twin in twins] == [1.0, 0.8, 0.8]
    assert [twin.method for twin in run(method="noise", share=0.8).needs] == ["none", "clean_part"]
    assert run(method="none", epsilon=0.0).needs == ()
    assert [twin.method for twin in run(method="noise").needs] == ["none"]
    assert len({r.key for r in (*twins, run(), run(seed=1), run(epsilon=BOUND / 2), run(regime="augmented"), run(steps=99))}) == 8


def test_plateau() -> None:
    rising = [[10 * n, 0.08 * n] for n in range(1, 11)]
    flat = [[10 * n, min(0.7, 0.2 * n)] for n in range(1, 11)]
    assert reached_plateau(flat)
    assert not reached_plateau(rising)
    assert not reached_plateau([[10 * n, 0.05] for n in range(1, 11)])
    assert not reached_plateau(flat, chance=0.65)
    twins: list[Row] = [{"method": m, "curve": c, "chance": 0.0} for m, c in (("none", flat), ("noise", rising))]
    assert void_reason(twins[:1]) == ""
    assert void_reason(twins).startswith("the noise twin had not reached 95%")


def made_row(method: str, seed: int, dsc: list[float], **changed: Any) -> Row:
    made = Run("d", "unet", "none", method, seed, 100, 0.0 if method == "none" else BOUND)
    scores = {"dsc": float(np.mean(dsc)), "dsc_cases": [[v] for v in dsc], "dsc_best_epoch": max(dsc), "iou": 0.5, "hd95": 3.0}
    twins = {"dsc_clean_twin": 0.8, "dsc_noise_twin": 0.75, "dsc_clean_part": None}
    seen = {"psnr_db": None if method == "none" else 50.0 + seed, "psnr_min_db": 49.0, "psnr_roi_db": 40.0}
    what = {
        name: getattr(made, name)
        for name in ("dataset", "victim", "regime", "method", "seed", "steps", "epsilon", "share", "target_psnr_db")
    }
    told = {"key": made.key, "void": False, "void_reason": "", "test_cases": [str(n) for n in range(len(dsc))], "data_sha256": "of d"}
    return {**what, **scores, **twins, **seen, **told, **changed}


def test_tables_tell_mean_spread_and_paired_difference() -> None:
    noise, own = [[0.8, 0.7, 0.9], [0.7, 0.7, 0.8]], [[0.2, 0.1, 0.4], [0.3, 0.1, 0.2]]
    rows = [made_row("none", n, [0.9, 0.8, 0.9]) for n in (0, 1)]
    rows += [made_row("noise", n, noise[n]) for n in (0, 1)] + [made_row("lsp", n, own[n]) for n in (0, 1)]
    (group,) = groups_of(rows)
    clean, control, line = group.lines
    assert [clean.method, control.method, line.method] == ["none", "noise", "lsp"]
    assert line.score is not None
    assert line.score.mean == pytest.approx(np.mean(own))
    assert line.score.deviation == pytest.approx(np.std([np.mean(o) for o in own], ddof=1))
    apart = np.array(own) - np.array(noise)
    terms = apart.mean(0).var(ddof=1) / 3, apart.mean(1).var(ddof=1) / 2
    degrees = sum(terms) ** 2 / (terms[0] ** 2 / 2 + terms[1] ** 2 / 1)
    assert line.difference == pytest.approx((apart.mean(), stats.t.ppf(0.975, degrees) * math.sqrt(sum(terms))))
    assert control.difference is None
    assert line.psnr == pytest.approx(50.5)
    text = markdown([group])
    assert "| lsp | 100% | 50.50 (49.00) | 40.00 | 21.7% ± 2.4 | 35.0% ± 7.1 |" in text
    assert any("2 seeds" in said for said in cautions(rows, [group]))
    assert any("3 test cases" in said for said in cautions(rows, [group]))


def test_a_part_of_the_cases_is_compared_with_noise_in_the_same_part() -> None:
    flat, rising = [[10 * n, min(0.7, 0.2 * n)] for n in range(1, 11)], [[10 * n, 0.08 * n] for n in range(1, 11)]

    def of(method: str, share: float, dsc: list[float], curve: list[list[float]]) -> Row:
        epsilon = 0.0 if method == "none" else BOUND
        key = run(method=method, share=share, epsilon=epsilon).key
        return made_row(method, 0, dsc, share=share, key=key, curve=curve, chance=0.0)

    rows = [of("none", 1.0, [0.9, 0.8], flat), of("noise", 1.0, [0.2, 0.3], flat), of("noise", 0.5, [0.8, 0.9], rising)]
    rows.append(of("lsp", 0.5, [0.6, 0.8], flat))
    own = compared(rows[3], {row["key"]: row for row in rows})
    assert own["dsc_noise_twin"] == pytest.approx(0.85)
    assert own["void_reason"].startswith("the noise twin had not reached")
    of_noise, of_lsp = groups_of(rows)[0].lines[2:]
    assert (of_noise.share, of_noise.difference) == (0.5, None)
    assert of_lsp.difference is not None
    assert of_lsp.difference[0] == pytest.approx(-0.15)
    assert groups_of([row for row in rows if row["method"] != "noise" or row["share"] == 1.0])[0].lines[2].difference is None


def test_the_interval_holds_where_three_seeds_differ_more_than_the_cases() -> None:
    rng, held = np.random.default_rng(0), 0
    for _ in range(400):
        rows = [made_row("none", n, [0.8] * 40) for n in range(3)]
        for n in range(3):
            rows.append(made_row("noise", n, list(0.5 + rng.normal(0, 0.1, 40))))
            rows.append(made_row("lsp", n, list(0.4 + rng.normal(0, 0.1) + rng.normal(0, 0.1, 40))))
        change, width = groups_of(rows)[0].lines[2].difference or (math.nan, math.nan)
        held += abs(change + 0.1) < width
    assert held > 0.93 * 400


def classified(method: str, seed: int, hits: str, **changed: Any) -> Row:
    """Six cases of class 0 and two of class 1."""
    wrong = np.array([hit == "0" for hit in hits])
    balanced = 1 - (wrong[:6].mean() + wrong[6:].mean()) / 2
    row = {**made_row(method, seed, [0.0] * 8), "dsc": None, "accuracy": 1 - wrong.mean(), "balanced_accuracy": balanced, "hits": hits}
    return {**row, "balanced_accuracy_clean_twin": 0.9, **changed}


def test_classification_is_compared_by_balanced_accuracy() -> None:
    rows = [classified("none", 0, "11111111"), classified("noise", 0, "11111111"), classified("lsp", 0, "11111100")]
    line = groups_of(rows)[0].lines[2]
    assert line.difference is not None
    assert line.difference[0] == pytest.approx(-0.5), "of accuracies it is -0.25"
    assert math.isnan(line.difference[1]), "which cases are of which class is not known"
    assert "| -50.0, no interval |" in markdown(groups_of(rows))
    own, classes = "11100110", [0] * 6 + [1] * 2
    rows = [{**rows[0], "test_classes": classes}, rows[1], classified("lsp", 0, own)]
    parts = np.array([0, 0, 0, -1, -1, 0]), np.array([0, -1])
    terms = [part.var(ddof=1) / len(part) / 4 for part in parts]
    width = stats.t.ppf(0.975, sum(terms) ** 2 / (terms[0] ** 2 / 5 + terms[1] ** 2 / 1)) * math.sqrt(sum(terms))
    assert groups_of(rows)[0].lines[2].difference == pytest.approx(((-2 / 6 - 1 / 2) / 2, width))


def test_breastmnist_is_what_its_balanced_accuracies_say() -> None:
    groups = groups_of(read_rows(AUDITS / "tier1_breastmnist.jsonl"))
    (group,) = [group for group in groups if group.regime == "none"]
    noise = next(line.score for line in group.lines if line.method == "noise")
    for line in group.lines[2:]:
        assert line.score is not None
        assert noise is not None
        assert line.difference is not None
        assert line.difference[0] == pytest.approx(line.score.mean - noise.mean, abs=1e-4)


def test_no_verdict_rests_on_an_unknown_interval(tmp_path: Path) -> None:
    rows = RowFile(tmp_path / "rows.jsonl")
    for row in (classified("none", 0, "11111111"), classified("noise", 0, "11111111"), classified("lsp", 0, "00000000")):
        rows.append(row)
    written = write_report(rows.path, tmp_path)
    assert [line["against_noise"] for line in written.summary] == [None, None, None]
    assert "the victim" not in (tmp_path / "audit.html").read_text()


def verdict_of(folder: Path, *rows: Row) -> str:
    file = RowFile(folder / "rows.jsonl")
    for row in rows:
        file.append(row)
    write_report(file.path, folder)
    page = (folder / "audit.html").read_text()
    return page[page.index("trained on data protected by") :].partition("</")[0] if "trained on data protected by" in page else ""


@pytest.mark.parametrize(
    ("own", "told"),
    [
        ([0.1, 0.2, 0.1, 0.3], "the victim fails: DSC 17.5%"),
        ([0.5, 0.6, 0.5, 0.7], "the victim does worse: DSC 57.5%"),
        ([0.8, 0.7, 0.9, 0.8], "the victim learns as from random noise"),
        ([0.99, 0.98, 0.97, 0.99], "the victim learns more than from random noise"),
    ],
)
def test_verdicts(own: list[float], told: str, tmp_path: Path) -> None:
    said = verdict_of(tmp_path, made_row("none", 0, [0.9] * 4), made_row("noise", 0, [0.8, 0.75, 0.8, 0.85]), made_row("lsp", 0, own))
    assert told in said
    assert "(1 training)" in said


def test_a_victim_that_guesses_one_of_two_classes_fails(tmp_path: Path) -> None:
    def row(method: str, hits: str) -> Row:
        rates = np.array([hit == "1" for hit in hits]).reshape(2, 20).mean(axis=1)
        kinds = {"test_classes": [0] * 20 + [1] * 20, "test_cases": [str(n) for n in range(40)], "chance": 0.5}
        return classified(method, 0, "1" * 8, **kinds) | {"hits": hits, "balanced_accuracy": float(rates.mean())}

    hits = {"none": "1" * 40, "noise": "1" * 19 + "0" + "1" * 18 + "00", "lsp": "1" * 20 + "0" * 20}
    assert "the victim fails: balanced accuracy 50.0%, clean 90.0%" in verdict_of(tmp_path, *(row(*each) for each in hits.items()))


def test_equal_differences_in_every_case_have_no_interval() -> None:
    rows = [made_row("none", 0, [0.9] * 4), made_row("noise", 0, [0.8] * 4), made_row("lsp", 0, [0.3] * 4)]
    difference = groups_of(rows)[0].lines[2].difference
    assert difference is not None
    assert math.isnan(difference[1])


def test_clean_rows_without_a_bound_have_their_own_table() -> None:
    rows = [made_row("none", 0, [0.9]), made_row("noise", 0, [0.8]), made_row("none", 0, [0.7], key="k", victim="segresnet")]
    rows.append(made_row("clean_part", 0, [0.7], key="p", victim="unetr", epsilon=0.0))
    groups = groups_of(rows)
    assert [(group.victim, [line.method for line in group.lines]) for group in groups] == [
        ("unet", ["none", "noise"]),
        ("segresnet", ["none"]),
    ]
    assert "### d, segresnet, training 'none', 100 steps, clean data only" in markdown(groups)


def test_rows_of_other_test_cases_are_not_compared() -> None:
    rows = [made_row("none", 0, [0.9]), made_row("noise", 0, [0.8, 0.9]), made_row("lsp", 0, [0.1, 0.2])]
    rows += [made_row("noise", 1, [0.8, 0.9, 0.7]), made_row("lsp", 1, [0.1, 0.2, 0.3])]
    assert groups_of(rows)[0].lines[2].difference is None
    rows = [*rows[:3], made_row("noise", 0, [0.8, 0.9], test_cases=["2", "3"])]
    assert groups_of(rows)[0].lines[2].difference is None


def test_a_row_without_what_names_its_run_is_told(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps(made_row("none", 0, [0.9])) + '\n{"key": "x"}\n')
    with pytest.raises(MedProtectError, match=r"rows.jsonl, line 2: a row without 'dataset'\. Take the line out"):
        RowFile(rows)


def test_a_repeated_key_is_one_row(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    lines = [made_row("none", 0, [0.9]), made_row("noise", 0, [0.8]), made_row("lsp", 0, [0.5]), made_row("lsp", 0, [0.1])]
    rows.write_text("".join(json.dumps(row) + "\n" for row in lines))
    assert write_report(rows, tmp_path).summary[2]["score"] == pytest.approx(0.1)


def test_void_rows_are_shown_and_not_counted() -> None:
    rows = [made_row("none", 0, [0.9]), made_row("noise", 0, [0.8]), made_row("lsp", 0, [0.1], void=True, void_reason="too short")]
    (group,) = groups_of(rows)
    assert group.lines[2].score is None
    assert "| void (10.0%) |" in markdown([group])
    assert "1: too short" in markdown([group])
    assert any("1 of 3 rows are void" in said for said in cautions(rows, [group]))


def named(key: str) -> Row:
    """A row with this key first, as rows begin."""
    return {"key": key} | made_row("none", 0, [0.9], key=key)


def test_rows_survive_a_torn_line(tmp_path: Path) -> None:
    file = RowFile(tmp_path / "rows.jsonl")
    file.append(named("a"))
    with file.path.open("ab") as stream:
        stream.write(b'{"key": "b", "n"')
    again = RowFile(file.path)
    assert list(again.rows) == ["a"]
    again.append(named("c"))
    assert [row["key"] for row in read_rows(file.path)] == ["a", "c"]
    file.path.write_bytes(b'{"ke')
    first = RowFile(file.path)
    assert first.rows == {}
    first.append(named("d"))
    assert [row["key"] for row in read_rows(file.path)] == ["d"]
    (tmp_path / "other.txt").write_text("not rows\n")
    with pytest.raises(MedProtectError, match="not a file of audit rows"):
        RowFile(tmp_path / "other.txt")


def test_a_row_that_the_disk_does_not_take_is_not_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = RowFile(tmp_path / "rows.jsonl")
    file.append(named("a"))
    write = os.write
    monkeypatch.setattr(os, "write", lambda to, line: write(to, line[:5]))
    with pytest.raises(MedProtectError, match="could not be written whole"):
        file.append(named("b"))
    assert list(file.rows) == ["a"]
    assert list(RowFile(file.path).rows) == ["a"]


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The keys of the runs that were trained."""
    seen: list[str] = []
    train = running.train_victim

    def counted(*arguments: Any) -> Any:
        seen.append(f"{arguments[2].name} seed{arguments[4]} on {len(arguments[1])}")
        return train(*arguments)

    monkeypatch.setattr(running, "train_victim", counted)
    return iter([seen])  # type: ignore[return-value]


def test_an_experiment_is_resumed_and_its_rows_are_complete(tmp_path: Path, trained: Iterator[list[str]]) -> None:
    seen = next(trained)
    data = nodules()
    releases = Releases(data, tmp_path / "work", BOUND, fit_steps=2)
    plan = Experiment(releases, ["lsp"], ["unet"], ["none"], [0], shares=[1.0, 0.5], steps=10)
    rows = RowFile(tmp_path / "rows.jsonl")
    first = next(run_experiment(plan, rows))
    assert first["method"] == "none"
    assert len(list(run_experiment(plan, RowFile(rows.path)))) == 5
    assert len(seen) == 6
    assert [row["method"] for row in read_rows(rows.path)] == ["none", "noise", "lsp", "clean_part", "noise", "lsp"]
    assert seen[3].endswith("on 2")
    assert list(run_experiment(plan, RowFile(rows.path))) == []
    for row in read_rows(rows.path):
        assert {"dsc", "dsc_best_epoch", "iou", "hd95", "dsc_per_class", "void", "curve", "data_sha256"} <= row.keys()
        assert len(row["dsc_cases"]) == len(data.cases["test"])
        if row["method"] == "lsp":
            assert row["dsc_clean_twin"] is not None
            assert row["dsc_noise_twin"] is not None
            assert row["protected_cases"] == (4 if row["share"] == 1.0 else 2)
    written = write_report(rows.path, tmp_path)
    assert {"audit.md", "audit.html", "overview.png", "bars.png", "frontier.png"} <= {path.name for path in tmp_path.iterdir()}
    assert [(line["method"], line["share"]) for line in written.summary] == [
        ("none", 1.0),
        ("noise", 1.0),
        ("noise", 0.5),
        ("lsp", 1.0),
        ("lsp", 0.5),
    ]
    assert "Content-Security-Policy" in (tmp_path / "audit.html").read_text()
    with pytest.raises(MedProtectError, match="another fit_steps"):
        next(run_experiment(replace(plan, releases=replace(releases, fit_steps=3), seeds=[1]), RowFile(rows.path)))
    other = replace(data, cases={**data.cases, "test": data.cases["test"][:3]})
    with pytest.raises(MedProtectError, match="another data_sha256"):
        next(run_experiment(replace(plan, releases=replace(releases, data=other), seeds=[1]), RowFile(rows.path)))


def test_a_profile_exchanged_under_its_name_is_not_taken_for_the_old_one(tmp_path: Path) -> None:
    releases = Releases(nodules(), tmp_path / "work", BOUND, profiles={"site": tmp_path / "site.medprotect"})
    plan = Experiment(releases, ["profile:site"], ["unet"], ["none"], [0], steps=1)
    for method in ("lsp", "weave"):
        fitted = releases.fitted(method)
        fitted.save(tmp_path / "site.medprotect")
        if method == "lsp":
            assert len(list(run_experiment(plan, RowFile(tmp_path / "rows.jsonl")))) == 3
            assert list(run_experiment(plan, RowFile(tmp_path / "rows.jsonl"))) == []
    with pytest.raises(MedProtectError, match=r"profile:site.* was made with another release_sha256"):
        next(run_experiment(replace(plan, seeds=[0, 1]), RowFile(tmp_path / "rows.jsonl")))


def test_a_second_fit_of_a_method_is_not_taken_for_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    releases = Releases(nodules(), tmp_path / "work", BOUND)
    plan = Experiment(releases, ["weave"], ["unet"], ["none"], [0], steps=1)
    rows = tmp_path / "rows.jsonl"
    assert len(list(run_experiment(plan, RowFile(rows)))) == 3
    kept = rows.read_bytes()
    other = replace(releases, work=tmp_path / "other", fit_seed=1).fitted("weave")
    monkeypatch.setattr(Releases, "fitted", lambda *_: other)
    with pytest.raises(MedProtectError, match=r"weave.* was made with another release_sha256"):
        list(run_experiment(replace(plan, seeds=[0, 1]), RowFile(rows)))
    assert len(list(read_rows(rows))) == 5, "clean data and noise of seed 1"
    mixed = {**json.loads(kept.splitlines()[2]), "key": "of another fit", "seed": 2, "release_sha256": releases.of("weave").sha256}
    rows.write_bytes(kept + json.dumps(mixed).encode() + b"\n")
    assert len(list(run_experiment(replace(plan, seeds=[0, 1]), RowFile(rows)))) == 3, "a file that mixes two fits goes on with either"


def test_other_public_data_are_not_taken_for_the_old_ones(tmp_path: Path) -> None:
    public = load_dataset(SAMPLES / "hippocampus", limit=3)
    releases = Releases(nodules(), tmp_path / "work", BOUND)
    plan = Experiment(releases, ["none"], ["unet"], ["warm_start"], [0], steps=1, public=public)
    (row,) = run_experiment(plan, RowFile(tmp_path / "rows.jsonl"))
    assert row["public_sha256"] == public.sha256
    other = replace(public, cases={**public.cases, TRAIN: public.cases[TRAIN][:2]})
    with pytest.raises(MedProtectError, match="another public_sha256"):
        next(run_experiment(replace(plan, public=other), RowFile(tmp_path / "rows.jsonl")))


def test_what_cannot_be_trained_is_refused_before_anything_is(tmp_path: Path) -> None:
    data = nodules()
    plan = Experiment(Releases(data, tmp_path / "work", BOUND), ["noise"], ["unet"], ["none"], [0], steps=1)
    for share in (0.02, 0.99):
        with pytest.raises(UsageError, match=f"share {share}: that protects . of 4 labelled training cases"):
            replace(plan, shares=[share]).check()
    bare = [replace(case, target=np.zeros_like(case.target)) for case in data.cases["val"]]
    unlabelled = replace(data, cases={**data.cases, "val": bare})
    with pytest.raises(MedProtectError, match="none of the 3 cases in 'val' has a label"):
        replace(plan, releases=replace(plan.releases, data=unlabelled)).check()
    with pytest.raises(UsageError, match="do not fit"):
        replace(plan, regimes=["warm_start"], public=pictures()).check()
    classes = replace(plan, releases=replace(plan.releases, data=pictures()), victims=["resnet18"])
    with pytest.raises(UsageError, match="subtract_public"):
        replace(classes, regimes=["subtract_public"]).check()


def test_public_data_that_hold_an_audited_image_are_refused(tmp_path: Path) -> None:
    data, public = nodules(), load_dataset(SAMPLES / "hippocampus", limit=3)
    plan = Experiment(Releases(data, tmp_path / "work", BOUND), ["none"], ["unet"], ["warm_start"], [0], steps=1, public=public)
    plan.check()
    with pytest.raises(UsageError, match=r"which an attacker does not have\. Give another data set with --public"):
        replace(plan, public=data).check()
    tested = data.cases["test"][0]
    copy = shutil.copyfile(tested.files.image, tmp_path / "renamed.nii.gz")
    same = replace(tested, files=replace(tested.files, name="renamed", image=copy))
    mixed = replace(public, cases={**public.cases, TRAIN: [*public.cases[TRAIN], same]})
    with pytest.raises(UsageError, match=f"renamed.nii.gz: the public case 'renamed' is the case '{tested.name}'"):
        replace(plan, public=mixed).check()


def test_the_same_run_gives_the_same_row(tmp_path: Path) -> None:
    kept = []
    for name in ("a", "b"):
        plan = Experiment(Releases(nodules(), tmp_path / name, BOUND), ["noise"], ["unet"], ["augmented"], [3], steps=2)
        kept.append([{**row, "seconds": 0} for row in run_experiment(plan, RowFile(tmp_path / name / "rows.jsonl"))])
    assert json.dumps(kept[0]) == json.dumps(kept[1])


def manifest(folder: Path, lines: list[str]) -> Path:
    path = folder / "cases.csv"
    images, labels = SAMPLES / "lidc_nodules" / "imagesTr", SAMPLES / "lidc_nodules" / "labelsTr"
    names = sorted(p.name for p in images.iterdir())
    rows = [f"c{n},{images / name},{labels / name},{split}" for n, (name, split) in enumerate(zip(names, lines, strict=False))]
    path.write_text("\n".join(["case,image,labels,split", *rows]) + "\n")
    return path


def test_lists_are_those_of_the_manifest_or_of_a_hash(tmp_path: Path) -> None:
    data = load_dataset(manifest(tmp_path, ["train", "train", "val", "val", "test", "test", "profile"]))
    assert {split: [c.name for c in cases] for split, cases in data.cases.items()} == {
        "train": ["c0", "c1"],
        "val": ["c2", "c3"],
        "test": ["c4", "c5"],
    }
    hashed = load_dataset(SAMPLES / "lidc_nodules")
    names = [c.name for cases in hashed.cases.values() for c in cases]
    assert [len(cases) for cases in hashed.cases.values()] == [18, 3, 9]
    assert len(set(names)) == 30
    with pytest.raises(MedProtectError, match="only 1 cases in 'val'"):
        load_dataset(manifest(tmp_path, ["train", "train", "val", "test", "test"]))
    with pytest.raises(MedProtectError, match=r"'medmnist' is for 2D"):
        load_dataset(SAMPLES / "lidc_nodules", "medmnist")


def test_data_of_other_lists_have_another_name(tmp_path: Path) -> None:
    first, second = ["train", "train", "val", "val", "test", "test"], ["train", "val", "train", "val", "test", "test"]
    one, again, two = (load_dataset(manifest(tmp_path, lists)).sha256 for lists in (first, first, second))
    assert one == again != two
