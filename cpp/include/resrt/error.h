#pragma once

#include <stdexcept>
#include <string>

#include "resrt/export.h"

namespace resrt {

// The base class of all exceptions that resrt throws. There is one class for each way in which the
// caller can react. Each message names the thing, what was expected, what was found and the next
// step.
class RESRT_API Error : public std::runtime_error {
 public:
  explicit Error(const std::string& message);
  ~Error() override;
};

// An unknown network or an invalid configuration: choose another.
class RESRT_API ModelError : public Error {
 public:
  using Error::Error;
  ~ModelError() override;
};

// Weights that do not fit the network, or an invalid weights file: provide other weights.
class RESRT_API WeightsError : public Error {
 public:
  using Error::Error;
  ~WeightsError() override;
};

// A batch or image that the engine does not accept: change the input.
class RESRT_API InputError : public Error {
 public:
  using Error::Error;
  ~InputError() override;
};

// A precision that this backend or this processor does not support: choose another.
class RESRT_API PrecisionError : public Error {
 public:
  using Error::Error;
  ~PrecisionError() override;
};

// An engine file that is truncated, modified or built for something else: build it again.
class RESRT_API EngineFileError : public Error {
 public:
  using Error::Error;
  ~EngineFileError() override;
};

// A backend that is unknown, not installed or failing: install or repair it.
class RESRT_API BackendError : public Error {
 public:
  using Error::Error;
  ~BackendError() override;
};

// A file that does not exist or cannot be read or written: correct the path or its permissions.
class RESRT_API FileError : public Error {
 public:
  using Error::Error;
  ~FileError() override;
};

}  // namespace resrt
