#pragma once

#include <stdexcept>
#include <string>

#include "resrt/export.h"

namespace resrt {

// The base of everything that resrt throws. There is one class per thing that the caller can do
// about it; each message names the thing, what was expected, what was found and the next step.
class RESRT_API Error : public std::runtime_error {
 public:
  explicit Error(const std::string& message);
  ~Error() override;
};

// An unknown network, or a configuration that describes no valid network: choose another.
class RESRT_API ModelError : public Error {
 public:
  using Error::Error;
  ~ModelError() override;
};

// Weights that do not fit the network, or a weights file that cannot be read: bring other weights.
class RESRT_API WeightsError : public Error {
 public:
  using Error::Error;
  ~WeightsError() override;
};

// A batch or image that the engine does not take: change the input.
class RESRT_API InputError : public Error {
 public:
  using Error::Error;
  ~InputError() override;
};

// A precision that this backend or this processor does not have: choose another.
class RESRT_API PrecisionError : public Error {
 public:
  using Error::Error;
  ~PrecisionError() override;
};

// An engine file that is cut short, altered, or made for something else: build it again.
class RESRT_API EngineFileError : public Error {
 public:
  using Error::Error;
  ~EngineFileError() override;
};

// A backend that is unknown, not installed, or that failed: install or repair it.
class RESRT_API BackendError : public Error {
 public:
  using Error::Error;
  ~BackendError() override;
};

// A file that does not exist, or cannot be read or written: correct the path or its permissions.
class RESRT_API FileError : public Error {
 public:
  using Error::Error;
  ~FileError() override;
};

}  // namespace resrt
