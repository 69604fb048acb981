// The folder of a training run, which belongs to one process at a time.
#pragma once

#include <string>

namespace depthstill {

class RunFolder {
 public:
  // Makes the folder if it is missing and locks it until the object ends; the lock, depthstill.lock, stays as a file.
  // To begin, the folder has to be empty or left by a run that never saved; to resume, it has to hold last.safetensors.
  // Throws UsageError for a folder that holds something else or a run already, Error for one that another process
  // trains in ("in use by process N") and where there is nothing to resume; no file but the lock is touched then.
  RunFolder(std::string path, bool resume);
  ~RunFolder();
  RunFolder(const RunFolder&) = delete;
  RunFolder& operator=(const RunFolder&) = delete;

 private:
  void check_contents(bool resume) const;
  void lock();
  std::string file(const char* name) const;

  std::string path_;
  int descriptor_ = -1;  // descriptor of the lock's file
};

}  // namespace depthstill
