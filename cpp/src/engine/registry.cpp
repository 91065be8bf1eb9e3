#include "engine/registry.h"

#include <array>
#include <dlfcn.h>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>

#include "resrt/error.h"
#include "text.h"

namespace resrt {
namespace {

namespace fs = std::filesystem;

struct Known {
  const char* name;
  const char* install;  // what brings the library that the backend needs
};

constexpr std::array kKnown = {
    Known{"openvino", "pip install openvino==" RESRT_OPENVINO_VERSION},
};

// The folder that this library lies in, wherever it was moved to; the backends lie beside it.
fs::path library_folder() {
  Dl_info info{};
  if (::dladdr(reinterpret_cast<const void*>(&library_folder), &info) == 0) {
    throw BackendError("cannot find the folder of libresrt.so, beside which the backends lie");
  }
  return fs::path(info.dli_fname).parent_path();
}

std::unique_ptr<Backend> open(const Known& known) {
  const fs::path path = library_folder() / concat("libresrt_", known.name, ".so");
  if (!fs::exists(path)) {
    throw BackendError(concat("backend '", known.name, "' is not part of this installation: ",
                              path.string(), " is missing; reinstall resrt"));
  }
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

}  // namespace

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
      all.push_back({known.name, backend.version(), backend.precisions(), std::nullopt});
    } catch (const BackendError& error) {
      all.push_back({known.name, "", {}, error.what()});
    }
  }
  return all;
}

}  // namespace resrt
