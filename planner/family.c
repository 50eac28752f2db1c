/* family.c - op names to families, once a process. */
#include "planner/family.h"

#include <pthread.h>
#include <string.h>

/* Names without "aten::" or "djinn::", without overload, without the '_' of an in-place row. A name
 * that ends in "_backward" or "_backward_data" is looked up without that when it has no row here.
 */
static const struct {
    const char *name;
    uint8_t family;
} rows[] = {
    {"copy", DJ_FAMILY_COPY},
    {"copy_like", DJ_FAMILY_COPY},
    {"clone", DJ_FAMILY_COPY},
    {"to_copy", DJ_FAMILY_COPY},
    {"_to_copy", DJ_FAMILY_COPY},
    {"resize", DJ_FAMILY_COPY},
    {"empty", DJ_FAMILY_CREATE},
    {"empty_strided", DJ_FAMILY_CREATE},
    {"empty_like", DJ_FAMILY_CREATE},
    {"full", DJ_FAMILY_CREATE},
    {"full_like", DJ_FAMILY_CREATE},
    {"fill", DJ_FAMILY_CREATE},
    {"zeros", DJ_FAMILY_CREATE},
    {"ones", DJ_FAMILY_CREATE},
    {"arange", DJ_FAMILY_CREATE},
    {"eye", DJ_FAMILY_CREATE},
    {"linspace", DJ_FAMILY_CREATE},
    {"scalar_tensor", DJ_FAMILY_CREATE},
    {"rand", DJ_FAMILY_CREATE},
    {"randn", DJ_FAMILY_CREATE},
    {"randint", DJ_FAMILY_CREATE},
    {"randperm", DJ_FAMILY_CREATE},
    {"rand_like", DJ_FAMILY_CREATE},
    {"randn_like", DJ_FAMILY_CREATE},
    {"randint_like", DJ_FAMILY_CREATE},
    {"bernoulli", DJ_FAMILY_CREATE},
    {"normal", DJ_FAMILY_CREATE},
    {"uniform", DJ_FAMILY_CREATE},
    {"multinomial", DJ_FAMILY_CREATE},
    {"native_dropout", DJ_FAMILY_POINTWISE},
    {"sum", DJ_FAMILY_REDUCE},
    {"mean", DJ_FAMILY_REDUCE},
    {"amax", DJ_FAMILY_REDUCE},
    {"amin", DJ_FAMILY_REDUCE},
    {"aminmax", DJ_FAMILY_REDUCE},
    {"any", DJ_FAMILY_REDUCE},
    {"all", DJ_FAMILY_REDUCE},
    {"prod", DJ_FAMILY_REDUCE},
    {"max", DJ_FAMILY_REDUCE},
    {"min", DJ_FAMILY_REDUCE},
    {"argmax", DJ_FAMILY_REDUCE},
    {"argmin", DJ_FAMILY_REDUCE},
    {"var", DJ_FAMILY_REDUCE},
    {"var_mean", DJ_FAMILY_REDUCE},
    {"std", DJ_FAMILY_REDUCE},
    {"linalg_vector_norm", DJ_FAMILY_REDUCE},
    {"logsumexp", DJ_FAMILY_REDUCE},
    {"_local_scalar_dense", DJ_FAMILY_COPY},
    {"native_layer_norm", DJ_FAMILY_NORM},
    {"native_group_norm", DJ_FAMILY_NORM},
    {"native_batch_norm", DJ_FAMILY_NORM},
    {"_native_batch_norm_legit", DJ_FAMILY_NORM},
    {"_native_batch_norm_legit_no_training", DJ_FAMILY_NORM},
    {"_native_batch_norm_legit_functional", DJ_FAMILY_NORM},
    {"_batch_norm_with_update", DJ_FAMILY_NORM},
    {"_batch_norm_no_update", DJ_FAMILY_NORM},
    {"_native_batch_norm_legit_functional", DJ_FAMILY_NORM},
    {"batch_norm", DJ_FAMILY_NORM},
    {"rms_norm", DJ_FAMILY_NORM},
    {"_fused_rms_norm", DJ_FAMILY_NORM},
    {"_softmax", DJ_FAMILY_SOFTMAX},
    {"_log_softmax", DJ_FAMILY_SOFTMAX},
    {"_safe_softmax", DJ_FAMILY_SOFTMAX},
    {"mm", DJ_FAMILY_PRODUCT},
    {"bmm", DJ_FAMILY_PRODUCT},
    {"addmm", DJ_FAMILY_PRODUCT},
    {"baddbmm", DJ_FAMILY_PRODUCT},
    {"linear", DJ_FAMILY_PRODUCT},
    {"mv", DJ_FAMILY_PRODUCT},
    {"addmv", DJ_FAMILY_PRODUCT},
    {"dot", DJ_FAMILY_PRODUCT},
    {"convolution", DJ_FAMILY_CONVOLUTION},
    {"attention", DJ_FAMILY_ATTENTION},
    {"embedding", DJ_FAMILY_EMBEDDING},
    {"embedding_dense_backward", DJ_FAMILY_SCATTER},
    {"_embedding_bag", DJ_FAMILY_EMBEDDING},
    {"_embedding_bag_forward_only", DJ_FAMILY_EMBEDDING},
    {"index_select", DJ_FAMILY_GATHER},
    {"gather", DJ_FAMILY_GATHER},
    {"index", DJ_FAMILY_GATHER},
    {"take", DJ_FAMILY_GATHER},
    {"masked_select", DJ_FAMILY_GATHER},
    {"nonzero", DJ_FAMILY_SCAN},
    {"index_copy", DJ_FAMILY_SCATTER},
    {"index_put", DJ_FAMILY_SCATTER},
    {"index_add", DJ_FAMILY_SCATTER},
    {"index_fill", DJ_FAMILY_SCATTER},
    {"scatter", DJ_FAMILY_SCATTER},
    {"scatter_add", DJ_FAMILY_SCATTER},
    {"scatter_reduce", DJ_FAMILY_SCATTER},
    {"masked_scatter", DJ_FAMILY_SCATTER},
    {"select_scatter", DJ_FAMILY_LAYOUT},
    {"slice_scatter", DJ_FAMILY_LAYOUT},
    {"diagonal_scatter", DJ_FAMILY_LAYOUT},
    {"as_strided_scatter", DJ_FAMILY_LAYOUT},
    {"isin", DJ_FAMILY_SORT},
    {"sort", DJ_FAMILY_SORT},
    {"argsort", DJ_FAMILY_SORT},
    {"topk", DJ_FAMILY_SORT},
    {"kthvalue", DJ_FAMILY_SORT},
    {"median", DJ_FAMILY_SORT},
    {"mode", DJ_FAMILY_SORT},
    {"searchsorted", DJ_FAMILY_SORT},
    {"bucketize", DJ_FAMILY_SORT},
    {"cumsum", DJ_FAMILY_SCAN},
    {"cumprod", DJ_FAMILY_SCAN},
    {"cummax", DJ_FAMILY_SCAN},
    {"cummin", DJ_FAMILY_SCAN},
    {"logcumsumexp", DJ_FAMILY_SCAN},
    {"avg_pool1d", DJ_FAMILY_POOL},
    {"avg_pool2d", DJ_FAMILY_POOL},
    {"avg_pool3d", DJ_FAMILY_POOL},
    {"max_pool2d_with_indices", DJ_FAMILY_POOL},
    {"max_pool3d_with_indices", DJ_FAMILY_POOL},
    {"adaptive_avg_pool1d", DJ_FAMILY_POOL},
    {"_adaptive_avg_pool2d", DJ_FAMILY_POOL},
    {"_adaptive_avg_pool3d", DJ_FAMILY_POOL},
    {"adaptive_max_pool2d", DJ_FAMILY_POOL},
    {"grid_sampler_2d", DJ_FAMILY_RESAMPLE},
    {"grid_sampler_3d", DJ_FAMILY_RESAMPLE},
    {"upsample_bilinear2d", DJ_FAMILY_RESAMPLE},
    {"_upsample_bilinear2d_aa", DJ_FAMILY_RESAMPLE},
    {"upsample_bicubic2d", DJ_FAMILY_RESAMPLE},
    {"_upsample_bicubic2d_aa", DJ_FAMILY_RESAMPLE},
    {"upsample_linear1d", DJ_FAMILY_RESAMPLE},
    {"upsample_trilinear3d", DJ_FAMILY_RESAMPLE},
    {"upsample_nearest1d", DJ_FAMILY_RESAMPLE},
    {"upsample_nearest2d", DJ_FAMILY_RESAMPLE},
    {"upsample_nearest3d", DJ_FAMILY_RESAMPLE},
    {"cat", DJ_FAMILY_LAYOUT},
    {"stack", DJ_FAMILY_LAYOUT},
    {"repeat", DJ_FAMILY_LAYOUT},
    {"flip", DJ_FAMILY_LAYOUT},
    {"roll", DJ_FAMILY_LAYOUT},
    {"tril", DJ_FAMILY_LAYOUT},
    {"triu", DJ_FAMILY_LAYOUT},
    {"constant_pad_nd", DJ_FAMILY_LAYOUT},
    {"reflection_pad1d", DJ_FAMILY_LAYOUT},
    {"reflection_pad2d", DJ_FAMILY_LAYOUT},
    {"reflection_pad3d", DJ_FAMILY_LAYOUT},
    {"replication_pad1d", DJ_FAMILY_LAYOUT},
    {"replication_pad2d", DJ_FAMILY_LAYOUT},
    {"replication_pad3d", DJ_FAMILY_LAYOUT},
    {"pixel_shuffle", DJ_FAMILY_LAYOUT},
    {"pixel_unshuffle", DJ_FAMILY_LAYOUT},
    {"im2col", DJ_FAMILY_LAYOUT},
    {"col2im", DJ_FAMILY_LAYOUT},
    {"_cdist_forward", DJ_FAMILY_DISTANCE},
    {"_pdist_forward", DJ_FAMILY_DISTANCE},
    {"_fft_r2c", DJ_FAMILY_TRANSFORM},
    {"_fft_c2r", DJ_FAMILY_TRANSFORM},
    {"_fft_c2c", DJ_FAMILY_TRANSFORM},
    {"nll_loss_forward", DJ_FAMILY_LOSS},
    {"nll_loss2d_forward", DJ_FAMILY_LOSS},
    {"nll_loss", DJ_FAMILY_LOSS},
    {"nll_loss2d", DJ_FAMILY_LOSS},
    {"mse_loss", DJ_FAMILY_LOSS},
    {"smooth_l1_loss", DJ_FAMILY_LOSS},
    {"huber_loss", DJ_FAMILY_LOSS},
    {"binary_cross_entropy", DJ_FAMILY_LOSS},
};

