#include "kernels/plans/plan_cache.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <string>

#include "kernels/core/error.h"
#include "kernels/plans/choice.h"

namespace depthstill::plans {
namespace {

namespace fs = std::filesystem;

class PlanCacheFile : public ::testing::Test {
 protected:
  void SetUp() override { fs::remove_all(folder_); }
  void TearDown() override { fs::remove_all(folder_); }

  static std::string contents(const std::string& file) {
    std::ifstream in(file);
    return {std::istreambuf_iterator<char>(in), {}};
  }

  static std::string header(const std::string& identity) {
    return concat_text("depthstill plans ", kPlansVersion, " ", identity, "\n");
  }

  std::string folder_ = (fs::path(::testing::TempDir()) / ("plan_cache_" + std::to_string(::getpid()))).string();
};

TEST_F(PlanCacheFile, IsReadBackByTheNextProcess) {
  PlanCache first(folder_, "NVIDIA H100 80GB HBM3 cudnn 91900");
  EXPECT_FALSE(first.find("conv2d (1, 2)").has_value());
  first.put("conv2d (1, 2)", R"(plain {"a":[1,2]})");
  first.put("conv2d (3, 4)", "matmul");
  const PlanCache second(folder_, "NVIDIA H100 80GB HBM3 cudnn 91900");
  EXPECT_EQ(second.find("conv2d (1, 2)"), R"(plain {"a":[1,2]})");
  EXPECT_EQ(second.find("conv2d (3, 4)"), "matmul");
  EXPECT_EQ(fs::path(second.file()).filename(), "plans-NVIDIA_H100_80GB_HBM3_cudnn_91900.txt");
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_), {}), 1) << "a temporary file was left";
}

TEST_F(PlanCacheFile, IsIgnoredForAnotherVersionAndThenReplaced) {
  PlanCache old(folder_, "gpu 1");
  old.put("key", "old");
  fs::copy_file(old.file(), fs::path(folder_) / "plans-gpu_2.txt");
  PlanCache now(folder_, "gpu 2");
  EXPECT_FALSE(now.find("key").has_value());
  now.put("key", "new");
  EXPECT_EQ(contents(now.file()), header("gpu 2") + "key\tnew\n");
  EXPECT_EQ(PlanCache(folder_, "gpu 1").find("key"), "old");
}

TEST_F(PlanCacheFile, IsIgnoredWhereItIsOlderThanOurKernels) {
  const std::string file = PlanCache(folder_, "gpu").file();
  fs::create_directories(folder_);
  std::ofstream(file) << "depthstill plans " << kPlansVersion - 1 << " gpu\nkey\told\n";
  EXPECT_FALSE(PlanCache(folder_, "gpu").find("key").has_value());
  std::ofstream(file) << header("gpu") << "key\tnow\n";
  EXPECT_EQ(PlanCache(folder_, "gpu").find("key"), "now");
}

TEST_F(PlanCacheFile, DropsLinesThatAreNotRecords) {
  const std::string file = PlanCache(folder_, "gpu").file();
  fs::create_directories(folder_);
  std::ofstream(file, std::ios::binary) << header("gpu") << "no tab\n\tno key\nno record\t\n\x01\x02\xff\n"
                                        << "good\tkept\ncut off\tin the mid";
  PlanCache cache(folder_, "gpu");
  EXPECT_EQ(cache.find("good"), "kept");
  for (const char* key : {"no tab", "", "no record", "cut off"}) EXPECT_FALSE(cache.find(key).has_value()) << key;
  cache.put("more", "record");
  EXPECT_EQ(contents(file), header("gpu") + "good\tkept\nmore\trecord\n");
}

TEST_F(PlanCacheFile, KeepsWhatAnotherProcessWroteMeanwhile) {
  PlanCache a(folder_, "gpu"), b(folder_, "gpu");
  a.put("both", "from a");
  a.put("a", "1");
  b.put("b", "2");
  b.put("both", "from b");
  const PlanCache after(folder_, "gpu");
  EXPECT_EQ(after.find("a"), "1");
  EXPECT_EQ(after.find("b"), "2");
  EXPECT_EQ(after.find("both"), "from b");
}

