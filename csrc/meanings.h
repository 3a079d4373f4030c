// What calls of functions of init mean, remembered by all that it follows from.
#pragma once
#include <pybind11/pybind11.h>

#include <cstdint>
#include <vector>

namespace wi {

namespace py = pybind11;

inline size_t mixed(const void* pointer) {
    const auto bits = reinterpret_cast<uintptr_t>(pointer);
    return size_t((bits >> 4) ^ (bits >> 14));
}

// A function, the tensor's dtype and shape, and the function's own n arguments.
struct Meant {
    py::handle function, dtype, shape;
    PyObject* const* own;
    Py_ssize_t n;
};

// A row of the catalog on a call: row.distribution(dtype, shape, *own); null where it raises, for torch to word it.
py::object distribution_of(const Meant& meant);

class Meanings {
  public:
    Meanings();

    // What ask(meant) gives, unless that is null; remembered if the arguments say all of themselves.
    template <class Ask>
    py::object of(const Meant& meant, const Ask& ask) {
        const size_t at = place_of(meant);
        if (at == kNowhere) return ask(meant);
        if (is_at(at, meant)) return known_[at].meaning;
        py::object meaning = ask(meant);
        if (meaning) remember(at, meant, meaning);
        return meaning;
    }

  private:
    static constexpr size_t kNowhere = ~size_t(0);
    struct Known {
        py::object function, dtype, shape, own, meaning;
    };
    size_t place_of(const Meant& meant) const;
    bool is_at(size_t place, const Meant& meant) const;
    void remember(size_t place, const Meant& meant, const py::object& meaning);

    std::vector<Known> known_;
};

}  // namespace wi
