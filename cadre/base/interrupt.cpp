#include "cadre/base/interrupt.h"

#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <string_view>

namespace cadre {
namespace {

// Written by the handler, so nothing but a lock-free flag will do.
volatile std::sig_atomic_t caught_signal = 0;

void handle(int signal) {
  const int saved_errno = errno;
  if (caught_signal != 0) {
    std::signal(signal, SIG_DFL);
    raise(signal);
    return;
  }
  caught_signal = signal;
  constexpr std::string_view kMessage =
      "\nstopping at the next safe point; once more to stop at once\n";
  [[maybe_unused]] const auto written = write(STDERR_FILENO, kMessage.data(), kMessage.size());
  errno = saved_errno;
}

}  // namespace

void install_interrupt_handlers() {
  struct sigaction action = {};
  action.sa_handler = handle;
  action.sa_flags = SA_RESTART;
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

bool interrupted() noexcept { return caught_signal != 0; }

int interrupt_exit_code() noexcept { return caught_signal == 0 ? 0 : 128 + caught_signal; }

void clear_interrupt() noexcept { caught_signal = 0; }

}  // namespace cadre
