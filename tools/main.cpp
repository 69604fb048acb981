// depthstill: trains, evaluates and runs compact monocular-depth students.
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <new>
#include <string>

#include "engine/io/image.h"
#include "engine/io/text_file.h"
#include "kernels/core/error.h"
#include "kernels/core/messages.h"
#include "tools/args.h"
#include "tools/interrupt.h"
#include "tools/progress.h"
#include "tools/version.h"

namespace depthstill {
namespace {

constexpr const char* kFooter =
    "Results go to stdout, everything else to stderr.\n"
    "Exit codes: 0 done, 1 failed (one line on stderr says what), 2 wrong usage, 130 interrupted.";

int fail_with(const std::string& message) {
  std::fprintf(stderr, "depthstill: %s\n", one_line(message).c_str());
  return kExitFailure;
}

// While they wait, GNU OpenMP's threads keep their cores for 300,000 turns of a loop, far longer than there is to wait
// here: on a machine with other work to do, steps take several times as long. OpenMP reads its settings before main(),
// hence a new start.
void shorten_waits(char** argv) {
  if (std::getenv("GOMP_SPINCOUNT") != nullptr || std::getenv("OMP_WAIT_POLICY") != nullptr) return;
  setenv("GOMP_SPINCOUNT", "10000", 1);
  execv("/proc/self/exe", argv);  // it returns only if it fails: then the waits are long
}

int run_program(int argc, char** argv) {
  CLI::App app("Trains, evaluates and runs compact monocular-depth students (TIE-KD), without a framework.",
               "depthstill");
  app.set_version_flag("--version", concat_text("depthstill ", version(), " (commit ", commit(), ")"));
  app.footer(kFooter);
  app.require_subcommand(1);
  Run run;
  add_train_command(app, run);
  add_sweep_command(app, run);
  add_eval_command(app, run);
  add_tables_command(app, run);
  add_predict_command(app, run);
  add_convert_command(app, run);
  add_export_command(app, run);
  add_info_command(app, run);
  add_check_data_command(app, run);
  add_synth_command(app, run);
  add_teach_command(app, run);
  add_pack_command(app, run);
  add_loss_command(app, run);
  add_bench_command(app, run);
  add_bench_data_command(app, run);
  add_profile_command(app, run);
  int64_t max_pixels = 0;
  for (const char* name :
       {"train", "sweep", "eval", "tables", "predict", "check-data", "teach", "pack", "bench-data"}) {
    app.get_subcommand(name)
        ->add_option("--max-pixels", max_pixels, "most pixels of an image that is read [default: 134217728]")
        ->check(CLI::Range(1, kMaxImageSide * kMaxImageSide));
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kExitOk : kExitUsage;
  }

  install_interrupt_handlers();
  set_message_sink(log_line);
  try {
    if (max_pixels > 0) image_options().max_pixels = max_pixels;
    const int code = run();
    const bool written = std::fflush(stdout) == 0 && std::ferror(stdout) == 0;  // an earlier flush may have failed
    if (!written) return fail_with("cannot write the results to stdout");
    return code;
  } catch (const Interrupted&) {
    std::fprintf(stderr, "depthstill: interrupted\n");
    return kExitInterrupted;
  } catch (const UsageError& error) {
    fail_with(error.what());
    return kExitUsage;
  } catch (const std::bad_alloc&) {
    return fail_with("out of memory");
  } catch (const std::exception& error) {
    return fail_with(error.what());
  }
}

}  // namespace
}  // namespace depthstill

int main(int argc, char** argv) {
  depthstill::shorten_waits(argv);
  return depthstill::run_program(argc, argv);
}
