#include "kernels/plans/plan_cache.h"

#include <unistd.h>

#include <cctype>
#include <filesystem>
#include <fstream>
#include <system_error>

#include "kernels/core/error.h"

namespace depthstill::plans {
namespace {

namespace fs = std::filesystem;

std::string file_name(const std::string& identity) {
  std::string name = "plans-";
  for (const char c : identity) {
    const bool plain = std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '.' || c == '-';
    if (plain || name.back() != '_') name += plain ? c : '_';
  }
  return name + ".txt";
}

bool one_line(const std::string& text) { return !text.empty() && text.find_first_of("\t\n\r") == std::string::npos; }

}  // namespace

PlanCache::PlanCache(const std::string& folder, const std::string& identity)
    : header_(concat_text("depthstill plans ", kPlansVersion, " ", identity)) {
  check(one_line(identity), "plan cache: expected an identity of one line");
  if (folder.empty()) return;
  file_ = (fs::path(folder) / file_name(identity)).string();
  records_ = read();
}

std::map<std::string, std::string> PlanCache::read() const {
  std::map<std::string, std::string> records;
  std::ifstream in(file_);
  std::string line;
  if (!std::getline(in, line) || line != header_) return records;
  while (std::getline(in, line)) {
    if (in.eof()) break;  // cut off before its line break
    const size_t tab = line.find('\t');
    if (tab == std::string::npos || tab == 0 || tab + 1 == line.size()) continue;
    records[line.substr(0, tab)] = line.substr(tab + 1);
  }
  return records;
}

std::optional<std::string> PlanCache::find(const std::string& key) const {
  const std::lock_guard lock(mutex_);
  const auto found = records_.find(key);
  if (found == records_.end()) return std::nullopt;
  return found->second;
}

void PlanCache::put(const std::string& key, const std::string& record) {
  check(one_line(key) && one_line(record), "plan cache: expected a key and a record of one line each");
  const std::lock_guard lock(mutex_);
  if (!file_.empty()) {
    // Ours win: a record may be there because it turned out to be unusable.
    for (auto& [other_key, other_record] : read()) records_.emplace(other_key, other_record);
  }
  records_[key] = record;
  if (!file_.empty()) write();
}

void PlanCache::write() const {
  std::error_code ignored;
  fs::create_directories(fs::path(file_).parent_path(), ignored);
  const std::string temporary = concat_text(file_, ".", ::getpid());
  std::ofstream out(temporary, std::ios::trunc);
  out << header_ << '\n';
  for (const auto& [key, record] : records_) out << key << '\t' << record << '\n';
  out.close();
  std::error_code failed;
  if (out) fs::rename(temporary, file_, failed);
  if (!out || failed) fs::remove(temporary, ignored);
}

}  // namespace depthstill::plans
