// Where the elements of a region are: collapsing its dimensions, and walking runs of consecutive global index.
// A region is a list of dimensions, outermost first: `stride` apart in memory, `step` apart in the global index (both in
// elements). After collapse() the trailing dimensions that are consecutive in the index form the run; the rest only repeats it.
#pragma once
#include "../job.h"

namespace wi {

struct Region {
    Dim dims[kMaxDims];
    int ndim;         // collapsed
    int outer;        // dims[0, outer) repeat the run, dims[outer, ndim) are the run
    uint64_t run;     // elements of a run
    uint64_t count;   // elements in all
    bool contiguous;  // the run is consecutive in memory, too
};

inline Region collapse(const Dim* dims, int ndim) {
    Region r = {};
    r.count = 1;
    for (int i = 0; i < ndim; ++i) {
        const Dim d = dims[i];
        r.count *= uint64_t(d.size);
        if (d.size == 1) continue;
        if (r.ndim > 0) {
            Dim& last = r.dims[r.ndim - 1];
            if (last.stride == d.stride * d.size && last.step == d.step * d.size) {
                last = {last.size * d.size, d.stride, d.step};
                continue;
            }
        }
        r.dims[r.ndim++] = d;
    }
    r.outer = r.ndim;
    r.run = 1;
    while (r.outer > 0 && r.dims[r.outer - 1].step == int64_t(r.run)) r.run *= uint64_t(r.dims[--r.outer].size);
    r.contiguous = r.outer == r.ndim || (r.ndim - r.outer == 1 && r.dims[r.outer].stride == 1);
    return r;
}

struct Place {
    int64_t memory;  // elements from the first element of the region
    int64_t index;   // the same in the global index
};

// Of the n-th element (row-major) of table.dims[begin, end), a Region's or a CudaJob's.
template <class Table>
WI_HOST_DEVICE WI_INLINE Place place_of(const Table& table, int begin, int end, uint64_t n) {
    Place place = {0, 0};
    WI_NO_UNROLL for (int i = end - 1; i >= begin; --i) {
        const uint64_t size = uint64_t(table.dims[i].size), at = n % size;
        n /= size;
        place.memory += int64_t(at) * table.dims[i].stride;
        place.index += int64_t(at) * table.dims[i].step;
    }
    return place;
}

}  // namespace wi
