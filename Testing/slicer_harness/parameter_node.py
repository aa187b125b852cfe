"""The part of slicer.parameterNodeWrapper that the module uses: typed properties of a node, bound to widgets."""

from __future__ import annotations

import json
from enum import Enum
from types import ModuleType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import slicer
import slicer.util
import vtk
from PySide6 import QtWidgets

from slicer_harness import widgets

PROPERTY = "SlicerParameterName"


class WithinRange:
    """Refuses values outside of a closed range."""

    def __init__(self, minimum: float, maximum: float) -> None:
        self.minimum, self.maximum = minimum, maximum

    def validate(self, value: Any) -> None:
        if not self.minimum <= value <= self.maximum:
            raise ValueError(f"{value} is not within {self.minimum} and {self.maximum}")


class Parameter:
    """One typed entry of a parameter node."""

    def __init__(self, name: str, hint: Any, default: Any) -> None:
        self.name = name
        self.type, self.validators = (get_args(hint)[0], get_args(hint)[1:]) if get_origin(hint) is Annotated else (hint, ())
        self.node_types = _node_types(self.type)
        self.is_node = bool(self.node_types)
        self.is_list = get_origin(self.type) is list
        self.default = default

    def read(self, node: Any) -> Any:
        if self.is_node:
            return node.GetNodeReference(self.name)
        text = node.GetParameter(self.name)
        if text == "" and self.type is not str:
            return self._empty()
        if self.is_list:
            return json.loads(text)
        if isinstance(self.type, type) and issubclass(self.type, Enum):
            return self.type[text]
        return text == "True" if self.type is bool else self.type(text)

    def _empty(self) -> Any:
        return [] if self.is_list else self.default

    def write(self, node: Any, value: Any) -> None:
        if self.is_node:
            if value is not None and not isinstance(value, self.node_types):
                raise TypeError(f"{self.name}: {value.GetClassName()} is none of {self.node_types}")
            node.SetNodeReferenceID(self.name, None if value is None else value.GetID())
            return
        expected = list if self.is_list else self.type
        if not isinstance(value, expected) and not (expected is float and isinstance(value, int)):
            raise TypeError(f"{self.name}: {value!r} is no {expected}")
        for validator in self.validators:
            validator.validate(value)
        text = value.name if isinstance(value, Enum) else json.dumps(value) if self.is_list else str(value)
        node.SetParameter(self.name, text)


def _node_types(hint: Any) -> tuple[type, ...]:
    """The node classes of a parameter; a Union of several must end with None, as in Slicer."""
    if get_origin(hint) is Union:
        *kinds, last = get_args(hint)
        if last is not type(None):
            raise TypeError("a Union of nodes needs None")
        return tuple(kinds)
    return (hint,) if isinstance(hint, type) and issubclass(hint, slicer.vtkMRMLNode) else ()


def parameterNodeWrapper(cls: type) -> type:
    """Class decorator."""
    parameters = {}
    for name, hint in get_type_hints(cls, include_extras=True).items():
        parameters[name] = Parameter(name, hint, getattr(cls, name, None))
        setattr(cls, name, _property(parameters[name]))

    def init(self: Any, node: Any) -> None:
        self.parameterNode = node
        self._guis, self._tags, self._updating = {}, 0, False
        for parameter in parameters.values():
            if not parameter.is_node and not parameter.is_list and node.GetParameter(parameter.name) == "":
                parameter.write(node, parameter.default if parameter.default is not None else parameter.type())

    cls.__init__ = init
    cls.allParameters = parameters
    cls.connectGui = _connect_gui
    cls.connectParametersToGui = _connect_widgets
    cls.disconnectGui = lambda self, tag: self._guis.pop(tag, None)
    cls.AddObserver = lambda self, event, callback, priority=0.0: self.parameterNode.AddObserver(event, callback, priority)
    cls.RemoveObserver = lambda self, tag: self.parameterNode.RemoveObserver(tag)
    cls.StartModify = lambda self: self.parameterNode.StartModify()
    cls.EndModify = lambda self, was: self.parameterNode.EndModify(was)
    return cls


