#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

#include "engine/eval/ranks.h"
#include "engine/io/atomic_file.h"
#include "engine/io/map_file.h"
#include "engine/io/text_file.h"
#include "tests/io/test_files.h"
#include "tools/args.h"
#include "tools/paper_tables.h"
#include "tools/report/report.h"

namespace depthstill {
namespace {

namespace fs = std::filesystem;
using testing_files::error_of;
using testing_files::TemporaryFolder;

PaperTables shipped(const std::string& name) {
  return read_paper_tables(std::string(DEPTHSTILL_SOURCE_DIR) + "/tools/tables/" + name);
}

TEST(PaperTables, ThePapersAreComplete) {
  const struct {
    const char* file;
    std::vector<size_t> rows;
  } cases[] = {{"tie_kd.toml", {22, 6, 3, 9, 7, 10, 15}}, {"distill_any_depth.toml", {8, 4, 6, 3, 11}}};
  for (const auto& c : cases) {
    const PaperTables tables = shipped(c.file);
    ASSERT_EQ(tables.tables.size(), c.rows.size());
    for (size_t t = 0; t < c.rows.size(); ++t) {
      EXPECT_EQ(tables.tables[t].number, std::to_string(t + 1));
      EXPECT_EQ(tables.tables[t].rows.size(), c.rows[t]) << c.file << ' ' << t + 1;
    }
  }
  const PaperTables tie_kd = shipped("tie_kd.toml");
  EXPECT_EQ(tie_kd.tables[0].rows.front().system, "baseline_mobilenet");
  EXPECT_EQ(tie_kd.tables[5].rows.front().system, "tie_kd_adabins,loss.alpha=0.05");
  EXPECT_EQ(tie_kd.evaluations.at("like_bts").source, "kitti");
  EXPECT_TRUE(std::isnan(tie_kd.tables[2].rows[0].paper[8]));
}

TEST(Ranks, EqualValuesShareTheSmallerOne) {
  const std::vector<RankedColumn> columns = {{{0.1, 0.1, 0.3, NAN}, true}, {{0.9, 0.8, 0.95, 1}, false}};
  const auto ranks = average_ranks(columns, 4);
  EXPECT_EQ(ranks[0], 1.5);
  EXPECT_EQ(ranks[1], 2);
  EXPECT_EQ(ranks[2], 2);
  EXPECT_FALSE(ranks[3].has_value());
}

// Distill Any Depth's Table 4 prints 1.9, 2.6 and 1.4.
TEST(Ranks, AreThoseOfThePaper) {
  const PaperTables tables = shipped("distill_any_depth.toml");
  TableFigures ours;
  const PaperTable& table = tables.tables[3];
  for (const TableRow& row : table.rows) {
    for (size_t c = 0; c < table.columns.size(); ++c) ours[{row.system, table.columns[c].name()}] = row.paper[c];
  }
  const std::string text = tables_text(tables, ours, {});
  const size_t begin = text.find("average rank");
  ASSERT_NE(begin, std::string::npos);
  for (const char* rank : {"1.9    1.9", "2.6    2.6", "1.4    1.4"}) {
    EXPECT_NE(text.find(rank, begin), std::string::npos) << text.substr(begin);
  }
}

// Two systems and the third's place, over maps of 4 x 3 pixels.
class TablesCommand : public testing::Test {
 protected:
  void SetUp() override {
    for (const char* name : {"gt", "a", "b"}) fs::create_directories(folder_ / name);
    DepthMap map{4, 3, std::vector<float>(12, 2.0f)};
    write_map(folder_ / "gt/0.pfm", map, {});
    map.values.assign(12, 2.5f);
    write_map(folder_ / "a/0.pfm", map, {});
    map.values.assign(12, 2.2f);
    write_map(folder_ / "b/0.pfm", map, {});
    write_file(folder_ / "list.txt", "0.png gt/0.pfm\n");
    write_file(folder_ / "paper.toml",
               "paper = \"P\"\n[evaluations.one]\narguments = [\"--dataset\", \"plain\"]\n"
               "[evaluations.two]\narguments = [\"--dataset\", \"nyu\"]\n"
               "[tables.1]\ntitle = \"T\"\ncolumns = [\"one abs_rel\", \"two d1\"]\n[tables.1.rows]\n"
               "\"z v1.0\" = [0.26, \"-\"]\n\"b\" = [0.1, 0.9]\n\"c\" = [0.3, 1]\n");
    write_file(folder_ / "systems.toml", "[data]\none = [\"--root\", \"" + folder_.path() + "\", \"--list\", \"" +
                                             (folder_ / "list.txt") + "\"]\n[systems.\"z v1.0\"]\none = \"" +
                                             (folder_ / "a") + "\"\n[systems.b]\none = \"" + (folder_ / "b") + "\"\n");
  }

