// Runs targets on their corpus and on inputs made from it, in a process of their own, so that a crash or an endless
// loop is a finding like others: it is named with seed and number, its input is kept, and the next one follows.
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <filesystem>

#include "engine/io/atomic_file.h"
#include "engine/io/text_file.h"
#include "tests/fuzz/mutate.h"

namespace depthstill::fuzz {
namespace {

namespace fs = std::filesystem;

constexpr const char* kUsage =
    "usage: fuzz_tests TARGET|readers [--inputs N] [--seed S] [--from K] [--seconds T] [--corpus DIR] [FILE...]\n"
    "  Reads the files of DIR/TARGET, of which those named bad_* have to be refused and the others read, then the "
    "inputs\n"
    "  K to N - 1 that are made from them with seed S. One that takes over T seconds of CPU time is a finding, too.\n"
    "  FILEs: reads these instead, and says of each what becomes of it.\n";
constexpr size_t kMostFindings = 10;  // of a target

struct Options {
  std::string target;
  uint64_t inputs = 1000, seed = 1, from = 0;
  double seconds = 5;
  std::string corpus = DEPTHSTILL_SOURCE_DIR "/tests/fuzz/corpus";
  std::vector<std::string> files;
};

struct Corpus {
  std::vector<std::string> names;
  std::vector<Bytes> files;
};

Corpus read_corpus(const std::string& folder) {
  Corpus corpus;
  for (const auto& file : fs::directory_iterator(folder)) corpus.names.push_back(file.path().string());
  std::sort(corpus.names.begin(), corpus.names.end());
  for (const std::string& name : corpus.names) corpus.files.push_back(read_bytes(name));
  check(!corpus.files.empty(), folder, ": expected a corpus, found an empty folder");
  return corpus;
}

double cpu_seconds() {
  timespec time{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

// What the process that reads tells the one that watches.
struct Progress {
  uint64_t index = 0;  // of the input that is being read: first the corpus, then what is made from it
  uint64_t read = 0, refused = 0, slowest = 0;
  double slowest_seconds = 0;
  char finding[1024] = "";
};

class Session {
 public:
  Session(const Target& target, const Options& options) : target_(target), options_(options) {
    corpus_ = read_corpus(options.corpus + '/' + std::string(target.name));
    void* const shared = mmap(nullptr, sizeof(Progress), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    check(shared != MAP_FAILED, "fuzz_tests: no memory to share");
    progress_ = new (shared) Progress;
  }
  ~Session() { munmap(progress_, sizeof(Progress)); }
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  bool passes() {
    const auto begin = std::chrono::steady_clock::now();
    const uint64_t end = corpus_.files.size() + (options_.inputs - std::min(options_.from, options_.inputs));
    size_t findings = 0;
    for (uint64_t next = 0; next < end && findings < kMostFindings;) {
      const std::string finding = watch(next, end);
      if (finding.empty()) break;
      ++findings;
      report(progress_->index, finding);
      next = progress_->index + 1;
    }
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    // tools/test.sh counts summaries of GoogleTest's form.
    std::printf(
        "[  %s fuzz %s: %zu files and inputs %llu to %llu of seed %llu in %.1f s, %llu read, %llu refused; the "
        "longest took %.1f ms (%s)\n",
        findings == 0 ? "PASSED  ] 1 test of" : "FAILED  ]", target_.name.data(), corpus_.files.size(),
        number(options_.from), number(options_.inputs), number(options_.seed), seconds, number(progress_->read),
        number(progress_->refused), 1e3 * progress_->slowest_seconds, name_of(progress_->slowest).c_str());
    return findings == 0;
  }

 private:
  static unsigned long long number(uint64_t value) { return value; }
  bool of_corpus(uint64_t index) const { return index < corpus_.files.size(); }
  uint64_t number_of(uint64_t index) const { return options_.from + index - corpus_.files.size(); }
  std::string name_of(uint64_t index) const {
    return of_corpus(index) ? corpus_.names[index]
                            : concat_text("input ", number_of(index), " of seed ", options_.seed);
  }
  Bytes input(uint64_t index) const {
    return of_corpus(index) ? corpus_.files[index] : mutated(target_, corpus_.files, options_.seed, number_of(index));
  }

  // Reads inputs [next, end) in a process of its own; gives what was found at progress_->index, "" if nothing was.
  std::string watch(uint64_t next, uint64_t end) {
    progress_->finding[0] = '\0';
    work_folder();  // it is this process that removes it
    std::fflush(nullptr);
    const pid_t reader = fork();
    check(reader >= 0, "fuzz_tests: expected a process of its own, found: ", std::strerror(errno));
    if (reader == 0) _exit(read_all(next, end) ? 0 : 1);
    int status = 0;
    waitpid(reader, &status, 0);
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGPROF) {
      return concat_text("it took more than ", options_.seconds, " s of CPU time");
    }
    if (WIFSIGNALED(status)) return concat_text("a crash: ", strsignal(WTERMSIG(status)));
    if (progress_->finding[0] != '\0') return progress_->finding;
    return WEXITSTATUS(status) == 0 ? "" : "a sanitizer's report, see above";
  }

  bool read_all(uint64_t next, uint64_t end) {
    for (uint64_t index = next; index < end; ++index) {
      progress_->index = index;
      const Bytes bytes = input(index);
      const double begin = cpu_seconds();
      limit_time(options_.seconds);
      Outcome outcome = run(target_, bytes);
      limit_time(0);
      const double seconds = cpu_seconds() - begin;
      if (seconds > progress_->slowest_seconds) {
        progress_->slowest_seconds = seconds;
        progress_->slowest = index;
      }
      ++(outcome.refusal.empty() ? progress_->read : progress_->refused);
      if (of_corpus(index) && outcome.finding.empty()) outcome.finding = other_end(index, outcome.refusal);
      if (outcome.finding.empty()) continue;
      std::snprintf(progress_->finding, sizeof(progress_->finding), "%s", outcome.finding.c_str());
      return false;
    }
    return true;
  }

  // The kernel ends the process by SIGPROF after so much time; 0: never.
  static void limit_time(double seconds) {
    itimerval timer{};
    timer.it_value.tv_sec = static_cast<time_t>(seconds);
    timer.it_value.tv_usec = static_cast<suseconds_t>(1e6 * (seconds - std::floor(seconds)));
    setitimer(ITIMER_PROF, &timer, nullptr);
  }

  std::string other_end(uint64_t index, const std::string& refusal) const {
    const bool bad = fs::path(corpus_.names[index]).filename().string().starts_with("bad_");
    if (bad == !refusal.empty()) return "";
    return bad ? "expected a refusal, found it read" : "expected it to be read, found: " + refusal;
  }

  void report(uint64_t index, const std::string& finding) const {
    std::string kept;
    if (!of_corpus(index)) {
      kept = concat_text("fuzz_", target_.name, '_', options_.seed, '_', number_of(index));
      write_file(kept, input(index));
      kept = concat_text(" (kept as ", fs::absolute(kept).string(), ')');
    }
    std::printf("fuzz %s: %s: %s%s\n", target_.name.data(), name_of(index).c_str(), one_line(finding).c_str(),
                kept.c_str());
  }

  const Target& target_;
  const Options& options_;
  Corpus corpus_;
  Progress* progress_ = nullptr;
};

// Reads single files in this process, for a debugger.
bool read_files(const Target& target, const std::vector<std::string>& files) {
  bool passed = true;
  for (const std::string& file : files) {
    const Outcome outcome = run(target, read_bytes(file));
    passed = passed && outcome.finding.empty();
    std::printf("%s: %s%s\n", file.c_str(),
                !outcome.finding.empty()  ? "FINDING: "
                : outcome.refusal.empty() ? "read"
                                          : "refused: ",
                (outcome.finding.empty() ? outcome.refusal : outcome.finding).c_str());
  }
  return passed;
}

template <class T>
T parse(const std::string& text) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  check(error == std::errc() && end == text.data() + text.size(), "expected a number, got '", text, "'");
  return value;
}

Options parse_options(std::span<char* const> arguments) {
  Options options;
  for (size_t i = 1; i < arguments.size(); ++i) {
    const std::string name = arguments[i];
    if (!name.starts_with("--")) {
      options.target.empty() ? options.target = name : options.files.emplace_back(name);
      continue;
    }
    check(++i < arguments.size(), "expected a value behind ", name, ", got none");
    const std::string value = arguments[i];
    if (name == "--inputs") {
      options.inputs = parse<uint64_t>(value);
    } else if (name == "--seed") {
      options.seed = parse<uint64_t>(value);
    } else if (name == "--from") {
      options.from = parse<uint64_t>(value);
    } else if (name == "--seconds") {
      options.seconds = parse<double>(value);
    } else if (name == "--corpus") {
      options.corpus = value;
    } else {
      fail("expected an option, got ", name);
    }
  }
  return options;
}

int run_program(std::span<char* const> arguments) {
  const Options options = parse_options(arguments);
  std::vector<Target> targets = {image_target(),  npy_target(),     pfm_target(),    safetensors_target(),
                                 torch_target(),  zip_target(),     list_target(),   toml_target(),
                                 packed_target(), regions_target(), planted_target()};
  if (options.target == "readers") {
    targets.pop_back();
  } else {
    std::erase_if(targets, [&](const Target& target) { return target.name != options.target; });
  }
  check(!targets.empty(), "expected a target, got '", options.target, "'");
  bool passed = true;
  for (const Target& target : targets) {
    passed = (options.files.empty() ? Session(target, options).passes() : read_files(target, options.files)) && passed;
  }
  return passed ? 0 : 1;
}

}  // namespace
}  // namespace depthstill::fuzz

int main(int count, char** arguments) {
  try {
    return depthstill::fuzz::run_program({arguments, static_cast<size_t>(count)});
  } catch (const depthstill::Error& error) {
    std::fprintf(stderr, "fuzz_tests: %s\n%s", error.what(), depthstill::fuzz::kUsage);
    return 2;
  }
}