static dj_op_traits_t traits[DJ_OP_COUNT + 1];
static pthread_once_t traits_once = PTHREAD_ONCE_INIT;

static uint8_t find_row(const char *name, size_t length)
{
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (strlen(rows[i].name) == length && memcmp(rows[i].name, name, length) == 0)
            return rows[i].family;
    return DJ_FAMILY_OTHER;
}

static uint8_t find_family(const char *name)
{
    static const char backward[] = "_backward";
    const char *colons = strstr(name, "::");
    name = colons != NULL ? colons + 2 : name;
    size_t length = strcspn(name, ".");
    if (length > 1 && name[length - 1] == '_')
        length--;
    uint8_t family = find_row(name, length);
    const char *at = strstr(name, backward);
    if (family == DJ_FAMILY_OTHER && at != NULL)
        family = find_row(name, (size_t)(at - name));
    return family;
}

static bool calls_function(const char *expression)
{
    static const char *const functions[] = {"EXP", "LOG", "POW", "SIN",
                                            "COS", "TAN", "ERF", "GELU"};
    for (size_t i = 0; i < sizeof functions / sizeof functions[0]; i++)
        if (strstr(expression, functions[i]) != NULL)
            return true;
    return false;
}

static void find_traits(void)
{
    for (uint16_t op = 0; op < DJ_OP_COUNT; op++) {
        const dj_op_info_t *info = dj_op_info(op);
        traits[op].backward = strstr(info->name, "_backward") != NULL;
        traits[op].transcendental = info->pointwise && calls_function(info->expression);
        traits[op].family =
            info->is_view ? (uint8_t)DJ_FAMILY_COPY : find_family(info->name);
        if (info->broadcasts)
            traits[op].family = DJ_FAMILY_POINTWISE;
    }
}

dj_op_traits_t dj_op_traits(uint16_t op)
{
    pthread_once(&traits_once, find_traits);
    return traits[op < DJ_OP_COUNT ? op : DJ_OP_COUNT];
}

const char *dj_family_name(uint8_t family)
{
    static const char *const names[] = {
#define X(name, text) text,
        DJ_FAMILY_LIST(X)
#undef X
    };
    return family < DJ_FAMILY_COUNT ? names[family] : "?";
}
