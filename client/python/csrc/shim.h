/* shim.h - what the files of the PyTorch frontend share.
 *
 * The frontend teaches PyTorch one more device, "djinn" (PrivateUse1), over the C library. Tensors
 * stay plain torch.Tensor: the storage's DataPtr holds a Cell, the Cell holds the counted
 * djinn_storage_t, and so views alias as PyTorch says they do and the last of them releases the
 * bytes on the rank. Capture, shapes and wire format are C; here IValues become djinn_arg_t and
 * nothing else happens.
 *
 * A Cell may be empty: torch.empty() records nothing. The first write that covers all of it makes
 * the storage (ones() is one recorded op), and a use before any write makes it without defined
 * contents.
 *
 * Threads: PyTorch calls from any thread without the interpreter's lock. */
#pragma once

#include <atomic>

#include <ATen/core/Tensor.h>
#include <ATen/core/stack.h>
#include <c10/core/ScalarType.h>

#include "client/djinn.h"

namespace djinn_torch
{

struct Cell {
    std::atomic<djinn_storage_t *> handle{nullptr};
    size_t bytes = 0;
    ~Cell();
};

/* module.cpp: the connection in use (made through Python's djinn.connect() at first need), and
 * errors as Python exceptions of the type that belongs to the status. */
djinn_t *connection();
[[noreturn]] void raise_status(int status);
void warn(const std::string &text);
inline void check(int status)
{
    if (status < 0)
        raise_status(status);
}

/* device.cpp */
constexpr c10::DeviceType kDevice = c10::DeviceType::PrivateUse1;
c10::ScalarType scalar_type(int dtype);
int dtype_of(c10::ScalarType type); /* raises for a type that Djinn has not */
at::Tensor make_empty(c10::IntArrayRef sizes, c10::IntArrayRef strides, c10::ScalarType type);
at::Tensor wrap(const djinn_tensor_t &tensor); /* takes the caller's reference */
Cell *cell_of(const at::Tensor &tensor);
/* The tensor as the C library sees it; a Cell without a storage gets one. */
void look(const at::Tensor &tensor, djinn_tensor_t *out);
/* True if nothing was ever written and `tensor` is dense and covers the whole storage. */
bool is_untouched(const at::Tensor &tensor);
/* Puts a fresh storage (one reference, given away) behind an untouched tensor. */
void adopt(const at::Tensor &tensor, djinn_storage_t *storage);
c10::DataPtr new_cell(size_t bytes);
djinn_storage_t *materialise(Cell *cell);

/* moves.cpp */
void fetch(const at::Tensor &tensor, void *target, size_t bytes);
at::Tensor upload(const at::Tensor &host);
at::Tensor &copy_(at::Tensor &self, const at::Tensor &source, bool non_blocking);
void resize_storage(const c10::Storage &storage, size_t bytes);
extern thread_local bool uploading_weights;

/* capture.cpp */
void register_rows();
int row(const char *name); /* op handle, or raises */

/* ops.cpp: fetches the operands, runs the op here and sends its results back; warns once an op. */
void run_on_host(const c10::OperatorHandle &handle, torch::jit::Stack *stack);
void run_on_host_for_rank(const c10::OperatorHandle &handle, torch::jit::Stack *stack);

/* executor.cpp */
djinn_t *connect_local();

} // namespace djinn_torch
