#include "bindings/device_arrays.h"

#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include <pybind11/stl.h>
#include <pybind11/typing.h>

#include "bindings/bindings.h"
#include "bindings/dlpack.h"
#include "bindings/gil.h"
#include "resrt/error.h"
#include "text.h"

namespace py = pybind11;

namespace resrt {
namespace {

// Another library's array. It takes ownership from the DLPack capsule, and calls its deleter when
// it is destroyed.
class ForeignArray {
 public:
  explicit ForeignArray(const py::object& capsule)
      : managed_(static_cast<dlpack::ManagedTensor*>(
            PyCapsule_GetPointer(capsule.ptr(), dlpack::kCapsule))) {
    if (managed_ == nullptr) {
      PyErr_Clear();
      throw InputError("invalid batch: its __dlpack__ must return a capsule named \"dltensor\"");
    }
    PyCapsule_SetName(capsule.ptr(), dlpack::kUsedCapsule);
  }
  ForeignArray(const ForeignArray&) = delete;
  ForeignArray& operator=(const ForeignArray&) = delete;
  ~ForeignArray() {
    if (managed_->deleter != nullptr) managed_->deleter(managed_);
  }

  uintptr_t pointer() const {
    return reinterpret_cast<uintptr_t>(tensor().data) + tensor().byte_offset;
  }
  bool is_float32() const {
    const dlpack::Type type = tensor().type;
    return type.code == dlpack::kFloat && type.bits == 32 && type.lanes == 1;
  }
  py::typing::Tuple<int64_t, py::ellipsis> shape() const {
    return py::tuple(
        py::cast(std::vector<int64_t>(tensor().shape, tensor().shape + tensor().rank)));
  }
  bool is_contiguous() const {
    const dlpack::Tensor& array = tensor();
    if (array.strides == nullptr) return true;
    int64_t stride = 1;
    for (int axis = array.rank - 1; axis >= 0; --axis) {
      if (array.shape[axis] != 1 && array.strides[axis] != stride) return false;
      stride *= array.shape[axis];
    }
    return true;
  }

 private:
  const dlpack::Tensor& tensor() const { return managed_->tensor; }

  dlpack::ManagedTensor* managed_;
};

// The contents of a capsule that this module exports.
struct Exported {
  dlpack::ManagedTensor managed;
  std::shared_ptr<const DeviceArray> array;
  int64_t shape[2];
  int64_t strides[2];
};

py::object to_capsule(const LogitsOnDevice& logits) {
  auto exported = std::make_unique<Exported>();
  exported->array = logits.array;
  exported->shape[0] = logits.batch;
  exported->shape[1] = logits.classes;
  exported->strides[0] = logits.classes;
  exported->strides[1] = 1;
  exported->managed = {
      .tensor = {.data = logits.array->data(),
                 .device = {dlpack::kCuda, logits.device},
                 .rank = 2,
                 .type = {dlpack::kFloat, 32, 1},
                 .shape = exported->shape,
                 .strides = exported->strides,
                 .byte_offset = 0},
      .owner = exported.get(),
      .deleter = [](dlpack::ManagedTensor* self) { delete static_cast<Exported*>(self->owner); }};
  py::capsule capsule(&exported->managed, dlpack::kCapsule, [](PyObject* object) {
    // A capsule that nobody consumed still has its name, and its contents must be freed here.
    if (PyCapsule_IsValid(object, dlpack::kCapsule) == 0) return;
    auto* managed =
        static_cast<dlpack::ManagedTensor*>(PyCapsule_GetPointer(object, dlpack::kCapsule));
    managed->deleter(managed);
  });
  exported.release();
  return capsule;
}

}  // namespace

std::shared_ptr<const DeviceArray> keep_batch(std::unique_ptr<DeviceArray> logits,
                                              py::object batch) {
  const auto free = [kept = batch.release().ptr()](const DeviceArray* array) {
    {
      // Deleting waits for the GPU. Other threads can run meanwhile.
      std::optional<ReleasedGil> release;
      if (Py_IsInitialized() != 0 && PyGILState_Check() != 0) release.emplace();
      delete array;
    }
    if (Py_IsInitialized() == 0) return;  // the interpreter and its objects are gone
    const HeldGil gil;
    Py_DECREF(kept);
  };
  return {logits.release(), free};
}

void bind_device_arrays(py::module_& module) {
  py::class_<ForeignArray>(module, "ForeignArray",
                           "Another library's array, from its DLPack capsule.")
      .def(py::init<const py::object&>(), py::arg("capsule"))
      .def_property_readonly("pointer", &ForeignArray::pointer)
      .def_property_readonly("shape", &ForeignArray::shape)
      .def_property_readonly("is_float32", &ForeignArray::is_float32)
      .def_property_readonly("is_contiguous", &ForeignArray::is_contiguous);

  py::class_<LogitsOnDevice>(module, "LogitsOnDevice",
                             "Logits in a GPU's memory, float32 (N, classes).")
      .def_property_readonly(
          "shape", [](const LogitsOnDevice& self) { return std::pair(self.batch, self.classes); })
      .def("__dlpack_device__",
           [](const LogitsOnDevice& self) { return std::pair(dlpack::kCuda, self.device); })
      .def(
          "__dlpack__",
          [](const LogitsOnDevice& self, std::optional<int64_t> stream, const py::object&,
             const std::optional<std::pair<int, int>>& device, std::optional<bool> copy) {
            if (device && *device != std::pair(int{dlpack::kCuda}, self.device)) {
              throw py::buffer_error("logits can only be exported to the GPU that they are on");
            }
            if (copy.value_or(false))
              throw py::buffer_error("logits can only be exported uncopied");
            constexpr int64_t no_waiting = -1;
            if (stream && (*stream == 0 || *stream < no_waiting)) {
              throw py::value_error(concat("invalid CUDA stream for DLPack: ", *stream));
            }
            if (stream != no_waiting) {
              self.array->make_wait(static_cast<StreamHandle>(stream.value_or(kDefaultStream)));
            }
            return to_capsule(self);
          },
          py::kw_only(), py::arg("stream") = py::none(), py::arg("max_version") = py::none(),
          py::arg("dl_device") = py::none(), py::arg("copy") = py::none(),
          "Return a DLPack capsule. The consumer's stream waits for the logits.")
      .def_property_readonly("__cuda_array_interface__", [](const LogitsOnDevice& self) {
        py::typing::Dict<py::str, py::object> dict;
        dict["shape"] = std::pair(self.batch, self.classes);
        dict["typestr"] = "<f4";
        dict["data"] = std::pair(reinterpret_cast<uintptr_t>(self.array->data()), false);
        dict["version"] = 3;
        dict["strides"] = py::none();
        dict["stream"] = self.stream;
        return dict;
      });
}

}  // namespace resrt
