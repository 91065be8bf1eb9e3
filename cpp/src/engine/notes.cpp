#include "engine/notes.h"

#include <algorithm>
#include <array>

#include "resrt/error.h"
#include "text.h"

namespace resrt {
namespace {

constexpr std::array kInterpolations = {"nearest", "bilinear", "bicubic", "lanczos"};

void check_labels(const std::vector<std::string>& labels, int classes) {
  if (!labels.empty() && labels.size() != static_cast<size_t>(classes)) {
    throw InputError(concat("there are ", labels.size(), " labels for ", classes,
                            " classes; give one for each"));
  }
  for (const std::string& label : labels) {
    // The engine file ends each label by a line break.
    if (label.find('\n') != std::string::npos) {
      throw InputError(concat("the label '", label, "' has a line break; labels are single lines"));
    }
  }
}

}  // namespace

void check_notes(const EngineNotes& notes, int channels, int classes) {
  check_labels(notes.labels, classes);
  const Preprocessing& steps = notes.preprocessing;
  if (steps.resize < 1) {
    throw InputError(concat("preprocessing must resize to at least 1 pixel, not ", steps.resize));
  }
  if (std::find(kInterpolations.begin(), kInterpolations.end(), steps.interpolation) ==
      kInterpolations.end()) {
    throw InputError(concat("there is no interpolation named '", steps.interpolation,
                            "'; choose one of ", join(kInterpolations)));
  }
  const auto count = static_cast<size_t>(channels);
  // An engine that is given no normalisation takes prepared batches only.
  const bool has_none = steps.mean.empty() && steps.std.empty();
  const bool fits = steps.mean.size() == count && steps.std.size() == count &&
                    std::all_of(steps.std.begin(), steps.std.end(), [](float x) { return x > 0; });
  if (!has_none && !fits) {
    throw InputError(concat("mean and std must have a value for each of ", channels,
                            " channels, those of std above 0, not (", join(steps.mean), ") and (",
                            join(steps.std), ")"));
  }
}

}  // namespace resrt
