# Slicer would write the package here.
