/* The kernels for processors with AVX2 and FMA: float32 in vectors of 8. */

#if defined(__x86_64__) && defined(__GNUC__)

#include "kernels.h"

#define TARGET __attribute__((target("avx2,fma")))
#define LANES 8
#define ROWS 6 /* times 2 vectors: 12 sums in 16 registers */
#include "vector.h"
/* first the micro-kernel, then what is built on it */
#include "product_float.h"

#include "attention.h"
#include "convolution.h"
#include "linear.h"

#include "rows.h"
#include "training_attention.h"

static int supported(void) { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

const backend_t kontext_avx2 = {
    .name = "avx2",
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
