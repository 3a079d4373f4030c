#include "plain_tensors.h"

#include <algorithm>
#include <stdexcept>

#include "calls.h"

namespace wi {
namespace {

enum Field { kTensor, kDistribution, kSeed, kStream, kRegion, kName, kCombine, kFields };  // of engine.job.FillJob
constexpr size_t kRecent = 16;  // distributions whose transform is remembered: a model has few, and they take turns

py::object attribute(py::handle of, const py::str& name) { return checked(PyObject_GetAttr(of.ptr(), name.ptr())); }

// A method's answer; null where torch refuses to answer.
py::object asked(py::handle method, py::handle tensor) {
    PyObject* argument = tensor.ptr();
    PyObject* const answer = PyObject_Vectorcall(method.ptr(), &argument, 1, nullptr);
    if (!answer) forgive(PyExc_RuntimeError);
    return py::reinterpret_steal<py::object>(answer);
}

// How tensors of a type show their memory in one call; null in a torch that has no such call.
const dlpack::ExchangeApi* exchange_of(py::handle type) {
    const py::object capsule = py::getattr(type, dlpack::kAttribute, py::none());
    if (!PyCapsule_IsValid(capsule.ptr(), dlpack::kCapsule)) return nullptr;
    const auto* const api = static_cast<const dlpack::ExchangeApi*>(PyCapsule_GetPointer(capsule.ptr(), dlpack::kCapsule));
    return api->major_version == dlpack::kMajorVersion && api->tensor_of ? api : nullptr;
}

// -1 for what no kernel writes.
int storage_of(const dlpack::Tensor& shown) {
    switch (shown.code * 0x100 + shown.bits) {
        case dlpack::kFloat * 0x100 + 32: return int(Storage::kFloat32);
        case dlpack::kFloat * 0x100 + 64: return int(Storage::kFloat64);
        case dlpack::kFloat * 0x100 + 16: return int(Storage::kFloat16);
        case dlpack::kBFloat * 0x100 + 16: return int(Storage::kBFloat16);
        case dlpack::kFloat8E4M3FN * 0x100 + 8: return int(Storage::kFloat8E4M3);
        case dlpack::kFloat8E5M2 * 0x100 + 8: return int(Storage::kFloat8E5M2);
        default: return -1;
    }
}

// Counts the elements; false if they do not lie one after another.
bool is_contiguous(const dlpack::Tensor& shown, uint64_t& count) {
    count = 1;
    for (int i = shown.ndim - 1; i >= 0; --i) {
        if (shown.shape[i] != 1 && uint64_t(shown.strides[i]) != count) return false;
        count *= uint64_t(shown.shape[i]);
    }
    return true;
}

uint64_t bits64(PyObject* number) {
    const uint64_t bits = PyLong_AsUnsignedLongLongMask(number);
    if (bits == ~uint64_t(0) && PyErr_Occurred()) throw py::error_already_set();
    return bits;
}

}  // namespace

bool Gathered::apart(const std::vector<std::pair<uint64_t, uint64_t>>& extents) const {
    std::vector<uint64_t> first = begins, after = ends;
    for (const auto& [begin, end] : extents) {
        if (begin == end) continue;
        first.push_back(begin);
        after.push_back(end);
    }
    std::sort(first.begin(), first.end());
    std::sort(after.begin(), after.end());
    // Nowhere have two begun that have not ended: the n-th ends before the one after it begins, whichever these are.
    for (size_t i = 1; i < first.size(); ++i)
        if (after[i - 1] > first[i]) return false;
    return true;
}

PlainTensors::PlainTensors(const py::tuple& types, const py::dict& storage, py::object store, py::object transform_of,
                           py::object has_kernels, py::object increment_version, py::object threads)
    : store_(std::move(store)), transform_of_(std::move(transform_of)), has_kernels_(std::move(has_kernels)),
      increment_version_(std::move(increment_version)), threads_(std::move(threads)) {
    for (const auto type : types) types_.push_back(py::reinterpret_borrow<py::object>(type));
    for (const auto& [dtype, number] : storage) dtypes_.at(number.cast<size_t>()) = py::reinterpret_borrow<py::object>(dtype);
    if (types_.empty()) throw std::invalid_argument("at least one type is plain");
    const py::object& tensor = types_.front();
    exchange_ = exchange_of(tensor);
    is_contiguous_ = tensor.attr("is_contiguous");
    is_inference_ = tensor.attr("is_inference");
    is_neg_ = tensor.attr("is_neg");
    data_ptr_ = tensor.attr("data_ptr");
    numel_ = tensor.attr("numel");
}

bool PlainTensors::read(py::handle tensor, Plain& plain) const {
    const auto is_type = [&](const py::object& type) {
        return type.ptr() == reinterpret_cast<PyObject*>(Py_TYPE(tensor.ptr()));
    };
    if (std::none_of(types_.begin(), types_.end(), is_type)) return false;
    plain.is_cpu = attribute(tensor, is_cpu_).ptr() == Py_True;
    bool is_dense = false;
    plain.has_shape = plain.is_cpu && exchange_ && shown(tensor, plain, is_dense);
    if (!plain.has_shape) is_dense = asked_for(tensor, plain);
    const auto no = [&](const py::object& question) { return asked(question, tensor).ptr() == Py_False; };
    return is_dense && plain.data != 0 && no(is_inference_) && no(is_neg_);
}

// In one call, for tensors of the CPU. False where torch refuses.
bool PlainTensors::shown(py::handle tensor, Plain& plain, bool& is_dense) const {
    dlpack::Tensor memory;
    if (exchange_->tensor_of(tensor.ptr(), &memory) != 0) {
        forgive(PyExc_Exception);
        return false;
    }
    plain.storage = memory.lanes == 1 && memory.byte_offset == 0 ? storage_of(memory) : -1;
    plain.data = reinterpret_cast<uintptr_t>(memory.data);
    is_dense = plain.storage >= 0 && is_contiguous(memory, plain.count);
    return true;
}

// By methods of tensors.
bool PlainTensors::asked_for(py::handle tensor, Plain& plain) const {
    const py::object dtype = attribute(tensor, dtype_);
    const auto is_dtype = [&](const py::object& known) { return known.ptr() == dtype.ptr(); };
    const auto known = std::find_if(dtypes_.begin(), dtypes_.end(), is_dtype);
    if (known == dtypes_.end() || asked(is_contiguous_, tensor).ptr() != Py_True) return false;
    const py::object data = asked(data_ptr_, tensor), count = data ? asked(numel_, tensor) : py::object();
    if (!data || !count) return false;
    plain.data = uintptr_t(bits64(data.ptr()));
    plain.storage = int(known - dtypes_.begin());
    plain.count = bits64(count.ptr());
    return true;
}

const Transform* PlainTensors::transform(py::handle distribution, const Plain& plain, py::object& keep) const {
    const py::object &dtype = dtypes_[size_t(plain.storage)], forms = attribute(distribution, forms_);
    PyObject* const known = PyDict_Check(forms.ptr()) ? PyDict_GetItemWithError(forms.ptr(), dtype.ptr()) : nullptr;
    if (known) {
        keep = py::reinterpret_borrow<py::object>(known);
    } else {
        if (PyErr_Occurred()) throw py::error_already_set();
        keep = transform_of_(distribution, dtype);
    }
    return keep.is_none() ? nullptr : keep.cast<const Transform*>();
}

void PlainTensors::about_to_write(py::handle tensor) const {
    const py::object one = checked(PyTuple_Pack(1, tensor.ptr()));
    checked(PyObject_CallOneArg(increment_version_.ptr(), one.ptr()));
}

void PlainTensors::write(const Plain& plain, const Transform& transform, const Draw& draw) const {
    const int threads = plain.count <= kSmall ? 1 : threads_().cast<int>();
    fill_contiguous(plain.data, plain.storage, plain.count, transform, draw.seed, draw.stream, threads);
}

bool PlainTensors::fill(py::handle tensor, py::handle distribution, uint64_t seed, uint64_t stream) const {
    Plain plain;
    py::object keep;
    if (!read(tensor, plain) || !plain.is_cpu) return false;
    const Transform* const made = transform(distribution, plain, keep);
    if (!made) return false;
    about_to_write(tensor);
    write(plain, *made, {seed, stream});
    return true;
}

// What makes a table for each device of plain tensors, one after another.
class PlainTensors::Gathering {
  public:
    Gathering(const PlainTensors& plain, Py_ssize_t n) : plain_(plain), left_(n) {
        gathered.begins.reserve(size_t(n));
        gathered.ends.reserve(size_t(n));
    }

