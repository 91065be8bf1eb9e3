#include "resrt/error.h"

namespace resrt {

Error::Error(const std::string& message) : std::runtime_error(message) {}

// Defined here so that the type information lives in one library and an exception that a backend
// throws can be caught by its type everywhere.
Error::~Error() = default;
ModelError::~ModelError() = default;
WeightsError::~WeightsError() = default;
InputError::~InputError() = default;
PrecisionError::~PrecisionError() = default;
EngineFileError::~EngineFileError() = default;
BackendError::~BackendError() = default;
FileError::~FileError() = default;

}  // namespace resrt
