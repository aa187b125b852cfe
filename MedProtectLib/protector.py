"""The path: window, regions, method, bound, quantise, measure, for one volume in memory."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import numpy as np

from MedProtectLib.errors import MedProtectError, UsageError, memory_told
from MedProtectLib.levels import Levels, find_levels, find_padding, regions_of_parts
from MedProtectLib.methods import Case, Component, Method, method_class
from MedProtectLib.methods.base import CLASSIFICATION, CONTEXT
from MedProtectLib.profile import LARGEST_BOUND, Profile, shipped_profile
from MedProtectLib.progress import Report, ignore
from MedProtectLib.quantise import energy_budget, on_binary_grid, quantise
from MedProtectLib.regions import Box, Regions, find_regions, grown
from MedProtectLib.statistics import POOLED, Statistics, measure
from MedProtectLib.volume import Geometry, LabelMap, Volume, check_finite
from MedProtectLib.window import IntensityWindow, check_modality, check_window, choose_windows

DEFAULT_BOUND = 4 / 255
LEVELS_ADVISED = 2
LARGEST_SEED = 2**63


class Components(Mapping[str, np.ndarray]):
    """The stored change, split by component and laid on the image's grid when asked for.

    Every value is a float32 array (k, j, i) or (k, j, i, c) in window units; their sum is the whole change.
    """

    def __init__(self, change: np.ndarray, masks: Mapping[str, np.ndarray], regions: Regions, shape: tuple[int, ...]) -> None:
        self._change, self._masks, self._regions, self._shape = change, masks, regions, shape

    def __getitem__(self, name: str) -> np.ndarray:
        mask = self._masks[name].reshape(self._masks[name].shape + (1,) * (self._change.ndim - 3))
        return self._regions.on_grid(self._change * mask, self._shape)

    def where(self, name: str) -> np.ndarray:
        """Bool (k, j, i): where the component may act."""
        return self._regions.on_grid(self._masks[name], self._shape)

    def of_channel(self, index: int) -> Components:
        """The same of one channel."""
        return Components(self._change[..., index], self._masks, self._regions, self._shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._masks)

    def __len__(self) -> int:
        return len(self._masks)


@dataclass(frozen=True)
class Protection:
    """A protected volume with everything that was decided on the way.

    ``windows`` and ``steps`` have one entry for every part of the image (:meth:`~MedProtectLib.volume.Volume.parts`). ``counts``
    holds the change of every voxel of the regions' box in whole levels of so many stored units, (k, j, i) or (k, j, i, c); int32,
    or int64 where a change needs it. ``notices`` are one-line remarks for the user (guesses), ``warnings`` things to act on.
    """

    volume: Volume
    original: Volume
    windows: tuple[IntensityWindow, ...]
    regions: Regions
    counts: np.ndarray = field(repr=False)
    steps: tuple[float, ...]
    components: Components = field(repr=False)
    bound: float
    target_psnr: float | None
    profile: Profile = field(repr=False)
    notices: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def statistics(self) -> Statistics:
        """Measured on the volume in memory; the record of a written file holds the same measured on the file."""
        return measure(self.original, self.volume, self.regions, self.windows, self.bound)

    @property
    def window(self) -> IntensityWindow:
        """The window of an image of one part; of several, whose numbers are pooled in window units, 0 to 1."""
        return self.windows[0] if len(self.windows) == 1 else POOLED

    @property
    def step(self) -> float:
        """The level step of an image of one part."""
        (step,) = self.steps
        return step

    def parts(self) -> tuple[Protection, ...]:
        """The protection of every part of the image on its own."""
        if len(self.windows) == 1:
            return (self,)
        volumes = zip(self.volume.parts(), self.original.parts(), strict=True)
        return tuple(
            replace(
                self,
                volume=after,
                original=before,
                windows=(self.windows[n],),
                counts=self.counts[..., n],
                steps=(self.steps[n],),
                components=self.components.of_channel(n),
            )
            for n, (after, before) in enumerate(volumes)
        )


@dataclass(frozen=True)
class Plan:
    """What is decided about one volume before it is perturbed.

    ``classes``: label classes (k, j, i) on the volume's grid. ``part_regions``: where each of the image's parts may change.
    """

    profile: Profile = field(repr=False)
    method: Method = field(repr=False)
    bound: float
    classes: np.ndarray = field(repr=False)
    regions: Regions = field(repr=False)
    part_regions: tuple[Regions, ...] = field(repr=False)
    windows: tuple[IntensityWindow, ...]
    levels: tuple[Levels, ...]
    notices: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def window(self) -> IntensityWindow:
        """As for a :class:`Protection`."""
        return self.windows[0] if len(self.windows) == 1 else POOLED


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
        if target_psnr is not None and not (0 < target_psnr < float("inf")):
            raise UsageError(f"target PSNR {target_psnr:g}: give a positive number of dB, such as 50.1.")
        check_modality(modality)
        self.method_name, self.given_profile = method if profile is None else profile.method, profile
        self.bound, self.target_psnr, self.modality = bound, target_psnr, modality
        self.seed = None if seed is None else check_seed(seed)
        self.window = None if window is None else check_window(window)
        self.scope, self.parameters = scope, dict(parameters or {})
        self._fitted: dict[int, tuple[Profile, Method]] = {}
        self._fitted_on_case: tuple[tuple[object, ...], Profile] | None = None

    @classmethod
    def from_profile(cls, path: str | Path, **options: object) -> Protector:
        """A protector with a profile from a file; options as for the constructor."""
        return cls(profile=Profile.load(path), **options)  # type: ignore[arg-type]

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

    def seed_for(self, profile: Profile) -> int:
        """The seed that is used with a profile."""
        return profile.seed if self.seed is None else self.seed

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
        check_finite(volume.array, volume.name)
        profile, method, notices = self.fitted_for(volume, labels, report)
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
            warnings += check_levels(bound, window, levels[-1], part)
            if window.guessed:
                which = f"{part.name}: " if volume.channel_types else ""
                found = f"intensity window {window.low:g} to {window.high:g} ({window.rule})"
                notices += (f"{which}{found}; --modality or --window overrides.",)
        return Plan(profile, method, bound, classes, regions, part_regions, windows, levels, notices, warnings + public_warning(profile))

    def protect(self, volume: Volume, labels: LabelMap, report: Report = ignore) -> Protection:
        """Protect one volume.

        Args:
            volume: the image; it is not modified.
            labels: its segments, resampled to the image's grid where they lie on another.

        Raises:
            MedProtectError: nothing is labelled, labels elsewhere in space, constant image, voxels that are no finite numbers, bound
                below one stored level.
        """
        plan = self.plan(volume, labels, report)
        with memory_told():
            drawn = plan.method.perturb_channels(channel_cases(volume, plan), plan.bound, report)
        counts = self.quantise(drawn, volume, plan)
        return Protection(
            volume=apply_counts(volume, plan.regions, counts, plan.levels),
            original=volume,
            windows=plan.windows,
            regions=plan.regions,
            counts=counts,
            steps=tuple(levels.step for levels in plan.levels),
            components=stored_components(drawn, counts, volume, plan),
            bound=plan.bound,
            target_psnr=self.target_psnr,
            profile=plan.profile,
            notices=plan.notices,
            warnings=plan.warnings,
        )

    def quantise(self, drawn: Sequence[Mapping[str, Component]], volume: Volume, plan: Plan, share: float = 1.0) -> np.ndarray:
        """Whole-level changes on the regions' box, for all channels of a part together, so that a PSNR target holds for every part.

        ``share`` is the part of the target's energy that may be spent here, for a volume that is a slab of a larger one.
        """
        left, counts = list(drawn), []
        for part, window, levels, own in zip(volume.parts(), plan.windows, plan.levels, plan.part_regions, strict=True):
            mine, left = left[: len(part.intensity_channels)], left[len(part.intensity_channels) :]
            counts.append(self._quantise_part(mine, part, window, levels, own, plan, share))
        return np.stack(counts, axis=-1) if volume.channel_types else counts[0]

    def _quantise_part(
        self,
        drawn: Sequence[Mapping[str, Component]],
        volume: Volume,
        window: IntensityWindow,
        levels: Levels,
        regions: Regions,
        plan: Plan,
        share: float,
    ) -> np.ndarray:
        touched, box = regions.touched, regions.box
        if not touched.any():
            return np.zeros(touched.shape, np.int32)
        width_in_levels = window.width / (levels.step * abs(volume.slope))
        stored = [volume.channel(c)[box][touched] for c in volume.intensity_channels]
        delta = on_binary_grid(np.stack([np.sum([p.values for p in each.values()], axis=0)[touched] for each in drawn], axis=-1))
        limit = np.stack([np.sum([p.limit for p in each.values()], axis=0)[touched] for each in drawn], axis=-1).astype(np.float64)
        upwards = delta * np.sign(volume.slope) > 0
        room = np.stack([levels.room(s, upwards[:, n]) for n, s in enumerate(stored)], axis=-1)
        ceiling = np.minimum(np.floor(limit * width_in_levels * (1 + 1e-6)), room)
        most = plan.bound * window.width / abs(volume.slope)
        for n, s in enumerate(stored):
            ceiling[:, n] = levels.within(most, s, ceiling[:, n], upwards[:, n])
        values = int(np.prod(volume.geometry.shape)) * len(stored)
        budget = None if self.target_psnr is None else share * energy_budget(self.target_psnr, values, width_in_levels)
        counts = quantise((delta * width_in_levels).ravel(), ceiling.ravel(), self.seed_for(plan.profile), budget).reshape(delta.shape)
        on_box = np.zeros((*touched.shape, len(stored)), counts.dtype)
        on_box[touched] = counts
        return on_box[..., 0] if volume.array.ndim == 3 else on_box


def identity_of(volume: Volume, labels: LabelMap) -> tuple[object, ...]:
    """Everything of a case that a fit on it may depend on."""
    from MedProtectLib.io import sha256_voxels

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


def check_task(method: Method, labels: LabelMap) -> None:
    """Raises MedProtectError where a method for segmentation is given the class of an image, or the other way round."""
    if labels.of_whole_image != (method.purpose.task == CLASSIFICATION):
        given, use = ("a class", "a label map (--labels)") if labels.of_whole_image else ("a label map", "the image's class (--class)")
        raise MedProtectError(f"method '{method.name}' was fitted for {method.purpose.task} and was given {given}. Give {use}.")


def region_of(components: Sequence[Component], regions: Regions) -> np.ndarray:
    """Bool (k, j, i) on the regions' box: interior, contour band and background as far as a component acts in them in some channel."""
    region = np.zeros_like(regions.interior)
    for part in (regions.interior, regions.contour, regions.background):
        if part is not None and any(component.limit[part].any() for component in components):
            region |= part
    return region


