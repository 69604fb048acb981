#include "tools/recipe.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <random>

#include "engine/io/text_file.h"
#include "kernels/core/error.h"

namespace depthstill {
namespace {

namespace fs = std::filesystem;

class RecipeFiles : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::path(testing::TempDir()) / "recipes" / testing::UnitTest::GetInstance()->current_test_info()->name();
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  std::string write(const std::string& name, const std::string& text) const {
    std::ofstream(folder_ / name, std::ios::binary) << text;
    return (folder_ / name).string();
  }
  // The message without the folder, or "accepted".
  std::string message_of(const std::string& path, std::vector<std::string> overrides = {}) const {
    try {
      load_recipe(path, overrides);
    } catch (const Error& error) {
      std::string text = error.what();
      const std::string prefix = folder_.string() + '/';
      for (size_t at; (at = text.find(prefix)) != std::string::npos;) text.erase(at, prefix.size());
      return text;
    }
    return "accepted";
  }
  fs::path folder_;
};

TEST_F(RecipeFiles, InheritsAndOverrides) {
  fs::create_directories(folder_ / "bases");
  write("bases/a.toml", "[model]\nbins = 49\nmax_depth = 10\n[train]\nepochs = 3\n");
  write("bases/b.toml", "inherit = \"a.toml\"\n[train]\nepochs = 5\nbatch_size = 2\n");
  const std::string path = write("c.toml", "inherit = \"bases/b.toml\"\n[train]\nbatch_size = 4\n");
  const std::vector<std::string> overrides = {"model.name=resnet18_unet", "optimiser.lr=5e-4", "data.root=\"a b\"",
                                              "eval.flip=false", "train.epochs=7"};
  const Recipe recipe = load_recipe(path, overrides);
  EXPECT_EQ(recipe.name, "c");
  EXPECT_EQ(recipe.model.options.bins, 49);
  EXPECT_EQ(recipe.model.options.d_max, 10.0f);
  EXPECT_EQ(recipe.train.epochs, 7);
  EXPECT_EQ(recipe.train.batch_size, 4);
  EXPECT_EQ(recipe.model.name, "resnet18_unet");
  EXPECT_EQ(recipe.optimiser.lr, 5e-4);
  EXPECT_EQ(recipe.data.root, "a b");
  EXPECT_FALSE(recipe.eval.flip);
}

TEST_F(RecipeFiles, ProtocolAndAlignmentOfTheEvaluation) {
  const auto protocol = [&](const std::string& text) { return protocol_of(load_recipe(write("r.toml", text))); };
  const Protocol plain = protocol("[model]\nmax_depth = 30\n");
  EXPECT_STREQ(plain.rules->name, "tie-kd");
  EXPECT_EQ(plain.alignment, Alignment::kNone);
  EXPECT_EQ(plain.max_depth, 30);
  const Protocol kitti = protocol("[eval]\nprotocol = \"kitti\"\nrules = \"marigold\"\nalign = \"disparity-ls\"\n");
  EXPECT_STREQ(kitti.rules->name, "marigold");
  EXPECT_STREQ(kitti.box->name, "eigen");
  EXPECT_EQ(kitti.min_depth, 1e-5);
  EXPECT_EQ(kitti.alignment, Alignment::kDisparityLs);
  EXPECT_STREQ(protocol("[eval]\nprotocol = \"kitti\"\nrules = \"marigold\"\ncrop = \"garg\"\n").box->name, "garg");
  EXPECT_EQ(protocol("[eval]\nmedian_scaling = true\n").alignment, Alignment::kMedian);
}

TEST_F(RecipeFiles, ErrorsNameFileLineAndRemedy) {
  const struct {
    const char* text;
    const char* expected;
  } cases[] = {
      {"[model]\nbinns = 3\n", "r.toml:2: unknown key 'model.binns', did you mean 'model.bins'?"},
      {"epochs = 3\n", "r.toml:1: unknown key 'epochs', did you mean 'train.epochs'?"},
      {"[modle]\nbins = 3\n", "r.toml:1: unknown key 'modle'"},
      {"[model]\ndecoder_widths = 16\n",
       "r.toml:2: 'model.decoder_widths': expected an array of integers, found an integer 16"},
      {"[model]\ndecoder_widths = [16, 0]\n",
       "r.toml:2: 'model.decoder_widths': expected a value from 1 to 8192, found 0"},
      {"[quite.another]\nx = 1\n", "r.toml:1: unknown key 'quite'"},
      {"[model]\nbins = \"many\"\n", "r.toml:2: 'model.bins': expected an integer, found a string \"many\""},
      {"[model]\nbins = 257.5\n", "r.toml:2: 'model.bins': expected an integer, found a number 257.5"},
      {"[model]\nbins = 1\n", "r.toml:2: 'model.bins': expected a value from 2 to 4096, found 1"},
      {"[model]\nname = \"vgg\"\n", "r.toml:2: 'model.name': expected one of mobilenet_unet"},
      {"[eval]\nflip = 1\n", "r.toml:2: 'eval.flip': expected true or false, found an integer 1"},
      {"[optimiser]\nlr = 0\n", "r.toml:2: 'optimiser.lr': expected a value greater than 0, found 0"},
      {"[schedule]\nkind = \"cosine\"\n",
       "r.toml:2: 'schedule.kind': expected one_cycle, polynomial or constant, found 'cosine'"},
      {"[select]\nmetric = \"absrel\"\n", "r.toml:2: 'select.metric': metric: expected one of abs_rel"},
      {"[loss]\nname = \"l2\"\n", "r.toml:2: 'loss.name': loss: expected one of tie_kd"},
      {"model = 3\n", "r.toml:1: unknown key 'model'"},
      {"[model\n", "r.toml:1: "},
      {"inherit = 3\n", "r.toml:1: 'inherit': expected a file name, found an integer"},
      {"inherit = \"none.toml\"\n", "r.toml:1: 'inherit': none.toml: "},
      {"inherit = \"r.toml\"\n", "r.toml:1: 'inherit' leads back to r.toml"},
      {"inherit = \"a\\nb.toml\"\n", "r.toml:1: 'inherit': a\\x0ab.toml: "},
      {"[data]\nteacher_extension = \"a\\nb\"\n",
       "r.toml: data.teacher_extension: expected .png, .npy or .pfm, found 'a\\x0ab'"},
      {"[model]\nmin_depth = 9\nmax_depth = 5\n", "r.toml: model.min_depth is 9"},
      {"[model]\nhead = \"regression\"\n", "r.toml: the loss tie_kd needs model.head"},
      {"[data.train]\nlist = \"a.txt\"\n", "r.toml: the loss tie_kd learns from a teacher"},
      {"[data]\nresize_width = 64\n", "r.toml: data.resize_height and resize_width"},
      {"[eval]\ncrop = \"garg\"\n", "r.toml: eval.crop is set, but the plain protocol has no crops"},
      {"[model]\nfrozen = \"encoder\"\n",
       "r.toml: model.frozen is encoder: expected its weights in model.init, found none"},
      {"[model]\nfrozen = \"head\"\ninit = \"w.pth\"\ninit_parts = \"encoder\"\n",
       "r.toml: model.frozen is head: expected model.init_parts = \"all\", found encoder"},
      {"[eval]\nrules = \"monodepth2\"\n",
       "r.toml: eval.rules: protocol monodepth2: expected a set on which it is defined (kitti), got 'plain'"},
      {"[eval]\nmedian_scaling = true\nalign = \"depth-ls\"\n",
       "r.toml: eval.median_scaling: expected eval.align = \"median\" or none beside it, found \"depth-ls\""},
  };
  for (const auto& c : cases) {
    const std::string message = message_of(write("r.toml", c.text));
    EXPECT_EQ(message.rfind(c.expected, 0), 0u) << c.text << "gave: " << message << "\nexpected: " << c.expected;
  }
  EXPECT_NE(message_of((folder_ / "absent.toml").string()).find("absent.toml"), std::string::npos);
  const std::string long_name = "inherit = \"" + std::string(300, 'n') + "\"\n";  // no file system has it
  EXPECT_EQ(message_of(write("r.toml", long_name)).rfind("r.toml:1: 'inherit': nnn", 0), 0u);
}

TEST_F(RecipeFiles, DistillingNeedsTeachersAndARelativeHead) {
  const std::string base =
      "[model]\nname = \"midas_small\"\nhead = \"relative\"\n[loss]\nname = \"distill_any_depth\"\n"
      "[data.train]\nlist = \"a.txt\"\n[distill]\nsize = 64\npatch = 64\nleast = 80\n";
  const std::string path = write("r.toml", base + "teachers = [\"t\"]\n");
  EXPECT_EQ(message_of(path), "accepted");
  const auto with = [&](const char* setting) { return message_of(path, {setting}); };
  EXPECT_EQ(with("distill.teachers=[]"),
            "r.toml: the loss distill_any_depth learns from teachers: expected folders or weights in distill.teachers, "
            "found none");
  EXPECT_EQ(with("model.head=regression"),
            "r.toml: the loss distill_any_depth needs model.head = \"relative\", found \"regression\"");
  EXPECT_EQ(with("distill.size=70"), "r.toml: distill.size: expected a multiple of 32 for midas_small, found 70");
  EXPECT_EQ(with("distill.least=63"), "r.toml: distill.least: expected at least distill.patch, 64, found 63");
  EXPECT_EQ(with("data.train.teacher=x"),
            "r.toml: the loss distill_any_depth has its teachers in distill.teachers: expected none in "
            "data.train.teacher, found x");
  EXPECT_EQ(with("augment.flip_probability=0.25"),
            "r.toml: augment.flip_probability: expected nothing, as the loss distill_any_depth does not read it, found "
            "0.25");
  EXPECT_EQ(with("loss.mask=false").rfind("r.toml: loss.mask: expected nothing, as the loss distill_any_depth", 0), 0u);
  EXPECT_EQ(with("distill.teacher_weights=[0.0]"),
            "r.toml: distill.teacher_weights: expected one that is not 0, found none");
  EXPECT_EQ(message_of(path, {"distill.lambda_sc=0", "distill.lambda_lg=0", "distill.lambda_grad=0"}),
            "r.toml: expected distill.lambda_sc, lambda_lg or lambda_grad above 0, found all 0");
  EXPECT_EQ(with("distill.features=dinov2.pth"),
            "r.toml: distill.features: expected none for midas_small, which has no DINOv2 encoder, found dinov2.pth");
  EXPECT_EQ(with("distill.label_batch=4"),
            "r.toml: distill.label_batch: expected nothing, as no network makes labels, found 4");
  EXPECT_EQ(message_of(path, {"distill.label_batch=4", "distill.teachers=[\"t\", \"a/b.pth\"]"}), "accepted");
  EXPECT_EQ(message_of(path, {"distill.teacher_quantity=depth", "distill.teachers=[\"b.pth\"]"}),
            "r.toml: distill.teacher_quantity: expected nothing, as no teacher's maps are stored, found \"depth\"");
  EXPECT_EQ(message_of(path, {"distill.reference=true", "distill.anchor=1"}),
            "r.toml: distill.anchor: expected 0 beside distill.reference, which has no scale of its own, found 1");
  EXPECT_EQ(with("model.init_parts=encoder"),
            "r.toml: model.init_parts is encoder: expected its weights in model.init, found none");
  EXPECT_EQ(message_of(write("tie.toml", "[distill]\nnorm = \"global\"\n")),
            "tie.toml: distill.norm: expected nothing, as the loss tie_kd does not read it, found \"global\"");
  EXPECT_EQ(with("distill.teacher_weights=[0.7, 0.3]"),
            "r.toml: distill.teacher_weights: expected one for each of 1 teachers, found 2");
  EXPECT_EQ(message_of(path, {"distill.teachers=[\"a\", \"b\"]", "distill.norm=none"}),
            "r.toml: distill.norm is none: expected one teacher, found 2, whose maps have no common scale");
  EXPECT_EQ(message_of(write("loss.toml", "[loss]\nname = \"distill_any_depth\"\n")), "accepted")
      << "what `loss` reads";

  const Recipe recipe = load_recipe(path);
  EXPECT_EQ(network_record(recipe).use->side, 64);
  EXPECT_EQ(print_recipe(load_recipe(write("printed.toml", print_recipe(recipe)))), print_recipe(recipe));
}

TEST_F(RecipeFiles, OverridesAreChecked) {
  const std::string path = write("r.toml", "");
  EXPECT_EQ(message_of(path, {"train.epoch=3"}),
            "--set train.epoch=3: unknown key 'train.epoch', did you mean 'train.epochs'?");
  EXPECT_EQ(message_of(path, {"train.epochs"}), "--set train.epochs: expected key=value");
  EXPECT_EQ(message_of(path, {"train.epochs=x"}).rfind("--set train.epochs=x: 'train.epochs': expected an integer", 0),
            0u);
  EXPECT_EQ(message_of(path, {"train.epochs=3\nmodel.bins=4"}).rfind("--set ", 0), 0u);
  EXPECT_EQ(message_of(path, {"train.epochs=[1"}).rfind("--set ", 0), 0u);
  for (const std::string& assignment : {std::string("a\nb=1"), std::string("train.epochs=3\nmodel.bins=4"),
                                        std::string("model.name=\"a\\nb\""), std::string("eval.protocol=\"\\r\"")}) {
    EXPECT_EQ(message_of(path, {assignment}).find_first_of("\n\r"), std::string::npos);
  }
}

TEST_F(RecipeFiles, AnOverrideMayEmptyAValue) {
  const std::string path =
      write("r.toml",
            "[loss]\nname = \"baseline\"\n[data.train]\nlist = \"a.txt\"\n[data.val]\nlist = \"b.txt\"\n"
            "[model]\nhead = \"regression\"\n");
  EXPECT_TRUE(has_split(load_recipe(path), "val"));
  const std::vector<std::string> overrides = {"data.val.list="};
  EXPECT_FALSE(has_split(load_recipe(path, overrides), "val"));
  EXPECT_EQ(message_of(path, {"train.epochs="}),
            "--set train.epochs=: 'train.epochs': expected an integer, found a string \"\"");
}

TEST_F(RecipeFiles, WindowsEditors) {
  const Recipe recipe = load_recipe(write("r.toml", "\xef\xbb\xbf[model]\r\nbins = 49\r\n"));
  EXPECT_EQ(recipe.model.options.bins, 49);
  EXPECT_EQ(message_of(write("r.toml", std::string("\xff\xfe[\0m\0", 6))), "r.toml: expected UTF-8 text, found UTF-16");
}

TEST_F(RecipeFiles, TwoRecipesThatInheritEachOther) {
  write("a.toml", "inherit = \"b.toml\"\n");
  write("b.toml", "# first\ninherit = \"a.toml\"\n");
  EXPECT_EQ(message_of((folder_ / "a.toml").string()), "b.toml:2: 'inherit' leads back to a.toml");
}

TEST_F(RecipeFiles, LossesAreNamedThenChanged) {
  const std::string path = write("r.toml", "[loss]\nsigma = 0.3\ntop_rows = 7\nalpha = 0.25\n");
  const Recipe tie_kd = load_recipe(path);
  EXPECT_EQ(tie_kd.loss.weights["dpm"], 2.5f);
  EXPECT_EQ(tie_kd.loss.weights["ssim"], 7.5f);
  EXPECT_EQ(tie_kd.loss.top_rows, 7);
  EXPECT_EQ(tie_kd.loss.dpm.sigma, 0.3f);
  const std::vector<std::string> overrides = {"loss.name=baseline", "model.head=regression", "loss.l1_weight=2"};
  const Recipe baseline = load_recipe(path, overrides);
  EXPECT_EQ(baseline.loss.target, DepthTarget::kTruth);
  EXPECT_EQ(baseline.loss.weights["dpm"], 0.0f);
  EXPECT_EQ(baseline.loss.weights["l1"], 2.0f);
  EXPECT_EQ(baseline.loss.top_rows, 7);
}

// Nothing of KITTI is in a recipe that does not ask for it.
TEST_F(RecipeFiles, DefaultsAreNeutral) {
  const Recipe recipe = load_recipe(write("r.toml", ""));
  EXPECT_EQ(recipe.data.crop, CropRule::kNone);
  EXPECT_EQ(recipe.augment.crop, (ImageSize{0, 0}));
  EXPECT_EQ(augment_of(recipe).multiple, 4);
  EXPECT_EQ(recipe.data.depth_units_per_metre, 1000);  // millimetres
  EXPECT_EQ(recipe.data.teacher_units_per_metre, 1000);
  EXPECT_EQ(recipe.eval.protocol, "plain");
  for (const std::string& name : loss_names()) EXPECT_EQ(named_loss(name).top_rows, 0) << name;
}

// Version 0.1.0 printed rows that followed from the loss as a comment: a run of before goes on with them.
TEST_F(RecipeFiles, RowsOfAnOldPrintedRecipeStay) {
  const auto rows = [&](const std::string& line, std::vector<std::string> overrides = {}) {
    return load_recipe(write("recipe.toml", "[loss]\nname = \"tie_kd\"\n" + line + "\n[train]\nepochs = 2\n"),
                       overrides)
        .loss.top_rows;
  };
  const std::string doc = "# rows of the training crop that are left out";
  EXPECT_EQ(rows("# top_rows = 110                  " + doc), 110);
  EXPECT_EQ(rows("# top_rows = 0                    " + doc), 0);
  EXPECT_EQ(rows("top_rows = 8                      " + doc), 8);
  EXPECT_EQ(rows("# top_rows = 110"), 0) << "a comment of the user's";
  EXPECT_EQ(rows("# top_rows = 110                  " + doc, {"loss.top_rows=7"}), 7);
  const std::string printed = print_recipe(load_recipe(write("r.toml", "[loss]\nname = \"tie_kd\"\n")));
  EXPECT_NE(printed.find("\ntop_rows = 0 "), std::string::npos) << printed;
}

TEST_F(RecipeFiles, DistillAnyDepthHasATableOfItsOwn) {
  const std::string path =
      write("r.toml", "[loss]\nname = \"distill_any_depth\"\n[distill]\nnorm = \"local\"\ntrim = 0.1\n");
  const Recipe recipe = load_recipe(path);
  EXPECT_EQ(recipe.distill.norm, ContextNorm::kLocal);
  EXPECT_EQ(recipe.distill.trim, 0.1);
  EXPECT_EQ(recipe.distill.lambda_grad, 2.0f);
  EXPECT_FALSE(recipe.loss.weights.needs_bins() || recipe.loss.weights.needs_depth());
  const Recipe copy = load_recipe(write("copy.toml", print_recipe(recipe)));
  EXPECT_EQ(copy.distill.norm, recipe.distill.norm);
  EXPECT_EQ(copy.distill.trim, recipe.distill.trim);
  const std::vector<std::string> weight = {"loss.l1_weight=1"};
  EXPECT_THROW(load_recipe(path, weight), Error);
}

TEST_F(RecipeFiles, PrintedRecipeReadsBack) {
  const std::string path =
      write("r.toml",
            "[loss]\nalpha = 0.3\nkl = \"teacher_student\"\n[optimiser]\nbeta1 = 0.85\n[data]\nroot = "
            "\"a \\\"quoted\\\" \xc3\xa9\"\n[model]\nmin_depth = 0.1\ndecoder_widths = [8, 16]\n[train]\nseed = "
            "123456789012\n");
  const Recipe recipe = load_recipe(path);
  const std::string printed = print_recipe(recipe);
  const std::string copy = write("copy.toml", printed);
  EXPECT_EQ(print_recipe(load_recipe(copy)), printed);
  const Recipe again = load_recipe(copy);
  EXPECT_EQ(again.data.root, recipe.data.root);
  EXPECT_EQ(again.optimiser.params.beta1, 0.85f);
  EXPECT_EQ(again.loss.dpm.kl, KlDirection::kTeacherStudent);
  EXPECT_EQ(again.train.seed, 123456789012u);
  EXPECT_EQ(again.model.options.decoder_widths, (std::vector<int64_t>{8, 16}));
  // The weights follow from the loss's name, so they still can be moved with it.
  const std::vector<std::string> overrides = {"loss.alpha=0.5"};
  EXPECT_EQ(load_recipe(copy, overrides).loss.weights["dpm"], 5.0f);
}

TEST_F(RecipeFiles, DataSetsOfTheSplits) {
  const std::string path = write(
      "r.toml",
      "[model]\nmax_depth = 10\n[data]\nroot = \"d\"\ncrop = \"nyu_border\"\nresize_height = 213\nresize_width = 280\n"
      "depth_units_per_metre = 1000\nteacher_units_per_metre = 6553.5\nteacher_float_units = 100\nteacher_naming = "
      "\"beside\"\n[augment]\ncrop_height = "
      "208\ncrop_width = 272\n[data.train]\nlist = \"train.txt\"\nteacher = \"t\"\n[data.test]\nlist = \"test.txt\"\n");
  const Recipe recipe = load_recipe(path);
  const DatasetSpec train = dataset_spec(recipe, "train");
  EXPECT_EQ(train.crop, CropRule::kNyuBorder);
  EXPECT_EQ(train.resize, (ImageSize{280, 213}));
  EXPECT_DOUBLE_EQ(train.depth.metres_per_unit, 0.001);
  EXPECT_DOUBLE_EQ(train.teacher->format.metres_per_unit, 10.0 / 65535);
  EXPECT_DOUBLE_EQ(train.depth.metres_per_float_unit, 1.0);
  EXPECT_DOUBLE_EQ(train.teacher->format.metres_per_float_unit, 0.01);
  EXPECT_EQ(train.teacher->naming, TeacherNaming::kBeside);
  EXPECT_FALSE(dataset_spec(recipe, "test").teacher.has_value());
  EXPECT_FALSE(has_split(recipe, "val"));
  EXPECT_THROW(dataset_spec(recipe, "val"), Error);
  EXPECT_EQ(report_split(recipe), "test");
  EXPECT_EQ(report_split(Recipe()), "");
}

// Without a published protocol, what counts in training is what is scored.
TEST_F(RecipeFiles, ThePlainProtocolHasTheRangeOfTheModel) {
  const std::string path = write("r.toml", "[model]\nmin_depth = 0.3\nmax_depth = 7.3\n[eval]\nprotocol = \"plain\"\n");
  EXPECT_DOUBLE_EQ(protocol_of(load_recipe(path)).min_depth, 0.3);
  EXPECT_DOUBLE_EQ(protocol_of(load_recipe(path)).max_depth, 7.3);
  const std::vector<std::string> published = {"eval.protocol=nyu"};
  EXPECT_DOUBLE_EQ(protocol_of(load_recipe(path, published)).min_depth, 1e-3);
}

// The page for newcomers has a recipe of at most 15 lines, which means what the page says.
TEST_F(RecipeFiles, TheRecipeOfThePageForOwnData) {
  const std::string page = read_text(DEPTHSTILL_SOURCE_DIR "/docs/own-data.md");
  const std::string fence = "```toml\n";
  const size_t begin = page.find(fence) + fence.size(), end = page.find("```", begin);
  ASSERT_NE(end, std::string::npos);
  const std::string text = page.substr(begin, end - begin);
  EXPECT_LE(std::count(text.begin(), text.end(), '\n'), 15);
  const Recipe recipe = load_recipe(write("mine.toml", text));
  EXPECT_EQ(recipe.loss.target, DepthTarget::kTruth);
  EXPECT_EQ(recipe.data.depth_units_per_metre, 1000);
  EXPECT_EQ(recipe.data.train.list, "train.txt");
  EXPECT_EQ(recipe.data.resize_width, 320);
  EXPECT_EQ(recipe.model.options.d_max, 10.0f);
}

// Damaged recipes are refused with a message, never with a crash, or mean something valid.
TEST_F(RecipeFiles, SurviveMutation) {
  const fs::path source = fs::path(DEPTHSTILL_SOURCE_DIR) / "tools" / "recipes" / "base_kitti.toml";
  const std::string seed = read_text(source.string());
  std::mt19937 random(11);
  int accepted = 0, refused = 0;
  for (int round = 0; round < 400; ++round) {
    std::string text = seed;
    for (size_t edits = 1 + random() % 3; edits > 0; --edits) {
      const size_t at = random() % text.size();
      switch (random() % 4) {
        case 0:
          text[at] = static_cast<char>(random());
          break;
        case 1:
          text.erase(at, 1 + random() % 8);
          break;
        case 2:
          text.insert(at, text.substr(random() % text.size(), random() % 12));
          break;
        default:
          text.resize(at + 1);
      }
    }
    const std::string message = message_of(write("r.toml", text));
    message == "accepted" ? ++accepted : ++refused;
    ASSERT_TRUE(message == "accepted" || message.rfind("r.toml", 0) == 0) << message;
  }
  EXPECT_GT(accepted, 0);
  EXPECT_GT(refused, 0);
}

}  // namespace
}  // namespace depthstill