TEST_F(PlanCacheFile, WithoutAFolderThatCanBeWrittenRemembersForItself) {
  fs::create_directories(folder_);
  const std::string in_the_way = (fs::path(folder_) / "file").string();
  std::ofstream(in_the_way) << "not a folder";
  for (const std::string& folder : {std::string(), in_the_way + "/cache"}) {
    PlanCache cache(folder, "gpu");
    cache.put("key", "record");
    EXPECT_EQ(cache.find("key"), "record");
    EXPECT_FALSE(PlanCache(folder, "gpu").find("key").has_value());
  }
}

TEST_F(PlanCacheFile, RefusesTextsOfSeveralLines) {
  PlanCache cache(folder_, "gpu");
  EXPECT_THROW(cache.put("two\nlines", "record"), Error);
  EXPECT_THROW(cache.put("key", "a\tb"), Error);
  EXPECT_THROW(cache.put("key", ""), Error);
}

// ---- the choice -----------------------------------------------------------------------------------------------------

struct Choice : PlanCacheFile {
  Chooser<int> chooser(PlanCache* cache) {
    Chooser<int> by;
    by.cache = cache;
    by.record = [](const int& way) { return "way " + std::to_string(way); };
    by.rebuild = [](const std::string& record) -> std::optional<int> {
      if (record.rfind("way ", 0) != 0) return std::nullopt;
      return std::stoi(record.substr(4));
    };
    return by;
  }
  std::function<double(const int&, double)> fake_timer() {
    return [this](const int& way, double best) {
      timed.push_back(way);
      best_before.push_back(best);
      if (way < 0) throw Error("does not run");
      return 100.0 - way;  // the last is the fastest
    };
  }

  std::vector<int> timed;
  std::vector<double> best_before;
};

TEST_F(Choice, TakesTheFastestAndRemembersIt) {
  PlanCache cache(folder_, "gpu");
  Chooser<int> by = chooser(&cache);
  by.milliseconds = fake_timer();
  const auto candidates = [](Wanted) { return std::vector<int>{1, 5, 3}; };
  EXPECT_EQ(choose<int>("key", by, candidates), 5);
  EXPECT_EQ(timed, (std::vector<int>{1, 5, 3}));
  EXPECT_EQ(best_before, (std::vector<double>{std::numeric_limits<double>::infinity(), 99.0, 95.0}));
  EXPECT_EQ(cache.find("key"), "way 5");

  timed.clear();
  PlanCache next(folder_, "gpu");
  by.cache = &next;
  const auto none = [](Wanted) -> std::vector<int> { throw Error("asked for candidates although one is remembered"); };
  EXPECT_EQ(choose<int>("key", by, none), 5);
  EXPECT_TRUE(timed.empty());
}

TEST_F(Choice, MeasuresAgainWhereARecordIsNotAcceptedAnyMore) {
  PlanCache cache(folder_, "gpu");
  cache.put("key", "stale");
  Chooser<int> by = chooser(&cache);
  by.milliseconds = fake_timer();
  EXPECT_EQ(choose<int>("key", by, [](Wanted) { return std::vector<int>{2, 1}; }), 2);
  EXPECT_EQ(PlanCache(folder_, "gpu").find("key"), "way 2");
}

TEST_F(Choice, MeasuresAgainWhereWhatIsRememberedDoesNotRun) {
  PlanCache cache(folder_, "gpu");
  cache.put("key", "way 9");
  Chooser<int> by = chooser(&cache);
  by.milliseconds = fake_timer();
  by.run = [](const int& way) { check(way != 9, "does not run any more"); };
  EXPECT_EQ(choose<int>("key", by, [](Wanted) { return std::vector<int>{2, 1}; }), 2);
  EXPECT_EQ(PlanCache(folder_, "gpu").find("key"), "way 2");
}

