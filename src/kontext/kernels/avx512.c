/* The kernels for processors with AVX-512: float32 in vectors of 16. The bfloat16 dot product (AVX512_BF16)
   is not used: on Intel's cores it is issued every second cycle, and float32's multiply-add twice in each,
   which comes to twice as many products (41 against 74 a nanosecond, measured on one core). */

#if defined(__x86_64__) && defined(__GNUC__)

#include "kernels.h"

#define TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")))
#define LANES 16
#define ROWS 12 /* times 2 vectors: 24 sums in 32 registers */
#include "vector.h"
/* first the micro-kernel, then what is built on it */
#include "product_float.h"

#include "attention.h"
#include "convolution.h"
#include "linear.h"

#include "rows.h"
#include "training_attention.h"

static int supported(void) {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}

const backend_t kontext_avx512 = {
    .name = "avx512",
    .supported = supported,
    .share = {[PRODUCT] = product_share,
              [ATTENTION] = attention_share,
              [CONVOLUTION] = convolution_share,
              [NORM] = norm_share,
              [RESIDUAL] = residual_share,
              [GELU] = gelu_share,
              [TRAINING_ATTENTION] = training_attention_share},
    .panel_bytes = panel_bytes,
    .pack = pack,
    .inner_step = INNER_STEP,
    .weight_bytes = sizeof(number),
};

#endif
