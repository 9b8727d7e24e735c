// SPDX-License-Identifier: Apache-2.0
// Tries kernels on random cases. Each is run by the baseline on one thread, whose outputs are
// compared with expected.h's; then at every SIMD level in a way of its own, between guard pages,
// whose outputs must have the same bits.
//
// Alone it is a part of tests/fuzz, which has its options, and reads what it writes to standard
// output: a line for each finding.
#include <sys/mman.h>

#include <chrono>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <sstream>
#include <string>

#include "cases.h"
#include "cpu/dispatch.h"
#include "expected.h"
#include "memory.h"
#include "numbers.h"
#include "runtime.h"

namespace lowbit::fuzz {
namespace {

constexpr const char* kLevels[] = {"baseline", "sse4", "avx2", "avx512"};
constexpr int64_t kFewBytes = 4096;
constexpr int64_t kThreadBytes = int64_t{512} << 10;
constexpr int64_t kNoStream = int64_t{1} << 60;

// How a case is run.
struct Manner {
  const char* level = "baseline";
  int64_t threads = 1;
  Helpers helpers = Helpers::kAll;
  int64_t stream_bytes = kNoStream;
  int in_place = -1;    // the input that the first output is
  int fail_at = -1;     // the allocation that fails
  bool shared = false;  // both tensors are one, and both scales
  bool on_small_stack = false;
  unsigned arithmetic = GetArithmetic();
  uint64_t seed = 0;  // of places, poisons and delays
};

std::string Describe(const Manner& m) {
  constexpr const char* kNames[] = {"", ", late", ", none come", ", another one instead"};
  std::ostringstream text;
  text << m.level << ", " << m.threads << " threads" << kNames[static_cast<int>(m.helpers)];
  if (m.stream_bytes != kNoStream) text << ", streamed beyond " << m.stream_bytes << " bytes";
  if (m.in_place >= 0) text << ", in place of input " << m.in_place;
  if (m.fail_at >= 0) text << ", no memory from allocation " << m.fail_at;
  if (m.shared) text << ", inputs shared";
  if (m.on_small_stack) text << ", on a small stack";
  return text.str();
}

Manner RandomManner(Random& random, const Case& c, const char* level) {
  Manner m;
  m.level = level;
  constexpr int64_t kThreads[] = {1, 2, 2, 3, 5, 8};
  m.threads = random.Pick(kThreads);
  constexpr Helpers kHelpers[] = {Helpers::kAll, Helpers::kAll, Helpers::kLate, Helpers::kNone,
                                  Helpers::kInstead};
  m.helpers = random.Pick(kHelpers);
  if (random.OneIn(2)) {
    m.stream_bytes = random.OneIn(2) ? 0 : c.bytes(0) + random.Between(-1, 1);
  } else if (c.kernel != kMask && random.OneIn(2)) {
    m.in_place = static_cast<int>(random.Between(0, kTensors[c.kernel] - 1));
  }
  if (random.OneIn(12)) m.fail_at = static_cast<int>(random.Between(0, 3));
  m.on_small_stack = random.OneIn(8);
  m.arithmetic = RandomArithmetic(random);
  m.seed = random.Bits();
  return m;
}

struct Options {
  uint64_t seed = 1;
  int64_t first = 0;
  int64_t cases = int64_t{1} << 62;
  int64_t calls = int64_t{1} << 62;
  double seconds = 1e9;
  int64_t threaded = 40;
  int64_t stack_kilobytes = 64;
  const char* journal = nullptr;
  bool verbose = false;
};

class Fuzzer {
 public:
  explicit Fuzzer(const Options& options)
      : options_(options), workers_(8, options.stack_kilobytes << 10) {}

  int Run() {
    OpenJournal();
    const auto start = std::chrono::steady_clock::now();
    for (int64_t number = options_.first; number < options_.first + options_.cases; ++number) {
      const std::chrono::duration<double> passed = std::chrono::steady_clock::now() - start;
      if (passed.count() > options_.seconds || journal_[1] >= options_.calls) break;
      journal_[0] = number;
      Try(number);
      journal_[2] = number + 1;
    }
    return findings_.empty() ? 0 : 1;
  }

