/* executor.cpp - execution mode `local`: the recorded graph replayed by PyTorch on this host.
 *
 * It stands where a rank stands: it receives the same EXEC and UPLOAD messages, decodes them with
 * the planner's own functions, and replays each node through PyTorch's dispatcher by the row's
 * schema name. Same recorded program, other arithmetic: so it is the oracle that tests compare
 * ranks with, and the fallback where no rank can serve.
 *
 * Shown programs are kept as a rank keeps them; the client counts on the last DJ_SHOWN_MAX (4096).
 */
#include "shim.h"

#include <deque>
#include <mutex>
#include <unordered_map>

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <c10/core/InferenceMode.h>

extern "C" {
#include "comm/messages.h"
#include "planner/graph.h"
}

namespace djinn_torch
{

using torch::jit::Stack;

struct Refused {
    dj_status_t status;
};

static void demand(dj_status_t status)
{
    if (status < 0)
        throw Refused{status};
}

struct KeyHash {
    size_t operator()(const std::string &key) const
    {
        size_t value;
        memcpy(&value, key.data(), sizeof(value));
        return value;
    }
};

static std::string text_of(const dj_hash_t &hash)
{
    return std::string((const char *)&hash, sizeof(hash));
}

/* ---- what a session holds ---- */

class Local
{
  public:
    ~Local()
    {
        for (auto &[key, graph] : graphs_)
            dj_graph_destroy(graph);
    }
    void exec(const dj_exec_t &exec, const djinn_local_message_t &message);
    void upload(const dj_upload_t &upload, const djinn_local_message_t &message);
    std::mutex lock;

  private:
    dj_graph_t *graph_of(const dj_exec_segment_t &segment);
    void segment(const dj_exec_segment_t &segment, const uint8_t *data);
    void fetch(const dj_exec_body_t &body, uint32_t count, const djinn_local_message_t &message);
    c10::Storage &ref(uint64_t ref);

    std::unordered_map<uint64_t, c10::Storage> refs_;
    std::unordered_map<std::string, std::string, KeyHash> structures_; /* by program key */
    std::unordered_map<std::string, dj_graph_t *, KeyHash> graphs_;    /* by exact key */
    std::deque<std::string> order_; /* exact keys, oldest first */
};

enum { GRAPHS_MAX = 8192 }; /* twice what the client counts on */

static c10::Storage new_storage(uint64_t bytes)
{
    return at::empty({(int64_t)bytes}, at::kByte).storage();
}

c10::Storage &Local::ref(uint64_t ref)
{
    auto found = refs_.find(ref);
    if (found == refs_.end())
        demand(dj_fail(DJ_ERR_STALE, "ref %llx is not of this session", (unsigned long long)ref));
    return found->second;
}

dj_graph_t *Local::graph_of(const dj_exec_segment_t &segment)
{
    const auto &header = segment.header;
    std::string exact = text_of(header.exact_key), program = text_of(header.program_key);
    auto found = graphs_.find(exact);
    if (found != graphs_.end())
        return found->second;
    if (header.flags & DJ_SEGMENT_STRUCTURE)
        structures_[program].assign((const char *)segment.structure, header.structure_bytes);
    auto structure = structures_.find(program);
    if (structure == structures_.end() || !(header.flags & DJ_SEGMENT_SIZES))
        demand(dj_fail(DJ_ERR_NO_PLAN, "a program that this session never showed"));
    dj_graph_t *graph = nullptr;
    demand(dj_graph_decode(structure->second.data(), structure->second.size(), segment.sizes,
                           header.sizes_bytes, header.n_scalars, &graph));
    if (order_.size() >= GRAPHS_MAX) {
        dj_graph_destroy(graphs_[order_.front()]);
        graphs_.erase(order_.front());
        order_.pop_front();
    }
    graphs_[exact] = graph;
    order_.push_back(exact);
    return graph;
}

/* ---- one node ---- */

struct Running {
    const dj_graph_t *graph;
    const uint64_t *scalars;
    std::vector<c10::Storage> storages;

