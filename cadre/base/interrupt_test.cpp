#include "cadre/base/interrupt.h"

#include <gtest/gtest.h>

#include <csignal>
#include <cstdlib>

namespace cadre {
namespace {

// Each case runs in a child process: handlers belong to the whole process.
TEST(Interrupt, TheFirstSignalSetsTheFlag) {
  for (const int signal : {SIGINT, SIGTERM}) {
    EXPECT_EXIT(
        {
          install_interrupt_handlers();
          const bool before = interrupted();
          raise(signal);
          std::exit(!before && interrupted() ? interrupt_exit_code() : 1);
        },
        testing::ExitedWithCode(128 + signal), "stopping at the next safe point");
  }
}

TEST(Interrupt, TheSecondSignalKills) {
  EXPECT_EXIT(
      {
        install_interrupt_handlers();
        raise(SIGINT);
        raise(SIGINT);
        std::exit(0);
      },
      testing::KilledBySignal(SIGINT), "");
  EXPECT_EXIT(
      {
        install_interrupt_handlers();
        raise(SIGINT);
        raise(SIGTERM);
        std::exit(0);
      },
      testing::KilledBySignal(SIGTERM), "");
}

TEST(Interrupt, ClearForgets) {
  EXPECT_EXIT(
      {
        install_interrupt_handlers();
        raise(SIGINT);
        clear_interrupt();
        const int cleared = interrupt_exit_code();
        raise(SIGINT);
        std::exit(cleared == 0 && interrupted() ? 0 : 1);
      },
      testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace cadre
