/* glibc 2.35's _dl_find_object for the unwinder of gcc 12 and later, linked statically into the
   packaged libraries: glibc's own where there is one, else a search of the loaded modules, with a
   cache as libgcc has it on older systems. See docs/packaging.md. */
#define _GNU_SOURCE
#include <link.h>

struct found { /* glibc's struct dl_find_object */
  unsigned long long flags;
  void *start, *end, *link_map, *eh_frame;
  unsigned long long reserved[7];
};
struct query { size_t pc; int first; struct found *answer; };
static struct found cache[8]; /* latest first; touched only in callbacks, which the loader's lock serialises */
static unsigned long long adds, subs;

static void remember(struct found f, int slot) {
  for (; slot > 0; slot--) cache[slot] = cache[slot - 1];
  cache[0] = f;
}

static int visit(struct dl_phdr_info *module, size_t size, void *data) {
  struct query *q = data;
  struct found f = {0};
  if (q->first && (module->dlpi_adds != adds || module->dlpi_subs != subs)) { /* something was (un)loaded */
    for (int i = 0; i < 8; i++) cache[i] = f;
    adds = module->dlpi_adds, subs = module->dlpi_subs;
  } else if (q->first) {
    for (int i = 0; i < 8; i++)
      if (q->pc - (size_t)cache[i].start < (size_t)cache[i].end - (size_t)cache[i].start) {
        remember(*q->answer = cache[i], i);
        return 1;
      }
  }
  q->first = 0;
  for (const ElfW(Phdr) *p = module->dlpi_phdr; p < module->dlpi_phdr + module->dlpi_phnum; p++) {
    char *at = (char *)module->dlpi_addr + p->p_vaddr;
    if (p->p_type == PT_LOAD && q->pc - (size_t)at < p->p_memsz) f.start = at, f.end = at + p->p_memsz;
    if (p->p_type == PT_GNU_EH_FRAME) f.eh_frame = at;
  }
  if (!f.start) return 0;
  if (!f.eh_frame) return -1;
  remember(*q->answer = f, 7);
  return 1;
}

int __real__dl_find_object(void *, struct found *) __attribute__((weak, visibility("default")));

int __wrap__dl_find_object(void *pc, struct found *answer) {
  struct query q = {(size_t)pc, 1, answer};
  if (__real__dl_find_object && !FIND_OBJECT_OURS) return __real__dl_find_object(pc, answer);
  return dl_iterate_phdr(visit, &q) == 1 ? 0 : -1;
}
