#include "backends/openvino/model_xml.h"

#include <functional>
#include <map>
#include <string_view>

#include "backends/openvino/profile.h"
#include "text.h"

namespace resrt::openvino {
namespace {

// Returns a text as the value of an attribute in XML.
std::string escaped(const std::string& text) {
  std::string result;
  for (const char character : text) {
    switch (character) {
      case '&': result += "&amp;"; break;
      case '<': result += "&lt;"; break;
      case '>': result += "&gt;"; break;
      case '"': result += "&quot;"; break;
      default: result += character;
    }
  }
  return result;
}

// Returns the value of an attribute of an XML tag, or nothing.
std::string_view attribute(std::string_view tag, const std::string& name) {
  const std::string start = " " + name + "=\"";
  const size_t begin = tag.find(start);
  if (begin == std::string_view::npos) return {};
  const std::string_view value = tag.substr(begin + start.size());
  return value.substr(0, value.find('"'));
}

}  // namespace

std::string with_kernels(const std::string& xml, const std::vector<KernelChoice>& kernels) {
  std::map<std::string, std::string, std::less<>> priorities;  // by layer
  for (const KernelChoice& choice : kernels) {
    if (choice.priorities.empty()) continue;
    for (const std::string& layer : choice.layers) {
      priorities.emplace(escaped(layer), choice.priorities);
    }
  }
  if (priorities.empty()) return xml;
  std::string result;
  result.reserve(xml.size() + xml.size() / 8);
  constexpr std::string_view layer_tag = "<layer ";
  constexpr std::string_view data_tag = "<data";
  size_t copied = 0;
  for (size_t at = xml.find(layer_tag); at != std::string::npos;
       at = xml.find(layer_tag, at + layer_tag.size())) {
    const std::string_view tag = std::string_view(xml).substr(at, xml.find('>', at) - at);
    const std::string_view type = attribute(tag, "type");
    if (type != "Convolution" && type != "GroupConvolution") continue;
    const auto found = priorities.find(layer_of_node(attribute(tag, "name")));
    if (found == priorities.end()) continue;
    const size_t end = xml.find(data_tag, at) + data_tag.size();
    result.append(xml, copied, end - copied);
    result += concat(" PrimitivesPriority=\"", found->second, "\"");
    copied = end;
  }
  return result.append(xml, copied);
}

}  // namespace resrt::openvino