def _property(parameter: Parameter) -> property:
    return property(lambda self: parameter.read(self.parameterNode), lambda self, value: parameter.write(self.parameterNode, value))


def _connect_gui(self: Any, gui: Any) -> None:
    """As in Slicer 5.12, which forgets to return the tag (Slicer issue 7547): what it connects cannot be disconnected."""
    bound = {w.property(PROPERTY): w for w in gui.findChildren(QtWidgets.QWidget) if w.property(PROPERTY)}
    _connect_widgets(self, bound)


def _connect_widgets(self: Any, bound: dict[str, Any]) -> int:
    unknown = set(bound) - set(self.allParameters)
    if unknown:
        raise ValueError(f"the .ui binds {sorted(unknown)}, which no parameter is called")
    self._tags += 1
    tag = self._tags
    connectors = {name: Connector(widget, self.allParameters[name]) for name, widget in bound.items()}
    self._guis[tag] = connectors
    for name, connector in connectors.items():
        connector.write(getattr(self, name))
        connector.changed(lambda *_, name=name, connector=connector, tag=tag: _to_node(self, tag, name, connector))
    self.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: _to_gui(self))
    return tag


def _to_node(self: Any, tag: int, name: str, connector: Connector) -> None:
    if tag in self._guis and not self._updating:
        setattr(self, name, connector.read())


def _to_gui(self: Any) -> None:
    if self._updating:
        return
    self._updating = True
    try:
        for connectors in self._guis.values():
            for name, connector in connectors.items():
                connector.write(getattr(self, name))
    finally:
        self._updating = False


class Connector:
    """Binds a widget whose class is exactly one of those that Slicer has a connector for."""

    def __init__(self, widget: Any, parameter: Parameter) -> None:
        self.widget, self.parameter = widget, parameter
        kind = type(widget)
        is_enum = isinstance(parameter.type, type) and issubclass(parameter.type, Enum)
        if is_enum and kind is QtWidgets.QComboBox:
            self.values = list(parameter.type)
            widget.clear()
            for value in self.values:
                widget.addItem(parameter.type.label(value) if hasattr(parameter.type, "label") else value.name)
            self.signal, self.attribute = widget.currentIndexChanged, "currentIndex"
        elif parameter.is_node and kind is widgets.qMRMLNodeComboBoxWithFlags:
            widget.nodeTypes = [cls.__name__ for cls in parameter.node_types]  # as Slicer does, whatever the .ui says
            self.signal, self.attribute = widget.currentNodeChanged, None
        elif kind in (QtWidgets.QDoubleSpinBox, QtWidgets.QSpinBox, widgets.ctkSliderWidget) and parameter.type in (float, int):
            low, high = _range(parameter)
            if low is not None:
                widget.minimum, widget.maximum = low, high
            self.signal, self.attribute = widget.valueChanged, "value"
        elif kind in (QtWidgets.QCheckBox, QtWidgets.QPushButton) and parameter.type is bool:
            self.signal, self.attribute = widget.toggled, "checked"
        elif kind is QtWidgets.QLineEdit and parameter.type is str:
            self.signal, self.attribute = widget.textChanged, "text"
        else:
            raise ValueError(f"no connector binds {kind.__name__} to {parameter.name} of type {parameter.type}")
        self.is_enum = is_enum

    def changed(self, callback: Any) -> None:
        self.signal.connect(callback)

    def read(self) -> Any:
        if self.attribute is None:
            return self.widget.currentNode()
        value = getattr(self.widget, self.attribute)
        return self.values[value] if self.is_enum else value

    def write(self, value: Any) -> None:
        if self.attribute is None:
            self.widget.setCurrentNode(value)
        else:
            setattr(self.widget, self.attribute, self.values.index(value) if self.is_enum else value)


def _range(parameter: Parameter) -> tuple[float | None, float | None]:
    for validator in parameter.validators:
        if isinstance(validator, WithinRange):
            return validator.minimum, validator.maximum
    return None, None


def make_module() -> ModuleType:
    module = ModuleType("slicer.parameterNodeWrapper")
    module.parameterNodeWrapper, module.WithinRange = parameterNodeWrapper, WithinRange
    return module
