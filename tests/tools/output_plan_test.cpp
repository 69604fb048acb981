#include "tools/output_plan.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include "tests/data/small_set.h"
#include "tools/recipe.h"
#include "tools/usage.h"

namespace depthstill {
namespace {

namespace fs = std::filesystem;
using namespace testing_files;

class Plan : public testing::Test {
 protected:
  Plan() {
    for (const char* name : {"in", "out", "elsewhere"}) make_folder(folder_ / name);
    for (const char* name : {"in/a.png", "in/b.png"}) write_file(folder_ / name, std::string_view("x"));
  }
  std::string at(const std::string& name) const { return folder_ / name; }

  // The message of the UsageError of a command that reads in/a.png and writes `output` below out/.
  std::string refusal(const std::string& output, Existing existing = Existing::kOverwrite) const {
    OutputPlan plan(existing, at("out"));
    plan.reads(at("in/a.png"));
    plan.writes(output, at("in/a.png"));
    return refusal(plan);
  }
  static std::string refusal(OutputPlan& plan) {
    try {
      plan.approve();
    } catch (const UsageError& error) {
      return error.what();
    }
    return "approved, though this was expected to be refused";
  }

  TemporaryFolder folder_;
};

TEST_F(Plan, AnOutputIsNoInputHoweverItIsSpelled) {
  fs::create_symlink(at("in/a.png"), at("out/link.png"));
  fs::create_hard_link(at("in/a.png"), at("out/hard.png"));
  fs::create_directory_symlink("../in", at("out/way"));
  for (const std::string& output : {at("in/a.png"), at("in/./a.png"), at("out/../in/a.png"), at("out/link.png"),
                                    at("out/hard.png"), at("out/way/a.png"), fs::relative(at("in/a.png")).string()}) {
    for (const Existing existing : {Existing::kRefuse, Existing::kOverwrite, Existing::kSkip}) {
      OutputPlan plan(existing);
      plan.reads(at("in/a.png"));
      plan.writes(output, at("in/a.png"));
      expect_clear(refusal(plan), output + ": expected an output that is no input");
    }
    OutputPlan report(Existing::kRefuse);
    report.reads(at("in/a.png"));
    report.replaces(output, "--json");
    expect_clear(refusal(report), output + ": expected an output that is no input");
  }
}

TEST_F(Plan, RecipesAndDataSetsAreInputs) {
  DatasetSpec spec = write_small_set(folder_, 2);
  write_file(at("base.toml"), std::string_view("[train]\nepochs = 3\n"));
  write_file(at("recipe.toml"), std::string_view("inherit = \"base.toml\"\n"));
  for (const char* name : {"base.toml", "recipe.toml", "list.txt", "images/1.png", "depth/0.png"}) {
    OutputPlan plan(Existing::kRefuse);
    plan.reads(load_recipe(at("recipe.toml")));
    plan.reads(Dataset(spec));
    plan.replaces(at(name), "--json");
    expect_clear(refusal(plan), at(name) + ": expected an output that is no input");
  }
}

TEST_F(Plan, AnOutputHasOneSource) {
  const auto two = [&](const std::string& first, const std::string& second, const std::string& source) {
    OutputPlan plan(Existing::kOverwrite, at("out"));
    plan.writes(at(first), at("in/a.png"));
    plan.writes(at(second), source);
    return refusal(plan);
  };
  fs::create_directory_symlink("../out", at("out/again"));
  fs::create_symlink("c.png", at("out/d.png"));
  for (const auto& [first, second] :
       std::vector<std::pair<std::string, std::string>>{{"out/c.png", "out/c.png"},
                                                        {"out/c.png", "out//./c.png"},
                                                        {"out/c.png", "out/again/c.png"},
                                                        {"out/c.png", "out/d.png"},
                                                        {"out/new/c.png", "out/new/x/../c.png"}}) {
    const std::string message = two(first, second, at("in/b.png"));
    expect_clear(message, at(second) + ": expected one source");
    EXPECT_NE(message.find(at("in/a.png") + " and " + at("in/b.png")), std::string::npos) << message;
  }
  EXPECT_EQ(two("out/c.png", "out/c.png", at("in/../in/a.png")).find("approved"), 0u);
  OutputPlan reports(Existing::kRefuse);
  reports.replaces(at("out/m"), "--json");
  reports.replaces(at("out/m"), "--csv");
  expect_clear(refusal(reports), "--json and --csv");
}

TEST_F(Plan, NothingLeavesTheFolder) {
  fs::create_directory_symlink("../elsewhere", at("out/way"));
  fs::create_symlink("../elsewhere/new.png", at("out/c.png"));
  for (const char* output : {"out/way/c.png", "out/c.png", "out/../c.png", "out/way/x/c.png", "outside/c.png"}) {
    expect_clear(refusal(at(output)), at(output) + ": expected a path below");
  }
  fs::create_directory_symlink("out", at("named"));  // the folder itself may be a link
  fs::create_symlink("d.png", at("out/inside.png"));
  for (const char* output : {"named/c2.png", "out/x/y/../c.png", "out/inside.png"}) {
    OutputPlan plan(Existing::kRefuse, at("named"));
    plan.writes(at(output), at("in/a.png"));
    EXPECT_NO_THROW(plan.approve()) << output;
  }
}

TEST_F(Plan, WhatExistsIsKeptUnlessSaid) {
  for (const char* name : {"out/a.npy", "out/b.npy", "out/m.json"}) write_file(at(name), std::string_view("mine"));
  const auto plan_of = [&](Existing existing) {
    OutputPlan plan(existing, at("out"));
    for (const char* name : {"a", "b", "c"}) plan.writes(at(concat_text("out/", name, ".npy")), name);
    plan.replaces(at("out/m.json"), "--json");
    return plan;
  };
  OutputPlan refused = plan_of(Existing::kRefuse), over = plan_of(Existing::kOverwrite),
             rest = plan_of(Existing::kSkip);
  const std::string message = refusal(refused);
  expect_clear(message, at("out/a.npy"));
  EXPECT_NE(message.find("(and 1 more such); give --overwrite or --skip-existing"), std::string::npos) << message;
  over.approve();
  EXPECT_FALSE(over.skips(at("out/a.npy")));
  rest.approve();
  EXPECT_TRUE(rest.skips(at("out/a.npy")) && rest.skips(at("out/b.npy")));
  EXPECT_FALSE(rest.skips(at("out/c.npy")) || rest.skips(at("out/m.json")));
}

TEST_F(Plan, PlacesThatCannotBeWrittenAreNamedAtOnce) {
  const auto error_for = [&](const std::string& output) {
    OutputPlan plan(Existing::kOverwrite);
    plan.writes(output, "a");
    return error_of([&] { plan.approve(); });
  };
  make_folder(at("out/folder.json"));
  expect_clear(error_for(at("out/folder.json")), "folder.json: expected a file to write, found a folder");
  expect_clear(error_for(at("missing/m.json")), "missing/m.json: expected a writable folder");
  expect_clear(error_for(at("in/a.png/m.json")), "in/a.png/m.json: expected a writable folder");
  OutputPlan made(Existing::kRefuse, at("new/one"));  // these folders are made
  made.replaces(at("new/one/m.json"), "--json");
  made.writes(at("new/one/x/c.png"), "a");
  made.replaces("/dev/null", "--json");
  made.replaces("/dev/null", "--csv");
  EXPECT_NO_THROW(made.approve());
  made.replaces(at("new/one/y/m.json"), "--json");
  expect_clear(error_of([&] { made.approve(); }), "y/m.json: expected a writable folder");
  if (geteuid() == 0) return;  // root may write anywhere
  fs::permissions(at("out"), fs::perms(0500));
  expect_clear(error_for(at("out/m.json")), "m.json: expected a writable folder, found: Permission denied");
  fs::permissions(at("out"), fs::perms(0700));
}

}  // namespace
}  // namespace depthstill
