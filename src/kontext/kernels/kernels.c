/* What a transformer's step and a decoder are made of: linear layers, attention, convolutions, each with what
   surrounds it in the network done while its numbers are in the cache.

   The same text (linear.h, attention.h, convolution.h) is compiled for several instruction sets (amx.c,
   avx512.c, avx2.c, neon.c), each with a micro-kernel for products (product_amx.h, product_float.h) and
   vectors of its own width (vector.h). The caller chooses one when it runs. Weights lie in panels that suit
   the micro-kernel: those packed for one cannot be used by another.

   Threads are those of the caller's OpenMP (`parallel` is GOMP_parallel): two pools would compete for the
   cores. */

#if defined(__linux__) && defined(__GNUC__)

#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kernels.h"

typedef void (*parallel_t)(void (*work)(void *), void *data, unsigned threads, unsigned flags);

static const backend_t *const backends[] = {
#if defined(__x86_64__)
#if __GNUC__ >= 11 || defined(__clang__)
    &kontext_amx,
    &kontext_avx512bf16,
#endif
    &kontext_avx512,
    &kontext_avx2,
#elif defined(__aarch64__)
    &kontext_neon,
#endif
    0,
};

typedef struct {
  const backend_t *backend;
  job_t **jobs;
  long count;
  int threads;
} list_t;

/* Waits, asleep, until all shares of a job are done. */
static void wait_for(job_t *job) {
  int done;
  while ((done = __atomic_load_n(&job->done, __ATOMIC_ACQUIRE)) < job->shares)
    syscall(SYS_futex, &job->done, FUTEX_WAIT_PRIVATE, done, 0, 0, 0);
}

/* What every thread does. There may be fewer threads than shares: OpenMP gives as many as it likes. */
static void work(void *data) {
  const list_t *list = data;
  if (list->backend->enter) list->backend->enter();
  for (long i = 0; i < list->count; i++) {
    job_t *job = list->jobs[i];
    for (long share; (share = __atomic_fetch_add(&job->taken, 1, __ATOMIC_RELAXED)) < job->shares;) {
      if (list->backend->share[job->kind](job, share, job->shares)) job->failed = 1;
      const int done = __atomic_add_fetch(&job->done, 1, __ATOMIC_RELEASE);
      if (list->threads > 1 && done == job->shares)
        syscall(SYS_futex, &job->done, FUTEX_WAKE_PRIVATE, INT_MAX, 0, 0, 0);
    }
    wait_for(job);
  }
  if (list->backend->leave) list->backend->leave();
}

/* Backend number `index`, best first; null behind the last. */
const backend_t *kontext_backend(int index) { return backends[index]; }

int kontext_supported(const backend_t *backend) { return backend->supported(); }

const char *kontext_name(const backend_t *backend) { return backend->name; }

int kontext_inner_step(const backend_t *backend) { return backend->inner_step; }

int kontext_weight_bytes(const backend_t *backend) { return backend->weight_bytes; }

/* Bytes of the panels of weights (columns, inner). */
long kontext_panel_bytes(const backend_t *backend, long columns, long inner, int parts) {
  return backend->panel_bytes(columns, inner, parts);
}

/* Weights (columns, inner) -> panels. 1: no memory. */
int kontext_pack(const backend_t *backend, const float *weights, long columns, long inner, int parts,
                 void *panels) {
  return backend->pack(weights, columns, inner, parts, panels);
}

/* Size of a job of this kind: a caller with another layout belongs to other kernels. */
long kontext_job_bytes(int kind) {
  static const long sizes[KINDS] = {
      [PRODUCT] = sizeof(product_t),
      [ATTENTION] = sizeof(attention_t),
      [CONVOLUTION] = sizeof(convolution_t),
      [NORM] = sizeof(norm_t),
      [RESIDUAL] = sizeof(residual_t),
      [GELU] = sizeof(gelu_t),
      [TRAINING_ATTENTION] = sizeof(training_attention_t),
  };
  return sizes[kind];
}

/* Runs jobs in order, each in `threads` shares. 1: no memory. */
int kontext_run(const backend_t *backend, job_t **jobs, long count, int threads, parallel_t parallel) {
  list_t list = {backend, jobs, count, threads};
  int failed = 0;
  for (long i = 0; i < count; i++) {
    jobs[i]->shares = threads;
    jobs[i]->taken = jobs[i]->done = jobs[i]->failed = 0;
  }
  if (threads == 1)
    work(&list);
  else
    parallel(work, &list, threads, 0);
  for (long i = 0; i < count; i++) failed |= jobs[i]->failed;
  return failed;
}

#endif