def on_grid_of(geometry: Geometry, labels: LabelMap) -> tuple[LabelMap, tuple[str, ...]]:
    """The labels on the image's grid, and a notice when they had to be resampled."""
    if labels.geometry.same_grid(geometry):
        return labels, ()
    from MedProtectLib.io.resample import is_one_grid, resample_labels

    notice = f"{labels.name}: the labels lie on another grid than the image and were resampled to it (nearest)."
    return resample_labels(labels, geometry), () if is_one_grid(labels.geometry, geometry) else (notice,)


def channel_case(
    volume: Volume, channel: int, classes: np.ndarray, regions: Regions, window: IntensityWindow, context: Box | None = None
) -> Case:
    """What a method sees of one channel, in window units: the regions' box with its context, or the part ``context`` alone."""
    context = context or grown(regions.box, (CONTEXT, CONTEXT, CONTEXT), volume.geometry.shape)
    image = window.normalise(volume.in_units(volume.channel(channel)[context]))
    return Case(image, classes[context], regions, context)


def channel_cases(volume: Volume, plan: Plan, context: Box | None = None) -> list[Case]:
    """What a method sees of an image: :func:`channel_case` of every channel, each in the window of its part."""
    return [
        channel_case(part, c, plan.classes, plan.regions, window, context)
        for part, window in zip(volume.parts(), plan.windows, strict=True)
        for c in part.intensity_channels
    ]