    // False for a tensor that is not plain, or where the kernels do not write what the distribution says.
    bool add(py::handle tensor, py::handle distribution, const Draw& draw) {
        const Py_ssize_t left = left_--;
        Plain plain;
        Table* const table = plain_.read(tensor, plain) ? table_of(tensor, plain) : nullptr;
        const Form* const made = table ? form(distribution, plain, *table) : nullptr;
        if (!made) return false;
        const Storage storage = checked_storage(table->whole.transforms[made->number], plain.storage);
        require_memory(plain.data, plain.count);
        if (table->whole.jobs.empty()) table->whole.jobs.reserve(size_t(left));
        table->whole.jobs.push_back({reinterpret_cast<char*>(plain.data), plain.count, draw, made->number, storage});
        gathered.tensors.append(tensor);
        gathered.begins.push_back(plain.data);
        gathered.ends.push_back(plain.data + plain.count * uint64_t(item_size(storage)));
        return true;
    }

    Gathered gathered;

  private:
    Table* table_on(const py::object& device) {
        for (const auto& [known, table] : devices_)
            if (known.equal(device)) return table;
        devices_.emplace_back(device, nullptr);
        if (plain_.has_kernels_(device).cast<bool>()) {
            const py::object table = py::cast(Table());
            gathered.tables.append(py::make_tuple(device, table));
            devices_.back().second = table.cast<Table*>();
        }
        return devices_.back().second;
    }

