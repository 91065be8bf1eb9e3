#include "engine/registry.h"

#include <algorithm>
#include <array>
#include <dlfcn.h>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <optional>

#include "engine/fork.h"
#include "engine/library_folders.h"
#include "resrt/error.h"
#include "text.h"

namespace resrt {
namespace {

namespace fs = std::filesystem;

struct Known {
  const char* name;
  // The modules libresrt_<module>.so that can implement it, the preferred one first. There is one
  // per major version of the inference library.
  std::vector<const char*> modules;
  // The Python packages that may contain the inference library, and the command that installs it.
  std::vector<std::string> packages;
  const char* install;
  const char* build;  // what a build of resrt requires in order to include the backend
  bool runs_on_gpu = false;
  // The library within the package that the modules link to, without its version and the system's
  // suffix. Null means that the modules open their library themselves.
  const char* linked = nullptr;
};

const std::array kKnown = {
    Known{.name = "openvino",
          .modules = {"openvino"},
          .packages = {"openvino"},
          .install = "pip install openvino==" RESRT_OPENVINO_VERSION,
          .build = "OpenVINO",
          .linked = "libs/libopenvino."},
    Known{.name = "tensorrt",
          .modules = {"tensorrt_11", "tensorrt_10"},
          .packages = {"tensorrt_libs"},
          .install = "pip install 'resrt[tensorrt]'",
          .build = "TensorRT's headers (TensorRT_ROOT)",
          .runs_on_gpu = true},
    Known{.name = "tensorrt_rtx",
          .modules = {"tensorrt_rtx"},
          .packages = {"tensorrt_rtx_libs", "onnxruntime_ep_nv_tensorrt_rtx"},
          .install = "pip install 'resrt[tensorrt-rtx]'",
          .build = "the headers of TensorRT for RTX (TensorRT_RTX_ROOT)",
          .runs_on_gpu = true},
};

const Known& find_known(const std::string& name) {
  for (const Known& known : kKnown) {
    if (name == known.name) return known;
  }
  throw BackendError(
      concat("no backend named '", name, "'; choose one of ", join(backend_names())));
}

std::mutex folders_mutex;
std::vector<fs::path>& added_folders() {
  static auto& folders = *new std::vector<fs::path>();
  return folders;
}

std::vector<fs::path> get_added_folders() {
  const std::lock_guard lock(folders_mutex);
  return added_folders();
}

// Opens the library that a backend's modules link to, if a package in an added folder contains it.
// When the loader then opens a module, it uses the library that is already open. It finds the
// package beside our own one without help.
void open_linked_library(const Known& known) {
  if (known.linked == nullptr) return;
  const fs::path linked = known.linked;
  for (const fs::path& folder : get_added_folders()) {
    for (const std::string& package : known.packages) {
      std::error_code none;
      for (const auto& file :
           fs::directory_iterator((folder / package / linked).parent_path(), none)) {
        if (!file.path().filename().string().starts_with(linked.filename().string())) continue;
        // If this fails, opening the module reports why.
        if (::dlopen(file.path().c_str(), RTLD_NOW | RTLD_LOCAL) != nullptr) return;
      }
    }
  }
}

std::unique_ptr<Backend> open_module(const Known& known, const fs::path& path) {
  void* library = ::dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    throw BackendError(concat("cannot open backend '", known.name, "' (", ::dlerror(),
                              "); install its library: ", known.install));
  }
  void* create = ::dlsym(library, kCreateBackend);
  if (create == nullptr) {
    throw BackendError(concat("invalid backend ", path.string(), ": it does not export ",
                              kCreateBackend, "; reinstall resrt"));
  }
  return std::unique_ptr<Backend>(reinterpret_cast<CreateBackend>(create)());
}

// Opens the first of the backend's modules whose inference library is installed.
std::unique_ptr<Backend> open(const Known& known) {
  open_linked_library(known);
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
                              "' is not part of this installation; it requires a build of resrt "
                              "with ",
                              known.build));
  }
  throw BackendError(join(reasons, "; "));
}

struct Opened {
  std::unique_ptr<Backend> backend;
  std::optional<ProcessMark> used_in;  // the first process that built or loaded an engine
};

std::mutex opened_mutex;

// Requires the mutex.
Opened& find_opened(const std::string& name) {
  // Never destroyed, because engines in static storage may be destroyed later.
  static auto& all = *new std::map<std::string, Opened>();
  if (const auto found = all.find(name); found != all.end()) return found->second;
  std::unique_ptr<Backend> backend = open(find_known(name));
  return all[name] = {std::move(backend), std::nullopt};
}

}  // namespace

fs::path backend_folder() {
  Dl_info info{};
  if (::dladdr(reinterpret_cast<const void*>(&backend_folder), &info) == 0) {
    throw BackendError("cannot find the folder of libresrt.so, which contains the backends");
  }
  return fs::path(info.dli_fname).parent_path();
}

std::vector<std::string> library_packages(const std::string& backend) {
  return find_known(backend).packages;
}

const char* install_command(const std::string& backend) {
  return find_known(backend).install;
}

std::vector<fs::path> library_folders(const std::string& backend) {
  // backend_folder() is site-packages/resrt/lib.
  const fs::path own = backend_folder().parent_path().parent_path();
  std::vector<fs::path> sites = get_added_folders();
  std::erase(sites, own);
  sites.insert(sites.begin(), own);
  std::vector<fs::path> folders;
  for (const fs::path& site : sites) {
    for (const std::string& package : library_packages(backend)) folders.push_back(site / package);
  }
  return folders;
}

void add_library_folder(const fs::path& folder) {
  const std::lock_guard lock(folders_mutex);
  std::vector<fs::path>& folders = added_folders();
  if (std::find(folders.begin(), folders.end(), folder) == folders.end()) folders.push_back(folder);
}

Backend& find_backend(const std::string& name) {
  const std::lock_guard lock(opened_mutex);
  return *find_opened(name).backend;
}

Backend& use_backend(const std::string& name) {
  const std::lock_guard lock(opened_mutex);
  Opened& opened = find_opened(name);
  if (!opened.used_in) opened.used_in.emplace();
  if (opened.used_in->is_here()) return *opened.backend;
  throw BackendError(forked_message(concat("backend '", name, "' was used")));
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
      all.push_back({.name = known.name,
                     .version = backend.version(),
                     .precisions = backend.precisions(0),
                     .why_build_only = backend.why_build_only(),
                     .install = known.install,
                     .runs_on_gpu = known.runs_on_gpu,
                     .loads_other_versions = backend.has_portable_plans()});
    } catch (const BackendError& error) {
      all.push_back({.name = known.name,
                     .why_not = error.what(),
                     .install = known.install,
                     .runs_on_gpu = known.runs_on_gpu});
    }
  }
  return all;
}

}  // namespace resrt
