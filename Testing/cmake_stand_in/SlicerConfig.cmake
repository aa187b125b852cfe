# A stand-in for Slicer's package: enough of it to configure, build and install the extension without a Slicer.
# What it does with files follows Slicer's own macros: a listed file that is missing is an error, sub-folders are kept, a module
# with WITH_SUBDIR lands in a folder of its name beside the other modules.
set(Slicer_USE_FILE "${CMAKE_CURRENT_LIST_DIR}/UseSlicer.cmake")
set(Slicer_EXTENSION_GENERATE_CONFIG "${CMAKE_CURRENT_LIST_DIR}/Nothing.cmake")
set(Slicer_EXTENSION_CPACK "${CMAKE_CURRENT_LIST_DIR}/Nothing.cmake")
set(Slicer_FOUND TRUE)
