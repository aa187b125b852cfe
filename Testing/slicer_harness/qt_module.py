"""The module ``qt`` as PythonQt has it, from PySide6: one flat namespace in which properties are attributes."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from PySide6 import QtCore, QtGui, QtWidgets

SOURCES = (QtCore, QtGui, QtWidgets)
STATIC = {"singleShot"}  # also the name of a static method that must stay callable


def make_qt_module() -> ModuleType:
    """Flatten PySide6 into one module and turn every Qt property into an attribute that can be read and set."""
    module = ModuleType("qt")
    for source in SOURCES:
        for name in dir(source):
            if not name.startswith("_"):
                setattr(module, name, getattr(source, name))
    for value in list(vars(module).values()):
        if isinstance(value, type) and issubclass(value, QtCore.QObject):
            make_attributes(value)
    QtCore.QObject.name = QtCore.QObject.objectName
    return module


def make_attributes(owner: type) -> None:
    """Properties of a class, without those that it inherits, as Python attributes."""
    meta = owner.staticMetaObject
    for index in range(meta.propertyOffset(), meta.propertyCount()):
        name = meta.property(index).name()
        if name not in STATIC:
            setattr(owner, name, _attribute(name))


def _attribute(name: str) -> property:
    def read(self: QtCore.QObject) -> Any:
        return QtCore.QObject.property(self, name)

    def write(self: QtCore.QObject, value: Any) -> None:
        if not self.setProperty(name, value):
            raise AttributeError(f"{type(self).__name__}.{name} cannot be set to {value!r}")

    return property(read, write)
