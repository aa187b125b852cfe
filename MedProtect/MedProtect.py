"""MedProtect: make annotated images unlearnable before they are published. The parts of the module are in MedProtectSlicer."""

import importlib.util
import sys
import unittest
from pathlib import Path

import slicer
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import ScriptedLoadableModule, ScriptedLoadableModuleTest

# An installed extension has MedProtectLib beside this file. In development mode Slicer knows this folder alone.
if importlib.util.find_spec("MedProtectLib") is None:
    sys.path.append(str(Path(__file__).resolve().parents[1]))

from MedProtectSlicer.logic import MedProtectLogic
from MedProtectSlicer.sampledata import registerSampleData
from MedProtectSlicer.widget import MedProtectWidget

__all__ = ["MedProtect", "MedProtectLogic", "MedProtectTest", "MedProtectWidget"]


class MedProtect(ScriptedLoadableModule):
    """What Slicer shows about the module."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = "MedProtect"
        parent.categories = [translate("qSlicerAbstractCoreModule", "Utilities")]
        parent.dependencies = []
        parent.contributors = ["MedProtect contributors"]
        parent.helpText = _(
            "Adds a bounded perturbation in and around the segments of an image, meant to make segmentation models that are trained "
            "on the published image without permission fail on clean images. Choose a volume and a segmentation, look at the preview, "
            "press Apply, export. Protection is not de-identification, and a protected image is not meant for diagnosis."
        )
        parent.acknowledgementText = _(
            "UMed: Lin et al., arXiv 2403.14250, our re-implementation. Each method names its source in 'medprotect methods'."
        )
        slicer.app.connect("startupCompleted()", self._onStartupCompleted)

    def _onStartupCompleted(self):
        registerSampleData(Path(self.resourcePath("Icons")).parent)


class MedProtectTest(ScriptedLoadableModuleTest):
    """Three checks on a small volume that is made here, and in a source tree all tests of the module, on the real widgets."""

    def setUp(self):
        slicer.mrmlScene.Clear()

    def runTest(self, only=""):
        for test in (self.test_protect, self.test_preview, self.test_export):
            self.setUp()
            test()
        try:
            self.test_all_that_the_source_tree_has(only)
        except unittest.SkipTest as reason:
            self.delayDisplay(str(reason))
        self.delayDisplay(_("Test passed"))

    def test_protect(self):
        """The result lies on the volume's grid, differs inside the regions only, and has its tables; in this process or another."""
        from MedProtectSlicer.selftest import checkResult, phantom

        volume, segmentation = phantom()
        checkResult(self, volume, MedProtectLogic().protect(volume, segmentation))
        checkResult(self, volume, MedProtectLogic().protectTask(volume, segmentation, target_psnr=60.0).run())

    def test_preview(self):
        """The preview appears in the slice views and leaves no trace."""
        from MedProtectSlicer.selftest import checkPreview, phantom

        checkPreview(self, *phantom())

    def test_export(self):
        """The exported file holds what protecting in the scene gives; private files lie elsewhere."""
        from MedProtectSlicer.selftest import checkExport, phantom

        checkExport(self, *phantom())

    def test_all_that_the_source_tree_has(self, only=""):
        """Testing/Python/module, if it is there, by pytest in this process; ``only`` is a selection as pytest's -k."""
        from MedProtectSlicer.selftest import runSourceTests

        runSourceTests(self, only)
