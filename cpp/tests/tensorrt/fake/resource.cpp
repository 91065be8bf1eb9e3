// A library that is next to TensorRT's in its wheel. It records that it was opened.

#include <cstdlib>

namespace {

[[maybe_unused]] const int opened = setenv("RESRT_TEST_RESOURCE_IS_OPEN", "1", 1);

}  // namespace
