// In the place of FunASR's header of this name, which needs ONNX Runtime, Kaldi and OpenFst: the
// part of it that FunASR's C++ clients need to read audio files.
#pragma once
#include <glog/logging.h>

#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstring>
#include <fstream>
#include <iostream>
#include <list>
#include <numeric>
#include <sstream>

#include "alignedmem.h"
#include "audio.h"
#include "encode_converter.h"
#include "resample.h"
#include "tensor.h"
#include "util.h"
