# find_package(bitnet CONFIG) with CMAKE_PREFIX_PATH at the folder that `cargo xtask c` makes. Targets: bitnet::shared,
# bitnet::static, and bitnet::bitnet, which is the shared one unless BITNET_STATIC is on.
get_filename_component(_bitnet_prefix "${CMAKE_CURRENT_LIST_DIR}/../../.." ABSOLUTE)
find_package(Threads REQUIRED)

if(NOT TARGET bitnet::shared)
  add_library(bitnet::shared SHARED IMPORTED)
  set_target_properties(bitnet::shared PROPERTIES
    IMPORTED_LOCATION "${_bitnet_prefix}/lib/@SHARED@"
    IMPORTED_SONAME "@SONAME@"
    INTERFACE_INCLUDE_DIRECTORIES "${_bitnet_prefix}/include")

  add_library(bitnet::static STATIC IMPORTED)
  set_target_properties(bitnet::static PROPERTIES
    IMPORTED_LOCATION "${_bitnet_prefix}/lib/libbitnet.a"
    INTERFACE_INCLUDE_DIRECTORIES "${_bitnet_prefix}/include"
    INTERFACE_LINK_LIBRARIES "Threads::Threads;m;${CMAKE_DL_LIBS}")

  add_library(bitnet::bitnet INTERFACE IMPORTED)
  if(BITNET_STATIC)
    set_target_properties(bitnet::bitnet PROPERTIES INTERFACE_LINK_LIBRARIES bitnet::static)
  else()
    set_target_properties(bitnet::bitnet PROPERTIES INTERFACE_LINK_LIBRARIES bitnet::shared)
  endif()
endif()
set(bitnet_VERSION "@VERSION@")
unset(_bitnet_prefix)
