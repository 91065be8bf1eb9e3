#include "engine/registry.h"

#include <algorithm>
#include <array>
#include <dlfcn.h>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>

#include "engine/library_folders.h"
#include "resrt/error.h"
#include "text.h"

namespace resrt {
namespace {

namespace fs = std::filesystem;

struct Known {
  const char* name;
  // The libraries libresrt_<module>.so that there may be for it, the preferred one first: one for
  // each major version of the inference library.
  std::vector<const char*> modules;
  const char* install;  // what brings the library that the backend needs
  const char* build;    // what a build of resrt needs to have the backend
};

const std::array kKnown = {
    Known{"openvino", {"openvino"}, "pip install openvino==" RESRT_OPENVINO_VERSION, "OpenVINO"},
    Known{"tensorrt",
          {"tensorrt_11", "tensorrt_10"},
          "pip install 'resrt[tensorrt]'",
          "TensorRT's headers (TensorRT_ROOT)"},
    Known{"tensorrt_rtx",
          {"tensorrt_rtx"},
          "pip install 'resrt[tensorrt-rtx]'",
          "the headers of TensorRT for RTX (TensorRT_RTX_ROOT)"},
};

std::unique_ptr<Backend> open_module(const Known& known, const fs::path& path) {
  void* library = ::dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    throw BackendError(concat("backend '", known.name, "' cannot be opened (", ::dlerror(),
                              "); install what it needs: ", known.install));
  }
  void* create = ::dlsym(library, kCreateBackend);
  if (create == nullptr) {
    throw BackendError(concat(path.string(), " is no resrt backend: it has no ", kCreateBackend,
                              "; reinstall resrt"));
  }
  return std::unique_ptr<Backend>(reinterpret_cast<CreateBackend>(create)());
}

// The first of the backend's modules whose inference library is there.
std::unique_ptr<Backend> open(const Known& known) {
  std::vector<std::string> reasons;
  for (const char* module : known.modules) {
    const fs::path path = backend_folder() / concat("libresrt_", module, ".so");
    if (!fs::exists(path)) continue;
    try {
      return open_module(known, path);
    } catch (const BackendError& error) {
      reasons.emplace_back(error.what());
    }
  }
  if (reasons.empty()) {
    throw BackendError(concat("backend '", known.name,
                              "' is not part of this installation; build "
                              "resrt where there are ",
                              known.build));
  }
  throw BackendError(join(reasons, "; "));
}

std::vector<fs::path>& added_folders() {
  static auto& folders = *new std::vector<fs::path>();
  return folders;
}

std::mutex folders_mutex;

}  // namespace

// Wherever it was moved to.
fs::path backend_folder() {
  Dl_info info{};
  if (::dladdr(reinterpret_cast<const void*>(&backend_folder), &info) == 0) {
    throw BackendError("cannot find the folder of libresrt.so, beside which the backends lie");
  }
  return fs::path(info.dli_fname).parent_path();
}

std::vector<fs::path> library_folders() {
  // We lie in site-packages/resrt/lib.
  std::vector<fs::path> folders = {backend_folder().parent_path().parent_path()};
  const std::lock_guard lock(folders_mutex);
  folders.insert(folders.end(), added_folders().begin(), added_folders().end());
  return folders;
}

void add_library_folder(const fs::path& folder) {
  const std::lock_guard lock(folders_mutex);
  std::vector<fs::path>& folders = added_folders();
  if (std::find(folders.begin(), folders.end(), folder) == folders.end()) folders.push_back(folder);
}

Backend& find_backend(const std::string& name) {
  // Never destroyed: engines in static storage may outlive any order of destruction.
  static auto& backends = *new std::map<std::string, std::unique_ptr<Backend>>();
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  if (const auto found = backends.find(name); found != backends.end()) return *found->second;
  for (const Known& known : kKnown) {
    if (name == known.name) return *(backends[name] = open(known));
  }
  throw BackendError(
      concat("there is no backend named '", name, "'; this resrt has: ", join(backend_names())));
}

std::vector<std::string> backend_names() {
  std::vector<std::string> names;
  for (const Known& known : kKnown) names.emplace_back(known.name);
  return names;
}

std::vector<BackendStatus> backends() {
  std::vector<BackendStatus> all;
  for (const Known& known : kKnown) {
    try {
      Backend& backend = find_backend(known.name);
      all.push_back({known.name, backend.version(), backend.precisions(0), std::nullopt,
                     backend.why_build_only()});
    } catch (const BackendError& error) {
      all.push_back({known.name, "", {}, error.what(), std::nullopt});
    }
  }
  return all;
}

}  // namespace resrt
