# Finds everything the project links. Torch comes first: RocksDB's package pulls gflags in, which a
# later find_package(Torch) would trip over.
include(PerennialTorch)
find_package(Threads REQUIRED)
find_package(Boost 1.81 REQUIRED COMPONENTS program_options json iostreams)
find_package(hwy REQUIRED CONFIG)
find_package(RocksDB 7.8.3 REQUIRED CONFIG)
include(PerennialXxhash)
