/* The shape rules against PyTorch: reads the cases that shape_cases.py wrote (its head describes
 * the tokens) and asks dj_op_infer() the same. Strides of dimensions of size 1 and of empty tensors
 * mean nothing and are not compared; offsets are those of views. Each case is also tried with one
 * number changed, where all that is asked for is an answer. The script fails where an overload of
 * Core ATen has neither a row nor a reason. Exits 77 where there is no PyTorch to ask. */
#include <stdio.h>
#include <unistd.h>

#include "tests/planner/builder.h"

#define OPERANDS_MAX 64
#define INTEGERS_MAX 64
#define CHANGES 48 /* of each case */
#define SHOWN_MAX 3 /* of each op; more say nothing new */

typedef struct shape_case {
    char name[64];
    dj_arg_t args[DJ_ARGS_MAX];
    uint32_t n_args;
    dj_operand_t operands[OPERANDS_MAX];
    uint32_t n_operands;
    int64_t integers[DJ_ARGS_MAX][INTEGERS_MAX];
    bool fails;
    uint32_t n_outs;
    dj_view_t outs[DJ_OUTS_MAX];
} shape_case_t;

enum { ABSENT = UINT8_MAX }; /* the dtype of an output that PyTorch leaves out */

static FILE *input;
static uint64_t changes = 88172645463325252ull;

static int64_t read_integer(void)
{
    long long value;
    if (fscanf(input, "%lld", &value) != 1)
        fail_msg("the case file ends in the middle of a case");
    return value;
}

static void read_word(char *word)
{
    if (fscanf(input, "%63s", word) != 1)
        fail_msg("the case file ends in the middle of a case");
}

static dj_view_t read_view(void)
{
    dj_view_t view = {.dtype = (uint8_t)read_integer()};
    if (view.dtype == ABSENT)
        return view;
    view.rank = (uint8_t)read_integer();
    assert_true(view.rank <= DJ_RANK_MAX);
    for (uint32_t i = 0; i < view.rank; i++)
        view.sizes[i] = read_integer();
    for (uint32_t i = 0; i < view.rank; i++)
        view.strides[i] = read_integer();
    view.offset = read_integer();
    return view;
}

static dj_scalar_t read_scalar(void)
{
    dj_scalar_t scalar = {.dtype = (uint8_t)read_integer()};
    if (scalar.dtype == DJ_F64)
        assert_int_equal(fscanf(input, "%lf", &scalar.real), 1);
    else
        scalar.integer = read_integer();
    return scalar;
}

static dj_operand_t *read_operand(shape_case_t *c, const char *word)
{
    dj_operand_t *operand = &c->operands[c->n_operands++];
    assert_true(c->n_operands < OPERANDS_MAX);
    *operand = (dj_operand_t){.storage = DJ_STORAGE_NONE, .slot = DJ_SLOT_NONE};
    if (strcmp(word, "t") == 0) {
        operand->storage = 0;
        operand->view = read_view();
    } else if (strcmp(word, "number") == 0) {
        operand->storage = DJ_STORAGE_SCALAR;
        operand->scalar = read_scalar();
        operand->view.dtype = operand->scalar.dtype;
    }
    return operand;
}

static dj_arg_t read_argument(shape_case_t *c)
{
    char word[64];
    dj_arg_t arg = arg_none();
    read_word(word);
    if (strcmp(word, "t") == 0 || strcmp(word, "number") == 0) {
        arg = arg_tensor(read_operand(c, word));
    } else if (strcmp(word, "l") == 0) {
        arg = arg_list(&c->operands[c->n_operands], (uint32_t)read_integer());
        for (uint32_t i = 0; i < arg.count; i++) {
            read_word(word);
            read_operand(c, word);
        }
    } else if (strcmp(word, "i") == 0) {
        arg = arg_integer(read_integer());
    } else if (strcmp(word, "I") == 0) {
        arg = arg_integers(c->integers[c->n_args], (uint32_t)read_integer());
        assert_true(arg.count <= INTEGERS_MAX);
        for (uint32_t i = 0; i < arg.count; i++)
            c->integers[c->n_args][i] = read_integer();
    } else if (strcmp(word, "s") == 0) {
        arg.kind = DJ_ARG_SCALAR;
        arg.scalar = read_scalar();
    } else {
        assert_string_equal(word, "none");
    }
    return arg;
}

