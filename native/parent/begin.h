/* Put a program of ours on the host into a known state, whoever started it. */
#ifndef MB_BEGIN_H
#define MB_BEGIN_H

/* Call it first. Afterwards:
 *
 * - Every signal is blocked, and none is ignored or handled: with SIGCHLD ignored we couldn't wait for children.
 * - No timer of the caller runs: alarm(2) survives an exec.
 * - Descriptors from `first` on are closed; those below come from the program that started this one.
 * - 0, 1 and 2 are open, on /dev/null if they were closed, so that no file opened later gets one of these numbers.
 * - The working directory is /, which nobody can remove or unmount; the umask is 022.
 *
 * Returns 0, or -1 without /dev/null or a descriptor for it. */
int mb_begin(unsigned first);

#endif
