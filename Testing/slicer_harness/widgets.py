"""Small stand-ins for the CTK and qMRML widgets of the module's panel.

Each has only members of the real class (members.json, checked by a test), so that code that calls anything else fails here too.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar

from PySide6.QtCore import Property, QRegularExpression, Qt, Signal
from PySide6.QtGui import QRegularExpressionValidator
from PySide6.QtWidgets import QComboBox, QDoubleSpinBox, QHBoxLayout, QSlider, QToolButton, QWidget


class qMRMLWidget(QWidget):
    """Passes its scene on to the widgets that the .ui file connects to it, and to no others."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._scene: Any = None
        self._receivers: list[QWidget] = []

    def setMRMLScene(self, scene: Any) -> None:
        self._scene = scene
        for receiver in self._receivers:
            receiver.setMRMLScene(scene)

    def mrmlScene(self) -> Any:
        return self._scene


class qMRMLNodeComboBox(QWidget):
    """Lists the nodes of the wanted types; empty until it is given a scene."""

    currentNodeChanged = Signal(object)
    currentNodeIDChanged = Signal(str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._scene: Any = None
        self._observed: list[int] = []
        self._types: list[str] = []
        self._flags = dict.fromkeys(("noneEnabled", "addEnabled", "removeEnabled", "editEnabled", "renameEnabled"), False)
        self._flags |= {"showChildNodeTypes": True, "showHidden": False, "selectNodeUponCreation": True}
        self._hiddenChildTypes: list[str] = []
        self._noneDisplay = "None"
        self._nodes: list[Any] = []
        self._current = ""
        self._box = QComboBox(self)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._box)
        self._box.activated.connect(self._chosen)
        self.setEnabled(False)

    def setMRMLScene(self, scene: Any) -> None:
        for tag in self._observed:
            self._scene.RemoveObserver(tag)
        self._scene = scene
        events = () if scene is None else (scene.NodeAddedEvent, scene.NodeRemovedEvent, scene.EndCloseEvent, scene.EndImportEvent)
        self._observed = [scene.AddObserver(event, lambda *_: self._refill()) for event in events]
        self.setEnabled(scene is not None)
        self._refill()

    def mrmlScene(self) -> Any:
        return self._scene

    def currentNode(self) -> Any:
        return next((node for node in self._nodes if node is not None and node.GetID() == self._current), None)

    def setCurrentNode(self, node: Any) -> None:
        self._select("" if node is None else node.GetID())

    def nodeCount(self) -> int:
        return len([node for node in self._nodes if node is not None])

    def nodeFromIndex(self, index: int) -> Any:
        return [node for node in self._nodes if node is not None][index]

    def _read_id(self) -> str:
        return self._current

    def _select(self, node_id: str) -> None:
        known = {node.GetID() for node in self._nodes if node is not None}
        node_id = node_id if node_id in known else ""
        index = next((i for i, node in enumerate(self._nodes) if (node.GetID() if node else "") == node_id), -1)
        self._box.setCurrentIndex(index)
        if node_id != self._current:
            self._current = node_id
            self.currentNodeChanged.emit(self.currentNode())
            self.currentNodeIDChanged.emit(node_id)

    currentNodeID = Property(str, _read_id, _select)

    def _chosen(self, index: int) -> None:
        node = self._nodes[index]
        self._select("" if node is None else node.GetID())

    def _refill(self) -> None:
        if self._scene is None:
            return
        found = [self._scene.GetNthNode(i) for i in range(self._scene.GetNumberOfNodes())]
        nodes = [node for node in found if self._fits(node)]
        self._nodes = ([None] if self._flags["noneEnabled"] else []) + nodes
        self._box.clear()
        for node in self._nodes:
            self._box.addItem(self._noneDisplay if node is None else node.GetName())
        known = {node.GetID() for node in nodes}
        keep = self._current if self._current in known else ""
        if not keep and not self._flags["noneEnabled"] and nodes:
            keep = nodes[0].GetID()
        self._select(keep)

    def _fits(self, node: Any) -> bool:
        if node.GetHideFromEditors() and not self._flags["showHidden"]:
            return False
        exact = node.GetClassName() in self._types
        child = self._flags["showChildNodeTypes"] and any(node.IsA(name) for name in self._types)
        return exact or (child and not any(node.IsA(name) for name in self._hiddenChildTypes))

    def _set_types(self, names: list[str]) -> None:
        self._types = list(names)
        self._refill()

    def _set_hidden_types(self, names: list[str]) -> None:
        self._hiddenChildTypes = list(names)
        self._refill()

    def _set_none_display(self, text: str) -> None:
        self._noneDisplay = text

    nodeTypes = Property("QStringList", lambda self: self._types, _set_types)
    hideChildNodeTypes = Property("QStringList", lambda self: self._hiddenChildTypes, _set_hidden_types)
    noneDisplay = Property(str, lambda self: self._noneDisplay, _set_none_display)


def _flag(name: str) -> Property:
    def write(self: qMRMLNodeComboBox, value: bool) -> None:
        self._flags[name] = value
        self._refill()

    return Property(bool, lambda self: self._flags[name], write)


class qMRMLNodeComboBoxWithFlags(qMRMLNodeComboBox):
    """The properties that all work alike; PySide wants them in the class body."""

    noneEnabled = _flag("noneEnabled")
    addEnabled = _flag("addEnabled")
    removeEnabled = _flag("removeEnabled")
    editEnabled = _flag("editEnabled")
    renameEnabled = _flag("renameEnabled")
    showChildNodeTypes = _flag("showChildNodeTypes")
    showHidden = _flag("showHidden")
    selectNodeUponCreation = _flag("selectNodeUponCreation")


