// In the place of FunASR's header of this name: declares the classes of models that its audio.cpp
// names. The clients call none of them.
#pragma once
#include <memory>

#include "funasrruntime.h"
#include "vad-model.h"

namespace funasr {
struct OfflineStream {
  std::unique_ptr<VadModel> vad_handle;
};
struct FsmnVad : VadModel {};
struct FsmnVadOnline : FsmnVad {
  FsmnVadOnline(FsmnVad*);
  void InitVad(const std::string&, const std::string&, const std::string&, int);
  std::vector<std::vector<int>> Infer(std::vector<float>&, bool);
  int GetVadSampleRate();
};
}  // namespace funasr
