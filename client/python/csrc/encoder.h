/* encoder.h - IValues of PyTorch as the arguments of one recorded call (capture.cpp). */
#pragma once

#include "shim.h"

namespace djinn_torch
{

/* Tensors and integers live in arrays that never move, so that args may point at them. */
class Encoder
{
  public:
    djinn_arg_t args[DJINN_MAX_ARGS];
    int n = 0;

    void tensor(const at::Tensor &tensor);
    void none()
    {
        args[n++].kind = DJINN_ARG_NONE;
    }
    void integer(int64_t value)
    {
        args[n].kind = DJINN_ARG_INT;
        args[n++].value.integer = value;
    }
    void integers(c10::IntArrayRef values); /* which outlive the encoder */
    void scalar(const c10::Scalar &value);
    void dtype(std::optional<c10::ScalarType> type)
    {
        type ? integer(dtype_of(*type)) : none();
    }
    void argument(char letter, const c10::IValue &value);

  private:
    void list(const c10::IValue &value);
    void element(const at::Tensor &tensor, std::vector<djinn_tensor_t> &places);
    c10::IntArrayRef keep(c10::ArrayRef<c10::IValue> values);
    djinn_tensor_t fixed_[DJINN_MAX_ARGS];
    int n_fixed_ = 0;
    int64_t integers_[4 * DJINN_MAX_RANK];
    size_t n_integers_ = 0;
    std::vector<djinn_tensor_t> list_[2];
    int n_lists_ = 0;
    char letter_ = 0;
    c10::SmallVector<at::Tensor, 2> uploads_;
};

/* Records a call and wraps its new tensors. */
void record_new(int op, Encoder &encoder, int n_outs, c10::SmallVectorImpl<at::Tensor> &results);

} // namespace djinn_torch
