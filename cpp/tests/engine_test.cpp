#include "resrt/engine.h"

#include <cmath>
#include <gtest/gtest.h>
#include <limits>
#include <numeric>
#include <set>
#include <string>

#include "engine/percentile.h"
#include "resrt/error.h"
#include "resrt/models.h"
#include "resrt/timing.h"
#include "support.h"

namespace resrt::test {
namespace {

TEST(Engine, AcceptsPointersAndSpans) {
  const Engine engine = tiny_engine();
  const std::vector<float> images = noise(engine, 5);  // max_batch is 2
  std::vector<float> by_pointer(5 * 5);
  std::vector<float> by_span(5 * 5);
  engine.infer(images.data(), 5, by_pointer.data());
  engine.infer(images, by_span);
  EXPECT_EQ(by_span, by_pointer);
  EXPECT_EQ(engine.infer(images), by_pointer);
  EXPECT_EQ(engine.infer({}).size(), 0U);
  EXPECT_NE(by_pointer, std::vector<float>(5 * 5));
}

TEST(Engine, NormalisesPictures) {
  const std::vector<float> mean = {0.5F, 0.25F, 0.0F};
  const std::vector<float> std = {0.5F, 0.25F, 1.0F};
  const Graph graph = tiny_graph();
  const Engine engine = Engine::build(graph, random_weights(graph),
                                      {.precision = Precision::fp32,
                                       .max_batch = 2,
                                       .notes = {.preprocessing = {.mean = mean, .std = std}}});
  std::vector<uint8_t> planes(3 * 3 * 144);
  std::vector<uint8_t> interleaved(planes.size());
  std::vector<float> images(planes.size());
  for (size_t i = 0; i < planes.size(); ++i) {
    const size_t image = i / (3 * 144);
    const size_t channel = i / 144 % 3;
    planes[i] = static_cast<uint8_t>(i * 37 % 256);
    interleaved[image * 3 * 144 + i % 144 * 3 + channel] = planes[i];
    images[i] = (static_cast<float>(planes[i]) / 255.0F - mean[channel]) / std[channel];
  }
  const std::vector<float> expected = engine.infer(images);
  EXPECT_EQ(engine.infer(planes, PixelLayout::nchw), expected);
  EXPECT_EQ(engine.infer(interleaved, PixelLayout::nhwc), expected);
  EXPECT_THROW(engine.infer(std::vector<uint8_t>(431), PixelLayout::nchw), InputError);
  EXPECT_THROW(tiny_engine().infer(planes, PixelLayout::nchw), InputError);
}

TEST(Engine, RejectsInvalidBatchSizes) {
  EXPECT_THROW(tiny_engine({.warm_up = std::vector{3}}), InputError);
  EXPECT_THROW(tiny_engine({.batch_sizes = {0}}), InputError);
}

TEST(Engine, TimesEachLayer) {
  const Engine engine = tiny_engine({.optimize_for_throughput = true, .profile = true});
  const std::vector<float> images = noise(engine, 2);
  EXPECT_EQ(engine.infer(images), tiny_engine().infer(images));
  std::set<std::string> layers;
  double total = 0;
  for (const StepTime& step : engine.profile(images.data(), 2, 20)) {
    layers.insert(step.layers.begin(), step.layers.end());
    total += step.ms;
  }
  // OpenVINO counts whole microseconds, and omits what takes less, as the pooling may here.
  layers.insert("pool");
  // The batch normalisation and the ReLU are part of the convolution.
  EXPECT_EQ(layers, (std::set<std::string>{"conv", "attention", "pool", "fc"}));
  EXPECT_GT(total, 0);
}

TEST(Engine, RejectsInvalidProfiles) {
  const Engine engine = tiny_engine({.profile = true});
  const std::vector<float> images = noise(engine, 3);
  EXPECT_THROW(engine.profile(images.data(), 3), InputError);  // max_batch is 2
  EXPECT_THROW(engine.profile(images.data(), 0), InputError);
  EXPECT_THROW(engine.profile(images.data(), 1, 0), InputError);
  EXPECT_THROW(tiny_engine().profile(images.data(), 1), InputError);
  const Engine of_sizes = tiny_engine({.batch_sizes = {2}, .profile = true});
  EXPECT_FALSE(of_sizes.profile(images.data(), 2).empty());
}

TEST(Engine, RejectsInvalidBatches) {
  const Engine engine = tiny_engine();
  std::vector<float> logits(5);
  EXPECT_THROW(engine.infer(nullptr, -1, nullptr), InputError);
  EXPECT_THROW(engine.infer(std::vector<float>(3 * 12 * 12 + 1)), InputError);
  EXPECT_THROW(engine.infer(noise(engine, 2), logits), InputError);
  EXPECT_THROW(engine.infer({}, logits), InputError);
}

TEST(Engine, GivesNanForImagesThatAreNotFinite) {
  const Engine engine = tiny_engine();
  std::vector<float> images = noise(engine, 5);
  const std::vector<float> expected = engine.infer(images);
  const auto image_size = static_cast<size_t>(engine.info().input.size());
  images[0] = std::numeric_limits<float>::infinity();
  images[4 * image_size - 1] = std::numeric_limits<float>::quiet_NaN();  // the fourth image's last
  const std::vector<float> logits = engine.infer(images);
  for (size_t i = 0; i < logits.size(); ++i) {
    if (i / 5 == 0 || i / 5 == 3) {
      EXPECT_TRUE(std::isnan(logits[i])) << "logit " << i;
    } else {
      EXPECT_EQ(logits[i], expected[i]) << "logit " << i;
    }
  }
}

TEST(Engine, ComputesTheSelectedOutputs) {
  Graph graph = tiny_graph();
  const Weights weights = random_weights(graph);
  const Engine usual = Engine::build(graph, weights, {.precision = Precision::fp32});
  graph = select_outputs(graph, {"features", "logits"});
  const TemporaryFile file("outputs.engine");
  Engine::build(graph, weights, {.precision = Precision::fp32, .max_batch = 2}).save(file.path());
  const Engine engine = Engine::load(file.path());
  ASSERT_EQ(engine.info().outputs, (std::vector<EngineOutput>{{"features", {8}}, {"logits", {5}}}));

  const std::vector<float> images = noise(engine, 3);
  std::vector<float> features(24);
  std::vector<float> logits(15);
  const std::vector<float*> outputs = {features.data(), logits.data()};
  engine.infer(images.data(), 3, outputs);
  EXPECT_EQ(logits, usual.infer(images));
  for (size_t i = 0; i < logits.size(); ++i) {
    const float* weight = weights.at("fc.weight").data.get() + i % 5 * 8;
    float sum = weights.at("fc.bias").data.get()[i % 5];
    for (size_t c = 0; c < 8; ++c) sum += weight[c] * features[i / 5 * 8 + c];
    EXPECT_NEAR(logits[i], sum, 1e-5F);
  }
  EXPECT_THROW(engine.infer(images), InputError);
  EXPECT_THROW(engine.infer(images.data(), 3, logits.data()), InputError);
  EXPECT_THROW(engine.infer(images.data(), 3, std::span(outputs).first(1)), InputError);
}

TEST(Engine, OutlivesItsGraphAndWeightsAndMoves) {
  Engine engine = tiny_engine();
  const std::vector<float> images = noise(engine, 2);
  const std::vector<float> expected = engine.infer(images);
  Engine moved = std::move(engine);
  EXPECT_EQ(moved.infer(images), expected);
  engine = tiny_engine();
  EXPECT_EQ(engine.infer(images), expected);
}

TEST(Engine, IsTheSameAfterSavingAndLoading) {
  const TemporaryFile file("saved.engine");
  const Engine engine = tiny_engine();
  engine.save(file.path());
  const Engine loaded = Engine::load(file.path());
  const std::vector<float> images = noise(engine, 3);
  EXPECT_EQ(loaded.infer(images), engine.infer(images));
  EXPECT_EQ(loaded.info().model, "tiny");
  EXPECT_EQ(loaded.info().precision, Precision::fp32);
  EXPECT_EQ(loaded.info().input, (Shape{3, 12, 12}));
  EXPECT_EQ(loaded.info().classes, 5);
  EXPECT_EQ(loaded.info().max_batch, 2);
}

TEST(Engine, ThrowsTheMatchingError) {
  const Graph graph = tiny_graph();
  const Weights weights = random_weights(graph);
  EXPECT_THROW(Engine::build(graph, {}), WeightsError);
  EXPECT_THROW(Engine::build(graph, weights, {.max_batch = 0}), InputError);
  EXPECT_THROW(Engine::build(graph, weights, {}, {.threads = -1}), InputError);
  EXPECT_THROW(Engine::build(graph, weights, {.backend = "none"}), BackendError);
  EXPECT_THROW(Engine::build(graph, weights, {.notes = {.labels = {"one"}}}), InputError);
  EXPECT_THROW(Engine::build(graph, weights, {.tensorrt = TensorRTOptions()}), InputError);
  EXPECT_THROW(tiny_engine({.device = 0}), InputError);
  EXPECT_THROW(tiny_engine({.tensorrt = TensorRTLoadOptions()}), InputError);
  EXPECT_THROW(Engine::load("/nowhere/x.engine"), FileError);
  EXPECT_THROW(tiny_engine().save("/nowhere/x.engine"), FileError);
  EXPECT_THROW(parse_precision("fp64"), PrecisionError);
  // All of them derive from Error.
  EXPECT_THROW(Engine::load("/nowhere/x.engine"), Error);
}

// The same numbers as in tests/measuring/test_timing.py.
TEST(Percentile, IsOneOfTheMeasuredValues) {
  struct Case {
    size_t runs;  // that take 1, 2, 3, … ms
    double median, p90, p99;
  };
  const Case cases[] = {
      {1, 1, 1, 1},     {2, 1, 2, 2},      {9, 5, 9, 9},       {10, 5, 9, 10},
      {30, 15, 27, 30}, {100, 50, 90, 99}, {101, 51, 91, 100}, {1000, 500, 900, 990},
  };
  for (const auto& [runs, median, p90, p99] : cases) {
    std::vector<double> milliseconds(runs);
    std::iota(milliseconds.begin(), milliseconds.end(), 1.0);
    EXPECT_EQ(percentile(milliseconds, 50), median) << runs;
    EXPECT_EQ(percentile(milliseconds, 90), p90) << runs;
    EXPECT_EQ(percentile(milliseconds, 99), p99) << runs;
  }
}

TEST(Engine, MeasuresLatency) {
  const Engine engine = tiny_engine();
  const Timing timing = measure_latency(engine, 3, 9);
  EXPECT_EQ(timing.batch, 3);
  EXPECT_EQ(timing.repeats, 9);
  EXPECT_GT(timing.min_ms, 0);
  EXPECT_LE(timing.min_ms, timing.median_ms);
  EXPECT_LE(timing.median_ms, timing.p90_ms);
  EXPECT_LE(timing.p90_ms, timing.p99_ms);
  EXPECT_GE(timing.seconds, 9 * timing.min_ms / 1000);
  EXPECT_DOUBLE_EQ(timing.images_per_second(), 3 * 9 / timing.seconds);
  EXPECT_THROW(measure_latency(engine, 0), InputError);
  EXPECT_THROW(measure_latency(engine, 1, 0), InputError);
}

}  // namespace
}  // namespace resrt::test
