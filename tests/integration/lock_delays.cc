// A library for LD_PRELOAD that holds a thread up, now and then, where it takes a mutex and where
// it has left one: orders that a free machine shows once in a thousand runs come up in minutes.
// Finds races between locks, in tests and in the code under them; what TSan cannot see (gRPC, ggml)
// included.
//
// LOCK_DELAYS_SEED (default 1), LOCK_DELAYS_PER_MILLE (20) of the places, up to
// LOCK_DELAYS_MICROSECONDS (2000) each. Chances repeat with the seed, orders only nearly.

#include <dlfcn.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <ctime>

namespace {

using MutexFunction = int (*)(pthread_mutex_t*);

uint64_t Setting(const char* name, uint64_t otherwise) {
  const char* const value = std::getenv(name);
  return value == nullptr ? otherwise : std::strtoull(value, nullptr, 10);
}

// Xorshift64, a state for each thread: the library takes no lock of its own.
uint64_t NextRandom() {
  static const uint64_t seed = Setting("LOCK_DELAYS_SEED", 1);
  thread_local uint64_t state = 0;
  if (state == 0) {
    state = (seed + 1) * 0x9E3779B97F4A7C15u + static_cast<uint64_t>(syscall(SYS_gettid));
  }
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return state;
}

void MaybeDelay() {
  static const uint64_t per_mille = Setting("LOCK_DELAYS_PER_MILLE", 20);
  static const uint64_t most = Setting("LOCK_DELAYS_MICROSECONDS", 2000);
  if (most == 0 || NextRandom() % 1000 >= per_mille) return;
  const timespec delay = {0, static_cast<long>(NextRandom() % most * 1000)};
  nanosleep(&delay, nullptr);
}

MutexFunction Real(const char* name) {
  return reinterpret_cast<MutexFunction>(dlsym(RTLD_NEXT, name));
}

}  // namespace

extern "C" int pthread_mutex_lock(pthread_mutex_t* mutex) {
  static const MutexFunction real = Real("pthread_mutex_lock");
  MaybeDelay();
  return real(mutex);
}

extern "C" int pthread_mutex_unlock(pthread_mutex_t* mutex) {
  static const MutexFunction real = Real("pthread_mutex_unlock");
  const int result = real(mutex);
  MaybeDelay();
  return result;
}
