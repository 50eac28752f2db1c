/* wrong_answers.c - preloaded into djinn-selftest: the client library as it must never be.
 *
 * WRONG=bits: the last byte of everything fetched has one bit turned. WRONG=type: every error is
 * ERR_INTERNAL. A selftest that calls either fine is no test. */
#include <dlfcn.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "client/djinn.h"

static bool is_wrong(const char *what)
{
    const char *wrong = getenv("WRONG");
    return wrong && strcmp(wrong, what) == 0;
}

static djinn_status_t untyped(djinn_status_t status)
{
    return status != DJINN_OK && is_wrong("type") ? DJINN_ERR_INTERNAL : status;
}

djinn_status_t djinn_fetch(djinn_t *djinn, const djinn_tensor_t *tensor, void *target,
                           uint64_t bytes)
{
    djinn_status_t (*real)(djinn_t *, const djinn_tensor_t *, void *, uint64_t) =
        (djinn_status_t (*)(djinn_t *, const djinn_tensor_t *, void *, uint64_t))dlsym(
            RTLD_NEXT, "djinn_fetch");
    djinn_status_t status = real(djinn, tensor, target, bytes);
    if (status == DJINN_OK && is_wrong("bits"))
        ((uint8_t *)target)[bytes - 1] ^= 0x40;
    return untyped(status);
}

djinn_status_t djinn_record(djinn_t *djinn, int op, const djinn_arg_t *args, int n_args,
                            djinn_tensor_t *outs)
{
    djinn_status_t (*real)(djinn_t *, int, const djinn_arg_t *, int, djinn_tensor_t *) =
        (djinn_status_t (*)(djinn_t *, int, const djinn_arg_t *, int, djinn_tensor_t *))dlsym(
            RTLD_NEXT, "djinn_record");
    return untyped(real(djinn, op, args, n_args, outs));
}
