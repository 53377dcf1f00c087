# Finds everything the project links. Torch comes first: RocksDB's package pulls gflags in, which a
# later find_package(Torch) would trip over.
include(PerennialTorch)
find_package(Threads REQUIRED)
find_package(Boost 1.81 REQUIRED CONFIG COMPONENTS program_options json iostreams)
find_package(hwy REQUIRED CONFIG)
# Its package takes a version as "this major version", so newer ones are let through here.
find_package(RocksDB REQUIRED CONFIG)
if(RocksDB_VERSION VERSION_LESS 7.8.3)
  message(FATAL_ERROR "RocksDB ${RocksDB_VERSION} was found; 7.8.3 or newer is needed.")
endif()
find_package(PNG 1.6 REQUIRED)
find_package(JPEG REQUIRED)
include(PerennialXxhash)