 private:
  // Which case is being tried, how many launches there were, and how far the cases are done: in a
  // file, so that it outlives this process.
  void OpenJournal() {
    if (options_.journal == nullptr) return;
    FILE* file = std::fopen(options_.journal, "r+b");
    if (file == nullptr) std::abort();
    void* memory =
        mmap(nullptr, sizeof own_journal_, PROT_READ | PROT_WRITE, MAP_SHARED, fileno(file), 0);
    if (memory == MAP_FAILED) std::abort();
    journal_ = static_cast<volatile int64_t*>(memory);
  }

  void Try(int64_t number) {
    Random random(options_.seed, static_cast<uint64_t>(number));
    Case c = RandomCase(random, options_.threaded);
    const bool shared = random.OneIn(20);
    if (shared) Share(c);
    Manner plain;
    plain.shared = shared;
    if (!Launch(number, c, plain)) return;
    const std::string wrong = Wrong(c, call_);
    if (!wrong.empty()) Report(number, c, plain, wrong);
    std::swap(expected_, outputs_);
    for (const char* level : kLevels) {
      if (!SetIsa(level)) continue;
      Manner m = RandomManner(random, c, level);
      m.shared = shared;
      if (Launch(number, c, m)) Compare(number, c, m);
    }
  }

  static void Share(Case& c) {
    const int kernel = c.kernel;
    if (kTensors[kernel] == 2) c.input[1] = c.input[0];
    const int scale = kTensors[kernel];
    if (kInputs[kernel] > scale) c.input[scale + 1] = c.input[scale];
  }

  // Whether there are outputs.
  bool Launch(int64_t number, const Case& c, const Manner& m) {
    if (options_.verbose) {
      std::fprintf(stderr, "call %s; %s\n", fuzz::Describe(c).c_str(), Describe(m).c_str());
    }
    SetIsa(m.level);
    SetStreamBytes(m.stream_bytes);
    Random random(m.seed, 1);
    TakeArrays(random, c, m);
    // Each thread has some for a task's sums; of an empty tensor there is no task.
    const int64_t size = c.layout.size();
    const int64_t most_bytes = size > 0 ? 64 * size + m.threads * kThreadBytes : kFewBytes;
    HostileRuntime runtime(workers_, scratch_, m.threads, m.helpers, m.fail_at, most_bytes, m.seed);
    bool ok = false;
    bool changed = false;
    // Scalars are the caller's to read: a recipe is made in its usual arithmetic.
    const auto run = [&](const auto& recipe) {
      const unsigned own = GetArithmetic();
      SetArithmetic(m.arithmetic);
      ok = LaunchCpu(recipe, runtime.runtime());
      changed = GetArithmetic() != m.arithmetic;
      SetArithmetic(own);
    };
    const auto launch = [&] { WithRecipe(call_, run); };
    if (m.on_small_stack) {
      workers_.Run(launch);
    } else {
      launch();
    }
    journal_[1] = journal_[1] + 1;
    if (changed) Report(number, c, m, "left the caller's arithmetic changed");
    if (runtime.problem() != nullptr) Report(number, c, m, runtime.problem());
    if (ok == runtime.out_of_memory())
      Report(number, c, m, ok ? "hides a lack of memory" : "failed");
    CheckArrays(number, c, m, ok);
    return ok;
  }

  // Arrays of the call in slots, each in a place of its own.
  void TakeArrays(Random& random, const Case& c, const Manner& m) {
    call_ = {};
    call_.op = kOps[c.kernel];
    call_.dtype = c.dtype;
    call_.outer = c.layout.outer;
    call_.channels = c.layout.channels;
    call_.inner = c.layout.inner;
    double* number = call_.number;
    if (c.kernel == kLinear) *number++ = c.bit;
    *number = c.hyper;
    call_.choice[0] = c.paper;
    for (int i = 0; i < kInputs[c.kernel]; ++i) {
      const bool again = m.shared && i > 0 && i != kTensors[c.kernel];
      if (again) {
        call_.input[i] = call_.input[i - 1];
        continue;
      }
      void* memory = Take(random, inputs_[i], c.bytes(i), c.item(i));
      if (c.bytes(i) > 0) std::memcpy(memory, c.input[i].data(), c.bytes(i));
      call_.input[i] = memory;
    }
    for (int i = 0; i < kOutputs[c.kernel]; ++i) {
      call_.output[i] = Take(random, outputs_in_[i], c.output_bytes(i), c.output_item(i));
    }
    if (m.in_place >= 0) call_.output[0] = const_cast<void*>(call_.input[m.in_place]);
  }