TEST_F(Choice, TakesAWayThatHasNoRecordWithoutRememberingIt) {
  PlanCache cache(folder_, "gpu");
  Chooser<int> by = chooser(&cache);
  by.milliseconds = fake_timer();
  by.log = true;
  by.record = [](const int&) -> std::string { throw Error("has no text"); };
  EXPECT_EQ(choose<int>("key", by, [](Wanted) { return std::vector<int>{2, 1}; }), 2);
  EXPECT_FALSE(cache.find("key").has_value());
  by.milliseconds = nullptr;
  EXPECT_EQ(choose<int>("key", by, [](Wanted) { return std::vector<int>{2, 1}; }), 2);
}

TEST_F(Choice, TakesAnInfiniteTimeOnlyWhereThereIsNoOther) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  Chooser<int> by = chooser(nullptr);
  by.milliseconds = [](const int& way, double) { return way < 0 ? kInfinity : 1.0; };
  EXPECT_EQ(choose<int>("key", by, [](Wanted) { return std::vector<int>{-1, 4, -2}; }), 4);
  EXPECT_EQ(choose<int>("key", by, [](Wanted) { return std::vector<int>{-1, -2}; }), -1);
}

TEST_F(Choice, LeavesOutWhatDoesNotRun) {
  Chooser<int> by = chooser(nullptr);
  by.milliseconds = fake_timer();
  EXPECT_EQ(choose<int>("key", by, [](Wanted) { return std::vector<int>{-7, 4}; }), 4);
  try {
    choose<int>("the problem", by, [](Wanted) { return std::vector<int>{-7}; });
    FAIL();
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "no way to compute the problem runs: does not run");
  }
  EXPECT_THROW(choose<int>("key", by, [](Wanted) { return std::vector<int>{}; }), Error);
}

struct Messages {
  Messages() {
    set_message_sink([this](const std::string& line) { lines.push_back(line); });
  }
  ~Messages() { set_message_sink(nullptr); }
  std::vector<std::string> lines;
};

TEST_F(Choice, SaysOfEveryWayHowLongItTook) {
  const Messages messages;
  PlanCache cache(folder_, "gpu");
  Chooser<int> by = chooser(&cache);
  by.milliseconds = [](const int& way, double) {
    check(way >= 0, "does not run");
    return way == 9 ? std::numeric_limits<double>::infinity() : 0.25 * way;
  };
  by.describe = [](const int& way) { return concat_text("engine ", way); };
  by.log = true;
  const auto candidates = [](Wanted) { return std::vector<int>{-7, 9, 2, 1}; };
  EXPECT_EQ(choose<int>("a map", by, candidates), 1);
  by.run = [](const int&) {};
  EXPECT_EQ(choose<int>("a map", by, candidates), 1);
  by.milliseconds = nullptr;
  by.cache = nullptr;
  EXPECT_EQ(choose<int>("a map", by, candidates), -7);
  EXPECT_EQ(messages.lines,
            (std::vector<std::string>{
                "plan: a map: 1 of 4, engine -7, refused: does not run",
                "plan: a map: 2 of 4, engine 9, cannot be captured in a graph", "plan: a map: 3 of 4, engine 2, 0.5 ms",
                "plan: a map: 4 of 4, engine 1, 0.25 ms", "plan: a map: 4 of 4, engine 1, taken",
                "plan: a map: remembered, engine 1, taken", "plan: a map: untimed 1 of 4, engine -7, taken"}));
}

// The first refusal is the cause, the others may be its consequences.
TEST_F(Choice, ReportsTheFirstRefusal) {
  Chooser<int> by = chooser(nullptr);
  by.run = [](const int& way) {
    if (way == 3) throw OutOfMemory("no memory for 3");
    fail("no way ", way);
  };
  for (const bool timed_ways : {false, true}) {
    if (timed_ways) by.milliseconds = [&](const int& way, double) { return by.run(way), 0.0; };
    for (const int first : {1, 3}) {
      try {
        choose<int>("a map", by, [&](Wanted) { return std::vector<int>{first, 2}; });
        ADD_FAILURE();
      } catch (const Error& error) {
        EXPECT_STREQ(error.what(), first == 1 ? "no way to compute a map runs: no way 1"
                                              : "no way to compute a map runs: no memory for 3");
        EXPECT_EQ(dynamic_cast<const OutOfMemory*>(&error) != nullptr, first == 3);
      }
    }
  }
}

