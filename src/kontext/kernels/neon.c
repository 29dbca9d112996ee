/* The kernels for 64-bit ARM processors (NEON is part of every one): float32 in vectors of 4. */

#if defined(__aarch64__) && defined(__GNUC__)

#include "kernels.h"

#define TARGET
#define LANES 4
#define ROWS 12 /* times 2 vectors: 24 sums in 32 registers */
#include "vector.h"
/* first the micro-kernel, then what is built on it */
#include "product_float.h"

#include "attention.h"
#include "convolution.h"
#include "linear.h"

#include "rows.h"
#include "training_attention.h"

static int supported(void) { return 1; }

const backend_t kontext_neon = {
    .name = "neon",
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
