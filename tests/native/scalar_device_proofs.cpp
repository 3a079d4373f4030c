// The sequences of csrc/core/scalar_device.h that stand for sqrt and division give the exactly rounded result, and the uniform
// grid's value needs no conversion: over all arguments, but for grids, of which there are too many.
// To be compiled for a machine with fma, or it takes minutes. Prints what is wrong and `N passed, N failed`; the exit status is 0 if nothing is.
#include "cuda_shim.h"

#include <cstdio>
#include <initializer_list>

#include "core/math.h"

namespace {

using namespace wi;
using emulated::as_bits, emulated::as_float, emulated::horner32;

int passed = 0, failed = 0;
void expect(uint64_t wrong, const char* what) {
    ++(wrong == 0 ? passed : failed);
    if (wrong != 0) printf("FAILED %s: %llu wrong\n", what, static_cast<unsigned long long>(wrong));
}

// All mantissas with an even and an odd exponent, from 2^exponent on. Only with the best seed: this one rests on the hardware's
// being better than documented, as nvcc's own sqrt.rn does, and the GPU's tests see to that.
uint64_t wrong_roots(int exponent) {
    uint64_t wrong = 0;
    const uint32_t first = uint32_t(127 + exponent) << 23;
    for (uint32_t i = 0; i < 2u << 23; ++i)
        wrong += emulated::sqrt(as_float(first + i)) != __builtin_sqrtf(as_float(first + i));
    return wrong;
}

// All x of [from, to), with seeds that are off by up to 2; 1 is what is documented.
template <const auto& P, const auto& Q>
uint64_t wrong_quotients(float from, float to, float origin) {
    uint64_t wrong = 0;
    for (int error = -2; error <= 2; ++error) {
        seed_error = error;
        for (uint32_t i = as_bits(from); i < as_bits(to); ++i) {
            const float x = as_float(i) - origin, a = horner32<P>(x), b = horner32<Q>(x);
            wrong += emulated::divide(a, b) != a / b;
        }
    }
    seed_error = 0;
    return wrong;
}

// v = X2 - x^2. Below 2^-32 the polynomials are their constants.
uint64_t wrong_central() {
    using namespace coefficients;
    return wrong_quotients<f32::kQuantileCentralP, f32::kQuantileCentralQ>(0x1p-32f, as_float(as_bits(kCentralX2) + 1), 0.0f);
}

// r = sqrt(-2 ln q), for q from 1/2 (a little more by rounding) to where a distribution becomes a constant, at 4096 sigma.
uint64_t wrong_tail() {
    using namespace coefficients::f32;
    return wrong_quotients<kQuantileTailP, kQuantileTailQ>(1.17f, 4200.0f, kQuantileTailR0);
}

}  // namespace

int main() {
    for (const int exponent : {-100, 0, 24}) expect(wrong_roots(exponent), "sqrt");
    expect(wrong_central(), "division of the central quantile");
    expect(wrong_tail(), "division of the tail quantile");
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
