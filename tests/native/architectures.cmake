# cmake -P: prints what cmake/architectures.cmake chooses, as "list|reason".
include(${CMAKE_CURRENT_LIST_DIR}/../../cmake/architectures.cmake)
weightinit_architectures(architectures why)
message("${architectures}|${why}")
