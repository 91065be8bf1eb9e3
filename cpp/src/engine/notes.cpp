#include "engine/notes.h"

#include "resrt/error.h"
#include "text.h"

namespace resrt {

void check_labels(const std::vector<std::string>& labels, int classes) {
  if (!labels.empty() && labels.size() != static_cast<size_t>(classes)) {
    throw InputError(concat("expected one label for each class, got ", labels.size(),
                            " labels for ", classes, " classes"));
  }
  for (const std::string& label : labels) {
    // The engine file ends each label with a line break.
    if (label.find('\n') != std::string::npos) {
      throw InputError(
          concat("the label '", label, "' has a line break; labels must be single lines"));
    }
  }
}

void check_calibration(const Calibration& calibration, const std::string& network,
                       const std::string& weights_sha256) {
  if (calibration.network != network) {
    throw InputError(concat("the calibration is of ", shown(calibration.network), ", not of ",
                            network, "; calibrate this network"));
  }
  if (calibration.weights_sha256 != weights_sha256) {
    throw InputError(concat("the calibration of ", network,
                            " is of other weights than these; calibrate the network with these"));
  }
}

void check_notes(const EngineNotes& notes, const Shape& input, int classes) {
  check_labels(notes.labels, classes);
  check_preprocessing(notes.preprocessing, input);
}

}  // namespace resrt