/* False at the end of the file. */
static bool read_case(shape_case_t *c)
{
    char word[64];
    memset(c, 0, sizeof *c);
    read_word(word);
    if (strcmp(word, "end") == 0)
        return false;
    assert_string_equal(word, "case");
    read_word(c->name);
    for (uint32_t n = (uint32_t)read_integer(); c->n_args < n; c->n_args++) {
        assert_true(n <= DJ_ARGS_MAX);
        c->args[c->n_args] = read_argument(c);
    }
    read_word(word);
    c->fails = strcmp(word, "error") == 0;
    if (c->fails)
        return true;
    c->n_outs = (uint32_t)read_integer();
    assert_true(c->n_outs <= DJ_OUTS_MAX);
    for (uint32_t i = 0; i < c->n_outs; i++)
        c->outs[i] = read_view();
    return true;
}

static void print_view(const char *what, const dj_view_t *view)
{
    char text[192];
    print_message("    %s %s strides", what, dj_view_format(view, text, sizeof text));
    for (uint32_t i = 0; i < view->rank; i++)
        print_message(" %lld", (long long)view->strides[i]);
    print_message("\n");
}

static void print_case(const shape_case_t *c, uint32_t number)
{
    print_message("case %u: %s\n", number, c->name);
    for (uint32_t i = 0; i < c->n_operands; i++)
        print_view("operand", &c->operands[i].view);
}

static bool agrees(const dj_view_t *own, const dj_view_t *theirs)
{
    if (theirs->dtype == ABSENT)
        return own->rank == 1 && own->sizes[0] == 0;
    if (own->dtype != theirs->dtype || !dj_view_same_shape(own, theirs))
        return false;
    return dj_view_count(own) == 0 || dj_view_equal(own, theirs);
}

static bool check_case(shape_case_t *c, uint32_t number, bool show)
{
    dj_view_t outs[DJ_OUTS_MAX];
    uint16_t op = dj_op_find(c->name);
    dj_call_t call = {.op = op, .n_args = (uint16_t)c->n_args, .args = c->args};
    dj_status_t status = dj_op_infer(&call, outs);
    if ((status != DJ_OK) != c->fails) {
        if (!show)
            return false;
        print_case(c, number);
        print_message("    %s; PyTorch %s\n", status != DJ_OK ? dj_error_text() : "accepted",
                      c->fails ? "refuses" : "accepts");
        return false;
    }
    if (c->fails)
        return strstr(dj_error_text(), c->name) != NULL;
    bool is_view = dj_op_info(op)->is_view;
    bool right = (is_view ? 1 : dj_op_info(op)->n_outs) == c->n_outs;
    for (uint32_t i = 0; i < c->n_outs && !is_view; i++)
        c->outs[i].offset = 0; /* where PyTorch put a new tensor is its own affair */
    for (uint32_t i = 0; i < c->n_outs && right; i++)
        right = agrees(&outs[i], &c->outs[i]);
    for (uint32_t i = 0; i < c->n_outs && !right && show; i++) {
        if (i == 0)
            print_case(c, number);
        print_view("djinn  ", &outs[i]);
        print_view("PyTorch", &c->outs[i]);
    }
    return right;
}

static int64_t any_number(void)
{
    static const int64_t wild[] = {
        INT64_MIN, INT64_MIN + 1, -(1ll << 46),    -2,        -1,        0,         1,        2,
        1ll << 20, 1ll << 30,     (1ll << 30) + 1, 1ll << 45, 1ll << 46, 1ll << 62, INT64_MAX};
    return wild[random_below(&changes, sizeof wild / sizeof wild[0])];
}

static void change_operand(dj_operand_t *operand)
{
    uint32_t at = random_below(&changes, DJ_RANK_MAX);
    switch (random_below(&changes, 5)) {
    case 0:
        operand->view.strides[at] = any_number();
        break;
    case 1:
        operand->view.dtype = (uint8_t)random_below(&changes, DJ_DTYPE_COUNT + 1);
        break;
    case 2:
        operand->view.rank = (uint8_t)random_below(&changes, DJ_RANK_MAX + 2);
        break;
    default:
        operand->view.sizes[at] = any_number();
        if (operand->view.rank <= DJ_RANK_MAX)
            operand->view =
                dj_view_contiguous(operand->view.dtype, operand->view.rank, operand->view.sizes);
    }
}

