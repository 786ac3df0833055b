/* What each program of ours on the host relies on, whoever started it and in whatever state. */
#ifndef MB_BEGIN_H
#define MB_BEGIN_H

/* Call it first. Afterwards:
 *
 * - Every signal is blocked, none is ignored or handled: an ignored SIGCHLD would leave nobody to wait for.
 * - No timer of the caller's runs, as alarm(2) leaves one over exec.
 * - Descriptors from `first` on are closed; those below it are the program's own, which its starter has given it.
 * - 0, 1 and 2 are open, on /dev/null where they weren't: no file that is opened later is taken for one of them.
 * - The working directory is /, which nobody can remove or unmount; the umask is 022.
 *
 * 0, or -1 where there is no /dev/null or no descriptor for it. */
int mb_begin(unsigned first);

#endif