  static void* Take(Random& random, Slot& slot, int64_t bytes, int64_t item) {
    constexpr Place kPlaces[] = {Place::kAtEnd, Place::kAtEnd, Place::kAtBegin, Place::kMiddle};
    const Place place = random.Pick(kPlaces);
    const int64_t offset = random.OneIn(2) ? 0 : random.Between(0, 63);
    return slot.Take(bytes, item, place, offset, random.OneIn(2) ? 0xff : 0);
  }

  // Nothing but outputs may have changed. Takes the outputs.
  void CheckArrays(int64_t number, const Case& c, const Manner& m, bool ok) {
    for (int i = 0; i < kInputs[c.kernel]; ++i) {
      const bool is_output = call_.input[i] == call_.output[0];
      const bool held = !(m.shared && i > 0 && i != kTensors[c.kernel]);
      if (held && !inputs_[i].Clean()) Report(number, c, m, "wrote around an input");
      if (is_output || c.bytes(i) == 0) continue;
      if (std::memcmp(call_.input[i], c.input[i].data(), c.bytes(i)) != 0) {
        Report(number, c, m, "changed an input");
      }
    }
    for (int i = 0; i < kOutputs[c.kernel]; ++i) {
      if (!outputs_in_[i].Clean()) Report(number, c, m, "wrote around an output");
      if (!ok) continue;
      const auto* bytes = static_cast<const unsigned char*>(call_.output[i]);
      outputs_[i].assign(bytes, bytes + c.output_bytes(i));
    }
  }

  void Compare(int64_t number, const Case& c, const Manner& m) {
    for (int i = 0; i < kOutputs[c.kernel]; ++i) {
      if (outputs_[i] == expected_[i]) continue;
      if (c.kernel == kMask) return Report(number, c, m, "must have the words of the baseline");
      const int dtype = DtypeOf(c.kernel, i, c.dtype);
      const int64_t size = static_cast<int64_t>(outputs_[i].size()) / kItemSize[dtype];
      for (int64_t at = 0; at < size; ++at) {
        const double got = Get(dtype, outputs_[i].data(), at);
        const double right = Get(dtype, expected_[i].data(), at);
        if (Same(got, right)) continue;
        std::ostringstream text;
        text.precision(17);
        text << "element " << at << " of output " << i << " must have the bits of the baseline, "
             << right << ", got " << got;
        return Report(number, c, m, text.str());
      }
    }
  }

  // A few of each kind.
  void Report(int64_t number, const Case& c, const Manner& m, const std::string& what) {
    constexpr int kMost = 3;
    if (++findings_[what.substr(0, 12)] > kMost) return;
    std::printf("finding\t%" PRId64 "\t%s: %s; %s\n", number, kKernelNames[c.kernel], what.c_str(),
                (fuzz::Describe(c) + "; " + Describe(m)).c_str());
    std::fflush(stdout);
  }

  const Options options_;
  Threads workers_;
  Slot inputs_[4];
  Slot outputs_in_[3];
  std::vector<Slot> scratch_{8};
  TestCall call_{};
  Bytes expected_[3];
  Bytes outputs_[3];
  int64_t own_journal_[3] = {};
  volatile int64_t* journal_ = own_journal_;
  std::map<std::string, int> findings_;
};

Options Parse(int count, char** arguments) {
  Options options;
  for (int i = 1; i < count; ++i) {
    const std::string name = arguments[i];
    if (name == "--verbose") {
      options.verbose = true;
      continue;
    }
    if (i + 1 == count) std::abort();
    const char* value = arguments[++i];
    if (name == "--seed") options.seed = std::strtoull(value, nullptr, 10);
    if (name == "--first") options.first = std::atoll(value);
    if (name == "--cases") options.cases = std::atoll(value);
    if (name == "--calls") options.calls = std::atoll(value);
    if (name == "--seconds") options.seconds = std::atof(value);
    if (name == "--threaded") options.threaded = std::atoll(value);
    if (name == "--stack") options.stack_kilobytes = std::atoll(value);
    if (name == "--journal") options.journal = value;
  }
  return options;
}

}  // namespace
}  // namespace lowbit::fuzz

int main(int count, char** arguments) {
  return lowbit::fuzz::Fuzzer(lowbit::fuzz::Parse(count, arguments)).Run();
}
