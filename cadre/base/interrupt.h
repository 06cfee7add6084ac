#pragma once

/// Ctrl-C and `kill` as a request: long work asks interrupted() at places where it can stop cleanly
/// (after a step: save, then leave).

namespace cadre {

/// From now on the first SIGINT or SIGTERM only sets the flag (and says so on stderr); the second
/// one kills the process as if there were no handler. System calls in progress are restarted.
void install_interrupt_handlers();

/// True once a signal came.
bool interrupted() noexcept;

/// What a program that stopped because of the signal returns: 128 + its number, as shells do.
/// 0 when there was none.
int interrupt_exit_code() noexcept;

/// Forgets the signal, for tests and for programs that go on (an interactive prompt).
void clear_interrupt() noexcept;

}  // namespace cadre
