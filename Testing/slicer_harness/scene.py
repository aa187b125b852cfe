"""A real MRML scene with the logics that an application would bring, on slicer-core."""

from __future__ import annotations

from types import SimpleNamespace

import slicer
import slicer.util
import vtk

VIEWS = ("Red", "Yellow", "Green")


class Application:
    """The logics of one scene. A logic lives as long as this object: MRML itself holds none of them."""

    def __init__(self) -> None:
        vtk.vtkOutputWindow.GetInstance().SetDisplayModeToAlwaysStdErr()
        self.scene = slicer.vtkMRMLScene()
        slicer.mrmlScene = self.scene
        self.logic = slicer.vtkSlicerApplicationLogic()
        self.logic.SetMRMLScene(self.scene)
        self.colors = self.logic.GetColorLogic()
        self.colors.SetMRMLScene(self.scene)
        self.logic.SetModuleLogic("Colors", self.colors)
        self.slice_logics, self.view_logics = vtk.vtkCollection(), vtk.vtkCollection()
        self.logic.SetSliceLogics(self.slice_logics)
        self.logic.SetViewLogics(self.view_logics)
        slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(self.scene, True)
        self.segmentations = self._module("Segmentations", slicer.vtkSlicerSegmentationsModuleLogic())
        self.volumes = self._module("Volumes", slicer.vtkSlicerVolumesLogic())
        self.views = {name: self._slice_view(name) for name in VIEWS}

    def _module(self, name: str, logic: vtk.vtkObject) -> vtk.vtkObject:
        logic.SetMRMLScene(self.scene)
        logic.SetMRMLApplicationLogic(self.logic)
        self.logic.SetModuleLogic(name, logic)
        return logic

    def _slice_view(self, name: str) -> vtk.vtkObject:
        view = slicer.vtkMRMLSliceLogic()
        view.SetMRMLApplicationLogic(self.logic)
        self.slice_logics.AddItem(view)
        view.SetMRMLScene(self.scene)
        node = view.AddSliceNode(name)
        node.SetOrientation({"Red": "Axial", "Yellow": "Sagittal", "Green": "Coronal"}[name])
        node.SetSingletonTag(name)
        return view

    def close(self) -> None:
        """Take the scene apart in an order that VTK survives, before Python itself ends."""
        self.scene.RemoveAllObservers()
        self.scene.Clear(1)
        for logic in (*self.views.values(), self.segmentations, self.volumes, self.logic):
            logic.SetMRMLScene(None)
        slicer.mrmlScene = None

    def modules(self) -> SimpleNamespace:
        """What slicer.modules has of these."""
        return SimpleNamespace(
            segmentations=SimpleNamespace(logic=lambda: self.segmentations), volumes=SimpleNamespace(logic=lambda: self.volumes)
        )
