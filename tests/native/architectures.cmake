# cmake -P: prints what cmake/architectures.cmake chooses, as "list|reason"; or why nothing can be compiled.
include(${CMAKE_CURRENT_LIST_DIR}/../../cmake/architectures.cmake)
weightinit_too_old(too_old)
if(too_old)
  message("${too_old}")
  return()
endif()
weightinit_architectures(architectures why)
message("${architectures}|${why}")
