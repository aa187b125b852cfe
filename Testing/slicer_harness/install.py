"""Put it all in place: after ``install`` the module MedProtect imports and runs as if Slicer had started it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

import slicer
import slicer.util
from PySide6.QtCore import QObject, Signal
from PySide6.QtWidgets import QApplication

from slicer_harness.scene import Application

ROOT = Path(__file__).parents[2]
REAL = "MEDPROTECT_SLICER_PYTHON"  # a Slicer source's Base/Python: its own ScriptedLoadableModule, parameterNodeWrapper and i18n


class SampleDataLogic:
    """Remembers what was registered."""

    registered: ClassVar[list[dict[str, Any]]] = []

    @staticmethod
    def registerCustomSampleDataSource(**source: Any) -> None:
        SampleDataLogic.registered.append(source)


class ModuleManager(QObject):
    moduleAboutToBeUnloaded = Signal(str)

    def connect(self, signal: str, slot: Any) -> None: ...

    def disconnect(self, signal: str, slot: Any) -> None: ...


class SlicerApp:
    """The parts of slicer.app that modules touch. ``testing`` keeps slicer.util from opening dialogs.

    ``stand_in`` tells the tests that they run in the harness; a test of the way inside of Slicer switches it off.
    """

    applicationName = "Slicer"
    testing = True
    stand_in = True

    def __init__(self, qt_application: QApplication) -> None:
        self.qt_application, self.manager = qt_application, ModuleManager()
        self.startup: list[Any] = []

    def testingEnabled(self) -> bool:
        return self.testing

    def connect(self, signal: str, slot: Any) -> None:
        self.startup.append(slot)

    def moduleManager(self) -> ModuleManager:
        return self.manager

    def processEvents(self) -> None:
        self.qt_application.processEvents()

    def userSettings(self) -> Any:
        return SimpleNamespace(value=lambda key, default=None: default)

    settings = userSettings

    def setOverrideCursor(self, cursor: Any) -> None: ...

    def restoreOverrideCursor(self) -> None: ...

    def layoutManager(self) -> None: ...

    def translate(self, context: str, text: str) -> str:
        return text


def install() -> Application:
    """A fresh scene."""
    prepare()
    application = Application()
    slicer.modules = application.modules()
    slicer.modules.medprotect = SimpleNamespace(path=str(ROOT / "MedProtect" / "MedProtect.py"))
    return application


def prepare() -> None:
    """The stand-in modules, so that the module can be imported; once per process."""
    if "qt" in sys.modules:
        return
    from slicer_harness import parameter_node, scripted_module, widgets
    from slicer_harness.loader import SlicerUiLoader
    from slicer_harness.qt_module import make_qt_module

    for path in (ROOT / "MedProtect", ROOT):
        if str(path) not in sys.path:
            sys.path.insert(0, str(path))
    qt = make_qt_module()
    qt.QUiLoader = SlicerUiLoader
    ctk = ModuleType("ctk")
    for cls in widgets.CTK:
        setattr(ctk, cls.__name__, cls)
    for cls in widgets.QMRML:
        setattr(slicer, cls.__name__, cls)
    sys.modules |= {"qt": qt, "ctk": ctk}
    slicer.app = SlicerApp(QApplication.instance() or QApplication([]))
    slicer.util.mainWindow = lambda verbose=True: None
    sample_data = ModuleType("SampleData")
    sample_data.SampleDataLogic = SampleDataLogic
    sys.modules["SampleData"] = sample_data
    real = os.environ.get(REAL)
    if real:
        slicer.__path__.append(str(Path(real) / "slicer"))
        _complete_for_real_wrapper(ctk)
        return
    i18n = ModuleType("slicer.i18n")
    i18n.tr = lambda text: text
    i18n.translate = lambda context, text: text
    sys.modules["slicer.i18n"] = i18n
    sys.modules["slicer.parameterNodeWrapper"] = parameter_node.make_module()
    sys.modules["slicer.ScriptedLoadableModule"] = scripted_module.make_module()


CTK_NAMED = (
    "ctkCheckBox",
    "ctkCheckableComboBox",
    "ctkCheckablePushButton",
    "ctkCollapsibleGroupBox",
    "ctkColorPickerButton",
    "ctkComboBox",
    "ctkDirectoryButton",
    "ctkDoubleRangeSlider",
    "ctkDoubleSlider",
    "ctkDoubleSpinBox",
    "ctkRangeWidget",
)
QMRML_NAMED = ("qMRMLCheckableNodeComboBox", "qMRMLRangeWidget", "qMRMLSliderWidget", "qMRMLSpinBox", "qMRMLSubjectHierarchyComboBox")


def _complete_for_real_wrapper(ctk: ModuleType) -> None:
    """Slicer's own connectors name classes that the panel has no use for."""
    from PySide6.QtWidgets import QWidget

    for owner, names in ((ctk, CTK_NAMED), (slicer, QMRML_NAMED)):
        for name in names:
            setattr(owner, name, type(name, (QWidget,), {}))
