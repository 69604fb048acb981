#include "kernels/core/library_options.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <map>
#include <optional>
#include <string>

#include "kernels/core/error.h"

namespace depthstill {
namespace {

// The environment with these variables, and without the others that count, for the life of the object.
class Environment {
 public:
  explicit Environment(const std::map<std::string, std::string>& variables) {
    for (const char* name :
         {"DEPTHSTILL_DETERMINISTIC", "DEPTHSTILL_FP32", "DEPTHSTILL_MEASURE", "DEPTHSTILL_ALL_PLANS",
          "DEPTHSTILL_LOG_PLANS", "DEPTHSTILL_WORKSPACE_MB", "DEPTHSTILL_CACHE", "XDG_CACHE_HOME", "HOME"}) {
      const char* value = std::getenv(name);
      before_[name] = value == nullptr ? std::nullopt : std::optional<std::string>(value);
      ::unsetenv(name);
    }
    for (const auto& [name, value] : variables) ::setenv(name.c_str(), value.c_str(), 1);
  }
  ~Environment() {
    for (const auto& [name, value] : before_) {
      if (value)
        ::setenv(name.c_str(), value->c_str(), 1);
      else
        ::unsetenv(name.c_str());
    }
  }
  Environment(const Environment&) = delete;
  Environment& operator=(const Environment&) = delete;

 private:
  std::map<std::string, std::optional<std::string>> before_;
};

LibraryOptions options_with(const std::map<std::string, std::string>& variables) {
  const Environment environment(variables);
  return library_options_from_environment();
}

TEST(LibraryOptions, AreTheDefaultsInAnEmptyEnvironment) { EXPECT_EQ(options_with({}), LibraryOptions{}); }

TEST(LibraryOptions, AreReadFromTheEnvironment) {
  const LibraryOptions options = options_with({{"DEPTHSTILL_DETERMINISTIC", "1"},
                                               {"DEPTHSTILL_FP32", "strict"},
                                               {"DEPTHSTILL_MEASURE", "0"},
                                               {"DEPTHSTILL_ALL_PLANS", "1"},
                                               {"DEPTHSTILL_LOG_PLANS", "1"},
                                               {"DEPTHSTILL_WORKSPACE_MB", "12"},
                                               {"DEPTHSTILL_CACHE", "/somewhere"}});
  EXPECT_TRUE(options.deterministic);
  EXPECT_TRUE(options.strict_fp32);
  EXPECT_FALSE(options.measure);
  EXPECT_TRUE(options.all_plans);
  EXPECT_TRUE(options.log);
  EXPECT_EQ(options.workspace_cap_bytes, 12 << 20);
  EXPECT_EQ(options.cache_folder, "/somewhere");
  EXPECT_FALSE(options_with({{"DEPTHSTILL_FP32", "tf32"}}).strict_fp32);
}

TEST(LibraryOptions, TheCacheIsWhereTheUserKeepsCaches) {
  EXPECT_EQ(options_with({{"HOME", "/home/me"}}).cache_folder, "/home/me/.cache/depthstill");
  EXPECT_EQ(options_with({{"HOME", "/home/me"}, {"XDG_CACHE_HOME", "/caches"}}).cache_folder, "/caches/depthstill");
  EXPECT_EQ(options_with({{"HOME", "/home/me"}, {"DEPTHSTILL_CACHE", ""}}).cache_folder, "") << "not kept";
}

TEST(LibraryOptions, OtherValuesAreRefusedByName) {
  for (const auto& [name, value] : std::map<std::string, std::string>{{"DEPTHSTILL_DETERMINISTIC", "yes"},
                                                                      {"DEPTHSTILL_FP32", "fp16"},
                                                                      {"DEPTHSTILL_WORKSPACE_MB", "-1"},
                                                                      {"DEPTHSTILL_MEASURE", ""}}) {
    try {
      options_with({{name, value}});
      ADD_FAILURE() << name;
    } catch (const Error& error) {
      EXPECT_EQ(std::string(error.what()).find(name + ": expected "), 0u) << error.what();
    }
  }
}

}  // namespace
}  // namespace depthstill
