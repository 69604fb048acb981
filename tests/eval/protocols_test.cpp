#include "engine/eval/protocols.h"

#include <gtest/gtest.h>

#include "engine/eval/protocol.h"
#include "kernels/core/error.h"

namespace depthstill {
namespace {

std::string sentence(const std::string& dataset, const std::string& protocol, Alignment alignment) {
  Protocol made = make_protocol(dataset, protocol);
  made.alignment = alignment;
  return describe(made);
}

TEST(Protocols, EverySetHasOneThatItIsScoredByIfNoneIsNamed) {
  for (const Benchmark& set : benchmarks()) {
    const std::string name = make_protocol(set.name).rules->name;
    const bool old =
        set.name == std::string("kitti") || set.name == std::string("nyu") || set.name == std::string("plain");
    EXPECT_EQ(name, old ? "tie-kd" : set.name == std::string("moge") ? "moge" : "marigold") << set.name;
  }
}

TEST(Protocols, TheirSetsAndBoxesAreInTheTableOfBenchmarks) {
  for (const ProtocolRow& row : protocols()) {
    for (const ProtocolSet& set : row.sets) EXPECT_NO_THROW(make_protocol(set.dataset, row.name)) << row.name;
  }
}

std::string message_of(const std::string& dataset, const std::string& protocol) {
  try {
    make_protocol(dataset, protocol);
  } catch (const Error& error) {
    return error.what();
  }
  return "made";
}

TEST(Protocols, UnknownOnesAndSetsWithoutThemAreRefused) {
  EXPECT_EQ(message_of("nyu", "monodepth2"),
            "protocol monodepth2: expected a set on which it is defined (kitti), got 'nyu'");
  EXPECT_EQ(message_of("nyu", "eigen"),
            "protocol: expected tie-kd, marigold, monodepth2, dav2-metric, moge or ultralytics, got 'eigen'");
}

// What is printed with every figure: two protocols that differ have different sentences.
TEST(Protocols, Sentences) {
  const struct {
    const char* dataset;
    const char* protocol;
    Alignment alignment;
    const char* expected;
  } cases[] = {
      {"kitti", "tie-kd", Alignment::kNone,
       "protocol tie-kd on kitti: 352x1216 bottom-centre frame (KB crop), no resize; truth valid where "
       "0.001 < d < 80 m; Garg crop rows 143:349, columns 43:1172; prediction clamped to [0.001, 80] m; no "
       "alignment, no median scaling; mean of per-image values"},
      {"nyu", "tie-kd", Alignment::kMedian,
       "protocol tie-kd on nyu: whole image at its own size; truth valid where 0.001 < d < 10 m; Eigen crop "
       "rows 45:471, columns 41:601; prediction clamped to [0.001, 10] m; median scaling per image: "
       "median(truth) / median(prediction); mean of per-image values"},
      {"kitti", "marigold", Alignment::kDisparityLs,
       "protocol marigold on kitti: 352x1216 bottom-centre frame (KB crop), no resize; truth valid where "
       "1e-05 < d < 80 m; Eigen crop rows 117:321, columns 43:1172; prediction clamped to [1e-05, 80] m; "
       "scale and shift per image by least squares in inverse depth over valid pixels with a prediction > "
       "0; inverse depth raised to at least 0.001 1/m; mean of per-image values"},
      {"nyu", "marigold", Alignment::kDepthLs,
       "protocol marigold on nyu: whole image at its own size; truth valid where 0.001 < d < 10 m; Eigen "
       "crop rows 45:471, columns 41:601; prediction clamped to [0.001, 10] m; scale and shift per image by "
       "least squares in depth over valid pixels; mean of per-image values"},
      {"eth3d", "marigold", Alignment::kDisparityLs,
       "protocol marigold on eth3d: whole image at its own size; truth valid where d > 1e-05 m; no crop; "
       "prediction clamped to at least 1e-05 m; scale and shift per image by least squares in inverse depth "
       "over valid pixels with a prediction > 0, on every row and the columns of a longer side of 1024 "
       "pixels; inverse depth raised to at least 0.001 1/m; mean of per-image values"},
      {"diode", "marigold", Alignment::kNone,
       "protocol marigold on diode: whole image at its own size; truth valid where the set's mask says so; "
       "no crop; prediction clamped to [0.6, 350] m; no alignment, no median scaling; mean of per-image "
       "values"},
      {"scannet", "marigold", Alignment::kDepthL1,
       "protocol marigold on scannet: whole image at its own size; truth valid where 0.001 < d < 10 m; no "
       "crop; prediction clamped to [0.001, 10] m; scale and shift of least mean relative error per image; "
       "mean of per-image values"},
      {"kitti", "monodepth2", Alignment::kMedian,
       "protocol monodepth2 on kitti: whole image at its own size; truth valid where 0.001 < d < 80 m; Garg "
       "crop rows 0.408108:0.991892, columns 0.0359477:0.964052 of the frame; prediction of another size "
       "resized bilinearly on pixel centres; prediction clamped to [0.001, 80] m; median scaling per image: "
       "median(truth) / median(prediction); mean of per-image values"},
      {"kitti", "dav2-metric", Alignment::kNone,
       "protocol dav2-metric on kitti: whole image at its own size; truth valid where 0.001 <= d <= 80 m; "
       "no crop; prediction of another size resized bilinearly with corners aligned; prediction not "
       "clamped; no alignment, no median scaling; silog = sqrt(mean e^2 - 0.5 (mean e)^2); images with "
       "fewer than 10 valid pixels left out; mean of per-image values"},
      {"eth3d", "moge", Alignment::kDisparityLs,
       "protocol moge on eth3d: whole image at its own size; truth valid where known and at most 1000 times "
       "its 1 % quantile; no crop; prediction not clamped; scale and shift per image by least squares in "
       "inverse depth over valid pixels; inverse depth raised to that of the greatest valid truth; abs_rel "
       "divides by truth + 1e-06 m; mean of per-image values"},
      {"nyu", "moge", Alignment::kScaleL1,
       "protocol moge on nyu: whole image at its own size; truth valid where known and at most 1000 times "
       "its 1 % quantile; no crop; prediction not clamped; scale of least mean relative error per image, on "
       "a 64x64 grid; abs_rel divides by truth + 1e-06 m; mean of per-image values"},
      {"nyu", "moge", Alignment::kDisparityL1,
       "protocol moge on nyu: whole image at its own size; truth valid where known and at most 1000 times "
       "its 1 % quantile; no crop; prediction not clamped; scale and shift per image by least mean relative "
       "error of inverse depth over valid pixels, on a 64x64 grid; inverse depth raised to that of the "
       "greatest valid truth; abs_rel divides by truth + 1e-06 m; mean of per-image values"},
      {"plain", "tie-kd", Alignment::kLogLs,
       "protocol tie-kd on plain: whole image at its own size; truth valid where 0.001 < d < 80 m; no crop; "
       "prediction clamped to [0.001, 80] m; exponent and factor per image by least squares in the logarithm "
       "of depth over valid pixels with a prediction > 0; mean of per-image values"},
      {"nyu", "ultralytics", Alignment::kMedian,
       "protocol ultralytics on nyu: whole image at its own size; truth valid where 0.001 < d < 10 m; no "
       "crop; prediction clamped to [0.001, 10] m; median scaling per image: lower median(truth) / lower "
       "median(prediction), those below 0.001 raised to it; predictions that are NaN or infinite take a "
       "limit; images with fewer than 10 valid pixels left out; mean of per-image values"},
  };
  for (const auto& c : cases) EXPECT_EQ(sentence(c.dataset, c.protocol, c.alignment), c.expected);
}

TEST(Protocols, SentencesOfWhatOptionsChange) {
  Protocol protocol = make_protocol("plain", "tie-kd");
  protocol.metric_space = Quantity::kInverseDepth;
  protocol.nonfinite_to_limits = true;
  EXPECT_EQ(describe(protocol),
            "protocol tie-kd on plain: whole image at its own size; truth valid where 0.001 < d < 80 m; no crop; "
            "prediction clamped to [0.001, 80] m; no alignment, no median scaling; metrics of inverse depth, 1/m; "
            "predictions that are NaN or infinite take a limit; mean of per-image values");
}

// All of them on all of their sets, from the colon on, without an alignment.
TEST(Protocols, EverySetHasItsSentence) {
  const std::string unaligned = "; no alignment, no median scaling", mean = "; mean of per-image values",
                    kb = "352x1216 bottom-centre frame (KB crop), no resize; ", whole = "whole image at its own size; ",
                    least_ten = "; images with fewer than 10 valid pixels left out",
                    moge = whole +
                           "truth valid where known and at most 1000 times its 1 % quantile; no crop; prediction "
                           "not clamped" +
                           unaligned + "; abs_rel divides by truth + 1e-06 m" + mean;
  const auto within = [&](const char* limits, const std::string& box) {
    return concat_text("truth valid where ", limits, " m; ", box, "; prediction ");
  };
  const auto dav2 = [&](const char* limits) {
    return concat_text(whole, within(limits, "no crop"), "of another size resized bilinearly with corners aligned; ",
                       "prediction not clamped", unaligned, "; silog = sqrt(mean e^2 - 0.5 (mean e)^2)", least_ten,
                       mean);
  };
  const auto ultralytics = [&](const char* limits, const char* clamp) {
    return concat_text(whole, within(limits, "no crop"), "clamped to [", clamp, "] m", unaligned,
                       "; predictions that are NaN or infinite take a limit", least_ten, mean);
  };
  const std::string garg = "Garg crop rows 143:349, columns 43:1172",
                    eigen = "Eigen crop rows 117:321, columns 43:1172",
                    nyu = whole + within("0.001 < d < 10", "Eigen crop rows 45:471, columns 41:601") +
                          "clamped to [0.001, 10] m" + unaligned + mean,
                    plain = whole + within("0.001 < d < 80", "no crop") + "clamped to [0.001, 80] m" + unaligned + mean;
  const struct {
    const char* protocol;
    const char* dataset;
    std::string expected;
  } cases[] = {
      {"tie-kd", "kitti", kb + within("0.001 < d < 80", garg) + "clamped to [0.001, 80] m" + unaligned + mean},
      {"tie-kd", "nyu", nyu},
      {"tie-kd", "plain", plain},
      {"marigold", "kitti", kb + within("1e-05 < d < 80", eigen) + "clamped to [1e-05, 80] m" + unaligned + mean},
      {"marigold", "nyu", nyu},
      {"marigold", "eth3d", whole + within("d > 1e-05", "no crop") + "clamped to at least 1e-05 m" + unaligned + mean},
      {"marigold", "scannet",
       whole + within("0.001 < d < 10", "no crop") + "clamped to [0.001, 10] m" + unaligned + mean},
      {"marigold", "diode",
       whole + "truth valid where the set's mask says so; no crop; prediction clamped to [0.6, 350] m" + unaligned +
           mean},
      {"marigold", "plain", plain},
      {"monodepth2", "kitti",
       whole + within("0.001 < d < 80", "Garg crop rows 0.408108:0.991892, columns 0.0359477:0.964052 of the frame") +
           "of another size resized bilinearly on pixel centres; prediction clamped to [0.001, 80] m" + unaligned +
           mean},
      {"dav2-metric", "kitti", dav2("0.001 <= d <= 80")},
      {"dav2-metric", "nyu", dav2("0.001 <= d <= 20")},
      {"dav2-metric", "scannet", dav2("0.001 <= d <= 20")},
      {"dav2-metric", "plain", dav2("0.001 <= d <= 80")},
      {"moge", "kitti", moge},
      {"moge", "nyu", moge},
      {"moge", "eth3d", moge},
      {"moge", "scannet", moge},
      {"moge", "diode", moge},
      {"moge", "moge", moge},
      {"moge", "plain", moge},
      {"ultralytics", "kitti", ultralytics("0.001 < d < 80", "0.001, 80")},
      {"ultralytics", "nyu", ultralytics("0.001 < d < 10", "0.001, 10")},
      {"ultralytics", "plain", ultralytics("0.001 < d < 80", "0.001, 80")},
  };
  size_t next = 0;
  for (const ProtocolRow& row : protocols()) {
    for (const ProtocolSet& set : row.sets) {
      ASSERT_LT(next, std::size(cases)) << row.name << " on " << set.dataset;
      const auto& c = cases[next++];
      ASSERT_EQ(concat_text(c.protocol, ' ', c.dataset), concat_text(row.name, ' ', set.dataset));
      EXPECT_EQ(sentence(c.dataset, c.protocol, Alignment::kNone),
                concat_text("protocol ", c.protocol, " on ", c.dataset, ": ", c.expected));
    }
  }
  EXPECT_EQ(next, std::size(cases));
}

}  // namespace
}  // namespace depthstill