// A kernel's bad address ends everything that the process does on the device.
TEST_F(Choice, EndsWhereTheDeviceHasFailed) {
  PlanCache cache(folder_, "gpu");
  Chooser<int> by = chooser(&cache);
  bool broken = false;
  int tried = 0;
  by.run = [&](const int& way) {
    ++tried;
    broken = broken || way == 8;
    check(!broken && way != 7, "way ", way, " does not run");
  };
  by.check_device = [&] { check(!broken, "illegal address"); };
  const auto message = [&](const std::vector<int>& ways) -> std::string {
    broken = false;
    tried = 0;
    try {
      choose<int>("a map", by, [&](Wanted) { return ways; });
      return "";
    } catch (const Error& error) {
      return error.what();
    }
  };
  const auto expected = [](const char* which) {
    return concat_text(
        "the device failed while running a map, ", which,
        ", way 8: way 8 does not run; then illegal address; DEPTHSTILL_SYNC=1 with --no-graph names the kernel");
  };
  EXPECT_EQ(message({7, 8, 6}), expected("untimed 2 of 3"));
  EXPECT_EQ(message({7, 6}), "");
  by.milliseconds = [&](const int& way, double) { return by.run(way), 1.0; };
  EXPECT_EQ(message({7, 8, 6}), expected("2 of 3"));
  EXPECT_EQ(tried, 2) << "nothing is asked of a device that has failed";
  EXPECT_FALSE(cache.find("a map").has_value());
  cache.put("a map", "way 8");
  EXPECT_EQ(message({6}), expected("remembered"));
}

TEST_F(Choice, WithoutATimerTakesTheFirstAndRemembersNothing) {
  PlanCache cache(folder_, "gpu");
  EXPECT_EQ(choose<int>("key", chooser(&cache), [](Wanted) { return std::vector<int>{1, 5}; }), 1);
  EXPECT_FALSE(cache.find("key").has_value());
}

TEST_F(Choice, WithoutATimerGoesOnToTheNextWhereOneDoesNotRun) {
  std::vector<Wanted> asked;
  const auto candidates = [&](Wanted wanted) {
    asked.push_back(wanted);
    return wanted == Wanted::kFirst ? std::vector<int>{-1} : std::vector<int>{-1, -2, 4, 3};
  };
  std::vector<int> run;
  Chooser<int> by = chooser(nullptr);
  by.run = [&](const int& way) {
    run.push_back(way);
    check(way >= 0, "way ", way, " does not run");
  };
  EXPECT_EQ(choose<int>("key", by, candidates), 4);
  EXPECT_EQ(run, (std::vector<int>{-1, -1, -2, 4}));
  EXPECT_EQ(asked, (std::vector<Wanted>{Wanted::kFirst, Wanted::kAll}));

  run.clear();
  EXPECT_EQ(choose<int>("key", by, [](Wanted) { return std::vector<int>{2, -1}; }), 2);
  EXPECT_EQ(run, (std::vector<int>{2}));
  try {
    choose<int>("the problem", by, [](Wanted) { return std::vector<int>{-1, -2}; });
    FAIL();
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "no way to compute the problem runs: way -1 does not run");
  }
}

TEST_F(Choice, TakesTheCandidateThatATestAsksFor) {
  PlanCache cache(folder_, "gpu");
  cache.put("key", "way 9");
  Chooser<int> by = chooser(&cache);
  by.milliseconds = fake_timer();
  by.candidate = 1;
  EXPECT_EQ(choose<int>("key", by, [](Wanted) { return std::vector<int>{7, 3}; }), 3);
  EXPECT_TRUE(timed.empty());
  by.candidate = 9;
  EXPECT_EQ(choose<int>("key", by, [](Wanted) { return std::vector<int>{7, 3}; }), 3) << "the last of fewer";
}

}  // namespace
}  // namespace depthstill::plans