    int64_t offset(uint32_t slot) const
    {
        return slot == DJ_SLOT_NONE ? 0 : (int64_t)scalars[slot];
    }
    at::Tensor window(uint32_t storage, uint32_t slot, const dj_view_t &view)
    {
        at::Tensor tensor = at::empty({0}, scalar_type(view.dtype));
        auto *impl = tensor.unsafeGetTensorImpl();
        impl->set_storage_keep_dtype(storages[storage]);
        impl->set_storage_offset(offset(slot));
        impl->set_sizes_and_strides({view.sizes, view.rank}, {view.strides, view.rank});
        return tensor;
    }
    c10::Scalar scalar(uint8_t dtype, uint32_t slot) const
    {
        double real;
        memcpy(&real, &scalars[slot], sizeof(real));
        if (dtype == DJ_F64)
            return real;
        return dtype == DJ_BOOL ? c10::Scalar(scalars[slot] != 0)
                                : c10::Scalar((int64_t)scalars[slot]);
    }
    at::Tensor operand(const dj_operand_t &operand)
    {
        if (operand.storage != DJ_STORAGE_SCALAR)
            return window(operand.storage, operand.slot, operand.view);
        auto value = scalar(operand.view.dtype, operand.slot);
        at::Tensor tensor =
            at::scalar_tensor(value, at::TensorOptions().dtype(scalar_type(operand.view.dtype)));
        tensor.unsafeGetTensorImpl()->set_wrapped_number(true);
        return tensor;
    }
};

/* The decoder says "none" of an optional argument in the form its letter has. */
static bool is_absent(const dj_arg_t &arg)
{
    return arg.kind == DJ_ARG_NONE ||
           (arg.kind == DJ_ARG_TENSORS && arg.operands[0].storage == DJ_STORAGE_NONE) ||
           (arg.kind == DJ_ARG_SCALAR && arg.scalar.dtype == DJ_DTYPE_NONE);
}

static c10::IValue tensors_value(Running &running, char letter, const dj_arg_t &arg)
{
    if (letter == 't' || letter == 'T')
        return is_absent(arg) ? c10::IValue() : c10::IValue(running.operand(arg.operands[0]));
    c10::List<at::Tensor> all;
    c10::List<std::optional<at::Tensor>> some;
    for (uint32_t i = 0; i < arg.count; i++) {
        bool absent = arg.operands[i].storage == DJ_STORAGE_NONE;
        if (letter == 'l')
            all.push_back(running.operand(arg.operands[i]));
        else
            some.push_back(absent ? std::nullopt
                                  : std::make_optional(running.operand(arg.operands[i])));
    }
    return letter == 'l' ? c10::IValue(all) : c10::IValue(some);
}

static c10::IValue integers_value(const dj_arg_t &arg, const c10::TypePtr &type)
{
    auto list = type->cast<c10::ListType>();
    if (!list)
        return type->kind() == c10::TypeKind::BoolType ? c10::IValue(arg.integers[0] != 0)
                                                       : c10::IValue(arg.integers[0]);
    if (list->getElementType()->kind() != c10::TypeKind::BoolType)
        return c10::IntArrayRef(arg.integers, arg.count);
    c10::List<bool> flags;
    for (uint32_t i = 0; i < arg.count; i++)
        flags.push_back(arg.integers[i] != 0);
    return flags;
}

static c10::IValue value_of(Running &running, char letter, const dj_arg_t &arg,
                            const c10::Argument &to)
{
    auto type = to.type();
    if (auto optional = type->cast<c10::OptionalType>())
        type = optional->getElementType();
    if (arg.kind == DJ_ARG_NONE || (letter == 'y' && arg.integer == DJ_DTYPE_NONE))
        return to.type()->kind() == c10::TypeKind::ListType ? c10::IValue(c10::IntArrayRef())
               : letter == '-' && to.default_value()        ? *to.default_value()
                                                            : c10::IValue();
    switch (arg.kind) {
    case DJ_ARG_TENSORS:
        return tensors_value(running, letter, arg);
    case DJ_ARG_INTEGERS:
        return integers_value(arg, type);
    case DJ_ARG_SCALAR: {
        if (is_absent(arg))
            return c10::IValue();
        auto scalar = running.scalar(arg.scalar.dtype, arg.slot);
        return type->kind() == c10::TypeKind::FloatType ? c10::IValue(scalar.toDouble())
                                                        : c10::IValue(scalar);
    }
    default:
        return type->kind() == c10::TypeKind::BoolType ? c10::IValue(arg.integer != 0)
               : letter == 'y'                         ? c10::IValue(scalar_type((int)arg.integer))
                                                       : c10::IValue(arg.integer);
    }
}

static at::Tensor arange(int64_t count, const c10::Scalar &start, const c10::Scalar &step)
{
    bool whole = start.isIntegral(true) && step.isIntegral(true);
    at::Tensor steps = at::arange(count, whole ? at::kLong : at::kDouble);
    return steps.mul_(step).add_(start);
}

/* The rows that are no op of ATen. */
static at::Tensor call_own(Running &running, const dj_call_t &call)
{
    auto args = call.args;
    auto tensor = [&](int i) { return running.operand(args[i].operands[0]); };
    auto scalar = [&](int i) { return running.scalar(args[i].scalar.dtype, args[i].slot); };
    auto type = [&](int i) { return scalar_type((int)args[i].integer); };
    switch (call.op) {
    case DJ_OP_COPY:
        return tensor(0);
    case DJ_OP_TO_COPY:
        return tensor(0).to(type(1));
    case DJ_OP_EMPTY:
        return at::empty({args[0].integers, args[0].count}, type(1));
    case DJ_OP_FULL:
        return at::full({args[0].integers, args[0].count}, scalar(1), type(2));
    case DJ_OP_ARANGE:
        return arange(args[0].integer, scalar(1), scalar(2)).to(type(3));
    case DJ_OP_GELU_TANH:
        return at::gelu(tensor(0), "tanh");
    case DJ_OP_SDPA: {
        std::optional<at::Tensor> mask;
        std::optional<double> scale;
        if (!is_absent(args[3]))
            mask = tensor(3);
        if (!is_absent(args[6]))
            scale = scalar(6).toDouble();
        return at::scaled_dot_product_attention(tensor(0), tensor(1), tensor(2), mask, 0.0,
                                                args[5].integer != 0, scale, args[7].integer != 0);
    }
    default:
        demand(dj_fail(DJ_ERR_UNSUPPORTED, "%s cannot be replayed by PyTorch",
                       dj_op_info(call.op)->name));
        return {};
    }
}

static const c10::OperatorHandle *handle_of(uint16_t op)
{
    static std::vector<std::optional<c10::OperatorHandle>> handles(DJ_OP_COUNT);
    const char *name = dj_op_info(op)->name;
    if (!handles[op] && strncmp(name, "aten::", 6) == 0) {
        const char *dot = strchr(name, '.');
        std::string base(name, dot ? (size_t)(dot - name) : strlen(name));
        handles[op] =
            c10::Dispatcher::singleton().findSchemaOrThrow(base.c_str(), dot ? dot + 1 : "");
    }
    return handles[op] ? &*handles[op] : nullptr;
}

static void store(Running &running, const dj_output_t &out, const at::Tensor &result)
{
    if (out.target == DJ_TARGET_NEW)
        running.storages[out.storage] = new_storage(running.graph->storages[out.storage].bytes);
    at::Tensor target = running.window(out.storage, out.slot, out.view);
    /* PyTorch on a CPU leaves by-products out that other devices have (batch_norm's statistics). */
    if (target.numel() > 0 && result.numel() > 0)
        target.copy_(result);
}

static void run_node(Running &running, const dj_node_t &node)
{
    const dj_op_info_t *info = dj_op_info(node.call.op);
    const auto *handle = handle_of(node.call.op);
    if (!handle)
        return store(running, node.outs[0], call_own(running, node.call));
    Stack stack;
    const auto &arguments = handle->schema().arguments();
    for (size_t i = 0; i < arguments.size() && i < node.call.n_args; i++)
        stack.push_back(value_of(running, info->signature[i], node.call.args[i], arguments[i]));
    handle->callBoxed(stack);
    for (uint32_t i = 0; i < info->n_outs; i++)
        store(running, node.outs[i], stack[i].toTensor());
}

/* ---- messages ---- */

void Local::segment(const dj_exec_segment_t &segment, const uint8_t *data)
{
    dj_graph_t *graph = graph_of(segment);
    uint32_t n_listed = graph->n_bindings - graph->n_inputs;
    if (segment.header.n_inputs != graph->n_inputs || segment.header.n_outputs != n_listed ||
        segment.header.n_scalars != graph->n_scalars)
        demand(dj_fail(DJ_ERR_PROTOCOL, "a segment's bindings do not fit its program"));
    demand(dj_graph_check_offsets(graph, segment.scalars));
    Running running{graph, segment.scalars, std::vector<c10::Storage>(graph->n_storages)};
    for (uint32_t i = 0; i < graph->n_inputs; i++) {
        const dj_binding_t &binding = segment.inputs[i];
        const dj_storage_t &storage = graph->storages[graph->bindings[i]];
        if (binding.offset != DJ_BINDING_REF) {
            c10::Storage made = new_storage(storage.bytes);
            if (binding.bytes != storage.bytes)
                demand(dj_fail(DJ_ERR_PROTOCOL, "immediate %u has another size", i));
            memcpy(made.mutable_data(), data + binding.offset, binding.bytes);
            running.storages[graph->bindings[i]] = made;
            if (binding.ref)
                refs_[binding.ref] = made;
            continue;
        }
        c10::Storage &held = ref(binding.ref);
        if (held.nbytes() < storage.bytes)
            demand(dj_fail(DJ_ERR_SHAPE, "input %u is smaller than its program says", i));
        running.storages[graph->bindings[i]] = held;
    }
    for (uint32_t i = 0; i < graph->n_nodes; i++)
        run_node(running, graph->nodes[i]);
    for (uint32_t i = 0; i < n_listed; i++)
        if (segment.outputs[i])
            refs_[segment.outputs[i]] = running.storages[graph->bindings[graph->n_inputs + i]];
}

void Local::fetch(const dj_exec_body_t &body, uint32_t count, const djinn_local_message_t &message)
{
    uint64_t at = 0;
    for (uint32_t i = 0; i < count; i++) {
        const dj_fetch_t &fetch = body.fetches[i];
        c10::Storage &held = ref(fetch.ref);
        if (fetch.offset > held.nbytes() || fetch.bytes > held.nbytes() - fetch.offset ||
            fetch.bytes > message.reply_bytes - at)
            demand(dj_fail(DJ_ERR_SHAPE, "fetch %u reaches past its storage", i));
        memcpy((uint8_t *)message.reply + at, (const uint8_t *)held.data() + fetch.offset,
               fetch.bytes);
        at += fetch.bytes;
    }
}

void Local::exec(const dj_exec_t &exec, const djinn_local_message_t &message)
{
    std::vector<dj_exec_segment_t> segments(
        std::min<uint32_t>(exec.n_segments, DJ_EXEC_SEGMENTS_MAX));
    dj_exec_body_t body;
    demand(dj_exec_decode(&exec, message.payload, message.payload_bytes, segments.data(),
                          (uint32_t)segments.size(), &body));
    for (const auto &each : segments)
        segment(each, body.data);
    fetch(body, exec.n_fetches, message);
    for (uint32_t i = 0; i < exec.n_releases; i++)
        refs_.erase(body.releases[i]);
}

void Local::upload(const dj_upload_t &upload, const djinn_local_message_t &message)
{
    if (upload.bytes != message.payload_bytes)
        demand(dj_fail(DJ_ERR_PROTOCOL, "an upload of another size than it says"));
    c10::Storage made = new_storage(upload.bytes);
    memcpy(made.mutable_data(), message.payload, upload.bytes);
    refs_[upload.ref] = made;
}

static djinn_status_t execute(void *context, const djinn_local_message_t *message)
{
    auto *local = static_cast<Local *>(context);
    std::lock_guard<std::mutex> guard(local->lock);
    c10::InferenceMode below;
    dj_header_t header;
    int status = dj_header_check(message->header, message->header_bytes);
    if (status != DJ_OK)
        return (djinn_status_t)status;
    memcpy(&header, message->header, sizeof(header));
    const void *body = (const uint8_t *)message->header + sizeof(header);
    try {
        if (header.type == DJ_MESSAGE_EXEC)
            local->exec(*static_cast<const dj_exec_t *>(body), *message);
        else if (header.type == DJ_MESSAGE_UPLOAD)
            local->upload(*static_cast<const dj_upload_t *>(body), *message);
        else
            return (djinn_status_t)dj_fail(DJ_ERR_UNSUPPORTED,
                                           "mode local reads no files itself: the client does");
        return DJINN_OK;
    } catch (const Refused &refused) {
        return (djinn_status_t)refused.status;
    } catch (const std::bad_alloc &) {
        return (djinn_status_t)dj_fail(DJ_ERR_MEMORY, "no memory left on this host");
    } catch (const std::exception &error) {
        std::string text = error.what();
        return (djinn_status_t)dj_fail(DJ_ERR_INVALID, "PyTorch: %s",
                                       text.substr(0, text.find('\n')).c_str());
    }
}

/* The caller has closed the connection before, so nothing calls into an older session any more. */
djinn_t *connect_local()
{
    static std::unique_ptr<Local> session;
    djinn_t *djinn = nullptr;
    session = std::make_unique<Local>();
    check(djinn_connect_local(&execute, session.get(), &djinn));
    return djinn;
}

} // namespace djinn_torch