  std::string run_tables(const std::vector<std::string>& more = {}) {
    CLI::App app("test");
    depthstill::Run run;
    add_tables_command(app, run);
    std::vector<std::string> arguments{"tables", folder_ / "paper.toml", "--systems", folder_ / "systems.toml",
                                       "--out",  folder_ / "out",        "--threads", "1"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    app.parse(std::vector<std::string>(arguments.rbegin(), arguments.rend()));
    testing::internal::CaptureStdout();
    const std::string error = error_of([&] { run(); });
    const std::string printed = testing::internal::GetCapturedStdout();
    return error.empty() ? printed : error;
  }

  TemporaryFolder folder_;
};

TEST_F(TablesCommand, SetsThePaperBesideOurs) {
  const std::string text = run_tables();
  const size_t notes = text.find("evaluations:\n");
  ASSERT_NE(notes, std::string::npos) << text;
  EXPECT_EQ(text.substr(0, notes),
            "P, Table 1: T\n"
            "        one abs_rel                 two d1\n"
            "system    ours   paper  difference  ours   paper  difference\n"
            "z v1.0  0.2500  0.2600     -0.0100     -       -           -\n"
            "b       0.1000  0.1000     +0.0000     -  0.9000           -\n"
            "c            -  0.3000           -     -  1.0000           -\n"
            "\n");
  const size_t missing = text.find("missing in ");
  const std::string evaluations = text.substr(notes, missing - notes);
  EXPECT_EQ(evaluations.find("  one, 1 images: protocol tie-kd on plain"), 13u) << evaluations;
  EXPECT_NE(evaluations.find("; for z v1.0; b\n"), std::string::npos) << evaluations;
  EXPECT_EQ(text.substr(missing),
            "missing in " + (folder_ / "systems.toml") +
                ":\n  data.two, where the data of the evaluation are\n  b: predictions or weights for two\n"
                "  c: predictions or weights for one, two\n");
  EXPECT_EQ(read_text(folder_ / "out/tables.txt"), text);
  const std::string csv = read_text(folder_ / "out/tables.csv");
  EXPECT_NE(csv.find("1,\"z v1.0\",one abs_rel,0.25,0.26,-0.01\n"), std::string::npos) << csv;
  EXPECT_NE(csv.find("1,\"b\",two d1,,0.9,\n"), std::string::npos) << csv;
}

// The page of the tables, and the same in the report of a run, which has it once however often it was asked for.
TEST_F(TablesCommand, AreASectionOfTheReport) {
  write_report(folder_ / "report.html", Report{});
  const auto page_of = [&](const char* name) {
    const std::vector<uint8_t> bytes = read_bytes(folder_ / name);
    return std::string(bytes.begin(), bytes.end());
  };
  const std::string before = page_of("report.html");
  run_tables({"--report", folder_ / "report.html"});
  const std::string page = page_of("out/tables.html"), report = page_of("report.html");
  for (const char* part : {"<td>z v1.0</td><td>0.2500</td><td>0.2600</td><td>-0.0100</td>", "one abs_rel ↓", "two d1 ↑",
                           "<li>c: predictions or weights for one, two</li>", "Worst images of b, one</summary>",
                           "<td>0.png</td><td>12</td><td>0.1000</td>"}) {
    EXPECT_NE(page.find(part), std::string::npos) << part;
    EXPECT_NE(report.find(part), std::string::npos) << part;
  }
  const std::string begin = "<section aria-label='P'>", end = "</section></main></body></html>\n";
  EXPECT_EQ(report.find(before.substr(0, before.size() - 22) + begin), 0u);
  EXPECT_TRUE(report.ends_with(end));
  run_tables({"--skip-existing", "--report", folder_ / "report.html"});
  EXPECT_EQ(page_of("report.html"), report);
  EXPECT_EQ(run_tables({"--skip-existing", "--report", folder_ / "list.txt"}),
            (folder_ / "list.txt") + ": expected the report.html of a run, found something else");
}

TEST_F(TablesCommand, KeepsResultsIfToldSo) {
  const std::string text = run_tables(), result = folder_ / "out/b.one.json";
  EXPECT_NE(run_tables().find("--overwrite"), std::string::npos);
  write_file(result, "{\"abs_rel\": 0.5, \"images\": 7, \"protocol\": \"x\"}");
  const std::string kept = run_tables({"--skip-existing"});
  EXPECT_NE(kept.find("b       0.5000  0.1000     +0.4000"), std::string::npos) << kept;
  EXPECT_NE(kept.find("  one, 7 images: x; for b\n"), std::string::npos) << kept;
  write_file(result, "{\"abs_rel\": 0.5}");
  EXPECT_NE(run_tables({"--skip-existing"}).find("expected a result of eval --json"), std::string::npos);
  fs::remove(folder_ / "out/b.one.csv");  // half a result is none
  EXPECT_EQ(run_tables({"--skip-existing"}), text);
  EXPECT_EQ(run_tables({"--overwrite"}), text);
}

TEST_F(TablesCommand, OneFailureDoesNotStopTheOthers) {
  const std::string text = run_tables();
  fs::rename(folder_ / "a", folder_ / "c");
  const std::string error = run_tables({"--overwrite"}), failed = read_text(folder_ / "out/tables.txt");
  EXPECT_NE(error.find("1 of 2 evaluations failed, the first: z v1.0, one: "), std::string::npos) << error;
  EXPECT_NE(failed.find("z v1.0       -  0.2600"), std::string::npos) << failed;
  EXPECT_NE(failed.find("b       0.1000  0.1000"), std::string::npos) << failed;
  EXPECT_NE(failed.find("failed:\n  z v1.0, one: "), std::string::npos) << failed;
  fs::rename(folder_ / "c", folder_ / "a");
  EXPECT_EQ(run_tables({"--overwrite"}), text);
}

TEST_F(TablesCommand, WhatItCannotUseIsRefused) {
  const auto with = [&](const char* file, const std::string& text) {
    write_file(folder_ / file, text);
    return run_tables();
  };
  fs::create_directories(folder_ / "out");
  write_file(folder_ / "out/notes.txt", "mine");
  EXPECT_EQ(run_tables(), (folder_ / "out") +
                              ": expected an empty folder or that of tables, found something else; give another --out");
  fs::remove(folder_ / "out/notes.txt");
  const std::string systems = folder_ / "systems.toml", paper = folder_ / "paper.toml";
  EXPECT_EQ(with("systems.toml", "[data]\nthree = [\"x\"]\n"),
            systems + ":2: 'data.three': expected the data of an evaluation (one, two)");
  EXPECT_EQ(with("systems.toml", "[systems.y]\none = \"x\"\n"),
            systems + ":2: 'y': expected a system of the tables, which has no such row");
  EXPECT_EQ(with("systems.toml", "[systems.b]\nsix = \"x\"\n"),
            systems + ":2: 'systems.b.six': expected arguments, or predictions or weights for one or two");
  EXPECT_EQ(with("paper.toml", "paper = \"P\"\n"), paper + ": expected [tables.NUMBER], found none");
  const std::string head = "paper = \"P\"\n[evaluations.one]\narguments = []\n[tables.1]\n";
  EXPECT_EQ(with("paper.toml", head + "columns = [\"six d1\"]\n"),
            paper + ":5: 'six d1': expected an evaluation and a metric, of the evaluations one");
  EXPECT_EQ(with("paper.toml", head + "columns = [\"one d1\"]\n[tables.1.rows]\na = [1, 2]\n"),
            paper + ":7: 'a': expected 1 figures, one per column, found 2");
}

}  // namespace
}  // namespace depthstill
