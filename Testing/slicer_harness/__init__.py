"""What the module needs of Slicer where there is no Slicer: real MRML from slicer-core, Qt from PySide6, small stand-ins for the rest."""
