/* What a program itself knows to be live, counted from the sizes it asked for, and printed as one
 * JSON line before it ends:
 *   {"pid":1,"live":[{"kind":"device","end":"live","bytes":4096,"count":1}],"imports":0}
 * Kinds and ends are the words of `vramtrace leaks --json`. Safe to use from several threads. */
#ifndef TRUTH_H
#define TRUTH_H
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum truth_kind { DEVICE, MANAGED, PINNED, REGISTERED, ARRAY, VMM, ASYNC, GRAPH, TRUTH_KINDS };
enum truth_end { LIVE, BY_CONTEXT, BY_RESET, CORRUPTED, TRUTH_ENDS };

static const char *const truth_kind_names[] = {"device", "managed", "pinned", "registered", "array", "vmm", "async", "graph"};
static const char *const truth_end_names[] = {"live", "context", "reset", "corrupted"};

static struct { long long bytes, count; } truth_sums[TRUTH_KINDS][TRUTH_ENDS];
static int truth_imports;

static inline void truth_change(enum truth_kind kind, enum truth_end end, long long bytes, long long count) {
  __atomic_fetch_add(&truth_sums[kind][end].bytes, bytes, __ATOMIC_RELAXED);
  __atomic_fetch_add(&truth_sums[kind][end].count, count, __ATOMIC_RELAXED);
}

static inline void truth_alloc(enum truth_kind kind, size_t bytes) { truth_change(kind, LIVE, (long long)bytes, 1); }
static inline void truth_free(enum truth_kind kind, size_t bytes) { truth_change(kind, LIVE, -(long long)bytes, -1); }

/* All that is live of a kind ends in another way than by a free. */
static inline void truth_ended(enum truth_kind kind, enum truth_end end) {
  long long bytes = truth_sums[kind][LIVE].bytes, count = truth_sums[kind][LIVE].count;
  truth_change(kind, LIVE, -bytes, -count);
  truth_change(kind, end, bytes, count);
}

static inline void truth_print(void) {
  const char *comma = "";
  printf("{\"pid\":%d,\"live\":[", (int)getpid());
  for (int kind = 0; kind < TRUTH_KINDS; kind++)
    for (int end = 0; end < TRUTH_ENDS; end++)
      if (truth_sums[kind][end].count) {
        printf("%s{\"kind\":\"%s\",\"end\":\"%s\",\"bytes\":%lld,\"count\":%lld}", comma, truth_kind_names[kind],
               truth_end_names[end], truth_sums[kind][end].bytes, truth_sums[kind][end].count);
        comma = ",";
      }
  printf("],\"imports\":%d}\n", truth_imports);
  fflush(stdout);
}

/* The last statement of a program: VERIFY_RESET=1 resets the device first (compute-sanitizer reports
 * leaks when a context goes), VERIFY_EXIT=_exit leaves without exit handlers. */
static inline int truth_finish(void (*reset)(void)) {
  const char *exit_by = getenv("VERIFY_EXIT");
  truth_print();
  if (reset && getenv("VERIFY_RESET")) reset();
  if (exit_by && !strcmp(exit_by, "_exit")) _exit(0);
  return 0;
}

/* Numbers that are the same in each run. */
static inline unsigned truth_random(unsigned long long *state) {
  *state = *state * 6364136223846793005ull + 1442695040888963407ull;
  return (unsigned)(*state >> 33);
}
#endif
