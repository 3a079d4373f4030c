// DLPack's table of functions, as far as it is used here: what a tensor's memory is, in one call. From version 1.3 of its standard on,
// https://dmlc.github.io/dlpack/latest/c_api.html; torch has it from 2.10 on.
#pragma once
#include <cstdint>

namespace wi::dlpack {

constexpr const char *kAttribute = "__dlpack_c_exchange_api__", *kCapsule = "dlpack_exchange_api";
constexpr uint32_t kMajorVersion = 1;
enum Code : uint8_t { kFloat = 2, kBFloat = 4, kFloat8E4M3FN = 10, kFloat8E5M2 = 12 };

struct Tensor {
    void* data;
    int32_t device_type, device_id;
    int32_t ndim;
    uint8_t code, bits;
    uint16_t lanes;
    const int64_t *shape, *strides;  // in elements
    uint64_t byte_offset;
};

struct ExchangeApi {
    uint32_t major_version, minor_version;
    const ExchangeApi* previous;
    void *allocator, *from_object, *to_object;
    int (*tensor_of)(void* object, Tensor* out);  // -1 and an error of Python where it refuses; may be null
    void* current_stream;
};

}  // namespace wi::dlpack
