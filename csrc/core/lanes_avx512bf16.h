// Sixteen lanes of AVX-512 on a CPU that converts to bfloat16 by itself. VCVTNE2PS2BF16 rounds to nearest even whatever the
// floating-point environment says, as core/convert.h does, but takes subnormal values for 0: only for values that are none.
#pragma once
#include "lanes_avx512.h"

namespace wi {
namespace WI_ISA {

struct Avx512Bf16 : Avx512 {
    static constexpr bool kRoundsToBFloat16 = true;
    WI_FN void store_bfloat16(uint16_t* out, const F x[4]) {
        for (int i = 0; i < 4; i += 2)
            _mm512_storeu_si512(out + 16 * i, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(x[i + 1].v, x[i].v)));
    }
};

}  // namespace WI_ISA
}  // namespace wi