    Table* table_of(py::handle tensor, const Plain& plain) {
        if (!plain.is_cpu) return table_on(attribute(tensor, plain_.device_));
        if (!on_cpu_.first) on_cpu_ = {true, table_on(attribute(tensor, plain_.device_))};
        return on_cpu_.second;
    }

    struct Form {  // of a distribution that lives as long as the jobs, in a table
        PyObject* distribution;
        int storage;
        const Table* table;
        uint32_t number;
    };

    // Null where the kernels do not write what the distribution says.
    const Form* form(py::handle distribution, const Plain& plain, Table& table) {
        for (const Form& known : recent_)
            if (known.distribution == distribution.ptr() && known.storage == plain.storage && known.table == &table)
                return &known;
        py::object keep;
        const Transform* const made = plain_.transform(distribution, plain, keep);
        if (!made) return nullptr;
        table.whole.transforms.push_back(*made);
        Form& oldest = recent_[next_++ % kRecent];
        oldest = {distribution.ptr(), plain.storage, &table, uint32_t(table.whole.transforms.size() - 1)};
        return &oldest;
    }

    const PlainTensors& plain_;
    Py_ssize_t left_;
    std::vector<std::pair<py::object, Table*>> devices_;  // null: the kernels do not write there
    std::pair<bool, Table*> on_cpu_ = {false, nullptr};
    Form recent_[kRecent] = {};
    size_t next_ = 0;
};

Gathered PlainTensors::gather(const py::object& jobs) const {
    return gather_whole(py::list(), py::list(), py::list(), 0, jobs);
}

Gathered PlainTensors::gather_whole(const py::list& tensors, const py::list& distributions, const py::list& streams,
                                    uint64_t seed, const py::object& jobs) const {
    const py::object all = checked(PySequence_Fast(jobs.ptr(), "jobs must be a sequence"));
    const auto rows = Py_ssize_t(tensors.size()), n = PySequence_Fast_GET_SIZE(all.ptr());
    if (Py_ssize_t(distributions.size()) != rows || Py_ssize_t(streams.size()) != rows)
        throw std::invalid_argument("columns must have one length");
    Gathering gathering(*this, rows + n);
    py::list& others = gathering.gathered.others;
    for (Py_ssize_t i = 0; i < rows; ++i) {
        const py::object tensor = tensors[size_t(i)], distribution = distributions[size_t(i)], stream = streams[size_t(i)];
        if (!gathering.add(tensor, distribution, {seed, bits64(stream.ptr())})) others.append(py::int_(i));
    }
    for (Py_ssize_t i = 0; i < n; ++i) {
        PyObject* const job = PySequence_Fast_GET_ITEM(all.ptr(), i);
        if (!PyTuple_Check(job) || PyTuple_GET_SIZE(job) != kFields)
            throw std::invalid_argument("a job must have seven fields");
        const auto field = [job](Field which) { return py::handle(PyTuple_GET_ITEM(job, which)); };
        const bool whole = field(kRegion).is_none() && field(kCombine).is(store_);
        const Draw draw = whole ? Draw{bits64(field(kSeed).ptr()), bits64(field(kStream).ptr())} : Draw{};
        if (!whole || !gathering.add(field(kTensor), field(kDistribution), draw)) others.append(py::handle(job));
    }
    return std::move(gathering.gathered);
}

}  // namespace wi
