"""One slab of a case as protecting the whole would make it: what is decided, is decided once for the whole volume."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from MedProtectLib.change import apply_counts, quantised_change, stored_components
from MedProtectLib.errors import MedProtectError
from MedProtectLib.methods.base import CONTEXT, Component, Halo
from MedProtectLib.plan import Plan, channel_cases
from MedProtectLib.protection import Components
from MedProtectLib.protector import Protector
from MedProtectLib.regions import Box, Regions, grown, within
from MedProtectLib.statistics import Statistics, measure
from MedProtectLib.volume import Geometry, LabelMap, Volume


@dataclass(frozen=True)
class SlabPreview:
    """Slices ``slices`` of a case before and after, as volumes of their own on their place in space.

    ``components`` as in a :class:`~MedProtectLib.protection.Protection`: float32 of the slab's shape, in window units.
    ``statistics`` are of the slab alone. Both are None where nothing of it changes.
    """

    slices: slice
    original: Volume = field(repr=False)
    protected: Volume = field(repr=False)
    components: Components | None = field(repr=False)
    statistics: Statistics | None


class Preview:
    """A case that is looked at slab by slab before it is protected as a whole.

    Without a PSNR target a slab has the pattern of the finished volume, up to single levels at voxels whose wish is below
    half a level. With a target the amplitude is estimated: the slab gets its share of the energy by its part of the regions.

    Raises:
        MedProtectError: as for :meth:`Protector.protect`.
    """

    def __init__(self, protector: Protector, volume: Volume, labels: LabelMap) -> None:
        self.volume = volume
        self.plan: Plan = protector.plan(volume, labels)
        self._touched = self.plan.regions.touched.sum(axis=(1, 2))
        self._whole: list[dict[str, Component]] | None = None

    @property
    def slices(self) -> slice:
        """The slices k that hold something to protect."""
        return self.plan.regions.box[0]

    def slab(self, centre: int, thickness: int = 1) -> SlabPreview:
        """``thickness`` slices around slice ``centre``, cut at the volume's border.

        Raises:
            MedProtectError: no such slice; the bound or the PSNR target leaves nothing to change in it.
        """
        count = self.volume.geometry.shape[0]
        if not 0 <= centre < count:
            raise MedProtectError(f"{self.volume.name}: there is no slice {centre}, the slices go from 0 to {count - 1}.")
        first = max(0, centre - (thickness - 1) // 2)
        slices = slice(first, min(count, first + thickness))
        original = slab_of(self.volume, slices)
        box = self.plan.regions.box[0]
        inside = slice(max(slices.start, box.start), min(slices.stop, box.stop))
        touched = int(self._touched[max(0, inside.start - box.start) : max(0, inside.stop - box.start)].sum())
        if not touched:
            return SlabPreview(slices, original, original, None, None)
        return self._protected_slab(slices, inside, original, touched)

    def _protected_slab(self, slices: slice, inside: slice, original: Volume, touched: int) -> SlabPreview:
        plan = self.plan
        in_volume = regions_of(plan.regions, inside)
        in_slab, *of_parts = (_of_slab(regions_of(each, inside), slices) for each in (plan.regions, *plan.part_regions))
        parts = self._parts(in_volume)
        if not any(component.values.any() for part in parts for component in part.values()):
            return SlabPreview(slices, original, original, None, None)
        slab_plan = replace(plan, regions=in_slab, part_regions=tuple(of_parts))
        share = (self.volume.geometry.shape[0] / original.geometry.shape[0]) * (touched / int(self._touched.sum()))
        counts = quantised_change(parts, original, slab_plan, share)
        protected = apply_counts(original, in_slab, counts, plan.levels)
        components = stored_components(parts, counts, original, slab_plan)
        return SlabPreview(slices, original, protected, components, measure(original, protected, in_slab, plan.windows, plan.bound))

    def _parts(self, regions: Regions) -> list[dict[str, Component]]:
        """The components of every channel on some slices of the regions."""
        halo = self.plan.method.halo
        if halo is not None:
            return self._perturb(regions, self._context(regions.box, halo))
        if self._whole is None:
            self._whole = self._perturb(self.plan.regions, None)
        k = within(regions.box, self.plan.regions.box)[0]
        return [{name: Component(part.values[k], part.limit[k]) for name, part in parts.items()} for parts in self._whole]

    def _perturb(self, regions: Regions, context: Box | None) -> list[dict[str, Component]]:
        cases = channel_cases(self.volume, replace(self.plan, regions=regions), context)
        return self.plan.method.perturb_channels(cases, self.plan.bound)

    def _context(self, box: Box, halo: Halo) -> Box:
        """The part of the volume that a method with this halo must see for a box of slices."""
        full = grown(self.plan.regions.box, (CONTEXT, CONTEXT, CONTEXT), self.volume.geometry.shape)
        first, last, grid = box[0].start - full[0].start, box[0].stop - full[0].start, halo.alignment
        start = full[0].start + max(0, first // grid * grid - halo.slices)
        stop = min(full[0].stop, full[0].start - (-last) // grid * grid + halo.slices)
        return slice(start, stop), full[1], full[2]


def slab_of(volume: Volume, slices: slice) -> Volume:
    """Some slices k of a volume as a volume of its own; its array is a view."""
    geometry = volume.geometry
    origin = geometry.index_to_physical() @ (0, 0, slices.start, 1)
    x, y, z = (float(v) for v in origin[:3])
    size = (geometry.size[0], geometry.size[1], slices.stop - slices.start)
    placed = Geometry(size, geometry.spacing, (x, y, z), geometry.direction, geometry.dimension)
    return replace(volume, array=volume.array[slices], geometry=placed, source=None)


def _of_slab(regions: Regions, slices: slice) -> Regions:
    """Regions as numbered in a slab of the volume."""
    return replace(regions, box=within(regions.box, (slices, slice(0, None), slice(0, None))))


def regions_of(regions: Regions, slices: slice) -> Regions:
    """The part of the regions in some slices k of their box, as numbered in the volume."""
    k = slice(slices.start - regions.box[0].start, slices.stop - regions.box[0].start)
    return Regions(
        (slices, regions.box[1], regions.box[2]),
        regions.interior[k],
        regions.contour[k],
        None if regions.background is None else regions.background[k],
    )
