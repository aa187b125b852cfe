"""The path: window, regions, method, bound, quantise, measure, for one volume in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path

from MedProtectLib.change import apply_counts, quantised_change, stored_components
from MedProtectLib.checks import (
    check_bound,
    check_case,
    check_levels,
    check_measurable,
    check_regions,
    check_seed,
    check_target,
    check_task,
    check_window_fits,
    public_warning,
)
from MedProtectLib.errors import MedProtectError, UsageError, memory_told
from MedProtectLib.io.hashing import sha256_voxels
from MedProtectLib.io.resample import on_grid_of
from MedProtectLib.levels import Levels, find_levels, find_padding, regions_of_parts
from MedProtectLib.methods import Method, method_class
from MedProtectLib.plan import Plan, channel_cases
from MedProtectLib.profile import Profile, shipped_profile
from MedProtectLib.progress import Report, ignore
from MedProtectLib.protection import Protection
from MedProtectLib.regions import find_regions
from MedProtectLib.volume import LabelMap, Volume, check_finite
from MedProtectLib.window import check_modality, check_window, choose_windows

DEFAULT_BOUND = 4 / 255


class Protector:
    """Protects volumes with one fitted method.

    Args:
        method: name of a method; its shipped public profile for the image's dimension is used, or where there is none a
            profile that is fitted on the case itself in a bounded number of steps.
        profile: a fitted profile of one's own, instead.
        bound: largest change in window units; the profile's when None.
        target_psnr: whole-image PSNR in dB to come down to where the bound allows more than that, None for the full bound; it
            holds for every channel on its own where channels are images with a window each.
        modality: 'CT', 'MR', 'US' or 'XR', which picks the window rule; guessed from the data when None.
        window: (low, high) in the image's own units, instead of the rule; modality and window hold for all channels.
        seed: breaks ties between equal wishes; the profile's when None. Also the seed of a fit on the case.
        scope: 'regions' or 'image', where a method that is fitted on the case may act; its first scope when None.
        parameters: numbers of a method that is fitted on the case.

    Raises:
        UsageError: unknown method or modality, bound not in (0, 32/255], target PSNR that is no positive number, a window that is
            none, a seed below 0 or from 2^63 on, a scope or parameter that the method does not have or that the profile decides.
    """

    def __init__(
        self,
        method: str = "umed",
        profile: Profile | None = None,
        bound: float | None = None,
        target_psnr: float | None = None,
        modality: str | None = None,
        window: Sequence[float] | None = None,
        seed: int | None = None,
        scope: str | None = None,
        parameters: Mapping[str, float] | None = None,
    ) -> None:
        chosen = method_class(method if profile is None else profile.method)
        if profile is not None and (scope is not None or parameters):
            raise UsageError("the profile decides the scope and the parameters of its method. Leave out --scope and --set.")
        chosen.check_support(chosen.dimensions[0], chosen.tasks[0], scope or chosen.scopes[0])
        chosen.checked_parameters(parameters or {})
        check_bound(bound)
        check_target(target_psnr)
        check_modality(modality)
        self.method_name, self.given_profile = method if profile is None else profile.method, profile
        self.bound, self.target_psnr, self.modality = bound, target_psnr, modality
        self.seed = None if seed is None else check_seed(seed)
        self.window = None if window is None else check_window(window)
        self.scope, self.parameters = scope, dict(parameters or {})
        self._fitted: dict[int, tuple[Profile, Method]] = {}
        self._fitted_on_case: tuple[tuple[object, ...], Profile] | None = None

    @classmethod
    def from_profile(cls, path: str | Path, method: str | None = None, **options: object) -> Protector:
        """A protector with a profile from a file; options as for the constructor.

        Raises:
            UsageError: as for the constructor, or the profile is of another ``method``. MedProtectError: it cannot be used.
        """
        profile = Profile.load(path)
        if method not in (None, profile.method):
            raise UsageError(f"--method {method}: the profile {path} is of method {profile.method}. Leave one of them out.")
        return cls(profile=profile, **options)  # type: ignore[arg-type]

    def fitted(self, dimension: int) -> tuple[Profile, Method]:
        """The profile and the method that a volume of 2 or 3 dimensions is protected with.

        Raises:
            MedProtectError: there is none for this dimension, or the profile does not fit its method.
        """
        if dimension not in self._fitted:
            profile = self.given_profile or self._shipped(dimension)
            if profile.dimension > dimension:
                raise MedProtectError("the profile was fitted on volumes and cannot protect a single picture. Fit one on pictures.")
            self._fitted[dimension] = profile, restored(profile)
        return self._fitted[dimension]

    def fitted_for(self, volume: Volume, labels: LabelMap, report: Report = ignore) -> tuple[Profile, Method, tuple[str, ...]]:
        """The profile and the method for one volume, fitted on it where there is no other, and notices about that.

        Raises:
            MedProtectError: as for :meth:`fitted`; the method cannot be fitted on this case alone.
        """
        dimension = volume.geometry.dimension
        if self.given_profile is not None or shipped_profile(self.method_name, dimension) is not None:
            return *self.fitted(dimension), ()
        from MedProtectLib.fitting.fit import fit_on_case
        from MedProtectLib.fitting.training import CASE_STEPS, FitOptions

        case = identity_of(volume, labels)
        if self._fitted_on_case is None or self._fitted_on_case[0] != case:
            options = FitOptions(
                method=self.method_name,
                dimension=dimension,
                steps=CASE_STEPS,
                seed=self.seed or 0,
                modality=self.modality,
                window=self.window,
                scope=self.scope,
                parameters=self.parameters,
                public=self.seed is None and not method_class(self.method_name).learns,
                bound=DEFAULT_BOUND if self.bound is None else self.bound,
            )
            self._fitted_on_case = case, fit_on_case(volume, labels, options, report)
        profile = self._fitted_on_case[1]
        how = f"fitted on this case alone in {CASE_STEPS} steps" if method_class(self.method_name).learns else "drawn for this case alone"
        notice = f"no profile was given: '{self.method_name}' was {how}. For a dataset use 'medprotect fit' and --profile."
        return profile, restored(profile), (notice,)

    def _shipped(self, dimension: int) -> Profile:
        path = shipped_profile(self.method_name, dimension)
        if path is None:
            raise MedProtectError(
                f"no profile comes with method '{self.method_name}' in {dimension}D. Fit one with 'medprotect fit' and use --profile."
            )
        return Profile.load(path)

    def plan(self, volume: Volume, labels: LabelMap, report: Report = ignore) -> Plan:
        """What is decided before any perturbation is made: the steps window and regions, and what can be stored.

        Raises:
            MedProtectError: as for :meth:`protect`.
        """
        check_case(volume, labels)
        check_finite(volume.array, volume.name)
        check_measurable(volume)
        profile, method, notices = self.fitted_for(volume, labels, report)
        drawn = bool(notices)
        bound = self.bound if self.bound is not None else profile.bound
        labels, resampled = on_grid_of(volume.geometry, labels)
        notices += resampled
        check_task(method, labels)
        classes = labels.classes(method.purpose.classes or None, method.purpose.values)
        regions = find_regions(classes > 0, method.half_width, method.planar, find_padding(volume), method.whole_image)
        windows = choose_windows(volume, regions, self.modality or profile.modality, self.window or profile.window)
        part_regions = regions_of_parts(volume, regions)
        levels: tuple[Levels, ...] = ()
        warnings: tuple[str, ...] = ()
        for part, window, own in zip(volume.parts(), windows, part_regions, strict=True):
            check_regions(own, part)
            levels += (find_levels(part, find_padding(part), bound * window.width / abs(part.slope), own),)
            warnings += check_window_fits(bound, window, levels[-1], part, own) + check_levels(bound, window, levels[-1], part)
            if window.guessed:
                which = f"{part.name}: " if volume.channel_types else ""
                found = f"intensity window {window.low:g} to {window.high:g} ({window.rule})"
                notices += (f"{which}{found}; --modality or --window overrides.",)
        return Plan(
            profile=profile,
            method=method,
            bound=bound,
            target_psnr=self.target_psnr,
            seed=profile.seed if self.seed is None else self.seed,
            classes=classes,
            regions=regions,
            part_regions=part_regions,
            windows=windows,
            levels=levels,
            notices=notices,
            warnings=warnings + public_warning(profile, drawn),
        )

    def protect(self, volume: Volume, labels: LabelMap, report: Report = ignore) -> Protection:
        """Protect one volume.

        Args:
            volume: the image; it is not modified.
            labels: its segments, resampled to the image's grid where they lie on another.

        Raises:
            MedProtectError: nothing is labelled, labels elsewhere in space, constant image, voxels that are no finite numbers or of a
                type that no image file has, bound below one stored level. UsageError: no Volume or no LabelMap.
        """
        plan = self.plan(volume, labels, report)
        with memory_told():
            drawn = plan.method.perturb_channels(channel_cases(volume, plan), plan.bound, report)
        counts = quantised_change(drawn, volume, plan)
        return Protection(
            volume=apply_counts(volume, plan.regions, counts, plan.levels),
            original=volume,
            windows=plan.windows,
            regions=plan.regions,
            counts=counts,
            steps=tuple(levels.step for levels in plan.levels),
            components=stored_components(drawn, counts, volume, plan),
            bound=plan.bound,
            target_psnr=plan.target_psnr,
            seed=plan.seed,
            profile=plan.profile,
            notices=plan.notices,
            warnings=plan.warnings,
        )


def identity_of(volume: Volume, labels: LabelMap) -> tuple[object, ...]:
    """Everything of a case that a fit on it may depend on."""
    arrays = [(sha256_voxels(array), array.dtype, array.shape) for array in (volume.array, *labels.layers)]
    said = [
        getattr(of, each.name) for of in (volume, labels) for each in fields(of) if each.name not in ("array", "layers", "name", "source")
    ]
    return (*arrays, *said)


def restored(profile: Profile) -> Method:
    """The method that a profile holds.

    Raises:
        MedProtectError: its settings or tensors do not fit the method.
    """
    try:
        return method_class(profile.method).restore(profile.settings, profile.tensors)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError) as error:
        raise MedProtectError(f"the profile's tensors do not fit its method '{profile.method}'. Fit it again.") from error
