#include "backends/tensorrt/library.h"

#include <dlfcn.h>
#include <filesystem>
#include <vector>

#include "backends/tensorrt/flavour.h"
#include "engine/library_folders.h"
#include "resrt/error.h"
#include "text.h"

namespace resrt::tensorrt {
namespace {

namespace fs = std::filesystem;

std::string library_name() {
  return concat(kLibrary, NV_TENSORRT_MAJOR);
}

std::string version_text(int version) {
  return concat(version / 10000, '.', version / 100 % 100, '.', version % 100);
}

// Returns the library's files in the folders of its wheels. The file name may continue with more of
// the version.
std::vector<fs::path> candidates() {
  std::vector<fs::path> found;
  for (const fs::path& folder : library_folders(kBackend)) {
    std::error_code none;
    for (const auto& file : fs::directory_iterator(folder, none)) {
      if (file.path().filename().string().starts_with(library_name())) {
        found.push_back(file.path());
      }
    }
  }
  return found;
}

// Opens the libraries next to TensorRT's, such as the resources of its builder. TensorRT opens them
// by name only, which finds them in its wheel only if they are open already. It reports those that
// are missing itself.
void open_siblings(const fs::path& library) {
  std::error_code none;
  for (const auto& file : fs::directory_iterator(library.parent_path(), none)) {
    const std::string name = file.path().filename().string();
    if (name.starts_with("libnvinfer_") && name.find(".so") != std::string::npos) {
      ::dlopen(file.path().c_str(), RTLD_LAZY | RTLD_LOCAL);
    }
  }
}

void* open() {
  std::vector<std::string> names;
  for (const fs::path& path : candidates()) {
    if (!kRtx) open_siblings(path);
    names.push_back(path.string());
  }
  names.push_back(library_name());  // in the system's search path
  std::vector<std::string> reasons;
  for (const std::string& name : names) {
    if (void* handle = ::dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL)) return handle;
    reasons.emplace_back(::dlerror());
  }
  throw BackendError(concat("cannot open ", kProduct, ' ', NV_TENSORRT_MAJOR, " (",
                            join(reasons, "; "), "); install it: ", install_command(kBackend)));
}

// The interfaces are C++ classes. Their layout matches only headers of the same major version that
// are not newer than the library.
void require_fitting(int version) {
  if (version / 10000 == NV_TENSORRT_MAJOR && version >= NV_TENSORRT_VERSION) return;
  throw BackendError(concat(library_name(), " is ", kProduct, ' ', version_text(version),
                            ", but this resrt was built for ", version_text(NV_TENSORRT_VERSION),
                            " and later ", NV_TENSORRT_MAJOR,
                            ".x; install a matching version: ", install_command(kBackend),
                            ", or build resrt with the headers of ", version_text(version)));
}

}  // namespace

Library::Library() : handle_(open()) {
  using GetVersion = int32_t (*)();
  const auto get_version = reinterpret_cast<GetVersion>(::dlsym(handle_, "getInferLibVersion"));
  if (get_version == nullptr) {
    throw BackendError(concat(library_name(), " does not export getInferLibVersion, so it is not ",
                              kProduct, "; install that: ", install_command(kBackend)));
  }
  require_fitting(get_version());
  version_ = version_text(get_version());
}

template <class Interface>
std::unique_ptr<Interface> Library::create(const char* symbol, nvinfer1::ILogger& logger) const {
  using Create = void* (*)(void*, int32_t);
  const auto function = reinterpret_cast<Create>(::dlsym(handle_, symbol));
  if (function == nullptr) {
    throw BackendError(concat(library_name(), " does not export ", symbol, "; reinstall ", kProduct,
                              ": ", install_command(kBackend)));
  }
  return std::unique_ptr<Interface>(
      static_cast<Interface*>(function(&logger, NV_TENSORRT_VERSION)));
}

std::unique_ptr<nvinfer1::IBuilder> Library::create_builder(nvinfer1::ILogger& logger) const {
  return create<nvinfer1::IBuilder>("createInferBuilder_INTERNAL", logger);
}

std::unique_ptr<nvinfer1::IRuntime> Library::create_runtime(nvinfer1::ILogger& logger) const {
  return create<nvinfer1::IRuntime>("createInferRuntime_INTERNAL", logger);
}

}  // namespace resrt::tensorrt