def stored_components(drawn: Sequence[Mapping[str, Component]], counts: np.ndarray, volume: Volume, plan: Plan) -> Components:
    """The change that is stored, in window units, split by the components that were drawn."""
    regions, parts = plan.regions, zip(volume.parts(), plan.windows, plan.levels, strict=True)
    of_one_level = np.array([levels.step * abs(part.slope) / window.width for part, window, levels in parts])
    masks = {name: region_of([each[name] for each in drawn], regions) for name in plan.method.component_names}
    return Components((counts * of_one_level).astype(np.float32), masks, regions, volume.geometry.shape)


def apply_counts(volume: Volume, regions: Regions, counts: np.ndarray, levels: Sequence[Levels]) -> Volume:
    """A copy of the volume with whole-level changes; voxels that do not change keep their bits."""
    changes = [counts[..., n] for n in range(len(levels))] if volume.channel_types else [counts]
    parts = zip(volume.parts(), changes, levels, strict=True)
    return volume.with_parts([_apply_to_part(part, regions, change, ladder) for part, change, ladder in parts])


def _apply_to_part(volume: Volume, regions: Regions, counts: np.ndarray, levels: Levels) -> Volume:
    array = volume.array.copy()
    for n, c in enumerate(volume.intensity_channels):
        part = (array if array.ndim == 3 else array[..., c])[regions.box]
        change = counts if counts.ndim == 3 else counts[..., n]
        moved = change != 0
        part[moved] = levels.shift(part[moved], change[moved] * (1 if volume.slope > 0 else -1))
    return volume.with_array(array)