qMRMLNodeComboBoxWithFlags.__name__ = "qMRMLNodeComboBox"


class ctkCollapsibleButton(QWidget):
    """A titled section; its content is hidden while it is collapsed."""

    contentsCollapsed = Signal(bool)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._collapsed = False
        self._header = QToolButton(self)
        self._header.setAutoRaise(True)
        self._header.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self._header.setArrowType(Qt.ArrowType.DownArrow)
        self._header.clicked.connect(lambda: self._collapse(not self._collapsed))
        self.setContentsMargins(6, 26, 0, 6)

    def resizeEvent(self, event: Any) -> None:
        self._header.setGeometry(0, 0, self.width, 24)
        super().resizeEvent(event)

    def _collapse(self, collapsed: bool) -> None:
        self._collapsed = collapsed
        self._header.setArrowType(Qt.ArrowType.RightArrow if collapsed else Qt.ArrowType.DownArrow)
        for child in self.findChildren(QWidget, options=Qt.FindChildOption.FindDirectChildrenOnly):
            if child is not self._header:
                child.setVisible(not collapsed)
        self.setMaximumHeight(26 if collapsed else 16777215)
        self.contentsCollapsed.emit(collapsed)

    def _set_text(self, text: str) -> None:
        self._header.setText(text)

    collapsed = Property(bool, lambda self: self._collapsed, _collapse)
    text = Property(str, lambda self: self._header.property("text"), _set_text)


class ctkSliderWidget(QWidget):
    """A slider and a spin box that agree."""

    valueChanged = Signal(float)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._spin, self._slider = QDoubleSpinBox(self), QSlider(Qt.Orientation.Horizontal, self)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._slider)
        layout.addWidget(self._spin)
        self._slider.setRange(0, 1000)
        self._spin.valueChanged.connect(self._spun)
        self._slider.sliderMoved.connect(lambda n: self._set_value(self._low() + n / 1000 * (self._high() - self._low())))

    def _low(self) -> float:
        return float(self._spin.property("minimum"))

    def _high(self) -> float:
        return float(self._spin.property("maximum"))

    def _spun(self, value: float) -> None:
        self._slider.setValue(round((value - self._low()) / max(1e-12, self._high() - self._low()) * 1000))
        self.valueChanged.emit(value)

    def _set_value(self, value: float) -> None:
        self._spin.setValue(value)

    def _set_low(self, value: float) -> None:
        self._spin.setMinimum(value)

    def _set_high(self, value: float) -> None:
        self._spin.setMaximum(value)

    def _set_step(self, value: float) -> None:
        self._spin.setSingleStep(value)

    def _set_decimals(self, value: int) -> None:
        self._spin.setDecimals(value)

    value = Property(float, lambda self: float(self._spin.property("value")), _set_value)
    minimum = Property(float, _low, _set_low)
    maximum = Property(float, _high, _set_high)
    singleStep = Property(float, lambda self: float(self._spin.property("singleStep")), _set_step)
    decimals = Property(int, lambda self: int(self._spin.property("decimals")), _set_decimals)


class ctkPathLineEdit(QWidget):
    """A path that can be typed or taken from a list. It tells only of paths that its name filters allow, and never of an empty one."""

    currentPathChanged = Signal(str)
    validInputChanged = Signal(bool)
    _settings: ClassVar[dict[str, list[str]]] = {}  # the real one keeps its lists in the application's settings

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._names, self._key, self._valid = [], "", False
        self._box, button = QComboBox(self), QToolButton(self)
        self._box.setEditable(True)
        self._box.setInsertPolicy(QComboBox.InsertPolicy.NoInsert)
        self._edit = self._box.lineEdit()
        self._validator = QRegularExpressionValidator(self._edit)
        self._set_names([])
        self._edit.setValidator(self._validator)
        button.setText("…")
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._box, 1)
        layout.addWidget(button)
        self._edit.textChanged.connect(self._tell)

    def _tell(self, text: str) -> None:
        was, self._valid = self._valid, self._edit.hasAcceptableInput()
        if self._valid:
            self.currentPathChanged.emit(text)
        if self._valid != was:
            self.validInputChanged.emit(self._valid)

    def _path(self) -> str:
        return str(self._edit.property("text"))

    def _set_path(self, path: str) -> None:
        self._edit.setText(path)

    def _set_names(self, names: list[str]) -> None:
        self._names = list(names)
        extensions = re.findall(r"\*\.(\w+)", " ".join(self._names))
        self._validator.setRegularExpression(QRegularExpression("|".join(rf".*\.{e}" for e in extensions) or ".+"))

    def _set_key(self, key: str) -> None:
        self._key = key
        self.retrieveHistory()

    def retrieveHistory(self) -> None:
        """Fill the list; an empty field then shows the path that was used last."""
        path, was = self._path(), self.blockSignals(True)
        self._box.clear()
        self._box.addItems(self._settings.get(self._key, []))
        if path:
            self._set_path(path)
        self.blockSignals(was)

    def addCurrentPathToHistory(self) -> None:
        path = self._path()
        if not path:
            return
        self._settings[self._key] = [path, *(p for p in self._settings.get(self._key, []) if p != path)]
        if (known := self._box.findText(path)) >= 0:
            self._box.removeItem(known)
        self._box.insertItem(0, path)
        self._box.setCurrentIndex(0)

    currentPath = Property(str, _path, _set_path)
    nameFilters = Property("QStringList", lambda self: self._names, _set_names)
    settingKey = Property(str, lambda self: self._key, _set_key)


CTK = (ctkCollapsibleButton, ctkSliderWidget, ctkPathLineEdit)
QMRML = (qMRMLWidget, qMRMLNodeComboBoxWithFlags)