static void change(shape_case_t *c)
{
    uint32_t at = random_below(&changes, c->n_args);
    dj_arg_t *arg = &c->args[at];
    if (arg->kind == DJ_ARG_TENSORS && arg->count > 0)
        change_operand(
            &c->operands[arg->operands - c->operands + random_below(&changes, arg->count)]);
    else if (arg->kind == DJ_ARG_INTEGER)
        arg->integer = any_number();
    else if (arg->kind == DJ_ARG_INTEGERS && random_below(&changes, 4) == 0)
        arg->count = random_below(&changes, 2 * DJ_RANK_MAX + 2);
    else if (arg->kind == DJ_ARG_INTEGERS && arg->count > 0)
        c->integers[at][random_below(&changes, arg->count)] = any_number();
    else
        *arg = arg_none();
}

/* A case of which a few numbers or operands are others: what comes past most checks of a rule.
 * Only that there is an answer can be said of it. */
static void survives_a_change(const shape_case_t *given)
{
    static shape_case_t c;
    dj_view_t outs[DJ_OUTS_MAX];
    c = *given;
    for (uint32_t i = 0; i < c.n_args; i++) { /* from the copy, not from the case */
        if (c.args[i].kind == DJ_ARG_INTEGERS)
            c.args[i].integers = c.integers[i];
        else if (c.args[i].kind == DJ_ARG_TENSORS)
            c.args[i].operands = c.operands + (given->args[i].operands - given->operands);
    }
    for (uint32_t n = 1 + random_below(&changes, 3); n > 0; n--)
        change(&c);
    uint16_t op = dj_op_find(c.name);
    dj_call_t call = {.op = op, .n_args = (uint16_t)c.n_args, .args = c.args};
    dj_status_t status = dj_op_infer(&call, outs);
    if (status != DJ_OK)
        assert_non_null(strstr(dj_error_text(), c.name));
    for (uint32_t i = 0; status == DJ_OK && i < dj_op_info(op)->n_outs; i++)
        assert_ok(dj_view_check(&outs[i], UINT64_MAX));
}

static void agrees_with_pytorch(void **state)
{
    shape_case_t *c = calloc(1, sizeof *c);
    uint32_t n_cases = 0, n_wrong = 0, wrong_of[DJ_OP_COUNT] = {0};
    assert_non_null(c);
    while (read_case(c)) {
        uint16_t op = dj_op_find(c->name);
        assert_true(op < DJ_OP_COUNT);
        for (uint32_t i = 0; i < CHANGES && c->n_args > 0; i++)
            survives_a_change(c);
        if (check_case(c, n_cases++, wrong_of[op] < SHOWN_MAX))
            continue;
        n_wrong++;
        wrong_of[op]++;
    }
    long long said = read_integer(), core = read_integer(), served = read_integer();
    print_message("%u cases; %lld of the %lld overloads of Core ATen have a rule, %lld a reason\n",
                  n_cases, served, core, (long long)read_integer());
    for (uint32_t i = 0; i < DJ_OP_COUNT; i++)
        if (wrong_of[i] > 0)
            print_message("%s: %u wrong\n", dj_op_info((uint16_t)i)->name, wrong_of[i]);
    assert_int_equal(n_wrong, 0);
    assert_int_equal(n_cases, said);
    assert_true(n_cases >= 20000 && core >= 193);
    free(c);
}

/* The cases are made anew at each run, so they follow the op table. */
static bool read_given(void)
{
    const char *path = getenv("SHAPE_CASES");
    input = path ? fopen(path, "r") : NULL;
    return input != NULL;
}

static bool make_cases(char *path)
{
    char command[1024];
    int file = mkstemp(path);
    if (file < 0)
        return false;
    close(file);
    snprintf(command, sizeof command, "%s %s %s %s", SHAPE_PYTHON, SHAPE_SCRIPT, SHAPE_OPS, path);
    if (system(command) == 0)
        input = fopen(path, "r");
    unlink(path);
    return input != NULL;
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(agrees_with_pytorch)};
    char path[] = "/tmp/djinn_shapes_XXXXXX";
    if (access(SHAPE_PYTHON, X_OK) != 0)
        return 77;
    if (!read_given() && !make_cases(path)) {
        print_error("%s failed\n", SHAPE_SCRIPT);
        return 1;
    }
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    fclose(input);
    return failed;
}
