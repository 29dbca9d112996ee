/* Training on processors with AVX-512 and its bfloat16 dot product (AVX512_BF16): the parts of a block
   between its products. AMD's cores issue the dot product as often as float32's multiply-add, which is half
   as many products. */

#if defined(__x86_64__) && defined(__GNUC__) && (__GNUC__ >= 11 || defined(__clang__))

#include <immintrin.h>

#include "kernels.h"

#define TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma")))
#define LANES 16
#define ROWS 12 /* times 2 vectors: 24 sums in 32 registers */
#define DOT
#include "vector.h"
#include "rows.h"
#include "training_attention.h"

static int supported(void) {
  return __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vl");
}

const backend_t kontext_avx512bf16 = {
    .name = "avx512bf16",
    .supported = supported,
    .share = {[NORM] = norm_share,
              [RESIDUAL] = residual_share,
              [GELU] = gelu_share,
              [TRAINING_ATTENTION] = training_attention_share},
};

#endif
