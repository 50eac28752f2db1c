/* pointwise_cores.h - the inner loops of one compute class, made from the expressions of ops.def.
 *
 * Included by pointwise.c once a class, with DJ_PW_CLASS, its type CORE_T, and CORE_REAL when the
 * class is a float. Every loop reads dense rows of the class and writes a dense row of the class,
 * or of bools for a test; out may be one of the operands. */
#define CORE_NAME3(id, class) core_##id##_##class
#define CORE_NAME2(id, class) CORE_NAME3(id, class)
#define CORE_NAME(id) CORE_NAME2(id, DJ_PW_CLASS)

#define CORE(id, R, expression)                                                                    \
    static void CORE_NAME(id)(int64_t n, const void *const *in, const core_scalars_t *scalars,     \
                              void *out)                                                           \
    {                                                                                              \
        const CORE_T *row_a = in[0], *row_b = in[1], *row_c = in[2];                               \
        CORE_T s0 = scalars->DJ_PW_CLASS[0], s1 = scalars->DJ_PW_CLASS[1];                         \
        R *row = out;                                                                              \
        (void)s0, (void)s1;                                                                        \
        _Pragma("omp simd") for (int64_t i = 0; i < n; i++)                                        \
        {                                                                                          \
            CORE_T a = row_a[i], b = row_b[i], c = row_c[i];                                       \
            (void)a, (void)b, (void)c;                                                             \
            row[i] = CORE_RESULT_##R(expression);                                                  \
        }                                                                                          \
    }

#define CORE_RESULT_test_t(x) ((x) != 0)
#define CORE_RESULT_CORE_T(x) CORE_CAST(x)

#define CORE_RULE_VALUE(id, ...) CORE(id, CORE_T, (__VA_ARGS__))
#define CORE_RULE_TEST(id, ...) CORE(id, test_t, (__VA_ARGS__))
#ifdef CORE_REAL
#define CORE_RULE_REAL(id, ...) CORE(id, CORE_T, (__VA_ARGS__))
#else
#define CORE_RULE_REAL(id, ...)
#endif
#define CORE_RULE_NONE(id, ...)

#define OP(id, name, signature, rule, ...) DJ_RULE_OF(CORE_RULE_, rule)(id, __VA_ARGS__)
#include "planner/ops.def"
#undef OP

/* What pow(x, s) is for the exponents that models use; the same choice as PyTorch's. */
#ifdef CORE_REAL
CORE(SQUARE, CORE_T, a *a)
CORE(CUBE, CORE_T, a *a *a)
CORE(ROOT, CORE_T, DJ_SQRT(a))
CORE(INVERSE_ROOT, CORE_T, 1 / DJ_SQRT(a))
CORE(INVERSE, CORE_T, 1 / a)
CORE(INVERSE_SQUARE, CORE_T, 1 / (a * a))
#endif

#undef CORE_NAME3
#undef CORE_NAME2
#undef CORE_NAME
#undef CORE
#undef CORE_RESULT_test_t
#undef CORE_RESULT_CORE_T
#undef CORE_RULE_VALUE
#undef CORE_RULE_TEST
#undef CORE_RULE_REAL
#undef CORE_RULE_NONE
#undef CORE_CAST
#undef CORE_REAL
#undef CORE_T
#undef DJ_PW_CLASS
