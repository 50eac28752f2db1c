/* matmul.c - the smallest whole program: y = relu(x @ w + b) on a rank that owns the memory.
 *
 * The weight is uploaded once as a weight (shared and sealed on the rank); three ops are recorded and leave
 * in one request when y is fetched. The result is checked here against the same sum in plain C.
 *
 *     djinn-run -n 1 -- build/release/bin/matmul
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "djinn.h"

enum { M = 8, K = 64, N = 32 };

static float x[M][K], w[K][N], b[N], y[M][N];

static void fill(float *values, int count, unsigned seed)
{
    for (int i = 0; i < count; i++) {
        seed = seed * 1664525u + 1013904223u;
        values[i] = (float)(seed >> 8) / (1 << 23) - 1.0f;
    }
}

static void check(djinn_status_t status, const char *what)
{
    if (status == DJINN_OK)
        return;
    fprintf(stderr, "%s: %s\n", what, djinn_error());
    exit(1);
}

static djinn_arg_t tensor(const djinn_tensor_t *t)
{
    return (djinn_arg_t){.kind = DJINN_ARG_TENSOR, .value.tensors = t};
}

static djinn_arg_t one(void)
{
    return (djinn_arg_t){.kind = DJINN_ARG_INT_SCALAR, .value.integer = 1};
}

static double worst_error(void)
{
    double worst = 0;
    for (int i = 0; i < M; i++)
        for (int j = 0; j < N; j++) {
            double sum = b[j];
            for (int k = 0; k < K; k++)
                sum += (double)x[i][k] * w[k][j];
            worst = fmax(worst, fabs(fmax(sum, 0) - y[i][j]));
        }
    return worst;
}

int main(void)
{
    djinn_t *djinn;
    djinn_tensor_t tx, tw, tb, product, result;
    djinn_stats_t stats;
    fill(&x[0][0], M * K, 1);
    fill(&w[0][0], K * N, 2);
    fill(b, N, 3);
    check(djinn_connect(NULL, &djinn), "connect");
    check(djinn_upload(djinn, DJINN_FLOAT32, 2, (int64_t[]){M, K}, x, 0, &tx), "upload x");
    check(djinn_upload(djinn, DJINN_FLOAT32, 2, (int64_t[]){K, N}, w, DJINN_UPLOAD_WEIGHT, &tw),
          "upload w");
    check(djinn_upload(djinn, DJINN_FLOAT32, 1, (int64_t[]){N}, b, DJINN_UPLOAD_WEIGHT, &tb),
          "upload b");
    djinn_arg_t addmm[] = {tensor(&tb), tensor(&tx), tensor(&tw), one(), one()};
    check(djinn_record(djinn, djinn_op("aten::addmm"), addmm, 5, &product), "addmm");
    djinn_arg_t relu[] = {tensor(&product)};
    check(djinn_record(djinn, djinn_op("aten::relu"), relu, 1, &result), "relu");
    djinn_release(product.storage);
    check(djinn_fetch(djinn, &result, y, sizeof(y)), "fetch y");
    djinn_stats(djinn, &stats);
    double error = worst_error();
    printf("y = relu(x @ w + b), %d x %d x %d: worst error %.2g\n", M, K, N, error);
    printf("%llu requests, %llu bytes up, %llu down, plans: %llu made, %llu hit; stack peak %llu\n",
           (unsigned long long)stats.requests, (unsigned long long)stats.bytes_up,
           (unsigned long long)stats.bytes_down, (unsigned long long)stats.plan_misses,
           (unsigned long long)stats.plan_hits, (unsigned long long)stats.stack_peak_bytes);
    djinn_release(tx.storage);
    djinn_release(tw.storage);
    djinn_release(tb.storage);
    djinn_release(result.storage);
    djinn_close(djinn);
    return error < 1e-4 ? 0 : 1;
}