def check_bound(bound: float | None) -> None:
    """Raises UsageError unless the bound is None or in (0, 32/255]."""
    if bound is not None and not 0 < bound <= LARGEST_BOUND * (1 + 1e-9):
        raise UsageError(f"bound {bound:g}: give a fraction of the window above 0 and up to 32/255, such as 4/255.")


def check_seed(seed: int) -> int:
    """The seed as Python's own number.

    Raises:
        UsageError: it is no whole number from 0 to 2^63 - 1.
    """
    if not (isinstance(seed, int | np.integer) and 0 <= seed < LARGEST_SEED):
        raise UsageError(f"seed {seed!r}: give a whole number from 0 to 2^63 - 1.")
    return int(seed)


def check_levels(bound: float, window: IntensityWindow, levels: Levels, volume: Volume) -> tuple[str, ...]:
    """A warning when the bound spans fewer than two stored levels.

    Raises:
        MedProtectError: it spans less than one, so that nothing could be written.
    """
    spanned = bound * window.width / (levels.step * abs(volume.slope))
    needed = levels.step * abs(volume.slope) / window.width * 255
    if spanned < 1:
        raise MedProtectError(
            f"{volume.name}: the bound of {bound * 255:.3g}/255 is {spanned:.2g} stored levels, so nothing could be written. "
            f"Allow at least --bound {needed:.2g}/255, or keep the image with more levels."
        )
    if spanned < LEVELS_ADVISED:
        return (
            f"the bound of {bound * 255:.3g}/255 is only {spanned:.2g} stored levels: the pattern is coarse and easier to undo. "
            f"Allow {LEVELS_ADVISED * needed:.2g}/255, or protect a version of the image with more levels.",
        )
    return ()


def check_regions(regions: Regions, volume: Volume) -> None:
    """Raises MedProtectError where a part of an image has nothing that may change."""
    if not regions.touched.any():
        raise MedProtectError(f"{volume.name}: every labelled voxel is padding in this channel. Protect the other channels without it.")


def public_warning(profile: Profile) -> tuple[str, ...]:
    """What to know about a profile that anybody can have."""
    if not profile.public:
        return ()
    return ("a public profile was used: anybody can have it and subtract what it adds. For a release fit your own with 'medprotect fit'.",)


def engine() -> dict[str, str]:
    """What the bytes of a result may depend on besides the input, the profile and the options."""
    import platform

    import torch

    return {
        "torch": torch.__version__,
        "numpy": np.__version__,
        "processor": platform.machine(),
        "processor_features": torch.backends.cpu.get_cpu_capability(),
        "precision": "float32",
        "python": platform.python_version(),
        "system": os.name,
    }
