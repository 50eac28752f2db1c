/* module.cpp - the Python face of the shim: connect, statistics, loading, and errors by type. */
#include "shim.h"

#include <mutex>

#include <torch/csrc/Exceptions.h>
#include <torch/csrc/autograd/python_variable.h>
#include <torch/csrc/utils/pybind.h>

namespace py = pybind11;

namespace djinn_torch
{

static std::atomic<djinn_t *> current{nullptr};

/* ---- errors ---- */

/* djinn._errors.by_status maps a status to the exception class. */
[[noreturn]] static void raise_python(int status, const std::string &text)
{
    py::gil_scoped_acquire gil;
    py::object type = py::module_::import("djinn._errors").attr("by_status")(status);
    py::object error = type(text, status);
    PyErr_SetObject(type.ptr(), error.ptr());
    python_error thrown;
    thrown.persist();
    throw std::move(thrown);
}

void raise_status(int status)
{
    const char *text = djinn_error();
    raise_python(status, text && *text ? text : djinn_status_name(status));
}

void warn(const std::string &text)
{
    py::gil_scoped_acquire gil;
    if (PyErr_WarnEx(PyExc_RuntimeWarning, text.c_str(), 1) < 0) {
        python_error thrown;
        thrown.persist();
        throw std::move(thrown);
    }
}

/* ---- connection ---- */

djinn_t *connection()
{
    djinn_t *djinn = current.load(std::memory_order_acquire);
    if (C10_LIKELY(djinn != nullptr))
        return djinn;
    {
        py::gil_scoped_acquire gil;
        py::module_::import("djinn").attr("connect")();
    }
    djinn = current.load(std::memory_order_acquire);
    if (!djinn)
        raise_python(DJINN_ERR_CONNECT, "not connected: call djinn.connect()");
    return djinn;
}

static void set_current(djinn_t *djinn)
{
    djinn_t *old = current.exchange(djinn);
    if (old)
        djinn_close(old);
}

static void connect(const std::optional<std::string> &address,
                    const std::optional<std::string> &token, const std::string &mode,
                    uint32_t deadline_ms)
{
    djinn_options_t options = {};
    options.abi_version = DJINN_ABI_VERSION;
    options.address = address ? address->c_str() : nullptr;
    options.token = token ? token->c_str() : nullptr;
    options.mode = mode.c_str();
    options.deadline_ms = deadline_ms;
    djinn_t *djinn = nullptr;
    int status;
    {
        py::gil_scoped_release unlocked;
        status = djinn_connect(&options, &djinn);
    }
    check(status);
    py::gil_scoped_release unlocked;
    set_current(djinn);
}

static void connect_to_local()
{
    py::gil_scoped_release unlocked;
    set_current(nullptr);
    set_current(connect_local());
}

static void disconnect()
{
    py::gil_scoped_release unlocked;
    set_current(nullptr);
}

static py::dict stats()
{
    djinn_stats_t s;
    djinn_t *djinn = connection();
    {
        py::gil_scoped_release unlocked;
        djinn_stats(djinn, &s);
    }
    py::dict d;
#define PUT(name) d[#name] = s.name
    PUT(requests), PUT(messages_out), PUT(messages_in), PUT(bytes_up), PUT(bytes_down);
    PUT(rendezvous), PUT(plan_hits), PUT(plan_resizes), PUT(plan_misses), PUT(ops), PUT(segments);
    PUT(run_ns), PUT(planning_ns), PUT(queue_ns), PUT(stack_peak_bytes), PUT(storages);
    PUT(program_bytes);
#undef PUT
    return d;
}

static std::string info(const std::optional<std::string> &address,
                        const std::optional<std::string> &token)
{
    djinn_options_t options = {};
    options.abi_version = DJINN_ABI_VERSION;
    options.address = address ? address->c_str() : nullptr;
    options.token = token ? token->c_str() : nullptr;
    char *json = nullptr;
    int status;
    {
        py::gil_scoped_release unlocked;
        status = djinn_info(&options, &json);
    }
    check(status);
    std::unique_ptr<char, decltype(&free)> owned(json, &free);
    return json;
}

static py::list load_many(const std::string &path, const std::vector<std::string> &names)
{
    std::vector<const char *> pointers;
    std::vector<djinn_tensor_t> tensors(names.size());
    for (const auto &name : names)
        pointers.push_back(name.c_str());
    djinn_t *djinn = connection();
    int status;
    {
        py::gil_scoped_release unlocked;
        status = djinn_load_many(djinn, path.c_str(), (int)names.size(), pointers.data(),
                                 tensors.data());
    }
    check(status);
    py::list out;
    for (const auto &tensor : tensors)
        out.append(py::reinterpret_steal<py::object>(THPVariable_Wrap(wrap(tensor))));
    return out;
}

static void name_storage(const at::Tensor &tensor, const std::string &name)
{
    TORCH_CHECK(tensor.device().type() == kDevice, "only tensors on djinn have names in a snapshot");
    djinn_storage_t *storage = cell_of(tensor)->handle.load();
    if (storage)
        check(djinn_storage_set_name(storage, name.c_str()));
}

template <typename Call> static void unlocked_check(Call call)
{
    djinn_t *djinn = connection();
    int status;
    {
        py::gil_scoped_release unlocked;
        status = call(djinn);
    }
    check(status);
}

static void bind(py::module_ &m)
{
    m.def("connect", &connect);
    m.def("connect_local", &connect_to_local);
    m.def("disconnect", &disconnect);
    m.def("is_connected", [] { return current.load() != nullptr; });
    m.def("stats", &stats);
    m.def("info", &info);
    m.def("load_many", &load_many);
    m.def("bucket", [](int64_t size) { return djinn_bucket(connection(), size); });
    m.def("has_op", [](const std::string &name) { return djinn_op(name.c_str()) >= 0; });
    m.def("flush", [] { unlocked_check(djinn_flush); });
    m.def("synchronize", [] { unlocked_check(djinn_synchronize); });
    m.def("alive", [] { unlocked_check(djinn_alive); });
    m.def("snapshot_write", [](const std::string &path, const std::string &name, int phase) {
        djinn_snapshot_about_t about{name.c_str(), phase};
        unlocked_check(
            [&](djinn_t *djinn) { return djinn_snapshot_now(djinn, path.c_str(), &about); });
    });
    m.def("snapshot_begin", [] { unlocked_check(djinn_snapshot_begin); });
    m.def("snapshot_end",
          [](const std::optional<std::string> &path, const std::string &name, int phase) {
              djinn_snapshot_about_t about{name.c_str(), phase};
              unlocked_check([&](djinn_t *djinn) {
                  return djinn_snapshot_end(djinn, path ? path->c_str() : nullptr, &about);
              });
          });
    m.def("name_storage", &name_storage);
    m.def("boundary", [] {
        if (current.load())
            unlocked_check(djinn_boundary);
    });
    m.def("uploading_weights", [](bool on) { return std::exchange(uploading_weights, on); });
}

} // namespace djinn_torch

PYBIND11_MODULE(_C, m)
{
    if (djinn_abi_version() != DJINN_ABI_VERSION)
        throw std::runtime_error(
            "libdjinn and the PyTorch frontend are of different versions: rebuild");
    djinn_torch::register_rows();
    djinn_torch::bind(m);
}
