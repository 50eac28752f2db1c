/* rules.h - tells pointwise rows of ops.def from the others while the preprocessor runs.
 *
 * DJ_RULE_OF(PREFIX_, rule) is PREFIX_VALUE (the result is of the compute class), PREFIX_REAL (the
 * same, floats only) or PREFIX_TEST (bool) for a pointwise shape rule, and PREFIX_NONE for any
 * other. */
#ifndef DJ_GPU_RULES_H
#define DJ_GPU_RULES_H

#define DJ_RULE_KIND_pw ~, VALUE
#define DJ_RULE_KIND_pw_alpha ~, VALUE
#define DJ_RULE_KIND_pw_number ~, VALUE
#define DJ_RULE_KIND_pw_bits ~, VALUE
#define DJ_RULE_KIND_pw_keep ~, VALUE
#define DJ_RULE_KIND_pw_where ~, VALUE
#define DJ_RULE_KIND_pw_real ~, REAL
#define DJ_RULE_KIND_pw_test ~, TEST

#define DJ_RULE_SECOND(a, b, ...) b
#define DJ_RULE_PICK(...) DJ_RULE_SECOND(__VA_ARGS__, NONE, ~)
#define DJ_RULE_PASTE2(prefix, kind) prefix##kind
#define DJ_RULE_PASTE(prefix, kind) DJ_RULE_PASTE2(prefix, kind)
#define DJ_RULE_OF(prefix, rule) DJ_RULE_PASTE(prefix, DJ_RULE_PICK(DJ_RULE_KIND_##rule))

#endif
