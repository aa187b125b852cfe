"""QUiLoader as Slicer has it: it knows the custom widgets, and the .ui file's connections decide who gets the scene."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from typing import Any

from PySide6.QtCore import QFile, QObject
from PySide6.QtUiTools import QUiLoader
from PySide6.QtWidgets import QWidget

from slicer_harness.widgets import CTK, QMRML

CUSTOM = {cls.__name__: cls for cls in (*CTK, *QMRML)}
SCENE_CONNECTION = ("mrmlSceneChanged(vtkMRMLScene*)", "setMRMLScene(vtkMRMLScene*)")


class SlicerUiLoader(QUiLoader):
    """Loads a .ui file with the stand-ins for its custom widgets."""

    def createWidget(self, className: str, parent: QWidget | None = None, name: str = "") -> QWidget:
        if className not in CUSTOM:
            if className.startswith(("ctk", "qMRML", "qSlicer")):
                raise RuntimeError(f"the harness has no stand-in for {className}")
            return super().createWidget(className, parent, name)
        widget = CUSTOM[className](parent)
        widget.setObjectName(name)
        return widget

    def load(self, file: QFile, parent: QWidget | None = None) -> QWidget:
        path = str(file.fileName())
        file.close()
        without_connections = ElementTree.parse(path)
        connections = scene_connections(without_connections)
        section = without_connections.getroot().find("connections")
        if section is not None:
            without_connections.getroot().remove(section)
        from PySide6.QtCore import QBuffer, QByteArray

        buffer = QBuffer()
        buffer.setData(QByteArray(ElementTree.tostring(without_connections.getroot())))
        widget = super().load(buffer, parent)
        for sender, receiver in connections:
            source = widget if str(widget.objectName) == sender else widget.findChild(QObject, sender)
            source._receivers.append(widget.findChild(QObject, receiver))
        return widget


def scene_connections(tree: Any) -> list[tuple[str, str]]:
    """(sender, receiver) of every connection that passes the scene on."""
    found = []
    for connection in tree.getroot().iter("connection"):
        parts = {key: connection.findtext(key, "") for key in ("sender", "signal", "receiver", "slot")}
        if (parts["signal"], parts["slot"]) == SCENE_CONNECTION:
            found.append((parts["sender"], parts["receiver"]))
    return found
